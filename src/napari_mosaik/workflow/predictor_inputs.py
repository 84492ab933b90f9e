"""What a trained predictor reads of a case, and which tiles a change of it concerns.

    stored results ─► `tile_inputs` ─► inputs of the network, for training, prediction and what-if
    results before and now ─► `earlier_prediction` ─► tiles to predict again

Nothing of the PET is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mosaik.core.artifact import Artifact, Progress
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    CAIX_CELLS,
    CLASSES,
    CLUSTERS,
    CORRECTED_NUCLEUS_OBJECTS,
    CORRECTED_VESSELS,
    KINETICS,
    MEASURED_CLASSES,
    PARAMETERS,
    PREDICTION,
    REFERENCE,
    STAIN_TITLES,
    TILE_KINETICS,
    TILES,
    TISSUE,
    label_column,
)
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.progress import part_of_item
from napari_mosaik.io.files import read_json
from napari_mosaik.kinetics import CURVE_NAMES, TILE_TIMES_H, curve_columns
from napari_mosaik.register import transform_of
from napari_mosaik.workflow.changes import boxes_of, same
from napari_mosaik.workflow.parallel import beside
from napari_mosaik.workflow.step_context import StepContext

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case
    from napari_mosaik.predictor import EarlierPrediction, TileInputs, TrainedModel, TrainParams
    from napari_mosaik.tissue.grid import TileParams

__all__ = [
    "ALWAYS_READ",
    "OF_SLIDE",
    "PREDICTOR_READS",
    "check_tiles",
    "checked_model",
    "earlier_prediction",
    "prediction_shares",
    "predictor_inputs",
    "tile_inputs",
]

FRACTION_SPACING_UM = 10.0
_LOAD_S, _REST_S = 2.0, 0.25
_READ_S, _PREDICT_S = (0.45, 0.005), (0.05, 0.0004)
"""Times of a prediction, s: until the library is there, all of its end, and, for any case and for
each tile, of reading the inputs and of the networks."""
_TISSUE_READ, _CLASSES_READ, _VESSELS_READ = 0.3, 0.4, 0.9
"""Shares of the time of reading the inputs after its parts."""

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


def prediction_shares(n_tiles: int) -> tuple[float, float, float]:
    """What is done of a prediction (fraction of 1) when so many tiles (count) are predicted.

    Before it: when the library is there, and when the inputs are.
    """
    read, predicted = (own + each * n_tiles for own, each in (_READ_S, _PREDICT_S))
    ends = np.cumsum([_LOAD_S, read, predicted, _REST_S])
    loaded, known, done = (float(end / ends[-1]) for end in ends[:3])
    return loaded, known, done


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
    with part_of_item(0.0, _TISSUE_READ):
        inside = area_fractions(tissue, lattice)[..., 0]
    if without_classes:
        classes = np.zeros((*lattice.shape, 2))
    else:
        to_reference = transform_of(read(ALIGNMENT["he"]))
        found = read(CLASSES)
        with part_of_item(_TISSUE_READ, _CLASSES_READ):
            classes = area_fractions(found, lattice, MEASURED_CLASSES, to_reference, oversample=2)
    with part_of_item(_CLASSES_READ, _VESSELS_READ):
        vessels = area_fractions(read(CORRECTED_VESSELS), lattice, oversample=5)[..., 0]
    return stack_fractions(classes[..., 0], classes[..., 1], vessels, inside, lattice)


def predictor_inputs(
    inputs: StepContext, model_hash: str
) -> Generator[Progress, None, tuple[TrainedModel, TileInputs]]:
    """The trained network of that hash in the case, and what it reads of the n tiles.

    Raises
    ------
    InputError
        The case lacks a slide or a tile parameter that the network was trained with.
    """
    loading = Progress(0.0, 1, "loading the network library, about 3 s")
    model = yield from beside(partial(checked_model, inputs.model_folder(model_hash)), loading)
    from napari_mosaik.predictor import TrainParams

    card = model.card
    for part in ("suv_unit", "split"):
        if part not in card:
            raise InputError(
                f"the card of the predictor {model.hash[:12]} lacks '{part}': it was not trained "
                "on cases; train one with: napari-mosaik train"
            )
    first, second, third = card["proxies"]
    settings, proxies = TrainParams.parse(card["settings"], "model card"), (first, second, third)
    absent = tuple(card.get("absent", ()))
    for slide, needed in OF_SLIDE.items():
        if slide not in absent and not all(inputs.has(one) for one in needed):
            raise InputError(
                f"the predictor was trained with {STAIN_TITLES[slide]}, which case "
                f"{inputs.case_name} lacks; train one without it, on cases that lack it too"
            )
    read = partial(
        tile_inputs,
        inputs.read,
        inputs.case_name,
        inputs.patient,
        proxies,
        settings,
        absent,
        card["features"],
    )
    loaded, known, _ = prediction_shares(len(inputs.read(TILES)))
    reading = Progress(loaded, 1, "reading the inputs")
    return model, (yield from beside(read, reading, known))


def checked_model(folder: Path) -> TrainedModel:
    """The network of a folder; loads its library, which takes seconds the first time."""
    from napari_mosaik.predictor import TrainedModel, check_card

    model = TrainedModel.load(folder)
    check_card(model)
    return model


def earlier_prediction(
    inputs: StepContext, tiles: TileInputs, curves: str
) -> EarlierPrediction | None:
    """What the step predicted before, and for which tiles an input may have changed since.

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


def check_tiles(case: Case, model_hash: str, tiles: TileParams) -> None:
    """Raise `InputError` if a case has other tiles than those its predictor was trained on.

    Before anything runs; says nothing of given tiles, and of a card that lacks what it compares.
    """
    path, stored = case.model_folder(model_hash) / "card.json", case.store.origin(TILES)
    if not path.is_file() or (stored is not None and stored.is_given):
        return
    from napari_mosaik.predictor.inputs import tiling
    from napari_mosaik.predictor.multiscale import SCALE_TILES
    from napari_mosaik.predictor.params import TrainParams

    try:
        card = read_json(path)
        windows = TrainParams.parse(card["settings"], "model card").windows_px[:2]
        known = [float(card["scales"][name]["spacing_um"]) for name in SCALE_TILES][:2]
    except (KeyError, TypeError, ValueError, InputError):
        return
    edges = [(n - 1) * tiles.stride_um + tiles.size_um for n in SCALE_TILES.values()]
    own = [edge / px for edge, px in zip(edges, windows, strict=False)]
    if not np.allclose(own, known, rtol=1e-3):
        raise InputError(
            f"case {case.name}: {tiling(windows, own)}, but the model was trained on "
            f"{tiling(windows, known)}; tile the case as those of the training"
        )
