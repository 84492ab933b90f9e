"""Regions of one stored level put together from decoded tiles: threads, a cache, white outside."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from napari_mosaik.core import InputError
from napari_mosaik.io.slide.base import Pixels, TileSource

__all__ = ["TileReader"]

_LARGE_TILE_BYTES = 16 << 20
"""Tiles above this size (whole untiled pictures) are decoded by one thread at a time."""

_Key = tuple[int, int, int]


class TileCache:
    """The tiles that were used last, up to a number of bytes; always at least one."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._bytes = 0
        self._tiles: OrderedDict[_Key, Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: _Key) -> Pixels | None:
        """The tile if it is still there."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def put(self, key: _Key, tile: Pixels) -> None:
        """Keep a tile and drop the ones that were not used for longest."""
        with self._lock:
            if key in self._tiles:
                return
            self._tiles[key] = tile
            self._bytes += tile.nbytes
            while self._bytes > self._limit and len(self._tiles) > 1:
                self._bytes -= self._tiles.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._tiles.clear()
            self._bytes = 0


class TileReader:
    """Reads rectangles of stored levels of a `TileSource`; safe from several threads."""

    def __init__(self, source: TileSource, cache_bytes: int = 64 << 20) -> None:
        self._source = source
        self._cache = TileCache(cache_bytes)
        self._large = threading.Lock()
        self._pool_lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def region(self, level: int, top: int, left: int, height: int, width: int) -> Pixels:
        """Pixels (height, width, 3) of a level; white outside of it."""
        stored = self._source.levels[level]
        r0, r1 = max(0, top), min(stored.shape[0], top + height)
        c0, c1 = max(0, left), min(stored.shape[1], left + width)
        inside = (r0, r1, c0, c1) == (top, top + height, left, left + width)
        out: Pixels = np.empty((height, width, 3), np.uint8)
        if not inside:
            out[:] = 255
        if r1 <= r0 or c1 <= c0:
            return out
        th, tw = stored.tile
        keys = [
            (level, i, j)
            for i in range(r0 // th, (r1 - 1) // th + 1)
            for j in range(c0 // tw, (c1 - 1) // tw + 1)
        ]

        def place(key: _Key) -> None:
            tile = self._tile(key)
            row, column = key[1] * th, key[2] * tw
            a, b = max(r0, row), min(r1, row + th)
            c, d = max(c0, column), min(c1, column + tw)
            out[a - top : b - top, c - left : d - left] = (
                255 if tile is None else tile[a - row : b - row, c - column : d - column]
            )

        self._each(place, keys)
        return out

    def close(self) -> None:
        """Stop the threads, drop the cache and close the file."""
        with self._pool_lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True)
        self._cache.clear()
        self._source.close()

    def _each(self, place: object, keys: list[_Key]) -> None:
        assert callable(place)
        if len(keys) < 3:
            results: Iterable[None] = map(place, keys)
        else:
            with self._pool_lock:
                if self._pool is None:
                    workers = min(8, os.cpu_count() or 1)
                    self._pool = ThreadPoolExecutor(workers, "slide-tiles")
            results = self._pool.map(place, keys)
        for _ in results:
            pass

    def _tile(self, key: _Key) -> Pixels | None:
        tile = self._cache.get(key)
        if tile is not None:
            return tile
        th, tw = self._source.levels[key[0]].tile
        if th * tw * 3 <= _LARGE_TILE_BYTES:
            return self._decode(key)
        with self._large:
            tile = self._cache.get(key)
            return self._decode(key) if tile is None else tile

    def _decode(self, key: _Key) -> Pixels | None:
        level, i, j = key
        stored = self._source.levels[level]
        row, column = i * stored.tile[0], j * stored.tile[1]
        need = (min(stored.tile[0], stored.shape[0] - row),
                min(stored.tile[1], stored.shape[1] - column))  # fmt: skip
        try:
            tile = self._source.tile(level, i, j)
            if tile is not None and (tile.shape[0] < need[0] or tile.shape[1] < need[1]):
                raise ValueError(f"{tile.shape[0]} x {tile.shape[1]} pixels instead of {need}")
        except Exception as error:
            scale = self._source.levels[0].shape[0] / stored.shape[0]
            raise InputError(
                f"{self._source.path.name}: the tile at row {round(row * scale)}, column "
                f"{round(column * scale)} px (level {level}) cannot be decoded; the file is "
                f"damaged ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
            ) from error
        if tile is not None:
            self._cache.put(key, tile)
        return tile
