"""Choice of proxies: one parameter per group, on training cases, and how stable the choice is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from napari_mosaik.core import FloatArray, InputError, Table
from napari_mosaik.core.tiles import IntArray

__all__ = ["ProxyChoice", "TileSample", "choose_proxies", "selection_stability"]


@dataclass(frozen=True, slots=True, eq=False)
class ProxyChoice:
    """The chosen parameter of each group, with everything that was compared.

    Attributes
    ----------
    proxies
        Group to name of its parameter.
    ranking
        One row per group and parameter, best first: mean and per-case coefficients.
    cases
        The cases that were used.
    leaking
        Whether a test case was among them.
    warnings
        Warnings for the user.
    """

    proxies: dict[str, str]
    ranking: Table
    cases: tuple[str, ...]
    leaking: bool
    warnings: tuple[str, ...]


def choose_proxies(
    per_case: Mapping[str, Table],
    groups: Mapping[str, Sequence[str]],
    rule: Literal["training", "paper"] = "training",
    test_cases: Sequence[str] = (),
) -> ProxyChoice:
    """Choose in each group the parameter best correlated with the uptake over the cases.

    The score of a parameter is the mean of ``|Pearson|`` and ``|Spearman|`` over the cases.  A
    parameter that is defined in every case ranks before one that is not; equal scores keep the
    order of the group.  A group of one parameter (the CAIX score) keeps it.

    Parameters
    ----------
    per_case
        Case to the table that `associate_table` returns for it.
    groups
        Group to the names of its parameters.
    rule
        "training" excludes *test_cases*; "paper" uses them too, as the paper did, and the choice is
        flagged as leaking.
    test_cases
        Cases on which the result will be tested.

    Raises
    ------
    InputError
        If no case is left, or a group has no parameter with a correlation.
    """
    cases = tuple(case for case in per_case if rule == "paper" or case not in test_cases)
    if not cases:
        raise InputError("no training case is left to choose the proxies on; add a case")
    if rule not in ("training", "paper"):
        raise InputError(f"the rule of choice is 'training' or 'paper', not '{rule}'")
    rows = [
        _row(group, position, name, [per_case[case] for case in cases])
        for group, names in groups.items()
        for position, name in enumerate(names)
    ]
    rows.sort(
        key=lambda row: (list(groups).index(row.group), row.missing, -row.score, row.position)
    )
    proxies: dict[str, str] = {}
    for row in rows:
        if np.isfinite(row.score):
            proxies.setdefault(row.group, row.name)
    lost = [group for group in groups if group not in proxies]
    if lost:
        raise InputError(
            f"no parameter of '{lost[0]}' has a correlation with the uptake in {', '.join(cases)}"
        )
    leaking = any(case in test_cases for case in cases)
    return ProxyChoice(proxies, _ranking(rows, cases), cases, leaking, _warnings(rows, leaking))


@dataclass(frozen=True, slots=True)
class _Row:
    group: str
    position: int
    name: str
    pearson: tuple[float, ...]
    spearman: tuple[float, ...]

    @property
    def missing(self) -> int:
        return sum(not np.isfinite(p + s) for p, s in zip(self.pearson, self.spearman, strict=True))

    @property
    def score(self) -> float:
        both = np.abs([self.pearson, self.spearman])
        both = both[:, np.isfinite(both).all(axis=0)]
        return float(both.mean()) if both.size else float("-inf")

    @property
    def signs_differ(self) -> bool:
        known = [value for value in self.pearson if np.isfinite(value)]
        return bool(known) and min(known) < 0 < max(known)


def _row(group: str, position: int, name: str, tables: Sequence[Table]) -> _Row:
    pearson, spearman = [], []
    for table in tables:
        index = np.flatnonzero(np.asarray(table["parameter"]) == name)
        pearson.append(float(table["pearson"][index[0]]) if index.size else float("nan"))
        spearman.append(float(table["spearman"][index[0]]) if index.size else float("nan"))
    return _Row(group, position, name, tuple(pearson), tuple(spearman))


def _finite_mean(values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def _ranking(rows: Sequence[_Row], cases: Sequence[str]) -> Table:
    columns = {
        "group": np.array([row.group for row in rows], dtype=str),
        "parameter": np.array([row.name for row in rows], dtype=str),
        "score": np.array([row.score if np.isfinite(row.score) else np.nan for row in rows]),
        "mean_pearson": np.array([_finite_mean(row.pearson) for row in rows]),
        "mean_spearman": np.array([_finite_mean(row.spearman) for row in rows]),
        "n_cases": np.array([len(cases) - row.missing for row in rows]),
    }
    for index, case in enumerate(cases):
        columns[f"pearson:{case}"] = np.array([row.pearson[index] for row in rows])
        columns[f"spearman:{case}"] = np.array([row.spearman[index] for row in rows])
    return Table(
        columns,
        about={
            "score": "mean absolute coefficient, Pearson and Spearman, over the cases",
            "n_cases": "cases in which the parameter has a correlation",
        },
    )


def _warnings(rows: Sequence[_Row], leaking: bool) -> tuple[str, ...]:
    out = []
    if leaking:
        out.append("The choice used a test case: errors on it are underestimated.")
    opposite = [row.name for row in rows if row.signs_differ]
    if opposite:
        out.append(f"The sign of the correlation differs between cases for: {', '.join(opposite)}.")
    return tuple(out)


# --- selection stability -------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, eq=False)
class TileSample:
    """The tiles of one case.

    Parameters
    ----------
    columns
        Parameter to (n,) values, any unit; NaN where a tile has none.
    uptake
        (n,) measured uptake, SUV; NaN where the PET does not cover a tile.
    centres_um
        (n, 2) tile centres, µm.
    """

    columns: Mapping[str, FloatArray]
    uptake: FloatArray
    centres_um: FloatArray


def selection_stability(
    cases: Mapping[str, TileSample],
    groups: Mapping[str, Sequence[str]],
    *,
    draws: int = 500,
    block_um: float = 1600.0,
    rng: np.random.Generator | None = None,
) -> Table:
    """Bootstrap selection frequency of each parameter, and the distribution of its score.

    Square blocks of tiles are drawn with replacement within each case, so that neighbours, which
    are correlated, stay together; in each draw every group chooses as `choose_proxies` does, by the
    mean of ``|Pearson|`` and ``|Spearman|`` over the cases.  Ranks are those of the whole case.

    Parameters
    ----------
    cases
        The training cases.
    groups
        Group to the names of its parameters.
    draws
        Number of draws.
    block_um
        Side of a block, µm; about the resolution of the PET or more.
    rng
        Source of the draws; seed 0 if None.

    Returns
    -------
    Table
        One row per group and parameter: ``frequency``, the fraction of the draws in which it was
        chosen, and the ``low``, ``middle`` and ``high`` of its score (2.5, 50 and 97.5 %).

    Raises
    ------
    InputError
        If there is no case, or *draws* or *block_um* is not positive.
    """
    if not cases:
        raise InputError("no training case is left to draw tiles from; add a case")
    if draws < 1 or not block_um > 0:
        raise InputError(f"draws ({draws}) and block_um ({block_um:g}) must be positive")
    rng = np.random.default_rng(0) if rng is None else rng
    names = [(group, name) for group, members in groups.items() for name in members]
    scores = np.mean(
        [
            _bootstrap_scores(case, [name for _, name in names], draws, block_um, rng)
            for case in cases.values()
        ],
        axis=0,
    )
    owners = np.array([group for group, _ in names])
    frequency = np.zeros(len(names))
    for group in groups:
        members = np.flatnonzero(owners == group)
        part = np.where(np.isnan(scores[:, members]), -1.0, scores[:, members])
        decided = part.max(axis=1) >= 0
        chosen = np.bincount(part.argmax(axis=1)[decided], minlength=members.size)
        frequency[members] = chosen / draws
    with np.errstate(invalid="ignore"):
        low, middle, high = _quantiles(scores)
    return Table(
        {
            "group": owners,
            "parameter": np.array([name for _, name in names]),
            "frequency": frequency,
            "low": low,
            "middle": middle,
            "high": high,
        },
        about={
            "frequency": f"share of {draws} draws of blocks in which the parameter was chosen",
            "low": "2.5 % quantile of the score over the draws",
            "middle": "median of the score over the draws",
            "high": "97.5 % quantile of the score over the draws",
        },
    )


def _quantiles(scores: FloatArray) -> FloatArray:
    out = np.full((3, scores.shape[1]), np.nan)
    for index, column in enumerate(scores.T):
        known = column[np.isfinite(column)]
        if known.size:
            out[:, index] = np.quantile(known, [0.025, 0.5, 0.975])
    return out


def _bootstrap_scores(
    case: TileSample,
    names: Sequence[str],
    draws: int,
    block_um: float,
    rng: np.random.Generator,
) -> FloatArray:
    """(draws, parameters) mean of |Pearson| and |Spearman|; NaN where it is not defined."""
    from scipy.stats import rankdata

    weights = _drawn(case.centres_um, draws, block_um, rng)
    out = np.full((draws, len(names)), np.nan)
    y = np.asarray(case.uptake, float)
    for place, name in enumerate(names):
        x = np.asarray(case.columns.get(name, np.full(y.size, np.nan)), float)
        known = np.isfinite(x) & np.isfinite(y)
        if known.sum() < 3:
            continue
        w = weights[:, known]
        pearson = _weighted(w, x[known], y[known])
        spearman = _weighted(w, rankdata(x[known]), rankdata(y[known]))
        out[:, place] = (np.abs(pearson) + np.abs(spearman)) / 2
    return out


def _drawn(
    centres_um: FloatArray, draws: int, block_um: float, rng: np.random.Generator
) -> FloatArray:
    """(draws, n) how often each tile is drawn, whole blocks at a time."""
    cells = np.floor((centres_um - centres_um.min(axis=0)) / block_um).astype(np.int64)
    block: IntArray = np.unique(cells, axis=0, return_inverse=True)[1].ravel()
    n_blocks = int(block.max()) + 1
    times = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), draws)
    return np.asarray(times[:, block], float)


def _weighted(weights: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Pearson correlation of x and y for each row of weights; NaN without variance."""
    total = weights.sum(axis=1)
    x, y = x - x.mean(), y - y.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y = weights @ x / total, weights @ y / total
        xy = weights @ (x * y) / total - mean_x * mean_y
        xx = weights @ (x * x) / total - mean_x**2
        yy = weights @ (y * y) / total - mean_y**2
        floor = 1e-12 * np.mean(x * x), 1e-12 * np.mean(y * y)
        r = np.where((xx > floor[0]) & (yy > floor[1]), xy / np.sqrt(xx * yy), np.nan)
    return np.asarray(np.clip(r, -1.0, 1.0), float)
