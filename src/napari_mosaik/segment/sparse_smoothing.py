"""Where a stain is strong after smoothing, found without smoothing what is not stained.

Most of a slide has none of a stain.  A mean cannot reach the threshold where no amount near it
does, so whole stretches are passed over; the rest is smoothed by the very same sums as everywhere.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.colour import WHITE_INTENSITY
from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.frame import Mask
from napari_mosaik.segment.filters import (
    Float32,
    add_pair,
    amount_table,
    gaussian,
    gaussian_weights,
    look_up_row,
    mirror,
    require_rgb,
    stain_amount,
)

__all__ = ["stain_above"]

_STRETCH = 32
"""Pixels of a row that are passed over together where nothing near them is stained."""


def stain_above(
    rgb: NDArray[np.uint8],
    vectors: ArrayLike,
    stain: int,
    sigma_px: float,
    threshold: float,
    white: float = WHITE_INTENSITY,
) -> Mask:
    """Where the smoothed amount of a stain reaches a threshold, (rows, columns).

    The same pixels as ``gaussian(stain_amount(rgb, vectors, stain), sigma_px) >= threshold``
    without an array of amounts: rows pass through a short memory, and where nothing near a
    pixel reaches the threshold, no mean can, so nothing is smoothed.
    """
    rgb = require_rgb(rgb)
    reach = math.ceil(3 * sigma_px)
    limit = np.float32(threshold)
    if reach < 1 or reach > _STRETCH or min(rgb.shape[:2]) <= 2 * reach:
        return gaussian(stain_amount(rgb, vectors, stain, white), sigma_px) >= limit
    table = amount_table(vectors, stain, white)
    weights = gaussian_weights(sigma_px)
    possible = np.float32(threshold - 1e-3 * abs(threshold))  # means are rounded
    out = np.zeros(rgb.shape[:2], bool)
    _above(rgb, table, weights, limit, possible, out)
    return out


@compiled
def _above(
    rgb: NDArray[np.uint8], table: Float32, weights: Float32, limit: np.float32,
    possible: np.float32, out: Mask,
) -> None:  # fmt: skip
    rows, cols = out.shape
    reach = weights.size // 2
    depth, n = 2 * reach + 1, -(-cols // _STRETCH)
    amounts = np.empty((depth, cols), np.float32)
    latest = np.full(n + 2, -depth)
    line, smooth = np.empty(cols + 2 * reach, np.float32), np.empty(cols, np.float32)
    known = 0
    for r in range(rows):
        while known < min(rows, r + reach + 1):
            look_up_row(rgb[known], table, amounts[known % depth])
            _mark_strong(amounts[known % depth], possible, known, latest)
            known += 1
        first = 0
        while first < n:
            stop = first
            while stop < n and _is_near(latest, stop, r - reach):
                stop += 1
            if stop > first:
                span = (first * _STRETCH, min(stop * _STRETCH, cols))
                _smooth_span(amounts, weights, r, rows, span, line, smooth)
                for c in range(span[0], span[1]):
                    out[r, c] = smooth[c] >= limit
            first = stop + 1


@compiled
def _mark_strong(row: Float32, possible: np.float32, r: int, latest: NDArray[np.int64]) -> None:
    """Note the row at every stretch with an amount that can make a mean reach the threshold."""
    n = row.size // _STRETCH
    for j in range(n):
        part = row[j * _STRETCH : (j + 1) * _STRETCH]
        found = np.int32(0)
        for c in range(_STRETCH):
            found |= np.int32(part[c] >= possible)
        if found:
            latest[j + 1] = r
    for c in range(n * _STRETCH, row.size):
        if row[c] >= possible:
            latest[n + 1] = r


@compiled
def _is_near(latest: NDArray[np.int64], j: int, since: int) -> bool:
    """Whether a stretch, or one beside it, was noted at that row or later."""
    return bool(latest[j] >= since or latest[j + 1] >= since or latest[j + 2] >= since)


@compiled
def _smooth_span(
    amounts: Float32, weights: Float32, r: int, rows: int, span: tuple[int, int],
    line: Float32, out: Float32,
) -> None:  # fmt: skip
    """Some columns of a row of `gaussian`, from the rows in memory, in the same order of sums."""
    depth, cols = amounts.shape
    reach = depth // 2
    start, stop = max(0, span[0] - reach), min(cols, span[1] + reach)
    part = line[reach + start : reach + stop]
    middle = amounts[r % depth, start:stop]
    for c in range(part.size):
        part[c] = weights[reach] * middle[c]
    for k in range(1, reach + 1):
        up, down = mirror(r - k, rows) % depth, mirror(r + k, rows) % depth
        add_pair(part, amounts[up, start:stop], amounts[down, start:stop], weights[reach + k])
    for k in range(reach):
        if start == 0:
            line[reach - 1 - k] = line[reach + mirror(-1 - k, cols)]
        if stop == cols:
            line[reach + cols + k] = line[reach + mirror(cols + k, cols)]
    _along_span(line, weights, span, out)


@compiled
def _along_span(line: Float32, weights: Float32, span: tuple[int, int], out: Float32) -> None:
    start, stop = span
    reach = weights.size // 2
    part = out[start:stop]
    for c in range(part.size):
        part[c] = weights[reach] * line[reach + start + c]
    for k in range(1, reach + 1):
        left = line[reach + start - k : reach + stop - k]
        add_pair(part, left, line[reach + start + k : reach + stop + k], weights[reach + k])
