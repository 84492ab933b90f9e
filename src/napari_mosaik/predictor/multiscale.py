"""Multi-scale windows of the tiles, cut from maps of tissue area fractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import FloatArray, InputError, LabelImage, Lattice, Raster, TileGrid
from napari_mosaik.core.frame import Transform
from napari_mosaik.core.label_lookup import codes_at
from napari_mosaik.core.progress import reach_of_item

__all__ = [
    "FRACTIONS",
    "SCALE_TILES",
    "Scale",
    "area_fractions",
    "fraction_pyramid",
    "stack_fractions",
]

FRACTIONS: Final = ("neoplastic", "non-neoplastic", "vessel", "outside")
"""Channels of the spatial windows: area fractions in [0, 1]."""
SCALE_TILES: Final = {"tile": 1, "regional": 11, "global": 27}
"""Edge of each window in tiles."""
_ROWS: Final = 512


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """Area fractions at one scale; windows of the tiles are cut on demand.

    Parameters
    ----------
    name
        ``"tile"``, ``"regional"`` or ``"global"``.
    values
        (rows, columns, 4) area fractions times 255, rounded; the border beyond the slide is wide
        enough for every window and holds outside = 1.
    corners
        (n, 2) index of the first row and column of each tile's window.
    window_px
        Edge of a window, pixels.
    spacing_um
        Edge of a pixel, µm.
    """

    name: str
    values: NDArray[np.uint8]
    corners: NDArray[np.int32]
    window_px: int
    spacing_um: float

    def windows(self, rows: ArrayLike) -> NDArray[np.uint8]:
        """Windows (b, 4, window, window) of the tiles *rows* (b,): area fraction times 255."""
        corners = self.corners[np.asarray(rows)]
        span = np.arange(self.window_px)
        r = corners[:, 0, None] + span
        c = corners[:, 1, None] + span
        cut = self.values[r[:, :, None], c[:, None, :]]
        return np.ascontiguousarray(cut.transpose(0, 3, 1, 2))


def stack_fractions(
    neoplastic: ArrayLike,
    non_neoplastic: ArrayLike,
    vessel: ArrayLike,
    tissue: ArrayLike,
    lattice: Lattice,
) -> Raster:
    """Join area fractions (rows, columns) in [0, 1] to the four channels of `FRACTIONS`.

    *tissue* is the fraction of each sample inside the tissue mask; outside = 1 - tissue.
    """
    layers = [np.asarray(a, float) for a in (neoplastic, non_neoplastic, vessel, tissue)]
    layers[3] = 1.0 - layers[3]
    values = np.stack(layers, axis=-1)
    if not np.isfinite(values).all() or values.min() < -1e-6 or values.max() > 1 + 1e-6:
        raise InputError("area fractions must lie between 0 and 1 and hold no NaN")
    return Raster(values.astype(np.float32), lattice, "1", FRACTIONS)


def area_fractions(
    labels: LabelImage | Raster,
    lattice: Lattice,
    codes: Sequence[int] | None = None,
    transform: Transform | None = None,
    *,
    oversample: int = 4,
) -> NDArray[np.float32]:
    """Area fraction of each sample of *lattice* that each class code covers.

    Parameters
    ----------
    labels
        Class codes or a mask on its own lattice.
    lattice
        Lattice of the result, usually 10 µm in the reference frame.
    codes
        One channel per code; without it one channel for every value other than 0.
    transform
        From the labels' frame to the lattice's; None when they are the same.
    oversample
        Points per axis and sample at which the code is looked up.

    Returns
    -------
    array
        (rows, columns, channels) fractions; 0 beyond the labels.

    Notes
    -----
    One-hot first, then the mean: codes are never interpolated.
    """
    back = (transform or Transform.identity(labels.lattice.frame, lattice.frame)).inverse()
    n_codes = 1 if codes is None else len(codes)
    out = np.zeros((*lattice.shape, n_codes), np.float32)
    step = max(1, 2**20 // max(1, lattice.shape[1] * oversample**2))
    for row in range(0, lattice.shape[0], step):
        part = lattice.crop(slice(row, row + step), slice(None))
        fine = Lattice(
            part.frame,
            (part.shape[0] * oversample, part.shape[1] * oversample),
            (part.spacing_um[0] / oversample, part.spacing_um[1] / oversample),
            part.origin_um,
        )
        sampled = codes_at(labels, back.apply(fine.centres_um()))
        hits = [sampled != 0] if codes is None else [sampled == code for code in codes]
        for channel, hit in enumerate(hits):
            blocks = hit.reshape(part.shape[0], oversample, part.shape[1], oversample)
            out[row : row + part.shape[0], :, channel] = blocks.mean(axis=(1, 3))
        reach_of_item((row + part.shape[0]) / lattice.shape[0])
    return out


def _integral(values: NDArray[Any]) -> FloatArray:
    """Integral along the first axis up to each sample's border."""
    total = np.zeros((values.shape[0] + 1, *values.shape[1:]))
    np.cumsum(values, axis=0, out=total[1:])
    return total


