"""Sidecar (JSON) of a PET image: PET-BIDS names, or those of the injection record."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from napari_mosaik.core import InputError
from napari_mosaik.core.pet_records import BASE_UNITS, InjectionRecord, PetUnit, record_problem
from napari_mosaik.core.text import read_text, typed_number

__all__ = ["read_sidecar", "unit_named"]

_UNITS: dict[str, PetUnit] = {
    "bq/ml": "Bq/mL", "kbq/ml": "kBq/mL", "mbq/ml": "MBq/mL", "nci/ml": "nCi/mL",
    "uci/ml": "µCi/mL", "g/ml": "g/mL", "suv": "g/mL", "suvbw": "g/mL", "cm2/ml": "cm²/mL",
    "suvbsa": "cm²/mL",
}  # fmt: skip
_ACTIVITY_BQ = {
    "bq": 1.0, "kbq": 1e3, "mbq": 1e6, "gbq": 1e9, "mci": 3.7e7, "uci": 3.7e4, "ci": 3.7e10,
}  # fmt: skip
_MASS_KG = {
    "kg": 1.0, "kilograms": 1.0, "g": 1e-3, "grams": 1e-3, "gram": 1e-3, "mg": 1e-6,
    "lb": 0.45359237, "lbs": 0.45359237,
}  # fmt: skip
_LENGTH_CM = {"m": 100.0, "cm": 1.0, "mm": 0.1, "in": 2.54}
_TIME_S = {
    "s": 1.0, "sec": 1.0, "seconds": 1.0, "min": 60.0, "minutes": 60.0, "h": 3600.0,
    "hours": 3600.0, "d": 86400.0, "days": 86400.0,
}  # fmt: skip
_OWN = {
    "dose_mbq": ("dose_bq", 1e6), "residual_mbq": ("residual_bq", 1e6),
    "half_life_h": ("half_life_s", 3600.0), "weight_kg": ("weight_kg", 1.0),
    "height_cm": ("height_cm", 1.0), "frame_duration_s": ("frame_duration_s", 1.0),
}  # fmt: skip
_AS_IS = ("injected", "scanned", "decay_correction", "nuclide", "sex")
_SAME_S = 1.0
_ITEMS = {field: name for name, (field, _) in _OWN.items()}


def unit_named(text: str) -> PetUnit:
    """A unit from words such as "kBq/cc", "BQML" or "SUV"; unknown ones raise `InputError`."""
    word = text.strip().lower().replace(" ", "").replace("²", "2").replace("³", "3")
    word = re.sub(r"(/(cc|cm3|ccm)|\*?ml\^?-1)$", "/ml", re.sub("[µμ]", "u", word))
    word = re.sub(r"(?<=q|g|2)ml$", "/ml", word)
    if word not in _UNITS:
        raise InputError(
            f"PET values in '{text}' cannot be used; give Bq/mL, kBq/mL, g/mL or cm²/mL"
        )
    return _UNITS[word]


def read_sidecar(path: Path, frame: int = 0) -> tuple[dict[str, Any], float]:
    """Fields of `PetHeader` for one time frame, and the factor on the image's values.

    Known are the names of PET-BIDS (activities with their unit, times in seconds from
    TimeZero), the names of the injection record (``dose_mbq``, ``injected``, ``weight_kg``...) and
    those of DICOM that converters keep.  What is stated without a unit or date, or is not
    plausible, is not used; the field ``unclear`` says why.

    Raises
    ------
    InputError
        If the file is no JSON object or a value cannot be used.

    References
    ----------
    Knudsen et al. 2020, J Cereb Blood Flow Metab (PET-BIDS).
    """
    try:
        found = json.loads(read_text(path), object_pairs_hook=_once)
    except ValueError as error:
        raise InputError(f"the sidecar {path.name} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"the sidecar {path.name} holds no names and values")
    try:
        return _fields(found, frame)
    except InputError as error:
        raise InputError(f"the sidecar {path.name}: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The names and values of a JSON object; a name that stands twice with two values is refused.

    `json` would take the last.
    """
    found: dict[str, Any] = {}
    for name, value in [(name.strip(), value) for name, value in pairs]:
        if repr(found.setdefault(name, value)) != repr(value):
            raise ValueError(f"{name} stands twice, as {found[name]} and {value}; omit one")
    return found


