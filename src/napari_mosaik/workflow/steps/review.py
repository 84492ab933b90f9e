"""Compare predicted with measured uptake, next to simple baselines."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    DEVELOPMENT,
    INPUT_SPREAD_RECORD,
    METRICS,
    PREDICTION,
    PREDICTION_RECORD,
    SUV,
    SUV_RECORD,
    TILES,
    UPTAKE,
    UPTAKE_CLUSTERS,
)
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.progress import part_of_item, reach_of_item
from napari_mosaik.core.table import Table
from napari_mosaik.workflow.leaks import development_warning, known_to_model, seen_file
from napari_mosaik.workflow.parallel import beside
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext
from napari_mosaik.workflow.steps.align import low_confidence_warning
from napari_mosaik.workflow.steps.predict import INTERVAL_COLUMNS
from napari_mosaik.workflow.steps.spatial import uptake_classes
from napari_mosaik.workflow.suv import ReviewParams, check_suv_unit, measured_spread

__all__ = ["REVIEW"]

_LOAD_S, _DRAW_S, _INTERVALS_S = 2.1, 5e-5, 2e-4
_REST_S, _REST_TILE_S = 0.2, 2e-4
"""Times, s: until libraries are loaded, of a tile of a draw, of the intervals and of the rest."""
_PREFIX = "baseline_"
NEIGHBOURS = "neighbour_idw"
"""Upper reference: what the measured uptake of the neighbouring tiles says of a tile."""


def _body(inputs: StepContext, params: ReviewParams) -> Generator[Progress, None, Results]:
    comparing = Progress(0.0, 1, "comparing")
    return (yield from beside(partial(_compared, inputs, params), comparing, 1.0))


def _shares(n_tiles: int, draws: int) -> tuple[float, float, float]:
    """What is done (fraction of 1) when libraries are loaded, draws are made, and intervals known.

    Of so many tiles and draws (count).
    """
    times = np.array([_LOAD_S, _DRAW_S * n_tiles * draws, _INTERVALS_S * n_tiles])
    rest = _REST_S + _REST_TILE_S * n_tiles
    loaded, drawn, held = (float(end) for end in np.cumsum(times) / (times.sum() + rest))
    return loaded, drawn, held


def _compared(inputs: StepContext, params: ReviewParams) -> Results:
    """The metrics of a case."""
    from napari_mosaik.predictor import TargetScale, held_out_tiles, metrics_record
    from napari_mosaik.predictor.baselines import ABOUT
    from napari_mosaik.spatial import neighbour_mean

    table, record = inputs.read(PREDICTION), inputs.read(PREDICTION_RECORD)
    uptake = inputs.read(UPTAKE)
    if uptake.unit("suv") != record["unit"]:
        raise InputError(
            f"the measured uptake is in {uptake.unit('suv')}, the prediction in {record['unit']}: "
            "use the same kind of SUV as the training cases"
        )
    target = TargetScale(float(record["target"]["low"]), float(record["target"]["high"]))
    labels = None
    if inputs.has(UPTAKE_CLUSTERS):
        labels = uptake_classes(inputs.read(UPTAKE_CLUSTERS))
        if (np.asarray(table["class_label"]) < 0).all():  # the model has not learned any class
            labels = None
    grid = inputs.read(TILES)
    loaded, drawn, held = _shares(len(grid), params.draws)
    reach_of_item(loaded)
    measured = target.normalise(uptake["suv"], clip=False)
    block = record.get("block", {})
    counted = np.ones(len(grid), bool)
    if block:  # the other tiles have trained the model, or lie near those that have
        counted = held_out_tiles(grid.cells, block)
    measured = np.where(counted, measured, np.nan)
    predicted = np.where(counted, np.asarray(table["suv_norm"], float), np.nan)
    with part_of_item(loaded, drawn):
        spread = measured_spread(inputs, params, target, predicted)
    reach_of_item(drawn)
    seen = seen_file(inputs.source_contents(), record.get("training_files", {}))
    # None: the training lacks what it reads
    known, columns = set(table), {name: _PREFIX + name for name in ABOUT}
    baselines = {name: table[one] if one in known else None for name, one in columns.items()}
    intervals = _intervals(inputs, table, record, measured)
    reach_of_item(held)
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
        class_probability=_probability(table),
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
            "measured_spread": spread,
            "input_spread": (
                inputs.read(INPUT_SPREAD_RECORD) if inputs.has(INPUT_SPREAD_RECORD) else None
            ),
            "warnings": [*record["warnings"], *known_to_model(seen, block), *_warnings(inputs)],
        },
    )
    metrics["agreement"] |= _effective_sizes(measured, table["suv_norm"], grid.centres_um)
    metrics.pop("seconds", None)
    if block:
        metrics["n_not_measured"] = int(np.isnan(np.asarray(uptake["suv"], float)).sum())
    return {METRICS: metrics}


def _probability(table: Table) -> FloatArray | None:
    """(n, k) probabilities of the uptake classes; None where the prediction states none."""
    names = [f"class_{code}" for code in range(5)]
    if not set(names) <= set(table):
        return None
    return np.stack([np.asarray(table[name], float) for name in names], axis=1)


def _effective_sizes(
    measured: ArrayLike, predicted: ArrayLike, centres_um: FloatArray
) -> dict[str, float | None]:
    """How many independent tiles the correlations stand for; None where that is not defined."""
    from napari_mosaik.predictor.metrics import plain_record
    from napari_mosaik.spatial.association import AssociationParams, associate

    y, p = np.asarray(measured, float), np.asarray(predicted, float)
    few = AssociationParams(permutations=99, max_tiles=10)  # no p-value is asked
    found = associate(p, y, centres_um, few)
    sizes = {"ess_pearson": found.ess_pearson, "ess_spearman": found.ess_spearman}
    return dict(plain_record(sizes))


def _intervals(
    inputs: StepContext, table: Table, record: Mapping[str, Any], measured: FloatArray
) -> dict[str, Any]:
    """How often the intervals hold the measured value, how wide they are, and what they promise.

    A kind that could not be calibrated is None; the notes say why there is no interval at all.
    """
    from napari_mosaik.predictor import interval_metrics, slide_mean_interval

    found: dict[str, Any] = dict.fromkeys(INTERVAL_COLUMNS)  # None: too few to calibrate
    calibrated = record.get("intervals")
    if calibrated is None:
        reasons = (text for text in record["warnings"] if text.startswith("no intervals"))
        why = next(reasons, "no intervals: the predictor was trained without them")
        return {**found, "notes": [f"{why}; so there is no guarantee at case level"]}
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
    found |= interval_metrics(measured, limits, grid.cells)
    if use.any():
        found["slide_mean"] = slide_mean_interval(
            calibrated["fields"], grid.cells[use], pitch, measured[use], table["suv_norm"][use]
        )
    return {**found, "notes": notes}


def _warnings(inputs: StepContext) -> list[str]:
    """What makes the comparison uncertain, or too good to be true."""
    warning = low_confidence_warning(inputs.read(ALIGNMENT["pet"]), f"{inputs.case_name}: the PET")
    optimistic = development_warning(inputs.case_name) if inputs.has(DEVELOPMENT) else ""
    return [text for text in (warning, optimistic) if text]


REVIEW = Step(
    name="review",
    title="Review",
    about="Compares predicted with measured uptake per tile, and with simple baseline models.",
    page="Review and report",
    params=ReviewParams,
    reads=(TILES, PREDICTION, PREDICTION_RECORD, UPTAKE, ALIGNMENT["pet"]),
    may_read=(UPTAKE_CLUSTERS, DEVELOPMENT, SUV, SUV_RECORD, INPUT_SPREAD_RECORD),
    writes=(METRICS,),
    body=_body,
    check=check_suv_unit,
    revision=7,
)
