"""A matplotlib figure inside the window, in the window's colours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QImage, QMouseEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_mosaik.view.figure import fit_axis_labels, paint

if TYPE_CHECKING:
    from matplotlib.backend_bases import Event, MouseEvent
    from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
    from matplotlib.figure import Figure

__all__ = ["FigureImage", "FigureView", "theme_colours"]


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
        self.canvas.mpl_connect("resize_event", lambda _: fit_axis_labels(figure))
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
        x, y = (pressed := cast("MouseEvent", event)).xdata, pressed.ydata
        if self._clicked is not None and x is not None and y is not None:
            self._clicked(float(x), float(y))


class FigureImage(QWidget):
    """Shows one figure as an image that is drawn in the background: the window never waits for it.

    Parameters
    ----------
    read
        Calls a function in the background and passes its result on, as `CaseController.read`.
    clicked
        Called with the data coordinates of a click of the mouse into a plot.
    """

    def __init__(
        self,
        read: Callable[[str, Callable[[], Any], Callable[[Any], None]], Any],
        clicked: Callable[[float, float], None] | None = None,
    ) -> None:
        super().__init__()
        self._read, self._clicked = read, clicked
        self._draw: Callable[[], Figure | None] | None = None
        self._asked: tuple[object, ...] = ()
        self._image: QImage | None = None
        self.figure: Figure | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMinimumWidth(160)

    def show_when_seen(self, draw: Callable[[], Figure | None] | None) -> None:
        """Show the figure that *draw* makes, in the background, once this view is on the screen.

        *draw* must not touch the window.  The former figure is gone at once; None shows no other.
        """
        self._draw, self._image, self.figure, self._asked = draw, None, None, ()
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Show the image; ask for another one if figure, size or theme are not those of it."""
        if self._draw is None:
            return
        look = (self._draw, self.width(), self.height(), self.devicePixelRatioF(), *theme_colours())
        if look != self._asked:
            self._asked = look
            self._read("Figure", partial(_image_of, *look), partial(self._arrived, look))
        painter = QPainter(self)
        if self._image is not None:
            painter.drawImage(self.rect(), self._image)
        else:
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, "Drawing…")
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Tell where in a plot the mouse was pressed, once the figure is there."""
        if self.figure is None or self._clicked is None:
            return
        ratio, at = self.devicePixelRatioF(), event.position()
        place = ratio * at.x(), ratio * (self.height() - at.y())  # of the screen, from below
        for axes in self.figure.axes:
            if axes.bbox.contains(*place):
                x, y = axes.transData.inverted().transform(place)
                self._clicked(float(x), float(y))
                return

    def _arrived(self, look: tuple[object, ...], found: tuple[Figure, QImage] | None) -> None:
        if look == self._asked:  # nothing newer was asked for
            self.figure, self._image = found or (None, None)
            self.update()


def _image_of(
    draw: Callable[[], Figure | None],
    width: int,
    height: int,
    ratio: float,
    foreground: str,
    background: str,
) -> tuple[Figure, QImage] | None:
    """A figure in the colours of the window, and its image of that many pixels of the screen."""
    figure = draw()
    if figure is None or width < 1 or height < 1:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    paint(figure, foreground, background)
    figure.set_size_inches(width / figure.dpi, height / figure.dpi)
    figure.set_dpi(figure.dpi * ratio)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = bytes(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    wide, high = canvas.get_width_height(physical=True)
    image = QImage(pixels, wide, high, 4 * wide, QImage.Format.Format_RGBA8888)
    return figure, image.copy()  # its own memory


def theme_colours() -> tuple[str, str]:
    """Text and background colour of the current napari theme."""
    from napari.settings import get_settings
    from napari.utils.theme import get_theme

    theme = get_theme(get_settings().appearance.theme)
    return theme.text.as_hex(), theme.background.as_hex()
