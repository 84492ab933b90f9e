"""Nuclei per tile: how many, how large, how dark, of what shape and texture."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.table import Table
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.features.catalogue import parameter_table
from napari_mosaik.features.tile_aggregation import count_in_tiles, mean_in_tiles, over, per_tile

__all__ = ["nuclear_parameters"]

_MEANS: Final = (
    "area_um2",
    "eccentricity",
    "solidity",
    "haematoxylin_od",
    "difference_entropy_bits",
    "contrast",
    "angular_second_moment",
    "inverse_difference_moment",
    "entropy_bits",
    "sum_entropy_bits",
)


def nuclear_parameters(
    grid: TileGrid,
    nuclei: Table,
    *,
    tissue_area_um2: ArrayLike,
    points_um: ArrayLike | None = None,
) -> Table:
    """The nuclear parameters of each tile.

    Parameters
    ----------
    grid
        n tiles.
    nuclei
        One row per nucleus: `measure_objects` with the intensity ``haematoxylin_od``, and the
        columns of `texture_table`.  A column that is missing makes its parameter NaN.
    tissue_area_um2
        (n,) area of tissue per tile.
    points_um
        (m, 2) centroids in the grid's frame; the table's own if None.

    Returns
    -------
    Table of n rows with the group "nuclear" of the catalogue.  A tile with tissue but without
    nuclei has the density 0 and NaN means; a tile without tissue is NaN throughout.

    Raises
    ------
    InputError
        If an array does not have one value per tile or per nucleus.
    """
    tissue = per_tile(tissue_area_um2, grid, "tissue_area_um2")
    points = nuclei.points_um() if points_um is None else np.asarray(points_um, float)
    columns: dict[str, FloatArray] = {
        "nucleus_density_per_mm2": over(count_in_tiles(grid, points), tissue) * 1e6
    }
    for source in _MEANS:
        values = np.full(len(grid), np.nan)
        if source in nuclei:
            values = mean_in_tiles(grid, points, nuclei[source])
        columns[f"nucleus_{source}"] = np.where(tissue > 0, values, np.nan)
    return parameter_table(columns, grid.lattice.frame)
