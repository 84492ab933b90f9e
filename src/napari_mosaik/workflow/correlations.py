"""Correlations over the cases of a cohort, choice of proxies, and Moran's scatter plot."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.catalogue import (
    ASSOCIATION,
    CLUSTERS,
    PARAMETERS,
    TILES,
    UPTAKE,
    UPTAKE_CLUSTERS,
    label_column,
)
from napari_mosaik.core.errors import InputError, MosaikError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.table import Table
from napari_mosaik.io.case import Case
from napari_mosaik.workflow.leaks import case_labels, labels_of
from napari_mosaik.workflow.steps.spatial import LOCAL_MORAN

if TYPE_CHECKING:
    from napari_mosaik.spatial import ProxyChoice

__all__ = [
    "CAIX_SCORE",
    "MEASURED",
    "CohortCorrelations",
    "MoranPoints",
    "ParameterDescription",
    "choose_proxies_of",
    "cohort_correlations",
    "moran_points",
    "parameter_descriptions",
]

CAIX_SCORE = "caix_h_score"
"""The CAIX parameter that the network and the baselines use."""
MEASURED = "suv"
"""Name of the measured uptake among the parameters."""


@dataclass(frozen=True, slots=True, eq=False)
class CohortCorrelations:
    """Correlation of each parameter with the uptake, over the cases that have it.

    Attributes
    ----------
    tables
        Label of each case (`case_labels`) to its table; see `associate_table`.
    parameters
        All parameters, in the order of the catalogue.
    stability
        Bootstrap selection frequency of each parameter; see `selection_stability`.
    proxies
        Group to the parameter chosen on all these cases.
    warnings
        Warnings for the user.
    """

    tables: dict[str, Table]
    parameters: tuple[str, ...]
    stability: Table | None
    proxies: dict[str, str]
    warnings: tuple[str, ...]

    def of(self, case: Case) -> Table | None:
        """The table of a case; None if it has none."""
        return next((self.tables[one] for one in labels_of(case) if one in self.tables), None)

    def matrix(self, kind: str) -> FloatArray:
        """Coefficients "pearson" or "spearman" of shape (parameters, cases), dimensionless.

        NaN where a case lacks a parameter.
        """
        out = np.full((len(self.parameters), len(self.tables)), np.nan)
        for column, table in enumerate(self.tables.values()):
            known = {str(name): row for row, name in enumerate(table["parameter"])}
            for row, name in enumerate(self.parameters):
                if name in known:
                    out[row, column] = float(table[kind][known[name]])
        return out

    def mean(self, kind: str) -> FloatArray:
        """Mean over the cases, shape (parameters,), dimensionless; NaN where no case has one."""
        matrix = self.matrix(kind)
        known = np.isfinite(matrix)
        total = np.where(known, matrix, 0.0).sum(axis=1)
        with np.errstate(invalid="ignore"):
            return np.asarray(total / np.where(known.any(axis=1), known.sum(axis=1), np.nan), float)


@dataclass(frozen=True, slots=True, eq=False)
class MoranPoints:
    """One parameter of a case for the Moran scatter plot.

    Attributes
    ----------
    name, unit
        The parameter and its unit.
    z, lag
        (n,) standardised value of each tile and the mean of its neighbours, dimensionless; NaN
        where not tested.
    label
        (n,) codes 0 to 5.
    global_i
        Slope of the line through the centre: global Moran's I, if every tile has neighbours.
    summary
        Engine, version and counts as recorded with the labels; empty for older results.
    note
        Warnings about the parameter.
    """

    name: str
    unit: str
    z: FloatArray
    lag: FloatArray
    label: NDArray[np.int8]
    global_i: float
    summary: dict[str, Any]
    note: str


@dataclass(frozen=True, slots=True)
class ParameterDescription:
    """Title, unit, formula and meaning of one parameter."""

    name: str
    title: str
    unit: str
    formula: str
    meaning: str


def parameter_descriptions(table: Table | None) -> list[ParameterDescription]:
    """Description of each column of a table of tile parameters, user-defined classes included."""
    from napari_mosaik.features import PARAMETERS as CATALOGUE

    out = []
    for name in table or ():
        assert table is not None
        known = CATALOGUE.get(name)
        if known is None:
            about = table.about.get(name, "")
            out.append(
                ParameterDescription(name, name.replace("_", " "), table.unit(name), "", about)
            )
        else:
            out.append(
                ParameterDescription(name, known.title, known.unit, known.formula, known.meaning)
            )
    return out


def cohort_correlations(roots: Sequence[Path], *, draws: int = 500) -> CohortCorrelations:
    """Read the correlations of several cases; cases without them are excluded."""
    from napari_mosaik.features import PARAMETERS as CATALOGUE

    tables: dict[str, Table] = {}
    samples: dict[str, Any] = {}
    cases = [Case(root) for root in roots]
    for case, label in zip(cases, case_labels(cases), strict=True):
        try:
            if case.store.origin(ASSOCIATION) is None:
                continue
            tables[label] = case.store.read(ASSOCIATION)
            samples[label] = _sample(case)
        except MosaikError:
            tables.pop(label, None)
    occurring = {str(name) for table in tables.values() for name in table["parameter"]}
    order = [name for name in CATALOGUE if name in occurring]
    names = (*order, *sorted(occurring - set(order)))
    if not tables:
        return CohortCorrelations({}, names, None, {}, ())
    return CohortCorrelations(tables, names, *_choice(tables, samples, draws))


def choose_proxies_of(cases: Sequence[Case], without: Collection[str] = ()) -> ProxyChoice:
    """The vascular and nuclear parameter best correlated with the uptake, and the CAIX score.

    None of the groups *without*.
    """
    from napari_mosaik.spatial import choose_proxies

    tables = {case.name: case.store.read(ASSOCIATION) for case in cases}
    groups = {name: own for name, own in proxy_groups().items() if name not in without}
    return choose_proxies(tables, groups)


def proxy_groups() -> dict[str, tuple[str, ...]]:
    """Groups of parameters; one proxy is chosen from each."""
    from napari_mosaik.features import parameters_of

    return {
        "vascular": parameters_of("vascular"),
        "nuclear": parameters_of("nuclear"),
        "caix": (CAIX_SCORE,),
    }


def _choice(
    tables: dict[str, Table], samples: dict[str, Any], draws: int
) -> tuple[Table | None, dict[str, str], tuple[str, ...]]:
    from napari_mosaik.spatial import choose_proxies, selection_stability

    groups = proxy_groups()
    try:
        chosen = choose_proxies(tables, groups)
        stability = selection_stability(samples, groups, draws=draws)
    except InputError as error:
        return None, {}, (str(error),)
    return stability, chosen.proxies, chosen.warnings


def _sample(case: Case) -> Any:
    from napari_mosaik.spatial import TileSample

    grid, table = case.store.read(TILES), case.store.read(PARAMETERS)
    columns = {name: np.asarray(table[name], float) for name in table}
    uptake = np.asarray(case.store.read(UPTAKE)["suv"], float)
    if len(table) != len(grid) or uptake.size != len(grid):
        raise InputError(
            f"case {case.name}: parameters and uptake are of different tiles; run the case again"
        )
    return TileSample(columns, uptake, grid.centres_um)


def moran_points(case: Case, name: str) -> MoranPoints:
    """Moran scatter plot and labels of one parameter ("suv" for the measured uptake).

    Raises
    ------
    InputError
        If the parameter has no labels, cannot be tested, or belongs to other tiles.
    """
    from napari_mosaik.spatial import TileGraph, moran_scatter

    grid = case.store.read(TILES)
    values_in, labels_in = (UPTAKE, UPTAKE_CLUSTERS) if name == MEASURED else (PARAMETERS, CLUSTERS)
    table, labels = case.store.read(values_in), case.store.read(labels_in)
    column = label_column(name)
    if column not in tuple(labels) or len(labels) != len(grid) or len(table) != len(grid):
        raise InputError(
            "the clusters are of other tiles or parameters; run the step 'Clusters' again"
        )
    z, lag, global_i = moran_scatter(np.asarray(table[name], float), TileGraph.moore(grid))
    summary = (case.store.record(labels_in).get(LOCAL_MORAN) or {}).get(name, {})
    label = np.asarray(labels[column], np.int8)
    note = str(summary.get("problem", "")) or " ".join(summary.get("warnings", ()))
    return MoranPoints(name, table.unit(name), z, lag, label, global_i, summary, note)
