"""The Case page: open, make or generate a case, and give what it lacks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QFrame,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QWidget,
)

from napari_mosaik.core import InjectionRecord, InputError
from napari_mosaik.core.catalogue import STAIN_TITLES
from napari_mosaik.io.case import Case, CaseFile, PetEntry, SlideEntry
from napari_mosaik.widgets.desk import Desk, missing_of
from napari_mosaik.widgets.pages import Page
from napari_mosaik.widgets.parts import Fold, button, column, row, words

__all__ = ["CasePage", "InjectionForm", "NewCaseForm"]

SLIDE_FILTER = "Slides (*.svs *.tif *.tiff *.ndpi *.mrxs *.scn *.bif *.png *.jpg);;All files (*)"


class FileField(QWidget):
    """A path that is typed or chosen."""

    changed = Signal()

    def __init__(
        self, caption: str, pattern: str = "All files (*)", *, folder: bool = False
    ) -> None:
        super().__init__()
        self._caption, self._pattern, self._folder = caption, pattern, folder
        self.edit = QLineEdit()
        self.edit.setPlaceholderText("folder" if folder else "file")
        self.edit.textChanged.connect(self.changed)
        choose = button("…", self._choose, caption)
        choose.setFixedWidth(28)
        layout = row(self.edit, choose, spacing=2)
        self.setLayout(layout)

    def text(self) -> str:
        """The path as given."""
        return self.edit.text().strip()

    def _choose(self) -> None:
        if self._folder:
            path = QFileDialog.getExistingDirectory(self, self._caption)
        else:
            path = QFileDialog.getOpenFileName(self, self._caption, "", self._pattern)[0]
        if path:
            self.edit.setText(path)


def number_of(text: str, what: str) -> float | None:
    """A number as typed (a decimal comma is understood); None when empty."""
    if not text.strip():
        return None
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        raise InputError(f"{what}: '{text}' is not a number") from None


class NewCaseForm(QFrame):
    """Asks for the files of a new case."""

    created = Signal(object, object)

    def __init__(self, refuse: Callable[[Exception], None]) -> None:
        super().__init__()
        self._refuse = refuse
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.folder = FileField("Folder of the new case", folder=True)
        self.patient = QLineEdit()
        self.patient.setPlaceholderText("a pseudonym, never a name")
        self.slides = {s: FileField(f"{STAIN_TITLES[s]} slide", SLIDE_FILTER) for s in STAIN_TITLES}
        self.pixels = {s: QLineEdit() for s in STAIN_TITLES}
        self.pet = FileField("microPET slice (DICOM)")
        form = QFormLayout()
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        form.addRow("Folder", self.folder)
        form.addRow("Patient", self.patient)
        for stain, title in STAIN_TITLES.items():
            form.addRow(title, self.slides[stain])
            self.pixels[stain].setPlaceholderText("µm, only if the file does not say")
            form.addRow("  pixel size", self.pixels[stain])
        form.addRow("PET", self.pet)
        self.make = button("Make the case", self._make)
        self.setLayout(column(words("New case from slides", bold=True), form, self.make, margin=6))

    def _make(self) -> None:
        try:
            root, file = self.value()
        except InputError as error:
            self._refuse(error)
            return
        self.created.emit(root, file)

    def value(self) -> tuple[Path, CaseFile]:
        """The folder and what its ``case.toml`` will hold."""
        if not self.folder.text():
            raise InputError("choose a folder for the new case")
        root = Path(self.folder.text()).expanduser()
        slides = {s: field.text() for s, field in self.slides.items() if field.text()}
        if not slides:
            raise InputError("give at least one slide")
        entries = {s: slide_entry(path, self.pixels[s].text()) for s, path in slides.items()}
        pet = PetEntry(paths=(self.pet.text(),)) if self.pet.text() else None
        patient = self.patient.text().strip() or "unknown patient"
        return root, CaseFile(name=root.name, patient=patient, slides=entries, pet=pet)


def slide_entry(path: str, spacing: str = "") -> SlideEntry:
    """A slide with the pixel size that was typed, if one was."""
    if not Path(path).expanduser().exists():
        raise InputError(f"the slide {path} is not there")
    size = number_of(spacing, "pixel size")
    if size is None:
        return SlideEntry(path=path)
    if size <= 0:
        raise InputError(f"a pixel size of {size:g} µm is not possible")
    return SlideEntry(path=path, spacing_um=(size, size), spacing_source="user")


class InjectionForm(QFrame):
    """The injection record: what was injected into whom and when."""

    saved = Signal(object)

    _FIELDS = (
        ("nuclide", "Nuclide", ""),
        ("dose_mbq", "Injected activity", "MBq"),
        ("residual_mbq", "Left in the syringe", "MBq"),
        ("injected", "Injected", "YYYY-MM-DD HH:MM"),
        ("excised", "Excised", "YYYY-MM-DD HH:MM"),
        ("weight_kg", "Weight", "kg"),
        ("height_cm", "Height", "cm"),
        ("antibody_mass_mg", "Antibody", "mg"),
    )
    _TIMES = ("injected", "excised")

    def __init__(self, refuse: Callable[[Exception], None]) -> None:
        super().__init__()
        self._refuse = refuse
        self._record = InjectionRecord()
        self.fields: dict[str, QLineEdit] = {}
        form = QFormLayout()
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        for name, label, unit in self._FIELDS:
            edit = self.fields[name] = QLineEdit()
            edit.setPlaceholderText(unit)
            edit.setToolTip(InjectionRecord.model_fields[name].description or "")
            shown = label if name in self._TIMES or not unit else f"{label}, {unit}"
            form.addRow(shown, edit)
        self.sex = QComboBox()
        for text, value in (("not given", None), ("male", "M"), ("female", "F")):
            self.sex.addItem(text, value)
        form.addRow("Sex", self.sex)
        self.save = button("Save the injection record", self._save)
        self.setLayout(column(form, self.save, margin=6))

    def show_record(self, record: InjectionRecord | None) -> None:
        """Show a record; empty fields where it says nothing."""
        self._record = record or InjectionRecord()
        for name, edit in self.fields.items():
            value = getattr(self._record, name)
            edit.setText(_text(value))
        self.sex.setCurrentIndex(max(0, self.sex.findData(self._record.sex)))

    def value(self) -> InjectionRecord:
        """The record as typed; what cannot be used is named in an `InputError`."""
        values: dict[str, Any] = self._record.model_dump()
        for name, label, _ in self._FIELDS:
            text = self.fields[name].text().strip()
            if name == "nuclide":
                values[name] = text or "Zr-89"
            elif name in self._TIMES:
                values[name] = _time(text, label)
            else:
                values[name] = number_of(text, label)
        values["residual_mbq"] = values["residual_mbq"] or 0.0
        values["sex"] = self.sex.currentData()
        return _checked(values)

    def _save(self) -> None:
        try:
            record = self.value()
        except InputError as error:
            self._refuse(error)
            return
        self.saved.emit(record)


def _text(value: Any) -> str:
    """A value of the record as it is edited."""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="minutes")
    if isinstance(value, float):
        return f"{value:.10g}"
    return "" if value is None else str(value)


def _time(text: str, what: str) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{what}: '{text}' is not a date and time; write it as 2024-05-17 09:30"
        ) from None


def _checked(values: dict[str, Any]) -> InjectionRecord:
    from pydantic import ValidationError

    try:
        record = InjectionRecord.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", " ")
        raise InputError(f"{name}: {first.get('input')!r} cannot be used: {first['msg']}") from None
    if record.injected and record.excised and record.excised < record.injected:
        raise InputError("the excision lies before the injection; check both dates")
    return record


class CasePage(Page):
    """Open, new, sample; what the open case holds and lacks; the cohort."""

    def __init__(self, desk: Desk) -> None:
        super().__init__("Case")
        self.desk = desk
        events = desk.workspace.events
        events.case.connect(self._show)
        events.states.connect(self._show)
        events.cohort.connect(self._show_cohort)
        self._show()

    def make_body(self) -> QWidget:
        """The page."""
        body = QFrame()
        body.setFrameShape(QFrame.Shape.StyledPanel)
        self.open_button = button("Open case…", self.choose, "A case folder or a cohort folder")
        self.new = NewCaseForm(self.desk.report)
        self.new.created.connect(self.desk.create)
        self.new_fold = Fold("New from slides…", self.new)
        self.sample_button = button(
            "Open sample cohort", self.choose_sample, "Six synthetic cases with known truth"
        )
        self.holds = words()
        self.give = _GiveForm(self.desk)
        self.injection = InjectionForm(self.desk.report)
        self.injection.saved.connect(lambda record: self.desk.update_case(injection=record))
        self.injection_fold = Fold("Injection record", self.injection)
        self.cohort_title = words("Cohort", bold=True)
        self.cohort = QListWidget()
        self.cohort.setMaximumHeight(150)
        self.cohort.itemActivated.connect(self._switch)
        self.cohort.itemClicked.connect(self._switch)
        body.setLayout(
            column(
                row(self.open_button, self.sample_button),
                self.new_fold,
                self.cohort_title,
                self.cohort,
                self.holds,
                self.give,
                self.injection_fold,
                margin=8,
            )
        )
        return body

    def fill(self) -> None:
        """Show the present state."""
        self._show()
        self._show_cohort()

    # --- actions --------------------------------------------------------------------------------
    def choose(self) -> None:
        """Ask for a case or cohort folder and open it."""
        path = QFileDialog.getExistingDirectory(self, "Open a case or a cohort folder")
        if path:
            self.desk.open(Path(path))

    def choose_sample(self) -> None:
        """Ask where the sample cohort goes, then make it or, if it is there, open it."""
        path = QFileDialog.getExistingDirectory(self, "A folder for the sample cohort")
        if path:
            self.desk.sample(Path(path) / "mosaik-sample")

    def open_new(self) -> None:
        """Show the form of a new case."""
        self.set_open(True)
        self.new_fold.set_open(True)

    def open_missing(self) -> None:
        """Show where what is missing can be given."""
        self.set_open(True)
        case = self.desk.workspace.case
        if case is not None and case.file.injection is None:
            self.injection_fold.set_open(True)

    def _switch(self, item: QListWidgetItem) -> None:
        path = item.data(256)
        case = self.desk.workspace.case
        if case is None or Path(path) != case.root:
            self.desk.switch(Path(path))

    # --- showing --------------------------------------------------------------------------------
    def _show(self, *_: Any) -> None:
        case = self.desk.workspace.case
        if case is None:
            self.head.show_state("missing", "no case is open")
            self.head.word.setText("")
        else:
            lacks = [short for short, _, why in missing_of(case) if why]
            line = f"missing: {', '.join(lacks)}" if lacks else "everything is given"
            self.head.show_state("blocked" if lacks else "done", line)
            self.head.word.setText("incomplete" if lacks else "complete")
        if self.body is not None:
            self._show_body(case)

    def _show_body(self, case: Case | None) -> None:
        self.holds.setText("" if case is None else "\n".join(_holdings(case)))
        self.holds.setVisible(case is not None)
        self.give.show_case(case)
        self.injection_fold.setVisible(case is not None)
        if case is not None:
            self.injection.show_record(case.file.injection)

    def _show_cohort(self, *_: Any) -> None:
        if self.body is None:
            return
        paths = self.desk.workspace.cohort
        self.cohort.clear()
        self.cohort.setVisible(bool(paths))
        self.cohort_title.setVisible(bool(paths))
        for path in paths:
            item = QListWidgetItem(_cohort_line(path))
            item.setData(256, str(path))
            self.cohort.addItem(item)


def _cohort_line(path: Path) -> str:
    try:
        file = CaseFile.read(path / "case.toml")
    except InputError:
        return f"{path.name} · cannot be read"
    reviewed = (path / "artifacts" / "metrics" / "origin.json").is_file()
    started = (path / "artifacts").is_dir()
    state = "reviewed" if reviewed else "begun" if started else "not run"
    return f"{file.name} · {file.patient} · {state}"


def _holdings(case: Case) -> list[str]:
    lines = []
    for short, key, why in missing_of(case):
        if why:
            lines.append(f"⊘ {short}: {why}")
        elif key in case.file.slides:
            entry = case.file.slides[key]  # type: ignore[index]
            size = entry.spacing_um
            given = f" · {size[1]:g} µm per pixel, {entry.spacing_source}" if size else ""
            lines.append(f"✓ {short}: {Path(entry.path).name}{given}")
        else:
            lines.append(f"✓ {short}")
    return lines


class _GiveForm(QWidget):
    """Gives a case the file or pixel size that it lacks."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk
        self.what = QComboBox()
        for stain, title in STAIN_TITLES.items():
            self.what.addItem(f"{title} slide", stain)
        self.what.addItem("PET file", "pet")
        self.file = FileField("File")
        self.pixel = QLineEdit()
        self.pixel.setPlaceholderText("µm per pixel, only if the file does not say")
        self.what.currentIndexChanged.connect(
            lambda: self.pixel.setVisible(self.what.currentData() != "pet")
        )
        inner = QFrame()
        inner.setLayout(
            column(self.what, self.file, self.pixel, button("Give it to the case", self._give))
        )
        self.fold = Fold("Add or replace a file, or give a pixel size", inner)
        self.setLayout(column(self.fold))

    def show_case(self, case: Case | None) -> None:
        """Offer it only when a case is open; open it when a file is missing."""
        self.setVisible(case is not None)
        if case is None:
            return
        for _, key, why in missing_of(case):
            if why and key != "injection":
                self.what.setCurrentIndex(self.what.findData(key))
                self.fold.set_open(True)
                return

    def _give(self) -> None:
        case = self._desk.workspace.case
        if case is None:
            return
        key = self.what.currentData()
        try:
            changes = self._changes(case, key)
        except InputError as error:
            self._desk.report(error, "Case")
            return
        self._desk.update_case(**changes)

    def _changes(self, case: Case, key: str) -> dict[str, Any]:
        path = self.file.text()
        if key == "pet":
            if not path or not Path(path).exists():
                raise InputError("choose the PET file first")
            return {"pet": PetEntry(paths=(path,))}
        known = case.file.slides.get(key)  # type: ignore[call-overload]
        if not path and known is not None:
            entry = slide_entry(str(case.path(known.path)), self.pixel.text())
            entry = entry.model_copy(update={"path": known.path})
        elif path:
            entry = slide_entry(path, self.pixel.text())
        else:
            raise InputError("choose the slide's file first")
        return {"slides": {**case.file.slides, key: entry}}
