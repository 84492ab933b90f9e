"""Vessels, nuclei and CAIX cells: outlines, counts, and what a preview finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from napari_mosaik.core import Artifact, LabelImage, Table, Transform
from napari_mosaik.core.catalogue import (
    CAIX_CELLS,
    CORRECTED,
    EXCLUDED,
    EXCLUDED_DAB,
    EXCLUDED_DAB_OBJECTS,
    NUCLEI,
    NUCLEUS_OBJECTS,
    OBJECTS,
    STAINING,
    VESSEL_OBJECTS,
    VESSELS,
)
from napari_mosaik.io.corrections import objects_now
from napari_mosaik.view import layers
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.formatting import count, number
from napari_mosaik.view.report.html import ReportTable
from napari_mosaik.view.spec import LayerSpec
from napari_mosaik.view.step_view import StepView
from napari_mosaik.workflow.preview import Preview
from napari_mosaik.workflow.steps.caix import CAIX
from napari_mosaik.workflow.steps.correct import CORRECT_NUCLEI, CORRECT_VESSELS
from napari_mosaik.workflow.steps.nuclei import FIND_NUCLEI
from napari_mosaik.workflow.steps.vessels import FIND_VESSELS

StepResults = Mapping[Artifact[Any], object]


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of object: its results, the slide it is found on, its words and its layer."""

    labels: Artifact[LabelImage]
    slide: str
    one: str
    many: str
    draw: Callable[[LabelImage, Transform | None], LayerSpec]


_VESSELS = _Kind(VESSELS, "cd34", "vessel", "vessels", layers.vessels_layer)
_NUCLEI = _Kind(NUCLEI, "he", "nucleus", "nuclei", layers.nuclei_layer)
_STAIN_SOURCES = {
    "slide": "stain vectors of this slide",
    "ruifrok": "stain vectors of Ruifrok and Johnston",
    "manual": "stain vectors set manually",
}


def _object_layers(kind: _Kind, results: CaseResults, choice: str) -> list[LayerSpec]:
    """The objects with their manual corrections, once these were applied."""
    if not results.has(kind.labels):
        return []
    labels = results.get(objects_now(results.case.store, kind.labels.name)[0])
    return [] if labels is None else [kind.draw(labels, results.transform(kind.slide))]


def _vessel_layers(results: CaseResults, choice: str) -> list[LayerSpec]:
    specs = _object_layers(_VESSELS, results, choice)
    labels, table = results.get(EXCLUDED_DAB), results.get(EXCLUDED_DAB_OBJECTS)
    if labels is not None and table is not None and len(table):
        specs.append(layers.excluded_dab_layer(labels, _reasons(table)))
    return specs


def _reasons(table: object) -> list[str]:
    """Why each excluded object is no vessel, in the order of the labels."""
    return [str(reason) for reason in table["reason"]] if isinstance(table, Table) else []


def _vessel_line(results: CaseResults) -> str:
    record = results.record(VESSELS)
    line = count(results.length(VESSEL_OBJECTS), "vessel")
    staining, excluded = record.get(STAINING), record.get(EXCLUDED) or {}
    n_excluded = sum(excluded.values())
    if n_excluded:
        line += f", {count(n_excluded, 'DAB object')} excluded"
    if staining is None:
        return line
    lines = [line + (", please check" if staining["warnings"] else "")]
    if n_excluded:
        reasons = (f"{n} {reason}" for reason, n in excluded.items() if n)
        lines.append("excluded: " + ", ".join(reasons))
    source = _STAIN_SOURCES[staining["stains"]["source"]]
    lines.append(f"{source}; wall from DAB {staining['threshold_od']:.2f} OD")
    return "\n".join([*lines, *staining["warnings"]])


def _vessel_stains(results: CaseResults) -> dict[str, Any]:
    return dict(results.record(VESSELS).get(STAINING, {}).get("stains", {}))


def _nucleus_line(results: CaseResults) -> str:
    table = results.get(NUCLEUS_OBJECTS)
    if table is None:
        return ""
    return "\n".join([count(len(table), "nucleus", "nuclei"), table.about.get("method", "")])


