"""Manual correction of the objects of a case: select, add, delete, merge, split, class.

    click ─► journal (on the disk) ─► the editor in memory ─► the window
                    └────► step "correct_vessels" ─► what reads its result becomes stale

A GeoJSON file brings corrections as one entry of the journal: all of them, or none.

The window and the step apply corrections with the same editor, so the window shows what the step
will store.  Only the surroundings of corrected objects are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.artifact import Artifact
from napari_mosaik.core.catalogue import CORRECTED, OBJECTS, SLIDES, STAIN_TITLES, TISSUE
from napari_mosaik.core.closing import Closing
from napari_mosaik.core.corrections import (
    CORRECTED_FRAMES,
    Correction,
    Point,
    describe_correction,
)
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Lattice, Mask
from napari_mosaik.core.journal import JournalChange, JournalPart, correction_part
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.core.table import Table
from napari_mosaik.core.text import same_words
from napari_mosaik.io.annotations import read_geojson
from napari_mosaik.io.case import Case
from napari_mosaik.io.corrections import corrections_in
from napari_mosaik.segment.label_editing import ObjectEditor, apply_corrections
from napari_mosaik.tissue import ARTEFACT_NAMES
from napari_mosaik.workflow.annotation_import import another_slide

if TYPE_CHECKING:
    from shapely import MultiPolygon, Polygon

__all__ = [
    "ARTEFACT_TYPES",
    "CorrectionLog",
    "CorrectionSession",
    "OutlineUse",
    "SelectedObject",
    "correct_from_file",
    "correction_records",
    "edited_objects",
    "open_corrections",
    "outlined_correction",
]

ARTEFACT_TYPES = tuple(name for code, name in ARTEFACT_NAMES.items() if code)
"""Types of artefact that a reader may mark."""

_METHODS = {"dab": "DAB density", "hsv": "HSV"}


class CorrectionLog(Closing):
    """One reader's corrections of one target, each on the disk before it is applied.

    Parameters
    ----------
    case
        The case.
    what
        "vessels", "nuclei", or "tissue_" or "artefacts_" with "he", "cd34" or "caix".
    reader
        Name of the reader; see `check_reader_name`.

    Raises
    ------
    InputError
        If the target or the reader's name is not valid, the target was given without a slide, or
        the journal is damaged.
    CaseLocked
        If another window uses the journal of this reader.
    """

    def __init__(self, case: Case, what: str, reader: str) -> None:
        if what not in CORRECTED_FRAMES:
            known = ", ".join(CORRECTED_FRAMES)
            raise InputError(f"'{what}' cannot be corrected; use one of: {known}")
        artifact = OBJECTS[what][0][0] if what in OBJECTS else TISSUE[CORRECTED_FRAMES[what]]
        origin = case.store.origin(artifact)
        if origin is not None and origin.is_given:
            raise InputError(
                f"{artifact.about} of case {case.name}: {origin.is_given}, and no slide shows what "
                "would be corrected; correct a case that has slides"
            )
        self.case, self.what = case, what
        self.part = JournalPart(case.root, reader, correction_part(what))
        self.reader = self.part.reader

    @property
    def log(self) -> Self:
        """Itself, so that it can stand where a `CorrectionSession` may stand."""
        return self

    @property
    def corrections(self) -> tuple[Correction, ...]:
        """The active corrections of all readers, oldest first."""
        return self.case.corrections(self.what)

    @property
    def undo_title(self) -> str:
        """Description of the correction that `undo` would undo; empty if there is none."""
        return self.part.journal.undo_title(self.part.part)

    @property
    def redo_title(self) -> str:
        """Description of the correction that `redo` would redo; empty if there is none."""
        return self.part.journal.redo_title(self.part.part)

    def add(self, *corrections: Correction) -> None:
        """Record a correction, or several as one entry, which is undone as one."""
        if not corrections:
            return
        title = describe_correction(corrections[0])
        given: dict[str, Any] = {"correction": corrections[0].as_dict()}
        if len(corrections) > 1:
            title = f"{len(corrections)} corrections, the first: {title}"
            given = {"corrections": [one.as_dict() for one in corrections]}
        self.part.append({"event": "add", "title": title, **given})

    def undo(self) -> Correction | None:
        """Undo the last entry of this target and return its last correction; None without one.

        `ReaderJournal.undo_last` undoes what the reader did last, be it here or in another view.
        """
        return self._moved(self.part.journal.undo_last(self.part.part))

    def redo(self) -> Correction | None:
        """Redo and return the correction that was undone last; None if there is none."""
        return self._moved(self.part.journal.redo_last(self.part.part))

    def _moved(self, change: JournalChange | None) -> Correction | None:
        if change is None:
            return None
        return corrections_in(change.event, self.reader)[-1]

    def close(self) -> None:
        """Release the reader's journal."""
        self.part.close()


