"""Which predictor the case uses: train one on the cohort, or choose one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QComboBox, QFileDialog, QWidget

from napari_mosaik.core.catalogue import PREDICTION
from napari_mosaik.view.formatting import count
from napari_mosaik.widgets.base.controls import button, column, row, shrinkable, wrapped_label
from napari_mosaik.workflow.predictors import (
    Predictor,
    choose_predictor,
    known_predictors,
    train_on_cohort,
)
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.steps import maker_of

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case
    from napari_mosaik.widgets.base.case_controller import CaseController

__all__ = ["PredictorPanel"]

_STEP = maker_of(PREDICTION)
_SPLITS = (("all other cases", "case"), ("cases of other patients", "patient"))


class PredictorPanel(QWidget):
    """The predictor in use, and the two ways to another one."""

    def __init__(self, controller: CaseController) -> None:
        super().__init__()
        self._controller = controller
        self.line = wrapped_label(bold=True)
        self.split = QComboBox()
        for text, value in _SPLITS:
            self.split.addItem(text, value)
        shrinkable(self.split)
        self.split.setToolTip(
            "Cases of the same patient in training make the error look smaller than it would be "
            "for a new patient"
        )
        self.train = button(
            "Train on the cohort",
            self._train,
            "Run what the other cases lack, and train the predictor without this case",
        )
        self.choice = QComboBox()
        shrinkable(self.choice)
        self.use = button("Use", self._use, "Predict this case by the chosen predictor")
        self.browse = button("From a folder…", self._browse, "The folder of a trained predictor")
        self.setLayout(
            column(
                self.line,
                row(self.train, 1),
                row(wrapped_label("trained on"), self.split),
                row(self.choice, self.use),
                row(self.browse, 1),
                spacing=4,
            )
        )
        events = controller.workspace.events
        for signal in (events.case, events.recipe, events.job, events.cohort):
            signal.connect(self.show_case)
        self.show_case()

    def show_case(self, *_: object) -> None:
        """Show the predictor of the open case and those that it could use."""
        space = self._controller.workspace
        case, idle = space.case, space.job is None
        known = [] if case is None else known_predictors(case, space.cohort)
        used = str(getattr(space.recipe.get(_STEP.name), _STEP.needs_model, ""))
        current = next((one for one in known if one.folder.name == used), None)
        if current is not None:
            self.line.setText(f"Predictor {current.title}")
        elif used:
            self.line.setText(f"Predictor {used[:8]}")
        else:
            self.line.setText("No trained predictor: train one on the cohort, or choose one")
        others = len(space.cohort) - 1
        self.train.setEnabled(idle and others > 0)
        self.train.setText("Train again on the cohort" if used else "Train on the cohort")
        if others > 0:
            self.train.setToolTip(
                f"Run what the {count(others, 'other case')} of the cohort lack, and train the "
                "predictor without this case"
            )
        else:
            self.train.setToolTip("Open the folder that holds several cases with a measured PET")
        self._offer([one for one in known if one.folder.name != used], idle)

    def _offer(self, known: list[Predictor], idle: bool) -> None:
        self.choice.clear()
        for one in known:
            self.choice.addItem(one.title, one.folder)
        self.choice.setVisible(bool(known))
        self.use.setVisible(bool(known))
        self.use.setEnabled(idle)
        self.browse.setEnabled(idle)

    # --- actions --------------------------------------------------------------------------------
    def _train(self) -> None:
        space = self._controller.workspace
        if space.case is None:
            return
        case, cohort, split = space.case, space.cohort, self.split.currentData()
        job = self._controller.start(
            "Train predictor", lambda: train_on_cohort(cohort, case.name, split)
        )
        if job is not None:
            job.done.connect(lambda _: self._adopted(case))

    def _use(self) -> None:
        self._choose(self.choice.currentData())

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of a trained predictor")
        if folder:
            self._choose(Path(folder))

    def _choose(self, folder: Path) -> None:
        case = self._controller.workspace.case
        if case is not None:
            self._controller.read_for(
                case,
                "Predictor",
                lambda: choose_predictor(case, folder),
                lambda _: self._adopted(case),
            )

    def _adopted(self, case: Case) -> None:
        """Show the settings with the new predictor; its prediction can be run now."""
        if case is self._controller.workspace.case:
            self._controller.take_recipe(read_recipe(case.root))
