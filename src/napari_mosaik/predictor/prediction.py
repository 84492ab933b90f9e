"""Predict the uptake of every tile of a case with a trained model.

TileInputs ─► each network of the ensemble ─┐
         └──► boosting on scanner means ────┴─► mean: normalised SUV, SUV, interval
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.learning.devices import ComputeDevice, thread_count
from napari_mosaik.predictor.baselines import Baseline
from napari_mosaik.predictor.inputs import CODE_CELLS, N_CLASSES, TileInputs, tiling
from napari_mosaik.predictor.model import TrainedModel, check_format
from napari_mosaik.predictor.multiscale import FRACTIONS
from napari_mosaik.predictor.network import MosaikNetwork, SlideNetwork
from napari_mosaik.predictor.params import NetworkParams, TrainParams
from napari_mosaik.predictor.scene import SlideScene
from napari_mosaik.predictor.surroundings import Surroundings

__all__ = [
    "Attention",
    "EarlierPrediction",
    "Prediction",
    "attention_maps",
    "batch_tensors",
    "check_card",
    "check_fit",
    "infer",
    "member_network",
    "network_device",
    "predict",
]

_CHUNK = 64
COMPANIONS: Final = ("boosting_psf", "source_blur")
"""Baselines that the prediction may be averaged with."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Predicted uptake per tile.

    Parameters
    ----------
    suv_norm
        (n,) normalised SUV, dimensionless; NaN for tiles with missing inputs.
    suv
        (n,) the same in the unit of the training SUV.
    class_probability
        (n, 5) probability of average, hot, cold, high-low, low-high; NaN without class labels in
        training.
    class_label
        (n,) most probable class, -1 where not predicted.
    members
        (m, n) normalised SUV of each network of the ensemble; NaN as in *suv_norm*.
    source
        (n,) contribution of each tile before the scanner's blur, SUV, of the networks' mean; NaN
        where the network does not know the scanner.
    model
        Hash of the model.
    """

    suv_norm: FloatArray
    suv: FloatArray
    class_probability: FloatArray
    class_label: NDArray[np.int8]
    members: FloatArray
    source: FloatArray
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


def network_device(params: TrainParams) -> ComputeDevice:
    """Where a network with these settings computes: a slide at a time, or tiles in batches."""
    if params.architecture == "slide":
        return ComputeDevice.best(1, "slide")
    return ComputeDevice.best(params.batch_size, "tile")


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """How the network weights the cluster maps around n tiles; means over members and heads.

    A weight says how much of a cell goes into a mean inside the network.  It is not importance: a
    large weight on something that the rest ignores changes nothing.  It is not a cause either.

    Parameters
    ----------
    proxies
        Names of the three proxies.
    within
        (n, 3, 11, 11) weight of each cell of a map, a fraction; those of a map add up to 1.
    across
        (n, 3, 3) weight, a fraction, that a proxy (row) gives to the proxies (columns).
    model
        Hash of the model.
    """

    proxies: tuple[str, str, str]
    within: FloatArray
    across: FloatArray
    model: str

    @property
    def shares(self) -> FloatArray:
        """(n, 3) mean weight, a fraction, that the proxies give to each; they add up to 1."""
        return np.asarray(self.across.mean(axis=1), float)


def attention_maps(model: TrainedModel, inputs: TileInputs) -> Attention:
    """The attention of the network over the cluster maps around every tile.

    Raises
    ------
    InputError
        The case does not fit the model, or the network was trained without the cluster maps.
    """
    check_fit(model, inputs)
    card = model.card
    if "heterogeneity" in card["settings"].get("without", ()):
        raise InputError(
            f"the predictor {model.hash[:8]} was trained without the cluster maps: it has no "
            "attention over them"
        )
    codes = torch.from_numpy(np.ascontiguousarray(inputs.codes))
    with thread_count(int(card["settings"]["threads"])), torch.no_grad():
        found = [
            member_network(model, number).heterogeneity.attended(codes)
            for number in range(int(card["settings"]["members"]))
        ]
    within, across = (
        torch.stack(parts).double().mean(dim=0).numpy() for parts in zip(*found, strict=True)
    )
    cells = within.reshape(*within.shape[:2], CODE_CELLS, CODE_CELLS)
    return Attention(inputs.proxies, cells, across, model.hash)


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
    device: ComputeDevice | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Class probabilities (b, 5) and normalised SUV (b,) of the tiles *rows* (b,), no dropout.

    Batches without a changed tile keep the values of an *earlier* prediction.  The others are
    computed whole: the last digits of a tile depend on those that it is computed with.  *network*
    is on *device*, the CPU if None.
    """
    rows, device = np.asarray(rows), device or ComputeDevice.cpu(_CHUNK)
    network.eval()
    probability = np.empty((len(rows), N_CLASSES))
    suv = np.empty(len(rows))
    step = min(_CHUNK, device.batch_size) if device.has_gpu else _CHUNK
    with torch.no_grad(), device.exact():
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            if earlier is not None and not earlier.changed[rows[part]].any():
                probability[part] = earlier.class_probability[rows[part]]
                suv[part] = earlier.suv_norm[rows[part]]
                continue
            logits, value = network(*map(device.put, batch_tensors(inputs, rows[part])))
            probability[part] = device.fetch(torch.softmax(logits, dim=1)).numpy()
            suv[part] = device.fetch(value).numpy()
    return probability, suv


