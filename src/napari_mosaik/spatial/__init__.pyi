from .association import (
    Association,
    AssociationParams,
    associate,
    associate_table,
)
from .graph import TileGraph, as_tile_graph
from .interpolate import (
    MapParams,
    inverse_distance,
    neighbour_mean,
    parameter_map,
)
from .moran import (
    LocalMoran,
    MoranParams,
    benjamini_hochberg_cut,
    global_moran,
    iter_local_moran,
    local_moran,
    moran_scatter,
)
from .proxies import (
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