def _between(total: FloatArray, borders: FloatArray) -> FloatArray:
    """Integral between consecutive (fractional) borders, from `_integral`; nothing beyond."""
    at = np.clip(borders, 0, total.shape[0] - 1)
    low = np.minimum(at.astype(np.int64), total.shape[0] - 2)
    share = (at - low)[:, None]
    return np.asarray(np.diff(total[low] * (1 - share) + total[low + 1] * share, axis=0), float)


def _borders(source: Lattice, lattice: Lattice, axis: int) -> FloatArray:
    """Borders of the samples of *lattice* in samples of *source*."""
    edges = lattice.origin_um[axis] + lattice.spacing_um[axis] * np.arange(lattice.shape[axis] + 1)
    return np.asarray((edges - source.origin_um[axis]) / source.spacing_um[axis], float)


def _resampled(fractions: Raster, lattice: Lattice) -> NDArray[np.uint8]:
    """Area-weighted means of piecewise constant fractions on another lattice, times 255.

    Exact for any ratio of the spacings; beyond the fractions the channel "outside" is 1.
    """
    source = fractions.lattice
    rows, cols = (_borders(source, lattice, axis) for axis in (0, 1))
    share = [source.spacing_um[axis] / lattice.spacing_um[axis] for axis in (0, 1)]
    covered = [
        np.diff(np.clip(borders, 0, source.shape[axis])) * share[axis]
        for axis, borders in enumerate((rows, cols))
    ]
    out = np.empty((*lattice.shape, len(FRACTIONS)), np.uint8)
    for channel, name in enumerate(FRACTIONS):
        across = _between(_integral(fractions.values[..., channel].T), cols).T * share[1]
        down = _integral(across)
        for start in range(0, lattice.shape[0], _ROWS):
            part = slice(start, start + _ROWS)
            means = _between(down, rows[start : start + _ROWS + 1]) * share[0]
            if name == "outside":
                means += 1.0 - covered[0][part, None] * covered[1]
            out[part, :, channel] = np.rint(np.clip(means, 0, 1) * 255)
    return out


def fraction_pyramid(
    fractions: Raster, grid: TileGrid, windows_px: tuple[int, int, int] = (40, 40, 40)
) -> tuple[Scale, Scale, Scale]:
    """Area fractions at the three scales of the network, in the reference frame.

    Parameters
    ----------
    fractions
        (rows, columns, 4) area fractions of `FRACTIONS` in the frame of the grid.
    grid
        The case's tiles; the windows span 1, 11 and 27 of them (0.4, 3.4 and 8.2 mm).
    windows_px
        Edge of a window at each scale, pixels; even.

    Returns
    -------
    tuple of Scale
        Tile, regional and global scale.  Beyond the slide: outside = 1.

    Raises
    ------
    InputError
        Another frame, other channels, or an odd window.
    """
    if fractions.channels != FRACTIONS or fractions.lattice.frame != grid.lattice.frame:
        raise InputError(
            f"the fractions must be {', '.join(FRACTIONS)} in the frame '{grid.lattice.frame}', "
            f"not {', '.join(fractions.channels)} in '{fractions.lattice.frame}'"
        )
    for window_px in windows_px:
        if window_px < 2 or window_px % 2:
            raise InputError(f"the window must have an even number of pixels, not {window_px}")
    tile, regional, wide = (
        _scale(fractions, grid, window_px, name, tiles)
        for (name, tiles), window_px in zip(SCALE_TILES.items(), windows_px, strict=True)
    )
    return tile, regional, wide


def _scale(fractions: Raster, grid: TileGrid, window_px: int, name: str, tiles: int) -> Scale:
    """One scale: its raster with a border, and where each tile's window begins."""
    edge_um = (tiles - 1) * grid.stride_um + grid.size_um
    spacing_um = edge_um / window_px
    corner = np.asarray(grid.lattice.to_um([0, 0])) - edge_um / 2
    span = np.asarray(grid.lattice.shape) - 1
    shape = np.rint(span * grid.stride_um / spacing_um).astype(int) + window_px + 1
    origin = (float(corner[0]), float(corner[1]))
    lattice = Lattice(
        grid.lattice.frame, (int(shape[0]), int(shape[1])), (spacing_um, spacing_um), origin
    )
    corners = np.rint(grid.cells * (grid.stride_um / spacing_um)).astype(np.int32)
    return Scale(name, _resampled(fractions, lattice), corners, window_px, spacing_um)
