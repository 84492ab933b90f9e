"""The main dock 'MOSAIK': the open case, its steps and the tools of the canvas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from napari.utils.task_status import Status
from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QDockWidget, QFrame, QTabWidget, QVBoxLayout, QWidget

from napari_mosaik.core.catalogue import DOSE, INJECTION, PREDICTION, SUV, VESSELS
from napari_mosaik.view.formatting import count, duration
from napari_mosaik.view.layers import QUEUE_TITLE
from napari_mosaik.view.presentation import outdated_by
from napari_mosaik.widgets import quicken_imports
from napari_mosaik.widgets.annotate.annotate_dock import AnnotateDock
from napari_mosaik.widgets.annotate.two_readers import TwoReaders
from napari_mosaik.widgets.base.case_controller import CaseController, missing_sources
from napari_mosaik.widgets.base.controls import (
    SETTLED_MS,
    Banner,
    Collapsible,
    DeviceChoice,
    JobBar,
    button,
    calm_wheel,
    column,
    confirmed,
    grey_again,
    scrolled,
    show_field,
    show_from_top,
    wrapped_label,
)
from napari_mosaik.widgets.base.gc_tuning import Turns, WindowFirst, freeze_window
from napari_mosaik.widgets.base.workspace import Workspace
from napari_mosaik.widgets.canvas.active_tool import CanvasTool
from napari_mosaik.widgets.canvas.camera import fit
from napari_mosaik.widgets.canvas.case_layers import CaseLayers
from napari_mosaik.widgets.canvas.legend import Overlays
from napari_mosaik.widgets.canvas.link import CanvasLink
from napari_mosaik.widgets.canvas.live_layers import LivePreview
from napari_mosaik.widgets.canvas.side_by_side import ReviewBoard
from napari_mosaik.widgets.canvas.slide_view import SlideView
from napari_mosaik.widgets.canvas.view_tools import ViewTools
from napari_mosaik.widgets.correct.correct_panel import CorrectPanel
from napari_mosaik.widgets.correct.qa_panel import VisualQaPanel
from napari_mosaik.widgets.help_window import add_help_actions
from napari_mosaik.widgets.pages.case_page import CasePage
from napari_mosaik.widgets.pages.cohort_page import CohortPage
from napari_mosaik.widgets.pages.inspector import ARROWS, TileInspector
from napari_mosaik.widgets.pages.invivo_page import InvivoPage
from napari_mosaik.widgets.pages.models import ModelsPage
from napari_mosaik.widgets.pages.pages import Page, StepPage, make_page, pages_of
from napari_mosaik.widgets.pages.review import QueuePanel, ReportButton, ReviewPanel
from napari_mosaik.widgets.pages.stain_picker import StainPicker
from napari_mosaik.widgets.pages.twin_page import TwinPage
from napari_mosaik.widgets.pages.what_if import WhatIfPanel
from napari_mosaik.workflow.parallel import keep_freed_memory
from napari_mosaik.workflow.predictors import models_for
from napari_mosaik.workflow.step import Step
from napari_mosaik.workflow.steps import STEPS, maker_of, step_named

if TYPE_CHECKING:
    import napari

__all__ = ["MosaikDock", "bring_to_front"]

WIDTH_PX = 360
INSPECTOR_PX = 200
_CALM_MS, _BETWEEN_MS = 2000, 50
"""When the pages are built beforehand, one section after another: a while after the window or a
case was opened."""


class MosaikDock(QWidget):
    """The main dock; it owns the workspace and hands it to every page."""

    def __init__(self, napari_viewer: napari.Viewer, workspace: Workspace | None = None) -> None:
        quicken_imports()
        super().__init__()
        self._closed = False
        self._first = WindowFirst(self)
        keep_freed_memory(False)
        self.viewer = napari_viewer
        self.workspace = workspace or Workspace()
        self.controller = CaseController(self.workspace, self)
        self.board = CaseLayers(napari_viewer, self.controller)
        self.canvas = CanvasLink(napari_viewer, self.board)
        self.inspector: TileInspector | None = None
        self._inspector_dock: QDockWidget | None = None
        self._docked = False
        self._job_status: UUID | None = None
        self.header = _Header(self.controller)
        self.welcome = _Welcome(self)
        self.case_page = CasePage(self.controller)
        self.pages: dict[str, StepPage] = {
            title: make_page(title, steps, self.controller, self.canvas)
            for title, steps in pages_of(STEPS).items()
        }
        self.invivo = InvivoPage(self.controller)
        self.twin = TwinPage(self.controller)
        self.twin.to_values.connect(lambda: self.invivo.set_open(True))
        self.simulated = CohortPage(self.controller)
        self.simulated.to_plans.connect(lambda: self.pages[maker_of(DOSE).page].set_open(True))
        self.preview = LivePreview(self.board)
        self.picker = StainPicker(self.canvas)
        self.pages[maker_of(VESSELS).page].add_tools(self.picker)
        self.banner = Banner()
        self.banner.dismissed.connect(self._dismiss)
        self.bar = JobBar(self.controller, {step.name: step.title for step in STEPS})
        self._turns = Turns(self)
        self._prepare_soon = QTimer(self)
        self._prepare_soon.setSingleShot(True)
        self._prepare_soon.timeout.connect(self._prepare)
        self._build()
        self._connect()
        calm_wheel(self)
        add_help_actions(napari_viewer)
        self.setAcceptDrops(True)
        self._show_case()
        self._prepare_soon.start(_CALM_MS)

    def _build(self) -> None:
        self._list = QWidget()
        layout = QVBoxLayout(self._list)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(1)
        for page in self._all_pages():
            layout.addWidget(page)
            layout.addWidget(_line())
        layout.addStretch(1)
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.page_area = scrolled(self._list)
        self.tabs.addTab(self.page_area, "Steps")
        self.overlays = Overlays(self.board)
        self.tabs.addTab(scrolled(self.overlays), "Overlays")
        self.side_by_side = ReviewBoard(self.canvas)
        self.view_tools = ViewTools(self.canvas)
        self.slide_view = SlideView(self.viewer)
        view = QWidget()
        view.setLayout(column(self.slide_view, _line(), self.view_tools))
        self.view_tab = self.tabs.addTab(scrolled(view), "View")
        self.review = ReviewPanel(self.controller, self.side_by_side)
        self.visual_qa = VisualQaPanel(self.board)
        self.correct = CorrectPanel(self.canvas)
        self.visual_qa.to_correct.connect(self.correct.correct_these)
        review = QWidget()
        self.correct_fold = Collapsible("Manual correction", self.correct)
        checked = Collapsible("Visual QA", self.visual_qa)
        self.queue = QueuePanel(self.canvas)
        self.queue.wanted.connect(self._show_queued)
        self.queue.to_edit.connect(self._edit_queued)
        self.queue_fold = Collapsible(QUEUE_TITLE, self.queue)
        self.annotate = AnnotateDock(self.controller, self.canvas)
        self.two_readers = TwoReaders(self.board, self.annotate.annotation)
        self.readers_fold = Collapsible("Two readers", self.two_readers)
        self.readers_fold.setVisible(False)
        self.two_readers.several.connect(self.readers_fold.setVisible)
        self.what_if = WhatIfPanel(self.canvas)
        self.what_if_fold = Collapsible("What if", self.what_if)
        folds = (self.queue_fold, checked, self.correct_fold, self.readers_fold, self.what_if_fold)
        review.setLayout(column(*folds, self.review))
        self.review_tab = self.tabs.addTab(scrolled(review), "Review")
        self.annotate.annotation.saved.connect(self.board.show_by_hand)
        self.what_if.to_correct.connect(self.annotate.annotation.add)
        self.annotate_tab = self.tabs.addTab(scrolled(self.annotate), "Annotate")
        self.models = ModelsPage(self.controller, self.canvas)
        self.models_tab = self.tabs.addTab(scrolled(self.models), "Models")
        self.setLayout(
            column(self.header, self.welcome, self.banner, self.tabs, self.bar, margin=4)
        )
        self.setMinimumWidth(280)
        self.setMinimumHeight(200)

    def _all_pages(self) -> list[Page]:
        pages: list[Page] = [self.case_page, *self.pages.values()]
        measured = self.pages[maker_of(SUV).page]
        pages.insert(pages.index(measured) + 1, self.invivo)
        pages.insert(pages.index(self.pages[maker_of(DOSE).page]) + 1, self.twin)
        pages.insert(pages.index(self.twin) + 1, self.simulated)
        return pages

    def _connect(self) -> None:
        events = self.workspace.events
        for signal in (events.recipe, events.states, events.results, events.running, events.job):
            signal.connect(self._show_states)
        events.case.connect(self._show_case)
        events.doubts.connect(lambda *_: self.header.show_case())
        events.problem.connect(lambda problem: self.banner.show_problem(problem))
        events.job.connect(self._watch_job)
        events.tile.connect(self._tile_chosen)
        for page in self._all_pages():
            page.opened.connect(self._only)
        for page in self.pages.values():
            page.changed.connect(self.controller.set_params)
            page.run.connect(self.controller.run_steps)
            page.cancel.connect(self.controller.cancel)
            page.show_layers.connect(self.board.show_steps)
            page.needs_case.connect(self._give_missing)
            page.preview.connect(self._preview)
            page.confirm_reset = self._confirm_reset
            page.models = self._models
        self._opened: Page | None = None
        self._show_soon = QTimer(self)
        self._show_soon.setSingleShot(True)
        self._show_soon.timeout.connect(self._show_opened)
        self.controller.case_opened.connect(partial(self._prepare_soon.start, _CALM_MS))
        self.viewer.events.theme.connect(self._another_theme)
        for calm in (events.tile_data, self.canvas.events.layout):
            calm.connect(lambda *_: self._prepare_soon.start(_CALM_MS))
        self.case_page.measure.connect(self._measure_pixel)
        self.preview.message_changed.connect(self._previewed)
        self.canvas.events.active_tool.connect(self._tool_changed)

    def sizeHint(self) -> QSize:
        """360 px wide."""
        hint = super().sizeHint()
        hint.setWidth(WIDTH_PX)
        return hint

    def show_inspector(self) -> TileInspector:
        """The tile inspector below the canvas; there is one, which napari's ✕ may have removed."""
        if self.inspector is None or self._inspector_dock is None:
            self.inspector = TileInspector(self.controller)
            self.inspector.wanted.connect(self._show_place)
            holder = self.viewer.window.add_dock_widget(self.inspector, name="Tile", area="bottom")
            holder.destroyed.connect(self._forget_inspector)
            self._inspector_dock = holder
            window = holder.window()
            right = Qt.DockWidgetArea.RightDockWidgetArea
            window.setCorner(Qt.Corner.BottomRightCorner, right)
            window.resizeDocks([holder], [INSPECTOR_PX], Qt.Orientation.Vertical)
        bring_to_front(self._inspector_dock)
        return self.inspector

    def _forget_inspector(self, *_: object) -> None:
        if self.inspector is not None:
            self.inspector.deleteLater()
        self.inspector, self._inspector_dock = None, None

    # --- dropped files --------------------------------------------------------------------------
    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take files and folders."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Open a case or cohort; slides and a PET go into the form of a new or the open case.

        A file of annotations is imported into the open case.
        """
        paths = [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]
        if paths:
            event.acceptProposedAction()
            drawn = paths[0].name.lower().endswith((".geojson", ".geojson.gz", ".geojson.zip"))
            if drawn and self.workspace.case is not None:
                self.tabs.setCurrentIndex(self.annotate_tab)
                self.annotate.import_file(paths[0])
                return
            self.case_page.take_files(paths)

    def show_review(self) -> None:
        """The review: figures in the dock, maps side by side on the canvas."""
        self.tabs.setCurrentIndex(self.review_tab)
        self.side_by_side.enter()

    def show_annotate(self) -> None:
        """The annotation tools."""
        self.tabs.setCurrentIndex(self.annotate_tab)
        self.annotate.drawing.take("brush")

    def _give_missing(self, keys: set[str]) -> None:
        """Go to the field of what is missing: a file, a pixel size, the record or a predictor."""
        if self.case_page.open_missing(keys):
            return
        suv = maker_of(SUV)
        state = self.workspace.states[suv.name]
        if state.word == "blocked" and INJECTION.name in keys:
            page = self.pages[suv.page]
            page.set_open(True)
            show_field(page.panel.asked_for(state.reason))  # type: ignore[attr-defined]
        else:
            page = self.pages[maker_of(PREDICTION).page]
            page.set_open(True)
            show_field(page.panel.train)  # type: ignore[attr-defined]

    def _measure_pixel(self, stain: str) -> None:
        """The slide without pixel size alone on the canvas, and the field for a known length."""
        self.tabs.setCurrentIndex(self.view_tab)
        self.view_tools.calibrate(stain)

    def _tool_changed(self, tool: CanvasTool | None) -> None:
        """Show the panel of manual correction, which a key starts from anywhere."""
        if tool is self.correct.tool:
            self.tabs.setCurrentIndex(self.review_tab)
            self.correct_fold.set_open(True)

    def _preview(self, step: str) -> None:
        if step:
            self.preview.start(step)
        else:
            self.preview.stop()

    def _models(self, step: Step[Any]) -> Mapping[str, str]:
        """The models of the open case that a step can use, in words."""
        case = self.workspace.case
        return {} if case is None else models_for(case, step)

    def _confirm_reset(self, step: str) -> bool:
        """Ask before defaults that make other finished steps stale."""
        case = self.workspace.case
        titles, seconds = outdated_by(case, step, self.workspace.states) if case else ([], 0.0)
        if len(titles) < 2:
            return True
        words = f"Back to defaults makes {count(len(titles), 'step')} stale: {', '.join(titles)}."
        return confirmed(
            self,
            "Back to defaults",
            f"{words}\n\nRunning them again takes about {duration(seconds)} (as last time). "
            "The stored results stay until then.",
        )

    def _previewed(self, step: str, line: str) -> None:
        for page in self.pages.values():
            if step in page.names:
                page.show_preview(line)

    def _tile_chosen(self, tile: int, *_: object) -> None:
        self.canvas.keys.release(ARROWS)
        if tile >= 0:
            self.canvas.keys.bind(ARROWS, self.show_inspector().arrows())

    def _show_place(self) -> None:
        """Show the selected tile in all stains."""
        grid, tile = self.workspace.tile_data.grid, self.workspace.tile
        if grid is not None and 0 <= tile < len(grid):
            self.view_tools.quad_view.enter()
            self._look_at_tile()

    def _look_at_tile(self) -> None:
        """Move the camera to the selected tile and as much again around it."""
        grid, tile = self.workspace.tile_data.grid, self.workspace.tile
        if grid is not None and 0 <= tile < len(grid):
            half = grid.size_um
            fit(self.viewer, grid.centres_um[tile] - half, grid.centres_um[tile] + half)

    def _show_queued(self) -> None:
        """Show the tile of the review queue in all stains, with the queue beside it."""
        self.tabs.setCurrentIndex(self.review_tab)
        self.queue_fold.set_open(True)
        self._show_place()

    def _edit_queued(self, line: str) -> None:
        """Open the annotation tools on the tile of the review queue."""
        self.view_tools.quad_view.leave()
        self.show_annotate()
        self._look_at_tile()
        self.annotate.annotation.message.emit(line)

    def _only(self, opened: Page) -> None:
        for page in self._all_pages():
            if page is not opened and page.is_open:
                page.set_open(False)
        self._opened = opened
        self._show_soon.start(SETTLED_MS)

    def _show_opened(self) -> None:
        if self._opened is not None and self._opened.is_open:
            show_from_top(self.page_area, self._opened)

    def _dismiss(self) -> None:
        self.workspace.problem = None

    def _tell_napari(self, job: Any) -> None:
        """Let napari ask before it closes a window in which a task is busy."""
        window = self.viewer.window
        if self._job_status is not None:
            window._update_task_status(self._job_status, Status.COMPLETED, "")
        self._job_status = None
        if job is not None:
            words = f"{job.title} is running; closing stops it, finished steps are kept"
            self._job_status = window._register_task_status("MOSAIK", Status.BUSY, words)

    def _watch_job(self, job: Any, *_: object) -> None:
        self._tell_napari(job)
        keep_freed_memory(job is not None)
        if job is None:
            for page in self.pages.values():
                page.set_idle()
        else:
            for page in self.pages.values():
                job.cancelling.connect(page.set_cancelling)

    def _show_case(self, *_: object) -> None:
        opened = self.workspace.case is not None
        self.header.setVisible(opened)
        self.welcome.setVisible(not opened)
        for page in self.pages.values():
            if page.is_open:
                page.setEnabled(opened)
        self._turns.start(self._let_in(opened))
        self.header.show_case()
        self._show_states()

    def _let_in(self, opened: bool) -> Iterator[None]:
        """Let the pages that are closed be opened while a case is."""
        for page in self.pages.values():
            if page.isEnabled() != opened:
                page.setEnabled(opened)
                yield

    def _another_theme(self, *_: object) -> None:
        grey_again(self)

    def _prepare(self) -> None:
        """Build a part of a page or a layer of the review; the window has its turn between."""
        busy = self.controller.is_reading or self._turns.any_busy  # what is asked for comes first
        pages = (page.prepare() for page in self._all_pages())
        if busy or any(pages) or self.side_by_side.make_ahead():
            self._prepare_soon.start(_BETWEEN_MS)
        else:
            freeze_window(self.viewer, 2)  # with the pages, if no case was opened meanwhile

    def _show_states(self, *_: object) -> None:
        space = self.workspace
        for page in self.pages.values():
            page.update_page(
                space.recipe, space.states, space.results, space.running, space.job is not None
            )
        self.header.show_states()

    def changeEvent(self, event: QEvent) -> None:
        """The ✕ of napari's dock takes this widget out of the window: it ends with its layers."""
        super().changeEvent(event)
        if event.type() != QEvent.Type.ParentChange:
            return
        if self.parent() is not None:
            self._docked = True
        elif self._docked and not self._closed:
            QTimer.singleShot(0, self._removed)

    def _removed(self) -> None:
        if self.parent() is not None or self._closed:  # docked elsewhere, or the window closed
            return
        self.close()
        self.board.clear()
        if self._inspector_dock is not None:
            self.viewer.window.remove_dock_widget(self._inspector_dock)
        self.deleteLater()

    def closeEvent(self, event: QCloseEvent) -> None:
        """Stop what is running before the window goes; a second close has nothing left to stop."""
        if self._closed:
            super().closeEvent(event)
            return
        self._closed = True
        self.two_readers.shut()
        self.annotate.shut()
        self.case_page.levels.stop()
        self.visual_qa.stop()
        self.queue.stop()
        self.correct.shut()
        self.preview.stop()
        self.slide_view.shut()
        self.view_tools.shut()
        self.side_by_side.detach()
        self.canvas.detach()
        self._prepare_soon.stop()
        self._first.stop()
        keep_freed_memory(True)
        self.controller.close()
        self.board.close()
        for group in (self.workspace.events, self.canvas.events):
            group.disconnect()  # their class holds them, and they what is connected, until it ends
        super().closeEvent(event)


