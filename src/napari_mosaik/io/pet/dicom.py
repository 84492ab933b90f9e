"""A PET series in DICOM files: which files, in which order, and the pixels of its slices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import InputError, Lattice, Raster
from napari_mosaik.core.pet_records import PetImage
from napari_mosaik.core.pet_volume import VolumeGrid, evenly_spaced
from napari_mosaik.core.text import counted
from napari_mosaik.io.pet.archive import is_zip
from napari_mosaik.io.pet.dicom_file import (
    DicomFrame,
    dicom_header,
    dicom_modality,
    in_dicom,
    starts_as_dicom,
)
from napari_mosaik.io.pet.dicom_pet_header import (
    SeriesTiming,
    is_mapped,
    pixel_meaning,
    read_pet_header,
)
from napari_mosaik.io.pet.registry import PetFormat, files_in

__all__ = ["FORMAT", "DicomSeries", "choose_series", "listed_series"]

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
            self._timing = SeriesTiming(self._frames)
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
            meaning = pixel_meaning(chosen)
            header = read_pet_header(self._timing, chosen, meaning)
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


def _check_complete(firsts: list[DicomFrame], n_frames: list[int]) -> None:
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


def _frames(files: list[Path]) -> list[DicomFrame]:
    """All images of the files, without their pixels; they must be one PET series."""
    datasets = _slices_of_pet({path: dicom_header(path) for path in files})
    for path, dataset in datasets.items():
        modality = dicom_modality(dataset)
        if modality != "PT":
            raise InputError(
                f"{path.name} is not PET: its modality is {modality or 'not stated'}, not PT"
            )
    frames: list[DicomFrame] = []
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
        frames += [DicomFrame(path, dataset, i if several else None) for i in range(count)]
    if len(series) > 1:
        listed = "; ".join(_described(n, found) for n, found in enumerate(series.values(), 1))
        raise InputError(
            f"the PET files belong to {len(series)} series; choose one with series, 1 to "
            f"{len(series)}: {listed}"
        )
    return frames


def _slices_of_pet(datasets: dict[Path, Any]) -> dict[Path, Any]:
    """Of an export of PET and CT, or of slices and projections, the slices of PET."""
    pets = {path: data for path, data in datasets.items() if dicom_modality(data) == "PT"}
    projections = [path for path, data in pets.items() if _is_projection(path, data)]
    if projections and len(projections) == len(pets):
        raise InputError(
            f"{projections[0].name} is a projection (MIP), it holds no slices; give the slices of "
            "the scan"
        )
    return {path: pets[path] for path in pets if path not in projections} or datasets


def _is_projection(path: Path, dataset: Any) -> bool:
    frame = DicomFrame(path, dataset, None)
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
            if starts_as_dicom(path) and dicom_modality(data := dicom_header(path)) == "PT":
                series.setdefault(str(data.get("SeriesInstanceUID", "")), []).append((path, data))
    return {
        _described(n, [data for _, data in found]): [path for path, _ in found]
        for n, found in enumerate(series.values(), 1)
    }


def _described(number: int, datasets: Sequence[Any]) -> str:
    """A series in a message: number, description, corrections, images."""
    first = datasets[0]
    applied = [
        str(word).upper() for word in DicomFrame(Path(), first, None).texts("CorrectedImage")
    ]
    corrected = "AC" if "ATTN" in applied else "NAC" if applied else "corrections not stated"
    title = str(first.get("SeriesDescription") or "no description")[:40]
    return f"{number} = '{title}', {corrected}, {counted(len(datasets), 'image')}"


def _check_geometry(places: list[list[DicomFrame]]) -> tuple[str, ...]:
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


def _check_same_planes(places: list[list[DicomFrame]]) -> None:
    """Check that the slices are parallel, and that no two images lie at one place and time."""
    planes = [axes for group in places for one in group if (axes := one.axes()) is not None]
    if planes and max(np.abs(axes - planes[0]).max() for axes in planes) > _SAME_DIRECTION:
        raise InputError(
            "the slices of the PET lie in different directions (ImageOrientationPatient); give "
            "only the files of one stack"
        )
    for group in places:
        seen: dict[float, DicomFrame] = {}
        for one in group:
            other = seen.setdefault(one.moment_s(), one)
            if other is not one and other.identity() == one.identity():
                _check_copy(other, one)
            elif other is not one:
                raise InputError(
                    f"{other.path.name} and {one.path.name} hold different images of the same "
                    "place and time (gates, or two reconstructions?); give only those of one"
                )


def _check_copy(one: DicomFrame, other: DicomFrame) -> None:
    """Refuse two images of one identifier that differ, as a folder in the cloud keeps them."""
    same = one.path.read_bytes() == other.path.read_bytes() or (
        one.dataset == other.dataset and np.array_equal(_stored(one), _stored(other))
    )
    if not same:
        raise InputError(
            f"{one.path.name} and {other.path.name} are one image by their identifier "
            "(SOPInstanceUID) and differ; remove the one that is wrong"
        )


def _grouped(frames: list[DicomFrame], positions: list[float | None]) -> list[list[DicomFrame]]:
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
    groups: list[list[DicomFrame]] = []
    last = -np.inf
    for i in np.argsort(known, kind="stable"):
        if known[i] - last > _SAME_SLICE_MM:
            groups.append([])
            last = known[i]
        groups[-1].append(frames[i])
    return groups


def _values(frame: DicomFrame) -> NDArray[np.float64]:
    """Rescaled pixels of one image; padding is NaN."""
    stored = _stored(frame)
    slope, intercept = frame.number("RescaleSlope"), frame.number("RescaleIntercept")
    if slope is None or is_mapped(frame):
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


def _stored(frame: DicomFrame) -> NDArray[Any]:
    import pydicom
    from pydicom.pixels.utils import pixel_array

    rows, columns = frame.number("Rows") or 0, frame.number("Columns") or 0
    if not 0 < rows * columns <= _MAX_PIXELS:
        raise InputError(
            f"{frame.path.name}: an image of {rows:g} x {columns:g} pixels is not plausible"
        )
    _check_bits(frame)
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


def _check_bits(frame: DicomFrame) -> None:
    """Refuse values that do not begin at the lowest bit, as before DICOM 2004."""
    high, bits = frame.number("HighBit"), frame.number("BitsStored")
    if high is not None and bits is not None and high >= bits:
        raise InputError(
            f"{frame.path.name} states {high:g} as the highest of {bits:g} stored bits, counted "
            "from 0: where the values begin is not known; export it again"
        )


def _losses(frame: DicomFrame) -> tuple[str, ...]:
    if frame.text("LossyImageCompression") != "01":
        return ()
    ratio = frame.text("LossyImageCompressionRatio")
    return (
        "the pixels were compressed with loss"
        + (f" (ratio {ratio})" if ratio else "")
        + "; single voxels may differ from those that were measured",
    )


def _shown(frame: DicomFrame) -> str:
    """How the slice lies, where that is not as usual: columns to the left, rows to the back."""
    axes = frame.axes()
    if axes is None or np.abs(axes - (1, 0, 0, 0, 1, 0)).max() <= _SAME_DIRECTION:
        return ""
    turn = ", ".join(f"{part:.3g}" for part in axes)
    return f"The slice is shown as stored; its columns and rows run along ({turn})."


def _undecodable(frame: DicomFrame, error: Exception) -> InputError:
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


def _spacing_um(frame: DicomFrame) -> tuple[float, float]:
    spacing = frame.find("PixelSpacing")
    pair = [float(value) for value in spacing] if spacing is not None else []
    if len(pair) != 2 or min(pair) <= 0:
        raise InputError(f"{frame.path.name} states no pixel size")
    return pair[0] * 1000, pair[1] * 1000


FORMAT = PetFormat("DICOM", starts_as_dicom, lambda files, sidecar: DicomSeries(files), order=10)
