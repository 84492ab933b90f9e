"""Pixel sizes: what a header states (Aperio, OME-XML, ImageJ, resolution tags), and its checks."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from napari_mosaik.core import InputError, MissingPixelSize
from napari_mosaik.core.spacing import MAX_SPACING_UM, MIN_SPACING_UM

__all__ = [
    "SPACING_ADVICE",
    "aperio_facts",
    "check_header_spacing",
    "check_user_spacing",
    "ome_spacing_um",
    "pixels_per_unit_um",
    "tag_spacing_um",
]

Spacing = tuple[float, float]
SPACING_ADVICE = (
    "type it (--spacing UM, or on the Case page), copy it from a scanner profile "
    "(--profile NAME; 'napari-mosaik profiles' lists them), or measure a known length with the "
    "ruler in the window"
)
"""The three options for a slide without a pixel size."""

_UM_PER = {
    "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "\\u00b5m": 1.0,
    "nm": 1e-3, "mm": 1e3, "cm": 1e4, "dm": 1e5, "m": 1e6, "å": 1e-4, "pm": 1e-6,
    "in": 25400.0, "inch": 25400.0,
}  # fmt: skip


def _positive(row: Any, column: Any) -> Spacing | None:
    try:
        pair = (float(row), float(column))
    except (TypeError, ValueError):
        return None
    return pair if all(math.isfinite(v) and v > 0 for v in pair) else None


def aperio_facts(description: str) -> tuple[Spacing | None, dict[str, str]]:
    """Pixel size (µm) and objective of an Aperio description; nothing else is kept.

    The description also contains file names, user names and dates; these are not read.
    """
    found = dict(re.findall(r"\|\s*(MPP|AppMag)\s*=\s*([0-9.eE+-]+)", description))
    spacing = _positive(found.get("MPP"), found.get("MPP"))
    return spacing, {"objective": found["AppMag"]} if "AppMag" in found else {}


def ome_spacing_um(xml: str, series: int) -> Spacing | None:
    """PhysicalSizeY and PhysicalSizeX of one image of OME-XML, µm."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return None
    images = [e for e in root.iter() if e.tag.rsplit("}", 1)[-1] == "Pixels"]
    if series >= len(images):
        return None
    pixels = images[series].attrib
    size = [_positive(pixels.get(f"PhysicalSize{axis}"), 1.0) for axis in ("Y", "X")]
    units = [_UM_PER.get(pixels.get(f"PhysicalSize{a}Unit", "µm").lower()) for a in ("Y", "X")]
    if None in size or None in units:
        return None
    (row, _), (column, _) = size  # type: ignore[misc]
    return _positive(row * units[0], column * units[1])  # type: ignore[operator]


def pixels_per_unit_um(row: Any, column: Any, um_per_unit: float) -> Spacing | None:
    """Spacing, µm, from a number of pixels per unit of length; rationals are pairs."""
    values = []
    for value in (row, column):
        if isinstance(value, tuple):
            value = value[0] / value[1] if len(value) == 2 and value[1] else 0
        values.append(um_per_unit / value if isinstance(value, int | float) and value > 0 else 0)
    return _positive(*values)


def tag_spacing_um(page: Any, imagej_unit: str | None) -> Spacing | None:
    """Pixel size from the resolution tags, if they have a unit (or ImageJ names one)."""
    row, column = page.tags.valueof("YResolution"), page.tags.valueof("XResolution")
    unit = page.tags.valueof("ResolutionUnit")
    um_per_unit = {2: 25400.0, 3: 10000.0, 4: 1000.0, 5: 1.0}.get(2 if unit is None else int(unit))
    if imagej_unit is not None:
        um_per_unit = _UM_PER.get(imagej_unit.lower())
    return pixels_per_unit_um(row, column, um_per_unit) if um_per_unit else None


# --- checks ---------------------------------------------------------------------------------------
def check_user_spacing(
    path: Path, spacing_um: float | Sequence[float] | None, *, typed: bool = True
) -> tuple[float, float] | None:
    """The given pixel size (row, column), µm, or None; an impossible one raises `InputError`.

    A typed size may be that of a coarse overview (0.01 to 1000 µm); a measured or copied one must
    be plausible for a scanner.
    """
    if spacing_um is None:
        return None
    low, high = (0.01, 1000.0) if typed else (MIN_SPACING_UM, MAX_SPACING_UM)
    pair = spacing_um if isinstance(spacing_um, Sequence) else (spacing_um, spacing_um)
    if len(pair) != 2 or not all(math.isfinite(s) and low <= s <= high for s in pair):
        raise InputError(
            f"{path.name}: a pixel size of {_size_words(pair)} µm is not possible; "
            f"give a number between {low:g} and {high:g} µm"
        )
    return float(pair[0]), float(pair[1])


def _size_words(pair: Sequence[float]) -> str:
    return " x ".join(f"{s:g}" for s in dict.fromkeys(pair))


def check_header_spacing(path: Path, found: tuple[float, float] | None) -> tuple[float, float]:
    """The pixel size of the header, µm; a missing or implausible one raises `MissingPixelSize`."""
    advice = SPACING_ADVICE
    if found is None:
        raise MissingPixelSize(f"{path.name} states no pixel size; {advice}")
    if not all(MIN_SPACING_UM <= s <= MAX_SPACING_UM for s in found):
        raise MissingPixelSize(
            f"{path.name} states a pixel size of {found[0]:g} x {found[1]:g} µm, which is "
            f"implausible for a slide scanner ({MIN_SPACING_UM:g} to {MAX_SPACING_UM:g} µm); "
            f"{advice}"
        )
    return found
