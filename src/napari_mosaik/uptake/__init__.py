"""SUV of a PET image, every term with its source, and its mean per tile."""

from napari_mosaik.uptake.body_size import LeanFormula, du_bois_bsa_m2, lean_mass_kg
from napari_mosaik.uptake.suv import (
    SUV_UNITS,
    SuvKind,
    SuvParams,
    decay_factor,
    frame_factor,
    suv_factor,
)
from napari_mosaik.uptake.suv_inputs import TERM_ITEMS as TERM_ITEMS
from napari_mosaik.uptake.suv_inputs import implausible
from napari_mosaik.uptake.terms import SuvTerm, SuvTerms, combine_terms, to_suv
from napari_mosaik.uptake.tile_uptake import shift_sensitivity, tile_uptake

__all__ = [
    "SUV_UNITS",
    "TERM_ITEMS",
    "LeanFormula",
    "SuvKind",
    "SuvParams",
    "SuvTerm",
    "SuvTerms",
    "combine_terms",
    "decay_factor",
    "du_bois_bsa_m2",
    "frame_factor",
    "implausible",
    "lean_mass_kg",
    "shift_sensitivity",
    "suv_factor",
    "tile_uptake",
    "to_suv",
]
