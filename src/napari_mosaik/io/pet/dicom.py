"""PET in DICOM files: one image a file, or enhanced files of several; pixels and header."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import FloatArray, InputError, Lattice, Raster
from napari_mosaik.core.pet_records import BASE_UNITS, PetHeader, PetImage
from napari_mosaik.core.pet_volume import VolumeGrid, evenly_spaced
from napari_mosaik.io.pet.archive import is_zip
from napari_mosaik.io.pet.registry import PetFormat, files_in
from napari_mosaik.io.pet.sidecar import unit_named
from napari_mosaik.io.unread import unread_file

__all__ = [
    "FORMAT",
    "DicomSeries",
    "choose_series",
    "dicom_header",
    "in_dicom",
    "starts_as_dicom",
]

_MAX_PIXELS = 1 << 26
_MAX_FRAMES = 100_000
_SAME_SLICE_MM = 0.01
_SAME_DIRECTION = 0.01


class DicomSeries:
    """The images of one PET series, ordered by slice position."""

    def __init__(self, files: list[Path]) -> None:
        with in_dicom(files[0]):
            self._frames = _frames(files)
            positions = [frame.position_mm() for frame in self._frames]
            self._places = _grouped(self._frames, positions)
            self._geometry = _check_geometry(self._places)
            self._timing = _Timing(self._frames)
        others = len(files) - len({frame.path for frame in self._frames})
        self._taken = (
            f"The only PET series is used; {others} other files (CT, projections) are not."
            if others
            else ""
        )

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
        with in_dicom(chosen.path):
            meaning = _pixel_meaning(chosen)
            header = _read_header(self._timing, chosen, meaning)
            notes = (*header.notes, *self._geometry, *_losses(chosen))
            shown = " ".join(filter(None, (_shown(chosen), self._taken)))
            header = header.model_copy(update={"notes": notes, "geometry": shown})
            values = _values(chosen) * meaning.factor
            lattice = Lattice("pet", (values.shape[0], values.shape[1]), _spacing_um(chosen))
        return PetImage(Raster(values, lattice, meaning.unit), header)

    def grid(self) -> VolumeGrid:
        """Where the voxels lie in the patient; gaps and mixed frames of reference are refused."""
        firsts = [group[0] for group in self._places]
        name = firsts[0].path.name
        with in_dicom(firsts[0].path):
            axes = firsts[0].axes()
            if axes is None or any(frame.position_mm() is None for frame in firsts):
                raise InputError(f"{name} states no position of its slices in the patient")
            references = {frame.text("FrameOfReferenceUID") for frame in self._frames}
            if len(references) > 1:
                raise InputError(
                    f"the slices of the PET belong to {len(references)} frames of reference "
                    "(FrameOfReferenceUID); give only the files of one scan"
                )
            _check_complete(firsts, [self.n_frames(place) for place in range(len(firsts))])
            places = np.array([frame.find("ImagePositionPatient") for frame in firsts], float)
            across, down = axes[:3], axes[3:]
            step = evenly_spaced(places, np.cross(across, down), name)
            row_mm, column_mm = (size / 1000 for size in _spacing_um(firsts[0]))
            rows, columns = firsts[0].number("Rows") or 0, firsts[0].number("Columns") or 0
            return VolumeGrid(
                (len(firsts), int(rows), int(columns)),
                places[0],
                np.stack([step, down * row_mm, across * column_mm]),
                reference=next(iter(references)),
            )

    def patient_ids(self) -> tuple[str, ...]:
        """Identifier and name of the patient, as far as the files state them; all must agree."""
        found = {
            tuple(str(frame.dataset.get(key) or "").strip() for key in ("PatientID", "PatientName"))
            for frame in self._frames
        }
        if len(found) > 1:
            raise InputError("the PET files belong to different patients; give those of one")
        return tuple(text for text in next(iter(found)) if text)


def _check_complete(firsts: list[_Frame], n_frames: list[int]) -> None:
    """Raise `InputError` if slices are missing that the files count, or time frames of a slice."""
    stated = firsts[0].number("NumberOfSlices")
    if stated is not None and len(firsts) < stated:
        raise InputError(
            f"{firsts[0].path.name} states {stated:g} slices (NumberOfSlices), and {len(firsts)} "
            "are given: slices are missing"
        )
    if len(set(n_frames)) > 1:
        lacking = n_frames.index(min(n_frames)) + 1
        raise InputError(
            f"slice {lacking} of the PET has {min(n_frames)} time frames, others have "
            f"{max(n_frames)}: slices are missing"
        )


@contextmanager
def in_dicom(path: Path) -> Iterator[None]:
    """Silence pydicom's warnings; an item that it cannot read is a damaged header."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (InputError, OSError):
            raise
        except Exception as error:
            raise InputError(f"{path.name}: the DICOM header is damaged ({error})") from error


