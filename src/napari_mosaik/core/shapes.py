"""An annotated shape, shared by the annotation document and the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from shapely import MultiPolygon, Polygon

    from napari_mosaik.core.frame import Transform

__all__ = ["DECIDED_BY", "READER", "AnnotatedShape", "moved"]

DECIDED_BY: Final = "decided_by"
"""Property of an adjudicated shape: who decided its class."""
READER: Final = "reader"
"""Property of a shape: who drew it."""


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


def moved(shape: AnnotatedShape, transform: Transform) -> AnnotatedShape:
    """The shape on another section; *transform* maps the shape's frame to that section, µm."""
    from shapely.affinity import affine_transform

    m = transform.matrix  # on (row, column); shapely's x is the column
    on_xy = [m[1, 1], m[1, 0], m[0, 1], m[0, 0], m[1, 2], m[0, 2]]
    return replace(shape, geometry=affine_transform(shape.geometry, [float(v) for v in on_xy]))
