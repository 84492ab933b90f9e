"""A tool for clicks on objects and for lines or outlines that are dragged."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import Signal

from napari_mosaik.view.objects import path_lines
from napari_mosaik.widgets.canvas.active_tool import CanvasTool, ToolHost
from napari_mosaik.widgets.canvas.mouse import Pointer

__all__ = ["PathTool"]


class PathTool(CanvasTool):
    """Reports clicks, and dragged paths in modes in which a drag does not pan.

    ``clicked`` carries a position and ``drawn`` a path (n, 2), both (row, column) in µm of the
    reference section.
    """

    clicked = Signal(object)
    drawn = Signal(object)

    def __init__(self, link: ToolHost) -> None:
        super().__init__(link)
        self.path: list[tuple[float, float]] = []

    def reset(self) -> None:
        """Discard the path."""
        super().reset()
        self.path = []

    def pressed(self, pointer: Pointer) -> None:
        """Start a path."""
        self.path = [pointer.position_um]

    def moved(self, pointer: Pointer) -> None:
        """Continue it."""
        if not self.modes[self.mode].pans:
            self.path.append(pointer.position_um)

    def sketch(self) -> None:
        """Draw it."""
        if len(self.path) > 1:
            self.show_draft(path_lines(self.path))

    def released(self, pointer: Pointer) -> None:
        """Report the click or the path."""
        path, self.path = self.path, []
        self.hide_draft()
        if pointer.is_click:
            self.clicked.emit(pointer.start_um)
        elif not self.modes[self.mode].pans and len(path) > 1:
            self.drawn.emit(np.array(path))
