"""Collect objects by their centroid and pixels by their area into the tiles of a grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.errors import FrameMismatch, InputError
from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.raster import LabelImage, LazyArray, Raster
from napari_mosaik.core.tiles import TileGrid

__all__ = [
    "area_in_tiles",
    "count_in_tiles",
    "fractions_in_tiles",
    "mean_in_tiles",
    "over",
    "per_tile",
    "sum_in_tiles",
]

_STRIP = 512


def sum_in_tiles(grid: TileGrid, points_um: ArrayLike, values: ArrayLike) -> FloatArray:
    """Sum of the values of the points in each tile, (n,); NaN values are left out, none gives 0.

    Parameters
    ----------
    grid
        n tiles, half-open squares; where tiles overlap a point counts in each.
    points_um
        (m, 2) row and column in µm of the grid's frame; NaN points lie in no tile.
    values
        (m,) numbers.
    """
    points, numbers = _finite(points_um, values)
    tile, point = grid.memberships(points)
    return np.bincount(tile, numbers[point], len(grid)).astype(float)


def count_in_tiles(grid: TileGrid, points_um: ArrayLike) -> FloatArray:
    """Number of points in each tile, (n,); see `sum_in_tiles`."""
    points = np.asarray(points_um, float).reshape(-1, 2)
    return sum_in_tiles(grid, points, np.ones(len(points)))


def mean_in_tiles(grid: TileGrid, points_um: ArrayLike, values: ArrayLike) -> FloatArray:
    """Mean of the finite values of the points in each tile, (n,); NaN where there is none.

    See `sum_in_tiles`.
    """
    points, numbers = _finite(points_um, values)
    count = count_in_tiles(grid, points)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, sum_in_tiles(grid, points, numbers) / count, np.nan)


def _finite(points_um: ArrayLike, values: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Points and values where both are finite."""
    points = np.asarray(points_um, float).reshape(-1, 2)
    numbers = np.asarray(values, float)
    if numbers.shape != (len(points),):
        raise InputError(f"{numbers.shape} values for {len(points)} points")
    good = np.isfinite(points).all(axis=1) & np.isfinite(numbers)
    return points[good], numbers[good]


def per_tile(values: ArrayLike, grid: TileGrid, name: str) -> FloatArray:
    """Values (n,) of the grid's n tiles, checked."""
    out = np.asarray(values, float)
    if out.shape != (len(grid),):
        raise InputError(f"{name} has the shape {out.shape}, but there are {len(grid)} tiles")
    return out


