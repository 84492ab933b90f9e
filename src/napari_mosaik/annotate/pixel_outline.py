"""Outlines along the edges of pixels, and the connected region of a class map under a position.

    mask or class map ─► region (4-connected) ─► rings along pixel edges ─► area in µm

The area of an outline holds exactly the pixels of its mask: `rasterise` gives the mask back.
"""

from __future__ import annotations

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

from napari_mosaik.annotate.brush import Area, clean
from napari_mosaik.core import Lattice
from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.frame import Mask

__all__ = ["area_of_pixels", "region_of_code"]


def area_of_pixels(mask: Mask, lattice: Lattice) -> Area | None:
    """The area in µm that the pixels of a mask (rows, columns) cover; None if it is empty.

    Parts that touch at a corner only are parts of a multipolygon.
    """
    if not mask.any():
        return None
    padded = np.pad(np.asarray(mask, np.uint8), 1)
    _, labels = cv2.connectedComponents(padded, connectivity=4, ltype=cv2.CV_32S)
    corners, starts, owner = _trace(np.asarray(labels, np.int32))
    rows, columns = (corners[:, i] - 1 for i in (0, 1))
    (top, left), (down, across) = lattice.origin_um, lattice.spacing_um
    xy = np.stack([columns * across + left, rows * down + top], axis=1)
    outer: dict[int, NDArray[np.float64]] = {}
    holes: dict[int, list[NDArray[np.float64]]] = {}
    for begin, end, label in zip(starts[:-1], starts[1:], owner, strict=True):
        ring = xy[begin:end]
        turn = ring[:, 0] @ np.roll(ring[:, 1], -1) - ring[:, 1] @ np.roll(ring[:, 0], -1)
        if turn > 0:
            outer[int(label)] = ring
        else:
            holes.setdefault(int(label), []).append(ring)
    parts = [clean(Polygon(ring, holes.get(label, ()))) for label, ring in outer.items()]
    polygons = [one for part in parts if part is not None for one in shapely.get_parts(part)]
    return polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)


def region_of_code(
    codes: NDArray[np.uint8], at: tuple[int, int]
) -> tuple[Mask, tuple[int, int]] | None:
    """The 4-connected region of pixels that have the label of the one at an index.

    Parameters
    ----------
    codes
        (rows, columns) label of each pixel.
    at
        Row and column of one pixel.

    Returns
    -------
    tuple of Mask and tuple of int, or None
        The region (rows, columns) in pixels, cropped, and the index of its first pixel; None
        outside the image.
    """
    row, column = at
    if not (0 <= row < codes.shape[0] and 0 <= column < codes.shape[1]):
        return None
    found = np.zeros((codes.shape[0] + 2, codes.shape[1] + 2), np.uint8)
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | (1 << 8)
    image = np.ascontiguousarray(codes, np.uint8)
    _, _, _, box = cv2.floodFill(image, found, (column, row), (0,), (0,), (0,), flags)
    left, top, width, height = box
    inside = found[1 + top : 1 + top + height, 1 + left : 1 + left + width] == 1
    return inside, (int(top), int(left))


@compiled
def _trace(
    labels: NDArray[np.int32],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Corners (n, 2) of all rings around equal labels, where each ring begins, and its label.

    *labels* (rows, columns) has an empty rim.  Each ring keeps its pixels to the right, and turns
    right where it meets a pixel across a corner: the parts of a ring are 4-connected.
    """
    leaving, edges = _sides(labels)
    corners = np.empty((edges, 2), np.int64)
    starts = np.empty(edges + 1, np.int64)
    owner = np.empty(edges, np.int32)
    n, rings = 0, 0
    for row in range(labels.shape[0]):
        for column in range(labels.shape[1]):
            while leaving[row, column] & 1:  # the first side of each ring leads east
                starts[rings] = n
                owner[rings] = labels[row, column]
                rings += 1
                n = _follow(leaving, row, column, corners, n)
    starts[rings] = n
    return corners[:n].copy(), starts[: rings + 1].copy(), owner[:rings].copy()


@compiled
def _sides(labels: NDArray[np.int32]) -> tuple[NDArray[np.uint8], int]:
    """The sides of regions that leave each corner, as bits: east 1, south 2, west 4, north 8.

    Also their number.
    """
    rows, columns = labels.shape
    leaving = np.zeros((rows + 1, columns + 1), np.uint8)
    to_row, to_column = np.array([-1, 0, 1, 0]), np.array([0, 1, 0, -1])  # across each side
    at_row, at_column = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0])  # the corner it leaves
    edges = 0
    for r in range(1, rows - 1):
        for c in range(1, columns - 1):
            for side in range(4):
                label = labels[r, c]
                if label and labels[r + to_row[side], c + to_column[side]] != label:
                    leaving[r + at_row[side], c + at_column[side]] |= 1 << side
                    edges += 1
    return leaving, edges


@compiled
def _follow(
    leaving: NDArray[np.uint8], row: int, column: int, corners: NDArray[np.int64], n: int
) -> int:
    """Write the corners (row, column) of one ring in pixels from number *n* on, and take its sides.

    Returns the number of corners after it.
    """
    step_row, step_column = np.array([0, 1, 0, -1]), np.array([1, 0, -1, 0])
    heading, before = 0, -1
    while leaving[row, column] & (1 << heading):
        leaving[row, column] &= ~np.uint8(1 << heading)
        if heading != before:
            corners[n, 0], corners[n, 1] = row, column
            n += 1
        before = heading
        row += step_row[heading]
        column += step_column[heading]
        for turn in (1, 0, 3):  # right, straight, left
            if leaving[row, column] & (1 << (heading + turn) % 4):
                heading = (heading + turn) % 4
                break
    return n
