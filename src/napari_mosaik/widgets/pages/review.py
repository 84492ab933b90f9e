"""Review page: predicted against measured uptake, errors beside those of baselines, all tiles."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QListWidget,
    QListWidgetItem,
    QTableWidget,
    QWidget,
)

from napari_mosaik.core.catalogue import METRICS
from napari_mosaik.view.formatting import number
from napari_mosaik.view.maps import DIFFERENCE_TITLE
from napari_mosaik.view.report.content import write_case_report
from napari_mosaik.view.tile_data import badge_of, metric_rows, nearest_tile, summary_of
from napari_mosaik.widgets.base.controls import (
    button,
    clear,
    column,
    fill_table,
    row,
    table_of,
    wrapped_label,
)
from napari_mosaik.widgets.base.figure_view import FigureView
from napari_mosaik.widgets.canvas.legend import legend_widget
from napari_mosaik.widgets.canvas.side_by_side import SideBySide
from napari_mosaik.workflow.steps import maker_of

if TYPE_CHECKING:
    from napari_mosaik.view.tile_data import TileData
    from napari_mosaik.widgets.base.case_controller import CaseController

__all__ = ["ReportButton", "ReviewPanel"]

_SCALES = ("Measured and predicted, on one scale", DIFFERENCE_TITLE)
WORST = 12
_KINDS = ("Predicted against measured", "Difference against mean")


class ReviewPanel(QWidget):
    """Test status, errors, plot and worst tiles; tile, point and row share one selection."""

    def __init__(self, controller: CaseController, layout: SideBySide) -> None:
        super().__init__()
        self._controller = controller
        self.side_by_side = layout
        self.badge = wrapped_label(bold=True)
        self.toggle = button("Show maps side by side", layout.toggle)
        self.toggle.setToolTip("Measured, predicted and difference maps with linked cameras")
        self.report = ReportButton(controller, self.toggle)
        self.summary = wrapped_label(small=True)
        self.table = _table()
        self.kind = QComboBox()
        self.kind.addItems(list(_KINDS))
        self.kind.currentIndexChanged.connect(self._plot)
        self.plot = FigureView(self._clicked)
        self.plot.setMinimumHeight(270)
        self.worst = QListWidget()
        self.worst.setMaximumHeight(130)
        self.worst.itemClicked.connect(lambda item: self._choose(int(item.data(256))))
        self.change = wrapped_label()
        self._legends = QWidget()
        self._legend_rows = column(spacing=2)
        self._legends.setLayout(self._legend_rows)
        self.setLayout(
            column(
                self.badge,
                self.report,
                self._legends,
                self.change,
                self.table,
                self.summary,
                self.kind,
                self.plot,
                wrapped_label("Largest errors; click to select the tile", small=True),
                self.worst,
                1,
                margin=4,
                spacing=6,
            )
        )
        layout.changed.connect(self._layout_changed)
        events = controller.workspace.events
        events.tile_data.connect(self._show)
        events.states.connect(self._show)
        events.tile.connect(self._plot)
        events.change.connect(self._show_change)
        self._show()
        self._show_change()

    # --- showing --------------------------------------------------------------------------------
    def _layout_changed(self, shown: bool) -> None:
        self.toggle.setText("Back to layers" if shown else "Show maps side by side")
        clear(self._legend_rows)
        specs = self.side_by_side.specs() if shown else []
        for title, spec in zip(_SCALES, specs[1:], strict=False):
            if spec.legend is not None:
                self._legend_rows.addWidget(wrapped_label(title, small=True))
                self._legend_rows.addWidget(legend_widget(spec.legend))

    def _show_change(self, *_: object) -> None:
        change = self._controller.workspace.change
        self.change.setVisible(change is not None)
        self.change.setText("" if change is None else "\n".join(change.lines))

    def _show(self, *_: object) -> None:
        tile_data = self._controller.workspace.tile_data
        ready = tile_data.measured() is not None and tile_data.predicted() is not None
        self.toggle.setEnabled(ready)
        state = self._controller.workspace.states.get(maker_of(METRICS).name)
        stale = state is not None and state.word == "stale"
        prefix = "↻ Stale: computed before the last change\n" if stale else ""
        self.badge.setText(prefix + badge_of(tile_data))
        rows = metric_rows(tile_data.metrics or {})
        self.table.setVisible(bool(rows))
        fill_table(self.table, rows)
        self.table.setFixedHeight(24 + 22 * max(1, len(rows)))
        self.summary.setText(summary_of(tile_data))
        self._fill_worst(tile_data)
        self._plot()

    def _plot(self, *_: object) -> None:
        tile_data, tile = self._controller.workspace.tile_data, self._controller.workspace.tile
        measured, predicted = tile_data.measured(), tile_data.predicted()
        if measured is None or predicted is None:
            self.plot.show_figure(None)
            return
        from napari_mosaik.view.plots import bland_altman_figure, scatter_figure

        draw = scatter_figure if self.kind.currentIndex() == 0 else bland_altman_figure
        chosen = tile if 0 <= tile < len(measured) else None
        self.plot.show_figure(draw(measured, predicted, tile_data.unit, selected=chosen))

    def _fill_worst(self, tile_data: TileData) -> None:
        self.worst.clear()
        measured, predicted = tile_data.measured(), tile_data.predicted()
        if measured is None or predicted is None:
            return
        error = predicted - measured
        order = np.argsort(-np.abs(np.nan_to_num(error)))[:WORST]
        for tile in (int(i) for i in order if np.isfinite(error[i])):
            side = "overestimated" if error[tile] > 0 else "underestimated"
            text = f"Tile {tile} · {side} by {number(abs(error[tile]), tile_data.unit)}"
            item = QListWidgetItem(text)
            item.setData(256, tile)
            self.worst.addItem(item)

    # --- actions --------------------------------------------------------------------------------
    def _choose(self, tile: int) -> None:
        self._controller.workspace.tile = tile

    def _clicked(self, x: float, y: float) -> None:
        tile = nearest_tile(
            self._controller.workspace.tile_data, x, y, means=self.kind.currentIndex() == 1
        )
        if tile >= 0:
            self._choose(tile)


class ReportButton(QWidget):
    """Writes the report of the open case, opens it, and says where it is.

    *before* are buttons on the same row.
    """

    def __init__(self, controller: CaseController, *before: QWidget) -> None:
        super().__init__()
        self._controller = controller
        self.push = button(
            "Write report", self._write, "HTML report with figures, maps and all assumptions"
        )
        self.line = wrapped_label(small=True)
        self.setLayout(column(row(*before, self.push, 1), self.line, spacing=2))
        controller.workspace.events.case.connect(self._show_case)
        self._show_case()

    def _show_case(self, *_: object) -> None:
        self.push.setEnabled(self._controller.workspace.case is not None)
        self._say("")

    def _say(self, text: str) -> None:
        self.line.setText(text)
        self.line.setVisible(bool(text))

    def _write(self) -> None:
        case = self._controller.workspace.case
        if case is not None:
            self._say("Writing the report…")
            self._controller.read_for(
                case, "Report", partial(write_case_report, case), self._written
            )

    def _written(self, path: Path) -> None:
        seen = _open_report(path)
        self._say(f"Report: {path}" if seen else f"⚠ No browser opened the report {path}")


def _table() -> QTableWidget:
    tips = (
        "",
        "Mean absolute error",
        "Mean squared error",
        "Coefficient of determination",
        "MAE minus that of the network, with its 95 % interval by blocks of tiles: above 0 the "
        "network is better",
    )
    table = table_of(("Method", "MAE", "MSE", "R²", "MAE − network"), tips, wide=0)
    table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
    table.setToolTip("Errors of the normalised SUV over all tiles, not clipped")
    return table


def _open_report(path: Path) -> bool:
    return bool(QDesktopServices.openUrl(QUrl.fromLocalFile(str(path))))
