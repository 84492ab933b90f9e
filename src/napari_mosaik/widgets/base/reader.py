"""The name of the reader: a field that is the same everywhere, and the question for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QComboBox, QDialog, QDialogButtonBox, QLabel, QLineEdit, QWidget

from napari_mosaik.core import InputError
from napari_mosaik.core.readers import check_reader_name
from napari_mosaik.widgets.base.controls import column, wrapped_label
from napari_mosaik.workflow.annotations import known_readers

if TYPE_CHECKING:
    from napari_mosaik.widgets.base.case_controller import CaseController

__all__ = ["ReaderField", "ReaderQuestion", "development_line", "with_reader"]


class ReaderField(QLineEdit):
    """The reader of the window; a name that is not valid is refused and put back."""

    def __init__(self, controller: CaseController) -> None:
        super().__init__(controller.workspace.reader)
        self._controller = controller
        self.setPlaceholderText("Name or pseudonym")
        self.setToolTip("Each reader has separate annotations, corrections and ratings")
        self.editingFinished.connect(self.take)
        controller.workspace.events.reader.connect(lambda name: self.setText(name))

    def take(self) -> None:
        """Make what was typed the reader of the window."""
        space = self._controller.workspace
        if self.text() == space.reader:
            return
        try:
            space.reader = check_reader_name(self.text())
        except InputError as error:
            self._controller.report(error, "Reader")
        self.setText(space.reader)


def development_line(controller: CaseController) -> QLabel:
    """A line that says whether the open case is a development case, or what would make it one."""
    line, events = wrapped_label(small=True), controller.workspace.events

    def show(*_: object) -> None:
        text = controller.workspace.development
        line.setText(f"⚠ {text}" if text else "")
        line.setVisible(bool(text))

    events.development.connect(show)
    show()
    return line


class ReaderQuestion(QDialog):
    """Asks who annotates, corrects or rates; offers the readers whom the case knows."""

    def __init__(self, controller: CaseController, parent: QWidget | None) -> None:
        super().__init__(parent)
        self._controller = controller
        self.setWindowTitle("Reader")
        self.setMinimumWidth(340)
        self.name = QComboBox()
        self.name.setEditable(True)
        case = controller.workspace.case
        self.name.addItems(known_readers(case) if case is not None else [])
        self.name.setCurrentIndex(-1)
        field = self.name.lineEdit()
        if field is not None:
            field.setPlaceholderText("Name or pseudonym")
        self.why = wrapped_label(small=True)
        self.buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        self.setLayout(
            column(
                wrapped_label("Who is reading?", bold=True),
                wrapped_label(
                    "Each reader has separate annotations, corrections and ratings, and sees no "
                    "annotations of another. Asked once; kept until the window closes."
                ),
                self.name,
                self.why,
                1,
                self.buttons,
                margin=10,
                spacing=8,
            )
        )
        self.name.setFocus()

    def accept(self) -> None:
        """Keep the name for the window; one that is not valid keeps the question open."""
        try:
            self._controller.workspace.reader = check_reader_name(self.name.currentText())
        except InputError as error:
            self.why.setText(f"⚠ {error}")
            return
        super().accept()


def with_reader(controller: CaseController, parent: QWidget, then: Callable[[], object]) -> None:
    """Call *then* once the reader of the open case is known; asked for where nobody gave it."""
    if controller.workspace.reader or controller.workspace.case is None:
        then()
        return
    question = ReaderQuestion(controller, parent.window())
    question.accepted.connect(then)
    question.finished.connect(question.deleteLater)
    question.open()
