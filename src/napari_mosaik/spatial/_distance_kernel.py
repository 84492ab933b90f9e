"""Compiled loops over all pairs of tiles, by distance class (imports numba)."""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

__all__ = ["class_products"]

_BLOCKS = 64


@njit(cache=True, nogil=True, parallel=True)
def class_products(
    points: NDArray[np.float64], upper: NDArray[np.float64], columns: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Number of partners of each point per distance class, and summed products per class.

    Class ``k`` holds the ordered pairs of different points with a distance in
    ``(upper[k - 1], upper[k]]``.  Returns the partners (n, K) and, for each column, the sum over
    the pairs of a class of the product of the two values (K, m).  The work is cut into a fixed
    number of blocks, so that the result does not depend on the number of cores.
    """
    n, n_columns = columns.shape
    n_classes = upper.size
    partners = np.zeros((n, n_classes))
    partial = np.zeros((_BLOCKS, n_classes, n_columns))
    for block in prange(_BLOCKS):
        for i in range(block, n, _BLOCKS):
            for j in range(n):
                if i == j:
                    continue
                dr = points[i, 0] - points[j, 0]
                dc = points[i, 1] - points[j, 1]
                k = min(np.searchsorted(upper, np.sqrt(dr * dr + dc * dc)), n_classes - 1)
                partners[i, k] += 1.0
                if j > i:
                    for c in range(n_columns):
                        partial[block, k, c] += 2.0 * columns[i, c] * columns[j, c]
    total = np.zeros((n_classes, n_columns))
    for block in range(_BLOCKS):
        total += partial[block]
    return partners, total
