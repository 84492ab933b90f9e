"""What the steps share when they work on a slide block by block."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_mosaik.core.blocks import Block
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.raster import LazyArray, Raster
from napari_mosaik.core.window import paste

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide

__all__ = [
    "BLOCK_PX",
    "LazyLabels",
    "RenumberedLabels",
    "blocks_with_tissue",
    "drop_damaged_objects",
    "resample_mask",
    "sample_blocks",
]

BLOCK_PX = 1024
"""Edge of a block whose work takes long: a cancelled run ends after the blocks in work."""
_RECENT = 4
"""Painted blocks that are kept: neighbouring parts are usually asked for one after another."""


def sample_blocks(lattice: Lattice, block_px: int, mask: Raster, count: int) -> list[Block]:
    """At most *count* small blocks spread evenly over the tissue, without margins."""
    inside = np.flatnonzero(np.asarray(mask.values, bool))
    chosen = inside[np.linspace(0, inside.size - 1, min(count, inside.size)).astype(np.int64)]
    index = np.stack(np.divmod(chosen, mask.lattice.shape[1]), axis=-1)
    position = lattice.to_index(mask.lattice.to_um(index))
    cells = np.clip(position + 0.5, 0, np.asarray(lattice.shape) - 1).astype(np.int64) // block_px
    blocks: list[Block] = []
    for row, column in sorted({(int(r), int(c)) for r, c in cells}):
        spans = [
            slice(cell * block_px, min((cell + 1) * block_px, length))
            for cell, length in zip((row, column), lattice.shape, strict=True)
        ]
        blocks.append(Block(len(blocks), spans[0], spans[1], 0, lattice))
    return blocks


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
        self._recent: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

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
        with self._lock:
            found = self._recent.get(index)
        if found is None:
            found = self._paint(index)
            with self._lock:
                self._recent[index] = found
                while len(self._recent) > _RECENT:
                    self._recent.popitem(last=False)
        return found


def blocks_with_tissue(blocks: list[Block], mask: Raster) -> list[Block]:
    """The blocks whose core holds tissue; the mask lies in the same frame."""
    return [block for block in blocks if _holds_tissue(block.core, mask)]


def _holds_tissue(lattice: Lattice, mask: Raster) -> bool:
    found = [np.unique(index) for _, index in _looked_up(lattice, mask)]
    return bool(np.asarray(mask.values, bool)[np.ix_(*found)].any())


def resample_mask(lattice: Lattice, mask: Raster) -> NDArray[np.bool_]:
    """The tissue mask on a lattice of the same frame (separable nearest look-up)."""
    (part_rows, rows), (part_cols, cols) = _looked_up(lattice, mask)
    out = np.zeros(lattice.shape, bool)
    if rows.size and cols.size:  # few rows are made as wide as the lattice, then copied whole
        first = int(rows[0])
        wide = np.asarray(mask.values, bool)[first : int(rows[-1]) + 1].take(cols, axis=1)
        out[part_rows, part_cols] = wide.take(rows - first, axis=0)
    return out


def _looked_up(lattice: Lattice, mask: Raster) -> list[tuple[slice, NDArray[np.int64]]]:
    """Per axis: the part of the lattice that lies on the mask, and which samples of the mask."""
    low, found = mask.lattice, []
    for axis in (0, 1):
        centre = (np.arange(lattice.shape[axis]) + 0.5) * lattice.spacing_um[axis]
        position = (centre + lattice.origin_um[axis] - low.origin_um[axis]) / low.spacing_um[axis]
        index = np.floor(position).astype(np.int64)
        start, stop = np.searchsorted(index, (0, low.shape[axis]))
        found.append((slice(int(start), int(stop)), index[start:stop]))
    return found


class RenumberedLabels:
    """A stored label image whose labels are looked up in a table when a part is asked for."""

    def __init__(self, stored: LazyArray, table: NDArray[np.int32]) -> None:
        self.shape, self.dtype, self.ndim = tuple(stored.shape), table.dtype, 2
        self._stored, self._table = stored, table

    def __getitem__(self, key: Any) -> NDArray[Any]:
        found: NDArray[Any] = self._table[np.asarray(self._stored[key])]
        return found


def drop_damaged_objects(
    labels: NDArray[np.int32], slide: Slide, lattice: Lattice, margin_um: float = 0.0
) -> NDArray[np.int32]:
    """Labels of a block without the objects that touch a damaged tile or lie nearer than a margin.

    Part of such an object is missing, so nothing that is measured on it would be right.
    """
    if not slide.damaged:
        return labels
    unsound = ~slide.sound(lattice)
    if not unsound.any():
        return labels
    away_um = ndimage.distance_transform_edt(~unsound, sampling=lattice.spacing_um)
    near = away_um <= margin_um + max(lattice.spacing_um) * 1.5
    return np.where(np.isin(labels, np.unique(labels[near])), 0, labels).astype(np.int32)
