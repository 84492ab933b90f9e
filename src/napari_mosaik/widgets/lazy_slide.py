"""A slide as levels that answer at once: coarse at first, sharp as soon as pixels are read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_mosaik.core import Lattice, MosaikError

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide

__all__ = ["LazyLevel", "LazySlide", "coarsest_level", "refresh_layers_of"]

TILE_PX = 512
CACHE_TILES = 400
"""About 300 MB of decoded pixels per slide at most."""
COARSEST_PX = 1024
"""The last level is held in memory whole; its longer edge is at most this."""
_THREADS = 2
_SETTLE_MS = 60

Key = tuple[int, int, int]
Pixels = NDArray[np.uint8]


class LazySlide(QObject):
    """The levels of one slide for napari, read tile by tile on threads of their own.

    ``arrived`` is emitted in the window's thread, at most every 60 ms, when pixels that were
    asked for have come.

    Parameters
    ----------
    slide
        The open slide; closed by `close`.
    coarsest
        Pixels of the coarsest level, from `coarsest_level` (which may run on any thread).
    """

    arrived = Signal()
    _came = Signal()

    def __init__(self, slide: Slide, coarsest: Pixels, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.slide = slide
        self.lattices = _level_lattices(slide)
        self._cache: OrderedDict[Key, Pixels] = OrderedDict()
        self._wanted: OrderedDict[Key, None] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = False
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="mosaik-slide")
        self.coarsest = coarsest
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(_SETTLE_MS)
        self._settle.timeout.connect(self.arrived)
        self._came.connect(self._soon)

    def levels(self) -> list[Any]:
        """Levels from full size to the coarsest, which is an array in memory."""
        lazy = [LazyLevel(self, i) for i in range(len(self.lattices) - 1)]
        return [*lazy, self.coarsest]

    def close(self) -> None:
        """Stop reading and close the file."""
        with self._lock:
            self._closed = True
            self._wanted.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.slide.close()

    # --- pixels ---------------------------------------------------------------------------------
    def region(self, level: int, rows: slice, columns: slice) -> Pixels:
        """Pixels of a level at once; tiles that are not read yet come from the coarsest level."""
        out = self._coarse(level, rows, columns)
        missing = []
        for key in _tiles_of(level, rows, columns):
            with self._lock:
                tile = self._cache.get(key)
                if tile is not None:
                    self._cache.move_to_end(key)
            if tile is None:
                missing.append(key)
            else:
                _paste(out, tile, key, rows, columns)
        self._ask(missing)
        return out

    def _coarse(self, level: int, rows: slice, columns: slice) -> Pixels:
        shape, small = self.lattices[level].shape, self.coarsest.shape
        r = np.arange(rows.start, rows.stop) * small[0] // max(1, shape[0])
        c = np.arange(columns.start, columns.stop) * small[1] // max(1, shape[1])
        return self.coarsest[np.ix_(np.minimum(r, small[0] - 1), np.minimum(c, small[1] - 1))]

    def _ask(self, keys: list[Key]) -> None:
        """What is asked for last is read first; what nobody waits for any more is dropped."""
        if not keys:
            return
        with self._lock:
            if self._closed:
                return
            self._wanted.clear()
            self._wanted.update(dict.fromkeys(reversed(keys)))
            jobs = len(keys)
        for _ in range(jobs):
            self._pool.submit(self._read_one)

    def _read_one(self) -> None:
        with self._lock:
            if self._closed or not self._wanted:
                return
            key, _ = self._wanted.popitem()
            if key in self._cache:
                return
        try:
            tile = self.slide.read_lattice(_crop(self.lattices[key[0]], key)).values
        except (MosaikError, OSError):
            return  # a damaged part of a slide stays coarse; the steps report it by name
        with self._lock:
            if self._closed:
                return
            self._cache[key] = tile
            while len(self._cache) > CACHE_TILES:
                self._cache.popitem(last=False)
        self._came.emit()

    def _soon(self) -> None:
        if not self._settle.isActive():
            self._settle.start()


class LazyLevel:
    """One level of a `LazySlide` as an array that napari can slice; never blocks."""

    def __init__(self, slide: LazySlide, level: int) -> None:
        self._slide = slide
        self._level = level
        self.shape = (*slide.lattices[level].shape, 3)
        self.dtype = np.dtype(np.uint8)
        self.ndim = 3
        self.size = int(np.prod(self.shape))

    def belongs_to(self, slide: LazySlide) -> bool:
        """Whether it is a level of that slide."""
        return self._slide is slide

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        if Ellipsis in parts:
            i = parts.index(Ellipsis)
            parts = (*parts[:i], *[slice(None)] * (4 - len(parts)), *parts[i + 1 :])
        parts = (*parts, *[slice(None)] * (3 - len(parts)))
        rows, columns = (_as_slice(p, n) for p, n in zip(parts, self.shape[:2], strict=False))
        out = self._slide.region(self._level, rows, columns)
        rest = tuple(0 if isinstance(p, int | np.integer) else slice(None) for p in parts[:2])
        return out[(*rest, parts[2])]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        out = self[:]
        return out if dtype is None else out.astype(dtype)


def coarsest_level(slide: Slide) -> Pixels:
    """Pixels of the level that is kept in memory."""
    return slide.read_lattice(_level_lattices(slide)[-1]).values


def _as_slice(part: Any, n: int) -> slice:
    if isinstance(part, slice):
        start, stop, _ = part.indices(n)
        return slice(start, max(start, stop))
    return slice(int(part) % n, int(part) % n + 1)


def _level_lattices(slide: Slide) -> list[Lattice]:
    spacing = slide.lattice.spacing_um
    lattices, k = [], 1
    while True:
        lattices.append(slide.working_lattice(max(spacing) * k))
        if max(lattices[-1].shape) <= COARSEST_PX:
            return lattices
        k *= 2


def _tiles_of(level: int, rows: slice, columns: slice) -> list[Key]:
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return []
    return [
        (level, i, j)
        for i in range(rows.start // TILE_PX, (rows.stop - 1) // TILE_PX + 1)
        for j in range(columns.start // TILE_PX, (columns.stop - 1) // TILE_PX + 1)
    ]


def _crop(lattice: Lattice, key: Key) -> Lattice:
    _, i, j = key
    rows = slice(i * TILE_PX, (i + 1) * TILE_PX)
    return lattice.crop(rows, slice(j * TILE_PX, (j + 1) * TILE_PX))


def _paste(out: Pixels, tile: Pixels, key: Key, rows: slice, columns: slice) -> None:
    _, i, j = key
    top, left = i * TILE_PX, j * TILE_PX
    r0, r1 = max(top, rows.start), min(top + tile.shape[0], rows.stop)
    c0, c1 = max(left, columns.start), min(left + tile.shape[1], columns.stop)
    if r1 > r0 and c1 > c0:
        part = tile[r0 - top : r1 - top, c0 - left : c1 - left]
        out[r0 - rows.start : r1 - rows.start, c0 - columns.start : c1 - columns.start] = part


def refresh_layers_of(slide: LazySlide, viewer: Any) -> None:
    """Redraw the layers of a viewer that show a slide; there may be no viewer any more."""
    for layer in viewer.layers if viewer is not None else ():
        levels = layer.data if layer.multiscale else ()
        if len(levels) and isinstance(levels[0], LazyLevel) and levels[0].belongs_to(slide):
            layer.refresh()
