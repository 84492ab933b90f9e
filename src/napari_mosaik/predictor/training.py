"""Train the network on measured cases; a training can be stopped, resumed and repeated."""

from __future__ import annotations

import hashlib
import math
import platform
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from napari_mosaik import __version__
from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.core.text import same_words
from napari_mosaik.learning.devices import ComputeDevice
from napari_mosaik.learning.engine import EpochRecord, Trainer, TrainingPlan, TrainingStep
from napari_mosaik.predictor.inputs import CLASS_WORDS, N_CLASSES, TileInputs
from napari_mosaik.predictor.model import CARD_FORMAT, TrainedModel
from napari_mosaik.predictor.multiscale import FRACTIONS, SCALE_TILES
from napari_mosaik.predictor.network import MosaikNetwork, SlideNetwork
from napari_mosaik.predictor.params import NetworkParams, TrainParams
from napari_mosaik.predictor.prediction import (
    batch_tensors,
    check_fit,
    infer,
    member_network,
    network_device,
)
from napari_mosaik.predictor.scene import WIDEST, SlideScene
from napari_mosaik.predictor.surroundings import column_statistics, slide_columns
from napari_mosaik.predictor.training_set import TrainingSet, make_training_set

__all__ = ["train"]

TileBatch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def train(
    cases: Sequence[TileInputs],
    params: TrainParams | None = None,
    *,
    seed: int = 0,
    validation: str | None = None,
    checkpoint: Path | None = None,
    parent: TrainedModel | None = None,
    replay: float = 0.0,
    fwhm_um: float = 1500.0,
    device: ComputeDevice | None = None,
) -> Generator[TrainingStep, None, TrainedModel]:
    """Train the networks of an ensemble; the test case is not among *cases*.

    From a *parent* it is fine-tuned: on the tiles whose inputs or uptake have changed since the
    parent was trained, mixed with a sample of the others, with the parent's scaling of SUV and
    inputs.

    Parameters
    ----------
    cases
        Training cases with measured uptake.  Tiles without it, or without curves, are excluded from
        the loss and counted in the card.
    params
        Settings; `TrainParams.preset("paper")` for the paper's.
    seed
        Random seed of the initial weights, the order of the tiles, dropout and augmentation.
    validation
        Name of the training case that decides when to stop and which weights are kept; ``"none"``
        to train on every case and keep the last weights; ``"auto"`` for the last case (by name) of
        the patient with the most training cases, so that no patient is lost to the training where
        that can be avoided, and none with fewer than three cases.  If None: as *params* say.
        With few cases, one case validates poorly and is a large loss, hence the default "none" with
        a short, fixed schedule.
    checkpoint
        File that keeps the state after each epoch.  A training with the same cases, settings and
        seed resumes from it and gives the same bits as one that was not interrupted; any other
        training starts from epoch 1.  The caller removes the file when the model is stored.
    parent
        The model to start from; its settings of the network are kept.
    replay
        Share of the training tiles that the parent has seen as they are, in [0, 1).
    fwhm_um
        Resolution of the scanner, µm of the reference section.
    device
        Where it is computed, as `network_device` gives it; that if None.

    Yields
    ------
    TrainingStep
        One per batch; the last of an epoch holds its errors.  Closing the generator stops within
        one batch.

    Returns
    -------
    TrainedModel
        The running mean of the weights at the best epoch, with its card.

    Raises
    ------
    InputError
        No case, differing windows, proxies, times or tile parameters, a missing part of the
        input, too few measured tiles, no spread in their uptake, or a loss that is not finite.

    Notes
    -----
    Loss: ``alpha`` times class-weighted cross-entropy plus ``lambda`` times squared error of the
    normalised SUV.  Scaling of the SUV, statistics of the inputs and class weights come from the
    training cases without the validation case.  The model has no baselines yet: `with_baselines`.
    Bitwise repeatable on one machine's CPU at one thread count; a GPU repeats itself only nearly.
    """
    params = params or TrainParams()
    if params.alpha == params.lambda_ == 0:
        raise InputError("alpha and lambda are both 0: nothing would be learned; raise one of them")
    device = device or network_device(params)
    started = time.monotonic()
    data = make_training_set(cases, params, validation or params.validation)
    digests = _tile_digests(data, params, fwhm_um)
    lineage: dict[str, Any] = {"tile_digests": _joined(data, digests, {})}
    if parent is not None:
        data, n_fresh = _changed_tiles(data, digests, parent, replay, seed)
        lineage = {
            "parent": parent.hash,
            "replay": {
                "share": replay,
                "tiles": len(data.tiles) - n_fresh,
                "new_tiles": n_fresh,
            },
            "tile_digests": _joined(data, digests, parent.card["tile_digests"]),
        }
    scenes = _scenes(data, params, fwhm_um)
    weights: dict[str, NDArray[Any]] = {}
    history: list[dict[str, Any]] = []
    about: list[dict[str, Any]] = []
    resumed = False
    for number in range(params.members):
        own = _member_seed(seed, number)
        start = None if parent is None else member_network(parent, number)
        task: _UptakeTask | _SlideTask
        if scenes is None:
            task = _UptakeTask(data, params, own, start)
        else:
            task = _SlideTask(data, scenes, params, own, start)
        trainer = Trainer(task, _optimiser(task.network, params), task.plan(own, number), device)
        file = None if checkpoint is None else member_checkpoint(checkpoint, number)
        for step in trainer.run(file):
            yield replace(
                step,
                epoch=step.epoch + number * params.epochs,
                epochs=params.members * params.epochs,
            )
        weights |= {
            f"{number}.{name}": value.cpu().numpy().copy()
            for name, value in trainer.weights().items()
        }
        history += [_history_entry(record, number) for record in trainer.history]
        about.append({"seed": own, "best_epoch": trainer.best_epoch, **task.learnt(trainer)})
        resumed = resumed or trainer.resumed
    card = _card(
        data,
        params,
        seed,
        n_parameters=task.network.n_parameters,
        history=history,
        members=about,
        fwhm_um=fwhm_um,
        device=device,
        times={"seconds": round(time.monotonic() - started, 3), "resumed": resumed},
    )
    return TrainedModel(weights, {**card, **lineage})


