"""Stain vectors of an H-DAB slide: estimated, picked or entered, and which stain a slide shows.

A stain vector is a direction in optical density (R, G, B).  Those of Ruifrok and Johnston are a
good start; a slide's own are estimated from its pixels, if it shows enough of either stain, or
picked from an area where a stain is pure.  A picked area that does not look like the stain is
refused, because a wrong vector changes every amount of stain on the slide.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
import scipy  # its parts are loaded on first use
from numpy.typing import NDArray

from napari_mosaik.core.colour import DAB, HAEMATOXYLIN, WHITE_INTENSITY, optical_density
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray

__all__ = [
    "HDabStain",
    "HDabStains",
    "PickedStain",
    "StainGuess",
    "check_apart",
    "fit_h_dab",
    "given_stains",
    "guess_stain",
    "pick_stain",
    "ruifrok_stains",
    "stain_colour",
    "stain_mismatch_warning",
]

StainVector = tuple[float, float, float]

MIN_OD: Final = {"haematoxylin": 0.45, "DAB": 0.7}
"""A pixel paler than this (length of its OD vector) says little about a stain's colour."""
DARKEST_LEVEL: Final = 12
"""A pixel with a darker channel is too near the end of the camera's range to keep its hue."""
MIN_PIXELS: Final = 150
MAX_DEG: Final = 20.0
"""A fitted stain farther than this from Ruifrok's is rejected."""
MIN_SEPARATION_DEG: Final = 15.0
_BIN_DEG: Final = 0.25
_SMOOTH_DEG: Final = 1.0
_NEAR_DEG: Final = 2.0
_PEAK_SHARE: Final = 0.4
"""A peak at least this high relative to the highest one of its stain counts; the purest is used."""


@dataclass(frozen=True, slots=True)
class HDabStains:
    """Unit OD directions (R, G, B) of haematoxylin and DAB, and where they come from.

    ``source`` is "slide", "ruifrok" or "manual"; ``reason`` says why the slide's own could not be
    used (empty otherwise).  ``pixels`` and ``angle_deg`` hold, for haematoxylin and DAB, the number
    of pixels that the vector was estimated from and its angle to Ruifrok's.
    """

    haematoxylin: StainVector
    dab: StainVector
    source: Literal["slide", "ruifrok", "manual"]
    reason: str = ""
    pixels: tuple[int, int] = (0, 0)
    angle_deg: tuple[float, float] = (0.0, 0.0)

    @property
    def matrix(self) -> FloatArray:
        """OD vectors as columns, shape (3, 2), dimensionless."""
        return np.array([self.haematoxylin, self.dab]).T

    def to_dict(self) -> dict[str, Any]:
        """JSON-able record."""
        return asdict(self)


def ruifrok_stains(reason: str = "", pixels: tuple[int, int] = (0, 0)) -> HDabStains:
    """The stains of Ruifrok and Johnston 2001, and why they are used."""
    return HDabStains(_unit(HAEMATOXYLIN), _unit(DAB), "ruifrok", reason, pixels)


def given_stains(haematoxylin: StainVector, dab: StainVector) -> HDabStains:
    """Manual stain vectors, of any length.

    Raises
    ------
    InputError
        If a vector is zero, has a negative part, or both have nearly the same colour.
    """
    for name, vector in (("haematoxylin", haematoxylin), ("DAB", dab)):
        if not all(math.isfinite(v) and v >= 0 for v in vector) or sum(vector) <= 0:
            raise InputError(
                f"the stain vector {vector} of {name} must hold three optical densities (red, "
                "green, blue) of 0 or more, not all 0"
            )
    one, other = _unit(haematoxylin), _unit(dab)
    if _angle(one, other) < 5:
        raise InputError(
            f"the stain vectors {haematoxylin} and {dab} have nearly the same colour; pick a "
            "purely blue and a purely brown area"
        )
    angles = (_angle(one, _unit(HAEMATOXYLIN)), _angle(other, _unit(DAB)))
    return HDabStains(one, other, "manual", angle_deg=angles)


