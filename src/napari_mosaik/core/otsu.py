"""Otsu's threshold of a histogram."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["otsu_bin"]


def otsu_bin(counts: NDArray[Any]) -> int:
    """The bin that ends the lower class of Otsu's threshold.

    Parameters
    ----------
    counts
        (n,) number of samples in each bin, of equal widths; at least two bins are not empty.

    Returns
    -------
    int
        Index: the classes are ``<=`` and ``>`` this bin.  Empty bins between the classes are all
        equally good; their middle is taken.

    References
    ----------
    Otsu 1979, IEEE Transactions on Systems, Man and Cybernetics 9: 62-66.
    """
    from skimage.filters import threshold_otsu

    bins = np.arange(counts.size)
    first = int(threshold_otsu(hist=(counts, bins)))  # type: ignore[no-untyped-call]
    filled = np.flatnonzero(counts)
    following = int(filled[np.searchsorted(filled, first, side="right")])
    return (first + following - 1) // 2
