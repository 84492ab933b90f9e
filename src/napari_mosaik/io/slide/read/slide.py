"""A slide in µm over any file format: lengths, ratios and edges."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import InputError, Lattice, Raster
from napari_mosaik.core.closing import Closing
from napari_mosaik.core.params import digest
from napari_mosaik.core.spacing import SpacingSource
from napari_mosaik.io.slide.read.resample import area_resample, block_mean
from napari_mosaik.io.slide.read.stream import SlideBlocks
from napari_mosaik.io.slide.read.tiles import TileReader
from napari_mosaik.io.slide.types.damage import DamagedTile, DamageLog, DamagePolicy
from napari_mosaik.io.slide.types.slide import Level, Slide
from napari_mosaik.io.slide.types.tiles import Pixels, RegionUm, StoredLevel, TileSource, View

__all__ = ["SlideImage"]

_BAND_PIXELS = 12_000_000
"""Maximum number of pixels of a stored level in memory while a coarser image is computed."""
_CHANNELS = ("red", "green", "blue")


class SlideImage(Closing):
    """A slide over any `TileSource`; the methods are documented in the `Slide` protocol."""

    def __init__(
        self,
        source: TileSource,
        spacing_um: tuple[float, float],
        spacing_source: SpacingSource,
        frame: str,
        damaged: DamagePolicy = "stop",
    ) -> None:
        self.path: Path = source.path
        self.reader: str = source.reader
        self.lattice = Lattice(frame, source.levels[0].shape, spacing_um)
        self.spacing_source: SpacingSource = spacing_source
        self.properties = dict(source.properties)
        shape = self.lattice.shape
        self.levels: tuple[Level, ...] = tuple(_level(shape, stored) for stored in source.levels)
        self._whole = tuple(_whole_ratio(shape, stored) for stored in source.levels)
        self.reopen: Callable[[], Slide] | None = None
        """Opens the same slide again, in another process."""
        self._source = source
        self.damage_policy: DamagePolicy = damaged
        self._damage = DamageLog(self.lattice, source.levels)
        self._tiles = TileReader(source, damage=self._damage if damaged == "skip" else None)

    def __reduce__(self) -> tuple[Callable[..., Slide], tuple[Any, ...]]:
        """Another process opens the same file again."""
        if self.reopen is None:
            raise TypeError("a slide that was not opened by open_slide cannot be pickled")
        return self.reopen, ()

    @property
    def source(self) -> TileSource:
        """The reader of the file format."""
        return self._source

    def close(self) -> None:
        """Release the file and the threads."""
        self._tiles.close()

    def forget_pixels(self) -> None:
        """Drop the decoded tiles that are kept for another reading of the same place."""
        self._tiles.forget()

    @property
    def damaged(self) -> tuple[DamagedTile, ...]:
        """The damaged tiles found so far; always empty if the first of them is an error."""
        return self._damage.tiles()

    def valid_mask(self, lattice: Lattice) -> NDArray[np.bool_]:
        """The mask (rows, columns) of valid samples, False where damaged tiles touch them."""
        return self._damage.valid_mask(lattice)

    def find_damage(self) -> Iterator[tuple[int, int]]:
        """Decode every tile once to find all damage; yields (done, all) tiles."""
        yield from self._tiles.scan()

    def damage_record(self) -> dict[str, Any]:
        """JSON-able summary of the damaged tiles found so far: number, area, positions."""
        return self._damage.record()

    def digest(self) -> str:
        """Digest of the slide: size, structure and sampled tiles of its file, and its spacing.

        The spacing is included because every measurement on the slide depends on it.
        """
        facts = dict(self._source.fingerprint())
        facts["levels"] = [level.shape for level in self._source.levels]
        facts["spacing_um"] = self.lattice.spacing_um
        return digest(facts)

    def nearest_spacing_um(self, spacing_um: float) -> tuple[float, float]:
        """The whole multiple of the native spacing nearest to *spacing_um*, per axis."""
        k = self._multiples((spacing_um, spacing_um))
        native = self.lattice.spacing_um
        return (k[0] * native[0], k[1] * native[1])

    def working_lattice(self, spacing_um: float) -> Lattice:
        """The whole slide at `nearest_spacing_um`: each sample is k x k native pixels."""
        k = self._multiples((spacing_um, spacing_um))
        shape = (self.lattice.shape[0] // k[0], self.lattice.shape[1] // k[1])
        return Lattice(self.lattice.frame, shape, self.nearest_spacing_um(spacing_um))

    def read_lattice(self, lattice: Lattice) -> Raster:
        """The exact pixels of a part of a working lattice, shape (rows, columns, 3), uint8.

        White outside the slide.  The pixels do not depend on how the working lattice is divided.
        """
        k, origin = self._position(lattice)
        level, ratio = self._best_whole(k)
        step = (k[0] // ratio[0], k[1] // ratio[1])
        top, left = origin[0] * step[0], origin[1] * step[1]
        rows, columns = lattice.shape
        if step == (1, 1):
            pixels = self._tiles.region(level, top, left, rows, columns)
            return Raster(pixels, lattice, channels=_CHANNELS)
        out: Pixels = np.empty((rows, columns, 3), np.uint8)
        band = max(1, _BAND_PIXELS // max(1, columns * step[1] * step[0]))
        for i in range(0, rows, band):
            n = min(band, rows - i)
            part = self._tiles.region(
                level, top + i * step[0], left, n * step[0], columns * step[1]
            )
            out[i : i + n] = block_mean(part, step[0], step[1])
        return Raster(out, lattice, channels=_CHANNELS)

    def blocks(
        self, *views: View, block_px: int = 2048, region: RegionUm | None = None
    ) -> SlideBlocks:
        """One pass over the slide in blocks, for several consumers at once.

        The stored level is the coarsest one that serves all views exactly.  A *region* (origin
        and size in µm) limits the pass to a part of the slide.
        """
        ks = [self._multiples((view.spacing_um, view.spacing_um)) for view in views]
        common = (math.gcd(*(k[0] for k in ks)), math.gcd(*(k[1] for k in ks)))
        level, ratio = self._best_whole(common)
        stored = (level, self._source.levels[level])
        return SlideBlocks(self, views, self._tiles, stored, ratio, block_px, region)

    def read(
        self, origin_um: tuple[float, float], size_um: tuple[float, float], spacing_um: float
    ) -> Raster:
        """Any rectangle (µm) at any spacing (µm), area-averaged; white outside the slide.

        The pixels have the shape (rows, columns, 3), uint8.
        """
        if not (spacing_um > 0 and min(size_um) > 0):
            raise InputError(f"cannot read {size_um} µm of a slide at {spacing_um} µm per pixel")
        shape = (max(1, round(size_um[0] / spacing_um)), max(1, round(size_um[1] / spacing_um)))
        spacing = (float(spacing_um), float(spacing_um))
        lattice = Lattice(self.lattice.frame, shape, spacing, origin_um)
        return self._read_any(lattice)

    def thumbnail(self, spacing_um: float) -> Raster:
        """The whole slide at a coarse spacing (µm), shape (rows, columns, 3), uint8.

        The last samples may reach beyond the edge of the slide.
        """
        return self._read_any(self.lattice.resized(spacing_um))

    def _read_any(self, lattice: Lattice) -> Raster:
        level = self._nearest_finer(lattice.spacing_um)
        ratio = self._whole[level] or self.levels[level][1]
        native = self.lattice.spacing_um
        size = (native[0] * ratio[0], native[1] * ratio[1])
        step = (lattice.spacing_um[0] / size[0], lattice.spacing_um[1] / size[1])
        start = (lattice.origin_um[0] / size[0], lattice.origin_um[1] / size[1])
        rows, columns = lattice.shape
        out: Pixels = np.empty((rows, columns, 3), np.uint8)
        left, right = math.floor(start[1]), math.ceil(start[1] + columns * step[1])
        band = max(1, int(_BAND_PIXELS / max(1.0, (right - left) * step[0])))
        for i in range(0, rows, band):
            n = min(band, rows - i)
            first = start[0] + i * step[0]
            top, bottom = math.floor(first), math.ceil(first + n * step[0])
            part = self._tiles.region(level, top, left, bottom - top + 1, right - left + 1)
            out[i : i + n] = area_resample(part, (first - top, start[1] - left), step, (n, columns))
        return Raster(out, lattice, channels=_CHANNELS)

    def _multiples(self, spacing_um: tuple[float, float]) -> tuple[int, int]:
        native = self.lattice.spacing_um
        if not all(math.isfinite(s) and s > 0 for s in spacing_um):
            raise InputError(f"a working pixel size of {spacing_um} µm is not valid")
        return (
            max(1, math.floor(spacing_um[0] / native[0] + 0.5)),
            max(1, math.floor(spacing_um[1] / native[1] + 0.5)),
        )

    def _position(self, lattice: Lattice) -> tuple[tuple[int, int], tuple[int, int]]:
        """Whole multiples of the native spacing and whole origin (in samples) of a lattice."""
        k = self._multiples(lattice.spacing_um)
        origin = [0, 0]
        for axis in (0, 1):
            spacing = k[axis] * self.lattice.spacing_um[axis]
            position = lattice.origin_um[axis] / lattice.spacing_um[axis]
            origin[axis] = round(position)
            off_grid = abs(position - origin[axis]) > 1e-3
            if abs(spacing / lattice.spacing_um[axis] - 1) > 1e-6 or off_grid:
                raise InputError(
                    f"{self.path.name}: a lattice of {lattice.spacing_um} µm at "
                    f"{lattice.origin_um} µm is not part of a working lattice of this slide"
                )
        if lattice.frame != self.lattice.frame:
            raise InputError(
                f"a lattice of '{lattice.frame}' cannot be read from the slide of "
                f"'{self.lattice.frame}'"
            )
        return k, (origin[0], origin[1])

    def _best_whole(self, k: tuple[int, int]) -> tuple[int, tuple[int, int]]:
        """The coarsest level whose pixels are whole blocks that divide the requested blocks."""
        best, ratio = 0, (1, 1)
        for index, whole in enumerate(self._whole):
            divides = whole is not None and k[0] % whole[0] == 0 and k[1] % whole[1] == 0
            if divides and whole is not None and whole[0] * whole[1] > ratio[0] * ratio[1]:
                best, ratio = index, whole
        return best, ratio

    def _nearest_finer(self, spacing_um: tuple[float, float]) -> int:
        """The coarsest level that is not coarser than the requested spacing on either axis."""
        native, best = self.lattice.spacing_um, 0
        for index, level in enumerate(self.levels):
            ratio = level.downsample
            fine = all(native[a] * ratio[a] <= spacing_um[a] * 1.001 for a in (0, 1))
            if fine and math.prod(ratio) > math.prod(self.levels[best].downsample):
                best = index
        return best


def _level(native: tuple[int, int], stored: StoredLevel) -> Level:
    ratio = (native[0] / stored.shape[0], native[1] / stored.shape[1])
    return Level(stored.shape, stored.downsample or ratio, stored.virtual)


def _whole_ratio(native: tuple[int, int], stored: StoredLevel) -> tuple[int, int] | None:
    """Whole downsample per axis if the level can be one of whole blocks, else None."""
    if stored.downsample is not None:
        exact = (round(stored.downsample[0]), round(stored.downsample[1]))
        return exact if exact == stored.downsample else None
    ratio = (round(native[0] / stored.shape[0]), round(native[1] / stored.shape[1]))
    for axis in (0, 1):
        exact_size = native[axis] / ratio[axis]
        if stored.shape[axis] not in (math.floor(exact_size), math.ceil(exact_size)):
            return None
    return ratio