def over(amount: FloatArray, area_um2: FloatArray) -> FloatArray:
    """Amount per tissue area; NaN where a tile has no tissue."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(area_um2 > 0, amount / area_um2, np.nan)


def area_in_tiles(
    grid: TileGrid,
    values: LazyArray,
    lattice: Lattice,
    *,
    where: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
) -> FloatArray:
    """Area of the marked pixels within each tile, µm², exact for tiles that cut pixels.

    Parameters
    ----------
    grid
        n tiles; they may overlap and reach beyond the lattice.
    values
        (rows, columns) booleans or labels (everything above 0 is marked); read in strips of rows.
    lattice
        Where the pixels lie, in the grid's frame.
    where
        Which values are marked, for example ``lambda codes: codes == 2``.  It may give fractions
        in [0, 1], which count by their share.

    Returns
    -------
    (n,) areas; 0 where nothing is marked.

    Raises
    ------
    FrameMismatch
        If the lattice does not lie in the grid's frame; see `fractions_in_tiles`.
    """
    if lattice.frame != grid.lattice.frame:
        raise FrameMismatch(
            f"pixels of '{lattice.frame}' cannot be summed in tiles of '{grid.lattice.frame}'"
        )
    if tuple(values.shape) != tuple(lattice.shape):
        raise InputError(f"values of shape {values.shape} do not fit the lattice {lattice.shape}")
    low = (grid.corners_um - lattice.origin_um) / lattice.spacing_um
    high = low + grid.size_um / np.asarray(lattice.spacing_um)
    edges, which = np.unique(np.column_stack([low[:, 1], high[:, 1]]).ravel(), return_inverse=True)
    left, right = which.reshape(-1, 2).T
    within = _column_sums(values, edges, where or (lambda part: part > 0))
    rows = _cumulative_at(within, np.column_stack([low[:, 0], high[:, 0]]), left, right)
    return np.asarray(rows * lattice.sample_area_um2, np.float64)


def _column_sums(
    values: LazyArray, edges: FloatArray, where: Callable[[NDArray[Any]], NDArray[Any]]
) -> FloatArray:
    """(rows, edges) marked pixels of each row left of each (fractional) column edge."""
    height, width = values.shape
    whole = np.clip(np.floor(edges), 0, width).astype(np.int64)
    part = np.where((edges > 0) & (edges < width), edges - whole, 0.0)
    out = np.empty((height, edges.size))
    for start in range(0, height, _STRIP):
        marked = np.asarray(where(np.asarray(values[start : start + _STRIP])))
        kind = np.int32 if marked.dtype == np.bool_ else np.float64
        sums = np.zeros((len(marked), width + 1), kind)
        np.cumsum(marked, axis=1, out=sums[:, 1:])
        beyond = marked[:, np.minimum(whole, width - 1)] if width else np.zeros((len(marked), 1))
        out[start : start + _STRIP] = sums[:, whole] + part * beyond
    return out


def _cumulative_at(
    within: FloatArray, rows: FloatArray, left: NDArray[Any], right: NDArray[Any]
) -> FloatArray:
    """Marked pixels between two row edges (n, 2) and the column edges *left* and *right* (n,)."""
    height = within.shape[0]
    sums = np.zeros((height + 1, within.shape[1]))
    np.cumsum(within, axis=0, out=sums[1:])
    edges = np.clip(rows, 0, height)
    whole = np.minimum(np.floor(edges).astype(np.int64), max(height - 1, 0))
    share = (edges - whole)[..., None]
    both = np.column_stack([left, right])
    if height == 0:
        return np.zeros(len(rows))
    at = sums[whole[..., None], both[:, None]]
    at = at + share * within[whole[..., None], both[:, None]]
    return np.asarray(at[:, 1, 1] - at[:, 1, 0] - at[:, 0, 1] + at[:, 0, 0], np.float64)


def fractions_in_tiles(
    grid: TileGrid,
    image: Raster | LabelImage,
    codes: Sequence[int],
    transform: Transform | None = None,
    *,
    points: int = 40,
) -> FloatArray:
    """Share of each tile's area that each code takes, (n, codes), for an image of any frame.

    Each tile is sampled on a regular *points* x *points* lattice that is carried into the image's
    frame; the error of a share is below ``1 / points`` per straight border through the tile.

    Parameters
    ----------
    grid
        n tiles.
    image
        Class codes (or a mask, code 1) on a lattice of its own frame.
    codes
        The codes whose shares are wanted.
    transform
        From the image's frame to the grid's; may be left out when they are the same.
    points
        Samples along each side of a tile.

    Returns
    -------
    (n, codes) shares in [0, 1]; what lies beyond the image belongs to no code.
    """
    if transform is None:
        transform = Transform.identity(image.lattice.frame, image.lattice.frame)
    if (transform.source, transform.target) != (image.lattice.frame, grid.lattice.frame):
        raise FrameMismatch(
            f"shares in tiles of '{grid.lattice.frame}' need a transform from "
            f"'{image.lattice.frame}', not from '{transform.source}' to '{transform.target}'"
        )
    offsets = (np.arange(points) + 0.5) / points * grid.size_um
    inside = np.stack(np.meshgrid(offsets, offsets, indexing="ij"), axis=-1).reshape(-1, 2)
    back = transform.inverse()
    raster = Raster(np.asarray(image.values[...]), image.lattice)
    out = np.zeros((len(grid), len(codes)))
    for start in range(0, len(grid), 256):
        samples = grid.corners_um[start : start + 256, None] + inside
        found = raster.at(back.apply(samples), outside=-1)
        for i, code in enumerate(codes):
            out[start : start + 256, i] = (found == code).mean(axis=1)
    return out
