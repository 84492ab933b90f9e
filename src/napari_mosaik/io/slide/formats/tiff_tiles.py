"""The tiles or strips of a TIFF page: the position of their bytes, and safe decoding."""

from __future__ import annotations

import math
import os
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import InputError
from napari_mosaik.io.slide.types.damage import disk_fault, first_line

__all__ = ["Plane", "SharedFile", "check_tile", "planes_of"]

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


class SharedFile:
    """Reading at a position, from several threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = open(path, "rb", buffering=0)  # noqa: SIM115 - closed in close()
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
class Plane:
    """The segments of one page (or of one sample plane of a page)."""

    decode: Callable[..., Any]
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    first: int
    tables: bytes | None
    compression: int
    tile: _Size
    tile_bytes: int

    def segment(self, file: SharedFile, index: int) -> NDArray[Any] | None:
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


def check_tile(path: Path, shape: _Size, tile: _Size, samples: int) -> None:
    """Raise `InputError` for a size of the image or of its tiles that cannot be."""
    if min(*shape, *tile) < 1 or tile[0] * tile[1] * samples > _MAX_SEGMENT_BYTES:
        raise InputError(
            f"{path.name}: the header states an image of {shape[0]} x {shape[1]} pixels in "
            f"pieces of {tile[0]} x {tile[1]}; such pieces are implausible or too large (up to "
            f"{_MAX_SEGMENT_BYTES >> 20} MiB each): save the image in tiles of 256 or 512 pixels"
        )


def planes_of(
    path: Path, pages: list[Any], shape: _Size, tile: _Size, size: int, *, whole: bool
) -> tuple[Plane, ...]:
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
            Plane(page.decode, offsets, counts, i * grid, tables, compression, tile, tile_bytes)
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
