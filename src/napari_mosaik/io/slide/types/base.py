"""What a slide is to the rest of the program: pixels asked for in µm, never in pyramid levels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import InputError, Lattice, MissingPixelSize, Raster
from napari_mosaik.core.pet_records import SpacingSource

if TYPE_CHECKING:
    from napari_mosaik.io.slide.read.stream import Region, SlideBlocks, View
    from napari_mosaik.io.slide.types.damage import DamagedTile, DamagePolicy

__all__ = [
    "MAX_SPACING_UM",
    "MIN_SPACING_UM",
    "SPACING_ADVICE",
    "Level",
    "Pixels",
    "Slide",
    "SpacingSource",
    "StoredLevel",
    "TileSource",
    "check_header_spacing",
    "check_user_spacing",
    "tile_edge",
]

MIN_SPACING_UM = 0.05
"""Smallest pixel size that a file's header is believed to mean, µm."""
MAX_SPACING_UM = 20.0
"""Largest pixel size that a file's header is believed to mean, µm."""

SPACING_ADVICE = (
    "type it (--spacing UM, or on the Case page), copy it from a scanner profile "
    "(--profile NAME; 'napari-mosaik profiles' lists them), or measure a known length with the "
    "ruler in the window"
)
"""The three ways on for a slide that does not say how large its pixels are."""

Pixels = NDArray[np.uint8]
"""RGB pixels (rows, columns, 3)."""


class Level(NamedTuple):
    """One resolution of a slide.

    A virtual level is not in the file: its pixels are means of blocks of the next finer level.
    """

    shape: tuple[int, int]
    downsample: tuple[float, float]
    virtual: bool = False


class Slide(Protocol):
    """One open slide; reading is safe from several threads at once."""

    path: Path
    reader: str
    lattice: Lattice
    spacing_source: SpacingSource
    properties: dict[str, str]
    levels: tuple[Level, ...]
    damage_policy: DamagePolicy

    @property
    def damaged(self) -> tuple[DamagedTile, ...]:
        """The damaged tiles met so far; always empty where the first of them is an error."""

    def sound(self, lattice: Lattice) -> NDArray[np.bool_]:
        """(rows, columns) False where a damaged tile that was met touches a sample."""

    def find_damage(self) -> Iterator[tuple[int, int]]:
        """Decode every tile once, so that all damage is known; yields (done, all) tiles."""

    def damage_record(self) -> dict[str, Any]:
        """JSON-able summary of the damaged tiles met so far: how many, their area, and where."""

    def read(
        self, origin_um: tuple[float, float], size_um: tuple[float, float], spacing_um: float
    ) -> Raster:
        """Any rectangle at any spacing, area-averaged; white outside the slide."""

    def snap(self, spacing_um: float) -> tuple[float, float]:
        """The whole multiple of the native spacing nearest to *spacing_um*, per axis."""

    def working_lattice(self, spacing_um: float) -> Lattice:
        """The whole slide at the snapped spacing: each sample is k x k native pixels."""

    def read_lattice(self, lattice: Lattice) -> Raster:
        """The exact pixels of a part of a working lattice; white outside the slide."""

    def blocks(
        self, *views: View, block_px: int = 2048, region: Region | None = None
    ) -> SlideBlocks:
        """One pass over the slide, or a region of it, in blocks for several consumers at once."""

    def thumbnail(self, spacing_um: float) -> Raster:
        """The whole slide at a coarse spacing."""

    def digest(self) -> str:
        """Identity of the slide, from its size, structure and sampled tiles."""

    def close(self) -> None:
        """Give back the file and the threads."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class StoredLevel:
    """Shape of one stored resolution and of the tiles in which it is stored.

    *downsample* is the exact ratio against level 0 (row, column) where the format states it; None
    leaves it to the ratio of the shapes.  *virtual* levels are made, not stored.
    """

    shape: tuple[int, int]
    tile: tuple[int, int]
    downsample: tuple[float, float] | None = None
    virtual: bool = False


class TileSource(Protocol):
    """A file format's part of a slide: which levels there are, and one decoded tile at a time."""

    path: Path
    reader: str
    levels: tuple[StoredLevel, ...]
    header_spacing_um: tuple[float, float] | None
    properties: dict[str, str]

    def tile(self, level: int, row: int, column: int) -> Pixels | None:
        """Decoded pixels of a tile, at least its part inside the level; None where empty."""

    def fingerprint(self) -> Mapping[str, Any]:
        """JSON-able facts that identify the pixels without reading all of them."""

    def close(self) -> None:
        """Close the file."""


_LARGEST_TILE_PX = 1024


def tile_edge(stored: int) -> int:
    """Edge of the tiles in which a level is read: the stored edge if 256 to 1024, else near it.

    Thin strips are joined to about 512 rows; wide ones are cut to 1024 columns.
    """
    if stored < 1 or stored > _LARGEST_TILE_PX:
        return _LARGEST_TILE_PX
    return stored if stored >= 256 else stored * max(1, round(512 / stored))


def check_user_spacing(
    path: Path, spacing_um: float | Sequence[float] | None, *, typed: bool = True
) -> tuple[float, float] | None:
    """The (row, column) pixel size that was given, or None; nonsense raises `InputError`.

    A typed size may be that of a coarse overview (0.01 to 1000 µm); one that was measured or copied
    must be that of a scanner.
    """
    if spacing_um is None:
        return None
    low, high = (0.01, 1000.0) if typed else (MIN_SPACING_UM, MAX_SPACING_UM)
    pair = spacing_um if isinstance(spacing_um, Sequence) else (spacing_um, spacing_um)
    if len(pair) != 2 or not all(math.isfinite(s) and low <= s <= high for s in pair):
        raise InputError(
            f"{path.name}: a pixel size of {_size_words(pair)} µm is not possible; "
            f"give a number between {low:g} and {high:g} µm"
        )
    return float(pair[0]), float(pair[1])


def _size_words(pair: Sequence[float]) -> str:
    return " x ".join(f"{s:g}" for s in dict.fromkeys(pair))


def check_header_spacing(path: Path, found: tuple[float, float] | None) -> tuple[float, float]:
    """The pixel size of the header if it can be believed, else `MissingPixelSize`."""
    advice = SPACING_ADVICE
    if found is None:
        raise MissingPixelSize(f"{path.name} does not say how large its pixels are; {advice}")
    if not all(MIN_SPACING_UM <= s <= MAX_SPACING_UM for s in found):
        raise MissingPixelSize(
            f"{path.name} says that its pixels are {found[0]:g} x {found[1]:g} µm, which no slide "
            f"scanner makes ({MIN_SPACING_UM:g} to {MAX_SPACING_UM:g} µm); {advice}"
        )
    return found
