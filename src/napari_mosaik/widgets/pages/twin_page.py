"""Page *Updating twin*: predict a scan, take it in, learn from it, use it in the dose.

Numbers are shown only while they are those of the stored twin: while it is read again, after
another case was opened, or where it cannot be read, there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFrame,
    QLabel,
    QLineEdit,
    QTableWidget,
    QWidget,
)

from napari_mosaik.core import Artifact, InputError, Progress, palette
from napari_mosaik.core.catalogue import UPTAKE
from napari_mosaik.core.progress import map_progress
from napari_mosaik.view.twin import (
    TwinPicture,
    day_words,
    decision_lines,
    is_prior_only,
    parameter_strip_figure,
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
    column,
    fill_table,
    grey_text,
    row,
    shrinkable,
    table_of,
    wrapped_label,
)
from napari_mosaik.widgets.base.figure_view import FigureImage
from napari_mosaik.widgets.pages.pages import Page
from napari_mosaik.workflow.plans import plan_files, restore_plans
from napari_mosaik.workflow.steps import maker_of
from napari_mosaik.workflow.twin import TWIN_LIMITS, CaseTwin

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case
    from napari_mosaik.widgets.base.case_controller import CaseController
    from napari_mosaik.widgets.base.worker import Problem, Steps

__all__ = ["NO_PLANS", "ReadPage", "TwinPage", "fill_lines", "in_one_step"]

_TITLE = "Updating twin"
_CURVE_PX, _STRIP_PX = 380, 190
_NO_SCANS = (
    "This case has no scan of tumour or blood in invivo.csv. Type, import or measure them on the "
    "page 'Uptake in vivo', or with: napari-mosaik invivo CASE add. Then predict the first one."
)
NO_PLANS = "The case has no dose plan yet: make one on the page 'Dose what-if'."
_PlanFiles = tuple[Mapping[str, bytes], Mapping[str, bytes]]
"""The files of the plans before the twin changed one, and after it."""


class ReadPage(Page):
    """A page of numbers that are read from the open case, off the window's thread.

    They are gone while they are read again, where they cannot be read, in another case, and while
    a blind queue hides the uptake.  Of several readings the one that was begun last counts.
    """

    def __init__(
        self, title: str, controller: CaseController, used: Sequence[Artifact[Any]]
    ) -> None:
        super().__init__(title)
        self._controller = controller
        self._failure = ""
        self._case: object = None
        self._asked = 0
        self._makers = tuple(maker_of(artifact).name for artifact in used)
        self._states: list[Any] = []
        events = controller.workspace.events
        events.case.connect(self._case_changed)
        events.blind.connect(self.read)
        events.states.connect(self._states_changed)
        events.job.connect(self._enable)

    def set_open(self, opened: bool) -> None:
        """Show or hide the body; another page may have changed what is shown."""
        super().set_open(opened)
        if opened:
            self.read()

    def _case_changed(self, *_: object) -> None:
        case = self._controller.workspace.case
        self.setEnabled(case is not None)
        if case is not self._case:
            self._case = case
            self._forget()
        self.read()

    def _states_changed(self, *_: object) -> None:
        """Read again where a result that is used is another one."""
        states = [self._controller.workspace.states.get(name) for name in self._makers]
        if states != self._states:
            self._states = states
            self.read()

    def _forget(self) -> None:
        """Drop what belongs to the case before."""
        raise NotImplementedError

    def read(self, *_: object) -> None:
        """Read again; what was shown is gone at once."""
        raise NotImplementedError

    def _begin(self) -> Case | None:
        """Begin a reading; the case to read, None where nothing may be shown."""
        space = self._controller.workspace
        self._failure = ""
        self._asked += 1
        return None if space.blind else space.case

    def _read(self, case: Case, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        asked = self._asked

        def arrived(found: Any) -> None:
            if asked == self._asked:
                then(found)

        def failed(problem: Problem) -> None:
            if asked == self._asked:
                self._failure = problem.sentence
                self._show()

        self._controller.read_for(case, self.title, work, arrived).failed.connect(failed)

    def _show(self, *_: object) -> None:
        """Show what is known now, or why there is nothing."""
        raise NotImplementedError

    def _enable(self, *_: object) -> None:
        """Enable what can be done now."""
        raise NotImplementedError


class TwinPage(ReadPage):
    """The twin of the open case; ``to_values`` asks for the page of the values in vivo."""

    to_values = Signal()

    def __init__(self, controller: CaseController) -> None:
        # The last scan is the slice: its uptake may be another one.
        super().__init__(_TITLE, controller, (UPTAKE,))
        self.picture: TwinPicture | None = None
        self._undo: _PlanFiles | None = None
        self._recover = False
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
        self.predict.setToolTip("Stores the prediction of the next scan before it is taken in")
        self.take = button("Take in scan", self._take_in)
        self.take.setToolTip(
            "Scores the prediction (it is stored first) and updates the twin; the record is kept "
            "permanently and cannot be undone"
        )
        self.recover = QCheckBox("")
        self.recover.setToolTip(
            "Divides the mean of the slice by the fraction of a uniform uptake that its PET shows; "
            "only where the uptake is roughly uniform"
        )
        self.message = wrapped_label()
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
                self.message,
                self.body_part,
                margin=8,
                spacing=6,
            )
        )
        return body

    def _scans(self) -> tuple[Any, ...]:
        self.shown = shrinkable(QComboBox())
        self.shown.setToolTip("Band after this scan; grey: before it")
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
            wrapped_label("Identifiability", bold=True),
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
            "Gives the plan the time course of the twin, with a curve for each draw of the plan"
        )
        self.undo = button("Undo", self._take_back, "Restores the plans before Use in dose")
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
            "Adds plan, name and the present state and prediction to the record; lines are only "
            "added"
        )
        self.decisions = wrapped_label(small=True)
        self.which = shrinkable(QComboBox())
        self.seen = QLineEdit()
        self.seen.setPlaceholderText("observed later")
        self.observe = button(
            "Add", self._observe, "Adds it to that decision; lines are only added"
        )
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
    def _forget(self) -> None:
        self._undo = None
        if self.body is not None:
            self.recover.setChecked(False)
            for label in (self.message, self.used):
                label.setText("")
            self.by.setText(self._controller.workspace.reader)

    def read(self, *_: object) -> None:
        """Read the twin again; what was shown of it is gone at once."""
        self.picture = None
        case = self._begin()
        self._show()
        if case is None:
            return
        if self.is_open:
            self._read(case, partial(read_twin, case), self._arrived)
        else:
            self._read(case, partial(twin_line, case), self._line_arrived)

    def _line_arrived(self, line: str) -> None:
        self.head.show_state("done" if line and line[0] != "0" else "", line)

    def _arrived(self, picture: TwinPicture) -> None:
        self.picture = picture
        self._fill()

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
        fill_lines(self.scans, rows, [texts[2] == "not taken in" for texts in rows])
        rows = twin_parameter_rows(picture)
        fill_lines(self.parameters, rows, [is_prior_only(texts) for texts in rows])
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
        self.message.setVisible(bool(self.message.text()))
        self.used.setVisible(bool(self.used.text()))
        self.later.setVisible(picture is not None and bool(picture.decisions))
        if picture is not None and not picture.plans:
            self.used.setText(NO_PLANS)
            self.used.show()
        self._enable()

    def _enable(self, *_: object) -> None:
        if self.body is None:
            return
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
        steps = taking if work is None else partial(in_one_step, title, work)
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
        self._tell(f"Stored: the prediction of {day_words(found['time_h'])}.")

    def _take_in(self) -> None:
        self._recover = self.recover.isVisible() and self.recover.isChecked()
        self._start("Take in scan", None, self._taken_in)

    def _taken_in(self, found: Mapping[str, Any]) -> None:
        words = f"Taken in: {day_words(found['time_h'])}, z {signed(found['z'])}"
        self._tell("\n".join([f"{words}, log score {found['log_score']:.1f}.", *found["notes"]]))

    def _tell(self, text: str) -> None:
        self.message.setText(text)

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


def fill_lines(table: QTableWidget, rows: list[tuple[str, ...]], grey: list[bool]) -> None:
    """Fill a table whose cells have several lines; grey rows are of what is not known."""
    fill_table(table, rows)
    for place, is_grey in enumerate(grey):
        for at in range(table.columnCount()):
            item = table.item(place, at)
            if is_grey and item is not None:
                item.setForeground(QColor(grey_text()))
    table.resizeRowsToContents()
    table.setFixedHeight(30 + sum(table.rowHeight(place) for place in range(len(rows))))


def _offer(box: QComboBox, names: Any) -> None:
    """Offer these names, the chosen one again if it is there."""
    before = box.currentText()
    box.clear()
    box.addItems(list(names))
    box.setCurrentIndex(max(0, box.findText(before)) if box.count() else -1)


def in_one_step(title: str, work: Callable[[Case], Any], case: Case) -> Steps:
    """Work on a case that cannot be cancelled, as a job."""
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
