"""The wall of vessels on a CD34 slide: DAB above a threshold, gaps closed.

A wall shows as a ring; the vessel is the ring with its lumen (`segment.vessel_assembly`).  A block
needs a halo (`halo_um`) for its wall to be that of the whole slide.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Mask
from napari_mosaik.segment.filters import gaussian, require_rgb, stain_amount
from napari_mosaik.segment.masks import close_mask
from napari_mosaik.segment.slide_stain import (
    H_DAB,
)
from napari_mosaik.segment.vessel_params import VesselParams

__all__ = ["dab_by_hue", "halo_um", "pixel_limits", "vessel_wall"]


def halo_um(params: VesselParams) -> float:
    """Halo around a block on which its wall depends, µm.

    Twice the closing radius and the reach of the smoothing.  Lumens need none: they are filled
    once they are whole (`segment.vessel_assembly`).
    """
    return 2 * params.closing_um + 3 * params.smoothing_um + 4 * params.spacing_um


def dab_by_hue(rgb: NDArray[np.uint8]) -> Mask:
    """Mask of brown pixels, (rows, columns): hue in [350°, 360°) or [0°, 45°), S ≥ 0.15, V 0.1-0.9.

    *rgb* holds 8-bit levels, (rows, columns, 3).
    """
    red, green, blue = (require_rgb(rgb)[..., k].astype(float) for k in range(3))
    top, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    coloured = (top >= 0.1 * 255) & (top <= 0.9 * 255) & (top - low >= 0.15 * top) & (top > low)
    with np.errstate(divide="ignore", invalid="ignore"):
        hue = 60.0 * (green - blue) / (top - low)
    return np.asarray(coloured & (top == red) & (hue >= -10.0) & (hue < 45.0))


def vessel_wall(
    rgb: NDArray[np.uint8],
    spacing_um: float,
    params: VesselParams,
    threshold: float,
    vectors: ArrayLike | None = None,
) -> Mask:
    """Mask of the closed vessel wall of one block with halo, (rows, columns).

    Parameters
    ----------
    rgb
        (rows, columns, 3) 8-bit levels, the block's core surrounded by `halo_um`.
    spacing_um
        Pixel size, µm.
    params
        Settings.
    threshold
        Amount of DAB from which a pixel is wall, natural OD (`slide_stain.estimate_threshold`).
    vectors
        (3, 2) OD vectors of haematoxylin and DAB.
    """
    if not spacing_um > 0:
        raise InputError(f"the pixel size must be positive, not {spacing_um} µm")
    if params.method == "hsv":
        wall = dab_by_hue(rgb)
    else:
        sigma_px = params.smoothing_um / spacing_um
        density = stain_amount(rgb, H_DAB if vectors is None else vectors, 1)
        wall = gaussian(density, sigma_px) >= np.float32(threshold)
    return close_mask(wall, params.closing_um / spacing_um)


def pixel_limits(params: VesselParams, pixel_area_um2: float) -> tuple[int, int]:
    """Maximum pixel count of a lumen that is filled, minimum pixel count of a vessel."""
    max_lumen = math.floor(params.max_lumen_um2 / pixel_area_um2)
    return max_lumen, max(1, math.ceil(params.min_area_um2 / pixel_area_um2))
