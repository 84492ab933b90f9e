"""Agreement of two readers: Cohen's kappa and Dice on their rasterised classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import InputError

__all__ = ["ReaderAgreement", "compare_readers"]


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
    n_compared, n_left_out
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
    observed, kappa = _kappa(confusion)
    rows, columns, same = confusion.sum(1), confusion.sum(0), np.diag(confusion)
    dice = {int(code): float(2 * same[k] / (rows[k] + columns[k])) for k, code in enumerate(codes)}
    n_excluded = int((read_a ^ read_b).sum())
    n = int(both.sum())
    return ReaderAgreement(tuple(map(int, codes)), confusion, observed, kappa, dice, n, n_excluded)


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


def _kappa(confusion: NDArray[np.int64]) -> tuple[float, float]:
    """Observed agreement and kappa."""
    n = int(confusion.sum())
    if n == 0:
        return math.nan, math.nan
    observed = float(np.trace(confusion)) / n
    expected = float(confusion.sum(0) @ (confusion.sum(1) / n)) / n
    if math.isclose(expected, 1.0, abs_tol=1e-15):
        return observed, math.nan
    return observed, (observed - expected) / (1 - expected)
