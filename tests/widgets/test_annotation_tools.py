"""Wand, conversion, split, vertices, locks and commands, with real mouse, pen, finger and keys."""

import numpy as np
import pytest
import shapely
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QEventPoint, QInputDevice, QPointingDevice, QTabletEvent, QTouchEvent
from qtpy.QtGui import QWheelEvent as Wheel
from qtpy.QtWidgets import QApplication

from napari_mosaik.annotate import rectangle_polygon
from napari_mosaik.core.catalogue import CLASSES
from napari_mosaik.core.rasterise import rasterise
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.view.layers import LAYER_TITLES
from napari_mosaik.view.measurements import area_words
from napari_mosaik.widgets.canvas.camera import look_at
from napari_mosaik.workflow.annotations import reader_documents
from tests.widgets.test_tools import Hand

pytestmark = pytest.mark.gui
LEFT, NONE = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton


class Reader(Hand):
    """A hand that also turns the wheel, holds a pen, and has fingers; places in µm of H&E."""

    def __init__(self, qtbot, dock):
        super().__init__(qtbot, dock)
        self.drawing = dock.annotate.drawing
        self.pen = QPointingDevice()
        self.screen = QPointingDevice(
            "screen", 7, QInputDevice.DeviceType.TouchScreen, QPointingDevice.PointerType.Finger,
            QInputDevice.Capability.Position, 5, 0,
        )  # fmt: skip

    def pixel(self, place_um):
        """The pixel of a place on H&E."""
        matrix = self.drawing._matrix()
        world = np.linalg.solve(matrix[:, :2], np.asarray(place_um) - matrix[:, 2])
        return super().pixel(world)

    def wheel(self, place_um, notches, modifier=Qt.KeyboardModifier.NoModifier):
        at = QPointF(self.pixel(place_um))
        turn = QPoint(0, 120 * notches)
        phase = Qt.ScrollPhase.NoScrollPhase
        there = QPointF(self.native.mapToGlobal(at.toPoint()))
        event = Wheel(at, there, QPoint(), turn, NONE, modifier, phase, False)
        QApplication.sendEvent(self.native, event)

    def click_with(self, place_um, modifier):
        self.qtbot.mouseClick(self.native, LEFT, modifier, self.pixel(place_um))

    def draw_with_pen(self, places_um, kind=QPointingDevice.PointerType.Pen):
        pen = QPointingDevice(
            "pen", 8, QInputDevice.DeviceType.Stylus, kind, QInputDevice.Capability.Pressure, 1, 3
        )
        pixels = [QPointF(self.pixel(place)) for place in places_um]
        steps = [QEvent.Type.TabletPress, *[QEvent.Type.TabletMove] * (len(pixels) - 1)]
        for step, at in zip(
            [*steps, QEvent.Type.TabletRelease], [*pixels, pixels[-1]], strict=True
        ):
            there = QPointF(self.native.mapToGlobal(at.toPoint()))
            button = NONE if step == QEvent.Type.TabletMove else LEFT
            held = NONE if step == QEvent.Type.TabletRelease else LEFT
            event = QTabletEvent(
                step, pen, at, there, 0.5, 0, 0, 0.0, 0.0, 0.0,
                Qt.KeyboardModifier.NoModifier, button, held,
            )  # fmt: skip
            event.ignore()
            QApplication.sendEvent(self.native, event)
            assert event.isAccepted(), "Qt would make up the same mouse events again"

    def touch(self, kind, *places_um):
        state = {
            QEvent.Type.TouchBegin: QEventPoint.State.Pressed,
            QEvent.Type.TouchEnd: QEventPoint.State.Released,
        }.get(kind, QEventPoint.State.Updated)
        points = []
        for number, place in enumerate(places_um):
            at = QPointF(self.pixel(place))
            there = QPointF(self.native.mapToGlobal(at.toPoint()))
            points.append(QEventPoint(number, state, at, there))
        event = QTouchEvent(kind, self.screen, Qt.KeyboardModifier.NoModifier, points)
        QApplication.sendEvent(self.native, event)


@pytest.fixture
def reader(qtbot, dock, opened, own_cohort):
    """A hand before an H&E slide without annotations, seen as a whole."""
    case = opened(dock, own_cohort)
    dock.show_annotate()
    document = dock.annotate.annotation.document
    if document.shapes:
        document.remove(*(shape.key for shape in document.shapes))
    hand = Reader(qtbot, dock)
    hand.case, hand.document, hand.panel = case, document, dock.annotate
    hand.middle = np.array(dock.board.slides["he"].lattices[0].extent_um) / 2
    return hand


