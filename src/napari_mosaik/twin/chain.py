"""Closed form of the delivery-limited chain: tumour and blood over time, and the time integral.

Antibody is transferred from plasma (two exponentials), bound, internalised and lost; binding is
faster than delivery, so nothing stays free, and the antigen is never exhausted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.core.progress import checkpoint
from napari_mosaik.twin.data import CHAIN, Observation, Prior

__all__ = ["CHAIN_REGIONS", "Chain"]

CHAIN_REGIONS = ("tumour", "blood")
_FLOOR = 1e-300
"""Smallest value whose logarithm is taken."""
_SERIES_BELOW = 1e-2
_SUBSTEPS = 16
"""Steps between two times of the curve with an antigen that has an end."""
_STEP = 1e-4
"""Step of the central differences in the logarithm of a parameter."""

_Values = Mapping[str, NDArray[np.float64]]


class Chain:
    """The chain with some free parameters; the others stay at their prior medians.

    Parameters
    ----------
    prior
        From `Prior.chain`.
    free
        Names of the free parameters, in the order of the last axis of what the methods take.
    """

    def __init__(self, prior: Prior, free: Sequence[str]) -> None:
        self.prior = prior.of_model("chain")
        places = prior.places(free)
        self.free = tuple(prior.names[place] for place in places)
        self.mean: FloatArray = prior.mean[places]
        self.covariance: FloatArray = prior.covariance[np.ix_(places, places)]

    def ln_curve(self, ln_free: ArrayLike, time_h: ArrayLike, region: str) -> FloatArray:
        """Logarithm of y (..., t) at the times (t,), h, for (..., p) ln of the free parameters."""
        points = np.asarray(ln_free, float)
        axes = [points[..., place, None] for place in range(len(self.free))]
        time = np.asarray(time_h, float)
        level = self.ln_of_axes(axes, time, region)
        # blood does not depend on the parameters of the tumour: one row for all points
        return np.broadcast_to(level, np.broadcast_shapes((*points.shape[:-1], 1), time.shape))

    def ln_curve_with_antigen(
        self, ln_free: FloatArray, time_h: FloatArray, antigen: float, fitted: float = math.inf
    ) -> FloatArray:
        """As `ln_curve` of the tumour, with an antigen that can be exhausted.

        Delivery slows as antigen is occupied: it is times ``1 - (bound + internalised) / antigen``.

        Parameters
        ----------
        ln_free
            (n, p) ln of the free parameters.
        time_h
            (t,) times, h, ascending from 0 on.
        antigen
            Antigen in the unit of y, above 0: 10 mg of antibody see half as much as 5 mg.
        fitted
            The antigen, in that unit, that the parameters have already been fitted with.
        """
        values = self._values([ln_free[:, place] for place in range(len(self.free))])
        axes = self._values([ln_free[:, place, None] for place in range(len(self.free))])
        share = self._antigen_share(values, time_h, antigen)
        if math.isfinite(fitted):
            share = share / self._antigen_share(values, time_h, fitted)
        blood = self.prior.constants["blood_fraction"]
        level = (1 - blood) * share * self._retained(axes, time_h)
        level = level + blood * self._blood(axes, time_h)
        return np.asarray(np.log(np.maximum(level, _FLOOR)), float)

    def _antigen_share(self, values: _Values, time_h: FloatArray, antigen: float) -> FloatArray:
        """(n, t) bound and internalised antibody as a share of that with endless antigen.

        By the implicit midpoint rule, with and without an end, so that its error cancels.
        """
        k32, k03 = values["k32_per_h"], values["k03_per_h"]
        plasma = list(self._plasma(values))
        size = np.broadcast_shapes(*(np.shape(value) for value in values.values()))
        states = [
            (1 / antigen, np.zeros(size), np.zeros(size)),
            (0.0, np.zeros(size), np.zeros(size)),
        ]
        found = np.ones((*size, time_h.size))
        for place in range(1, time_h.size):
            checkpoint()
            step = (time_h[place] - time_h[place - 1]) / _SUBSTEPS
            for part in range(_SUBSTEPS):
                middle = time_h[place - 1] + (part + 0.5) * step
                flow = sum(level * np.exp(-rate * middle) for level, rate in plasma)
                flow = values["transfer_per_h"] * flow
                states = [
                    (share, *_midpoint(bound, inside, flow, share * flow, k32, k03, step))
                    for share, bound, inside in states
                ]
            (_, bound, inside), (_, endless, within) = states
            total = endless + within
            found[..., place] = np.where(total > 0, (bound + inside) / np.maximum(total, _FLOOR), 1)
        return found

    def ln_of_axes(
        self, axes: Sequence[NDArray[Any]], time_h: FloatArray | float, region: str
    ) -> FloatArray:
        """Logarithm of y of the broadcast shape of the (n,) ln of each parameter and times, h."""
        values = self._values(axes)
        time = np.asarray(time_h, float)
        level = self._blood(values, time)
        if region == "tumour":
            share = self.prior.constants["blood_fraction"]
            level = (1 - share) * self._retained(values, time) + share * level
        elif region != "blood":
            raise InputError(f"the chain describes tumour and blood, not the region {region!r}")
        return np.asarray(np.log(np.maximum(level, _FLOOR)), float)

    def ln_integral(self, ln_free: ArrayLike, half_life_h: float) -> FloatArray:
        """Logarithm of the time integral (...,), unit h, of the tumour's decaying activity."""
        points = np.asarray(ln_free, float)
        values = self._values([points[..., place] for place in range(len(self.free))])
        decay = math.log(2) / half_life_h
        plasma = sum(level / (decay + rate) for level, rate in self._plasma(values))
        chain = values["transfer_per_h"] / (decay + values["k32_per_h"])
        chain = chain * (1 + values["k32_per_h"] / (decay + values["k03_per_h"]))
        share = self.prior.constants["blood_fraction"]
        blood = 1 - self.prior.constants["haematocrit"]
        total = plasma * ((1 - share) * chain + share * blood)
        return np.asarray(np.log(np.maximum(total, _FLOOR)), float)

    def ln_means(self, ln_free: ArrayLike, observations: Sequence[Observation]) -> FloatArray:
        """Logarithm of y (..., n) of observations, dimensionless, for (..., p) ln of parameters."""
        points = np.asarray(ln_free, float)
        out = np.zeros((*points.shape[:-1], len(observations)))
        for region in dict.fromkeys(row.region for row in observations):
            places = [n for n, row in enumerate(observations) if row.region == region]
            times = [observations[place].time_h for place in places]
            out[..., places] = self.ln_curve(points, times, region)
        return out

    def sensitivity(self, ln_free: ArrayLike, observations: Sequence[Observation]) -> FloatArray:
        """Derivatives of ln y (..., n, p), dimensionless, to the (..., p) ln of parameters."""
        points = np.asarray(ln_free, float)[..., None, :]
        steps = _STEP * np.eye(len(self.free))
        above = self.ln_means(points + steps, observations)
        below = self.ln_means(points - steps, observations)
        return np.asarray(np.swapaxes((above - below) / (2 * _STEP), -1, -2), float)

    def _values(self, axes: Sequence[NDArray[Any]]) -> _Values:
        medians = zip(self.prior.names, self.prior.mean, strict=True)
        values = {name: np.asarray(math.exp(middle)) for name, middle in medians}
        values |= {name: np.exp(axis) for name, axis in zip(self.free, axes, strict=True)}
        return {name: values[name] for name in CHAIN}

    def _plasma(self, values: _Values) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Amplitude and rate (1/h) of each exponential in plasma."""
        fast = self.prior.constants["fast_fraction"]
        for share, name in ((fast, "fast_half_life_h"), (1 - fast, "slow_half_life_h")):
            if share > 0:
                yield np.asarray(values["plasma_start"] * share), math.log(2) / values[name]

    def _blood(self, values: _Values, time: NDArray[Any]) -> NDArray[Any]:
        blood = 1 - self.prior.constants["haematocrit"]
        parts = [level * np.exp(-rate * time) for level, rate in self._plasma(values)]
        return np.asarray(blood * sum(parts))

    def _retained(self, values: _Values, time: NDArray[Any]) -> NDArray[Any]:
        """Bound and internalised antibody per tissue volume."""
        k32, k03 = values["k32_per_h"], values["k03_per_h"]
        total: NDArray[Any] = np.zeros(())
        for level, rate in self._plasma(values):
            bound = _first_difference(rate, k32, time)
            inside = k32 * _third_point_difference(rate, k32, k03, time)
            total = total + level * (bound + inside)
        return np.asarray(values["transfer_per_h"] * total)


def _midpoint(
    bound: NDArray[Any], inside: NDArray[Any], flow: NDArray[Any], occupied: NDArray[Any],
    k32: NDArray[Any], k03: NDArray[Any], step: float,
) -> tuple[NDArray[Any], NDArray[Any]]:  # fmt: skip
    """Bound and internalised antibody one step, h, later; implicit midpoint rule.

    ``bound' = flow - occupied (bound + inside) - k32 bound``, ``inside' = k32 bound - k03 inside``.
    """
    half = step / 2
    a, b, c, d = half * (k32 + occupied), half * occupied, half * k32, half * k03
    first = (1 - a) * bound - b * inside + step * flow
    second = c * bound + (1 - d) * inside
    scale = (1 + a) * (1 + d) + b * c
    return ((1 + d) * first - b * second) / scale, ((1 + a) * second + c * first) / scale


def _first_difference(a: NDArray[Any], b: NDArray[Any], time: NDArray[Any]) -> NDArray[Any]:
    """``(exp(-a t) - exp(-b t)) / (b - a)``, with its limit for equal rates."""
    x = np.abs(b - a) * time
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(x > 0, -np.expm1(-x) / x, 1.0)
    return np.asarray(time * np.exp(-np.minimum(a, b) * time) * share)


def _third_point_difference(
    a: NDArray[Any], b: NDArray[Any], c: NDArray[Any], time: NDArray[Any]
) -> NDArray[Any]:
    """Second divided difference of ``exp(-x t)`` over three rates, also where they are equal."""
    low, high = np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)
    middle = np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))
    near = (high - low) * time < _SERIES_BELOW
    parts = _first_difference(low, middle, time) - _first_difference(middle, high, time)
    with np.errstate(invalid="ignore", divide="ignore"):
        direct = parts / (high - low)
    if not near.any():
        return np.asarray(direct)
    mean = (low + middle + high) / 3
    d1, d2, d3 = low - mean, middle - mean, high - mean
    h2, h3 = 0.5 * (d1 * d1 + d2 * d2 + d3 * d3), d1 * d2 * d3
    series = time**2 / 2 + time**4 * h2 / 24 - time**5 * h3 / 120
    return np.asarray(np.where(near, series * np.exp(-mean * time), direct))