def member_network(model: TrainedModel, number: int) -> MosaikNetwork | SlideNetwork:
    """The network *number* of a model's ensemble, from 0."""
    card = model.card
    params = NetworkParams.parse(
        {name: card["settings"][name] for name in NetworkParams.model_fields}, "model card"
    )
    start = f"{number}."
    tensors = {
        name.removeprefix(start): torch.from_numpy(np.array(a))
        for name, a in model.weights.items()
        if name.startswith(start)
    }
    network: MosaikNetwork | SlideNetwork
    if params.architecture == "slide":
        columns = 2 * len(card["features"])
        network = SlideNetwork(params, len(card["times_h"]), columns, float(card["fwhm_um"]))
    else:
        network = MosaikNetwork(params, len(card["times_h"]))
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        what = str(error).splitlines()[-1].strip().partition(": ")[0]
        raise InputError(
            f"the weights of the predictor {model.hash[:12]} do not fit its card ({what}); train "
            "it again"
        ) from error
    if not all(bool(values.isfinite().all()) for values in tensors.values()):
        raise InputError(
            f"the predictor {model.hash[:12]} has weights that are not numbers; train it again"
        )
    return network.eval()


_CARD_PARTS: Final[Mapping[str, type]] = {
    "settings": Mapping,
    "channels": list,
    "scales": Mapping,
    "proxies": list,
    "times_h": list,
    "features": list,
    "target": Mapping,
    "classes": list,
    "cases": list,
    "members": list,
    "fwhm_um": float,
    "baselines": Mapping,
    "warnings": list,
}
"""What the card of a model has to state, and of which type."""


def check_card(model: TrainedModel) -> None:
    """Raise `InputError` when a model was made by another program, or its card is incomplete."""
    card, name = model.card, f"the predictor {model.hash[:12]}"
    check_format(card, model.hash)
    for part, kind in _CARD_PARTS.items():
        if not isinstance(card.get(part), kind):
            raise InputError(
                f"the card of {name} does not state '{part}' as it should "
                f"({card.get(part)!r:.40}); train it again"
            )
    if list(card["channels"]) != list(FRACTIONS):
        raise InputError(
            f"{name} reads maps of {', '.join(map(str, card['channels']))}, but there are maps of "
            f"{', '.join(FRACTIONS)}; train it again"
        )
    if other := [str(n) for n in card["classes"] if n not in range(N_CLASSES)]:
        raise InputError(
            f"{name} knows the uptake class {', '.join(other)}, but there are 0 to "
            f"{N_CLASSES - 1}; train it again"
        )


