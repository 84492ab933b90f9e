"""The Moran scatter plot on the page of clusters; point, tile and map are one selection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QComboBox, QSizePolicy, QWidget

from napari_mosaik.core.errors import MosaikError
from napari_mosaik.view.formatting import count, heading, number
from napari_mosaik.widgets.base.controls import button, column, row, shrinkable, wrapped_label
from napari_mosaik.widgets.base.figure_view import FigureView
from napari_mosaik.widgets.base.figure_window import FigureWindow
from napari_mosaik.widgets.pages.parameter_panel import nearest_point
from napari_mosaik.workflow.correlations import MEASURED, MoranPoints, moran_points

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from napari_mosaik.io.case import Case
    from napari_mosaik.widgets.base.case_controller import CaseController

__all__ = ["ClusterPanel"]


class ClusterPanel(QWidget):
    """Choose a parameter; click a point to go to its tile."""

    def __init__(self, controller: CaseController) -> None:
        super().__init__()
        self._controller = controller
        self._task: object = None
        self.points: MoranPoints | None = None
        self.parameter = QComboBox()
        shrinkable(self.parameter)
        self.parameter.currentIndexChanged.connect(self._read_one)
        self.plot = FigureView(self._clicked)
        self.plot.setMinimumHeight(310)
        self.larger = FigureWindow(self)
        self.open = button("Larger…", self._open_larger, "The same figure in a window of its own")
        self.open.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.said = wrapped_label(small=True)
        self.setLayout(
            column(
                wrapped_label("Moran scatter plot", bold=True),
                row(self.parameter, self.open),
                self.plot,
                self.said,
                spacing=5,
            )
        )
        events = controller.workspace.events
        events.facts.connect(self.read)
        events.tile.connect(self._plot)
        self.read()

    def read(self, *_: Any) -> None:
        """Offer what has labels in the open case."""
        facts = self._controller.workspace.facts
        names = [MEASURED] if facts.uptake_clusters is not None else []
        columns = tuple(facts.clusters or ())
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

    def _read_one(self, *_: Any) -> None:
        case, name = self._controller.workspace.case, self.parameter.currentData()
        if case is None or name is None:
            self._show("Run this page to see hot and cold tiles.")
            return
        task = self._controller.read(
            "Clusters", lambda: _points(case, name), lambda found: self._arrived(task, found)
        )
        self._task = task

    def _arrived(self, task: object, found: MoranPoints | str) -> None:
        if task is self._task:
            self._show(found)

    def _show(self, found: MoranPoints | str) -> None:
        self.points = None if isinstance(found, str) else found
        self.said.setText(found if isinstance(found, str) else "\n".join(sentences(found)))
        self._plot()

    def _figure(self) -> Figure | None:
        from napari_mosaik.view.spatial_plots import moran_figure

        found, tile = self.points, self._controller.workspace.tile
        if found is None:
            return None
        name = "measured uptake" if found.name == MEASURED else found.name
        chosen = tile if tile >= 0 else None
        return moran_figure(
            found.z, found.lag, found.label, found.global_i, name=name, selected=chosen
        )

    def _plot(self, *_: Any) -> None:
        self.plot.show_figure(self._figure())

    def _open_larger(self) -> None:
        figure = self._figure()
        if figure is not None:
            self.larger.show_figure(figure, "Moran scatter plot")

    def _clicked(self, x: float, y: float) -> None:
        if self.points is None:
            return
        tile = nearest_point(self.points.z, self.points.lag, x, y)
        if tile >= 0:
            self._controller.workspace.tile = tile


def _points(case: Case, name: str) -> MoranPoints | str:
    """The points of a parameter, or why there are none."""
    try:
        return moran_points(case, name)
    except MosaikError as error:
        return str(error)


def sentences(found: MoranPoints) -> list[str]:
    """What the labels rest on, in words."""
    facts = found.facts
    lines = ["Click a point to go to its tile. Hot and cold test randomness, not biology."]
    if "n_tested" in facts:
        parts = [f"{count(facts['n_tested'], 'tile')} tested, {facts['n_labelled']} labelled"]
        parts.append(f"{facts['n_border']} at a border or gap")
        parts.append(f"{count(facts['n_islands'], 'island')}, {facts['n_missing']} without a value")
        lines.append("; ".join(parts))
        engine = "this program" if facts["engine"] == "mosaik" else facts["engine"]
        lines.append(
            f"p-values by {engine} {facts['version']}; labelled up to p = {number(facts['cut'])}"
        )
    if found.note:
        lines.append(f"⚠ {found.note}")
    return lines
