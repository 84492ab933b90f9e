"""The interface of a slide: pixels are requested in µm, never by pyramid level."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import Lattice, Raster
from napari_mosaik.core.spacing import SpacingSource
from napari_mosaik.io.slide.types.damage import DamagedTile, DamagePolicy
from napari_mosaik.io.slide.types.tiles import RegionUm, View

if TYPE_CHECKING:
    from napari_mosaik.io.slide.read.stream import SlideBlocks

__all__ = ["Level", "Slide"]


class Level(NamedTuple):
    """One resolution of a slide.

    A virtual level is not in the file; its pixels are block means of the next finer level.
    """

    shape: tuple[int, int]
    downsample: tuple[float, float]
    virtual: bool = False


class Slide(Protocol):
    """One open slide; several threads may read at once."""

    path: Path
    reader: str
    lattice: Lattice
    spacing_source: SpacingSource
    properties: dict[str, str]
    levels: tuple[Level, ...]
    damage_policy: DamagePolicy

    @property
    def damaged(self) -> tuple[DamagedTile, ...]:
        """The damaged tiles found so far; always empty if the first of them is an error."""

    def valid_mask(self, lattice: Lattice) -> NDArray[np.bool_]:
        """The mask (rows, columns) of valid samples, False where damaged tiles touch them."""

    def find_damage(self) -> Iterator[tuple[int, int]]:
        """Decode every tile once to find all damage; yields (done, all) tiles."""

    def damage_record(self) -> dict[str, Any]:
        """JSON-able summary of the damaged tiles found so far: number, area, positions."""

    def read(
        self, origin_um: tuple[float, float], size_um: tuple[float, float], spacing_um: float
    ) -> Raster:
        """Any rectangle (µm) at any spacing (µm), area-averaged; white outside the slide.

        The pixels have the shape (rows, columns, 3), uint8.
        """

    def nearest_spacing_um(self, spacing_um: float) -> tuple[float, float]:
        """The whole multiple of the native spacing nearest to *spacing_um*, per axis."""

    def working_lattice(self, spacing_um: float) -> Lattice:
        """The whole slide at `nearest_spacing_um`: each sample is k x k native pixels."""

    def read_lattice(self, lattice: Lattice) -> Raster:
        """The exact pixels of a part of a working lattice, shape (rows, columns, 3), uint8."""

    def blocks(
        self, *views: View, block_px: int = 2048, region: RegionUm | None = None
    ) -> SlideBlocks:
        """One pass over the slide, or a region of it, in blocks for several consumers."""

    def thumbnail(self, spacing_um: float) -> Raster:
        """The whole slide at a coarse spacing (µm), shape (rows, columns, 3), uint8."""

    def forget_pixels(self) -> None:
        """Drop the decoded tiles that are kept for another reading of the same place."""

    def digest(self) -> str:
        """Identity of the slide, from its size, structure and sampled tiles."""

    def close(self) -> None:
        """Release the file and the threads."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
