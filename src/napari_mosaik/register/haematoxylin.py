"""The haematoxylin of a section: the stain that all sections have in common."""

from __future__ import annotations

import numpy as np
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
from napari_mosaik.core.raster import Raster

__all__ = ["counterstain_of", "haematoxylin_density"]

_MOST_OD = 2.0
"""Darker pixels (folds, ink, dust) count as this much."""
_MANY_PIXELS = 200_000
_LEAST_EOSIN = 0.12
"""Share of eosin from which a section counts as H&E (0.04 on H-DAB, 0.2 and more on H&E)."""


def counterstain_of(rgb: NDArray[np.uint8]) -> tuple[float, float, float]:
    """The second stain of a section: eosin or DAB.

    The stained pixels are separated into three stains; on a section without eosin its share is
    a few per cent at most.

    Parameters
    ----------
    rgb
        (..., 3) 8-bit pixels.

    Returns
    -------
    OD direction (R, G, B), `EOSIN` or `DAB`; DAB where hardly a pixel is stained.
    """
    pixels = rgb.reshape(-1, 3)
    pixels = pixels[:: 1 + len(pixels) // _MANY_PIXELS]
    density = optical_density(pixels)
    density = density[density.sum(axis=1) > 0.3].astype(np.float64)
    if len(density) < 100:
        return DAB
    three = np.linalg.inv(stain_matrix(HAEMATOXYLIN, EOSIN, DAB)).T
    amounts = np.maximum(density @ three, 0).sum(axis=0)
    return EOSIN if amounts[1] > _LEAST_EOSIN * amounts.sum() else DAB


def haematoxylin_density(image: Raster) -> Raster:
    """Amount of haematoxylin in natural OD, 0 to 2, on the picture's own samples.

    The second stain is told from the pixels; see `counterstain_of`.

    Parameters
    ----------
    image
        (rows, columns, 3) 8-bit RGB at some 5 to 20 µm per pixel.

    Raises
    ------
    InputError
        If the picture is no 8-bit RGB.
    """
    if image.values.ndim != 3 or image.values.shape[2] != 3 or image.values.dtype != np.uint8:
        raise InputError(f"haematoxylin needs 8-bit RGB, not shape {image.values.shape}")
    matrix = stain_matrix(HAEMATOXYLIN, counterstain_of(image.values))
    amounts = stain_density(image.values, matrix)[..., 0]
    return Raster(np.clip(amounts, 0.0, _MOST_OD), image.lattice)
