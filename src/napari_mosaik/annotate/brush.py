"""Drawn shapes: brush strokes, lassos and rectangles, and their repair.

Positions are (row, column) in µm of the slide; geometries have x = column and y = row, also in µm.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import ArrayLike
from shapely import MultiPolygon, Polygon

from napari_mosaik.core import FloatArray, InputError

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

__all__ = [
    "Area",
    "clean",
    "cut_region",
    "join_region",
    "lasso_polygon",
    "rectangle_polygon",
    "stroke_polygon",
]

Area = Polygon | MultiPolygon
"""The geometry of an annotated shape: one or several parts, with or without holes."""

_DETAIL = 40.0
"""The outline of a stroke may deviate by its radius divided by this."""


def stroke_polygon(points_um: ArrayLike, radius_um: float) -> Area:
    """Area that a round brush of *radius_um* covers along a path.

    Parameters
    ----------
    points_um
        (n, 2) row and column of the path, n >= 1; a single point gives a disk.
    radius_um
        Radius of the brush, µm.

    Returns
    -------
    Area
        Outline within ``radius / 40`` of the exact one.

    Raises
    ------
    InputError
        No point, a position that is not finite, or a radius that is not positive.
    """
    points = _positions(points_um, 1, "a stroke")
    if not (math.isfinite(radius_um) and radius_um > 0):
        raise InputError(f"the brush radius must be positive, not {radius_um} µm")
    xy = points[:, ::-1]
    tolerance = radius_um / (2 * _DETAIL)
    if (np.ptp(xy, axis=0) == 0).all():
        outline: BaseGeometry = shapely.Point(xy[0]).buffer(radius_um, quad_segs=8)
    else:
        path = shapely.LineString(xy).simplify(tolerance)
        outline = path.buffer(radius_um, quad_segs=8).simplify(tolerance)
    area = clean(outline)
    if area is None:
        raise InputError("the stroke covers no area; move the brush or enlarge it")
    return area


def lasso_polygon(points_um: ArrayLike, tolerance_um: float = 0.0) -> Area:
    """Area enclosed by a freehand path, in µm; loops are repaired, the path is closed.

    Parameters
    ----------
    points_um
        (n, 2) row and column, µm, n >= 3.
    tolerance_um
        Vertices that deviate by less than this from a straight line are dropped, µm.

    Raises
    ------
    InputError
        Fewer than three points, a position that is not finite, or no enclosed area.
    """
    points = _positions(points_um, 3, "an outline")
    outline: BaseGeometry = Polygon(points[:, ::-1])
    area = clean(outline.simplify(tolerance_um) if tolerance_um > 0 else outline)
    if area is None:
        raise InputError("the outline encloses no area; draw around the region")
    return area


def rectangle_polygon(corner_um: ArrayLike, opposite_um: ArrayLike) -> Area:
    """The upright rectangle between two opposite corners (2,), row and column in µm."""
    first, second = _positions(np.stack([corner_um, opposite_um]), 2, "a rectangle")
    if (first == second).any():
        raise InputError("the rectangle has no area; drag from corner to corner")
    (r0, c0), (r1, c1) = np.minimum(first, second), np.maximum(first, second)
    return Polygon([(c0, r0), (c1, r0), (c1, r1), (c0, r1)])


def join_region(geometry: Area, region: Area, min_area_um2: float = 0.0) -> Area:
    """Union of *geometry* and *region*, without parts and holes below *min_area_um2*."""
    joined = clean(shapely.union(geometry, region), min_area_um2)
    return geometry if joined is None else joined


def cut_region(geometry: Area, region: Area, min_area_um2: float = 0.0) -> Area | None:
    """*geometry* without *region*; None when nothing remains."""
    return clean(shapely.difference(geometry, region), min_area_um2)


def clean(geometry: BaseGeometry, min_area_um2: float = 0.0) -> Area | None:
    """A valid area of the polygons of *geometry*; None when there is none.

    Loops are split by `shapely.make_valid`; lines and points are dropped, and so are parts and
    holes smaller than *min_area_um2*.
    """
    if geometry.is_empty:
        return None
    if not geometry.is_valid:
        geometry = shapely.make_valid(geometry)
    if isinstance(geometry, Polygon) and not geometry.interiors and min_area_um2 <= 0:
        return geometry if geometry.area > 0 else None
    parts = [_without_small_holes(part, min_area_um2) for part in _polygons(geometry)]
    parts = [part for part in parts if part.area > 0 and part.area >= min_area_um2]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def _polygons(geometry: BaseGeometry) -> list[Polygon]:
    """All polygons in a geometry of any kind."""
    if isinstance(geometry, Polygon):
        return [geometry]
    parts = getattr(geometry, "geoms", ())
    return [polygon for part in parts for polygon in _polygons(part)]


def _without_small_holes(polygon: Polygon, min_area_um2: float) -> Polygon:
    if min_area_um2 <= 0 or not polygon.interiors:
        return polygon
    holes = [ring for ring in polygon.interiors if Polygon(ring).area >= min_area_um2]
    return polygon if len(holes) == len(polygon.interiors) else Polygon(polygon.exterior, holes)


def _positions(points_um: ArrayLike, min_count: int, name: str) -> FloatArray:
    """Positions as (n, 2) finite numbers; `InputError` otherwise."""
    points = np.asarray(points_um, float)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < min_count:
        raise InputError(
            f"{name} needs at least {min_count} positions (row, column), not {points.shape}"
        )
    if not np.isfinite(points).all():
        raise InputError(f"{name} has a position that is not a finite number")
    return points
