"""Annotations as GeoJSON that QuPath reads and writes: polygons in level-0 pixels of a slide."""

from __future__ import annotations

import contextlib
import gc
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from napari_mosaik.core import InputError, Lattice
from napari_mosaik.core.atomic import atomic_file, flush_to_disk
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.io.files import saving
from napari_mosaik.io.geojson_features import read_features

if TYPE_CHECKING:
    from shapely import MultiPolygon, Polygon

__all__ = ["geojson_bytes", "read_geojson", "write_geojson"]

Features = list[tuple[str, Mapping[str, Any]]]
Areas = list[Any]
_MEMBERS = "geojson:members"
"""Property under which members of a feature that GeoJSON does not define are kept."""
_OLDER_TYPES = {
    "PathAnnotationObject": "annotation", "PathDetectionObject": "detection",
    "PathCellObject": "cell", "PathTileObject": "tile", "PathRootObject": "root",
    "TMACoreObject": "tma core",
}  # fmt: skip
"""What QuPath before 0.4 wrote as identifier of every object of a kind."""
_DIGITS = 6
"""Decimals of written pixel coordinates."""
_MIN_PX = 0.5
"""Area in pixels; no outline of tissue is smaller."""
_FIRST_PX = 1.5
"""Within so many pixels of the corner coordinates are fractions of the image, another mistake."""


