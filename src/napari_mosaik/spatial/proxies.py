"""Which parameter stands for its group: the choice of proxies on training cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from napari_mosaik.core import InputError, Table

__all__ = ["ProxyChoice", "choose_proxies"]


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
        The cases that were looked at.
    leaking
        Whether a test case was among them.
    warnings
        Sentences for the user.
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
    """Choose in each group the parameter that goes best with the uptake over the cases.

    The score of a parameter is the mean of ``|Pearson|`` and ``|Spearman|`` over the cases.  A
    parameter that is defined in every case goes before one that is not; equal scores keep the
    order of the group.  A group of one parameter (the CAIX score) keeps it.

    Parameters
    ----------
    per_case
        Case to the table that `associate_table` returns for it.
    groups
        Group to the names of its parameters.
    rule
        "training" leaves *test_cases* out; "paper" looks at them too, as the paper did, and the
        choice is marked as leaking.
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
        place = np.flatnonzero(np.asarray(table["parameter"]) == name)
        pearson.append(float(table["pearson"][place[0]]) if place.size else float("nan"))
        spearman.append(float(table["spearman"][place[0]]) if place.size else float("nan"))
    return _Row(group, position, name, tuple(pearson), tuple(spearman))


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _ranking(rows: Sequence[_Row], cases: Sequence[str]) -> Table:
    columns = {
        "group": np.array([row.group for row in rows], dtype=str),
        "parameter": np.array([row.name for row in rows], dtype=str),
        "score": np.array([row.score if np.isfinite(row.score) else np.nan for row in rows]),
        "mean_pearson": np.array([_mean(row.pearson) for row in rows]),
        "mean_spearman": np.array([_mean(row.spearman) for row in rows]),
        "n_cases": np.array([len(cases) - row.missing for row in rows]),
    }
    for place, case in enumerate(cases):
        columns[f"pearson:{case}"] = np.array([row.pearson[place] for row in rows])
        columns[f"spearman:{case}"] = np.array([row.spearman[place] for row in rows])
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
        out.append("The choice has seen a test case: errors on it are too small.")
    opposite = [row.name for row in rows if row.signs_differ]
    if opposite:
        out.append(f"The sign of the correlation differs between cases for: {', '.join(opposite)}.")
    return tuple(out)
