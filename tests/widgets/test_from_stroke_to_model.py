"""The whole loop by hand: queue, annotations, live prediction, a model, adopted, rolled back."""

import threading

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt

from napari_mosaik.core import Progress
from napari_mosaik.widgets.annotate.annotation import LIVE_TITLE
from napari_mosaik.widgets.canvas.side_by_side import PER_CELL
from napari_mosaik.widgets.pages import models as models_page
from napari_mosaik.workflow.models import known_models, model_in_use
from tests.widgets.test_tools import Hand

pytestmark = pytest.mark.gui


def press(qtbot, button):
    """A real click on a button or a box that can be pressed."""
    qtbot.waitUntil(button.isEnabled)
    left = QPoint(10, button.height() // 2)  # of a box only its mark and its text can be clicked
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton, pos=left)


def choose(qtbot, page, *hashes):
    """Click the rows of some models, the later ones with Ctrl."""
    for number, name in enumerate(hashes):
        place = [one.hash for one in page._models].index(name)
        middle = page.table.visualItemRect(page.table.item(place, 1)).center()
        held = Qt.KeyboardModifier.ControlModifier if number else Qt.KeyboardModifier.NoModifier
        page.table.scrollToItem(page.table.item(place, 1))
        middle = page.table.visualItemRect(page.table.item(place, 1)).center()
        qtbot.mouseClick(page.table.viewport(), Qt.MouseButton.LeftButton, held, QPoint(middle))
    assert [one.hash for one in page.chosen()] == sorted(
        hashes, key=[one.hash for one in page._models].index
    )


def test_from_a_queued_tile_to_a_model_and_back(qtbot, dock, opened, own_cohort):
    case = opened(dock, own_cohort, layers=("H&E", "CD34", "CAIX"))
    before = model_in_use(case, "classes")
    tools, layers, queue, hand = dock.annotate, dock.viewer.layers, dock.queue, Hand(qtbot, dock)
    key, control, shift = Qt.Key, Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier
    qtbot.waitUntil(lambda: "Tissue classes" in dock.board.specs)

    # the queue leads; each decision is kept, taken back, or ends in the annotation tools
    dock.tabs.setCurrentIndex(dock.review_tab)
    dock.queue_fold.set_open(True)
    press(qtbot, queue.begin)
    qtbot.waitUntil(lambda: queue.session is not None)
    tiles = [item.tile for item in queue.session.queue.tiles]
    assert queue.blind.isVisible()
    hand.native.setFocus()
    for pressed, place, judged in (
        (key.Key_A, 1, ["accept"]),
        (key.Key_R, 2, ["accept", "reject"]),
        (key.Key_P, 1, ["accept", "reject"]),
        (key.Key_U, 1, ["accept"]),
        (key.Key_N, 2, ["accept"]),
        (key.Key_E, 2, ["accept", "edit"]),
    ):
        hand.key(pressed)
        assert dock.workspace.tile == tiles[place]
        assert [one.decision for one in queue.session.judged.values()] == judged
    qtbot.waitUntil(lambda: tools.drawing.is_active)
    document = tools.annotation.document
    n, middle = len(document), np.array(dock.viewer.scene.camera.center[-2:])
    px = 1 / dock.viewer.scene.camera.zoom

    def stroke(label, *offsets_px):
        press(qtbot, tools.class_buttons[label])
        hand.drag(middle + px * np.array(offsets_px))

    # a predicted region becomes an annotation; one undo goes through it and through the queue
    hand.key(key.Key_T)
    hand.click(middle)
    qtbot.waitUntil(lambda: len(document) == n + 1)
    hand.key(key.Key_Z, control)
    assert len(document) == n
    hand.key(key.Key_Z, control)
    assert "Undone in another view: edit tile" in tools.notice.text()
    assert tiles[2] not in queue.session.judged
    assert "edit" not in queue.list.item(2).text()
    for _ in range(2):
        hand.key(key.Key_Z, control | shift.ShiftModifier)
    assert len(document) == n + 1
    assert queue.session.judged[tiles[2]].decision == "edit"
    predicted = document.shapes[-1].label

    # the wand grows over tissue; brush strokes are followed by the live prediction
    hand.key(key.Key_W)
    qtbot.mousePress(hand.native, Qt.MouseButton.LeftButton, pos=hand.pixel(middle + 60 * px))
    qtbot.waitUntil(lambda: tools.drawing._draft is not None)
    qtbot.mouseRelease(hand.native, Qt.MouseButton.LeftButton, pos=hand.pixel(middle + 60 * px))
    qtbot.waitUntil(lambda: document.undo_title == "wand")
    hand.key(key.Key_B)
    press(qtbot, tools.live_box)
    others = [name for name in ("neoplastic", "non-neoplastic", "background") if name != predicted]
    stroke(others[0], (0, -60), (0, -30), (10, -20))
    qtbot.waitUntil(lambda: LIVE_TITLE in layers)
    qtbot.waitUntil(lambda: not tools.live._busy)
    assert layers.index(LIVE_TITLE) < layers.index("Annotations")
    first = np.array(layers[LIVE_TITLE].data)
    stroke(others[1], (40, 40), (40, 90), (60, 90))
    qtbot.waitUntil(lambda: (np.asarray(layers[LIVE_TITLE].data) != first).any())
    qtbot.waitUntil(lambda: "2 cases in all" in tools.live_line.text())  # B8 trains, too
    assert model_in_use(case, "classes") == before  # nothing is stored
    press(qtbot, tools.live_box)
    assert LIVE_TITLE not in layers

    # the next tile, and away
    hand.key(key.Key_N)
    assert dock.tabs.currentIndex() == dock.review_tab
    assert dock.workspace.tile == tiles[3]
    press(qtbot, queue.close_queue)
    assert dock.workspace.blind  # until the queue is finished
    dock.tabs.setCurrentIndex(dock.annotate_tab)

    press(qtbot, tools.retrain)
    qtbot.waitUntil(lambda: dock.workspace.job is None and dock.workspace.change is not None)
    after = model_in_use(case, "classes")
    assert after != before

    dock.tabs.setCurrentIndex(dock.models_tab)
    page = dock.models
    qtbot.waitUntil(lambda: after in [one.hash for one in page._models])
    assert f"fast classifier {after[:8]}" in page.line.text()
    choose(qtbot, page, after)
    assert "trained on B8, B11" in page.card.text().replace("B11, B8", "B8, B11")
    assert "is separated by" in page.card.text()
    choose(qtbot, page, before, after)
    press(qtbot, page.compare)
    # the new one has seen this case
    qtbot.waitUntil(lambda: "No fair score" in page.message.text())
    assert "classes differ in" in page.message.text()
    assert page.maps.is_on
    shown = [np.asarray(layer.data) for layer in page.maps._cells[::PER_CELL]]
    assert (shown[2] > 0).any()
    assert ((shown[2] > 0) <= (shown[0] != shown[1])).all()
    press(qtbot, page.single)
    assert not page.maps.is_on

    press(qtbot, page.back)
    qtbot.waitUntil(lambda: model_in_use(case, "classes") == before)
    qtbot.waitUntil(lambda: dock.workspace.recipe["classes"].model == before)
    choose(qtbot, page, after)
    press(qtbot, page.adopt)
    qtbot.waitUntil(lambda: dock.workspace.recipe["classes"].model == after)
    press(qtbot, page.back)
    qtbot.waitUntil(lambda: dock.workspace.recipe["classes"].model == before)
    assert len(known_models([case])) == len(page._models)  # all are still there
    assert dock.workspace.problem is None


