"""Trained models on disk: weights as safetensors, a card as JSON, and a digest that binds them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.errors import CorruptArtifact, InputError, require_memory
from napari_mosaik.core.manifest import check_files, write_files_list
from napari_mosaik.core.params import digest

__all__ = ["read_card", "save_weights", "weights_digest"]

_FILES = ("card.json", "weights.safetensors")


def weights_digest(arrays: Mapping[str, NDArray[Any]], essentials: Mapping[str, Any]) -> str:
    """Content digest of a model: its arrays (names, types, shapes, bytes) and settings."""
    content = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        content.update(f"{name} {array.dtype.str} {array.shape}".encode())
        content.update(array.tobytes())
    return digest([content.hexdigest(), dict(essentials)])


def save_weights(
    folder: Path,
    arrays: Mapping[str, NDArray[Any]],
    essentials: Mapping[str, Any],
    training: Mapping[str, Any],
) -> None:
    """Write a model's arrays as safetensors and its card as JSON, digest included."""
    from safetensors.numpy import save as pack

    folder.mkdir(parents=True, exist_ok=True)
    # its own writer hides what the operating system refuses, a full disk, in an error of its own
    (folder / "weights.safetensors").write_bytes(pack(dict(arrays)))
    card = {
        "format": 2,
        **essentials,
        "hash": weights_digest(arrays, essentials),
        "training": dict(training),
    }
    text = json.dumps(card, indent=2, ensure_ascii=False)
    (folder / "card.json").write_text(text + "\n", encoding="utf-8")
    write_files_list(folder)


def read_card(folder: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Card and arrays of a saved model.

    Damage raises `CorruptArtifact`, a predictor of uptake `InputError`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not folder.is_dir():
        raise CorruptArtifact(f"there is no model in {folder}: it is not a folder")
    if not any((folder / name).exists() for name in _FILES):
        raise InputError(f"there is no model in {folder}: it has no {' and no '.join(_FILES)}")
    check_files(folder, f"the model in {folder}")
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        if card.get("kind") == "mosaik":
            raise InputError(
                f"the model in {folder} predicts uptake; it cannot segment: choose another"
            )
        arrays = load_file(str(folder / "weights.safetensors"))
        essentials = {name: card[name] for name in ("model", "classes", "params")}
        expected = card["hash"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        require_memory(error)
        reason = f"its card.json has no {error}" if isinstance(error, KeyError) else error
        raise CorruptArtifact(f"the model in {folder} is damaged: {reason}") from error
    if weights_digest(arrays, essentials) != expected:
        raise CorruptArtifact(
            f"the model in {folder} is damaged: it is not the one its card.json describes"
        )
    return card, arrays
