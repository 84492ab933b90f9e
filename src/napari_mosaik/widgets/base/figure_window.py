"""A figure in a window of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QDialog, QWidget

from napari_mosaik.widgets.base.controls import column
from napari_mosaik.widgets.base.figure_view import FigureView

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FigureWindow"]

_DPI = 100
_MIN_PX = 480


class FigureWindow:
    """Shows one figure in a window that belongs to *parent*."""

    def __init__(self, parent: QWidget) -> None:
        self._parent = parent
        self.window: QDialog | None = None
        self.view: FigureView | None = None

    def show_figure(self, figure: Figure, title: str) -> None:
        """Show a figure at least at its own size."""
        if self.window is None or self.view is None:
            self.window = QDialog(self._parent)
            self.view = FigureView()
            self.window.setLayout(column(self.view))
        width, height = figure.get_size_inches() * _DPI
        self.window.setWindowTitle(title)
        self.view.show_figure(figure)
        self.window.resize(max(_MIN_PX, int(1.3 * width)), max(_MIN_PX, int(1.2 * height)))
        self.window.show()
        self.window.raise_()

    def close(self) -> None:
        """Close the window, if it is there."""
        if self.window is not None:
            self.window.close()
