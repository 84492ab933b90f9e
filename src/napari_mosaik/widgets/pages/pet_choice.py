"""Choice of the PET image: slice, time frame, and a unit that the file does not state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QComboBox, QLineEdit, QWidget

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.pet_records import PetImage
from napari_mosaik.widgets.base.controls import button, column, row, shrinkable, wrapped_label

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case
    from napari_mosaik.widgets.base.case_controller import CaseController

__all__ = ["PetChoice"]

_UNITS = (("from the file", None), ("Bq/mL", "Bq/mL"), ("g/mL (SUV by body weight)", "g/mL"),
          ("cm²/mL (SUV by body surface area)", "cm²/mL"))  # fmt: skip


class PetChoice(QWidget):
    """Shown if the file holds several images or states no unit."""

    def __init__(self, controller: CaseController) -> None:
        super().__init__()
        self._controller = controller
        self.problem = ""
        self.heading = wrapped_label(bold=True)
        self.slice_index = QLineEdit()
        self.frame_index = QLineEdit()
        for edit in (self.slice_index, self.frame_index):
            edit.setPlaceholderText("0, 1, 2 …")
            edit.setMinimumWidth(44)
        self.unit = QComboBox()
        for text, value in _UNITS:
            self.unit.addItem(text, value)
        shrinkable(self.unit)
        self.use = button("Use this image", self._use, "Save the choice in the case")
        self.setLayout(
            column(
                self.heading,
                row(
                    wrapped_label("Slice"),
                    self.slice_index,
                    wrapped_label("Frame"),
                    self.frame_index,
                ),
                row(wrapped_label("Unit"), self.unit),
                row(self.use, 1),
                spacing=3,
            )
        )

    def show_case(self, case: Case | None, problem: str, pet: PetImage | None = None) -> None:
        """Show the choice of the case; hidden if there is nothing to choose."""
        entry = None if case is None else case.file.pet
        self.problem = problem
        no_unit = pet is not None and (pet.header.unit is None or pet.header.unit_given)
        chosen = entry is not None and (entry.slice_index, entry.frame_index) != (None, None)
        self.setVisible(entry is not None and (bool(problem) or no_unit or chosen))
        if entry is None:
            return
        self.heading.setText(f"⚠ {problem}" if problem else "Image in use")
        for edit, value in (
            (self.slice_index, entry.slice_index),
            (self.frame_index, entry.frame_index),
        ):
            edit.setText("" if value is None else str(value))
        self.unit.setCurrentIndex(max(0, self.unit.findData(entry.unit)))

    def _use(self) -> None:
        case = self._controller.workspace.case
        if case is None or case.file.pet is None:
            return
        try:
            changes = {
                "slice_index": _index(self.slice_index, "slice"),
                "frame_index": _index(self.frame_index, "frame"),
                "unit": self.unit.currentData(),
            }
        except InputError as error:
            self._controller.report(error, "Uptake (PET)")
            return
        self._controller.update_case(pet=case.file.pet.model_copy(update=changes))


def _index(edit: QLineEdit, name: str) -> int | None:
    text = edit.text().strip()
    if not text:
        return None
    if not text.isdigit():
        raise InputError(f"{name} '{text}' is not a whole number ≥ 0")
    return int(text)
