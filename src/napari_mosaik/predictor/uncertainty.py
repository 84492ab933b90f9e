"""How far a prediction may be off: intervals and error fields from residuals of held-out cases.

    residuals of all ─► size of the interval of a tile, of a whole block ─► model card
    (`held_out`)    └─► spread of slide means, variogram ─► error fields, interval of a slide mean

Everything is in normalised SUV of the final model.  Residual: measured minus predicted.  Nothing
here needs torch, which takes seconds to load: a dose plan draws error fields.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import FloatArray
from napari_mosaik.core.tiles import IntArray

__all__ = [
    "LEVEL",
    "Residuals",
    "calibrate",
    "conformal_quantile",
    "draw_errors",
    "interval_metrics",
    "interval_score",
    "prediction_intervals",
    "slide_mean_interval",
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