@dataclass(frozen=True, slots=True, eq=False)
class SelectedObject:
    """A selected object.

    Parameters
    ----------
    label
        Its label in the editor.
    place_um, centroid_um, area_um2
        The selected position (2,) and the centroid (2,), µm, and the area, µm².
    lattice, mask
        The bounding box of the object on the section, and its mask (rows, columns) there.
    measurements
        One row: measured values with units; only shape for an object that was just edited.
    method, edit, class_name
        The segmentation method, the manual edit ("added", "merged", "split" or empty), the class.
    """

    label: int
    place_um: Point
    centroid_um: Point
    area_um2: float
    lattice: Lattice
    mask: NDArray[np.bool_]
    measurements: Table
    method: str
    edit: str
    class_name: str


class CorrectionSession(Closing):
    """One reader's correction of the vessels or nuclei of a case; resumes earlier corrections.

    Parameters and errors as for `CorrectionLog`; *what* is "vessels" or "nuclei".
    """

    def __init__(self, case: Case, what: str, reader: str) -> None:
        if what not in OBJECTS:
            raise InputError(f"'{what}' are not objects; use one of: {', '.join(OBJECTS)}")
        labels, table = OBJECTS[what][0]
        if case.store.origin(labels) is None:
            raise InputError(
                f"case {case.name} has no {what} yet; run: napari-mosaik run {case.root}"
            )
        self.case, self.what = case, what
        self.found: list[Correction] = []
        self._labels, self._table = case.store.read(labels), case.store.read(table)
        self._method = _method(case, what, self._table)
        self.log = CorrectionLog(case, what, reader)
        self._acting = self._outdated = False
        self._together: list[Correction] | None = None
        self.log.part.follow(self._journal_changed)
        try:
            self._rebuild()
        except BaseException:
            self.log.close()
            raise

    def _journal_changed(self, change: JournalChange) -> None:
        """Note what another view undid or redid; the objects follow at the next question."""
        self._outdated |= not self._acting

    def current(self) -> bool:
        """Follow what another view undid or redid; whether there was anything."""
        outdated = self._outdated
        if outdated:
            self._rebuild()
        return outdated

    def _rebuild(self) -> None:
        self._outdated = False
        self._editor = ObjectEditor(
            self._labels.values, self._labels.lattice, self._table, self.what
        )
        self._states: list[Any] = []
        corrections = self.log.corrections
        reasons = apply_corrections(self._editor, corrections)
        self.lost = [(c, why) for c, why in zip(corrections, reasons, strict=True) if why]

    @property
    def frame(self) -> str:
        """The section of the objects."""
        return CORRECTED_FRAMES[self.what]

    def select(self, place_um: Point) -> SelectedObject | None:
        """The object at a position of the section, µm; None where there is none."""
        self.current()
        label = self._editor.at(place_um)
        return None if label == 0 else self._selected(label, place_um)

    def _selected(self, label: int, place_um: Point) -> SelectedObject:
        from napari_mosaik.features import measure_objects

        editor = self._editor
        window, mask = editor.mask(label)
        lattice = editor.lattice.crop(*window)
        row = editor.row(label)
        if row >= 0:
            measurements = self._table.rows(np.array([row]))
        else:
            measurements = measure_objects(mask.astype(np.int32), lattice, n_labels=1)
        (centroid,) = measurements.points_um()
        return SelectedObject(
            label,
            (float(place_um[0]), float(place_um[1])),
            (float(centroid[0]), float(centroid[1])),
            float(mask.sum()) * lattice.sample_area_um2,
            lattice,
            mask,
            measurements,
            self._method,
            editor.how(label),
            editor.word(label),
        )

    def add(self, correction: Correction) -> None:
        """Add the object that a correction outlines; see `ObjectEditor.add`."""
        self._do(correction, lambda: self._editor.add(correction))

    def find(self, area: Any, stop: Callable[[], bool] = lambda: False) -> None:
        """Look for missed objects in an area with a lower threshold; ``found`` offers them.

        See `find_missed`.
        """
        from napari_mosaik.workflow.picking import find_missed

        self.found = []
        segmented = OBJECTS[self.what][0][0]
        self.found = find_missed(self.case, segmented, self._editor, area, stop)

    def find_inside(self, outline_um: ArrayLike) -> None:
        """Look for missed objects within an outline, points (n, 2) in µm; see `find`."""
        from napari_mosaik.annotate import lasso_polygon

        self.find(lasso_polygon(outline_um))

    def take_found(self, wanted: bool = True) -> None:
        """Add what was found, or forget it if it is not *wanted*."""
        found, self.found = self.found, []
        for one in found if wanted else ():
            with suppress(InputError):  # two that were found may overlap
                self.add(one)

    def delete(self, chosen: SelectedObject) -> None:
        """Delete an object."""
        self._do(_of("delete", chosen), lambda: self._editor.delete(chosen.label))

    def merge(self, chosen: SelectedObject, other: SelectedObject) -> None:
        """Merge two objects."""
        self._do(_of("merge", chosen, other), lambda: self._editor.merge(chosen.label, other.label))

    def merge_with(self, chosen: SelectedObject, place_um: Point) -> None:
        """Merge an object with the one at a position of the section, µm."""
        other = self.select(place_um)
        if other is None:
            raise InputError("no object at this position; click the second object")
        self.merge(chosen, other)

    def split(self, chosen: SelectedObject, line_um: ArrayLike) -> None:
        """Split an object along a line (n, 2) in µm that crosses it."""
        line = tuple((float(row), float(col)) for row, col in np.asarray(line_um, float))
        self._do(
            replace(_of("split", chosen), line_um=line),
            lambda: self._editor.split(chosen.label, line),
        )

    def set_class(self, chosen: SelectedObject, class_name: str) -> None:
        """Set the class of an object; an empty name clears it."""
        name = class_name.strip()
        self._do(
            replace(_of("class", chosen), word=name),
            lambda: self._editor.set_class(chosen.label, name),
        )

    def _do(self, correction: Correction, act: Callable[[], Any]) -> None:
        self.current()
        before = self._editor.state()
        act()  # raises before it changes anything, so that no invalid correction is recorded
        if self._together is not None:
            self._together.append(correction)
            return
        self._acting = True
        try:
            self.log.add(correction)
        except BaseException:
            self._editor.restore(before)
            raise
        finally:
            self._acting = False
        self._states.append(before)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Record the corrections that are made within as one entry, or none if one fails."""
        self.current()
        before, self._together = self._editor.state(), []
        try:
            yield
            self._acting = True
            self.log.add(*self._together)
        except BaseException:
            self._editor.restore(before)
            raise
        finally:
            self._together, self._acting = None, False
        self._states.append(before)

    def within(self, area: Polygon | MultiPolygon) -> list[SelectedObject]:
        """The objects whose centroid lies in an area (x = column, y = row, µm).

        Where there is none, the object under the middle of the area.
        """
        self.current()
        middle = area.representative_point()
        labels = self._editor.within(area) or [self._editor.at((middle.y, middle.x))]
        found = [self._selected(label, (middle.y, middle.x)) for label in labels if label]
        return [replace(one, place_um=self._place_in(one)) for one in found]

    @staticmethod
    def _place_in(chosen: SelectedObject) -> Point:
        """A pixel of an object, µm."""
        row, col = np.argwhere(chosen.mask)[0]
        ((at_row, at_col),) = chosen.lattice.to_um([(row, col)])
        return float(at_row), float(at_col)

    def edited_objects(self) -> list[tuple[Lattice, NDArray[np.bool_]]]:
        """The bounding box of each manually edited object, and its mask (rows, columns) there."""
        self.current()
        return _edited(self._editor)

    def undo(self) -> bool:
        """Undo the last correction of this reader; False if there is none."""
        done = self._own(self.log.undo)
        if done is not None and self._states:
            self._editor.restore(self._states.pop())
            standing = self.log.corrections if self.lost else ()
            self.lost = [one for one in self.lost if one[0] in standing]
        elif done is not None:
            self._rebuild()
        return done is not None

    def _own(self, move: Callable[[], Correction | None]) -> Correction | None:
        self.current()
        self._acting = True
        try:
            return move()
        finally:
            self._acting = False

    def redo(self) -> bool:
        """Redo the correction that was undone last; False if there is none."""
        before = len(self.log.corrections)
        done = self._own(self.log.redo)
        if done is not None and len(self.log.corrections) == before + 1:
            self._states.append(self._editor.state())
            (why,) = apply_corrections(self._editor, [done])
            if why:
                self.lost.append((done, why))
        elif done is not None:  # several at once
            self._rebuild()
        return done is not None

    def close(self) -> None:
        """Release the reader's journal."""
        self.log.close()


