"""PET slices in DICOM files: one image a file, or enhanced files of several."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import InputError, Lattice, Raster
from napari_mosaik.core.pet_records import PetImage
from napari_mosaik.io.pet_frames import Frame
from napari_mosaik.io.pet_header import pixel_meaning, read_header

__all__ = ["DicomSeries", "starts_as_dicom"]

_MAX_PIXELS = 1 << 26
_SAME_SLICE_MM = 0.01


class DicomSeries:
    """The images of one PET series, in the order of their places."""

    def __init__(self, files: list[Path]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._frames = _frames(files)
            positions = [frame.position_mm() for frame in self._frames]
        self._places = _grouped(self._frames, positions)

    @property
    def n_slices(self) -> int:
        """Number of places."""
        return len(self._places)

    def n_frames(self, place: int) -> int:
        """Number of time frames at a place."""
        return len({frame.moment_s() for frame in self._places[place]})

    def image(self, place: int, number: int) -> PetImage:
        """One slice of one time frame with what the files say of it."""
        at_place = self._places[place]
        moment = sorted({frame.moment_s() for frame in at_place})[number]
        chosen = next(frame for frame in at_place if frame.moment_s() == moment)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            meaning = pixel_meaning(chosen)
            header = read_header(self._frames, chosen, meaning)
            values = _values(chosen) * meaning.factor
        lattice = Lattice("pet", (values.shape[0], values.shape[1]), _spacing_um(chosen))
        return PetImage(Raster(values, lattice, meaning.unit), header)


def starts_as_dicom(path: Path) -> bool:
    """Whether a file has DICOM's mark."""
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

    if not starts_as_dicom(path):
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
