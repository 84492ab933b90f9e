"""Seeded ways of damaging the bytes of a slide."""

from __future__ import annotations

import contextlib
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["KINDS", "mutate"]

EXTREMES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 60000, 20000)
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
          16: 8, 17: 8, 18: 8}  # fmt: skip
_TAGS = (256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330, 338,
         339, 347, 530)  # fmt: skip


# --- where the header's numbers are --------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class TagPlace:
    """One entry of a TIFF directory: its code, type and count, and where its value is."""

    entry: int
    code: int
    kind: int
    count: int
    value: int
    next_offset: int


def tag_places(data: bytes) -> tuple[str, bool, list[TagPlace]]:
    """Byte order, whether it is BigTIFF, and all entries of all directories that can be reached."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\x00", b"\x00+")
    word = "Q" if big else "I"
    (first,) = struct.unpack_from(order + word, data, 8 if big else 4)
    places: list[TagPlace] = []
    pending, seen = [first], set()
    while pending:
        offset = pending.pop()
        if offset not in seen and 0 < offset < len(data) - 8:
            seen.add(offset)
            with contextlib.suppress(struct.error):  # what lies beyond the end of the file
                pending += _directory(data, offset, order, big, places)
    return order, big, places


def _directory(
    data: bytes, offset: int, order: str, big: bool, places: list[TagPlace]
) -> list[int]:
    """Add the entries of one directory; the directories that it leads to."""
    word, size = ("Q", 8) if big else ("I", 4)
    (n,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
    start, step = offset + (8 if big else 2), 20 if big else 12
    end, found = start + n * step, []
    for entry in range(start, end, step):
        code, kind = struct.unpack_from(order + "HH", data, entry)
        (count,) = struct.unpack_from(order + word, data, entry + 4)
        value = entry + 4 + size
        if _SIZES.get(kind, 1) * count > size:
            (value,) = struct.unpack_from(order + word, data, value)
        places.append(TagPlace(entry, code, kind, count, value, end))
        if code == 330:
            width = _SIZES.get(kind, 4)
            form = order + {4: "I", 8: "Q"}[width]
            found += [struct.unpack_from(form, data, value + i * width)[0] for i in range(count)]
    (following,) = struct.unpack_from(order + word, data, end)
    return [*found, following]


def _is_tiff(data: bytes) -> bool:
    return data[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


# --- ways of damage ------------------------------------------------------------------------------
def truncate(rng: random.Random, data: bytearray) -> None:
    """The file ends early."""
    del data[rng.randrange(len(data)) :]


def flip_bits(rng: random.Random, data: bytearray) -> None:
    """From one to a few hundred bits, anywhere."""
    for _ in range(2 ** rng.randrange(9)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def flip_header_bits(rng: random.Random, data: bytearray) -> None:
    """Some bits of the header and its directories."""
    spots = _header_bytes(data)
    for _ in range(2 ** rng.randrange(5)):
        data[rng.choice(spots)] ^= 1 << rng.randrange(8)


def header_numbers(rng: random.Random, data: bytearray) -> None:
    """Numbers of the header become extremes."""
    spots = _header_bytes(data)
    for _ in range(rng.randrange(1, 4)):
        width = rng.choice((2, 4, 8))
        value = rng.choice((*EXTREMES, len(data), len(data) - 1)) & (256**width - 1)
        at = min(rng.choice(spots), len(data) - width)
        data[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))


def swap_order(rng: random.Random, data: bytearray) -> None:
    """The mark of the byte order is wrong, or a few numbers are stored the wrong way round."""
    if _is_tiff(data) and rng.random() < 0.3:
        data[:2] = b"MM" if data[:2] == b"II" else b"II"
        if rng.random() < 0.5:
            data[2:4] = data[3:1:-1]
        return
    spots = _header_bytes(data)
    for _ in range(rng.randrange(1, 6)):
        width = rng.choice((2, 4))
        at = min(rng.choice(spots), len(data) - width)
        data[at : at + width] = data[at : at + width][::-1]


def zero_block(rng: random.Random, data: bytearray) -> None:
    """A sector of the disk reads as zeros (or as noise)."""
    size = min(rng.choice((64, 512, 4096, 32768)), len(data))
    at = rng.randrange(len(data) - size + 1)
    data[at : at + size] = bytes(size) if rng.random() < 0.6 else rng.randbytes(size)


def shift(rng: random.Random, data: bytearray) -> None:
    """Some bytes are lost, or come twice."""
    size, at = rng.choice((1, 2, 7, 100, 3000)), rng.randrange(len(data))
    if rng.random() < 0.5:
        del data[at : at + size]
    else:
        data[at:at] = data[at : at + size]


def loop_directories(rng: random.Random, data: bytearray) -> None:
    """Directories follow themselves, one another, or lie elsewhere."""
    if not _is_tiff(data):
        return flip_header_bits(rng, data)
    order, big, places = tag_places(data)
    word = order + ("Q" if big else "I")
    starts = sorted({p.next_offset for p in places})
    firsts = [
        min(p.entry for p in places if p.next_offset == s) - (8 if big else 2) for s in starts
    ]
    target = rng.choice((*firsts, *firsts, rng.randrange(len(data)), len(data) + 10))
    spots = [8 if big else 4, *starts]
    for place in places:
        if place.code == 330:
            spots += [place.value + i * (8 if big else 4) for i in range(place.count)] * 2
    at = rng.choice(spots)
    if at + 8 <= len(data):
        struct.pack_into(word, data, at, target)
    return None


def edit_tags(rng: random.Random, data: bytearray) -> None:
    """Entries that matter get another code, type, count or value."""
    if not _is_tiff(data):
        return _edit_picture(rng, data)
    order, big, places = tag_places(data)
    known = [place for place in places if place.code in _TAGS]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        place, what = rng.choice(known), rng.random()
        if what < 0.1:
            struct.pack_into(order + "H", data, place.entry, rng.choice((*_TAGS, 65000)))
        elif what < 0.2:
            struct.pack_into(order + "H", data, place.entry + 2, rng.choice((*_SIZES, 0, 99)))
        elif what < 0.35:
            value = rng.choice((*EXTREMES, place.count + 1, place.count * 2, place.count - 1))
            struct.pack_into(order + ("Q" if big else "I"), data, place.entry + 4, max(0, value))
        else:
            width = _SIZES.get(place.kind, 4)
            at = place.value + width * rng.randrange(min(place.count, 64) or 1)
            _edit_number(rng, data, at, width, order)
    return None


def _edit_number(rng: random.Random, data: bytearray, at: int, width: int, order: str) -> None:
    if at + width > len(data):
        return
    side = "little" if order == "<" else "big"
    old = int.from_bytes(data[at : at + width], side)
    new = rng.choice((*EXTREMES, old + 1, old - 1, old * 2, old // 2, old * 1000, old ^ 7, 6, 7, 8))
    data[at : at + width] = (new & (256**width - 1)).to_bytes(width, side)


def _edit_picture(rng: random.Random, data: bytearray) -> None:
    """The size that a PNG (with a right checksum) or a JPEG states."""
    size = [rng.choice((0, 1, 7, 400, 521, 5000, 20000, 65535, 2**31 - 1)) for _ in (0, 1)]
    if data.startswith(b"\x89PNG"):
        struct.pack_into(">II", data, 16, *size)
        if rng.random() < 0.5:
            data[24:29] = bytes(rng.choice((0, 1, 2, 3, 4, 6, 8, 16)) for _ in range(5))
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
        return
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        at = data.find(marker)
        if at > 0:
            struct.pack_into(">HH", data, at + 5, size[0] & 0xFFFF, size[1] & 0xFFFF)


def bomb(rng: random.Random, data: bytearray) -> None:
    """A small file that states, and unpacks to, a huge picture."""
    edge = rng.choice((9000, 12000, 19900))
    if rng.random() < 0.5:
        data[:] = _png_of_zeros(edge)
        return
    row = zlib.compress(bytes(1 << 20), 9)
    tile = rng.choice((4096, 16384, edge // 16 * 16))
    entries = [(256, 4, tile), (257, 4, tile), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1),
               (322, 4, tile), (323, 4, tile), (324, 4, 8), (325, 4, len(row))]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", code, kind, 1, value) for code, kind, value in entries
    )
    data[:] = struct.pack("<2sHI", b"II", 42, 8 + len(row)) + row + directory + bytes(4)


@lru_cache
def _png_of_zeros(edge: int) -> bytes:
    packer = zlib.compressobj(6)
    line = bytes(1 + 3 * edge)
    body = b"".join(packer.compress(line) for _ in range(edge)) + packer.flush()
    header = struct.pack(">IIBBBBB", edge, edge, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    )


KINDS: dict[str, Callable[[random.Random, bytearray], None]] = {
    "cut off": truncate,
    "bits flipped": flip_bits,
    "header bits flipped": flip_header_bits,
    "header numbers extreme": header_numbers,
    "byte order wrong": swap_order,
    "block zeroed": zero_block,
    "bytes lost or doubled": shift,
    "directories looped": loop_directories,
    "tags edited": edit_tags,
    "unpacks to a huge picture": bomb,
}
_WEIGHTS = (12, 12, 12, 14, 8, 10, 8, 10, 18, 2)


def mutate(data: bytes, seed: int) -> tuple[str, bytes]:
    """Name of the damage and the damaged bytes; equal seeds give equal damage."""
    rng = random.Random(seed)
    kind = rng.choices(list(KINDS), _WEIGHTS)[0]
    damaged = bytearray(data)
    KINDS[kind](rng, damaged)
    return kind, bytes(damaged)


def _header_bytes(data: bytes) -> list[int]:
    """Positions of the bytes that describe the picture."""
    if not _is_tiff(data):
        return list(range(min(600, len(data))))
    return sorted(set(_described(data)))


def _described(data: bytes) -> Iterator[int]:
    yield from range(16)
    for place in tag_places(data)[2]:
        yield from range(place.entry, place.entry + 12)
        yield from range(place.value, min(place.value + 64, len(data)))
