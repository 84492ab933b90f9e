"""Fast work on boolean masks: opening, closing, holes, distances, connected parts.

Like the filters, everything here is local, and what lies beyond the border is never invented.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.segment.filters import Float32, Mask, kernel

__all__ = [
    "Labels",
    "chamfer_distance",
    "close_mask",
    "disc",
    "fill_holes",
    "find",
    "label_mask",
    "open_mask",
]

Labels = NDArray[np.int32]


def disc(radius_px: float) -> NDArray[np.int64]:
    """Offsets (n, 2) of all pixels whose centre lies within the radius, nearest first."""
    reach = math.floor(radius_px)
    rows, cols = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    squared = rows**2 + cols**2
    inside = squared <= radius_px**2 + 1e-9
    order = np.lexsort((cols[inside], rows[inside], squared[inside]))
    return np.stack([rows[inside], cols[inside]], axis=1)[order].astype(np.int64)


def close_mask(mask: Mask, radius_px: float) -> Mask:
    """Morphological closing by a disc; what lies beyond the border neither adds nor removes."""
    if radius_px < 1:
        return mask
    return _close(np.ascontiguousarray(mask), disc(radius_px))


@kernel
def _close(mask: Mask, offsets: NDArray[np.int64]) -> Mask:
    rows, cols = mask.shape
    wide = np.zeros((rows, cols), np.bool_)
    for r in range(rows):
        for c in range(cols):
            if mask[r, c]:
                _stamp(wide, r, c, offsets)
    out = mask.copy()
    for r in range(rows):
        for c in range(cols):
            if wide[r, c] and not mask[r, c]:
                out[r, c] = _covered(wide, r, c, offsets)
    return out


def open_mask(mask: Mask, radius_px: float) -> Mask:
    """Morphological opening by a disc; the mask is taken to go on beyond the border."""
    if radius_px < 1:
        return mask
    return _open(np.ascontiguousarray(mask), disc(radius_px))


@kernel
def _open(mask: Mask, offsets: NDArray[np.int64]) -> Mask:
    rows, cols = mask.shape
    out = np.zeros((rows, cols), np.bool_)
    for r in range(rows):
        for c in range(cols):
            if mask[r, c] and _covered(mask, r, c, offsets):
                _stamp(out, r, c, offsets)
    return out


@kernel
def _stamp(mask: Mask, r: int, c: int, offsets: NDArray[np.int64]) -> None:
    for k in range(offsets.shape[0]):
        i, j = r + offsets[k, 0], c + offsets[k, 1]
        if 0 <= i < mask.shape[0] and 0 <= j < mask.shape[1]:
            mask[i, j] = True


@kernel
def _covered(mask: Mask, r: int, c: int, offsets: NDArray[np.int64]) -> bool:
    """Whether the mask holds at all offsets from a pixel; beyond the border it does."""
    for k in range(offsets.shape[0]):
        i, j = r + offsets[k, 0], c + offsets[k, 1]
        if 0 <= i < mask.shape[0] and 0 <= j < mask.shape[1] and not mask[i, j]:
            return False
    return True


@kernel
def chamfer_distance(mask: Mask, limit: int) -> Float32:
    """Distance in pixels to the nearest pixel outside the mask (5-7-11 chamfer), up to *limit*.

    The border of the picture counts as inside.  Within 2 % of the Euclidean distance.  Source:
    Borgefors 1986, Comput Vis Graph Image Process.
    """
    rows, cols = mask.shape
    top = np.int32(5 * limit)
    work = np.full((rows + 4, cols + 4), top, np.int32)
    for r in range(rows):
        for c in range(cols):
            if mask[r, c]:
                i, j = r + 2, c + 2
                d = min(work[i, j - 1] + 5, work[i - 1, j] + 5)
                d = min(d, work[i - 1, j - 1] + 7, work[i - 1, j + 1] + 7)
                d = min(d, work[i - 2, j - 1] + 11, work[i - 2, j + 1] + 11)
                d = min(d, work[i - 1, j - 2] + 11, work[i - 1, j + 2] + 11)
                work[i, j] = min(d, top)
            else:
                work[r + 2, c + 2] = 0
    out = np.empty((rows, cols), np.float32)
    for r in range(rows - 1, -1, -1):
        for c in range(cols - 1, -1, -1):
            i, j = r + 2, c + 2
            d = work[i, j]
            if d > 0:
                d = min(d, work[i, j + 1] + 5, work[i + 1, j] + 5)
                d = min(d, work[i + 1, j + 1] + 7, work[i + 1, j - 1] + 7)
                d = min(d, work[i + 2, j + 1] + 11, work[i + 2, j - 1] + 11)
                d = min(d, work[i + 1, j + 2] + 11, work[i + 1, j - 2] + 11)
                work[i, j] = d
            out[r, c] = np.float32(d * 0.2)
    return out


def fill_holes(mask: Mask, max_pixels: int) -> Mask:
    """Fill holes of at most *max_pixels* that do not touch the border of the block.

    A hole is a four-connected part of the background.  Holes that touch the border may continue
    beyond it and stay open.  In the inner part of a block the result is that of the whole picture
    if every hole of at most *max_pixels* that reaches the inner part lies within the block.
    """
    holes, n = label_mask(np.ascontiguousarray(~mask), False)
    return _fill(holes, n, max_pixels)


@kernel
def _fill(holes: NDArray[np.int32], n: int, max_pixels: int) -> Mask:
    rows, cols = holes.shape
    pixels = np.zeros(n + 1, np.int64)
    for r in range(rows):
        for c in range(cols):
            pixels[holes[r, c]] += 1
    for r in range(rows):
        pixels[holes[r, 0]] = pixels[holes[r, cols - 1]] = max_pixels + 1
    for c in range(cols):
        pixels[holes[0, c]] = pixels[holes[rows - 1, c]] = max_pixels + 1
    out = np.empty((rows, cols), np.bool_)
    for r in range(rows):
        for c in range(cols):
            k = holes[r, c]
            out[r, c] = k == 0 or pixels[k] <= max_pixels
    return out


@kernel
def find(parent: NDArray[np.int64], i: int) -> int:
    """Root of a label in a union-find forest; the way there is shortened."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def label_mask(mask: Mask, eight: bool = True) -> tuple[Labels, int]:
    """Connected components of a mask, numbered by first pixel in raster order, and their count.

    Eight-connected, or four-connected when *eight* is False.
    """
    rows, cols = mask.shape
    out = np.zeros((rows, cols), np.int32)
    parent = np.zeros(1024, np.int64)
    n = 0
    for r in range(rows):
        for c in range(cols):
            if mask[r, c]:
                best = _join_earlier(out, parent, r, c, eight)
                if best == 0:
                    n += 1
                    if n >= parent.size:
                        parent = np.concatenate((parent, np.zeros(parent.size, np.int64)))
                    parent[n] = best = n
                out[r, c] = best
    return out, _close_up(out, parent, n)


@kernel
def _join_earlier(out: Labels, parent: NDArray[np.int64], r: int, c: int, eight: bool) -> int:
    """Unite the labels of the neighbours already seen; the smallest, 0 if there is none."""
    best = 0
    for k in range(4):
        i = r if k == 0 else r - 1
        j = c - 1 if k <= 1 else c + k - 2
        if not eight and (k == 1 or k == 3):
            continue
        if i < 0 or j < 0 or j >= out.shape[1] or out[i, j] == 0:
            continue
        found = find(parent, out[i, j])
        if best == 0 or found < best:
            parent[best] = found
            best = found
        else:
            parent[found] = best
    return best


@kernel
def _close_up(out: Labels, parent: NDArray[np.int64], n: int) -> int:
    """Replace labels by the consecutive numbers of their roots, in place; the count."""
    number = np.zeros(n + 1, np.int32)
    count = 0
    for i in range(1, n + 1):
        root = find(parent, i)
        if root == i:
            count += 1
            number[i] = count
        else:
            number[i] = number[root]
    for r in range(out.shape[0]):
        for c in range(out.shape[1]):
            out[r, c] = number[out[r, c]]
    return count
