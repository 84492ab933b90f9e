"""The outlines of the specimen on a PET slice and on the section, at the same resolution.

A PET slice shows the specimen blurred by the scanner and with uneven uptake.  The position of a low
threshold depends little on the uptake at the rim, so the outline is drawn at a low threshold; the
section's outline comes from its tissue mask blurred by the same resolution, so that both are
enlarged equally.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, gaussian_filter, label, zoom

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Lattice
from napari_mosaik.core.raster import Raster

__all__ = ["TYPICAL_RIM", "blurred_outline", "pet_mask"]

TYPICAL_RIM = 0.6
"""Typical uptake at the rim over that of the bright parts of a slice; see `blurred_outline`."""
_SIGMA_PER_FWHM = 1.0 / 2.3548
_OUTLINE_SPACING_UM = 50.0


def pet_mask(pet: Raster, *, fraction: float = 0.1, refine: int = 8) -> Raster:
    """Mask of the specimen on a PET slice.

    The slice is interpolated first, so that the outline does not follow the voxel edges.

    Parameters
    ----------
    pet
        Activity or SUV (rows, columns), any unit; NaN counts as background.
    fraction
        Threshold of the edge between background (0) and the bright parts of the specimen (1).
    refine
        Samples per voxel along each axis of the result.

    Returns
    -------
    Mask (rows, columns) over the area of the PET with *refine* times finer spacing, holes filled,
    largest connected component only.

    Raises
    ------
    InputError
        If the slice has channels or nothing above its background.
    """
    if pet.values.ndim != 2:
        raise InputError(f"the PET must be (rows, columns), not {pet.values.shape}")
    values = np.nan_to_num(np.asarray(pet.values, np.float64))
    fine = _interpolated(values, refine)
    background = float(np.quantile(fine, 0.02))
    top = float(np.quantile(fine, 0.995))
    if not top - background > 1e-6 * abs(top):
        raise InputError(
            "the PET slice is uniform: no specimen can be outlined; choose another slice"
        )
    inside = fine > background + 0.3 * (top - background)
    bright = float(np.quantile(fine[inside], 0.9))
    inside = fine > background + fraction * (bright - background)
    mask = _largest(binary_fill_holes(inside))
    spacing = (pet.lattice.spacing_um[0] / refine, pet.lattice.spacing_um[1] / refine)
    lattice = Lattice(pet.lattice.frame, mask.shape, spacing, pet.lattice.origin_um)
    return Raster(mask, lattice)


def blurred_outline(tissue: Raster, fwhm_um: float, *, fraction: float = 0.1) -> Raster:
    """Mask of the section as a scanner of the given resolution would image it.

    Parameters
    ----------
    tissue
        Tissue mask (rows, columns) of the section.
    fwhm_um
        Resolution of the scanner (full width at half maximum), µm.
    fraction
        The fraction of `pet_mask`; it is divided by `TYPICAL_RIM`, because the uptake at the rim is
        lower than in the bright parts.

    Returns
    -------
    Mask (rows, columns) at about 50 µm per sample, with a margin for the enlarged outline, holes
    filled, largest connected component only.
    """
    values = np.asarray(tissue.values, np.float64)
    step = max(1, round(_OUTLINE_SPACING_UM / max(tissue.lattice.spacing_um)))
    rows, cols = (-(-length // step) * step for length in values.shape)
    padded = np.zeros((rows, cols))
    padded[: values.shape[0], : values.shape[1]] = values
    means = padded.reshape(rows // step, step, cols // step, step).mean(axis=(1, 3))
    spacing = (tissue.lattice.spacing_um[0] * step, tissue.lattice.spacing_um[1] * step)
    margin = [int(np.ceil(2 * fwhm_um / s)) for s in spacing]
    means = np.pad(means, [(m, m) for m in margin])
    blurred = gaussian_filter(means, [fwhm_um * _SIGMA_PER_FWHM / s for s in spacing])
    mask = _largest(binary_fill_holes(blurred > fraction / TYPICAL_RIM))
    origin = (
        tissue.lattice.origin_um[0] - margin[0] * spacing[0],
        tissue.lattice.origin_um[1] - margin[1] * spacing[1],
    )
    return Raster(mask, Lattice(tissue.lattice.frame, mask.shape, spacing, origin))


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, n = label(mask)
    sizes = np.bincount(parts.ravel(), minlength=n + 1)
    sizes[0] = 0
    return np.asarray(parts == int(sizes.argmax()))


def _interpolated(values: FloatArray, refine: int) -> FloatArray:
    """Cubic interpolation at the centres of the finer samples; edges are repeated."""
    fine = zoom(values, refine, order=3, mode="nearest", grid_mode=True)
    return np.asarray(fine, np.float64)
