"""Time-integrated activity: from a measured curve, or from a sum of exponentials."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.dosimetry.checks import above_zero, as_numbers, at_least_zero, not_negative

__all__ = [
    "DecayedCurve",
    "TimeIntegral",
    "curve_level",
    "decayed_curve",
    "time_integrated_activity",
    "time_integrated_exponentials",
]


@dataclass(frozen=True, slots=True, eq=False)
class TimeIntegral:
    """Integral of activity over time, from injection to infinity.

    Attributes
    ----------
    total_h
        () or (n,): the unit of the activity times h.
    before_first, after_last
        () or (n,): shares of the total before the first and after the last time, in [0, 1]; NaN
        where the total is 0.
    """

    total_h: FloatArray
    before_first: FloatArray
    after_last: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class DecayedCurve:
    """Activity (n, t) as it is at the times (t,), h, and the rate of the exponential tail, 1/h."""

    time_h: FloatArray
    activity: FloatArray
    tail_per_h: float


def decayed_curve(
    time_h: ArrayLike,
    activity: ArrayLike,
    half_life_h: float,
    tail: Literal["physical"] | float = "physical",
) -> DecayedCurve:
    """Checked curve without its decay correction, with (0, 0) before a first time above 0, h.

    Parameters and errors as in `time_integrated_activity`; activities (t,) become (1, t).
    """
    times = checked_curve_times(time_h)
    values = not_negative("activities", activity)
    if values.ndim not in (1, 2) or values.shape[-1] != times.size:
        raise InputError(
            f"activities of shape {values.shape} do not belong to {times.size} times: give (t,) "
            "or (n, t)"
        )
    curves = np.atleast_2d(values)
    half_life = above_zero("the half-life", half_life_h, "h", infinite=True)
    rate = math.log(2) / _tail_half_life(tail, half_life, curves)
    if rate == 0:
        raise InputError("the tail of a curve without decay has no end; give its half-life in h")
    decayed = curves * np.exp2(-times / half_life)
    if times[0] > 0:
        times = np.concatenate([[0.0], times])
        decayed = np.concatenate([np.zeros((len(decayed), 1)), decayed], axis=1)
    return DecayedCurve(times, decayed, rate)


def checked_curve_times(time_h: ArrayLike) -> FloatArray:
    """Times (t,), h: finite, ascending, 0 or more; else `InputError`."""
    times = as_numbers("times", time_h)
    if times.ndim != 1 or not times.size or not np.isfinite(times).all():
        raise InputError("times must be a list of at least one finite number of hours")
    if times[0] < 0:
        raise InputError(f"times must be 0 h or more, not {times[0]:g} h")
    wrong = np.flatnonzero(np.diff(times) <= 0)
    if wrong.size:
        first, second = times[wrong[0]], times[wrong[0] + 1]
        raise InputError(f"times must ascend, but {second:g} h follows {first:g} h")
    return times


def _tail_half_life(tail: str | float, half_life_h: float, curves: FloatArray) -> float:
    if isinstance(tail, str):
        if tail != "physical":
            raise InputError(f"the tail {tail!r} is neither 'physical' nor a half-life in h")
        return half_life_h
    effective = above_zero("the effective half-life of the tail", tail, "h")
    if effective > half_life_h:
        raise InputError(
            f"the effective half-life of {effective:g} h is longer than the physical one of "
            f"{half_life_h:g} h: activity cannot leave more slowly than it decays"
        )
    if curves.shape[1] > 1:
        rising = np.flatnonzero(curves[:, -1] > curves[:, -2])
        if rising.size:
            last, before = curves[rising[0], -1], curves[rising[0], -2]
            raise InputError(
                "a curve that still rises has no effective half-life: its last decay-corrected "
                f"value, {last:g}, is above the one before, {before:g}; use the tail 'physical'"
            )
    return effective


def time_integrated_activity(
    time_h: ArrayLike,
    activity: ArrayLike,
    half_life_h: float,
    *,
    tail: Literal["physical"] | float = "physical",
) -> TimeIntegral:
    """Integral of measured activity over time.

    The decayed values are joined by straight lines, from (0, 0) where the first time is above 0;
    an exponential continues from the last one.

    Parameters
    ----------
    time_h
        (t,) times after injection, h, ascending from 0 on.
    activity
        (t,) or (n, t) activity, decay-corrected to injection, of any unit; NaN gives NaN for its
        curve.
    half_life_h
        Physical half-life, h.
    tail
        'physical': nothing is cleared after the last time, an upper bound; or the effective
        half-life, h, of decay and clearance together.

    Raises
    ------
    InputError
        If times do not ascend from 0 on, shapes do not fit, activities are negative or infinite,
        an effective half-life is longer than the physical one, or a curve with an effective
        half-life still rises in its last decay-corrected value.
    """
    curve = decayed_curve(time_h, activity, half_life_h, tail)
    times, values = curve.time_h, curve.activity
    parts = np.diff(times) * (values[:, 1:] + values[:, :-1]) / 2
    after = values[:, -1] / curve.tail_per_h
    starts_later = np.asarray(time_h, float)[0] > 0
    before = parts[:, 0] if starts_later else np.zeros(len(values))
    found = _shares(parts.sum(axis=1) + after, before, after)
    if np.ndim(activity) == 2:
        return found
    return TimeIntegral(found.total_h[0], found.before_first[0], found.after_last[0])


def time_integrated_exponentials(
    amplitudes: ArrayLike,
    rates_per_h: ArrayLike,
    half_life_h: float,
    *,
    first_h: float = 0.0,
    last_h: float = math.inf,
) -> TimeIntegral:
    """Integral of ``sum_i amplitude_i exp(-rate_i t) 2^(-t / half-life)`` from 0 to infinity.

    Parameters
    ----------
    amplitudes
        (k,) or (n, k) amplitudes of the decay-corrected activity, of any unit; those of an uptake
        phase are negative.  NaN gives NaN.
    rates_per_h
        (k,) or (n, k) rates of the decay-corrected activity, 1/h, 0 or more.
    half_life_h
        Physical half-life, h.
    first_h, last_h
        Times of the first and the last measurement, h: the shares before and after them are given.

    Raises
    ------
    InputError
        If a rate is negative, the integral is negative or has no end, shapes do not fit, or the
        times do not ascend from 0 on.
    """
    levels = as_numbers("amplitudes", amplitudes)
    rates = not_negative("rates", rates_per_h, "/h")
    half_life = above_zero("the half-life", half_life_h, "h", infinite=True)
    first = at_least_zero("the first time", first_h, "h", infinite=True)
    last = at_least_zero("the last time", last_h, "h", infinite=True)
    if last < first:
        raise InputError(f"the last time, {last:g} h, lies before the first, {first:g} h")
    levels, rates = np.atleast_1d(levels), np.atleast_1d(rates)
    if levels.shape[-1] != rates.shape[-1]:
        raise InputError(
            f"amplitudes {levels.shape} and rates {rates.shape} must be lists of equal length"
        )
    gone = rates + math.log(2) / half_life
    if (gone == 0).any():
        raise InputError("a rate of 0 without decay has no finite integral; give a half-life")
    parts = levels / gone
    total = np.sum(parts, axis=-1)
    scale = np.sum(np.abs(levels), axis=-1)
    if (np.sum(levels, axis=-1) < -1e-9 * scale).any() or (total < 0).any():
        raise InputError("the amplitudes give a negative activity; check their signs")
    before = np.sum(parts * -np.expm1(-gone * first), axis=-1)
    after = np.sum(parts * np.exp(-gone * last), axis=-1)
    return _shares(np.asarray(total, float), np.asarray(before), np.asarray(after))


def _shares(total: FloatArray, before: FloatArray, after: FloatArray) -> TimeIntegral:
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = [np.where(total > 0, part / total, np.nan) for part in (before, after)]
    return TimeIntegral(np.asarray(total, float), *(np.asarray(share, float) for share in shares))


def curve_level(times: FloatArray, curves: FloatArray, at_h: float) -> FloatArray:
    """(n,) value of curves (n, m), any unit, at a time, h: lines from 0, then constant."""
    first = np.concatenate([[0.0], times]) if times[0] > 0 else times
    start = np.zeros((len(curves), 1)) if times[0] > 0 else np.zeros((len(curves), 0))
    whole = np.concatenate([start, curves], axis=1)
    place = int(np.clip(np.searchsorted(first, at_h), 1, max(first.size - 1, 1)))
    if first.size == 1 or at_h >= first[-1]:
        return np.asarray(whole[:, -1], float)
    share = (at_h - first[place - 1]) / (first[place] - first[place - 1])
    return np.asarray(whole[:, place - 1] * (1 - share) + whole[:, place] * share, float)