def test_a_network_learns_on_with_curves_pause_and_cancel(
    qtbot, dock, opened, own_cohort, monkeypatch
):
    case = opened(dock, own_cohort)
    dock.tabs.setCurrentIndex(dock.models_tab)
    page = dock.models
    predictor = model_in_use(case, "predict")
    qtbot.waitUntil(lambda: predictor in [one.hash for one in page._models])
    choose(qtbot, page, model_in_use(case, "classes"))
    assert not page.learn.isEnabled()  # a forest is trained again instead
    choose(qtbot, page, predictor)
    page.fold.set_open(True)
    press(qtbot, page.learn)
    qtbot.waitUntil(lambda: dock.workspace.problem is not None)
    assert "there is nothing to learn" in dock.workspace.problem.sentence

    going, asked = threading.Semaphore(0), {}

    def learn_on(case, cohort, model, **options):
        asked.update(options, model=model.hash)
        for epoch in range(1, 50):
            going.acquire()
            losses = tuple((1 / n, 2 / n) for n in range(1, epoch + 1))
            yield Progress(epoch, 50, f"epoch {epoch} of 50", losses)

    monkeypatch.setattr(models_page, "learn_on", learn_on)
    page.replay.setValue(40)
    press(qtbot, page.learn)
    going.release(2)
    qtbot.waitUntil(lambda: len(page._losses) == 2)
    assert asked == {"replay": 0.4, "epochs": 0, "model": predictor}
    assert page.curve.canvas.isVisible()
    press(qtbot, page.pause)
    assert page.pause.text() == "Resume"
    going.release(3)  # one report is on its way and waits
    qtbot.wait(300)
    assert len(page._losses) <= 3
    press(qtbot, page.pause)
    qtbot.waitUntil(lambda: len(page._losses) == 5)
    press(qtbot, page.pause)
    press(qtbot, page.stop)  # a paused job can be cancelled
    going.release()
    qtbot.waitUntil(lambda: dock.workspace.job is None)
    assert not page.stop.isEnabled()
    assert model_in_use(case, "predict") == predictor
