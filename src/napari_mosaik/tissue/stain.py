"""Stain normalisation of H&E (Macenko): stain vectors fitted once per slide, pixels matched to a
reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import FloatArray, InputError, Params, setting
from napari_mosaik.core.colour import WHITE_INTENSITY
from napari_mosaik.core.compiled import compiled

__all__ = [
    "HE_REFERENCE",
    "MacenkoParams",
    "StainFit",
    "StainReference",
    "fit_macenko",
    "normalise",
]

Vectors = tuple[tuple[float, float, float], tuple[float, float, float]]


class MacenkoParams(Params):
    """Settings of the stain normalisation."""

    white: float = setting(
        WHITE_INTENSITY, "Intensity of the empty background.", label="White level", gt=1, le=256
    )
    min_od: float = setting(
        0.15,
        "Minimum natural optical density, in every channel, of a pixel that enters the fit.",
        unit="OD",
        label="Minimum OD",
        ge=0,
    )
    percentile: float = setting(
        1.0,
        "Percentile of the angles for the first stain vector; 100 % minus it for the second.",
        label="Angle percentile",
        unit="%",
        ge=0,
        lt=50,
    )
    max_percentile: float = setting(
        99.0,
        "Percentile of the stain amounts that is matched to the reference.",
        label="Stain percentile",
        unit="%",
        gt=50,
        le=100,
    )
    min_pixels: int = setting(
        100,
        "Minimum number of stained pixels; with fewer the slide is not normalised.",
        label="Minimum stained pixels",
        advanced=True,
        ge=3,
    )
    min_angle_deg: float = setting(
        3.0,
        "Minimum angle between the two stain vectors; below it the slide shows one stain only and "
        "is not normalised.",
        label="Minimum angle",
        unit="°",
        advanced=True,
        ge=0,
        lt=90,
    )
    min_cosine: float = setting(
        0.7,
        "Minimum cosine of each stain vector to its reference; below it the slide is not H&E.",
        label="Minimum cosine",
        advanced=True,
        ge=-1,
        le=1,
    )


@dataclass(frozen=True, slots=True)
class StainReference:
    """Reference stains: OD directions (R, G, B) and 99th percentile amounts (OD)."""

    vectors: Vectors
    max_concentration: tuple[float, float]


HE_REFERENCE: Final = StainReference(
    ((0.5626, 0.7201, 0.4062), (0.2159, 0.8012, 0.5581)), (1.9705, 1.0308)
)
"""Haematoxylin and eosin of Macenko's widely used reference."""