def starts_as_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do, with or without the preamble."""
    with path.open("rb") as handle:
        start = handle.read(132)
    if start[128:] == b"DICM":
        return True
    # Without a preamble: the first element is of group 2 or 8, with an explicit or implicit VR.
    group, vr, length = start[:2], start[4:6], int.from_bytes(start[4:8], "little")
    is_element = start[2:4] <= b"\x20\x00" and (re.fullmatch(rb"[A-Z]{2}", vr) or length < 128)
    return group in (b"\x02\x00", b"\x08\x00") and bool(is_element) and len(start) == 132


def _frames(files: list[Path]) -> list[_Frame]:
    """All images of the files, without their pixels; they must be one PET series."""
    datasets = _slices_of_pet({path: dicom_header(path) for path in files})
    for path, dataset in datasets.items():
        if _modality(dataset) != "PT":
            raise InputError(
                f"{path.name} is not PET: its modality is {_modality(dataset) or 'not stated'}, "
                "not PT"
            )
    frames: list[_Frame] = []
    series: dict[str, list[Any]] = {}
    for path, dataset in datasets.items():
        series.setdefault(str(dataset.get("SeriesInstanceUID", "")), []).append(dataset)
        groups = dataset.get("PerFrameFunctionalGroupsSequence")
        count = len(groups) if groups else int(dataset.get("NumberOfFrames") or 1)
        if not 0 < count <= _MAX_FRAMES:
            raise InputError(f"{path.name} states {count} frames, which is not plausible")
        several = bool(groups) or count > 1
        slices = int(dataset.get("NumberOfSlices") or count)
        if several and not groups and slices != count:
            raise InputError(
                f"{path.name} holds {count} frames of {slices} slices, and does not state which "
                "belong together; export one file per slice"
            )
        frames += [_Frame(path, dataset, i if several else None) for i in range(count)]
    if len(series) > 1:
        listed = "; ".join(_described(n, found) for n, found in enumerate(series.values(), 1))
        raise InputError(
            f"the PET files belong to {len(series)} series; choose one with series, 1 to "
            f"{len(series)}: {listed}"
        )
    return frames


def _slices_of_pet(datasets: dict[Path, Any]) -> dict[Path, Any]:
    """Of an export of PET and CT, or of slices and projections, the slices of PET."""
    pets = {path: data for path, data in datasets.items() if _modality(data) == "PT"}
    projections = [path for path, data in pets.items() if _is_projection(path, data)]
    if projections and len(projections) == len(pets):
        raise InputError(
            f"{projections[0].name} is a projection (MIP), it holds no slices; give the slices of "
            "the scan"
        )
    return {path: pets[path] for path in pets if path not in projections} or datasets


def _is_projection(path: Path, dataset: Any) -> bool:
    frame = _Frame(path, dataset, None)
    return bool({"REPROJECTION", "MIP"} & {*frame.texts("SeriesType"), *frame.texts("ImageType")})


def choose_series(files: Sequence[Path], number: int) -> list[Path]:
    """The files of one of the PET series of several files, counted from 1 in file order.

    Raises
    ------
    InputError
        If there is no such series; all are listed.
    """
    if archives := [path.name for path in files if is_zip(path)]:
        raise InputError(f"unpack {archives[0]} and give its folder to choose one of its series")
    series = listed_series(files)
    if not 1 <= number <= len(series):
        raise InputError(f"there is no PET series {number}; there are: {'; '.join(series)}")
    return list(series.values())[number - 1]


def listed_series(files: Sequence[Path]) -> dict[str, list[Path]]:
    """The files of each PET series of several DICOM files, by number and description."""
    inside = [inner for path in files for inner in files_in(path)]
    series: dict[str, list[tuple[Path, Any]]] = {}
    with in_dicom(Path(files[0])):
        for path in inside:
            if starts_as_dicom(path) and _modality(data := dicom_header(path)) == "PT":
                series.setdefault(str(data.get("SeriesInstanceUID", "")), []).append((path, data))
    return {
        _described(n, [data for _, data in found]): [path for path, _ in found]
        for n, found in enumerate(series.values(), 1)
    }


def _described(number: int, datasets: Sequence[Any]) -> str:
    """A series in a message: number, description, corrections, images."""
    first = datasets[0]
    applied = [str(word).upper() for word in _Frame(Path(), first, None).texts("CorrectedImage")]
    corrected = "AC" if "ATTN" in applied else "NAC" if applied else "corrections not stated"
    title = str(first.get("SeriesDescription") or "no description")[:40]
    return f"{number} = '{title}', {corrected}, {len(datasets)} images"


def _modality(dataset: Any) -> str:
    return str(dataset.get("Modality", "")).strip().upper()


def dicom_header(path: Path) -> Any:
    """The header of a file, without its pixels."""
    import pydicom

    if not starts_as_dicom(path):
        what = unread_file(path) or "not a DICOM file"
        raise InputError(f"{path.name} cannot be used as PET: it is {what}")
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except OSError:
        raise
    except Exception as error:
        raise InputError(f"{path.name}: the DICOM header is damaged ({error})") from error
    return dataset


def _check_geometry(places: list[list[_Frame]]) -> tuple[str, ...]:
    """Check that all slices have one pixel size and lie at equal distances.

    Raises `InputError` for different pixel sizes; gaps are sentences.
    """
    _check_same_planes(places)
    spacings = {tuple(round(size, 3) for size in _spacing_um(group[0])) for group in places}
    if len(spacings) > 1:
        raise InputError(
            "the slices of the PET have different pixel sizes: "
            + ", ".join(f"{rows / 1e3:g} x {columns / 1e3:g} mm" for rows, columns in spacings)
        )
    known = [group[0].position_mm() for group in places]
    steps = np.diff([position for position in known if position is not None])
    if len(steps) > 1 and steps.max() > 1.5 * np.median(steps):
        gap = int(np.argmax(steps))
        return (
            f"slices are missing between slice {gap} and {gap + 1}: they lie {steps.max():.4g} mm "
            f"apart, the others {np.median(steps):.4g} mm",
        )
    if len(places) > 1 and known[0] is None:
        return (
            "the files state no positions of their slices; they are in the order of the file, or "
            "of their instance numbers",
        )
    return ()


def _check_same_planes(places: list[list[_Frame]]) -> None:
    """Check that the slices are parallel, and that no two images lie at one place and time."""
    planes = [axes for group in places for one in group if (axes := one.axes()) is not None]
    if planes and max(np.abs(axes - planes[0]).max() for axes in planes) > _SAME_DIRECTION:
        raise InputError(
            "the slices of the PET lie in different directions (ImageOrientationPatient); give "
            "only the files of one stack"
        )
    for group in places:
        seen: dict[float, _Frame] = {}
        for one in group:
            other = seen.setdefault(one.moment_s(), one)
            if other is not one and other.identity() != one.identity():
                raise InputError(
                    f"{other.path.name} and {one.path.name} hold different images of the same "
                    "place and time (gates, or two reconstructions?); give only those of one"
                )


def _grouped(frames: list[_Frame], positions: list[float | None]) -> list[list[_Frame]]:
    """Images grouped by slice position, in order."""
    lacking = next((f for f, p in zip(frames, positions, strict=True) if p is None), None)
    if lacking is not None:
        if any(position is not None for position in positions):
            raise InputError(
                f"{lacking.path.name} states no position of its slice, the others do; give only "
                "the files of one stack"
            )
        numbers = [frame.number("InstanceNumber") for frame in frames]
        if len(set(numbers)) == len(frames) and None not in numbers:
            frames = sorted(frames, key=lambda frame: frame.number("InstanceNumber") or 0.0)
        return [[frame] for frame in frames]
    known = np.asarray(positions, float)
    groups: list[list[_Frame]] = []
    last = -np.inf
    for i in np.argsort(known, kind="stable"):
        if known[i] - last > _SAME_SLICE_MM:
            groups.append([])
            last = known[i]
        groups[-1].append(frames[i])
    return groups


def _values(frame: _Frame) -> NDArray[np.float64]:
    """Rescaled pixels of one image; padding is NaN."""
    stored = _stored(frame)
    slope, intercept = frame.number("RescaleSlope"), frame.number("RescaleIntercept")
    if slope is None or _is_mapped(frame):
        slope, intercept = (
            frame.number("RealWorldValueSlope"),
            frame.number("RealWorldValueIntercept"),
        )
    if slope is None or slope <= 0:
        stated = "" if slope is None else f" ({slope:g})"
        raise InputError(
            f"{frame.path.name} has no usable rescale slope{stated}; its values are unknown"
        )
    values = stored.astype(np.float64) * slope + (intercept or 0.0)
    padding = frame.number("PixelPaddingValue")
    if padding is not None:
        values[stored == padding] = np.nan
    return values


def _stored(frame: _Frame) -> NDArray[Any]:
    import pydicom
    from pydicom.pixels.utils import pixel_array

    rows, columns = frame.number("Rows") or 0, frame.number("Columns") or 0
    if not 0 < rows * columns <= _MAX_PIXELS:
        raise InputError(
            f"{frame.path.name}: an image of {rows:g} x {columns:g} pixels is not plausible"
        )
    try:
        dataset = pydicom.dcmread(frame.path, force=True)
        decode = _DECODERS.get(str(dataset.file_meta.get("TransferSyntaxUID", "")))
        if decode is not None:
            stored = _decoded(dataset, frame.index or 0, decode)
        elif frame.index is None:
            stored = np.asarray(dataset.pixel_array)
        else:
            stored = np.asarray(pixel_array(dataset, index=frame.index))
    except OSError as error:
        if error.errno is not None:
            raise
        raise _undecodable(frame, error) from error
    except Exception as error:
        raise _undecodable(frame, error) from error
    if stored.shape != (rows, columns):
        raise InputError(
            f"{frame.path.name} holds pixels of shape {stored.shape}, not one slice of "
            f"{rows:g} x {columns:g}"
        )
    return stored


def _losses(frame: _Frame) -> tuple[str, ...]:
    if frame.text("LossyImageCompression") != "01":
        return ()
    ratio = frame.text("LossyImageCompressionRatio")
    return (
        "the pixels were compressed with loss"
        + (f" (ratio {ratio})" if ratio else "")
        + "; single voxels may differ from those that were measured",
    )


def _shown(frame: _Frame) -> str:
    """How the slice lies, where that is not as usual: columns to the left, rows to the back."""
    axes = frame.axes()
    if axes is None or np.abs(axes - (1, 0, 0, 0, 1, 0)).max() <= _SAME_DIRECTION:
        return ""
    turn = ", ".join(f"{part:.3g}" for part in axes)
    return f"The slice is shown as stored; its columns and rows run along ({turn})."


def _undecodable(frame: _Frame, error: Exception) -> InputError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return InputError(
        f"{frame.path.name}: the pixels cannot be read; the file is cut off, damaged or "
        f"compressed in an unknown way ({reason})"
    )


_DECODERS = {
    "1.2.840.10008.1.2.4.57": "jpegsof3", "1.2.840.10008.1.2.4.70": "jpegsof3",
    "1.2.840.10008.1.2.4.80": "jpegls", "1.2.840.10008.1.2.4.81": "jpegls",
    "1.2.840.10008.1.2.4.90": "jpeg2k", "1.2.840.10008.1.2.4.91": "jpeg2k",
    "1.2.840.10008.1.2.4.201": "htj2k", "1.2.840.10008.1.2.4.202": "htj2k",
    "1.2.840.10008.1.2.4.203": "htj2k",
}  # fmt: skip
"""Compressions that imagecodecs decodes, by transfer syntax; pydicom decodes RLE and deflate."""


def _decoded(dataset: Any, index: int, codec: str) -> NDArray[Any]:
    """The stored values (rows, columns) of one compressed frame, with the sign of the header."""
    import imagecodecs
    from pydicom.encaps import get_frame

    count = int(dataset.get("NumberOfFrames") or 1)
    frame = get_frame(dataset.PixelData, index, number_of_frames=count)
    if not frame.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise ValueError("the end of the compressed image is missing")
    values = np.asarray(getattr(imagecodecs, f"{codec}_decode")(frame)).astype(np.int64)
    bits = int(dataset.BitsStored)
    if values.max() >> bits > 0 or values.min() < -(1 << (bits - 1)):
        raise ValueError(f"the compressed image holds values of more than {bits} bits")
    # The codecs of JPEG know no sign: the highest stored bit is the sign.
    unsigned, half = values & ((1 << bits) - 1), 1 << (bits - 1)
    return unsigned if int(dataset.PixelRepresentation) == 0 else (unsigned ^ half) - half


def _spacing_um(frame: _Frame) -> tuple[float, float]:
    spacing = frame.find("PixelSpacing")
    pair = [float(value) for value in spacing] if spacing is not None else []
    if len(pair) != 2 or min(pair) <= 0:
        raise InputError(f"{frame.path.name} states no pixel size")
    return pair[0] * 1000, pair[1] * 1000


# --- items of one image ---------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """One image of a file: ``index`` is its number in a multi-frame file, else None."""

    path: Path
    dataset: Any
    index: int | None

    def find(self, keyword: str) -> Any:
        """An item's value from the frame's own groups, the shared ones or the file; else None."""
        for scope in self._scopes():
            if keyword in scope and scope[keyword].value not in (None, ""):
                return scope[keyword].value
        return None

    def number(self, keyword: str) -> float | None:
        """An item as a finite number, None if there is none."""
        return _as_number(self.find(keyword))

    def text(self, keyword: str) -> str:
        """An item as upper-case text, empty if there is none."""
        value = self.find(keyword)
        return "" if value is None else str(value).strip().upper()

    def texts(self, keyword: str) -> tuple[str, ...]:
        """An item of one or several values as upper-case texts."""
        value = self.find(keyword)
        if value is None:
            return ()
        parts = [value] if isinstance(value, str) else value
        return tuple(str(part).strip().upper() for part in parts)

    def first(self, keyword: str) -> Any:
        """First item of a sequence, None if there is none."""
        sequence = self.find(keyword)
        return sequence[0] if sequence is not None and len(sequence) else None

    def private(self, group: int, creator: str, element: int) -> Any:
        """A private item of a manufacturer, by the name of its creator."""
        for scope in self._scopes():
            try:
                return scope.private_block(group, creator)[element].value
            except KeyError:
                continue
        return None

    def position_mm(self) -> float | None:
        """Position of the slice along its normal."""
        place, turn = self.find("ImagePositionPatient"), self.find("ImageOrientationPatient")
        if self.index is not None and "PerFrameFunctionalGroupsSequence" not in self.dataset:
            return None  # a classic multi-frame file states the position of its first frame only
        if place is None or turn is None or len(place) != 3 or len(turn) != 6:
            return None
        axes = np.asarray(turn, float)
        if np.abs([axes[:3] @ axes[:3] - 1, axes[3:] @ axes[3:] - 1, axes[:3] @ axes[3:]]).max() > (
            _SAME_DIRECTION
        ):
            raise InputError(
                f"{self.path.name} states an orientation of its slice that is not a rotation"
            )
        return float(np.cross(axes[:3], axes[3:]) @ np.asarray(place, float))

    def axes(self) -> FloatArray | None:
        """Directions (6,) of the rows and columns, without unit; None if they are not stated."""
        turn = self.find("ImageOrientationPatient")
        return np.asarray(turn, float) if turn is not None and len(turn) == 6 else None

    def identity(self) -> tuple[str, int | None]:
        """What copies of one image share."""
        return str(self.dataset.get("SOPInstanceUID", self.path)), self.index

    def moment_s(self) -> float:
        """A number that orders the time frames of a dynamic scan."""
        reference = self.number("FrameReferenceTime")
        if reference is not None:
            return reference / 1000
        when = _moment(self.find("FrameReferenceDateTime"), None, None)
        if when is not None:
            return (when.replace(tzinfo=None) - datetime(1900, 1, 1)).total_seconds()
        return self.number("TemporalPositionIndex") or 0.0

    def _scopes(self) -> Iterator[Any]:
        """Datasets that may contain an item of this frame, the most specific first."""
        if self.index is not None and "PerFrameFunctionalGroupsSequence" in self.dataset:
            groups = self.dataset.get("PerFrameFunctionalGroupsSequence") or []
            if self.index < len(groups):
                yield from _items(groups[self.index])
            for shared in self.dataset.get("SharedFunctionalGroupsSequence") or []:
                yield from _items(shared)
        yield self.dataset


def _items(group: Any) -> Iterator[Any]:
    for element in group:
        if element.VR == "SQ":
            yield from element.value


def _as_number(value: Any) -> float | None:
    """A finite number from a stored value (text, bytes of unknown type, list of one); else None."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace").strip(" \x00")
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _moment(date_or_both: Any, time: Any, zone: timezone | None) -> datetime | None:
    """A date with a time of day, or a DICOM date-time, with its own or the given zone.

    None if either is missing: a time of day without a date is not used.
    """
    day, clock = str(date_or_both or "").strip(), str(time or "").strip()
    if re.fullmatch(r"\d{4}\.\d\d\.\d\d", day):  # as before 1993
        day = day.replace(".", "")
    text = day + re.sub(r"(?<=\d):(?=\d\d)", "", clock)
    found = re.fullmatch(r"(\d{8})(\d{2})(\d{2})?(\d{2})?(?:\.(\d{1,9}))?([+-]\d{4})?", text)
    if found is None:
        return None
    day, hour, minute, second, fraction, offset = found.groups()
    try:
        when = datetime.strptime(day + hour + (minute or "00"), "%Y%m%d%H%M")
    except ValueError:
        return None
    part = float(f"0.{fraction}") if fraction else 0.0
    when += timedelta(seconds=int(second or 0) + part)
    own = _zone_of(offset)
    if own is not None and zone is not None:
        return when.replace(tzinfo=own).astimezone(zone)
    return when.replace(tzinfo=own or zone)


