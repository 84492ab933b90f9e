"""What the images determine: priors, identifiability and Sobol indices of kinetic parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from pydantic import field_validator

from napari_mosaik.core import FloatArray, InputError, Params, setting
from napari_mosaik.core.params import PowerOf2
from napari_mosaik.core.progress import blocking, checkpoint
from napari_mosaik.core.text import typed_number
from napari_mosaik.kinetics.batched import checked_times, kinetic_rows, solve_rows
from napari_mosaik.kinetics.delivery import DeliveryParams, tile_columns, transfer_rate_per_h
from napari_mosaik.kinetics.immunokinetic import ImmunokineticParams, immunokinetic_columns

__all__ = [
    "DiagnosticParams",
    "Identifiability",
    "Indices",
    "PatientPriors",
    "Retained",
    "TilePriors",
    "identifiability",
    "iter_sobol",
    "patient_retained",
    "prior_factors",
    "sobol",
    "tile_retained",
]

Retained = Callable[[Mapping[str, ArrayLike], FloatArray], FloatArray]
"""Retained antibody (n, t), µM, of parameters (n,) by name, at times (t,), h."""

_Z95 = 1.959964
_CHUNK = 256
_RESAMPLES = 500
DETERMINED = 0.5
"""A parameter is determined if the images narrow its prior to this share or less."""
PRIOR_PREFIX = "prior_"


class DiagnosticParams(Params):
    """Settings of the diagnostics: when and how well it is imaged."""

    imaging_times: str = setting(
        "72, 120, 168, 336",
        "Times of the images after injection, separated by commas.",
        label="Imaging times",
        unit="h",
    )
    image_error: float = setting(
        0.1,
        "Relative error (SD) of the antibody that an image measures, independent from image to "
        "image.",
        label="Error of an image",
        gt=0,
        le=1,
        advanced=True,
    )

    @field_validator("imaging_times")
    @classmethod
    def _are_times(cls, text: str) -> str:
        try:
            _times_of(text)
        except InputError as error:
            raise ValueError(str(error)) from None
        return text

    @property
    def imaging_h(self) -> tuple[float, ...]:
        """The imaging times, h, ascending."""
        return _times_of(self.imaging_times)


def _times_of(text: str) -> tuple[float, ...]:
    parts = [part for part in text.replace(";", ",").split(",") if part.strip()]
    if not parts:
        raise InputError("give at least one imaging time, for example 72, 120, 168")
    times = sorted({typed_number(part) for part in parts})
    if not times[0] > 0:
        raise InputError(f"{times[0]:g} h is not after injection; give times above 0")
    return tuple(checked_times(times).tolist())


def _prior(name: str, default: float) -> float:
    value: float = setting(
        default,
        f"Prior of {name}: 95 % between its value divided by and times this factor. Illustrative.",
        label=f"Prior factor of {name}",
        gt=1,
        le=1e4,
        advanced=True,
    )
    return value


class PatientPriors(DiagnosticParams):
    """Settings of the diagnostics of the patient's curves."""

    prior_k_a_per_um_h: float = _prior("kₐ", 10.0)
    prior_antigen_um: float = _prior("C_tot", 5.0)
    prior_k32_per_h: float = _prior("k₃₂", 3.0)
    prior_k03_per_h: float = _prior("k₀₃", 3.0)
    prior_free_0_um: float = _prior("C_free at 0", 2.0)


class TilePriors(DiagnosticParams):
    """Settings of the diagnostics of delivery to a tile."""

    prior_permeability_um_per_s: float = _prior("the permeability", 3.0)
    prior_antigen_um: float = _prior("C_tot", 5.0)
    prior_k_a_per_um_h: float = _prior("kₐ", 10.0)
    prior_k32_per_h: float = _prior("k₃₂", 3.0)
    prior_k03_per_h: float = _prior("k₀₃", 3.0)
    samples: PowerOf2 = setting(
        1024,
        "Base samples of the Sobol indices; a power of 2.",
        label="Sobol samples",
        ge=16,
        le=16384,
        advanced=True,
    )


def prior_factors(priors: DiagnosticParams) -> dict[str, float]:
    """Factor of the prior of each parameter, dimensionless, by the parameter's name."""
    return {
        name.removeprefix(PRIOR_PREFIX): float(value)
        for name, value in priors
        if name.startswith(PRIOR_PREFIX)
    }


