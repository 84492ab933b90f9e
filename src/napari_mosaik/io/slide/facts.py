"""What a slide file holds: its facts (size, levels, pixel size), and its label and macro pictures.

Label and macro pictures are read only here, and only when asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import tifffile
from numpy.typing import NDArray
from PIL import Image

from napari_mosaik.core import InputError
from napari_mosaik.io.files import saving
from napari_mosaik.io.slide.formats.openslide import detected_vendor
from napari_mosaik.io.slide.read.cache import shared_cache
from napari_mosaik.io.slide.read.icc import profile_of
from napari_mosaik.io.slide.read.slide import SlideImage
from napari_mosaik.io.slide.types.slide import Slide

__all__ = ["PRIVACY", "export_associated", "slide_facts"]

_SHOWN = ("why", "warning")


def slide_facts(slide: Slide, *, measured: bool = True) -> dict[str, Any]:
    """JSON-able facts of an open slide.

    Parameters
    ----------
    slide
        An open slide; no pixels of it are read.
    measured
        False if the slide was opened with a provisional pixel size.
    """
    if not isinstance(slide, SlideImage):
        raise TypeError(f"{type(slide).__name__} is not a slide that open_slide opened")
    properties = dict(slide.properties)
    levels = [
        {
            "shape": list(level.shape),
            "downsample": list(level.downsample),
            "tile": list(stored.tile),
            "virtual": level.virtual,
        }
        for level, stored in zip(slide.levels, slide.source.levels, strict=True)
    ]
    return {
        "file": str(slide.path),
        "reader": slide.reader,
        "why": properties.get("why", ""),
        "shape": list(slide.lattice.shape),
        "size_mm": [round(um / 1000, 4) for um in slide.lattice.extent_um] if measured else None,
        "spacing_um": list(slide.lattice.spacing_um) if measured else None,
        "spacing_source": slide.spacing_source if measured else None,
        "levels": levels,
        "loaded": _loaded(slide),
        "missing": _missing(slide, measured),
        "warnings": properties.get("warning", "").splitlines(),
        "properties": {key: text for key, text in properties.items() if key not in _SHOWN},
    }


def _loaded(slide: SlideImage) -> dict[str, Any]:
    """Memory needed by the open slide, MiB."""
    shape = slide.levels[-1].shape
    decoded = slide.lattice.shape[0] * slide.lattice.shape[1] * 3 / 2**20
    coarsest = shape[0] * shape[1] * 3 / 2**20
    return {
        "decoded_mib": round(decoded, 3),
        "coarsest_mib": round(coarsest, 3),
        "cache_mib": round(shared_cache().limit / 2**20, 1),
        "whole": slide.reader == "picture",
    }


def _missing(slide: SlideImage, measured: bool) -> list[str]:
    missing = []
    if not measured:
        missing.append("pixel size")
    virtual = [level for level in slide.levels if level.virtual]
    if virtual:
        names = ", ".join(f"1:{max(level.downsample):g}" for level in virtual)
        missing.append(f"levels {names}: computed from the next finer level when needed")
    if profile_of(slide.source) is None and "colour" not in slide.properties:
        missing.append("colour profile (ICC): colours are shown as stored")
    if "objective" not in slide.properties:
        missing.append("objective: not stated, and not needed")
    return missing


# --- label and macro pictures ---------------------------------------------------------------------
PRIVACY = (
    "label and macro images often show a patient's name, a case number or a barcode; store them "
    "only where patient data may be stored"
)
_WORDS = ("label", "macro", "thumbnail", "overview", "map")


def export_associated(path: Path, folder: Path) -> list[Path]:
    """Write the label, macro and thumbnail images of a slide as PNG files.

    Raises `InputError` if the slide has none, or if a file of that name already exists.
    """
    found = [(name, pixels) for name, pixels in _pictures(path) if pixels.size]
    if not found:
        raise InputError(f"{path.name} contains no label, macro or thumbnail image")
    targets = [folder / f"{path.stem}.{_safe(name)}.png" for name, _ in found]
    there = [target.name for target in targets if target.exists()]
    if there:
        raise InputError(f"{folder} already contains {', '.join(there)}; choose another folder")
    with saving("the label and macro images", folder):
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
        return  # a PNG or JPEG file has no associated images
    except (openslide.OpenSlideError, ValueError) as error:
        raise InputError(
            f"the label and macro images of {path.name} cannot be read: {error}"
        ) from error


def _safe(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "picture"
