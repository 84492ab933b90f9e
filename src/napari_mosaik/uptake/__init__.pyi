from .body_size import LeanFormula, du_bois_bsa_m2, lean_mass_kg
from .per_tile import shift_sensitivity, tile_uptake
from .suv import (
    SUV_UNITS,
    SuvKind,
    SuvParams,
    decay_factor,
    frame_factor,
    suv_factor,
)
from .suv_inputs import TERM_ITEMS as TERM_ITEMS
from .suv_inputs import implausible
from .terms import SuvTerm, SuvTerms, combine_terms, to_suv
from .volume_of_interest import (
    INVIVO_FWHM_MM,
    VoiMeasurement,
    error_of_the_mean,
    measure_volume,
    sphere_recovery,
    sphere_voxels,
)

__all__ = [
    "INVIVO_FWHM_MM",
    "SUV_UNITS",
    "TERM_ITEMS",
    "LeanFormula",
    "SuvKind",
    "SuvParams",
    "SuvTerm",
    "SuvTerms",
    "VoiMeasurement",
    "combine_terms",
    "decay_factor",
    "du_bois_bsa_m2",
    "error_of_the_mean",
    "frame_factor",
    "implausible",
    "lean_mass_kg",
    "measure_volume",
    "shift_sensitivity",
    "sphere_recovery",
    "sphere_voxels",
    "suv_factor",
    "tile_uptake",
    "to_suv",
]
