"""What an annotation document is at one moment, and what an edit is: immutable values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import shapely

from napari_mosaik.core import InputError
from napari_mosaik.core.catalogue import BACKGROUND, CLASS_NAMES
from napari_mosaik.core.palette import CLASS_COLOURS
from napari_mosaik.core.shapes import AnnotatedShape

__all__ = ["DEFAULT_CLASSES", "Done", "Edit", "Entry", "Snapshot", "TissueClass"]


@dataclass(frozen=True, slots=True)
class TissueClass:
    """A class that shapes can have: its name, its colour and the key that chooses it."""

    name: str
    colour: str
    key: str = ""


DEFAULT_CLASSES: Final = tuple(
    TissueClass(CLASS_NAMES[code], CLASS_COLOURS[code], str(key))
    for key, code in enumerate(
        (*sorted(code for code in CLASS_NAMES if code > BACKGROUND), BACKGROUND), 1
    )
)
"""The built-in classes: tissue first, background last."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A shape and its place in the drawing order."""

    order: int
    shape: AnnotatedShape


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """One step that can be undone: what the screen calls it, and what it puts or removes.

    Parameters
    ----------
    title
        Words for the undo button ("brush", "change class").
    put
        Shapes to add, or to replace under the same key.
    removed
        Keys of shapes to remove.
    classes
        The new list of classes, None when it stays.
    """

    title: str
    put: tuple[AnnotatedShape, ...] = ()
    removed: tuple[str, ...] = ()
    classes: tuple[TissueClass, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The annotations at one moment; never changes, so that a long job can read it in peace."""

    classes: tuple[TissueClass, ...] = DEFAULT_CLASSES
    entries: Mapping[str, Entry] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def shapes(self) -> tuple[AnnotatedShape, ...]:
        """All shapes in drawing order, the last on top."""
        return tuple(e.shape for e in sorted(self.entries.values(), key=lambda e: e.order))

    def tissue_class(self, name: str) -> TissueClass:
        """The class of that name; `InputError` when there is none."""
        for known in self.classes:
            if known.name == name:
                return known
        raise InputError(f"no class '{name}'; there are: {', '.join(c.name for c in self.classes)}")

    def count_by_class(self) -> dict[str, int]:
        """Number of shapes of every class, those without shapes and unknown labels included."""
        counts = {known.name: 0 for known in self.classes}
        for entry in self.entries.values():
            counts[entry.shape.label] = counts.get(entry.shape.label, 0) + 1
        return counts

    def area_by_class_um2(self) -> dict[str, float]:
        """Sum of the shapes' areas per class, µm²; where shapes overlap they count twice."""
        areas = {known.name: 0.0 for known in self.classes}
        labels = [entry.shape.label for entry in self.entries.values()]
        each = shapely.area([entry.shape.geometry for entry in self.entries.values()])
        for label, area in zip(labels, np.atleast_1d(each), strict=True):
            areas[label] = areas.get(label, 0.0) + float(area)
        return areas


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """An edit that was made: each entry before and after, for undo and redo."""

    title: str
    before: Mapping[str, Entry | None]
    after: Mapping[str, Entry | None]
    classes: tuple[tuple[TissueClass, ...], tuple[TissueClass, ...]] | None
