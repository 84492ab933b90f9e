"""Intervals of tiles and of indices from draws, streamed: nothing of tiles x draws is kept."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.core.progress import blocking, checkpoint
from napari_mosaik.dosimetry.checks import not_negative, within_limits
from napari_mosaik.dosimetry.indices import (
    dose_volume,
    equivalent_uniform_dose,
    tumour_control,
)

__all__ = ["DRAWN_INDICES", "DrawSummary", "iter_summarise_draws", "summarise_draws"]

DRAWN_INDICES = ("d98_gy", "d50_gy", "d2_gy", "mean_gy", "eud_gy", "tcp")
"""Indices of each draw: doses, Gy, and tumour control probability."""
_TILE_QUANTITIES = ("dose_gy", "bed_gy", "eqd2_gy", "ln_survival")
_BLOCK = 1 << 20
"""Elements of one block of tiles x draws: 8 MiB for each array of it."""

Evaluate = Callable[[slice, slice], Any]


@dataclass(frozen=True, slots=True, eq=False)
class DrawSummary:
    """What draws of the response of tiles come to.

    Attributes
    ----------
    tiles
        (q, n) quantiles of each tile by quantity, in the unit of its name (Gy or none).
    indices
        (draws,) of each of `DRAWN_INDICES`; joint, so that they may be compared draw by draw.
    histogram_gy, histogram
        (m,) doses, Gy, and (draws, m) share of the weight with at least each, %; m is 0 unless it
        was asked for.
    """

    tiles: Mapping[str, FloatArray]
    indices: Mapping[str, FloatArray]
    histogram_gy: FloatArray
    histogram: FloatArray


def iter_summarise_draws(
    evaluate: Evaluate,
    n_draws: int,
    weight: ArrayLike,
    *,
    alpha_per_gy: ArrayLike,
    beta_per_gy2: ArrayLike,
    clonogens: ArrayLike,
    g: ArrayLike = 1.0,
    percent: Sequence[float] = (5.0, 50.0, 95.0),
    quantities: Sequence[str] = _TILE_QUANTITIES,
    histogram: int = 0,
) -> Generator[float, None, DrawSummary]:
    """Quantiles of every tile and indices of every draw, block by block.

    *evaluate* is called twice for each tile and draw: with all draws of some tiles, for the
    quantiles, and with all tiles of some draws, for the indices.  It must give the same both times.

    Parameters
    ----------
    evaluate
        Takes a slice of draws and one of tiles; returns their response, of shape (d, t): a
        `Response`, or whatever has the *quantities*, ``dose_gy`` and ``ln_survival``.
    n_draws
        Number of draws, at least 1.
    weight
        (n,) share of neoplastic area of each tile, of any unit; NaN or 0 does not count in indices.
    alpha_per_gy, beta_per_gy2
        () or (draws,): coefficients of the equivalent uniform dose, 1/Gy and 1/Gy².
    clonogens, g
        () or (draws,): number of clonogenic cells, and protraction factor of the uniform dose.
    percent
        Quantiles of each tile, %.
    quantities
        Attributes of the response whose quantiles are kept, in the unit of their names.
    histogram
        Number of doses, from 0 to the largest quantile, at which the dose-volume histogram of each
        draw is kept; 0 keeps none.

    Yields
    ------
    float
        Fraction that is done.

    Returns
    -------
    DrawSummary
        NaN for tiles whose response is NaN.

    Raises
    ------
    InputError
        If there is no draw or tile, or as `dose_volume`, `tumour_control` and
        `equivalent_uniform_dose`.
    """
    weights = not_negative("the weight", weight)
    shares = within_limits("the quantiles", percent, 0, 100)
    if n_draws < 1 or weights.ndim != 1 or not weights.size:
        raise InputError("at least one draw and one tile with a weight are needed")
    tiles = yield from _quantiles(evaluate, n_draws, weights.size, shares, quantities)
    per_draw = [
        np.broadcast_to(np.asarray(value, float), n_draws)
        for value in (alpha_per_gy, beta_per_gy2, clonogens, g)
    ]
    largest = np.nanmax(tiles["dose_gy"], initial=0.0) if histogram else 0.0
    doses = np.linspace(0.0, largest, histogram)
    indices, volume = yield from _indices(evaluate, weights, per_draw, doses)
    return DrawSummary(tiles, indices, doses, volume)


summarise_draws = blocking(iter_summarise_draws)


def _quantiles(
    evaluate: Evaluate, n_draws: int, n: int, percent: FloatArray, quantities: Sequence[str]
) -> Generator[float, None, dict[str, FloatArray]]:
    """(q, n) quantiles of each tile; blocks of tiles with all their draws."""
    found = {name: np.full((percent.size, n), np.nan) for name in quantities}
    size = max(1, _BLOCK // n_draws)
    for start in range(0, n, size):
        yield 0.5 * start / n
        checkpoint()
        here = slice(start, min(start + size, n))
        response = evaluate(slice(0, n_draws), here)
        for name, quantiles in found.items():
            quantiles[:, here] = _sorted_quantiles(getattr(response, name), percent)
    return found


def _sorted_quantiles(values: FloatArray, percent: FloatArray) -> FloatArray:
    """(q, t) quantiles of (d, t) values as `numpy.percentile`, which takes four times as long."""
    ordered = np.sort(np.ascontiguousarray(values.T), axis=1)
    at = percent / 100 * (len(values) - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, len(values) - 1)
    found = ordered[:, low] + (at - low) * (ordered[:, high] - ordered[:, low])
    return np.where(np.isnan(ordered[:, -1]), np.nan, found.T)


def _indices(
    evaluate: Evaluate, weights: FloatArray, per_draw: Sequence[FloatArray], doses: FloatArray
) -> Generator[float, None, tuple[dict[str, FloatArray], FloatArray]]:
    """(draws,) of each index, and (draws, m) volumes, %, at doses (m,), Gy; blocks of draws."""
    n_draws, size = per_draw[0].size, max(1, _BLOCK // weights.size)
    rows: list[tuple[float, ...]] = []
    volume = np.zeros((n_draws, doses.size))
    for start in range(0, n_draws, size):
        yield 0.5 + 0.5 * start / n_draws
        checkpoint()
        here = slice(start, min(start + size, n_draws))
        response = evaluate(here, slice(0, weights.size))
        alpha, beta, clonogens, g = (value[here] for value in per_draw)
        control = tumour_control(response.ln_survival, weights, clonogens=clonogens)
        mean = control.ln_survivors - np.log(clonogens)
        uniform = equivalent_uniform_dose(
            mean[:, None], 1.0, alpha_per_gy=alpha, beta_per_gy2=beta, g=g
        )
        for dose, eud, tcp in zip(response.dose_gy, uniform, control.probability, strict=True):
            histogram = dose_volume(dose, weights)
            volume[len(rows)] = histogram.volume_at(doses)
            rows.append((*histogram.dose_at([98, 50, 2]), histogram.mean_gy, eud, tcp))
    return dict(zip(DRAWN_INDICES, np.array(rows, float).T, strict=True)), volume
