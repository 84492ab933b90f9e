"""Vessels on a CD34 slide: the brown wall is closed, its lumen filled, specks are left out.

A wall shows as a ring; the vessel is the ring with its lumen, so shapes and diameters are those of
the filled object.  A slide is worked block by block: the wall with a small halo, then lumens and
vessels joined at the seams, so that the result is that of the whole slide at once.  Brown objects
that are no vessels (`segment.false_positives`) are told apart once they are whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Mask
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.segment.false_positives import SUMS, add_block_sums, exclusion_codes, wall_sums
from napari_mosaik.segment.filters import require_rgb
from napari_mosaik.segment.masks import close_mask
from napari_mosaik.segment.run_length import BlockComponents, Labels, find_runs
from napari_mosaik.segment.slide_stain import (
    H_DAB,
    Staining,
    estimate_staining,
    estimate_threshold,
    vessel_density,
)
from napari_mosaik.segment.sparse_smoothing import stain_above
from napari_mosaik.segment.stitch import SeamLabels, holes_to_fill
from napari_mosaik.segment.vessel_params import VesselParams

__all__ = [
    "Staining",
    "VesselParams",
    "VesselSegmentation",
    "dab_by_hue",
    "estimate_staining",
    "estimate_threshold",
    "find_vessels",
    "halo_um",
    "owners",
    "pixel_limits",
    "renumbered",
    "segment_vessels",
    "vessel_density",
    "vessel_wall",
]

_SAMPLES = 400_000
"""At most about four times as many pixels of a picture tell its stains."""


def halo_um(params: VesselParams) -> float:
    """Margin around a block within which its wall depends on the picture, µm.

    Twice the closing radius and the reach of the smoothing.  Lumens need none: they are filled
    once they are whole (`segment.stitch`).
    """
    return 2 * params.closing_um + 3 * params.smoothing_um + 4 * params.spacing_um


def dab_by_hue(rgb: NDArray[np.uint8]) -> Mask:
    """Brown pixels of the paper's mode: hue in [350, 360) or [0, 45) deg, S >= 0.15, V 0.1-0.9."""
    return _brown(require_rgb(rgb))


@compiled
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
        wall = dab_by_hue(rgb)
    else:
        sigma_px = params.smoothing_um / spacing_um
        wall = stain_above(rgb, H_DAB if vectors is None else vectors, 1, sigma_px, threshold)
    return close_mask(wall, params.closing_um / spacing_um)


def pixel_limits(params: VesselParams, pixel_area_um2: float) -> tuple[int, int]:
    """Most pixels of a lumen that is filled, and least pixels of a vessel."""
    most = math.floor(params.max_lumen_um2 / pixel_area_um2)
    return most, max(1, math.ceil(params.min_area_um2 / pixel_area_um2))


@dataclass(frozen=True, slots=True, eq=False)
class VesselSegmentation:
    """Vessels of a picture and the brown objects that are none.

    ``left_out`` is labelled 1 to m, ``reasons`` (m,) holds codes of `brown.REASONS`; ``wall`` is
    the closed brown wall, (rows, columns).
    """

    vessels: LabelImage
    left_out: LabelImage
    reasons: NDArray[np.uint8]
    wall: Mask
    staining: Staining


def owners(wall: BlockComponents, filled: Labels) -> NDArray[np.int32]:
    """(n_parts,) label, within *filled*, of the object that holds each part of the wall."""
    owner: NDArray[np.int32] = filled[np.divmod(wall.first, filled.shape[1])]
    return owner


def renumbered(verdict: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """New numbers (n + 1,) of the vessels, and of the objects left out; 0 for the others."""
    is_vessel = np.concatenate([[False], verdict == 0])
    is_other = np.concatenate([[False], verdict != 0])
    return _counted(is_vessel), _counted(is_other)


def _counted(which: Mask) -> NDArray[np.int32]:
    """1, 2, 3... where true, 0 elsewhere."""
    return np.where(which, np.cumsum(which), 0).astype(np.int32)


def find_vessels(
    image: Raster, params: VesselParams | None = None, edge: Mask | None = None
) -> VesselSegmentation:
    """Find the vessels of a picture in memory, and what is brown without being one.

    Parameters
    ----------
    image
        (rows, columns, 3) 8-bit RGB with square pixels, used at its own pixel size.
    params
        Settings.
    edge
        (rows, columns) True near the edge of the tissue; nowhere if None.

    Returns
    -------
    FoundVessels
        Vessels and objects left out are numbered by their first pixel in raster order.
    """
    params = params or VesselParams()
    rgb, spacing_um = require_rgb(image.values), image.lattice.spacing_um[0]
    step = max(1, math.isqrt(rgb.shape[0] * rgb.shape[1] // _SAMPLES))
    staining = estimate_staining(rgb[::step, ::step].reshape(-1, 3), params)
    vectors = staining.stains.matrix
    wall = find_runs(vessel_wall(rgb, spacing_um, params, staining.threshold, vectors))
    most, least = pixel_limits(params, spacing_um**2)
    whole = [(slice(0, rgb.shape[0]), slice(0, rgb.shape[1]))]
    holes, seams = SeamLabels(whole, holes=True), SeamLabels(whole)
    holes.put(0, wall.holes())
    filled = find_runs(wall.filled(holes_to_fill(holes, most)[0]))
    seams.put(0, filled.objects())
    counts = seams.join(least)
    labels = filled.painted(seams.numbers(0))
    totals = np.zeros((len(counts), len(SUMS)), np.int64)
    sums = wall_sums(rgb, wall, vectors, params, edge)
    add_block_sums(totals, owners(wall.objects(), labels), sums)
    verdict = exclusion_codes(totals, counts.pixels, spacing_um**2, vectors, params)
    kept, others = (LabelImage(numbers[labels], image.lattice) for numbers in renumbered(verdict))
    return VesselSegmentation(kept, others, verdict[verdict > 0], wall.mask(), staining)


def segment_vessels(image: Raster, params: VesselParams | None = None) -> LabelImage:
    """Vessels of a picture in memory, numbered by their first pixel in raster order.

    Parameters
    ----------
    image
        (rows, columns, 3) 8-bit RGB with square pixels.
    params
        Settings; the picture is used at its own pixel size.

    Returns
    -------
    LabelImage
        int32 labels, lumen included, on the picture's lattice; 0 where there is no vessel.
    """
    return find_vessels(image, params).vessels
