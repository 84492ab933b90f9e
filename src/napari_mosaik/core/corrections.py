"""What a reader corrects by hand, as it stands after every undo; free of files and windows.

    event "add" {correction}, "undo", "redo"  ──standing()──►  corrections that count, in order

A correction names places in µm of its section and never a number of an object: numbers change when
a segmentation is run again, places stay.  Beside each place it holds the centroid and the area of
the object that was meant, so that the object is found again or is reported as lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, get_args

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.params import digest

__all__ = [
    "CORRECTED_FRAMES",
    "Correction",
    "Kind",
    "Point",
    "active_corrections",
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
"""What can be corrected, and the section on which its places lie."""
_OBJECTS: Final = {
    "delete": 1, "merge": 2, "split": 1, "class": 1, "add": 0, "cut": 0, "flag": 0, "clear": 0
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Correction:
    """One correction.

    Parameters
    ----------
    kind
        "delete", "merge", "split" or "class" of objects; "add" to or "cut" from a tissue mask;
        "flag" a place as bad, or "clear" it.
    places_um
        A place within each object that is meant (two for "merge"); none for a mask.
    centroids_um, areas_um2
        Centroid and area, µm and µm², of each of these objects when it was corrected.
    line_um
        The line that splits an object.
    word
        The class that is given, where empty takes it away; what is bad about a flagged place.
    area_wkt
        The area that is added, cut, flagged or cleared, as well-known text with x = column and
        y = row in µm.
    reader, time
        Who corrected, and when (ISO, UTC); they do not change the result.
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
        """JSON-able form without reader and time, empty entries left out."""
        values = {key: value for key, value in asdict(self).items() if value}
        return {key: value for key, value in values.items() if key not in ("reader", "time")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], reader: str = "", time: str = "") -> Correction:
        """The inverse of `as_dict`; what is no correction raises `InputError`."""
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
            raise InputError(f"this is no correction: {values!r} ({error})") from error
        if made.kind not in get_args(Kind):
            raise InputError(f"'{made.kind}' is no correction; use: {', '.join(get_args(Kind))}")
        n = _OBJECTS[made.kind]
        if not len(made.places_um) == len(made.centroids_um) == len(made.areas_um2) == n:
            raise InputError(f"the correction '{made.kind}' needs {n} object(s): {values!r}")
        if (made.kind == "split" and len(made.line_um) < 2) or (n == 0 and not made.area_wkt):
            raise InputError(f"the correction '{made.kind}' lacks its line or area: {values!r}")
        if made.kind == "flag" and not made.word:
            raise InputError(f"the correction 'flag' does not say what is bad: {values!r}")
        return made


def _points(values: Any) -> tuple[Point, ...]:
    return tuple((float(row), float(column)) for row, column in values)


def active_corrections(
    events: Iterable[Mapping[str, Any]], reader: str = ""
) -> tuple[list[Correction], list[Correction]]:
    """The corrections of one reader that count, and those taken back that can be made again.

    Raises `InputError` for an undo of nothing: a part of the record is lost then.
    """
    made: list[Correction] = []
    back: list[Correction] = []
    for event in events:
        kind = event.get("event")
        if kind == "add":
            time = str(event.get("time", ""))
            made.append(Correction.from_dict(event.get("correction") or {}, reader, time))
            back.clear()
        elif kind in ("undo", "redo"):
            source, target = (made, back) if kind == "undo" else (back, made)
            if not source:
                raise InputError(f"the corrections of {reader} hold an '{kind}' of nothing")
            target.append(source.pop())
    return made, back


def digest_of(corrections: Iterable[Correction]) -> str:
    """Digest of what corrections do: equal whoever made them and when, and after undo."""
    return digest([correction.as_dict() for correction in corrections])


def targets_of(correction: Correction) -> list[tuple[Point, Point, float]]:
    """Place, centroid and area of each object that a correction means."""
    return list(
        zip(correction.places_um, correction.centroids_um, correction.areas_um2, strict=True)
    )


def describe_correction(correction: Correction) -> str:
    """A correction in words: what, where, and how large an area that was drawn is."""
    does = {
        "delete": "deleted",
        "merge": "merged with its neighbour",
        "split": "split",
        "class": f"class '{correction.word}'" if correction.word else "class taken away",
        "add": "added to the tissue",
        "cut": "cut from the tissue",
        "flag": f"flagged as {correction.word}",
        "clear": "flag taken away",
    }[correction.kind]
    if correction.places_um:
        row, column = correction.places_um[0]
    else:
        row, column, area_um2 = _middle_and_area(correction.area_wkt)
        does = f"{does}, {area_um2 / 1e6:.3g} mm²"
    return f"{does} at {row / 1000:.3f}, {column / 1000:.3f} mm"


def _middle_and_area(wkt: str) -> tuple[float, float, float]:
    """Row, column (µm) of the middle of an area and its size, µm²; NaN where it is no area."""
    import shapely

    try:
        area = shapely.from_wkt(wkt)
    except shapely.GEOSException:
        return float("nan"), float("nan"), float("nan")
    return float(area.centroid.y), float(area.centroid.x), float(area.area)
