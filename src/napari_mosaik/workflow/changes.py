"""Which tiles a change concerns: what differs between an input of today and its earlier version.

    earlier table or label image ─┐
                                  ├──► rows or pixels that differ ──► tiles ──► computed again
    the one of today ─────────────┘

A step compares the two versions of its input rather than trusting the place of an edit, and takes
more tiles where it is cheaper to include them than to be exact: a tile that is computed again has
the value that it had.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.table import Table
from napari_mosaik.core.tiles import IntArray, TileGrid
from napari_mosaik.core.window import Slices

__all__ = [
    "boxes_of",
    "changed_columns",
    "changed_points_um",
    "same",
    "tiles_of_points",
]


def same(one: NDArray[np.generic], other: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Where two columns (n,) are equal, mask (n,); missing values of any unit are equal."""
    equal = np.asarray(one == other, bool)
    if one.dtype.kind == "f" and other.dtype.kind == "f":
        equal |= np.isnan(one) & np.isnan(other)
    return equal


def changed_columns(before: Table, now: Table) -> set[str]:
    """Names of the columns that are new or not equal to those of before."""
    return {
        name
        for name in now
        if name not in before
        or len(before) != len(now)
        or not bool(same(np.asarray(before[name]), np.asarray(now[name])).all())
    }


def changed_points_um(before: Table, now: Table) -> FloatArray:
    """(m, 2) positions, µm, of all objects whose row differs, as they were and as they are.

    Rows are compared by their number: sums over the objects of a tile run in that order.
    """
    both = min(len(before), len(now))
    differ = np.zeros(max(len(before), len(now)), bool)
    differ[both:] = True
    if set(before) != set(now):
        differ[:] = True
    for name in set(before) & set(now):
        differ[:both] |= ~same(np.asarray(before[name])[:both], np.asarray(now[name])[:both])
    rows = np.flatnonzero(differ)
    return np.concatenate([table.points_um()[rows[rows < len(table)]] for table in (before, now)])


def tiles_of_points(grid: TileGrid, points_um: FloatArray) -> IntArray:
    """Indices of the tiles that hold one of the points (m, 2), µm."""
    return np.unique(grid.memberships(points_um)[0])


def boxes_of(
    windows: Sequence[Slices], lattice: Lattice, transform: Transform | None = None
) -> tuple[FloatArray, FloatArray]:
    """Upper left and lower right corners (m, 2), µm, of boxes around windows of an image.

    *transform* maps the frame of the image to that of the boxes.
    """
    ends = np.array(
        [[(r, c) for r in (rows.start, rows.stop) for c in (cols.start, cols.stop)]
         for rows, cols in windows], float
    ).reshape(-1, 4, 2)  # fmt: skip
    corners = lattice.to_um(ends - 0.5)
    if transform is not None:
        corners = transform.apply(corners)
    step = max(lattice.spacing_um)
    return corners.min(axis=1) - step, corners.max(axis=1) + step
