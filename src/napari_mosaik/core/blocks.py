"""Blocks of a lattice with a margin, so that a slide is processed, and labels made, by blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.recent import RecentValues
from napari_mosaik.core.window import paste

__all__ = ["Block", "LazyLabels", "cut", "cut_px", "margin_px"]


@dataclass(frozen=True, slots=True)
class Block:
    """One block: its core on the working lattice, and the margin that is read around it."""

    index: int
    rows: slice
    cols: slice
    margin: int
    lattice: Lattice
    """The whole working lattice."""

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the core with its margin, cut at the edge of the lattice."""
        spans = []
        for core, length in zip((self.rows, self.cols), self.lattice.shape, strict=True):
            first, last = core.start - self.margin, core.stop + self.margin
            spans.append(slice(max(0, first), min(length, last)))
        return spans[0], spans[1]

    @property
    def outer(self) -> Lattice:
        """Lattice of the `window`: a block at the edge sees the edge, as the whole slide would."""
        return self.lattice.crop(*self.window)

    @property
    def core(self) -> Lattice:
        """Lattice of the core alone."""
        return self.lattice.crop(self.rows, self.cols)

    @property
    def inner(self) -> tuple[slice, slice]:
        """Where the core lies within `outer`."""
        rows, cols = self.window
        return (
            slice(self.rows.start - rows.start, self.rows.stop - rows.start),
            slice(self.cols.start - cols.start, self.cols.stop - cols.start),
        )


def cut(lattice: Lattice, block_px: int, margin_um: float) -> list[Block]:
    """Square blocks in raster order that cover the lattice, each with a margin of *margin_um*."""
    return cut_px(lattice, (block_px, block_px), margin_px(lattice, margin_um))


def margin_px(lattice: Lattice, margin_um: float) -> int:
    """The margin in whole samples, rounded up."""
    return math.ceil(margin_um / min(lattice.spacing_um))


def cut_px(lattice: Lattice, size: tuple[int, int], margin: int) -> list[Block]:
    """Blocks of *size* samples in raster order; the last of a row or column may be smaller."""
    if min(size) < 1 or margin < 0:
        raise InputError(f"blocks of {size} samples with a margin of {margin} are not possible")
    corners = [
        (row, col)
        for row in range(0, lattice.shape[0], size[0])
        for col in range(0, lattice.shape[1], size[1])
    ]
    return [
        Block(
            index,
            slice(row, min(row + size[0], lattice.shape[0])),
            slice(col, min(col + size[1], lattice.shape[1])),
            margin,
            lattice,
        )
        for index, (row, col) in enumerate(corners)
    ]


# --- label images made block by block -------------------------------------------------------------
_RECENT = 4
"""Painted blocks that are kept: neighbouring parts are usually asked for one after another."""


class LazyLabels:
    """A label image that is made block by block when a part of it is asked for.

    Parameters
    ----------
    shape
        Rows and columns of the whole image.
    blocks
        Blocks in raster order whose cores cover it as rows and columns of blocks.
    paint
        Gives the labels of one block's core by its index; called from several threads.
    dtype
        Of the labels.
    holds
        Whether a block has any label, known without painting it; every block may if None.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        blocks: Sequence[Block],
        paint: Callable[[int], NDArray[Any]],
        dtype: np.dtype[Any],
        holds: Callable[[int], bool] | None = None,
    ) -> None:
        self.shape, self.dtype, self.ndim = shape, dtype, 2
        self._holds = holds
        self._blocks, self._paint = blocks, paint
        self._row_stops = np.array(sorted({block.rows.stop for block in blocks}))
        self._col_stops = np.array(sorted({block.cols.stop for block in blocks}))
        self._whole = {
            (b.rows.start, b.cols.start): ((b.rows.stop, b.cols.stop), b.index) for b in blocks
        }
        self._recent: RecentValues[NDArray[Any]] = RecentValues(_RECENT)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        parts = key if isinstance(key, tuple) else (key, slice(None))
        if parts[0] is Ellipsis:
            parts = (slice(None), slice(None))
        r0, r1, _ = parts[0].indices(self.shape[0])
        c0, c1, _ = parts[1].indices(self.shape[1])
        if (r0, c0) in self._whole and self._whole[r0, c0][0] == (r1, c1):
            return self._paint(self._whole[r0, c0][1])
        out = np.zeros((max(0, r1 - r0), max(0, c1 - c0)), self.dtype)
        for block in self._touched(r0, r1, c0, c1) if out.size else ():
            labels = self._labels(block.index)
            paste(out, (r0, c0), labels, (block.rows.start, block.cols.start))
        return out

    def is_empty(self, rows: slice, cols: slice) -> bool:
        """Whether it is known that a part holds no label."""
        if self._holds is None:
            return False
        touched = self._touched(rows.start, rows.stop, cols.start, cols.stop)
        return not any(self._holds(block.index) for block in touched)

    def _touched(self, r0: int, r1: int, c0: int, c1: int) -> list[Block]:
        across = len(self._col_stops)
        first_row, last_row = np.searchsorted(self._row_stops, (r0, r1 - 1), "right")
        first, last = np.searchsorted(self._col_stops, (c0, c1 - 1), "right")
        return [
            self._blocks[i * across + j]
            for i in range(first_row, last_row + 1)
            for j in range(first, last + 1)
        ]

    def _labels(self, index: int) -> NDArray[Any]:
        return self._recent.get_or_make(index, lambda: self._paint(index))
