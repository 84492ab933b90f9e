"""A shape that a person drew: shared by the annotation document and the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shapely import MultiPolygon, Polygon

__all__ = ["AnnotatedShape"]


@dataclass(frozen=True, slots=True, eq=False)
class AnnotatedShape:
    """One polygon (holes and parts allowed) of one class.

    Parameters
    ----------
    key
        Unique name; kept through files.
    label
        Class name ("neoplastic"); empty when the file gave none.
    geometry
        Shapely polygon or multipolygon with x = column and y = row, both in µm of the slide.
    colour
        "#rrggbb" or empty.
    properties
        Other properties of the file, kept for the round trip.
    """

    key: str
    label: str
    geometry: Polygon | MultiPolygon
    colour: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)
