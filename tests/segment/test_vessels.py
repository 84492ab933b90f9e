"""Vessels drawn with known stain, wall and lumen are found again."""

import colorsys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from napari_mosaik.core import InputError, Lattice, Raster
from napari_mosaik.core.colour import DAB, HAEMATOXYLIN, stain_density, stain_matrix
from napari_mosaik.segment.masks import close_mask, disc, fill_holes
from napari_mosaik.segment.slide_stain import estimate_threshold, vessel_density
from napari_mosaik.segment.stitch import windows
from napari_mosaik.segment.vessel_params import VesselParams
from napari_mosaik.segment.vessels import (
    dab_by_hue,
    halo_um,
    pixel_limits,
    segment_vessels,
    vessel_wall,
)

from .joining import whole_objects

REAL = Path(__file__).parents[2] / "../shared/data/ihc/cd31_vessels_left.png"


def paint(dab, haematoxylin=0.0):
    """8-bit picture of natural OD amounts (the inverse of the program's own definition)."""
    dab, haematoxylin = np.broadcast_arrays(np.asarray(dab, float), haematoxylin)
    matrix = stain_matrix(HAEMATOXYLIN, DAB)
    od = haematoxylin[..., None] * matrix[:, 0] + dab[..., None] * matrix[:, 1]
    return np.clip(np.rint(240 * np.exp(-od) - 1), 0, 255).astype(np.uint8)


def raster(rgb, spacing_um):
    return Raster(rgb, Lattice("cd34", rgb.shape[:2], (spacing_um, spacing_um)))


def ring_picture(spacing_um, outer_um=20.0, inner_um=14.0, size_um=100.0):
    n = round(size_um / spacing_um)
    rows, cols = (np.mgrid[:n, :n] + 0.5) * spacing_um - size_um / 2
    distance = np.hypot(rows, cols)
    return paint(np.where((distance <= outer_um) & (distance >= inner_um), 1.2, 0.0), 0.05)


def test_density_is_the_amount_that_was_painted_and_that_of_core():
    dab, haem = np.meshgrid(np.linspace(0, 1.5, 9), np.linspace(0, 1.0, 7))
    rgb = paint(dab, haem)
    np.testing.assert_allclose(vessel_density(rgb), dab, atol=0.06)
    core = stain_density(rgb, stain_matrix(HAEMATOXYLIN, DAB))[..., 1]
    np.testing.assert_allclose(vessel_density(rgb), core, atol=1e-5)


@pytest.mark.parametrize("spacing_um", [0.25, 0.5, 1.0])
def test_a_ring_is_a_disc_once_its_lumen_is_filled(spacing_um):
    labels = segment_vessels(raster(ring_picture(spacing_um), spacing_um)).array()
    assert labels.max() == 1
    diameter = 2 * np.sqrt((labels == 1).sum() * spacing_um**2 / np.pi)
    assert diameter == pytest.approx(40.0, abs=1.0)


def test_a_lumen_above_the_cap_stays_open():
    params = VesselParams(max_lumen_um2=500.0)  # the lumen has 616 µm²
    labels = segment_vessels(raster(ring_picture(0.5), 0.5), params).array()
    assert labels[100, 100] == 0
    assert labels.max() == 1


def test_small_specks_are_left_out_by_area_in_square_micrometres():
    dab = np.zeros((60, 60))
    dab[10:14, 10:14] = 1.2  # 16 µm²
    dab[30:36, 30:36] = 1.2  # 36 µm²
    labels = segment_vessels(raster(paint(dab), 1.0), VesselParams(smoothing_um=0)).array()
    assert np.bincount(labels.ravel()).tolist() == [60 * 60 - 36, 36]


def test_threshold_lies_between_background_and_wall_and_never_in_noise():
    rng = np.random.default_rng(0)
    background, wall = rng.normal(0.05, 0.05, 9000), rng.normal(1.2, 0.15, 1000)
    params = VesselParams()
    assert 0.3 < estimate_threshold(np.r_[background, wall], params) < 0.9
    assert estimate_threshold(background, params) == params.min_threshold_od
    assert estimate_threshold([], params) == params.dab_od
    fixed = VesselParams(threshold="fixed", dab_od=0.77)
    assert estimate_threshold(wall, fixed) == 0.77


def test_a_slide_without_stain_has_no_vessels():
    for rgb in (np.full((64, 64, 3), 255, np.uint8), paint(np.zeros((64, 64)), 0.4)):
        for method in ("dab", "hsv"):
            labels = segment_vessels(raster(rgb, 1.0), VesselParams(method=method)).array()
            assert labels.max() == 0


