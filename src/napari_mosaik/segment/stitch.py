"""Objects made whole across block seams: label a large mask block by block as if at once.

Each block is labelled on its own (blocks may run in any order or side by side); joining at the
seams is a union of the labels that touch.  Final numbers follow the first pixel of each object in
raster order, so the result equals that of the whole picture at once, whatever the block size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.errors import InputError
from napari_mosaik.segment.filters import Mask, kernel
from napari_mosaik.segment.masks import Labels, find, label_mask

__all__ = ["ObjectCounts", "SeamLabels", "Window", "label_blocks", "windows"]

Window = tuple[slice, slice]


class WritableArray(Protocol):
    """An array in memory or on disk that is read and written by windows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    def __getitem__(self, key: Any, /) -> Any: ...
    def __setitem__(self, key: Any, value: Any, /) -> None: ...


def windows(shape: tuple[int, int], block_px: int) -> list[Window]:
    """Blocks in raster order that cover the shape; the last of a row or column may be smaller."""
    if block_px < 1:
        raise InputError(f"the block size must be positive, not {block_px}")
    return [
        (slice(r, min(r + block_px, shape[0])), slice(c, min(c + block_px, shape[1])))
        for r in range(0, shape[0], block_px)
        for c in range(0, shape[1], block_px)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class ObjectCounts:
    """Objects 1..n in order of their first pixel: entry ``i`` belongs to label ``i + 1``.

    Parameters
    ----------
    pixels
        (n,) number of pixels.
    marked
        (n,) number of pixels that were also in the second mask (the stained wall), else 0.
    first
        (n,) flat index of the first pixel in raster order.
    """

    pixels: NDArray[np.int64]
    marked: NDArray[np.int64]
    first: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.pixels.size)


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    pixels: NDArray[np.int64]
    marked: NDArray[np.int64]
    first: NDArray[np.int64]
    edges: tuple[Labels, Labels, Labels, Labels]
    """Labels along the top, bottom, left and right edge."""


