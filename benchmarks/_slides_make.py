"""Slides of any size for the benchmark: stained texture with vessels, JPEG tiles, a pyramid.

A square of texture that joins itself at its edges is cut into tiles, each tile is encoded once, and
the encoded bytes are repeated over the slide.  The rim of glass around the tissue is so narrow that
every block of a pass holds tissue: no pass can leave out a tile.  The coarser levels are made from
what the tiles show, so the pyramid is true.  Equal seeds give equal files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from napari_mosaik.core.colour import DAB, HAEMATOXYLIN

__all__ = ["SPACING_UM", "Look", "make_slide"]

SPACING_UM = 0.25
"""Pixel size of the made slides, µm."""
JPEG_QUALITY = 80
FACTOR = 4
SMALLEST_LEVEL = 2500
"""No further level is stored below this edge, pixels."""
PATCH = 4096
"""Edge of the texture that is repeated, pixels: about 1 mm."""
RIM = 0.03
"""Width of the glass around the tissue, part of the slide's edge."""
VESSELS_PER_PATCH = 150
NUCLEI_PER_PATCH = 6000

Pixels = NDArray[np.uint8]
Field = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Look:
    """How a slide is stored and what it shows: tile edge in pixels, nuclei and grain or none."""

    tile: int = 256
    detailed: bool = True

    @property
    def name(self) -> str:
        """A word for tables and file names."""
        return f"{'detailed' if self.detailed else 'smooth'}-{self.tile}"


def make_slide(path: Path, edge: int, look: Look, seed: int = 0) -> Path:
    """Write a square slide of *edge* pixels as a pyramidal BigTIFF of JPEG tiles (4:2:0).

    Parameters
    ----------
    path
        File to write.
    edge
        Rows and columns of the finest level.
    look
        Tile size and texture.
    seed
        Seed of the texture.
    """
    tile = look.tile
    pictures = _cut(_texture(look, np.random.default_rng(seed)), tile)
    numbers, encoded = _finest(edge, tile), _encode(pictures)
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        length = edge
        while True:
            _write_level(tiff, length, tile, numbers, encoded, FACTOR ** (length != edge))
            if length // FACTOR < SMALLEST_LEVEL:
                return path
            numbers, pictures = _coarser(numbers, pictures)
            encoded, length = _encode(pictures), length // FACTOR


def _write_level(
    tiff: tifffile.TiffWriter,
    length: int,
    tile: int,
    numbers: NDArray[np.int64],
    encoded: list[bytes],
    reduced: int,
) -> None:
    def segments() -> Iterator[bytes]:
        for number in numbers.ravel():
            yield encoded[number]

    per_cm = 10_000 / SPACING_UM
    tiff.write(
        segments(),
        shape=(length, length, 3),
        dtype=np.uint8,
        tile=(tile, tile),
        compression="jpeg",
        photometric="ycbcr",
        subsampling=(2, 2),
        subfiletype=1 if reduced > 1 else 0,
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
        metadata=None,
    )


def _encode(pictures: list[Pixels]) -> list[bytes]:
    return [
        imagecodecs.jpeg8_encode(p, level=JPEG_QUALITY, subsampling="420", colorspace="RGB")
        for p in pictures
    ]


