"""Pages *Updating twin* and *Virtual cohort*.

Predict a scan, take it in, learn from it, use it in the dose; simulate patients under each plan.

Numbers are shown only while they are those of the stored twin: while it is read again, after
another case was opened, or where it cannot be read, there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFrame,
    QLabel,
    QLineEdit,
    QMenu,
    QSpinBox,
    QTableWidget,
    QWidget,
)

from napari_mosaik.core import InputError, Progress, palette
from napari_mosaik.core.catalogue import DOSE, PARAMETERS, PREDICTION, UPTAKE
from napari_mosaik.core.progress import map_progress
from napari_mosaik.view.twin import (
    CohortChoice,
    TwinPicture,
    cohort_arm_rows,
    cohort_figure,
    cohort_pair_rows,
    cohort_words,
    day_words,
    decision_lines,
    is_prior_only,
    parameter_strip_figure,
    read_cohort_choice,
    read_twin,
    scan_rows,
    scan_worth_lines,
    signed,
    twin_line,
    twin_parameter_rows,
    twin_time_figure,
)
from napari_mosaik.widgets.base.controls import (
    button,
    clear,
    column,
    fill_table,
    row,
    shrinkable,
    table_of,
    wrapped_label,
)
from napari_mosaik.widgets.base.figure_view import FigureImage, FigureView
from napari_mosaik.widgets.pages.pages import Page
from napari_mosaik.workflow.plans import ARM_SETS, PRESETS, add_arms, plan_files, restore_plans
from napari_mosaik.workflow.steps import maker_of
from napari_mosaik.workflow.twin import TWIN_LIMITS, CaseTwin
from napari_mosaik.workflow.virtual_cohort import (
    ANTIGEN_UM,
    COHORT_OUTCOMES,
    EVEN_CHANCE,
    ORGAN_PREFIX,
    PATIENTS_LIMIT,
    SIMULATED,
    CohortOutcome,
    cohort_document,
    cohort_threshold,
    keep_organ_table,
    outcome_kind,
    plan_cohort,
)

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case
    from napari_mosaik.widgets.base.case_controller import CaseController
    from napari_mosaik.widgets.base.worker import Problem, Steps
    from napari_mosaik.workflow.virtual_cohort import PlanCohort

__all__ = ["CohortPage", "TwinPage"]

_TITLE = "Updating twin"
_CURVE_PX, _STRIP_PX = 380, 190
_NO_SCANS = (
    "This case has no scan of tumour or blood in invivo.csv. Type, import or measure them on the "
    "page 'Uptake in vivo', or with: napari-mosaik invivo CASE add. Then predict the first one."
)
_NO_PLANS = "The case has no dose plan yet: make one on the page 'Dose what-if'."
_NO_ARMS = f"{_NO_PLANS[:-1]}, or choose preset arms."
_STEP = maker_of(UPTAKE)
_PlanFiles = tuple[Mapping[str, bytes], Mapping[str, bytes]]
"""The files of the plans before the twin changed one, and after it."""


class TwinPage(Page):
    """The twin of the open case; ``to_values`` asks for the page of the values in vivo."""

    to_values = Signal()

    def __init__(self, controller: CaseController) -> None:
        super().__init__(_TITLE)
        self._controller = controller
        self.picture: TwinPicture | None = None
        self._asked = 0
        self._failure = ""
        self._slice: object = None
        self._case: object = None
        self._undo: _PlanFiles | None = None
        self._recover = False
        events = controller.workspace.events
        events.case.connect(self._case_changed)
        events.blind.connect(self.read)
        events.states.connect(self._states_changed)
        events.job.connect(self._show)
        self._case_changed()

    # --- building -------------------------------------------------------------------------------
    def make_body(self) -> QWidget:
        """The widgets of the page."""
        body = QFrame()
        body.setFrameShape(QFrame.Shape.StyledPanel)
        self.limits = wrapped_label(TWIN_LIMITS, small=True)
        self.state = wrapped_label(bold=True)
        self.values = button("Uptake in vivo…", self.to_values.emit, "Go to the values of scans")
        self.doubt = wrapped_label(bold=True)
        self.doubt.setStyleSheet(
            f"background: {palette.BANNER}; color: {palette.PAPER}; padding: 4px;"
        )
        self.predict = button("Predict first", self._predict)
        self.predict.setToolTip("Store what is predicted of the next scan before it is taken in")
        self.take = button("Take in scan", self._take_in)
        self.take.setToolTip(
            "Score the prediction (it is stored first) and update the twin; the record is kept "
            "for good and cannot be taken back"
        )
        self.recover = QCheckBox("")
        self.recover.setToolTip(
            "Divide the mean of the slice by what its PET shows of an even uptake; only where the "
            "uptake is about even"
        )
        self.told = wrapped_label()
        self.body_part = QWidget()
        self.body_part.setLayout(
            column(*self._scans(), *self._parameters(), *self._dose(), *self._record(), spacing=5)
        )
        body.setLayout(
            column(
                self.limits,
                self.state,
                row(self.values, 1),
                self.doubt,
                self.recover,
                row(self.predict, self.take, 1),
                self.told,
                self.body_part,
                margin=8,
                spacing=6,
            )
        )
        return body

    def _scans(self) -> tuple[Any, ...]:
        self.shown = shrinkable(QComboBox())
        self.shown.setToolTip("The band after this scan; the grey one is that before it")
        self.shown.currentIndexChanged.connect(self._plot)
        self.curve = FigureImage(self._controller.read)
        self.curve.setFixedHeight(_CURVE_PX)
        self.scans = table_of(
            ("Scan", "Predicted", "Observed", "z", "Score"),
            (
                "",
                "Median and 90 % interval with the noise of the scan, stored before it was "
                "taken in",
                "",
                "Observed minus predicted, in SD of its logarithm",
                "Logarithm of the predicted density of all regions of the scan",
            ),
            wide=1,
        )
        return row(QLabel("Shown"), self.shown), self.curve, self.scans

    def _parameters(self) -> tuple[Any, ...]:
        self.strip = FigureImage(self._controller.read)
        self.strip.setFixedHeight(_STRIP_PX)
        self.strip.setToolTip("Pale: prior, 90 %; dark: after the scans; grey: prior only")
        self.parameters = table_of(
            ("Parameter", "Prior", "After scans"),
            ("Grey: prior only, an assumption", "Median, 90 % interval", "Median, 90 % interval"),
            wide=0,
        )
        self.basis = wrapped_label(small=True)
        self.worth = wrapped_label()
        return (
            wrapped_label("What the scans determine", bold=True),
            self.strip,
            self.parameters,
            self.basis,
            wrapped_label("Next scan worth most", bold=True),
            self.worth,
        )

    def _dose(self) -> tuple[Any, ...]:
        self.plan = shrinkable(QComboBox())
        self.plan.setToolTip("A stored plan of the dose what-if")
        self.use = button("Use in dose", self._use)
        self.use.setToolTip(
            "Give the plan the time course of the twin, with a curve for each draw of the plan"
        )
        self.undo = button("Undo", self._take_back, "The plans as they were before Use in dose")
        self.used = wrapped_label()
        return (
            wrapped_label("Plan", bold=True),
            row(self.plan),
            row(self.use, self.undo, 1),
            self.used,
        )

    def _record(self) -> tuple[Any, ...]:
        self.by, self.note = QLineEdit(), QLineEdit()
        self.by.setPlaceholderText("who decided")
        self.note.setPlaceholderText("note (may be empty)")
        self.decide = button("Record decision", self._decide)
        self.decide.setToolTip(
            "Add plan, name, and what is known and predicted now to the record; lines are only "
            "added"
        )
        self.decisions = wrapped_label(small=True)
        self.which = shrinkable(QComboBox())
        self.seen = QLineEdit()
        self.seen.setPlaceholderText("observed later")
        self.observe = button("Add", self._observe, "Add it to that decision; lines are only added")
        self.later = QWidget()
        self.later.setLayout(column(row(self.which, self.seen, self.observe)))
        for field, words in ((self.by, "Who"), (self.note, "Note"), (self.seen, "Observed later")):
            field.setAccessibleName(words)
            field.textChanged.connect(self._enable)
        return (
            wrapped_label("Decisions", bold=True),
            row(self.by, self.note),
            row(self.decide, 1),
            self.decisions,
            self.later,
        )

    # --- reading --------------------------------------------------------------------------------
    def set_open(self, opened: bool) -> None:
        """Show or hide the body; values may have come since it was seen last."""
        super().set_open(opened)
        if opened:
            self.read()

    def _case_changed(self, *_: object) -> None:
        case = self._controller.workspace.case
        self.setEnabled(case is not None)
        other, self._case = case is not self._case, case
        if other:
            self._undo, self._slice = None, None
            if self.body is not None:
                self.recover.setChecked(False)
        if other and self.body is not None:
            for label in (self.told, self.used):
                label.setText("")
            self.by.setText(self._controller.workspace.reader)
        self.read()

    def _states_changed(self, *_: object) -> None:
        """The uptake of the slice, which is the last scan, may be another one."""
        state = self._controller.workspace.states.get(_STEP.name)
        if state != self._slice:
            self._slice = state
            self.read()

    def read(self, *_: object) -> None:
        """Read the twin again; what was shown of it is gone at once."""
        space = self._controller.workspace
        self.picture, self._failure = None, ""
        self._asked += 1
        self._show()
        if space.case is None or space.blind:
            return
        if not self.is_open:
            then = partial(self._line_arrived, self._asked)
            self._controller.read_for(space.case, _TITLE, partial(twin_line, space.case), then)
            return
        work = partial(read_twin, space.case)
        task = self._controller.read_for(
            space.case, _TITLE, work, partial(self._arrived, self._asked)
        )
        task.failed.connect(partial(self._failed, self._asked))

    def _line_arrived(self, asked: int, line: str) -> None:
        if asked == self._asked:
            self.head.show_state("done" if line and line[0] != "0" else "", line)

    def _arrived(self, asked: int, picture: TwinPicture) -> None:
        if asked == self._asked:
            self.picture = picture
            self._fill()

    def _failed(self, asked: int, problem: Problem) -> None:
        if asked == self._asked:
            self._failure = problem.sentence
            self._show()

    # --- showing --------------------------------------------------------------------------------
    def _fill(self) -> None:
        picture = self.picture
        assert picture is not None
        n = len({row["time_h"] for row in picture.status["scans"] if row["modelled"]})
        line = f"{picture.n_updates} of {n} scans taken in" if n else ""
        self.head.show_state("done" if picture.n_updates else "", line)
        with QSignalBlocker(self.shown):
            self.shown.clear()
            self.shown.addItem("the prior, before any scan")
            for update in picture.status["updates"]:
                self.shown.addItem(f"after {day_words(update['time_h'])}")
            self.shown.setCurrentIndex(picture.n_updates)
        rows = scan_rows(picture)
        _fill(self.scans, rows, [texts[2] == "not taken in" for texts in rows])
        rows = twin_parameter_rows(picture)
        _fill(self.parameters, rows, [is_prior_only(texts) for texts in rows])
        self.basis.setText(
            "\n".join([f"Vessel surface: {picture.status['surface_source']}.",
                       *picture.status["notes"]])
        )  # fmt: skip
        self.worth.setText("\n".join(scan_worth_lines(picture)))
        self.doubt.setText("\n".join(f"⚠ {text}." for text in picture.doubts))
        _offer(self.plan, picture.plans)
        if not self.by.text():
            self.by.setText(self._controller.workspace.reader)
        self.decisions.setText("\n\n".join(decision_lines(picture)))
        _offer(self.which, [f"decision {place + 1}" for place in range(len(picture.decisions))])
        self.strip.show_when_seen(partial(parameter_strip_figure, picture))
        self._plot()
        self._show()

    def _plot(self, *_: object) -> None:
        if self.picture is not None:
            shown = max(0, self.shown.currentIndex())
            self.curve.show_when_seen(partial(twin_time_figure, self.picture, shown))

    def _words(self) -> str:
        space, picture = self._controller.workspace, self.picture
        if space.case is None:
            return ""
        if space.blind:
            return "No numbers: the uptake is hidden until the blind review queue is finished."
        if self._failure:
            return f"✗ The twin cannot be shown. {self._failure}"
        if picture is None:
            return "Reading the twin…"
        if not picture.has_scans:
            return _NO_SCANS
        scan = picture.next_scan
        if scan is None:
            return "All scans were taken in."
        when = f"{day_words(scan['time_h'])} ({scan['time_h']:.1f} h)"
        if picture.awaited is None:
            return f"Next scan: {when}. Predict it first."
        stored = picture.awaited["stored_at"][:16].replace("T", " ")
        return f"Next scan: {when}, predicted {stored} UTC."

    def _show(self, *_: object) -> None:
        if self.body is None:
            return
        picture = self.picture
        self.state.setText(self._words())
        self.state.setVisible(bool(self.state.text()))
        self.values.setVisible(picture is not None and not picture.has_scans)
        self.body_part.setVisible(picture is not None and picture.has_scans)
        self.doubt.setVisible(picture is not None and bool(picture.doubts))
        self.told.setVisible(bool(self.told.text()))
        self.used.setVisible(bool(self.used.text()))
        self.later.setVisible(picture is not None and bool(picture.decisions))
        if picture is not None and not picture.plans:
            self.used.setText(_NO_PLANS)
            self.used.show()
        self._enable()

    def _enable(self, *_: object) -> None:
        picture = self.picture
        idle = picture is not None and self._controller.workspace.job is None
        ahead = picture is not None and picture.next_scan is not None
        self.predict.setEnabled(idle and ahead and picture is not None and picture.awaited is None)
        self.take.setEnabled(idle and ahead)
        share = None if picture is None else picture.recovery_of_next
        self.recover.setVisible(share is not None)
        if share is not None:
            self.recover.setText(f"Divide by the recovery, {share:.0%}")
        plan = bool(self.plan.currentText())
        self.use.setEnabled(idle and plan)
        self.undo.setEnabled(idle and self._undo is not None)
        self.decide.setEnabled(idle and plan and bool(self.by.text().strip()))
        self.observe.setEnabled(
            idle and bool(self.seen.text().strip()) and bool(self.by.text().strip())
        )

    # --- changing -------------------------------------------------------------------------------
    def _start(
        self, title: str, work: Callable[[Case], Any] | None, then: Callable[[Any], None]
    ) -> None:
        """Change the stored twin or a plan as a job; afterwards all is read again.

        Without *work* the next scan is taken in.
        """
        case = self._controller.workspace.case
        if case is None:
            return
        taking = partial(_take_in, title, self._recover)
        steps = taking if work is None else partial(_steps, title, work)
        job = self._controller.start(title, partial(steps, case))
        if job is None:
            return

        def done(found: Any) -> None:
            if case is self._controller.workspace.case:
                then(found)

        job.done.connect(done)
        job.ended.connect(self.read)

    def _predict(self) -> None:
        self._start("Predict first", _predict, self._predicted)

    def _predicted(self, found: Mapping[str, Any]) -> None:
        self._tell(f"Stored: what is predicted of {day_words(found['time_h'])}.")

    def _take_in(self) -> None:
        self._recover = self.recover.isVisible() and self.recover.isChecked()
        self._start("Take in scan", None, self._taken_in)

    def _taken_in(self, found: Mapping[str, Any]) -> None:
        words = f"Taken in: {day_words(found['time_h'])}, z {signed(found['z'])}"
        self._tell("\n".join([f"{words}, log score {found['log_score']:.1f}.", *found["notes"]]))

    def _tell(self, text: str) -> None:
        self.told.setText(text)

    def _use(self) -> None:
        self._start("Use in dose", partial(_use, self.plan.currentText()), self._in_use)

    def _in_use(self, found: tuple[_PlanFiles, Mapping[str, Any]]) -> None:
        self._undo, made = found
        lines = [
            f"The time course of '{made['plan']}' is now that of the twin (it was "
            f"'{made['before']}'), with {made['n_draws']} draws; its time integral has a CV of "
            f"{made['time_course_cv']:.2f}. "
            "Results of the dose are stale until it runs again. Undo takes it back.",
            *(f"⚠ {text}." for text in made["warnings"]),
        ]
        self.used.setText("\n".join(lines))
        self._plans_changed()

    def _take_back(self) -> None:
        before = self._undo
        if before is not None:
            self._start("Undo", partial(_restore, before), self._restored)

    def _restored(self, _found: object) -> None:
        self._undo = None
        self.used.setText("The plans are as they were.")
        self._plans_changed()

    def _plans_changed(self) -> None:
        """Let the page of the plans read them again, and the status of the dose."""
        space = self._controller.workspace
        space.events.case.emit(space.case, space.case)
        self._controller.refresh()

    def _decide(self) -> None:
        given = self.plan.currentText(), self.by.text(), self.note.text()
        self._start("Record decision", partial(_decide, given), self._decided)

    def _decided(self, found: Mapping[str, Any]) -> None:
        self.note.setText("")
        self._tell(f"Recorded: '{found['plan']}', by {found['by']}.")

    def _observe(self) -> None:
        given = self.which.currentIndex() + 1, self.by.text(), self.seen.text()
        self._start("Record decision", partial(_observe, given), self._observed)

    def _observed(self, found: Mapping[str, Any]) -> None:
        self.seen.setText("")
        self._tell(f"Added to the decision for '{found['plan_was']}'.")


def _fill(table: QTableWidget, rows: list[tuple[str, ...]], grey: list[bool]) -> None:
    """Fill a table whose cells have several lines; grey rows are of what is not known."""
    fill_table(table, rows)
    for place, is_grey in enumerate(grey):
        for at in range(table.columnCount()):
            item = table.item(place, at)
            if is_grey and item is not None:
                item.setForeground(QColor(palette.MISSING_TEXT))
    table.resizeRowsToContents()
    table.setFixedHeight(30 + sum(table.rowHeight(place) for place in range(len(rows))))


def _offer(box: QComboBox, names: Any) -> None:
    """Offer these names, the chosen one again if it is there."""
    before = box.currentText()
    box.clear()
    box.addItems(list(names))
    box.setCurrentIndex(max(0, box.findText(before)) if box.count() else -1)


def _steps(title: str, work: Callable[[Case], Any], case: Case) -> Steps:
    yield title, Progress(0, 1, "")
    found = work(case)
    yield title, Progress(1, 1, "")
    return found


def _predict(case: Case) -> Mapping[str, Any]:
    return CaseTwin(case).predict_next()


def _take_in(title: str, recover: bool, case: Case) -> Steps:
    work = CaseTwin(case, recover_slice=recover).iter_take_in_next()
    return (yield from map_progress(work, lambda progress: (title, progress)))


def _use(plan: str, case: Case) -> tuple[_PlanFiles, Mapping[str, Any]]:
    before = plan_files(case.root)
    made = CaseTwin(case).use_in_plan(plan)
    return (before, plan_files(case.root)), made


def _restore(files: _PlanFiles, case: Case) -> None:
    before, after = files
    if plan_files(case.root) != after:
        raise InputError(
            "plans were changed since, and Undo would take that back as well; choose another time "
            "course on the page 'Dose what-if'"
        )
    restore_plans(case.root, before)


def _decide(given: tuple[str, str, str], case: Case) -> Mapping[str, Any]:
    return CaseTwin(case).decide(*given)


def _observe(given: tuple[int, str, str], case: Case) -> Mapping[str, Any]:
    return CaseTwin(case).observe(*given)


# --- virtual cohort -----------------------------------------------------------------------------
_COHORT = "Virtual cohort"
_POSTERIOR, _PRIOR = "posterior", "prior"
_DEFAULT_N: Final = 400
_COUNT_PX, _SEED_PX = 145, 85
_ARM_PX, _AXIS_PX, _MOST_PX = 70, 75, 460
_NOTHING_TAKEN = (
    "No scan was taken in, so there is no posterior: take one in on the page 'Updating twin', or "
    "draw from the prior."
)


class CohortPage(Page):
    """Simulated patients under the plans of the case; ``to_plans`` asks for the page of plans.

    Numbers are shown only while settings, plans and twin are those of the run.
    """

    to_plans = Signal()

    def __init__(self, controller: CaseController) -> None:
        super().__init__(_COHORT)
        self.head.show_state("", SIMULATED)
        self._controller = controller
        self.choice: CohortChoice | None = None
        self.cohort: PlanCohort | None = None
        self._made: tuple[object, object] | None = None
        self._unticked: set[str] = set()
        self._asked = 0
        self._failure = ""
        self._running = self._stopped = False
        self._case: object = None
        self._seen: object = None
        events = controller.workspace.events
        events.case.connect(self._case_changed)
        events.blind.connect(self.read)
        events.states.connect(self._states_changed)
        events.job.connect(self._enable)
        self._case_changed()

    def make_body(self) -> QWidget:
        """The widgets of the page."""
        body = QFrame()
        body.setFrameShape(QFrame.Shape.StyledPanel)
        self.mark = wrapped_label(f"⚠ {SIMULATED}", bold=True)
        self.arms: dict[str, QCheckBox] = {}
        self._arms = column(spacing=2)
        self.source = shrinkable(QComboBox())
        self.source.addItem("Posterior of this patient", _POSTERIOR)
        self.source.addItem("Prior (population)", _PRIOR)
        self.outcome = shrinkable(QComboBox())
        for name, kind in COHORT_OUTCOMES.items():
            self.outcome.addItem(kind.label, name)
        self.outcome.setToolTip(
            "BED and dose of the tumour's mean; tumour control over the tiles of the slide"
        )
        self.n, self.seed = QSpinBox(), QSpinBox()
        self.n.setRange(1, PATIENTS_LIMIT)
        self.n.setValue(_DEFAULT_N)
        self.n.setMinimumWidth(_COUNT_PX)
        self.seed.setMaximumWidth(_SEED_PX)
        self.seed.setRange(0, 2**31 - 1)
        self.threshold = QLineEdit()
        self.threshold_label = QLabel()
        self._typed: dict[str, str] = {}
        self.antigen = QDoubleSpinBox()
        self.antigen.setDecimals(4)
        self.antigen.setRange(0.0001, 100.0)
        self.antigen.setValue(ANTIGEN_UM)
        self.antigen.setToolTip(
            "Antigen of the tumour, an assumption; it enters where a plan states its antibody mass"
        )
        self.half_width = QDoubleSpinBox()
        self.half_width.setDecimals(3)
        self.half_width.setRange(0.005, 0.499)
        self.half_width.setSingleStep(0.01)
        self.half_width.setValue(0.05)
        self.half_width.setToolTip("Half width of the Wilson interval of the responder share")
        named = {
            "Patients drawn from": self.source, "Outcome": self.outcome, "Patients": self.n,
            "Seed": self.seed, "Threshold": self.threshold, "Half width": self.half_width,
            "Antigen": self.antigen,
        }  # fmt: skip
        for words, field in named.items():
            field.setAccessibleName(words)
        self.source.currentIndexChanged.connect(self._fill)
        self.outcome.currentIndexChanged.connect(self._outcome_changed)
        for number in (self.n, self.seed, self.half_width, self.antigen):
            number.valueChanged.connect(self._fill)
        self.threshold.textChanged.connect(self._threshold_changed)
        self.run = button("Run", self._run, "Simulate the same patients under each chosen plan")
        self.stop = button("Cancel", self._controller.cancel)
        self.plans = button("Dose what-if…", self.to_plans.emit, "Go to the plans, and edit them")
        self.organs = button("Organs…", lambda: None)
        self.organs.setMenu(QMenu(self.organs))
        self.organs.setToolTip(
            "Your table of organs for each nuclide: mGy/MBq, or time-integrated activity x S, with "
            "limits in Gy; it is kept in the case"
        )
        self.presets = button("Preset arms", lambda: None)
        self.presets.setMenu(self._preset_menu())
        self.told = wrapped_label()
        self.told.hide()
        self.mass = QWidget()
        self.mass.setLayout(row(QLabel("Antigen, µM"), self.antigen, 1))
        self.state = wrapped_label(bold=True)
        self.results = self._results()
        self._name_threshold()
        body.setLayout(
            column(
                self.mark,
                wrapped_label("Arms: plans of the case", bold=True),
                self._arms,
                row(self.presets, self.plans, 1),
                self.told,
                row(QLabel("Patients from"), self.source),
                row(QLabel("Outcome"), self.outcome),
                row(QLabel("Patients"), self.n, QLabel("Seed"), self.seed, 1),
                row(self.threshold_label, self.threshold),
                row(QLabel("Half width"), self.half_width, 1),
                self.mass,
                row(self.organs, 1),
                row(self.run, self.stop, 1),
                self.state,
                self.results,
                margin=8,
                spacing=6,
            )
        )
        return body

    def _results(self) -> QWidget:
        self.figure = FigureView()
        self.figure.setToolTip(
            "Histogram of each arm, below it median and 5 to 95 %; broken line: threshold; the "
            "highest 1 % may lie beyond the axis"
        )
        self.outcomes = table_of(
            ("Arm", "Outcome", "Responders", "n"),
            (
                "",
                "Median, 5 to 95 % of the patients",
                "Share at or above the threshold (of an organ at or below it), Wilson interval "
                "(95 %)",
                "Patients for this half width of the interval of the share",
            ),
            wide=0,
        )
        self.better = table_of(
            ("Same patients", "P(A better)"),
            (
                "",
                "Share of the same patients with the better outcome in A, of an organ the smaller "
                "one; ties count half",
            ),
            wide=0,
        )
        self.about = wrapped_label(small=True)
        part = QWidget()
        part.setLayout(column(self.figure, self.outcomes, self.better, self.about, spacing=5))
        return part

    # --- reading --------------------------------------------------------------------------------
    def set_open(self, opened: bool) -> None:
        """Show or hide the body; another page may have changed plans or twin."""
        super().set_open(opened)
        if opened:
            self.read()

    def _case_changed(self, *_: object) -> None:
        case = self._controller.workspace.case
        self.setEnabled(case is not None)
        if case is not self._case:
            self._case, self.cohort, self._made, self._stopped = case, None, None, False
            self._unticked.clear()
            if self.body is not None:
                self._tell("")
        self.read()

    def _states_changed(self, *_: object) -> None:
        states = self._controller.workspace.states
        used = (DOSE, UPTAKE, PREDICTION, PARAMETERS)
        seen = [states.get(maker_of(artifact).name) for artifact in used]
        if seen != self._seen:
            self._seen = seen
            self.read()

    def read(self, *_: object) -> None:
        """Read plans and twin again; what was shown is gone until they are known to be the same."""
        space = self._controller.workspace
        self.choice, self._failure = None, ""
        self._asked += 1
        self._fill()
        if space.case is None or space.blind or not self.is_open:
            return
        asked = self._asked
        work = partial(read_cohort_choice, space.case)
        task = self._controller.read_for(space.case, _COHORT, work, partial(self._arrived, asked))
        task.failed.connect(partial(self._failed, asked))

    def _arrived(self, asked: int, choice: CohortChoice) -> None:
        if asked != self._asked:
            return
        self.choice = choice
        if tuple(self.arms) != choice.plans:
            clear(self._arms)
            self.arms = {}
            for name in choice.plans:
                self.arms[name] = box = QCheckBox(name)
                box.setChecked(name not in self._unticked)
                box.toggled.connect(self._chosen)
                self._arms.addWidget(box)
        self._offer_organs(choice)
        self._fill()

    def _failed(self, asked: int, problem: Problem) -> None:
        if asked == self._asked:
            self._failure = problem.sentence
            self._fill()

    def _chosen(self, *_: object) -> None:
        self._unticked = {name for name, box in self.arms.items() if not box.isChecked()}
        self._fill()

    # --- preset arms ----------------------------------------------------------------------------
    def _preset_menu(self) -> QMenu:
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        for key, (words, names) in ARM_SETS.items():
            action = menu.addAction(words)
            lines = [f"{name}: {PRESETS[name].about}" for name in names]
            sources = dict.fromkeys(text for n in names for text in PRESETS[n].plan.sources[1:])
            action.setToolTip("\n".join([*lines, *sources]))
            action.triggered.connect(partial(self._add_arms, key))
        return menu

    def _add_arms(self, key: str, *_: object) -> None:
        """Add presets to the plans of the case, as a job: other pages read the plans again."""
        case = self._controller.workspace.case
        if case is None:
            return
        job = self._controller.start(
            "Preset arms", partial(_steps, "Preset arms", partial(_arms, key), case)
        )
        if job is None:
            return

        def done(names: tuple[str, ...]) -> None:
            space = self._controller.workspace
            if case is space.case:
                self._unticked -= set(names)
                for name in names:
                    if name in self.arms:
                        self.arms[name].setChecked(True)
                self._tell(f"Arms: {', '.join(names)}. Change them on the page 'Dose what-if'.")
                space.events.case.emit(space.case, space.case)
                self._controller.refresh()

        job.done.connect(done)

    # --- outcome and organs ---------------------------------------------------------------------
    @property
    def kind(self) -> CohortOutcome:
        """The chosen outcome."""
        return outcome_kind(self.outcome.currentData())

    def _offer_organs(self, choice: CohortChoice) -> None:
        """Organs of the tables as outcomes, and for each nuclide of the plans its table."""
        before = self.outcome.currentData()
        wanted = [*COHORT_OUTCOMES]
        for names in choice.organs.values():
            wanted += [ORGAN_PREFIX + name for name in names if ORGAN_PREFIX + name not in wanted]
        with QSignalBlocker(self.outcome):
            self.outcome.clear()
            for name in wanted:
                self.outcome.addItem(outcome_kind(name).label, name)
            self.outcome.setCurrentIndex(max(0, self.outcome.findData(before)))
        self._name_threshold()
        menu = self.organs.menu()
        menu.clear()
        for nuclide in choice.nuclides:
            kept = choice.organs.get(nuclide, ())
            words = f"{nuclide}: {', '.join(kept)}" if kept else f"{nuclide}: no table yet"
            menu.addAction(words).triggered.connect(partial(self._ask_organs, nuclide))
        self.mass.setVisible(choice.has_mass)

    def ask_file(self) -> str:
        """Ask for a table of organs; empty if none was chosen."""
        return str(QFileDialog.getOpenFileName(self, "Table of organs", "", "CSV (*.csv)")[0])

    def _ask_organs(self, nuclide: str, *_: object) -> None:
        case, path = self._controller.workspace.case, self.ask_file()
        if case is None or not path:
            return

        def then(found: object) -> None:
            self._tell(f"The organs of {nuclide} are kept in the case.")
            self.read()

        work = partial(keep_organ_table, case.root, nuclide, Path(path))
        task = self._controller.read_for(case, _COHORT, work, then)
        task.failed.connect(lambda problem: self._tell(f"⚠ {problem.sentence}"))

    def _tell(self, text: str) -> None:
        self.told.setText(text)
        self.told.setVisible(bool(text))

    def _outcome_changed(self, *_: object) -> None:
        self._name_threshold()
        self._fill()

    def _threshold_changed(self, text: str) -> None:
        self._typed[self.kind.name] = text
        self._fill()

    def _name_threshold(self) -> None:
        """Unit and text of the threshold of this outcome; each outcome has its own."""
        kind = self.kind
        limit = "limit of the organ" if kind.smaller_is_better else "median of all arms"
        limit = limit if kind.unit == "Gy" else f"{EVEN_CHANCE:g}"
        unit = ", Gy" if kind.unit != "1" else ", 0 to 1"
        self.threshold_label.setText(f"Threshold{unit}")
        self.threshold.setPlaceholderText(limit)
        side = "up to" if kind.smaller_is_better else "from"
        self.threshold.setToolTip(f"Outcome {side} which a patient responds")
        with QSignalBlocker(self.threshold):
            self.threshold.setText(self._typed.get(kind.name, ""))

    # --- showing --------------------------------------------------------------------------------
    def _settings(self) -> dict[str, Any]:
        return {
            "n": self.n.value(),
            "seed": self.seed.value(),
            "names": tuple(name for name, box in self.arms.items() if box.isChecked()),
            "antigen_um": self.antigen.value(),
            "population": self.source.currentData() == _PRIOR,
        }

    def _why_not(self) -> str:
        """Why nothing can be simulated; empty if it can."""
        space, choice = self._controller.workspace, self.choice
        if space.blind:
            return "No numbers: the uptake is hidden until the blind review queue is finished."
        if self._failure:
            return f"✗ No cohort can be simulated. {self._failure}"
        if choice is None:
            return "Reading plans and twin…"
        if choice.problem:
            return f"✗ {choice.problem}."
        if not choice.plans:
            return _NO_ARMS
        settings = self._settings()
        if not settings["names"]:
            return "Choose a plan: each one that is chosen is an arm."
        if not choice.n_taken and not settings["population"]:
            return _NOTHING_TAKEN
        return ""

    def _outdated(self) -> str:
        """Why there are no numbers although something was simulated; empty if they are current."""
        if self._made is None or self.choice is None or self.cohort is None:
            return "Cancelled: run it again." if self._stopped else "Nothing was simulated yet."
        basis, settings = self._made
        if basis != self.choice.basis:
            return "Plans or twin were changed since the last run: run it again."
        return "" if settings == self._settings() else "The settings were changed: run it again."

    def _document(self) -> dict[str, Any]:
        """What is told of the cohort; raises `InputError` for a threshold that is no number."""
        settings, kind = self._settings(), self.kind
        assert self.cohort is not None
        self.cohort.of(kind.name)  # an outcome that is not there is told first
        threshold = cohort_threshold(self.threshold.text(), kind)
        return cohort_document(
            self.cohort,
            drawn_from=_PRIOR if settings["population"] else _POSTERIOR,
            seed=settings["seed"],
            outcome=kind.name,
            threshold=threshold,
            half_width=self.half_width.value(),
        )

    def _fill(self, *_: object) -> None:
        """Show the numbers where they are those of settings, plans and twin; else say why not."""
        if self.body is None:
            return
        self.results.hide()
        self.figure.show_figure(None)
        words = self._why_not()
        if not words:
            words = "Simulating…" if self._running else self._outdated()
        if not words:
            try:
                document = self._document()
            except InputError as error:
                words = f"✗ {error}"
            else:
                words = f"{document['n']} simulated patients from the {document['drawn_from']}."
                self._show_document(document)
        self.state.setText(words)
        self._enable()

    def _show_document(self, document: Mapping[str, Any]) -> None:
        cohort = self.cohort
        assert cohort is not None
        _fill(self.outcomes, rows := cohort_arm_rows(document), [False] * len(rows))
        _fill(self.better, pairs := cohort_pair_rows(document), [False] * len(pairs))
        self.better.setVisible(bool(pairs))
        self.about.setText("\n".join(cohort_words(document)))
        unit = "" if document["unit"] == "1" else document["unit"]
        share = "Within" if document["better_is"] == "smaller" else "Responders"
        heads = {1: unit or "TCP", 2: share, 3: f"n, ±{document['half_width']:g}"}
        for place, words in heads.items():
            head = self.outcomes.horizontalHeaderItem(place)
            assert head is not None
            head.setText(words)
        self.figure.setFixedHeight(min(_MOST_PX, _AXIS_PX + _ARM_PX * len(cohort.arms)))
        self.results.show()
        self.figure.show_when_seen(partial(cohort_figure, cohort, document))

    def _enable(self, *_: object) -> None:
        if self.body is None:
            return
        idle = self._controller.workspace.job is None
        self.run.setEnabled(idle and not self._why_not())
        self.stop.setVisible(self._running and not idle)
        self.organs.setEnabled(idle and self.choice is not None and bool(self.choice.nuclides))
        self.presets.setEnabled(idle and self.choice is not None)

    # --- running --------------------------------------------------------------------------------
    def _run(self) -> None:
        case, choice = self._controller.workspace.case, self.choice
        if case is None or choice is None:
            return
        settings = self._settings()
        job = self._controller.start(_COHORT, partial(_simulate, settings, case))
        if job is None:
            return
        self.cohort, self._made, self._running, self._stopped = None, None, True, False
        self._fill()

        def done(found: PlanCohort) -> None:
            if case is self._controller.workspace.case:
                self.cohort, self._made = found, (choice.basis, settings)

        job.done.connect(done)
        job.cancelled.connect(self._cancelled)
        job.ended.connect(self._ended)

    def _cancelled(self) -> None:
        self._stopped = True

    def _ended(self) -> None:
        self._running = False
        self.read()


def _arms(key: str, case: Case) -> tuple[str, ...]:
    return add_arms(case.root, key)


def _simulate(settings: Mapping[str, Any], case: Case) -> Steps:
    work = plan_cohort(CaseTwin(case), **settings)
    return (yield from map_progress(work, lambda progress: (_COHORT, progress)))
