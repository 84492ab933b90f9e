"""The paper's tissue network: DenseNet169 encoder, four up-sampling stages, one output per class.

The paper prints four terminal layers that sample *down*; a class map needs them to sample up.
DenseNet169 reduces by 32, four doublings bring it back to half the image size, and a last resize
to the image itself.  No weights ship; training starts from random initialisation, or from given
weights of the encoder.

Source: Huang et al. 2017, CVPR (DenseNet).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from napari_mosaik.core.errors import CorruptArtifact, InputError
from napari_mosaik.core.params import Params, setting
from napari_mosaik.core.raster import Raster
from napari_mosaik.learning.devices import ComputeDevice, stoppable
from napari_mosaik.segment.filters import Float32
from napari_mosaik.segment.model_files import read_card, save_weights, weights_digest
from napari_mosaik.segment.pixel_features import reduce_rgb
from napari_mosaik.segment.tissue_classifier import CLASSES, predict_raster

__all__ = [
    "PRESETS",
    "DenseNetParams",
    "DenseNetTissueModel",
    "TissueNetwork",
    "arrays_of",
    "load_densenet",
    "prepared",
]

_STRIDE = 32
_MEAN, _SPREAD = 0.5, 0.25
_GPU_LOCK = Lock()
"""One block at a time on a GPU: its memory is the limit."""
_Channels = Annotated[int, Field(ge=1, le=4096)]


class DenseNetParams(Params):
    """Settings of the paper's network; the defaults are the paper's where it gives a number."""

    spacing_um: float = setting(8.0, "Pixel size of the class map.", unit="µm", gt=0, le=100)
    read_spacing_um: float = setting(
        2.0, "Pixel size at which the slide is read.", unit="µm", gt=0, le=100
    )
    decoder: tuple[_Channels, _Channels, _Channels, _Channels] = setting(
        (256, 128, 64, 32), "Channels of the four up-sampling stages.", advanced=True
    )
    epochs: int = setting(25, "Maximum number of epochs.", ge=1, le=10_000)
    batch_size: int = setting(8, "Tiles per batch.", ge=1, le=1024)
    learning_rate: float = setting(1e-3, "Learning rate of Adam.", gt=0, le=1)
    class_weights: tuple[float, ...] = setting(
        (),
        "Weight of each class in the loss, in the order of the class list; empty: inverse to the "
        "pixel counts of the training part. The paper prints 0.45, 0.24, 0.31 without an order.",
        advanced=True,
    )
    validation_fraction: float = setting(
        0.3, "Fraction of the groups that is held out for validation.", ge=0, lt=1
    )
    split: Literal["block", "slide"] = setting(
        "block",
        "Groups that are never split between training and validation: 1 mm blocks, or slides.",
    )
    patience: int = setting(
        0,
        "Epochs without a better validation loss before stopping; the best epoch is kept. "
        "0 runs all epochs and keeps the last.",
        ge=0,
        le=10_000,
    )
    stain_augmentation: float = setting(
        0.0, "Strength of the random stain augmentation of training tiles.", ge=0, le=1
    )
    flip_rotate: bool = setting(False, "Rotate and flip training tiles at random.")
    mixed_precision: bool = setting(True, "Train with bfloat16 on a GPU.", advanced=True)
    threads: int = setting(
        2, "CPU threads while training; another number changes the last digits.", ge=1, le=256
    )


PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "paper": {},
    "robust": {
        "epochs": 60,
        "learning_rate": 3e-4,
        "patience": 8,
        "stain_augmentation": 0.2,
        "flip_rotate": True,
    },
}
"""Settings by name: 'paper' as printed there; 'robust' augments stain and orientation and stops
early."""


class TissueNetwork(nn.Module):
    """DenseNet169 features, four stages of (double, convolve), one output per class."""

    def __init__(self, n_classes: int, decoder: tuple[int, int, int, int]) -> None:
        from monai.networks.nets.densenet import DenseNet169

        super().__init__()
        self.encoder: nn.Module = DenseNet169(
            spatial_dims=2, in_channels=3, out_channels=n_classes
        ).features
        channels = len(self.encoder.state_dict()["norm5.bias"])
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
        stoppable(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes, rows, columns) of images (n, 3, rows, columns), dimensionless."""
        size = images.shape[2:]
        pad = [(-int(s)) % _STRIDE for s in size]
        padded = functional.pad(images, (0, pad[1], 0, pad[0]), mode="replicate")
        scores = self.head(self.decoder(self.encoder(padded)))
        full = functional.interpolate(
            scores, size=padded.shape[2:], mode="bilinear", align_corners=False
        )
        return full[..., : size[0], : size[1]]


