"""Read the weights file of a StarDist network that was trained with Keras, without TensorFlow.

Three layouts are in use, all HDF5:

* Keras 2: ``conv2d/conv2d/kernel:0``, a group per layer named like the layer;
* Keras 3, file ending in ``.h5`` (csbdeep writes it so): the same without ``:0``;
* Keras 3, file ending in ``.weights.h5``: ``layers/conv2d_7/vars/0`` (kernel) and ``1`` (bias),
  numbered in the network's order whatever the names of the layers; newer files hold the names too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.errors import CorruptArtifact, InputError
from napari_mosaik.segment.stardist.network import Architecture, layer_shapes

if TYPE_CHECKING:
    from h5py import File, Group

__all__ = ["read_keras_weights"]

TorchArrays = dict[str, NDArray[Any]]
_STEM = re.compile(r"conv2d(_\d+)?")


def read_keras_weights(path: Path, architecture: Architecture | None = None) -> TorchArrays:
    """Kernels (out, in, rows, columns) and biases under torch's names, float32.

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
        word = "lack the layer" if odd[0] in expected else "have a layer more,"
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
