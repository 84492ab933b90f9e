"""Centre, zoom and orientation of the view, as (row, column) in µm at every orientation.

napari gives the centre of its camera in screen order; the rest of the program uses these functions
and never reads the camera.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mosaik.core import FloatArray
from napari_mosaik.view.orientation import Turn

if TYPE_CHECKING:
    import napari

__all__ = ["centre_um", "fit", "look_at", "set_turn", "turn_of", "visible_um", "zoom_about"]


def turn_of(viewer: napari.Viewer) -> Turn:
    """Orientation of the view."""
    vertical, horizontal = viewer.scene.camera.orientation2d
    return Turn.of_view(tuple(viewer.dims.order), (str(vertical), str(horizontal)))


def set_turn(viewer: napari.Viewer, turn: Turn) -> None:
    """Rotate or flip the view about its centre."""
    centre, zoom = centre_um(viewer), float(viewer.scene.camera.zoom)
    viewer.dims.order = turn.order(viewer.dims.ndim)  # napari fits the view whenever it changes
    viewer.scene.camera.orientation2d = turn.orientation
    look_at(viewer, centre, zoom)


def centre_um(viewer: napari.Viewer) -> FloatArray:
    """Centre of the view, (row, column) in µm."""
    return _world(viewer, viewer.scene.camera.center[-2:])


def visible_um(viewer: napari.Viewer) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest (row, column) of the field of view, or of one view of a grid, in µm."""
    half = _world(viewer, viewer.canvas.viewbox_size(viewer.layers)) / 2 / viewer.scene.camera.zoom
    centre = centre_um(viewer)
    return centre - half, centre + half


def look_at(viewer: napari.Viewer, where_um: Any, zoom: float | None = None) -> None:
    """Centre the view on a position in µm; *zoom* in screen pixels per µm, None to keep it."""
    camera = viewer.scene.camera
    if zoom is not None:
        camera.zoom = zoom
    down, right = _world(viewer, where_um)
    camera.center = (*camera.center[:-2], float(down), float(right))


def zoom_about(viewer: napari.Viewer, zoom: float, where_um: Any) -> None:
    """Change the zoom about a position, which stays where it is on the screen."""
    fixed, centre = np.asarray(where_um, float), centre_um(viewer)
    look_at(viewer, fixed + (centre - fixed) * viewer.scene.camera.zoom / zoom, zoom)


def fit(viewer: napari.Viewer, low_um: Any, high_um: Any, share: float = 0.95) -> None:
    """Fit a rectangle, in µm, into a share of the view, or of one view of a grid."""
    low, high = np.asarray(low_um, float), np.asarray(high_um, float)
    room = _world(viewer, viewer.canvas.viewbox_size(viewer.layers))
    look_at(viewer, (low + high) / 2, share * float((room / np.maximum(high - low, 1e-6)).min()))


def _world(viewer: napari.Viewer, pair: Any) -> FloatArray:
    """Convert between (down, right) on the screen and (row, column); signs do not matter."""
    down, right = pair
    return np.array([right, down] if turn_of(viewer).transposed else [down, right], float)
