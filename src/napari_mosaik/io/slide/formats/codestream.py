"""What the compressed data of one tile say about their size, before anything is decoded.

A damaged or hostile tile may state a picture of any size; a decoder would take memory for it.
"""

from __future__ import annotations

import struct

__all__ = ["MOST_TIMES_SMALLER", "check_size", "stated_size"]

Size = tuple[int, int]

MOST_TIMES_SMALLER = {1: 1, 5: 2000, 8: 1100, 32773: 64, 32946: 1100}
"""Largest possible ratio of pixels to stored bytes by TIFF compression, where there is one."""
_JPEG = {6, 7, 33007, 34892}
_JPEG_2000 = {33003, 33004, 33005, 34712}
_WEBP = {34927, 50001}
_PNG = {34933}
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_SLACK = 64
"""Encoders may round a tile's edges up to whole blocks."""


def check_size(data: bytes, compression: int, tile: Size) -> None:
    """Raise ``ValueError`` if compressed data state a larger picture than the tile, or none."""
    size = stated_size(data, compression)
    if size is None:
        return
    if size[0] > tile[0] + _SLACK or size[1] > tile[1] + _SLACK:
        raise ValueError(f"its data state {size[0]} x {size[1]} pixels, not {tile[0]} x {tile[1]}")


def stated_size(data: bytes, compression: int) -> Size | None:
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
        raise ValueError("its data end within their header") from None
    return None


def _jpeg(data: bytes) -> Size:
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


def _jpeg_2000(data: bytes) -> Size:
    """Size of the image area on the reference grid."""
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0:
        raise ValueError("its JPEG 2000 data state no size")
    columns, rows, left, top = struct.unpack_from(">IIII", data, at + 8)
    if left >= columns or top >= rows:
        raise ValueError("its JPEG 2000 data state no area")
    return rows - top, columns - left


def _webp(data: bytes) -> Size:
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
