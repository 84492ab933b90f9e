"""What keeps the window quick: compiled beforehand, one update, short garbage collection."""

from __future__ import annotations

import contextlib
import gc
import string
import threading
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, QTimer

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

__all__ = [
    "fast_removal",
    "freeze_window",
    "in_one_update",
    "prepare_letters",
    "unselected",
    "warm_up",
    "without_drawing",
]

_MODULES = (
    "matplotlib.colors",
    "scipy.ndimage",
    "shapely",
    "matplotlib.backends.backend_qtagg",
    "pydicom",
    "requests",
)
"""Libraries that the window needs soon after a case is open."""
_LABELS = (np.uint8, np.int32, np.uint16)
"""Types of the label images that are shown: for each, napari compiles how it colours them."""
_LETTERS = "HE&CD34AIX PTµm²·×" + string.digits + string.ascii_lowercase + "SUVMN.,()-%/"
"""What is written on the canvas: names of stains and maps, the readout, scales."""
_frozen: list[bool] = []
"""Whether a window is frozen; to count what is frozen takes 0.2 s."""


def freeze_window(viewer: napari.Viewer) -> None:
    """Exclude the objects of a window without layers from later garbage collections.

    A full collection traverses all objects, on whichever thread triggers it, and blocks the window
    meanwhile: 0.2 s with napari's libraries loaded, a few ms once they are frozen.  Does nothing
    if there are layers already: frozen layers would never be freed.
    """
    if not viewer.layers and not _frozen:
        gc.freeze()
        _frozen.append(True)


@contextlib.contextmanager
def in_one_update(viewer: napari.Viewer) -> Iterator[None]:
    """Let napari arrange its canvas once, after all changes of the layers that are made inside.

    It would do so after each: every layer that is added, moved, shown or removed costs as much as
    all layers together.  Names and scales of the views are placed once, too: napari places all of
    them again for each layer, a third of what entering a layout takes.  May be nested.
    (`LayerList.batched_update` cannot, and collects garbage.)
    """
    canvas = viewer.window._qt_viewer.canvas
    if canvas._pause_scene_graph:
        yield
        return
    canvas._pause_scene_graph = True
    canvas._get_ordered_visible_canvas_overlays = lambda: iter(())
    try:
        yield
    finally:
        canvas._pause_scene_graph = False
        try:
            canvas._update_scenegraph()
        finally:
            del canvas._get_ordered_visible_canvas_overlays
            canvas._update_overlay_canvas_positions()


@contextlib.contextmanager
def fast_removal(viewer: napari.Viewer) -> Iterator[None]:
    """Keep the removal of layers fast: napari collects garbage after each one.

    That takes 0.3 s unless its own objects are frozen (`freeze_window`).  If they are not, one
    collection before the removals replaces those after each of them.
    """
    viewer.layers.selection.clear()
    if not _frozen:
        gc.collect()
        gc.freeze()
    try:
        with in_one_update(viewer):
            yield
    finally:
        if not _frozen:
            gc.unfreeze()


@contextlib.contextmanager
def unselected(viewer: napari.Viewer) -> Iterator[None]:
    """Add layers without selecting each in its turn, which shows its controls."""
    before, viewer.layers._activate_on_insert = viewer.layers._activate_on_insert, False
    try:
        yield
    finally:
        viewer.layers._activate_on_insert = before


def without_drawing(layer: Layer) -> None:
    """Spare a label image that cannot be edited what napari draws for its brush and polygon.

    Their shaders take a third of the time that showing the layer for the first time takes.
    """
    for name in ("polygon", "brush_stroke"):
        if name in layer._overlays:
            layer._overlays[name].visible = False


def prepare_letters(viewer: napari.Viewer, owner: QObject) -> None:
    """Prepare the letters of the canvas, one in each turn of the event loop, as long as *owner* is.

    Each takes 5 ms; all those of a text at once hold up the window when it is first shown.
    """
    info = viewer.window._qt_viewer.canvas.font_info()
    font, left = info.font_manager.get_font(info.face), list(dict.fromkeys(_LETTERS))
    timer = QTimer(owner)

    def one() -> None:
        _ = font[left.pop(0)]
        if not left:
            timer.stop()
            timer.deleteLater()

    timer.timeout.connect(one)
    timer.start(0)


@cache
def warm_up() -> threading.Thread:
    """Load libraries and compile the colouring of labels, once in a process; the thread."""
    thread = threading.Thread(target=_work, name="mosaik-warm-up")
    thread.start()
    return thread


def _work() -> None:
    main = threading.main_thread()
    pieces: list[Callable[[], object]] = [partial(_colour, kind) for kind in _LABELS]
    pieces += [partial(import_module, name) for name in _MODULES]
    for piece in pieces:
        if main.is_alive():  # the program has not ended meanwhile
            with contextlib.suppress(ImportError):  # a library that nothing here needs
                piece()


def _colour(kind: type[np.unsignedinteger | np.signedinteger]) -> None:
    """Colour a label image as a layer does.

    Without a layer: pint, which layers ask for units, is not made for several threads.
    """
    from napari.utils.colormaps import DirectLabelColormap

    colours = DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", 1: "red"})
    colours.map(np.ones((4, 4), kind))
    colours._data_to_texture(np.zeros(0, kind))  # so does a layer ask for the type of its slices
