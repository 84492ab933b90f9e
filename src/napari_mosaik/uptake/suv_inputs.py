"""Injection record and PET file put together: who says what, and what contradicts what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.pet_records import HALF_LIFE_H, InjectionRecord, PetHeader
from napari_mosaik.uptake.suv import (
    decay_factor,
    decay_terms,
    elapsed_h,
    frame_factor,
    half_life_of,
)

__all__ = [
    "SUV_FILE_UNITS",
    "TERM_ITEMS",
    "ValueSource",
    "canonical_nuclide",
    "merge_injection_and_header",
]

ValueSource = Literal["user", "header", "sidecar", "table", "assumed", "missing"]
"""Who says a term: the injection record, the PET file, a file beside it, the program's table."""

TERM_ITEMS: tuple[tuple[str, str, str], ...] = (
    ("dose_mbq", "injected activity", "MBq"),
    ("residual_mbq", "residual activity", "MBq"),
    ("injected", "time of injection", ""),
    ("excised", "time of excision", ""),
    ("scanned", "start of the scan", ""),
    ("decay_correction", "image decay-corrected to", ""),
    ("frame_duration_s", "duration of the frame", "s"),
    ("nuclide", "nuclide", ""),
    ("half_life_h", "half-life", "h"),
    ("weight_kg", "weight", "kg"),
    ("height_cm", "height", "cm"),
    ("sex", "sex", ""),
)
_ELEMENTS = {"zirconium": "Zr", "fluorine": "F", "lutetium": "Lu", "actinium": "Ac"}
SUV_FILE_UNITS = {"g/mL", "cm²/mL"}
_DECAY_ROOM = 0.01
_NEAR = 0.02
"""Half-lives that differ by less than this fraction are of one nuclide."""


def canonical_nuclide(name: str) -> str:
    """A nuclide's name as "Zr-89", from "89Zr", "^89^Zirconium", "zr89"; else unchanged."""
    letters = "".join(re.findall(r"[A-Za-z]+", name)).lower()
    digits = "".join(re.findall(r"\d+", name))
    element = _ELEMENTS.get(letters, letters.capitalize())
    return f"{element}-{digits}" if element and digits else name


def _header_values(header: PetHeader) -> dict[str, Any]:
    """The header's items under the record's names and in its units."""
    half_life = None if not header.half_life_s else header.half_life_s / 3600.0
    return {
        "dose_mbq": None if header.dose_bq is None else header.dose_bq / 1e6,
        "residual_mbq": None if header.residual_bq is None else header.residual_bq / 1e6,
        "injected": header.injected,
        "scanned": header.scanned,
        "decay_correction": header.decay_correction,
        "frame_duration_s": header.frame_duration_s,
        "nuclide": canonical_nuclide(header.nuclide) if header.nuclide else None,
        "half_life_h": half_life,
        "weight_kg": header.weight_kg or None,
        "height_cm": header.height_cm or None,
        "sex": header.sex,
    }


def _differ(ours: object, theirs: object) -> bool:
    """Whether two values of one item disagree (times by over 1 s, numbers by over 0.5 %)."""
    if isinstance(ours, datetime) and isinstance(theirs, datetime):
        if (ours.tzinfo is None) != (theirs.tzinfo is None):
            return False
        return abs((ours - theirs).total_seconds()) > 1.0
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return abs(ours - theirs) > 0.005 * max(abs(ours), abs(theirs))
    return ours != theirs


