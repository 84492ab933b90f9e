"""Nuclei by StarDist: StarDist's own geometry, blocks as the whole, any pixel size; training."""

import dataclasses
import pickle
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from benchmarks.stardist_training import (
    Scene,
    StarDistTrainingParams,
    augmented_scene,
    targets,
    train_stardist,
)
from scipy import ndimage

from napari_mosaik.core import Cancelled, InputError
from napari_mosaik.core.blocks import cut
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.progress import cancellable
from napari_mosaik.core.raster import Raster
from napari_mosaik.learning.devices import ComputeDevice
from napari_mosaik.segment import NucleiParams, segment_nuclei
from napari_mosaik.segment.densenet.training import stain_augmented
from napari_mosaik.segment.metrics import object_scores
from napari_mosaik.segment.stardist import (
    Architecture,
    StarDistNetwork,
    StarDistNuclei,
    StarDistWeights,
    embedded_weights,
    intensity_range,
)
from napari_mosaik.segment.stardist.model import (
    _inner,
    paint_polygons,
    resampled,
    stardist_module,
    suppress,
)
from napari_mosaik.segment.stardist.network import PieceWork
from napari_mosaik.segment.stitch import keep_centroid_in_core
from tests.segment.joining import joined

RANGE = (0.0, 255.0)


