"""What a scanner sees of the tile parameters: means over the tile's surroundings.

A PET value is a mean over millimetres, so a regression that sees one tile of 0.4 mm has no chance
against a network with a window.  The stacks of columns made here give it the same view: means over
the tissue in reach, the share of tissue in reach, and the product of both.  Without the share a
regression cannot know that the picture falls off at the rim of the tissue.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, uniform_filter1d

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.predictor.inputs import TileInputs

__all__ = [
    "SIGMA_PER_FWHM",
    "Stack",
    "Surroundings",
    "column_statistics",
    "slide_columns",
    "tile_pitch_um",
]

Stack = Literal["tile", "psf", "all"]
"""Columns of a regression: the tile alone, what the scanner sees, or both and more."""

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
            raise InputError(f"a PET resolution of {fwhm_um} µm is not valid; give it in µm")
        self.inputs, self.fwhm_um = inputs, fwhm_um

    def columns(self, stack: Stack) -> FloatArray:
        """(n, k) parameters of *stack*, each µm, µm², 1... as in its catalogue; NaN: no value.

        An amount is a mean times the dimensionless share of tissue, in the unit of the mean.
        """
        if stack == "tile":
            return self.inputs.features
        return self._scanner if stack == "psf" else self._all

    def names(self, stack: Stack) -> tuple[str, ...]:
        """Names of the columns of *stack*."""
        own = self.inputs.feature_names
        seen = _names(own, "scanner")
        boxes = tuple(name for box in _BOXES for name in _names(own, f"{box} x {box}"))
        return {"tile": own, "psf": seen, "all": (*own, *boxes, *seen)}[stack]

    @cached_property
    def scanner_means(self) -> FloatArray:
        """(n, f) means weighted by the scanner's Gaussian and the tissue in each tile."""
        return self._means(self._gaussian)[0]

    @cached_property
    def _scanner(self) -> FloatArray:
        return _with_amounts(*self._means(self._gaussian))

    @cached_property
    def _all(self) -> FloatArray:
        parts = [self.inputs.features]
        for box in _BOXES:

            def boxed(values: FloatArray, box: int = box) -> FloatArray:
                for axis in (0, 1):
                    values = uniform_filter1d(values, box, axis=axis, mode="constant")
                return values

            parts.append(_with_amounts(*self._means(boxed)))
        return np.concatenate([*parts, self._scanner], axis=1)

    def _gaussian(self, values: FloatArray) -> FloatArray:
        """The scanner's blur of (rows, columns, k) values."""
        for axis, step in enumerate(tile_pitch_um(self.inputs)):
            values = gaussian_filter1d(
                values,
                self.fwhm_um * SIGMA_PER_FWHM / step,
                axis=axis,
                mode="constant",
                truncate=CUT_SIGMA,
            )
        return values

    def _means(self, smooth: Callable[[FloatArray], FloatArray]) -> tuple[FloatArray, FloatArray]:
        """(n, f) weighted means of the tiles with a value, and the (n,) share of tissue."""
        inputs = self.inputs
        rows, cols = (inputs.cells - inputs.cells.min(axis=0)).T
        n_features = len(inputs.feature_names)
        shape = (int(rows.max()) + 1, int(cols.max()) + 1, n_features)
        known = np.isfinite(inputs.features)
        weight, total = np.zeros((*shape[:2], n_features + 1)), np.zeros(shape)
        weight[rows, cols, :n_features] = known * inputs.covered[:, None]
        weight[rows, cols, n_features] = inputs.covered
        total[rows, cols] = weight[rows, cols, :n_features] * np.where(known, inputs.features, 0.0)
        reached = np.maximum(smooth(weight)[rows, cols], 0.0)
        tissue, reached = reached[:, n_features], reached[:, :n_features]
        with np.errstate(invalid="ignore", divide="ignore"):
            # Sliding sums leave rounding behind where no tile is in reach.
            means = np.where(reached > 1e-9, smooth(total)[rows, cols] / reached, np.nan)
        return means, tissue


def _with_amounts(means: FloatArray, tissue: FloatArray) -> FloatArray:
    """(n, 2 f + 1) means, means times tissue, and tissue."""
    return np.concatenate([means, means * tissue[:, None], tissue[:, None]], axis=1)


def _names(own: tuple[str, ...], seen: str) -> tuple[str, ...]:
    """Names of what `_with_amounts` gives."""
    means = tuple(f"{name} ({seen})" for name in own)
    return (*means, *(f"{name} ({seen}, amount)" for name in own), f"tissue ({seen})")


def slide_columns(inputs: TileInputs, fwhm_um: float) -> FloatArray:
    """Tile parameters and their means over what the scanner sees, (n, k); µm, fractions..."""
    seen = Surroundings(inputs, fwhm_um)
    return np.concatenate([seen.columns("tile"), seen.scanner_means], axis=1)


def column_statistics(columns: NDArray[Any]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Median, mean and SD (k,) of columns (m, k) with NaN where not known; µm, fractions...

    The mean and the SD are those after a missing value became the median; an SD of 0 becomes 1.
    """
    known = np.where(np.isfinite(columns), columns, np.nan)
    empty = np.isnan(known).all(axis=0)
    median = np.where(empty, 0.0, np.nanmedian(np.where(empty, 0.0, known), axis=0))
    filled = np.where(np.isnan(known), median, known)
    spread = filled.std(axis=0)
    return median, filled.mean(axis=0), np.where(spread > 0, spread, 1.0)
