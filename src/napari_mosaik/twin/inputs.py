"""Everything that the network sees of one case: tissue at three scales, clusters, curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import FloatArray, InputError, LabelImage, Lattice, Raster, TileGrid
from napari_mosaik.core.frame import Transform
from napari_mosaik.core.tiles import IntArray

__all__ = [
    "CODE_CELLS",
    "FRACTIONS",
    "INVALID_CODE",
    "N_CLASSES",
    "SCALE_TILES",
    "Scale",
    "TileInputs",
    "area_fractions",
    "code_windows",
    "edge_distance_um",
    "fraction_pyramid",
    "stack_fractions",
]

FRACTIONS: Final = ("neoplastic", "non-neoplastic", "vessel", "outside")
"""Channels of the spatial windows: area fractions in [0, 1]."""
SCALE_TILES: Final = {"tile": 1, "regional": 11, "global": 27}
"""Edge of each window in tiles."""
CODE_CELLS: Final = 11
"""Edge of the cluster windows in tiles."""
INVALID_CODE: Final = 5
"""Cluster code of tiles without a label and of cells off the mask."""
N_CLASSES: Final = 5
"""Uptake classes: average, hot, cold, high-low, low-high."""


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """Area fractions at one scale, from which the windows of the tiles are cut when needed.

    Parameters
    ----------
    name
        ``"tile"``, ``"regional"`` or ``"global"``.
    values
        (rows, columns, 4) area fractions times 255, rounded; the border beyond the slide is wide
        enough for every window and holds outside = 1.
    corners
        (n, 2) first row and column of each tile's window.
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
        """(b, 4, window, window) windows of the tiles with the given row numbers, 0..255."""
        corners = self.corners[np.asarray(rows)]
        span = np.arange(self.window_px)
        r = corners[:, 0, None] + span
        c = corners[:, 1, None] + span
        cut = self.values[r[:, :, None], c[:, None, :]]
        return np.ascontiguousarray(cut.transpose(0, 3, 1, 2))


