"""The state of an annotation document and its edits, as immutable values and JSON records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    "Edit",
    "Entry",
    "Snapshot",
    "TissueClass",
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

    def count_by_class(self) -> dict[str, int]:
        """Number of shapes of every class, including unused classes and unknown labels."""
        counts = {known.name: 0 for known in self.classes}
        for entry in self.entries.values():
            counts[entry.shape.label] = counts.get(entry.shape.label, 0) + 1
        return counts

    def area_by_class_um2(self) -> dict[str, float]:
        """Total area of the shapes of each class, µm²; overlaps count twice."""
        areas = {known.name: 0.0 for known in self.classes}
        labels = [entry.shape.label for entry in self.entries.values()]
        each = shapely.area([entry.shape.geometry for entry in self.entries.values()])
        for label, area in zip(labels, np.atleast_1d(each), strict=True):
            areas[label] = areas.get(label, 0.0) + float(area)
        return areas


@dataclass(frozen=True, slots=True, eq=False)
class AppliedEdit:
    """An applied edit: each entry before and after, for undo and redo."""

    title: str
    before: Mapping[str, Entry | None]
    after: Mapping[str, Entry | None]
    classes: tuple[tuple[TissueClass, ...], tuple[TissueClass, ...]] | None


def edit_record(edit: Edit) -> dict[str, Any]:
    """JSON-able form of an edit; geometries are well-known binary, which is exact."""
    record: dict[str, Any] = {"title": edit.title}
    if edit.put:
        record["put"] = [_shape_record(shape) for shape in edit.put]
    if edit.removed:
        record["removed"] = list(edit.removed)
    if edit.classes is not None:
        record["classes"] = [
            [c.name, c.colour, c.key, *([_LOCKED] if c.locked else [])] for c in edit.classes
        ]
    return record


def edit_from(record: Mapping[str, Any]) -> Edit:
    """The inverse of `edit_record`; `CorruptArtifact` if the record is not valid."""
    try:
        put = tuple(_shape_from(shape) for shape in record.get("put", ()))
        classes = record.get("classes")
        return Edit(
            str(record["title"]),
            put,
            tuple(str(key) for key in record.get("removed", ())),
            None if classes is None else tuple(map(_class_from, classes)),
        )
    except (KeyError, TypeError, ValueError, shapely.GEOSException) as error:
        raise CorruptArtifact(
            f"an edit in the journal cannot be read ({error}); "
            "restore the annotations from their GeoJSON file"
        ) from error


def _class_from(record: Sequence[Any]) -> TissueClass:
    name, colour, key = map(str, record[:3])
    return TissueClass(name, colour, key, locked=_LOCKED in record[3:])


def _shape_record(shape: AnnotatedShape) -> dict[str, Any]:
    record: dict[str, Any] = {
        "key": shape.key,
        "label": shape.label,
        "wkb": shapely.to_wkb(shape.geometry, hex=True),
    }
    if shape.colour:
        record["colour"] = shape.colour
    if shape.properties:
        record["properties"] = dict(shape.properties)
    return record


def _shape_from(record: Mapping[str, Any]) -> AnnotatedShape:
    geometry = shapely.from_wkb(record["wkb"])
    if not isinstance(geometry, Polygon | MultiPolygon):
        raise ValueError(f"a {geometry.geom_type} is not an area")
    return AnnotatedShape(
        str(record["key"]),
        str(record["label"]),
        geometry,
        str(record.get("colour", "")),
        dict(record.get("properties", {})),
    )
