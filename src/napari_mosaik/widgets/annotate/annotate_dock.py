"""The Annotate tab: tissue classes, tools, commands on what is selected, retraining and update."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPen, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QGridLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QSlider,
    QToolButton,
    QWidget,
)

from napari_mosaik.annotate import (
    DEFAULT_CLASSES,
    READING_TILE_UM,
    SHAPE_COMMANDS,
    TissueClass,
    proposed_class,
)
from napari_mosaik.core import InputError
from napari_mosaik.core.palette import OWN_CLASS_COLOURS
from napari_mosaik.view.formatting import count, number
from napari_mosaik.view.measurements import area_words
from napari_mosaik.widgets.annotate.annotation import Annotation, LiveTissue
from napari_mosaik.widgets.annotate.drawing import Drawing
from napari_mosaik.widgets.annotate.import_dialog import ImportDialog
from napari_mosaik.widgets.annotate.two_readers import finished_words
from napari_mosaik.widgets.annotate.wand_thread import TOLERANCES
from napari_mosaik.widgets.base.controls import (
    button,
    clear,
    column,
    row,
    shrinkable,
    wrapped_label,
)
from napari_mosaik.widgets.base.reader import ReaderField, development_line, with_reader
from napari_mosaik.widgets.canvas.keys import key_text
from napari_mosaik.workflow.agreement import readers_state
from napari_mosaik.workflow.annotations import OWN_CLASS, annotating_readers

if TYPE_CHECKING:
    from napari_mosaik.widgets.base.case_controller import CaseController
    from napari_mosaik.widgets.canvas.link import CanvasLink
    from napari_mosaik.workflow.annotation_import import AnnotationImport
    from napari_mosaik.workflow.annotations import FinishedTiles

__all__ = ["AnnotateDock"]

_FILES = "Annotations (*.geojson *.json *.gz *.zip *.GEOJSON *.JSON *.GZ *.ZIP);;All files (*)"


class AnnotateDock(QWidget):
    """Annotate tissue classes on the H&E slide, retrain, update and compare."""

    def __init__(self, controller: CaseController, link: CanvasLink) -> None:
        super().__init__()
        self._controller = controller
        self.annotation = Annotation(controller)
        self.drawing = Drawing(link, self.annotation)
        self.reader = ReaderField(controller)
        self._palette = QWidget()
        self._palette_rows = QGridLayout(self._palette)
        self._palette_rows.setContentsMargins(0, 0, 0, 0)
        self._palette_rows.setVerticalSpacing(2)
        self._palette_rows.setColumnStretch(1, 1)
        self.class_buttons: dict[str, QPushButton] = {}
        self.lock_buttons: dict[str, QToolButton] = {}
        self.new_class = QLineEdit()
        self.new_class.setPlaceholderText("New class, then Enter")
        self.new_class.setToolTip(
            "For example necrosis. The classifier is trained on its annotations, and each tile "
            "gets its area fraction"
        )
        self.new_class.returnPressed.connect(self._add_class)
        self.tool_buttons = {name: self._tool_button(name) for name in Drawing.modes}
        self.away = button(
            "Pan/zoom (no tool)", self.drawing.release, "Returns the mouse to pan and zoom"
        )
        self.away.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.brush_size = QSlider(Qt.Orientation.Horizontal)
        self.brush_size.setRange(4, 120)
        self.brush_size.setValue(round(self.drawing.brush_px))
        self.brush_size.setToolTip("Diameter on the screen; the diameter in µm follows the zoom")
        self.brush_size.valueChanged.connect(self._size_changed)
        self.size_words = QLabel()
        self.tolerance = QSlider(Qt.Orientation.Horizontal)
        self.tolerance.setRange(*TOLERANCES)
        self.tolerance.setValue(round(self.drawing.wand.tolerance))
        self.tolerance.setToolTip(
            "How far colour and texture may differ from where the wand is pressed; the wheel over "
            "the slide changes it, too"
        )
        self.tolerance.valueChanged.connect(self._tolerance_changed)
        self.tolerance_words = QLabel()
        self._brush_row = _together(QLabel("Brush"), self.brush_size, self.size_words)
        self._wand_row = _together(QLabel("Tolerance"), self.tolerance, self.tolerance_words)
        self.chosen = wrapped_label(small=True)
        self.by_um = QDoubleSpinBox()
        self.by_um.setRange(0.1, 1000.0)
        self.by_um.setDecimals(1)
        self.by_um.setSuffix(" µm")
        self.by_um.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.by_um.setValue(self.drawing.by_um)
        self.by_um.setToolTip("Distance of Smooth, Simplify, Dilate and Shrink")
        self.by_um.valueChanged.connect(self._distance_changed)
        self.command_buttons = {name: self._command_button(name) for name in SHAPE_COMMANDS}
        self.overlap = QCheckBox("No overlap: the latest annotation wins")
        self.overlap.setChecked(True)
        self.overlap.toggled.connect(self._overlap_changed)
        self.undo = button("Undo", self.drawing.undo, "Ctrl+Z")
        self.redo = button("Redo", self.drawing.redo, "Ctrl+Shift+Z")
        self.hint = wrapped_label(small=True)
        self._why = ""
        self._readers: list[str] = []
        self.saved = wrapped_label(small=True)
        self.notice = wrapped_label(small=True)
        self.again = button("Write again", self._write_again, "Writes what was refused, in order")
        self.elsewhere = button(
            "Save elsewhere…", self._save_elsewhere, "A copy of the journal with what was refused"
        )
        self.import_button = button(
            "Import…", self.choose_import, "GeoJSON, for example of QuPath (also .gz, .zip)"
        )
        self.export_button = button(
            "Export…", self._choose_export, "Your annotations as GeoJSON for QuPath"
        )
        self.finish_view = button(
            "Finish tiles in view",
            self._finish_view,
            "Squares of 400 µm whose centre is in view: nothing more to annotate in them",
        )
        self.finish_all = button(
            "Finish all", self.annotation.finish, "The whole slide is read; an edit reopens a tile"
        )
        self.finished = wrapped_label(small=True)
        self.whose = shrinkable(QComboBox())
        self.whose.setToolTip("Whose annotations Retrain learns from, on all cases of the cohort")
        self.whose.currentIndexChanged.connect(self._tell_whose)
        self.whose_line = wrapped_label(small=True)
        self.retrain = button("Retrain", self._retrain)
        self.retrain.setToolTip("Trains the fast classifier on all annotated cases of the cohort")
        self.update_button = button("Update all", self.annotation.update)
        self.live = LiveTissue(link.board, self.annotation)
        self.live_box = QCheckBox("Live prediction")
        self.live_box.setToolTip(
            "Predicts the tissue classes of the view after every stroke, from the annotations of "
            "all cases of the cohort. Nothing is stored"
        )
        self.live_box.toggled.connect(self.live.set_wanted)
        self.live_line = wrapped_label(small=True)
        self.live_line.setVisible(False)
        self.change = wrapped_label()
        self._build()
        self._connect()
        self._show()
        self._show_change()
        self._tell_whose()
        self._tell("")

    def _build(self) -> None:
        tools = QGridLayout()
        for i, tool in enumerate(self.tool_buttons.values()):
            tools.addWidget(tool, i // 3, i % 3)
        tools.addWidget(self.away, 3, 0, 1, 3)
        commands = QGridLayout()
        for i, command in enumerate(self.command_buttons.values()):
            commands.addWidget(command, i // 3, i % 3)
        commands.addWidget(self.by_um, 2, 2)
        for grid in (tools, commands):
            for place in range(3):
                grid.setColumnStretch(place, 1)
        self.setLayout(
            column(
                row(QLabel("Reader"), self.reader),
                development_line(self._controller),
                self._palette,
                self.new_class,
                tools,
                self._brush_row,
                self._wand_row,
                self.hint,
                self.chosen,
                commands,
                self.overlap,
                row(self.undo, self.redo, 1),
                row(self.again, self.elsewhere, 1),
                self.saved,
                row(self.import_button, self.export_button, 1),
                row(self.finish_view, self.finish_all, 1),
                self.finished,
                self.notice,
                self.live_box,
                self.live_line,
                self.whose,
                self.whose_line,
                row(self.retrain, self.update_button, 1),
                self.change,
                1,
                margin=4,
                spacing=6,
            )
        )

    def _connect(self) -> None:
        self.annotation.opened.connect(self._fill)
        for signal in (self.annotation.changed, self.annotation.saved):
            signal.connect(self._show)
        self.annotation.message.connect(self._tell)
        self.drawing.changed.connect(partial(self._refused, None))
        self.drawing.failed.connect(self._refused)
        self.drawing.message.connect(self._tell)
        self.drawing.board.changed.connect(self._show_tools)  # a map of the classes has come
        self.live.message.connect(self._tell_live)
        self._asked = 0
        for signal in (self.annotation.opened, self.annotation.saved, self.annotation.finished):
            signal.connect(self._ask_finished)
        self.drawing.viewer.scene.camera.events.zoom.connect(self._show_size)
        events = self._controller.workspace.events
        for event in (events.job, events.states, events.case):
            event.connect(self._show)
        events.change.connect(self._show_change)
        events.reader.connect(self._reader_given)
        self.annotation.saved.connect(self._controller.corrected)

    def _tool_button(self, name: str) -> QPushButton:
        mode, key = Drawing.modes[name], key_text(Drawing.name, name)
        made = button(f"{mode.title} ({key})", lambda: self.drawing.take(name), mode.hint)
        made.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        made.setCheckable(True)
        return made

    def _command_button(self, name: str) -> QPushButton:
        made = button("", lambda: self.drawing.run(name))
        made.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        return made

    def _reader_given(self, name: str) -> None:
        """The reader is the same in drawing, correction and visual QA."""
        if self.annotation.document is not None and name:
            self.annotation.open()

    def _add_class(self) -> None:
        """Add a class to the document and select it."""
        document, name = self.annotation.document, self.new_class.text().strip()
        if document is None or not name:
            return
        known = document.classes
        own = len(known) - len(DEFAULT_CLASSES)
        colour = OWN_CLASS_COLOURS[own % len(OWN_CLASS_COLOURS)]
        key = str(len(known) + 1) if len(known) < 9 else ""
        meant = proposed_class(name, [one.name for one in known])
        if meant and meant != name:
            self._refused(f"'{name}' is another word for '{meant}'; use that class")
            return
        try:
            document.set_classes((*known, TissueClass(name, colour, key)), OWN_CLASS)
        except InputError as error:
            self._refused(error)
            return
        self.new_class.clear()
        self._fill()
        self.drawing.choose_class(name)

    # --- files ----------------------------------------------------------------------------------
    def choose_import(self) -> None:
        """Ask for a file of annotations, and how to import it."""
        with_reader(self._controller, self, self._choose_import)

    def _choose_import(self) -> None:
        path = QFileDialog.getOpenFileName(self, "Annotations to import", "", _FILES)[0]
        if path:
            self.import_file(Path(path))

    def import_file(self, path: Path) -> None:
        """Read a file of annotations, then ask what each of its classes becomes."""

        def then(given: AnnotationImport) -> None:
            document = self.annotation.document
            if document is None:
                return
            asked = ImportDialog(given, self._controller.workspace.reader, len(document),
                                 self.window())  # fmt: skip
            asked.chosen.connect(partial(self.annotation.take_import, given))
            asked.finished.connect(asked.deleteLater)
            asked.open()

        with_reader(self._controller, self, lambda: self.annotation.read_file(path, then))

    def _choose_export(self) -> None:
        case = self._controller.workspace.case
        if case is None:
            return
        given = str(Path.home() / f"{case.name}-{self.reader.text()}.geojson")
        name = QFileDialog.getSaveFileName(self, "Export annotations", given, "*.geojson")[0]
        if name:
            path = Path(name)
            self.annotation.export(path if path.suffix else path.with_suffix(".geojson"))

    def _tell_live(self, words: str) -> None:
        self.live_line.setText(words)
        self.live_line.setVisible(bool(words))

    def _show_refused(self) -> None:
        """Offer what can be done with edits that could not be written."""
        for each in (self.again, self.elsewhere):
            each.setVisible(self.annotation.n_refused > 0)

    def _write_again(self) -> None:
        self.drawing.attempt(self.annotation.write_again)

    def _save_elsewhere(self) -> None:
        given = str(Path.home() / "journal.jsonl")
        name = QFileDialog.getSaveFileName(self, "Save the journal elsewhere", given, "*.jsonl")[0]
        if name:
            self.drawing.attempt(lambda: self.annotation.save_elsewhere(Path(name)))

    # --- finishing ------------------------------------------------------------------------------
    def _finish_view(self) -> None:
        low, high = self.drawing.visible_box()
        half = READING_TILE_UM / 2
        first, last = (np.array([low, high]) - half) / READING_TILE_UM
        rows, cols = (
            range(max(0, math.ceil(a)), math.floor(b) + 1) for a, b in zip(first, last, strict=True)
        )
        tiles = [(row_, col) for row_ in rows for col in cols]
        if not tiles:  # the view lies within one tile
            middle = (np.array(low) + high) / 2 // READING_TILE_UM
            tiles = [(int(middle[0]), int(middle[1]))]
        self.annotation.finish(tiles)

    def _ask_finished(self) -> None:
        case, reader = self._controller.workspace.case, self._controller.workspace.reader

        cases = self.annotation.cohort_cases()
        self._asked = asked = self._asked + 1

        def work() -> tuple[dict[str, FinishedTiles | None], list[str]]:
            assert case is not None
            return readers_state(case), annotating_readers(cases())

        def then(answer: tuple[dict[str, FinishedTiles | None], list[str]]) -> None:
            if asked != self._asked:  # a newer answer is on its way, or there
                return
            state = answer[0].get(reader)
            self.finished.setText(f"Reader {reader}: {finished_words(state)}" if state else "")
            self.finished.setVisible(state is not None)
            self._offer_readers(answer[1])

        if case is not None:
            self._controller.read_for(case, "Finished tiles", work, then)
            self._controller.look_withheld()  # an edit reopens tiles, too

    # --- whose annotations train ----------------------------------------------------------------
    def _offer_readers(self, names: list[str]) -> None:
        """Offer all readers of the cohort together, and each alone; the choice is kept."""
        choices: dict[str, tuple[str, ...]] = {
            "All readers": (),
            **{f"Only {name}": (name,) for name in names},
        }
        chosen = self.whose.currentText()
        self.whose.blockSignals(True)
        self.whose.clear()
        for words, readers in choices.items():
            self.whose.addItem(words, readers)
        self.whose.setCurrentText(chosen if chosen in choices else "All readers")
        self.whose.blockSignals(False)
        self._readers = names
        self._tell_whose()

    def _tell_whose(self, *_: object) -> None:
        names = self.whose.currentData() or self._readers
        several = len(self._readers) > 1
        who = f"reader {names[0]}" if len(names) == 1 else f"the readers {', '.join(names)}"
        self.whose.setVisible(several)
        self.whose_line.setText(f"Retrain learns from the annotations of {who}." if names else "")
        self.whose_line.setVisible(bool(names))

    def _retrain(self) -> None:
        self.annotation.retrain(self.whose.currentData() or ())

    def _tell(self, words: str) -> None:
        self.notice.setText(words)
        self.notice.setVisible(bool(words))

    def _size_changed(self, value: int) -> None:
        self.drawing.brush_px = float(value)
        self._show_size()

    def _tolerance_changed(self, value: int) -> None:
        if value != round(self.drawing.wand.tolerance):
            self.drawing.wand.set_tolerance(float(value))

    def _distance_changed(self, value: float) -> None:
        self.drawing.by_um = value
        self._show_commands()

    def _lock_class(self, name: str) -> None:
        self.drawing.choose_class(name)
        self.drawing.lock_class()

    def _overlap_changed(self, apart: bool) -> None:
        if self.annotation.document is not None:
            self.annotation.document.overlap = "new wins" if apart else "allow"

    # --- showing --------------------------------------------------------------------------------
    def _fill(self) -> None:
        """Show a button per class of the document."""
        clear(self._palette_rows)
        self.class_buttons.clear()
        self.lock_buttons.clear()
        document = self.annotation.document
        for i, known in enumerate(document.classes if document is not None else ()):
            key = f" ({known.key})" if known.key else ""
            made = button(f"{known.name}{key}", partial(self.drawing.choose_class, known.name))
            made.setCheckable(True)
            made.setIcon(_swatch(known.colour))
            label = wrapped_label(small=True)
            self._palette_rows.addWidget(made, i, 0)
            self._palette_rows.addWidget(label, i, 1)
            self.class_buttons[known.name] = made
            lock = QToolButton()
            lock.setAutoRaise(True)
            lock.clicked.connect(partial(self._lock_class, known.name))
            self._palette_rows.addWidget(lock, i, 2)
            self.lock_buttons[known.name] = lock
        self._overlap_changed(self.overlap.isChecked())
        self._show()

    def _show(self, *_: Any) -> None:
        document, space = self.annotation.document, self._controller.workspace
        classes = document.classes if document is not None else ()
        if [known.name for known in classes] != list(self.class_buttons):  # imported, or undone
            self._fill()
            return
        self._show_tools()
        self.new_class.setEnabled(document is not None)
        for name, made in self.class_buttons.items():
            made.setChecked(name == self.drawing.label)
        for known in classes:
            self._show_lock(known)
        self._show_counts()
        self._show_commands()
        self.import_button.setEnabled(space.case is not None)
        undo, redo = self.annotation.undo_titles
        self.undo.setEnabled(bool(undo))
        self.redo.setEnabled(bool(redo))
        drawn = document is not None and bool(len(document))
        for made in (self.export_button, self.finish_view, self.finish_all):
            made.setEnabled(drawn)
        self.undo.setText(f"Undo {undo}".strip())
        self.redo.setText(f"Redo {redo}".strip())
        self.hint.setText(self._why or self._hint())
        self._show_refused()
        self.saved.setText(self.annotation.saved_words)
        idle = space.job is None
        self.retrain.setEnabled(document is not None and idle and bool(len(document)))
        stale = any(state.word == "stale" for state in space.states.values())
        self.update_button.setEnabled(idle and stale)
        self._show_size()

    def _refused(self, error: object) -> None:
        """Say why an edit was refused, until something else is done."""
        words = str(error)
        self._why = "" if error is None else f"⚠ {words[:1].upper()}{words[1:]}"
        self._show()

    def _show_tools(self) -> None:
        for name, made in self.tool_buttons.items():
            made.setChecked(name == self.drawing.mode)
            reason = self.drawing.why_not_mode(name)
            made.setEnabled(not reason)
            made.setToolTip(reason or Drawing.modes[name].hint)
        self.away.setEnabled(self.drawing.is_active)

    def _show_lock(self, known: TissueClass) -> None:
        lock = self.lock_buttons[known.name]
        lock.setIcon(_lock_icon(known.locked, self.palette().color(self.foregroundRole())))
        key = key_text(Drawing.name, "lock class")
        what = (
            "is locked: no tool changes its annotations or adds to them. Click to unlock it"
            if known.locked
            else "can be changed. Click to lock it"
        )
        lock.setToolTip(f"'{known.name}' {what} ({key})")

    def _show_commands(self) -> None:
        """What is selected, and which commands apply to it; a tip says why one does not."""
        document, keys = self.annotation.document, self.drawing.selection
        shapes = [document.shape(key) for key in keys] if document is not None else []
        locked = bool(shapes) and document is not None and all(map(document.lock_reason, shapes))
        distance = number(self.drawing.by_um, "µm")
        for name, made in self.command_buttons.items():
            command, key = SHAPE_COMMANDS[name], key_text(Drawing.name, name).replace("ete", "")
            title = "Unlock" if name == "lock" and locked else command.title
            reason = self.drawing.why_not(name)
            made.setText(f"{title} ({key})")
            made.setEnabled(not reason)
            made.setToolTip(reason or command.tip.format(um=distance))
        if not shapes:
            self.chosen.setText("Selected: nothing. Choose Select and click an annotation.")
            return
        area = area_words(sum(shape.geometry.area for shape in shapes))
        names = ", ".join(dict.fromkeys(shape.label or "no class" for shape in shapes))
        what = names if len(shapes) == 1 else f"{count(len(shapes), 'annotation')} ({names})"
        self.chosen.setText(f"Selected: {what}, {area}{', locked' if locked else ''}")

    def _show_counts(self) -> None:
        document = self.annotation.document
        if document is None:
            return
        counts, areas = document.count_by_class(), document.area_by_class_um2()
        for i, name in enumerate(self.class_buttons):
            item = self._palette_rows.itemAtPosition(i, 1)
            label = item.widget() if item is not None else None
            if isinstance(label, QLabel):
                area = area_words(areas.get(name, 0.0))
                label.setText(f"{count(counts.get(name, 0), 'annotation')}, {area}")

    def _show_size(self, *_: Any) -> None:
        self.size_words.setText(number(2 * self.drawing.radius_um, "µm", digits=2))
        self.tolerance.setValue(round(self.drawing.wand.tolerance))
        self.tolerance_words.setText(number(self.drawing.wand.tolerance))
        self._wand_row.setVisible(self.drawing.mode == "wand")
        self._brush_row.setVisible(self.drawing.mode != "wand")

    def _show_change(self, *_: Any) -> None:
        change = self._controller.workspace.change
        self.change.setVisible(change is not None)
        self.change.setText("" if change is None else "\n".join(change.lines))

    def _hint(self) -> str:
        if self._controller.workspace.case is None:
            return "Open a case first."
        if not self.drawing.is_active:
            return "Choose a tool to annotate the H&E slide."
        return f"{self.drawing.hint}."

    def shut(self) -> None:
        """Release the mouse and save everything; called when the window closes."""
        self.drawing.release()
        self.live.shut()
        self.annotation.close()


def _together(*widgets: QWidget) -> QWidget:
    """Widgets side by side that are shown and hidden as one."""
    made = QWidget()
    made.setLayout(row(*widgets))
    return made


def _lock_icon(locked: bool, colour: QColor) -> QIcon:
    """A padlock, closed or open."""
    pixmap = QPixmap(16, 16)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    if not locked:
        colour.setAlphaF(0.5)
    painter.setPen(QPen(colour, 1.6))
    painter.drawArc(4 if locked else 8, 2, 8, 9, 0, 180 * 16)
    painter.fillRect(2, 7, 12, 8, colour)
    painter.end()
    return QIcon(pixmap)


def _swatch(colour: str) -> QIcon:
    pixmap = QPixmap(14, 14)
    pixmap.fill(QColor(colour))
    return QIcon(pixmap)
