"""Classification uncertainty: the entropy of class probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core.frame import FloatArray

__all__ = ["normalised_entropy"]


def normalised_entropy(probability: ArrayLike) -> FloatArray:
    """Shannon entropy over the last axis divided by its maximum, dimensionless, in [0, 1].

    Parameters
    ----------
    probability
        (..., k) not negative; each set is divided by its sum, so 8-bit fractions may be given.

    Returns
    -------
    numpy.ndarray
        (...) 0 where one class is certain, 1 where all are equally likely; NaN where the sum is 0
        or a value is NaN.

    References
    ----------
    Shannon 1948, Bell Syst Tech J.
    """
    values = np.asarray(probability, float)
    total = values.sum(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(total > 0, values / total, np.nan)
        each = np.where(p > 0, p * np.log(p), np.where(np.isnan(p), np.nan, 0.0))
    entropy: FloatArray = -each.sum(-1) / np.log(max(2, values.shape[-1]))
    return np.maximum(entropy, 0.0)
