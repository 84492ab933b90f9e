"""The annotations of one slide: shapes of tissue classes, with undo of everything.

Shapes live in an immutable `Snapshot`; every change is an `Edit` that is written to the journal
before it becomes visible, so that nothing on the screen can be lost.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, Protocol, Self

import shapely
from psygnal import Signal

from napari_mosaik.annotate import records
from napari_mosaik.annotate.brush import Area, clean, cut_region, join_region
from napari_mosaik.annotate.index import ShapeIndex
from napari_mosaik.annotate.journal import Journal, read_journal
from napari_mosaik.annotate.state import Done, Edit, Entry, Snapshot, TissueClass
from napari_mosaik.core import CorruptArtifact, InputError
from napari_mosaik.core.palette import UNKNOWN_CLASS
from napari_mosaik.core.shapes import AnnotatedShape

__all__ = [
    "AnnotationDocument",
    "EventSink",
    "Overlap",
    "open_document",
    "replay",
]

Overlap = Literal["allow", "new wins", "clip new"]
"""Shapes of different classes: may overlap, the new one wins, or the new one gives way."""
SLIVER_UM2: Final = 4.0
"""Parts and holes smaller than this vanish when shapes are joined or cut, µm²."""


class EventSink(Protocol):
    """Where edits are recorded; `Journal` is one."""

    def append(self, event: Mapping[str, Any], /) -> None:
        """Record one event, or raise and record nothing."""


class AnnotationDocument:
    """The annotations of one slide, their history and their journal.

    Parameters
    ----------
    name
        What is annotated ("he"); several documents may share a journal.
    journal
        Where edits are written before they become visible; None keeps nothing.
    overlap
        What happens where a new shape meets one of another class.

    Notes
    -----
    ``changed`` is emitted after every edit, undo and redo with the keys of the shapes concerned.
    All positions are µm of the slide, x = column and y = row.
    """

    changed = Signal(tuple)

    def __init__(
        self,
        name: str = "he",
        *,
        journal: EventSink | None = None,
        overlap: Overlap = "allow",
    ) -> None:
        self.name = name
        self.overlap: Overlap = overlap
        self._journal = journal
        self._snapshot = Snapshot()
        self._index = ShapeIndex({})
        self._undo: list[Done] = []
        self._redo: list[Done] = []
        self._next_order = 0

    @classmethod
    def open(cls, journal: Journal, name: str = "he", *, overlap: Overlap = "allow") -> Self:
        """Rebuild a document from its journal, undo history included, and go on writing to it."""
        document = cls(name, overlap=overlap)
        document._play(journal.events())
        document._journal = journal
        return document

    @property
    def snapshot(self) -> Snapshot:
        """The annotations now."""
        return self._snapshot

    @property
    def shapes(self) -> tuple[AnnotatedShape, ...]:
        """All shapes in drawing order."""
        return self._snapshot.shapes

    def shape(self, key: str) -> AnnotatedShape:
        """The shape of that key; `InputError` when there is none."""
        entry = self._snapshot.entries.get(key)
        if entry is None:
            raise InputError(f"no shape '{key}'; it may have been removed")
        return entry.shape

    def visible(self, box_um: tuple[float, float, float, float]) -> list[AnnotatedShape]:
        """Shapes whose bounding box meets (top, left, bottom, right) in µm, in drawing order."""
        return self._ordered(self._index.within_bounds(box_um))

    def touching(self, region: Area) -> list[AnnotatedShape]:
        """Shapes that have at least a point in common with *region*, in drawing order."""
        return self._ordered(self._index.touching(region))

    def at(self, point_um: tuple[float, float]) -> AnnotatedShape | None:
        """The topmost shape at (row, column) in µm, None where there is none."""
        point = shapely.Point(point_um[1], point_um[0])
        found = [s for s in self.visible((*point_um, *point_um)) if s.geometry.covers(point)]
        return found[-1] if found else None

    def _ordered(self, keys: Iterable[str]) -> list[AnnotatedShape]:
        found = sorted((self._snapshot.entries[key] for key in keys), key=lambda e: e.order)
        return [entry.shape for entry in found]

    def add(self, geometry: Area, label: str, *, key: str = "", title: str = "add") -> str:
        """Add a shape and return its key; *geometry* is repaired first."""
        self._snapshot.tissue_class(label)
        area = clean(geometry)
        if area is None:
            raise InputError("the shape encloses no area")
        shape = AnnotatedShape(key or str(uuid.uuid4()), label, area)
        self.apply(self._settled(shape, title))
        return shape.key

    def add_many(self, shapes: Iterable[AnnotatedShape], title: str = "import") -> None:
        """Add shapes as they are (from a file) as one edit; unknown labels become classes."""
        new = tuple(shapes)
        known = {c.name for c in self._snapshot.classes}
        extra = {
            s.label: s.colour or UNKNOWN_CLASS for s in new if s.label and s.label not in known
        }
        classes = self._snapshot.classes + tuple(TissueClass(n, c) for n, c in extra.items())
        self.apply(Edit(title, new, (), classes if extra else None))

    def remove(self, *keys: str) -> None:
        """Remove shapes."""
        for key in keys:
            self.shape(key)
        self.apply(Edit("remove", removed=keys))

    def change_class(self, keys: Iterable[str], label: str) -> None:
        """Give shapes another class."""
        self._snapshot.tissue_class(label)
        put = tuple(replace(self.shape(key), label=label, colour="") for key in keys)
        self.apply(Edit("change class", put))

    def replace(self, key: str, geometry: Area, title: str = "reshape") -> None:
        """Give a shape another geometry; it is removed when the new one has no area."""
        area = clean(geometry)
        if area is None:
            self.apply(Edit(title, removed=(self.shape(key).key,)))
        else:
            self.apply(self._settled(replace(self.shape(key), geometry=area), title))

    def paint(self, region: Area, label: str, *, into: str | None = None) -> str:
        """Brush: join *region* to the shape *into* (of the same class), or begin a new shape.

        Returns the key of the shape that holds the stroke.
        """
        if into is None or self.shape(into).label != label:
            return self.add(region, label, title="brush")
        shape = self.shape(into)
        joined = join_region(shape.geometry, region, SLIVER_UM2)
        self.apply(self._settled(replace(shape, geometry=joined), "brush"))
        return into

    def erase(self, region: Area, keys: Iterable[str] | None = None) -> None:
        """Eraser: cut *region* from the shapes named, or from all that it touches."""
        touched = self.touching(region)
        wanted = None if keys is None else set(keys)
        chosen = [s for s in touched if wanted is None or s.key in wanted]
        put, removed = _cut(chosen, region)
        if put or removed:
            self.apply(Edit("erase", put, removed))

    def set_classes(self, classes: tuple[TissueClass, ...], title: str = "classes") -> None:
        """Replace the list of classes; one in use cannot be left out."""
        names = [c.name for c in classes]
        if len(set(names)) < len(names) or not all(names):
            raise InputError(f"every class needs a name of its own: {', '.join(names)}")
        used = {e.shape.label for e in self._snapshot.entries.values() if e.shape.label}
        dropped = used & {c.name for c in self._snapshot.classes} - set(names)
        if dropped:
            raise InputError(f"shapes still have the class {', '.join(sorted(dropped))}")
        self.apply(Edit(title, classes=classes))

    def _settled(self, shape: AnnotatedShape, title: str) -> Edit:
        """The edit that puts *shape*, under the rule for overlaps."""
        if self.overlap == "allow":
            return Edit(title, (shape,))
        others = [
            s
            for s in self.touching(shape.geometry)
            if s.key != shape.key and s.label != shape.label
        ]
        if self.overlap == "new wins":
            put, removed = _cut(others, shape.geometry)
            return Edit(title, (*put, shape), removed)
        left: Area | None = shape.geometry
        for other in others:
            left = None if left is None else cut_region(left, other.geometry, SLIVER_UM2)
        if left is None:
            raise InputError("the shape lies wholly within shapes of other classes")
        return Edit(title, (replace(shape, geometry=left),))

    def apply(self, edit: Edit) -> None:
        """Write an edit to the journal, make it, and tell those who listen."""
        done, next_order = self._prepare(edit)
        self._write("edit", records.edit_record(edit))
        self._next_order = next_order
        self._undo.append(done)
        self._redo.clear()
        self._show(done, forward=True)

    def _prepare(self, edit: Edit) -> tuple[Done, int]:
        entries = self._snapshot.entries
        order, after = self._next_order, dict[str, Entry | None]()
        for key in edit.removed:
            after[key] = None
        for shape in edit.put:
            old = entries.get(shape.key)
            after[shape.key] = Entry(order if old is None else old.order, shape)
            order += old is None
        before = {key: entries.get(key) for key in after}
        classes = None if edit.classes is None else (self._snapshot.classes, edit.classes)
        return Done(edit.title, before, after, classes), order

    @property
    def undo_title(self) -> str:
        """What `undo` would take back, empty when there is nothing."""
        return self._undo[-1].title if self._undo else ""

    @property
    def redo_title(self) -> str:
        """What `redo` would make again, empty when there is nothing."""
        return self._redo[-1].title if self._redo else ""

    def undo(self) -> bool:
        """Take back the last edit; False when there is none."""
        if not self._undo:
            return False
        self._write("undo", {})
        done = self._undo.pop()
        self._redo.append(done)
        self._show(done, forward=False)
        return True

    def redo(self) -> bool:
        """Make again what was taken back last; False when there is nothing."""
        if not self._redo:
            return False
        self._write("redo", {})
        done = self._redo.pop()
        self._undo.append(done)
        self._show(done, forward=True)
        return True

    def _write(self, kind: str, record: Mapping[str, Any]) -> None:
        if self._journal is not None:
            self._journal.append({"event": kind, "document": self.name, **record})

    def _show(self, done: Done, *, forward: bool) -> None:
        changes = done.after if forward else done.before
        entries = dict(self._snapshot.entries)
        for key, entry in changes.items():
            if entry is None:
                entries.pop(key, None)
            else:
                entries[key] = entry
        classes = self._snapshot.classes if done.classes is None else done.classes[forward]
        self._snapshot = Snapshot(classes, entries)
        self._index.update({k: None if e is None else e.shape.geometry for k, e in changes.items()})
        self.changed.emit(tuple(changes))

    def _play(self, events: Iterable[Mapping[str, Any]]) -> None:
        for event in events:
            if event.get("document") != self.name:
                continue
            kind = event.get("event")
            if kind == "edit":
                self.apply(records.edit_from(event))
            elif (kind == "undo" and not self.undo()) or (kind == "redo" and not self.redo()):
                raise CorruptArtifact(
                    f"the journal of '{self.name}' takes back an edit that it does not hold; "
                    "restore the annotations from their GeoJSON file"
                )


def replay(events: Iterable[Mapping[str, Any]], name: str = "he") -> AnnotationDocument:
    """The document *name* rebuilt from the events of a journal, undo history included."""
    document = AnnotationDocument(name)
    document._play(events)
    return document


def open_document(path: str | Path, name: str = "he") -> AnnotationDocument:
    """The document *name* of a journal file, for reading only."""
    return replay(read_journal(path), name)


def _cut(
    shapes: Iterable[AnnotatedShape], region: Area
) -> tuple[tuple[AnnotatedShape, ...], tuple[str, ...]]:
    """Shapes changed and keys of shapes used up when *region* is cut from *shapes*."""
    put, removed = [], []
    for shape in shapes:
        left = cut_region(shape.geometry, region, SLIVER_UM2)
        if left is None:
            removed.append(shape.key)
        elif shape.geometry.area - left.area > 1e-9 * shape.geometry.area:
            put.append(replace(shape, geometry=left))
    return tuple(put), tuple(removed)