def patient_retained(params: ImmunokineticParams) -> Retained:
    """Bound and internalised antibody (n, t), µM, of the patient by the paper's model."""

    def retained(varied: Mapping[str, ArrayLike], time_h: FloatArray) -> FloatArray:
        curves = solve_rows(kinetic_rows({**immunokinetic_columns(params), **varied}), time_h)
        return np.asarray(curves[..., 1] + curves[..., 2], float)

    return retained


def tile_retained(
    params: DeliveryParams, surface_density_per_um: float, tolerance: float = 3e-8
) -> Retained:
    """Bound and internalised antibody (n, t), µM, of antigen-positive tissue with these vessels.

    The saturating equations are solved whatever *solver* is set; vessel surface in 1/µm.
    *tolerance* is that of `solve_rows`.
    """

    def retained(varied: Mapping[str, ArrayLike], time_h: FloatArray) -> FloatArray:
        own = params.model_copy(update={n: np.asarray(v, float) for n, v in varied.items()})
        columns = {
            **tile_columns(own),
            "antigen_um": own.antigen_um,
            "transfer_per_h": transfer_rate_per_h(own, surface_density_per_um),
        }
        curves = solve_rows(kinetic_rows(columns), time_h, tolerance=tolerance)
        return np.asarray(curves[..., 1] + curves[..., 2], float)

    return retained


@dataclass(frozen=True, slots=True, eq=False)
class Identifiability:
    """What images say about one parameter.

    Attributes
    ----------
    name
        Name of the parameter.
    sensitivity
        (t,) relative change of the retained antibody per relative change of the parameter, over
        the width of its prior; dimensionless, one per imaging time.
    prior_factor, posterior_factor
        95 % interval before and after the images: the value divided by and times this factor.
    determined
        Whether the images narrow the prior to half or less; otherwise it is prior only.
    """

    name: str
    sensitivity: FloatArray
    prior_factor: float
    posterior_factor: float
    determined: bool


def identifiability(
    retained: Retained,
    values: Mapping[str, float],
    factors: Mapping[str, float],
    time_h: Sequence[float],
    image_error: float,
) -> tuple[Identifiability, ...]:
    """Which parameters the images at some times determine, with log-normal priors.

    The retained antibody is linear in the logarithms between the ends (SD) of the priors; its
    images have independent relative errors.  The posterior is then that of Gaussian linear
    regression: covariance ``(S' S / error^2 + diag(1 / sd^2))^-1``.

    Parameters
    ----------
    retained
        The model.
    values
        Value of each parameter, above 0.
    factors
        Factor of the prior (95 %) of each parameter that is not known exactly.
    time_h
        (t,) imaging times, h.
    image_error
        Relative error (SD) of one image.

    Raises
    ------
    InputError
        If a parameter is 0, or nothing is retained at one of the times.
    """
    names = list(factors)
    zero = [name for name in names if not values[name] > 0]
    if zero:
        raise InputError(f"'{zero[0]}' is 0: its identifiability needs a value above 0")
    sd = np.log([factors[name] for name in names]) / _Z95
    shift = np.zeros((2 * len(names), len(names)))
    for place, width in enumerate(sd):
        shift[2 * place, place], shift[2 * place + 1, place] = -width, width
    at = np.exp(shift) * [values[name] for name in names]
    level = retained(dict(zip(names, at.T, strict=True)), checked_times(time_h))
    if not (level > 0).all():
        raise InputError(
            "nothing is retained at an imaging time; check the parameters and the imaging times"
        )
    slope = (np.log(level[1::2]) - np.log(level[::2])) / (2 * sd[:, None])
    information = slope @ slope.T / image_error**2 + np.diag(1 / sd**2)
    after = np.sqrt(np.diag(np.linalg.inv(information)))
    return tuple(
        Identifiability(
            name,
            slope[i],
            float(factors[name]),
            float(np.exp(_Z95 * after[i])),
            bool(after[i] <= DETERMINED * sd[i]),
        )
        for i, name in enumerate(names)
    )


@dataclass(frozen=True, slots=True, eq=False)
class Indices:
    """Sobol indices of d inputs for s outputs with 95 % intervals.

    Attributes
    ----------
    first, total
        (s, d) shares of the variance: by each input alone, and with all its interactions.
    first_low, first_high, total_low, total_high
        (s, d) limits of their intervals by bootstrap over the samples.
    """

    first: FloatArray
    total: FloatArray
    first_low: FloatArray
    first_high: FloatArray
    total_low: FloatArray
    total_high: FloatArray


