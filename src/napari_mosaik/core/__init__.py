"""The words that everyone uses: lattices, rasters, tiles, artifacts, parameters, errors."""

from napari_mosaik.core.artifact import Artifact, Origin, Progress, Source
from napari_mosaik.core.errors import (
    Blocked,
    Cancelled,
    CaseLocked,
    CorruptArtifact,
    FrameMismatch,
    InputError,
    MissingPixelSize,
    MosaikError,
)
from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.params import Params, setting
from napari_mosaik.core.pet_records import InjectionRecord
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.core.table import Table
from napari_mosaik.core.tiles import TileGrid

__all__ = [
    "Artifact",
    "Blocked",
    "Cancelled",
    "CaseLocked",
    "CorruptArtifact",
    "FloatArray",
    "FrameMismatch",
    "InjectionRecord",
    "InputError",
    "LabelImage",
    "Lattice",
    "MissingPixelSize",
    "MosaikError",
    "Origin",
    "Params",
    "Progress",
    "Raster",
    "Source",
    "Table",
    "TileGrid",
    "Transform",
    "setting",
]
