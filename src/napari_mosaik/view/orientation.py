"""Orientation of the view and of the overview map: quarter turns and mirroring.

Only the *view* turns.  napari's 2D camera cannot rotate, but it shows either world axis downwards
(``dims.order``) and lets each screen axis run either way (``camera.orientation2d``).  Together they
give all eight orientations without changing a layer.  Mouse positions stay (row, column) in µm of
the reference section, so selecting, drawing and measuring do not depend on the orientation.  Only
``camera.center`` and the size of the visible region are in the order of the screen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray

__all__ = ["MapView", "Turn"]

Direction = tuple[int, int]
_CLOCKWISE: Final = np.array([[0, 1], [-1, 0]])
"""A position right of the centre moves below it, one below moves to the left."""
_MIRROR: Final = np.array([[1, 0], [0, -1]])


@dataclass(frozen=True, slots=True)
class Turn:
    """One of the eight orientations of the view.

    Parameters
    ----------
    down, right
        The two rows of the matrix from (row, column) of the world to (down, right) of the screen;
        one entry of each is 1 or -1, the other 0.
    """

    down: Direction = (1, 0)
    right: Direction = (0, 1)

    @classmethod
    def of_view(cls, order: tuple[int, ...], orientation: tuple[str, str]) -> Turn:
        """The orientation that napari shows: ``dims.order`` and ``camera.orientation2d``."""
        vertical = 1 if str(orientation[0]) == "down" else -1
        horizontal = 1 if str(orientation[1]) == "right" else -1
        if order[-2] > order[-1]:
            return cls((0, vertical), (horizontal, 0))
        return cls((vertical, 0), (0, horizontal))

    @property
    def matrix(self) -> FloatArray:
        """World (row, column) to screen (down, right), (2, 2), dimensionless."""
        return np.array([self.down, self.right], float)

    @property
    def transposed(self) -> bool:
        """Whether columns of the world run down the screen."""
        return self.down[0] == 0

    @property
    def orientation(self) -> tuple[Literal["down", "up"], Literal["right", "left"]]:
        """The value of ``camera.orientation2d``."""
        return ("down" if sum(self.down) > 0 else "up", "right" if sum(self.right) > 0 else "left")

    def order(self, n_axes: int) -> tuple[int, ...]:
        """The value of ``dims.order`` for a viewer with this number of axes."""
        first = tuple(range(n_axes - 2))
        last = (n_axes - 2, n_axes - 1)
        return (*first, *(last[::-1] if self.transposed else last))

    def clockwise(self) -> Turn:
        """Rotated by a quarter turn clockwise."""
        return self._after(_CLOCKWISE)

    def anticlockwise(self) -> Turn:
        """Rotated by a quarter turn anticlockwise."""
        return self._after(_CLOCKWISE.T)

    def mirrored(self) -> Turn:
        """Flipped left to right."""
        return self._after(_MIRROR)

    def _after(self, step: FloatArray) -> Turn:
        down, right = np.asarray(step @ self.matrix, int)
        return Turn((int(down[0]), int(down[1])), (int(right[0]), int(right[1])))

    @property
    def words(self) -> str:
        """The orientation as text: "as scanned", "rotated 90° clockwise, mirrored"."""
        matrix = self.matrix
        is_mirrored = np.linalg.det(matrix) < 0
        if is_mirrored:
            matrix = _MIRROR @ matrix
        turned = {
            (1, 0): "",
            (0, 1): "90° clockwise",
            (-1, 0): "180°",
            (0, -1): "90° anticlockwise",
        }
        angle = turned[int(matrix[0, 0]), int(matrix[0, 1])]
        parts = [f"rotated {angle}"] if angle else []
        return ", ".join([*parts, *(["mirrored"] if is_mirrored else [])]) or "as scanned"


@dataclass(frozen=True, slots=True, eq=False)
class MapView:
    """From positions on the section to the overview map, which is oriented like the canvas.

    Parameters
    ----------
    matrix
        (row, column) in µm to (down, right) in pixels of the map, (2, 2), pixels per µm.
    offset_px
        Added afterwards, (2,), pixels of the map.
    size_px
        Height and width of the map, pixels.
    """

    matrix: FloatArray
    offset_px: FloatArray
    size_px: tuple[int, int]

    @classmethod
    def fitting(cls, corners_um: ArrayLike, turn: Turn, longest_px: float) -> MapView:
        """The largest map of a slide with no edge longer than *longest_px* pixels.

        *corners_um* are the corners of the slide on the canvas, (n, 2), (row, column) in µm.
        """
        there = np.asarray(corners_um, float) @ turn.matrix.T
        low, size = there.min(axis=0), np.maximum(np.ptp(there, axis=0), 1e-6)
        scale = longest_px / size.max()
        height, width = np.maximum(np.ceil(size * scale), 8).astype(int)
        return cls(turn.matrix * scale, -low * scale, (int(height), int(width)))

    def to_map(self, places_um: ArrayLike) -> FloatArray:
        """(down, right) in pixels of the map, (n, 2), of positions (n, 2) in µm."""
        return np.asarray(places_um, float) @ self.matrix.T + self.offset_px

    def to_um(self, places_px: ArrayLike) -> FloatArray:
        """(row, column) in µm, (n, 2), of positions (n, 2) on the map, (down, right) in pixels."""
        return (np.asarray(places_px, float) - self.offset_px) @ np.linalg.inv(self.matrix).T

    def rectangle(self, low_um: ArrayLike, high_um: ArrayLike) -> tuple[float, ...]:
        """Left, top, width and height of the visible region on the map, cut at its edges, pixels.

        *low_um* and *high_um* are its corners, (2,) each, (row, column) in µm.
        """
        ends = np.sort(self.to_map(np.stack([np.asarray(low_um), np.asarray(high_um)])), axis=0)
        (top, left), (bottom, right) = np.clip(ends, 0, self.size_px)
        return float(left), float(top), float(right - left), float(bottom - top)
