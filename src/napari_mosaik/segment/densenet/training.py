"""Train the paper's tissue network on tiles of which only some pixels carry a class."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.params import digest
from napari_mosaik.learning.devices import ComputeDevice, thread_count
from napari_mosaik.learning.engine import Trainer, TrainingPlan, TrainingStep
from napari_mosaik.segment.densenet.network import (
    DenseNetParams,
    DenseNetTissueModel,
    TissueNetwork,
    arrays_of,
    prepared,
)
from napari_mosaik.segment.densenet.weights import put_encoder_weights
from napari_mosaik.segment.filters import Float32
from napari_mosaik.segment.metrics import class_metrics, confusion_matrix
from napari_mosaik.segment.model_files import weights_digest
from napari_mosaik.segment.tissue_classifier import CLASSES

__all__ = [
    "Tiles",
    "TissueTask",
    "class_weights",
    "split_groups",
    "stain_augmented",
    "train_densenet",
]

ImageBatch = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """Training tiles.

    Parameters
    ----------
    images
        (n, rows, columns, 3) 8-bit tiles at ``read_spacing_um``.
    codes
        (n, rows, columns) class codes; pixels of code 0 carry no loss.
    groups
        (n,) slide or spatial block of each tile; a group is never split between training and
        validation.  If None each tile is its own group, which leaks between neighbours.
    """

    images: NDArray[np.uint8]
    codes: NDArray[np.uint8]
    groups: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        shape = self.images.shape
        if len(shape) != 4 or shape[3] != 3 or self.codes.shape != shape[:3]:
            raise InputError(f"tiles {shape} and codes {self.codes.shape} do not fit")

    def digest(self) -> str:
        """Equal digests, equal tiles."""
        groups = [] if self.groups is None else [str(group) for group in self.groups]
        arrays = {"images": self.images, "codes": self.codes}
        return weights_digest(arrays, {"groups": groups})


def class_weights(codes: NDArray[Any], n_classes: int) -> Float32:
    """Weights (n_classes,) in order of the class codes: inverse to pixel counts, sum 1.

    Computed from the training split alone; dimensionless.  A class without pixels gets the weight
    0.  *codes* is a label array of any shape.
    """
    counts = np.bincount(np.asarray(codes).ravel(), minlength=n_classes + 1)[1 : n_classes + 1]
    inverse = np.where(counts > 0, 1 / np.maximum(counts, 1), 0.0)
    if inverse.sum() == 0:
        raise InputError("no pixel of the training tiles has a class; annotate shapes first")
    return np.asarray(inverse / inverse.sum(), np.float32)


def split_groups(
    n: int, groups: NDArray[Any] | None, fraction: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tile indices of the training and the validation part, shapes (n_train,), (n_validation,).

    Groups stay together.  At least one group is left for training; with a single group there is no
    validation.
    """
    owner = np.arange(n) if groups is None else np.asarray(groups)
    names = rng.permutation(np.unique(owner))
    held_out = names[: min(len(names) - 1, round(fraction * len(names)))]
    validation = np.isin(owner, held_out)
    return np.flatnonzero(~validation), np.flatnonzero(validation)


