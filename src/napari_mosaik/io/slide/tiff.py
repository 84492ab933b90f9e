"""TIFF slides read directly: Aperio SVS, OME-TIFF and generic pyramids, tile by native tile."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_mosaik.core import InputError
from napari_mosaik.io.slide.base import Pixels, StoredLevel
from napari_mosaik.io.slide.colours import colour_of
from napari_mosaik.io.slide.header import aperio_facts, ome_spacing_um, tag_spacing_um

__all__ = ["TiffSource", "uses_ycbc_jpeg2000"]

_MAX_SEGMENT_BYTES = 2 << 30
"""A single strip or tile that would decode to more than this is refused."""
_SAMPLED_TILES = 48
_APERIO_YCBC = 33003
_KEPT_OUT = {"label", "macro", "thumbnail", "overview", "map"}


class _File:
    """Reading at a position, from several threads at once."""

    def __init__(self, path: Path) -> None:
        self._handle = open(path, "rb", buffering=0)  # noqa: SIM115 - closed in close()
        self._lock = threading.Lock()

    def read(self, offset: int, count: int) -> bytes:
        if hasattr(os, "pread"):
            data = os.pread(self._handle.fileno(), count, offset)
        else:
            with self._lock:
                self._handle.seek(offset)
                data = self._handle.read(count)
        if len(data) != count:
            raise ValueError(f"the file ends {count - len(data)} bytes too early")
        return data

    def close(self) -> None:
        self._handle.close()


@dataclass(frozen=True, slots=True, eq=False)
class _Plane:
    """The segments of one page (or of one sample plane of a page)."""

    decode: Callable[..., Any]
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    first: int
    tables: bytes | None

    def segment(self, file: _File, index: int) -> NDArray[Any] | None:
        """Decoded (rows, columns, samples) of one segment; None if it is not stored."""
        index += self.first
        count = int(self.counts[index])
        if count == 0 or int(self.offsets[index]) == 0:
            return None
        data = file.read(int(self.offsets[index]), count)
        extra = {} if self.tables is None else {"jpegtables": self.tables}
        segment, _, shape = self.decode(data, index, **extra)
        return None if segment is None else segment[0, : shape[1], : shape[2]]


@dataclass(frozen=True, slots=True)
class _TiffLevel:
    stored: StoredLevel
    columns: int
    planes: tuple[_Plane, ...]
    to_rgb: Callable[[NDArray[Any]], Pixels]
    record: tuple[Any, ...]


class TiffSource:
    """The main image of a TIFF file and its pyramid; label and macro pictures are never opened."""

    reader = "tiff"

    def __init__(self, path: Path) -> None:
        self.path = path
        with _quiet(), _opened(path) as tiff:
            series, index = _main_series(path, tiff)
            size = path.stat().st_size
            self._levels = tuple(_level(path, part, size) for part in _pyramid(tiff, series))
            self.header_spacing_um, self.properties = _facts(tiff, series, index)
        self.levels = tuple(level.stored for level in self._levels)
        self._size = size
        self._file = _File(path)

    def tile(self, level: int, row: int, column: int) -> Pixels | None:
        """One tile or strip as RGB; None where the file stores nothing."""
        stored = self._levels[level]
        index = row * stored.columns + column
        parts = [plane.segment(self._file, index) for plane in stored.planes]
        filled = [part for part in parts if part is not None]
        if len(filled) < len(parts):
            return None
        return stored.to_rgb(filled[0] if len(filled) == 1 else np.concatenate(filled, axis=2))

    def fingerprint(self) -> Mapping[str, Any]:
        """File size, table of all segments, and the bytes of some of them."""
        structure, samples = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
        for level in self._levels:
            structure.update(repr(level.record).encode())
            for plane in level.planes:
                structure.update(plane.offsets.tobytes() + plane.counts.tobytes())
        for level in self._levels:
            for plane in level.planes:
                n = len(plane.counts)
                for i in sorted({int(i) for i in np.linspace(0, n - 1, _SAMPLED_TILES)}):
                    count = min(int(plane.counts[i]), 1 << 20)
                    samples.update(self._file.read(int(plane.offsets[i]), count))
        return {
            "bytes": self._size,
            "structure": structure.hexdigest(),
            "samples": samples.hexdigest(),
        }

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def uses_ycbc_jpeg2000(path: Path) -> bool:
    """Whether the main image is Aperio JPEG 2000 in YCbCr, which only OpenSlide decodes rightly."""
    with _quiet(), suppress(Exception), tifffile.TiffFile(path) as tiff:
        return int(tiff.pages.first.compression) == _APERIO_YCBC
    return False


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep tifffile's own log lines away: what matters is raised as an error of ours."""
    logger = logging.getLogger("tifffile")

    def silent(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(silent)
    try:
        yield
    finally:
        logger.removeFilter(silent)


@contextmanager
def _opened(path: Path) -> Iterator[tifffile.TiffFile]:
    try:
        with tifffile.TiffFile(path) as tiff:
            yield tiff
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path.name} cannot be read as a TIFF slide: its header is damaged or cut off "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from error


