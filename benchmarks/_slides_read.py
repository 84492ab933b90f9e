"""Reading for the benchmark: the same regions by this program and by OpenSlide, and all tiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import local
from typing import Any

import numpy as np
import openslide
from numpy.typing import NDArray

from napari_mosaik.io import open_slide
from napari_mosaik.io.slide.tiff import TiffSource

__all__ = ["REGION", "Peer", "Regions", "compare_regions", "decode_all_s"]

REGION = 1600
"""Edge of a region, pixels of the finest level."""
CACHE_BYTES = (32 << 20, 256 << 20, 1 << 30)
"""Sizes of OpenSlide's cache that are tried; the fastest counts."""

Pixels = NDArray[np.uint8]
Corner = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Regions:
    """Medians of one comparison."""

    ours_mpx_s: float
    openslide_mpx_s: float
    ratio: float
    largest_difference: int
    cache_mib: int


class Peer:
    """OpenSlide as it is used best from threads: one handle for each, one shared cache."""

    def __init__(self, path: Path, cache_bytes: int) -> None:
        self._path = path
        self._cache = openslide.OpenSlideCache(cache_bytes)
        self._local = local()
        self._handles: list[openslide.OpenSlide] = []

    def read(self, corner: Corner, edge: int = REGION) -> NDArray[np.uint8]:
        """RGBA pixels (edge, edge, 4) at (row, column) of the finest level."""
        handle = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = openslide.OpenSlide(self._path)
            handle.set_cache(self._cache)
            self._handles.append(handle)
        return np.asarray(handle.read_region((corner[1], corner[0]), 0, (edge, edge)))

    def close(self) -> None:
        """Close all handles."""
        for handle in self._handles:
            handle.close()


def compare_regions(
    path: Path, n_regions: int, threads: int, repeats: int, seed: int = 0
) -> Regions:
    """Read the same random regions in turns; every repetition starts with empty caches."""
    with open_slide(path) as slide:
        edges = slide.lattice.shape
    room = [max(1, n - REGION) for n in edges]
    corners = np.random.default_rng(seed).integers(0, room, (n_regions, 2))
    places = [(int(row), int(column)) for row, column in corners]
    size = min(REGION, *edges)
    difference = max(_difference(path, place, size) for place in places)
    cache = min(CACHE_BYTES, key=lambda c: _openslide_s(path, places, size, threads, c))
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(_ours_s(path, places, size))
        theirs.append(_openslide_s(path, places, size, threads, cache))
    mpx = n_regions * size * size / 1e6
    return Regions(
        mpx / statistics.median(ours),
        mpx / statistics.median(theirs),
        statistics.median(t / o for o, t in zip(ours, theirs, strict=True)),
        difference,
        cache >> 20,
    )


def decode_all_s(path: Path, threads: int) -> float:
    """Seconds in which all tiles of the finest level are read and decoded, and nothing else."""
    source = TiffSource(path)
    stored = source.levels[0]
    rows, columns = (-(-n // t) for n, t in zip(stored.shape, stored.tile, strict=True))

    def decode(row: int) -> None:
        for column in range(columns):
            source.tile(0, row, column)

    seconds = _timed(decode, list(range(rows)), threads)
    source.close()
    return seconds


def _timed(work: Callable[[Any], object], items: list[Any], threads: int) -> float:
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        for _ in pool.map(work, items):
            pass
        return time.perf_counter() - began


def _ours(slide: Any, corner: Corner, size: int) -> Pixels:
    rows, columns = (slice(a, a + size) for a in corner)
    pixels: Pixels = slide.read_lattice(slide.lattice.crop(rows, columns)).values
    return pixels


def _ours_s(path: Path, places: list[Corner], size: int) -> float:
    """One caller; the slide's own threads decode."""
    with open_slide(path) as slide:
        began = time.perf_counter()
        for place in places:
            _ours(slide, place, size)
        return time.perf_counter() - began


def _openslide_s(path: Path, places: list[Corner], size: int, threads: int, cache: int) -> float:
    peer = Peer(path, cache)
    seconds = _timed(lambda place: peer.read(place, size), places, threads)
    peer.close()
    return seconds


def _difference(path: Path, place: Corner, size: int) -> int:
    """Largest difference between a region by OpenSlide and by this program."""
    peer = Peer(path, CACHE_BYTES[0])
    with open_slide(path) as slide:
        mine = _ours(slide, place, size).astype(np.int16)
    theirs = peer.read(place, size)[..., :3].astype(np.int16)
    peer.close()
    return int(np.abs(mine - theirs).max())
