"""One number for how alike neighbouring tiles are, and the scatter plot whose slope it is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray
from napari_mosaik.spatial._moran_parts import sample_of
from napari_mosaik.spatial.graph import TileGraph, as_tile_graph

__all__ = ["global_moran", "moran_scatter"]


def global_moran(values: ArrayLike, graph: TileGraph | Any) -> tuple[float, float]:
    """Global Moran's I and its expectation -1/(n - 1) under randomness.

    Parameters
    ----------
    values
        (n,) value per tile; NaN tiles are left out, also as neighbours.
    graph
        Neighbours; weights are row-standardised, islands count in the mean only.

    Returns
    -------
    tuple
        I and its expectation, pure numbers.

    Raises
    ------
    InputError
        As `local_moran`.
    """
    sample = sample_of(np.asarray(values, float), as_tile_graph(graph))
    product = sample.z * sample.lag
    total = math.fsum(product[sample.tested]) / sample.tested.size
    return total, -1.0 / (sample.z.size - 1)


def moran_scatter(
    values: ArrayLike, graph: TileGraph | Any
) -> tuple[FloatArray, FloatArray, float]:
    """Standardised values, means of their neighbours, and global Moran's I.

    Returns
    -------
    tuple
        (n,) values, (n,) lags (NaN for tiles without a value or without neighbours), and I, the
        slope of the line through the middle of their scatter plot.

    Raises
    ------
    InputError
        As `local_moran`.

    References
    ----------
    Anselin 1996, in Spatial Analytical Perspectives on GIS.
    """
    values = np.asarray(values, float)
    sample = sample_of(values, as_tile_graph(graph))
    z, lag = np.full(values.size, np.nan), np.full(values.size, np.nan)
    z[sample.valid] = sample.z
    lag[np.flatnonzero(sample.valid)[sample.tested]] = sample.lag[sample.tested]
    product = sample.z * sample.lag
    return z, lag, math.fsum(product[sample.tested]) / sample.tested.size