def member_checkpoint(checkpoint: Path, number: int) -> Path:
    """The file that keeps the state of one network of the ensemble."""
    return checkpoint if number == 0 else checkpoint.with_suffix(f".{number}{checkpoint.suffix}")


def _member_seed(seed: int, number: int) -> int:
    """Seed of one network of the ensemble; the first has that of the training."""
    if number == 0:
        return seed
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


_WIDTH_RATE = 6.0
"""The width is one number that every tile informs: it learns faster than the weights."""


def _optimiser(network: nn.Module, params: TrainParams) -> torch.optim.Optimizer:
    """AdamW; the learnt width does not decay towards the scanner's, and learns faster."""
    free = [value for name, value in network.named_parameters() if name == "log_width"]
    other = [value for name, value in network.named_parameters() if name != "log_width"]
    groups: list[dict[str, Any]] = [{"params": other, "weight_decay": params.weight_decay}]
    groups += [{"params": free, "weight_decay": 0.0, "rate_factor": _WIDTH_RATE}] if free else []
    return torch.optim.AdamW(groups, lr=params.learning_rate, weight_decay=params.weight_decay)


def _scenes(data: TrainingSet, params: TrainParams, fwhm_um: float) -> list[SlideScene] | None:
    """The slides as the network over whole slides reads them; None for the other network."""
    if params.architecture != "slide":
        return None
    return [SlideScene.of(case, fwhm_um) for case in data.cases]


def _tile_digests(
    data: TrainingSet, params: TrainParams, fwhm_um: float
) -> dict[tuple[int, int], str]:
    """A digest of the inputs, the uptake and the class of each training tile, by case and tile."""
    found = {}
    labels = dict(zip(map(tuple, data.tiles.tolist()), data.label.tolist(), strict=True))
    for index, case in enumerate(data.cases):
        rows = data.tiles[data.tiles[:, 0] == index, 1]
        slide = params.architecture == "slide"
        columns = slide_columns(case, fwhm_um) if slide else np.zeros((len(case), 0))
        suv = np.asarray(case.suv, float)
        for start in range(0, len(rows), 64):
            part = rows[start : start + 64]
            parts = [scale.windows(part) for scale in case.scales]
            parts += [case.codes[part], np.asarray(case.tile_curves(part), np.float32)]
            parts.append(columns[part].astype(np.float32))
            for place, row in enumerate(part.tolist()):
                content = b"".join(np.ascontiguousarray(one[place]).tobytes() for one in parts)
                content += f" {suv[row]} {labels[index, row]}".encode()
                found[index, row] = hashlib.blake2b(content, digest_size=4).hexdigest()
    return found