def random_weights(seed=0, radius_px=5.0):
    """A network with random weights that sees polygons of some size everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        widths = Architecture(base=4, features=8)
        arrays = {k: v.numpy().copy() for k, v in StarDistNetwork(widths).state_dict().items()}
    rng = np.random.default_rng(seed)
    for key, array in arrays.items():
        if key.endswith("weight"):
            array[:] = rng.normal(0, np.sqrt(2 / array[0].size), array.shape)
        else:
            array[:] = 0
    arrays["layers.dist.bias"] += radius_px
    arrays["layers.prob.weight"] *= 30
    arrays["layers.prob.bias"] += 0.9
    return StarDistWeights("random", arrays, widths, prob_threshold=0.5, nms_threshold=0.3)


def noise(shape, seed=1, sigma=2.0):
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(*shape, 3)), (sigma, sigma, 0))
    return np.clip(128 + 60 * field / field.std(), 0, 255).astype(np.uint8)


def discs(n, spacing_um=0.5, seed=0, radius_um=4.0):
    """Dark discs on a bright ground, and their labels."""
    rng = np.random.default_rng(seed)
    rows, cols = (np.mgrid[:n, :n] + 0.5) * spacing_um
    truth = np.zeros((n, n), np.int32)
    pitch = 14.0
    for k, (i, j) in enumerate(
        np.ndindex(int(n * spacing_um // pitch), int(n * spacing_um // pitch))
    ):
        y, x = (np.array([i, j]) + 0.5) * pitch + rng.uniform(-2, 2, 2)
        truth[np.hypot(rows - y, cols - x) < radius_um * rng.uniform(0.8, 1.2)] = k + 1
    cover = ndimage.gaussian_filter((truth > 0).astype(float), 0.5 / spacing_um)[..., None]
    rgb = 220 - cover * np.array([120, 150, 60]) + rng.normal(0, 5, (n, n, 3))
    return np.clip(rgb, 0, 255).astype(np.uint8), truth


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small networks are fastest so, also where others use the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained():
    """A small network that has learned to find discs."""
    scenes = [Scene(*discs(96, seed=k)) for k in range(6)]
    params = StarDistTrainingParams(
        base=8,
        features=16,
        patch_px=64,
        batch_size=4,
        steps=160,
        learning_rate=5e-3,
        augmentation=0.2,
    )
    steps = train_stardist(scenes, params, np.random.default_rng(0), name="discs")
    losses = []
    while True:
        try:
            losses.append(next(steps).loss)
        except StopIteration as end:
            return end.value, losses


def test_training_finds_what_it_was_shown(trained):
    weights, losses = trained
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    rgb, truth = discs(160, seed=99)
    scores = object_scores(truth, StarDistNuclei(weights).segment(rgb, 0.5))
    assert scores.f1 > 0.9
    assert weights.training["settings"]["steps"] == 160


@pytest.mark.parametrize("spacing_um", [0.25, 0.4, 1.0])
def test_other_pixel_sizes_give_labels_on_their_own_lattice(trained, spacing_um):
    rgb, truth = discs(round(90 / spacing_um) + 1, spacing_um, seed=98)
    labels = StarDistNuclei(trained[0]).segment(rgb, spacing_um)
    assert labels.shape == truth.shape
    assert labels.dtype == np.int32
    assert object_scores(truth, labels).f1 > 0.85


@pytest.mark.parametrize("spacing_um", [0.25, 0.4, 0.5, 1.0, 1.3])
def test_places_are_the_same_at_any_pixel_size(spacing_um):
    factor = 0.5 / spacing_um
    shape = round(60 / factor), round(70 / factor)
    circle = np.array([[61, 52]]), np.ones(1, np.float32), np.full((1, 32), 20, np.float32)
    painted = paint_polygons(circle, (round(120 * factor), round(110 * factor)), factor)
    assert np.sum(painted > 0) * spacing_um**2 == pytest.approx(np.pi * 10**2, rel=0.05)
    centre = (np.argwhere(painted).mean(0) + 0.5) * spacing_um
    np.testing.assert_allclose(centre, [30.75, 26.25], atol=0.08 + 0.15 * spacing_um)
    rows, cols = ((np.mgrid[: shape[0], : shape[1]] + 0.5) * spacing_um).astype(np.float32)
    ramp = np.stack([rows, cols, rows + cols], axis=2)
    found = resampled(ramp, spacing_um / 0.5)
    assert found.shape[:2] == tuple(round(n * spacing_um / 0.5) for n in shape)
    expected = (np.mgrid[: found.shape[0], : found.shape[1]] + 0.5) * 0.5
    inner = slice(4, -4)
    np.testing.assert_allclose(found[inner, inner, 0], expected[0][inner, inner], atol=0.03)
    np.testing.assert_allclose(found[inner, inner, 1], expected[1][inner, inner], atol=0.03)


@pytest.mark.parametrize("at_once", [1 << 14, 100])
def test_labels_are_those_of_stardist_itself(monkeypatch, at_once):
    """StarDist's own dense route: suppress and paint with its public functions."""
    import stardist

    monkeypatch.setattr("napari_mosaik.segment.stardist.model._AT_ONCE", at_once)

    rng = np.random.default_rng(3)
    prob = ndimage.gaussian_filter(rng.random((60, 70)), 1.5).astype(np.float32)
    prob = (prob - prob.min()) / np.ptp(prob)
    dist = (4 + 3 * ndimage.gaussian_filter(rng.random((60, 70, 32)), (2, 2, 1))).astype(np.float32)
    points, scores, rays = stardist.non_maximum_suppression(
        dist, prob, grid=(2, 2), prob_thresh=0.6, nms_thresh=0.3
    )
    expected = stardist.polygons_to_label(rays, points, (119, 140), prob=scores)
    rows, cols = np.nonzero((prob > 0.6) & _inner(prob, 0, 0, (119, 140)))
    kept = suppress(np.stack([rows, cols], 1) * 2, prob[rows, cols], dist[rows, cols], 0.3)
    inside = points[:, 0] < 119
    np.testing.assert_array_equal(kept[0], points[inside])
    np.testing.assert_array_equal(kept[2], rays[inside])
    np.testing.assert_array_equal(paint_polygons(kept, (119, 140)), expected)
    assert len(kept[0]) > 20
    assert not suppress(points[:0], scores[:0], rays[:0], 0.3)[0].size


def test_importing_stardist_changes_no_warnings():
    form = warnings.formatwarning
    stardist_module("nms")
    assert warnings.formatwarning is form


