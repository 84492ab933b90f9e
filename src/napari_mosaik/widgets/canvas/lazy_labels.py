"""Object labels as levels that never block: pieces are read and outlined on other threads."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_mosaik.core.recent import RecentValues
from napari_mosaik.view.label_levels import INSIDE, Codes, LabelLevels
from napari_mosaik.view.tile_loader import PieceReaders
from napari_mosaik.view.tile_pyramid import Piece
from napari_mosaik.widgets.canvas.lazy_slide import CHUNK_PX, LazyPieces, pixel_range, redraw

if TYPE_CHECKING:
    from napari.layers import Layer

__all__ = ["CODED", "LazyObjects", "attend_labels", "dress_codes", "lazy_objects_of"]

CODED: Final = "mosaik codes"
"""In the metadata of a layer that shows codes of `label_levels`."""
_CACHE_BYTES: Final = 96 * 2**20
"""Of the codes of all labels of a window."""
_cache: RecentValues[Codes] = RecentValues(_CACHE_BYTES, lambda codes: codes.nbytes)
_owners = itertools.count()


class LazyObjects(LazyPieces):
    """The levels of object labels for napari, read piece by piece on other threads.

    Parameters
    ----------
    levels
        The stored labels and what is shown far away.
    readers
        Threads that read for all slides and labels of the window.
    """

    def __init__(self, levels: LabelLevels, readers: PieceReaders) -> None:
        super().__init__()
        self.pieces = levels
        self._owner = next(_owners)
        self._lane = readers.lane(self._read)

    def levels(self) -> list[Any]:
        """Levels from full resolution to the coarsest, which is an array in memory."""
        last = len(self.pieces.shapes) - 1
        return [*(_LazyLevel(self, level) for level in range(last)), self.pieces.coarsest]

    def _release(self) -> Callable[[], None]:
        """Forget the codes that were read."""
        owner = self._owner
        return lambda: _cache.drop(lambda key: isinstance(key, tuple) and key[0] == owner)

    def region(self, level: int, rows: slice, cols: slice) -> Codes:
        """Codes of a level at once; what is not read yet comes from coarser levels.

        What is missing is asked for, and then what lies around it, in place of what was asked for
        before.
        """
        self._pending = False
        codes, missing = self.pieces.compose(level, rows, cols, self._find)
        near = [p for p in self.pieces.around(level, rows, cols) if self._find(p) is None]
        self._lane.want([piece for piece in (*missing, *near) if piece not in self._failed])
        return codes

    def _find(self, piece: Piece) -> Codes | None:
        return _cache.get((self._owner, *piece))

    def _read(self, piece: Piece) -> None:
        """On a reading thread: read one piece."""
        if self._find(piece) is not None or piece in self._failed:
            return
        try:
            codes = self.pieces.read(piece)
        except Exception as error:  # noqa: BLE001 - of stored chunks many kinds; a lane must not raise
            self._fail(piece, error)
            return
        _cache.put((self._owner, *piece), codes)
        self._has_come()


class _LazyLevel:
    """One level of `LazyObjects` as an array that napari can slice; never waits for a file."""

    def __init__(self, labels: LazyObjects, level: int) -> None:
        self.labels, self._level = labels, level
        self.shape = labels.pieces.shapes[level]
        self.chunks = (CHUNK_PX, CHUNK_PX)
        self.dtype, self.ndim = np.dtype(np.uint8), 2
        self.size = int(np.prod(self.shape))

    def __getitem__(self, key: Any) -> Any:
        parts = (*(key if isinstance(key, tuple) else (key,)), slice(None), slice(None))[:2]
        rows, cols = (pixel_range(p, n) for p, n in zip(parts, self.shape, strict=True))
        codes = self.labels.region(self._level, rows, cols)
        steps = tuple(slice(None, None, p.step) if isinstance(p, slice) else 0 for p in parts)
        return codes[steps]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        out = self[:]
        return out if dtype is None else out.astype(dtype)


def lazy_objects_of(layer: Any) -> LazyObjects | None:
    """The labels that a layer shows as codes, None for other layers."""
    levels: Any = layer.data if getattr(layer, "multiscale", False) else ()
    return levels[0].labels if len(levels) and isinstance(levels[0], _LazyLevel) else None


def attend_labels(labels: LazyObjects, viewer: Any) -> None:
    """Redraw the layers of a viewer that show the labels when more of them was read."""
    shown, seen_in = weakref.ref(labels), weakref.ref(viewer)

    def arrived(thumbnail: bool) -> None:
        there = seen_in()
        for layer in () if there is None else there.layers:
            if layer.visible and lazy_objects_of(layer) is shown():
                redraw(layer, thumbnail)

    labels.arrived.connect(arrived)


def dress_codes(layer: Layer) -> None:
    """Let a layer of codes leave the inside of objects clear, and tell their labels.

    napari would search the outlines of all objects in view at every redraw, a tenth of a second
    for a slide; the codes have them already.
    """

    def without_inside(codes: Codes, part: tuple[slice, ...]) -> Codes | None:
        if layer.contour < 1:
            return None
        shown = codes[part]
        return np.where(shown == INSIDE, np.uint8(0), shown)

    layer.metadata[CODED] = True
    layer._calculate_contour = without_inside
    if lazy_objects_of(layer) is not None:
        layer._get_value = partial(_label_under, layer, layer._get_value)


def _label_under(layer: Layer, code_under: Any, position: Any) -> tuple[int, int | None]:
    """Level and label at a position in data coordinates; None where no single object is shown."""
    labels = lazy_objects_of(layer)
    level, code = code_under(position)
    if labels is None or code is None or labels.pieces.shows_density(level):
        return level, None
    if not code:
        return level, 0
    place = np.round(np.asarray(position)[-2:] / 2**level).astype(int)
    row, col = np.clip(place, 0, np.array(labels.pieces.shapes[level]) - 1)
    return level, labels.pieces.label_at(level, int(row), int(col))
