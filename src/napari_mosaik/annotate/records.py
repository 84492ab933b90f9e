"""Edits as JSON records and back, without losing a bit of a coordinate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import shapely
from shapely import MultiPolygon, Polygon

from napari_mosaik.annotate.state import Edit, TissueClass
from napari_mosaik.core import CorruptArtifact
from napari_mosaik.core.shapes import AnnotatedShape

__all__ = ["edit_from", "edit_record"]


def edit_record(edit: Edit) -> dict[str, Any]:
    """JSON-able form of an edit; geometries as well-known binary, so that they return exactly."""
    record: dict[str, Any] = {"title": edit.title}
    if edit.put:
        record["put"] = [_shape_record(shape) for shape in edit.put]
    if edit.removed:
        record["removed"] = list(edit.removed)
    if edit.classes is not None:
        record["classes"] = [[c.name, c.colour, c.key] for c in edit.classes]
    return record


def edit_from(record: Mapping[str, Any]) -> Edit:
    """The inverse of `edit_record`; `CorruptArtifact` when the record makes no sense."""
    try:
        put = tuple(_shape_from(shape) for shape in record.get("put", ()))
        classes = record.get("classes")
        return Edit(
            str(record["title"]),
            put,
            tuple(str(key) for key in record.get("removed", ())),
            None if classes is None else tuple(TissueClass(*map(str, c)) for c in classes),
        )
    except (KeyError, TypeError, ValueError, shapely.GEOSException) as error:
        raise CorruptArtifact(
            f"an edit in the journal cannot be read ({error}); "
            "restore the annotations from their GeoJSON file"
        ) from error


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
        raise ValueError(f"a {geometry.geom_type} is no area")
    return AnnotatedShape(
        str(record["key"]),
        str(record["label"]),
        geometry,
        str(record.get("colour", "")),
        dict(record.get("properties", {})),
    )
