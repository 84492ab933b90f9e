"""The annotations of the open case: document, journal, file, retraining and live prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from qtpy.QtCore import QObject, Signal
from superqt.utils import qdebounced

from napari_mosaik.core import InputError, MosaikError
from napari_mosaik.core.catalogue import CLASSES
from napari_mosaik.core.progress import map_progress
from napari_mosaik.io.case import Case
from napari_mosaik.view.case_results import transform_to_reference
from napari_mosaik.view.formatting import count, number
from napari_mosaik.view.layers import ANNOTATIONS_TITLE, classes_layer
from napari_mosaik.widgets.base.worker import Steps
from napari_mosaik.widgets.base.workspace import LoopChange
from napari_mosaik.widgets.canvas.live_layers import Corners, LiveLayers, Stop, region_on_slide
from napari_mosaik.workflow.annotation_import import AnnotationImport, How, Import
from napari_mosaik.workflow.annotations import OpenAnnotations
from napari_mosaik.workflow.live_classes import LiveClasses, LivePrediction
from napari_mosaik.workflow.recipe import read_recipe

if TYPE_CHECKING:
    from napari_mosaik.annotate import AnnotationDocument
    from napari_mosaik.core import Transform
    from napari_mosaik.core.journal import JournalChange
    from napari_mosaik.core.shapes import AnnotatedShape
    from napari_mosaik.widgets.base.case_controller import CaseController
    from napari_mosaik.widgets.base.worker import Job
    from napari_mosaik.widgets.canvas.case_layers import CaseLayers

__all__ = ["LIVE_TITLE", "Annotation", "LiveTissue"]

IDLE_MS = 2000
"""The GeoJSON file is written after this time without an edit."""


class Annotation(QObject):
    """Opens, saves and closes the annotation document; retrains and updates.

    ``opened`` is emitted when a document was opened or closed, ``changed`` after each edit,
    ``saved`` when the GeoJSON file was written, and ``message`` with what an import, an export or a
    save has done beside that.  ``finished`` is emitted when tiles were finished.
    """

    opened = Signal()
    changed = Signal()
    saved = Signal()
    message = Signal(str)
    finished = Signal()

    def __init__(self, controller: CaseController) -> None:
        super().__init__(controller)
        self._controller = controller
        self._opened: OpenAnnotations | None = None
        self._unsaved = False
        self._save_soon = qdebounced(self.save, timeout=IDLE_MS, parent=self)
        controller.workspace.events.case.connect(self._case_changed)

    # --- document -------------------------------------------------------------------------------
    @property
    def document(self) -> AnnotationDocument | None:
        """The open document; None where there is none."""
        return None if self._opened is None else self._opened.document

    @property
    def _case(self) -> Case | None:
        return None if self._opened is None else self._opened.case

    def open(self) -> None:
        """Open the document of the current case and reader."""
        case = self._controller.workspace.case
        if case is None or "he" not in case.file.slides:
            self._controller.report(InputError("open a case with an H&E slide first"), "Annotate")
            return
        self.message.emit("")
        self.close()
        try:
            self._opened = OpenAnnotations(case, self._controller.workspace.reader)
            self._opened.document.changed.connect(self._edited)
        except MosaikError as error:
            self._controller.report(error, "Annotate")
            self.close()
        self.opened.emit()

    def close(self) -> None:
        """Save pending edits and release the journal."""
        self._save_soon.cancel()
        if self._unsaved:
            self._write_now()
        if self._opened is not None:
            self._opened.document.changed.disconnect(self._edited)
            self._opened.close()
        self._opened = None

    def _case_changed(self, case: Case | None, *_: Any) -> None:
        if case is not self._case and self.document is not None:
            self.message.emit("")
            self.close()
            self.opened.emit()

    def _edited(self, keys: tuple[str, ...]) -> None:
        self._unsaved = True
        self._save_soon()
        self.changed.emit()

    def add(self, shapes: Sequence[AnnotatedShape], title: str) -> None:
        """Add shapes, µm of H&E, to the journal of the present reader as one edit; save them."""
        if self.document is None:
            self.open()
        if self.document is None:
            return
        try:
            self.document.add_many(shapes, title)
        except MosaikError as error:
            self._controller.report(error, "Annotate")
            return
        self.save()

    # --- undo -----------------------------------------------------------------------------------
    @property
    def undo_titles(self) -> tuple[str, str]:
        """What `undo` and `redo` would do, in any view of the reader; empty for nothing."""
        if self._opened is None:
            return "", ""
        journal = self._opened.part.journal
        return journal.undo_title(), journal.redo_title()

    def undo(self) -> str:
        """Undo what the reader did last; a sentence if that was in another view."""
        if self._opened is None:
            return ""
        return self._elsewhere("Undone", self._opened.part.journal.undo_last())

    def redo(self) -> str:
        """Redo what was undone last; a sentence if that was in another view."""
        if self._opened is None:
            return ""
        return self._elsewhere("Redone", self._opened.part.journal.redo_last())

    def _elsewhere(self, word: str, change: JournalChange | None) -> str:
        assert self._opened is not None
        mine = change is None or change.part == self._opened.part.part
        self.changed.emit()
        return "" if change is None or mine else f"{word} in another view: {change.title}"

    # --- after a refusal ------------------------------------------------------------------------
    @property
    def n_refused(self) -> int:
        """Number of acts that could not be written to the journal, and are kept in memory."""
        return 0 if self._opened is None else len(self._opened.part.journal.refused)

    def write_again(self) -> str:
        """Write to the journal what was refused; raises `InputError` if it is refused again."""
        n = 0 if self._opened is None else self._opened.part.journal.retry()
        self.changed.emit()
        return f"{count(n, 'edit')} written to the journal"

    def save_elsewhere(self, path: Path) -> str:
        """Write a copy of the journal with what was refused."""
        n = 0 if self._opened is None else self._opened.part.journal.save_elsewhere(path)
        self.changed.emit()
        return f"The journal with {count(n, 'edit')} that it lacks is in {path}"

    # --- saving ---------------------------------------------------------------------------------
    @property
    def saved_words(self) -> str:
        """Save state as text; the journal is always up to date."""
        if self.document is None:
            return ""
        return "Saved in the journal; GeoJSON file pending" if self._unsaved else "Saved"

    def save(self) -> None:
        """Write the GeoJSON file in the background."""
        if self._opened is None:
            return
        self._save_soon.cancel()
        self._unsaved = False
        work = partial(self._opened.save, self._opened.state())
        self._controller.read(ANNOTATIONS_TITLE, work, self._saved)

    def _saved(self, kept: Path | None) -> None:
        if kept is not None:
            line = "⚠ Another program had changed the annotations; its file is kept as"
            self.message.emit(f"{line} {kept}")
        self.saved.emit()

    def _write_now(self) -> None:
        assert self._opened is not None
        self._save_soon.cancel()
        kept = self._opened.save()
        self._unsaved = False
        self._saved(kept)

    # --- two readers ----------------------------------------------------------------------------
    def finish(self, tiles: Iterable[tuple[int, int]] | None = None) -> None:
        """Finish some reading tiles, or all; from then on they are compared with another's."""
        if self._opened is None:
            self.open()
        if self._opened is None:
            return
        try:
            self._opened.finish(tiles)
        except MosaikError as error:
            self._controller.report(error, "Finish")
        self.finished.emit()

    def decide(self, region: str, label: str | None, readers: Sequence[str]) -> None:
        """Note in the journal of the present reader what becomes of a difference of two readers.

        Raises `InputError` where the journal cannot be written.
        """
        if self._opened is None:
            self.open()
        if self._opened is None:
            raise InputError("the decision was not saved: the reader's journal cannot be opened")
        self._opened.decide(region, label, readers)

    # --- files ----------------------------------------------------------------------------------
    def read_file(self, path: Path, then: Callable[[AnnotationImport], None]) -> None:
        """Read a file of annotations on a thread; *then* is called with what can be imported."""
        if self.document is None:
            self.open()
        case = self._case
        if case is None:
            return

        def read(given: AnnotationImport) -> None:
            self.message.emit("")
            then(given)

        self.message.emit(f"Reading {path.name}…")
        work = partial(AnnotationImport, case, path, asking=True)
        task = self._controller.read_for(case, "Import", work, read)
        task.failed.connect(lambda _: self.message.emit(""))

    def take_import(self, given: AnnotationImport, how: How) -> None:
        """Import for the present reader on a thread, as one edit that can be undone."""
        opened = self._opened
        if opened is None or opened.case is not given.case:
            return

        def then(done: Import) -> None:
            if done.edit is not None and self._opened is opened:
                opened.document.show(done.edit, done.n)
            self._imported(given, opened.reader, done)

        self.message.emit(f"Importing {given.path.name}…")
        task = self._controller.read_for(
            given.case, "Import", lambda: given.record(opened, how), then
        )
        task.failed.connect(lambda _: self.message.emit(""))

    def _imported(self, given: AnnotationImport, reader: str, done: Import) -> None:
        given.case.log("annotate import", slide=given.stain, reader=reader, shapes=done.imported)
        lines = [f"{count(done.imported, 'annotation')} imported from {given.path.name}."]
        if not done.imported:
            lines = [f"Nothing imported: the annotations of {given.path.name} are here already."]
        lines += [f"The previous annotations are kept in {path}" for path in done.copies]
        self.message.emit("\n".join(lines))
        self.save()

    def export(self, path: Path) -> None:
        """Write the annotations of the present reader as GeoJSON, on a thread."""
        opened = self._opened
        if opened is None:
            return
        state = opened.state()

        def work() -> tuple[int, list[str]]:
            notes: list[str] = []
            return opened.export(path, state, notes), notes

        def then(answer: tuple[int, list[str]]) -> None:
            number, notes = answer
            lines = [f"{count(number, 'annotation')} exported to {path}"]
            self.message.emit("\n".join([*lines, *(f"⚠ {note}" for note in notes)]))

        self._controller.read_for(opened.case, "Export", work, then)

    # --- the loop -------------------------------------------------------------------------------
    def cohort_cases(self) -> Callable[[], list[Case]]:
        """Opens the present case and the others of its cohort; for another thread."""
        case, cohort = self._controller.workspace.case, self._controller.workspace.cohort
        own = [] if case is None else [case]
        roots = {one.root.resolve() for one in own}
        return lambda: own + [Case(path) for path in cohort if path.resolve() not in roots]

    def retrain(self, readers: Sequence[str] = ()) -> Job | None:
        """Train the tissue classifier on all annotated cases of the cohort, for this case.

        *readers* are those whose annotations train; all if empty.  Of this case, those of the
        others take no part until both have finished the same tiles.
        """
        case = self._case
        if case is None or self.document is None:
            self._controller.report(
                InputError("there are no annotations; draw some first"), "Retrain"
            )
            return None
        self._write_now()
        cases, blind = self.cohort_cases(), self._controller.workspace.reader

        def steps() -> Steps:
            from napari_mosaik.workflow.classifier import retrain

            annotated = [one for one in cases() if one.annotations("he")] or [case]
            work = retrain(annotated, [case], readers=readers, blind=blind)
            record = yield from map_progress(work, lambda progress: ("Retrain", progress))
            return record

        job = self._controller.start("Retrain the tissue classifier", steps)
        if job is not None:
            job.done.connect(self._retrained)
        return job

    def _retrained(self, training: dict[str, Any]) -> None:
        case = self._case
        if case is None:
            return
        self._controller.workspace.recipe = read_recipe(case.root)
        self._controller.refresh()
        whose = f" of {' and '.join(training['readers'])}" if training["readers"] else ""
        shapes, cases = (
            count(training["n_shapes"], "annotation"),
            count(training["n_cases"], "case"),
        )
        line = f"Trained on {shapes}{whose} in {cases}."
        self._controller.workspace.change = LoopChange(
            (
                line,
                *(f"⚠ {doubt}" for doubt in training["warnings"]),
                "Update all to see the effect.",
            )
        )

    def update(self) -> Job | None:
        """Recompute stale results, then report what changed."""
        return self._controller.update(everything=True)


