"""The features of a GeoJSON file: packed, in a folder, in pieces; or what the file is instead."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

import orjson

from napari_mosaik.core import InputError
from napari_mosaik.core.text import decoded

__all__ = ["read_features", "zipped_files"]

_GEOMETRIES = {
    "Polygon", "MultiPolygon", "GeometryCollection", "Point", "MultiPoint", "LineString",
    "MultiLineString",
}  # fmt: skip
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


def read_features(path: Path, stem: str) -> Iterator[list[Mapping[str, Any]]]:
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
