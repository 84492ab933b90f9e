"""PET in DICOM files: one image a file, or enhanced files of several; pixels and header."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import InputError, Lattice, Raster
from napari_mosaik.core.pet_records import PetHeader, PetImage
from napari_mosaik.io.pet.dicom_frame import Frame, as_number, moment, zone_of
from napari_mosaik.io.pet.registry import PetFormat

__all__ = ["FORMAT", "DicomSeries"]

_MAX_PIXELS = 1 << 26
_SAME_SLICE_MM = 0.01


class DicomSeries:
    """The images of one PET series, ordered by slice position."""

    def __init__(self, files: list[Path]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._frames = _frames(files)
            positions = [frame.position_mm() for frame in self._frames]
        self._places = _grouped(self._frames, positions)

    @property
    def n_slices(self) -> int:
        """Number of slices."""
        return len(self._places)

    def n_frames(self, place: int) -> int:
        """Number of time frames of a slice."""
        return len({frame.moment_s() for frame in self._places[place]})

    def image(self, place: int, number: int) -> PetImage:
        """One slice of one time frame with its header."""
        at_place = self._places[place]
        moment = sorted({frame.moment_s() for frame in at_place})[number]
        chosen = next(frame for frame in at_place if frame.moment_s() == moment)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            meaning = _pixel_meaning(chosen)
            header = _read_header(self._frames, chosen, meaning)
            values = _values(chosen) * meaning.factor
        lattice = Lattice("pet", (values.shape[0], values.shape[1]), _spacing_um(chosen))
        return PetImage(Raster(values, lattice, meaning.unit), header)


def _starts_as_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do."""
    with path.open("rb") as handle:
        return handle.read(132)[128:] == b"DICM"


def _frames(files: list[Path]) -> list[Frame]:
    """All images of the files, without their pixels; they must be one PET series."""
    frames: list[Frame] = []
    series: set[str] = set()
    for path in files:
        dataset = _header(path)
        series.add(str(dataset.get("SeriesInstanceUID", "")))
        groups = dataset.get("PerFrameFunctionalGroupsSequence")
        count = len(groups) if groups else 0
        frames += [Frame(path, dataset, i) for i in range(count)] or [Frame(path, dataset, None)]
    if len(series) > 1:
        raise InputError(f"the PET files belong to {len(series)} series; give one series only")
    return frames


def _header(path: Path) -> Any:
    import pydicom

    if not _starts_as_dicom(path):
        raise InputError(f"{path.name} cannot be used as PET: it is not a DICOM file")
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        modality = str(dataset.get("Modality", ""))
    except Exception as error:
        raise InputError(f"{path.name}: the DICOM header is damaged ({error})") from error
    if modality != "PT":
        raise InputError(
            f"{path.name} is not PET: its modality is {modality or 'not stated'}, not PT"
        )
    return dataset


def _grouped(frames: list[Frame], positions: list[float | None]) -> list[list[Frame]]:
    """Images grouped by slice position, in order."""
    if any(position is None for position in positions):
        return [[frame] for frame in frames]
    known = np.asarray(positions, float)
    groups: list[list[Frame]] = []
    last = -np.inf
    for i in np.argsort(known, kind="stable"):
        if known[i] - last > _SAME_SLICE_MM:
            groups.append([])
            last = known[i]
        groups[-1].append(frames[i])
    return groups


def _values(frame: Frame) -> NDArray[np.float64]:
    """Rescaled pixels of one image; padding is NaN."""
    stored = _stored(frame)
    slope, intercept = frame.number("RescaleSlope"), frame.number("RescaleIntercept")
    if slope is None:
        slope, intercept = (
            frame.number("RealWorldValueSlope"),
            frame.number("RealWorldValueIntercept"),
        )
    if slope is None or slope == 0:
        raise InputError(f"{frame.path.name} has no usable rescale slope; its values are unknown")
    values = stored.astype(np.float64) * slope + (intercept or 0.0)
    padding = frame.number("PixelPaddingValue")
    if padding is not None:
        values[stored == padding] = np.nan
    return values


