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
from napari_mosaik.io.slide.formats.registry import OpenedFormat, SlideCandidate, SlideFormat
from napari_mosaik.io.slide.read.colours import over_white, padding_whitened
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
            width, height = image.size
            if image.mode.startswith(("I", "F")):
                raise InputError(
                    f"{path.name} has pixels of more than 8 bits; a slide must be 8-bit colour "
                    "(save it as 8-bit RGB)"
                )
            if width * height > _MAX_PIXELS:
                raise InputError(
                    f"{path.name} has {width} x {height} pixels; an image without a pyramid may "
                    f"have {_MAX_PIXELS // 1_000_000} million (save it as a tiled TIFF)"
                )
            self.header_spacing_um = _spacing(image)
            self.properties = {"vendor": "picture", "compression": str(image.format)}
            if width * height > _WARNED_PIXELS:
                size = width * height * 3 / 2**20
                self.properties["warning"] = (
                    f"the whole image is held in memory: {size:.0f} MiB while it is open; a tiled "
                    "TIFF of it needs far less"
                )
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
            width, height = image.size
            pixels: Pixels = np.empty((height, width, 3), np.uint8)
            for top in range(0, height, _BAND_ROWS):
                bottom = min(top + _BAND_ROWS, height)
                pixels[top:bottom] = _on_white(image.crop((0, top, width, bottom)))
        return pixels

    def _open(self) -> Image.Image:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                return Image.open(self.path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{self.path.name} is not a readable image: {error}") from error


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
    return PictureSource(candidate.path), "it is a PNG or JPEG image without a pyramid"


FORMAT = SlideFormat(
    "PNG or JPEG", _open, suffixes=(".png", ".jpg", ".jpeg"), napari_reads=True, order=40
)
