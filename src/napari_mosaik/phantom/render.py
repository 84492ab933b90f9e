"""Draws the slide of a section, and writes it as a tiled, JPEG-compressed, pyramidal TIFF.

Any part is drawn pixel by pixel, the same whatever the parts are.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import dask
import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_mosaik.core.compiled import compiled_unchecked
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.tiles import IntArray
from napari_mosaik.phantom import paint
from napari_mosaik.phantom.anatomy import COARSE_UM, FINE_UM
from napari_mosaik.phantom.paint import Floats
from napari_mosaik.phantom.section import BUCKET_UM, REACH_UM, Section

__all__ = ["TILE", "render", "shown_tile", "write_pyramid"]

PATCH: Final = 128
SEGMENT_REACH_UM: Final = 48.0
_OD_STEP: Final = 1.0 / 512.0
_TRANSMITTED: Final = np.exp(-np.arange(4096) * _OD_STEP).astype(np.float32)


class _Optics(NamedTuple):
    """Stain and camera: OD vectors (2, 3), white level, noise seed, transmission by OD step."""

    stain: int
    vectors: Floats
    white: float
    seed: int
    transmitted: Floats


class _Tissue(NamedTuple):
    """The map from the slide to the specimen (3, 3), coarse fields (r, c, 4), nest distance."""

    to_specimen: FloatArray
    coarse: Floats
    nest: Floats


class _Objects(NamedTuple):
    """A table of objects, one row each, and their order by squares of the slide."""

    table: Floats
    kind: NDArray[np.uint8]
    start: IntArray
    order: IntArray
    squares: IntArray


class _Ink(NamedTuple):
    """Pen strokes (n, 5) in µm of the slide, and their OD (3,)."""

    strokes: FloatArray
    od: FloatArray


class _Patch(NamedTuple):
    """What lies near each pixel of a patch.

    ``near`` (4, rows, columns) are the squared distances to the two nearest neoplastic cells (µm²)
    and the signed distances to the nearest nucleus and to the nearest vessel's lumen (µm);
    ``owner`` (2, rows, columns) the indices of those objects, see `paint.cell_of`.
    """

    near: Floats
    owner: IntArray


def render(
    section: Section, origin_px: tuple[int, int], shape: tuple[int, int], spacing_um: float
) -> NDArray[np.uint8]:
    """The pixels (rows, columns, 3) of a rectangle of the slide, 8-bit RGB.

    Parameters
    ----------
    section
        The section on its slide.
    origin_px
        Row and column of the rectangle's first pixel in the whole slide.
    shape
        Rows and columns of the rectangle; it may reach beyond the slide.
    spacing_um
        Pixel size, µm.
    """
    out = np.empty((*shape, 3), np.uint8)
    stain, artefacts = section.stain, section.artefacts
    objects, walls = section.nuclear_buckets, section.segment_buckets
    squares = np.array(objects.shape)
    vectors = (stain.vectors * stain.strength[:, None]).astype(np.float32)
    _render(
        out,
        origin_px,
        spacing_um,
        _Optics(stain.code, vectors, stain.white, section.noise_seed, _TRANSMITTED),
        _Tissue(section.to_specimen, section.coarse, section.nest),
        _Objects(section.nuclei, section.kind, objects.start, objects.order, squares),
        _Objects(section.segments, section.kind, walls.start, walls.order, squares),
        artefacts.fold,
        _Ink(artefacts.pen, artefacts.pen_od),
    )
    return out


@compiled_unchecked
def _render(
    out: NDArray[np.uint8],
    origin: tuple[int, int],
    spacing: float,
    optics: _Optics,
    tissue: _Tissue,
    nuclei: _Objects,
    vessels: _Objects,
    fold: FloatArray,
    ink: _Ink,
) -> None:
    """Fill *out* patch by patch; patches far from the tissue get the empty slide."""
    near = np.empty((4, PATCH, PATCH), np.float32)
    owner = np.empty((2, PATCH, PATCH), np.int64)
    for r in range(0, out.shape[0], PATCH):
        for c in range(0, out.shape[1], PATCH):
            part = out[r : r + PATCH, c : c + PATCH]
            row, col = origin[0] + r, origin[1] + c
            y, x = row * spacing, col * spacing
            if _empty(y, x, PATCH * spacing, tissue.to_specimen, tissue.coarse):
                _blank(part, row, col, optics.white, optics.seed)
            else:
                near[0:2] = 1e9
                near[2:4] = 1e4
                owner[0] = 0
                owner[1] = -1
                box = (y, x, spacing)
                _place_vessels(near[3], owner[1], box, vessels)
                _place_nuclei(near, owner[0], box, nuclei)
                patch = _Patch(near, owner)
                _colour(
                    part, (row, col), spacing, optics, tissue, patch, nuclei.table,
                    vessels.table, fold,
                )  # fmt: skip
            if ink.strokes[0, 4] > 0:
                _draw_ink(part, y, x, spacing, ink.strokes, ink.od)


@compiled_unchecked
def _empty(y: float, x: float, side: float, matrix: FloatArray, coarse: Floats) -> bool:
    """Whether a square of the slide surely holds no tissue."""
    cy, cx = y + 0.5 * side, x + 0.5 * side
    row = (matrix[0, 0] * cy + matrix[0, 1] * cx + matrix[0, 2]) / COARSE_UM - 0.5
    col = (matrix[1, 0] * cy + matrix[1, 1] * cx + matrix[1, 2]) / COARSE_UM - 0.5
    reach = 0.72 * side * 1.5 + 40.0
    if paint.bilinear(coarse, 0, row, col) > -min(reach, 590.0):
        return False
    for k in range(8):
        dy, dx = math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)
        step = 0.8 * side / COARSE_UM
        if paint.bilinear(coarse, 0, row + dy * step, col + dx * step) > -20.0:
            return False
    return True


@compiled_unchecked
def _blank(part: NDArray[np.uint8], row0: int, col0: int, white: float, seed: int) -> None:
    """The empty slide with the camera's noise."""
    for i in range(part.shape[0]):
        for j in range(part.shape[1]):
            noise = 2.4 * (paint.hashed(row0 + i, col0 + j, seed) - 0.5)
            for k in range(3):
                part[i, j, k] = np.uint8(white + noise + 0.5)


