"""Moran scatter plot on the page *Clusters*; points, tiles and maps share one selection."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QComboBox, QSizePolicy, QWidget

from napari_mosaik.core.errors import MosaikError
from napari_mosaik.view.formatting import count, heading, number
from napari_mosaik.widgets.base.controls import button, column, row, shrinkable, wrapped_label
from napari_mosaik.widgets.base.figure_view import FigureImage
from napari_mosaik.widgets.base.figure_window import FigureWindow
from napari_mosaik.widgets.pages.parameter_panel import nearest_point
from napari_mosaik.workflow.correlations import MEASURED, MoranPoints, moran_points

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from napari_mosaik.io.case import Case
    from napari_mosaik.widgets.base.case_controller import CaseController

__all__ = ["ClusterPanel"]


class ClusterPanel(QWidget):
    """Moran scatter plot of one parameter; a click on a point selects its tile."""

    def __init__(self, controller: CaseController) -> None:
        super().__init__()
        self._controller = controller
        self._task: object = None
        self.points: MoranPoints | None = None
        self.parameter = QComboBox()
        shrinkable(self.parameter)
        self.parameter.currentIndexChanged.connect(self._read_one)
        self.plot = FigureImage(controller.read, self._clicked)
        self.plot.setMinimumHeight(310)
        self.figure_window = FigureWindow(self)
        self.open = button(
            "Open in window…", self._open_window, "Show this figure in its own window"
        )
        self.open.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.message = wrapped_label(small=True)
        self.setLayout(
            column(
                wrapped_label("Moran scatter plot", bold=True),
                row(self.parameter, self.open),
                self.plot,
                self.message,
                spacing=5,
            )
        )
        events = controller.workspace.events
        events.tile_data.connect(self.read)
        events.tile.connect(self._plot)
        self.read()

    def read(self, *_: object) -> None:
        """List the parameters of the open case that have cluster labels."""
        tile_data = self._controller.workspace.tile_data
        names = [MEASURED] if tile_data.uptake_clusters is not None else []
        self._task = None  # what is being read may be hidden now
        if tile_data.blind:
            self.figure_window.close()
        columns = tuple(tile_data.clusters or ())
        names += [name.removesuffix(".label") for name in columns if name.endswith(".label")]
        chosen = self.parameter.currentData()
        self.parameter.blockSignals(True)
        self.parameter.clear()
        for name in names:
            title = "measured uptake" if name == MEASURED else name
            self.parameter.addItem(heading(title), name)
        self.parameter.setCurrentIndex(max(0, self.parameter.findData(chosen)))
        self.parameter.blockSignals(False)
        for widget in (self.parameter, self.open, self.plot):
            widget.setVisible(bool(names))
        self._read_one()

    def _read_one(self, *_: object) -> None:
        case, name = self._controller.workspace.case, self.parameter.currentData()
        if case is None or name is None:
            self._show("Run this page to see hot spots and cold spots.")
            return
        task = self._controller.read(
            "Clusters", lambda: _points(case, name), lambda points: self._arrived(task, points)
        )
        self._task = task

    def _arrived(self, task: object, points: MoranPoints | str) -> None:
        if task is self._task:
            self._show(points)

    def _show(self, points: MoranPoints | str) -> None:
        self.points = None if isinstance(points, str) else points
        self.message.setText(
            points if isinstance(points, str) else "\n".join(cluster_lines(points))
        )
        self._plot()

    def _drawing(self) -> Callable[[], Figure | None]:
        """What draws the scatter plot, on any thread: it holds all that it needs."""
        from napari_mosaik.view.spatial_plots import moran_figure

        points, tile = self.points, self._controller.workspace.tile
        if points is None:
            return lambda: None
        name = "measured uptake" if points.name == MEASURED else points.name
        return partial(
            moran_figure,
            points.z,
            points.lag,
            points.label,
            points.global_i,
            name=name,
            selected=tile if tile >= 0 else None,
        )

    def _plot(self, *_: object) -> None:
        self.plot.show_when_seen(self._drawing())

    def _open_window(self) -> None:
        figure = self._drawing()()
        if figure is not None:
            self.figure_window.show_figure(figure, "Moran scatter plot")

    def _clicked(self, x: float, y: float) -> None:
        if self.points is None:
            return
        tile = nearest_point(self.points.z, self.points.lag, x, y)
        if tile >= 0:
            self._controller.workspace.tile = tile


def _points(case: Case, name: str) -> MoranPoints | str:
    """The points of a parameter, or a message if there are none."""
    try:
        return moran_points(case, name)
    except MosaikError as error:
        return str(error)


def cluster_lines(points: MoranPoints) -> list[str]:
    """Number of tiles tested, engine and significance level of the cluster labels, as text."""
    test = points.summary
    lines = [
        "Click a point to select its tile. Clusters are departures from spatial randomness, "
        "not biological entities."
    ]
    if "n_tested" in test:
        parts = [f"{count(test['n_tested'], 'tile')} tested, {test['n_labelled']} significant"]
        parts.append(f"{test['n_border']} at a border or gap")
        parts.append(
            f"{test['n_islands']} without a neighbour, {test['n_missing']} without a value"
        )
        lines.append("; ".join(parts))
        engine = "napari-mosaik" if test["engine"] == "mosaik" else test["engine"]
        lines.append(
            f"p-values by {engine} {test['version']}; significant if p ≤ {number(test['cut'])}"
        )
    if points.note:
        lines.append(f"⚠ {points.note}")
    return lines
