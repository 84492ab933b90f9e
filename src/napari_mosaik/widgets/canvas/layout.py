"""What the layouts of the canvas have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_mosaik.widgets.canvas.layout_state import LayoutState

if TYPE_CHECKING:
    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["Layout"]


class Layout(QObject):
    """A layout that takes the place of the single view and restores it afterwards.

    The canvas shows at most one layout (``CanvasLink.layout``); to enter one leaves the other, and
    ends a tool that needs the single view.  ``changed`` is emitted with whether it is shown.
    """

    changed = Signal(bool)

    def __init__(self, link: CanvasLink) -> None:
        super().__init__(link)
        self.link, self.viewer, self.board = link, link.viewer, link.board
        self.before: LayoutState | None = None
        link.events.layout.connect(self._switched)
        link.workspace.events.case.connect(self._case_changed)

    @property
    def is_on(self) -> bool:
        """Whether the layout is shown."""
        return self.link.layout is self

    def toggle(self) -> None:
        """Enter or leave."""
        if self.is_on:
            self.leave()
        else:
            self.enter()

    def enter(self) -> bool:
        """Show the layout; False when there is nothing to show or it is shown already."""
        if self.is_on or not self.is_possible():
            return False
        tool = self.link.active_tool
        if tool is not None and tool.exclusive:
            tool.release()
        self.link.layout = None  # the layout that was shown restores the canvas first
        self.link.layout = self
        return True

    def leave(self) -> None:
        """Restore the canvas."""
        if self.is_on:
            self.link.layout = None

    def _switched(self, layout: QObject | None, former: QObject | None) -> None:
        if layout is self:
            self.before = LayoutState.of(self.viewer)
            self.arrange(self.before)
        elif former is self and self.before is not None:
            before, self.before = self.before, None
            self.restore(before)
        else:
            return
        self.changed.emit(self.is_on)

    def _case_changed(self, *_: Any) -> None:
        self.leave()

    # --- what a layout defines ------------------------------------------------------------------
    def is_possible(self) -> bool:
        """Whether there is something to show."""
        raise NotImplementedError

    def arrange(self, before: LayoutState) -> None:
        """Arrange the canvas."""
        raise NotImplementedError

    def restore(self, before: LayoutState) -> None:
        """Put the canvas back."""
        raise NotImplementedError