@dataclass(frozen=True, slots=True, eq=False)
class TileInputs:
    """One case as the network and the baselines see it; row i belongs to tile i.

    Parameters
    ----------
    case, patient
        Pseudonyms of the specimen slice and of the patient.
    scales
        The three scales of `SCALE_TILES`, in that order.
    codes
        (n, 3, 11, 11) cluster codes 0-5 of three proxies around each tile; 5 = no label.
    proxies
        Names of the three proxies.
    curves
        (times, 3) free, bound and internalised antibody, normalised, of the patient, or
        (n, times, 3) of each tile.  NaN: not measured; such tiles are left out and counted.
    times_h
        (times,) sampling times, hours.
    features, feature_names
        (n, f) tile parameters for the baselines (NaN allowed) and their names.
    centres_um, cells
        (n, 2) tile centres in µm and lattice cells, (row, column).
    edge_um
        (n,) distance of each tile to the edge of the tiled area, µm.
    suv
        (n,) measured uptake, NaN where not measured; left out for a case without PET.
    pet_label
        (n,) local Moran label 0-4 of the *measured* map, -1 where there is none.
    warnings
        Sentences that must stay with every result of this case.
    """

    case: str
    patient: str
    scales: tuple[Scale, Scale, Scale]
    codes: NDArray[np.uint8]
    proxies: tuple[str, str, str]
    curves: FloatArray
    times_h: FloatArray
    features: FloatArray
    feature_names: tuple[str, ...]
    centres_um: FloatArray
    cells: IntArray
    edge_um: FloatArray
    suv: FloatArray | None = None
    pet_label: NDArray[np.int8] | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.codes)
        expected = {
            "codes": (self.codes.shape, (n, 3, CODE_CELLS, CODE_CELLS)),
            "features": (self.features.shape, (n, len(self.feature_names))),
            "centres_um": (self.centres_um.shape, (n, 2)),
            "cells": (self.cells.shape, (n, 2)),
            "edge_um": (self.edge_um.shape, (n,)),
            "curves": (self.curves.shape[-2:], (len(self.times_h), 3)),
        }
        if self.suv is not None:
            expected["suv"] = (self.suv.shape, (n,))
        if self.pet_label is not None:
            expected["pet_label"] = (self.pet_label.shape, (n,))
        for scale in self.scales:
            expected[f"{scale.name} windows"] = (scale.corners.shape, (n, 2))
        for name, (found, wanted) in expected.items():
            if tuple(found) != wanted:
                raise InputError(f"case {self.case}: {name} has the shape {found}, not {wanted}")
        self._check_values(n)

    def _check_values(self, n: int) -> None:
        if self.curves.ndim == 3 and len(self.curves) != n:
            raise InputError(f"case {self.case}: {len(self.curves)} curves for {n} tiles")
        if [scale.name for scale in self.scales] != list(SCALE_TILES):
            raise InputError(f"case {self.case}: the scales must be {', '.join(SCALE_TILES)}")
        if n and int(self.codes.max()) > INVALID_CODE:
            raise InputError(f"case {self.case}: cluster code {self.codes.max()} is not in 0..5")

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def window_px(self) -> int:
        """Edge of the spatial windows, pixels."""
        return self.scales[0].window_px

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(n,) tiles whose inputs are all there (curves without NaN)."""
        finite = np.isfinite(self.curves).all(axis=(-2, -1))
        return np.array(np.broadcast_to(finite, (len(self),)))

    @property
    def measured(self) -> NDArray[np.bool_]:
        """(n,) usable tiles with a measured uptake."""
        if self.suv is None:
            return np.zeros(len(self), bool)
        return self.usable & np.isfinite(self.suv)

    def require_modalities(self) -> None:
        """Raise `InputError` when a whole part of the input is missing; zeros never stand for it.

        Raises
        ------
        InputError
            No tile has curves, or a proxy has no cluster label in the whole case.
        """
        if len(self) and not self.usable.any():
            raise InputError(
                f"case {self.case}: no tile has kinetic curves; run the kinetics step first"
            )
        for index, proxy in enumerate(self.proxies):
            if len(self) and (self.codes[:, index] == INVALID_CODE).all():
                raise InputError(
                    f"case {self.case}: no tile has a cluster label of '{proxy}'; "
                    "measure it or choose another proxy"
                )
        if len(self) and all((scale.values[..., :3] == 0).all() for scale in self.scales):
            raise InputError(f"case {self.case}: the tissue maps are empty; classify the tissue")

    def tile_curves(self, rows: ArrayLike) -> FloatArray:
        """(b, times, 3) curves of the tiles with the given row numbers."""
        rows = np.asarray(rows)
        if self.curves.ndim == 3:
            return np.asarray(self.curves[rows], float)
        return np.asarray(np.broadcast_to(self.curves, (len(rows), *self.curves.shape)), float)

    def subset(self, rows: ArrayLike) -> TileInputs:
        """The case with only some of its tiles (row numbers or mask); their context stays."""
        rows = np.asarray(rows)
        first, second, third = (replace(s, corners=s.corners[rows]) for s in self.scales)
        return replace(
            self,
            scales=(first, second, third),
            codes=self.codes[rows],
            curves=self.curves[rows] if self.curves.ndim == 3 else self.curves,
            features=self.features[rows],
            centres_um=self.centres_um[rows],
            cells=self.cells[rows],
            edge_um=self.edge_um[rows],
            suv=None if self.suv is None else self.suv[rows],
            pet_label=None if self.pet_label is None else self.pet_label[rows],
        )


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
    """Share of each sample of *lattice* covered by each class code.

    Parameters
    ----------
    labels
        Class codes or a mask on its own lattice.
    lattice
        Where the fractions are wanted, usually 10 µm in the reference frame.
    codes
        One channel per code; without it one channel for every value other than 0.
    transform
        From the labels' frame to the lattice's; left out when they are the same.
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
        found = _look_up(labels, back.apply(fine.centres_um()))
        hits = [found != 0] if codes is None else [found == code for code in codes]
        for channel, hit in enumerate(hits):
            blocks = hit.reshape(part.shape[0], oversample, part.shape[1], oversample)
            out[row : row + part.shape[0], :, channel] = blocks.mean(axis=(1, 3))
    return out


def _look_up(labels: LabelImage | Raster, points_um: FloatArray) -> IntArray:
    """Codes at positions (..., 2); 0 beyond the labels.  Only the needed block is read."""
    index = np.floor(labels.lattice.to_index(points_um) + 0.5).astype(np.int64)
    shape = np.asarray(labels.lattice.shape)
    inside = ((index >= 0) & (index < shape)).all(axis=-1)
    out = np.zeros(index.shape[:-1], np.int64)
    if not inside.any():
        return out
    index = index[inside]
    low, high = index.min(axis=0), index.max(axis=0) + 1
    block = np.asarray(labels.values[low[0] : high[0], low[1] : high[1]])
    out[inside] = block[index[:, 0] - low[0], index[:, 1] - low[1]]
    return out


