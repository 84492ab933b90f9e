"""PET of Siemens Inveon and microPET scanners: raw values with a header of keywords in text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np

from napari_mosaik.core import FloatArray, InputError, Lattice, Raster
from napari_mosaik.core.pet_records import PetHeader, PetImage
from napari_mosaik.core.pet_volume import VolumeGrid
from napari_mosaik.io.pet.registry import PetFormat, sibling, single_file
from napari_mosaik.io.unread import unread_file

__all__ = ["FORMAT", "InveonSeries"]

Words = Mapping[str, str]
_TYPES = {1: "i1", 2: "<i2", 3: "<i4", 4: "<f4", 5: ">f4", 6: ">i2", 7: ">i4"}
_IMAGE = 5
_CALIBRATION_BQ_ML = {1: 37.0, 2: 1.0}
"""Bq/mL in the calibration's unit: 1 nCi/cc, 2 Bq/cc."""
_DOSE_BQ = {1: 3.7e7, 2: 1e6}
_WEIGHT_KG = {1: 1e-3, 2: 0.028349523125, 3: 1.0, 4: 0.45359237}
_LENGTH_CM = {1: 0.1, 2: 1.0, 3: 2.54}
_POSITRONS = {"zr89": 0.227, "f18": 0.967, "cu64": 0.176, "ga68": 0.889, "c11": 0.998}
"""Positrons per decay (NNDC NuDat 3)."""
_OTHER_FRACTION = 0.1
_CORRECTIONS = {
    "decay_correction_applied": "DECY", "attenuation_applied": "ATTN", "scatter_correction": "SCAT",
    "deadtime_correction_applied": "DTIM", "normalization_applied": "NORM",
}  # fmt: skip


class InveonSeries:
    """Slices of an Inveon image (``NAME.img`` with ``NAME.img.hdr``).

    Values in Bq/mL are ``raw * scale_factor * calibration_factor / isotope_branching_fraction``
    in the unit of the calibration.  A decay correction is taken to refer to the scan's start, and
    pixel sizes without an axis to be in cm; both are stated.
    """

    def __init__(self, header: Path) -> None:
        self._words, self._frames = _read(header)
        self._image = sibling(header, header.name[:-4])
        if header.suffix.lower() != ".hdr" or not self._image.is_file():
            raise InputError(f"the image {self._image.name} of the header {header.name} is missing")
        if self._whole("file_type", _IMAGE) != _IMAGE or self._whole("modality", 0) not in (-1, 0):
            raise InputError(f"{self._image.name} is not a PET image (file_type or modality)")
        sizes = [self._whole(f"{axis}_dimension", 0) for axis in "xyz"]
        if min(sizes) < 1:
            raise InputError(f"{header.name} states no image size")
        self._columns, self._rows, self._slices = sizes
        self._kind = np.dtype(self._type())

    @property
    def n_slices(self) -> int:
        """Number of slices."""
        return self._slices

    def n_frames(self, place: int) -> int:
        """Number of time frames."""
        return len(self._frames)

    def image(self, place: int, number: int) -> PetImage:
        """One slice of one time frame."""
        notes: list[str] = []
        words = {**self._words, **self._frames[number]}
        values = self._raw(place, number) * self._factor(words)
        lattice = Lattice("pet", (self._rows, self._columns), self._spacing_um(notes))
        header = _header(words, notes)
        return PetImage(Raster(values, lattice, str(header.unit)), header)

    def grid(self) -> VolumeGrid:
        """The voxels; the file does not say how they lie in the animal."""
        size_mm = [_number(self._words, f"pixel_size_{axis}") or 0.0 for axis in "zyx"]
        if self._slices < 2 or min(size_mm) <= 0:
            raise InputError(
                f"{self._image.name} states no size of its voxels in three directions "
                "(pixel_size_x, pixel_size_y, pixel_size_z), or holds one slice"
            )
        steps = np.zeros((3, 3))
        steps[[0, 1, 2], [2, 1, 0]] = size_mm
        shape = (self._slices, self._rows, self._columns)
        return VolumeGrid(shape, np.zeros(3), steps, in_patient=False)

    def patient_ids(self) -> tuple[str, ...]:
        """Identifier of the animal, if the file states it."""
        found = self._words.get("subject_identifier", "").strip()
        return (found,) if found else ()

    def _whole(self, name: str, default: int) -> int:
        return int(_number(self._words, name, default) or 0)

    def _type(self) -> str:
        code = self._whole("data_type", 0)
        if code not in _TYPES:
            raise InputError(f"{self._image.name} holds values of the unknown data_type {code}")
        return _TYPES[code]

    def _raw(self, place: int, number: int) -> FloatArray:
        pixels = self._rows * self._columns
        pointer = self._frames[number].get("data_file_pointer", "").split()
        start = number * self._slices * pixels * self._kind.itemsize
        if pointer:
            if len(pointer) != 2 or not all(re.fullmatch(r"\d{1,10}", part) for part in pointer):
                raise InputError(
                    f"{self._image.name} begins its frame {number} at data_file_pointer "
                    f"'{' '.join(pointer)[:40]}', which is not a place in a file"
                )
            start = (int(pointer[0]) << 32) + int(pointer[1])
        start += place * pixels * self._kind.itemsize
        raw = b""
        if start + pixels * self._kind.itemsize <= self._image.stat().st_size:
            with self._image.open("rb") as file:
                file.seek(start)
                raw = file.read(pixels * self._kind.itemsize)
        if len(raw) < pixels * self._kind.itemsize:
            raise InputError(f"{self._image.name} is cut off: slice {place} is not in it")
        stored = np.frombuffer(raw, self._kind).reshape(self._rows, self._columns)
        return np.asarray(stored, np.float64)

    def _factor(self, words: Words) -> float:
        scale = _number(words, "scale_factor")
        calibration = _number(words, "calibration_factor")
        fraction = _number(words, "isotope_branching_fraction")
        unit = int(_number(words, "calibration_units", 0) or 0)
        if not scale or not calibration or unit not in _CALIBRATION_BQ_ML:
            raise InputError(
                f"{self._image.name} is not calibrated (scale_factor, calibration_factor and "
                "calibration_units are needed); export it as DICOM in Bq/mL"
            )
        if not fraction or not 0 < fraction <= 1:
            raise InputError(
                f"{self._image.name} states an isotope_branching_fraction of {fraction}; it must "
                "lie between 0 and 1"
            )
        return scale * calibration / fraction * _CALIBRATION_BQ_ML[unit]

    def _spacing_um(self, notes: list[str]) -> tuple[float, float]:
        by_axis = [_number(self._words, f"pixel_size_{axis}") for axis in "yx"]
        if all(size and size > 0 for size in by_axis):
            return float(by_axis[0] or 0) * 1e3, float(by_axis[1] or 0) * 1e3
        size = _number(self._words, "pixel_size")
        if not size or size <= 0:
            raise InputError(f"{self._image.name} states no pixel size")
        notes.append(f"a pixel size of {size:g} is taken as cm, as older microPET files have it")
        return size * 1e4, size * 1e4


