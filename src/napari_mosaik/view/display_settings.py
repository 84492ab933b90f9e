"""Display settings of a slide: brightness, contrast, gamma, or one stain alone.

They apply only to pixels on their way to the canvas and change no measurement, export or result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import InputError
from napari_mosaik.core.colour import (
    DAB,
    EOSIN,
    HAEMATOXYLIN,
    WHITE_INTENSITY,
    optical_density,
    stain_matrix,
)
from napari_mosaik.core.compiled import compiled
from napari_mosaik.io.slide.types.tiles import Pixels

__all__ = [
    "LIMITS",
    "STAINS_OF_SLIDE",
    "STAIN_NAMES",
    "DisplaySettings",
    "StainName",
    "StainVectors",
    "apply_display",
    "prepare",
    "stains_of",
]

StainName = Literal["", "haematoxylin", "eosin", "dab"]
"""A stain that can be shown alone; empty for all stains."""
Vector = tuple[float, float, float]
StainVectors = tuple[tuple[StainName, Vector], ...]
"""Stains of a slide and their vectors in optical density (R, G, B)."""

STAIN_NAMES: Final[dict[StainName, str]] = {
    "": "All stains",
    "haematoxylin": "Haematoxylin only",
    "eosin": "Eosin only",
    "dab": "DAB only",
}
_DAB_SLIDE: Final[StainVectors] = (("haematoxylin", HAEMATOXYLIN), ("dab", DAB))
STAINS_OF_SLIDE: Final[dict[str, StainVectors]] = {
    "he": (("haematoxylin", HAEMATOXYLIN), ("eosin", EOSIN)),
    "cd34": _DAB_SLIDE,
    "caix": _DAB_SLIDE,
    "": (("haematoxylin", HAEMATOXYLIN), ("eosin", EOSIN), ("dab", DAB)),
}
"""Stains by kind of slide, after Ruifrok and Johnston 2001; "" where the kind is not known."""
LIMITS: Final = {"brightness": (-1.0, 1.0), "contrast": (0.2, 5.0), "gamma": (0.2, 5.0)}
"""Minimum and maximum of each setting."""
_STEPS: Final = 2048
_MAX_DENSITY: Final = math.log(WHITE_INTENSITY)
"""Natural optical density of the darkest 8-bit intensity."""


@dataclass(frozen=True, slots=True)
class DisplaySettings:
    """Display settings of one slide; the defaults leave every pixel unchanged.

    Parameters
    ----------
    brightness
        Added to the intensity, as a fraction of full scale.
    contrast
        Factor around the middle grey.
    gamma
        Exponent of the intensity; above 1 mid-tones become darker.
    stain
        Show only this stain, in its own colour on white.
    vectors
        Stains of the slide, from which *stain* is separated.

    Raises
    ------
    InputError
        A setting is outside its `LIMITS`, or the slide does not have *stain*.
    """

    brightness: float = 0.0
    contrast: float = 1.0
    gamma: float = 1.0
    stain: StainName = ""
    vectors: StainVectors = STAINS_OF_SLIDE[""]

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} must lie between {low:g} and {high:g}, not {value:g}")
        if self.stain and self.stain not in dict(self.vectors):
            raise InputError(f"this slide has no stain '{self.stain}'")

    @property
    def neutral(self) -> bool:
        """Whether pixels stay unchanged."""
        return not self.stain and (self.brightness, self.contrast, self.gamma) == (0.0, 1.0, 1.0)

    def levels(self) -> Pixels:
        """The intensity that is shown for each of 0 to 255, (256,) uint8."""
        level = np.arange(256) / 255.0
        level = np.clip((level - 0.5) * self.contrast + 0.5 + self.brightness, 0.0, 1.0)
        return np.rint(255.0 * level**self.gamma).astype(np.uint8)


def stains_of(kind: str, own: Mapping[str, Sequence[float]] | None = None) -> StainVectors:
    """Stains of a kind of slide ("he", "cd34", "caix"; others: all three).

    *own* holds the stain vectors measured on the slide, by stain; others are those of Ruifrok and
    Johnston.
    """
    usual = STAINS_OF_SLIDE.get(kind, STAINS_OF_SLIDE[""])
    found = own or {}
    return tuple((name, _vector(found.get(name, vector))) for name, vector in usual)


def _vector(values: Sequence[float]) -> Vector:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def prepare() -> None:
    """Compile the functions of `apply_display`, so that the first use does not wait."""
    pixel = np.zeros((1, 1, 3), np.uint8)
    apply_display(pixel, DisplaySettings(gamma=2.0))
    apply_display(pixel, DisplaySettings(stain="haematoxylin"))


def apply_display(pixels: Pixels, settings: DisplaySettings) -> Pixels:
    """Pixels (rows, columns, 3), uint8, as displayed; the same array with neutral settings.

    A single stain is separated by colour deconvolution (natural optical density, negative amounts
    are 0) and drawn on white in its own colour; brightness, contrast and gamma follow.
    """
    if settings.neutral:
        return pixels
    flat = np.ascontiguousarray(pixels)
    out: Pixels
    if settings.stain:
        tables = _density_tables(settings.vectors, settings.stain)
        out = _one_stain(flat, tables, _stain_colours(settings), _STEPS / _MAX_DENSITY)
    else:
        out = _through_table(flat, settings.levels())
    return out


def _density_tables(vectors: StainVectors, stain: StainName) -> NDArray[np.float32]:
    """Contribution of each intensity of each channel to the amount of a stain, (3, 256)."""
    names = [name for name, _ in vectors]
    directions: Sequence[Vector] = [vector for _, vector in vectors]
    inverse = np.linalg.inv(stain_matrix(*directions))[names.index(stain)]
    density = optical_density(np.arange(256, dtype=np.uint8))
    tables: NDArray[np.float32] = (inverse[:, None] * density[None, :]).astype(np.float32)
    return tables


def _stain_colours(settings: DisplaySettings) -> Pixels:
    """Colour of each amount of the stain, (steps + 1, 3)."""
    vector = np.asarray(dict(settings.vectors)[settings.stain], float)
    vector = np.clip(vector / np.linalg.norm(vector), 0.0, None)
    amount = np.arange(_STEPS + 1) * (_MAX_DENSITY / _STEPS)
    level = (WHITE_INTENSITY + 15.0) * np.exp(-amount[:, None] * vector)
    colours: Pixels = settings.levels()[np.clip(np.rint(level), 0, 255).astype(np.uint8)]
    return colours


@compiled
def _through_table(pixels: Pixels, table: Pixels) -> Pixels:
    out = np.empty_like(pixels)
    source, target = pixels.reshape(-1), out.reshape(-1)
    for n in range(source.size):
        target[n] = table[source[n]]
    return out


@compiled
def _one_stain(
    pixels: Pixels, tables: NDArray[np.float32], colours: Pixels, scale: float
) -> Pixels:
    out = np.empty_like(pixels)
    source, target = pixels.reshape(-1, 3), out.reshape(-1, 3)
    last = colours.shape[0] - 1
    factor = np.float32(scale)
    for n in range(source.shape[0]):
        amount = tables[0, source[n, 0]] + tables[1, source[n, 1]] + tables[2, source[n, 2]]
        step = min(last, max(0, int(amount * factor + np.float32(0.5))))
        target[n, 0] = colours[step, 0]
        target[n, 1] = colours[step, 1]
        target[n, 2] = colours[step, 2]
    return out
