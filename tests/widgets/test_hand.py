"""The window obeys the hand: every position of the mouse counts, the wheel changes no value."""

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QFocusEvent, QWheelEvent
from qtpy.QtWidgets import (
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLineEdit,
    QScrollBar,
    QSpinBox,
    QTabBar,
)
from shapely.geometry import Polygon

from tests.widgets.test_tools import Hand

pytestmark = pytest.mark.gui


def circle(middle, radius, n=90):
    angle = np.linspace(0, 2 * np.pi, n)
    return np.asarray(middle) + radius * np.stack([np.sin(angle), np.cos(angle)], 1)


@pytest.fixture
def drawing(qtbot, dock, opened, own_cohort):
    opened(dock, own_cohort)
    dock.show_annotate()
    return dock.annotate.drawing


@pytest.fixture
def areas(drawing, monkeypatch):
    """The areas that were drawn, in place of a document that joins and cuts them."""
    found = []
    monkeypatch.setattr(drawing, "commit", lambda area, **_: found.append(area))
    return found


def middle_of(dock):
    return np.array(dock.viewer.scene.camera.center[-2:])


def test_a_quick_circle_keeps_its_area(qtbot, dock, drawing, areas):
    hand = Hand(qtbot, dock)
    drawing.take("lasso")
    ring = circle(middle_of(dock), 100 / dock.viewer.scene.camera.zoom)
    hand.drag(ring)
    pixels = [hand.pixel(place) for place in ring]  # the hand moves by whole pixels
    area_px = Polygon([(p.x(), p.y()) for p in pixels]).area
    zoom = dock.viewer.scene.camera.zoom
    assert areas[0].area * zoom**2 == pytest.approx(area_px, rel=0.02)


@pytest.mark.parametrize("tool", ["brush", "lasso", "rectangle"])
def test_two_hundred_quick_strokes_keep_their_shapes(qtbot, dock, drawing, areas, tool):
    """The second of two quick presses is a double click for Qt."""
    hand, middle = Hand(qtbot, dock), middle_of(dock)
    drawing.take(tool)
    zoom = dock.viewer.scene.camera.zoom
    for number in range(200):
        start = middle + np.array([number % 10, number % 7]) / zoom
        hand.drag(circle(start, 40 / zoom, 20)[:15])
    assert len(areas) == 200
    spread = [np.ptp(area.exterior.coords.xy, axis=1).min() * zoom for area in areas]
    assert min(spread) > 20  # a dot of the brush is 20 wide, the others have none


def test_the_release_counts_even_elsewhere(qtbot, dock, drawing, areas):
    hand, middle = Hand(qtbot, dock), middle_of(dock)
    zoom, left = dock.viewer.scene.camera.zoom, Qt.MouseButton.LeftButton
    drawing.take("rectangle")

    def size(area, end):  # a rectangle lies along the slide, which may be turned on the canvas
        side = np.subtract(drawing.position_um(end), drawing.position_um(middle))
        assert area.area == pytest.approx(abs(np.prod(side)), rel=0.1)

    qtbot.mousePress(hand.native, left, pos=hand.pixel(middle))
    qtbot.mouseRelease(hand.native, left, pos=hand.pixel(middle + 80 / zoom))
    size(areas[0], middle + 80 / zoom)
    qtbot.mousePress(hand.native, left, pos=hand.pixel(middle))
    hand.move(middle + 60 / zoom)  # without a button: the release went to another window
    size(areas[1], middle + 60 / zoom)


def test_napari_sees_no_drag_of_a_tool_and_the_last_move_of_any_other(qtbot, dock, drawing):
    hand, seen = Hand(qtbot, dock), []
    drawing.take("brush")
    dock.viewer.mouse_drag_callbacks.append(lambda _viewer, event: seen.append(event.type))
    moves = []
    dock.viewer.mouse_move_callbacks.append(lambda _viewer, event: moves.append(event.position))
    middle, zoom = middle_of(dock), dock.viewer.scene.camera.zoom
    places = middle + np.arange(30)[:, None] / zoom
    for place in places:
        hand.move(place)
    qtbot.waitUntil(lambda: bool(moves))
    assert len(moves) < 5
    assert np.allclose(moves[-1], places[-1], atol=1 / zoom)
    hand.drag(places)
    assert seen == []
    assert np.allclose(dock.viewer.cursor.position, places[-1], atol=1 / zoom)
    drawing.release()
    hand.click(middle)
    assert "mouse_press" in seen
    assert QApplication.testAttribute(Qt.ApplicationAttribute.AA_CompressHighFrequencyEvents)


