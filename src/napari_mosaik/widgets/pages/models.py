"""Models in the window: the tab *Models*, and which predictor the page *Predictor* uses.

The tab lists all models; one is adopted or fine-tuned, two are compared.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFileDialog,
    QLabel,
    QSpinBox,
    QTableWidget,
    QWidget,
)

from napari_mosaik.core import InputError
from napari_mosaik.core.catalogue import PREDICTION
from napari_mosaik.core.progress import map_progress
from napari_mosaik.io.case import Case
from napari_mosaik.view.case_results import transform_to_reference
from napari_mosaik.view.formatting import count
from napari_mosaik.view.models import (
    card_lines,
    comparison_layers,
    comparison_line,
    comparison_lines,
    loss_figure,
    model_title,
)
from napari_mosaik.widgets.base.controls import (
    Collapsible,
    button,
    column,
    fill_table,
    row,
    shrinkable,
    table_of,
    wrapped_label,
)
from napari_mosaik.widgets.base.figure_view import FigureView
from napari_mosaik.widgets.canvas.side_by_side import ModelMaps
from napari_mosaik.workflow.model_comparison import ModelComparison, compare_models
from napari_mosaik.workflow.models import (
    KnownModel,
    adopt_model,
    export_model,
    import_model,
    known_models,
    roll_back,
    with_cohort,
)
from napari_mosaik.workflow.predictors import (
    Predictor,
    choose_predictor,
    known_predictors,
    learn_on,
    train_on_cohort,
)
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.steps import maker_of

if TYPE_CHECKING:
    from napari_mosaik.widgets.base.case_controller import CaseController
    from napari_mosaik.widgets.base.worker import Job, Report, Steps
    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["ModelsPage", "PredictorPanel"]

_FILES = "Exported models (*.zip);;All files (*)"
_CURVE_PX = 190
_WIDE_PX = 130
_STEP = maker_of(PREDICTION)
_SPLITS = (("all other cases", "case"), ("cases of other patients", "patient"))


class ModelsPage(QWidget):
    """All models of the case and its cohort, and what can be done with them.

    One row is selected to adopt, export or fine-tune; two are selected to be compared.
    """

    def __init__(self, controller: CaseController, link: CanvasLink) -> None:
        super().__init__()
        self._controller = controller
        self._models: list[KnownModel] = []
        self._case: Case | None = None
        self.maps = ModelMaps(link)
        self.line = wrapped_label(bold=True)
        self.table = self._made_table()
        self.adopt = button("Adopt", self._adopt, "Lets this case use the selected model")
        self.back = button(
            "Roll back", self._roll_back, "Returns to the model that was used before"
        )
        self.compare = button(
            "Compare",
            self._compare,
            "Two selected models on this case, or one with the model in use",
        )
        self.export = button("Export…", self._choose_export, "Writes weights and card to one file")
        self.take = button("Import…", self._choose_import, "Reads a file that was exported")
        self.single = button("Back to layers", self.maps.leave)
        self.message = wrapped_label()
        self.card = wrapped_label(small=True)
        self.replay, self.epochs = QSpinBox(), QSpinBox()
        self.learn = button(
            "Start", self._learn, "Fine-tunes the selected network in the background"
        )
        self.pause = button("Pause", self._pause)
        self.stop = button(
            "Cancel", controller.cancel, "When started again, it resumes after its last epoch"
        )
        self.curve = FigureView()
        self._losses: tuple[tuple[float, float | None], ...] = ()
        self._learning: Job | None = None
        self._build()
        self._connect()

    def _made_table(self) -> QTableWidget:
        titles = ("Used", "Model", "Cases", "Parent")
        tips = (
            "This case uses it",
            "Method and first characters of the hash",
            "Trained on them",
            "Fine-tuned from",
        )
        table = table_of(titles, tips, wide=2)
        table.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        table.setMinimumHeight(110)
        return table

    def _build(self) -> None:
        self.replay.setRange(0, 90)
        self.replay.setValue(30)
        self.replay.setSuffix(" %")
        self.replay.setToolTip("Fraction of the training tiles that the model has seen before")
        self.epochs.setRange(0, 1000)
        self.epochs.setSpecialValueText("as before")
        self.epochs.setMinimumWidth(_WIDE_PX)
        self.curve.setFixedHeight(_CURVE_PX)
        self.curve.setVisible(False)
        learning = QWidget()
        learning.setLayout(
            column(
                row(QLabel("Known tiles"), self.replay, 1),
                row(QLabel("Epochs"), self.epochs, 1),
                row(self.learn, self.pause, self.stop, 1),
                self.curve,
            )
        )
        self.fold = Collapsible("Fine-tune", learning)
        self.setLayout(
            column(
                self.line,
                self.table,
                row(self.adopt, self.back, self.compare, 1),
                row(self.export, self.take, self.single, 1),
                self.message,
                self.fold,
                self.card,
                1,
                margin=4,
                spacing=6,
            )
        )

    def _connect(self) -> None:
        self.table.itemSelectionChanged.connect(self._show)
        self.maps.changed.connect(self._show)
        events = self._controller.workspace.events
        for signal in (events.case, events.recipe, events.cohort):
            signal.connect(self.read)
        events.job.connect(self._show)
        events.blind.connect(self._blinded)
        events.withheld.connect(self._blinded)
        self.read()

    def _blinded(self, *_: object) -> None:
        self._tell("")  # a comparison may have told an error
        if self._controller.workspace.withheld:
            self.maps.leave()

    # --- showing --------------------------------------------------------------------------------
    def read(self, *_: object) -> None:
        """Look for the models of the open case and its cohort, on a thread."""
        space = self._controller.workspace
        case = space.case
        if case is not self._case:
            self._tell("")
            self.curve.setVisible(False)
        self._case = case
        if case is None:
            self._found([])
            return
        self._controller.read_for(case, "Models", partial(_known, case, space.cohort), self._found)

    def _found(self, models: list[KnownModel]) -> None:
        chosen = {one.hash for one in self.chosen()}
        self._models = models
        case = self._controller.workspace.case
        name = "" if case is None else case.name
        records = [one.record() for one in models]
        fill_table(
            self.table,
            [
                (
                    "⚠" if one["damage"] else "✓" if name in one["used_by"] else "",
                    model_title(one),
                    ", ".join(one["trained_on"]),
                    one["parent"][:8],
                )
                for one in records
            ],
        )
        for place, one in enumerate(models):
            if one.hash in chosen:
                self._select(place)
        self._show()

    def _select(self, place: int) -> None:
        for column_number in range(self.table.columnCount()):
            item = self.table.item(place, column_number)
            assert item is not None
            item.setSelected(True)

    def chosen(self) -> list[KnownModel]:
        """The models of the selected rows, in the order of the table."""
        rows = sorted({index.row() for index in self.table.selectedIndexes()})
        return [self._models[place] for place in rows if place < len(self._models)]

    def _show(self, *_: object) -> None:
        space, chosen = self._controller.workspace, self.chosen()
        idle = space.job is None
        case = space.case
        self.line.setText(_heading(case, self._models))
        one = chosen[0] if len(chosen) == 1 else None
        whole = one is not None and not one.damage
        self.adopt.setEnabled(whole and idle)
        self.back.setEnabled(case is not None and idle)
        self.compare.setEnabled(idle and self._pair() is not None)
        self.export.setEnabled(whole)
        self.take.setEnabled(case is not None and idle)
        self.single.setVisible(self.maps.is_on)
        self.learn.setEnabled(whole and idle and one is not None and one.method != "fast")
        busy = self._learning is not None and space.job is self._learning
        stopping = self._learning is not None and self._learning.stopping
        self.pause.setEnabled(busy and not stopping)
        self.stop.setEnabled(busy and not stopping)
        paused = self._learning is not None and busy and self._learning.is_paused
        self.pause.setText("Resume" if paused else "Pause")
        self.card.setText("" if one is None else "\n".join(card_lines(one.record())))

    def _pair(self) -> tuple[KnownModel, KnownModel] | None:
        """The two models to compare, the one in use first."""
        case, chosen = self._controller.workspace.case, self.chosen()
        if case is None or not chosen:
            return None
        kind = chosen[0].kind
        used = [one for one in self._models if one.kind == kind and case.name in one.used_by]
        if len(chosen) == 1:
            chosen = [*used, chosen[0]]
        if len(chosen) != 2 or chosen[0] is chosen[1]:
            return None
        first = next((one for one in chosen if one in used), chosen[0])
        return first, next(one for one in chosen if one is not first)

    def _tell(self, text: str) -> None:
        self.message.setText(text)
        self.message.setVisible(bool(text))

    # --- which model is used --------------------------------------------------------------------
    def _adopt(self) -> None:
        case, (model,) = self._controller.workspace.case, self.chosen()
        if case is None:
            return

        def then(_: None) -> None:
            self._tell(f"{model_title(model.record())} is used now; its results are stale.")
            self._changed(case)

        self._controller.read_for(case, "Adopt", partial(adopt_model, [case], model), then)

    def _roll_back(self) -> None:
        case = self._controller.workspace.case
        if case is None:
            return
        chosen = self.chosen()
        step = chosen[0].step if chosen else ""

        def then(done: tuple[str, str, str]) -> None:
            now = done[2][:8] or "no model"
            self._tell(f"Rolled back from {done[1][:8]} to {now}; its results are stale.")
            self._changed(case)

        self._controller.read_for(case, "Roll back", partial(roll_back, case, step), then)

    def _changed(self, case: Case) -> None:
        self._controller.take_recipe(read_recipe(case.root))
        self.read()

    # --- comparing ------------------------------------------------------------------------------
    def _compare(self) -> None:
        case, pair = self._controller.workspace.case, self._pair()
        if case is None or pair is None:
            return
        withheld = self._controller.workspace.withheld
        if withheld and pair[0].is_classifier:
            self._controller.report(InputError(withheld))
            return
        work = partial(_steps, "Compare models", partial(compare_models, case, *pair))
        job = self._controller.start("Compare models", work)
        if job is not None:
            job.done.connect(partial(self._compared, case, pair))

    def _compared(
        self, case: Case, pair: tuple[KnownModel, KnownModel], made: ModelComparison
    ) -> None:
        if case is not self._controller.workspace.case:
            return
        old, new = (model_title(one.record()) for one in pair)
        blind = self._controller.workspace.blind
        self._tell("\n".join([f"{old} → {new}", *comparison_lines(made.record, blind=blind)]))
        grid = self._controller.workspace.tile_data.grid
        transform = None if made.unit else transform_to_reference(case, "he")
        specs = comparison_layers(made, grid, transform)
        if specs:
            titles: tuple[str, ...] = (old, new, "where they differ")
            if made.unit:
                one, other = (model.hash[:8] for model in pair)
                names = (f"old {one}", f"new {other}", "new minus old")
                titles = tuple(f"{name}, {made.unit}" for name in names)
            self.maps.show(specs, titles)

    # --- files ----------------------------------------------------------------------------------
    def _choose_export(self) -> None:
        (model,) = self.chosen()
        given = str(Path.home() / f"{model.method}-{model.hash[:12]}.zip")
        name = QFileDialog.getSaveFileName(self, "Export model", given, _FILES)[0]
        if name:
            self.export_to(model, Path(name))

    def export_to(self, model: KnownModel, path: Path) -> None:
        """Write a model to a file, on a thread."""
        path = path if path.suffix else path.with_suffix(".zip")
        work = partial(export_model, model, path)
        self._controller.read("Export", work, lambda _: self._tell(f"Exported to {path}"))

    def _choose_import(self) -> None:
        name = QFileDialog.getOpenFileName(self, "Model to import", "", _FILES)[0]
        if name:
            self.import_from(Path(name))

    def import_from(self, path: Path) -> None:
        """Add a model from a file, on a thread."""
        case = self._controller.workspace.case
        if case is None:
            return

        def then(model: KnownModel) -> None:
            self._tell(f"{model_title(model.record())} was added; adopt it to use it.")
            self.read()

        self._controller.read_for(case, "Import", partial(import_model, case, path), then)

    # --- fine-tuning ----------------------------------------------------------------------------
    def _learn(self) -> None:
        space, (model,) = self._controller.workspace, self.chosen()
        case = space.case
        if case is None:
            return
        work = partial(
            learn_on,
            case,
            space.cohort,
            model,
            replay=self.replay.value() / 100,
            epochs=self.epochs.value(),
        )
        job = self._controller.start("Fine-tune", partial(_steps, "Fine-tune", work))
        if job is None:
            return
        self._learning, self._losses = job, ()
        job.progressed.connect(self._follow)
        for signal in (job.paused, job.cancelling):
            signal.connect(self._show)
        job.done.connect(partial(self._learned, case))
        self._tell("")
        self._show()

    def _pause(self) -> None:
        if self._learning is not None:
            self._learning.set_paused(not self._learning.is_paused)

    def _follow(self, report: Report) -> None:
        if report.losses and report.losses != self._losses:
            self._losses = report.losses
            self.curve.show_figure(loss_figure(report.losses))
            self.curve.setVisible(True)

    def _learned(self, case: Case, made: dict[str, Any]) -> None:
        if case is not self._controller.workspace.case:
            return
        score = made["comparison"]
        line = "Not compared: nothing is held out from both models."
        lines = [
            f"Model {made['model'][:8]} was fine-tuned. Adopt it, or keep the one in use.",
            line if score is None else comparison_line(score),
            *(f"⚠ {text}" for text in made["warnings"]),
        ]
        self._tell("\n".join(lines))
        self.read()


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
            "Runs missing steps of the other cases, and trains the predictor without this case",
        )
        self.choice = shrinkable(QComboBox())
        self.use = button("Use", self._use, "Predicts this case with the chosen predictor")
        self.browse = button("From a folder…", self._browse, "The folder of a trained predictor")
        self.pause = button("Pause", self._pause, "Pauses after the current batch; nothing is lost")
        self.stop = button(
            "Cancel", controller.cancel, "When started again, it resumes after its last epoch"
        )
        self._busy = QWidget()
        self._busy.setLayout(row(self.pause, self.stop, 1))
        self.curve = FigureView()
        self.curve.setFixedHeight(_CURVE_PX)
        self.curve.setVisible(False)
        self._losses: tuple[tuple[float, float | None], ...] = ()
        self._training: Job | None = None
        self.setLayout(
            column(
                self.line,
                row(self.train, 1),
                row(wrapped_label("trained on"), self.split),
                self._busy,
                self.curve,
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
        job = self._training
        self._busy.setVisible(job is not None and space.job is job)
        if job is not None and space.job is job:
            self.pause.setText("Resume" if job.is_paused else "Pause")
            for push in (self.pause, self.stop):
                push.setEnabled(not job.stopping)
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
            last = self.choice.count() - 1
            self.choice.setItemData(last, one.title, Qt.ItemDataRole.ToolTipRole)
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
        if job is None:
            return
        self._training, self._losses = job, ()
        job.progressed.connect(self._follow)
        for signal in (job.paused, job.cancelling):
            signal.connect(self.show_case)
        job.done.connect(lambda _: self._adopted(case))
        self.show_case()

    def _pause(self) -> None:
        if self._training is not None:
            self._training.set_paused(not self._training.is_paused)

    def _follow(self, report: Report) -> None:
        """Draw the loss of training and validation after each epoch."""
        if report.losses and report.losses != self._losses:
            self._losses = report.losses
            self.curve.show_figure(loss_figure(report.losses))
            self.curve.setVisible(True)

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


def _steps(title: str, work: Any) -> Steps:
    """The work of a job that has one part."""
    steps: Generator[Any, None, Any] = map_progress(work(), lambda progress: (title, progress))
    return steps


def _known(case: Case, cohort: tuple[Path, ...]) -> list[KnownModel]:
    """The models of the open case and of the others of its cohort."""
    return known_models(with_cohort([case], cohort or (case.root,)))


def _heading(case: Case | None, models: list[KnownModel]) -> str:
    if case is None:
        return "Open a case first"
    if not models:
        return "No models yet: annotate and retrain, or train a predictor on the cohort"
    used = [model_title(one.record()) for one in models if case.name in one.used_by]
    return f"Case {case.name} uses {' and '.join(used) or 'no model'}"
