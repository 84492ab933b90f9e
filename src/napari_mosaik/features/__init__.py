"""What is measured on the objects: shape, texture, and the parameters of each tile.

The compiled measurement of objects is loaded on first use, so importing this folder is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_mosaik.features.caix import CUTOFFS_OD10, caix_grades, caix_parameters
from napari_mosaik.features.catalogue import (
    GROUPS,
    PARAMETERS,
    TileParameter,
    parameter_table,
    parameters_of,
)
from napari_mosaik.features.class_fractions import class_fractions
from napari_mosaik.features.nuclear import nuclear_parameters
from napari_mosaik.features.texture import (
    TEXTURE_NAMES,
    TextureParams,
    cooccurrence,
    difference_entropy,
    grey_levels,
    texture_table,
)
from napari_mosaik.features.tile_aggregation import (
    area_in_tiles,
    count_in_tiles,
    fractions_in_tiles,
    mean_in_tiles,
    sum_in_tiles,
)
from napari_mosaik.features.vascular import vascular_parameters, vessel_distance_in_tiles

if TYPE_CHECKING:
    from napari_mosaik.features.block_measurements import measure_block
    from napari_mosaik.features.morphology import (
        OBJECT_ABOUT,
        OBJECT_UNITS,
        measure_objects,
        merge_measures,
    )

__all__ = [
    "CUTOFFS_OD10",
    "GROUPS",
    "OBJECT_ABOUT",
    "OBJECT_UNITS",
    "PARAMETERS",
    "TEXTURE_NAMES",
    "TextureParams",
    "TileParameter",
    "area_in_tiles",
    "caix_grades",
    "caix_parameters",
    "class_fractions",
    "cooccurrence",
    "count_in_tiles",
    "difference_entropy",
    "fractions_in_tiles",
    "grey_levels",
    "mean_in_tiles",
    "measure_block",
    "measure_objects",
    "merge_measures",
    "nuclear_parameters",
    "parameter_table",
    "parameters_of",
    "sum_in_tiles",
    "texture_table",
    "vascular_parameters",
    "vessel_distance_in_tiles",
]

_COMPILED = {
    "OBJECT_ABOUT": "morphology",
    "OBJECT_UNITS": "morphology",
    "measure_block": "block_measurements",
    "measure_objects": "morphology",
    "merge_measures": "morphology",
}


def __getattr__(name: str) -> Any:
    if name not in _COMPILED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_COMPILED[name]}"), name)
