"""Predict the uptake of every tile with a trained network, and map it over the tissue."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import (
    COMPUTED_ON,
    PREDICTION,
    PREDICTION_MAP,
    PREDICTION_RECORD,
    RECOMPUTED,
    REFERENCE,
    SLIDES,
    TILES,
    TISSUE,
)
from napari_mosaik.core.params import Params, setting
from napari_mosaik.core.table import Table
from napari_mosaik.core.text import same_words
from napari_mosaik.io.case import Case
from napari_mosaik.workflow.leaks import seen_file
from napari_mosaik.workflow.parallel import beside
from napari_mosaik.workflow.predictor_inputs import (
    ALWAYS_READ,
    OF_SLIDE,
    check_tiles,
    earlier_prediction,
    prediction_shares,
    predictor_inputs,
)
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext
from napari_mosaik.workflow.suv import check_suv_unit

if TYPE_CHECKING:
    from napari_mosaik.predictor import (
        Prediction,
        TileInputs,
        TrainedModel,
    )

__all__ = ["INTERVAL_COLUMNS", "PREDICT", "PredictParams", "prediction_columns"]

MAP_SPACING_UM = 50.0


INTERVAL_COLUMNS = {"tile": "suv_norm_{}", "block": "suv_norm_block_{}"}
_INTERVAL_WORDS = {
    "tile": "a tile of a new slide of these patients",
    "block": "all tiles of a block of 7 x 7 at once",
}


class PredictParams(Params):
    """Settings of the prediction."""

    model: str = setting("", "Hash of the trained network in the case's models folder.", model=True)


def _body(inputs: StepContext, params: PredictParams) -> Generator[Progress, None, Results]:
    model, tile_data = yield from predictor_inputs(inputs, params.model)
    from napari_mosaik.predictor import TrainParams, network_device, predict, predict_baselines
    from napari_mosaik.spatial import parameter_map

    card, earlier = model.card, None
    settings = TrainParams.parse(card["settings"], "model card")
    if settings.architecture == "tile":
        earlier = earlier_prediction(inputs, tile_data, settings.curves)
    device = network_device(settings)
    if inputs.previous_record().get(COMPUTED_ON) != device.record():
        earlier = None  # computed elsewhere, so all tiles are predicted again
    _, known, predicted = prediction_shares(len(tile_data))
    predicting = partial(predict, model, tile_data, earlier, device)
    prediction = yield from beside(predicting, Progress(known, 1, "predicting"))
    n_changed = len(tile_data) if earlier is None else int(earlier.changed.sum())
    inputs.note(RECOMPUTED, n_changed)
    inputs.note(COMPUTED_ON, device.record())
    columns, about, units = prediction_columns(model, tile_data, prediction)
    comparing = Progress(predicted, 1, "predicting with the baselines")
    baselines = yield from beside(partial(predict_baselines, model, tile_data), comparing)
    for name, values in baselines.items():
        if values is not None:
            columns[f"baseline_{name}"] = values
            about[f"baseline_{name}"] = f"normalised SUV: {card['baselines'][name]['about']}"
    unit = card["suv_unit"]
    table = Table(columns, dict.fromkeys(units, unit), about, inputs.read(TILES).lattice.frame)
    yield Progress((1 + predicted) / 2, 1, "mapping the prediction")
    grid, mask = inputs.read(TILES), inputs.read(TISSUE[REFERENCE])
    suv_map = parameter_map(grid, prediction.suv, mask, MAP_SPACING_UM, unit=unit)
    return {
        PREDICTION: table,
        PREDICTION_MAP: suv_map,
        PREDICTION_RECORD: {
            **_record(model, inputs, params, tile_data),
            "device": device.description,
            "notes": list(device.notes),
        },
    }


def prediction_columns(
    model: TrainedModel, tiles: TileInputs, prediction: Prediction
) -> tuple[dict[str, NDArray[Any]], dict[str, str], list[str]]:
    """Columns (n,) of the table `PREDICTION`, what each is, and the names of those in SUV."""
    from napari_mosaik.predictor import out_of_range
    from napari_mosaik.predictor.inputs import CLASS_WORDS
    from napari_mosaik.predictor.uncertainty import prediction_intervals

    columns: dict[str, NDArray[Any]] = {
        "suv_norm": prediction.suv_norm,
        "suv": prediction.suv,
        "class_label": prediction.class_label,
        **{f"class_{i}": prediction.class_probability[:, i] for i in range(5)},
    }
    about = {
        "suv_norm": "predicted SUV; 0 and 1 are the range of the training tiles",
        "suv": "predicted SUV",
        "class_label": "most probable uptake class, 0 to 4; -1 not predicted",
        **{
            f"class_{i}": f"probability of the uptake class '{c}'"
            for i, c in enumerate(CLASS_WORDS)
        },
    }
    units = ["suv"]
    record = model.card.get("intervals")
    limits = {} if record is None else prediction_intervals(record, prediction.suv_norm)
    nothing = np.full(len(tiles), np.nan)
    for kind, name in INTERVAL_COLUMNS.items():
        for side, limit in zip(("low", "high"), limits.get(kind, (nothing, nothing)), strict=True):
            columns[name.format(side)] = limit
            about[name.format(side)] = (
                f"{side} end of the 90 % interval for {_INTERVAL_WORDS[kind]}; NaN: not available"
            )
    if len(prediction.members) > 1:
        for number, member in enumerate(prediction.members, 1):
            columns[f"member_{number}"] = member
            about[f"member_{number}"] = f"normalised SUV by network {number} of the ensemble"
    if np.isfinite(prediction.source).any():
        columns["source"] = prediction.source
        about["source"] = (
            "contribution of the tile before the scanner's blur; the blur hides what is smaller "
            "than the scanner sees, so it is a fit, and no measurement"
        )
        units.append("source")
    outside = out_of_range(model, tiles)
    if outside is not None:
        columns["out_of_range"] = outside & np.isfinite(prediction.suv_norm)
        about["out_of_range"] = "1: the tile is unlike any training tile"
    return columns, about, units


def _record(
    model: TrainedModel, inputs: StepContext, params: PredictParams, tiles: TileInputs
) -> dict[str, Any]:
    card, content = model.card, tiles.content()
    patients = {same_words(entry["patient"]) for entry in card["cases"]}
    training_cases = [entry["case"] for entry in card["cases"]]
    copies = [entry["case"] for entry in card["cases"] if entry.get("content") == content]
    files = {case: dict(data.get("files", {})) for case, data in card.get("data", {}).items()}
    slides = inputs.source_contents(*SLIDES.values())
    seen = inputs.case_name in training_cases or bool(copies or seen_file(slides, files))
    block = card.get("block", {}) if inputs.case_name in training_cases else {}
    if seen and not block:
        name = seen_file(slides, files) or f"case {(copies or [inputs.case_name])[0]}"
        inputs.warn(f"the predictor was trained on this tissue ({name}): no fair prediction")
    learnt, doubts = _learnt_width(card)
    missing = int((~tiles.usable).sum())
    not_predicted = {"no antibody curve": missing} if missing else {}
    return {
        "model": params.model,
        "split": card["split"],
        "training_cases": training_cases,
        "shared_patient": same_words(inputs.patient) in patients,
        "seen_in_training": seen,
        "training_files": files,
        "block": block,
        "proxies": list(card["proxies"]),
        "target": dict(card["target"]),
        "unit": card["suv_unit"],
        "seed": card["seed"],
        "architecture": card["settings"]["architecture"],
        "members": int(card["settings"]["members"]),
        "learnt_fwhm_mm": None if learnt is None else learnt / 1000.0,
        "scanner_fwhm_mm": card["fwhm_um"] / 1000.0,
        "not_predicted": not_predicted,
        "intervals": card.get("intervals"),
        "baselines": sorted(name for name, b in card["baselines"].items() if b is not None),
        "warnings": [*card["warnings"], *doubts],
    }


_WIDTH_RATIO = 1.33
"""A learnt width that differs by more than this factor from the scanner's is a warning."""


