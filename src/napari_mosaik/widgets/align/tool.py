"""The mouse tool of manual alignment: drag and rotate a section, set landmarks."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_mosaik.widgets.canvas.active_tool import MouseHold

if TYPE_CHECKING:
    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["KEYS", "AlignTool"]

_STILL_PX = 4
KEYS = (
    ("arrow keys", "move by 10 µm, with Shift by 100 µm"),
    (", and .", "rotate by 0.5°, with Shift by 5°"),
    ("- and +", "scale by 1 %"),
    ("Ctrl+Z, Ctrl+Shift+Z", "undo, redo"),
)
"""What the keys do while a section is moved."""


class AlignTool(QObject):
    """Takes the mouse while a section is moved or landmarks are set.

    ``shifted`` carries a step (row, column) in µm and ``turned`` an angle in degrees with the place
    about which it is turned, both with whether it goes on an act that has begun; ``clicked`` a
    place in µm of the reference; ``changed`` is emitted when the tool is taken or put away.
    """

    shifted = Signal(object, bool)
    turned = Signal(float, bool)
    clicked = Signal(object)
    changed = Signal()

    def __init__(self, link: CanvasLink) -> None:
        super().__init__(link)
        self.link, self.viewer = link, link.viewer
        self._hold = MouseHold(link, self._pressed)
        self.mode = ""
        self.about_um = (0.0, 0.0)
        self.keys: dict[str, Callable[[], Any]] = {}

    def take(self, mode: str) -> None:
        """Take the tool to "move" or to "mark"; empty puts it away."""
        was_on, self.mode = bool(self.mode), mode
        if not mode and not was_on:
            return  # another tool may be in the hand
        if mode:
            self._hold.take(self.keys, pans=mode != "move")
        else:
            self._hold.drop()
        self.viewer.cursor.style = {"mark": "crosshair", "move": "standard"}.get(mode, "standard")
        self.changed.emit()

    def _pressed(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        if event.button != 1:
            return
        start_px = np.asarray(event.pos, float)
        turning = "Shift" in event.modifiers
        start = last = np.array(event.position[-2:], float)
        still, moves = True, 0
        yield
        while event.type == "mouse_move":
            still = still and np.abs(np.asarray(event.pos, float) - start_px).max() <= _STILL_PX
            place = np.array(event.position[-2:], float)
            if self.mode == "move" and not still:
                if turning:
                    self.turned.emit(_angle(last, place, self.about_um), moves > 0)
                else:
                    self.shifted.emit(place - last, moves > 0)
                moves += 1
                last = place
            yield
        if still and self.mode == "mark":
            self.clicked.emit((float(start[0]), float(start[1])))


def _angle(start: Any, end: Any, about: Any) -> float:
    """Angle from one place to another about a third, degrees, positive from rows to columns."""
    a, b = np.asarray(start) - about, np.asarray(end) - about
    cross, dot = a[0] * b[1] - a[1] * b[0], float(a @ b)
    return float(np.degrees(np.arctan2(cross, dot)))
