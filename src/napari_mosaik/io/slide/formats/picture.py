"""PNG and JPEG images of a section: one level, decoded completely on first access."""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from napari_mosaik.core import InputError
from napari_mosaik.io.slide.formats.registry import (
    OpenedFormat,
    SlideCandidate,
    SlideFormat,
    slide_only_suffixes,
)
from napari_mosaik.io.slide.read.colours import GREY, over_white, padding_whitened
from napari_mosaik.io.slide.types.pixel_size import pixels_per_unit_um
from napari_mosaik.io.slide.types.tiles import Pixels, StoredLevel

__all__ = ["FORMAT", "PictureSource"]

_MAX_PIXELS = 250_000_000
"""Keeps the image, and the memory needed to decode it, below 2 GiB."""
_BAND_ROWS = 512
_WARNED_PIXELS = 50_000_000
_SAMPLED_BYTES = 64 << 20


class PictureSource:
    """An image file without a pyramid; its pixels stay in memory while the slide is open."""

    reader = "picture"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._pixels: Pixels | None = None
        with self._open() as image:
            self._turn = _turn(image)
            width, height = image.size if self._turn is None else _turned_size(image, self._turn)
            _check_mode(path, image)
            if width * height > _MAX_PIXELS:
                raise InputError(
                    f"{path.name} has {width} x {height} pixels; an image without a pyramid may "
                    f"have {_MAX_PIXELS // 1_000_000} million (save it as a tiled TIFF)"
                )
            spacing = _spacing(image)
            swapped = self._turn is not None and (width, height) != image.size
            self.header_spacing_um = spacing[::-1] if spacing and swapped else spacing
            self.properties = {"vendor": "picture", "compression": str(image.format)}
            if self._turn is not None:
                self.properties["orientation"] = "turned or mirrored as its EXIF data state"
            if width * height > _WARNED_PIXELS:
                size = width * height * 3 / 2**20
                self.properties["warning"] = (
                    f"the whole image is held in memory: {size:.0f} MiB while it is open; a tiled "
                    "TIFF of it needs far less"
                )
            if image.mode in ("1", "L", "LA"):
                self.properties["warning"] = GREY
            profile = image.info.get("icc_profile")
        self._profile = profile if isinstance(profile, bytes) and profile else None
        self.levels: tuple[StoredLevel, ...] = (StoredLevel((height, width), (height, width)),)

    def tile(self, level: int, row: int, column: int) -> Pixels | None:
        """The whole image on white, shape (rows, columns, 3), uint8."""
        with self._lock:
            if self._pixels is None:
                self._pixels = padding_whitened(self._decoded())
            return self._pixels

    def fingerprint(self) -> Mapping[str, Any]:
        """File size and the digest of its first 64 MiB."""
        with self.path.open("rb") as handle:
            start = hashlib.blake2b(handle.read(_SAMPLED_BYTES), digest_size=16)
        return {"bytes": self.path.stat().st_size, "samples": start.hexdigest()}

    def icc_profile(self) -> bytes | None:
        """The picture's colour profile."""
        return self._profile

    def close(self) -> None:
        """Forget the pixels."""
        self._pixels = None

    def _decoded(self) -> Pixels:
        """All pixels on white; the memory for decoding is released at once."""
        with self._open() as image:
            image.load()
            picture: Image.Image = image
            if self._turn is not None:
                picture = image.transpose(self._turn)
            width, height = picture.size
            pixels: Pixels = np.empty((height, width, 3), np.uint8)
            for top in range(0, height, _BAND_ROWS):
                bottom = min(top + _BAND_ROWS, height)
                pixels[top:bottom] = _on_white(picture.crop((0, top, width, bottom)))
        return pixels

    def _open(self) -> Image.Image:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                return Image.open(self.path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{self.path.name} is not a readable image: {error}") from error


def _check_mode(path: Path, image: Image.Image) -> None:
    """Refuse pixels whose colours or depth would change by reading them as 8-bit RGB."""
    with path.open("rb") as file:
        start = file.read(25)
    deep = image.format == "PNG" and start[24:] == b"\x10"
    if deep or image.mode.startswith(("I", "F")):
        raise InputError(
            f"{path.name} has pixels of more than 8 bits; a slide must be 8-bit colour "
            "(save it as 8-bit RGB)"
        )
    if image.mode in ("CMYK", "LAB"):
        raise InputError(
            f"{path.name} holds {image.mode} colours, made for printing; a slide must be 8-bit "
            "RGB: export it from the scanner's software as RGB"
        )


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings a picture upright, by the orientation that its EXIF data state."""


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(image.getexif().get(0x0112, 1))
    except (OSError, ValueError, SyntaxError):  # damaged EXIF data state nothing
        return None


def _turned_size(image: Image.Image, turn: Image.Transpose) -> tuple[int, int]:
    """Width and height of the upright picture."""
    swapped = turn in (_TURNS[5], _TURNS[6], _TURNS[7], _TURNS[8])
    return (image.size[1], image.size[0]) if swapped else image.size


def _on_white(image: Image.Image) -> Pixels:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return over_white(np.asarray(image.convert("RGBA")))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"), np.uint8)


def _spacing(image: Image.Image) -> tuple[float, float] | None:
    """Pixel size from the stored density, if it states a unit of length."""
    density = image.info.get("dpi")
    has_unit = image.format == "PNG" or image.info.get("jfif_unit") in (1, 2)
    if density is None or not has_unit:
        return None
    return pixels_per_unit_um(float(density[1]), float(density[0]), 25400.0)


def _open(candidate: SlideCandidate) -> OpenedFormat | None:
    if not candidate.start.startswith((b"\x89PNG", b"\xff\xd8\xff")):
        return None
    jpeg = candidate.start.startswith(b"\xff\xd8\xff")
    if jpeg and candidate.path.suffix.lower() in slide_only_suffixes():
        raise InputError(
            f"{candidate.path.name} is only a JPEG picture, not the slide that its name "
            "promises (a thumbnail?): copy the slide again; if it is the picture that you want, "
            "rename it to .jpg"
        )
    return PictureSource(candidate.path), "it is a PNG or JPEG image without a pyramid"


FORMAT = SlideFormat(
    "PNG or JPEG", _open, suffixes=(".png", ".jpg", ".jpeg"), napari_reads=True, order=40
)
