"""Overview map: a thumbnail of the slide with the field of view; a click moves it."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QImage, QPainter, QPen, QTransform
from qtpy.QtWidgets import QWidget
from superqt.utils import qthrottled

from napari_mosaik.core import FloatArray
from napari_mosaik.view.orientation import MapView
from napari_mosaik.widgets.base.worker import Task
from napari_mosaik.widgets.canvas.camera import look_at, turn_of, visible_um
from napari_mosaik.widgets.canvas.keys import CANVAS, KeyMap

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

__all__ = ["OverviewMap"]

_LONGEST_PX = 200
_SHARE = 0.28
"""Largest share of the shorter edge of the canvas, or of a view of its grid."""
_MARGIN_PX = 10
_PICTURE_PX = 512
_SMALLEST_PX = 6
"""Smallest edge of the rectangle of the field of view."""
_FOLLOW_MS = 30


class OverviewMap(QWidget):
    """A small window in the upper right corner of the canvas.

    It shows the topmost visible slide in the orientation of the canvas.  Its pixels are those of
    the slide's coarsest level; where that is not in memory, it is read on another thread.
    ``toggled`` is emitted with whether the map is switched on.
    """

    toggled = Signal(bool)

    def __init__(self, viewer: napari.Viewer, keys: KeyMap) -> None:
        self.canvas = viewer.window._qt_viewer.canvas.native
        super().__init__(self.canvas)
        self.viewer = viewer
        self.view: MapView | None = None
        self._layer: Layer | None = None
        self._image: QImage | None = None
        self._task: Task | None = None
        self._wanted = False
        self.setCursor(Qt.CursorShape.CrossCursor)
        self.setToolTip("Click or drag to move the field of view; Shift+O hides the map")
        self.setVisible(False)
        self._arrange_soon = qthrottled(
            self._arrange, timeout=_FOLLOW_MS, leading=False, parent=self
        )
        keys.bind(CANVAS, {"overview map": self.toggle})
        self.canvas.installEventFilter(self)
        for event in self._events():
            event.connect(self._soon)

    def _events(self) -> tuple[Any, ...]:
        camera, layers = self.viewer.scene.camera.events, self.viewer.layers.events
        return (
            camera.center,
            camera.zoom,
            camera.orientation,
            self.viewer.dims.events.order,
            layers.inserted,
            layers.removed,
            layers.reordered,
            self.viewer.canvas.grid.events.enabled,
        )

    def detach(self) -> None:
        """Leave the viewer as it was found."""
        self._arrange_soon.cancel()
        self.canvas.removeEventFilter(self)
        for event in self._events():
            event.disconnect(self._soon)
        self._follow(None)
        self.hide()

    def set_shown(self, shown: bool) -> None:
        """Show or hide the map."""
        self._wanted = shown
        self._arrange()
        self.toggled.emit(shown)

    def toggle(self) -> None:
        """Show or hide the map."""
        self.set_shown(not self._wanted)

    # --- the picture ----------------------------------------------------------------------------
    def _soon(self, *_: Any) -> None:
        if self._wanted:
            self._arrange_soon()

    def _arrange(self) -> None:
        """Choose the slide, fit the map to slide and canvas, and draw."""
        if not self._wanted:
            self._follow(None)
            self.hide()
            return
        self._follow(_topmost_slide(self.viewer))
        if self._layer is None:
            self.hide()
            return
        room = _SHARE * min(self.viewer.canvas.viewbox_size(self.viewer.layers))
        corners = _corners_um(self._layer)
        self.view = MapView.fitting(corners, turn_of(self.viewer), min(_LONGEST_PX, room))
        height, width = self.view.size_px
        self.setGeometry(self.canvas.width() - width - _MARGIN_PX, _MARGIN_PX, width, height)
        self.show()
        self.raise_()
        self.update()

    def _follow(self, layer: Layer | None) -> None:
        if layer is self._layer:
            return
        if self._layer is not None:
            for event in self._signs(self._layer):
                event.disconnect(self._changed)
        self._layer, self._image = layer, None
        if layer is not None:
            for event in self._signs(layer):
                event.connect(self._changed)
            self._take_picture()

    @staticmethod
    def _signs(layer: Layer) -> tuple[Any, ...]:
        events = layer.events
        return events.visible, events.thumbnail, events.affine, events.scale

    def _changed(self, event: Any) -> None:
        if event.type == "thumbnail":
            self._take_picture()
        self._soon()

    def _take_picture(self) -> None:
        level = _coarsest(self._layer)
        if isinstance(level, np.ndarray):
            self._arrived(_small(level))
        elif self._task is None and self._image is None:
            layer = self._layer
            self._task = Task("Overview map", lambda: _small(np.asarray(level)), self)
            self._task.done.connect(lambda pixels: self._read(layer, pixels))
            self._task.failed.connect(lambda _problem: self._read(None, None))
            self._task.start()

    def _read(self, layer: Layer | None, pixels: NDArray[np.uint8] | None) -> None:
        self._task = None
        if pixels is not None and layer is self._layer:
            self._arrived(pixels)

    def _arrived(self, pixels: NDArray[np.uint8]) -> None:
        rows, columns, _ = pixels.shape
        image = QImage(pixels.tobytes(), columns, rows, 3 * columns, QImage.Format.Format_RGB888)
        self._image = image.copy()  # the bytes above are gone soon
        self.update()

    # --- drawing and mouse ----------------------------------------------------------------------
    def paintEvent(self, event: Any) -> None:
        """Draw the slide as on the canvas, and the field of view."""
        if self.view is None or self._layer is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.fillRect(self.rect(), QColor(128, 128, 128))
        if self._image is not None:
            painter.setTransform(self._on_map(self._image))
            painter.drawImage(0, 0, self._image)
            painter.resetTransform()
        frame = QRectF(0.5, 0.5, self.width() - 1, self.height() - 1)
        painter.setPen(QPen(QColor(60, 60, 60), 1))
        painter.drawRect(frame)
        for colour, width in ((QColor(255, 255, 255), 4), (QColor(213, 94, 0), 2)):
            painter.setPen(QPen(colour, width))
            painter.drawRect(self.rectangle())
        painter.end()

    def rectangle(self) -> QRectF:
        """The field of view, in pixels of the map."""
        assert self.view is not None
        left, top, width, height = self.view.rectangle(*visible_um(self.viewer))
        shown = QRectF(left, top, max(width, _SMALLEST_PX), max(height, _SMALLEST_PX))
        shown.moveCenter(QRectF(left, top, width, height).center())
        return shown.intersected(QRectF(1, 1, self.width() - 2, self.height() - 2))

    def _on_map(self, image: QImage) -> QTransform:
        """Transform from image pixels (x, y) to pixels of the map."""
        assert self.view is not None
        assert self._layer is not None
        low, high = np.asarray(self._layer.extent.data, np.float64)[:, -2:]
        low, high = low - 0.5, high + 0.5
        ends = (low, (high[0], low[1]), (low[0], high[1]))
        origin, down, right = self.view.to_map([_to_um(self._layer, end) for end in ends])
        down, right = (down - origin) / image.height(), (right - origin) / image.width()
        return QTransform(right[1], right[0], down[1], down[0], origin[1], origin[0])

    def mousePressEvent(self, event: Any) -> None:
        """Centre the view on the position."""
        if event.button() == Qt.MouseButton.LeftButton:
            self._go(event)

    def mouseMoveEvent(self, event: Any) -> None:
        """The view follows the mouse."""
        if event.buttons() & Qt.MouseButton.LeftButton:
            self._go(event)

    def _go(self, event: Any) -> None:
        if self.view is not None:
            place = event.position()
            look_at(self.viewer, self.view.to_um([(place.y(), place.x())])[0])
        event.accept()

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Stay in the corner when the canvas is resized."""
        if event.type() == QEvent.Type.Resize:
            self._soon()
        return False


