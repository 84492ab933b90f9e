"""From activity concentration to SUV: decay of the injected activity and body measure."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Literal

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.params import Params, setting
from napari_mosaik.core.pet_records import HALF_LIFE_H, InjectionRecord
from napari_mosaik.uptake.body_size import (
    LeanFormula,
    checked_weight_kg,
    du_bois_bsa_m2,
    lean_mass_kg,
)

__all__ = [
    "SUV_UNITS",
    "SuvKind",
    "SuvParams",
    "checked_dose_mbq",
    "decay_factor",
    "frame_factor",
    "suv_factor",
]

SuvKind = Literal["bsa", "bw", "lbm"]

SUV_UNITS: dict[SuvKind, str] = {"bsa": "cm²/mL", "bw": "g/mL", "lbm": "g/mL"}
"""Unit of each kind of SUV."""

_DOSE_RANGE_MBQ = (0.1, 3e3)
_DOSE_RANGES_MBQ = {
    "Ac-225": (1e-3, 200.0), "Lu-177": (0.1, 3e4), "I-131": (0.1, 3e4), "Y-90": (0.1, 3e4),
    "O-15": (0.1, 6e3), "unknown": (1e-2, 1e6),
}  # fmt: skip
"""Plausible injected activities, from a mouse to a therapy."""
_MAX_HALF_LIVES = 10.0
_DYNAMIC_H = 1.0
"""A dynamic scan that starts longer before the injection is a slip in one of the two times."""
"""Later less than a thousandth of the activity remains, and no image can be measured."""


class SuvParams(Params):
    """Settings of the SUV."""

    kind: SuvKind = setting(
        "bsa",
        "Body measure that normalises the uptake.",
        label="Normalised by",
        choices={
            "bsa": "body surface (Du Bois)",
            "bw": "body weight",
            "lbm": "lean body mass",
        },
    )
    lean_formula: LeanFormula = setting(
        "janmahasatian",
        "Formula of the lean body mass; used only for SUV by lean body mass.",
        label="Lean mass by",
        advanced=True,
        choices={"janmahasatian": "Janmahasatian 2005", "james": "James 1976"},
    )


def decay_factor(half_life_h: float, elapsed_h: float) -> float:
    """Fraction of the activity that remains after a time, ``2 ** (-elapsed_h / half_life_h)``.

    Parameters
    ----------
    half_life_h
        Physical half-life, h.
    elapsed_h
        Time since the reference, h; a negative time gives a factor above 1.

    Raises
    ------
    InputError
        If the half-life is not a positive number or the time is not finite.
    """
    if not (math.isfinite(half_life_h) and half_life_h > 0):
        raise InputError(f"the half-life must be positive, not {half_life_h:g} h")
    if not math.isfinite(elapsed_h):
        raise InputError("the elapsed time is not a finite number; check injected and scanned")
    return float(2.0 ** (-elapsed_h / half_life_h))


def frame_factor(half_life_h: float, duration_s: float) -> float:
    """Factor from the mean activity of a frame to that at its start, dimensionless, at least 1.

    ``x / (1 - exp(-x))`` with ``x = ln 2 * duration / half-life``; 1 for short frames.
    """
    decay_factor(half_life_h, 0.0)
    if not (math.isfinite(duration_s) and duration_s >= 0):
        raise InputError(f"the frame duration must not be negative, but it is {duration_s:g} s")
    x = math.log(2.0) * duration_s / 3600.0 / half_life_h
    return 1.0 if x == 0 else float(x / -math.expm1(-x))


def half_life_of(record: InjectionRecord) -> float:
    """Half-life, h: that of the record, else the table value of its nuclide."""
    if record.half_life_h is not None:
        return record.half_life_h
    if not record.nuclide:
        raise InputError("the nuclide is missing; give nuclide (for example Zr-89)")
    try:
        return HALF_LIFE_H[record.nuclide]
    except KeyError:
        raise InputError(
            f"the half-life of '{record.nuclide}' is unknown (known: {', '.join(HALF_LIFE_H)}); "
            "give half_life_h"
        ) from None


def checked_dose_mbq(dose_mbq: float, nuclide: str) -> float:
    """The injected activity, MBq; an implausible one raises `InputError`."""
    low, high = _DOSE_RANGES_MBQ.get(nuclide, _DOSE_RANGE_MBQ)
    if low <= dose_mbq <= high:
        return dose_mbq
    meant = next((dose_mbq * f for f in (1e-3, 1e-6, 1e3) if low <= dose_mbq * f <= high), None)
    question = ";" if meant is None else f"; did you mean {meant:g} MBq?"
    raise InputError(
        f"an injected activity of {dose_mbq:g} MBq is implausible for {nuclide or 'PET'} "
        f"({low:g} to {high:g} MBq){question} {'correct' if meant is None else 'Correct'} dose_mbq"
    )


def net_dose_bq(record: InjectionRecord) -> float:
    """Injected minus residual activity, Bq, at the time of injection; checked."""
    if record.dose_mbq is None:
        raise InputError("the injected activity is missing; give dose_mbq (for example 37)")
    dose = checked_dose_mbq(record.dose_mbq, record.nuclide) * 1e6
    if record.residual_mbq >= record.dose_mbq:
        raise InputError(
            f"the residual activity ({record.residual_mbq:g} MBq) is not smaller than the "
            f"injected one ({record.dose_mbq:g} MBq); correct residual_mbq"
        )
    return dose - record.residual_mbq * 1e6


def _present(value: datetime | None, name: str, label: str) -> datetime:
    if value is None:
        raise InputError(
            f"{label} is missing; give {name} with date and time (for example 2024-05-17T09:30)"
        )
    return value


def elapsed_h(record: InjectionRecord, *, dynamic: bool = False) -> float:
    """Time from injection to the start of the scan, h; checked.

    It may be negative only with *dynamic*, by one hour: a scan that started before the injection.
    """
    injected = _present(record.injected, "injected", "the time of injection")
    scanned = _present(record.scanned, "scanned", "the start of the scan")
    if (injected.tzinfo is None) != (scanned.tzinfo is None):
        raise InputError(
            f"the injection ({injected.isoformat()}) and the scan ({scanned.isoformat()}) cannot "
            "be compared: only one of them has a time zone; give both with or without"
        )
    hours = (scanned - injected).total_seconds() / 3600.0
    if hours < 0 and not dynamic:
        raise InputError(
            f"the injection ({injected.isoformat()}) is after the start of the scan "
            f"({scanned.isoformat()}); correct injected or scanned"
        )
    if hours < -_DYNAMIC_H:
        raise InputError(
            f"the injection ({injected.isoformat()}) is {-hours:.3g} h after the start of the scan "
            f"({scanned.isoformat()}), and a dynamic scan begins minutes before it; correct "
            "injected or scanned"
        )
    return hours


def decay_terms(record: InjectionRecord, *, dynamic: bool = False) -> tuple[float, float]:
    """Remaining fraction of the injected activity, and factor on the image; dimensionless."""
    mode = record.decay_correction
    if mode is None:
        raise InputError(
            "the reference time of the decay correction is missing; give decay_correction as "
            "START (scan start), ADMIN (injection) or NONE"
        )
    if mode == "ADMIN":
        return 1.0, 1.0
    half_life = half_life_of(record)
    hours = elapsed_h(record, dynamic=dynamic)
    if hours > _MAX_HALF_LIVES * half_life:
        raise InputError(
            f"the scan is {hours / 24:.4g} days after the injection, {hours / half_life:.3g} "
            f"half-lives of {record.nuclide}: no activity would remain; check the dates of "
            "injection and scan, and the nuclide"
        )
    remaining = decay_factor(half_life, hours)
    if mode == "START":
        return remaining, 1.0
    if record.frame_duration_s is None:
        raise InputError(
            "an image without decay correction (NONE) needs its frame duration; "
            "give frame_duration_s"
        )
    return remaining, frame_factor(half_life, record.frame_duration_s)


def body_measure(
    record: InjectionRecord, kind: SuvKind, lean_formula: LeanFormula = "janmahasatian"
) -> float:
    """Body measure of the SUV: BSA in cm² ("bsa"), weight or lean mass in g ("bw", "lbm")."""
    if kind not in SUV_UNITS:
        raise InputError(f"the kind of SUV is {kind!r}; use one of: {', '.join(SUV_UNITS)}")
    if record.weight_kg is None:
        raise InputError("the patient's weight is missing; give weight_kg (for example 75)")
    if kind == "bw":
        return 1e3 * checked_weight_kg(record.weight_kg)
    if record.height_cm is None:
        raise InputError("the patient's height is missing; give height_cm (for example 172)")
    if kind == "bsa":
        return 1e4 * du_bois_bsa_m2(record.weight_kg, record.height_cm)
    if record.sex is None:
        raise InputError(
            "lean body mass needs the sex of the patient; give sex as 'M', 'F' or 'O' (other)"
        )
    return 1e3 * lean_mass_kg(record.weight_kg, record.height_cm, record.sex, lean_formula)


def suv_factor(
    record: InjectionRecord,
    kind: SuvKind = "bsa",
    *,
    lean_formula: LeanFormula = "janmahasatian",
    dynamic: bool = False,
) -> float:
    """The factor from a concentration in Bq/mL to an SUV.

    ``SUV = C * frame factor * body measure / (net dose * remaining fraction)``.  The reference
    time of the image determines the decay: START decays the dose to the start of the scan, ADMIN
    leaves it undecayed, NONE corrects the frame to its start and decays the dose to that.

    Parameters
    ----------
    record
        Injection, patient, scan; see `InjectionRecord`.  ``scanned`` is the reference time of a
        START image, or the start of the frame of a NONE image.
    kind
        "bsa" (result in cm²/mL per Bq/mL), "bw" or "lbm" (g/mL per Bq/mL).
    lean_formula
        Formula of the lean body mass.
    dynamic
        Allow a scan that started before the injection.

    Raises
    ------
    InputError
        If an item that the kind needs is missing or implausible (the message names it), if the
        injection is after the scan, or if times with and without zone are mixed.

    References
    ----------
    DICOM PS3.3 C.8.9; QIBA vendor-neutral pseudo-code for SUV.
    """
    dose = net_dose_bq(record)
    measure = body_measure(record, kind, lean_formula)
    remaining, on_image = decay_terms(record, dynamic=dynamic)
    return on_image * measure / (dose * remaining)
