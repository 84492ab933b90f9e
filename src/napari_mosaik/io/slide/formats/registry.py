"""The slide formats: which there are, which of them a file or folder has, and their suffixes.

Every module of this folder that defines ``FORMAT`` is a format; nothing else names it.  Formats are
asked in turn, by ``order``, whether the content is theirs.  The suffix never decides.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path

from napari_mosaik.core import InputError
from napari_mosaik.io.slide.types.tiles import TileSource
from napari_mosaik.io.unread import path_slip, unread_file

__all__ = [
    "OpenedFormat",
    "SlideCandidate",
    "SlideFormat",
    "dialog_filter",
    "open_source",
    "reader_patterns",
    "slide_formats",
    "slide_only_suffixes",
]

_PIXELS_ELSEWHERE = (".vsi", ".ets")
"""Suffixes of files that look like a TIFF picture, but hold no more than an overview."""
OpenedFormat = tuple[TileSource, str]
"""An opened slide, and the reason why the format took it."""


class SlideCandidate:
    """A file or folder that is to be opened as a slide.

    Parameters
    ----------
    path
        The file or folder.
    whole
        Refuse a file that is cut off; else its lost tiles fail one by one.
    page
        Which page of a TIFF file is the slide, counted from 1; None for its only picture.
    """

    def __init__(self, path: Path, *, whole: bool = True, page: int | None = None) -> None:
        self.path, self.whole, self.page = path, whole, page
        self.is_folder = path.is_dir()

    @cached_property
    def start(self) -> bytes:
        """The first 132 bytes of the file; none of a folder."""
        if self.is_folder:
            return b""
        try:
            with self.path.open("rb") as handle:
                return handle.read(132)
        except FileNotFoundError:
            raise InputError(f"there is no file {self.path}{path_slip(self.path)}") from None
        except OSError as error:
            raise InputError(f"{self.path} cannot be opened: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class SlideFormat:
    """One format of slides.

    Parameters
    ----------
    title
        The format in an error message: "it is neither TITLE, nor ...".
    open
        Opens a candidate whose content is of this format; None for any other.
    suffixes
        Suffixes of its files and folders, with the dot, for file dialogs and napari.
    slides_only
        Those suffixes that only slides have: an error in such a file is reported, and the file is
        not left to other readers of napari.
    inner_files
        Names of files in a folder of this format; a file dialog offers one for the folder.
    napari_reads
        Whether napari opens these files itself, so that it should not ask which reader to use.
    order
        Formats with a lower number are asked first.
    """

    title: str
    open: Callable[[SlideCandidate], OpenedFormat | None]
    suffixes: tuple[str, ...]
    slides_only: tuple[str, ...] = ()
    inner_files: tuple[str, ...] = ()
    napari_reads: bool = False
    order: int = 100


def slide_formats() -> tuple[SlideFormat, ...]:
    """All formats in the order in which they are asked."""
    from napari_mosaik.io.slide import formats

    return _formats_in(tuple(formats.__path__))


@cache
def _formats_in(folders: tuple[str, ...]) -> tuple[SlideFormat, ...]:
    package = __name__.rpartition(".")[0]
    names = sorted(module.name for module in pkgutil.iter_modules(folders))
    modules = (import_module(f"{package}.{name}") for name in names)
    formats = [module.FORMAT for module in modules if hasattr(module, "FORMAT")]
    return tuple(sorted(formats, key=lambda one: one.order))


def slide_only_suffixes() -> tuple[str, ...]:
    """Suffixes that only slides have."""
    return tuple(suffix for one in slide_formats() for suffix in one.slides_only)


def reader_patterns() -> list[str]:
    """File name patterns for the manifest of the napari plugin."""
    chosen = (one for one in slide_formats() if not one.napari_reads)
    return [f"*{suffix}" for one in chosen for suffix in one.suffixes]


def dialog_filter() -> str:
    """Filter of a file dialog for slides (Qt's form)."""
    names = [f"*{suffix}" for one in slide_formats() for suffix in one.suffixes]
    names += [name for one in slide_formats() for name in one.inner_files]
    return f"Slides ({' '.join(names)});;All files (*)"


def open_source(path: Path, *, whole: bool = True, page: int | None = None) -> TileSource:
    """Open a slide by the format that its content has; ``properties["why"]`` says why that one.

    Raises `InputError` that says what the file is where it is not a slide.
    """
    if path.is_file() and any(path.name in one.inner_files for one in slide_formats()):
        path = path.parent  # a file dialog offers files, so one of the folder stands for it
    source, why = _opened(SlideCandidate(path, whole=whole, page=page))
    if page is not None and source.reader != "tiff":
        source.close()
        raise InputError(f"{path.name} has no pages: only a TIFF file has; omit the page")
    _check_levels(source)
    source.properties["why"] = why
    source.properties.setdefault("padding", "black and empty tiles are read as white")
    return source


def _opened(candidate: SlideCandidate) -> OpenedFormat:
    start, name = candidate.start, candidate.path.name
    if candidate.path.suffix.lower() in _PIXELS_ELSEWHERE and start:
        raise InputError(
            f"{name} is not a slide: it is {unread_file(candidate.path, by_name=True)}"
        )
    for one in slide_formats():
        opened = one.open(candidate)
        if opened is not None:
            return opened
    if candidate.is_folder:
        raise InputError(
            f"{candidate.path} is a folder, and neither an OME-Zarr image nor one DICOM slide; "
            "give the slide file itself"
        )
    if not start:
        raise InputError(f"{name} is empty (0 bytes)")
    raise InputError(f"{name} is not a slide: {_what_it_is(candidate)}")


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


def _what_it_is(candidate: SlideCandidate) -> str:
    """What a file that is not a slide seems to be, and what to do."""
    start = candidate.start
    if start[128:132] == b"DICM":
        return (
            f"it is a DICOM file{_modality(candidate.path)}, but no whole-slide image (a PET file "
            "is given as PET)"
        )
    known = unread_file(candidate.path)
    if known:
        return f"it is {known}"
    if start[:2] == b"\x1f\x8b":
        return "it is a gzip-compressed file (a NIfTI image is not a slide)"
    return f"it is neither {', nor '.join(one.title for one in slide_formats())}"


def _modality(path: Path) -> str:
    """Modality of a DICOM file in brackets; nothing else of its header is looked at."""
    import pydicom

    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Modality"])
    except Exception:  # noqa: BLE001 - a damaged header only makes the message shorter
        return ""
    return f" ({header.Modality})" if header.get("Modality") else ""
