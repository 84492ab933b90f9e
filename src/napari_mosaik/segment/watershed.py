"""Seeds and watershed: how touching nuclei are told apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.frame import Mask
from napari_mosaik.segment.filters import Float32
from napari_mosaik.segment.masks import Labels

__all__ = ["flood", "local_maxima"]


@compiled
def local_maxima(score: Float32, mask: Mask, offsets: NDArray[np.int64]) -> Labels:
    """Seeds 1, 2, ... in raster order: masked pixels that no pixel within the offsets exceeds.

    Of equal pixels the first in raster order wins.
    """
    rows, cols = score.shape
    out = np.zeros((rows, cols), np.int32)
    count = 0
    for r in range(rows):
        for c in range(cols):
            if mask[r, c] and _is_highest(score, mask, r, c, offsets):
                count += 1
                out[r, c] = count
    return out


@compiled
def _is_highest(score: Float32, mask: Mask, r: int, c: int, offsets: NDArray[np.int64]) -> bool:
    rows, cols = score.shape
    value = score[r, c]
    for k in range(offsets.shape[0]):
        dr, dc = offsets[k, 0], offsets[k, 1]
        i, j = r + dr, c + dc
        if i < 0 or i >= rows or j < 0 or j >= cols or not mask[i, j]:
            continue
        earlier = dr < 0 or (dr == 0 and dc < 0)
        if score[i, j] > value or (earlier and score[i, j] == value):
            return False
    return True


@compiled
def _push(p: int, level: int, head: Labels, tail: Labels, following: Labels) -> None:
    if head[level] < 0:
        head[level] = p
    else:
        following[tail[level]] = p
    tail[level] = p


@compiled
def flood(level: NDArray[np.uint8], seeds: Labels, mask: Mask) -> Labels:
    """Watershed by priority flooding from the seeds, lowest level first, within the mask.

    Four-connected; ties go to the pixel that was reached first.  Parts of the mask without a seed
    stay 0.  Every pixel is queued once, so the time grows linearly with the masked area.
    """
    rows, cols = level.shape
    out = np.where(mask, seeds, np.int32(0))
    following = np.full(rows * cols, -1, np.int32)
    head = np.full(256, -1, np.int32)
    tail = np.full(256, -1, np.int32)
    for r in range(rows):
        for c in range(cols):
            if out[r, c] > 0:
                _push(r * cols + c, level[r, c], head, tail, following)
    current = 0
    while current < 256:
        p = head[current]
        if p < 0:
            current += 1
            continue
        head[current] = following[p]
        r, c = p // cols, p % cols
        for k in range(4):
            i = r + (k == 1) - (k == 0)
            j = c + (k == 3) - (k == 2)
            inside = 0 <= i < rows and 0 <= j < cols
            if inside and mask[i, j] and out[i, j] == 0:
                out[i, j] = out[r, c]
                _push(i * cols + j, max(current, level[i, j]), head, tail, following)
    return out
