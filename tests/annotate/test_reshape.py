"""New outlines from old ones, against closed forms and second ways."""

import numpy as np
import pytest
import shapely
from shapely import MultiPolygon, Point, Polygon

from napari_mosaik.annotate import (
    insert_vertex,
    move_vertex,
    nearest_edge,
    nearest_vertex,
    offset_outline,
    remove_vertex,
    simplify_outline,
    smooth_outline,
    split_along,
    stroke_polygon,
    unite_areas,
    without_holes,
)
from napari_mosaik.core import InputError

SQUARE = shapely.box(0, 0, 100, 100)
DISC = Point(200, 100).buffer(50, quad_segs=64)


def ragged(seed=0, n=400, holes=True):
    """A disc of radius 100 with a ragged border, and ragged holes in it."""
    rng = np.random.default_rng(seed)

    def ring(x, y, radius, rough):
        angle = np.arange(n) / n * 2 * np.pi
        r = radius + rng.normal(0, rough, n)
        return np.stack([x + r * np.cos(angle), y + r * np.sin(angle)], 1)

    inner = [ring(-40, 0, 15, 0.05), ring(40, 0, 20, 0.05)] if holes else []
    made = Polygon(ring(0, 0, 100, 0.4), inner)
    assert made.is_valid
    return made


@pytest.mark.parametrize("by", [0.5, 7.0, 40.0])
def test_dilation_has_the_area_of_steiner(by):
    """Area + perimeter * d + pi d² for convex areas; the disc is a disc of radius r + d."""
    for area in (SQUARE, DISC):
        exact = area.area + area.length * by + np.pi * by**2
        assert offset_outline(area, by).area == pytest.approx(exact, rel=2e-3)
        assert offset_outline(area, by).area <= exact
    assert offset_outline(DISC, by).area == pytest.approx(np.pi * (50 + by) ** 2, rel=2e-3)


@pytest.mark.parametrize("by", [0.5, 7.0, 40.0])
def test_shrinking_keeps_what_is_farther_from_the_outline(by):
    assert offset_outline(SQUARE, -by).area == pytest.approx((100 - 2 * by) ** 2)
    assert offset_outline(DISC, -by).area == pytest.approx(np.pi * (50 - by) ** 2, rel=2e-3)
    both = MultiPolygon([SQUARE, DISC])
    assert offset_outline(both, -by).geom_type == "MultiPolygon"
    with pytest.raises(InputError, match="shrunk by 60 µm"):
        offset_outline(SQUARE, -60.0)


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_distance_is_positive(bad):
    for act in (offset_outline, smooth_outline, simplify_outline):
        with pytest.raises(InputError, match="must be positive"):
            act(SQUARE, bad)


def test_holes_are_filled_and_parts_in_them_join():
    ring = SQUARE.difference(shapely.box(20, 20, 80, 80))
    island = shapely.box(40, 40, 60, 60)
    assert without_holes(ring).equals(SQUARE)
    assert without_holes(MultiPolygon([ring, island])).equals(SQUARE)
    apart = MultiPolygon([ring, DISC])
    assert without_holes(apart).area == pytest.approx(SQUARE.area + DISC.area)


@pytest.mark.parametrize("sigma", [2.0, 5.0])
def test_a_smoothed_disc_has_the_area_of_its_filter(sigma):
    """A circle is one wave of its outline: its radius is multiplied by 1 - (1 - g)²."""
    disc = Point(0, 0).buffer(80, quad_segs=200)
    gauss = np.exp(-0.5 * (sigma / 80) ** 2)
    exact = np.pi * (80 * (1 - (1 - gauss) ** 2)) ** 2
    assert smooth_outline(disc, sigma).area == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("sigma", [1.0, 3.0, 8.0])
def test_a_smoothed_square_has_the_area_of_its_waves(sigma):
    """By the waves of the outline: the area is pi * sum of k |c_k|² over its Fourier series."""
    n, a = 1 << 16, 100.0
    at = np.arange(n) / n * 4
    side, along = at.astype(int), (at % 1) * a
    corner = np.array([0, a, a + 1j * a, 1j * a])
    points = corner[side] + along * np.array([1, 1j, -1, -1j])[side]
    waves = np.fft.fft(points) / n
    k = np.fft.fftfreq(n, 1 / n)
    gauss = np.exp(-0.5 * (2 * np.pi * k / (4 * a) * sigma) ** 2)
    exact = np.pi * (k * np.abs(waves * (1 - (1 - gauss) ** 2)) ** 2).sum()
    smooth = smooth_outline(SQUARE, sigma)
    assert smooth.area == pytest.approx(exact, rel=2e-3)
    assert abs(smooth.area - SQUARE.area) < 0.1 * SQUARE.length * sigma


