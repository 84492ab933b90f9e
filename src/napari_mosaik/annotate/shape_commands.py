"""Commands on selected annotations, and the cuts and conversions of the tools: each is one edit.

    keys of shapes ─► `why_not`: empty, or the reason ─► `run_shape_command` ─► one edit

A command never changes a locked annotation; `InputError` says what is in the way.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np
import shapely
from numpy.typing import ArrayLike

from napari_mosaik.annotate.brush import Area, clean
from napari_mosaik.annotate.document import AnnotationDocument
from napari_mosaik.annotate.reshape import (
    inside_slide,
    offset_outline,
    simplify_outline,
    smooth_outline,
    split_along,
    unite_areas,
    without_holes,
)
from napari_mosaik.annotate.state import LOCK
from napari_mosaik.core import InputError, Lattice
from napari_mosaik.core.shapes import AnnotatedShape

__all__ = ["SHAPE_COMMANDS", "ShapeCommand", "add_prediction", "run_shape_command", "split_shapes",
           "why_not"]  # fmt: skip


@dataclass(frozen=True, slots=True)
class ShapeCommand:
    """A command on selected annotations: its title, and a tip with a gap for the distance."""

    title: str
    tip: str


SHAPE_COMMANDS: Final[Mapping[str, ShapeCommand]] = {
    "fill holes": ShapeCommand("Fill holes", "Fills all holes of the selected annotations"),
    "smooth": ShapeCommand(
        "Smooth", "Removes details of the outline that are finer than {um}; holes stay"
    ),
    "simplify": ShapeCommand("Simplify", "Removes vertices; the outline moves by at most {um}"),
    "merge": ShapeCommand("Merge", "Makes one annotation of several of the same class"),
    "lock": ShapeCommand("Lock", "No tool changes a locked annotation, until it is unlocked"),
    "delete": ShapeCommand("Delete", "Deletes the selected annotations"),
    "dilate": ShapeCommand("Dilate", "Moves the outline outwards by {um}"),
    "shrink": ShapeCommand("Shrink", "Moves the outline inwards by {um}"),
}
"""The commands by name, which is also the title of their edit."""


def why_not(document: AnnotationDocument | None, keys: Sequence[str], command: str) -> str:
    """Why a command does not apply to the shapes with these keys, in words; empty if it does."""
    if document is None or not keys:
        return "Nothing is selected: choose Select and click an annotation"
    shapes = [document.shape(key) for key in keys]
    reasons = [document.lock_reason(shape) for shape in shapes]
    if command == "lock" and not any(one and not _has_lock(shape) for one, shape in
                                     zip(reasons, shapes, strict=True)):  # fmt: skip
        return ""
    if any(reasons):
        return next(reason for reason in reasons if reason).capitalize()
    if command == "merge":
        if len(shapes) < 2:
            return "Select two or more annotations: hold Shift and click"
        if len({shape.label for shape in shapes}) > 1:
            return "The selected annotations are of different classes; change the class first"
    if command == "fill holes" and not any(_holes(shape.geometry) for shape in shapes):
        return "The selected annotation has no hole"
    return ""


def run_shape_command(
    document: AnnotationDocument,
    keys: Sequence[str],
    command: str,
    um: float,
    slide: Lattice | None = None,
) -> tuple[str, ...]:
    """Apply a command as one edit; the keys of the shapes that are there afterwards.

    Parameters
    ----------
    document
        The annotations.
    keys
        The selected shapes.
    command
        One of `SHAPE_COMMANDS`.
    um
        Distance, radius or tolerance, µm; not used by all commands.
    slide
        Level-0 lattice: nothing grows beyond it.

    Raises
    ------
    InputError
        The command does not apply, or changes nothing.
    """
    reason = why_not(document, keys, command)
    if reason:
        raise InputError(reason)
    shapes = [document.shape(key) for key in keys]
    if command == "lock":
        document.lock(keys, not all(map(_has_lock, shapes)))
        return tuple(keys)
    if command == "delete":
        document.reshape([], keys, "delete")
        return ()
    if command == "merge":
        united = unite_areas([shape.geometry for shape in shapes])
        document.reshape([replace(shapes[0], geometry=united)], keys[1:], command)
        return (keys[0],)
    changes: dict[str, Callable[[Area], Area]] = {
        "fill holes": without_holes,
        "smooth": partial(smooth_outline, radius_um=um),
        "simplify": partial(simplify_outline, tolerance_um=um),
        "dilate": partial(offset_outline, by_um=um),
        "shrink": partial(offset_outline, by_um=-um),
    }
    new = []
    for shape in shapes:
        area = changes[command](shape.geometry)
        area = area if slide is None else inside_slide(area, slide)
        if not shapely.equals_identical(area, shape.geometry):
            new.append(replace(shape, geometry=area))
    if not new:
        raise InputError(f"{command}: nothing to change with {um:g} µm")
    document.reshape(new, (), command)
    return tuple(key for key in keys if key in document)


def split_shapes(
    document: AnnotationDocument, keys: Sequence[str], line_um: ArrayLike
) -> tuple[str, ...]:
    """Split by a line (n, 2), row and column in µm: the selected shapes, else all that it cuts.

    The largest piece keeps its key.  Returns the keys of all pieces.  Raises `InputError` if the
    line cuts nothing, or only what is locked.
    """
    line = shapely.LineString(np.asarray(line_um, float)[:, ::-1])
    touched = [
        shape
        for shape in document.visible(_box(line))
        if shapely.intersects(shape.geometry, line) and (not keys or shape.key in keys)
    ]
    if not touched:
        raise InputError("the line meets no annotation; drag it across one")
    refused: InputError | None = None
    pieces: list[AnnotatedShape] = []
    for shape in touched:
        reason = document.lock_reason(shape)
        try:
            if reason:
                raise InputError(reason)
            first, *others = split_along(shape.geometry, line_um)
        except InputError as error:
            refused = error
            continue
        pieces.append(replace(shape, geometry=first))
        pieces += [replace(shape, key=str(uuid.uuid4()), geometry=area) for area in others]
    if not pieces:
        assert refused is not None
        raise refused
    document.reshape(pieces, (), "split")
    return tuple(piece.key for piece in pieces)


def add_prediction(document: AnnotationDocument, label: str, area: Area) -> str:
    """Make a predicted region an annotation of its class; the key of the new shape.

    What is annotated already stays as it is, unless annotations may overlap: the new one has the
    rest of the region.
    """
    if document.overlap != "allow":
        there = [shape.geometry for shape in document.touching(area)]
        rest = clean(shapely.difference(area, shapely.union_all(there))) if there else area
        if rest is None:
            raise InputError("this region is annotated already; choose Select to change it")
        area = rest
    key = str(uuid.uuid4())
    document.reshape([AnnotatedShape(key, label, area)], (), "convert")
    return key


def _has_lock(shape: AnnotatedShape) -> bool:
    return shape.properties.get(LOCK) is True


def _holes(geometry: Area) -> int:
    return sum(len(part.interiors) for part in shapely.get_parts(geometry))


def _box(line: shapely.LineString) -> tuple[float, float, float, float]:
    """Top, left, bottom and right of a line, µm."""
    left, top, right, bottom = line.bounds
    return top, left, bottom, right
