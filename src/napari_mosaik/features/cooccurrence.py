"""The loops over nuclei that count pairs of grey levels and turn them into texture numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.compiled import compiled

__all__ = ["bounding_boxes", "texture_of_objects"]

Int32 = NDArray[np.int32]
Float = NDArray[np.float64]
_TABLE = 4096
"""Counts up to this have their logarithm in a table."""


@compiled
def bounding_boxes(labels: Int32, n: int) -> Int32:
    """(n, 4) first and last row, first and last column of each label; last < first if absent."""
    boxes = np.empty((n, 4), np.int32)
    boxes[:, 0], boxes[:, 1] = labels.shape[0], -1
    boxes[:, 2], boxes[:, 3] = labels.shape[1], -1
    for r in range(labels.shape[0]):
        for c in range(labels.shape[1]):
            k = labels[r, c] - 1
            if k >= 0:
                boxes[k, 0] = min(boxes[k, 0], r)
                boxes[k, 1] = max(boxes[k, 1], r)
                boxes[k, 2] = min(boxes[k, 2], c)
                boxes[k, 3] = max(boxes[k, 3], c)
    return boxes


@compiled
def level_of(value: float, low: float, high: float, n_levels: int) -> int:
    """Bin of a value among *n_levels* equal bins over [low, high]; values beyond go to the ends."""
    level = int(np.floor((value - low) / (high - low) * n_levels))
    return min(max(level, 0), n_levels - 1)


@compiled
def _lay_out(
    labels: Int32,
    density: NDArray[np.float32],
    box: Int32,
    label: int,
    low: float,
    high: float,
    n_levels: int,
    offset: int,
    levels: Int32,
    places: Int32,
) -> int:
    """Grey levels of one object row by row with *offset* empty places (-1) around each row.

    Returns the number of pixels; *places* holds where they lie in *levels*.  A pair at the offset
    is then two places a fixed distance apart, and a place beyond the box is an empty one.
    """
    stride = box[3] - box[2] + 1 + offset
    levels[:] = -1
    pixels = 0
    for r in range(box[0], box[1] + 1):
        start = (r - box[0] + offset) * stride
        for c in range(box[2], box[3] + 1):
            if labels[r, c] == label and np.isfinite(density[r, c]):
                place = start + c - box[2]
                levels[place] = level_of(density[r, c], low, high, n_levels)
                places[pixels] = place
                pixels += 1
    return pixels


@compiled
def _count_pairs(
    levels: Int32, places: Int32, pixels: int, step: int, n_levels: int, pairs: Int32, codes: Int32
) -> int:
    """Count pairs of levels *step* places apart, the lower level first; returns how many.

    The number of the pair's cell in *pairs* is kept in *codes*.
    """
    total = 0
    for k in range(pixels):
        first, second = levels[places[k]], levels[places[k] + step]
        if second >= 0:
            code = min(first, second) * n_levels + max(first, second)
            pairs[code] += 1
            codes[total] = code
            total += 1
    return total


@compiled
def _weighed(count: int, table: Float) -> float:
    """The product count · log2 count, from the table as far as it goes."""
    return float(table[count]) if count < table.size else count * float(np.log2(count))


@compiled
def _entropy_bits(weighed: float, total: int, kinds: int) -> float:
    """Entropy in bits from Σ count · log2 count; exactly 0 where all is of one kind."""
    return float(np.log2(total)) - weighed / total if kinds > 1 else 0.0


@compiled
def _entropy_of(counts: NDArray[np.int64], total: int, table: Float) -> float:
    """Entropy in bits of counts that add up to *total*; 0 · log 0 = 0."""
    weighed, kinds = 0.0, 0
    for count in counts:
        if count > 0:
            weighed += _weighed(count, table)
            kinds += 1
    return _entropy_bits(weighed, total, kinds)


@compiled
def _numbers_of_pairs(
    codes: Int32,
    half: int,
    n_levels: int,
    pairs: Int32,
    table: Float,
    difference: NDArray[np.int64],
    sums: NDArray[np.int64],
    out: Float,
) -> None:
    """Add the six texture numbers of one offset to *out* and leave *pairs* empty again.

    Goes over the counted pairs instead of over all cells: a nucleus holds far fewer of them.
    Pairs count both ways: in two cells of the symmetric matrix for different levels, twice in one
    for equal ones.
    """
    difference[:] = 0
    sums[:] = 0
    total, energy, weighed, kinds = 2 * half, 0.0, 0.0, 0
    for k in range(half):
        count = pairs[codes[k]]
        if count == 0:
            continue
        pairs[codes[k]] = 0
        low = codes[k] // n_levels
        high = codes[k] - low * n_levels
        difference[high - low] += 2 * count
        sums[high + low] += 2 * count
        cells, each = (1, 2 * count) if low == high else (2, count)
        kinds += cells
        energy += cells * float(each) * each
        weighed += cells * _weighed(each, table)
    contrast, homogeneity = 0.0, 0.0
    for k in range(difference.size):
        contrast += k * k * difference[k] / total
        homogeneity += difference[k] / total / (1 + k * k)
    out[0] += _entropy_of(difference, total, table)
    out[1] += contrast
    out[2] += energy / total / total
    out[3] += homogeneity
    out[4] += _entropy_bits(weighed, total, kinds)
    out[5] += _entropy_of(sums, total, table)


@compiled
def texture_of_objects(
    labels: Int32,
    density: NDArray[np.float32],
    boxes: Int32,
    low: float,
    high: float,
    n_levels: int,
    offset: int,
    min_pixels: int,
) -> Float:
    """(n, 6) texture numbers of every object; NaN for small objects.  Rows are independent.

    Each number is the mean over the angles 0, 45, 90 and 135 degrees that have pairs.
    """
    n = boxes.shape[0]
    out = np.full((n, 6), np.nan)
    pairs = np.zeros(n_levels * n_levels, np.int32)
    difference, sums = np.empty(n_levels, np.int64), np.empty(2 * n_levels - 1, np.int64)
    table = np.zeros(_TABLE)
    for count in range(2, _TABLE):
        table[count] = count * np.log2(count)
    for k in range(n):
        height, width = boxes[k, 1] - boxes[k, 0] + 1, boxes[k, 3] - boxes[k, 2] + 1
        if height <= 0 or width <= 0:
            continue
        stride = width + offset
        levels = np.empty((height + 2 * offset) * stride + offset, np.int32)
        places, codes = np.empty(height * width, np.int32), np.empty(height * width, np.int32)
        pixels = _lay_out(
            labels, density, boxes[k], k + 1, low, high, n_levels, offset, levels, places
        )
        if pixels < min_pixels:
            continue
        found, angles = np.zeros(6), 0
        for step in (offset, offset - offset * stride, offset * stride, offset * stride + offset):
            half = _count_pairs(levels, places, pixels, step, n_levels, pairs, codes)
            if half > 0:
                _numbers_of_pairs(codes, half, n_levels, pairs, table, difference, sums, found)
                angles += 1
        if angles > 0:
            out[k] = found / angles
    return out