def fit_h_dab(pixels: NDArray[np.uint8]) -> HDabStains:
    """Estimate a slide's own haematoxylin and DAB.

    Parameters
    ----------
    pixels
        (n, 3) 8-bit levels, pooled over the tissue; their order does not matter.

    Returns
    -------
    HDabStains
        The slide's own, or Ruifrok's with the reason.

    Notes
    -----
    Pixels are sorted by their angle in the plane of Ruifrok's two stains.  On either side of its
    middle the purest clear peak of that distribution is the stain, its direction the mean over the
    pixels within 2 degrees of the peak, in all three dimensions.  Percentiles of the angles would
    be drawn outwards by noise and, where a stain is rare, inwards by mixtures.
    """
    pixels = _checked(pixels)
    usable = pixels[pixels.min(axis=1, initial=255) >= DARKEST_LEVEL]
    od = optical_density(usable).astype(float)
    strength = np.linalg.norm(od, axis=1)
    angle, between = _angles(od)
    fitted: list[tuple[StainVector, int]] = []
    for name, side in (
        ("haematoxylin", angle < 0.45 * between),
        ("DAB", angle > 0.55 * between),
    ):
        use = side & (strength >= MIN_OD[name]) & (np.abs(angle - between / 2) < 60)
        n = int(use.sum())
        if n < MIN_PIXELS:
            return ruifrok_stains(f"only {n} sampled pixels show {name}; {MIN_PIXELS} are needed")
        vector, near = _purest(angle[use], od[use], -1 if name == "haematoxylin" else 1)
        if near < MIN_PIXELS:
            return ruifrok_stains(f"only {near} sampled pixels are of pure {name}")
        fitted.append((vector, near))
    (blue, n_blue), (brown, n_brown) = fitted
    angles = (_angle(blue, _unit(HAEMATOXYLIN)), _angle(brown, _unit(DAB)))
    for name, degrees in zip(("haematoxylin", "DAB"), angles, strict=True):
        if degrees > MAX_DEG:
            return ruifrok_stains(
                f"the estimated vector of {name} lies {degrees:.0f}° from the reference; at most "
                f"{MAX_DEG:.0f}° are accepted",
                (n_blue, n_brown),
            )
    if _angle(blue, brown) < MIN_SEPARATION_DEG:
        return ruifrok_stains(
            f"the two estimated vectors are only {_angle(blue, brown):.0f}° apart",
            (n_blue, n_brown),
        )
    return HDabStains(blue, brown, "slide", "", (n_blue, n_brown), angles)


@dataclass(frozen=True, slots=True)
class StainGuess:
    """Which stain the pixels of a slide show.

    ``kind`` is "H&E", "DAB" or "" (unclear); ``stained``, ``pink`` and ``brown`` are fractions: of
    stained pixels among all, of pink and of brown pixels among the stained.
    """

    kind: Literal["H&E", "DAB", ""]
    stained: float
    pink: float
    brown: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able record."""
        return asdict(self)


def guess_stain(pixels: NDArray[np.uint8]) -> StainGuess:
    """Tell an H&E from a DAB slide by sampled pixels, (n, 3) 8-bit levels.

    Pink (eosin) lies off the plane of haematoxylin and DAB by more than 8 degrees, on the side
    of green; brown has its largest optical density in blue.  H&E: at least a fifth of the stained
    pixels is pink, and four times as many as are brown.  DAB: at least 1 % is brown, and four
    times as many as are pink.
    """
    pixels = _checked(pixels)
    od = optical_density(pixels).astype(float)
    strength = np.linalg.norm(od, axis=1)
    stained = strength >= 0.35
    n = int(stained.sum())
    if n < MIN_PIXELS:
        return StainGuess("", n / max(1, len(pixels)), 0.0, 0.0)
    unit = od[stained] / strength[stained, None]
    normal = np.cross(_unit(HAEMATOXYLIN), _unit(DAB))
    off = np.degrees(np.arcsin(np.clip(unit @ (normal / np.linalg.norm(normal)), -1, 1)))
    pink = float(((off < -8) & (unit[:, 1] > 1.05 * unit[:, 2])).mean())
    brown = float(((unit[:, 2] > unit[:, 1]) & (unit[:, 2] > 1.2 * unit[:, 0])).mean())
    kind: Literal["H&E", "DAB", ""] = ""
    if pink >= 0.2 and pink > 4 * brown:
        kind = "H&E"
    elif brown >= 0.01 and brown > 4 * pink:
        kind = "DAB"
    return StainGuess(kind, n / len(pixels), pink, brown)


def stain_mismatch_warning(look: StainGuess, expected: Literal["H&E", "DAB"]) -> str:
    """A warning where a slide shows another stain than expected; empty where it does not."""
    if look.kind in ("", expected):
        return ""
    actual, wanted = ("an H&E slide", "a DAB slide")
    if expected == "H&E":
        actual, wanted = wanted, actual
    return (
        f"this looks like {actual}, not {wanted}: {look.pink:.0%} of the stained pixels are pink "
        f"and {look.brown:.1%} are brown. Check that the file belongs to this stain."
    )


def _checked(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if pixels.ndim != 2 or pixels.shape[1] != 3 or pixels.dtype != np.uint8:
        raise InputError(
            f"stain vectors need 8-bit pixels of shape (n, 3), not {pixels.dtype} {pixels.shape}"
        )
    return pixels


def _angles(od: FloatArray) -> tuple[FloatArray, float]:
    """Angle of each pixel in the plane of Ruifrok's stains, 0 at haematoxylin, and that of DAB."""
    first, second = np.array(_unit(HAEMATOXYLIN)), np.array(_unit(DAB))
    across = second - (second @ first) * first
    across /= np.linalg.norm(across)
    angle = np.degrees(np.arctan2(od @ across, od @ first))
    return angle, math.degrees(math.atan2(second @ across, second @ first))


