"""The page *Uptake in vivo*: typed, imported, measured, removed and brought back."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from qtpy.QtCore import QPoint, Qt

from napari_mosaik.io.invivo import read_invivo, write_invivo
from napari_mosaik.phantom.in_vivo import write_in_vivo
from napari_mosaik.phantom.presets import PLANS
from napari_mosaik.workflow.invivo import measure_invivo, open_series
from tests.pet_series import contours

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
    assert "tumour at 24.5 h" in page.message.text()
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
    qtbot.waitUntil(lambda: page.message.text() == "Added: blood at 72.75 h.")
    (stored,) = read_invivo(case.root)
    assert stored.method == "sphere of 8 mm"
    page.radius.setText("80")
    page.radius.editingFinished.emit()
    assert not page.keep.isEnabled()
    click(qtbot, page.measure)
    qtbot.waitUntil(lambda: dock.workspace.problem is not None)
    assert "beyond the PET" in dock.workspace.problem.sentence


def test_a_region_of_a_mask_is_measured_in_the_series_that_was_chosen(qtbot, dock, page, tmp_path):
    case = dock.workspace.case
    write_invivo(case.root, [])
    two = tmp_path / "two"
    shutil.copytree(case.root / "invivo" / "day3", two / "a")
    (two / "b").mkdir()
    for path in (two / "a").iterdir():
        data = pydicom.dcmread(path)
        data.SeriesInstanceUID = "1.7"
        data.RescaleSlope = 2 * float(data.RescaleSlope)
        data.save_as(two / "b" / path.name)
    assert page.choice.isHidden()
    page.open_series(two)
    qtbot.waitUntil(lambda: page.series.count() == 2 and dock.workspace.job is None)
    assert not page.choice.isHidden()
    assert page.picture.view is None
    assert page.frame.count() == 1
    page.series.setCurrentIndex(1)
    click(qtbot, page.read_button)
    qtbot.waitUntil(lambda: page.picture.view is not None and dock.workspace.job is None)
    grid = page.picture.view.volume.grid

    def box(place):
        corners = [(8.5, 8.5), (8.5, 13.5), (12.5, 13.5), (12.5, 8.5)]
        return grid.positions_mm(np.array([(place, *corner) for corner in corners]))

    regions = {1: [box(3), box(4)], 5: [box(9), box(10), box(11)]}
    mask = contours(tmp_path / "rt.dcm", regions, reference=data.FrameOfReferenceUID)
    page.open_mask(mask)
    qtbot.waitUntil(lambda: page.picture.view.mask is not None)
    assert [page.label.itemText(n) for n in range(2)] == ["1 region 1", "5 region 5"]
    page.label.setCurrentIndex(1)
    assert page.picture.view.mask is None  # the region before is no longer shown
    qtbot.waitUntil(lambda: page.picture.view.mask is not None)
    assert page.level.value() == 10
    assert page.picture.view.masked().sum() == 14  # the edge of 4 x 5 voxels
    assert not page.radius.isEnabled()
    page.picture.repaint()
    page.voi_region.setCurrentText("liver")
    click(qtbot, page.measure)
    qtbot.waitUntil(lambda: page.keep.isEnabled())
    click(qtbot, page.keep)
    qtbot.waitUntil(lambda: page.message.text().startswith("Added: liver"))
    (stored,) = read_invivo(case.root)
    assert stored.method.startswith("RTSTRUCT, region 5, contours of")
    assert stored.volume_ml == pytest.approx(60 * grid.voxel_ml)
    volume = open_series(case, [two / "a"])
    one = measure_invivo(case, volume, mask, "liver", label=5)
    assert stored.mean == pytest.approx(2 * one.value.mean)
    click(qtbot, page.sphere_button)
    assert page.radius.isEnabled()
    assert not page.keep.isEnabled()
    page.open_mask(case.root / "invivo.csv")
    qtbot.waitUntil(lambda: dock.workspace.problem is not None)
    assert "cannot be used as a mask" in dock.workspace.problem.sentence


def test_a_series_of_another_patient_asks(qtbot, dock, page, tmp_path):
    (tmp_path / "B8").mkdir()
    write_in_vivo(tmp_path / "B8", PLANS["B8"], 0)
    page.open_series(tmp_path / "B8" / "invivo" / "day3")
    qtbot.waitUntil(lambda: dock.workspace.problem is not None and dock.workspace.job is None)
    assert "'Same patient'" in dock.workspace.problem.sentence
    assert page.picture.view is None
