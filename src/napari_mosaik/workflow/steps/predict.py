"""Predict the uptake of every tile with a trained network, and map it over the tissue."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Artifact, Progress
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    CAIX_CELLS,
    CLASSES,
    CLUSTERS,
    COMPUTED_ON,
    CORRECTED_NUCLEUS_OBJECTS,
    CORRECTED_VESSELS,
    KINETICS,
    MEASURED_CLASSES,
    PARAMETERS,
    PREDICTION,
    PREDICTION_MAP,
    PREDICTION_RECORD,
    RECOMPUTED,
    REFERENCE,
    SLIDES,
    STAIN_TITLES,
    TILE_KINETICS,
    TILES,
    TISSUE,
)
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.params import Params, setting
from napari_mosaik.core.table import Table
from napari_mosaik.core.text import same_words
from napari_mosaik.kinetics import CURVE_NAMES, TILE_TIMES_H, curve_columns
from napari_mosaik.workflow.changes import boxes_of, same
from napari_mosaik.workflow.leaks import seen_file
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext
from napari_mosaik.workflow.steps.align import transform_of
from napari_mosaik.workflow.steps.spatial import label_column
from napari_mosaik.workflow.suv import check_suv_unit

if TYPE_CHECKING:
    from napari_mosaik.predictor import (
        EarlierPrediction,
        Prediction,
        TileInputs,
        TrainedModel,
        TrainParams,
    )

__all__ = [
    "ALWAYS_READ",
    "INTERVAL_COLUMNS",
    "OF_SLIDE",
    "PREDICT",
    "PREDICTOR_READS",
    "PredictParams",
    "prediction_columns",
    "predictor_inputs",
    "tile_inputs",
]

_CLASSES = ("average", "hot", "cold", "high-low", "low-high")
FRACTION_SPACING_UM = 10.0
MAP_SPACING_UM = 50.0

OF_SLIDE: dict[str, tuple[Artifact[Any], ...]] = {
    "he": (CLASSES, ALIGNMENT["he"], CORRECTED_NUCLEUS_OBJECTS),
    "caix": (CAIX_CELLS, TILE_KINETICS),
}
"""What the network reads off a slide that a cohort may lack."""
ALWAYS_READ: tuple[Artifact[Any], ...] = (
    TILES,
    TISSUE[REFERENCE],
    CORRECTED_VESSELS,
    PARAMETERS,
    CLUSTERS,
    KINETICS,
)
PREDICTOR_READS: tuple[Artifact[Any], ...] = (*ALWAYS_READ, *OF_SLIDE["he"], *OF_SLIDE["caix"])
"""Results of a case that the network reads."""


class PredictParams(Params):
    """Settings of the prediction."""

    model: str = setting("", "Hash of the trained network in the case's models folder.", model=True)


def tile_inputs(
    read: Callable[[Artifact[Any]], Any],
    case: str,
    patient: str,
    proxies: tuple[str, str, str],
    settings: TrainParams,
    absent: Collection[str] = (),
    features: Sequence[str] | None = None,
) -> TileInputs:
    """The network's inputs for one case, from its stored results.

    Without the slides *absent* nothing is read that was measured on them, also where it is there.
    Of the tile parameters *features* are read, all of them if None.
    """
    from napari_mosaik.predictor import TileInputs, code_windows, edge_distance_um, fraction_pyramid
    from napari_mosaik.predictor.inputs import ABSENT_PROXY, INVALID_CODE

    grid, table, clusters = read(TILES), read(PARAMETERS), read(CLUSTERS)
    if "caix" in absent:  # the part that reads curves is cut out
        times_h, antibody = np.array(TILE_TIMES_H), np.zeros((len(TILE_TIMES_H), 3))
    else:
        times_h, antibody = _curves(read, settings.curves)
    nothing = np.full(len(grid), INVALID_CODE)
    for index, name in enumerate(proxies):
        if ABSENT_PROXY.get(index) not in absent and label_column(name) not in clusters:
            raise InputError(
                f"case {case} has no clusters of '{name}', which the model reads; measure that "
                "parameter, or train a model with the proxies of this case"
            )
    codes = np.stack(
        [
            nothing if ABSENT_PROXY.get(index) in absent else clusters[label_column(name)]
            for index, name in enumerate(proxies)
        ],
        axis=1,
    )
    names = tuple(table) if features is None else tuple(features)
    lost = [name for name in names if name not in table]
    if lost:
        raise InputError(
            f"case {case} lacks the tile parameter '{lost[0]}' that the model was trained on; "
            "train a model without it"
        )
    return TileInputs(
        case=case,
        patient=patient,
        scales=fraction_pyramid(_fractions(read, "he" in absent), grid, settings.windows_px),
        codes=code_windows(grid, codes),
        proxies=proxies,
        curves=antibody,
        times_h=times_h,
        features=table.matrix(names),
        feature_names=names,
        centres_um=grid.centres_um,
        cells=grid.cells,
        edge_um=edge_distance_um(grid),
        coverage=grid.coverage,
        absent=tuple(absent),
    )


def _curves(read: Callable[[Artifact[Any]], Any], which: str) -> tuple[FloatArray, FloatArray]:
    """Times (t,), h, and the curves of the patient (t, 3) or of every tile (n, t, 3)."""
    if which == "patient":
        table = read(KINETICS)
        return np.asarray(table["time_h"], float), table.matrix(CURVE_NAMES)
    table = read(TILE_KINETICS)
    curves = np.stack([table.matrix(curve_columns(name)) for name in CURVE_NAMES], axis=2)
    return np.array(TILE_TIMES_H), curves


def _fractions(read: Callable[[Artifact[Any]], Any], without_classes: bool) -> Any:
    """Area fractions of tissue classes and vessels on the reference section."""
    from napari_mosaik.predictor import area_fractions, stack_fractions

    tissue = read(TISSUE[REFERENCE])
    lattice = tissue.lattice.resized(FRACTION_SPACING_UM)
    inside = area_fractions(tissue, lattice)[..., 0]
    if without_classes:
        classes = np.zeros((*lattice.shape, 2))
    else:
        to_reference = transform_of(read(ALIGNMENT["he"]))
        found = read(CLASSES)
        classes = area_fractions(found, lattice, MEASURED_CLASSES, to_reference, oversample=2)
    vessels = area_fractions(read(CORRECTED_VESSELS), lattice, oversample=5)[..., 0]
    return stack_fractions(classes[..., 0], classes[..., 1], vessels, inside, lattice)


def predictor_inputs(
    inputs: StepContext, params: PredictParams
) -> Generator[Progress, None, tuple[TrainedModel, TileInputs]]:
    """The trained network of a case, and what it reads of the n tiles.

    Raises
    ------
    InputError
        The case lacks a slide or a tile parameter that the network was trained with.
    """
    yield Progress(0.0, 1, "loading the network library, about 3 s")
    from napari_mosaik.predictor import TrainedModel, TrainParams, check_card

    model = TrainedModel.load(inputs.model_folder(params.model))
    check_card(model)
    card = model.card
    for part in ("suv_unit", "split"):
        if part not in card:
            raise InputError(
                f"the card of the predictor {model.hash[:12]} lacks '{part}': it was not trained "
                "on cases; train one with: napari-mosaik train"
            )
    first, second, third = card["proxies"]
    yield Progress(0.3, 1, "reading the inputs")
    settings, proxies = TrainParams.parse(card["settings"], "model card"), (first, second, third)
    absent = tuple(card.get("absent", ()))
    for slide, needed in OF_SLIDE.items():
        if slide not in absent and not all(inputs.has(one) for one in needed):
            raise InputError(
                f"the predictor was trained with {STAIN_TITLES[slide]}, which case "
                f"{inputs.case_name} lacks; train one without it, on cases that lack it too"
            )
    return model, tile_inputs(
        inputs.read,
        inputs.case_name,
        inputs.patient,
        proxies,
        settings,
        absent,
        card["features"],
    )


def _body(inputs: StepContext, params: PredictParams) -> Generator[Progress, None, Results]:
    model, tile_data = yield from predictor_inputs(inputs, params)
    from napari_mosaik.predictor import TrainParams, network_device, predict, predict_baselines
    from napari_mosaik.spatial import parameter_map

    yield Progress(0.6, 1, "predicting")
    card, earlier = model.card, None
    settings = TrainParams.parse(card["settings"], "model card")
    if settings.architecture == "tile":
        earlier = _earlier(inputs, tile_data, settings.curves)
    device = network_device(settings)
    if inputs.previous_record().get(COMPUTED_ON) != device.record():
        earlier = None  # computed elsewhere, so all tiles are predicted again
    prediction = predict(model, tile_data, earlier, device)
    n_changed = len(tile_data) if earlier is None else int(earlier.changed.sum())
    inputs.note(RECOMPUTED, n_changed)
    inputs.note(COMPUTED_ON, device.record())
    columns, about, units = prediction_columns(model, tile_data, prediction)
    for name, values in predict_baselines(model, tile_data).items():
        if values is not None:
            columns[f"baseline_{name}"] = values
            about[f"baseline_{name}"] = f"normalised SUV: {card['baselines'][name]['about']}"
    unit = card["suv_unit"]
    table = Table(columns, dict.fromkeys(units, unit), about, inputs.read(TILES).lattice.frame)
    yield Progress(0.8, 1, "mapping the prediction")
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
        **{f"class_{i}": f"probability of the uptake class '{c}'" for i, c in enumerate(_CLASSES)},
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


INTERVAL_COLUMNS = {"tile": "suv_norm_{}", "block": "suv_norm_block_{}"}
_INTERVAL_WORDS = {
    "tile": "a tile of a new slide of these patients",
    "block": "all tiles of a block of 7 x 7 at once",
}

_FOLLOWED = (
    CLASSES,
    CORRECTED_VESSELS,
    CORRECTED_NUCLEUS_OBJECTS,
    CAIX_CELLS,
    PARAMETERS,
    CLUSTERS,
    TILE_KINETICS,
)
"""Inputs whose changes are followed to the tiles; any other change concerns every tile."""


def _earlier(inputs: StepContext, tiles: TileInputs, curves: str) -> EarlierPrediction | None:
    """What this step predicted before, and for which tiles an input may have changed since.

    Those are the tiles whose widest window, with a margin for its resampling, reaches a pixel that
    changed, whose window of clusters holds a label that changed, or whose own curves changed.
    """
    from napari_mosaik.predictor import CODE_CELLS, SCALE_TILES, EarlierPrediction

    table = inputs.previous_result(PREDICTION, *_FOLLOWED)
    windows = [inputs.changed_windows(one) for one in (CLASSES, CORRECTED_VESSELS)]
    clusters, kinetics = inputs.previous_input(CLUSTERS), inputs.previous_input(TILE_KINETICS)
    if table is None or clusters is None or kinetics is None:
        return None
    grid, changed = inputs.read(TILES), np.zeros(len(tiles), bool)
    widest = max(SCALE_TILES.values())
    margin = 2 * max(scale.spacing_um for scale in tiles.scales) + FRACTION_SPACING_UM
    reach = ((widest - 1) / 2 * grid.stride_um + margin) * math.sqrt(2)
    frames = (inputs.read(CLASSES), inputs.read(CORRECTED_VESSELS))
    transforms = (transform_of(inputs.read(ALIGNMENT["he"])), None)
    for where, image, transform in zip(windows, frames, transforms, strict=True):
        if where is None:
            return None
        changed[grid.meeting(*boxes_of(where, image.lattice, transform), reach)] = True
    labels = inputs.read(CLUSTERS)
    for name in map(label_column, tiles.proxies):
        if name not in clusters or len(clusters) != len(tiles):
            return None
        differ = np.append(~same(np.asarray(clusters[name]), np.asarray(labels[name])), False)
        changed |= differ[grid.windows(CODE_CELLS)].any(axis=(1, 2))
    now = inputs.read(TILE_KINETICS)
    for name in now if curves == "tile" else ():
        if name not in kinetics or len(kinetics) != len(tiles):
            return None
        changed |= ~same(np.asarray(kinetics[name]), np.asarray(now[name]))
    probability = np.stack([table[f"class_{i}"] for i in range(5)], axis=1)
    return EarlierPrediction(np.asarray(table["suv_norm"], float), probability, changed)


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
    check=check_suv_unit,
    needs_model="model",
    check_model=_check_model,
    revision=3,
)