def _zone_of(offset: Any) -> timezone | None:
    """A zone from text such as ``-0500``; None if there is none."""
    found = re.fullmatch(r"([+-])(\d{2})(\d{2})", str(offset or "").strip())
    if found is None:
        return None
    minutes = int(found[2]) * 60 + int(found[3])
    return timezone(timedelta(minutes=-minutes if found[1] == "-" else minutes))


# --- the header -----------------------------------------------------------------------------------
_PHILIPS = "Philips PET Private Group"
_LONGEST_SERIES = timedelta(hours=8)
"""No series of PET images goes on for longer."""
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
    "RUBIDIUM": "Rb", "YTTRIUM": "Y", "SCANDIUM": "Sc", "TERBIUM": "Tb", "INDIUM": "In",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Meaning:
    """Unit of ``value * factor`` where value is the rescaled pixel."""

    unit: str
    factor: float = 1.0
    suv_kind: Literal["bw", "bsa", "lbm"] | None = None


def _pixel_meaning(frame: _Frame) -> _Meaning:
    """Unit and scale of the pixels, from Units, the SUV type and the private factors of Philips."""
    mapped = _is_mapped(frame)
    unit = _coded_unit(frame) if mapped else frame.text("Units") or frame.text("RescaleType")
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
    with suppress(InputError):  # spelled as other programs do: "kBq/mL", "Bq/cc"
        base, factor = BASE_UNITS.get(spelled := unit_named(unit), (spelled, 1.0))
        if base == "Bq/mL":
            return _Meaning(base, factor)
    raise InputError(
        f"{frame.path.name} holds PET values in {unit or 'an unstated unit'}; "
        "export it as Bq/mL (BQML) or as SUV (GML, CM2ML)"
    )


