"""Random neighbourhoods: how extreme each tile's lag is among permutations of the other tiles.

The loops run on one core and release the interpreter, so that several cases or parameters can be
computed side by side.  Importing this file imports numba.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import FloatArray
from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.tiles import IntArray
from napari_mosaik.spatial.graph import TIE, TileGraph, ValuedTiles

__all__ = [
    "count_extreme",
    "count_extreme_in_order",
    "draw_ranks",
    "draws_by_rank",
    "esda_tail_counts",
    "tail_counts",
]

_CHUNK = 2048


def tail_counts(
    tiles: ValuedTiles, permutations: int, rng: np.random.Generator
) -> Generator[float, None, IntArray]:
    """Count for each tile the draws whose lag is at least as extreme; yields the fraction done.

    All tiles share one set of draws, which pick values by their rank.

    Returns
    -------
    numpy.ndarray
        (m,) the smaller of the counts of both tails; -1 for a tile without neighbours.
    """
    sign = -1.0 if _negatively_skewed(tiles.z) else 1.0
    oriented = replace(tiles, z=sign * tiles.z, lag=sign * tiles.lag)
    width = int(tiles.graph.n_neighbours.max())
    seed = np.uint64(rng.integers(2**63))
    ranks = draw_ranks(seed, permutations, tiles.z.size - 1, width)
    counted = _equal_weights if _rows_are_even(tiles.graph) else _any_weights
    return (yield from counted(oriented, ranks))


def _rows_are_even(graph: TileGraph) -> bool:
    """Whether the weights of every tile are one over the number of its neighbours.

    But for rounding: without the tiles that have no value, rows are standardised a second time.
    """
    even = 1.0 / graph.n_neighbours[graph.focal]
    return bool(np.allclose(graph.weights, even, rtol=1e-12, atol=0.0))


def _equal_weights(
    tiles: ValuedTiles, ranks: NDArray[np.int32]
) -> Generator[float, None, IntArray]:
    """Tail counts tile by tile in the order of their values, for each number of neighbours."""
    ordered = np.sort(tiles.z)
    own = np.searchsorted(ordered, tiles.z)
    tail = np.full(tiles.z.size, -1, np.int64)
    widths = tiles.graph.n_neighbours[tiles.tested]
    done = 0
    for width in np.unique(widths):
        rows = tiles.tested[widths == width]
        rows = rows[np.argsort(own[rows], kind="stable")]
        held = draws_by_rank(ranks, int(width), ordered.size - 1)
        totals, reached = np.empty(ranks.shape[0]), -1
        for start in range(0, rows.size, _CHUNK):
            part = rows[start : start + _CHUNK]
            counts = count_extreme_in_order(
                ordered, ranks, int(width), own[part], tiles.lag[part], *held, totals, reached, TIE
            )
            reached = int(own[part[-1]])
            tail[part] = np.minimum(*counts)
            done += part.size
            yield done / tiles.tested.size
    return tail


def _any_weights(tiles: ValuedTiles, ranks: NDArray[np.int32]) -> Generator[float, None, IntArray]:
    """Tail counts tile by tile, each draw summed again."""
    ordered = np.sort(tiles.z)
    own = np.searchsorted(ordered, tiles.z)
    weights = _descending_rows(tiles.graph)
    tail = np.full(tiles.z.size, -1, np.int64)
    for start in range(0, tiles.tested.size, _CHUNK):
        rows = tiles.tested[start : start + _CHUNK]
        counts = count_extreme(
            ordered, ranks, own, tiles.lag, tiles.graph.starts, weights, rows, TIE
        )
        tail[rows] = np.minimum(*counts)
        yield (start + rows.size) / tiles.tested.size
    return tail


def _negatively_skewed(z: FloatArray) -> bool:
    """Whether the values change sign, so that both signs of a parameter use the same draws."""
    ordered = np.sort(z)
    skew = ordered + ordered[::-1]
    different = np.flatnonzero(np.abs(skew) > TIE)
    return bool(different.size and skew[different[0]] < 0)


def _descending_rows(graph: TileGraph) -> FloatArray:
    """Weights sorted within each row, so that the order of the tiles does not matter."""
    return graph.weights[np.lexsort((-graph.weights, graph.focal))]


def esda_tail_counts(
    tiles: ValuedTiles, permutations: int, rng: np.random.Generator
) -> tuple[IntArray, str]:
    """`tail_counts` (m,) by esda's permutations and its own rule for ties, and esda's version."""
    import esda

    # esda also divides by the spread of its permutations, which is 0 for a tile without neighbours.
    with np.errstate(invalid="ignore"):
        result = esda.Moran_Local(
            tiles.z,
            tiles.graph.graph,
            transformation="r",
            permutations=permutations,
            n_jobs=1,
            seed=int(rng.integers(2**31 - 1)),
        )
    tail = np.rint(np.asarray(result.p_sim) * (permutations + 1) - 1).astype(np.int64)
    tail[tiles.graph.n_neighbours == 0] = -1
    return tail, str(esda.__version__)


@compiled
def _next(state: Any) -> tuple[Any, Any]:
    """One step of splitmix64 (Steele et al. 2014): new state, random 64-bit number."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    x = state
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state, x ^ (x >> np.uint64(31))


