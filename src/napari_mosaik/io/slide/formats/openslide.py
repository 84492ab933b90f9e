"""Slides that OpenSlide reads (Hamamatsu, Leica, MIRAX, Ventana, Philips, DICOM and others)."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ctypes import POINTER, c_uint32
from pathlib import Path
from typing import Any

import numpy as np
import openslide
from openslide import lowlevel

from napari_mosaik.core import InputError
from napari_mosaik.io.slide.formats.registry import OpenedFormat, SlideCandidate, SlideFormat
from napari_mosaik.io.slide.formats.tiff_checks import (
    check_directories,
    is_tiff,
    uses_ycbc_jpeg2000,
)
from napari_mosaik.io.slide.read.colours import argb_over_white, padding_whitened
from napari_mosaik.io.slide.types.tiles import Pixels, StoredLevel, tile_edge

__all__ = ["FORMAT", "OpenSlideSource", "detected_vendor"]

_CACHE_BYTES = 64 << 20
"""Cache of all handles for stored tiles that cover several of ours (strips, overlaps)."""
_SAMPLED_PX = 1024
_SAMPLES = 16


def detected_vendor(path: Path) -> str | None:
    """OpenSlide's name of the file's format, None if it does not know it."""
    try:
        vendor = openslide.OpenSlide.detect_format(path)
    except openslide.OpenSlideError:
        return None
    return None if vendor is None else str(vendor)


class OpenSlideSource:
    """A slide read through OpenSlide; each handle is used by one thread at a time.

    Only the scanned area that the scanner states (OpenSlide's bounds) belongs to the slide.
    Transparent and black padding are white.

    Parameters
    ----------
    file
        The slide's file, or one of the files of a DICOM slide.
    folder
        The folder that the user gave instead of the file.
    """

    reader = "openslide"

    def __init__(self, file: Path, folder: Path | None = None) -> None:
        self.path = file if folder is None else folder
        self._file = file
        self._lock = threading.Lock()
        self._closed = False
        self._idle: list[Any] = []
        self._cache = lowlevel.cache_create(_CACHE_BYTES)
        with self._handle() as handle:
            self._read_header(handle)

    def _read_header(self, handle: Any) -> None:
        names = lowlevel.get_property_names(handle)
        facts = {name: lowlevel.get_property_value(handle, name) for name in names}
        count = lowlevel.get_level_count(handle)
        sizes = [lowlevel.get_level_dimensions(handle, level) for level in range(count)]
        self._downsamples = [float(lowlevel.get_level_downsample(handle, n)) for n in range(count)]
        self._quickhash = str(facts.get(openslide.PROPERTY_NAME_QUICKHASH1, ""))
        bounds = _bounds(facts, sizes[0])
        self._corner = (0, 0) if bounds is None else bounds[:2]
        self.levels = tuple(
            _level(size, scale, bounds, _tile(facts, level))
            for level, (size, scale) in enumerate(zip(sizes, self._downsamples, strict=True))
        )
        self.header_spacing_um = _spacing(facts)
        self.properties = {"vendor": facts.get(openslide.PROPERTY_NAME_VENDOR, "")}
        if openslide.PROPERTY_NAME_OBJECTIVE_POWER in facts:
            self.properties["objective"] = facts[openslide.PROPERTY_NAME_OBJECTIVE_POWER]
        if bounds is not None:
            self.properties["bounds"] = (
                f"{bounds[2]} x {bounds[3]} px from row {bounds[0]}, column {bounds[1]} of "
                f"{sizes[0][1]} x {sizes[0][0]} px; the rest was not scanned"
            )
        self.properties["padding"] = "transparent and black padding is read as white"

    def tile(self, level: int, row: int, column: int) -> Pixels | None:
        """One tile of a level on white, shape (rows, columns, 3), uint8."""
        stored = self.levels[level]
        top, left = row * stored.tile[0], column * stored.tile[1]
        return self._read(level, top, left, stored.tile)

    def fingerprint(self) -> Mapping[str, Any]:
        """File size, OpenSlide's quick hash and the pixels of some tiles of the coarsest level."""
        last = len(self.levels) - 1
        height, width = self.levels[last].shape
        samples = hashlib.blake2b(digest_size=16)
        rows, columns = -(-height // _SAMPLED_PX), -(-width // _SAMPLED_PX)
        grid = [(i, j) for i in range(rows) for j in range(columns)]
        for i, j in grid[:: max(1, len(grid) // _SAMPLES)]:
            square = (_SAMPLED_PX, _SAMPLED_PX)
            try:
                pixels = self._read(last, i * _SAMPLED_PX, j * _SAMPLED_PX, square)
                samples.update(pixels.tobytes())
            except openslide.OpenSlideError:  # reading this tile raises the error; the rest counts
                samples.update(b"damaged")
        return {
            "bytes": self._file.stat().st_size,
            "structure": self._quickhash,
            "samples": samples.hexdigest(),
        }

    def icc_profile(self) -> bytes | None:
        """The scanner's colour profile."""
        with self._handle() as handle:
            profile = lowlevel.read_icc_profile(handle)
        return profile or None

    def close(self) -> None:
        """Close all handles; a handle in use is closed when its thread returns it."""
        with self._lock:
            self._closed = True
            handles, self._idle = self._idle, []
        for handle in handles:
            lowlevel.close(handle)

    def _read(self, level: int, top: int, left: int, size: tuple[int, int]) -> Pixels:
        shape, scale = self.levels[level].shape, self._downsamples[level]
        height, width = min(size[0], shape[0] - top), min(size[1], shape[1] - left)
        y, x = self._corner[0] + round(top * scale), self._corner[1] + round(left * scale)
        buffer = np.empty((height, width), np.uint32)
        target = buffer.ctypes.data_as(POINTER(c_uint32))
        with self._handle() as handle:
            lowlevel._read_region(handle, target, x, y, level, width, height)
        return padding_whitened(argb_over_white(buffer))

    @contextmanager
    def _handle(self) -> Iterator[Any]:
        """A handle that no other thread uses.

        After an error OpenSlide refuses every call on a handle, so it is closed, not reused.
        """
        with self._lock:
            handle = self._idle.pop() if self._idle else None
        if handle is None:
            handle = _opened(self._file)
            lowlevel.set_cache(handle, self._cache)
        try:
            yield handle
        except openslide.OpenSlideError:
            lowlevel.close(handle)
            raise
        with self._lock:
            if not self._closed:
                self._idle.append(handle)
                return
        lowlevel.close(handle)


def _opened(path: Path) -> Any:
    try:
        return lowlevel.open(path)
    except openslide.OpenSlideError as error:
        raise InputError(f"{path.name} cannot be read by OpenSlide: {error}") from error


def _number(facts: Mapping[str, str], name: str) -> int:
    try:
        return int(facts[name])
    except (KeyError, ValueError):
        return 0


def _bounds(facts: Mapping[str, str], size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Row, column, height and width of the scanned part; None where it is the whole slide."""
    top, left = _number(facts, "openslide.bounds-y"), _number(facts, "openslide.bounds-x")
    height, width = (
        _number(facts, "openslide.bounds-height"),
        _number(facts, "openslide.bounds-width"),
    )
    height, width = min(height, size[1] - top), min(width, size[0] - left)
    if min(top, left) < 0 or min(height, width) < 1 or (width, height) == size:
        return None
    return top, left, height, width


def _tile(facts: Mapping[str, str], level: int) -> tuple[int, int]:
    name = f"openslide.level[{level}].tile-"
    return tile_edge(_number(facts, f"{name}height")), tile_edge(_number(facts, f"{name}width"))


def _level(
    size: tuple[int, int],
    scale: float,
    bounds: tuple[int, int, int, int] | None,
    tile: tuple[int, int],
) -> StoredLevel:
    """A level as it is read; of a slide with bounds only their part."""
    if bounds is None:
        return StoredLevel((size[1], size[0]), tile)
    whole = abs(scale - round(scale)) * max(size) < scale
    exact = float(round(scale)) if whole else scale
    shape = (math.ceil(bounds[2] / exact - 1e-6), math.ceil(bounds[3] / exact - 1e-6))
    return StoredLevel(shape, tile, (exact, exact))


def _spacing(facts: Mapping[str, str]) -> tuple[float, float] | None:
    """Pixel size (row, column) of the header, µm; never from the magnification."""
    try:
        row = float(facts[openslide.PROPERTY_NAME_MPP_Y])
        column = float(facts[openslide.PROPERTY_NAME_MPP_X])
    except (KeyError, ValueError):
        return None
    return (row, column) if row > 0 and column > 0 else None


_READ_DIRECTLY = (None, "aperio", "generic-tiff")
"""Vendors in OpenSlide of files that are not slides, or that are read without OpenSlide."""
_MAX_FILES = 2000


def _open(candidate: SlideCandidate) -> OpenedFormat | None:
    path = candidate.path
    if candidate.is_folder:
        return _open_folder(path)
    if path.suffix.lower() == ".mrxs" and candidate.start:
        path = _with_its_folder(path)
    vendor, tiff = detected_vendor(path), is_tiff(candidate.start)
    if vendor == "aperio" and tiff and uses_ycbc_jpeg2000(path):
        why = "Aperio with JPEG 2000 in YCbCr, which OpenSlide decodes correctly"
        return OpenSlideSource(path), why
    if vendor in _READ_DIRECTLY:
        return None
    largest = check_directories(path, hamamatsu=vendor == "hamamatsu") if tiff else None
    source = OpenSlideSource(path)
    if vendor == "ventana" and largest is not None:
        _check_within(source, largest)
    return source, f"OpenSlide identifies it as '{vendor}'"


def _with_its_folder(path: Path) -> Path:
    """A MIRAX file beside its folder; of a link the file to which it leads, if that has it.

    The file alone is a thumbnail of the slide in JPEG.
    """
    for place in (path, path.resolve()):
        if place.with_suffix("").is_dir():
            return place
    raise InputError(
        f"{path.name} is only the thumbnail of a MIRAX slide: its folder {path.stem} is missing "
        "beside it; copy both, the file and the folder"
    )


def _check_within(source: OpenSlideSource, largest: tuple[int, int]) -> None:
    """The slide consists of images that are large enough for it.

    OpenSlide aborts the whole process at a tile that is not in its image.
    """
    shape = source.levels[0].shape
    if shape[0] > largest[0] or shape[1] > largest[1]:
        source.close()
        raise InputError(
            f"{source.path.name}: the header states a slide of {shape[0]} x {shape[1]} pixels but "
            f"contains an image of {largest[0]} x {largest[1]}; it is damaged"
        )


def _open_folder(path: Path) -> OpenedFormat | None:
    beside = path.parent / f"{path.name}.mrxs"
    if beside.is_file():
        raise InputError(f"{path.name} holds the pixels of a MIRAX slide; give {beside.name}")
    file = _dicom_slide(path)
    if file is None:
        return None
    why = "the folder holds the files of one DICOM slide, which OpenSlide reads"
    return OpenSlideSource(file, path), why


def _dicom_slide(folder: Path) -> Path | None:
    """A file of the only DICOM slide of a folder; None if it holds none."""
    import pydicom

    series: dict[str, Path] = {}
    try:
        files = [p for p in sorted(folder.iterdir())[:_MAX_FILES] if p.is_file()]
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
            f"intended ({names})"
        )
    return next(iter(series.values()), None)


def _is_dicom(file: Path) -> bool:
    with file.open("rb") as handle:
        return handle.read(132)[128:] == b"DICM"


_SUFFIXES = (".ndpi", ".vms", ".vmu", ".mrxs", ".scn", ".bif", ".svslide")
FORMAT = SlideFormat(
    "a format that OpenSlide reads",
    _open,
    suffixes=(*_SUFFIXES, ".dcm"),
    slides_only=_SUFFIXES,
    order=20,
)
