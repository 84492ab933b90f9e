"""Pyramid levels of a slide that never block: coarse at first, sharp once pixels are read."""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from qtpy.QtCore import QCoreApplication, QObject, QTimer, Signal

from napari_mosaik.core import InputError, MosaikError
from napari_mosaik.io.slide.read.cache import shared_cache
from napari_mosaik.io.slide.read.resample import block_mean
from napari_mosaik.io.slide.types.tiles import Pixels
from napari_mosaik.view.display_settings import (
    STAINS_OF_SLIDE,
    DisplaySettings,
    StainVectors,
    apply_display,
)
from napari_mosaik.view.tile_loader import Lane, PieceReaders
from napari_mosaik.view.tile_pyramid import LevelWindow, Piece, levels_of

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mosaik.core.frame import Lattice
    from napari_mosaik.io.slide import Slide

__all__ = [
    "CHUNK_PX",
    "LazyLevel",
    "LazyPieces",
    "LazySlide",
    "ReadLevel",
    "attend",
    "lazy_of",
    "pixel_range",
    "read_levels",
    "redraw",
]

PLACEHOLDER: Final = 232
"""Light grey where no pixels have been read yet."""
MAX_PIXELS: Final = 1 << 27
"""Maximum number of pixels returned at once; a whole level would fill the memory."""
_SETTLE_MS = (40, 400)
"""Minimum and maximum time between two redraws for new pixels."""
_AT_ONCE_PX: Final = 1 << 24
"""The coarsest level is read first if it takes at most so many decoded pixels."""
CHUNK_PX: Final = 128
"""Napari slices whole chunks: a small one keeps textures small, none would slice at every step."""
_owners = itertools.count()
_closing: dict[int, LazyPieces] = {}
"""What waits for a reading thread; Qt's objects must be deleted in the window's thread."""


class _Keeper(QObject):
    """Lets go in the window's thread of what was closed and no thread reads any more."""

    released = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.released.connect(self._forget)

    def _forget(self, number: int) -> None:
        _closing.pop(number, None)


@cache
def _keeper() -> _Keeper:
    return _Keeper()


def _released(release: Callable[[], None], keeper: _Keeper, number: int) -> None:
    """On any thread, which must not hold what was closed: it would be deleted there."""
    release()
    keeper.released.emit(number)


def is_closing() -> bool:
    """Whether a thread still reads from something that was closed."""
    return bool(_closing)


class LazyPieces(QObject):
    """What the canvas reads piece by piece on other threads.

    ``arrived`` is emitted in the window's thread, not more often than drawing can follow, when
    pixels that were asked for have come; its value says whether the coarsest level (and so the
    thumbnail) changed.  ``damaged`` tells of a piece that cannot be read, once.
    """

    arrived = Signal(bool)
    damaged = Signal(str)
    _came = Signal()
    _lane: Lane

    def __init__(self) -> None:
        super().__init__()
        self._failed: set[Piece] = set()
        self._failing = threading.Lock()
        self._coarse_changed = False
        self._pending = False
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(_SETTLE_MS[0])
        self._settle.timeout.connect(self._tell)
        self._came.connect(self._soon)
        self._idle = QTimer(self)
        self._idle.setSingleShot(True)
        self._idle.timeout.connect(self._drawn)
        self._began = 0.0

    def close(self) -> None:
        """Stop reading, and let go of what was read once no thread uses it."""
        self._settle.stop()
        if self._lane.closed:
            return
        _closing[id(self)] = self
        self._lane.close(partial(_released, self._release(), _keeper(), id(self)))

    def _release(self) -> Callable[[], None]:
        """What is done once no thread reads any more, on any thread; without this object."""
        raise NotImplementedError

    def _has_come(self) -> None:
        """On a reading thread: a piece was read."""
        if not self._pending:
            self._pending = True
            self._came.emit()

    def _fail(self, piece: Piece, error: Exception) -> None:
        """On a reading thread: keep the part as it is on the screen."""
        with self._failing:  # two threads may fail at the same time, and only one tells it
            first = not self._failed
            self._failed.add(piece)
        if first:
            self.damaged.emit(str(error))

    def _soon(self) -> None:
        if not self._settle.isActive():
            self._settle.start()

    def _tell(self) -> None:
        """Redraw unless that has happened since; then wait for twice the drawing time."""
        if not self._pending and not self._coarse_changed:
            return
        self._pending = False
        thumbnail, self._coarse_changed = self._coarse_changed, False
        self._began = time.perf_counter()
        self.arrived.emit(thumbnail)
        self._idle.start(0)

    def _drawn(self) -> None:
        took = 1000 * (time.perf_counter() - self._began)
        self._settle.setInterval(round(min(_SETTLE_MS[1], max(_SETTLE_MS[0], 2 * took))))


