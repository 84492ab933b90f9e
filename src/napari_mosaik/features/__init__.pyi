from .block_measurements import measure_block
from .catalogue import GROUPS, PARAMETERS, TileParameter, parameter_table, parameters_of
from .morphology import OBJECT_ABOUT, OBJECT_UNITS, measure_objects, merge_measures
from .texture import (
    TEXTURE_NAMES,
    TextureParams,
    cooccurrence,
    difference_entropy,
    grey_levels,
    texture_table,
)
from .tile_aggregation import (
    area_in_tiles,
    count_in_tiles,
    fractions_in_tiles,
    mean_in_tiles,
    sum_in_tiles,
)
from .tile_parameters import (
    CUTOFFS_OD10,
    caix_grades,
    caix_parameters,
    class_fractions,
    nuclear_parameters,
    vascular_parameters,
    vessel_distance_in_tiles,
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