def _joined(
    data: TrainingSet, digests: Mapping[tuple[int, int], str], before: Mapping[str, str]
) -> dict[str, str]:
    """The digests of all tiles that were trained on, as one text per case, with those of before."""
    seen = {
        case: {text[i : i + 8] for i in range(0, len(text), 8)} for case, text in before.items()
    }
    for index, row in data.tiles.tolist():
        seen.setdefault(data.cases[index].case, set()).add(digests[index, row])
    return {case: "".join(sorted(own)) for case, own in sorted(seen.items())}


def _changed_tiles(
    data: TrainingSet,
    digests: Mapping[tuple[int, int], str],
    parent: TrainedModel,
    replay: float,
    seed: int,
) -> tuple[TrainingSet, int]:
    """The tiles that changed since the parent was trained and a sample of others; how many changed.

    SUV and classes are scaled and weighted as in the training of the parent.
    """
    card = parent.card
    if "tile_digests" not in card:
        raise InputError(
            f"the card of the model {parent.hash[:12]} does not say on which tiles it was trained; "
            "train a new model"
        )
    for case in data.everything:
        check_fit(parent, case)
    seen = {
        name: {text[i : i + 8] for i in range(0, len(text), 8)}
        for name, text in card["tile_digests"].items()
    }
    new = np.array(
        [
            digests[index, row] not in seen.get(data.cases[index].case, ())
            for index, row in data.tiles.tolist()
        ],
        bool,
    )
    if not new.any():
        raise InputError(
            f"no tile has changed since the model {parent.hash[:12]} was trained, so there is "
            "nothing to learn; correct, update the results, then train from it"
        )
    n_fresh = int(new.sum())
    old = np.random.default_rng([seed, 2]).permutation(np.flatnonzero(~new))
    sample = old[: round(replay / (1 - replay) * n_fresh)]
    rows = np.sort(np.concatenate([np.flatnonzero(new), sample]))
    tiles = data.tiles[rows]
    suv = [float(np.asarray(data.cases[index].suv)[row]) for index, row in tiles.tolist()]
    scale, clips = parent.target, card["settings"]["architecture"] == "tile"
    checked = data.validation
    target = data.validation_target
    if checked is not None:
        target = scale.normalise(np.asarray(checked.suv)[data.validation_rows], clip=clips)
    label = data.label[rows]
    return (
        replace(
            data,
            tiles=tiles,
            target=scale.normalise(suv, clip=clips).astype(np.float32),
            label=label,
            scale=scale,
            class_counts=np.bincount(label[label >= 0], minlength=N_CLASSES),
            class_weights=np.asarray(card["class_weights"], np.float32),
            validation_target=target,
            digest=f"{data.digest} {parent.hash} {replay} {seed}",
        ),
        n_fresh,
    )


