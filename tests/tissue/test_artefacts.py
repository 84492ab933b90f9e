"""Pen, folds, blur and air bubbles placed over textured tissue are flagged, and nothing else is."""

import numpy as np
import pytest
from scipy import ndimage

from napari_mosaik.core import Lattice, Raster
from napari_mosaik.tissue import TissueParams, tissue_mask
from napari_mosaik.tissue.artefacts import (
    ArtefactParams,
    artefact_areas_mm2,
    artefact_mask,
    blurred_cells,
    bubbles,
    folds,
    sharpness_sums,
)
from napari_mosaik.tissue.mask import ink_mask

SPACING = 8.0
SHAPE = (300, 360)
ROWS, COLS = np.indices(SHAPE)


def overview(od, glass=240.0):
    """Picture of natural optical densities (rows, columns, 3)."""
    rgb = np.clip(np.rint(glass * np.exp(-od)), 0, 255).astype(np.uint8)
    return Raster(rgb, Lattice("he", rgb.shape[:2], (SPACING, SPACING)))


@pytest.fixture
def od():
    """An ellipse of tissue whose density varies over the slide by an eighth."""
    rng = np.random.default_rng(0)
    inside = np.hypot((ROWS - 150) / 120, (COLS - 180) / 150) < 1
    slow = ndimage.gaussian_filter(rng.normal(size=SHAPE), 12)
    fine = rng.normal(0, 0.06, SHAPE)
    amount = inside * np.clip(1 + 0.06 * slow / slow.std() + fine, 0.3, 2)
    return amount[..., None] * np.array([0.25, 0.55, 0.35])


def inside_of(raster):
    return np.asarray(tissue_mask(raster, TissueParams(exclude_ink=False)).values, bool)


def test_clean_tissue_is_fine(od):
    raster = overview(od)
    quality = artefact_mask(
        raster, inside_of(raster), np.zeros(SHAPE, bool), None, ArtefactParams()
    )
    assert not quality.values.any()
    none = {"pen": 0, "fold": 0, "blur": 0, "air bubble": 0, "other": 0}
    assert artefact_areas_mm2(quality) == none


def test_a_fold_is_found_where_it_lies_and_a_round_dark_spot_is_none(od):
    fold = (np.abs(ROWS - 150 - 0.4 * (COLS - 180)) < 5) & (np.abs(COLS - 180) < 60)
    spot = np.hypot(ROWS - 90, COLS - 150) < 9
    raster = overview(od * np.where(fold | spot, 1.9, 1)[..., None])
    found = folds(raster, inside_of(raster), ArtefactParams())
    assert (found & fold).sum() > 0.7 * fold.sum()
    assert (found & ~ndimage.binary_dilation(fold, iterations=3)).sum() == 0


def test_all_kinds_are_coded_on_the_overviews_own_pixels(od):
    fold = (np.abs(ROWS - 190 - 0.4 * (COLS - 180)) < 6) & (np.abs(COLS - 180) < 60)
    away = np.hypot(ROWS - 100, COLS - 200)
    rim = (away < 40) & (away >= 36)
    raster = overview(np.where(rim[..., None], 1.0, od * np.where(fold, 1.9, 1)[..., None]))
    blurred, ink = COLS < 80, COLS > 300
    found = artefact_mask(raster, inside_of(raster), ink, blurred, ArtefactParams()).values
    assert (found[fold] == 2).mean() > 0.7
    assert (found[away < 36] == 4).mean() > 0.95
    assert (found[ink] == 1).all()
    assert ((found == 3) == (blurred & inside_of(raster) & (found == 3))).all()
    assert (found[(found != 2) & (found != 4) & blurred & inside_of(raster)] == 3).all()


def test_brown_or_blue_bands_are_no_folds(od):
    band = (np.abs(ROWS - 150) < 5) & (np.abs(COLS - 180) < 60)
    for stain in ((0.27, 0.57, 0.78), (0.65, 0.70, 0.29), (0.07, 0.99, 0.11)):
        more = np.array(stain) * (0.6 if stain[0] < 0.5 else 0.3)
        raster = overview(od + band[..., None] * np.where(more > 0.2, more, 0))
        assert not folds(raster, inside_of(raster), ArtefactParams()).any()