class LazySlide(LazyPieces):
    """The levels of one slide for napari, read piece by piece on other threads.

    Only the canvas looks at these pixels: they may still be coarse, and the
    `DisplaySettings` apply that
    the user chose apply to them.  Steps, exports and statistics read the `Slide` itself.

    Parameters
    ----------
    slide
        The open slide; closed by `close`.
    readers
        Threads that read for several slides; None makes threads for this one.
    stains
        Stains that can be shown alone.
    """

    look_changed = Signal()

    def __init__(
        self,
        slide: Slide,
        readers: PieceReaders | None = None,
        stains: StainVectors = STAINS_OF_SLIDE[""],
    ) -> None:
        super().__init__()
        self.slide = slide
        self.pieces = levels_of(slide)
        self.lattices = self.pieces.lattices
        self.settings = DisplaySettings(vectors=stains)
        self._cache = shared_cache()
        self._owner = f"view {next(_owners)}"
        self._last = len(self.lattices) - 1
        shape = (*self.lattices[-1].shape, 3)
        self._raw: Pixels = np.full(shape, PLACEHOLDER, np.uint8)
        self._known = np.zeros(shape[:2], bool)
        self.coarsest: Pixels = self._raw.copy()
        self._coarse_lock = threading.Lock()
        self._coarse_whole = threading.Event()
        self._own_readers = PieceReaders() if readers is None else None
        chosen = readers or self._own_readers
        assert chosen is not None
        self._lane = chosen.lane(self._read)
        self._begin()
        application = QCoreApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self.close)

    def levels(self) -> list[Any]:
        """Levels from full resolution to the coarsest, which is an array in memory."""
        return [*(LazyLevel(self, i) for i in range(self._last)), self.coarsest]

    def settle(self, timeout_s: float) -> bool:
        """Wait a moment for the coarsest level; whether it is there.

        Does not wait where most of the file would have to be decoded for it.
        """
        return self._quick and self._coarse_whole.wait(timeout_s)

    @property
    def _quick(self) -> bool:
        return self._known.size * self.pieces.steps[-1] ** 2 <= _AT_ONCE_PX

    def set_display(self, settings: DisplaySettings) -> None:
        """Change brightness, contrast, gamma or stain of the display."""
        if settings == self.settings:
            return
        with self._coarse_lock:
            self.settings = settings
            self.coarsest[...] = apply_display(self._raw, settings)
        self.arrived.emit(True)
        self.look_changed.emit()

    def set_stains(self, stains: StainVectors) -> None:
        """Change the stain vectors of the colour deconvolution."""
        self.set_display(replace(self.settings, vectors=stains))

    def _release(self) -> Callable[[], None]:
        """Forget the pixels, close the file and end the threads that read for it alone."""
        cache, owner, slide, readers = self._cache, self._owner, self.slide, self._own_readers

        def release() -> None:
            cache.drop_owner(owner)
            slide.close()
            if readers is not None:
                readers.close()

        return release

    # --- pixels ---------------------------------------------------------------------------------
    def region(self, window: LevelWindow) -> Pixels:
        """Pixels of a level at once; what is not read yet comes from coarser levels.

        What is missing is asked for, in place of what was asked for before.
        """
        rows, columns = window.shape
        if rows * columns > MAX_PIXELS:
            raise InputError(
                f"{self.slide.path.name}: {rows} x {columns} pixels are more than the screen "
                "needs; read the slide itself with napari_mosaik.io.open_slide"
            )
        self._pending = False
        pixels, missing, bare = self.pieces.compose(window, self._find, self._raw)
        missing = [piece for piece in missing if piece not in self._failed]
        self._lane.want(self.pieces.wanted(window, missing, bare))
        return apply_display(pixels, self.settings)

    def _find(self, piece: Piece) -> Pixels | None:
        return self._cache.get((self._owner, *piece))

    def _begin(self) -> None:
        """Read the coarsest level: first where that is fast, else when no other piece waits."""
        whole = self.pieces.whole(self._last)
        pieces = self.pieces.wanted(whole, self.pieces.pieces(whole), [])
        if self._quick:
            self._lane.first(pieces)
        else:
            self._lane.later(pieces)

    # --- on the reading threads -----------------------------------------------------------------
    def _read(self, piece: Piece) -> None:
        at = self.pieces.window(piece)
        coarse = at.level == self._last
        if (
            self._known[at.top : at.bottom, at.left : at.right].all()
            if coarse
            else (self._find(piece) is not None or piece in self._failed)
        ):
            return
        try:
            pixels = self.slide.read_lattice(self.pieces.lattice(piece)).values
        except (MosaikError, OSError) as error:
            self._fail(piece, error)
            return
        if not coarse:
            self._cache.put((self._owner, *piece), pixels)
        self._to_coarsest(pixels, at)
        self._has_come()

    def _to_coarsest(self, pixels: Pixels, at: LevelWindow) -> None:
        """Fill the coarsest level from a piece, where it is not known yet."""
        shift = self._last - at.level
        top, left = -(-at.top >> shift), -(-at.left >> shift)
        rows, columns = (at.bottom >> shift) - top, (at.right >> shift) - left
        part = (slice(top, top + rows), slice(left, left + columns))
        if rows < 1 or columns < 1 or self._known[part].all():
            return
        k = 1 << shift
        inner = pixels[(top << shift) - at.top :, (left << shift) - at.left :]
        small = block_mean(inner[: rows * k, : columns * k], k, k) if shift else pixels
        with self._coarse_lock:
            self._raw[part] = small
            self._known[part] = True
            self.coarsest[part] = apply_display(small, self.settings)
            if self._known.all():
                self._coarse_whole.set()
        self._coarse_changed = True