@compiled_unchecked
def _range(low: float, high: float, size: int) -> tuple[int, int]:
    """Buckets from *low* to *high*, clipped to the grid."""
    first = min(max(math.floor(low / BUCKET_UM), 0), size - 1)
    last = min(max(math.floor(high / BUCKET_UM), 0), size - 1)
    return first, last


@compiled_unchecked
def _place_vessels(
    distance: Floats, owner: IntArray, box: tuple[float, float, float], vessels: _Objects
) -> None:
    """Signed distance to the lumen's edge of the nearest vessel, and which piece it is."""
    y, x, spacing = box
    segments, start, order, grid = vessels.table, vessels.start, vessels.order, vessels.squares
    side = PATCH * spacing
    a0, a1 = _range(y - SEGMENT_REACH_UM, y + side + SEGMENT_REACH_UM, grid[0])
    b0, b1 = _range(x - SEGMENT_REACH_UM, x + side + SEGMENT_REACH_UM, grid[1])
    for a in range(a0, a1 + 1):
        for k in range(start[a * grid[1] + b0], start[a * grid[1] + b1 + 1]):
            s = order[k]
            _place_segment(distance, owner, box, segments[s], s)


@compiled_unchecked
def _window(low: float, high: float, origin: float, spacing: float) -> tuple[int, int]:
    """Pixels whose centres lie between *low* and *high*, clipped to the patch."""
    first = max(0, math.ceil((low - origin) / spacing - 0.5))
    last = min(PATCH - 1, math.floor((high - origin) / spacing - 0.5))
    return first, last


@compiled_unchecked
def _place_segment(
    distance: Floats, owner: IntArray, box: tuple[float, float, float], line: Floats, index: int
) -> None:
    y, x, spacing = box
    y0, x0, y1, x1 = line[0], line[1], line[2], line[3]
    reach = line[4] + line[5] + 5.0
    i0, i1 = _window(min(y0, y1) - reach, max(y0, y1) + reach, y, spacing)
    j0, j1 = _window(min(x0, x1) - reach, max(x0, x1) + reach, x, spacing)
    dy, dx = y1 - y0, x1 - x0
    norm2 = dy * dy + dx * dx + 1e-6
    for i in range(i0, i1 + 1):
        for j in range(j0, j1 + 1):
            py, px = y + (i + 0.5) * spacing - y0, x + (j + 0.5) * spacing - x0
            t = min(max((py * dy + px * dx) / norm2, 0.0), 1.0)
            d = math.sqrt((py - t * dy) ** 2 + (px - t * dx) ** 2) - line[4]
            if d < distance[i, j]:
                distance[i, j] = d
                owner[i, j] = index


