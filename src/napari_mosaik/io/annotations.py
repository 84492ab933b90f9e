"""Annotations as GeoJSON that QuPath reads and writes: polygons in level-0 pixels of a slide."""

from __future__ import annotations

import gzip
import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_mosaik.core import InputError, Lattice
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.core.text import decoded
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
_OLDER_TYPES = {
    "PathAnnotationObject": "annotation", "PathDetectionObject": "detection",
    "PathCellObject": "cell", "PathTileObject": "tile", "PathRootObject": "root",
    "TMACoreObject": "tma core",
}  # fmt: skip
"""What QuPath before 0.4 wrote as identifier of every object of a kind."""
_LARGEST: Final = 1 << 30
_BY_QUPATH = "open the slide with these annotations in QuPath and export them as GeoJSON"
_OTHER_JSON = (
    ({"shapes", "imagePath"}, f"it is JSON of LabelMe; {_BY_QUPATH}"),
    ({"images", "annotations"}, f"it is JSON of COCO; {_BY_QUPATH}"),
    ({"elements"}, f"it is JSON of the Digital Slide Archive; {_BY_QUPATH}"),
    ({"nuc"}, "it is a list of nuclei (HoVer-Net), no annotation of tissue"),
)
_ANYWHERE: Final = re.IGNORECASE | re.DOTALL
_OTHER_TEXT = (
    ("<.*ASAP_Annotations", f"it is XML of ASAP; {_BY_QUPATH}"),
    ("<.*(<Annotations[^>]*MicronsPerPixel|<Region[ >])", f"it is XML of ImageScope; {_BY_QUPATH}"),
    ("<Annotations[^>]*MicronsPerPixel", f"it is XML of ImageScope; {_BY_QUPATH}"),
    ("<.*ndpviewstate", f"it is an NDPA file of NDP.view; {_BY_QUPATH}"),
    ("<.*html", "it is a web page; download the file itself"),
    ("<", f"it is XML; {_BY_QUPATH}"),
    (
        r"(MULTI)?(POLYGON|POINT|LINESTRING)\b|GEOMETRYCOLLECTION\b",
        f"it is well-known text (WKT); {_BY_QUPATH}",
    ),
    ("version https://git-lfs", "it is a pointer of Git LFS; fetch the file with: git lfs pull"),
    (
        ".*shape-type.*axis-0",
        "it is a CSV of napari's Shapes layer, which names no classes; draw in the Annotate tab "
        "instead",
    ),
)
"""Beginnings of files that are no JSON, in order, and what they are."""
_DIGITS = 6
"""Decimals of written pixel coordinates."""


def read_geojson(
    path: Path | str,
    lattice: Lattice,
    *,
    notes: list[str] | None = None,
    tissue_only: bool = False,
    points: bool = False,
) -> tuple[AnnotatedShape, ...]:
    """Read the annotated areas of a slide.

    Parameters
    ----------
    path
        A feature collection, a list of features, one feature, or one feature per line; may be
        compressed (gzip, or the zip that QuPath writes).
    lattice
        Level-0 lattice of the slide: x counts its columns and y its rows from pixel corners.
    notes
        Receives a sentence for each kind of doubt with the identifiers of its shapes: those that
        were repaired or excluded (points and lines have no area).
    tissue_only
        Exclude cells, detections and tiles, which are no annotations of tissue.
    points
        Keep points, as tiny areas around them.

    Returns
    -------
    tuple of AnnotatedShape
        Geometry in µm; identifiers, classes, colours and all other properties are kept.

    Raises
    ------
    InputError
        If the file is no GeoJSON, or no outline in it can be used; the message names the features.

    References
    ----------
    RFC 7946; QuPath's GeoJSON export.
    """
    path = Path(path)
    doubts = _Doubts(path.name)
    shapes: list[AnnotatedShape] = []
    keys: set[str] = set()
    for number, feature in enumerate(_features(path)):
        kind = _object_type(feature)
        if tissue_only and kind not in ("", "annotation"):
            doubts.add("is a {} of QuPath, no annotation of tissue, and is excluded", "", kind)
            continue
        key = _key(feature, number)
        if key in keys:
            doubts.add("occurs twice as identifier; the second is renamed", key)
            key = f"{key}#{number}"
        keys.add(key)
        stored = feature.get("geometry")
        if points and isinstance(stored, Mapping) and stored.get("type") == "Point":
            stored = _around_point(stored)
        geometry = _geometry(key, stored, lattice, doubts)
        if geometry is not None:
            shapes.append(_shape(key, feature, geometry, doubts))
    sentences = doubts.sentences()
    if not shapes and doubts.hopeless:
        raise InputError(f"{'; '.join(sentences)}; correct or redraw the outlines")
    if notes is not None:
        notes += sentences
    return tuple(shapes)


