"""Two models on the same held-out tiles: the difference of a score, with a paired interval.

Tiles that lie side by side are alike, so whole blocks of them are drawn with replacement, the same
blocks for both models (block bootstrap).  The percentiles are widened for few blocks as in
Hesterberg 2015, Am Stat 69:371: a plain interval of percentiles is too narrow for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray

__all__ = ["MIN_BLOCKS", "mean_dice", "paired_difference"]

MIN_BLOCKS = 5
"""With fewer blocks there is no interval."""
_DRAWS = 2000
_CONFIDENCE = 0.95


def paired_difference(
    old: ArrayLike,
    new: ArrayLike,
    blocks: ArrayLike,
    score: Callable[[FloatArray], FloatArray],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Score of two models on the same tiles, and the difference with its 95 % interval.

    Parameters
    ----------
    old, new
        (n, ...) what the score is computed from, sums over each tile (count).
    blocks
        (n,) block of each tile (label).
    score
        From sums (draws, ...) to scores (draws,).
    seed
        Random seed of the draws.

    Returns
    -------
    dict
        ``old``, ``new``, ``difference`` (new minus old), ``low`` and ``high`` (None with fewer than
        `MIN_BLOCKS` blocks), ``n_tiles``, ``n_blocks``.
    """
    first, second = np.asarray(old, float), np.asarray(new, float)
    names, member = np.unique(np.asarray(blocks), return_inverse=True)
    if first.shape != second.shape or len(first) != member.size:
        raise InputError(
            f"the tiles of two models cannot be compared: {first.shape}, {second.shape}, "
            f"{member.size} blocks"
        )
    sums = []
    for values in (first, second):
        total = np.zeros((names.size, *values.shape[1:]))
        np.add.at(total, member.ravel(), values)
        sums.append(total)
    rng = np.random.default_rng(seed)
    even = np.full(names.size, 1 / names.size)
    weights = rng.multinomial(names.size, even, _DRAWS).astype(float)
    drawn = [score(np.tensordot(weights, total, axes=1)) for total in sums]
    before, after = (float(score(total.sum(axis=0)[None])[0]) for total in sums)
    change = drawn[1] - drawn[0]
    change = change[np.isfinite(change)]
    known = names.size >= MIN_BLOCKS and change.size > 0
    low, high = np.quantile(change, _levels(names.size)) if known else (np.nan, np.nan)
    return {
        "old": _known(before),
        "new": _known(after),
        "difference": _known(after - before),
        "low": _known(low),
        "high": _known(high),
        "n_tiles": len(first),
        "n_blocks": int(names.size),
    }


def _levels(n_blocks: int) -> tuple[float, float]:
    """The quantiles of the draws that bound the interval, fractions."""
    from scipy import stats

    tail = (1 - _CONFIDENCE) / 2
    width = np.sqrt(n_blocks / (n_blocks - 1)) * stats.t.ppf(tail, n_blocks - 1)
    low = float(stats.norm.cdf(width))
    return low, 1 - low


def mean_dice(confusions: FloatArray) -> FloatArray:
    """Mean Dice over the classes that occur, shape (draws,), fraction.

    *confusions* are counts (draws, k, k); row: true class, column: predicted class.
    """
    hit = np.diagonal(confusions, axis1=1, axis2=2)
    both = confusions.sum(axis=1) + confusions.sum(axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        dice: NDArray[np.float64] = np.where(both > 0, 2 * hit / both, np.nan)
    known = np.isfinite(dice)
    total = np.where(known, dice, 0.0).sum(axis=1)
    return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
