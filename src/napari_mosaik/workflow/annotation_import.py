"""Annotations of another program or a colleague become those of a reader, class by class.

file ─► shapes and doubts ─► table of classes (seen, changed) ─► one edit in the reader's journal

A package for a colleague is one zip without any name of a person or file:

    journal of a reader ─► FILE.zip {package.json, slide.png, annotations.geojson}
        ─► edited in any program ─► journal of the reader who takes them

It holds areas, classes and a coarse picture of the slide.  Reader, patient, path, file name and
every text that was written to a shape stay behind; identifiers that are no UUID are replaced.  The
slide is recognised by its content.
"""

from __future__ import annotations

import io
import json
import re
import uuid
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image

from napari_mosaik.annotate import Edit, Snapshot, TissueClass, open_document
from napari_mosaik.annotate.foreign import BUILT_IN, proposed_class
from napari_mosaik.core.catalogue import SLIDES
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.journal import annotation_part, journals_of
from napari_mosaik.core.palette import OWN_CLASS_COLOURS
from napari_mosaik.core.readers import check_reader_name
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.core.text import counted, same_words
from napari_mosaik.io.annotations import geojson_bytes, read_geojson
from napari_mosaik.io.case import Case
from napari_mosaik.io.files import read_json, write_bytes
from napari_mosaik.io.geojson_features import zipped_files
from napari_mosaik.io.slide.types.slide import Slide
from napari_mosaik.workflow.annotations import (
    IMPORTED,
    OpenAnnotations,
    copy_kept,
    declared_classes,
)

__all__ = [
    "AnnotationImport",
    "ClassRow",
    "How",
    "Import",
    "another_slide",
    "merge_package",
    "write_package",
]