def _fields(found: Mapping[str, Any], frame: int) -> tuple[dict[str, Any], float]:
    notes: list[str] = []
    unclear: dict[str, str] = {}
    units = {_unit(str(found[name]), unclear) for name in ("unit", "Units") if found.get(name)}
    unit, factor = units.pop() if len(units) == 1 else (None, 1.0)
    if units and "unit" not in unclear:
        unclear["unit"] = f"the sidecar states two units, {found['unit']} and {found['Units']}"
    out: dict[str, Any] = {}
    twice: dict[str, str] = {}
    for fields in (
        _of_dicom(found, unclear),
        _bids_amounts(found, unclear),
        _bids_times(found, frame, notes, unclear),
        _own_names(found),
    ):
        for name, value in _given(fields).items():
            if _differ(out.setdefault(name, value), value):
                twice[name] = f"the sidecar states two values of it, {out[name]} and {value}"
    for name, reason in twice.items():
        unclear[_ITEMS.get(name, name)] = reason
        del out[name]
    if "decay_correction" in twice:
        out.pop("decay_reference", None)
    out |= {"source": "sidecar", "unit": unit, "notes": tuple(notes), "unclear": unclear}
    return _given(out), factor


def _unit(stated: str, unclear: dict[str, str]) -> tuple[PetUnit | None, float]:
    if not stated or stated.lower() == "n/a":
        return None, 1.0
    try:
        unit = unit_named(stated)
    except InputError as error:
        unclear["unit"] = str(error)
        return None, 1.0
    return BASE_UNITS.get(unit, (unit, 1.0))


def _differ(first: Any, second: Any) -> bool:
    if isinstance(first, float) and isinstance(second, float):
        return abs(first - second) > 0.005 * max(abs(first), abs(second))
    if isinstance(first, str) and isinstance(second, str):  # Zr89 and 89Zr
        first, second = (sorted(re.sub(r"[^a-z0-9]", "", t.lower())) for t in (first, second))
    return bool(first != second)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _own_names(found: Mapping[str, Any]) -> dict[str, Any]:
    """This program's own names, checked as the injection record checks them."""
    given = {name: found[name] for name in (*_OWN, *_AS_IS) if found.get(name) is not None}
    try:
        record = InjectionRecord.model_validate(given)
    except ValidationError as error:
        name, problem = record_problem(error)
        raise InputError(f"{name}: {problem}") from error
    out: dict[str, Any] = {name: getattr(record, name) for name in _AS_IS if name in given}
    for name, (field, scale) in _OWN.items():
        if name in given:
            out[field] = getattr(record, name) * scale
    return out


def _of_dicom(found: Mapping[str, Any], unclear: dict[str, str]) -> dict[str, Any]:
    """What a converter kept under the names of DICOM."""
    out: dict[str, Any] = _given(
        {
            "dose_bq": _in_unit(
                found, "RadionuclideTotalDose", _ACTIVITY_BQ, "Bq", "dose_mbq", unclear
            ),
            "weight_kg": _in_unit(found, "PatientWeight", _MASS_KG, "kg", "weight_kg", unclear),
            "height_cm": _in_unit(found, "PatientSize", _LENGTH_CM, "m", "height_cm", unclear),
        }
    )
    if out.get("dose_bq", 1e5) < 1e4:
        unclear["dose_mbq"] = (
            f"RadionuclideTotalDose is {out.pop('dose_bq'):g}, too little for Bq; give the "
            "activity in MBq"
        )
    word = str(found.get("DecayCorrection") or "").upper()
    if word in ("START", "ADMIN", "NONE"):
        out["decay_correction"] = word
    sex = str(found.get("PatientSex") or found.get("sex") or "").upper()[:1]
    out["sex"] = sex if sex in ("M", "F", "O") else None
    out["species"] = str(found.get("PatientSpeciesDescription") or found.get("Species") or "")
    for item, name in (("injected", "RadiopharmaceuticalStartTime"), ("scanned", "SeriesTime")):
        if found.get(name):
            unclear[item] = f"{name} is {found[name]}, a time of day without a date; give both"
    return _given(out)


