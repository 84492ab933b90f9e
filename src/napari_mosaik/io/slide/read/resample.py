"""Area averages of 8-bit pixels: whole-number blocks exactly, any other ratio by covered area."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.compiled import compiled
from napari_mosaik.io.slide.types.tiles import Pixels

__all__ = ["area_resample", "block_mean"]


def block_mean(pixels: Pixels, rows: int, columns: int) -> Pixels:
    """Mean of each block of *rows* x *columns* pixels, shape (rows, columns, 3), uint8.

    Exact, halves rounded up.  Rows and columns that do not fill a block are dropped.
    """
    if (rows, columns) == (2, 2):
        return _halved(pixels)
    return _block_mean(pixels, rows, columns)


@compiled
def _halved(pixels: Pixels) -> Pixels:
    """Blocks of 2 x 2, the most frequent case, in a form that compiles to vector instructions."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    flat = pixels.reshape(pixels.shape[0], pixels.shape[1] * 3)
    out = np.empty((height, width * 3), np.uint8)
    for i in range(height):
        upper, lower, means = flat[2 * i], flat[2 * i + 1], out[i]
        for j in range(width):
            for k in range(3):
                n = 6 * j + k
                total = np.uint32(upper[n]) + np.uint32(upper[n + 3])
                total += np.uint32(lower[n]) + np.uint32(lower[n + 3])
                means[3 * j + k] = np.uint8((total + np.uint32(2)) >> np.uint32(2))
    return out.reshape(height, width, 3)


@compiled
def _block_mean(pixels: Pixels, rows: int, columns: int) -> Pixels:
    height, width = pixels.shape[0] // rows, pixels.shape[1] // columns
    flat = pixels.reshape(pixels.shape[0], pixels.shape[1] * 3)
    out = np.empty((height, width, 3), np.uint8)
    sums = np.empty(flat.shape[1], np.uint32)
    # Half a unit more keeps the product away from whole numbers: its floor is the exact quotient.
    half, inverse = rows * columns // 2 + 0.5, 1.0 / (rows * columns)
    for i in range(height):
        sums[:] = np.uint32(0)
        for r in range(i * rows, (i + 1) * rows):
            row = flat[r]
            for n in range(sums.size):
                sums[n] += row[n]
        for j in range(width):
            red, green, blue = half, half, half
            for n in range(3 * j * columns, 3 * (j + 1) * columns, 3):
                red += sums[n]
                green += sums[n + 1]
                blue += sums[n + 2]
            out[i, j, 0] = np.uint8(red * inverse)
            out[i, j, 1] = np.uint8(green * inverse)
            out[i, j, 2] = np.uint8(blue * inverse)
    return out


@compiled
def _add_row(
    pixels: Pixels, r: int, weight: float, start: float, step: float, sums: NDArray[np.float64]
) -> None:
    """Add one row of pixels, averaged along the columns, to the sums of an output row."""
    width = pixels.shape[1]
    for j in range(sums.shape[0]):
        left = start + j * step
        right = left + step
        for c in range(max(0, math.floor(left)), min(width, math.ceil(right))):
            part = weight * (min(right, c + 1.0) - max(left, float(c)))
            sums[j, 0] += part * pixels[r, c, 0]
            sums[j, 1] += part * pixels[r, c, 1]
            sums[j, 2] += part * pixels[r, c, 2]


@compiled
def area_resample(
    pixels: Pixels, start: tuple[float, float], step: tuple[float, float], shape: tuple[int, int]
) -> Pixels:
    """Mean over the area that each output sample covers, shape (*shape, 3), uint8.

    Output sample ``(i, j)`` covers the rows ``start[0] + i * step[0]`` to ``... + step[0]`` of the
    input (in pixel edges), and likewise for columns; the input must cover the whole area.
    """
    out = np.empty((shape[0], shape[1], 3), np.uint8)
    sums = np.empty((shape[1], 3), np.float64)
    for i in range(shape[0]):
        top = start[0] + i * step[0]
        bottom = top + step[0]
        sums[:] = 0.0
        for r in range(max(0, math.floor(top)), min(pixels.shape[0], math.ceil(bottom))):
            weight = min(bottom, r + 1.0) - max(top, float(r))
            _add_row(pixels, r, weight, start[1], step[1], sums)
        for j in range(shape[1]):
            for k in range(3):
                out[i, j, k] = np.uint8(min(255.0, sums[j, k] / (step[0] * step[1]) + 0.5))
    return out
