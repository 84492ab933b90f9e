"""What a case's report says: summary, metrics, tables, checks and provenance from its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    ASSOCIATION,
    CLASS_RECORD,
    CORRECTED,
    DAMAGED,
    OBJECTS,
    PARAMETERS,
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
from napari_mosaik.io.corrections import objects_now
from napari_mosaik.io.slide.types.damage import summary
from napari_mosaik.view.formatting import count, heading, number, uptake_name
from napari_mosaik.view.report.artefacts import bad_places_table
from napari_mosaik.view.report.case_checks import case_checks
from napari_mosaik.view.report.case_figures import case_figures
from napari_mosaik.view.report.case_results import CaseResults
from napari_mosaik.view.report.class_scores import class_scores_table
from napari_mosaik.view.report.html import ReportData, ReportMetrics, ReportTable, StepState
from napari_mosaik.view.report.qa_rows import checks_table

__all__ = ["gather_report"]

_SUV_WORDS = {
    "factor": "SUV per activity concentration",
    "mean": "mean of the PET slice",
    "maximum": "maximum of the PET slice",
}

_LISTED_TILES = 20
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
    tables = (
        _damage(results),
        bad_places_table({s: case.store.record(found) for s, found in TISSUE.items()}),
        _alignment(results),
        _objects(results),
        class_scores_table(results.get(CLASS_RECORD)),
        checks_table(checks),
        _parameters(results),
        _association(results),
    )
    return ReportData(
        case=case.name,
        patient=case.patient,
        made=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        summary=_summary(results),
        states=tuple(states),
        metrics=_metrics(results),
        tables=(*(table for table in tables if table is not None), *_suv(results)),
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


def _alignment(results: CaseResults) -> ReportTable | None:
    rows: list[tuple[object, ...]] = []
    for frame, artifact in ALIGNMENT.items():
        found = results.get(artifact)
        if found is not None:
            error = (found.get("landmark_error_um") or {}).get("median")
            keys = ("confidence", "dice", "ncc", "angle_deg", "scale")
            values = (found.get(key) for key in keys)
            name = STAIN_TITLES.get(frame, "PET")
            expected = found.get("position_error_um")
            rows.append((name, found.get("method", "outline"), *values, error, expected))
    columns = (
        "to CD34",
        "method",
        "confidence",
        "Dice",
        "correlation",
        "angle [°]",
        "scale",
        "landmark error, median [µm]",
        "expected error [µm]",
    )
    note = "A claim about single tiles needs an error below 150 µm."
    return ReportTable("Alignment", columns, tuple(rows), note) if rows else None


def _objects(results: CaseResults) -> ReportTable | None:
    rows: list[tuple[object, ...]] = []
    for title in OBJECTS:
        labels, objects = objects_now(results.case.store, title)
        table = results.get(objects)
        if table is not None:
            made = results.case.store.record(labels).get(CORRECTED, {}).get("made", 0)
            by_hand = f"{count(made, 'correction')} by hand" if made else ""
            words = [count(len(table), "object"), by_hand, table.about.get("method", "")]
            rows.append((title, ", ".join(filter(None, words))))
    areas = (results.get(CLASS_RECORD) or {}).get("area_mm2", {})
    rows += [(f"{name} tissue", number(area, "mm²")) for name, area in areas.items()]
    return ReportTable("What was found", ("", "amount"), tuple(rows)) if rows else None


def _parameters(results: CaseResults) -> ReportTable | None:
    table = results.get(PARAMETERS)
    if table is None:
        return None
    rows = []
    for name in table:
        values = np.asarray(table[name], float)
        known = values[np.isfinite(values)]
        quartiles = np.percentile(known, (25, 50, 75)) if known.size else (None, None, None)
        unit = table.unit(name)
        rows.append((heading(name), "" if unit == "1" else unit, *quartiles, int(known.size)))
    columns = ("parameter", "unit", "lower quartile", "median", "upper quartile", "tiles")
    return ReportTable("Parameters of the tiles", columns, tuple(rows))


def _association(results: CaseResults) -> ReportTable | None:
    table = results.get(ASSOCIATION)
    if table is None:
        return None
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
        "p (spectral)",
        "Spearman ρ",
    )
    note = (
        "The p-values allow for neighbouring tiles being alike; those that take tiles for "
        "independent are left out because they are far too small."
    )
    return ReportTable("Correlation with the measured uptake", columns, tuple(rows), note)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _suv(results: CaseResults) -> tuple[ReportTable, ...]:
    record = results.get(SUV_RECORD)
    if record is None:
        return ()
    rows: list[tuple[object, ...]] = [
        (term["label"], term["value"], term["unit"], term["source"])
        for term in record.get("terms", ())
    ]
    for key in ("factor", "mean", "maximum"):
        if key in record:
            unit = "" if key == "factor" else record.get("unit", "")
            rows.append((_SUV_WORDS[key], record[key], unit, record.get("formula", "")))
    note = " ".join(record.get("assumptions", ()))
    return (
        ReportTable(
            "Every term of the SUV", ("term", "value", "unit", "source"), tuple(rows), note
        ),
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


def _damage(results: CaseResults) -> ReportTable | None:
    rows = [
        (STAIN_TITLES[stain], tile["level"], *tile["origin_px"], *tile["size_px"], tile["reason"])
        for stain, record in _damaged(results).items()
        for tile in record["tiles"][:_LISTED_TILES]
    ]
    columns = ("slide", "level", "row [px]", "column [px]", "rows", "columns", "what is wrong")
    note = (
        "These tiles could not be decoded. Their area is no tissue in this case; objects that "
        f"touch them are left out. Up to {_LISTED_TILES} tiles of a slide are listed."
    )
    return ReportTable("Damaged tiles left out", columns, tuple(rows), note) if rows else None


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