def _finest(edge: int, tile: int) -> NDArray[np.int64]:
    """Number of the picture at each tile of the finest level: 0 is glass, 1.. the texture."""
    across, repeat = math.ceil(edge / tile), PATCH // tile
    row, column = np.mgrid[0:across, 0:across]
    numbers = 1 + (row % repeat) * repeat + column % repeat
    rim = max(1, round(RIM * edge / tile))
    inside = (np.minimum(row, column) >= rim) & (np.maximum(row, column) < edge // tile - rim)
    return np.where(inside, numbers, 0)


def _coarser(
    numbers: NDArray[np.int64], pictures: list[Pixels]
) -> tuple[NDArray[np.int64], list[Pixels]]:
    """The next level: every different square of tiles becomes one picture, made once."""
    across = math.ceil(numbers.shape[0] / FACTOR)
    wide = np.zeros((across * FACTOR, across * FACTOR), np.int64)
    wide[: numbers.shape[0], : numbers.shape[1]] = numbers
    squares = wide.reshape(across, FACTOR, across, FACTOR).transpose(0, 2, 1, 3)
    kinds, which = np.unique(squares.reshape(-1, FACTOR * FACTOR), axis=0, return_inverse=True)
    small = np.stack([_shrunk(picture) for picture in pictures])
    edge = small.shape[1] * FACTOR
    made = [
        np.ascontiguousarray(
            small[kind].reshape(FACTOR, FACTOR, *small.shape[1:])
            .transpose(0, 2, 1, 3, 4)
            .reshape(edge, edge, 3)
        )
        for kind in kinds
    ]  # fmt: skip
    return which.reshape(across, across), made


def _shrunk(picture: Pixels) -> Pixels:
    edge = picture.shape[0] // FACTOR
    blocks = picture.reshape(edge, FACTOR, edge, FACTOR, 3).astype(np.uint16)
    return ((blocks.sum(axis=(1, 3)) + FACTOR**2 // 2) // FACTOR**2).astype(np.uint8)


def _cut(texture: Pixels, tile: int) -> list[Pixels]:
    """Glass, then the tiles of the texture in raster order."""
    n = PATCH // tile
    glass = np.full((tile, tile, 3), 240, np.uint8)
    tiles = texture.reshape(n, tile, n, tile, 3).transpose(0, 2, 1, 3, 4)
    return [glass, *tiles.reshape(n * n, tile, tile, 3)]


def _texture(look: Look, rng: np.random.Generator) -> Pixels:
    """Counterstained tissue with brown vessel walls, (PATCH, PATCH, 3)."""
    blue = 0.25 + 0.08 * _waves(rng, 128)
    if look.detailed:
        blue += _nuclei(rng) + 0.10 * rng.standard_normal((PATCH, PATCH), np.float32)
    brown = _walls(rng)
    if look.detailed:
        brown *= 1 + 0.25 * _waves(rng, 4)
    density = np.stack([HAEMATOXYLIN[c] * blue + DAB[c] * brown for c in range(3)], axis=2)
    return np.clip(np.rint(240 * np.exp(-density)), 0, 255).astype(np.uint8)


def _waves(rng: np.random.Generator, scale: int) -> Field:
    """Smooth noise of unit deviation that joins itself at the edges."""
    coarse = rng.standard_normal((PATCH // scale, PATCH // scale), np.float32)
    fine = ndimage.zoom(coarse, scale, order=1, mode="grid-wrap", grid_mode=True)
    return np.asarray(fine / fine.std(), np.float32)


def _nuclei(rng: np.random.Generator) -> Field:
    """Haematoxylin of nuclei: ellipses of 3 to 5 µm radius."""
    out = np.zeros((PATCH, PATCH), np.float32)
    for row, column in rng.integers(0, PATCH, (NUCLEI_PER_PATCH, 2)):
        radius = rng.uniform(12, 20, 2)
        rows, columns = (np.arange(-24, 25) + a for a in (row, column))
        away = ((rows - row) / radius[0])[:, None] ** 2 + ((columns - column) / radius[1]) ** 2
        window = np.ix_(rows % PATCH, columns % PATCH)
        out[window] = np.maximum(out[window], 0.7 * (away <= 1))
    return out


def _walls(rng: np.random.Generator) -> Field:
    """DAB of ring-shaped vessel walls: outer radius 4 to 30 µm, wall 1.5 to 3 µm."""
    out = np.zeros((PATCH, PATCH), np.float32)
    for row, column in rng.integers(0, PATCH, (VESSELS_PER_PATCH, 2)):
        outer, wall = 16 * np.exp(rng.uniform(0, np.log(7.5))), rng.uniform(6, 12)
        stretch, turn = rng.uniform(0.6, 1.0), rng.uniform(0, np.pi)
        reach = math.ceil(outer) + 2
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        along = x * np.cos(turn) + y * np.sin(turn)
        across = (y * np.cos(turn) - x * np.sin(turn)) / stretch
        ring = np.abs(np.hypot(along, across) - (outer - wall / 2)) <= wall / 2
        window = np.ix_((y[:, 0] + row) % PATCH, (x[0] + column) % PATCH)
        out[window] = np.maximum(out[window], 1.1 * ring)
    return np.asarray(ndimage.gaussian_filter(out, 1.5, mode="wrap"), np.float32)
