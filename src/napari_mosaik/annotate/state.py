"""The state of an annotation document and its edits, as immutable values and JSON records."""

from __future__ import annotations

import json
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon

from napari_mosaik.core import CorruptArtifact, InputError
from napari_mosaik.core.catalogue import BACKGROUND, CLASS_NAMES
from napari_mosaik.core.palette import CLASS_COLOURS
from napari_mosaik.core.shapes import AnnotatedShape

__all__ = [
    "DEFAULT_CLASSES",
    "LOCK",
    "AppliedEdit",
    "ClassTotals",
    "Edit",
    "Entry",
    "Snapshot",
    "TissueClass",
    "class_from",
    "class_record",
    "edit_from",
    "edit_record",
]


@dataclass(frozen=True, slots=True)
class TissueClass:
    """A tissue class of shapes: its name, colour and keyboard key, and whether it is locked."""

    name: str
    colour: str
    key: str = ""
    locked: bool = False


LOCK: Final = "isLocked"
"""Property of a locked shape, as QuPath names it."""
_LOCKED: Final = "locked"


DEFAULT_CLASSES: Final = tuple(
    TissueClass(CLASS_NAMES[code], CLASS_COLOURS[code], str(key))
    for key, code in enumerate(
        (*sorted(code for code in CLASS_NAMES if code > BACKGROUND), BACKGROUND), 1
    )
)
"""The built-in classes: tissue first, background last."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A shape and its position in the drawing order."""

    order: int
    shape: AnnotatedShape


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """One change that can be undone: its title, and the shapes that it adds or removes.

    Parameters
    ----------
    title
        Title in the undo button ("brush", "change class").
    put
        Shapes to add, or to replace under the same key.
    removed
        Keys of shapes to remove.
    classes
        The new list of classes; None if unchanged.
    """

    title: str
    put: tuple[AnnotatedShape, ...] = ()
    removed: tuple[str, ...] = ()
    classes: tuple[TissueClass, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The annotations at one moment; immutable, so that a background task can read it safely."""

    classes: tuple[TissueClass, ...] = DEFAULT_CLASSES
    entries: Mapping[str, Entry] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def shapes(self) -> tuple[AnnotatedShape, ...]:
        """All shapes in drawing order, the last on top."""
        return tuple(e.shape for e in sorted(self.entries.values(), key=lambda e: e.order))

    def tissue_class(self, name: str) -> TissueClass:
        """The class of that name; `InputError` if there is none."""
        for known in self.classes:
            if known.name == name:
                return known
        raise InputError(
            f"no class '{name}'; use one of: {', '.join(c.name for c in self.classes)}"
        )


class ClassTotals:
    """Number and area of the shapes of each class, kept up to date edit by edit.

    Areas are counted in whole units of 1e-6 µm², so that they do not depend on the order of edits.
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._totals: dict[str, list[int]] = {}
        self.add([entry.shape for entry in entries.values()])

    def add(self, shapes: Sequence[AnnotatedShape], sign: int = 1) -> None:
        """Add shapes, or take them away with the *sign* -1."""
        if not shapes:
            return
        areas = np.rint(shapely.area([shape.geometry for shape in shapes]) * 1e6)
        for shape, area in zip(shapes, areas, strict=True):
            total = self._totals.setdefault(shape.label, [0, 0])
            total[0] += sign
            total[1] += sign * int(area)

    def of(self, classes: Iterable[TissueClass]) -> dict[str, tuple[int, float]]:
        """Number, and area in µm², of *classes* and of the other labels in use.

        Overlaps count twice.
        """
        known = {one.name: (0, 0.0) for one in classes}
        used = {name: (n, area / 1e6) for name, (n, area) in self._totals.items() if n}
        return {**known, **used}


@dataclass(frozen=True, slots=True, eq=False)
class AppliedEdit:
    """An applied edit: its number, and each entry before and after, for undo and redo."""

    n: int
    title: str
    before: Mapping[str, Entry | None]
    after: Mapping[str, Entry | None]
    classes: tuple[tuple[TissueClass, ...], tuple[TissueClass, ...]] | None


def edit_record(edit: Edit) -> dict[str, Any]:
    """JSON-able form of an edit; geometries are well-known binary, which is exact."""
    record: dict[str, Any] = {"title": edit.title or "edit"}
    if edit.put:
        areas: Any = shapely.to_wkb([shape.geometry for shape in edit.put])
        record["put"] = [
            _shape_record(shape, b2a_base64(area, newline=False).decode())
            for shape, area in zip(edit.put, areas, strict=True)
        ]
    if edit.removed:
        record["removed"] = list(edit.removed)
    if edit.classes is not None:
        record["classes"] = [class_record(known) for known in edit.classes]
    return record


def edit_from(record: Mapping[str, Any]) -> Edit:
    """The inverse of `edit_record`; `CorruptArtifact` if the record is not valid."""
    try:
        records = record.get("put", ())
        areas: Any = shapely.from_wkb([_binary(shape["wkb"]) for shape in records])
        put = tuple(_shape_from(*pair) for pair in zip(records, areas, strict=True))
        classes = record.get("classes")
        return Edit(
            str(record["title"]),
            put,
            tuple(str(key) for key in record.get("removed", ())),
            None if classes is None else tuple(map(class_from, classes)),
        )
    except (KeyError, TypeError, ValueError, shapely.GEOSException) as error:
        raise CorruptArtifact(
            f"an edit in the journal cannot be read ({error}); "
            "the annotations of this reader cannot be opened"
        ) from error


def _binary(text: str) -> bytes:
    """Well-known binary in base 64, or in hexadecimal digits as earlier versions wrote it."""
    return bytes.fromhex(text) if text[:1] == "0" else a2b_base64(text)


def class_record(known: TissueClass) -> list[str]:
    """JSON-able form of a class."""
    return [known.name, known.colour, known.key, *([_LOCKED] if known.locked else [])]


def class_from(record: Sequence[Any]) -> TissueClass:
    """The inverse of `class_record`."""
    name, colour, key = map(str, record[:3])
    return TissueClass(name, colour, key, locked=_LOCKED in record[3:])


def _shape_record(shape: AnnotatedShape, wkb: str) -> dict[str, Any]:
    record: dict[str, Any] = {"key": shape.key, "label": shape.label, "wkb": wkb}
    if shape.colour:
        record["colour"] = shape.colour
    if shape.properties:
        record["properties"] = json.dumps(shape.properties)  # text: NaN and long numbers stay
    return record


def _shape_from(record: Mapping[str, Any], geometry: Any) -> AnnotatedShape:
    if not isinstance(geometry, Polygon | MultiPolygon):
        raise ValueError(f"a {geometry.geom_type} is not an area")
    given = record.get("properties", {})
    return AnnotatedShape(
        str(record["key"]),
        str(record["label"]),
        geometry,
        str(record.get("colour", "")),
        json.loads(given) if isinstance(given, str) else dict(given),
    )
