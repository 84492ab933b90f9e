"""Tiles of a slide that cannot be decoded: an error, or excluded and reported."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import InputError, Lattice
from napari_mosaik.io.slide.types.tiles import StoredLevel

__all__ = [
    "DamageLog",
    "DamagePolicy",
    "DamagedTile",
    "damage_summary",
    "disk_fault",
    "first_line",
    "policy_named",
    "whereabouts",
]

DamagePolicy = Literal["stop", "skip"]
"""Handling of a tile that cannot be decoded: an error, or white pixels and a log entry."""

_Key = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class DamagedTile:
    """One tile that could not be decoded and whose pixels are white.

    Parameters
    ----------
    level
        The stored resolution to which it belongs; 0 is the finest.
    origin_px, size_px
        Its rectangle (row, column) in pixels of level 0.
    origin_um, size_um
        The same in µm.
    reason
        Message of the decoder.
    """

    level: int
    origin_px: tuple[int, int]
    size_px: tuple[int, int]
    origin_um: tuple[float, float]
    size_um: tuple[float, float]
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "level": self.level,
            "origin_px": list(self.origin_px),
            "size_px": list(self.size_px),
            "origin_um": list(self.origin_um),
            "size_um": list(self.size_um),
            "reason": self.reason,
        }


class DamageLog:
    """The damaged tiles of one open slide, collected from several threads at once."""

    def __init__(self, native: Lattice, levels: tuple[StoredLevel, ...]) -> None:
        self._native = native
        self._levels = levels
        self._found: dict[_Key, DamagedTile] = {}
        self._lock = threading.Lock()

    def __contains__(self, key: _Key) -> bool:
        # Without the lock: entries are only added, and a look-up is atomic.
        return key in self._found

    def add(self, key: _Key, reason: str) -> None:
        """Log a tile (level, row of tiles, column of tiles)."""
        level, i, j = key
        stored, shape = self._levels[level], self._native.shape
        edges = []
        for axis, index in ((0, i), (1, j)):
            exact = stored.downsample
            scale = shape[axis] / stored.shape[axis] if exact is None else exact[axis]
            first = index * stored.tile[axis]
            last = min(first + stored.tile[axis], stored.shape[axis])
            edges.append((math.floor(first * scale), min(math.ceil(last * scale), shape[axis])))
        (top, bottom), (left, right) = edges
        um = self._native.spacing_um
        tile = DamagedTile(
            level,
            (top, left),
            (bottom - top, right - left),
            (top * um[0], left * um[1]),
            ((bottom - top) * um[0], (right - left) * um[1]),
            reason,
        )
        with self._lock:
            self._found[key] = tile

    def tiles(self) -> tuple[DamagedTile, ...]:
        """All damaged tiles found so far, finest level first, in raster order."""
        with self._lock:
            return tuple(self._found[key] for key in sorted(self._found))

    def valid_mask(self, lattice: Lattice) -> NDArray[np.bool_]:
        """The mask (rows, columns) of valid samples: True where no damaged tile touches one."""
        out = np.ones(lattice.shape, bool)
        for tile in self.tiles():
            window = []
            for axis in (0, 1):
                low = (tile.origin_um[axis] - lattice.origin_um[axis]) / lattice.spacing_um[axis]
                high = low + tile.size_um[axis] / lattice.spacing_um[axis]
                first, last = math.floor(low + 1e-6), math.ceil(high - 1e-6)
                window.append(slice(max(0, first), max(0, last)))
            out[window[0], window[1]] = False
        return out

    def record(self) -> dict[str, Any]:
        """JSON-able summary: number of tiles, the area of their union, and each of them."""
        tiles = self.tiles()
        return {
            "count": len(tiles),
            "area_mm2": _union_um2(tiles) / 1e6,
            "tiles": [tile.as_dict() for tile in tiles],
        }


def _union_um2(tiles: tuple[DamagedTile, ...]) -> float:
    """Area covered by rectangles that may overlap (levels of one slide), µm²."""
    if not tiles:
        return 0.0
    low = np.array([tile.origin_um for tile in tiles])
    high = low + np.array([tile.size_um for tile in tiles])
    rows, columns = (np.unique(np.concatenate([low[:, a], high[:, a]])) for a in (0, 1))
    covered = np.zeros((len(rows) - 1, len(columns) - 1), bool)
    for first, last in zip(low, high, strict=True):
        r = slice(*np.searchsorted(rows, (first[0], last[0])))
        c = slice(*np.searchsorted(columns, (first[1], last[1])))
        covered[r, c] = True
    return float((np.diff(rows)[:, None] * np.diff(columns)[None] * covered).sum())


def policy_named(word: str) -> DamagePolicy:
    """The policy of that name; `InputError` for any other word."""
    for policy in get_args(DamagePolicy):
        if word == policy:
            found: DamagePolicy = policy
            return found
    raise InputError(f"damaged tiles: '{word}' is neither 'stop' nor 'skip'")


def first_line(error: BaseException) -> str:
    """First line of the message of an error."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def disk_fault(path: Path, size: int | None, error: BaseException) -> str:
    """The reason if the disk, the memory or a change of the file made reading fail; else "".

    Such a failure says nothing about the tiles of the file, so they must not be excluded for it.
    """
    if isinstance(error, MemoryError):
        return f"there is not enough memory to decode a tile of {path.name}; close other programs"
    if isinstance(error, OSError) and error.errno is not None:
        return (
            f"{path.name} cannot be read any more ({error.strerror}); check the disk or the "
            "network drive that holds it"
        )
    try:
        now = path.stat()
    except OSError:
        return (
            f"{path.name} disappeared while it was read: it was moved or deleted, or its drive was "
            "removed"
        )
    if size is not None and now.st_size != size:
        return f"{path.name} was changed while it was read; open it again"
    return ""


def whereabouts(record: Mapping[str, Any]) -> str:
    """Positions of the first damaged tiles of a record, and the number of the others."""
    tiles = record["tiles"]
    where = "; ".join(
        f"row {tile['origin_px'][0]}, column {tile['origin_px'][1]} px" for tile in tiles[:3]
    )
    return where + (f" and {len(tiles) - 3} more" if len(tiles) > 3 else "")


def damage_summary(record: Mapping[str, Any], name: str) -> str:
    """One sentence on the damaged tiles of a slide: number, area and positions."""
    count = "1 damaged tile" if record["count"] == 1 else f"{record['count']} damaged tiles"
    area = f"{record['area_mm2']:.3g} mm²"
    return f"{name}: {count} ({area}) excluded from every result, at {whereabouts(record)}"
