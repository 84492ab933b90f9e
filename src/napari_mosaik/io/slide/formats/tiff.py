"""TIFF slides read directly: Aperio SVS, OME-TIFF and generic pyramids, tile by native tile."""

from __future__ import annotations

import hashlib
import math
import os
import struct
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_mosaik.core import InputError
from napari_mosaik.core.errors import SeveralPages
from napari_mosaik.io.slide.formats.registry import OpenedFormat, SlideCandidate, SlideFormat
from napari_mosaik.io.slide.formats.tiff_checks import check_directories, is_tiff, quiet_tifffile
from napari_mosaik.io.slide.read.colours import GREY, colour_of
from napari_mosaik.io.slide.types.damage import disk_fault, first_line
from napari_mosaik.io.slide.types.pixel_size import (
    aperio_facts,
    ome_spacing_um,
    tag_spacing_um,
    two_sizes_doubt,
)
from napari_mosaik.io.slide.types.tiles import Pixels, StoredLevel

__all__ = ["FORMAT", "TiffSource"]

_MAX_SEGMENT_BYTES = 640 << 20
"""A strip or tile that would decode to more than this is refused."""
_ROOM_BYTES = 1 << 16
"""Stored bytes that a piece may have beyond four times its decoded size."""
_MAX_COMPRESSION = {1: 1, 5: 2000, 8: 1100, 32773: 64, 32946: 1100}
"""Largest possible ratio of pixels to stored bytes by TIFF compression, where there is one."""
_JPEG = {6, 7, 33007, 34892}
_JPEG_2000 = {33003, 33004, 33005, 34712}
_WEBP = {34927, 50001}
_PNG = {34933}
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_SLACK = 64
"""Encoders may round a tile's edges up to whole blocks."""
_Size = tuple[int, int]
"""Rows and columns."""
_SAMPLED_TILES = 48
_SECOND_PICTURE = 0.2
"""A picture of at least this fraction of the largest one's pixels is another section or area."""
_KEPT_OUT = {"label", "macro", "thumbnail", "overview", "map"}


