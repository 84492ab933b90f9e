"""Image filters that segmentation shares: stain amount, smoothing, thresholds.

Every filter is local, and computes each pixel by the same sequence of operations wherever a block
begins: blocks with a wide enough halo give the same bytes as the whole image at once.  Libraries do
not promise that (docs/performance.md, "Own compiled kernels").
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.colour import WHITE_INTENSITY, stain_matrix
from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.otsu import otsu_bin

__all__ = ["Float32", "box_mean", "gaussian", "otsu", "require_rgb", "stain_amount"]

Float32 = NDArray[np.float32]

_STEPS_PER_OD = 4096.0
"""Resolution of `box_mean`: sums of whole numbers are exact, so they do not depend on the block."""


def require_rgb(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image as contiguous 8-bit levels (count), (rows, columns, 3); else `InputError`."""
    if rgb.ndim != 3 or rgb.shape[2] < 3 or rgb.dtype != np.uint8:
        raise InputError(
            f"segmentation needs an 8-bit RGB image (rows, columns, 3), not {rgb.shape} {rgb.dtype}"
        )
    return np.ascontiguousarray(rgb[..., :3])


def stain_amount(
    rgb: NDArray[np.uint8], vectors: ArrayLike, stain: int, white: float = WHITE_INTENSITY
) -> Float32:
    """Amount of one stain, natural OD, (rows, columns); the same number as `core.stain_density`.

    Parameters
    ----------
    rgb
        (rows, columns, 3) 8-bit levels.
    vectors
        (3, 2) or (3, 3) OD vectors of the stains as columns.
    stain
        Column of the wanted stain.
    """
    return _look_up(require_rgb(rgb), _amount_table(vectors, stain, white))


def _amount_table(vectors: ArrayLike, stain: int, white: float) -> Float32:
    """What each level of red, green and blue adds to the amount of a stain, (3, 256)."""
    columns = np.asarray(vectors, float)
    if columns.ndim != 2 or columns.shape[0] != 3 or columns.shape[1] not in (2, 3):
        raise InputError(f"stain vectors must be a (3, 2) or (3, 3) matrix, not {columns.shape}")
    inverse = np.linalg.inv(stain_matrix(*columns.T))[stain]
    od = -np.log((np.arange(256) + 1.0) / white)
    table: Float32 = (inverse[:, None] * od[None, :]).astype(np.float32)
    return table


@compiled
def _look_up(rgb: NDArray[np.uint8], table: Float32) -> Float32:
    out = np.empty((rgb.shape[0], rgb.shape[1]), np.float32)
    for r in range(rgb.shape[0]):
        for c in range(rgb.shape[1]):
            out[r, c] = table[0, rgb[r, c, 0]] + table[1, rgb[r, c, 1]] + table[2, rgb[r, c, 2]]
    return out


def gaussian(image: Float32, sigma_px: float) -> Float32:
    """Gaussian smoothing, cut off at three standard deviations, mirrored at the border.

    Parameters
    ----------
    image
        (rows, columns) values of any unit, such as OD.
    sigma_px
        Standard deviation, pixels; below a third of a pixel nothing is smoothed.

    Returns
    -------
    numpy.ndarray
        (rows, columns), unit of *image*.
    """
    if math.ceil(3 * sigma_px) < 1:
        return image
    return _separable(image, _gaussian_weights(sigma_px))


def _gaussian_weights(sigma_px: float) -> Float32:
    """Weights of `gaussian`, (2 reach + 1,), which add up to one."""
    reach = math.ceil(3 * sigma_px)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    return np.asarray(weights / weights.sum(), np.float32)


@compiled
def _mirror(i: int, n: int) -> int:
    """The index within ``0..n-1`` that an index beyond the border stands for."""
    if n == 1:
        return 0
    while i < 0 or i >= n:
        i = -1 - i if i < 0 else 2 * n - 1 - i
    return i


@compiled
def _separable(image: Float32, weights: Float32) -> Float32:
    rows, cols = image.shape
    reach = weights.size // 2
    out = np.empty((rows, cols), np.float32)
    line = np.empty(cols + 2 * reach, np.float32)
    for r in range(rows):
        for c in range(cols):
            line[reach + c] = weights[reach] * image[r, c]
        for k in range(1, reach + 1):
            up, down = image[_mirror(r - k, rows)], image[_mirror(r + k, rows)]
            _add_pair(line[reach : reach + cols], up, down, weights[reach + k])
        _along(line, weights, out[r])
    return out


@compiled
def _along(line: Float32, weights: Float32, out: Float32) -> None:
    """One row; *line* has room for the mirrored values on either side."""
    cols, reach = out.size, weights.size // 2
    for k in range(reach):
        line[reach - 1 - k] = line[reach + _mirror(-1 - k, cols)]
        line[reach + cols + k] = line[reach + _mirror(cols + k, cols)]
    for c in range(cols):
        out[c] = weights[reach] * line[reach + c]
    for k in range(1, reach + 1):
        left, right = line[reach - k : reach - k + cols], line[reach + k : reach + k + cols]
        _add_pair(out, left, right, weights[reach + k])


@compiled
def _add_pair(out: Float32, one: Float32, other: Float32, weight: np.float32) -> None:
    """Add two rows, weighted alike."""
    for c in range(out.size):
        out[c] += weight * (one[c] + other[c])


def box_mean(image: Float32, radius_px: int) -> Float32:
    """Mean over a square of ``2 radius + 1`` pixels, cut at the border; exact to 1/4096 OD.

    *image* holds optical densities, (rows, columns), and so does the result.
    """
    return _box_mean(image, max(0, radius_px), np.float32(_STEPS_PER_OD))


@compiled
def _add_row(column: NDArray[np.int64], row: Float32, steps: np.float32, sign: int) -> None:
    for c in range(column.size):
        column[c] += sign * np.int64(np.rint(row[c] * steps))


@compiled
def _box_mean(image: Float32, radius: int, steps: np.float32) -> Float32:
    rows, cols = image.shape
    out = np.empty((rows, cols), np.float32)
    column = np.zeros(cols, np.int64)
    running = np.zeros(cols + 1, np.int64)
    for r in range(min(radius, rows)):
        _add_row(column, image[r], steps, 1)
    for r in range(rows):
        if r + radius < rows:
            _add_row(column, image[r + radius], steps, 1)
        if r - radius - 1 >= 0:
            _add_row(column, image[r - radius - 1], steps, -1)
        height = min(rows - 1, r + radius) - max(0, r - radius) + 1
        for c in range(cols):
            running[c + 1] = running[c] + column[c]
        for c in range(cols):
            first, last = max(0, c - radius), min(cols - 1, c + radius)
            total = running[last + 1] - running[first]
            area = height * (last - first + 1)
            out[r, c] = np.float32(total / (area * np.float64(steps)))
    return out


def otsu(samples: ArrayLike, low: float, high: float, n_bins: int = 256) -> float:
    """Otsu's threshold of samples (n,) within ``[low, high]``, in their unit.

    *low* where all samples lie in one bin.
    """
    counts, edges = np.histogram(np.asarray(samples, float), n_bins, (low, high))
    if np.count_nonzero(counts) < 2:
        return float(low)
    return float(edges[otsu_bin(counts) + 1])
