"""Sums over the pixels of labelled objects, computed block by block and added up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.errors import InputError

__all__ = [
    "ObjectSums",
    "hull_pixels",
    "hull_points",
    "measure_block",
    "row_runs",
    "sum_along_runs",
    "sum_runs",
]

_Int32 = NDArray[np.int32]
_Int64 = NDArray[np.int64]


@compiled
def _next_object(row: _Int32, start: int, stop: int) -> int:
    """First position from *start* whose label is not 0, or *stop*; background goes by 16."""
    c = start
    while c + 16 <= stop:
        found = 0
        for i in range(16):
            found |= row[c + i]
        if found != 0:
            break
        c += 16
    while c < stop and row[c] == 0:
        c += 1
    return c


@compiled
def row_runs(labels: _Int32, window: tuple[int, int, int, int]) -> _Int32:
    """Horizontal runs of equal labels other than 0 within a window, in raster order.

    Parameters
    ----------
    labels
        (h, w) labels.
    window
        First row, row after the last, first column, column after the last.

    Returns
    -------
    (runs, 4) label, row, first and last column.
    """
    r0, r1, c0, c1 = window
    runs = np.empty((256, 4), np.int32)
    n = 0
    for r in range(r0, r1):
        row = labels[r]
        c = _next_object(row, c0, c1)
        while c < c1:
            label, first = row[c], c
            while c < c1 and row[c] == label:
                c += 1
            if n == len(runs):
                more = np.empty((2 * n, 4), np.int32)
                more[:n] = runs
                runs = more
            runs[n, 0], runs[n, 1], runs[n, 2], runs[n, 3] = label, r, first, c - 1
            n += 1
            c = _next_object(row, c, c1)
    return runs[:n]


@compiled
def _other(labels: _Int32, r: int, c: int, label: int) -> int:
    """1 where the pixel lies off the image or does not belong to *label*, else 0."""
    if r < 0 or c < 0 or r >= labels.shape[0] or c >= labels.shape[1]:
        return 1
    return 1 if labels[r, c] != label else 0


@compiled
def _count_crossings(
    labels: _Int32, label: int, r: int, first: int, last: int, crossings: _Int64
) -> None:
    """Add the steps that lead out of the object from one of its runs, by direction."""
    crossings[0] += _other(labels, r, first - 1, label) + _other(labels, r, last + 1, label)
    for side in (-1, 1):
        beside = r + side
        straight = last - first + 1
        if 0 <= beside < labels.shape[0]:
            straight = 0
            for c in range(first, last + 1):
                straight += labels[beside, c] != label
        # The diagonal steps end one pixel further left or right than the straight ones.
        to_left = straight + _other(labels, beside, first - 1, label)
        to_left -= _other(labels, beside, last, label)
        to_right = straight + _other(labels, beside, last + 1, label)
        to_right -= _other(labels, beside, first, label)
        crossings[1] += straight
        crossings[2] += to_left if side == -1 else to_right
        crossings[3] += to_right if side == -1 else to_left


@compiled
def sum_runs(
    labels: _Int32, runs: _Int32, which: _Int64, corners: _Int64, sums: _Int64, crossings: _Int64
) -> None:
    """Sum up the pixels of each object from its runs.

    Parameters
    ----------
    labels
        (h, w) labels; pixels around the runs decide where borders are.
    runs
        (runs, 4) of `row_runs`.
    which
        (runs,) the object, 0 to m - 1, of each run.
    corners
        (m, 2) filled with the smallest row and column of each object.
    sums
        (m, 6) filled with the sums of 1, r, c, r², c², rc over the pixels, counted from the corner.
    crossings
        (m, 4) filled with the steps out of the object along rows, columns and both diagonals.
    """
    corners[:] = np.iinfo(np.int64).max
    sums[:] = 0
    crossings[:] = 0
    for i in range(len(runs)):
        corner = corners[which[i]]
        corner[0] = min(corner[0], runs[i, 1])
        corner[1] = min(corner[1], runs[i, 2])
    for i in range(len(runs)):
        k = which[i]
        label, row, first, last = runs[i, 0], runs[i, 1], runs[i, 2], runs[i, 3]
        _count_crossings(labels, label, row, first, last, crossings[k])
        r = row - corners[k, 0]
        low, high = first - corners[k, 1], last - corners[k, 1]
        length = high - low + 1
        total = length * (low + high) // 2
        squares = high * (high + 1) * (2 * high + 1) - (low - 1) * low * (2 * low - 1)
        sums[k, 0] += length
        sums[k, 1] += length * r
        sums[k, 2] += total
        sums[k, 3] += length * r * r
        sums[k, 4] += squares // 6
        sums[k, 5] += total * r


@compiled
def sum_along_runs(values: NDArray[Any], runs: _Int32, which: _Int64, sums: NDArray[Any]) -> None:
    """Add the values (h, w) under the runs to the sums (m,) of their objects, in raster order."""
    for i in range(len(runs)):
        row, k = runs[i, 1], which[i]
        total = sums[k]
        for c in range(runs[i, 2], runs[i, 3] + 1):
            total += values[row, c]
        sums[k] = total


@compiled
def _row_ends(runs: _Int32, order: _Int64, start: int, stop: int, ends: _Int64) -> int:
    """First and last column per row of one object, rows ascending; returns the number of rows."""
    rows = 0
    for i in range(start, stop):
        run = order[i]
        if rows > 0 and ends[rows - 1, 0] == runs[run, 1]:
            ends[rows - 1, 1] = min(ends[rows - 1, 1], runs[run, 2])
            ends[rows - 1, 2] = max(ends[rows - 1, 2], runs[run, 3])
        else:
            ends[rows, 0], ends[rows, 1], ends[rows, 2] = runs[run, 1], runs[run, 2], runs[run, 3]
            rows += 1
    return rows


@compiled
def _half_hull(ends: _Int64, rows: int, side: int, chain: _Int64) -> int:
    """One side of the convex hull over ascending rows (side 1 left, 2 right); its length."""
    sign = 1 if side == 1 else -1
    size = 0
    for i in range(rows):
        r, c = ends[i, 0], ends[i, side]
        while size >= 2:
            dr, dc = (
                chain[size - 1, 0] - chain[size - 2, 0],
                chain[size - 1, 1] - chain[size - 2, 1],
            )
            turn = dr * (c - chain[size - 2, 1]) - dc * (r - chain[size - 2, 0])
            if sign * turn > 0:
                break
            size -= 1
        chain[size, 0], chain[size, 1] = r, c
        size += 1
    return size


@compiled
def _longest(starts: _Int64) -> int:
    """The largest number of runs that one object has; at least 1."""
    longest = 1
    for k in range(starts.size - 1):
        longest = max(longest, starts[k + 1] - starts[k])
    return longest


@compiled
def hull_points(runs: _Int32, order: _Int64, starts: _Int64) -> _Int32:
    """Corners of each object's convex hull: (points, 3) label, row, column.

    Parameters
    ----------
    runs
        (runs, 4) label, row, first and last column.
    order
        (runs,) sorts the runs by object, then row.
    starts
        (m + 1,) ``starts[k] : starts[k + 1]`` within *order* are the runs of object k.
    """
    longest = _longest(starts)
    ends, chain = np.empty((longest, 3), np.int64), np.empty((longest, 2), np.int64)
    out = np.empty((2 * order.size, 3), np.int32)
    n = 0
    for k in range(starts.size - 1):
        rows = _row_ends(runs, order, starts[k], starts[k + 1], ends)
        for side in (1, 2):
            for i in range(_half_hull(ends, rows, side, chain)):
                out[n, 0] = runs[order[starts[k]], 0]
                out[n, 1], out[n, 2] = chain[i, 0], chain[i, 1]
                n += 1
    return out[:n].copy()


@compiled
def _lattice_points(left: _Int64, n_left: int, right: _Int64, n_right: int) -> int:
    """Pixels whose centres lie in or on the hull between two chains (Pick's theorem)."""
    twice, border = 0, 0
    for i in range(n_left - 1):
        twice += left[i, 0] * left[i + 1, 1] - left[i + 1, 0] * left[i, 1]
        border += math.gcd(left[i + 1, 0] - left[i, 0], abs(left[i + 1, 1] - left[i, 1]))
    for i in range(n_right - 1):
        twice -= right[i, 0] * right[i + 1, 1] - right[i + 1, 0] * right[i, 1]
        border += math.gcd(right[i + 1, 0] - right[i, 0], abs(right[i + 1, 1] - right[i, 1]))
    top, bottom = right[0, 1] - left[0, 1], right[n_right - 1, 1] - left[n_left - 1, 1]
    twice += left[n_left - 1, 0] * bottom
    twice -= left[0, 0] * top
    pixels: int = (abs(twice) + border + top + bottom) // 2 + 1
    return pixels


@compiled
def hull_pixels(runs: _Int32, order: _Int64, starts: _Int64) -> _Int64:
    """Pixel count of the convex hull of each object's pixel centres, (n,); 0 for empty objects.

    See `hull_points` for the parameters.
    """
    out = np.zeros(starts.size - 1, np.int64)
    longest = _longest(starts)
    ends = np.empty((longest, 3), np.int64)
    left, right = np.empty((longest, 2), np.int64), np.empty((longest, 2), np.int64)
    for k in range(starts.size - 1):
        if starts[k + 1] == starts[k]:
            continue
        rows = _row_ends(runs, order, starts[k], starts[k + 1], ends)
        base_row, base_col = ends[0, 0], ends[0, 1]
        for i in range(rows):
            ends[i, 0] -= base_row
            ends[i, 1] -= base_col
            ends[i, 2] -= base_col
        n_left = _half_hull(ends, rows, 1, left)
        n_right = _half_hull(ends, rows, 2, right)
        out[k] = _lattice_points(left, n_left, right, n_right)
    return out


_FAR = np.iinfo(np.int64).max


def measure_block(
    labels: NDArray[Any],
    offset: tuple[int, int] = (0, 0),
    *,
    window: tuple[slice, slice] | None = None,
    intensity: Mapping[str, NDArray[Any]] | None = None,
    masks: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, NDArray[Any]]:
    """The contribution of one block of a label image to the measurements of its objects.

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
    array = np.asarray(values)
    if array.shape != shape:
        raise InputError(f"'{name}' has the shape {array.shape}, but the window has {shape}")
    return array


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
