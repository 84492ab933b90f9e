"""One pass over a slide that serves several consumers and decodes every native tile once.

The slide is cut into blocks that are aligned to its native tiles.  Each consumer asks for its own
pixel size and margin (a `View`); a tile that is decoded for the first block that touches it is
reduced to every view at once, kept in this small form until the last block that touches it has been
read, and then dropped.  Blocks may be read from several threads, preferably in raster order: the
tiles in memory are then those of the margins between two rows of blocks.

    blocks = slide.blocks(View(0.5, halo_um=8), View(2.0))
    for index in range(len(blocks)):
        fine, coarse = blocks.read(index)
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import InputError, Lattice, Raster
from napari_mosaik.core.blocks import Block, margin_px
from napari_mosaik.core.progress import reach_of_item
from napari_mosaik.core.window import overlap_slices
from napari_mosaik.io.slide.read.resample import block_mean
from napari_mosaik.io.slide.types.tiles import Pixels, RegionUm, StoredLevel, View

if TYPE_CHECKING:
    from napari_mosaik.io.slide.read.tiles import TileReader

__all__ = ["BLOCK_PX", "SlideBlocks"]

CHANNELS = ("red", "green", "blue")
BLOCK_PX = 2048
"""Usual edge of a block in samples of the finest view, before it is aligned to native tiles."""

_SHELF_BYTES = 40 << 20
"""More than any C library keeps in its heap (glibc: 32 MiB); what is not in use costs nothing."""

_Tile = tuple[int, int]
_Reduced = tuple[Pixels | None, ...]
_Place = tuple[int, int, int, int]
"""First row and column, and those after the last."""


class PassableSlide(Protocol):
    """The part of the slide interface that a pass needs."""

    path: Path
    lattice: Lattice

    def working_lattice(self, spacing_um: float) -> Lattice:
        """The whole slide at the nearest whole multiple of its pixel size."""

    def blocks(
        self, *views: View, block_px: int = 2048, region: RegionUm | None = None
    ) -> SlideBlocks:
        """One pass over the slide."""


class SlideBlocks:
    """The blocks of one pass; see `Slide.blocks`.

    Every block has one `core.blocks.Block` per view.  Blocks of two views with the same index
    cover the same native pixels.

    Parameters
    ----------
    slide
        The slide.
    views
        Pixel sizes and margins of the consumers.
    reader
        Decodes native tiles.
    level
        Stored level that is read and its tiles.
    ratio
        Native pixels per pixel of that level (row, column).
    block_px
        Wanted edge of a block in samples of the finest view; blocks are made of whole tiles where
        tiles are smaller than that.
    region
        Origin and size (row, column) in µm of the part that is wanted; the whole slide if None.
        The lattices are then those of this part, widened to whole samples of every view.

    Attributes
    ----------
    told_share
        Share (fraction of 1) of the work on a block that is done when it is read, which is then
        told on the way; 0: nothing is told.
    """

    def __init__(
        self,
        slide: PassableSlide,
        views: Sequence[View],
        reader: TileReader,
        level: tuple[int, StoredLevel],
        ratio: tuple[int, int],
        block_px: int = BLOCK_PX,
        region: RegionUm | None = None,
    ) -> None:
        if not views:
            raise InputError("a pass over a slide needs at least one view")
        self.slide, self.views, self.block_px, self.region = slide, tuple(views), block_px, region
        whole = tuple(slide.working_lattice(view.spacing_um) for view in views)
        self.level, stored = level
        self._tile, self._shape = stored.tile, stored.shape
        native = slide.lattice.spacing_um
        steps = [tuple(round(lat.spacing_um[a] / native[a]) for a in (0, 1))
                 for lat in whole]  # fmt: skip
        self._start, self.lattices = _cropped(slide, whole, steps, ratio, region)
        self._steps = [(s[0] // ratio[0], s[1] // ratio[1]) for s in steps]
        self._whole = all(t % s == 0 for step in self._steps
                          for t, s in zip(self._tile, step, strict=True))  # fmt: skip
        self._parts = self._cut(block_px)
        self._reader = reader
        self._lock = threading.Lock()
        self._making: dict[_Tile, threading.Lock] = {}
        self._kept: dict[_Tile, _Reduced] = {}
        self._shelf = _Shelf()
        grid = [-(-self._shape[a] // self._tile[a]) for a in (0, 1)]
        self._left = np.zeros(grid, np.int32)
        self.expect(range(len(self)))
        self.told_share = 0.0

    def __len__(self) -> int:
        return len(self._parts[0])

    def __reduce__(self) -> tuple[Callable[..., SlideBlocks], tuple[Any, ...]]:
        """Another process opens the slide again; it decodes the tiles of its own blocks."""
        return _blocks_again, (self.slide, self.views, self.block_px, self.region)

    def blocks(self, view: int = 0) -> list[Block]:
        """The blocks of one view in raster order; some may be empty at the slide's edge."""
        return self._parts[view]

    def expect(self, indices: Iterable[int]) -> None:
        """Declare which blocks will be read, each once; initially all of them.

        Tiles that none of them touches are neither decoded nor kept.
        """
        left = np.zeros_like(self._left)
        for index in indices:
            rows, cols = self._touched(index)
            left[rows, cols] += 1
        with self._lock:
            self._left, self._kept, self._making = left, {}, {}

    def read(self, index: int) -> tuple[Raster, ...]:
        """Pixels (rows, columns, 3), uint8, of one block in every view, margins included.

        Margins are cut at the edge of the slide.  These are the pixels of
        ``slide.read_lattice(block.outer)`` whenever the pass and the slide use the same stored
        level, whatever the size of the blocks.
        """
        rows, cols = self._touched(index)
        tiles = [(i, j) for i in range(rows.start, rows.stop) for j in range(cols.start, cols.stop)]
        begun = [self._begun(view, part[index]) for view, part in enumerate(self._parts)]
        for done, tile in enumerate(tiles, 1):
            for (pixels, place, size), reduced in zip(begun, self._get(tile), strict=True):
                _paste(pixels, place, reduced, size, tile)
            if self.told_share:
                reach_of_item(self.told_share * done / len(tiles))
        out = tuple(self._raster(view, part[index], begun[view][0])
                    for view, part in enumerate(self._parts))  # fmt: skip
        with self._lock:
            self._left[rows, cols] -= 1
            for tile in tiles:
                if self._left[tile] <= 0:
                    self._kept.pop(tile, None)
                    self._making.pop(tile, None)
        return out

    # --- geometry -------------------------------------------------------------------------------
    def _cut(self, block_px: int) -> tuple[list[Block], ...]:
        """Blocks of each view; edges are whole tiles where a tile is smaller than a block."""
        size = []
        for axis in (0, 1):
            common = math.lcm(*(step[axis] for step in self._steps))
            finest = min(step[axis] for step in self._steps)
            wanted = block_px * finest
            unit = math.lcm(common, self._tile[axis])
            unit = unit if unit <= wanted else common
            size.append(max(1, round(wanted / unit)) * unit)
        extent = [max(lat.shape[a] * step[a] for lat, step in
                      zip(self.lattices, self._steps, strict=True)) for a in (0, 1)]  # fmt: skip
        corners = [(r, c) for r in range(0, extent[0], size[0])
                   for c in range(0, extent[1], size[1])]  # fmt: skip
        parts = []
        for view, lattice, step in zip(self.views, self.lattices, self._steps, strict=True):
            margin = margin_px(lattice, view.halo_um)
            part = []
            for index, corner in enumerate(corners):
                spans = []
                for axis in (0, 1):
                    start = min(corner[axis] // step[axis], lattice.shape[axis])
                    stop = min((corner[axis] + size[axis]) // step[axis], lattice.shape[axis])
                    spans.append(slice(start, stop))
                part.append(Block(index, spans[0], spans[1], margin, lattice))
            parts.append(part)
        return tuple(parts)

    def _window(self, view: int, block: Block) -> tuple[int, int, int, int]:
        """Rows and columns of the stored level that a block of a view covers."""
        if _is_empty(block):
            return 0, 0, 0, 0
        (sr, sc), (rows, cols), (r, c) = self._steps[view], block.window, self._start
        return r + rows.start * sr, r + rows.stop * sr, c + cols.start * sc, c + cols.stop * sc

    def _touched(self, index: int) -> tuple[slice, slice]:
        """Rows and columns of the tiles that a block needs for any of its views."""
        windows = [self._window(view, part[index]) for view, part in enumerate(self._parts)]
        spans = [(r0, r1, c0, c1) for r0, r1, c0, c1 in windows if r1 > r0 and c1 > c0]
        if not spans:
            return slice(0, 0), slice(0, 0)
        (th, tw), (r0, r1, c0, c1) = (
            self._tile,
            (np.array(side) for side in zip(*spans, strict=True)),
        )
        return (
            slice(int(r0.min()) // th, (int(r1.max()) - 1) // th + 1),
            slice(int(c0.min()) // tw, (int(c1.max()) - 1) // tw + 1),
        )

    # --- pixels ---------------------------------------------------------------------------------
    def _get(self, tile: _Tile) -> _Reduced:
        # Two locks: `_lock` guards the tables and is held only for moments; the lock of one tile is
        # held while it is decoded, so that other threads that need this tile wait for it instead of
        # decoding it again, and threads that need other tiles do not wait at all.  The table is
        # looked up a second time, because the tile may have been stored during the wait.
        with self._lock:
            kept = self._kept.get(tile)
            if kept is not None:
                return kept
            making = self._making.setdefault(tile, threading.Lock())
        with making:
            with self._lock:
                kept = self._kept.get(tile)
            if kept is None:
                kept = self._reduce(self._reader.decode(self.level, *tile), tile)
                with self._lock:
                    if self._left[tile] > 1:
                        kept = self._kept[tile] = self._shelf.keep(kept)
        return kept

    def _reduce(self, pixels: Pixels | None, tile: _Tile) -> _Reduced:
        """The tile at the pixel size of every view; unchanged if samples cross its edges."""
        if pixels is None:
            return tuple(None for _ in self.views)
        height = min(self._tile[0], self._shape[0] - tile[0] * self._tile[0])
        width = min(self._tile[1], self._shape[1] - tile[1] * self._tile[1])
        pixels = np.ascontiguousarray(pixels[:height, :width])
        if not self._whole:
            return tuple(pixels for _ in self.views)
        reduced: dict[tuple[int, int], Pixels] = {}
        for step in self._steps:
            if step not in reduced:
                reduced[step] = pixels if step == (1, 1) else block_mean(pixels, *step)
        return tuple(reduced[step] for step in self._steps)

    def _begun(self, view: int, block: Block) -> tuple[Pixels, _Place, tuple[int, int]]:
        """Room for the pixels of a block before `_raster`, its place, and the size of a tile."""
        step = self._steps[view] if self._whole else (1, 1)
        r0, r1, c0, c1 = self._window(view, block)
        place = (r0 // step[0], c0 // step[1], r1 // step[0], c1 // step[1])
        pixels = np.empty((place[2] - place[0], place[3] - place[1], 3), np.uint8)
        return pixels, place, (self._tile[0] // step[0], self._tile[1] // step[1])

    def _raster(self, view: int, block: Block, pixels: Pixels) -> Raster:
        if _is_empty(block):
            return Raster(np.zeros((*block.core.shape, 3), np.uint8), block.core, channels=CHANNELS)
        pixels = pixels if self._whole else block_mean(pixels, *self._steps[view])
        return Raster(pixels, block.outer, channels=CHANNELS)


def _paste(
    pixels: Pixels, place: _Place, reduced: Pixels | None, size: tuple[int, int], tile: _Tile
) -> None:
    """Copy what a block and a tile share; white where no tile is stored."""
    (i, j), (th, tw) = tile, size
    both = overlap_slices(place, (i * th, j * tw, (i + 1) * th, (j + 1) * tw))
    if both is not None:
        pixels[both[0]] = 255 if reduced is None else reduced[both[1]]


class _Shelf:
    """Memory for tiles that wait, apart from the heap; a place is free once its tile is dropped.

    Among the pictures of blocks, which come and go, tiles would leave gaps that the next pictures
    do not fit into: 0.1 GiB for a wide slide.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[NDArray[np.uint8]]] = {}
        self._last = np.empty(0, np.uint8)

    def keep(self, reduced: _Reduced) -> _Reduced:
        """Copies of one tile at each pixel size, (rows, columns, 3); one thread at a time."""
        copies = {id(one): self._copy(one) for one in reduced if one is not None}
        return tuple(None if one is None else copies[id(one)] for one in reduced)

    def _copy(self, pixels: Pixels) -> Pixels:
        free = self._free.setdefault(pixels.nbytes, [])
        if not free:
            if self._last.size < pixels.nbytes:
                self._last = np.empty(max(_SHELF_BYTES, pixels.nbytes), np.uint8)
            free.append(self._last[: pixels.nbytes])
            self._last = self._last[pixels.nbytes :]
        place = free.pop()
        copy: Pixels = place.reshape(pixels.shape)
        copy[:] = pixels
        weakref.finalize(copy, free.append, place).atexit = False
        return copy


def _is_empty(block: Block) -> bool:
    return min(block.core.shape) == 0


def _cropped(
    slide: PassableSlide,
    whole: tuple[Lattice, ...],
    steps: Sequence[tuple[int, ...]],
    ratio: tuple[int, int],
    region: RegionUm | None,
) -> tuple[tuple[int, int], tuple[Lattice, ...]]:
    """First row and column of the stored level, and the part of every lattice, within a region."""
    if region is None:
        return (0, 0), whole
    start, spans = [0, 0], []
    for axis in (0, 1):
        native, length = slide.lattice.spacing_um[axis], slide.lattice.shape[axis]
        common = math.lcm(*(step[axis] for step in steps))
        first = max(0, math.floor(region[0][axis] / native / common) * common)
        last = min(
            length, math.ceil((region[0][axis] + region[1][axis]) / native / common) * common
        )
        if last <= first:
            raise InputError(f"the region {region} µm lies outside the slide {slide.path.name}")
        start[axis] = first // ratio[axis]
        spans.append([slice(first // step[axis], last // step[axis]) for step in steps])
    lattices = tuple(
        lattice.crop(rows, cols) for lattice, rows, cols in zip(whole, *spans, strict=True)
    )
    return (start[0], start[1]), lattices


def _blocks_again(
    slide: PassableSlide, views: tuple[View, ...], block_px: int, region: RegionUm | None
) -> SlideBlocks:
    blocks = slide.blocks(*views, block_px=block_px, region=region)
    blocks.expect(())  # which blocks this process will get is not known: no tile waits for another
    return blocks
