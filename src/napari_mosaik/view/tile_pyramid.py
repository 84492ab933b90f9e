"""A slide as a pyramid for the screen: which pieces to read, and the best image from those loaded.

Each level halves the one before.  A level is read in square pieces, small enough to decode quickly
even where the file stores no coarser level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from napari_mosaik.core import Lattice
from napari_mosaik.io.slide import Slide
from napari_mosaik.io.slide.types.slide import Level
from napari_mosaik.io.slide.types.tiles import Pixels

__all__ = ["COARSEST_PX", "LevelWindow", "Piece", "SlideLevels", "levels_of"]

COARSEST_PX: Final = 1024
"""Maximal longer edge of the coarsest level, which is held in memory."""
_DECODED_PX: Final = 2048
"""Maximal edge of the square of stored pixels that one piece needs."""
_LARGEST_PX, _SMALLEST_PX = 512, 64
_COARSER_FIRST: Final = 2
"""Where nothing is loaded, a piece this many levels coarser is read first."""

Piece = tuple[int, int, int]
"""Level, row and column of a piece."""
Find = Callable[[Piece], Pixels | None]
"""Returns the pixels of a piece if they are loaded."""


@dataclass(frozen=True, slots=True)
class LevelWindow:
    """A rectangle of pixels of one level; stops are exclusive."""

    level: int
    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return max(0, self.bottom - self.top), max(0, self.right - self.left)


@dataclass(frozen=True, slots=True)
class SlideLevels:
    """Lattices from full size to the coarsest, and the pieces in which each is read.

    Parameters
    ----------
    lattices
        Level *n* has pixels of 2^n x 2^n native ones.
    steps
        Stored pixels per pixel of the level along each axis: the cost of decoding it.
    edges
        Edge of the pieces of each level, px.
    """

    lattices: tuple[Lattice, ...]
    steps: tuple[int, ...]
    edges: tuple[int, ...]

    def window(self, piece: Piece) -> LevelWindow:
        """The pixels of a piece."""
        level, i, j = piece
        edge, shape = self.edges[level], self.lattices[level].shape
        bottom, right = min(shape[0], (i + 1) * edge), min(shape[1], (j + 1) * edge)
        return LevelWindow(level, i * edge, j * edge, bottom, right)

    def lattice(self, piece: Piece) -> Lattice:
        """The lattice of a piece, to be read from the slide."""
        at = self.window(piece)
        return self.lattices[at.level].crop(slice(at.top, at.bottom), slice(at.left, at.right))

    def pieces(self, window: LevelWindow) -> list[Piece]:
        """The pieces that a window touches, row by row."""
        if 0 in window.shape:
            return []
        edge = self.edges[window.level]
        rows = range(window.top // edge, (window.bottom - 1) // edge + 1)
        columns = range(window.left // edge, (window.right - 1) // edge + 1)
        return [(window.level, i, j) for i in rows for j in columns]

    def whole(self, level: int) -> LevelWindow:
        """All pixels of a level."""
        return LevelWindow(level, 0, 0, *self.lattices[level].shape)

    def wanted(self, window: LevelWindow, missing: list[Piece], bare: list[Piece]) -> list[Piece]:
        """The order in which to read the missing pieces of a window: nearest to its centre first.

        For *bare* pieces, which show only far coarser pixels, a piece two levels coarser is read
        first where it costs no more to decode per pixel.
        """

        def distance(piece: Piece) -> float:
            at = self.window(piece)
            row = at.top + at.bottom - window.top - window.bottom
            column = at.left + at.right - window.left - window.right
            return float(row * row + column * column)

        above = window.level + _COARSER_FIRST
        coarse: dict[Piece, None] = {}
        if above < len(self.steps) - 1 and self.steps[above] <= max(2, self.steps[window.level]):
            for piece in sorted(bare, key=distance):
                over = self.over(self.window(piece), above)
                coarse.update(dict.fromkeys(self.pieces(over)))
        return [*coarse, *sorted(missing, key=distance)]

    def over(self, at: LevelWindow, level: int) -> LevelWindow:
        """The window of a coarser level that covers a window."""
        shift, shape = level - at.level, self.lattices[level].shape
        top, left = min(at.top >> shift, shape[0] - 1), min(at.left >> shift, shape[1] - 1)
        bottom = min(max(top, (at.bottom - 1) >> shift), shape[0] - 1) + 1
        right = min(max(left, (at.right - 1) >> shift), shape[1] - 1) + 1
        return LevelWindow(level, top, left, bottom, right)

    def under(self, at: LevelWindow, level: int) -> LevelWindow:
        """The window of a finer level that a window covers.

        A coarser level has no last odd row or column; its last one is extended to it.
        """
        shift, coarse = at.level - level, self.lattices[at.level].shape
        fine = self.lattices[level].shape
        bottom = fine[0] if at.bottom == coarse[0] else at.bottom << shift
        right = fine[1] if at.right == coarse[1] else at.right << shift
        return LevelWindow(level, at.top << shift, at.left << shift, bottom, right)

    def compose(
        self, window: LevelWindow, find: Find, coarsest: Pixels
    ) -> tuple[Pixels, list[Piece], list[Piece]]:
        """The best image (rows, columns, 3), uint8, of a window from the pieces loaded so far.

        Parameters
        ----------
        window
            The visible window.
        find
            Looks up a loaded piece.
        coarsest
            All pixels of the coarsest level.

        Returns
        -------
        pixels, missing, bare
            The image; the pieces of the level that are not loaded and are filled from coarser
            levels; those among them that nothing up to two levels coarser covers completely.
        """
        out: Pixels = np.empty((*window.shape, 3), np.uint8)
        missing: list[Piece] = []
        bare: list[Piece] = []
        for piece in self.pieces(window):
            at = self.window(piece)
            part = _common(window, at)
            pixels = find(piece)
            if pixels is not None:
                self._paste(out, window, part, pixels, at)
                continue
            missing.append(piece)
            covers, level = self._covers(part, find)
            if level > part.level + _COARSER_FIRST:
                bare.append(piece)
            if level == len(self.lattices) - 1:
                covers.insert(0, (coarsest, self.whole(level)))
            for pixels, at in covers:
                self._paste(out, window, _common(part, self.under(at, part.level)), pixels, at)
        return out, missing, bare

    def _covers(
        self, part: LevelWindow, find: Find
    ) -> tuple[list[tuple[Pixels, LevelWindow]], int]:
        """Coarser pieces over a window, coarse to fine, and the level that covers it completely."""
        covers: list[tuple[Pixels, LevelWindow]] = []
        for level in range(part.level + 1, len(self.lattices) - 1):
            pieces = self.pieces(self.over(part, level))
            loaded = [(find(piece), self.window(piece)) for piece in pieces]
            covers[:0] = [(pixels, at) for pixels, at in loaded if pixels is not None]
            if all(pixels is not None for pixels, _ in loaded):
                return covers, level
        return covers, len(self.lattices) - 1

    @staticmethod
    def _paste(
        out: Pixels, window: LevelWindow, part: LevelWindow, pixels: Pixels, at: LevelWindow
    ) -> None:
        """Paste pixels of the same or a coarser level, with window *at*, into part of a window."""
        if 0 in part.shape:
            return
        target = out[part.top - window.top : part.bottom - window.top,
                     part.left - window.left : part.right - window.left]  # fmt: skip
        shift = at.level - part.level
        if not shift:
            target[...] = pixels[part.top - at.top : part.bottom - at.top,
                                 part.left - at.left : part.right - at.left]  # fmt: skip
            return
        rows = (np.arange(part.top, part.bottom) >> shift) - at.top
        columns = (np.arange(part.left, part.right) >> shift) - at.left
        np.minimum(rows, pixels.shape[0] - 1, out=rows)
        np.minimum(columns, pixels.shape[1] - 1, out=columns)
        wide = pixels[rows[0] : rows[-1] + 1].take(columns, axis=1)
        target[...] = wide.take(rows - rows[0], axis=0)


def levels_of(slide: Slide) -> SlideLevels:
    """The pyramid of a slide: each level halves the one before, from native pixels."""
    native = slide.lattice
    lattices, steps, edges, k = [], [], [], 1
    while True:
        shape = (native.shape[0] // k, native.shape[1] // k)
        spacing = (native.spacing_um[0] * k, native.spacing_um[1] * k)
        lattices.append(Lattice(native.frame, shape, spacing, native.origin_um))
        steps.append(_step(slide.levels, k))
        edges.append(min(_LARGEST_PX, max(_SMALLEST_PX, _DECODED_PX // steps[-1])))
        if max(shape) <= COARSEST_PX or min(shape) < 2:
            return SlideLevels(tuple(lattices), tuple(steps), tuple(edges))
        k *= 2


def _step(stored: tuple[Level, ...], k: int) -> int:
    """Stored pixels per axis that make up one pixel of k x k native ones."""
    best = 1
    for level in stored:
        if getattr(level, "virtual", False):
            continue  # decoded from the level below, which is counted already
        downsample = level[1]
        ratio = round(max(downsample))
        if k % ratio == 0 and all(abs(d / ratio - 1) < 0.01 for d in downsample):
            best = max(best, ratio)
    return k // best


def _common(one: LevelWindow, other: LevelWindow) -> LevelWindow:
    """The intersection of two windows of a level."""
    return LevelWindow(
        one.level,
        max(one.top, other.top),
        max(one.left, other.left),
        min(one.bottom, other.bottom),
        min(one.right, other.right),
    )
