"""The annotations of one slide: shapes of tissue classes, with undo.

    edit ─► journal (on the disk) ─► entries, index and totals of the classes ─► changed ─► window
    undo in any view ─► journal ─► changed of the journal ─┘

Every change is an `Edit` that is written to the journal before it becomes visible, so that nothing
on the screen can be lost.  An edit costs what it changes, however many shapes there are.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, Protocol, Self

import numpy as np
import shapely
from psygnal import Signal
from shapely import STRtree

from napari_mosaik.annotate.brush import Area, clean, cut_region, join_region
from napari_mosaik.annotate.compaction import Compacted, read_compacted, write_compacted
from napari_mosaik.annotate.state import (
    LOCK,
    AppliedEdit,
    ClassTotals,
    Edit,
    Entry,
    Snapshot,
    TissueClass,
    edit_from,
    edit_record,
)
from napari_mosaik.core import InputError
from napari_mosaik.core.journal import JournalChange, JournalPart, JournalScan, annotation_part
from napari_mosaik.core.palette import UNKNOWN_CLASS
from napari_mosaik.core.shapes import AnnotatedShape

__all__ = [
    "AnnotationDocument",
    "EventSink",
    "Overlap",
    "open_document",
    "steps_of",
]

Overlap = Literal["allow", "new wins", "clip new"]
"""Shapes of different classes may overlap, the new one wins, or the new one is clipped."""
SLIVER_UM2: Final = 4.0
"""Parts and holes smaller than this are removed when shapes are joined or cut, µm²."""


_REBUILD_AT = 256
"""Number of edits after which the tree is rebuilt."""


class EventSink(Protocol):
    """Receiver of edits, such as a `JournalPart`."""

    def append(self, event: Mapping[str, Any], /) -> Any:
        """Record one event, or raise and record nothing."""


class AnnotationDocument:
    """The annotations of one slide, their history and their journal.

    Parameters
    ----------
    name
        The annotated slide ("he").
    journal
        Receives edits before they become visible; None records nothing.
    overlap
        Rule for a new shape that overlaps one of another class.

    Notes
    -----
    ``changed`` is emitted after every edit, undo and redo with the keys of the changed shapes, on
    the thread that made it.  All positions are µm of the slide, x = column and y = row.
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
        self._part: JournalPart | None = None
        self._writers: set[int] = set()
        self._start(Compacted(-1, Snapshot(), 0))

    def _start(self, state: Compacted) -> None:
        """Begin with a state, without history."""
        self.spared = 0
        """How many locked shapes the last change left as they are, though it met them."""
        self._classes, self._entries = state.snapshot.classes, dict(state.snapshot.entries)
        self._next_order, self._n = state.next_order, state.n
        self._undo: list[AppliedEdit] = []
        self._redo: list[AppliedEdit] = []
        self._totals = ClassTotals(self._entries)
        self._seen: Snapshot | None = None
        self._index: _ShapeIndex | None = None

    @classmethod
    def open(cls, part: JournalPart, name: str = "he", *, overlap: Overlap = "allow") -> Self:
        """The document of an open part of a journal, with its undo history; it continues there."""
        document = cls(name, overlap=overlap)
        document._load(part.scan)
        document._journal = document._part = part
        part.follow(document._journal_changed)
        return document

    def _load(self, scan: JournalScan, *, compacted: bool = True) -> None:
        """Take the state of a journal; without *compacted* from all of its entries."""
        state = read_compacted(scan, self.name) if compacted else None
        self._start(state or Compacted(-1, Snapshot(), 0))
        entries = scan.active(annotation_part(self.name))
        for event in scan.events(entry for entry in entries if entry.n > self._n):
            if event["event"] == "edit":
                done, self._next_order = self._prepare(edit_from(event), event["n"])
                self._undo.append(done)
                self._take(done, forward=True)
        self._n = max(self._n, *(entry.n for entry in scan.entries), -1)

    def compact(self, state: tuple[Compacted, JournalScan] | None = None) -> None:
        """Store a `state` of the document beside the journal; it opens faster then."""
        if self._part is not None:
            compacted, scan = state or self.state()
            write_compacted(scan, self.name, compacted)

    def state(self) -> tuple[Compacted, JournalScan]:
        """The present state and its journal; another thread may use them."""
        assert self._part is not None
        return Compacted(self._n, self.snapshot, self._next_order), self._part.scan

    @property
    def snapshot(self) -> Snapshot:
        """The present annotations; another thread may read them."""
        if self._seen is None:
            self._seen = Snapshot(self._classes, dict(self._entries))
        return self._seen

    @property
    def classes(self) -> tuple[TissueClass, ...]:
        """The classes."""
        return self._classes

    def __len__(self) -> int:
        return len(self._entries)

    def __bool__(self) -> bool:
        return True

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    @property
    def shapes(self) -> tuple[AnnotatedShape, ...]:
        """All shapes in drawing order."""
        return self.snapshot.shapes

    def count_by_class(self) -> dict[str, int]:
        """Number of shapes of every class, including unused classes and unknown labels."""
        return {name: n for name, (n, _) in self._totals.of(self._classes).items()}

    def area_by_class_um2(self) -> dict[str, float]:
        """Total area of the shapes of each class, µm²; overlaps count twice."""
        return {name: area for name, (_, area) in self._totals.of(self._classes).items()}

    def shape(self, key: str) -> AnnotatedShape:
        """The shape with that key; `InputError` if there is none."""
        entry = self._entries.get(key)
        if entry is None:
            raise InputError(f"no shape '{key}'; it may have been removed")
        return entry.shape

    @property
    def index(self) -> _ShapeIndex:
        """Where the shapes are."""
        if self._index is None:
            self._index = _ShapeIndex({k: e.shape.geometry for k, e in self._entries.items()})
        return self._index

    def visible(self, box_um: tuple[float, float, float, float]) -> list[AnnotatedShape]:
        """Shapes whose bounding box meets (top, left, bottom, right) in µm, in drawing order."""
        return self._ordered(self.index.within_bounds(box_um))

    def touching(self, region: Area) -> list[AnnotatedShape]:
        """Shapes that touch *region*, in drawing order."""
        return self._ordered(self.index.touching(region))

    def at(self, point_um: tuple[float, float]) -> AnnotatedShape | None:
        """The topmost shape at (row, column) in µm; None where there is none."""
        point = shapely.Point(point_um[1], point_um[0])
        hits = [s for s in self.visible((*point_um, *point_um)) if s.geometry.covers(point)]
        return hits[-1] if hits else None

    def _ordered(self, keys: Iterable[str]) -> list[AnnotatedShape]:
        entries = sorted((self._entries[key] for key in keys), key=lambda e: e.order)
        return [entry.shape for entry in entries]

    def add(self, geometry: Area, label: str, *, key: str = "", title: str = "add") -> str:
        """Add a shape and return its key; *geometry* is repaired first."""
        self._check_open(label)
        area = clean(geometry)
        if area is None:
            raise InputError("the shape encloses no area")
        shape = AnnotatedShape(key or str(uuid.uuid4()), label, area)
        self.apply(self._resolved_edit([shape], title))
        return shape.key

    def add_many(self, shapes: Iterable[AnnotatedShape], title: str = "import") -> None:
        """Add shapes unchanged (from a file) as one edit; unknown labels become classes."""
        new = tuple(shapes)
        self.apply(Edit(title, new, (), self._with_labels(new)))

    def remove(self, *keys: str) -> None:
        """Remove shapes."""
        self.free(keys)
        self.apply(Edit("remove", removed=keys))

    def change_class(self, keys: Iterable[str], label: str) -> None:
        """Change the class of shapes."""
        self._check_open(label)
        put = tuple(replace(shape, label=label, colour="") for shape in self.free(keys))
        self.apply(Edit("change class", put))

    def replace(self, key: str, geometry: Area, title: str = "reshape") -> None:
        """Replace the geometry of a shape; it is removed if the new one has no area."""
        area = clean(geometry)
        (shape,) = self.free([key])
        self.reshape([] if area is None else [replace(shape, geometry=area)],
                     [] if area is not None else [key], title)  # fmt: skip

    def reshape(
        self, shapes: Sequence[AnnotatedShape], removed: Iterable[str] = (), title: str = "reshape"
    ) -> None:
        """Put new or changed shapes and remove others as one edit, under the rule for overlaps.

        What is changed or removed must be `free`; unknown labels become classes.
        """
        gone, there = tuple(removed), self._entries
        self.free([*gone, *(one.key for one in shapes if one.key in there)])
        classes = self._with_labels(shapes)
        if classes is None:
            for label in {one.label for one in shapes if one.key not in there}:
                self._check_open(label)
        self.apply(replace(self._resolved_edit(shapes, title, gone), classes=classes))

    def _with_labels(self, shapes: Iterable[AnnotatedShape]) -> tuple[TissueClass, ...] | None:
        """The classes with those that the shapes add; None if they add none."""
        known = {c.name for c in self._classes}
        extra = {
            s.label: s.colour or UNKNOWN_CLASS for s in shapes if s.label and s.label not in known
        }
        added = tuple(TissueClass(n, c) for n, c in extra.items())
        return self._classes + added if added else None

    # --- locks ----------------------------------------------------------------------------------
    def lock_reason(self, shape: AnnotatedShape) -> str:
        """Why no tool may change a shape, as a sentence; empty if any may."""
        if shape.properties.get(LOCK) is True:
            return "this annotation is locked; unlock it to change it"
        if any(known.locked for known in self._classes if known.name == shape.label):
            return f"the class '{shape.label}' is locked; unlock it to change its annotations"
        return ""

    def free(self, keys: Iterable[str]) -> tuple[AnnotatedShape, ...]:
        """The shapes with these keys; `InputError` if one is locked, or is not there."""
        shapes = tuple(self.shape(key) for key in keys)
        for shape in shapes:
            if self.lock_reason(shape):
                raise InputError(self.lock_reason(shape))
        return shapes

    def lock(self, keys: Iterable[str], locked: bool) -> None:
        """Lock shapes against every tool, or unlock them; one edit."""
        put = []
        for key in keys:
            shape = self.shape(key)
            kept = {k: v for k, v in shape.properties.items() if k != LOCK}
            put.append(replace(shape, properties={**kept, LOCK: True} if locked else kept))
        self.apply(Edit("lock" if locked else "unlock", tuple(put)))

    def lock_class(self, name: str, locked: bool) -> None:
        """Lock a class: nothing of it is changed, and nothing is added; or unlock it."""
        Snapshot(self._classes).tissue_class(name)
        classes = tuple(
            replace(known, locked=locked) if known.name == name else known
            for known in self._classes
        )
        self.apply(Edit(f"{'lock' if locked else 'unlock'} class", classes=classes))

    def _check_open(self, label: str) -> None:
        if Snapshot(self._classes).tissue_class(label).locked:
            raise InputError(f"the class '{label}' is locked; unlock it to add to it")

    def _apart(
        self, shapes: Iterable[AnnotatedShape]
    ) -> tuple[list[AnnotatedShape], list[AnnotatedShape]]:
        """Shapes that a tool may change, and locked ones."""
        free: list[AnnotatedShape] = []
        locked: list[AnnotatedShape] = []
        for shape in shapes:
            (locked if self.lock_reason(shape) else free).append(shape)
        return free, locked

    def paint(
        self, region: Area, label: str, *, into: str | None = None, title: str = "brush"
    ) -> str:
        """Brush: join *region* to the shape *into* (of the same class), or add a new shape.

        Returns the key of the shape that holds the stroke.
        """
        if into is None or self.shape(into).label != label:
            return self.add(region, label, title=title)
        (shape,) = self.free([into])
        joined = join_region(shape.geometry, region, SLIVER_UM2)
        self.apply(self._resolved_edit([replace(shape, geometry=joined)], title))
        return into

    def erase(self, region: Area, keys: Iterable[str] | None = None) -> None:
        """Eraser: cut *region* from the given shapes, or from all that it touches.

        Locked ones stay; `InputError` if it touches no other.
        """
        touched = self.touching(region)
        selected = None if keys is None else set(keys)
        chosen, locked = self._apart(s for s in touched if selected is None or s.key in selected)
        if locked and not chosen:
            raise InputError(self.lock_reason(locked[0]))
        self.spared = len(locked)
        put, removed = _cut(chosen, region)
        if put or removed:
            self.apply(Edit("erase", put, removed))

    def set_classes(self, classes: tuple[TissueClass, ...], title: str = "classes") -> None:
        """Replace the list of classes; a class in use cannot be removed."""
        names = [c.name for c in classes]
        if len(set(names)) < len(names) or not all(names):
            raise InputError(f"class names must be unique and not empty: {', '.join(names)}")
        used = {label for label, (n, _) in self._totals.of(()).items() if n and label}
        dropped = used & {c.name for c in self._classes} - set(names)
        if dropped:
            raise InputError(
                f"the class is in use and cannot be removed: {', '.join(sorted(dropped))}"
            )
        self.apply(Edit(title, classes=classes))

    def _resolved_edit(
        self, shapes: Sequence[AnnotatedShape], title: str, removed: Iterable[str] = ()
    ) -> Edit:
        """The edit that puts *shapes*, under the rule for overlaps; locked ones are never cut."""
        self.spared = 0
        own = {shape.key for shape in shapes}
        gone = set(removed)
        if self.overlap == "allow":
            return Edit(title, tuple(shapes), tuple(sorted(gone)))
        changed: dict[str, AnnotatedShape] = {}
        put: list[AnnotatedShape] = []
        for shape in shapes:
            others = [
                changed.get(s.key, s)
                for s in self.touching(shape.geometry)
                if s.key not in own | gone and s.label != shape.label
            ]
            free, kept = self._apart(others)
            if self.overlap == "clip new":
                free, kept = [], others
            rest: Area | None = shape.geometry
            for other in kept:
                rest = None if rest is None else cut_region(rest, other.geometry, SLIVER_UM2)
            if rest is None:
                locked = "locked " if self.overlap == "new wins" else ""
                raise InputError(f"the shape lies entirely within {locked}shapes of other classes")
            self.spared += sum(bool(self.lock_reason(other)) for other in kept)
            cut, covered = _cut(free, rest)
            changed.update({one.key: one for one in cut})
            gone.update(covered)
            before, put = put, []
            for earlier in before:  # of this edit: the later one wins, too
                apart = earlier.label == shape.label
                left = earlier.geometry if apart else cut_region(earlier.geometry, rest, SLIVER_UM2)
                if left is None:
                    gone.add(earlier.key)
                else:
                    put.append(replace(earlier, geometry=left))
            put.append(replace(shape, geometry=rest))
        changed = {key: one for key, one in changed.items() if key not in gone}
        return Edit(title, (*changed.values(), *put), tuple(sorted(gone)))

    def apply(self, edit: Edit) -> None:
        """Write an edit to the journal, apply it, and emit ``changed``."""
        self.show(edit, self.record(edit))

    def record(self, edit: Edit) -> int:
        """Write an edit to the journal alone, on any thread; `show` makes it visible."""
        self._writers.add(threading.get_ident())
        try:
            return self._write("edit", edit_record(edit))
        finally:
            self._writers.discard(threading.get_ident())

    def show(self, edit: Edit, n: int) -> None:
        """Apply an edit that was recorded under the number *n*, and emit ``changed``."""
        if n < self._n and self._part is not None:  # another edit came between
            self._load_again()
        else:
            self._made(*self._prepare(edit, n))

    def _made(self, done: AppliedEdit, next_order: int) -> None:
        self._next_order, self._n = next_order, done.n
        self._undo.append(done)
        self._redo.clear()
        self._show(done, forward=True)

    def _prepare(self, edit: Edit, n: int = -1) -> tuple[AppliedEdit, int]:
        entries = self._entries
        order, after = self._next_order, dict[str, Entry | None]()
        for key in edit.removed:
            after[key] = None
        for shape in edit.put:
            old = entries.get(shape.key)
            after[shape.key] = Entry(order if old is None else old.order, shape)
            order += old is None
        before = {key: entries.get(key) for key in after}
        classes = None if edit.classes is None else (self._classes, edit.classes)
        return AppliedEdit(n, edit.title, before, after, classes), order

    @property
    def undo_title(self) -> str:
        """Title of the edit that `undo` would undo; empty if there is none."""
        if self._part is not None:
            return self._part.journal.undo_title(self._part.part)
        return self._undo[-1].title if self._undo else ""

    @property
    def redo_title(self) -> str:
        """Title of the edit that `redo` would redo; empty if there is none."""
        if self._part is not None:
            return self._part.journal.redo_title(self._part.part)
        return self._redo[-1].title if self._redo else ""

    def undo(self) -> bool:
        """Undo the last edit of this document; False if there is none.

        `ReaderJournal.undo_last` undoes what the reader did last, be it here or in another view.
        """
        if self._part is not None:
            return self._part.journal.undo_last(self._part.part) is not None
        if not self._undo:
            return False
        self._write("undo", {})
        self._step(back=True)
        return True

    def redo(self) -> bool:
        """Redo the edit that was undone last; False if there is none."""
        if self._part is not None:
            return self._part.journal.redo_last(self._part.part) is not None
        if not self._redo:
            return False
        self._write("redo", {})
        self._step(back=False)
        return True

    def _step(self, *, back: bool) -> None:
        source, target = (self._undo, self._redo) if back else (self._redo, self._undo)
        target.append(source.pop())
        self._show(target[-1], forward=not back)

    def _journal_changed(self, change: JournalChange) -> None:
        """Follow what was undone, redone or written later in the journal."""
        if threading.get_ident() in self._writers or change.event.get("event") != "edit":
            return
        assert self._part is not None
        self._n = self._part.scan.next_n - 1
        source = self._undo if change.kind == "undo" else self._redo
        if change.kind != "append" and source and source[-1].n == change.n:
            self._step(back=change.kind == "undo")
        elif change.kind == "undo":  # made before the compacted state: replay all
            self._load_again()
        else:
            self._made(*self._prepare(edit_from(change.event), change.n))

    def _load_again(self) -> None:
        assert self._part is not None
        keys = set(self._entries)
        self._load(self._part.scan, compacted=False)
        self.changed.emit(tuple(keys | set(self._entries)))

    def _replay(self, event: Mapping[str, Any]) -> None:
        """Follow one event of a journal, whose edit may be lost."""
        source = {"undo": self._undo, "redo": self._redo}.get(event["event"], [])
        if event["event"] == "edit":
            self._made(*self._prepare(edit_from(event), event["n"]))
        elif source and source[-1].n == event["of"]:
            self._step(back=event["event"] == "undo")

    def _write(self, kind: str, record: Mapping[str, Any]) -> int:
        if self._journal is None:
            return -1
        n = self._journal.append({"event": kind, **record})
        return n if isinstance(n, int) else -1

    def _show(self, done: AppliedEdit, *, forward: bool) -> None:
        self._take(done, forward=forward)
        changes = done.after if forward else done.before
        self.changed.emit(tuple(changes))

    def _take(self, done: AppliedEdit, *, forward: bool) -> None:
        changes, gone = (done.after, done.before)[:: 1 if forward else -1]
        for key, entry in changes.items():
            if entry is None:
                self._entries.pop(key, None)
            else:
                self._entries[key] = entry
        if done.classes is not None:
            self._classes = done.classes[forward]
        self._totals.add([entry.shape for entry in gone.values() if entry is not None], -1)
        self._totals.add([entry.shape for entry in changes.values() if entry is not None])
        self._seen = None
        if self._index is not None:
            self._index.update(
                {k: None if e is None else e.shape.geometry for k, e in changes.items()}
            )


