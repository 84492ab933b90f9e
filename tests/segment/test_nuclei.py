"""Nuclei painted with known stain and place are found again, at any pixel size and in blocks."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage.segmentation import watershed

from napari_mosaik.core import InputError, Lattice, Raster
from napari_mosaik.core.colour import DAB, EOSIN, HAEMATOXYLIN, stain_matrix
from napari_mosaik.segment import ClassicalNuclei, NucleiParams, segment_nuclei
from napari_mosaik.segment.filters import box_mean, gaussian
from napari_mosaik.segment.masks import chamfer_distance, flood, local_maxima
from napari_mosaik.segment.metrics import object_scores
from napari_mosaik.segment.nuclei import estimate_nuclear_threshold, nuclear_density
from napari_mosaik.segment.run_length import LabelRuns
from napari_mosaik.segment.stitch import keep_centroid_in_core, windows
from tests.segment.joining import joined

TILES = Path(__file__).parents[2] / "../shared/data/nuclei"


def stained(first, second, vectors=(HAEMATOXYLIN, EOSIN)):
    matrix = stain_matrix(*vectors)
    od = np.asarray(first)[..., None] * matrix[:, 0] + np.asarray(second)[..., None] * matrix[:, 1]
    return np.clip(np.rint(240 * np.exp(-od) - 1), 0, 255).astype(np.uint8)


def tissue(spacing_um, extent_um=120.0, pitch_um=12.0, radius_um=4.0, seed=0):
    """Discs on a jittered grid with noise: picture and true labels."""
    rng = np.random.default_rng(seed)
    n = round(extent_um / spacing_um)
    rows, cols = (np.mgrid[:n, :n] + 0.5) * spacing_um
    truth = np.zeros((n, n), np.int32)
    for k, (i, j) in enumerate(np.ndindex(int(extent_um // pitch_um), int(extent_um // pitch_um))):
        y, x = (np.array([i, j]) + 0.5) * pitch_um + rng.uniform(-2, 2, 2)
        truth[np.hypot(rows - y, (cols - x) * 1.2) < radius_um] = k + 1
    soft = ndimage.gaussian_filter((truth > 0).astype(float), 0.4 / spacing_um)
    noise = rng.normal(0, 0.05, truth.shape)
    return stained(0.15 + 0.8 * soft + noise, np.full(truth.shape, 0.3)), truth


def raster(rgb, spacing_um):
    return Raster(rgb, Lattice("he", rgb.shape[:2], (spacing_um, spacing_um)))


@pytest.mark.parametrize("spacing_um", [0.25, 0.5, 1.0])
def test_painted_nuclei_are_found_at_any_pixel_size(spacing_um):
    rgb, truth = tissue(spacing_um)
    scores = object_scores(truth, segment_nuclei(raster(rgb, spacing_um)).array())
    assert scores.f1 > 0.95
    assert scores.aji > 0.75


def test_density_is_what_was_painted_and_red_cells_have_little():
    amount = np.linspace(0, 1.5, 16)[None].repeat(3, 0)
    even = nuclear_density(stained(amount, amount))
    np.testing.assert_allclose(even, amount, atol=0.06)
    excess = nuclear_density(stained(np.full((1, 3), 0.4), np.array([[0.5, 0.7, 1.2]])))
    np.testing.assert_allclose(excess, [[0.4, 0.3, -0.2]], atol=0.06)
    red_cell = np.full((2, 2, 3), (220, 60, 50), np.uint8)
    unlimited = nuclear_density(red_cell, np.array([HAEMATOXYLIN, EOSIN, DAB]).T)
    assert nuclear_density(red_cell).max() < 0.16
    assert unlimited.max() < 0.16


def test_brown_is_no_nucleus_with_the_vectors_of_that_stain():
    brown = stained(np.zeros((40, 40)), np.full((40, 40), 1.2), (HAEMATOXYLIN, DAB))
    brown[15:22, 15:22] = stained(np.full((7, 7), 1.0), np.full((7, 7), 1.2), (HAEMATOXYLIN, DAB))
    model = ClassicalNuclei(vectors=np.array([HAEMATOXYLIN, DAB]).T)
    labels = model.segment(brown, 1.0)
    assert labels.max() == 1
    assert labels[18, 18] == 1
    assert labels[5, 5] == 0


def test_threshold_parts_two_populations_and_has_a_floor():
    rng = np.random.default_rng(0)
    samples = np.r_[rng.normal(0.3, 0.05, 8000), rng.normal(1.1, 0.1, 2000), np.nan]
    params = NucleiParams(sensitivity=1.0)
    assert 0.4 < estimate_nuclear_threshold(samples, params) < 0.95
    assert estimate_nuclear_threshold([], params) == params.min_threshold_od
    assert estimate_nuclear_threshold(np.zeros(9), params) == params.min_threshold_od


def test_blank_and_uniform_pictures_have_no_nuclei():
    for rgb in (np.full((50, 50, 3), 255, np.uint8), np.zeros((50, 50, 3), np.uint8) + 240):
        assert ClassicalNuclei().segment(rgb, 1.0).max() == 0


@pytest.mark.parametrize("block_px", [60, 97])
def test_blocks_with_halo_give_the_nuclei_of_the_whole(block_px):
    rgb, _ = tissue(1.0, extent_um=240.0, pitch_um=9.0, seed=3)
    model = ClassicalNuclei(threshold_od=0.5)
    whole = model.segment(rgb, 1.0)
    halo = int(np.ceil(model.halo_um))
    blocks, shape = [], rgb.shape[:2]
    for rows, cols in windows(rgb.shape[:2], block_px):
        top, left = max(0, rows.start - halo), max(0, cols.start - halo)
        bottom, right = np.minimum((rows.stop + halo, cols.stop + halo), shape)
        around = (slice(top, bottom), slice(left, right))
        core = (
            slice(rows.start - top, rows.stop - top),
            slice(cols.start - left, cols.stop - left),
        )
        owned = keep_centroid_in_core(model.segment(rgb[around], 1.0), core)
        blocks.append((around, owned))
    stitcher = joined(shape, blocks)
    assert whole.max() > 400
    np.testing.assert_array_equal(stitcher[...], whole)
    part = (slice(55, 131), slice(90, 100))
    np.testing.assert_array_equal(stitcher[part], whole[part])
    assert not stitcher.is_empty(*part)


def test_each_object_is_owned_by_exactly_one_core():
    rng = np.random.default_rng(5)
    labels = ndimage.label(ndimage.gaussian_filter(rng.normal(size=(60, 60)), 1.5) > 0.05)[0]
    owners = np.zeros(labels.max() + 1, int)
    for window in windows(labels.shape, 17):
        owners[np.unique(keep_centroid_in_core(labels, window))] += 1
    assert (owners[1:] == 1).all()


def test_an_object_seen_twice_is_kept_once():
    everything = (slice(0, 10), slice(0, 10))
    first = np.zeros((10, 10), np.int32)
    first[2:6, 2:6] = 1
    again = np.zeros((10, 10), np.int32)
    again[3:6, 2:6] = 1
    again[5:9, 6:9] = 2
    stitcher = joined((10, 30), [(everything, first), (everything, again)])
    assert np.bincount(stitcher[:, :10].ravel()).tolist() == [100 - 16 - 12, 16, 12]
    assert stitcher.rows.tolist() == [0, 2]
    assert stitcher.is_empty(slice(0, 10), slice(10, 30))
    assert not stitcher[:, 10:].any()


@pytest.mark.parametrize("shape", [(0, 0), (1, 7), (40, 300)])
def test_runs_of_labels_give_the_labels_back_where_a_place_is_free(shape):
    labels = np.random.default_rng(2).integers(0, 4, shape).astype(np.int32)
    labels[:, : shape[1] // 2] = 2
    runs = LabelRuns.from_arrays(LabelRuns.of(labels).arrays())
    numbers = np.array([0, 9, 0, 7, 5], np.int32)[: runs.n_objects + 1]
    out = np.zeros((shape[0] + 3, shape[1]), np.int32)
    out[2, 2:4] = 100
    expected = out.copy()
    expected[1:-2] = np.where(expected[1:-2] > 0, 100, numbers[labels] if labels.size else 0)
    runs.paint(out, (1, 0), numbers)
    np.testing.assert_array_equal(out, expected)
    cut = np.zeros((2, 2), np.int32)
    runs.paint(cut, (-1, -3), numbers)
    if labels.size > 7:
        np.testing.assert_array_equal(cut, numbers[labels[1:3, 3:5]])


def test_flood_equals_scikit_image_on_distinct_levels():
    rng = np.random.default_rng(6)
    field = ndimage.gaussian_filter(rng.normal(size=(50, 60)), 4)
    level = np.digitize(field, np.quantile(field, np.linspace(0, 1, 256)[1:-1])).astype(np.uint8)
    mask = ndimage.gaussian_filter(rng.normal(size=(50, 60)), 3) > -0.02
    seeds = np.zeros((50, 60), np.int32)
    seeds[mask & (rng.random((50, 60)) < 0.01)] = 1
    seeds[seeds > 0] = np.arange(1, seeds.sum() + 1)
    reference = watershed(level, seeds, mask=mask)
    found = flood(level, seeds, mask)
    np.testing.assert_array_equal(found > 0, reference > 0)
    assert (found == reference)[mask].mean() > 0.97  # ties inside plateaus may differ


def test_local_maxima_equal_the_definition():
    rng = np.random.default_rng(7)
    score = rng.integers(0, 6, (20, 22)).astype(np.float32)
    mask = rng.random((20, 22)) < 0.8
    offsets = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)])
    seeds = local_maxima(score, mask, offsets)
    for r, c in np.ndindex(score.shape):
        baselines = [
            (score[r + i, c + j], (i, j) < (0, 0))
            for i, j in offsets.tolist()
            if 0 <= r + i < 20 and 0 <= c + j < 22 and mask[r + i, c + j]
        ]
        best = mask[r, c] and all(
            value < score[r, c] or (value == score[r, c] and not earlier)
            for value, earlier in baselines
        )
        assert (seeds[r, c] > 0) == best
    assert seeds[seeds > 0].tolist() == list(range(1, seeds.max() + 1))


def test_filters_equal_scipy():
    rng = np.random.default_rng(8)
    image = rng.random((41, 53)).astype(np.float32)
    reference = ndimage.gaussian_filter(image, 1.7, truncate=6 / 1.7, mode="reflect")
    np.testing.assert_allclose(gaussian(image, 1.7), reference, atol=2e-6)
    ones, padded = np.ones_like(image), np.pad(image, 5)
    kernel = np.ones((11, 11))
    mean = ndimage.convolve(padded.astype(float), kernel, mode="constant")
    count = ndimage.convolve(np.pad(ones, 5).astype(float), kernel, mode="constant")
    np.testing.assert_allclose(box_mean(image, 5), (mean / count)[5:-5, 5:-5], atol=2e-4)
    mask = ndimage.gaussian_filter(rng.normal(size=(60, 60)), 3) > -0.05
    exact = ndimage.distance_transform_edt(np.pad(mask, 40, constant_values=True))[40:-40, 40:-40]
    found = chamfer_distance(mask, 12)
    np.testing.assert_allclose(found, np.minimum(exact, 12), rtol=0.03, atol=1e-6)


def test_provenance_tells_method_and_numbers():
    record = ClassicalNuclei(threshold_od=0.4).provenance
    assert record["method"] == "classical"
    assert record["threshold_od"] == 0.4
    assert record["params"]["min_area_um2"] == NucleiParams().min_area_um2


def test_wrong_input_is_told():
    with pytest.raises(InputError, match="stain vectors"):
        nuclear_density(np.zeros((3, 3, 3), np.uint8), np.eye(4))
    with pytest.raises(InputError, match="pixel size"):
        ClassicalNuclei().segment(np.zeros((3, 3, 3), np.uint8), -1.0)


@pytest.mark.realdata
def test_real_nuclei():
    if not TILES.exists():
        pytest.skip(f"{TILES} is not there")
    import tifffile
    from skimage.io import imread

    scores = []
    for name, spacing_um in (("01", 0.5), ("05", 0.5), ("08", 0.25), ("12", 0.25)):
        rgb = imread(TILES / f"image{name}.png")[..., :3]
        truth = tifffile.imread(TILES / f"image{name}_labels.tif")
        scores.append(object_scores(truth, ClassicalNuclei().segment(rgb, spacing_um)).f1)
    assert np.mean(scores) > 0.70
    assert min(scores) > 0.55


def test_a_slide_is_read_at_the_pixels_of_the_method():
    assert NucleiParams(method="classical", spacing_um=1.5).read_spacing_um == 1.5
    assert NucleiParams(method="stardist", spacing_um=1.5).read_spacing_um == 0.5