def square(reader, offset=(0.0, 0.0), size=200.0, label="neoplastic"):
    corner = reader.middle + np.array(offset)
    return reader.document.add(rectangle_polygon(tuple(corner), tuple(corner + size)), label)


def largest_region(reader):
    """Code, mask and lattice of the largest region of the class map, and a place within it."""
    from scipy.ndimage import distance_transform_edt, label

    classes = reader.case.store.read(CLASSES)
    codes = classes.array()
    parts, _ = label(codes == codes.max())
    mask = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    deepest = np.unravel_index(distance_transform_edt(mask).argmax(), mask.shape)
    return classes, mask, tuple(classes.lattice.to_um([deepest])[0])


def test_a_predicted_region_is_converted_split_locked_and_undone(qtbot, dock, reader):
    classes, mask, place = largest_region(reader)
    document, drawing, panel = reader.document, reader.drawing, reader.panel
    qtbot.waitUntil(lambda: panel.tool_buttons["convert"].isEnabled())
    reader.key(Qt.Key.Key_T)
    assert drawing.mode == "convert"
    assert dock.board.layer(LAYER_TITLES[CLASSES.name]).visible
    reader.click(place)
    qtbot.waitUntil(lambda: len(document.shapes) == 1)
    (shape,) = document.shapes
    assert shape.label == classes.names[int(classes.array().max())]
    drawn = rasterise([AnnotatedShape("a", "x", shape.geometry)], classes.lattice, {"x": 1})
    assert (drawn.astype(bool) == mask).all()
    assert panel.undo.text() == "Undo convert"
    reader.click(place)  # it is selected, not converted twice
    assert "annotated already" in panel.hint.text()
    assert drawing.selected == shape.key

    # a line from edge to edge splits it; the pieces add up
    _, width = dock.board.slides["he"].lattices[0].extent_um
    reader.key(Qt.Key.Key_X)
    reader.drag([(place[0], 0.0), (place[0] + 1.0, width / 2), (place[0], width)])
    assert len(document.shapes) >= 2
    assert sum(s.geometry.area for s in document.shapes) == pytest.approx(shape.geometry.area)
    assert panel.undo.text() == "Undo split"
    assert set(drawing.selection) == {s.key for s in document.shapes}

    # merged again, locked: nothing changes it, and the window says so
    assert panel.command_buttons["merge"].isEnabled()
    reader.key(Qt.Key.Key_M)
    (whole,) = document.shapes
    assert whole.geometry.area == pytest.approx(shape.geometry.area)
    reader.key(Qt.Key.Key_K)
    assert panel.command_buttons["lock"].text() == "Unlock (K)"
    for name, made in panel.command_buttons.items():
        assert made.isEnabled() == (name == "lock")
        assert name == "lock" or "locked" in made.toolTip()
    before = document.shape(whole.key)
    reader.drag([(place[0], 0.0), (place[0] + 1.0, width / 2), (place[0], width)])
    assert "locked" in panel.hint.text()
    reader.key(Qt.Key.Key_Delete)
    reader.key(Qt.Key.Key_S)
    assert document.shape(whole.key) is before
    again = reader_documents(reader.case)["reader"]
    assert again.lock_reason(again.shape(whole.key))

    for title in ("lock", "merge", "split", "convert"):
        assert document.undo_title == title
        reader.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert not document.shapes


def test_the_wand_grows_while_it_is_held_and_the_wheel_changes_its_tolerance(qtbot, dock, reader):
    document, drawing, panel = reader.document, reader.drawing, reader.panel
    _, _, place = largest_region(reader)
    reader.key(Qt.Key.Key_W)
    qtbot.waitUntil(lambda: panel._wand_row.isVisible())
    zoom, tolerance = dock.viewer.scene.camera.zoom, drawing.wand.tolerance
    reader.wheel(place, 2)
    assert drawing.wand.tolerance == pytest.approx(tolerance * 1.21)
    assert panel.tolerance.value() == round(drawing.wand.tolerance)
    assert dock.viewer.scene.camera.zoom == zoom
    assert "now 14.5" in panel.hint.text()

    reader.qtbot.mousePress(reader.native, LEFT, pos=reader.pixel(place))
    qtbot.waitUntil(lambda: drawing._draft is not None)
    first = drawing._draft
    reader.wheel(place, 6)
    qtbot.waitUntil(lambda: drawing._draft is not first)
    assert drawing._draft.area >= first.area
    assert not document.shapes
    reader.qtbot.mouseRelease(reader.native, LEFT, pos=reader.pixel(place))
    qtbot.waitUntil(lambda: len(document.shapes) == 1)
    shape = document.shapes[0]
    assert shape.geometry.covers(shapely.Point(place[1], place[0]))
    assert (document.undo_title, shape.label) == ("wand", drawing.label)
    assert drawing.selected == shape.key
    assert drawing._draft is None

    reader.wheel(place, 1, Qt.KeyboardModifier.ControlModifier)
    qtbot.waitUntil(lambda: dock.viewer.scene.camera.zoom != zoom)
    reader.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert not document.shapes


