"""Areas added to and cut from a tissue mask, flagged and cleared in a quality mask."""

import numpy as np
import pytest
import shapely

from napari_mosaik.core import InputError, Lattice, Raster
from napari_mosaik.core.corrections import Correction
from napari_mosaik.tissue.artefacts import apply_artefact_corrections
from napari_mosaik.tissue.mask import apply_mask_corrections

LATTICE = Lattice("cd34", (40, 50), (8.0, 8.0), (100.0, 200.0))


def box(kind, top, left, bottom, right, word=""):
    return Correction(kind, word=word, area_wkt=shapely.box(left, top, right, bottom).wkt)


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
    result = apply_mask_corrections(mask, corrections, sound)
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
    assert apply_mask_corrections(mask, []).values.sum() == mask.values.sum()


@pytest.mark.parametrize("text", ["POINT (1 1)", "POLYGON ((1"])
def test_what_is_no_area_is_said(text):
    with pytest.raises(InputError, match="area"):
        apply_mask_corrections(
            Raster(np.zeros(LATTICE.shape, bool), LATTICE), [Correction("add", area_wkt=text)]
        )


def test_places_are_flagged_and_cleared_and_the_later_area_counts():
    found = Raster(np.zeros(LATTICE.shape, np.uint8), LATTICE)
    found.values[5:15, 5:15] = 2
    corrections = [
        box("flag", 100, 200, 180, 280, "other"),
        box("clear", 140, 240, 300, 400),
        box("flag", 180, 320, 260, 400, "blur"),
        box("clear", 340, 500, 380, 560),
    ]
    result = apply_artefact_corrections(found, corrections)
    rows, cols = np.moveaxis(LATTICE.centres_um(), -1, 0)  # a second way: by the centres
    expected = found.values.copy()
    for code, (top, left, bottom, right) in zip(
        (5, 0, 3, 0),
        ((100, 200, 180, 280), (140, 240, 300, 400), (180, 320, 260, 400), (340, 500, 380, 560)),
        strict=True,
    ):
        expected[(rows >= top) & (rows < bottom) & (cols >= left) & (cols < right)] = code
    np.testing.assert_array_equal(result.mask.values, expected)
    np.testing.assert_array_equal(result.flagged, (expected == 5) | (expected == 3))
    np.testing.assert_array_equal(result.cleared, (found.values == 2) & (expected == 0))
    areas = result.areas_mm2()
    pixel_mm2 = 64e-6
    assert areas["other"] == pytest.approx((expected == 5).sum() * pixel_mm2)
    assert areas["blur"] == pytest.approx((expected == 3).sum() * pixel_mm2)
    assert areas["fold"] == 0  # found, not flagged by hand
    assert areas["cleared"] == pytest.approx(result.cleared.sum() * pixel_mm2)
    np.testing.assert_array_equal(apply_artefact_corrections(found, []).mask.values, found.values)


def test_a_kind_that_is_not_known_is_said():
    found = Raster(np.zeros(LATTICE.shape, np.uint8), LATTICE)
    with pytest.raises(InputError, match="unknown artefact type 'dust'; use one of: pen, fold"):
        apply_artefact_corrections(found, [box("flag", 100, 200, 180, 280, "dust")])
