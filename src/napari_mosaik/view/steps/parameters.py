"""Parameters of the tiles: maps, clusters, correlation with the uptake."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from napari_mosaik.core.catalogue import (
    ASSOCIATION,
    CLUSTERS,
    MAPS,
    PARAMETERS,
    TILES,
    UPTAKE_CLUSTERS,
    label_column,
)
from napari_mosaik.view import maps
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.formatting import count, heading, unit_words
from napari_mosaik.view.report.html import ReportTable
from napari_mosaik.view.spec import LayerSpec
from napari_mosaik.view.step_view import PanelKind, StepView
from napari_mosaik.workflow.correlations import MEASURED
from napari_mosaik.workflow.steps import maker_of


def _line(results: CaseResults) -> str:
    table = results.read(PARAMETERS)
    return count(len(tuple(table)), "parameter") + " per tile"


def _report(results: CaseResults) -> list[ReportTable]:
    table = results.get(PARAMETERS)
    if table is None:
        return []
    rows = []
    for name in table:
        values = np.asarray(table[name], float)
        known = values[np.isfinite(values)]
        quartiles = np.percentile(known, (25, 50, 75)) if known.size else (None, None, None)
        unit = table.unit(name)
        rows.append((heading(name), unit_words(unit), *quartiles, int(known.size)))
    columns = ("parameter", "unit", "lower quartile", "median", "upper quartile", "tiles")
    return [ReportTable("Tile parameters", columns, tuple(rows))]


def _mapped(results: CaseResults) -> tuple[str, ...]:
    maps = results.get(MAPS)
    return () if maps is None else maps.channels


def _map_layers(results: CaseResults, choice: str) -> list[LayerSpec]:
    raster, names = results.get(MAPS), _mapped(results)
    if raster is None or not names:
        return []
    name = choice if choice in names else names[0]
    table = results.get(PARAMETERS)
    unit = "" if table is None else table.unit(name)
    return [maps.parameter_layer(raster.channel(name), name, unit=unit)]


def _tested(results: CaseResults) -> tuple[str, ...]:
    """Parameters that have cluster labels."""
    suffix = label_column("")
    table = results.get(CLUSTERS)
    names = (name for name in table or () if name.endswith(suffix))
    return tuple(name.removesuffix(suffix) for name in names)


def _cluster_layers(results: CaseResults, choice: str) -> list[LayerSpec]:
    names, grid, table = _tested(results), results.get(TILES), results.get(CLUSTERS)
    if not names or grid is None or table is None:
        return []
    name = choice if choice in names else names[0]
    return [maps.clusters_layer(grid, table[label_column(name)], name)]


def _cluster_line(results: CaseResults) -> str:
    return f"{count(len(_tested(results)), 'parameter')} tested"


def _uptake_cluster_layers(results: CaseResults, choice: str) -> list[LayerSpec]:
    table, grid = results.get(UPTAKE_CLUSTERS), results.get(TILES)
    if table is None or grid is None:
        return []
    layer = maps.clusters_layer(grid, table[label_column(MEASURED)], "measured SUV")
    return [replace(layer, result=UPTAKE_CLUSTERS.name)]


def _correlation_report(results: CaseResults) -> list[ReportTable]:
    table = results.get(ASSOCIATION)
    if table is None:
        return []
    keys = ("n", "pearson", "ess_pearson", "p_dutilleul_pearson", "p_msr_pearson", "spearman")
    rows = [
        (heading(str(name)), *(_plain(table[key][i]) for key in keys))
        for i, name in enumerate(table["parameter"])
    ]
    columns = (
        "parameter",
        "tiles",
        "Pearson r",
        "effective sample size",
        "p (Dutilleul)",
        "p (Moran spectral)",
        "Spearman ρ",
    )
    note = (
        "The p-values are corrected for spatial autocorrelation. Those that take tiles for "
        "independent are far too small and are not reported."
    )
    return [ReportTable("Correlation with the measured uptake", columns, tuple(rows), note)]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


PARAMETERS_VIEW = StepView(
    step=maker_of(PARAMETERS), result_line=_line, report=_report, panel=PanelKind.CORRELATIONS
)
MAPS_VIEW = StepView(
    step=maker_of(MAPS), layers=_map_layers, choices=_mapped, choice_title="Parameter map"
)
ASSOCIATION_VIEW = StepView(step=maker_of(ASSOCIATION), report=_correlation_report)
CLUSTERS_VIEW = StepView(
    step=maker_of(CLUSTERS),
    layers=_cluster_layers,
    result_line=_cluster_line,
    choices=_tested,
    choice_title="Clusters of",
    panel=PanelKind.CLUSTERS,
)
UPTAKE_CLUSTERS_VIEW = StepView(step=maker_of(UPTAKE_CLUSTERS), layers=_uptake_cluster_layers)
