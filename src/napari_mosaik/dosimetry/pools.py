"""Protraction of a dose rate: the pools of sublethal damage in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.dosimetry.checks import above_zero, as_numbers, not_negative

__all__ = [
    "chain",
    "checked_rate",
    "checked_repair",
    "decayed_span",
    "own_damage",
    "protraction",
]

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


def checked_repair(repair: Sequence[tuple[float, float]]) -> tuple[FloatArray, FloatArray]:
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
    shares, mu = checked_repair(repair)
    if math.isinf(duration) and ((rates == 0) & (levels != 0)).any():
        raise InputError("a dose rate without decay needs a finite duration")
    dose = np.sum(levels * decayed_span(duration, rates), axis=-1)
    if (dose < 0).any():
        raise InputError("the dose rates give a negative dose; check their signs")
    q = 2 * np.sum(shares * own_damage(levels, rates, mu, duration), axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(dose > 0, q / dose**2, np.nan), float)[()]


def decayed_span(span_h: ArrayLike, rates: FloatArray) -> FloatArray:
    """Integrals of ``exp(-rate t)`` over a span, h, for rates of any shape, 1/h."""
    return chain(np.stack([np.zeros(rates.shape), rates], axis=-1), span_h)


def own_damage(levels: FloatArray, rates: FloatArray, mu: FloatArray, span_h: float) -> FloatArray:
    """(..., r) integrals of dose rate (..., k) times the damage it has itself made, Gy^2."""
    outer, inner = rates[..., :, None, None], rates[..., None, :, None]
    nodes = np.stack(np.broadcast_arrays(0.0, outer + inner, outer + mu), axis=-1)
    return np.asarray(
        np.einsum("...i,...j,...ijn->...n", levels, levels, chain(nodes, span_h)), float
    )
