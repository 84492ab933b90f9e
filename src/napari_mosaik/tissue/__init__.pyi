from .artefacts import ARTEFACT_NAMES, ArtefactParams
from .grid import TileParams, tile_coverage, tile_grid
from .mask import TissueParams, tissue_mask
from .stain import (
    HE_REFERENCE,
    MacenkoParams,
    StainFit,
    StainReference,
    fit_macenko,
    normalise,
)

__all__ = [
    "ARTEFACT_NAMES",
    "HE_REFERENCE",
    "ArtefactParams",
    "MacenkoParams",
    "StainFit",
    "StainReference",
    "TileParams",
    "TissueParams",
    "fit_macenko",
    "normalise",
    "tile_coverage",
    "tile_grid",
    "tissue_mask",
]
