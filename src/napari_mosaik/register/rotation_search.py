"""Lay one section on another by what is inside, at every angle: for outlines that cannot tell.

A section that fills its picture has no outline; one that is round has none that fixes an angle.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import map_coordinates

from napari_mosaik.core.angles import DISTINCT_DEG, angle_difference_deg
from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.affine_fit import smoothed_image
from napari_mosaik.register.blocks import tissue_size_um

__all__ = ["candidates_by_content", "outline_is_whole"]

_COARSE_PX = 96
_LEAST_OVERLAP = 0.4
_CUT_OFF = 0.15

Complex = NDArray[np.complex128]


def outline_is_whole(mask: Raster) -> bool:
    """Whether a mask's outline is seen: at most a sixth of it lies on the picture's edge."""
    inside = np.asarray(mask.values, bool)
    edge = sum(int(side.sum()) for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
    padded = np.pad(inside, 1)
    around = sum(int((padded ^ np.roll(padded, 1, axis)).sum()) for axis in (0, 1))
    return edge <= _CUT_OFF * max(around, 1)


def candidates_by_content(
    moving: Raster,
    fixed: Raster,
    moving_tissue: Raster,
    fixed_tissue: Raster,
    *,
    scale: float = 1.0,
    mirror: bool = True,
    angle_step_deg: float = 3.0,
    most: int = 3,
) -> Generator[float, None, list[Transform]]:
    """The maps of greatest correlation over all angles and shifts, best first.

    A generator that yields the fraction done.

    Parameters
    ----------
    moving, fixed
        Densities (rows, columns).
    moving_tissue, fixed_tissue
        Masks of the same frames: only what is tissue on both is compared, and it must be two
        fifths of the smaller one.
    scale
        Linear scale of the map.
    mirror
        Also try the mirror image.
    angle_step_deg
        Step of the scan.
    most
        Candidates per side, at least 20 degrees apart.

    References
    ----------
    Padfield 2012, IEEE Transactions on Image Processing 21: 2706-2718 (masked correlation).
    """
    step = max(tissue_size_um(fixed_tissue), scale * tissue_size_um(moving_tissue)) / _COARSE_PX
    still = _Still.of(fixed, fixed_tissue, step, moving_tissue, scale)
    turned = _sampled(moving, moving_tissue, step / scale)
    angles = np.arange(0.0, 360.0, angle_step_deg)
    found: list[Transform] = []
    sides = (False, True) if mirror else (False,)
    for number, mirrored in enumerate(sides):
        scores, maps = np.empty(angles.size), []
        for i, angle in enumerate(angles):
            forward = Transform.similarity(
                moving.lattice.frame,
                fixed.lattice.frame,
                angle_deg=float(angle),
                scale=scale,
                mirror=mirrored,
            )
            scores[i], placed = still.best(turned, forward)
            maps.append(placed)
            if i % 20 == 0:
                yield (number + i / angles.size) / len(sides)
        found += [maps[i] for i in _apart(angles, scores, most)]
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Sampled:
    """Density and mask (0 outside) on one coarse lattice."""

    values: FloatArray
    mask: FloatArray
    lattice: Lattice


def _sampled(density: Raster, tissue: Raster, step_um: float) -> _Sampled:
    lattice = tissue.lattice.resized(step_um)
    points = lattice.centres_um().reshape(-1, 2)
    values = smoothed_image(density, 2 * step_um).at(points).reshape(lattice.shape)
    mask = tissue.at(points, outside=0.0).reshape(lattice.shape)
    return _Sampled(values * mask, np.asarray(mask, np.float64), lattice)


@dataclass(frozen=True, slots=True, eq=False)
class _Still:
    """The fixed picture's spectra, ready to be compared with any turned picture."""

    sampled: _Sampled
    shape: tuple[int, int]
    side: int
    mask: Complex
    values: Complex
    squares: Complex

    @classmethod
    def of(
        cls, fixed: Raster, tissue: Raster, step_um: float, moving_tissue: Raster, scale: float
    ) -> _Still:
        sampled = _sampled(fixed, tissue, step_um)
        side = math.ceil(scale * math.hypot(*moving_tissue.lattice.extent_um) / step_um) + 2
        rows, cols = (fft.next_fast_len(n + side, real=True) for n in sampled.values.shape)
        shape = (rows, cols)
        parts = (sampled.mask, sampled.values, sampled.values**2)
        spectra = [np.asarray(fft.rfft2(part, shape), np.complex128) for part in parts]
        return cls(sampled, shape, side, *spectra)

    def best(self, moving: _Sampled, forward: Transform) -> tuple[float, Transform]:
        """Greatest correlation over all shifts of a turned picture, and the map with that shift."""
        step = self.sampled.lattice.spacing_um[0]
        centre = moving.lattice.to_um((np.array(moving.lattice.shape) - 1) / 2)
        offsets = (np.indices((self.side, self.side)) - (self.side - 1) / 2) * step
        linear = np.linalg.inv(forward.matrix[:2, :2])
        at = moving.lattice.to_index(
            np.moveaxis(offsets, 0, -1).reshape(-1, 2) @ linear.T + centre
        ).T
        values, mask = (
            map_coordinates(image, at, order=1, cval=0.0).reshape(self.side, self.side)
            for image in (moving.values, moving.mask)
        )
        mask = np.where(mask > 0.5, 1.0, 0.0)
        ncc = self._correlation(values * mask, mask)
        peak = np.unravel_index(int(ncc.argmax()), ncc.shape)
        shift = np.array(
            [
                p - s if p >= n else p
                for p, s, n in zip(peak, self.shape, self._lengths, strict=True)
            ]
        )
        middle = self.sampled.lattice.to_um(shift + (self.side - 1) / 2)
        matrix = np.array(forward.matrix)
        matrix[:2, 2] = middle - matrix[:2, :2] @ centre
        return float(ncc[peak]), Transform(forward.source, forward.target, matrix)

    @property
    def _lengths(self) -> tuple[int, int]:
        rows, cols = self.sampled.values.shape
        return rows, cols

    def _correlation(self, values: FloatArray, mask: FloatArray) -> FloatArray:
        """Correlation over the common mask at every shift; -1 where too little is common."""
        own = [np.conj(fft.rfft2(part, self.shape)) for part in (mask, values, values**2)]

        def summed(first: Complex, second: Complex) -> FloatArray:
            return np.asarray(fft.irfft2(first * second, self.shape), np.float64)

        n = np.maximum(summed(self.mask, own[0]), 1e-3)
        ours, theirs = summed(self.values, own[0]), summed(self.mask, own[1])
        product = summed(self.values, own[1]) - ours * theirs / n
        spread = (summed(self.squares, own[0]) - ours**2 / n) * (
            summed(self.mask, own[2]) - theirs**2 / n
        )
        least = _LEAST_OVERLAP * min(float(self.sampled.mask.sum()), float(mask.sum()))
        usable = (n > least) & (spread > 1e-9)
        return np.where(usable, product / np.sqrt(np.maximum(spread, 1e-9)), -1.0)


def _apart(angles_deg: FloatArray, scores: FloatArray, most: int) -> list[int]:
    """Numbers of the best angles, at least 20 degrees apart."""
    taken: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        away = [abs(angle_difference_deg(angles_deg[i], angles_deg[j])) for j in taken]
        if all(a > DISTINCT_DEG for a in away):
            taken.append(int(i))
        if len(taken) == most:
            break
    return taken