class _Task:
    """Schedule and errors that both forms of the network share."""

    network: MosaikNetwork | SlideNetwork

    def __init__(self, data: TrainingSet, params: TrainParams, n_batches: int) -> None:
        self.data, self.params, self.n_batches = data, params, n_batches

    def plan(self, seed: int, number: int) -> TrainingPlan:
        params = self.params
        return TrainingPlan(
            seed=seed,
            epochs=params.epochs,
            batches=self.n_batches,
            patience=params.patience,
            threads=params.threads,
            learning_rate=self._learning_rate,
            mean_share=self._mean_share,
            max_gradient_norm=1.0 if params.architecture == "slide" else None,
            fingerprint=f"{params.digest()} {seed} {number} {self.data.digest} {torch.__version__}",
        )

    def _learning_rate(self, step: int) -> float:
        """Constant, or a short warm-up and a cosine down to zero."""
        base = self.params.learning_rate
        if self.params.schedule == "constant":
            return base
        total = self.params.epochs * self.n_batches
        warm_up = max(1, total // 20)
        if step < warm_up:
            return base * (step + 1) / warm_up
        return base * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))

    def _mean_share(self, step: int) -> float:
        """The running mean follows quickly at first, then by the EMA decay."""
        decay = min(self.params.ema_decay, (1 + step) / (10 + step))
        return 1 - (decay if self.params.ema_decay > 0 else 0.0)

    def _terms(
        self,
        logits: Tensor,
        suv_norm: Tensor,
        target: Tensor,
        label: Tensor,
        share: float = 1.0,
        class_share: float | None = None,
    ) -> tuple[Tensor, ...]:
        """Total, SUV and class loss of a batch that is *share* times as large as the others.

        A part of a batch has another share of the labels than of the tiles.
        """
        suv_loss = functional.mse_loss(suv_norm, target) * share
        weights = torch.from_numpy(self.data.class_weights).to(label.device)
        class_share = share if class_share is None else class_share
        class_loss = _class_loss(logits, label, weights) * class_share
        total = self.params.lambda_ * suv_loss + self.params.alpha * class_loss
        return total, suv_loss, class_loss

    def _errors(self, suv_norm: FloatArray) -> dict[str, float]:
        error = suv_norm - self.data.validation_target
        return {"mse": float(np.mean(error**2)), "mae": float(np.mean(np.abs(error)))}


class _SlideTask(_Task):
    """Uptake and uptake class of whole slides, one slide a batch."""

    network: SlideNetwork

    def __init__(
        self,
        data: TrainingSet,
        scenes: Sequence[SlideScene],
        params: TrainParams,
        seed: int,
        start: nn.Module | None = None,
    ) -> None:
        super().__init__(data, params, len(data.cases))
        self.scenes = scenes
        if start is None:
            self.network = SlideNetwork(
                _sizes(params),
                len(data.cases[0].times_h),
                scenes[0].columns.shape[1],
                self._fwhm_um,
                seed,
            )
            _fit_slide_inputs(self.network, data, scenes)
        else:
            self.network = cast(SlideNetwork, start)
        self._checked = None
        if data.validation is not None:
            self._checked = SlideScene.of(data.validation, self._fwhm_um)

    @property
    def _fwhm_um(self) -> float:
        return self.scenes[0].fwhm_um

    def learnt(self, trainer: Trainer) -> dict[str, float]:
        """The width that was learnt, µm of the reference section."""
        width = float(trainer.weights()["log_width"])
        return {"learnt_fwhm_um": float(self.network.scanner_um) * math.exp(width)}

    def batches(self, rng: np.random.Generator) -> Iterator[tuple[int, SlideScene]]:
        """Every slide once, in random order and orientation."""
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        self.network.dropout.generator = self.network.context.generator = generator
        order = rng.permutation(len(self.scenes))
        turns = rng.integers(0, 8, len(order)) * self.params.flip_rotate
        for index, turn in zip(order.tolist(), turns.tolist(), strict=True):
            yield index, self.scenes[index].turned(turn)

    def losses(
        self, batch: tuple[int, SlideScene], device: ComputeDevice
    ) -> Iterator[tuple[Tensor, ...]]:
        """Total, SUV and class loss of a slide; each of its tiles counts as much as any other."""
        index, scene = batch
        data = self.data
        which = np.flatnonzero(data.tiles[:, 0] == index)
        scene = scene.to(device)
        with device.mixed():
            fused = self.network.fused(scene)
        found = self.network.seen(scene, fused.float())
        rows = device.put(torch.from_numpy(data.tiles[which, 1]))
        if not len(which):
            nothing = found.suv_norm.sum() * 0.0
            yield nothing, nothing, nothing
            return
        yield self._terms(
            found.logits[rows],
            found.suv_norm[rows],
            device.put(torch.from_numpy(data.target[which])),
            device.put(torch.from_numpy(data.label[which])),
            len(which) * len(self.scenes) / len(data.tiles),
        )
        with torch.no_grad():
            self.network.log_width.clamp_(-math.log(WIDEST), math.log(WIDEST))

    def validate(self, network: nn.Module, device: ComputeDevice) -> dict[str, float]:
        """Errors of the normalised SUV on the validation case."""
        if self._checked is None:
            return {}
        network.eval()
        with torch.no_grad(), device.exact():
            found = network(self._checked.to(device)).suv_norm
        suv_norm = device.fetch(found).numpy()[self.data.validation_rows]
        return self._errors(np.asarray(suv_norm, float))


