"""Uptake: the SUV of the PET, per tile, its sensitivity to position, and its prediction."""

from __future__ import annotations

import numpy as np

from napari_mosaik.core import palette
from napari_mosaik.core.catalogue import (
    INPUT_SPREAD,
    INPUT_SPREAD_RECORD,
    METRICS,
    PREDICTION,
    PREDICTION_MAP,
    STAIN_TITLES,
    SUV,
    SUV_RECORD,
    UPTAKE,
    UPTAKE_SENSITIVITY,
)
from napari_mosaik.view import maps
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.formatting import count, number, percent
from napari_mosaik.view.report.html import ReportTable
from napari_mosaik.view.spec import LayerSpec
from napari_mosaik.view.step_view import PanelKind, StepView
from napari_mosaik.view.tile_data import SPREAD_WORDS, spread_lines
from napari_mosaik.view.uptake_scale import pet_layers, uptake_limits
from napari_mosaik.workflow.steps import maker_of

_TOTALS = {
    "factor": "SUV per activity concentration",
    "mean": "mean of the PET slice",
    "maximum": "maximum of the PET slice",
}


def _pet_layers(results: CaseResults, choice: str) -> list[LayerSpec]:
    return pet_layers(results)


def _suv_line(results: CaseResults) -> str:
    record = results.read(SUV_RECORD)
    unit = str(record.get("unit", ""))
    return f"SUV mean {number(record.get('mean'))}, maximum {number(record.get('maximum'), unit)}"


def _suv_report(results: CaseResults) -> list[ReportTable]:
    record = results.get(SUV_RECORD)
    if record is None:
        return []
    rows: list[tuple[object, ...]] = [
        (term["label"], term["value"], term["unit"], term["source"])
        for term in record.get("terms", ())
    ]
    for key, title in _TOTALS.items():
        if key in record:
            unit = "" if key == "factor" else record.get("unit", "")
            rows.append((title, record[key], unit, record.get("formula", "")))
    note = " ".join(record.get("assumptions", ()))
    return [ReportTable("SUV inputs", ("term", "value", "unit", "source"), tuple(rows), note)]


def _uptake_layers(results: CaseResults, choice: str) -> list[LayerSpec]:
    """Measured and predicted uptake, their difference, and the smoothed prediction."""
    measured = results.painted(UPTAKE, "suv")
    predicted = results.painted(PREDICTION, "suv")
    same = measured is None or predicted is None or measured.unit == predicted.unit
    limits = uptake_limits(results) if same else None
    specs = maps.uptake_layers(measured, predicted, limits=limits)
    if measured is not None and predicted is not None and same:
        specs.append(maps.difference_layer(measured, predicted))
    smooth = results.get(PREDICTION_MAP)
    if smooth is not None:
        title = "Predicted uptake, smoothed"
        colours = palette.UPTAKE_COLORMAP
        specs.append(maps.parameter_layer(smooth, title, limits=limits, colormap=colours))
    return specs


def _uptake_line(results: CaseResults) -> str:
    table = results.read(UPTAKE)
    values = np.asarray(table["suv"], float)
    known = int(np.isfinite(values).sum())
    mean = number(float(np.nanmean(values)) if known else None, table.unit("suv"))
    outside = values.size - known
    line = f"{count(known, 'tile')} measured, mean SUV {mean}"
    return line + (f"; {count(outside, 'tile')} outside the PET" if outside else "")


def _sensitivity_layers(results: CaseResults, choice: str) -> list[LayerSpec]:
    change = results.painted(UPTAKE_SENSITIVITY, "change")
    return [] if change is None else [maps.sensitivity_layer(change)]


def _sensitivity_line(results: CaseResults) -> str:
    table = results.read(UPTAKE_SENSITIVITY)
    change, share = (np.asarray(table[name], float) for name in ("change", "share"))
    if not np.isfinite(share).any():
        return "no tile lies within the PET"
    middle = number(float(np.nanmedian(change)), table.unit("change"))
    part = percent(float(np.nanmedian(share)))
    return f"shift sensitivity {middle} ({part}), median over the tiles"


def _review_line(results: CaseResults) -> str:
    metrics = results.read(METRICS)
    error = number(metrics["suv_norm"]["mae"])
    mean = (metrics["baselines"].get("mean") or {}).get("mae")
    baseline = f" (training mean {number(mean)})" if mean is not None else ""
    optimistic = ", optimistic (development case)" if metrics.get("development") else ""
    return f"mean absolute error {error}{baseline}, normalised SUV{optimistic}"


SUV_VIEW = StepView(
    step=maker_of(SUV),
    layers=_pet_layers,
    result_line=_suv_line,
    report=_suv_report,
    panel=PanelKind.SUV_TERMS,
)
UPTAKE_VIEW = StepView(step=maker_of(UPTAKE), layers=_uptake_layers, result_line=_uptake_line)
SENSITIVITY_VIEW = StepView(
    step=maker_of(UPTAKE_SENSITIVITY), layers=_sensitivity_layers, result_line=_sensitivity_line
)
PREDICTION_VIEW = StepView(
    step=maker_of(PREDICTION), layers=_uptake_layers, panel=PanelKind.PREDICTOR
)


def _spread_layers(results: CaseResults, choice: str) -> list[LayerSpec]:
    drawn = results.painted(INPUT_SPREAD, "suv_input_sd")
    return [] if drawn is None else [maps.input_spread_layer(drawn)]


def _spread_line(results: CaseResults) -> str:
    record = results.read(INPUT_SPREAD_RECORD)
    lines = spread_lines({"input_spread": record})
    return lines[0] if lines else "off: give a number of draws, 24 for example, and run"


def _spread_report(results: CaseResults) -> list[ReportTable]:
    """What the errors of the inputs do to prediction and measurement, source by source."""
    found = {"input_spread": results.get(INPUT_SPREAD_RECORD)}
    found["measured_spread"] = results.metrics.get("measured_spread")
    rows: list[tuple[object, ...]] = []
    for key, record in found.items():
        words = "prediction" if key == "input_spread" else "measured SUV"
        if not record or "shares" not in record:
            continue
        for name, title in _SPREAD_FIGURES.items():
            rows.append((words, title, number(record[name])))
        for name, share in record["shares"].items():
            title = f"share: {SPREAD_WORDS[key].get(name, name)}"
            rows.append((words, title, percent(share)))
        errors = record["registration"]
        for slide, one in ({"PET": errors} if "sd_um" in errors else errors).items():
            section = STAIN_TITLES.get(slide, slide)
            title = f"{section}: SD of the registration along an axis, from {one['from']}"
            rows.append((words, title, number(one["sd_um"], "µm")))
    note = (
        "Normalised SUV. Inputs are drawn within their errors, the model is the same: no "
        "interval, and no error of the model."
    )
    columns = ("of", "figure", "value")
    return [ReportTable("Spread from the inputs", columns, tuple(rows), note)] if rows else []


_SPREAD_FIGURES = {
    "sd_median": "SD of a tile, median",
    "sd_p95": "SD of a tile, 95th percentile",
    "sd_slide_mean": "SD of the mean of the slide",
}
SPREAD_VIEW = StepView(
    step=maker_of(INPUT_SPREAD),
    layers=_spread_layers,
    result_line=_spread_line,
    report=_spread_report,
)
REVIEW_VIEW = StepView(step=maker_of(METRICS), result_line=_review_line)
