"""Tiles, points of the plot and rows are one selection; the review comes and goes cleanly."""

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_mosaik.widgets.canvas.camera import centre_um, visible_um
from napari_mosaik.widgets.correct.qa_panel import MARK

pytestmark = pytest.mark.gui


def test_review_in_and_out_and_one_selection(qtbot, dock, opened, own_cohort):
    opened(dock, own_cohort)
    tile_data = dock.workspace.tile_data
    shown = {layer.name: layer.visible for layer in dock.viewer.layers}
    dock.show_review()
    assert dock.side_by_side.is_on
    assert dock.viewer.canvas.grid.enabled
    assert dock.viewer.canvas.grid.actual_shape(dock.viewer.layers) == (1, 3)
    assert "this patient" in dock.review.badge.text()
    methods = [dock.review.table.item(i, 0).text() for i in range(dock.review.table.rowCount())]
    assert methods[0] == "MOSAIK network"
    assert "training mean" in methods

    measured, predicted = tile_data.measured(), tile_data.predicted()
    dock.review._clicked(float(measured[7]), float(predicted[7]))  # a click on a point
    assert dock.workspace.tile == 7
    assert dock.inspector is not None
    qtbot.waitUntil(lambda: dock.inspector.table.rowCount() > 20, timeout=10_000)
    centre = tile_data.grid.centres_um[3]
    dock.canvas.choose((float(centre[0]), float(centre[1])))  # a click on a map
    assert dock.workspace.tile == 3
    assert dock.inspector.title.text().startswith("Tile 3 ")
    assert not np.array_equal(dock.side_by_side._marks[0].data, np.zeros((0, 2, 2)))
    item = dock.review.worst.item(0)
    dock.review.worst.itemClicked.emit(item)
    error = np.abs(predicted - measured)
    assert dock.workspace.tile == int(np.nanargmax(error))

    dock.workspace.tile = 0
    qtbot.keyClick(dock.inspector, Qt.Key.Key_Right)
    assert dock.workspace.tile == tile_data.neighbour(0, 0, 1)

    dock.side_by_side.leave()
    assert not dock.viewer.canvas.grid.enabled
    after = {layer.name: layer.visible for layer in dock.viewer.layers}
    assert {name: after[name] for name in shown} == shown
    assert not [name for name in after if name.endswith("(review)")]


def test_a_tile_shows_the_same_place_in_three_stains(qtbot, dock, opened, own_cohort):
    opened(dock, own_cohort)
    dock.workspace.tile = dock.workspace.tile_data.n_tiles // 2
    images = dock.inspector.images
    qtbot.waitUntil(
        lambda: all(not p.image.pixmap().isNull() for p in images.values()), timeout=10_000
    )
    line = dock.workspace.tile_data.line(dock.workspace.tile)
    assert "measured" in line
    assert "predicted" in line
    assert "nan" not in line


def test_a_click_on_a_crop_shows_the_place_and_arrows_work_on_the_canvas(
    qtbot, dock, opened, own_cohort
):
    opened(dock, own_cohort, layers=("H&E", "CD34"))
    qtbot.waitUntil(lambda: dock.workspace.tile_data.grid is not None)
    grid, data = dock.workspace.tile_data.grid, dock.workspace.tile_data
    canvas = dock.viewer.window._qt_viewer.canvas.native
    tile = data.n_tiles // 2
    dock.canvas.choose(tuple(grid.centres_um[tile]))
    canvas.setFocus()  # as a click on the slide does
    qtbot.keyClick(canvas, Qt.Key.Key_Right)
    right = data.neighbour(tile, 0, 1)
    assert dock.workspace.tile == right != tile
    dock.workspace.tile = tile
    qtbot.keyClick(canvas, Qt.Key.Key_Up)
    assert dock.workspace.tile == data.neighbour(tile, -1, 0)
    dock.workspace.tile = tile
    qtbot.mouseClick(dock.inspector.images["he"], Qt.MouseButton.LeftButton)
    assert dock.view_tools.quad_view.is_on
    np.testing.assert_allclose(centre_um(dock.viewer), grid.centres_um[tile], atol=1)
    low, high = visible_um(dock.viewer)
    assert grid.size_um < (high - low).min() < 4 * grid.size_um
    dock.workspace.tile = -1  # the keys are napari's again
    qtbot.keyClick(canvas, Qt.Key.Key_Right)
    assert dock.workspace.tile == -1


def test_a_segmentation_is_checked_by_eye_and_kept(qtbot, dock, opened, own_cohort, tmp_path):
    opened(dock, own_cohort / "B11")
    panel = dock.visual_qa
    panel.reader.setText("anna")
    panel.start()
    qtbot.waitUntil(lambda: panel.session is not None, timeout=20_000)
    assert panel.question.text().startswith("Object 1 of ")
    qtbot.mouseClick(panel.right, Qt.MouseButton.LeftButton)
    qtbot.mouseClick(panel.wrong, Qt.MouseButton.LeftButton)
    assert "wrong: 1 of 2" in panel.message.text()
    qtbot.mouseClick(panel.back, Qt.MouseButton.LeftButton)
    assert panel.question.text().startswith("Object 2 of ")
    qtbot.mouseClick(panel.right, Qt.MouseButton.LeftButton)
    assert "wrong: 0 of 2" in panel.message.text()
    undone = panel.session.part.journal.undo_last()  # as another view does: the panel follows
    assert undone.title == f"rating of object {panel._current[1]}"
    assert panel.question.text().startswith("Object 2 of ")
    assert "wrong: 1 of 2" in panel.message.text()
    panel.session.part.journal.redo_last()
    assert panel.question.text().startswith("Object 3 of ")
    assert "wrong: 0 of 2" in panel.message.text()
    panel.stop()
    assert MARK not in dock.viewer.layers

    panel.start()  # goes on where it was left
    qtbot.waitUntil(lambda: panel.session is not None, timeout=20_000)
    assert panel.question.text().startswith("Object 3 of ")
    while panel.session.next_object() is not None:
        panel._rate("correct")
    missed = 0
    while panel.session.next_field() is not None:
        panel.missed.setValue(1)
        qtbot.mouseClick(panel.next, Qt.MouseButton.LeftButton)
        missed += 1
    assert f"missed: {missed} of" in panel.message.text()
    panel.overall_rating.setCurrentText("usable")
    qtbot.mouseClick(panel.save, Qt.MouseButton.LeftButton)
    assert "overall rating: usable" in panel.message.text()
    panel.stop()
    out = tmp_path / "qa.csv"
    panel.write_csv(out)
    qtbot.waitUntil(out.is_file, timeout=20_000)
    assert ",anna,current," in out.read_text()
