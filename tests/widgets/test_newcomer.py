"""What a newcomer does in the window, by clicks and fields that are counted: no dead end."""

import shutil

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QScrollArea

from napari_mosaik.io import Case

pytestmark = pytest.mark.gui


class Hand:
    """Clicks and types where a person could, and counts both."""

    def __init__(self, qtbot, monkeypatch):
        self.qtbot, self.clicks, self.fields = qtbot, 0, 0
        self.answers = []
        for name in ("getOpenFileName", "getExistingDirectory"):
            monkeypatch.setattr(QFileDialog, name, self._dialogue(name))

    def _dialogue(self, name):
        def answer(*_):
            self.clicks += 2  # the file, and Open
            path = str(self.answers.pop(0))
            return (path, "") if name == "getOpenFileName" else path

        return staticmethod(answer)

    def reach(self, widget):
        """Scroll to a widget, which must then be visible."""
        self.qtbot.waitUntil(widget.isVisible)
        parent = widget.parentWidget()
        while parent is not None:
            if isinstance(parent, QScrollArea):
                parent.ensureWidgetVisible(widget)
            parent = parent.parentWidget()
        self.qtbot.waitUntil(lambda: not widget.visibleRegion().isEmpty())

    def click(self, widget, *, then=()):
        """Click a widget that is visible and enabled; *then* answers the file dialogues."""
        self.qtbot.waitUntil(widget.isEnabled)
        self.reach(widget)
        self.answers = list(then)
        self.clicks += 1
        self.qtbot.mouseClick(widget, Qt.MouseButton.LeftButton)
        assert not self.answers

    def type(self, edit, text):
        """Fill a field that is explained where it stands."""
        self.reach(edit)
        assert edit.isEnabled()
        assert edit.toolTip(), edit.placeholderText()
        self.fields += 1
        edit.setFocus()
        edit.selectAll()
        self.qtbot.keyClicks(edit, text)


def focused(field):
    """Whether keys go to a field, once its window is the active one."""
    return field.window().focusWidget() is field


@pytest.fixture
def hand(qtbot, monkeypatch):
    return Hand(qtbot, monkeypatch)


@pytest.fixture
def shown(monkeypatch):
    """The reports that the window opened."""
    from napari_mosaik.widgets.pages import review

    opened = []
    monkeypatch.setattr(review, "_open_report", lambda path: opened.append(path) is None)
    return opened


def to_the_report(qtbot, dock, hand, shown):
    """From an open case by one button to the results, and by another to the report."""
    qtbot.waitUntil(lambda: dock.header.run_all.isEnabled())
    hand.click(dock.header.run_all)
    qtbot.waitUntil(lambda: dock.workspace.job is None)
    assert dock.workspace.problem is None
    report = dock.header.report
    hand.click(report.push)
    qtbot.waitUntil(lambda: bool(shown))
    assert shown[0].is_file()
    assert str(shown[0]) in report.line.text()


def test_sample_to_report(qtbot, dock, hand, shown, fresh_case, tmp_path):
    shutil.move(fresh_case, tmp_path / "mosaik-sample" / "B11")
    hand.click(dock.welcome.sample, then=[tmp_path])
    qtbot.waitUntil(lambda: dock.workspace.case is not None)
    to_the_report(qtbot, dock, hand, shown)
    assert (hand.clicks, hand.fields) == (5, 0)


