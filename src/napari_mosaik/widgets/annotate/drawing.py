"""Annotation tools on the H&E slide: brush, polygon, lasso, rectangle, select and eraser."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_mosaik.annotate import (
    Area,
    lasso_polygon,
    rectangle_polygon,
    stroke_polygon,
)
from napari_mosaik.core import InputError, Lattice
from napari_mosaik.widgets.annotate.annotation import Annotation
from napari_mosaik.widgets.annotate.annotation_picture import AnnotationPicture, Draft
from napari_mosaik.widgets.canvas.active_tool import MouseHold

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["TOOLS", "Drawing"]

TOOLS = {
    "brush": ("B", "Brush", "Drag to paint; start inside an annotation of this class to extend it"),
    "polygon": ("P", "Polygon", "Click the vertices; double-click or Enter closes the polygon"),
    "lasso": ("L", "Lasso", "Drag around the region"),
    "rectangle": ("R", "Rectangle", "Drag from corner to corner"),
    "select": (
        "V",
        "Select",
        "Click an annotation; Delete removes it, a class key changes its class",
    ),
}
"""Tools by name: key, title and hint."""
_CALM_MS = 30


class Drawing(QObject):
    """Turns the mouse into edits of the annotation document and draws the document.

    ``changed`` is emitted when tool, class or selection change.
    """

    changed = Signal()
    failed = Signal(object)

    def __init__(self, link: CanvasLink, annotation: Annotation) -> None:
        super().__init__(annotation)
        self.link = link
        self.viewer = link.viewer
        self.annotation = annotation
        self.picture = AnnotationPicture(self.viewer)
        self.tool = ""
        self.label = "neoplastic"
        self.brush_px = 20.0
        self.selected = ""
        self._points: list[tuple[float, float]] = []
        self._draft: Area | None = None
        self._erasing = False
        self._hold = MouseHold(link, self._pressed, double_clicked=self._double_clicked)
        self._calm = QTimer(self)
        self._calm.setSingleShot(True)
        self._calm.setInterval(_CALM_MS)
        self._calm.timeout.connect(self._paint)
        annotation.changed.connect(self.redraw)
        annotation.opened.connect(self._opened)
        self.viewer.scene.camera.events.connect(self.redraw)

    # --- on and off -----------------------------------------------------------------------------
    @property
    def is_on(self) -> bool:
        """Whether a tool is in the hand."""
        return bool(self.tool)

    def take(self, tool: str) -> None:
        """Take a tool; an empty name puts it away and gives the mouse back to napari."""
        if tool and self.annotation.document is None:
            self.annotation.open()
            if self.annotation.document is None:
                return
        self._abandon()
        was_on, self.tool = self.is_on, tool
        if not tool:
            self._hold.drop()
        else:
            self._hold.take(self._keys(), pans=tool == "select")
            if not was_on:
                self.link.board.show_slide("he")
                self.redraw()
        self.changed.emit()

    def _keys(self) -> dict[str, Callable[[], Any]]:
        """What the keys do while a tool is in the hand."""
        keys: dict[str, Callable[[], Any]] = {
            key: partial(self.take, tool) for tool, (key, _, _) in TOOLS.items()
        }
        document = self.annotation.document
        for known in document.snapshot.classes if document is not None else ():
            if known.key:
                keys[known.key] = partial(self.choose_class, known.name)
        return {
            **keys,
            "Control-Z": self.undo,
            "Control-Shift-Z": self.redo,
            "Enter": self.finish_polygon,
            "Escape": self._abandon,
            "Delete": self.remove_selected,
        }

    def _opened(self) -> None:
        if self.annotation.document is None:
            self.take("")
            self.picture.remove()
        self.redraw()

    # --- edits ----------------------------------------------------------------------------------
    def choose_class(self, name: str) -> None:
        """The class of what is drawn next; with the select tool, of the selected shape."""
        self.label = name
        document = self.annotation.document
        if self.tool == "select" and self.selected and document is not None:
            self._try(lambda: document.change_class([self.selected], name))
        self.changed.emit()

    def undo(self) -> None:
        """Take back the last edit."""
        if self.annotation.document is not None:
            self._try(self.annotation.document.undo)

    def redo(self) -> None:
        """Make again what was taken back."""
        if self.annotation.document is not None:
            self._try(self.annotation.document.redo)

    def remove_selected(self) -> None:
        """Remove the selected shape."""
        document = self.annotation.document
        if self.selected and document is not None:
            key, self.selected = self.selected, ""
            self._try(lambda: document.remove(key))

    def commit(
        self, area: Area, *, erase: bool = False, at: tuple[float, float] | None = None
    ) -> None:
        """Put a drawn area into the document, or cut it out."""
        document = self.annotation.document
        if document is None:
            return
        if erase:
            self._try(lambda: document.erase(area))
            return
        if self.tool != "brush":
            self._try(lambda: document.add(area, self.label, title=self.tool or "add"))
            return
        under = document.at(at) if at is not None else None
        into = under.key if under is not None and under.label == self.label else None
        self._try(lambda: document.paint(area, self.label, into=into))

    def _try(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except InputError as error:
            self.failed.emit(error)

    # --- mouse ----------------------------------------------------------------------------------
    def _pressed(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        if not self.is_on or event.button != 1:
            return
        start = self.position_um(event.position)
        if start is None:
            return
        self._erasing = "Alt" in event.modifiers
        if self.tool == "select":
            self._select(start)
        elif self.tool == "polygon":
            self._corner(start)
        else:
            yield from self._drag(start, event)

    def _drag(self, start: tuple[float, float], event: Any) -> Generator[None, None, None]:
        self._points = [start]
        self._sketch()
        yield
        while event.type == "mouse_move":
            position = self.position_um(event.position)
            if position is not None:
                self._points.append(position)
                self._sketch()
            yield
        area, erase = self._area(complain=True), self._erasing
        self._abandon()
        if area is not None:
            self.commit(area, erase=erase, at=start)

    def _select(self, at: tuple[float, float]) -> None:
        document = self.annotation.document
        found = document.at(at) if document is not None else None
        self.selected = found.key if found is not None else ""
        self.changed.emit()

    def _corner(self, at: tuple[float, float]) -> None:
        if not self._points or at != self._points[-1]:
            self._points.append(at)
        self._sketch()

    def _double_clicked(self, viewer: Any, event: Any) -> None:
        self.finish_polygon()

    def finish_polygon(self) -> None:
        """Close the polygon that is being drawn."""
        if self.tool != "polygon" or not self._points:
            return
        area, erase = self._area(complain=True), self._erasing
        self._abandon()
        if area is not None:
            self.commit(area, erase=erase)

    def _abandon(self) -> None:
        self._points, self._draft = [], None
        self.redraw()

    def _sketch(self) -> None:
        self._draft = self._area(complain=False)
        self.redraw()

    def _area(self, *, complain: bool) -> Area | None:
        """The area that the hand has drawn so far."""
        try:
            if self.tool == "brush":
                return stroke_polygon(self._points, self.radius_um)
            if self.tool == "rectangle":
                return rectangle_polygon(self._points[0], self._points[-1])
            return lasso_polygon(self._points, 1.0 / self.viewer.scene.camera.zoom)
        except InputError as error:
            if complain:
                self.failed.emit(error)
            return None

    @property
    def radius_um(self) -> float:
        """Radius of the brush, µm: its size on the screen is constant."""
        return float(self.brush_px / 2 / self.viewer.scene.camera.zoom)

    # --- places ---------------------------------------------------------------------------------
    def _slide(self) -> tuple[Layer, Lattice] | None:
        layer = self.link.board.slide_layer("he")
        lazy = self.link.board.slides.get("he")
        return None if layer is None or lazy is None else (layer, lazy.lattices[0])

    def position_um(self, world: Any) -> tuple[float, float] | None:
        """A position of the canvas in µm of the H&E slide; None without that slide."""
        found = self._slide()
        if found is None:
            return None
        layer, lattice = found
        row, column = lattice.to_um([layer.world_to_data(tuple(world)[-2:])])[0]
        return float(row), float(column)

    # --- showing --------------------------------------------------------------------------------
    def redraw(self, *_: Any) -> None:
        """Draw the document soon."""
        if self.annotation.document is not None and not self._calm.isActive():
            self._calm.start()

    def _paint(self) -> None:
        found = self._slide()
        if self.annotation.document is not None and found is not None:
            draft = None
            if self._draft is not None:
                draft = Draft(self._draft, "" if self._erasing else self.label)
            self.picture.paint(self.annotation.document, found[0], found[1], draft)
