"""Compiled loops of the local Moran permutations (imports numba).

They run on one core and release the interpreter, so that several cases or parameters can be
computed side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.compiled import compiled

__all__ = ["count_extreme", "count_extreme_in_order", "draw_ranks", "draws_by_rank"]


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
    """Each row: *width* different numbers below *n_items* in random order (Fisher-Yates)."""
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
    """How often the lag of the *rows* is reached from above and from below by random neighbours.

    *ordered* holds all values in ascending order, *own_rank* each tile's place in it: a random
    number ``j`` means the j-th of the other values.  Lags that differ by less than *tolerance*
    count as equal.
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
    """For each rank the draws that hold it among their first *width*: starts and draws."""
    starts = np.zeros(n_items + 1, np.int64)
    for draw in range(ranks.shape[0]):
        for k in range(width):
            starts[ranks[draw, k] + 1] += 1
    starts = np.cumsum(starts)
    place = starts[:-1].copy()
    draws = np.empty(ranks.shape[0] * width, np.int32)
    for draw in range(ranks.shape[0]):
        for k in range(width):
            draws[place[ranks[draw, k]]] = draw
            place[ranks[draw, k]] += 1
    return starts, draws


@compiled
def _sum_of_draw(
    ordered: NDArray[np.float64], rank: NDArray[np.int32], width: int, weight: float, own: int
) -> float:
    """Lag of one draw for a tile with the place *own* among the ordered values."""
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
    """As `count_extreme`, for tiles of one *width* with equal weights and ascending *own* place.

    From one tile to the next, only the draws that hold a rank between the two places change: over
    all tiles each draw changes *width* times, however many tiles there are.  *totals* holds the
    draws' lags for the place *reached* and is brought up to the last tile's; a negative *reached*
    means that it is empty.
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
