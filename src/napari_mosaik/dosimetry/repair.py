"""Repair of sublethal damage between dose rates, curves and fractions, event by event."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.core.progress import checkpoint
from napari_mosaik.dosimetry.checks import (
    above_zero,
    as_numbers,
    at_least_zero,
    not_negative,
)
from napari_mosaik.dosimetry.pools import (
    chain,
    checked_rate,
    checked_repair,
    decayed_span,
    own_damage,
)
from napari_mosaik.dosimetry.time_integral import checked_curve_times

__all__ = ["RepairState"]


@dataclass(frozen=True, slots=True, eq=False)
class _DoseRate:
    """Dose rate of k exponentials from a start to a stop, and a slope of it; Gy, h."""

    start_h: float
    stop_h: float
    amplitudes: FloatArray
    rates: FloatArray
    slope: FloatArray | None = None


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
        self._shares, self._mu = checked_repair(self.repair)

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

    def dose_gy(self, until_h: ArrayLike = math.inf) -> FloatArray:
        """Dose up to a time, with a fraction at that time.

        Parameters
        ----------
        until_h
            A number or (t,) times, h, from 0 on; infinity is allowed.

        Returns
        -------
        numpy.ndarray
            Dose, Gy, of the shape of the times, after that of the tiles where doses are by tile.
        """
        return self._at_each(until_h, self._dose)

    def q_gy2(self, until_h: ArrayLike = math.inf) -> FloatArray:
        """Effective squared dose Q = G D^2, Gy², of the shape of `dose_gy`, up to a time, h."""
        return self._at_each(until_h, self._q)

    def _at_each(self, until_h: ArrayLike, value: Callable[[float], FloatArray]) -> FloatArray:
        times = as_numbers("the end", until_h)
        if times.ndim > 1:
            raise InputError("the end must be a number or a list of numbers of hours")
        columns = [value(self._until(float(time))) for time in times.ravel()]
        out = np.stack(np.broadcast_arrays(*columns), axis=-1) if columns else np.zeros(0)
        return np.asarray(out if times.ndim else out[..., 0], float)[()]

    def _dose(self, until: float) -> FloatArray:
        total: FloatArray = np.zeros(())
        for time, dose in self._fractions:
            if time <= until:
                total = total + dose
        for source in self._sources:
            span = min(until, source.stop_h) - source.start_h
            if span > 0:
                total = total + np.sum(
                    source.amplitudes * decayed_span(span, source.rates), axis=-1
                )
                if source.slope is not None:
                    total = total + source.slope * span**2 / 2
        if (total < 0).any():
            raise InputError("the dose rates give a negative dose; check their signs")
        return total

    def _q(self, until: float) -> FloatArray:
        total: FloatArray = np.zeros(())
        for step in self._steps(until):
            checkpoint()
            total = total + 2 * np.sum(self._shares * step.damage(self._mu), axis=-1)
            if step.fraction is not None:
                before = np.sum(self._shares * step.before(self._mu), axis=-1)
                total = total + step.fraction**2 + 2 * step.fraction * before
        return total

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
        out = out + own_damage(levels, rates, mu, self.span)
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
