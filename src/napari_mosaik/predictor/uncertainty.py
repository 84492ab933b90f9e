"""How far a prediction may be off: learnt from training cases that are held out one by one.

    training cases ─► without one: train, predict it  (for each case; one network, companions)
    predictions of all ─► weights of networks and companions ─► residuals
    residuals of all ─► size of the interval of a tile, of a whole block ─► model card
                    └─► spread of slide means, variogram ─► error fields, interval of a slide mean

Everything is in normalised SUV of the final model.  Residual: measured minus predicted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

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

__all__ = [
    "LEVEL",
    "HeldOutCase",
    "Residuals",
    "calibrate",
    "companion_weights",
    "conformal_quantile",
    "draw_errors",
    "held_out_cases",
    "interval_metrics",
    "interval_score",
    "prediction_intervals",
    "slide_mean_interval",
    "with_intervals",
]

_MEAN_DRAWS: Final = 500
"""Error fields drawn for the interval of a slide's mean."""
LEVEL: Final = 0.9
"""Share of tiles, or of blocks, that an interval holds."""
BLOCK_TILES: Final = 7
"""Edge of a block, tiles."""
_FOR_CASES: Final = 9
"""Calibration cases from which on 90 % can be promised for a case."""
_FLOOR: Final = 0.25
"""The error scale is never below this fraction of its mean."""


@dataclass(frozen=True, slots=True, eq=False)
class Residuals:
    """What a model was off on a case that it had not seen.

    Parameters
    ----------
    case
        Name of the case.
    residual, predicted
        (n,) measured minus predicted, and predicted normalised SUV; NaN where either is missing.
    cells
        (n, 2) row and column of each tile on the lattice.
    pitch_um
        Distance of neighbouring tiles along rows and columns, µm.
    """

    case: str
    residual: FloatArray
    predicted: FloatArray
    cells: IntArray
    pitch_um: tuple[float, float]

    @property
    def known(self) -> NDArray[np.bool_]:
        """(n,) mask of the tiles with a residual."""
        return np.isfinite(self.residual)


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


# --- calibration ---------------------------------------------------------------------------------
def conformal_quantile(scores: ArrayLike, level: float = LEVEL) -> float:
    """The k-th smallest of the scores (n,), k = ceil((n + 1) level); normalised SUV.

    Infinite where k > n: never the largest score instead.  Source: Lei et al. 2018, JASA 113:1094.
    """
    values = np.sort(np.asarray(scores, float))
    k = math.ceil((len(values) + 1) * level - 1e-9)
    return float(values[k - 1]) if 1 <= k <= len(values) else math.inf


def interval_score(
    measured: ArrayLike, low: ArrayLike, high: ArrayLike, level: float = LEVEL
) -> float:
    """Mean of width + 2 / (1 - level) x the distance outside, of values (n,); the lower the better.

    Dimensionless for normalised SUV; NaN pairs are excluded.
    Source: Gneiting and Raftery 2007, JASA 102:359.
    """
    y, a, b = (np.asarray(values, float) for values in (measured, low, high))
    outside = np.maximum(a - y, 0) + np.maximum(y - b, 0)
    score = (b - a) + 2 / (1 - level) * outside
    return float(np.mean(score[np.isfinite(score)])) if np.isfinite(score).any() else math.nan


@dataclass(frozen=True, slots=True)
class ErrorScale:
    """Size of the error as a line in the predicted value; constant where the slope is 0."""

    intercept: float = 1.0
    slope: float = 0.0
    floor: float = 0.0

    @classmethod
    def fit(cls, residual: FloatArray, predicted: FloatArray) -> ErrorScale:
        """Least squares of the absolute residual (n,) on the prediction (n,); normalised SUV."""
        size = np.abs(residual)
        if len(size) < 3 or np.ptp(predicted) == 0:
            return cls()
        slope, intercept = np.polyfit(predicted, size, 1)
        return cls(float(intercept), float(slope), _FLOOR * float(size.mean()))

    def at(self, predicted: ArrayLike) -> FloatArray:
        """(n,) size of the error at predicted values (n,), dimensionless."""
        line = self.intercept + self.slope * np.asarray(predicted, float)
        return np.maximum(line, self.floor) if self.floor > 0 else np.asarray(line, float)


def _joined(cases: Sequence[Residuals]) -> tuple[FloatArray, FloatArray]:
    return (
        np.concatenate([c.residual[c.known] for c in cases]),
        np.concatenate([c.predicted[c.known] for c in cases]),
    )


