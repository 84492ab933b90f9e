"""Posterior of the parameters: exact for the log-linear model, three ways for the chain."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.core.progress import blocking, checkpoint, run_to_end
from napari_mosaik.twin.chain import CHAIN_REGIONS, Chain
from napari_mosaik.twin.data import LOG_LINEAR, Observation, Prior, checked_observations
from napari_mosaik.twin.sampling import (
    drawn_by_weight,
    ensemble_draws,
    gaussian_draws,
    importance_points,
    ln_bridge,
)

__all__ = [
    "METHODS",
    "Posterior",
    "chain_posterior",
    "check_one_region",
    "damped_fit",
    "iter_chain_posterior",
    "linear_update",
    "log_linear_posterior",
    "log_linear_rows",
    "posterior_mode",
]

Method = Literal["grid", "laplace", "ensemble", "exact"]
METHODS = ("grid", "laplace", "ensemble")
"""Ways to the posterior of the chain."""
GRID = 801
"""Points of the grid along each parameter."""
GRID_SD = 6.0
"""Reach of the grid, in prior SD."""
MAX_PARETO_K = 0.7
_ROUNDS = 4
"""Proposals: that of the curvature, then those with the moments of the weighted draws before."""
_LOST_BELOW = 40.0
"""ln of a density, below its maximum, at which grid points do not count."""
_COARSE = 161
_IDLE = 6
"""A fit ends when the sums of squares have hardly fallen so many times in a row."""
_ROWS = 32_768
"""Elements of one block of the grid: what fits into a cache."""
_LN_2PI = math.log(2 * math.pi)


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """What the parameters are after some observations.

    Attributes
    ----------
    names
        (p,) names of the free parameters.
    mean, covariance, sd
        (p,), (p, p), (p,): of the parameters of the log-linear model, of the logarithms of those
        of the chain.
    log_evidence
        ln of the density of ln y of all observations; 0 without one.
    draws
        (n, p) draws.
    model
        'log_linear' or 'chain'.
    prior
        The prior before all observations.
    observations
        All of them, by time.
    method
        'exact', 'grid', 'laplace' or 'ensemble': what was used in the end.
    seed
        Seed of the draws.
    support, weights
        (m, p) points and their (m,) weights that the moments were taken from.
    """

    names: tuple[str, ...]
    mean: FloatArray
    covariance: FloatArray
    sd: FloatArray
    log_evidence: float
    draws: FloatArray
    model: str
    prior: Prior
    observations: tuple[Observation, ...]
    method: Method
    seed: int
    support: FloatArray
    weights: FloatArray

    @property
    def notes(self) -> tuple[str, ...]:
        """What these observations cannot tell apart, one sentence each."""
        if not self.observations:
            return ()
        regions = {row.region for row in self.observations}
        notes = []
        if {"transfer_per_h", "plasma_start"} <= set(self.names) and "blood" not in regions:
            notes.append(
                "Without blood, transfer_per_h and plasma_start enter as a product only: neither "
                "is determined alone."
            )
        elif "transfer_per_h" in self.names and "blood" not in regions:
            notes.append(
                "Without blood, transfer_per_h is determined as a product with the plasma curve "
                "only, which is that of the prior."
            )
        if len({row.time_h for row in self.observations}) == 1:
            notes.append("One scan only: it determines no rate.")
        return tuple(notes)


def linear_update(
    mean: FloatArray, covariance: FloatArray, rows: FloatArray, values: FloatArray, sd: FloatArray
) -> tuple[FloatArray, FloatArray, float]:
    """Gaussian prior times linear observations, exactly.

    Parameters
    ----------
    mean, covariance
        (p,) and (p, p) of the prior; the covariance has full rank.
    rows
        (n, p) derivatives of the observations to the parameters.
    values, sd
        (n,) observations and their errors, dimensionless (ln y).

    Returns
    -------
    tuple
        Mean (p,) and covariance (p, p) of the posterior, ln of the density of the values.
    """
    p, n = mean.size, values.size
    root = np.linalg.cholesky(covariance)
    scaled = (rows @ root) / sd[:, None]
    gap = (values - rows @ mean) / sd
    stacked = np.vstack([np.eye(p), scaled])
    q, r = np.linalg.qr(stacked)
    projected = q[p:].T @ gap
    inverse = np.linalg.inv(r)
    spread = root @ inverse
    rest = gap @ gap - projected @ projected
    ln_volume = np.log(np.abs(np.diag(r))).sum() + np.log(sd).sum()
    ln_density = -0.5 * (n * _LN_2PI + rest) - ln_volume
    return mean + spread @ projected, spread @ spread.T, float(ln_density)


def log_linear_posterior(observations: Iterable[Observation], prior: Prior) -> Posterior:
    """Posterior of ``ln y = intercept - slope_per_h * t`` (t in h): conjugate, so exact.

    Parameters
    ----------
    observations
        Of one region, decay-corrected to injection; none gives the prior.
    prior
        From `Prior.log_linear`, or a Gaussian of these two names.

    Raises
    ------
    InputError
        If the observations are of two regions or units, two of one time, or a prior SD is 0.
    """
    rows = checked_observations(observations)
    prior = prior.of_model("log_linear")
    prior.places(prior.names)
    check_one_region(rows)
    mean, covariance, evidence = prior.mean.copy(), prior.covariance.copy(), 0.0
    if rows:
        slopes = log_linear_rows(prior.names, [row.time_h for row in rows])
        values, sd = _values(rows)
        mean, covariance, evidence = linear_update(mean, covariance, slopes, values, sd)
    draws = gaussian_draws(mean, covariance, 0)
    return _posterior(
        (mean, covariance, evidence),
        (prior.names, "log_linear", prior, rows, "exact", 0),
        draws,
        (draws, np.full(len(draws), 1 / len(draws))),
    )


def check_one_region(rows: Sequence[Observation]) -> None:
    """Raise `InputError` if the observations are of two regions: a line describes one."""
    regions = sorted({row.region for row in rows})
    if len(regions) > 1:
        raise InputError(
            f"the log-linear model describes one region, not {' and '.join(regions)}; use the "
            "chain, or give the observations of one"
        )


def log_linear_rows(names: Sequence[str], time_h: ArrayLike) -> FloatArray:
    """(t, 2) derivatives of ln y at the times (t,), h, in the order of the names."""
    times = np.atleast_1d(np.asarray(time_h, float))
    columns = {LOG_LINEAR[0]: np.ones_like(times), LOG_LINEAR[1]: -times}
    return np.stack([columns[name] for name in names], axis=1)


def iter_chain_posterior(
    observations: Iterable[Observation],
    prior: Prior,
    *,
    free: Sequence[str],
    method: Method = "grid",
    seed: int = 0,
) -> Generator[float, None, Posterior]:
    """Posterior of the delivery-limited chain over the logarithms of its free parameters.

    Parameters
    ----------
    observations
        Of tumour and blood, decay-corrected to injection; none gives the prior.
    prior
        From `Prior.chain`.  Parameters that are not free stay at their medians.
    free
        Names of the free parameters; the posterior has their order.
    method
        'grid' (at most two free parameters): 801 points along each, within 6 prior SD.  'laplace':
        20,000 draws about the maximum, weighted; the ensemble where their Pareto k is 0.7 or more.
        'ensemble': 32 walkers until the split R-hat is below 1.01 and the effective size above 400.
    seed
        Seed of all draws; equal seeds give equal bytes.

    Yields
    ------
    float
        Fraction that is done.

    Raises
    ------
    InputError
        If a free parameter is unknown, named twice or has the prior SD 0, a grid has more than two,
        an observation is of another region, two are of one region and time or in two units, or the
        observations lie beyond 6 SD of the prior.
    SolverError
        If the ensemble does not converge.
    """
    rows = checked_observations(observations)
    for row in rows:
        if row.region not in CHAIN_REGIONS:
            raise InputError(f"the chain describes tumour and blood, not the region {row.region!r}")
    chain = Chain(prior, free)
    if method not in METHODS:
        raise InputError(f"the method {method!r} is none of {', '.join(METHODS)}")
    if method == "grid" and len(chain.free) > 2:
        raise InputError(
            f"a grid takes at most two free parameters, not {len(chain.free)}; use the method "
            "'laplace' or 'ensemble'"
        )
    about = (chain.free, "chain", prior, rows, method, seed)
    if not rows:
        draws = gaussian_draws(chain.mean, chain.covariance, seed)
        weights = np.full(len(draws), 1 / len(draws))
        return _posterior((chain.mean, chain.covariance, 0.0), about, draws, (draws, weights))
    if method == "grid":
        points, weights, evidence = yield from _grid(chain, rows)
        draws = drawn_by_weight(points, weights, seed)
    else:
        points, weights, evidence, used, draws = yield from _sampled(chain, rows, method, seed)
        about = (chain.free, "chain", prior, rows, used, seed)
    mean = weights @ points
    centred = points - mean
    covariance = (weights[:, None] * centred).T @ centred
    return _posterior((mean, covariance, evidence), about, draws, (points, weights))


chain_posterior = blocking(iter_chain_posterior)


def _posterior(
    moments: tuple[FloatArray, FloatArray, float],
    about: tuple[tuple[str, ...], str, Prior, tuple[Observation, ...], Method, int],
    draws: FloatArray,
    support: tuple[FloatArray, FloatArray],
) -> Posterior:
    names, model, prior, rows, method, seed = about
    mean, covariance, evidence = moments
    sd = np.sqrt(np.diag(covariance))
    for array in (mean, covariance, sd, draws, *support):
        array.setflags(write=False)
    return Posterior(
        names, mean, covariance, sd, evidence, draws, model, prior, rows, method, seed, *support
    )


def _values(rows: Sequence[Observation]) -> tuple[FloatArray, FloatArray]:
    """(n,) ln y of the observations and their SD."""
    return np.array([row.ln_mean for row in rows]), np.array([row.ln_sd for row in rows])


def _ln_likelihood(gaps: NDArray[np.float64], sd: float) -> NDArray[np.float64]:
    """Log density of gaps of ln y of any shape."""
    return np.asarray(-0.5 * (gaps / sd) ** 2 - math.log(sd) - 0.5 * _LN_2PI)


def _grid(
    chain: Chain, rows: Sequence[Observation]
) -> Generator[float, None, tuple[FloatArray, FloatArray, float]]:
    """Points, weights and ln evidence on a grid about where the posterior is."""
    prior_sd = np.sqrt(np.diag(chain.covariance))
    low, high = chain.mean - GRID_SD * prior_sd, chain.mean + GRID_SD * prior_sd
    fitted, spread = posterior_mode(chain, rows)
    if ((fitted <= low) | (fitted >= high)).any():
        place = int(np.argmax(np.abs(fitted - chain.mean) / prior_sd))
        raise InputError(
            f"the observations lie beyond {GRID_SD:g} prior SD of {chain.free[place]}; check "
            "their unit and times, or widen the prior"
        )
    low, high = _narrowed(chain, rows, low, high, np.sqrt(np.diag(spread)))
    axes = [np.linspace(a, b, GRID) for a, b in zip(low, high, strict=True)]
    density = yield from _on_grid(chain, rows, axes)
    top = density.max()
    share = np.exp(density - top)
    steps = math.prod(float(axis[1] - axis[0]) for axis in axes)
    evidence = float(top + math.log(share.sum() * steps))
    kept = density > top - _LOST_BELOW
    points = np.stack([grid[kept] for grid in np.meshgrid(*axes, indexing="ij")], axis=1)
    weights = share[kept] / share[kept].sum()
    return points, weights, evidence


def _narrowed(
    chain: Chain, rows: Sequence[Observation], low: FloatArray, high: FloatArray, sd: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Limits of the grid; narrower ones where its step were wide beside the posterior SD."""
    for _ in range(4):
        if ((high - low) / (GRID - 1) <= sd / 3).all():
            break
        axes = [np.linspace(a, b, _COARSE) for a, b in zip(low, high, strict=True)]
        density = run_to_end(_on_grid(chain, rows, axes))
        kept = np.argwhere(density > density.max() - _LOST_BELOW)
        first, last = kept.min(axis=0) - 1, kept.max(axis=0) + 1
        for place, axis in enumerate(axes):
            low[place] = axis[max(first[place], 0)]
            high[place] = axis[min(last[place], _COARSE - 1)]
    return low, high