def _read_header(timing: _Timing, chosen: _Frame, meaning: _Meaning) -> PetHeader:
    """Header of the chosen slice; the scan start is derived from all slices.  No name is kept."""
    notes: list[str] = []
    unclear: dict[str, str] = {}
    zone = _zone_of(chosen.find("TimezoneOffsetFromUTC"))
    scanned = _scan_start(timing, chosen, zone, notes, unclear)
    drug = chosen.first("RadiopharmaceuticalInformationSequence")
    _check_one_injection(chosen, unclear)
    injected = None if "injected" in unclear else _injected(drug, zone, notes, unclear)
    if injected is not None and injected == scanned and timing.is_static:
        unclear["injected"] = f"the file states {injected} both as injection and as scan start"
        injected = None
    corrected_to = _moment(chosen.find("DecayCorrectionDateTime"), None, zone)
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
        half_life_s=_drug_number(drug, "RadionuclideHalfLife"),
        nuclide=_nuclide(drug),
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


def _is_mapped(frame: _Frame) -> bool:
    """Whether the unit is that of the real-world value mapping: then its slope counts, too."""
    return frame.text("RescaleType") in ("", "US") and not frame.text("Units")


def _coded_unit(frame: _Frame) -> str:
    """The unit of the real-world value mapping that enhanced files use."""
    mapping = frame.first("MeasurementUnitsCodeSequence")
    code = str(mapping.get("CodeValue", "")).upper().replace(" ", "") if mapping else ""
    return _CODED_UNITS.get(code, code)


