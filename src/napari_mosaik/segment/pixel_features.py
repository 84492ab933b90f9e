"""Features of the fast tissue classifier: colour and texture around each pixel.

The slide is read at a fine pixel size and reduced to coarse cells; each cell has the mean and the
spread of its stain amounts, and these are then smoothed over wider surroundings.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.colour import EOSIN, HAEMATOXYLIN, WHITE_INTENSITY, stain_matrix
from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.errors import InputError
from napari_mosaik.segment.filters import Float32, gaussian, require_rgb

__all__ = ["feature_names", "pixel_features", "reduce_rgb"]

_CELL = (
    "haematoxylin",
    "eosin",
    "residual",
    "total",
    "haematoxylin spread",
    "total spread",
    "haematoxylin edges",
)


def feature_names(scales_um: tuple[float, ...]) -> tuple[str, ...]:
    """Names of the features, in order."""
    smooth = [f"{name}, {scale:g} µm" for scale in scales_um for name in _CELL]
    spread = [f"haematoxylin variation, {scale:g} µm" for scale in scales_um]
    return (*_CELL, *smooth, *spread)


def pixel_features(
    rgb: NDArray[np.uint8], spacing_um: float, cell_um: float, scales_um: tuple[float, ...]
) -> Float32:
    """Features of cells of ``cell_um``, (rows, columns, f), OD; see `feature_names`.

    Parameters
    ----------
    rgb
        (rows, columns, 3) 8-bit levels.
    spacing_um
        Pixel size, µm; a cell is a whole number of pixels wide.
    cell_um
        Edge of a cell, µm.
    scales_um
        Standard deviations of the surroundings, µm.
    """
    factor = round(cell_um / spacing_um)
    if factor < 1 or abs(factor * spacing_um - cell_um) > 0.02 * cell_um:
        raise InputError(
            f"cells of {cell_um:g} µm are not a whole number of pixels of {spacing_um:g} µm"
        )
    cells = _cells(require_rgb(rgb), _tables(), factor)
    out = np.empty((*cells.shape[1:], len(feature_names(scales_um))), np.float32)
    n = len(_CELL)
    for k in range(n):
        out[..., k] = cells[k]
    for s, scale in enumerate(scales_um):
        sigma = scale / cell_um
        first = n * (s + 1)
        for k in range(n):
            out[..., first + k] = gaussian(cells[k], sigma)
        square = gaussian(cells[0] * cells[0], sigma)
        variance = np.maximum(square - out[..., first] ** 2, 0)
        out[..., n * (len(scales_um) + 1) + s] = np.sqrt(variance)
    return out


def reduce_rgb(rgb: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Mean of cells of ``factor`` x ``factor`` pixels, rounded to 8-bit levels (count).

    *rgb* has the shape (rows, columns, 3) and the result (ceil(rows / factor),
    ceil(columns / factor), 3); a last partial cell is the mean of the pixels that it has.
    """
    rgb = require_rgb(rgb)
    if factor == 1:
        return rgb
    starts = [np.arange(0, length, factor) for length in rgb.shape[:2]]
    total = np.add.reduceat(np.add.reduceat(rgb, starts[0], 0, np.uint32), starts[1], 1)
    rows, cols = (np.diff(s, append=n) for s, n in zip(starts, rgb.shape[:2], strict=True))
    count = np.outer(rows, cols)[..., None]
    return np.asarray((2 * total + count) // (2 * count), np.uint8)


def _tables() -> Float32:
    """(3 stains + total, 3 colours, 256): contribution of each 8-bit value."""
    od = -np.log((np.arange(256) + 1.0) / WHITE_INTENSITY)
    inverse = np.linalg.inv(stain_matrix(HAEMATOXYLIN, EOSIN))
    rows = np.vstack([inverse, np.full((1, 3), 1 / 3)])
    return np.asarray(rows[:, :, None] * od, np.float32)


@compiled
def _cells(rgb: NDArray[np.uint8], table: Float32, factor: int) -> Float32:
    rows, cols = -(-rgb.shape[0] // factor), -(-rgb.shape[1] // factor)
    out = np.empty((7, rows, cols), np.float32)
    block = np.empty((4, factor, factor), np.float32)
    for i in range(rows):
        for j in range(cols):
            height = min(factor, rgb.shape[0] - i * factor)
            width = min(factor, rgb.shape[1] - j * factor)
            for r in range(height):
                for c in range(width):
                    pixel = rgb[i * factor + r, j * factor + c]
                    for k in range(4):
                        block[k, r, c] = (
                            table[k, 0, pixel[0]] + table[k, 1, pixel[1]] + table[k, 2, pixel[2]]
                        )
            for k in range(4):
                out[k, i, j] = block[k, :height, :width].mean()
            out[4, i, j] = block[0, :height, :width].std()
            out[5, i, j] = block[3, :height, :width].std()
            out[6, i, j] = _edges(block[0, :height, :width])
    return out


@compiled
def _edges(block: Float32) -> float:
    """Mean absolute difference of neighbours; 0 for a single pixel."""
    total, n = 0.0, 0
    for r in range(block.shape[0]):
        for c in range(block.shape[1]):
            if r > 0:
                total += abs(block[r, c] - block[r - 1, c])
                n += 1
            if c > 0:
                total += abs(block[r, c] - block[r, c - 1])
                n += 1
    return total / n if n > 0 else 0.0
