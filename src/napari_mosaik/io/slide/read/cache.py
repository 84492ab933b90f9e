"""A cache of decoded pixels, shared by all slide readers, with a limit in bytes."""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable

from napari_mosaik.core import InputError
from napari_mosaik.core.recent import RecentValues
from napari_mosaik.io.slide.types.tiles import Pixels

__all__ = ["CACHE_VARIABLE", "PixelCache", "shared_cache"]

CACHE_VARIABLE = "NAPARI_MOSAIK_CACHE_MB"
"""Environment variable with the limit of the shared cache in MiB."""
_DEFAULT_MB = 384


class PixelCache(RecentValues[Pixels]):
    """Pixels by key up to a number of bytes, the least recently used dropped first.

    A key is a tuple whose first entry names its owner (one open slide), so that everything of an
    owner can be dropped at once.
    """

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(int(limit_bytes), lambda pixels: pixels.nbytes)

    def put(self, key: Hashable, value: Pixels) -> None:
        """Keep pixels, shape (rows, columns, 3), uint8.

        A view is copied, because it would keep its whole parent alive, uncounted.
        """
        if not value.flags.owndata and value.base is not None:
            value = value.copy()
        super().put(key, value)

    def drop_owner(self, owner: Hashable) -> None:
        """Forget everything of one owner."""
        self.drop(lambda key: isinstance(key, tuple) and key[0] == owner)


_shared: PixelCache | None = None
_shared_lock = threading.Lock()


def shared_cache() -> PixelCache:
    """The cache of this process (384 MiB, or the value of `CACHE_VARIABLE`)."""
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