def steps_of(
    scan: JournalScan, name: str = "he"
) -> Iterator[tuple[Mapping[str, Any], Snapshot, Snapshot]]:
    """The events of one document in a journal, each with the annotations before and after it."""
    document = AnnotationDocument(name)
    for event in scan.events(scan.of_part(annotation_part(name))):
        before = document.snapshot
        document._replay(event)
        yield event, before, document.snapshot


class _ShapeIndex:
    """A tree of the shapes at the last rebuild, and a list of those that changed since."""

    def __init__(self, geometries: Mapping[str, Area]) -> None:
        self._recent: dict[str, Area] = {}
        self._gone: set[str] = set()
        self._rebuild(geometries)

    def _rebuild(self, geometries: Mapping[str, Area]) -> None:
        self._keys = list(geometries)
        self._base = dict(geometries)
        self._tree = STRtree(list(geometries.values()))
        self._recent.clear()
        self._gone.clear()

    def update(self, changes: Mapping[str, Area | None]) -> None:
        """Apply changed geometries; None for a removed shape."""
        for key, geometry in changes.items():
            self._recent.pop(key, None)
            if key in self._base:
                self._gone.add(key)
            if geometry is not None:
                self._recent[key] = geometry
        if len(self._recent) + len(self._gone) > _REBUILD_AT:
            unchanged = {k: g for k, g in self._base.items() if k not in self._gone}
            self._rebuild({**unchanged, **self._recent})

    def touching(self, region: Area) -> list[str]:
        """Keys of the shapes that touch *region*, unordered."""
        hits = [self._keys[i] for i in self._tree.query(region, predicate="intersects")]
        keys = [key for key in hits if key not in self._gone]
        if self._recent:
            hit = np.asarray(shapely.intersects(list(self._recent.values()), region))
            keys += [key for key, touches in zip(self._recent, hit, strict=True) if touches]
        return keys

    def within_bounds(self, box_um: tuple[float, float, float, float]) -> list[str]:
        """Keys of the shapes whose bounding box meets (top, left, bottom, right), µm."""
        top, left, bottom, right = box_um
        box = shapely.box(left, top, right, bottom)
        keys = [self._keys[i] for i in self._tree.query(box)]
        keys = [key for key in keys if key not in self._gone]
        if self._recent:
            x0, y0, x1, y1 = shapely.bounds(list(self._recent.values())).T
            hit = (x0 <= right) & (x1 >= left) & (y0 <= bottom) & (y1 >= top)
            keys += [key for key, meets in zip(self._recent, hit, strict=True) if meets]
        return keys


def open_document(scan: JournalScan, name: str = "he") -> AnnotationDocument:
    """The document *name* of a journal, for reading only."""
    document = AnnotationDocument(name)
    document._load(scan)
    return document


def _cut(
    shapes: Iterable[AnnotatedShape], region: Area
) -> tuple[tuple[AnnotatedShape, ...], tuple[str, ...]]:
    """The changed shapes, and the keys of removed ones, when *region* is cut from *shapes*."""
    put, removed = [], []
    for shape in shapes:
        rest = cut_region(shape.geometry, region, SLIVER_UM2)
        if rest is None:
            removed.append(shape.key)
        elif shape.geometry.area - rest.area > 1e-9 * shape.geometry.area:
            put.append(replace(shape, geometry=rest))
    return tuple(put), tuple(removed)