@compiled
def draw_ranks(seed: np.uint64, n_draws: int, n_items: int, width: int) -> NDArray[np.int32]:
    """(n_draws, width) ranks: in each row different indices below *n_items*, in random order.

    Fisher-Yates.
    """
    out = np.empty((n_draws, width), np.int32)
    items = np.arange(n_items).astype(np.int32)
    swaps = np.empty(width, np.int64)
    state = seed
    for draw in range(n_draws):
        for k in range(width):
            state, bits = _next(state)
            j = k + np.int64(bits % np.uint64(n_items - k))
            swaps[k] = j
            items[k], items[j] = items[j], items[k]
            out[draw, k] = items[k]
        for k in range(width - 1, -1, -1):
            j = swaps[k]
            items[k], items[j] = items[j], items[k]
    return out


@compiled
def count_extreme(
    ordered: NDArray[np.float64],
    ranks: NDArray[np.int32],
    own_rank: NDArray[np.int64],
    lag: NDArray[np.float64],
    starts: NDArray[np.int64],
    weights: NDArray[np.float64],
    rows: NDArray[np.int64],
    tolerance: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How often random neighbours reach the lag of the tiles *rows*, from above and from below.

    Parameters
    ----------
    ordered
        (m,) all values in ascending order, dimensionless.
    ranks
        (draws, width) random indices of the other values (`draw_ranks`).
    own_rank, lag
        (m,) each tile's index among the ordered values, and its lag, dimensionless.
    starts, weights
        (m + 1,) and (k,) as in `TileGraph`, weights descending within a row.
    rows
        (r,) indices of the tiles to count for.
    tolerance
        Lags that differ by less count as equal.

    Returns
    -------
    tuple
        (r,) counts of draws at least and at most as large.
    """
    at_least = np.zeros(rows.size, np.int64)
    at_most = np.zeros(rows.size, np.int64)
    for r in range(rows.size):
        i = rows[r]
        start, width = starts[i], starts[i + 1] - starts[i]
        own, observed = own_rank[i], lag[i]
        others = np.empty(ordered.size - 1, np.float64)
        others[:own] = ordered[:own]
        others[own:] = ordered[own + 1 :]
        above, below = 0, 0
        for draw in range(ranks.shape[0]):
            total = 0.0
            for k in range(width):
                total += weights[start + k] * others[ranks[draw, k]]
            above += total >= observed - tolerance
            below += total <= observed + tolerance
        at_least[r] = above
        at_most[r] = below
    return at_least, at_most


@compiled
def draws_by_rank(
    ranks: NDArray[np.int32], width: int, n_items: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """For each rank the draws that hold it among their first *width* ranks.

    Parameters
    ----------
    ranks
        (draws, columns) random ranks (`draw_ranks`).
    width
        Leading columns that count.
    n_items
        Number of ranks.

    Returns
    -------
    tuple
        (n_items + 1,) start of each rank's row, and (draws * width,) indices of draws.
    """
    starts = np.zeros(n_items + 1, np.int64)
    for draw in range(ranks.shape[0]):
        for k in range(width):
            starts[ranks[draw, k] + 1] += 1
    starts = np.cumsum(starts)
    next_free = starts[:-1].copy()
    draws = np.empty(ranks.shape[0] * width, np.int32)
    for draw in range(ranks.shape[0]):
        for k in range(width):
            draws[next_free[ranks[draw, k]]] = draw
            next_free[ranks[draw, k]] += 1
    return starts, draws


@compiled
def _sum_of_draw(
    ordered: NDArray[np.float64], rank: NDArray[np.int32], width: int, weight: float, own: int
) -> float:
    """Lag of one draw for a tile with the index *own* among the ordered values."""
    total = 0.0
    for k in range(width):
        total += weight * ordered[rank[k] + (rank[k] >= own)]
    return total


@compiled
def count_extreme_in_order(
    ordered: NDArray[np.float64],
    ranks: NDArray[np.int32],
    width: int,
    own: NDArray[np.int64],
    lag: NDArray[np.float64],
    starts: NDArray[np.int64],
    draws: NDArray[np.int32],
    totals: NDArray[np.float64],
    reached: int,
    tolerance: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`count_extreme` for tiles of one *width* with equal weights, in ascending order of *own*.

    From one tile to the next, only the draws that hold a rank between the two change: over all
    tiles each draw changes *width* times, however many tiles there are.

    Parameters
    ----------
    ordered, ranks, tolerance
        (m,) values and (draws, columns) ranks, as in `count_extreme`.
    width
        Count of neighbours of every tile.
    own, lag
        (r,) index among the ordered values and lag of each tile, dimensionless.
    starts, draws
        What `draws_by_rank` returns.
    totals
        (draws,) lags of the draws for the index *reached*; changed to those of the last tile.
    reached
        Negative: *totals* is not computed yet.

    Returns
    -------
    tuple
        (r,) counts of draws at least and at most as large.
    """
    weight = 1.0 / width
    if reached < 0:
        reached = 0
        for draw in range(ranks.shape[0]):
            totals[draw] = _sum_of_draw(ordered, ranks[draw], width, weight, 0)
    at_least = np.zeros(own.size, np.int64)
    at_most = np.zeros(own.size, np.int64)
    for t in range(own.size):
        for rank in range(reached, own[t]):
            for at in range(starts[rank], starts[rank + 1]):
                draw = draws[at]
                totals[draw] = _sum_of_draw(ordered, ranks[draw], width, weight, rank + 1)
        reached = own[t]
        above, below = 0, 0
        for draw in range(totals.size):
            above += totals[draw] >= lag[t] - tolerance
            below += totals[draw] <= lag[t] + tolerance
        at_least[t] = above
        at_most[t] = below
    return at_least, at_most
