"""Review by readers: the review priority of tiles with reasons, and the agreement of two readers.

Agreement is Cohen's kappa and Dice on the rasterised classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import FloatArray, InputError, Params, setting
from napari_mosaik.core.uncertainty import normalised_entropy

__all__ = [
    "ReaderAgreement",
    "ReviewItem",
    "ReviewQueueParams",
    "TileEvidence",
    "agreement_of",
    "compare_readers",
    "kappa_of",
    "rank_tiles",
]


class ReviewQueueParams(Params):
    """Settings of the review queue."""

    length: int = setting(60, "Number of tiles in the review queue.", ge=1, le=10_000)
    error_weight: float = setting(
        1.0, "Weight of the difference between predicted and measured uptake.", ge=0
    )
    class_weight: float = setting(1.0, "Weight of the uncertainty of the tissue class.", ge=0)
    interval_weight: float = setting(0.5, "Weight of the width of the prediction interval.", ge=0)
    apart_um: float = setting(
        900.0,
        "Minimum distance between consecutive tiles, so that the queue covers the whole section.",
        unit="µm",
        ge=0,
    )


@dataclass(frozen=True, slots=True, eq=False)
class TileEvidence:
    """The signals of all tiles, row i = tile i; None if not computed, NaN for no data.

    Parameters
    ----------
    centres_um
        (n, 2) tile centres, µm.
    measured, predicted
        (n,) uptake, both in the same unit.
    class_probability
        (n, k) probabilities of the k tissue classes, fractions.
    interval_width
        (n,) width of the prediction interval, in the unit of the uptake.
    flagged
        (n,) mask of tiles that a reader flagged; they come first.
    reviewed
        (n,) mask of tiles that were reviewed already; they are excluded.
    unit
        Unit of the uptake in the reasons.
    """

    centres_um: FloatArray
    measured: FloatArray | None = None
    predicted: FloatArray | None = None
    class_probability: FloatArray | None = None
    interval_width: FloatArray | None = None
    flagged: NDArray[np.bool_] | None = None
    reviewed: NDArray[np.bool_] | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """One tile of the queue: its index, its priority (0 to 1) and the reason."""

    tile: int
    priority: float
    reason: str


def rank_tiles(evidence: TileEvidence, params: ReviewQueueParams | None = None) -> list[ReviewItem]:
    """The tiles in order of review priority, highest first.

    Each signal is converted to ranks in (0, 1] over the tiles that have it, so that signals of
    different units can be added; a missing signal counts as 0.  Flagged tiles come first.  Ties are
    broken by the tile index: equal input gives an equal queue.

    Raises
    ------
    InputError
        If an array does not have one value per tile.
    """
    params = params or ReviewQueueParams()
    n = len(evidence.centres_um)
    signals = _signals(evidence, params, n)
    parts = np.array([weight * _ranks(signal) for signal, weight, _ in signals]).reshape(-1, n)
    total = sum(weight for _, weight, _ in signals)
    priority = parts.sum(0) / total if total > 0 else np.zeros(n)
    flagged = _flags(evidence.flagged, n)
    open_ = ~_flags(evidence.reviewed, n) & (flagged | (priority > 0))
    order = np.lexsort((np.arange(n), -priority, ~flagged))
    chosen = _spread(order[open_[order]], evidence.centres_um, flagged, params)
    items = []
    for tile in chosen:
        reason = signals[int(parts[:, tile].argmax())][2](tile) if priority[tile] > 0 else ""
        if flagged[tile]:
            reason = "flagged" + (f"; {reason}" if reason else "")
        score = 1.0 if flagged[tile] else float(priority[tile])
        items.append(ReviewItem(int(tile), score, reason))
    return items


_Signal = tuple[FloatArray, float, Callable[[int], str]]


def _signals(evidence: TileEvidence, params: ReviewQueueParams, n: int) -> list[_Signal]:
    """Each available signal with its weight and a function that describes it for a tile."""
    signals: list[_Signal] = []
    if evidence.measured is not None and evidence.predicted is not None:
        error = _column(evidence.predicted, n, "predicted") - _column(
            evidence.measured, n, "measured"
        )
        signals.append(
            (np.abs(error), params.error_weight, lambda i: _error_reason(error[i], evidence.unit))
        )
    if evidence.class_probability is not None:
        probability = np.asarray(evidence.class_probability, float)
        if probability.ndim != 2 or len(probability) != n:
            raise InputError(
                f"class probabilities have the shape {probability.shape}; ({n}, classes) is needed"
            )
        entropy = normalised_entropy(probability)
        signals.append((entropy, params.class_weight, lambda i: _class_reason(probability[i])))
    if evidence.interval_width is not None:
        width = _column(evidence.interval_width, n, "interval width")
        signals.append(
            (width, params.interval_weight, lambda i: f"wide prediction interval ({width[i]:.3g})")
        )
    return [s for s in signals if s[1] > 0]


def _error_reason(error: float, unit: str) -> str:
    side = "above" if error > 0 else "below"
    amount = f"{abs(error):.3g} {unit}".rstrip()
    return f"predicted SUV {amount} {side} the measured one"


def _class_reason(probability: FloatArray) -> str:
    return f"tissue class uncertain (maximum probability {100 * np.nanmax(probability):.0f} %)"


def _column(values: ArrayLike, n: int, name: str) -> FloatArray:
    column = np.asarray(values, float)
    if column.shape != (n,):
        raise InputError(
            f"{name} has the shape {column.shape}; one value for each of {n} tiles is needed"
        )
    return column


def _flags(values: NDArray[np.bool_] | None, n: int) -> NDArray[np.bool_]:
    if values is None:
        return np.zeros(n, bool)
    flags = np.asarray(values, bool)
    if flags.shape != (n,):
        raise InputError(f"flags have the shape {flags.shape}; use one per tile ({n},)")
    return flags


def _ranks(signal: FloatArray) -> FloatArray:
    """Average ranks divided by their number, in (0, 1]; 0 for NaN and for signals of 0."""
    from scipy.stats import rankdata

    ranks = np.zeros(signal.shape)
    valid = np.isfinite(signal)
    if valid.any():
        ranks[valid] = rankdata(signal[valid]) / valid.sum()
    ranks[signal == 0] = 0.0
    return ranks


def _spread(
    order: NDArray[np.intp],
    centres_um: FloatArray,
    flagged: NDArray[np.bool_],
    params: ReviewQueueParams,
) -> list[int]:
    """The first tiles of *order* that keep the distance; the others follow at the end."""
    chosen: list[int] = []
    waiting: list[int] = []
    for tile in map(int, order):
        if len(chosen) == params.length:
            break
        gap = centres_um[chosen] - centres_um[tile]
        near = bool((np.hypot(gap[:, 0], gap[:, 1]) < params.apart_um).any()) if chosen else False
        (waiting if near and not flagged[tile] else chosen).append(tile)
    return chosen + waiting[: params.length - len(chosen)]


@dataclass(frozen=True, slots=True, eq=False)
class ReaderAgreement:
    """Agreement of two readers over the samples that both have classified.

    Parameters
    ----------
    codes
        Class codes that at least one reader used, ascending.
    confusion
        (k, k) count of samples, class of the first reader by class of the second.
    observed
        Fraction of samples with the same class; NaN without samples.
    kappa
        Cohen's kappa; NaN without samples, or when both readers used only one and the same class.
    dice
        Dice coefficient per code.
    n_compared, n_excluded
        Number of samples compared, and of samples that only one reader classified.
    """

    codes: tuple[int, ...]
    confusion: NDArray[np.int64]
    observed: float
    kappa: float
    dice: dict[int, float]
    n_compared: int
    n_excluded: int


def compare_readers(first: ArrayLike, second: ArrayLike, *, unread: int = 0) -> ReaderAgreement:
    """Compare the class codes of two readers, sample by sample.

    Parameters
    ----------
    first, second
        Label arrays of the same shape, whole numbers; NaN or *unread* where the reader gave no
        class.  Such samples of either reader are excluded and counted.
    unread
        Code for "not classified".

    Raises
    ------
    InputError
        Different shapes, or a code that is not a whole number.

    Notes
    -----
    kappa = (p_o - p_e) / (1 - p_e) with p_e from the products of the marginals (Cohen 1960,
    Educ Psychol Meas 20:37); Dice = 2 n_kk / (n_k. + n_.k) (Dice 1945, Ecology 26:297).
    """
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape:
        raise InputError(f"the maps of the readers have different shapes: {a.shape} and {b.shape}")
    read_a, read_b = _read(a, unread), _read(b, unread)
    both = read_a & read_b
    codes, confusion = _confusion(_whole(a[both]), _whole(b[both]))
    return agreement_of(tuple(map(int, codes)), confusion, int((read_a ^ read_b).sum()))


def agreement_of(
    codes: tuple[int, ...], confusion: NDArray[np.int64], n_excluded: int = 0
) -> ReaderAgreement:
    """The agreement that a confusion matrix stands for.

    *confusion* is a count (k, k), class of the first reader by class of the second, in the order of
    *codes*; a class that neither used gets no Dice.
    """
    rows, columns, same = confusion.sum(1), confusion.sum(0), np.diag(confusion)
    used = np.flatnonzero(rows + columns)
    dice = {codes[k]: float(2 * same[k] / (rows[k] + columns[k])) for k in used}
    observed, kappa = (float(value) for value in kappa_of(confusion))
    n = int(confusion.sum())
    return ReaderAgreement(codes, confusion, observed, kappa, dice, n, n_excluded)


def _read(codes: NDArray[np.generic], unread: int) -> NDArray[np.bool_]:
    """Where the reader gave a class."""
    classified: NDArray[np.bool_] = (codes != unread) & ~np.isnan(codes.astype(float))
    return classified


def _whole(codes: NDArray[np.generic]) -> NDArray[np.int64]:
    whole = codes.astype(np.int64)
    if (whole != codes.astype(float)).any():
        raise InputError("class codes must be whole numbers")
    return whole


def _confusion(
    a: NDArray[np.int64], b: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    codes = np.union1d(a, b)
    index = np.searchsorted(codes, a) * codes.size + np.searchsorted(codes, b)
    counts = np.bincount(index, minlength=codes.size**2).astype(np.int64)
    return codes, counts.reshape(codes.size, codes.size)


def kappa_of(confusion: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Observed agreement (fraction) and Cohen's kappa (dimensionless) of confusion matrices.

    *confusion* is a count (..., k, k); both results have the shape of its leading axes.  Both are
    NaN without samples, kappa also where both readers used only one and the same class.
    """
    counts = np.asarray(confusion, float)
    n = counts.sum(axis=(-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = np.trace(counts, axis1=-2, axis2=-1) / n
        expected = (counts.sum(axis=-1) / n[..., None] * counts.sum(axis=-2)).sum(axis=-1) / n
        kappa = (observed - expected) / (1 - expected)
    return observed, np.where(np.abs(1 - expected) > 1e-12, kappa, np.nan)
