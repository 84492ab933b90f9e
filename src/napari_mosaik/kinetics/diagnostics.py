"""Identifiability of the kinetic parameters: what the curves can and cannot distinguish."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_mosaik.core import InputError
from napari_mosaik.kinetics.delivery import DeliveryParams, retained_um
from napari_mosaik.kinetics.immunokinetic import (
    EX_VIVO_TIME_H,
    IN_VIVO_TIMES_H,
    ImmunokineticParams,
    solve_immunokinetic,
)

__all__ = ["Finding", "delivery_findings", "kinetic_findings"]

_ANTIGEN_FACTOR = 20.0
_BINDING_FACTOR = 10.0
_VISIBLE = 0.01
"""A relative change below this is not visible in a PET image."""

_SCARCE = 0.1
"""Antigen that can fall below this fraction without effect does not control the uptake."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One number about the parameters, with a sentence that explains it."""

    name: str
    value: float
    unit: str
    sentence: str


def kinetic_findings(
    params: ImmunokineticParams | None = None,
    time_h: Sequence[float] = (*IN_VIVO_TIMES_H, EX_VIVO_TIME_H),
    plasma_volume_l: float = 3.0,
) -> tuple[Finding, ...]:
    """What the immunokinetic curves reveal about antigen and binding at the imaging times.

    Parameters
    ----------
    params
        Settings of the model; Table 2 of the paper if None.
    time_h
        Imaging times after injection, h, ascending.
    plasma_volume_l
        Plasma volume with which the implied volume is compared, L.

    Returns
    -------
    tuple of Finding
        All numbers are computed from *params*.

    Raises
    ------
    InputError
        If there is no free antibody at injection or the times are not valid.
    """
    params = params or ImmunokineticParams()
    if not params.free_0_um > 0:
        raise InputError(
            "nothing to analyse without free antibody at injection; set 'free_0_um' above 0"
        )
    return (
        _excess(params),
        _binding_time(params),
        _antigen_signal(params, time_h),
        _binding_rate_signal(params, time_h),
        _unbound_level(params, time_h),
        _implied_volume(params, plasma_volume_l),
    )


def delivery_findings(
    params: DeliveryParams | None = None,
    surface_density_per_um: float = 0.005,
    time_h: float = EX_VIVO_TIME_H,
) -> tuple[Finding, ...]:
    """How far vessels and antigen each determine a tile's retained antibody.

    Parameters
    ----------
    params
        Settings; the saturating equations are solved whatever *solver* is set.
    surface_density_per_um
        Vessel perimeter per area of the tile, 1/µm.
    time_h
        Time after injection, h.

    Raises
    ------
    InputError
        If the tile retains nothing with the given settings.
    """
    params = params or DeliveryParams()
    full = _saturating(params, surface_density_per_um, time_h, 1.0)
    if not full > 0:
        raise InputError("the tile retains nothing; check permeability, vessels and antigen")
    double = _saturating(params, 2 * surface_density_per_um, time_h, 1.0) / full
    share = _antigen_share_for_loss(params, surface_density_per_um, time_h, 0.9 * full)
    verdict = (
        "delivery dominates, and CAIX informs about the antigen-negative area only"
        if share < _SCARCE
        else "the amount of antigen matters"
    )
    return (
        Finding(
            "uptake_per_doubled_vessels",
            double,
            "1",
            f"Twice the vessel surface gives {double:.2f} times the retained antibody at "
            f"{time_h:g} h.",
        ),
        Finding(
            "antigen_share_for_10_percent_loss",
            share,
            "1",
            f"Where tissue is positive, the antigen must fall to {100 * share:.2g} % of the "
            f"reference before a tile loses 10 % of its uptake: {verdict}.",
        ),
    )


def _excess(params: ImmunokineticParams) -> Finding:
    ratio = params.antigen_um / params.free_0_um
    more = "binds all antibody" if ratio > 1 else "can be exhausted without recycling"
    return Finding(
        "antigen_excess", ratio, "1", f"Antigen is {ratio:.2g} times the antibody: it {more}."
    )


