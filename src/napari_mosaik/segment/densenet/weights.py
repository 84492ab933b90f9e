"""Weights of a DenseNet169 encoder from a file: torchvision's and MONAI's names are understood."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_mosaik.core.errors import CorruptArtifact, InputError

__all__ = ["put_encoder_weights", "read_encoder_weights"]

_LAYER = re.compile(r"(denselayer\d+)\.(?:layers\.)?(norm|conv)\.?([12])\.")
_UNUSED = ("classifier.", "class_layers.")


def read_encoder_weights(path: Path) -> dict[str, Tensor]:
    """Weights of an encoder by the names of MONAI's DenseNet; a damaged file is refused.

    Parameters
    ----------
    path
        ``.pth`` or ``.pt`` of torch (a dictionary of tensors) or ``.safetensors``.
    """
    if not path.is_file():
        raise InputError(f"there are no encoder weights at {path}")
    found = _tensors(path)
    named = {_renamed(name): value for name, value in found.items()}
    return {name: value for name, value in named.items() if not name.startswith(_UNUSED)}


def put_encoder_weights(encoder: nn.Module, weights: dict[str, Tensor]) -> None:
    """Fill an encoder; weights of another network are refused.

    Counters of batches may be missing: older files do not hold them.
    """
    own = encoder.state_dict()
    missing = [n for n in own if n not in weights and not n.endswith("num_batches_tracked")]
    other = [n for n in weights if n not in own]
    shapes = [n for n in weights if n in own and weights[n].shape != own[n].shape]
    for what, names in (
        ("lack", missing),
        ("have an extra", other),
        ("have another shape of", shapes),
    ):
        if names:
            raise InputError(
                "the encoder weights are of another network than DenseNet169 with three colours: "
                f"they {what} {names[0]}" + (f" and {len(names) - 1} more" if names[1:] else "")
            )
    if not all(bool(torch.isfinite(value).all()) for value in weights.values()):
        raise CorruptArtifact("the encoder weights hold numbers that are not finite")
    encoder.load_state_dict({**own, **weights})


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(str(path))
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        KeyError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        SafetensorError,
    ) as error:
        raise CorruptArtifact(
            f"{path} cannot be read as weights; it is cut off, damaged or another kind of file "
            f"({str(error).splitlines()[0]})"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise InputError(f"{path} holds no dictionary of tensors; give a state dictionary")
    return found


def _renamed(name: str) -> str:
    """``features.denseblock1.denselayer1.norm.1.weight`` as MONAI calls it, without the prefix."""
    return _LAYER.sub(r"\1.layers.\2\3.", name.removeprefix("features."))