@compiled_unchecked
def _place_nuclei(
    near: Floats, owner: IntArray, box: tuple[float, float, float], nuclei: _Objects
) -> None:
    """Squared distances to the two nearest neoplastic cells, and the nearest nucleus' own radius.

    The owner of a pixel holds both the nearest cell and the nucleus, see `paint.cell_of`.
    """
    y, x, spacing = box
    table, kind, start, order = nuclei.table, nuclei.kind, nuclei.start, nuclei.order
    grid = nuclei.squares
    side = PATCH * spacing
    a0, a1 = _range(y - REACH_UM, y + side + REACH_UM, grid[0])
    b0, b1 = _range(x - REACH_UM, x + side + REACH_UM, grid[1])
    for a in range(a0, a1 + 1):
        for k in range(start[a * grid[1] + b0], start[a * grid[1] + b1 + 1]):
            n = order[k]
            if kind[n] == 0:
                _place_cell(near, owner, box, table[n], n)
            _place_nucleus(near[2], owner, box, table[n], n)


@compiled_unchecked
def _place_cell(
    near: Floats, owner: IntArray, box: tuple[float, float, float], cell: Floats, index: int
) -> None:
    y, x, spacing = box
    i0, i1 = _window(cell[0] - REACH_UM, cell[0] + REACH_UM, y, spacing)
    j0, j1 = _window(cell[1] - REACH_UM, cell[1] + REACH_UM, x, spacing)
    for i in range(i0, i1 + 1):
        for j in range(j0, j1 + 1):
            dy, dx = y + (i + 0.5) * spacing - cell[0], x + (j + 0.5) * spacing - cell[1]
            d = dy * dy + dx * dx
            if d >= REACH_UM * REACH_UM:
                continue
            if d < near[0, i, j]:
                near[1, i, j] = near[0, i, j]
                near[0, i, j] = d
                owner[i, j] = paint.with_cell(owner[i, j], index)
            elif d < near[1, i, j]:
                near[1, i, j] = d


@compiled_unchecked
def _place_nucleus(
    radius: Floats, owner: IntArray, box: tuple[float, float, float], shape: Floats, index: int
) -> None:
    y, x, spacing = box
    reach = shape[2] + 1.5
    i0, i1 = _window(shape[0] - reach, shape[0] + reach, y, spacing)
    j0, j1 = _window(shape[1] - reach, shape[1] + reach, x, spacing)
    for i in range(i0, i1 + 1):
        for j in range(j0, j1 + 1):
            dy, dx = y + (i + 0.5) * spacing - shape[0], x + (j + 0.5) * spacing - shape[1]
            u = (dy * shape[4] + dx * shape[5]) / shape[2]
            v = (dx * shape[4] - dy * shape[5]) / shape[3]
            q = (math.sqrt(u * u + v * v) - 1.0) * shape[3]
            if q < radius[i, j] and q < 1.5:
                radius[i, j] = q
                owner[i, j] = paint.with_nucleus(owner[i, j], index)