def _block_scores(cases: Sequence[Residuals], scale: ErrorScale) -> FloatArray:
    """Largest scaled absolute residual of each block of tiles."""
    found = []
    for case in cases:
        known = case.known
        score = np.abs(case.residual[known]) / scale.at(case.predicted[known])
        _, block = np.unique(case.cells[known] // BLOCK_TILES, axis=0, return_inverse=True)
        most = np.zeros(int(block.max()) + 1 if len(block) else 0)
        np.maximum.at(most, block.ravel(), score)
        found.append(most)
    return np.concatenate(found)


def _size(cases: Sequence[Residuals], scale: ErrorScale) -> float:
    residual, predicted = _joined(cases)
    return conformal_quantile(np.abs(residual) / scale.at(predicted))


def _held_out_score(cases: Sequence[Residuals], scaled: bool) -> tuple[float, dict[str, float]]:
    """Interval score and coverage of each case with the intervals of the others."""
    scores, weights, coverage = [], [], {}
    for case in cases:
        others = [other for other in cases if other is not case]
        scale = ErrorScale.fit(*_joined(others)) if scaled else ErrorScale()
        half = _size(others, scale) * scale.at(case.predicted[case.known])
        residual = case.residual[case.known]
        scores.append(interval_score(residual, -half, half))
        weights.append(len(residual))
        coverage[case.case] = float(np.mean(np.abs(residual) <= half))
    return float(np.average(scores, weights=weights)), coverage


def calibrate(cases: Sequence[Residuals]) -> dict[str, Any] | None:
    """The sizes of the intervals, from the residuals of held-out training cases.

    Parameters
    ----------
    cases
        Residuals of each case; cases without any are left aside.

    Returns
    -------
    dict or None
        None with fewer than two cases.  ``level``; ``scale`` (intercept, slope, floor of the error
        scale), which is constant unless a scale that follows the predicted value has the better
        interval score on cases that it was not fitted on; ``tile`` and ``block``, the multiples of
        the scale (None: too few); ``coverage`` of each case by the intervals of the others;
        ``n_cases``, ``n_tiles``, ``n_blocks``; ``fields``, what `draw_errors` needs; ``notes``.

    Notes
    -----
    ``tile`` holds 90 % of the tiles of a new slide of these patients.  ``block`` holds *all* tiles
    of a block of 7 x 7 tiles in 90 % of the blocks, so it covers more tiles than 90 %.
    """
    cases = [case for case in cases if case.known.any()]
    if len(cases) < 2:
        return None
    fixed, coverage = _held_out_score(cases, scaled=False)
    following, other = _held_out_score(cases, scaled=True)
    scaled = len(cases) > 2 and following < fixed
    scale = ErrorScale.fit(*_joined(cases)) if scaled else ErrorScale()
    blocks = _block_scores(cases, scale)
    tile, block = _size(cases, scale), conformal_quantile(blocks)
    notes = []
    if len(cases) < _FOR_CASES:
        notes.append(
            f"no guarantee at case level: {len(cases)} calibration cases, at least {_FOR_CASES} "
            "are needed for 90 %"
        )
    if not math.isfinite(block):
        notes.append(f"no interval for a whole block: {len(blocks)} calibration blocks")
    return {
        "level": LEVEL,
        "scale": {"intercept": scale.intercept, "slope": scale.slope, "floor": scale.floor},
        "tile": tile if math.isfinite(tile) else None,
        "block": block if math.isfinite(block) else None,
        "coverage": other if scaled else coverage,
        "n_cases": len(cases),
        "n_tiles": int(sum(case.known.sum() for case in cases)),
        "n_blocks": len(blocks),
        "fields": _fields(cases),
        "notes": notes,
    }


def prediction_intervals(
    record: Mapping[str, Any], predicted: ArrayLike
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Lower and upper limits (n,) of predicted normalised SUV (n,), for ``tile`` and ``block``.

    *record* is that of `calibrate`.  Not clipped; NaN where not predicted.  A kind that could not
    be calibrated is not in the result.
    """
    values = np.asarray(predicted, float)
    half = ErrorScale(**record["scale"]).at(values)
    return {
        kind: (values - record[kind] * half, values + record[kind] * half)
        for kind in ("tile", "block")
        if record[kind] is not None
    }


def interval_metrics(
    measured: ArrayLike,
    limits: Mapping[str, tuple[ArrayLike, ArrayLike]],
    cells: ArrayLike,
) -> dict[str, dict[str, float]]:
    """Coverage (fraction), width and interval score (dimensionless) of intervals of (n,) tiles.

    By kind.  *cells* are (n, 2) rows and columns.  Of ``block`` also the share of whole blocks
    that are covered.  NaN tiles are excluded.
    """
    y = np.asarray(measured, float)
    found = {}
    for kind, (low, high) in limits.items():
        a, b = np.asarray(low, float), np.asarray(high, float)
        keep = np.isfinite(y) & np.isfinite(a) & np.isfinite(b)
        inside = (y >= a) & (y <= b)
        found[kind] = {
            "coverage": float(inside[keep].mean()) if keep.any() else math.nan,
            "width": float((b - a)[keep].mean()) if keep.any() else math.nan,
            "interval_score": interval_score(y[keep], a[keep], b[keep]),
        }
        if kind == "block" and keep.any():
            block = np.asarray(cells, np.int64)[keep] // BLOCK_TILES
            _, which = np.unique(block, axis=0, return_inverse=True)
            missed = np.bincount(which.ravel(), ~inside[keep])
            found[kind]["block_coverage"] = float((missed == 0).mean())
    return found


# --- error fields --------------------------------------------------------------------------------
def _fields(cases: Sequence[Residuals]) -> dict[str, float]:
    """Spread and correlation of the residuals.

    ``case_sd``: SD that is common to a slide; ``sd`` and ``length_um``: an exponential covariance
    within the slide.
    """
    lags, half_squares = [], []
    for case in cases:
        known = case.known
        at = case.cells[known] * np.asarray(case.pitch_um)
        residual = case.residual[known]
        rng = np.random.default_rng(0)
        first, second = rng.integers(0, len(at), (2, 40 * len(at)))
        lags.append(np.hypot(*(at[first] - at[second]).T))
        half_squares.append((residual[first] - residual[second]) ** 2 / 2)
    lag, gamma = np.concatenate(lags), np.concatenate(half_squares)
    pitch = float(np.mean([case.pitch_um for case in cases]))
    edges = np.arange(0.5, 30.5) * pitch
    which = np.digitize(lag, edges)
    bins = [n for n in range(1, len(edges)) if (which == n).sum() >= 10]
    if not bins:
        return {"case_sd": 0.0, "sd": 0.0, "length_um": pitch}
    x = np.array([lag[which == n].mean() for n in bins])
    y = np.array([gamma[which == n].mean() for n in bins])
    weight = np.array([(which == n).sum() for n in bins], float)
    best = (math.inf, 0.0, pitch)
    for length in pitch * np.geomspace(0.5, 20.0, 60):
        shape = 1 - np.exp(-x / length)
        sill = float((weight * shape * y).sum() / (weight * shape**2).sum())
        best = min(best, (float((weight * (y - sill * shape) ** 2).sum()), sill, float(length)))
    _, sill, length = best
    means = np.array([np.nanmean(case.residual) for case in cases])
    within = [sill * _mean_correlation(case, length) for case in cases]
    common = float(np.mean(means**2) - np.mean(within))
    return {
        "case_sd": math.sqrt(max(common, 0.0)),
        "sd": math.sqrt(max(sill, 0.0)),
        "length_um": length,
    }


def _mean_correlation(case: Residuals, length_um: float) -> float:
    """Mean correlation of two tiles of a case: the share of the variance in the slide's mean."""
    at = case.cells[case.known] * np.asarray(case.pitch_um)
    if len(at) > 600:
        at = at[np.random.default_rng(0).choice(len(at), 600, replace=False)]
    distance = np.hypot(*(at[:, None, :] - at[None, :, :]).transpose(2, 0, 1))
    return float(np.exp(-distance / length_um).mean())


def draw_errors(
    fields: Mapping[str, float],
    cells: ArrayLike,
    pitch_um: tuple[float, float],
    n: int,
    seed: int = 0,
) -> FloatArray:
    """Draws (n, tiles) of the error of whole slides, normalised SUV: fields, not single tiles.

    Parameters
    ----------
    fields
        ``fields`` of `calibrate`.
    cells
        (tiles, 2) row and column of each tile on the lattice.
    pitch_um
        Distance of neighbouring tiles along rows and columns, µm.
    n
        Number of draws.
    seed
        Random seed.

    Notes
    -----
    A slide's common error plus a Gaussian field of exponential covariance, drawn by circulant
    embedding.  A mean over the slide therefore has the spread that left-out slides have; drawn tile
    by tile, errors would average out.  Source: Dietrich and Newsam 1997, SIAM J Sci Comput 18:1088.
    """
    at = np.asarray(cells, np.int64)
    at = at - at.min(axis=0)
    shape = tuple(2 * (int(side) + 1) for side in at.max(axis=0))
    offsets = [np.minimum(np.arange(side), side - np.arange(side)) for side in shape]
    distance = np.hypot(offsets[0][:, None] * pitch_um[0], offsets[1][None, :] * pitch_um[1])
    power = np.maximum(np.fft.fft2(np.exp(-distance / fields["length_um"])).real, 0.0)
    power *= distance.size / power.sum()  # what was cut off below 0 goes to the others
    rng = np.random.default_rng(seed)
    found = np.empty((n, len(at)))
    for number in range(n):
        noise = np.fft.fft2(rng.standard_normal(shape))
        field = np.fft.ifft2(np.sqrt(power) * noise).real
        found[number] = fields["sd"] * field[at[:, 0], at[:, 1]]
    return found + fields["case_sd"] * rng.standard_normal((n, 1))


def slide_mean_interval(
    fields: Mapping[str, float],
    cells: ArrayLike,
    pitch_um: tuple[float, float],
    measured: ArrayLike,
    predicted: ArrayLike,
) -> dict[str, float]:
    """Mean of the n tiles as ``measured`` and ``predicted``, normalised SUV, and its 90 % interval.

    ``low`` and ``high`` come from error fields of the whole slide; *fields*, *cells* (n, 2) and
    *pitch_um* as for `draw_errors`, *measured* and *predicted* (n,) without NaN.
    """
    errors = draw_errors(fields, cells, pitch_um, _MEAN_DRAWS)
    low, high = np.percentile(errors.mean(axis=1), [5.0, 95.0])
    mean = float(np.mean(np.asarray(predicted, float)))
    return {
        "measured": float(np.asarray(measured, float).mean()),
        "predicted": mean,
        "low": mean + float(low),
        "high": mean + float(high),
    }


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
