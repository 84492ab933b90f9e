"""Spread the local dose by a kernel: the dose that neighbours give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.dosimetry.checks import above_zero, as_numbers, not_negative
from napari_mosaik.dosimetry.kernel import DoseKernel

__all__ = ["DoseSpread", "spread_dose"]

_MOST_POINTS = 1 << 28
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
    if math.prod(shape) > _MOST_POINTS:
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