def _sizes(params: TrainParams) -> NetworkParams:
    return NetworkParams.parse({k: getattr(params, k) for k in NetworkParams.model_fields})


class _UptakeTask(_Task):
    """Uptake and uptake class of the training tiles, in batches of tiles."""

    network: MosaikNetwork

    def __init__(
        self,
        data: TrainingSet,
        params: TrainParams,
        seed: int,
        start: nn.Module | None = None,
    ) -> None:
        super().__init__(data, params, math.ceil(len(data.tiles) / params.batch_size))
        if start is None:
            self.network = MosaikNetwork(_sizes(params), len(data.cases[0].times_h), seed)
            _fit_inputs(self.network, data)
            share = float(np.clip(data.mean_target, 0.02, 0.98))
            torch.nn.init.constant_(self.network.suv_head.bias, math.log(share / (1 - share)))
        else:
            self.network = cast(MosaikNetwork, start)

    def learnt(self, trainer: Trainer) -> dict[str, float]:
        """Nothing: the scanner is not part of this network."""
        return {}

    def batches(self, rng: np.random.Generator) -> Iterator[TileBatch]:
        """Every training tile once, in random order and orientation."""
        # Dropout draws from a generator of its own, so that nothing else disturbs the training.
        self.network.dropout.generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        order = rng.permutation(len(self.data.tiles))
        turns = rng.integers(0, 8, len(order)) * self.params.flip_rotate
        for start in range(0, len(order), self.params.batch_size):
            part = slice(start, start + self.params.batch_size)
            yield _assemble(self.data, order[part], turns[part])

    def losses(self, batch: TileBatch, device: ComputeDevice) -> Iterator[tuple[Tensor, ...]]:
        """Total, SUV and class loss of each part of a batch that the device's memory holds."""
        size, total = len(batch[3]), float(self._label_weight(batch[4]))
        for start in range(0, size, device.batch_size):
            part = tuple(device.put(values[start : start + device.batch_size]) for values in batch)
            windows, codes, curves, target, label = part
            with device.mixed():
                fused = self.network.fused(windows, codes, curves)
            logits, suv = self.network.heads(fused.float())
            if len(target) == size:
                yield self._terms(logits, suv, target, label)
                continue
            own = float(self._label_weight(label.cpu())) / total if total else 0.0
            yield self._terms(logits, suv, target, label, len(target) / size, own)

    def _label_weight(self, label: Tensor) -> Tensor:
        """Sum of the class weights of labels (b,), dimensionless."""
        return torch.from_numpy(self.data.class_weights)[label[label >= 0]].sum()

    def validate(self, network: nn.Module, device: ComputeDevice) -> dict[str, float]:
        """Errors of the normalised SUV on the validation case."""
        data = self.data
        if data.validation is None:
            return {}
        return self._errors(infer(network, data.validation, data.validation_rows, device=device)[1])


def _class_loss(logits: Tensor, label: Tensor, weights: Tensor) -> Tensor:
    """Class-weighted cross-entropy over the labelled tiles; 0 when none counts."""
    known = label >= 0
    if not bool(known.any()) or float(weights[label[known]].sum()) <= 0:
        return logits.sum() * 0.0
    return functional.cross_entropy(logits[known], label[known], weight=weights)


