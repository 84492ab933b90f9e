"""Label, macro and thumbnail pictures of a slide: read only here, and only when asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openslide
import tifffile
from numpy.typing import NDArray
from PIL import Image

from napari_mosaik.core import InputError
from napari_mosaik.io.files import saving
from napari_mosaik.io.slide.formats.openslide_source import detected_vendor

__all__ = ["PRIVACY", "export_associated"]

PRIVACY = (
    "label and macro pictures often show a patient's name, a case number or a barcode; keep them "
    "where patient data may be kept"
)
_WORDS = ("label", "macro", "thumbnail", "overview", "map")


def export_associated(path: Path, folder: Path) -> list[Path]:
    """Write the label, macro and thumbnail pictures of a slide as PNG files.

    Raises `InputError` where the slide has none, or a file of that name is there already.
    """
    found = [(name, pixels) for name, pixels in _pictures(path) if pixels.size]
    if not found:
        raise InputError(f"{path.name} holds no label, macro or thumbnail picture")
    targets = [folder / f"{path.stem}.{_safe(name)}.png" for name, _ in found]
    there = [target.name for target in targets if target.exists()]
    if there:
        raise InputError(f"{folder} holds {', '.join(there)} already; choose another folder")
    with saving("the label and macro pictures", folder):
        folder.mkdir(parents=True, exist_ok=True)
        for target, (_, pixels) in zip(targets, found, strict=True):
            Image.fromarray(pixels).save(target, format="PNG")
    return targets


def _pictures(path: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Name and pixels of each picture, by OpenSlide where it knows the file."""
    vendor = detected_vendor(path) if path.is_file() else None
    try:
        if vendor is not None:
            with openslide.OpenSlide(path) as slide:
                for name, image in slide.associated_images.items():
                    yield name, np.asarray(image.convert("RGB"))
        elif path.is_file():
            with tifffile.TiffFile(path) as tiff:
                for series in tiff.series:
                    words = [word for word in _WORDS if word in str(series.name).lower()]
                    if words:
                        yield words[0], np.asarray(series.asarray(), np.uint8)
    except tifffile.TiffFileError:
        return  # a picture: there is nothing beside it
    except (openslide.OpenSlideError, ValueError) as error:
        raise InputError(
            f"the pictures beside the slide {path.name} cannot be read: {error}"
        ) from error


def _safe(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "picture"
