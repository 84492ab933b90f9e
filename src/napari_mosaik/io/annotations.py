"""Annotations as GeoJSON that QuPath reads and writes: polygons in level-0 pixels of a slide."""

from __future__ import annotations

import gzip
import json
import math
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mosaik.core import InputError, Lattice
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.io.files import write_bytes

if TYPE_CHECKING:
    from shapely import MultiPolygon, Polygon

__all__ = ["read_geojson", "write_geojson"]

_MEMBERS = "geojson:members"
"""Property under which members of a feature that GeoJSON does not define are kept."""
_GEOMETRIES = {
    "Polygon", "MultiPolygon", "GeometryCollection", "Point", "MultiPoint", "LineString",
    "MultiLineString",
}  # fmt: skip
_DIGITS = 6
"""Decimals of written pixel coordinates."""


def read_geojson(
    path: Path | str, lattice: Lattice, *, notes: list[str] | None = None
) -> tuple[AnnotatedShape, ...]:
    """Read the annotated areas of a slide.

    Parameters
    ----------
    path
        A feature collection, a list of features or one feature; may be compressed (gzip).
    lattice
        Level-0 lattice of the slide: x counts its columns and y its rows from pixel corners.
    notes
        Receives a sentence for each shape that was repaired or excluded (points and lines have no
        area); without it these are issued as warnings.

    Returns
    -------
    tuple of AnnotatedShape
        Geometry in µm; identifiers, classes, colours and all other properties are kept.

    Raises
    ------
    InputError
        If the file is no GeoJSON or a feature cannot be repaired; the message names the feature.

    References
    ----------
    RFC 7946; QuPath's GeoJSON export.
    """
    path = Path(path)
    messages: list[str] = []
    shapes: list[AnnotatedShape] = []
    keys: set[str] = set()
    for number, feature in enumerate(_features(path)):
        key = _key(feature, number)
        if key in keys:
            messages.append(
                f"{path.name}: the identifier {key} occurs twice; the second is renamed"
            )
            key = f"{key}#{number}"
        keys.add(key)
        geometry = _geometry(path, key, feature.get("geometry"), lattice, messages)
        if geometry is not None:
            shapes.append(_shape(key, feature, geometry))
    if notes is not None:
        notes += messages
    else:
        for sentence in messages:
            warnings.warn(sentence, stacklevel=2)
    return tuple(shapes)


def write_geojson(path: Path | str, shapes: Iterable[AnnotatedShape], lattice: Lattice) -> None:
    """Write annotated areas as a feature collection, atomically.

    Parameters
    ----------
    path
        Target; compressed if its name ends with ``.gz``.
    shapes
        Areas in µm of the slide.
    lattice
        Level-0 lattice of the slide.

    Notes
    -----
    Numbers that are not finite are written as QuPath writes them (``NaN``).
    """
    path = Path(path)
    collection = {
        "type": "FeatureCollection",
        "features": [_feature(shape, lattice) for shape in shapes],
    }
    content = json.dumps(collection, indent=1, ensure_ascii=False).encode() + b"\n"
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    write_bytes(path, content)


