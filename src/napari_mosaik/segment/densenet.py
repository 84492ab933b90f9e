"""The paper's tissue network: DenseNet169 encoder, four up-sampling stages, three classes.

The paper prints four terminal layers that sample *down*; a class map needs them to sample up.
DenseNet169 reduces by 32, four doublings bring it back to half the picture's size, and a last
resize to the picture itself.  Weights are not shipped; training starts from chance.

Source: Huang et al. 2017, CVPR (DenseNet).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from napari_mosaik.core.errors import CorruptArtifact, InputError
from napari_mosaik.core.params import Params, setting
from napari_mosaik.core.raster import Raster
from napari_mosaik.segment.compartments import CLASSES, predict_raster
from napari_mosaik.segment.filters import Float32
from napari_mosaik.segment.pixel_features import reduce_rgb
from napari_mosaik.segment.weights import read_card, save_weights, weights_digest

__all__ = [
    "DenseNetParams",
    "DenseNetTissueModel",
    "TissueNetwork",
    "TrainingStep",
    "class_weights",
    "load_densenet",
    "train_densenet",
]

_STRIDE = 32
_MEAN, _SPREAD = 0.5, 0.25


class DenseNetParams(Params):
    """Settings of the paper's network; the defaults are the paper's where it gives a number."""

    spacing_um: float = setting(8.0, "Pixel size of the class map.", unit="µm", gt=0, le=100)
    read_spacing_um: float = setting(
        2.0, "Pixel size at which the slide is read.", unit="µm", gt=0, le=100
    )
    decoder: tuple[int, int, int, int] = setting(
        (256, 128, 64, 32), "Channels of the four up-sampling stages.", advanced=True
    )
    epochs: int = setting(25, "Passes over the training tiles.", ge=1, le=10_000)
    batch_size: int = setting(8, "Tiles per step.", ge=1, le=1024)
    learning_rate: float = setting(1e-3, "Step size of Adam.", gt=0, le=1)
    validation_fraction: float = setting(
        0.3, "Share of the groups that are kept for validation.", ge=0, lt=1
    )


class TissueNetwork(nn.Module):
    """DenseNet169 features, four stages of (double, convolve), one output per class."""

    def __init__(self, n_classes: int, decoder: tuple[int, int, int, int]) -> None:
        from monai.networks.nets.densenet import DenseNet169

        super().__init__()
        self.encoder: nn.Module = DenseNet169(
            spatial_dims=2, in_channels=3, out_channels=n_classes
        ).features
        channels = 1664
        stages: list[nn.Module] = []
        for width in decoder:
            stages.append(
                nn.Sequential(
                    nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                    nn.Conv2d(channels, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                )
            )
            channels = width
        self.decoder = nn.Sequential(*stages)
        self.head = nn.Conv2d(channels, n_classes, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Class scores (n, classes, rows, columns) of pictures (n, 3, rows, columns)."""
        size = pictures.shape[2:]
        pad = [(-int(s)) % _STRIDE for s in size]
        padded = functional.pad(pictures, (0, pad[1], 0, pad[0]), mode="replicate")
        scores = self.head(self.decoder(self.encoder(padded)))
        full = functional.interpolate(
            scores, size=padded.shape[2:], mode="bilinear", align_corners=False
        )
        return full[..., : size[0], : size[1]]


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """One step of training; ``validation_loss`` is NaN except on the last step of an epoch."""

    epoch: int
    step: int
    steps: int
    loss: float
    validation_loss: float = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class DenseNetTissueModel:
    """The paper's network behind the `TissueModel` interface.

    Its receptive field is wider than any halo, so at block seams it agrees with the whole picture
    nearly, not exactly.
    """

    network: TissueNetwork
    params: DenseNetParams
    classes: tuple[str, ...] = CLASSES
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Short name of the method."""
        return "densenet"

    @property
    def spacing_um(self) -> float:
        """Pixel size of the probabilities, µm."""
        return self.params.spacing_um

    @property
    def read_spacing_um(self) -> float:
        """Pixel size at which the picture is wanted, µm."""
        return self.params.read_spacing_um

    @property
    def halo_um(self) -> float:
        """Margin that a block needs, µm: two strides of the encoder."""
        margin = 2 * _STRIDE * self.params.read_spacing_um
        return float(np.ceil(margin / self.spacing_um)) * self.spacing_um

    @property
    def hash(self) -> str:
        """Digest of weights and settings: equal digests, equal predictions."""
        return weights_digest(_arrays(self.network), self._essentials())

    def predict_block(self, rgb: NDArray[np.uint8], spacing_um: float) -> Float32:
        """Probabilities (rows, columns, classes) of a block that begins on the class lattice."""
        factor = max(1, round(self.read_spacing_um / spacing_um))
        if abs(factor * spacing_um - self.read_spacing_um) > 0.02 * self.read_spacing_um:
            raise InputError(
                f"the network reads pixels of {self.read_spacing_um:g} µm; {spacing_um:g} µm is "
                "not a whole fraction of that. Read the slide at that size."
            )
        pictures = _prepare(reduce_rgb(rgb, factor)[None])
        self.network.eval()
        with torch.inference_mode():
            probability = torch.softmax(self.network(pictures), dim=1)
            cell = round(self.spacing_um / self.read_spacing_um)
            coarse = functional.avg_pool2d(
                probability, cell, ceil_mode=True, count_include_pad=False
            )
        return np.ascontiguousarray(coarse[0].permute(1, 2, 0).numpy())

    def predict(self, image: Raster) -> Raster:
        """Probabilities of a picture on the lattice of `spacing_um`."""
        return predict_raster(self, image)

    def save(self, folder: Path) -> None:
        """Write ``weights.safetensors`` and ``card.json``."""
        save_weights(folder, _arrays(self.network), self._essentials(), self.training)

    def _essentials(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "classes": list(self.classes),
            "params": self.params.model_dump(mode="json"),
        }


def class_weights(codes: NDArray[Any], n_classes: int) -> Float32:
    """Weights (n_classes,) in order of the class codes: inverse to pixel counts, sum 1.

    Computed from the training split alone.  A class without pixels gets the weight 0.
    """
    counts = np.bincount(np.asarray(codes).ravel(), minlength=n_classes + 1)[1 : n_classes + 1]
    inverse = np.where(counts > 0, 1 / np.maximum(counts, 1), 0.0)
    if inverse.sum() == 0:
        raise InputError("no pixel of the training tiles has a class; draw shapes first")
    return np.asarray(inverse / inverse.sum(), np.float32)


def train_densenet(
    pictures: NDArray[np.uint8],
    codes: NDArray[np.uint8],
    params: DenseNetParams,
    rng: np.random.Generator,
    *,
    groups: NDArray[Any] | None = None,
    classes: tuple[str, ...] = CLASSES,
    training: Mapping[str, Any] | None = None,
) -> Generator[TrainingStep, None, DenseNetTissueModel]:
    """Train the network; yields after every step, returns the model at the end.

    Parameters
    ----------
    pictures
        (n, rows, columns, 3) 8-bit tiles at ``read_spacing_um``.
    codes
        (n, rows, columns) class codes; pixels of code 0 carry no loss.
    params
        Settings.
    rng
        Source of chance for weights, split and order.
    groups
        (n,) slide or spatial block of each tile; a group is never split between training and
        validation.  Each tile is its own group if None, which leaks between neighbours.
    classes
        Class names in order of their codes.
    training
        What to keep in the card.
    """
    if pictures.ndim != 4 or codes.shape != pictures.shape[:3]:
        raise InputError(f"tiles {pictures.shape} and codes {codes.shape} do not fit")
    train, validation = _split(len(codes), groups, params.validation_fraction, rng)
    weights = class_weights(codes[train], len(classes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        network = TissueNetwork(len(classes), params.decoder)
    optimiser = torch.optim.Adam(network.parameters(), lr=params.learning_rate)
    x, y = _prepare(pictures), torch.from_numpy(codes.astype(np.int64) - 1)
    steps = -(-len(train) // params.batch_size)
    for epoch in range(params.epochs):
        order = rng.permutation(train)
        for step in range(steps):
            batch = torch.from_numpy(order[step * params.batch_size :][: params.batch_size])
            loss = _step(network, optimiser, x[batch], y[batch], torch.from_numpy(weights))
            last = step == steps - 1 and len(validation) > 0
            held_out = _validate(network, x, y, validation, weights) if last else float("nan")
            yield TrainingStep(epoch, step, steps, loss, held_out)
    record = {
        "class_weights": dict(zip(classes, weights.tolist(), strict=True)),
        "tiles": len(train),
        "validation_tiles": len(validation),
        **(training or {}),
    }
    return DenseNetTissueModel(network.eval(), params, classes, record)


def load_densenet(folder: Path) -> DenseNetTissueModel:
    """Read a network that was saved; another kind or a damaged one is refused."""
    card, arrays = read_card(folder)
    if card["model"] != "densenet":
        raise InputError(f"{folder} holds a '{card['model']}' model, not the paper's network")
    params = DenseNetParams.parse(card["params"], f"{folder}/card.json")
    network = TissueNetwork(len(card["classes"]), params.decoder)
    try:
        network.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items()})
    except RuntimeError as error:
        raise CorruptArtifact(f"the weights in {folder} are of another network: {error}") from error
    return DenseNetTissueModel(network.eval(), params, tuple(card["classes"]), card["training"])


def _split(
    n: int, groups: NDArray[Any] | None, fraction: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tile numbers of the training and the validation part; groups stay together."""
    owner = np.arange(n) if groups is None else np.asarray(groups)
    names = rng.permutation(np.unique(owner))
    held = names[: min(len(names) - 1, round(fraction * len(names)))]
    validation = np.isin(owner, held)
    return np.flatnonzero(~validation), np.flatnonzero(validation)


