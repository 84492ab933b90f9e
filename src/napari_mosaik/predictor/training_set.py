"""The training tiles of one training: targets, class weights, input statistics, validation."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.predictor.inputs import N_CLASSES, TileInputs
from napari_mosaik.predictor.model import TargetScale
from napari_mosaik.predictor.multiscale import FRACTIONS, SCALE_TILES
from napari_mosaik.predictor.network import MosaikNetwork
from napari_mosaik.predictor.params import TrainParams

__all__ = ["TrainingSet", "choose_validation", "fit_inputs", "make_training_set"]

_MIN_TILES = 8


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """What one training learns from and what it validates on.

    Parameters
    ----------
    cases
        Cases that teach (without the validation case), sorted by name.
    everything
        All training cases, sorted by name; the baselines are fitted on them.
    tiles
        (m, 2) index of the case and row of each teaching tile.
    target, label
        (m,) normalised SUV and class (-1: none) of the teaching tiles.
    scale
        Scaling of the SUV.
    class_counts, class_weights
        (5,) tiles of each class and their weights n / (5 n_c), 0 for an absent class.
    validation, validation_rows, validation_target
        The validation case, its measured tiles and their normalised SUV.
    digest
        Stands for the content of all of it.
    """

    cases: tuple[TileInputs, ...]
    everything: tuple[TileInputs, ...]
    tiles: NDArray[np.int64]
    target: NDArray[np.float32]
    label: NDArray[np.int64]
    scale: TargetScale
    class_counts: NDArray[np.int64]
    class_weights: Tensor
    validation: TileInputs | None
    validation_rows: NDArray[np.int64]
    validation_target: FloatArray
    digest: str

    @property
    def mean_target(self) -> float:
        """Mean normalised SUV of the teaching tiles."""
        return float(self.target.mean())


def choose_validation(cases: Sequence[TileInputs], validation: str) -> str | None:
    """Name of the validation case, None for no validation; the rule is that of `train`."""
    names = sorted(case.case for case in cases)
    if validation == "none" or (validation == "auto" and len(names) < 3):
        return None
    if validation != "auto":
        if validation not in names:
            raise InputError(
                f"validation case '{validation}' is not a training case: {', '.join(names)}"
            )
        if len(names) < 2:
            raise InputError(f"case '{validation}' cannot both teach and validate")
        return validation
    patients = Counter(case.patient for case in cases)
    most = min(patients, key=lambda patient: (-patients[patient], patient))
    return max(case.case for case in cases if case.patient == most)


def _check_alike(cases: Sequence[TileInputs]) -> None:
    """Raise `InputError` when cases cannot be learnt from together."""
    if not cases:
        raise InputError("no training case")
    names = Counter(case.case for case in cases)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise InputError(f"training case '{twice[0]}' is given twice")
    first = cases[0]
    for case in cases:
        if case.suv is None:
            raise InputError(f"training case {case.case} has no measured uptake")
        case.require_modalities()
        alike = {
            "window size": case.window_px == first.window_px,
            "proxies": case.proxies == first.proxies,
            "tile parameters": case.feature_names == first.feature_names,
            "curve times": case.times_h.shape == first.times_h.shape
            and bool(np.allclose(case.times_h, first.times_h)),
        }
        for what, same in alike.items():
            if not same:
                raise InputError(f"cases {first.case} and {case.case} differ in their {what}")


def _labels(case: TileInputs) -> NDArray[np.int64]:
    """(n,) class of each tile, -1 where there is none."""
    if case.pet_label is None:
        return np.full(len(case), -1, np.int64)
    label = np.asarray(case.pet_label, np.int64)
    return np.where((label >= 0) & (label < N_CLASSES), label, -1)


def _digest(cases: Sequence[TileInputs], validation: str | None) -> str:
    """Digest of everything that the training reads."""
    content = hashlib.blake2b(digest_size=16)
    content.update(repr(validation).encode())
    for case in cases:
        content.update(f"{case.case} {case.patient} {len(case)}".encode())
        arrays = [case.codes, case.curves, case.suv, _labels(case)]
        for scale in case.scales:
            arrays += [scale.values, scale.corners]
        for array in arrays:
            content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def make_training_set(
    cases: Sequence[TileInputs], params: TrainParams, validation: str
) -> TrainingSet:
    """Sort the cases, set the validation case aside, and fit scaling and class weights."""
    _check_alike(cases)
    if cases[0].window_px != params.window_px:
        raise InputError(
            f"the windows have {cases[0].window_px} px, but the settings ask for "
            f"{params.window_px} px"
        )
    ordered = tuple(sorted(cases, key=lambda case: case.case))
    held = choose_validation(ordered, validation)
    teaching = tuple(case for case in ordered if case.case != held)
    rows = [np.flatnonzero(case.measured) for case in teaching]
    tiles = np.concatenate(
        [np.column_stack([np.full(len(r), i), r]) for i, r in enumerate(rows)]
    ).astype(np.int64)
    if len(tiles) < _MIN_TILES:
        raise InputError(f"{len(tiles)} measured training tiles: at least {_MIN_TILES} are needed")
    suv = np.concatenate([np.asarray(c.suv)[r] for c, r in zip(teaching, rows, strict=True)])
    scale = TargetScale.fit(suv, params.low_percentile, params.high_percentile)
    label = np.concatenate([_labels(c)[r] for c, r in zip(teaching, rows, strict=True)])
    counts = np.bincount(label[label >= 0], minlength=N_CLASSES)
    weights = np.where(counts > 0, counts.sum() / (N_CLASSES * np.maximum(counts, 1)), 0.0)
    check = next((case for case in ordered if case.case == held), None)
    check_rows = np.zeros(0, np.int64) if check is None else np.flatnonzero(check.measured)
    if check is not None and not len(check_rows):
        raise InputError(f"validation case '{held}' has no measured tile")
    return TrainingSet(
        cases=teaching,
        everything=ordered,
        tiles=tiles,
        target=scale.normalise(suv).astype(np.float32),
        label=label,
        scale=scale,
        class_counts=counts,
        class_weights=torch.tensor(weights, dtype=torch.float32),
        validation=check,
        validation_rows=check_rows,
        validation_target=(
            np.zeros(0) if check is None else scale.normalise(np.asarray(check.suv)[check_rows])
        ),
        digest=_digest(ordered, held),
    )


def fit_inputs(network: MosaikNetwork, fold: TrainingSet) -> None:
    """Set the network's input statistics from the teaching tiles.

    Windows: mean and SD per scale and channel.  Curves: per time and channel; a value that does
    not vary has the SD 0 and is passed on as zero.
    """
    total = np.zeros((len(SCALE_TILES), len(FRACTIONS)))
    square, count = np.zeros_like(total), 0
    curves = []
    for index, case in enumerate(fold.cases):
        rows = fold.tiles[fold.tiles[:, 0] == index, 1]
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