def test_blocks_with_halo_give_the_nuclei_of_the_whole():
    model = StarDistNuclei(random_weights(), RANGE)
    rgb = noise((490, 530))
    whole = model.segment(rgb, 0.5)
    blocks = [
        (block.window, keep_centroid_in_core(model.segment(rgb[block.window], 0.5), block.inner))
        for block in cut(Lattice("he", whole.shape, (0.5, 0.5)), 256, model.halo_um)
    ]
    out = joined(whole.shape, blocks)[...]
    assert whole.max() > 300
    assert out.max() == object_scores(whole, out).n_matched == whole.max()
    assert ((out > 0) != (whole > 0)).mean() < 1e-4  # corners of polygons that fall on a pixel
    edge = np.zeros(whole.shape, bool)
    edge[240:272], edge[:, 240:272] = True, True
    assert (out[~edge] > 0).sum() == pytest.approx((whole[~edge] > 0).sum(), abs=20)


def test_parts_of_a_block_and_a_mask_give_the_nuclei_of_the_whole_there():
    model = StarDistNuclei(random_weights(), RANGE)
    rgb, where = noise((320, 400)), np.zeros((320, 400), bool)
    where[:, 272:] = where[160:224, :96] = True
    whole = model.candidates(rgb, 0.5)
    parts = [(slice(0, 320), slice(200, 400)), (slice(96, 300), slice(0, 210))]
    found = model.candidates(rgb, 0.5, where)
    assert where[found[0][:, 0], found[0][:, 1]].all()
    expected = {tuple(p) for p in whole[0][whole[0][:, 1] >= 340]}
    assert len(expected) > 10
    assert {tuple(p) for p in found[0][found[0][:, 1] >= 340]} == expected
    painted = [paint_polygons(found, (320, 400))[part] > 0 for part in parts]
    again = pickle.loads(pickle.dumps(model))  # as a worker of a cluster gets it
    for labels, mask in zip(again.segment_parts(rgb, 0.5, parts, where), painted, strict=True):
        assert ((labels > 0) != mask).sum() <= 2  # corners of polygons that fall on a pixel
        assert labels.max() == len(np.unique(labels)) - 1 > 2


def test_a_block_without_any_candidate_has_no_nuclei():
    model = StarDistNuclei(random_weights(), RANGE, prob_threshold=0.999999999)
    assert model.segment(noise((64, 80)), 0.5).max() == 0


def test_bfloat16_keeps_the_count(trained):
    rgb, _ = discs(320, seed=97)
    exact = StarDistNuclei(trained[0]).segment(rgb, 0.5)
    coarse = StarDistNuclei(trained[0], bfloat16=True).segment(rgb, 0.5)
    assert exact.max() > 100
    # processors compute bfloat16 differently: 138 and 140 of 140 nuclei have been seen
    assert abs(int(coarse.max()) - int(exact.max())) <= 0.02 * exact.max()


def test_pictures_without_contrast_have_no_nuclei(trained):
    model = StarDistNuclei(trained[0])
    for value in (0, 128, 255):
        assert model.segment(np.full((50, 60, 3), value, np.uint8), 0.5).max() == 0
    with pytest.raises(InputError, match="positive"):
        model.segment(np.zeros((50, 60, 3), np.uint8), 0.0)


def test_intensity_range_is_that_of_csbdeep():
    from csbdeep.utils import normalize

    rgb = noise((40, 50))
    low, high = intensity_range(rgb)
    expected = normalize(rgb, 1, 99.8)
    np.testing.assert_allclose((rgb - low) / (high - low), expected, atol=1e-5)
    assert intensity_range([]) == (0.0, 255.0)


def test_targets_are_distances_to_the_edge():
    rows, cols = np.mgrid[:40, :40]
    labels = (np.hypot(rows - 20, cols - 20) < 10).astype(np.int32)
    prob, dist = targets(labels, 32)
    assert prob.shape == (20, 20)
    assert dist.shape == (20, 20, 32)
    assert np.unravel_index(prob.argmax(), prob.shape) == (10, 10)
    np.testing.assert_allclose(dist[10, 10], 10, atol=0.8)
    assert prob[0, 0] == 0
    assert (dist[0, 0] == 0).all()


