"""Protraction: dose rates, fractions and the repair of sublethal damage between them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.dosimetry.checks import (
    above_zero,
    as_numbers,
    at_least_zero,
    not_negative,
)
from napari_mosaik.dosimetry.time_integral import checked_curve_times

__all__ = ["RepairState", "chain", "checked_rate", "protraction"]

_SERIES_UP_TO = 40.0


def chain(rates_per_h: ArrayLike, span_h: ArrayLike) -> FloatArray:
    """Response of a chain of first-order pools, also where rates are equal or 0.

    Up to its sign the divided difference of ``exp(-x span)`` over the rates: for one rate the
    exponential, for ``(0, r)`` its integral over the span, for ``(l, m)`` what a pool that empties
    with m holds of an inflow ``exp(-l t)``, for ``(0, l + m, l + n)`` the integral of that times
    ``exp(-m t)``.  Nothing cancels, so rates may be as close as they like.

    Parameters
    ----------
    rates_per_h
        (..., k) rates, 1/h, 0 or more, in any order.
    span_h
        Time, h, 0 or more or infinite; broadcasts with the rates without their last axis.

    Returns
    -------
    numpy.ndarray
        h to the power k - 1; infinite where an infinite span has no finite response.
    """
    nodes = np.sort(np.asarray(rates_per_h, float), axis=-1)
    shape = np.broadcast_shapes(nodes.shape[:-1], np.shape(span_h))
    nodes = np.broadcast_to(nodes, (*shape, nodes.shape[-1])).reshape(-1, nodes.shape[-1])
    span = np.broadcast_to(np.asarray(span_h, float), shape).ravel()
    low = nodes[:, 0]
    with np.errstate(invalid="ignore", over="ignore"):
        left = np.where(low > 0, np.exp(-low * span), 1.0)
        held = left * _from_zero(nodes - low[:, None], span)
    return np.where((low > 0) & np.isinf(span), 0.0, held).reshape(shape)


def _from_zero(nodes: FloatArray, span: FloatArray) -> FloatArray:
    """(m,) responses for sorted rates (m, k), 1/h, the first of which is 0, and spans (m,), h."""
    k = nodes.shape[1]
    if k == 1:
        return np.ones(len(nodes))
    widest = np.where(nodes[:, -1] > 0, nodes[:, -1] * span, 0.0)
    near = widest <= _SERIES_UP_TO
    out = np.full(len(nodes), np.nan)
    out[near] = _series(nodes[near], span[near])
    far = widest > _SERIES_UP_TO
    if far.any():
        high = nodes[far, -1]
        without_high = _from_zero(nodes[far, :-1], span[far])
        out[far] = (without_high - chain(nodes[far, 1:], span[far])) / high
    return out


def _series(nodes: FloatArray, span: FloatArray) -> FloatArray:
    """(m,) responses by a series of positive terms; the widest rate times the span is moderate."""
    if not span.size:
        return np.zeros(0)
    k = nodes.shape[1]
    with np.errstate(invalid="ignore"):
        gaps = np.where(nodes > 0, nodes * span[:, None], 0.0)
    widest = gaps[:, -1]
    powers = widest[:, None] - gaps[:, :-1]  # of the widest itself it is 0
    symmetric = np.ones_like(powers)  # complete homogeneous polynomials of order 0
    total = np.ones(span.size)
    factor = 1.0
    for order in range(1, 30 + int(3 * widest.max())):
        symmetric[:, 0] *= powers[:, 0]
        for column in range(1, k - 1):
            symmetric[:, column] = (
                symmetric[:, column - 1] + powers[:, column] * symmetric[:, column]
            )
        factor /= order + k - 1
        total += factor * symmetric[:, -1]
    held = span ** (k - 1) * np.exp(-widest) * total / math.factorial(k - 1)
    return np.asarray(held, float)


def _checked_repair(repair: Sequence[tuple[float, float]]) -> tuple[FloatArray, FloatArray]:
    """Shares (r,) without unit and rates (r,), 1/h, of the components of repair."""
    pairs = as_numbers("repair", repair)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise InputError("repair must be a list of (share, rate per h), one for each component")
    shares = not_negative("the shares of repair", pairs[:, 0])
    rates = not_negative("the rates of repair", pairs[:, 1], "/h")
    if np.isnan(pairs).any():
        raise InputError("the shares and rates of repair must be numbers, not NaN")
    if abs(shares.sum() - 1) > 1e-9:
        raise InputError(f"the shares of repair must add up to 1, not {shares.sum():g}")
    return shares, rates


@dataclass(frozen=True, slots=True, eq=False)
class _DoseRate:
    """Dose rate of k exponentials from a start to a stop, and a slope of it; Gy, h."""

    start_h: float
    stop_h: float
    amplitudes: FloatArray
    rates: FloatArray
    slope: FloatArray | None = None


def checked_rate(
    amplitudes_gy_h: ArrayLike, decay_rates_per_h: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Amplitudes (..., k), Gy/h, and rates (..., k), 1/h, of a dose rate that is not negative."""
    levels = as_numbers("dose rates", amplitudes_gy_h)
    rates = not_negative("decay rates", decay_rates_per_h, "/h")
    levels, rates = np.atleast_1d(levels), np.atleast_1d(rates)
    if np.isnan(rates).any():
        raise InputError("decay rates must be numbers, not NaN")
    if levels.shape[-1] != rates.shape[-1]:
        raise InputError(
            f"dose rates {levels.shape} and decay rates {rates.shape} must be lists of equal length"
        )
    if np.isinf(levels).any():
        raise InputError("dose rates must be finite")
    start = np.sum(levels, axis=-1)
    if (start < -1e-9 * np.sum(np.abs(levels), axis=-1)).any():
        raise InputError(f"the dose rate is negative at the start, {np.nanmin(start):g} Gy/h")
    return levels, rates


