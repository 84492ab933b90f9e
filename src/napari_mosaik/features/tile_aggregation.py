"""Objects by centroid and pixels by area, aggregated into the tiles of a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.errors import FrameMismatch, InputError
from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.label_lookup import codes_at
from napari_mosaik.core.raster import LabelImage, LazyArray, Raster
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.core.window import Slices

__all__ = [
    "PixelSums",
    "area_in_tiles",
    "count_in_tiles",
    "fractions_in_tiles",
    "mean_in_tiles",
    "means_in_tiles",
    "over",
    "per_tile",
    "sum_in_tiles",
]

_BLOCK = (1024, 4096)
"""Rows and columns that are read at once: whole chunks of stored label images."""


def sum_in_tiles(grid: TileGrid, points_um: ArrayLike, values: ArrayLike) -> FloatArray:
    """Sum of the values of the points in each tile, (n,); NaN values are ignored, none gives 0.

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
    """Count of points in each tile, (n,); *points_um* are (m, 2), µm; see `sum_in_tiles`."""
    points = np.asarray(points_um, float).reshape(-1, 2)
    return sum_in_tiles(grid, points, np.ones(len(points)))


def mean_in_tiles(grid: TileGrid, points_um: ArrayLike, values: ArrayLike) -> FloatArray:
    """Mean of the finite values of the points in each tile, (n,); NaN where there is none.

    *points_um* are (m, 2), µm, *values* (m,) of any unit; see `sum_in_tiles`.
    """
    points, numbers = _finite(points_um, values)
    count = count_in_tiles(grid, points)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, sum_in_tiles(grid, points, numbers) / count, np.nan)


def means_in_tiles(
    grid: TileGrid, points_um: ArrayLike, columns: Mapping[str, ArrayLike]
) -> dict[str, FloatArray]:
    """`mean_in_tiles` of several values (m,), each of any unit, of the same points (m, 2), µm.

    (n,) means by name; which point lies in which tile is looked up once.
    """
    points = np.asarray(points_um, float).reshape(-1, 2)
    known = np.flatnonzero(np.isfinite(points).all(axis=1))
    tile, point = grid.memberships(points[known])
    point, found = known[point], {}
    for name, values in columns.items():
        numbers = np.asarray(values, float)[point]
        finite = np.isfinite(numbers)
        count = np.bincount(tile[finite], minlength=len(grid)).astype(float)
        total = np.bincount(tile[finite], numbers[finite], len(grid))
        with np.errstate(invalid="ignore", divide="ignore"):
            found[name] = np.where(count > 0, total / count, np.nan)
    return found


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
    """Amount per tissue area of each tile, (n,); NaN where a tile has no tissue.

    *amount* is of any unit and *area_um2* in µm², each (n,).
    """
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
        (rows, columns) booleans or labels (everything above 0 is marked); read in blocks.
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
    if tuple(values.shape) != tuple(lattice.shape):
        raise InputError(f"values of shape {values.shape} do not fit the lattice {lattice.shape}")
    marked, sums = where or (lambda part: part > 0), PixelSums(grid, lattice)
    height, width = _BLOCK
    for row in range(0, values.shape[0], height):
        for col in range(0, values.shape[1], width):
            window = sums.needed(slice(row, row + height), slice(col, col + width))
            if window is not None:
                part = np.asarray(marked(np.asarray(values[window])))
                sums.add(part, window[0].start, window[1].start)
    return sums.area_um2()


