"""Train the paper's tissue network on tiles of which only some pixels carry a class."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.params import digest
from napari_mosaik.learning.comparison import mean_dice, paired_difference
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
from napari_mosaik.segment.metrics import class_calibration, class_metrics, confusion_matrix
from napari_mosaik.segment.model_files import weights_digest
from napari_mosaik.segment.tissue_classifier import CLASSES

__all__ = [
    "Tiles",
    "TissueTask",
    "apart_from",
    "class_weights",
    "split_groups",
    "stain_augmented",
    "train_densenet",
]

ImageBatch = tuple[Tensor, Tensor, Tensor]


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
    places
        (n,) slide, row and column of each tile, "B11 3 7": no tile beside a validating one trains.
        If None this is not looked at.
    weights
        (n, rows, columns) how much each pixel counts in the loss (fraction); 1 if None.
    """

    images: NDArray[np.uint8]
    codes: NDArray[np.uint8]
    groups: NDArray[Any] | None = None
    places: NDArray[np.str_] | None = None
    weights: Float32 | None = None

    def __post_init__(self) -> None:
        shape = self.images.shape
        if len(shape) != 4 or shape[3] != 3 or self.codes.shape != shape[:3]:
            raise InputError(f"tiles {shape} and codes {self.codes.shape} do not fit")

    def digest(self) -> str:
        """Equal digests, equal tiles."""
        arrays: dict[str, NDArray[Any]] = {"images": self.images, "codes": self.codes}
        if self.weights is not None:
            arrays["weights"] = self.weights
        return weights_digest(
            arrays, {"groups": _texts(self.groups), "places": _texts(self.places)}
        )

    def digests(self) -> list[str]:
        """A digest of each tile: of its pixels and its codes."""
        pairs = zip(self.images, self.codes, strict=True)
        return [
            blake2b(image.tobytes() + codes.tobytes(), digest_size=6).hexdigest()
            for image, codes in pairs
        ]


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


def apart_from(rows: NDArray[np.int64], others: Iterable[str], tiles: Tiles) -> NDArray[np.int64]:
    """The tiles among *rows*, (m,) index, that touch none of *others*, given by their places."""
    if tiles.places is None:
        return rows
    taken = set(others)
    return np.array([i for i in rows if not taken & _around(str(tiles.places[i]))], np.int64)


def _around(place: str) -> set[str]:
    """A tile and its eight neighbours, by their places."""
    slide, row, col = place.rsplit(" ", 2)
    steps = (-1, 0, 1)
    return {f"{slide} {int(row) + down} {int(col) + right}" for down in steps for right in steps}


