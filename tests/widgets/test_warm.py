"""What keeps the window from being held up: compiled colours, one update, rows that stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba.core import event

from napari_mosaik.widgets.base.gc_tuning import in_one_update, warm_up

pytestmark = pytest.mark.gui


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32])
def test_nothing_is_compiled_when_labels_are_first_shown(kind: Any) -> None:
    from napari.layers import Labels

    warm_up().join()
    heard = event.RecordingListener()
    with event.install_listener("numba:compile", heard):
        colours = {None: "transparent", 0: "transparent", 1: "red", 2: "blue"}
        Labels(np.arange(12, dtype=kind).reshape(3, 4) % 3, colormap=colours).refresh()
    assert not heard.buffer


def test_the_canvas_is_arranged_once(dock: Any) -> None:
    viewer = dock.viewer
    canvas, times = viewer.window._qt_viewer.canvas, []
    arrange = canvas._on_interactive
    canvas._on_interactive = lambda *args: (times.append(1), arrange(*args))
    with in_one_update(viewer):
        layers = [viewer.add_image(np.zeros((4, 4)), name=name) for name in "abc"]
        with in_one_update(viewer):
            viewer.layers.move(0, 2)
        viewer.layers.remove(layers[1])
        assert not times
    assert times == [1]
    assert all(canvas.layer_to_visual[layer].node.parent is not None for layer in viewer.layers)


def test_showing_a_layer_leaves_the_rows_of_the_others(dock: Any) -> None:
    from napari_mosaik.view.spec import LayerSpec, placement_um

    board, overlays = dock.board, dock.overlays
    for name in ("one", "two"):
        style = {"contrast_limits": (0, 1)}
        spec = LayerSpec(name, "image", np.zeros((4, 4)), placement_um("cd34"), style)
        board.specs[name] = spec
    board.changed.emit()
    before = dict(overlays._built)
    board.set_shown("two", True)
    assert overlays._built["one"] is before["one"]
    assert overlays._built["two"] is not before["two"]
    assert overlays._built["two"].eye.isChecked()
    board.clear()
    assert not overlays._built
    assert not overlays._empty.isHidden()
