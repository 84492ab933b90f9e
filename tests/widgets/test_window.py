"""A case is opened, a step runs, is cancelled and fails: the window stays usable throughout."""

import time
from dataclasses import replace

import pytest

from napari_mosaik.core import InputError, Progress
from napari_mosaik.core.catalogue import TISSUE, VESSEL_OBJECTS, VESSELS
from napari_mosaik.widgets import dock as dock_module
from napari_mosaik.widgets.base import case_controller as controller_module
from napari_mosaik.widgets.base.controls import show_from_top
from napari_mosaik.widgets.canvas.live_layers import PREFIX
from napari_mosaik.workflow import run as run_module
from napari_mosaik.workflow.steps import STEPS, step_named

pytestmark = pytest.mark.gui
N_REPORTS = 1_000_000


def idle(qtbot, dock, timeout=60_000):
    qtbot.waitUntil(lambda: dock.workspace.job is None, timeout=timeout)


def test_no_case_offers_three_ways_on(dock):
    assert dock.welcome.isVisible()
    assert not dock.header.isVisible()
    texts = [b.text() for b in (dock.welcome.open, dock.welcome.new, dock.welcome.sample)]
    assert texts == ["Open case…", "New from slides…", "Open sample cohort…"]


def test_a_page_that_is_opened_is_shown_from_its_top(qtbot, dock, opened, cohort, monkeypatch):
    from qtpy.QtCore import QPoint

    shown = []
    monkeypatch.setattr(dock_module, "show_from_top", lambda *call: shown.append(call))
    opened(dock, cohort)
    area, page = dock.page_area, dock.pages["Uptake (PET)"]
    page.set_open(True)
    qtbot.waitUntil(lambda: page.height() > area.viewport().height() > 0)
    qtbot.waitUntil(lambda: (area, page) in shown)
    for before in (0, area.verticalScrollBar().maximum()):
        area.verticalScrollBar().setValue(before)
        show_from_top(area, page)
        assert page.mapTo(area.viewport(), QPoint(0, 0)).y() == 0
    area.verticalScrollBar().setValue(0)
    show_from_top(area, dock.case_page)  # is there as a whole
    assert area.verticalScrollBar().value() == 0


def test_open_run_and_see_the_layer(qtbot, dock, opened, fresh_case):
    case = opened(dock, fresh_case, layers=("H&E", "CD34", "CAIX"))
    assert dock.header.title.text() == f"{case.name} · {case.patient}"
    page = dock.pages["Vessels"]
    page.set_open(True)
    assert page.run_button.isEnabled()
    page.run_button.click()
    assert dock.workspace.job is not None
    idle(qtbot, dock)
    assert dock.workspace.problem is None
    assert case.store.origin(VESSELS) is not None
    qtbot.waitUntil(lambda: dock.board.layer("Vessels") is not None, timeout=10_000)
    layer = dock.board.layer("Vessels")
    vessels = case.store.read(VESSELS)
    assert layer.visible
    assert tuple(layer.scale) == vessels.lattice.spacing_um
    half = vessels.lattice.spacing_um[0] / 2
    assert layer.translate[0] == pytest.approx(vessels.lattice.origin_um[0] + half)
    assert all(str(unit) == "micrometer" for unit in layer.units)
    assert not layer.editable
    qtbot.waitUntil(lambda: page.head.word.text() == "done", timeout=10_000)
    assert "vessel" in page.head.line.text()

    page.preview_box.setChecked(True)  # the result in the visible region, not stored
    name = f"{PREFIX}vessels"
    qtbot.waitUntil(lambda: name in dock.viewer.layers, timeout=30_000)
    assert page.preview_line.text().startswith("Here: ")
    assert not layer.visible
    n_before = dock.viewer.layers[name].data.max()
    strict = dock.workspace.recipe["vessels"].model_copy(update={"min_area_um2": 1e6})
    dock.controller.set_params("vessels", strict)
    qtbot.waitUntil(lambda: "no vessels" in page.preview_line.text(), timeout=30_000)
    assert dock.viewer.layers[name].data.max() < n_before
    page.preview_box.setChecked(False)
    assert name not in dock.viewer.layers
    assert layer.visible
    assert len(case.store.read(VESSEL_OBJECTS)) > 0


def slow(counted):
    """A step body that reports progress until it is cancelled."""

    def body(inputs, params):
        for i in range(N_REPORTS):
            counted.append(i)
            yield Progress(i, N_REPORTS, "counting")
            time.sleep(0.002)
        raise AssertionError("was not cancelled")

    return body


