"""The steps of local Moran: the tiles with a value, their random neighbourhoods, moments."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.core.tiles import IntArray
from napari_mosaik.spatial.graph import TileGraph

__all__ = ["TIE", "Sample", "esda_tail", "moments", "own_tail", "sample_of", "smallest_p"]

TIE = 1e-9
"""Lags of standardised values nearer than this are equal: rounding must not split ties."""
_CHUNK = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The tiles that have a value: standardised values, graph among them, lag."""

    valid: NDArray[np.bool_]
    z: FloatArray
    graph: TileGraph
    lag: FloatArray
    tested: IntArray


def sample_of(values: FloatArray, graph: TileGraph) -> Sample:
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
    return Sample(valid, z, among, among.lag(z), tested)


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


def own_tail(
    sample: Sample, permutations: int, rng: np.random.Generator
) -> Generator[float, None, IntArray]:
    """For each tile the smaller of the two counts of draws at least as extreme."""
    from napari_mosaik.spatial._moran_kernel import draw_ranks

    flip = -1.0 if _upside_down(sample.z) else 1.0
    turned = Sample(sample.valid, flip * sample.z, sample.graph, flip * sample.lag, sample.tested)
    width = int(sample.graph.n_neighbours.max())
    seed = np.uint64(rng.integers(2**63))
    ranks = draw_ranks(seed, permutations, sample.z.size - 1, width)
    counted = _equal_weights if _rows_are_even(sample.graph) else _any_weights
    return (yield from counted(turned, ranks))


def _rows_are_even(graph: TileGraph) -> bool:
    """Whether the weights of every tile are one over the number of its neighbours.

    But for rounding: where tiles without a value are left out, rows are standardised once more.
    """
    even = 1.0 / graph.n_neighbours[graph.focal]
    return bool(np.allclose(graph.weights, even, rtol=1e-12, atol=0.0))


def _equal_weights(sample: Sample, ranks: NDArray[np.int32]) -> Generator[float, None, IntArray]:
    """Tail counts tile by tile in the order of their values, for each number of neighbours."""
    from napari_mosaik.spatial._moran_kernel import count_extreme_in_order, draws_by_rank

    ordered = np.sort(sample.z)
    own = np.searchsorted(ordered, sample.z)
    tail = np.full(sample.z.size, -1, np.int64)
    widths = sample.graph.n_neighbours[sample.tested]
    done = 0
    for width in np.unique(widths):
        rows = sample.tested[widths == width]
        rows = rows[np.argsort(own[rows], kind="stable")]
        held = draws_by_rank(ranks, int(width), ordered.size - 1)
        totals, reached = np.empty(ranks.shape[0]), -1
        for start in range(0, rows.size, _CHUNK):
            part = rows[start : start + _CHUNK]
            counts = count_extreme_in_order(
                ordered, ranks, int(width), own[part], sample.lag[part], *held, totals, reached, TIE
            )
            reached = int(own[part[-1]])
            tail[part] = np.minimum(*counts)
            done += part.size
            yield done / sample.tested.size
    return tail


def _any_weights(sample: Sample, ranks: NDArray[np.int32]) -> Generator[float, None, IntArray]:
    """Tail counts tile by tile, each draw summed anew."""
    from napari_mosaik.spatial._moran_kernel import count_extreme

    ordered = np.sort(sample.z)
    own = np.searchsorted(ordered, sample.z)
    weights = _descending_rows(sample.graph)
    tail = np.full(sample.z.size, -1, np.int64)
    for start in range(0, sample.tested.size, _CHUNK):
        rows = sample.tested[start : start + _CHUNK]
        counts = count_extreme(
            ordered, ranks, own, sample.lag, sample.graph.starts, weights, rows, TIE
        )
        tail[rows] = np.minimum(*counts)
        yield (start + rows.size) / sample.tested.size
    return tail


def _upside_down(z: FloatArray) -> bool:
    """Whether the values are to be turned over so that both orientations use the same draws."""
    ordered = np.sort(z)
    skew = ordered + ordered[::-1]
    different = np.flatnonzero(np.abs(skew) > TIE)
    return bool(different.size and skew[different[0]] < 0)


def _descending_rows(graph: TileGraph) -> FloatArray:
    """Weights sorted within each row, so that the order of the tiles does not matter."""
    return graph.weights[np.lexsort((-graph.weights, graph.focal))]


def esda_tail(sample: Sample, permutations: int, rng: np.random.Generator) -> tuple[IntArray, str]:
    """Smaller tail counts from esda's permutations, by esda's own rule for ties."""
    import esda

    result = esda.Moran_Local(
        sample.z,
        sample.graph.graph,
        transformation="r",
        permutations=permutations,
        n_jobs=1,
        seed=int(rng.integers(2**31 - 1)),
    )
    tail = np.rint(np.asarray(result.p_sim) * (permutations + 1) - 1).astype(np.int64)
    tail[sample.graph.n_neighbours == 0] = -1
    return tail, str(esda.__version__)


def moments(sample: Sample) -> tuple[FloatArray, FloatArray]:
    """Mean and variance of I_i under conditional permutation, with m2 = 1 and w_i = 1."""
    n, z2 = sample.z.size, sample.z**2
    square = np.bincount(sample.graph.focal, sample.graph.weights**2, minlength=n)
    expected = -z2 / (n - 1)
    spread = (square - 1.0 / (n - 1)) * (1.0 - z2 / (n - 1))
    return expected, np.asarray(z2 * n / (n - 2) * np.maximum(spread, 0.0), float)


def smallest_p(sample: Sample, factor: int, permutations: int) -> FloatArray:
    """The p-value expected for the most extreme neighbourhood that the values allow.

    Exact for equal weights within a tile's row; a lower bound for others.  It is 1 for a tile at
    the mean, whose statistic is 0 whatever its neighbours are.
    """
    up = np.sort(sample.z)
    down = -up[::-1]
    out = np.full(sample.z.size, np.nan)
    widths = sample.graph.n_neighbours[sample.tested]
    for width in np.unique(widths):
        rows = sample.tested[widths == width]
        own = sample.z[rows]
        shares = np.minimum(
            _extreme_share(up, own, int(width)), _extreme_share(down, -own, int(width))
        )
        out[rows] = np.where(np.abs(own) > TIE, shares, 1.0)
    return np.minimum(1.0, factor * (out * permutations + 1) / (permutations + 1))


def _extreme_share(ordered: FloatArray, own: FloatArray, width: int) -> FloatArray:
    """Share of all neighbourhoods of tiles that hold the *width* smallest of the other values."""
    inside = own < ordered[width - 1] + TIE
    last = np.where(inside, ordered[min(width, ordered.size - 1)], ordered[width - 1])
    low, high = ordered.searchsorted(last - TIE), ordered.searchsorted(last + TIE)
    before = low - (own < last - TIE)
    tied = high - low - (np.abs(own - last) < TIE)
    cases, which = np.unique(np.column_stack([tied, before]), axis=0, return_inverse=True)
    every = math.comb(ordered.size - 1, width)
    share = [math.comb(int(t), width - int(b)) / every for t, b in cases]
    return np.asarray(share, float)[which.ravel()]
