"""What the steps share when they work on a slide block by block."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.blocks import Block
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.raster import Raster
from napari_mosaik.io.files import saving

__all__ = ["scratch_array", "tissue_in", "with_tissue"]


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
