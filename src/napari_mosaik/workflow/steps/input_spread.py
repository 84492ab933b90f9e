"""How much the prediction of each tile would change within the limits of what was measured.

Each draw moves all inputs at once (`DrawnInputs`) and predicts the case again with the model as it
is.  Off by default (no draws): every draw predicts the whole case again, also after each
correction.  Nothing of the PET is read.  What concerns the measured SUV (dose, weight, registration
of the PET) is drawn in `review`, where it is compared with the prediction.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    COMPUTED_ON,
    CORRECTED_VESSEL_OBJECTS,
    INPUT_SPREAD,
    INPUT_SPREAD_RECORD,
    NUCLEUS_OBJECTS,
    PREDICTION,
    PREDICTION_RECORD,
    TILES,
    VESSEL_OBJECTS,
)
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.table import Table
from napari_mosaik.workflow.drawn_inputs import SPREAD_SOURCES, DrawnInputs, InputSpreadParams
from napari_mosaik.workflow.parallel import beside
from napari_mosaik.workflow.predictor_inputs import ALWAYS_READ, OF_SLIDE, checked_model
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext

__all__ = ["INPUT_SPREAD_STEP"]


def _body(inputs: StepContext, params: InputSpreadParams) -> Generator[Progress, None, Results]:
    grid, record = inputs.read(TILES), inputs.read(PREDICTION_RECORD)
    if not params.draws:
        nothing = dict.fromkeys(SPREAD_SOURCES, np.full(len(grid), np.nan))
        table = _table(inputs, np.full(len(grid), np.nan), nothing, np.full(len(grid), np.nan))
        return {INPUT_SPREAD: table, INPUT_SPREAD_RECORD: {"draws": 0, "model": record["model"]}}
    loading = Progress(0.0, 1, "loading the network library, about 3 s")
    model = yield from beside(partial(checked_model, inputs.model_folder(record["model"])), loading)
    from napari_mosaik.predictor import (
        TrainedModel,
        TrainParams,
        input_draws,
        input_spread,
        network_device,
        predict,
    )

    reading = Progress(0.05, 1, "reading the inputs")
    drawn = yield from beside(partial(DrawnInputs, inputs, params, model.card), reading)
    settings = dict(model.card["settings"])
    settings["members"] = min(params.networks, int(settings["members"]))
    few = TrainedModel(model.weights, {**model.card, "settings": settings})
    device = network_device(TrainParams.parse(settings, "model card"))
    draws = input_draws(params.draws, len(drawn.names), params.seed)

    def predicted(numbers: FloatArray) -> FloatArray:
        return predict(few, drawn.at(numbers), device=device).suv_norm

    found = []
    for number, numbers in enumerate(draws):
        share, words = 0.2 + 0.8 * number / len(draws), f"draw {number + 1} of {len(draws)}"
        found.append((yield from beside(partial(predicted, numbers), Progress(share, 1, words))))
    inputs.note(COMPUTED_ON, device.record())
    spread = input_spread(draws, drawn.sources, np.stack(found))
    shares = {name: spread.shares.get(name, np.zeros(len(grid))) for name in SPREAD_SOURCES}
    document = {
        "model": record["model"],
        "draws": params.draws,
        "networks": settings["members"],
        "seed": params.seed,
        "registration": drawn.registration,
        "drawn": [f"{source}: {name}" for source, name in drawn.names],
        **spread.summary(),
    }
    return {
        INPUT_SPREAD: _table(inputs, spread.sd, shares, spread.rest),
        INPUT_SPREAD_RECORD: document,
    }


def _table(
    inputs: StepContext, sd: FloatArray, shares: Mapping[str, FloatArray], rest: ArrayLike
) -> Table:
    record = inputs.read(PREDICTION_RECORD)
    span = float(record["target"]["high"]) - float(record["target"]["low"])
    columns: dict[str, NDArray[Any]] = {"suv_norm_input_sd": sd, "suv_input_sd": sd * span}
    words = "SD of the predicted SUV over the draws of the inputs; empty: not predicted, or no draw"
    about = {"suv_norm_input_sd": f"normalised: {words}", "suv_input_sd": words}
    for name, title in SPREAD_SOURCES.items():
        columns[f"share_{name}"] = shares[name]
        about[f"share_{name}"] = f"share of the variance by {title} alone"
    columns["share_rest"] = np.asarray(rest, float)
    about["share_rest"] = "share of the variance that no source has alone"
    return Table(columns, {"suv_input_sd": record["unit"]}, about, inputs.read(TILES).lattice.frame)


INPUT_SPREAD_STEP = Step(
    name="input_spread",
    title="Spread from the inputs",
    about="Draws the inputs of the prediction within their errors (registration, thresholds, "
    "calibration, kinetics), and states how much the prediction of each tile changes.",
    page="Predictor",
    params=InputSpreadParams,
    reads=(*ALWAYS_READ, PREDICTION, PREDICTION_RECORD),
    may_read=(
        *OF_SLIDE["he"],
        *OF_SLIDE["caix"],
        ALIGNMENT["caix"],
        CORRECTED_VESSEL_OBJECTS,
        VESSEL_OBJECTS,
        NUCLEUS_OBJECTS,
    ),
    writes=(INPUT_SPREAD, INPUT_SPREAD_RECORD),
    body=_body,
)
