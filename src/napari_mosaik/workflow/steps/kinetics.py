"""The antibody's kinetics: the patient's curves, and what delivery alone would retain per tile."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import (
    CAIX_CELLS,
    KINETICS,
    PARAMETERS,
    TILE_KINETICS,
    VESSEL_OBJECTS,
)
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.params import setting
from napari_mosaik.core.table import Table
from napari_mosaik.kinetics import DeliveryParams, ImmunokineticParams
from napari_mosaik.workflow.inputs import Inputs
from napari_mosaik.workflow.step import Results, Step

__all__ = ["CURVES", "TILE_CURVES"]

N_TIMES = 48
FIRST_H = 1e-3
EX_VIVO_H = 336.0


class CurveParams(ImmunokineticParams):
    """Settings of the patient's curves."""

    last_h: float = setting(EX_VIVO_H, "Last time of the curves.", unit="h", gt=FIRST_H)


def sampling_times_h(last_h: float) -> FloatArray:
    """Times close together at first, where binding takes seconds, and far apart later."""
    return np.concatenate([[0.0], np.geomspace(FIRST_H, last_h, N_TIMES - 1)])


def _curves(inputs: Inputs, params: CurveParams) -> Generator[Progress, None, Results]:
    from napari_mosaik.kinetics import solve_immunokinetic

    yield Progress(0.2, 1, "solving the kinetics")
    own = params.model_dump(exclude={"last_h"})
    time_h = sampling_times_h(params.last_h)
    curves = solve_immunokinetic(ImmunokineticParams(**own), time_h)
    start = curves.free_um[0]
    columns = {
        "time_h": time_h,
        "free": curves.free_um / start,
        "bound": curves.bound_um / start,
        "internalised": curves.internalised_um / start,
        "free_um": curves.free_um,
        "bound_um": curves.bound_um,
        "internalised_um": curves.internalised_um,
    }
    units = {"time_h": "h", "free_um": "µM", "bound_um": "µM", "internalised_um": "µM"}
    return {KINETICS: Table(columns, units)}


CURVES = Step(
    name="kinetics",
    title="Kinetics",
    about="Computes free, bound and internalised antibody over time for the patient.",
    page="Kinetics",
    params=CurveParams,
    reads=(),
    writes=(KINETICS,),
    body=_curves,
)


def _tile_curves(inputs: Inputs, params: DeliveryParams) -> Generator[Progress, None, Results]:
    from napari_mosaik.kinetics import retained_um

    table = inputs.read(PARAMETERS)
    yield Progress(0.3, 1, "delivery to each tile")
    retained = retained_um(
        table["vessel_perimeter_density_per_um"],
        table["caix_positive_fraction"],
        params,
        np.array([EX_VIVO_H]),
    )
    about = {"retained": "bound and internalised antibody at 336 h, limited by delivery"}
    columns = {"retained": np.asarray(retained, float).reshape(len(table))}
    return {TILE_KINETICS: Table(columns, {"retained": "µM"}, about, table.frame)}


TILE_CURVES = Step(
    name="tile_kinetics",
    title="Delivery per tile",
    about="Estimates how much antibody each tile would retain if delivery through its vessels "
    "were all that mattered.",
    page="Kinetics",
    params=DeliveryParams,
    reads=(PARAMETERS, VESSEL_OBJECTS, CAIX_CELLS),
    writes=(TILE_KINETICS,),
    body=_tile_curves,
)