def _read(path: Path) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Keywords of the file, and of each time frame; lines that begin with # are comments."""
    content = path.read_bytes()
    if b"\x00" in content[:512]:
        raise InputError(
            f"{path.name} is a binary header (Analyze?), not an Inveon header; save the image as "
            "NIfTI (.nii)"
        )
    words: dict[str, str] = {}
    frames: list[dict[str, str]] = []
    for line in content.decode("latin-1").splitlines():
        key, *rest = line.strip().split(None, 1)[:2] or ["#"]
        if key.startswith("#"):
            continue
        value = rest[0] if rest else ""
        if key == "frame":
            frames.append({})
        target = frames[-1] if frames else words
        target.setdefault(key, value.strip())
    if "x_dimension" not in words or not frames:
        what = unread_file(path) or "not an Inveon header"
        raise InputError(f"{path.name} cannot be used as PET: it is {what}")
    return words, frames


def _header(words: Words, notes: list[str]) -> PetHeader:
    """The header of the scan; assumptions are recorded in the notes."""
    unclear: dict[str, str] = {}
    scanned, injected = (
        _stated(words, name, item, unclear)
        for name, item in (("scan_time", "scanned"), ("injection_time", "injected"))
    )
    if injected is not None and injected == scanned and (_number(words, "frame_start") or 0) == 0:
        unclear["injected"] = f"the file states {injected} both as injection and as scan start"
        injected = None
    _check_branching(words, notes)
    applied = tuple(
        name for key, name in _CORRECTIONS.items() if (_number(words, key, 0) or 0) != 0
    )
    correction: Literal["START", "NONE"] = "START" if "DECY" in applied else "NONE"
    if correction == "START":
        notes.append(
            "the file's decay correction is taken to refer to the start of the scan (Inveon)"
        )
    duration, start = _number(words, "frame_duration"), _number(words, "frame_start", 0.0)
    middle = None if not duration else (start or 0.0) + duration / 2
    return PetHeader(
        reader="inveon",
        unit="Bq/mL",
        decay_correction=correction,
        corrected=applied,
        scanned=scanned,
        frame_duration_s=duration if duration and duration > 0 else None,
        frame_reference_s=middle,
        half_life_s=_positive(words, "isotope_half_life"),
        nuclide=words.get("isotope") or None,
        injected=injected,
        dose_bq=_in_unit(words, "dose", _DOSE_BQ, "dose_mbq", unclear),
        weight_kg=_in_unit(words, "subject_weight", _WEIGHT_KG, "weight_kg", unclear),
        height_cm=_in_unit(words, "subject_length", _LENGTH_CM, "height_cm", unclear),
        sex=_SEX.get(words.get("subject_sex", "").upper()[:1]),
        notes=tuple(notes),
        unclear=unclear,
    )


