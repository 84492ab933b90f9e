"""Writes a slide as a tiled, JPEG-compressed, pyramidal TIFF while it is being drawn."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import dask
import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_mosaik.core.compiled import compiled

__all__ = ["TILE", "write_pyramid"]

RgbImage = NDArray[np.uint8]
Drawer = Callable[[tuple[int, int], tuple[int, int]], RgbImage]

TILE: Final = 512
JPEG_QUALITY: Final = 85
BIG: Final = 2 * 1024**3
STRIP_PIXELS: Final = 8 * 1024**2


@compiled
def _halved(image: RgbImage) -> RgbImage:
    """Mean of 2 x 2 pixels, rounded."""
    rows, cols = image.shape[0] // 2, image.shape[1] // 2
    out = np.empty((rows, cols, 3), np.uint8)
    for i in range(rows):
        for j in range(cols):
            for k in range(3):
                total = int(image[2 * i, 2 * j, k]) + int(image[2 * i, 2 * j + 1, k])
                total += int(image[2 * i + 1, 2 * j, k]) + int(image[2 * i + 1, 2 * j + 1, k])
                out[i, j, k] = (total + 2) // 4
    return out


def _encoded(tile: RgbImage) -> bytes:
    return bytes(
        imagecodecs.jpeg_encode(np.ascontiguousarray(tile), JPEG_QUALITY, subsampling="420")
    )


@dataclass(slots=True)
class _Level:
    """One level: its compressed tiles on disk, in order, and the rows that wait for a full tile."""

    shape: tuple[int, int]
    spool: IO[bytes]
    sizes: list[int] = field(default_factory=list)
    waiting: list[RgbImage] = field(default_factory=list)

    @property
    def grid(self) -> tuple[int, int]:
        return -(-self.shape[0] // TILE), -(-self.shape[1] // TILE)

    def add(self, tiles: list[bytes]) -> None:
        for data in tiles:
            self.spool.write(data)
            self.sizes.append(len(data))

    def tiles(self) -> Iterator[bytes]:
        self.spool.seek(0)
        for size in self.sizes:
            yield self.spool.read(size)


def _block(draw: Drawer, row: int, col: int) -> tuple[bytes, RgbImage]:
    """One tile of the finest level, compressed, and its half-sized copy."""
    tile = draw((row * TILE, col * TILE), (TILE, TILE))
    return _encoded(tile), _halved(tile)


def _spool(folder: Path) -> IO[bytes]:
    """An unnamed file that vanishes with its last user."""
    return tempfile.TemporaryFile(dir=folder)


def _levels(shape: tuple[int, int], stack: ExitStack, folder: Path) -> list[_Level]:
    """Levels, each half the size of the one before, down to about one tile."""
    levels: list[_Level] = []
    while True:
        levels.append(_Level(shape, stack.enter_context(_spool(folder))))
        if max(shape) <= TILE:
            return levels
        shape = (max(1, shape[0] // 2), max(1, shape[1] // 2))


def _push(levels: list[_Level], number: int, rows: RgbImage, last: bool) -> None:
    """Pass half a tile row to a level; complete tile rows are compressed and passed on."""
    if number >= len(levels):
        return
    level = levels[number]
    level.waiting.append(rows)
    full = sum(len(part) for part in level.waiting) >= TILE
    if not (full or last):
        return
    strip = np.concatenate(level.waiting)
    level.waiting.clear()
    height, width = TILE, level.grid[1] * TILE
    strip = np.pad(
        strip[:, :width],
        ((0, height - len(strip)), (0, max(0, width - strip.shape[1])), (0, 0)),
        mode="edge",
    )
    if len(level.sizes) < level.grid[0] * level.grid[1]:
        level.add([_encoded(strip[:, c : c + TILE]) for c in range(0, width, TILE)])
    _push(levels, number + 1, _halved(strip), last)


def write_pyramid(
    path: Path, draw: Drawer, shape: tuple[int, int], spacing_um: float, about: str
) -> Generator[float, None, None]:
    """Draw a slide tile by tile and write it; yields the fraction done.

    Memory is bounded by a few rows of tiles: compressed tiles wait in unnamed files beside *path*.

    Parameters
    ----------
    path
        The file to write.
    draw
        ``draw(origin_px, shape)`` returns the pixels of any rectangle, also beyond the slide.
    shape
        Rows and columns of the finest level.
    spacing_um
        Pixel size, µm.
    about
        The image description.
    """
    with ExitStack() as stack:
        levels = _levels(shape, stack, path.parent)
        rows, cols = levels[0].grid
        together = max(1, STRIP_PIXELS // (cols * TILE * TILE))
        for first in range(0, rows, together):
            batch = range(first, min(rows, first + together))
            work = [dask.delayed(_block)(draw, r, c) for r in batch for c in range(cols)]
            done = list(dask.compute(*work, scheduler="threads"))
            for k, r in enumerate(batch):
                strip = done[k * cols : (k + 1) * cols]
                levels[0].add([data for data, _ in strip])
                _push(levels, 1, np.concatenate([half for _, half in strip], axis=1), r == rows - 1)
            yield batch[-1] / rows
        _assemble(path, levels, spacing_um, about)
    yield 1.0


def _assemble(path: Path, levels: list[_Level], spacing_um: float, about: str) -> None:
    total = sum(sum(level.sizes) for level in levels)
    options: dict[str, Any] = {
        "tile": (TILE, TILE),
        "dtype": np.uint8,
        "photometric": "ycbcr",
        "subsampling": (2, 2),
        "compression": "jpeg",
        "metadata": None,
        "resolutionunit": "CENTIMETER",
    }
    with tifffile.TiffWriter(path, bigtiff=total > BIG) as writer:
        for number, level in enumerate(levels):
            scale = (levels[0].shape[0] / level.shape[0], levels[0].shape[1] / level.shape[1])
            writer.write(
                level.tiles(),
                shape=(*level.shape, 3),
                resolution=(1e4 / (spacing_um * scale[1]), 1e4 / (spacing_um * scale[0])),
                description=about if number == 0 else None,
                software=False,
                subfiletype=1 if number else 0,
                **options,
            )
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
