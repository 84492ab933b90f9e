"""What the ruler measured as layers: lines of one width on the screen, and values beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mosaik.core import palette
from napari_mosaik.core.catalogue import REFERENCE
from napari_mosaik.view.measurements import Measurement
from napari_mosaik.view.spec import placement_um

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

__all__ = ["LINES", "VALUES", "RulerDrawing"]

LINES = "Ruler"
VALUES = "Ruler values"
_WIDTH_PX = 3.0
_TEXT = {"string": "{words}", "color": {"feature": "ink"}, "size": 12, "anchor": "upper_left"}
_HALO_PX = 1.5 * np.array(
    [(-1, 0), (1, 0), (0, -1), (0, 1), (-0.7, -0.7), (-0.7, 0.7), (0.7, -0.7), (0.7, 0.7), (0, 0)]
)
"""Each value is written in white around its place and then in black upon it: legible anywhere."""
_INKS = ("white",) * (len(_HALO_PX) - 1) + ("black",)


class RulerDrawing:
    """Two layers, made when something is measured for the first time."""

    def __init__(self, viewer: napari.Viewer) -> None:
        self.viewer = viewer
        self._kept: Sequence[Measurement] = ()
        self._draft: Measurement | None = None
        self._alone = False
        self._camera = viewer.scene.camera.events.zoom
        self._camera.connect(self._zoomed)

    def detach(self) -> None:
        """Follow the camera no more."""
        self._camera.disconnect(self._zoomed)

    def keep(self, measurements: Sequence[Measurement]) -> None:
        """Draw the finished measurements."""
        self._kept = tuple(measurements)
        self._draw_lines()
        self._draw_values()

    def sketch(self, draft: Measurement | None, *, alone: bool = False) -> None:
        """Draw what is being measured, beside what is kept or *alone*."""
        self._draft, self._alone = draft, alone
        self._draw_lines()
        layer = self._layer(LINES)
        if draft is not None and layer is not None:
            layer.visible = True
            self._raise(layer)

    def _raise(self, layer: Layer) -> None:
        """Above a slide that was opened since; in a grid the order makes the cells."""
        layers = self.viewer.layers
        if not self.viewer.canvas.grid.enabled and layers[-1] is not layer:
            layers.move(layers.index(layer), len(layers))

    def _layer(self, name: str) -> Layer | None:
        return next((layer for layer in self.viewer.layers if layer.name == name), None)

    def _draw_lines(self) -> None:
        drawn = [] if self._alone else list(self._kept)
        drawn += [self._draft] if self._draft is not None else []
        lines = np.concatenate([np.zeros((0, 2, 2)), *(one.segments() for one in drawn)])
        layer = self._layer(LINES)
        if layer is not None:
            layer.data = lines
        elif len(lines):
            self._add(
                "vectors",
                lines,
                name=LINES,
                edge_color=palette.RULER,
                edge_width=self._width_um,
                vector_style="line",
            )

    def _draw_values(self) -> None:
        places = np.array([_beside(one) for one in self._kept]).reshape(-1, 1, 2)
        at = (places + _HALO_PX / float(self.viewer.scene.camera.zoom)).reshape(-1, 2)
        layer = self._layer(VALUES)
        if layer is not None:
            layer.data = at
            layer.features = self._features()
            layer.size = 4 * self._width_um
        elif len(at):
            self._add(
                "points",
                at,
                name=VALUES,
                size=4 * self._width_um,
                face_color=palette.RULER,
                border_width=0,
                features=self._features(),
                text=_TEXT,
            )

    def _features(self) -> dict[str, list[str]]:
        words = [f"{i}: {one.label}" for i, one in enumerate(self._kept, 1)]
        return {
            "words": [text for text in words for _ in _INKS],
            "ink": [ink for _ in words for ink in _INKS],
        }

    @property
    def _width_um(self) -> float:
        return _WIDTH_PX / float(self.viewer.scene.camera.zoom)

    def _zoomed(self, _event: Any) -> None:
        lines = self._layer(LINES)
        if lines is not None:
            lines.edge_width = self._width_um
        if self._kept:
            self._draw_values()

    def _add(self, kind: str, data: Any, **options: Any) -> None:
        from napari.layers import Layer as Base

        active = self.viewer.layers.selection.active
        self.viewer.add_layer(Base.create(data, options | placement_um(REFERENCE), kind))
        self.viewer.layers.selection.active = active


def _beside(measured: Measurement) -> tuple[float, float]:
    """Where the value is written: at the last corner of a line, in the middle of an outline."""
    if measured.kind == "length":
        return measured.points_um[-1]
    row, column = np.mean(measured.points_um, axis=0)
    return float(row), float(column)
