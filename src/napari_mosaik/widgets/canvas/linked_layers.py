"""Copies of a layer for the other cells of a grid: they look as the layer does, at any time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.layers import Layer

__all__ = ["Twin"]

_PLACE = ("scale", "translate", "affine")
_FOLLOWED = (
    *_PLACE,
    "visible",
    "opacity",
    "blending",
    "contour",
    "colormap",
    "contrast_limits",
    "gamma",
    "edge_color",
    "edge_width",
    "size",
    "features",
)
"""What a copy takes over, of those that its kind of layer has."""


class Twin:
    """A copy of a layer that shares its pixels and follows its looks until `part` is called."""

    def __init__(self, source: Layer, cell: str) -> None:
        from napari.layers import Layer as Base

        self.source = source
        data, state, kind = source.as_layer_data_tuple()
        state |= {"name": f"{source.name} · {cell}", "metadata": {}}
        self.layer = Base.create(data, state, kind)
        self.layer.editable = False
        self._links: list[tuple[Any, Any]] = []
        for name in _FOLLOWED:
            if hasattr(source.events, name) and hasattr(source, name):
                self._link(name, partial(self._take, name))
        if hasattr(source, "contour"):
            self._take("contour")  # the one that is no part of a layer's state
        self._link("data", self._take_data)

    def _link(self, name: str, act: Any) -> None:
        signal = getattr(self.source.events, name)
        signal.connect(act)
        self._links.append((signal, act))

    def _take(self, name: str, _event: Any = None) -> None:
        setattr(self.layer, name, getattr(self.source, name))

    def _take_data(self, _event: Any) -> None:
        self.layer.data = self.source.data
        for name in _PLACE:
            self._take(name)

    def part(self) -> None:
        """Follow no more."""
        for signal, act in self._links:
            signal.disconnect(act)
        self._links.clear()
