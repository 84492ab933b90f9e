"""The annotations of the open case: document, journal, GeoJSON file, retraining and update."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_mosaik.annotate import AnnotationDocument, Journal, check_reader_name
from napari_mosaik.core import InputError, MosaikError
from napari_mosaik.core.catalogue import CLASS_RECORD, CLASSES, METRICS
from napari_mosaik.core.progress import map_progress
from napari_mosaik.io.case import Case
from napari_mosaik.view.formatting import number, percent
from napari_mosaik.view.layers import ANNOTATIONS_TITLE
from napari_mosaik.widgets.base.worker import Steps
from napari_mosaik.widgets.base.workspace import LoopChange
from napari_mosaik.workflow.recipe import read_recipe

if TYPE_CHECKING:
    from napari_mosaik.core import Lattice
    from napari_mosaik.core.shapes import AnnotatedShape
    from napari_mosaik.widgets.base.case_controller import CaseController
    from napari_mosaik.widgets.base.worker import Job

__all__ = ["Annotation", "Before", "change_lines", "remember"]

IDLE_MS = 2000
"""The GeoJSON file is written after this time without an edit."""


class Annotation(QObject):
    """Opens, saves and closes the annotation document; retrains and updates.

    ``opened`` is emitted when a document was opened or closed, ``changed`` after each edit and
    ``saved`` when the GeoJSON file was written.
    """

    opened = Signal()
    changed = Signal()
    saved = Signal()

    def __init__(self, controller: CaseController) -> None:
        super().__init__(controller)
        self._controller = controller
        self.document: AnnotationDocument | None = None
        self.reader = "reader"
        self._journal: Journal | None = None
        self._case: Case | None = None
        self._lattice: Lattice | None = None
        self._unsaved = False
        self._before: Before | None = None
        self._idle = QTimer(self)
        self._idle.setSingleShot(True)
        self._idle.setInterval(IDLE_MS)
        self._idle.timeout.connect(self.save)
        controller.workspace.events.case.connect(self._case_changed)

    # --- document -------------------------------------------------------------------------------
    def open(self) -> None:
        """Open the document of the current case and reader."""
        case = self._controller.workspace.case
        if case is None or "he" not in case.file.slides:
            self._controller.report(InputError("open a case with an H&E slide first"), "Annotate")
            return
        self.close()
        try:
            self._open(case)
        except MosaikError as error:
            self._controller.report(error, "Annotate")
            self.close()
        self.opened.emit()

    def _open(self, case: Case) -> None:
        with case.slide("he") as slide:
            self._lattice = slide.lattice
        self._journal = Journal(case.root / "journal" / f"{check_reader_name(self.reader)}.jsonl")
        document = AnnotationDocument.open(self._journal, "he", overlap="new wins")
        drawn = case.annotations("he")
        if not len(document.snapshot) and drawn:
            document.add_many(drawn)
        document.changed.connect(self._edited)
        self.document, self._case = document, case

    def close(self) -> None:
        """Save pending edits and release the journal."""
        self._idle.stop()
        if self._unsaved:
            self._write_now()
        if self.document is not None:
            self.document.changed.disconnect(self._edited)
        if self._journal is not None:
            self._journal.close()
        self.document = self._journal = self._case = self._lattice = None

    def _case_changed(self, case: Case | None, *_: Any) -> None:
        if case is not self._case and self.document is not None:
            self.close()
            self.opened.emit()

    def _edited(self, keys: tuple[str, ...]) -> None:
        self._unsaved = True
        self._idle.start()
        self.changed.emit()

    # --- saving ---------------------------------------------------------------------------------
    @property
    def saved_words(self) -> str:
        """Save state as text; the journal is always up to date."""
        if self.document is None:
            return ""
        return "Saved in the journal; GeoJSON file pending" if self._unsaved else "Saved"

    def save(self) -> None:
        """Write the GeoJSON file in the background."""
        if self.document is None or self._case is None or self._lattice is None:
            return
        self._unsaved = False
        work = partial(_write, self._case, self.document.shapes, self._lattice)
        self._controller.read(ANNOTATIONS_TITLE, work, lambda _: self.saved.emit())

    def _write_now(self) -> None:
        assert self.document is not None
        assert self._case is not None
        assert self._lattice is not None
        _write(self._case, self.document.shapes, self._lattice)
        self._unsaved = False

    # --- the loop -------------------------------------------------------------------------------
    def retrain(self) -> Job | None:
        """Train the tissue classifier on all annotated cases of the cohort, for this case."""
        case = self._case
        if case is None or self.document is None:
            self._controller.report(
                InputError("there are no annotations; draw some first"), "Retrain"
            )
            return None
        self._idle.stop()
        self._write_now()
        others = [
            p for p in self._controller.workspace.cohort if p.resolve() != case.root.resolve()
        ]

        def steps() -> Steps:
            from napari_mosaik.workflow.classifier import retrain

            before = remember(case)
            annotated = [case, *[Case(path) for path in others]]
            work = retrain([one for one in annotated if one.annotations("he")] or [case], [case])
            record = yield from map_progress(work, lambda progress: ("Retrain", progress))
            return before, record

        job = self._controller.start("Retrain the tissue classifier", steps)
        if job is not None:
            job.done.connect(self._retrained)
        return job

    def _retrained(self, answer: tuple[Before, dict[str, Any]]) -> None:
        self._before, training = answer
        case = self._case
        if case is None:
            return
        self._controller.workspace.recipe = read_recipe(case.root)
        self._controller.refresh()
        line = f"Trained on {training['n_shapes']} annotations in {training['n_cases']} case(s)."
        self._controller.workspace.change = LoopChange(
            (line, "Update stale results to see the effect.")
        )

    def update(self) -> Job | None:
        """Recompute stale results, then report what changed."""
        case = self._case or self._controller.workspace.case
        if case is None:
            return None
        before = self._before or remember(case)
        job = self._controller.run_missing()
        if job is not None:
            job.done.connect(lambda _: self._compare(case, before))
        return job

    def _compare(self, case: Case, before: Before) -> None:
        def then(lines: tuple[str, ...]) -> None:
            self._controller.workspace.change = LoopChange(lines)

        self._controller.read("Change", lambda: change_lines(before, remember(case)), then)


def _write(case: Case, shapes: tuple[AnnotatedShape, ...], lattice: Lattice) -> None:
    from napari_mosaik.io import write_geojson

    write_geojson(case.annotations_path("he"), shapes, lattice)


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """Tissue classes and prediction error at one time; None for what was missing."""

    codes: Any = None
    areas_mm2: dict[str, float] | None = None
    mae: float | None = None
    mae_suv: float | None = None
    unit: str = ""


def remember(case: Case) -> Before:
    """The stored tissue classes and prediction error."""
    store = case.store
    codes = store.read(CLASSES).array() if store.origin(CLASSES) else None
    areas = store.read(CLASS_RECORD)["area_mm2"] if store.origin(CLASS_RECORD) else None
    if not store.origin(METRICS):
        return Before(codes, areas)
    metrics = store.read(METRICS)
    errors = metrics["suv_norm"]["mae"], metrics["suv_bsa"]["mae"]
    return Before(codes, areas, *errors, str(metrics.get("unit", "")))


def change_lines(before: Before, after: Before) -> tuple[str, ...]:
    """What changed between two times, as lines with units."""
    lines = []
    if before.codes is not None and after.codes is not None:
        lines.append(_changed_share(before.codes, after.codes))
    for name, area in (after.areas_mm2 or {}).items():
        old = (before.areas_mm2 or {}).get(name)
        if old is not None:
            lines.append(f"{name}: {number(old)} → {number(area, 'mm²')}")
        else:
            lines.append(f"{name}: {number(area, 'mm²')}")
    if before.mae is not None and after.mae is not None:
        lines.append(
            f"mean absolute error: {number(before.mae_suv)} → {number(after.mae_suv, after.unit)} "
            f"({number(before.mae)} → {number(after.mae)} normalised)"
        )
    return tuple(lines) or ("Nothing to compare yet.",)


def _changed_share(before: Any, after: Any) -> str:
    if before.shape != after.shape:
        return "The size of the tissue class map changed."
    tissue = (before > 0) | (after > 0)
    share = float(np.mean(before[tissue] != after[tissue])) if tissue.any() else 0.0
    return f"tissue classes: changed in {percent(share)} of the tissue"