# --- live prediction ------------------------------------------------------------------------------
LIVE_TITLE = "Live prediction"
_Found: TypeAlias = "tuple[LivePrediction, Transform | None]"


class LiveTissue(LiveLayers):
    """A layer of tissue classes that are predicted from the annotations as they are now.

    ``message`` carries a line of text: what it was predicted from, or what is missing.
    """

    message = Signal(str)

    def __init__(self, board: CaseLayers, annotation: Annotation) -> None:
        super().__init__(board)
        self.wanted = False
        self._annotation = annotation
        self._classes: LiveClasses | None = None
        self._names: tuple[str, ...] = ()
        annotation.changed.connect(self.again)
        annotation.opened.connect(self._opened)

    @property
    def is_on(self) -> bool:
        """Whether it is wanted and there are annotations to predict from."""
        return self.wanted and self._annotation.document is not None

    def set_wanted(self, wanted: bool) -> None:
        """Begin or end."""
        self.wanted = wanted
        self._opened()

    def shut(self) -> None:
        """End, and free what is kept."""
        self.wanted = False
        self._opened()

    def _opened(self) -> None:
        """Another document: predict for its case, or end."""
        case = self.controller.workspace.case if self.is_on else None
        if self._classes is not None and self._classes.case is not case:
            ended, self._classes = self._classes, None
            self.end()
            self.controller.read("Live prediction", ended.close, lambda _: None)
        self.message.emit("")
        if case is None:
            return
        if self._classes is not None:
            self.again()
            return
        made = self._classes = LiveClasses(case, self.controller.workspace.cohort)
        self.message.emit("Live prediction: reading the slide…")
        self.controller.read("Live prediction", made.read_others, self.again)
        self.begin([CLASSES.name])

    def prepared(self) -> Callable[[Stop], _Found] | None:
        """The prediction from the present annotations."""
        document = self._annotation.document
        if self._classes is None or document is None:
            return None
        return partial(_predicted, self._classes, document.shapes, self.corners())

    def show_result(self, result: _Found | MosaikError) -> None:
        """Show the classes below the annotations."""
        if isinstance(result, MosaikError):
            self.message.emit(f"Live prediction: {result}")
            return
        found, transform = result
        spec = replace(classes_layer(found.classes, transform), name=LIVE_TITLE)
        names = tuple(found.classes.names.values())
        if names != self._names and LIVE_TITLE in self.viewer.layers:  # a class, a colour more
            self.viewer.layers.remove(LIVE_TITLE)
        self._names = names
        new = LIVE_TITLE not in self.viewer.layers
        self.put(spec)
        if new and ANNOTATIONS_TITLE in self.viewer.layers:
            layers = self.viewer.layers
            layers.move(layers.index(LIVE_TITLE), layers.index(ANNOTATIONS_TITLE))
        where = "" if found.whole else ", middle of the view only"
        self.message.emit(
            f"Live prediction from {count(found.n_shapes, 'annotation')} here and "
            f"{count(found.n_cases, 'case')} in all, {number(self.took_s, 's', digits=2)}{where}. "
            "Not stored: Retrain makes it a model."
        )


def _predicted(
    classes: LiveClasses, shapes: tuple[AnnotatedShape, ...], corners: Corners, stop: Stop
) -> _Found:
    transform = transform_to_reference(classes.case, "he")
    return classes.predict(shapes, region_on_slide(corners, transform), stop), transform
