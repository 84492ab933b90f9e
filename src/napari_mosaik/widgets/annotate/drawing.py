"""Annotation tools on the H&E slide: drawing, the wand, predictions, selecting and reshaping.

Mouse, pen and keys become an area, a line or a vertex in µm of the slide, and that one edit of the
document.  The wand and the class map are read on a thread; their edits follow in order.
"""

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
from superqt.utils import qdebounced, qthrottled

from napari_mosaik.annotate import (
    SHAPE_COMMANDS,
    AnnotationDocument,
    Area,
    TissueClass,
    add_prediction,
    insert_vertex,
    inside_slide,
    lasso_polygon,
    move_vertex,
    nearest_edge,
    nearest_vertex,
    rectangle_polygon,
    remove_vertex,
    run_shape_command,
    split_shapes,
    stroke_polygon,
    why_not,
)
from napari_mosaik.core import FloatArray, InputError, Lattice, palette
from napari_mosaik.core.catalogue import CLASSES
from napari_mosaik.core.rasterise import rasterise
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.view.formatting import count, number
from napari_mosaik.view.layers import (
    ANNOTATIONS_TITLE,
    LAYER_TITLES,
    OUTLINE,
    annotation_layer,
)
from napari_mosaik.view.objects import path_lines, shape_lines, vertex_lines
from napari_mosaik.widgets.annotate.annotation import Annotation
from napari_mosaik.widgets.annotate.wand_thread import WandStroke, WandThread
from napari_mosaik.widgets.base.gc_tuning import add_hidden, without_drawing
from napari_mosaik.widgets.base.reader import with_reader
from napari_mosaik.widgets.canvas.active_tool import CanvasTool, ToolMode
from napari_mosaik.widgets.canvas.camera import visible_um
from napari_mosaik.widgets.canvas.mouse import Pointer, affine_of
from napari_mosaik.workflow.picking import predicted_region

if TYPE_CHECKING:
    import napari

    from napari_mosaik.widgets.canvas.lazy_slide import LazySlide
    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["Drawing"]

_DRAW_MS = 30
LAYER = ANNOTATIONS_TITLE
LONGEST_PX = 1600
SELECTED_ANNOTATION = "Selected annotations"
"""Name of the layer with their outlines."""
_VERTICES = "Vertices"
_CLASS_MAP = LAYER_TITLES[CLASSES.name]
_REST_MS = 150
"""The pixels for the wand are read when the view has rested for this time."""
_GRIP_PX = 8
_SQUARE_PX = 7


