"""Areas added to and cut from a tissue mask."""

import numpy as np
import pytest
import shapely

from napari_mosaik.core import InputError, Lattice, Raster
from napari_mosaik.core.corrections import Correction
from napari_mosaik.tissue.by_hand import mask_by_hand

LATTICE = Lattice("cd34", (40, 50), (8.0, 8.0), (100.0, 200.0))


def box(kind, top, left, bottom, right):
    return Correction(kind, area_wkt=shapely.box(left, top, right, bottom).wkt)


def test_the_later_area_counts_and_damage_is_never_tissue():
    mask = Raster(np.zeros(LATTICE.shape, bool), LATTICE)
    mask.values[10:30, 10:30] = True
    corrections = [
        box("add", 100, 200, 180, 400),
        box("cut", 100, 280, 260, 320),
        box("add", 140, 280, 180, 320),
    ]
    sound = np.ones(LATTICE.shape, bool)
    sound[0] = False
    result = mask_by_hand(mask, corrections, sound)
    rows, cols = np.moveaxis(LATTICE.centres_um(), -1, 0)  # a second way: by the centres
    expected = mask.values.copy()
    for one, (top, left, bottom, right) in zip(
        (True, False, True),
        ((100, 200, 180, 400), (100, 280, 260, 320), (140, 280, 180, 320)),
        strict=True,
    ):
        expected[(rows >= top) & (rows < bottom) & (cols >= left) & (cols < right)] = one
    expected[0] = False
    np.testing.assert_array_equal(result.values, expected)
    assert mask_by_hand(mask, []).values.sum() == mask.values.sum()


@pytest.mark.parametrize("text", ["POINT (1 1)", "POLYGON ((1"])
def test_what_is_no_area_is_said(text):
    with pytest.raises(InputError, match="is no area"):
        mask_by_hand(
            Raster(np.zeros(LATTICE.shape, bool), LATTICE), [Correction("add", area_wkt=text)]
        )
