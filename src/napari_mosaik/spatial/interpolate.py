"""Maps of tile values over the tissue mask, by inverse distance weighting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import (
    FloatArray,
    FrameMismatch,
    InputError,
    Params,
    Raster,
    TileGrid,
    setting,
)
from napari_mosaik.core.progress import checkpoint
from napari_mosaik.core.tiles import IntArray

__all__ = ["MapParams", "inverse_distance", "neighbour_mean", "parameter_map"]

_CHUNK = 65_536
_SAME = 1e-9
"""Distances that differ by less than this fraction are ties."""
_TIE_ROOM = 13


class MapParams(Params):
    """Settings of the interpolated maps."""

    power: float = setting(
        2.0,
        "Weights fall with the distance to this power.",
        label="Distance exponent",
        gt=0,
        le=8,
        advanced=True,
    )
    n_neighbours: int = setting(
        8,
        "Number of nearest tiles that are averaged.",
        label="nearest tiles",
        ge=1,
        le=64,
        advanced=True,
    )
    spacing_um: float = setting(
        50.0, "Sample spacing of the maps.", label="Pixel size", unit="µm", gt=0
    )


def inverse_distance(
    points_um: ArrayLike,
    values: ArrayLike,
    query_um: ArrayLike,
    *,
    power: float = 2.0,
    n_neighbours: int = 8,
) -> FloatArray:
    """Interpolate values by inverse distance weighting of the nearest points.

    ``sum(w_i v_i) / sum(w_i)`` with ``w_i = distance_i ** -power`` over the *n_neighbours* nearest
    points that have a value.  Ties at the last distance go to the points with the lower index.

    Parameters
    ----------
    points_um
        (n, 2) positions of the values, µm.
    values
        (n,) or (n, c) values, any unit; NaN values are ignored.
    query_um
        (m, 2) positions to interpolate, µm.
    power
        Exponent of the distance.
    n_neighbours
        Number of nearest points; all if there are fewer.

    Returns
    -------
    numpy.ndarray
        (m,) or (m, c), in the unit of the values; exactly the point's value at a point; NaN where
        no point has a value.

    Raises
    ------
    InputError
        If the shapes differ, a position is not finite, or *power* or *n_neighbours* is not
        positive.

    References
    ----------
    Shepard 1968, Proc 23rd ACM National Conference 517-524.
    """
    points, query = _positions(points_um, "points"), _positions(query_um, "query positions")
    table = np.asarray(values, float)
    if table.shape[:1] != points.shape[:1] or table.ndim > 2:
        raise InputError(f"values of shape {table.shape} do not fit {points.shape[0]} points")
    if not power > 0 or n_neighbours < 1:
        raise InputError(f"power {power} and number of neighbours {n_neighbours} must be positive")
    columns = table[:, None] if table.ndim == 1 else table
    out = np.full((query.shape[0], columns.shape[1]), np.nan)
    for valid, which in _same_gaps(np.isfinite(columns)):
        if not valid.any():
            continue
        part = columns[valid][:, which]
        for start in range(0, query.shape[0], _CHUNK):
            checkpoint()
            rows = slice(start, start + _CHUNK)
            index, weight = _weights(points[valid], query[rows], power, n_neighbours)
            for place, column in enumerate(which):
                out[rows, column] = (weight * part[:, place][index]).sum(axis=1)
    return out.reshape((query.shape[0], *table.shape[1:]))


def neighbour_mean(values: ArrayLike, centres_um: ArrayLike, n_neighbours: int = 8) -> FloatArray:
    """Each tile from its nearest other tiles, weighted by the inverse square of the distance.

    Parameters
    ----------
    values
        (n,) value of each tile, any unit; NaN tiles give and get none.
    centres_um
        (n, 2) centres of the tiles, µm; no two are equal.
    n_neighbours
        Number of nearest other tiles with a value.

    Returns
    -------
    numpy.ndarray
        (n,) in the unit of the values; NaN for tiles without a value, or the only one with one.
    """
    from scipy.spatial import cKDTree

    values, centres = np.asarray(values, float), _positions(centres_um, "tile centres")
    valid = np.flatnonzero(np.isfinite(values))
    out = np.full(values.shape, np.nan)
    if valid.size < 2:
        return out
    points, near = centres[valid], min(n_neighbours + 1, valid.size)
    found = cKDTree(points).query(points, near)
    distance, index = np.asarray(found[0])[:, 1:], np.asarray(found[1])[:, 1:]  # without itself
    weight = distance**-2.0
    out[valid] = (weight * values[valid][index]).sum(axis=1) / weight.sum(axis=1)
    return out


def parameter_map(
    grid: TileGrid,
    values: ArrayLike,
    mask: Raster,
    spacing_um: float = 50.0,
    *,
    power: float = 2.0,
    n_neighbours: int = 8,
    unit: str = "1",
    channels: Sequence[str] = (),
) -> Raster:
    """Map of tile values over the tissue mask, interpolated from the tile centres.

    Parameters
    ----------
    grid
        The tile grid.
    values
        (n,) or (n, c) values of the tiles; NaN tiles are ignored.
    mask
        Tissue mask (true or above 0.5 inside) in the grid's frame; it may have any spacing.
    spacing_um
        Sample spacing of the map, µm.
    power, n_neighbours
        As in `inverse_distance`.
    unit
        Unit of the values.
    channels
        Names of the c columns.

    Returns
    -------
    Raster
        Over the mask's area; NaN outside the mask.

    Raises
    ------
    InputError
        As `inverse_distance`, or if the spacing is not positive.
    FrameMismatch
        If mask and grid lie in different frames.
    """
    if mask.lattice.frame != grid.lattice.frame:
        raise FrameMismatch(
            f"the mask lies in '{mask.lattice.frame}' but the tiles in '{grid.lattice.frame}'"
        )
    if not spacing_um > 0:
        raise InputError(f"the map's spacing must be positive, not {spacing_um} µm")
    table = np.asarray(values, float)
    lattice = mask.lattice.resized(spacing_um)
    centres = lattice.centres_um().reshape(-1, 2)
    inside = mask.at(centres, 0.0) > 0.5
    out = np.full((centres.shape[0], *table.shape[1:]), np.nan)
    out[inside] = inverse_distance(
        grid.centres_um, table, centres[inside], power=power, n_neighbours=n_neighbours
    )
    return Raster(out.reshape(lattice.shape + table.shape[1:]), lattice, unit, tuple(channels))


def _positions(points_um: ArrayLike, what: str) -> FloatArray:
    points = np.asarray(points_um, float)
    if points.size == 0:
        return points.reshape(0, 2)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise InputError(f"the {what} must be finite (n, 2) positions in µm, not {points.shape}")
    return points


def _same_gaps(valid: NDArray[np.bool_]) -> list[tuple[NDArray[np.bool_], list[int]]]:
    """Columns grouped by the rows in which they have a value."""
    groups: dict[bytes, list[int]] = {}
    for column in range(valid.shape[1]):
        groups.setdefault(valid[:, column].tobytes(), []).append(column)
    return [(valid[:, which[0]], which) for which in groups.values()]


def _weights(
    points: FloatArray, query: FloatArray, power: float, n_neighbours: int
) -> tuple[IntArray, FloatArray]:
    """Indices and weights (m, k), which sum to 1, of the nearest points of each position."""
    distance, index = _nearest(points, query, n_neighbours)
    nearest = distance[:, :1]
    at_node = nearest[:, 0] <= _SAME * max(1.0, float(np.abs(points).max()))
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = (nearest / distance) ** power
    weight[at_node] = 0.0
    weight[at_node, 0] = 1.0
    return index, weight / weight.sum(axis=1, keepdims=True)


def _nearest(points: FloatArray, query: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
    """Distance and index (m, k) of the nearest points; ties at the last one by lower index."""
    from scipy.spatial import cKDTree

    n = points.shape[0]
    k = min(k, n)
    tree = cKDTree(points)
    room = min(n, k + _TIE_ROOM)
    distance, index = _query(tree, query, min(n, k + 1))
    tied = np.flatnonzero(distance[:, -1] <= distance[:, k - 1] * (1 + _SAME))
    tied = tied[: tied.size if n > k else 0]
    distance, index = distance[:, :k], index[:, :k]
    while tied.size:
        far, which = _query(tree, query[tied], room)
        last = far[:, k - 1 : k]
        far = np.where(np.abs(far - last) <= _SAME * last, last, far)
        order = np.lexsort((which, far), axis=1)[:, :k]
        distance[tied] = np.take_along_axis(far, order, 1)
        index[tied] = np.take_along_axis(which, order, 1)
        open_end = (far[:, -1] == last[:, 0]) & (room < n)
        tied, room = tied[open_end], min(n, 2 * room)
    return distance, index


def _query(tree: object, query: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
    distance, index = tree.query(query, k=[*range(1, k + 1)], workers=1)  # type: ignore[attr-defined]
    return np.asarray(distance, float), np.asarray(index, np.int64)
