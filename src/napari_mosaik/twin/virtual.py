"""The same virtual patients in every arm; shares with their intervals. Simulated; no evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.twin.data import Prior, finite_number
from napari_mosaik.twin.posterior import Posterior

__all__ = [
    "Arm",
    "Cohort",
    "draw_patients",
    "patients_needed",
    "virtual_cohort",
    "wilson_interval",
]

Arm = Callable[[FloatArray], FloatArray]
"""From (n, p) draws to (n,) outcomes."""


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """Outcomes of the same patients in each arm.

    Attributes
    ----------
    names
        (p,) names of the parameters.
    draws
        (n, p) parameters of the patients, as those of the prior or posterior.
    outcomes
        (n,) of each arm.
    smaller_is_better
        Whether a smaller outcome is the better one, as the dose of an organ.
    """

    names: tuple[str, ...]
    draws: FloatArray
    outcomes: Mapping[str, FloatArray]
    smaller_is_better: bool = False

    def better(self, a: str, b: str) -> float:
        """Share of the patients whose outcome is better in arm *a* than in *b*; ties count half.

        Better is larger, unless `smaller_is_better`.
        """
        first, second = self._of(a), self._of(b)
        ahead = first < second if self.smaller_is_better else first > second
        return float(ahead.mean() + 0.5 * (first == second).mean())

    def responders(self, name: str, threshold: float) -> tuple[float, float, float]:
        """Share of outcomes of at least the threshold, and its Wilson interval (95 %).

        Of at most the threshold, where `smaller_is_better`.
        """
        bar = finite_number("the threshold", threshold)
        outcomes = self._of(name)
        within = outcomes <= bar if self.smaller_is_better else outcomes >= bar
        count = int(within.sum())
        return (count / outcomes.size, *wilson_interval(count, outcomes.size))

    def _of(self, name: str) -> FloatArray:
        if name not in self.outcomes:
            raise InputError(f"there is no arm {name!r}; the arms are {', '.join(self.outcomes)}")
        return self.outcomes[name]


def virtual_cohort(
    prior_or_posterior: Prior | Posterior, arms: Mapping[str, Arm], n: int, seed: int
) -> Cohort:
    """Draw patients and give the same ones to each arm.

    Parameters
    ----------
    prior_or_posterior
        What the patients are drawn from; parameters of the chain are logarithms.
    arms
        By name, a function of the (n, p) draws that returns (n,) outcomes, dimensionless or in Gy.
    n
        Number of patients.
    seed
        Random seed; equal seeds give equal bytes.

    Raises
    ------
    InputError
        If there is no arm or patient, or an arm does not return n finite numbers.
    """
    if not arms:
        raise InputError("a cohort needs at least one arm")
    draws = draw_patients(prior_or_posterior, n, seed)
    count, outcomes = len(draws), {}
    for name, arm in arms.items():
        if not callable(arm):
            raise InputError(f"the arm {name!r} must be a function of the draws, not {arm!r}")
        values = np.asarray(arm(draws), float)
        if values.shape != (count,) or not np.isfinite(values).all():
            raise InputError(
                f"the arm {name!r} must return {count} finite outcomes, one per patient; it "
                f"returned {values.shape}"
            )
        outcomes[name] = values
    return Cohort(tuple(prior_or_posterior.names), draws, outcomes)


def draw_patients(prior_or_posterior: Prior | Posterior, n: int, seed: int) -> FloatArray:
    """(n, p) parameters of the patients of `virtual_cohort`, in the units of the prior (h, 1/h).

    Those of the chain are logarithms.

    Raises
    ------
    InputError
        If there is no patient, or the seed is negative.
    """
    count, start = _count("the number of patients", n), finite_number("the seed", seed)
    if start < 0 or start != int(start):
        raise InputError(f"the seed must be a whole number of 0 or more, not {start:g}")
    draws = _patients(prior_or_posterior, count, np.random.default_rng(int(start)))
    draws.setflags(write=False)
    return draws


def _patients(source: Prior | Posterior, n: int, rng: np.random.Generator) -> FloatArray:
    if isinstance(source, Posterior) and source.model == "chain":
        return source.draws[rng.choice(len(source.draws), n, replace=n > len(source.draws))]
    return rng.multivariate_normal(source.mean, source.covariance, n, method="eigh")


def _count(name: str, value: int) -> int:
    number = finite_number(name, value)
    if number < 1 or number != int(number):
        raise InputError(f"{name} must be a whole number of 1 or more, not {number:g}")
    return int(number)


def wilson_interval(successes: float, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson interval of a share of *successes* among *n*; both ends in [0, 1].

    Raises
    ------
    InputError
        If n is below 1, the successes lie outside [0, n], or the confidence outside (0, 1).
    """
    count = _count("n", n)
    found = finite_number("the number of successes", successes)
    if not 0 <= found <= count:
        raise InputError(f"the number of successes must lie in [0, {count}], not at {found:g}")
    z2 = _quantile(confidence) ** 2
    share = found / count
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    reach = _half_width(share, count, z2)
    low = 0.0 if found == 0 else max(0.0, middle - reach)
    high = 1.0 if found == count else min(1.0, middle + reach)
    return low, high


def patients_needed(half_width: float, share: float = 0.5, *, confidence: float = 0.95) -> int:
    """Smallest number of patients whose Wilson interval of a share has this half width or less.

    Raises
    ------
    InputError
        If the half width lies outside (0, 0.5), the share outside [0, 1], or the confidence outside
        (0, 1).
    """
    width = finite_number("the half width", half_width)
    if not 0 < width < 0.5:
        raise InputError(f"the half width must lie between 0 and 0.5, not at {width:g}")
    p = finite_number("the share", share)
    if not 0 <= p <= 1:
        raise InputError(f"the share must lie in [0, 1], not at {p:g}")
    z2 = _quantile(confidence) ** 2
    spread = p * (1 - p)
    root = math.sqrt(spread**2 + 4 * width**2 * (0.25 - spread))
    n = max(1, math.floor(z2 * (spread + root) / (2 * width**2) - z2) - 1)
    while _half_width(p, n, z2) > width:
        n += 1
    return n


def _half_width(share: float, n: int, z2: float) -> float:
    return math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)


def _quantile(confidence: float) -> float:
    from scipy.special import ndtri

    level = finite_number("the confidence", confidence)
    if not 0 < level < 1:
        raise InputError(f"the confidence must lie between 0 and 1, not at {level:g}")
    return float(ndtri((1 + level) / 2))
