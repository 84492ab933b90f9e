"""Kinetics: what the images determine, shares of the variance, and the page with sliders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_mosaik.core import Artifact
from napari_mosaik.core.catalogue import (
    KINETICS,
    KINETICS_RECORD,
    TILE_KINETICS,
    TILE_KINETICS_RECORD,
)
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.formatting import share_words, unit_words
from napari_mosaik.view.report.html import ReportTable
from napari_mosaik.view.step_view import PanelKind, StepView
from napari_mosaik.workflow.steps import maker_of

_RECORDS = {"patient": KINETICS_RECORD, "delivery per tile": TILE_KINETICS_RECORD}


def _record(results: CaseResults, artifact: Artifact[Any]) -> Mapping[str, Any] | None:
    """A record of diagnostics; None without one."""
    found = results.get(artifact)
    return None if not found or "not_available" in found else found


def _line(results: CaseResults, artifact: Artifact[Any]) -> str:
    record = _record(results, artifact)
    if record is None:
        return "not judged"
    names = [p["label"] for p in record["parameters"] if p["determined"]]
    return f"determined by the images: {', '.join(names) or 'no parameter'}"


def _parameters(results: CaseResults, model: str) -> list[ReportTable]:
    record = _record(results, _RECORDS[model])
    if record is None:
        return []
    rows = tuple(
        (
            f"{p['label']} ({model})",
            unit_words(p["unit"]),
            p["value"],
            p["prior_factor"],
            p["posterior_factor"],
            "determined" if p["determined"] else "prior only",
        )
        for p in record["parameters"]
    )
    columns = ("parameter", "unit", "value", "prior: ÷ and ×", "after images: ÷ and ×", "verdict")
    times = ", ".join(f"{t:g}" for t in record["imaging_h"])
    note = (
        f"Images at {times} h with an error of {100 * record['image_error']:.3g} %. A parameter is "
        "determined if they narrow its prior to half or less; the priors are illustrative."
    )
    return [ReportTable("Kinetic parameters", columns, rows, note)]


def _tile_report(results: CaseResults) -> list[ReportTable]:
    tables, record = _parameters(results, "delivery per tile"), _record(results, _RECORDS[_TILE])
    if record is None:
        return tables
    sobol = record["sobol"]
    kinds = [f"{name}{end}" for name in ("first", "total") for end in ("", "_low", "_high")]
    rows = tuple(
        (label, *(share_words(sobol[kind][-1][place]) for kind in kinds))
        for place, label in enumerate(sobol["labels"])
    )
    columns = ("parameter", "alone", "low", "high", "with interactions", "low", "high")
    note = (
        f"Share of the variance of the antibody retained at {record['imaging_h'][-1]:g} h over the "
        f"priors (Sobol, {sobol['samples']} samples, 95 % intervals by bootstrap), in "
        "antigen-positive tissue with the median vessel surface of the tiles."
    )
    return [*tables, ReportTable("Sensitivity of the delivery", columns, rows, note)]


_TILE = "delivery per tile"

CURVES_VIEW = StepView(
    step=maker_of(KINETICS),
    result_line=lambda results: _line(results, KINETICS_RECORD),
    report=lambda results: _parameters(results, "patient"),
    panel=PanelKind.KINETICS,
)
TILE_CURVES_VIEW = StepView(
    step=maker_of(TILE_KINETICS),
    result_line=lambda results: _line(results, TILE_KINETICS_RECORD),
    report=_tile_report,
)
