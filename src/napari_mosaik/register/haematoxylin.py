"""Haematoxylin density of a section: the counterstain that all sections share."""

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

__all__ = ["haematoxylin_density", "second_stain_of"]

_MAX_OD = 2.0
"""Darker pixels (folds, ink, dust) are clipped to this."""
_MAX_PIXELS = 200_000
_MIN_EOSIN = 0.12
"""Fraction of eosin from which a section is H&E (0.04 on H-DAB, 0.2 and more on H&E)."""


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
