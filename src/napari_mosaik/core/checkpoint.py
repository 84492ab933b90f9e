"""The state of a training on the disk, whole or not at all."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

__all__ = ["read_checkpoint", "write_checkpoint"]


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; the file is replaced once it is complete on the disk."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with scratch.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def read_checkpoint(path: Path, mark: str) -> dict[str, Any] | None:
    """The state of the same training; None where there is none, or only that of another one.

    Parameters
    ----------
    path
        The file.
    mark
        What `write_checkpoint` was given as ``state["mark"]``.
    """
    import torch

    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError):
        return None
    return state if state.get("mark") == mark else None
