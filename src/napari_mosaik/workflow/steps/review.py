"""Compare predicted with measured uptake, next to simple baselines."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import numpy as np

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    DEVELOPMENT,
    METRICS,
    PREDICTION,
    PREDICTION_RECORD,
    TILES,
    UPTAKE,
    UPTAKE_CLUSTERS,
)
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.params import Params
from napari_mosaik.core.table import Table
from napari_mosaik.workflow.leaks import seen_file
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext
from napari_mosaik.workflow.steps.align import low_confidence_warning
from napari_mosaik.workflow.steps.predict import INTERVAL_COLUMNS
from napari_mosaik.workflow.steps.spatial import uptake_classes

__all__ = ["REVIEW", "ReviewParams", "development_warning"]

_PREFIX = "baseline_"
_DRAWS = 500
"""Error fields drawn for the interval of the slide's mean."""
NEIGHBOURS = "neighbour_idw"
"""Upper reference: what the measured uptake of the neighbouring tiles says of a tile."""


class ReviewParams(Params):
    """The comparison has no settings."""


def _body(inputs: StepContext, params: ReviewParams) -> Generator[Progress, None, Results]:
    from napari_mosaik.predictor import TargetScale, held_out_tiles, metrics_record
    from napari_mosaik.spatial import neighbour_mean

    table, record = inputs.read(PREDICTION), inputs.read(PREDICTION_RECORD)
    uptake = inputs.read(UPTAKE)
    if uptake.unit("suv") != record["unit"]:
        raise InputError(
            f"the measured uptake is in {uptake.unit('suv')}, the prediction in {record['unit']}: "
            "use the same kind of SUV as the training cases"
        )
    yield Progress(0.5, 1, "comparing")
    target = TargetScale(float(record["target"]["low"]), float(record["target"]["high"]))
    labels = None
    if inputs.has(UPTAKE_CLUSTERS):
        labels = uptake_classes(inputs.read(UPTAKE_CLUSTERS))
        if (np.asarray(table["class_label"]) < 0).all():  # the model has not learned any class
            labels = None
    grid = inputs.read(TILES)
    measured = target.normalise(uptake["suv"], clip=False)
    block = record.get("block", {})
    if block:  # the other tiles have trained the model, or lie near those that have
        measured = np.where(held_out_tiles(grid.cells, block), measured, np.nan)
    seen = seen_file(inputs.source_contents(), record.get("training_files", {}))
    baselines = {
        name.removeprefix(_PREFIX): table[name] for name in table if name.startswith(_PREFIX)
    }
    intervals = _intervals(inputs, table, record, measured)
    metrics = metrics_record(
        test_case=inputs.case_name,
        split=record["split"],
        shared_patient=bool(record["shared_patient"]),
        measured_norm=measured,
        predicted_norm=table["suv_norm"],
        measured_suv=uptake["suv"],
        predicted_suv=table["suv"],
        baselines={**baselines, NEIGHBOURS: neighbour_mean(measured, grid.centres_um)},
        cells=grid.cells,
        uses_test_pet=(NEIGHBOURS,),
        measured_class=labels,
        predicted_class=None if labels is None else table["class_label"],
        extra={
            "model": record["model"],
            "seen_in_training": record["seen_in_training"] or bool(seen),
            **({"block": block} if block else {}),
            "development": inputs.has(DEVELOPMENT),
            "training_cases": record["training_cases"],
            "proxies": record["proxies"],
            "seed": record["seed"],
            "unit": record["unit"],
            "learnt_fwhm_mm": record.get("learnt_fwhm_mm"),
            "n_out_of_range": (
                int(np.asarray(table["out_of_range"]).sum()) if "out_of_range" in table else None
            ),
            "not_predicted": dict(record.get("not_predicted", {})),
            "intervals": intervals,
            "warnings": [*record["warnings"], *_leaks(seen, block), *_warnings(inputs)],
        },
    )
    metrics.pop("seconds", None)
    if block:
        metrics["n_not_measured"] = int(np.isnan(np.asarray(uptake["suv"], float)).sum())
    return {METRICS: metrics}


def _leaks(seen: str, block: Mapping[str, Any]) -> list[str]:
    """What the model knows of the case."""
    if block:
        return [
            f"only the {block['n_test']} tiles of the test block count, {block['guard']} tiles or "
            f"more from the {block['n_train']} that trained; {block['n_between']} in between do not"
        ]
    return [f"the predictor was trained with {seen}, which this case holds"] if seen else []


def _intervals(
    inputs: StepContext, table: Table, record: Mapping[str, Any], measured: FloatArray
) -> dict[str, Any] | None:
    """How often the intervals hold the measured value, how wide they are; None without any."""
    from napari_mosaik.predictor import draw_errors, interval_metrics

    calibrated = record.get("intervals")
    if calibrated is None:
        return None
    grid = inputs.read(TILES)
    limits = {
        kind: (table[name.format("low")], table[name.format("high")])
        for kind, name in INTERVAL_COLUMNS.items()
        if calibrated[kind] is not None
    }
    notes = list(calibrated["notes"])
    if not record["shared_patient"]:
        notes.append("the patient is new: the intervals were calibrated on other patients")
    pitch = grid.lattice.spacing_um
    use = np.isfinite(measured) & np.isfinite(np.asarray(table["suv_norm"], float))
    found: dict[str, Any] = dict.fromkeys(INTERVAL_COLUMNS)  # None: too few to calibrate
    found |= interval_metrics(measured, limits, grid.cells)
    if use.any():
        errors = draw_errors(calibrated["fields"], grid.cells[use], pitch, _DRAWS)
        low, high = np.percentile(errors.mean(axis=1), [5.0, 95.0])
        predicted = float(np.mean(np.asarray(table["suv_norm"], float)[use]))
        found["slide_mean"] = {
            "measured": float(measured[use].mean()),
            "predicted": predicted,
            "low": predicted + float(low),
            "high": predicted + float(high),
        }
    return {**found, "notes": notes}


def _warnings(inputs: StepContext) -> list[str]:
    """What makes the comparison uncertain, or too good to be true."""
    warning = low_confidence_warning(inputs.read(ALIGNMENT["pet"]), f"{inputs.case_name}: the PET")
    optimistic = development_warning(inputs.case_name) if inputs.has(DEVELOPMENT) else ""
    return [text for text in (warning, optimistic) if text]


def development_warning(case: str) -> str:
    """What it means for the error that the measured uptake has ranked the review."""
    return (
        f"case {case} is a development case: its measured uptake ranked the review queue, so its "
        "prediction error is optimistic"
    )


REVIEW = Step(
    name="review",
    title="Review",
    about="Compares predicted with measured uptake per tile, and with simple baseline models.",
    page="Review and report",
    params=ReviewParams,
    reads=(TILES, PREDICTION, PREDICTION_RECORD, UPTAKE, ALIGNMENT["pet"]),
    may_read=(UPTAKE_CLUSTERS, DEVELOPMENT),
    writes=(METRICS,),
    body=_body,
    revision=4,
)
