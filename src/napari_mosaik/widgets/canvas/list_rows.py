"""Rows of napari's layer list: helpers have none; layers that are dismissed go in turns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from napari._qt.containers._base_item_model import ItemRole

from napari_mosaik.widgets.base.gc_tuning import in_one_update, remove_hidden

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

__all__ = [
    "any_dismissed",
    "dismiss",
    "is_there",
    "keep_out_of_list",
    "make_room",
    "remove_dismissed",
    "unlisted",
]


_UNLISTED = "mosaik_unlisted"
"""In the metadata of a layer that has no row in the list."""
_DISMISSED = "mosaik_dismissed"
"""In the metadata of a hidden layer that is about to be removed."""


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


def unlisted(viewer: napari.Viewer) -> list[Layer]:
    """The layers without a row in the list."""
    return [layer for layer in viewer.layers if _UNLISTED in layer.metadata]


def dismiss(viewer: napari.Viewer, layers: Iterable[Layer]) -> None:
    """Hide layers for good; `remove_dismissed` removes them, which takes much longer."""
    gone = [layer for layer in layers if is_there(viewer, layer)]
    if not gone:
        return
    viewer.layers.selection.difference_update(gone)
    with in_one_update(viewer):
        for layer in gone:
            layer.metadata[_DISMISSED] = True
            if layer.visible:
                layer.visible = False
    keep_out_of_list(viewer, gone)


def is_there(viewer: napari.Viewer, layer: Layer) -> bool:
    """Whether a layer is in the list, and not only until it is removed."""
    return layer in viewer.layers and _DISMISSED not in layer.metadata


def any_dismissed(viewer: napari.Viewer) -> bool:
    """Whether a layer that was dismissed is not removed yet."""
    return any(_DISMISSED in layer.metadata for layer in viewer.layers)


def remove_dismissed(viewer: napari.Viewer) -> Iterator[None]:
    """Remove the layers that were dismissed, one after another."""
    while left := [layer for layer in viewer.layers if _DISMISSED in layer.metadata]:
        remove_hidden(viewer, left.pop())
        left.clear()  # what waits for its next turn holds no layer
        yield


def make_room(viewer: napari.Viewer, name: str) -> None:
    """Remove what was dismissed under a name that is needed again: no two layers have one name."""
    for layer in [one for one in viewer.layers if one.name == name]:
        if _DISMISSED in layer.metadata:
            remove_hidden(viewer, layer)
