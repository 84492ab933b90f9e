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
from napari_mosaik.kinetics.diagnostics import Finding, delivery_findings, kinetic_findings
from napari_mosaik.kinetics.immunokinetic import (
    EX_VIVO_TIME_H,
    IN_VIVO_TIMES_H,
    ImmunokineticParams,
    TimeActivity,
    solve_immunokinetic,
)

__all__ = [
    "CURVE_NAMES",
    "EX_VIVO_TIME_H",
    "IN_VIVO_TIMES_H",
    "ROW",
    "TILE_TIMES_H",
    "DeliveryParams",
    "Finding",
    "ImmunokineticParams",
    "TimeActivity",
    "curve_columns",
    "delivery_findings",
    "kinetic_findings",
    "kinetic_rows",
    "plasma_um",
    "retained_um",
    "solve_immunokinetic",
    "solve_rows",
    "tile_curves_um",
]
