"""What a PET file states about the scan and the injection, and what its numbers mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timezone
from typing import Any, Literal

from napari_mosaik.core import InputError
from napari_mosaik.core.pet_records import PetHeader
from napari_mosaik.io.pet_frames import Frame, as_number, moment, zone_of

__all__ = ["Meaning", "pixel_meaning", "read_header"]

_PHILIPS = "Philips PET Private Group"
_SUV_KINDS: dict[str, Literal["bw", "lbm"]] = {
    "": "bw", "BW": "bw", "LBM": "lbm", "LBMJAMES128": "lbm", "LBMJANMA": "lbm",
}  # fmt: skip
_CODED_UNITS = {
    "BQ/ML": "BQML", "G/ML": "GML", "G/ML{SUVBW}": "GML", "G/ML{SUVLBM}": "GML-LBM",
    "CM2/ML": "CM2ML", "CM2/ML{SUVBSA}": "CM2ML",
}  # fmt: skip
_FLAGS = {
    "DecayCorrected": "DECY", "AttenuationCorrected": "ATTN", "ScatterCorrected": "SCAT",
    "DeadTimeCorrected": "DTIM", "RandomsCorrected": "RAN",
}  # fmt: skip
_ELEMENTS = {
    "FLUORINE": "F", "ZIRCONIUM": "Zr", "LUTETIUM": "Lu", "ACTINIUM": "Ac", "GALLIUM": "Ga",
    "COPPER": "Cu", "CARBON": "C", "IODINE": "I", "OXYGEN": "O", "NITROGEN": "N",
    "RUBIDIUM": "Rb", "YTTRIUM": "Y", "SCANDIUM": "Sc", "TERBIUM": "Tb",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Meaning:
    """Unit of ``value * factor`` where value is the rescaled pixel."""

    unit: str
    factor: float = 1.0
    suv_kind: Literal["bw", "bsa", "lbm"] | None = None


def pixel_meaning(frame: Frame) -> Meaning:
    """What the pixels mean, from Units, the SUV type and Philips's private factors."""
    unit = frame.text("Units") or frame.text("RescaleType") or _coded_unit(frame)
    if unit == "BQML":
        return Meaning("Bq/mL")
    if unit == "CNTS":
        return _philips_counts(frame)
    if unit == "CM2ML":
        return Meaning("cm²/mL", 1.0, "bsa")
    if unit == "GML-LBM":
        return Meaning("g/mL", 1.0, "lbm")
    if unit == "GML":
        kind = frame.text("SUVType")
        if kind not in _SUV_KINDS:
            raise InputError(
                f"{frame.path.name} holds SUV of the type '{kind}' in g/mL, which the program "
                "does not know; export it as Bq/mL"
            )
        return Meaning("g/mL", 1.0, _SUV_KINDS[kind])
    raise InputError(
        f"{frame.path.name} holds PET values in {unit or 'an unstated unit'}; "
        "export it as Bq/mL (BQML) or as SUV (GML, CM2ML)"
    )


def read_header(frames: Sequence[Frame], chosen: Frame, meaning: Meaning) -> PetHeader:
    """Header of the chosen slice; the scan start looks at all slices.  No name is kept."""
    notes: list[str] = []
    zone = zone_of(chosen.find("TimezoneOffsetFromUTC"))
    scanned = _scan_start(frames, chosen, zone, notes)
    drug = chosen.first("RadiopharmaceuticalInformationSequence")
    injected = _injected(drug, zone, notes)
    if scanned and injected and injected > scanned:
        notes.append("the injection lies after the scan's start; look whether this is meant")
    duration = chosen.number("ActualFrameDuration") or chosen.number("FrameAcquisitionDuration")
    return PetHeader(
        reader="dicom",
        unit=meaning.unit,
        suv_kind=meaning.suv_kind,
        decay_correction=_decay_correction(chosen, zone, scanned, injected, notes),
        decay_factor=chosen.number("DecayFactor"),
        corrected=chosen.texts("CorrectedImage") or _flags(chosen),
        scanned=scanned,
        frame_duration_s=duration / 1000 if duration and duration > 0 else None,
        frame_reference_s=_reference_s(chosen, zone, scanned),
        half_life_s=_drug_number(drug, "RadionuclideHalfLife"),
        nuclide=_nuclide(drug),
        injected=injected,
        injected_clock=None if injected else _clock_of(drug),
        dose_bq=_dose_bq(drug, notes),
        weight_kg=_weight_kg(chosen, notes),
        height_cm=_height_cm(chosen, notes),
        sex=_sex(chosen),
        notes=tuple(notes),
    )


def _coded_unit(frame: Frame) -> str:
    """The unit of the real-world value mapping that enhanced files use."""
    mapping = frame.first("MeasurementUnitsCodeSequence")
    code = str(mapping.get("CodeValue", "")).upper().replace(" ", "") if mapping else ""
    return _CODED_UNITS.get(code, code)


def _philips_counts(frame: Frame) -> Meaning:
    suv = as_number(frame.private(0x7053, _PHILIPS, 0x00))
    if suv:
        return Meaning("g/mL", suv, "bw")
    activity = as_number(frame.private(0x7053, _PHILIPS, 0x09))
    if activity:
        return Meaning("Bq/mL", activity)
    raise InputError(
        f"{frame.path.name} holds PET values in counts (CNTS) without the maker's factor that "
        "turns them into activity; export it as Bq/mL"
    )


