"""Pictures of the canvas that the window does not wait for, and no more of them than are seen."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import MethodType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from qtpy.QtCore import QCoreApplication, QEvent, QObject, Qt, QTimer
from qtpy.QtGui import QOpenGLContext

if TYPE_CHECKING:
    import napari

__all__ = ["Frames", "point_by_place", "slice_before_drawing"]

_LOOK_MS: Final = 2
_LOOK_SHARE: Final = 8
"""After so long, later after such a part of the time since, it is asked if a picture is done."""

_resting: weakref.WeakSet[Any] = weakref.WeakSet()
"""Cameras of grids that are not shown."""


class Frames(QObject):
    """Draws a canvas beside what is shown of it, and shows each picture once it is complete.

    To draw is to hand commands to the graphics library, which carries them out on a graphics card
    or on threads of its own.  Qt shows a picture as soon as the commands are handed over, and so
    waits for it: without a graphics card longer than for all else.  Here the event loop goes on
    meanwhile.  What Qt itself wants painted, because something lay over it or a dock moved, is
    shown again as it was drawn; for a picture of the window, or in another size, it is drawn at
    once, as before.

    To show anything of the window, Qt hands over commands, too, which wait for the picture under
    way.  So whatever else changes in the window meanwhile is shown together with that picture.

    Parameters
    ----------
    scene
        vispy's canvas, whose widget owns this.
    """

    def __init__(self, scene: Any) -> None:
        native = scene.native
        super().__init__(native)
        self._scene = weakref.ref(scene)
        self._paint = type(native).paintGL
        self._soon, self._look = QTimer(self), QTimer(self)
        for timer in (self._soon, self._look):
            timer.setSingleShot(True)
        self._soon.timeout.connect(self._draw)
        self._look.setTimerType(Qt.TimerType.PreciseTimer)
        self._look.timeout.connect(self._show_if_complete)
        self._fence: Any = None
        self._began = 0.0
        self._again = self._showing = self._held = False
        self._is_left = self._is_event = self._is_latest = False
        self._window: QObject | None = None
        self._aside: int | None = None  # the frame buffer, while it is drawn into
        self._frame: tuple[int, list[int]] | None = None  # with its colours and depths
        self._size = (0, 0)
        native._vispy_update = self.ask
        native._vispy_get_fb_bind_location = MethodType(_bound, native)
        self._hear = type(native).paintEvent
        native.paintGL = MethodType(_painted, native)
        native.paintEvent = MethodType(_heard, native)
        native.mosaik_frames = self

    @property
    def under_way(self) -> bool:
        """Whether a picture is being drawn that is not shown yet."""
        return self._fence is not None or self._showing

    @contextmanager
    def as_it_is(self) -> Iterator[None]:
        """What is done inside changes nothing that is seen: no new picture is drawn for it."""
        scene: Any = self._scene()
        pending, self._is_left = scene._update_pending, True
        try:
            yield
        finally:
            scene._update_pending, self._is_left = pending, False

    def ask(self) -> None:
        """Draw a new picture in a turn of the event loop of its own, after the one under way."""
        if self._is_left:
            return
        if not self.under_way:
            self._soon.start(0)
        else:
            self._again = True

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Whether the window has to wait with what it shows, until the picture is complete."""
        if event.type() != QEvent.Type.UpdateRequest or self._fence is None:
            return False
        self._held = True
        return True

    def paint(self, native: Any) -> None:
        """Show the picture that was drawn last; if it may be another by now, draw it at once."""
        from OpenGL import GL  # type: ignore[import-untyped]

        scene = self._scene()
        showing, self._showing = self._showing, False
        again, self._again = self._again, False
        fits = scene is not None and self._size == tuple(scene.physical_size)
        shown = showing or (self._is_event and self._is_latest)
        if not shown or self._frame is None or not fits:
            self._forget()
            self._is_latest = False
            self._paint(native)
            return
        if not showing:
            self._forget()  # Qt waits for it
        if again:
            self._soon.start(0)
        target, (width, height) = native.defaultFramebufferObject(), self._size
        GL.glDisable(GL.GL_SCISSOR_TEST)
        GL.glBindFramebuffer(GL.GL_READ_FRAMEBUFFER, self._frame[0])
        GL.glBindFramebuffer(GL.GL_DRAW_FRAMEBUFFER, target)
        area = (0, 0, width, height)
        GL.glBlitFramebuffer(*area, *area, GL.GL_COLOR_BUFFER_BIT, GL.GL_NEAREST)
        GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, target)

    def hear(self, native: Any, event: Any) -> None:
        """Qt wants the canvas painted on the screen."""
        self._is_event = True
        try:
            self._hear(native, event)
        finally:
            self._is_event = False

    def _draw(self) -> None:
        """Hand the commands of a picture over."""
        from OpenGL import GL

        native: Any = self.parent()
        if not native.isVisible() or not self._prepare(native):
            native.update()
            return
        self._watch(native.window())
        assert self._frame is not None
        GL.glViewport(0, 0, *self._size)
        self._aside = self._frame[0]
        try:
            self._paint(native)
        finally:
            self._aside = None
        self._is_latest = True
        self._fence = GL.glFenceSync(GL.GL_SYNC_GPU_COMMANDS_COMPLETE, 0)
        GL.glFlush()
        self._began = time.perf_counter()
        self._look.start(_LOOK_MS)

    def _prepare(self, native: Any) -> bool:
        """Have a frame buffer in the size of the canvas; whether there can be one."""
        from OpenGL import GL

        scene = self._scene()
        size = (0, 0) if scene is None else tuple(scene.physical_size)
        if min(size) < 1 or native.format().samples() > 0 or not native.isValid():
            return False
        native.makeCurrent()
        if not GL.glFenceSync or not GL.glBlitFramebuffer:  # older than OpenGL 3.2
            return False
        if self._frame is not None and size == self._size:
            return True
        self._is_latest = False
        if self._frame is not None:
            GL.glDeleteFramebuffers(1, [self._frame[0]])
            GL.glDeleteRenderbuffers(2, self._frame[1])
            self._frame = None
        frame, parts = int(GL.glGenFramebuffers(1)), [int(n) for n in GL.glGenRenderbuffers(2)]
        GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, frame)
        for part, kind, places in (
            (parts[0], GL.GL_RGBA8, (GL.GL_COLOR_ATTACHMENT0,)),
            (parts[1], GL.GL_DEPTH24_STENCIL8, (GL.GL_DEPTH_ATTACHMENT, GL.GL_STENCIL_ATTACHMENT)),
        ):
            GL.glBindRenderbuffer(GL.GL_RENDERBUFFER, part)
            GL.glRenderbufferStorage(GL.GL_RENDERBUFFER, kind, *size)
            for place in places:
                GL.glFramebufferRenderbuffer(GL.GL_FRAMEBUFFER, place, GL.GL_RENDERBUFFER, part)
        whole = GL.glCheckFramebufferStatus(GL.GL_FRAMEBUFFER) == GL.GL_FRAMEBUFFER_COMPLETE
        GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, native.defaultFramebufferObject())
        self._frame, self._size = (frame, parts), size
        return bool(whole)

    def _show_if_complete(self) -> None:
        """Show the picture when the graphics library is done with it."""
        from OpenGL import GL

        native: Any = self.parent()
        if QOpenGLContext.currentContext() != native.context():
            native.makeCurrent()
        if GL.glClientWaitSync(self._fence, 0, 0) == GL.GL_TIMEOUT_EXPIRED:
            since_ms = 1000 * (time.perf_counter() - self._began)
            self._look.start(max(_LOOK_MS, round(since_ms / _LOOK_SHARE)))
            return
        self._forget()
        self._showing = True
        native.repaint()  # Qt may put it off, if it has shown something a moment ago

    def _forget(self) -> None:
        """The picture under way is shown, or comes too late."""
        from OpenGL import GL

        self._look.stop()
        if self._fence is not None:
            GL.glDeleteSync(self._fence)
            self._fence = None
        if self._held and self._window is not None:
            self._held = False
            QCoreApplication.postEvent(self._window, QEvent(QEvent.Type.UpdateRequest))

    def _watch(self, window: QObject) -> None:
        """Hear when that window wants to show what has changed in it."""
        if window is self._window:
            return
        if self._window is not None:
            self._window.removeEventFilter(self)
        self._window = window
        window.installEventFilter(self)


