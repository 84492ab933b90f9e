"""PET value of each tile: the area-weighted mean of the voxels under it."""

from __future__ import annotations

import numpy as np

from napari_mosaik.core.errors import FrameMismatch, InputError
from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.raster import Raster
from napari_mosaik.core.tiles import IntArray, TileGrid

__all__ = ["shift_sensitivity", "tile_uptake"]


def tile_uptake(
    pet: Raster, grid: TileGrid, transform: Transform, *, min_inside: float = 0.5
) -> FloatArray:
    """Mean (n,) of the PET under each tile, weighted by the exact area of overlap.

    Each tile is transformed to the PET, where it is a parallelogram, and intersected with the
    voxels; a voxel is constant over its area.  Exact for any rotation and scale up to rounding.

    Parameters
    ----------
    pet
        (rows, columns) values, any unit; NaN voxels are outside the field of view.
    grid
        n tiles.
    transform
        From the PET to the coordinate space of the grid.
    min_inside
        Minimum fraction of the area of a tile that must lie on voxels with a value.

    Returns
    -------
    (n,) means in the unit of the PET; NaN where less than *min_inside* of a tile has values.

    Raises
    ------
    FrameMismatch
        If the transform is not from the PET to the coordinate space of the grid.
    InputError
        If *min_inside* is not in (0, 1] or the raster has channels.
    """
    if (transform.source, transform.target) != (pet.lattice.frame, grid.lattice.frame):
        raise FrameMismatch(
            f"tile values need a transform from '{pet.lattice.frame}' to '{grid.lattice.frame}', "
            f"not from '{transform.source}' to '{transform.target}'"
        )
    if not 0 < min_inside <= 1:
        raise InputError(f"min_inside is {min_inside:g}; it must be in (0, 1]")
    if pet.values.ndim != 2:
        raise InputError(f"the PET must be (rows, columns), not {pet.values.shape}")
    corners = _tile_corners(grid, transform.inverse(), pet.lattice)
    tile, row, col = _pairs(corners, pet.lattice.shape)
    values = np.asarray(pet.values, float)[row, col]
    finite = np.isfinite(values)
    tile, row, col, values = tile[finite], row[finite], col[finite], values[finite]
    area = _overlaps(corners, tile, row, col)
    total = np.bincount(tile, area, len(grid))
    weighted = np.bincount(tile, area * values, len(grid))
    full = _areas(corners)
    out = np.full(len(grid), np.nan)
    valid = total >= min_inside * full * (1 - 1e-9)
    out[valid] = weighted[valid] / total[valid]
    return out


def shift_sensitivity(
    pet: Raster,
    grid: TileGrid,
    transform: Transform,
    *,
    shift_um: float | None = None,
    angle_deg: float = 2.0,
) -> FloatArray:
    """Sensitivity (n,) of each tile value to the registration of the PET.

    The largest absolute change over shifts by one voxel along each axis and rotations by
    *angle_deg* about the centre of the tiles, in both directions.

    Parameters
    ----------
    pet, grid, transform
        As in `tile_uptake`.
    shift_um
        Length of the shift, µm in the space of the grid; one voxel of the PET if None.
    angle_deg
        Angle of the rotation, degrees.

    Returns
    -------
    (n,) changes in the unit of the PET; NaN where the tile, or all its moved copies, have no
    value.
    """
    frame = grid.lattice.frame
    step = max(pet.lattice.spacing_um) * transform.scale if shift_um is None else shift_um
    middle = grid.centres_um.mean(axis=0) if len(grid) else np.zeros(2)
    moves = [
        Transform.similarity(frame, frame, shift_um=shift)
        for shift in ((step, 0.0), (-step, 0.0), (0.0, step), (0.0, -step))
    ]
    moves += [
        Transform.similarity(frame, frame, angle_deg=angle, about_um=(middle[0], middle[1]))
        for angle in (angle_deg, -angle_deg)
    ]
    start = tile_uptake(pet, grid, transform)
    changes = np.stack([tile_uptake(pet, grid, transform.then(move)) - start for move in moves])
    largest = np.where(np.isnan(changes), -np.inf, np.abs(changes)).max(axis=0)
    return np.where(np.isfinite(largest), largest, np.nan)


def _tile_corners(grid: TileGrid, to_pet: Transform, voxels: Lattice) -> FloatArray:
    """(n, 4, 2) corners of the tiles in units of voxels from the outer corner of voxel (0, 0)."""
    square = np.array([[0, 0], [0, 1], [1, 1], [1, 0]], float) * grid.size_um
    return voxels.to_index(to_pet.apply(grid.corners_um[:, None] + square)) + 0.5


def _pairs(corners: FloatArray, shape: tuple[int, int]) -> tuple[IntArray, IntArray, IntArray]:
    """Tiles and the voxels within their bounding boxes: parallel arrays (tile, row, column)."""
    low = np.clip(np.floor(corners.min(axis=1)), 0, shape).astype(np.int64)
    high = np.clip(np.ceil(corners.max(axis=1)), 0, shape).astype(np.int64)
    size = np.maximum(high - low, 0)
    count = size[:, 0] * size[:, 1]
    tile = np.repeat(np.arange(len(corners)), count)
    within = np.arange(tile.size) - np.repeat(np.cumsum(count) - count, count)
    down, right = np.divmod(within, np.maximum(size[tile, 1], 1))
    return tile, low[tile, 0] + down, low[tile, 1] + right


def _overlaps(corners: FloatArray, tile: IntArray, row: IntArray, col: IntArray) -> FloatArray:
    """Area of overlap of each pair in units of one voxel."""
    import shapely

    quads = np.asarray(shapely.polygons(corners), dtype=object)[tile]
    cells = shapely.box(row, col, row + 1, col + 1)
    return np.asarray(shapely.area(shapely.intersection(quads, cells)), np.float64)


def _areas(corners: FloatArray) -> FloatArray:
    """(n,) areas of the quadrilaterals, by the shoelace formula."""
    x, y = corners[..., 0], corners[..., 1]
    cross = x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)
    return np.asarray(np.abs(cross.sum(axis=1)) / 2, np.float64)