def _topmost_slide(viewer: napari.Viewer) -> Layer | None:
    """The topmost visible RGB layer; in a grid that of the first view."""
    shown = [layer for layer in viewer.layers if layer.visible and getattr(layer, "rgb", False)]
    if not shown:
        return None
    return shown[0] if viewer.canvas.grid.enabled else shown[-1]


def _coarsest(layer: Layer | None) -> Any:
    if layer is None:
        return None
    return layer.data[-1] if layer.multiscale else layer.data


def _small(pixels: Any) -> NDArray[np.uint8]:
    step = max(1, -(-max(pixels.shape[:2]) // _PICTURE_PX))
    rgb = np.asarray(pixels[::step, ::step, :3])
    if rgb.dtype != np.uint8:
        rgb = (255 * np.clip(rgb, 0, 1)).astype(np.uint8)
    return np.ascontiguousarray(rgb)


def _to_um(layer: Layer, place: Any) -> FloatArray:
    return np.asarray(layer.data_to_world(place), float)[-2:]


def _corners_um(layer: Layer) -> FloatArray:
    """Corners of a slide on the canvas, shape (4, 2), µm."""
    low, high = np.asarray(layer.extent.data, float)[:, -2:]
    low, high = low - 0.5, high + 0.5
    return np.array([_to_um(layer, corner) for corner in product(*zip(low, high, strict=True))])