def open_corrections(case: Case, what: str, reader: str) -> CorrectionSession | CorrectionLog:
    """The record of one reader, opened: a session for objects, a log for masks.

    Parameters and errors as for `CorrectionLog`.
    """
    return (CorrectionSession if what in OBJECTS else CorrectionLog)(case, what, reader)


def outlined_correction(mode: Any, outline_um: ArrayLike, word: str = "") -> Correction:
    """An outlined region or object, points (n, 2) in µm; *word* is the artefact type."""
    from napari_mosaik.annotate import lasso_polygon

    kind: Any = "add" if mode == "draw" else mode
    return Correction(kind, word=word, area_wkt=lasso_polygon(outline_um).wkt)


def edited_objects(case: Case, what: str) -> list[tuple[Lattice, Mask]]:
    """The bounding box of each "vessels" or "nuclei" that readers edited, and its mask there.

    Masks have the shape (rows, columns); the segmentation is not changed.
    """
    segmented, objects = OBJECTS[what][0]
    labels = case.store.read(segmented)
    editor = ObjectEditor(labels.values, labels.lattice, case.store.read(objects), what)
    apply_corrections(editor, case.corrections(what))
    return _edited(editor)


def _edited(editor: ObjectEditor) -> list[tuple[Lattice, Mask]]:
    windows = [editor.mask(label) for label in editor.edited_labels()]
    return [(editor.lattice.crop(*window), mask) for window, mask in windows]


