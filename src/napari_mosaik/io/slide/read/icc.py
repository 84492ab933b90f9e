"""Conversion of the colours of a scanner to sRGB by the ICC profile in the file."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import tifffile
from PIL import Image, ImageCms

from napari_mosaik.core import InputError
from napari_mosaik.io.slide.types.tiles import Pixels, TileSource

__all__ = ["SrgbSource", "profile_of"]

_ICC_TAG = 34675


def profile_of(source: TileSource) -> bytes | None:
    """The colour profile of a slide's main image; None if it has none."""
    read = getattr(source, "icc_profile", None)
    if read is not None:
        found: bytes | None = read()
        return found
    return _tiff_profile(source) if source.reader == "tiff" else None


def _tiff_profile(source: TileSource) -> bytes | None:
    """The profile of the page that is level 0."""
    with suppress(tifffile.TiffFileError), tifffile.TiffFile(source.path) as tiff:
        for page in tiff.pages:
            whole = page.aspage()
            if (whole.imagelength, whole.imagewidth) == source.levels[0].shape:
                value = whole.tags.valueof(_ICC_TAG)
                return bytes(value) if value else None
    return None


class SrgbSource:
    """A `TileSource` whose pixels are converted from the scanner's colours to sRGB."""

    def __init__(self, source: TileSource) -> None:
        profile = profile_of(source)
        if profile is None:
            raise InputError(
                f"{source.path.name} holds no colour profile (ICC), so its colours cannot be "
                "converted to sRGB; open it without this option"
            )
        self._source, self._profile = source, profile
        self._local = threading.local()
        self.path, self.reader, self.levels = source.path, source.reader, source.levels
        self.header_spacing_um = source.header_spacing_um
        self._digest = hashlib.blake2b(profile, digest_size=8).hexdigest()
        self.properties = source.properties
        self.properties["colour"] = f"converted to sRGB by the file's ICC profile {self._digest}"
        self._transform()

    def tile(self, level: int, row: int, column: int) -> Pixels | None:
        """One tile in sRGB, shape (rows, columns, 3), uint8; None where nothing is stored."""
        pixels = self._source.tile(level, row, column)
        if pixels is None:
            return None
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        changed = ImageCms.applyTransform(picture, self._transform())
        return np.array(changed, np.uint8)

    def fingerprint(self) -> Mapping[str, Any]:
        """Fingerprint of the file and digest of the profile."""
        return {**self._source.fingerprint(), "srgb_from_icc": self._digest}

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def _transform(self) -> Any:
        """One transform per thread."""
        found = getattr(self._local, "transform", None)
        if found is None:
            try:
                found = self._local.transform = _to_srgb(self._profile)
            except (ImageCms.PyCMSError, OSError) as error:
                raise InputError(
                    f"the colour profile (ICC) of {self.path.name} cannot be used ({error}); open "
                    "it without converting its colours"
                ) from error
        return found


def _to_srgb(profile: bytes) -> Any:
    scanner = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    intent = ImageCms.Intent(ImageCms.getDefaultIntent(scanner))
    return ImageCms.buildTransform(scanner, ImageCms.createProfile("sRGB"), "RGB", "RGB", intent)
