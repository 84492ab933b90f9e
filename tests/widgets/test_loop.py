"""A correction is drawn, undone, drawn again, trained and travels to the predicted uptake."""

import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

from napari_mosaik.annotate import open_document, rectangle_polygon, stroke_polygon
from napari_mosaik.core.journal import journal_of

pytestmark = pytest.mark.gui


def test_drawing_retraining_and_updating(qtbot, dock, opened, own_cohort):
    case = opened(dock, own_cohort, layers=("H&E",))
    dock.show_annotate()
    drawing, annotation = dock.annotate.drawing, dock.annotate.annotation
    document = annotation.document
    before = len(document)
    height, width = dock.board.slides["he"].lattices[0].extent_um

    drawing.choose_class("neoplastic")
    drawing.commit(stroke_polygon([(0.5 * height, 0.4 * width), (0.6 * height, 0.4 * width)], 80.0))
    assert len(document) == before + 1
    assert len(open_document(journal_of(case.root, "reader"))) == before + 1  # on the disk at once
    assert dock.annotate.undo.text() == "Undo brush"
    dock.annotate.undo.click()
    assert len(document) == before
    dock.annotate.redo.click()
    assert len(document) == before + 1
    drawing.take("rectangle")
    drawing.choose_class("non-neoplastic")
    drawing.commit(rectangle_polygon((0.3 * height, 0.55 * width), (0.4 * height, 0.65 * width)))
    drawing.choose_class("background")
    drawing.commit(rectangle_polygon((0.02 * height, 0.02 * width), (0.1 * height, 0.1 * width)))
    qtbot.waitUntil(lambda: "Annotations" in dock.viewer.layers, timeout=10_000)
    assert set(dock.viewer.layers["Annotations"].data.ravel()) >= {0, 1, 2}

    dock.annotate.retrain.click()
    qtbot.waitUntil(lambda: dock.workspace.job is None, timeout=60_000)
    assert dock.workspace.problem is None
    assert len(case.annotations("he")) == before + 3
    words = lambda: {name: state.word for name, state in dock.workspace.states.items()}  # noqa: E731
    qtbot.waitUntil(lambda: words()["classes"] == "stale", timeout=20_000)
    assert words()["predict"] == "stale"
    assert words()["nuclei"] == "done"

    qtbot.waitUntil(dock.annotate.update_button.isEnabled, timeout=10_000)
    dock.annotate.update_button.click()
    qtbot.waitUntil(lambda: dock.workspace.job is None, timeout=120_000)
    assert dock.workspace.problem is None
    qtbot.waitUntil(  # all but the dose of plans that nobody made
        lambda: {name for name, word in words().items() if word != "done"} == {"dose"},
        timeout=20_000,
    )
    qtbot.waitUntil(lambda: "mean absolute error" in dock.annotate.change.text(), timeout=20_000)
    told = dock.annotate.change.text()
    assert "classes: changed in " in told
    assert "neoplastic" in told
    assert "mm²" in told


def test_the_mouse_draws_with_each_tool_and_alt_erases(qtbot, dock, opened, own_cohort):
    opened(dock, own_cohort, layers=("H&E", "CD34", "CAIX"))  # one that comes late is selected
    dock.show_annotate()
    drawing, document = dock.annotate.drawing, dock.annotate.annotation.document
    canvas = dock.viewer.window._qt_viewer.canvas.native
    middle = canvas.rect().center()
    before = len(document)

    def drag(*offsets, modifier=Qt.KeyboardModifier.NoModifier):
        left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
        points = [middle + QPoint(*offset) for offset in offsets]
        qtbot.mousePress(canvas, left, modifier, points[0])
        for point in points[1:]:
            place = QPointF(point), QPointF(canvas.mapToGlobal(point))
            move = QMouseEvent(QEvent.Type.MouseMove, *place, none, left, modifier)
            QApplication.sendEvent(canvas, move)
        qtbot.mouseRelease(canvas, left, modifier, points[-1])

    where = dock.viewer.scene.camera.center
    drag((0, 0), (20, 0), (40, 10))
    assert len(document) == before + 1
    area = document.shapes[-1].geometry.area
    drag((25, 4), (30, 6), modifier=Qt.KeyboardModifier.AltModifier)
    assert document.shapes[-1].geometry.area < area
    drawing.take("lasso")
    drag((-60, -60), (-20, -60), (-20, -20), (-60, -20))
    drawing.take("rectangle")
    drag((60, 60), (100, 90))
    assert len(document) == before + 3
    assert dock.viewer.scene.camera.center == where  # the strokes moved nothing
    drawing.take("polygon")
    zoom = dock.viewer.scene.camera.zoom
    for corner in ((-60, 40), (-20, 40), (-20, 80)):
        qtbot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=middle + QPoint(*corner))
    qtbot.mouseDClick(canvas, Qt.MouseButton.LeftButton, pos=middle + QPoint(-20, 80))
    assert len(document) == before + 4
    assert dock.viewer.scene.camera.zoom == zoom  # napari magnifies by a double click
    document.undo()
    layers = dock.viewer.layers
    qtbot.waitUntil(lambda: "Annotations" in layers)
    QApplication.processEvents()
    layers.selection.active = layers["H&E"]  # chosen by hand for its controls
    assert not dock.viewer.scene.camera.mouse_pan
    QApplication.processEvents()
    assert layers.selection.active is layers["H&E"]
    drawing.take("select")
    drag((80, 75), (80, 75))
    assert drawing.selected == document.shapes[-1].key
    drawing.run("delete")
    assert len(document) == before + 2
    drawing.release()
    assert dock.viewer.scene.camera.mouse_pan
