"""The layouts of the canvas: 2 × 2 linked views with linked cameras, and the composite overlay.

napari's grid gives each run of equally many layers a view.  Each view has a picture, the visible
overlays and a heading; the first view holds the overlays themselves and the others linked copies,
so visibility, opacity, ruler and the key H work as usual.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QLabel
from superqt.utils import qdebounced

from napari_mosaik.core.catalogue import ALIGNMENT, REFERENCE, STAIN_TITLES, STAINS, SUV
from napari_mosaik.view.spec import placement_um
from napari_mosaik.widgets.base.case_controller import missing_sources
from napari_mosaik.widgets.base.gc_tuning import (
    Turns,
    add_hidden,
    in_one_update,
    move_hidden,
    without_drawing,
)
from napari_mosaik.widgets.canvas.camera import centre_um, look_at
from napari_mosaik.widgets.canvas.keys import CANVAS
from napari_mosaik.widgets.canvas.layout_state import (
    BASE,
    LayoutState,
    is_base,
    show_grid,
)
from napari_mosaik.widgets.canvas.lazy_labels import CODED, dress_codes
from napari_mosaik.widgets.canvas.list_rows import is_there, keep_out_of_list, make_room
from napari_mosaik.workflow.steps import maker_of

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mosaik.view.spec import LayerSpec
    from napari_mosaik.widgets.canvas.link import CanvasLink


__all__ = ["CanvasNotice", "Composite", "Layout", "QuadView"]


class CanvasNotice:
    """A line in the middle of the canvas while views are prepared."""

    def __init__(self, viewer: Any) -> None:
        self._canvas = viewer.window._qt_viewer.canvas.native
        self._label: QLabel | None = None

    @property
    def text(self) -> str:
        """What it says; empty when it is hidden."""
        return "" if self._label is None or self._label.isHidden() else self._label.text()

    def show(self, text: str) -> None:
        """Say something."""
        if self._label is None:
            self._label = QLabel(self._canvas)
            self._label.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
            self._label.setAutoFillBackground(True)
            self._label.setMargin(6)
        self._label.setText(text)
        self._label.adjustSize()
        room, own = self._canvas.rect().center(), self._label.rect().center()
        self._label.move(room - own)
        self._label.show()

    def hide(self) -> None:
        """Say nothing."""
        if self._label is not None:
            self._label.hide()


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


# --- 2 x 2 linked views and the composite overlay -------------------------------------------------
_PET_OPACITY = 0.35
_CHANGED = ("visible", "blending", "opacity")


class Composite(Layout):
    """Shows all slides of a case and its PET in one picture."""

    def __init__(self, link: CanvasLink) -> None:
        super().__init__(link)
        self._settings: dict[Layer, dict[str, Any]] = {}

    def _slides(self) -> list[Layer]:
        layers = [self.board.slide_layer(stain) for stain in STAINS]
        return [layer for layer in layers if layer is not None]

    def is_possible(self) -> bool:
        """Whether a slide is open."""
        return bool(self._slides())

    def arrange(self, before: LayoutState) -> None:
        """Blend the slides, and lay the PET over them."""
        shown = [(layer, "minimum", 1.0) for layer in self._slides()]
        for spec in [spec for spec in self.board.specs.values() if spec.result == SUV.name][:1]:
            known = self.board.layer(spec.name)
            pet = self.board.put(spec) if known is None else known
            if known is None:
                pet.visible = False  # it was not visible before
            shown.append((pet, "translucent", _PET_OPACITY))
        for layer, blending, opacity in shown:
            self._settings[layer] = {name: getattr(layer, name) for name in _CHANGED}
            layer.blending, layer.opacity, layer.visible = blending, opacity, True

    def restore(self, before: LayoutState) -> None:
        """Restore visibility, blending and opacity."""
        settings, self._settings = self._settings, {}
        for layer, values in settings.items():
            if is_there(self.viewer, layer):
                for name, value in values.items():
                    setattr(layer, name, value)


_SHAPE = (2, 2)
_INVISIBLE = "\N{HAIR SPACE}"
"""Tells a heading from the layer of that name: napari lets no two layers have one name."""
_PLACE = ("scale", "translate", "affine")
_FOLLOWED = (
    *_PLACE,
    "visible",
    "opacity",
    "blending",
    "contour",
    "colormap",
    "contrast_limits",
    "gamma",
    "edge_color",
    "edge_width",
    "size",
    "features",
)
"""Properties that a linked copy takes over, as far as its kind of layer has them."""


class LinkedLayer:
    """A copy of a layer that shares its data and follows its display until `unlink`."""

    def __init__(self, source: Layer, cell: str) -> None:
        self.source = source
        data, state, kind = source.as_layer_data_tuple()
        state |= {"name": f"{source.name} · {cell}", "metadata": {}, "visible": False}
        self.layer = Layer.create(data, state, kind)
        self.layer.editable = False
        without_drawing(self.layer)
        if source.metadata.get(CODED):
            dress_codes(self.layer)
        self._links: list[tuple[Any, Any]] = []
        for name in _FOLLOWED:
            if hasattr(source.events, name) and hasattr(source, name):
                self._link(name, partial(self._take, name))
        if hasattr(source, "contour"):
            self._take("contour")  # the one property that is not part of a layer's state
        self._link("data", self._take_data)

    def _link(self, name: str, act: Any) -> None:
        signal = getattr(self.source.events, name)
        signal.connect(act)
        self._links.append((signal, act))

    def _take(self, name: str, _event: Any = None) -> None:
        setattr(self.layer, name, getattr(self.source, name))

    def _take_data(self, _event: Any) -> None:
        self.layer.data = self.source.data
        for name in _PLACE:
            self._take(name)

    def unlink(self) -> None:
        """Follow the source no longer."""
        for signal, act in self._links:
            signal.disconnect(act)
        self._links.clear()


@dataclass(slots=True, eq=False)
class _Cell:
    name: str
    heading: str
    base: Layer | None
    spec: LayerSpec | None = None  # of a picture that has no layer yet

    @property
    def is_plain(self) -> bool:
        """Whether the name of its picture serves as heading."""
        picture = self.base if self.base is not None else self.spec
        return picture is not None and picture.name == self.heading


class QuadView(Layout):
    """Shows the slides and the PET of a case in four linked views.

    The first view is shown at once; the layers of the others are made in turns of the event loop,
    then each is shown with all that belongs to it.  ``whole`` is emitted once all are shown.
    """

    whole = Signal()

    def __init__(self, link: CanvasLink) -> None:
        super().__init__(link)
        self._entered_at: tuple[Any, float] | None = None
        self._cells: list[_Cell] = []
        self._copies: list[LinkedLayer] = []
        self._made: list[Layer] = []
        self._watched: list[Layer] = []
        self.is_whole = False
        self._turns = Turns(self)
        self._notice = CanvasNotice(self.viewer)
        self._rebuild_soon = qdebounced(self._rebuild, timeout=0, parent=self)
        self.viewer.layers.events.inserted.connect(self._inserted)
        self.viewer.layers.events.removed.connect(self._removed)
        link.workspace.events.blind.connect(self._blinded)
        link.keys.bind(CANVAS, {"quad view": self.toggle})

    def detach(self) -> None:
        """Leave the viewer as it was found."""
        self.leave()
        self._rebuild_soon.cancel()
        self.viewer.layers.events.inserted.disconnect(self._inserted)
        self.viewer.layers.events.removed.disconnect(self._removed)

    def is_possible(self) -> bool:
        """Whether a case is open."""
        return self.link.workspace.case is not None

    def arrange(self, before: LayoutState) -> None:
        """Show the four views; the zoom follows the size of a view."""
        self._lay_out()
        cell = np.asarray(self.viewer.canvas.viewbox_size(self.viewer.layers))
        share = float((cell / np.asarray(self.viewer.canvas.size)).min())
        look_at(self.viewer, before.centre_um, before.zoom * share)
        self._entered_at = centre_um(self.viewer), float(self.viewer.scene.camera.zoom)

    def restore(self, before: LayoutState) -> None:
        """Restore the layers; the camera, too, unless it was moved meanwhile."""
        self._turns.stop()
        self._notice.hide()
        bases = [cell.base for cell in self._cells if cell.base is not None]
        pictures = [*bases, *(layer for layer in before.order if is_base(layer))]
        now, zoom = centre_um(self.viewer), float(self.viewer.scene.camera.zoom)
        with in_one_update(self.viewer):
            self._take_apart()
            before.restore_layers(self.viewer, pictures)
            before.restore_grid(self.viewer)
            for layer in bases:
                if is_there(self.viewer, layer) and layer not in before.shown:
                    layer.visible = False  # the PET, when it was never shown before
        if self._entered_at is not None:
            then, entry_zoom = self._entered_at
            if np.allclose(now, then) and np.isclose(zoom, entry_zoom):
                before.restore_camera(self.viewer)
            else:
                look_at(self.viewer, now, zoom * before.zoom / entry_zoom)
        self._entered_at = None

    # --- arranging -----------------------------------------------------------------------------
    def _lay_out(self) -> None:
        """Show the first view now, and the others in turns."""
        self._cells, self.is_whole = list(self._find_cells()), False
        bases = [cell.base for cell in self._cells if cell.base is not None]
        overlays = [
            layer
            for layer in self.viewer.layers
            if layer.visible and layer not in bases and not is_base(layer)
        ]
        headed = not all(cell.is_plain for cell in self._cells)
        views = [self._view(cell, overlays, headed) for cell in self._cells]
        first: list[Layer] = []
        with in_one_update(self.viewer):
            for layer in self.viewer.layers:
                if layer.visible and layer not in overlays:
                    layer.visible = False
            for _ in self._place(views[0], first, 0):
                pass
            show_grid(self.viewer, 1 + len(overlays) + headed, _SHAPE)
            self._reveal(self._cells[0], first)
        self.viewer.layers.selection.clear()
        self._notice.show("Preparing the views…")
        self._turns.start(self._others(views[1:], len(first), overlays))

    def _others(
        self, views: list[Iterator[Layer]], place: int, overlays: list[Layer]
    ) -> Iterator[None]:
        """Make the layers of the other views, hidden, then show one view in each turn."""
        made: list[list[Layer]] = []
        for view in views:
            made.append([])
            for _ in self._place(view, made[-1], place):
                place += 1
                yield
        keep_out_of_list(self.viewer, self._made)
        for cell, layers in zip(self._cells[1:], made, strict=True):
            with in_one_update(self.viewer):
                self._reveal(cell, layers)
            yield
        self._notice.hide()
        self.viewer.layers.selection.clear()
        bases = {cell.base for cell in self._cells if cell.base is not None}
        placed = {*self._made, *overlays, *bases}
        self._watch(set(self.viewer.layers) - set(self._made) - set(overlays))
        self.is_whole = True
        shown = {layer for layer in self.viewer.layers if layer.visible}
        if shown - placed or bases - shown:  # shown or hidden meanwhile
            self._rebuild_soon()
        self.whole.emit()

    def _view(self, cell: _Cell, overlays: list[Layer], headed: bool) -> Iterator[Layer]:
        """The layers of a view from the bottom up; each is made when it is asked for."""
        if cell.spec is not None:
            cell.base = self.board.put(cell.spec, visible=False)
            cell.spec = None
        yield cell.base if cell.base is not None else self._marker(cell.heading)
        for layer in overlays:
            if cell is self._cells[0]:
                yield layer
                continue
            copy = LinkedLayer(layer, cell.name)
            self._copies.append(copy)
            self._made.append(copy.layer)
            yield copy.layer
        if headed:  # every cell gets a marker as soon as one needs it: they hold equally many
            says_more = cell.base is not None and not cell.is_plain
            marker = self._marker(cell.heading if says_more else f"{cell.name}{_INVISIBLE}")
            _show_name(marker, says_more)
            yield marker

    def _place(self, view: Iterator[Layer], into: list[Layer], place: int) -> Iterator[None]:
        """Place the layers of a view one after another from a place in the list on."""
        for layer in view:
            if layer not in self.viewer.layers:
                make_room(self.viewer, layer.name)
                add_hidden(self.viewer, layer, place)
            elif (now := self.viewer.layers.index(layer)) != place:
                move_hidden(self.viewer, now, place)
            into.append(layer)
            place += 1
            yield

    def _reveal(self, cell: _Cell, layers: list[Layer]) -> None:
        """Show the layers of a view; copies as far as what they copy is shown."""
        if cell.base is not None:
            cell.base.metadata[BASE] = True
            _show_name(cell.base, cell.is_plain)
        sources = {copy.layer: copy.source for copy in self._copies}
        for layer in layers:
            layer.visible = sources[layer].visible if layer in sources else True

    def _find_cells(self) -> Iterable[_Cell]:
        for stain in STAINS:
            title, layer = STAIN_TITLES[stain], self.board.slide_layer(stain)
            yield _Cell(title, self._heading(title, stain, layer is not None), layer)
        specs = [spec for spec in self.board.specs.values() if spec.result == SUV.name]
        if not specs:
            yield _Cell("PET", self._heading("PET", "pet", False), None)
            return
        layer = self.board.layer(specs[0].name)
        heading = self._heading(specs[0].name, "pet", True)
        yield _Cell("PET", heading, layer, specs[0] if layer is None else None)

    def _heading(self, title: str, frame: str, there: bool) -> str:
        if not there:
            if frame == "pet" and self.link.workspace.blind:
                return f"{title} · hidden (blind)"
            given = any(key == frame and not why for _, key, why in self._sources())
            step = "SUV not computed" if frame == "pet" else "loading"
            return f"{title} · {step if given else 'missing'}"
        if frame == REFERENCE:
            return title
        state = self.link.workspace.states.get(maker_of(ALIGNMENT[frame]).name)
        aligned = state is not None and state.word in ("done", "stale")
        return title if aligned else f"{title} · not registered"

    def _sources(self) -> list[tuple[str, str, str]]:
        case = self.link.workspace.case
        return [] if case is None else missing_sources(case)

    def _marker(self, name: str) -> Layer:
        """A layer without anything to see but its name."""
        look = {"size": 1e-3, "face_color": "transparent", "border_color": "transparent"}
        state = {"name": name, "visible": False, **look, **placement_um(REFERENCE)}
        layer = Layer.create([self._middle()], state, "points")
        layer.metadata[BASE] = True
        layer.editable = False
        _show_name(layer, True)
        self._made.append(layer)
        return layer

    def _middle(self) -> tuple[float, float]:
        """A place on the slides, so that no marker widens what "home" shows."""
        row, column = centre_um(self.viewer)
        return float(row), float(column)

    def _take_apart(self) -> None:
        self._turns.stop()
        self.is_whole = False
        self._watch(())
        for copy in self._copies:
            copy.unlink()
        self.board.dismiss(self._made)
        for cell in self._cells:
            if cell.base is not None:
                cell.base.metadata.pop(BASE, None)
                _show_name(cell.base, False)
        self._copies, self._made, self._cells = [], [], []

    # --- keeping up -----------------------------------------------------------------------------
    def _watch(self, layers: Iterable[Layer]) -> None:
        """Lay out again when one of these is shown or hidden: a hidden overlay, a picture."""
        for layer in self._watched:
            layer.events.visible.disconnect(self._shown_or_hidden)
        self._watched = list(layers)
        for layer in self._watched:
            layer.events.visible.connect(self._shown_or_hidden)

    def _shown_or_hidden(self, _event: Any) -> None:
        self._rebuild_soon()

    def _inserted(self, event: Any) -> None:
        if self.is_whole and event.value not in self._made:
            self._rebuild_soon()

    def _removed(self, event: Any) -> None:
        """An overlay that went leaves copies, and all cells after it would move up."""
        if self.is_on and any(copy.source is event.value for copy in self._copies):
            self._rebuild_soon()

    def _blinded(self, *_: Any) -> None:
        if self.is_on:
            self._rebuild_soon()

    def _rebuild(self) -> None:
        if not self.is_on:
            return
        at, zoom = centre_um(self.viewer), float(self.viewer.scene.camera.zoom)
        with in_one_update(self.viewer):
            self._take_apart()
            self._lay_out()
        look_at(self.viewer, at, zoom)


def _show_name(layer: Layer, shown: bool) -> None:
    """Show a layer's name at the top of its view."""
    overlay = layer.name_overlay
    overlay.position, overlay.font_size, overlay.box = "top_center", 11, True
    overlay.visible = shown
