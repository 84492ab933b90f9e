"""The mouse tool of manual alignment: drag and rotate a section, set landmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal

from napari_mosaik.widgets.canvas.active_tool import CanvasTool, Pointer, ToolMode

if TYPE_CHECKING:
    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["KEYS", "AlignTool"]

KEYS = (
    ("arrow keys", "move by 10 µm, with Shift by 100 µm"),
    (", and .", "rotate by 0.5°, with Shift by 5°"),
    ("- and +", "scale by 1 %"),
    ("Ctrl+Z, Ctrl+Shift+Z", "undo, redo"),
)
"""What the keys do while a section is moved."""


class AlignTool(CanvasTool):
    """Moves a section, or sets landmarks.

    ``shifted`` carries a step (row, column) in µm and ``turned`` an angle in degrees about
    ``about_um``, both with whether they continue the same drag; ``clicked`` a position (row,
    column) in µm of the reference section.
    """

    name = "alignment"
    modes = {  # noqa: RUF012
        "move": ToolMode("Move", "Drag to move, Shift+drag to rotate", cursor="standard"),
        "mark": ToolMode("Landmarks", "Click a landmark", pans=True),
    }
    shifted = Signal(object, bool)
    turned = Signal(float, bool)
    clicked = Signal(object)

    def __init__(self, link: CanvasLink) -> None:
        super().__init__(link)
        self.about_um = (0.0, 0.0)
        self.edits: dict[str, Callable[[], Any]] = {}
        """What its keys do."""
        self._last_um = (0.0, 0.0)
        self._moves = 0

    def actions(self) -> Mapping[str, Callable[[], Any]]:
        """Keys that move, rotate and scale."""
        return self.edits

    def pressed(self, pointer: Pointer) -> None:
        """A drag may begin."""
        self._last_um, self._moves = pointer.position_um, 0

    def moved(self, pointer: Pointer) -> None:
        """The section follows the mouse."""
        if self.mode == "move" and not pointer.is_click:
            here = pointer.position_um
            if "Shift" in pointer.modifiers:
                self.turned.emit(_angle(self._last_um, here, self.about_um), self._moves > 0)
            else:
                self.shifted.emit(np.subtract(here, self._last_um), self._moves > 0)
            self._moves += 1
            self._last_um = here

    def released(self, pointer: Pointer) -> None:
        """A click sets a landmark."""
        if pointer.is_click and self.mode == "mark":
            self.clicked.emit(pointer.start_um)


def _angle(start: Any, end: Any, about: Any) -> float:
    """Angle from one position to another about a third, degrees, positive from rows to columns."""
    a, b = np.subtract(start, about), np.subtract(end, about)
    cross, dot = a[0] * b[1] - a[1] * b[0], float(a @ b)
    return float(np.degrees(np.arctan2(cross, dot)))
