"""Rows of napari's layer list: helpers that a reader never handles have none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from napari._qt.containers._base_item_model import ItemRole

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

__all__ = ["keep_out_of_list"]


def keep_out_of_list(viewer: napari.Viewer, layers: Iterable[Layer]) -> None:
    """Show no rows for these layers; every other layer has its row."""
    view: Any = viewer.window._qt_viewer.layers
    model, helpers = view.model(), {id(layer) for layer in layers}
    for row in range(model.rowCount()):
        view.setRowHidden(row, id(model.index(row, 0).data(ItemRole)) in helpers)
