"""A first look at the directories of a TIFF file: no loops, no absurd counts, nothing read twice.

Libraries follow the offsets of a file wherever they lead; a damaged file could keep them busy for
ever.  This walk reads a few bytes per directory and raises one clear error instead.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import tifffile

from napari_mosaik.core import InputError

__all__ = ["check_directories", "is_tiff", "quiet_tifffile", "uses_ycbc_jpeg2000"]

_MAX_DIRECTORIES = 50_000
_MAX_ENTRIES = 4096
_MAX_VALUE_BYTES = 512 << 20
_MAX_DEPTH = 8
_MAX_EDGE_PX = 1 << 22
_MAX_TILE_PX = 1 << 26
"""OpenSlide allocates what the header states, and aborts the whole process if that fails."""
_COLUMNS, _ROWS, _TILE_COLUMNS, _TILE_ROWS, _SUB_DIRECTORIES = 256, 257, 322, 323, 330
_LAYOUT = {_COLUMNS, _ROWS, 258, 259, 273, 277, 278, 279}
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
          16: 8, 17: 8, 18: 8}  # fmt: skip

_UNSIGNED = {3: "H", 4: "I", 16: "Q"}
_APERIO_YCBC = 33003


@dataclass(frozen=True, slots=True)
class _Layout:
    """How numbers are stored in this file: byte order, and 32 or 64 bit offsets."""

    order: str
    big: bool
    wide_next: bool = False
    """Hamamatsu: 64 bit offsets to directories in a file of 32 bit ones."""

    @property
    def word(self) -> str:
        return self.order + ("Q" if self.big else "I")

    @property
    def link(self) -> str:
        """Form of the offset of the next directory."""
        return self.order + ("Q" if self.big or self.wide_next else "I")

    @property
    def word_bytes(self) -> int:
        return 8 if self.big else 4

    @property
    def entry_bytes(self) -> int:
        return 20 if self.big else 12


def is_tiff(start: bytes) -> bool:
    """Whether a file with these first bytes is a TIFF or BigTIFF."""
    return start[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


def uses_ycbc_jpeg2000(path: Path) -> bool:
    """Whether the main image is Aperio JPEG 2000 in YCbCr, which OpenSlide decodes correctly."""
    check_directories(path)
    with quiet_tifffile(), suppress(Exception), tifffile.TiffFile(path) as tiff:
        return int(tiff.pages.first.compression) == _APERIO_YCBC
    return False


@contextmanager
def quiet_tifffile() -> Iterator[None]:
    """Suppress the log of tifffile: what matters is raised as an `InputError`."""
    logger = logging.getLogger("tifffile")

    def silent(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(silent)
    try:
        yield
    finally:
        logger.removeFilter(silent)


def check_directories(
    path: Path, *, whole: bool = True, hamamatsu: bool = False
) -> tuple[int, int]:
    """Most rows and most columns that a picture of a TIFF file is said to have.

    Raises `InputError` if its directories loop, or claim what cannot be.

    Where the file need not be *whole*, the chain of pictures may end at the end of the file.
    *hamamatsu* says that the file has that scanner's own layout of offsets.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        walk = _Walk(path, file, size, hamamatsu)
        walk.run(whole)
        return walk.largest


