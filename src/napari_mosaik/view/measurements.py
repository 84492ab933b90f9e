"""Magnification, lengths and areas on the canvas."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.core.spacing import MAX_SPACING_UM, MIN_SPACING_UM
from napari_mosaik.view.formatting import number

__all__ = [
    "MAGNIFICATIONS",
    "Measurement",
    "area_um2",
    "area_words",
    "length_um",
    "length_words",
    "magnification",
    "magnification_words",
    "spacing_from_ruler",
    "um_per_pixel",
]

MAGNIFICATIONS: Final = (2.5, 10.0, 20.0, 40.0)
"""Usual objectives of a microscope."""
_ONE_TIMES_UM: Final = 10.0
"""µm per pixel at 1x: 40x is 0.25 µm per pixel, 20x is 0.5 µm."""
_SHORTEST_PX: Final = 50.0
"""Two clicks are each off by about a pixel; this keeps the pixel size within 4 %."""


def magnification(um_per_px: float) -> float:
    """Magnification at a pixel size in µm: 0.25 µm is 40x."""
    return _ONE_TIMES_UM / um_per_px


def um_per_pixel(times: float) -> float:
    """µm per pixel at a magnification: 40x is 0.25 µm."""
    return _ONE_TIMES_UM / times


def magnification_words(um_per_px: float, *, calibrated: bool = True) -> str:
    """The magnification as text: "0.50 µm per pixel, about 20x"."""
    if not calibrated:
        return f"{number(um_per_px, digits=2)} slide pixels per screen pixel, uncalibrated"
    about = number(magnification(um_per_px), digits=2)
    return f"{number(um_per_px, 'µm', digits=2)} per pixel, about {about}x"


def length_um(points_um: ArrayLike) -> float:
    """Length of a line through points (n, 2) in µm; 0 for fewer than two points."""
    points = np.asarray(points_um, float).reshape(-1, 2)
    return float(np.hypot(*np.diff(points, axis=0).T).sum())


def area_um2(points_um: ArrayLike) -> float:
    """Area inside the closed outline through points (n, 2) in µm, by the shoelace formula.

    0 for fewer than three points.  Parts of a self-intersecting outline that run the other way
    round count as negative.
    """
    points = np.asarray(points_um, float).reshape(-1, 2)
    if len(points) < 3:
        return 0.0
    rows, columns = (points - points[0]).T
    return abs(float(rows @ np.roll(columns, -1) - columns @ np.roll(rows, -1))) / 2


def length_words(um: float) -> str:
    """A length as text, in µm below 1 mm and in mm above."""
    return number(um, "µm") if um < 999.5 else number(um / 1e3, "mm")


def area_words(um2: float) -> str:
    """An area as text, in µm² below 0.1 mm² and in mm² above."""
    return number(um2, "µm²") if um2 < 99_950 else number(um2 / 1e6, "mm²")


@dataclass(frozen=True, slots=True)
class Measurement:
    """A line or an outline drawn with the ruler.

    Parameters
    ----------
    kind
        "length" of a line or "area" inside an outline.
    points_um
        Its vertices: (row, column) in µm of the reference section.
    """

    kind: Literal["length", "area"]
    points_um: tuple[tuple[float, float], ...]

    @property
    def value(self) -> float:
        """Length in µm or area in µm²."""
        return area_um2(self.points_um) if self.kind == "area" else length_um(self.points_um)

    @property
    def is_whole(self) -> bool:
        """Whether there are enough vertices: two for a line, three for an outline."""
        return len(self.points_um) >= (3 if self.kind == "area" else 2)

    @property
    def words(self) -> str:
        """The value with its unit; an area with its perimeter."""
        if self.kind == "length":
            return length_words(self.value)
        outline = length_um((*self.points_um, self.points_um[0])) if self.points_um else 0.0
        return f"{area_words(self.value)}, perimeter {length_words(outline)}"

    @property
    def label(self) -> str:
        """The value alone, for the canvas."""
        return self.words.partition(", ")[0]

    def segments(self) -> FloatArray:
        """Its lines as vectors (n, 2, 2) in µm: start and step; an outline is closed."""
        corners = np.asarray(self.points_um, float).reshape(-1, 2)
        if len(corners) < 2:
            return np.zeros((0, 2, 2))
        ends = np.roll(corners, -1, axis=0)
        lines = np.stack([corners, ends - corners], 1)
        closed = self.kind == "area" and len(corners) > 2
        return lines if closed else lines[:-1]


def spacing_from_ruler(length_px: float, length_um: float) -> float:
    """Pixel size of a slide, µm, from a line whose true length is known.

    Parameters
    ----------
    length_px
        Length of the line in pixels of the slide at full size.
    length_um
        Its true length, such as that of the slide's printed scale bar, µm.

    Raises
    ------
    InputError
        A length that is not positive, a line too short to be accurate, or a pixel size outside the
        range of scanners.
    """
    for value, name in ((length_px, "the line"), (length_um, "the known length")):
        if not math.isfinite(value) or value <= 0:
            raise InputError(f"{name} is {value:g} long; it must be longer than 0")
    if length_px < _SHORTEST_PX:
        raise InputError(
            f"the line is {length_px:.0f} slide pixels long, too short for calibration; zoom in "
            f"and draw one of at least {_SHORTEST_PX:.0f}"
        )
    spacing = length_um / length_px
    low, high = MIN_SPACING_UM, MAX_SPACING_UM
    if not low <= spacing <= high:
        raise InputError(
            f"{length_um:g} µm over {length_px:.0f} slide pixels would be {spacing:.3g} µm per "
            f"pixel; scanners have {low:g} to {high:g} µm. Check the length and its unit"
        )
    return spacing