def _in_unit(
    found: Mapping[str, Any], name: str, scales: Mapping[str, float], default: str, item: str,
    unclear: dict[str, str],
) -> float | None:  # fmt: skip
    """An amount in the unit that stands beside it; without one, and without a default, unclear."""
    stated = found.get(name)
    parts = re.fullmatch(r"\s*([-+\d.,]+(?:[eE][-+]?\d+)?)\s*([A-Za-zµμ]*)\s*", str(stated))
    try:
        value = _positive({name: parts[1] if parts else stated}, name)
    except InputError as error:
        unclear[item] = str(error)
        return None
    if value is None:
        return None
    units = [str(found[name + end]) for end in ("Units", "Unit") if found.get(name + end)]
    units += [parts[2]] if parts and parts[2] else []
    if not units and not default:
        unclear[item] = f"{name} is {value:g} without a unit ({name}Units)"
        return None
    words = (re.sub("[µμ]", "u", unit.strip().lower()) for unit in units or [default])
    scale, *others = {scales.get(word) for word in words}
    if scale is None or others:
        listed = "' and '".join(units)
        unclear[item] = (
            f"{name} is {value:g} in '{listed}', {'two units' if others else 'an unknown unit'}"
        )
        return None
    return value * scale


def _bids_amounts(found: Mapping[str, Any], unclear: dict[str, str]) -> dict[str, Any]:
    def amount(name: str, scales: Mapping[str, float], default: str, item: str) -> float | None:
        return _in_unit(found, name, scales, default, item, unclear)

    nuclide = found.get("TracerRadionuclide")
    return {
        "dose_bq": amount("InjectedRadioactivity", _ACTIVITY_BQ, "", "dose_mbq"),
        "nuclide": str(nuclide) if nuclide and str(nuclide).lower() != "n/a" else None,
        "half_life_s": amount("RadionuclideHalfLife", _TIME_S, "s", "half_life_h"),
        "weight_kg": amount("BodyWeight", _MASS_KG, "kg", "weight_kg"),
        "height_cm": amount("BodyHeight", _LENGTH_CM, "m", "height_cm"),
    }


def _seconds_after(zero: datetime, seconds: float) -> datetime:
    try:
        return zero + timedelta(seconds=seconds)
    except OverflowError:
        raise InputError(
            f"a time of {seconds:g} s after TimeZero cannot be used; correct the sidecar"
        ) from None


def _bids_times(
    found: Mapping[str, Any], frame: int, notes: list[str], unclear: dict[str, str]
) -> dict[str, Any]:
    """Times of PET-BIDS: seconds from TimeZero, which is a time of day."""
    start = _number(found.get("ScanStart"), "ScanStart")
    injection = _number(found.get("InjectionStart"), "InjectionStart")
    duration, offset = (_of_frame(found, n, frame) for n in ("FrameDuration", "FrameTimesStart"))
    moment = _number(found.get("ImageDecayCorrectionTime"), "ImageDecayCorrectionTime")
    zero = _time_zero(found, notes, unclear)
    if duration is not None and duration <= 0:
        unclear["frame_duration_s"] = f"FrameDuration is {duration:g} s"
        duration = None
    factor = _of_frame(found, "DecayCorrectionFactor", frame)
    out: dict[str, Any] = {"frame_duration_s": duration, "decay_factor": factor or None}
    single = not (isinstance(found.get("FrameDuration"), list) and len(found["FrameDuration"]) > 1)
    if start is None and injection == 0:
        unclear["injected"] = "InjectionStart is 0 and ScanStart is not stated"
        injection = None
    if start is not None and injection is not None and abs(start - injection) < _SAME_S:
        same = (
            f"InjectionStart and ScanStart are both {start:g}, which converters write when they "
            "do not know"
        )
        if single:
            unclear["injected"] = f"{same}; give the date and time of injection"
            injection = None
        else:
            notes.append(f"{same}; a dynamic scan that started with the injection is taken")
    late = injection is not None and start is not None and start < injection
    # The only frame of a file begins with its scan: it makes no dynamic scan of exchanged times.
    if duration is not None and offset is not None and start is not None and not (single and late):
        out["frame_reference_s"] = offset - start + duration / 2
    for name, seconds in (("scanned", start), ("injected", injection), ("decay_reference", moment)):
        if zero is not None and seconds is not None:
            out[name] = _seconds_after(zero, seconds)
    return out | _reference(found, start, injection, moment, notes)


