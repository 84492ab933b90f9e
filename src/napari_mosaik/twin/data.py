"""What a twin reads: observations of regions with their noise, and priors of its parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray, InputError

__all__ = [
    "CHAIN",
    "KNOWN_UNITS",
    "LOG_LINEAR",
    "MODEL_CV",
    "SLICE_CV",
    "Observation",
    "Prior",
    "checked_observations",
    "finite_number",
]

KNOWN_UNITS = ("SUVbw", "SUVbsa", "SUVlbm", "Bq/mL", "kBq/mL", "MBq/mL", "%ID/mL", "%ID/g")
"""Units of observations; all of one series are in the same."""
MODEL_CV = 0.05
"""Error of every observation beside its own, relative: what no model of few parameters explains."""
SLICE_CV = 0.15
"""Further error of the mean of one slice for the whole tumour, relative."""
LOG_LINEAR = ("intercept", "slope_per_h")
"""Parameters of ``ln y = intercept - slope_per_h * t``."""
CHAIN = (
    "transfer_per_h",
    "k32_per_h",
    "k03_per_h",
    "plasma_start",
    "fast_half_life_h",
    "slow_half_life_h",
)
"""Parameters of the delivery-limited chain; a prior is Gaussian in their logarithms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Mean of one region at one time, decay-corrected to injection.

    Attributes
    ----------
    time_h
        Time after injection, h.
    region
        'tumour', 'blood' or another name.
    mean, sd
        Mean and the error (SD) of the mean, in *unit*; not the spread of the voxels.
    unit
        One of `KNOWN_UNITS`.
    decay_reference
        'injection': the time to which the values are decay-corrected.
    from_slice
        Whether the mean is that of one slice, which stands for the whole tumour with an error more.
    volume_ml
        Volume of the region, mL; None if unknown.
    source
        Digest of the images, or where the values come from.
    """

    time_h: float
    region: str
    mean: float
    sd: float
    unit: str = "SUVbw"
    decay_reference: str = "injection"
    from_slice: bool = False
    volume_ml: float | None = None
    source: str = ""

    def __post_init__(self) -> None:
        time = finite_number("the time of a scan", self.time_h)
        if time < 0:
            raise InputError(f"a scan at {time:g} h lies before the injection; check its time")
        if not isinstance(self.region, str) or not self.region.strip():
            raise InputError("an observation needs the name of its region, as 'tumour' or 'blood'")
        label = f"the {self.region} at {time:g} h"
        self._check_values(label)
        if self.unit not in KNOWN_UNITS:
            raise InputError(
                f"the unit {self.unit!r} of {label} is unknown; give one of "
                f"{', '.join(KNOWN_UNITS)}"
            )
        if self.decay_reference != "injection":
            given = f"is {self.decay_reference!r}" if self.decay_reference else "is missing"
            raise InputError(
                f"the decay reference of {label} {given}; give values decay-corrected to "
                "'injection'"
            )

    def _check_values(self, label: str) -> None:
        for name, value in (("mean", self.mean), ("SD", self.sd)):
            number = finite_number(f"the {name} of {label}", value)
            if number <= 0:
                raise InputError(f"the {name} of {label} must be above 0, not {number:g}")
        if self.volume_ml is not None:
            volume = finite_number(f"the volume of {label}", self.volume_ml)
            if volume <= 0:
                raise InputError(f"the volume of {label} must be above 0 mL, not {volume:g}")

    @property
    def ln_mean(self) -> float:
        """Logarithm of the mean."""
        return math.log(self.mean)

    @property
    def ln_sd(self) -> float:
        """SD of ln y: the stated error, 0.05, and 0.15 more for a slice; dimensionless."""
        parts = (self.sd / self.mean, MODEL_CV, SLICE_CV if self.from_slice else 0.0)
        return math.hypot(*parts)


def finite_number(name: str, value: object) -> float:
    """*value* as a finite number; else, also for text that reads as one, `InputError`."""
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a number, not {value!r}") from None
    if not math.isfinite(number):
        raise InputError(f"{name} must be finite, not {number:g}")
    return number


def checked_observations(observations: Iterable[Observation]) -> tuple[Observation, ...]:
    """Observations by time and region; two of one region at one time, or two units, are refused."""
    rows = sorted(observations, key=lambda row: (float(row.time_h), row.region))
    for before, after in pairwise(rows):
        if (before.time_h, before.region) == (after.time_h, after.region):
            raise InputError(
                f"the {after.region} at {after.time_h:g} h was observed twice; give each scan once"
            )
    units = sorted({row.unit for row in rows})
    if len(units) > 1:
        raise InputError(
            f"the observations are in two units, {units[0]} and {units[1]}; convert them to one"
        )
    return tuple(rows)


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """Gaussian prior of the parameters of a model.

    Attributes
    ----------
    names
        (p,) names.
    mean, covariance
        (p,) and (p, p): of the parameters of the log-linear model, of the logarithms of those of
        the chain.
    constants
        What the chain takes as known: ``fast_fraction``, ``blood_fraction`` and ``haematocrit``.
    """

    names: tuple[str, ...]
    mean: FloatArray
    covariance: FloatArray
    constants: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = tuple(self.names)
        mean, covariance = _gaussian(names, self.mean, self.covariance)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "covariance", covariance)
        object.__setattr__(self, "constants", MappingProxyType(dict(self.constants)))

    @property
    def sd(self) -> FloatArray:
        """(p,) standard deviations; dimensionless, 1/h for a slope."""
        return np.asarray(np.sqrt(np.diag(self.covariance)), float)

    @classmethod
    def log_linear(
        cls, *, intercept: tuple[float, float], slope_per_h: tuple[float, float]
    ) -> Prior:
        """Prior of ``ln y = intercept - slope_per_h * t``, t in h: mean and SD of each."""
        given = {"intercept": intercept, "slope_per_h": slope_per_h}
        pairs = np.array([_pair(name, given[name]) for name in LOG_LINEAR])
        return cls(LOG_LINEAR, pairs[:, 0], np.diag(pairs[:, 1] ** 2))

    @classmethod
    def chain(
        cls,
        *,
        transfer_per_h: tuple[float, float],
        k32_per_h: tuple[float, float],
        k03_per_h: tuple[float, float],
        plasma_start: tuple[float, float],
        fast_half_life_h: tuple[float, float],
        slow_half_life_h: tuple[float, float],
        fast_fraction: float,
        blood_fraction: float = 0.05,
        haematocrit: float = 0.45,
    ) -> Prior:
        """Prior of the delivery-limited chain.

        Parameters
        ----------
        transfer_per_h, k32_per_h, k03_per_h
            Median (1/h) and SD of the logarithm: transfer from plasma, internalisation, loss.
        plasma_start
            Median of the plasma concentration at injection, in the unit of the observations, and
            SD of its logarithm.
        fast_half_life_h, slow_half_life_h
            Median (h) and SD of the logarithm.
        fast_fraction
            Share of the fast component in plasma at injection.
        blood_fraction, haematocrit
            Share of blood in the tumour, and of cells in blood.
        """
        given = {
            "transfer_per_h": transfer_per_h,
            "k32_per_h": k32_per_h,
            "k03_per_h": k03_per_h,
            "plasma_start": plasma_start,
            "fast_half_life_h": fast_half_life_h,
            "slow_half_life_h": slow_half_life_h,
        }
        pairs = np.array([_pair(name, given[name], above_zero=True) for name in CHAIN])
        constants = {
            "fast_fraction": _share("fast_fraction", fast_fraction),
            "blood_fraction": _share("blood_fraction", blood_fraction),
            "haematocrit": _share("haematocrit", haematocrit),
        }
        return cls(CHAIN, np.log(pairs[:, 0]), np.diag(pairs[:, 1] ** 2), constants)

    def places(self, free: Sequence[str]) -> list[int]:
        """Places of the free parameters; unknown, repeated or exactly known ones are refused."""
        free = (free,) if isinstance(free, str) else tuple(free)
        if not free:
            raise InputError(f"name at least one free parameter of {', '.join(self.names)}")
        for name in free:
            if name not in self.names:
                raise InputError(
                    f"{name!r} is not a parameter of the prior; it has {', '.join(self.names)}"
                )
            if free.count(name) > 1:
                raise InputError(f"the free parameter {name} is named twice")
            if not self.sd[self.names.index(name)] > 0:
                raise InputError(
                    f"the prior SD of the free parameter {name} is 0; give it one above 0, or do "
                    "not free it"
                )
        return [self.names.index(name) for name in free]

    def of_model(self, model: str) -> Prior:
        """This prior, if it is one of the model 'log_linear' or 'chain'; else `InputError`."""
        expected = {"log_linear": LOG_LINEAR, "chain": CHAIN}.get(model)
        if expected is None:
            raise InputError(f"the model {model!r} is neither 'log_linear' nor 'chain'")
        if set(self.names) != set(expected):
            raise InputError(
                f"a prior of {', '.join(self.names)} is none of the model {model!r}; make one with "
                f"Prior.{model}"
            )
        if model == "chain" and len(self.constants) != 3:
            raise InputError(
                "the prior of the chain lacks fast_fraction, blood_fraction or haematocrit; make "
                "it with Prior.chain"
            )
        return self


def _gaussian(
    names: tuple[str, ...], mean: ArrayLike, covariance: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    try:
        centre, spread = np.array(mean, float), np.array(covariance, float)
    except (TypeError, ValueError):
        raise InputError("mean and covariance of a prior must be numbers") from None
    p = len(names)
    if not p or len(set(names)) != p or centre.shape != (p,) or spread.shape != (p, p):
        raise InputError(
            f"a prior of {p} names needs different names, a mean of shape ({p},) and a covariance "
            f"of shape ({p}, {p}), not {centre.shape} and {spread.shape}"
        )
    if not (np.isfinite(centre).all() and np.isfinite(spread).all()):
        raise InputError("mean and covariance of a prior must be finite")
    if not np.allclose(spread, spread.T, rtol=1e-9, atol=0) or (np.diag(spread) < 0).any():
        raise InputError("the covariance of a prior must be symmetric, its variances 0 or more")
    scale = np.sqrt(np.outer(np.diag(spread), np.diag(spread)))
    correlation = np.divide(spread, scale, out=np.eye(p), where=scale > 0)
    if np.linalg.eigvalsh(correlation).min() < -1e-9:
        raise InputError("the covariance of a prior has a negative variance in some direction")
    centre.setflags(write=False)
    spread.setflags(write=False)
    return centre, spread


def _pair(name: str, pair: tuple[float, float], *, above_zero: bool = False) -> tuple[float, float]:
    try:
        middle, sd = pair
    except (TypeError, ValueError):
        what = "(median, SD of ln)" if above_zero else "(mean, SD)"
        raise InputError(f"the prior of {name} is a pair {what}, not {pair!r}") from None
    middle = finite_number(f"the middle of the prior of {name}", middle)
    sd = finite_number(f"the SD of the prior of {name}", sd)
    if above_zero and middle <= 0:
        raise InputError(f"the median of the prior of {name} must be above 0, not {middle:g}")
    if sd < 0:
        raise InputError(f"the SD of the prior of {name} must be 0 or more, not {sd:g}")
    return middle, sd


def _share(name: str, value: float) -> float:
    number = finite_number(name, value)
    if not 0 <= number <= 1 or (name == "haematocrit" and number == 1):
        raise InputError(f"{name} must lie in [0, 1], not at {number:g}")
    return number