def bring_to_front(holder: QDockWidget) -> None:
    """Show a dock that was hidden or lies behind another tab."""
    holder.show()
    holder.raise_()


class _Header(QWidget):
    """Case, patient, checklist of what is given, and one button for all that is missing."""

    def __init__(self, controller: CaseController) -> None:
        super().__init__()
        self._controller = controller
        self.title = wrapped_label(bold=True)
        self.checklist = wrapped_label()
        self.run_all = button(
            "Run all missing",
            controller.run_missing,
            "Runs all steps that are stale or were not run, in order",
        )
        self.report = ReportButton(controller, self.run_all)
        self.device = DeviceChoice(controller)
        self.counts = wrapped_label(small=True)
        self.setLayout(
            column(self.title, self.checklist, self.report, self.device, self.counts, spacing=3)
        )

    def show_case(self) -> None:
        """Show the open case."""
        case = self._controller.workspace.case
        if case is None:
            return
        self.title.setText(f"{case.name} · {case.patient}")
        doubts = self._controller.workspace.doubts
        marks = [
            f"{title} {'✗' if why else '⚠' if key in doubts else '✓'}"
            for title, key, why in missing_sources(case)
        ]
        self.checklist.setText("   ".join(marks))

    def show_states(self) -> None:
        """Show how much is to do."""
        space = self._controller.workspace
        states = [  # a step that waits for what not every user gives is not a task
            state.word
            for name, state in space.states.items()
            if not (state.word == "blocked" and step_named(name).optional)
        ]
        todo = sum(word in ("missing", "stale") for word in states)
        self.run_all.setEnabled(bool(todo) and space.job is None)
        parts = []
        for word, name in (("missing", "not run"), ("stale", "stale"), ("blocked", "blocked")):
            if word in states:
                parts.append(f"{states.count(word)} {name}")
        done = count(states.count("done"), "step")
        self.counts.setText(" · ".join([*parts, f"{done} done"]) if states else "")


class _Welcome(QFrame):
    """No case is open: one sentence and three buttons."""

    def __init__(self, dock: MosaikDock) -> None:
        super().__init__()
        text = wrapped_label(
            "MOSAIK registers H&E, CD34, CAIX and PET of one specimen, quantifies the tissue and "
            "compares predicted with measured uptake. Research use only."
        )
        text.setAlignment(Qt.AlignmentFlag.AlignLeft)
        self.open = button("Open case…", lambda: dock.case_page.choose())
        self.new = button("New from slides…", lambda: dock.case_page.open_new())
        self.sample = button("Open sample cohort…", lambda: dock.case_page.choose_sample())
        self.setLayout(column(text, self.open, self.new, self.sample, margin=6))


def _line() -> QFrame:
    line = QFrame()
    line.setFrameShape(QFrame.Shape.HLine)
    line.setFixedHeight(1)
    return line
