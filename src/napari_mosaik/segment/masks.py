"""Morphology of masks: opening, closing, holes, distances, objects, seeds and watershed.

Like the filters, everything here is local, and nothing is assumed beyond the border.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.frame import Mask
from napari_mosaik.segment.filters import Float32
from napari_mosaik.segment.run_length import Labels, find_runs

__all__ = [
    "Labels",
    "chamfer_distance",
    "close_mask",
    "disc",
    "fill_holes",
    "flood",
    "label_mask",
    "local_maxima",
    "open_mask",
    "renumber",
]


def disc(radius_px: float) -> NDArray[np.int64]:
    """Offsets of all pixels whose centre lies within a radius in pixels, (n, 2), nearest first."""
    reach = math.floor(radius_px)
    rows, cols = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    squared = rows**2 + cols**2
    inside = squared <= radius_px**2 + 1e-9
    order = np.lexsort((cols[inside], rows[inside], squared[inside]))
    return np.stack([rows[inside], cols[inside]], axis=1)[order].astype(np.int64)


def close_mask(mask: Mask, radius_px: float) -> Mask:
    """Morphological closing of a mask (rows, columns) by a disc, radius in pixels.

    What lies beyond the border neither adds nor removes; the same pixels in any block.
    """
    return _morphology(mask, radius_px, "MORPH_CLOSE")


def open_mask(mask: Mask, radius_px: float) -> Mask:
    """Morphological opening of a mask (rows, columns) by a disc, radius in pixels.

    The mask is taken to go on beyond the border.
    """
    return _morphology(mask, radius_px, "MORPH_OPEN")


def _morphology(
    mask: Mask, radius_px: float, operation: Literal["MORPH_CLOSE", "MORPH_OPEN"]
) -> Mask:
    if radius_px < 1 or mask.size == 0:
        return mask
    import cv2

    element = _offsets_mask(disc(radius_px))
    pixels = np.ascontiguousarray(mask, bool).view(np.uint8)
    return np.asarray(cv2.morphologyEx(pixels, getattr(cv2, operation), element)).view(bool)


def _offsets_mask(offsets: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A structuring element, (2 reach + 1, 2 reach + 1), from offsets (n, 2)."""
    reach = int(np.abs(offsets).max())
    element = np.zeros((2 * reach + 1, 2 * reach + 1), np.uint8)
    element[offsets[:, 0] + reach, offsets[:, 1] + reach] = 1
    return element


@compiled
def chamfer_distance(mask: Mask, limit: int) -> Float32:
    """Distance to the nearest pixel outside a mask, pixels, up to *limit* (5-7-11 chamfer).

    *mask* and the result have the shape (rows, columns).  The border of the image counts as inside.
    Within 2 % of the Euclidean distance.  Source:
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
    """A mask (rows, columns) with its holes of at most *max_pixels* filled.

    A hole is a four-connected part of the background.  Holes that touch the border of the block may
    continue beyond it and stay open.
    """
    runs = find_runs(mask)
    holes = runs.holes()
    fill = np.concatenate([np.zeros(1, bool), holes.pixels <= max_pixels])
    for edge in holes.edges:
        fill[edge] = False
    return runs.filled(fill)


def label_mask(mask: Mask) -> tuple[Labels, int]:
    """Eight-connected objects of a mask (rows, columns), and their count.

    Labels (rows, columns) are numbered by first pixel in raster order.
    """
    from skimage.measure import label

    labels = label(np.asarray(mask, bool), connectivity=2)  # type: ignore[no-untyped-call]
    labels = np.asarray(labels, np.int32)
    return labels, int(labels.max(initial=0))


def local_maxima(score: Float32, mask: Mask, offsets: NDArray[np.int64]) -> Labels:
    """Seeds: masked pixels that no masked pixel within the offsets exceeds.

    Parameters
    ----------
    score
        (rows, columns) values of any unit.
    mask
        (rows, columns) mask of pixels that may be seeds.
    offsets
        (n, 2) pixels around a seed, row and column.

    Returns
    -------
    numpy.ndarray
        (rows, columns) labels 1, 2, ... in raster order.  Of equal pixels the first in raster
        order wins.
    """
    height = np.where(mask, score, np.float32(-np.inf)).astype(np.float32)
    earlier = (offsets[:, 0] < 0) | ((offsets[:, 0] == 0) & (offsets[:, 1] < 0))
    seeds = np.asarray(mask, bool) & (height >= _highest(height, offsets))
    seeds &= height > _highest(height, offsets[earlier])
    labels = np.zeros(score.shape, np.int32)
    labels[seeds] = np.arange(1, np.count_nonzero(seeds) + 1)
    return labels


def _highest(height: Float32, offsets: NDArray[np.int64]) -> Float32:
    """Maximum over the offsets of each pixel; minus infinity beyond the border."""
    if not offsets.size:
        return np.full(height.shape, -np.inf, np.float32)
    import cv2

    low = float(-np.inf)
    element = _offsets_mask(offsets)
    highest = cv2.dilate(height, element, borderType=cv2.BORDER_CONSTANT, borderValue=low)
    return np.asarray(highest, np.float32)


@compiled
def _push(p: int, level: int, head: Labels, tail: Labels, following: Labels) -> None:
    if head[level] < 0:
        head[level] = p
    else:
        following[tail[level]] = p
    tail[level] = p


@compiled
def flood(level: NDArray[np.uint8], seeds: Labels, mask: Mask) -> Labels:
    """Watershed by priority flooding from the seeds, lowest level first, within a mask.

    Levels (count), seeds (labels), mask and result (labels) have the shape (rows, columns).
    Four-connected; ties go to the pixel that was reached first.  Parts of the mask without a seed
    stay 0.
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


@compiled
def renumber(labels: Labels, min_pixels: int) -> Labels:
    """Labels without objects below *min_pixels*, numbered by first pixel.

    Both label images have the shape (rows, columns), and *min_pixels* is a count.
    """
    count = np.zeros(labels.max() + 1, np.int64)
    for value in labels.ravel():
        count[value] += 1
    number = np.zeros(count.size, np.int32)
    out = np.zeros_like(labels)
    n = 0
    for r in range(labels.shape[0]):
        for c in range(labels.shape[1]):
            k = labels[r, c]
            if k > 0 and count[k] >= min_pixels:
                if number[k] == 0:
                    n += 1
                    number[k] = n
                out[r, c] = number[k]
    return out
