"""Shorter garbage collection while a window is open."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import napari

__all__ = ["fast_removal", "freeze_window"]


def freeze_window(viewer: napari.Viewer) -> None:
    """Exclude the objects of a window without layers from later garbage collections.

    A full collection traverses all objects, on whichever thread triggers it, and blocks the window
    meanwhile: 0.2 s with napari's libraries loaded, a few ms once they are frozen.  Does nothing
    if there are layers already: frozen layers would never be freed.
    """
    if not viewer.layers and not gc.get_freeze_count():
        gc.freeze()


@contextlib.contextmanager
def fast_removal(viewer: napari.Viewer) -> Iterator[None]:
    """Keep the removal of layers fast: napari collects garbage after each one.

    That takes 0.3 s unless its own objects are frozen (`freeze_window`).  If they are not, one
    collection before the removals replaces those after each of them.
    """
    viewer.layers.selection.clear()
    if gc.get_freeze_count():
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