def _features(path: Path) -> list[Mapping[str, Any]]:
    """The features of a file with any root element."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        root = json.loads(content.decode("utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise InputError(f"{path.name} is not readable GeoJSON: {error}") from error
    if isinstance(root, Mapping) and root.get("type") == "FeatureCollection":
        root = root.get("features")
    elif isinstance(root, Mapping):
        root = [root]
    if not isinstance(root, list) or not all(isinstance(item, Mapping) for item in root):
        raise InputError(f"{path.name} is not GeoJSON: it holds no list of features")
    return [_as_feature(path, item) for item in root]


def _as_feature(path: Path, item: Mapping[str, Any]) -> Mapping[str, Any]:
    """A feature; a bare geometry becomes one."""
    if item.get("type") in _GEOMETRIES:
        return {"type": "Feature", "geometry": item, "properties": {}}
    if item.get("type") != "Feature":
        raise InputError(f"{path.name} is not GeoJSON: it holds a '{item.get('type')}'")
    return item


def _key(feature: Mapping[str, Any], number: int) -> str:
    key = feature.get("id", (feature.get("properties") or {}).get("id"))
    return f"feature-{number}" if key in (None, "") else str(key)


def _geometry(
    path: Path, key: str, stored: Any, lattice: Lattice, messages: list[str]
) -> Polygon | MultiPolygon | None:
    """The area of a feature in µm; None, with a message, for points and lines."""
    import shapely
    from shapely.geometry import shape

    if not isinstance(stored, Mapping):
        messages.append(f"{path.name}: {key} has no geometry and is excluded")
        return None
    try:
        with np.errstate(invalid="ignore"):  # coordinates that are no numbers are refused below
            found = shapely.force_2d(shape(dict(stored)))
    except Exception as error:
        raise InputError(
            f"{path.name}: the outline of {key} cannot be read ({error}); correct or delete it"
        ) from error
    if not np.isfinite(shapely.get_coordinates(found)).all():
        raise InputError(f"{path.name}: {key} has coordinates that are not numbers; correct it")
    if shapely.get_dimensions(found) < 2 and not found.is_empty:
        messages.append(f"{path.name}: {key} is a {found.geom_type}, which has no area; excluded")
        return None
    if not found.is_valid:
        reason = shapely.is_valid_reason(found)
        messages.append(f"{path.name}: the outline of {key} was repaired ({reason})")
        found = shapely.make_valid(found)
    area = _polygons(found)
    if area is None:
        raise InputError(f"{path.name}: the outline of {key} encloses no area; redraw or delete it")
    moved: Polygon | MultiPolygon = _moved(area, lattice.spacing_um, lattice.origin_um)
    return moved


def _polygons(geometry: Any) -> Polygon | MultiPolygon | None:
    """The parts of a geometry that have an area."""
    import shapely

    if geometry.geom_type in ("Polygon", "MultiPolygon"):
        area: Polygon | MultiPolygon = geometry
        return None if area.is_empty or area.area == 0 else area
    parts = [p for part in getattr(geometry, "geoms", ()) if (p := _polygons(part)) is not None]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else _polygons(shapely.union_all(parts))


def _moved(geometry: Any, spacing: tuple[float, float], origin: tuple[float, float]) -> Any:
    """Pixels (x = column) to µm."""
    import shapely

    scale, shift = np.array(spacing[::-1]), np.array(origin[::-1])
    return shapely.transform(geometry, lambda points: points * scale + shift)


def _shape(key: str, feature: Mapping[str, Any], geometry: Any) -> AnnotatedShape:
    """An annotated shape; class and colour are removed from the properties, the rest is kept."""
    properties = dict(feature.get("properties") or {})
    given = properties.pop("classification", None)
    named = {"name": given} if isinstance(given, str) else dict(given or {})
    label = named.pop("name", None) or ": ".join(map(str, named.pop("names", None) or ()))
    colour = _colour(named.pop("color", None), named.pop("colorRGB", None))
    if given is None:
        colour = _colour(properties.pop("color", None), properties.pop("colorRGB", None))
    if named:
        properties["classification"] = named
    known = {"type", "id", "geometry", "properties"}
    members = {name: value for name, value in feature.items() if name not in known}
    if members:
        properties[_MEMBERS] = members
    return AnnotatedShape(key, str(label), geometry, colour, properties)


def _colour(rgb: Any, packed: Any) -> str:
    """``#rrggbb`` from QuPath's list or its older packed number; empty if there is none."""
    if isinstance(rgb, list) and len(rgb) >= 3 and all(_is_byte(v) for v in rgb[:3]):
        return "#{:02x}{:02x}{:02x}".format(*(int(v) for v in rgb[:3]))
    if isinstance(packed, int):
        return f"#{packed & 0xFFFFFF:06x}"
    return ""


def _is_byte(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= 255


def _feature(shape: AnnotatedShape, lattice: Lattice) -> dict[str, Any]:
    """A shape as QuPath writes it, with all other members that were read."""
    from shapely.geometry import mapping

    properties = {"objectType": "annotation", **shape.properties}
    members = properties.pop(_MEMBERS, {})
    rgb = [int(shape.colour[i : i + 2], 16) for i in (1, 3, 5)] if shape.colour else None
    named = dict(properties.pop("classification", {}))
    if shape.label:
        named = {"name": shape.label, **({"color": rgb} if rgb else {}), **named}
    elif rgb:
        properties["color"] = rgb
    if named:
        properties["classification"] = named
    scale, origin = 1 / np.array(lattice.spacing_um), np.array(lattice.origin_um)
    pixels = _moved(
        shape.geometry, (scale[0], scale[1]), (-origin[0] * scale[0], -origin[1] * scale[1])
    )
    stored = mapping(pixels)
    geometry = {"type": stored["type"], "coordinates": _rounded(stored["coordinates"])}
    return {
        "type": "Feature",
        "id": shape.key,
        "geometry": geometry,
        "properties": properties,
        **members,
    }


def _rounded(coordinates: Any) -> Any:
    if isinstance(coordinates, int | float):
        return round(float(coordinates), _DIGITS)
    return [_rounded(part) for part in coordinates]