def test_changed_stain_is_another_picture_of_the_same_nuclei():
    rgb, _ = discs(64)
    changed = stain_augmented(rgb, 0.2, np.random.default_rng(0))
    assert changed.shape == rgb.shape
    assert changed.dtype == np.uint8
    grey, other = rgb.mean(2).ravel(), changed.mean(2).ravel()
    assert np.corrcoef(grey, other)[0, 1] > 0.8
    assert np.abs(grey - other).mean() > 3


def test_training_refuses_what_does_not_fit():
    rgb, truth = discs(64)
    rng = np.random.default_rng(0)
    params = StarDistTrainingParams(patch_px=64)
    with pytest.raises(InputError, match="at least one labelled image"):
        next(train_stardist([], params, rng))
    with pytest.raises(InputError, match="same size"):
        next(train_stardist([Scene(rgb[:50], truth)], params, rng))
    with pytest.raises(InputError, match="same size"):
        next(train_stardist([Scene(rgb, truth, truth[:50] > 0)], params, rng))
    with pytest.raises(InputError, match="chances are 1 numbers"):
        next(train_stardist([Scene(rgb, truth)], params, rng, chances=[1, 1]))
    with pytest.raises(InputError, match="multiple of 16"):
        next(train_stardist([Scene(rgb, truth)], StarDistTrainingParams(patch_px=50), rng))


@pytest.mark.parametrize("amount", [0.0, 1.0])
def test_an_augmented_patch_keeps_nuclei_where_they_are_dark(amount):
    rgb, truth = discs(160)
    ignored = truth == truth.max()
    rng = np.random.default_rng(3)
    for _ in range(20):
        piece = augmented_scene(Scene(rgb, truth, ignored), 96, amount, rng)
        assert piece.rgb.shape == (96, 96, 3)
        assert piece.rgb.dtype == np.uint8
        assert set(np.unique(piece.labels)) <= set(np.unique(truth))
        assert (piece.ignored == (piece.labels == truth.max())).all()
        grey = piece.rgb.mean(2)
        assert grey[piece.labels > 0].mean() < grey[piece.labels == 0].mean() - 10
    same = augmented_scene(Scene(rgb, truth), 160, 0.0, rng)
    assert sorted(map(tuple, same.rgb.reshape(-1, 3))) == sorted(map(tuple, rgb.reshape(-1, 3)))


def test_ignored_pixels_carry_no_loss():
    """What is labelled in a hidden place makes no difference; what is labelled elsewhere does."""
    rgb, truth = discs(96)
    hidden = np.zeros(truth.shape, bool)
    hidden[:, 40:] = True
    far = np.where(np.arange(96) >= 60, truth, 0)
    params = StarDistTrainingParams(base=4, features=8, patch_px=96, batch_size=1, steps=3)

    def losses(labels, ignored):
        scene = Scene(rgb, labels, ignored)
        return [s.loss for s in train_stardist([scene], params, np.random.default_rng(1))]

    seen = np.where(np.isin(truth, np.unique(truth[:, 40:])), 0, truth)
    assert losses(seen, hidden) == pytest.approx(losses(seen + far, hidden), rel=1e-5)
    assert losses(seen, None)[0] != pytest.approx(losses(seen + far, None)[0], rel=1e-3)


def test_outlines_are_moved_outwards(trained):
    rgb, _ = discs(160, seed=96)
    plain = StarDistNuclei(trained[0])
    wide = StarDistNuclei(dataclasses.replace(trained[0], outline_um=0.5))
    assert wide.weights.hash != plain.weights.hash
    assert wide.provenance["outline_um"] == 0.5
    points, scores, rays = plain.candidates(rgb, 0.5)
    others = wide.candidates(rgb, 0.5)
    np.testing.assert_array_equal(points, others[0])
    np.testing.assert_array_equal(scores, others[1])
    np.testing.assert_allclose(others[2], rays + 1, rtol=1e-6)
    with pytest.raises(InputError, match="0 to 2 µm"):
        dataclasses.replace(trained[0], outline_um=-0.1)


