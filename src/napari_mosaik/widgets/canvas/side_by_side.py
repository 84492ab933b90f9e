"""Measured, predicted and their difference next to one another, with cameras that move together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_mosaik.core import palette
from napari_mosaik.view.layers import difference_layer, uptake_layers
from napari_mosaik.view.spec import LayerSpec, placement_um
from napari_mosaik.widgets.canvas.camera import fit
from napari_mosaik.widgets.canvas.layer_board import LayerBoard, fast_removal
from napari_mosaik.widgets.canvas.layout_state import BASE, Arrangement, put_in_order, show_grid
from napari_mosaik.widgets.canvas.link import square_lines

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

    from napari_mosaik.view.tile_data import TileData

__all__ = ["SideBySide", "review_specs"]

HEADINGS = ("measured", "predicted", "predicted − measured")
PER_CELL = 3
"""Layers of one cell: the map, the mark of the selected tile and the heading."""


def review_specs(tile_data: TileData) -> list[LayerSpec]:
    """The three maps on their tiles; none when there is nothing to compare."""
    measured, predicted, grid = tile_data.measured(), tile_data.predicted(), tile_data.grid
    if measured is None or predicted is None or grid is None:
        return []
    maps = [grid.paint(values, tile_data.unit) for values in (measured, predicted)]
    return [*uptake_layers(maps[0], maps[1]), difference_layer(maps[0], maps[1])]


class SideBySide(QObject):
    """Turns napari's grid into the review layout and back, leaving everything as it was.

    The three cells are new layers at the bottom of the list; all others are hidden meanwhile and
    shown again afterwards.  ``entering`` is emitted before anything is changed.
    """

    changed = Signal(bool)
    entering = Signal()

    def __init__(self, viewer: napari.Viewer, board: LayerBoard) -> None:
        super().__init__(board)
        self.viewer = viewer
        self.board = board
        self.workspace = board.controller.workspace
        self._cells: list[Layer] = []
        self._marks: list[Layer] = []
        self._before: Arrangement | None = None
        self.workspace.events.tile.connect(self._mark)
        self.workspace.events.tile_data.connect(self._again)
        self.workspace.events.case.connect(self.leave)

    @property
    def is_on(self) -> bool:
        """Whether the maps are shown side by side."""
        return bool(self._cells)

    def toggle(self) -> None:
        """In or out."""
        if self.is_on:
            self.leave()
        else:
            self.enter()

    def enter(self) -> bool:
        """Show the three maps; False when there is nothing to compare yet."""
        specs = review_specs(self.workspace.tile_data)
        if self.is_on or not specs:
            return False
        self.entering.emit()
        self._before = Arrangement.of(self.viewer)
        for layer in self._before.order:
            layer.visible = False
        for number, spec in enumerate(specs):
            self._add_cell(spec, HEADINGS[number], number)
        put_in_order(self.viewer, self._cells)
        show_grid(self.viewer, PER_CELL, (1, len(specs)))
        self._mark()
        self._frame()
        self.viewer.layers.selection.clear()
        self.changed.emit(True)
        return True

    def leave(self, *_: Any) -> None:
        """Back to the layers as they were."""
        before = self._before
        if before is None or not self.is_on:
            return
        before.restore_grid(self.viewer)
        with fast_removal(self.viewer):
            for layer in self._cells:
                if layer in self.viewer.layers:
                    self.viewer.layers.remove(layer)
        before.restore_layers(self.viewer)
        self._cells, self._marks, self._before = [], [], None
        before.restore_camera(self.viewer)
        self.changed.emit(False)

    def _frame(self) -> None:
        """Let the tiles fill their cells, with room for the heading."""
        grid = self.workspace.tile_data.grid
        if grid is None or not len(grid):
            return
        low, high = grid.centres_um.min(axis=0), grid.centres_um.max(axis=0)
        margin = 1.5 * grid.stride_um
        fit(self.viewer, low - margin, high + margin)

    def _again(self, *_: Any) -> None:
        """New results: show them."""
        if self.is_on:
            self.leave()
            self.enter()

    def _add_cell(self, spec: LayerSpec, title: str, number: int) -> None:
        from napari.layers import Layer as Base

        data, options, kind = spec.as_layer_data()
        options |= {"name": f"{spec.name} (review)", "opacity": 1.0, "visible": True}
        picture = Base.create(data, options, kind)
        common = placement_um("cd34")
        mark = Base.create(
            np.zeros((0, 2, 2)),
            {
                "name": f"Selected tile {number + 1}",
                "edge_color": palette.NUCLEUS,
                "edge_width": self.workspace.tile_data.stride_um / 6,
                "vector_style": "line",
                **common,
            },
            "vectors",
        )
        heading = Base.create(
            self.workspace.tile_data.top_um(),
            {
                "name": f"Heading {number + 1}",
                "size": 0.001,
                "face_color": "transparent",
                "border_color": "transparent",
                "text": {"string": [title], "color": "white", "size": 9},
                **common,
            },
            "points",
        )
        for layer in (picture, heading):
            layer.metadata[BASE] = True
        for layer in (picture, mark, heading):
            self.viewer.add_layer(layer)
            self._cells.append(layer)
        self._marks.append(mark)

    def _mark(self, *_: Any) -> None:
        tile_data, tile = self.workspace.tile_data, self.workspace.tile
        if not self.is_on or tile_data.grid is None or not 0 <= tile < tile_data.n_tiles:
            return
        lines = square_lines(tile_data.grid.centres_um[tile], tile_data.stride_um)
        for mark in self._marks:
            mark.data = lines
