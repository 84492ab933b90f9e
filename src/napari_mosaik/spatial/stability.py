"""How firm the choice of proxies is: the same choice on tiles drawn anew, block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from napari_mosaik.core import FloatArray, InputError, Table
from napari_mosaik.core.tiles import IntArray

__all__ = ["TileSample", "selection_stability"]


@dataclass(frozen=True, slots=True, eq=False)
class TileSample:
    """The tiles of one case.

    Parameters
    ----------
    columns
        Parameter to (n,) values; NaN where a tile has none.
    uptake
        (n,) measured uptake; NaN where the PET does not cover a tile.
    centres_um
        (n, 2) tile centres, µm.
    """

    columns: Mapping[str, FloatArray]
    uptake: FloatArray
    centres_um: FloatArray


def selection_stability(
    cases: Mapping[str, TileSample],
    groups: Mapping[str, Sequence[str]],
    *,
    draws: int = 500,
    block_um: float = 1600.0,
    rng: np.random.Generator | None = None,
) -> Table:
    """How often each parameter would be chosen if the tiles were others of the same kind.

    Square blocks of tiles are drawn with replacement within each case, so that neighbours, which
    resemble one another, stay together; in each draw every group chooses as `choose_proxies` does,
    by the mean of ``|Pearson|`` and ``|Spearman|`` over the cases.  Ranks are those of the whole
    case.

    Parameters
    ----------
    cases
        The training cases.
    groups
        Group to the names of its parameters.
    draws
        Number of draws.
    block_um
        Side of a block, µm; about the resolution of the PET or more.
    rng
        Source of the draws; seed 0 if left out.

    Returns
    -------
    Table
        One row per group and parameter: ``frequency``, the fraction of the draws in which it was
        chosen, and the ``low``, ``middle`` and ``high`` of its score (2.5, 50 and 97.5 %).

    Raises
    ------
    InputError
        If there is no case, or *draws* or *block_um* is not positive.
    """
    if not cases:
        raise InputError("no training case is left to draw tiles from; add a case")
    if draws < 1 or not block_um > 0:
        raise InputError(f"draws ({draws}) and block_um ({block_um:g}) must be positive")
    rng = np.random.default_rng(0) if rng is None else rng
    names = [(group, name) for group, members in groups.items() for name in members]
    scores = np.mean(
        [
            _scores(case, [name for _, name in names], draws, block_um, rng)
            for case in cases.values()
        ],
        axis=0,
    )
    owners = np.array([group for group, _ in names])
    frequency = np.zeros(len(names))
    for group in groups:
        members = np.flatnonzero(owners == group)
        part = np.where(np.isnan(scores[:, members]), -1.0, scores[:, members])
        decided = part.max(axis=1) >= 0
        chosen = np.bincount(part.argmax(axis=1)[decided], minlength=members.size)
        frequency[members] = chosen / draws
    with np.errstate(invalid="ignore"):
        low, middle, high = _quantiles(scores)
    return Table(
        {
            "group": owners,
            "parameter": np.array([name for _, name in names]),
            "frequency": frequency,
            "low": low,
            "middle": middle,
            "high": high,
        },
        about={
            "frequency": f"share of {draws} draws of blocks in which the parameter was chosen",
            "low": "2.5 % quantile of the score over the draws",
            "middle": "median of the score over the draws",
            "high": "97.5 % quantile of the score over the draws",
        },
    )


def _quantiles(scores: FloatArray) -> FloatArray:
    out = np.full((3, scores.shape[1]), np.nan)
    for place, column in enumerate(scores.T):
        known = column[np.isfinite(column)]
        if known.size:
            out[:, place] = np.quantile(known, [0.025, 0.5, 0.975])
    return out


def _scores(
    case: TileSample,
    names: Sequence[str],
    draws: int,
    block_um: float,
    rng: np.random.Generator,
) -> FloatArray:
    """(draws, parameters) mean of |Pearson| and |Spearman|; NaN where it is not defined."""
    from scipy.stats import rankdata

    weights = _drawn(case.centres_um, draws, block_um, rng)
    out = np.full((draws, len(names)), np.nan)
    y = np.asarray(case.uptake, float)
    for place, name in enumerate(names):
        x = np.asarray(case.columns.get(name, np.full(y.size, np.nan)), float)
        known = np.isfinite(x) & np.isfinite(y)
        if known.sum() < 3:
            continue
        w = weights[:, known]
        pearson = _weighted(w, x[known], y[known])
        spearman = _weighted(w, rankdata(x[known]), rankdata(y[known]))
        out[:, place] = (np.abs(pearson) + np.abs(spearman)) / 2
    return out


def _drawn(
    centres_um: FloatArray, draws: int, block_um: float, rng: np.random.Generator
) -> FloatArray:
    """(draws, n) how often each tile is drawn, whole blocks at a time."""
    cells = np.floor((centres_um - centres_um.min(axis=0)) / block_um).astype(np.int64)
    block: IntArray = np.unique(cells, axis=0, return_inverse=True)[1].ravel()
    n_blocks = int(block.max()) + 1
    times = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), draws)
    return np.asarray(times[:, block], float)


def _weighted(weights: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Pearson correlation of x and y for each row of weights; NaN without variance."""
    total = weights.sum(axis=1)
    x, y = x - x.mean(), y - y.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y = weights @ x / total, weights @ y / total
        xy = weights @ (x * y) / total - mean_x * mean_y
        xx = weights @ (x * x) / total - mean_x**2
        yy = weights @ (y * y) / total - mean_y**2
        least = 1e-12 * np.mean(x * x), 1e-12 * np.mean(y * y)
        r = np.where((xx > least[0]) & (yy > least[1]), xy / np.sqrt(xx * yy), np.nan)
    return np.asarray(np.clip(r, -1.0, 1.0), float)
