"""Weighted points and draws: importance weights, the ensemble sampler and how good they are."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray
from napari_mosaik.core.errors import SolverError
from napari_mosaik.core.progress import checkpoint

__all__ = [
    "N_DRAWS",
    "drawn_by_weight",
    "effective_size",
    "ensemble_draws",
    "gaussian_draws",
    "importance_points",
    "ln_bridge",
    "pareto_k",
    "split_rhat",
]

N_DRAWS = 4096
"""Draws that a posterior keeps; a power of 2."""
N_IMPORTANCE = 20_000
N_WALKERS = 32
BURN_IN = 1000
BLOCK = 2000
MAX_STEPS = 60_000
RHAT = 1.01
MIN_EFFECTIVE = 400.0
_TAIL_FREEDOM = 6.0
"""Degrees of freedom of the importance proposal: heavier tails than the Gaussian approximation."""

LnDensity = Callable[[FloatArray], FloatArray]


def gaussian_draws(mean: FloatArray, covariance: FloatArray, seed: int) -> FloatArray:
    """(n, p) draws, dimensionless, of a Gaussian: scrambled Sobol points in shuffled order."""
    from scipy.special import ndtri
    from scipy.stats import qmc

    rng = np.random.default_rng(seed)
    points = qmc.Sobol(mean.size, rng=rng).random(N_DRAWS)
    normal = ndtri(np.clip(points, 1e-12, 1 - 1e-12))
    return np.asarray(mean + rng.permutation(normal) @ np.linalg.cholesky(covariance).T, float)


def drawn_by_weight(points: FloatArray, weights: FloatArray, seed: int) -> FloatArray:
    """(n, p) draws of (m, p) points by their dimensionless (m,) weights, in shuffled order."""
    rng = np.random.default_rng(seed)
    marks = (np.arange(N_DRAWS) + rng.random()) / N_DRAWS
    share = np.cumsum(weights)
    places = np.minimum(np.searchsorted(share / share[-1], marks), len(points) - 1)
    return np.asarray(points[rng.permutation(places)], float)


def importance_points(
    ln_density: LnDensity, centre: FloatArray, covariance: FloatArray, seed: int
) -> tuple[FloatArray, FloatArray, float, float]:
    """Draws about a Gaussian approximation, weighted by the density.

    Returns
    -------
    tuple
        (n, p) points and (n,) weights that add up to 1, dimensionless; ln of the integral of the
        density; Pareto k of the weights.
    """
    rng = np.random.default_rng(seed)
    p = centre.size
    root = np.linalg.cholesky(covariance)
    normal = rng.standard_normal((N_IMPORTANCE, p))
    stretch = np.sqrt(_TAIL_FREEDOM / rng.chisquare(_TAIL_FREEDOM, N_IMPORTANCE))
    scaled = normal * stretch[:, None]
    points = centre + scaled @ root.T
    ln_proposal = (
        math.lgamma((_TAIL_FREEDOM + p) / 2)
        - math.lgamma(_TAIL_FREEDOM / 2)
        - p / 2 * math.log(_TAIL_FREEDOM * math.pi)
        - np.log(np.diag(root)).sum()
        - (_TAIL_FREEDOM + p) / 2 * np.log1p((scaled**2).sum(axis=1) / _TAIL_FREEDOM)
    )
    ln_weights = ln_density(points) - ln_proposal
    top = ln_weights.max()
    weights = np.exp(ln_weights - top)
    ln_integral = float(top + math.log(weights.mean()))
    return points, weights / weights.sum(), ln_integral, pareto_k(weights)


def pareto_k(weights: ArrayLike) -> float:
    """Shape of the generalised Pareto distribution of the largest (n,) weights, dimensionless.

    Below 0.7 importance sampling can be relied on (Vehtari et al. 2024, JMLR 25:72); the estimate
    is that of Zhang and Stephens 2009, Technometrics 51:316, with their weak prior.
    """
    ordered = np.sort(np.asarray(weights, float))
    n_tail = int(min(0.2 * ordered.size, 3 * math.sqrt(ordered.size)))
    cut = ordered[-n_tail - 1]
    tail = ordered[-n_tail:] - cut
    if n_tail < 5 or not tail[-1] > 0:
        return 0.0
    tail = np.maximum(tail, tail[-1] * 1e-300)
    quartile = max(tail[int(n_tail / 4 + 0.5) - 1], tail[-1] * 1e-12)
    n_grid = 30 + int(math.sqrt(n_tail))
    steps = 1 - np.sqrt(n_grid / (np.arange(1, n_grid + 1) - 0.5))
    theta = steps / (3 * quartile) + 1 / tail[-1]
    shapes = np.log1p(-theta[:, None] * tail).mean(axis=1)
    level = n_tail * (np.log(-theta / shapes) - shapes - 1)
    share = np.exp(level - level.max())
    best = float((theta * share).sum() / share.sum())
    shape = float(np.log1p(-best * tail).mean())
    return (shape * n_tail + 0.5 * 10) / (n_tail + 10)


def split_rhat(chains: ArrayLike) -> float:
    """Largest rank-normalised split R-hat of draws (n, m, p) of m chains; dimensionless.

    Vehtari et al. 2021, Bayesian Analysis 16:667.
    """
    return float(max(_rhat(normal) for normal in _normal_halves(chains)))


def effective_size(chains: ArrayLike) -> float:
    """Smallest bulk effective sample size of draws (n, m, p) of m chains; dimensionless."""
    return float(min(_size(normal) for normal in _normal_halves(chains)))


def _normal_halves(chains: ArrayLike) -> list[FloatArray]:
    """(steps / 2, 2 x chains) normal scores of each parameter."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    values = np.asarray(chains, float)
    half = len(values) // 2
    halves = np.concatenate([values[:half], values[-half:]], axis=1)
    scores = []
    for place in range(values.shape[2]):
        one = halves[..., place]
        rank = rankdata(one, axis=None).reshape(one.shape)
        scores.append(np.asarray(ndtri((rank - 0.375) / (one.size + 0.25)), float))
    return scores


