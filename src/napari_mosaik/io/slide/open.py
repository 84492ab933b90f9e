"""Open any slide: the content determines the reader, never the suffix."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from napari_mosaik.core import InputError
from napari_mosaik.core.errors import SeveralPages
from napari_mosaik.core.spacing import SpacingSource
from napari_mosaik.io.slide.formats.registry import open_source
from napari_mosaik.io.slide.pyramid.virtual import VirtualPyramidSource, with_virtual_levels
from napari_mosaik.io.slide.read.slide import SlideImage
from napari_mosaik.io.slide.types.damage import DamagePolicy, policy_named
from napari_mosaik.io.slide.types.pixel_size import (
    check_header_spacing,
    check_user_spacing,
    spacing_doubts,
    typed_beside_header,
)
from napari_mosaik.io.slide.types.slide import Slide
from napari_mosaik.io.slide.types.tiles import TileSource

__all__ = ["open_slide", "page_count"]


def open_slide(
    path: Path | str,
    spacing_um: float | Sequence[float] | None = None,
    *,
    frame: str = "slide",
    damaged: DamagePolicy = "stop",
    spacing_source: SpacingSource = "user",
    icc: bool = False,
    pyramids: Path | str | None = None,
    page: int | None = None,
) -> Slide:
    """Open a whole-slide image or an image of a section.

    Parameters
    ----------
    path
        Aperio SVS, OME-TIFF, any 8-bit colour TIFF, what OpenSlide reads, PNG or JPEG; or a
        folder: OME-Zarr, or the files of one DICOM slide.
    spacing_um
        Pixel size in µm, one number or (row, column); it overrides the header of the file.
    frame
        Name of the slide's µm frame ("he", "cd34"...).
    damaged
        At a tile that cannot be decoded: "stop" raises `InputError`; "skip" makes its pixels
        white and logs it, see ``slide.damaged`` and ``slide.valid_mask``.
    spacing_source
        Who gave *spacing_um*: "user", "profile" (of a scanner) or "ruler".
    icc
        Convert the colours to sRGB by the file's colour profile.
    pyramids
        Folder of stored missing levels, see `complete_pyramid`; without it, and where they are not
        stored, they are computed on the fly with the same pixels.
    page
        Which page of a TIFF file that holds several pictures, counted from 1.

    Returns
    -------
    Slide
        To be closed, or used in a ``with`` statement.

    Raises
    ------
    SeveralPages
        If the file holds a stack or a document, and no *page* is given.
    MissingPixelSize
        If neither the header nor the caller gives a pixel size from 0.05 to 20 µm.  A size is
        never derived from the magnification.
    InputError
        If the file is missing, damaged or no slide, or if *icc* is set and it has no profile.
    """
    path = Path(path)
    policy_named(damaged)
    given = check_user_spacing(path, spacing_um)
    source = open_source(path, whole=damaged == "stop", page=page)
    try:
        header = source.header_spacing_um
        if given is None:
            objective = source.properties.get("objective")
            given, spacing_source = check_header_spacing(path, header, objective), "header"
            doubts = [source.properties.get("warning", ""), *spacing_doubts(header, objective)]
            if any(doubts):
                source.properties["warning"] = "\n".join(filter(None, doubts))
        elif header is not None:
            source.properties["header_spacing"] = f"{header[0]:g} x {header[1]:g} µm"
            doubt = typed_beside_header(given, header) if spacing_source == "user" else ""
            if doubt:
                stated = source.properties.get("warning", "")
                source.properties["warning"] = "\n".join(filter(None, [stated, doubt]))
        slide = SlideImage(_prepared(source, icc, pyramids), given, spacing_source, frame, damaged)
    except InputError:
        source.close()
        raise
    slide.reopen = partial(
        open_slide,
        str(path.resolve()),
        None if spacing_source == "header" else given,
        frame=frame,
        damaged=damaged,
        spacing_source=spacing_source,
        icc=icc,
        pyramids=None if pyramids is None else str(Path(pyramids).resolve()),
        page=page,
    )
    return slide


def page_count(path: Path | str) -> int:
    """Number of pages of a file of which one must be chosen; 0 where there is nothing to choose."""
    try:
        open_source(Path(path)).close()
    except SeveralPages as error:
        return error.pages
    except InputError:
        return 0  # whoever opens it says why
    return 0


def _prepared(source: TileSource, icc: bool, pyramids: Path | str | None) -> TileSource:
    """The source, in sRGB if requested, with virtual levels for the missing ones."""
    if icc:
        from napari_mosaik.io.slide.read.icc import SrgbSource

        source = SrgbSource(source)
    source = with_virtual_levels(source)
    if isinstance(source, VirtualPyramidSource) and pyramids is not None:
        source.expect(Path(pyramids))
    return source