def _learnt_width(card: Mapping[str, Any]) -> tuple[float | None, list[str]]:
    """Mean width that the networks learnt, µm of CD34, and a warning where it is implausible."""
    widths = [one["learnt_fwhm_um"] for one in card["members"] if "learnt_fwhm_um" in one]
    if not widths:
        return None, []
    learnt, scanner = float(np.mean(widths)), float(card["fwhm_um"])
    if 1 / _WIDTH_RATIO <= learnt / scanner <= _WIDTH_RATIO:
        return learnt, []
    return learnt, [
        f"the networks see the scanner as {learnt / 1000:.2f} mm wide, but it is "
        f"{scanner / 1000:.2f} mm on the section: check the registration of the PET of the "
        "training cases, and 'fwhm_mm' in case.toml"
    ]


def _check_model(folder: Path) -> None:
    from napari_mosaik.predictor.model import check_folder

    check_folder(folder)


def _check(case: Case, recipe: Mapping[str, Any]) -> None:
    """Raise `InputError` if a case is tiled, or its SUV set, otherwise than its predictor knows."""
    check_suv_unit(case, recipe)
    check_tiles(case, recipe["predict"].model, recipe["tiles"])


PREDICT = Step(
    name="predict",
    title="Prediction",
    about="Predicts the SUV of each tile from histology and kinetics with a trained network.",
    page="Predictor",
    params=PredictParams,
    reads=ALWAYS_READ,
    may_read=(*OF_SLIDE["he"], *OF_SLIDE["caix"]),
    writes=(PREDICTION, PREDICTION_MAP, PREDICTION_RECORD),
    body=_body,
    check=_check,
    needs_model="model",
    check_model=_check_model,
    revision=3,
)
