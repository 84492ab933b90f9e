"""Manual correction of the objects of a case: select, add, delete, merge, split, class.

    click ─► journal (on the disk) ─► the editor in memory ─► the window
                    └────► step "correct_vessels" ─► what reads its result becomes stale

The window and the step apply corrections with the same editor, so the window shows what the step
will store.  Only the surroundings of corrected objects are read.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.artifact import Artifact
from napari_mosaik.core.catalogue import (
    CORRECTED,
    OBJECTS,
)
from napari_mosaik.core.corrections import (
    CORRECTED_FRAMES,
    Correction,
    Point,
    describe_correction,
)
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Lattice, Mask
from napari_mosaik.core.journal import JournalChange, JournalPart, correction_part
from napari_mosaik.core.table import Table
from napari_mosaik.io.case import Case
from napari_mosaik.segment.label_editing import ObjectEditor, apply_corrections
from napari_mosaik.tissue import ARTEFACT_NAMES

__all__ = [
    "ARTEFACT_TYPES",
    "CorrectionLog",
    "CorrectionSession",
    "SelectedObject",
    "correction_records",
    "edited_objects",
]

ARTEFACT_TYPES = tuple(name for code, name in ARTEFACT_NAMES.items() if code)
"""Types of artefact that a reader may mark."""

_METHODS = {"dab": "DAB density", "hsv": "HSV"}


class CorrectionLog:
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
        If the target or the reader's name is not valid, or the journal is damaged.
    CaseLocked
        If another window uses the journal of this reader.
    """

    def __init__(self, case: Case, what: str, reader: str) -> None:
        if what not in CORRECTED_FRAMES:
            known = ", ".join(CORRECTED_FRAMES)
            raise InputError(f"'{what}' cannot be corrected; use one of: {known}")
        self.case, self.what = case, what
        self.part = JournalPart(case.root, reader, correction_part(what))
        self.reader = self.part.reader

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

    def add(self, correction: Correction) -> None:
        """Record a correction."""
        title = describe_correction(correction)
        self.part.append({"event": "add", "title": title, "correction": correction.as_dict()})

    def undo(self) -> Correction | None:
        """Undo and return the last correction of this target; None if there is none.

        `ReaderJournal.undo_last` undoes what the reader did last, be it here or in another view.
        """
        return self._moved(self.part.journal.undo_last(self.part.part))

    def redo(self) -> Correction | None:
        """Redo and return the correction that was undone last; None if there is none."""
        return self._moved(self.part.journal.redo_last(self.part.part))

    def _moved(self, change: JournalChange | None) -> Correction | None:
        if change is None:
            return None
        return Correction.from_dict(change.event["correction"], self.reader)

    def close(self) -> None:
        """Release the reader's journal."""
        self.part.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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


class CorrectionSession:
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
        self.log.part.follow(self._told)
        try:
            self._rebuild()
        except BaseException:
            self.log.close()
            raise

    def _told(self, change: JournalChange) -> None:
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
        from napari_mosaik.workflow.find_here import find_missed

        self.found = []
        segmented = OBJECTS[self.what][0][0]
        self.found = find_missed(self.case, segmented, self._editor, area, stop)

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
        self._acting = True
        try:
            self.log.add(correction)
        except BaseException:
            self._editor.restore(before)
            raise
        finally:
            self._acting = False
        self._states.append(before)

    def edited_objects(self) -> list[tuple[Lattice, NDArray[np.bool_]]]:
        """The bounding box of each manually edited object, and its mask (rows, columns) there."""
        self.current()
        return _edited(self._editor)

    def undo(self) -> bool:
        """Undo the last correction of this reader; False if there is none."""
        done = self._own(self.log.undo)
        if done is not None and self._states:
            self._editor.restore(self._states.pop())
            self.lost = [one for one in self.lost if one[0] != done]
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
        done = self._own(self.log.redo)
        if done is not None:
            self._states.append(self._editor.state())
            (why,) = apply_corrections(self._editor, [done])
            if why:
                self.lost.append((done, why))
        return done is not None

    def close(self) -> None:
        """Release the reader's journal."""
        self.log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