@dataclass(frozen=True, slots=True)
class StainFit:
    """Stains of one slide and the reference to which its pixels are matched.

    ``vectors`` are unit OD directions of haematoxylin and eosin.  If ``usable`` is False,
    ``reason`` says why and `normalise` leaves pixels as they are.
    """

    vectors: Vectors
    max_concentration: tuple[float, float]
    n_pixels: int
    usable: bool
    reason: str
    reference: StainReference = HE_REFERENCE
    white: float = WHITE_INTENSITY

    def to_dict(self) -> dict[str, Any]:
        """JSON-able record."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StainFit:
        """The inverse of `to_dict`."""
        reference = values["reference"]
        return cls(
            _pair(values["vectors"]),
            _two(values["max_concentration"]),
            int(values["n_pixels"]),
            bool(values["usable"]),
            str(values["reason"]),
            StainReference(_pair(reference["vectors"]), _two(reference["max_concentration"])),
            float(values["white"]),
        )


def fit_macenko(
    pixels: NDArray[Any],
    params: MacenkoParams | None = None,
    reference: StainReference = HE_REFERENCE,
) -> StainFit:
    """Estimate the two stain vectors of an H&E slide.

    Parameters
    ----------
    pixels
        (n, 3) RGB, pooled over the tissue of the whole slide; 8-bit (floating-point values on the
        same scale are accepted).  Their order does not matter.
    params
        Settings.
    reference
        Stains to which `normalise` brings the slide.

    Returns
    -------
    StainFit
        With ``usable`` False and a reason where the slide does not show two stains.

    Raises
    ------
    InputError
        If *pixels* has another shape.

    Notes
    -----
    Never meant for H-DAB slides: brown is not eosin.  A stain must be nearly pure in about 2 % of
    the pixels, otherwise the method itself finds mixed directions.

    References
    ----------
    Macenko et al. 2009, IEEE International Symposium on Biomedical Imaging: 1107-1110.
    """
    params = params or MacenkoParams()
    if pixels.ndim != 2 or pixels.shape[1] != 3:
        raise InputError(f"stain fitting needs pixels of shape (n, 3), not {pixels.shape}")
    colours, counts = _colours(pixels)
    od = -np.log((colours + 1.0) / params.white)
    stained = (od >= params.min_od).all(axis=1)
    n_pixels = int(counts[stained].sum())
    if n_pixels < params.min_pixels:
        reason = f"only {n_pixels} stained pixels; {params.min_pixels} are needed"
        return _refused(n_pixels, reason, reference, params)
    low, high = _extreme_directions(od[stained], counts[stained], params.percentile)
    vectors, reason = _assigned(low, high, reference, params)
    amounts = np.maximum(od @ np.linalg.pinv(vectors), 0.0)
    most = [_percentile(amounts[:, k], counts, params.max_percentile) for k in (0, 1)]
    if not reason and min(most) <= 0.01:
        reason = "one of the two stains is almost absent"
    return StainFit(
        _pair(vectors), _two(most), n_pixels, not reason, reason, reference, params.white
    )


def normalise(rgb: NDArray[np.uint8], fit: StainFit) -> NDArray[np.uint8]:
    """Match 8-bit levels of shape (..., 3) to the reference of the fit.

    Amounts of the two stains by least squares, clipped at 0, scaled to the reference's maximum,
    and recombined over white, rounded to the nearest level.  Pixels come back unchanged (a copy)
    if the fit is not usable.
    """
    if rgb.dtype != np.uint8 or rgb.shape[-1:] != (3,):
        raise InputError(f"stain normalisation needs 8-bit RGB, not {rgb.dtype} {rgb.shape}")
    if not fit.usable:
        return rgb.copy()
    od_of_level = -np.log((np.arange(256) + 1.0) / fit.white)
    unmix = np.linalg.pinv(np.asarray(fit.vectors, float))
    scale = np.asarray(fit.reference.max_concentration) / np.asarray(fit.max_concentration)
    mix = np.asarray(fit.reference.vectors, float) * scale[:, None]
    tables = _exposure(fit.white)
    flat = np.ascontiguousarray(rgb).reshape(-1, 3)
    out: NDArray[np.uint8] = _recombined(flat, od_of_level, unmix, mix, *tables).reshape(rgb.shape)
    return out


_STEPS: Final = 2048
"""Steps per unit of OD of the table that turns OD into levels."""


def _exposure(white: float) -> tuple[NDArray[np.uint8], FloatArray]:
    """Tables from OD to the rounded level: a first guess per step, and each level's largest OD."""
    level = np.arange(256)
    largest = np.where(level > 0, -np.log(np.maximum(level - 0.5, 0.5) / white), np.inf)
    steps = np.arange(int(np.ceil(np.log(2 * white) * _STEPS)) + 2) / _STEPS
    guess = np.clip(np.floor(white * np.exp(-steps) + 0.5), 0, 255).astype(np.uint8)
    return guess, np.asarray(largest, float)


@compiled
def _recombined(
    pixels: NDArray[np.uint8],
    od_of_level: FloatArray,
    unmix: FloatArray,
    mix: FloatArray,
    guess: NDArray[np.uint8],
    largest: FloatArray,
) -> NDArray[np.uint8]:
    out = np.empty_like(pixels)
    last = guess.size - 1
    for n in range(pixels.shape[0]):
        r = od_of_level[pixels[n, 0]]
        g = od_of_level[pixels[n, 1]]
        b = od_of_level[pixels[n, 2]]
        first = max(0.0, r * unmix[0, 0] + g * unmix[1, 0] + b * unmix[2, 0])
        second = max(0.0, r * unmix[0, 1] + g * unmix[1, 1] + b * unmix[2, 1])
        for c in range(3):
            od = max(0.0, first * mix[0, c] + second * mix[1, c])
            level = int(guess[min(last, int(od * _STEPS))])
            while od > largest[level]:
                level -= 1
            out[n, c] = level
    return out