def _texts(names: NDArray[Any] | None, rows: Any = slice(None)) -> list[str]:
    return [] if names is None else [str(name) for name in names[rows]]


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
    parent: DenseNetTissueModel | None = None,
    replay: float = 0.0,
) -> Generator[TrainingStep, None, DenseNetTissueModel]:
    """Train the network; yields after every batch, returns the model at the end.

    From a *parent* the network is fine-tuned: on the tiles that the parent has not seen, mixed with
    a sample of those that it has.  What validated the parent validates again, and its card has a
    comparison of both on it.

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
    parent
        The network to start from; its classes must be *classes*.
    replay
        Share of the training tiles that the parent has seen, in [0, 1).

    Raises
    ------
    InputError
        The parent has other classes, or has seen every tile.
    """
    if parent is not None and parent.classes != classes:
        raise InputError(
            f"the model {parent.hash[:12]} has the classes {', '.join(parent.classes)}, but "
            f"{', '.join(classes)} are annotated; train a new model instead"
        )
    task = TissueTask(tiles, params, seed, len(classes), encoder, parent, replay)
    optimiser = torch.optim.Adam(task.network.parameters(), lr=params.learning_rate)
    device = device or ComputeDevice.best(params.batch_size)
    trainer = Trainer(task, optimiser, task.plan(), device)
    yield from trainer.run(checkpoint)
    task.network.load_state_dict(trainer.weights())
    records = {
        "class_weights": dict(zip(classes, task.weights.tolist(), strict=True)),
        "tiles": len(task.train),
        "validation_tiles": len(task.validation),
        "encoder": task.start,
        "epochs": trainer.epoch,
        "best_epoch": trainer.best_epoch,
        "validation_loss": [record.score for record in trainer.history],
        "device": device.description,
        "notes": list(device.notes),
        "history": [[entry.losses[0], entry.score] for entry in trainer.history],
        "held_out": trainer.with_enough_memory(lambda: task.scores(classes, device)),
        **task.record(),
        **(training or {}),
    }
    if parent is not None:
        records["comparison"] = trainer.with_enough_memory(lambda: task.compared(parent, device))
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
    start
        What the network starts from, in words.
    """

    def __init__(
        self,
        tiles: Tiles,
        params: DenseNetParams,
        seed: int,
        n_classes: int,
        encoder: dict[str, Tensor] | None = None,
        parent: DenseNetTissueModel | None = None,
        replay: float = 0.0,
    ) -> None:
        self.tiles, self.params, self.seed = tiles, params, seed
        self.parent, self.replay = parent, replay
        rng = np.random.default_rng(seed)
        self.before: Mapping[str, Any] = {} if parent is None else _history_of(parent)
        train, validation = self._split(rng)
        self.validation = apart_from(validation, self.before.get("training_tiles", ()), tiles)
        self.train = apart_from(train, _texts(tiles.places, self.validation), tiles)
        self.n_left_out = len(train) + len(validation) - len(self.train) - len(self.validation)
        self.n_fresh = len(self.train)
        if parent is not None:
            self.train, self.n_fresh = self._mixed(rng)
        if not len(self.train):
            raise InputError(
                "no tile is left to train on: all lie beside tiles that are held out; annotate "
                "further away from them, or lower validation_fraction"
            )
        self.weights = _weights(tiles.codes[self.train], params, n_classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))
            self.network = TissueNetwork(n_classes, params.decoder)
        self.start = "random initialisation"
        if encoder is not None:
            put_encoder_weights(self.network.encoder, encoder)
            self.start = "given weights"
        if parent is not None:
            self.network.load_state_dict(parent.network.state_dict())
            self.start = f"model {parent.hash}"

    def _split(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Training and validation tiles; groups that a parent knows stay on their side."""
        tiles, fraction = self.tiles, self.params.validation_fraction
        names = np.array(_texts(tiles.groups), dtype=str)
        if not self.before or not names.size:
            return split_groups(len(tiles.codes), tiles.groups, fraction, rng)
        held = np.isin(names, self.before["held_out"])
        unknown = np.flatnonzero(~held & ~np.isin(names, self.before["training"]))
        _, further = split_groups(unknown.size, names[unknown], fraction, rng)
        held[unknown[further]] = True
        return np.flatnonzero(~held), np.flatnonzero(held)

    def _mixed(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], int]:
        """Tiles that the parent has not seen, mixed with a sample of others; how many are new."""
        assert self.parent is not None
        seen = set(self.before["tile_digests"])
        digests = self.tiles.digests()
        new = np.array([digests[i] not in seen for i in self.train], bool)
        fresh, old = self.train[new], self.train[~new]
        if not fresh.size:
            raise InputError(
                f"no tile was annotated or changed since the model {self.parent.hash[:12]} was "
                "trained, so there is nothing to learn; annotate, then train from it"
            )
        wanted = round(self.replay / (1 - self.replay) * fresh.size)
        sample = rng.permutation(old)[:wanted]
        return np.sort(np.concatenate([fresh, sample])), int(fresh.size)

    def record(self) -> dict[str, Any]:
        """Entries of the card: the split, the tiles that were seen, and what it started from."""
        digests, places, groups = self.tiles.digests(), self.tiles.places, self.tiles.groups
        own = {
            "training": _texts(groups, self.train),
            "held_out": _texts(groups, self.validation),
            "training_tiles": _texts(places, self.train),
            "tile_digests": [digests[i] for i in self.train],
        }
        split = {name: sorted({*self.before.get(name, ()), *own[name]}) for name in own}
        found: dict[str, Any] = {
            "split": {
                "kind": "block",
                "rule": "no tile trains that lies beside or across from a held-out one",
                "left_out": self.n_left_out,
                **split,
            }
        }
        if self.parent is not None:
            found["parent"] = self.parent.hash
            n_old = len(self.train) - self.n_fresh
            found["replay"] = {"share": self.replay, "tiles": n_old, "new_tiles": self.n_fresh}
        return found

    def plan(self) -> TrainingPlan:
        """How the network is trained: without patience, every epoch runs and the last is kept."""
        params = self.params
        initial = weights_digest(arrays_of(self.network), {})
        content = [self.tiles.digest(), params.digest(), self.seed, initial, torch.__version__]
        if self.parent is not None:
            content += [self.parent.hash, str(self.replay)]
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
        """Every training tile once: images (b, 3, rows, columns), classes and weights (b, rows,
        columns).
        """
        order = rng.permutation(self.train)
        for start in range(0, len(order), self.params.batch_size):
            rows = order[start : start + self.params.batch_size]
            images = np.stack([self._augmented(self.tiles.images[row], rng) for row in rows])
            codes, weights = self.tiles.codes[rows], self._pixel_weights(rows)
            if self.params.flip_rotate:
                images, codes, weights = _flip_rotated((images, codes, weights), rng)
            yield prepared(images), _targets(codes), torch.from_numpy(weights)

    def _pixel_weights(self, rows: NDArray[np.int64]) -> Float32:
        """Weights (b, rows, columns) of the pixels of some tiles in the loss, fraction."""
        if self.tiles.weights is None:
            return np.ones((len(rows), *self.tiles.codes.shape[1:]), np.float32)
        return self.tiles.weights[rows]

    def _augmented(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        amount = self.params.stain_augmentation
        return stain_augmented(image, amount, rng) if amount > 0 else image

    def losses(self, batch: ImageBatch, device: ComputeDevice) -> Iterator[tuple[Tensor, ...]]:
        """Weighted cross-entropy of the labelled pixels, in parts that fit into the memory.

        Each is a scalar, dimensionless; images (b, 3, rows, columns).
        """
        x, y, w = batch
        weights = torch.from_numpy(self.weights)
        amount = max(float(_labelled_weight(y, weights, w)), 1e-12)
        for start in range(0, len(x), device.batch_size):
            part = slice(start, start + device.batch_size)
            yield (self._summed(x[part], y[part], w[part], weights, device) / amount,)

    def _summed(
        self, x: Tensor, y: Tensor, w: Tensor, weights: Tensor, device: ComputeDevice
    ) -> Tensor:
        with device.mixed() if self.params.mixed_precision else device.exact():
            scores = self.network(device.put(x))
        return _summed_loss(scores.float(), *map(device.put, (y, w, weights)))

    def validate(self, network: nn.Module, device: ComputeDevice) -> dict[str, float]:
        """Loss over all validation tiles; empty where none of their pixels has a class."""
        y, weights = _targets(self.tiles.codes[self.validation]), torch.from_numpy(self.weights)
        w = torch.from_numpy(self._pixel_weights(self.validation))
        amount = float(_labelled_weight(y, weights, w))
        if amount == 0:
            return {}
        scores = torch.cat(list(self._scores(network, device)))
        return {"loss": float(_summed_loss(scores, y, w, weights)) / amount}

    def _scores(self, network: nn.Module, device: ComputeDevice) -> Iterator[Tensor]:
        """Class scores of the validation tiles, batch by batch."""
        network.eval()
        for start in range(0, len(self.validation), device.batch_size):
            rows = self.validation[start : start + device.batch_size]
            with torch.inference_mode(), device.exact():
                scores = device.fetch(network(prepared(self.tiles.images[rows], device)))
            yield scores

    def compared(self, parent: DenseNetTissueModel, device: ComputeDevice) -> dict[str, Any] | None:
        """Mean Dice of the parent and of this network on the validation tiles; None without any."""
        codes = self.tiles.codes[self.validation]
        if not codes.any():
            return None
        parent.network.to(device.device)
        n = len(parent.classes)
        counts = []
        with thread_count(self.params.threads):
            for network in (parent.network, self.network):
                found = [s.argmax(1).numpy() + 1 for s in self._scores(network, device)]
                pairs = zip(codes, np.concatenate(found), strict=True)
                counts.append([confusion_matrix(true, own, n) for true, own in pairs])
        groups = _texts(self.tiles.groups, self.validation) or list(map(str, self.validation))
        return {
            "score": "mean Dice",
            "on": "tiles that are held out from both models",
            **paired_difference(counts[0], counts[1], groups, mean_dice, seed=self.seed),
        }

    def scores(self, classes: Sequence[str], device: ComputeDevice) -> dict[str, Any] | None:
        """Scores per class on the validation tiles; None without labelled pixels there."""
        codes = self.tiles.codes[self.validation]
        if not codes.any():
            return None
        with thread_count(self.params.threads):
            parts = [s.softmax(1).numpy() for s in self._scores(self.network, device)]
        probability = np.concatenate(parts)
        confusion = confusion_matrix(codes, probability.argmax(axis=1) + 1, len(classes))
        flat = probability.transpose(0, 2, 3, 1)[codes > 0]
        return {
            **class_metrics(confusion).to_dict(classes),
            "calibration": class_calibration(codes[codes > 0], flat),
        }


def _history_of(parent: DenseNetTissueModel) -> Mapping[str, Any]:
    """What a network was trained on and what was held out, from its card."""
    split = parent.training.get("split")
    if not isinstance(split, Mapping) or "tile_digests" not in split:
        raise InputError(
            f"the card of the model {parent.hash[:12]} does not say on which tiles it was trained, "
            "so none can be held out from it; train a new model"
        )
    return split


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


def _labelled_weight(y: Tensor, weights: Tensor, w: Tensor) -> Tensor:
    return (weights[y.clamp_min(0)] * w)[y >= 0].sum()


def _summed_loss(scores: Tensor, y: Tensor, w: Tensor, weights: Tensor) -> Tensor:
    """Sum of the cross-entropies of all labelled pixels, each by its own and its class's weight."""
    each = functional.cross_entropy(scores, y, weights, ignore_index=-1, reduction="none")
    return (each * w).sum()


def _flip_rotated(arrays: tuple[NDArray[Any], ...], rng: np.random.Generator) -> list[NDArray[Any]]:
    """All tiles of a batch turned and mirrored alike, so that they keep one shape."""
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    turned = [np.rot90(one, turns, (1, 2)) for one in arrays]
    return [np.ascontiguousarray(one[:, ::-1] if mirrored else one) for one in turned]
