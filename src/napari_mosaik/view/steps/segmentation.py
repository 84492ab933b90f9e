"""Vessels, nuclei, CAIX cells and tissue classes: layers, counts, areas, and previews."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from napari_mosaik.core import Artifact, LabelImage, Table, Transform
from napari_mosaik.core.catalogue import (
    CAIX_CELLS,
    CLASS_PROBABILITY,
    CLASS_RECORD,
    CLASSES,
    CORRECTED,
    EXCLUDED,
    EXCLUDED_DAB,
    EXCLUDED_DAB_OBJECTS,
    NUCLEI,
    NUCLEUS_OBJECTS,
    OBJECTS,
    STAIN_FIT,
    STAINING,
    VESSEL_OBJECTS,
    VESSELS,
)
from napari_mosaik.io.corrections import objects_now
from napari_mosaik.view import layers
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.formatting import count, number, percent
from napari_mosaik.view.report.html import ReportTable
from napari_mosaik.view.spec import LayerSpec
from napari_mosaik.view.step_view import StepView
from napari_mosaik.workflow.preview import Preview
from napari_mosaik.workflow.steps import maker_of

__all__ = ["held_out_table"]

StepResults = Mapping[Artifact[Any], object]


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of object: its labels, its slide, its nouns and its layer."""

    labels: Artifact[LabelImage]
    slide: str
    one: str
    many: str
    draw: Callable[..., LayerSpec]


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
    now, objects = objects_now(results.case.store, kind.labels.name)
    labels = results.get(now)
    if labels is None:
        return []
    centres = results.part(objects, "row_um", "column_um")[1].points_um()
    return [kind.draw(labels, results.transform(kind.slide), centres)]


def _vessel_layers(results: CaseResults, choice: str) -> list[LayerSpec]:
    specs = _object_layers(_VESSELS, results, choice)
    labels, table = results.get(EXCLUDED_DAB), results.get(EXCLUDED_DAB_OBJECTS)
    if labels is not None and table is not None and len(table):
        specs.append(layers.excluded_dab_layer(labels, _reasons(table)))
    return specs


def _reasons(table: object) -> list[str]:
    """Why each excluded object is not a vessel, in the order of the labels."""
    return [str(reason) for reason in table["reason"]] if isinstance(table, Table) else []


def _vessel_line(results: CaseResults) -> str:
    record = results.record(VESSELS)
    line = count(results.part(VESSEL_OBJECTS)[0], "vessel")
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
    lines.append(f"{source}; wall from DAB {number(staining['threshold_od'], 'OD')}")
    return "\n".join([*lines, *staining["warnings"]])


def _vessel_stains(results: CaseResults) -> dict[str, Any]:
    return dict(results.record(VESSELS).get(STAINING, {}).get("stains", {}))


def _nucleus_line(results: CaseResults) -> str:
    n, table = results.part(NUCLEUS_OBJECTS)
    return "\n".join([count(n, "nucleus", "nuclei"), table.about.get("method", "")])


def _corrected_line(kind: _Kind, results: CaseResults) -> str:
    labels, table = OBJECTS[kind.labels.name][1]
    record = results.record(labels).get(CORRECTED) or {"made": 0, "lost": []}
    if not record["made"] and not record["lost"]:
        return "nothing corrected"
    n, _ = results.part(table)
    lines = [f"{count(record['made'], 'correction')} applied, {n} {kind.many}"]
    if record["lost"]:
        lines[0] += f", {len(record['lost'])} without their object"
    return "\n".join([*lines, *(f"{e['correction']}: {e['why']}" for e in record["lost"])])


def _object_report(kind: _Kind, results: CaseResults) -> list[ReportTable]:
    labels, objects = objects_now(results.case.store, kind.labels.name)
    if not results.has(objects):
        return []
    found, table = results.part(objects)
    n = results.record(labels).get(CORRECTED, {}).get("made", 0)
    corrected = count(n, "manual correction") if n else ""
    parts = [count(found, "object"), corrected, table.about.get("method", "")]
    return [_segmentation_table(kind.many, ", ".join(filter(None, parts)))]


def _segmentation_table(title: str, amount: str) -> ReportTable:
    """One row of the table of all segmentations."""
    return ReportTable("Segmentation", ("", "amount"), ((title, amount),))


def _preview_layers(
    kind: _Kind, results: StepResults, transform: Transform | None
) -> list[LayerSpec]:
    specs = []
    labels, excluded = results.get(kind.labels), results.get(EXCLUDED_DAB)
    if isinstance(labels, LabelImage):
        specs.append(kind.draw(labels, transform))
    if isinstance(excluded, LabelImage):
        reasons = _reasons(results.get(EXCLUDED_DAB_OBJECTS))
        specs.append(layers.excluded_dab_layer(excluded, reasons, transform))
    return specs


def _preview_line(kind: _Kind, preview: Preview) -> str:
    lines = []
    image = preview.results.get(kind.labels)
    if isinstance(image, LabelImage):
        labels = image.array()
        pixels = np.bincount(labels.ravel(), minlength=1)[1:]
        share = 100 * float(pixels.sum()) / max(1, labels.size)
        n = count(int(np.count_nonzero(pixels)), kind.one, kind.many)
        lines.append(f"Here: {n}, {share:.1f} % of the area.")
    reasons = _reasons(preview.results.get(EXCLUDED_DAB_OBJECTS))
    if reasons:
        each = ", ".join(f"{reasons.count(one)} {one}" for one in sorted(set(reasons)))
        lines.append(f"Excluded: {count(len(reasons), 'DAB object')} ({each}).")
    if not preview.whole:
        size = max(preview.region[1]) / 1000
        lines.append(f"Only the middle {number(size, 'mm')} is computed: zoom in to see all.")
    return " ".join(lines) or "Nothing to show here."