def _prepare(pictures: NDArray[np.uint8]) -> Tensor:
    scaled = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255
    return (scaled - _MEAN) / _SPREAD


def _loss(scores: Tensor, codes: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy per labelled pixel; 0 for a batch without any."""
    each = functional.cross_entropy(scores, codes, weights, ignore_index=-1, reduction="none")
    labelled = codes >= 0
    total = weights[codes.clamp_min(0)][labelled].sum()
    return each[labelled].sum() / total.clamp_min(1e-12)


def _step(
    network: TissueNetwork, optimiser: torch.optim.Optimizer, x: Tensor, y: Tensor, weights: Tensor
) -> float:
    network.train()
    optimiser.zero_grad()
    loss = _loss(network(x), y, weights)
    torch.autograd.backward(loss)
    optimiser.step()
    return float(loss.detach())


def _validate(
    network: TissueNetwork, x: Tensor, y: Tensor, which: NDArray[np.int64], weights: Float32
) -> float:
    """Loss over all validation tiles; NaN where none of their pixels has a class."""
    index = torch.from_numpy(which)
    if not bool((y[index] >= 0).any()):
        return float("nan")
    network.eval()
    with torch.inference_mode():
        parts = [index[i : i + 8] for i in range(0, len(index), 8)]
        scores = torch.cat([network(x[part]) for part in parts])
        return float(_loss(scores, y[index], torch.from_numpy(weights)))


def _arrays(network: nn.Module) -> dict[str, NDArray[Any]]:
    return {name: t.detach().cpu().numpy() for name, t in network.state_dict().items()}