def test_the_cpu_continues_when_the_gpu_runs_out_of_memory(trained, monkeypatch):
    """The network is said to lie on a card whose memory is full; the nuclei are the same."""
    rgb, _ = discs(96, seed=95)
    expected = StarDistNuclei(trained[0], device=ComputeDevice.cpu(1)).segment(rgb, 0.5)
    run, card = PieceWork.run, ComputeDevice(torch.device("cpu"), 4, has_gpu=True, item="piece")
    model, room, tried = StarDistNuclei(trained[0], device=card), 2, []

    def full(work, *rest):
        tried.append((work.device.has_gpu, work.batch_size))
        if work.device.has_gpu and work.batch_size > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(work, *rest)

    monkeypatch.setattr(PieceWork, "run", full)
    np.testing.assert_array_equal(model.segment(rgb, 0.5), expected)
    assert model.notes == ("The GPU ran out of memory; batches of 2 from here on.",)
    np.testing.assert_array_equal(model.segment(rgb, 0.5), expected)
    assert tried == [(True, 4), (True, 2), (True, 2)]
    room = 0
    np.testing.assert_array_equal(model.segment(rgb, 0.5), expected)
    assert tried[3:] == [(True, 2), (True, 1), (False, 4)]
    assert "not enough for one piece; the CPU computes from here on" in model.notes[-1]
    assert len(model.notes) == 3


def test_of_two_blocks_in_a_queue_one_finds_out_that_the_memory_is_too_small(monkeypatch):
    card = ComputeDevice(torch.device("cpu"), 4, has_gpu=True, item="piece")
    model = StarDistNuclei(random_weights(), RANGE, device=card, at_once=4)
    assert model._idle.qsize() == 2
    both, run = threading.Barrier(2), PieceWork.run

    def full(work, *rest):
        if work.batch_size == 4:
            both.wait(60)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(work, *rest)

    monkeypatch.setattr(PieceWork, "run", full)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda one: model.candidates(one, 0.5), [noise((160, 192))] * 2))
    assert model.notes == ("The GPU ran out of memory; batches of 2 from here on.",)
    np.testing.assert_array_equal(found[0][0], found[1][0])


def test_networks_side_by_side_give_what_one_after_another_gives(monkeypatch):
    images = [noise((160, 192)), noise((176, 160))[::-1].copy()]
    alone = [StarDistNuclei(random_weights(), RANGE).candidates(one, 0.5) for one in images]
    model = StarDistNuclei(random_weights(), RANGE, device=ComputeDevice.cpu(1), at_once=2)
    both, run, before = threading.Barrier(2), PieceWork.run, torch.get_num_threads()

    def together(work, *rest):
        both.wait(60)  # fails where the second waits for the end of the first
        return run(work, *rest)

    monkeypatch.setattr(PieceWork, "run", together)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda one: model.candidates(one, 0.5), images))
    for one, other in zip(found, alone, strict=True):
        assert len(one[0]) > 10
        for mine, expected in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, expected)
    assert torch.get_num_threads() == before


def test_networks_share_the_cores_that_measure_nothing():
    model = StarDistNuclei(random_weights(), RANGE, device=ComputeDevice.cpu(1), at_once=2)
    before, shares = torch.get_num_threads(), {}
    with model._turn(), model._counted("_in_work"):
        model._share_cores(8)
        shares["alone"] = torch.get_num_threads()
        with model._counted("_in_turn"), model._counted("_in_work"):
            model._share_cores(8)
            shares["two"] = torch.get_num_threads()
            with model._counted("_in_work"):
                model._share_cores(8)
                shares["two, and one measures"] = torch.get_num_threads()
                model._share_cores(2)
                shares["two cores"] = torch.get_num_threads()
    assert shares == {"alone": 8, "two": 4, "two, and one measures": 3, "two cores": 1}
    assert torch.get_num_threads() == before


