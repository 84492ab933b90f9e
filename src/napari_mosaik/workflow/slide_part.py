"""A slide of which a step sees a region: as all that there is, or in its passes only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.closing import Closing
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.raster import Raster

if TYPE_CHECKING:
    from napari_mosaik.core.spacing import SpacingSource
    from napari_mosaik.io.slide import Slide, SlideBlocks
    from napari_mosaik.io.slide.types.damage import DamagedTile, DamagePolicy
    from napari_mosaik.io.slide.types.slide import Level
    from napari_mosaik.io.slide.types.tiles import RegionUm, View

__all__ = ["CutSlide", "SlidePart", "region_window"]


class SlidePart(Closing):
    """A slide whose passes are limited to a region; everything else is that of the whole slide.

    Parameters
    ----------
    slide
        The whole slide.
    region
        Origin and size (row, column) of the region, µm.
    """

    def __init__(self, slide: Slide, region: RegionUm) -> None:
        self._slide, self._region = slide, region
        self.path: Path = slide.path
        self.reader: str = slide.reader
        self.lattice: Lattice = slide.lattice
        self.spacing_source: SpacingSource = slide.spacing_source
        self.properties: dict[str, str] = slide.properties
        self.levels: tuple[Level, ...] = slide.levels
        self.damage_policy: DamagePolicy = slide.damage_policy

    @property
    def damaged(self) -> tuple[DamagedTile, ...]:
        """The damaged tiles met so far."""
        return self._slide.damaged

    def valid_mask(self, lattice: Lattice) -> NDArray[np.bool_]:
        """A mask (rows, columns), False where a damaged tile touches a sample."""
        return self._slide.valid_mask(lattice)

    def find_damage(self) -> Iterator[tuple[int, int]]:
        """Decode every tile once; yields (done, total) tiles, counts."""
        return self._slide.find_damage()

    def damage_record(self) -> dict[str, Any]:
        """JSON-able summary of the damaged tiles met so far."""
        return self._slide.damage_record()

    def read(
        self, origin_um: tuple[float, float], size_um: tuple[float, float], spacing_um: float
    ) -> Raster:
        """Any rectangle at any pixel size (µm), (rows, columns, 3); white outside the slide."""
        return self._slide.read(origin_um, size_um, spacing_um)

    def nearest_spacing_um(self, spacing_um: float) -> tuple[float, float]:
        """The whole multiple of the native pixel size nearest to *spacing_um*, per axis, µm."""
        return self._slide.nearest_spacing_um(spacing_um)

    def working_lattice(self, spacing_um: float) -> Lattice:
        """The slide at the multiple of its native pixel size nearest to *spacing_um* (µm)."""
        return self._slide.working_lattice(spacing_um)

    def read_lattice(self, lattice: Lattice) -> Raster:
        """The exact 8-bit pixels (rows, columns, 3) of a part of a working lattice (µm)."""
        return self._slide.read_lattice(lattice)

    def blocks(
        self, *views: View, block_px: int = 2048, region: RegionUm | None = None
    ) -> SlideBlocks:
        """One pass over the region."""
        return self._slide.blocks(*views, block_px=block_px, region=region or self._region)

    def thumbnail(self, spacing_um: float) -> Raster:
        """The slide at a coarse pixel size (µm), shape (rows, columns, 3)."""
        return self._slide.thumbnail(spacing_um)

    def forget_pixels(self) -> None:
        """Nothing: whoever reads the other parts still wants the tiles."""

    def digest(self) -> str:
        """Identity of the slide."""
        return self._slide.digest()

    def close(self) -> None:
        """Close the slide."""
        self._slide.close()


class CutSlide(SlidePart):
    """A region of a slide as if the slide had been cut there; positions stay those of the slide."""

    def __init__(self, slide: Slide, region: RegionUm) -> None:
        super().__init__(slide, region)
        self.lattice = self._cut(slide.lattice)

    def _cut(self, lattice: Lattice) -> Lattice:
        return lattice.crop(*region_window(lattice, self._region))

    def working_lattice(self, spacing_um: float) -> Lattice:
        """The region at the multiple of the native pixel size nearest to *spacing_um* (µm)."""
        return self._cut(self._slide.working_lattice(spacing_um))

    def thumbnail(self, spacing_um: float) -> Raster:
        """The region at a coarse pixel size (µm), shape (rows, columns, 3)."""
        whole = self._slide.thumbnail(spacing_um)
        rows, cols = region_window(whole.lattice, self._region)
        return Raster(
            whole.values[rows, cols], whole.lattice.crop(rows, cols), channels=whole.channels
        )


def region_window(lattice: Lattice, region: RegionUm) -> tuple[slice, slice]:
    """Rows and columns (index) of the samples whose edges lie nearest to those of a region (µm).

    Raises `InputError` if the region holds no sample.
    """
    spans = []
    for axis in (0, 1):
        step, begin = lattice.spacing_um[axis], region[0][axis] - lattice.origin_um[axis]
        first = max(0, round(begin / step))
        last = min(lattice.shape[axis], round((begin + region[1][axis]) / step))
        if last <= first:
            extent = " x ".join(f"{length:.0f}" for length in lattice.extent_um)
            numbers = ",".join(f"{value:g}" for value in (*region[0], *region[1]))
            raise InputError(
                f"the region {numbers} (row, column, height, width in µm) does not overlap the "
                f"slide of {extent} µm"
            )
        spans.append(slice(first, last))
    return spans[0], spans[1]