def _caix_line(results: CaseResults) -> str:
    line = count(results.part(CAIX_CELLS)[0], "cell")
    warnings: Sequence[str] = (results.record(CAIX_CELLS).get(STAINING) or {}).get("warnings", ())
    return "\n".join([line + (", please check" if warnings else ""), *warnings])


_SCORES = {
    "dice": "Dice",
    "iou": "IoU",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "one against rest",
}


def _class_layers(results: CaseResults, choice: str) -> list[LayerSpec]:
    """The map of the classes and, hidden at first, the uncertainty of the classifier."""
    classes, probability = results.get(CLASSES), results.get(CLASS_PROBABILITY)
    if classes is None:
        return []
    transform = results.transform("he")
    specs = [layers.classes_layer(classes, transform)]
    if probability is not None:
        specs.append(layers.uncertainty_layer(probability, classes, transform))
    return specs


def _class_line(results: CaseResults) -> str:
    record = results.read(CLASS_RECORD)
    areas: dict[str, float] = record["area_mm2"]
    tissue = sum(area for name, area in areas.items() if name != "background")
    share = areas.get("neoplastic", 0.0) / tissue if tissue > 0 else None
    warnings = record.get("warnings", ())
    line = f"neoplastic {percent(share)} of {number(tissue, 'mm²')}"
    lines = [line + (", please check" if warnings else "")]
    uncertainty = record.get("mean_uncertainty")
    if uncertainty is not None:
        scale = "0: one class is certain, 1: all classes are equally likely"
        lines.append(f"mean uncertainty {number(uncertainty)} ({scale})")
    return "\n".join([*lines, *warnings])


def _class_report(results: CaseResults) -> list[ReportTable]:
    record = results.get(CLASS_RECORD)
    areas = (record or {}).get("area_mm2", {})
    rows = [_segmentation_table(f"{name} tissue", number(areas[name], "mm²")) for name in areas]
    scores = held_out_table(record)
    return rows if scores is None else [*rows, scores]


def held_out_table(record: dict[str, Any] | None) -> ReportTable | None:
    """Scores per class on the annotations that were held out; None where there were none.

    A score is missing where its class is in neither the held-out annotations nor the prediction.
    """
    held_out = (record or {}).get("held_out")
    if not held_out:
        return None
    rows = [
        (name, *(scores.get(key) for key in _SCORES))
        for name, scores in held_out["classes"].items()
    ]
    note = (
        f"Measured on annotations that were held out of the training; {number(held_out['overall'])}"
        " of their pixels are correct. 'One against rest' is the accuracy as the MOSAIK paper "
        "prints it: it counts the pixels of all other classes as correct and so flatters small "
        "classes. Annotated places are clear ones; borders between tissues are harder."
    )
    return ReportTable("Tissue classifier", ("class", *_SCORES.values()), tuple(rows), note)


def _stain_line(results: CaseResults) -> str:
    fit = results.read(STAIN_FIT)
    line = "stain vectors estimated" if fit["usable"] else f"not normalised: {fit['reason']}"
    warnings = (results.record(STAIN_FIT).get(STAINING) or {}).get("warnings", ())
    return "\n".join([line + (", please check" if warnings else ""), *warnings])


def _he_stains(results: CaseResults) -> dict[str, Any]:
    fit = results.get(STAIN_FIT)
    if fit is None or not fit["usable"]:
        return {}
    return dict(zip(("haematoxylin", "eosin"), fit["vectors"], strict=True))


VESSELS_VIEW = StepView(
    step=maker_of(VESSELS),
    layers=_vessel_layers,
    base_slide=_VESSELS.slide,
    result_line=_vessel_line,
    report=partial(_object_report, _VESSELS),
    stains=_vessel_stains,
    preview_layers=partial(_preview_layers, _VESSELS),
    preview_line=partial(_preview_line, _VESSELS),
)
NUCLEI_VIEW = StepView(
    step=maker_of(NUCLEI),
    layers=partial(_object_layers, _NUCLEI),
    base_slide=_NUCLEI.slide,
    result_line=_nucleus_line,
    report=partial(_object_report, _NUCLEI),
    preview_layers=partial(_preview_layers, _NUCLEI),
    preview_line=partial(_preview_line, _NUCLEI),
)
CORRECTION_VIEWS = tuple(
    StepView(
        step=maker_of(OBJECTS[kind.labels.name][1][0]),
        layers=partial(_object_layers, kind),
        base_slide=kind.slide,
        result_line=partial(_corrected_line, kind),
    )
    for kind in (_VESSELS, _NUCLEI)
)
CAIX_VIEW = StepView(step=maker_of(CAIX_CELLS), base_slide="caix", result_line=_caix_line)
STAIN_VIEW = StepView(
    step=maker_of(STAIN_FIT), base_slide="he", result_line=_stain_line, stains=_he_stains
)
CLASSES_VIEW = StepView(
    step=maker_of(CLASSES),
    layers=_class_layers,
    base_slide="he",
    result_line=_class_line,
    report=_class_report,
)