class Drawing(CanvasTool):
    """Turns the mouse into edits of the annotation document, and draws the document.

    ``changed`` is also emitted when class, selection or tolerance change; ``failed`` with the error
    of an edit that is refused, and ``message`` with what an edit has left out.
    """

    name = "annotation"
    modes = {  # noqa: RUF012
        "brush": ToolMode(
            "Brush", "Drag to paint; start inside an annotation of this class to extend it"
        ),
        "wand": ToolMode(
            "Wand",
            "Press on tissue of uniform appearance and hold; drag to extend. The wheel changes the "
            "tolerance, Ctrl+wheel zooms",
        ),
        "convert": ToolMode(
            "Convert",
            "Click a region of the tissue classes: it becomes an annotation that you can correct",
            cursor="pointing",
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
            "Click an annotation, Shift+click another; a class key changes the class, a double "
            "click shows the vertices",
            pans=True,
            cursor="standard",
        ),
        "split": ToolMode(
            "Split", "Drag a line across an annotation; only selected ones, if any, are split"
        ),
        "vertices": ToolMode(
            "Vertices",
            "Drag a vertex, or an edge to insert one; Alt+click deletes it. Click another "
            "annotation to edit that",
        ),
    }
    erasing_modes = ("brush", "wand", "polygon", "lasso", "rectangle")
    """The modes in which Alt erases."""
    failed = Signal(object)
    message = Signal(str)

    def __init__(self, link: CanvasLink, annotation: Annotation) -> None:
        super().__init__(link)
        self.board = link.board
        self.annotation = annotation
        self.picture = AnnotationPicture(self.viewer)
        self.wand = WandThread(link.board.controller, self)
        self.label = "neoplastic"
        self.brush_px = 20.0
        self.by_um = 5.0
        """Distance of the commands that move an outline, µm."""
        self.selection: tuple[str, ...] = ()
        self._points: list[tuple[float, float]] = []
        self._draft: Area | None = None
        self._erasing = False
        self._vertex: tuple[AnnotatedShape, int, Area] | None = None
        self._marked: tuple[Any, ...] = ()
        self._map_is_lent = False
        self._paint_soon = qthrottled(self._paint, timeout=_DRAW_MS, leading=False, parent=self)
        self._look_soon = qdebounced(self._look, timeout=_REST_MS, parent=self)
        annotation.changed.connect(self._edited)
        annotation.opened.connect(self._opened)
        self.wand.grown.connect(self._grew)
        self.wand.finished.connect(self._grown)
        self.wand.tolerance_changed.connect(self.changed)
        self.viewer.scene.camera.events.connect(self.redraw)
        self.viewer.scene.camera.events.connect(self._look_soon)

    @property
    def selected(self) -> str:
        """Key of the annotation that was selected last; empty if none is."""
        return self.selection[-1] if self.selection else ""

    # --- on and off -----------------------------------------------------------------------------
    def why_not_mode(self, mode: str) -> str:
        """Why a mode cannot be taken now, in words; empty if it can."""
        if self.board.controller.workspace.case is None:
            return "Open a case first"
        if mode == "convert" and self.board.controller.workspace.withheld:
            return self.board.controller.workspace.withheld
        if mode == "convert" and _CLASS_MAP not in self.board.specs:
            return "There is no map of the tissue classes yet: run the step 'Tissue classes'"
        return ""

    def take(self, mode: str = "") -> None:
        """Become the active tool, after the reader is known."""
        take = super().take
        with_reader(self.board.controller, self.viewer.window._qt_window, lambda: take(mode))

    def prepare(self, mode: str) -> bool:
        """Open the document of the case; False without one."""
        reason = self.why_not_mode(mode)
        if mode == "convert" and reason:
            self.failed.emit(InputError(reason))
            return False
        if self.annotation.document is None:
            self.annotation.open()
        self._show_map(mode == "convert" and self.annotation.document is not None)
        return self.annotation.document is not None

    def on(self) -> None:
        """Show the H&E slide alone."""
        self.board.show_slide("he")
        self.redraw()

    def off(self) -> None:
        """Mark nothing any more; strokes of the wand that were released are still finished."""
        self._mark()
        self._show_map(False)

    def _show_map(self, shown: bool) -> None:
        """Show the tissue classes while they are converted; what was shown before stays."""
        layer = self.board.layer(_CLASS_MAP)
        if shown and (layer is None or not layer.visible):
            self._map_is_lent = True
            self.board.set_shown(_CLASS_MAP, True)
        elif not shown and self._map_is_lent:
            self._map_is_lent = False
            self.board.set_shown(_CLASS_MAP, False)

    def detach(self) -> None:
        """Follow the camera no longer."""
        super().detach()
        for soon in (self._paint_soon, self._look_soon):
            soon.cancel()
        self.viewer.scene.camera.events.disconnect(self.redraw)
        self.viewer.scene.camera.events.disconnect(self._look_soon)

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
            **{command: partial(self.run, command) for command in SHAPE_COMMANDS},
            "lock class": self.lock_class,
            "undo": self.undo,
            "redo": self.redo,
            "finish": self.finish_polygon,
            "discard": self.reset,
        }

    def _opened(self) -> None:
        self.selection = ()
        self.wand.clear()
        if self.annotation.document is None:
            self.release()
            self.picture.remove()
            self._mark()
        self.redraw()

    def _edited(self) -> None:
        document = self.annotation.document
        there = document if document is not None else ()
        self.selection = tuple(key for key in self.selection if key in there)
        self.redraw()

    # --- edits ----------------------------------------------------------------------------------
    def choose_class(self, name: str) -> None:
        """Class of the next annotation; with the select tool, of the selected ones."""
        self.label = name
        document, keys = self.annotation.document, self.selection
        if self.mode == "select" and keys and document is not None:
            self.attempt(lambda: document.change_class(keys, name))
        self.changed.emit()

    def undo(self) -> None:
        """Undo what the reader did last."""
        self.attempt(self.annotation.undo)

    def redo(self) -> None:
        """Redo what was undone last."""
        self.attempt(self.annotation.redo)

    def why_not(self, command: str) -> str:
        """Why a command does not apply to the selected annotations; empty if it does."""
        return why_not(self.annotation.document, self.selection, command)

    def run(self, command: str) -> None:
        """Apply a command to the selected annotations."""
        document, slide = self.annotation.document, self._slide()
        if document is None:
            return
        within = slide[1] if slide is not None else None

        def act() -> None:
            self.selection = run_shape_command(
                document, self.selection, command, self.by_um, within
            )

        self.attempt(act)

    def lock_class(self) -> None:
        """Lock the class that is drawn, or unlock it."""
        document = self.annotation.document
        if document is not None:
            locked = any(known.locked for known in document.classes if known.name == self.label)
            self.attempt(lambda: document.lock_class(self.label, not locked))

    def commit(
        self,
        area: Area,
        *,
        erase: bool = False,
        at: tuple[float, float] | None = None,
        tool: str = "",
    ) -> None:
        """Add a drawn area to the document, or erase it."""
        document, tool = self.annotation.document, tool or self.mode
        slide = self._slide()
        if document is None:
            return

        def act() -> None:
            part = area if slide is None else inside_slide(area, slide[1])
            if erase:
                document.erase(part)
                return
            if tool not in ("brush", "wand"):
                self.selection = (document.add(part, self.label, title=tool or "add"),)
                return
            under = document.at(at) if at is not None else None
            into = under.key if under is not None and under.label == self.label else None
            self.selection = (document.paint(part, self.label, into=into, title=tool),)

        self.attempt(act)

    def attempt(self, act: Callable[[], str | None]) -> None:
        """Make an edit; say why it is refused, which locked annotations it met, or what it says."""
        document = self.annotation.document
        try:
            words = act() or ""
        except InputError as error:
            self.failed.emit(error)
            return
        spared = document.spared if document is not None else 0
        if document is not None:
            document.spared = 0
        self.message.emit(
            f"{count(spared, 'locked annotation')} left unchanged." if spared else words
        )
        self.changed.emit()

    # --- mouse ----------------------------------------------------------------------------------
    def pressed(self, pointer: Pointer) -> None:
        """Select, set a vertex, or start a stroke."""
        if self._slide() is None:
            self.failed.emit(InputError("the H&E slide is still being opened; draw it again"))
            return
        start = pointer.position_um
        self._erasing = "Alt" in pointer.modifiers and self.mode in self.erasing_modes
        if self.mode == "polygon":
            if not self._points or start != self._points[-1]:
                self._points.append(start)
            self.sketch()
        elif self.mode == "vertices":
            self._grip(start, delete="Alt" in pointer.modifiers)
        elif self.mode == "wand":
            self._begin_wand(start)
        elif self.mode != "select":
            self._points = [start]
            self.sketch()

    def moved(self, pointer: Pointer) -> None:
        """Continue the stroke."""
        if self._points and self.mode not in ("select", "polygon"):
            self._points.append(pointer.position_um)
            if self.mode == "wand":
                place = self.position_um(pointer.position_um)
                if place is not None:
                    self.wand.extend(place)

    def released(self, pointer: Pointer) -> None:
        """Finish the stroke, or select what was clicked; a drag of the select tool has panned."""
        if self.mode == "select" and pointer.is_click:
            self._select(pointer.start_um, more="Shift" in pointer.modifiers)
        if not self._points or self.mode in ("select", "polygon"):
            return
        points, self._points = self._points, []
        if self.mode == "convert":
            self._convert(points[0])
        elif self.mode == "split":
            self._split(points)
        elif self.mode == "vertices":
            self._drop(points[-1], moved=not pointer.is_click)
        elif self.mode == "wand":
            self.wand.release()
        else:
            self._points = points
            self._finish(at=points[0])

    def wheeled(self, notches: float) -> bool:
        """The wheel is the tolerance of the wand."""
        if self.mode == "wand" and notches:
            self.wand.turn(notches)
        return self.mode == "wand"

    def double_clicked(self) -> None:
        """Close the polygon; with the select tool, edit the vertices."""
        if self.mode == "select" and self.selected:
            self.take("vertices")
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

    def _under(self, at: tuple[float, float]) -> AnnotatedShape | None:
        document, place = self.annotation.document, self.position_um(at)
        return document.at(place) if document is not None and place is not None else None

    def _select(self, at: tuple[float, float], *, more: bool = False) -> None:
        shape = self._under(at)
        key = shape.key if shape is not None else ""
        others = tuple(one for one in self.selection if one != key) if more else ()
        added = (key,) if key and not (more and key in self.selection) else ()
        self.selection = (*others, *added)
        self.redraw()
        self.changed.emit()

    def reset(self) -> None:
        """Discard the area being drawn."""
        super().reset()
        self._points, self._draft, self._vertex = [], None, None
        self.wand.discard()
        if self.mode == "wand":
            self._look_soon()
        self.redraw()

    def sketch(self) -> None:
        """Show the area drawn so far."""
        if not self._points:
            return
        if self.mode == "split":
            self.show_draft(path_lines(self._points), width_px=3.0)
            return
        if self.mode == "vertices":
            self._drag()
        elif self.mode not in ("wand", "convert"):
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

    @property
    def hint(self) -> str:
        """What the mouse does, and the present tolerance of the wand."""
        tolerance = f" (now {number(self.wand.tolerance)})" if self.mode == "wand" else ""
        erase = "; hold Alt to erase" if self.mode in self.erasing_modes else ""
        return f"{super().hint}{tolerance}{erase}"

    # --- wand -----------------------------------------------------------------------------------
    def _look(self) -> None:
        """Read the pixels that the wand will need ahead."""
        view = self._view() if self.mode == "wand" else None
        if view is not None:
            self.wand.look(*view)

    def _view(self) -> tuple[LazySlide, Lattice] | None:
        """The slide, and the pixels of the screen that show it."""
        slide, lazy = self._slide(), self.board.slides.get("he")
        if slide is None or lazy is None:
            return None
        view = self.picture.visible(*slide)
        return None if view is None else (lazy, view)

    def _begin_wand(self, at: tuple[float, float]) -> None:
        view, place = self._view(), self.position_um(at)
        if view is None or place is None:
            self.failed.emit(InputError("the wand needs the slide in view; zoom to the tissue"))
            return
        self._points = [at]
        document, tolerance = self.annotation.document, self.wand.tolerance
        self.wand.begin(WandStroke(*view, document, self.label, self._erasing, tolerance, [place]))

    def _grew(self, stroke: WandStroke) -> None:
        self._draft = stroke.area
        self.redraw()

    def _grown(self, stroke: WandStroke) -> None:
        """A stroke is finished, maybe after others were drawn."""
        if not self._points:
            self._draft = None
        self.redraw()
        if stroke.document is not self.annotation.document:
            return
        if stroke.area is None:
            self.failed.emit(InputError("the wand found nothing there; click on the slide"))
            return
        chosen, self.label = self.label, stroke.label
        self.commit(stroke.area, erase=stroke.erases, at=stroke.points_um[0], tool="wand")
        self.label = chosen

    # --- predictions, lines and vertices --------------------------------------------------------
    def _convert(self, at: tuple[float, float]) -> None:
        """Make the predicted region under a click an annotation; read on a thread."""
        case, document, place = (
            self.board.controller.workspace.case,
            self.annotation.document,
            self.position_um(at),
        )
        if case is None or document is None or place is None:
            return
        there = document.at(place)
        if there is not None:
            self.selection = (there.key,)
            self.failed.emit(InputError("this is annotated already; it is selected now"))
            self.redraw()
            return

        def work() -> tuple[str, Area] | InputError:
            try:
                return predicted_region(case, place)
            except InputError as error:
                return error

        def then(found: tuple[str, Area] | InputError) -> None:
            if isinstance(found, InputError):
                self.failed.emit(found)
            elif document is self.annotation.document:
                self.attempt(lambda: self._take(document, *found))

        self.board.controller.read_for(case, "Convert", work, then)

    def _take(self, document: AnnotationDocument, label: str, area: Area) -> None:
        self.selection = (add_prediction(document, label, area),)

    def _split(self, points: list[tuple[float, float]]) -> None:
        document = self.annotation.document
        self.hide_draft()
        if document is None:
            return

        def act() -> None:
            self.selection = split_shapes(document, self.selection, self._on_slide(points))

        self.attempt(act)

    def _grip(self, at: tuple[float, float], *, delete: bool) -> None:
        """Take hold of a vertex or an edge of the selected annotation, or select another."""
        document, place = self.annotation.document, self.position_um(at)
        if document is None or place is None:
            return
        shape = document.shape(self.selected) if self.selected else None
        reach = _GRIP_PX / self.viewer.scene.camera.zoom
        number = nearest_vertex(shape.geometry, place, reach) if shape is not None else None
        edge = nearest_edge(shape.geometry, place, reach) if shape is not None else None
        if shape is None or (number is None and edge is None):
            self._select(at)
            return
        if document.lock_reason(shape):
            self.failed.emit(InputError(document.lock_reason(shape)))
        elif number is None:
            assert edge is not None
            if not delete:
                geometry, number = insert_vertex(shape.geometry, edge, place)
                self._vertex, self._points = (shape, number, geometry), [at]
        elif delete:
            self.attempt(
                lambda: document.replace(
                    shape.key, remove_vertex(shape.geometry, number), "delete vertex"
                )
            )
        else:
            self._vertex, self._points = (shape, number, shape.geometry), [at]

    def _drag(self) -> None:
        if self._vertex is None or not self._points:
            return
        _, number, geometry = self._vertex
        place = self.position_um(self._points[-1])
        if place is not None:
            self._draft = move_vertex(geometry, number, place)

    def _drop(self, at: tuple[float, float], *, moved: bool) -> None:
        held, document, place = self._vertex, self.annotation.document, self.position_um(at)
        self._vertex = self._draft = None
        self.redraw()
        if held is None or document is None or place is None or not moved:
            return
        shape, number, geometry = held
        title = "move vertex" if geometry is shape.geometry else "insert vertex"
        self.attempt(
            lambda: document.replace(shape.key, move_vertex(geometry, number, place), title)
        )

    # --- positions ------------------------------------------------------------------------------
    def _slide(self) -> tuple[Layer, Lattice] | None:
        layer = self.board.slide_layer("he")
        lazy = self.board.slides.get("he")
        return None if layer is None or lazy is None else (layer, lazy.lattices[0])

    def visible_box(self) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest (row, column) of the H&E slide in view, in µm of that slide."""
        low, high = visible_um(self.viewer)
        there = self._on_slide(list(product(*zip(low, high, strict=True))))
        slide = self._slide()
        assert slide is not None
        extent = np.array(slide[1].extent_um)
        return np.maximum(there.min(axis=0), 0.0), np.minimum(there.max(axis=0), extent)

    def position_um(self, world: Any) -> tuple[float, float] | None:
        """Position on the canvas as (row, column) in µm of the H&E slide; None without it."""
        if self._slide() is None:
            return None
        row, column = self._on_slide([tuple(world)[-2:]])[0]
        return float(row), float(column)

    def _on_slide(self, places: Any) -> FloatArray:
        """Positions (n, 2) on the canvas as (row, column) in µm of the H&E slide."""
        matrix = self._matrix()
        return np.asarray(places, float) @ matrix[:, :2].T + matrix[:, 2]

    def _matrix(self) -> FloatArray:
        """Matrix (2, 3) from the canvas to µm of the H&E slide."""
        slide = self._slide()
        if slide is None:
            raise InputError("the H&E slide was closed; open it and draw it again")
        layer, lattice = slide
        return affine_of(lambda place: lattice.to_um([layer.world_to_data(place)])[0])

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
                draft = Draft(self._draft, "" if self._erasing else self._draft_label)
            self.picture.paint(self.annotation.document, slide[0], slide[1], draft)
            self._mark()

    @property
    def _draft_label(self) -> str:
        return self._vertex[0].label if self._vertex is not None else self.label

    def _mark(self) -> None:
        """Outline the selected annotations, and show the vertices where they are edited."""
        document = self.annotation.document
        shapes = [document.shape(key) for key in self.selection] if document is not None else []
        shapes = shapes if self.is_active and self._slide() is not None else []
        zoom = float(self.viewer.scene.camera.zoom)
        vertices = self.mode == "vertices" and self._vertex is None
        slide = self._slide() if vertices and shapes else None
        view = self.picture.visible(*slide) if slide is not None else None
        now = (*shapes, zoom, view)
        if now == self._marked:
            return
        self._marked = now
        outlines = [shape_lines(shape, 0.5 / zoom) for shape in shapes]
        self._show_lines(SELECTED_ANNOTATION, outlines, 3.0)
        shown = shapes[-1:] if view is not None else []
        squares = [vertex_lines(shape, view, _SQUARE_PX / zoom) for shape in shown if view]
        self._show_lines(_VERTICES, squares, 2.0)

    def _show_lines(self, name: str, lines: list[FloatArray], width_px: float) -> None:
        """Show vectors (n, 2, 2) in µm of the H&E slide."""
        if not lines or not sum(map(len, lines)):
            self.lines.hide(name)
            return
        back = np.linalg.inv(np.vstack([self._matrix(), (0, 0, 1)]))
        there = np.concatenate(lines)
        starts = there[:, 0] @ back[:2, :2].T + back[:2, 2]
        steps = there[:, 1] @ back[:2, :2].T
        vectors = np.stack([starts, steps], axis=1)
        self.lines.show(name, vectors, palette.SELECTED_OBJECT, width_px)
        self.lines.bring_up(name)


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
        lattice = self.visible(slide, slide_lattice)
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

    def visible(self, slide: Layer, slide_lattice: Lattice) -> Lattice | None:
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
            layer = Layer.create(data, options | {"visible": False}, kind)
            layer.editable = False
            layer.affine = slide.affine
            without_drawing(layer)
            add_hidden(self.viewer, layer, len(self.viewer.layers))
            self.viewer.layers.selection.clear()
            layer.visible = True
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