def _reference(
    found: Mapping[str, Any],
    start: float | None,
    injection: float | None,
    moment: float | None,
    notes: list[str],
) -> dict[str, Any]:
    """START, ADMIN or NONE where that is clear; a moment that is both, or neither, stays one."""
    corrected = _flag(found, "ImageDecayCorrected")
    if not corrected:
        word = None if corrected is None else "NONE"
        return {"decay_correction": word, "decay_reference": None}
    if moment is None:
        notes.append("the sidecar does not state the reference time of the decay correction")
        return {}
    at_start, at_injection = (
        other is not None and abs(moment - other) < _SAME_S for other in (start, injection)
    )
    if at_start == at_injection:
        return {}
    return {"decay_correction": "START" if at_start else "ADMIN"}


def _time_zero(
    found: Mapping[str, Any], notes: list[str], unclear: dict[str, str]
) -> datetime | None:
    clock, day = str(found.get("TimeZero") or "").strip(), str(found.get("ScanDate") or "").strip()
    day, _, again = day.partition("T")
    if again and clock not in ("", again):
        raise InputError(f"ScanDate '{day}T{again}' and TimeZero '{clock}' contradict; correct one")
    clock = clock or again
    if not clock or clock.lower() == "n/a":
        return None
    if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?", clock) is None:
        if re.match(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", clock):
            if day and day.lower() != "n/a" and day.replace("-", "") != clock[:10].replace("-", ""):
                raise InputError(f"ScanDate '{day}' and TimeZero '{clock}' contradict; correct one")
            return _parsed(clock, "TimeZero")
        raise InputError(f"TimeZero '{clock}' is not a time of day (hh:mm:ss)")
    if not day or day.lower() == "n/a":
        text = f"the sidecar states times of day ({clock}) without a date; enter the date and time"
        notes.append(f"{text} of injection and scan")
        unclear |= {"injected": text, "scanned": text}
        return None
    hour, rest = clock.split(":", 1)
    return _parsed(f"{day}T{int(hour):02d}:{rest}", "ScanDate and TimeZero")


def _parsed(text: str, name: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{name} '{text}' is not a date and time; write them as 2024-05-31 and 09:30:00"
        ) from None


def _of_frame(found: Mapping[str, Any], name: str, frame: int) -> float | None:
    value = found.get(name)
    if isinstance(value, list):
        if value and frame >= len(value):
            raise InputError(f"{name} has {len(value)} values, but frame {frame} is asked for")
        value = value[frame] if value else None
    return _number(value, name)


def _flag(found: Mapping[str, Any], name: str) -> bool | None:
    word = str(found.get(name, "")).strip().lower()
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if word in ("", "n/a", "none", "null"):
        return None
    if word not in known:
        raise InputError(f"{name} '{found[name]}' is neither true nor false")
    return known[word]


def _positive(found: Mapping[str, Any], name: str) -> float | None:
    """An amount; zero is what converters write when they do not know."""
    value = _number(found.get(name), name)
    if value is not None and value < 0:
        raise InputError(f"{name} {value:g} is not valid; give more than 0")
    return value or None


def _number(value: Any, name: str) -> float | None:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "n/a", "none")):
        return None
    try:
        if isinstance(value, str):
            return typed_number(value)
        number = float("nan") if isinstance(value, bool) else float(value)
    except InputError as error:
        raise InputError(f"{name} {error}") from None
    except (TypeError, ValueError):
        number = float("nan")
    if not math.isfinite(number):
        raise InputError(f"{name} '{value}' is not a number")
    return number