def test_the_mask_of_a_block_makes_way_for_its_cells(monkeypatch):
    model = StarDistNuclei(random_weights(), RANGE)
    mask, seen = np.ones((320, 400), bool), []
    there = weakref.ref(mask)
    found = StarDistNuclei._above_threshold

    def looked(self, values, scale, cells):
        seen.append((there(), cells.shape))
        return found(self, values, scale, cells)

    monkeypatch.setattr(StarDistNuclei, "_above_threshold", looked)
    parts = model.segment_parts(noise((320, 400)), 0.25, [(slice(0, 320), slice(0, 400))], mask)
    del mask
    assert next(parts).max() > 2
    assert seen == [(None, (10, 13))]


def test_few_blocks_are_measured_at_once_and_those_that_wait_can_be_cancelled(monkeypatch):
    model = StarDistNuclei(random_weights(), RANGE, at_once=2)
    model._measuring = threading.BoundedSemaphore(1)
    nothing = model.candidates(np.zeros((32, 32, 3), np.uint8), 0.5)
    monkeypatch.setattr(StarDistNuclei, "_candidates", lambda *_: nothing)
    whole, rgb = (slice(0, 32), slice(0, 32)), np.zeros((32, 32, 3), np.uint8)
    first = model.segment_parts(rgb, 0.5, [whole, whole])
    next(first)
    with cancellable(lambda: True), pytest.raises(Cancelled):
        next(model.segment_parts(rgb, 0.5, [whole]))
    next(first)
    assert not model._measuring.acquire(blocking=False)
    first.close()
    assert next(model.segment_parts(rgb, 0.5, [whole])).shape == (32, 32)


def test_the_network_in_the_package_is_whole_and_finds_round_nuclei():
    weights = embedded_weights()
    assert weights is embedded_weights()
    assert weights.name == "mosaik_he"
    assert "trained_on" in weights.training
    assert sum(array.nbytes for array in weights.arrays.values()) <= 6 * 2**20
    rgb, truth = discs(224, seed=94)
    assert object_scores(truth, StarDistNuclei(weights).segment(rgb, 0.5)).f1 > 0.9
    raster = Raster(rgb, Lattice("he", rgb.shape[:2], (0.5, 0.5), (0.0, 0.0)))
    found = segment_nuclei(raster).array()
    np.testing.assert_array_equal(found, StarDistNuclei(weights).segment(rgb, 0.5))
    with pytest.raises(InputError, match="load the weights"):
        segment_nuclei(raster, NucleiParams(method="stardist", weights="0123"))


@pytest.mark.parametrize("n", [1, 2, 7, 1000, 4321])
def test_the_range_of_grey_values_is_that_of_numpy(n):
    values = np.random.default_rng(n).integers(0, 256, n).astype(np.uint8)
    expected = np.percentile(values.astype(float), (1, 99.8))
    np.testing.assert_allclose(intensity_range(values), expected, rtol=1e-12)
    np.testing.assert_allclose(intensity_range(values.astype(float)), expected, rtol=1e-12)


@pytest.mark.parametrize("factor", [1.0, 2.0, 0.73])
def test_polygons_are_painted_as_stardist_paints_them(factor):
    """Also beyond the edge of the picture, over one another, and where rays differ much."""
    rng = np.random.default_rng(5)
    points = rng.integers(0, 100, (150, 2))
    rays = np.abs(rng.normal(7, 2.5, (150, 32))).astype(np.float32)
    scores = rng.random(150).astype(np.float32)
    shape = (round(101 * factor), round(97 * factor))
    expected = stardist_module("geometry").polygons_to_label(
        rays, (points + 0.5) * factor - 0.5, shape, prob=scores, scale_dist=(factor, factor)
    )
    painted = paint_polygons((points, scores, rays), shape, factor)
    assert (painted > 0).mean() > 0.5
    assert (painted != expected).mean() < 2e-4  # pixels that lie exactly on an edge
