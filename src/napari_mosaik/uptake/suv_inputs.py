"""The inputs of an SUV: injection record and PET header merged, with sources and conflicts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.pet_records import (
    HALF_LIFE_H,
    InjectionRecord,
    PetHeader,
    canonical_nuclide,
)
from napari_mosaik.uptake.body_size import checked_height_cm, checked_weight_kg
from napari_mosaik.uptake.suv import (
    checked_dose_mbq,
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
    "implausible",
    "merge_injection_and_header",
]

ValueSource = Literal["user", "header", "sidecar", "table", "assumed", "missing"]
"""Source of a value: injection record, PET file, sidecar, table of nuclides, or assumption."""

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
SUV_FILE_UNITS = {"g/mL", "cm²/mL"}
_UNIT_GIVEN = "The file states no unit; the given unit {} is used."
_DECAY_TOLERANCE = 0.01
_HALF_LIFE_TOLERANCE = 0.02
"""Half-lives that differ by less than this fraction belong to the same nuclide."""
_REFUSED_CHANGE = 0.1
"""A contradiction that changes the SUV by more than this fraction is refused."""
_SLIPS = {
    "dose_mbq": ((1 / 37, "mCi"), (1e3, "kBq"), (1e6, "Bq")),
    "weight_kg": ((1 / 0.45359237, "lb"), (1e3, "g")),
}
"""Ratios of a typed value to that of the file which show another unit."""
_SAME_UNIT = 0.01
_MAX_RODENT_KG = 2.0
_MOUSE_OR_CHILD_KG = (10.0, 45.0)
"""Weights that are those of a child in kg, or of a mouse in g."""
_RAT_OR_ADULT_KG = 180.0
_MIN_MBQ_KG = {"F-18": 0.2, "Ga-68": 0.2, "Cu-64": 0.2, "C-11": 0.2, "Zr-89": 0.05}
"""Injected activity per kg below which a dose for an adult was probably typed in mCi."""
_ADULT_KG = 45.0
_SMALL_KG, _MAX_MBQ_SMALL = 1.0, 200.0
_LATE_HALF_LIVES = 6.0
_LONGEST_FRAME_H = 24.0
_BODY_MASS_INDEX = (1.0, 120.0)
"""Plausible body mass index, kg/m², from mice to the heaviest patients."""
_HUMAN_BODY_MASS_INDEX = (10.0, 70.0)
_MIN_HUMAN_KG = 1.0
_SAME_S = 1.0
_FIRST_YEAR = 1975


def _header_values(header: PetHeader) -> dict[str, Any]:
    """The items of the header under the names and in the units of the record."""
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


def _differ(first: object, second: object) -> bool:
    """Whether two values of one item disagree (times by over 1 s, numbers by over 0.5 %)."""
    if isinstance(first, datetime) and isinstance(second, datetime):
        if (first.tzinfo is None) != (second.tzinfo is None):
            return False
        return abs((first - second).total_seconds()) > 1.0
    if isinstance(first, int | float) and isinstance(second, int | float):
        return abs(first - second) > 0.005 * max(abs(first), abs(second))
    return first != second


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else f"{value}"


def _values(
    record: InjectionRecord, header: PetHeader
) -> tuple[dict[str, Any], dict[str, ValueSource], list[str]]:
    """Values, sources and conflicts of all items; the record takes precedence over the file."""
    in_header = _header_values(header)
    values: dict[str, Any] = {}
    sources: dict[str, ValueSource] = {}
    warnings: list[str] = []
    for name, label, unit in TERM_ITEMS:
        default = name in ("nuclide", "residual_mbq") and name not in record.model_fields_set
        recorded = None if default else getattr(record, name)
        other = in_header.get(name)
        values[name] = other if recorded is None else recorded
        sources[name] = (
            "user" if recorded is not None else header.source if other is not None else "missing"
        )
        same = name == "nuclide" and recorded and canonical_nuclide(recorded) == other
        if recorded is not None and other is not None and not same and _differ(recorded, other):
            both = (
                f"{label}: {_text(recorded)} {unit}".rstrip()
                + f" in the injection record, {_text(other)} {unit}".rstrip()
                + " in the file"
            )
            warnings.append(f"{both}; {_which(name, recorded, other, both, header)}")
    if values["residual_mbq"] is None:
        values["residual_mbq"], sources["residual_mbq"] = 0.0, "assumed"
    return values, sources, warnings


def _which(name: str, recorded: Any, other: Any, both: str, header: PetHeader) -> str:
    """Which of two values counts; one in another unit, or without effect, is refused."""
    if header.unit in SUV_FILE_UNITS:
        if name in _SLIPS and abs(recorded / other - 1) > _REFUSED_CHANGE:
            raise InputError(
                f"{both}, and the values of the file are SUV that the scanner computed with its "
                f"own; export the PET as Bq/mL, or omit the {name}"
            )
        return "neither is used, because the values of the file are SUV already"
    for factor, unit in _SLIPS.get(name, ()):
        if abs(recorded / other / factor - 1) < _SAME_UNIT:
            raise InputError(
                f"{both}: the record seems to be in {unit}; correct {name}, did you mean "
                f"{other:.4g}?"
            )
    return "the value of the record is used"


def _resolve_nuclide(
    values: dict[str, Any], sources: dict[str, ValueSource], header: PetHeader
) -> None:
    """The nuclide: as stated, else that of the half-life, else unknown."""
    if values["nuclide"] is not None:
        values["nuclide"] = canonical_nuclide(values["nuclide"])
        return
    half_life = values["half_life_h"]
    if (reason := header.unclear.get("nuclide")) and sources["half_life_h"] != "user":
        raise InputError(f"{reason}; give nuclide")
    if half_life is None:
        values["nuclide"] = ""
        return
    values["nuclide"] = next((n for n in HALF_LIFE_H if _belongs(half_life, n)), "unknown")
    sources["nuclide"] = sources["half_life_h"]


def _belongs(half_life_h: float, nuclide: str) -> bool:
    return abs(half_life_h / HALF_LIFE_H[nuclide] - 1) <= _HALF_LIFE_TOLERANCE


def _check_of_unknown(nuclide: str, given: float, sources: dict[str, ValueSource]) -> None:
    """Refuse a half-life, h, of no known nuclide that is one in another unit, or of another one."""
    other = next((n for n in HALF_LIFE_H if _belongs(given, n)), None)
    foreign = re.fullmatch(r"[A-Za-z]{3,}-(\d+)m?", nuclide)  # no symbol of an element
    other_mass = foreign is not None and other is not None and other.split("-")[1] != foreign[1]
    if (
        other
        and nuclide != "unknown"
        and (other_mass or sources["half_life_h"] != sources["nuclide"])
    ):
        raise InputError(
            f"the half-life of {given:.6g} h is that of {other}, and the nuclide is '{nuclide}'; "
            f"give half_life_h of {nuclide}, or correct nuclide"
        )
    for scale in (60, 1 / 60, 3600) if nuclide == "unknown" else ():
        if other := next((n for n in HALF_LIFE_H if _belongs(given * scale, n)), None):
            raise InputError(
                f"the half-life of {given:.6g} h belongs to no known nuclide; in another unit it "
                f"is that of {other} ({HALF_LIFE_H[other]:g} h); give half_life_h"
            )
    if in_seconds := next((n for n in HALF_LIFE_H if _belongs(given / 3600, n)), None):
        raise InputError(
            f"the half-life of {given:g} h is that of {in_seconds} in seconds; give half_life_h "
            f"{HALF_LIFE_H[in_seconds]:g}"
        )


def _resolve_half_life(
    values: dict[str, Any], sources: dict[str, ValueSource], warnings: list[str]
) -> None:
    """The half-life that belongs to the nuclide; that of the table where none is given.

    A contradiction is refused, unless the record names the nuclide and the file the half-life.
    """
    nuclide, given = str(values["nuclide"]), values["half_life_h"]
    table = HALF_LIFE_H.get(nuclide)
    if given is not None and table is None:
        _check_of_unknown(nuclide, given, sources)
    if table is None or (given is not None and _belongs(given, nuclide)):
        return
    if given is not None:
        contradiction = f"the half-life of {given:.6g} h does not belong to {nuclide} ({table:g} h)"
        if sources["half_life_h"] == "user" or sources["nuclide"] != "user":
            seconds = " (it is given in seconds)" if _belongs(given / 3600, nuclide) else ""
            raise InputError(f"{contradiction}{seconds}; correct half_life_h, or give nuclide")
        warnings.append(f"{contradiction}; it stands in the file, and the table value is used")
    values["half_life_h"], sources["half_life_h"] = table, "table"


def implausible(name: str, value: Any, nuclide: str = "Zr-89") -> str:
    """Why the value of one item of an injection record is implausible; empty if it is not.

    *nuclide* is that of the record; half-life and injected activity must belong to it.
    """
    nuclide = canonical_nuclide(nuclide)
    try:
        if name == "dose_mbq":
            checked_dose_mbq(value, nuclide)
        elif name == "weight_kg":
            checked_weight_kg(value)
        elif name == "height_cm":
            checked_height_cm(value)
        elif name == "half_life_h":
            _resolve_half_life(
                {"nuclide": nuclide, name: value}, {name: "user", "nuclide": "user"}, []
            )
        elif isinstance(value, datetime):
            _check_year(value)
    except InputError as error:
        return str(error)
    return ""


def _check_year(moment: datetime) -> None:
    if moment.year < _FIRST_YEAR or moment > datetime.now(moment.tzinfo) + timedelta(days=1):
        raise InputError(
            f"{moment.isoformat(sep=' ')} is not plausible: it lies in the future, or before "
            f"{_FIRST_YEAR}"
        )


def _check_times(values: dict[str, Any]) -> None:
    """Check that all times have a zone or none has, and that they are in order."""
    times = {n: values[n] for n in ("injected", "excised", "scanned") if values[n] is not None}
    zoned = {name: time.tzinfo is not None for name, time in times.items()}
    if len(set(zoned.values())) > 1:
        listed = ", ".join(f"{name} = {time.isoformat()}" for name, time in times.items())
        raise InputError(
            f"times with and without time zone are mixed ({listed}) and cannot be compared: give "
            "all with their zone, or all as local times"
        )
    if "injected" in times and "excised" in times and times["excised"] < times["injected"]:
        raise InputError(
            f"the excision ({times['excised'].isoformat()}) is before the injection "
            f"({times['injected'].isoformat()}); correct the dates"
        )


def _check_corrections(header: PetHeader, source: ValueSource, warnings: list[str]) -> None:
    """Check the attenuation and decay corrections that the file lists."""
    if header.unit in SUV_FILE_UNITS:
        return
    if not header.corrected:
        if header.reader == "dicom":
            warnings.append("the file does not list its corrections (ATTN, DECY)")
        return
    if "ATTN" not in header.corrected:
        warnings.append(
            "the file does not list attenuation correction (ATTN); its values may be too low"
        )
    if "DECY" not in header.corrected and header.decay_correction in ("START", "ADMIN"):
        if source != "user":
            raise InputError(
                f"the PET states decay correction to {header.decay_correction}, but DECY is not "
                f"among its corrections ({', '.join(header.corrected)}); give decay_correction as "
                "START, ADMIN or NONE"
            )
        warnings.append(
            "DECY is not among the corrections of the file; the injection record is used"
        )
    if "DECY" in header.corrected and header.decay_correction == "NONE" and source != "user":
        raise InputError(
            "the PET states that it is not decay-corrected (NONE), but DECY is among its "
            f"corrections ({', '.join(header.corrected)}); give decay_correction as START, ADMIN "
            "or NONE"
        )


def _resolve_reference(
    record: InjectionRecord, header: PetHeader, notes: list[str]
) -> tuple[InjectionRecord, bool]:
    """The record whose scan start is the moment to which the image is corrected.

    The file's moment stays what it is when the user corrects the time of injection: an image that
    was corrected to another injection needs the decay between the two.  The second value says
    that this moment may lie before the injection.
    """
    moment = header.decay_reference
    if record.decay_correction == "ADMIN" and header.decay_correction == "ADMIN":
        moment = header.injected
    elif record.decay_correction is not None:
        return record, False
    if moment is None or record.injected is None:
        return record, False
    scanned = record.scanned
    if (moment.tzinfo is None) != (record.injected.tzinfo is None):
        return record, False
    if abs((moment - record.injected).total_seconds()) < _SAME_S and moment != scanned:
        return record.model_copy(update={"decay_correction": "ADMIN"}), False
    if scanned is None or moment != scanned:
        notes.append(
            f"The image is corrected to {moment.isoformat(sep=' ')}, which the file states; the "
            "dose is decayed to that moment."
        )
    return (
        record.model_copy(update={"decay_correction": "START", "scanned": moment}),
        moment < record.injected,
    )


def _is_dynamic(values: dict[str, Any], header: PetHeader) -> bool:
    """Whether the scan started before the injection and its frame is after it."""
    injected, scanned = values["injected"], values["scanned"]
    if injected is None or scanned is None or injected <= scanned:
        return False
    if header.frame_reference_s is None:
        return False
    return bool(scanned + timedelta(seconds=header.frame_reference_s) > injected)


def _check_frame(record: InjectionRecord) -> None:
    """A frame of days, which the frame factor of an uncorrected image would take as it is."""
    seconds = record.frame_duration_s
    if record.decay_correction == "NONE" and seconds and seconds > _LONGEST_FRAME_H * 3600:
        raise InputError(
            f"a frame of {seconds:g} s ({seconds / 3600:.3g} h) is not plausible (milliseconds?); "
            "give frame_duration_s"
        )


def _frame_start(record: InjectionRecord, header: PetHeader) -> tuple[InjectionRecord, list[str]]:
    """The start of the frame of an uncorrected image, from the frame reference time."""
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
        return []  # `SuvTerms.factor` names what is missing
    text = f"The dose is decayed over {hours:.3f} h to the scan: fraction {remaining:.6f} remains."
    if hours < 0:
        text = (
            f"That start is {-hours:.3f} h before the injection: the dose is multiplied by "
            f"{remaining:.6f}."
        )
    if mode == "START":
        return [f"The image refers to the start of the scan. {text}"]
    return [f"The image is not decay-corrected; the factor of its frame is {on_image:.6f}. {text}"]


def _assumptions(
    record: InjectionRecord, dynamic: bool, sources: dict[str, ValueSource], header: PetHeader
) -> list[str]:
    notes = _decay_sentence(record, dynamic)
    if dynamic:
        notes.append("The scan started before the injection (dynamic acquisition).")
    if sources["residual_mbq"] == "assumed":
        notes.append("No residual activity in the syringe was given; 0 is assumed.")
    if not header.nuclide and sources["nuclide"] == header.source:
        notes.append(f"The file names no nuclide; its half-life is that of {record.nuclide}.")
    if sources["half_life_h"] == "table":
        notes.append(f"The half-life of {record.nuclide} is the table value.")
    if record.excised and record.scanned and record.excised <= record.scanned:
        notes.append(
            "Ex vivo: the activity decays until the scan, the distribution is that at excision; "
            "dose, weight and height are those of the patient."
        )
    if header.unit_given:
        notes.append(_UNIT_GIVEN.format(header.unit))
    return notes


def _check_decay_factor(
    record: InjectionRecord, header: PetHeader, settled: bool, dynamic: bool, warnings: list[str]
) -> None:
    """Check the decay factor in the file against frame time and reference time.

    A factor that belongs to another reference time contradicts the stated one.
    """
    stated, middle, word = header.decay_factor, header.frame_reference_s, record.decay_correction
    if stated is None or word is None or (middle is None and word != "NONE"):
        return
    try:
        half_life = half_life_of(record)
        before = 0.0
        if record.injected is not None and record.scanned is not None:
            before = elapsed_h(record, dynamic=dynamic)
        mean_h = (middle or 0.0) / 3600
        expected = {
            "START": 1 / decay_factor(half_life, mean_h),
            "ADMIN": 1 / decay_factor(half_life, before + mean_h),
            "NONE": 1.0,
        }
    except (InputError, OverflowError):
        return
    text = (
        f"the decay factor in the file is {stated:.5g}, but its times and the reference {word} "
        f"give {expected[word]:.5g}; check both"
    )
    change = abs(np.log(max(stated, 1e-12) / expected[word]))
    if change <= _DECAY_TOLERANCE:
        return
    other = expected["ADMIN" if word == "START" else "START"]
    belongs = word == "NONE" or abs(stated / other - 1) <= _DECAY_TOLERANCE
    if belongs and not settled and change > np.log1p(_REFUSED_CHANGE):
        raise InputError(f"{text}, and give decay_correction as START, ADMIN or NONE")
    warnings.append(text)


def _check_reference(
    record: InjectionRecord, header: PetHeader, settled: bool, warnings: list[str]
) -> None:
    """Check the word for the reference time against the moment that the file states beside it."""
    word, moment = header.decay_correction, header.decay_reference
    meant = {"START": header.scanned, "ADMIN": header.injected}.get(word or "")
    if record.decay_correction != word or moment is None or meant is None:
        return
    if (moment.tzinfo is None) != (meant.tzinfo is None):
        return
    hours = abs((moment - meant).total_seconds()) / 3600
    if hours * 3600 > _SAME_S:
        text = (
            f"the file states decay correction to {word} ({meant.isoformat(sep=' ')}), and to "
            f"{moment.isoformat(sep=' ')}"
        )
        if settled:
            warnings.append(f"{text}; the injection record is used")
        else:
            _doubt(text, record, hours, "decay_correction", warnings)


def _check_moments(
    record: InjectionRecord, header: PetHeader, dynamic: bool, warnings: list[str]
) -> None:
    """Check the order of injection and scan also where the dose is not decayed to that start."""
    injected, scanned = record.injected, record.scanned
    if injected is None or scanned is None:
        return
    if record.decay_correction in ("ADMIN", "NONE"):
        elapsed_h(record, dynamic=dynamic)
    _doubt_late(record, warnings)
    if injected != header.injected and (injected.hour, injected.minute, injected.second) == (
        0, 0, 0
    ):  # fmt: skip
        warnings.append(
            f"the injection was typed as midnight exactly ({injected.isoformat(sep=' ')}); check "
            "its time of day"
        )
    if injected == scanned and injected != header.injected:
        warnings.append(
            f"injection and start of the scan are the same moment ({injected.isoformat(sep=' ')})"
        )


def _doubt_late(record: InjectionRecord, warnings: list[str]) -> None:
    """Warn of a scan so many half-lives after the injection that hardly any activity remains."""
    if record.injected is None or record.scanned is None:
        return
    try:
        half_life = half_life_of(record)
    except InputError:
        return
    hours = (record.scanned - record.injected).total_seconds() / 3600
    if hours > _LATE_HALF_LIVES * half_life:
        warnings.append(
            f"the scan is {hours / 24:.4g} days, {hours / half_life:.3g} half-lives after the "
            "injection; check both dates"
        )


def _check_clock(record: InjectionRecord, header: PetHeader, warnings: list[str]) -> None:
    """Check the time of injection against a time of day that the file states apart from it."""
    clock = header.injected_clock
    if clock is None or record.injected is None:
        return
    given = record.injected.replace(tzinfo=None)
    apart = abs((datetime.combine(given.date(), clock) - given).total_seconds())
    apart = min(apart, 86400 - apart)
    if apart <= 60:
        return
    text = (
        f"the file states {clock.isoformat()} as time of day of the injection, the time of "
        f"injection is {given.isoformat(sep=' ')}; check both"
    )
    # The file contradicts itself, or its image is corrected to another injection.
    if record.injected == header.injected or record.decay_correction == "ADMIN":
        _doubt(text, record, apart / 3600, "injected", warnings)
    else:
        warnings.append(text)


def _doubt(
    text: str, record: InjectionRecord, hours: float, item: str, warnings: list[str]
) -> None:
    """A warning, or an error where the hours in doubt change the SUV by more than 10 %."""
    try:
        change = 1 / decay_factor(half_life_of(record), hours) - 1
    except InputError:
        change = np.inf
    if change > _REFUSED_CHANGE:
        raise InputError(f"{text} (the SUV differs by {change:.0%}); give {item}")
    warnings.append(text)


def _check_body(record: InjectionRecord, header: PetHeader) -> None:
    """Weight and height that cannot belong together, or the weight to the species."""
    weight, height = record.weight_kg, record.height_cm
    species = header.species.strip()
    small = re.search(r"mouse|mus\b|mice|murine|rats?\b|rattus|rodent", species.lower())
    if small and weight is not None and weight == header.weight_kg and weight > _MAX_RODENT_KG:
        raise InputError(
            f"a weight of {weight:g} kg is not plausible for '{species}' (grams?); give weight_kg"
        )
    if weight is None or height is None or implausible("weight_kg", weight):
        return  # the factor names what is implausible by itself
    index = weight / (height / 100) ** 2
    low, high = _BODY_MASS_INDEX
    if not low <= index <= high:
        raise InputError(
            f"a weight of {weight:g} kg and a height of {height:g} cm do not belong together (body "
            f"mass index {index:.3g}); correct weight_kg or height_cm"
        )


def _doubt_human(record: InjectionRecord, header: PetHeader, warnings: list[str]) -> None:
    """Warn of a weight and height that no human has, if nothing states an animal."""
    weight, height = record.weight_kg, record.height_cm
    species = header.species.strip().lower()
    animal = header.reader == "inveon" or (species and not re.search(r"homo|human", species))
    if weight is None:
        return
    if height is None and not re.search(r"homo|human", species):
        low, high = _MOUSE_OR_CHILD_KG
        what = "a mouse" if low <= weight <= high else "a rat" if weight > _RAT_OR_ADULT_KG else ""
        if what:
            warnings.append(
                f"a weight of {weight:g} kg, without height: if it is {what} of {weight:g} g, the "
                "SUV is 1000 times too high; check the weight"
            )
    least = _MIN_MBQ_KG.get(record.nuclide)
    dose = record.dose_mbq
    if least and dose and weight > _ADULT_KG and dose < least * weight:
        warnings.append(
            f"an injected activity of {dose:g} MBq of {record.nuclide} is little for {weight:g} "
            f"kg; if it is {dose:g} mCi, the SUV is 37 times too high; check it"
        )
    if weight < _SMALL_KG and dose and dose > _MAX_MBQ_SMALL:
        warnings.append(
            f"an injected activity of {dose:g} MBq is much for {weight:g} kg; if it is {dose:g} "
            "µCi, the SUV is 27 times too low; check it"
        )
    if animal:
        return
    low, high = _HUMAN_BODY_MASS_INDEX
    tall = "not stated" if height is None else f"{height:g} cm"
    if weight < _MIN_HUMAN_KG or (
        height is not None and not low <= weight / (height / 100) ** 2 <= high
    ):
        warnings.append(
            f"a weight of {weight:g} kg (height {tall}) is not that of a human patient, and no "
            "species is stated; check weight and height"
        )


def _check_unit(header: PetHeader) -> None:
    if header.unit is None:
        reason = header.unclear.get("unit", f"the PET ({header.reader}) states no unit")
        raise InputError(
            f"{reason}; give unit: Bq/mL, g/mL (SUV by weight) or cm²/mL (SUV by body surface)"
        )
    if header.unit != "Bq/mL" and header.unit not in SUV_FILE_UNITS:
        raise InputError(
            f"PET values in '{header.unit}' cannot be converted to SUV; use Bq/mL, g/mL or cm²/mL"
        )


@dataclass(frozen=True, slots=True)
class SuvInputs:
    """Injection record and PET header merged."""

    record: InjectionRecord
    values: dict[str, Any]
    sources: dict[str, ValueSource]
    dynamic: bool
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]


def merge_injection_and_header(record: InjectionRecord, header: PetHeader) -> SuvInputs:
    """Merge both; raises `InputError` where they contradict each other."""
    _check_unit(header)
    values, sources, warnings = _values(record, header)
    scaled = header.unit in SUV_FILE_UNITS
    _resolve_nuclide(values, sources, header)
    if not scaled:
        _check_times(values)
        _resolve_half_life(values, sources, warnings)
    _check_corrections(header, sources["decay_correction"], warnings)
    merged = record.model_copy(update=values)
    dynamic = _is_dynamic(values, header)
    if not scaled:
        _check_body(merged, header)
        _doubt_human(merged, header, warnings)
        referred: list[str] = []
        merged, before = _resolve_reference(merged, header, referred)
        dynamic = dynamic or before
    if scaled:
        assumptions = ["The values of the file are SUV already; they are not scaled again."]
        if header.unit_given:
            assumptions.append(_UNIT_GIVEN.format(header.unit))
    else:
        settled = sources["decay_correction"] == "user"
        _check_decay_factor(merged, header, settled, dynamic, warnings)
        _check_clock(merged, header, warnings)
        _check_reference(merged, header, settled, warnings)
        _check_moments(merged, header, dynamic, warnings)
        _check_frame(merged)
        merged, assumptions = _frame_start(merged, header)
        assumptions += referred + _assumptions(merged, dynamic, sources, header)
    assumptions += [header.geometry] if header.geometry else []
    notes = [text for text in header.notes if "without a date" not in text or not merged.injected]
    return SuvInputs(merged, values, sources, dynamic, tuple(assumptions), (*warnings, *notes))
