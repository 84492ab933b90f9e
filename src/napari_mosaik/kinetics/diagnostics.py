"""Identifiability of the kinetic parameters: what the curves can and cannot distinguish."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from napari_mosaik.core import InputError, Params
from napari_mosaik.kinetics.batched import kinetic_rows, solve_in_steps, solve_rows
from napari_mosaik.kinetics.delivery import DeliveryParams, retained_um, tile_curves_um
from napari_mosaik.kinetics.immunokinetic import (
    EX_VIVO_TIME_H,
    IN_VIVO_TIMES_H,
    ImmunokineticParams,
    immunokinetic_columns,
    solve_immunokinetic,
)
from napari_mosaik.kinetics.sensitivity import (
    DiagnosticParams,
    Identifiability,
    PatientPriors,
    TilePriors,
    identifiability,
    iter_parameter_indices,
    patient_retained,
    prior_factors,
    tile_retained,
)

__all__ = [
    "SOBOL_NAMES",
    "Finding",
    "delivery_findings",
    "iter_tile_record",
    "kinetic_findings",
    "parameter_label",
    "patient_record",
    "solver_checks",
    "tile_record",
]

_ANTIGEN_FACTOR = 20.0
_BINDING_FACTOR = 10.0
_UNSEEN = 0.001
"""Per cent below which a change is not given as a number."""
_VISIBLE = 0.01
"""A relative change below this is not visible in a PET image."""

_SCARCE = 0.1
"""Antigen that can fall below this fraction without effect does not control the uptake."""

SOBOL_NAMES: Final = (
    "permeability_um_per_s",
    "antigen_um",
    "k_a_per_um_h",
    "k32_per_h",
)
"""Parameters of the tile whose shares of the variance are computed."""
ORDER: Final = 4
"""Order of the solver."""


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
        f"changes by {_percent(100 * change)}: {verdict}.",
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
        f"antibody by {_percent(100 * change, most=True)}: it {verdict} from images at these "
        "times.",
    )


def _unbound_level(params: ImmunokineticParams, time_h: Sequence[float]) -> Finding:
    curves = solve_immunokinetic(params, time_h)
    level = float(np.max(curves.free_um + curves.bound_um)) / params.free_0_um
    most = "less than" if 100 * level < _UNSEEN else "at most"
    verdict = "only the internalised curve holds a signal" if level < 1e-3 else "all curves matter"
    return Finding(
        "free_and_bound_at_imaging",
        level,
        "1",
        f"At the imaging times free and surface-bound antibody are {most} "
        f"{max(100 * level, _UNSEEN):.3g} % of the dose: {verdict}.",
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


# --- records: what is stored with the curves, printed and shown -----------------------------------
def patient_record(params: ImmunokineticParams, priors: PatientPriors) -> dict[str, Any]:
    """The diagnostics of the patient's curves as a JSON-able document.

    ``imaging_h`` (h), ``findings``, ``parameters`` with prior, posterior and sensitivities at the
    imaging times, and ``verification`` of the solver.  Parameters that are 0 are not judged.
    Raises `InputError` without free antibody, or where nothing is retained at an imaging time.
    """
    retained = patient_retained(params)
    return {
        **_conditions(priors),
        "findings": [asdict(one) for one in kinetic_findings(params, priors.imaging_h)],
        "parameters": _parameters(params, priors, retained),
        "verification": solver_checks(params),
    }


def tile_record(
    params: DeliveryParams, priors: TilePriors, surface_density_per_um: float
) -> dict[str, Any]:
    """The diagnostics of delivery to antigen-positive tissue as a JSON-able document.

    As `patient_record`, with the largest relative difference between closed form and numerical
    solution at the imaging times; vessel perimeter per area of the tissue in 1/µm.  Raises
    `InputError` if nothing is retained.
    """
    times = priors.imaging_h
    findings = delivery_findings(params, surface_density_per_um, times[-1])
    closed, solved = (
        tile_curves_um(
            [surface_density_per_um], [1.0], params.model_copy(update={"solver": solver}), times
        )[0, :, 1:].sum(axis=1)
        for solver in ("closed", "ode")
    )
    return {
        **_conditions(priors),
        "surface_density_per_um": float(surface_density_per_um),
        "findings": [asdict(one) for one in findings],
        "parameters": _parameters(params, priors, tile_retained(params, surface_density_per_um)),
        "closed_form_difference": float(np.max(np.abs(closed / solved - 1))),
    }


def iter_tile_record(
    params: DeliveryParams, priors: TilePriors, surface_density_per_um: float, seed: int = 0
) -> Generator[float, None, dict[str, Any]]:
    """`tile_record` with the Sobol indices (``sobol``) of `SOBOL_NAMES` at the imaging times.

    Vessel surface in 1/µm; *seed* is the random seed of the indices.  Yields the fraction that is
    done; raises `InputError` if nothing is retained.
    """
    record = tile_record(params, priors, surface_density_per_um)
    factors = prior_factors(priors)
    chosen = {name: factors[name] for name in SOBOL_NAMES if getattr(params, name) > 0}
    values = {name: float(getattr(params, name)) for name in chosen}
    rough = tile_retained(params, surface_density_per_um, tolerance=1e-6)
    indices = yield from iter_parameter_indices(
        rough, values, chosen, priors.imaging_h, priors.samples, seed
    )
    sobol = {
        "names": list(chosen),
        "labels": [parameter_label(type(params), name)[0] for name in chosen],
        "samples": priors.samples,
        "seed": seed,
        **{name: _plain(getattr(indices, name)) for name in _INDEX_NAMES},
    }
    return {**record, "sobol": sobol}


_INDEX_NAMES: Final = ("first", "first_low", "first_high", "total", "total_low", "total_high")


def _plain(values: np.ndarray[Any, Any]) -> list[list[float | None]]:
    return [[float(v) if math.isfinite(v) else None for v in row] for row in values]


def _percent(value: float, *, most: bool = False) -> str:
    """A change in per cent, as text."""
    if abs(value) < _UNSEEN:
        return f"less than {_UNSEEN:g} %"
    return f"{'at most ' if most else ''}{value:+.2g} %".replace("-", "\N{MINUS SIGN}")


def _conditions(priors: DiagnosticParams) -> dict[str, Any]:
    return {"imaging_h": list(priors.imaging_h), "image_error": priors.image_error}


def parameter_label(kind: type[Params], name: str) -> tuple[str, str]:
    """Label and unit of a parameter."""
    extra = kind.model_fields[name].json_schema_extra
    entries: Mapping[str, Any] = extra if isinstance(extra, dict) else {}
    return str(entries.get("label") or name), str(entries.get("unit") or "1")


def _parameters(params: Params, priors: DiagnosticParams, retained: Any) -> list[dict[str, Any]]:
    factors = prior_factors(priors)
    values = {name: float(getattr(params, name)) for name in factors}
    judged = {name: factor for name, factor in factors.items() if values[name] > 0}
    found = identifiability(retained, values, judged, priors.imaging_h, priors.image_error)
    return [_parameter(type(params), one, values[one.name]) for one in found]


def _parameter(kind: type[Params], one: Identifiability, value: float) -> dict[str, Any]:
    label, unit = parameter_label(kind, one.name)
    strongest = float(one.sensitivity[np.argmax(np.abs(one.sensitivity))])
    before, after = f"{one.prior_factor:.3g}", f"{one.posterior_factor:.3g}"
    verdict = f"prior only; the images narrow its factor from {before} to {after}"
    if one.determined:
        verdict = f"determined by the images to a factor of {after} (prior: {before})"
    elif before == after:
        verdict = f"prior only; the images leave its factor of {before} as it is"
    return {
        "name": one.name,
        "label": label,
        "unit": unit,
        "value": value,
        "prior_factor": one.prior_factor,
        "posterior_factor": one.posterior_factor,
        "determined": one.determined,
        "sensitivity": [float(s) for s in one.sensitivity],
        "sentence": f"{label}: {verdict}. 1 % more of it changes the retained antibody by "
        f"{_percent(strongest, most=True)}.",
    }


def solver_checks(params: ImmunokineticParams | None = None) -> dict[str, float]:
    """Checks of the solver on this machine, and of the curves of these parameters.

    ``order`` is the observed order of convergence on the limit without internalisation, whose
    closed form is known (`ORDER` is expected); ``closed_form`` the largest deviation from that
    form, relative to the antibody; ``tolerance`` the largest change of the curves by a tolerance
    100 times smaller, and ``balance`` the largest error of bound, free, internalised and lost
    antibody against the antibody at injection, both relative to it.  Dimensionless.
    """
    params = params or ImmunokineticParams()
    table = ImmunokineticParams(k32_per_h=0.0, k03_per_h=0.0)
    ends = np.geomspace(1e-5, 2e-3, 20)
    row = kinetic_rows(immunokinetic_columns(table))
    free = solve_rows(row, ends)[0, :, 0]
    exact = _free_of_the_limit(table, ends)
    steps = [32, 64]
    errors = [
        abs(solve_in_steps(row[0], 2e-4, n)[0] - _free_of_the_limit(table, np.array([2e-4]))[0])
        for n in steps
    ]
    rows = kinetic_rows(immunokinetic_columns(params))
    times = np.concatenate([[0.0], np.geomspace(1e-6, EX_VIVO_TIME_H, 200)])
    curves = solve_rows(rows, times)[0]
    fine = solve_rows(rows, times, tolerance=3e-10)[0]
    start = params.free_0_um + params.bound_0_um + params.internalised_0_um
    return {
        "order": float(np.log2(errors[0] / errors[1])),
        "closed_form": float(np.max(np.abs(free - exact)) / table.free_0_um),
        "tolerance": float(np.max(np.abs(curves[:, :3] - fine[:, :3])) / start),
        "balance": float(np.max(np.abs(curves.sum(axis=1) - start)) / start),
    }


def _free_of_the_limit(params: ImmunokineticParams, time_h: np.ndarray[Any, Any]) -> Any:
    """Free antibody (t,), µM, without internalisation: binding of second order."""
    spare = params.antigen_um - params.free_0_um
    decay = np.exp(-params.k_a_per_um_h * spare * time_h)
    return params.free_0_um * spare * decay / (params.antigen_um - params.free_0_um * decay)
