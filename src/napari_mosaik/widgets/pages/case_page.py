"""The Case page: open, make or generate a case, and give what it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QFileDialog, QFrame, QListWidget, QListWidgetItem, QWidget

from napari_mosaik.core import InputError
from napari_mosaik.core.catalogue import METRICS
from napari_mosaik.io.case import Case, CaseFile, SlideEntry
from napari_mosaik.widgets.base.case_controller import CaseController, missing_sources
from napari_mosaik.widgets.base.controls import Collapsible, button, column, row, wrapped_label
from napari_mosaik.widgets.pages.case_forms import (
    AddFileForm,
    InjectionForm,
    NewCaseForm,
    unknown_size,
)
from napari_mosaik.widgets.pages.pages import Page
from napari_mosaik.widgets.pages.pyramid_builder import PyramidBuilder

__all__ = ["CasePage"]


class CasePage(Page):
    """Open, new, sample; what the open case holds and lacks; the cohort."""

    def __init__(self, controller: CaseController) -> None:
        super().__init__("Case")
        self.controller = controller
        self.levels = PyramidBuilder(controller, self)
        events = controller.workspace.events
        events.case.connect(self._show)
        events.states.connect(self._show)
        events.cohort.connect(self._show_cohort)
        self._show()

    def make_body(self) -> QWidget:
        """The page."""
        body = QFrame()
        body.setFrameShape(QFrame.Shape.StyledPanel)
        self.open_button = button("Open case…", self.choose, "A case folder or a cohort folder")
        self.new = NewCaseForm(self.controller.report)
        self.new.created.connect(self.controller.create)
        self.new_fold = Collapsible("New from slides…", self.new)
        self.sample_button = button(
            "Open sample cohort", self.choose_sample, "Six synthetic cases with known truth"
        )
        self.holds = wrapped_label()
        self.levels_line = wrapped_label()
        self.levels_line.hide()
        self.levels.said.connect(self._say_levels)
        self.give = AddFileForm(self.controller)
        self.injection = InjectionForm(self.controller.report)
        self.injection.saved.connect(lambda record: self.controller.update_case(injection=record))
        self.injection_fold = Collapsible("Injection record", self.injection)
        self.cohort_title = wrapped_label("Cohort", bold=True)
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
                self.levels_line,
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
            self.controller.open(Path(path))

    def choose_sample(self) -> None:
        """Ask where the sample cohort goes, then make it or, if it is there, open it."""
        path = QFileDialog.getExistingDirectory(self, "A folder for the sample cohort")
        if path:
            self.controller.sample(Path(path) / "mosaik-sample")

    def open_new(self) -> None:
        """Show the form of a new case."""
        self.set_open(True)
        self.new_fold.set_open(True)

    def open_missing(self) -> None:
        """Show where what is missing can be given."""
        self.set_open(True)
        case = self.controller.workspace.case
        if case is not None and case.file.injection is None:
            self.injection_fold.set_open(True)

    def _switch(self, item: QListWidgetItem) -> None:
        path = item.data(256)
        case = self.controller.workspace.case
        if case is None or Path(path) != case.root:
            self.controller.switch(Path(path))

    # --- showing --------------------------------------------------------------------------------
    def _show(self, *_: Any) -> None:
        case = self.controller.workspace.case
        if case is None:
            self.head.show_state("missing", "no case is open")
            self.head.word.setText("")
        else:
            missing = [short for short, _, why in missing_sources(case) if why]
            line = f"missing: {', '.join(missing)}" if missing else "everything is given"
            self.head.show_state("blocked" if missing else "done", line)
            self.head.word.setText("incomplete" if missing else "complete")
        if self.body is not None:
            self._show_body(case)

    def _show_body(self, case: Case | None) -> None:
        self.holds.setText("" if case is None else "\n".join(_holdings(case)))
        self.holds.setVisible(case is not None)
        self.give.show_case(case)
        self.injection_fold.setVisible(case is not None)
        if case is not None:
            self.injection.show_record(case.file.injection)

    def _say_levels(self, text: str) -> None:
        self.levels_line.setText(text)
        self.levels_line.setVisible(bool(text))

    def _show_cohort(self, *_: Any) -> None:
        if self.body is None:
            return
        paths = self.controller.workspace.cohort
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
    reviewed = (path / "artifacts" / METRICS.name / "origin.json").is_file()
    started = (path / "artifacts").is_dir()
    state = "reviewed" if reviewed else "begun" if started else "not run"
    return f"{file.name} · {file.patient} · {state}"


_GIVEN = {
    "header": "from its file",
    "user": "typed",
    "profile": "from the scanner profile",
    "ruler": "measured with the ruler",
}


def _holdings(case: Case) -> list[str]:
    lines = []
    for short, key, why in missing_sources(case):
        why = why or unknown_size(case, key)
        if why:
            lines.append(f"⊘ {short}: {why}")
        elif key in case.file.slides:
            entry = case.file.slides[key]  # type: ignore[index]
            lines.append(f"✓ {short}: {Path(entry.path).name}{_size_words(entry)}")
        else:
            lines.append(f"✓ {short}")
    return lines


def _size_words(entry: SlideEntry) -> str:
    """Pixel size and who gave it; empty where the file says it when it is opened."""
    if entry.spacing_um is None:
        return ""
    size = " x ".join(f"{s:.4g}" for s in dict.fromkeys(entry.spacing_um))
    name = f" '{entry.profile}'" if entry.spacing_source == "profile" and entry.profile else ""
    return f" · {size} µm per pixel, {_GIVEN[entry.spacing_source]}{name}"
