"""How a viewer is laid out: camera, grid, order and visibility of layers, to come back to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_mosaik.core import FloatArray
from napari_mosaik.widgets.canvas.camera import centre_um, look_at

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

__all__ = ["BASE", "Arrangement", "is_base", "put_in_order", "show_grid"]

BASE = "mosaik_base"
"""In the metadata of a layer that is no overlay: what lies at the bottom of a cell."""


@dataclass(frozen=True, slots=True, eq=False)
class Arrangement:
    """What a layout of the canvas changes, as it was before.

    Parameters
    ----------
    order
        The layers from the bottom up.
    shown
        Which of them were visible.
    centre_um, zoom
        Where the camera looked: (row, column) in µm, screen pixels per µm.
    grid
        napari's grid: whether it was on, its stride, shape and spacing.
    """

    order: tuple[Layer, ...]
    shown: dict[Layer, bool]
    centre_um: FloatArray
    zoom: float
    grid: tuple[Any, ...]

    @classmethod
    def of(cls, viewer: napari.Viewer) -> Arrangement:
        """The present one."""
        grid = viewer.canvas.grid
        return cls(
            tuple(viewer.layers),
            {layer: bool(layer.visible) for layer in viewer.layers},
            centre_um(viewer),
            float(viewer.scene.camera.zoom),
            (grid.enabled, grid.stride, grid.shape, grid.spacing),
        )

    def restore_grid(self, viewer: napari.Viewer) -> None:
        """The grid as it was."""
        grid = viewer.canvas.grid
        grid.enabled, grid.stride, grid.shape, grid.spacing = self.grid

    def restore_layers(self, viewer: napari.Viewer, layers: Iterable[Layer] | None = None) -> None:
        """Order of all, and visibility of some or of all; layers that came since stay on top."""
        put_in_order(viewer, [layer for layer in self.order if layer in viewer.layers])
        for layer in self.order if layers is None else layers:
            if layer in viewer.layers and layer in self.shown:
                layer.visible = self.shown[layer]

    def restore_camera(self, viewer: napari.Viewer) -> None:
        """Place and magnification as they were."""
        look_at(viewer, self.centre_um, self.zoom)


def put_in_order(viewer: napari.Viewer, layers: Iterable[Layer]) -> None:
    """Bring these layers to the bottom of the list, in this order."""
    for place, layer in enumerate(layers):
        now = viewer.layers.index(layer)
        if now != place:
            viewer.layers.move(now, place)


def show_grid(viewer: napari.Viewer, stride: int, shape: tuple[int, int]) -> None:
    """Cells of *stride* layers each, from the bottom of the list, with linked cameras."""
    grid = viewer.canvas.grid
    grid.stride, grid.shape, grid.spacing = stride, shape, 0.02
    grid.enabled = True


def is_base(layer: Layer) -> bool:
    """Whether a layer is a picture and no overlay: a slide, or the picture of a cell."""
    return bool(getattr(layer, "rgb", False) or layer.metadata.get(BASE))
