"""Vessels on a CD34 slide: the brown wall is closed, its lumen filled, specks are left out.

A wall shows as a ring; the vessel is the ring with its lumen, so shapes and diameters are those of
the filled object.  A slide is worked block by block: the wall with a small halo, then lumens and
vessels joined at the seams, so that the result is that of the whole slide at once.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.colour import DAB, HAEMATOXYLIN
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.params import Params, setting
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.segment.filters import (
    Float32,
    Mask,
    kernel,
    otsu,
    require_rgb,
    stain_amount,
)
from napari_mosaik.segment.masks import close_mask
from napari_mosaik.segment.stained import stain_above
from napari_mosaik.segment.stitch import whole_objects, windows

__all__ = [
    "VesselParams",
    "brown_by_hue",
    "estimate_threshold",
    "halo_um",
    "pixel_limits",
    "segment_vessels",
    "vessel_density",
    "vessel_wall",
]

H_DAB = np.array([HAEMATOXYLIN, DAB]).T
_OD_RANGE = 1.5
"""Stronger DAB counts as this much for the histogram: dark walls must not push the threshold up."""


class VesselParams(Params):
    """Settings of the vessel segmentation."""

    method: Literal["dab", "hsv"] = setting(
        "dab",
        "How brown is recognised: amount of DAB after stain separation, or the paper's hue range "
        "(loses vessel wall that lies over nuclei).",
        choices={"dab": "DAB density", "hsv": "Hue (paper)"},
    )
    spacing_um: float = setting(1.0, "Pixel size at which vessels are found.", unit="µm", gt=0)
    threshold: Literal["otsu", "fixed"] = setting(
        "otsu",
        "Take the DAB threshold from the slide's own histogram, or use the fixed value.",
        choices={"otsu": "From the slide (Otsu)", "fixed": "Fixed"},
    )
    dab_od: float = setting(
        0.6, "Fixed threshold: amount of DAB, natural optical density.", unit="OD", gt=0, le=3
    )
    lowest_od: float = setting(
        0.3,
        "The threshold from the slide never falls below this amount of DAB, so that a slide "
        "without vessels gives none.",
        unit="OD",
        gt=0,
        le=3,
        advanced=True,
    )
    smoothing_um: float = setting(
        0.5, "Standard deviation of the smoothing before the threshold.", unit="µm", ge=0, le=5
    )
    closing_um: float = setting(
        1.5, "Radius of the closing that joins gaps in a wall.", unit="µm", ge=0, le=20
    )
    max_lumen_um2: float = setting(
        5000.0, "Largest hole that is filled as a lumen.", unit="µm²", ge=0, le=100_000
    )
    min_area_um2: float = setting(
        25.0, "Smaller objects are left out; single sprouts count.", unit="µm²", ge=0
    )


def halo_um(params: VesselParams) -> float:
    """Margin around a block within which its wall depends on the picture, µm.

    Twice the closing radius and the reach of the smoothing.  Lumens need none: they are filled
    once they are whole (`segment.stitch`).
    """
    return 2 * params.closing_um + 3 * params.smoothing_um + 4 * params.spacing_um


def vessel_density(rgb: NDArray[np.uint8], vectors: ArrayLike | None = None) -> Float32:
    """Amount of DAB in natural OD, (rows, columns).

    Parameters
    ----------
    rgb
        (rows, columns, 3) 8-bit picture.
    vectors
        (3, 2) OD vectors of haematoxylin and DAB as columns; Ruifrok and Johnston 2001 if None.
    """
    return stain_amount(rgb, _vectors(vectors), 1)


def _vectors(vectors: ArrayLike | None) -> ArrayLike:
    return H_DAB if vectors is None else vectors


def estimate_threshold(od_samples: ArrayLike, params: VesselParams) -> float:
    """DAB threshold of a slide, natural OD, from pixels sampled over its tissue.

    Otsu's threshold over samples clipped to [0, 1.5], at least ``params.lowest_od``; the fixed
    value if the parameters say so.  NaN samples are left out; without samples the fixed value is
    returned.
    """
    samples = np.asarray(od_samples, float).ravel()
    samples = samples[np.isfinite(samples)]
    if params.threshold == "fixed" or samples.size == 0:
        return params.dab_od
    return max(params.lowest_od, otsu(np.clip(samples, 0, _OD_RANGE), 0.0, _OD_RANGE))


def brown_by_hue(rgb: NDArray[np.uint8]) -> Mask:
    """Brown pixels of the paper's mode: hue in [350, 360) or [0, 45) deg, S >= 0.15, V 0.1-0.9."""
    return _brown(require_rgb(rgb))