def install(monkeypatch, step):
    """Replace the step of the same name."""
    steps = tuple(step if known.name == step.name else known for known in STEPS)
    for module in (controller_module, run_module):
        named = {one.name: one for one in steps}
        monkeypatch.setattr(module, "step_named", named.__getitem__)
    monkeypatch.setattr(run_module, "STEPS", steps)


def test_a_step_too_short_to_be_polled_is_announced(qtbot, dock, opened, fresh_case):
    opened(dock, fresh_case)
    announced = []
    dock.controller.committed.connect(announced.append)

    def steps():
        yield "tissue_he", Progress(1, 1)
        yield "tissue_cd34", Progress(1, 1)

    dock.controller.start("Tissue", steps)
    qtbot.waitUntil(lambda: dock.workspace.job is None, timeout=20_000)
    assert announced == ["tissue_he", "tissue_cd34"]
    idle(qtbot, dock)


def test_cancel_is_acknowledged_at_once_and_commits_nothing(
    qtbot, dock, opened, fresh_case, monkeypatch
):
    case = opened(dock, fresh_case)
    counted = []
    install(monkeypatch, replace(step_named("tissue_he"), body=slow(counted)))
    job = dock.controller.run_steps(["tissue_he"])
    qtbot.waitUntil(lambda: len(counted) > 5 and dock.bar.cancel.isVisible(), timeout=10_000)
    with qtbot.waitSignal(job.cancelled):
        dock.bar.cancel.click()
        assert dock.bar.cancel.text() == "Cancelling…"  # at once: no event was processed between
        assert not dock.bar.cancel.isEnabled()
    idle(qtbot, dock)
    assert case.store.origin(TISSUE["he"]) is None
    assert dock.workspace.problem is None
    with case.writing():
        pass  # the lock was given back
    assert not dock.bar.isVisible()


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), InputError("no tissue")])
def test_a_failing_step_is_reported_and_the_window_stays_usable(
    qtbot, dock, opened, fresh_case, monkeypatch, error
):
    case = opened(dock, fresh_case)

    def body(inputs, params):
        yield Progress(0.5, 1, "working")
        raise error

    with monkeypatch.context() as patch:
        install(patch, replace(step_named("tissue_he"), body=body))
        dock.controller.run_steps(["tissue_he"])
        idle(qtbot, dock)
    assert dock.banner.isVisible()
    assert str(error) in dock.banner.sentence.text()
    dock.banner.copy.click()
    assert dock.banner.copy.text() == "Copied"
    dock.controller.run_steps(["tissue_he"])
    idle(qtbot, dock)
    assert not dock.banner.isVisible()
    assert case.store.origin(TISSUE["he"]) is not None


def test_a_changed_setting_marks_what_depends_on_it_stale(qtbot, dock, opened, own_cohort):
    opened(dock, own_cohort)
    page = dock.pages["Vessels"]
    page.set_open(True)
    page.sections["vessels"].form.widget("smoothing_um").value = 3.0
    words = lambda: {name: state.word for name, state in dock.workspace.states.items()}  # noqa: E731
    qtbot.waitUntil(lambda: words()["vessels"] == "stale", timeout=10_000)
    assert words()["parameters"] == "stale"
    assert words()["nuclei"] == "done"
    assert page.head.word.text() == "stale"


def test_a_folder_without_a_case_is_reported(qtbot, dock, tmp_path):
    (tmp_path / "empty").mkdir()
    dock.controller.open(tmp_path / "empty")
    qtbot.waitUntil(lambda: dock.workspace.problem is not None, timeout=10_000)
    assert "no case" in dock.banner.sentence.text()
    assert dock.welcome.isVisible()


def test_what_is_read_for_a_case_is_dropped_once_its_window_closes(dock, opened, cohort, qtbot):
    case, heard, controller = opened(dock, cohort), [], dock.controller
    task = controller.read_for(case, "Numbers", lambda: 1, heard.append)
    assert task.wait(60)
    controller.close()
    qtbot.waitUntil(lambda: task not in controller._tasks)
    assert not heard


def test_a_slide_that_comes_after_its_window_was_closed_is_closed(
    dock, opened, cohort, monkeypatch
):
    from napari_mosaik.widgets.canvas import case_layers

    case, board, closed = opened(dock, cohort), dock.board, []
    slide, transform, stains = case_layers._prepare(case, "he")
    close = slide.close
    monkeypatch.setattr(slide, "close", lambda: (closed.append("he"), close()))
    dock.close()
    board._add_slide(case, "he", (slide, transform, stains))
    assert closed == ["he"]
    assert not board.slides