@dataclass(frozen=True, slots=True)
class _TiffLevel:
    stored: StoredLevel
    columns: int
    planes: tuple[_Plane, ...]
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
    page
        Which page is the slide, counted from 1, where the file holds a stack or a document.
    """

    reader = "tiff"

    def __init__(self, path: Path, *, whole: bool = True, page: int | None = None) -> None:
        self.path = path
        check_directories(path, whole=whole)
        with quiet_tifffile(), _opened(path) as tiff:
            size = path.stat().st_size
            series = _main_series(path, tiff) if page is None else None
            levels = _pyramid(tiff, series) if series else [_chosen_page(path, tiff, page or 1)]
            self._levels = tuple(_level(path, part, size, whole=whole) for part in levels)
            self.header_spacing_um, self.properties = _facts(path, tiff, levels[0])
        self.levels = tuple(level.stored for level in self._levels)
        self._size = size
        self._file = _SharedFile(path)

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


@contextmanager
def _opened(path: Path) -> Iterator[tifffile.TiffFile]:
    try:
        # Without the other files of an OME set: their tables do not belong to this file's bytes.
        with tifffile.TiffFile(path, _multifile=False) as tiff:
            yield tiff
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path.name} cannot be read as a TIFF slide: its header is damaged or cut off "
            f"({first_line(error)})"
        ) from error


def _main_series(path: Path, tiff: tifffile.TiffFile) -> Any:
    """The largest image that is not a label, macro or thumbnail."""
    found = [
        (int(np.prod(series.shape)), -number, series)
        for number, series in enumerate(tiff.series)
        if not any(word in str(series.name).lower() for word in _KEPT_OUT)
    ]
    if not found:
        raise InputError(f"{path.name} holds no slide image; the file may be damaged")
    main = max(found, key=lambda item: item[:2])[2]
    _check_one_picture(path, tiff, main, [series for _, _, series in found])
    return main


def _check_one_picture(path: Path, tiff: tifffile.TiffFile, main: Any, found: list[Any]) -> None:
    """Refuse a file with a second picture of similar size: several sections or areas of a scan."""
    frame = main.keyframe
    others = [frame]
    for series in found:
        page = series.keyframe
        least = _SECOND_PICTURE * int(frame.imagewidth) * int(frame.imagelength)
        copy = page.is_reduced or page.is_subifd or _is_copy(frame, page)
        if series is not main and not copy and page.imagewidth * page.imagelength >= least:
            others.append(page)
    if len(others) > 1:
        listed = ", ".join(
            f"{int(page.index) + 1} ({page.imagelength} x {page.imagewidth} pixels)"
            for page in sorted(others, key=lambda page: int(page.index))
        )
        raise SeveralPages(
            f"{path.name} holds {len(others)} pictures, and a slide is one: give page: {listed}",
            len(tiff.pages),
        )


@dataclass(frozen=True, slots=True)
class _OnePage:
    """One page of a file, in the form of the levels of tifffile."""

    pages: tuple[Any]
    axes: str = ""


def _chosen_page(path: Path, tiff: tifffile.TiffFile, page: int) -> _OnePage:
    if not 1 <= page <= len(tiff.pages):
        raise InputError(f"{path.name} has no page {page}; it has {len(tiff.pages)}, from 1")
    return _OnePage((tiff.pages[page - 1],))


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
    if len(pages) > 1 and (int(page.samplesperpixel) > 1 or set(series.axes) & set("ZT")):
        raise SeveralPages(
            f"{path.name} holds {len(pages)} pages of {shape[0]} x {shape[1]} pixels (a stack, a "
            f"series or a document); a slide is one picture: give page (1 to {len(pages)}), or "
            "save that page as a file of its own",
            len(pages),
        )
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
    _check_tile(path, shape, tile, int(page.samplesperpixel))
    planes = _planes_of(path, pages, shape, tile, size, whole=whole)
    columns = math.ceil(shape[1] / tile[1])
    samples = sum(int(p.samplesperpixel) for p in pages)
    record = (shape, tile, int(page.compression), int(page.photometric), samples)
    return _TiffLevel(
        StoredLevel(shape, tile), columns, planes, colour_of(path, page, samples), record
    )


def _facts(
    path: Path, tiff: tifffile.TiffFile, level: Any
) -> tuple[tuple[float, float] | None, dict[str, str]]:
    """Pixel size and non-identifying properties; names, dates and paths are not kept."""
    page = level.pages[0].aspage()
    facts = {"compression": str(getattr(page.compression, "name", page.compression))}
    spacing: tuple[float, float] | None = None
    if tiff.is_svs:
        shape = (int(page.imagelength), int(page.imagewidth))
        spacing, more = aperio_facts(page.description, shape)
        facts |= {"vendor": "Aperio", **more}
    elif tiff.is_ome:
        spacing = ome_spacing_um(tiff.ome_metadata or "", path, int(page.index))
        facts["vendor"] = "OME-TIFF"
    else:
        facts["vendor"] = "TIFF"
    samples = len(level.pages) * int(page.samplesperpixel)
    if int(page.photometric) in (0, 1) and samples == 1:
        facts["warning"] = GREY
    elif int(page.photometric) == 1 and samples == 3:
        facts["warning"] = (
            "its three grey channels are taken as red, green and blue; a fluorescence image is no "
            "slide"
        )
    elif int(page.tags.valueof("Orientation", 1)) != 1:
        facts["warning"] = "the header asks to turn or mirror the picture; it is shown as stored"
    unit = (tiff.imagej_metadata or {}).get("unit") if tiff.is_imagej else None
    tagged = tag_spacing_um(page, unit)
    where = "OME-XML" if tiff.is_ome else "the Aperio description"
    if doubt := two_sizes_doubt(where, spacing, tagged):
        facts["warning"] = "\n".join(filter(None, (facts.get("warning"), doubt)))
    return spacing or tagged, facts


# --- tiles and strips -----------------------------------------------------------------------------
class _SharedFile:
    """Reading at a position, from several threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = open(path, "rb", buffering=0)  # noqa: SIM115 - closed in close()
        # Nobody closes a slide that another process opened again, or that of a case that was left.
        weakref.finalize(self, self._handle.close)
        self._lock = threading.Lock()
        self.size = os.fstat(self._handle.fileno()).st_size

    def read(self, offset: int, count: int) -> bytes:
        """Exactly *count* bytes; ``ValueError`` where the file does not hold them."""
        if count > self.size - offset:
            raise ValueError("it lies beyond the end of the file, which is cut off")
        if hasattr(os, "pread"):
            data = os.pread(self._handle.fileno(), count, offset)
        else:
            with self._lock:
                self._handle.seek(offset)
                data = self._handle.read(count)
        if len(data) != count:
            raise ValueError(f"the file ends {count - len(data)} bytes too early")
        return data

    def sample(self, offset: int, count: int) -> bytes:
        """The bytes at a position as far as the file holds them, for its identity."""
        count = max(0, min(count, self.size - offset))
        try:
            return self.read(offset, count) if count else b""
        except (OSError, ValueError) as error:
            fault = disk_fault(self._path, self.size, error)
            raise InputError(fault or f"{self._path.name}: {first_line(error)}") from error

    def close(self) -> None:
        """Close the file."""
        self._handle.close()


