"""The vector of one stain, picked from an area of a slide where it is pure.

An area that does not look like the stain is refused, because a wrong vector changes every amount of
stain on the slide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.colour import DAB, HAEMATOXYLIN, WHITE_INTENSITY, optical_density
from napari_mosaik.core.errors import InputError
from napari_mosaik.segment.stain_vectors import DARKEST_LEVEL, MIN_SEPARATION_DEG, StainVector

__all__ = ["HDabStain", "PickedStain", "check_apart", "pick_stain", "stain_colour"]

HDabStain = Literal["haematoxylin", "dab"]

_USUAL: Final = {"haematoxylin": HAEMATOXYLIN, "dab": DAB}
_NAMES: Final = {"haematoxylin": ("haematoxylin", "blue"), "dab": ("DAB", "brown")}
_MIN_OD: Final = 0.35
"""A pixel paler than this (length of its OD vector) counts as unstained."""
_MIN_PIXELS: Final = 12
_MIN_FRACTION: Final = 0.1
"""Minimum fraction of stained pixels in a picked area."""
_MAX_DEG: Final = 25.0
"""A vector farther than this from the reference of its stain is rejected."""


@dataclass(frozen=True, slots=True)
class PickedStain:
    """A picked stain vector.

    Parameters
    ----------
    stain
        "haematoxylin" or "dab".
    vector
        Unit direction in optical density (R, G, B).
    pixels, share
        Number of stained pixels that were used, and their fraction of the area.
    angle_deg
        Angle to the reference vector of the stain (Ruifrok and Johnston 2001), degrees.
    """

    stain: HDabStain
    vector: StainVector
    pixels: int
    share: float
    angle_deg: float


def pick_stain(rgb: NDArray[np.uint8], stain: HDabStain) -> PickedStain:
    """The vector of a stain from the pixels of an area that shows it pure.

    Parameters
    ----------
    rgb
        (n, 3) 8-bit levels; their order does not matter.
    stain
        Which stain the area shows.

    Returns
    -------
    PickedStain
        Direction of the sum of the optical densities of the stained pixels on this stain's side.

    Raises
    ------
    InputError
        The area is blank, too dark, shows mostly the other stain, or neither brown nor blue; the
        message says what to pick instead.

    Notes
    -----
    A sum of densities weights strongly stained pixels, whose direction is the least noisy.  Pixels
    nearer to the reference of the other stain are ignored, so that some brown beside a blue nucleus
    changes nothing.
    """
    name, colour = _NAMES[stain]
    bright = rgb[rgb.min(axis=1, initial=255) >= DARKEST_LEVEL]
    if len(bright) < 0.5 * len(rgb):
        raise InputError(f"this area is nearly black; pick a paler area of pure {name}")
    od = optical_density(bright).astype(float)
    strength = np.linalg.norm(od, axis=1)
    stained = strength >= _MIN_OD
    n = int(stained.sum())
    if n < max(_MIN_PIXELS, _MIN_FRACTION * len(rgb)):
        raise InputError(
            f"this area is blank: {n} of {len(rgb)} pixels are stained; pick an area that is "
            f"{colour} throughout, such as {'a nucleus' if stain == 'haematoxylin' else 'a wall'}"
        )
    other: HDabStain = "dab" if stain == "haematoxylin" else "haematoxylin"
    mine = stained & (od @ _unit(_USUAL[stain]) > od @ _unit(_USUAL[other]))
    if mine.sum() < max(_MIN_PIXELS, 0.5 * n):
        raise InputError(
            f"this area is {_NAMES[other][1]}, not {colour}: {n - int(mine.sum())} of its {n} "
            f"stained pixels look like {_NAMES[other][0]}; pick pure {name}"
        )
    vector = _unit(od[mine].sum(axis=0))
    degrees = _angle(vector, _unit(_USUAL[stain]))
    if degrees > _MAX_DEG or vector.min() < 0:
        raise InputError(
            f"this area is not {colour}: its vector lies {degrees:.0f}° from that of {name}, at "
            f"most {_MAX_DEG:.0f}° are accepted; pick an area without pigment, ink or eosin"
        )
    red, green, blue = (float(v) for v in vector)
    return PickedStain(
        stain, (red, green, blue), int(mine.sum()), float(mine.sum() / len(rgb)), degrees
    )


def check_apart(haematoxylin: StainVector, dab: StainVector) -> None:
    """Raise `InputError` for two vectors of nearly the same colour: they do not separate stains."""
    degrees = _angle(_unit(haematoxylin), _unit(dab))
    if degrees < MIN_SEPARATION_DEG:
        raise InputError(
            f"the two stain vectors are only {degrees:.0f}° apart; at least "
            f"{MIN_SEPARATION_DEG:.0f}° are needed. Pick purer areas: blue without brown over it, "
            "or brown without a nucleus below it."
        )


def stain_colour(vector: StainVector, strength: float = 1.0) -> str:
    """The colour "#rrggbb" of a stain at a natural optical density, as it looks on the slide."""
    levels = WHITE_INTENSITY * np.exp(-strength * _unit(vector)) - 1
    red, green, blue = (int(v) for v in np.clip(np.rint(levels), 0, 255))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _unit(vector: object) -> NDArray[np.float64]:
    values = np.asarray(vector, float)
    return np.asarray(values / np.linalg.norm(values), float)


def _angle(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return math.degrees(math.acos(min(1.0, float(one @ other))))
