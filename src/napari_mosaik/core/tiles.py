"""The tile grid: tile i is row i of every table, and table columns are painted back to maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Lattice
from napari_mosaik.core.raster import Raster

__all__ = ["IntArray", "TileGrid"]

IntArray = NDArray[np.int64]
_POINTS = 1 << 18
"""So many points are sorted into tiles at once."""


@dataclass(frozen=True, slots=True, eq=False)
class TileGrid:
    """Square tiles on one regular lattice; neighbouring tiles may overlap.

    Parameters
    ----------
    lattice
        One sample per possible tile; its spacing is the stride.  The centre of a sample is the
        centre of the tile.
    size_um
        Edge of a tile, µm; larger than the stride when tiles overlap.
    kept
        (n,) flat (row-major) positions on the lattice of the tiles in use, ascending.
    coverage
        (n,) fraction of each tile's area that is tissue, in [0, 1].
    inner
        (n,) True for inner tiles, False for border tiles.
    """

    lattice: Lattice
    size_um: float
    kept: IntArray
    coverage: FloatArray
    inner: NDArray[np.bool_]

    def __post_init__(self) -> None:
        kept = np.asarray(self.kept, np.int64)
        if kept.ndim != 1 or (np.diff(kept) <= 0).any():
            raise InputError("tile positions must be ascending and different")
        if kept.size and (kept[0] < 0 or kept[-1] >= self.lattice.shape[0] * self.lattice.shape[1]):
            raise InputError("a tile position lies off the lattice")
        object.__setattr__(self, "kept", kept)

    def __len__(self) -> int:
        return int(self.kept.size)

    @property
    def stride_um(self) -> float:
        """Distance between neighbouring tile centres, µm."""
        return self.lattice.spacing_um[0]

    @property
    def cells(self) -> IntArray:
        """(n, 2) row and column of each tile on the lattice, index."""
        return np.stack(np.divmod(self.kept, self.lattice.shape[1]), axis=1)

    @property
    def centres_um(self) -> FloatArray:
        """(n, 2) tile centres, µm."""
        return self.lattice.to_um(self.cells)

    @property
    def corners_um(self) -> FloatArray:
        """(n, 2) upper left corners of the tiles, µm."""
        return self.centres_um - self.size_um / 2

    def subset(self, rows: ArrayLike) -> TileGrid:
        """The grid with some of its tiles, by index (m,) or mask (n,); the lattice stays."""
        rows = np.asarray(rows)
        return TileGrid(
            self.lattice, self.size_um, self.kept[rows], self.coverage[rows], self.inner[rows]
        )

    def meeting(self, low_um: ArrayLike, high_um: ArrayLike, reach_um: ArrayLike = 0.0) -> IntArray:
        """Indices of the tiles within a reach of at least one of some boxes.

        Parameters
        ----------
        low_um, high_um
            (m, 2) upper left and lower right corners of the boxes, µm.
        reach_um
            One distance, or (n,) one for each tile, µm, to the nearest point of the tile.
        """
        corners, reach = self.corners_um, np.asarray(reach_um, float)
        met = np.zeros(len(self), bool)
        boxes = zip(
            np.asarray(low_um, float).reshape(-1, 2),
            np.asarray(high_um, float).reshape(-1, 2),
            strict=True,
        )
        for low, high in boxes:
            away = np.maximum(np.maximum(low - corners - self.size_um, corners - high), 0.0)
            met |= np.hypot(away[:, 0], away[:, 1]) <= reach
        return np.flatnonzero(met)

    def index_map(self) -> IntArray:
        """(rows, columns) index of the tile at each position, -1 where no tile is in use."""
        index = np.full(self.lattice.shape[0] * self.lattice.shape[1], -1, np.int64)
        index[self.kept] = np.arange(len(self))
        return index.reshape(self.lattice.shape)

    def paint(self, values: ArrayLike, unit: str = "1") -> Raster:
        """Values (n,) or (n, channels) of the tiles as a raster in *unit*.

        The raster is NaN where no tile is in use; "1" is dimensionless.
        """
        values = np.asarray(values, float)
        if values.shape[:1] != (len(self),):
            raise InputError(f"{values.shape[0]} values for {len(self)} tiles")
        out = np.full((self.lattice.shape[0] * self.lattice.shape[1], *values.shape[1:]), np.nan)
        out[self.kept] = values
        return Raster(out.reshape(self.lattice.shape + values.shape[1:]), self.lattice, unit)

    def windows(self, width: int) -> IntArray:
        """(n, width, width) index of the tiles around each tile, -1 where there is none.

        *width* is odd; the centre of each window is the tile itself.
        """
        if width < 1 or width % 2 == 0:
            raise InputError(f"the window width must be odd and positive, not {width}")
        half = width // 2
        padded = np.pad(self.index_map(), half, constant_values=-1)
        views = np.lib.stride_tricks.sliding_window_view(padded, (width, width))
        rows, cols = self.cells.T
        return np.ascontiguousarray(views[rows, cols])

    def memberships(self, points_um: ArrayLike) -> tuple[IntArray, IntArray]:
        """Which points (m, 2), µm, lie in which tiles (half-open squares).

        Returns the index of the tile and the index of the point of each pair, both (pairs,).
        With overlap a point can belong to up to four tiles (more for overlaps above one half).
        Pairs are ordered by point, then tile.
        """
        points = np.asarray(points_um, float).reshape(-1, 2)
        # By parts: what is computed on the way takes many times the room of the points.
        index, tiles, members = self.index_map(), [], []
        for start in range(0, max(1, len(points)), _POINTS):
            tile_of, point_of = self._memberships(points[start : start + _POINTS], index)
            tiles.append(tile_of)
            members.append(point_of + start)
        return np.concatenate(tiles), np.concatenate(members)

    def _memberships(self, points: FloatArray, index: IntArray) -> tuple[IntArray, IntArray]:
        """`memberships` of a part of the points; *index* is the `index_map`."""
        shape = np.asarray(self.lattice.shape)
        corner0 = np.asarray(self.lattice.to_um([0, 0])) - self.size_um / 2
        relative = points - corner0
        last = np.floor(relative / self.stride_um).astype(np.int64)
        reach = int(np.ceil(self.size_um / self.stride_um))
        tiles, members = [], []
        for back_row in range(reach):
            for back_col in range(reach):
                cell = last - (back_row, back_col)
                inside = ((cell >= 0) & (cell < shape)).all(axis=1)
                inside &= (relative - cell * self.stride_um < self.size_um).all(axis=1)
                which = np.flatnonzero(inside)
                tile = index[cell[which, 0], cell[which, 1]]
                tiles.append(tile[tile >= 0])
                members.append(which[tile >= 0])
        tile_of, point_of = np.concatenate(tiles), np.concatenate(members)
        order = np.lexsort((tile_of, point_of))
        return tile_of[order], point_of[order]