class _Doubts:
    """Doubts about the features of a file: one sentence for each kind, with all identifiers."""

    _LISTED: Final = 40

    def __init__(self, name: str) -> None:
        self.hopeless = False
        self._name = name
        self._found: dict[tuple[str, str], list[str]] = {}

    def add(self, text: str, key: str, word: str = "", *, hopeless: bool = False) -> None:
        """Note a feature; *word* fills the gap of *text*."""
        self._found.setdefault((text, word), []).append(key)
        self.hopeless |= hopeless

    def sentences(self) -> list[str]:
        """The doubts, each as one sentence."""
        lines = []
        for (text, word), keys in self._found.items():
            text, n = text.format(word), len(keys)
            named = [key for key in keys if key]
            if n == 1:
                who = named[0] if named else f"an object {keys[0]}".strip()
            else:
                who = f"each of {n} shapes" if named else f"each of {n} objects"
            more = f", and {n - self._LISTED} more" if n > self._LISTED else ""
            listed = f" ({', '.join(named[: self._LISTED])}{more})" if named and n > 1 else ""
            lines.append(f"{self._name}: {who} {text}{listed}")
        return lines


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
    text = decoded(_content(path), str(path)).removeprefix("\ufeff").strip()
    other = _other_format(text)
    if other:
        raise InputError(f"{path.name} is not GeoJSON: {other}")
    try:
        root = json.loads(text)
    except (ValueError, RecursionError) as error:
        root = _one_per_line(text)
        if root is None:
            raise InputError(f"{path.name} is not readable GeoJSON: {error}") from error
    if isinstance(root, Mapping) and root.get("type") == "FeatureCollection":
        root = root.get("features")
    elif isinstance(root, Mapping):
        other = next((why for has, why in _OTHER_JSON if has <= set(root)), "")
        if other:
            raise InputError(f"{path.name} is not GeoJSON: {other}")
        root = [root]
    if not isinstance(root, list) or not all(isinstance(item, Mapping) for item in root):
        raise InputError(f"{path.name} is not GeoJSON: it holds no list of features")
    nested = [_features_of(path, item) for item in root]
    return [feature for features in nested for feature in features]


def _features_of(path: Path, item: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The features of one item; a bare geometry becomes one."""
    kind = item.get("type")
    if kind == "FeatureCollection" and isinstance(item.get("features"), list):
        inner = [one for one in item["features"] if isinstance(one, Mapping)]
        return [feature for one in inner for feature in _features_of(path, one)]
    if kind in _GEOMETRIES:
        return [{"type": "Feature", "geometry": item, "properties": {}}]
    if kind != "Feature":
        raise InputError(
            f"{path.name} is not GeoJSON: it holds {f'a {kind!r}' if kind else 'an object'} "
            "instead of a Feature; export the annotations as GeoJSON from QuPath"
        )
    return [item]


def _content(path: Path) -> bytes:
    """The bytes of a file, unpacked (gzip, or a zip of one file)."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start[:2] == b"\x1f\x8b":
            with gzip.open(path) as packed:
                content = packed.read(_LARGEST + 1)
        elif start == b"PK\x03\x04":
            content = _unzipped(path)
        else:
            with path.open("rb") as file:
                content = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path.name} is not readable GeoJSON: {reason}") from error
    if len(content) > _LARGEST:
        raise InputError(
            f"{path.name} holds more than {_LARGEST >> 20} MB; export the annotations alone, "
            "without cells and detections"
        )
    return content


def _unzipped(path: Path) -> bytes:
    with zipfile.ZipFile(path) as packed:
        files = [item for item in packed.infolist() if not item.is_dir()]
        found = [item for item in files if item.filename.lower().endswith((".geojson", ".json"))]
        found = found or files
        if len(found) != 1:
            names = ", ".join(item.filename for item in found[:5]) or "nothing"
            raise InputError(
                f"{path.name} must hold one GeoJSON file, not {names}; unpack it and give one file"
            )
        with packed.open(found[0]) as file:
            return file.read(_LARGEST + 1)


def _one_per_line(text: str) -> list[Any] | None:
    """The features of a file that holds one on each line; None if it does not."""
    try:
        lines = [line.strip("\x1e \t\r") for line in text.split("\n")]
        return [json.loads(line) for line in lines if line]
    except (ValueError, RecursionError):
        return None


