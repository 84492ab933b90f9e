"""Missing levels of a file: exact block means of the next finer level, computed on request.

A slide without a pyramid, or with levels far apart, would be decoded at full size for every coarse
view.  `VirtualPyramidSource` adds *virtual* levels in between.  A pixel of a virtual level is the
mean of 2 x 2 or 4 x 4 pixels of the next finer level (white outside the slide), whether it is
computed on the fly or was stored: results never depend on what is stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_mosaik.core.params import digest
from napari_mosaik.core.window import paste
from napari_mosaik.io.slide.pyramid.store import PyramidStore
from napari_mosaik.io.slide.read.resample import block_mean
from napari_mosaik.io.slide.types.tiles import Pixels, StoredLevel, TileSource

__all__ = ["MAX_COARSEST_PX", "MAX_STEP", "VirtualPyramidSource", "lacking", "with_virtual_levels"]

MAX_STEP = 4.5
"""Levels further apart than this get virtual ones in between."""
MAX_COARSEST_PX = 4096
"""Longer edge of the coarsest level; virtual levels go on until it is this or smaller."""
_EDGE_PX = 512
_WIDE_PX = 2048
_BAND_ROWS = 1024

ReadTile = Callable[[int, int, int], Pixels | None]


def with_virtual_levels(source: TileSource) -> TileSource:
    """The source with virtual levels; the source itself if its pyramid is complete."""
    return VirtualPyramidSource(source) if lacking(source.levels) else source


def lacking(levels: tuple[StoredLevel, ...]) -> bool:
    """Whether levels are far apart, or the coarsest of them is still large."""
    return any(level.virtual for level, _, _ in _plan(levels))


class VirtualPyramidSource:
    """A `TileSource` with virtual levels among its stored ones.

    ``read_below`` returns the tiles of stored levels from which virtual ones are computed; a
    `TileReader` replaces it by its own, so that damaged tiles are handled in one place.
    """

    def __init__(self, source: TileSource) -> None:
        self._source = source
        self.path, self.reader = source.path, source.reader
        self.header_spacing_um = source.header_spacing_um
        plan = _plan(source.levels)
        self.levels = tuple(level for level, _, _ in plan)
        self._stored = tuple(index for _, index, _ in plan)
        self._factors = tuple(factor for _, _, factor in plan)
        self.virtual = tuple(n for n, level in enumerate(self.levels) if level.virtual)
        self.read_below: ReadTile = self.tile
        self.store: PyramidStore | None = None
        self._expected: Path | None = None
        self.properties = source.properties
        self._tell()

    def tile(self, level: int, row: int, column: int) -> Pixels | None:
        """A tile, shape (rows, columns, 3), uint8: from the file, the store, or computed now."""
        index = self._stored[level]
        if index is not None:
            return self._source.tile(index, row, column)
        kept = self.store.tile(level, row, column) if self.find_store() and self.store else None
        return self.made(level, row, column, self._below) if kept is None else kept

    def made(self, level: int, row: int, column: int, read: ReadTile) -> Pixels:
        """A tile of a virtual level, shape (rows, columns, 3), uint8.

        It is computed from tiles of the next finer level, band by band.
        """
        (height, width), (th, tw) = self.levels[level].shape, self.levels[level].tile
        top, left, factor = row * th, column * tw, self._factors[level]
        rows, columns = min(th, height - top), min(tw, width - left)
        out: Pixels = np.empty((rows, columns, 3), np.uint8)
        unit = math.lcm(self.levels[level - 1].tile[0], factor)
        step = max(1, unit // factor * max(1, _BAND_ROWS // unit) if unit < _BAND_ROWS else rows)
        for first in range(0, rows, step):
            n = min(step, rows - first)
            part = self._region(
                level - 1, (top + first) * factor, left * factor, n * factor, columns * factor, read
            )
            out[first : first + n] = block_mean(part, factor, factor)
        return out

    def fingerprint(self) -> Mapping[str, Any]:
        """Fingerprint of the file; the levels follow from it."""
        return self._source.fingerprint()

    def place(self, folder: Path) -> Path:
        """Path of the stored virtual levels of this slide in a folder; it need not exist."""
        shapes = [[level.shape, level.tile, level.virtual] for level in self.levels]
        name = digest([dict(self.fingerprint()), shapes, self._factors])
        return folder / f"{name}.zarr"

    def expect(self, folder: Path) -> None:
        """Use the levels stored in a folder, now or once they exist."""
        self._expected = self.place(folder)
        self.find_store()

    def find_store(self) -> bool:
        """Whether the virtual levels are stored, possibly by another process in the meantime."""
        if self.store is None and self._expected is not None and self._expected.is_dir():
            levels = {n: self.levels[n] for n in self.virtual}
            self.store = PyramidStore.open(self._expected, levels)
            if self.store is None:
                self._expected = None  # damaged; it is not tried for every tile
            self._tell()
        return self.store is not None

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def _below(self, level: int, row: int, column: int) -> Pixels | None:
        virtual = self._stored[level] is None
        return self.tile(level, row, column) if virtual else self.read_below(level, row, column)

    def _region(
        self, level: int, top: int, left: int, height: int, width: int, read: ReadTile
    ) -> Pixels:
        """Pixels of a level, white outside of it."""
        shape, (th, tw) = self.levels[level].shape, self.levels[level].tile
        out: Pixels = np.full((height, width, 3), 255, np.uint8)
        bottom, right = min(top + height, shape[0]), min(left + width, shape[1])
        on_slide = out[: bottom - top, : right - left]
        for i in range(top // th, -(-bottom // th)):
            for j in range(left // tw, -(-right // tw)):
                tile = read(level, i, j)
                if tile is not None:
                    paste(on_slide, (top, left), tile, (i * th, j * tw))
        return out

    def _tell(self) -> None:
        names = ", ".join(f"1:{max(self.levels[n].downsample or (1,)):g}" for n in self.virtual)
        how = "are made on the fly" if self.store is None else "are stored in the case's cache"
        self.properties["pyramid"] = f"the file lacks {names}; these levels {how}"


_Planned = tuple[StoredLevel, int | None, int]


def _plan(levels: tuple[StoredLevel, ...]) -> list[_Planned]:
    """All levels from fine to coarse, with their number in the file (None: virtual) and factor.

    A virtual level reduces the level before it by its factor.
    """
    plan: list[_Planned] = []
    native = levels[0].shape
    for index, level in enumerate(levels):
        if plan:
            _fill(plan, native, level.shape)
        plan.append((level, index, 1))
    while max(plan[-1][0].shape) > MAX_COARSEST_PX:
        plan.append(_coarser(plan[-1][0], native, 4))
    return plan


def _fill(plan: list[_Planned], native: tuple[int, int], until: tuple[int, int]) -> None:
    """Add virtual levels until the next stored one is near."""
    while True:
        last = plan[-1][0].shape
        gap = max(last[0] / until[0], last[1] / until[1])
        if gap <= MAX_STEP or max(last) <= MAX_COARSEST_PX:
            return
        plan.append(_coarser(plan[-1][0], native, 4 if gap >= 8 else 2))


def _coarser(below: StoredLevel, native: tuple[int, int], factor: int) -> _Planned:
    shape = (-(-below.shape[0] // factor), -(-below.shape[1] // factor))
    ratio = below.downsample or _ratio(native, below.shape)
    exact = (ratio[0] * factor, ratio[1] * factor)
    return StoredLevel(shape, _tile(below, shape, factor), exact, virtual=True), None, factor


def _ratio(native: tuple[int, int], shape: tuple[int, int]) -> tuple[float, float]:
    """Downsample of a stored level: whole where its shape allows it."""
    found = []
    for axis in (0, 1):
        exact = native[axis] / shape[axis]
        sizes = (native[axis] // round(exact), -(-native[axis] // round(exact)))
        found.append(float(round(exact)) if shape[axis] in sizes else exact)
    return found[0], found[1]


def _tile(below: StoredLevel, shape: tuple[int, int], factor: int) -> tuple[int, int]:
    """Tiles that cover whole tiles of the level below; full rows above wide strips."""
    if below.tile[1] > _WIDE_PX:
        return max(16, _EDGE_PX * _EDGE_PX // shape[1]), shape[1]
    edges = []
    for edge in below.tile:
        unit = math.lcm(edge, factor) // factor
        edges.append(unit * max(1, round(_EDGE_PX / unit)) if unit <= 2 * _EDGE_PX else _EDGE_PX)
    return edges[0], edges[1]
