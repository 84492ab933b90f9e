"""The ruler: lengths and areas clicked on the canvas, kept and listed.

A click sets a corner; a drag still moves the picture.  Positions are (row, column) in µm of the
reference section, so the ruler is right however the view is turned and in each cell of a grid.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_mosaik.view.measurements import Measurement
from napari_mosaik.widgets.canvas.active_tool import MouseHold
from napari_mosaik.widgets.canvas.camera import look_at
from napari_mosaik.widgets.canvas.ruler_drawing import RulerDrawing

if TYPE_CHECKING:
    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["RULER_KEYS", "Ruler"]

RULER_KEYS = {"Shift-D": "measure a length", "Shift-S": "measure an area"}
READING = "mosaik_ruler"
_HINTS = {
    "length": "Click points along the line; double-click or Enter finishes it.",
    "area": "Click points around the area; double-click or Enter closes it.",
}
_CALM_MS = 25
_STILL_PX = 4


class Ruler(QObject):
    """Measures on the canvas of a viewer, with or without a case.

    ``changed`` is emitted when a tool, a corner or the list changes, ``taken`` when the ruler is
    taken into the hand, ``finished`` with each finished `Measurement`.
    """

    changed = Signal()
    taken = Signal()
    finished = Signal(object)

    def __init__(self, link: CanvasLink, parent: QObject | None = None) -> None:
        super().__init__(parent)
        from napari.components.overlays import TextOverlay

        self.viewer = viewer = link.viewer
        self._hold = MouseHold(
            link, self._pressed, moved=self._moved, double_clicked=self._double_clicked
        )
        self.kind: Literal["", "length", "area"] = ""
        self.measurements: list[Measurement] = []
        self._corners: list[tuple[float, float]] = []
        self._pointer: tuple[float, float] | None = None
        self._corner_limit = 0
        self._keeps = True
        self._drawing = RulerDrawing(viewer)
        self._overlay = TextOverlay(position="top_left", font_size=11, box=True, visible=False)
        viewer.canvas.overlays[READING] = self._overlay
        self._calm = QTimer(self)
        self._calm.setSingleShot(True)
        self._calm.setInterval(_CALM_MS)
        self._calm.timeout.connect(self._follow)
        viewer.bind_key("Shift-D", lambda _v: self.toggle("length"), overwrite=True)
        viewer.bind_key("Shift-S", lambda _v: self.toggle("area"), overwrite=True)

    def detach(self) -> None:
        """Put the ruler away and leave the viewer as it was found."""
        self.put_away()
        self._calm.stop()
        self._drawing.detach()
        for key in RULER_KEYS:
            self.viewer.bind_key(key, None, overwrite=True)

    # --- in the hand ----------------------------------------------------------------------------
    @property
    def is_on(self) -> bool:
        """Whether the ruler is in the hand."""
        return bool(self.kind)

    def toggle(self, kind: Literal["length", "area"]) -> None:
        """Take the ruler for a length or an area, or put it away again."""
        if self.kind == kind:
            self.put_away()
        else:
            self.take(kind)

    def take(self, kind: Literal["length", "area"], *, corners: int = 0, keep: bool = True) -> None:
        """Begin to measure.

        With *corners* a measurement ends by itself after so many; without *keep* it is told but
        not listed.
        """
        if not self.is_on:
            self.taken.emit()
            self._hold.take(self._keys(), pans=True)
            self.viewer.cursor.style = "crosshair"
        self.kind, self._corner_limit, self._keeps = kind, corners, keep
        self._corners, self._pointer = [], None
        self._show()

    def put_away(self) -> None:
        """Give the mouse back; finished measurements stay."""
        if not self.is_on:
            return
        self.kind, self._corners, self._pointer = "", [], None
        self._hold.drop()
        self.viewer.cursor.style = "standard"
        self._show()

    def _keys(self) -> dict[str, Callable[[], None]]:
        return {"Enter": self.finish, "Escape": self.step_back, "Backspace": self.step_back}

    # --- measuring ------------------------------------------------------------------------------
    @property
    def draft(self) -> Measurement | None:
        """What is being measured, up to the pointer; None when nothing is begun."""
        if not self._corners or not self.kind:
            return None
        ahead = [self._pointer] if self._pointer is not None else []
        return Measurement(self.kind, (*self._corners, *ahead))

    def add_corner(self, position_um: tuple[float, float]) -> None:
        """Set a corner of what is being measured."""
        if self._corners and np.allclose(position_um, self._corners[-1]):
            return
        self._corners.append(position_um)
        if self._corner_limit and len(self._corners) >= self._corner_limit:
            self.finish()
        else:
            self._show()

    def step_back(self) -> None:
        """Take back the last corner; without any, put the ruler away."""
        if not self._corners:
            self.put_away()
            return
        self._corners.pop()
        self._show()

    def finish(self) -> None:
        """Keep what was measured, if it has corners enough."""
        if not self.kind or not self._corners:
            return
        made = Measurement(self.kind, tuple(self._corners))
        if not made.is_whole:
            return
        self._corners, self._pointer = [], None
        if self._keeps:
            self.measurements.append(made)
        self._show()
        if not self._keeps:
            self._drawing.sketch(made, alone=True)
        self.finished.emit(made)

    def remove(self, number: int) -> None:
        """Delete one of the measurements."""
        del self.measurements[number]
        self._show()

    def clear(self) -> None:
        """Delete all measurements."""
        self.measurements.clear()
        self._corners, self._pointer = [], None
        self._show()

    def go_to(self, number: int) -> None:
        """Bring one of the measurements into the middle of the view."""
        corners = np.asarray(self.measurements[number].points_um)
        look_at(self.viewer, (corners.min(axis=0) + corners.max(axis=0)) / 2)

    # --- mouse ----------------------------------------------------------------------------------
    def _pressed(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        if event.button != 1:
            return
        start, at = np.asarray(event.pos, float), _pair(event.position)
        yield
        while event.type == "mouse_move":
            if np.abs(np.asarray(event.pos, float) - start).max() > _STILL_PX:
                return  # a drag moves the picture
            yield
        self.add_corner(at)

    def _moved(self, viewer: Any, event: Any) -> None:
        if self._corners and not self._calm.isActive():
            self._calm.start()

    def _follow(self) -> None:
        if self._corners:
            self._pointer = _pair(self.viewer.cursor.position)
            self._show_reading()

    def _double_clicked(self, viewer: Any, event: Any) -> None:
        self.finish()

    # --- showing --------------------------------------------------------------------------------
    def _show(self) -> None:
        self._drawing.keep(self.measurements)
        self._show_reading()
        self.changed.emit()

    def _show_reading(self) -> None:
        draft = self.draft
        self._drawing.sketch(draft, alone=self.is_on and not self._keeps)
        told = draft is not None and self._keeps
        self._overlay.text = draft.words.replace(", ", "\n") if told else self._invitation
        self._overlay.visible = self.is_on

    @property
    def _invitation(self) -> str:
        if self._corner_limit:
            return "click both ends"
        return f"{self.kind}: click points"

    @property
    def hint(self) -> str:
        """What the next click does; empty when the ruler is put away."""
        if not self.kind:
            return ""
        if self._corner_limit:
            return "Click both ends of the known length."
        back = " Escape removes the last point." if self._corners else " Escape ends measuring."
        return _HINTS[self.kind] + back


def _pair(position: Any) -> tuple[float, float]:
    row, column = position[-2:]
    return float(row), float(column)
