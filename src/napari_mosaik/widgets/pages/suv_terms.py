"""The terms of the SUV on the uptake page: value, source and formula, updated at each edit."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QComboBox, QGridLayout, QLabel, QLineEdit, QWidget

from napari_mosaik.core import InjectionRecord, InputError
from napari_mosaik.core.catalogue import PET
from napari_mosaik.core.pet_records import PetImage, record_unit
from napari_mosaik.core.text import typed_number
from napari_mosaik.view.formatting import number, short_formula
from napari_mosaik.widgets.base.controls import button, column, row, shrinkable, wrapped_label
from napari_mosaik.workflow.cohort import DEFAULT_FWHM_MM
from napari_mosaik.workflow.suv import (
    TERM_ITEMS,
    field_problem,
    injection_record,
    item_title,
    resolution_mm,
    resolution_problem,
    scaled_statistics,
    series_paths,
    suv_record_or_problem,
)

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case
    from napari_mosaik.io.case_file import PetEntry
    from napari_mosaik.widgets.base.case_controller import CaseController

__all__ = ["SuvTermsPanel"]

_SOURCES = {
    "user": "entered",
    "header": "file",
    "sidecar": "sidecar",
    "table": "table",
    "assumed": "assumed",
    "missing": "missing",
}
_RESOLUTION_ABOUT = (
    "Full width at half maximum of the scanner, which no file states; the predictor blurs by it. "
    f"Assumed where it is empty: {DEFAULT_FWHM_MM:g} mm"
)
_TIPS = {
    "user": "from the injection record of this case, or entered here",
    "header": "from the PET file's header",
    "sidecar": "from the JSON sidecar of the PET file",
    "table": "from the nuclide table of napari-mosaik",
    "assumed": "not stated; see the assumptions below",
    "missing": "not stated",
}
_CHOICES: dict[str, tuple[tuple[str, str], ...]] = {
    "decay_correction": (
        ("from the file", ""),
        ("scan start", "START"),
        ("injection", "ADMIN"),
        ("not corrected", "NONE"),
    ),
    "sex": (("from the file", ""), ("male", "M"), ("female", "F"), ("other", "O")),
}


class SuvTermsPanel(QWidget):
    """Fields for the terms, the formula with its numbers, assumptions and warnings.

    Edits are used at once for the values shown here; *Save* stores them in the case.
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
        self.resolution = QLineEdit()
        self.resolution.setMinimumWidth(50)
        self.resolution.setPlaceholderText(f"{DEFAULT_FWHM_MM:g}")
        self.resolution.textChanged.connect(self._compute)
        self.resolution.editingFinished.connect(self._field_left)
        self.resolution_source = QLabel()
        self.formula = wrapped_label(bold=True)
        self.figures = wrapped_label()
        self.left = wrapped_label(bold=True)
        self.problem = wrapped_label(bold=True)
        self.notes = wrapped_label(small=True)
        self.save = button(
            "Save terms", self._save, "Save the entered values in the injection record"
        )
        self.discard = button("Discard changes", self._show_record)
        self.accept = button(
            "Use the terms of the file", self._save, "The PET file states all terms of the SUV"
        )
        self.setLayout(
            column(
                wrapped_label("SUV terms", bold=True),
                self.choice,
                self._grid,
                self.left,
                self.formula,
                self.figures,
                self.problem,
                self.notes,
                row(self.accept, 1),
                row(self.save, self.discard, 1),
                spacing=5,
            )
        )
        self._make_fields()
        controller.workspace.events.case.connect(self.read)
        controller.workspace.events.recipe.connect(self._compute)
        self.read()

    def _make_fields(self) -> None:
        for place, (name, _, unit) in enumerate(TERM_ITEMS):
            title = wrapped_label(item_title(name))
            title.setToolTip(InjectionRecord.model_fields[name].description or "")
            field = self._field(name)
            self.fields[name] = field
            source = self._sources[name] = QLabel()
            self._grid.addWidget(title, place, 0)
            self._grid.addWidget(field, place, 1, 1, 1 if unit else 2)
            if unit:
                self._grid.addWidget(QLabel(unit), place, 2)
            self._grid.addWidget(source, place, 3)
            self._grid.setColumnMinimumWidth(0, 84)
        title = wrapped_label("PET resolution (FWHM)")
        title.setToolTip(_RESOLUTION_ABOUT)
        widgets = (title, self.resolution, QLabel("mm"), self.resolution_source)
        for place, widget in enumerate(widgets):
            self._grid.addWidget(widget, len(TERM_ITEMS), place)

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
        edit.editingFinished.connect(self._field_left)
        return edit

    def _field_left(self) -> None:
        """Say at once which entered value cannot be read or is implausible."""
        edits = {name: f for name, f in self.fields.items() if isinstance(f, QLineEdit)}
        nuclide = edits["nuclide"].text().strip() or edits["nuclide"].placeholderText() or "Zr-89"
        problems = (field_problem(name, edit.text(), nuclide) for name, edit in edits.items())
        found = [*problems, resolution_problem(self.resolution.text())]
        text = "\n".join(f"⚠ {problem}" for problem in found if problem)
        self.left.setText(text)
        self.left.setVisible(bool(text))

    # --- reading --------------------------------------------------------------------------------
    def read(self, *_: object) -> None:
        """Read the PET of the open case in the background."""
        case = self._controller.workspace.case
        self._pet = None
        self.choice.show_case(case, "")
        self._show_record()
        if case is None or case.missing_reason(PET):
            return
        task = self._controller.read(
            "PET", lambda: _read(case), lambda pet: self._arrived(task, pet)
        )
        self._task = task

    def _arrived(self, task: object, pet: PetImage | str) -> None:
        if task is not self._task:
            return
        problem = pet if isinstance(pet, str) else ""
        self._pet = None if isinstance(pet, str) else pet
        self.choice.show_case(self._controller.workspace.case, problem, self._pet)
        self._compute()

    def _show_record(self) -> None:
        """Show the injection record of the case; fields that it does not set stay empty."""
        record = _stored_terms(self._controller.workspace.case)
        for name, field in self.fields.items():
            field.blockSignals(True)
            if isinstance(field, QComboBox):
                field.setCurrentIndex(max(0, field.findData(record.get(name) or "")))
            else:
                field.setText(_text(record.get(name)))
            field.blockSignals(False)
        pet = self._pet_entry()
        self.resolution.setEnabled(pet is not None)
        with QSignalBlocker(self.resolution):
            self.resolution.setText(_text(pet.fwhm_mm if pet is not None else None))
        self._field_left()
        self._compute()

    # --- computing ------------------------------------------------------------------------------
    def terms(self) -> dict[str, Any]:
        """The terms of the record, replaced by those entered here; empty ones are omitted."""
        out = _stored_terms(self._controller.workspace.case)
        for name, field in self.fields.items():
            if isinstance(field, QComboBox):
                value = field.currentData()
            else:
                value = field.text().strip()
                with suppress(InputError):  # the record refuses it and names the field
                    value = f"{typed_number(value):.10g}" if record_unit(name) and value else value
            out[name] = value
        return {name: value for name, value in out.items() if value not in ("", None)}

    def _pet_entry(self) -> PetEntry | None:
        case = self._controller.workspace.case
        return None if case is None else case.file.pet

    def _other_resolution(self) -> bool:
        """Whether the entered resolution of the PET is not the one that the case states."""
        pet = self._pet_entry()
        return pet is not None and self.resolution.text().strip() != _text(pet.fwhm_mm)

    def _compute(self, *_: object) -> None:
        changed = self.terms() != _as_entered(_stored_terms(self._controller.workspace.case))
        entered = self.resolution.text().strip()
        self.resolution_source.setText("entered" if entered else "assumed")
        changed = changed or self._other_resolution()
        self.discard.setEnabled(changed)
        case = self._controller.workspace.case
        self.save.setEnabled(case is not None and changed)
        self.accept.setVisible(False)
        if self._pet is None:
            self.formula.setText("")
            self.figures.setText("")
            self.problem.setText("" if self.choice.problem else "PET not loaded yet")
            self.notes.setText("")
            return
        settings = self._controller.workspace.recipe.get("suv")
        document = suv_record_or_problem(self._pet.header, self.terms(), settings)
        self.show_document(document)
        no_record = case is not None and case.file.injection is None
        self.accept.setVisible(no_record and not changed and "factor" in document)

    def show_document(self, document: dict[str, Any]) -> None:
        """Show the terms, the formula or the missing terms, the assumptions and warnings."""
        for term in document["terms"]:
            self._show_term(term)
        problem = document.get("problem", "")
        self.problem.setText(f"⚠ {problem}" if problem else "")
        self.problem.setVisible(bool(problem))
        self.formula.setText(short_formula(document.get("formula", "")))
        self.figures.setText("")
        if "factor" in document and self._pet is not None:
            suv = scaled_statistics(self._pet, document["factor"])
            unit = document["unit"]
            self.figures.setText(
                f"factor {number(document['factor'])} · maximum {number(suv['maximum'], unit)} · "
                f"mean {number(suv['mean'], unit)} of {suv['n_voxels']} voxels"
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
        value = "" if source in ("user", "missing") else _text(term["value"])
        if isinstance(field, QLineEdit):
            field.setPlaceholderText(value)
        else:
            title = {code: text for text, code in _CHOICES[name]}.get(str(term["value"]), "")
            from_file = title and source != "user"
            field.setItemText(0, f"{title} (file)" if from_file else "not specified")

    def asked_for(self, reason: str) -> QWidget:
        """The field that the reason of a blocked step names; that of the slice if none of them."""
        titles = {name: f"give '{item_title(name)}'" for name in self.fields}
        asked = (self.fields[name] for name, title in titles.items() if title in reason)
        return next(asked, self.choice.slice_index)

    # --- saving ---------------------------------------------------------------------------------
    def _save(self) -> None:
        try:
            changes: dict[str, Any] = {"injection": injection_record(self.terms())}
            width = resolution_mm(self.resolution.text())
        except InputError as error:
            self._controller.report(error, "Uptake (PET)")
            return
        pet = self._pet_entry()
        if pet is not None and self._other_resolution():
            changes["pet"] = pet.model_copy(update={"fwhm_mm": width})
        self._controller.update_case(**changes)


def _read(case: Case) -> PetImage | str:
    """The PET, or the message why it cannot be read."""
    try:
        return case.pet()
    except InputError as error:
        return str(error)


def _stored_terms(case: Case | None) -> dict[str, Any]:
    """The terms that the injection record of the case sets."""
    if case is None or case.file.injection is None:
        return {}
    return case.file.injection.model_dump(exclude_unset=True, exclude_none=True)


def _as_entered(terms: dict[str, Any]) -> dict[str, Any]:
    """The same terms as the fields would return them."""
    names = {name for name, _, _ in TERM_ITEMS}
    return {name: _text(value) if name in names else value for name, value in terms.items()}


def _text(value: Any) -> str:
    """A value as the text of its field."""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, float):
        return f"{value:.10g}"
    return "" if value is None else str(value).replace("T", " ") if _dated(value) else str(value)


