"""Kinetics without a case: parameters, curves, and what images at given times determine."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.errors import InputError, SolverError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.params import Params
from napari_mosaik.core.progress import map_progress
from napari_mosaik.kinetics import (
    DeliveryParams,
    ImmunokineticParams,
    TimeActivity,
    iter_tile_record,
    parameter_label,
    patient_record,
    solve_immunokinetic,
    tile_curves_um,
    tile_record,
)
from napari_mosaik.workflow.steps.kinetics import (
    CURVES,
    EX_VIVO_H,
    TILE_CURVES,
    CurveParams,
    DeliveredCurveParams,
    sampling_times_h,
)

__all__ = [
    "iter_kinetics_document",
    "iter_records",
    "iter_shares",
    "judge_kinetics",
    "kinetic_settings",
    "live_curves_um",
]


_SET = "--set"


def kinetic_settings(
    given: Mapping[str, Any], imaging_h: Sequence[float] = ()
) -> tuple[CurveParams, DeliveredCurveParams]:
    """Settings of the patient's model and of the tissue's; a name that both have changes both.

    Imaging times in h; those above 0 are used unless *given* sets them.  Raises `InputError` for
    an unknown name or a value that is not valid.
    """
    fields = {*CURVES.params.model_fields, *TILE_CURVES.params.model_fields}
    for name in given:
        if name not in fields:
            CurveParams.parse({name: given[name]}, _SET)
    later = [f"{t:g}" for t in sorted(imaging_h) if t > 0]
    settings = {**({"imaging_times": ", ".join(later)} if later else {}), **given}
    return (
        CurveParams.parse(
            {n: settings[n] for n in CurveParams.model_fields if n in settings}, _SET
        ),
        DeliveredCurveParams.parse(
            {n: settings[n] for n in DeliveredCurveParams.model_fields if n in settings}, _SET
        ),
    )


def live_curves_um(params: Params, time_h: FloatArray, surface_density_per_um: float) -> FloatArray:
    """Free, bound and internalised antibody (t, 3), µM, at times (t,), h.

    Of the patient, or of antigen-positive tissue with this vessel surface, 1/µm, with saturation.
    """
    if isinstance(params, ImmunokineticParams):
        return solve_immunokinetic(params, time_h).stack()
    assert isinstance(params, DeliveryParams)
    own = params.model_copy(update={"solver": "ode"})
    return np.asarray(tile_curves_um([surface_density_per_um], [1.0], own, time_h)[0], float)


def judge_kinetics(params: Params, surface_density_per_um: float) -> dict[str, Any]:
    """What the images determine of one model, without shares of the variance; surface in 1/µm.

    The document says why it is ``not_available`` where nothing can be judged.
    """
    try:
        if isinstance(params, CurveParams):
            return patient_record(params, params)
        assert isinstance(params, DeliveredCurveParams)
        return tile_record(params, params, surface_density_per_um)
    except (InputError, SolverError) as error:
        return {"not_available": str(error)}


def iter_shares(
    params: Params, surface_density_per_um: float
) -> Generator[tuple[str, Progress], None, dict[str, Any]]:
    """The document of a tile with the shares of the variance; vessel surface in 1/µm.

    Yields the step's name and its progress; the document says why it is ``not_available``.
    """
    assert isinstance(params, DeliveredCurveParams)
    work = iter_tile_record(params, params, surface_density_per_um)
    try:
        return (
            yield from map_progress(
                work, lambda share: (TILE_CURVES.name, Progress(share, 1, "shares of the variance"))
            )
        )
    except InputError as error:
        return {"not_available": str(error)}


def iter_records(
    patient: CurveParams, tile: DeliveredCurveParams, surface_density_per_um: float
) -> Generator[Progress, None, dict[str, Any]]:
    """What the images determine of the ``patient`` and of a ``tile``, vessel surface in 1/µm.

    Each is the document of `patient_record` or `iter_tile_record`, or says why it is
    ``not_available``.
    """
    yield Progress(0.0, 1, "identifiability")
    found = {"patient": judge_kinetics(patient, surface_density_per_um)}
    work = iter_tile_record(tile, tile, surface_density_per_um)
    try:
        found["tile"] = yield from map_progress(
            work, lambda share: Progress(0.1 + 0.9 * share, 1, "shares of the variance")
        )
    except InputError as error:
        found["tile"] = {"not_available": str(error)}
    return found


def iter_kinetics_document(
    patient: CurveParams,
    tile: DeliveredCurveParams,
    time_h: Sequence[float],
    surface_density_per_um: float,
) -> Generator[Progress, None, dict[str, Any]]:
    """Curves at the given times (h) and over all, parameters with units, and diagnostics.

    A JSON-able document; concentrations in µM, vessel surface in 1/µm.  Raises `InputError` for
    times that are not valid.
    """
    at = solve_immunokinetic(patient, time_h)
    dense = solve_immunokinetic(patient, sampling_times_h(max(EX_VIVO_H, at.time_h[-1])))
    diagnostics = yield from iter_records(patient, tile, surface_density_per_um)
    return {
        **_columns(at),
        "unit": "µM",
        "params": patient.model_dump(mode="json", include=set(ImmunokineticParams.model_fields)),
        "parameters": {
            "patient": _with_units(ImmunokineticParams, patient),
            "tile": _with_units(DeliveryParams, tile),
        },
        "curves": _columns(dense),
        "diagnostics": diagnostics,
    }


def _columns(curves: TimeActivity) -> dict[str, Any]:
    return {
        "time_h": curves.time_h,
        "free_um": curves.free_um,
        "bound_um": curves.bound_um,
        "internalised_um": curves.internalised_um,
        "total_um": curves.free_um + curves.retained_um,
    }


def _with_units(kind: type[Params], params: Params) -> list[dict[str, Any]]:
    """Each parameter with label, unit, value and meaning."""
    found = []
    for name, info in kind.model_fields.items():
        label, unit = parameter_label(kind, name)
        value = getattr(params, name)
        about = {"label": label, "unit": unit, "value": value, "about": info.description}
        found.append({"name": name, **about})
    return found
