"""Image content: the haematoxylin density that all sections share, and registration by it.

All angles are tried by masked correlation, for sections whose outline does not determine the
transform: one that fills its image has no outline, and a circular one does not determine the angle.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from itertools import product

import numpy as np
import scipy  # its parts are loaded on first use
from numpy.typing import NDArray

from napari_mosaik.core.colour import (
    DAB,
    EOSIN,
    HAEMATOXYLIN,
    optical_density,
    stain_density,
    stain_matrix,
)
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.progress import checkpoint, side_by_side
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.affine_fit import (
    InverseTransform,
    SmoothedImage,
    Smoother,
    best_fit,
    smoothed_image,
)
from napari_mosaik.register.outline_registration import separated_peaks
from napari_mosaik.register.params import AlignKind
from napari_mosaik.register.quality import mask_size_um

__all__ = [
    "candidates_by_content",
    "density_correlation",
    "haematoxylin_density",
    "is_outline_complete",
    "refine_by_correlation",
    "second_stain_of",
]

_MAX_OD = 2.0
"""Darker pixels (folds, ink, dust) are clipped to this."""
_MAX_PIXELS = 200_000
_MIN_EOSIN = 0.12
"""Fraction of eosin from which a section is H&E (0.04 on H-DAB, 0.2 and more on H&E)."""
_COARSE_PX = 96
_MIN_OVERLAP = 0.4
_MAX_CUT_EDGE = 0.15
_MAX_POINTS = 40_000
_ANGLES_AT_ONCE = 10

ComplexArray = NDArray[np.complex128]


def second_stain_of(rgb: NDArray[np.uint8]) -> tuple[float, float, float]:
    """The second stain of a section: eosin or DAB.

    The stained pixels are separated into three stains; on a section without eosin, the fraction of
    eosin is a few per cent at most.

    Parameters
    ----------
    rgb
        (..., 3) 8-bit pixels.

    Returns
    -------
    Stain vector (3,) in OD, dimensionless: `EOSIN` or `DAB`; DAB where hardly a pixel is stained.
    """
    pixels = rgb.reshape(-1, 3)
    pixels = pixels[:: 1 + len(pixels) // _MAX_PIXELS]
    density = optical_density(pixels)
    density = density[density.sum(axis=1) > 0.3].astype(np.float64)
    if len(density) < 100:
        return DAB
    three = np.linalg.inv(stain_matrix(HAEMATOXYLIN, EOSIN, DAB)).T
    amounts = np.maximum(density @ three, 0).sum(axis=0)
    return EOSIN if amounts[1] > _MIN_EOSIN * amounts.sum() else DAB


def haematoxylin_density(image: Raster) -> Raster:
    """Haematoxylin density (rows, columns) in natural OD, 0 to 2, on the lattice of the image.

    The second stain is determined from the pixels; see `second_stain_of`.

    Parameters
    ----------
    image
        (rows, columns, 3) 8-bit RGB at some 5 to 20 µm per pixel.

    Raises
    ------
    InputError
        If the image is not 8-bit RGB.
    """
    if image.values.ndim != 3 or image.values.shape[2] != 3 or image.values.dtype != np.uint8:
        raise InputError(
            f"haematoxylin needs an 8-bit RGB image, not {image.values.dtype} of shape "
            f"{image.values.shape}"
        )
    matrix = stain_matrix(HAEMATOXYLIN, second_stain_of(image.values))
    amounts = stain_density(image.values, matrix)[..., 0]
    return Raster(np.clip(amounts, 0.0, _MAX_OD), image.lattice)


def is_outline_complete(mask: Raster) -> bool:
    """Whether the outline of a mask (rows, columns) lies inside its image.

    At most 15 % of it may lie on the edge of the image.
    """
    inside = np.asarray(mask.values, bool)
    cut = sum(int(side.sum()) for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
    padded = np.pad(inside, 1)
    perimeter = sum(int((padded ^ np.roll(padded, 1, axis)).sum()) for axis in (0, 1))
    return cut <= _MAX_CUT_EDGE * max(perimeter, 1)


def candidates_by_content(
    moving: Raster | Smoother,
    fixed: Raster | Smoother,
    moving_tissue: Raster,
    fixed_tissue: Raster,
    *,
    scale: float = 1.0,
    mirror: bool = True,
    angle_step_deg: float = 3.0,
    max_candidates: int = 3,
) -> Generator[float, None, list[Transform]]:
    """The transforms of greatest correlation over all angles and shifts, best first.

    A generator that yields the fraction done.

    Parameters
    ----------
    moving, fixed
        Haematoxylin densities (rows, columns), OD.
    moving_tissue, fixed_tissue
        Masks (rows, columns) of the same sections: only tissue on both is compared, and it must be
        at least two fifths of the smaller one.
    scale
        Linear scale of the transform, dimensionless.
    mirror
        Also try the mirror image.
    angle_step_deg
        Step of the scan, degrees.
    max_candidates
        Maximum number of candidates per side, at least 20 degrees apart.

    References
    ----------
    Padfield 2012, IEEE Transactions on Image Processing 21: 2706-2718 (masked correlation).
    """
    step = max(mask_size_um(fixed_tissue), scale * mask_size_um(moving_tissue)) / _COARSE_PX
    frames = moving.lattice.frame, fixed.lattice.frame
    reference = _Reference.of(fixed, fixed_tissue, step, moving_tissue, scale)
    image = _masked_image(moving, moving_tissue, step / scale)
    angles = np.arange(0.0, 360.0, angle_step_deg)

    def best_shifts(part: tuple[bool, FloatArray]) -> list[tuple[float, Transform]]:
        found = []
        for angle in part[1]:
            checkpoint()
            rotation = Transform.similarity(
                *frames, angle_deg=float(angle), scale=scale, mirror=part[0]
            )
            found.append(reference.best_shift(image, rotation))
        return found

    sides = (False, True) if mirror else (False,)
    parts = np.array_split(angles, math.ceil(angles.size / _ANGLES_AT_ONCE))
    found = yield from side_by_side(best_shifts, list(product(sides, parts)))
    best = [one for part in found for one in part]
    candidates: list[Transform] = []
    for number in range(len(sides)):
        here = best[number * angles.size : (number + 1) * angles.size]
        peaks = separated_peaks(angles, np.array([score for score, _ in here]), max_candidates)
        candidates += [here[i][1] for i in peaks]
    return candidates


@dataclass(frozen=True, slots=True, eq=False)
class _MaskedImage:
    """Density and mask (0 outside), each (rows, columns), on one coarse lattice."""

    values: FloatArray
    mask: FloatArray
    lattice: Lattice


def _masked_image(density: Raster | Smoother, tissue: Raster, step_um: float) -> _MaskedImage:
    lattice = tissue.lattice.resized(step_um)
    points = lattice.centres_um().reshape(-1, 2)
    values = smoothed_image(density, 2 * step_um).at(points).reshape(lattice.shape)
    mask = tissue.at(points, outside=0.0).reshape(lattice.shape)
    return _MaskedImage(values * mask, np.asarray(mask, np.float64), lattice)


@dataclass(frozen=True, slots=True, eq=False)
class _Reference:
    """The spectra of the fixed image, ready to be correlated with rotated moving images."""

    image: _MaskedImage
    shape: tuple[int, int]
    side: int
    mask: ComplexArray
    values: ComplexArray
    squares: ComplexArray

    @classmethod
    def of(
        cls,
        fixed: Raster | Smoother,
        tissue: Raster,
        step_um: float,
        moving_tissue: Raster,
        scale: float,
    ) -> _Reference:
        image = _masked_image(fixed, tissue, step_um)
        side = math.ceil(scale * math.hypot(*moving_tissue.lattice.extent_um) / step_um) + 2
        rows, cols = (scipy.fft.next_fast_len(n + side, real=True) for n in image.values.shape)
        shape = (rows, cols)
        parts = (image.mask, image.values, image.values**2)
        spectra = [np.asarray(scipy.fft.rfft2(part, shape), np.complex128) for part in parts]
        return cls(image, shape, side, *spectra)

    def best_shift(self, moving: _MaskedImage, rotation: Transform) -> tuple[float, Transform]:
        """Greatest correlation of the rotated image over all shifts, and the shifted transform."""
        step = self.image.lattice.spacing_um[0]
        centre = moving.lattice.to_um((np.array(moving.lattice.shape) - 1) / 2)
        offsets = (np.indices((self.side, self.side)) - (self.side - 1) / 2) * step
        linear = np.linalg.inv(rotation.matrix[:2, :2])
        index = moving.lattice.to_index(
            np.moveaxis(offsets, 0, -1).reshape(-1, 2) @ linear.T + centre
        ).T
        values, mask = (
            scipy.ndimage.map_coordinates(image, index, order=1, cval=0.0).reshape(
                self.side, self.side
            )
            for image in (moving.values, moving.mask)
        )
        mask = np.where(mask > 0.5, 1.0, 0.0)
        ncc = self._correlation(values * mask, mask)
        peak = np.unravel_index(int(ncc.argmax()), ncc.shape)
        # shifts beyond the fixed image wrap around in the spectrum: they are negative
        lengths = self.image.values.shape
        shift = np.array(
            [p - s if p >= n else p for p, s, n in zip(peak, self.shape, lengths, strict=True)]
        )
        middle = self.image.lattice.to_um(shift + (self.side - 1) / 2)
        matrix = np.array(rotation.matrix)
        matrix[:2, 2] = middle - matrix[:2, :2] @ centre
        return float(ncc[peak]), Transform(rotation.source, rotation.target, matrix)

    def _correlation(self, values: FloatArray, mask: FloatArray) -> FloatArray:
        """Correlation over the common mask at every shift; -1 where the overlap is too small."""
        own = [np.conj(scipy.fft.rfft2(part, self.shape)) for part in (mask, values, values**2)]

        def summed(first: ComplexArray, second: ComplexArray) -> FloatArray:
            return np.asarray(scipy.fft.irfft2(first * second, self.shape), np.float64)

        n = np.maximum(summed(self.mask, own[0]), 1e-3)
        fixed_sum, moving_sum = summed(self.values, own[0]), summed(self.mask, own[1])
        product = summed(self.values, own[1]) - fixed_sum * moving_sum / n
        spread = (summed(self.squares, own[0]) - fixed_sum**2 / n) * (
            summed(self.mask, own[2]) - moving_sum**2 / n
        )
        min_overlap = _MIN_OVERLAP * min(float(self.image.mask.sum()), float(mask.sum()))
        usable = (n > min_overlap) & (spread > 1e-9)
        return np.where(usable, product / np.sqrt(np.maximum(spread, 1e-9)), -1.0)


def density_correlation(
    moving_density: Raster | Smoother,
    fixed_density: Raster | Smoother,
    transform: Transform,
    sigma_um: float = 40.0,
) -> float:
    """Normalised correlation of two smoothed densities over the fixed tissue.

    Parameters
    ----------
    moving_density, fixed_density
        Haematoxylin densities (rows, columns), OD; NaN or 0 off the tissue.
    transform
        From the moving to the fixed section.
    sigma_um
        Standard deviation of the smoothing Gaussian, µm.

    Returns
    -------
    -1 to 1, dimensionless; NaN if one of them is constant.
    """
    moving = smoothed_image(moving_density, sigma_um)
    points, target = _tissue_points(fixed_density, sigma_um)
    about = points.mean(axis=0) if len(points) else np.zeros(2)
    values = moving.at(InverseTransform.of(transform, about, 1.0).apply(points))
    if values.size < 3 or values.std() == 0 or target.std() == 0:
        return float("nan")
    return float(np.corrcoef(values, target)[0, 1])


def _tissue_points(density: Raster | Smoother, sigma_um: float) -> tuple[FloatArray, FloatArray]:
    """Some ten thousand positions on the fixed tissue and its rim, with their values."""
    image: SmoothedImage = smoothed_image(density, sigma_um)
    values = np.asarray(image.values, np.float64)
    rim = 0.05 * float(np.quantile(values, 0.95))
    tissue = values > rim
    subset = slice(None, None, 1 + int(np.count_nonzero(tissue)) // _MAX_POINTS)
    return image.lattice.centres_um()[tissue][subset], values[tissue][subset]


def refine_by_correlation(
    moving_density: Raster | Smoother,
    fixed_density: Raster | Smoother,
    start: Transform,
    kind: AlignKind,
    sigma_um: float,
) -> Transform:
    """The transform of greatest correlation near *start*.

    Parameters
    ----------
    moving_density, fixed_density
        Haematoxylin densities (rows, columns), OD; NaN or 0 off the tissue.
    start
        From the moving to the fixed section.
    kind
        Degrees of freedom.
    sigma_um
        Standard deviation of the smoothing Gaussian, µm.
    """
    sigma = max(sigma_um, *moving_density.lattice.spacing_um, *fixed_density.lattice.spacing_um)
    image = smoothed_image(moving_density, sigma)
    points, target = _tissue_points(fixed_density, sigma)
    if len(points) < 3 or target.std() == 0:
        return start
    unit = float(np.ptp(points, axis=0).max())
    inverse = InverseTransform.of(start, points.mean(axis=0), unit)
    inverse = best_fit(image, target, points, inverse, kind, gain=True)
    return inverse.to_forward(start.source, start.target)
