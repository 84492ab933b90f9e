"""Annotations as GeoJSON that QuPath reads and writes: polygons in level-0 pixels of a slide."""

from __future__ import annotations

import contextlib
import gc
import gzip
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice, pairwise
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from napari_mosaik.core import InputError, Lattice
from napari_mosaik.core.atomic import atomic_file, flush_to_disk
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.core.text import decoded
from napari_mosaik.io.files import saving

if TYPE_CHECKING:
    from shapely import MultiPolygon, Polygon

__all__ = ["geojson_bytes", "read_geojson", "write_geojson", "zipped_files"]

Features = list[tuple[str, Mapping[str, Any]]]
Areas = list[Any]
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
_LABELS = (
    "it is a picture; turn a label image into annotations in QuPath, and export them as GeoJSON"
)
_BINARY = (
    *((start, _LABELS) for start in (b"II*\0", b"MM\0*", b"II+\0", b"\x89PNG", b"\xff\xd8\xff")),
    (b"\xac\xed", f"it is a data file of QuPath; {_BY_QUPATH}"),
    (b"\xd0\xcf\x11\xe0", "it is an old Office file"),
)
"""Beginnings of binary files, and what they are."""
_DIGITS = 6
"""Decimals of written pixel coordinates."""


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
        areas = _areas(chosen, plain.result(), lattice, doubts)
        shapes.extend(
            _shape(key, feature, area, doubts)
            for (key, feature), area in zip(chosen, areas, strict=True)
            if area is not None
        )

    with ThreadPoolExecutor(1) as pool:
        waiting: tuple[Features, Future[Areas]] | None = None
        for features in _features(path, stem):
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


def _features(path: Path, stem: str) -> Iterator[list[Mapping[str, Any]]]:
    """The features of a file with any root element, some at a time."""
    content = _content(path, stem)
    done = 0
    for features in _pieces(content):
        if features is None:
            yield _whole(path, content)[done:]
        else:
            nested = [one for item in features for one in _features_of(path, item)]
            done += len(nested)
            yield nested


_HEAD: Final = re.compile(
    rb'(?:\xef\xbb\xbf)?\s*(?:\[|\{(?:[^\[\]]|\[[^\[\]]*\]){0,4000}?"features"\s*:\s*\[)'
)
_CUT: Final = re.compile(rb'\}\s*(,)\s*\{\s*"(?:type|id|geometry|properties)"\s*:')
_PIECE: Final = 4 << 20


def _pieces(content: bytes) -> Iterator[list[Any] | None]:
    """The items of a collection or list, some megabytes at a time; None for the rest at once.

    A piece ends where one feature seems to end and another to begin.  That is so if the piece can
    be read, since what comes before it has been read to its end.
    """
    head, end = _HEAD.match(content), content.rfind(b"]")
    if head is None or end < head.end():
        yield None
        return
    root = _parsed(head[0].removeprefix(b"\xef\xbb\xbf") + content[end:])
    if root != [] and not (isinstance(root, dict) and root.get("type") == "FeatureCollection"):
        yield None
        return
    start, tries = head.end(), 0
    stop = start
    while start < end:
        cut = _CUT.search(content, max(start + _PIECE, stop), end)
        stop = cut.start(1) if cut else end
        items = _parsed(b"[%s]" % content[start:stop])
        if isinstance(items, list) and all(isinstance(item, dict) for item in items):
            yield items
            start = stop = stop + 1
            tries = 0
        elif cut is None or tries > 8:
            yield None
            return
        tries += 1


def _parsed(content: bytes | str) -> Any:
    """What JSON says; None where it cannot be read.  QuPath writes NaN as a number."""
    words: tuple[Any, Any] = ("NaN", "Infinity") if isinstance(content, str) else (b"NaN", b"Infi")
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        if not any(word in content for word in words):
            return None
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(content)
        return None


def _whole(path: Path, content: bytes) -> list[Mapping[str, Any]]:
    """The features of a file in any encoding and with any root element."""
    root = _root(path, content)
    if isinstance(root, Mapping) and root.get("type") == "FeatureCollection":
        root = root.get("features")
    elif isinstance(root, Mapping):
        other = next((why for has, why in _OTHER_JSON if has <= set(root)), "")
        if other:
            raise InputError(f"{path.name} is not GeoJSON: {other}")
        root = [root]
    if isinstance(root, list):
        root = [item for item in root if item is not None]
    if not isinstance(root, list) or not all(isinstance(item, Mapping) for item in root):
        raise InputError(f"{path.name} is not GeoJSON: it holds no list of features")
    nested = [_features_of(path, item) for item in root]
    return [feature for features in nested for feature in features]


def _root(path: Path, content: bytes) -> Any:
    """What JSON says; what is none is named."""
    other = next((what for start, what in _BINARY if content.startswith(start)), "")
    text = "" if other else decoded(content, str(path)).removeprefix("\ufeff").strip()
    other = other or _other_format(text)
    if other:
        raise InputError(f"{path.name} is not GeoJSON: {other}")
    try:
        return _parsed(text) or json.loads(text)
    except (ValueError, RecursionError) as error:
        root = _one_per_line(text)
        if root is None:
            raise InputError(
                f"{path.name} is not readable GeoJSON: {error}; export it again"
            ) from error
        return root


