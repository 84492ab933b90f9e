"""The ruler: lengths and areas measured on the canvas, kept and listed.

A click sets a point; a drag still pans.  Positions are (row, column) in µm of the reference
section, so measurements are right at every orientation of the view and in each view of a layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.components.overlays import TextOverlay
from napari.layers import Layer
from qtpy.QtCore import Signal
from superqt.utils import qthrottled

from napari_mosaik.core import palette
from napari_mosaik.core.catalogue import REFERENCE
from napari_mosaik.view.measurements import Measurement
from napari_mosaik.view.spec import placement_um
from napari_mosaik.widgets.canvas.active_tool import CanvasTool, ToolHost, ToolMode
from napari_mosaik.widgets.canvas.camera import look_at
from napari_mosaik.widgets.canvas.mouse import Pointer
from napari_mosaik.widgets.canvas.view_keys import shows_uncalibrated

if TYPE_CHECKING:
    import napari

__all__ = ["LineTool", "Ruler"]

_FOLLOW_MS = 25


class LineTool(CanvasTool):
    """Measures the line or outline through points that are clicked.

    ``finished`` is emitted with each finished `Measurement`, ``edited`` with each point.
    """

    name = "ruler"
    exclusive = False
    finished = Signal(object)
    edited = Signal()
    max_points = 0
    """The measurement is finished with so many points; 0 when Enter or a double click does."""

    def __init__(self, link: ToolHost) -> None:
        super().__init__(link)
        self._points: list[tuple[float, float]] = []
        self._pointer: tuple[float, float] | None = None
        self._reading = TextOverlay(position="top_left", font_size=11, box=True, visible=False)
        self.viewer.canvas.overlays[f"mosaik_{type(self).__name__}"] = self._reading
        self._follow_soon = qthrottled(self._follow, timeout=_FOLLOW_MS, leading=False, parent=self)

    @property
    def kind(self) -> Literal["length", "area"]:
        """What is measured."""
        return "area" if self.mode == "area" else "length"

    @property
    def draft(self) -> Measurement | None:
        """What is being measured, up to the mouse; None when nothing is begun."""
        if not self._points or not self.mode:
            return None
        ahead = [self._pointer] if self._pointer is not None else []
        return Measurement(self.kind, (*self._points, *ahead))

    def actions(self) -> Mapping[str, Callable[[], Any]]:
        """Enter, Escape and Backspace."""
        return {"finish": self.finish, "step back": self.step_back}

    def reset(self) -> None:
        """Discard the points."""
        self._points, self._pointer = [], None
        self.show_measurement()

    def detach(self) -> None:
        """Follow the mouse no longer."""
        super().detach()
        self._follow_soon.cancel()
        self._reading.visible = False

    # --- points ---------------------------------------------------------------------------------
    def add_point(self, position_um: tuple[float, float]) -> None:
        """Set a point of what is being measured."""
        if self._points and np.allclose(position_um, self._points[-1]):
            return
        self._points.append(position_um)
        if self.max_points and len(self._points) >= self.max_points:
            self.finish()
        else:
            self.show_measurement()

    def step_back(self) -> None:
        """Remove the last point; without any, end the tool."""
        if not self._points:
            self.release()
            return
        self._points.pop()
        self.show_measurement()

    def finish(self) -> None:
        """Finish the measurement, if it has points enough."""
        if not self.mode or not self._points:
            return
        made = Measurement(self.kind, tuple(self._points))
        if not made.is_whole:
            return
        self._points, self._pointer = [], None
        self.keep(made)
        self.show_measurement()
        self.finished.emit(made)

    def keep(self, made: Measurement) -> None:
        """What becomes of a finished measurement."""

    # --- mouse ----------------------------------------------------------------------------------
    def released(self, pointer: Pointer) -> None:
        """A click sets a point; a drag has panned."""
        if pointer.is_click:
            self.add_point(pointer.start_um)

    def hovered(self) -> None:
        """The value follows the mouse."""
        if self._points:
            self._follow_soon()

    def double_clicked(self) -> None:
        """Finish."""
        self.finish()

    def _follow(self) -> None:
        if self._points:
            row, column = self.viewer.cursor.position[-2:]
            self._pointer = float(row), float(column)
            self.draw()

    # --- showing --------------------------------------------------------------------------------
    def show_measurement(self) -> None:
        """Draw it and tell the panel."""
        self.draw()
        self.edited.emit()

    def draw(self) -> None:
        """The line up to the mouse, and its value in the corner of the canvas."""
        draft = self.draft
        lines = np.zeros((0, 2, 2)) if draft is None else draft.segments()
        self.show_draft(lines, palette.RULER, 3.0)
        self._reading.text = self.reading(draft)
        self._reading.visible = self.is_active

    def reading(self, draft: Measurement | None) -> str:
        """The text in the corner of the canvas."""
        return "" if draft is None else draft.words.replace(", ", "\n")


class Ruler(LineTool):
    """Measures lengths and areas, with or without a case, and keeps them."""

    modes = {  # noqa: RUF012
        "length": ToolMode(
            "Length", "Click points along the line; double-click or Enter finishes it.", pans=True
        ),
        "area": ToolMode(
            "Area", "Click points around the area; double-click or Enter closes it.", pans=True
        ),
    }

    def __init__(self, link: ToolHost) -> None:
        self.measurements: list[Measurement] = []
        self._layers = _MeasurementLayers(link.viewer)
        super().__init__(link)

    def add_point(self, position_um: tuple[float, float]) -> None:
        """Set a point, unless a slide without pixel size is shown."""
        if shows_uncalibrated(self.viewer):
            self.show_measurement()  # says why
        else:
            super().add_point(position_um)

    @property
    def hint(self) -> str:
        """What the mouse does, and what Escape does."""
        if not self.mode:
            return ""
        escape = "removes the last point" if self._points else "ends measuring"
        return f"{super().hint} Escape {escape}."

    def keep(self, made: Measurement) -> None:
        """List it."""
        self.measurements.append(made)

    def remove(self, number: int) -> None:
        """Delete one of the measurements."""
        del self.measurements[number]
        self.show_measurement()

    def clear(self) -> None:
        """Delete all measurements."""
        self.measurements.clear()
        self.reset()

    def go_to(self, number: int) -> None:
        """Centre the view on a measurement."""
        points = np.asarray(self.measurements[number].points_um)
        look_at(self.viewer, (points.min(axis=0) + points.max(axis=0)) / 2)

    def show_measurement(self) -> None:
        """Draw the finished measurements, too."""
        self._layers.keep(self.measurements)
        super().show_measurement()

    def draw(self) -> None:
        """The line being measured lies in the same layer as the finished ones."""
        draft = self.draft
        self._layers.sketch(draft)
        self._reading.text = self.reading(draft)
        self._reading.visible = self.is_active

    def reading(self, draft: Measurement | None) -> str:
        """The value, or an invitation."""
        if shows_uncalibrated(self.viewer):
            return "no pixel size: calibrate the slide, or hide it"
        return super().reading(draft) if draft is not None else f"{self.kind}: click points"

    def detach(self) -> None:
        """Follow mouse and camera no longer."""
        super().detach()
        self._layers.detach()


_LINES, _VALUES = "Ruler", "Ruler values"
_WIDTH_PX = 3.0
_TEXT = {"string": "{words}", "color": {"feature": "ink"}, "size": 12, "anchor": "upper_left"}
_HALO_PX = 1.5 * np.array(
    [(-1, 0), (1, 0), (0, -1), (0, 1), (-0.7, -0.7), (-0.7, 0.7), (0.7, -0.7), (0.7, 0.7), (0, 0)]
)
"""Each value is written in white around its place and then in black upon it: legible anywhere."""
_INKS = ("white",) * (len(_HALO_PX) - 1) + ("black",)


class _MeasurementLayers:
    """Lines of one width on the screen and values beside them, made with the first measurement."""

    def __init__(self, viewer: napari.Viewer) -> None:
        self.viewer = viewer
        self._kept: Sequence[Measurement] = ()
        self._draft: Measurement | None = None
        self._zoom = viewer.scene.camera.events.zoom
        self._zoom.connect(self._zoomed)

    def detach(self) -> None:
        """Follow the camera no longer."""
        self._zoom.disconnect(self._zoomed)

    def keep(self, measurements: Sequence[Measurement]) -> None:
        """Draw the finished measurements."""
        self._kept = tuple(measurements)
        self._draw_lines()
        self._draw_values()

    def sketch(self, draft: Measurement | None) -> None:
        """Draw what is being measured, too."""
        self._draft = draft
        self._draw_lines()
        layer = self._layer(_LINES)
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
        drawn = [*self._kept, *([self._draft] if self._draft is not None else [])]
        lines = np.concatenate([np.zeros((0, 2, 2)), *(one.segments() for one in drawn)])
        layer = self._layer(_LINES)
        if layer is not None:
            layer.data = lines
        elif len(lines):
            self._add(
                "vectors",
                lines,
                name=_LINES,
                edge_color=palette.RULER,
                edge_width=self._width_um,
                vector_style="line",
            )

    def _draw_values(self) -> None:
        places = np.array([_beside(one) for one in self._kept]).reshape(-1, 1, 2)
        at = (places + _HALO_PX / float(self.viewer.scene.camera.zoom)).reshape(-1, 2)
        layer = self._layer(_VALUES)
        if layer is not None:
            layer.data = at
            layer.features = self._features()
            layer.size = 4 * self._width_um
        elif len(at):
            self._add(
                "points",
                at,
                name=_VALUES,
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
        lines = self._layer(_LINES)
        if lines is not None:
            lines.edge_width = self._width_um
        if self._kept:
            self._draw_values()

    def _add(self, kind: str, data: Any, **options: Any) -> None:
        active = self.viewer.layers.selection.active
        self.viewer.add_layer(Layer.create(data, options | placement_um(REFERENCE), kind))
        self.viewer.layers.selection.active = active


def _beside(measured: Measurement) -> tuple[float, float]:
    """Where the value is written: at the last point of a line, in the middle of an outline."""
    if measured.kind == "length":
        return measured.points_um[-1]
    row, column = np.mean(measured.points_um, axis=0)
    return float(row), float(column)
