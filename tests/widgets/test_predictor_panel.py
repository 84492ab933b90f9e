"""A case without a predictor: one click to train one on the cohort or to choose one."""

import shutil

import numpy as np
import pytest

pytestmark = pytest.mark.gui


@pytest.fixture
def opened(dock, tiny_cohort, tmp_path, qtbot):
    """The dock with a copy of a case of the cohort."""
    for name in ("A2", "B8"):
        shutil.copytree(tiny_cohort / name, tmp_path / "cohort" / name)
    dock.controller.open(tmp_path / "cohort", prefer="A2")
    qtbot.waitUntil(lambda: dock.workspace.case is not None, timeout=60_000)
    return dock


def card_of(name):
    """The card of a predictor that was trained on one case; only what is shown of it."""
    entry = {"case": name, "patient": "p", "role": "training"}
    return {"kind": "mosaik", "format": 1, "cases": [entry], "test_case": "C1", "warnings": []}


def predictor_page(dock):
    return next(page for page in dock.pages.values() if "predict" in page.names)


def test_a_case_without_predictor_offers_training_and_choosing(opened):
    page = predictor_page(opened)
    page.set_open(True)
    assert "No trained predictor: train one on the cohort, or choose one" in page.panel.line.text()
    assert page.panel.train.isEnabled()
    assert not page.panel.choice.isVisibleTo(page.panel)
    assert "train one or choose one" in opened.workspace.states["predict"].reason


def test_a_predictor_of_the_cohort_is_chosen_and_one_of_the_case_refused(
    opened, qtbot, monkeypatch
):
    from napari_mosaik.core.errors import InputError
    from napari_mosaik.predictor import TrainedModel
    from napari_mosaik.workflow.predictors import choose_predictor

    case = opened.workspace.case
    other = case.root.parent / "B8" / "models"
    folders = [
        TrainedModel({"w": np.full(3, seed, np.float32)}, card_of(name)).save(other)
        for seed, name in enumerate(("B8", "A2"))
    ]
    page = predictor_page(opened)
    page.set_open(True)
    page.panel.show_case()
    assert page.panel.choice.count() == 1
    page.panel.use.click()
    qtbot.waitUntil(
        lambda: opened.workspace.recipe["predict"].model == folders[0].name, timeout=30_000
    )
    assert (case.root / "models" / folders[0].name / "card.json").is_file()
    assert "trained on B8" in page.panel.line.text()
    with pytest.raises(InputError, match="was trained on case A2"):
        choose_predictor(case, folders[1])
    with pytest.raises(InputError, match="no readable predictor"):
        choose_predictor(case, case.root)


def test_long_names_without_room_are_told_apart_by_their_ends(qtbot):
    from qtpy.QtCore import QEvent, QPoint
    from qtpy.QtGui import QHelpEvent
    from qtpy.QtWidgets import QApplication, QComboBox, QToolTip

    from napari_mosaik.widgets.base.controls import shrinkable

    box = shrinkable(QComboBox())
    box.setToolTip("A predictor")
    qtbot.addWidget(box)
    box.addItems(
        [f"mosaik of cases A1, A2, A3, A4, A5, A6, A7, A8 and {end}" for end in ("B1", "C2")]
    )
    box.resize(140, 30)
    looks = []
    for row in (0, 1):
        box.setCurrentIndex(row)
        looks.append(box.grab().toImage())
        QApplication.sendEvent(box, QHelpEvent(QEvent.Type.ToolTip, QPoint(5, 5), QPoint(5, 5)))
        assert QToolTip.text() == f"{box.currentText()}\nA predictor"
    assert looks[0] != looks[1]


def test_no_page_is_wider_than_the_dock(opened):
    """A page that needs more width than there is would be cut on both sides."""
    width = opened.page_area.viewport().width()
    opened.resize(360, 700)
    for page in opened.pages.values():
        page.set_open(True)
        assert page.minimumSizeHint().width() <= min(width, 340), page.title


def test_a_paused_and_a_cancelled_training_give_the_same_bits(dock, qtbot, tmp_path):
    from napari_mosaik.core.artifact import Progress
    from napari_mosaik.core.progress import map_progress, run_to_end
    from napari_mosaik.predictor import TrainParams, train
    from tests.predictor.synthetic import make_cohort

    cases = make_cohort(seed=0)[:2]
    params = TrainParams(
        members=1, epochs=4, threads=1, branch_channels=(2, 4, 4), fusion_width=8, parameter_width=4
    )
    whole = run_to_end(train(cases, params, seed=1))
    seen = []

    def told(step):
        seen.append(step.epoch)
        return "Train", Progress(step.epoch, 4, f"epoch {step.epoch}")

    def steps():
        return map_progress(train(cases, params, seed=1, checkpoint=tmp_path / "one.pt"), told)

    bar, controller, results = dock.bar, dock.controller, []
    job = controller.start("Train", steps)
    assert bar.pause.isEnabled()
    bar.pause.click()
    assert bar.pause.text() == "Resume"  # at once
    assert "Pausing" in bar.text.text()
    qtbot.waitUntil(lambda: job.is_waiting)
    n = len(seen)
    job._emit_progress()
    assert bar.text.text().startswith("Paused")
    bar.cancel.click()  # a paused training can be cancelled
    assert not bar.pause.isEnabled()
    qtbot.waitUntil(lambda: controller.workspace.job is None)
    assert len(seen) == n
    job = controller.start("Train", steps)
    assert bar.pause.text() == "Pause"
    job.done.connect(results.append)
    bar.pause.click()
    qtbot.waitUntil(lambda: job.is_waiting)
    bar.pause.click()
    assert bar.pause.text() == "Pause"
    qtbot.waitUntil(lambda: bool(results))
    for name, values in whole.weights.items():
        np.testing.assert_array_equal(results[0].weights[name], values)
