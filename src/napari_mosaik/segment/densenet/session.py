"""What changes while the paper's network is taught: weights, optimiser, best pass, device."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_mosaik.core.checkpoint import read_checkpoint, write_checkpoint
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.params import digest
from napari_mosaik.segment.densenet.network import (
    DenseNetParams,
    TissueNetwork,
    arrays_of,
    prepared,
)
from napari_mosaik.segment.densenet.weights import put_encoder_weights
from napari_mosaik.segment.devices import ComputeDevice, thread_count
from napari_mosaik.segment.filters import Float32
from napari_mosaik.segment.metrics import class_metrics, confusion_matrix
from napari_mosaik.segment.model_files import weights_digest
from napari_mosaik.segment.stardist.training import stain_augmented

__all__ = ["Session", "Tiles", "TrainingStep", "class_weights", "split_groups"]


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """One step of training; ``validation_loss`` is NaN except on the last step of an epoch.

    ``note`` says what changed, for example that memory ran out; empty else.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    validation_loss: float = float("nan")
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """What teaches the network.

    Parameters
    ----------
    pictures
        (n, rows, columns, 3) 8-bit tiles at ``read_spacing_um``.
    codes
        (n, rows, columns) class codes; pixels of code 0 carry no loss.
    groups
        (n,) slide or spatial block of each tile; a group is never split between training and
        validation.  Each tile is its own group if None, which leaks between neighbours.
    """

    pictures: NDArray[np.uint8]
    codes: NDArray[np.uint8]
    groups: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        shape = self.pictures.shape
        if len(shape) != 4 or shape[3] != 3 or self.codes.shape != shape[:3]:
            raise InputError(f"tiles {shape} and codes {self.codes.shape} do not fit")

    def digest(self) -> str:
        """Equal digests, equal tiles."""
        groups = [] if self.groups is None else [str(group) for group in self.groups]
        arrays = {"pictures": self.pictures, "codes": self.codes}
        return weights_digest(arrays, {"groups": groups})


def class_weights(codes: NDArray[Any], n_classes: int) -> Float32:
    """Weights (n_classes,) in order of the class codes: inverse to pixel counts, sum 1.

    Computed from the training split alone.  A class without pixels gets the weight 0.
    """
    counts = np.bincount(np.asarray(codes).ravel(), minlength=n_classes + 1)[1 : n_classes + 1]
    inverse = np.where(counts > 0, 1 / np.maximum(counts, 1), 0.0)
    if inverse.sum() == 0:
        raise InputError("no pixel of the training tiles has a class; draw shapes first")
    return np.asarray(inverse / inverse.sum(), np.float32)


