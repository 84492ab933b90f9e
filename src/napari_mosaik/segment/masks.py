"""Fast work on boolean masks: opening, closing, holes, distances, connected parts.

Like the filters, everything here is local, and what lies beyond the border is never invented.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.segment.filters import Float32, Mask, kernel
from napari_mosaik.segment.runs import Labels, find_runs, words_of

__all__ = [
    "Labels",
    "chamfer_distance",
    "close_mask",
    "disc",
    "fill_holes",
    "label_mask",
    "open_mask",
]


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
    padded, words = words_of(mask)
    wide, wide_words = words_of(np.zeros_like(padded))
    cols = mask.shape[1]
    return _close(padded, words, wide, wide_words, cols, disc(radius_px))[:, :cols]


@kernel
def _close(
    mask: Mask, words: NDArray[np.uint64], wide: Mask, wide_words: NDArray[np.uint64],
    cols: int, offsets: NDArray[np.int64],
) -> Mask:  # fmt: skip
    inner = wide[:, :cols]
    for r in range(words.shape[0]):
        for word in range(words.shape[1]):
            if words[r, word] != 0:
                _dilate(mask[r], inner, r, 8 * word, offsets)
    out = mask.copy()
    for r in range(words.shape[0]):
        for word in range(words.shape[1]):
            if wide_words[r, word] != words[r, word]:
                _erode(out[r], mask[r], inner, r, 8 * word, offsets)
    return out


@kernel
def _dilate(line: Mask, wide: Mask, r: int, first: int, offsets: NDArray[np.int64]) -> None:
    """Widen the mask by the pixels of a word of a row."""
    for c in range(first, first + 8):
        if line[c]:
            _stamp(wide, r, c, offsets)


@kernel
def _erode(
    out: Mask, line: Mask, wide: Mask, r: int, first: int, offsets: NDArray[np.int64]
) -> None:
    """Add the pixels of a word of a row from which the widened mask holds at all offsets."""
    for c in range(first, min(first + 8, wide.shape[1])):
        if wide[r, c] and not line[c]:
            out[c] = _covered(wide, r, c, offsets)


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
    beyond it and stay open.
    """
    runs = find_runs(mask)
    holes = runs.holes()
    fill = np.concatenate([np.zeros(1, bool), holes.pixels <= max_pixels])
    for edge in holes.edges:
        fill[edge] = False
    return runs.filled(fill)


def label_mask(mask: Mask) -> tuple[Labels, int]:
    """Eight-connected parts of a mask, numbered by first pixel in raster order, and their count."""
    runs = find_runs(mask)
    return runs.painted(), runs.n_objects
