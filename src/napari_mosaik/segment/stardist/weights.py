"""Weights of a StarDist network with thresholds, pixel size and hash."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_mosaik.core.errors import CorruptArtifact, InputError
from napari_mosaik.segment.model_files import read_card, save_weights, weights_digest
from napari_mosaik.segment.nuclei_params import NETWORK_SPACING_UM
from napari_mosaik.segment.stardist.network import (
    GRID,
    Architecture,
    StarDistNetwork,
    layer_shapes,
)

if TYPE_CHECKING:
    from h5py import File, Group

__all__ = [
    "EMBEDDED",
    "VERSATILE_HE_THRESHOLDS",
    "StarDistWeights",
    "embedded_weights",
    "load_stardist",
    "read_keras_weights",
    "save_stardist",
]

MODEL = "stardist"
EMBEDDED = "mosaik_he"
"""The network for nuclei on H&E in this package; its card records the training."""
TorchArrays = dict[str, NDArray[Any]]
_STEM = re.compile(r"conv2d(_\d+)?")
VERSATILE_HE_THRESHOLDS = (0.692478, 0.3)
"""Probability and overlap of ``2D_versatile_he``, for weights that come without thresholds."""
KERAS_DEFAULT_THRESHOLDS = (0.5, 0.4)
"""What StarDist uses for a network in a folder without ``thresholds.json``."""
_CONFIG = {
    "n_channel_in": 3,
    "grid": [GRID, GRID],
    "n_rays": 32,
    "n_classes": None,
    "backbone": "unet",
    "unet_n_depth": 3,
    "unet_n_filter_base": 32,
    "unet_batch_norm": False,
    "net_conv_after_unet": 128,
}


@dataclass(frozen=True, slots=True, eq=False)
class StarDistWeights:
    """A network's arrays and settings.

    Attributes
    ----------
    name
        Name of the network.
    arrays
        Arrays under torch's names.
    architecture
        Widths of the network.
    prob_threshold, nms_threshold
        Minimum probability of a nucleus, and maximum overlap of two (fraction of the smaller one).
    spacing_um
        Pixel size of the training images, µm.
    training
        Record of its training.
    outline_um
        Added to every ray, µm: networks trained on thresholded labels outline the inner side of an
        edge, people its outer side.
    """

    name: str
    arrays: Mapping[str, NDArray[Any]]
    architecture: Architecture = field(default_factory=Architecture)
    prob_threshold: float = VERSATILE_HE_THRESHOLDS[0]
    nms_threshold: float = VERSATILE_HE_THRESHOLDS[1]
    spacing_um: float = NETWORK_SPACING_UM
    training: Mapping[str, Any] = field(default_factory=dict)
    outline_um: float = 0.0

    def __post_init__(self) -> None:
        for what in ("prob_threshold", "nms_threshold"):
            if not 0 < getattr(self, what) < 1:
                raise InputError(f"{what} of a network lies in (0, 1), not {getattr(self, what)}")
        if not self.spacing_um > 0:
            raise InputError(f"the network's pixel size is positive, not {self.spacing_um} µm")
        if not 0 <= self.outline_um <= 2:
            raise InputError(f"outlines are moved by 0 to 2 µm, not {self.outline_um} µm")

    @property
    def hash(self) -> str:
        """Digest of arrays and settings: equal digests, equal nuclei."""
        return weights_digest(self.arrays, self.essentials())

    def essentials(self) -> dict[str, Any]:
        """JSON-able settings that belong to the weights."""
        return {
            "model": MODEL,
            "classes": ["nucleus"],
            "params": {
                "name": self.name,
                "base": self.architecture.base,
                "features": self.architecture.features,
                "rays": self.architecture.rays,
                "prob_threshold": self.prob_threshold,
                "nms_threshold": self.nms_threshold,
                "spacing_um": self.spacing_um,
                **({"outline_um": self.outline_um} if self.outline_um else {}),
            },
        }

    def network(self) -> StarDistNetwork:
        """The network with these weights, in evaluation mode."""
        network = StarDistNetwork(self.architecture)
        tensors = {name: torch.from_numpy(np.array(a)) for name, a in self.arrays.items()}
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise InputError(
                f"the weights '{self.name}' are not of this network: {error}"
            ) from error
        return network.eval()


def save_stardist(weights: StarDistWeights, folder: Path) -> None:
    """Write ``weights.safetensors`` and ``card.json``."""
    save_weights(folder, weights.arrays, weights.essentials(), weights.training)


def load_stardist(path: Path) -> StarDistWeights:
    """Weights from a file or folder; those of another network and damaged ones are refused.

    Parameters
    ----------
    path
        A Keras weights file (``.h5``), a folder of StarDist (``weights_best.h5``, ``config.json``,
        ``thresholds.json``), the zip of such a folder, or a folder written by `save_stardist`.
    """
    if path.is_file() and path.suffix == ".zip":
        return _from_zip(path)
    if path.is_file():
        return StarDistWeights(path.stem, read_keras_weights(path))
    if (path / "card.json").is_file():
        return _from_card(path)
    if path.is_dir():
        return _from_folder(path, path.name)
    raise InputError(f"there are no weights at {path}")


def _from_card(folder: Path) -> StarDistWeights:
    card, arrays = read_card(folder)
    if card["model"] != MODEL:
        raise InputError(f"{folder} holds a '{card['model']}' model, not a StarDist network")
    try:
        values = dict(card["params"])
        widths = Architecture(*(values.pop(name) for name in ("base", "features", "rays")))
        weights = StarDistWeights(
            arrays=arrays, architecture=widths, training=card["training"], **values
        )
    except (KeyError, TypeError) as error:
        raise CorruptArtifact(f"the card in {folder} is not complete: {error}") from error
    weights.network()
    return weights


def _from_zip(path: Path) -> StarDistWeights:
    """The folder within a zip, such as the one that StarDist publishes."""
    wanted = ("weights_best.h5", "config.json", "thresholds.json")
    try:
        with zipfile.ZipFile(path) as archive, TemporaryDirectory() as place:
            files = {Path(name).name: name for name in archive.namelist()}
            for name in wanted:
                if name in files:
                    Path(place, name).write_bytes(archive.read(files[name]))
            return _from_folder(Path(place), path.stem.removeprefix("python_"), path)
    except (zipfile.BadZipFile, EOFError) as error:
        raise CorruptArtifact(
            f"{path} is cut off or damaged ({error}); fetch or copy it again"
        ) from error


def _from_folder(folder: Path, name: str, shown: Path | None = None) -> StarDistWeights:
    file = folder / "weights_best.h5"
    if not file.is_file():
        raise InputError(f"{shown or folder} holds no weights_best.h5")
    prob, nms = VERSATILE_HE_THRESHOLDS
    if (folder / "config.json").is_file():
        _check_config(_json(folder / "config.json"), shown or folder)
        prob, nms = KERAS_DEFAULT_THRESHOLDS
    if (folder / "thresholds.json").is_file():
        given = _json(folder / "thresholds.json")
        prob, nms = given.get("prob") or prob, given.get("nms") or nms
    arrays = read_keras_weights(file)
    return StarDistWeights(name, arrays, prob_threshold=float(prob), nms_threshold=float(nms))


def _check_config(config: Mapping[str, Any], shown: Path) -> None:
    for name, value in _CONFIG.items():
        if config.get(name, value) != value:
            raise InputError(
                f"{shown} holds another network: {name} is {config[name]}, needed is {value}"
            )


def _json(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            return dict(json.load(file))
    except (ValueError, TypeError) as error:
        raise CorruptArtifact(f"{path} cannot be read: {error}") from error


@cache
def embedded_weights() -> StarDistWeights:
    """Weights, thresholds and card of the network in the package."""
    with as_file(files(__package__) / EMBEDDED) as folder:
        return load_stardist(folder)


# --- Keras files --------------------------------------------------------------------------------
def read_keras_weights(path: Path, architecture: Architecture | None = None) -> TorchArrays:
    """Kernels (out, in, rows, columns) and biases (out,) under torch's names, dimensionless.

    TensorFlow is not needed.  Three layouts are in use, all HDF5:

    * Keras 2: ``conv2d/conv2d/kernel:0``, a group per layer named like the layer;
    * Keras 3, file ending in ``.h5`` (csbdeep writes it so): the same without ``:0``;
    * Keras 3, file ending in ``.weights.h5``: ``layers/conv2d_7/vars/0`` (kernel) and ``1`` (bias),
      numbered in the network's order whatever their names; newer files hold the names, too.

    Parameters
    ----------
    path
        ``weights_best.h5`` or the like.
    architecture
        The network that the weights must fit; that of ``2D_versatile_he`` if None.

    Raises
    ------
    CorruptArtifact
        The file is cut off, damaged, or no HDF5 file; a number in it is not finite.
    InputError
        There is no such file, or it holds the weights of another network; the message names the
        first layer that does not fit.
    """
    import h5py

    if not path.is_file():
        raise InputError(f"there is no weights file {path}")
    try:
        with h5py.File(path, "r") as file:
            named = _numbered(file) if "layers" in file else _by_layer(file)
    except (OSError, KeyError, RuntimeError) as error:
        raise CorruptArtifact(
            f"the weights in {path} cannot be read ({error}); the file is cut off, damaged or no "
            "Keras weights file. Download or copy it again"
        ) from error
    return _torch_layout(_stem_named(named), architecture or Architecture(), path)


def _by_layer(file: File) -> dict[str, list[NDArray[Any]]]:
    """Kernel and bias of each layer of the layouts that have a group per layer."""
    found = {}
    for layer in file:
        names = [_text(name) for name in file[layer].attrs.get("weight_names", [])]
        if names:
            found[str(layer)] = [np.asarray(file[layer][name]) for name in names]
    return found


def _numbered(file: File) -> dict[str, list[NDArray[Any]]]:
    """Kernel and bias of each layer of Keras 3's own layout, in the network's order."""
    groups: list[tuple[str, Group]] = [
        (str(name), group["vars"]) for name, group in file["layers"].items() if len(group["vars"])
    ]
    groups.sort(key=lambda item: _number(item[0]))
    expected = list(layer_shapes(Architecture()))
    found = {}
    for position, (number, group) in enumerate(groups):
        ordered = expected[position] if position < len(expected) else number
        name = _text(group.attrs.get("name", ordered))
        found[name] = [np.asarray(group[key]) for key in sorted(group, key=int)]
    return found


def _stem_named(found: dict[str, list[NDArray[Any]]]) -> dict[str, list[NDArray[Any]]]:
    """The two unnamed layers at the start under the names that Keras gives in a fresh session.

    Keras counts on in a session that built another network before: ``conv2d_2``, ``conv2d_3``.
    """
    stem = sorted(
        (name for name in found if _STEM.fullmatch(name)),
        key=_number,
    )
    if len(stem) != 2:
        return found
    renamed = dict(zip(stem, ("conv2d", "conv2d_1"), strict=True))
    return {renamed.get(name, name): arrays for name, arrays in found.items()}


def _torch_layout(
    found: dict[str, list[NDArray[Any]]], architecture: Architecture, path: Path
) -> TorchArrays:
    expected = layer_shapes(architecture)
    odd = sorted(set(expected) ^ set(found))
    if odd:
        word = "lack the layer" if odd[0] in expected else "have an extra layer,"
        raise InputError(
            f"{path} holds the weights of another network: they {word} '{odd[0]}'. "
            "Needed is StarDist's 2D_versatile_he or one trained with the same configuration"
        )
    arrays: TorchArrays = {}
    for name, (inputs, outputs, size) in expected.items():
        shapes = [tuple(array.shape) for array in found[name]]
        wanted = [(size, size, inputs, outputs), (outputs,)]
        if shapes != wanted:
            raise InputError(
                f"{path} holds the weights of another network: layer '{name}' has the shapes "
                f"{shapes}, needed are {wanted}"
            )
        kernel, bias = (array.astype(np.float32) for array in found[name])
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise CorruptArtifact(f"{path}: layer '{name}' holds a number that is not finite")
        arrays[f"layers.{name}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        arrays[f"layers.{name}.bias"] = bias
    return arrays


def _number(name: str) -> int:
    """7 of ``conv2d_7``; 0 of a name without a number."""
    end = name.rpartition("_")[2]
    return int(end) if end.isdecimal() else 0


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
