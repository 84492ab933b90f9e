"""One PET slice with what its file says about the scan: DICOM, NIfTI or Inveon."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from napari_mosaik.core import InputError
from napari_mosaik.core.pet_records import PetImage, PetUnit
from napari_mosaik.core.raster import Raster

__all__ = ["companions", "open_pet", "open_pet_slices"]

Paths = Path | str | Sequence[Path | str]
_INVEON = (".img", ".hdr")


class _Series(Protocol):
    """The slices of a scan, at each of which there may be several time frames."""

    @property
    def n_slices(self) -> int: ...
    def n_frames(self, place: int) -> int: ...
    def image(self, place: int, number: int) -> PetImage: ...


def open_pet(
    paths: Paths,
    *,
    slice_index: int | None = None,
    frame_index: int | None = None,
    unit: PetUnit | None = None,
) -> PetImage:
    """Read one slice of a PET scan.

    Parameters
    ----------
    paths
        A DICOM file, several of one series, or a folder of them; a NIfTI file (``.nii``,
        ``.nii.gz``); an Inveon image (``.img`` with its ``.img.hdr``).  A sidecar (``.json``) is
        found beside a NIfTI file by its name, or can be given here.
    slice_index
        Which slice, counted from 0 along the slice normal; needed where there are several.
    frame_index
        Which time frame, counted from 0; needed where there are several.
    unit
        Unit of the values, for files that do not state it; one that is stated is kept, and a
        contradiction is an error.

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
    DICOM PS3.3, sections C.8.9 and C.8.22; QIBA vendor-neutral pseudo-code for SUV; NIfTI-1;
    PET-BIDS.
    """
    series, name = _series(paths)
    place = _asked("slice", slice_index, series.n_slices, name)
    number = _asked("frame", frame_index, series.n_frames(place), name)
    return _in_unit(series.image(place, number), unit, name)


def open_pet_slices(
    paths: Paths, *, frame_index: int | None = None, unit: PetUnit | None = None
) -> list[PetImage]:
    """All slices of a PET scan at one time, from the first place to the last; see `open_pet`."""
    series, name = _series(paths)
    images = []
    for place in range(series.n_slices):
        number = _asked("frame", frame_index, series.n_frames(place), name)
        images.append(_in_unit(series.image(place, number), unit, name))
    return images


def companions(paths: Sequence[Path]) -> list[Path]:
    """Files beside the given ones that are read with them: sidecar, Inveon header or image."""
    found = []
    for path in paths:
        if _is_nifti(path) and not any(p.suffix.lower() == ".json" for p in paths):
            found.append(path.with_name(path.name.split(".nii")[0] + ".json"))
        elif path.suffix.lower() == ".img":
            found.append(path.with_name(path.name + ".hdr"))
        elif path.suffix.lower() == ".hdr":
            found.append(path.with_name(path.name.removesuffix(".hdr")))
    return [path for path in found if path.is_file() and path not in paths]


def _series(paths: Paths) -> tuple[_Series, str]:
    from napari_mosaik.io.pet_dicom import DicomSeries

    given = [Path(paths)] if isinstance(paths, Path | str) else [Path(path) for path in paths]
    for path in given:
        if not path.exists():
            raise InputError(f"there is no PET file {path}")
    sidecars = [path for path in given if path.suffix.lower() == ".json"]
    files = _files([path for path in given if path not in sidecars])
    if not files:
        raise InputError(
            f"no DICOM, NIfTI or Inveon file in {', '.join(map(str, given)) or 'an empty list'}"
        )
    first = files[0]
    if _is_nifti(first):
        from napari_mosaik.io.pet_nifti import NiftiSeries

        return NiftiSeries(_single(files), sidecars[0] if sidecars else None), first.name
    if all(path.suffix.lower() in _INVEON for path in files):
        from napari_mosaik.io.pet_inveon import InveonSeries

        return InveonSeries(_inveon_header(files)), first.name
    return DicomSeries(files), first.name


def _files(given: list[Path]) -> list[Path]:
    from napari_mosaik.io.pet_dicom import starts_as_dicom

    files: list[Path] = []
    for path in given:
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.is_file() and p.name != "DICOMDIR")
        dicom = [p for p in inside if starts_as_dicom(p)]
        files += dicom or [p for p in inside if _is_nifti(p) or p.suffix.lower() == ".hdr"]
    return files


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def _single(files: list[Path]) -> Path:
    if len(files) > 1:
        raise InputError(f"give one NIfTI file, not {len(files)}: {files[0].name}, {files[1].name}")
    return files[0]


def _inveon_header(files: list[Path]) -> Path:
    """The text header of an Inveon image, which is given itself or stands beside the image."""
    headers = [path for path in files if path.suffix.lower() == ".hdr"]
    if not headers:
        beside = files[0].with_name(files[0].name + ".hdr")
        if not beside.is_file():
            raise InputError(
                f"{files[0].name} cannot be used as PET: its header {beside.name} is missing"
            )
        headers = [beside]
    return _single(headers)


def _asked(what: str, index: int | None, count: int, name: str) -> int:
    if index is None and count > 1:
        raise InputError(
            f"the PET ({name}) has {count} {what}s; choose one with {what}_index, 0 to {count - 1}"
        )
    index = index or 0
    if not 0 <= index < count:
        raise InputError(f"there is no PET {what} {index}; there are {count}, from 0")
    return index


def _in_unit(image: PetImage, unit: PetUnit | None, name: str) -> PetImage:
    stated = image.header.unit
    if unit is None or unit == stated:
        return image
    if stated is not None:
        raise InputError(f"{name} states its values in {stated}, not in {unit}; leave the unit out")
    header = image.header.model_copy(update={"unit": unit, "unit_given": True})
    raster = Raster(image.raster.values, image.raster.lattice, unit)
    return PetImage(raster, header)
