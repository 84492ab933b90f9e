"""Objects made whole across block seams, so that a slide cut into blocks gives the same objects.

Two ways.  `SeamLabels` labels a large mask: each block is labelled on its own
(`run_length.find_runs`), and labels that touch across a seam are united; holes are joined in the
same way.  `ObjectStitcher` joins blocks that overlap: each object belongs to the block whose core
holds its centroid, and is painted whole, also where it reaches into the halo.  Final numbers follow
the first pixel of each object in raster order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Mask
from napari_mosaik.core.recent import RecentValues
from napari_mosaik.core.window import Slices
from napari_mosaik.segment.run_length import BlockComponents, LabelRuns, Labels

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
    rows, cols = core
    labels = np.ascontiguousarray(labels, np.int32)
    return _in_core(labels, rows.start, rows.stop, cols.start, cols.stop)


@compiled
def _in_core(labels: Labels, top: int, bottom: int, left: int, right: int) -> Labels:
    n = labels.max() + 1 if labels.size else 1
    count, row, col = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    for r in range(labels.shape[0]):
        for c in range(labels.shape[1]):
            k = labels[r, c]
            count[k] += 1
            row[k] += r
            col[k] += c
    number = np.zeros(n, np.int32)
    for k in range(1, n):
        # Whole numbers: a centroid on a border goes to the same core in every block.
        y, x = 2 * row[k] + count[k], 2 * col[k] + count[k]
        inside = 2 * top * count[k] <= y < 2 * bottom * count[k]
        if count[k] > 0 and inside and 2 * left * count[k] <= x < 2 * right * count[k]:
            number[k] = k
    out = np.empty_like(labels)
    for r in range(labels.shape[0]):
        for c in range(labels.shape[1]):
            out[r, c] = number[labels[r, c]]
    return out


class ObjectStitcher:
    """Joins the objects of overlapping blocks to one label image, which is painted on demand.

    Blocks follow one another in a fixed order, whatever the order in which they were segmented.
    Where two objects claim a pixel the first keeps it; an object that finds less than half of its
    pixels free is the same object seen twice and is dropped.  Objects are read as runs, block by
    block; no array of the image's size exists.

    Parameters
    ----------
    shape
        Rows and columns of the image.
    windows
        Each block with its halo in the image (pixel indices).
    load
        The objects of a block, by its index: those that it owns (`keep_centroid_in_core`).
    """

    dtype, ndim = np.dtype(np.int32), 2

    def __init__(
        self,
        shape: tuple[int, int],
        windows: Sequence[Slices],
        load: Callable[[int], LabelRuns],
    ) -> None:
        self.shape, self._windows = shape, list(windows)
        sides = [(r.start, r.stop, c.start, c.stop) for r, c in self._windows]
        self._sides = np.array(sides, np.int64).reshape(-1, 4)
        across = sum(rows.start == self._windows[0][0].start for rows, _ in self._windows)
        self._recent: RecentValues[LabelRuns] = RecentValues(3 * across + 8)
        self._load = load
        self._numbers: list[Labels] = []

    def join(self) -> Iterator[int]:
        """Decide block by block which objects are kept; yields the number of finished blocks.

        After the last one the final numbers are known: in order of the first pixel.
        """
        first = [np.zeros(0, np.int64)]
        for index, (rows, cols) in enumerate(self._windows):
            present = np.zeros((rows.stop - rows.start, cols.stop - cols.start), np.int32)
            for before in self._meeting(rows, cols, index):
                self._paint(present, (rows.start, cols.start), before)
            runs = self._runs(index)
            kept, start = _accepted(present, runs.row, runs.spans, runs.label, runs.n_objects)
            self._numbers.append(kept)
            r, c = np.divmod(start, max(1, present.shape[1]))
            first.append((r + rows.start) * self.shape[1] + c + cols.start)
            yield index + 1
        order = np.argsort(np.concatenate(first), kind="stable")
        final = np.zeros(order.size, np.int32)
        final[order] = np.arange(1, order.size + 1)
        offered, done, n = [np.zeros(0, np.int64)], 0, 0
        for kept in self._numbers:
            own = np.flatnonzero(kept)
            offered.append(n + own - 1)
            kept[own] = final[done : done + own.size]
            done, n = done + own.size, n + kept.size - 1
        self.rows = np.concatenate(offered)[order]

    rows: NDArray[np.int64]
    """(n,) row of each final label in the objects of all blocks one after another (index)."""

    def __getitem__(self, key: Any) -> Labels:
        parts = key if isinstance(key, tuple) else (key, slice(None))
        parts = (slice(None), slice(None)) if parts[0] is Ellipsis else parts
        r0, r1, _ = parts[0].indices(self.shape[0])
        c0, c1, _ = parts[1].indices(self.shape[1])
        out = np.zeros((max(0, r1 - r0), max(0, c1 - c0)), np.int32)
        for index in self._meeting(slice(r0, r1), slice(c0, c1)):
            self._paint(out, (r0, c0), index)
        return out

    def is_empty(self, rows: slice, cols: slice) -> bool:
        """Whether it is known that a part holds no label."""
        return not any(self._numbers[index].any() for index in self._meeting(rows, cols))

    def _meeting(self, rows: slice, cols: slice, before: int | None = None) -> list[int]:
        """Blocks, with their halo, that meet a part of the image, in order."""
        top, bottom, left, right = self._sides[:before].T
        meets = (
            (top < rows.stop) & (bottom > rows.start) & (left < cols.stop) & (right > cols.start)
        )
        return [int(index) for index in np.flatnonzero(meets)]

    def _paint(self, out: Labels, corner: tuple[int, int], index: int) -> None:
        rows, cols = self._windows[index]
        at = rows.start - corner[0], cols.start - corner[1]
        self._runs(index).paint(out, at, self._numbers[index])

    def _runs(self, index: int) -> LabelRuns:
        return self._recent.get_or_make(index, lambda: self._load(index))


@compiled
def _accepted(
    present: Labels, row: NDArray[np.int64], spans: Labels, label: Labels, n: int
) -> tuple[Labels, NDArray[np.int64]]:
    """1 for each object that is kept and 0 for one seen before, and their first free pixels."""
    count, free = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)
    start = np.full(n + 1, -1, np.int64)
    for r in range(row.size - 1):
        for j in range(row[r], row[r + 1]):
            k = label[j]
            count[k] += spans[j, 1] - spans[j, 0]
            for c in range(spans[j, 0], spans[j, 1]):
                if present[r, c] == 0:
                    free[k] += 1
                    if start[k] < 0:
                        start[k] = r * present.shape[1] + c
    kept = np.zeros(n + 1, np.int32)
    first = np.empty(n, np.int64)
    m = 0
    for k in range(1, n + 1):
        if free[k] > 0 and 2 * free[k] >= count[k]:
            first[m] = start[k]
            m += 1
            kept[k] = 1
    return kept, first[:m]
