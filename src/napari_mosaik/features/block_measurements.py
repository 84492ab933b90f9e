"""Sums over the pixels of labelled objects, taken block by block and added up without the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.errors import InputError
from napari_mosaik.features.object_kernels import (
    hull_pixels,
    hull_points,
    row_runs,
    sum_along_runs,
    sum_runs,
)

__all__ = ["ObjectSums", "measure_block"]

_FAR = np.iinfo(np.int64).max


def measure_block(
    labels: NDArray[Any],
    offset: tuple[int, int] = (0, 0),
    *,
    window: tuple[slice, slice] | None = None,
    intensity: Mapping[str, NDArray[Any]] | None = None,
    masks: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, NDArray[Any]]:
    """What one block of a label image adds to the measurements of the objects in it.

    Parameters
    ----------
    labels
        (h, w) whole numbers; 0 is background.  An object may go on in other blocks.
    offset
        Row and column of the block's pixel (0, 0) on the whole image.
    window
        The part of *labels* that is measured; the whole block if None.  Give the block one pixel
        more on each side that lies within the image: these pixels are not counted, they tell
        whether an outline goes on.  The windows of all blocks cover the image without overlap.
    intensity
        Name to values on the window whose mean over each object is wanted.
    masks
        Name to booleans on the window whose area within each object is wanted.

    Returns
    -------
    Small arrays, one row for each of the m objects in the window, for `merge_measures`: ``label``,
    ``corner`` (m, 2), ``sums`` (m, 6), ``crossings`` (m, 4), ``mask:NAME`` and ``intensity:NAME``
    (m,), and ``hull`` (points, 3).  They can be stored with `numpy.savez`.

    Raises
    ------
    InputError
        If a label is negative, or values do not have the window's shape.
    """
    block = np.ascontiguousarray(labels, np.int32)
    rows, cols = window or (slice(None), slice(None))
    r0, r1, _ = rows.indices(block.shape[0])
    c0, c1, _ = cols.indices(block.shape[1])
    runs = row_runs(block, (r0, r1, c0, c1))
    present, which = np.unique(runs[:, 0], return_inverse=True)
    which = which.reshape(-1).astype(np.int64)
    m = present.size
    if m and present[0] < 0:
        raise InputError(f"a label is {present[0]}; labels of objects are 1 or more")
    corner, sums = np.empty((m, 2), np.int64), np.empty((m, 6), np.int64)
    crossings = np.empty((m, 4), np.int64)
    sum_runs(block, runs, which, corner, sums, crossings)
    order = np.argsort(which, kind="stable")
    hull = hull_points(runs, order, _starts(which[order], m))
    hull[:, 1:] += np.asarray(offset, np.int32)
    part: dict[str, NDArray[Any]] = {
        "label": present,
        "corner": corner + np.asarray(offset, np.int64),
        "sums": sums,
        "crossings": crossings,
        "hull": hull,
    }
    runs[:, 1] -= r0
    runs[:, 2:] -= c0
    shape = (r1 - r0, c1 - c0)
    for name, values in (masks or {}).items():
        marked = _on_window(name, values, shape).astype(np.bool_, copy=False)
        part[f"mask:{name}"] = _sums_along(marked.view(np.uint8), runs, which, np.zeros(m, int))
    for name, values in (intensity or {}).items():
        levels = _on_window(name, values, shape).astype(np.float32, copy=False)
        part[f"intensity:{name}"] = _sums_along(levels, runs, which, np.zeros(m))
    return part


def _on_window(name: str, values: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    found = np.asarray(values)
    if found.shape != shape:
        raise InputError(f"'{name}' has the shape {found.shape}, but the window has {shape}")
    return found


def _sums_along(
    values: NDArray[Any], runs: NDArray[np.int32], which: NDArray[np.int64], sums: NDArray[Any]
) -> NDArray[Any]:
    if sums.size:
        sum_along_runs(np.ascontiguousarray(values), runs, which, sums)
    return sums


def _starts(objects: NDArray[Any], n: int) -> NDArray[np.int64]:
    """Where each of n objects starts in a sorted array of object numbers, and its end; (n + 1,)."""
    return np.searchsorted(objects, np.arange(n + 1)).astype(np.int64)


class ObjectSums:
    """Sums over the pixels of *n* objects, to which the blocks of `measure_block` are added.

    The order of the blocks and where the image was cut do not matter (for the sums of intensities:
    only in the last digits).

    Parameters
    ----------
    n
        Number of objects; labels are 1 to n.
    intensity, masks
        Names of the channels and of the masks that every block holds.
    """

    def __init__(
        self, n: int, intensity: tuple[str, ...] = (), masks: tuple[str, ...] = ()
    ) -> None:
        self.n = n
        self.corner = np.full((n, 2), _FAR)
        """Smallest row and column of each object, (n, 2)."""
        self.sums = np.zeros((n, 6), np.int64)
        """Sums of 1, r, c, r², c², rc, counted from the corner, (n, 6)."""
        self.crossings = np.zeros((n, 4), np.int64)
        """Steps out of the object along rows, columns and both diagonals, (n, 4)."""
        self.intensity = {name: np.zeros(n) for name in intensity}
        """Sum of each channel, (n,)."""
        self.masks = {name: np.zeros(n, np.int64) for name in masks}
        """Number of marked pixels of each mask, (n,)."""
        self._hulls: list[NDArray[np.int32]] = []

    def add(self, part: Mapping[str, NDArray[Any]]) -> None:
        """Add what `measure_block` gave for one block."""
        label = np.asarray(part["label"])
        if label.size == 0:
            return
        if label.min() < 1 or label.max() > self.n:
            raise InputError(
                f"labels from {label.min()} to {label.max()} do not fit {self.n} objects"
            )
        needed = {f"intensity:{name}" for name in self.intensity}
        needed |= {f"mask:{name}" for name in self.masks}
        if not needed <= set(part):
            raise InputError(
                f"a block was measured without {', '.join(sorted(needed - set(part)))}; measure "
                "all blocks with the same masks and intensities"
            )
        at = label.astype(np.int64) - 1
        corner = np.minimum(self.corner[at], part["corner"])
        before = np.where(self.sums[at, :1] > 0, self.corner[at] - corner, 0)
        self.sums[at] = _moved(self.sums[at], before) + _moved(
            part["sums"], part["corner"] - corner
        )
        self.corner[at] = corner
        self.crossings[at] += part["crossings"]
        for name, total in self.intensity.items():
            total[at] += part[f"intensity:{name}"]
        for name, count in self.masks.items():
            count[at] += part[f"mask:{name}"]
        self._hulls.append(part["hull"])

    def hull_pixels(self) -> NDArray[np.int64]:
        """Number of pixels whose centres lie in each object's convex hull, (n,); 0 if absent."""
        points = np.concatenate([*self._hulls, np.empty((0, 3), np.int32)])
        order = np.lexsort((points[:, 1], points[:, 0])).astype(np.int64)
        starts = _starts(points[order, 0] - 1, self.n)
        return hull_pixels(points[:, [0, 1, 2, 2]], order, starts)


def _moved(sums: NDArray[np.int64], by: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sums (m, 6) when rows and columns grow by *by* (m, 2); exact."""
    n, r, c, rr, cc, rc = sums.T
    dr, dc = by.T
    return np.stack(
        [
            n,
            r + n * dr,
            c + n * dc,
            rr + 2 * dr * r + n * dr * dr,
            cc + 2 * dc * c + n * dc * dc,
            rc + dr * c + dc * r + n * dr * dc,
        ],
        axis=1,
    )