def _philips_counts(frame: _Frame) -> _Meaning:
    suv = _as_number(frame.private(0x7053, _PHILIPS, 0x00)) or 0.0
    activity = _as_number(frame.private(0x7053, _PHILIPS, 0x09)) or 0.0
    if suv > 0:
        return _Meaning("g/mL", suv, "bw")
    if activity > 0:
        return _Meaning("Bq/mL", activity)
    raise InputError(
        f"{frame.path.name} holds PET values in counts (CNTS) without the factor of the "
        "manufacturer that converts them to activity; export it as Bq/mL"
    )


def _acquired(frame: _Frame, zone: timezone | None) -> datetime | None:
    return (
        _moment(frame.find("FrameAcquisitionDateTime"), None, zone)
        or _moment(frame.find("AcquisitionDate"), frame.find("AcquisitionTime"), zone)
        or _moment(frame.find("AcquisitionDateTime"), None, zone)
    )


class _Timing:
    """Times of all images of a series, read once and not again for each slice."""

    def __init__(self, frames: Sequence[_Frame]) -> None:
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
    timing: _Timing,
    chosen: _Frame,
    zone: timezone | None,
    notes: list[str],
    unclear: dict[str, str],
) -> datetime | None:
    """Series time, unless it is after the first acquisition; then GE's own item or the latter.

    A series that began hours before its first acquisition leaves the start unclear.
    """
    series = _moment(chosen.find("SeriesDate"), chosen.find("SeriesTime"), zone)
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
    private = _moment(chosen.private(0x0009, "GEMS_PETD_01", 0x0D), None, zone)
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
    when = _moment(drug.get("RadiopharmaceuticalStartDateTime"), None, zone)
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