@compiled_unchecked
def _colour(
    part: NDArray[np.uint8],
    origin: tuple[int, int],
    spacing: float,
    optics: _Optics,
    tissue: _Tissue,
    patch: _Patch,
    nuclei: Floats,
    segments: Floats,
    fold: FloatArray,
) -> None:
    """Stain amounts of each pixel, mixed in optical density."""
    row0, col0 = origin
    code, vectors, white, seed, transmitted = optics
    matrix, coarse, nest = tissue
    near, owner = patch
    soft = max(0.45, 0.6 * spacing)
    for i in range(part.shape[0]):
        y = (row0 + i + 0.5) * spacing
        for j in range(part.shape[1]):
            x = (col0 + j + 0.5) * spacing
            sy = matrix[0, 0] * y + matrix[0, 1] * x + matrix[0, 2]
            sx = matrix[1, 0] * y + matrix[1, 1] * x + matrix[1, 2]
            row, col = sy / COARSE_UM - 0.5, sx / COARSE_UM - 0.5
            noise = paint.hashed(row0 + i, col0 + j, seed) - 0.5
            depth, nec, blood, thickness = paint.four(coarse, row, col)
            inside = paint.ramp(depth, 1.5)
            h = s = 0.0
            if inside > 0:
                nd = paint.plain(nest, sy / FINE_UM - 0.5, sx / FINE_UM - 0.5)
                here = (y, x, nd, nec, blood, soft)
                cells = (near[0, i, j], near[1, i, j], near[2, i, j], near[3, i, j])
                a = max(paint.cell_of(owner[0, i, j]), 0)
                b = max(paint.nucleus_of(owner[0, i, j]), 0)
                piece = owner[1, i, j]
                wall = float(segments[piece, 5]) if piece >= 0 else -1e3
                own = (nuclei[a, 8], nuclei[a, 9])
                core = (nuclei[b, 0], nuclei[b, 1], nuclei[b, 6], nuclei[b, 7])
                h, s = paint.stain_amounts(code, here, cells, own, wall, core, seed)
                amount = inside * thickness
                amount *= paint.folded(y, x, fold) * (1.0 + 0.10 * noise)
                h, s = h * amount, s * amount
            for k in range(3):
                od = h * vectors[0, k] + s * vectors[1, k]
                level = transmitted[min(int(od / _OD_STEP + 0.5), 4095)] * white
                part[i, j, k] = np.uint8(min(max(level + 2.4 * noise + 0.5, 0.0), 255.0))


@compiled_unchecked
def _draw_ink(
    part: NDArray[np.uint8],
    y: float,
    x: float,
    spacing: float,
    pen: FloatArray,
    pen_od: FloatArray,
) -> None:
    """Draw the pen's strokes over the pixels."""
    low = pen[:, :4].min() - pen[0, 4]
    high_y = max(pen[:, 0].max(), pen[:, 2].max()) + pen[0, 4]
    high_x = max(pen[:, 1].max(), pen[:, 3].max()) + pen[0, 4]
    if y > high_y or x > high_x or y + PATCH * spacing < low:
        return
    for i in range(part.shape[0]):
        for j in range(part.shape[1]):
            cover = paint.stroke(y + (i + 0.5) * spacing, x + (j + 0.5) * spacing, pen)
            if cover > 0:
                for k in range(3):
                    part[i, j, k] = np.uint8(part[i, j, k] * math.exp(-cover * pen_od[k]))


RgbImage = NDArray[np.uint8]
Drawer = Callable[[tuple[int, int], tuple[int, int]], RgbImage]

TILE: Final = 512
JPEG_QUALITY: Final = 85
BIG: Final = 2 * 1024**3
STRIP_PIXELS: Final = 8 * 1024**2


@compiled_unchecked
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


def shown_tile(index: int, group: int) -> int:
    """Row or column of the tile that the group with an index shows."""
    return index * group + group // 2


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
    path: Path, draw: Drawer, shape: tuple[int, int], spacing_um: float, about: str, group: int = 1
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
    group
        Each square of so many tiles a side shows the tile in its middle (`shown_tile`).
    """
    drawn: dict[tuple[int, int], tuple[bytes, RgbImage]] = {}
    with ExitStack() as stack:
        levels = _levels(shape, stack, path.parent)
        rows, cols = levels[0].grid
        together = max(1, STRIP_PIXELS // (cols * TILE * TILE))
        for first in range(0, rows, together):
            batch = range(first, min(rows, first + together))
            keys = [(r // group, c // group) for r in batch for c in range(cols)]
            todo = sorted(set(keys) - drawn.keys())
            middles = [(shown_tile(row, group), shown_tile(col, group)) for row, col in todo]
            work = [dask.delayed(_block)(draw, *middle) for middle in middles]
            drawn |= zip(todo, dask.compute(*work, scheduler="threads"), strict=True)
            done = [drawn[key] for key in keys]
            drawn = {key: one for key, one in drawn.items() if key[0] == (batch[-1] + 1) // group}
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
