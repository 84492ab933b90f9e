"""Annotation tools on the H&E slide: brush, polygon, lasso, rectangle, select and eraser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer
from numpy.typing import NDArray
from qtpy.QtCore import Signal
from superqt.utils import qthrottled

from napari_mosaik.annotate import (
    AnnotationDocument,
    Area,
    TissueClass,
    lasso_polygon,
    rectangle_polygon,
    stroke_polygon,
)
from napari_mosaik.core import FloatArray, InputError, Lattice
from napari_mosaik.core.rasterise import rasterise
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.view.layers import ANNOTATIONS_TITLE, OUTLINE, annotation_layer
from napari_mosaik.widgets.annotate.annotation import Annotation
from napari_mosaik.widgets.base.reader import with_reader
from napari_mosaik.widgets.canvas.active_tool import CanvasTool, ToolMode
from napari_mosaik.widgets.canvas.camera import visible_um
from napari_mosaik.widgets.canvas.mouse import Pointer, affine_of

if TYPE_CHECKING:
    import napari

    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["Drawing"]

_DRAW_MS = 30
LAYER = ANNOTATIONS_TITLE
LONGEST_PX = 1600


class Drawing(CanvasTool):
    """Turns the mouse into edits of the annotation document, and draws the document.

    ``changed`` is also emitted when class or selection change; ``failed`` with the error of an
    edit that is refused.
    """

    name = "annotation"
    modes = {  # noqa: RUF012
        "brush": ToolMode(
            "Brush", "Drag to paint; start inside an annotation of this class to extend it"
        ),
        "polygon": ToolMode(
            "Polygon",
            "Click the vertices; double-click or Enter closes the polygon",
            clicks=True,
        ),
        "lasso": ToolMode("Lasso", "Drag around the region"),
        "rectangle": ToolMode("Rectangle", "Drag from corner to corner"),
        "select": ToolMode(
            "Select",
            "Click an annotation; Delete removes it, a class key changes its class",
            pans=True,
            cursor="standard",
        ),
    }
    failed = Signal(object)

    def __init__(self, link: CanvasLink, annotation: Annotation) -> None:
        super().__init__(link)
        self.board = link.board
        self.annotation = annotation
        self.picture = AnnotationPicture(self.viewer)
        self.label = "neoplastic"
        self.brush_px = 20.0
        self.selected = ""
        self._points: list[tuple[float, float]] = []
        self._draft: Area | None = None
        self._erasing = False
        self._paint_soon = qthrottled(self._paint, timeout=_DRAW_MS, leading=False, parent=self)
        annotation.changed.connect(self.redraw)
        annotation.opened.connect(self._opened)
        self.viewer.scene.camera.events.connect(self.redraw)

    # --- on and off -----------------------------------------------------------------------------
    def take(self, mode: str = "") -> None:
        """Become the active tool, after the reader is known."""
        take = super().take
        with_reader(self.board.controller, self.viewer.window._qt_window, lambda: take(mode))

    def prepare(self, mode: str) -> bool:
        """Open the document of the case; False without one."""
        if self.annotation.document is None:
            self.annotation.open()
        return self.annotation.document is not None

    def on(self) -> None:
        """Show the H&E slide alone."""
        self.board.show_slide("he")
        self.redraw()

    def detach(self) -> None:
        """Follow the camera no longer."""
        super().detach()
        self._paint_soon.cancel()
        self.viewer.scene.camera.events.disconnect(self.redraw)

    def actions(self) -> Mapping[str, Callable[[], Any]]:
        """Keys of tools, classes and edits."""
        document = self.annotation.document
        classes = document.classes if document is not None else ()
        return {
            **{mode: partial(self.take, mode) for mode in self.modes},
            **{
                f"class {known.key}": partial(self.choose_class, known.name)
                for known in classes
                if known.key
            },
            "undo": self.undo,
            "redo": self.redo,
            "finish": self.finish_polygon,
            "discard": self.reset,
            "delete": self.remove_selected,
        }

    def _opened(self) -> None:
        if self.annotation.document is None:
            self.release()
            self.picture.remove()
        self.redraw()

    # --- edits ----------------------------------------------------------------------------------
    def choose_class(self, name: str) -> None:
        """Class of the next annotation; with the select tool, of the selected one."""
        self.label = name
        document = self.annotation.document
        if self.mode == "select" and self.selected and document is not None:
            self._try(lambda: document.change_class([self.selected], name))
        self.changed.emit()

    def undo(self) -> None:
        """Undo the last edit."""
        if self.annotation.document is not None:
            self._try(self.annotation.document.undo)

    def redo(self) -> None:
        """Redo the last undone edit."""
        if self.annotation.document is not None:
            self._try(self.annotation.document.redo)

    def remove_selected(self) -> None:
        """Delete the selected annotation."""
        document = self.annotation.document
        if self.selected and document is not None:
            key, self.selected = self.selected, ""
            self._try(lambda: document.remove(key))

    def commit(
        self, area: Area, *, erase: bool = False, at: tuple[float, float] | None = None
    ) -> None:
        """Add a drawn area to the document, or erase it."""
        document = self.annotation.document
        if document is None:
            return
        if erase:
            self._try(lambda: document.erase(area))
            return
        if self.mode != "brush":
            self._try(lambda: document.add(area, self.label, title=self.mode or "add"))
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
    def pressed(self, pointer: Pointer) -> None:
        """Select, set a vertex, or start a stroke."""
        if self._slide() is None:
            self.failed.emit(InputError("the H&E slide is still being opened; draw it again"))
            return
        start = pointer.position_um
        self._erasing = "Alt" in pointer.modifiers
        if self.mode == "select":
            self._select(start)
        elif self.mode == "polygon":
            if not self._points or start != self._points[-1]:
                self._points.append(start)
            self.sketch()
        else:
            self._points = [start]
            self.sketch()

    def moved(self, pointer: Pointer) -> None:
        """Continue the stroke."""
        if self._points and self.mode not in ("select", "polygon"):
            self._points.append(pointer.position_um)

    def released(self, pointer: Pointer) -> None:
        """Finish the stroke."""
        if self._points and self.mode not in ("select", "polygon"):
            self._finish(at=self._points[0])

    def double_clicked(self) -> None:
        """Close the polygon."""
        self.finish_polygon()

    def finish_polygon(self) -> None:
        """Close the polygon that is being drawn."""
        if self.mode == "polygon" and self._points:
            self._finish()

    def _finish(self, at: tuple[float, float] | None = None) -> None:
        area, erase = self._area(complain=True), self._erasing
        self.reset()
        if area is not None:
            self.commit(area, erase=erase, at=None if at is None else self.position_um(at))

    def _select(self, at: tuple[float, float]) -> None:
        document, place = self.annotation.document, self.position_um(at)
        shape = document.at(place) if document is not None and place is not None else None
        self.selected = shape.key if shape is not None else ""
        self.changed.emit()

    def reset(self) -> None:
        """Discard the area being drawn."""
        self._points, self._draft = [], None
        self.redraw()

    def sketch(self) -> None:
        """Show the area drawn so far."""
        self._draft = self._area(complain=False)
        self.redraw()

    def _area(self, *, complain: bool) -> Area | None:
        """The area drawn so far."""
        try:
            points = self._on_slide(self._points)
            if self.mode == "brush":
                return stroke_polygon(points, self.radius_um)
            if self.mode == "rectangle":
                return rectangle_polygon(tuple(points[0]), tuple(points[-1]))
            return lasso_polygon(points, 1.0 / self.viewer.scene.camera.zoom)
        except InputError as error:
            if complain:
                self.failed.emit(error)
            return None

    @property
    def radius_um(self) -> float:
        """Radius of the brush, µm: its size on the screen is constant."""
        return float(self.brush_px / 2 / self.viewer.scene.camera.zoom)

    # --- positions ------------------------------------------------------------------------------
    def _slide(self) -> tuple[Layer, Lattice] | None:
        layer = self.board.slide_layer("he")
        lazy = self.board.slides.get("he")
        return None if layer is None or lazy is None else (layer, lazy.lattices[0])

    def position_um(self, world: Any) -> tuple[float, float] | None:
        """Position on the canvas as (row, column) in µm of the H&E slide; None without it."""
        if self._slide() is None:
            return None
        row, column = self._on_slide([tuple(world)[-2:]])[0]
        return float(row), float(column)

    def _on_slide(self, places: Any) -> FloatArray:
        """Positions (n, 2) on the canvas as (row, column) in µm of the H&E slide."""
        slide = self._slide()
        if slide is None:
            raise InputError("the H&E slide was closed; open it and draw it again")
        layer, lattice = slide
        matrix = affine_of(lambda place: lattice.to_um([layer.world_to_data(place)])[0])
        return np.asarray(places, float) @ matrix[:, :2].T + matrix[:, 2]

    # --- showing --------------------------------------------------------------------------------
    def redraw(self, *_: Any) -> None:
        """Draw the document soon."""
        if self.annotation.document is not None:
            self._paint_soon()

    def _paint(self) -> None:
        slide = self._slide()
        if self.annotation.document is not None and slide is not None:
            draft = None
            if self._draft is not None:
                draft = Draft(self._draft, "" if self._erasing else self.label)
            self.picture.paint(self.annotation.document, slide[0], slide[1], draft)


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """The area being drawn; an empty label is the eraser."""

    area: Area
    label: str


class AnnotationPicture:
    """A read-only labels layer over the visible part of the H&E slide."""

    def __init__(self, viewer: napari.Viewer) -> None:
        self.viewer = viewer
        self._classes: tuple[TissueClass, ...] = ()

    def layer(self) -> Layer | None:
        """The layer, or None before the first annotation."""
        return next((layer for layer in self.viewer.layers if layer.name == LAYER), None)

    def remove(self) -> None:
        """Remove the layer."""
        layer = self.layer()
        if layer is not None:
            self.viewer.layers.remove(layer)

    def paint(
        self,
        document: AnnotationDocument,
        slide: Layer,
        slide_lattice: Lattice,
        draft: Draft | None,
    ) -> None:
        """Draw the visible annotations and the draft."""
        lattice = self._visible(slide, slide_lattice)
        if lattice is None:
            return
        low = lattice.origin_um
        high = (low[0] + lattice.extent_um[0], low[1] + lattice.extent_um[1])
        classes = document.classes
        codes = {known.name: code for code, known in enumerate(classes, 1)}
        shapes = document.visible((*low, *high))
        if draft is not None and draft.label:
            shapes = [*shapes, AnnotatedShape("draft", draft.label, draft.area)]
        pixels = rasterise(shapes, lattice, codes)
        if draft is not None and not draft.label:
            cut = AnnotatedShape("draft", "cut", draft.area)
            pixels[rasterise([cut], lattice, {"cut": 1}) > 0] = 0
        pixels[_edges(pixels)] += OUTLINE
        self._put(pixels, lattice, classes, slide)

    def _visible(self, slide: Layer, slide_lattice: Lattice) -> Lattice | None:
        """Pixel grid over the visible part of the slide at about screen resolution."""
        seen_low, seen_high = visible_um(self.viewer)
        corners = product(*zip(seen_low, seen_high, strict=True))
        there = slide_lattice.to_um([slide.world_to_data(c) for c in corners])
        low = np.maximum(there.min(axis=0), 0.0)
        high = np.minimum(there.max(axis=0), slide_lattice.extent_um)
        size = high - low
        if (size <= 0).any():
            return None
        spacing = max(1.0 / self.viewer.scene.camera.zoom, float(size.max()) / LONGEST_PX)
        shape = (int(np.ceil(size[0] / spacing)), int(np.ceil(size[1] / spacing)))
        origin = (float(low[0]), float(low[1]))
        return Lattice(slide_lattice.frame, shape, (spacing, spacing), origin)

    def _put(self, pixels: NDArray[np.uint8], lattice: Lattice, classes: Any, slide: Layer) -> None:
        spec = annotation_layer(pixels, lattice, classes)
        layer = self.layer()
        if layer is None:
            data, options, kind = spec.as_layer_data()
            layer = Layer.create(data, options, kind)
            layer.editable = False
            layer.affine = slide.affine
            self.viewer.add_layer(layer)
            self.viewer.layers.selection.clear()
            self._classes = tuple(classes)
            return
        if tuple(classes) != self._classes:
            layer.colormap = spec.as_layer_data()[1]["colormap"]
            self._classes = tuple(classes)
        layer.data = pixels
        layer.scale, layer.translate = spec.place["scale"], spec.place["translate"]
        layer.affine = slide.affine


def _edges(codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The border of each annotation, two pixels wide: mask of the shape of *codes*."""
    edge = np.zeros(codes.shape, bool)
    down, across = codes[1:] != codes[:-1], codes[:, 1:] != codes[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    wide = edge.copy()
    wide[1:] |= edge[:-1]
    wide[:-1] |= edge[1:]
    wide[:, 1:] |= edge[:, :-1]
    wide[:, :-1] |= edge[:, 1:]
    return wide & (codes > 0)
