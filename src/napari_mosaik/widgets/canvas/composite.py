"""Composite overlay: all slides and the PET in one picture.

Background is white in brightfield slides, so the darkest slide is shown at each pixel (minimum
blending): haematoxylin, eosin and both DAB stains at once, below a semi-transparent PET.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_mosaik.core.catalogue import STAINS, SUV
from napari_mosaik.widgets.canvas.layout import Layout
from napari_mosaik.widgets.canvas.layout_state import LayoutState

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["Composite"]

_PET_OPACITY = 0.35
_CHANGED = ("visible", "blending", "opacity")


class Composite(Layout):
    """Shows all slides of a case and its PET in one picture."""

    def __init__(self, link: CanvasLink) -> None:
        super().__init__(link)
        self._settings: dict[Layer, dict[str, Any]] = {}

    def _slides(self) -> list[Layer]:
        layers = [self.board.slide_layer(stain) for stain in STAINS]
        return [layer for layer in layers if layer is not None]

    def is_possible(self) -> bool:
        """Whether a slide is open."""
        return bool(self._slides())

    def arrange(self, before: LayoutState) -> None:
        """Blend the slides, and lay the PET over them."""
        shown = [(layer, "minimum", 1.0) for layer in self._slides()]
        for spec in [spec for spec in self.board.specs.values() if spec.result == SUV.name][:1]:
            known = self.board.layer(spec.name)
            pet = self.board.put(spec) if known is None else known
            if known is None:
                pet.visible = False  # it was not visible before
            shown.append((pet, "translucent", _PET_OPACITY))
        for layer, blending, opacity in shown:
            self._settings[layer] = {name: getattr(layer, name) for name in _CHANGED}
            layer.blending, layer.opacity, layer.visible = blending, opacity, True

    def restore(self, before: LayoutState) -> None:
        """Restore visibility, blending and opacity."""
        settings, self._settings = self._settings, {}
        for layer, values in settings.items():
            for name, value in values.items():
                setattr(layer, name, value)
