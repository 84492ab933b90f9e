"""Tissue of a slide, its tiles and its stains."""

from napari_mosaik.tissue.grid import TileParams, tile_coverage, tile_grid
from napari_mosaik.tissue.mask import TissueParams, otsu_threshold, tissue_mask
from napari_mosaik.tissue.quality import QUALITY_NAMES, QualityParams
from napari_mosaik.tissue.stain import (
    HE_REFERENCE,
    MacenkoParams,
    StainFit,
    StainReference,
    fit_macenko,
    normalise,
)

__all__ = [
    "HE_REFERENCE",
    "QUALITY_NAMES",
    "MacenkoParams",
    "QualityParams",
    "StainFit",
    "StainReference",
    "TileParams",
    "TissueParams",
    "fit_macenko",
    "normalise",
    "otsu_threshold",
    "tile_coverage",
    "tile_grid",
    "tissue_mask",
]
