"""Hot and cold spots: Moran's I of tile values, local and global, with permutation p-values."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import FloatArray, Params, setting
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.core.text import counted
from napari_mosaik.core.tiles import IntArray
from napari_mosaik.spatial.graph import (
    TIE,
    TileGraph,
    ValuedTiles,
    as_tile_graph,
    valued_tiles,
)

__all__ = [
    "LocalMoran",
    "MoranParams",
    "benjamini_hochberg_cut",
    "global_moran",
    "iter_local_moran",
    "local_moran",
    "moran_scatter",
]

MAX_PERMUTATIONS = 999_999
AVERAGE, HOT, COLD, HIGH_LOW, LOW_HIGH, NOT_TESTABLE = range(6)


class MoranParams(Params):
    """Settings of the local Moran labels."""

    alpha: float = setting(
        0.005, "Significance level of one tile.", label="significance level", gt=0, lt=1
    )
    permutations: int = setting(
        9999, "Random neighbourhoods drawn per tile.", ge=99, le=MAX_PERMUTATIONS
    )
    sided: Literal["two", "one"] = setting(
        "two",
        "Two-sided p-values, or the smaller tail alone (labels more tiles).",
        label="p-value",
        choices={"two": "two-sided", "one": "smaller tail"},
    )
    fdr: bool = setting(
        False,
        "Control the false discovery rate of the map (Benjamini-Hochberg) instead of the level of "
        "one tile; more random neighbourhoods are drawn where it needs them.",
        label="Control FDR",
    )
    q: float = setting(
        0.05,
        "Share of false labels among the labelled tiles that is accepted, with FDR control.",
        label="false discovery rate",
        gt=0,
        lt=1,
    )
    engine: Literal["mosaik", "esda"] = setting(
        "mosaik",
        "Computes the permutations: this program or the library esda.",
        label="Permutation library",
        choices={"mosaik": "napari-mosaik", "esda": "esda"},
        advanced=True,
    )
    seed: int = setting(
        0, "Random seed of the permutations.", label="Random seed", advanced=True, ge=0
    )


@dataclass(frozen=True, slots=True, eq=False)
class LocalMoran:
    """Local Moran's I of n tiles; NaN (label 5) where a tile cannot be tested.

    Attributes
    ----------
    statistic
        (n,) I_i, dimensionless; the mean over tested tiles is global Moran's I.
    p_value
        (n,) pseudo p-value, never adjusted.
    label
        (n,) 0 average, 1 hot, 2 cold, 3 high-low, 4 low-high, 5 not testable.
    z
        (n,) standardised value (divisor n), dimensionless.
    lag
        (n,) weighted mean of the neighbours' standardised values, dimensionless.
    expected, variance
        (n,) moments of I_i under conditional permutation (Sokal et al. 1998), on the scale of
        `statistic`.
    n_neighbours
        (n,) count of neighbours that have a value.
    smallest_p
        (n,) p-value expected if the neighbours were the most extreme ones possible; a tile whose
        smallest p exceeds the level can never be labelled.
    cut
        Largest p-value that was labelled significant; the level itself without FDR.
    permutations
        Number of random neighbourhoods drawn per tile: more than asked for where FDR needs them.
    n_tested, n_islands, n_missing
        Counts of tiles tested, with a value but no neighbour, and without a value.
    engine, version
        Engine that computed the p-values, and its version.
    warnings
        Warnings for the user.
    """

    statistic: FloatArray
    p_value: FloatArray
    label: NDArray[np.int8]
    z: FloatArray
    lag: FloatArray
    expected: FloatArray
    variance: FloatArray
    n_neighbours: IntArray
    smallest_p: FloatArray
    cut: float
    permutations: int
    n_tested: int
    n_islands: int
    n_missing: int
    engine: str
    version: str
    warnings: tuple[str, ...]

    @property
    def global_i(self) -> float:
        """Global Moran's I: mean of the local statistics of the tested tiles."""
        return math.fsum(self.statistic[np.isfinite(self.statistic)]) / self.n_tested

    @property
    def n_border(self) -> int:
        """Tested tiles with fewer neighbours than the fullest: at an edge or beside a gap."""
        tested = self.n_neighbours[np.isfinite(self.p_value)]
        return int((tested < tested.max()).sum()) if tested.size else 0

    def summary(self) -> dict[str, Any]:
        """Global Moran's I, counts and engine as a JSON-able record."""
        return {
            "global_i": self.global_i,
            "n_tested": self.n_tested,
            "n_border": self.n_border,
            "n_islands": self.n_islands,
            "n_missing": self.n_missing,
            "n_labelled": int(np.isin(self.label, (HOT, COLD, HIGH_LOW, LOW_HIGH)).sum()),
            "cut": self.cut,
            "permutations": self.permutations,
            "engine": self.engine,
            "version": self.version,
            "warnings": list(self.warnings),
        }