def _of(kind: Any, *objects: SelectedObject) -> Correction:
    return Correction(
        kind,
        tuple(one.place_um for one in objects),
        tuple(one.centroid_um for one in objects),
        tuple(one.area_um2 for one in objects),
    )


def _method(case: Case, what: str, table: Table) -> str:
    """The segmentation method in words."""
    if "method" in table.about:
        return table.about["method"]
    method = str(case.store.record(OBJECTS[what][0][0]).get("params", {}).get("method", ""))
    return _METHODS.get(method, method)


def correction_records(case: Case) -> list[dict[str, Any]]:
    """All active corrections of a case, one row each, with their state.

    ``state`` is "applied", "not applied yet", or "lost" with the reason in ``why``.
    """
    rows = []
    for what in CORRECTED_FRAMES:
        corrections = case.corrections(what)
        lost, applied = _outcome(case, what)
        for one in corrections:
            key = (describe_correction(one), one.reader)
            state = "not applied yet"
            if applied:
                state = "lost" if key in lost else "applied"
            rows.append(
                {"what": what, "reader": one.reader, "time": one.time,
                 "description": describe_correction(one),
                 "state": state, "why": lost.get(key, "") if applied else "", **one.as_dict()}
            )  # fmt: skip
    return rows


def _outcome(case: Case, what: str) -> tuple[dict[tuple[str, str], str], bool]:
    """The lost corrections with the reason, and whether the stored result contains the others."""
    from napari_mosaik.core.catalogue import CORRECTIONS, TISSUE

    artifact: Artifact[Any] = (
        OBJECTS[what][1][0] if what in OBJECTS else TISSUE[CORRECTED_FRAMES[what]]
    )
    origin = case.store.origin(artifact)
    source = CORRECTIONS[what]
    applied = origin is not None and (source.name, case.digest(source)) in origin.inputs
    record = case.store.record(artifact).get(CORRECTED, {}) if applied else {}
    return {(e["correction"], e["reader"]): e["why"] for e in record.get("lost", ())}, applied


# --- corrections from a file ---------------------------------------------------------------------
OutlineUse = Literal["add", "remove", "class"]
_OF_MASKS: Final = {
    ("tissue", "add"): "add",
    ("tissue", "remove"): "cut",
    ("artefacts", "add"): "flag",
    ("artefacts", "remove"): "clear",
}


