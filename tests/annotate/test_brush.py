"""Strokes, outlines and their repair against closed forms."""

import math

import numpy as np
import pytest
import shapely

from napari_mosaik.annotate import (
    clean,
    cut_region,
    join_region,
    lasso_polygon,
    rectangle_polygon,
    stroke_polygon,
)
from napari_mosaik.core import InputError


def test_one_point_gives_a_disk_at_row_and_column():
    disk = stroke_polygon([[100.0, 250.0]], 20.0)
    assert (disk.centroid.x, disk.centroid.y) == pytest.approx((250.0, 100.0))
    assert disk.area == pytest.approx(math.pi * 400, rel=0.01)
    assert stroke_polygon([[1, 2], [1, 2]], 20.0).area == pytest.approx(math.pi * 400, rel=0.01)


def test_a_straight_stroke_is_a_stadium():
    stroke = stroke_polygon([[0.0, 0.0], [0.0, 30.0], [0.0, 100.0]], 10.0)
    assert stroke.area == pytest.approx(100 * 20 + math.pi * 100, rel=0.01)
    assert stroke.bounds == pytest.approx((-10, -10, 110, 10), abs=0.5)


def test_a_dense_stroke_stays_within_a_fortieth_of_the_radius():
    t = np.linspace(0, 6, 2000)
    points = np.stack([200 * np.sin(t), 150 * t], 1)
    exact = shapely.LineString(points[:, ::-1]).buffer(25.0, quad_segs=64)
    quick = stroke_polygon(points, 25.0)
    assert shapely.hausdorff_distance(exact.exterior, quick.exterior) < 25 / 40 + 0.15
    assert len(quick.exterior.coords) < 400


def test_a_closed_stroke_has_a_hole():
    t = np.linspace(0, 2 * np.pi, 100)
    ring = stroke_polygon(np.stack([100 * np.sin(t), 100 * np.cos(t)], 1), 10.0)
    assert len(ring.interiors) == 1
    assert ring.area == pytest.approx(math.pi * (110**2 - 90**2), rel=0.02)


def test_a_lasso_that_crosses_itself_keeps_both_loops():
    bow = lasso_polygon([[0, 0], [10, 10], [10, 0], [0, 10]])
    assert bow.is_valid
    assert bow.area == pytest.approx(50.0)
    assert bow.geom_type == "MultiPolygon"


def test_rectangle_from_any_two_corners():
    for corners in [((1, 2), (5, 10)), ((5, 10), (1, 2)), ((1, 10), (5, 2))]:
        assert rectangle_polygon(*corners).bounds == (2.0, 1.0, 10.0, 5.0)


def test_cleaning_drops_slivers_lines_and_small_holes():
    holed = shapely.box(0, 0, 10, 10).difference(shapely.box(1, 1, 2, 2))
    holed = holed.difference(shapely.box(4, 4, 8, 8))
    mixed = shapely.GeometryCollection(
        [holed, shapely.box(20, 0, 20.5, 1), shapely.LineString([(0, 0), (50, 50)])]
    )
    area = clean(mixed, 4.0)
    assert area.geom_type == "Polygon"
    assert area.area == pytest.approx(100 - 16)
    assert clean(shapely.LineString([(0, 0), (1, 1)])) is None
    assert clean(shapely.Polygon()) is None


def test_joining_and_cutting_are_set_operations():
    a, b = shapely.box(0, 0, 10, 10), shapely.box(5, 0, 15, 10)
    assert join_region(a, b).area == pytest.approx(150)
    assert cut_region(a, b).area == pytest.approx(50)
    assert cut_region(a, shapely.box(-1, -1, 11, 11)) is None


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stroke_polygon([], 5), "at least 1"),
        (lambda: stroke_polygon([[0, 0]], 0), "radius"),
        (lambda: stroke_polygon([[0, np.nan]], 5), "not a finite number"),
        (lambda: lasso_polygon([[0, 0], [1, 1]]), "at least 3"),
        (lambda: lasso_polygon([[0, 0], [1, 1], [2, 2]]), "no area"),
        (lambda: rectangle_polygon((0, 0), (0, 5)), "no area"),
    ],
)
def test_what_is_no_area_is_refused_with_a_reason(call, words):
    with pytest.raises(InputError, match=words):
        call()
