"""Sidecar (JSON) of a PET image: PET-BIDS names, or those of the injection record."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from napari_mosaik.core import InputError
from napari_mosaik.core.pet_records import InjectionRecord, PetUnit

__all__ = ["read_sidecar", "unit_named"]

_UNITS: dict[str, PetUnit] = {
    "bq/ml": "Bq/mL", "bqml": "Bq/mL", "bq/cc": "Bq/mL", "bq/cm3": "Bq/mL",
    "g/ml": "g/mL", "gml": "g/mL", "suv": "g/mL", "suvbw": "g/mL",
    "cm2/ml": "cm²/mL", "cm²/ml": "cm²/mL", "cm2ml": "cm²/mL", "suvbsa": "cm²/mL",
}  # fmt: skip
_SCALES: dict[str, tuple[PetUnit, float]] = {
    "kbq/ml": ("Bq/mL", 1e3), "mbq/ml": ("Bq/mL", 1e6), "nci/cc": ("Bq/mL", 37.0),
    "nci/ml": ("Bq/mL", 37.0),
}  # fmt: skip
_ACTIVITY_BQ = {"bq": 1.0, "kbq": 1e3, "mbq": 1e6, "gbq": 1e9, "mci": 3.7e7, "uci": 3.7e4}
_OWN = {
    "dose_mbq": ("dose_bq", 1e6), "residual_mbq": ("residual_bq", 1e6),
    "half_life_h": ("half_life_s", 3600.0), "weight_kg": ("weight_kg", 1.0),
    "height_cm": ("height_cm", 1.0), "frame_duration_s": ("frame_duration_s", 1.0),
}  # fmt: skip
_AS_IS = ("injected", "scanned", "decay_correction", "nuclide", "sex")
_SAME_S = 1.0


def unit_named(text: str) -> PetUnit:
    """A unit from words such as "Bq/ml", "BQML" or "SUV"; unknown ones raise `InputError`."""
    known = _UNITS.get(text.strip().lower().replace(" ", ""))
    if known is None:
        raise InputError(f"PET values in '{text}' cannot be used; give Bq/mL, g/mL or cm²/mL")
    return known


def read_sidecar(path: Path, frame: int = 0) -> tuple[dict[str, Any], float]:
    """Fields of `PetHeader` for one time frame, and the factor on the image's values.

    Known are the names of PET-BIDS (activities with their unit, times in seconds from
    TimeZero) and the names of the injection record (``dose_mbq``, ``injected``, ``weight_kg``...).
    Times of day without a date are not used; they are reported in the notes.

    Raises
    ------
    InputError
        If the file is no JSON object or a value cannot be used.

    References
    ----------
    Knudsen et al. 2020, J Cereb Blood Flow Metab (PET-BIDS).
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"the sidecar {path.name} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"the sidecar {path.name} holds no names and values")
    try:
        return _fields(found, frame)
    except (ValueError, TypeError, LookupError) as error:
        raise InputError(f"the sidecar {path.name}: {error}") from error


def _fields(found: Mapping[str, Any], frame: int) -> tuple[dict[str, Any], float]:
    notes: list[str] = []
    out: dict[str, Any] = {"source": "sidecar"}
    unit, factor = _unit(str(found.get("unit") or found.get("Units") or ""))
    out["unit"] = unit
    out |= _bids_amounts(found)
    out |= _bids_times(found, frame, notes)
    out |= _own_names(found)
    out["notes"] = tuple(notes)
    return {name: value for name, value in out.items() if value is not None}, factor


def _unit(text: str) -> tuple[PetUnit | None, float]:
    if not text:
        return None, 1.0
    scaled = _SCALES.get(text.strip().lower().replace(" ", ""))
    return scaled or (unit_named(text), 1.0)


def _own_names(found: Mapping[str, Any]) -> dict[str, Any]:
    """This program's own names, checked as the injection record checks them."""
    given = {name: found[name] for name in (*_OWN, *_AS_IS) if found.get(name) is not None}
    record = InjectionRecord.model_validate(given)
    out: dict[str, Any] = {name: getattr(record, name) for name in _AS_IS if name in given}
    for name, (field, scale) in _OWN.items():
        if name in given:
            out[field] = getattr(record, name) * scale
    return out


def _bids_amounts(found: Mapping[str, Any]) -> dict[str, Any]:
    dose = _number(found.get("InjectedRadioactivity"))
    unit = str(found.get("InjectedRadioactivityUnits", "MBq")).strip().lower().replace("µ", "u")
    if dose is not None and unit not in _ACTIVITY_BQ:
        raise ValueError(f"InjectedRadioactivityUnits '{unit}' is not known; use MBq")
    half_life = _number(found.get("RadionuclideHalfLife"))
    height = _number(found.get("BodyHeight"))
    return {
        "dose_bq": None if dose is None else dose * _ACTIVITY_BQ[unit],
        "nuclide": found.get("TracerRadionuclide") or None,
        "half_life_s": half_life,
        "weight_kg": _number(found.get("BodyWeight")),
        "height_cm": None if height is None else 100 * height,
    }


def _bids_times(found: Mapping[str, Any], frame: int, notes: list[str]) -> dict[str, Any]:
    """Times of PET-BIDS: seconds from TimeZero, which is a time of day."""
    start = _number(found.get("ScanStart"))
    injection = _number(found.get("InjectionStart"))
    duration, offset = (
        _of_frame(found.get(n), frame) for n in ("FrameDuration", "FrameTimesStart")
    )
    out: dict[str, Any] = {
        "decay_correction": _decay_correction(found, start, injection, notes),
        "frame_duration_s": duration,
    }
    if duration is not None and offset is not None and start is not None:
        out["frame_reference_s"] = offset - start + duration / 2
    zero = _time_zero(found, notes)
    if zero is not None:
        if start is not None:
            out["scanned"] = zero + timedelta(seconds=start)
        if injection is not None:
            out["injected"] = zero + timedelta(seconds=injection)
    return out


def _decay_correction(
    found: Mapping[str, Any], start: float | None, injection: float | None, notes: list[str]
) -> Literal["START", "ADMIN", "NONE"] | None:
    corrected = found.get("ImageDecayCorrected")
    if corrected is None:
        return None
    if not corrected:
        return "NONE"
    moment = _number(found.get("ImageDecayCorrectionTime"))
    if moment is not None:
        if injection is not None and abs(moment - injection) < _SAME_S:
            return "ADMIN"
        if start is not None and abs(moment - start) < _SAME_S:
            return "START"
    notes.append("the sidecar does not state the reference time of the decay correction")
    return None


def _time_zero(found: Mapping[str, Any], notes: list[str]) -> datetime | None:
    clock = str(found.get("TimeZero") or "")
    day = str(found.get("ScanDate") or "")
    if not clock:
        return None
    if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?", clock) is None:
        return datetime.fromisoformat(clock)
    if not day:
        notes.append(
            f"the sidecar states times of day ({clock}) without a date; enter the date and "
            "time of injection and scan"
        )
        return None
    parts = [float(part) for part in clock.split(":")]
    seconds = parts[0] * 3600 + parts[1] * 60 + (parts[2] if len(parts) > 2 else 0.0)
    return datetime.fromisoformat(day) + timedelta(seconds=seconds)


def _of_frame(value: Any, frame: int) -> float | None:
    if isinstance(value, list):
        return _number(value[frame]) if value else None
    return _number(value)


def _number(value: Any) -> float | None:
    return None if value in (None, "", "n/a") else float(value)
