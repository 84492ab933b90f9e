"""The figures of a case's report, as far as its results go."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_mosaik.core import FloatArray, MosaikError
from napari_mosaik.core.catalogue import (
    ASSOCIATION,
    CLUSTER_NAMES,
    CLUSTERS,
    KINETICS,
    MAPS,
    PARAMETERS,
    PREDICTION,
    PREDICTION_MAP,
    SLIDES,
    SUV,
    TILES,
    TISSUE,
    UPTAKE,
    UPTAKE_CLUSTERS,
)
from napari_mosaik.view import plots
from napari_mosaik.view.colours import UPTAKE_COLORMAP
from napari_mosaik.view.formatting import heading, title_of, uptake_name
from napari_mosaik.view.maps import common_limits
from napari_mosaik.view.report import panels
from napari_mosaik.view.report.case_results import CaseResults
from napari_mosaik.view.report.html import ReportFigure

__all__ = ["case_figures"]

_THUMBNAIL_UM = 20.0
_IMAGING_H = (72.0, 120.0, 168.0, 336.0)


def case_figures(results: CaseResults) -> tuple[ReportFigure, ...]:
    """The figures that the case's results allow, in the order of the report."""
    makers = (_maps, _scatter, _bland_altman, _by_class, _by_cluster, _correlation, _kinetics)
    figures = [_board(results)]
    figures += [figure for figure in (make(results) for make in makers) if figure is not None]
    return tuple(figures)


def _board(results: CaseResults) -> ReportFigure:
    pet, predicted = _uptake_panels(results)
    figure = panels.result_board(
        results.case.name,
        thumbnail=_thumbnail(results),
        tissue=_tissue(results),
        parameters=[_parameter(results, name) for name in results.proxies()],
        pet=pet,
        predicted=predicted,
    )
    text = "Sections and maps lie in the frame of the CD34 section, the H&E section in its own."
    return ReportFigure("Result board.", figure, text, wide=True)


def _thumbnail(results: CaseResults) -> panels.Panel:
    title = "H&E section"
    lack = results.case.lacks(SLIDES["he"])
    if lack:
        return panels.missing_panel(title, lack)
    try:
        with results.case.slide("he") as slide:
            picture = slide.thumbnail(max(_THUMBNAIL_UM, min(slide.lattice.extent_um) / 400))
    except MosaikError as error:
        return panels.missing_panel(title, str(error))
    return panels.picture_panel(title, picture.values, picture.lattice)


def _tissue(results: CaseResults) -> panels.Panel | None:
    mask = results.get(TISSUE["cd34"])
    if mask is None:
        return None
    inside = np.nan_to_num(np.asarray(mask.values, float)) > 0.5
    return panels.picture_panel("tissue mask", inside, mask.lattice)


def _parameter(results: CaseResults, name: str) -> tuple[panels.Panel, panels.Panel]:
    title = title_of(name)
    empty = panels.missing_panel(title, "not computed yet")
    maps, table, grid = results.get(MAPS), results.get(PARAMETERS), results.get(TILES)
    codes = results.column(CLUSTERS, f"{name}.label")
    drawn, clusters = empty, panels.missing_panel(f"clusters of {title}", "not computed yet")
    if maps is not None and name in maps.channels:
        unit = "" if table is None else table.unit(name)
        drawn = panels.map_panel(maps.channel(name), title, unit=unit)
    if codes is not None:
        clusters = panels.cluster_panel(grid, codes.astype(int), name)
    return drawn, clusters


def _uptake_panels(results: CaseResults) -> tuple[panels.Panel | None, panels.Panel | None]:
    """The PET and the predicted map on one scale."""
    suv, predicted = results.get(SUV), results.get(PREDICTION_MAP)
    measured = suv
    if suv is not None and predicted is not None:
        measured = results.onto_tissue(suv, "pet", predicted) or suv
    shown = [raster for raster in (measured, predicted) if raster is not None]
    limits = common_limits(*(raster.values for raster in shown))
    drawn = [
        None
        if raster is None
        else panels.map_panel(
            raster,
            f"{word} {uptake_name(raster.unit)}",
            colormap=UPTAKE_COLORMAP,
            limits=limits,
        )
        for word, raster in (("measured", measured), ("predicted", predicted))
    ]
    return drawn[0], drawn[1]


