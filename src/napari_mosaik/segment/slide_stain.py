"""Stains and DAB threshold of a slide, estimated from sampled pixels, and warnings about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.colour import DAB, HAEMATOXYLIN
from napari_mosaik.segment.filters import Float32, otsu, stain_amount
from napari_mosaik.segment.stain_vectors import (
    HDabStains,
    StainGuess,
    StainVector,
    fit_h_dab,
    given_stains,
    guess_stain,
    ruifrok_stains,
    stain_mismatch_warning,
)
from napari_mosaik.segment.vessel_params import VesselParams

__all__ = [
    "H_DAB",
    "SampledPixels",
    "Staining",
    "estimate_staining",
    "estimate_threshold",
    "result_warnings",
    "vessel_density",
]

H_DAB = np.array([HAEMATOXYLIN, DAB]).T
_OD_RANGE = 1.5
"""Stronger DAB counts as this much in the histogram: dark walls must not raise the threshold."""
_MANY = 0.3
"""A larger fraction of excluded objects is reported."""


def vessel_density(rgb: NDArray[np.uint8], vectors: ArrayLike | None = None) -> Float32:
    """Amount of DAB in natural OD, (rows, columns).

    Parameters
    ----------
    rgb
        (rows, columns, 3) 8-bit levels.
    vectors
        (3, 2) OD vectors of haematoxylin and DAB as columns; Ruifrok and Johnston 2001 if None.
    """
    return stain_amount(rgb, H_DAB if vectors is None else vectors, 1)


def estimate_threshold(od_samples: ArrayLike, params: VesselParams) -> float:
    """DAB threshold of a slide, natural OD, from amounts (n,) sampled over its tissue.

    Otsu's threshold over samples clipped to [0, 1.5], at least ``params.min_threshold_od``; the
    fixed value if the parameters say so.  NaN samples are ignored; without samples the fixed value
    is returned.
    """
    samples = np.asarray(od_samples, float).ravel()
    samples = samples[np.isfinite(samples)]
    if params.threshold == "fixed" or samples.size == 0:
        return params.dab_od
    return max(params.min_threshold_od, otsu(np.clip(samples, 0, _OD_RANGE), 0.0, _OD_RANGE))


@dataclass(frozen=True, slots=True, eq=False)
class Staining:
    """Stains and DAB threshold of a slide, and whether it shows DAB at all.

    ``threshold`` is an amount of DAB in natural OD; ``warnings`` are messages for the user.
    """

    stains: HDabStains
    threshold: float
    guess: StainGuess
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able record."""
        return {
            "stains": self.stains.to_dict(),
            "threshold_od": self.threshold,
            "look": self.guess.to_dict(),
            "warnings": list(self.warnings),
        }


class SampledPixels:
    """Pixels sampled over the tissue of a slide, with what they show for any settings.

    The stains are kept once they are fitted, so that settings can be tried one after the other.

    Parameters
    ----------
    pixels
        (n, 3) 8-bit levels.
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels

    @cached_property
    def guess(self) -> StainGuess:
        """Which stain the slide shows."""
        return guess_stain(self.pixels)

    @cached_property
    def own_stains(self) -> HDabStains:
        """The slide's own haematoxylin and DAB."""
        return fit_h_dab(self.pixels)

    def stains(
        self,
        source: Literal["slide", "ruifrok", "manual"],
        manual: tuple[StainVector, StainVector] | None = None,
    ) -> tuple[HDabStains, tuple[str, ...]]:
        """The stains of a setting, and warnings: another stain, or no stains of the slide's own."""
        warnings = [text for text in (stain_mismatch_warning(self.guess, "DAB"),) if text]
        stains = ruifrok_stains()
        if source == "manual" and manual is not None:
            stains = given_stains(*manual)
        elif source == "slide":
            stains = self.own_stains
        if stains.reason:
            warnings.append(
                f"the slide's own stain vectors could not be estimated ({stains.reason}); those of "
                "Ruifrok and Johnston are used"
            )
        return stains, tuple(warnings)


def estimate_staining(sampled: NDArray[np.uint8] | SampledPixels, params: VesselParams) -> Staining:
    """Stains, DAB threshold and guessed stain of a slide.

    *sampled* are pixels over its tissue, (n, 3) 8-bit levels; the threshold is a natural OD.
    """
    if not isinstance(sampled, SampledPixels):
        sampled = SampledPixels(sampled)
    manual = (params.haematoxylin_vector, params.dab_vector)
    stains, warnings = sampled.stains(params.stains, manual)
    density = vessel_density(sampled.pixels.reshape(1, -1, 3), stains.matrix)
    return Staining(stains, estimate_threshold(density, params), sampled.guess, warnings)


def result_warnings(
    n_vessels: int, excluded: Mapping[str, int], staining: Staining, params: VesselParams
) -> list[str]:
    """Warnings about a result: no vessel at all, or many excluded objects."""
    n_out = sum(excluded.values())
    if n_vessels == 0:
        if staining.guess.stained < 0.001:
            why = "hardly any pixel of the tissue is stained (blank, or of one colour)"
        elif n_out:
            why = "every DAB object was excluded (" + _listed(excluded) + ")"
        elif params.method == "hsv":
            why = "no object of brown hue is large enough"
        else:
            why = (
                f"no object of at least {params.min_area_um2:g} µm² reaches a DAB of "
                f"{staining.threshold:.2f} OD"
            )
        return [f"no vessel was found: {why}"]
    if n_out > 5 and n_out > _MANY * (n_vessels + n_out):
        return [
            f"{n_out} of {n_vessels + n_out} DAB objects were excluded ({_listed(excluded)}). "
            "Review them and disable the rule that does not apply to this slide."
        ]
    return []


def _listed(excluded: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in excluded.items() if count)
