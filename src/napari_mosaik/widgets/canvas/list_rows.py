"""Rows of napari's layer list: helpers that a reader never handles have none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from napari._qt.containers._base_item_model import ItemRole

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

__all__ = ["keep_out_of_list"]


_UNLISTED = "mosaik_unlisted"
"""In the metadata of a layer that has no row in the list."""


def keep_out_of_list(
    viewer: napari.Viewer, layers: Iterable[Layer], listed: Iterable[Layer] = ()
) -> None:
    """Show no rows for *layers*, as long as they are in the viewer; rows again for *listed*."""
    for layer in layers:
        layer.metadata[_UNLISTED] = True
    for layer in listed:
        layer.metadata.pop(_UNLISTED, None)
    view: Any = viewer.window._qt_viewer.layers
    model = view.model()
    for row in range(model.rowCount()):
        view.setRowHidden(row, _UNLISTED in model.index(row, 0).data(ItemRole).metadata)
