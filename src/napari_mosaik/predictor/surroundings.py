"""What a scanner sees of the tile parameters: means over the tile's surroundings.

A PET value is a mean over millimetres, so a regression that sees one tile of 0.4 mm has no chance
against a network with a window.  The stacks of columns made here give it the same view.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Final, Literal

import numpy as np
from scipy.ndimage import gaussian_filter1d, uniform_filter1d

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.predictor.inputs import TileInputs

__all__ = ["SIGMA_PER_FWHM", "Stack", "Surroundings", "tile_pitch_um"]

Stack = Literal["tile", "psf", "all"]
"""Columns of a regression: the tile alone, the means that the scanner sees, or both and more."""

SIGMA_PER_FWHM: Final = 1.0 / 2.3548200450309493
CUT_SIGMA: Final = 4.0
"""The scanner's Gaussian is cut at this many standard deviations."""
_BOXES: Final = (3, 11)


def tile_pitch_um(inputs: TileInputs) -> tuple[float, float]:
    """Distance of neighbouring tiles along rows and columns, µm.

    A direction with one row of tiles takes that of the other.

    Raises
    ------
    InputError
        The case has one tile only.
    """
    found = []
    for axis in (0, 1):
        cells, centres = inputs.cells[:, axis], inputs.centres_um[:, axis]
        if len(cells) and np.ptp(cells) > 0:
            found.append(float(np.ptp(centres) / np.ptp(cells)))
        else:
            found.append(np.nan)
    if np.isnan(found).all():
        raise InputError(f"case {inputs.case}: one tile has no surroundings; tile more tissue")
    rows, cols = (float(np.nanmax(found)) if np.isnan(pitch) else pitch for pitch in found)
    return rows, cols


class Surroundings:
    """The columns of one case's regressions.

    Parameters
    ----------
    inputs
        (n) tiles of a case, with f parameters.
    fwhm_um
        Resolution of the scanner in µm of the reference section.
    """

    def __init__(self, inputs: TileInputs, fwhm_um: float) -> None:
        if not fwhm_um > 0 or not np.isfinite(fwhm_um):
            raise InputError(f"a PET resolution of {fwhm_um} µm is not possible; give it in µm")
        self.inputs, self.fwhm_um = inputs, fwhm_um

    def columns(self, stack: Stack) -> FloatArray:
        """(n, k) parameters of *stack*, each µm, µm², 1... as in its catalogue; NaN: no value."""
        if stack == "tile":
            return self.inputs.features
        return self.scanner_means if stack == "psf" else self._all

    def names(self, stack: Stack) -> tuple[str, ...]:
        """Names of the columns of *stack*."""
        own = self.inputs.feature_names
        seen = tuple(f"{name} (scanner)" for name in own)
        boxes = tuple(f"{name} ({box} x {box})" for box in _BOXES for name in own)
        return {"tile": own, "psf": seen, "all": (*own, *boxes, *seen)}[stack]

    @cached_property
    def scanner_means(self) -> FloatArray:
        """(n, f) means weighted by the scanner's Gaussian and the tissue in each tile."""
        pitch = tile_pitch_um(self.inputs)
        sigma = [self.fwhm_um * SIGMA_PER_FWHM / step for step in pitch]

        def blurred(values: FloatArray) -> FloatArray:
            for axis in (0, 1):
                values = gaussian_filter1d(
                    values, sigma[axis], axis=axis, mode="constant", truncate=CUT_SIGMA
                )
            return values

        return self._means(blurred)

    @cached_property
    def _all(self) -> FloatArray:
        parts = [self.inputs.features]
        for box in _BOXES:

            def boxed(values: FloatArray, box: int = box) -> FloatArray:
                for axis in (0, 1):
                    values = uniform_filter1d(values, box, axis=axis, mode="constant")
                return values

            parts.append(self._means(boxed))
        return np.concatenate([*parts, self.scanner_means], axis=1)

    def _means(self, smooth: Callable[[FloatArray], FloatArray]) -> FloatArray:
        """(n, f) weighted means of the tiles with a value, in the unit of each parameter."""
        inputs = self.inputs
        rows, cols = (inputs.cells - inputs.cells.min(axis=0)).T
        shape = (int(rows.max()) + 1, int(cols.max()) + 1, len(inputs.feature_names))
        known = np.isfinite(inputs.features)
        weight, total = np.zeros(shape), np.zeros(shape)
        weight[rows, cols] = known * inputs.covered[:, None]
        total[rows, cols] = weight[rows, cols] * np.where(known, inputs.features, 0.0)
        reached = np.maximum(smooth(weight)[rows, cols], 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            # Sliding sums leave rounding behind where no tile is in reach.
            return np.where(reached > 1e-9, smooth(total)[rows, cols] / reached, np.nan)