@dataclass(frozen=True, slots=True, eq=False)
class DenseNetTissueModel:
    """The paper's network behind the `TissueModel` interface.

    Its receptive field is wider than any halo, so blocks agree with the whole image only
    approximately at their seams.
    """

    network: TissueNetwork
    params: DenseNetParams
    classes: tuple[str, ...] = CLASSES
    training: Mapping[str, Any] = field(default_factory=dict)
    device: ComputeDevice = field(default_factory=lambda: ComputeDevice.best(1), compare=False)

    @property
    def computed_on(self) -> dict[str, str]:
        """Device, its precision and the versions that the probabilities depend on."""
        return self.device.record(self.device.precision)

    @property
    def notes(self) -> tuple[str, ...]:
        """Fallbacks during prediction, as sentences for the user."""
        return tuple(self.device.notes)

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
        """Pixel size at which the image is read, µm."""
        return self.params.read_spacing_um

    @property
    def halo_um(self) -> float:
        """Margin that a block needs, µm: two strides of the encoder."""
        margin = 2 * _STRIDE * self.params.read_spacing_um
        return float(np.ceil(margin / self.spacing_um)) * self.spacing_um

    @property
    def hash(self) -> str:
        """Digest of weights and settings: equal digests, equal predictions."""
        return weights_digest(arrays_of(self.network), self._essentials())

    def predict_block(self, rgb: NDArray[np.uint8], spacing_um: float) -> Float32:
        """Probabilities (rows, columns, classes) of an 8-bit block (rows, columns, 3).

        The block begins on the class lattice; *spacing_um* is its pixel size, µm.
        """
        factor = max(1, round(self.read_spacing_um / spacing_um))
        if abs(factor * spacing_um - self.read_spacing_um) > 0.02 * self.read_spacing_um:
            raise InputError(
                f"the network reads pixels of {self.read_spacing_um:g} µm; {spacing_um:g} µm is "
                "not a whole fraction of that. Read the slide at that size."
            )
        images = reduce_rgb(rgb, factor)[None]
        if not self.device.has_gpu:
            return self._coarse(images)
        with _GPU_LOCK:
            return self.device.with_enough_memory(lambda: self._coarse(images))

    def _coarse(self, images: NDArray[np.uint8]) -> Float32:
        """Probabilities (rows, columns, classes) on the class lattice of one image (1, r, c, 3)."""
        network = self.network.eval()
        if next(network.parameters()).device != self.device.device:
            network.to(self.device.device)
        with torch.inference_mode(), self.device.exact():
            with self.device.halved():
                scores = network(prepared(images, self.device))
            if self.device.inner_type == torch.float16 and not bool(scores.isfinite().all()):
                self.device.widen()
                scores = network(prepared(images, self.device))
            cell = round(self.spacing_um / self.read_spacing_um)
            coarse = functional.avg_pool2d(
                torch.softmax(scores.float(), dim=1), cell, ceil_mode=True, count_include_pad=False
            )
            return np.ascontiguousarray(self.device.fetch(coarse[0].permute(1, 2, 0)).numpy())

    def predict(self, image: Raster) -> Raster:
        """Probabilities (rows, columns, classes) of an image, fraction, on the class lattice."""
        return predict_raster(self, image)

    def save(self, folder: Path) -> None:
        """Write ``weights.safetensors`` and ``card.json``."""
        save_weights(folder, arrays_of(self.network), self._essentials(), self.training)

    def _essentials(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "classes": list(self.classes),
            "params": self.params.model_dump(mode="json"),
        }


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


def prepared(images: NDArray[np.uint8], device: ComputeDevice | None = None) -> Tensor:
    """8-bit images (n, rows, columns, 3) as input (n, 3, rows, columns), dimensionless.

    They are sent to the *device*, if it is given, as they are.
    """
    levels = torch.from_numpy(np.ascontiguousarray(images))
    there = levels if device is None else device.put(levels)
    return (there.permute(0, 3, 1, 2).float() / 255 - _MEAN) / _SPREAD


def arrays_of(network: nn.Module) -> dict[str, NDArray[Any]]:
    """Weights of a network by name."""
    return {name: t.detach().cpu().numpy() for name, t in network.state_dict().items()}
