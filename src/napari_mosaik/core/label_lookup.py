"""Labels of an image at given positions; only the parts that contain a position are read."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.raster import LabelImage, Raster

__all__ = ["codes_at"]

_BLOCK = 1024
"""Rows and columns of the parts that are read: whole chunks of stored label images."""


def codes_at(
    image: LabelImage | Raster, points_um: ArrayLike, outside: int = 0
) -> NDArray[np.int64]:
    """Nearest codes at positions (..., 2) in µm of the image's frame, (...).

    Parameters
    ----------
    image
        Labels, class codes or a mask (code 1).  A stored image is read in blocks, each once, and
        only those that hold a position.
    points_um
        Row and column in µm.
    outside
        Code of the positions beyond the image.
    """
    position = image.lattice.to_index(points_um)
    index = np.floor(position + 0.5).astype(np.int64)
    inside = ((index >= 0) & (index < np.asarray(image.lattice.shape))).all(axis=-1)
    out = np.full(index.shape[:-1], outside, np.int64)
    rows, cols = index[inside].T
    if isinstance(image.values, np.ndarray):
        out[inside] = image.values[rows, cols]
        return out
    found = np.empty(rows.size, np.int64)
    blocks_across = -(-image.lattice.shape[1] // _BLOCK)
    block = rows // _BLOCK * blocks_across + cols // _BLOCK
    order = np.argsort(block, kind="stable")
    for chosen in np.split(order, np.flatnonzero(np.diff(block[order])) + 1):
        if chosen.size:
            r, c = rows[chosen], cols[chosen]
            top, left = int(r.min()), int(c.min())
            part = np.asarray(image.values[top : int(r.max()) + 1, left : int(c.max()) + 1])
            found[chosen] = part[r - top, c - left]
    out[inside] = found
    return out
