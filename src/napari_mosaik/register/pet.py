"""The outline of the specimen on a PET image, blurred as it is."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_fill_holes, label, zoom

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Lattice
from napari_mosaik.core.raster import Raster

__all__ = ["pet_mask"]


def pet_mask(pet: Raster, *, fraction: float = 0.4, refine: int = 8) -> Raster:
    """The specimen's outline on a PET slice.

    A blurred uniform object crosses half of its plateau at its edge; uptake is uneven, so the
    threshold is *fraction* of a typical value inside above the background.  The slice is
    interpolated first, so that the outline does not follow the voxels.

    Parameters
    ----------
    pet
        (rows, columns) activity or SUV; NaN counts as background.
    fraction
        Where between background (0) and the median inside (1) the edge is set.
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
    if not top > background:
        raise InputError("the PET slice is uniform; no specimen can be outlined on it")
    inside = fine > background + 0.3 * (top - background)
    for _ in range(3):
        plateau = float(np.median(fine[inside]))
        inside = fine > background + fraction * (plateau - background)
    parts, n = label(binary_fill_holes(inside))
    sizes = np.bincount(parts.ravel(), minlength=n + 1)
    sizes[0] = 0
    mask = np.asarray(parts == int(sizes.argmax()))
    spacing = (pet.lattice.spacing_um[0] / refine, pet.lattice.spacing_um[1] / refine)
    lattice = Lattice(pet.lattice.frame, mask.shape, spacing, pet.lattice.origin_um)
    return Raster(mask, lattice)


def _interpolated(values: FloatArray, refine: int) -> FloatArray:
    """Cubic interpolation at the centres of the finer samples; edges are repeated."""
    fine = zoom(values, refine, order=3, mode="nearest", grid_mode=True)
    return np.asarray(fine, np.float64)
