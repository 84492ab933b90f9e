"""The wand: a region that grows over pixels of like colour and texture.

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

from napari_mosaik.annotate.brush import Area, clean
from napari_mosaik.annotate.pixel_outline import area_of_pixels
from napari_mosaik.core import Lattice
from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.frame import Mask

__all__ = ["WAND_TOLERANCE", "wand_area", "wand_field", "wand_mask"]

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