def test_zooming_while_drawing_moves_nothing_that_was_drawn(qtbot, dock, drawing, areas):
    hand, middle = Hand(qtbot, dock), middle_of(dock)
    zoom, left = dock.viewer.scene.camera.zoom, Qt.MouseButton.LeftButton
    drawing.take("lasso")
    corners = middle + np.array([[0, 0], [0, 80], [80, 80]]) / zoom
    qtbot.mousePress(hand.native, left, pos=hand.pixel(corners[0]))
    hand.move(corners[1], left)
    dock.viewer.scene.camera.zoom = 2 * zoom
    hand.move(corners[2], left)
    qtbot.mouseRelease(hand.native, left, pos=hand.pixel(corners[2]))
    assert areas[0].area * zoom**2 == pytest.approx(80 * 80 / 2, rel=0.1)


def test_a_stroke_before_the_record_is_open_is_kept(qtbot, dock, opened, own_cohort):
    opened(dock, own_cohort, layers=("H&E", "CD34", "CAIX"))
    panel, hand = dock.correct, Hand(qtbot, dock)
    masks = [i for i in range(panel.target.count()) if "issue" in panel.target.itemText(i)]
    panel.target.setCurrentIndex(masks[0])
    panel.toggle("cut")
    assert panel.session is None
    assert panel.tool.is_active
    middle, zoom = middle_of(dock), dock.viewer.scene.camera.zoom
    for n in range(3):
        hand.drag(circle(middle + 30 * n / zoom, 20 / zoom, 30))
    qtbot.waitUntil(lambda: panel.list.count() == 3)


def test_a_stroke_without_its_slide_says_so(qtbot, dock, drawing, monkeypatch):
    said, hand = [], Hand(qtbot, dock)
    drawing.failed.connect(lambda error: said.append(str(error)))
    drawing.take("brush")
    monkeypatch.setattr(drawing.board, "slide_layer", lambda stain: None)
    hand.drag(circle(middle_of(dock), 10))
    assert "still being opened" in said[0]


def test_the_wheel_over_a_field_scrolls_the_page_and_changes_nothing(qtbot, dock, opened, cohort):
    opened(dock, cohort)
    qtbot.waitUntil(lambda: bool(dock.workspace.states))
    dock.show_annotate()
    for page in dock._all_pages():
        page.set_open(True)
    page = dock.pages["Vessels"]
    dock.tabs.setCurrentWidget(dock.page_area)
    late = Touched()  # a field that comes when the page is already there
    page.layout().addWidget(late)
    qtbot.waitUntil(lambda: bool(late.property("mosaik_calm_wheel")))
    kinds = QAbstractSpinBox, QComboBox, QAbstractSlider, QTabBar
    fields = [f for kind in kinds for f in dock.findChildren(kind) if not isinstance(f, QScrollBar)]
    assert len(fields) > 60
    focus = QApplication.focusWidget()
    if focus is not None:
        focus.clearFocus()

    def values():
        return [
            f.currentIndex() if isinstance(f, QTabBar | QComboBox)
            else f.text() if hasattr(f, "text") else f.value() for f in fields
        ]  # fmt: skip

    before = values()
    for field in fields:
        assert field.focusPolicy() != Qt.FocusPolicy.WheelFocus
        for delta in (-120, 120, -480):
            for widget in (field, *field.findChildren(QLineEdit)):
                wheel(widget, delta)
    changed = [f for f, was, now in zip(fields, before, values(), strict=True) if was != now]
    assert not changed
    field = next(f for f in page.findChildren(QAbstractSpinBox) if f.isEnabled())
    assert not wheel(field, -120)  # it is left to the page
    late.setValue(3)
    late.touched = True  # Qt gave it the focus of a field that was hidden
    focused(late, Qt.FocusReason.TabFocusReason)
    assert not wheel(late, 120)
    assert late.value() == 3
    for turns_to in (
        lambda: focused(late, Qt.FocusReason.MouseFocusReason),
        lambda: qtbot.keyClick(late, Qt.Key.Key_Shift),
        lambda: qtbot.mouseClick(late.findChild(QLineEdit), Qt.MouseButton.LeftButton),
    ):
        late.setValue(3)
        turns_to()
        assert wheel(late, 120)
        assert late.value() == 4
        focused(late, Qt.FocusReason.PopupFocusReason, QEvent.Type.FocusOut)  # its menu
        assert wheel(late, 120)
        focused(late, Qt.FocusReason.TabFocusReason, QEvent.Type.FocusOut)
        assert not wheel(late, 120)
        assert late.value() == 5


class Touched(QSpinBox):
    """A field that has the focus when a test says so: without a window manager none has."""

    touched = False

    def hasFocus(self):
        return self.touched


def focused(widget, reason, kind=QEvent.Type.FocusIn):
    QApplication.sendEvent(widget, QFocusEvent(kind, reason))


def wheel(widget, delta):
    at = QPointF(widget.rect().center())
    event = QWheelEvent(at, QPointF(widget.mapToGlobal(at)), QPoint(), QPoint(0, delta),
                        Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier,
                        Qt.ScrollPhase.NoScrollPhase, False)  # fmt: skip
    QApplication.sendEvent(widget, event)
    return event.isAccepted()