def _main_series(path: Path, tiff: tifffile.TiffFile) -> tuple[Any, int]:
    """The largest picture that is not a label, macro or thumbnail, with its number."""
    found = [
        (int(np.prod(series.shape)), -number, series)
        for number, series in enumerate(tiff.series)
        if not any(word in str(series.name).lower() for word in _KEPT_OUT)
    ]
    if not found:
        raise InputError(f"{path.name} holds no slide image; the file may be damaged")
    _, number, series = max(found, key=lambda item: item[:2])
    return series, -number


def _pyramid(tiff: tifffile.TiffFile, main: Any) -> list[Any]:
    """The main picture and all its coarser copies, whatever the factors between them."""
    levels = list(main.levels)
    for other in () if tiff.is_svs or tiff.is_ome else tiff.series:
        page = other.keyframe
        marked = page.is_reduced or page.is_subifd
        if other is not main and marked and _is_copy(main.keyframe, page):
            levels.append(other)
    return sorted(levels, key=lambda level: -int(level.keyframe.imagewidth))


def _is_copy(main: Any, page: Any) -> bool:
    """Whether a page can be the same picture at a lower resolution."""
    if page.imagewidth >= main.imagewidth or page.samplesperpixel != main.samplesperpixel:
        return False
    ratio = main.imagewidth / page.imagewidth
    return bool(abs(main.imagelength / ratio - page.imagelength) <= 1.0 + main.imagelength / 2e4)


def _level(path: Path, series: Any, size: int) -> _TiffLevel:
    """Everything needed to decode the segments of one resolution."""
    pages = [page.aspage() for page in series.pages if page is not None]
    page = pages[0]
    shape = (int(page.imagelength), int(page.imagewidth))
    if page.dtype != np.uint8 or page.imagedepth != 1 or page.tiledepth > 1:
        raise InputError(
            f"{path.name} holds {page.bitspersample}-bit {page.dtype} pixels; a slide must be "
            "8-bit colour (export it as 8-bit RGB)"
        )
    tile = (
        (int(page.tilelength), int(page.tilewidth))
        if page.is_tiled
        else (min(int(page.rowsperstrip), shape[0]), shape[1])
    )
    if min(*shape, *tile) < 1 or tile[0] * tile[1] * page.samplesperpixel > _MAX_SEGMENT_BYTES:
        raise InputError(
            f"{path.name}: the header states an image of {shape[0]} x {shape[1]} pixels in "
            f"pieces of {tile[0]} x {tile[1]}, which cannot be right"
        )
    planes = _planes(path, pages, shape, tile, size)
    columns = math.ceil(shape[1] / tile[1])
    samples = sum(int(p.samplesperpixel) for p in pages)
    record = (shape, tile, int(page.compression), int(page.photometric), samples)
    return _TiffLevel(
        StoredLevel(shape, tile), columns, planes, colour_of(path, page, samples), record
    )


def _planes(
    path: Path, pages: list[Any], shape: tuple[int, int], tile: tuple[int, int], size: int
) -> tuple[_Plane, ...]:
    """One plane for interleaved samples, else one per sample; segment tables are checked."""
    grid = math.ceil(shape[0] / tile[0]) * math.ceil(shape[1] / tile[1])
    planes = []
    for page in pages:
        separate = int(page.planarconfig) == 2
        offsets = np.asarray(page.dataoffsets, np.int64)
        counts = np.asarray(page.databytecounts, np.int64)
        parts = int(page.samplesperpixel) if separate else 1
        if min(len(offsets), len(counts)) < grid * parts:
            raise InputError(
                f"{path.name}: the header lists {len(offsets)} pieces of the image instead of "
                f"{grid * parts}; the file is damaged"
            )
        beyond = int((offsets + counts > size).sum())
        if beyond or (offsets < 0).any() or (counts < 0).any():
            raise InputError(
                f"{path.name} is cut off: {beyond} of {len(offsets)} pieces of the image lie "
                "beyond the end of the file; copy it again"
            )
        tables = page.jpegtables
        planes += [
            _Plane(page.decode, offsets, counts, part * grid, tables) for part in range(parts)
        ]
    return tuple(planes)


def _facts(
    tiff: tifffile.TiffFile, series: Any, index: int
) -> tuple[tuple[float, float] | None, dict[str, str]]:
    """Pixel size and harmless properties; names, dates and paths of the header are not kept."""
    page = series.levels[0].pages[0].aspage()
    facts = {"compression": str(getattr(page.compression, "name", page.compression))}
    spacing: tuple[float, float] | None = None
    if tiff.is_svs:
        spacing, more = aperio_facts(page.description)
        facts |= {"vendor": "Aperio", **more}
    elif tiff.is_ome:
        spacing = ome_spacing_um(tiff.ome_metadata or "", index)
        facts["vendor"] = "OME-TIFF"
    else:
        facts["vendor"] = "TIFF"
    if spacing is None:
        unit = (tiff.imagej_metadata or {}).get("unit") if tiff.is_imagej else None
        spacing = tag_spacing_um(page, unit)
    return spacing, facts