class SeamLabels:
    """Labelling of one picture in blocks: `add` every block, `join`, then `relabel` every block.

    Parameters
    ----------
    shape
        Rows and columns of the whole picture.
    block_px
        Edge of a block, pixels.
    """

    def __init__(self, shape: tuple[int, int], block_px: int = 1024) -> None:
        self.shape, self.block_px = (int(shape[0]), int(shape[1])), int(block_px)
        self.windows = windows(self.shape, self.block_px)
        self.n_across = -(-self.shape[1] // self.block_px)
        self._blocks: dict[int, _Block] = {}
        self._offsets = np.zeros(len(self.windows) + 1, np.int64)
        self._final: Labels | None = None

    def add(self, index: int, mask: Mask, marked: Mask | None = None) -> Labels:
        """Label block *index* of `windows` by itself (8-connected) and note its seams.

        Parameters
        ----------
        index
            Position in `windows`.
        mask
            The block's pixels, exactly its window.
        marked
            Second mask whose pixels are counted per object.

        Returns
        -------
        numpy.ndarray
            Provisional labels, int32; keep them for `relabel`.
        """
        window = self.windows[index]
        expected = (window[0].stop - window[0].start, window[1].stop - window[1].start)
        if mask.shape != expected:
            raise InputError(f"block {index} has the shape {expected}, its mask {mask.shape}")
        labels, n = label_mask(np.ascontiguousarray(mask, bool))
        second = np.zeros((1, 1), bool) if marked is None else np.ascontiguousarray(marked, bool)
        pixels, counted, first = _count(labels, n, second, marked is not None)
        rows, cols = np.divmod(first, max(1, expected[1]))
        first = (rows + window[0].start) * self.shape[1] + cols + window[1].start
        edges = (labels[0].copy(), labels[-1].copy(), labels[:, 0].copy(), labels[:, -1].copy())
        self._blocks[index] = _Block(pixels, counted, first, edges)
        return labels

    def join(self, min_pixels: int = 0) -> ObjectCounts:
        """Join objects across seams, drop those below *min_pixels* and number the others."""
        missing = len(self.windows) - len(self._blocks)
        if missing:
            raise InputError(f"{missing} of {len(self.windows)} blocks have not been labelled yet")
        blocks = [self._blocks[i] for i in range(len(self.windows))]
        self._offsets[1:] = np.cumsum([block.pixels.size for block in blocks])
        parent = np.arange(int(self._offsets[-1]) + 1)
        for one, other in self._seams():
            _unite(parent, one, other)
        root = _roots(parent)[1:] - 1
        empty = np.zeros(0, np.int64)
        pixels = _sum_at_root(root, np.concatenate([empty, *(b.pixels for b in blocks)]))
        marked = _sum_at_root(root, np.concatenate([empty, *(b.marked for b in blocks)]))
        first = np.concatenate([empty, *(b.first for b in blocks)])
        earliest = np.full(root.size, np.iinfo(np.int64).max)
        np.minimum.at(earliest, root, first)
        kept = np.flatnonzero((pixels > 0) & (pixels >= min_pixels))
        kept = kept[np.argsort(earliest[kept], kind="stable")]
        number = np.zeros(root.size, np.int32)
        number[kept] = np.arange(1, kept.size + 1)
        self._final = number[root]
        return ObjectCounts(pixels[kept], marked[kept], earliest[kept])

    def relabel(self, index: int, provisional: Labels) -> Labels:
        """Final labels of block *index* from its provisional ones."""
        if self._final is None:
            raise InputError("blocks can be relabelled only after they have been joined")
        own = self._final[self._offsets[index] : self._offsets[index + 1]]
        table = np.concatenate([np.zeros(1, np.int32), own])
        return table[provisional]

    def _seams(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Pairs of global provisional labels that touch across a seam, corners included."""
        for index in range(len(self.windows)):
            column = index % self.n_across
            if column:
                yield self._touching(index - 1, 3, index, 2)
            if index < self.n_across:
                continue
            above = index - self.n_across
            yield self._touching(above, 1, index, 0)
            if column:
                yield self._touching(above - 1, 1, index, 0, (-1, 0))
            if column < self.n_across - 1:
                yield self._touching(above + 1, 1, index, 0, (0, -1))

    def _touching(
        self, one: int, edge: int, other: int, facing: int, corner: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        a = self._blocks[one].edges[edge].astype(np.int64)
        b = self._blocks[other].edges[facing].astype(np.int64)
        if corner is not None:
            a, b = a[[corner[0]]], b[[corner[1]]]
            pairs = [(a, b)]
        else:
            pairs = [(a, b), (a[1:], b[:-1]), (a[:-1], b[1:])]
        left = np.concatenate([pair[0] for pair in pairs])
        right = np.concatenate([pair[1] for pair in pairs])
        both = (left > 0) & (right > 0)
        return left[both] + self._offsets[one], right[both] + self._offsets[other]


def label_blocks(
    mask: Any, out: WritableArray, block_px: int = 1024, min_pixels: int = 0
) -> Iterator[ObjectCounts | None]:
    """Label a mask into *out*, yielding after every block so that the work can be cancelled.

    Parameters
    ----------
    mask
        Boolean array of two dimensions, in memory or on disk.
    out
        int32 array of the same shape, written twice: provisional, then final labels.
    block_px
        Edge of a block; it does not change the result.
    min_pixels
        Smaller objects are dropped.

    Yields
    ------
    ObjectCounts or None
        None after each block of either pass; the counts at the very end.
    """
    if tuple(mask.shape) != tuple(out.shape):
        raise InputError(f"a mask of shape {mask.shape} does not fit labels of shape {out.shape}")
    seams = SeamLabels((int(mask.shape[0]), int(mask.shape[1])), block_px)
    for index, window in enumerate(seams.windows):
        out[window] = seams.add(index, np.asarray(mask[window], bool))
        yield None
    counts = seams.join(min_pixels)
    for index, window in enumerate(seams.windows):
        out[window] = seams.relabel(index, np.asarray(out[window], np.int32))
        yield None
    yield counts


def _sum_at_root(root: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    out = np.zeros(root.size, np.int64)
    np.add.at(out, root, values)
    return out


@kernel
def _unite(parent: NDArray[np.int64], one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
    for k in range(one.size):
        a, b = find(parent, one[k]), find(parent, other[k])
        if a < b:
            parent[b] = a
        elif b < a:
            parent[a] = b


@kernel
def _roots(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    out = np.empty(parent.size, np.int64)
    for i in range(parent.size):
        out[i] = find(parent, i)
    return out


@kernel
def _count(
    labels: Labels, n: int, marked: Mask, use_marked: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    rows, cols = labels.shape
    pixels = np.zeros(n, np.int64)
    counted = np.zeros(n, np.int64)
    first = np.full(n, -1, np.int64)
    for r in range(rows):
        for c in range(cols):
            k = labels[r, c] - 1
            if k < 0:
                continue
            if pixels[k] == 0:
                first[k] = r * cols + c
            pixels[k] += 1
            if use_marked and marked[r, c]:
                counted[k] += 1
    return pixels, counted, first