def local_moran(
    values: ArrayLike,
    graph: TileGraph | Any,
    params: MoranParams | None = None,
    rng: np.random.Generator | None = None,
) -> LocalMoran:
    """Local Moran's I with a label for each tile.

    ``I_i = (z_i / m2) * sum_j w_ij z_j`` with row-standardised weights.  Under the null the
    neighbours' values are drawn without replacement from all other tiles.  The p-value is
    ``min(1, 2 min(k_ge + 1, k_le + 1) / (R + 1))`` (*sided* "two") or the smaller tail alone, and
    a tile is significant if it is at most the level.  The significant tiles are labelled by the
    signs of ``z_i`` and of the lag.

    With *fdr* the level is the largest p-value under the line ``q k / n`` (k-th smallest of n).  A
    p-value cannot fall below ``c / (R + 1)``, c = 2 (two-sided) or 1, so R is raised to
    ``c n / q - 1``, with which a single tile can be labelled, but not above the largest number
    of permutations allowed; a warning then says how many would be needed.

    All tiles share one set of random draws, which pick values by their rank, not by tile number:
    the result does not depend on the order of the tiles, the number of cores, or the unit of the
    values, and reversing the sign of the values exchanges hot and cold (engine "mosaik").

    Parameters
    ----------
    values
        (n,) value per tile, any unit; NaN tiles are excluded, also as neighbours (label 5).
    graph
        Neighbours of the n tiles: `TileGraph` or `libpysal.graph.Graph`; its weights are
        row-standardised over the neighbours that have a value.
    params
        Settings; the defaults are those of the paper with two-sided p-values.
    rng
        Source of the draws; seeded with ``params.seed`` if None.

    Raises
    ------
    InputError
        If the shapes differ, a value is infinite, fewer than 3 tiles have a value, no two of them
        are neighbours, or all values are equal.

    References
    ----------
    Anselin 1995, Geogr Anal 27:93-115; Sokal, Oden and Thomson 1998, Geogr Anal 30:331-354.
    """
    return run_to_end(iter_local_moran(values, graph, params, rng))


def iter_local_moran(
    values: ArrayLike,
    graph: TileGraph | Any,
    params: MoranParams | None = None,
    rng: np.random.Generator | None = None,
) -> Generator[float, None, LocalMoran]:
    """`local_moran` of values (n,), any unit, in pieces: yields the fraction done.

    A caller can show the progress, or cancel by closing the generator.
    """
    from napari_mosaik.spatial import permutation  # numba loads here

    params = params or MoranParams()
    rng = np.random.default_rng(params.seed) if rng is None else rng
    values = np.asarray(values, float)
    tiles = valued_tiles(values, as_tile_graph(graph))
    needed = _needed_permutations(tiles, params)
    drawn = max(params.permutations, min(needed, MAX_PERMUTATIONS))
    if params.engine == "esda":
        tail, version = permutation.esda_tail_counts(tiles, drawn, rng)
    else:
        tail = yield from permutation.tail_counts(tiles, drawn, rng)
        version = metadata.version("napari-mosaik")
    return _assemble(tiles, tail, params, drawn, version)


