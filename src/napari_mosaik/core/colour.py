"""Optical density and stain separation, shared by segmentation, features and tissue.

Optical density (OD) is natural, ``-ln((I + 1) / Io)``, unless a name says ``od10`` (base 10; divide
by ln 10).  One unit of scikit-image's ``rgb2hed`` equals 13.8155 of our natural units.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray

__all__ = [
    "DAB",
    "EOSIN",
    "HAEMATOXYLIN",
    "LN10",
    "WHITE_INTENSITY",
    "luma",
    "optical_density",
    "stain_density",
    "stain_matrix",
]

WHITE_INTENSITY: Final = 240.0
"""Intensity of the empty background, Io."""
LN10: Final = float(np.log(10.0))
HAEMATOXYLIN: Final = (0.650, 0.704, 0.286)
"""Direction of haematoxylin in OD space (R, G, B); Ruifrok and Johnston 2001."""
EOSIN: Final = (0.072, 0.990, 0.105)
"""Direction of eosin in OD space (R, G, B); Ruifrok and Johnston 2001."""
DAB: Final = (0.268, 0.570, 0.776)
"""Direction of DAB in OD space (R, G, B); Ruifrok and Johnston 2001."""

_OD_OF_LEVEL: Final = -np.log((np.arange(256) + 1.0) / WHITE_INTENSITY).astype(np.float32)


def optical_density(rgb: NDArray[np.uint8], white: float = WHITE_INTENSITY) -> NDArray[np.float32]:
    """Natural optical density of 8-bit values, same shape, ``-ln((I + 1) / white)``.

    Slightly negative where a pixel is brighter than *white*; finite everywhere.
    """
    if rgb.dtype != np.uint8:
        raise InputError(f"optical density needs 8-bit values, not {rgb.dtype}")
    table = _OD_OF_LEVEL
    if white != WHITE_INTENSITY:
        table = -np.log((np.arange(256) + 1.0) / white).astype(np.float32)
    out: NDArray[np.float32] = table[rgb]
    return out


def stain_matrix(*vectors: Any) -> FloatArray:
    """Unit OD vectors as columns (3, n stains); two vectors get their cross product as residual."""
    matrix = np.array(vectors, float).T
    matrix /= np.linalg.norm(matrix, axis=0)
    if matrix.shape[1] == 2:
        residual = np.cross(matrix[:, 0], matrix[:, 1])
        norm = np.linalg.norm(residual)
        if norm < 1e-3:
            raise InputError("the two stain vectors are the same; stains cannot be separated")
        matrix = np.column_stack([matrix, residual / norm])
    return matrix


def stain_density(
    rgb: NDArray[np.uint8], matrix: FloatArray, white: float = WHITE_INTENSITY
) -> NDArray[np.float32]:
    """Amount of each stain in natural OD units, (..., n stains), not clipped.

    Parameters
    ----------
    rgb
        (..., 3) 8-bit pixels.
    matrix
        (3, 3) unit OD vectors as columns, see `stain_matrix`.
    """
    inverse = np.linalg.inv(matrix).T.astype(np.float32)
    out: NDArray[np.float32] = optical_density(rgb, white) @ inverse
    return out


def luma(rgb: NDArray[Any]) -> NDArray[np.float32]:
    """Grey values (rows, columns) of RGB pixels by ITU-R 709 luma weights, 0 to 255."""
    weights = np.array([0.2126, 0.7152, 0.0722], np.float32)
    grey: NDArray[np.float32] = rgb[..., :3].astype(np.float32) @ weights
    return grey
