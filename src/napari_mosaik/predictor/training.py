"""Teach the network on measured cases, so that it can be stopped, resumed and repeated."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from napari_mosaik.core import InputError
from napari_mosaik.predictor.baselines import BaselineColumns
from napari_mosaik.predictor.inputs import TileInputs
from napari_mosaik.predictor.model import TrainedModel
from napari_mosaik.predictor.model_card import make_card
from napari_mosaik.predictor.params import TrainParams
from napari_mosaik.predictor.trainer import Session
from napari_mosaik.predictor.training_set import make_training_set

__all__ = ["TrainEvent", "train"]


@dataclass(frozen=True, slots=True)
class TrainEvent:
    """One step of a training: a batch or a whole epoch.

    Parameters
    ----------
    kind
        ``"batch"`` or ``"epoch"``.
    epoch, epochs
        Current epoch (from 1) and their largest number.
    batch, batches
        Current batch (from 1) and their number in an epoch.
    loss
        Loss of the batch, or mean loss of the epoch.
    losses
        For an epoch: its entry in the model's card.
    """

    kind: Literal["batch", "epoch"]
    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    losses: dict[str, float | int | None] | None = None

    @property
    def fraction(self) -> float:
        """Share of the longest possible training that is done."""
        return ((self.epoch - 1) * self.batches + self.batch) / (self.epochs * self.batches)


def train(
    cases: Sequence[TileInputs],
    params: TrainParams | None = None,
    *,
    seed: int = 0,
    validation: str | None = None,
    checkpoint: Path | None = None,
    columns: BaselineColumns | None = None,
) -> Generator[TrainEvent, None, TrainedModel]:
    """Train the network; the test case is not among *cases*.

    Parameters
    ----------
    cases
        Training cases with measured uptake.  Tiles without it, or without curves, are left out of
        the loss and counted in the card.
    params
        Settings; `TrainParams.preset("paper")` for the paper's.
    seed
        Of the starting weights, the order of the tiles, dropout and augmentation.
    validation
        Name of the training case that decides when to stop and which weights are kept; ``"none"``
        to use every case and the last weights; ``"auto"`` for the last case (by name) of the
        patient with the most training cases, so that no patient is lost to the training where
        that can be avoided, and none with fewer than three cases.  Left out: as *params* say.
        With few cases one of them is a poor judge and a large loss, hence the default "none" with
        a short, fixed schedule.
    checkpoint
        File that holds the state after each epoch.  A training with the same cases, settings and
        seed continues from it and ends with the same bits as one that was not interrupted;
        any other is begun anew.  The caller removes it when the model is stored.
    columns
        Tile parameters of the simple baselines.

    Yields
    ------
    TrainEvent
        One per batch and one per epoch; closing the generator stops within one batch.

    Returns
    -------
    TrainedModel
        The running mean of the weights at the best epoch, with its card.

    Raises
    ------
    InputError
        No case, differing windows, proxies, times or tile parameters, a missing part of the
        input, too few measured tiles or no spread in their uptake.

    Notes
    -----
    Loss: ``alpha`` times class-weighted cross-entropy plus ``lambda`` times squared error of the
    normalised SUV.  Scaling of the SUV, statistics of the inputs and class weights come from the
    training cases without the validation case; the baselines use all training cases.
    Bitwise repeatable on one machine at one thread count.
    """
    params = params or TrainParams()
    begun = time.monotonic()
    fold = make_training_set(cases, params, validation or params.validation)
    session = Session(fold, params, seed)
    resumed = checkpoint is not None and session.restore(checkpoint)
    while session.epoch < params.epochs and not session.stopped:
        losses = []
        number, batches = session.epoch + 1, session.batches
        for batch, loss in enumerate(session.run_epoch(), start=1):
            losses.append(loss)
            yield TrainEvent("batch", number, params.epochs, batch, batches, loss[0])
        if not np.isfinite(losses).all():
            raise InputError(
                f"the training loss is not a number in epoch {number}; lower the learning rate "
                f"(now {params.learning_rate})"
            )
        entry = session.finish_epoch(np.asarray(losses))
        if checkpoint is not None:
            session.save(checkpoint)
        loss_mean = float(np.mean([loss[0] for loss in losses]))
        yield TrainEvent("epoch", number, params.epochs, batches, batches, loss_mean, entry)
    weights = {name: value.numpy().copy() for name, value in session.best.items()}
    card = make_card(
        fold,
        params,
        seed,
        n_parameters=session.network.n_parameters,
        history=session.history,
        best_epoch=session.best_epoch,
        columns=columns,
        times={"seconds": round(time.monotonic() - begun, 3), "resumed": resumed},
    )
    return TrainedModel(weights, card)
