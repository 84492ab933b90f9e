"""Training cases held out one by one: what a model is off on a case that it has not seen.

    training cases ─► without one: train, predict it  (for each case; one network, companions)
    predictions of all ─► weights of networks and companions ─► residuals ─► `uncertainty`

Everything is in normalised SUV of the final model.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.core.progress import map_progress
from napari_mosaik.core.tiles import IntArray
from napari_mosaik.learning.devices import ComputeDevice
from napari_mosaik.learning.engine import TrainingStep
from napari_mosaik.predictor.baselines import predict_baselines, with_baselines
from napari_mosaik.predictor.inputs import TileInputs
from napari_mosaik.predictor.model import TargetScale, TrainedModel
from napari_mosaik.predictor.params import TrainParams
from napari_mosaik.predictor.prediction import COMPANIONS, predict
from napari_mosaik.predictor.surroundings import tile_pitch_um
from napari_mosaik.predictor.training import train
from napari_mosaik.predictor.training_range import with_held_out
from napari_mosaik.predictor.uncertainty import Residuals, calibrate

__all__ = ["HeldOutCase", "companion_weights", "held_out_cases", "with_intervals"]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutCase:
    """What was predicted for a training case without it, next to what was measured.

    Parameters
    ----------
    case
        Name of the case.
    measured, network
        (n,) measured normalised SUV, and that of a network that has not seen the case; NaN where
        there is none.
    companions
        (n,) the same of each of `COMPANIONS` that was fitted, by name.
    cells, pitch_um
        As for `Residuals`.
    why
        Why nothing could be trained without the case; *network* is then NaN.
    """

    case: str
    measured: FloatArray
    network: FloatArray
    companions: Mapping[str, FloatArray]
    cells: IntArray
    pitch_um: tuple[float, float]
    why: str = ""

    def residuals(self, weights: Mapping[str, float]) -> Residuals:
        """The residuals of the mean with these *weights* of the companions; the rest is network."""
        predicted = (1 - sum(weights.values())) * self.network
        for name, weight in weights.items():
            predicted = predicted + weight * self.companions[name]
        return Residuals(self.case, self.measured - predicted, predicted, self.cells, self.pitch_um)


def held_out_cases(
    cases: Sequence[TileInputs],
    params: TrainParams,
    target: TargetScale,
    *,
    seed: int,
    fwhm_um: float,
    checkpoint: Path | None = None,
    device: ComputeDevice | None = None,
) -> Generator[TrainingStep, None, list[HeldOutCase]]:
    """Train without each case in turn (one network, and companions), and predict it.

    Parameters
    ----------
    cases
        Training cases of the final model.
    params
        Its settings.
    target
        Its scaling of the SUV, in which the values are given.
    seed, fwhm_um, checkpoint, device
        As for `train`; one checkpoint per case beside *checkpoint*.

    Returns
    -------
    list of HeldOutCase
        One per case; empty with fewer than two cases.
    """
    if len(cases) < 2:
        return []
    one = params.model_copy(update={"members": 1, "intervals": False, "validation": "none"})
    found = []
    for number, case in enumerate(cases):
        rest = [other for other in cases if other is not case]
        file = None
        if checkpoint is not None:
            file = checkpoint.with_suffix(f".without{number}{checkpoint.suffix}")
        steps = train(rest, one, seed=seed, checkpoint=file, fwhm_um=fwhm_um, device=device)
        shown = map_progress(steps, partial(_of_all, number=number, count=len(cases)))
        try:
            model: TrainedModel = yield from shown
            found.append(_held_out(model, rest, case, one, target, device))
        except InputError as error:  # the other cases alone: too few tiles, or no spread
            measured = target.normalise(np.asarray(case.suv, float), clip=False)
            nothing = np.full(len(case), np.nan)
            found.append(
                HeldOutCase(
                    case.case, measured, nothing, {}, case.cells, tile_pitch_um(case), str(error)
                )
            )
    return found


def _of_all(step: TrainingStep, number: int, count: int) -> TrainingStep:
    """A step of the training *number*, from 0, as a part of *count* trainings."""
    epoch = step.epoch + number * step.epochs
    return replace(step, epoch=epoch, epochs=count * step.epochs)


def _held_out(
    model: TrainedModel,
    rest: Sequence[TileInputs],
    case: TileInputs,
    params: TrainParams,
    target: TargetScale,
    device: ComputeDevice | None,
) -> HeldOutCase:
    """What a network that was trained on *rest*, and its companions, say of a case."""
    own, companions = model.target, {}
    if params.with_companions:
        model = with_baselines(model, rest, fwhm_um=float(model.card["fwhm_um"]), only=COMPANIONS)
        for name, values in predict_baselines(model, case).items():
            if values is not None:
                companions[name] = target.normalise(own.restore(values), clip=False)
    network = own.restore(predict(model, case, device=device).members.mean(axis=0))
    return HeldOutCase(
        case.case,
        target.normalise(np.asarray(case.suv, float), clip=False),
        target.normalise(network, clip=False),
        companions,
        case.cells,
        tile_pitch_um(case),
    )


def companion_weights(cases: Sequence[HeldOutCase]) -> dict[str, float]:
    """The weights of the companions with the smallest squared error on held-out cases.

    Each is a multiple of 0.1, together at most one half; each case counts as much as any other.
    """
    names = [name for name in COMPANIONS if all(name in case.companions for case in cases)]
    if not cases or not names:
        return {}
    best: tuple[float, dict[str, float]] = (math.inf, {})
    for steps in itertools.product(range(6), repeat=len(names)):
        if sum(steps) > 5:
            continue
        weights = {name: step / 10 for name, step in zip(names, steps, strict=True) if step}
        error = np.mean([np.nanmean(case.residuals(weights).residual ** 2) for case in cases])
        if error < best[0]:
            best = (float(error), weights)
    return best[1]


def with_intervals(model: TrainedModel, cases: Sequence[HeldOutCase]) -> TrainedModel:
    """A model with the weights of its companions and the record of `calibrate` in its card.

    The record is None where there are not enough cases; the networks are then alone, and a warning
    says so where the settings ask for intervals.  The training tiles that the model keeps get what
    was predicted for them without their case.
    """
    usable = [case for case in cases if np.isfinite(case.measured - case.network).any()]
    weights = companion_weights(usable)
    record = calibrate([case.residuals(weights) for case in usable])
    notes = [
        f"{case.case} tells nothing about the errors, because nothing could be trained without it: "
        f"{case.why}"
        for case in cases
        if case.why
    ]
    more: dict[str, Any] = {"companion_weights": weights, "intervals": record}
    if record is not None:
        more["intervals"] = {**record, "notes": [*record["notes"], *notes]}
    elif model.card["settings"]["intervals"]:
        word = "case" if len(usable) == 1 else "cases"
        few = f"no intervals: {len(usable)} training {word} could be held out, 2 are needed"
        more["warnings"] = [*model.card["warnings"], few, *notes]
    predicted = {case.case: case.residuals(weights).predicted for case in usable}
    return with_held_out(TrainedModel(model.weights, {**model.card, **more}), predicted)
