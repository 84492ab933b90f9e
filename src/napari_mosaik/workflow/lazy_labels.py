"""Label images whose pixels are computed block by block when a part of them is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.blocks import Block
from napari_mosaik.core.recent import RecentValues
from napari_mosaik.core.window import paste

__all__ = ["LazyLabels"]

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
