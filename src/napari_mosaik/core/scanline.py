"""Even-odd filling of polygons row by row, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.compiled import compiled

__all__ = ["fill"]


@compiled
def fill(
    out: NDArray[np.uint8],
    starts: NDArray[np.int64],
    edges: NDArray[np.float64],
    values: NDArray[np.uint8],
) -> None:
    """Write ``values[i]`` into the samples of *out* whose centres shape i covers, in order.

    *edges* are x0 y0 x1 y1 with y0 <= y1; those of shape i lie from ``starts[i]`` on.
    """
    for shape in range(values.size):
        own = edges[starts[shape] : starts[shape + 1]]
        if own.shape[0] == 0:
            continue
        row0 = max(0, int(np.ceil(own[:, 1].min())))
        row1 = min(out.shape[0], int(np.ceil(own[:, 3].max())))
        if row1 > row0:
            offset, crossing = _crossings(own, row0, row1)
            for k in range(row1 - row0):
                _fill_row(out[row0 + k], crossing[offset[k] : offset[k + 1]], values[shape])


@compiled
def _crossings(
    edges: NDArray[np.float64], row0: int, row1: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Where the edges cross the row centres, grouped by row; row k begins at ``offset[k]``."""
    offset = np.zeros(row1 - row0 + 1, np.int64)
    for e in range(edges.shape[0]):
        for row in range(*_span(edges[e], row0, row1)):
            offset[row - row0 + 1] += 1
    offset = np.cumsum(offset)
    crossing = np.empty(offset[-1])
    place = offset.copy()
    for e in range(edges.shape[0]):
        x0, y0, x1, y1 = edges[e]
        for row in range(*_span(edges[e], row0, row1)):
            crossing[place[row - row0]] = x0 + (row - y0) * (x1 - x0) / (y1 - y0)
            place[row - row0] += 1
    return offset, crossing


@compiled
def _span(edge: NDArray[np.float64], row0: int, row1: int) -> tuple[int, int]:
    """Rows whose centre lies in the half-open interval of an edge."""
    return max(row0, int(np.ceil(edge[1]))), min(row1, int(np.ceil(edge[3])))


@compiled
def _fill_row(row: NDArray[np.uint8], crossing: NDArray[np.float64], value: int) -> None:
    xs = np.sort(crossing)
    for j in range(0, xs.size - 1, 2):
        left = max(0, int(np.ceil(xs[j])))
        right = min(row.size, int(np.ceil(xs[j + 1])))
        row[left : max(left, right)] = value
