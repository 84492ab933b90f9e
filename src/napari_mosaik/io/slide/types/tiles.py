"""The pixels of a slide as a file format offers them: stored levels, tile by tile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Pixels", "RegionUm", "StoredLevel", "TileSource", "View", "tile_edge"]

Pixels = NDArray[np.uint8]
"""RGB pixels, shape (rows, columns, 3), uint8."""
RegionUm = tuple[tuple[float, float], tuple[float, float]]
"""Origin and size (row, column) of a part of a slide, µm."""
_LARGEST_TILE_PX = 1024


@dataclass(frozen=True, slots=True)
class StoredLevel:
    """Shape of one stored resolution and of the tiles in which it is stored.

    *downsample* is the exact ratio to level 0 (row, column) if the format states it; with None it
    follows from the shapes.  *virtual* levels are computed, not stored.
    """

    shape: tuple[int, int]
    tile: tuple[int, int]
    downsample: tuple[float, float] | None = None
    virtual: bool = False


class TileSource(Protocol):
    """A reader of one file format: the levels of a slide, and one decoded tile at a time."""

    path: Path
    reader: str
    levels: tuple[StoredLevel, ...]
    header_spacing_um: tuple[float, float] | None
    properties: dict[str, str]

    def tile(self, level: int, row: int, column: int) -> Pixels | None:
        """Pixels of a tile, shape (rows, columns, 3), uint8; None where nothing is stored.

        At least the part inside the level is returned.
        """

    def fingerprint(self) -> Mapping[str, Any]:
        """JSON-able facts that identify the pixels without reading all of them."""

    def close(self) -> None:
        """Close the file."""


@dataclass(frozen=True, slots=True)
class View:
    """Pixel size and margin that one consumer of a pass requests.

    Parameters
    ----------
    spacing_um
        Pixel size, µm; rounded to a whole multiple of that of the slide.
    halo_um
        Margin around each block, µm.
    """

    spacing_um: float
    halo_um: float = 0.0


def tile_edge(stored: int) -> int:
    """Edge of the tiles in which a level is read: the stored edge if 256 to 1024, else near it.

    Thin strips are joined to about 512 rows; wide ones are cut to 1024 columns.
    """
    if stored < 1 or stored > _LARGEST_TILE_PX:
        return _LARGEST_TILE_PX
    return stored if stored >= 256 else stored * max(1, round(512 / stored))
