"""Objects measured block by block against the whole image and against scikit-image."""

import io
import pickle

import numpy as np
import pytest
from skimage.measure import regionprops_table

from napari_mosaik.core import InputError, Lattice
from napari_mosaik.features import measure_block, measure_objects, merge_measures

LATTICE = Lattice("cd34", (150, 170), (0.5, 0.5), (100.0, 50.0))


def blobs(shape=(150, 170), n=45, seed=4):
    """Random ellipses that touch, overlap and lie in pieces; two with holes."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    for k in range(1, n + 1):
        r, c = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        a, b, t = rng.uniform(1, 26), rng.uniform(1, 9), rng.uniform(0, 3)
        x = (rows - r) * np.cos(t) + (cols - c) * np.sin(t)
        y = (cols - c) * np.cos(t) - (rows - r) * np.sin(t)
        distance = (x / a) ** 2 + (y / b) ** 2
        labels[(distance <= 1) & (distance > (0.3 if k % 7 == 0 else -1))] = k
    return labels


def partials(labels, size, *, masks=None, intensity=None, skip_empty=False):
    """Every block measured with one pixel of its neighbours, as the steps do it."""
    out = []
    height, width = labels.shape
    for r in range(0, height, size[0]):
        for c in range(0, width, size[1]):
            core = (slice(r, min(r + size[0], height)), slice(c, min(c + size[1], width)))
            low = max(r - 1, 0), max(c - 1, 0)
            outer = labels[low[0] : core[0].stop + 1, low[1] : core[1].stop + 1]
            if skip_empty and not labels[core].any():
                continue
            window = tuple(slice(s.start - x, s.stop - x) for s, x in zip(core, low, strict=True))
            out.append(
                measure_block(
                    outer,
                    low,
                    window=window,
                    masks={name: values[core] for name, values in (masks or {}).items()},
                    intensity={name: values[core] for name, values in (intensity or {}).items()},
                )
            )
    return out


def same(table, whole):
    assert list(table) == list(whole)
    assert (table.units, table.about, table.frame) == (whole.units, whole.about, whole.frame)
    for name in whole:
        np.testing.assert_array_equal(table[name], whole[name], err_msg=name)


@pytest.mark.parametrize("size", [(150, 170), (64, 64), (37, 53), (16, 200), (7, 5), (1, 1)])
def test_blocks_of_any_size_give_the_whole_image_s_table(size):
    labels = blobs()
    wall = np.random.default_rng(1).random(labels.shape) < 0.3
    whole = measure_objects(labels, LATTICE, masks={"wall": wall})
    parts = partials(labels, size, masks={"wall": wall})
    same(merge_measures(parts, LATTICE, int(labels.max()), masks=("wall",)), whole)


def test_the_order_of_the_blocks_and_empty_ones_do_not_matter():
    labels = blobs(n=6)
    whole = measure_objects(labels, LATTICE)
    parts = partials(labels, (20, 30), skip_empty=True)
    assert len(parts) < 8 * 6
    shuffled = [parts[i] for i in np.random.default_rng(0).permutation(len(parts))]
    same(merge_measures(shuffled, LATTICE, 6), whole)


def test_anisotropic_pixels_far_from_the_slide_s_corner():
    """The same objects at row 90,000 have the same shapes, to the last digit."""
    lattice = Lattice("cd34", (150, 170), (0.25, 0.6))
    labels = blobs()
    n = int(labels.max())
    near = merge_measures(partials(labels, (40, 40)), lattice, n)
    same(near, measure_objects(labels, lattice))
    parts = partials(labels, (40, 40))
    for part in parts:
        part["corner"] = part["corner"] + (90_000, 80_000)
        part["hull"] = part["hull"] + np.array([0, 90_000, 80_000], np.int32)
    far = merge_measures(parts, Lattice("cd34", (90_150, 80_170), (0.25, 0.6)), n)
    for name in set(near) - {"row_um", "column_um"}:
        np.testing.assert_array_equal(far[name], near[name])
    np.testing.assert_allclose(far["row_um"], near["row_um"] + 90_000 * 0.25, rtol=1e-12)


@pytest.mark.parametrize("size", [(150, 170), (31, 44)])
def test_against_scikit_image(size):
    labels = blobs()
    od = np.random.default_rng(6).random(labels.shape)
    one = Lattice("cd34", labels.shape, (1.0, 1.0))
    parts = partials(labels, size, intensity={"od": od})
    ours = merge_measures(parts, one, int(labels.max()), intensity=("od",))
    ours = ours.rows(np.unique(labels)[1:] - 1)
    theirs = regionprops_table(
        labels,
        od,
        properties=(
            "area",
            "centroid",
            "perimeter_crofton",
            "intensity_mean",
            "major_axis_length",
            "minor_axis_length",
        ),
    )
    np.testing.assert_array_equal(ours["area_um2"], theirs["area"])
    np.testing.assert_allclose(ours["row_um"], theirs["centroid-0"] + 0.5, rtol=1e-12)
    np.testing.assert_allclose(ours["column_um"], theirs["centroid-1"] + 0.5, rtol=1e-12)
    np.testing.assert_allclose(ours["perimeter_um"], theirs["perimeter_crofton"], rtol=1e-9)
    # ours hold the second moment of the pixel itself, 1/12
    for name in ("major", "minor"):
        points = theirs[f"{name}_axis_length"]
        np.testing.assert_allclose(ours[f"{name}_axis_um"], np.sqrt(points**2 + 16 / 12), rtol=1e-9)
    shape = np.sqrt(1 - (ours["minor_axis_um"] / ours["major_axis_um"]) ** 2)
    np.testing.assert_allclose(ours["eccentricity"], shape, atol=1e-7)
    np.testing.assert_allclose(ours["od"], theirs["intensity_mean"], rtol=1e-6)


def test_an_object_across_four_blocks_and_pixels_on_their_corners():
    labels = np.zeros((16, 16), np.int32)
    labels[6:11, 5:10] = 1
    labels[7, 7] = 2
    for k, (r, c) in enumerate([(0, 0), (0, 15), (15, 0), (15, 15), (7, 11), (11, 8)], 3):
        labels[r, c] = k
    lattice = Lattice("cd34", (16, 16), (1.0, 1.0))
    parts = partials(labels, (8, 8))
    assert [1 in part["label"] for part in parts] == [True] * 4
    table = merge_measures(parts, lattice, 8)
    same(table, measure_objects(labels, lattice))
    np.testing.assert_array_equal(table["area_um2"], [24, 1, 1, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(table["solidity"], [24 / 25, *[1.0] * 7])
    np.testing.assert_allclose(table["perimeter_um"][1:], table["perimeter_um"][1])
    np.testing.assert_array_equal(table["row_um"][2:6], [0.5, 0.5, 15.5, 15.5])
    assert (table["eccentricity"][1:] == 0).all()


def test_no_objects_at_all():
    nothing = measure_block(np.zeros((40, 50), np.int32), masks={"wall": np.ones((40, 50), bool)})
    assert all(values.shape[0] == 0 for values in nothing.values())
    lattice = Lattice("cd34", (40, 50), (1.0, 1.0))
    assert len(merge_measures([nothing], lattice, 0, masks=("wall",))) == 0
    assert len(measure_objects(np.zeros((0, 0), int), Lattice("cd34", (0, 0), (1.0, 1.0)))) == 0
    table = merge_measures([], lattice, 2, masks=("wall",))
    np.testing.assert_array_equal(table["area_um2"], [0, 0])
    np.testing.assert_array_equal(table["wall_area_um2"], [0, 0])
    assert np.isnan(table["row_um"]).all()
    assert np.isnan(table["solidity"]).all()


def test_a_block_can_be_stored_and_sent():
    labels = blobs()
    wall = labels % 2 == 0
    parts = partials(labels, (50, 60), masks={"wall": wall})
    stored = []
    for part in parts:
        file = io.BytesIO()
        np.savez(file, **part)
        file.seek(0)
        with np.load(file) as found:
            stored.append({name: found[name] for name in found.files})
    sent = pickle.loads(pickle.dumps(parts))
    whole = measure_objects(labels, LATTICE, masks={"wall": wall})
    for found in (stored, sent):
        same(merge_measures(found, LATTICE, len(whole), masks=("wall",)), whole)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="1 or more"):
        measure_block(np.array([[0, -3]]))
    with pytest.raises(InputError, match="wall"):
        measure_block(np.ones((4, 4), int), masks={"wall": np.ones((3, 4), bool)})
    lattice = Lattice("cd34", (4, 4), (1.0, 1.0))
    with pytest.raises(InputError, match="2 objects"):
        merge_measures([measure_block(np.full((4, 4), 5))], lattice, 2)
    with pytest.raises(InputError, match="wall"):
        merge_measures([measure_block(np.ones((4, 4), int))], lattice, 1, masks=("wall",))
