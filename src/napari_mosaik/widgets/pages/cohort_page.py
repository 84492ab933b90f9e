"""Page *Virtual cohort*: simulate patients under each plan.

Numbers are shown only while they are those of the settings, the plans and the stored twin.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import QSignalBlocker, Signal
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
    QWidget,
)

from napari_mosaik.core import InputError
from napari_mosaik.core.catalogue import DOSE, PARAMETERS, PREDICTION, UPTAKE
from napari_mosaik.core.progress import map_progress
from napari_mosaik.view.twin import (
    CohortChoice,
    cohort_arm_rows,
    cohort_figure,
    cohort_pair_rows,
    cohort_words,
    read_cohort_choice,
)
from napari_mosaik.widgets.base.controls import (
    button,
    clear,
    column,
    row,
    shrinkable,
    table_of,
    wrapped_label,
)
from napari_mosaik.widgets.base.figure_view import FigureImage
from napari_mosaik.widgets.pages.twin_page import NO_PLANS, ReadPage, fill_lines, in_one_step
from napari_mosaik.workflow.plan_presets import ARM_SETS, PRESETS
from napari_mosaik.workflow.plans import add_arms
from napari_mosaik.workflow.twin import CaseTwin
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
    from napari_mosaik.widgets.base.worker import Steps
    from napari_mosaik.workflow.virtual_cohort import PlanCohort

__all__ = ["CohortPage"]

_TITLE = "Virtual cohort"
_NO_ARMS = f"{NO_PLANS[:-1]}, or choose preset arms."
_POSTERIOR, _PRIOR = "posterior", "prior"
_DEFAULT_N: Final = 400
_COUNT_PX, _SEED_PX = 145, 85
_ARM_PX, _AXIS_PX, _MAX_PX = 70, 75, 460
_NOTHING_TAKEN = (
    "No scan was taken in, so there is no posterior: take one in on the page 'Updating twin', or "
    "draw from the prior."
)


class CohortPage(ReadPage):
    """Simulated patients under the plans of the case; ``to_plans`` asks for the page of plans.

    Numbers are shown only while settings, plans and twin are those of the run.
    """

    to_plans = Signal()

    def __init__(self, controller: CaseController) -> None:
        super().__init__(_TITLE, controller, (DOSE, UPTAKE, PREDICTION, PARAMETERS))
        self.head.show_state("", SIMULATED)
        self.choice: CohortChoice | None = None
        self.cohort: PlanCohort | None = None
        self._made: tuple[object, object] | None = None
        self._unticked: set[str] = set()
        self._running = self._stopped = False
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
        self.source.currentIndexChanged.connect(self._show)
        self.outcome.currentIndexChanged.connect(self._outcome_changed)
        for number in (self.n, self.seed, self.half_width, self.antigen):
            number.valueChanged.connect(self._show)
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
        self.message = wrapped_label()
        self.message.hide()
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
                self.message,
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
        self.figure = FigureImage(self._controller.read)
        self.figure.setToolTip(
            "Histogram of each arm, below it median and 5 to 95 %; dashed line: threshold; the "
            "highest 1 % may lie beyond the axis"
        )
        self.outcomes = table_of(
            ("Arm", "Outcome", "Responders", "n"),
            (
                "",
                "Median, 5 to 95 % of the patients",
                "Fraction at or above the threshold (organ: at or below it), Wilson interval "
                "(95 %)",
                "Patients needed for this half width of the interval",
            ),
            wide=0,
        )
        self.better = table_of(
            ("Same patients", "P(A better)"),
            (
                "",
                "Fraction of the same patients with the better outcome in A (organ: the smaller "
                "dose); ties count half",
            ),
            wide=0,
        )
        self.about = wrapped_label(small=True)
        part = QWidget()
        part.setLayout(column(self.figure, self.outcomes, self.better, self.about, spacing=5))
        return part

    # --- reading --------------------------------------------------------------------------------
    def _forget(self) -> None:
        self.cohort, self._made, self._stopped = None, None, False
        self._unticked.clear()
        if self.body is not None:
            self._tell("")

    def read(self, *_: object) -> None:
        """Read plans and twin again; what was shown is gone until they are known to be the same."""
        self.choice = None
        case = self._begin()
        self._show()
        if case is not None and self.is_open:
            self._read(case, partial(read_cohort_choice, case), self._arrived)

    def _arrived(self, choice: CohortChoice) -> None:
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
        self._show()

    def _chosen(self, *_: object) -> None:
        self._unticked = {name for name, box in self.arms.items() if not box.isChecked()}
        self._show()

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
            "Preset arms", partial(in_one_step, "Preset arms", partial(_arms, key), case)
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
        task = self._controller.read_for(case, _TITLE, work, then)
        task.failed.connect(lambda problem: self._tell(f"⚠ {problem.sentence}"))

    def _tell(self, text: str) -> None:
        self.message.setText(text)
        self.message.setVisible(bool(text))

    def _outcome_changed(self, *_: object) -> None:
        self._name_threshold()
        self._show()

    def _threshold_changed(self, text: str) -> None:
        self._typed[self.kind.name] = text
        self._show()

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
            return "Choose at least one plan: each chosen plan is an arm."
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
        """The report on the cohort; raises `InputError` for a threshold that is not a number."""
        settings, kind = self._settings(), self.kind
        assert self.cohort is not None
        self.cohort.of(kind.name)  # an outcome that is not there is reported first
        threshold = cohort_threshold(self.threshold.text(), kind)
        return cohort_document(
            self.cohort,
            drawn_from=_PRIOR if settings["population"] else _POSTERIOR,
            seed=settings["seed"],
            outcome=kind.name,
            threshold=threshold,
            half_width=self.half_width.value(),
        )

    def _show(self, *_: object) -> None:
        """Show the numbers where they are those of settings, plans and twin; else say why not."""
        if self.body is None:
            return
        self.results.hide()
        self.figure.show_when_seen(None)
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
        fill_lines(self.outcomes, rows := cohort_arm_rows(document), [False] * len(rows))
        fill_lines(self.better, pairs := cohort_pair_rows(document), [False] * len(pairs))
        self.better.setVisible(bool(pairs))
        self.about.setText("\n".join(cohort_words(document)))
        unit = "" if document["unit"] == "1" else document["unit"]
        share = "Within" if document["better_is"] == "smaller" else "Responders"
        heads = {1: unit or "TCP", 2: share, 3: f"n, ±{document['half_width']:g}"}
        for place, words in heads.items():
            head = self.outcomes.horizontalHeaderItem(place)
            assert head is not None
            head.setText(words)
        self.figure.setFixedHeight(min(_MAX_PX, _AXIS_PX + _ARM_PX * len(cohort.arms)))
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
        job = self._controller.start(_TITLE, partial(_simulate, settings, case))
        if job is None:
            return
        self.cohort, self._made, self._running, self._stopped = None, None, True, False
        self._show()

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
    return (yield from map_progress(work, lambda progress: (_TITLE, progress)))
