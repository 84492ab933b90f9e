"""What the items of a DICOM image say of a PET: unit, times, injection, patient."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, timezone
from typing import Any, Literal

from napari_mosaik.core import InputError
from napari_mosaik.core.pet_records import BASE_UNITS, PetHeader, canonical_nuclide
from napari_mosaik.io.pet.dicom_file import DicomFrame, dicom_moment, dicom_zone, item_number
from napari_mosaik.io.pet.sidecar import unit_named

__all__ = ["PixelMeaning", "SeriesTiming", "is_mapped", "pixel_meaning", "read_pet_header"]

_PHILIPS = "Philips PET Private Group"
_LONGEST_SERIES = timedelta(hours=8)
"""No series of PET images goes on for longer."""
_TALLEST_M, _LIGHTEST_KG = 2.6, 20.0
"""Height of the tallest human; a number above the other is none in m, but may be a weight."""
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
_NUCLIDES = {
    "Zr-89": ("C-168A4", "63360001"), "F-18": ("C-111A1", "77004003"),
    "C-11": ("C-105A1", "40565003"), "N-13": ("C-107A1", "21576001"),
    "O-15": ("C-B1038", "129504001"), "Ga-68": ("C-131A3", "35337001"),
    "Cu-64": ("C-127A2", "3932008"), "I-124": ("C-114A5", "40937006"),
    "Y-86": ("C-162A3", "10738001"), "Y-90": ("C-162A7", "14691008"), "Sc-44": ("126600",),
    "Rb-82": ("C-159A2", "79197006"),
}  # fmt: skip
"""The codes of DICOM's CID 4020: SNOMED's former and present ones."""


@dataclass(frozen=True, slots=True)
class PixelMeaning:
    """Unit of ``value * factor`` where value is the rescaled pixel."""

    unit: str
    factor: float = 1.0
    suv_kind: Literal["bw", "bsa", "lbm"] | None = None


def pixel_meaning(frame: DicomFrame) -> PixelMeaning:
    """Unit and scale of the pixels, from Units, the SUV type and the private factors of Philips."""
    mapped = is_mapped(frame)
    unit = _coded_unit(frame) if mapped else frame.text("Units") or frame.text("RescaleType")
    if unit == "BQML":
        return PixelMeaning("Bq/mL")
    if unit == "CNTS":
        return _philips_counts(frame)
    if unit == "CM2ML":
        return PixelMeaning("cm²/mL", 1.0, "bsa")
    if unit == "GML-LBM":
        return PixelMeaning("g/mL", 1.0, "lbm")
    if unit == "GML":
        kind = frame.text("SUVType")
        if kind not in _SUV_KINDS:
            raise InputError(
                f"{frame.path.name} holds SUV of the type '{kind}' in g/mL, which the program "
                "does not know; export it as Bq/mL"
            )
        return PixelMeaning("g/mL", 1.0, _SUV_KINDS[kind])
    with suppress(InputError):  # spelled as other programs do: "kBq/mL", "Bq/cc"
        base, factor = BASE_UNITS.get(spelled := unit_named(unit), (spelled, 1.0))
        if base == "Bq/mL":
            return PixelMeaning(base, factor)
    raise InputError(
        f"{frame.path.name} holds PET values in {unit or 'an unstated unit'}; "
        "export it as Bq/mL (BQML) or as SUV (GML, CM2ML)"
    )


def read_pet_header(timing: SeriesTiming, chosen: DicomFrame, meaning: PixelMeaning) -> PetHeader:
    """Header of the chosen slice; the scan start is derived from all slices.  No name is kept."""
    notes: list[str] = []
    unclear: dict[str, str] = {}
    zone = dicom_zone(chosen.find("TimezoneOffsetFromUTC"))
    scanned = _scan_start(timing, chosen, zone, notes, unclear)
    drug = chosen.first("RadiopharmaceuticalInformationSequence")
    _check_one_injection(chosen, unclear)
    injected = None if "injected" in unclear else _injected(drug, zone, notes, unclear)
    if injected is not None and injected == scanned and timing.is_static:
        unclear["injected"] = f"the file states {injected} both as injection and as scan start"
        injected = None
    corrected_to = dicom_moment(chosen.find("DecayCorrectionDateTime"), None, zone)
    if corrected_to is not None and (corrected_to.tzinfo is None) != (zone is None):
        corrected_to = None
    if scanned and injected and injected > scanned:
        notes.append("the injection is later than the scan start; check the times")
    duration = chosen.number("ActualFrameDuration") or chosen.number("FrameAcquisitionDuration")
    return PetHeader(
        reader="dicom",
        unit=meaning.unit,
        suv_kind=meaning.suv_kind,
        decay_correction=_decay_correction(chosen, zone, scanned, injected, notes),
        decay_factor=chosen.number("DecayFactor"),
        decay_reference=corrected_to,
        corrected=chosen.texts("CorrectedImage") or _flags(chosen),
        scanned=scanned,
        frame_duration_s=duration / 1000 if duration and duration > 0 else None,
        frame_reference_s=_reference_s(chosen, zone, scanned),
        half_life_s=_half_life_s(drug, unclear),
        nuclide=_nuclide(drug, unclear),
        injected=injected,
        injected_clock=_clock_of(drug),
        dose_bq=None if "dose_mbq" in unclear else _dose_bq(drug, unclear),
        weight_kg=_weight_kg(chosen, unclear),
        height_cm=_height_cm(chosen, unclear),
        sex=_sex(chosen),
        species=_species(chosen),
        notes=tuple(notes),
        unclear=unclear,
    )


def is_mapped(frame: DicomFrame) -> bool:
    """Whether the unit is that of the real-world value mapping: then its slope counts, too."""
    return frame.text("RescaleType") in ("", "US") and not frame.text("Units")


def _coded_unit(frame: DicomFrame) -> str:
    """The unit of the real-world value mapping that enhanced files use."""
    mapping = frame.first("MeasurementUnitsCodeSequence")
    code = str(mapping.get("CodeValue", "")).upper().replace(" ", "") if mapping else ""
    return _CODED_UNITS.get(code, code)


def _philips_counts(frame: DicomFrame) -> PixelMeaning:
    suv = item_number(frame.private(0x7053, _PHILIPS, 0x00)) or 0.0
    activity = item_number(frame.private(0x7053, _PHILIPS, 0x09)) or 0.0
    if suv > 0:
        return PixelMeaning("g/mL", suv, "bw")
    if activity > 0:
        return PixelMeaning("Bq/mL", activity)
    raise InputError(
        f"{frame.path.name} holds PET values in counts (CNTS) without the factor of the "
        "manufacturer that converts them to activity; export it as Bq/mL"
    )


def _acquired(frame: DicomFrame, zone: timezone | None) -> datetime | None:
    return (
        dicom_moment(frame.find("FrameAcquisitionDateTime"), None, zone)
        or dicom_moment(frame.find("AcquisitionDate"), frame.find("AcquisitionTime"), zone)
        or dicom_moment(frame.find("AcquisitionDateTime"), None, zone)
    )


class SeriesTiming:
    """Times of all images of a series, read once and not again for each slice."""

    def __init__(self, frames: Sequence[DicomFrame]) -> None:
        self._frames = frames
        self._first: dict[timezone | None, datetime | None] = {}
        self.is_static = len({frame.moment_s() for frame in frames}) == 1

    def first_acquisition(self, zone: timezone | None) -> datetime | None:
        """The earliest acquisition, None if no image states one."""
        if zone not in self._first:
            times = [when for one in self._frames if (when := _acquired(one, zone)) is not None]
            self._first[zone] = min(times, default=None)
        return self._first[zone]


def _scan_start(
    timing: SeriesTiming,
    chosen: DicomFrame,
    zone: timezone | None,
    notes: list[str],
    unclear: dict[str, str],
) -> datetime | None:
    """Series time, unless it is after the first acquisition; then GE's own item or the latter.

    A series that began hours before its first acquisition leaves the start unclear.
    """
    series = dicom_moment(chosen.find("SeriesDate"), chosen.find("SeriesTime"), zone)
    first = timing.first_acquisition(zone)
    if first is not None and _is_midnight(first) and (series is None or _is_midnight(series)):
        unclear["scanned"] = f"{first.isoformat(sep=' ')} in the file is a date without a time"
        return None
    if series is not None and (first is None or _clock(series) <= _clock(first)):
        if first is not None and _clock(first) - _clock(series) > _LONGEST_SERIES:
            unclear["scanned"] = (
                f"the file states {series} as start of the series and {first} as its first "
                "acquisition"
            )
            return None
        return series
    private = dicom_moment(chosen.private(0x0009, "GEMS_PETD_01", 0x0D), None, zone)
    if private is not None:
        notes.append("the scan start is GE's private item, because the series time is later")
        return private if zone else private.replace(tzinfo=None)
    if first is not None:
        notes.append(
            "the scan start is the earliest acquisition of the given slices, because the "
            "series time is later or missing"
        )
    return first


def _clock(when: datetime) -> datetime:
    return when if when.tzinfo is None else when.astimezone(UTC).replace(tzinfo=None)


def _injected(
    drug: Any, zone: timezone | None, notes: list[str], unclear: dict[str, str]
) -> datetime | None:
    """Date and time of injection; a time of day without a date does not count."""
    if drug is None:
        notes.append("the file does not describe the injection")
        return None
    stated = str(drug.get("RadiopharmaceuticalStartDateTime") or "").strip()
    when = dicom_moment(stated, None, zone)
    if when is None and stated:
        unclear["injected"] = f"the file states '{stated}', which is no date with a time of day"
        return None
    if when is None:
        if drug.get("RadiopharmaceuticalStartTime"):
            notes.append(
                "the file states the injection's time of day "
                f"({drug.RadiopharmaceuticalStartTime}) without a date; enter both"
            )
        return None
    if _is_midnight(when):
        unclear["injected"] = f"{when.isoformat(sep=' ')} in the file is a date without a time"
        return None
    if zone is None and when.tzinfo is not None:
        unclear["injected"] = (
            f"the file states {when.isoformat(sep=' ')} with a time zone, and the scan without one"
        )
        return None
    return when


def _check_one_injection(frame: DicomFrame, unclear: dict[str, str]) -> None:
    """Several injections that differ: which one the image shows is not known."""
    items = frame.find("RadiopharmaceuticalInformationSequence") or []
    for name, keyword in (
        ("injected", "RadiopharmaceuticalStartDateTime"),
        ("dose_mbq", "RadionuclideTotalDose"),
    ):
        stated = sorted({str(item.get(keyword) or "") for item in items} - {""})
        if len(stated) > 1:
            unclear[name] = (
                f"the file describes {len(items)} injections ({keyword} {' and '.join(stated)})"
            )


def _species(frame: DicomFrame) -> str:
    """The species as text, by its code where that is all the file states."""
    code = frame.first("PatientSpeciesCodeSequence")
    return str(frame.find("PatientSpeciesDescription") or (code and code.get("CodeMeaning")) or "")


def _is_midnight(when: datetime) -> bool:
    """Whether a moment is midnight exactly, which stands for a date without a time of day."""
    return (when.hour, when.minute, when.second, when.microsecond) == (0, 0, 0, 0)


def _clock_of(drug: Any) -> time | None:
    """Time of day of the injection, where the file states no date."""
    when = dicom_moment("20000101", drug and drug.get("RadiopharmaceuticalStartTime"), None)
    return None if when is None else when.time()


def _decay_correction(
    frame: DicomFrame,
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
    when = dicom_moment(frame.find("DecayCorrectionDateTime"), None, zone)
    if when is not None and when == scanned:
        return "START"
    if when is not None and when == injected:
        return "ADMIN"
    notes.append("the file does not state the reference time of the decay correction")
    return None


def _flags(frame: DicomFrame) -> tuple[str, ...]:
    return tuple(name for keyword, name in _FLAGS.items() if frame.text(keyword) == "YES")


def _reference_s(
    frame: DicomFrame, zone: timezone | None, scanned: datetime | None
) -> float | None:
    reference = frame.number("FrameReferenceTime")
    if reference is not None:
        return reference / 1000
    when = dicom_moment(frame.find("FrameReferenceDateTime"), None, zone)
    if when is None or scanned is None:
        return None
    return (_clock(when) - _clock(scanned)).total_seconds()


def _drug_number(drug: Any, keyword: str) -> float | None:
    value = None if drug is None else item_number(drug.get(keyword))
    return value if value and value > 0 else None


def _is_text(raw: Any, name: str, what: str, unclear: dict[str, str]) -> bool:
    """Whether the file states a text instead of a number, which is then asked for."""
    if raw in (None, "") or item_number(raw) is not None:
        return False
    unclear[name] = f"the file states {what} '{raw}', which is not a number"
    return True


def _half_life_s(drug: Any, unclear: dict[str, str]) -> float | None:
    raw = drug and drug.get("RadionuclideHalfLife")
    if _is_text(raw, "half_life_h", "the half-life", unclear):
        return None
    return _drug_number(drug, "RadionuclideHalfLife")


def _dose_bq(drug: Any, unclear: dict[str, str]) -> float | None:
    raw = drug and drug.get("RadionuclideTotalDose")
    if _is_text(raw, "dose_mbq", "the dose", unclear):
        return None
    dose = _drug_number(drug, "RadionuclideTotalDose")
    if dose is not None and not 1e4 <= dose <= 1e12:
        unclear["dose_mbq"] = (
            f"the file states a dose of {dose:g} Bq, which is not plausible (MBq instead of Bq?)"
        )
        return None
    return dose


def _weight_kg(frame: DicomFrame, unclear: dict[str, str]) -> float | None:
    if _is_text(frame.find("PatientWeight"), "weight_kg", "the weight", unclear):
        return None
    weight, height = frame.number("PatientWeight"), frame.number("PatientSize") or 0.0
    if weight is not None and weight < _TALLEST_M and height > _LIGHTEST_KG:
        unclear["weight_kg"] = f"the file states {weight:g} kg and {height:g} m: exchanged?"
        return None
    if weight is not None and not 0 < weight <= 500:
        unclear["weight_kg"] = f"the file states {weight:g} kg, which is not plausible"
        return None
    return weight


def _height_cm(frame: DicomFrame, unclear: dict[str, str]) -> float | None:
    if _is_text(frame.find("PatientSize"), "height_cm", "the height", unclear):
        return None
    height = frame.number("PatientSize")
    if height is not None and not 0 < height <= _TALLEST_M:
        unclear["height_cm"] = f"the file states {height:g} m, which is not plausible (cm?)"
        return None
    return None if height is None else height * 100


def _sex(frame: DicomFrame) -> Literal["M", "F", "O"] | None:
    known: dict[str, Literal["M", "F", "O"]] = {"M": "M", "F": "F", "O": "O"}
    return known.get(frame.text("PatientSex"))


def _nuclide(drug: Any, unclear: dict[str, str]) -> str | None:
    """The nuclide by its code, its meaning and the name of the drug; unclear where they differ."""
    if drug is None:
        return None
    code = (drug.get("RadionuclideCodeSequence") or [{}])[0]
    medicine = (drug.get("RadiopharmaceuticalCodeSequence") or [{}])[0]
    value = str(code.get("CodeValue", "")).strip()
    found = [name for name, codes in _NUCLIDES.items() if value in codes]
    stated = {f"the code {value}": found[0]} if found else {}
    for source in (code.get("CodeMeaning"), drug.get("Radiopharmaceutical"),
                   medicine.get("CodeMeaning")):  # fmt: skip
        name = canonical_nuclide(text := str(source or "").strip())
        if re.fullmatch(r"[A-Z][a-z]?-\d{1,3}m?", name) or (
            source == code.get("CodeMeaning") and re.search(r"\d", text) and not found
        ):
            stated[f"'{text}'"] = name
    if len(names := list(dict.fromkeys(stated.values()))) > 1:
        both = " and ".join(f"{name} by {source}" for source, name in stated.items())
        unclear["nuclide"] = f"the file states {both}"
        return None
    return names[0] if names else None
