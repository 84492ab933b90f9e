"""Object labels as a pyramid of small codes for the screen: outlines near, density far away.

A slide holds millions of objects.  Labels are read in pieces, on other threads, and turned there
into one byte per pixel; where single objects can no longer be told apart, the number of objects per
mm² is shown in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import LabelImage, Lattice
from napari_mosaik.view.tile_pyramid import Piece

__all__ = ["INSIDE", "OUTLINE", "Density", "LabelLevels", "object_density", "outline_codes"]

INSIDE: Final = 1
OUTLINE: Final = 2
"""Codes of pixels of an object: within its outline, and on it."""
_FIRST: Final = 3
"""Code of the lowest class of density."""
_PIECE_PX: Final = 1024
_CELL_UM: Final = 32.0
"""Samples of the density are so wide, where the image has a level as coarse."""

Codes = NDArray[np.uint8]
_Find = Callable[[Piece], Codes | None]


@dataclass(frozen=True, slots=True, eq=False)
class Density:
    """Objects per mm² around each sample of one level of a label image, in classes.

    Parameters
    ----------
    codes
        (rows, columns): 0 where there is no object, else `code` of the class.
    level
        The level whose samples they are.
    first
        The first level on which the density is shown in place of the objects.
    bounds
        Objects per mm² at which the second and each further class begin.
    window_um
        Edge of the square that is counted, µm.
    """

    codes: Codes
    level: int
    first: int
    bounds: tuple[float, ...]
    window_um: float

    def code(self, number: int) -> int:
        """Code of a class, from 0."""
        return _FIRST + number

    def on_level(self, level: int, rows: slice, cols: slice) -> Codes:
        """Codes (rows, columns) of a part of any level, in pixels; finer ones repeat samples."""
        if level >= self.level:
            step = 1 << (level - self.level)
            coarse: Codes = self.codes[::step, ::step][rows, cols]
            return coarse
        shift, (height, width) = self.level - level, self.codes.shape
        half = (1 << shift) // 2  # sample k of a level is sample 2k of the one below
        row = np.minimum((np.arange(rows.start, rows.stop) + half) >> shift, height - 1)
        col = np.minimum((np.arange(cols.start, cols.stop) + half) >> shift, width - 1)
        wide = self.codes[row[0] : row[-1] + 1].take(col, axis=1)
        fine: Codes = wide.take(row - row[0], axis=0)
        return fine


def object_density(
    points_um: ArrayLike,
    lattice: Lattice,
    n_levels: int,
    *,
    from_um: float,
    window_um: float,
    bounds: Sequence[float],
) -> Density | None:
    """Objects per mm² of a slide, from their centroids (n, 2): row and column in µm.

    Shown on the levels of a label image on *lattice* whose pixels are at least *from_um* wide;
    None where no level is.  The square that is counted ends at the edge of the image.
    """
    from scipy.ndimage import uniform_filter

    widths = [max(lattice.spacing_um) * 2**level for level in range(n_levels)]
    first = next((level for level, width in enumerate(widths) if width >= from_um), None)
    if first is None:
        return None
    level = next((i for i in range(first, n_levels) if widths[i] >= _CELL_UM), n_levels - 1)
    shape = tuple(-(-size >> level) for size in lattice.shape)
    index = np.floor(lattice.to_index(points_um) / 2**level + 0.5).astype(np.int64)
    inside = ((index >= 0) & (index < shape)).all(axis=1)
    flat = np.bincount(index[inside] @ (shape[1], 1), minlength=shape[0] * shape[1])
    reach = 2 * round((window_um / widths[level] - 1) / 2) + 1  # an odd number of samples
    counts = flat.reshape(shape).astype(float)
    around = np.rint(uniform_filter(counts, reach, mode="constant") * reach**2)
    area_mm2 = np.prod([spacing * 2**level * reach / 1000 for spacing in lattice.spacing_um])
    classes = np.digitize(around / area_mm2, bounds) + _FIRST
    codes = np.where(around > 0, classes, 0).astype(np.uint8)
    return Density(codes, level, first, tuple(bounds), reach * widths[level])


def outline_codes(labels: NDArray[Any], width: int = 1) -> Codes:
    """`INSIDE`, `OUTLINE` and 0 for labels (rows, columns); *width* of the outline in pixels.

    The outline lies within the object; none is drawn along the edge of the array.
    """
    known = labels != 0
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        before, after = (slice(None, -1), slice(1, None))
        one, other = ((part, ...) if axis == 0 else (..., part) for part in (before, after))
        differs = labels[one] != labels[other]
        edge[one] |= differs
        edge[other] |= differs
    edge &= known
    codes: Codes = known.astype(np.uint8)
    codes[edge] = OUTLINE
    if width > 1:
        inner = outline_codes(np.where(edge, 0, labels), width - 1)
        np.maximum(codes, inner, out=codes)
    return codes


class LabelLevels:
    """The levels of stored object labels as codes, read piece by piece.

    Parameters
    ----------
    labels
        Object labels (rows, columns) with their coarser levels.
    density
        What is shown far away; None shows outlines on all levels.
    """

    def __init__(self, labels: LabelImage, density: Density | None = None) -> None:
        self.arrays = [labels.values, *labels.levels]
        self.shapes = [(int(a.shape[0]), int(a.shape[1])) for a in self.arrays]
        self.density = density
        self.coarsest = self._coarsest()

    def _coarsest(self) -> Codes:
        """All codes of the coarsest level, (rows, columns)."""
        last = len(self.arrays) - 1
        rows, cols = (slice(0, size) for size in self.shapes[last])
        if self.shows_density(last) and self.density is not None:
            return self.density.on_level(last, rows, cols)
        return outline_codes(np.asarray(self.arrays[last][rows, cols]))

    def shows_density(self, level: int) -> bool:
        """Whether a level shows the density in place of the objects."""
        return self.density is not None and level >= self.density.first

    def read(self, piece: Piece) -> Codes:
        """The codes of one piece of stored labels, (rows, columns); (1, 1) of 0 where empty."""
        level, i, j = piece
        rows, cols = (
            slice(n * _PIECE_PX, min((n + 1) * _PIECE_PX, size))
            for n, size in zip((i, j), self.shapes[level], strict=True)
        )
        labels = np.asarray(self.arrays[level][rows, cols])
        return outline_codes(labels) if labels.any() else np.zeros((1, 1), np.uint8)

    def label_at(self, level: int, row: int, col: int) -> int:
        """The label of one pixel of a level; reads the stored piece that holds it."""
        return int(np.asarray(self.arrays[level][row : row + 1, col : col + 1])[0, 0])

    def compose(
        self, level: int, rows: slice, cols: slice, find: _Find
    ) -> tuple[Codes, list[Piece]]:
        """The codes (rows, columns) of a part of a level, and the pieces that are missing.

        The part is given in pixels of the level, and taken from the pieces read so far.
        A missing piece shows the pixels of a coarser one where that was read, else nothing.  The
        missing ones nearest to the middle come first.
        """
        if self.shows_density(level) and self.density is not None:
            return self.density.on_level(level, rows, cols), []
        out = np.zeros((rows.stop - rows.start, cols.stop - cols.start), np.uint8)
        missing = []
        for piece in self.pieces(level, rows, cols):
            codes = find(piece)
            if codes is None:
                missing.append(piece)
                codes, shift = self._coarser(piece, find)
            else:
                shift = 0
            if codes is not None and codes.size > 1:
                self._paste(out, (rows, cols), piece, codes, shift)
        centre = np.array([part.start + part.stop for part in (rows, cols)]) / 2
        missing.sort(key=lambda piece: np.abs((np.add(piece[1:], 0.5)) * _PIECE_PX - centre).sum())
        return out, missing

    def pieces(self, level: int, rows: slice, cols: slice) -> list[Piece]:
        """The pieces that a part of a level touches, row by row."""
        i, j = (range(p.start // _PIECE_PX, -(-p.stop // _PIECE_PX)) for p in (rows, cols))
        return [(level, row, col) for row in i for col in j]

    def around(self, level: int, rows: slice, cols: slice) -> list[Piece]:
        """The pieces of a level around those that a part of it touches."""
        if self.shows_density(level):
            return []
        grown = (
            slice(max(p.start - _PIECE_PX, 0), min(p.stop + _PIECE_PX, size))
            for p, size in zip((rows, cols), self.shapes[level], strict=True)
        )
        seen = set(self.pieces(level, rows, cols))
        return [piece for piece in self.pieces(level, *grown) if piece not in seen]

    def _coarser(self, piece: Piece, find: _Find) -> tuple[Codes | None, int]:
        """The finest coarser piece that was read and covers a piece, and by how many levels."""
        level, i, j = piece
        shift = 1
        while level + shift < len(self.shapes) and not self.shows_density(level + shift):
            codes = find((level + shift, i >> shift, j >> shift))
            if codes is not None:
                return codes, shift
            shift += 1
        return None, 0

    @staticmethod
    def _paste(
        out: Codes, part: tuple[slice, slice], piece: Piece, codes: Codes, shift: int
    ) -> None:
        """Paste a piece of the same or a coarser level into a part of a level."""
        _, i, j = piece
        spans = []
        for here, n, size in zip(part, (i, j), codes.shape, strict=True):
            low, high = max(here.start, n * _PIECE_PX), min(here.stop, (n + 1) * _PIECE_PX)
            first = (n >> shift) * _PIECE_PX
            if shift:
                inner: Any = np.minimum((np.arange(low, high) >> shift) - first, size - 1)
            else:
                inner = slice(low - first, high - first)
            spans.append((slice(low - here.start, high - here.start), inner))
        (down, inner_rows), (across, inner_cols) = spans
        if shift:
            out[down, across] = codes.take(inner_rows, axis=0).take(inner_cols, axis=1)
        else:
            out[down, across] = codes[inner_rows, inner_cols]