How = Literal["", "replace", "add", "merge"]
_CELL_UM2: Final = 400.0
_MANY: Final = 20
_SAME_AREA: Final = 0.1
"""Areas of one outline, stated and drawn, that differ by less are the same."""
_SHARE: Final = 1.5
_COVERED: Final = 0.05
"""A shape of which more is covered by a larger one of another class is named."""
_CUT: Final = 0.01
"""A shape that loses more than this fraction at the edge of the slide is named."""


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A class of a file: its shapes and their area, and the class that they get; empty for none."""

    name: str
    shapes: int
    area_mm2: float
    mapped_to: str

    @property
    def sentence(self) -> str:
        """The row in words."""
        name = f"'{self.name}'" if self.name else "without class"
        n = f"{self.shapes} shape{'s' * (self.shapes != 1)}, {self.area_mm2:.3g} mm²"
        return f"{name} ({n}): {self.mapped_to or 'excluded'}"


@dataclass(frozen=True, slots=True)
class Import:
    """What an import did: the number of new shapes, and copies of what was replaced.

    Where it changed anything, *edit* is what it did and *n* its number in the journal.
    """

    imported: int
    copies: tuple[Path, ...]
    edit: Edit | None = None
    n: int = -1


class AnnotationImport:
    """A file of annotations, read for a slide of a case; `commit` gives them to a reader.

    Parameters
    ----------
    case, stain
        The case and the annotated slide.
    path
        GeoJSON; see `read_geojson`.
    asking
        Whether a person will be asked what is in `question`.

    Raises
    ------
    InputError
        The file cannot be read or holds no annotated area; or it states another slide, or most of
        it lies outside of this one, and nobody will be asked.
    """

    def __init__(self, case: Case, path: Path, stain: str = "he", *, asking: bool = False) -> None:
        self.case, self.path, self.stain = case, path, stain
        self.doubts: list[str] = []
        self._asking = asking
        with case.slide(stain) as slide:
            lattice = slide.lattice
            self.question = another_slide(path, slide, partial(case.content, SLIDES[stain]))
            """Why the file may be of another slide, as a sentence; empty if nothing says so."""
        if self.question and not asking:
            raise InputError(
                f"{self.question}; nothing was imported. If it belongs to this slide all the same, "
                "give the GeoJSON file alone, in a folder of its own"
            )
        entry = case.file.slide(stain)
        found = read_geojson(
            path, lattice, notes=self.doubts, tissue_only=True,
            slide_name="" if entry is None else Path(entry.path).stem,
        )  # fmt: skip
        self._check_scale(found, lattice)
        self._shapes = self._once(self._inside(found, lattice))
        if not self._shapes:
            why = "; ".join(self.doubts) or "it is an empty collection"
            raise InputError(f"{path.name} holds no annotation to import ({why}); nothing changed")
        self._check_sizes()
        own = declared_classes(case, stain)
        self.known = (*BUILT_IN, *(name for name in own if name not in BUILT_IN))
        self._totals = _totals(self._shapes)
        names = sorted(self._totals, key=same_words)
        self._mapping = {name: proposed_class(name, self.known) for name in names}

    @property
    def rows(self) -> tuple[ClassRow, ...]:
        """The classes of the file with what they are mapped to."""
        return tuple(
            ClassRow(name, *self._totals[name], target) for name, target in self._mapping.items()
        )

    @property
    def warnings(self) -> list[str]:
        """All doubts, each a sentence."""
        lost = [row for row in self.rows if not row.mapped_to]
        lines = []
        for row in lost:
            who = f"of the class '{row.name}'" if row.name else "without a class"
            n = f"{row.shapes} shape{'s' * (row.shapes != 1)}"
            known = ", ".join(self.known)
            lines.append(
                f"{self.path.name}: {n} {who} excluded; to use them, choose a class "
                f"({known}): --map '{row.name}=CLASS'"
            )
        return [*self.doubts, *lines, *self._hidden()]

    def _hidden(self) -> list[str]:
        """A sentence if larger shapes of another class, which come later, cover some."""
        shapes = [shape for shape in self._shapes if self._mapping[shape.label]]
        areas = _geometries(shapes)
        tree = shapely.STRtree(areas)
        first, second = tree.query(areas, predicate="intersects")
        targets = np.array([self._mapping[shape.label] for shape in shapes])
        sizes = shapely.area(areas)
        doubtful = (first < second) & (targets[first] != targets[second])
        doubtful &= sizes[first] <= sizes[second]
        first, second = first[doubtful], second[doubtful]
        shared = shapely.area(shapely.intersection(areas[first], areas[second]))
        lost = sorted(set(first[shared > _COVERED * sizes[first]].tolist()))
        if not lost:
            return []
        return [
            f"{self.path.name}: covered by a larger shape of another class that comes later in the "
            f"file and counts: {_keys(shapes[i] for i in lost)}; put the larger shape first, or "
            "cut a hole into it"
        ]

    def map(self, name: str, target: str, *, new: bool = False) -> None:
        """Map a class of the file to one of the case; empty excludes it.

        A class of the user's own is declared by *new*, or by giving it its name in the file.

        Raises
        ------
        InputError
            If the file has no such class, or the case has no class *target*.
        """
        exact = [name] if name in self._mapping else [name.strip()]
        found = [one for one in self._mapping if one in exact]
        found = found or [one for one in self._mapping if same_words(one) == same_words(name)]
        if not found:
            names = ", ".join(repr(one) for one in self._mapping)
            raise InputError(f"{self.path.name} has no class '{name}'; its classes are: {names}")
        target = target.strip()
        spelled = next((one for one in self.known if same_words(one) == same_words(target)), target)
        own = new or same_words(target) == same_words(name)
        if target and spelled not in self.known and not own:
            raise InputError(
                f"'{target}' is not a class of case {self.case.name} ({', '.join(self.known)}); "
                f"use one of these, or declare it as a class of your own: --own-class '{target}'"
            )
        for one in found:
            self._mapping[one] = spelled

    def commit(self, opened: OpenAnnotations, how: How = "") -> Import:
        """Give the mapped shapes to a reader as one edit, and write the case's file.

        Parameters
        ----------
        opened
            The open annotations of the reader.
        how
            "replace" the reader's shapes (a copy is kept) or "add" to them; empty is allowed where
            the reader has none.

        Raises
        ------
        InputError
            No class is mapped, or the reader has shapes and *how* is empty.
        """
        done = self.record(opened, how)
        if done.edit is not None:
            opened.document.show(done.edit, done.n)
        opened.save()
        return replace(done, copies=(*done.copies, *_kept(opened)))

    def record(self, opened: OpenAnnotations, how: How = "") -> Import:
        """Write the import to the reader's journal; `AnnotationDocument.show` makes it visible.

        Another thread than that of the document may do this.
        """
        document = opened.document
        new = self._mapped()
        if not new:
            names = ", ".join(repr(name) for name in self._mapping)
            raise InputError(
                f"no class of {self.path.name} ({names}) is one of the pipeline's, so nothing was "
                f"imported; choose a class for each: --map 'CLASS={BUILT_IN[0]}'"
            )
        present = document.shapes
        if present and not how:
            raise InputError(
                f"reader {opened.reader} has {counted(len(present), 'shape')} on case "
                f"{self.case.name}, and nothing was imported: replace them (a copy is kept) with "
                "--replace, or add to them with --add"
            )
        copies: tuple[Path, ...] = ()
        removed: tuple[str, ...] = ()
        if present and how == "replace":
            opened.save()
            copies = (copy_kept(self.case, self.stain), *_kept(opened))
        if _same(present, new):
            return Import(0, copies)
        if how == "merge":
            new = _changed(present, new)
        elif present and how == "replace":
            keys = {shape.key for shape in new}
            removed = tuple(shape.key for shape in present if shape.key not in keys)
        else:
            new = _beside(present, new)
        if not new and not removed:
            return Import(0, copies)
        classes = document.classes
        extra = {shape.label for shape in new} - {known.name for known in classes}
        declared = tuple(
            TissueClass(name, OWN_CLASS_COLOURS[place % len(OWN_CLASS_COLOURS)])
            for place, name in enumerate(sorted(extra), len(classes) - len(BUILT_IN))
        )
        edit = Edit(IMPORTED, new, removed, (*classes, *declared))
        return Import(len(new), copies, edit, document.record(edit))

    def _mapped(self) -> tuple[AnnotatedShape, ...]:
        shapes = []
        for shape in self._shapes:
            label = self._mapping[shape.label]
            if label:
                kept = {k: v for k, v in shape.properties.items() if k != "reader"}
                kept |= {"imported_class": shape.label} if label != shape.label else {}
                shapes.append(AnnotatedShape(shape.key, label, shape.geometry, "", kept))
        return tuple(shapes)

    def _inside(
        self, shapes: tuple[AnnotatedShape, ...], lattice: Lattice
    ) -> tuple[AnnotatedShape, ...]:
        """The parts of the shapes within the slide."""
        top, left = lattice.origin_um
        height, width = lattice.extent_um
        box = shapely.box(left, top, left + width, top + height)
        inside, outside, cut = [], [], []
        within = _covered(shapes, (left, top, left + width, top + height))
        for shape, whole_within in zip(shapes, within, strict=True):
            if whole_within:
                inside.append(shape)
                continue
            part = shapely.intersection(shape.geometry, box)
            parts = [one for one in shapely.get_parts(part) if one.area > 0]
            left_over = sum(one.area for one in parts)
            if not parts:
                outside.append(shape)
                continue
            if left_over < (1 - _CUT) * shape.geometry.area:
                cut.append(shape)
            whole: Any = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
            inside.append(replace(shape, geometry=whole))
        rows, columns = lattice.shape
        size = f"{columns} x {rows} pixels"
        check = (
            "check that they were drawn on this slide, in pixels of its full resolution (not µm) "
            "and from its upper left corner"
        )
        if outside and len(outside) >= len(inside):
            self._mostly_outside(outside, len(shapes), lattice, size, check, bool(inside))
        elif outside:
            self.doubts.append(
                f"{self.path.name}: outside the slide of {size} and excluded: {_keys(outside)}; "
                f"{check}"
            )
        if cut:
            self.doubts.append(
                f"{self.path.name}: cut at the edge of the slide of {size}: {_keys(cut)}"
            )
        return tuple(inside)

    def _mostly_outside(
        self,
        outside: list[AnnotatedShape],
        n: int,
        lattice: Lattice,
        size: str,
        check: str,
        some: bool,
    ) -> None:
        """Refuse a file of which most lies outside the slide, or ask, where somebody can answer."""
        top, left = lattice.origin_um
        first = shapely.bounds(outside[0].geometry)
        x, y = (first[0] - left) / lattice.spacing_um[1], (first[1] - top) / lattice.spacing_um[0]
        why = (
            f"{self.path.name}: {len(outside)} of {n} shapes lie outside the {self.stain} slide of "
            f"{size} ({outside[0].key} begins at x = {x:.0f}, y = {y:.0f}): {check}"
        )
        if not (self._asking and some):
            raise InputError(f"{why}; nothing was imported")
        self.question = self.question or why

    def _once(self, shapes: tuple[AnnotatedShape, ...]) -> tuple[AnnotatedShape, ...]:
        """The shapes without those that repeat another of the same class."""
        seen: set[tuple[str, bytes]] = set()
        once: list[AnnotatedShape] = []
        twice: list[AnnotatedShape] = []
        boxes = [box.tobytes() for box in shapely.bounds(_geometries(shapes))]
        alike = Counter(boxes)  # only what shares its bounding box can be the same
        for shape, box in zip(shapes, boxes, strict=True):
            mark = (shape.label, shapely.normalize(shape.geometry).wkb if alike[box] > 1 else box)
            (twice if mark in seen else once).append(shape)
            seen.add(mark)
        if twice:
            self.doubts.append(
                f"{self.path.name}: the same outline and class as another shape, excluded: "
                f"{_keys(twice)}"
            )
        return tuple(once)

    def _check_scale(self, shapes: tuple[AnnotatedShape, ...], lattice: Lattice) -> None:
        """Compare the areas that the file states beside its outlines (QuPath's measurements).

        Coordinates in µm, of a smaller picture or as shares of the slide are refused.
        """
        if not shapes:
            return
        stated = [
            (shape, in_um, area)
            for shape in shapes
            for in_um, area in [_stated_area(shape.properties.get("measurements"))]
            if area > 0
        ]
        pixel_um2 = float(np.prod(lattice.spacing_um))
        right, bottom = shapely.total_bounds(_geometries(shapes))[2:]
        if max(right / lattice.spacing_um[1], bottom / lattice.spacing_um[0]) <= _SHARE:
            raise InputError(
                f"{self.path.name}: all shapes lie within the first pixel of the slide: the "
                "coordinates are fractions of the image size; export pixels of full resolution"
            )
        if not stated:
            return
        ratios = [
            area * (1.0 if in_um else pixel_um2) / shape.geometry.area
            for shape, in_um, area in stated
        ]
        ratio = float(np.median(ratios))
        if abs(ratio - 1) <= _SAME_AREA:
            return
        shape, in_um, area = stated[0]
        drawn = shape.geometry.area if in_um else shape.geometry.area / pixel_um2
        unit = "µm²" if in_um else "pixels"
        why = (
            f"{self.path.name}: the file states {area:.4g} {unit} as area of {shape.key}, its "
            f"outline encloses {drawn:.4g} {unit}"
        )
        if in_um and abs(ratio * pixel_um2 - 1) <= _SAME_AREA:
            raise InputError(f"{why}: its coordinates are µm; export them in pixels")
        if not in_um or any(abs(ratio / k**2 - 1) <= _SAME_AREA for k in (2, 4, 8, 16, 32, 64)):
            raise InputError(
                f"{why}: its coordinates are those of a picture of another resolution; export them "
                "in pixels of full resolution"
            )
        pixel = "x".join(f"{size:.4g}" for size in lattice.spacing_um)
        self.doubts.append(f"{why}; check the pixel size of the slide here ({pixel} µm) and there")

    def _check_sizes(self) -> None:
        areas = shapely.area(_geometries(self._shapes))
        median = float(np.median(areas))
        if len(areas) >= _MANY and median < _CELL_UM2:
            self.doubts.append(
                f"{self.path.name}: half of the {len(areas)} shapes are smaller than "
                f"{median:.3g} µm², the size of cells: check that they outline areas of tissue"
            )


def _stated_area(measurements: Any) -> tuple[bool, float]:
    """Whether the area that QuPath measured is in µm², and its size; 0 if there is none."""
    if isinstance(measurements, list):  # before 0.4
        pairs = [(_within(one, "name"), _within(one, "value")) for one in measurements]
    else:
        pairs = list(measurements.items()) if isinstance(measurements, dict) else []
    for name, value in pairs:
        found = re.fullmatch(r"(?:Geometry: |ROI: )?Area (?:([µμu]m)|px)(?:\^2|²)", str(name))
        if found and isinstance(value, int | float) and np.isfinite(value):
            return bool(found[1]), float(value)
    return False, 0.0


def another_slide(path: Path, slide: Slide, content: Callable[[], str] | None = None) -> str:
    """Why a file of annotations may be of another slide, as a sentence; empty if nothing says so.

    A package states the identity of its slide (its digest, or that of its *content*), and the
    project of QuPath in or beside the file the size of each image.
    """
    package, project = (_beside_file(path, name) for name in ("package.json", "project.qpproj"))
    stated = next((package[key] for key in ("slide", "digest") if key in package), "")
    if isinstance(stated, dict):
        stated = stated.get("digest", "")
    known = isinstance(stated, str) and stated and content is not None and stated == content()
    if isinstance(stated, str) and stated and not known and stated != slide.digest():
        return f"{path.name} was made for another slide: its identity is not that of this one"
    rows, columns = slide.lattice.shape
    images = project.get("images", ())
    for image in images if isinstance(images, list) else ():
        named = Path(str(_within(image, "imageName") or "")).stem
        if not named or (len(images) > 1 and named not in path.name):
            continue
        width, height = (
            _within(image, "serverBuilder", "metadata", k) for k in ("width", "height")
        )
        if width and height and (width, height) != (columns, rows):
            return (
                f"{path.name} is of the image '{named}' of {width} x {height} pixels; this slide "
                f"has {columns} x {rows}"
            )
    return ""


def _within(record: Any, *keys: str) -> Any:
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    return record


def _beside_file(path: Path, name: str) -> dict[str, Any]:
    """A JSON record in an archive, or in the folder of a file or above it; empty without one."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as packed:
                found = [one for one in packed.namelist() if one.rpartition("/")[2] == name]
                record = json.loads(packed.read(found[0])) if found else {}
        else:
            places = (folder / name for folder in (path.parent, path.parent.parent))
            record = next((read_json(place) for place in places if place.is_file()), {})
    except (OSError, ValueError, InputError, zipfile.BadZipFile):
        return {}
    return record if isinstance(record, dict) else {}


def _keys(shapes: Iterable[AnnotatedShape], n: int = 40) -> str:
    keys = [shape.key for shape in shapes]
    return ", ".join(keys[:n]) + (f" and {len(keys) - n} more" if len(keys) > n else "")


def _kept(opened: OpenAnnotations) -> tuple[Path, ...]:
    return (opened.kept,) if opened.kept is not None else ()


def _same(one: Iterable[AnnotatedShape], other: Iterable[AnnotatedShape]) -> bool:
    """Whether two lists hold the same shapes, to a thousandth of a µm."""
    old = {shape.key: shape for shape in one}
    new = {shape.key: shape for shape in other}
    if old.keys() != new.keys() or any(old[key].label != new[key].label for key in old):
        return False
    before = shapely.normalize(_geometries(old.values()))
    after = shapely.normalize(_geometries([new[key] for key in old]))
    return bool(np.all(shapely.equals_exact(before, after, 1e-3)))


def _geometries(shapes: Iterable[AnnotatedShape]) -> NDArray[np.object_]:
    """The areas (n,) of shapes, µm."""
    return np.array([shape.geometry for shape in shapes], object)


def _covered(
    shapes: Iterable[AnnotatedShape], box_um: tuple[float, float, float, float]
) -> list[bool]:
    """Whether each shape lies within a box (left, top, right, bottom)."""
    left, top, right, bottom = box_um
    x0, y0, x1, y1 = shapely.bounds(_geometries(shapes)).reshape(-1, 4).T
    inside: list[bool] = ((x0 >= left) & (y0 >= top) & (x1 <= right) & (y1 <= bottom)).tolist()
    return inside


def _totals(shapes: tuple[AnnotatedShape, ...]) -> dict[str, tuple[int, float]]:
    """Number of the shapes of each label, and their area in mm²."""
    found: dict[str, list[float]] = {}
    for shape, area in zip(shapes, shapely.area(_geometries(shapes)), strict=True):
        found.setdefault(shape.label, []).append(float(area))
    return {label: (len(areas), sum(areas) / 1e6) for label, areas in found.items()}


def _changed(
    present: Iterable[AnnotatedShape], new: Iterable[AnnotatedShape]
) -> tuple[AnnotatedShape, ...]:
    """The new shapes that are not there as they are; those of a known key take its place."""
    there = {shape.key: shape for shape in present}
    return tuple(s for s in new if s.key not in there or not _same([there[s.key]], [s]))


def _beside(
    present: Iterable[AnnotatedShape], new: Iterable[AnnotatedShape]
) -> tuple[AnnotatedShape, ...]:
    """The new shapes that are not there yet, under keys of their own."""
    there = {shape.key: shape for shape in present}
    added = []
    for shape in new:
        key, number = shape.key, 1
        while key in there and not _same([there[key]], [replace(shape, key=key)]):
            number += 1
            key = f"{shape.key} ({number})"
        if key not in there:
            added.append(replace(shape, key=key))
    return tuple(added)


# --- packages for a colleague ---------------------------------------------------------------------
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
        If the file is not a package, is damaged, comes from a newer version, or belongs to another
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
            f"{path.name} is not an annotation package: it holds {len(found) or 'no'} {_ABOUT}; "
            "import a file of another program with: annotate import"
        )
    (content,) = found.values()
    try:
        about = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{_ABOUT} of {path.name} is damaged: {error}") from error
    made = about.get("format") if isinstance(about, dict) else None
    if not isinstance(made, int) or isinstance(made, bool) or made < 1:
        raise InputError(
            f"{_ABOUT} of {path.name} states no format; it is not an annotation package"
        )
    if made > FORMAT:
        raise InputError(
            f"{path.name} was written by a newer version (format {made}, known is {FORMAT}); "
            "install that version"
        )
    return dict(about)
