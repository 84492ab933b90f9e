"""Tab Review, fold What if: another tissue class for some tiles, and what the predictor would say.

selected tile, more tiles, a drawn region ─┐
what was drawn and not run yet ────────────┴─► job ─► layer, table, three maps side by side
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QAbstractItemView, QCheckBox, QComboBox, QLabel, QWidget

from napari_mosaik.core import palette
from napari_mosaik.core.progress import map_progress
from napari_mosaik.view.formatting import count, number, unit_words
from napari_mosaik.view.maps import common_limits, scalar_layer
from napari_mosaik.view.spec import LayerSpec
from napari_mosaik.widgets.base.controls import (
    button,
    column,
    fill_table,
    row,
    shrinkable,
    table_of,
    wrapped_label,
)
from napari_mosaik.widgets.base.reader import with_reader
from napari_mosaik.widgets.canvas.active_tool import ToolMode
from napari_mosaik.widgets.canvas.path_tool import PathTool
from napari_mosaik.widgets.canvas.side_by_side import ModelMaps
from napari_mosaik.workflow.what_if import WhatIf, classes_to_assume, tile_shapes, what_if

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case
    from napari_mosaik.widgets.base.worker import Steps
    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["WHAT_IF", "WhatIfPanel", "WhatIfTool"]

WHAT_IF = "What if"
"""Name of the layer that shows the difference."""
_SHOWN = 40
"""So many tiles are listed, those that would change most first."""


class WhatIfTool(PathTool):
    """A region whose tiles get another class."""

    name = "what if"
    modes = {  # noqa: RUF012
        "region": ToolMode("Draw a region", "Drag around the tiles that get the class."),
    }

    def actions(self) -> Mapping[str, Callable[[], Any]]:
        """Escape ends it."""
        return {"end": self.release}


class WhatIfPanel(QWidget):
    """Chooses tiles and a class, and shows what the prediction would be; nothing is stored.

    ``to_correct`` carries the assumed areas, which become annotations of the reader, and a title.
    """

    to_correct = Signal(tuple, str)

    def __init__(self, link: CanvasLink) -> None:
        super().__init__()
        self._link, self._board, self._controller = link, link.board, link.board.controller
        self.tool = link.tool(WhatIfTool)
        self.maps = ModelMaps(link)
        self.tiles: list[int] = []
        self.found: WhatIf | None = None
        self.label = shrinkable(QComboBox())
        self.label.setToolTip("The class that the tissue of these tiles is assumed to have")
        self.more = button("Add tile", self._add, "Adds the selected tile")
        self.draw = button("Draw a region", self.tool.toggle, "All tiles with their centre in it")
        self.forget = button("Clear", self._forget, "Assume nothing for these tiles")
        self.which = wrapped_label(small=True)
        self.drawn = QCheckBox("Include what was drawn and not run yet")
        self.drawn.setToolTip("Annotations on H&E, and corrections of vessels and nuclei")
        self.drawn.toggled.connect(self._show)
        self.push = button("Show what if", self.compute, "In the background; nothing is stored")
        self.discard = button("Discard", self._discard, "Removes layer and table")
        self.side = button("Before and after", self.maps.toggle)
        self.side.setToolTip("Three linked maps: before, after and their difference")
        self.correct = button("Make it a correction", self._correct)
        self.correct.setToolTip(
            "Adds these areas to your annotations, where they can be undone; retrain and update "
            "to make them results"
        )
        self.line = wrapped_label(bold=True)
        titles = ("Tile", "Before", "After", "Difference", "Width")
        tips = (
            "* its own parameters would change",
            "",
            "",
            "",
            "Of the 90 % interval: before → after",
        )
        self.table = table_of(titles, tips, wide=4)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setFixedHeight(150)
        self.table.itemSelectionChanged.connect(self._row_chosen)
        self._listed: list[int] = []
        self.held = wrapped_label(small=True)
        self.message = wrapped_label()
        self._after = QWidget()
        self._after.setLayout(
            column(
                self.line, self.table, self.held, row(self.side, self.discard, 1),
                row(self.correct, 1), 1, spacing=4,
            )
        )  # fmt: skip
        self.setLayout(
            column(
                wrapped_label(
                    "What would the predictor say if the tissue had another class? Nothing is "
                    "stored.",
                    small=True,
                ),
                row(QLabel("Class"), self.label),
                row(self.more, self.draw, self.forget, 1),
                self.which,
                self.drawn,
                row(self.push, 1),
                self._after,
                self.message,
                1,
                spacing=4,
            )
        )
        self.tool.drawn.connect(self._region)
        self.tool.changed.connect(self._show)
        self.maps.changed.connect(self._show)
        events = self._controller.workspace.events
        events.case.connect(self._case_changed)
        events.tile_data.connect(self._discard)
        for signal in (events.tile, events.job, events.states):
            signal.connect(self._show)
        self._case_changed()

    # --- choosing -------------------------------------------------------------------------------
    def _case_changed(self, *_: object) -> None:
        self.tiles = []
        self.message.setText("")
        self._discard()
        self._read_classes()

    def _read_classes(self) -> None:
        """Offer the classes of the class map."""
        case = self._controller.workspace.case
        if case is not None:
            work = partial(classes_to_assume, case)
            self._controller.read_for(case, WHAT_IF, work, self._offer)

    def _offer(self, names: tuple[str, ...]) -> None:
        before = self.label.currentText()
        self.label.clear()
        self.label.addItems(list(names))
        self.label.setCurrentIndex(max(0, self.label.findText(before or "neoplastic")))
        self._show()

    def _add(self) -> None:
        tile = self._controller.workspace.tile
        if tile >= 0 and tile not in self.tiles:
            self.tiles.append(tile)
        self._show()

    def _region(self, path: Any) -> None:
        """Add the tiles with their centre in a region, (n, 2) µm of the reference section."""
        import shapely

        grid = self._controller.workspace.tile_data.grid
        self.tool.release()
        if grid is None or len(path) < 3:
            return
        area = shapely.make_valid(shapely.Polygon(np.asarray(path)[:, ::-1]))
        inside = shapely.contains_xy(area, grid.centres_um[:, 1], grid.centres_um[:, 0])
        self.tiles += [t for t in np.flatnonzero(inside).tolist() if t not in self.tiles]
        self.message.setText("" if inside.any() else "No tile has its centre in that region.")
        self._show()

    def _forget(self) -> None:
        self.tiles = []
        self._show()

    def chosen(self) -> list[int]:
        """The tiles that get the class: those that were added, else the selected one."""
        tile = self._controller.workspace.tile
        if self.tiles or self.drawn.isChecked():
            return self.tiles
        return [tile] if tile >= 0 else []

    # --- computing ------------------------------------------------------------------------------
    def compute(self) -> None:
        """Compute the prediction under the assumption, as a job that can be cancelled."""
        case = self._controller.workspace.case
        if case is None:
            return
        self.message.setText("")
        steps = partial(
            _steps, case, self.chosen(), self.label.currentText(), self.drawn.isChecked()
        )
        job = self._controller.start(WHAT_IF, steps)
        if job is not None:
            job.done.connect(partial(self._computed, case))

    def _computed(self, case: Case, found: WhatIf) -> None:
        if case is not self._controller.workspace.case:
            return
        self._discard()
        self.found = found
        self._show_result(found)
        before, after, difference = _layers(found)
        if self._link.layout is None:
            self._board.put(difference, visible=True)
            self._board.changed.emit()
        unit = unit_words(found.unit)
        words = (
            f"{name}, {unit}" if unit else name for name in ("before", "what if", "difference")
        )
        self.maps.prepare([before, after, difference], tuple(words))
        if self._link.layout is not None:  # the review board is shown: these maps take its place
            self.maps.enter()
        self._show()

    def _show_result(self, found: WhatIf) -> None:
        difference, reached = found.difference, int(found.reached.sum())
        order = np.argsort(-np.abs(np.nan_to_num(difference)), kind="stable")
        changed = found.reached | found.edited
        self._listed = [int(tile) for tile in order if changed[tile]][:_SHOWN]
        unit = "" if found.unit == "1" else f" {found.unit}"
        if reached:
            largest = number(float(difference[self._listed[0]]))
            self.line.setText(
                f"{count(int(found.edited.sum()), 'tile')} edited, {reached} with another "
                f"prediction; the largest difference {largest}{unit} in tile {self._listed[0]}"
            )
        else:
            self.line.setText("No prediction would change.")
        fill_table(self.table, [_table_row(found, tile) for tile in self._listed])
        self.held.setText("\n".join(f"Held fixed: {text}." for text in found.held))

    def _row_chosen(self) -> None:
        rows = {index.row() for index in self.table.selectedIndexes()}
        if rows and self.found is not None:
            self._controller.workspace.tile = self._listed[rows.pop()]

    # --- afterwards -----------------------------------------------------------------------------
    def _discard(self, *_: object) -> None:
        """Take away what was shown."""
        self.maps.prepare([], ())
        self._board.take_away(WHAT_IF)
        self.found = None
        self._show()

    def _correct(self) -> None:
        """Add the assumed areas to the annotations of the reader."""
        with_reader(self._controller, self, self._corrected)

    def _corrected(self) -> None:
        found = self.found
        if found is None:
            return
        shapes = found.assumed
        self.to_correct.emit(shapes, f"what if: {', '.join(found.classes)}")
        self._discard()
        self.tiles = []
        self.message.setText(
            f"{count(len(shapes), 'area')} added to your annotations. Retrain in Annotate, then "
            "update, to make it a result; Undo in Annotate takes it back."
        )
        self._show()

    def _show(self, *_: object) -> None:
        space, tiles = self._controller.workspace, self.chosen()
        idle = space.case is not None and space.job is None
        predicted = space.tile_data.prediction is not None
        self.more.setEnabled(space.tile >= 0)
        self.forget.setEnabled(bool(self.tiles))
        self.draw.setEnabled(space.tile_data.grid is not None)
        self.draw.setText("Stop drawing" if self.tool.is_active else "Draw a region")
        self.push.setEnabled(idle and predicted and bool(tiles or self.drawn.isChecked()))
        words = ", ".join(map(str, tiles[:12])) + (", …" if len(tiles) > 12 else "")
        given = "Tile " if len(tiles) == 1 else f"{len(tiles)} tiles: "
        if not predicted:
            self.which.setText("There is no prediction yet.")
        elif tiles:
            self.which.setText(f"{given}{words}")
        else:
            self.which.setText("" if self.drawn.isChecked() else "Select a tile on the picture.")
        self._after.setVisible(self.found is not None)
        self.correct.setEnabled(idle and self.found is not None and bool(self.found.assumed))
        self.side.setText("Back to layers" if self.maps.is_on else "Before and after")


def _steps(case: Case, tiles: list[int], label: str, drawn: bool) -> Steps:
    shapes = tile_shapes(case, tiles, label) if tiles else ()
    work = what_if(case, shapes, drawn=drawn)
    return (yield from map_progress(work, lambda progress: (WHAT_IF, progress)))


def _table_row(found: WhatIf, tile: int) -> tuple[str, ...]:
    widths = [number(float(one.width[tile])) for one in (found.before, found.after)]
    return (
        f"{tile} *" if found.edited[tile] else str(tile),
        number(float(found.before.suv[tile])),
        number(float(found.after.suv[tile])),
        number(float(found.difference[tile]), missing="–"),
        " → ".join(widths),
    )


def _layers(found: WhatIf) -> tuple[LayerSpec, LayerSpec, LayerSpec]:
    """Before and after on one scale, and the difference."""
    grid, unit = found.grid, found.unit
    limits = common_limits(found.before.suv, found.after.suv)
    reach = max(abs(limit) for limit in common_limits(found.difference)) or 1e-6

    def layer(name: str, values: Any, colormap: str, ends: tuple[float, float]) -> LayerSpec:
        note = "not stored: what the predictor would say, minus what it says"
        return scalar_layer(grid.paint(values, unit), name, colormap, ends, unit, None, note=note)

    return (
        layer("Predicted SUV before", found.before.suv, palette.UPTAKE_COLORMAP, limits),
        layer("Predicted SUV, what if", found.after.suv, palette.UPTAKE_COLORMAP, limits),
        layer(WHAT_IF, found.difference, palette.DIFFERENCE_COLORMAP, (-reach, reach)),
    )
