"""What changes while a network is taught: weights, optimiser, running mean, best epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_mosaik.core.checkpoint import read_checkpoint, write_checkpoint
from napari_mosaik.predictor.network import MosaikNetwork
from napari_mosaik.predictor.params import NetworkParams, TrainParams
from napari_mosaik.predictor.prediction import batch_tensors, infer, thread_count
from napari_mosaik.predictor.training_set import TrainingSet, fit_inputs

__all__ = ["Session"]


class Session:
    """Everything that changes during a training, and its copy on disk."""

    def __init__(self, fold: TrainingSet, params: TrainParams, seed: int) -> None:
        self.fold, self.params, self.seed = fold, params, seed
        n_times = len(fold.cases[0].times_h)
        sizes = NetworkParams.parse({k: getattr(params, k) for k in NetworkParams.model_fields})
        self.network = MosaikNetwork(sizes, n_times, seed)
        self.average = MosaikNetwork(sizes, n_times, seed)
        fit_inputs(self.network, fold)
        share = float(np.clip(fold.mean_target, 0.02, 0.98))
        torch.nn.init.constant_(self.network.suv_head.bias, math.log(share / (1 - share)))
        self.average.load_state_dict(self.network.state_dict())
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay
        )
        self.epoch = 0
        self.history: list[dict[str, float | int | None]] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.stopped = False

    @property
    def batches(self) -> int:
        """Batches in one epoch."""
        return math.ceil(len(self.fold.tiles) / self.params.batch_size)

    def fingerprint(self) -> str:
        """What a checkpoint must agree on to be continued."""
        return f"{self.params.digest()} {self.seed} {self.fold.digest} {torch.__version__}"

    def save(self, path: Path) -> None:
        """Write the state whole or not at all."""
        state = {
            "mark": self.fingerprint(),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "epoch": self.epoch,
            "history": self.history,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "stopped": self.stopped,
        }
        write_checkpoint(path, state)

    def restore(self, path: Path) -> bool:
        """Continue from a checkpoint of the same training; False: there is none that fits."""
        state = read_checkpoint(path, self.fingerprint())
        if state is None:
            return False
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch, self.history = state["epoch"], state["history"]
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.stopped = state["stopped"]
        return True

    def run_epoch(self) -> Iterator[tuple[float, float, float]]:
        """Train on every tile once; yields total, SUV and class loss of each batch.

        All chance of an epoch comes from the seed and the epoch's number, so that a training
        continued at an epoch equals one that was never interrupted.
        """
        rng = np.random.default_rng([self.seed, self.epoch])
        chance = torch.Generator().manual_seed(int(rng.integers(2**62)))
        order = rng.permutation(len(self.fold.tiles))
        turns = rng.integers(0, 8, len(order)) * self.params.flip_rotate
        for number in range(self.batches):
            part = slice(number * self.params.batch_size, (number + 1) * self.params.batch_size)
            with thread_count(self.params.threads):
                losses = self._step(number, order[part], turns[part], chance)
            yield losses

    def _step(
        self,
        number: int,
        order: NDArray[np.int64],
        turns: NDArray[np.int64],
        chance: torch.Generator,
    ) -> tuple[float, float, float]:
        windows, codes, curves, target, label = _assemble(self.fold, order, turns)
        self.network.train()
        self.network.dropout.generator = chance
        step = self.epoch * self.batches + number
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(step)
        logits, suv = self.network(windows, codes, curves)
        suv_loss = functional.mse_loss(suv, target)
        class_loss = _class_loss(logits, label, self.fold.class_weights)
        loss = self.params.lambda_ * suv_loss + self.params.alpha * class_loss
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimiser.step()
        self._follow(step)
        return float(loss.detach()), float(suv_loss.detach()), float(class_loss.detach())

    def _rate(self, step: int) -> float:
        """Step size: constant, or a short rise and a cosine down to zero."""
        base = self.params.learning_rate
        if self.params.schedule == "constant":
            return base
        total = self.params.epochs * self.batches
        rise = max(1, total // 20)
        if step < rise:
            return base * (step + 1) / rise
        return base * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))

    def _follow(self, step: int) -> None:
        """Move the running mean of the weights; quickly at first."""
        decay = min(self.params.ema_decay, (1 + step) / (10 + step))
        decay = decay if self.params.ema_decay > 0 else 0.0
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
            for mean, value in pairs:
                mean.lerp_(value, 1 - decay)

    def finish_epoch(self, losses: NDArray[np.float64]) -> dict[str, float | int | None]:
        """Validate the running mean, remember the best weights, decide whether to stop."""
        self.epoch += 1
        entry: dict[str, float | int | None] = {
            "epoch": self.epoch,
            "loss": float(losses[:, 0].mean()),
            "suv_mse": float(losses[:, 1].mean()),
            "class_loss": float(losses[:, 2].mean()),
            "validation_mse": None,
            "validation_mae": None,
        }
        fold = self.fold
        better = True
        if fold.validation is not None:
            with thread_count(self.params.threads):
                _, suv = infer(self.average, fold.validation, fold.validation_rows)
            error = suv - fold.validation_target
            mse, mae = float(np.mean(error**2)), float(np.mean(np.abs(error)))
            entry |= {"validation_mse": mse, "validation_mae": mae}
            past = [e["validation_mse"] for e in self.history]
            better = all(mse < float(p) for p in past if p is not None)
        self.history.append(entry)
        if better:
            self.best_epoch = self.epoch
            self.best = {k: v.detach().clone() for k, v in self.average.state_dict().items()}
        waited = self.epoch - self.best_epoch
        self.stopped = 0 < self.params.patience <= waited
        return entry


def _class_loss(logits: Tensor, label: Tensor, weights: Tensor) -> Tensor:
    """Class-weighted cross-entropy over the labelled tiles; 0 when none counts."""
    known = label >= 0
    if not bool(known.any()) or float(weights[label[known]].sum()) <= 0:
        return logits.sum() * 0.0
    return functional.cross_entropy(logits[known], label[known], weight=weights)


def _turn(array: NDArray[np.uint8], turns: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Each sample in one of the 8 positions of a square (its last two axes)."""
    out = array.copy()
    for turn in np.unique(turns[turns > 0]):
        which = turns == turn
        part = np.rot90(array[which], int(turn) % 4, axes=(-2, -1))
        out[which] = part[..., ::-1] if turn >= 4 else part
    return out


def _assemble(
    fold: TrainingSet, order: NDArray[np.int64], turns: NDArray[np.int64]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The batch's windows, codes, curves, targets and labels, case by case."""
    tiles = fold.tiles[order]
    pieces, places = [], []
    for index in np.unique(tiles[:, 0]):
        place = np.flatnonzero(tiles[:, 0] == index)
        pieces.append(batch_tensors(fold.cases[index], tiles[place, 1]))
        places.append(place)
    places_all = np.concatenate(places)
    windows, codes, curves = (torch.cat(list(x)) for x in zip(*pieces, strict=True))
    turned = turns[places_all]
    chosen = order[places_all]
    return (
        torch.from_numpy(_turn(windows.numpy(), turned)),
        torch.from_numpy(_turn(codes.numpy(), turned)),
        curves,
        torch.from_numpy(fold.target[chosen]),
        torch.from_numpy(fold.label[chosen]),
    )