class PixelSums:
    """Sums over the pixels of each tile, to which the parts of an image are added one by one.

    The edges of all positions of the grid's lattice cut the image into cells, and a tile is the sum
    of its cells.  So its last digit depends on its own pixels alone: a part of the grid (with the
    same parts of the image) gives what the whole grid gives.

    Parameters
    ----------
    grid
        n tiles; they may overlap and reach beyond the lattice.
    lattice
        Where the pixels of the whole image lie, in the grid's frame.

    Raises
    ------
    FrameMismatch
        If the lattice does not lie in the grid's frame.
    """

    def __init__(self, grid: TileGrid, lattice: Lattice) -> None:
        if lattice.frame != grid.lattice.frame:
            raise FrameMismatch(
                f"pixels of '{lattice.frame}' cannot be summed in tiles of '{grid.lattice.frame}'"
            )
        at, self._edges = [], []
        for axis, cells in enumerate(grid.cells.T):
            index = np.zeros((grid.lattice.shape[axis], 2))
            index[:, axis] = np.arange(len(index))
            corner = grid.lattice.to_um(index)[:, axis] - grid.size_um / 2
            low = (corner - lattice.origin_um[axis]) / lattice.spacing_um[axis]
            high = low + grid.size_um / lattice.spacing_um[axis]
            edges, place = np.unique([low, high], return_inverse=True)
            self._edges.append(edges)
            at.append(place.reshape(2, -1)[:, cells])
        self._at = at[0], at[1]
        self._cells = np.zeros((self._edges[0].size - 1, self._edges[1].size - 1))
        self._pixel_um2 = lattice.sample_area_um2

    def needed(self, rows: slice, cols: slice) -> Slices | None:
        """The smallest window of a part of the image that holds all its pixels within tiles.

        The sums of the tiles do not depend on what lies around it.  None if no tile reaches there.
        """
        inside = np.ones(self._at[0].shape[1], bool)
        for part, edges, (low, high) in zip((rows, cols), self._edges, self._at, strict=True):
            inside &= (edges[low] < part.stop) & (edges[high] > part.start)
        if not inside.any():
            return None
        top, left = (
            max(part.start, math.floor(edges[low[inside]].min()))
            for part, edges, (low, _) in zip((rows, cols), self._edges, self._at, strict=True)
        )
        bottom, right = (
            min(part.stop, math.ceil(edges[high[inside]].max()))
            for part, edges, (_, high) in zip((rows, cols), self._edges, self._at, strict=True)
        )
        return slice(top, bottom), slice(left, right)

    def add(self, part: NDArray[Any], row: int = 0, col: int = 0) -> None:
        """Add booleans or numbers (h, w) whose first pixel lies at *row* and *col* of the image."""
        if part.any():
            rows, across = _summed(part, self._edges[0] - row)
            cols, both = _summed(across.T, self._edges[1] - col)
            self._cells[rows, cols] += both.T

    def area_um2(self) -> FloatArray:
        """(n,) sum of each tile times the area of a pixel; a pixel that is cut counts in part."""
        (top, bottom), (left, right) = self._at
        out = np.zeros(top.size)
        for down in range(int((bottom - top).max(initial=0))):
            for across in range(int((right - left).max(initial=0))):
                inside = np.flatnonzero((top + down < bottom) & (left + across < right))
                out[inside] += self._cells[top[inside] + down, left[inside] + across]
        return out * self._pixel_um2


def _summed(values: NDArray[Any], edges: FloatArray) -> tuple[slice, FloatArray]:
    """Which cells between (fractional) edges hold rows of *values* (h, w), and (cells, w) sums."""
    first = max(int(np.searchsorted(edges, 0, "right")) - 1, 0)
    last = min(int(np.searchsorted(edges, len(values), "left")), edges.size - 1)
    last = max(first, last)
    edges = np.clip(edges[first : last + 1], 0, len(values))
    whole = np.floor(edges).astype(np.int64)
    share = edges - whole
    out = np.zeros((last - first, values.shape[1]))
    for cell, (start, stop) in enumerate(pairwise(whole)):
        out[cell] = values[start:stop].sum(axis=0, dtype=np.float64)
        if share[cell]:
            out[cell] -= share[cell] * values[start]
        if share[cell + 1]:
            out[cell] += share[cell + 1] * values[stop]
    return slice(first, last), out


def fractions_in_tiles(
    grid: TileGrid,
    image: Raster | LabelImage,
    codes: Sequence[int],
    transform: Transform | None = None,
    *,
    points: int = 40,
) -> FloatArray:
    """Fraction of each tile's area with each code, shape (n tiles, n codes), for any frame.

    Each tile is sampled on a regular *points* x *points* lattice that is carried into the image's
    frame; the error of a fraction is below ``1 / points`` per straight border through the tile.

    Parameters
    ----------
    grid
        n tiles.
    image
        Class codes (or a mask, code 1) on a lattice of its own frame.
    codes
        The codes whose fractions are wanted.
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
    out = np.zeros((len(grid), len(codes)))
    for start in range(0, len(grid), 256):
        samples = grid.corners_um[start : start + 256, None] + inside
        sampled = codes_at(image, back.apply(samples), outside=-1)
        for i, code in enumerate(codes):
            out[start : start + 256, i] = (sampled == code).mean(axis=1)
    return out
