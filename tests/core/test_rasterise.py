"""Shapes on a lattice against point-in-polygon tests."""

import numpy as np
import shapely

from napari_mosaik.core import Lattice
from napari_mosaik.core.rasterise import rasterise
from napari_mosaik.core.shapes import AnnotatedShape

LATTICE = Lattice("he", (60, 80), (2.0, 3.0), (10.0, -20.0))
CODES = {"neoplastic": 2, "background": 1}


def shape(geometry, label="neoplastic"):
    return AnnotatedShape("k", label, geometry)


def by_points(geometry):
    rows_columns = LATTICE.centres_um()
    return shapely.contains_xy(geometry, rows_columns[..., 1], rows_columns[..., 0])


def test_against_points_in_polygons_with_holes_and_parts():
    rng = np.random.default_rng(5)
    for _ in range(20):
        blobs = [
            shapely.Point(*rng.uniform((-20, 10), (220, 130))).buffer(rng.uniform(3, 50))
            for _ in range(4)
        ]
        area = shapely.union_all(blobs[:3]).difference(blobs[3])
        if area.is_empty:
            continue
        assert (rasterise([shape(area)], LATTICE, CODES) == 2 * by_points(area)).all()


def test_later_shapes_lie_on_top_and_unknown_classes_are_left_out():
    low, high = shapely.box(0, 20, 60, 80), shapely.box(30, 50, 90, 100)
    found = rasterise([shape(low), shape(high, "background"), shape(low, "bone")], LATTICE, CODES)
    expected = np.where(by_points(high), 1, 2 * by_points(low))
    assert (found == expected).all()


def test_shapes_that_share_an_edge_share_no_sample_and_leave_none():
    # edges run exactly through sample centres
    xs = [-18.5, 41.5, 101.5]
    left, right = shapely.box(xs[0], 11, xs[1], 71), shapely.box(xs[1], 11, xs[2], 71)
    a = rasterise([shape(left)], LATTICE, CODES) > 0
    b = rasterise([shape(right)], LATTICE, CODES) > 0
    assert not (a & b).any()
    assert (a | b).sum() == (40) * (30)
    assert a.sum() == b.sum()


def test_beyond_the_lattice_nothing_is_written():
    assert not rasterise([shape(shapely.box(900, 900, 950, 950))], LATTICE, CODES).any()
    assert rasterise([shape(shapely.box(-900, -900, 950, 950))], LATTICE, CODES).all()
    assert not rasterise([], LATTICE, CODES).any()
