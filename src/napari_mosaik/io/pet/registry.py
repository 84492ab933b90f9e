"""The PET formats: which there are, which of them the given files have, and opening a slice.

Every module of this folder that defines ``FORMAT`` is a format; nothing else names it.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Protocol

from napari_mosaik.core import InputError, Progress
from napari_mosaik.core.pet_records import BASE_UNITS, PetImage, PetUnit
from napari_mosaik.core.pet_volume import PetVolume, VolumeGrid, one_unit
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.core.raster import Raster
from napari_mosaik.io.pet.archive import unpacked
from napari_mosaik.io.unread import path_slip, unread_file

__all__ = [
    "PetFormat",
    "PetSeries",
    "companions",
    "files_in",
    "iter_pet_volume",
    "open_pet",
    "open_pet_slices",
    "open_pet_volume",
    "pet_formats",
    "sibling",
    "single_file",
]

_PLAUSIBLE_MM = (0.05, 50.0)
PetPaths = Path | str | Sequence[Path | str]


class PetSeries(Protocol):
    """The slices of a scan, at each of which there may be several time frames."""

    @property
    def n_slices(self) -> int:
        """Number of slices."""

    def n_frames(self, place: int) -> int:
        """Number of time frames of a slice."""

    def image(self, place: int, number: int) -> PetImage:
        """One slice of one time frame."""

    def grid(self) -> VolumeGrid:
        """Where the voxels of the slices, in their order, lie in the patient."""

    def patient_ids(self) -> tuple[str, ...]:
        """Identifier and name of the patient, for comparison in memory; none if not stated."""


@dataclass(frozen=True, slots=True)
class PetFormat:
    """One format of PET images.

    Parameters
    ----------
    title
        The format in an error message: "it is neither TITLE, nor ...".
    holds
        Whether a file is of this format, by its content or name.
    open
        Opens files of this format; the second argument is a sidecar (``.json``) that was given
        with them, or None.
    lists
        Whether a file of this format in a folder stands for an image; by default as *holds*.
    companions
        Files that are read with a file of this format; they need not exist.
    order
        Formats with a lower number are asked first.
    """

    title: str
    holds: Callable[[Path], bool]
    open: Callable[[list[Path], Path | None], PetSeries]
    lists: Callable[[Path], bool] | None = None
    companions: Callable[[Path], list[Path]] = lambda path: []
    order: int = 100


def pet_formats() -> tuple[PetFormat, ...]:
    """All formats in the order in which they are asked."""
    from napari_mosaik.io import pet

    return _formats_in(tuple(pet.__path__))


@cache
def _formats_in(folders: tuple[str, ...]) -> tuple[PetFormat, ...]:
    package = __name__.rpartition(".")[0]
    names = sorted(module.name for module in pkgutil.iter_modules(folders))
    modules = (import_module(f"{package}.{name}") for name in names)
    formats = [module.FORMAT for module in modules if hasattr(module, "FORMAT")]
    return tuple(sorted(formats, key=lambda one: one.order))


def open_pet(
    paths: PetPaths,
    *,
    slice_index: int | None = None,
    frame_index: int | None = None,
    unit: PetUnit | None = None,
) -> PetImage:
    """Read one slice of a PET scan, shape (rows, columns).

    Parameters
    ----------
    paths
        A DICOM file, several of one series, or a folder of them; a NIfTI file (``.nii``,
        ``.nii.gz``); an Inveon image (``.img`` with its ``.img.hdr``); a ZIP archive of such files.
        A sidecar (``.json``) is found beside a NIfTI file by its name, or can be given here.
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
    with _series(paths) as (series, name):
        place = _asked("slice", slice_index, series.n_slices, name)
        number = _asked("frame", frame_index, series.n_frames(place), name)
        return _in_unit(series.image(place, number), unit, name)


def open_pet_slices(
    paths: PetPaths, *, frame_index: int | None = None, unit: PetUnit | None = None
) -> list[PetImage]:
    """All slices of a PET scan in one time frame, in order; see `open_pet`."""
    with _series(paths) as (series, name):
        images = []
        for place in range(series.n_slices):
            number = _asked("frame", frame_index, series.n_frames(place), name)
            images.append(_in_unit(series.image(place, number), unit, name))
        return images


def open_pet_volume(
    paths: PetPaths, *, frame_index: int | None = None, unit: PetUnit | None = None
) -> PetVolume:
    """A whole PET scan in one time frame, with the place of its voxels; see `open_pet`.

    Raises
    ------
    InputError
        If slices are missing, have different units or belong to different frames of reference or
        patients, or if a time frame must be chosen.
    """
    return run_to_end(iter_pet_volume(paths, frame_index=frame_index, unit=unit))