def _stored(frame: Frame) -> NDArray[Any]:
    import pydicom
    from pydicom.pixels.utils import pixel_array

    rows, columns = frame.number("Rows") or 0, frame.number("Columns") or 0
    if not 0 < rows * columns <= _MAX_PIXELS:
        raise InputError(
            f"{frame.path.name}: an image of {rows:g} x {columns:g} pixels is not plausible"
        )
    try:
        dataset = pydicom.dcmread(frame.path)
        if frame.index is None:
            stored = np.asarray(dataset.pixel_array)
        else:
            stored = np.asarray(pixel_array(dataset, index=frame.index))
    except Exception as error:
        raise InputError(
            f"{frame.path.name}: the pixels cannot be read; the file is cut off, damaged or "
            f"compressed in an unknown way ({str(error).splitlines()[0]})"
        ) from error
    if stored.ndim != 2:
        raise InputError(f"{frame.path.name} holds pixels of shape {stored.shape}, not one slice")
    return stored


def _spacing_um(frame: Frame) -> tuple[float, float]:
    spacing = frame.find("PixelSpacing")
    pair = [float(value) for value in spacing] if spacing is not None else []
    if len(pair) != 2 or min(pair) <= 0:
        raise InputError(f"{frame.path.name} states no pixel size")
    return pair[0] * 1000, pair[1] * 1000


# --- the header -----------------------------------------------------------------------------------
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
class _Meaning:
    """Unit of ``value * factor`` where value is the rescaled pixel."""

    unit: str
    factor: float = 1.0
    suv_kind: Literal["bw", "bsa", "lbm"] | None = None


def _pixel_meaning(frame: Frame) -> _Meaning:
    """Unit and scale of the pixels, from Units, the SUV type and the private factors of Philips."""
    unit = frame.text("Units") or frame.text("RescaleType") or _coded_unit(frame)
    if unit == "BQML":
        return _Meaning("Bq/mL")
    if unit == "CNTS":
        return _philips_counts(frame)
    if unit == "CM2ML":
        return _Meaning("cm²/mL", 1.0, "bsa")
    if unit == "GML-LBM":
        return _Meaning("g/mL", 1.0, "lbm")
    if unit == "GML":
        kind = frame.text("SUVType")
        if kind not in _SUV_KINDS:
            raise InputError(
                f"{frame.path.name} holds SUV of the type '{kind}' in g/mL, which the program "
                "does not know; export it as Bq/mL"
            )
        return _Meaning("g/mL", 1.0, _SUV_KINDS[kind])
    raise InputError(
        f"{frame.path.name} holds PET values in {unit or 'an unstated unit'}; "
        "export it as Bq/mL (BQML) or as SUV (GML, CM2ML)"
    )


def _read_header(frames: Sequence[Frame], chosen: Frame, meaning: _Meaning) -> PetHeader:
    """Header of the chosen slice; the scan start is derived from all slices.  No name is kept."""
    notes: list[str] = []
    zone = zone_of(chosen.find("TimezoneOffsetFromUTC"))
    scanned = _scan_start(frames, chosen, zone, notes)
    drug = chosen.first("RadiopharmaceuticalInformationSequence")
    injected = _injected(drug, zone, notes)
    if scanned and injected and injected > scanned:
        notes.append("the injection is later than the scan start; check the times")
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


def _philips_counts(frame: Frame) -> _Meaning:
    suv = as_number(frame.private(0x7053, _PHILIPS, 0x00))
    if suv:
        return _Meaning("g/mL", suv, "bw")
    activity = as_number(frame.private(0x7053, _PHILIPS, 0x09))
    if activity:
        return _Meaning("Bq/mL", activity)
    raise InputError(
        f"{frame.path.name} holds PET values in counts (CNTS) without the factor of the "
        "manufacturer that converts them to activity; export it as Bq/mL"
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
    """Series time, unless it is after the first acquisition; then GE's own item or the latter."""
    series = moment(chosen.find("SeriesDate"), chosen.find("SeriesTime"), zone)
    times = [when for frame in frames if (when := _acquired(frame, zone)) is not None]
    first = min(times, default=None)
    if series is not None and (first is None or _clock(series) <= _clock(first)):
        return series
    private = moment(chosen.private(0x0009, "GEMS_PETD_01", 0x0D), None, zone)
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


def _injected(drug: Any, zone: timezone | None, notes: list[str]) -> datetime | None:
    """Date and time of injection; a time of day without a date does not count."""
    if drug is None:
        notes.append("the file does not describe the injection")
        return None
    when = moment(drug.get("RadiopharmaceuticalStartDateTime"), None, zone)
    if when is None:
        if drug.get("RadiopharmaceuticalStartTime"):
            notes.append(
                "the file states the injection's time of day "
                f"({drug.RadiopharmaceuticalStartTime}) without a date; enter both"
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
    notes.append("the file does not state the reference time of the decay correction")
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


FORMAT = PetFormat("DICOM", _starts_as_dicom, lambda files, sidecar: DicomSeries(files), order=10)
