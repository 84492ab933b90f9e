"""Antibody kinetics: the patient's curves, and the delivery-limited curves of each tile."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import (
    CAIX_CELLS,
    CORRECTED_VESSEL_OBJECTS,
    KINETICS,
    KINETICS_RECORD,
    PARAMETERS,
    TILE_KINETICS,
    TILE_KINETICS_RECORD,
)
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.params import setting
from napari_mosaik.core.progress import map_progress
from napari_mosaik.core.table import Table
from napari_mosaik.kinetics import (
    CURVE_NAMES,
    TILE_TIMES_H,
    DeliveryParams,
    ImmunokineticParams,
    PatientPriors,
    TilePriors,
    curve_columns,
    iter_tile_record,
    patient_record,
    solve_immunokinetic,
    tile_curves_um,
)
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext

__all__ = ["CURVES", "TILE_CURVES"]

N_TIMES = 48
FIRST_H = 1e-3
EX_VIVO_H = 336.0


class CurveParams(PatientPriors, ImmunokineticParams):
    """Settings of the patient's curves and of what is judged about them."""

    last_h: float = setting(
        EX_VIVO_H, "Last time of the curves.", label="End of the curves", unit="h", gt=FIRST_H
    )


def sampling_times_h(last_h: float) -> FloatArray:
    """(48,) times, h: dense at first, where binding takes seconds, and sparse later."""
    return np.concatenate([[0.0], np.geomspace(FIRST_H, last_h, N_TIMES - 1)])


def _curves(inputs: StepContext, params: CurveParams) -> Generator[Progress, None, Results]:
    yield Progress(0.2, 1, "solving the kinetics")
    time_h = sampling_times_h(params.last_h)
    curves = solve_immunokinetic(params, time_h)
    yield Progress(0.5, 1, _JUDGING)
    record = _patient_record(params)
    columns = {
        "time_h": time_h,
        **dict(zip(CURVE_NAMES, curves.normalised(curves.free_um[0]).T, strict=True)),
        "free_um": curves.free_um,
        "bound_um": curves.bound_um,
        "internalised_um": curves.internalised_um,
    }
    units = {"time_h": "h", "free_um": "µM", "bound_um": "µM", "internalised_um": "µM"}
    return {KINETICS: Table(columns, units, _CURVE_MEANING), KINETICS_RECORD: record}


def _patient_record(params: CurveParams) -> dict[str, Any]:
    try:
        return patient_record(params, params)
    except InputError as error:
        return {"not_available": str(error)}


_CURVE_MEANING = {
    "time_h": "time after injection",
    "free": "free antibody over the free antibody at injection",
    "bound": "antibody bound to the surface antigen over the free antibody at injection",
    "internalised": "internalised antibody over the free antibody at injection",
    "free_um": "free antibody",
    "bound_um": "antibody bound to the surface antigen",
    "internalised_um": "internalised antibody",
}

CURVES = Step(
    name="kinetics",
    title="Kinetics",
    about="Simulates free, bound and internalised antibody over time in this patient.",
    page="Kinetics",
    params=CurveParams,
    reads=(),
    writes=(KINETICS, KINETICS_RECORD),
    body=_curves,
    revision=2,
)


class DeliveredCurveParams(TilePriors, DeliveryParams):
    """Settings of the curves of the tiles and of what is judged about them."""


def _tile_curves(
    inputs: StepContext, params: DeliveredCurveParams
) -> Generator[Progress, None, Results]:
    table = inputs.read(PARAMETERS)
    yield Progress(0.1, 1, "delivery to each tile")
    antigen = antigen_share(table)
    density = np.asarray(table["vessel_perimeter_density_per_um"], float)
    curves = tile_curves_um(density, antigen, params, np.array(TILE_TIMES_H))
    record = yield from _tile_record(params, density)
    columns = {"retained": curves[:, -1, 1] + curves[:, -1, 2], "antigen_share": antigen}
    units = {"retained": "µM"}
    about = {
        "retained": f"bound and internalised antibody at {TILE_TIMES_H[-1]:g} h, limited by "
        "delivery",
        "antigen_share": "CAIX-positive fraction of the cells x neoplastic fraction of the tissue",
    }
    for number, name in enumerate(CURVE_NAMES):
        names = zip(curve_columns(name), TILE_TIMES_H, curves[..., number].T, strict=True)
        for column, time_h, values in names:
            columns[column], units[column] = values, "µM"
            about[column] = f"{name} antibody at {time_h:g} h, limited by delivery"
    tiles = Table(columns, units, about, table.frame)
    return {TILE_KINETICS: tiles, TILE_KINETICS_RECORD: record}


def _tile_record(
    params: DeliveredCurveParams, density: FloatArray
) -> Generator[Progress, None, dict[str, Any]]:
    """The diagnostics at the median vessel surface of the tiles that have vessels."""
    known = density[density > 0]
    if not known.size:
        return {"not_available": "no tile has vessels"}
    work = iter_tile_record(params, params, float(np.median(known)))
    try:
        return (
            yield from map_progress(work, lambda share: Progress(0.2 + 0.8 * share, 1, _JUDGING))
        )
    except InputError as error:
        return {"not_available": str(error)}


_JUDGING = "what the images determine"


def antigen_share(parameters: Table) -> FloatArray:
    """(n,) antigen-positive fraction of each tile's tissue; 0 where no tissue is neoplastic.

    NaN where there is neoplastic tissue but no scored cell, or where CAIX was not measured.
    """
    positive = np.asarray(parameters["caix_positive_fraction"], float)
    if "neoplastic_fraction" not in parameters:
        return positive
    neoplastic = np.asarray(parameters["neoplastic_fraction"], float)
    return np.where(neoplastic == 0, 0.0, positive * neoplastic)


TILE_CURVES = Step(
    name="tile_kinetics",
    title="Delivery per tile",
    about="Estimates the antibody retained by each tile if delivery through its vessels were the "
    "only limit.",
    page="Kinetics",
    params=DeliveredCurveParams,
    reads=(PARAMETERS, CORRECTED_VESSEL_OBJECTS, CAIX_CELLS),
    writes=(TILE_KINETICS, TILE_KINETICS_RECORD),
    body=_tile_curves,
    revision=3,
)
