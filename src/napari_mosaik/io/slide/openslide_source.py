"""Slides that OpenSlide knows (Hamamatsu, Leica, MIRAX, Ventana, Philips, DICOM and others)."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openslide

from napari_mosaik.core import InputError
from napari_mosaik.io.slide.base import Pixels, StoredLevel
from napari_mosaik.io.slide.colours import over_white

__all__ = ["OpenSlideSource", "detected_vendor"]

_TILE = 1024
_SAMPLES = 16


def detected_vendor(path: Path) -> str | None:
    """OpenSlide's name of the file's format, None if it does not know it."""
    try:
        vendor = openslide.OpenSlide.detect_format(path)
    except openslide.OpenSlideError:
        return None
    return None if vendor is None else str(vendor)


class OpenSlideSource:
    """A slide read through OpenSlide, with one handle per thread."""

    reader = "openslide"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._handles: list[openslide.OpenSlide] = []
        self._lock = threading.Lock()
        handle = self._handle()
        self.levels = tuple(
            StoredLevel((height, width), (_TILE, _TILE))
            for width, height in handle.level_dimensions
        )
        self._downsamples = tuple(handle.level_downsamples)
        properties = handle.properties
        self.header_spacing_um = _spacing(properties)
        self.properties = {"vendor": str(properties.get(openslide.PROPERTY_NAME_VENDOR, ""))}
        if openslide.PROPERTY_NAME_OBJECTIVE_POWER in properties:
            power = str(properties[openslide.PROPERTY_NAME_OBJECTIVE_POWER])
            self.properties["objective"] = power

    def tile(self, level: int, row: int, column: int) -> Pixels | None:
        """One square of a level as RGB, composited on white."""
        stored, scale = self.levels[level], self._downsamples[level]
        top, left = row * _TILE, column * _TILE
        size = (min(_TILE, stored.shape[1] - left), min(_TILE, stored.shape[0] - top))
        corner = (round(left * scale), round(top * scale))
        return over_white(np.asarray(self._handle().read_region(corner, level, size)))

    def fingerprint(self) -> Mapping[str, Any]:
        """File size, OpenSlide's quick hash and the pixels of some tiles of the coarsest level."""
        last = len(self.levels) - 1
        height, width = self.levels[last].shape
        samples = hashlib.blake2b(digest_size=16)
        grid = [(i, j) for i in range(-(-height // _TILE)) for j in range(-(-width // _TILE))]
        for i, j in grid[:: max(1, len(grid) // _SAMPLES)]:
            tile = self.tile(last, i, j)
            samples.update(b"" if tile is None else tile.tobytes())
        quick = self._handle().properties.get(openslide.PROPERTY_NAME_QUICKHASH1, "")
        return {
            "bytes": self.path.stat().st_size,
            "structure": str(quick),
            "samples": samples.hexdigest(),
        }

    def close(self) -> None:
        """Close the handles of all threads."""
        with self._lock:
            handles, self._handles = self._handles, []
        for handle in handles:
            handle.close()
        self._local = threading.local()

    def _handle(self) -> openslide.OpenSlide:
        handle = getattr(self._local, "handle", None)
        if handle is None:
            try:
                handle = openslide.OpenSlide(self.path)
            except openslide.OpenSlideError as error:
                raise InputError(
                    f"{self.path.name} cannot be read by OpenSlide: {error}"
                ) from error
            self._local.handle = handle
            with self._lock:
                self._handles.append(handle)
        return handle


def _spacing(properties: Mapping[str, str]) -> tuple[float, float] | None:
    """Pixel size (row, column) of the header, µm; never from the magnification."""
    try:
        row = float(properties[openslide.PROPERTY_NAME_MPP_Y])
        column = float(properties[openslide.PROPERTY_NAME_MPP_X])
    except (KeyError, ValueError):
        return None
    return (row, column) if row > 0 and column > 0 else None
