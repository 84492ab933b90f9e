"""The dock and napari's window: one dock, one inspector, no orphans, questions before losses."""

import shutil

import pytest

pytestmark = pytest.mark.gui


@pytest.fixture
def plugin_dock(dock):
    """The dock that napari itself makes, in the window of the fixture `dock`."""
    from napari_mosaik.plugin import _dock

    return _dock(dock.viewer)


@pytest.fixture
def case(tiny_cohort, tmp_path):
    return shutil.copytree(tiny_cohort / "B11", tmp_path / "cohort" / "B11")


def test_menu_entries_bring_the_one_dock_to_the_front(plugin_dock):
    from napari_mosaik.plugin import _dock

    holder = plugin_dock.parentWidget()
    holder.hide()
    assert _dock(plugin_dock.viewer) is plugin_dock
    assert not holder.isHidden()


def test_closing_the_dock_leaves_no_layers_and_opening_it_makes_a_new_one(
    plugin_dock, case, opened, qtbot
):
    from napari_mosaik.plugin import _dock
    from napari_mosaik.widgets.canvas.list_rows import keep_out_of_list

    viewer = plugin_dock.viewer
    opened(plugin_dock, case)
    plugin_dock.show_inspector()
    names = ("H&E", "CD34", "CAIX")
    qtbot.waitUntil(lambda: all(name in viewer.layers for name in names))
    keep_out_of_list(viewer, [viewer.add_points(name="made ahead")])  # as the review's maps are
    with qtbot.waitSignal(plugin_dock.destroyed):
        plugin_dock.parentWidget().destroyOnClose()
    assert [layer.name for layer in viewer.layers] == []
    assert not [name for name in viewer.window.dock_widgets if name.startswith("Tile")]
    assert _dock(viewer) is not plugin_dock
    # what is connected to the state would be held by it until the program ends
    for group in (plugin_dock.workspace.events, plugin_dock.canvas.events):
        assert not any(len(group[name]) for name in group)


def test_a_deleted_layer_keeps_its_row_and_comes_back(dock, case, opened, qtbot):
    """Delete in napari's list takes a slide or a result away; *Overlays* brings it back."""
    from qtpy.QtCore import Qt

    opened(dock, case, layers=("H&E", "CD34", "CAIX"))
    viewer, board = dock.viewer, dock.board
    dock.tabs.setCurrentWidget(dock.tabs.widget(1))
    order = [layer.name for layer in viewer.layers]
    viewer.layers.selection = {viewer.layers["CD34"]}
    listed = viewer.window._qt_viewer.layers
    listed.setFocus()
    qtbot.keyClick(listed, Qt.Key.Key_Delete)
    qtbot.waitUntil(lambda: "CD34" not in viewer.layers)
    rows = lambda: {name: built.eye.isChecked() for name, built in overlays._built.items()}  # noqa: E731
    overlays = dock.overlays
    qtbot.waitUntil(lambda: overlays._built["CD34"].is_current())
    assert rows() == {"H&E": True, "CD34": False, "CAIX": False}
    overlays._built["CD34"].eye.click()
    qtbot.waitUntil(lambda: "CD34" in viewer.layers)
    assert viewer.layers["CD34"].visible
    assert [layer.name for layer in viewer.layers] == order
    assert board.layer("CD34") is viewer.layers["CD34"]
    assert rows()["CD34"]


def test_there_is_one_inspector_and_a_closed_one_comes_back(dock, qtbot):
    first = dock.show_inspector()
    holder = first.parentWidget()
    holder.hide()
    assert dock.show_inspector() is first
    assert not holder.isHidden()
    with qtbot.waitSignal(holder.destroyed):
        holder.destroyOnClose()
    second = dock.show_inspector()
    assert second is not first
    assert [name for name in dock.viewer.window.dock_widgets if name.startswith("Tile")] == ["Tile"]


def test_napari_asks_before_it_closes_a_window_with_a_running_job(dock, qtbot):
    manager = dock.viewer.window._task_status_manager
    assert not manager.is_busy()
    job = dock.controller.start("Nuclei", lambda: iter(()))
    assert "Nuclei is running" in manager.get_status()[0]
    qtbot.waitUntil(lambda: dock.workspace.job is not job)
    assert not manager.is_busy()


def test_back_to_defaults_asks_with_the_steps_and_their_time(dock, case, opened, monkeypatch):
    from qtpy.QtWidgets import QMessageBox

    from napari_mosaik.core.catalogue import TISSUE
    from napari_mosaik.workflow.step import StepStatus
    from napari_mosaik.workflow.steps import STEPS, maker_of

    opened(dock, case)
    step = maker_of(TISSUE["cd34"])
    page = dock.pages[step.page]
    page.set_open(True)
    form = page.sections[step.name].form
    changed = next(w for n, w in form._widgets.items() if isinstance(w.value, float))
    default = changed.value
    changed.value = default + 0.25
    dock.workspace.states = {one.name: StepStatus("done") for one in STEPS}
    asked = []

    def question(_parent, _title, text, *_):
        asked.append(text)
        return QMessageBox.StandardButton.Cancel

    monkeypatch.setattr(QMessageBox, "question", question)
    form._reset.click()
    assert changed.value == default + 0.25
    assert step.title in asked[0]
    assert "Vessels" in asked[0]
    dock.workspace.states = {}
    form._reset.click()
    assert changed.value == default
    assert len(asked) == 1
