from .artifact import Artifact, Origin, Progress, Source
from .errors import (
    Blocked,
    Cancelled,
    CaseLocked,
    CorruptArtifact,
    FrameMismatch,
    InputError,
    MissingPixelSize,
    MosaikError,
)
from .frame import FloatArray, Lattice, Transform
from .params import Params, setting
from .pet_records import InjectionRecord
from .raster import LabelImage, Raster
from .table import Table
from .tiles import TileGrid

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
