"""Manual corrections of segmentations, after undo and redo; independent of files and windows.

A correction refers to positions in µm and never to object labels, because labels change when a
segmentation is run again.  It also stores the centroid and the area of each object, so that the
object is found again or reported as lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.params import digest
from napari_mosaik.core.text import counted

if TYPE_CHECKING:
    import shapely

__all__ = [
    "CORRECTED_FRAMES",
    "OBJECT_SIZES_UM2",
    "Correction",
    "Kind",
    "Point",
    "correction_area",
    "describe_correction",
    "digest_of",
    "targets_of",
]

Point = tuple[float, float]
"""Row and column in µm of the section."""
Kind = Literal["delete", "merge", "split", "class", "add", "cut", "flag", "clear"]
CORRECTED_FRAMES: Final = {
    "vessels": "cd34",
    "nuclei": "he",
    "tissue_he": "he",
    "tissue_cd34": "cd34",
    "tissue_caix": "caix",
    "artefacts_he": "he",
    "artefacts_cd34": "cd34",
    "artefacts_caix": "caix",
}
"""Results that can be corrected, with the section in whose frame the positions are given."""
OBJECT_SIZES_UM2: Final = {"vessels": (10.0, 1_000_000.0), "nuclei": (5.0, 2_000.0)}
"""Smallest and largest area, µm², that a drawn object may have."""
_OBJECTS: Final = {
    "delete": 1, "merge": 2, "split": 1, "class": 1, "add": 0, "cut": 0, "flag": 0, "clear": 0
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Correction:
    """One correction.

    Parameters
    ----------
    kind
        "delete", "merge", "split" or "class" of objects; "add" an object, or to a tissue mask;
        "cut" from a tissue mask; "flag" an area as an artefact, or "clear" it.
    places_um
        A position within each corrected object (two for "merge"); none for an area.
    centroids_um, areas_um2
        Centroid, µm, and area, µm², of each of these objects at the time of the correction.
    line_um
        The line that splits an object, µm.
    word
        The assigned class, empty to clear it; the type of a marked artefact.
    area_wkt
        The area that is added, removed, marked or cleared, as well-known text with x = column and
        y = row in µm.
    reader, time
        Who made the correction, and when (ISO, UTC); they do not change the result.
    """

    kind: Kind
    places_um: tuple[Point, ...] = ()
    centroids_um: tuple[Point, ...] = ()
    areas_um2: tuple[float, ...] = ()
    line_um: tuple[Point, ...] = ()
    word: str = ""
    area_wkt: str = ""
    reader: str = field(default="", compare=False)
    time: str = field(default="", compare=False)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form without reader, time and empty entries."""
        values = {key: value for key, value in asdict(self).items() if value}
        return {key: value for key, value in values.items() if key not in ("reader", "time")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], reader: str = "", time: str = "") -> Correction:
        """The inverse of `as_dict`; invalid values raise `InputError`."""
        try:
            made = cls(
                values["kind"],
                _points(values.get("places_um", ())),
                _points(values.get("centroids_um", ())),
                tuple(float(v) for v in values.get("areas_um2", ())),
                _points(values.get("line_um", ())),
                str(values.get("word", "")),
                str(values.get("area_wkt", "")),
                reader,
                time,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"invalid correction: {values!r} ({error})") from error
        if made.kind not in get_args(Kind):
            raise InputError(f"unknown correction '{made.kind}'; use: {', '.join(get_args(Kind))}")
        n = _OBJECTS[made.kind]
        if not len(made.places_um) == len(made.centroids_um) == len(made.areas_um2) == n:
            raise InputError(
                f"the correction '{made.kind}' needs {counted(n, 'object')}: {values!r}"
            )
        if (made.kind == "split" and len(made.line_um) < 2) or (n == 0 and not made.area_wkt):
            raise InputError(f"the correction '{made.kind}' has no line or area: {values!r}")
        if made.kind == "flag" and not made.word:
            raise InputError(f"the correction 'flag' states no artefact type: {values!r}")
        return made


def _points(values: Any) -> tuple[Point, ...]:
    return tuple((float(row), float(column)) for row, column in values)


def digest_of(corrections: Iterable[Correction]) -> str:
    """Digest of the effect of corrections; independent of reader and time, and of undone ones."""
    return digest([correction.as_dict() for correction in corrections])


def targets_of(correction: Correction) -> list[tuple[Point, Point, float]]:
    """Position (µm), centroid (µm) and area (µm²) of each object that a correction refers to."""
    return list(
        zip(correction.places_um, correction.centroids_um, correction.areas_um2, strict=True)
    )


def describe_correction(correction: Correction) -> str:
    """A correction in words: kind, position, and size of a drawn area."""
    does = {
        "delete": "deleted",
        "merge": "merged with its neighbour",
        "split": "split",
        "class": f"class '{correction.word}'" if correction.word else "class cleared",
        "add": "added",
        "cut": "removed from the tissue",
        "flag": f"marked as {correction.word}",
        "clear": "artefact cleared",
    }[correction.kind]
    if correction.places_um:
        row, column = correction.places_um[0]
    else:
        row, column, area_um2 = _middle_and_area(correction.area_wkt)
        size = f"{area_um2:.3g} µm²"
        if area_um2 >= 999.5:  # three significant digits, without an exponent
            large = area_um2 >= 1e4
            size = f"{area_um2 / 1e6:.3g} mm²" if large else f"{round(area_um2, -1):.0f} µm²"
        does = f"{does}, {size}"
    return f"{does} at {row / 1000:.3f}, {column / 1000:.3f} mm"


def correction_area(correction: Correction) -> shapely.Polygon | shapely.MultiPolygon:
    """The area of a correction, µm of its frame; `InputError` if it cannot be read."""
    import shapely

    try:
        area = shapely.from_wkt(correction.area_wkt)
    except shapely.GEOSException as error:
        raise InputError(f"cannot read the area '{correction.area_wkt[:60]}…': {error}") from error
    if not isinstance(area, shapely.Polygon | shapely.MultiPolygon):
        raise InputError(f"a correction needs an area, not a {area.geom_type}; remove it")
    return area


def _middle_and_area(wkt: str) -> tuple[float, float, float]:
    """Row and column of the centroid of an area, µm, and its size, µm²; NaN if it is invalid."""
    import shapely

    try:
        area = shapely.from_wkt(wkt)
    except shapely.GEOSException:
        return float("nan"), float("nan"), float("nan")
    return float(area.centroid.y), float(area.centroid.x), float(area.area)
