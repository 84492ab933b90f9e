"""One microPET slice with what its file says about the scan: DICOM, classic or enhanced."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import InputError, Lattice, Raster
from napari_mosaik.core.records import PetImage
from napari_mosaik.io.pet_frames import Frame
from napari_mosaik.io.pet_header import pixel_meaning, read_header

__all__ = ["open_pet"]

_MAX_PIXELS = 1 << 26
_SAME_SLICE_MM = 0.01


def open_pet(
    paths: Path | str | Sequence[Path | str],
    *,
    slice_index: int | None = None,
    frame_index: int | None = None,
) -> PetImage:
    """Read one slice of a PET scan.

    Parameters
    ----------
    paths
        A DICOM file, several of one series, or a folder of them.
    slice_index
        Which slice, counted from 0 along the slice normal; needed where there are several.
    frame_index
        Which time frame, counted from 0; needed where there are several.

    Returns
    -------
    PetImage
        Raster (rows, columns) in frame "pet", upper left corner at (0, 0) µm, in Bq/mL or, for
        files that hold SUV, in g/mL or cm²/mL; padding is NaN.  The header keeps nothing that
        identifies the patient.

    Raises
    ------
    InputError
        If the files are no PET, damaged, of several series, in a unit that cannot be used, or if
        a slice or time frame must be chosen.

    References
    ----------
    DICOM PS3.3, sections C.8.9 and C.8.22; QIBA vendor-neutral pseudo-code for SUV.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frames = _frames(_files(paths))
        chosen = _choose(frames, slice_index, frame_index)
        meaning = pixel_meaning(chosen)
        header = read_header(frames, chosen, meaning)
        values = _values(chosen) * meaning.factor
    lattice = Lattice("pet", (values.shape[0], values.shape[1]), _spacing_um(chosen))
    return PetImage(Raster(values, lattice, meaning.unit), header)


def _files(paths: Path | str | Sequence[Path | str]) -> list[Path]:
    given = [Path(paths)] if isinstance(paths, Path | str) else [Path(path) for path in paths]
    files: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.is_file() and p.name != "DICOMDIR")
            files += [p for p in inside if _starts_as_dicom(p)]
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"there is no PET file {path}")
    if not files:
        raise InputError(f"no DICOM file in {', '.join(map(str, given)) or 'an empty list'}")
    return files


def _starts_as_dicom(path: Path) -> bool:
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
        with path.open("rb") as handle:
            start = handle.read(348)
        nifti = start[:2] == b"\x1f\x8b" or start[344:347] in (b"n+1", b"ni1")
        reason = (
            "NIfTI states neither dose, time nor unit; give the DICOM files"
            if nifti
            else "it is not a DICOM file"
        )
        raise InputError(f"{path.name} cannot be used as PET: {reason}")
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


def _choose(frames: list[Frame], slice_index: int | None, frame_index: int | None) -> Frame:
    """The image with the asked slice and time frame."""
    slices = _grouped(frames, [frame.position_mm() for frame in frames])
    number = _asked("slice", slice_index, len(slices), frames[0].path)
    at_place = slices[number]
    times = sorted({frame.moment_s() for frame in at_place})
    number = _asked("frame", frame_index, len(times), frames[0].path)
    return next(frame for frame in at_place if frame.moment_s() == times[number])


def _grouped(frames: list[Frame], positions: list[float | None]) -> list[list[Frame]]:
    """Images of the same place together, in the order of the places."""
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


def _asked(what: str, index: int | None, count: int, path: Path) -> int:
    if index is None and count > 1:
        raise InputError(
            f"the PET ({path.name}) has {count} {what}s; choose one with {what}_index, "
            f"0 to {count - 1}"
        )
    index = index or 0
    if not 0 <= index < count:
        raise InputError(f"there is no PET {what} {index}; there are {count}, from 0")
    return index


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
        raise InputError(f"{frame.path.name}: an image of {rows:g} x {columns:g} cannot be right")
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
        raise InputError(f"{frame.path.name} does not say how large its pixels are")
    return pair[0] * 1000, pair[1] * 1000
