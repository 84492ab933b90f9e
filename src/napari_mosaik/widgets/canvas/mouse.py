"""Mouse, pen and finger on the canvas, taken from Qt's events so that no position is lost.

vispy leaves out moves that follow one another within 10 ms, and Qt those that arrive while the
window is busy.  While a tool is active neither happens: each position goes to the tool at once, by
a map from pixels to µm that is computed once per drag, and everything that is not a drag of the
tool goes to napari as before, at most every 12 ms and its last position always.

A pen and one finger become the mouse here, and the rubber of a pen holds Alt; a second finger
discards what the first has begun, and both belong to napari.  A drag ends where it was last seen
when its release goes elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from qtpy.QtCore import QCoreApplication, QEvent, QObject, QPointF, Qt, QTimer
from qtpy.QtGui import QGuiApplication, QInputDevice, QMouseEvent, QPointingDevice, QWheelEvent

from napari_mosaik.core import FloatArray

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import napari

__all__ = ["CanvasMouse", "Pointer", "affine_of"]

_CLICK_PX: Final = 4
"""A press that moves no farther is a click."""
_HOVER_MS: Final = 12
_TAKES_TOUCH: Final = Qt.WidgetAttribute.WA_AcceptTouchEvents
_COMPRESSION: Final = Qt.ApplicationAttribute.AA_CompressHighFrequencyEvents
_LEFT: Final = Qt.MouseButton.LeftButton
_KEYS: Final = {
    Qt.KeyboardModifier.ShiftModifier: "Shift",
    Qt.KeyboardModifier.ControlModifier: "Control",
    Qt.KeyboardModifier.AltModifier: "Alt",
    Qt.KeyboardModifier.MetaModifier: "Meta",
}
_PRESS, _DOUBLE, _MOVE, _RELEASE = (
    QEvent.Type.MouseButtonPress,
    QEvent.Type.MouseButtonDblClick,
    QEvent.Type.MouseMove,
    QEvent.Type.MouseButtonRelease,
)
_OTHERS: Final = (QEvent.Type.Wheel, QEvent.Type.KeyPress, QEvent.Type.Leave)
_PEN: Final = {
    QEvent.Type.TabletPress: _PRESS,
    QEvent.Type.TabletMove: _MOVE,
    QEvent.Type.TabletRelease: _RELEASE,
}
_TOUCH: Final = {
    QEvent.Type.TouchBegin: _PRESS,
    QEvent.Type.TouchUpdate: _MOVE,
    QEvent.Type.TouchEnd: _RELEASE,
    QEvent.Type.TouchCancel: _RELEASE,
}
_LOST: Final = (QEvent.Type.WindowDeactivate, QEvent.Type.Hide)
"""After these the release may go to another window."""
_NOTCH: Final = 120
"""Angle of one notch of a wheel, eighths of a degree."""
_FINGER_PX: Final = 20
"""Two taps no farther apart are a double click."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """The mouse on the canvas.

    Parameters
    ----------
    position_um, start_um
        Where it is and where its button was pressed: (row, column) in µm of the reference section.
    modifiers
        Keys that were held when the button was pressed, such as "Shift" and "Alt".
    is_click
        Whether it has not been dragged since.
    """

    position_um: tuple[float, float]
    start_um: tuple[float, float]
    modifiers: frozenset[str] = frozenset()
    is_click: bool = True


class MouseUser(Protocol):
    """What the mouse is given to: see `CanvasTool`."""

    mode: str
    sketch_soon: Any

    @property
    def modes(self) -> Mapping[str, Any]: ...
    def pressed(self, pointer: Pointer) -> None: ...
    def moved(self, pointer: Pointer) -> None: ...
    def sketched(self) -> None: ...
    def released(self, pointer: Pointer) -> None: ...
    def double_clicked(self) -> None: ...
    def reset(self) -> None: ...
    def wheeled(self, notches: float) -> bool: ...


class CanvasMouse(QObject):
    """Gives the mouse on a canvas, between `attach` and `detach`, to what *user* returns."""

    def __init__(
        self, viewer: napari.Viewer, user: Callable[[], MouseUser | None], parent: QObject
    ) -> None:
        super().__init__(parent)
        self._viewer, self._user = viewer, user
        self._canvas = viewer.window._qt_viewer.canvas
        self._stroke: _Stroke | None = None
        self._waiting: QMouseEvent | None = None
        self._passing = False
        self._is_kept = False
        self._pointing = ""
        """ "pen" or "finger" while one is down, "fingers" while there are several."""
        self._tap: tuple[int, QPointF] | None = None
        self._took_touch = False
        self._hover = QTimer(self)
        self._hover.setSingleShot(True)
        self._hover.setInterval(_HOVER_MS)
        self._hover.setTimerType(Qt.TimerType.PreciseTimer)
        self._hover.timeout.connect(self._pass_on)

    def attach(self) -> None:
        """Watch the canvas."""
        keep_every_move(True)
        self._took_touch = self._canvas.native.testAttribute(_TAKES_TOUCH)
        self._canvas.native.setAttribute(_TAKES_TOUCH, True)
        self._canvas.native.installEventFilter(self)
        self._viewer.scene.camera.events.connect(self._view_changed)

    def detach(self) -> None:
        """Leave the mouse to napari."""
        self._canvas.native.removeEventFilter(self)
        self._canvas.native.setAttribute(_TAKES_TOUCH, self._took_touch)
        self._viewer.scene.camera.events.disconnect(self._view_changed)
        self.drop()
        keep_every_move(False)

    def drop(self) -> None:
        """Forget a drag: its tool has ended, or started over."""
        self._hover.stop()
        self._stroke = self._waiting = None

    def _view_changed(self, *_: Any) -> None:
        if self._stroke is not None:
            self._stroke.to_um = None

    # --- events ---------------------------------------------------------------------------------
    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Whether an event is kept from napari."""
        kind = event.type()
        if self._passing:
            return False
        if kind in (_MOVE, _PRESS, _DOUBLE, _RELEASE):
            return self._moused(kind, event)
        if kind in _PEN:
            return self._penned(_PEN[kind], event)
        if kind in _TOUCH:
            return self._touched(kind, event)
        if kind in _OTHERS:
            self._pass_on()
            return kind == QEvent.Type.Wheel and self._wheeled(event)
        if kind == QEvent.Type.Resize:
            self._view_changed()
        elif kind in _LOST and self._stroke is not None:
            self._end(self._stroke, None)
        return False

    def _moused(self, kind: QEvent.Type, event: Any) -> bool:
        made_up = event.source() != Qt.MouseEventSource.MouseEventNotSynthesized
        if made_up and self._pointing:  # the system's copy of what a pen or a finger does
            return True
        if kind == _MOVE:
            return self._moved(event)
        self._pass_on()
        return self._clicked(kind, event)

    def _wheeled(self, event: Any) -> bool:
        """The wheel belongs to a tool that uses it; with Ctrl it zooms there, too."""
        tool = self._user()
        notches = event.angleDelta().y() / _NOTCH
        if tool is None or not notches:
            return False
        if not event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            return tool.wheeled(notches)
        if not tool.wheeled(0.0):
            return False
        plain = QWheelEvent(
            event.position(), event.globalPosition(), event.pixelDelta(), event.angleDelta(),
            event.buttons(), Qt.KeyboardModifier.NoModifier, event.phase(), event.inverted(),
        )  # fmt: skip
        self._passing = True
        QCoreApplication.sendEvent(self._canvas.native, plain)
        self._passing = False
        return True

    # --- pen and finger -------------------------------------------------------------------------
    def _penned(self, kind: QEvent.Type, event: Any) -> bool:
        """A pen is the mouse; its rubber holds Alt."""
        if kind != _MOVE and event.button() != _LEFT:
            return False
        held = event.modifiers()
        if event.pointerType() == QPointingDevice.PointerType.Eraser:
            held |= Qt.KeyboardModifier.AltModifier
        down = bool(event.buttons() & _LEFT)
        self._as_mouse("pen", kind, event, event.position(), event.globalPosition(), down, held)
        return True

    def _touched(self, kind: QEvent.Type, event: Any) -> bool:
        """One finger is the mouse; a second one discards what the first has begun."""
        if event.device().type() != QInputDevice.DeviceType.TouchScreen:
            return False  # a touch pad already moves the mouse
        over = _TOUCH[kind] == _RELEASE
        if kind == QEvent.Type.TouchCancel or len(event.points()) > 1:
            if self._pointing == "finger":
                self._discard()
            self._pointing = "" if over else "fingers"
        if self._pointing == "fingers" or kind == QEvent.Type.TouchCancel:
            self._pointing = "" if over else self._pointing
            return False
        there = event.points()[0].globalPosition()
        at = QPointF(self._canvas.native.mapFromGlobal(there))
        self._as_mouse("finger", _TOUCH[kind], event, at, there, not over, event.modifiers())
        return True

    def _as_mouse(
        self,
        what: str,
        kind: QEvent.Type,
        event: Any,
        at: QPointF,
        there: QPointF,
        down: bool,
        held: Qt.KeyboardModifier,
    ) -> None:
        """Send what a pen or finger does as an event of the mouse."""
        if kind == _PRESS and self._is_second(event.timestamp(), at):
            kind = _DOUBLE
        self._pointing = what if down and kind != _RELEASE else ""
        none = Qt.MouseButton.NoButton
        button, buttons = (none if kind == _MOVE else _LEFT), (_LEFT if self._pointing else none)
        event.accept()
        mouse = QMouseEvent(kind, at, there, button, buttons, held)
        QCoreApplication.sendEvent(self._canvas.native, mouse)

    def _is_second(self, time_ms: int, at: QPointF) -> bool:
        """Whether a tap follows another so closely that both are a double click."""
        before, self._tap = self._tap, (time_ms, at)
        hints = QGuiApplication.styleHints()
        if before is None or time_ms - before[0] > hints.mouseDoubleClickInterval():
            return False
        away = at - before[1]
        second = max(abs(away.x()), abs(away.y())) <= _FINGER_PX
        if second:
            self._tap = None
        return second

    def _discard(self) -> None:
        """Forget a drag, and what its tool has made of it."""
        stroke = self._stroke
        self.drop()
        self._is_kept = False
        if stroke is not None:
            stroke.tool.sketched()
            stroke.tool.reset()

    def _clicked(self, kind: QEvent.Type, event: Any) -> bool:
        if event.button() != _LEFT:
            return False
        if kind == _RELEASE:
            kept, self._is_kept = self._is_kept, False
            if self._stroke is not None:
                self._end(self._stroke, event)
            return kept
        tool = self._user()
        mode = None if tool is None else tool.modes[tool.mode]
        self._is_kept = mode is not None and not mode.pans
        if tool is None or mode is None or (mode.pans and kind == _DOUBLE):
            return False
        if mode.clicks and kind == _DOUBLE:
            tool.double_clicked()
        else:
            self._begin(tool, event, shared=mode.pans)
        return self._is_kept

    def _begin(self, tool: MouseUser, event: Any, *, shared: bool) -> None:
        if self._stroke is not None:
            self._end(self._stroke, None)
        at = event.position()
        view, _ = self._canvas._get_viewbox_at(np.array([at.x(), at.y()]))
        if view is None:
            return
        held = frozenset(name for key, name in _KEYS.items() if event.modifiers() & key)
        self._stroke = stroke = _Stroke(tool, self._canvas, view, (at.x(), at.y()), held, shared)
        tool.pressed(stroke.pointer(at))

    def _moved(self, event: Any) -> bool:
        stroke = self._stroke
        if stroke is not None:
            if not event.buttons() & _LEFT:
                self._end(stroke, event)  # the release went elsewhere
            else:
                stroke.tool.moved(stroke.pointer(event.position()))
                stroke.tool.sketch_soon()
            if not stroke.shared:
                return True
        self._waiting = event.clone()
        if not self._hover.isActive():
            self._hover.start()
        return True

    def _end(self, stroke: _Stroke, event: Any) -> None:
        """The drag is over, at the position of the event or, without one, where it was last."""
        self._stroke = None
        tool = stroke.tool
        at = stroke.last if event is None else event.position()
        if not stroke.is_at(at):
            tool.moved(stroke.pointer(at))
        tool.sketched()
        pointer = stroke.pointer(at)
        cursor = self._viewer.cursor  # napari did not see the drag
        cursor.position = (*cursor.position[:-2], *pointer.position_um)
        tool.released(pointer)

    def _pass_on(self) -> None:
        """Give napari the last move that it was not given."""
        self._hover.stop()
        event, self._waiting = self._waiting, None
        if event is not None:
            self._passing = True
            QCoreApplication.sendEvent(self._canvas.native, event)
            self._passing = False


