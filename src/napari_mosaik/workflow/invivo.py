"""Uptake in the living patient: values that are typed, imported from tables or measured."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.invivo import InvivoValue, patients_named, region_name, same_scan
from napari_mosaik.core.manifest import file_digest
from napari_mosaik.core.pet_records import BASE_UNITS, InjectionRecord, PetHeader
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.core.text import read_text, typed_number, typed_numbers
from napari_mosaik.uptake import (
    INVIVO_FWHM_MM,
    SuvKind,
    VoiMeasurement,
    combine_terms,
    measure_volume,
    sphere_voxels,
    suv_factor,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_mosaik.core.pet_records import PetUnit
    from napari_mosaik.core.pet_volume import PetVolume
    from napari_mosaik.io.case import Case
    from napari_mosaik.io.invivo import MeasuredTable

__all__ = [
    "InvivoChange",
    "OfferedSeries",
    "SphereOfInterest",
    "VoiMeasurement",
    "add_invivo",
    "import_invivo",
    "iter_series",
    "mask_voxels",
    "measure_invivo",
    "offered_regions",
    "offered_series",
    "open_series",
    "set_invivo",
    "stored_invivo",
    "typed_value",
    "voi_record",
]

_KINDS: Final[dict[str, SuvKind]] = {"SUVbw": "bw", "SUVbsa": "bsa", "SUVlbm": "lbm"}
_HOURS: Final = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1 / 3600),
    **dict.fromkeys(("min", "minute", "minutes"), 1 / 60),
    **dict.fromkeys(("h", "hour", "hours"), 1.0),
    **dict.fromkeys(("d", "day", "days"), 24.0),
}
_DECAY: Final = {
    "injection": "ADMIN", "admin": "ADMIN", "scan": "START", "start": "START", "none": "NONE",
}  # fmt: skip
_BLOOD: Final = {"whole_blood_radioactivity": "blood", "plasma_radioactivity": "plasma"}
"""Columns of the blood table of PET-BIDS."""
_VALUES: Final = ("mean", "sd", "voxel_sd")
_OTHER_INJECTION_H: Final = 1.0
_SMALL_VOXEL_MM: Final = 1.3


@dataclass(frozen=True, slots=True)
class InvivoChange:
    """What was added to ``invivo.csv``, and all values; conversions and warnings as sentences."""

    added: tuple[InvivoValue, ...]
    values: tuple[InvivoValue, ...]
    conversions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def add_invivo(
    case: Case,
    added: Iterable[InvivoValue],
    *,
    replace_same: bool = False,
    conversions: Iterable[str] = (),
    warnings: Iterable[str] = (),
) -> InvivoChange:
    """Add values to ``invivo.csv`` of a case.

    Raises
    ------
    InputError
        If a region has a value at that time already and *replace_same* is not set, or the units
        differ.
    """
    from napari_mosaik.io.invivo import read_invivo, write_invivo

    new = tuple(added)
    with case.writing():
        kept = read_invivo(case.root)
        if replace_same:
            kept = tuple(one for one in kept if not any(same_scan(one, other) for other in new))
        values = write_invivo(case.root, (*kept, *new))
    case.log("invivo", regions=sorted({one.region for one in new}), count=len(new))
    return InvivoChange(new, values, tuple(conversions), tuple(warnings))


def stored_invivo(case: Case) -> tuple[InvivoValue, ...]:
    """The values of a case, in order of time and region."""
    from napari_mosaik.io.invivo import read_invivo

    return read_invivo(case.root)


def set_invivo(case: Case, values: Iterable[InvivoValue]) -> tuple[InvivoValue, ...]:
    """Replace all values of a case, for example by those that are left or were there before."""
    from napari_mosaik.io.invivo import write_invivo

    with case.writing():
        written = write_invivo(case.root, values)
    case.log("invivo", count=len(written), replaced=True)
    return written


def import_invivo(
    case: Case,
    path: Path,
    *,
    sidecar: Path | None = None,
    unit: str = "",
    decay_reference: str = "",
    region: str = "",
    relative_error: float | None = None,
    replace_same: bool = False,
) -> InvivoChange:
    """Import a table (CSV, TSV) of measured values, converted to the unit of the case.

    Parameters
    ----------
    case
        The case; its injection record gives what a conversion needs.
    path
        A table with a column for the time (``time_h``, ``time_min``, ``time_d``, or the frames of
        PET-BIDS) and either ``region`` and ``mean``, or one column a region.
    sidecar
        JSON file of PET-BIDS; that beside the table by default.
    unit, decay_reference, region
        What the table does not state: unit of the values; "injection", "scan" (its start) or
        "none"; the region.
    relative_error
        Standard error of the mean as a fraction of it, where the table has no column ``sd``.
    replace_same
        Replace values of the same region and time.

    Raises
    ------
    InputError
        If something is missing, contradicts itself or cannot be converted; the message names the
        line where there is one.
    """
    from napari_mosaik.io.invivo import read_invivo, read_measured_table

    table = read_measured_table(path)
    beside = sidecar or path.with_suffix(".json")
    facts = _Sidecar.read(beside if sidecar or beside.is_file() else None)
    known = read_invivo(case.root)
    job = _Import(
        case,
        facts,
        unit,
        decay_reference,
        region,
        relative_error,
        known[0].unit if known else "SUVbw",
        {},
        f"file:{file_digest(path)[:16]}",
    )
    values = job.values(table)
    if not values:
        raise InputError(f"{path} holds no values below its header")
    return add_invivo(
        case,
        values,
        replace_same=replace_same,
        conversions=job.stated,
        warnings=job.warnings(table),
    )


@dataclass(frozen=True, slots=True)
class _Sidecar:
    """What a JSON file of PET-BIDS states: raw items, and those of a PET header."""

    raw: Mapping[str, Any]
    header: PetHeader | None

    @classmethod
    def read(cls, path: Path | None) -> _Sidecar:
        """Read the file; without one nothing is stated."""
        from napari_mosaik.io.pet.sidecar import read_sidecar

        if path is None:
            return cls({}, None)
        fields, _ = read_sidecar(path)
        raw = json.loads(read_text(path))
        return cls(raw, PetHeader(**{**fields, "reader": "table", "unit": "Bq/mL"}))

    def unit_of(self, column: str) -> str:
        """Unit of a column, or of all values; empty if it is not stated."""
        about = self.raw.get(column)
        stated = about.get("Units") if isinstance(about, Mapping) else None
        return str(stated or self.raw.get("Units") or "")


@dataclass(slots=True)
class _Import:
    """One import: what the user and the sidecar state, and the conversions that were made."""

    case: Case
    facts: _Sidecar
    unit: str
    decay_reference: str
    region: str
    relative_error: float | None
    target: str
    stated: dict[str, None]
    source: str

    def values(self, table: MeasuredTable) -> list[InvivoValue]:
        """All values of the table."""
        regions = self._regions(table)
        found = []
        for line, cells in table.rows:
            for column, region in regions.items():
                try:
                    if not column or cells[column].lower() not in ("", "n/a"):
                        found.append(self._value(table, cells, column, region))
                except InputError as error:
                    raise InputError(f"{table.path.name}, line {line}: {error}") from error
        return found

    def warnings(self, table: MeasuredTable) -> list[str]:
        """Columns that were not used, and doubts about the injection."""
        used = {"region", "unit", "decay_reference", "source", "method", *_VALUES, "volume_ml"}
        used |= {*self._regions(table), "frame_start", "frame_end", "time"}
        unused = [name for name in table.columns if name not in used and not _hours_of(name)]
        out = [f"columns that are not used: {', '.join(unused)}"] if unused else []
        return out + (list(self._terms().warnings) if self.facts.header else [])

    def _regions(self, table: MeasuredTable) -> dict[str, str]:
        """Column of the mean and its region; an empty column where a column names the region."""
        if "mean" in table.columns:
            if "region" not in table.columns and not self.region:
                raise InputError(f"{table.path.name} has no column region; add it, or give region")
            return {"": self.region}
        blood = {name: _BLOOD[name] for name in table.columns if name in _BLOOD}
        other = {name for name in table.columns if name in ("frame_start", "frame_end", "time")}
        wide = [n for n in table.columns if n not in other and not _hours_of(n)]
        if blood or "frame_start" in other:
            return blood or {name: region_name(name) for name in wide}
        raise InputError(
            f"{table.path.name} has no column mean (its columns: {', '.join(table.columns)[:120]})"
        )

    def _value(
        self, table: MeasuredTable, cells: Mapping[str, str], column: str, region: str
    ) -> InvivoValue:
        time_h = self._time_h(cells)
        mean = _cell(cells, column or "mean")
        if mean is None:
            raise InputError("mean is missing; give a number")
        sd = _cell(cells, "sd") if not column else None
        if sd is None:
            if self.relative_error is None:
                raise InputError(
                    "sd is missing: the standard error of the mean, not the spread of the voxels; "
                    "add the column, or give relative_error, for example 0.05"
                )
            if self.relative_error <= 0:
                raise InputError(f"relative_error is {self.relative_error:g}; give more than 0")
            sd = self.relative_error * mean
            self._state(f"sd is {self.relative_error:.3g} of the mean, as given")
        else:
            self._state("sd is taken as the standard error of the mean, not as the voxels' spread")
        stated = cells.get("unit") or self.facts.unit_of(column or "mean")
        if stated and self.unit and _known_unit(stated) != _known_unit(self.unit):
            raise InputError(f"unit is '{stated}' in the table, and '{self.unit}' was given")
        unit = stated or self.unit
        factor = self._factor(unit, cells.get("decay_reference") or "", time_h)
        voxel_sd, volume = _cell(cells, "voxel_sd"), _cell(cells, "volume_ml")
        return InvivoValue(
            time_h=time_h,
            region=region_name(cells.get("region") or region),
            mean=mean * factor,
            sd=sd * factor,
            voxel_sd=None if voxel_sd is None or column else voxel_sd * factor,
            volume_ml=None if column else volume,
            unit=self.target,
            decay_reference="injection",
            source=" ".join([self.source, *patients_named(cells.get("source") or "")]),
            method=cells.get("method", ""),
        )

    def _time_h(self, cells: Mapping[str, str]) -> float:
        """Time after injection, h."""
        if "frame_start" in cells and "frame_end" in cells:
            ends = [self._seconds(cells, name) for name in ("frame_start", "frame_end")]
            if ends[1] < ends[0]:
                raise InputError(f"frame_end {ends[1]:g} is before frame_start {ends[0]:g}")
            self._state("the time is the middle of the frame")
            return self._after_injection_h(sum(ends) / 2)
        for name, text in cells.items():
            scale = _hours_of(name)
            if scale and name != "time":
                value = _typed(name, text)
                if scale != 1.0:
                    self._state(f"{name} x {scale:.6g} = time_h")
                return value * scale
        if "time" in cells:
            about = self.facts.raw.get("time")
            if not isinstance(about, Mapping) or not about.get("Units"):
                raise InputError(
                    "the column time has no unit; name it time_h, time_min, time_s or time_d"
                )
            return self._after_injection_h(self._seconds(cells, "time"))
        raise InputError("there is no time; name a column time_h, time_min, time_s or time_d")

    def _seconds(self, cells: Mapping[str, str], name: str) -> float:
        """A time of PET-BIDS, s from TimeZero; seconds unless the sidecar states another unit."""
        about = self.facts.raw.get(name)
        unit = str(about.get("Units") or "s") if isinstance(about, Mapping) else "s"
        if unit.lower() not in _HOURS:
            raise InputError(f"{name} is in '{unit}', which is not a unit of time")
        return _typed(name, cells[name]) * _HOURS[unit.lower()] * 3600

    def _after_injection_h(self, seconds: float) -> float:
        start = self.facts.raw.get("InjectionStart")
        if not isinstance(start, int | float):
            raise InputError(
                "the sidecar states no InjectionStart, so PET-BIDS times (s from TimeZero) cannot "
                "be converted to times after injection; add it, or give a column time_h"
            )
        self._state(f"seconds from TimeZero, minus InjectionStart {start:g} s, / 3600 = time_h")
        return (seconds - start) / 3600

    def _factor(self, unit: str, reference: str, time_h: float) -> float:
        """Factor on the values: to the unit of the case and decay-corrected to injection."""
        word = _DECAY.get((reference or self.decay_reference).strip().lower(), "")
        if (reference or self.decay_reference) and not word:
            raise InputError(
                f"decay_reference is '{reference or self.decay_reference}'; give injection, scan "
                "or none"
            )
        given = _DECAY.get(self.decay_reference.strip().lower(), "")
        if reference and given and given != word:
            raise InputError(
                f"decay_reference is '{reference}' in the table, and '{self.decay_reference}' was "
                "given"
            )
        header = self.facts.header
        of_sidecar = header.decay_correction if header else None
        if word and of_sidecar and word != of_sidecar:
            self._state(f"decay_reference as given; the sidecar states {of_sidecar} of the image")
        word = word or of_sidecar or ""
        moment = header.decay_reference if header else None
        if not word and moment is None:
            raise InputError(
                "decay_reference is missing: to what time are the values decay-corrected? Give "
                "injection, scan (its start) or none"
            )
        name, scale = _known_unit(unit)
        if name == self.target:
            return scale
        if name in _KINDS:
            factor = self._suv(self.target) / self._suv(name)
            self._state(
                f"{name} x {factor:.6g} = {self.target}, by the body measures of the patient"
            )
            return factor
        decay = self._decay(word, moment, time_h)
        if self.target in _KINDS:
            factor = self._suv(self.target)
            self._state(f"{name} at injection x {scale * factor:.6g} = {self.target}")
        else:
            factor = {"Bq/mL": 1.0, "kBq/mL": 1e-3}[self.target]
            self._state(f"{unit} at injection x {scale * factor:.6g} = {self.target}")
        return scale * decay * factor

    def _decay(self, word: str, moment: datetime | None, time_h: float) -> float:
        """Factor from the decay reference of the values to the injection."""
        if word == "ADMIN":
            return 1.0
        record = self._terms().record
        header = self.facts.header
        if record.half_life_h is None:
            raise InputError("the half-life is missing; give the nuclide in the injection record")
        start = moment or (header.scanned if header and word == "START" else None)
        hours = time_h
        if start is not None:
            if record.injected is None:
                raise InputError("the time of injection is missing in the injection record")
            if (start.tzinfo is None) != (record.injected.tzinfo is None):
                raise InputError("injection and scan cannot be compared: only one has a time zone")
            hours = (start - record.injected).total_seconds() / 3600
        factor = float(2.0 ** (hours / record.half_life_h))
        what = "the reference of the sidecar" if start is not None else "the time of each value"
        self._state(
            f"decay from {what} to the injection: x 2^(h / {record.half_life_h:g} h), for "
            f"{record.nuclide}"
        )
        return factor

    def _terms(self) -> Any:
        given = self.case.file.injection or InjectionRecord()
        header = self.facts.header or PetHeader(reader="table", unit="Bq/mL")
        both = (given.injected, header.injected)
        if all(both) and abs(_apart_h(*both)) > _OTHER_INJECTION_H:
            raise InputError(
                f"the sidecar states an injection at {header.injected}, the case at "
                f"{given.injected}: another patient, or another injection; correct one of them"
            )
        return combine_terms(given, header)

    def _suv(self, unit: str) -> float:
        """Factor from Bq/mL at injection to an SUV."""
        record = self._terms().record.model_copy(update={"decay_correction": "ADMIN"})
        return suv_factor(record, _KINDS[unit])

    def _state(self, sentence: str) -> None:
        self.stated.setdefault(sentence)


def _apart_h(first: Any, second: Any) -> float:
    plain = (first.replace(tzinfo=None), second.replace(tzinfo=None))
    return float((plain[0] - plain[1]).total_seconds() / 3600)


def _known_unit(text: str) -> tuple[str, float]:
    """The unit in the words of the program, and the factor to it."""
    from napari_mosaik.io.pet.sidecar import unit_named

    if not text:
        raise InputError("unit is missing; add a column unit, or give unit, for example SUVbw")
    plain = text.strip().lower().replace(" ", "")
    for name in _KINDS:
        if plain == name.lower():
            return name, 1.0
    found = unit_named(text)
    if found in ("g/mL", "cm²/mL"):
        raise InputError(
            f"unit '{text}' does not say how the SUV is normalised; give SUVbw, SUVlbm or SUVbsa"
        )
    return BASE_UNITS.get(found, (found, 1.0))


def _hours_of(column: str) -> float:
    """Hours in the unit of a column for the time ("time_min", "time [min]"); 0 for others."""
    found = re.fullmatch(r"(?:time[\s_]*)?[\[(]?([a-z]+)[\])]?", column.strip().lower())
    alone = found and found[1] in _HOURS and (len(found[1]) > 1 or "time" in column.lower())
    return _HOURS[found[1]] if found and alone else 0.0


def _typed(name: str, text: str) -> float:
    try:
        return typed_number(text)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def _cell(cells: Mapping[str, str], name: str) -> float | None:
    text = cells.get(name, "")
    return None if text.lower() in ("", "n/a") else _typed(name, text)


def typed_value(fields: Mapping[str, Any]) -> InvivoValue:
    """A value that was typed; an SUV needs no decay reference.

    Raises
    ------
    InputError
        If an item is missing or impossible.
    """
    for name in ("time_h", "mean", "sd"):
        if fields.get(name) is None:
            raise InputError(f"{name} is missing; give a number")
    known = {"decay_reference": "", **fields, "source": "typed"}
    known["region"] = region_name(str(fields.get("region") or ""))
    if str(fields.get("unit")) in _KINDS and not known["decay_reference"]:
        known["decay_reference"] = "injection"
    return InvivoValue(**known)


# --- measuring ------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class SphereOfInterest:
    """A sphere: centre (x, y, z) in mm, left, posterior, head as in DICOM, and radius in mm."""

    centre_mm: tuple[float, float, float]
    radius_mm: float

    @classmethod
    def typed(cls, text: str) -> SphereOfInterest:
        """A sphere from "x,y,z,radius" in mm."""
        try:
            x, y, z, radius = typed_numbers(text)
        except (InputError, ValueError):
            raise InputError(
                f"the sphere '{text[:60]}' is not of the form x,y,z,radius in mm"
            ) from None
        return cls((x, y, z), radius)


@dataclass(frozen=True, slots=True)
class OfferedSeries:
    """A PET series that can be opened: description (it may name the patient), files, frames."""

    title: str
    files: tuple[Path, ...]
    n_frames: int


def offered_series(path: Path) -> tuple[OfferedSeries, ...]:
    """The PET series of a folder, or of a file, with their numbers of time frames.

    Raises
    ------
    InputError
        If a file cannot be read as PET.
    """
    from napari_mosaik.io.pet.archive import is_zip
    from napari_mosaik.io.pet.dicom import listed_series
    from napari_mosaik.io.pet.dicom_file import starts_as_dicom
    from napari_mosaik.io.pet.registry import count_time_frames, files_in

    inside = [] if is_zip(path) else files_in(path)
    dicom = bool(inside) and starts_as_dicom(inside[0])
    found = (listed_series([path]) if dicom else {}) or {path.name: [path]}
    return tuple(
        OfferedSeries(title, tuple(files), count_time_frames(files))
        for title, files in found.items()
    )


def offered_regions(path: Path) -> dict[int, str]:
    """Numbers and names of the regions of a mask, for the screen; errors as `mask_regions`."""
    from napari_mosaik.io.pet.masks import mask_regions

    return mask_regions(path)


def mask_voxels(volume: PetVolume, path: Path, label: int | None) -> NDArray[np.bool_]:
    """Voxels (s, r, c) of a region of a mask on a series, true or false; errors as `read_mask`."""
    from napari_mosaik.io.pet.masks import read_mask

    return read_mask(path, volume.grid, label).voxels


def open_series(
    case: Case,
    paths: Sequence[Path],
    *,
    frame_index: int | None = None,
    unit: PetUnit | None = None,
    same_patient: bool = False,
) -> PetVolume:
    """Read a PET series of the patient of a case; nothing of it is stored.

    Raises
    ------
    InputError
        If it cannot be read as a volume, or belongs to another patient or injection than the case.
        What the program cannot know, *same_patient* confirms: that the patient of the series is
        the one whom the case knows by a pseudonym.
    """
    work = iter_series(case, paths, frame_index=frame_index, unit=unit, same_patient=same_patient)
    return run_to_end(work)


def iter_series(
    case: Case,
    paths: Sequence[Path],
    *,
    frame_index: int | None = None,
    unit: PetUnit | None = None,
    same_patient: bool = False,
) -> Generator[Progress, None, PetVolume]:
    """Like `open_series`; yields progress after each slice."""
    from napari_mosaik.io.pet.registry import iter_pet_volume

    volume = yield from iter_pet_volume(list(paths), frame_index=frame_index, unit=unit)
    if not same_patient:
        _check_patient(case, volume)
    known, own = _known_patients(case), volume.patient_hash(case.name)
    return replace(volume, confirmed=True) if own and known and own not in known else volume


def _known_patients(case: Case) -> set[str]:
    """Hashes of the patient in the values of a case."""
    from napari_mosaik.io.invivo import read_invivo

    sources = " ".join(one.source for one in read_invivo(case.root))
    return set(re.findall(r"patient:(\w+)", sources))


def _check_patient(case: Case, volume: PetVolume) -> None:
    known, own = _known_patients(case), volume.patient_hash(case.name)
    if own and known and own not in known:
        raise InputError(
            f"the series belongs to another patient than the values of case {case.name} (another "
            "hash of the identifier); give that of the same patient, or same_patient if it is"
        )
    if own and not known and not volume.is_named(case.patient):
        raise InputError(
            f"the series names a patient, and case {case.name} is of '{case.patient}': confirm "
            "with same_patient that they are the same, or give another series"
        )
    given = case.file.injection
    both = (given.injected if given else None, volume.images[0].header.injected)
    if all(both) and abs(_apart_h(*both)) > _OTHER_INJECTION_H:
        raise InputError(
            f"the series states an injection at {both[1]}, the case at {both[0]}: another patient, "
            "or another injection; correct one of them, or confirm with same_patient"
        )


def measure_invivo(
    case: Case,
    volume: PetVolume,
    voi: SphereOfInterest | Path,
    region: str,
    *,
    label: int | None = None,
    kind: SuvKind = "bw",
    fwhm_mm: float | None = None,
    recovery: Literal["none", "mean"] = "none",
    calibration: float = 0.05,
) -> VoiMeasurement:
    """Measure a volume of interest of a series; nothing is stored.

    Parameters
    ----------
    case
        The case; its injection record and the headers give the SUV.
    volume
        The series, see `open_series`.
    voi
        A sphere, or a file with a mask (DICOM SEG, RTSTRUCT, labels in NIfTI).
    region
        "tumour", "blood", ...
    label
        Number of the region in the mask.
    kind
        Kind of SUV.
    fwhm_mm
        Resolution of the scanner, full width at half maximum, mm; that of a clinical scanner
        (4.6 mm) where the voxels are not those of a small-animal scanner.
    recovery
        "mean" divides by the recovery of a uniform sphere of the same volume.
    calibration
        Standard error of the calibration as a fraction of the mean.
    """
    from napari_mosaik.io.pet.masks import read_mask

    if fwhm_mm is None and max(volume.grid.spacing_mm) < _SMALL_VOXEL_MM:
        raise InputError(
            f"voxels of {max(volume.grid.spacing_mm):.3g} mm are those of a small-animal scanner; "
            "give fwhm_mm, its resolution in mm (about 1.5)"
        )
    doubts: tuple[str, ...] = ()
    if isinstance(voi, SphereOfInterest):
        voxels = sphere_voxels(volume.grid, voi.centre_mm, voi.radius_mm)
        method = f"sphere of {voi.radius_mm:g} mm"
    else:
        mask = read_mask(voi, volume.grid, label)
        voxels, method, doubts = mask.voxels, mask.method, mask.warnings
    if not volume.patient_ids:
        doubts += ("the series names no patient; it is taken as that of the case",)
    found = measure_volume(
        volume,
        case.file.injection or InjectionRecord(),
        voxels,
        region=region_name(region),
        method=method,
        source=volume.source(case.name),
        kind=kind,
        fwhm_mm=INVIVO_FWHM_MM if fwhm_mm is None else fwhm_mm,
        recovery=recovery,
        calibration=calibration,
    )
    return replace(found, warnings=(*doubts, *found.warnings))


def voi_record(found: VoiMeasurement) -> dict[str, Any]:
    """A measurement as a JSON-able document."""
    return {
        "value": asdict(found.value),
        "n_voxels": found.n_voxels,
        "noise": found.noise,
        "independent_volumes": found.independent,
        "radius_mm": found.radius_mm,
        "recovery_centre": found.recovery_centre,
        "recovery_mean": found.recovery_mean,
        "recovery_applied": found.recovered,
        "suv": found.terms.to_dict(),
        "warnings": list(found.warnings),
    }
