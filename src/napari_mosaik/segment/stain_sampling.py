"""The colour of one stain, picked from a place of a slide where it is pure.

What is picked must look like the stain that was asked for; what does not is refused, with what to
do, because a wrong vector changes every amount of stain on the slide.
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
_WORDS: Final = {"haematoxylin": ("haematoxylin", "blue"), "dab": ("DAB", "brown")}
_LEAST_OD: Final = 0.35
"""A pixel paler than this (length of its OD vector) counts as not stained."""
_LEAST_PIXELS: Final = 12
_LEAST_SHARE: Final = 0.1
"""Of the pixels of a picked place at least this share must be stained."""
_MOST_DEG: Final = 25.0
"""A colour farther than this from the usual one of its stain is no such stain."""


@dataclass(frozen=True, slots=True)
class PickedStain:
    """A stain as it was picked.

    Parameters
    ----------
    stain
        "haematoxylin" or "dab".
    vector
        Unit direction in optical density (R, G, B).
    pixels, share
        Stained pixels that were used, and their share of all pixels of the place.
    angle_deg
        Angle to the usual vector of that stain (Ruifrok and Johnston 2001), degrees.
    """

    stain: HDabStain
    vector: StainVector
    pixels: int
    share: float
    angle_deg: float


def pick_stain(rgb: NDArray[np.uint8], stain: HDabStain) -> PickedStain:
    """The colour of a stain from the pixels of a place that shows it pure.

    Parameters
    ----------
    rgb
        (n, 3) 8-bit pixels; their order does not matter.
    stain
        Which stain the place shows.

    Returns
    -------
    PickedStain
        Direction of the sum of the optical densities of the stained pixels on this stain's side.

    Raises
    ------
    InputError
        The place is blank, too dark, shows mostly the other stain, or is neither brown nor blue;
        the message says what to pick instead.

    Notes
    -----
    A sum of densities weighs strongly stained pixels more, whose direction is the least noisy.
    Pixels nearer to the usual vector of the other stain are left out, so that a bit of brown beside
    a blue nucleus changes nothing.
    """
    name, colour = _WORDS[stain]
    bright = rgb[rgb.min(axis=1, initial=255) >= DARKEST_LEVEL]
    if len(bright) < 0.5 * len(rgb):
        raise InputError(f"this place is nearly black; pick a paler place of pure {name}")
    od = optical_density(bright).astype(float)
    strength = np.linalg.norm(od, axis=1)
    stained = strength >= _LEAST_OD
    n = int(stained.sum())
    if n < max(_LEAST_PIXELS, _LEAST_SHARE * len(rgb)):
        raise InputError(
            f"this place is blank: {n} of {len(rgb)} pixels are stained; pick a place that is "
            f"{colour} all over, such as {'a nucleus' if stain == 'haematoxylin' else 'a wall'}"
        )
    other: HDabStain = "dab" if stain == "haematoxylin" else "haematoxylin"
    mine = stained & (od @ _unit(_USUAL[stain]) > od @ _unit(_USUAL[other]))
    if mine.sum() < max(_LEAST_PIXELS, 0.5 * n):
        raise InputError(
            f"this place is {_WORDS[other][1]}, not {colour}: {n - int(mine.sum())} of its {n} "
            f"stained pixels look like {_WORDS[other][0]}; pick pure {name}"
        )
    vector = _unit(od[mine].sum(axis=0))
    degrees = _angle(vector, _unit(_USUAL[stain]))
    if degrees > _MOST_DEG or vector.min() < 0:
        raise InputError(
            f"this place is not {colour}: its colour lies {degrees:.0f}° from that of {name}, at "
            f"most {_MOST_DEG:.0f}° are believed; pick a place without pigment, ink or eosin"
        )
    red, green, blue = (float(v) for v in vector)
    return PickedStain(
        stain, (red, green, blue), int(mine.sum()), float(mine.sum() / len(rgb)), degrees
    )


def check_apart(haematoxylin: StainVector, dab: StainVector) -> None:
    """Refuse two vectors of nearly the same colour: stains cannot be told apart with them."""
    degrees = _angle(_unit(haematoxylin), _unit(dab))
    if degrees < MIN_SEPARATION_DEG:
        raise InputError(
            f"the two stain vectors are only {degrees:.0f}° apart; at least "
            f"{MIN_SEPARATION_DEG:.0f}° are needed. Pick purer areas: blue without brown over it, "
            "or brown without a nucleus below it."
        )


def stain_colour(vector: StainVector, strength: float = 1.0) -> str:
    """The colour "#rrggbb" of a stain at some natural optical density, as it looks on the slide."""
    levels = WHITE_INTENSITY * np.exp(-strength * _unit(vector)) - 1
    red, green, blue = (int(v) for v in np.clip(np.rint(levels), 0, 255))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _unit(vector: object) -> NDArray[np.float64]:
    values = np.asarray(vector, float)
    return np.asarray(values / np.linalg.norm(values), float)


def _angle(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return math.degrees(math.acos(min(1.0, float(one @ other))))
