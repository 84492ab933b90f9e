"""The sliders of the kinetics: live curves, nothing stored before it is asked for, and words."""

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_mosaik.widgets.base.controls import grey_text
from napari_mosaik.workflow.recipe import read_recipe

pytestmark = pytest.mark.gui


@pytest.fixture
def panel(qtbot, dock, opened, own_cohort):
    opened(dock, own_cohort / "B11")
    page = dock.pages["Kinetics"]
    page.set_open(True)
    qtbot.waitUntil(lambda: page.panel.table.rowCount() > 0)
    return page.panel


def at_rest(qtbot, dock, panel):
    """Scroll to the plot, which is drawn only while it is seen, and wait until it is."""

    def there():
        dock.page_area.ensureWidgetVisible(panel.plot)
        return panel.plot._is_current() and not panel.plot._draws

    qtbot.waitUntil(there)


def drawn(panel, name="internalised"):
    return np.array(panel.plot.curves.lines[name].get_ydata(), float)


def test_sliders_move_the_curves_and_store_nothing_before_they_are_used(qtbot, dock, panel):
    case = dock.workspace.case
    step, before = panel.model.step, dict(dock.workspace.recipe)
    stored = read_recipe(case.root)
    curve = drawn(panel)
    assert not panel.use.isEnabled()
    panel.sliders["k32_per_h"].slider.setValue(700)
    assert np.nanmax(np.abs(drawn(panel) - curve)) > 1e-3
    assert panel.sliders["k32_per_h"].edit.text() == f"{panel.values()['k32_per_h']:g}"
    assert dock.workspace.recipe == before
    assert panel.use.isEnabled()
    qtbot.waitUntil(lambda: "Until then nothing is stored" in panel.stale.text())
    assert "Kinetics" in panel.stale.text()
    assert "stale" in panel.stale.text()

    edit = panel.sliders["antigen_um"].edit
    edit.setText("0,05")
    edit.editingFinished.emit()
    assert panel.values()["antigen_um"] == 0.05
    edit.setText("-4")
    edit.editingFinished.emit()
    assert "C_tot" in panel.problem.text()
    assert panel.values()["antigen_um"] == 0.05
    qtbot.mouseClick(panel.sliders["antigen_um"].reset, Qt.MouseButton.LeftButton)
    assert panel.values()["antigen_um"] == 0.3662
    assert panel.problem.isHidden()

    value = panel.values()["k32_per_h"]
    qtbot.mouseClick(panel.use, Qt.MouseButton.LeftButton)
    assert dock.workspace.recipe[step].k32_per_h == value
    assert {**dock.workspace.recipe, step: None} == {**before, step: None}
    assert read_recipe(case.root) == stored  # written when the step runs
    qtbot.waitUntil(lambda: dock.workspace.states[step].word == "stale")
    assert not panel.use.isEnabled()
    assert panel.values()["k32_per_h"] == value


def test_the_words_follow_the_imaging_times_and_prior_only_is_grey(qtbot, panel):
    sliders = panel.sliders
    assert sliders["antigen_um"].verdict.text() == "prior only"
    assert grey_text() in sliders["antigen_um"].title.styleSheet()
    assert sliders["free_0_um"].verdict.text() == "determined"
    assert sliders["free_0_um"].title.styleSheet() == ""
    assert "no detectable antigen signal" in panel.findings.text()
    assert sliders["k03_per_h"].verdict.text() == "prior only"
    panel.times.setText("72, 336, 1000, 2000")
    panel.times.editingFinished.emit()
    qtbot.waitUntil(lambda: sliders["k03_per_h"].verdict.text() == "determined")
    assert "at 2000 h" in panel.reading.text()
    panel.times.setText("soon")
    panel.times.editingFinished.emit()
    assert "imaging_times" in panel.problem.text()
    assert not panel.use.isEnabled()
    qtbot.mouseClick(panel.back, Qt.MouseButton.LeftButton)
    assert panel.times.text() == "72, 120, 168, 336"
    assert panel.problem.isHidden()


def test_the_tissue_has_its_own_sliders_and_shares_of_the_variance(qtbot, dock, panel):
    assert panel.compute.isHidden()
    panel.model_box.setCurrentIndex(1)
    assert "permeability_um_per_s" in panel.sliders
    assert not panel.compute.isHidden()
    total = drawn(panel, "total")[-1]
    slider = panel.sliders["permeability_um_per_s"]
    slider.edit.setText("0.006")
    slider.edit.editingFinished.emit()
    assert drawn(panel, "total")[-1] == pytest.approx(2 * total, rel=0.01)
    qtbot.mouseClick(panel.compute, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: panel.shares.rowCount() == 4)
    assert panel.shares.item(0, 0).text() == "Permeability"
    assert panel.shares.item(0, 1).text().replace("\xa0", " ").startswith("100 % (")
    qtbot.waitUntil(lambda: dock.workspace.job is None)


def test_what_nobody_sees_is_not_drawn_and_sliders_stay_as_long_as_they_fit(qtbot, dock, panel):
    page, sliders = dock.pages["Kinetics"], dict(panel.sliders)
    at_rest(qtbot, dock, panel)
    page.set_open(False)
    drawn, read = [], panel.plot._read
    panel.plot._read = lambda *work: (drawn.append(1), read(*work))
    panel.sliders["k32_per_h"].set_value(2 * panel.values()["k32_per_h"])
    panel._restart()
    assert panel.sliders == sliders
    assert panel.values()["k32_per_h"] == sliders["k32_per_h"].spec.default
    assert {slider.verdict.text() for slider in sliders.values()} == {""}
    qtbot.wait(1)
    assert not drawn
    qtbot.waitUntil(lambda: sliders["free_0_um"].verdict.text() == "determined")
    page.set_open(True)
    at_rest(qtbot, dock, panel)
    assert drawn


def test_curves_that_come_while_their_background_is_drawn_are_shown_after_it(qtbot, dock, panel):
    plot = panel.plot
    at_rest(qtbot, dock, panel)
    held, before = [], plot._image
    plot._read = lambda _action, work, then: held.append((work, then))
    times = np.array([0.1, 1.0, 10.0])
    curves = {name: np.full(3, 1e6) for name in plot.curves.lines}
    plot.show_curves(times, curves, (1.0,))
    qtbot.waitUntil(lambda: len(held) == 1)
    work, then = held.pop()
    found = work()
    plot.show_curves(times, {name: 1e3 * curve for name, curve in curves.items()}, (1.0, 2.0))
    assert plot._draws
    then(found)
    qtbot.waitUntil(lambda: len(held) == 1)  # of the curves that came meanwhile
    work, then = held.pop()
    then(work())
    assert plot._is_current()
    assert plot._image != before
    low, high = plot.curves.figure.axes[0].get_ylim()
    assert (low, high) == pytest.approx((1e2, 1e9))
