"""Rectangles of pixels: where two of them overlap, and pasting one array into another.

A window is ``(top, left, bottom, right)`` in pixels, index; the stops are exclusive.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

__all__ = ["PixelWindow", "Slices", "overlap_slices", "paste"]

PixelWindow = tuple[int, int, int, int]
"""Top, left, bottom, right in pixels; bottom and right are exclusive."""
Slices = tuple[slice, slice]
"""Rows and columns of an array."""


def overlap_slices(first: PixelWindow, second: PixelWindow) -> tuple[Slices, Slices] | None:
    """The overlap of two windows as slices of the arrays that begin at each; None if disjoint."""
    top, left = max(first[0], second[0]), max(first[1], second[1])
    bottom, right = min(first[2], second[2]), min(first[3], second[3])
    if bottom <= top or right <= left:
        return None
    return (
        (slice(top - first[0], bottom - first[0]), slice(left - first[1], right - first[1])),
        (slice(top - second[0], bottom - second[0]), slice(left - second[1], right - second[1])),
    )


def paste(
    target: NDArray[Any], at: tuple[int, int], patch: NDArray[Any], patch_at: tuple[int, int]
) -> None:
    """Copy the part of *patch* that overlaps *target* into it.

    Parameters
    ----------
    target, patch
        Arrays of shape (rows, columns, ...); *target* is written.
    at, patch_at
        Row and column of their first pixel in one common image, index.
    """
    both = overlap_slices(
        (*at, at[0] + target.shape[0], at[1] + target.shape[1]),
        (*patch_at, patch_at[0] + patch.shape[0], patch_at[1] + patch.shape[1]),
    )
    if both is not None:
        target[both[0]] = patch[both[1]]