def _stated(words: Words, name: str, item: str, unclear: dict[str, str]) -> datetime | None:
    """A moment of the file; one without a time of day, or in another form, is not used."""
    text = words.get(name, "").strip()
    when = _moment(text)
    if when is not None and (when.hour, when.minute, when.second) == (0, 0, 0):
        unclear[item] = f"{name} is {when.isoformat(sep=' ')}, a date without a time"
        return None
    if text and when is None:
        unclear[item] = f"{name} '{text[:40]}' is not a date as Inveon writes it"
    return when


def _check_branching(words: Words, notes: list[str]) -> None:
    """Warn of a share of positrons, by which all values are divided, that is not the nuclide's."""
    fraction = _number(words, "isotope_branching_fraction")
    isotope = re.sub(r"[^a-z0-9]", "", words.get("isotope", "").lower())
    known = next((n for n in _POSITRONS if isotope in (n, f"{n[-2:]}{n[:-2]}")), "")
    if known and fraction and abs(fraction / _POSITRONS[known] - 1) > _OTHER_FRACTION:
        notes.append(
            f"isotope_branching_fraction is {fraction:g}, and {words['isotope']} emits "
            f"{_POSITRONS[known]:g} positrons per decay: all values may be "
            f"{fraction / _POSITRONS[known]:.3g} times too "
            f"{'low' if fraction > _POSITRONS[known] else 'high'}; check the calibration"
        )


_SEX: dict[str, Literal["M", "F"]] = {"M": "M", "F": "F"}


def _in_unit(
    words: Words, name: str, scales: Mapping[int, float], item: str, unclear: dict[str, str]
) -> float | None:
    value = _positive(words, name)
    if value is None:
        return None
    unit = int(_number(words, f"{name}_units", 0) or 0)
    if unit not in scales:
        unclear[item] = f"{name} {value:g} has no known unit ({name}_units) and is not used"
        return None
    return value * scales[unit]


def _positive(words: Words, name: str) -> float | None:
    value = _number(words, name)
    return value if value is not None and value > 0 else None


def _number(words: Words, name: str, default: float | None = None) -> float | None:
    try:
        value = float(words[name].split()[0])
    except (KeyError, IndexError, ValueError):
        return default
    return value if np.isfinite(value) else default


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def _moment(text: str) -> datetime | None:
    """A date as the C library writes it: ``Fri Apr 12 12:46:38 2019``; None if there is none.

    The names are English whatever the locale of the desktop is, so `strptime` would not do.
    """
    found = re.fullmatch(
        r"(?:\w{3} )?(\w{3}) (\d{1,2}) (\d{2}):(\d{2}):(\d{2}) (\d{4})", " ".join(text.split())
    )
    if found is None or found[1].lower() not in _MONTHS:
        return None
    day, hour, minute, second, year = (int(part) for part in found.groups()[1:])
    try:
        return datetime(year, _MONTHS.index(found[1].lower()) + 1, day, hour, minute, second)
    except ValueError:
        return None


def _is_header(path: Path) -> bool:
    return path.suffix.lower() == ".hdr"


def _is_inveon(path: Path) -> bool:
    return path.suffix.lower() in (".img", ".hdr")


def _open(files: list[Path], sidecar: Path | None) -> InveonSeries:
    """Open an image by its text header, which is given itself or stands beside the image."""
    headers = [path for path in files if _is_header(path)]
    if not headers:
        beside = sibling(files[0], files[0].name + ".hdr")
        pair = sibling(files[0], f"{files[0].stem}.hdr")  # Analyze, Interfile: named, not read
        if not beside.is_file() and pair.is_file():
            _read(pair)
        if not beside.is_file():
            raise InputError(
                f"{files[0].name} cannot be used as PET: its header {beside.name} is missing"
            )
        headers = [beside]
    return InveonSeries(single_file(headers, "Inveon"))


def _other_half(path: Path) -> list[Path]:
    """The header of an image, or the image of a header."""
    if _is_header(path):
        return [sibling(path, path.name[:-4])]
    return [sibling(path, path.name + ".hdr")]


FORMAT = PetFormat("Inveon", _is_inveon, _open, _is_header, _other_half, order=30)
