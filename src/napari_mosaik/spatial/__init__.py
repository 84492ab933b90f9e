"""Spatial statistics of tile values: correlation with the uptake, hot and cold spots, maps."""

from napari_mosaik.spatial.association import (
    Association,
    AssociationParams,
    associate,
    associate_table,
)
from napari_mosaik.spatial.graph import TileGraph, as_tile_graph
from napari_mosaik.spatial.interpolate import (
    MapParams,
    inverse_distance,
    neighbour_mean,
    parameter_map,
)
from napari_mosaik.spatial.moran import (
    LocalMoran,
    MoranParams,
    benjamini_hochberg_cut,
    global_moran,
    iter_local_moran,
    local_moran,
    moran_scatter,
)
from napari_mosaik.spatial.proxies import (
    ProxyChoice,
    TileSample,
    choose_proxies,
    selection_stability,
)

__all__ = [
    "Association",
    "AssociationParams",
    "LocalMoran",
    "MapParams",
    "MoranParams",
    "ProxyChoice",
    "TileGraph",
    "TileSample",
    "as_tile_graph",
    "associate",
    "associate_table",
    "benjamini_hochberg_cut",
    "choose_proxies",
    "global_moran",
    "inverse_distance",
    "iter_local_moran",
    "local_moran",
    "moran_scatter",
    "neighbour_mean",
    "parameter_map",
    "selection_stability",
]
