"""Magnification and orientation of the view, and their readout."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.components.overlays import TextOverlay
from qtpy.QtCore import QObject, Signal
from superqt.utils import qthrottled

from napari_mosaik.view.measurements import MAGNIFICATIONS, magnification_words, um_per_pixel
from napari_mosaik.view.orientation import Turn
from napari_mosaik.widgets.canvas.camera import (
    centre_um,
    set_turn,
    turn_of,
    visible_um,
    zoom_about,
)
from napari_mosaik.widgets.canvas.keys import CANVAS, KeyMap
from napari_mosaik.widgets.canvas.layout_state import BASE

if TYPE_CHECKING:
    import napari

__all__ = ["UNCALIBRATED", "ViewKeys", "has_pixel_size", "shows_uncalibrated"]

UNCALIBRATED = "mosaik_uncalibrated"
"""In the metadata of a layer whose pixel size is unknown."""
READOUT = "mosaik_magnification"
_READ_MS = 40


class ViewKeys(QObject):
    """Magnification and orientation of a viewer, by key or by call, and their readout.

    ``changed`` is emitted with the text of the readout.
    """

    changed = Signal(str)

    def __init__(self, viewer: napari.Viewer, keys: KeyMap, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.words = ""
        self._overlay = TextOverlay(position="bottom_right", font_size=10, box=True, visible=False)
        viewer.canvas.overlays[READOUT] = self._overlay
        self._show_soon = qthrottled(self._show, timeout=_READ_MS, leading=False, parent=self)
        keys.bind(CANVAS, self._actions())
        for event in self._events():
            event.connect(self._soon)
        viewer.layers.events.inserted.connect(self._watch)
        viewer.layers.events.removed.connect(self._emptied)
        for layer in viewer.layers:
            layer.events.visible.connect(self._soon)
        self._uncalibrated = shows_uncalibrated(viewer)
        self._soon()

    def _actions(self) -> dict[str, Callable[[], None]]:
        return {
            **{
                f"magnify {times:g}x": partial(self.zoom_to, times, at_cursor=True)
                for times in MAGNIFICATIONS
            },
            "rotate": partial(self.turn, Turn.clockwise),
            "flip": partial(self.turn, Turn.mirrored),
            "reset orientation": self.reset,
        }

    def _events(self) -> tuple[Any, ...]:
        viewer = self.viewer
        return (
            viewer.scene.camera.events.zoom,
            viewer.scene.camera.events.orientation,
            viewer.dims.events.order,
            viewer.layers.events.inserted,
            viewer.layers.events.removed,
        )

    def detach(self) -> None:
        """Leave the viewer as it was found."""
        for event in self._events():
            event.disconnect(self._soon)
        self.viewer.layers.events.inserted.disconnect(self._watch)
        self.viewer.layers.events.removed.disconnect(self._emptied)
        for layer in self.viewer.layers:
            layer.events.visible.disconnect(self._soon)
        self._show_soon.cancel()
        self._overlay.visible = False

    # --- magnification --------------------------------------------------------------------------
    def zoom_to(self, times: float, *, at_cursor: bool = False) -> None:
        """Magnify about the centre of the view, or about the mouse when it is over the picture."""
        where = centre_um(self.viewer)
        if at_cursor:
            low, high = visible_um(self.viewer)
            cursor = self.viewer.cursor.position[-2:]
            if all(low <= cursor) and all(cursor <= high):
                where = cursor
        zoom_about(self.viewer, 1.0 / um_per_pixel(times), where)

    @property
    def um_per_px(self) -> float:
        """µm per screen pixel."""
        return 1.0 / float(self.viewer.scene.camera.zoom)

    # --- orientation ----------------------------------------------------------------------------
    def turn(self, how: Callable[[Turn], Turn]) -> None:
        """Rotate or flip the view, such as by ``Turn.clockwise``."""
        set_turn(self.viewer, how(turn_of(self.viewer)))

    def reset(self) -> None:
        """Reset the orientation to as scanned."""
        set_turn(self.viewer, Turn())

    def _watch(self, event: Any) -> None:
        event.value.events.visible.connect(self._soon)
        self._show_scale_bar()

    def _emptied(self, event: Any) -> None:
        """Reset with the last layer: napari then loses half of the orientation."""
        event.value.events.visible.disconnect(self._soon)
        if not len(self.viewer.layers):
            self.reset()

    # --- readout --------------------------------------------------------------------------------
    def _soon(self, *_: Any) -> None:
        self._show_soon()

    def _show_scale_bar(self) -> None:
        """Hide the scale bar with the first slide without a pixel size, show it after the last."""
        uncalibrated = shows_uncalibrated(self.viewer)
        if uncalibrated != self._uncalibrated:
            self._uncalibrated = uncalibrated
            self.viewer.canvas.overlays.scale_bar.visible = not uncalibrated

    def _show(self) -> None:
        self._show_scale_bar()
        words = self._readout()
        if words != self.words:
            self.words = words
            self._overlay.text = "\n".join(map(_with_room, words.split(" · ")))
            self.changed.emit(words)
        shown = bool(words) and not shows_maps_alone(self.viewer)
        if shown != self._overlay.visible:
            self._overlay.visible = shown

    def _readout(self) -> str:
        if not len(self.viewer.layers):
            return ""
        words = magnification_words(self.um_per_px, calibrated=has_pixel_size(self.viewer))
        turn = turn_of(self.viewer)
        return words if turn == Turn() else f"{words} · {turn.words}"


def _with_room(line: str) -> str:
    """A line with blanks in front: napari draws text up to 6 % wider than it measures its box."""
    return "\N{NO-BREAK SPACE}" * (1 + len(line) // 20) + line


def has_pixel_size(viewer: napari.Viewer) -> bool:
    """Whether all visible layers are calibrated, so that lengths on the canvas are µm."""
    shown = [layer for layer in viewer.layers if layer.visible]
    return not shows_uncalibrated(viewer) and all(
        all(str(unit) == "micrometer" for unit in layer.units[-2:]) for layer in shown
    )


def shows_maps_alone(viewer: napari.Viewer) -> bool:
    """Whether maps of tiles fill the canvas as scanned: the magnification would lie on the last."""
    shown = [layer for layer in viewer.layers if layer.visible]
    maps = any(layer.metadata.get(BASE) for layer in shown)
    slides = any(getattr(layer, "rgb", False) for layer in shown)
    return maps and not slides and turn_of(viewer) == Turn()


def shows_uncalibrated(viewer: napari.Viewer) -> bool:
    """Whether a slide without a pixel size is visible: no length on the canvas has a unit."""
    return any(layer.visible and layer.metadata.get(UNCALIBRATED) for layer in viewer.layers)
