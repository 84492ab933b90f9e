"""Decoded pixels that were used last, shared by all readers of slides, up to a byte limit."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable

from napari_mosaik.core import InputError
from napari_mosaik.io.slide.types.base import Pixels

__all__ = ["CACHE_VARIABLE", "PixelCache", "shared_cache"]

CACHE_VARIABLE = "NAPARI_MOSAIK_CACHE_MB"
"""Environment variable with the limit of the shared cache in MiB."""
_DEFAULT_MB = 384


class PixelCache:
    """Pixels by key, the least recently used dropped first; safe from several threads.

    A key is a tuple whose first entry names its owner (one open slide), so that everything of an
    owner can be dropped at once.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = int(limit_bytes)
        self._bytes = 0
        self._kept: OrderedDict[tuple[Hashable, ...], Pixels] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes that are held now."""
        return self._bytes

    def get(self, key: tuple[Hashable, ...]) -> Pixels | None:
        """The pixels if they are still there."""
        with self._lock:
            pixels = self._kept.get(key)
            if pixels is not None:
                self._kept.move_to_end(key)
            return pixels

    def put(self, key: tuple[Hashable, ...], pixels: Pixels) -> None:
        """Keep pixels and drop those that were not used for longest; always at least one stays."""
        if not pixels.flags.owndata and pixels.base is not None:
            pixels = pixels.copy()  # a view would hold its whole parent, uncounted
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = pixels
            self._bytes += pixels.nbytes
            while self._bytes > self.limit_bytes and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes

    def drop(self, owner: Hashable) -> None:
        """Forget everything of one owner."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == owner]:
                self._bytes -= self._kept.pop(key).nbytes


_shared: PixelCache | None = None
_shared_lock = threading.Lock()


def shared_cache() -> PixelCache:
    """The one cache of this process (384 MiB, or what `CACHE_VARIABLE` says)."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = PixelCache(_limit_mb() << 20)
        return _shared


def _limit_mb() -> int:
    text = os.environ.get(CACHE_VARIABLE, str(_DEFAULT_MB))
    if not text.isdigit() or not 1 <= int(text) <= 1 << 20:
        raise InputError(f"{CACHE_VARIABLE} must be a whole number of MiB from 1, not '{text}'")
    return int(text)
