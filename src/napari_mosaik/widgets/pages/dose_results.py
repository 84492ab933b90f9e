"""What was computed for a plan: indices, histogram, time course, maps and the plan beside it.

Numbers are shown only while they are those of the stored plans: never beside a stale or failed run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel, QTableWidgetItem, QWidget

from napari_mosaik.core.catalogue import DOSE
from napari_mosaik.view.dose import (
    DOSE_FIGURES,
    DOSE_MAPS,
    DoseResults,
    PlanDose,
    index_tips,
    monte_carlo_lines,
    organ_lines,
    read_dose,
)
from napari_mosaik.widgets.base.controls import (
    Collapsible,
    button,
    calm_wheel,
    column,
    fill_table,
    row,
    shrinkable,
    table_of,
    wrapped_label,
)
from napari_mosaik.widgets.base.figure_view import FigureImage
from napari_mosaik.widgets.canvas.side_by_side import ModelMaps
from napari_mosaik.workflow.dose_exchange import compare_dose, organ_limits
from napari_mosaik.workflow.steps import maker_of

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case
    from napari_mosaik.widgets.base.worker import Problem
    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["DoseResultsView"]

_STEP = maker_of(DOSE)
_ALONE = "no other plan"
_PLOT_PX = 260
_TABLE_TIPS = (
    "Hover over an entry for its meaning",
    "Median and 90 % interval of the draws",
    "The plan that it is compared with",
    "This plan minus the other one, draw by draw",
)
_NOT_DONE = {
    "missing": "– No result yet: Run computes all saved plans.",
    "stale": "↻ No current result ({}). Run again.",
    "blocked": "⊘ No result ({}).",
}
"""What is shown in place of numbers, by the state of the step."""


class DoseResultsView(QWidget):
    """Results of one plan and, if there are several, of another one beside it.

    ``changed`` is emitted when `plan_dose` may be another one.
    """

    changed = Signal()

    def __init__(self, link: CanvasLink) -> None:
        super().__init__()
        self._link, self._board, self._controller = link, link.board, link.board.controller
        self.results: DoseResults | None = None
        self.maps = ModelMaps(link)
        self._plan, self._unsaved, self._failed = "", False, ""
        self._asked = 0
        self.state = wrapped_label(bold=True)
        self.basis = wrapped_label(small=True)
        self.doubts = wrapped_label(small=True)
        self.beside = shrinkable(QComboBox())
        self.beside.setToolTip("A second plan to compare with: indices, curves and maps")
        self.beside.currentIndexChanged.connect(lambda _: self._fill())
        self.table = table_of(("Index", "Plan", "Beside", "Difference"), _TABLE_TIPS, wide=3)
        small = self.table.font()
        small.setPointSizeF(0.9 * small.pointSizeF())
        self.table.setFont(small)
        self.source = wrapped_label(bold=True)
        self.kind = shrinkable(QComboBox())
        self.kind.addItems(list(DOSE_FIGURES))
        self.kind.currentIndexChanged.connect(lambda _: self._plot())
        self.plot = FigureImage(self._controller.read)
        self.plot.setMinimumHeight(_PLOT_PX)
        self.which = shrinkable(QComboBox())
        self.which.setToolTip("All plans have one colour scale")
        self.show_map = button("Show map", self._show_map, "On the slide")
        self.side = button("Side by side", self._side_by_side)
        self.side.setToolTip("This map of both plans, with linked cameras and one colour scale")
        self.export = button("Export…", self._export)
        self.export.setToolTip(
            "Tiles as CSV, maps as OME-Zarr, the activity as NIfTI, and the record, in a folder"
        )
        self.exported = wrapped_label(small=True)
        self.monte_carlo = button(
            "Monte Carlo dose…",
            partial(self._compare, "NIfTI (*.nii *.nii.gz)", compare_dose, monte_carlo_lines),
            "A dose map in Gy of another program, on the voxels of the exported activity",
        )
        self.organs = button(
            "Organs…",
            partial(self._compare, "CSV (*.csv)", organ_limits, organ_lines),
            "Your table of organs: mGy/MBq, or time-integrated activity x S, with limits in Gy",
        )
        self.compared = wrapped_label()
        self.constants = table_of(("Constant", "Value", "Source"), ("",) * 3, 2, fixed_px=96)
        self.constants.setMinimumHeight(220)
        self.fold = Collapsible("Constants and their sources", self.constants)
        self.fold.toggled.connect(self._fill_constants)
        self.limits = wrapped_label(small=True)
        self._numbers = QWidget()
        self._numbers.setLayout(
            column(
                self.basis,
                self.doubts,
                row(QLabel("Beside"), self.beside),
                self.table,
                self.source,
                self.kind,
                self.plot,
                row(QLabel("Map"), self.which),
                row(self.show_map, self.side, self.export, 1),
                self.exported,
                row(self.monte_carlo, self.organs, 1),
                self.compared,
                self.fold,
                self.limits,
                spacing=5,
            )
        )
        self.setLayout(column(self.state, self._numbers, spacing=4))
        calm_wheel(self)
        self.maps.changed.connect(self._show_side)
        link.readings.append(self.reading)
        events = self._controller.workspace.events
        events.case.connect(self._case_changed)
        events.states.connect(self._read)
        events.problem.connect(self._problem)
        events.job.connect(self._show)
        events.blind.connect(self._read)
        self._read()

    # --- which results --------------------------------------------------------------------------
    @property
    def plan_dose(self) -> PlanDose | None:
        """The results of the plan that is shown; None where there are none that are current."""
        return None if self.results is None else self.results.plans.get(self._plan)

    @property
    def other(self) -> PlanDose | None:
        """The plan beside it; None without one."""
        name = self.beside.currentData()
        return None if self.results is None or not name else self.results.plans.get(name)

    def show_plan(self, name: str, *, unsaved: bool) -> None:
        """Show the results of the stored plan of that name; *unsaved*: it was changed since."""
        if (name, unsaved) != (self._plan, self._unsaved):
            other = name != self._plan
            self._plan, self._unsaved = name, unsaved
            if other:
                self._offer()
            else:
                self._show()

    def reading(self, tile: int) -> str:
        """The tile under the mouse in words; empty without current results."""
        found = self.plan_dose
        line = "" if found is None else found.line(tile)
        several = self.results is not None and len(self.results.plans) > 1
        return f"{self._plan}: {line}" if line and several else line

    def _case_changed(self, *_: object) -> None:
        self._failed = ""
        self.exported.setText("")
        self._read()

    def _read(self, *_: object) -> None:
        """Read the results if they are current; those of before are gone at once."""
        space = self._controller.workspace
        self.results = None
        self._asked = asked = self._asked + 1
        state = space.states.get(_STEP.name)
        if space.case is None or space.blind or state is None or state.word != "done":
            self._board.hide_results(_STEP.name)
            self._offer()
            return

        def then(found: DoseResults | None) -> None:
            if asked == self._asked:
                self.results = found
                self._failed = ""
                self._offer()

        self._show()
        self._controller.read_for(space.case, _STEP.title, partial(read_dose, space.case), then)

    def _problem(self, problem: Problem | None, *_: object) -> None:
        """Remember that the last run failed until another one begins."""
        if problem is None:
            self._failed = ""
        elif problem.action == _STEP.title:
            self._failed = problem.sentence
        self._show()

    # --- showing --------------------------------------------------------------------------------
    def _offer(self) -> None:
        """Offer the other plans and the maps that there are."""
        self.compared.setText("")  # it was about other results
        plans, found = ({} if self.results is None else self.results.plans), self.plan_dose
        names = [name for name in plans if name != self._plan]
        before, map_before = self.beside.currentData(), self.which.currentData()
        with QSignalBlocker(self.beside):
            self.beside.clear()
            self.beside.addItem(_ALONE, "")
            for name in names:
                self.beside.addItem(name, name)
            self.beside.setCurrentIndex(max(0, self.beside.findData(before)))
        with QSignalBlocker(self.which):
            self.which.clear()
            if found is not None and self.results is not None:
                for key in self.results.keys(found.name):
                    self.which.addItem(DOSE_MAPS[key], key)
            self.which.setCurrentIndex(max(0, self.which.findData(map_before)))
        if found is not None:  # its maps, wherever those of a plan are shown from now on
            self._board.choose(_STEP.name, found.name)
        if self.maps.is_on and self.plan_dose is None:
            self.maps.prepare([], ())
        self._fill()

    def _fill(self) -> None:
        found, other = self.plan_dose, self.other
        if found is not None:
            rows = found.index_rows(other)
            self.table.setColumnHidden(2, other is None)
            self.table.setHorizontalHeaderItem(3, QTableWidgetItem("Difference" if other else ""))
            fill_table(self.table, rows)
            for place, tip in enumerate(index_tips(found, other)):
                item = self.table.item(place, 0)
                if item is not None:
                    item.setToolTip(tip)
            self.table.resizeRowsToContents()
            heights = [self.table.rowHeight(place) for place in range(len(rows))]
            self.table.setFixedHeight(28 + sum(heights))
            self.basis.setText(f"{found.basis_line[:1].upper()}{found.basis_line[1:]}.")
            self.doubts.setText("\n".join(f"⚠ {text}" for text in found.doubts))
            self.doubts.setVisible(bool(found.doubts))
            self.source.setText(found.source_line)
            self._fill_constants()
            assert self.results is not None
            self.limits.setText("\n".join(self.results.limitations))
        self._plot()
        self._show()
        self.changed.emit()

    def _fill_constants(self, *_: object) -> None:
        """Fill the table of constants while it is open: it is long."""
        found = self.plan_dose
        if found is not None and not self.constants.isHidden():
            fill_table(self.constants, found.constant_rows())

    def _plot(self) -> None:
        found, draw = self.plan_dose, DOSE_FIGURES[self.kind.currentText()]
        if found is None:
            self.plot.show_when_seen(None)
        else:
            shown = [found] if self.other is None else [found, self.other]
            self.plot.show_when_seen(partial(draw, shown))

    def _show(self, *_: object) -> None:
        found = self.plan_dose
        self._numbers.setVisible(found is not None)
        self.state.setText(self._words())
        self.state.setVisible(bool(self.state.text()))
        self.side.setEnabled(self.maps.is_on or self.other is not None)
        for label in (self.exported, self.compared):
            label.setVisible(bool(label.text()))
        self._show_side()

    def _show_side(self, *_: object) -> None:
        self.side.setText("Back to layers" if self.maps.is_on else "Side by side")

    def _words(self) -> str:
        """Whether there are results, and of what."""
        space = self._controller.workspace
        if space.case is None or not self._plan:
            return ""
        if space.running == _STEP.name:
            return "▸ Being computed."
        return self._lacking() or (
            f"Results of '{self._plan}' as saved; what you changed since is not in them."
            if self._unsaved
            else f"Results of '{self._plan}'"
        )

    def _lacking(self) -> str:
        """Why there is no current result; empty if there is one."""
        space = self._controller.workspace
        state = space.states.get(_STEP.name)
        word = "missing" if state is None else state.word
        if space.blind:
            return "No result: the uptake is hidden until the blind review queue is finished."
        if self._failed:
            return f"✗ No result: the last run failed. {self._failed}"
        if word != "done":
            reason = "" if state is None else state.reason
            return _NOT_DONE[word].format(reason)
        if self.results is None:
            return "Reading the results…"
        known = self.plan_dose is not None
        return "" if known else "– No result of this plan yet: save it and run."

    # --- the canvas -----------------------------------------------------------------------------
    def _show_map(self) -> None:
        """Show one map of the plan on the slide; its other maps are offered."""
        found, key = self.plan_dose, self.which.currentData()
        if found is None or self.results is None or not key:
            return
        self.maps.leave()
        spec = self.results.layer(found.name, key)
        if spec is not None:
            self._board.show_choice(_STEP.name, found.name, spec.name)

    def _side_by_side(self) -> None:
        if self.maps.is_on:
            self.maps.leave()
            return
        found, other, key = self.plan_dose, self.other, self.which.currentData()
        if found is None or other is None or self.results is None or not key:
            return
        specs = [self.results.layer(one.name, key) for one in (found, other)]
        given = [spec for spec in specs if spec is not None]
        if len(given) < len(specs):
            self.state.setText(f"'{other.name}' has no map '{DOSE_MAPS[key]}'.")
            return
        unit = "" if key == "survival" else ", Gy"
        headings = tuple(f"{one.name}: {DOSE_MAPS[key]}{unit}" for one in (found, other))
        self.maps.show(given, headings)

    # --- export ---------------------------------------------------------------------------------
    def _export(self) -> None:
        folder = self.ask_folder()
        found, case = self.plan_dose, self._controller.workspace.case
        if not folder or found is None or self.results is None or case is None:
            return
        self._say(self.exported, "Writing…")
        work = partial(_write, self.results, found.name, Path(folder), case)
        task = self._controller.read_for(case, "Export", work, self._written)
        task.failed.connect(lambda problem: self._say(self.exported, f"⚠ {problem.sentence}"))

    def _compare(
        self,
        kind: str,
        compare: Callable[[Case, str, Path], dict[str, Any]],
        lines: Callable[[Mapping[str, Any]], list[str]],
    ) -> None:
        """Set the plan beside a file of the user, and say what came out."""
        path = self.ask_file(kind)
        found, case = self.plan_dose, self._controller.workspace.case
        if not path or found is None or case is None:
            return

        def then(record: dict[str, Any]) -> None:
            if self.plan_dose is not None and self.plan_dose.name == record["plan_name"]:
                self._say(self.compared, "\n".join(lines(record)))

        self._say(self.compared, "Reading…")
        work = partial(compare, case, found.name, Path(path))
        task = self._controller.read_for(case, "File", work, then)
        task.failed.connect(lambda problem: self._say(self.compared, f"⚠ {problem.sentence}"))

    def _say(self, label: QLabel, text: str) -> None:
        label.setText(text)
        label.setVisible(bool(text))

    def ask_file(self, kind: str) -> str:
        """Ask for a file; empty if none was chosen."""
        return str(QFileDialog.getOpenFileName(self, "File of another program", "", kind)[0])

    def ask_folder(self) -> str:
        """Ask for a folder; empty if none was chosen."""
        return str(QFileDialog.getExistingDirectory(self, "Folder for the results of the plan"))

    def _written(self, folder: Path) -> None:
        self._say(self.exported, f"Written: {folder}")


def _write(results: DoseResults, name: str, folder: Path, case: Case) -> Path:
    return results.export(name, folder, case)