@kernel
def _brown(rgb: NDArray[np.uint8]) -> Mask:
    rows, cols = rgb.shape[:2]
    out = np.zeros((rows, cols), np.bool_)
    for i in range(rows):
        for j in range(cols):
            red, green, blue = float(rgb[i, j, 0]), float(rgb[i, j, 1]), float(rgb[i, j, 2])
            top, low = max(red, green, blue), min(red, green, blue)
            if top < 0.1 * 255 or top > 0.9 * 255 or top - low < 0.15 * top or top == low:
                continue
            if top != red:
                continue
            hue = 60.0 * (green - blue) / (top - low)
            out[i, j] = -10.0 <= hue < 45.0
    return out


def vessel_wall(
    rgb: NDArray[np.uint8],
    spacing_um: float,
    params: VesselParams,
    threshold: float,
    vectors: ArrayLike | None = None,
) -> Mask:
    """The closed brown wall of one block with halo, (rows, columns).

    Parameters
    ----------
    rgb
        (rows, columns, 3) 8-bit block, its core surrounded by `halo_um`.
    spacing_um
        Pixel size, µm.
    params
        Settings.
    threshold
        Amount of DAB from which a pixel is wall, natural OD (`estimate_threshold`).
    vectors
        (3, 2) OD vectors of haematoxylin and DAB.
    """
    if not spacing_um > 0:
        raise InputError(f"the pixel size must be positive, not {spacing_um} µm")
    if params.method == "hsv":
        wall = brown_by_hue(rgb)
    else:
        sigma_px = params.smoothing_um / spacing_um
        wall = stain_above(rgb, _vectors(vectors), 1, sigma_px, threshold)
    return close_mask(wall, params.closing_um / spacing_um)


def pixel_limits(params: VesselParams, pixel_area_um2: float) -> tuple[int, int]:
    """Most pixels of a lumen that is filled, and least pixels of a vessel."""
    most = math.floor(params.max_lumen_um2 / pixel_area_um2)
    return most, max(1, math.ceil(params.min_area_um2 / pixel_area_um2))


def segment_vessels(
    image: Raster, params: VesselParams | None = None, vectors: ArrayLike | None = None
) -> LabelImage:
    """Vessels of a picture in memory, numbered by their first pixel in raster order.

    Parameters
    ----------
    image
        (rows, columns, 3) 8-bit RGB with square pixels.
    params
        Settings; the picture is used at its own pixel size.
    vectors
        (3, 2) OD vectors of haematoxylin and DAB; Ruifrok and Johnston 2001 if None.

    Returns
    -------
    LabelImage
        int32 labels, lumen included, on the picture's lattice; 0 where there is no vessel.
    """
    params = params or VesselParams()
    rgb, spacing_um = require_rgb(image.values), image.lattice.spacing_um[0]
    threshold = params.dab_od
    if params.method == "dab" and params.threshold == "otsu":
        threshold = estimate_threshold(vessel_density(rgb, vectors)[::3, ::3], params)
    wall = vessel_wall(rgb, spacing_um, params, threshold, vectors)
    most, least = pixel_limits(params, spacing_um**2)
    return LabelImage(whole_objects(wall, windows(wall.shape, 4096), most, least), image.lattice)
