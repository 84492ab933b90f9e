"""Measured and predicted uptake and their difference side by side, with linked cameras."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer

from napari_mosaik.core import palette
from napari_mosaik.view.maps import difference_layer, uptake_layers
from napari_mosaik.view.spec import LayerSpec, placement_um
from napari_mosaik.widgets.base.figure_view import theme_colours
from napari_mosaik.widgets.base.gc_tuning import fast_removal, in_one_update
from napari_mosaik.widgets.canvas.camera import fit
from napari_mosaik.widgets.canvas.layout import Layout
from napari_mosaik.widgets.canvas.layout_state import BASE, LayoutState, put_in_order, show_grid
from napari_mosaik.widgets.canvas.link import square_lines
from napari_mosaik.widgets.canvas.list_rows import keep_out_of_list

if TYPE_CHECKING:
    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["PER_CELL", "ModelMaps", "SideBySide"]

PER_CELL = 3
"""Layers of one view: map, outline of the selected tile, heading."""


class SideBySide(Layout):
    """Shows the three maps of the review.

    Each view has layers of its own at the bottom of the list; all others are hidden meanwhile.
    """

    headings: tuple[str, ...] = ("measured", "predicted", "predicted − measured")

    def __init__(self, link: CanvasLink) -> None:
        super().__init__(link)
        self.workspace = link.workspace
        self._cells: list[Layer] = []
        self._marks: list[Layer] = []
        self.workspace.events.tile.connect(self._mark)
        self.workspace.events.tile_data.connect(self._rebuild)
        self.viewer.events.theme.connect(self._rebuild)
        self.board.scaled.connect(self._rescale)

    def specs(self) -> list[LayerSpec]:
        """The three maps, on the scale of the uptake; empty when there is nothing to compare."""
        tile_data = self.workspace.tile_data
        measured, predicted, grid = tile_data.measured(), tile_data.predicted(), tile_data.grid
        if measured is None or predicted is None or grid is None:
            return []
        maps = [grid.paint(values, tile_data.unit) for values in (measured, predicted)]
        scaled = uptake_layers(maps[0], maps[1], limits=self.board.uptake_limits)
        return [*scaled, difference_layer(maps[0], maps[1])]

    def is_possible(self) -> bool:
        """Whether there is a prediction and a measurement to compare."""
        return bool(self.specs())

    def arrange(self, before: LayoutState) -> None:
        """Hide the layers and show the maps in a row."""
        specs = self.specs()
        with in_one_update(self.viewer):
            for layer in before.order:
                layer.visible = False
            for number, spec in enumerate(specs):
                self._add_cell(spec, self.headings[number], number)
            put_in_order(self.viewer, self._cells)
            maps = self._cells[::PER_CELL]
            keep_out_of_list(self.viewer, [one for one in self._cells if one not in maps])
            show_grid(self.viewer, PER_CELL, (1, len(specs)))
        self.link.marked_elsewhere = True
        self._mark()
        self._frame()
        self.viewer.layers.selection.clear()

    def restore(self, before: LayoutState) -> None:
        """Remove the maps and show the layers again."""
        self.link.marked_elsewhere = False
        with fast_removal(self.viewer):
            before.restore_grid(self.viewer)
            for layer in self._cells:
                if layer in self.viewer.layers:
                    self.viewer.layers.remove(layer)
            before.restore_layers(self.viewer)
        self._cells, self._marks = [], []
        before.restore_camera(self.viewer)

    def _frame(self) -> None:
        """Fit the tiles into their views, with room for the headings."""
        grid = self.workspace.tile_data.grid
        if grid is None or not len(grid):
            return
        low, high = grid.centres_um.min(axis=0), grid.centres_um.max(axis=0)
        margin = 1.5 * grid.stride_um
        fit(self.viewer, low - margin, high + margin)

    def _rebuild(self, *_: Any) -> None:
        """Show new results."""
        if self.is_on:
            self.leave()
            self.enter()

    def _rescale(self) -> None:
        """Follow the scale that the reader chose."""
        if self.is_on:
            for layer, spec in zip(self._cells[::PER_CELL], self.specs(), strict=True):
                layer.contrast_limits = spec.style["contrast_limits"]

    def _add_cell(self, spec: LayerSpec, title: str, number: int) -> None:
        data, options, kind = spec.as_layer_data()
        options |= {"name": f"{spec.name} (review)", "opacity": 1.0, "visible": True}
        picture = Layer.create(data, options, kind)
        common = placement_um("cd34")
        mark = Layer.create(
            np.zeros((0, 2, 2)),
            {
                "name": f"Selected tile {number + 1}",
                "edge_color": palette.LANDMARK,
                "edge_width": self.workspace.tile_data.stride_um / 6,
                "vector_style": "line",
                **common,
            },
            "vectors",
        )
        heading = Layer.create(
            self.workspace.tile_data.top_um(),
            {
                "name": f"Heading {number + 1}",
                "size": 0.001,
                "face_color": "transparent",
                "border_color": "transparent",
                "text": {"string": [title], "color": theme_colours()[0], "size": 9},
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


class ModelMaps(SideBySide):
    """Shows what two models say about the open case, and where they differ."""

    def __init__(self, link: CanvasLink) -> None:
        super().__init__(link)
        self._specs: list[LayerSpec] = []

    def show(self, specs: list[LayerSpec], headings: tuple[str, ...]) -> None:
        """Show these maps in place of any others."""
        self.leave()
        self._specs, self.headings = specs, headings
        self.enter()

    def specs(self) -> list[LayerSpec]:
        """The maps of the last comparison."""
        return self._specs

    def _rescale(self) -> None:
        """The maps keep the scale of the comparison."""

    def _case_changed(self, *_: Any) -> None:
        self._specs = []
        super()._case_changed()
