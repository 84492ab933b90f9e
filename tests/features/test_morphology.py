"""Shapes against closed forms and scikit-image."""

import math

import numpy as np
import pytest
from skimage.measure import regionprops_table

from napari_mosaik.core import InputError, Lattice
from napari_mosaik.features import measure_objects

LATTICE = Lattice("he", (200, 240), (0.5, 0.5), (100.0, 50.0))


def disk(radius, shape=(200, 240), centre=(100.2, 120.7)):
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    return (rows - centre[0]) ** 2 + (cols - centre[1]) ** 2 <= radius**2


def blobs(rng, shape=(200, 240)):
    labels = np.zeros(shape, np.int32)
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    for k in range(1, 60):
        r, c = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        a, b, t = rng.uniform(2, 14), rng.uniform(2, 9), rng.uniform(0, 3)
        x = (rows - r) * np.cos(t) + (cols - c) * np.sin(t)
        y = (cols - c) * np.cos(t) - (rows - r) * np.sin(t)
        labels[(x / a) ** 2 + (y / b) ** 2 <= 1] = k
    return labels


def test_a_disk_by_its_closed_forms():
    table = measure_objects(disk(60).astype(np.int32), LATTICE)
    assert table["area_um2"][0] == pytest.approx(math.pi * 30**2, rel=2e-3)
    assert table["equivalent_diameter_um"][0] == pytest.approx(60, rel=1e-3)
    assert table["perimeter_um"][0] == pytest.approx(2 * math.pi * 30, rel=0.01)
    assert table["eccentricity"][0] < 0.05
    assert table["solidity"][0] > 0.995
    assert table["row_um"][0] == pytest.approx(100 + (100.2 + 0.5) * 0.5, abs=0.02)
    assert table["column_um"][0] == pytest.approx(50 + (120.7 + 0.5) * 0.5, abs=0.02)
    assert table.frame == "he"


def test_a_ring_filled_and_unfilled():
    wall = disk(40) & ~disk(30)
    ring = measure_objects(wall.astype(np.int32), LATTICE)
    assert ring["equivalent_diameter_um"][0] == pytest.approx(
        2 * math.sqrt(20**2 - 15**2), rel=5e-3
    )
    assert ring["perimeter_um"][0] == pytest.approx(2 * math.pi * 35, rel=0.02)
    filled = measure_objects(disk(40).astype(np.int32), LATTICE, masks={"wall": wall})
    assert filled["equivalent_diameter_um"][0] == pytest.approx(40, rel=2e-3)
    assert filled["wall_area_um2"][0] == ring["area_um2"][0]


def test_an_l_shape_and_a_rectangle_exactly():
    labels = np.zeros((200, 240), np.int32)
    labels[10:40, 20:30] = 1
    labels[30:40, 30:60] = 1
    labels[100:110, 100:140] = 2
    table = measure_objects(labels, LATTICE)
    pixels = 30 * 10 + 10 * 30
    # digital hull by brute force: pixel centres inside the hull of the pixel centres
    r, c = np.mgrid[10:40, 20:60]
    inside = r >= 10 + (c - 29) * (20 / 30)
    assert table["area_um2"][0] == pixels * 0.25
    assert table["solidity"][0] == pytest.approx(pixels / inside.sum(), rel=1e-12)
    assert table["solidity"][1] == 1
    assert table["major_axis_um"][1] == pytest.approx(4 * 40 / math.sqrt(12) / 2, rel=1e-12)
    assert table["minor_axis_um"][1] == pytest.approx(4 * 10 / math.sqrt(12) / 2, rel=1e-12)
    assert table["eccentricity"][1] == pytest.approx(math.sqrt(1 - 1 / 16), rel=1e-12)


def test_against_scikit_image():
    labels = blobs(np.random.default_rng(5))
    od = np.random.default_rng(6).random(labels.shape)
    one = Lattice("he", labels.shape, (1.0, 1.0))
    ours = measure_objects(labels, one, intensity={"haematoxylin_od": od}).rows(
        np.unique(labels)[1:] - 1
    )
    names = ("area", "centroid", "perimeter_crofton", "intensity_mean")
    theirs = regionprops_table(labels, od, properties=("label", *names))
    np.testing.assert_array_equal(ours["area_um2"], theirs["area"])
    np.testing.assert_allclose(ours["row_um"], theirs["centroid-0"] + 0.5, atol=1e-9)
    np.testing.assert_allclose(ours["perimeter_um"], theirs["perimeter_crofton"], rtol=1e-9)
    np.testing.assert_allclose(ours["haematoxylin_od"], theirs["intensity_mean"], rtol=1e-6)


def test_the_hull_counts_the_pixels_that_lie_in_it():
    """Pick's theorem against a direct test of every pixel by scipy's hull."""
    from scipy.spatial import ConvexHull

    labels = blobs(np.random.default_rng(8))
    table = measure_objects(labels, LATTICE)
    rows, cols = np.mgrid[: labels.shape[0], : labels.shape[1]]
    everywhere = np.column_stack([rows.ravel(), cols.ravel()])
    for k in (np.unique(labels)[1:])[:20]:
        points = np.argwhere(labels == k)
        if min(np.ptp(points, axis=0)) == 0 or len(points) < 4:
            continue
        hull = ConvexHull(points).equations
        count = (everywhere @ hull[:, :2].T + hull[:, 2] <= 1e-9).all(axis=1).sum()
        assert table["solidity"][k - 1] == pytest.approx(len(points) / count, rel=1e-12)


def test_unequal_spacing_is_honoured():
    """The same rectangle of 20 x 10 µm on pixels of 0.5 x 1 µm."""
    labels = np.zeros((80, 40), np.int32)
    labels[10:50, 5:15] = 1
    table = measure_objects(labels, Lattice("he", labels.shape, (0.5, 1.0)))
    assert table["area_um2"][0] == 200
    assert table["major_axis_um"][0] == pytest.approx(4 * 20 / math.sqrt(12))
    assert table["minor_axis_um"][0] == pytest.approx(4 * 10 / math.sqrt(12))
    assert table["perimeter_um"][0] == pytest.approx(60, rel=0.1)
    wide = disk(40)[::1, ::2]
    round_one = measure_objects(wide.astype(np.int32), Lattice("he", wide.shape, (0.5, 1.0)))
    assert round_one["perimeter_um"][0] == pytest.approx(2 * math.pi * 20, rel=0.02)
    assert round_one["eccentricity"][0] < 0.12


def test_absent_labels_have_no_shape():
    labels = np.zeros((20, 20), np.int32)
    labels[3, 4] = 2
    table = measure_objects(labels, Lattice("he", (20, 20), (1.0, 1.0)), n_labels=3)
    assert len(table) == 3
    np.testing.assert_array_equal(table["area_um2"], [0, 1, 0])
    assert table["solidity"][1] == 1
    assert table["eccentricity"][1] == 0
    for name in ("row_um", "eccentricity", "perimeter_um", "equivalent_diameter_um", "solidity"):
        assert np.isnan(table[name][[0, 2]]).all()


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="lattice"):
        measure_objects(np.zeros((3, 3), int), LATTICE)
    with pytest.raises(InputError, match="objects"):
        measure_objects(np.full((200, 240), 5), LATTICE, n_labels=4)
