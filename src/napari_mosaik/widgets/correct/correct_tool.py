"""The mouse tool for corrections: clicks on objects, lines across them, outlines."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_mosaik.core import palette
from napari_mosaik.core.catalogue import REFERENCE
from napari_mosaik.view.objects import path_lines
from napari_mosaik.view.spec import placement_um
from napari_mosaik.widgets.canvas.active_tool import MouseHold

if TYPE_CHECKING:
    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["DRAGGED", "KEY", "MARKED", "PICKED", "CorrectTool"]

KEY = "Shift-C"
PICKED = ("haematoxylin", "dab")
"""What is picked by a click or by dragging around a place."""
DRAGGED = ("split", "add", "cut", "flag", "clear", *PICKED)
"""What is drawn by dragging; the others are clicks."""
DRAFT = "Outline being drawn"
MARKED = palette.SELECTED_OBJECT
"""Magenta: neither tissue nor any outline of objects has it."""
_STILL_PX = 4
_CALM_MS = 40


class CorrectTool(QObject):
    """Takes the mouse while something is corrected or picked, and draws lines over everything.

    ``clicked`` carries a place and ``drawn`` a path (n, 2), both (row, column) in µm of the
    reference section; ``changed`` is emitted when another mode is taken or the tool put away.
    """

    clicked = Signal(object)
    drawn = Signal(object)
    changed = Signal()

    def __init__(self, link: CanvasLink) -> None:
        super().__init__(link)
        self.link, self.viewer = link, link.viewer
        self._hold = MouseHold(link, self._pressed)
        self.mode = ""
        self._path: list[tuple[float, float]] = []
        self._widths_px: dict[str, float] = {}
        self._calm = QTimer(self)
        self._calm.setSingleShot(True)
        self._calm.setInterval(_CALM_MS)
        self._calm.timeout.connect(self._keep_widths)
        self.viewer.scene.camera.events.zoom.connect(self._zoomed)
        self.keys: dict[str, Callable[[], Any]] = {}
        """What keys do while the tool is in the hand."""

    def take(self, mode: str) -> None:
        """Take the tool for "select", "merge" or one of `DRAGGED`; empty puts it away."""
        was_on, self.mode = bool(self.mode), mode
        if not mode and not was_on:
            return  # another tool may be in the hand
        if mode:
            self._hold.take(self.keys, pans=mode not in DRAGGED)
        else:
            self._hold.drop()
        self.viewer.cursor.style = "crosshair" if mode else "standard"
        self._sketch([])
        self.changed.emit()

    def shut(self) -> None:
        """Leave the viewer as it was found."""
        if self.mode:
            self.take("")
        self._calm.stop()
        self.viewer.scene.camera.events.zoom.disconnect(self._zoomed)

    def _pressed(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        if event.button != 1:
            return
        start = np.asarray(event.pos, float)
        self._path = [_place(event)]
        yield
        still = True
        while event.type == "mouse_move":
            still = still and bool(np.abs(np.asarray(event.pos, float) - start).max() <= _STILL_PX)
            if self.mode in DRAGGED:
                self._path.append(_place(event))
                self._sketch(self._path)
            yield
        path, self._path = self._path, []
        self._sketch([])
        if self.mode in DRAGGED and not still:
            self.drawn.emit(np.array(path))
        elif still and (self.mode not in DRAGGED or self.mode in PICKED):
            self.clicked.emit(path[0])

    def _sketch(self, path: list[tuple[float, float]]) -> None:
        lines = path_lines(path) if len(path) > 1 else np.zeros((0, 2, 2))
        self.show_lines(DRAFT, lines, MARKED, 2.0)

    def _zoomed(self, *_: Any) -> None:
        if self._widths_px:
            self._calm.start()

    def _keep_widths(self) -> None:
        """Lines stay as wide on the screen as they were, from near and from afar."""
        for name, width_px in self._widths_px.items():
            if name in self.viewer.layers:
                self.viewer.layers[name].edge_width = width_px / self.viewer.scene.camera.zoom

    def show_lines(self, name: str, lines: Any, colour: str, width_px: float) -> None:
        """Show vectors (n, 2, 2) in µm of the reference section; none removes the layer."""
        layers, width_um = self.viewer.layers, width_px / self.viewer.scene.camera.zoom
        self._widths_px[name] = width_px
        if name in layers and len(lines):
            layers[name].data = lines
            layers[name].edge_width = width_um
            return
        if name in layers:
            layers.remove(layers[name])
        if not len(lines):
            self._widths_px.pop(name, None)
            return
        active = layers.selection.active
        self.viewer.add_vectors(
            lines,
            name=name,
            edge_color=colour,
            edge_width=width_um,
            vector_style="line",
            **placement_um(REFERENCE),
        )
        layers.selection.active = active

    def bring_up(self, name: str) -> None:
        """Draw a layer over all others, if it is there."""
        layers = self.viewer.layers
        if name in layers and layers[-1].name != name:
            layers.move(layers.index(layers[name]), len(layers))


def _place(event: Any) -> tuple[float, float]:
    row, column = (float(v) for v in event.position[-2:])
    return row, column
