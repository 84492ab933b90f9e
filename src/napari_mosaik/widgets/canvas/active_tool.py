"""Mouse and keys of the canvas in the hand of one tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer

if TYPE_CHECKING:
    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["MouseHold"]


class MouseHold(QObject):
    """Gives the mouse and the keys of the canvas to a tool, and back to napari.

    At first, and with every new layer, no layer is chosen: it would take keys such as Ctrl+Z; a
    person may choose one for its controls.  A drag moves the picture only where the tool allows
    it; napari allows it anew whenever another layer, or none, is chosen.
    A double click is the tool's alone: napari would magnify.

    Parameters
    ----------
    link
        The canvas; another tool that has its mouse must let it go first.
    pressed, moved, double_clicked
        What the tool does with the mouse, as napari's callbacks.
    """

    def __init__(
        self,
        link: CanvasLink,
        pressed: Callable[..., Any],
        *,
        moved: Callable[..., Any] | None = None,
        double_clicked: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(link)
        self.link, self.viewer = link, link.viewer
        self._callbacks = [(self.viewer.mouse_drag_callbacks, pressed)]
        if moved is not None:
            self._callbacks.append((self.viewer.mouse_move_callbacks, moved))
        self._double = [] if double_clicked is None else [double_clicked]
        self._double_of_napari: list[Any] = []
        self._keys: list[str] = []
        self._pans = True

    @property
    def is_on(self) -> bool:
        """Whether the tool has the mouse."""
        return self.link.holder is self

    def take(self, keys: Mapping[str, Callable[[], Any]], *, pans: bool) -> None:
        """Take mouse and keys, or say anew whether a drag moves the picture."""
        self._pans = pans
        if not self.is_on:
            if self.link.holder is not None:
                self.link.holder.drop()
            self.link.holder = self
            for callbacks, act in self._callbacks:
                callbacks.append(act)
            self._double_of_napari = list(self.viewer.mouse_double_click_callbacks)
            self.viewer.mouse_double_click_callbacks[:] = self._double
            for key, do in keys.items():
                self.viewer.bind_key(key, lambda _v, do=do: do(), overwrite=True)
            self._keys = list(keys)
            self.viewer.layers.events.inserted.connect(self._layer_came)
            self.viewer.scene.camera.events.mouse_pan.connect(self._hold_still)
        self._let_go()

    def drop(self) -> None:
        """Give mouse and keys back."""
        if not self.is_on:
            return
        self.link.holder = None
        self.viewer.layers.events.inserted.disconnect(self._layer_came)
        self.viewer.scene.camera.events.mouse_pan.disconnect(self._hold_still)
        for callbacks, act in self._callbacks:
            callbacks.remove(act)
        self.viewer.mouse_double_click_callbacks[:] = self._double_of_napari
        for key in self._keys:
            self.viewer.bind_key(key, None, overwrite=True)
        chosen = self.viewer.layers.selection.active
        self.viewer.scene.camera.mouse_pan = chosen is None or chosen.mouse_pan

    def _layer_came(self, *_: Any) -> None:
        QTimer.singleShot(0, self._let_go)  # napari chooses a new layer once it is in the list

    def _let_go(self) -> None:
        if self.is_on:
            self.viewer.layers.selection.clear()
            self._hold_still()

    def _hold_still(self, *_: Any) -> None:
        self.viewer.scene.camera.mouse_pan = self._pans
