"""What a case's report contains: summary, metrics, tables, checks and provenance."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from napari_mosaik.annotate.visual_qa import Interval, QaSummary
from napari_mosaik.core import CorruptArtifact, InputError, MosaikError
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    COMPUTED_ON,
    DAMAGED,
    PREDICTION_RECORD,
    STAIN_FIT,
    STAIN_TITLES,
    STAINING,
    SUV,
    SUV_RECORD,
    TILES,
    TISSUE,
    UPTAKE,
    VESSELS,
)
from napari_mosaik.io.case import Case
from napari_mosaik.io.files import write_bytes
from napari_mosaik.io.slide.types.damage import damage_summary
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.formatting import by_error, count, interval, number, uptake_name
from napari_mosaik.view.presentation import report_tables
from napari_mosaik.view.report.dose import dose_limitations, dose_tables, dose_warnings
from napari_mosaik.view.report.figures import case_figures
from napari_mosaik.view.report.html import (
    ReportData,
    ReportMetrics,
    ReportTable,
    StepState,
    build_report,
)
from napari_mosaik.view.report.pdf import build_pdf
from napari_mosaik.view.report.twin import twin_limitations, twin_tables, twin_warnings
from napari_mosaik.view.report.validation import SPACING_SOURCES, case_checks
from napari_mosaik.view.tile_data import prediction_gaps
from napari_mosaik.workflow.case_status import case_status
from napari_mosaik.workflow.cohort import DEFAULT_FWHM_MM
from napari_mosaik.workflow.leaks import development_warning
from napari_mosaik.workflow.segmentation_qa import qa_records
from napari_mosaik.workflow.steps import STEPS
from napari_mosaik.workflow.twin import begun_twin

__all__ = ["case_report", "gather_report", "qa_line", "qa_table", "write_case_report"]

_SPACE = "\N{NO-BREAK SPACE}"
"""Keeps a number and its unit on one line."""
_WHERE = ("device", "precision")
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


def case_report(case: Case) -> str:
    """The report of a case as HTML, from its stored results; nothing is recomputed.

    Results that are missing appear as "not available".
    """
    return build_report(gather_report(case))


def write_case_report(case: Case, path: Path | None = None) -> Path:
    """Write the report of a case, as HTML or as PDF by the suffix of the file.

    Parameters
    ----------
    case
        The opened case.
    path
        File to write, ``.html`` or ``.pdf``; None for ``report.html`` in the case folder.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        Any other suffix.
    """
    path = path or case.root / "report.html"
    kind = path.suffix.lower()
    if kind not in (".html", ".htm", ".pdf"):
        raise InputError(
            f"a report is an .html or a .pdf file, not '{path.name}': change the name of the file"
        )
    data = gather_report(case)
    write_bytes(path, build_pdf(data) if kind == ".pdf" else build_report(data).encode())
    return path


def gather_report(case: Case) -> ReportData:
    """Everything that the report of a case shows, from its stored results."""
    states, results = _states(case), CaseResults(case)
    record = results.get(PREDICTION_RECORD) or {}
    twin = begun_twin(case)
    tables = [*report_tables(results), *dose_tables(results), *twin_tables(twin)]
    qa = qa_table(qa_records(case))
    return ReportData(
        case=case.name,
        patient=case.patient,
        made=datetime.now(UTC).strftime("%Y-%m-%d, %H:%M UTC"),
        summary=_summary(results),
        states=states,
        metrics=_metrics(results),
        tables=(_inputs(results), *tables, *(() if qa is None else (qa,))),
        figures=case_figures(results),
        warnings=(*_warnings(results), *twin_warnings(twin)),
        limitations=(*_limitations(results), *twin_limitations(twin)),
        checks=case_checks(results),
        provenance=_provenance(results),
        shared_patient=bool(record.get("shared_patient", False)),
        seen_in_training=bool(record.get("seen_in_training", False)),
        development_case=case.is_development,
        updates_with_new_images=twin is not None and twin.updates_with_new_images,
    )


def _states(case: Case) -> tuple[StepState, ...]:
    states = case_status(case).states
    for state in states.values():
        if state.damaged:
            raise CorruptArtifact(state.reason)
    return tuple(
        StepState(step.title, state.mark, state.reason or "; ".join(state.warnings), step.about)
        for step in STEPS
        for state in (states[step.name],)
    )


def _summary(results: CaseResults) -> tuple[tuple[str, str], ...]:
    grid, uptake = results.get(TILES), results.get(UPTAKE)
    record = results.get(PREDICTION_RECORD) or {}
    lines = []
    if grid is not None:
        inner = int(np.sum(grid.inner))
        tiles = f"{count(len(grid), 'tile')} of {number(grid.size_um, 'µm')}, {inner} inner"
        lines.append(("tiles", tiles))
    if uptake is not None:
        suv = np.asarray(uptake["suv"], float)
        known = suv[np.isfinite(suv)]
        median = number(float(np.median(known)) if known.size else None, uptake.unit("suv"))
        lines.append((f"measured {uptake_name(uptake.unit('suv'))}", f"median {median}"))
        lines.append(("tiles without measured uptake", str(int(suv.size - known.size))))
    if record:
        lines.append(("trained on", ", ".join(record.get("training_cases", ())) or "not recorded"))
        lines.append(("split", f"by {record.get('split', 'unknown')}"))
    if record.get("learnt_fwhm_mm") is not None:
        lines.append(("learnt resolution of the scanner", number(record["learnt_fwhm_mm"], "mm")))
    lines += prediction_gaps(results.metrics)
    return tuple(lines)


def _inputs(results: CaseResults) -> ReportTable:
    """What the case was given, where each fact comes from, and what identifies each file."""
    case, rows = results.case, list[tuple[object, ...]]()

    def add(what: str, fact: str, source: str, key: str = "") -> None:
        known = None
        with contextlib.suppress(MosaikError):
            known = case.file.identity.get(key) or (case.identity(key) if key else None)
        shape = None if known is None else f"{known.shape[0]} x {known.shape[1]}"
        rows.append((what, fact, source, shape, None if known is None else known.content[:12]))

    for stain, entry in case.file.slides.items():
        try:
            size = " x ".join(number(s, "µm") for s in dict.fromkeys(case.spacing_um(stain)))
        except MosaikError as error:
            size = str(error)
        source = " ".join((SPACING_SOURCES[entry.spacing_source], entry.profile)).strip()
        add(f"{STAIN_TITLES[stain]} slide", f"pixel size {size}", source, stain)
    if case.file.pet is not None:
        suv, stated = results.get(SUV), case.file.pet.fwhm_mm
        if suv is not None:
            size = " x ".join(number(s, "µm") for s in dict.fromkeys(suv.lattice.spacing_um))
            add("PET slice", f"voxel size {size}", "file header", "pet")
        width = f"resolution {number(stated or DEFAULT_FWHM_MM, 'mm')} (full width at half maximum)"
        add("PET scanner", width, "case.toml" if stated else "assumed: not stated")
    columns = ("input", "value", "source", "rows x columns", "content digest")
    note = "No name of a file or person is in this report. The injection record is in 'SUV inputs'."
    return ReportTable("Inputs", columns, tuple(rows), note)


_CLASSES_NOTE = (
    "Labels of the measured map beside the most probable ones. ECE: mean distance of the stated "
    "probability from the share of right labels, over ten bins."
)


def _metrics(results: CaseResults) -> tuple[ReportMetrics, ...]:
    metrics = results.metrics
    if not metrics:
        return ()
    baselines = {name: _shown(values) for name, values in by_error(metrics.get("baselines", {}))}
    agreement = {
        key: value
        for key, value in metrics.get("agreement", {}).items()
        if not isinstance(value, dict)
    }
    note = (
        f"{count(metrics['n_tiles'], 'tile')}; neighbouring tiles are not independent: the "
        "effective sample size of a correlation is the number of independent tiles with "
        "the same information."
    )
    if results.case.is_development:
        note += " Development case: the errors are optimistic."
    paired = (
        "MAE minus the predictor's is paired, with a 95 % interval by blocks of 7 x 7 tiles: above "
        "0 the predictor is better. Measured neighbours (grey) know the PET of this case: a "
        "reference."
    )
    return (
        ReportMetrics(
            "Normalised SUV, tile level, not clipped",
            metrics["suv_norm"],
            baselines,
            f"{note} {paired}",
            tuple(
                n for n, v in metrics.get("baselines", {}).items() if v and v.get("uses_test_pet")
            ),
        ),
        *_intervals(metrics),
        ReportMetrics("Agreement of measured and predicted, normalised SUV", agreement, {}, note),
        *(
            ReportMetrics("Uptake classes (hot and cold spots)", classes, {}, _CLASSES_NOTE)
            for classes in [metrics.get("classes")]
            if classes
        ),
        ReportMetrics(
            "Normalised SUV, clipped to the range of the training tiles",
            metrics.get("suv_norm_clipped", {}),
            {},
            "For comparison with published figures only.",
        ),
        ReportMetrics(f"SUV in {results.unit}, tile level", metrics["suv_bsa"], {}, note),
    )


def _intervals(metrics: Mapping[str, Any]) -> tuple[ReportMetrics, ...]:
    """Coverage, width and score of each kind of interval; nothing where there are none."""
    found = metrics.get("intervals") or {}
    notes = "; ".join(map(str, found.get("notes") or ())).replace(" %", f"{_SPACE}%")
    score = "Score: width + 20 × the distance outside; the lower the better."
    kinds = (("tile", "for a tile of a new slide"), ("block", "for a whole block of 7 x 7 tiles"))
    return tuple(
        ReportMetrics(
            f"90 % interval {words}, normalised SUV",
            {key: found[kind].get(key) for key in ("coverage", "width", "interval_score")},
            {},
            f"{score} {notes[:1].upper()}{notes[1:]}{'.' if notes else ''}".strip(),
        )
        for kind, words in kinds
        if found.get(kind)
    )


def _shown(errors: Mapping[str, Any] | None) -> dict[str, Any]:
    """The errors of a baseline as columns of a table."""
    if not errors:
        return {}
    shown = {key: errors.get(key) for key in ("mae", "mse", "r2")}
    return {**shown, "mae_minus_network": interval(errors.get("mae_minus_network"))}


def _warnings(results: CaseResults) -> tuple[str, ...]:
    warnings: list[str] = [
        damage_summary(record, STAIN_TITLES[stain]) for stain, record in _damaged(results).items()
    ]
    warnings += _stain_warnings(results)
    for artifact in ALIGNMENT.values():
        warnings += (results.get(artifact) or {}).get("warnings", ())
    warnings += (results.get(SUV_RECORD) or {}).get("warnings", ())
    warnings += (results.get(PREDICTION_RECORD) or {}).get("warnings", ())
    warnings += dose_warnings(results)
    record = results.get(PREDICTION_RECORD) or {}
    if record.get("seen_in_training"):
        warnings.append("Training case: its errors do not apply to new cases.")
    if results.case.is_development:
        warnings.append(development_warning(results.case.name))
    return tuple(dict.fromkeys(map(str, warnings)))


def _limitations(results: CaseResults) -> tuple[str, ...]:
    sentences = [
        "Research use only: this report is not for diagnosis or treatment.",
        "Neighbouring tiles are not independent; the resolution of the PET spans several of them.",
    ]
    if results.has(PREDICTION_RECORD):
        sentences += [
            "The predictor was trained on few patients. It supports no conclusion about others.",
            "The predictor maps histology to uptake once. It is not updated with new images of the "
            "patient.",
        ]
    return (*sentences, *dose_limitations(results))


def _stain_warnings(results: CaseResults) -> list[str]:
    """Warnings of the vessel and the stain step about the colours of a slide."""
    records = (("CD34", VESSELS), ("H&E", STAIN_FIT))
    return [
        f"{title}: {text}"
        for title, artifact in records
        for text in (results.record(artifact).get(STAINING) or {}).get("warnings", ())
    ]


def _damaged(results: CaseResults) -> dict[str, dict[str, Any]]:
    """Record of the damaged tiles of each slide that has any."""
    records = {stain: results.record(artifact).get(DAMAGED) for stain, artifact in TISSUE.items()}
    return {stain: record for stain, record in records.items() if record and record["count"]}


def _provenance(results: CaseResults) -> dict[str, dict[str, object]]:
    store = results.case.store
    made: dict[str, object] = {}
    settings: dict[str, object] = {}
    for artifact in results.present():
        origin, record = store.origin(artifact), store.record(artifact)
        if origin is None:
            continue
        how = (
            f"step {origin.step}, revision {origin.revision}, origin {origin.digest()[:12]}, "
            f"version {record.get('version', 'unknown')}, {record.get('time', 'time unknown')}"
        )
        if on := record.get(COMPUTED_ON):
            packages = [f"{name} {text}" for name, text in on.items() if name not in _WHERE]
            how += f", computed on {on['device']} with {on['precision']} ({', '.join(packages)})"
        made[artifact.name] = how
        for name, value in record.get("params", {}).items():
            settings[f"{origin.step}.{name}"] = "not set" if value in (None, "") else value
    return {"Versions": _versions(), "Results": made, "Settings": settings}


def _versions() -> dict[str, object]:
    versions: dict[str, object] = {}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def qa_line(summary: QaSummary) -> str:
    """The summary of a visual QA in words."""
    lines = []
    rated = summary.correct + summary.wrong
    if summary.false_rate is not None:
        lines.append(f"wrong: {summary.wrong} of {rated}, {_percent(summary.false_rate)}")
    if summary.unsure:
        lines.append(f"unsure: {summary.unsure}")
    if summary.miss_rate is not None:
        total = summary.detected + summary.missed
        lines.append(f"missed: {summary.missed} of {total}, {_percent(summary.miss_rate)}")
    if summary.overall_rating:
        lines.append(f"overall rating: {summary.overall_rating}")
    return "\n".join(lines) or "nothing rated yet"


def _percent(rate: Interval) -> str:
    low, high = 100 * rate.low, 100 * rate.high
    return (
        f"{100 * rate.estimate:.1f}{_SPACE}% "
        f"(95{_SPACE}% interval {low:.1f} to {high:.1f}{_SPACE}%)"
    )


def qa_table(records: Sequence[Mapping[str, Any]]) -> ReportTable | None:
    """The visual QA of a case as a table of the report; None when there is none."""
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
        for check in records
    )
    columns = (
        "segmentation",
        "reader",
        "result",
        "objects rated",
        "wrong (95 % interval)",
        "missed (95 % interval)",
        "overall rating",
        "comment",
    )
    note = (
        "Rated objects are a random sample. Missed objects are counted in randomly drawn tiles, as "
        "a share of all objects there. Ratings of an earlier result do not apply to the present "
        "one."
    )
    return ReportTable("Visual QA", columns, rows, note) if rows else None


def _share(check: Mapping[str, Any], name: str) -> str:
    estimate, low, high = (check[f"{name}_rate_{part}"] for part in ("estimate", "low", "high"))
    if estimate is None:
        return "unknown"
    return _percent(Interval(estimate, low, high)).replace(f"95{_SPACE}% interval ", "")
