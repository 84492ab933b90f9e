"""Whether a picture shows any tissue at all: on empty glass a network sees nuclei in the noise.

`tissue_mask` needs glass beside the tissue; a picture may be a part of a section without any.  Here
a picture is empty if nothing on it is stained: glass, its uneven illumination, dust, the edge of a
coverslip and padding are grey.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from napari_mosaik.core.raster import Raster
from napari_mosaik.tissue.mask import TissueParams, inky, red_ink

__all__ = ["empty_reason"]

_MIN_RANGE = 12.0
"""Smallest range of the levels of tissue in one of the colours, as `TissueParams.min_contrast`."""
_STAINED_OD = 0.03
"""Smallest range of the optical densities of red, green and blue in a stained pixel."""
_STAINED = 0.15
"""The same as a share of the largest of the three; stains have 0.5 or more."""
_SMALLEST_PX, _SMALLEST_SHARE = 3, 0.0005
"""Smallest number and share of stained pixels of a picture with tissue."""


def empty_reason(image: Raster) -> str:
    """Why a picture shows no tissue; empty if it may show some.

    Parameters
    ----------
    image
        (rows, columns, 3) 8-bit RGB overview; its pixels (size in µm) are means of several pixels
        of the picture, so that noise is averaged.
    """
    rgb = image.values
    levels = rgb.reshape(-1, 3)
    widest = float(np.ptp(np.percentile(levels, [0.2, 99.8], axis=0), axis=0).max())
    if widest < _MIN_RANGE:
        return f"the levels of its pixels differ by only {widest:.1f} of 255"
    white = np.maximum(np.percentile(levels, 95, axis=0), 1.0)
    od = ndimage.uniform_filter(-np.log(np.maximum(rgb, 1) / white), (3, 3, 0))
    stained = np.ptp(od, axis=2) > np.maximum(_STAINED_OD, _STAINED * od.max(axis=2))
    pen = inky(rgb, TissueParams()) | red_ink(rgb)
    pen = ndimage.binary_opening(pen, np.ones((3, 3), bool))
    stained &= ~ndimage.binary_dilation(pen, iterations=4)  # with its rim
    if np.count_nonzero(stained) < max(_SMALLEST_PX, _SMALLEST_SHARE * stained.size):
        return "nothing on it is stained (glass, dust, pen or the edge of a coverslip)"
    return ""