def test_no_fast_click_of_the_wand_is_lost(qtbot, dock, reader):
    _, _, place = largest_region(reader)
    look_at(dock.viewer, dock.viewer.scene.camera.center[-2:])
    reader.key(Qt.Key.Key_W)
    reader.drawing.wand.set_tolerance(2.0)
    done = []
    reader.drawing.wand.finished.connect(done.append)
    step = 3 / dock.viewer.scene.camera.zoom
    places = [np.add(place, (step * n, 0)) for n in range(6)]
    for one in places:
        reader.click(one)
    reader.drawing.release()  # also when the tool has ended before they are finished
    qtbot.waitUntil(lambda: len(done) == len(places))
    assert [len(stroke.points_um) for stroke in done] == [1] * len(places)
    assert np.allclose([s.points_um[0] for s in done], places, atol=2 * step)
    assert not reader.drawing.wand.is_waiting
    assert reader.document.shapes


def test_commands_apply_to_what_is_selected_and_say_why_not(qtbot, dock, reader):
    document, drawing, panel = reader.document, reader.drawing, reader.panel
    first = square(reader, (-250, -250))
    second = square(reader, (-250, 50))
    other = square(reader, (50, -250), label="non-neoplastic")
    reader.key(Qt.Key.Key_V)
    at = lambda key: np.array(document.shape(key).geometry.centroid.coords[0])[::-1]  # noqa: E731
    for name, made in panel.command_buttons.items():
        assert not made.isEnabled()
        assert "Nothing is selected" in made.toolTip(), name
    reader.click(at(first))
    assert panel.chosen.text() == f"Selected: neoplastic, {area_words(4e4)}"
    assert "Selected annotations" in dock.viewer.layers or drawing._marked is not None
    assert "hold Shift" in panel.command_buttons["merge"].toolTip()
    assert "no hole" in panel.command_buttons["fill holes"].toolTip()
    reader.click_with(at(other), Qt.KeyboardModifier.ShiftModifier)
    assert "different classes" in panel.command_buttons["merge"].toolTip()
    reader.click_with(at(other), Qt.KeyboardModifier.ShiftModifier)
    reader.click_with(at(second), Qt.KeyboardModifier.ShiftModifier)
    assert set(drawing.selection) == {first, second}

    panel.by_um.setValue(10.0)
    assert "10" in panel.command_buttons["dilate"].toolTip()
    panel.command_buttons["dilate"].click()
    assert document.shape(first).geometry.area == pytest.approx(
        200**2 + 4 * 200 * 10 + np.pi * 10**2, rel=1e-3
    )
    reader.key(Qt.Key.Key_Minus)
    assert document.shape(first).geometry.area == pytest.approx(200**2, rel=1e-3)
    panel.command_buttons["merge"].click()
    assert document.shape(first).geometry.geom_type == "MultiPolygon"
    reader.key(Qt.Key.Key_Delete)
    assert [shape.key for shape in document.shapes] == [other]
    assert drawing.selection == ()
    titles = []
    while document.undo_title not in ("add", "remove"):
        titles.append(document.undo_title)
        reader.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert titles == ["delete", "merge", "shrink", "dilate"]


def test_a_locked_class_is_left_alone_and_the_window_says_so(qtbot, dock, reader):
    document, drawing, panel = reader.document, reader.drawing, reader.panel
    key = square(reader)
    drawing.choose_class("neoplastic")
    reader.key(Qt.Key.Key_L, Qt.KeyboardModifier.ShiftModifier)
    assert document.snapshot.tissue_class("neoplastic").locked
    assert "locked" in panel.lock_buttons["neoplastic"].toolTip()
    before = document.shape(key)
    reader.key(Qt.Key.Key_R)
    corners = [reader.middle - 300, reader.middle - 260]
    reader.drag(corners)
    assert "class 'neoplastic' is locked" in panel.hint.text()
    drawing.choose_class("non-neoplastic")
    reader.drag([reader.middle - 100, reader.middle + 100])
    assert document.shape(key) is before
    assert "1 locked annotation left unchanged" in panel.notice.text()
    panel.lock_buttons["neoplastic"].click()
    assert not document.snapshot.tissue_class("neoplastic").locked