def _acquired(frame: Frame, zone: timezone | None) -> datetime | None:
    return (
        moment(frame.find("FrameAcquisitionDateTime"), None, zone)
        or moment(frame.find("AcquisitionDate"), frame.find("AcquisitionTime"), zone)
        or moment(frame.find("AcquisitionDateTime"), None, zone)
    )


def _scan_start(
    frames: Sequence[Frame], chosen: Frame, zone: timezone | None, notes: list[str]
) -> datetime | None:
    """Series time if it is not after the first acquisition, else GE's own item, else the latter."""
    series = moment(chosen.find("SeriesDate"), chosen.find("SeriesTime"), zone)
    times = [when for frame in frames if (when := _acquired(frame, zone)) is not None]
    first = min(times, default=None)
    if series is not None and (first is None or _clock(series) <= _clock(first)):
        return series
    private = moment(chosen.private(0x0009, "GEMS_PETD_01", 0x0D), None, zone)
    if private is not None:
        notes.append("the scan's start is GE's own item, because the series was made afterwards")
        return private if zone else private.replace(tzinfo=None)
    if first is not None:
        notes.append(
            "the scan's start is the earliest acquisition of the given slices, because the "
            "series time is later or missing"
        )
    return first


def _clock(when: datetime) -> datetime:
    return when if when.tzinfo is None else when.astimezone(UTC).replace(tzinfo=None)


def _injected(drug: Any, zone: timezone | None, notes: list[str]) -> datetime | None:
    """Date and time of injection; a time of day without a date is not one."""
    if drug is None:
        notes.append("the file does not describe the injection")
        return None
    when = moment(drug.get("RadiopharmaceuticalStartDateTime"), None, zone)
    if when is None:
        if drug.get("RadiopharmaceuticalStartTime"):
            notes.append(
                "the file states the injection's time of day "
                f"({drug.RadiopharmaceuticalStartTime}) without a date; give both by hand"
            )
        return None
    if zone is None and when.tzinfo is not None:
        notes.append("the injection's time zone is dropped, because no other time has one")
        return when.replace(tzinfo=None)
    return when


def _clock_of(drug: Any) -> time | None:
    """Time of day of the injection, where the file states no date."""
    when = moment("20000101", drug and drug.get("RadiopharmaceuticalStartTime"), None)
    return None if when is None else when.time()


def _decay_correction(
    frame: Frame,
    zone: timezone | None,
    scanned: datetime | None,
    injected: datetime | None,
    notes: list[str],
) -> Literal["START", "ADMIN", "NONE"] | None:
    stated = frame.text("DecayCorrection")
    known: dict[str, Literal["START", "ADMIN", "NONE"]] = {
        "START": "START", "ADMIN": "ADMIN", "NONE": "NONE",
    }  # fmt: skip
    if stated or frame.text("DecayCorrected") == "NO":
        return known.get(stated or "NONE")
    when = moment(frame.find("DecayCorrectionDateTime"), None, zone)
    if when is not None and when == scanned:
        return "START"
    if when is not None and when == injected:
        return "ADMIN"
    notes.append("the file does not say to when the image is decay-corrected")
    return None


def _flags(frame: Frame) -> tuple[str, ...]:
    return tuple(name for keyword, name in _FLAGS.items() if frame.text(keyword) == "YES")


def _reference_s(frame: Frame, zone: timezone | None, scanned: datetime | None) -> float | None:
    reference = frame.number("FrameReferenceTime")
    if reference is not None:
        return reference / 1000
    when = moment(frame.find("FrameReferenceDateTime"), None, zone)
    if when is None or scanned is None:
        return None
    return (_clock(when) - _clock(scanned)).total_seconds()


def _drug_number(drug: Any, keyword: str) -> float | None:
    value = None if drug is None else as_number(drug.get(keyword))
    return value if value and value > 0 else None


def _dose_bq(drug: Any, notes: list[str]) -> float | None:
    dose = _drug_number(drug, "RadionuclideTotalDose")
    if dose is not None and not 1e4 <= dose <= 1e12:
        notes.append(f"a dose of {dose:g} Bq is not plausible (MBq instead of Bq?)")
    return dose


def _weight_kg(frame: Frame, notes: list[str]) -> float | None:
    weight = frame.number("PatientWeight")
    if weight is not None and not 0 < weight <= 500:
        notes.append(f"a weight of {weight:g} kg is not plausible and is not used")
        return None
    return weight


def _height_cm(frame: Frame, notes: list[str]) -> float | None:
    height = frame.number("PatientSize")
    if height is not None and not 0 < height <= 2.6:
        notes.append(f"a height of {height:g} m is not plausible and is not used")
        return None
    return None if height is None else height * 100


def _sex(frame: Frame) -> Literal["M", "F"] | None:
    known: dict[str, Literal["M", "F"]] = {"M": "M", "F": "F"}
    return known.get(frame.text("PatientSex"))


def _nuclide(drug: Any) -> str | None:
    """Element and mass number ("F-18") from the coded radionuclide, None if it is not clear."""
    codes = None if drug is None else drug.get("RadionuclideCodeSequence")
    text = str(codes[0].get("CodeMeaning", "")) if codes else ""
    mass, words = re.search(r"\d{1,3}", text), re.findall(r"[A-Za-z]+", text)
    for word in words:
        symbol = _ELEMENTS.get(word.upper(), word if word in _ELEMENTS.values() else None)
        if symbol and mass:
            return f"{symbol}-{int(mass[0])}"
    return None
