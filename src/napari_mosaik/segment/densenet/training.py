"""Teaches the paper's network from tiles of which only some pixels carry a class."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from napari_mosaik.segment.densenet.network import DenseNetParams, DenseNetTissueModel
from napari_mosaik.segment.densenet.session import Session, Tiles, TrainingStep
from napari_mosaik.segment.devices import ComputeDevice
from napari_mosaik.segment.tissue_classifier import CLASSES

__all__ = ["train_densenet"]


def train_densenet(
    tiles: Tiles,
    params: DenseNetParams,
    seed: int,
    *,
    classes: tuple[str, ...] = CLASSES,
    encoder: dict[str, Tensor] | None = None,
    checkpoint: Path | None = None,
    place: ComputeDevice | None = None,
    training: Mapping[str, Any] | None = None,
) -> Generator[TrainingStep, None, DenseNetTissueModel]:
    """Train the network; yields after every step, returns the model at the end.

    Parameters
    ----------
    tiles
        Pictures, codes and groups.
    params
        Settings.
    seed
        Source of all chance: weights, split, order, changes of tiles.
    classes
        Class names in order of their codes.
    encoder
        Weights to begin with (`read_encoder_weights`); chance if None.
    checkpoint
        File that keeps the state after every epoch; a training that was cut off goes on from it to
        the same model (on a processor; a graphics card repeats itself only nearly).
    place
        Where it is computed; the best device if None.
    training
        What to keep in the card.
    """
    session = Session(tiles, params, seed, len(classes), encoder, place)
    if checkpoint is not None:
        session.restore(checkpoint)
    while session.epoch < params.epochs and not session.stopped:
        yield from session.run_epoch()
        if checkpoint is not None:
            session.save(checkpoint)
    network = session.finished()
    record = {
        "class_weights": dict(zip(classes, session.weights.tolist(), strict=True)),
        "tiles": len(session.train),
        "validation_tiles": len(session.validation),
        "encoder": "chance" if encoder is None else "given weights",
        "epochs": session.epoch,
        "best_epoch": session.best_epoch,
        "validation_loss": session.history,
        "device": session.place.description,
        "notes": list(session.place.notes),
        "held_out": session.scores(classes),
        **(training or {}),
    }
    return DenseNetTissueModel(network, params, classes, record)
