"""Compiled loops over all pairs of tiles, by distance class (imports numba)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.compiled import compiled

__all__ = ["class_products"]


@compiled
def class_products(
    points: NDArray[np.float64], upper: NDArray[np.float64], columns: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Number of partners of each point per distance class, and summed products per class.

    Class ``k`` holds the ordered pairs of different points with a distance in
    ``(upper[k - 1], upper[k]]``.  Returns the partners (n, K) and, for each column, the sum over
    the pairs of a class of the product of the two values (K, m).
    """
    n, n_columns = columns.shape
    partners = np.zeros((n, upper.size))
    total = np.zeros((upper.size, n_columns))
    for i in range(n):
        for j in range(i + 1, n):
            dr = points[i, 0] - points[j, 0]
            dc = points[i, 1] - points[j, 1]
            k = min(np.searchsorted(upper, np.sqrt(dr * dr + dc * dc)), upper.size - 1)
            partners[i, k] += 1.0
            partners[j, k] += 1.0
            for c in range(n_columns):
                total[k, c] += 2.0 * columns[i, c] * columns[j, c]
    return partners, total
