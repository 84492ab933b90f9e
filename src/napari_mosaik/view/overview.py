"""The geometry of the overview map: from the picture of a slide to the map, and back to µm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray
from napari_mosaik.view.orientation import Turn

__all__ = ["MapView"]


@dataclass(frozen=True, slots=True, eq=False)
class MapView:
    """Where places of the section lie on the map, which is turned like the canvas.

    Parameters
    ----------
    matrix
        (row, column) in µm to (down, right) in pixels of the map, (2, 2).
    offset_px
        Added afterwards.
    size_px
        Height and width of the map.
    """

    matrix: FloatArray
    offset_px: FloatArray
    size_px: tuple[int, int]

    @classmethod
    def fitting(cls, corners_um: ArrayLike, turn: Turn, longest_px: float) -> MapView:
        """The largest map of a slide that has no edge longer than *longest_px*.

        *corners_um* are the (row, column) of the slide's corners, (n, 2), on the canvas.
        """
        there = np.asarray(corners_um, float) @ turn.matrix.T
        low, size = there.min(axis=0), np.maximum(np.ptp(there, axis=0), 1e-6)
        scale = longest_px / size.max()
        height, width = np.maximum(np.ceil(size * scale), 8).astype(int)
        return cls(turn.matrix * scale, -low * scale, (int(height), int(width)))

    def to_map(self, places_um: ArrayLike) -> FloatArray:
        """(down, right) in pixels of the map of places (n, 2) in µm."""
        return np.asarray(places_um, float) @ self.matrix.T + self.offset_px

    def to_um(self, places_px: ArrayLike) -> FloatArray:
        """(row, column) in µm of places (n, 2) on the map, (down, right)."""
        return (np.asarray(places_px, float) - self.offset_px) @ np.linalg.inv(self.matrix).T

    def rectangle(self, low_um: ArrayLike, high_um: ArrayLike) -> tuple[float, ...]:
        """Left, top, width and height on the map of what is visible, cut at the map's edges."""
        ends = np.sort(self.to_map(np.stack([np.asarray(low_um), np.asarray(high_um)])), axis=0)
        (top, left), (bottom, right) = np.clip(ends, 0, self.size_px)
        return float(left), float(top), float(right - left), float(bottom - top)