def _bound(native: Any) -> int:
    """The frame buffer that vispy draws into."""
    aside = native.mosaik_frames._aside
    return int(native.defaultFramebufferObject() if aside is None else aside)


def _painted(native: Any) -> None:
    native.mosaik_frames.paint(native)


def _heard(native: Any, event: Any) -> None:
    native.mosaik_frames.hear(native, event)


def slice_before_drawing(canvas: Any) -> None:
    """Let the layers follow the view before it is drawn, so that one picture is enough.

    napari draws, looks which pixels the layers need, and draws once more.  In a grid the views have
    their sizes only after they were drawn, and it stays so.  The cameras of a grid that is not
    shown rest; they follow once it is shown.
    """
    _let_cameras_rest()
    scene, there = canvas._scene_canvas, weakref.ref(canvas)

    def before(event: Any) -> None:
        canvas = there()
        if canvas is None or canvas.viewer.canvas.grid.enabled:
            return
        scene, cameras = canvas._scene_canvas, canvas.grid_cameras
        _resting.update(cameras)
        scene._update_pending = True  # what the layers want drawn is drawn now
        canvas.grid_cameras = []
        try:
            canvas.on_draw(event)
        finally:
            canvas.grid_cameras = cameras
            scene._update_pending = False

    def after(event: Any) -> None:
        canvas = there()
        if canvas is not None and (
            canvas.viewer.canvas.grid.enabled
            or not np.allclose(canvas._last_viewbox_size, canvas._current_viewbox_size)
        ):
            canvas.on_draw(event)

    def enabled() -> None:
        canvas = there()
        for camera in () if canvas is None else canvas.grid_cameras:
            if camera in _resting:
                _resting.discard(camera)
                camera._on_center_change()
                camera._on_zoom_change()

    scene.events.draw.disconnect(canvas.on_draw)
    scene.events.draw.connect(before, position="first")
    scene.events.draw.connect(after, position="last")
    canvas.viewer.canvas.grid.events.enabled.connect(enabled, position="first")


