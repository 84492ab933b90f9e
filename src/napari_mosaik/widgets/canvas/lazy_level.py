"""One level of a slide as an array for napari, and back from a layer to its slide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_mosaik.view.tile_pyramid import LevelWindow

if TYPE_CHECKING:
    from napari_mosaik.widgets.canvas.lazy_slide import LazySlide

__all__ = ["LazyLevel", "lazy_of"]

_CHUNK_PX: Final = 128
"""Napari slices whole chunks: a small one keeps textures small, none would slice at every step."""


class LazyLevel:
    """One level of a `LazySlide` as an array that napari can slice; never waits for a decode.

    It is for the canvas only: converting more of it than a screen can show raises `InputError`.
    """

    def __init__(self, slide: LazySlide, level: int) -> None:
        self._slide = slide
        self._level = level
        self.shape = (*slide.lattices[level].shape, 3)
        self.chunks = (_CHUNK_PX, _CHUNK_PX, 3)
        self.dtype = np.dtype(np.uint8)
        self.ndim = 3
        self.size = int(np.prod(self.shape))

    @property
    def slide(self) -> LazySlide:
        """The slide of which it is a level."""
        return self._slide

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        if Ellipsis in parts:
            i = parts.index(Ellipsis)
            parts = (*parts[:i], *[slice(None)] * (4 - len(parts)), *parts[i + 1 :])
        parts = (*parts, *[slice(None)] * (3 - len(parts)))
        rows, columns = (_as_slice(p, n) for p, n in zip(parts, self.shape[:2], strict=False))
        window = LevelWindow(self._level, rows.start, columns.start, rows.stop, columns.stop)
        out = self._slide.region(window)
        rest = tuple(slice(None, None, p.step) if isinstance(p, slice) else 0 for p in parts[:2])
        return out[(*rest, parts[2])]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        out = self[:]
        return out if dtype is None else out.astype(dtype)


def lazy_of(layer: Any) -> LazySlide | None:
    """The slide that a layer shows, None for other layers."""
    levels = layer.data if getattr(layer, "multiscale", False) else ()
    return levels[0].slide if len(levels) and isinstance(levels[0], LazyLevel) else None


def _as_slice(part: Any, n: int) -> slice:
    """First to last pixel that a part of an index names, whatever its step."""
    if isinstance(part, slice):
        chosen = range(*part.indices(n))
        return slice(min(chosen), max(chosen) + 1) if len(chosen) else slice(0, 0)
    if not -n <= int(part) < n:
        raise IndexError(f"{part} is out of range for {n} pixels")
    return slice(int(part) % n, int(part) % n + 1)