def _on_grid(
    chain: Chain, rows: Sequence[Observation], axes: Sequence[FloatArray]
) -> Generator[float, None, NDArray[np.float64]]:
    """Log of prior times likelihood on the grid of one or two axes."""
    out = np.empty([axis.size for axis in axes])
    step = max(1, _ROWS // (out.size // len(out)))
    for start in range(0, len(out), step):
        yield start / len(out)
        checkpoint()
        here = slice(start, start + step)
        parts = [axes[0][here].reshape(-1, *(1,) * (len(axes) - 1)), *axes[1:]]
        shape = np.broadcast_shapes(*(part.shape for part in parts))
        points = np.stack([np.broadcast_to(part, shape) for part in parts], axis=-1)
        total = _ln_prior(chain, points)
        for row in rows:
            level = chain.ln_of_axes(parts, row.time_h, row.region)
            total = total + _ln_likelihood(level - row.ln_mean, row.ln_sd)
        out[here] = total
    return out


def _ln_prior(chain: Chain, points: FloatArray) -> FloatArray:
    root = np.linalg.cholesky(chain.covariance)
    scaled = (points - chain.mean) @ np.linalg.inv(root).T
    norm = np.log(np.diag(root)).sum() + chain.mean.size / 2 * _LN_2PI
    return np.asarray(-0.5 * (scaled**2).sum(axis=-1) - norm, float)


def posterior_mode(chain: Chain, rows: Sequence[Observation]) -> tuple[FloatArray, FloatArray]:
    """Maximum (p,) of the posterior, dimensionless, and the inverse (p, p) of its curvature."""
    whiten = np.linalg.inv(np.linalg.cholesky(chain.covariance))
    fitted = damped_fit(chain, rows, chain.mean[None], prior=(chain.mean, whiten))[0][0]
    scaled = chain.sensitivity(fitted, rows) / _values(rows)[1][:, None]
    return fitted, np.linalg.inv(scaled.T @ scaled + whiten.T @ whiten)


def damped_fit(
    chain: Chain,
    rows: Sequence[Observation],
    start: FloatArray,
    *,
    prior: tuple[FloatArray, FloatArray] | None = None,
    held: NDArray[np.bool_] | None = None,
    limits: tuple[FloatArray, FloatArray] | None = None,
    small_fall: float = 1e-7,
) -> tuple[FloatArray, FloatArray]:
    """Least squares of many starts at once (Levenberg, Marquardt).

    Parameters
    ----------
    chain, rows
        Model and observations.
    start
        (m, p) ln of the free parameters to begin at.
    prior
        Mean (p,) and whitening matrix (p, p) of a prior that counts as well.
    held
        (m, p) whether a parameter stays where it began.
    limits
        (p,) lowest and highest values.
    small_fall
        A sum of squares that falls by less has hardly fallen; after six such steps a fit ends.

    Returns
    -------
    tuple
        (m, p) points and (m,) sums of squares in units of the errors.
    """
    values, sd = _values(rows)
    p = start.shape[1]

    def gaps(points: FloatArray) -> FloatArray:
        parts = [(chain.ln_means(points, rows) - values) / sd]
        if prior is not None:
            parts.append((points - prior[0]) @ prior[1].T)
        return np.concatenate(parts, axis=-1)

    points = start.copy()
    residual = gaps(points)
    cost = (residual**2).sum(axis=1)
    damping, idle = np.full(len(points), 1e-3), 0
    for _ in range(100):
        checkpoint()
        slopes = chain.sensitivity(points, rows) / sd[:, None]
        if prior is not None:
            slopes = np.concatenate(
                [slopes, np.broadcast_to(prior[1], (len(points), p, p))], axis=1
            )
        if held is not None:
            slopes = np.where(held[:, None, :], 0.0, slopes)
        normal = np.einsum("mni,mnj->mij", slopes, slopes)
        downhill = np.einsum("mni,mn->mi", slopes, residual)
        normal = normal + (damping[:, None] + 1e-12)[:, :, None] * np.eye(p)
        trial = points - np.linalg.solve(normal, downhill[..., None])[..., 0]
        if limits is not None:
            trial = np.clip(trial, *limits)
        trial_residual = gaps(trial)
        trial_cost = (trial_residual**2).sum(axis=1)
        better = trial_cost <= cost
        small = np.abs(trial - points).max(initial=0.0) < 1e-10
        idle = 0 if (cost - trial_cost).max(initial=0.0) > small_fall else idle + 1
        points = np.where(better[:, None], trial, points)
        residual = np.where(better[:, None], trial_residual, residual)
        cost = np.where(better, trial_cost, cost)
        damping = np.clip(np.where(better, damping / 5, damping * 4), 1e-9, 1e9)
        if small or idle >= _IDLE:
            break
    return points, cost


def _sampled(
    chain: Chain, rows: Sequence[Observation], method: Method, seed: int
) -> Generator[float, None, tuple[FloatArray, FloatArray, float, Method, FloatArray]]:
    """Points, weights, ln evidence, the method that was used and the draws."""
    values, sd = _values(rows)

    def ln_density(points: FloatArray) -> FloatArray:
        gaps = (chain.ln_means(points, rows) - values) / sd
        norm = np.log(sd).sum() + sd.size / 2 * _LN_2PI
        return np.asarray(_ln_prior(chain, points) - 0.5 * (gaps**2).sum(axis=-1) - norm, float)

    centre, spread = posterior_mode(chain, rows)
    if method == "laplace":
        proposal = centre, spread
        for number in range(_ROUNDS):
            yield (1 + number) / (2 + _ROUNDS)
            checkpoint()
            points, weights, evidence, k = importance_points(ln_density, *proposal, seed)
            if k < MAX_PARETO_K:
                draws = drawn_by_weight(points, weights, seed)
                return points, weights, evidence, "laplace", draws
            proposal = weights @ points, np.cov(points, rowvar=False, aweights=weights, ddof=0)
            proposal = proposal[0], np.atleast_2d(proposal[1]) + 0.01 * spread
    draws = ensemble_draws(ln_density, centre, spread, seed)
    evidence = ln_bridge(ln_density, draws, seed)
    return draws, np.full(len(draws), 1 / len(draws)), evidence, "ensemble", draws
