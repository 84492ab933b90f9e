"""The 8-neighbour graph of the tile grid, and the tile values on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from napari_mosaik.core import FloatArray, InputError, TileGrid
from napari_mosaik.core.tiles import IntArray

if TYPE_CHECKING:
    from libpysal.graph import Graph
    from numpy.typing import NDArray

__all__ = ["TIE", "TileGraph", "ValuedTiles", "as_tile_graph", "valued_tiles"]

TIE = 1e-9
"""Lags of standardised values nearer than this are equal: rounding must not split ties."""

_MOORE = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if (r, c) != (0, 0)]


@dataclass(frozen=True, slots=True, eq=False)
class TileGraph:
    """Neighbours and weights of each tile in compressed rows; no tile is its own neighbour.

    Tile ``i`` has the neighbours ``neighbours[starts[i]:starts[i + 1]]`` with the weights at the
    same positions.  A tile without neighbours (an island) is kept and has an empty row.

    Parameters
    ----------
    starts
        (n + 1,) start of each tile's row.
    neighbours
        (m,) row numbers of the neighbouring tiles, ascending within a row.
    weights
        (m,) positive weights, dimensionless.
    """

    starts: IntArray
    neighbours: IntArray
    weights: FloatArray

    @classmethod
    def moore(cls, grid: TileGrid) -> Self:
        """Row-standardised graph of the up to eight tiles around each tile on the lattice.

        Parameters
        ----------
        grid
            The tile grid; tile ``i`` is node ``i``.
        """
        padded = np.pad(grid.index_map(), 1, constant_values=-1)
        rows, cols = grid.cells.T + 1
        around = np.stack([padded[rows + dr, cols + dc] for dr, dc in _MOORE], axis=1)
        return cls._from_pairs(len(grid), *_pairs(around))

    @classmethod
    def from_libpysal(cls, graph: Graph) -> Self:
        """The same graph as arrays; nodes in the order of ``graph.unique_ids``.

        Loops and zero weights (libpysal's sign of an island) are dropped.  A negative weight
        raises `InputError`.
        """
        table = graph.sparse.tocoo()
        keep = (table.row != table.col) & (table.data != 0)
        weight = np.asarray(table.data[keep], float)
        if (weight < 0).any() or not np.isfinite(weight).all():
            raise InputError("the graph has negative or undefined weights; give positive ones")
        focal, neighbour = table.row[keep].astype(np.int64), table.col[keep].astype(np.int64)
        return cls._from_pairs(int(graph.n), focal, neighbour, weight)

    @classmethod
    def _from_pairs(
        cls, n: int, focal: IntArray, neighbour: IntArray, weight: FloatArray | None = None
    ) -> Self:
        order = np.lexsort((neighbour, focal))
        starts = np.concatenate([[0], np.cumsum(np.bincount(focal, minlength=n))])
        count = np.diff(starts)[focal]
        weight = 1.0 / count if weight is None else weight
        return cls(starts.astype(np.int64), neighbour[order], np.asarray(weight, float)[order])

    def __len__(self) -> int:
        return int(self.starts.size - 1)

    @property
    def n_neighbours(self) -> IntArray:
        """(n,) count of neighbours of each tile."""
        return np.asarray(np.diff(self.starts), np.int64)

    @property
    def n_islands(self) -> int:
        """Number of tiles without any neighbour."""
        return int((self.n_neighbours == 0).sum())

    @property
    def focal(self) -> IntArray:
        """(m,) index of the tile to which each entry of `neighbours` belongs."""
        return np.repeat(np.arange(len(self)), self.n_neighbours)

    @property
    def graph(self) -> Graph:
        """The graph as `libpysal.graph.Graph` (imports libpysal); islands are kept."""
        from libpysal.graph import Graph

        islands = np.flatnonzero(self.n_neighbours == 0)
        focal = np.concatenate([self.focal, islands])
        neighbour = np.concatenate([self.neighbours, islands])
        weight = np.concatenate([self.weights, np.zeros(islands.size)])
        order = np.lexsort((neighbour, focal))
        return Graph.from_arrays(focal[order], neighbour[order], weight[order])

    def among(self, valid: NDArray[np.bool_]) -> Self:
        """The graph of the tiles in the mask *valid* (n,), renumbered and row-standardised again.

        The other tiles vanish, also as neighbours.
        """
        number = np.cumsum(valid) - 1
        focal = self.focal
        keep = valid[focal] & valid[self.neighbours]
        focal, weight = number[focal[keep]], self.weights[keep]
        n = int(valid.sum())
        total = np.bincount(focal, weight, minlength=n)
        return self._from_pairs(n, focal, number[self.neighbours[keep]], weight / total[focal])

    def lag(self, values: FloatArray) -> FloatArray:
        """(n,) weighted sum over each tile's neighbours of *values* (n,), in their unit.

        0 for an island; NaN spreads to the neighbours.
        """
        return np.bincount(
            self.focal, self.weights * values[self.neighbours], minlength=len(self)
        ).astype(float)


def as_tile_graph(graph: TileGraph | Any) -> TileGraph:
    """The graph as `TileGraph`, whether it is one already or a `libpysal.graph.Graph`."""
    if isinstance(graph, TileGraph):
        return graph
    if hasattr(graph, "sparse") and hasattr(graph, "unique_ids"):
        return TileGraph.from_libpysal(graph)
    raise InputError(f"a TileGraph or a libpysal Graph is needed, not {type(graph).__name__}")


@dataclass(frozen=True, slots=True, eq=False)
class ValuedTiles:
    """The m tiles that have a value: standardised values, graph among them, lag.

    Parameters
    ----------
    valid
        (n,) mask of these tiles among all tiles.
    z
        (m,) values with mean 0 and variance 1, dimensionless.
    graph
        Neighbours among these tiles.
    lag
        (m,) mean of the neighbours' `z`, dimensionless.
    tested
        (k,) indices of the tiles that have a neighbour.
    """

    valid: NDArray[np.bool_]
    z: FloatArray
    graph: TileGraph
    lag: FloatArray
    tested: IntArray


def valued_tiles(values: FloatArray, graph: TileGraph) -> ValuedTiles:
    """Standardise the values (n,) of the tiles that have one, any unit, to dimensionless `z`.

    NaN: no value.

    Raises
    ------
    InputError
        If the shapes differ, a value is infinite, fewer than 3 tiles have a value, no two of them
        are neighbours, or all values are equal.
    """
    if values.shape != (len(graph),):
        raise InputError(f"values of shape {values.shape} do not fit a graph of {len(graph)} tiles")
    if np.isinf(values).any():
        raise InputError("tile values contain infinity; use NaN where there is no value")
    valid = np.isfinite(values)
    z = _standardised(values[valid])
    among = graph.among(valid)
    tested = np.flatnonzero(among.n_neighbours > 0)
    if tested.size == 0:
        raise InputError("no tile with a value has a neighbour with a value: nothing to test")
    return ValuedTiles(valid, z, among, among.lag(z), tested)


def _standardised(values: FloatArray) -> FloatArray:
    """Values with mean 0 and variance 1 (divisor n), independent of their order to the last bit."""
    if values.size < 3:
        raise InputError(f"local Moran needs at least 3 tiles with a value, not {values.size}")
    centred = values - math.fsum(values) / values.size
    scale = math.sqrt(math.fsum(centred**2) / values.size)
    if scale <= 1e-12 * float(np.abs(values).max()) or scale == 0:
        raise InputError(
            f"all {values.size} tile values are equal ({values[0]:g}): there are no hot or cold "
            "spots to find; choose another parameter"
        )
    return np.asarray(centred / scale, float)


def _pairs(around: IntArray) -> tuple[IntArray, IntArray]:
    focal, place = np.nonzero(around >= 0)
    return focal, around[focal, place]
