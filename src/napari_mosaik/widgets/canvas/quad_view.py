"""2 × 2 linked views: H&E, CD34, CAIX and PET side by side, with linked cameras.

napari's grid gives each run of as many layers a cell.  Each cell is a picture, the overlays that
are shown and a heading; the first cell holds the overlays themselves and the others copies that
follow them, so eyes, opacity, ruler and the key H work as they always do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Qt, QTimer, Signal
from qtpy.QtGui import QGuiApplication

from napari_mosaik.core.catalogue import ALIGNMENT, REFERENCE, STAIN_TITLES, STAINS, SUV
from napari_mosaik.view.spec import placement_um
from napari_mosaik.widgets.canvas.camera import centre_um, look_at
from napari_mosaik.widgets.canvas.layer_board import LayerBoard, fast_removal
from napari_mosaik.widgets.canvas.layout_state import (
    BASE,
    Arrangement,
    is_base,
    put_in_order,
    show_grid,
)
from napari_mosaik.widgets.canvas.linked_layers import Twin
from napari_mosaik.workflow.steps import maker_of

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

__all__ = ["FOUR_UP_KEY", "FourUp"]

FOUR_UP_KEY = "4"
_SHAPE = (2, 2)
_UNSEEN = "\N{HAIR SPACE}"
"""Tells a marker from the layer of that name: napari lets no two layers have one name."""


@dataclass(frozen=True, slots=True, eq=False)
class _Cell:
    name: str
    heading: str
    base: Layer | None

    @property
    def is_plain(self) -> bool:
        """Whether the name of its picture says all that there is to say."""
        return self.base is not None and self.base.name == self.heading


class FourUp(QObject):
    """Turns the canvas into four cells and back, leaving everything as it was.

    ``entering`` is emitted before anything is changed, ``changed`` with whether it is on.
    """

    changed = Signal(bool)
    entering = Signal()

    def __init__(self, viewer: napari.Viewer, board: LayerBoard) -> None:
        super().__init__(board)
        self.viewer = viewer
        self.board = board
        self._before: Arrangement | None = None
        self._entered_at: tuple[Any, float] | None = None
        self._cells: list[_Cell] = []
        self._twins: list[Twin] = []
        self._made: list[Layer] = []
        self._watched: list[Layer] = []
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(0)
        self._soon.timeout.connect(self._again)
        board.controller.workspace.events.case.connect(self._case_changed)
        viewer.layers.events.inserted.connect(self._inserted)
        viewer.bind_key(FOUR_UP_KEY, self._pressed, overwrite=True)
        for layer in viewer.layers:
            self._give_key(layer)

    def detach(self) -> None:
        """Leave the viewer as it was found."""
        self.leave()
        self._soon.stop()
        self.viewer.layers.events.inserted.disconnect(self._inserted)
        self.viewer.bind_key(FOUR_UP_KEY, None, overwrite=True)

    @property
    def is_on(self) -> bool:
        """Whether the four cells are shown."""
        return self._before is not None

    def toggle(self) -> None:
        """In or out."""
        if self.is_on:
            self.leave()
        else:
            self.enter()

    def enter(self) -> bool:
        """Show the four cells; False when no case is open."""
        if self.is_on or self.board.controller.workspace.case is None:
            return False
        self.entering.emit()
        self._before = Arrangement.of(self.viewer)
        with _waiting():
            self._lay_out()
        cell = np.asarray(self.viewer.canvas.viewbox_size(self.viewer.layers))
        share = float((cell / np.asarray(self.viewer.canvas.size)).min())
        look_at(self.viewer, self._before.centre_um, self._before.zoom * share)
        self._entered_at = centre_um(self.viewer), float(self.viewer.scene.camera.zoom)
        self.changed.emit(True)
        return True

    def leave(self) -> None:
        """Back to the layers as they were; the camera too, unless it was moved meanwhile."""
        before = self._before
        if before is None:
            return
        bases = [cell.base for cell in self._cells if cell.base is not None]
        pictures = [*bases, *(layer for layer in before.order if is_base(layer))]
        now, zoom = centre_um(self.viewer), float(self.viewer.scene.camera.zoom)
        self.viewer.canvas.grid.enabled = False  # each change of the layers is quicker without it
        self._take_apart()
        before.restore_layers(self.viewer, pictures)
        before.restore_grid(self.viewer)
        for layer in bases:
            if layer in self.viewer.layers and layer not in before.shown:
                layer.visible = False  # the PET, when it was never shown before
        self._before = None
        if self._entered_at is not None:
            then, entry_zoom = self._entered_at
            if np.allclose(now, then) and np.isclose(zoom, entry_zoom):
                before.restore_camera(self.viewer)
            else:
                look_at(self.viewer, now, zoom * before.zoom / entry_zoom)
        self._entered_at = None
        self.changed.emit(False)

    # --- laying out -----------------------------------------------------------------------------
    def _lay_out(self) -> None:
        self._cells = list(self._find_cells())
        bases = [cell.base for cell in self._cells if cell.base is not None]
        overlays = [
            layer
            for layer in self.viewer.layers
            if layer.visible and layer not in bases and not is_base(layer)
        ]
        order: list[Layer] = []
        for number, cell in enumerate(self._cells):
            order += [
                cell.base if cell.base is not None else self._marker(cell.heading),
                *(self._in_cell(overlays, cell.name) if number else overlays),
                *self._headed(cell),
            ]
        for layer in self._made:
            self.viewer.add_layer(layer)
        for layer in bases:
            layer.metadata[BASE] = True
            layer.visible = True
        put_in_order(self.viewer, order)
        for layer in self.viewer.layers[len(order) :]:
            layer.visible = False
        show_grid(self.viewer, len(order) // len(self._cells), _SHAPE)
        self.viewer.layers.selection.clear()
        self._watch(set(self.viewer.layers) - set(self._made) - set(overlays))
        self._soon.stop()  # what was inserted here needs no second round

    def _in_cell(self, overlays: Iterable[Layer], name: str) -> list[Layer]:
        twins = [Twin(layer, name) for layer in overlays]
        self._twins += twins
        self._made += [twin.layer for twin in twins]
        return [twin.layer for twin in twins]

    def _find_cells(self) -> Iterable[_Cell]:
        space = self.board.controller.workspace
        for stain in STAINS:
            title = STAIN_TITLES[stain]
            layer = self.board.layer(title)
            yield _Cell(title, self._heading(title, stain, layer is not None), layer)
        specs = [spec for spec in self.board.specs.values() if spec.artifact == SUV.name]
        pet = self.board.put(specs[0]) if specs and space.case is not None else None
        yield _Cell("PET", self._heading(pet.name if pet else "PET", "pet", pet is not None), pet)

    def _heading(self, title: str, frame: str, there: bool) -> str:
        if not there:
            given = any(key == frame and not why for _, key, why in self._sources())
            step = "SUV not computed" if frame == "pet" else "loading"
            return f"{title} · {step if given else 'missing'}"
        if frame == REFERENCE:
            return title
        step = maker_of(ALIGNMENT[frame])
        state = self.board.controller.workspace.states.get(step.name)
        aligned = state is not None and state.word in ("done", "stale")
        return title if aligned else f"{title} · not registered"

    def _sources(self) -> list[tuple[str, str, str]]:
        from napari_mosaik.widgets.base.case_controller import missing_sources

        case = self.board.controller.workspace.case
        return [] if case is None else missing_sources(case)

    def _headed(self, cell: _Cell) -> list[Layer]:
        """Write the heading of a cell: the picture's name if that says all, or a marker's.

        Every cell gets a marker as soon as one needs it: cells hold equally many layers.
        """
        if cell.is_plain:
            _show_name(cell.base, True)
        if all(known.is_plain for known in self._cells):
            return []
        says_more = cell.base is not None and not cell.is_plain
        marker = self._marker(cell.heading if says_more else f"{cell.name}{_UNSEEN}")
        _show_name(marker, says_more)
        return [marker]

    def _marker(self, name: str) -> Layer:
        """A layer without anything to see but its name."""
        from napari.layers import Layer as Base

        look = {"size": 1e-3, "face_color": "transparent", "border_color": "transparent"}
        state = {"name": name, **look, **placement_um(REFERENCE)}
        layer = Base.create([self._middle()], state, "points")
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
        self._watch(())
        for twin in self._twins:
            twin.part()
        with fast_removal(self.viewer):
            for layer in self._made:
                if layer in self.viewer.layers:
                    self.viewer.layers.remove(layer)
        for cell in self._cells:
            if cell.base is not None:
                cell.base.metadata.pop(BASE, None)
                _show_name(cell.base, False)
        self._twins, self._made, self._cells = [], [], []

    # --- keeping up -----------------------------------------------------------------------------
    def _watch(self, layers: Iterable[Layer]) -> None:
        """Lay out anew when one of these is shown or hidden: a hidden overlay, a picture."""
        for layer in self._watched:
            layer.events.visible.disconnect(self._shown_or_hidden)
        self._watched = list(layers)
        for layer in self._watched:
            layer.events.visible.connect(self._shown_or_hidden)

    def _shown_or_hidden(self, _event: Any) -> None:
        self._soon.start()

    def _inserted(self, event: Any) -> None:
        layer = event.value
        self._give_key(layer)
        if self.is_on and layer not in self._made:
            self._soon.start()

    def _again(self) -> None:
        if not self.is_on:
            return
        at, zoom = centre_um(self.viewer), float(self.viewer.scene.camera.zoom)
        self.viewer.canvas.grid.enabled = False
        self._take_apart()
        self._lay_out()
        look_at(self.viewer, at, zoom)
        self.changed.emit(True)

    def _case_changed(self, *_: Any) -> None:
        self.leave()

    # --- the key --------------------------------------------------------------------------------
    def _pressed(self, _viewer: Any) -> None:
        self.toggle()

    def _give_key(self, layer: Layer) -> None:
        """Labels, points and shapes have a use for the key 4 that these layers do without."""
        if "mosaik" in layer.metadata:
            layer.bind_key(FOUR_UP_KEY, self._pressed, overwrite=True)


@contextlib.contextmanager
def _waiting() -> Iterator[None]:
    """The cursor says that it takes a moment: each copy of an overlay about 0.3 s."""
    QGuiApplication.setOverrideCursor(Qt.CursorShape.WaitCursor)
    try:
        yield
    finally:
        QGuiApplication.restoreOverrideCursor()


def _show_name(layer: Layer, shown: bool) -> None:
    """The layer's name in the upper middle of its cell."""
    overlay = layer.name_overlay
    overlay.position, overlay.font_size, overlay.box = "top_center", 11, True
    overlay.visible = shown