class ReadLevel:
    """One level of a slide as an array that napari can slice: pixels are read at once.

    Parameters
    ----------
    lattice
        That of the level.
    level
        Its place among the levels of the slide.
    read
        Gives the pixels of a window of the level, shape (rows, columns, 3), uint8.
    """

    def __init__(self, lattice: Lattice, level: int, read: Callable[[LevelWindow], Pixels]) -> None:
        self._level, self._pixels = level, read
        self.shape = (*lattice.shape, 3)
        self.chunks = (CHUNK_PX, CHUNK_PX, 3)
        self.dtype = np.dtype(np.uint8)
        self.ndim = 3
        self.size = int(np.prod(self.shape))

    def __getitem__(self, key: Any) -> Any:
        parts: tuple[Any, ...] = key if isinstance(key, tuple) else (key,)
        if Ellipsis in parts:
            i = parts.index(Ellipsis)
            parts = (*parts[:i], *[slice(None)] * (4 - len(parts)), *parts[i + 1 :])
        parts = (*parts, *[slice(None)] * (3 - len(parts)))
        rows, columns = (pixel_range(p, n) for p, n in zip(parts, self.shape[:2], strict=False))
        window = LevelWindow(self._level, rows.start, columns.start, rows.stop, columns.stop)
        out = self._pixels(window)
        rest = tuple(slice(None, None, p.step) if isinstance(p, slice) else 0 for p in parts[:2])
        return out[(*rest, parts[2])]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        out = self[:]
        return out if dtype is None else out.astype(dtype)


class LazyLevel(ReadLevel):
    """One level of a `LazySlide`; never waits for a decode.

    It is for the canvas only: converting more of it than a screen can show raises `InputError`.
    """

    def __init__(self, slide: LazySlide, level: int) -> None:
        super().__init__(slide.lattices[level], level, slide.region)
        self._slide = slide

    @property
    def slide(self) -> LazySlide:
        """The slide of the level."""
        return self._slide


def read_levels(slide: Slide) -> list[ReadLevel]:
    """The levels of a slide for a program without a canvas, from full resolution to the coarsest.

    The slide is closed with the last of them.
    """
    lattices = levels_of(slide).lattices

    def read(at: LevelWindow) -> Pixels:
        part = lattices[at.level].crop(slice(at.top, at.bottom), slice(at.left, at.right))
        return slide.read_lattice(part).values

    weakref.finalize(read, slide.close)
    return [ReadLevel(lattice, level, read) for level, lattice in enumerate(lattices)]


def lazy_of(layer: Any) -> LazySlide | None:
    """The slide that a layer shows, None for other layers."""
    levels: Any = layer.data if getattr(layer, "multiscale", False) else ()
    return levels[0].slide if len(levels) and isinstance(levels[0], LazyLevel) else None


def pixel_range(part: Any, n: int) -> slice:
    """First to last pixel that a part of an index names, whatever its step."""
    if isinstance(part, slice):
        chosen = range(*part.indices(n))
        return slice(min(chosen), max(chosen) + 1) if len(chosen) else slice(0, 0)
    if not -n <= int(part) < n:
        raise IndexError(f"{part} is out of range for {n} pixels")
    return slice(int(part) % n, int(part) % n + 1)


def redraw(layer: Layer, thumbnail: bool = False) -> None:
    """Slice and draw a layer again, without its extent and highlight."""
    layer.refresh(thumbnail=thumbnail, highlight=False, extent=False)


def attend(slide: LazySlide, viewer: Any, *, closing: bool = True) -> None:
    """Redraw the layers of a viewer that show a slide; if *closing*, close it with the last one."""
    # Qt holds what is connected, and nobody could free the cycle
    shown, seen_in = weakref.ref(slide), weakref.ref(viewer)

    def arrived(thumbnail: bool) -> None:
        there = seen_in()
        for layer in () if there is None else there.layers:
            if lazy_of(layer) is shown():
                redraw(layer, thumbnail)

    def removed(event: Any) -> None:
        gone = lazy_of(event.value)
        if gone is None or gone is not shown():
            return
        if not any(lazy_of(other) is gone for other in viewer.layers):
            viewer.layers.events.removed.disconnect(removed)
            gone.close()

    slide.arrived.connect(arrived)
    if closing:
        viewer.layers.events.removed.connect(removed)
