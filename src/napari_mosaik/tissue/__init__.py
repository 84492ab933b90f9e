"""Tissue of a slide, its artefacts, tiles and stain normalisation."""

from napari_mosaik.tissue.artefacts import ARTEFACT_NAMES, ArtefactParams
from napari_mosaik.tissue.grid import TileParams, tile_coverage, tile_grid
from napari_mosaik.tissue.mask import TissueParams, tissue_mask
from napari_mosaik.tissue.stain import (
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