def protraction(
    amplitudes_gy_h: ArrayLike,
    decay_rates_per_h: ArrayLike,
    repair: Sequence[tuple[float, float]],
    duration_h: float = math.inf,
) -> FloatArray:
    """Lea-Catcheside factor G of a dose rate ``sum_i a_i exp(-l_i t)``: the share of beta D^2.

    ``G = 2 / D^2 sum_ijn p_n a_i a_j / ((l_i + l_j) (mu_n + l_j))`` for an infinite duration; also
    where decay and repair are equally fast.

    Parameters
    ----------
    amplitudes_gy_h
        (k,) or (..., k) dose rates at the start, Gy/h; those of an uptake phase are negative.
    decay_rates_per_h
        (k,) or (..., k) effective decay rates, 1/h, of clearance and decay together; 0 is allowed
        with a finite duration.
    repair
        (share, rate per h) of each component of repair; the shares add up to 1.
    duration_h
        Duration of the dose rate, h, above 0; damage that is left then does no more.

    Returns
    -------
    numpy.ndarray
        () or (...): G in [0, 1], without unit; NaN where the dose is 0 or NaN.

    Raises
    ------
    InputError
        If rates are negative, the dose rate is negative at the start, shapes do not fit, shares do
        not add up to 1, or a dose rate without decay has no end.

    References
    ----------
    Lea, Catcheside 1942, J Genet 44:216; Dale 1985, Br J Radiol 58:515.
    """
    levels, rates = checked_rate(amplitudes_gy_h, decay_rates_per_h)
    duration = above_zero("the duration", duration_h, "h", infinite=True)
    shares, mu = _checked_repair(repair)
    if math.isinf(duration) and ((rates == 0) & (levels != 0)).any():
        raise InputError("a dose rate without decay needs a finite duration")
    dose = np.sum(levels * _over(duration, rates), axis=-1)
    if (dose < 0).any():
        raise InputError("the dose rates give a negative dose; check their signs")
    q = 2 * np.sum(shares * _own_damage(levels, rates, mu, duration), axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(dose > 0, q / dose**2, np.nan), float)[()]


def _over(span_h: ArrayLike, rates: FloatArray) -> FloatArray:
    """Integrals of ``exp(-rate t)`` over a span, h, for rates of any shape, 1/h."""
    return chain(np.stack([np.zeros(rates.shape), rates], axis=-1), span_h)


