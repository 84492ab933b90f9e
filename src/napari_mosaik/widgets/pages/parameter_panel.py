"""Parameter definitions and their correlation with the uptake over the cases of a cohort."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtWidgets import QComboBox, QSizePolicy, QWidget

from napari_mosaik.core import Table
from napari_mosaik.view.formatting import heading, number
from napari_mosaik.view.spatial_plots import correlation_notes, correlation_summary
from napari_mosaik.widgets.base.controls import (
    Collapsible,
    button,
    column,
    fill_table,
    row,
    shrinkable,
    table_of,
    wrapped_label,
)
from napari_mosaik.widgets.base.figure_view import FigureImage
from napari_mosaik.widgets.base.figure_window import FigureWindow
from napari_mosaik.workflow.correlations import (
    CohortCorrelations,
    cohort_correlations,
    parameter_descriptions,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from napari_mosaik.widgets.base.case_controller import CaseController

__all__ = ["ParameterPanel"]

_KINDS = (
    "Pearson, all cases",
    "Spearman, all cases",
    "Mean Pearson and Spearman",
    "One parameter against uptake",
)
_COLUMNS = ("Parameter", "r", "ESS", "p (Dutilleul)", "ρ", "p (MSR)", "p naive")
_TIPS = (
    "",
    "Pearson correlation with the measured uptake",
    "Effective sample size: number of independent tiles with the same information",
    "Two-sided p-value of Dutilleul's modified t-test",
    "Spearman correlation with the measured uptake",
    "Two-sided p-value by Moran spectral randomisation",
    "Assumes independent tiles: too small for autocorrelated maps; do not use",
)
_PLOT_PX = 300
_NAME_PX = 120
"""Width of the names, which leaves room for r and its p-value in the dock."""


class ParameterPanel(QWidget):
    """Parameter definitions, correlation heat map, scatter plot, p-values and proxy selection."""

    def __init__(self, controller: CaseController) -> None:
        super().__init__()
        self._controller = controller
        self._task: object = None
        self.correlations: CohortCorrelations | None = None
        self.kind = QComboBox()
        self.kind.addItems(list(_KINDS))
        shrinkable(self.kind)
        self.kind.currentIndexChanged.connect(self._plot)
        self.parameter = QComboBox()
        shrinkable(self.parameter)
        self.parameter.currentIndexChanged.connect(self._plot)
        self.plot = FigureImage(controller.read, self._clicked)
        self.figure_window = FigureWindow(self)
        self.open = button(
            "Open in window…", self._open_window, "Show this figure in its own window"
        )
        self.open.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.table = table_of(_COLUMNS, _TIPS, fixed_px=_NAME_PX)
        self.table.itemClicked.connect(lambda item: self._choose(item.row()))
        self.message = wrapped_label(small=True)
        self.parameter_descriptions = table_of(("Parameter", "Unit"), ("", ""))
        self.meaning = wrapped_label(small=True)
        self.parameter_descriptions.itemClicked.connect(lambda item: self._explain(item.row()))
        inner = QWidget()
        inner.setLayout(column(self.parameter_descriptions, self.meaning, spacing=3))
        self.fold = Collapsible("Parameter definitions", inner)
        self.setLayout(
            column(
                self.fold,
                wrapped_label("Correlation with uptake", bold=True),
                row(self.kind, self.open),
                self.parameter,
                self.plot,
                self.message,
                self.table,
                spacing=5,
            )
        )
        events = controller.workspace.events
        events.tile_data.connect(self.read)
        events.tile.connect(self._follow)
        self.read()

    # --- reading --------------------------------------------------------------------------------
    def read(self, *_: object) -> None:
        """Read the correlations of all cases of the cohort in the background."""
        self._fill_descriptions()
        case = self._controller.workspace.case
        if case is None:
            self._show(None)
            return
        if self._controller.workspace.tile_data.blind:
            self._task = None
            self.figure_window.close()
            self._show(None)
            return
        roots = self._controller.workspace.cohort or (case.root,)
        task = self._controller.read(
            "Correlations",
            lambda: cohort_correlations(roots),
            lambda correlations: self._arrived(task, correlations),
        )
        self._task = task

    def _arrived(self, task: object, correlations: CohortCorrelations) -> None:
        if task is self._task:
            self._show(correlations)

    def _show(self, correlations: CohortCorrelations | None) -> None:
        usable = correlations is not None and bool(correlations.tables)
        self.correlations = correlations if usable else None
        names = () if self.correlations is None else self.correlations.parameters
        chosen = self.parameter.currentData()
        self.parameter.blockSignals(True)
        self.parameter.clear()
        for name in names:
            self.parameter.addItem(heading(name), name)
        self.parameter.setCurrentIndex(max(0, self.parameter.findData(chosen)))
        self.parameter.blockSignals(False)
        for widget in (self.kind, self.open, self.plot, self.table):
            widget.setVisible(self.correlations is not None)
        self._fill_table()
        self._show_message()
        self._size()
        self.plot.show_when_seen(self._drawing())

    # --- text -----------------------------------------------------------------------------------
    def _fill_descriptions(self) -> None:
        table = self._controller.workspace.tile_data.parameters
        self._descriptions = parameter_descriptions(table)
        self.fold.setVisible(bool(self._descriptions))
        fill_table(
            self.parameter_descriptions,
            [(m.title, "" if m.unit == "1" else m.unit) for m in self._descriptions],
        )
        self.parameter_descriptions.setFixedHeight(min(190, 26 + 21 * len(self._descriptions)))
        self.meaning.setText("Click a parameter for its definition and formula.")

    def _explain(self, index: int) -> None:
        chosen = self._descriptions[index]
        unit = "dimensionless" if chosen.unit == "1" else f"in {chosen.unit}"
        self.meaning.setText(
            f"{chosen.title} ({chosen.name}, {unit}). {chosen.meaning}\nFormula: {chosen.formula}"
        )

    def _own(self) -> Table | None:
        case = self._controller.workspace.case
        if self.correlations is None or case is None:
            return None
        return self.correlations.of(case)

    def _fill_table(self) -> None:
        table = self._own()
        self.table.setVisible(table is not None)
        if table is None:
            return
        keys = (
            "pearson", "ess_pearson", "p_dutilleul_pearson", "spearman", "p_msr_pearson",
            "p_naive_pearson",
        )  # fmt: skip
        rows = [
            (heading(str(name)), *(number(float(table[key][i]), digits=2) for key in keys))
            for i, name in enumerate(table["parameter"])
        ]
        fill_table(self.table, rows, grey=len(keys))
        self.table.setFixedHeight(min(230, 28 + 21 * len(rows)))

    def _show_message(self) -> None:
        lines = correlation_notes(self.correlations, self._own())
        if self._controller.workspace.tile_data.blind:
            lines = ["The measured uptake is hidden until the review queue is finished."]
        self.message.setText("\n".join(lines))

    # --- the figure -----------------------------------------------------------------------------
    def _drawing(self, large: bool = False) -> Callable[[], Figure | None]:
        """What draws the chosen figure, on any thread: it holds all that it needs."""
        from napari_mosaik.view.spatial_plots import correlation_figure, mean_correlation_figure

        cohort, kind = self.correlations, self.kind.currentIndex()
        if cohort is None:
            return lambda: None
        if kind == 3:
            return self._scatter()
        if kind == 2:
            return lambda: mean_correlation_figure(
                cohort.parameters,
                cohort.mean("pearson"),
                cohort.mean("spearman"),
                narrow=not large,
            )
        name = ("pearson", "spearman")[kind]
        return lambda: correlation_figure(
            cohort.matrix(name),
            cohort.parameters,
            list(cohort.tables),
            f"{heading(name)} correlation",
            narrow=not large,
        )

    def _scatter(self) -> Callable[[], Figure | None]:
        from napari_mosaik.view.spatial_plots import parameter_uptake_figure

        tile_data, name = self._controller.workspace.tile_data, self.parameter.currentData()
        measured, table = tile_data.measured(), tile_data.parameters
        if measured is None or table is None or name not in tuple(table):
            return lambda: None
        tile = self._controller.workspace.tile
        return partial(
            parameter_uptake_figure,
            np.asarray(table[name], float),
            measured,
            name=name,
            unit=table.unit(name),
            uptake_unit=tile_data.unit,
            title=correlation_summary(self._own(), name),
            selected=tile if tile >= 0 else None,
        )

    def _plot(self, *_: object) -> None:
        self._size()
        self.plot.show_when_seen(self._drawing())

    def _size(self) -> None:
        one = self.kind.currentIndex() == 3
        self.parameter.setVisible(one and self.correlations is not None)
        n = 0 if self.correlations is None else len(self.correlations.parameters)
        self.plot.setMinimumHeight(_PLOT_PX if one else max(_PLOT_PX, 90 + 17 * n))

    def _follow(self, *_: object) -> None:
        if self.kind.currentIndex() == 3:
            self._plot()

    def _open_window(self) -> None:
        figure = self._drawing(large=True)()
        if figure is not None:
            self.figure_window.show_figure(figure, self.kind.currentText())

    def _choose(self, index: int) -> None:
        table = self._own()
        if table is None:
            return
        self.parameter.setCurrentIndex(self.parameter.findData(str(table["parameter"][index])))
        self.kind.setCurrentIndex(3)

    def _clicked(self, x: float, y: float) -> None:
        tile_data, name = self._controller.workspace.tile_data, self.parameter.currentData()
        measured = tile_data.measured()
        if self.kind.currentIndex() != 3 or measured is None or tile_data.parameters is None:
            return
        tile = nearest_point(np.asarray(tile_data.parameters[name], float), measured, x, y)
        if tile >= 0:
            self._controller.workspace.tile = tile


def nearest_point(across: NDArray[np.float64], up: NDArray[np.float64], x: float, y: float) -> int:
    """Index of the point nearest to (x, y), axes scaled by their range; -1 without points."""
    known = np.isfinite(across) & np.isfinite(up)
    if not known.any():
        return -1
    wide = max(float(np.ptp(across[known])), 1e-12)
    high = max(float(np.ptp(up[known])), 1e-12)
    gap = ((across - x) / wide) ** 2 + ((up - y) / high) ** 2
    return int(np.nanargmin(np.where(known, gap, np.nan)))