def _other_format(text: str) -> str:
    """What a file is that is no JSON, and what to do; empty if it is not recognised."""
    start = text[:4000]
    if not start:
        return "it is empty"
    return next((what for pattern, what in _OTHER_TEXT if re.match(pattern, start, _ANYWHERE)), "")


def _object_type(feature: Mapping[str, Any]) -> str:
    """What QuPath says that a feature is: "annotation", "cell"...; empty if nothing."""
    properties = feature.get("properties")
    given = properties.get("objectType") if isinstance(properties, Mapping) else None
    given = given or (properties.get("object_type") if isinstance(properties, Mapping) else None)
    older = _OLDER_TYPES.get(str(feature.get("id")), "")
    kind = str(given).strip().casefold() if given else older
    return "cell" if not kind and "nucleusGeometry" in feature else kind


def _key(feature: Mapping[str, Any], number: int) -> str:
    properties = feature.get("properties")
    other = properties.get("id") if isinstance(properties, Mapping) else None
    key = feature.get("id", other)
    nothing = key in (None, "") or str(key) in _OLDER_TYPES
    return f"feature-{number}" if nothing else str(key)


def _geometry(
    key: str, stored: Any, lattice: Lattice, doubts: _Doubts
) -> Polygon | MultiPolygon | None:
    """The area of a feature in µm; None, with a doubt, for what has no area."""
    import shapely
    from shapely.geometry import shape

    if not isinstance(stored, Mapping):
        doubts.add("has no geometry and is excluded", key)
        return None
    try:
        with np.errstate(invalid="ignore"):  # coordinates that are no numbers are excluded below
            found = shapely.force_2d(shape(dict(stored)))
    except Exception:  # noqa: BLE001 - shapely raises what the coordinates lead to
        doubts.add("has an outline that cannot be read and is excluded", key, hopeless=True)
        return None
    if not np.isfinite(shapely.get_coordinates(found)).all():
        doubts.add("has coordinates that are not numbers and is excluded", key, hopeless=True)
        return None
    if shapely.get_dimensions(found) < 2 and not found.is_empty:
        doubts.add("is a {}, which has no area, and is excluded", key, found.geom_type)
        return None
    repaired = not found.is_valid
    if repaired:
        reason = shapely.is_valid_reason(found).partition("[")[0].lower()
        found = shapely.make_valid(found)
    area = _polygons(found)
    if area is None:
        doubts.add("encloses no area and is excluded", key, hopeless=True)
        return None
    if repaired:
        doubts.add("was repaired: its outline had a {}", key, reason)
    moved: Polygon | MultiPolygon = _moved(area, lattice.spacing_um, lattice.origin_um)
    return moved


def _around_point(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """A square of a thousandth of a pixel around a point; what cannot be read stays as it is."""
    try:
        x, y = (float(value) for value in stored["coordinates"][:2])
    except (KeyError, TypeError, ValueError):
        return stored
    left, top, right, bottom = x - 5e-4, y - 5e-4, x + 5e-4, y + 5e-4
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {"type": "Polygon", "coordinates": [ring]}


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


def _shape(key: str, feature: Mapping[str, Any], geometry: Any, doubts: _Doubts) -> AnnotatedShape:
    """An annotated shape; class and colour are removed from the properties, the rest is kept."""
    stored = feature.get("properties")
    properties = dict(stored) if isinstance(stored, Mapping) else {}
    given = properties.pop("classification", None)
    if isinstance(given, list) and all(isinstance(part, str) for part in given):
        given = ": ".join(given)
    if given is not None and not isinstance(given, str | Mapping):
        doubts.add("has a classification that is no name ({}) and counts as without class",
                   key, json.dumps(given)[:40])  # fmt: skip
        given = None
    named = {"name": given} if isinstance(given, str) else dict(given or {})
    names = named.pop("names", None)
    joined = ": ".join(map(str, names)) if isinstance(names, list) else ""
    label = named.pop("name", None) or joined
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
    if isinstance(packed, int) and not isinstance(packed, bool):
        return f"#{packed & 0xFFFFFF:06x}"
    return ""


def _is_byte(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= 255


def _feature(shape: AnnotatedShape, lattice: Lattice) -> dict[str, Any]:
    """A shape as QuPath writes it, with all other members that were read."""
    from shapely.geometry import mapping

    properties: dict[str, Any] = {"objectType": "annotation", **shape.properties}
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
