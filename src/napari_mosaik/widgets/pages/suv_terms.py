"""Every term of the SUV on the uptake page: value, source, formula, recomputed at each edit."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QComboBox, QGridLayout, QLabel, QLineEdit, QWidget

from napari_mosaik.core import InjectionRecord, InputError
from napari_mosaik.core.catalogue import PET
from napari_mosaik.core.pet_records import PetImage
from napari_mosaik.view.formatting import number
from napari_mosaik.widgets.base.controls import button, column, row, shrinkable, wrapped_label
from napari_mosaik.widgets.pages.pet_choice import PetChoice
from napari_mosaik.workflow.suv import (
    TERM_ITEMS,
    injection_record,
    scaled_statistics,
    suv_record_or_problem,
)

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case
    from napari_mosaik.widgets.base.case_controller import CaseController

__all__ = ["SuvTermsPanel"]

_SOURCES = {
    "user": "you",
    "header": "file",
    "sidecar": "sidecar",
    "table": "table",
    "assumed": "assumed",
    "missing": "missing",
}
_TIPS = {
    "user": "from the injection record of this case, or typed here",
    "header": "from the PET file's header",
    "sidecar": "from the JSON file beside the PET",
    "table": "from the program's table of nuclides",
    "assumed": "nobody says it; see the assumptions",
    "missing": "nobody says it",
}
_CHOICES: dict[str, tuple[tuple[str, str], ...]] = {
    "decay_correction": (
        ("as the file says", ""),
        ("scan start", "START"),
        ("injection", "ADMIN"),
        ("not corrected", "NONE"),
    ),
    "sex": (("as the file says", ""), ("male", "M"), ("female", "F")),
}


class SuvTermsPanel(QWidget):
    """Table of the terms with fields, the formula with its numbers, assumptions and warnings.

    What is typed is used at once for the figures shown here; the case changes with *Save*.
    """

    def __init__(self, controller: CaseController) -> None:
        super().__init__()
        self._controller = controller
        self._pet: PetImage | None = None
        self._task: object = None
        self.choice = PetChoice(controller)
        self.fields: dict[str, QLineEdit | QComboBox] = {}
        self._sources: dict[str, QLabel] = {}
        self._grid = QGridLayout()
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(6)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(1, 1)
        self.formula = wrapped_label(bold=True)
        self.figures = wrapped_label()
        self.problem = wrapped_label(bold=True)
        self.notes = wrapped_label(small=True)
        self.save = button(
            "Save these terms", self._save, "Writes what you typed to the injection record"
        )
        self.discard = button("Discard changes", self._show_record)
        self.setLayout(
            column(
                wrapped_label("Terms of the SUV", bold=True),
                self.choice,
                self._grid,
                self.formula,
                self.figures,
                self.problem,
                self.notes,
                row(self.save, self.discard, 1),
                spacing=5,
            )
        )
        self._make_fields()
        controller.workspace.events.case.connect(self.read)
        controller.workspace.events.recipe.connect(self._compute)
        self.read()

    def _make_fields(self) -> None:
        for place, (name, label, unit) in enumerate(TERM_ITEMS):
            title = wrapped_label(label)
            title.setToolTip(InjectionRecord.model_fields[name].description or "")
            field = self._field(name)
            self.fields[name] = field
            source = self._sources[name] = QLabel()
            self._grid.addWidget(title, place, 0)
            self._grid.addWidget(field, place, 1, 1, 1 if unit else 2)
            if unit:
                self._grid.addWidget(QLabel(unit), place, 2)
            self._grid.addWidget(source, place, 3)
            self._grid.setColumnMinimumWidth(0, 92)

    def _field(self, name: str) -> QLineEdit | QComboBox:
        if name in _CHOICES:
            box = QComboBox()
            for text, value in _CHOICES[name]:
                box.addItem(text, value)
            shrinkable(box)
            box.currentIndexChanged.connect(self._compute)
            return box
        edit = QLineEdit()
        edit.setMinimumWidth(50)
        edit.textChanged.connect(self._compute)
        return edit

    # --- reading --------------------------------------------------------------------------------
    def read(self, *_: Any) -> None:
        """Read the PET of the open case anew, in the background."""
        case = self._controller.workspace.case
        self._pet = None
        self.choice.show_case(case, "")
        self._show_record()
        if case is None or case.missing_reason(PET):
            return
        task = self._controller.read(
            "PET", lambda: _read(case), lambda found: self._arrived(task, found)
        )
        self._task = task

    def _arrived(self, task: object, found: PetImage | str) -> None:
        if task is not self._task:
            return
        problem = found if isinstance(found, str) else ""
        self._pet = None if isinstance(found, str) else found
        self.choice.show_case(self._controller.workspace.case, problem, self._pet)
        self._compute()

    def _show_record(self) -> None:
        """Show what the case's injection record says; empty where it says nothing."""
        record = _given(self._controller.workspace.case)
        for name, field in self.fields.items():
            field.blockSignals(True)
            if isinstance(field, QComboBox):
                field.setCurrentIndex(max(0, field.findData(record.get(name) or "")))
            else:
                field.setText(_text(record.get(name)))
            field.blockSignals(False)
        self._compute()

    # --- computing ------------------------------------------------------------------------------
    def given(self) -> dict[str, Any]:
        """What the record says with what was typed in its place; empty items are left out."""
        out = _given(self._controller.workspace.case)
        for name, field in self.fields.items():
            if isinstance(field, QComboBox):
                value = field.currentData()
            else:
                value = field.text().strip()
                is_number = name not in ("injected", "excised", "scanned", "nuclide")
                value = value.replace(",", ".") if is_number else value
            out[name] = value
        return {name: value for name, value in out.items() if value not in ("", None)}

    def _compute(self, *_: Any) -> None:
        changed = self.given() != _typed(_given(self._controller.workspace.case))
        self.discard.setEnabled(changed)
        self.save.setEnabled(self._controller.workspace.case is not None and changed)
        if self._pet is None:
            self.formula.setText("")
            self.figures.setText("")
            self.problem.setText("" if self.choice.problem else "The PET is not read yet")
            self.notes.setText("")
            return
        settings = self._controller.workspace.recipe.get("suv")
        self.show_document(suv_record_or_problem(self._pet.header, self.given(), settings))

    def show_document(self, document: dict[str, Any]) -> None:
        """Show the terms, the formula or what is missing, the assumptions and warnings."""
        for term in document["terms"]:
            self._show_term(term)
        problem = document.get("problem", "")
        self.problem.setText(f"⚠ {problem}" if problem else "")
        self.problem.setVisible(bool(problem))
        self.formula.setText(document.get("formula", ""))
        self.figures.setText("")
        if "factor" in document and self._pet is not None:
            found = scaled_statistics(self._pet, document["factor"])
            unit = document["unit"]
            self.figures.setText(
                f"factor {document['factor']:.6g} · highest {number(found['maximum'], unit)} · "
                f"mean {number(found['mean'], unit)} of {found['n_voxels']} voxels"
            )
        lines = [f"• {text}" for text in document["assumptions"]]
        lines += [f"⚠ {text}" for text in document["warnings"]]
        self.notes.setText("\n".join(lines))

    def _show_term(self, term: dict[str, Any]) -> None:
        name, source = term["name"], term["source"]
        label = self._sources[name]
        label.setText(_SOURCES[source])
        label.setToolTip(_TIPS[source])
        field = self.fields[name]
        shown = "" if source in ("user", "missing") else _text(term["value"])
        if isinstance(field, QLineEdit):
            field.setPlaceholderText(shown)
        else:
            said = {value: text for text, value in _CHOICES[name]}.get(str(term["value"]), "")
            field.setItemText(0, f"{said} (file)" if said and source != "user" else "not given")

    # --- saving ---------------------------------------------------------------------------------
    def _save(self) -> None:
        try:
            record = injection_record(self.given())
        except InputError as error:
            self._controller.report(error, "Uptake (PET)")
            return
        self._controller.update_case(injection=record)


def _read(case: Case) -> PetImage | str:
    """The PET, or why it cannot be read as the case describes it."""
    try:
        return case.pet()
    except InputError as error:
        return str(error)


def _given(case: Case | None) -> dict[str, Any]:
    """What the case's injection record says."""
    if case is None or case.file.injection is None:
        return {}
    return case.file.injection.model_dump(exclude_unset=True, exclude_none=True)


def _typed(given: dict[str, Any]) -> dict[str, Any]:
    """The same as the fields would give it."""
    names = {name for name, _, _ in TERM_ITEMS}
    return {name: _text(value) if name in names else value for name, value in given.items()}


def _text(value: Any) -> str:
    """A value as it is edited."""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, float):
        return f"{value:.10g}"
    return "" if value is None else str(value).replace("T", " ") if _dated(value) else str(value)


def _dated(value: Any) -> bool:
    return isinstance(value, str) and len(value) > 15 and value[4:5] == "-" and value[10:11] == "T"
