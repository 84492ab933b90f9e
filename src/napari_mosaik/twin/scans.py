"""One more scan: what it will show, what it changes, and which one is worth most."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.twin.chain import Chain
from napari_mosaik.twin.data import Observation, finite_number
from napari_mosaik.twin.posterior import (
    Posterior,
    chain_posterior,
    log_linear_posterior,
    log_linear_rows,
)

__all__ = [
    "ScanPrediction",
    "ScanValue",
    "Update",
    "predict_scan",
    "scored",
    "take_in",
    "value_of_scan",
]

_Z90 = 1.6448536269514722
_LN_2PI = math.log(2 * math.pi)


@dataclass(frozen=True, slots=True, eq=False)
class ScanPrediction:
    """A region over time, or what a scan of it will show.

    Attributes
    ----------
    median, low, high
        Median, 5 and 95 % at the times, in the unit of the observations: (t,), or numbers for one.
    draws
        (n, t) draws of the same.
    """

    median: FloatArray | float
    low: FloatArray | float
    high: FloatArray | float
    draws: FloatArray


def predict_scan(
    posterior: Posterior, time_h: ArrayLike, region: str = "tumour", *, cv: float = 0.0
) -> ScanPrediction:
    """Curve of a region with its band, or with *cv* an observation of it.

    Parameters
    ----------
    posterior
        From `log_linear_posterior` or `chain_posterior`.
    time_h
        One time or (t,) times after injection, h, 0 or more.
    region
        'tumour' or 'blood' for the chain; for the log-linear model the region that it was fitted
        to.
    cv
        SD of ln y of the noise of an observation; 0 for the curve itself.

    Raises
    ------
    InputError
        If a time lies before the injection, *cv* is negative or the model has no such region.
    """
    times = _times(time_h)
    noise = _noise(cv, zero=True)
    levels = _ln_draws(posterior, times, region)
    if noise:
        levels = levels + noise * _normal(levels.shape, posterior.seed)
    if posterior.model == "log_linear":
        rows = log_linear_rows(posterior.names, times)
        centre = rows @ posterior.mean
        reach = _Z90 * np.sqrt(_variance(rows, posterior.covariance) + noise**2)
        bands = np.exp(np.stack([centre - reach, centre, centre + reach]))
    else:
        bands = np.exp(np.percentile(levels, [5, 50, 95], axis=0))
    low, median, high = bands if np.ndim(time_h) else bands[:, 0].tolist()
    return ScanPrediction(median, low, high, np.exp(levels))


def _times(time_h: ArrayLike) -> FloatArray:
    try:
        times = np.atleast_1d(np.asarray(time_h, float))
    except (TypeError, ValueError):
        raise InputError(f"times must be numbers of hours, not {time_h!r}") from None
    if times.ndim != 1 or not times.size or not np.isfinite(times).all():
        raise InputError("give one time, or a list of them, in hours after injection")
    if times.min() < 0:
        raise InputError(f"{times.min():g} h lies before the injection; give times of 0 h or more")
    return times


def _noise(cv: float, *, zero: bool = False) -> float:
    noise = finite_number("cv", cv)
    if noise < 0 or (noise == 0 and not zero):
        raise InputError(f"cv must be {'0 or more' if zero else 'above 0'}, not {noise:g}")
    return noise


def _normal(shape: tuple[int, ...], seed: int) -> FloatArray:
    """Normal numbers of a shape (n, t): even quantiles in an order of their own at each time."""
    from scipy.special import ndtri

    rng = np.random.default_rng((seed, 1))
    even = ndtri((np.arange(shape[0]) + 0.5) / shape[0])
    return np.asarray(rng.permuted(np.repeat(even[:, None], shape[1], axis=1), axis=0), float)


def _variance(rows: FloatArray, covariance: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("tp,pq,tq->t", rows, covariance, rows), float)


def _ln_draws(posterior: Posterior, times: FloatArray, region: str) -> FloatArray:
    """(n, t) ln y of the draws."""
    if posterior.model == "chain":
        chain = Chain(posterior.prior, posterior.names)
        return chain.ln_curve(posterior.draws, times, region)
    _check_region(posterior, region)
    return np.asarray(posterior.draws @ log_linear_rows(posterior.names, times).T, float)


def _check_region(posterior: Posterior, region: str) -> None:
    known = {row.region for row in posterior.observations} or {region}
    if posterior.model == "log_linear" and region not in known:
        raise InputError(
            f"the log-linear model was fitted to {', '.join(known)}; it says nothing of {region}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """What one observation changed.

    Attributes
    ----------
    before, after
        The posteriors.
    z
        (ln y - predicted mean) / predicted SD, the noise of the observation included.
    log_score
        ln of the predicted density of ln y at the observation.
    """

    before: Posterior
    after: Posterior
    z: float
    log_score: float


def take_in(posterior: Posterior, observation: Observation) -> Update:
    """Take one observation into a posterior, and score what was predicted of it.

    Raises
    ------
    InputError
        If the scan was taken in already, or as `log_linear_posterior` and `chain_posterior`.
    """
    for row in posterior.observations:
        if (row.time_h, row.region) == (observation.time_h, observation.region):
            raise InputError(
                f"the {row.region} at {row.time_h:g} h was taken in already; each scan counts once"
            )
    rows = (*posterior.observations, observation)
    z, score = scored(posterior, observation)
    if posterior.model == "log_linear":
        after = log_linear_posterior(rows, posterior.prior)
    else:
        assert posterior.method != "exact"
        after = chain_posterior(
            rows,
            posterior.prior,
            free=posterior.names,
            method=posterior.method,
            seed=posterior.seed,
        )
    return Update(posterior, after, z, score)


def scored(posterior: Posterior, observation: Observation) -> tuple[float, float]:
    """Standardised gap z and log score of ln y under what a posterior predicts, noise included.

    Raises `InputError` where the model says nothing of the region.
    """
    _check_region(posterior, observation.region)
    if posterior.model == "chain":
        return _scored_by_points(posterior, observation)
    row = log_linear_rows(posterior.names, observation.time_h)
    variance = float(_variance(row, posterior.covariance)[0]) + observation.ln_sd**2
    z = (observation.ln_mean - float((row @ posterior.mean)[0])) / math.sqrt(variance)
    return z, -0.5 * (z**2 + math.log(variance) + _LN_2PI)


def _scored_by_points(posterior: Posterior, observation: Observation) -> tuple[float, float]:
    from scipy.special import logsumexp

    chain = Chain(posterior.prior, posterior.names)
    levels = chain.ln_means(posterior.support, [observation])[:, 0]
    weights, noise = posterior.weights, observation.ln_sd
    mean = float(weights @ levels)
    variance = float(weights @ (levels - mean) ** 2) + noise**2
    gaps = (observation.ln_mean - levels) / noise
    score = float(logsumexp(-0.5 * gaps**2, b=weights)) - math.log(noise) - 0.5 * _LN_2PI
    return (observation.ln_mean - mean) / math.sqrt(variance), score


@dataclass(frozen=True, slots=True, eq=False)
class ScanValue:
    """What one more scan of the tumour would do to the uncertainty of a target.

    Attributes
    ----------
    time_h
        (t,) times of the scan, h.
    sd_before, sd_after
        (t,) SD of ln of the target without and with the scan; the first is the same at all times.
    reduction
        (t,) 1 - sd_after / sd_before.
    """

    time_h: FloatArray
    sd_before: FloatArray
    sd_after: FloatArray
    reduction: FloatArray


def value_of_scan(
    posterior: Posterior, times_h: ArrayLike, target: tuple[str, float], *, cv: float = 0.08
) -> ScanValue:
    """SD of ln of a target after one more scan of the tumour, at each of some times.

    Exact for the log-linear model (the time integral is linear about the mean); for the chain by
    linear regression of the target on what the scan would show, over the draws.

    Parameters
    ----------
    posterior
        From `log_linear_posterior` or `chain_posterior`.
    times_h
        One time or (t,) times of the scan, h.
    target
        ('uptake', time in h), or ('time_integral', half-life in h): the integral of the decaying
        activity from injection on.
    cv
        SD of ln y of the scan.

    Raises
    ------
    InputError
        If a time lies before the injection, *cv* is not above 0, the target is unknown, or its
        integral has no end.
    """
    times, noise = _times(times_h), _noise(cv)
    kind, number = _target(target)
    if posterior.model == "log_linear":
        rows = log_linear_rows(posterior.names, times)
        aim = _log_linear_aim(posterior, kind, number)
        shared = rows @ posterior.covariance @ aim
        scan = _variance(rows, posterior.covariance)
        before = float(aim @ posterior.covariance @ aim)
    else:
        levels = _ln_draws(posterior, times, "tumour")
        aims = _chain_aim(posterior, kind, number)
        centred, aims = levels - levels.mean(axis=0), aims - aims.mean()
        shared = aims @ centred / len(aims)
        scan, before = (centred**2).mean(axis=0), float((aims**2).mean())
    after = np.sqrt(np.maximum(before - shared**2 / (scan + noise**2), 0.0))
    first = np.full(times.size, math.sqrt(before))
    share = np.divide(after, first, out=np.ones_like(after), where=first > 0)
    return ScanValue(times, first, after, 1 - share)


def _target(target: tuple[str, float]) -> tuple[str, float]:
    try:
        kind, number = target
    except (TypeError, ValueError):
        kind, number = "", 0.0
    if kind not in ("uptake", "time_integral"):
        raise InputError(
            f"the target {target!r} is neither ('uptake', hours) nor ('time_integral', half-life "
            "in hours)"
        )
    if kind == "uptake":
        return kind, float(_times(number)[0])
    half_life = finite_number("the half-life of the target", number)
    if half_life <= 0:
        raise InputError(f"the half-life of the target must be above 0 h, not {half_life:g}")
    return kind, half_life


def _log_linear_aim(posterior: Posterior, kind: str, number: float) -> FloatArray:
    """(2,) derivative of ln of the target at the mean, in the order of the names."""
    if kind == "uptake":
        return np.asarray(log_linear_rows(posterior.names, number)[0], float)
    slope = float(posterior.mean[posterior.names.index("slope_per_h")])
    gone = slope + math.log(2) / number
    if gone <= 0:
        raise InputError(
            f"a curve that rises by {-slope:g} /h outgrows the decay of {number:g} h, so its time "
            "integral has no end"
        )
    return np.asarray(log_linear_rows(posterior.names, 1 / gone)[0], float)


def _chain_aim(posterior: Posterior, kind: str, number: float) -> FloatArray:
    """(n,) ln of the target of each draw."""
    if kind == "uptake":
        return _ln_draws(posterior, np.array([number]), "tumour")[:, 0]
    return Chain(posterior.prior, posterior.names).ln_integral(posterior.draws, number)
