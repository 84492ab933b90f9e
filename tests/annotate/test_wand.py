"""The wand finds a planted border, and outlines hold exactly the pixels of their mask."""

import numpy as np
import pytest
import shapely

from napari_mosaik.annotate import area_of_pixels, region_of_code, wand_area, wand_field
from napari_mosaik.core import Lattice
from napari_mosaik.core.rasterise import rasterise
from napari_mosaik.core.shapes import AnnotatedShape

TUMOUR, STROMA = (150, 95, 160), (215, 160, 195)


def scene(size_um=400.0, spacing=1.0, rough=(14.0, 14.0), colours=(TUMOUR, STROMA), seed=0):
    """A disc of radius 120 µm in the middle; the noise lies on the glass, at 1 µm."""
    fine = int(size_um)
    at = np.arange(fine) + 0.5 - size_um / 2
    inside = np.hypot(at[:, None], at[None]) < 120
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 1, (fine, fine, 1)) * np.where(inside, *rough)[..., None]
    rgb = np.where(inside[..., None], *(np.array(c, float) for c in colours)) + noise
    k = round(spacing)
    rgb = rgb.reshape(fine // k, k, fine // k, k, 3).mean(axis=(1, 3))
    lattice = Lattice("he", rgb.shape[:2], (spacing, spacing))
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8), lattice


def disc():
    return shapely.Point(200, 200).buffer(120, quad_segs=100)


def distances(area, border):
    """How far the outline lies from a border at most, and the other way round."""
    points = shapely.points(shapely.get_coordinates(area.segmentize(1.0)))
    return shapely.distance(points, border).max(), shapely.hausdorff_distance(area, border)


@pytest.mark.parametrize("seed", range(4))
def test_a_planted_border_is_found_within_a_pixel(seed):
    rgb, lattice = scene(seed=seed)
    area = wand_area(wand_field(rgb), lattice, [(200.0, 180.0)], 20.0)
    off = shapely.symmetric_difference(area, disc()).area / disc().length
    assert off < 1.0  # mean distance of the two borders, in pixels
    away = shapely.distance(
        shapely.points(shapely.get_coordinates(area.segmentize(1.0))), disc().boundary
    )
    assert np.quantile(away, 0.95) <= 1.0
    assert not area.interiors


def test_without_noise_no_point_of_the_border_is_off_by_more_than_a_pixel():
    rgb, lattice = scene(rough=(0.0, 0.0))
    area = wand_area(wand_field(rgb), lattice, [(200.0, 180.0)], 12.0)
    assert shapely.hausdorff_distance(area.exterior, disc().exterior) <= 1.5  # half a diagonal more
    away = shapely.distance(
        shapely.points(shapely.get_coordinates(area.segmentize(1.0))), disc().boundary
    )
    assert np.quantile(away, 0.95) <= 1.0


def test_the_zoom_moves_the_border_by_less_than_a_pixel():
    found = []
    for spacing in (1.0, 2.0, 4.0):
        rgb, lattice = scene(spacing=spacing)
        found.append(wand_area(wand_field(rgb), lattice, [(200.0, 180.0)], 20.0))
    for spacing, area in zip((2.0, 4.0), found[1:], strict=True):
        off = shapely.symmetric_difference(area, found[0]).area / found[0].length
        assert off < spacing


def test_texture_alone_makes_a_border():
    grey = (180, 140, 175)
    rgb, lattice = scene(rough=(3.0, 40.0), colours=(grey, grey))
    area = wand_area(wand_field(rgb), lattice, [(200.0, 200.0)], 6.0)
    off = shapely.symmetric_difference(area, disc()).area / disc().length
    assert off < 3.5  # half the window
    loose = wand_area(wand_field(rgb), lattice, [(200.0, 200.0)], 60.0)
    assert loose.area > 1.5 * disc().area


def test_the_tolerance_widens_and_more_seeds_add():
    rgb, lattice = scene()
    field = wand_field(rgb)
    areas = [wand_area(field, lattice, [(200.0, 180.0)], t).area for t in (4.0, 20.0, 90.0)]
    assert areas == sorted(areas)
    assert areas[2] == pytest.approx(400 * 400)
    both = wand_area(field, lattice, [(200.0, 180.0), (10.0, 10.0)], 20.0)
    assert both.area > 0.95 * 400 * 400
    assert wand_area(field, lattice, [(-50.0, 10.0)], 20.0) is None
    assert wand_area(field, lattice, [], 20.0) is None


def test_an_outline_holds_exactly_the_pixels_of_its_mask():
    rng = np.random.default_rng(0)
    for _ in range(150):
        mask = rng.random(rng.integers(1, 14, 2)) < rng.random()
        lattice = Lattice("he", mask.shape, (2.0, 3.0), (5.0, 7.0))
        area = area_of_pixels(mask, lattice)
        if not mask.any():
            assert area is None
            continue
        assert area.is_valid
        assert area.area == pytest.approx(mask.sum() * 6.0)
        drawn = rasterise([AnnotatedShape("a", "x", area)], lattice, {"x": 1})
        assert (drawn == mask).all()


def test_a_region_of_a_class_map_is_what_is_connected_by_sides():
    from scipy.ndimage import label

    codes = np.random.default_rng(1).integers(0, 3, (60, 50)).astype(np.uint8)
    for at in ((0, 0), (30, 20), (59, 49)):
        parts, _ = label(codes == codes[at])
        mask, (top, left) = region_of_code(codes, at)
        whole = np.zeros(codes.shape, bool)
        whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
        assert (whole == (parts == parts[at])).all()
    assert region_of_code(codes, (60, 0)) is None
    assert region_of_code(codes, (0, -1)) is None
