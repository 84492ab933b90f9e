"""Pixel size of an uncalibrated slide from a line over a known length.

The slide is shown alone with a provisional pixel size of 1 µm, so that µm on the canvas are slide
pixels; it is labelled 'uncalibrated' and used for calibration only.  One that napari has opened so
is taken over as it is.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QLineEdit, QWidget

from napari_mosaik.core import InputError, palette
from napari_mosaik.core.catalogue import STAIN_TITLES
from napari_mosaik.io.slide import open_slide
from napari_mosaik.view.formatting import number
from napari_mosaik.view.layers import slide_layer
from napari_mosaik.view.measurements import Measurement, spacing_from_ruler
from napari_mosaik.widgets.base.controls import button, column, row, wrapped_label
from napari_mosaik.widgets.canvas.active_tool import ToolHost, ToolMode
from napari_mosaik.widgets.canvas.camera import fit
from napari_mosaik.widgets.canvas.layout_state import LayoutState
from napari_mosaik.widgets.canvas.lazy_slide import LazySlide, attend
from napari_mosaik.widgets.canvas.tools.ruler import LineTool
from napari_mosaik.widgets.canvas.view_keys import UNCALIBRATED, shows_uncalibrated
from napari_mosaik.widgets.pages.case_forms import number_of, slide_filter

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide
    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["Calibration", "CalibrationTool"]

_ASK = (
    "For a slide without a pixel size: draw a line over a known length, such as a printed scale "
    "bar, and enter that length."
)
_UNITS = {"µm": 1.0, "mm": 1000.0}
_MARK = " (uncalibrated)"
_OPENED = "opened: "
"""Before the name of a layer among the slides to choose from; no stain begins so."""


class CalibrationTool(LineTool):
    """Draws one line over a known length; its last line stays visible."""

    modes = {  # noqa: RUF012
        "line": ToolMode("Known length", "Click both ends of the known length.", pans=True)
    }
    max_points = 2
    draft_layer = "Calibration line"

    def __init__(self, link: ToolHost) -> None:
        self.line: Measurement | None = None
        super().__init__(link)

    def keep(self, made: Measurement) -> None:
        """The line in place of the one before."""
        self.line = made

    def reset(self) -> None:
        """Discard the line."""
        self.line = None
        super().reset()

    def draw(self) -> None:
        """The line being drawn, or the last one."""
        shown = self.draft or self.line
        lines = np.zeros((0, 2, 2)) if shown is None else shown.segments()
        self.show_draft(lines, palette.RULER, 3.0)
        self._reading.text = "click both ends"
        self._reading.visible = self.is_active


class Calibration(QWidget):
    """Shows an uncalibrated slide, asks for a known length on it and stores the pixel size.

    ``calibrated`` is emitted with the pixel size in µm.
    """

    calibrated = Signal(float)

    def __init__(self, link: CanvasLink) -> None:
        super().__init__()
        self.viewer, self.controller = link.viewer, link.board.controller
        self.tool = link.tool(CalibrationTool)
        self._stain = ""
        self._layer: Layer | None = None
        self._opened = False
        self._before: LayoutState | None = None
        self._length_px = 0.0
        self.which = QComboBox()
        self.begin_button = button("Calibrate this slide", self._begin_chosen)
        self.file_button = button("Another slide file…", self._choose)
        self.message = wrapped_label()
        self.length = QLineEdit()
        self.length.setPlaceholderText("known length")
        self.unit = QComboBox()
        self.unit.addItems(list(_UNITS))
        self.use_button = button(
            "Apply pixel size", self.use, "Stores the pixel size with source 'ruler'"
        )
        self.cancel_button = button("Cancel", self.cancel)
        self.draw_button = button("Draw the line", self._draw)
        self._choice, self._answer = QWidget(), QWidget()
        self._choice.setLayout(column(self.which, row(self.begin_button, self.file_button, 1)))
        entry = row(self.length, self.unit)
        self._answer.setLayout(
            column(entry, row(self.use_button, self.draw_button, self.cancel_button, 1))
        )
        self.setLayout(
            column(wrapped_label(_ASK, small=True), self._choice, self.message, self._answer)
        )
        self.tool.finished.connect(self._measured)
        self.tool.changed.connect(self._ended)
        self.controller.workspace.events.case.connect(self._offer)
        self.viewer.layers.events.inserted.connect(self._fill)
        self.viewer.layers.events.removed.connect(self._removed)
        self._offer()

    @property
    def is_on(self) -> bool:
        """Whether an uncalibrated slide is shown."""
        return self._layer is not None

    # --- choosing -------------------------------------------------------------------------------
    def _offer(self, *_: Any) -> None:
        """The slides without a pixel size of another case."""
        if self.is_on and self._stain:
            self.cancel()
        self._fill()
        self._show()

    def _fill(self, *_: Any) -> None:
        """The slides of the open case, and those on the canvas, without a pixel size."""
        case, chosen = self.controller.workspace.case, self.which.currentData()
        self.which.clear()
        for layer in self.viewer.layers:
            if layer.metadata.get(UNCALIBRATED) and layer is not self._layer:
                self.which.addItem(layer.name, f"{_OPENED}{layer.name}")
        if case is not None:
            for stain, entry in case.file.slides.items():
                if entry.spacing_um is None and case.path(entry.path).exists():
                    self.which.addItem(f"{STAIN_TITLES[stain]}: {Path(entry.path).name}", stain)
        self.which.setCurrentIndex(max(0, self.which.findData(chosen)))
        for widget in (self.which, self.begin_button):
            widget.setVisible(self.which.count() > 0)

    def _removed(self, event: Any) -> None:
        """A layer is gone, perhaps that which is measured."""
        if event.value is self._layer:
            self.cancel()
        self._fill()

    def _begin_chosen(self) -> None:
        chosen = str(self.which.currentData())
        name = chosen.removeprefix(_OPENED)
        if name == chosen:
            self.begin_stain(chosen)
        elif name in self.viewer.layers:
            self.begin_layer(self.viewer.layers[name])
        else:  # it was renamed
            self._fill()

    def begin_layer(self, layer: Layer) -> None:
        """Measure on a layer without pixel size that napari has opened; it stays afterwards."""
        self.cancel()
        self._stain, self._opened, before = "", True, LayoutState.of(self.viewer)
        for other in self.viewer.layers:
            other.visible = other is layer
        self._take(layer, before)

    def begin_stain(self, stain: str) -> None:
        """Open a slide of the case."""
        case = self.controller.workspace.case
        if case is not None:
            self.begin(case.path(case.file.paths(stain)[0]), stain)

    def _choose(self) -> None:
        path = QFileDialog.getOpenFileName(self, "A slide without pixel size", "", slide_filter())[
            0
        ]
        if path:
            self.begin(Path(path))

    def begin(self, path: Path, stain: str = "") -> None:
        """Open a slide with the provisional pixel size; *stain* when it belongs to the case."""
        self.cancel()
        self._stain = stain
        self.controller.read("Slide", partial(open_slide, path, 1.0), self._open)

    def _open(self, slide: Slide) -> None:
        before, self._opened = LayoutState.of(self.viewer), False
        lazy = LazySlide(slide)
        attend(lazy, self.viewer)
        name = f"{slide.path.name}{_MARK}"
        spec = slide_layer(name, lazy.levels(), lazy.lattices[0])
        layer = Layer.create(*spec.as_layer_data())
        layer.metadata[UNCALIBRATED] = True
        for other in self.viewer.layers:
            other.visible = False
        self._take(self.viewer.add_layer(layer), before)

    def _take(self, layer: Layer, before: LayoutState) -> None:
        self._layer, self._before = layer, before
        self.viewer.canvas.overlays.scale_bar.visible = False
        low, high = layer.extent.world
        fit(self.viewer, low, high)
        self._draw()

    def _draw(self) -> None:
        self._length_px = 0.0
        self.tool.take()
        self._show()

    def _ended(self) -> None:
        """Another tool became active: the line is gone."""
        if self.is_on and not self.tool.is_active:
            self._length_px = 0.0
            self._show()

    # --- measuring ------------------------------------------------------------------------------
    def _measured(self, made: Measurement) -> None:
        if self.is_on:
            self._length_px = made.value  # at 1 µm per pixel
            self._show()

    def use(self) -> None:
        """Store the pixel size, or show why it is refused."""
        try:
            known = number_of(self.length.text(), "the known length")
            if known is None:
                raise InputError("enter the known length of the line")
            spacing = spacing_from_ruler(self._length_px, known * _UNITS[self.unit.currentText()])
        except InputError as error:
            self.message.setText(f"⚠ {error}")
            return
        if self._stain:
            self._give(spacing)
        else:
            self._keep(spacing)
        self.calibrated.emit(spacing)

    def _give(self, spacing: float) -> None:
        """Store it in the case, which then shows the slide itself."""
        stain, case = self._stain, self.controller.workspace.case
        self.cancel()
        if case is not None:
            slides: dict[Any, Any] = dict(case.file.slides)
            slides[stain] = slides[stain].spaced((spacing, spacing), "ruler")
            self.controller.update_case(slides=slides)

    def _keep(self, spacing: float) -> None:
        """Apply it to the layer of a slide that belongs to no case."""
        layer, self._layer, self._before = self._layer, None, None
        assert layer is not None
        del layer.metadata[UNCALIBRATED]
        layer.name = layer.name.removesuffix(_MARK)
        layer.scale, layer.translate = (spacing, spacing), (spacing / 2, spacing / 2)
        self._end()
        self.message.setText(
            f"{layer.name}: {number(spacing, 'µm')} per pixel (calibrated with the ruler)."
        )
        low, high = layer.extent.world
        fit(self.viewer, low, high)

    def cancel(self) -> None:
        """Close the uncalibrated slide, unless napari has opened it, and restore the canvas."""
        layer, before = self._layer, self._before
        if layer is None:
            return
        self._layer = self._before = None
        if layer in self.viewer.layers and not self._opened:
            self.viewer.layers.remove(layer)
        self._end()
        if before is not None:
            before.restore_layers(self.viewer)
            before.restore_camera(self.viewer)

    def _end(self) -> None:
        self.tool.release()
        self._length_px = 0.0
        self.length.clear()
        self.viewer.canvas.overlays.scale_bar.visible = not shows_uncalibrated(self.viewer)
        self._fill()
        self._show()

    def shut(self) -> None:
        """Stop following the viewer; called when the window closes."""
        self.viewer.layers.events.inserted.disconnect(self._fill)
        self.viewer.layers.events.removed.disconnect(self._removed)
        self.cancel()

    # --- showing --------------------------------------------------------------------------------
    def _show(self) -> None:
        self._choice.setVisible(not self.is_on)
        self._answer.setVisible(self.is_on)
        self.use_button.setEnabled(self._length_px > 0)
        self.draw_button.setVisible(self.is_on and not self.tool.is_active)
        if not self.is_on:
            self.message.clear()
        elif self._length_px:
            pixels = number(self._length_px, "slide pixels")
            self.message.setText(
                f"Line length: {pixels}. Enter its known length, or draw it again."
            )
        else:
            self.message.setText(self.tool.hint or "Click 'Draw the line' to measure.")