def _purest(angle: FloatArray, od: FloatArray, outwards: int) -> tuple[StainVector, int]:
    """Direction of the outermost clear peak of the angles, and its number of pixels."""
    counts, edges = np.histogram(angle, np.arange(-60, 120 + _BIN_DEG, _BIN_DEG))
    height = scipy.ndimage.gaussian_filter1d(counts.astype(float), _SMOOTH_DEG / _BIN_DEG)
    peaks = np.flatnonzero((height[1:-1] >= height[:-2]) & (height[1:-1] > height[2:])) + 1
    clear = peaks[height[peaks] >= _PEAK_SHARE * height.max()]
    at = clear[-1 if outwards > 0 else 0]
    near = np.abs(angle - (edges[at] + _BIN_DEG / 2)) <= _NEAR_DEG
    return _unit(od[near].sum(axis=0)), int(near.sum())


def _unit(vector: Any) -> StainVector:
    values = np.asarray(vector, float)
    r, g, b = (float(v) for v in values / np.linalg.norm(values))
    return r, g, b


def _angle(one: StainVector, other: StainVector) -> float:
    return math.degrees(math.acos(min(1.0, float(np.dot(one, other)))))


HDabStain = Literal["haematoxylin", "dab"]

_USUAL: Final = {"haematoxylin": HAEMATOXYLIN, "dab": DAB}
_NAMES: Final = {"haematoxylin": ("haematoxylin", "blue"), "dab": ("DAB", "brown")}
_PICKED_MIN_OD: Final = 0.35
"""A pixel paler than this (length of its OD vector) counts as unstained."""
_PICKED_MIN_PIXELS: Final = 12
_PICKED_MIN_FRACTION: Final = 0.1
"""Minimum fraction of stained pixels in a picked area."""
_PICKED_MAX_DEG: Final = 25.0
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
    stained = strength >= _PICKED_MIN_OD
    n = int(stained.sum())
    if n < max(_PICKED_MIN_PIXELS, _PICKED_MIN_FRACTION * len(rgb)):
        raise InputError(
            f"this area is blank: {n} of {len(rgb)} pixels are stained; pick an area that is "
            f"{colour} throughout, such as {'a nucleus' if stain == 'haematoxylin' else 'a wall'}"
        )
    other: HDabStain = "dab" if stain == "haematoxylin" else "haematoxylin"
    mine = stained & (od @ _unit(_USUAL[stain]) > od @ _unit(_USUAL[other]))
    if mine.sum() < max(_PICKED_MIN_PIXELS, 0.5 * n):
        raise InputError(
            f"this area is {_NAMES[other][1]}, not {colour}: {n - int(mine.sum())} of its {n} "
            f"stained pixels look like {_NAMES[other][0]}; pick pure {name}"
        )
    vector = _unit(od[mine].sum(axis=0))
    degrees = _angle(vector, _unit(_USUAL[stain]))
    if degrees > _PICKED_MAX_DEG or min(vector) < 0:
        raise InputError(
            f"this area is not {colour}: its vector lies {degrees:.0f}° from that of {name}, at "
            f"most {_PICKED_MAX_DEG:.0f}° are accepted; pick an area without pigment, ink or eosin"
        )
    return PickedStain(stain, vector, int(mine.sum()), float(mine.sum() / len(rgb)), degrees)


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
    levels = WHITE_INTENSITY * np.exp(-strength * np.asarray(_unit(vector))) - 1
    red, green, blue = (int(v) for v in np.clip(np.rint(levels), 0, 255))
    return f"#{red:02x}{green:02x}{blue:02x}"
