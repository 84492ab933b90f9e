"""The loops over runs of pixels that sum up areas, moments, borders and hulls of objects."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.compiled import compiled

__all__ = ["hull_pixels", "hull_points", "row_runs", "sum_along_runs", "sum_runs"]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


@compiled
def _next_object(row: Int32, start: int, stop: int) -> int:
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
def row_runs(labels: Int32, window: tuple[int, int, int, int]) -> Int32:
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
def _other(labels: Int32, r: int, c: int, label: int) -> int:
    """1 where the pixel lies off the image or belongs to something else than *label*, else 0."""
    if r < 0 or c < 0 or r >= labels.shape[0] or c >= labels.shape[1]:
        return 1
    return 1 if labels[r, c] != label else 0


@compiled
def _count_crossings(
    labels: Int32, label: int, r: int, first: int, last: int, crossings: Int64
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
    labels: Int32, runs: Int32, which: Int64, corners: Int64, sums: Int64, crossings: Int64
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
def sum_along_runs(values: NDArray[Any], runs: Int32, which: Int64, sums: NDArray[Any]) -> None:
    """Add the values (h, w) under the runs to the sums (m,) of their objects, in raster order."""
    for i in range(len(runs)):
        row, k = runs[i, 1], which[i]
        total = sums[k]
        for c in range(runs[i, 2], runs[i, 3] + 1):
            total += values[row, c]
        sums[k] = total


@compiled
def _row_ends(runs: Int32, order: Int64, start: int, stop: int, ends: Int64) -> int:
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
def _half_hull(ends: Int64, rows: int, side: int, chain: Int64) -> int:
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
def _longest(starts: Int64) -> int:
    """The largest number of runs that one object has; at least 1."""
    longest = 1
    for k in range(starts.size - 1):
        longest = max(longest, starts[k + 1] - starts[k])
    return longest


@compiled
def hull_points(runs: Int32, order: Int64, starts: Int64) -> Int32:
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
def _lattice_points(left: Int64, n_left: int, right: Int64, n_right: int) -> int:
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
def hull_pixels(runs: Int32, order: Int64, starts: Int64) -> Int64:
    """Number of pixels in the convex hull of each object's pixel centres; 0 for empty objects.

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
