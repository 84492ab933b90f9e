"""The Case page: open, create or generate a case and complete its files."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QFrame,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QWidget,
)

from napari_mosaik.core.catalogue import STAIN_TITLES
from napari_mosaik.core.text import natural_key
from napari_mosaik.core.thread_priority import COMPUTING, step_back
from napari_mosaik.io.case import Case, build_missing_levels
from napari_mosaik.io.case_file import SlideEntry
from napari_mosaik.widgets.base.case_controller import CaseController, missing_sources
from napari_mosaik.widgets.base.controls import (
    Collapsible,
    button,
    clear,
    column,
    row,
    wrapped_label,
)
from napari_mosaik.widgets.pages.case_forms import (
    AddFileForm,
    InjectionForm,
    NewCaseForm,
    has_profiles,
    unknown_size,
)
from napari_mosaik.widgets.pages.pages import Page
from napari_mosaik.workflow.case_status import cohort_line
from napari_mosaik.workflow.relink import file_title, lost_files

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case
    from napari_mosaik.widgets.base.case_controller import CaseController

__all__ = ["CasePage", "LostFiles", "PixelSizeRows", "PyramidBuilder"]


class CasePage(Page):
    """Opens and creates cases; lists the files of the open case and the cases of the cohort.

    ``measure`` asks for the pixel size of a slide to be measured on the canvas.
    """

    measure = Signal(str)

    def __init__(self, controller: CaseController) -> None:
        super().__init__("Case")
        self.controller = controller
        self._shown: tuple[object, object] = (None, None)
        self.levels = PyramidBuilder(controller, self)
        events = controller.workspace.events
        events.case.connect(self._show)
        events.states.connect(self._show)
        events.doubts.connect(self._show)
        events.cohort.connect(self._show_cohort)
        self._show()

    def make_body(self) -> QWidget:
        """The widgets of the page."""
        body = QFrame()
        body.setFrameShape(QFrame.Shape.StyledPanel)
        self.open_button = button(
            "Open case…", self.choose, "Open a case folder or a cohort folder"
        )
        self.new = NewCaseForm(self.controller.report)
        self.new.created.connect(self.controller.create)
        self.new_fold = Collapsible("New from slides…", self.new)
        self.sample_button = button(
            "Open sample cohort…", self.choose_sample, "Six synthetic cases with known ground truth"
        )
        self.contents = wrapped_label()
        self.lost = LostFiles(self.controller)
        self.unsized = PixelSizeRows()
        self.unsized.asked.connect(self._give_pixel_size)
        self.levels_line = wrapped_label()
        self.levels_line.hide()
        self.levels.message_changed.connect(self._show_levels)
        self.add_form = AddFileForm(self.controller)
        self.injection = InjectionForm(self.controller.report)
        self.injection.saved.connect(lambda record: self.controller.update_case(injection=record))
        self.injection_fold = Collapsible("Injection record", self.injection)
        self.cohort_title = wrapped_label("Cohort", bold=True)
        self.cohort = QListWidget()
        self.cohort.itemActivated.connect(self._switch)
        self.cohort.itemClicked.connect(self._switch)
        body.setLayout(
            column(
                row(self.open_button, self.sample_button),
                self.new_fold,
                self.cohort_title,
                self.cohort,
                self.contents,
                self.lost,
                self.unsized,
                self.levels_line,
                self.add_form,
                self.injection_fold,
                margin=8,
            )
        )
        return body

    def fill(self) -> None:
        """Show the current state."""
        self._show()
        self._show_cohort()

    # --- actions --------------------------------------------------------------------------------
    def choose(self) -> None:
        """Choose a case or cohort folder and open it."""
        path = QFileDialog.getExistingDirectory(self, "Open a case or cohort folder")
        if path:
            self.controller.open(Path(path))

    def choose_sample(self) -> None:
        """Choose a folder, then generate the sample cohort there or open an existing one."""
        path = QFileDialog.getExistingDirectory(self, "Folder for the sample cohort")
        if path:
            self.controller.sample(Path(path) / "mosaik-sample")

    def open_new(self) -> None:
        """Show the form for a new case."""
        self.set_open(True)
        self.new_fold.set_open(True)
        self.new.ask()

    def take_files(self, paths: Sequence[Path]) -> None:
        """Take dropped files: a case or cohort folder, or slides and a PET for a case."""
        folder = paths[0].parent if paths[0].name == "case.toml" else paths[0]
        if (folder / "case.toml").is_file() or any(folder.glob("*/case.toml")):
            self.controller.open(folder)
            return
        self.set_open(True)
        if self.controller.workspace.case is not None:
            self.add_form.take_file(paths[0])
            return
        self.new_fold.set_open(True)
        for path in paths:
            self.new.take_file(path)

    def open_missing(self, keys: Collection[str]) -> bool:
        """Go to the field of the first of *keys* that is missing; False if none of them is."""
        case = self.controller.workspace.case
        if case is None:
            return False
        lacking = [key for _, key, reason in missing_sources(case) if reason]
        lacking += [key for key in case.file.slides if unknown_size(case, key)]
        wanted = [key for key in lacking if key in keys]
        if not wanted:
            return False
        self.set_open(True)
        if wanted[0] == "injection":
            self.injection_fold.set_open(True)
            self.injection.ask()
        else:
            self.add_form.ask(wanted[0])
        return True

    def _give_pixel_size(self, stain: str, way: str) -> None:
        if way == MEASURE:
            self.measure.emit(stain)
        else:
            self.add_form.ask(stain, profile=way == PROFILE)

    def _switch(self, item: QListWidgetItem) -> None:
        path = item.data(256)
        case = self.controller.workspace.case
        if case is None or Path(path) != case.root:
            self.controller.switch(Path(path))

    # --- showing --------------------------------------------------------------------------------
    def _show(self, *_: object) -> None:
        case = self.controller.workspace.case
        if case is None:
            self.head.show_state("missing", "no case open")
            self.head.word.setText("")
        else:
            missing = [title for title, _, reason in missing_sources(case) if reason]
            doubts = list(self.controller.workspace.doubts.values())
            line = f"missing: {', '.join(missing)}" if missing else "all files present"
            word = "blocked" if missing else "doubtful" if doubts else "done"
            self.head.show_state(word, " · ".join([line, *doubts[:1]]))
            self.head.word.setText("incomplete" if missing else "check" if doubts else "complete")
        if self.body is not None:
            self._show_body(case)

    def _show_body(self, case: Case | None) -> None:
        doubts = self.controller.workspace.doubts
        self.contents.setText("" if case is None else "\n".join(_content_lines(case, doubts)))
        self.lost.show_case(case)
        self.unsized.show_case(case)
        self.contents.setVisible(case is not None)
        self.add_form.show_case(case)
        self.injection_fold.setVisible(case is not None)
        if case is not None and self._shown != (case.root, case.file.injection):
            self._shown = (case.root, case.file.injection)  # else it may be half filled in
            self.injection.show_record(case.file.injection)
            lacks_record = case.file.injection is None and case.file.pet is not None
            self.injection_fold.set_open(lacks_record)

    def _show_levels(self, text: str) -> None:
        self.levels_line.setText(text)
        self.levels_line.setVisible(bool(text))

    def _show_cohort(self, *_: object) -> None:
        if self.body is None:
            return
        paths = self.controller.workspace.cohort
        lines = {path: cohort_line(path) for path in paths}
        self.cohort.clear()
        self.cohort.setMaximumHeight(min(_LIST_PX, 8 + _ROW_PX * len(paths)))
        self.cohort.setVisible(bool(paths))
        self.cohort_title.setVisible(bool(paths))
        for path in sorted(paths, key=lambda path: natural_key(lines[path])):
            item = QListWidgetItem(lines[path])
            item.setData(256, str(path))
            self.cohort.addItem(item)


class LostFiles(QWidget):
    """A row with *Locate* for each slide and PET that is not where it was."""

    def __init__(self, controller: CaseController) -> None:
        super().__init__()
        self._controller = controller
        self.buttons: dict[str, QPushButton] = {}
        self._rows = column(spacing=2)
        self.setLayout(self._rows)

    def show_case(self, case: Case | None) -> None:
        """Show the rows of a case."""
        while (item := self._rows.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.deleteLater()
        self.buttons.clear()
        for key, path in ({} if case is None else lost_files(case)).items():
            title = file_title(key)
            find = button(
                "Locate…", partial(self._find, key), "Choose the file at its new location"
            )
            line = QWidget()
            line.setLayout(row(wrapped_label(f"⊘ {title} is not at {path}"), find))
            self._rows.addWidget(line)
            self.buttons[key] = find
        self.setVisible(bool(self.buttons))

    def _find(self, key: str) -> None:
        title = file_title(key)
        path = QFileDialog.getOpenFileName(self, f"Locate the {title}")[0]
        if path:
            self._controller.relink(key, Path(path))


TYPE, PROFILE, MEASURE = "Enter it", "Scanner profile", "Measure on the slide"


class PixelSizeRows(QWidget):
    """For each slide without a pixel size the three ways to give it.

    ``asked`` carries the stain and one of `TYPE`, `PROFILE`, `MEASURE`.
    """

    asked = Signal(str, str)

    def __init__(self) -> None:
        super().__init__()
        self.buttons: dict[tuple[str, str], QPushButton] = {}
        self._rows = column(spacing=2)
        self.setLayout(self._rows)

    def show_case(self, case: Case | None) -> None:
        """Show the rows of a case."""
        clear(self._rows)
        self.buttons.clear()
        if case is not None:
            for stain in case.file.slides:
                if unknown_size(case, stain):
                    self._add(stain)
        self.setVisible(bool(self.buttons))

    def _add(self, stain: str) -> None:
        self._rows.addWidget(wrapped_label(f"Pixel size of {STAIN_TITLES[stain]}:"))
        for way, tip in _WAYS.items():
            self.buttons[stain, way] = button(way, partial(self.asked.emit, stain, way), tip)
        self._rows.addLayout(row(*(self.buttons[stain, way] for way in _WAYS), 1))
        self.buttons[stain, PROFILE].setHidden(not has_profiles())


_WAYS = {
    TYPE: "Enter the µm per pixel that the scanner states",
    PROFILE: "Choose the scanner and objective",
    MEASURE: "Draw a line over a known length, such as a printed scale bar",
}
_LIST_PX, _ROW_PX = 150, 18
_SPACING_SOURCES = {
    "header": "from the file",
    "user": "entered manually",
    "profile": "from the scanner profile",
    "ruler": "measured with the ruler",
}


def _content_lines(case: Case, doubts: Mapping[str, str]) -> list[str]:
    lines, lost = [], lost_files(case)
    for title, key, missing in missing_sources(case):
        if key in lost:
            continue  # it has a row with a button
        if missing:
            lines.append(f"⊘ {title}: {missing}")
        elif key in doubts:
            lines.append(f"⚠ {doubts[key]}")
        elif key in case.file.slides:
            entry = case.file.slides[key]
            lines.append(f"✓ {title}: {Path(entry.path).name}{_pixel_size_text(entry)}")
        else:
            lines.append(f"✓ {title}")
    return lines


def _pixel_size_text(entry: SlideEntry) -> str:
    """Pixel size and its source; empty if it comes from the file header."""
    if entry.spacing_um is None:
        return ""
    size = " × ".join(f"{s:.4g}" for s in dict.fromkeys(entry.spacing_um))
    name = f" '{entry.profile}'" if entry.spacing_source == "profile" and entry.profile else ""
    return f" · {size} µm/px, {_SPACING_SOURCES[entry.spacing_source]}{name}"


class PyramidBuilder(QObject):
    """Builds the missing pyramid levels; ``message_changed`` reports progress in one line.

    Displayed slides use the levels as soon as they are stored.  The work pauses while a job runs
    and stops when another case is opened or the window is closed.
    """

    message_changed = Signal(str)

    def __init__(self, controller: CaseController, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._controller = controller
        self._stopped = threading.Event()
        self._may_run = threading.Event()
        self._may_run.set()
        controller.workspace.events.case.connect(self.start)
        self._last = ""
        controller.workspace.events.job.connect(self._pause_for_job)

    def start(self, *_: object) -> None:
        """Start with the open case; work on another one stops."""
        self.stop()
        case = self._controller.workspace.case
        if case is None:
            return
        self._stopped = threading.Event()
        work = partial(self._complete, case, self._stopped)
        self._controller.read("Pyramid levels", work, self._done)

    def stop(self) -> None:
        """Stop at the next tile; unfinished levels are not stored."""
        self._stopped.set()
        self._may_run.set()

    def _pause_for_job(self, *_: object) -> None:
        if self._controller.workspace.job is None:
            self._may_run.set()
        else:
            self._may_run.clear()

    def _complete(self, case: Case, stopped: threading.Event) -> str:
        """Runs in the background; returns the first error message, empty if all went well."""
        step_back(COMPUTING)
        with contextlib.closing(build_missing_levels(case, threads=1)) as work:
            while True:
                self._may_run.wait()
                if stopped.is_set():
                    return ""
                try:
                    stain, progress = next(work)
                except StopIteration as end:
                    return next(iter(end.value), "")
                title = f"{STAIN_TITLES[stain]}: building missing pyramid levels"
                self._report(f"{title}, {100 * progress.fraction:.0f} %")

    def _report(self, text: str) -> None:
        """Emit a changed message only; a signal for every tile would flood the GUI thread."""
        if text == self._last:
            return
        self._last = text
        with contextlib.suppress(RuntimeError):  # the window was closed meanwhile
            self.message_changed.emit(text)

    def _done(self, problem: str) -> None:
        self._last = f"⚠ {problem}" if problem else ""
        self.message_changed.emit(self._last)
