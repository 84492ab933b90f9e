"""A trained model: its weights, and a card that records its training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import CorruptArtifact, FloatArray, InputError
from napari_mosaik.core.atomic import atomic_folder, flush_to_disk, scratch_path
from napari_mosaik.core.manifest import check_files, write_files_list
from napari_mosaik.core.params import digest

__all__ = ["CARD_FORMAT", "TargetScale", "TrainedModel", "check_folder", "check_format"]

CARD_FORMAT: Final = 5
"""Format of the card: 4 holds an ensemble, companions and intervals; 5 the training tiles too."""
_WEIGHTS, _CARD = "weights.safetensors", "card.json"


def check_folder(folder: Path) -> None:
    """Raise `InputError` for a model whose card another version of this program wrote."""
    try:
        card = json.loads((folder / _CARD).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"the card of the predictor {folder.name[:12]} cannot be read; train it again"
        ) from error
    check_format(card, folder.name)


def check_format(card: Mapping[str, Any], name: str) -> None:
    """Raise `InputError` for a card that another version of this program wrote."""
    if card.get("format") != CARD_FORMAT:
        raise InputError(
            f"the predictor {name[:12]} was trained by another version of this program "
            f"(format {card.get('format')}, not {CARD_FORMAT}); train it again"
        )


@dataclass(frozen=True, slots=True)
class TargetScale:
    """Linear map of SUV to [0, 1], fitted on training tiles.

    Parameters
    ----------
    low, high
        SUV that becomes 0 and 1.
    """

    low: float
    high: float

    @classmethod
    def fit(cls, suv: ArrayLike, low_percentile: float, high_percentile: float) -> TargetScale:
        """From percentiles of the finite SUV (n,); `InputError` if all are equal."""
        values = np.asarray(suv, float)
        values = values[np.isfinite(values)]
        if values.size < 2:
            raise InputError(f"{values.size} measured training tiles: not enough to scale the SUV")
        low, high = (float(v) for v in np.percentile(values, [low_percentile, high_percentile]))
        if not high > low:
            raise InputError(f"all training tiles have the SUV {low}: nothing to train on")
        return cls(low, high)

    def normalise(self, suv: ArrayLike, *, clip: bool = True) -> FloatArray:
        """SUV (any shape) to dimensionless [0, 1]; NaN stays NaN."""
        values = (np.asarray(suv, float) - self.low) / (self.high - self.low)
        return np.asarray(np.clip(values, 0.0, 1.0) if clip else values, float)

    def restore(self, normalised: ArrayLike) -> FloatArray:
        """Normalised values (any shape) to SUV."""
        return np.asarray(np.asarray(normalised, float) * (self.high - self.low) + self.low, float)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """Weights and card; equal content, equal name.

    Parameters
    ----------
    weights
        Name to array.
    card
        JSON document: settings, scaling, training cases and patients, seed, threads, losses by
        epoch, baselines, versions, warnings.  What is under ``"times"`` does not count to the
        content.
    """

    weights: Mapping[str, NDArray[Any]]
    card: Mapping[str, Any]

    @property
    def hash(self) -> str:
        """Digest of the weights and of the card without times: the model's name."""
        content = hashlib.blake2b(digest_size=16)
        content.update(digest({k: v for k, v in self.card.items() if k != "times"}).encode())
        for name in sorted(self.weights):
            array = np.ascontiguousarray(self.weights[name])
            content.update(f"{name} {array.dtype.str} {array.shape}".encode())
            content.update(array.tobytes())
        return content.hexdigest()

    @property
    def target(self) -> TargetScale:
        """The scaling of the SUV."""
        return TargetScale(float(self.card["target"]["low"]), float(self.card["target"]["high"]))

    def save(self, folder: Path) -> Path:
        """Write to ``folder/HASH`` (whole or not at all) and return that folder.

        A model that is already there is checked, and left as it is; a damaged one is set aside.
        """
        from safetensors.numpy import save as pack

        target = Path(folder) / self.hash
        if target.exists():
            try:
                type(self).load(target)
            except (InputError, CorruptArtifact):
                target.rename(scratch_path(target).with_suffix(".damaged"))
            else:
                return target
        with atomic_folder(target) as scratch:
            arrays = {name: np.ascontiguousarray(array) for name, array in self.weights.items()}
            _write(scratch / _WEIGHTS, pack(arrays))
            text = json.dumps(dict(self.card), indent=2, sort_keys=True, allow_nan=False)
            _write(scratch / _CARD, (text + "\n").encode())
            write_files_list(scratch)
        return target

    @classmethod
    def load(cls, folder: Path) -> TrainedModel:
        """Read a model and check its content against its name.

        Raises
        ------
        InputError
            There is no model in *folder*.
        CorruptArtifact
            A file cannot be read, or the content does not fit the folder's name.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load as unpack

        folder = Path(folder)
        if not (folder / _CARD).is_file() or not (folder / _WEIGHTS).is_file():
            raise InputError(
                f"no model in {folder}, or it is damaged: {_CARD} and {_WEIGHTS} are needed"
            )
        check_files(folder, f"the model {folder.name}")
        try:
            card = json.loads((folder / _CARD).read_text("utf-8"))
            if "classes" in card and card.get("kind") != "mosaik":
                raise InputError(f"the model in {folder} is not a predictor of uptake")
            model = cls(unpack((folder / _WEIGHTS).read_bytes()), card)
            content = model.hash
        except (ValueError, SafetensorError, AttributeError) as error:
            raise CorruptArtifact(
                f"the model in {folder} is damaged ({error}); train it again"
            ) from error
        if content != folder.name:
            raise CorruptArtifact(
                f"the model in {folder} is damaged: it was changed after it was written (its "
                f"content is {content}); train it again"
            )
        return model


def _write(path: Path, content: bytes) -> None:
    """Write and flush to the disk."""
    with path.open("wb") as file:
        file.write(content)
        flush_to_disk(file)
