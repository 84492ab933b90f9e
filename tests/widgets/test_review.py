"""Tiles, points of the plot and rows are one selection; the review comes and goes cleanly."""

from dataclasses import replace

import numpy as np
import pytest
from napari.settings import get_settings
from qtpy.QtCore import QPoint, Qt

from napari_mosaik.core import Table
from napari_mosaik.widgets.base.controls import grey_text
from napari_mosaik.widgets.canvas.camera import centre_um, visible_um
from napari_mosaik.widgets.canvas.view_keys import READOUT
from napari_mosaik.widgets.correct.qa_panel import MARK
from tests.widgets.test_tools import Hand

pytestmark = pytest.mark.gui


def test_review_in_and_out_and_one_selection(qtbot, dock, opened, own_cohort):
    opened(dock, own_cohort, layers=("H&E", "CD34", "CAIX"))
    qtbot.waitUntil(lambda: bool(dock.board.specs) and not dock.controller.is_reading)
    tile_data = dock.workspace.tile_data
    shown = {layer.name: layer.visible for layer in dock.viewer.layers}
    magnification = dock.viewer.canvas.overlays[READOUT]
    qtbot.waitUntil(lambda: magnification.visible)
    dock.show_review()
    qtbot.waitUntil(lambda: not magnification.visible)  # it would lie on the last map
    assert dock.side_by_side.is_on
    assert dock.viewer.canvas.grid.enabled
    assert len(dock.side_by_side._maps()) == 4  # one training case gives no intervals
    assert "this patient" in dock.review.badge.text()
    methods = [dock.review.table.item(i, 0).text() for i in range(dock.review.table.rowCount())]
    assert methods[0] == "MOSAIK network"
    assert "training mean" in methods

    def grey() -> list[str]:
        rows = ((name, dock.review.table.item(i, 0)) for i, name in enumerate(methods))
        return [
            name for name, one in rows if one.foreground().color().name().upper() == grey_text()
        ]

    assert grey() == ["measured neighbours"]  # it knows the PET of the case
    before, get_settings().appearance.theme = grey_text(), "light"
    assert grey_text() != before
    assert grey() == ["measured neighbours"]
    get_settings().appearance.theme = "dark"
    assert "no guarantee at case level" in dock.review.summary.text()

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
    dock.review.worst.selectRow(0)
    error = np.abs(predicted - measured)
    assert dock.workspace.tile == int(np.nanargmax(error))
    last = int(np.nanargmin(error))
    dock.workspace.tile = last  # a tile selected elsewhere is marked in the table
    rows = [index.row() for index in dock.review.worst.selectionModel().selectedRows()]
    assert [dock.review.worst.item(row, 0).text() for row in rows] == [str(last)]

    dock.workspace.tile = 0
    qtbot.keyClick(dock.inspector, Qt.Key.Key_Right)
    assert dock.workspace.tile == tile_data.neighbour(0, 0, 1)

    dock.side_by_side.leave()
    assert not dock.viewer.canvas.grid.enabled
    qtbot.waitUntil(lambda: magnification.visible)
    after = {layer.name: layer.visible for layer in dock.viewer.layers}
    assert {name: after[name] for name in shown} == shown
    kept = [layer.name for layer in dock.side_by_side._cells]
    assert set(after) - set(shown) - {"Selected tile"} == set(kept)
    assert not any(after[name] for name in kept)
    rows = dock.viewer.window._qt_viewer.layers
    hidden = [rows.isRowHidden(row) for row in range(rows.model().rowCount())]
    assert sum(hidden) == len(kept)  # the list shows none of them
    cells = list(dock.side_by_side._cells)
    dock.workspace.tile = 3
    dock.side_by_side.enter()
    assert dock.side_by_side._cells == cells  # not made again
    assert all(layer.visible for layer in cells if len(layer.data))
    assert dock.side_by_side._maps()[0].visible
    square = dock.side_by_side._marks[0].data
    np.testing.assert_allclose(square[0, 0], centre - tile_data.stride_um / 2)
    dock.viewer.layers.remove(dock.board.layer("CAIX"))
    list(dock.board._slide_comes("caix", dock.board.slides["caix"]))  # while the maps are shown
    assert dock.board.layer("CAIX") is None
    dock.side_by_side.leave()
    qtbot.waitUntil(lambda: dock.board.layer("CAIX") is not None, timeout=10_000)
    dock.workspace.tile_data = with_intervals(tile_data)  # other results: other maps
    assert not set(cells) & set(dock.viewer.layers)


def with_intervals(tile_data):
    """The results as a predictor with intervals and a source writes them; one tile is missing."""
    table = tile_data.prediction
    columns = {name: np.array(table[name]) for name in table}
    columns["suv"][2] = columns["suv_norm"][2] = np.nan
    half = 0.1 + 0.01 * np.arange(len(table))
    extra = {
        "suv_norm_low": columns["suv_norm"] - half,
        "suv_norm_high": columns["suv_norm"] + half,
        "source": 2 * columns["suv_norm"],
        "out_of_range": np.arange(len(table)) == 5,
    }
    new = Table({**columns, **extra}, table.units, table.about, table.frame)
    return replace(tile_data, prediction=new)


