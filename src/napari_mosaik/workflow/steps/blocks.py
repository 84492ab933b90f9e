"""Cutting a slide into blocks with a margin, so that a step works on it piece by piece."""

from __future__ import annotations

import errno
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.raster import Raster
from napari_mosaik.io.files import saving

__all__ = ["Block", "cut", "scratch_array", "with_tissue"]


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
    def outer(self) -> Lattice:
        """Lattice of the core with its margin; it may reach beyond the slide."""
        spacing, origin = self.lattice.spacing_um, self.lattice.origin_um
        shape = (
            self.rows.stop - self.rows.start + 2 * self.margin,
            self.cols.stop - self.cols.start + 2 * self.margin,
        )
        corner = (
            origin[0] + (self.rows.start - self.margin) * spacing[0],
            origin[1] + (self.cols.start - self.margin) * spacing[1],
        )
        return Lattice(self.lattice.frame, shape, spacing, corner)

    @property
    def core(self) -> Lattice:
        """Lattice of the core alone."""
        return self.lattice.crop(self.rows, self.cols)

    @property
    def inner(self) -> tuple[slice, slice]:
        """Where the core lies within `outer`."""
        m = self.margin
        return (
            slice(m, m + self.rows.stop - self.rows.start),
            slice(m, m + self.cols.stop - self.cols.start),
        )


def cut(lattice: Lattice, block_px: int, margin_um: float) -> list[Block]:
    """Blocks in raster order that cover the lattice, each with a margin of *margin_um*."""
    margin = math.ceil(margin_um / min(lattice.spacing_um))
    rows = range(0, lattice.shape[0], block_px)
    cols = range(0, lattice.shape[1], block_px)
    corners = [(row, col) for row in rows for col in cols]
    return [
        Block(
            index,
            slice(row, min(row + block_px, lattice.shape[0])),
            slice(col, min(col + block_px, lattice.shape[1])),
            margin,
            lattice,
        )
        for index, (row, col) in enumerate(corners)
    ]


def with_tissue(blocks: list[Block], mask: Raster) -> list[Block]:
    """The blocks whose core holds tissue; the mask lies in the same frame."""
    return [block for block in blocks if tissue_in(block.core, mask).any()]


def tissue_in(lattice: Lattice, mask: Raster) -> NDArray[np.bool_]:
    """The tissue mask on a lattice of the same frame (separable nearest look-up)."""
    low = mask.lattice
    index = []
    for axis in (0, 1):
        centre = (np.arange(lattice.shape[axis]) + 0.5) * lattice.spacing_um[axis]
        position = (centre + lattice.origin_um[axis] - low.origin_um[axis]) / low.spacing_um[axis]
        index.append(np.floor(position).astype(np.int64))
    rows, cols = index
    good_rows = (rows >= 0) & (rows < low.shape[0])
    good_cols = (cols >= 0) & (cols < low.shape[1])
    out = np.zeros(lattice.shape, bool)
    inside = np.asarray(mask.values, bool)[np.ix_(rows[good_rows], cols[good_cols])]
    out[np.ix_(good_rows, good_cols)] = inside
    return out


def scratch_array(folder: Path, name: str, shape: tuple[int, int], dtype: Any) -> NDArray[Any]:
    """A large array that lives in a file of the scratch folder instead of the memory; zeros.

    Its room on the disk is taken at once: writing to a mapped file on a full disk would end the
    program instead of raising an error.
    """
    path = folder / f"{name}.npy"
    with saving("a working file", folder):
        folder.mkdir(parents=True, exist_ok=True)
        array = np.lib.format.open_memmap(path, "w+", dtype=dtype, shape=shape)
        _reserve(path)
    return array


def _reserve(path: Path) -> None:
    """Take the room of a file that was made with holes."""
    size = path.stat().st_size
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    elif shutil.disk_usage(path.parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
