"""Reading for the benchmark: the same regions by this program and by OpenSlide, and all tiles."""

from __future__ import annotations

import math
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import local
from typing import NamedTuple

import numpy as np
import openslide
from numpy.typing import NDArray

from napari_mosaik.io import open_slide
from napari_mosaik.io.slide import Slide
from napari_mosaik.io.slide.formats.tiff import TiffSource

__all__ = ["REGION", "Peer", "Regions", "compare_regions", "decode_all_s"]

REGION = 1600
"""Edge of a region, pixels of the finest level."""
WARMING = 48
"""Regions that are read before the clock starts."""
SMALL_PX = 200_000_000
CACHE_BYTES = (32 << 20, 256 << 20, 1 << 30)
"""Sizes of OpenSlide's cache that are tried; the fastest counts."""


class Place(NamedTuple):
    """A square of the finest level, pixels."""

    row: int
    column: int
    edge: int


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

    def __init__(self, path: Path, cache_bytes: int, forgets: bool = False) -> None:
        self._path, self._cache_bytes, self._forgets = path, cache_bytes, forgets
        self._cache = openslide.OpenSlideCache(cache_bytes)
        self._local = local()
        self._handles: list[openslide.OpenSlide] = []

    def read(self, place: Place) -> NDArray[np.uint8]:
        """RGBA pixels of a square of the finest level."""
        handle = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = openslide.OpenSlide(self._path)
            handle.set_cache(self._cache)
            self._handles.append(handle)
        if self._forgets:
            handle.set_cache(openslide.OpenSlideCache(self._cache_bytes))
        return np.asarray(
            handle.read_region((place.column, place.row), 0, (place.edge, place.edge))
        )

    def close(self) -> None:
        """Close all handles."""
        for handle in self._handles:
            handle.close()


def compare_regions(
    path: Path, n_regions: int, threads: int, repeats: int, seed: int = 0
) -> Regions:
    """Read random regions in turns: *n_regions* by one side, the same by the other, new ones.

    Both sides first read other regions, so that their caches hold what they hold in the midst of
    work.  Where the slide is so small that caches would hold all of it, both are emptied before
    every region.  The ratio is the median of those of the turns.
    """
    with open_slide(path) as slide:
        draw = _Places(slide.lattice.shape, np.random.default_rng(seed))
        difference = max(_difference(path, slide, place) for place in draw(n_regions))
        ours = _Ours(slide, math.prod(slide.lattice.shape) < SMALL_PX)
        cache = _best_cache(path, draw(WARMING), threads, ours.small)
        peer = Peer(path, cache, ours.small)
        with ThreadPoolExecutor(threads) as pool:
            warming = draw(WARMING)
            ours.seconds(warming), _peer_s(pool, peer, warming)
            turns = [draw(n_regions) for _ in range(repeats)]
            seconds = [(ours.seconds(turn), _peer_s(pool, peer, turn)) for turn in turns]
        peer.close()
    mpx = n_regions * draw.area / 1e6
    return Regions(
        mpx / statistics.median(ours for ours, _ in seconds),
        mpx / statistics.median(theirs for _, theirs in seconds),
        statistics.median(theirs / ours for ours, theirs in seconds),
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

    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        list(pool.map(decode, range(rows)))
        seconds = time.perf_counter() - began
    source.close()
    return seconds


class _Places:
    """Random squares that lie within the slide; smaller ones where the slide is small."""

    def __init__(self, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        self.edge = min(REGION, *shape)
        self.area = self.edge**2
        self._room, self._rng = [n - self.edge + 1 for n in shape], rng

    def __call__(self, n: int) -> list[Place]:
        corners = self._rng.integers(0, self._room, (n, 2))
        return [Place(int(row), int(column), self.edge) for row, column in corners]


class _Ours:
    """This program: one caller; the slide's own threads decode."""

    def __init__(self, slide: Slide, small: bool) -> None:
        self._slide, self.small = slide, small

    def seconds(self, places: list[Place]) -> float:
        """For reading all places; opening a file is not counted."""
        if not self.small:
            return sum(_read_s(self._slide, place) for place in places)
        total = 0.0
        for place in places:
            with open_slide(self._slide.path) as fresh:
                total += _read_s(fresh, place)
        return total


def _pixels(slide: Slide, place: Place) -> NDArray[np.uint8]:
    rows, columns = (slice(a, a + place.edge) for a in (place.row, place.column))
    pixels: NDArray[np.uint8] = slide.read_lattice(slide.lattice.crop(rows, columns)).values
    return pixels


def _read_s(slide: Slide, place: Place) -> float:
    began = time.perf_counter()
    _pixels(slide, place)
    return time.perf_counter() - began


def _peer_s(pool: ThreadPoolExecutor, peer: Peer, places: list[Place]) -> float:
    began = time.perf_counter()
    for _ in pool.map(lambda place: peer.read(place) is None, places):
        pass
    return time.perf_counter() - began


def _best_cache(path: Path, places: list[Place], threads: int, forgets: bool) -> int:
    def seconds(cache: int) -> float:
        peer = Peer(path, cache, forgets)
        with ThreadPoolExecutor(threads) as pool:
            found = _peer_s(pool, peer, places)
        peer.close()
        return found

    return min(CACHE_BYTES, key=seconds)


def _difference(path: Path, slide: Slide, place: Place) -> int:
    """Largest difference between a region by OpenSlide and by this program."""
    peer = Peer(path, CACHE_BYTES[0])
    theirs = peer.read(place)[..., :3].astype(np.int16)
    peer.close()
    return int(np.abs(_pixels(slide, place).astype(np.int16) - theirs).max())