def _binding_time(params: ImmunokineticParams) -> Finding:
    times = np.concatenate([[0.0], np.geomspace(1e-7, EX_VIVO_TIME_H, 2000)])
    free = solve_immunokinetic(params, times).free_um
    bound = np.flatnonzero(free <= 0.01 * params.free_0_um)
    seconds = float(times[bound[0]]) * 3600 if bound.size else float("inf")
    text = f"99 % of the free antibody is bound after {seconds:.2g} s."
    if not bound.size:
        text = f"Less than 99 % of the free antibody is bound within {EX_VIVO_TIME_H:g} h."
    return Finding("time_to_bind_99_percent", seconds, "s", text)


def _antigen_signal(params: ImmunokineticParams, time_h: Sequence[float]) -> Finding:
    less = params.model_copy(update={"antigen_um": params.antigen_um / _ANTIGEN_FACTOR})
    change = _largest_change(params, less, time_h)
    if abs(change) < _VISIBLE:
        verdict = "these curves carry no detectable antigen signal"
        verdict += ", and its sign is reversed" if change > 0 else ""
    else:
        verdict = "these curves depend on the antigen"
    return Finding(
        "retained_change_antigen_20_fold_lower",
        change,
        "1",
        f"With {_ANTIGEN_FACTOR:g} times less antigen the retained antibody at the imaging times "
        f"changes by {100 * change:+.2g} %: {verdict}.",
    )


def _binding_rate_signal(params: ImmunokineticParams, time_h: Sequence[float]) -> Finding:
    changes = [
        _largest_change(
            params, params.model_copy(update={"k_a_per_um_h": params.k_a_per_um_h * factor}), time_h
        )
        for factor in (_BINDING_FACTOR, 1 / _BINDING_FACTOR)
    ]
    change = max(changes, key=abs)
    verdict = "cannot be identified" if abs(change) < _VISIBLE else "can be identified"
    return Finding(
        "retained_change_binding_rate_10_fold",
        change,
        "1",
        f"An association rate {_BINDING_FACTOR:g} times higher or lower changes the retained "
        f"antibody by at most {100 * abs(change):.2g} %: it {verdict} from images at these times.",
    )


def _unbound_level(params: ImmunokineticParams, time_h: Sequence[float]) -> Finding:
    curves = solve_immunokinetic(params, time_h)
    level = float(np.max(curves.free_um + curves.bound_um)) / params.free_0_um
    verdict = "only the internalised curve holds a signal" if level < 1e-3 else "all curves matter"
    return Finding(
        "free_and_bound_at_imaging",
        level,
        "1",
        f"At the imaging times free and surface-bound antibody are at most {level:.2g} of the "
        f"dose: {verdict}.",
    )


def _implied_volume(params: ImmunokineticParams, plasma_volume_l: float) -> Finding:
    volume_l = params.mass_mg * 1e3 / params.molar_mass_g_per_mol / params.free_0_um
    ratio = plasma_volume_l / volume_l
    return Finding(
        "implied_volume",
        1e3 * volume_l,
        "mL",
        f"{params.mass_mg:g} mg give {params.free_0_um:g} µM only in {1e3 * volume_l:.3g} mL, "
        f"{ratio:.3g} times less than {plasma_volume_l:g} L of plasma.",
    )


def _largest_change(
    params: ImmunokineticParams, other: ImmunokineticParams, time_h: Sequence[float]
) -> float:
    before = solve_immunokinetic(params, time_h).retained_um
    after = solve_immunokinetic(other, time_h).retained_um
    change = np.divide(after - before, before, out=np.zeros_like(before), where=before > 0)
    return float(change[np.argmax(np.abs(change))])


def _saturating(params: DeliveryParams, density: float, time_h: float, share: float) -> float:
    update = {"solver": "ode", "antigen_um": params.antigen_um * share}
    return float(retained_um([density], [1.0], params.model_copy(update=update), time_h)[0])


def _antigen_share_for_loss(
    params: DeliveryParams, density: float, time_h: float, target_um: float
) -> float:
    """Fraction of the antigen at which the retained antibody falls to the target, by bisection."""
    low, high = 1e-5, 1.0
    while high / low > 1.02:
        middle = float(np.sqrt(low * high))
        if _saturating(params, density, time_h, middle) < target_um:
            low = middle
        else:
            high = middle
    return float(np.sqrt(low * high))