def split_groups(
    n: int, groups: NDArray[Any] | None, fraction: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tile numbers of the training and the validation part; groups stay together.

    At least one group is left for training; with a single group there is no validation.
    """
    owner = np.arange(n) if groups is None else np.asarray(groups)
    names = rng.permutation(np.unique(owner))
    held = names[: min(len(names) - 1, round(fraction * len(names)))]
    validation = np.isin(owner, held)
    return np.flatnonzero(~validation), np.flatnonzero(validation)


class Session:
    """Everything that changes during a training, and its copy on disk."""

    def __init__(
        self,
        tiles: Tiles,
        params: DenseNetParams,
        seed: int,
        n_classes: int,
        encoder: dict[str, Tensor] | None,
        place: ComputeDevice | None,
    ) -> None:
        self.tiles, self.params, self.seed = tiles, params, seed
        rng = np.random.default_rng(seed)
        split = split_groups(len(tiles.codes), tiles.groups, params.validation_fraction, rng)
        self.train, self.validation = split
        self.weights = _weights(tiles.codes[self.train], params, n_classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))
            self.network = TissueNetwork(n_classes, params.decoder)
        if encoder is not None:
            put_encoder_weights(self.network.encoder, encoder)
        self.place = place or ComputeDevice.best(params.batch_size)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=params.learning_rate)
        self._move()
        begin = weights_digest(arrays_of(self.network), {})
        self._mark = digest([tiles.digest(), params.digest(), seed, begin, torch.__version__])
        self.epoch = 0
        self.history: list[float | None] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.stopped = False

    def run_epoch(self) -> Generator[TrainingStep, None, None]:
        """Train on every tile once.

        All chance of an epoch comes from the seed and the epoch's number, so that a training
        continued at an epoch equals one that was never interrupted.
        """
        rng = np.random.default_rng([self.seed, self.epoch])
        order, size = rng.permutation(self.train), self.params.batch_size
        steps = -(-len(order) // size)
        told = len(self.place.notes)
        for step in range(steps):
            with thread_count(self.params.threads):
                loss = self._step(order[step * size :][:size], rng)
                last = step == steps - 1
                held_out = self._validate() if last else float("nan")
            note = " ".join(self.place.notes[told:])
            told = len(self.place.notes)
            if last:
                self._remember(held_out)
            yield TrainingStep(self.epoch - last, step, steps, loss, held_out, note)

    def _remember(self, held_out: float) -> None:
        """Close an epoch: keep its loss, and its weights if they are the best so far."""
        self.epoch += 1
        known = [value for value in self.history if value is not None]
        self.history.append(held_out if np.isfinite(held_out) else None)
        if self.params.patience == 0 or not np.isfinite(held_out):
            return
        if not known or held_out < min(known):
            state = self.network.state_dict()
            self.best = {name: value.detach().cpu().clone() for name, value in state.items()}
            self.best_epoch = self.epoch
        self.stopped = self.epoch - self.best_epoch >= self.params.patience

    def finished(self) -> TissueNetwork:
        """The network that is kept: of the best epoch, or of the last."""
        if self.best:
            self.network.load_state_dict(self.best)
        else:
            self.best_epoch = self.epoch
        return self.network.eval()

    def scores(self, classes: Sequence[str]) -> dict[str, Any] | None:
        """Scores per class on the validation tiles; None without labelled pixels there."""
        codes = self.tiles.codes[self.validation]
        if not codes.any():
            return None
        with thread_count(self.params.threads):
            found = np.concatenate([s.argmax(1).cpu().numpy() + 1 for s in self._held_out_scores()])
        return class_metrics(confusion_matrix(codes, found, len(classes))).to_dict(classes)

    # --- one step -------------------------------------------------------------------------------
    def _move(self) -> None:
        """Network and optimiser to the place."""
        self.network.to(self.place.device)
        for state in self.optimiser.state.values():
            for name, value in state.items():
                if isinstance(value, Tensor) and value.ndim:
                    state[name] = value.to(self.place.device)

    def _step(self, rows: NDArray[np.int64], rng: np.random.Generator) -> float:
        pictures = np.stack([self._changed(self.tiles.pictures[row], rng) for row in rows])
        codes = self.tiles.codes[rows]
        if self.params.flip_rotate:
            pictures, codes = _turned(pictures, codes, rng)
        x, y = prepared(pictures), torch.from_numpy(codes.astype(np.int64) - 1)
        while True:
            try:
                return self._descend(x, y)
            except torch.cuda.OutOfMemoryError:
                self.place.reduce_batch_size()
                self._move()

    def _changed(self, picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        amount = self.params.stain_augmentation
        return stain_augmented(picture, amount, rng) if amount > 0 else picture

    def _descend(self, x: Tensor, y: Tensor) -> float:
        """One step of Adam; a batch that is computed in parts has the loss of the whole."""
        self.network.train()
        self.optimiser.zero_grad()
        weights = torch.from_numpy(self.weights)
        amount = float(_labelled_weight(y, weights))
        total = 0.0
        for start in range(0, len(x), self.place.batch_size):
            part = slice(start, start + self.place.batch_size)
            loss = self._summed(x[part], y[part], weights) / max(amount, 1e-12)
            torch.autograd.backward(loss)
            total += float(loss.detach())
        self.optimiser.step()
        return total

    def _summed(self, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """Sum of the weighted cross-entropy over the labelled pixels of a part."""
        device = self.place.device
        mixed = self.params.mixed_precision and device.type == "cuda"
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            scores = self.network(x.to(device))
        summed: Tensor = functional.cross_entropy(
            scores.float(), y.to(device), weights.to(device), ignore_index=-1, reduction="sum"
        )
        return summed

    # --- validation -----------------------------------------------------------------------------
    def _held_out_scores(self) -> list[Tensor]:
        """Class scores of the validation tiles in batches."""
        while True:
            try:
                return list(self._scored())
            except torch.cuda.OutOfMemoryError:
                self.place.reduce_batch_size()
                self._move()

    def _scored(self) -> Generator[Tensor, None, None]:
        self.network.eval()
        for start in range(0, len(self.validation), self.place.batch_size):
            rows = self.validation[start : start + self.place.batch_size]
            with torch.inference_mode():
                x = prepared(self.tiles.pictures[rows]).to(self.place.device)
                yield self.network(x).float().cpu()

    def _validate(self) -> float:
        """Loss over all validation tiles; NaN where none of their pixels has a class."""
        codes = self.tiles.codes[self.validation]
        if not codes.any():
            return float("nan")
        y, weights = torch.from_numpy(codes.astype(np.int64) - 1), torch.from_numpy(self.weights)
        scores = torch.cat(self._held_out_scores())
        amount = float(_labelled_weight(y, weights))
        if amount == 0:
            return float("nan")
        summed = functional.cross_entropy(scores, y, weights, ignore_index=-1, reduction="sum")
        return float(summed) / amount

    # --- on disk --------------------------------------------------------------------------------
    def save(self, path: Path) -> None:
        """Write the state whole or not at all."""
        state = {
            "mark": self._mark,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "epoch": self.epoch,
            "history": self.history,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "stopped": self.stopped,
            "notes": self.place.notes,
        }
        write_checkpoint(path, state)

    def restore(self, path: Path) -> bool:
        """Continue from a checkpoint of the same training; False: there is none that fits."""
        state = read_checkpoint(path, self._mark)
        if state is None:
            return False
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self._move()
        self.epoch, self.history = state["epoch"], state["history"]
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.stopped = state["stopped"]
        self.place.notes.extend(state["notes"])
        return True


def _weights(codes: NDArray[np.uint8], params: DenseNetParams, n_classes: int) -> Float32:
    """The weights that were given, else those of the training part."""
    given = params.class_weights
    counted = class_weights(codes, n_classes)
    if not given:
        return counted
    if len(given) != n_classes or min(given) < 0 or max(given) == 0:
        raise InputError(
            f"class_weights = {list(given)}: {n_classes} classes need as many weights, not "
            "negative and not all 0"
        )
    return np.asarray(given, np.float32)


def _labelled_weight(y: Tensor, weights: Tensor) -> Tensor:
    return weights[y.clamp_min(0)][y >= 0].sum()


def _turned(
    pictures: NDArray[np.uint8], codes: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """All tiles of a batch turned and mirrored alike, so that they keep one shape."""
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    pictures, codes = np.rot90(pictures, turns, (1, 2)), np.rot90(codes, turns, (1, 2))
    if mirrored:
        pictures, codes = pictures[:, ::-1], codes[:, ::-1]
    return np.ascontiguousarray(pictures), np.ascontiguousarray(codes)
