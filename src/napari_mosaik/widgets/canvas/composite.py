"""Composite overlay: all slides and the PET in one picture.

Background is white in brightfield slides, so the darkest slide is shown at each pixel (minimum
blending): haematoxylin, eosin and both DAB stains at once, below a semi-transparent PET.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_mosaik.core.catalogue import STAIN_TITLES, SUV
from napari_mosaik.widgets.canvas.layer_board import LayerBoard

if TYPE_CHECKING:
    from napari.layers import Layer

__all__ = ["AllInOne"]

_PET_OPACITY = 0.35
_LOOKS = ("visible", "blending", "opacity")


class AllInOne(QObject):
    """Shows all slides of a case in one composite and restores them afterwards.

    ``entering`` is emitted before anything is changed, ``changed`` with whether it is on.
    """

    changed = Signal(bool)
    entering = Signal()

    def __init__(self, board: LayerBoard) -> None:
        super().__init__(board)
        self.board = board
        self._before: dict[Layer, dict[str, Any]] = {}
        board.controller.workspace.events.case.connect(self.leave)

    @property
    def is_on(self) -> bool:
        """Whether the composite is shown."""
        return bool(self._before)

    def toggle(self) -> None:
        """In or out."""
        if self.is_on:
            self.leave()
        else:
            self.enter()

    def enter(self) -> bool:
        """Show the composite; False when there is no slide."""
        slides = [self.board.layer(title) for title in STAIN_TITLES.values()]
        shown = [layer for layer in slides if layer is not None]
        if self.is_on or not shown:
            return False
        self.entering.emit()
        looks = [(layer, "minimum", 1.0) for layer in shown]
        pets = [spec for spec in self.board.specs.values() if spec.artifact == SUV.name]
        if pets:
            known = self.board.layer(pets[0].name)
            pet = self.board.put(pets[0]) if known is None else known
            looks.append((pet, "translucent", _PET_OPACITY))
            if known is None:
                pet.visible = False  # it was not seen before
        for layer, blending, opacity in looks:
            self._before[layer] = {name: getattr(layer, name) for name in _LOOKS}
            layer.blending, layer.opacity, layer.visible = blending, opacity, True
        self.changed.emit(True)
        return True

    def leave(self, *_: Any) -> None:
        """Each layer as it was."""
        if not self.is_on:
            return
        before, self._before = self._before, {}
        for layer, looks in before.items():
            for name, value in looks.items():
                setattr(layer, name, value)
        self.changed.emit(False)
