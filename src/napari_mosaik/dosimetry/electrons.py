"""Electron spectra of nuclides and what straight tracks leave within a distance of the decay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.dosimetry.nuclides import Nuclide

__all__ = [
    "BUILT_IN_KERNELS",
    "SCATTER",
    "beta_spectrum",
    "cole_energy_kev",
    "electron_track_table",
]

SCATTER = 0.85
"""Net distance per length of a track; chosen to agree with published Monte Carlo values."""
_ELECTRON_KEV = 510.99895
_FINE_STRUCTURE = 1 / 137.035999
_RADII = 1200
_ENERGIES = 600


@dataclass(frozen=True)
class _Decay:
    """Daughter, beta branches (end point keV, %), conversion electrons (keV, %), K-Auger."""

    daughter_z: int
    mass: int
    betas: tuple[tuple[float, float], ...]
    conversion: tuple[tuple[float, float], ...] = ()
    auger: tuple[float, float] = (0.0, 0.0)
    """Energy per decay and energy of one K-Auger electron, keV; other Auger electrons at r = 0."""
    unique: bool = False
    """Whether the transition is first forbidden unique: x (p^2 + q^2)."""


_DECAYS: Mapping[str, _Decay] = {
    "Lu-177": _Decay(
        72,
        177,
        ((497.8, 78.6), (384.9, 9.1), (176.5, 12.2)),
        ((47.5, 5.2), (102.2, 3.5), (103.4, 3.1), (110.9, 1.8)),
        (0.14, 48.0),
    ),
    "Tb-161": _Decay(
        66,
        161,
        ((519.0, 64.4), (462.0, 25.5), (568.0, 5.0), (594.0, 5.0)),
        ((39.9, 38.0), (47.3, 9.7), (17.9, 16.0), (16.6, 15.0), (17.1, 11.0), (24.0, 9.4)),
        (0.58, 40.0),
    ),
    "I-131": _Decay(
        54,
        131,
        ((606.3, 89.5), (333.8, 7.2), (247.9, 2.1)),
        ((329.9, 1.6), (45.6, 3.6)),
    ),
    "Y-90": _Decay(40, 90, ((2280.0, 100.0),), unique=True),
}
BUILT_IN_KERNELS = tuple(_DECAYS)
"""Names of the nuclides with a built-in spectrum."""
"""End points, energies and intensities of the built-in kernels: ICRP Publication 107."""


def cole_energy_kev(range_um: FloatArray) -> FloatArray:
    """Energy, keV, of an electron of a range, µm at unit density, of any shape; at least 0.

    ``5.9 (R + 0.007)^0.565 + 0.00413 R^1.33 - 0.367``: Cole 1969, Radiat Res.
    """
    r = np.maximum(range_um, 0.0)
    return np.maximum(5.9 * (r + 0.007) ** 0.565 + 0.00413 * r**1.33 - 0.367, 0.0)


def beta_spectrum(
    energy_kev: FloatArray, end_kev: float, daughter_z: int, mass: int, *, unique: bool = False
) -> FloatArray:
    """Relative number of beta particles per energy, ``F(Z, W) p W (W0 - W)^2``.

    Parameters
    ----------
    energy_kev
        (m,) kinetic energies, keV, above 0 and up to the end point.
    end_kev
        End point, keV.
    daughter_z, mass
        Atomic number of the daughter and mass number, for the Fermi function of a nucleus of
        finite radius.
    unique
        First forbidden unique transition: times ``p^2 + q^2``, q the neutrino's momentum.

    Returns
    -------
    numpy.ndarray
        (m,) up to a factor, without unit.
    """
    from scipy.special import loggamma

    w = 1 + energy_kev / _ELECTRON_KEV
    p = np.sqrt(w**2 - 1)
    q = (end_kev - energy_kev) / _ELECTRON_KEV
    charge = _FINE_STRUCTURE * daughter_z
    gamma = np.sqrt(1 - charge**2)
    radius = 0.0029 * mass ** (1 / 3) + 0.0063 * mass ** (-1 / 3) - 0.017 / mass
    eta = charge * w / p
    # slow electrons: exp(pi eta) alone is beyond the largest number
    attraction = np.exp(np.pi * eta + 2 * np.real(loggamma(gamma + 1j * eta)))
    shape = (2 * p * radius) ** (2 * (gamma - 1)) * attraction * p * w * q**2
    return np.asarray(shape * (p**2 + q**2) if unique else shape, float)


def electron_track_table(nuclide: Nuclide) -> tuple[FloatArray, FloatArray]:
    """Radii (m,), µm at unit density, and share (m,) of the electron energy left within each.

    An electron of range R0 has left ``E(R0) - E(R0 - r)`` within r.  Beta particles, conversion
    and Auger electrons have the energies per decay of *nuclide*, keV.  Raises `InputError` for a
    nuclide without a spectrum.
    """
    if nuclide.name not in _DECAYS:
        raise InputError(
            f"there is no built-in kernel for {nuclide.name}, only for {', '.join(_DECAYS)}; give "
            "the file of a kernel or use the local one"
        )
    return _tabulated(nuclide)


@lru_cache(maxsize=32)
def _tabulated(nuclide: Nuclide) -> tuple[FloatArray, FloatArray]:
    decay = _DECAYS[nuclide.name]
    lines = [(energy, intensity * energy) for energy, intensity in decay.conversion]
    longest = float(_range_um(np.array([max(end for end, _ in decay.betas)]))[0])
    radius = np.concatenate([[0.0], np.geomspace(1e-3, longest, _RADII)])
    beta = _beta_left(decay, radius)
    if lines:
        parts = [
            (nuclide.beta_kev, beta),
            (nuclide.conversion_kev, _left(*_columns(lines), radius)),
        ]
    else:  # no lines are given: conversion electrons count as beta particles
        parts = [(nuclide.beta_kev + nuclide.conversion_kev, beta)]
    auger_kev, line = decay.auger
    if auger_kev:
        parts.append((auger_kev, _left(np.array([line]), np.ones(1), radius)))
    parts.append((nuclide.auger_kev - auger_kev, np.ones(radius.size)))
    total = sum(kev for kev, _ in parts)
    within = np.asarray(sum(kev * left for kev, left in parts) / total, float)
    within /= within[-1]
    radius *= SCATTER
    radius.setflags(write=False)
    within.setflags(write=False)
    return radius, within


def _columns(lines: list[tuple[float, float]]) -> tuple[FloatArray, FloatArray]:
    energy, weight = np.array(lines).T
    return energy, weight


def _beta_left(decay: _Decay, radius_um: FloatArray) -> FloatArray:
    """Share of the energy of all beta branches left within each radius (m,), µm."""
    energies, weights = [], []
    nodes, shares = np.polynomial.legendre.leggauss(_ENERGIES)
    for end, intensity in decay.betas:
        energy = (nodes + 1) / 2 * end
        number = shares * beta_spectrum(
            energy, end, decay.daughter_z, decay.mass, unique=decay.unique
        )
        energies.append(energy)
        weights.append(intensity * number / number.sum() * energy)
    return _left(np.concatenate(energies), np.concatenate(weights), radius_um)


def _left(energy_kev: FloatArray, weight: FloatArray, radius_um: FloatArray) -> FloatArray:
    """Share of energy left within each radius (m,), µm, by electrons (e,) of weighted energies."""
    full = _range_um(energy_kev)
    rest = cole_energy_kev(full - radius_um[:, None]) / energy_kev
    return np.asarray((1 - rest) @ weight / weight.sum(), float)


def _range_um(energy_kev: FloatArray) -> FloatArray:
    """Range (e,), µm, of electrons of an energy, keV: the inverse of `cole_energy_kev`."""
    low, high = np.zeros(energy_kev.size), np.full(energy_kev.size, 1e5)
    for _ in range(80):
        middle = (low + high) / 2
        less = cole_energy_kev(middle) < energy_kev
        low, high = np.where(less, middle, low), np.where(less, high, middle)
    return np.asarray((low + high) / 2, float)