class _Stroke:
    """A drag from press to release, on one view of the canvas."""

    def __init__(
        self,
        tool: MouseUser,
        canvas: Any,
        view: Any,
        start: tuple[float, float],
        held: frozenset[str],
        shared: bool,
    ) -> None:
        self.tool, self.shared = tool, shared
        self._map = lambda place: canvas._map_canvas2world(place, view)[-2:]
        self._start, self._held = start, held
        self._is_click = True
        self.last: Any = None
        self.to_um: FloatArray | None = None
        self.start_um = self._um(*start)

    def is_at(self, place: Any) -> bool:
        """Whether the last position was this one."""
        return self.last is not None and (self.last.x(), self.last.y()) == (place.x(), place.y())

    def pointer(self, place: Any) -> Pointer:
        """The mouse at a pixel."""
        x, y = place.x(), place.y()
        away = max(abs(x - self._start[0]), abs(y - self._start[1]))
        self._is_click = self._is_click and away <= _CLICK_PX
        self.last = place
        return Pointer(self._um(x, y), self.start_um, self._held, self._is_click)

    def _um(self, x: float, y: float) -> tuple[float, float]:
        if self.to_um is None:
            self.to_um = affine_of(self._map)
        (a, b, c), (d, e, f) = self.to_um.tolist()
        return a * x + b * y + c, d * x + e * y + f


def affine_of(convert: Callable[[tuple[float, float]], Any]) -> FloatArray:
    """Matrix (2, 3) of a function of positions that is affine; the unit is that of its results."""
    origin, first, second = (np.array(convert(p), float) for p in ((0, 0), (1, 0), (0, 1)))
    return np.column_stack([first - origin, second - origin, origin])


def keep_every_move(kept: bool) -> None:
    """Whether Qt keeps moves of the mouse that arrive while the window is busy."""
    QCoreApplication.setAttribute(_COMPRESSION, not kept)
