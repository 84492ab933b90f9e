"""What a dose map comes to: dose-volume histogram, equivalent uniform dose, tumour control.

Their intervals over draws are streamed: nothing of tiles x draws is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.core.progress import blocking, checkpoint
from napari_mosaik.dosimetry.checks import above_zero, as_numbers, not_negative, within_limits

__all__ = [
    "DRAWN_INDICES",
    "ActivityPlan",
    "DoseVolume",
    "DrawSummary",
    "TumourControl",
    "dose_volume",
    "equivalent_uniform_dose",
    "iter_summarise_draws",
    "plan_activity",
    "summarise_draws",
    "tumour_control",
]

_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class DoseVolume:
    """Cumulative dose-volume histogram from sorted weights, without bins.

    Attributes
    ----------
    sorted_gy
        (n,) doses from the largest to the smallest, Gy.
    percent
        (n,) share of the weight with at least that dose, %, counted up to it.
    mean_gy
        Mean dose, Gy.
    """

    sorted_gy: FloatArray
    percent: FloatArray
    mean_gy: float

    def dose_at(self, percent: ArrayLike) -> FloatArray:
        """Largest dose, Gy, that at least *percent* of the weight receives: D98, D50, D2.

        Percentages of any shape, without bins; 0 gives the largest dose of all.  Raises
        `InputError` outside [0, 100].
        """
        asked = within_limits("the percentage", percent, 0, 100)
        if np.isnan(asked).any():
            raise InputError("the percentage must be a number, not NaN")
        place = np.searchsorted(self.percent, asked * (1 - _ROUNDING), side="left")
        return np.asarray(self.sorted_gy[np.minimum(place, self.sorted_gy.size - 1)], float)[()]

    def volume_at(self, dose_gy: ArrayLike) -> FloatArray:
        """Share of the weight, %, with at least a dose, Gy, of any shape; `InputError` for NaN."""
        asked = as_numbers("the dose", dose_gy)
        if np.isnan(asked).any():
            raise InputError("the dose must be a number, not NaN")
        count = np.searchsorted(-self.sorted_gy, -asked, side="right")
        return np.asarray(np.concatenate([[0.0], self.percent])[count], float)[()]


def dose_volume(dose_gy: ArrayLike, weight: ArrayLike) -> DoseVolume:
    """Dose-volume histogram of tiles.

    Parameters
    ----------
    dose_gy
        (n,) or any shape: dose, Gy.  A tile whose dose is NaN is not known and does not count.
    weight
        Of the same shape, or one number: volume or neoplastic area of each tile, of any unit, 0 or
        more; a tile whose weight is NaN or 0 does not count.

    Raises
    ------
    InputError
        If a dose or weight is negative or infinite, shapes differ, or no tile counts.
    """
    doses = not_negative("the dose", dose_gy, "Gy")
    weights = _weights(weight, doses.shape, "doses")
    counts = (weights > 0) & np.isfinite(doses)
    if not counts.any():
        raise InputError("no tile has both a dose and a weight above 0")
    doses, weights = doses[counts], weights[counts]
    order = np.argsort(-doses, kind="stable")
    summed = np.cumsum(weights[order])
    mean = float(np.sum(doses * weights) / np.sum(weights))
    return DoseVolume(doses[order], 100 * (summed / summed[-1]), mean)


def _weights(weight: ArrayLike, shape: tuple[int, ...], what: str) -> FloatArray:
    weights = not_negative("the weight", weight)
    try:
        return np.broadcast_to(weights, shape)
    except ValueError:
        raise InputError(f"weights {weights.shape} do not belong to {what} {shape}") from None


def _ln_mean_survival(ln_survival: ArrayLike, weight: ArrayLike) -> FloatArray:
    """Logarithm of the weighted mean survival (...) of tiles (..., n); NaN tiles do not count."""
    ln_s = as_numbers("ln survival", ln_survival)
    if not ln_s.ndim or not ln_s.shape[-1]:
        raise InputError("ln survival must be a list of at least one tile")
    if (ln_s == np.inf).any():
        raise InputError("ln survival must not be infinite above 0")
    weights = np.nan_to_num(_weights(weight, ln_s.shape, "ln survival"))
    weights = np.where(np.isnan(ln_s), 0.0, weights)
    total = weights.sum(axis=-1)
    if (total == 0).any():
        raise InputError("no tile has both a survival and a weight above 0")
    ln_s = np.where(weights > 0, ln_s, -np.inf)
    top = ln_s.max(axis=-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)  # no cell survives anywhere
    with np.errstate(divide="ignore"):
        mean = np.log(np.sum(weights * np.exp(ln_s - top), axis=-1) / total)
    return np.asarray(mean + top[..., 0], float)


def equivalent_uniform_dose(
    ln_survival: ArrayLike,
    weight: ArrayLike,
    *,
    alpha_per_gy: ArrayLike,
    beta_per_gy2: ArrayLike,
    g: ArrayLike = 1.0,
) -> FloatArray:
    """Uniform dose with the same mean survival: ``alpha D + beta g D^2 = -ln mean S``.

    Parameters
    ----------
    ln_survival
        (n,) or (..., n): ln S of each tile, without unit; NaN tiles do not count.
    weight
        (n,) or (..., n), or one number: share of neoplastic area of each tile, of any unit.
    alpha_per_gy, beta_per_gy2
        () or (...): coefficients, 1/Gy (above 0) and 1/Gy^2 (0 or more).
    g
        () or (...): protraction factor of the uniform dose, in [0, 1].

    Returns
    -------
    numpy.ndarray
        () or (...): dose, Gy; infinite where no cell survives, NaN where mean survival exceeds 1.

    Raises
    ------
    InputError
        If alpha is 0 or less, beta is negative, g lies outside [0, 1], or no tile counts.
    """
    effect = -_ln_mean_survival(ln_survival, weight)
    alpha = not_negative("alpha", alpha_per_gy, "/Gy")
    if (alpha == 0).any():
        raise InputError("alpha must be above 0 /Gy: with alpha/beta = 0 there is no uniform dose")
    beta = not_negative("beta", beta_per_gy2, "/Gy²") * within_limits("g", g, 0, 1)
    effect = np.where(np.abs(effect) < _ROUNDING, 0.0, effect)
    with np.errstate(invalid="ignore"):
        root = np.sqrt(alpha**2 + 4 * beta * effect)
        dose = np.where(np.isinf(effect), np.inf, 2 * effect / (alpha + root))
    return np.asarray(np.where(effect < 0, np.nan, dose), float)[()]


@dataclass(frozen=True, slots=True, eq=False)
class TumourControl:
    """Tumour control of () or (...) draws, without unit.

    Attributes
    ----------
    probability
        Probability that no clonogenic cell survives.
    ln_probability
        Its logarithm, which tells small probabilities and those near 1 apart.
    ln_survivors
        Logarithm of the expected number of surviving clonogenic cells.
    """

    probability: FloatArray
    ln_probability: FloatArray
    ln_survivors: FloatArray


def tumour_control(
    ln_survival: ArrayLike, weight: ArrayLike, *, clonogens: ArrayLike
) -> TumourControl:
    """Tumour control probability ``exp(-N sum_i w_i S_i)``, all in logarithms.

    Parameters
    ----------
    ln_survival
        (n,) or (..., n): ln S of each tile, without unit; NaN tiles do not count.
    weight
        (n,) or (..., n), or one number: share of neoplastic area of each tile, of any unit; the
        shares are divided by their sum.
    clonogens
        () or (...): number N of clonogenic cells of the tumour, above 0.

    Raises
    ------
    InputError
        If the number of cells is 0 or less, or no tile counts.

    References
    ----------
    Webb, Nahum 1993, Phys Med Biol 38:653.
    """
    number = not_negative("the number of clonogenic cells", clonogens)
    if (number == 0).any():
        raise InputError("the number of clonogenic cells must be above 0")
    survivors = _ln_mean_survival(ln_survival, weight) + np.log(number)
    with np.errstate(over="ignore"):
        ln_probability = -np.exp(survivors)
    parts = (np.exp(ln_probability), ln_probability, survivors)
    return TumourControl(*(np.asarray(part, float)[()] for part in parts))


@dataclass(frozen=True, slots=True)
class ActivityPlan:
    """Largest activity that organs allow.

    Attributes
    ----------
    activity_mbq
        Smallest ratio of limit to median coefficient, MBq.
    organ
        The organ whose ratio it is.
    confident_mbq
        Largest activity, MBq, that meets all limits together in the asked share of the draws.
    """

    activity_mbq: float
    organ: str
    confident_mbq: float


def plan_activity(
    limits_gy: Mapping[str, float],
    gy_per_mbq: Mapping[str, ArrayLike],
    *,
    confidence: float = 0.95,
) -> ActivityPlan:
    """Largest activity that meets the limits of all organs.

    Parameters
    ----------
    limits_gy
        Largest dose of each organ, Gy, above 0.
    gy_per_mbq
        Dose per activity of each organ, Gy/MBq: a number, or (draws,) with the same draw at the
        same place in all organs.  An organ without a limit limits nothing.
    confidence
        Share of the draws, in (0, 1], that must meet all limits at once.

    Raises
    ------
    InputError
        If a limit has no coefficient, a limit is 0 or less, coefficients are negative, NaN or all
        0, numbers of draws differ, or the confidence lies outside (0, 1].
    """
    if not limits_gy:
        raise InputError("no organ has a limit")
    share = above_zero("the confidence", confidence)
    if share > 1:
        raise InputError(f"the confidence must lie in (0, 1], not at {share:g}")
    allowed, medians = {}, {}
    with np.errstate(divide="ignore"):
        for organ, limit in limits_gy.items():
            if organ not in gy_per_mbq:
                raise InputError(f"the limit of {organ!r} has no coefficient in Gy/MBq")
            most = above_zero(f"the limit of {organ!r}", limit, "Gy")
            name = f"the coefficient of {organ!r}"
            coefficient = not_negative(name, gy_per_mbq[organ], "Gy/MBq")
            if coefficient.ndim > 1 or not coefficient.size or np.isnan(coefficient).any():
                raise InputError(f"{name} must be a number or a list of draws, without NaN")
            allowed[organ] = most / np.atleast_1d(coefficient)
            medians[organ] = float(np.divide(most, np.median(coefficient)))
    counts = {organ: draws.size for organ, draws in allowed.items() if draws.size > 1}
    if len(set(counts.values())) > 1:
        counted = ", ".join(f"{organ} {count}" for organ, count in counts.items())
        raise InputError(f"all organs need the same number of draws, not {counted}")
    together = np.sort(np.min(np.broadcast_arrays(*allowed.values()), axis=0))[::-1]
    organ = min(medians, key=medians.__getitem__)
    needed = math.ceil(share * together.size * (1 - _ROUNDING))
    activity, confident = medians[organ], float(together[needed - 1])
    if math.isinf(activity) or math.isinf(confident):
        raise InputError("no organ receives a dose: the coefficients are 0, so nothing is limited")
    return ActivityPlan(activity, organ, confident)


# --- indices of draws -----------------------------------------------------------------------------
DRAWN_INDICES = ("d98_gy", "d50_gy", "d2_gy", "mean_gy", "eud_gy", "tcp")
"""Indices of each draw: doses, Gy, and tumour control probability."""
_TILE_QUANTITIES = ("dose_gy", "bed_gy", "eqd2_gy", "ln_survival")
_BLOCK = 1 << 20
"""Elements of one block of tiles x draws: 8 MiB for each array of it."""

Evaluate = Callable[[slice, slice], Any]


@dataclass(frozen=True, slots=True, eq=False)
class DrawSummary:
    """What draws of the response of tiles come to.

    Attributes
    ----------
    tiles
        (q, n) quantiles of each tile by quantity, in the unit of its name (Gy or none).
    indices
        (draws,) of each of `DRAWN_INDICES`; joint, so that they may be compared draw by draw.
    histogram_gy, histogram
        (m,) doses, Gy, and (draws, m) share of the weight with at least each, %; m is 0 unless it
        was asked for.
    """

    tiles: Mapping[str, FloatArray]
    indices: Mapping[str, FloatArray]
    histogram_gy: FloatArray
    histogram: FloatArray


def iter_summarise_draws(
    evaluate: Evaluate,
    n_draws: int,
    weight: ArrayLike,
    *,
    alpha_per_gy: ArrayLike,
    beta_per_gy2: ArrayLike,
    clonogens: ArrayLike,
    g: ArrayLike = 1.0,
    percent: Sequence[float] = (5.0, 50.0, 95.0),
    quantities: Sequence[str] = _TILE_QUANTITIES,
    histogram: int = 0,
) -> Generator[float, None, DrawSummary]:
    """Quantiles of every tile and indices of every draw, block by block.

    *evaluate* is called twice for each tile and draw: with all draws of some tiles, for the
    quantiles, and with all tiles of some draws, for the indices.  It must give the same both times.

    Parameters
    ----------
    evaluate
        Takes a slice of draws and one of tiles; returns their response, of shape (d, t): a
        `Response`, or whatever has the *quantities*, ``dose_gy`` and ``ln_survival``.
    n_draws
        Number of draws, at least 1.
    weight
        (n,) share of neoplastic area of each tile, of any unit; NaN or 0 does not count in indices.
    alpha_per_gy, beta_per_gy2
        () or (draws,): coefficients of the equivalent uniform dose, 1/Gy and 1/Gy².
    clonogens, g
        () or (draws,): number of clonogenic cells, and protraction factor of the uniform dose.
    percent
        Quantiles of each tile, %.
    quantities
        Attributes of the response whose quantiles are kept, in the unit of their names.
    histogram
        Number of doses, from 0 to the largest quantile, at which the dose-volume histogram of each
        draw is kept; 0 keeps none.

    Yields
    ------
    float
        Fraction that is done.

    Returns
    -------
    DrawSummary
        NaN for tiles whose response is NaN.

    Raises
    ------
    InputError
        If there is no draw or tile, or as `dose_volume`, `tumour_control` and
        `equivalent_uniform_dose`.
    """
    weights = not_negative("the weight", weight)
    shares = within_limits("the quantiles", percent, 0, 100)
    if n_draws < 1 or weights.ndim != 1 or not weights.size:
        raise InputError("at least one draw and one tile with a weight are needed")
    tiles = yield from _quantiles(evaluate, n_draws, weights.size, shares, quantities)
    per_draw = [
        np.broadcast_to(np.asarray(value, float), n_draws)
        for value in (alpha_per_gy, beta_per_gy2, clonogens, g)
    ]
    largest = np.nanmax(tiles["dose_gy"], initial=0.0) if histogram else 0.0
    doses = np.linspace(0.0, largest, histogram)
    indices, volume = yield from _indices(evaluate, weights, per_draw, doses)
    return DrawSummary(tiles, indices, doses, volume)


summarise_draws = blocking(iter_summarise_draws)


def _quantiles(
    evaluate: Evaluate, n_draws: int, n: int, percent: FloatArray, quantities: Sequence[str]
) -> Generator[float, None, dict[str, FloatArray]]:
    """(q, n) quantiles of each tile; blocks of tiles with all their draws."""
    found = {name: np.full((percent.size, n), np.nan) for name in quantities}
    size = max(1, _BLOCK // n_draws)
    for start in range(0, n, size):
        yield 0.5 * start / n
        checkpoint()
        here = slice(start, min(start + size, n))
        response = evaluate(slice(0, n_draws), here)
        for name, quantiles in found.items():
            quantiles[:, here] = _sorted_quantiles(getattr(response, name), percent)
    return found


def _sorted_quantiles(values: FloatArray, percent: FloatArray) -> FloatArray:
    """(q, t) quantiles of (d, t) values as `numpy.percentile`, which takes four times as long."""
    ordered = np.sort(np.ascontiguousarray(values.T), axis=1)
    at = percent / 100 * (len(values) - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, len(values) - 1)
    found = ordered[:, low] + (at - low) * (ordered[:, high] - ordered[:, low])
    return np.where(np.isnan(ordered[:, -1]), np.nan, found.T)


def _indices(
    evaluate: Evaluate, weights: FloatArray, per_draw: Sequence[FloatArray], doses: FloatArray
) -> Generator[float, None, tuple[dict[str, FloatArray], FloatArray]]:
    """(draws,) of each index, and (draws, m) volumes, %, at doses (m,), Gy; blocks of draws."""
    n_draws, size = per_draw[0].size, max(1, _BLOCK // weights.size)
    rows: list[tuple[float, ...]] = []
    volume = np.zeros((n_draws, doses.size))
    for start in range(0, n_draws, size):
        yield 0.5 + 0.5 * start / n_draws
        checkpoint()
        here = slice(start, min(start + size, n_draws))
        response = evaluate(here, slice(0, weights.size))
        alpha, beta, clonogens, g = (value[here] for value in per_draw)
        control = tumour_control(response.ln_survival, weights, clonogens=clonogens)
        mean = control.ln_survivors - np.log(clonogens)
        uniform = equivalent_uniform_dose(
            mean[:, None], 1.0, alpha_per_gy=alpha, beta_per_gy2=beta, g=g
        )
        for dose, eud, tcp in zip(response.dose_gy, uniform, control.probability, strict=True):
            histogram = dose_volume(dose, weights)
            volume[len(rows)] = histogram.volume_at(doses)
            rows.append((*histogram.dose_at([98, 50, 2]), histogram.mean_gy, eud, tcp))
    return dict(zip(DRAWN_INDICES, np.array(rows, float).T, strict=True)), volume
