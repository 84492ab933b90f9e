"""Train the network on measured cases; a training can be stopped, resumed and repeated."""

from __future__ import annotations

import hashlib
import math
import platform
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from napari_mosaik import __version__
from napari_mosaik.core import InputError
from napari_mosaik.core.text import same_words
from napari_mosaik.learning.devices import ComputeDevice
from napari_mosaik.learning.engine import EpochRecord, Trainer, TrainingPlan, TrainingStep
from napari_mosaik.predictor.inputs import N_CLASSES, TileInputs
from napari_mosaik.predictor.model import CARD_FORMAT, TrainedModel
from napari_mosaik.predictor.multiscale import FRACTIONS, SCALE_TILES
from napari_mosaik.predictor.network import MosaikNetwork
from napari_mosaik.predictor.params import NetworkParams, TrainParams
from napari_mosaik.predictor.prediction import batch_tensors, build_network, check_fit, infer
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
) -> Generator[TrainingStep, None, TrainedModel]:
    """Train the network; the test case is not among *cases*.

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
    Bitwise repeatable on one machine at one thread count.
    """
    params = params or TrainParams()
    started = time.monotonic()
    data = make_training_set(cases, params, validation or params.validation)
    digests = _tile_digests(data)
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
    task = _UptakeTask(data, params, seed, parent)
    optimiser = torch.optim.AdamW(
        task.network.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay
    )
    plan = task.plan(seed)
    trainer = Trainer(task, optimiser, plan, ComputeDevice.cpu(params.batch_size))
    yield from trainer.run(checkpoint)
    weights = {name: value.numpy().copy() for name, value in trainer.weights().items()}
    card = _card(
        data,
        params,
        seed,
        n_parameters=task.network.n_parameters,
        history=[_history_entry(record) for record in trainer.history],
        best_epoch=trainer.best_epoch,
        times={"seconds": round(time.monotonic() - started, 3), "resumed": trainer.resumed},
    )
    return TrainedModel(weights, {**card, **lineage})


def _tile_digests(data: TrainingSet) -> dict[tuple[int, int], str]:
    """A digest of the inputs, the uptake and the class of each training tile, by case and tile."""
    found = {}
    labels = dict(zip(map(tuple, data.tiles.tolist()), data.label.tolist(), strict=True))
    for index, case in enumerate(data.cases):
        rows = data.tiles[data.tiles[:, 0] == index, 1]
        for start in range(0, len(rows), 64):
            part = rows[start : start + 64]
            parts = [one.numpy() for one in batch_tensors(case, part)]
            suv = np.asarray(case.suv, float)[part]
            for place, row in enumerate(part.tolist()):
                content = b"".join(np.ascontiguousarray(one[place]).tobytes() for one in parts)
                content += f" {suv[place]} {labels[index, row]}".encode()
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
    scale = parent.target
    checked = data.validation
    target = data.validation_target
    if checked is not None:
        target = scale.normalise(np.asarray(checked.suv)[data.validation_rows])
    label = data.label[rows]
    return (
        replace(
            data,
            tiles=tiles,
            target=scale.normalise(suv).astype(np.float32),
            label=label,
            scale=scale,
            class_counts=np.bincount(label[label >= 0], minlength=N_CLASSES),
            class_weights=np.asarray(card["class_weights"], np.float32),
            validation_target=target,
            digest=f"{data.digest} {parent.hash} {replay} {seed}",
        ),
        n_fresh,
    )


class _UptakeTask:
    """Uptake and uptake class of the training tiles."""

    def __init__(
        self,
        data: TrainingSet,
        params: TrainParams,
        seed: int,
        parent: TrainedModel | None = None,
    ) -> None:
        self.data, self.params = data, params
        if parent is None:
            sizes = NetworkParams.parse({k: getattr(params, k) for k in NetworkParams.model_fields})
            self.network: MosaikNetwork = MosaikNetwork(sizes, len(data.cases[0].times_h), seed)
            _fit_inputs(self.network, data)
            share = float(np.clip(data.mean_target, 0.02, 0.98))
            torch.nn.init.constant_(self.network.suv_head.bias, math.log(share / (1 - share)))
        else:
            self.network = build_network(parent)
        self.n_batches = math.ceil(len(data.tiles) / params.batch_size)

    def plan(self, seed: int) -> TrainingPlan:
        params = self.params
        return TrainingPlan(
            seed=seed,
            epochs=params.epochs,
            batches=self.n_batches,
            patience=params.patience,
            threads=params.threads,
            learning_rate=self._learning_rate,
            mean_share=self._mean_share,
            fingerprint=f"{params.digest()} {seed} {self.data.digest} {torch.__version__}",
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
        """Total, SUV and class loss of a batch."""
        windows, codes, curves, target, label = batch
        logits, suv = self.network(windows, codes, curves)
        suv_loss = functional.mse_loss(suv, target)
        class_loss = _class_loss(logits, label, torch.from_numpy(self.data.class_weights))
        yield (
            self.params.lambda_ * suv_loss + self.params.alpha * class_loss,
            suv_loss,
            class_loss,
        )

    def validate(self, network: nn.Module, device: ComputeDevice) -> dict[str, float]:
        """Errors of the normalised SUV on the validation case."""
        data = self.data
        if data.validation is None:
            return {}
        _, suv = infer(network, data.validation, data.validation_rows)
        error = suv - data.validation_target
        return {"mse": float(np.mean(error**2)), "mae": float(np.mean(np.abs(error)))}


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
            count += len(part) * case.window_px**2
    mean = total / count
    sd = np.sqrt(np.maximum(square / count - mean**2, 0.0))
    joined = np.concatenate(curves)
    curve_sd = joined.std(axis=0)
    curve_sd[curve_sd <= 1e-6 * np.abs(joined).max(axis=0)] = 0.0
    network.window_mean.copy_(torch.tensor(mean, dtype=torch.float32))
    network.window_sd.copy_(torch.tensor(np.maximum(sd, 1e-3), dtype=torch.float32))
    network.curve_mean.copy_(torch.tensor(joined.mean(axis=0), dtype=torch.float32))
    network.curve_sd.copy_(torch.tensor(curve_sd, dtype=torch.float32))


# --- the card -----------------------------------------------------------------------------------
def _history_entry(record: EpochRecord) -> dict[str, float | int | None]:
    total, suv_mse, class_loss = record.losses
    return {
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
    patients = {same_words(case.patient) for case in data.everything}
    if len(patients) < 10:
        warnings.append(f"{len(patients)} patient(s) in training: no claim about new patients")
    if data.validation is None:
        warnings.append("no validation case: the number of epochs was not checked")
    if not (data.label >= 0).any():
        warnings.append("no class labels: the class head is not trained")
    return warnings


def _card(
    data: TrainingSet,
    params: TrainParams,
    seed: int,
    *,
    n_parameters: int,
    history: Sequence[Mapping[str, Any]],
    best_epoch: int,
    times: Mapping[str, Any],
) -> dict[str, Any]:
    """All that is needed to assess and to use the model, as a JSON document.

    What is under ``"times"`` is no part of the model's content.
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
        "cases": [_case_entry(case, data) for case in data.everything],
        "validation": None if data.validation is None else data.validation.case,
        "n_tiles": len(data.tiles),
        "history": [dict(entry) for entry in history],
        "best_epoch": best_epoch,
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
