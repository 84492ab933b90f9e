"""The outlines of the specimen on a PET slice and on the section, blurred alike.

A PET slice shows the specimen blurred by the scanner and unevenly bright.  Where a low threshold is
crossed depends little on how bright the rim is, so the outline is taken low; the section's outline
is taken from its tissue mask blurred by the same resolution, so that both are equally swollen.
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
"""Uptake at the rim over the bright parts of a slice, on average; see `blurred_outline`."""
_SIGMA_PER_FWHM = 1.0 / 2.3548
_OUTLINE_SPACING_UM = 50.0


def pet_mask(pet: Raster, *, fraction: float = 0.1, refine: int = 8) -> Raster:
    """The specimen's outline on a PET slice.

    The slice is interpolated first, so that the outline does not follow the voxels.

    Parameters
    ----------
    pet
        (rows, columns) activity or SUV; NaN counts as background.
    fraction
        Where between background (0) and the bright parts of the specimen (1) the edge is set.
    refine
        Samples per voxel along each axis of the result.

    Returns
    -------
    Mask over the area of the PET with *refine* times finer spacing, holes filled, the largest
    connected part only.

    Raises
    ------
    InputError
        If the slice has channels or shows nothing above its background.
    """
    if pet.values.ndim != 2:
        raise InputError(f"the PET has channels: shape {pet.values.shape}")
    values = np.nan_to_num(np.asarray(pet.values, np.float64))
    fine = _interpolated(values, refine)
    background = float(np.quantile(fine, 0.02))
    top = float(np.quantile(fine, 0.995))
    if not top - background > 1e-6 * abs(top):
        raise InputError("the PET slice is uniform; no specimen can be outlined on it")
    inside = fine > background + 0.3 * (top - background)
    bright = float(np.quantile(fine[inside], 0.9))
    inside = fine > background + fraction * (bright - background)
    mask = _largest(binary_fill_holes(inside))
    spacing = (pet.lattice.spacing_um[0] / refine, pet.lattice.spacing_um[1] / refine)
    lattice = Lattice(pet.lattice.frame, mask.shape, spacing, pet.lattice.origin_um)
    return Raster(mask, lattice)


def blurred_outline(tissue: Raster, fwhm_um: float, *, fraction: float = 0.1) -> Raster:
    """The section's outline as a scanner of the given resolution would see it.

    Parameters
    ----------
    tissue
        Tissue mask of the section.
    fwhm_um
        Resolution of the scanner (full width at half maximum), µm.
    fraction
        The fraction that `pet_mask` was given; it is divided by `TYPICAL_RIM`, because the rim is
        darker than the bright parts.

    Returns
    -------
    Mask at about 50 µm per sample, wide enough for the swollen outline, holes filled, the largest
    connected part only.
    """
    values = np.asarray(tissue.values, np.float64)
    step = max(1, round(_OUTLINE_SPACING_UM / max(tissue.lattice.spacing_um)))
    rows, cols = (-(-length // step) * step for length in values.shape)
    whole = np.zeros((rows, cols))
    whole[: values.shape[0], : values.shape[1]] = values
    means = whole.reshape(rows // step, step, cols // step, step).mean(axis=(1, 3))
    spacing = (tissue.lattice.spacing_um[0] * step, tissue.lattice.spacing_um[1] * step)
    margin = [int(np.ceil(2 * fwhm_um / s)) for s in spacing]
    means = np.pad(means, [(m, m) for m in margin])
    seen = gaussian_filter(means, [fwhm_um * _SIGMA_PER_FWHM / s for s in spacing])
    mask = _largest(binary_fill_holes(seen > fraction / TYPICAL_RIM))
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