def test_a_dark_but_lacy_stain_is_no_fold(od):
    net = (ROWS % 22 < 6) | (COLS % 22 < 6)
    band = (np.abs(ROWS - 150) < 22) & (np.abs(COLS - 180) < 70)
    raster = overview(od * np.where(net & band, 2.6, 1)[..., None])
    solid = overview(od * np.where(band, 2.6, 1)[..., None])
    params = ArtefactParams(fold_ratio=1.6)
    assert folds(solid, inside_of(solid), params).any()
    assert not folds(raster, inside_of(raster), params).any()


def test_no_tissue_has_no_folds():
    raster = overview(np.zeros((*SHAPE, 3)))
    assert not folds(raster, np.ones(SHAPE, bool), ArtefactParams()).any()


def test_pen_is_coded_and_its_area_is_told(od):
    stroke = (np.abs(ROWS - 150) < 6) & (np.abs(COLS - 180) < 80)
    for od_of_pen in ((1.6, 0.5, 1.5), (1.8, 1.0, 0.05), (2.4, 2.4, 2.4)):  # green, blue, black
        raster = overview(np.where(stroke[..., None], np.array(od_of_pen), od))
        params = TissueParams(ink_margin_um=0)
        ink = ink_mask(raster.values, (SPACING, SPACING), params)
        quality = artefact_mask(raster, inside_of(raster), ink, None, params)
        assert (quality.values[stroke] == 1).mean() > 0.95
        area = artefact_areas_mm2(quality)["pen"]
        assert area == pytest.approx(stroke.sum() * 64e-6, rel=0.05)


@pytest.mark.parametrize("centre", [(150, 180), (40, 60)])
def test_an_air_bubble_is_flagged_with_its_inside(od, centre):
    away = np.hypot(ROWS - centre[0], COLS - centre[1])
    rim = (away < 30) & (away >= 27)
    raster = overview(np.where(rim[..., None], 1.0, od))
    found = bubbles(raster, ArtefactParams())
    assert found[away < 29].mean() > 0.95
    assert not found[away > 33].any()


def textured(sigma_px=0.0):
    """Grey tissue of 2 µm pixels with nuclei; blurred by a standard deviation."""
    rng = np.random.default_rng(1)
    field = ndimage.gaussian_filter(rng.normal(size=(500, 620)), 1.2)
    grey = 190 - 60 * (field > 0.8 * field.std())
    grey = ndimage.gaussian_filter(grey.astype(float), 0.4)
    return ndimage.gaussian_filter(grey, sigma_px) if sigma_px else grey


def sums_of(grey, block=(500, 620), margin=17):
    parts = []
    for top in range(0, grey.shape[0], block[0]):
        for left in range(0, grey.shape[1], block[1]):
            above, before = min(margin, top), min(margin, left)
            part = grey[top - above : top + block[0] + margin, left - before :]
            part = part[:, : before + block[1] + margin]
            inner = (slice(above, above + block[0]), slice(before, before + block[1]))
            size = (min(block[0], grey.shape[0] - top), min(block[1], grey.shape[1] - left))
            inner = (slice(above, above + size[0]), slice(before, before + size[1]))
            parts.append(sharpness_sums(part, (top, left), inner))
    return parts


def test_blur_is_found_where_it_lies_whatever_the_blocks():
    lattice = Lattice("he", (500, 620), (2.0, 2.0))
    sharp, soft = textured(), textured(2.0)
    mixed = sharp.copy()
    mixed[130:390, 200:460] = soft[130:390, 200:460]
    whole = blurred_cells(sums_of(mixed), lattice, ArtefactParams())
    assert whole.lattice.spacing_um == (64.0, 64.0)
    assert whole.values[5:11, 8:13].all()
    outside = np.array(whole.values)
    outside[3:14, 5:16] = False
    assert not outside.any()
    for block in ((500, 100), (111, 93), (64, 64)):
        again = blurred_cells(sums_of(mixed, block), lattice, ArtefactParams())
        np.testing.assert_array_equal(again.values, whole.values)
    assert not blurred_cells(sums_of(sharp), lattice, ArtefactParams()).values.any()


def test_a_picture_without_texture_says_nothing_about_blur():
    lattice = Lattice("he", (500, 620), (2.0, 2.0))
    rng = np.random.default_rng(0)
    for grey in (np.full((500, 620), 230.0), rng.normal(230, 1, (500, 620)).round()):
        assert not blurred_cells(sums_of(grey), lattice, ArtefactParams()).values.any()
    assert not blurred_cells([], lattice, ArtefactParams()).values.any()
