"""How far a prediction depends on inputs that are known only within limits.

    draws of all inputs at once (Latin hypercube) ─► prediction of each draw ─► SD of each tile
    predictions on the drawn numbers, a linear fit ─► share of each source

The model stays as it is: this is neither an error of the model nor an interval.  Maps and cluster
labels of a section that moves are those of `moved_map` and `moved_codes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import qmc

from napari_mosaik.core import FloatArray, InputError
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.predictor.inputs import CODE_CELLS, INVALID_CODE, code_windows
from napari_mosaik.predictor.multiscale import Scale

__all__ = [
    "InputSpread",
    "input_draws",
    "input_spread",
    "moved_codes",
    "moved_map",
    "window_sums",
]


def input_draws(n: int, d: int, seed: int) -> FloatArray:
    """Draws (n, d) of d independent standard normal numbers, dimensionless, by Latin hypercube.

    Each number has one draw in each of n equally likely ranges.  Mean 0, SD 1 and no correlation
    hold exactly, so the spread of a function that is linear in them does not depend on chance.
    Raises `InputError` with fewer than d + 4 draws.
    """
    if n < d + 4:
        raise InputError(f"{n} draws of the inputs: give at least {d + 4}, or 0 for none")
    unit = qmc.LatinHypercube(d, rng=np.random.default_rng(seed)).random(n)
    drawn = ndtri(np.clip(unit, 1e-12, 1 - 1e-12))
    drawn -= drawn.mean(axis=0)
    root = np.linalg.cholesky(np.cov(drawn.T).reshape(d, d))
    return np.asarray(np.linalg.solve(root, drawn.T).T, float)


@dataclass(frozen=True, slots=True, eq=False)
class InputSpread:
    """Spread of the predictions of n tiles over draws of their inputs.

    Parameters
    ----------
    sd
        (n,) SD over the draws, in the unit of the prediction; NaN where not predicted.
    shares
        (n,) share of each source in the variance, by its name; NaN where nothing varies.
    rest
        (n,) share that no source has alone: inputs acting together, and curvature.
    slide_mean_sd
        SD of the mean over the predicted tiles, in the unit of the prediction.
    """

    sd: FloatArray
    shares: dict[str, FloatArray]
    rest: FloatArray
    slide_mean_sd: float

    def totals(self) -> dict[str, float]:
        """Share of each source, and the rest, in the variance of all tiles; dimensionless."""
        weight = self.sd**2
        known = np.isfinite(self.rest)
        total = float(weight[known].sum())
        named = {**self.shares, "rest": self.rest}
        return {
            name: float((weight[known] * share[known]).sum() / total) if total > 0 else 0.0
            for name, share in named.items()
        }

    def summary(self) -> dict[str, Any]:
        """Median and 95th percentile of the tiles' SD, that of the slide's mean, and the shares."""
        known = self.sd[np.isfinite(self.sd)]
        median, high = np.percentile(known, [50.0, 95.0]) if known.size else (np.nan, np.nan)
        return {
            "sd_median": float(median),
            "sd_p95": float(high),
            "sd_slide_mean": self.slide_mean_sd,
            "shares": self.totals(),
        }


def input_spread(draws: FloatArray, sources: Sequence[str], predicted: FloatArray) -> InputSpread:
    """The spread of predictions over draws of their inputs, and the share of each source.

    Parameters
    ----------
    draws
        (m, d) standard normal numbers of `input_draws`, dimensionless; m is d + 4 or more.
    sources
        Name of the source of each of the d numbers; several may have the same.
    predicted
        (m, n) prediction of each draw, normalised SUV (dimensionless); NaN: not predicted.

    Notes
    -----
    Share of a source: what a linear fit in its numbers explains (squared standardised regression
    coefficients; Saltelli et al. 2008, Global Sensitivity Analysis), less what it would explain by
    chance.  The shares and the rest sum to 1.
    """
    m, d = draws.shape
    design = np.column_stack([np.ones(m), draws])
    inverse = np.linalg.inv(design.T @ design)
    known = np.isfinite(predicted).all(axis=0)
    y = predicted[:, known]
    slopes = inverse @ design.T @ y
    chance = ((y - design @ slopes) ** 2).sum(axis=0) / (m - d - 1)
    explained = np.maximum(slopes[1:] ** 2 - chance * np.diag(inverse)[1:, None], 0.0)
    total = explained.sum(axis=0) + chance
    varies = total > 1e-14 * np.maximum(1e-12, (y**2).mean(axis=0))

    def on_tiles(values: FloatArray) -> FloatArray:
        found = np.full(predicted.shape[1], np.nan)
        found[known] = values
        return found

    with np.errstate(invalid="ignore", divide="ignore"):
        parts = np.where(varies, explained / total, np.nan)
        rest = np.where(varies, chance / total, np.nan)
    names = np.asarray(sources)
    return InputSpread(
        on_tiles(y.std(axis=0, ddof=1)),
        {name: on_tiles(parts[names == name].sum(axis=0)) for name in dict.fromkeys(sources)},
        on_tiles(rest),
        float(y.mean(axis=1).std(ddof=1)) if known.any() else float("nan"),
    )


def moved_map(scale: Scale, shift_um: tuple[float, float], vessels: float) -> NDArray[np.uint8]:
    """Area fractions x 255 (rows, columns, 4): classes moved by µm, vessels times a factor."""
    from scipy.ndimage import shift

    values = scale.values.astype(np.float32)
    if any(shift_um):
        step = [one / scale.spacing_um for one in shift_um]
        for channel in (0, 1):
            values[..., channel] = shift(values[..., channel], step, order=1, mode="constant")
    values[..., 2] *= vessels
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def window_sums(scale: Scale, values: NDArray[np.uint8]) -> tuple[FloatArray, FloatArray]:
    """(n,) sums of the first two channels over the window of each tile, area fraction x 255."""
    found, (row, col), edge = [], scale.corners.T, scale.window_px
    for channel in (0, 1):
        total = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
        total[1:, 1:] = values[..., channel].cumsum(axis=0, dtype=float).cumsum(axis=1)
        found.append(
            total[row + edge, col + edge]
            - total[row, col + edge]
            - total[row + edge, col]
            + total[row, col]
        )
    return found[0], found[1]


def moved_codes(
    codes: NDArray[np.uint8], grid: TileGrid, steps: Mapping[int, NDArray[np.int64]]
) -> NDArray[np.uint8]:
    """Cluster labels (n, 3, 11, 11) of which some proxies have moved by whole tiles.

    *steps* is (2,) rows and columns, tiles, by the position of the proxy.  What moves in from
    beyond the tiles has no label.
    """
    if not any(step.any() for step in steps.values()):
        return codes
    middle = CODE_CELLS // 2
    labels = codes[:, :, middle, middle].copy()
    index, shape = grid.index_map(), np.array(grid.lattice.shape)
    for place, step in steps.items():
        cells = grid.cells - step
        inside = ((cells >= 0) & (cells < shape)).all(axis=1)
        tile = np.full(len(cells), -1)
        tile[inside] = index[tuple(cells[inside].T)]
        own = np.append(labels[:, place], INVALID_CODE)
        labels[:, place] = own[tile]
    return code_windows(grid, labels)
