"""The loops over pixels that sum up areas, moments, borders and hulls of labelled objects."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.features.compiled import compiled

__all__ = ["count_runs", "hull_pixels", "sum_objects"]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


@compiled
def count_runs(labels: Int32, r0: int, r1: int, c0: int, c1: int) -> int:
    """Number of horizontal runs of equal labels above 0 within a window."""
    count = 0
    for r in range(r0, r1):
        before = 0
        for c in range(c0, c1):
            label = labels[r, c]
            if label > 0 and label != before:
                count += 1
            before = label
    return count


@compiled
def _other(labels: Int32, r: int, c: int, label: int) -> int:
    """1 where the pixel lies off the image or belongs to something else than *label*, else 0."""
    if r < 0 or c < 0 or r >= labels.shape[0] or c >= labels.shape[1]:
        return 1
    return 1 if labels[r, c] != label else 0


@compiled
def _count_crossings(labels: Int32, r: int, c: int, crossings: Int64) -> None:
    """Add the steps that lead out of the object from one of its pixels, by direction."""
    label = labels[r, c]
    crossings[0] += _other(labels, r, c - 1, label) + _other(labels, r, c + 1, label)
    crossings[1] += _other(labels, r - 1, c, label) + _other(labels, r + 1, c, label)
    crossings[2] += _other(labels, r - 1, c - 1, label) + _other(labels, r + 1, c + 1, label)
    crossings[3] += _other(labels, r - 1, c + 1, label) + _other(labels, r + 1, c - 1, label)


@compiled
def sum_objects(
    labels: Int32,
    channels: NDArray[Any],
    window: tuple[int, int, int, int],
    offset: tuple[int, int],
    counts: Int64,
    crossings: Int64,
    sums: NDArray[np.float64],
    runs: Int32,
) -> None:
    """Add the pixels of a window to the objects' sums.

    Parameters
    ----------
    labels
        (h, w) labels; pixels around the window only decide where borders are.
    channels
        (k, h, w) values to be summed per object.
    window
        First row, row after the last, first column, column after the last.
    offset
        Row and column of pixel (0, 0) on the whole image.
    counts
        (n, 6) sums of 1, r, c, r², c², rc over the pixels, changed in place.
    crossings
        (n, 4) steps from inside to outside along rows, columns and both diagonals, both ways.
    sums
        (n, k) sums of the channels.
    runs
        (runs, 4) filled with label - 1, row, first and last column of each run.
    """
    r0, r1, c0, c1 = window
    filled = 0
    for r in range(r0, r1):
        row = r + offset[0]
        before = 0
        for c in range(c0, c1):
            label = labels[r, c]
            if label <= 0:
                before = 0
                continue
            k = label - 1
            col = c + offset[1]
            if label != before:
                runs[filled, 0], runs[filled, 1], runs[filled, 2] = k, row, col
                filled += 1
                before = label
            runs[filled - 1, 3] = col
            counts[k, 0] += 1
            counts[k, 1] += row
            counts[k, 2] += col
            counts[k, 3] += row * row
            counts[k, 4] += col * col
            counts[k, 5] += row * col
            for channel in range(channels.shape[0]):
                sums[k, channel] += channels[channel, r, c]
            _count_crossings(labels, r, c, crossings[k])


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

    *order* sorts the runs by object, then row; ``starts[k] : starts[k + 1]`` are those of object k.
    """
    n = starts.size - 1
    out = np.zeros(n, np.int64)
    longest = 1
    for k in range(n):
        longest = max(longest, starts[k + 1] - starts[k])
    ends = np.empty((longest, 3), np.int64)
    left, right = np.empty((longest, 2), np.int64), np.empty((longest, 2), np.int64)
    for k in range(n):
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