def test_hue_range_is_circular_and_equals_the_definition_pixel_by_pixel():
    rgb = np.random.default_rng(0).integers(0, 256, (60, 50, 3)).astype(np.uint8)
    rgb[0, 0] = (200, 110, 115)  # hue 356.7 degrees: beyond the red end of the circle
    rgb[0, 1] = (200, 110, 140)  # hue 340 degrees
    expected = np.zeros(rgb.shape[:2], bool)
    for r, c in np.ndindex(expected.shape):
        hue, saturation, value = colorsys.rgb_to_hsv(*(rgb[r, c] / 255))
        degrees = hue * 360
        expected[r, c] = (
            (degrees >= 350 or degrees < 45) and saturation >= 0.15 and 0.1 <= value <= 0.9
        )
    found = dab_by_hue(rgb)
    assert found[0, 0]
    assert not found[0, 1]
    assert (found != expected).sum() <= 1  # rounding exactly on a limit


@pytest.mark.parametrize(
    ("amount", "hue", "saturation"),
    [(0.2, 23.97, 0.10), (0.5, 22.87, 0.22), (1, 21.09, 0.40), (2, 17.68, 0.64)],
)
def test_pure_dab_has_the_published_hue(amount, hue, saturation):
    red, green, blue = (240 * np.exp(-amount * stain_matrix(HAEMATOXYLIN, DAB)[:, 1])) / 255
    h, s, _ = colorsys.rgb_to_hsv(red, green, blue)
    assert h * 360 == pytest.approx(hue, abs=0.5)
    assert s == pytest.approx(saturation, abs=0.01)


def test_hue_loses_wall_over_nuclei_that_density_keeps():
    rgb = paint(np.full((20, 20), 1.0), 1.0)
    assert not dab_by_hue(rgb).any()
    assert (vessel_density(rgb) > 0.8).all()


def test_closing_equals_scipy_inside_and_never_removes():
    rng = np.random.default_rng(1)
    mask = ndimage.gaussian_filter(rng.normal(size=(80, 90)), 1.5) > 0.1
    for radius in (1.0, 1.5, 3.0):
        closed = close_mask(mask, radius)
        offsets = disc(radius)
        reach = int(radius)
        element = np.zeros((2 * reach + 1, 2 * reach + 1), bool)
        element[offsets[:, 0] + reach, offsets[:, 1] + reach] = True
        reference = ndimage.binary_closing(np.pad(mask, 10), element)[10:-10, 10:-10]
        inner = (slice(8, -8), slice(8, -8))
        np.testing.assert_array_equal(closed[inner], reference[inner])
        assert (closed | mask == closed).all()


def test_holes_that_touch_the_border_stay_open():
    mask = np.ones((12, 12), bool)
    mask[0, 3] = mask[5, 5] = False
    mask[8:10, 8:10] = False
    filled = fill_holes(mask, 3)
    assert not filled[0, 3]
    assert filled[5, 5]
    assert not filled[8:10, 8:10].any()


@pytest.mark.parametrize("block_px", [64, 100])
def test_blocks_with_halo_equal_the_whole_picture(block_px):
    rng = np.random.default_rng(2)
    field = ndimage.gaussian_filter(rng.normal(size=(330, 300)), 4)
    walls = (np.abs(field) < 0.1 * field.std()) & (ndimage.uniform_filter(field, 60) > 0)
    walls[20:23, 10:290] = walls[30:33, 10:290] = True  # a long vessel through several seams
    walls[20:33, 10:13] = walls[20:33, 287:290] = True
    rgb = paint(np.where(walls, 1.0, 0.05), 0.1)
    params = VesselParams(max_lumen_um2=3000.0, threshold="fixed")
    whole = segment_vessels(raster(rgb, 1.0), params).array()
    halo = int(np.ceil(halo_um(params)))
    blocks = windows(rgb.shape[:2], block_px)
    mask = np.zeros(rgb.shape[:2], bool)
    for rows, cols in blocks:
        top, left = max(0, rows.start - halo), max(0, cols.start - halo)
        part = rgb[top : rows.stop + halo, left : cols.stop + halo]
        wall = vessel_wall(part, 1.0, params, params.dab_od)
        mask[rows, cols] = wall[rows.start - top :, cols.start - left :][
            : rows.stop - rows.start, : cols.stop - cols.start
        ]
    np.testing.assert_array_equal(whole_objects(mask, blocks, *pixel_limits(params, 1.0)), whole)
    assert whole.max() > 3
    assert whole[26, 150] > 0  # the long lumen is filled although no block holds it


def test_wrong_pictures_are_refused():
    with pytest.raises(InputError, match="8-bit RGB"):
        vessel_density(np.zeros((4, 4, 3)))
    with pytest.raises(InputError, match="pixel size"):
        vessel_wall(np.zeros((4, 4, 3), np.uint8), 0.0, VesselParams(), 0.5)


@pytest.mark.realdata
def test_real_vessels_of_known_places_are_found():
    if not REAL.exists():
        pytest.skip(f"{REAL} is not there")
    import tifffile  # noqa: F401
    from skimage.io import imread

    rgb = imread(REAL)[..., :3]
    labels = segment_vessels(raster(rgb, 0.25)).array()
    assert 30 <= labels.max() <= 60
    # a capillary with lumen, the large vein's wall, and plain parenchyma, picked by eye
    assert labels[85, 460] > 0
    assert labels[150, 330] > 0
    assert labels[620, 640] == 0
    assert 0.01 < (labels > 0).mean() < 0.06
