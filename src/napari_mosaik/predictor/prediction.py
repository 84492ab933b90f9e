"""Predict the uptake of every tile of a case with a trained model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.learning.devices import thread_count
from napari_mosaik.predictor.baselines import ARRAY_PREFIX
from napari_mosaik.predictor.inputs import N_CLASSES, TileInputs
from napari_mosaik.predictor.model import CARD_FORMAT, TrainedModel
from napari_mosaik.predictor.network import MosaikNetwork
from napari_mosaik.predictor.params import NetworkParams

__all__ = [
    "EarlierPrediction",
    "Prediction",
    "batch_tensors",
    "build_network",
    "check_fit",
    "infer",
    "predict",
]

_CHUNK = 64


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Predicted uptake per tile, without an interval: none is computed.

    Parameters
    ----------
    suv_norm
        (n,) normalised SUV in [0, 1]; NaN for tiles with missing inputs.
    suv
        (n,) the same in the unit of the training SUV.
    class_probability
        (n, 5) probability of average, hot, cold, high-low, low-high.
    class_label
        (n,) most probable class, -1 where not predicted.
    model
        Hash of the model.
    """

    suv_norm: FloatArray
    suv: FloatArray
    class_probability: FloatArray
    class_label: NDArray[np.int8]
    model: str


@dataclass(frozen=True, slots=True, eq=False)
class EarlierPrediction:
    """What the same model predicted for the same tiles before some of their inputs changed.

    Parameters
    ----------
    suv_norm, class_probability
        As in `Prediction`: (n,) and (n, 5), dimensionless.
    changed
        (n,) mask of the tiles of which an input may have changed since.
    """

    suv_norm: FloatArray
    class_probability: FloatArray
    changed: NDArray[np.bool_]


def batch_tensors(inputs: TileInputs, rows: ArrayLike) -> tuple[Tensor, Tensor, Tensor]:
    """Windows (b, 3, 4, w, w), codes (b, 3, 11, 11) and curves (b, times, 3) of the tiles *rows*.

    Area fraction times 255, label, and the unit of the curves.
    """
    rows = np.asarray(rows)
    windows = np.stack([scale.windows(rows) for scale in inputs.scales], axis=1)
    curves = np.ascontiguousarray(inputs.tile_curves(rows), np.float32)
    return torch.from_numpy(windows), torch.from_numpy(inputs.codes[rows]), torch.from_numpy(curves)


def infer(
    network: nn.Module,
    inputs: TileInputs,
    rows: ArrayLike,
    earlier: EarlierPrediction | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Class probabilities (b, 5) and normalised SUV (b,) of the tiles *rows* (b,), no dropout.

    Batches without a changed tile keep the values of an *earlier* prediction.  The others are
    computed whole: the last digits of a tile depend on those that it is computed with.
    """
    rows = np.asarray(rows)
    network.eval()
    probability = np.empty((len(rows), N_CLASSES))
    suv = np.empty(len(rows))
    with torch.no_grad():
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            if earlier is not None and not earlier.changed[rows[part]].any():
                probability[part] = earlier.class_probability[rows[part]]
                suv[part] = earlier.suv_norm[rows[part]]
                continue
            logits, value = network(*batch_tensors(inputs, rows[part]))
            probability[part] = torch.softmax(logits, dim=1).numpy()
            suv[part] = value.numpy()
    return probability, suv


def build_network(model: TrainedModel) -> MosaikNetwork:
    """The network with a model's weights."""
    params = NetworkParams.parse(
        {name: model.card["settings"][name] for name in NetworkParams.model_fields}, "model card"
    )
    network = MosaikNetwork(params, len(model.card["times_h"]))
    tensors = {
        name: torch.from_numpy(np.array(a))
        for name, a in model.weights.items()
        if not name.startswith(ARRAY_PREFIX)
    }
    network.load_state_dict(tensors)
    return network.eval()


def check_fit(model: TrainedModel, inputs: TileInputs) -> None:
    """Raise `InputError` when the case lacks inputs that the model was trained on."""
    card = model.card
    if card.get("format") != CARD_FORMAT:
        raise InputError(
            f"the predictor {model.hash[:8]} was trained by another version of this program "
            f"(format {card.get('format')}, not {CARD_FORMAT}); train it again"
        )
    if inputs.window_px != card["settings"]["window_px"]:
        raise InputError(
            f"case {inputs.case}: windows of {inputs.window_px} px, but the model takes "
            f"{card['settings']['window_px']} px"
        )
    if list(inputs.proxies) != list(card["proxies"]):
        raise InputError(
            f"case {inputs.case}: cluster maps of {', '.join(inputs.proxies)}, but the model takes "
            f"{', '.join(card['proxies'])}"
        )
    times = np.asarray(card["times_h"], float)
    if times.shape != inputs.times_h.shape or not np.allclose(times, inputs.times_h):
        raise InputError(
            f"case {inputs.case}: curves at {inputs.times_h.tolist()} h, but the model takes "
            f"{times.tolist()} h"
        )
    inputs.require_modalities()


def predict(
    model: TrainedModel, inputs: TileInputs, earlier: EarlierPrediction | None = None
) -> Prediction:
    """Predict the uptake of every tile.

    Parameters
    ----------
    model
        A trained model.
    inputs
        (n) tiles of one case with the model's window size, proxies and times.
    earlier
        What may be kept; the result is the same without it.

    Returns
    -------
    Prediction
        NaN for tiles without curves; the order of the tiles does not matter.

    Raises
    ------
    InputError
        A whole part of the input is missing or differs from what the model was trained on; it is
        never replaced.
    """
    check_fit(model, inputs)
    rows = np.flatnonzero(inputs.usable)
    if earlier is not None and not np.array_equal(np.isfinite(earlier.suv_norm), inputs.usable):
        earlier = None  # other tiles have inputs: every batch holds others
    suv_norm = np.full(len(inputs), np.nan)
    probability = np.full((len(inputs), N_CLASSES), np.nan)
    label = np.full(len(inputs), -1, np.int8)
    with thread_count(int(model.card["settings"]["threads"])):
        probability[rows], suv_norm[rows] = infer(build_network(model), inputs, rows, earlier)
    label[rows] = probability[rows].argmax(axis=1)
    return Prediction(suv_norm, model.target.restore(suv_norm), probability, label, model.hash)
