"""Lines on the canvas that are equally wide at every zoom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject
from superqt.utils import qdebounced

from napari_mosaik.core.catalogue import REFERENCE
from napari_mosaik.view.spec import placement_um

if TYPE_CHECKING:
    import napari

__all__ = ["ScreenLines"]

_REST_MS = 40


class ScreenLines(QObject):
    """Vectors layers by name whose width is given in pixels of the screen."""

    def __init__(self, viewer: napari.Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._widths_px: dict[str, float] = {}
        self._rescale_soon = qdebounced(self._rescale, timeout=_REST_MS, parent=self)
        viewer.scene.camera.events.zoom.connect(self._zoomed)

    def show(self, name: str, lines: Any, colour: str, width_px: float) -> None:
        """Show vectors (n, 2, 2) in µm of the reference section; none removes the layer."""
        layers, width_um = self._viewer.layers, width_px / self._viewer.scene.camera.zoom
        if not len(lines):
            self.hide(name)
            return
        self._widths_px[name] = width_px
        if name in layers:
            layers[name].data = lines
            layers[name].edge_width = width_um
            return
        active = layers.selection.active
        self._viewer.add_vectors(
            np.asarray(lines, float),
            name=name,
            edge_color=colour,
            edge_width=width_um,
            vector_style="line",
            **placement_um(REFERENCE),
        )
        layers.selection.active = active

    def hide(self, name: str) -> None:
        """Remove a layer."""
        self._widths_px.pop(name, None)
        if name in self._viewer.layers:
            self._viewer.layers.remove(self._viewer.layers[name])

    def bring_up(self, name: str) -> None:
        """Draw a layer above all others, if it is there."""
        layers = self._viewer.layers
        if name in layers and layers[-1].name != name:
            layers.move(layers.index(layers[name]), len(layers))

    def detach(self) -> None:
        """Follow the camera no longer."""
        self._rescale_soon.cancel()
        self._viewer.scene.camera.events.zoom.disconnect(self._zoomed)

    def _zoomed(self, *_: Any) -> None:
        if self._widths_px:
            self._rescale_soon()

    def _rescale(self) -> None:
        for name, width_px in self._widths_px.items():
            if name in self._viewer.layers:
                self._viewer.layers[name].edge_width = width_px / self._viewer.scene.camera.zoom