def check_fit(model: TrainedModel, inputs: TileInputs) -> None:
    """Raise `InputError` when the case lacks inputs that the model was trained on."""
    check_card(model)
    card = model.card
    if not len(inputs):
        raise InputError(f"case {inputs.case} has no tile; lower the tissue fraction of a tile")
    asked = TrainParams.parse(card["settings"], "model card").windows_px
    if inputs.windows_px != asked:
        raise InputError(
            f"case {inputs.case}: windows of {', '.join(map(str, inputs.windows_px))} px, but the "
            f"model takes {', '.join(map(str, asked))} px"
        )
    spacings_um = [float(card["scales"][scale.name]["spacing_um"]) for scale in inputs.scales]
    if not np.allclose(inputs.spacings_um, spacings_um, rtol=1e-3):
        raise InputError(
            f"case {inputs.case}: {tiling(asked, inputs.spacings_um)}, but the model was trained "
            f"on {tiling(asked, spacings_um)}; tile the case as those of the training"
        )
    if card["settings"]["architecture"] == "slide" and list(inputs.feature_names) != list(
        card["features"]
    ):
        raise InputError(f"case {inputs.case}: {_difference(inputs.feature_names, card)}")
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
    model: TrainedModel,
    inputs: TileInputs,
    earlier: EarlierPrediction | None = None,
    device: ComputeDevice | None = None,
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
    device
        Where the networks compute, as `network_device` gives it; that if None.

    Returns
    -------
    Prediction
        NaN for tiles without curves; the order of the tiles does not matter.  The mean of the
        networks, and of their companions with the weights that the card states.

    Raises
    ------
    InputError
        A whole part of the input is missing or differs from what the model was trained on; it is
        never replaced.
    """
    check_fit(model, inputs)
    card, rows = model.card, np.flatnonzero(inputs.usable)
    device = device or network_device(TrainParams.parse(card["settings"], "model card"))
    n, count = len(inputs), int(card["settings"]["members"])
    members = np.full((count, n), np.nan)
    source = np.full(n, np.nan)
    probability = np.full((n, N_CLASSES), np.nan)
    label = np.full(n, -1, np.int8)
    with thread_count(int(card["settings"]["threads"])):
        if card["settings"]["architecture"] == "slide":
            found = _whole_slide(model, inputs, device)
            members[:, rows] = found[0][:, rows]
            probability[rows], source[rows] = found[1][rows], found[2][rows]
        else:
            if earlier is not None and not np.array_equal(
                np.isfinite(earlier.suv_norm), inputs.usable
            ):
                earlier = None  # other tiles have inputs: every batch holds others
            parts, kept = [], earlier if count == 1 else None

            def inferred(network: nn.Module) -> tuple[FloatArray, FloatArray]:
                return infer(network.to(device.device), inputs, rows, kept, device)

            for number in range(count):
                compute = partial(inferred, member_network(model, number))
                one, members[number, rows] = device.with_enough_memory(compute)
                parts.append(one)
            probability[rows] = np.mean(parts, axis=0)
    if card.get("classes", True):  # else the class head has not learned anything
        label[rows] = probability[rows].argmax(axis=1)
    else:
        probability[:] = np.nan
    weights: Mapping[str, float] = card.get("companion_weights", {})
    suv_norm = (1 - sum(weights.values())) * np.mean(members, axis=0)
    seen = Surroundings(inputs, float(card["fwhm_um"]))
    for name, weight in weights.items():
        companion = Baseline.of_model(model, name) if name in card["baselines"] else None
        if companion is None:
            raise InputError(f"the model {model.hash[:12]} lacks its '{name}'; train it again")
        suv_norm = suv_norm + weight * companion.predict(seen)
    suv = model.target.restore(suv_norm)
    return Prediction(suv_norm, suv, probability, label, members, source, model.hash)


def _whole_slide(
    model: TrainedModel, inputs: TileInputs, device: ComputeDevice
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Of all tiles: (m, n) normalised SUV of each network, (n, 5) probability, (n,) source in SUV.

    Probability and source are means over the networks.
    """
    scene = SlideScene.of(inputs, float(model.card["fwhm_um"]))
    parts: list[tuple[FloatArray, ...]] = []

    def read(network: SlideNetwork) -> tuple[FloatArray, ...]:
        with torch.no_grad(), device.exact():
            found = network.to(device.device)(scene.to(device))
            values = found.suv_norm, torch.softmax(found.logits, dim=1), found.source
        return tuple(device.fetch(value).numpy().astype(float) for value in values)

    for number in range(int(model.card["settings"]["members"])):
        network = cast(SlideNetwork, member_network(model, number))
        parts.append(device.with_enough_memory(partial(read, network)))
    members, probability, source = zip(*parts, strict=True)
    span = model.target.high - model.target.low
    return np.stack(members), np.mean(probability, axis=0), np.mean(source, axis=0) * span


def _difference(names: Sequence[str], card: Mapping[str, Any]) -> str:
    """Which tile parameters differ from those that a model was trained on."""
    missing = [name for name in card["features"] if name not in names]
    extra = [name for name in names if name not in card["features"]]
    if missing:
        return f"lacks the tile parameter '{missing[0]}' that the model was trained on"
    if extra:
        return f"has the tile parameter '{extra[0]}' that the model does not know"
    return "the tile parameters have another order than in the training of the model"