def iter_pet_volume(
    paths: PetPaths, *, frame_index: int | None = None, unit: PetUnit | None = None
) -> Generator[Progress, None, PetVolume]:
    """Like `open_pet_volume`; yields progress after each slice."""
    with _series(paths) as (series, name):
        grid = series.grid()
        images = []
        for place in range(series.n_slices):
            number = _asked("frame", frame_index, series.n_frames(place), name)
            images.append(_in_unit(series.image(place, number), unit, name))
            yield Progress(place + 1, series.n_slices, "slices of the series")
        one_unit(tuple(images), name)
        return PetVolume(tuple(images), grid, series.patient_ids())


def count_time_frames(paths: PetPaths) -> int:
    """Number of time frames of a PET scan; errors as `open_pet`."""
    with _series(paths) as (series, _):
        return series.n_frames(0)


def companions(paths: Sequence[Path]) -> list[Path]:
    """Files beside the given ones that are read with them: sidecar, Inveon header or image."""
    has_sidecar = any(_is_sidecar(path) for path in paths)
    beside = [
        companion
        for path in paths
        if path.is_file()
        for one in pet_formats()
        if one.holds(path)
        for companion in one.companions(path)
        if not (has_sidecar and _is_sidecar(companion))
    ]
    return [path for path in beside if path.is_file() and path not in paths]


def single_file(files: list[Path], title: str) -> Path:
    """The only one of the given files; several raise `InputError`."""
    if len(files) > 1:
        raise InputError(
            f"give one {title} file, not {len(files)}: {files[0].name}, {files[1].name}"
        )
    return files[0]


def sibling(path: Path, name: str) -> Path:
    """A file beside another one, also if its name differs in upper and lower case."""
    if path.with_name(name).is_file() or not path.parent.is_dir():
        return path.with_name(name)
    others = (p for p in path.parent.iterdir() if p.name.lower() == name.lower())
    return next(others, path.with_name(name))


def _is_sidecar(path: Path) -> bool:
    return path.suffix.lower() == ".json"


@contextmanager
def _series(paths: PetPaths) -> Iterator[tuple[PetSeries, str]]:
    """The scan in the given files, and its name; ZIP archives are unpacked meanwhile."""
    given = [Path(paths)] if isinstance(paths, Path | str) else [Path(path) for path in paths]
    for path in given:
        if not path.exists():
            raise InputError(f"there is no PET file {path}{path_slip(path)}")
    with unpacked(given) as files:
        yield _series_in(files)


def _series_in(given: list[Path]) -> tuple[PetSeries, str]:
    sidecars = [path for path in given if _is_sidecar(path)]
    files = [file for path in given if path not in sidecars for file in files_in(path)]
    titles = [one.title for one in pet_formats()]
    if not files:
        known = next((text for path in given if (text := unread_file(path))), "")
        raise InputError(
            f"no {', '.join(titles[:-1])} or {titles[-1]} file in "
            f"{', '.join(map(str, given)) or 'an empty list'}" + (f"; it is {known}" * bool(known))
        )
    first = files[0]
    for one in pet_formats():
        if one.holds(first):
            return one.open(files, sidecars[0] if sidecars else None), first.name
    what = unread_file(first)
    raise InputError(
        f"{first.name} cannot be used as PET: it is "
        + (what or f"neither {', nor '.join(titles)}; save it as NIfTI or DICOM")
    )


def files_in(path: Path) -> list[Path]:
    """The file itself; of a folder, with those in it, the files of the first format it holds."""
    if path.name == "DICOMDIR":
        path = path.parent
    if not path.is_dir():
        return [path]
    inside = sorted(
        p for p in path.rglob("*") if p.is_file() and p.name != "DICOMDIR" and p.name[0] != "."
    )
    for file in inside:
        if file.suffix.lower() in (".dcm", ".ima") and not file.stat().st_size:
            raise InputError(f"{file.name} is empty (0 bytes): copy the series again, or remove it")
    for one in pet_formats():
        files = [file for file in inside if (one.lists or one.holds)(file)]
        if files:
            return files
    return []


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
    low, high = _PLAUSIBLE_MM
    sizes = [size / 1e3 for size in image.raster.lattice.spacing_um]
    if not all(low <= size <= high for size in sizes):
        raise InputError(
            f"{name} states voxels of {sizes[0]:.4g} x {sizes[1]:.4g} mm, which are not plausible "
            f"for a PET ({low:g} to {high:g} mm); correct the file's unit of length"
        )
    stated = image.header.unit
    if unit is None or unit == stated:
        return image
    if stated is not None:
        raise InputError(f"{name} states its values in {stated}, not in {unit}; omit the unit")
    base, factor = BASE_UNITS.get(unit, (unit, 1.0))
    header = image.header.model_copy(update={"unit": base, "unit_given": True})
    return PetImage(Raster(image.raster.values * factor, image.raster.lattice, base), header)