@dataclass(frozen=True, slots=True, eq=False)
class _Plane:
    """The segments of one page (or of one sample plane of a page)."""

    decode: Callable[..., Any]
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    first: int
    tables: bytes | None
    compression: int
    tile: _Size
    tile_bytes: int

    def segment(self, file: _SharedFile, index: int) -> NDArray[Any] | None:
        """Decoded segment, shape (rows, columns, samples), uint8; None if it is not stored."""
        index += self.first
        offset, count = int(self.offsets[index]), int(self.counts[index])
        if count == 0 or offset == 0:
            return None
        if count > 4 * self.tile_bytes + _ROOM_BYTES:
            raise ValueError(f"the header states {count} bytes")
        data = file.read(offset, count)
        _check_size(data, self.compression, self.tile)
        extra = {} if self.tables is None else {"jpegtables": self.tables}
        segment, _, shape = self.decode(data, index, **extra)
        return None if segment is None else segment[0, : shape[1], : shape[2]]


def _check_tile(path: Path, shape: _Size, tile: _Size, samples: int) -> None:
    """Raise `InputError` for a size of the image or of its tiles that cannot be."""
    if min(*shape, *tile) < 1 or tile[0] * tile[1] * samples > _MAX_SEGMENT_BYTES:
        raise InputError(
            f"{path.name}: the header states an image of {shape[0]} x {shape[1]} pixels in "
            f"pieces of {tile[0]} x {tile[1]}; such pieces are implausible or too large (up to "
            f"{_MAX_SEGMENT_BYTES >> 20} MiB each): save the image in tiles of 256 or 512 pixels"
        )


def _planes_of(
    path: Path, pages: list[Any], shape: _Size, tile: _Size, size: int, *, whole: bool
) -> tuple[_Plane, ...]:
    """One plane for interleaved samples, else one per sample; segment tables are checked.

    *size* is that of the file; where the image must be *whole*, nothing may lie beyond it.
    """
    grid = math.ceil(shape[0] / tile[0]) * math.ceil(shape[1] / tile[1])
    planes = []
    for page in pages:
        separate = int(page.planarconfig) == 2
        offsets = np.asarray(page.dataoffsets, np.int64)
        counts = np.asarray(page.databytecounts, np.int64)
        samples = int(page.samplesperpixel)
        parts, tile_bytes = (samples, tile[0] * tile[1]) if separate else (
            1, tile[0] * tile[1] * samples)  # fmt: skip
        if min(len(offsets), len(counts)) < grid * parts:
            raise InputError(
                f"{path.name}: the header lists {len(offsets)} pieces of the image instead of "
                f"{grid * parts}; the file is damaged"
            )
        if (offsets < 0).any() or (counts < 0).any():
            raise InputError(f"{path.name}: the header lists impossible positions; it is damaged")
        compression = int(page.compression)
        if whole:
            _check_reach(path, offsets, counts, size)
        last = shape[0] - (shape[0] - 1) // tile[0] * tile[0]
        fewest = tile_bytes if page.is_tiled else tile_bytes // tile[0] * last
        _check_plausible(path, shape, counts, fewest, compression)
        tables = page.jpegtables
        planes += [
            _Plane(page.decode, offsets, counts, i * grid, tables, compression, tile, tile_bytes)
            for i in range(parts)
        ]
    return tuple(planes)


