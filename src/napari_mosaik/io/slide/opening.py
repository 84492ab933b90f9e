"""Open any slide: the file's content decides which reader takes it, never its suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_mosaik.core import InputError
from napari_mosaik.io.slide.base import (
    Slide,
    TileSource,
    check_header_spacing,
    check_user_spacing,
)
from napari_mosaik.io.slide.damage import DamagePolicy, check_policy
from napari_mosaik.io.slide.image import SlideImage

__all__ = ["open_slide"]

_TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_PICTURE_MAGIC = (b"\x89PNG", b"\xff\xd8\xff")
_DIRECT = (None, "aperio", "generic-tiff")


def open_slide(
    path: Path | str,
    spacing_um: float | Sequence[float] | None = None,
    *,
    frame: str = "slide",
    damaged: DamagePolicy = "stop",
) -> Slide:
    """Open a whole-slide image or a picture of a section.

    Parameters
    ----------
    path
        Aperio SVS, OME-TIFF, any 8-bit colour TIFF, what OpenSlide reads, PNG or JPEG.
    spacing_um
        Pixel size in µm, one number or (row, column); it wins over the file's header.
    frame
        Name of the slide's µm frame ("he", "cd34"...).
    damaged
        At a tile that cannot be decoded: "stop" raises `InputError`; "skip" makes its pixels
        white and notes it, see ``slide.damaged`` and ``slide.sound``.

    Returns
    -------
    Slide
        To be closed, or used in a ``with`` statement.

    Raises
    ------
    MissingPixelSize
        If neither the header nor the caller gives a pixel size from 0.05 to 20 µm.  A size is
        never derived from the magnification.
    InputError
        If the file is missing, damaged or no slide.
    """
    path = Path(path)
    check_policy(path, damaged)
    given = check_user_spacing(path, spacing_um)
    source = _source(path, _first_bytes(path))
    try:
        if given is not None:
            header = source.header_spacing_um
            if header is not None:
                source.properties["header_spacing"] = f"{header[0]:g} x {header[1]:g} µm"
            return SlideImage(source, given, "user", frame, damaged)
        spacing = check_header_spacing(path, source.header_spacing_um)
        return SlideImage(source, spacing, "header", frame, damaged)
    except InputError:
        source.close()
        raise


def _first_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the slide file itself")
    try:
        with path.open("rb") as handle:
            start = handle.read(16)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}") from error
    if not start:
        raise InputError(f"{path.name} is empty (0 bytes)")
    return start


def _source(path: Path, start: bytes) -> TileSource:
    from napari_mosaik.io.slide.openslide_source import OpenSlideSource, detected_vendor
    from napari_mosaik.io.slide.picture import PictureSource
    from napari_mosaik.io.slide.tiff import TiffSource, uses_ycbc_jpeg2000

    vendor = detected_vendor(path)
    if vendor not in _DIRECT:
        return OpenSlideSource(path)
    if start[:4] in _TIFF_MAGIC:
        if vendor == "aperio" and uses_ycbc_jpeg2000(path):
            return OpenSlideSource(path)
        return TiffSource(path)
    if start.startswith(_PICTURE_MAGIC):
        return PictureSource(path)
    raise InputError(
        f"{path.name} is not a slide: it is neither TIFF (SVS, OME-TIFF), nor a format that "
        "OpenSlide reads, nor PNG or JPEG"
    )