def _own_damage(levels: FloatArray, rates: FloatArray, mu: FloatArray, span_h: float) -> FloatArray:
    """(..., r) integrals of dose rate (..., k) times the damage it has itself made, Gy^2."""
    outer, inner = rates[..., :, None, None], rates[..., None, :, None]
    nodes = np.stack(np.broadcast_arrays(0.0, outer + inner, outer + mu), axis=-1)
    return np.asarray(
        np.einsum("...i,...j,...ijn->...n", levels, levels, chain(nodes, span_h)), float
    )


@dataclass(slots=True)
class RepairState:
    """Unrepaired damage of dose rates, curves and fractions, given in any order of calls.

    For each component n of repair, ``dU_n/dt = R(t) - mu_n U_n``; a fraction d adds d.  The
    effective squared dose is ``Q = 2 sum_n p_n int R U_n dt``, plus ``d^2 + 2 d sum_n p_n U_n``
    for each fraction, U just before it; ``-ln S = alpha D + beta Q``.  Everything is exact between
    the events: nothing is stepped.

    Parameters
    ----------
    repair
        (share, rate per h) of each component of repair; the shares add up to 1.

    Raises
    ------
    InputError
        From every method: if a time lies before 0, a dose or rate is negative, or shapes do not
        fit.
    """

    repair: Sequence[tuple[float, float]]
    _shares: FloatArray = field(init=False)
    _mu: FloatArray = field(init=False)
    _sources: list[_DoseRate] = field(init=False, default_factory=list)
    _fractions: list[tuple[float, FloatArray]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._shares, self._mu = _checked_repair(self.repair)

    def add_rate(
        self,
        start_h: float,
        amplitudes_gy_h: ArrayLike,
        decay_rates_per_h: ArrayLike,
        stop_h: float = math.inf,
    ) -> None:
        """A dose rate ``sum_i a_i exp(-l_i (t - start))`` between two times.

        Parameters
        ----------
        start_h, stop_h
            Times, h, from 0 on; the rate is 0 before and after.
        amplitudes_gy_h
            (k,) or (..., k) dose rates at the start, Gy/h; NaN gives NaN for its tile.
        decay_rates_per_h
            (k,) or (..., k) effective decay rates, 1/h, 0 or more.
        """
        start = at_least_zero("the start of a dose rate", start_h, "h")
        stop = at_least_zero("the stop of a dose rate", stop_h, "h", infinite=True)
        if stop <= start:
            raise InputError(f"the dose rate stops at {stop:g} h, not after its start, {start:g} h")
        levels, rates = checked_rate(amplitudes_gy_h, decay_rates_per_h)
        self._sources.append(_DoseRate(start, stop, levels, rates))

    def add_curve(
        self, time_h: ArrayLike, dose_rate_gy_h: ArrayLike, tail_per_h: float | None = None
    ) -> None:
        """A measured dose rate: straight lines between the times, then an exponential.

        Parameters
        ----------
        time_h
            (t,) times, h, ascending from 0 on; the dose rate is 0 before the first.
        dose_rate_gy_h
            (t,) or (..., t) dose rate, Gy/h, 0 or more; NaN gives NaN for its tile.
        tail_per_h
            Rate of the exponential after the last time, 1/h, above 0; without it the rate is 0.
        """
        times = checked_curve_times(time_h)
        values = not_negative("dose rates", dose_rate_gy_h, "Gy/h")
        if not values.ndim or values.shape[-1] != times.size:
            raise InputError(
                f"dose rates of shape {values.shape} do not belong to {times.size} times"
            )
        tail = None if tail_per_h is None else above_zero("the rate of the tail", tail_per_h, "/h")
        slopes = np.diff(values, axis=-1) / np.diff(times)
        for place in range(times.size - 1):
            self._sources.append(
                _DoseRate(
                    float(times[place]),
                    float(times[place + 1]),
                    values[..., place, None],
                    np.zeros(1),
                    slopes[..., place],
                )
            )
        if tail is not None:
            last = float(times[-1])
            self._sources.append(_DoseRate(last, math.inf, values[..., -1, None], np.array([tail])))

    def add_fraction(self, time_h: float, dose_gy: ArrayLike) -> None:
        """A dose, Gy, a number or (n,) for tiles, given at once at a time, h, from 0 on."""
        time = at_least_zero("the time of a fraction", time_h, "h")
        self._fractions.append((time, not_negative("the dose of a fraction", dose_gy, "Gy")))

    def dose_gy(self, until_h: float = math.inf) -> FloatArray:
        """Dose, Gy, a number or (n,) for tiles, up to a time, h, with a fraction at that time."""
        until = self._until(until_h)
        total: FloatArray = np.zeros(())
        for time, dose in self._fractions:
            if time <= until:
                total = total + dose
        for source in self._sources:
            span = min(until, source.stop_h) - source.start_h
            if span > 0:
                total = total + np.sum(source.amplitudes * _over(span, source.rates), axis=-1)
                if source.slope is not None:
                    total = total + source.slope * span**2 / 2
        if (total < 0).any():
            raise InputError("the dose rates give a negative dose; check their signs")
        return np.asarray(total, float)[()]

    def q_gy2(self, until_h: float = math.inf) -> FloatArray:
        """Effective squared dose Q = G D^2, Gy², of the shape of `dose_gy`, up to a time, h."""
        until = self._until(until_h)
        total: FloatArray = np.zeros(())
        for step in self._steps(until):
            total = total + 2 * np.sum(self._shares * step.damage(self._mu), axis=-1)
            if step.fraction is not None:
                before = np.sum(self._shares * step.before(self._mu), axis=-1)
                total = total + step.fraction**2 + 2 * step.fraction * before
        return np.asarray(total, float)[()]

    def unrepaired_gy(self, time_h: ArrayLike) -> FloatArray:
        """Unrepaired damage ``sum_n p_n U_n``, Gy, just after any fraction at that time.

        Parameters
        ----------
        time_h
            A number or (t,) times, h, from 0 on, in any order.

        Returns
        -------
        numpy.ndarray
            Of the shape of the times, after that of the tiles where doses are given by tile.
        """
        times = not_negative("times", time_h, "h")
        if np.isnan(times).any() or times.ndim > 1:
            raise InputError("times must be a number or a list of numbers of hours")
        asked = np.atleast_1d(times)
        columns: list[FloatArray] = [np.zeros(())] * asked.size
        last = float(asked.max(initial=0.0))
        for step in self._steps(last):
            end = step.start + step.span
            inside = np.flatnonzero((asked >= step.start) & (asked < end))
            held = step.unrepaired(self._mu, asked[inside] - step.start)
            for place, column in zip(inside, np.moveaxis(held @ self._shares, -1, 0), strict=True):
                columns[place] = column
            at_end = step.after(self._mu) @ self._shares
            for place in np.flatnonzero(asked == end):
                columns[place] = at_end
        out = np.stack(np.broadcast_arrays(*columns), axis=-1) if columns else np.zeros(0)
        return np.asarray(out if times.ndim else out[..., 0], float)[()]

    def _until(self, until_h: float) -> float:
        until = at_least_zero("the end", until_h, "h", infinite=True)
        endless = [s for s in self._sources if math.isinf(s.stop_h)]
        if math.isinf(until) and any(((s.rates == 0) & (s.amplitudes != 0)).any() for s in endless):
            raise InputError("a dose rate without decay needs a stop, or a time until which")
        return until

    def _steps(self, until: float) -> Iterator[_Step]:
        """The spans between events up to a time, h, in order, each with the damage at its start."""
        marks = {0.0, until, *(time for time, _ in self._fractions)}
        for source in self._sources:
            marks |= {source.start_h, source.stop_h}
        events = sorted(mark for mark in marks if mark <= until)
        held: FloatArray = np.zeros(self._mu.size)
        first = self._fraction_at(0.0)
        if first is not None:
            held = held + first[..., None]
            yield _Step(0.0, 0.0, np.zeros(self._mu.size), [], first)
        for start, end in pairwise(events):
            active = [s for s in self._sources if s.start_h <= start and s.stop_h >= end]
            step = _Step(start, end - start, held, active, self._fraction_at(end))
            yield step
            if math.isfinite(end):
                held = step.after(self._mu)

    def _fraction_at(self, time: float) -> FloatArray | None:
        doses = [dose for at, dose in self._fractions if at == time]
        return np.asarray(sum(doses), float) if doses else None


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """A span without events, the damage (..., r) at its start, and the fraction at its end."""

    start: float
    span: float
    held: FloatArray
    sources: list[_DoseRate]
    fraction: FloatArray | None

    def _active(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Amplitudes at the start (..., k), rates (..., k), and the slope (...) of the rate."""
        levels, rates = [], []
        slope: FloatArray = np.zeros(())
        for source in self.sources:
            ago = self.start - source.start_h
            level = source.amplitudes * np.exp(-source.rates * ago)
            if source.slope is not None:
                level = level + (source.slope * ago)[..., None]
                slope = slope + source.slope
            level, rate = np.broadcast_arrays(level, source.rates)
            levels.append(level)
            rates.append(rate)
        lead = np.broadcast_shapes(*(level.shape[:-1] for level in levels)) if levels else ()

        def joined(parts: list[FloatArray]) -> FloatArray:
            wide = [np.broadcast_to(part, (*lead, part.shape[-1])) for part in parts]
            return np.concatenate(wide, axis=-1) if wide else np.zeros((0,))

        # rates that are the same for all tiles stay one row
        flat = all(rate.ndim == 1 for rate in (s.rates for s in self.sources))
        own = np.concatenate([s.rates for s in self.sources]) if flat and levels else joined(rates)
        return joined(levels), own, slope

    def unrepaired(self, mu: FloatArray, after_h: FloatArray) -> FloatArray:
        """Damage (..., m, r), Gy, at times (m,) after the start, h; without the fraction."""
        levels, rates, slope = self._active()
        out = self.held[..., None, :] * np.exp(-mu * after_h[:, None])
        if levels.shape[-1]:
            nodes = _nodes(rates[..., None], mu)[..., None, :, :, :]
            made = chain(nodes, after_h[:, None, None])
            out = out + np.einsum("...i,...min->...mn", levels, made)
        if np.any(slope != 0):
            out = out + slope[..., None, None] * chain(_nodes(0.0, 0.0, mu), after_h[:, None])
        return np.asarray(out, float)

    def before(self, mu: FloatArray) -> FloatArray:
        """Damage (..., r), Gy, at the end, just before the fraction; repair *mu*, 1/h."""
        return np.asarray(self.unrepaired(mu, np.array([self.span]))[..., 0, :], float)

    def after(self, mu: FloatArray) -> FloatArray:
        """Damage (..., r), Gy, at the end, just after the fraction; repair *mu*, 1/h."""
        held = self.before(mu)
        return held if self.fraction is None else held + self.fraction[..., None]

    def damage(self, mu: FloatArray) -> FloatArray:
        """(..., r) integral of dose rate times damage over the span, Gy^2; repair *mu*, 1/h."""
        levels, rates, slope = self._active()
        out: FloatArray = np.zeros(mu.size)
        if not self.span or not levels.shape[-1]:
            return out
        first = chain(_nodes(0.0, rates[..., None] + mu), self.span)
        out = self.held * np.einsum("...i,...in->...n", levels, first)
        out = out + _own_damage(levels, rates, mu, self.span)
        if np.any(slope != 0):
            up = rates[..., None]
            early = chain(_nodes(0.0, up, up, up + mu), self.span)
            late = self._moment(up, mu)
            both = np.einsum("...i,...in->...n", levels, early + late)
            alone = self.held * self._moment(mu) + slope[..., None] * self._moment(0.0, 0.0, mu)
            out = out + slope[..., None] * (both + alone)
        return np.asarray(out, float)

    def _moment(self, *rates: ArrayLike) -> FloatArray:
        """Integral over the span of time times the response of a chain."""
        once = chain(_nodes(0.0, *rates), self.span)
        return self.span * once - chain(_nodes(0.0, 0.0, *rates), self.span)


def _nodes(*rates: ArrayLike) -> FloatArray:
    return np.stack(np.broadcast_arrays(*(np.asarray(rate, float) for rate in rates)), axis=-1)
