"""The tools of the canvas, used one after the other as in front of a slide."""

import numpy as np
import pytest
from napari.layers import Layer
from PIL import Image
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

from napari_mosaik.annotate import rectangle_polygon
from napari_mosaik.annotate.review_queue import QueuedTile
from napari_mosaik.io.case import Case
from napari_mosaik.io.case_file import SlideEntry
from napari_mosaik.plugin import slide_reader
from napari_mosaik.view.layers import queue_layer
from napari_mosaik.view.measurements import area_um2, length_um
from napari_mosaik.view.orientation import Turn
from napari_mosaik.view.spec import AXES
from napari_mosaik.widgets.canvas.camera import centre_um, look_at, turn_of, visible_um

pytestmark = pytest.mark.gui


def plain(text):
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{NARROW NO-BREAK SPACE}", " ")


class Hand:
    """Mouse and keys on the canvas, at places in µm."""

    def __init__(self, qtbot, dock):
        self.qtbot, self.viewer = qtbot, dock.viewer
        self.canvas = dock.viewer.window._qt_viewer.canvas
        self.native = self.canvas.native

    def pixel(self, place_um):
        """The pixel of a place, by napari's own mapping of three pixels."""
        ends = [
            self.canvas._map_canvas2world(p, self.canvas.view) for p in ((0, 0), (1, 0), (0, 1))
        ]
        origin, across, down = np.array(ends)
        matrix = np.stack([across - origin, down - origin], 1)
        x, y = np.linalg.solve(matrix, np.asarray(place_um) - origin)
        return QPoint(round(x), round(y))

    def move(self, place_um, held=Qt.MouseButton.NoButton):
        self._moved(self.pixel(place_um), held)

    def _moved(self, place, held):
        at = QPointF(place), QPointF(self.native.mapToGlobal(place))
        none = Qt.MouseButton.NoButton
        event = QMouseEvent(QEvent.Type.MouseMove, *at, none, held, Qt.KeyboardModifier.NoModifier)
        QApplication.sendEvent(self.native, event)

    def drag(self, places_um):
        """Press, move and release, as fast as it goes: every position counts."""
        left, pixels = Qt.MouseButton.LeftButton, [self.pixel(place) for place in places_um]
        self.qtbot.mousePress(self.native, left, pos=pixels[0])
        for pixel in pixels[1:]:
            self._moved(pixel, left)
        self.qtbot.mouseRelease(self.native, left, pos=pixels[-1])

    def click(self, place_um):
        self.qtbot.mouseClick(self.native, Qt.MouseButton.LeftButton, pos=self.pixel(place_um))

    def key(self, key, modifier=Qt.KeyboardModifier.NoModifier):
        self.qtbot.keyClick(self.native, key, modifier)


