"""The pages of the dock: status of each step, its settings, Run, Cancel and result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QKeyEvent, QMouseEvent
from qtpy.QtWidgets import QCheckBox, QFrame, QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_mosaik.core import Params
from napari_mosaik.view.formatting import STATE_MARKS, title_of
from napari_mosaik.view.presentation import step_view
from napari_mosaik.view.step_view import PanelKind
from napari_mosaik.widgets.base.controls import (
    Collapsible,
    button,
    calm_wheel,
    column,
    row,
    show_field,
    wrapped_label,
)
from napari_mosaik.widgets.base.form import ParamsForm
from napari_mosaik.workflow.case_status import given_sources
from napari_mosaik.workflow.step import Step, StepStatus

if TYPE_CHECKING:
    from napari_mosaik.widgets.align.panel import AlignPanel
    from napari_mosaik.widgets.base.case_controller import CaseController
    from napari_mosaik.widgets.canvas.link import CanvasLink
    from napari_mosaik.widgets.pages.dose_what_if import DosePanel

__all__ = ["DetailPage", "Page", "StepPage", "StepSection", "make_page", "pages_of", "summary"]

_ORDER = ("running", "stale", "missing", "blocked", "done")


def pages_of(steps: Iterable[Step[Any]]) -> dict[str, list[Step[Any]]]:
    """Steps grouped by page, in order."""
    pages: dict[str, list[Step[Any]]] = {}
    for step in steps:
        pages.setdefault(step.page, []).append(step)
    return pages


def summary(states: Sequence[StepStatus]) -> StepStatus:
    """One status for several steps: the one that most needs attention."""
    if not states:
        return StepStatus("missing")
    if any(state.word == "done" for state in states):
        runnable = [state for state in states if state.word != "blocked"]
        blocked = [state for state in states if state.word == "blocked"]
        if blocked and all(state.word == "done" for state in runnable):
            return StepStatus(
                "blocked", f"{len(runnable)} of {len(states)} done; {blocked[0].reason}"
            )
    first = min(states, key=lambda state: _ORDER.index(state.word))
    doubts = tuple(text for state in states for text in state.warnings)
    return replace(first, warnings=tuple(dict.fromkeys(doubts)))


class _Head(QFrame):
    """The heading of a page, always visible; a click opens or closes the page."""

    clicked = Signal()

    def __init__(self, title: str) -> None:
        super().__init__()
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.glyph = QLabel()
        self.glyph.setFixedWidth(16)
        self.glyph.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.title = wrapped_label(title, bold=True)
        self.title.setTextInteractionFlags(Qt.TextInteractionFlag.NoTextInteraction)
        self.word = QLabel()
        self.line = wrapped_label(small=True)
        self.line.setTextInteractionFlags(Qt.TextInteractionFlag.NoTextInteraction)
        top = QHBoxLayout()
        top.setContentsMargins(0, 0, 0, 0)
        top.addWidget(self.glyph)
        top.addWidget(self.title, 1)
        top.addWidget(self.word)
        below = QHBoxLayout()
        below.setContentsMargins(22, 0, 0, 0)
        below.addWidget(self.line, 1)
        self.setLayout(column(top, below, margin=4, spacing=1))

    def show_state(self, word: str, line: str) -> None:
        mark, name = STATE_MARKS.get(word, ("", word))
        self.glyph.setText(mark)
        self.word.setText(name)
        self.line.setText(line)
        self.line.setVisible(bool(line))
        self.setAccessibleName(f"{self.title.text()}: {self.word.text()}. {line}")

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self.clicked.emit()
        event.accept()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Space):
            self.clicked.emit()
        else:
            super().keyPressEvent(event)


class Page(QWidget):
    """A heading with a status and a body that is built when the page is first opened."""

    opened = Signal(object)

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title
        self.head = _Head(title)
        self.body: QWidget | None = None
        self._filled = False
        self._layout = column(self.head, spacing=0)
        self.setLayout(self._layout)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.head.clicked.connect(lambda: self.set_open(not self.is_open))

    @property
    def is_open(self) -> bool:
        """Whether the body is visible."""
        return self.body is not None and not self.body.isHidden()

    def make_body(self) -> QWidget:
        """Build the widget below the heading."""
        raise NotImplementedError

    def fill(self) -> None:
        """Show the current state in a body that has just been built."""

    def set_open(self, opened: bool) -> None:
        """Show or hide the body."""
        if opened:
            self.prepare_all()
        if opened and not self._filled:
            self._filled = True
            self.fill()
        if self.body is not None:
            self.body.setVisible(opened)
        if opened:
            self.opened.emit(self)

    def prepare(self) -> bool:
        """Build one more part, before the page is first opened; False when all is there."""
        if self.body is not None:
            return False
        self.body = self.make_body()
        self.body.hide()
        self._layout.addWidget(self.body)
        calm_wheel(self)
        return True

    def prepare_all(self) -> None:
        """Build all that is not there yet."""
        while self.prepare():
            pass


class StepSection(QWidget):
    """One step on its page: status, description and settings."""

    changed = Signal(str, object)

    def __init__(self, step: Step[Any], params: Params, *, alone: bool) -> None:
        super().__init__()
        self.step = step
        self.form = ParamsForm(params)
        self.form.changed.connect(lambda value: self.changed.emit(step.name, value))
        self.state = wrapped_label(bold=not alone)
        self.about = wrapped_label(step.about, small=not alone)
        self.fold = None if alone else Collapsible("Settings", self.form)
        body: QWidget = self.form if self.fold is None else self.fold
        if not step.params.model_fields:
            body.hide()
        self._alone = alone
        self.setLayout(column(self.state, self.about, body, spacing=3))

    def show_state(self, state: StepStatus, result: str, running: bool) -> None:
        """Show the status of the step."""
        self.form.setEnabled(not running)
        word = "running" if running else state.word
        detail = result if word == "done" else "" if word == "running" else state.reason
        mark, name = STATE_MARKS["running" if running else state.mark]
        if word == "stale" and result:
            detail = f"{detail}; last result: {result}"
        if word in ("done", "stale"):
            new = [f"⚠ {text}" for text in state.warnings if text not in detail]
            detail = "\n".join([*filter(None, [detail]), *new])
        text = f"{mark} {name}" if self._alone else f"{mark} {self.step.title}: {name}"
        self.state.setText(text + (f" · {detail}" if detail and detail != name else ""))


class StepPage(Page):
    """A page with one or several steps.

    ``run`` and ``show_layers`` carry the names of the page's steps; ``needs_case`` asks for what
    the page lacks and carries the keys of all that it needs ("he", "pet"); ``preview`` carries the
    name of the step to be previewed in the visible region, empty to end the preview.
    """

    changed = Signal(str, object)
    run = Signal(tuple)
    cancel = Signal()
    show_layers = Signal(tuple)
    needs_case = Signal(object)
    preview = Signal(str)

    def __init__(self, title: str, steps: Sequence[Step[Any]]) -> None:
        super().__init__(title)
        self.steps = tuple(steps)
        self.names = tuple(step.name for step in steps)
        self.sections: dict[str, StepSection] = {}
        self._tools: QWidget | None = None
        self._recipe: dict[str, Params] = {}
        self._states: dict[str, StepStatus] = {}
        self._results: dict[str, str] = {}
        self._running = ""
        self._busy = False
        self._behind = False
        self.confirm_reset: Callable[[str], bool] = lambda _: True
        self.models: Callable[[Step[Any]], Mapping[str, str]] = lambda _: {}

    def add_tools(self, tools: QWidget) -> None:
        """Add further controls below the preview, before the page is first opened."""
        tools.setParent(self)  # which deletes them even if the page is never opened
        tools.hide()
        self._tools = tools

    def make_body(self) -> QWidget:
        """Build the buttons and a section for each step."""
        body = QFrame()
        body.setFrameShape(QFrame.Shape.StyledPanel)
        self.run_button = button("Run", self.start)
        self.cancel_button = button("Cancel", self.cancel.emit, "Stop; stored results are kept")
        self.show_button = button(
            "Show layers",
            lambda: self.show_layers.emit(self.names),
            "Show the results of this page on the slide",
        )
        self.add_button = button(
            "Complete inputs…", self._ask, "Goes to the field of the missing input"
        )
        self.preview_box = QCheckBox("Preview")
        self.preview_box.setToolTip(
            "Compute the result in the visible region while you change the settings; "
            "nothing is stored"
        )
        if not self._previewed():
            self.preview_box.hide()
        self.preview_box.toggled.connect(self._toggle_preview)
        self.preview_line = wrapped_label(small=True)
        self.preview_line.hide()
        self.how = Collapsible(
            "Method", wrapped_label("\n".join(map(step_description, self.steps)))
        )
        layout = column(margin=8, spacing=6)
        layout.addLayout(row(self.run_button, self.cancel_button, self.show_button, 1))
        layout.addWidget(self.add_button)
        layout.addWidget(self.preview_box)
        layout.addWidget(self.preview_line)
        if self._tools is not None:
            layout.addWidget(self._tools)
            self._tools.show()
        for section in self.sections.values():
            layout.addWidget(section)
        layout.addWidget(self.how)
        body.setLayout(layout)
        return body

    def start(self) -> None:
        """Ask for a run of the steps."""
        self.run.emit(self.names)

    def prepare(self) -> bool:
        """Build one more section, then the body around them; False when all is there."""
        step = next((step for step in self.steps if step.name not in self.sections), None)
        if step is None:
            return super().prepare()
        params = self._recipe.get(step.name) or step.params()
        section = StepSection(step, params, alone=len(self.steps) == 1)
        section.setParent(self)  # which deletes it even if the page is never opened
        section.changed.connect(self.changed)
        section.form.confirm = partial(self._confirm, step.name)
        self.sections[step.name] = section
        return True

    def _ask(self) -> None:
        blocked = [s for s in self.steps if self._states[s.name].word == "blocked"]
        self.needs_case.emit(set().union(*map(given_sources, blocked)))

    def _confirm(self, step: str) -> bool:
        return self.confirm_reset(step)

    def _previewed(self) -> str:
        """Name of the step that supports a preview; empty if none does."""
        return next((step.name for step in self.steps if step.previews), "")

    def _toggle_preview(self, on: bool) -> None:
        """Start or end the preview and show the settings of its step."""
        name = self._previewed()
        fold = self.sections[name].fold if name else None
        if on and fold is not None:
            fold.set_open(True)
        self.preview.emit(name if on else "")

    def show_preview(self, line: str) -> None:
        """Show the result of the preview; an empty line ends it."""
        if self.body is None:
            return
        self.preview_line.setText(line)
        self.preview_line.setVisible(bool(line))
        if not line and self.preview_box.isChecked():
            self.preview_box.setChecked(False)

    def set_open(self, opened: bool) -> None:
        """Show or hide the body; closing the page ends its preview."""
        if not opened and self.body is not None:
            self.preview_box.setChecked(False)
        elif opened and self._behind:
            self._show_body()
        super().set_open(opened)

    def fill(self) -> None:
        """Show the current state."""
        self._show_body()

    def update_page(
        self,
        recipe: dict[str, Params],
        states: dict[str, StepStatus],
        results: dict[str, str],
        running: str,
        busy: bool,
    ) -> None:
        """Show the current settings and status; those of a closed page when it is opened."""
        self._recipe, self._states, self._results = recipe, states, results
        self._running, self._busy = running, busy
        self._show()
        if self.is_open:
            self._show_body()
        else:
            self._behind = self._filled

    def _known(self) -> list[StepStatus]:
        return [self._states[name] for name in self.names if name in self._states]

    def _show(self) -> None:
        state = summary(self._known())
        if self._running in self.names:
            title = next(s.title for s in self.steps if s.name == self._running)
            self.head.show_state("running", title if len(self.steps) > 1 else "")
            return
        self.head.show_state(state.mark, self._line(state))

    def _line(self, state: StepStatus) -> str:
        if state.word == "done":
            lines = [self._results[n].split("\n")[0] for n in self.names if self._results.get(n)]
            return " · ".join(dict.fromkeys([*lines, *state.warnings[:1]]))
        return "" if state.word == "missing" else state.reason

    def _show_body(self) -> None:
        self._behind = False
        for name, section in self.sections.items():
            if name in self._recipe:
                section.form.show_value(self._recipe[name])
            if section.step.needs_model:
                section.form.offer(section.step.needs_model, self.models(section.step))
            state = self._states.get(name, StepStatus("missing"))
            section.show_state(state, self._results.get(name, ""), name == self._running)
        states = self._known()
        word = summary(states).word
        runnable = any(s.word != "blocked" for s in states)
        self.run_button.setEnabled(runnable and not self._busy)
        self.run_button.setText("Run again" if word == "done" else "Run")
        self.run_button.setToolTip(
            "Another job is running" if self._busy else "Run this page and all steps that it needs"
        )
        self.cancel_button.setVisible(self._running in self.names)
        self.show_button.setEnabled(any(s.word in ("done", "stale") for s in states))
        self.add_button.setVisible(any(s.word == "blocked" for s in states))

    def set_cancelling(self) -> None:
        """Show that the job is being cancelled."""
        if self.body is not None:
            self.cancel_button.setText("Cancelling…")
            self.cancel_button.setEnabled(False)

    def set_idle(self) -> None:
        """Reset the Cancel button after a job."""
        if self.body is not None:
            self.cancel_button.setText("Cancel")
            self.cancel_button.setEnabled(True)


def step_description(step: Step[Any]) -> str:
    """Description of a step: inputs, outputs and the meaning of each setting."""
    inputs = ", ".join(entry.about for entry in (*step.reads, *step.may_read))
    outputs = ", ".join(artifact.about for artifact in step.writes)
    lines = [f"{step.title}. {step.about}", f"Inputs: {inputs or 'none'}.", f"Outputs: {outputs}."]
    for name, info in step.params.model_fields.items():
        extra = info.json_schema_extra
        unit = extra.get("unit", "") if isinstance(extra, dict) else ""
        label = (extra.get("label") if isinstance(extra, dict) else "") or title_of(name)
        label = label[:1].upper() + label[1:]
        lines.append(f"• {label}{f' ({unit})' if unit else ''}: {info.description}")
    return "\n".join(lines) + "\n"


class DetailPage(StepPage):
    """A page of steps with its own panel."""

    def __init__(
        self, title: str, steps: Sequence[Step[Any]], make_panel: Callable[[], QWidget]
    ) -> None:
        super().__init__(title, steps)
        self._make_panel = make_panel
        self.panel: QWidget | None = None

    def prepare(self) -> bool:
        """Build the panel, then what the usual page has."""
        if self.panel is not None:
            return super().prepare()
        self.panel = self._make_panel()
        self.panel.setParent(self)
        return True

    def make_body(self) -> QWidget:
        """Build the usual body with the panel below it."""
        body = super().make_body()
        layout = body.layout()
        assert isinstance(layout, QVBoxLayout)
        assert self.panel is not None
        layout.insertWidget(layout.indexOf(self.how), self.panel)
        return body


class ManualPage(DetailPage):
    """A page whose panel comes first and replaces the settings while it is in use."""

    def make_body(self) -> QWidget:
        """Build the buttons, the panel and the settings."""
        body = super().make_body()
        layout = body.layout()
        assert isinstance(layout, QVBoxLayout)
        assert self.panel is not None
        first = next(iter(self.sections.values()))
        layout.insertWidget(layout.indexOf(first), self.panel)
        cast("AlignPanel", self.panel).used.connect(self._hide_settings)
        return body

    def _hide_settings(self, used: bool) -> None:
        for section in (*self.sections.values(), self.how):
            section.setVisible(not used)


class PlansPage(DetailPage):
    """A page whose panel holds plans: what is typed is saved before it is computed."""

    _waits_from: dict[str, StepStatus] | None = None

    def make_body(self) -> QWidget:
        """Build the usual body; the panel says what can be computed."""
        body = super().make_body()
        cast("DosePanel", self.panel).changed.connect(self._show_run)
        layout = body.layout()
        assert isinstance(layout, QVBoxLayout)
        for section in self.sections.values():  # of little use beside what the plans hold
            layout.insertWidget(layout.indexOf(self.how), Collapsible("Sampling", section.form))
        return body

    def set_open(self, opened: bool) -> None:
        """Show or hide the body; another program may have changed the plans since."""
        was_there = self._filled
        super().set_open(opened)
        if opened and was_there:
            cast("DosePanel", self.panel).read_again()

    def start(self) -> None:
        """Save the plan that is shown; run once the status of the steps is that of the plans."""
        before = self._states
        cast("DosePanel", self.panel).save_plan(
            saved=lambda: setattr(self, "_waits_from", before), same=super().start
        )

    def update_page(self, *news: Any) -> None:
        """Show the current settings and status, and run what waits for it."""
        super().update_page(*news)
        before = self._waits_from
        if before is not None and self._states is not before:
            self._waits_from = None
            if all(state.word != "blocked" for state in self._known()):
                super().start()

    def _ask(self) -> None:
        panel = cast("DosePanel", self.panel)
        if panel.draft is None:
            show_field(panel.new)
        else:
            super()._ask()

    def _show_body(self) -> None:
        super()._show_body()
        self._show_run()

    def _show_run(self) -> None:
        """Run is possible with plans that are complete, also where the case has none yet."""
        panel = cast("DosePanel", self.panel)
        why = panel.why_not()
        lacks = any(state.word == "blocked" for state in self._known())
        waits = lacks and bool(panel.plans)  # for something else than a plan
        self.run_button.setEnabled(not (why or waits or self._busy))
        if why:
            self.run_button.setToolTip(why)
        self.add_button.setVisible(waits or (lacks and panel.draft is None))


def make_page(
    title: str, steps: Sequence[Step[Any]], controller: CaseController, canvas: CanvasLink
) -> StepPage:
    """The page of the given steps, with its panel if it has one."""
    panel = next((kind for step in steps if (kind := step_view(step.name).panel)), None)
    if panel is None:
        return StepPage(title, steps)
    if panel is PanelKind.MANUAL_ALIGNMENT:
        return ManualPage(title, steps, lambda: _align(canvas))
    if panel is PanelKind.DOSE_PLANS:
        return PlansPage(title, steps, lambda: _plans(canvas))
    return DetailPage(title, steps, lambda: _PANELS[panel](controller))


def _align(canvas: CanvasLink) -> QWidget:
    from napari_mosaik.widgets.align.panel import AlignPanel

    return AlignPanel(canvas)


def _plans(canvas: CanvasLink) -> QWidget:
    from napari_mosaik.widgets.pages.dose_what_if import DosePanel

    return DosePanel(canvas)


def _suv(controller: CaseController) -> QWidget:
    from napari_mosaik.widgets.pages.suv_terms import SuvTermsPanel

    return SuvTermsPanel(controller)


def _parameters(controller: CaseController) -> QWidget:
    from napari_mosaik.widgets.pages.parameter_panel import ParameterPanel

    return ParameterPanel(controller)


def _clusters(controller: CaseController) -> QWidget:
    from napari_mosaik.widgets.pages.cluster_panel import ClusterPanel

    return ClusterPanel(controller)


def _kinetics(controller: CaseController) -> QWidget:
    from napari_mosaik.widgets.pages.kinetics_panel import KineticsPanel

    return KineticsPanel(controller)


def _predictor(controller: CaseController) -> QWidget:
    from napari_mosaik.widgets.pages.models import PredictorPanel

    return PredictorPanel(controller)


_PANELS: dict[PanelKind, Callable[[CaseController], QWidget]] = {
    PanelKind.SUV_TERMS: _suv,
    PanelKind.CORRELATIONS: _parameters,
    PanelKind.CLUSTERS: _clusters,
    PanelKind.KINETICS: _kinetics,
    PanelKind.PREDICTOR: _predictor,
}
