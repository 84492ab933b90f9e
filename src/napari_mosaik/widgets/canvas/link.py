"""Joins the canvas to the workspace: active tool, tile readout, tile selection, hiding overlays."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from superqt.utils import qthrottled

from napari_mosaik.core import palette
from napari_mosaik.core.catalogue import REFERENCE
from napari_mosaik.view.spec import placement_um
from napari_mosaik.widgets.canvas.active_tool import ToolHost
from napari_mosaik.widgets.canvas.case_layers import CaseLayers
from napari_mosaik.widgets.canvas.keys import CANVAS
from napari_mosaik.widgets.canvas.layout_state import is_base
from napari_mosaik.widgets.canvas.view_keys import shows_uncalibrated

if TYPE_CHECKING:
    import napari

__all__ = ["CanvasLink", "square_lines"]

SELECTED = "Selected tile"
_READ_MS = 40
_BETWEEN = " · "
_LINE_LETTERS = 36


class CanvasLink(ToolHost):
    """Joins a viewer's canvas to the workspace.

    ``marked_elsewhere`` is set by a layout that marks the selected tile itself; each of
    ``readings`` adds its words on a tile to the line under the cursor.
    """

    def __init__(self, viewer: napari.Viewer, board: CaseLayers) -> None:
        super().__init__(viewer, board)
        self.board = board
        self.workspace = board.controller.workspace
        self.marked_elsewhere = False
        self.readings: list[Callable[[int], str]] = []
        self._hidden: list[Any] = []
        self._read_soon = qthrottled(self._read, timeout=_READ_MS, leading=False, parent=self)
        viewer.mouse_move_callbacks.append(self._moved)
        viewer.mouse_drag_callbacks.append(self._pressed)
        self.keys.bind(CANVAS, {"hide overlays": self._hold_to_hide})
        # in the unit of the layers, µm
        viewer.canvas.overlays.scale_bar.visible = not shows_uncalibrated(viewer)
        text = viewer.canvas.overlays.text
        text.position = "bottom_left"  # headings, ruler and overview map are above
        text.font_size = 10
        self.workspace.events.tile.connect(self._mark)
        self.workspace.events.case.connect(self._mark)

    def detach(self) -> None:
        """Leave the viewer as it was found."""
        super().detach()
        self._read_soon.cancel()
        self.viewer.mouse_move_callbacks.remove(self._moved)
        self.viewer.mouse_drag_callbacks.remove(self._pressed)

    # --- mouse ----------------------------------------------------------------------------------
    def _moved(self, viewer: Any, event: Any) -> None:
        self._read_soon()

    def _read(self) -> None:
        overlay = self.viewer.canvas.overlays.text
        tile_data = self.workspace.tile_data
        tile = -1
        if tile_data.grid is not None:
            position = self.viewer.cursor.position
            tile = tile_data.tile_at((float(position[-2]), float(position[-1])))
        line = ""
        if tile >= 0:
            more = (reading(tile) for reading in self.readings)
            line = _folded(_BETWEEN.join(filter(None, [tile_data.line(tile), *more])))
        if overlay.text != line:
            overlay.text = line
        if overlay.visible != bool(line):
            overlay.visible = bool(line)

    def _pressed(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        if self.active_tool is not None or event.button != 1 or event.modifiers:
            return
        start = np.asarray(event.pos, float)
        position = tuple(float(v) for v in event.position[-2:])
        yield
        while event.type == "mouse_move":
            if np.abs(np.asarray(event.pos, float) - start).max() > 4:
                return
            yield
        # a window that was busy may have got no move of a drag, only its end
        if np.abs(np.asarray(event.pos, float) - start).max() <= 4:
            self.choose(position)

    def choose(self, position_um: tuple[float, ...]) -> None:
        """Select the tile at a position of the reference section, if there is one."""
        tile = self.workspace.tile_data.tile_at((position_um[0], position_um[1]))
        if tile >= 0:
            self.workspace.tile = tile

    # --- keys -----------------------------------------------------------------------------------
    def _hold_to_hide(self) -> Generator[None, None, None]:
        """Hide everything but slides and the PET while the key is held.

        When the release of the key was lost, the hidden layers come back with the next one.
        """
        overlays = [layer for layer in self.viewer.layers if not is_base(layer)]
        self._hidden += [layer for layer in overlays if layer.visible]
        for layer in overlays:
            layer.visible = False
        yield
        hidden, self._hidden = self._hidden, []
        for layer in hidden:
            layer.visible = True

    # --- the selected tile ----------------------------------------------------------------------
    def _mark(self, *_: Any) -> None:
        tile_data, tile = self.workspace.tile_data, self.workspace.tile
        found = [layer for layer in self.viewer.layers if layer.name == SELECTED]
        if tile_data.grid is None or not 0 <= tile < tile_data.n_tiles:
            for layer in found:
                self.viewer.layers.remove(layer)
            return
        size = tile_data.grid.size_um
        lines = square_lines(tile_data.grid.centres_um[tile], size)
        if found:
            found[0].data = lines
            return
        if self.marked_elsewhere:
            return
        active = self.viewer.layers.selection.active
        self.viewer.add_vectors(
            lines,
            name=SELECTED,
            edge_color=palette.TISSUE,
            edge_width=size / 30,
            vector_style="line",
            **placement_um(REFERENCE),
        )
        if active is not None:
            self.viewer.layers.selection.active = active


def _folded(line: str) -> str:
    """Break a readout into lines that leave room for scale bar and magnification.

    napari's box is up to a fiftieth narrower than a line that is drawn: blanks make up for it.
    """
    lines = [""]
    for part in line.split(_BETWEEN):
        longer = f"{lines[-1]}{_BETWEEN}{part}" if lines[-1] else part
        if len(longer) > _LINE_LETTERS and lines[-1]:
            lines.append(part)
        else:
            lines[-1] = longer
    return "\n".join(one + "\N{NO-BREAK SPACE}" * (len(one) // 16) for one in lines)


def square_lines(centre_um: Any, size_um: float) -> Any:
    """The outline of a square as vectors (4, 2, 2): start and step."""
    top, left = (float(v) - size_um / 2 for v in centre_um)
    across, down = (0.0, size_um), (size_um, 0.0)
    starts = [(top, left), (top + size_um, left), (top, left), (top, left + size_um)]
    steps = [across, across, down, down]
    return np.array([[s, d] for s, d in zip(starts, steps, strict=True)])
