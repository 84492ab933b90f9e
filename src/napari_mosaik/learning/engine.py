"""One training loop for every network: what to learn is a `TrainingTask`, how is a `TrainingPlan`.

All randomness of an epoch comes from the seed and the number of the epoch.  A training that resumes
after an epoch therefore gives the same weights as one that was never interrupted.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from napari_mosaik.core.atomic import atomic_file, flush_to_disk
from napari_mosaik.core.errors import InputError
from napari_mosaik.learning.devices import ComputeDevice, thread_count

__all__ = [
    "EpochRecord",
    "Trainer",
    "TrainingPlan",
    "TrainingStep",
    "TrainingTask",
    "read_checkpoint",
    "write_checkpoint",
]

T = TypeVar("T")


class TrainingTask(Protocol):
    """What a network learns from: batches, their loss, and a validation."""

    @property
    def network(self) -> nn.Module:
        """The network; its weights change in place."""

    def batches(self, rng: np.random.Generator) -> Iterator[Any]:
        """The batches of one epoch; *rng* is the only source of randomness."""

    def losses(self, batch: Any, device: ComputeDevice) -> Iterator[tuple[Tensor, ...]]:
        """Loss of each part of a batch, a dimensionless scalar, and further terms to be recorded.

        The parts hold at most ``device.batch_size`` samples; their losses add up to the loss of the
        batch.  Only the first term is minimised.
        """

    def validate(self, network: nn.Module, device: ComputeDevice) -> dict[str, float]:
        """Errors on the validation data; the first decides which weights are best.

        Empty without validation data.
        """


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How long and how fast a network is trained.

    Parameters
    ----------
    seed
        Random seed of the batches.
    epochs
        Maximum number of epochs.
    batches
        Batches per epoch.
    patience
        Epochs without a better validation error before the training stops; 0: never.
    keep_best
        Keep the weights of the epoch with the lowest validation error; otherwise the last.
    threads
        CPU threads; the setting of torch if None.
    max_gradient_norm
        Larger gradients are scaled to this norm; None: never.
    learning_rate
        Step number from 0 to learning rate; that of the optimiser if None.  A group of the
        optimiser with a ``rate_factor`` learns that many times as fast.
    mean_share
        Step number from 0 to the fraction by which the running mean of the weights moves towards
        them.  The running mean is what is validated and kept; None: the weights themselves.
    fingerprint
        Identifies the training; only a checkpoint with the same fingerprint is resumed.
    """

    seed: int
    epochs: int
    batches: int
    patience: int = 0
    keep_best: bool = True
    threads: int | None = None
    max_gradient_norm: float | None = None
    learning_rate: Callable[[int], float] | None = None
    mean_share: Callable[[int], float] | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """Errors of one epoch.

    Parameters
    ----------
    epoch
        Number of the epoch, from 1.
    losses
        Mean over the batches of each term of the loss.
    validation
        What `TrainingTask.validate` returned.
    """

    epoch: int
    losses: tuple[float, ...]
    validation: dict[str, float] = field(default_factory=dict)

    @property
    def score(self) -> float | None:
        """The validation error that decides, the lower the better; None without validation."""
        return next(iter(self.validation.values()), None)


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """One batch of a training.

    Parameters
    ----------
    epoch, epochs
        Number of the epoch, from 1, and the maximum number of epochs.
    batch, batches
        Number of the batch, from 1, and batches per epoch.
    loss
        Loss of the batch.
    record
        Errors of the epoch, with its last batch.
    note
        What had to change, for example after the GPU ran out of memory; else empty.
    history
        Loss of the training, and score of the validation or None, of each epoch so far.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    record: EpochRecord | None = None
    note: str = ""
    history: tuple[tuple[float, float | None], ...] = ()

    @property
    def fraction(self) -> float:
        """Fraction of the longest possible training that is done."""
        return ((self.epoch - 1) * self.batches + self.batch) / (self.epochs * self.batches)


class Trainer:
    """A training in progress: network, optimiser, running mean, best weights, history."""

    def __init__(
        self,
        task: TrainingTask,
        optimiser: torch.optim.Optimizer,
        plan: TrainingPlan,
        device: ComputeDevice,
    ) -> None:
        self.task, self.optimiser, self.plan, self.device = task, optimiser, plan, device
        self.network = task.network
        self.mean = self.network if plan.mean_share is None else copy.deepcopy(self.network)
        self.epoch = 0
        self.history: list[EpochRecord] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.stopped = False
        self.resumed = False
        self._to_device()

    def run(self, checkpoint: Path | None = None) -> Generator[TrainingStep, None, None]:
        """Train to the end; yields after every batch.  Closing it stops within one batch.

        Parameters
        ----------
        checkpoint
            File that keeps the state after each epoch.  The same training resumes from it.

        Raises
        ------
        InputError
            The loss is not finite.
        MosaikError
            The memory is not enough for one sample.
        """
        self.resumed = checkpoint is not None and self.restore(checkpoint)
        while self.epoch < self.plan.epochs and not self.stopped:
            yield from self._run_epoch(checkpoint)

    def weights(self) -> dict[str, Tensor]:
        """The weights that are kept, by name."""
        return self.best or self.mean.state_dict()

    # --- one epoch ------------------------------------------------------------------------------
    def _run_epoch(self, checkpoint: Path | None) -> Generator[TrainingStep, None, None]:
        plan, number = self.plan, self.epoch + 1
        batches = self.task.batches(np.random.default_rng([plan.seed, self.epoch]))
        losses = []
        n_notes = len(self.device.notes)
        for index in range(plan.batches):
            record = None
            with self._threads():
                losses.append(self._step(next(batches), self.epoch * plan.batches + index))
                if index == plan.batches - 1:
                    record = self._finish_epoch(np.asarray(losses))
            # Saved before the step is reported: whoever stops here resumes after this epoch.
            if record is not None and checkpoint is not None:
                self.save(checkpoint)
            note = " ".join(self.device.notes[n_notes:])
            n_notes = len(self.device.notes)
            yield TrainingStep(
                number,
                plan.epochs,
                index + 1,
                plan.batches,
                losses[-1][0],
                record,
                note,
                tuple((entry.losses[0], entry.score) for entry in self.history),
            )

    def _step(self, batch: Any, step: int) -> tuple[float, ...]:
        """One step of the optimiser; the terms of the loss."""
        self.network.train()
        if self.plan.learning_rate is not None:
            for group in self.optimiser.param_groups:
                group["lr"] = self.plan.learning_rate(step) * group.get("rate_factor", 1.0)
        terms = self.with_enough_memory(lambda: self._gradients(batch))
        if self.plan.max_gradient_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.plan.max_gradient_norm)
        self.optimiser.step()
        if self.plan.mean_share is not None:
            self._move_mean(self.plan.mean_share(step))
        return terms

    def _gradients(self, batch: Any) -> tuple[float, ...]:
        self.optimiser.zero_grad(set_to_none=True)
        totals: list[float] = []
        for terms in self.task.losses(batch, self.device):
            torch.autograd.backward(terms[0])
            values = [float(term.detach()) for term in terms]
            totals = [a + b for a, b in zip(totals, values, strict=True)] if totals else values
        return tuple(totals)

    @torch.no_grad()
    def _move_mean(self, share: float) -> None:
        pairs = zip(self.mean.parameters(), self.network.parameters(), strict=True)
        for mean, value in pairs:
            mean.lerp_(value, share)

    def _finish_epoch(self, losses: np.ndarray[Any, np.dtype[np.float64]]) -> EpochRecord:
        """Validate, remember the best weights, decide whether to stop."""
        if not np.isfinite(losses).all():
            rate = self.optimiser.param_groups[0]["lr"]
            raise InputError(
                f"the training loss is not a number in epoch {self.epoch + 1}; lower the learning "
                f"rate (now {rate:g})"
            )
        self.epoch += 1
        means = tuple(float(losses[:, term].mean()) for term in range(losses.shape[1]))
        errors = self.with_enough_memory(lambda: self.task.validate(self.mean, self.device))
        record = EpochRecord(self.epoch, means, errors)
        score = record.score
        earlier = [entry.score for entry in self.history if entry.score is not None]
        self.history.append(record)
        if score is None or not self.plan.keep_best:
            self.best_epoch = self.epoch
        elif all(score < value for value in earlier):
            self.best_epoch = self.epoch
            state = self.mean.state_dict()
            self.best = {name: value.detach().cpu().clone() for name, value in state.items()}
        self.stopped = 0 < self.plan.patience <= self.epoch - self.best_epoch
        return record

    # --- device ---------------------------------------------------------------------------------
    def with_enough_memory(self, compute: Callable[[], T]) -> T:
        """Repeat with smaller batches, then on the CPU, while the GPU runs out of memory."""
        return self.device.with_enough_memory(compute, self._to_device)

    def _to_device(self) -> None:
        """Move networks and optimiser to the device."""
        self.network.to(self.device.device)
        self.mean.to(self.device.device)
        for state in self.optimiser.state.values():
            for name, value in state.items():
                if isinstance(value, Tensor) and value.ndim:
                    state[name] = value.to(self.device.device)

    def _threads(self) -> Any:
        return nullcontext() if self.plan.threads is None else thread_count(self.plan.threads)

    # --- on disk --------------------------------------------------------------------------------
    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        records = [(entry.epoch, list(entry.losses), entry.validation) for entry in self.history]
        state = {
            "fingerprint": self.plan.fingerprint,
            "network": self.network.state_dict(),
            "mean": self.mean.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "epoch": self.epoch,
            "history": records,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "stopped": self.stopped,
            "notes": self.device.notes,
        }
        write_checkpoint(path, state)

    def restore(self, path: Path) -> bool:
        """Resume from a checkpoint of the same training; False if there is none."""
        state = read_checkpoint(path, self.plan.fingerprint)
        if state is None:
            return False
        self.network.load_state_dict(state["network"])
        self.mean.load_state_dict(state["mean"])
        self.optimiser.load_state_dict(state["optimiser"])
        self._to_device()
        self.history = [EpochRecord(n, tuple(losses), v) for n, losses, v in state["history"]]
        self.epoch, self.stopped = state["epoch"], state["stopped"]
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.device.notes.extend(state["notes"])
        return True


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; the file is replaced once it is complete on the disk."""
    with atomic_file(path) as scratch, scratch.open("wb") as file:
        torch.save(state, file)
        flush_to_disk(file)


def read_checkpoint(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """The state that was saved under *fingerprint*; None if there is none or it is damaged."""
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError):
        return None
    return state if state.get("fingerprint") == fingerprint else None