def _check_reach(
    path: Path, offsets: NDArray[np.int64], counts: NDArray[np.int64], size: int
) -> None:
    beyond = int((counts > size - offsets).sum())
    if beyond:
        raise InputError(
            f"{path.name} is cut off: {beyond} of {len(offsets)} pieces of the image lie beyond "
            "the end of the file; copy it again, or exclude these pieces with --damaged skip"
        )


def _check_plausible(
    path: Path, shape: _Size, counts: NDArray[np.int64], fewest: int, compression: int
) -> None:
    """Not even the longest piece can hold its pixels: the size in the header is wrong."""
    ratio = _MAX_COMPRESSION.get(compression)
    longest = int(counts.max(initial=0))
    if ratio is not None and 0 < longest * ratio < fewest:
        raise InputError(
            f"{path.name}: the header states an image of {shape[0]} x {shape[1]} pixels, but its "
            f"pieces hold {longest} bytes at most; the header is damaged"
        )


# --- the size that compressed data state ---------------------------------------------------------
# A damaged or hostile tile may state a picture of any size, and a decoder would take memory for it:
# the size is read from the data and compared before anything is decoded.
def _check_size(data: bytes, compression: int, tile: _Size) -> None:
    """Raise ``ValueError`` if compressed data state a larger picture than the tile, or none."""
    size = _stated_size(data, compression)
    if size is None:
        return
    if size[0] > tile[0] + _SLACK or size[1] > tile[1] + _SLACK:
        raise ValueError(f"its data state {size[0]} x {size[1]} pixels, not {tile[0]} x {tile[1]}")


def _stated_size(data: bytes, compression: int) -> _Size | None:
    """(rows, columns) that compressed data state; None where the format states none."""
    try:
        if compression in _JPEG:
            return _jpeg(data)
        if compression in _JPEG_2000:
            return _jpeg_2000(data)
        if compression in _WEBP:
            return _webp(data)
        if compression in _PNG:
            columns, rows = struct.unpack_from(">II", data, 16)
            return rows, columns
    except (struct.error, IndexError):
        raise ValueError("its data end inside their header") from None
    return None


def _jpeg(data: bytes) -> _Size:
    """Size of the frame; the data must also reach their end marker."""
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAMES:
            if data.rfind(b"\xff\xd9") < at:
                raise ValueError("its JPEG data have no end")
            rows, columns = struct.unpack_from(">HH", data, at + 5)
            return rows, columns
        if marker == 0xFF:
            at += 1
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ValueError("its JPEG data state no size")


def _jpeg_2000(data: bytes) -> _Size:
    """Size of the image area on the reference grid."""
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0:
        raise ValueError("its JPEG 2000 data state no size")
    columns, rows, left, top = struct.unpack_from(">IIII", data, at + 8)
    if left >= columns or top >= rows:
        raise ValueError("its JPEG 2000 data state no area")
    return rows - top, columns - left


def _webp(data: bytes) -> _Size:
    """Size of a lossy, lossless or extended WebP picture."""
    kind = data[12:16]
    if kind == b"VP8X":
        return (int.from_bytes(data[27:30], "little") + 1,
                int.from_bytes(data[24:27], "little") + 1)  # fmt: skip
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return ((bits >> 14) & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    columns, rows = struct.unpack_from("<HH", data, 26)
    return rows & 0x3FFF, columns & 0x3FFF


# --- the format -----------------------------------------------------------------------------------
def _open(candidate: SlideCandidate) -> OpenedFormat | None:
    if not is_tiff(candidate.start):
        return None
    source = TiffSource(candidate.path, whole=candidate.whole, page=candidate.page)
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
