"""Dose point kernels of electrons, how far from a decay its energy is absorbed, and their use."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.core.text import read_text
from napari_mosaik.dosimetry.checks import above_zero, as_numbers, not_negative, within_limits
from napari_mosaik.dosimetry.nuclides import Nuclide, as_nuclide

__all__ = ["KERNEL_COLUMNS", "DoseKernel", "DoseSpread", "spread_dose"]

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
            raise InputError(f"{file.name}: the energies add up to 0: not a kernel")
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
        raise InputError(f"{name}: {cell!r} in row {row} is not a number") from None


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


# --- spread by a kernel ---------------------------------------------------------------------------
_MAX_POINTS = 1 << 28
_TABLE = 4096
_FINER = 16


def spread_dose(
    local_dose_gy: ArrayLike,
    spacing_um: ArrayLike,
    kernel: DoseKernel,
    *,
    density_g_ml: float = 1.05,
) -> FloatArray:
    """Absorbed dose of a map or volume whose energy travels from where it is released.

    The map times the transfer function ``F(|k|)`` in Fourier space, padded with 0 by more than
    twice the radius that holds 99 % of the energy, so that nothing comes round its edges.  Where
    the spacing is not finer than a quarter of r50, each element is even within and is divided until
    it is, and the dose is averaged over the element.

    Parameters
    ----------
    local_dose_gy
        2-D map, uniform in z, or 3-D volume of the dose, Gy, if all energy stayed where it is
        released; without activity outside.  NaN (outside the specimen, not measured) gives no
        energy, and stays NaN.
    spacing_um
        One spacing per axis, µm, or one for all.
    kernel
        How far the energy travels.
    density_g_ml
        Density of the tissue, g/mL, by which every length of the kernel is divided.

    Returns
    -------
    numpy.ndarray
        Dose of the same shape, Gy; what rings below 0 beside a sharp edge is 0.

    Raises
    ------
    InputError
        If the dose is neither a map nor a volume, is negative or infinite, the spacings do not
        belong to its axes, the density is not above 0, or the kernel reaches too far for the
        spacing.

    References
    ----------
    Bolch et al. 1999 (MIRD 17), J Nucl Med 40:11S-36S, for the dose of voxels.
    """
    dose = not_negative("the local dose", local_dose_gy, "Gy")
    if dose.ndim not in (2, 3) or not dose.size:
        raise InputError(f"the local dose must be a 2-D map or a 3-D volume, not {dose.shape}")
    spread = DoseSpread(dose.shape, spacing_um, kernel, density_g_ml=density_g_ml)
    return spread(dose)


class DoseSpread:
    """`spread_dose` for many maps or volumes of one shape: the transfer is computed once.

    Parameters
    ----------
    shape
        Shape of a map (rows, columns) or volume.
    spacing_um, kernel, density_g_ml
        As in `spread_dose`, µm and g/mL.

    Raises
    ------
    InputError
        If the spacings do not belong to the axes, the density is not above 0, or the kernel
        reaches too far for the spacing.
    """

    def __init__(
        self,
        shape: Sequence[int],
        spacing_um: ArrayLike,
        kernel: DoseKernel,
        *,
        density_g_ml: float = 1.05,
    ) -> None:
        from scipy import fft

        self.shape = tuple(shape)
        spacing = _spacing(spacing_um, len(self.shape))
        density = above_zero("the density", density_g_ml, "g/mL")
        self._transfer: NDArray[Any] | None = None
        if kernel.reach_um == 0:
            return
        finest = kernel.radius_holding_um(0.5) / density / 4
        parts = [max(1, math.ceil(s / finest - 1e-9)) if finest > 0 else _FINER for s in spacing]
        pad = [math.ceil(_padding_um(kernel) / density / step) for step in spacing]
        self._padded = [
            fft.next_fast_len(n + more, real=axis == len(self.shape) - 1)
            for axis, (n, more) in enumerate(zip(self.shape, pad, strict=True))
        ]
        if max(parts) == 1:
            _check_size(self._padded, kernel)
            self._transfer = _transfer_on(self._padded, spacing, kernel, density)
        else:
            taps = _taps(spacing, pad, parts, kernel, density)
            for axis, (n, more) in enumerate(zip(self._padded, pad, strict=True)):
                taps = np.moveaxis(taps, axis, 0)
                whole = np.zeros((n, *taps.shape[1:]))
                np.add.at(whole, (np.arange(2 * more + 1) - more) % n, taps)
                taps = np.moveaxis(whole, 0, axis)
            self._transfer = fft.rfftn(taps)

    def __call__(self, local_dose_gy: ArrayLike) -> FloatArray:
        """Dose, Gy, of local doses (..., *shape), Gy, 0 or more; NaN gives no energy and stays."""
        from scipy import fft

        dose = np.asarray(local_dose_gy, float)
        if self._transfer is None:
            return dose.copy()
        known = np.isfinite(dose)
        axes = tuple(range(-len(self.shape), 0))
        waves = fft.rfftn(np.where(known, dose, 0.0), self._padded, axes, workers=2)
        waves *= self._transfer
        spread: FloatArray = fft.irfftn(waves, self._padded, axes, workers=2, overwrite_x=True)
        inside: list[Any] = [slice(n) for n in self.shape]
        spread = spread[(..., *inside)]
        return np.where(known, np.maximum(spread, 0.0), np.nan)


def _spacing(spacing_um: ArrayLike, axes: int) -> tuple[float, ...]:
    given = as_numbers("spacings", spacing_um).ravel()
    given = np.repeat(given, axes) if given.size == 1 else given
    if given.size != axes:
        raise InputError(f"{given.size} spacings do not belong to {axes} axes: give one per axis")
    return tuple(above_zero("each spacing", step, "µm") for step in given)


def _padding_um(kernel: DoseKernel) -> float:
    return max(2 * kernel.radius_holding_um(0.99), kernel.reach_um)


def _taps(
    spacing: Sequence[float],
    pad: Sequence[int],
    parts: Sequence[int],
    kernel: DoseKernel,
    density: float,
) -> FloatArray:
    """What one even element gives to each within the padding, as the mean over a finer raster."""
    from scipy import fft

    whole = [2 * more + 1 for more in pad]
    shape = [n * part for n, part in zip(whole, parts, strict=True)]
    _check_size(shape, kernel)
    one = np.zeros(shape)
    one[tuple(slice(m * p, (m + 1) * p) for m, p in zip(pad, parts, strict=True))] = 1.0
    fine = [step / part for step, part in zip(spacing, parts, strict=True)]
    # the padding is in `whole`: from the middle, the next period is as far as the kernel reaches
    waves = fft.rfftn(one, workers=2)
    waves *= _transfer_on(shape, fine, kernel, density)
    spread = fft.irfftn(waves, shape, workers=2, overwrite_x=True)
    split = spread.reshape([n for pair in zip(whole, parts, strict=True) for n in pair])
    taps = split.mean(axis=tuple(range(1, 2 * len(whole), 2)))
    return np.asarray(taps / taps.sum(), float)  # what rings beyond the kernel's reach is not lost


def _check_size(shape: Sequence[int], kernel: DoseKernel) -> None:
    if math.prod(shape) > _MAX_POINTS:
        raise InputError(
            f"the kernel '{kernel.name}' reaches {kernel.reach_um:g} µm, which needs "
            f"{' x '.join(map(str, shape))} points at this spacing; give a coarser map"
        )


def _transfer_on(
    shape: Sequence[int], spacing: Sequence[float], kernel: DoseKernel, density: float
) -> FloatArray:
    """F(|k|) on the frequencies of `scipy.fft.rfftn`, dimensionless; computed for one quadrant."""
    squares = [
        (2 * np.pi / density * np.arange(n // 2 + 1) / (n * step)) ** 2
        for n, step in zip(shape, spacing, strict=True)
    ]
    total = squares[0]
    for square in squares[1:]:
        total = total[..., None] + square
    values = _transfer_of(np.sqrt(total), kernel)
    for axis, n in enumerate(shape[:-1]):
        mirrored = np.minimum(np.arange(n), n - np.arange(n))
        values = np.take(values, mirrored, axis=axis)
    return values


def _transfer_of(k: FloatArray, kernel: DoseKernel) -> FloatArray:
    """F(k) of any shape, 1/µm, from a spline over a table that is dense where F bends."""
    if kernel.range_um or k.size <= _TABLE:
        return kernel.transfer(k)
    from scipy.interpolate import CubicSpline

    scale = 0.1 / kernel.reach_um
    end = math.asinh(float(k.max()) / scale)
    place = np.linspace(0, end, _TABLE)
    spline = CubicSpline(place, kernel.transfer(np.sinh(place) * scale))
    return np.asarray(spline(np.arcsinh(k / scale)), float)