def _rotated(array: NDArray[np.uint8], turns: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Each sample in one of the 8 orientations of a square (its last two axes)."""
    out = array.copy()
    for turn in np.unique(turns[turns > 0]):
        which = turns == turn
        part = np.rot90(array[which], int(turn) % 4, axes=(-2, -1))
        out[which] = part[..., ::-1] if turn >= 4 else part
    return out


def _assemble(data: TrainingSet, order: NDArray[np.int64], turns: NDArray[np.int64]) -> TileBatch:
    """The batch's windows, codes, curves, targets and labels, case by case."""
    tiles = data.tiles[order]
    pieces, rows = [], []
    for index in np.unique(tiles[:, 0]):
        own = np.flatnonzero(tiles[:, 0] == index)
        pieces.append(batch_tensors(data.cases[index], tiles[own, 1]))
        rows.append(own)
    all_rows = np.concatenate(rows)
    windows, codes, curves = (torch.cat(list(x)) for x in zip(*pieces, strict=True))
    chosen = order[all_rows]
    return (
        torch.from_numpy(_rotated(windows.numpy(), turns[all_rows])),
        torch.from_numpy(_rotated(codes.numpy(), turns[all_rows])),
        curves,
        torch.from_numpy(data.target[chosen]),
        torch.from_numpy(data.label[chosen]),
    )


def _fit_inputs(network: MosaikNetwork, data: TrainingSet) -> None:
    """Set the network's input statistics from the training tiles.

    Windows: mean and SD per scale and channel.  Curves: per time and channel; a value that does
    not vary has the SD 0 and is passed on as zero; all dimensionless.
    """
    total = np.zeros((len(SCALE_TILES), len(FRACTIONS)))
    square, count = np.zeros_like(total), 0
    curves = []
    for index, case in enumerate(data.cases):
        rows = data.tiles[data.tiles[:, 0] == index, 1]
        curves.append(np.asarray(case.tile_curves(rows), float))
        for start in range(0, len(rows), 32):
            part = rows[start : start + 32]
            for level, scale in enumerate(case.scales):
                values = scale.windows(part).astype(np.float32) / 255.0
                total[level] += values.sum(axis=(0, 2, 3), dtype=float)
                square[level] += np.square(values).sum(axis=(0, 2, 3), dtype=float)
            count += len(part) * case.windows_px[0] ** 2
    mean = total / count
    sd = np.sqrt(np.maximum(square / count - mean**2, 0.0))
    _set_statistics(network, mean, sd, np.concatenate(curves))


def _set_statistics(
    network: MosaikNetwork | SlideNetwork, mean: FloatArray, sd: FloatArray, curves: FloatArray
) -> None:
    """Mean and SD (3, 4) of the maps, and those of the curves (m, times, 3)."""
    curve_sd = curves.std(axis=0)
    curve_sd[curve_sd <= 1e-6 * np.abs(curves).max(axis=0)] = 0.0
    network.window_mean.copy_(torch.tensor(mean, dtype=torch.float32))
    network.window_sd.copy_(torch.tensor(np.maximum(sd, 1e-3), dtype=torch.float32))
    network.curve_mean.copy_(torch.tensor(curves.mean(axis=0), dtype=torch.float32))
    network.curve_sd.copy_(torch.tensor(curve_sd, dtype=torch.float32))


def _fit_slide_inputs(
    network: SlideNetwork, data: TrainingSet, scenes: Sequence[SlideScene]
) -> None:
    """Set the network's input statistics, its classes and its first mean from the training tiles.

    Maps: mean and SD of the pixels per scale and channel.  Curves and columns: of the tiles that
    train.
    """
    levels = range(len(SCALE_TILES))
    pixels = [
        np.concatenate([scene.maps[level].flatten(1).numpy() for scene in scenes], axis=1)
        for level in levels
    ]
    mean = np.stack([one.mean(axis=1, dtype=float) for one in pixels]) / 255.0
    sd = np.stack([one.std(axis=1, dtype=float) for one in pixels]) / 255.0
    rows = [data.tiles[data.tiles[:, 0] == index, 1] for index in range(len(scenes))]
    curves = [s.curves.numpy()[r].astype(float) for s, r in zip(scenes, rows, strict=True)]
    columns = [s.columns.numpy()[r].astype(float) for s, r in zip(scenes, rows, strict=True)]
    _set_statistics(network, mean, sd, np.concatenate(curves))
    median, centre, spread = column_statistics(np.concatenate(columns))
    network.column_median.copy_(torch.tensor(median, dtype=torch.float32))
    network.column_mean.copy_(torch.tensor(centre, dtype=torch.float32))
    network.column_sd.copy_(torch.tensor(spread, dtype=torch.float32))
    known = data.class_counts > 0
    network.known_class.copy_(torch.tensor(known if known.any() else ~known, dtype=torch.float32))
    zero = -data.scale.low / (data.scale.high - data.scale.low)
    network.zero_suv.fill_(zero)
    first = max(data.mean_target - zero, 0.05)
    torch.nn.init.constant_(network.source_head.bias, math.log(math.expm1(first)))


# --- the card -----------------------------------------------------------------------------------
def _history_entry(record: EpochRecord, number: int) -> dict[str, float | int | None]:
    total, suv_mse, class_loss = record.losses
    return {
        "member": number,
        "epoch": record.epoch,
        "loss": total,
        "suv_mse": suv_mse,
        "class_loss": class_loss,
        "validation_mse": record.validation.get("mse"),
        "validation_mae": record.validation.get("mae"),
    }


def _case_entry(case: TileInputs, data: TrainingSet) -> dict[str, Any]:
    """How many tiles of a case were used."""
    validates = data.validation is not None and case.case == data.validation.case
    return {
        "case": case.case,
        "patient": case.patient,
        "content": case.content(),
        "role": "validation" if validates else "training",
        "n_tiles": len(case),
        "n_used": int(case.measured.sum()),
        "n_not_measured": int((case.usable & ~case.measured).sum()),
        "n_without_curves": int((~case.usable).sum()),
    }


def _warnings(data: TrainingSet) -> list[str]:
    """Warnings that stay with the model."""
    warnings = [f"{case.case}: {text}" for case in data.everything for text in case.warnings]
    warnings += [
        f"{case.case}: no tile has a measured uptake and all inputs, so it trains nothing"
        for case in data.everything
        if not case.measured.any()
    ]
    if empty := _empty_parameters(data):
        warnings.append(f"no training tile has a value of {', '.join(empty)}: it is not used")
    patients = {same_words(case.patient) for case in data.everything}
    if len(patients) < 10:
        word = "patient" if len(patients) == 1 else "patients"
        warnings.append(f"{len(patients)} {word} in training: no claim about new patients")
    if data.validation is None:
        warnings.append("no validation case: the number of epochs was not checked")
    if not (data.label >= 0).any():
        warnings.append("no class labels: the class head is not trained")
    elif missing := [CLASS_WORDS[n] for n in np.flatnonzero(data.class_counts == 0)]:
        warnings.append(
            f"no training tile has the uptake class {', '.join(missing)}: it is not predicted"
        )
    return warnings


def _empty_parameters(data: TrainingSet) -> list[str]:
    """The tile parameters that no training tile has a value of."""
    known = [np.isfinite(case.features[case.measured]).any(axis=0) for case in data.cases]
    names = data.cases[0].feature_names
    return [name for name, some in zip(names, np.any(known, axis=0), strict=True) if not some]


def _card(
    data: TrainingSet,
    params: TrainParams,
    seed: int,
    *,
    n_parameters: int,
    history: Sequence[Mapping[str, Any]],
    members: Sequence[Mapping[str, Any]],
    fwhm_um: float,
    device: ComputeDevice,
    times: Mapping[str, Any],
) -> dict[str, Any]:
    """All that is needed to assess and to use the model, as a JSON document.

    What is under ``"times"`` is not part of the model's content.
    """
    first = data.everything[0]
    return {
        "format": CARD_FORMAT,
        "kind": "mosaik",
        "settings": params.model_dump(mode="json"),
        "seed": seed,
        "n_parameters": n_parameters,
        "channels": list(FRACTIONS),
        "scales": {
            scale.name: {"tiles": SCALE_TILES[scale.name], "spacing_um": scale.spacing_um}
            for scale in first.scales
        },
        "proxies": list(first.proxies),
        "times_h": [float(t) for t in first.times_h],
        "features": list(first.feature_names),
        "target": {
            "low": data.scale.low,
            "high": data.scale.high,
            "percentiles": [params.low_percentile, params.high_percentile],
        },
        "class_counts": [int(n) for n in data.class_counts],
        "class_weights": [float(w) for w in data.class_weights],
        "classes": [int(n) for n in np.flatnonzero(data.class_counts)],
        "cases": [_case_entry(case, data) for case in data.everything],
        "validation": None if data.validation is None else data.validation.case,
        "n_tiles": len(data.tiles),
        "history": [dict(entry) for entry in history],
        "members": [dict(entry) for entry in members],
        "fwhm_um": fwhm_um,
        "device": device.description,
        "notes": list(dict.fromkeys(device.notes)),
        "baselines": {},
        "versions": {
            "napari-mosaik": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "warnings": _warnings(data),
        "times": dict(times),
    }
