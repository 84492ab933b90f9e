"""The preview of an import: shapes, classes and doubts of a file, before anything is changed.

file ─► read on a thread ─► table of classes (edited), repairs, another slide? ─► one edit
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QDialog, QPlainTextEdit, QWidget

from napari_mosaik.annotate import proposed_class
from napari_mosaik.view.formatting import count
from napari_mosaik.view.measurements import area_words
from napari_mosaik.widgets.base.controls import (
    button,
    calm_wheel,
    column,
    fill_table,
    row,
    shrinkable,
    table_of,
    wrapped_label,
)

if TYPE_CHECKING:
    from napari_mosaik.workflow.annotation_import import AnnotationImport, ClassRow

__all__ = ["ImportDialog"]

_LINE_PX = 24
_MAX_LINES = 10


class ImportDialog(QDialog):
    """Shows the classes of a file with a choice for each, and the doubts about its shapes.

    ``chosen`` is emitted with how the shapes are taken: "" where the reader has none yet,
    "replace" or "add".
    """

    chosen = Signal(str)

    def __init__(
        self, given: AnnotationImport, reader: str, present: int, parent: QWidget | None
    ) -> None:
        super().__init__(parent)
        self._given = given
        self.setWindowTitle(f"Import {given.path.name}")
        self.resize(680, 400)
        rows = given.rows
        self.table = table_of(
            ("Class in the file", "Shapes", "Area", "Becomes"), ("", "", "", ""), wide=0
        )
        fill_table(
            self.table,
            [
                (one.name or "(no class)", str(one.shapes), area_words(1e6 * one.area_mm2), "")
                for one in rows
            ],
        )
        header = self.table.verticalHeader()
        if header is not None:
            header.setDefaultSectionSize(_LINE_PX + 4)
        self.table.setMinimumHeight((_LINE_PX + 4) * (min(len(rows), _MAX_LINES) + 1) + 8)
        for place, one in enumerate(rows):
            item = self.table.item(place, 0)
            if item is not None:
                item.setToolTip(one.name)
        self.choices = {one.name: self._choice(one) for one in rows}
        for place, choice in enumerate(self.choices.values()):
            self.table.setCellWidget(place, 3, choice)
        self.doubts = QPlainTextEdit("\n".join(f"⚠ {doubt}" for doubt in given.doubts))
        self.doubts.setReadOnly(True)
        self.doubts.setVisible(bool(given.doubts))
        self.doubts.setMaximumHeight(120)
        self.summary = wrapped_label()
        self.other_slide = wrapped_label(f"⚠ {given.question}.", bold=True)
        self.right_slide = QCheckBox("I have checked that they belong to this slide")
        for asked in (self.other_slide, self.right_slide):
            asked.setVisible(bool(given.question))
        self.right_slide.toggled.connect(self._show)
        self.takes = {"": button("Import", partial(self._take, ""))}
        question = f"The shapes will be annotations of reader {reader}."
        if present:
            self.takes = {
                "replace": button(
                    "Replace (a copy is kept)",
                    partial(self._take, "replace"),
                    "The annotations of this reader are replaced; undo brings them back",
                ),
                "add": button("Add", partial(self._take, "add"), "Shapes already there stay"),
            }
            question = f"Reader {reader} has {count(present, 'annotation')} on this slide."
        self.cancel = button("Cancel", self.reject)
        self.setLayout(
            column(
                wrapped_label(
                    "What each class of the file becomes. Excluded shapes are not imported."
                ),
                self.table,
                self.doubts,
                self.other_slide,
                self.right_slide,
                self.summary,
                wrapped_label(question, bold=True),
                row(1, *self.takes.values(), self.cancel),
                margin=10,
                spacing=8,
            )
        )
        calm_wheel(self)
        self._show()

    def _choice(self, of: ClassRow) -> QComboBox:
        choice = shrinkable(QComboBox())
        choice.setMinimumContentsLength(16)
        for name in self._given.known:
            choice.addItem(name, name)
        if of.name and not proposed_class(of.name, self._given.known):
            choice.addItem(f"New class: {of.name}", of.name)
        choice.addItem("Exclude", "")
        choice.setCurrentIndex(choice.findData(of.mapped_to))
        choice.currentIndexChanged.connect(partial(self._chosen, of.name, choice))
        return choice

    def _chosen(self, name: str, choice: QComboBox, _place: int) -> None:
        self._given.map(name, choice.currentData(), new=True)
        self._show()

    def _show(self, *_: object) -> None:
        rows = self._given.rows
        taken = sum(one.shapes for one in rows if one.mapped_to)
        left = sum(one.shapes for one in rows) - taken
        words = f"{count(taken, 'shape')} imported, {left} excluded."
        sure = self.right_slide.isChecked() or not self._given.question
        self.summary.setText(words if taken else "⚠ Choose a class for at least one row.")
        for take in self.takes.values():
            take.setEnabled(bool(taken) and sure)

    def _take(self, how: str) -> None:
        self.accept()
        self.chosen.emit(how)