class _Walk:
    def __init__(self, path: Path, file: BinaryIO, size: int, hamamatsu: bool) -> None:
        self._path, self._file, self._size = path, file, size
        start = self._read(0, 16 if size >= 16 else 8)
        order = "<" if start[:2] == b"II" else ">"
        big = struct.unpack_from(order + "H", start, 2)[0] == 43
        self._layout = _Layout(order, big, hamamatsu and not big)
        place = 8 if big else 4
        if len(start) < place + struct.calcsize(self._layout.link):
            raise self._damaged("it ends inside its header")
        (self._first,) = struct.unpack_from(self._layout.link, start, place)
        self._done: set[int] = set()
        self.largest = (0, 0)

    def run(self, whole: bool) -> None:
        """Follow the chain of pictures, and into the sub-directories of each of them."""
        offset = self._first
        chain: set[int] = set()
        while offset and (whole or not chain or offset < self._size):
            if offset in chain:
                raise self._damaged("its directories form a loop")
            chain.add(offset)
            self._count()
            entries, following = self._directory(offset)
            self._below(entries, (offset,))
            self._done.add(offset)
            offset = following

    def _below(self, entries: bytes, above: tuple[int, ...]) -> None:
        """Visit the sub-directories of one directory; *above* are those that led here."""
        for offset in self._sub_offsets(entries):
            if offset in above or len(above) > _MAX_DEPTH:
                raise self._damaged("its directories form a loop")
            if offset and offset not in self._done:
                self._count()
                self._below(self._directory(offset)[0], (*above, offset))
                self._done.add(offset)

    def _count(self) -> None:
        if len(self._done) >= _MAX_DIRECTORIES:
            raise self._damaged(f"it lists more than {_MAX_DIRECTORIES} images")

    def _directory(self, offset: int) -> tuple[bytes, int]:
        """The entries of a directory as stored, and where the next directory is (0: none)."""
        form = self._layout.order + ("Q" if self._layout.big else "H")
        head = struct.calcsize(form)
        (n,) = struct.unpack(form, self._read(offset, head))
        if not 1 <= n <= _MAX_ENTRIES:
            raise self._damaged(f"a directory states {n} entries")
        length = n * self._layout.entry_bytes
        content = self._read(offset + head, length + struct.calcsize(self._layout.link))
        (following,) = struct.unpack_from(self._layout.link, content, length)
        self._check_entries(content[:length])
        return content[:length], following

    def _check_entries(self, entries: bytes) -> None:
        """No entry holds more than the file, no picture or tile is larger than any slide's."""
        edges = {_ROWS: 1, _COLUMNS: 1, _TILE_ROWS: 1, _TILE_COLUMNS: 1}
        for code, kind, count, inline in self._entries(entries):
            length = _BYTES.get(kind, 1) * count
            if length > min(self._size, _MAX_VALUE_BYTES) and kind in _BYTES:
                raise self._damaged(f"entry {code} states {length} bytes")
            if self._layout.wide_next and code in _LAYOUT and kind not in (3, 4):
                raise self._damaged(f"entry {code} states the type {kind}")
            if code in edges and kind in _UNSIGNED and length <= len(inline):
                (edges[code],) = struct.unpack_from(self._layout.order + _UNSIGNED[kind], inline)
        rows, columns = edges[_ROWS], edges[_COLUMNS]
        if max(rows, columns) > _MAX_EDGE_PX:
            raise self._damaged(f"an image states {rows} x {columns} pixels")
        self.largest = (max(rows, self.largest[0]), max(columns, self.largest[1]))
        rows, columns = edges[_TILE_ROWS], edges[_TILE_COLUMNS]
        if rows * columns > _MAX_TILE_PX:
            raise self._damaged(f"its tiles state {rows} x {columns} pixels")

    def _sub_offsets(self, entries: bytes) -> Iterator[int]:
        for code, kind, count, inline in self._entries(entries):
            if code == _SUB_DIRECTORIES and kind in (4, 13, 16, 18):
                yield from self._numbers(kind, count, inline)

    def _entries(self, entries: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Code, type, count and the bytes of the value (or of its offset) of each entry."""
        step, width = self._layout.entry_bytes, self._layout.word_bytes
        form = self._layout.order + ("HHQ" if self._layout.big else "HHI")
        for at in range(0, len(entries), step):
            code, kind, count = struct.unpack_from(form, entries, at)
            yield code, kind, count, entries[at + step - width : at + step]

    def _numbers(self, kind: int, count: int, inline: bytes) -> tuple[int, ...]:
        length = _BYTES[kind] * count
        if count > _MAX_ENTRIES:
            raise self._damaged(f"an image states {count} resolutions")
        if length > len(inline):
            (offset,) = struct.unpack(self._layout.word, inline)
            inline = self._read(offset, length)
        form = {4: "I", 8: "Q"}[_BYTES[kind]]
        return struct.unpack(f"{self._layout.order}{count}{form}", inline[:length])

    def _read(self, offset: int, count: int) -> bytes:
        if offset + count > self._size:
            raise self._damaged(f"a directory lies beyond its end, at byte {offset}")
        self._file.seek(offset)
        data = self._file.read(count)
        if len(data) != count:
            raise self._damaged("it was truncated while it was read")
        return data

    def _damaged(self, why: str) -> InputError:
        return InputError(
            f"{self._path.name} cannot be read as a TIFF slide: its header is damaged or cut off "
            f"({why}); copy the file again"
        )
