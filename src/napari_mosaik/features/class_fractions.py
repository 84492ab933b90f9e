"""Tissue classes per tile: how much of the tissue is tumour."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core.table import Table
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.features.catalogue import PARAMETERS, parameter_table
from napari_mosaik.features.tile_aggregation import over, per_tile

__all__ = ["class_fractions"]


def class_fractions(
    grid: TileGrid,
    neoplastic: ArrayLike,
    non_neoplastic: ArrayLike,
    others: Mapping[str, ArrayLike] | None = None,
) -> Table:
    """Shares of the tissue classes in each tile.

    Parameters
    ----------
    grid
        n tiles.
    neoplastic, non_neoplastic
        (n,) areas (one unit for both) or shares of each tile (`fractions_in_tiles`).
    others
        The same of further tissue classes of the user's own, by name.

    Returns
    -------
    Table of n rows with the group "tissue" of the catalogue, and a column ``NAME_fraction`` for
    each further class: each class over the sum of all, so that gaps and lumina do not count; NaN
    where a tile has none.

    Raises
    ------
    InputError
        If an array does not have one value per tile.
    """
    tumour = per_tile(neoplastic, grid, "neoplastic")
    other = per_tile(non_neoplastic, grid, "non_neoplastic")
    own = {name: per_tile(area, grid, name) for name, area in (others or {}).items()}
    tissue = np.asarray(sum(own.values(), tumour + other), np.float64)
    table = parameter_table(
        {
            "neoplastic_fraction": over(tumour, tissue),
            "non_neoplastic_fraction": over(other, tissue),
        },
        grid.lattice.frame,
    )
    columns = {f"{_word(name)}_fraction": over(area, tissue) for name, area in own.items()}
    about = {
        f"{_word(name)}_fraction": f"Share of the tissue that is '{name}', a class of the user's "
        "own. area classified so / classified tissue area"
        for name in own
    }
    return table.with_columns(columns, dict.fromkeys(columns, "1"), about)


def _word(name: str) -> str:
    """A class's name as it stands in a column's; the catalogue's own names stay free."""
    word = re.sub(r"\W+", "_", name.lower()).strip("_")
    return f"own_{word}" if f"{word}_fraction" in PARAMETERS else word
