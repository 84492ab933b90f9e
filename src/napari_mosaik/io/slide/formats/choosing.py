"""Which reader takes a file or folder, by its content, and why."""

from __future__ import annotations

from pathlib import Path

from napari_mosaik.core import InputError
from napari_mosaik.io.slide.formats.tiff_checks import check_directories
from napari_mosaik.io.slide.types.base import TileSource

__all__ = ["chosen_source"]

_TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_PICTURE_MAGIC = (b"\x89PNG", b"\xff\xd8\xff")
_DIRECT = (None, "aperio", "generic-tiff")
_ZARR_METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
"""Files that make a folder a Zarr group or array."""
_MOST_FILES = 2000


def chosen_source(path: Path, *, whole: bool = True) -> TileSource:
    """Open a slide with the reader that its content calls for; ``properties["why"]`` says why.

    A TIFF file that is cut off is refused where it must be *whole*; else its lost tiles fail one by
    one.

    Raises `InputError` that says what the file is where it is no slide.
    """
    if path.name in _ZARR_METADATA and path.is_file():
        path = path.parent  # a file dialog offers files, so one of the folder stands for it
    source, why = _from_folder(path) if path.is_dir() else _from_file(path, whole=whole)
    _check_levels(source)
    source.properties["why"] = why
    source.properties.setdefault("padding", "black and empty tiles are read as white")
    return source


def _from_file(path: Path, *, whole: bool) -> tuple[TileSource, str]:
    from napari_mosaik.io.slide.formats.openslide_source import OpenSlideSource, detected_vendor
    from napari_mosaik.io.slide.formats.picture import PictureSource
    from napari_mosaik.io.slide.formats.tiff import TiffSource, uses_ycbc_jpeg2000

    start = _first_bytes(path)
    vendor = detected_vendor(path)
    if vendor not in _DIRECT:
        most = None
        if start[:4] in _TIFF_MAGIC:
            most = check_directories(path, hamamatsu=vendor == "hamamatsu")
        foreign = OpenSlideSource(path)
        if vendor == "ventana" and most is not None:
            _check_within(foreign, most)
        return foreign, f"OpenSlide knows it as '{vendor}'"
    if not start:
        raise InputError(f"{path.name} is empty (0 bytes)")
    if start[:4] in _TIFF_MAGIC:
        if vendor == "aperio" and uses_ycbc_jpeg2000(path):
            why = "Aperio with JPEG 2000 in YCbCr, which OpenSlide decodes rightly"
            return OpenSlideSource(path), why
        source = TiffSource(path, whole=whole)
        known = source.properties["vendor"]
        kind = "a TIFF of no scanner's own layout" if known == "TIFF" else f"an {known} file"
        return source, f"it is {kind}; its tiles are decoded directly"
    if start.startswith(_PICTURE_MAGIC):
        return PictureSource(path), "it is a PNG or JPEG picture without a pyramid"
    raise InputError(f"{path.name} is not a slide: {_what_it_is(path, start)}")


def _check_levels(source: TileSource) -> None:
    """No level is empty, or larger than the first."""
    native = source.levels[0].shape
    for level in source.levels:
        fits = level.shape[0] <= native[0] and level.shape[1] <= native[1]
        if min(*level.shape, *level.tile) < 1 or not fits:
            source.close()
            raise InputError(
                f"{source.path.name}: the header states a level of {level.shape[0]} x "
                f"{level.shape[1]} pixels in a slide of {native[0]} x {native[1]}; it is damaged"
            )


def _check_within(source: TileSource, most: tuple[int, int]) -> None:
    """The slide is put together from pictures that can hold it.

    OpenSlide ends the whole program at a tile that its picture does not have.
    """
    shape = source.levels[0].shape
    if shape[0] > most[0] or shape[1] > most[1]:
        source.close()
        raise InputError(
            f"{source.path.name}: the header states a slide of {shape[0]} x {shape[1]} pixels but "
            f"holds a picture of {most[0]} x {most[1]}; it is damaged"
        )


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            start = handle.read(132)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}") from error
    return start


def _what_it_is(path: Path, start: bytes) -> str:
    """What a file that is no slide seems to be, and what to do."""
    if start[128:132] == b"DICM":
        return (
            f"it is a DICOM file{_modality(path)}, but no whole-slide image (a PET file is given "
            "as PET)"
        )
    if start[:2] == b"PK":
        return "it is a ZIP archive; unpack it and give the slide inside"
    if start[:2] == b"\x1f\x8b":
        return "it is a gzip-compressed file (a NIfTI image is no slide)"
    return (
        "it is neither TIFF (SVS, OME-TIFF), nor a format that OpenSlide reads, nor OME-Zarr, nor "
        "PNG or JPEG"
    )


def _modality(path: Path) -> str:
    """Modality of a DICOM file in brackets; nothing else of its header is looked at."""
    import pydicom

    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Modality"])
    except Exception:  # noqa: BLE001 - a damaged header only makes the message shorter
        return ""
    return f" ({header.Modality})" if header.get("Modality") else ""


def _from_folder(path: Path) -> tuple[TileSource, str]:
    from napari_mosaik.io.slide.formats.openslide_source import OpenSlideSource
    from napari_mosaik.io.slide.formats.zarr_source import ZarrSource

    if any((path / name).is_file() for name in _ZARR_METADATA):
        return ZarrSource(path), "the folder is an OME-Zarr image"
    beside = path.with_name(f"{path.name}.mrxs")
    if beside.is_file():
        raise InputError(f"{path.name} holds the pixels of a MIRAX slide; give {beside.name}")
    found = _dicom_slide(path)
    if found is not None:
        why = "the folder holds the files of one DICOM slide, which OpenSlide reads"
        return OpenSlideSource(found, path), why
    raise InputError(
        f"{path} is a folder, and neither an OME-Zarr image nor one DICOM slide; give the slide "
        "file itself"
    )


def _dicom_slide(folder: Path) -> Path | None:
    """A file of the only DICOM slide of a folder; None if it holds none."""
    import pydicom

    from napari_mosaik.io.slide.formats.openslide_source import detected_vendor

    series: dict[str, Path] = {}
    try:
        files = [p for p in sorted(folder.iterdir())[:_MOST_FILES] if p.is_file()]
    except OSError as error:
        raise InputError(f"{folder} cannot be opened: {error.strerror}") from error
    for file in files:
        if not _is_dicom(file) or detected_vendor(file) != "dicom":
            continue
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        series.setdefault(str(header.get("SeriesInstanceUID", "")), file)
    if len(series) > 1:
        names = ", ".join(sorted(file.name for file in series.values())[:4])
        raise InputError(
            f"{folder.name} holds {len(series)} DICOM slides; give one file of the one that is "
            f"meant ({names})"
        )
    return next(iter(series.values()), None)


def _is_dicom(file: Path) -> bool:
    with file.open("rb") as handle:
        return handle.read(132)[128:] == b"DICM"