def _needed_permutations(tiles: ValuedTiles, params: MoranParams) -> int:
    """Permutations with which FDR can label a single tile; 0 without FDR."""
    if not params.fdr:
        return 0
    # The quotient of two decimals may end just above the whole number that it stands for.
    return math.ceil(_factor(params) * tiles.tested.size / params.q - 1e-6) - 1


def _factor(params: MoranParams) -> int:
    """How many tails the p-value counts."""
    return 2 if params.sided == "two" else 1


def benjamini_hochberg_cut(p_values: ArrayLike, level: float) -> float:
    """Largest p-value that is significant at the false discovery rate *level*; 0 if none is.

    Parameters
    ----------
    p_values
        (n,) p-values, dimensionless; NaN: not tested.
    level
        False discovery rate, a fraction.

    References
    ----------
    Benjamini and Hochberg 1995, JRSS B 57:289-300.
    """
    p = np.asarray(p_values, float)
    p = np.sort(p[np.isfinite(p)])
    passed = np.flatnonzero(p <= level * np.arange(1, p.size + 1) / max(p.size, 1))
    return float(p[passed[-1]]) if passed.size else 0.0


def _assemble(
    tiles: ValuedTiles, tail: IntArray, params: MoranParams, drawn: int, version: str
) -> LocalMoran:
    tested = np.zeros(tiles.z.size, np.bool_)
    tested[tiles.tested] = True
    factor = _factor(params)
    p = np.where(tested, np.minimum(1.0, factor * (tail + 1) / (drawn + 1)), np.nan)
    p[tested & (np.abs(tiles.z) < TIE)] = 1.0
    cut = benjamini_hochberg_cut(p, params.q) if params.fdr else params.alpha
    expected, variance = _moments(tiles)
    smallest = _smallest_p(tiles, factor, drawn)
    n_neighbours = np.zeros(tiles.valid.size, np.int64)
    n_neighbours[tiles.valid] = tiles.graph.n_neighbours

    def spread(column: FloatArray, only: NDArray[np.bool_] = tested) -> FloatArray:
        out = np.full(tiles.valid.size, np.nan)
        out[tiles.valid] = np.where(only, column, np.nan)
        return out

    label = np.full(tiles.valid.size, NOT_TESTABLE, np.int8)
    label[tiles.valid] = _labels(tiles, p, cut)
    return LocalMoran(
        spread(tiles.z * tiles.lag),
        spread(p),
        label,
        spread(tiles.z, np.ones_like(tested)),
        spread(tiles.lag),
        spread(expected),
        spread(variance),
        n_neighbours,
        spread(smallest),
        cut,
        drawn,
        int(tested.sum()),
        int((~tested).sum()),
        int((~tiles.valid).sum()),
        params.engine,
        version,
        _warnings(tiles, smallest, params, drawn),
    )


def _labels(tiles: ValuedTiles, p: FloatArray, cut: float) -> NDArray[np.int8]:
    high, near = np.sign(tiles.z), np.sign(tiles.lag)
    near[np.abs(tiles.lag) < TIE] = 0
    high[np.abs(tiles.z) < TIE] = 0
    names = {(1, 1): HOT, (-1, -1): COLD, (1, -1): HIGH_LOW, (-1, 1): LOW_HIGH}
    label = np.zeros(p.size, np.int8)
    for (own, around), code in names.items():
        label[(high == own) & (near == around)] = code
    label[~(p <= cut)] = AVERAGE
    label[np.isnan(p)] = NOT_TESTABLE
    return label


