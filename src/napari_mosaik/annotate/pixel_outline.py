"""Outlines along the edges of pixels, and the connected region of a class map under a position.

    mask or class map ─► region (4-connected) ─► rings along pixel edges ─► area in µm

The area of an outline holds exactly the pixels of its mask: `rasterise` gives the mask back.

The wand is a region that grows over pixels of like colour and texture:

    pixels of the view ─► colour and texture of each pixel ─► distance to that of the seed
                       ─► connected pixels within the tolerance ─► outline in µm

Colour and texture of a pixel are those of the most uniform of four windows that have it as their
corner (Kuwahara, Hachimura, Eiho and Kinoshita 1976): noise and nuclei are averaged, and borders
stay where they are.  Distances are in units of CIE L*a*b*.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

from napari_mosaik.annotate.brush import Area, clean
from napari_mosaik.core import Lattice
from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.frame import Mask

__all__ = [
    "WAND_TOLERANCE",
    "area_of_pixels",
    "region_of_code",
    "wand_area",
    "wand_field",
    "wand_mask",
]


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


# --- the wand -------------------------------------------------------------------------------------
WAND_TOLERANCE: Final = 12.0
"""Distance in colour and texture at which the region ends, at first."""
_WINDOW_PX: Final = 7
_SMALLEST_PX: Final = 12
"""Holes and parts smaller than a square of this side are filled or left out."""
_DETAIL_PX: Final = 0.75
"""The outline may deviate from the edges of the pixels by this."""


def wand_field(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Colour and texture of each pixel: L*, a*, b* and the standard deviation of L*.

    Parameters
    ----------
    rgb
        (rows, columns, 3) sRGB in 0 to 255.

    Returns
    -------
    NDArray[np.float32]
        (rows, columns, 4), all in the unit of L*.
    """
    lab = cv2.cvtColor(np.asarray(rgb, np.float32) / np.float32(255.0), cv2.COLOR_RGB2Lab)
    reach = _WINDOW_PX - 1
    padded = cv2.copyMakeBorder(lab, reach, reach, reach, reach, cv2.BORDER_REFLECT_101)
    size, rows, columns = (_WINDOW_PX, _WINDOW_PX), *rgb.shape[:2]
    mean = cv2.boxFilter(padded, -1, size, anchor=(0, 0))
    squares = cv2.boxFilter(padded * padded, -1, size, anchor=(0, 0))
    spread = np.maximum(squares - mean * mean, 0)
    rank = spread.sum(axis=2)  # a border in any channel counts
    best = np.full((rows, columns), np.inf, np.float32)
    out = np.empty((rows, columns, 4), np.float32)
    for down in (0, reach):
        for across in (0, reach):
            part = (slice(down, down + rows), slice(across, across + columns))
            better = rank[part] < best
            np.copyto(best, rank[part], where=better)
            np.copyto(out[..., :3], mean[part], where=better[..., None])
            np.copyto(out[..., 3], spread[(*part, 0)], where=better)
    np.sqrt(out[..., 3], out=out[..., 3])
    return out


def wand_mask(
    field: NDArray[np.float32], seeds: Iterable[tuple[int, int]], tolerance: float
) -> Mask:
    """The pixels that grow from seeds, in order; a seed within what is there adds nothing.

    Parameters
    ----------
    field
        (rows, columns, 4) of `wand_field`.
    seeds
        Row and column of each seed in pixels; those outside the view are left out.
    tolerance
        Largest distance to the colour and texture of the seed, unit of L*.

    Returns
    -------
    Mask
        (rows, columns); True in the region.
    """
    rows, columns = field.shape[:2]
    region = np.zeros((rows, columns), bool)
    for row, column in seeds:
        if not (0 <= row < rows and 0 <= column < columns) or region[row, column]:
            continue
        like = _like(field, row, column, np.float32(tolerance**2))
        grown = np.zeros((rows + 2, columns + 2), np.uint8)
        flags = 4 | cv2.FLOODFILL_MASK_ONLY | (1 << 8)
        cv2.floodFill(like, grown, (column, row), (1,), (0,), (0,), flags)
        region |= grown[1:-1, 1:-1].astype(bool)
    return region


def wand_area(
    field: NDArray[np.float32],
    lattice: Lattice,
    points_um: Iterable[tuple[float, float]],
    tolerance: float,
) -> Area | None:
    """The region that grows from positions, as an area in µm; None where none lies in the view.

    Parameters
    ----------
    field
        (rows, columns, 4) of `wand_field` on the lattice.
    lattice
        The pixels of the view.
    points_um
        Row and column in µm of each seed.
    tolerance
        See `wand_mask`.
    """
    points = list(points_um)
    if not points:
        return None
    seeds = np.rint(lattice.to_index(points)).astype(int)
    mask = wand_mask(field, [(int(r), int(c)) for r, c in seeds], tolerance)
    pixel_um = max(lattice.spacing_um)
    small_um2 = (_SMALLEST_PX * pixel_um) ** 2
    area = area_of_pixels(mask, lattice)
    if area is None:
        return None
    smooth = shapely.simplify(area, _DETAIL_PX * pixel_um, preserve_topology=True)
    return clean(smooth, small_um2) or clean(smooth)


@compiled
def _like(field: NDArray[np.float32], row: int, column: int, most: np.float32) -> NDArray[np.uint8]:
    """Which pixels (rows, columns) have at most that squared distance to one of them."""
    rows, columns, channels = field.shape
    out = np.empty((rows, columns), np.uint8)
    for r in range(rows):
        for c in range(columns):
            away = np.float32(0)
            for k in range(channels):
                step = field[r, c, k] - field[row, column, k]
                away += step * step
            out[r, c] = away <= most
    return out