def _pairs(results: CaseResults) -> tuple[FloatArray, FloatArray] | None:
    measured, predicted = results.column(UPTAKE, "suv"), results.column(PREDICTION, "suv")
    return None if measured is None or predicted is None else (measured, predicted)


def _maps(results: CaseResults) -> ReportFigure | None:
    pairs, grid = _pairs(results), results.get(TILES)
    if pairs is None:
        return None
    measured, predicted = (grid.paint(values, results.unit) for values in pairs)
    figure = panels.panels_figure(panels.uptake_panels(measured, predicted))
    return ReportFigure(
        "Measured, predicted, difference.",
        figure,
        "One square per tile. The first two share a scale; red tiles are predicted too high.",
        wide=True,
    )


def _scatter(results: CaseResults) -> ReportFigure | None:
    pairs = _pairs(results)
    if pairs is None:
        return None
    return ReportFigure(
        "Predicted against measured uptake.",
        plots.scatter_figure(*pairs, results.unit),
        "One point per tile. The PET's resolution spans several tiles, so that neighbouring "
        "points are not independent.",
    )


def _bland_altman(results: CaseResults) -> ReportFigure | None:
    pairs = _pairs(results)
    if pairs is None:
        return None
    figure = plots.bland_altman_figure(*pairs, results.unit)
    return ReportFigure("Bland-Altman plot.", figure, "Bias and limits of agreement over tiles.")


def _by_class(results: CaseResults) -> ReportFigure | None:
    pairs, share = _pairs(results), results.column(PARAMETERS, "neoplastic_fraction")
    if pairs is None or share is None:
        return None
    error = pairs[1] - pairs[0]
    groups = {
        "mostly neoplastic": error[share >= 0.5],
        "mostly non-neoplastic": error[share < 0.5],
        "not classified": error[np.isnan(share)],
    }
    figure = plots.error_by_group_figure(groups, results.unit, what="tissue of the tile")
    return ReportFigure("Error by tissue class.", figure)


def _by_cluster(results: CaseResults) -> ReportFigure | None:
    pairs, codes = _pairs(results), results.column(UPTAKE_CLUSTERS, "suv.label")
    if pairs is None or codes is None:
        return None
    error = pairs[1] - pairs[0]
    groups = {name: error[codes == code] for code, name in CLUSTER_NAMES.items()}
    figure = plots.error_by_group_figure(
        groups, results.unit, what="cluster of the measured uptake"
    )
    return ReportFigure("Error by cluster.", figure)


def _correlation(results: CaseResults) -> ReportFigure | None:
    table = results.get(ASSOCIATION)
    if table is None or not len(table):
        return None
    names = [str(name) for name in table["parameter"]]
    matrix = table.matrix(["pearson", "spearman"])
    figure = plots.correlation_figure(matrix, names, ["Pearson", "Spearman"], "Correlation")
    return ReportFigure(
        "Correlation of each parameter with the measured uptake.",
        figure,
        "Within this case only; red is positive, the reverse of the MOSAIK paper's palette.",
    )


def _kinetics(results: CaseResults) -> ReportFigure | None:
    table: Any = results.get(KINETICS)
    if table is None:
        return None
    curves = {name: table[f"{name}_um"] for name in ("free", "bound", "internalised")}
    time = np.asarray(table["time_h"], float)
    shown = [hour for hour in _IMAGING_H if hour <= time.max()]
    figure = plots.kinetics_figure(time, curves, shown, title=heading(results.case.patient))
    return ReportFigure(
        "Kinetics of the antibody.",
        figure,
        "One set of curves per patient, the same for all tiles.",
    )