def test_own_files_to_report(qtbot, dock, hand, shown, fresh_case, tmp_path):
    slides, record = fresh_case / "slides", Case(fresh_case).file.injection
    (tmp_path / "new").mkdir()
    hand.click(dock.welcome.new)
    page = dock.case_page
    qtbot.waitUntil(lambda: focused(page.new.folder.edit))
    folder_button = page.new.folder.layout().itemAt(1).widget()
    hand.click(folder_button, then=[tmp_path / "new"])
    hand.type(page.new.patient, "patient 2")
    for stain in ("he", "cd34", "caix"):
        field = page.new.slides[stain]
        assert field.edit.toolTip()
        assert page.new.pixels[stain].edit.toolTip()
        hand.click(field.layout().itemAt(1).widget(), then=[slides / f"{stain}.tif"])
        hand.fields += 1
    hand.click(page.new.pet.layout().itemAt(2).widget(), then=[fresh_case / "pet"])
    hand.fields += 2
    hand.click(page.new.create_button)
    qtbot.waitUntil(lambda: dock.workspace.case is not None)
    qtbot.waitUntil(page.injection.isVisible)
    for name in ("dose_mbq", "residual_mbq", "weight_kg", "height_cm"):
        hand.type(page.injection.fields[name], f"{getattr(record, name):g}")
    for name in ("injected", "excised"):
        hand.type(page.injection.fields[name], f"{getattr(record, name):%Y-%m-%d %H:%M}")
    dock.controller.refresh()  # as when a step ends meanwhile: what was typed stays
    qtbot.wait(100)
    qtbot.waitUntil(lambda: not dock.controller._tasks)
    assert page.injection.fields["dose_mbq"].text() == f"{record.dose_mbq:g}"
    hand.click(page.injection.save)
    qtbot.waitUntil(lambda: dock.workspace.states["suv"].word == "missing")
    to_the_report(qtbot, dock, hand, shown)
    qtbot.waitUntil(lambda: dock.workspace.states["suv"].word == "done")
    assert (hand.clicks, hand.fields) == (20, 12)


def test_what_is_missing_is_one_click_away(qtbot, dock, opened, hand, fresh_case):
    """Each page that lacks something leads to its field; a slide without pixel size to three."""
    from napari_mosaik.io import SlideEntry
    from napari_mosaik.widgets.pages.case_page import MEASURE, TYPE

    bare = fresh_case / "slides" / "bare.tif"
    tifffile.imwrite(bare, np.full((64, 80, 3), 200, np.uint8), photometric="rgb")
    case = Case(fresh_case)
    slides = {"he": SlideEntry(path=str(bare)), "cd34": case.file.slides["cd34"]}
    case.update(slides=slides, injection=None)
    opened(dock, fresh_case, layers=("CD34",))
    page, form = dock.case_page, dock.case_page
    for title, field in (
        ("Uptake (PET)", lambda: form.injection.fields["dose_mbq"]),
        ("CAIX", lambda: form.add_form.file.edit),
        ("Nuclei", lambda: form.add_form.pixel.edit),
    ):
        asking = dock.pages[title]
        asking.set_open(True)
        hand.click(asking.add_button)
        qtbot.waitUntil(lambda field=field: focused(field()))
        hand.reach(field())
    hand.click(page.unsized.buttons["he", TYPE])
    qtbot.waitUntil(lambda: focused(page.add_form.pixel.edit))
    assert page.add_form.source.currentData() == "he"
    hand.click(page.unsized.buttons["he", MEASURE])
    calibration = dock.view_tools.calibration
    qtbot.waitUntil(lambda: calibration.is_on)
    assert calibration.isVisible()
    calibration.cancel()


def test_a_missing_term_of_the_suv_blocks_the_step_and_is_one_click_away(
    qtbot, dock, opened, fresh_case
):
    case = Case(fresh_case)
    case.update(injection=case.file.injection.model_copy(update={"weight_kg": None}))
    opened(dock, fresh_case)
    state = dock.workspace.states["suv"]
    assert state.word == "blocked"
    assert "weight is missing; give 'Body weight'" in state.reason
    assert "injection ⚠" in dock.header.checklist.text()
    page = dock.pages["Uptake (PET)"]
    page.set_open(True)
    page.add_button.click()
    field = page.panel.fields["weight_kg"]
    qtbot.waitUntil(lambda: focused(field))
    field.setText("74")
    page.panel.save.click()
    qtbot.waitUntil(lambda: dock.workspace.states["suv"].word == "missing")


def test_without_a_predictor_the_review_leads_to_one(qtbot, dock, opened, hand, fresh_case):
    opened(dock, fresh_case)
    page = dock.pages["Review and report"]
    page.set_open(True)
    hand.click(page.add_button)
    panel = dock.pages["Predictor"].panel
    qtbot.waitUntil(panel.train.isVisible)