def _corrected_line(kind: _Kind, results: CaseResults) -> str:
    labels, table = OBJECTS[kind.labels.name][1]
    record = results.record(labels).get(CORRECTED) or {"made": 0, "lost": []}
    if not record["made"] and not record["lost"]:
        return "nothing corrected"
    n = results.length(table)
    lines = [f"{count(record['made'], 'correction')} applied, {n} {kind.many}"]
    if record["lost"]:
        lines[0] += f", {len(record['lost'])} without their object"
    return "\n".join([*lines, *(f"{e['correction']}: {e['why']}" for e in record["lost"])])


def _object_report(kind: _Kind, results: CaseResults) -> list[ReportTable]:
    labels, objects = objects_now(results.case.store, kind.labels.name)
    table = results.get(objects)
    if table is None:
        return []
    n = results.record(labels).get(CORRECTED, {}).get("made", 0)
    corrected = count(n, "manual correction") if n else ""
    parts = [count(len(table), "object"), corrected, table.about.get("method", "")]
    return [segmentation_table(kind.many, ", ".join(filter(None, parts)))]


def segmentation_table(title: str, amount: str) -> ReportTable:
    """One row of the table of all segmentations."""
    return ReportTable("Segmentation", ("", "amount"), ((title, amount),))


def _preview_layers(
    kind: _Kind, found: StepResults, transform: Transform | None
) -> list[LayerSpec]:
    specs = []
    labels, excluded = found.get(kind.labels), found.get(EXCLUDED_DAB)
    if isinstance(labels, LabelImage):
        specs.append(kind.draw(labels, transform))
    if isinstance(excluded, LabelImage):
        reasons = _reasons(found.get(EXCLUDED_DAB_OBJECTS))
        specs.append(layers.excluded_dab_layer(excluded, reasons, transform))
    return specs


def _preview_line(kind: _Kind, found: Preview) -> str:
    lines = []
    image = found.results.get(kind.labels)
    if isinstance(image, LabelImage):
        labels = image.array()
        pixels = np.bincount(labels.ravel(), minlength=1)[1:]
        share = 100 * float(pixels.sum()) / max(1, labels.size)
        n = count(int(np.count_nonzero(pixels)), kind.one, kind.many)
        lines.append(f"Here: {n}, {share:.1f} % of the area.")
    reasons = _reasons(found.results.get(EXCLUDED_DAB_OBJECTS))
    if reasons:
        each = ", ".join(f"{reasons.count(one)} {one}" for one in sorted(set(reasons)))
        lines.append(f"Excluded: {count(len(reasons), 'DAB object')} ({each}).")
    if not found.whole:
        size = max(found.region[1]) / 1000
        lines.append(f"Only the middle {number(size, 'mm')} is computed: zoom in to see all.")
    return " ".join(lines) or "Nothing to show here."


def _caix_line(results: CaseResults) -> str:
    line = count(results.length(CAIX_CELLS), "cell")
    warnings: Sequence[str] = (results.record(CAIX_CELLS).get(STAINING) or {}).get("warnings", ())
    return "\n".join([line + (", please check" if warnings else ""), *warnings])


VESSELS_VIEW = StepView(
    step=FIND_VESSELS,
    layers=_vessel_layers,
    base_slide=_VESSELS.slide,
    result_line=_vessel_line,
    report=partial(_object_report, _VESSELS),
    stains=_vessel_stains,
    preview_layers=partial(_preview_layers, _VESSELS),
    preview_line=partial(_preview_line, _VESSELS),
)
NUCLEI_VIEW = StepView(
    step=FIND_NUCLEI,
    layers=partial(_object_layers, _NUCLEI),
    base_slide=_NUCLEI.slide,
    result_line=_nucleus_line,
    report=partial(_object_report, _NUCLEI),
    preview_layers=partial(_preview_layers, _NUCLEI),
    preview_line=partial(_preview_line, _NUCLEI),
)
CORRECTION_VIEWS = tuple(
    StepView(
        step=step,
        layers=partial(_object_layers, kind),
        base_slide=kind.slide,
        result_line=partial(_corrected_line, kind),
    )
    for step, kind in ((CORRECT_VESSELS, _VESSELS), (CORRECT_NUCLEI, _NUCLEI))
)
CAIX_VIEW = StepView(step=CAIX, base_slide="caix", result_line=_caix_line)
