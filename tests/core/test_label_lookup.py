"""Codes at positions: from memory and from storage, against the raster's own look-up."""

import numpy as np

from napari_mosaik.core import LabelImage, Lattice, Raster
from napari_mosaik.core.label_lookup import codes_at

LATTICE = Lattice("he", (2100, 1500), (0.5, 0.75), (10.0, -20.0))


class Stored:
    """An array on disk: it gives pieces and remembers which."""

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.asked = []

    def __getitem__(self, key):
        self.asked.append(key)
        return self.values[key]


def test_stored_and_loaded_images_give_the_same_codes():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 5, LATTICE.shape).astype(np.uint8)
    stored = Stored(codes)
    low = np.array(LATTICE.origin_um) - 30
    points = rng.uniform(low, low + LATTICE.extent_um + 60, (40, 50, 2))
    expected = Raster(codes, LATTICE).at(points, outside=-1)
    for image in (Raster(codes, LATTICE), LabelImage(codes, LATTICE), LabelImage(stored, LATTICE)):
        np.testing.assert_array_equal(codes_at(image, points, outside=-1), expected)
    assert len(stored.asked) == 3 * 2
    for rows, cols in stored.asked:
        assert rows.start // 1024 == (rows.stop - 1) // 1024
        assert cols.start // 1024 == (cols.stop - 1) // 1024


def test_only_parts_that_hold_a_position_are_read():
    stored = Stored(np.full(LATTICE.shape, 7, np.int32))
    image = LabelImage(stored, LATTICE)
    assert codes_at(image, LATTICE.to_um(np.array([[1030, 5], [1040, 9]]))).tolist() == [7, 7]
    assert stored.asked == [(slice(1030, 1041), slice(5, 10))]
    assert codes_at(image, [[-500.0, 0.0]], outside=3).tolist() == [3]
    assert codes_at(image, np.zeros((0, 2))).shape == (0,)
    assert len(stored.asked) == 1


def test_a_mask_has_the_code_one():
    mask = Raster(np.eye(3, dtype=bool), Lattice("he", (3, 3), (1.0, 1.0)))
    assert codes_at(mask, [[0.5, 0.5], [0.5, 1.5]]).tolist() == [1, 0]
