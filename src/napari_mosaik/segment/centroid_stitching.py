"""Whole objects from overlapping blocks: each object belongs to the block of its centroid.

Blocks are segmented with a halo; a block keeps the objects whose centroid lies in its core and
pastes them whole, also where they reach into the halo.  No object is cut or counted twice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.errors import InputError
from napari_mosaik.segment.masks import Labels

__all__ = ["ObjectStitcher", "keep_centroid_in_core"]

Core = tuple[slice, slice]


def keep_centroid_in_core(labels: Labels, core: Core) -> Labels:
    """The objects of a block whose centroid lies in its core; the others become 0.

    Parameters
    ----------
    labels
        (rows, columns) int32 labels 1..n of a block with halo.
    core
        Rows and columns of the core within the block; half-open, so that of neighbouring cores
        exactly one owns a centroid on their border.
    """
    rows, cols = core
    bounds = np.array([rows.start, rows.stop, cols.start, cols.stop], np.int64)
    return _own(np.ascontiguousarray(labels, np.int32), bounds)


@compiled
def _own(labels: Labels, bounds: NDArray[np.int64]) -> Labels:
    n = labels.max() + 1
    count, row_sum, col_sum = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    for r in range(labels.shape[0]):
        for c in range(labels.shape[1]):
            k = labels[r, c]
            count[k] += 1
            row_sum[k] += r
            col_sum[k] += c
    number = np.zeros(n, np.int32)
    for k in range(1, n):
        row, col = 2 * row_sum[k] + count[k], 2 * col_sum[k] + count[k]
        inside = 2 * bounds[0] * count[k] <= row < 2 * bounds[1] * count[k]
        inside = inside and 2 * bounds[2] * count[k] <= col < 2 * bounds[3] * count[k]
        if inside and count[k] > 0:
            number[k] = k
    out = np.empty_like(labels)
    for r in range(labels.shape[0]):
        for c in range(labels.shape[1]):
            out[r, c] = number[labels[r, c]]
    return out


class ObjectStitcher:
    """Pastes the objects of one block after another into one label image.

    Blocks are pasted in a fixed order, whatever the order in which they were segmented.  Where two
    objects claim a pixel the first keeps it; an object that finds less than half of its pixels
    free is the same nucleus seen twice and is dropped.  After the last block `numbering` gives the
    final numbers in order of first pixel.

    Parameters
    ----------
    shape
        Rows and columns of the whole picture.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._first: list[NDArray[np.int64]] = []
        self.count = 0

    def paste(self, present: Labels, owned: Labels, origin: tuple[int, int]) -> Labels:
        """The block's part of the picture with the owned objects added under provisional numbers.

        Parameters
        ----------
        present
            The block's window (halo included) of the label image as it is.
        owned
            Objects of `keep_centroid_in_core`, the same shape.
        origin
            Row and column of the block's first pixel in the picture.
        """
        if present.shape != owned.shape:
            raise InputError(f"a block of shape {owned.shape} cannot be pasted on {present.shape}")
        out, first = _paste(
            np.ascontiguousarray(present, np.int32), np.ascontiguousarray(owned), self.count
        )
        rows, cols = np.divmod(first, max(1, owned.shape[1]))
        self._first.append((rows + origin[0]) * self.shape[1] + cols + origin[1])
        self.count += first.size
        return out

    def numbering(self) -> Labels:
        """(count + 1,) table from provisional to final numbers 1..n in order of first pixel."""
        first = np.concatenate([np.zeros(0, np.int64), *self._first])
        table = np.zeros(first.size + 1, np.int32)
        table[1 + np.argsort(first, kind="stable")] = np.arange(1, first.size + 1)
        return table


@compiled
def _paste(present: Labels, owned: Labels, used: int) -> tuple[Labels, NDArray[np.int64]]:
    number, first = _accepted(present, owned, used)
    out = present.copy()
    for r in range(owned.shape[0]):
        for c in range(owned.shape[1]):
            if present[r, c] == 0:
                out[r, c] = number[owned[r, c]]
    return out, first


@compiled
def _accepted(present: Labels, owned: Labels, used: int) -> tuple[Labels, NDArray[np.int64]]:
    """New number of each object (0 for one seen before) and its first free pixel."""
    n = owned.max() + 1
    count, free = np.zeros(n, np.int64), np.zeros(n, np.int64)
    start = np.full(n, -1, np.int64)
    for p in range(owned.size):
        k = int(owned.flat[p])
        count[k] += 1
        if present.flat[p] == 0:
            free[k] += 1
            if start[k] < 0:
                start[k] = p
    number = np.zeros(n, np.int32)
    first = np.empty(n, np.int64)
    m = 0
    for k in range(1, n):
        if free[k] > 0 and 2 * free[k] >= count[k]:
            first[m] = start[k]
            m += 1
            number[k] = used + m
    return number, first[:m]