def test_the_review_board_shows_what_is_chosen(qtbot, dock, opened, own_cohort):
    opened(dock, own_cohort)
    board, choices = dock.side_by_side, dock.review.choices
    dock.workspace.tile_data = data = with_intervals(dock.workspace.tile_data)
    dock.show_review()
    grid = dock.viewer.canvas.grid
    assert [one.key for one in board.shown()] == ["measured", "predicted", "difference", "width"]
    assert grid.enabled
    assert np.prod(grid.shape) >= 4
    pictures = board._maps()
    assert [picture.colorbar.visible for picture in pictures] == [True, False, True, True]
    assert np.isnan(np.asarray(pictures[1].data)[tuple(data.grid.cells[2])])  # empty
    assert len(board._cells[1].data) == 0  # what is measured is not hatched
    assert len(board._cells[4].data) == 3
    canvas = np.asarray(dock.viewer.canvas.viewbox_size(dock.viewer.layers))
    seen = np.ptp(data.grid.centres_um, axis=0) * dock.viewer.scene.camera.zoom
    assert (seen / canvas).max() > 0.5  # the maps fill their views

    def push(box):
        qtbot.mouseClick(box, Qt.MouseButton.LeftButton, pos=QPoint(8, box.height() // 2))

    push(choices.maps["source"])  # four have room
    assert not choices.maps["source"].isChecked()
    for key in ("difference", "width", "predicted"):
        push(choices.maps[key])
    assert board.chosen == ("measured", "predicted")  # two at least
    assert choices.maps["predicted"].isChecked()
    limits = board._maps()[0].contrast_limits
    board.set_normalised(True)
    low, high = data.target
    now = board._maps()[0].contrast_limits
    np.testing.assert_allclose(now, (np.array(limits) - low) / (high - low))
    assert board.headings == ("measured, 0 to 1", "predicted, 0 to 1")

    push(choices.smooth)
    qtbot.waitUntil(lambda: all("(IDW)" in picture.name for picture in board._maps()))
    push(choices.smooth)
    assert not any("(IDW)" in picture.name for picture in board._maps())

    board.compare("Swipe")
    assert not grid.enabled
    choices.divider.setValue(25)
    qtbot.waitUntil(lambda: np.isnan(np.asarray(board._maps()[0].data)[:, -1]).all())
    left, right = board._span_um()
    middle = float(data.grid.centres_um[:, 0].mean())

    at, zoom = centre_um(dock.viewer), dock.viewer.scene.camera.zoom
    hand = Hand(qtbot, dock)
    hand.drag([(middle, left + share * (right - left)) for share in (0.25, 0.3, 0.4, 0.5, 0.6)])
    assert abs(board.divider - 0.6) < 0.05
    assert choices.divider.value() == round(100 * board.divider)
    np.testing.assert_allclose(centre_um(dock.viewer), at)  # the drag moves the line alone
    assert dock.viewer.scene.camera.zoom == zoom

    def line():
        return (dock.viewer.layers["Handle of the swipe"].data[0, 0, 1] - left) / (right - left)

    qtbot.waitUntil(lambda: abs(line() - board.divider) < 1e-6)
    first, second = (np.isfinite(np.asarray(one.data)).any(axis=0) for one in board._maps())
    assert not (first & second).any()
    assert first.argmax() < second.argmax()
    board.compare("Flicker")
    assert [layer.visible for layer in board._maps()] == [True, False]
    board._timer.timeout.emit()
    assert [layer.visible for layer in board._maps()] == [False, True]
    board.leave()
    assert not board._timer.isActive()
    assert not choices.isVisible()


def test_a_tile_shows_the_same_place_in_three_stains(qtbot, dock, opened, own_cohort):
    opened(dock, own_cohort)
    dock.workspace.tile = dock.workspace.tile_data.n_tiles // 2
    images = dock.inspector.images
    qtbot.waitUntil(
        lambda: all(not p.image.pixmap().isNull() for p in images.values()), timeout=10_000
    )
    footprint = images["cd34"].image.pixmap().toImage()
    dock.inspector.footprint.setChecked(False)  # the tile alone, nearer
    qtbot.waitUntil(lambda: images["cd34"].image.pixmap().toImage() != footprint)
    dock.inspector.footprint.setChecked(True)
    qtbot.waitUntil(lambda: images["cd34"].image.pixmap().toImage() == footprint)
    middle = footprint.width() // 2
    scanner_um = dock.workspace.tile_data.scanner_um
    half_um = dock.workspace.tile_data.grid.size_um / 2
    edge = middle - round(half_um / (1.15 * scanner_um) * footprint.width())
    found = [footprint.pixelColor(x, middle) for x in range(edge - 2, edge + 3)]
    assert any(one.blue() > 150 and one.red() < 90 for one in found)  # the outline of the tile
    line = dock.workspace.tile_data.line(dock.workspace.tile)
    assert "measured" in line
    assert "predicted" in line
    assert "nan" not in line
    inspector = dock.inspector
    assert not inspector.means.isVisible()
    inspector.kind.setCurrentIndex(1)
    inspector.kind.activated.emit(1)
    qtbot.waitUntil(lambda: inspector._attention is not None)
    assert inspector.tabs.isHidden()  # no empty box beside the maps
    qtbot.waitUntil(lambda: inspector.curves.canvas is not None)
    assert "not importance and not a cause" in inspector.means.text()
    assert not inspector.means.visibleRegion().isEmpty()
    assert (
        inspector.means.mapTo(inspector, QPoint(inspector.means.width(), 0)).x()
        <= inspector.width()
    )
    tile, found = dock.workspace.tile, inspector._attention
    axes = inspector.curves.canvas.figure.axes
    for place in range(3):
        np.testing.assert_allclose(
            np.asarray(axes[place].images[0].get_array()), 100 * found.within[tile, place]
        )


def test_a_what_if_is_shown_discarded_and_made_a_correction(qtbot, dock, opened, own_cohort):
    from napari_mosaik.core.catalogue import PARAMETERS

    case = opened(dock, own_cohort)
    dock.tabs.setCurrentIndex(dock.review_tab)
    dock.what_if_fold.set_open(True)
    panel, data = dock.what_if, dock.workspace.tile_data
    # that errors were shown is noted in the journal, in the background
    qtbot.waitUntil(lambda: panel.label.count() == 3 and not dock.controller.is_reading)
    assert not panel.push.isEnabled()  # no tile yet
    dock.workspace.tile = 9
    fraction = case.store.read(PARAMETERS)["neoplastic_fraction"][9]
    panel.label.setCurrentText("non-neoplastic" if fraction > 0.5 else "neoplastic")
    panel.tool.drawn.emit(
        np.array([data.grid.centres_um[9] + d for d in ((-9, -9), (9, -9), (0, 9))])
    )
    assert panel.tiles == [9]
    before = {path: path.stat().st_mtime_ns for path in case.root.rglob("*") if path.is_file()}
    qtbot.mouseClick(panel.push, Qt.MouseButton.LeftButton)
    assert not panel.push.isEnabled()
    qtbot.waitUntil(lambda: panel.found is not None)
    after = {path: path.stat().st_mtime_ns for path in case.root.rglob("*") if path.is_file()}
    assert after == before
    layer = dock.board.layer("What if")
    painted = np.asarray(layer.data)[tuple(data.grid.cells.T)]
    np.testing.assert_allclose(painted, panel.found.difference.astype(np.float32))
    assert panel.table.item(0, 0).text().split()[0] == str(panel._listed[0])
    assert "not retrained" in panel.held.text()
    qtbot.mouseClick(panel.side, Qt.MouseButton.LeftButton)
    assert [one.name.split(",")[0] for one in panel.maps._maps()] == [
        "before", "what if", "difference"]  # fmt: skip
    panel.maps.leave()
    qtbot.mouseClick(panel.discard, Qt.MouseButton.LeftButton)
    assert dock.board.layer("What if") is None
    assert panel.found is None
    assert panel.tiles == [9]  # still chosen
    qtbot.mouseClick(panel.push, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: panel.found is not None)
    label = panel.label.currentText()
    qtbot.mouseClick(panel.correct, Qt.MouseButton.LeftButton)
    document = dock.annotate.annotation.document
    (shape,) = document.shapes
    assert shape.label == label
    assert document.undo_title.startswith("what if")
    assert dock.board.layer("What if") is None
    qtbot.waitUntil(lambda: len(case.annotations("he")) == 1)


def test_the_nearest_training_tiles_open_their_case(qtbot, dock, opened, own_cohort):
    from napari_mosaik.predictor import NearestTiles

    opened(dock, own_cohort)
    dock.workspace.tile = 5
    inspector = dock.show_inspector()
    inspector.tabs.setCurrentIndex(1)
    # the network of this cohort was trained on one case
    qtbot.waitUntil(lambda: "one case" in inspector.nearest_line.text(), timeout=30_000)
    n, shape = dock.workspace.tile_data.n_tiles, (dock.workspace.tile_data.n_tiles, 2)
    tile, case = np.tile([4, 6], (n, 1)), np.tile([0, 1], (n, 1))
    suv = np.full(shape, 2.0)
    inspector._found = NearestTiles(("B8", "A9"), case, tile, suv, suv, suv * np.nan, 60)
    dock.workspace.tile = 7
    assert [inspector.nearest.item(0, i).text() for i in range(5)] == [
        "B8",
        "4",
        "2.00",
        "2.00",
        "–",
    ]
    inspector.nearest.cellClicked.emit(1, 0)
    assert "A9 is not in the cohort" in inspector.nearest_line.text()
    inspector.nearest.cellClicked.emit(0, 0)
    qtbot.waitUntil(lambda: dock.workspace.case.name == "B8", timeout=30_000)
    qtbot.waitUntil(lambda: dock.workspace.tile == 4, timeout=10_000)
    assert "not predicted" in inspector.nearest_line.text()
    assert inspector.nearest.rowCount() == 0


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
