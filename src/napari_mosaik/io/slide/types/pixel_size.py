"""Pixel sizes: what a header states (Aperio, OME-XML, ImageJ, resolution tags), and its checks."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from napari_mosaik.core import MissingPixelSize
from napari_mosaik.core.spacing import MAX_SPACING_UM, MIN_SPACING_UM, check_spacing

__all__ = [
    "SPACING_ADVICE",
    "aperio_facts",
    "check_header_spacing",
    "check_user_spacing",
    "ome_spacing_um",
    "pixels_per_unit_um",
    "spacing_doubts",
    "tag_spacing_um",
    "two_sizes_doubt",
    "typed_beside_header",
]

Spacing = tuple[float, float]
SPACING_ADVICE = (
    "type it (--spacing UM, or on the Case page), copy it from a scanner profile "
    "(--profile NAME; 'napari-mosaik profiles' lists them), or measure a known length with the "
    "ruler in the window"
)
"""The three options for a slide without a pixel size."""
_MAX_UNEQUAL, _SQUARE = 2.05, 1.1
"""Largest ratio of the edges of a pixel; from the second on it is a doubt."""
_SAME_SHAPE = 0.02
_UM_AT_1X, _UNUSUAL, _CONTRADICTION = 10.0, 1.7, 4.0
"""Usual pixel size at magnification 1, µm; factors beside it that are a doubt, or refused."""

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


def aperio_facts(
    description: str, shape: tuple[int, int] | None = None
) -> tuple[Spacing | None, dict[str, str]]:
    """Pixel size (µm) and objective of an Aperio description; nothing else is kept.

    The description also contains file names, user names and dates; these are not read.  Programs
    keep it when they scale a picture: of a picture of another *shape* it states no pixel size.
    """
    if shape is not None and not _describes(description, shape):
        return None, {}
    stated = re.findall(r"\|\s*(MPP|AppMag)\s*=\s*([^|\r\n]+)", description)
    found = {name: text.strip().replace(",", ".") for name, text in stated}
    sizes = {_positive(text.replace(",", "."), 1.0) for name, text in stated if name == "MPP"}
    spacing = _positive(found.get("MPP"), found.get("MPP")) if len(sizes) == 1 else None
    return spacing, {"objective": found["AppMag"]} if "AppMag" in found else {}


def _describes(description: str, shape: tuple[int, int]) -> bool:
    """Whether an Aperio description is that of a picture of this shape, and of one never scaled."""
    first = re.split(r"[;|]", description)[0]
    sizes = re.findall(r"(?<![\d(])(\d+)x(\d+)", first)
    if "->" in first or not sizes:
        return "->" not in first
    columns, rows = (int(n) for n in sizes[-1])  # the region, where one is stated
    return max(abs(columns / shape[1] - 1), abs(rows / shape[0] - 1)) <= _SAME_SHAPE


def ome_spacing_um(xml: str, path: Path, ifd: int, depth: int = 0) -> Spacing | None:
    """PhysicalSizeY and PhysicalSizeX, µm, of the image at a directory of *this* file.

    OME-XML may describe several images, and those of other files of its set.  The image is the one
    whose TiffData names this file (or none) and this directory.  A file that refers to a metadata
    file beside it is described there.
    """
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return None
    binary_only = next((e for e in root.iter() if _name(e) == "BinaryOnly"), None)
    if binary_only is not None:
        beside = path.with_name(Path(binary_only.get("MetadataFile", "")).name or "?")
        other = _ome_xml_of(beside) if depth == 0 and beside.is_file() else ""
        return ome_spacing_um(other, path, ifd, 1) if other else None
    for number, pixels in enumerate(e for e in root.iter() if _name(e) == "Pixels"):
        if not any(_name(part) == "TiffData" for part in pixels):
            here = depth == 0 and number == ifd  # in the order of the images
        else:
            here = _is_stored_at(pixels, root.get("UUID", "-"), path.name, ifd, depth > 0)
        if here:
            return _physical_size(pixels.attrib)
    return None


def _name(element: Any) -> str:
    return str(element.tag).rsplit("}", 1)[-1]


def _ome_xml_of(path: Path) -> str:
    """OME-XML of a companion file, or of the first directory of a TIFF file."""
    if path.suffix.lower() in (".ome", ".xml"):
        return path.read_text("utf-8", "replace")
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            return str(tiff.pages.first.description)
    except Exception:  # noqa: BLE001 - the other file may be anything: then it states nothing
        return ""


def _is_stored_at(pixels: Any, own_uuid: str, name: str, ifd: int, elsewhere: bool) -> bool:
    """Whether an image is stored at a directory of the file *name*.

    *elsewhere*: the metadata stand in another file, so that data without a file are not of this.
    """
    for part in (e for e in pixels if _name(e) == "TiffData"):
        uuid = next((e for e in part if _name(e) == "UUID"), None)
        if uuid is None:
            here = not elsewhere
        else:
            here = uuid.get("FileName") == name or (not elsewhere and uuid.text == own_uuid)
        first = int(part.get("IFD", 0)) if str(part.get("IFD", 0)).isdigit() else 0
        count = part.get("PlaneCount") or (1 if "IFD" in part.attrib else 1 << 30)
        if here and first <= ifd < first + int(count):
            return True
    return False


def _physical_size(pixels: Any) -> Spacing | None:
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
    path: Path, spacing_um: float | Sequence[float] | None
) -> tuple[float, float] | None:
    """The given pixel size (row, column), µm, or None; an impossible one raises `InputError`."""
    return None if spacing_um is None else check_spacing(spacing_um, path.name)


def check_header_spacing(
    path: Path, found: tuple[float, float] | None, objective: str | None = None
) -> tuple[float, float]:
    """The pixel size of the header, µm; a missing or implausible one raises `MissingPixelSize`.

    So does one that is far from what the magnification of the *objective* allows.
    """
    advice = SPACING_ADVICE
    if found is None:
        raise MissingPixelSize(f"{path.name} states no pixel size; {advice}")
    if not all(MIN_SPACING_UM <= s <= MAX_SPACING_UM for s in found):
        raise MissingPixelSize(
            f"{path.name} states a pixel size of {found[0]:g} x {found[1]:g} µm, which is "
            f"implausible for a slide scanner ({MIN_SPACING_UM:g} to {MAX_SPACING_UM:g} µm); "
            f"{advice}"
        )
    if max(found) > _MAX_UNEQUAL * min(found):
        raise MissingPixelSize(
            f"{path.name} states pixels of {found[0]:g} x {found[1]:g} µm, which are far from "
            f"square: no scanner makes such pixels; {advice}"
        )
    if _beside_objective(found, objective) > _CONTRADICTION:
        raise MissingPixelSize(
            f"{path.name} states pixels of {found[0]:.3g} µm and an objective of {objective}x, "
            f"which contradict each other; {advice}"
        )
    return found


def _beside_objective(spacing: Spacing, objective: str | None) -> float:
    """Factor between a pixel size, µm, and what is usual with the objective: 1 if both agree."""
    power = _positive(objective, 1.0)
    usual = _UM_AT_1X / power[0] if power else spacing[0]
    return max(spacing[0] / usual, usual / spacing[0])


def two_sizes_doubt(where: str, stated: Spacing | None, tagged: Spacing | None) -> str:
    """A sentence where a text (*where*) and the tags state two possible sizes, µm; or ""."""
    if stated is None or tagged is None:
        return ""
    if not all(MIN_SPACING_UM <= size <= MAX_SPACING_UM for size in tagged):
        return ""  # the usual 72 dpi
    if all(abs(b / a - 1) < _SQUARE - 1 for a, b in zip(stated, tagged, strict=True)):
        return ""
    return (
        f"{where} states pixels of {stated[0]:.3g} x {stated[1]:.3g} µm, which are used, and the "
        f"resolution tags {tagged[0]:.3g} x {tagged[1]:.3g} µm; check the pixel size with the ruler"
    )


def typed_beside_header(typed: Spacing, header: Spacing) -> str:
    """A sentence where a typed pixel size, µm, is not the possible one of the header; or ""."""
    if not all(MIN_SPACING_UM <= size <= MAX_SPACING_UM for size in header):
        return ""
    if all(abs(t / h - 1) < _SQUARE - 1 for t, h in zip(typed, header, strict=True)):
        return ""
    return (
        f"the typed pixel size of {typed[0]:.3g} x {typed[1]:.3g} µm is used; the header states "
        f"{header[0]:.3g} x {header[1]:.3g} µm: check it with the ruler"
    )


def spacing_doubts(header: Spacing | None, objective: str | None) -> list[str]:
    """What is doubtful about the stated pixel size, µm, beside the magnification, in sentences."""
    if header is None:
        return []
    doubts = []
    if _beside_objective(header, objective) > _UNUSUAL:
        doubts.append(
            f"the header states pixels of {header[0]:.3g} µm and an objective of {objective}x, "
            "which do not fit each other well; check the pixel size with the ruler"
        )
    if max(header) > _SQUARE * min(header):
        doubts.append(f"the pixels are not square: {header[0]:.3g} x {header[1]:.3g} µm")
    return doubts
