"""Morphology against its definition, pixel by pixel."""

import numpy as np
import pytest

from napari_mosaik.segment.masks import close_mask, disc, open_mask


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
