"""Rasterisation of annotated shapes to class codes on a lattice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import shapely
from numpy.typing import NDArray

from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.shapes import AnnotatedShape

__all__ = ["rasterise"]


def rasterise(
    shapes: Iterable[AnnotatedShape], lattice: Lattice, codes: Mapping[str, int]
) -> NDArray[np.uint8]:
    """Label (class code) of every sample whose centre lies in a shape, 0 elsewhere.

    Parameters
    ----------
    shapes
        Shapes in µm of the lattice's frame; later ones lie on top.
    lattice
        Where the samples lie.
    codes
        Code (1-255) of each class name; shapes of other classes are excluded.

    Returns
    -------
    NDArray[np.uint8]
        (rows, columns) codes.  Holes stay open; a centre on a left or upper edge counts as inside,
        so that shapes sharing an edge never both or neither take a sample.
    """
    chosen = [shape for shape in shapes if shape.label in codes]
    out = np.zeros(lattice.shape, np.uint8)
    if not chosen or not out.size:
        return out
    origin, spacing = np.asarray(lattice.origin_um)[::-1], np.asarray(lattice.spacing_um)[::-1]
    starts, edges = _edges(chosen, origin, spacing)
    values = np.array([codes[shape.label] for shape in chosen], np.uint8)
    _fill(out, starts, edges, values)
    return out


def _edges(
    shapes: list[AnnotatedShape], origin_um: NDArray[np.float64], spacing_um: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Edges (m, 4) x0 y0 x1 y1 in fractional index, and where each shape's edges begin (n + 1)."""
    rings, ring_shape = _rings([shape.geometry for shape in shapes])
    xy, ring_of = shapely.get_coordinates(rings, return_index=True)
    xy = (xy - origin_um) / spacing_um - 0.5
    same = ring_of[1:] == ring_of[:-1]
    edges = np.hstack([xy[:-1], xy[1:]])[same]
    upward = edges[:, 1] > edges[:, 3]
    edges[upward] = edges[upward][:, [2, 3, 0, 1]]
    owner = ring_shape[ring_of[:-1][same]]
    return np.searchsorted(owner, np.arange(len(shapes) + 1)), np.ascontiguousarray(edges)


def _rings(
    geometries: list[shapely.Polygon | shapely.MultiPolygon],
) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """All rings of all parts, and the number of the geometry to which each belongs."""
    parts, part_of = shapely.get_parts(np.array(geometries, object), return_index=True)
    rings, ring_of = shapely.get_rings(parts, return_index=True)
    return rings, part_of[ring_of]


@compiled
def _fill(
    out: NDArray[np.uint8],
    starts: NDArray[np.int64],
    edges: NDArray[np.float64],
    values: NDArray[np.uint8],
) -> None:
    """Write ``values[i]`` into the samples of *out* whose centres shape i covers, in order.

    *edges* are x0 y0 x1 y1 with y0 <= y1; those of shape i lie from ``starts[i]`` on.
    """
    for shape in range(values.size):
        own = edges[starts[shape] : starts[shape + 1]]
        if own.shape[0] == 0:
            continue
        row0 = max(0, int(np.ceil(own[:, 1].min())))
        row1 = min(out.shape[0], int(np.ceil(own[:, 3].max())))
        if row1 > row0:
            offset, crossing = _crossings(own, row0, row1)
            for k in range(row1 - row0):
                _fill_row(out[row0 + k], crossing[offset[k] : offset[k + 1]], values[shape])


@compiled
def _crossings(
    edges: NDArray[np.float64], row0: int, row1: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Where the edges cross the row centres, grouped by row; row k begins at ``offset[k]``."""
    offset = np.zeros(row1 - row0 + 1, np.int64)
    for e in range(edges.shape[0]):
        for row in range(*_span(edges[e], row0, row1)):
            offset[row - row0 + 1] += 1
    offset = np.cumsum(offset)
    crossing = np.empty(offset[-1])
    place = offset.copy()
    for e in range(edges.shape[0]):
        x0, y0, x1, y1 = edges[e]
        for row in range(*_span(edges[e], row0, row1)):
            crossing[place[row - row0]] = x0 + (row - y0) * (x1 - x0) / (y1 - y0)
            place[row - row0] += 1
    return offset, crossing


@compiled
def _span(edge: NDArray[np.float64], row0: int, row1: int) -> tuple[int, int]:
    """Rows whose centre lies in the half-open interval of an edge."""
    return max(row0, int(np.ceil(edge[1]))), min(row1, int(np.ceil(edge[3])))


@compiled
def _fill_row(row: NDArray[np.uint8], crossing: NDArray[np.float64], value: int) -> None:
    xs = np.sort(crossing)
    for j in range(0, xs.size - 1, 2):
        left = max(0, int(np.ceil(xs[j])))
        right = min(row.size, int(np.ceil(xs[j + 1])))
        row[left : max(left, right)] = value
