"""Blocks of a lattice with a margin, so that a slide is processed block by block."""

from __future__ import annotations

import math
from dataclasses import dataclass

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Lattice

__all__ = ["Block", "cut", "cut_px", "margin_px"]


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
