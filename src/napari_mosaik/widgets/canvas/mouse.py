"""The mouse on the canvas, taken from Qt's own events so that no position of a drag is lost.

vispy leaves out moves that follow one another within 10 ms, and Qt those that arrive while the
window is busy.  While a tool is active neither happens: each position goes to the tool at once, by
a map from pixels to µm that is computed once per drag, and everything that is not a drag of the
tool goes to napari as before, at most every 12 ms and its last position always.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from qtpy.QtCore import QCoreApplication, QEvent, QObject, Qt, QTimer
from qtpy.QtGui import QMouseEvent

from napari_mosaik.core import FloatArray

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import napari

__all__ = ["CanvasMouse", "Pointer", "affine_of"]

_CLICK_PX: Final = 4
"""A press that moves no farther is a click."""
_HOVER_MS: Final = 12
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
        self._hover = QTimer(self)
        self._hover.setSingleShot(True)
        self._hover.setInterval(_HOVER_MS)
        self._hover.setTimerType(Qt.TimerType.PreciseTimer)
        self._hover.timeout.connect(self._pass_on)

    def attach(self) -> None:
        """Watch the canvas."""
        keep_every_move(True)
        self._canvas.native.installEventFilter(self)
        self._viewer.scene.camera.events.connect(self._view_changed)

    def detach(self) -> None:
        """Leave the mouse to napari."""
        self._canvas.native.removeEventFilter(self)
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
        if kind == _MOVE:
            return self._moved(event)
        if kind in (_PRESS, _DOUBLE, _RELEASE):
            self._pass_on()
            return self._clicked(kind, event)
        if kind in _OTHERS:
            self._pass_on()
        elif kind == QEvent.Type.Resize:
            self._view_changed()
        return False

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