def _edge_sums(values: NDArray[np.float32], edges: FloatArray) -> FloatArray:
    """Integral along the first axis up to each (fractional) edge index; constant beyond."""
    total = np.zeros((values.shape[0] + 1, *values.shape[1:]))
    np.cumsum(values, axis=0, out=total[1:])
    at = np.clip(edges, 0, values.shape[0])
    low = np.minimum(at.astype(np.int64), values.shape[0] - 1)
    share = (at - low).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(total[low] * (1 - share) + total[low + 1] * share, float)


def _area_mean(fractions: Raster, lattice: Lattice) -> FloatArray:
    """Exact area-weighted means of piecewise constant fractions on another aligned lattice."""
    values = np.asarray(fractions.values, np.float32)
    source = fractions.lattice
    for axis in (0, 1):
        edges_um = lattice.origin_um[axis] + lattice.spacing_um[axis] * np.arange(
            lattice.shape[axis] + 1
        )
        edges = np.asarray((edges_um - source.origin_um[axis]) / source.spacing_um[axis], float)
        sums = np.diff(_edge_sums(np.moveaxis(values, axis, 0), edges), axis=0)
        means = sums * (source.spacing_um[axis] / lattice.spacing_um[axis])
        values = np.moveaxis(means.astype(np.float32), 0, axis)
    return np.asarray(values, float)


def fraction_pyramid(
    fractions: Raster, grid: TileGrid, window_px: int = 40
) -> tuple[Scale, Scale, Scale]:
    """Area fractions at the three scales of the network, in the reference frame.

    Parameters
    ----------
    fractions
        (rows, columns, 4) area fractions of `FRACTIONS` in the frame of the grid.
    grid
        The case's tiles; the windows span 1, 11 and 27 of them (0.4, 3.4 and 8.2 mm).
    window_px
        Edge of a window, pixels; even.

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
    if window_px < 2 or window_px % 2:
        raise InputError(f"the window must have an even number of pixels, not {window_px}")
    tile, regional, wide = (
        _scale(fractions, grid, window_px, name, tiles) for name, tiles in SCALE_TILES.items()
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
    means = _area_mean(fractions, lattice)
    means[..., 3] += 1.0 - _covered(fractions.lattice, lattice)
    values = np.rint(np.clip(means, 0, 1) * 255).astype(np.uint8)
    corners = np.rint(grid.cells * (grid.stride_um / spacing_um)).astype(np.int32)
    return Scale(name, values, corners, window_px, spacing_um)


def _covered(source: Lattice, lattice: Lattice) -> FloatArray:
    """Share of each sample of *lattice* that lies on *source*."""
    shares = []
    for axis in (0, 1):
        edges = lattice.origin_um[axis] + lattice.spacing_um[axis] * np.arange(
            lattice.shape[axis] + 1
        )
        low = source.origin_um[axis]
        inside = np.clip(edges, low, low + source.extent_um[axis])
        shares.append(np.diff(inside) / lattice.spacing_um[axis])
    return np.asarray(shares[0][:, None] * shares[1][None, :], float)


def code_windows(grid: TileGrid, codes: ArrayLike) -> NDArray[np.uint8]:
    """Cluster codes (n, 3) of the tiles as (n, 3, 11, 11) windows; 5 where there is no tile."""
    codes = np.asarray(codes)
    if codes.shape != (len(grid), 3):
        raise InputError(
            f"cluster codes of shape {codes.shape} for {len(grid)} tiles and 3 proxies"
        )
    if codes.size and (codes.min() < 0 or codes.max() > INVALID_CODE):
        raise InputError("cluster codes must lie in 0..5")
    padded = np.concatenate([codes.astype(np.uint8), np.full((1, 3), INVALID_CODE, np.uint8)])
    return np.ascontiguousarray(padded[grid.windows(CODE_CELLS)].transpose(0, 3, 1, 2))


def edge_distance_um(grid: TileGrid) -> FloatArray:
    """(n,) distance in µm from each tile's centre to the nearest cell without a tile.

    Measured between cell centres on the tile lattice; beyond the lattice there are no tiles.
    """
    from scipy.ndimage import distance_transform_edt

    used = np.pad(grid.index_map() >= 0, 1)
    distance = np.asarray(distance_transform_edt(used, sampling=grid.lattice.spacing_um))
    rows, cols = grid.cells.T
    return np.asarray(distance[rows + 1, cols + 1], float)
