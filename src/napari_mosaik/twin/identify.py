"""Which parameters some scans determine, and which stay what the prior says."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import FloatArray
from napari_mosaik.core.progress import blocking
from napari_mosaik.twin.chain import Chain
from napari_mosaik.twin.data import Observation, Prior, checked_observations
from napari_mosaik.twin.posterior import (
    check_one_region,
    damped_fit,
    linear_update,
    log_linear_rows,
    posterior_mode,
)

__all__ = [
    "IDENTIFIED",
    "PARTLY",
    "PRIOR_ONLY",
    "IdentifiabilityRow",
    "ScanIdentifiability",
    "iter_scan_identifiability",
    "scan_identifiability",
]

IDENTIFIED, PARTLY, PRIOR_ONLY = "identified", "partly", "prior only"
"""Words of a parameter: contraction above 0.9, from 0.5 on, and below or open."""
DELTA_CHI2 = 3.84
"""Rise of the sum of squares at the ends of a profile (95 %)."""
_CORRELATED = 0.95
_REACH = 10.0
_GRID_POINTS = 31
_SMALL_FALL = 1e-3


@dataclass(frozen=True, slots=True)
class IdentifiabilityRow:
    """What the scans say about one parameter.

    Attributes
    ----------
    name
        The parameter.
    prior_sd
        SD of its prior; of its logarithm in the chain.
    cramer_rao_sd
        SD from the scans alone, without the prior; inf where they bound nothing.
    contraction
        1 - variance after / variance before; 0: nothing was learnt.
    profile_low, profile_high
        Ends of the profile likelihood (chi2 + 3.84); infinite where it is open.
    word
        'identified', 'partly' or 'prior only'.
    """

    name: str
    prior_sd: float
    cramer_rao_sd: float
    contraction: float
    profile_low: float
    profile_high: float
    word: str


@dataclass(frozen=True, slots=True, eq=False)
class ScanIdentifiability:
    """Rows in the order of the free parameters.

    Attributes
    ----------
    rows
        One per free parameter.
    singular_values
        (p,) of the derivatives of ln y to the parameters, descending, with 0 for each direction
        that no scan sees.
    correlated
        Pairs of names whose posterior correlation is beyond 0.95.
    """

    rows: tuple[IdentifiabilityRow, ...]
    singular_values: FloatArray
    correlated: tuple[tuple[str, str], ...]


def iter_scan_identifiability(
    model: str,
    prior: Prior,
    observations: Iterable[Observation],
    *,
    free: Sequence[str] | None = None,
) -> Generator[float, None, ScanIdentifiability]:
    """Linearised at the prior median: information of the scans beside that of the prior.

    The ends of the profile likelihood are exact for the log-linear model; for the chain the other
    free parameters are fitted at each value, and an end beyond a factor of e^10 or 6 prior SD is
    open, or where a fast half-life or rate would change places with the slow one.

    Parameters
    ----------
    model
        'log_linear' or 'chain'.
    prior
        Prior of that model.
    observations
        The scans; none is allowed.
    free
        Free parameters; all with a prior SD above 0 if None.

    Yields
    ------
    float
        Fraction that is done.

    Raises
    ------
    InputError
        If the prior is of another model, a free parameter has the prior SD 0, or observations do
        not fit together.
    """
    rows = checked_observations(observations)
    prior = prior.of_model(model)
    if free is None:
        free = [name for name, sd in zip(prior.names, prior.sd, strict=True) if sd > 0]
    places = prior.places(free)
    names = tuple(prior.names[place] for place in places)
    mean, covariance = prior.mean[places], prior.covariance[np.ix_(places, places)]
    chain = Chain(prior, names) if model == "chain" else None
    slopes, middle = np.zeros((0, len(names))), np.zeros(0)
    if rows and chain is None:
        check_one_region(rows)
        whole = log_linear_rows(prior.names, [row.time_h for row in rows])
        slopes, middle = whole[:, places], whole @ prior.mean
    elif rows and chain is not None:
        slopes = chain.sensitivity(mean, rows)
    noise = np.array([row.ln_sd for row in rows])
    after = covariance
    if rows:
        after = linear_update(mean, covariance, slopes, np.zeros(len(rows)), noise)[1]
    prior_sd = np.sqrt(np.diag(covariance))
    alone = _cramer_rao(slopes / noise[:, None], prior_sd)
    if chain is not None:
        ends = yield from _profile(chain, rows, alone)
    else:
        ends = _line_profile(
            slopes, np.array([row.ln_mean for row in rows]) - middle, noise, mean, alone
        )
    moved = slopes.any(axis=0) if _is_diagonal(covariance) else np.ones(len(names), bool)
    ratio = np.diag(after) / np.diag(covariance)
    contraction = np.where(moved, np.clip(1 - ratio, 0, 1), 0.0)
    columns = zip(names, prior_sd, alone, contraction, ends, strict=True)
    found = [
        IdentifiabilityRow(name, float(sd), float(bound), float(c), low, high, _word(c, low, high))
        for name, sd, bound, c, (low, high) in columns
    ]
    return ScanIdentifiability(tuple(found), _singular_values(slopes), _pairs(names, after))


scan_identifiability = blocking(iter_scan_identifiability)


def _is_diagonal(matrix: FloatArray) -> bool:
    return bool((matrix == np.diag(np.diag(matrix))).all())


def _word(contraction: float, low: float, high: float) -> str:
    if contraction < 0.5 or math.isinf(low) or math.isinf(high):
        return PRIOR_ONLY
    return IDENTIFIED if contraction > 0.9 else PARTLY


def _singular_values(slopes: FloatArray) -> FloatArray:
    found = np.linalg.svd(slopes, compute_uv=False) if len(slopes) else np.zeros(0)
    return np.concatenate([found, np.zeros(slopes.shape[1] - found.size)])


def _cramer_rao(scaled: FloatArray, prior_sd: FloatArray) -> FloatArray:
    """(p,) SD from the scans alone; inf where a direction that no scan sees holds a parameter."""
    if not len(scaled):
        return np.full(prior_sd.size, np.inf)
    _, values, rows = np.linalg.svd(scaled * prior_sd, full_matrices=True)
    values = np.concatenate([values, np.zeros(prior_sd.size - values.size)])
    seen = values > values.max(initial=0.0) * 1e-10
    if not seen.any():
        return np.full(prior_sd.size, np.inf)
    unseen = (rows[~seen] ** 2).sum(axis=0) > 1e-12
    variance = (rows[seen] ** 2 / values[seen, None] ** 2).sum(axis=0)
    return np.where(unseen, np.inf, np.sqrt(variance) * prior_sd)


def _line_profile(
    slopes: FloatArray, gaps: FloatArray, noise: FloatArray, mean: FloatArray, alone: FloatArray
) -> list[tuple[float, float]]:
    """Ends of the profile of a linear model: the estimate, and sqrt(3.84) of its SD.

    The gaps (n,) are those of ln y to the line of the prior mean, fixed parameters included.
    """
    if not gaps.size:
        return [(-math.inf, math.inf)] * alone.size
    fitted = mean + np.linalg.lstsq(slopes / noise[:, None], gaps / noise, rcond=None)[0]
    reach = math.sqrt(DELTA_CHI2) * alone
    return [
        (float(middle - width), float(middle + width))
        if math.isfinite(width)
        else (-math.inf, math.inf)
        for middle, width in zip(fitted, reach, strict=True)
    ]


def _profile(
    chain: Chain, rows: Sequence[Observation], alone: FloatArray
) -> Generator[float, None, list[tuple[float, float]]]:
    """Ends of the profile likelihood of each free parameter of the chain."""
    p = len(chain.free)
    if not rows:
        return [(-math.inf, math.inf)] * p
    likely = posterior_mode(chain, rows)[0]
    low, high = _limits(chain, likely)
    seen = np.flatnonzero(np.isfinite(alone))
    places, sides = np.repeat(seen, 2), np.tile([-1, 1], seen.size)
    fit = damped_fit(chain, rows, likely[None], limits=(low, high))
    limits = np.where(sides < 0, low[places], high[places])
    edges = yield from _edges(chain, rows, fit, (places, limits))
    ends = np.tile([-math.inf, math.inf], (p, 1))
    ends[seen] = np.where(np.isnan(edges), sides * math.inf, edges).reshape(-1, 2)
    return [(float(low), float(high)) for low, high in ends]


def _limits(chain: Chain, likely: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Where parameters are refitted: far from the prior, but fast stays fast and slow slow.

    Two exponentials, or two rates of the chain, that change places are one fit and not two.
    """
    reach = np.maximum(_REACH, 6 * np.sqrt(np.diag(chain.covariance)))
    low, high = chain.mean - reach, chain.mean + reach
    medians = dict(zip(chain.prior.names, chain.prior.mean, strict=True))
    for pair in (("fast_half_life_h", "slow_half_life_h"), ("k03_per_h", "k32_per_h")):
        smaller, larger = sorted(pair, key=lambda name: medians[name])
        middle = (medians[smaller] + medians[larger]) / 2
        if smaller in chain.free:
            high[chain.free.index(smaller)] = middle
        if larger in chain.free:
            low[chain.free.index(larger)] = middle
    return np.minimum(low, likely), np.maximum(high, likely)