def correct_from_file(
    case: Case, path: Path, what: str, use: OutlineUse, reader: str
) -> tuple[int, list[str]]:
    """Record the corrections of a file; their number, and doubts about the outlines in it.

    An outline is an area of a mask, an object to add, or what selects the objects to delete or to
    name: those whose centroid lies in it, or the one under a point or a small outline.

    Parameters
    ----------
    case
        The case.
    path
        GeoJSON with level-0 pixels of the slide; see `read_geojson`.
    what
        What is corrected: a name of `CORRECTED_FRAMES`.
    use
        "add" or "remove" areas and objects, or set the "class" of objects to that of the outline.
    reader
        Who corrects.

    Raises
    ------
    InputError
        An outline cannot be used: nothing is recorded then.
    """
    if what not in CORRECTED_FRAMES:
        raise InputError(f"'{what}' cannot be corrected; use one of: {', '.join(CORRECTED_FRAMES)}")
    kind = what.partition("_")[0]
    if what not in OBJECTS and (kind, use) not in _OF_MASKS:
        raise InputError(f"'{what}' have no class to set; use add or remove")
    shapes, doubts = _shapes(case, path, what, use)
    if what in OBJECTS:
        with CorrectionSession(case, what, reader) as session:
            n = _correct_objects(session, shapes, use, path.name)
        return n, doubts
    corrections = [
        Correction(
            _OF_MASKS[kind, use],  # type: ignore[arg-type]
            word=_artefact_type(shape, path.name) if (kind, use) == ("artefacts", "add") else "",
            area_wkt=shape.geometry.wkt,
        )
        for shape in shapes
    ]
    with CorrectionLog(case, what, reader) as log:
        log.add(*corrections)
    return len(corrections), doubts


def _shapes(
    case: Case, path: Path, what: str, use: OutlineUse
) -> tuple[tuple[AnnotatedShape, ...], list[str]]:
    """The outlines of a file, all of them on the slide."""
    import shapely

    frame, doubts = CORRECTED_FRAMES[what], list[str]()
    with case.slide(frame) as slide:
        lattice = slide.lattice
        other = another_slide(path, slide, partial(case.content, SLIDES[frame]))
    if other:
        raise InputError(f"{other}; nothing was corrected")
    selects = what in OBJECTS and use != "add"
    shapes = read_geojson(path, lattice, notes=doubts, points=selects)
    excluded = [doubt for doubt in doubts if "excluded" in doubt]
    if excluded or not shapes:
        why = "; ".join(excluded) or f"{path.name} holds no outline"
        raise InputError(f"{why}; nothing was corrected")
    (top, left), (height, width) = lattice.origin_um, lattice.extent_um
    whole = shapely.box(left, top, left + width, top + height)
    for shape in shapes:
        if shape.geometry.intersection(whole).area < shape.geometry.area / 2:
            raise InputError(
                f"{path.name}: {shape.key} lies outside the {STAIN_TITLES[frame]} slide of case "
                f"{case.name}, which has {lattice.shape[1]} x {lattice.shape[0]} pixels; export it "
                "from that slide. Nothing was corrected"
            )
    return shapes, doubts


def _artefact_type(shape: AnnotatedShape, name: str) -> str:
    """The type of artefact that an outline names."""
    found = [one for one in ARTEFACT_TYPES if same_words(one) == same_words(shape.label)]
    if not found:
        given = f"the class '{shape.label}'" if shape.label else "no class"
        raise InputError(
            f"{name}: {shape.key} has {given}; an artefact is one of: {', '.join(ARTEFACT_TYPES)}"
        )
    return found[0]


def _correct_objects(
    session: CorrectionSession, shapes: tuple[AnnotatedShape, ...], use: OutlineUse, name: str
) -> int:
    """Correct the objects that outlines show; the number of corrections."""
    with session.together():
        n = 0
        for shape in shapes:
            try:
                n += _correct_object(session, shape, use)
            except InputError as error:
                raise InputError(f"{name}: {shape.key}: {error}; nothing was corrected") from error
        return n


def _correct_object(session: CorrectionSession, shape: AnnotatedShape, use: OutlineUse) -> int:
    if use == "add":
        session.add(Correction("add", area_wkt=shape.geometry.wkt))
        return 1
    if use == "class" and not shape.label.strip():
        raise InputError("it has no class")
    chosen = session.within(shape.geometry)
    if not chosen:
        raise InputError(f"there are no {session.what} in it")
    for one in chosen:
        if use == "class":
            session.set_class(one, shape.label)
        else:
            session.delete(one)
    return len(chosen)