def _check_one_injection(frame: _Frame, unclear: dict[str, str]) -> None:
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


def _species(frame: _Frame) -> str:
    """The species as text, by its code where that is all the file states."""
    code = frame.first("PatientSpeciesCodeSequence")
    return str(frame.find("PatientSpeciesDescription") or (code and code.get("CodeMeaning")) or "")


def _is_midnight(when: datetime) -> bool:
    """Whether a moment is midnight exactly, which stands for a date without a time of day."""
    return (when.hour, when.minute, when.second, when.microsecond) == (0, 0, 0, 0)


def _clock_of(drug: Any) -> time | None:
    """Time of day of the injection, where the file states no date."""
    when = _moment("20000101", drug and drug.get("RadiopharmaceuticalStartTime"), None)
    return None if when is None else when.time()


def _decay_correction(
    frame: _Frame,
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
    when = _moment(frame.find("DecayCorrectionDateTime"), None, zone)
    if when is not None and when == scanned:
        return "START"
    if when is not None and when == injected:
        return "ADMIN"
    notes.append("the file does not state the reference time of the decay correction")
    return None


def _flags(frame: _Frame) -> tuple[str, ...]:
    return tuple(name for keyword, name in _FLAGS.items() if frame.text(keyword) == "YES")


def _reference_s(frame: _Frame, zone: timezone | None, scanned: datetime | None) -> float | None:
    reference = frame.number("FrameReferenceTime")
    if reference is not None:
        return reference / 1000
    when = _moment(frame.find("FrameReferenceDateTime"), None, zone)
    if when is None or scanned is None:
        return None
    return (_clock(when) - _clock(scanned)).total_seconds()


def _drug_number(drug: Any, keyword: str) -> float | None:
    value = None if drug is None else _as_number(drug.get(keyword))
    return value if value and value > 0 else None


def _dose_bq(drug: Any, unclear: dict[str, str]) -> float | None:
    dose = _drug_number(drug, "RadionuclideTotalDose")
    if dose is not None and not 1e4 <= dose <= 1e12:
        unclear["dose_mbq"] = (
            f"the file states a dose of {dose:g} Bq, which is not plausible (MBq instead of Bq?)"
        )
        return None
    return dose


def _weight_kg(frame: _Frame, unclear: dict[str, str]) -> float | None:
    weight = frame.number("PatientWeight")
    if weight is not None and not 0 < weight <= 500:
        unclear["weight_kg"] = f"the file states {weight:g} kg, which is not plausible"
        return None
    return weight


def _height_cm(frame: _Frame, unclear: dict[str, str]) -> float | None:
    height = frame.number("PatientSize")
    if height is not None and not 0 < height <= 2.6:
        unclear["height_cm"] = f"the file states {height:g} m, which is not plausible (cm?)"
        return None
    return None if height is None else height * 100


def _sex(frame: _Frame) -> Literal["M", "F", "O"] | None:
    known: dict[str, Literal["M", "F", "O"]] = {"M": "M", "F": "F", "O": "O"}
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


FORMAT = PetFormat("DICOM", starts_as_dicom, lambda files, sidecar: DicomSeries(files), order=10)
