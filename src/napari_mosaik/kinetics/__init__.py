"""Kinetics: the patient's antibody curves, delivery by each tile's vessels, their limits."""

from napari_mosaik.kinetics.delivery import (
    DeliveryParams,
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
    curve_features,
    min_max,
    solve_immunokinetic,
)

__all__ = [
    "EX_VIVO_TIME_H",
    "IN_VIVO_TIMES_H",
    "DeliveryParams",
    "Finding",
    "ImmunokineticParams",
    "TimeActivity",
    "curve_features",
    "delivery_findings",
    "kinetic_findings",
    "min_max",
    "plasma_um",
    "retained_um",
    "solve_immunokinetic",
    "tile_curves_um",
]