def _edges(
    chain: Chain,
    rows: Sequence[Observation],
    fit: tuple[FloatArray, FloatArray],
    ends: tuple[NDArray[np.intp], FloatArray],
) -> Generator[float, None, FloatArray]:
    """(e,) values at which the profiles have risen by 3.84 towards their limits, NaN if nowhere.

    Each step begins at the fit of the one before (Raue et al. 2009); then two finer series.
    """
    places, limits = ends
    points, cost = np.tile(fit[0], (places.size, 1)), fit[1]
    box = _limits(chain, fit[0][0])
    one = np.arange(places.size)
    held = np.zeros(points.shape, bool)
    held[one, places] = True
    inner, outer, low = points[one, places], limits.copy(), np.zeros(places.size)
    edges = np.full(places.size, np.nan)
    series = (np.linspace(0, 1, _GRID_POINTS) ** 2, np.linspace(0, 1, 6), np.linspace(0, 1, 6))
    done, whole = 0, sum(marks.size for marks in series)
    for marks in series:
        begin, width = inner.copy(), outer - inner
        open_ = np.ones(places.size, bool)
        for number, mark in enumerate(marks[1:]):
            yield (done + number) / whole
            start = points.copy()
            start[one, places] = begin + mark * width
            moved, sums = damped_fit(
                chain, rows, start, held=held, limits=box, small_fall=_SMALL_FALL
            )
            rise = sums - cost
            found = open_ & (rise > DELTA_CHI2)
            outer = np.where(found, start[one, places], outer)
            share = (DELTA_CHI2 - low) / np.maximum(rise - low, 1e-12)
            edges = np.where(found, inner + np.clip(share, 0, 1) * (outer - inner), edges)
            open_ &= ~found
            points = np.where(open_[:, None], moved, points)
            inner, low = np.where(open_, start[one, places], inner), np.where(open_, rise, low)
            if not open_.any():
                break
        done += marks.size
    return edges


def _pairs(names: Sequence[str], covariance: FloatArray) -> tuple[tuple[str, str], ...]:
    sd = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(sd, sd)
    return tuple(
        (names[i], names[j])
        for i in range(len(names))
        for j in range(i + 1, len(names))
        if abs(correlation[i, j]) > _CORRELATED
    )
