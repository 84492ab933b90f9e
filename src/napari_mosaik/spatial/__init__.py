"""Space: neighbour graphs, interpolated maps, honest correlations, hot and cold spots."""

from napari_mosaik.spatial.graph import TileGraph, as_tile_graph
from napari_mosaik.spatial.moran import (
    LocalMoran,
    MoranParams,
    benjamini_hochberg_cut,
    global_moran,
    iter_local_moran,
    local_moran,
)

__all__ = [
    "LocalMoran",
    "MoranParams",
    "TileGraph",
    "as_tile_graph",
    "benjamini_hochberg_cut",
    "global_moran",
    "iter_local_moran",
    "local_moran",
]
