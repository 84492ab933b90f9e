"""The loops over nuclei that count pairs of grey levels and turn them into texture numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.features.compiled import compiled

__all__ = ["bounding_boxes", "texture_of_objects"]

Int32 = NDArray[np.int32]
Float = NDArray[np.float64]


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
def _levels_in_box(
    labels: Int32,
    density: NDArray[np.float32],
    box: Int32,
    label: int,
    low: float,
    high: float,
    n_levels: int,
    levels: Int32,
) -> int:
    """Grey levels of one object within its box, -1 outside of it; returns its number of pixels."""
    pixels = 0
    for r in range(box[0], box[1] + 1):
        for c in range(box[2], box[3] + 1):
            level = -1
            if labels[r, c] == label and np.isfinite(density[r, c]):
                level = level_of(density[r, c], low, high, n_levels)
                pixels += 1
            levels[r - box[0], c - box[2]] = level
    return pixels


@compiled
def _count_pairs(levels: Int32, height: int, width: int, dr: int, dc: int, pairs: Int32) -> int:
    """Count pairs of levels at one offset, both ways; returns how many were counted."""
    pairs[:] = 0
    total = 0
    for r in range(max(0, -dr), height - max(0, dr)):
        for c in range(max(0, -dc), width - max(0, dc)):
            first, second = levels[r, c], levels[r + dr, c + dc]
            if first >= 0 and second >= 0:
                pairs[first, second] += 1
                pairs[second, first] += 1
                total += 2
    return total


@compiled
def _entropy_bits(counts: NDArray[np.int64], total: int) -> float:
    """Entropy in bits of counts that add up to *total*; 0 · log 0 = 0."""
    entropy = 0.0
    for count in counts:
        if count > 0:
            p = count / total
            entropy -= p * np.log2(p)
    return entropy


@compiled
def _numbers_of_pairs(pairs: Int32, total: int, out: Float) -> None:
    """Add the six texture numbers of one matrix of pairs to *out*."""
    n = pairs.shape[0]
    difference, sums = np.zeros(n, np.int64), np.zeros(2 * n - 1, np.int64)
    energy, entropy = 0.0, 0.0
    for i in range(n):
        for j in range(n):
            count = pairs[i, j]
            if count > 0:
                p = count / total
                difference[abs(i - j)] += count
                sums[i + j] += count
                energy += p * p
                entropy -= p * np.log2(p)
    contrast, homogeneity = 0.0, 0.0
    for k in range(n):
        contrast += k * k * difference[k] / total
        homogeneity += difference[k] / total / (1 + k * k)
    out[0] += _entropy_bits(difference, total)
    out[1] += contrast
    out[2] += energy
    out[3] += homogeneity
    out[4] += entropy
    out[5] += _entropy_bits(sums, total)


@compiled
def _level_range(levels: Int32, height: int, width: int) -> tuple[np.int32, np.int32]:
    """Least and greatest level of an object."""
    least, greatest = np.int32(2**30), np.int32(-1)
    for r in range(height):
        for c in range(width):
            if levels[r, c] >= 0:
                least = min(least, levels[r, c])
                greatest = max(greatest, levels[r, c])
    return least, greatest


@compiled
def _texture_of_one(levels: Int32, height: int, width: int, offset: int, out: Float) -> None:
    """Mean of the six numbers over the angles 0, 45, 90 and 135 degrees that have pairs."""
    least, greatest = _level_range(levels, height, width)
    for r in range(height):
        for c in range(width):
            if levels[r, c] >= 0:
                levels[r, c] -= least
    pairs = np.empty((greatest - least + 1, greatest - least + 1), np.int32)
    out[:] = 0.0
    angles = 0
    for dr, dc in ((0, offset), (-offset, offset), (offset, 0), (offset, offset)):
        total = _count_pairs(levels, height, width, dr, dc, pairs)
        if total > 0:
            _numbers_of_pairs(pairs, total, out)
            angles += 1
    for i in range(out.size):
        out[i] = out[i] / angles if angles > 0 else np.nan


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
    """(n, 6) texture numbers of every object; NaN for small objects.  Rows are independent."""
    n = boxes.shape[0]
    out = np.full((n, 6), np.nan)
    for k in range(n):
        height, width = boxes[k, 1] - boxes[k, 0] + 1, boxes[k, 3] - boxes[k, 2] + 1
        if height > 0 and width > 0:
            levels = np.empty((height, width), np.int32)
            pixels = _levels_in_box(labels, density, boxes[k], k + 1, low, high, n_levels, levels)
            if pixels >= min_pixels:
                _texture_of_one(levels, height, width, offset, out[k])
    return out
