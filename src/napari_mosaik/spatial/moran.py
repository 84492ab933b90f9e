"""Hot and cold spots: local Moran's I of tile values with conditional permutation p-values."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import FloatArray, Params, Table, setting
from napari_mosaik.core.tiles import IntArray
from napari_mosaik.spatial._moran_parts import (
    TIE,
    Sample,
    esda_tail,
    moments,
    own_tail,
    sample_of,
    smallest_p,
)
from napari_mosaik.spatial.graph import TileGraph, as_tile_graph

__all__ = [
    "LocalMoran",
    "MoranParams",
    "benjamini_hochberg_cut",
    "iter_local_moran",
    "local_moran",
]

AVERAGE, HOT, COLD, HIGH_LOW, LOW_HIGH, NOT_TESTABLE = range(6)


class MoranParams(Params):
    """Settings of the local Moran labels."""

    alpha: float = setting(0.005, "Significance level of one tile.", label="level", gt=0, lt=1)
    permutations: int = setting(9999, "Random neighbourhoods drawn per tile.", ge=99, le=999_999)
    sided: Literal["two", "one"] = setting(
        "two",
        "Two-sided p-values, or the smaller tail alone (labels more tiles).",
        choices={"two": "two-sided", "one": "smaller tail"},
    )
    fdr: bool = setting(
        False, "Bound the false discovery rate by the level (Benjamini-Hochberg).", label="FDR"
    )
    engine: Literal["mosaik", "esda"] = setting(
        "mosaik", "Who draws the permutations: this program or the esda library.", advanced=True
    )
    seed: int = setting(0, "Seed of the permutations.", advanced=True, ge=0)


@dataclass(frozen=True, slots=True, eq=False)
class LocalMoran:
    """Local Moran's I of n tiles; NaN (label 5) where a tile cannot be tested.

    Attributes
    ----------
    statistic
        (n,) I_i, pure number; the mean over tested tiles is global Moran's I.
    p_value
        (n,) pseudo p-value, never adjusted.
    label
        (n,) 0 average, 1 hot, 2 cold, 3 high-low, 4 low-high, 5 not testable.
    z
        (n,) standardised value (divisor n).
    lag
        (n,) weighted mean of the neighbours' standardised values.
    expected, variance
        (n,) moments of I_i under conditional permutation (Sokal et al. 1998), on the scale of
        `statistic`.
    n_neighbours
        (n,) neighbours that have a value.
    smallest_p
        (n,) p-value expected if the neighbours were the most extreme ones possible; a tile whose
        smallest p exceeds the level can never be labelled.
    cut
        Largest p-value that was labelled significant; the level itself without FDR.
    n_tested, n_islands, n_missing
        Tiles tested, tiles with a value but no neighbour, tiles without a value.
    engine, version
        Who computed the p-values.
    warnings
        Sentences for the user.
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
            "engine": self.engine,
            "version": self.version,
            "warnings": list(self.warnings),
        }

    def to_table(self) -> Table:
        """One row per tile: label, statistic, p-value and what they rest on."""
        return Table(
            {
                "label": self.label,
                "statistic": self.statistic,
                "p_value": self.p_value,
                "z": self.z,
                "lag": self.lag,
                "expected": self.expected,
                "variance": self.variance,
                "n_neighbours": self.n_neighbours,
                "smallest_p": self.smallest_p,
            },
            about={
                "label": "0 average, 1 hot, 2 cold, 3 high-low, 4 low-high, 5 not testable",
                "statistic": "local Moran's I",
                "p_value": "pseudo p-value by conditional permutation",
                "z": "standardised value of the tile",
                "lag": "mean standardised value of the neighbours",
                "smallest_p": "p-value of the most extreme neighbourhood possible",
            },
        )


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

    All tiles share one set of random draws, which pick values by their rank, not by tile number:
    the result does not depend on the order of the tiles, the number of cores, or the unit of the
    values, and reversing the sign of the values exchanges hot and cold (engine "mosaik").

    Parameters
    ----------
    values
        (n,) value per tile, any unit; NaN tiles are left out, also as neighbours (label 5).
    graph
        Neighbours of the n tiles: `TileGraph` or `libpysal.graph.Graph`; its weights are
        row-standardised over the neighbours that have a value.
    params
        Settings; the defaults are those of the paper with two-sided p-values.
    rng
        Source of the draws; made from ``params.seed`` if left out.

    Raises
    ------
    InputError
        If the shapes differ, a value is infinite, fewer than 3 tiles have a value, no two of them
        are neighbours, or all values are equal.

    References
    ----------
    Anselin 1995, Geogr Anal 27:93-115; Sokal, Oden and Thomson 1998, Geogr Anal 30:331-354.
    """
    steps = iter_local_moran(values, graph, params, rng)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: LocalMoran = end.value
            return result


def iter_local_moran(
    values: ArrayLike,
    graph: TileGraph | Any,
    params: MoranParams | None = None,
    rng: np.random.Generator | None = None,
) -> Generator[float, None, LocalMoran]:
    """`local_moran` in pieces: yields the fraction done so that a caller can show or cancel it."""
    params = params or MoranParams()
    rng = np.random.default_rng(params.seed) if rng is None else rng
    values = np.asarray(values, float)
    sample = sample_of(values, as_tile_graph(graph))
    if params.engine == "esda":
        tail, version = esda_tail(sample, params.permutations, rng)
    else:
        tail = yield from own_tail(sample, params.permutations, rng)
        version = _own_version()
    return _assemble(sample, tail, params, version)


def benjamini_hochberg_cut(p_values: ArrayLike, level: float) -> float:
    """Largest p-value that is significant at the false discovery rate *level*; 0 if none is.

    NaN p-values are not tested (Benjamini and Hochberg 1995, JRSS B 57:289-300).
    """
    p = np.asarray(p_values, float)
    p = np.sort(p[np.isfinite(p)])
    passed = np.flatnonzero(p <= level * np.arange(1, p.size + 1) / max(p.size, 1))
    return float(p[passed[-1]]) if passed.size else 0.0


def _assemble(sample: Sample, tail: IntArray, params: MoranParams, version: str) -> LocalMoran:
    tested = np.zeros(sample.z.size, np.bool_)
    tested[sample.tested] = True
    factor = 2 if params.sided == "two" else 1
    p = np.where(tested, np.minimum(1.0, factor * (tail + 1) / (params.permutations + 1)), np.nan)
    p[tested & (np.abs(sample.z) < TIE)] = 1.0
    cut = benjamini_hochberg_cut(p, params.alpha) if params.fdr else params.alpha
    expected, variance = moments(sample)
    smallest = smallest_p(sample, factor, params.permutations)
    n_neighbours = np.zeros(sample.valid.size, np.int64)
    n_neighbours[sample.valid] = sample.graph.n_neighbours

    def spread(column: FloatArray, only: NDArray[np.bool_] = tested) -> FloatArray:
        out = np.full(sample.valid.size, np.nan)
        out[sample.valid] = np.where(only, column, np.nan)
        return out

    label = np.full(sample.valid.size, NOT_TESTABLE, np.int8)
    label[sample.valid] = _labels(sample, p, cut)
    return LocalMoran(
        spread(sample.z * sample.lag),
        spread(p),
        label,
        spread(sample.z, np.ones_like(tested)),
        spread(sample.lag),
        spread(expected),
        spread(variance),
        n_neighbours,
        spread(smallest),
        cut,
        int(tested.sum()),
        int((~tested).sum()),
        int((~sample.valid).sum()),
        params.engine,
        version,
        _warnings(sample, smallest, params),
    )


def _labels(sample: Sample, p: FloatArray, cut: float) -> NDArray[np.int8]:
    high, near = np.sign(sample.z), np.sign(sample.lag)
    near[np.abs(sample.lag) < TIE] = 0
    high[np.abs(sample.z) < TIE] = 0
    names = {(1, 1): HOT, (-1, -1): COLD, (1, -1): HIGH_LOW, (-1, 1): LOW_HIGH}
    label = np.zeros(p.size, np.int8)
    for (own, around), code in names.items():
        label[(high == own) & (near == around)] = code
    label[~(p <= cut)] = AVERAGE
    label[np.isnan(p)] = NOT_TESTABLE
    return label


def _warnings(sample: Sample, smallest: FloatArray, params: MoranParams) -> tuple[str, ...]:
    out = []
    floor = (2 if params.sided == "two" else 1) / (params.permutations + 1)
    if floor > params.alpha:
        out.append(
            f"{params.permutations} permutations cannot give a p-value below {floor:.3g}: no tile "
            f"can be significant at {params.alpha:g}; use more permutations."
        )
    hopeless = int((smallest[sample.tested] > params.alpha).sum())
    if hopeless and floor <= params.alpha:
        out.append(
            f"{hopeless} of {sample.tested.size} tiles have too few neighbours to ever reach "
            f"p = {params.alpha:g}."
        )
    islands = sample.z.size - sample.tested.size
    if islands:
        out.append(f"{islands} tiles have no neighbour with a value and were not tested.")
    return tuple(out)


def _own_version() -> str:
    from importlib.metadata import version

    return version("napari-mosaik")
