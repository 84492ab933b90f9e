"""Delivery-limited kinetics per tile: what its vessels supply and its antigen retains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray, InputError, Params, setting
from napari_mosaik.kinetics.batched import checked_times, kinetic_rows, solve_rows

__all__ = [
    "CURVE_NAMES",
    "TILE_TIMES_H",
    "DeliveryParams",
    "curve_columns",
    "plasma_um",
    "retained_um",
    "tile_columns",
    "tile_curves_um",
    "transfer_rate_per_h",
]

CURVE_NAMES = ("free", "bound", "internalised")
"""The curves of the antibody, in the order of the last axis of `tile_curves_um`."""
TILE_TIMES_H = (2.0, 6.0, 12.0, 24.0, 48.0, 72.0, 96.0, 120.0, 168.0, 216.0, 264.0, 336.0)
"""Times of the stored curves of each tile, h."""
_S_PER_H = 3600.0


class DeliveryParams(Params):
    """Settings of the delivery-limited tile kinetics; the defaults are illustrative."""

    permeability_um_per_s: float = setting(
        3e-3,
        "Permeability of the vessel wall to the antibody.",
        label="Permeability",
        unit="µm/s",
        ge=0,
    )
    interstitial_fraction: float = setting(
        0.3, "Fraction of the tissue volume accessible to free antibody.", unit="1", gt=0, le=1
    )
    mass_mg: float = setting(
        10.0, "Injected mass of antibody.", label="Antibody mass", unit="mg", gt=0
    )
    plasma_volume_l: float = setting(
        3.0, "Plasma volume of the patient.", label="Plasma volume", unit="L", gt=0
    )
    molar_mass_g_per_mol: float = setting(
        150e3, "Molar mass of the antibody.", label="Molar mass", unit="g/mol", gt=0, advanced=True
    )
    fast_half_life_h: float = setting(
        12.0, "Half-life of the fast component in plasma.", label="Fast half-life", unit="h", gt=0
    )
    slow_half_life_h: float = setting(
        90.0, "Half-life of the slow component in plasma.", label="Slow half-life", unit="h", gt=0
    )
    fast_fraction: float = setting(
        0.4, "Fraction of the fast component at injection.", label="Fast fraction", ge=0, le=1
    )
    k_a_per_um_h: float = setting(
        3.5e4, "Association rate.", unit="1/(µM h)", label="kₐ", ge=0, advanced=True
    )
    antigen_um: float = setting(
        0.3662, "Surface antigen where the tissue is positive.", unit="µM", label="C_tot", ge=0
    )
    k32_per_h: float = setting(0.2, "Rate of internalisation.", unit="1/h", label="k₃₂", ge=0)
    k03_per_h: float = setting(
        8.33e-4, "Rate of loss of internalised antibody.", unit="1/h", label="k₀₃", ge=0
    )
    isotropic_vessels: bool = setting(
        False,
        "Multiply the perimeter density by 4/π to obtain the surface density of vessels that "
        "run in all directions.",
        advanced=True,
    )
    antigen_enters: Literal["area", "density"] = setting(
        "area",
        "The antigen-positive fraction is a fraction of the area (the rest retains nothing) or of "
        "the antigen, evenly distributed.",
        label="Positive fraction",
        choices={"area": "fraction of the area", "density": "fraction of the antigen"},
        advanced=True,
    )
    solver: Literal["closed", "ode"] = setting(
        "closed",
        "Closed form (binding faster than delivery, antigen never exhausted) or the equations "
        "solved numerically, with saturation.",
        choices={"closed": "closed form", "ode": "numerical"},
    )

    @property
    def plasma_terms(self) -> tuple[tuple[float, float], ...]:
        """Amplitude (µM) and rate (1/h) of the two exponentials of the plasma curve."""
        start_um = self.mass_mg * 1e3 / self.molar_mass_g_per_mol / self.plasma_volume_l
        return (
            (start_um * self.fast_fraction, math.log(2) / self.fast_half_life_h),
            (start_um * (1 - self.fast_fraction), math.log(2) / self.slow_half_life_h),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Tiles:
    """Checked inputs of n tiles: transfer rate K (1/h) and antigen-positive fraction."""

    transfer_per_h: FloatArray
    fraction: FloatArray


def plasma_um(params: DeliveryParams, time_h: ArrayLike) -> FloatArray:
    """Antibody in plasma (t,), µM, at the times (t,), h: the sum of two exponentials."""
    times = np.asarray(time_h, float)
    return np.asarray(sum(c * np.exp(-rate * times) for c, rate in params.plasma_terms), float)


def retained_um(
    surface_density_per_um: ArrayLike,
    antigen_fraction: ArrayLike,
    params: DeliveryParams | None = None,
    time_h: ArrayLike = 336.0,
) -> FloatArray:
    """Antibody bound to or taken into the cells of each tile at one time.

    Parameters
    ----------
    surface_density_per_um
        (n,) vessel perimeter per tile area, 1/µm; NaN where vessels were not measured.
    antigen_fraction
        (n,) antigen-positive fraction of the tile in [0, 1]; NaN where not measured.
    params
        Settings; illustrative defaults.
    time_h
        Time after injection, h.

    Returns
    -------
    numpy.ndarray
        (n,) µM per tissue volume, decay-corrected; 0 without vessels, NaN where either input is.

    Raises
    ------
    InputError
        As `tile_curves_um`.
    """
    times = np.ravel(time_h)
    if times.size != 1:
        raise InputError(f"one time is needed, not {times.size}; tile_curves_um takes several")
    curves = tile_curves_um(surface_density_per_um, antigen_fraction, params, times)
    return np.asarray(curves[:, 0, 1] + curves[:, 0, 2], float)


def tile_curves_um(
    surface_density_per_um: ArrayLike,
    antigen_fraction: ArrayLike,
    params: DeliveryParams | None = None,
    time_h: ArrayLike = (72.0, 120.0, 168.0, 336.0),
) -> FloatArray:
    """Free, bound and internalised antibody of each tile over time.

    ``dC_f/dt = K (C_p - C_f / eps) - k_a (C_tot - C_b) C_f``,
    ``dC_b/dt = k_a (C_tot - C_b) C_f - k32 C_b``, ``dC_i/dt = k32 C_b - k03 C_i`` with
    ``K = permeability x surface density`` and a bi-exponential plasma curve ``C_p``.  The closed
    form assumes instantaneous binding and antigen that is never exhausted; antibody is then free
    only where there is no antigen.

    Parameters
    ----------
    surface_density_per_um, antigen_fraction, params
        As in `retained_um`.
    time_h
        (t,) times after injection, h, ascending from 0 on.

    Returns
    -------
    numpy.ndarray
        (n, t, 3) free, bound and internalised antibody, µM per tissue volume; NaN in tiles where
        either input is NaN.

    Raises
    ------
    InputError
        If shapes differ, a density is negative or infinite, a fraction lies outside [0, 1], or
        the times are not finite, ascending and at least 0.
    SolverError
        If the numerical solver fails.
    """
    params = params or DeliveryParams()
    times = checked_times(time_h)
    tiles = _checked(surface_density_per_um, antigen_fraction, params)
    out = np.full((tiles.fraction.size, times.size, 3), np.nan)
    known = np.isfinite(tiles.transfer_per_h) & np.isfinite(tiles.fraction)
    transfer, fraction = tiles.transfer_per_h[known], tiles.fraction[known]
    by_area = params.antigen_enters == "area"
    antigen = params.antigen_um * (np.ones_like(fraction) if by_area else fraction)
    positive = _positive(transfer, antigen, params, times)
    if by_area:
        share = fraction[:, None, None]
        negative = _without_antigen(transfer, params, times)
        positive = share * positive + (1 - share) * negative
    out[known] = positive
    return out


def _checked(density: ArrayLike, fraction: ArrayLike, params: DeliveryParams) -> _Tiles:
    density = np.atleast_1d(np.asarray(density, float))
    fraction = np.atleast_1d(np.asarray(fraction, float))
    if density.ndim != 1 or density.shape != fraction.shape:
        raise InputError(
            f"surface densities {density.shape} and antigen fractions {fraction.shape} must be "
            "lists of equal length"
        )
    if (density < 0).any() or np.isinf(density).any():
        raise InputError(f"surface densities must be 0 or more, not {np.nanmin(density):g} /µm")
    if (fraction < 0).any() or (fraction > 1).any():
        raise InputError(
            f"antigen fractions must lie in [0, 1], not in [{np.nanmin(fraction):g}, "
            f"{np.nanmax(fraction):g}]"
        )
    return _Tiles(transfer_rate_per_h(params, density), fraction)


def transfer_rate_per_h(params: DeliveryParams, surface_density_per_um: ArrayLike) -> FloatArray:
    """Transfer rate K (n,), 1/h, of tiles with (n,) vessel perimeter per area, 1/µm."""
    stereology = 4 / math.pi if params.isotropic_vessels else 1.0
    density = np.asarray(surface_density_per_um, float)
    return np.asarray(params.permeability_um_per_s * _S_PER_H * density * stereology, float)


def _positive(
    transfer: FloatArray, antigen_um: FloatArray, params: DeliveryParams, times: FloatArray
) -> FloatArray:
    """(n, t, 3) curves of tissue with antigen; tissue without any holds free antibody only."""
    if params.solver == "ode":
        return _solve_tiles(transfer, antigen_um, params, times)
    out = np.zeros((transfer.size, times.size, 3))
    rates = params.k32_per_h, params.k03_per_h
    bound, inside = np.zeros(times.size), np.zeros(times.size)
    for amplitude, loss in params.plasma_terms:
        bound += amplitude * _difference(loss, rates[0], times)
        inside += amplitude * rates[0] * _second_difference((loss, *rates), times)
    out[:, :, 1] = transfer[:, None] * bound
    out[:, :, 2] = transfer[:, None] * inside
    empty = antigen_um == 0
    out[empty] = _without_antigen(transfer[empty], params, times)
    return out


def _solve_tiles(
    transfer_per_h: FloatArray, antigen_um: FloatArray, params: DeliveryParams, times: FloatArray
) -> FloatArray:
    """(n, t, 3) curves from the equations with saturation of the antigen."""
    columns = {**tile_columns(params), "antigen_um": antigen_um, "transfer_per_h": transfer_per_h}
    if not transfer_per_h.size:
        return np.zeros((0, times.size, 3))
    return solve_rows(kinetic_rows(columns), times)[..., :3]


def tile_columns(params: DeliveryParams) -> dict[str, ArrayLike]:
    """The settings as columns of `kinetic_rows` (µM, h), without antigen and transfer rate."""
    names = ("k_a_per_um_h", "k32_per_h", "k03_per_h", "interstitial_fraction")
    columns: dict[str, ArrayLike] = {name: getattr(params, name) for name in names}
    for place, (amount_um, rate_per_h) in enumerate(params.plasma_terms, start=1):
        columns[f"plasma_{place}_um"] = amount_um
        columns[f"plasma_{place}_per_h"] = rate_per_h
    return columns


def _without_antigen(transfer: FloatArray, params: DeliveryParams, times: FloatArray) -> FloatArray:
    """(n, t, 3) curves of tissue without antigen: free antibody that washes in and out."""
    out = np.zeros((transfer.size, times.size, 3))
    wash = transfer[:, None] / params.interstitial_fraction
    for amplitude, loss in params.plasma_terms:
        out[:, :, 0] += transfer[:, None] * amplitude * _difference(loss, wash, times)
    return out


def _difference(a: float, b: float | FloatArray, times: FloatArray) -> FloatArray:
    """``(exp(-a t) - exp(-b t)) / (b - a)``, with its limit ``t exp(-a t)`` for equal rates."""
    low, gap = np.minimum(a, b), np.abs(np.asarray(b, float) - a)
    x = gap * times
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(x > 0, -np.expm1(-x) / x, 1.0)
    return np.asarray(times * np.exp(-low * times) * share, float)


def _second_difference(rates: tuple[float, float, float], times: FloatArray) -> FloatArray:
    """Second divided difference of ``exp(-x t)`` over three rates, also where they are equal.

    This is the response of a chain of two compartments to an exponential input.
    """
    low, middle, high = sorted(rates)
    mean = (low + middle + high) / 3
    d = np.array([low, middle, high]) - mean
    h2, h3 = 0.5 * float(d @ d), float(np.prod(d))
    series = times**2 / 2 + times**4 * h2 / 24 - times**5 * h3 / 120
    if high == low:
        return np.asarray(series * np.exp(-mean * times), float)
    direct = (_difference(low, middle, times) - _difference(middle, high, times)) / (high - low)
    near = (high - low) * times < 1e-2
    return np.where(near, series * np.exp(-mean * times), direct)


def curve_columns(name: str) -> tuple[str, ...]:
    """Names of the stored columns with one curve of every tile, in the order of `TILE_TIMES_H`."""
    return tuple(f"{name}.{number:02d}" for number in range(len(TILE_TIMES_H)))