def _features_of(path: Path, item: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The features of one item; a bare geometry becomes one."""
    kind = item.get("type")
    if kind == "FeatureCollection" and isinstance(item.get("features"), list):
        inner = [one for one in item["features"] if isinstance(one, Mapping)]
        return [feature for one in inner for feature in _features_of(path, one)]
    if isinstance(kind, str) and kind in _GEOMETRIES:
        return [{"type": "Feature", "geometry": item, "properties": {}}]
    if kind != "Feature":
        raise InputError(
            f"{path.name} is not GeoJSON: it holds {f'a {kind!r}' if kind else 'an object'} "
            "instead of a Feature; export the annotations as GeoJSON from QuPath"
        )
    return [item]


def _content(path: Path, stem: str = "") -> bytes:
    """The bytes of a file, unpacked (gzip, or a zip), or of the file of a slide in a folder."""
    path = _in_folder(path, stem) if path.is_dir() else path
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


def zipped_files(
    path: Path, wanted: Callable[[str], bool], limit: int = _LARGEST
) -> dict[str, bytes]:
    """The content of the files of a zip whose base names are *wanted*; nothing is unpacked to disk.

    Raises
    ------
    InputError
        If it is not a zip, or damaged; if a file is larger than *limit* bytes, or packed so densely
        that it can be no real one; or if a name leads out of the archive.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            chosen = []
            for item in packed.infolist():
                parts = PurePosixPath(item.filename.replace("\\", "/")).parts
                if ".." in parts or item.filename.startswith(("/", "\\")) or ":" in item.filename:
                    raise InputError(
                        f"{path.name} is refused: the name {item.filename[:80]!r} leads out of it"
                    )
                hidden = "__MACOSX" in parts or (parts[-1:] and parts[-1].startswith("."))
                if not item.is_dir() and not hidden and wanted(parts[-1]):
                    chosen.append(item)
            return {item.filename: _inflated(path, packed, item, limit) for item in chosen}
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path.name} is not a readable zip: {reason}") from error


_DENSEST: Final = 200
"""GeoJSON becomes at most this many times smaller; what is denser than that is no GeoJSON."""


def _inflated(path: Path, packed: zipfile.ZipFile, item: zipfile.ZipInfo, limit: int) -> bytes:
    dense = item.file_size > 1 << 24 and item.file_size > _DENSEST * item.compress_size
    if item.file_size > limit or dense:
        raise InputError(
            f"{path.name} is refused: {item.filename[:80]} would unpack to "
            f"{max(1, item.file_size >> 20)} MB"
        )
    with packed.open(item) as file:
        return file.read(item.file_size + 1)


def _unzipped(path: Path) -> bytes:
    files = zipped_files(path, lambda name: name.lower().endswith(".geojson"))
    files = files or zipped_files(path, lambda name: name.lower().endswith(".json"))
    if list(files) == ["package.json"]:  # in a package of ours it describes the rest
        raise InputError(f"{path.name} holds no GeoJSON file; pack or export the annotations again")
    files = files or zipped_files(path, lambda _: True)
    return files[_of_slide(path, list(files), "")]


def _of_slide(path: Path, names: list[str], stem: str) -> str:
    """The one file of several, or the one that is named like the slide."""
    if len(names) == 1:
        return names[0]
    mine = [name for name in names if stem and PurePosixPath(name).name.startswith(f"{stem}.")]
    if len(mine) == 1:
        return mine[0]
    listed = ", ".join(names[:5]) or "nothing"
    raise InputError(
        f"{path.name} must hold one GeoJSON file{' named like the slide' if stem else ''}, not "
        f"{listed}; {'give' if stem else 'unpack it and give'} one file"
    )


def _in_folder(path: Path, stem: str) -> Path:
    """The file of a slide in a folder of files that QuPath exported, one for each image."""
    found = sorted(path.glob("*.geojson")) + sorted(path.glob("*.geojson.gz"))
    if not found and (path / "project.qpproj").is_file():
        raise InputError(
            f"{path.name} is a project of QuPath, which QuPath alone reads; {_BY_QUPATH}"
        )
    return path / _of_slide(path, [one.name for one in found], stem)


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


def _areas(
    features: Features, plain: Areas, lattice: Lattice, doubts: _Doubts
) -> list[Polygon | MultiPolygon | None]:
    """The area of each feature in µm; None, with a doubt, for what has no area."""
    return [
        _geometry(key, feature.get("geometry"), lattice, doubts) if area is None else area
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
        valid = shapely.is_valid(areas) & (shapely.area(areas) > 0)
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
    key: str, stored: Any, lattice: Lattice, doubts: _Doubts
) -> Polygon | MultiPolygon | None:
    """The area of a feature in µm; None, with a doubt, for what has no area."""
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
    if area is None:
        doubts.add("encloses no area and is excluded", key, hopeless=True)
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
