"""Dose what-if without a case: from one measured curve to absorbed dose and response."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.params import Params, setting
from napari_mosaik.core.text import read_text, typed_number
from napari_mosaik.dosimetry import (
    Nuclide,
    RepairState,
    dose_per_activity_gy,
    nuclide,
    respond,
    time_integrated_activity,
    uneven_ln_survival,
)
from napari_mosaik.dosimetry.time_integral import decayed_curve

__all__ = [
    "CURVE_COLUMNS",
    "NOT_A_PLAN",
    "DoseParams",
    "curve_dose",
    "dose_settings",
    "read_curve",
    "read_time_course",
    "tail_of",
]

CURVE_COLUMNS = ("time_h", "activity_mbq_ml")
"""Header of the file of a time course, decay-corrected to injection."""
NOT_A_PLAN = (
    "What a therapeutic label would have done had it gone where the tracer went. Not a treatment "
    "plan; kinetics, alpha/beta and clonogen number are assumptions, and the PET cannot see "
    "differences finer than about 1.5 mm."
)
DENSITY_G_ML = 1.05
REPAIR_HALF_TIME_H = 1.5
_PREFIX = "dose."
_NO_CELL_LEFT_GY = 20.0
"""Dose of alpha particles beyond which the unit of the activity is asked for: ln S is -30."""
_LOCAL = "energy per decay that stays x 0.576784 Gy g/(MBq h MeV) / density"


class DoseParams(Params):
    """Radiobiology of the dose what-if; the defaults are illustrative, not specific for ccRCC."""

    alpha: float = setting(
        0.3,
        "Linear coefficient of cell kill by electrons and photons.",
        label="α",
        unit="1/Gy",
        gt=0,
    )
    beta: float = setting(
        0.03,
        "Quadratic coefficient of cell kill by electrons and photons.",
        label="β",
        unit="1/Gy²",
        ge=0,
    )
    rbe: float = setting(
        5.0,
        "Factor of the linear coefficient for alpha particles.",
        label="RBE of alpha particles",
        ge=0,
    )
    retained: float = setting(
        1.0,
        "Fraction of Bi-213 and its daughters that stays where Ac-225 has decayed.",
        label="Daughters retained",
        ge=0,
        le=1,
    )
    within_cv: float = setting(
        0.0,
        "Coefficient of variation of the dose within the region, which the PET cannot see; more "
        "cells survive a non-uniform dose.",
        label="Unseen variation (CV)",
        ge=0,
        le=0.5,
    )


def dose_settings(given: Mapping[str, Any]) -> DoseParams:
    """Settings named ``dose.NAME``.  Raises `InputError` for another name or a wrong value."""
    own = {}
    for name, value in given.items():
        if not name.startswith(_PREFIX):
            raise InputError(f"--set: {name!r} is not a setting here; they begin with '{_PREFIX}'")
        own[name.removeprefix(_PREFIX)] = value
    return DoseParams.parse(own, "--set")


def tail_of(text: str) -> Literal["physical"] | float:
    """The tail of a curve as typed: 'physical' or an effective half-life, h."""
    if text.strip() == "physical":
        return "physical"
    try:
        return typed_number(text)
    except InputError:
        raise InputError(
            f"the tail {text!r} is neither 'physical' nor an effective half-life in hours"
        ) from None


def curve_dose(
    file: Path,
    name: str,
    tail: Literal["physical"] | float = "physical",
    params: DoseParams | None = None,
) -> dict[str, Any]:
    """Absorbed dose and response where a measured time course is that of a nuclide.

    The dose rate follows straight lines between the decayed values and the tail; all energy but
    that of photons is absorbed where it is released (1.05 g/mL); damage is repaired with a
    half-time of 1.5 h.

    Parameters
    ----------
    file
        CSV with the header ``time_h,activity_mbq_ml``, decay-corrected to injection.
    name
        Name of the nuclide.
    tail, params
        As in `time_integrated_activity`; illustrative radiobiology where it is not given.

    Returns
    -------
    dict
        Integral, MBq h/mL, with its shares outside the times; doses, Gy (electrons, alpha particles
        and RBE-weighted apart); G, BED, EQD2, Gy, ln S; ``constants`` with value and source; and
        ``warnings``.

    Raises
    ------
    InputError
        For a file with another header, values that cannot be used, an unknown nuclide, a tail that
        the curve does not allow, or a curve without activity.
    """
    own, chosen = nuclide(name), params or DoseParams()
    times, values = read_curve(file)
    try:
        integral = time_integrated_activity(times, values, own.half_life_h, tail=tail)
        decayed = decayed_curve(times, values, own.half_life_h, tail)
    except InputError as error:
        raise InputError(f"{file.name}: {error}") from None
    total = float(integral.total_h)
    if not total > 0:
        raise InputError(f"{file.name}: the curve has no activity, so there is no dose")
    per = {
        part: dose_per_activity_gy(own, part=part, retained=chosen.retained) / DENSITY_G_ML
        for part in ("electron", "alpha")
    }
    state = RepairState([(1.0, math.log(2) / REPAIR_HALF_TIME_H)])
    state.add_curve(decayed.time_h, decayed.activity[0] * per["electron"], decayed.tail_per_h)
    dose, q = total * per["electron"], float(state.q_gy2())
    if not 0 < dose * dose < math.inf or not 0 < q < math.inf:
        raise InputError(
            f"{file.name}: activities up to {max(values):g} MBq/mL give a dose of {dose:g} Gy, "
            "which is implausible; give MBq/mL"
        )
    response = respond(
        dose,
        q,
        alpha_per_gy=chosen.alpha,
        beta_per_gy2=chosen.beta,
        alpha_particle_gy=total * per["alpha"],
        rbe=chosen.rbe,
    )
    ln_survival = float(
        uneven_ln_survival(
            chosen.alpha * response.rbe_weighted_gy, chosen.beta * q, chosen.within_cv
        )
    )
    bed = -ln_survival / chosen.alpha
    return {
        "time_integral_mbq_h_ml": total,
        "before_first": float(integral.before_first),
        "after_last": float(integral.after_last),
        "dose_gy": dose,
        "alpha_particle_gy": total * per["alpha"],
        "rbe_weighted_gy": float(response.rbe_weighted_gy),
        "g": q / dose**2,
        "bed_gy": bed,
        "eqd2_gy": bed / (1 + 2 * chosen.beta / chosen.alpha),
        "ln_survival": ln_survival,
        "constants": _constants(own, tail, chosen, per),
        "warnings": _doubts(own, total * per["alpha"]),
    }


def _doubts(own: Nuclide, alpha_particle_gy: float) -> list[str]:
    if alpha_particle_gy <= _NO_CELL_LEFT_GY:
        return []
    return [
        f"the alpha particles of {own.name} would give {alpha_particle_gy:.0f} Gy, beyond the "
        f"{_NO_CELL_LEFT_GY:g} Gy that leave no cell: is the activity in kBq/mL? It was taken as "
        "MBq/mL"
    ]


def _constants(
    own: Nuclide,
    tail: Literal["physical"] | float,
    params: DoseParams,
    per: Mapping[str, float],
) -> list[dict[str, Any]]:
    default = DoseParams()
    rows: list[tuple[str, Any, str]] = [
        ("nuclide", own.name, own.source),
        ("half_life_h", own.half_life_h, own.source),
        ("electron_kev", own.electron_kev, own.source),
        ("alpha_kev", own.alpha_kev, own.source),
        ("recoil_kev", own.recoil_kev, own.source),
        ("tail", tail, "physical decay alone: an upper bound" if tail == "physical" else "given"),
        *((f"{part}_gy_ml_per_mbq_h", gy, _LOCAL) for part, gy in per.items()),
        ("density_g_ml", DENSITY_G_ML, "soft tissue; assumption"),
        ("repair_half_time_h", REPAIR_HALF_TIME_H, "illustrative, not specific for ccRCC"),
    ]
    sources = {
        "rbe": "MIRD 22: Sgouros et al. 2010, J Nucl Med 51:311 (3 to 7)",
        "retained": "all daughters stay; assumption",
        "within_cv": "a uniform dose; assumption",
    }
    for name, value in params:
        source = sources.get(name, "illustrative, not specific for ccRCC")
        rows.append(
            (f"{_PREFIX}{name}", value, "given" if value != getattr(default, name) else source)
        )
    return [{"name": name, "value": value, "source": source} for name, value, source in rows]


def read_time_course(file: Path) -> tuple[list[float], list[float], FloatArray | None]:
    """Times, h, and values of any scale: a curve, or the tumour of a table as ``invivo.csv``.

    A curve may have draws beside it, in columns ``draw_1``, ``draw_2`` and so on; the third value
    has them as (k, m), of the scale of the curve, and is None without.

    Raises
    ------
    InputError
        For another table, values that cannot be used, or a table without the tumour.
    """
    from napari_mosaik.io.invivo import read_invivo

    first = read_text(file).lstrip().partition("\n")[0]
    header = tuple(cell.strip() for cell in first.split(","))
    if "region" not in header:
        drawn = tuple(f"draw_{number}" for number in range(1, len(header) - len(CURVE_COLUMNS) + 1))
        if header == (*CURVE_COLUMNS, *drawn):
            columns = np.array(_numbers(file, header)).T
            return columns[0].tolist(), columns[1].tolist(), columns[2:] if drawn else None
        if header[: len(CURVE_COLUMNS)] == CURVE_COLUMNS:
            wrong = next(
                a for a, b in zip(header[len(CURVE_COLUMNS) :], drawn, strict=True) if a != b
            )
            raise InputError(
                f"{file.name}: the columns behind {CURVE_COLUMNS[-1]} must be draw_1, draw_2 and "
                f"so on, not {wrong or 'empty'}"
            )
        return (*read_curve(file), None)
    rows = [one for one in read_invivo(file) if one.region == "tumour"]
    if not rows:
        raise InputError(f"{file.name} has no row of the region 'tumour'")
    return [one.time_h for one in rows], [one.mean for one in rows], None


def read_curve(file: Path) -> tuple[list[float], list[float]]:
    """Times, h, and activities, MBq/mL, of a time course; `InputError` for another table."""
    rows = _numbers(file, CURVE_COLUMNS)
    return [time for time, _ in rows], [value for _, value in rows]


def _numbers(file: Path, columns: Sequence[str]) -> list[list[float]]:
    """The rows of a table with exactly these columns; `InputError` for another one."""
    rows = [row for row in csv.reader(read_text(file).splitlines()) if any(c.strip() for c in row)]
    header = tuple(cell.strip() for cell in rows[0]) if rows else ()
    if header != tuple(columns):
        raise InputError(
            f"{file.name}: the header must be {','.join(CURVE_COLUMNS)} (hours after injection, "
            f"decay-corrected MBq/mL), not {','.join(header) or 'empty'}"
        )
    numbers: list[list[float]] = []
    for place, row in enumerate(rows[1:], 1):
        words = f"{file.name}: row {place}, {','.join(row)[:80]!r},"
        try:
            numbers.append([float(cell) for cell in row])
        except ValueError:
            raise InputError(f"{words} is not a number") from None
        if len(row) != len(columns) or not all(map(math.isfinite, numbers[-1])):
            raise InputError(f"{words} is not a time and an activity for each column")
    if not numbers:
        raise InputError(f"{file.name} has a header but no times")
    return numbers
