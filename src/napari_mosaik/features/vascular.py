"""Vessels per tile: how many, how large, of what shape, and how far the tissue lies from them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.core.table import Table
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.features.catalogue import parameter_table
from napari_mosaik.features.tile_aggregation import (
    PixelSums,
    count_in_tiles,
    mean_in_tiles,
    over,
    per_tile,
    sum_in_tiles,
)

__all__ = ["vascular_parameters", "vessel_distance_in_tiles"]

_MEANS: Final = {
    "vessel_equivalent_diameter_um": "equivalent_diameter_um",
    "vessel_area_um2": "area_um2",
    "vessel_eccentricity": "eccentricity",
    "vessel_solidity": "solidity",
}
_UM2_PER_MM2: Final = 1e6


def vascular_parameters(
    grid: TileGrid,
    vessels: Table,
    *,
    tissue_area_um2: ArrayLike,
    vessel_area_um2: ArrayLike,
    distance_um: ArrayLike | None = None,
) -> Table:
    """The vascular parameters of each tile.

    Parameters
    ----------
    grid
        n tiles.
    vessels
        One row per vessel (`measure_objects`, lumen filled); centroids in the grid's frame.
    tissue_area_um2, vessel_area_um2
        (n,) areas of tissue and of vessel pixels per tile (`area_in_tiles`).
    distance_um
        (n,) mean distance to the nearest vessel (`vessel_distance_in_tiles`); all NaN if None.

    Returns
    -------
    Table of n rows with the group "vascular" of the catalogue.  A tile with tissue but without
    vessels has densities 0 and NaN shapes; a tile without tissue is NaN throughout.

    Raises
    ------
    InputError
        If an array does not have one value per tile.
    """
    tissue = per_tile(tissue_area_um2, grid, "tissue_area_um2")
    vessel = per_tile(vessel_area_um2, grid, "vessel_area_um2")
    distance = per_tile(
        np.full(len(grid), np.nan) if distance_um is None else distance_um, grid, "distance_um"
    )
    points = vessels.points_um()
    empty = tissue <= 0
    perimeter = sum_in_tiles(grid, points, vessels["perimeter_um"])
    columns = {
        "vessel_density_per_mm2": over(count_in_tiles(grid, points), tissue) * _UM2_PER_MM2,
        "vessel_area_fraction": np.minimum(over(vessel, tissue), 1.0),
    }
    for name, source in _MEANS.items():
        columns[name] = np.where(empty, np.nan, mean_in_tiles(grid, points, vessels[source]))
    columns["vessel_perimeter_density_per_um"] = over(perimeter, tissue)
    columns["vessel_distance_um"] = np.where(empty, np.nan, distance)
    return parameter_table(columns, grid.lattice.frame)


def vessel_distance_in_tiles(
    grid: TileGrid, vessels: Raster | LabelImage, tissue: Raster | None = None
) -> FloatArray:
    """Mean distance of each tile's tissue to the nearest vessel, µm.

    Parameters
    ----------
    grid
        n tiles.
    vessels
        Vessels (lumen filled) in the grid's frame; 2 to 5 µm per pixel serve, for example one of a
        label image's coarser copies, which is read in strips.  Pixels above 0 are vessel.
    tissue
        Tissue mask on any lattice of the same frame; everything is tissue if None.

    Returns
    -------
    (n,) distances, 0 inside vessels, precise to about half a pixel of *vessels*; NaN where a tile
    has no tissue, and everywhere when there is no vessel at all.
    """
    from napari_mosaik.features.distance import distance_strips

    lattice = vessels.lattice
    weighted, area = PixelSums(grid, lattice), PixelSums(grid, lattice)
    for row, far in distance_strips(vessels.values, lattice.spacing_um):
        inside = np.ones(far.shape, bool)
        if tissue is not None:
            strip = lattice.crop(slice(row, row + len(far)), slice(0, lattice.shape[1]))
            inside = tissue.onto(strip, outside=0).values > 0.5
        weighted.add(np.where(inside, far, 0.0), row)
        area.add(inside, row)
    return over(weighted.area_um2(), area.area_um2())
