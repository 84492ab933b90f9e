"""The step that measures how sensitive the SUV of each tile is to the registration of the PET."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial

import numpy as np

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import ALIGNMENT, SUV, TILES, UPTAKE_SENSITIVITY
from napari_mosaik.core.params import Params, setting
from napari_mosaik.core.table import Table
from napari_mosaik.register import transform_of
from napari_mosaik.uptake import shift_sensitivity, tile_uptake
from napari_mosaik.workflow.parallel import beside
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext

__all__ = ["SHIFT_SENSITIVITY", "SensitivityParams"]


class SensitivityParams(Params):
    """Settings of the shift sensitivity."""

    voxels: float = setting(
        1.0, "Shift in each direction.", label="Shift", unit="voxels", gt=0, le=10
    )
    angle_deg: float = setting(
        2.0, "Rotation in each direction.", label="Rotation", unit="°", gt=0, le=45
    )


def _body(inputs: StepContext, params: SensitivityParams) -> Generator[Progress, None, Results]:
    grid, suv = inputs.read(TILES), inputs.read(SUV)
    to_reference = transform_of(inputs.read(ALIGNMENT["pet"]))
    step_um = params.voxels * max(suv.lattice.spacing_um) * to_reference.scale
    work = partial(shift_sensitivity, suv, grid, to_reference)
    work = partial(work, shift_um=step_um, angle_deg=params.angle_deg)
    change = yield from beside(work, Progress(0.1, 1, "shifting the PET"))
    yield Progress(0.9, 1, "shifting the PET")
    value = tile_uptake(suv, grid, to_reference)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(value > 0, change / value, np.nan)
    inputs.note("shift_um", step_um)
    columns = {"change": change, "share": share}
    units = {"change": suv.unit, "share": "1"}
    moved = f"a shift of {params.voxels:g} voxel or a rotation of {params.angle_deg:g}°"
    about = {
        "change": f"largest change of the measured SUV by {moved}; empty outside the PET",
        "share": "the same relative to the measured SUV",
    }
    return {UPTAKE_SENSITIVITY: Table(columns, units, about, grid.lattice.frame)}


SHIFT_SENSITIVITY = Step(
    name="sensitivity",
    title="Shift sensitivity",
    about="Reports how much the SUV of each tile changes when the PET is shifted by one voxel or "
    "rotated by 2 degrees: the uncertainty of any statement about a single tile.",
    page="Uptake (PET)",
    params=SensitivityParams,
    reads=(TILES, SUV, ALIGNMENT["pet"]),
    writes=(UPTAKE_SENSITIVITY,),
    body=_body,
)
