"""The page *Uptake in vivo*: typed, imported, measured, removed and brought back."""

import shutil
from pathlib import Path

import numpy as np
import pydicom  # noqa: F401 - before the window's own thread loads it
import pytest
from qtpy.QtCore import QPoint, Qt

from napari_mosaik.io.invivo import read_invivo, write_invivo
from napari_mosaik.phantom.in_vivo import write_in_vivo
from napari_mosaik.phantom.presets import PLANS

pytestmark = pytest.mark.gui


WRITTEN = Path(__file__).parents[2] / "sample_data" / "tiny" / "A2"


@pytest.fixture
def page(qtbot, dock, opened, tmp_path):
    opened(dock, shutil.copytree(WRITTEN, tmp_path / "A2"), "A2")
    page = dock.invivo
    page.set_open(True)
    qtbot.waitUntil(lambda: page.table.rowCount() == 9)
    return page


def click(qtbot, push):
    qtbot.waitUntil(lambda: push.height() > 10)  # the page has its layout
    qtbot.mouseClick(push, Qt.MouseButton.LeftButton)


def test_values_are_typed_removed_and_brought_back(qtbot, dock, page, tmp_path):
    root = dock.workspace.case.root
    before = read_invivo(root)
    assert page.head.line.text() == "9 values of 3 scans · SUVbw"
    for field, text in ((page.time, "24,5"), (page.mean, "3.1"), (page.error, "0")):
        field.setText(text)
    click(qtbot, page.add)
    assert "standard error of the mean" in dock.workspace.problem.sentence
    page.error.setText("0.2")
    click(qtbot, page.add)
    qtbot.waitUntil(lambda: page.table.rowCount() == 10)
    assert read_invivo(root)[0].mean == 3.1
    assert page.table.item(0, 0).text() == "24.50\N{NO-BREAK SPACE}h"
    assert "tumour at 24.5 h" in page.told.text()
    page.table.selectRow(0)
    click(qtbot, page.remove)
    qtbot.waitUntil(lambda: page.table.rowCount() == 9)
    assert read_invivo(root) == before
    click(qtbot, page.undo)
    qtbot.waitUntil(lambda: page.table.rowCount() == 10)

    table = tmp_path / "more.tsv"
    table.write_text("time_h\tregion\tmean\tsd\n200\tkidney\t4\t0.3\n", "utf-8")
    page.import_from(table)
    qtbot.waitUntil(lambda: "'Decay-corrected to' is missing" in dock.workspace.problem.sentence)
    page.reference.setCurrentIndex(1)
    page.table_unit.setCurrentIndex(1)
    page.import_from(table)
    qtbot.waitUntil(lambda: page.table.rowCount() == 11)
    assert read_invivo(root)[-1].region == "kidney"


def test_a_series_is_measured_in_a_cropped_slice(qtbot, dock, page):
    case = dock.workspace.case
    write_invivo(case.root, [])
    assert page.opened_part.isHidden()
    page.open_series(case.root / "invivo" / "day3")
    qtbot.waitUntil(lambda: page.picture.view is not None and dock.workspace.job is None)
    view = page.picture.view
    assert page.level.maximum() == 25
    shown = view.grey()
    assert shown.dtype == np.uint8
    centre = view.centre_mm
    page.picture.resize(220, 220)
    area, _, _ = page.picture.place()
    qtbot.mouseClick(
        page.picture,
        Qt.MouseButton.LeftButton,
        pos=QPoint(round(area.center().x() + 40), round(area.center().y())),
    )
    assert view.centre_mm[0] > centre[0] + 10
    assert f"x {view.centre_mm[0]:.1f}" in page.where.text()
    page.level.setValue(10)
    assert view.centre_mm[2] == pytest.approx(240 + 40)
    page.radius.setText("8")
    page.radius.editingFinished.emit()
    page.voi_region.setCurrentText("Aorta")
    assert not page.keep.isEnabled()
    click(qtbot, page.measure)
    qtbot.waitUntil(lambda: page.keep.isEnabled())
    assert "blood at 72.75 h" in page.result.text()
    assert "not applied" in page.result.text()
    click(qtbot, page.keep)
    qtbot.waitUntil(lambda: page.told.text() == "Added: blood at 72.75 h.")
    (stored,) = read_invivo(case.root)
    assert stored.method == "sphere of 8 mm"
    page.radius.setText("80")
    page.radius.editingFinished.emit()
    assert not page.keep.isEnabled()
    click(qtbot, page.measure)
    qtbot.waitUntil(lambda: dock.workspace.problem is not None)
    assert "beyond the PET" in dock.workspace.problem.sentence


def test_a_series_of_another_patient_asks(qtbot, dock, page, tmp_path):
    (tmp_path / "B8").mkdir()
    write_in_vivo(tmp_path / "B8", PLANS["B8"], 0)
    page.open_series(tmp_path / "B8" / "invivo" / "day3")
    qtbot.waitUntil(lambda: dock.workspace.problem is not None and dock.workspace.job is None)
    assert "'Same patient'" in dock.workspace.problem.sentence
    assert page.picture.view is None
