"""Biological response of tissue to absorbed dose: survival, BED, EQD2, oxygen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.dosimetry.checks import (
    above_zero,
    as_numbers,
    at_least_zero,
    not_negative,
    within_limits,
)
from napari_mosaik.dosimetry.pools import checked_rate

__all__ = [
    "Response",
    "UnevenTable",
    "oxygen_effect",
    "oxygen_from_distance",
    "respond",
    "uneven_ln_survival",
]

_SCAN = 256
_HALVINGS = 60
_NEWTON = 30
_NODES = 24


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """Response of each tile (and draw), all of one shape; views that cannot be written to.

    Attributes
    ----------
    ln_survival
        ln S, without unit; above 0 where more cells are born than killed.
    dose_gy
        Physical absorbed dose of electrons, photons and alpha particles, Gy.
    q_gy2
        Effective squared dose G D^2 of electrons and photons, as given, Gy^2.
    bed_gy
        Biologically effective dose, -ln S / alpha, Gy.
    eqd2_gy
        Dose in fractions of 2 Gy with the same BED and the alpha/beta of beta, Gy.
    rbe_weighted_gy
        Dose of electrons and photons plus RBE times that of alpha particles, Gy.  It is no
        absorbed dose.
    critical_time_h
        Time, h, from which the dose rate kills more slowly than cells are born; NaN without
        repopulation or dose rate, infinite where this never happens.
    """

    ln_survival: FloatArray
    dose_gy: FloatArray
    q_gy2: FloatArray
    bed_gy: FloatArray
    eqd2_gy: FloatArray
    rbe_weighted_gy: FloatArray
    critical_time_h: FloatArray


def respond(
    dose_gy: ArrayLike,
    q_gy2: ArrayLike,
    *,
    alpha_per_gy: ArrayLike,
    beta_per_gy2: ArrayLike,
    alpha_particle_gy: ArrayLike = 0.0,
    rbe: ArrayLike = 5.0,
    oxygen: ArrayLike = 1.0,
    oxygen_alpha: ArrayLike = 1.0,
    time_h: ArrayLike = 0.0,
    kick_off_h: ArrayLike = 0.0,
    doubling_time_h: ArrayLike = math.inf,
    rate: tuple[ArrayLike, ArrayLike] | None = None,
) -> Response:
    """Linear-quadratic response to a protracted dose; everything broadcasts (tiles x draws).

    ``-ln S = alpha (D h + rbe D_alpha h_alpha) + beta Q h^2 - ln2 / T_d max(0, time - kick-off)``.
    For many draws, call it for blocks of them: nothing is kept from call to call.

    Parameters
    ----------
    dose_gy, q_gy2
        Dose D, Gy, and effective squared dose Q = G D^2, Gy^2, of electrons and photons.
    alpha_per_gy, beta_per_gy2
        Linear (1/Gy, above 0) and quadratic (1/Gy^2, 0 or more) coefficient for photons.
    alpha_particle_gy, rbe
        Dose of alpha particles and recoiling nuclei, Gy, and the factor of their linear
        coefficient; they have no quadratic one.
    oxygen, oxygen_alpha
        Effectiveness h in [0, 1] relative to full oxygen, as of `oxygen_effect`, of electrons and
        photons, and of alpha particles.
    time_h, kick_off_h, doubling_time_h
        Time at which survival is asked for, start of repopulation and doubling time, h.
    rate
        Amplitudes (..., k), Gy/h, and decay rates (..., k), 1/h, of the dose rate, for the critical
        time; oxygen and kick-off do not enter it.

    Returns
    -------
    Response
        Arrays of the shape of all arguments together; NaN where an argument is NaN.

    Raises
    ------
    InputError
        If alpha is 0 or less, beta, a dose or a time is negative, h lies outside [0, 1], or shapes
        do not broadcast.

    References
    ----------
    Dale 1985, Br J Radiol 58:515; Dale 1989, Br J Radiol 62:241 (critical time); Sgouros et al.
    2010, J Nucl Med 51:311 (alpha particles).
    """
    d = not_negative("the dose", dose_gy, "Gy")
    q = not_negative("the effective squared dose", q_gy2, "Gy²")
    alpha = not_negative("alpha", alpha_per_gy, "/Gy")
    if (alpha == 0).any():
        raise InputError("alpha must be above 0 /Gy: with alpha/beta = 0 there is no BED")
    beta = not_negative("beta", beta_per_gy2, "/Gy²")
    high = not_negative("the dose of alpha particles", alpha_particle_gy, "Gy")
    weight = not_negative("the RBE of alpha particles", rbe)
    h = within_limits("the oxygen effect h", oxygen, 0, 1)
    h_alpha = within_limits("the oxygen effect h of alpha particles", oxygen_alpha, 0, 1)
    late = not_negative("the time", time_h, "h") - not_negative("the kick-off", kick_off_h, "h")
    birth = _births_per_h(doubling_time_h)
    try:
        killed = alpha * (d * h + weight * high * h_alpha) + beta * q * h**2
        ln_s = birth * np.maximum(late, 0.0) - killed
        critical = _critical_time_h(alpha, birth, rate)
        shape = np.broadcast_shapes(ln_s.shape, critical.shape)
    except ValueError:
        raise InputError("the shapes of the arguments of the response do not broadcast") from None
    bed = -ln_s / alpha
    parts = (ln_s, d + high, q, bed, bed / (1 + 2 * beta / alpha), d + weight * high, critical)
    return Response(*(np.broadcast_to(np.asarray(part, float), shape) for part in parts))


def _births_per_h(doubling_time_h: ArrayLike) -> FloatArray:
    doubling = as_numbers("the doubling time", doubling_time_h)
    if (doubling <= 0).any():
        raise InputError(f"the doubling time must be above 0 h, not {np.nanmin(doubling):g} h")
    return np.asarray(math.log(2) / doubling, float)


def _critical_time_h(
    alpha: FloatArray, birth: FloatArray, rate: tuple[ArrayLike, ArrayLike] | None
) -> FloatArray:
    """Last time, h, at which ``alpha R = ln2 / T_d``; 0 where R is never so large."""
    shape = np.broadcast_shapes(alpha.shape, birth.shape)
    if rate is None:
        return np.full((), np.nan)
    levels, rates = checked_rate(*rate)
    shape = np.broadcast_shapes(shape, levels.shape[:-1], rates.shape[:-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        need = np.broadcast_to(birth / alpha, shape)
        if levels.shape[-1] == 1 and (rates > 0).all():
            found = np.maximum(np.log(levels[..., 0] / need) / rates[..., 0], 0.0)
        else:
            found = _last_crossing(levels, rates, need)
    return np.where(need > 0, found, np.nan)


def _last_crossing(levels: FloatArray, rates: FloatArray, need: FloatArray) -> FloatArray:
    """Last time, h, at which exponentials (..., k), Gy/h, reach the rate *need* (...), Gy/h."""

    def reaches(time: FloatArray) -> FloatArray:
        return np.asarray(np.sum(levels * np.exp(-rates * time[..., None]), axis=-1) >= need)

    stays = np.sum(np.where(rates > 0, 0.0, levels), axis=-1)
    slowest = np.min(np.where(rates > 0, rates, np.inf), axis=-1)
    rest = np.sum(np.abs(levels), axis=-1) / (need - stays)
    beyond = np.where(np.isfinite(slowest), np.log(np.maximum(rest, 1.0)) / slowest, 0.0)
    beyond = np.broadcast_to(np.where(np.isfinite(beyond), beyond, 0.0), need.shape)
    low = np.zeros(need.shape)
    ever = reaches(low)
    for share in np.linspace(0, 1, _SCAN)[1:]:
        now = reaches(beyond * share)
        low, ever = np.where(now, beyond * share, low), np.logical_or(ever, now)
    high = np.minimum(low + beyond / (_SCAN - 1), beyond)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = reaches(middle)
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    found = np.where(ever, low, 0.0)
    found = np.where(stays >= need, np.inf, found)
    return np.where(np.isnan(np.sum(levels + rates, axis=-1) + need), np.nan, found)


def uneven_ln_survival(linear: ArrayLike, quadratic: ArrayLike, cv: ArrayLike) -> FloatArray:
    """Logarithm of the mean survival where the dose varies within a tile: what a PET cannot see.

    ``ln E[exp(-(linear x + quadratic x^2))]``, x lognormal with mean 1.  Cell kill is convex, so
    more cells survive than at the mean dose.

    Parameters
    ----------
    linear, quadratic
        ``alpha D`` and ``beta Q`` at the mean dose of the tile, dimensionless, of shapes that
        broadcast; 0 or more, NaN gives NaN.
    cv
        Coefficient of variation of the dose within the tile, in [0, 0.5], dimensionless.

    Returns
    -------
    numpy.ndarray
        ln S of the shape of all arguments together, by Gaussian quadrature round the dose that
        contributes most.

    Raises
    ------
    InputError
        For a negative effect, or a coefficient of variation outside [0, 0.5].
    """
    a, b = (
        not_negative("the linear effect", linear),
        not_negative("the quadratic effect", quadratic),
    )
    width = within_limits("the coefficient of variation within a tile", cv, 0, 0.5)
    sd = np.sqrt(np.log1p(width**2))
    a, b, sd = np.broadcast_arrays(a, b, sd)

    def terms(z: FloatArray) -> tuple[FloatArray, FloatArray]:
        x = np.exp(sd * z - sd**2 / 2)
        return a * x, b * x**2

    z = np.zeros(a.shape)  # where -(a x + b x^2) - z^2 / 2 is largest; it is concave in z
    for _ in range(_NEWTON):
        one, two = terms(z)
        slope, bend = sd * (one + 2 * two) + z, sd**2 * (one + 4 * two) + 1
        z = z - slope / bend
    one, two = terms(z)
    step = 1 / np.sqrt(sd**2 * (one + 4 * two) + 1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    total = np.zeros(a.shape)
    top = one + two + z**2 / 2
    for node, weight in zip(nodes, weights, strict=True):
        at = z + step * node
        one, two = terms(at)
        total = total + weight * np.exp(top - one - two - at**2 / 2 + node**2 / 2)
    found = np.log(total * step / math.sqrt(2 * math.pi)) - top
    return np.asarray(np.where(sd == 0, -(a + b), found), float)[()]


class UnevenTable:
    """`uneven_ln_survival` for millions of tiles and draws, from a table of it.

    Linear between nodes of the logarithm of the whole effect, the share of its quadratic part, and
    the coefficient of variation: within 0.1 % of it up to an effect of 100, and 1 % beyond.
    """

    def __init__(self) -> None:
        self._effect = np.linspace(math.log(1e-4), math.log(1e4), 321)
        self._share, self._cv = np.linspace(0, 1, 17), np.linspace(0, 0.5, 201)
        effect, share, cv = np.meshgrid(
            np.exp(self._effect), self._share, self._cv, indexing="ij", sparse=True
        )
        found = uneven_ln_survival(effect * (1 - share), effect * share, cv)
        self._ratio = np.asarray(found / -effect, float)

    def ln_survival(self, linear: ArrayLike, quadratic: ArrayLike, cv: ArrayLike) -> FloatArray:
        """Ln S, dimensionless, of effects and coefficients of variation of shapes that broadcast.

        Parameters and NaN as in `uneven_ln_survival`.
        """
        from scipy.ndimage import map_coordinates

        given = np.broadcast_arrays(*(np.asarray(v, float) for v in (linear, quadratic, cv)))
        a, b, width = (np.atleast_1d(one) for one in given)
        total = a + b
        with np.errstate(divide="ignore", invalid="ignore"):
            at = (np.log(total) - self._effect[0]) / (self._effect[1] - self._effect[0])
            share = b / total * (self._share.size - 1)
        known = np.isfinite(at) & np.isfinite(share)
        place = [np.where(known, at, 0.0), np.where(known, share, 0.0)]
        place.append(width / self._cv[-1] * (self._cv.size - 1))
        ratio = map_coordinates(self._ratio, place, order=1, mode="nearest")
        found = np.where(total > 0, -ratio * total, -total)
        return np.asarray(found.reshape(given[0].shape), float)


def oxygen_effect(pressure_mmhg: ArrayLike, m: float = 3.0, k: float = 3.0) -> FloatArray:
    """Effectiveness relative to full oxygen, ``h = (m q + k) / (m (q + k))``.

    Parameters
    ----------
    pressure_mmhg
        Partial pressure of oxygen q, mmHg, of any shape; 0 or more, NaN gives NaN.
    m, k
        Effect of full oxygen (3 for photons and electrons, 1 to 1.3 for alpha particles; at least
        1) and pressure, mmHg, at which half of it is reached.

    Returns
    -------
    numpy.ndarray
        h in [1/m, 1] of the same shape, without unit.

    Raises
    ------
    InputError
        For a negative pressure, m below 1, or k of 0 or less.

    References
    ----------
    Alper, Howard-Flanders 1956, Nature 178:978; Wenzl, Wilkens 2011, Phys Med Biol 56:3251.
    """
    q = as_numbers("the pressure of oxygen", pressure_mmhg)
    if (q < 0).any():
        raise InputError(f"the pressure of oxygen must be 0 mmHg or more, not {np.nanmin(q):g}")
    most = above_zero("the oxygen effect m", m)
    if most < 1:
        raise InputError(f"the oxygen effect m must be at least 1, not {most:g}")
    half = above_zero("the oxygen pressure k", k, "mmHg")
    return np.asarray(1 - (1 - 1 / most) * half / (q + half), float)[()]


def oxygen_from_distance(
    distance_um: ArrayLike,
    *,
    vessel_mmhg: float = 40.0,
    diffusion_um2_s: float = 2000.0,
    consumption_mmhg_s: float = 15.0,
) -> FloatArray:
    """Pressure of oxygen ``q_v (1 - x / x_m)^2`` at a distance x from the nearest vessel.

    ``x_m = sqrt(2 D q_v / M)`` is how far oxygen reaches in a slab that consumes it evenly.

    Parameters
    ----------
    distance_um
        Distance, µm, of any shape; 0 or more, NaN gives NaN.
    vessel_mmhg
        Pressure at the vessel q_v, mmHg.
    diffusion_um2_s, consumption_mmhg_s
        Diffusion coefficient D, µm²/s, and consumption M, mmHg/s, above 0.

    Returns
    -------
    numpy.ndarray
        Pressure, mmHg, of the same shape; 0 beyond x_m.

    Raises
    ------
    InputError
        For a negative distance or pressure, or a D or M of 0 or less.
    """
    x = as_numbers("the distance from a vessel", distance_um)
    if (x < 0).any():
        raise InputError(f"the distance from a vessel must be 0 µm or more, not {np.nanmin(x):g}")
    vessel = at_least_zero("the pressure at the vessel", vessel_mmhg, "mmHg")
    diffusion = above_zero("the diffusion coefficient", diffusion_um2_s, "µm²/s")
    consumption = above_zero("the consumption of oxygen", consumption_mmhg_s, "mmHg/s")
    if vessel == 0:
        return np.asarray(np.where(np.isnan(x), np.nan, 0.0), float)[()]
    reach = math.sqrt(2 * diffusion * vessel / consumption)
    return np.asarray(vessel * np.clip(1 - x / reach, 0.0, None) ** 2, float)[()]
