"""The canvas is drawn aside, once for each change, and shown when the picture is complete."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from OpenGL import GL
from qtpy.QtCore import QEvent, QObject

pytestmark = pytest.mark.gui


@pytest.fixture
def frames(dock: Any, qtbot: Any) -> Any:
    """The pictures of a canvas with one image, at rest."""
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    dock.viewer.add_image(ramp, name="ramp")
    dock.viewer.reset_view()
    canvas = dock.viewer.window._qt_viewer.canvas
    found = canvas.native.mosaik_frames
    qtbot.waitUntil(lambda: calm(found))
    return found


def calm(frames: Any) -> bool:
    return not frames.under_way and not frames._soon.isActive() and frames._frame is not None


def pixels(native: Any) -> Any:
    from qtpy.QtGui import QImage

    image = native.grabFramebuffer().convertToFormat(QImage.Format.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), -1)
    return rows[:, : 3 * image.width()].copy()


def test_the_window_goes_on_until_a_picture_is_complete(
    dock: Any, frames: Any, qtbot: Any, monkeypatch: Any
) -> None:
    heard: list[str] = []
    paint, wait, asked, complete = frames.paint, GL.glClientWaitSync, [], []

    def still(*args: Any) -> int:
        asked.append(1)
        return int(wait(*args) if complete else GL.GL_TIMEOUT_EXPIRED)

    def painted(native: Any) -> None:
        heard.append("shown" if frames._showing else "drawn by Qt")
        paint(native)

    scene = frames._scene()
    scene.events.draw.connect(lambda _event: heard.append("drawn"), position="last")
    monkeypatch.setattr(GL, "glClientWaitSync", still)
    monkeypatch.setattr(frames, "paint", painted)
    camera = dock.viewer.scene.camera
    for _ in range(20):  # Qt may draw at once whenever the docks or the screen ask for it
        for each in (heard, asked, complete):
            each.clear()
        camera.zoom *= 1.5
        qtbot.waitUntil(lambda: len(asked) >= 2 or "drawn by Qt" in heard)
        if "drawn by Qt" not in heard:
            assert heard == ["drawn"]
            camera.zoom /= 1.5  # while the first picture is under way
            camera.zoom /= 1.1
        complete.append(1)
        qtbot.waitUntil(lambda: calm(frames))
        if "drawn by Qt" not in heard:
            break
    assert heard[:4] == ["drawn", "shown", "drawn", "shown"]
    assert "drawn by Qt" not in heard
    assert heard.count("drawn") == heard.count("shown")  # other parts of the window draw, too


def test_what_else_changes_in_the_window_is_shown_with_the_picture(
    dock: Any, frames: Any, qtbot: Any, monkeypatch: Any
) -> None:
    """To show a line of text would wait for the graphics library, and hold up the event loop."""
    line, painted, asked = dock.viewer.window._qt_window.statusBar(), [], []
    wait, complete, by_qt, paint = GL.glClientWaitSync, [], [], frames.paint

    def still(*args: Any) -> int:
        asked.append(1)
        return int(wait(*args) if complete else GL.GL_TIMEOUT_EXPIRED)

    class Ear(QObject):
        def eventFilter(self, watched: Any, event: Any) -> bool:
            if event.type() == QEvent.Type.Paint:
                painted.append(frames.under_way)
            return False

    def shows(native: Any) -> None:
        if not frames._showing:
            by_qt.append(1)
        paint(native)

    ear = Ear()
    line.installEventFilter(ear)
    monkeypatch.setattr(GL, "glClientWaitSync", still)
    monkeypatch.setattr(frames, "paint", shows)
    for _ in range(20):  # Qt may draw at once, and then nothing is under way any more
        for each in (painted, asked, complete, by_qt):
            each.clear()
        dock.viewer.scene.camera.zoom *= 1.1
        qtbot.waitUntil(lambda: len(asked) >= 2 or bool(by_qt))
        painted.clear()
        line.update()
        before = len(asked)
        qtbot.waitUntil(lambda before=before: len(asked) > before + 2 or bool(by_qt))
        early, is_alone = list(painted), not by_qt
        complete.append(1)
        qtbot.waitUntil(lambda: bool(painted) and calm(frames))
        if is_alone:
            break
    assert is_alone
    assert not early
    line.removeEventFilter(ear)


def test_what_is_shown_is_what_qt_would_have_drawn(dock: Any, frames: Any, qtbot: Any) -> None:
    native = frames.parent()
    for size in ((900, 700), (1100, 760)):
        dock.viewer.window.resize(*size)
        dock.viewer.scene.camera.zoom *= 1.2
        qtbot.waitUntil(lambda: calm(frames) and frames._size == frames._scene().physical_size)
        frames._showing = True
        shown = pixels(native)
        frames._showing = False
        drawn = pixels(native)
        assert len(np.unique(drawn)) > 16
        np.testing.assert_array_equal(shown, drawn)


def test_what_qt_wants_painted_is_shown_again_without_drawing(
    dock: Any, frames: Any, qtbot: Any, monkeypatch: Any
) -> None:
    native, draws, shown, paint = frames.parent(), list[int](), list[int](), frames.paint

    def painted(native: Any) -> None:
        paint(native)
        shown.append(1)

    def again() -> int:
        """Something lay over the canvas; how often it is drawn for that."""
        draws.clear()
        shown.clear()
        native.update()
        qtbot.waitUntil(lambda: bool(shown) and calm(frames))
        return len(draws)

    monkeypatch.setattr(frames, "paint", painted)
    frames._scene().events.draw.connect(lambda _event: draws.append(1), position="last")
    frames.ask()
    assert 0 in (again() for _ in range(20))  # other parts of the window draw, too
    for _ in range(20):  # other parts of the window may have a picture drawn aside meanwhile
        draws.clear()
        before = pixels(native)  # of the window, drawn at once
        assert draws
        every = all(again() for _ in range(3))
        if every:
            break
    assert every  # what was drawn aside may be older
    dock.viewer.scene.camera.zoom *= 1.4
    assert 0 in (again() for _ in range(20))
    assert not np.array_equal(pixels(native), before)
    dock.viewer.window.resize(1000, 720)
    qtbot.waitUntil(lambda: calm(frames) and frames._size == frames._scene().physical_size)
    with frames.as_it_is():
        frames.ask()
        frames._scene().update()
    assert not frames._soon.isActive()
    assert not frames._scene()._update_pending


def test_one_picture_is_enough_for_another_level(dock: Any, frames: Any, qtbot: Any) -> None:
    levels = [np.ones((n, n), np.uint8) for n in (2048, 1024, 512)]
    layer = dock.viewer.add_labels(levels, multiscale=True)
    dock.viewer.reset_view()
    qtbot.waitUntil(lambda: calm(frames))
    before, draws = layer.data_level, []
    scene = frames._scene()
    scene.events.draw.connect(lambda _event: draws.append(layer.data_level), position="last")
    dock.viewer.scene.camera.zoom *= 4
    qtbot.waitUntil(lambda: bool(draws) and calm(frames))
    assert layer.data_level < before
    assert set(draws) == {layer.data_level}  # no picture of the level before comes first


def test_the_view_under_the_mouse_is_found_without_drawing(
    dock: Any, frames: Any, qtbot: Any, monkeypatch: Any
) -> None:
    viewer, scene = dock.viewer, frames._scene()
    canvas = viewer.window._qt_viewer.canvas
    places = [(x, y) for x in (60, 400, scene.size[0] - 60) for y in (60, scene.size[1] - 60)]

    def compare() -> set[Any]:
        drawn = [type(scene).visual_at(scene, place) for place in places]
        with monkeypatch.context() as patch:
            patch.setattr(type(scene), "_render_picking", lambda *_: pytest.fail("drawn"))
            assert [scene.visual_at(place) for place in places] == drawn
        return set(drawn)

    assert compare() == {canvas.view}
    camera = viewer.scene.camera
    camera.mouse_pan = camera.mouse_zoom = False
    assert compare() == {None}
    camera.mouse_pan = camera.mouse_zoom = True
    for name in "abc":
        viewer.add_image(np.eye(64), name=name)
    viewer.canvas.grid.shape, viewer.canvas.grid.enabled = (2, 2), True
    qtbot.waitUntil(lambda: calm(frames))
    assert compare() == set(canvas.grid_views)


def test_cameras_of_a_grid_rest_until_it_is_shown(dock: Any, frames: Any, qtbot: Any) -> None:
    viewer = dock.viewer
    canvas, grid, camera = viewer.window._qt_viewer.canvas, viewer.canvas.grid, viewer.scene.camera
    viewer.add_image(np.eye(64))
    grid.enabled = True
    qtbot.waitUntil(lambda: calm(frames))
    grid.enabled = False
    qtbot.waitUntil(lambda: calm(frames))
    before = [one.center for one in canvas.grid_cameras]
    camera.center, camera.zoom = (0, 10, 20), 7
    qtbot.waitUntil(lambda: calm(frames))
    assert [one.center for one in canvas.grid_cameras] == before
    viewer.add_image(np.eye(64))  # napari draws without telling that it does
    canvas.screenshot()
    assert (camera.center, camera.zoom) == ((0, 10, 20), 7)
    grid.enabled = True
    qtbot.waitUntil(lambda: calm(frames))
    np.testing.assert_allclose(
        [one.center for one in canvas.grid_cameras], [camera.center] * len(canvas.grid_cameras)
    )
    np.testing.assert_allclose([one.zoom for one in canvas.grid_cameras], camera.zoom)


def test_a_row_of_the_list_is_painted_again_only_for_what_it_shows(dock: Any) -> None:
    layer = dock.viewer.add_image(np.eye(8), name="one")
    rows, heard = dock.viewer.window._qt_viewer.layers.model(), []
    rows.dataChanged.connect(lambda *_: heard.append(1))
    layer.refresh(thumbnail=False, extent=False)
    layer.scale_factor = 3.0
    assert not heard
    for name, value in (("visible", False), ("name", "other"), ("locked", True)):
        heard.clear()
        setattr(layer, name, value)
        assert heard, name
    heard.clear()
    layer.visible = True
    heard.clear()
    layer._update_thumbnail()
    assert heard
