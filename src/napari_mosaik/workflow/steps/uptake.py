"""The steps that compute the SUV and its mean per tile."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import numpy as np

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    INJECTION,
    PET,
    SUV,
    SUV_RECORD,
    TILES,
    UPTAKE,
)
from napari_mosaik.core.params import Params, setting
from napari_mosaik.core.table import Table
from napari_mosaik.io.case import Case
from napari_mosaik.register import transform_of
from napari_mosaik.uptake import SuvParams, combine_terms, tile_uptake, to_suv
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext
from napari_mosaik.workflow.suv import (
    check_suv_unit,
    check_terms,
    doubtful_maximum,
    suv_record,
    voxel_statistics,
)

__all__ = ["CALCULATE_SUV", "MEASURE_UPTAKE", "OUTSIDE_PET", "UptakeParams"]

OUTSIDE_PET = "tiles_outside_pet"
"""Key of the record: number of tiles outside the field of view of the PET."""


class UptakeParams(Params):
    """Settings of the uptake per tile."""

    min_inside: float = setting(
        0.5,
        "Tiles of which a smaller fraction lies in the field of view of the PET have no value.",
        label="Minimum PET coverage",
        advanced=True,
        gt=0,
        le=1,
    )


def _suv(inputs: StepContext, params: SuvParams) -> Generator[Progress, None, Results]:
    pet = inputs.pet()
    yield Progress(0.3, 1, "reading the PET")
    terms = combine_terms(inputs.injection(), pet.header)
    suv = to_suv(pet, terms, params.kind, params.lean_formula)
    record = suv_record(terms, params.kind, params.lean_formula)
    statistics = voxel_statistics([suv.values])
    record["warnings"] += doubtful_maximum(statistics)
    return {SUV: suv, SUV_RECORD: {**record, **statistics}}


def _tiles(inputs: StepContext, params: UptakeParams) -> Generator[Progress, None, Results]:
    grid, suv = inputs.read(TILES), inputs.read(SUV)
    yield Progress(0.3, 1, "averaging voxels under the tiles")
    to_reference = transform_of(inputs.read(ALIGNMENT["pet"]))
    values = tile_uptake(suv, grid, to_reference, min_inside=params.min_inside)
    inputs.note(OUTSIDE_PET, int(np.isnan(values).sum()))
    about = {"suv": "area-weighted mean of the voxels under the tile; empty outside the PET"}
    return {UPTAKE: Table({"suv": values}, {"suv": suv.unit}, about, grid.lattice.frame)}


def _check(case: Case, recipe: Mapping[str, Any]) -> None:
    """Raise `InputError` for an SUV that cannot be computed, or not compared with a prediction."""
    check_suv_unit(case, recipe)
    check_terms(case, recipe["suv"])


CALCULATE_SUV = Step(
    name="suv",
    title="SUV",
    revision=2,
    about="Converts PET activity concentration to SUV with the injection record; lists every term.",
    page="Uptake (PET)",
    params=SuvParams,
    reads=(PET, INJECTION),
    writes=(SUV, SUV_RECORD),
    body=_suv,
    check=_check,
)

MEASURE_UPTAKE = Step(
    name="uptake",
    title="Uptake per tile",
    about="Averages the measured SUV over each tile, weighted by area.",
    page="Uptake (PET)",
    params=UptakeParams,
    reads=(TILES, SUV, ALIGNMENT["pet"]),
    writes=(UPTAKE,),
    body=_tiles,
)
