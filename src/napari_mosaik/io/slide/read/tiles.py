"""Regions of one stored level, assembled from decoded tiles with threads and a cache."""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from napari_mosaik.core import InputError
from napari_mosaik.core.progress import checkpoint
from napari_mosaik.core.window import overlap_slices
from napari_mosaik.io.slide.pyramid.virtual import VirtualPyramidSource
from napari_mosaik.io.slide.read.cache import PixelCache, shared_cache
from napari_mosaik.io.slide.types.damage import DamageLog, disk_fault, first_line
from napari_mosaik.io.slide.types.tiles import Pixels, TileSource

__all__ = ["TileReader"]

_LARGE_TILE_BYTES = 16 << 20
"""Tiles above this size (whole untiled images) are decoded by one thread at a time."""

_WIDE_TILE_PX = 2048
"""A tile wider than this (a strip) serves many tiles of a virtual level and is kept for them."""
_WORKERS = min(8, os.cpu_count() or 1)
_SCANNED_AT_ONCE = 8 * _WORKERS
"""Number of tiles between two points at which a scan can be cancelled."""

_Key = tuple[int, int, int]
_readers = itertools.count()


class TileReader:
    """Reads rectangles of stored levels of a `TileSource`; safe from several threads.

    Parameters
    ----------
    source
        The file.
    cache
        Where decoded tiles are kept; by default the shared cache of this process.
    damage
        Where tiles that cannot be decoded are noted; they are white then.  Without it the first
        of them is an error.
    """

    def __init__(
        self,
        source: TileSource,
        cache: PixelCache | None = None,
        damage: DamageLog | None = None,
    ) -> None:
        self._source = source
        self._bytes = _file_bytes(source.path)
        self._damage = damage
        self._cache = shared_cache() if cache is None else cache
        self._owner = f"tiles {next(_readers)}"
        self._large = threading.Lock()
        self._pool_lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        if isinstance(source, VirtualPyramidSource):
            source.read_below = self._below

    def region(self, level: int, top: int, left: int, height: int, width: int) -> Pixels:
        """Pixels of a level, shape (height, width, 3), uint8; white outside of it."""
        stored = self._source.levels[level]
        r0, r1 = max(0, top), min(stored.shape[0], top + height)
        c0, c1 = max(0, left), min(stored.shape[1], left + width)
        inside = (r0, r1, c0, c1) == (top, top + height, left, left + width)
        out: Pixels = np.empty((height, width, 3), np.uint8)
        if not inside:
            out[:] = 255
        if r1 <= r0 or c1 <= c0:
            return out
        on_slide = out[r0 - top : r1 - top, c0 - left : c1 - left]
        th, tw = stored.tile
        keys = [
            (level, i, j)
            for i in range(r0 // th, (r1 - 1) // th + 1)
            for j in range(c0 // tw, (c1 - 1) // tw + 1)
        ]

        def put(key: _Key, tile: Pixels | None) -> None:
            row, column = key[1] * th, key[2] * tw
            both = overlap_slices((r0, c0, r1, c1), (row, column, row + th, column + tw))
            if both is not None:
                on_slide[both[0]] = 255 if tile is None else tile[both[1]]

        missing = []
        for key in keys:  # what is there already never waits for the disk
            tile = self._cache.get((self._owner, *key))
            if tile is None:
                missing.append(key)
            else:
                put(key, tile)
        self._each(lambda key: put(key, self._tile(key)), missing)
        return out

    def scan(self) -> Iterator[tuple[int, int]]:
        """Decode every tile of every level once; yields (done, all) tiles.

        Only the log of damage is kept.
        """
        keys = [
            (level, i, j)
            for level, stored in enumerate(self._source.levels)
            if not stored.virtual
            for i in range(-(-stored.shape[0] // stored.tile[0]))
            for j in range(-(-stored.shape[1] // stored.tile[1]))
        ]

        def look(key: _Key) -> None:
            self.decode(*key)

        for first in range(0, len(keys), _SCANNED_AT_ONCE):
            self._each(look, keys[first : first + _SCANNED_AT_ONCE])
            yield min(first + _SCANNED_AT_ONCE, len(keys)), len(keys)

    def close(self) -> None:
        """Stop the threads, drop the cache and close the file."""
        with self._pool_lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True)
        self.forget()
        self._source.close()

    def forget(self) -> None:
        """Drop the decoded tiles from the cache."""
        self._cache.drop_owner(self._owner)

    def _each(self, place: Callable[[_Key], None], keys: Sequence[_Key]) -> None:
        """Process every tile: each thread takes the next one until all are done.

        There is one task per thread, not per tile, because submitting a task costs a tenth of the
        decoding of a tile.
        """
        turn = iter(list(keys))  # next() of a list iterator is atomic, so threads can share it

        def work() -> None:
            for key in turn:
                try:
                    place(key)
                except BaseException:
                    deque(turn, maxlen=0)  # after a failure no thread takes another tile
                    raise

        others = self._submitted(work, min(_WORKERS, len(keys) // 2) - 1)
        try:
            work()
        finally:
            for other in others:
                if not other.cancel():
                    other.result()

    def _submitted(self, work: Callable[[], None], n: int) -> list[Future[None]]:
        if n < 1:
            return []
        with self._pool_lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_WORKERS, "slide-tiles")
            return [self._pool.submit(work) for _ in range(n)]

    def _tile(self, key: _Key) -> Pixels | None:
        tile = self._cache.get((self._owner, *key))
        if tile is not None:
            return tile
        th, tw = self._source.levels[key[0]].tile
        if th * tw * 3 <= _LARGE_TILE_BYTES:
            return self._decoded_and_kept(key)
        # Several threads may want the same whole image; the first one decodes it, and the others
        # find it in the cache, which is why it is looked up again under the lock.
        with self._large:
            tile = self._cache.get((self._owner, *key))
            return self._decoded_and_kept(key) if tile is None else tile

    def _decoded_and_kept(self, key: _Key) -> Pixels | None:
        tile = self.decode(*key)
        if tile is not None:
            self._cache.put((self._owner, *key), tile)
        return tile

    def _below(self, level: int, i: int, j: int) -> Pixels | None:
        wide = self._source.levels[level].tile[1] > _WIDE_TILE_PX
        return self._tile((level, i, j)) if wide else self.decode(level, i, j)

    def decode(self, level: int, i: int, j: int) -> Pixels | None:
        """One tile, shape (rows, columns, 3), uint8, decoded now; None where nothing is stored.

        A tile that cannot be decoded raises `InputError` with its position; if damage is logged
        instead, the tile is None.
        """
        if self._damage is not None and (level, i, j) in self._damage:
            return None
        stored = self._source.levels[level]
        if stored.virtual:  # made from tiles that come through here
            return self._source.tile(level, i, j)
        checkpoint()
        row, column = i * stored.tile[0], j * stored.tile[1]
        need = (min(stored.tile[0], stored.shape[0] - row),
                min(stored.tile[1], stored.shape[1] - column))  # fmt: skip
        try:
            tile = self._source.tile(level, i, j)
            if tile is not None and (tile.shape[0] < need[0] or tile.shape[1] < need[1]):
                raise ValueError(f"{tile.shape[0]} x {tile.shape[1]} pixels instead of {need}")
        except Exception as error:
            refusal = self._refusal((level, i, j), error)
            if refusal is not None:
                raise refusal from error
            return None
        return tile

    def _refusal(self, key: _Key, error: Exception) -> InputError | None:
        """The error to raise, or None if the tile is logged as damaged.

        A disk error is never regarded as a damaged tile.
        """
        path, (level, i, j) = self._source.path, key
        fault = disk_fault(path, self._bytes, error)
        if fault:
            return InputError(fault)
        if self._damage is not None:
            self._damage.add(key, first_line(error))
            return None
        stored, native = self._source.levels[level], self._source.levels[0].shape
        row = round(i * stored.tile[0] * native[0] / stored.shape[0])
        column = round(j * stored.tile[1] * native[1] / stored.shape[1])
        return InputError(
            f"{path.name}: the tile at row {row}, column {column} px (level {level}) cannot be "
            f"decoded; the file is damaged ({first_line(error)}). Copy the file again, or exclude "
            "damaged tiles with --damaged skip"
        )


def _file_bytes(path: Path) -> int | None:
    """Size of a slide that is one file; None for a folder."""
    return path.stat().st_size if path.is_file() else None
