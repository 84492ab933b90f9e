"""Dilation of a mask by a Euclidean distance, compiled, without a distance map."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.frame import Mask

__all__ = ["within"]


def within(mask: Mask, distance_um: float, spacing_um: tuple[float, float]) -> Mask:
    """Mask (rows, columns) of the pixels within a distance of the mask, between pixel centres.

    Equal to thresholding a Euclidean distance map at *distance_um*, in a fraction of its time and
    memory.

    Parameters
    ----------
    mask
        (rows, columns).
    distance_um
        Distance, not negative, µm; the mask itself always belongs to the result.
    spacing_um
        Pixel size (row, column), µm.
    """
    out = np.array(mask, bool)
    if out.size:
        _spread(np.ascontiguousarray(mask, bool), _half_widths(distance_um, spacing_um), out)
    return out


def _half_widths(distance_um: float, spacing_um: tuple[float, float]) -> NDArray[np.int64]:
    """Reach in columns at each distance in rows, from 0 on."""
    rows = np.arange(math.floor(distance_um / spacing_um[0]) + 2) * spacing_um[0]
    columns = np.arange(math.floor(distance_um / spacing_um[1]) + 2) * spacing_um[1]
    near = np.sqrt(rows[:, None] ** 2 + columns[None, :] ** 2) <= distance_um
    reached: NDArray[np.int64] = near.sum(axis=1)[near[:, 0]] - 1
    return reached


@compiled
def _spread(mask: Mask, half: NDArray[np.int64], out: Mask) -> None:
    """Widen every run of a row and write it into the rows within reach."""
    rows, cols = mask.shape
    reach = half.size - 1
    for r in range(rows):
        c = 0
        while c < cols:
            if not mask[r, c]:
                c += 1
                continue
            start = c
            while c < cols and mask[r, c]:
                c += 1
            for i in range(max(0, r - reach), min(rows, r + reach + 1)):
                more = half[abs(i - r)]
                out[i, max(0, start - more) : min(cols, c + more)] = True