def _warnings(
    tiles: ValuedTiles, smallest: FloatArray, params: MoranParams, drawn: int
) -> tuple[str, ...]:
    out = []
    level = params.q if params.fdr else params.alpha
    floor = _factor(params) / (drawn + 1)
    needed = _needed_permutations(tiles, params)
    if floor > level:
        enough = max(needed, math.ceil(_factor(params) / level - 1e-6) - 1)
        out.append(
            f"{drawn} permutations cannot give a p-value below {floor:.3g}: no tile "
            f"can be significant at {level:g}; {enough} permutations are needed."
        )
    elif needed > drawn:
        group = math.ceil(floor * tiles.tested.size / level - 1e-6)
        out.append(
            f"{drawn} permutations cannot label fewer than {group} of {tiles.tested.size} tiles at "
            f"a false discovery rate of {level:g}; a single tile needs {needed} permutations."
        )
    hopeless = int((smallest[tiles.tested] > level).sum())
    if hopeless and floor <= level:
        out.append(
            f"{hopeless} of {tiles.tested.size} tiles have too few neighbours to ever reach "
            f"p = {level:g}."
        )
    islands = tiles.z.size - tiles.tested.size
    if islands:
        out.append(f"{counted(islands, 'tile')}, not tested: no neighbour with a value.")
    return tuple(out)


def _moments(tiles: ValuedTiles) -> tuple[FloatArray, FloatArray]:
    """Mean and variance of I_i under conditional permutation, with m2 = 1 and w_i = 1."""
    n, z2 = tiles.z.size, tiles.z**2
    square = np.bincount(tiles.graph.focal, tiles.graph.weights**2, minlength=n)
    expected = -z2 / (n - 1)
    spread = (square - 1.0 / (n - 1)) * (1.0 - z2 / (n - 1))
    return expected, np.asarray(z2 * n / (n - 2) * np.maximum(spread, 0.0), float)


def _smallest_p(tiles: ValuedTiles, factor: int, permutations: int) -> FloatArray:
    """The p-value expected for the most extreme neighbourhood that the values allow.

    Exact for equal weights within a tile's row; a lower bound for others.  It is 1 for a tile at
    the mean, whose statistic is 0 whatever its neighbours are.
    """
    up = np.sort(tiles.z)
    down = -up[::-1]
    out = np.full(tiles.z.size, np.nan)
    widths = tiles.graph.n_neighbours[tiles.tested]
    for width in np.unique(widths):
        rows = tiles.tested[widths == width]
        own = tiles.z[rows]
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


def global_moran(values: ArrayLike, graph: TileGraph | Any) -> tuple[float, float]:
    """Global Moran's I and its expectation -1/(n - 1) under randomness.

    Parameters
    ----------
    values
        (n,) value per tile, any unit; NaN tiles are excluded, also as neighbours.
    graph
        Neighbours; weights are row-standardised, islands count in the mean only.

    Returns
    -------
    tuple
        I and its expectation, dimensionless.

    Raises
    ------
    InputError
        As `local_moran`.
    """
    tiles = valued_tiles(np.asarray(values, float), as_tile_graph(graph))
    product = tiles.z * tiles.lag
    total = math.fsum(product[tiles.tested]) / tiles.tested.size
    return total, -1.0 / (tiles.z.size - 1)


def moran_scatter(
    values: ArrayLike, graph: TileGraph | Any
) -> tuple[FloatArray, FloatArray, float]:
    """Standardised values, means of their neighbours, and global Moran's I.

    Parameters
    ----------
    values
        (n,) value per tile, any unit; NaN: no value.
    graph
        Neighbours; weights are row-standardised.

    Returns
    -------
    tuple
        (n,) values, (n,) lags (NaN for tiles without a value or without neighbours), and I, the
        slope of the line through the centre of their scatter plot; all dimensionless.

    Raises
    ------
    InputError
        As `local_moran`.

    References
    ----------
    Anselin 1996, in Spatial Analytical Perspectives on GIS.
    """
    values = np.asarray(values, float)
    tiles = valued_tiles(values, as_tile_graph(graph))
    z, lag = np.full(values.size, np.nan), np.full(values.size, np.nan)
    z[tiles.valid] = tiles.z
    lag[np.flatnonzero(tiles.valid)[tiles.tested]] = tiles.lag[tiles.tested]
    product = tiles.z * tiles.lag
    return z, lag, math.fsum(product[tiles.tested]) / tiles.tested.size
