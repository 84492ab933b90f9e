"""A matplotlib figure inside the window, in the window's colours."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from matplotlib.backend_bases import MouseEvent
from qtpy.QtCore import QTimer
from qtpy.QtGui import QPaintEvent
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_mosaik.view.figure import paint

if TYPE_CHECKING:
    from matplotlib.backend_bases import Event
    from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
    from matplotlib.figure import Figure

__all__ = ["FigureView", "theme_colours"]


class FigureView(QWidget):
    """Shows one figure; calls *clicked* with the data coordinates of a mouse click."""

    def __init__(self, clicked: Callable[[float, float], None] | None = None) -> None:
        super().__init__()
        self._clicked = clicked
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self.canvas: FigureCanvasQTAgg | None = None
        self._draw: Callable[[], Figure | None] | None = None
        self._soon = QTimer(self)  # ends with this view
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._make)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(160, 140)

    def show_figure(self, figure: Figure | None) -> None:
        """Replace the figure; None leaves the view empty."""
        self._draw = None
        if self.canvas is not None:
            self._layout.removeWidget(self.canvas)
            self.canvas.setParent(None)
            self.canvas.deleteLater()
            self.canvas = None
        if figure is None:
            return
        from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg

        paint(figure, *theme_colours())
        self.canvas = FigureCanvasQTAgg(figure)  # type: ignore[no-untyped-call]
        self.canvas.setMinimumSize(120, 100)
        self.canvas.mpl_connect("button_press_event", self._press)
        self._layout.addWidget(self.canvas)

    def show_when_seen(self, draw: Callable[[], Figure | None]) -> None:
        """Show the figure that *draw* makes once this view is on the screen: it may never be."""
        self.show_figure(None)
        self._draw = draw
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Make the figure that was put off."""
        super().paintEvent(event)
        if self._draw is not None:
            self._soon.start(0)

    def _make(self) -> None:
        if self._draw is not None:
            self.show_figure(self._draw())

    def _press(self, event: Event) -> None:
        assert isinstance(event, MouseEvent)
        if self._clicked is not None and event.xdata is not None and event.ydata is not None:
            self._clicked(float(event.xdata), float(event.ydata))


def theme_colours() -> tuple[str, str]:
    """Text and background colour of the current napari theme."""
    from napari.settings import get_settings
    from napari.utils.theme import get_theme

    theme = get_theme(get_settings().appearance.theme)
    return theme.text.as_hex(), theme.background.as_hex()