def _rhat(chains: FloatArray) -> float:
    within = chains.var(axis=0, ddof=1).mean()
    between = chains.mean(axis=0).var(ddof=1)
    n = len(chains)
    return math.sqrt(((n - 1) / n * within + between) / within) if within > 0 else math.inf


def _size(chains: FloatArray) -> float:
    """Effective size from the autocorrelation, summed in pairs while they are above 0 (Geyer)."""
    n, m = chains.shape
    centred = chains - chains.mean(axis=0)
    length = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(centred, length, axis=0)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, length, axis=0)[:n].mean(axis=1) / n
    within = covariance[0] * n / (n - 1)
    total = (n - 1) / n * within + chains.mean(axis=0).var(ddof=1)
    correlation = 1 - (within - covariance) / total
    pairs = correlation[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    below = np.flatnonzero(pairs <= 0)
    kept = np.minimum.accumulate(pairs[: below[0] if below.size else None])
    return float(n * m / max(2 * kept.sum() - 1, 1e-3))


def ensemble_draws(
    ln_density: LnDensity, centre: FloatArray, covariance: FloatArray, seed: int
) -> FloatArray:
    """(n, p) draws, dimensionless, of a density by 32 walkers (emcee), started about *centre*.

    Raises
    ------
    SolverError
        If after 60,000 steps the split R-hat is not below 1.01 or the effective size not above 400.
    """
    import emcee

    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((N_WALKERS, centre.size))
    start = centre + normal @ np.linalg.cholesky(covariance).T
    sampler = emcee.EnsembleSampler(N_WALKERS, centre.size, ln_density, vectorize=True)
    # emcee keeps a generator of the old kind, which the seed fixes here
    sampler._random = np.random.RandomState(rng.integers(2**31))
    state = sampler.run_mcmc(start, BURN_IN)
    sampler.reset()
    rhat, size = math.inf, 0.0
    for steps in range(BLOCK, MAX_STEPS + 1, BLOCK):
        state = _advanced(sampler, state)
        chains = sampler.get_chain()
        rhat, size = split_rhat(chains), effective_size(chains)
        if rhat < RHAT and size > MIN_EFFECTIVE and steps >= 2 * BLOCK:
            return drawn_by_weight(sampler.get_chain(flat=True), np.ones(steps * N_WALKERS), seed)
    raise SolverError(
        f"the ensemble sampler did not converge in {MAX_STEPS} steps (split R-hat {rhat:.3f}, "
        f"effective size {size:.0f}); free fewer parameters or narrow their priors"
    )


def _advanced(sampler: object, state: object) -> object:
    """The state after one block of steps; a stop is asked for between steps."""
    for advanced in sampler.sample(state, iterations=BLOCK):  # type: ignore[attr-defined]
        checkpoint()
        state = advanced
    return state


def ln_bridge(ln_density: LnDensity, draws: FloatArray, seed: int) -> float:
    """Logarithm of the integral of a density from (n, p) draws of it; dimensionless.

    Bridge sampling (Meng, Wong 1996) towards the Gaussian with the mean and covariance of the
    draws.
    """
    from scipy.special import logsumexp

    centre, covariance = draws.mean(axis=0), np.atleast_2d(np.cov(draws, rowvar=False))
    root = np.linalg.cholesky(covariance)

    def ln_gaussian(points: FloatArray) -> FloatArray:
        scaled = np.linalg.solve(root, (points - centre).T)
        norm = centre.size / 2 * math.log(2 * math.pi) + np.log(np.diag(root)).sum()
        return np.asarray(-0.5 * (scaled**2).sum(axis=0) - norm, float)

    others = gaussian_draws(centre, covariance, seed + 1)
    at_draws = ln_density(draws) - ln_gaussian(draws)
    at_others = ln_density(others) - ln_gaussian(others)
    found = float(np.median(at_draws))
    for _ in range(200):
        above = logsumexp(at_others - np.logaddexp(at_others, found)) - math.log(len(others))
        below = logsumexp(-np.logaddexp(at_draws, found)) - math.log(len(draws))
        change = float(above - below) - found
        found += change
        if abs(change) < 1e-10:
            break
    return found
