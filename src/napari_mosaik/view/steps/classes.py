"""Tissue classes and the H&E stain: class map, uncertainty, areas, held-out performance."""

from __future__ import annotations

from typing import Any

from napari_mosaik.core.catalogue import (
    CLASS_PROBABILITY,
    CLASS_RECORD,
    CLASSES,
    STAIN_FIT,
    STAINING,
)
from napari_mosaik.view import layers
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.formatting import number, percent
from napari_mosaik.view.report.html import ReportTable
from napari_mosaik.view.spec import LayerSpec
from napari_mosaik.view.step_view import StepView
from napari_mosaik.view.steps.objects import segmentation_table
from napari_mosaik.workflow.steps.classes import TISSUE_CLASSES
from napari_mosaik.workflow.steps.stain import STAIN

__all__ = ["held_out_table"]

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
    record = results.get(CLASS_RECORD)
    if record is None:
        return ""
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
    rows = [segmentation_table(f"{name} tissue", number(areas[name], "mm²")) for name in areas]
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
    fit = results.get(STAIN_FIT)
    if fit is None:
        return ""
    line = "stain vectors estimated" if fit["usable"] else f"not normalised: {fit['reason']}"
    warnings = (results.record(STAIN_FIT).get(STAINING) or {}).get("warnings", ())
    return "\n".join([line + (", please check" if warnings else ""), *warnings])


def _he_stains(results: CaseResults) -> dict[str, Any]:
    fit = results.get(STAIN_FIT)
    if fit is None or not fit["usable"]:
        return {}
    return dict(zip(("haematoxylin", "eosin"), fit["vectors"], strict=True))


STAIN_VIEW = StepView(step=STAIN, base_slide="he", result_line=_stain_line, stains=_he_stains)
CLASSES_VIEW = StepView(
    step=TISSUE_CLASSES,
    layers=_class_layers,
    base_slide="he",
    result_line=_class_line,
    report=_class_report,
)
