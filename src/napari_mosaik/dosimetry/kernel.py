"""Dose point kernels of electrons: how far from a decay its energy is absorbed."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.core.text import read_text
from napari_mosaik.dosimetry.checks import above_zero, not_negative, within_limits
from napari_mosaik.dosimetry.nuclides import Nuclide, as_nuclide

__all__ = ["KERNEL_COLUMNS", "DoseKernel"]

KERNEL_COLUMNS = ("r_cm", "E_MeV", "uncertainty", "mass_g", "dose_MeV_per_g")
"""Header of a kernel file, as in the tables of Graves et al. 2019, Med Phys 46:5284."""
_UM_PER_CM = 1e4
_BLOCK = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class DoseKernel:
    """Share of the electrons' energy absorbed within a distance of the decay, at unit density.

    Attributes
    ----------
    name, source
        What it is called, and where it comes from.
    radius_um
        (m,) outer radii of the shells, µm, ascending from 0 on.
    within
        (m,) share of the energy absorbed within each radius, ascending to 1; the first is absorbed
        at the decay itself.  The energy of a shell is spread evenly over its radii.
    range_um
        Mean distance of an exponential kernel, µm, which has no table; else 0.
    """

    name: str
    source: str
    radius_um: FloatArray
    within: FloatArray
    range_um: float = 0.0

    @classmethod
    def local(cls) -> DoseKernel:
        """All energy is absorbed where it is released: for tiles wider than the range, µm."""
        return cls("local", "energy absorbed where it is released", np.zeros(1), np.ones(1))

    @classmethod
    def exponential(cls, range_um: float) -> DoseKernel:
        """Energy falls as ``exp(-r / range_um) / range_um``; mean distance in µm, above 0."""
        mean = above_zero("the range of an exponential kernel", range_um, "µm")
        return cls("exponential", f"exp(-r/a)/a, a = {mean:g} µm", np.zeros(1), np.zeros(1), mean)

    @classmethod
    def built_in(cls, nuclide: Nuclide | str) -> DoseKernel:
        """Straight electron tracks with the range relation of Cole 1969, shortened for scatter.

        Parameters
        ----------
        nuclide
            Lu-177, Tb-161, I-131 or Y-90, by name or record; energies in keV, distances in µm.

        Raises
        ------
        InputError
            For a nuclide without a built-in spectrum.
        """
        from napari_mosaik.dosimetry.electrons import electron_track_table

        own = as_nuclide(nuclide)
        radius, within = electron_track_table(own)
        about = "straight tracks (Cole 1969, Radiat Res) x 0.85 for scattering, ICRP 107 energies"
        return cls(f"{own.name}, built in", about, radius, within)

    @classmethod
    def from_file(cls, path: str | Path) -> DoseKernel:
        """Read a radial table such as those of Graves et al. 2019 (Med Phys 46:5284), in water.

        Parameters
        ----------
        path
            CSV file with the header ``r_cm,E_MeV,uncertainty,mass_g,dose_MeV_per_g``: outer radius
            of each shell, cm, and energy absorbed in it, MeV.  The sum of the energies counts as 1.

        Raises
        ------
        InputError
            For another header or unit, radii that do not ascend, negative or missing energies, or
            masses that belong to shells of another unit.
        """
        file = Path(path)
        rows = _read_rows(file)
        radius, energy = rows[:, 0], rows[:, 1]
        if not np.isfinite(rows[:, :2]).all():
            raise InputError(f"{file.name}: a radius or an energy is not a finite number")
        if radius[0] < 0 or (np.diff(radius) <= 0).any():
            place = 0 if radius[0] < 0 else int(np.flatnonzero(np.diff(radius) <= 0)[0]) + 1
            raise InputError(
                f"{file.name}: r_cm must ascend from 0 on, but row {place + 1} has "
                f"{radius[place]:g} cm"
            )
        if (energy < 0).any():
            place = int(np.flatnonzero(energy < 0)[0])
            raise InputError(
                f"{file.name}: E_MeV must not be negative, but row {place + 1} has "
                f"{energy[place]:g} MeV"
            )
        if not energy.sum() > 0:
            raise InputError(f"{file.name}: the energies add up to 0, which is no kernel")
        _check_masses(file.name, radius, rows[:, 3])
        if radius[0] > 0:
            radius, energy = np.concatenate([[0.0], radius]), np.concatenate([[0.0], energy])
        within = np.cumsum(energy)
        return cls(file.stem, f"file {file.name}", radius * _UM_PER_CM, within / within[-1])

    def fraction_within(self, radius_um: ArrayLike) -> FloatArray:
        """Share of the energy absorbed within distances of any shape, µm, 0 or more; NaN for NaN.

        Raises `InputError` for a negative distance.
        """
        radius = np.asarray(radius_um, float)
        if (radius < 0).any():
            raise InputError(f"a distance must be 0 µm or more, not {np.nanmin(radius):g} µm")
        if self.range_um:
            return np.asarray(-np.expm1(-radius / self.range_um), float)
        return np.asarray(np.interp(radius, self.radius_um, self.within), float)

    def transfer(self, k_per_um: ArrayLike) -> FloatArray:
        """Transfer function ``F(k) = int f(r) sin(kr) / (kr) dr``; F(0) = 1 conserves energy.

        Parameters
        ----------
        k_per_um
            Angular spatial frequencies of any shape, 1/µm (radians), 0 or more.

        Returns
        -------
        numpy.ndarray
            F of the same shape, dimensionless; NaN for NaN.

        Raises
        ------
        InputError
            For a negative or infinite frequency.
        """
        k = not_negative("spatial frequencies", k_per_um, "/µm")
        if self.range_um:
            x = k * self.range_um
            safe = np.where(x > 0, x, 1.0)
            return np.where(x > 0, np.arctan(safe) / safe, np.where(np.isnan(x), np.nan, 1.0))
        flat = k.ravel()
        step = max(1, _BLOCK // self.radius_um.size)
        parts = [self._table_transfer(flat[i : i + step]) for i in range(0, flat.size, step)]
        return np.concatenate(parts).reshape(k.shape) if parts else np.zeros(k.shape)

    def _table_transfer(self, k: FloatArray) -> FloatArray:
        from scipy.special import sici

        out = np.full(k.size, self.within[0])
        energy, width = np.diff(self.within), np.diff(self.radius_um)
        positive = np.where(k > 0, k, 1.0)
        integral = np.diff(sici(positive[:, None] * self.radius_um)[0], axis=1)
        out += np.where(k > 0, integral @ (energy / width) / positive, energy.sum())
        return np.where(np.isnan(k), np.nan, out)

    def radius_holding_um(self, fraction: float) -> float:
        """Distance, µm, within which a share in [0, 1) of the energy is absorbed; 0.5 gives r50."""
        share = float(within_limits("the share of the energy", fraction, 0, 1))
        if self.range_um:
            return -self.range_um * math.log1p(-min(share, 1 - 1e-15))
        place = int(np.searchsorted(self.within, share))
        if place == 0:
            return 0.0
        low, high = self.within[place - 1], self.within[place]
        part = (share - low) / (high - low)
        start, end = self.radius_um[place - 1], self.radius_um[place]
        return float(start + part * (end - start))

    @property
    def reach_um(self) -> float:
        """Distance, µm, beyond which nothing is absorbed (of an exponential kernel 1e-11)."""
        return 25 * self.range_um if self.range_um else float(self.radius_um[-1])


def _read_rows(file: Path) -> FloatArray:
    """(m, 5) numbers of a kernel file, in the units of its header, NaN where empty."""
    lines = csv.reader(read_text(file).splitlines())
    rows = [row for row in lines if any(cell.strip() for cell in row)]
    header = tuple(cell.strip() for cell in rows[0]) if rows else ()
    if header != KERNEL_COLUMNS:
        raise InputError(
            f"{file.name}: the header must be {','.join(KERNEL_COLUMNS)}, with these units, not "
            f"{','.join(header) or 'empty'}"
        )
    if len(rows) < 2:
        raise InputError(f"{file.name} has a header but no shells")
    for place, row in enumerate(rows[1:], 1):
        if len(row) != len(KERNEL_COLUMNS):
            raise InputError(f"{file.name}: row {place} has {len(row)} columns, not 5")
    return np.array(
        [[_cell(file.name, place, cell) for cell in row] for place, row in enumerate(rows[1:], 1)]
    )


def _cell(name: str, row: int, cell: str) -> float:
    try:
        return float(cell) if cell.strip() else math.nan
    except ValueError:
        raise InputError(f"{name}: {cell!r} in row {row} is no number") from None


def _check_masses(name: str, radius_cm: FloatArray, mass_g: FloatArray) -> None:
    """Refuse radii in another unit than cm, which the masses of shells of water, g, tell."""
    edges = np.concatenate([[0.0], radius_cm])
    volume = 4 / 3 * np.pi * np.diff(edges**3)
    used = (volume > 0) & (mass_g > 0)
    if used.sum() < 3:
        return
    density = mass_g[used] / volume[used]
    middle = float(np.median(density))
    if np.median(np.abs(density / middle - 1)) < 0.05 and not 0.5 < middle < 2:
        raise InputError(
            f"{name}: mass_g belongs to shells of {middle:.3g} g/mL, not of water: are the radii "
            "in another unit than cm?"
        )