def test_single_vertices_are_edited_only_where_asked_for(qtbot, dock, reader):
    document, drawing = reader.document, reader.drawing
    key = square(reader, (-200, -200), 400.0)
    corner = reader.middle - 200
    reader.key(Qt.Key.Key_V)
    reader.click(reader.middle)
    reader.drag([corner, corner - 60])  # pans
    assert document.shape(key).geometry.area == 400**2
    look_at(dock.viewer, np.linalg.solve(
        drawing._matrix()[:, :2], reader.middle - drawing._matrix()[:, 2]))  # fmt: skip
    reader.key(Qt.Key.Key_D)
    qtbot.waitUntil(lambda: "Vertices" in dock.viewer.layers)
    reader.drag([corner, corner - 30, corner - 60])
    assert document.undo_title == "move vertex"
    moved = document.shape(key).geometry
    assert moved.area == pytest.approx(400**2 + 400 * 60, rel=0.05)
    edge = np.add(reader.middle, (200, 0))  # the middle of the lower side
    reader.click(edge)
    assert document.undo_title == "move vertex"  # a click changes nothing
    out = np.add(edge, (60, 0))
    reader.drag([edge, out])
    assert document.undo_title == "insert vertex"
    grown = document.shape(key).geometry
    assert grown.area == pytest.approx(moved.area + 400 * 60 / 2, rel=0.05)
    reader.click_with(out, Qt.KeyboardModifier.AltModifier)
    assert document.undo_title == "delete vertex"
    assert document.shape(key).geometry.area == pytest.approx(moved.area, rel=0.01)
    drawing.run("lock")
    reader.drag([corner + 400, corner + 500])
    assert "locked" in reader.panel.hint.text()


@pytest.mark.parametrize("by", ["pen", "finger"])
def test_a_pen_and_a_finger_draw_as_the_mouse_does(qtbot, dock, reader, by):
    document, drawing = reader.document, reader.drawing
    drawing.take("lasso")
    places = [reader.middle + np.array(p) for p in ((0, 0), (0, 300), (300, 300), (300, 0))]
    if by == "pen":
        reader.draw_with_pen(places)
    else:
        reader.touch(QEvent.Type.TouchBegin, places[0])
        for place in places[1:]:
            reader.touch(QEvent.Type.TouchUpdate, place)
        reader.touch(QEvent.Type.TouchEnd, places[-1])
    (shape,) = document.shapes
    assert shape.geometry.area == pytest.approx(300**2, rel=0.1)
    if by == "pen":  # its rubber erases
        drawing.take("rectangle")
        reader.draw_with_pen(places[:1] + places[2:3], QPointingDevice.PointerType.Eraser)
        left = sum(one.geometry.area for one in document.shapes)
        assert left < 0.1 * 300**2
        drawing.take("polygon")
        for place in places:
            reader.draw_with_pen([place])
        reader.draw_with_pen([places[-1]])  # two taps close it
        assert document.undo_title == "polygon"
    else:  # a second finger discards what the first has begun
        reader.touch(QEvent.Type.TouchBegin, places[0] - 400)
        reader.touch(QEvent.Type.TouchUpdate, places[1] - 400)
        reader.touch(QEvent.Type.TouchUpdate, places[1] - 400, places[2] - 400)
        reader.touch(QEvent.Type.TouchEnd, places[1] - 400, places[2] - 400)
        assert len(document.shapes) == 1
        assert drawing._draft is None


def test_a_stroke_that_leaves_the_window_ends_there(qtbot, dock, reader):
    document, drawing = reader.document, reader.drawing
    drawing.take("lasso")
    corners = [reader.middle + np.array(p) for p in ((0, 0), (0, 300), (300, 300))]
    qtbot.mousePress(reader.native, LEFT, pos=reader.pixel(corners[0]))
    for corner in corners[1:]:
        reader._moved(reader.pixel(corner), LEFT)
    QApplication.sendEvent(reader.native, QEvent(QEvent.Type.WindowDeactivate))
    (shape,) = document.shapes
    assert shape.geometry.area == pytest.approx(300**2 / 2, rel=0.1)
    qtbot.mouseRelease(reader.native, LEFT, pos=reader.pixel(corners[0]))
    assert len(document.shapes) == 1

    drawing.take("rectangle")  # far beyond the slide: the part on it counts, or it is refused
    height, width = dock.board.slides["he"].lattices[0].extent_um
    drawing.commit(rectangle_polygon((height - 50, width - 50), (height + 900, width + 900)))
    assert document.shapes[-1].geometry.area == pytest.approx(2500)
    drawing.commit(rectangle_polygon((-500.0, -500.0), (-100.0, -100.0)))
    assert "outside the slide" in reader.panel.hint.text()
    assert len(document.shapes) == 2
