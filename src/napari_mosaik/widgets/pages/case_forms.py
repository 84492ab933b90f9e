"""Forms of the Case page: new case, injection record, missing files and pixel sizes."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from qtpy.QtCore import QSignalBlocker, QUrl, Signal
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QFrame,
    QInputDialog,
    QLineEdit,
    QPushButton,
    QStyle,
    QWidget,
)

from napari_mosaik.core import InjectionRecord, InputError, MissingPixelSize, MosaikError
from napari_mosaik.core.catalogue import STAIN_TITLES
from napari_mosaik.core.pet_records import record_unit
from napari_mosaik.core.spacing import SpacingSource, typed_spacing
from napari_mosaik.core.text import typed_number
from napari_mosaik.io.case import Case
from napari_mosaik.io.case_file import CaseFile, PetEntry, SlideEntry
from napari_mosaik.io.profiles import profile_named, profiles_file, read_profiles
from napari_mosaik.widgets.base.case_controller import missing_sources
from napari_mosaik.widgets.base.controls import (
    Collapsible,
    button,
    column,
    row,
    show_field,
    wrapped_label,
)
from napari_mosaik.workflow.suv import (
    field_problem,
    injection_record,
    is_pet_file,
    item_title,
)

if TYPE_CHECKING:
    from napari_mosaik.widgets.base.case_controller import CaseController

__all__ = [
    "RULER_HINT",
    "AddFileForm",
    "FileField",
    "InjectionForm",
    "NewCaseForm",
    "PixelSizeField",
    "has_profiles",
]


def slide_filter() -> str:
    """Filter of the file dialogs for slides; it names the suffixes of all slide formats."""
    from napari_mosaik.io.slide import dialog_filter

    return dialog_filter()


def _all_files() -> str:
    return "All files (*)"


class FileField(QWidget):
    """A path, typed, dropped or chosen in a dialogue; *about* explains it."""

    changed = Signal()

    def __init__(
        self,
        caption: str,
        pattern: Callable[[], str] = _all_files,
        *,
        takes: str = "file or folder",
        about: str = "",
    ) -> None:
        super().__init__()
        self._caption, self._pattern = caption, pattern
        self.edit = QLineEdit()
        self.edit.setPlaceholderText(takes)
        self.edit.setToolTip(about)
        self.edit.textChanged.connect(self.changed)
        buttons: list[QWidget] = []
        if "file" in takes:
            buttons.append(button("…", self._choose, f"{caption}: choose a file"))
        if "folder" in takes:
            buttons.append(button("", self._choose_folder, f"{caption}: choose a folder"))
            style = self.style()
            assert style is not None
            icon = style.standardIcon(QStyle.StandardPixmap.SP_DirIcon)
            cast("QPushButton", buttons[-1]).setIcon(icon)
        for one in buttons:
            one.setFixedWidth(28)
        self.setLayout(row(self.edit, *buttons, spacing=2))

    def text(self) -> str:
        """The path as entered; a file that was dropped from another window has an address."""
        text = self.edit.text().strip()
        return QUrl(text).toLocalFile() if text.startswith("file:") else text

    def _choose(self) -> None:
        self._take(QFileDialog.getOpenFileName(self, self._caption, "", self._pattern())[0])

    def _choose_folder(self) -> None:
        self._take(QFileDialog.getExistingDirectory(self, self._caption))

    def _take(self, path: str) -> None:
        if path:
            self.edit.setText(path)


def number_of(text: str, label: str) -> float | None:
    """The number in *text* (a decimal comma is accepted); None if empty."""
    if not text.strip():
        return None
    try:
        return typed_number(text)
    except InputError as error:
        raise InputError(f"{label}: {error}") from None


class NewCaseForm(QFrame):
    """Form for the files of a new case."""

    created = Signal(object, object)

    def __init__(self, refuse: Callable[[Exception], None]) -> None:
        super().__init__()
        self._refuse = refuse
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.folder = FileField(
            "Folder for the new case",
            takes="folder",
            about="An empty folder for the results; slides and PET stay where they are",
        )
        self.patient = QLineEdit()
        self.patient.setPlaceholderText("pseudonym, never the name")
        self.patient.setToolTip(
            "The same for all cases of a patient, which then never train and test one another"
        )
        self.slides = {
            s: FileField(f"{STAIN_TITLES[s]} slide", slide_filter, about=_SLIDE_ABOUT[s])
            for s in STAIN_TITLES
        }
        self.pixels = {s: PixelSizeField() for s in STAIN_TITLES}
        self.pet = FileField("microPET image", about=_PET_ABOUT)
        form = QFormLayout()
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        form.addRow("Folder", self.folder)
        form.addRow("Patient", self.patient)
        for stain, title in STAIN_TITLES.items():
            form.addRow(title.replace("&", "&&"), self.slides[stain])
            form.addRow("  Pixel size", self.pixels[stain])
        form.addRow("PET", self.pet)
        self.create_button = button("Create case", self._create)
        self.setLayout(
            column(
                wrapped_label("New case from slides", bold=True),
                wrapped_label(_NEW_ABOUT, small=True),
                form,
                self.create_button,
                margin=6,
            )
        )

    def take_file(self, path: Path) -> None:
        """Put a dropped file into its field: by the stain in its name, else the first free one."""
        if is_pet_file(path):
            self.pet.edit.setText(str(path))
            return
        words = re.sub(r"[^a-z0-9]", "", path.name.lower())
        named = next((stain for stain in ("caix", "cd34", "he") if stain in words), "")
        free = [stain for stain, field in self.slides.items() if not field.text()]
        stain = named if named in free else next(iter(free), "he")
        self.slides[stain].edit.setText(str(path))

    def ask(self) -> None:
        """Go to the first field."""
        show_field(self.folder.edit)

    def _create(self) -> None:
        try:
            root, file = self.value()
        except InputError as error:
            self._refuse(error)
            return
        self.created.emit(root, file)

    def value(self) -> tuple[Path, CaseFile]:
        """The folder and the content of its ``case.toml``."""
        if not self.folder.text():
            raise InputError("choose a folder for the new case")
        root = Path(self.folder.text()).expanduser()
        slides = {s: field.text() for s, field in self.slides.items() if field.text()}
        if not slides:
            raise InputError("choose at least one slide")
        entries = {s: slide_entry(path, self.pixels[s]) for s, path in slides.items()}
        pet = self.pet.text() and PetEntry(paths=(existing(self.pet.text(), "PET file"),))
        patient = self.patient.text().strip() or "unknown patient"
        return root, CaseFile(name=root.name, patient=patient, slides=entries, pet=pet or None)


_NEW_ABOUT = (
    "One slide is enough; leave the other fields empty. A pixel size is needed only for a slide "
    "whose file states none: it can also be measured on the slide later."
)
_SLIDE_ABOUT = {
    "he": "Tissue classes and nuclei are taken from H&E; a file, or the folder of an OME-Zarr or "
    "DICOM slide",
    "cd34": "Vessels are taken from CD34; all sections and the PET are registered to it",
    "caix": "The membrane score is taken from CAIX",
}
_PET_ABOUT = "DICOM, NIfTI or Inveon: a file, or the folder of a DICOM series"


def existing(path: str, what: str) -> str:
    """The absolute path of a file that was typed or chosen; a link stays a link."""
    found = Path(path).expanduser().absolute()
    if not found.exists():
        raise InputError(f"the {what} {path} does not exist")
    return str(found)


def slide_entry(path: str, size: PixelSizeField) -> SlideEntry:
    """A slide, with its pixel size if one was entered; the page of a stack is asked for."""
    from napari_mosaik.io.slide import page_count

    entry, entered = SlideEntry(path=existing(path, "slide")), size.value()
    if n := page_count(entry.path):
        name = Path(path).name
        page, chosen = QInputDialog.getInt(
            size, "Page", f"{name} holds {n} pages. Which one is the slide?", 1, 1, n
        )
        if not chosen:
            raise InputError(f"{name} holds {n} pages; choose the one that is the slide")
        entry = entry.model_copy(update={"page": page})
    return entry if entered is None else entry.spaced(*entered)


class InjectionForm(QFrame):
    """Form for the injection record: activity, times and subject."""

    saved = Signal(object)

    _FIELDS = (
        "nuclide", "dose_mbq", "residual_mbq", "injected", "excised", "weight_kg", "height_cm",
        "antibody_mass_mg",
    )  # fmt: skip
    _TIMES = ("injected", "excised")
    _NEEDED = ("dose_mbq", "injected", "weight_kg")

    def __init__(self, refuse: Callable[[Exception], None]) -> None:
        super().__init__()
        self._refuse = refuse
        self._record = InjectionRecord()
        self.fields: dict[str, QLineEdit] = {}
        form = QFormLayout()
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        for name in self._FIELDS:
            edit = self.fields[name] = QLineEdit()
            unit = "YYYY-MM-DD HH:MM" if name in self._TIMES else record_unit(name)
            edit.setPlaceholderText(unit)
            edit.setToolTip(InjectionRecord.model_fields[name].description or "")
            edit.editingFinished.connect(self._field_left)
            label = item_title(name)
            form.addRow(f"{label}, {unit}" if record_unit(name) else label, edit)
        self.sex = QComboBox()
        self.sex.setToolTip(InjectionRecord.model_fields["sex"].description or "")
        choices = (("not specified", None), ("male", "M"), ("female", "F"), ("other", "O"))
        for text, value in choices:
            self.sex.addItem(text, value)
        form.addRow("Sex", self.sex)
        self.problem = wrapped_label(bold=True)
        self.save = button("Save injection record", self._save)
        about = wrapped_label("Leave fields empty that the PET file states.", small=True)
        self.setLayout(column(about, form, self.problem, self.save, margin=6))
        self._field_left()

    def _field_left(self) -> None:
        """Say at once what is wrong or implausible, of all fields."""
        nuclide = self.fields["nuclide"].text().strip() or "Zr-89"
        problems = (field_problem(name, edit.text(), nuclide) for name, edit in self.fields.items())
        text = "\n".join(f"⚠ {problem}" for problem in problems if problem)
        self.problem.setText(text)
        self.problem.setVisible(bool(text))

    def ask(self) -> None:
        """Go to the first field that is needed and empty."""
        empty = [name for name in self._NEEDED if not self.fields[name].text().strip()]
        show_field(self.fields[[*empty, *self._FIELDS][0]])

    def show_record(self, record: InjectionRecord | None) -> None:
        """Show a record; fields that it does not set stay empty."""
        self._record = record or InjectionRecord()
        for name, edit in self.fields.items():
            value = getattr(self._record, name)
            entered = name in self._record.model_fields_set  # do not show a default as if entered
            edit.setText(_text(value) if entered else "")
        self.sex.setCurrentIndex(max(0, self.sex.findData(self._record.sex)))
        self._field_left()

    def value(self) -> InjectionRecord:
        """The record as entered; empty fields are taken from the PET file if it has them.

        Raises `InputError` naming a value that cannot be used.
        """
        values: dict[str, Any] = self._record.model_dump(exclude_unset=True)
        for name, edit in self.fields.items():
            text = edit.text().strip()
            values[name] = number_of(text, item_title(name)) if record_unit(name) else text or None
        values["sex"] = self.sex.currentData()
        record = injection_record(values)
        if record.injected and record.excised and record.excised < record.injected:
            raise InputError("the time of excision is before the time of injection; check both")
        return record

    def _save(self) -> None:
        try:
            record = self.value()
        except InputError as error:
            self._refuse(error)
            return
        self.saved.emit(record)


def _text(value: Any) -> str:
    """A value of the record as the text of its field."""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="minutes")
    if isinstance(value, float):
        return f"{value:.10g}"
    return "" if value is None else str(value)


def unknown_size(case: Case, stain: str) -> str:
    """Message if the pixel size is unknown; empty if it is known or the file is unreadable."""
    entry = case.file.slide(stain)
    if entry is None or entry.spacing_um is not None:
        return ""
    try:
        case.spacing_um(stain)
    except MissingPixelSize:
        return "pixel size unknown"
    except MosaikError:
        return ""  # the page and the steps report what is wrong with the file
    return ""


class AddFileForm(QWidget):
    """Adds a missing file or pixel size to a case."""

    def __init__(self, controller: CaseController) -> None:
        super().__init__()
        self._controller = controller
        self._lacked: list[str] = []
        self.source = QComboBox()
        self.source.setToolTip("Slide or PET to add or replace")
        for stain, title in STAIN_TITLES.items():
            self.source.addItem(f"{title} slide", stain)
        self.source.addItem("PET file", "pet")
        self.file = FileField("Slide or PET", about=_PET_ABOUT)
        self.pixel = PixelSizeField()
        self.ruler = wrapped_label(RULER_HINT)
        self.source.currentIndexChanged.connect(self._show_size)
        add = button("Add to case", self._add)
        inner = QFrame()
        inner.setLayout(column(self.source, self.file, self.pixel, self.ruler, add))
        self.fold = Collapsible("Add or replace file or pixel size", inner)
        self.setLayout(column(self.fold))

    def take_file(self, path: Path) -> None:
        """Put a dropped file into the form; the reader chooses for what, and adds it."""
        if is_pet_file(path):
            self.source.setCurrentIndex(self.source.findData("pet"))
        self.file.edit.setText(str(path))
        self.fold.set_open(True)

    def show_case(self, case: Case | None) -> None:
        """Show the form if a case is open; expand it if a file or pixel size is missing."""
        self.setVisible(case is not None)
        if case is None:
            return
        lacking = [
            key
            for _, key, missing in missing_sources(case)
            if key != "injection" and (missing or unknown_size(case, key))
        ]
        if lacking and lacking != self._lacked:  # else the user may be filling it in
            self._choose(lacking[0])
        self._lacked = lacking

    def _choose(self, key: str) -> None:
        self.source.setCurrentIndex(self.source.findData(key))
        self.fold.set_open(True)

    def ask(self, key: str, *, profile: bool = False) -> None:
        """Go to the field for a file that is missing, or for the pixel size of one that is there.

        With *profile*, to the scanner profiles.
        """
        self._choose(key)
        case = self._controller.workspace.case
        if case is None or key == "pet" or case.file.slide(key) is None:
            show_field(self.file.edit)
        else:
            show_field(self.pixel.profile if profile else self.pixel.edit)

    def _show_size(self) -> None:
        slide = self.source.currentData() != "pet"
        self.pixel.setVisible(slide)
        self.ruler.setVisible(slide)

    def _add(self) -> None:
        case = self._controller.workspace.case
        if case is None:
            return
        key = self.source.currentData()
        try:
            changes = self._changes(case, key)
        except InputError as error:
            self._controller.report(error, "Case")
            return
        for edit in (self.file.edit, self.pixel.edit):
            edit.clear()  # it belongs to what was added, not to what is added next
        self._controller.update_case(**changes)

    def _changes(self, case: Case, key: str) -> dict[str, Any]:
        path = self.file.text()
        if key == "pet":
            if not path:
                raise InputError("choose an existing PET file")
            width = None if case.file.pet is None else case.file.pet.fwhm_mm
            return {"pet": PetEntry(paths=(existing(path, "PET file"),), fwhm_mm=width)}
        known = case.file.slide(key)
        if not path and known is not None:
            entered = self.pixel.value()
            if entered is None:
                raise InputError("enter a pixel size or choose a slide file")
            entry = known.spaced(*entered)
        elif path:
            entry = slide_entry(path, self.pixel)
        else:
            raise InputError("choose a slide file")
        return {"slides": {**case.file.slides, key: entry}}


RULER_HINT = "Or measure a known length on the slide: 'Pixel size calibration' on the tab 'View'."
_TYPED = "manual"
_PROFILE_WIDTH = 150


def has_profiles() -> bool:
    """Whether scanner profiles are known; False if their file is damaged."""
    with suppress(InputError):
        return bool(read_profiles())
    return False


class PixelSizeField(QWidget):
    """A pixel size in µm, or the name of a scanner profile whose size is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.edit = QLineEdit()
        self.edit.setPlaceholderText("µm/px")
        self.edit.setToolTip(
            "Pixel size in µm, if the file does not state it; row x column if they differ: "
            "0.25x0.26"
        )
        self.profile = QComboBox()
        self.profile.setMaximumWidth(_PROFILE_WIDTH)
        self.profile.setToolTip(
            "Scanner profiles; add one with 'napari-mosaik profiles --add "
            f"NAME --spacing UM' or in {profiles_file()}"
        )
        self.profile.currentIndexChanged.connect(self._chosen)
        self.setLayout(row(self.edit, self.profile, spacing=4))
        self.show_profiles()

    def showEvent(self, event: QShowEvent) -> None:
        """Reload the profiles, which may have changed meanwhile."""
        self.show_profiles()
        super().showEvent(event)

    def show_profiles(self) -> None:
        """List the current profiles; none, and the error as tooltip, if their file is damaged."""
        try:
            names = list(read_profiles())
        except InputError as error:
            names = []
            self.profile.setToolTip(str(error))
        chosen = self.profile.currentText()
        with QSignalBlocker(self.profile):
            self.profile.clear()
            self.profile.addItems([_TYPED, *names])
            self.profile.setCurrentText(chosen if chosen in names else _TYPED)
        self.profile.setVisible(bool(names))
        self._chosen()

    def value(self) -> tuple[tuple[float, float], SpacingSource, str] | None:
        """Pixel size (row, column) in µm, its source, and the profile's name; None if empty."""
        name = self.profile.currentText()
        if self.profile.currentIndex() > 0:
            return profile_named(name).spacing_um, "profile", name
        text = self.edit.text().strip()
        return (typed_spacing(text), "user", "") if text else None

    def _chosen(self) -> None:
        typed = self.profile.currentIndex() <= 0
        self.edit.setEnabled(typed)
        if not typed:
            size = profile_named(self.profile.currentText()).spacing_um
            self.edit.setText(" x ".join(f"{s:g}" for s in dict.fromkeys(size)))
