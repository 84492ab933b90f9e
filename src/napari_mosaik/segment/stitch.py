"""Objects made whole across block seams, so that a slide cut into blocks gives the same objects.

Two ways.  `SeamLabels` labels a large mask: each block is labelled on its own
(`run_length.find_runs`), and labels that touch across a seam are united; holes are joined in the
same way.  `ObjectStitcher` joins blocks that overlap: each object belongs to the block whose core
holds its centroid, and is pasted whole, also where it reaches into the halo.  Final numbers follow
the first pixel of each object in raster order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Mask
from napari_mosaik.core.window import Slices
from napari_mosaik.segment.run_length import BlockComponents, Labels

__all__ = [
    "ObjectCounts",
    "ObjectStitcher",
    "SeamLabels",
    "holes_to_fill",
    "keep_centroid_in_core",
    "windows",
]


def windows(shape: tuple[int, int], block_px: int) -> list[Slices]:
    """Blocks in raster order that cover the shape (rows, columns); the last ones may be smaller."""
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
        (n,) pixel count.
    first
        (n,) flat index of the first pixel in raster order.
    """

    pixels: NDArray[np.int64]
    first: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.pixels.size)


class SeamLabels:
    """The objects of one image from those of its blocks: `put` every block, `join`, `numbers`.

    Parameters
    ----------
    windows
        The blocks in raster order; they cover a rectangle in rows and columns of blocks.
    holes
        Join holes (four-connected) instead of objects (eight-connected).
    """

    def __init__(self, windows: Sequence[Slices], *, holes: bool = False) -> None:
        self.windows = list(windows)
        first_row = [w for w in self.windows if w[0].start == self.windows[0][0].start]
        self.n_across = max(1, len(first_row))
        self.shape = (
            max((w[0].stop for w in self.windows), default=0),
            max((w[1].stop for w in self.windows), default=0),
        )
        self._holes = holes
        self._blocks: dict[int, BlockComponents] = {}
        self._offsets = np.zeros(len(self.windows) + 1, np.int64)
        self._final: Labels | None = None

    def put(self, index: int, parts: BlockComponents) -> None:
        """Set the objects of block *index*."""
        rows, cols = self.windows[index]
        expected = (cols.stop - cols.start, rows.stop - rows.start)
        if (parts.edges[0].size, parts.edges[2].size) != expected:
            raise InputError(
                f"block {index} has {expected[1]} rows and {expected[0]} columns, its objects come "
                f"from {parts.edges[2].size} and {parts.edges[0].size}"
            )
        self._blocks[index] = parts

    def join(self, min_pixels: int = 0) -> ObjectCounts:
        """Join objects across seams, drop those below *min_pixels* and number the others."""
        missing = len(self.windows) - len(self._blocks)
        if missing:
            raise InputError(f"{missing} of {len(self.windows)} blocks have not been labelled yet")
        blocks = [self._blocks[i] for i in range(len(self.windows))]
        self._offsets[1:] = np.cumsum([block.pixels.size for block in blocks])
        root = self._united()
        empty = np.zeros(0, np.int64)
        pixels = np.zeros(root.size, np.int64)
        np.add.at(pixels, root, np.concatenate([empty, *(b.pixels for b in blocks)]))
        earliest = np.full(root.size, np.iinfo(np.int64).max)
        firsts = [self._first(i, block) for i, block in enumerate(blocks)]
        np.minimum.at(earliest, root, np.concatenate([empty, *firsts]))
        large = np.flatnonzero((pixels > 0) & (pixels >= min_pixels))
        large = large[np.argsort(earliest[large], kind="stable")]
        number = np.zeros(root.size, np.int32)
        number[large] = np.arange(1, large.size + 1)
        self._final = number[root]
        return ObjectCounts(pixels[large], earliest[large])

    def numbers(self, index: int) -> Labels:
        """Final label of each object of block *index*, shape (n + 1,); 0 for none or dropped."""
        if self._final is None:
            raise InputError("objects have final labels only after `join`")
        own = self._final[self._offsets[index] : self._offsets[index + 1]]
        return np.concatenate([np.zeros(1, np.int32), own])

    def fill_border(self, index: int, out: Labels) -> None:
        """Fill the border of a block's final labels with those of its neighbours.

        *out*, shape (rows + 2, columns + 2), is changed in place; 0 beyond the image.
        """
        column, across = index % self.n_across, self.n_across
        row, n_down = index // across, len(self.windows) // across
        for step in (-1, 1):
            facing, far = (1, 0) if step < 0 else (0, -1)
            if 0 <= row + step < n_down:
                out[far, 1:-1] = self.edge(index + step * across, facing)
                for side in (-1, 1):
                    if 0 <= column + side < across:
                        corner = self.edge(index + step * across + side, facing)
                        out[far, 0 if side < 0 else -1] = corner[-1 if side < 0 else 0]
            if 0 <= column + step < across:
                out[1:-1, far] = self.edge(index + step, facing + 2)

    def edge(self, index: int, side: int) -> Labels:
        """Final labels along the top, bottom, left or right edge (side 0 to 3) of a block.

        Shape (columns,) for sides 0 and 1, else (rows,).
        """
        return self.numbers(index)[self._blocks[index].edges[side]]

    def _united(self) -> NDArray[np.int64]:
        """(n,) number of the whole object that each provisional label belongs to, from 0."""
        n = int(self._offsets[-1])
        pairs = np.hstack([np.zeros((2, 0), np.int64), *(np.stack(p) for p in self._seams())]) - 1
        touching = coo_array((np.ones(pairs.shape[1], bool), tuple(pairs)), (n, n))
        return connected_components(touching, directed=False)[1].astype(np.int64)

    def _first(self, index: int, parts: BlockComponents) -> NDArray[np.int64]:
        """Flat index within the image of each object's first pixel."""
        rows, cols = self.windows[index]
        r, c = np.divmod(parts.first, max(1, cols.stop - cols.start))
        first: NDArray[np.int64] = (r + rows.start) * self.shape[1] + c + cols.start
        return first

    def _seams(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Pairs of global provisional labels that touch across a seam."""
        for index in range(len(self.windows)):
            column = index % self.n_across
            if column:
                yield self._touching(index - 1, 3, index, 2)
            if index < self.n_across:
                continue
            above = index - self.n_across
            yield self._touching(above, 1, index, 0)
            if self._holes:
                continue
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
        elif self._holes:
            pairs = [(a, b)]
        else:
            pairs = [(a, b), (a[1:], b[:-1]), (a[:-1], b[1:])]
        left = np.concatenate([pair[0] for pair in pairs])
        right = np.concatenate([pair[1] for pair in pairs])
        both = (left > 0) & (right > 0)
        return left[both] + self._offsets[one], right[both] + self._offsets[other]


def holes_to_fill(seams: SeamLabels, max_pixels: int) -> list[Mask]:
    """Which holes of each block are to be filled: masks of shape (n_holes + 1,) for `Runs.filled`.

    A hole is filled when it has at most *max_pixels* and does not touch the edge of the image,
    beyond which it may go on; a hole across seams counts as one.
    """
    counts = seams.join()
    small = np.concatenate([np.zeros(1, bool), counts.pixels <= max_pixels])
    last = len(seams.windows) // seams.n_across - 1
    for index in range(len(seams.windows)):
        row, column = divmod(index, seams.n_across)
        at_edge = (row == 0, row == last, column == 0, column == seams.n_across - 1)
        for side, is_edge in enumerate(at_edge):
            if is_edge:
                small[seams.edge(index, side)] = False
    small[0] = False
    return [small[seams.numbers(index)] for index in range(len(seams.windows))]


def keep_centroid_in_core(labels: Labels, core: Slices) -> Labels:
    """The objects of a block whose centroid lies in its core, (rows, columns); the others become 0.

    Parameters
    ----------
    labels
        (rows, columns) int32 labels 1..n of a block with halo.
    core
        Rows and columns of the core within the block; half-open, so that of neighbouring cores
        exactly one owns a centroid on their border.
    """
    n = int(labels.max(initial=0)) + 1
    count = np.bincount(labels.ravel(), minlength=n)
    inside = count > 0
    for axis, window in enumerate(core):
        # Whole numbers: a centroid on a border goes to the same core in every block.
        along = np.arange(labels.shape[axis]).reshape((-1, 1) if axis == 0 else (1, -1))
        weights = np.broadcast_to(along, labels.shape).ravel()
        twice = 2 * np.bincount(labels.ravel(), weights, n).astype(np.int64) + count
        inside &= (2 * window.start * count <= twice) & (twice < 2 * window.stop * count)
    inside[0] = False
    return np.where(inside, np.arange(n), 0).astype(np.int32)[labels]


class ObjectStitcher:
    """Pastes the objects of one block after another into one label image.

    Blocks are pasted in a fixed order, whatever the order in which they were segmented.  Where two
    objects claim a pixel the first keeps it; an object that finds less than half of its pixels
    free is the same object seen twice and is dropped.

    Parameters
    ----------
    labels
        (rows, columns) int32 array of zeros that the objects are written into.
    """

    def __init__(self, labels: Any) -> None:
        self._labels = labels
        self._first = [np.zeros(0, np.int64)]
        self._rows = [np.zeros(0, np.int64)]
        self._n_pasted = self._n_offered = 0

    def paste(self, window: Slices, owned: Labels) -> None:
        """Add the objects of one block under provisional numbers.

        Parameters
        ----------
        window
            The block with its halo in the whole image (pixel indices).
        owned
            (rows, columns) labels from `keep_centroid_in_core`.
        """
        present = np.array(self._labels[window], np.int32)  # a copy: the array may be in memory
        if present.shape != owned.shape:
            raise InputError(f"a block of shape {owned.shape} cannot be pasted on {present.shape}")
        pasted, first = _paste(present, np.ascontiguousarray(owned, np.int32), self._n_pasted)
        self._labels[window] = pasted
        rows, cols = np.divmod(first, max(1, owned.shape[1]))
        top, left = window[0].start, window[1].start
        self._first.append((rows + top) * self._labels.shape[1] + cols + left)
        self._rows.append(self._n_offered + np.unique(owned[pasted != present]) - 1)
        self._n_pasted += first.size
        self._n_offered += int(owned.max(initial=0))

    def numbering(self) -> tuple[Labels, NDArray[np.int64]]:
        """Final numbers in order of first pixel, after the last block.

        Returns
        -------
        numpy.ndarray, numpy.ndarray
            (n + 1,) final label of each provisional one, and (n,) row of each final label in the
            objects of all blocks one after another (index).
        """
        first = np.concatenate(self._first)
        order = np.argsort(first, kind="stable")
        table = np.zeros(first.size + 1, np.int32)
        table[1 + order] = np.arange(1, first.size + 1)
        return table, np.concatenate(self._rows).astype(np.int64)[order]


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