def _dated(value: Any) -> bool:
    return isinstance(value, str) and len(value) > 15 and value[4:5] == "-" and value[10:11] == "T"


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
        self.series = QLineEdit()
        for edit in (self.slice_index, self.frame_index):
            edit.setPlaceholderText("0, 1, 2 …")
        self.series.setPlaceholderText("1, 2 …")
        self.series.setToolTip("Which PET series of the folder, where there are several")
        for edit in (self.slice_index, self.frame_index, self.series):
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
                    wrapped_label("Series"),
                    self.series,
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
            series = _index(self.series, "series")
        except InputError as error:
            self._controller.report(error, "Uptake (PET)")
            return
        entry = case.file.pet.model_copy(update=changes)
        if series is None:
            self._controller.update_case(pet=entry)
            return

        def then(paths: tuple[str, ...]) -> None:
            self.series.clear()
            self._controller.update_case(pet=entry.model_copy(update={"paths": paths}))

        self._controller.read_for(
            case, "Uptake (PET)", lambda: series_paths(case, entry.paths, series), then
        )


def _index(edit: QLineEdit, name: str) -> int | None:
    text = edit.text().strip()
    if not text:
        return None
    if not text.isdigit():
        raise InputError(f"{name} '{text}' is not a whole number ≥ 0")
    return int(text)
