"""Compare predicted with measured uptake, next to simple baselines."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

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
from napari_mosaik.core.frame import FloatArray, Transform
from napari_mosaik.core.params import Params, setting
from napari_mosaik.core.table import Table
from napari_mosaik.uptake import tile_uptake
from napari_mosaik.uptake.body_size import lean_mass_kg
from napari_mosaik.workflow.leaks import seen_file
from napari_mosaik.workflow.parallel import beside
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext
from napari_mosaik.workflow.steps.align import low_confidence_warning, transform_of
from napari_mosaik.workflow.steps.predict import INTERVAL_COLUMNS
from napari_mosaik.workflow.steps.spatial import uptake_classes
from napari_mosaik.workflow.suv import check_suv_unit

if TYPE_CHECKING:
    from napari_mosaik.predictor import TargetScale

__all__ = ["REVIEW", "ReviewParams", "development_warning"]

_PREFIX = "baseline_"
_DRAWS = 500
"""Error fields drawn for the interval of the slide's mean."""
NEIGHBOURS = "neighbour_idw"
"""Upper reference: what the measured uptake of the neighbouring tiles says of a tile."""


class ReviewParams(Params):
    """Settings of the comparison: how far the measured SUV is known."""

    draws: int = setting(
        16, "Draws of dose, weight and registration of the PET; 0: none.", ge=0, le=2000
    )
    registration: Literal["own", "voxel"] = setting(
        "own",
        "Error of the registration of the PET: as estimated (one voxel without an estimate), "
        "or always one voxel to each side.",
        choices={"own": "as the registration states", "voxel": "one voxel to each side"},
    )
    dose_error: float = setting(
        0.05,
        "Relative SD of the dose and of the calibration of the scanner.",
        label="Dose",
        ge=0,
        le=1,
    )
    weight_error: float = setting(
        0.02, "Relative SD of the body weight.", label="Weight", ge=0, le=0.5
    )
    seed: int = setting(0, "Random seed of the draws.", ge=0, advanced=True)


def _body(inputs: StepContext, params: ReviewParams) -> Generator[Progress, None, Results]:
    comparing = Progress(0.0, 1, "comparing")
    return (yield from beside(partial(_compared, inputs, params), comparing))


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
    measured = target.normalise(uptake["suv"], clip=False)
    block = record.get("block", {})
    counted = np.ones(len(grid), bool)
    if block:  # the other tiles have trained the model, or lie near those that have
        counted = held_out_tiles(grid.cells, block)
    measured = np.where(counted, measured, np.nan)
    predicted = np.where(counted, np.asarray(table["suv_norm"], float), np.nan)
    spread = _measured_spread(inputs, params, target, predicted)
    seen = seen_file(inputs.source_contents(), record.get("training_files", {}))
    # None: the training lacks what it reads
    known, columns = set(table), {name: _PREFIX + name for name in ABOUT}
    baselines = {name: table[one] if one in known else None for name, one in columns.items()}
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
            "warnings": [*record["warnings"], *_leaks(seen, block), *_warnings(inputs)],
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


def _measured_spread(
    inputs: StepContext, params: ReviewParams, target: TargetScale, predicted: ArrayLike
) -> dict[str, Any] | None:
    """How far the measured SUV is known, and what that means for the error; None without draws.

    Each draw moves the PET, and multiplies the SUV as another dose and weight would.
    *predicted* (n,), normalised SUV, is NaN where a tile does not count.  ``mae`` and ``r2`` are
    the range (90 %) of the errors against the drawn measurements: how much depends on the PET, and
    no interval of the error.
    """
    from napari_mosaik.predictor import input_draws, input_spread
    from napari_mosaik.predictor.metrics import mae, r2
    from napari_mosaik.register import registration_error

    if not params.draws or not (inputs.has(SUV) and inputs.has(SUV_RECORD)):
        return None
    grid, suv, record = inputs.read(TILES), inputs.read(SUV), inputs.read(SUV_RECORD)
    document = inputs.read(ALIGNMENT["pet"])
    to_reference, frame = transform_of(document), grid.lattice.frame
    voxel_um = max(suv.lattice.spacing_um) * to_reference.scale
    error = registration_error(document, voxel_um, params.registration)
    draws = input_draws(params.draws, len(_MEASURED_SOURCES), params.seed)
    found = []
    for row, column, dose, weight in draws:
        shift = Transform.similarity(
            frame, frame, shift_um=(error["sd_um"] * row, error["sd_um"] * column)
        )
        factor = math.exp(-params.dose_error * dose) * _weight_factor(
            record, math.exp(params.weight_error * weight)
        )
        value = tile_uptake(suv, grid, to_reference.then(shift)) * factor
        found.append(target.normalise(value, clip=False))
    drawn = np.stack(found)
    errors = {
        name: np.percentile([function(one, predicted) for one in drawn], [5.0, 95.0])
        for name, function in (("mae", mae), ("r2", r2))
    }
    return {
        "draws": params.draws,
        "seed": params.seed,
        "registration": error,
        "dose_error": params.dose_error,
        "weight_error": params.weight_error,
        **input_spread(draws, _MEASURED_SOURCES, drawn).summary(),
        **{name: {"low": float(low), "high": float(high)} for name, (low, high) in errors.items()},
    }


_MEASURED_SOURCES = ("registration", "registration", "dose", "weight")


def _weight_factor(record: Mapping[str, Any], factor: float) -> float:
    """What another body weight does to an SUV of the record's kind."""
    if record.get("kind") == "bsa":
        return float(factor**0.425)  # Du Bois
    terms = {term["name"]: term["value"] for term in record.get("terms", ())}
    weight, height, sex = (terms.get(name) for name in ("weight_kg", "height_cm", "sex"))
    if record.get("kind") != "lbm" or not (weight and height and sex in ("M", "F", "O")):
        return factor
    lean = (lean_mass_kg(kg, height, sex) for kg in (weight * factor, weight))
    drawn, stated = lean
    return drawn / stated


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
) -> dict[str, Any]:
    """How often the intervals hold the measured value, how wide they are, and what they promise.

    A kind that could not be calibrated is None; the notes say why there is no interval at all.
    """
    from napari_mosaik.predictor import draw_errors, interval_metrics

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
    """What it means for the error that the measured uptake ranked or preceded corrections."""
    return (
        f"case {case} is a development case: its measured uptake ranked the review queue or was "
        "shown before a correction, so its prediction error is optimistic"
    )


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
