"""Magnification and orientation of the view, and their readout."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_mosaik.view.measurements import MAGNIFICATIONS, magnification_words, um_per_pixel
from napari_mosaik.view.orientation import Turn
from napari_mosaik.widgets.canvas.camera import (
    centre_um,
    set_turn,
    turn_of,
    visible_um,
    zoom_about,
)

if TYPE_CHECKING:
    import napari

__all__ = ["KEYS", "UNCALIBRATED", "ViewKeys", "has_pixel_size"]

KEYS = {
    **{f"Ctrl-{i}": f"{times:g}x" for i, times in enumerate(MAGNIFICATIONS, 1)},
    "Shift-T": "rotate by 90° clockwise",
    "Shift-F": "flip horizontally",
    "Shift-N": "reset orientation",
}
"""Keys and what they do; none is used by napari, by its layers or by the drawing tools."""
UNCALIBRATED = "mosaik_uncalibrated"
"""In the metadata of a layer whose pixels have no size yet."""
READOUT = "mosaik_magnification"
_CALM_MS = 40


class ViewKeys(QObject):
    """Magnification and orientation of a viewer, by key or by call, and what the canvas says.

    ``changed`` is emitted with the words of the readout.
    """

    changed = Signal(str)

    def __init__(self, viewer: napari.Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        from napari.components.overlays import TextOverlay

        self.viewer = viewer
        self.words = ""
        self._overlay = TextOverlay(position="bottom_right", font_size=10, box=True, visible=False)
        viewer.canvas.overlays[READOUT] = self._overlay
        self._calm = QTimer(self)
        self._calm.setSingleShot(True)
        self._calm.setInterval(_CALM_MS)
        self._calm.timeout.connect(self._show)
        for key, act in self._actions().items():
            viewer.bind_key(key, act, overwrite=True)
        for event in self._events():
            event.connect(self._soon)
        viewer.layers.events.removed.connect(self._emptied)
        self._soon()

    def _actions(self) -> dict[str, Callable[[Any], None]]:
        acts: list[Callable[[Any], None]] = [
            *(
                lambda _v, times=times: self.zoom_to(times, at_cursor=True)
                for times in MAGNIFICATIONS
            ),
            lambda _v: self.turn(Turn.clockwise),
            lambda _v: self.turn(Turn.mirrored),
            lambda _v: self.reset(),
        ]
        return dict(zip(KEYS, acts, strict=True))

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
        for key in KEYS:
            self.viewer.bind_key(key, None, overwrite=True)
        for event in self._events():
            event.disconnect(self._soon)
        self.viewer.layers.events.removed.disconnect(self._emptied)
        self._calm.stop()
        self._overlay.visible = False

    # --- magnification --------------------------------------------------------------------------
    def zoom_to(self, times: float, *, at_cursor: bool = False) -> None:
        """Show so many times, about the middle or about the mouse when it is over the picture."""
        where = centre_um(self.viewer)
        if at_cursor:
            low, high = visible_um(self.viewer)
            cursor = self.viewer.cursor.position[-2:]
            if all(low <= cursor) and all(cursor <= high):
                where = cursor
        zoom_about(self.viewer, 1.0 / um_per_pixel(times), where)

    @property
    def um_per_px(self) -> float:
        """µm of the section in one pixel of the screen."""
        return 1.0 / float(self.viewer.scene.camera.zoom)

    # --- orientation ----------------------------------------------------------------------------
    def turn(self, how: Callable[[Turn], Turn]) -> None:
        """Turn or mirror the view further, such as by ``Turn.clockwise``."""
        set_turn(self.viewer, how(turn_of(self.viewer)))

    def reset(self) -> None:
        """The view as the slides were scanned."""
        set_turn(self.viewer, Turn())

    def _emptied(self, _event: Any) -> None:
        """Napari forgets one half of a turn with the last layer; the next case begins anew."""
        if not len(self.viewer.layers):
            self.reset()

    # --- readout --------------------------------------------------------------------------------
    def _soon(self, *_: Any) -> None:
        if not self._calm.isActive():
            self._calm.start()

    def _show(self) -> None:
        words = self._readout()
        if words == self.words:
            return
        self.words = words
        self._overlay.text = words.replace(" · ", "\n")
        self._overlay.visible = bool(words)
        self.changed.emit(words)

    def _readout(self) -> str:
        if not len(self.viewer.layers):
            return ""
        words = magnification_words(self.um_per_px, calibrated=has_pixel_size(self.viewer))
        turn = turn_of(self.viewer)
        return words if turn == Turn() else f"{words} · {turn.words}"


def has_pixel_size(viewer: napari.Viewer) -> bool:
    """Whether lengths on the canvas are µm: what is visible has its unit and its pixel size."""
    shown = [layer for layer in viewer.layers if layer.visible]
    return all(
        all(str(unit) == "micrometer" for unit in layer.units[-2:])
        and not layer.metadata.get(UNCALIBRATED)
        for layer in shown
    )
