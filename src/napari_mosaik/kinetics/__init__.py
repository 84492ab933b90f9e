"""Antibody kinetics: the patient's curves, delivery by each tile's vessels, identifiability."""

from napari_mosaik.kinetics.batched import ROW, kinetic_rows, solve_rows
from napari_mosaik.kinetics.delivery import (
    CURVE_NAMES,
    TILE_TIMES_H,
    DeliveryParams,
    curve_columns,
    plasma_um,
    retained_um,
    tile_curves_um,
)
from napari_mosaik.kinetics.diagnostics import (
    ORDER,
    Finding,
    delivery_findings,
    iter_tile_record,
    kinetic_findings,
    parameter_label,
    patient_record,
    solver_checks,
    tile_record,
)
from napari_mosaik.kinetics.immunokinetic import (
    EX_VIVO_TIME_H,
    IN_VIVO_TIMES_H,
    ImmunokineticParams,
    TimeActivity,
    solve_immunokinetic,
)
from napari_mosaik.kinetics.sensitivity import (
    Identifiability,
    Indices,
    PatientPriors,
    TilePriors,
    identifiability,
    iter_sobol,
    sobol,
)

__all__ = [
    "CURVE_NAMES",
    "EX_VIVO_TIME_H",
    "IN_VIVO_TIMES_H",
    "ORDER",
    "ROW",
    "TILE_TIMES_H",
    "DeliveryParams",
    "Finding",
    "Identifiability",
    "ImmunokineticParams",
    "Indices",
    "PatientPriors",
    "TilePriors",
    "TimeActivity",
    "curve_columns",
    "delivery_findings",
    "identifiability",
    "iter_sobol",
    "iter_tile_record",
    "kinetic_findings",
    "kinetic_rows",
    "parameter_label",
    "patient_record",
    "plasma_um",
    "retained_um",
    "sobol",
    "solve_immunokinetic",
    "solve_rows",
    "solver_checks",
    "tile_curves_um",
    "tile_record",
]
