"""Tissue classes per tile: how much of the tissue is tumour."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core.table import Table
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.features.catalogue import parameter_table
from napari_mosaik.features.in_tiles import over, per_tile

__all__ = ["class_fractions"]


def class_fractions(grid: TileGrid, neoplastic: ArrayLike, non_neoplastic: ArrayLike) -> Table:
    """Shares of the tissue classes in each tile.

    Parameters
    ----------
    grid
        n tiles.
    neoplastic, non_neoplastic
        (n,) areas (one unit for both) or shares of each tile (`fractions_in_tiles`).

    Returns
    -------
    Table of n rows with the group "tissue" of the catalogue: each class over the sum of both, so
    that gaps and lumina do not count; NaN where a tile has neither.

    Raises
    ------
    InputError
        If an array does not have one value per tile.
    """
    tumour = per_tile(neoplastic, grid, "neoplastic")
    other = per_tile(non_neoplastic, grid, "non_neoplastic")
    both = np.asarray(tumour + other, np.float64)
    return parameter_table(
        {"neoplastic_fraction": over(tumour, both), "non_neoplastic_fraction": over(other, both)},
        grid.lattice.frame,
    )
