"""Fast stain and morphology against their definitions, pixel by pixel."""

import numpy as np
import pytest

from napari_mosaik.core.colour import DAB, HAEMATOXYLIN
from napari_mosaik.segment.filters import gaussian, stain_amount
from napari_mosaik.segment.masks import close_mask, disc, open_mask
from napari_mosaik.segment.sparse_smoothing import stain_above

VECTORS = np.array([HAEMATOXYLIN, DAB]).T


def by_definition(rgb, sigma_px, threshold):
    return gaussian(stain_amount(rgb, VECTORS, 1), sigma_px) >= np.float32(threshold)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_every_pixel_is_that_of_the_definition(seed, sparse):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 200, 2))
    rgb = rng.integers(0, 256, (*shape, 3), np.uint8)
    if sparse:
        rgb[rng.random(shape) < 0.99] = 230
    sigma_px, threshold = rng.uniform(0.2, 4.0), rng.uniform(-0.2, 1.0)
    expected = by_definition(rgb, sigma_px, threshold)
    np.testing.assert_array_equal(stain_above(rgb, VECTORS, 1, sigma_px, threshold), expected)


def test_one_dot_is_found_at_every_place_of_a_stretch_and_of_the_border():
    for column in range(0, 97, 7):
        for row in (0, 1, 20, 38, 39):
            rgb = np.full((40, 97, 3), 240, np.uint8)
            rgb[row, column] = (60, 30, 10)
            expected = by_definition(rgb, 1.0, 0.1)
            assert expected.any()
            np.testing.assert_array_equal(stain_above(rgb, VECTORS, 1, 1.0, 0.1), expected)


def covered(mask, offsets):
    """The mask moved to every offset, all of it together; nothing comes from beyond the border."""
    reach = int(np.abs(offsets).max())
    wide = np.pad(mask, reach)
    moved = [np.roll(wide, tuple(offset), (0, 1)) for offset in offsets]
    return np.any(moved, axis=0)[reach : reach + mask.shape[0], reach : reach + mask.shape[1]]


@pytest.mark.parametrize("filled", [0.02, 0.3, 0.7, 0.98])
def test_closing_and_opening_are_those_of_the_definition(filled):
    rng = np.random.default_rng(1)
    for radius_px in (1.0, 1.5, 2.9, 5.0):
        mask, offsets = rng.random(tuple(rng.integers(1, 60, 2))) < filled, disc(radius_px)
        closed = ~covered(~covered(mask, offsets), offsets)
        opened = covered(~covered(~mask, offsets), offsets)
        np.testing.assert_array_equal(close_mask(mask, radius_px), closed)
        np.testing.assert_array_equal(open_mask(mask, radius_px), opened)