def iter_sobol(
    function: Callable[[FloatArray], FloatArray], d: int, n: int, rng: np.random.Generator
) -> Generator[float, None, Indices]:
    """First-order (Saltelli or Jansen) and total (Jansen) Sobol indices on Saltelli's design.

    Parameters
    ----------
    function
        Takes points (m, d), each coordinate uniform in (0, 1), and returns outputs (m, s).
    d
        Number of inputs.
    n
        Base samples, a power of 2; *function* is called for ``n (d + 2)`` points.
    rng
        Generator of the scrambled Sobol sequence and of the bootstrap.

    Yields
    ------
    float
        Fraction of the points that are done.

    Returns
    -------
    Indices
        NaN for an output that does not vary.

    Raises
    ------
    InputError
        If n is not a power of 2 of at least 16.

    References
    ----------
    Saltelli et al. 2010, Computer Physics Communications 181:259-270, table 2.
    """
    from scipy.stats import qmc

    if n < 16 or n & (n - 1):
        raise InputError(f"samples = {n} is not valid: give a power of 2 of at least 16")
    # a centred point of each cell: 0 and 1 have no quantile
    base = np.clip(qmc.Sobol(2 * d, rng=rng).random(n), 2.0**-40, 1 - 2.0**-40)
    a, b = base[:, :d], base[:, d:]
    mixed = np.repeat(a[None], d, axis=0)
    for i in range(d):
        mixed[i, :, i] = b[:, i]
    points = np.concatenate([a, b, mixed.reshape(-1, d)])
    parts = []
    for start in range(0, len(points), _CHUNK):
        yield start / len(points)
        checkpoint()
        parts.append(function(points[start : start + _CHUNK]))
    y = np.concatenate(parts).reshape(d + 2, n, -1)
    drawn = rng.integers(0, n, (_RESAMPLES, n))
    found = _estimates(y)
    low, high = np.quantile([_estimates(y[:, rows]) for rows in drawn], (0.025, 0.975), axis=0)
    # of the two first-order estimates, that of the narrower interval
    by = np.argmin((high - low)[:2], axis=0)[None]
    first, first_low, first_high = (np.take_along_axis(e, by, 0)[0] for e in (found, low, high))
    return Indices(first, found[2], first_low, first_high, low[2], high[2])


sobol = blocking(iter_sobol)


def _estimates(y: FloatArray) -> FloatArray:
    """(3, s, d) indices of outputs (d + 2, n, s) at A, B, and A with a column of B.

    First-order by Saltelli, which is good for small ones, and by Jansen, which is good for large
    ones; total by Jansen.
    """
    y = y - np.mean(y[:2], axis=(0, 1))
    a, b, mixed = y[0], y[1], y[2:]
    variance = np.mean(y[:2] ** 2, axis=(0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        saltelli = np.mean(b * (mixed - a), axis=1) / variance
        jansen = 1 - np.mean((b - mixed) ** 2, axis=1) / 2 / variance
        total = np.mean((a - mixed) ** 2, axis=1) / 2 / variance
    found = np.stack([saltelli, jansen, total])
    return np.where(variance > 0, found, np.nan).swapaxes(1, 2)


def iter_parameter_indices(
    retained: Retained,
    values: Mapping[str, float],
    factors: Mapping[str, float],
    time_h: Sequence[float],
    n: int,
    seed: int = 0,
) -> Generator[float, None, Indices]:
    """Sobol indices of the parameters over their log-normal priors, for the retained antibody.

    Parameters as in `identifiability`; *n* base samples as in `iter_sobol`, whose points are in
    the order of *factors*, and outputs in that of the imaging times (t,), h.
    """
    from scipy.special import ndtri

    names, times = list(factors), checked_times(time_h)
    sd = np.array([math.log(factors[name]) / _Z95 for name in names])
    middle = np.array([values[name] for name in names])

    def level(points: FloatArray) -> FloatArray:
        at = middle * np.exp(sd * ndtri(points))
        return retained(dict(zip(names, at.T, strict=True)), times)

    return (yield from iter_sobol(level, len(names), n, np.random.default_rng(seed)))