@cache
def _let_cameras_rest() -> None:
    """Let a camera follow the view, and the view it, only if it is used; once in a process.

    napari brings all cameras up to date when a layer is added, too: the view would go where a
    camera that rests was left.
    """
    from napari._vispy.camera import VispyCamera

    for name in ("_on_center_change", "_on_zoom_change"):
        setattr(VispyCamera, name, _unless_resting(getattr(VispyCamera, name)))
    lead = VispyCamera.on_draw

    def led(self: Any, event: Any) -> None:
        if self not in _resting:
            lead(self, event)

    VispyCamera.on_draw = led


def _unless_resting(follow: Callable[[Any], None]) -> Callable[[Any], None]:
    def followed(self: Any) -> None:
        if self not in _resting:
            follow(self)

    return followed


def point_by_place(viewer: napari.Viewer) -> None:
    """Find the view that the mouse points at by its place.

    For each turn of the wheel and each press, vispy draws all layers once more, waits for them, and
    reads one pixel.  Views are all that can be pointed at.
    """
    canvas = viewer.window._qt_viewer.canvas
    there = weakref.ref(canvas)
    scene = canvas._scene_canvas
    drawn = type(scene).visual_at

    def visual_at(position: Any) -> Any:
        canvas = there()
        if canvas is None:
            return None
        if not canvas.viewer.canvas.grid.enabled:
            return canvas.view if canvas.view.interactive else None
        box, _ = canvas._get_viewbox_at(np.asarray(position)[:2])
        return drawn(canvas._scene_canvas, position) if box is None else box

    scene.unfreeze()
    scene.visual_at = visual_at
    scene.freeze()