def _say(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else f"{value}"


def _values(
    record: InjectionRecord, header: PetHeader
) -> tuple[dict[str, Any], dict[str, ValueSource], list[str]]:
    """The user before the file, item by item: values, sources and stated disagreements."""
    theirs = _header_values(header)
    values: dict[str, Any] = {}
    sources: dict[str, ValueSource] = {}
    warnings: list[str] = []
    for name, label, unit in TERM_ITEMS:
        default = name in ("nuclide", "residual_mbq") and name not in record.model_fields_set
        ours = None if default else getattr(record, name)
        other = theirs.get(name)
        values[name] = other if ours is None else ours
        sources[name] = (
            "user" if ours is not None else header.source if other is not None else "missing"
        )
        if ours is not None and other is not None and _differ(ours, other):
            warnings.append(
                f"{label}: the injection record says {_say(ours)} {unit}".rstrip()
                + f", the file says {_say(other)} {unit}".rstrip()
                + "; the record's value is used"
            )
    if values["residual_mbq"] is None:
        values["residual_mbq"], sources["residual_mbq"] = 0.0, "assumed"
    return values, sources, warnings


def _settle_nuclide(
    values: dict[str, Any], sources: dict[str, ValueSource], header: PetHeader
) -> None:
    """The nuclide: as stated, else the one to which the file's half-life belongs, else Zr-89."""
    if values["nuclide"] is not None:
        values["nuclide"] = canonical_nuclide(values["nuclide"])
        return
    half_life = values["half_life_h"]
    if half_life is None:
        values["nuclide"], sources["nuclide"] = "Zr-89", "assumed"
        return
    fits = [n for n, table in HALF_LIFE_H.items() if abs(half_life / table - 1) <= _NEAR]
    values["nuclide"] = fits[0] if fits else "unknown"
    sources["nuclide"] = header.source


def _settle_half_life(
    values: dict[str, Any], sources: dict[str, ValueSource], warnings: list[str]
) -> None:
    """The half-life: the user's, else the file's if it fits the nuclide, else the table's."""
    table = HALF_LIFE_H.get(values["nuclide"])
    if table is None or sources["half_life_h"] == "user":
        return
    given = values["half_life_h"]
    if given is not None and abs(given / table - 1) <= _NEAR:
        return
    if given is not None:
        warnings.append(
            f"the file's half-life ({given:.4g} h) does not belong to {values['nuclide']} "
            f"({table:g} h); the table's value is used"
        )
    values["half_life_h"], sources["half_life_h"] = table, "table"


def _check_times(values: dict[str, Any]) -> None:
    """Times must be all with or all without a zone, and in order."""
    times = {n: values[n] for n in ("injected", "excised", "scanned") if values[n] is not None}
    zoned = {name: time.tzinfo is not None for name, time in times.items()}
    if len(set(zoned.values())) > 1:
        listed = ", ".join(f"{name} = {time.isoformat()}" for name, time in times.items())
        raise InputError(
            f"some times have a zone and others have none ({listed}); they cannot be compared: "
            "give all with their zone, or all as local times"
        )
    if "injected" in times and "excised" in times and times["excised"] < times["injected"]:
        raise InputError(
            f"the excision ({times['excised'].isoformat()}) lies before the injection "
            f"({times['injected'].isoformat()}); correct the dates"
        )


def _check_corrections(header: PetHeader, source: ValueSource, warnings: list[str]) -> None:
    """Attenuation and decay corrections that the file names."""
    if header.unit in SUV_FILE_UNITS:
        return
    if not header.corrected:
        if header.reader == "dicom":
            warnings.append("the file does not say for what its values are corrected (ATTN, DECY)")
        return
    if "ATTN" not in header.corrected:
        warnings.append(
            "the file does not name attenuation correction (ATTN); its values are too low"
        )
    if "DECY" not in header.corrected and header.decay_correction in ("START", "ADMIN"):
        if source != "user":
            raise InputError(
                f"the PET says that it is decay-corrected to {header.decay_correction}, but DECY "
                f"is not among its corrections ({', '.join(header.corrected)}); say which holds: "
                "give decay_correction as START, ADMIN or NONE"
            )
        warnings.append(
            "DECY is not among the file's corrections; the injection record's word is used"
        )


def _is_dynamic(values: dict[str, Any], header: PetHeader) -> bool:
    """Whether the scan began before the injection and its frame lies after it."""
    injected, scanned = values["injected"], values["scanned"]
    if injected is None or scanned is None or injected <= scanned:
        return False
    if header.frame_reference_s is None:
        return False
    return bool(scanned + timedelta(seconds=header.frame_reference_s) > injected)


def _frame_start(record: InjectionRecord, header: PetHeader) -> tuple[InjectionRecord, list[str]]:
    """For an uncorrected image: the start of its frame from the file's frame reference time."""
    if record.decay_correction != "NONE" or header.frame_reference_s is None:
        return record, []
    if record.scanned is None or record.frame_duration_s is None:
        return record, []
    try:
        half_life = half_life_of(record)
    except InputError:
        return record, []
    mean_s = half_life * 3600 * np.log2(frame_factor(half_life, record.frame_duration_s))
    offset_s = max(0.0, header.frame_reference_s - float(mean_s))
    if offset_s < 1e-6:
        return record, []
    text = f"The frame starts {offset_s:.1f} s after the scan (from the file's frame time)."
    start = record.scanned + timedelta(seconds=offset_s)
    return record.model_copy(update={"scanned": start}), [text]


def _decay_sentence(record: InjectionRecord, dynamic: bool) -> list[str]:
    mode = record.decay_correction
    if mode == "ADMIN":
        return ["The image refers to the injection; the dose is not decayed."]
    if mode is None or record.injected is None or record.scanned is None:
        return []
    try:
        hours = elapsed_h(record, dynamic=dynamic)
        remaining, on_image = decay_terms(record, dynamic=dynamic)
    except InputError:
        return []  # `SuvTerms.factor` says what is missing
    text = f"The dose is decayed over {hours:.3f} h to the scan: {remaining:.6f} is left."
    if hours < 0:
        text = (
            f"That start lies {-hours:.3f} h before the injection: the dose counts "
            f"{remaining:.6f} times."
        )
    if mode == "START":
        return [f"The image refers to the start of the scan. {text}"]
    return [f"The image is not decay-corrected; its frame's factor is {on_image:.6f}. {text}"]


def _assumptions(
    record: InjectionRecord, dynamic: bool, sources: dict[str, ValueSource], header: PetHeader
) -> list[str]:
    said = _decay_sentence(record, dynamic)
    if dynamic:
        said.append("The scan was started before the injection (dynamic acquisition).")
    if sources["residual_mbq"] == "assumed":
        said.append("No residual activity in the syringe was given; it is taken as 0.")
    if sources["nuclide"] == "assumed":
        said.append("No nuclide was given; Zr-89 is assumed.")
    elif not header.nuclide and sources["nuclide"] == header.source:
        said.append(f"The file names no nuclide; its half-life says {record.nuclide}.")
    if sources["half_life_h"] == "table":
        said.append(f"The half-life of {record.nuclide} is the program's table value.")
    if record.excised and record.scanned and record.excised <= record.scanned:
        said.append(
            "Ex vivo: activity decays until the scan, the distribution is that at the excision; "
            "dose, weight and height are the patient's."
        )
    if header.unit_given:
        said.append(f"The file states no unit; its values are taken as {header.unit}, as given.")
    return said


def _check_decay_factor(
    record: InjectionRecord, header: PetHeader, dynamic: bool, warnings: list[str]
) -> None:
    """The factor by which the file says its frame was multiplied, against frame time and mode."""
    stated, middle = header.decay_factor, header.frame_reference_s
    if stated is None or middle is None or record.decay_correction not in ("START", "ADMIN"):
        return
    try:
        before = elapsed_h(record, dynamic=dynamic) if record.decay_correction == "ADMIN" else 0.0
        expected = 1 / decay_factor(half_life_of(record), before + middle / 3600)
    except InputError:
        return
    if abs(stated / expected - 1) > _DECAY_ROOM:
        warnings.append(
            f"the file says that its frame was multiplied by {stated:.5g} for decay, but its "
            f"times and the reference {record.decay_correction} give {expected:.5g}; look which "
            "holds"
        )


def _check_clock(record: InjectionRecord, header: PetHeader, warnings: list[str]) -> None:
    """The given time of injection against the time of day in the file, which has no date."""
    clock = header.injected_clock
    if clock is None or record.injected is None:
        return
    given = record.injected.replace(tzinfo=None)
    apart = abs((datetime.combine(given.date(), clock) - given).total_seconds())
    if min(apart, 86400 - apart) > 60:
        warnings.append(
            f"the file states {clock.isoformat()} as the injection's time of day, the given time "
            f"of injection is {given.isoformat(sep=' ')}; look which holds"
        )


def _check_unit(header: PetHeader) -> None:
    if header.unit is None:
        raise InputError(
            f"the PET ({header.reader}) does not say the unit of its values; "
            "give unit: Bq/mL, g/mL (SUV by weight) or cm²/mL (SUV by body surface)"
        )
    if header.unit != "Bq/mL" and header.unit not in SUV_FILE_UNITS:
        raise InputError(
            f"PET values in '{header.unit}' cannot become SUV; Bq/mL, g/mL or cm²/mL is needed"
        )


@dataclass(frozen=True, slots=True)
class SuvInputs:
    """Injection record and file together."""

    record: InjectionRecord
    values: dict[str, Any]
    sources: dict[str, ValueSource]
    dynamic: bool
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]


def merge_injection_and_header(record: InjectionRecord, header: PetHeader) -> SuvInputs:
    """Put both together; raises `InputError` where they cannot belong to one scan."""
    _check_unit(header)
    values, sources, warnings = _values(record, header)
    scaled = header.unit in SUV_FILE_UNITS
    _settle_nuclide(values, sources, header)
    if not scaled:
        _check_times(values)
        _settle_half_life(values, sources, warnings)
    _check_corrections(header, sources["decay_correction"], warnings)
    merged = record.model_copy(update=values)
    dynamic = _is_dynamic(values, header)
    if scaled:
        said = ["The file's values are SUV already; they are not scaled again."]
        if header.unit_given:
            said.append(
                f"The file states no unit; its values are taken as {header.unit}, as given."
            )
    else:
        _check_decay_factor(merged, header, dynamic, warnings)
        _check_clock(merged, header, warnings)
        merged, said = _frame_start(merged, header)
        said += _assumptions(merged, dynamic, sources, header)
    notes = [text for text in header.notes if "without a date" not in text or not merged.injected]
    return SuvInputs(merged, values, sources, dynamic, tuple(said), (*warnings, *notes))
