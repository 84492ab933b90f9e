"""Visual QA of a segmentation: random objects one by one, then tiles for missed objects."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel, QLineEdit, QSpinBox, QWidget

from napari_mosaik.core import MosaikError, palette
from napari_mosaik.core.catalogue import OBJECTS, REFERENCE, TILES
from napari_mosaik.core.corrections import CORRECTED_FRAMES
from napari_mosaik.view.case_results import transform_to_reference
from napari_mosaik.view.layers import LAYER_TITLES
from napari_mosaik.view.report.content import qa_line
from napari_mosaik.view.spec import placement_um
from napari_mosaik.widgets.base.controls import button, column, row, wrapped_label
from napari_mosaik.widgets.base.reader import ReaderField, with_reader
from napari_mosaik.widgets.canvas.camera import look_at
from napari_mosaik.widgets.canvas.keys import bind_widget_keys, key_text
from napari_mosaik.widgets.canvas.link import square_lines

if TYPE_CHECKING:
    from napari_mosaik.core import Transform
    from napari_mosaik.core.journal import JournalChange
    from napari_mosaik.widgets.canvas.case_layers import CaseLayers
    from napari_mosaik.workflow.segmentation_qa import SegmentationQa

__all__ = ["VisualQaPanel"]

MARK = "Visual QA"
_CHOICES = {LAYER_TITLES[what]: (what, CORRECTED_FRAMES[what]) for what in OBJECTS}
_RATINGS = ("good", "usable", "not usable")
_VIEW = 10.0
"""The picture is about this many objects wide."""
_SEGMENTS = 48


class VisualQaPanel(QWidget):
    """Leads a reader through a random sample; each rating is saved at once.

    ``to_correct`` carries the title of the objects and the places that need a correction.
    """

    to_correct = Signal(str, object)

    def __init__(self, board: CaseLayers) -> None:
        super().__init__()
        self._board, self._controller = board, board.controller
        self.session: SegmentationQa | None = None
        self._frame = REFERENCE
        self._table: Any = None
        self._transform: Transform | None = None
        self._grid: Any = None
        self._current: tuple[str, int] | None = None
        self._past: list[tuple[str, int]] = []
        self.target = QComboBox()
        self.target.addItems(list(_CHOICES))
        self.reader = ReaderField(self._controller)
        self.begin = button("Start visual QA", self.start, "Starts or resumes your visual QA")
        self.question = wrapped_label(bold=True)
        self.right = button(
            "Correct", partial(self._rate, "correct"), f"Key {key_text('qa', 'correct')}"
        )
        self.wrong = button("Wrong", partial(self._rate, "wrong"), f"Key {key_text('qa', 'wrong')}")
        self.unsure = button(
            "Unsure", partial(self._rate, "unsure"), f"Key {key_text('qa', 'unsure')}"
        )
        self.back = button(
            "Back", self.step_back, "Shows the previous object again to change its rating"
        )
        self.missed = QSpinBox()
        self.missed.setRange(0, 9999)
        self.missed.setToolTip("Objects in the tile that have no outline (false negatives)")
        self.next = button("Next tile", self._count)
        self.overall_rating = QComboBox()
        self.overall_rating.addItems(list(_RATINGS))
        self.comment = QLineEdit()
        self.comment.setPlaceholderText("Comment")
        self.save = button("Save overall rating", self._rate_overall)
        self.finish = button("Close", self.stop, "All ratings are saved; you can resume later")
        self.correct = button(
            "Correct the wrong ones",
            self._correct,
            "Leads through the objects that you rated wrong and the tiles with missed objects",
        )
        self.export = button("Save as CSV…", self._export, "All visual QA records of this case")
        self.message = wrapped_label(small=True)
        bind_widget_keys(
            self,
            "qa",
            {name: partial(self._rate, name) for name in ("correct", "wrong", "unsure")},
        )
        self._objects = _group(row(self.right, self.wrong, self.unsure, self.back, 1))
        self._fields = _group(
            row(QLabel("Missed objects (false negatives)"), self.missed, self.next, 1)
        )
        self._end = _group(column(row(self.overall_rating, self.comment), row(self.save, 1)))
        self.setLayout(
            column(
                wrapped_label(
                    "Rate objects drawn at random, then count missed objects in some tiles. "
                    "Each answer is saved at once.",
                    small=True,
                ),
                row(self.target, QLabel("Reader"), self.reader),
                row(self.begin, self.finish, self.export, 1),
                self.question,
                self._objects,
                self._fields,
                self._end,
                row(self.correct, 1),
                self.message,
                spacing=6,
            )
        )
        events = self._controller.workspace.events
        for event in (events.case, events.reader):
            event.connect(self.stop)
        self._show()

    # --- beginning and ending -------------------------------------------------------------------
    def start(self) -> None:
        """Ask for the reader where none was given, then open visual QA in the background."""
        self.reader.take()
        with_reader(self._controller, self, self._start)

    def _start(self) -> None:
        case = self._controller.workspace.case
        if case is None:
            return
        self.stop()
        target, frame = _CHOICES[self.target.currentText()]
        reader = self._controller.workspace.reader

        def work() -> tuple[Any, ...]:
            from napari_mosaik.workflow.segmentation_qa import SegmentationQa

            session = SegmentationQa(case, target, reader)
            try:
                table = session.objects
                grid = case.store.read(TILES) if session.sample.fields else None
                return session, table, grid, transform_to_reference(case, frame), frame
            except MosaikError:
                session.close()
                raise

        self._controller.read("Visual QA", work, self._opened)

    def _opened(self, answer: tuple[Any, ...]) -> None:
        self.session, self._table, self._grid, self._transform, self._frame = answer
        self.session.part.follow(self._moved)  # undo is of this thread
        self._show_overall()
        name = self.target.currentText()
        self._board.show_slide(self._frame)
        self._board.set_shown(name, True)
        self._advance()

    def stop(self, *_: Any) -> None:
        """End visual QA; all ratings stay on record."""
        if self.session is not None:
            self.session.close()
        self.session, self._current, self._past = None, None, []
        viewer = self._board.viewer
        if MARK in viewer.layers:
            viewer.layers.remove(MARK)
        self._show()

    # --- answers --------------------------------------------------------------------------------
    def _rate(self, judgement: Any) -> None:
        if self.session is None or self._current is None or self._current[0] != "object":
            return
        self._keep(lambda session, label: session.rate_object(label, judgement))

    def _count(self) -> None:
        if self.session is None or self._current is None or self._current[0] != "field":
            return
        inside = self._objects_in(self._current[1])
        self._keep(lambda session, tile: session.record_missed(tile, inside, self.missed.value()))

    def _keep(self, write: Any) -> None:
        assert self.session is not None
        assert self._current is not None
        try:
            write(self.session, self._current[1])
        except MosaikError as error:
            self._controller.report(error, "Visual QA")
            return
        self._past.append(self._current)
        self._advance()

    def _rate_overall(self) -> None:
        if self.session is None:
            return
        try:
            rating: Any = self.overall_rating.currentText()
            self.session.rate_overall(rating, self.comment.text().strip())
        except MosaikError as error:
            self._controller.report(error, "Visual QA")
        self._show()

    def _correct(self) -> None:
        session, title = self.session, self.target.currentText()
        if session is not None:
            self._controller.read(
                "Visual QA", session.to_correct, lambda places: self.to_correct.emit(title, places)
            )

    def _moved(self, change: JournalChange) -> None:
        """Show again what another view has undone or redone."""
        if self.session is None or change.kind == "append":
            return
        event = change.event
        kind = "object" if "object" in event else "field" if "field" in event else ""
        if not kind:
            self._show_overall()
        elif change.kind == "undo":
            to = (kind, int(event[kind]))
            self._past = [one for one in self._past if one != to]
            self._go(to)
            return
        self._advance()

    def _show_overall(self) -> None:
        assert self.session is not None
        summary = self.session.summary
        known = summary.overall_rating in _RATINGS
        self.overall_rating.setCurrentText(summary.overall_rating if known else _RATINGS[0])
        self.comment.setText(summary.comment)

    def step_back(self) -> None:
        """Show the previous object or tile again."""
        if self._past:
            self._go(self._past.pop())

    def _export(self) -> None:
        case = self._controller.workspace.case
        if case is None:
            return
        name, _ = QFileDialog.getSaveFileName(
            self,
            "Save the visual QA records of this case",
            str(Path.home() / f"{case.name}-qa.csv"),
            "*.csv",
        )
        if name:
            self.write_csv(Path(name))

    def write_csv(self, path: Path) -> None:
        """Write the visual QA records of the open case."""
        from napari_mosaik.workflow.segmentation_qa import write_qa_csv

        case = self._controller.workspace.case
        if case is not None:
            self._controller.read(
                "Save as CSV",
                lambda: write_qa_csv(case, path),
                lambda _: self.message.setText(f"Saved as {path.name}"),
            )

    # --- showing --------------------------------------------------------------------------------
    def _advance(self) -> None:
        assert self.session is not None
        label = self.session.next_object()
        if label is not None:
            self._go(("object", label))
            return
        tile = self.session.next_field()
        if tile is not None:
            self._go(("field", tile))
            return
        self._current = None
        self._show()

    def _go(self, to: tuple[str, int]) -> None:
        self._current = to
        centre, size = self._place(to)
        wide = size * (1.6 if to[0] == "field" else _VIEW)
        look_at(self._board.viewer, centre, min(self._board.viewer.canvas.size) / wide)
        if to[0] == "object":
            self._mark(_circle(centre, size), size / 20)
        else:
            self._mark(square_lines(centre, size), size / 150)
        self.missed.setValue(0)
        self._show()

    def _place(self, to: tuple[str, int]) -> tuple[tuple[float, float], float]:
        """Centre on the reference section and size, µm."""
        if to[0] == "field":
            centre = self._grid.centres_um[to[1]]
            return (float(centre[0]), float(centre[1])), float(self._grid.size_um)
        point = self._table.points_um()[to[1] - 1]
        size = float(np.nanmax([self._table["major_axis_um"][to[1] - 1], 8.0]))
        if self._transform is not None:
            point = self._transform.apply([point])[0]
        return (float(point[0]), float(point[1])), size

    def _objects_in(self, tile: int) -> int:
        """Number of segmented objects whose centre is in a tile."""
        points = self._table.points_um()
        if self._transform is not None:
            points = self._transform.apply(points)
        low = self._grid.corners_um[tile]
        inside = (points >= low) & (points < low + self._grid.size_um)
        return int(inside.all(axis=1).sum())

    def _mark(self, lines: Any, width_um: float) -> None:
        viewer = self._board.viewer
        if MARK in viewer.layers:
            viewer.layers[MARK].data = lines
            viewer.layers[MARK].edge_width = width_um
            return
        viewer.add_vectors(
            lines, name=MARK, edge_color=palette.TISSUE, edge_width=width_um, vector_style="line",
            **placement_um(REFERENCE),
        )  # fmt: skip

    def _show(self) -> None:
        active = self.session is not None
        kind = None if self._current is None else self._current[0]
        self._objects.setVisible(active and kind == "object")
        self._fields.setVisible(active and kind == "field")
        self._end.setVisible(active and kind is None)
        self.finish.setVisible(active)
        wrong = self.session is not None and self.session.summary
        self.correct.setVisible(bool(wrong and wrong.wrong + wrong.missed))
        self.begin.setVisible(not active)
        self.target.setEnabled(not active)
        self.reader.setEnabled(not active)
        self.back.setEnabled(bool(self._past))
        self.question.setText(self._question())
        if self.session is not None:
            self.message.setText(qa_line(self.session.summary))

    def _question(self) -> str:
        if self.session is None:
            return ""
        sample, name = self.session.sample, self.target.currentText().lower()
        if self._current is None:
            return f"Sample complete. How do you rate the segmentation of the {name}?"
        kind, item = self._current
        if kind == "object":
            place = sample.objects.index(item) + 1
            return f"Object {place} of {len(sample.objects)}: is the circled outline correct?"
        place = sample.fields.index(item) + 1
        return f"Tile {place} of {len(sample.fields)}: how many {name} were missed (no outline)?"


def _group(layout: Any) -> QWidget:
    made = QWidget()
    made.setLayout(layout)
    return made


def _circle(centre: tuple[float, float], size: float) -> Any:
    """A circle one and a half times as large as an object, as vectors (n, 2, 2)."""
    angle = np.linspace(0, 2 * np.pi, _SEGMENTS + 1)
    points = np.stack([np.sin(angle), np.cos(angle)], axis=1) * 0.75 * size + np.asarray(centre)
    return np.stack([points[:-1], np.diff(points, axis=0)], axis=1)