def read_geojson(
    path: Path | str,
    lattice: Lattice,
    *,
    notes: list[str] | None = None,
    tissue_only: bool = False,
    points: bool = False,
    slide_name: str = "",
) -> tuple[AnnotatedShape, ...]:
    """Read the annotated areas of a slide.

    Parameters
    ----------
    path
        A feature collection, a list of features, one feature, or one feature per line; may be
        compressed (gzip, or the zip that QuPath writes), or a folder with a file for each slide.
    lattice
        Level-0 lattice of the slide: x counts its columns and y its rows from pixel corners.
    notes
        Receives a sentence for each kind of doubt with the identifiers of its shapes: those that
        were repaired or excluded (points and lines have no area).
    tissue_only
        Exclude cells, detections and tiles, which are not annotations of tissue.
    points
        Keep points, as tiny areas around them.
    slide_name
        Name of the slide's file without ending, which chooses one of several files.

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
    with _uncollected():
        shapes = _read(path, slide_name, lattice, doubts, tissue_only, points)
    sentences = doubts.sentences()
    if not shapes and doubts.hopeless:
        raise InputError(f"{'; '.join(sentences)}; correct or redraw the outlines")
    if notes is not None:
        notes += sentences
    return tuple(shapes)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Make millions of lists, none of them in circles, without searching for circles."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


def _read(
    path: Path, stem: str, lattice: Lattice, doubts: _Doubts, tissue_only: bool, points: bool
) -> list[AnnotatedShape]:
    """The shapes of a file: while outlines are checked on a thread, the next ones are read."""
    shapes: list[AnnotatedShape] = []
    keys: set[str] = set()
    number = -1

    def taken(chosen: Features, plain: Future[Areas]) -> None:
        smallest = 0.0 if points else _MIN_PX
        areas = _areas(chosen, plain.result(), lattice, doubts, smallest)
        shapes.extend(
            _shape(key, feature, area, doubts)
            for (key, feature), area in zip(chosen, areas, strict=True)
            if area is not None
        )

    with ThreadPoolExecutor(1) as pool:
        waiting: tuple[Features, Future[Areas]] | None = None
        for features in read_features(path, stem):
            chosen: Features = []
            for feature in features:
                number += 1
                kind = _object_type(feature)
                if tissue_only and kind not in ("", "annotation"):
                    text = "is a {} of QuPath, no annotation of tissue, and is excluded"
                    doubts.add(text, "", kind)
                    continue
                key = _key(feature, number)
                if key in keys:
                    doubts.add("occurs twice as identifier; the second is renamed", key)
                    key = f"{key}#{number}"
                keys.add(key)
                chosen.append((key, _around_point(feature) if points else feature))
            before, waiting = waiting, (chosen, pool.submit(_plain_areas, chosen, lattice))
            if before is not None:
                taken(*before)
        if waiting is not None:
            taken(*waiting)
    return shapes


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
    with saving(path.name, path.parent), atomic_file(path) as scratch, scratch.open("wb") as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile("", "wb", 6, raw, 0) as packed:
                packed.writelines(_collection(shapes, lattice))
        else:
            raw.writelines(_collection(shapes, lattice))
        flush_to_disk(raw)


def geojson_bytes(shapes: Iterable[AnnotatedShape], lattice: Lattice) -> bytes:
    """What `write_geojson` writes to a file that is not compressed."""
    return b"".join(_collection(shapes, lattice))


def _collection(shapes: Iterable[AnnotatedShape], lattice: Lattice) -> Iterator[bytes]:
    yield b'{"type":"FeatureCollection","features":['
    rest, between = iter(shapes), b"\n"
    while batch := list(islice(rest, _BATCH)):
        yield between + b",\n".join(_feature_lines(batch, lattice))
        between = b",\n"
    yield b"\n]}\n"


_BATCH: Final = 2048
_TEXT: Final = json.JSONEncoder(ensure_ascii=False)
"""For properties: numbers that are not finite, or have more than 64 bits, stay what they are."""


def _feature_lines(shapes: list[AnnotatedShape], lattice: Lattice) -> Iterator[bytes]:
    """Shapes as QuPath writes them, with all other members that were read."""
    for shape, kind, coordinates in zip(shapes, *_coordinates(shapes, lattice), strict=True):
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
        more = f",{_TEXT.encode(dict(members))[1:-1]}" if members else ""
        yield b'{"type":"Feature","id":%s,"geometry":{"type":"%s","coordinates":%s},%s}' % (
            _TEXT.encode(shape.key).encode(),
            kind,
            coordinates,
            f'"properties":{_TEXT.encode(properties)}{more}'.encode(),
        )


def _coordinates(shapes: list[AnnotatedShape], lattice: Lattice) -> tuple[list[bytes], list[bytes]]:
    """Kind and coordinates of each shape as JSON, in pixels."""
    import shapely

    areas = np.array([shape.geometry for shape in shapes], object)
    parts, shape_of = shapely.get_parts(areas, return_index=True)
    rings, part_of = shapely.get_rings(parts, return_index=True)
    points, ring_of = shapely.get_coordinates(rings, return_index=True)
    pixels = (points - np.array(lattice.origin_um[::-1])) / np.array(lattice.spacing_um[::-1])
    pixels = np.round(pixels, _DIGITS)
    texts = [
        orjson.dumps(pixels[start:stop], option=orjson.OPT_SERIALIZE_NUMPY)
        for start, stop in _runs(ring_of, len(rings))
    ]
    texts = [b"[%s]" % b",".join(texts[i:j]) for i, j in _runs(part_of, len(parts))]
    multi = shapely.get_type_id(areas) == shapely.GeometryType.MULTIPOLYGON
    runs = _runs(shape_of, len(areas))
    joined = [
        b"[%s]" % b",".join(texts[i:j]) if many else texts[i]
        for (i, j), many in zip(runs, multi, strict=True)
    ]
    return [b"MultiPolygon" if many else b"Polygon" for many in multi], joined


def _runs(owner: NDArray[np.intp], n: int) -> Iterator[tuple[int, int]]:
    """Start and end of the items of each of *n* owners; *owner* (items,) is sorted."""
    edges = np.searchsorted(owner, np.arange(n + 1)).tolist()
    return pairwise(edges)


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


def _areas(
    features: Features, plain: Areas, lattice: Lattice, doubts: _Doubts, smallest_px: float
) -> list[Polygon | MultiPolygon | None]:
    """The area of each feature in µm; None, with a doubt, for what has none or a smaller one."""
    return [
        _geometry(key, feature.get("geometry"), lattice, doubts, smallest_px)
        if area is None
        else area
        for (key, feature), area in zip(features, plain, strict=True)
    ]


def _plain_areas(features: Features, lattice: Lattice) -> Areas:
    """The areas in µm of those features that need no second look; None for the others."""
    import shapely

    found: Areas = [None] * len(features)
    places = [
        place
        for place, (_, feature) in enumerate(features)
        if isinstance(stored := feature.get("geometry"), dict) and stored.get("type") == "Polygon"
    ]
    given = [features[place][1]["geometry"].get("coordinates") for place in places]
    areas = _plain_polygons(given, lattice)
    if areas is not None:
        min_um2 = _MIN_PX * lattice.spacing_um[0] * lattice.spacing_um[1]
        valid = shapely.is_valid(areas) & (shapely.area(areas) > min_um2)
        for place, area, good in zip(places, areas, valid.tolist(), strict=True):
            found[place] = area if good else None
    return found


def _plain_polygons(polygons: list[Any], lattice: Lattice) -> NDArray[np.object_] | None:
    """Polygons (n,) in µm, of pixels in two dimensions; None where one is not finite or plain."""
    import shapely

    try:
        rings = list(chain.from_iterable(polygons))
        points = list(chain.from_iterable(rings))
        if set(map(len, points)) != {2} or not all(polygons):
            return None
        flat = np.fromiter(chain.from_iterable(points), float, 2 * len(points)).reshape(-1, 2)
        if not np.isfinite(flat).all():
            return None
        ends = np.cumsum([0, *map(len, rings)]), np.cumsum([0, *map(len, polygons)])
        found: NDArray[np.object_] = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, _to_um(flat, lattice), ends
        )
    except (TypeError, ValueError, KeyError, shapely.GEOSException):
        return None
    return found


def _geometry(
    key: str, stored: Any, lattice: Lattice, doubts: _Doubts, smallest_px: float
) -> Polygon | MultiPolygon | None:
    """The area of a feature in µm; None, with a doubt, for what has none or a smaller one."""
    import shapely
    from shapely.geometry import shape

    if not isinstance(stored, Mapping):
        doubts.add("has no geometry and is excluded", key)
        return None
    try:
        with np.errstate(invalid="ignore"):  # coordinates that are not numbers are excluded below
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
        found = _repaired(found)
    area = _polygons(found)
    if area is None or (area.area < smallest_px and max(area.bounds) > _FIRST_PX):
        what = "encloses no area" if area is None else "is smaller than a pixel (degrees? mm?)"
        doubts.add(f"{what} and is excluded", key, hopeless=True)
        return None
    if repaired:
        doubts.add("was repaired: its outline had a {}", key, reason)
    moved: Polygon | MultiPolygon = shapely.transform(area, lambda points: _to_um(points, lattice))
    return moved


def _repaired(geometry: Any) -> Any:
    """A valid geometry of the same area: what lies in a hole is not part of it.

    `shapely.make_valid` would add the part of a hole that lies outside of its outline.
    """
    import shapely

    if geometry.geom_type == "Polygon" and geometry.interiors:
        holes = [shapely.make_valid(shapely.Polygon(ring)) for ring in geometry.interiors]
        whole = shapely.make_valid(shapely.Polygon(geometry.exterior))
        return shapely.difference(whole, shapely.union_all(holes))
    parts = getattr(geometry, "geoms", None)
    if parts is None:
        return shapely.make_valid(geometry)
    return shapely.union_all([_repaired(part) for part in parts])


def _around_point(feature: Mapping[str, Any]) -> Mapping[str, Any]:
    """A square of a thousandth of a pixel around a point; what cannot be read stays as it is."""
    stored = feature.get("geometry")
    if not isinstance(stored, dict) or stored.get("type") != "Point":
        return feature
    try:
        x, y = (float(value) for value in stored["coordinates"][:2])
    except (KeyError, TypeError, ValueError):
        return feature
    left, top, right, bottom = x - 5e-4, y - 5e-4, x + 5e-4, y + 5e-4
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {**feature, "geometry": {"type": "Polygon", "coordinates": [ring]}}


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


def _to_um(points: NDArray[np.float64], lattice: Lattice) -> NDArray[np.float64]:
    """Points (n, 2) in pixels, x = column, to µm."""
    scaled: NDArray[np.float64] = points * lattice.spacing_um[::-1] + lattice.origin_um[::-1]
    return scaled


_KNOWN: Final = {"type", "id", "geometry", "properties"}


def _shape(key: str, feature: Mapping[str, Any], geometry: Any, doubts: _Doubts) -> AnnotatedShape:
    """An annotated shape; class and colour are removed from the properties, the rest is kept."""
    stored = feature.get("properties")
    properties = dict(stored) if isinstance(stored, dict) else {}
    given = properties.pop("classification", None)
    if isinstance(given, list) and all(isinstance(part, str) for part in given):
        given = ": ".join(given)
    if not (given is None or isinstance(given, dict) or isinstance(given, str)):  # noqa: SIM101
        doubts.add("has a classification that is not a name ({}) and counts as without class",
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
    if not feature.keys() <= _KNOWN:
        properties[_MEMBERS] = {k: value for k, value in feature.items() if k not in _KNOWN}
    return AnnotatedShape(key, str(label), geometry, colour, properties)


def _colour(rgb: Any, packed: Any) -> str:
    """``#rrggbb`` from QuPath's list or its older packed number; empty if there is none."""
    if isinstance(rgb, list) and len(rgb) >= 3:
        red, green, blue = rgb[:3]
        if _is_byte(red) and _is_byte(green) and _is_byte(blue):
            return f"#{int(red):02x}{int(green):02x}{int(blue):02x}"
    if isinstance(packed, int) and not isinstance(packed, bool):
        return f"#{packed & 0xFFFFFF:06x}"
    return ""


def _is_byte(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 <= value <= 255