@pytest.mark.parametrize("sigma", [1.0, 4.0, 16.0, 100.0])
def test_smoothing_keeps_parts_holes_and_area(sigma):
    rough = ragged()
    both = MultiPolygon([rough, shapely.affinity.translate(rough, 203, 0)])
    for area in (rough, both):
        smooth = smooth_outline(area, sigma)
        assert smooth.is_valid
        parts, others = shapely.get_parts(area), shapely.get_parts(smooth)
        assert [len(p.interiors) for p in parts] == [len(p.interiors) for p in others]
        assert smooth.area == pytest.approx(area.area, rel=0.02)
        assert smooth.length < area.length
    assert smooth_outline(rough, 4.0).length < 1.1 * 2 * np.pi * (100 + 15 + 20)


@pytest.mark.parametrize("tolerance", [0.5, 3.0, 20.0])
def test_simplifying_stays_within_its_tolerance(tolerance):
    for area in (ragged(), stroke_polygon(np.random.default_rng(1).random((30, 2)) * 300, 12.0)):
        simple = simplify_outline(area, tolerance)
        assert simple.is_valid
        assert shapely.hausdorff_distance(area.boundary, simple.boundary) <= tolerance * 1.000001
        assert len(simple.exterior.coords) < len(area.exterior.coords)
        assert len(simple.interiors) == len(area.interiors)


def test_the_pieces_of_a_split_add_up():
    line = [(50.0, -10.0), (50.0, 110.0)]  # row 50, from left to right
    upper, lower = split_along(SQUARE, line)
    assert {upper.bounds, lower.bounds} == {(0, 0, 100, 50), (0, 50, 100, 100)}
    rng = np.random.default_rng(2)
    for seed in range(20):
        whole = ragged(seed)
        across = np.stack([rng.normal(0, 20, 30), np.linspace(-130, 130, 30)], 1)
        pieces = split_along(whole, across)
        assert len(pieces) >= 2
        assert sum(piece.area for piece in pieces) == pytest.approx(whole.area, rel=1e-9)
        assert unite_areas(pieces).symmetric_difference(whole).area < 1e-6
        assert all(shapely.intersection(a, b).area < 1e-9 for a in pieces for b in pieces
                   if a is not b)  # fmt: skip
        assert min(piece.area for piece in pieces) >= 4.0
        assert pieces[0].area == max(piece.area for piece in pieces)


def test_parts_that_are_not_cut_stay_with_the_largest_piece():
    both = MultiPolygon([SQUARE, DISC])
    pieces = split_along(both, [(20.0, -5.0), (20.0, 105.0)])
    assert [round(piece.area) for piece in pieces] == [round(8000 + DISC.area), 2000]


@pytest.mark.parametrize(
    "line", [[(50, 10), (50, 90)], [(50, -10), (50, 50)], [(500, 0), (500, 9)], [(1, 1)], []]
)
def test_a_line_that_does_not_cut_through_is_refused(line):
    with pytest.raises(InputError, match="line"):
        split_along(SQUARE, np.array(line, float).reshape(-1, 2))


def test_vertices_are_found_moved_inserted_and_removed():
    ring = SQUARE.difference(shapely.box(20, 20, 80, 80))
    area = MultiPolygon([ring, DISC])
    assert nearest_vertex(area, (50.0, 50.0), 5.0) is None
    corner = nearest_vertex(area, (101.0, 99.0), 5.0)
    moved = move_vertex(area, corner, (150.0, 100.0))
    assert moved.area == pytest.approx(area.area + 50 * 100 / 2)
    first = nearest_vertex(SQUARE, tuple(np.array(SQUARE.exterior.coords[0])[::-1]), 0.1)
    assert move_vertex(SQUARE, first, (-50.0, 100.0)).is_valid  # both ends of the ring move

    edge = nearest_edge(area, (21.0, 50.0), 2.0)  # the upper side of the hole, row 20
    more, new = insert_vertex(area, edge, (21.0, 50.0))
    assert nearest_vertex(more, (21.0, 50.0), 0.1) == new
    assert remove_vertex(more, new).equals(area)
    assert nearest_edge(area, (50.0, 50.0), 5.0) is None
    for number in range(4):
        triangle = remove_vertex(SQUARE, number)
        assert triangle.area == pytest.approx(5000)
        with pytest.raises(InputError, match="three vertices"):
            remove_vertex(triangle, 0)


def test_an_outline_that_is_dragged_over_itself_is_repaired():
    crossed = move_vertex(SQUARE, nearest_vertex(SQUARE, (0.0, 0.0), 1.0), (200.0, 150.0))
    assert crossed.is_valid
    assert crossed.area > 0
