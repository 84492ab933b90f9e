"""TIFF slides read directly: Aperio SVS, OME-TIFF and generic pyramids, tile by native tile."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_mosaik.core import InputError
from napari_mosaik.io.slide.formats.registry import OpenedFormat, SlideCandidate, SlideFormat
from napari_mosaik.io.slide.formats.tiff_checks import check_directories
from napari_mosaik.io.slide.formats.tiff_tiles import Plane, SharedFile, check_tile, planes_of
from napari_mosaik.io.slide.read.colours import colour_of
from napari_mosaik.io.slide.types.damage import first_line
from napari_mosaik.io.slide.types.pixel_size import aperio_facts, ome_spacing_um, tag_spacing_um
from napari_mosaik.io.slide.types.tiles import Pixels, StoredLevel

__all__ = ["FORMAT", "TiffSource", "is_tiff", "uses_ycbc_jpeg2000"]

_SAMPLED_TILES = 48
_APERIO_YCBC = 33003
_KEPT_OUT = {"label", "macro", "thumbnail", "overview", "map"}


@dataclass(frozen=True, slots=True)
class _TiffLevel:
    stored: StoredLevel
    columns: int
    planes: tuple[Plane, ...]
    to_rgb: Callable[[NDArray[Any]], Pixels]
    record: tuple[Any, ...]


class TiffSource:
    """The main image of a TIFF file and its pyramid; label and macro images are never opened.

    Parameters
    ----------
    path
        The file.
    whole
        Refuse a truncated file; otherwise its missing tiles fail one by one.
    """

    reader = "tiff"

    def __init__(self, path: Path, *, whole: bool = True) -> None:
        self.path = path
        check_directories(path, whole=whole)
        with _quiet(), _opened(path) as tiff:
            series, index = _main_series(path, tiff)
            size = path.stat().st_size
            self._levels = tuple(
                _level(path, part, size, whole=whole) for part in _pyramid(tiff, series)
            )
            self.header_spacing_um, self.properties = _facts(tiff, series, index)
        self.levels = tuple(level.stored for level in self._levels)
        self._size = size
        self._file = SharedFile(path)

    def tile(self, level: int, row: int, column: int) -> Pixels | None:
        """One tile or strip, shape (rows, columns, 3), uint8; None where nothing is stored."""
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
                    samples.update(self._file.sample(int(plane.offsets[i]), count))
        return {
            "bytes": self._size,
            "structure": structure.hexdigest(),
            "samples": samples.hexdigest(),
        }

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def uses_ycbc_jpeg2000(path: Path) -> bool:
    """Whether the main image is Aperio JPEG 2000 in YCbCr, which OpenSlide decodes correctly."""
    check_directories(path)
    with _quiet(), suppress(Exception), tifffile.TiffFile(path) as tiff:
        return int(tiff.pages.first.compression) == _APERIO_YCBC
    return False


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the log of tifffile: what matters is raised as an `InputError`."""
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
            f"({first_line(error)})"
        ) from error


def _main_series(path: Path, tiff: tifffile.TiffFile) -> tuple[Any, int]:
    """The largest image that is not a label, macro or thumbnail, with its number."""
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
    """The main image and all its coarser copies, whatever the factors between them."""
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


def _level(path: Path, series: Any, size: int, *, whole: bool) -> _TiffLevel:
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
    check_tile(path, shape, tile, int(page.samplesperpixel))
    planes = planes_of(path, pages, shape, tile, size, whole=whole)
    columns = math.ceil(shape[1] / tile[1])
    samples = sum(int(p.samplesperpixel) for p in pages)
    record = (shape, tile, int(page.compression), int(page.photometric), samples)
    return _TiffLevel(
        StoredLevel(shape, tile), columns, planes, colour_of(path, page, samples), record
    )


def _facts(
    tiff: tifffile.TiffFile, series: Any, index: int
) -> tuple[tuple[float, float] | None, dict[str, str]]:
    """Pixel size and non-identifying properties; names, dates and paths are not kept."""
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


def is_tiff(start: bytes) -> bool:
    """Whether a file with these first bytes is a TIFF or BigTIFF."""
    return start[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


def _open(candidate: SlideCandidate) -> OpenedFormat | None:
    if not is_tiff(candidate.start):
        return None
    source = TiffSource(candidate.path, whole=candidate.whole)
    known = source.properties["vendor"]
    kind = "a generic TIFF" if known == "TIFF" else f"an {known} file"
    return source, f"it is {kind}; its tiles are decoded directly"


FORMAT = SlideFormat(
    "TIFF (SVS, OME-TIFF)",
    _open,
    suffixes=(".svs", ".tif", ".tiff", ".btf", ".ome.tif", ".ome.tiff", ".ome.btf"),
    slides_only=(".svs",),
    order=30,
)
