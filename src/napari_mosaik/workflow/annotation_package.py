"""Annotations packed for a colleague and merged back: one zip without any name of a person or file.

    journal of a reader ─► FILE.zip {package.json, slide.png, annotations.geojson}
        ─► edited in any program ─► journal of the reader who takes them

The package holds areas, classes and a coarse picture of the slide.  Reader, patient, path, file
name and every text that was written to a shape stay behind; identifiers that are no UUID are
replaced.  The slide is recognised by its content.
"""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from pathlib import Path
from typing import Any, Final

from PIL import Image

from napari_mosaik.annotate import Snapshot, open_document
from napari_mosaik.core.catalogue import SLIDES
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.journal import annotation_part, journals_of
from napari_mosaik.core.readers import check_reader_name
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.io.annotations import geojson_bytes, zipped_files
from napari_mosaik.io.case import Case
from napari_mosaik.io.files import write_bytes
from napari_mosaik.workflow.annotation_import import AnnotationImport

__all__ = ["merge_package", "write_package"]

FORMAT: Final = 1
_ABOUT: Final = "package.json"
_LONGEST_SIDE_PX: Final = 2000
_LARGEST_ABOUT: Final = 1 << 20
_KEYS: Final = uuid.UUID("6d6f7361-696b-4e61-8d65-6b6579730000")


def write_package(case: Case, path: Path, reader: str, stain: str = "he") -> dict[str, Any]:
    """Write the annotations of a reader as a package; a record of it.

    Raises
    ------
    InputError
        If the reader has none, or the file cannot be written.
    """
    name = check_reader_name(reader)
    scan = journals_of(case.root, annotation_part(stain)).get(name)
    document = None if scan is None else open_document(scan, stain)
    if document is None or not len(document):
        raise InputError(f"reader {name} has no annotations on {stain} of case {case.name}")
    snapshot = document.snapshot
    shapes = _nameless(snapshot)
    with case.slide(stain) as slide:
        lattice = slide.lattice
        spacing = max(max(lattice.extent_um) / _LONGEST_SIDE_PX, *lattice.spacing_um)
        pixels = slide.thumbnail(spacing).values
    about = {
        "format": FORMAT,
        "stain": stain,
        "slide": case.content(SLIDES[stain]),
        "shape": list(lattice.shape),
        "classes": [{"name": c.name, "colour": c.colour} for c in snapshot.classes],
    }
    picture = io.BytesIO()
    Image.fromarray(pixels).save(picture, "PNG")
    files = {
        _ABOUT: json.dumps(about, indent=1, ensure_ascii=False).encode() + b"\n",
        "slide.png": picture.getvalue(),
        "annotations.geojson": geojson_bytes(shapes, lattice),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for inner, data in files.items():
            packed.writestr(zipfile.ZipInfo(inner), data, zipfile.ZIP_DEFLATED)
    write_bytes(path, content.getvalue())
    return {"case": case.name, "slide": stain, "reader": name, "shapes": len(shapes)}


def _nameless(snapshot: Snapshot) -> list[AnnotatedShape]:
    """The shapes with class and colour alone, under identifiers that say nothing."""
    colours = {known.name: known.colour for known in snapshot.classes}
    return [
        AnnotatedShape(
            _plain_key(shape.key),
            shape.label,
            shape.geometry,
            shape.colour or colours.get(shape.label, ""),
        )
        for shape in snapshot.shapes
    ]


def _plain_key(key: str) -> str:
    try:
        return str(uuid.UUID(key))
    except ValueError:
        return str(uuid.uuid5(_KEYS, key))


def merge_package(case: Case, path: Path) -> AnnotationImport:
    """A package of this case, read; `AnnotationImport.commit` with "merge" gives it to a reader.

    Raises
    ------
    InputError
        If the file is no package, is damaged, comes from a newer version, or belongs to another
        slide.
    """
    about = _about(path)
    stain = str(about.get("stain", ""))
    if stain not in SLIDES or case.file.slide(stain) is None:
        raise InputError(f"{path.name} holds annotations of {stain!r}; this case has no such slide")
    if about.get("slide") != case.content(SLIDES[stain]):
        raise InputError(
            f"{path.name} was made of another slide than the {stain} slide of case {case.name}; "
            "merge it into the case that it comes from"
        )
    given = AnnotationImport(case, path, stain)
    listed = about.get("classes")
    for known in listed if isinstance(listed, list) else ():
        name = str(known.get("name", "")) if isinstance(known, dict) else ""
        if any(row.name == name for row in given.rows):
            given.map(name, name, new=True)
    return given


def _about(path: Path) -> dict[str, Any]:
    """``package.json`` of a package."""
    found = zipped_files(path, lambda name: name == _ABOUT, _LARGEST_ABOUT)
    if len(found) != 1:
        raise InputError(
            f"{path.name} is no annotation package: it holds {len(found) or 'no'} {_ABOUT}; import "
            "a file of another program with: annotate import"
        )
    (content,) = found.values()
    try:
        about = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{_ABOUT} of {path.name} is damaged: {error}") from error
    made = about.get("format") if isinstance(about, dict) else None
    if not isinstance(made, int) or isinstance(made, bool) or made < 1:
        raise InputError(f"{_ABOUT} of {path.name} states no format; it is no annotation package")
    if made > FORMAT:
        raise InputError(
            f"{path.name} was written by a newer version (format {made}, known is {FORMAT}); "
            "install that version"
        )
    return dict(about)