def _colours(pixels: NDArray[Any]) -> tuple[FloatArray, NDArray[np.int64]]:
    """Different colours in a fixed order and how often each occurs."""
    if pixels.dtype != np.uint8:
        colours, counts = np.unique(pixels.astype(float), axis=0, return_counts=True)
        return colours, counts.astype(np.int64)
    wide = pixels.astype(np.uint32)
    packed = (wide[:, 0] << 16) | (wide[:, 1] << 8) | wide[:, 2]
    values, counts = np.unique(packed, return_counts=True)
    colours = np.stack([values >> 16, (values >> 8) & 255, values & 255], axis=1)
    return colours.astype(float), counts.astype(np.int64)


def _extreme_directions(
    od: FloatArray, counts: NDArray[np.int64], percentile: float
) -> tuple[FloatArray, FloatArray]:
    """Unit OD directions at the two ends of the fan of pixels in the plane of most variance."""
    weight = counts / counts.sum()
    centred = od - weight @ od
    _, axes = np.linalg.eigh((centred * weight[:, None]).T @ centred)
    leading, second = axes[:, 2], axes[:, 1]
    # Signs as positive as the pixels themselves, so that no angle wraps round.
    leading = leading * (1.0 if weight @ (od @ leading) > 0 else -1.0)
    second = second * (1.0 if second[0] > 0 else -1.0)
    angle = np.arctan2(od @ second, od @ leading)
    ends = [_percentile(angle, counts, p) for p in (percentile, 100 - percentile)]
    low, high = (np.cos(a) * leading + np.sin(a) * second for a in ends)
    return low, high


def _assigned(
    low: FloatArray, high: FloatArray, reference: StainReference, params: MacenkoParams
) -> tuple[FloatArray, str]:
    """(2, 3) haematoxylin and eosin, and why they cannot be trusted (empty if they can)."""
    vectors = np.stack([low, high] if low[0] > high[0] else [high, low])
    wanted = np.asarray(reference.vectors, float)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    cosine = vectors @ wanted.T
    angle = np.degrees(np.arccos(np.clip(low @ high, -1, 1)))
    if angle < params.min_angle_deg:
        return vectors, f"the slide shows one stain only (the two vectors are {angle:.1f}° apart)"
    if cosine[0, 1] + cosine[1, 0] > np.trace(cosine) + 1e-9:
        return vectors, "haematoxylin and eosin cannot be separated by their colours"
    if np.diag(cosine).min() < params.min_cosine:
        return vectors, "the stain vectors are not those of haematoxylin and eosin"
    return vectors, ""


def _percentile(values: FloatArray, counts: NDArray[np.int64], percent: float) -> float:
    """Percentile (linear interpolation) of values that occur *counts* times each."""
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(counts[order])
    position = percent / 100 * (int(upto[-1]) - 1)
    below = int(np.floor(position))
    at = np.searchsorted(upto, [below, min(below + 1, int(upto[-1]) - 1)], side="right")
    first, second = values[order[at[0]]], values[order[at[1]]]
    return float(first + (position - below) * (second - first))


def _refused(
    n_pixels: int, reason: str, reference: StainReference, params: MacenkoParams
) -> StainFit:
    most = reference.max_concentration
    return StainFit(reference.vectors, most, n_pixels, False, reason, reference, params.white)


def _pair(values: Any) -> Vectors:
    (a, b, c), (d, e, f) = ((float(v) for v in row) for row in values)
    return (a, b, c), (d, e, f)


def _two(values: Any) -> tuple[float, float]:
    first, second = (float(v) for v in values)
    return first, second
