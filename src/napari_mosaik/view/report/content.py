"""What a case's report contains: summary, metrics, tables, checks and provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from napari_mosaik.annotate.visual_qa import Interval, QaSummary
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    DAMAGED,
    PREDICTION_RECORD,
    STAIN_FIT,
    STAIN_TITLES,
    STAINING,
    SUV_RECORD,
    TILES,
    TISSUE,
    UPTAKE,
    VESSELS,
)
from napari_mosaik.io.case import Case
from napari_mosaik.io.slide.types.damage import summary
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.formatting import count, number, uptake_name
from napari_mosaik.view.presentation import report_tables
from napari_mosaik.view.report.figures import case_figures
from napari_mosaik.view.report.html import (
    ReportData,
    ReportMetrics,
    ReportTable,
    StepState,
    build_report,
)
from napari_mosaik.view.report.validation import case_checks

__all__ = ["case_report", "checks_table", "gather_report", "qa_line"]

_SPACE = "\N{NO-BREAK SPACE}"
"""Keeps a number and its unit on one line."""
_LIBRARIES = (
    "napari-mosaik",
    "numpy",
    "scipy",
    "scikit-image",
    "scikit-learn",
    "torch",
    "monai",
    "libpysal",
    "esda",
    "numba",
    "tifffile",
    "openslide-python",
    "pydicom",
)


def case_report(
    case: Case, states: Sequence[StepState] = (), checks: Sequence[Mapping[str, Any]] = ()
) -> str:
    """The report of a case as HTML, from its stored results.

    Parameters
    ----------
    case
        The opened case; what is not computed yet is said to be missing.
    states
        Where each step stands; the workflow knows.
    checks
        What readers found when they checked segmentations by eye (`workflow.segmentation_qa`).
    """
    return build_report(gather_report(case, states, checks))


def gather_report(
    case: Case, states: Sequence[StepState] = (), checks: Sequence[Mapping[str, Any]] = ()
) -> ReportData:
    """Everything that the report of a case shows, from what is stored; nothing is computed anew.

    Parameters
    ----------
    case
        The opened case.
    states
        Where each step stands, as the workflow judges it; left out of the report when empty.
    checks
        Checks of segmentations by eye; left out when there are none.
    """
    results = CaseResults(case)
    record = results.get(PREDICTION_RECORD) or {}
    tables, qa = report_tables(results), checks_table(checks)
    return ReportData(
        case=case.name,
        patient=case.patient,
        made=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        summary=_summary(results),
        states=tuple(states),
        metrics=_metrics(results),
        tables=(*tables, *(() if qa is None else (qa,))),
        figures=case_figures(results),
        warnings=_warnings(results),
        checks=case_checks(results),
        provenance=_provenance(results),
        shared_patient=bool(record.get("shared_patient", False)),
        seen_in_training=bool(record.get("seen_in_training", False)),
    )


def _summary(results: CaseResults) -> tuple[tuple[str, str], ...]:
    grid, uptake = results.get(TILES), results.get(UPTAKE)
    record = results.get(PREDICTION_RECORD) or {}
    lines = []
    if grid is not None:
        inner = int(np.sum(grid.inner))
        words = f"{count(len(grid), 'tile')} of {number(grid.size_um, 'µm')}, {inner} inner"
        lines.append(("tiles", words))
    if uptake is not None:
        suv = np.asarray(uptake["suv"], float)
        known = suv[np.isfinite(suv)]
        middle = number(float(np.median(known)) if known.size else None, uptake.unit("suv"))
        lines.append((f"measured {uptake_name(uptake.unit('suv'))}", f"median {middle}"))
        lines.append(("tiles without measured uptake", str(int(suv.size - known.size))))
    if record:
        lines.append(("trained on", ", ".join(record.get("training_cases", ())) or "not recorded"))
        lines.append(("split", f"by {record.get('split', 'unknown')}"))
    return tuple(lines)


def _metrics(results: CaseResults) -> tuple[ReportMetrics, ...]:
    metrics = results.metrics
    if not metrics:
        return ()
    baselines = {name: values or {} for name, values in metrics.get("baselines", {}).items()}
    agreement = {
        key: value
        for key, value in metrics.get("agreement", {}).items()
        if not isinstance(value, dict)
    }
    note = f"{count(metrics['n_tiles'], 'tile')}; neighbouring tiles are not independent."
    return (
        ReportMetrics(
            "Normalised SUV, tile level", {**metrics["suv_norm"], **agreement}, baselines, note
        ),
        ReportMetrics(f"SUV in {results.unit}, tile level", metrics["suv_bsa"], {}, note),
    )


def _warnings(results: CaseResults) -> tuple[str, ...]:
    found: list[str] = [
        summary(record, STAIN_TITLES[stain]) for stain, record in _damaged(results).items()
    ]
    found += _about_stains(results)
    for artifact in ALIGNMENT.values():
        found += (results.get(artifact) or {}).get("warnings", ())
    found += (results.get(SUV_RECORD) or {}).get("warnings", ())
    found += (results.get(PREDICTION_RECORD) or {}).get("warnings", ())
    record = results.get(PREDICTION_RECORD) or {}
    if record.get("seen_in_training"):
        found.append("This case was used in training: its errors say nothing about new cases.")
    if record:
        found.append(
            "Few patients stand behind the predictor: no claim about other patients is supported."
        )
    return tuple(dict.fromkeys(map(str, found)))


def _about_stains(results: CaseResults) -> list[str]:
    """What the colours of a slide made the vessel and the stain step say."""
    records = (("CD34", VESSELS), ("H&E", STAIN_FIT))
    return [
        f"{title}: {text}"
        for title, artifact in records
        for text in (results.case.store.record(artifact).get(STAINING) or {}).get("warnings", ())
    ]


def _damaged(results: CaseResults) -> dict[str, dict[str, Any]]:
    """What was left out of each slide because its tiles are damaged."""
    store = results.case.store
    records = {stain: store.record(artifact).get(DAMAGED) for stain, artifact in TISSUE.items()}
    return {stain: record for stain, record in records.items() if record and record["count"]}


def _provenance(results: CaseResults) -> dict[str, dict[str, object]]:
    store = results.case.store
    made: dict[str, object] = {}
    settings: dict[str, object] = {}
    for artifact in results.present():
        origin, record = store.origin(artifact), store.record(artifact)
        if origin is None:
            continue
        made[artifact.name] = (
            f"step {origin.step}, revision {origin.revision}, origin {origin.digest()[:12]}, "
            f"version {record.get('version', 'unknown')}, {record.get('time', 'time unknown')}"
        )
        for name, value in record.get("params", {}).items():
            settings[f"{origin.step}.{name}"] = "not set" if value in (None, "") else value
    return {"Versions": _versions(), "Results": made, "Settings": settings}


def _versions() -> dict[str, object]:
    found: dict[str, object] = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def qa_line(summary: QaSummary) -> str:
    """What a check says so far, in words."""
    lines = []
    judged = summary.correct + summary.wrong
    if summary.false_rate is not None:
        lines.append(f"wrong: {summary.wrong} of {judged}, {_percent(summary.false_rate)}")
    if summary.unsure:
        lines.append(f"unsure: {summary.unsure}")
    if summary.miss_rate is not None:
        seen = summary.detected + summary.missed
        lines.append(f"missed: {summary.missed} of {seen}, {_percent(summary.miss_rate)}")
    if summary.overall_rating:
        lines.append(f"overall rating: {summary.overall_rating}")
    return "\n".join(lines) or "nothing rated yet"


def _percent(rate: Interval) -> str:
    low, high = 100 * rate.low, 100 * rate.high
    return (
        f"{100 * rate.estimate:.1f}{_SPACE}% "
        f"(95{_SPACE}% interval {low:.1f} to {high:.1f}{_SPACE}%)"
    )


def checks_table(checks: Sequence[Mapping[str, Any]]) -> ReportTable | None:
    """The checks of a case as a table of the report; None when there are none."""
    rows = tuple(
        (
            check["what"],
            check["reader"],
            check["state"],
            check["correct"] + check["wrong"],
            _share(check, "false"),
            _share(check, "miss"),
            check["overall_rating"] or "none yet",
            check["comment"],
        )
        for check in checks
    )
    columns = (
        "segmentation",
        "reader",
        "of",
        "objects rated",
        "wrong (95 % interval)",
        "missed (95 % interval)",
        "overall rating",
        "comment",
    )
    note = (
        "Objects were drawn at random; missed ones were counted in tiles drawn at random, as a "
        "share of found and missed ones. A check of an earlier result does not speak "
        "for the present one."
    )
    return ReportTable("Segmentations checked by eye", columns, rows, note) if rows else None


def _share(check: Mapping[str, Any], name: str) -> str:
    estimate, low, high = (check[f"{name}_rate_{part}"] for part in ("estimate", "low", "high"))
    if estimate is None:
        return "not known"
    return _percent(Interval(estimate, low, high)).replace(f"95{_SPACE}% interval ", "")