def stain_augmented(
    image: NDArray[np.uint8], amount: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """An 8-bit image (rows, columns, 3) with a random change of its stain.

    Strength and hue of the stain, brightness, sharpness and noise change; *amount* is
    dimensionless, 0 for no change.

    Source: Tellez et al. 2018, IEEE Trans Med Imaging 37:2126-2136.
    """
    od = -np.log((image.astype(np.float32) + 1) / 256)
    mix = np.eye(3) + amount * rng.normal(0, 0.35, (3, 3))
    mix *= np.exp(amount * rng.normal(0, 1.2))
    od = od @ mix.astype(np.float32).T + np.float32(0.15 * amount * rng.random())
    if rng.random() < 0.5:
        from scipy.ndimage import gaussian_filter

        sigma_px = 2.5 * amount * rng.random()
        od = np.asarray(gaussian_filter(od, (sigma_px, sigma_px, 0)), np.float32)
    changed = 255 * np.exp(-np.maximum(od, 0))
    changed += rng.normal(0, 20 * amount * rng.random(), image.shape)
    return np.asarray(np.clip(np.rint(changed), 0, 255), np.uint8)


def train_densenet(
    tiles: Tiles,
    params: DenseNetParams,
    seed: int,
    *,
    classes: tuple[str, ...] = CLASSES,
    encoder: dict[str, Tensor] | None = None,
    checkpoint: Path | None = None,
    device: ComputeDevice | None = None,
    training: Mapping[str, Any] | None = None,
) -> Generator[TrainingStep, None, DenseNetTissueModel]:
    """Train the network; yields after every batch, returns the model at the end.

    Parameters
    ----------
    tiles
        Images, codes and groups.
    params
        Settings.
    seed
        Random seed of weights, split, order and augmentation.
    classes
        Class names in order of their codes.
    encoder
        Initial weights of the encoder (`read_encoder_weights`); random initialisation if None.
    checkpoint
        File that keeps the state after every epoch; an interrupted training resumes from it and
        gives the same model (on a CPU; a GPU repeats itself only nearly).
    device
        Where it is computed; the best device if None.
    training
        Further entries of the card.
    """
    task = TissueTask(tiles, params, seed, len(classes), encoder)
    optimiser = torch.optim.Adam(task.network.parameters(), lr=params.learning_rate)
    device = device or ComputeDevice.best(params.batch_size)
    trainer = Trainer(task, optimiser, task.plan(), device)
    yield from trainer.run(checkpoint)
    task.network.load_state_dict(trainer.weights())
    records = {
        "class_weights": dict(zip(classes, task.weights.tolist(), strict=True)),
        "tiles": len(task.train),
        "validation_tiles": len(task.validation),
        "encoder": "random initialisation" if encoder is None else "given weights",
        "epochs": trainer.epoch,
        "best_epoch": trainer.best_epoch,
        "validation_loss": [record.score for record in trainer.history],
        "device": device.description,
        "notes": list(device.notes),
        "held_out": trainer.with_enough_memory(lambda: task.scores(classes, device)),
        **(training or {}),
    }
    return DenseNetTissueModel(task.network.eval(), params, classes, records)


class TissueTask:
    """Tissue classes of the labelled pixels of training tiles.

    Attributes
    ----------
    network
        The network, on whichever device the trainer put it.
    train, validation
        (n,) indices of the tiles of each part.
    weights
        (n_classes,) weight of each class in the loss.
    """

    def __init__(
        self,
        tiles: Tiles,
        params: DenseNetParams,
        seed: int,
        n_classes: int,
        encoder: dict[str, Tensor] | None = None,
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

    def plan(self) -> TrainingPlan:
        """How the network is trained: without patience, every epoch runs and the last is kept."""
        params = self.params
        initial = weights_digest(arrays_of(self.network), {})
        content = [self.tiles.digest(), params.digest(), self.seed, initial, torch.__version__]
        return TrainingPlan(
            seed=self.seed,
            epochs=params.epochs,
            batches=-(-len(self.train) // params.batch_size),
            patience=params.patience,
            keep_best=params.patience > 0,
            threads=params.threads,
            fingerprint=digest(content),
        )

    def batches(self, rng: np.random.Generator) -> Iterator[ImageBatch]:
        """Every training tile once: images (b, 3, rows, columns), classes (b, rows, columns)."""
        order = rng.permutation(self.train)
        for start in range(0, len(order), self.params.batch_size):
            rows = order[start : start + self.params.batch_size]
            images = np.stack([self._augmented(self.tiles.images[row], rng) for row in rows])
            codes = self.tiles.codes[rows]
            if self.params.flip_rotate:
                images, codes = _flip_rotated(images, codes, rng)
            yield prepared(images), _targets(codes)

    def _augmented(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        amount = self.params.stain_augmentation
        return stain_augmented(image, amount, rng) if amount > 0 else image

    def losses(self, batch: ImageBatch, device: ComputeDevice) -> Iterator[tuple[Tensor, ...]]:
        """Weighted cross-entropy of the labelled pixels, in parts that fit into the memory.

        Each is a scalar, dimensionless; images (b, 3, rows, columns).
        """
        x, y = batch
        weights = torch.from_numpy(self.weights)
        amount = max(float(_labelled_weight(y, weights)), 1e-12)
        for start in range(0, len(x), device.batch_size):
            part = slice(start, start + device.batch_size)
            yield (self._summed(x[part], y[part], weights, device.device) / amount,)

    def _summed(self, x: Tensor, y: Tensor, weights: Tensor, device: torch.device) -> Tensor:
        mixed = self.params.mixed_precision and device.type == "cuda"
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            scores = self.network(x.to(device))
        return functional.cross_entropy(
            scores.float(), y.to(device), weights.to(device), ignore_index=-1, reduction="sum"
        )

    def validate(self, network: nn.Module, device: ComputeDevice) -> dict[str, float]:
        """Loss over all validation tiles; empty where none of their pixels has a class."""
        y, weights = _targets(self.tiles.codes[self.validation]), torch.from_numpy(self.weights)
        amount = float(_labelled_weight(y, weights))
        if amount == 0:
            return {}
        scores = torch.cat(list(self._scores(network, device)))
        summed = functional.cross_entropy(scores, y, weights, ignore_index=-1, reduction="sum")
        return {"loss": float(summed) / amount}

    def _scores(self, network: nn.Module, device: ComputeDevice) -> Iterator[Tensor]:
        """Class scores of the validation tiles, batch by batch."""
        network.eval()
        for start in range(0, len(self.validation), device.batch_size):
            rows = self.validation[start : start + device.batch_size]
            with torch.inference_mode():
                x = prepared(self.tiles.images[rows]).to(device.device)
                yield network(x).float().cpu()

    def scores(self, classes: Sequence[str], device: ComputeDevice) -> dict[str, Any] | None:
        """Scores per class on the validation tiles; None without labelled pixels there."""
        codes = self.tiles.codes[self.validation]
        if not codes.any():
            return None
        with thread_count(self.params.threads):
            parts = [s.argmax(1).cpu().numpy() + 1 for s in self._scores(self.network, device)]
        confusion = confusion_matrix(codes, np.concatenate(parts), len(classes))
        return class_metrics(confusion).to_dict(classes)


def _weights(codes: NDArray[np.uint8], params: DenseNetParams, n_classes: int) -> Float32:
    """The weights of the settings, else those of the training part."""
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


def _targets(codes: NDArray[np.uint8]) -> Tensor:
    """Class index of each pixel, -1 without a class."""
    return torch.from_numpy(codes.astype(np.int64) - 1)


def _labelled_weight(y: Tensor, weights: Tensor) -> Tensor:
    return weights[y.clamp_min(0)][y >= 0].sum()


def _flip_rotated(
    images: NDArray[np.uint8], codes: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """All tiles of a batch turned and mirrored alike, so that they keep one shape."""
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    images, codes = np.rot90(images, turns, (1, 2)), np.rot90(codes, turns, (1, 2))
    if mirrored:
        images, codes = images[:, ::-1], codes[:, ::-1]
    return np.ascontiguousarray(images), np.ascontiguousarray(codes)
