"""Display settings of a slide: single stain, brightness, contrast and gamma."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QSizePolicy, QSlider, QWidget
from superqt.utils import qthrottled

from napari_mosaik.view.display_settings import LIMITS, STAIN_NAMES, DisplaySettings, prepare
from napari_mosaik.widgets.base.controls import button, column, row, wrapped_label
from napari_mosaik.widgets.canvas.lazy_slide import LazySlide, lazy_of

if TYPE_CHECKING:
    import napari

__all__ = ["SlideView"]

_REST_MS: Final = 15
"""Slider positions that follow faster than this are drawn once."""
_TIPS: Final = {
    "brightness": "Lightens or darkens the slide",
    "contrast": "Stretches the intensities about mid-grey",
    "gamma": "Above 1 darkens the mid-tones, below 1 lightens them; black and white are unchanged",
}


class SlideView(QWidget):
    """Display settings of the visible slide; each slide keeps its own.

    Where several slides are visible, they are those of the topmost one until the user chooses
    another.  The settings change the canvas only, never a result.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._slide: LazySlide | None = None
        self._chosen: LazySlide | None = None
        self._visible: dict[LazySlide, str] = {}
        self._prepared = False
        self.title = wrapped_label(bold=True)
        self.which = QComboBox()
        self.which.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.which.setToolTip("The slide whose display settings are shown")
        self.which.activated.connect(self._choose)
        self.stain = QComboBox()
        self.stain.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.stain.setToolTip("Shows one stain after colour deconvolution")
        self.stain.activated.connect(lambda _index: self._change(stain=self.stain.currentData()))
        self._apply_soon = qthrottled(self._apply, timeout=_REST_MS, leading=False, parent=self)
        self.sliders = {name: _Slider(name, tip, self._apply_soon) for name, tip in _TIPS.items()}
        self.reset_button = button(
            "Reset", self.reset, "Resets the display settings to the scanned image"
        )
        hint = wrapped_label("Display only: results do not change.", small=True)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Show", self.stain)
        for name, slider in self.sliders.items():
            form.addRow(name.capitalize(), slider)
        self.setLayout(
            column(self.title, self.which, form, row(self.reset_button, 1), hint, margin=4)
        )
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed,
                      viewer.layers.events.reordered):  # fmt: skip
            event.connect(self._follow)
        for layer in viewer.layers:
            layer.events.visible.connect(self._follow)
        self._show()
        self._follow()

    @property
    def slide(self) -> LazySlide | None:
        """The slide whose settings are shown."""
        return self._slide

    def reset(self) -> None:
        """Reset the display settings."""
        if self._slide is not None:
            self._slide.set_display(DisplaySettings(vectors=self._slide.settings.vectors))

    def shut(self) -> None:
        """Stop following the viewer; called when the window closes."""
        for event in (self._viewer.layers.events.inserted, self._viewer.layers.events.removed,
                      self._viewer.layers.events.reordered):  # fmt: skip
            event.disconnect(self._follow)
        for layer in self._viewer.layers:
            layer.events.visible.disconnect(self._follow)
        self._visible = {}
        self._take(None)

    # --- which slide ----------------------------------------------------------------------------
    def _follow(self, event: Any = None) -> None:
        if event is not None and event.type == "inserted":
            event.value.events.visible.connect(self._follow)
        if event is not None and event.type == "removed":
            event.value.events.visible.disconnect(self._follow)
        self._visible = {}
        for layer in reversed(self._viewer.layers):
            slide = lazy_of(layer) if layer.visible else None
            if slide is not None:
                self._visible.setdefault(slide, layer.name)
        if self._chosen not in self._visible:
            self._chosen = None
        self._take(self._chosen or next(iter(self._visible), None))

    def _choose(self, index: int) -> None:
        self._chosen = list(self._visible)[index]
        self._take(self._chosen)

    def _take(self, slide: LazySlide | None) -> None:
        self._name(slide)
        if slide is self._slide:
            return
        if self._slide is not None:
            self._slide.look_changed.disconnect(self._show)
        self._slide = slide
        if slide is not None:
            slide.look_changed.connect(self._show)
            self._prepare()
        self._show()

    def _name(self, slide: LazySlide | None) -> None:
        names = list(self._visible.values())
        self.which.clear()
        self.which.addItems(names)
        self.which.setVisible(len(names) > 1)
        if slide is None:
            self.title.setText("Show a slide to change its display settings.")
            return
        self.which.setCurrentIndex(list(self._visible).index(slide))
        self.title.setText(
            "Display settings of" if len(names) > 1 else f"Display settings of {names[0]}"
        )

    def _prepare(self) -> None:
        """Compile in the background: it takes a second, once after the installation."""
        if not self._prepared:
            self._prepared = True
            threading.Thread(target=prepare, name="mosaik-look", daemon=True).start()

    # --- settings -------------------------------------------------------------------------------
    def _show(self) -> None:
        """Show the settings of the slide."""
        settings = DisplaySettings() if self._slide is None else self._slide.settings
        names = ["", *dict(settings.vectors)]
        if names != [self.stain.itemData(i) for i in range(self.stain.count())]:
            self.stain.clear()
            for name in names:
                self.stain.addItem(STAIN_NAMES[name], name)
        self.stain.setCurrentIndex(names.index(settings.stain))
        for setting, slider in self.sliders.items():
            slider.show_value(getattr(settings, setting))
        widgets: list[QWidget] = [self.stain, *self.sliders.values()]
        for widget in widgets:
            widget.setEnabled(self._slide is not None)
        self.reset_button.setEnabled(self._slide is not None and not settings.neutral)

    def _apply(self) -> None:
        self._change(**{name: slider.value for name, slider in self.sliders.items()})

    def _change(self, **settings: Any) -> None:
        if self._slide is not None:
            self._slide.set_display(replace(self._slide.settings, **settings))


class _Slider(QWidget):
    """A slider with its value; factors have a logarithmic scale."""

    def __init__(self, name: str, tip: str, moved: Any) -> None:
        super().__init__()
        self._low, self._high = LIMITS[name]
        self._factor = self._low > 0
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(-100, 100)
        self.slider.setPageStep(10)
        self.slider.setToolTip(tip)
        self.slider.setAccessibleName(name)
        self.label = QLabel()
        self.label.setMinimumWidth(self.fontMetrics().horizontalAdvance("+100 %  "))
        self.label.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.setLayout(row(self.slider, self.label))
        self.slider.valueChanged.connect(self._write)
        self.slider.valueChanged.connect(lambda _value: moved())
        self._write()

    @property
    def value(self) -> float:
        """The setting."""
        share = self.slider.value() / 100
        return float(self._high**share) if self._factor else self._high * share

    def show_value(self, value: float) -> None:
        """Move the slider without a signal."""
        share = math.log(value, self._high) if self._factor else value / self._high
        blocked = self.slider.blockSignals(True)
        self.slider.setValue(round(100 * share))
        self.slider.blockSignals(blocked)
        self._write()

    def _write(self, *_: Any) -> None:
        value = self.value
        self.label.setText(
            f"{value:.2f}"
            if self._factor
            else f"{100 * value:+.0f} %"
            if round(100 * value)
            else "0 %"
        )
