"""Which tiles a change concerns: what differs between an input of today and its earlier version.

    earlier table or label image ─┐
                                  ├──► rows or pixels that differ ──► tiles ──► computed again
    the one of today ─────────────┘

A step compares the two versions of its input rather than trusting the place of an edit, and takes
more tiles where it is cheaper to include them than to be exact: a tile that is computed again has
the value that it had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Artifact
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    CLASSES,
    CORRECTED_VESSEL_OBJECTS,
    CORRECTED_VESSELS,
    TILES,
)
from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.table import Table
from napari_mosaik.core.tiles import IntArray, TileGrid
from napari_mosaik.core.window import Slices
from napari_mosaik.register import transform_of
from napari_mosaik.workflow.step_context import StepContext

__all__ = [
    "ChangedTiles",
    "boxes_of",
    "changed_by_classes",
    "changed_by_objects",
    "changed_by_vessels",
    "changed_columns",
    "changed_points_um",
    "objects_of_tiles",
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


ChangedTiles = tuple[IntArray, IntArray] | None
"""Tiles whose input changed, and those that are computed again; None: all are."""


def objects_of_tiles(
    inputs: StepContext, grid: TileGrid, objects: Table, points_um: FloatArray | None = None
) -> tuple[Table, FloatArray]:
    """The objects that lie in the tiles of a part of the grid, and their positions (m, 2), µm."""
    points = objects.points_um() if points_um is None else points_um
    if len(grid) == len(inputs.read(TILES)):
        return objects, points
    corners, size = grid.corners_um, grid.size_um
    low, high = corners.min(axis=0, initial=np.inf), corners.max(axis=0, initial=-np.inf)
    near = np.ones(len(points), bool)
    for column, first, last in zip(points.T, low - size, high + 2 * size, strict=True):
        near &= (column > first) & (column < last)
    near = np.flatnonzero(near)
    rows = near[np.unique(grid.memberships(points[near])[1])]
    return objects.rows(rows), points[rows]


def changed_by_vessels(inputs: StepContext, grid: TileGrid, before: Table) -> ChangedTiles:
    """Tiles with a vessel that changed, or near one: their distance to it may differ.

    The distance changes at most where the changed pixels are not farther than the nearest vessel
    was; within a tile it differs from its mean by less than the tile's diagonal.
    """
    windows = inputs.changed_windows(CORRECTED_VESSELS)
    objects = inputs.previous_input(CORRECTED_VESSEL_OBJECTS)
    distance = np.asarray(before["vessel_distance_um"], float)
    if windows is None or objects is None:
        return None
    if windows and np.isnan(distance).all():
        return None  # there was no vessel: every distance is new
    points = changed_points_um(objects, inputs.read(CORRECTED_VESSEL_OBJECTS))
    low, high = boxes_of(windows, inputs.read(CORRECTED_VESSELS).lattice)
    reach = np.nan_to_num(distance) + 1.5 * grid.size_um
    touched = np.union1d(tiles_of_points(grid, points), grid.meeting(low, high))
    return touched, np.union1d(touched, grid.meeting(low, high, reach))


def changed_by_objects(
    artifact: Artifact[Table], frame: str
) -> Callable[[StepContext, TileGrid, Table], ChangedTiles]:
    """Finds the tiles that hold an object of a section whose row changed."""

    def changed(inputs: StepContext, grid: TileGrid, _: Table) -> ChangedTiles:
        before = inputs.previous_input(artifact)
        if before is None:
            return None
        points = changed_points_um(before, inputs.read(artifact))
        transform = transform_of(inputs.read(ALIGNMENT[frame]))
        touched = tiles_of_points(grid, transform.apply(points))
        return touched, touched

    return changed


def changed_by_classes(inputs: StepContext, grid: TileGrid, _: Table) -> ChangedTiles:
    """Tiles over pixels of the class map that changed."""
    windows = inputs.changed_windows(CLASSES)
    if windows is None:
        return None
    transform = transform_of(inputs.read(ALIGNMENT["he"]))
    touched = grid.meeting(*boxes_of(windows, inputs.read(CLASSES).lattice, transform))
    return touched, touched