def test_magnify_turn_measure_and_find_the_way(qtbot, dock, opened, own_cohort):
    opened(dock, own_cohort, layers=("H&E", "CD34", "CAIX"))
    viewer, tools = dock.viewer, dock.view_tools
    qtbot.waitUntil(lambda: dock.workspace.tile_data.grid is not None)
    tile_data = dock.workspace.tile_data
    hand = Hand(qtbot, dock)
    middle = tile_data.grid.centres_um[tile_data.n_tiles // 2]
    look_at(viewer, middle)

    # magnification: by key about the mouse, read on the canvas
    hand.move(middle + 200.0)
    mouse = viewer.cursor.position
    before = hand.pixel(mouse)
    hand.key(Qt.Key.Key_3, Qt.KeyboardModifier.ControlModifier)
    assert 1 / viewer.scene.camera.zoom == pytest.approx(0.5)
    assert (hand.pixel(mouse) - before).manhattanLength() <= 2
    qtbot.waitUntil(lambda: plain(tools.keys.words) == "0.50 µm per pixel, about 20x")
    assert all(str(unit) == "micrometer" for unit in viewer.layers.units)
    assert viewer.canvas.overlays.scale_bar.visible

    # all eight orientations: the view turns, places do not
    look_at(viewer, middle, 0.1)
    for mirrored in (False, True):
        for _ in range(4):
            hand.key(Qt.Key.Key_T, Qt.KeyboardModifier.ShiftModifier)
            assert np.allclose(centre_um(viewer), middle)
            hand.click(tile_data.grid.centres_um[3])
            assert dock.workspace.tile == 3
            dock.workspace.tile = -1
        hand.key(Qt.Key.Key_F, Qt.KeyboardModifier.ShiftModifier)
        assert turn_of(viewer) == (Turn() if mirrored else Turn().mirrored())
    hand.key(Qt.Key.Key_T, Qt.KeyboardModifier.ShiftModifier)
    qtbot.waitUntil(lambda: tools.keys.words.endswith("rotated 90° clockwise"))

    # the ruler, on the turned view
    look_at(viewer, middle, 0.5)
    hand.key(Qt.Key.Key_D, Qt.KeyboardModifier.ShiftModifier)
    assert tools.ruler.mode == "length"
    line = middle + np.array([(0.0, 0.0), (0.0, 300.0), (80.0, 300.0)])
    for place in line:
        hand.click(place)
    hand.move(line[0])
    qtbot.waitUntil(lambda: len(tools.ruler.draft.points_um) == 4)
    hand.key(Qt.Key.Key_Escape)
    hand.key(Qt.Key.Key_Return)
    assert tools.ruler.measurements[0].value == pytest.approx(length_um(line[:2]), abs=6)
    hand.key(Qt.Key.Key_S, Qt.KeyboardModifier.ShiftModifier)
    for place in line:
        hand.click(place)
    hand.key(Qt.Key.Key_Return)
    assert tools.ruler.measurements[1].value == pytest.approx(area_um2(line), rel=0.1)
    assert dock.workspace.tile == -1  # clicks of the ruler choose no tile
    assert plain(tools.list.item(1).text()).startswith("2: 1")
    tools.list.setCurrentRow(0)
    tools.delete.click()
    assert [one.kind for one in tools.ruler.measurements] == ["area"]
    hand.key(Qt.Key.Key_Escape)
    assert not tools.ruler.is_active

    # drawing on the turned view is drawn where it belongs, and puts the ruler away
    tools.ruler.take("length")
    dock.show_annotate()
    assert not tools.ruler.is_active
    look_at(viewer, middle, 0.3)
    drawing = dock.annotate.drawing
    at = np.array(drawing.position_um(middle))
    drawing.choose_class("neoplastic")
    drawing.commit(rectangle_polygon(tuple(at - 100), tuple(at + 100)))
    qtbot.waitUntil(lambda: "Annotations" in viewer.layers, timeout=10_000)
    assert viewer.layers["Annotations"].get_value(middle, world=True)
    dock.annotate.away.click()

    # the overview map is turned too; a click goes there
    hand.key(Qt.Key.Key_O, Qt.KeyboardModifier.ShiftModifier)
    overview = tools.map
    qtbot.waitUntil(overview.isVisible)
    assert overview.view.matrix[0, 0] == pytest.approx(0)
    look_at(viewer, middle, 2.0)
    low, high = visible_um(viewer)
    corner = overview.view.to_um([(overview.rectangle().top(), overview.rectangle().left())])[0]
    assert np.isclose(corner, [low, high], atol=30).any(axis=0).all()
    place = overview.rect().center()
    qtbot.mouseClick(overview, Qt.MouseButton.LeftButton, pos=place)
    there = overview.view.to_um([(place.y(), place.x())])[0]
    assert np.allclose(centre_um(viewer), there, atol=30)
    tools.map_button.click()
    assert not overview.isVisible()

    # holding H hides all that is not a slide, and all of it comes back
    shown = {layer.name for layer in viewer.layers if layer.visible}
    assert {"Annotations", "Ruler", "H&E"} <= shown
    qtbot.keyPress(hand.native, Qt.Key.Key_H)
    assert {layer.name for layer in viewer.layers if layer.visible} == {"H&E"}
    qtbot.keyRelease(hand.native, Qt.Key.Key_H)
    assert {layer.name for layer in viewer.layers if layer.visible} == shown
    tools.keys.reset()


def test_four_slides_side_by_side_and_back(qtbot, dock, opened, own_cohort):
    opened(dock, own_cohort, layers=("H&E", "CD34", "CAIX"))
    viewer, board, four = dock.viewer, dock.board, dock.view_tools.quad_view
    qtbot.waitUntil(lambda: "Nuclei" in board.specs)
    board.show_steps(("vessels",))
    qtbot.waitUntil(lambda: board.layer("Vessels") is not None, timeout=10_000)
    dock.view_tools.ruler.take("length")
    for place in ((100.0, 100.0), (100.0, 500.0)):
        dock.view_tools.ruler.add_point(place)
    dock.view_tools.ruler.finish()
    dock.view_tools.ruler.release()
    order = [layer.name for layer in viewer.layers]
    shown = {layer.name: bool(layer.visible) for layer in viewer.layers}
    centre, zoom = centre_um(viewer), viewer.scene.camera.zoom

    hand = Hand(qtbot, dock)
    hand.key(Qt.Key.Key_4)
    assert four.is_on
    assert viewer.canvas.grid.actual_shape(viewer.layers) == (2, 2)
    qtbot.waitUntil(lambda: four.is_whole, timeout=20_000)
    cells = [
        [viewer.layers[i].name for i in inside]
        for _, inside in viewer.canvas.grid.iter_viewboxes(viewer.layers)
    ]
    assert [cell[0].split(",")[0] for cell in cells] == ["H&E", "CD34", "CAIX", "PET"]
    assert all("Vessels" in cell[1] and "Ruler" in cell[2] for cell in cells)
    headings = [viewer.layers[cell[0]].name_overlay for cell in cells]
    assert all(heading.visible for heading in headings)
    assert np.allclose(centre_um(viewer), centre)

    twin = viewer.layers["Vessels · CAIX"]
    board.layer("Vessels").opacity = 0.3
    board.layer("Vessels").contour = 0
    assert (twin.opacity, twin.contour) == (0.3, 0)
    board.set_shown("Nuclei", True)  # one that had no layer: the cells are placed out again
    qtbot.waitUntil(lambda: "Nuclei · PET" in viewer.layers, timeout=10_000)
    assert viewer.canvas.grid.actual_shape(viewer.layers) == (2, 2)
    board.layer("Nuclei").visible = False
    assert not viewer.layers["Nuclei · PET"].visible

    viewer.layers.selection.active = board.layer("Vessels")  # labels use this key themselves
    hand.key(Qt.Key.Key_4)
    assert not four.is_on
    assert not viewer.canvas.grid.enabled
    names = [layer.name for layer in viewer.layers]
    assert [name for name in names if name in order] == order
    assert {name: bool(viewer.layers[name].visible) for name in order} == shown
    assert set(names) - set(order) == {"Nuclei", "PET, SUV (body surface)"}
    assert np.allclose(centre_um(viewer), centre)
    assert viewer.scene.camera.zoom == pytest.approx(zoom)
    assert not any(layer.name_overlay.visible for layer in viewer.layers)

    for layer in viewer.layers:
        layer.visible = layer.name == "H&E"
    shown = {name: name == "H&E" for name in order}
    four.enter()
    dock.show_review()  # one layout at a time
    assert not four.is_on
    assert dock.side_by_side.is_on
    four.enter()
    assert not dock.side_by_side.is_on
    four.leave()
    assert {name: bool(viewer.layers[name].visible) for name in order} == shown

    looks = {layer.name: (layer.blending, layer.opacity) for layer in viewer.layers}
    dock.view_tools.composite_button.click()
    assert all(viewer.layers[name].visible for name in ("H&E", "CD34", "CAIX"))
    assert viewer.layers["CAIX"].blending == "minimum"
    dock.view_tools.composite_button.click()
    assert {name: bool(viewer.layers[name].visible) for name in order} == shown
    assert {layer.name: (layer.blending, layer.opacity) for layer in viewer.layers} == looks


def test_all_kinds_of_layers_together_keep_their_unit(qtbot, dock, opened, own_cohort):
    case = opened(dock, own_cohort, layers=("H&E", "CD34", "CAIX"))
    viewer, board = dock.viewer, dock.board
    qtbot.waitUntil(lambda: "Tiles" in board.specs and "Vessels" in board.specs, timeout=10_000)
    for spec in list(board.specs.values()):
        board.put(spec, visible=True)
    for kind in ("length", "area"):
        dock.view_tools.ruler.take(kind)
        for corner in ((100.0, 100.0), (100.0, 500.0), (400.0, 300.0)):
            dock.view_tools.ruler.add_point(corner)
        dock.view_tools.ruler.finish()
    dock.workspace.tile = 2
    dock.show_annotate()
    dock.annotate.drawing.commit(rectangle_polygon((200.0, 200.0), (600.0, 600.0)))
    qtbot.waitUntil(lambda: "Annotations" in viewer.layers, timeout=10_000)
    grid = dock.workspace.tile_data.grid
    queue = queue_layer([QueuedTile(1, 3, 1.0, "uncertain", False, None, 0)], grid)
    viewer.add_layer(Layer.create(*queue.as_layer_data()))
    slide = str(case.path(case.file.slides["he"].path))
    for data, options, kind in slide_reader(slide)(slide):
        viewer.add_layer(Layer.create(data, options, kind))

    def agree():
        kinds = {type(layer).__name__ for layer in viewer.layers}
        assert kinds == {"Image", "Labels", "Vectors", "Points"}
        for layer in viewer.layers:
            assert [str(unit) for unit in layer.units] == ["micrometer"] * 2, layer.name
            assert tuple(layer.axis_labels) == AXES, layer.name
        assert [str(unit) for unit in viewer.layers.extent.units] == ["micrometer"] * 2
        assert viewer.canvas.overlays.scale_bar.visible

    agree()
    assert len(viewer.layers) > 15
    for layer in viewer.layers:
        layer.visible = layer.name in ("H&E", "Vessels", "Ruler values")
    dock.show_review()
    agree()
    dock.view_tools.quad_view.enter()
    agree()
    dock.view_tools.quad_view.leave()


def test_a_known_length_gives_a_slide_its_pixel_size(qtbot, dock, opened, fresh_case):
    pixels = np.random.default_rng(0).integers(0, 255, (600, 800, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(fresh_case / "slides" / "plain.png")
    case = Case(fresh_case)
    case.update(slides={**case.file.slides, "caix": SlideEntry(path="slides/plain.png")})
    case = opened(dock, fresh_case, layers=("H&E", "CD34"))
    viewer, tools = dock.viewer, dock.view_tools
    assert dock.board.layer("CAIX") is None
    hand = Hand(qtbot, dock)
    calibration = tools.calibration
    assert calibration.which.currentText() == "CAIX: plain.png"
    calibration.begin_button.click()
    qtbot.waitUntil(lambda: calibration.is_on, timeout=10_000)
    assert [layer.name for layer in viewer.layers if layer.visible] == ["plain.png (uncalibrated)"]
    assert not viewer.canvas.overlays.scale_bar.visible
    qtbot.waitUntil(lambda: tools.keys.words.endswith("uncalibrated"))

    for place in ((100.0, 100.0), (100.0, 500.0)):
        hand.click(place)
    drawn = calibration._length_px
    assert drawn == pytest.approx(400, abs=4)
    assert tools.ruler.measurements == []
    assert viewer.layers[-1].name == "Calibration line"  # the line is seen above the slide
    calibration.length.setText("0")
    calibration.use_button.click()
    assert "longer than 0" in calibration.message.text()
    calibration.length.setText("0,2")
    calibration.unit.setCurrentText("mm")
    with qtbot.waitSignal(calibration.calibrated) as told:
        calibration.use_button.click()
    assert told.args == [pytest.approx(200 / drawn)]
    entry = case.file.slides["caix"]
    assert entry.spacing_um == (told.args[0], told.args[0])
    assert entry.spacing_source == "ruler"
    qtbot.waitUntil(lambda: dock.board.layer("CAIX") is not None, timeout=10_000)
    assert viewer.canvas.overlays.scale_bar.visible
    assert dock.board.layer("H&E").visible
    assert calibration.which.count() == 0
    assert not any("uncalibrated" in layer.name for layer in viewer.layers)

    slide = str(fresh_case / "slides" / "plain.png")
    ((data, options, kind),) = slide_reader(slide)(slide)
    alone = viewer.add_layer(Layer.create(data, options, kind))
    tools.ruler.take("length")
    tools.ruler.add_point((100.0, 100.0))
    assert tools.ruler.draft is None
    assert "no pixel size" in tools.ruler.reading(None)
    alone.visible = False
    tools.ruler.add_point((100.0, 100.0))
    assert tools.ruler.draft is not None
    tools.ruler.release()

    # what napari has opened is measured where it is
    bar = viewer.canvas.overlays.scale_bar
    qtbot.waitUntil(lambda: bar.visible)
    alone.visible = True
    qtbot.waitUntil(lambda: not bar.visible)
    assert calibration.which.currentText() == alone.name == "plain.png (uncalibrated)"
    calibration.begin_button.click()
    assert calibration.is_on
    assert alone.visible
    assert not dock.board.layer("H&E").visible
    calibration.cancel_button.click()
    assert alone in viewer.layers
    assert dock.board.layer("H&E").visible
    calibration.begin_button.click()
    for place in ((100.0, 100.0), (100.0, 500.0)):
        hand.click(place)
    calibration.length.setText("100")
    calibration.unit.setCurrentText("µm")
    with qtbot.waitSignal(calibration.calibrated) as told:
        calibration.use_button.click()
    assert told.args == [pytest.approx(0.25, abs=0.01)]
    assert tuple(alone.scale) == (told.args[0], told.args[0])
    assert tuple(alone.translate) == (told.args[0] / 2, told.args[0] / 2)  # of a pixel's middle
    assert alone.name == "plain.png"
    assert calibration.message.text().startswith("plain.png: 0.2")
    assert calibration.which.count() == 0
    qtbot.waitUntil(lambda: bar.visible)
    viewer.layers.remove(alone)


def test_layers_are_put_in_order_with_few_moves() -> None:
    from itertools import combinations

    from napari.components import ViewerModel

    from napari_mosaik.widgets.canvas.layout_state import put_in_order

    rng, viewer = np.random.default_rng(3), ViewerModel()
    layers = [viewer.add_image(np.zeros((2, 2)), name=str(number)) for number in range(7)]
    for _ in range(30):
        before, n = list(viewer.layers), int(rng.integers(0, 8))
        wanted = [layers[number] for number in rng.permutation(7)[:n]]
        moves: list[int] = []
        heard = viewer.layers.events.moved.connect(lambda _event, moves=moves: moves.append(1))
        put_in_order(viewer, iter(wanted))
        viewer.layers.events.moved.disconnect(heard)
        assert list(viewer.layers) == [*wanted, *(one for one in before if one not in wanted)]
        after = [before.index(layer) for layer in viewer.layers]
        most = next(
            size
            for size in range(7, 0, -1)
            if any(list(part) == sorted(part) for part in combinations(after, size))
        )
        assert len(moves) == 7 - most
