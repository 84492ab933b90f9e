"""Maps of the uptake side by side with linked cameras, or two of them by swipe or flicker."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from napari.layers import Layer
from qtpy.QtCore import QTimer, Signal
from superqt.utils import qdebounced, qthrottled

from napari_mosaik.core import palette
from napari_mosaik.view.board import (
    BoardMap,
    board_layer,
    board_maps,
    hatch_layer,
    smooth_maps,
)
from napari_mosaik.view.spec import LayerSpec, placement_um
from napari_mosaik.widgets.base.gc_tuning import (
    Turns,
    add_hidden,
    in_one_update,
    make_grid,
    make_texts,
)
from napari_mosaik.widgets.canvas.active_tool import ScreenLines
from napari_mosaik.widgets.canvas.camera import centre_um, fit
from napari_mosaik.widgets.canvas.layout import CanvasNotice, Layout
from napari_mosaik.widgets.canvas.layout_state import BASE, LayoutState, put_in_order, show_grid
from napari_mosaik.widgets.canvas.link import square_lines
from napari_mosaik.widgets.canvas.list_rows import is_there, keep_out_of_list, make_room

if TYPE_CHECKING:
    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["COMPARISONS", "PER_CELL", "ModelMaps", "ReviewBoard", "SideBySide"]

PER_CELL = 3
"""Layers of one view: map, hatching, outline of the selected tile."""
COMPARISONS: Final = ("Side by side", "Swipe", "Flicker")
_MARGIN_PX = np.array([30.0, 60.0])
"""Room for the heading above a map, and for its colour bar at the right."""
_FEWEST, _MOST = 2, 4
_FLICKER_MS = 700
"""Each of two maps is shown for so long: slower than what may harm people with epilepsy."""
_SWIPE_MS, _GRIP_PX = 30, 8.0
"""The swipe follows its handle this often; the handle is caught from so far away."""
_HANDLE = "Handle of the swipe"
_INVISIBLE = "\N{HAIR SPACE}"
"""Tells a map of a layout from the layer of that name: napari lets no two layers have one name."""


class SideBySide(Layout):
    """Shows some maps, each in a view of its own.

    Each view has layers of its own at the bottom of the list; all others are hidden meanwhile.  The
    layers are kept, hidden, for the next time, as long as they would be the same.  They are made
    and shown in turns of the event loop, a view at a time and each with all that belongs to it;
    ``whole`` is emitted once all are shown, and a line on the canvas tells how many until then.
    """

    whole = Signal()
    headings: tuple[str, ...] = ()

    def __init__(self, link: CanvasLink) -> None:
        super().__init__(link)
        self.workspace = link.workspace
        self._cells: list[Layer] = []
        self._marks: list[Layer] = []
        self._making: Iterator[None] | None = None
        self._shown: list[Layer] = []
        self._turns = Turns(self)
        self._notice = CanvasNotice(self.viewer)
        self._fitted: tuple[Any, float] | None = None
        self._fit_soon = qdebounced(self._fit_again, timeout=50, parent=self)
        self.workspace.events.tile.connect(self._mark)
        self.workspace.events.tile_data.connect(self._rebuild)
        self.viewer.events.theme.connect(self._rebuild)
        self.viewer.canvas.events.size.connect(self._resized)

    def specs(self) -> list[LayerSpec]:
        """The maps; empty when there is nothing to compare."""
        raise NotImplementedError

    def is_possible(self) -> bool:
        """Whether there is something to compare."""
        return bool(self.specs())

    @property
    def is_whole(self) -> bool:
        """Whether the layout is shown, and all of its views."""
        return self.is_on and 0 < len(self._shown) == len(self._cells)

    def arrange(self, before: LayoutState) -> None:
        """Hide the layers and show the maps one after another, as large as the canvas allows."""
        self.board.hold_slides(True)
        if not all(is_there(self.viewer, layer) for layer in self._cells):
            self._drop()
        with in_one_update(self.viewer):
            for layer in before.order:
                if is_there(self.viewer, layer) and layer.visible:
                    layer.visible = False
        self.viewer.layers.selection.clear()
        self.link.marked_elsewhere = True
        self._shown = []
        self._turns.start(self._show_in_turns())

    def make_ahead(self) -> bool:
        """Make one of the layers for when the maps are shown; False when there is nothing left.

        Nothing is made while any layout is shown: its views hold equally many layers of the list.
        """
        if self.link.layout is not None or (self._cells and self._making is None):
            return False
        if not self.is_possible():
            return False
        return next(self._make_in_turns(), True) is None

    def _make_in_turns(self) -> Iterator[None]:
        """Make the layers that are not made yet, hidden."""
        if not self._cells:
            self._making = self._make()
        while self._making is not None:
            if next(self._making, True):
                self._making = None
            else:
                yield

    def _make(self) -> Iterator[None]:
        yield from self._make_maps()
        maps = self._maps()
        put_in_order(self.viewer, self._cells)
        _show_scales(maps)
        for layer in maps:
            make_texts(self.viewer, layer)
            yield
        if not self.is_on:
            make_grid(self.viewer, self._shape(len(maps)))
            yield

    def _show_in_turns(self) -> Iterator[None]:
        """Show the views, one in each turn."""
        self._notice.show("Preparing the maps…")
        yield
        yield from self._make_in_turns()
        groups, maps = self._groups(), self._maps()
        put_in_order(self.viewer, self._cells)
        keep_out_of_list(self.viewer, [one for one in self._cells if one not in maps], maps)
        for group in groups:
            with in_one_update(self.viewer):
                self._divide(len(maps))
                for layer in group:  # what has no line would be drawn all the same
                    layer.visible = len(layer.data) > 0
                self._shown += group
                self._mark()
                if self.is_whole:
                    self._begin()
            if group is groups[0]:
                self._frame()
            if not self.is_whole:
                self._notice.show(f"Preparing the maps… {groups.index(group) + 1} of {len(groups)}")
                yield
        self._notice.hide()
        self.viewer.layers.selection.clear()
        self.whole.emit()

    def _begin(self) -> None:
        """What begins once all views are shown."""

    def _groups(self) -> list[list[Layer]]:
        """The layers that are shown together: those of one view."""
        return [self._cells[at : at + PER_CELL] for at in range(0, len(self._cells), PER_CELL)]

    def restore(self, before: LayoutState) -> None:
        """Hide the maps and show the layers again; what is not shown yet is left."""
        self._turns.stop()
        self._notice.hide()
        self.board.hold_slides(False)
        self.link.marked_elsewhere = False
        self._fit_soon.cancel()
        with in_one_update(self.viewer):
            before.restore_grid(self.viewer)
            kept = [layer for layer in self._cells if is_there(self.viewer, layer)]
            for layer in kept:
                layer.visible = False
            own = [one for one in before.order if one not in kept and is_there(self.viewer, one)]
            put_in_order(self.viewer, [*kept, *own])
            for layer in own:
                if layer.visible != before.shown[layer]:
                    layer.visible = before.shown[layer]
            keep_out_of_list(self.viewer, kept)
        self.viewer.layers.selection.clear()
        self._fitted = None
        before.restore_camera(self.viewer)

    def _drop(self) -> None:
        """Remove the layers of the maps: other ones are to be shown, or none."""
        cells, self._cells, self._marks, self._shown = self._cells, [], [], []
        self._making = None
        self.board.dismiss(cells)

    def _maps(self) -> list[Layer]:
        return self._cells[::PER_CELL]

    def _make_maps(self) -> Iterator[None]:
        """Make the layers of all views."""
        headings = self.headings
        for number, spec in enumerate(self.specs()):
            self._add_picture(spec, headings[number])
            yield
            self._add(self._hatching(number))
            yield
            self._add_mark(number)
            yield

    def _divide(self, n: int) -> None:
        """Divide the canvas among *n* maps."""
        show_grid(self.viewer, PER_CELL, self._shape(n))

    def _extent(self) -> tuple[Any, Any] | None:
        """Corners of the tiles with some room around them, (row, column) in µm."""
        grid = self.workspace.tile_data.grid
        if grid is None or not len(grid):
            return None
        low, high = grid.centres_um.min(axis=0), grid.centres_um.max(axis=0)
        return low - grid.stride_um, high + grid.stride_um

    def _shape(self, n: int) -> tuple[int, int]:
        """Rows and columns of the views in which *n* maps are largest."""
        extent = self._extent()
        size = np.ones(2) if extent is None else np.asarray(extent[1] - extent[0], float)
        shapes = [(rows, math.ceil(n / rows)) for rows in range(1, n + 1)]
        room = np.asarray(self.viewer.canvas.size, float)

        def zoom(shape: tuple[int, int]) -> float:
            return float(((room / np.array(shape) - _MARGIN_PX) / size).min())

        return max(shapes, key=zoom)

    def _frame(self) -> None:
        """Fit the tiles into their views."""
        extent = self._extent()
        if extent is not None:
            low, high = extent
            room = np.asarray(self.viewer.canvas.viewbox_size(self.viewer.layers), float)
            wider = (high - low) * (_MARGIN_PX / np.maximum(room - _MARGIN_PX, 1.0))
            fit(self.viewer, low - wider * (1, 0), high + wider * (0, 1), share=0.96)
            self._fitted = centre_um(self.viewer), float(self.viewer.scene.camera.zoom)

    def _resized(self, *_: Any) -> None:
        if self.is_on:
            self._fit_soon()

    def _fit_again(self) -> None:
        """Fill the canvas after its size has changed, unless the reader has moved the view."""
        if not self.is_on or self._fitted is None:
            return
        centre, zoom = self._fitted
        if np.allclose(centre, centre_um(self.viewer)) and zoom == self.viewer.scene.camera.zoom:
            if self.viewer.canvas.grid.enabled:
                shape = self._shape(len(self._maps()))
                if self.viewer.canvas.grid.shape != shape:
                    self.viewer.canvas.grid.shape = shape
            self._frame()

    def _rebuild(self, *_: Any) -> None:
        """Show new results."""
        shown = self.is_on
        self.leave()
        self._drop()
        if shown:
            self.enter()

    def _case_changed(self, *_: Any) -> None:
        super()._case_changed()
        self._drop()

    def _add_picture(self, spec: LayerSpec, title: str, side: str = "top_left") -> None:
        data, options, kind = spec.as_layer_data()
        picture = Layer.create(
            data, options | {"name": f"{title}{_INVISIBLE}", "opacity": 1.0}, kind
        )
        picture.metadata[BASE] = True
        _head(picture, side)
        self._add(picture)

    def _hatching(self, number: int) -> Layer:
        """Lines over some tiles of a map; none here."""
        grid, name = self.workspace.tile_data.grid, f"Hatching {number + 1}"
        assert grid is not None
        layer = Layer.create(*hatch_layer(grid, self._hatched(number), name).as_layer_data())
        layer.metadata[BASE] = True
        return layer

    def _hatched(self, number: int) -> Any:
        """(n_tiles,) True for the tiles of a map that are hatched."""
        return np.zeros(self.workspace.tile_data.n_tiles, bool)

    def _add(self, layer: Layer) -> None:
        layer.visible = False
        make_room(self.viewer, layer.name)
        add_hidden(self.viewer, layer, len(self._cells))
        self._cells.append(layer)
        keep_out_of_list(self.viewer, [layer])

    def _add_mark(self, number: int) -> None:
        options = {
            "name": f"Selected tile {number + 1}",
            "edge_color": palette.LANDMARK,
            "edge_width": self.workspace.tile_data.stride_um / 6,
            "vector_style": "line",
            **placement_um("cd34"),
        }
        self._marks.append(Layer.create(np.zeros((0, 2, 2)), options, "vectors"))
        self._add(self._marks[-1])

    def _mark(self, *_: Any) -> None:
        tile_data, tile = self.workspace.tile_data, self.workspace.tile
        if not self.is_on or tile_data.grid is None:
            return
        lines: Any = np.zeros((0, 2, 2))
        if 0 <= tile < tile_data.n_tiles:
            lines = square_lines(tile_data.grid.centres_um[tile], tile_data.stride_um)
        for mark in self._marks:
            if len(lines) or len(mark.data):
                mark.data = lines
            shown = len(lines) > 0 and mark in self._shown
            if mark.visible != shown:
                mark.visible = shown


def _head(picture: Layer, position: str) -> None:
    """Write the name of a map into its view."""
    name = picture.name_overlay
    name.position, name.font_size, name.box, name.visible = position, 8, True, True


def _show_scales(maps: list[Layer]) -> None:
    """One colour bar for each scale, in the first map that has it."""
    known: list[Any] = []
    for picture in maps:
        if not hasattr(picture, "colorbar"):  # classes have names, not a scale
            continue
        scale = (picture.colormap.name, tuple(picture.contrast_limits))
        if scale not in known:
            known.append(scale)
            bar = picture.colorbar
            bar.position, bar.size, bar.font_size = "top_right", (12, 110), 8
            bar.box, bar.visible = True, True


class ReviewBoard(SideBySide):
    """Shows two to four of the maps of the review, or compares two by swipe or flicker.

    ``chosen`` are keys of `BOARD_TITLES`; ``rearranged`` is emitted after another choice is shown,
    ``divided`` after the divider of the swipe was moved.
    """

    rearranged = Signal()
    divided = Signal()

    def __init__(self, link: CanvasLink) -> None:
        super().__init__(link)
        self._lines = ScreenLines(link.viewer, self)
        self._swipe_soon = qthrottled(self._swipe, timeout=_SWIPE_MS, parent=self)
        self.viewer.mouse_drag_callbacks.append(self._dragged)
        self.viewer.mouse_move_callbacks.append(self._hovered)
        self.chosen: tuple[str, ...] = ()
        self.normalised = self.smoothed = False
        self.comparison = COMPARISONS[0]
        self.divider = 0.5
        self._near = False
        self._known: dict[str, BoardMap] | None = None
        self._placed: Any = None  # where the tiles of the known maps are
        self._smooth: dict[str, BoardMap] | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(_FLICKER_MS)
        self._timer.timeout.connect(self._flicker)
        self.board.scaled.connect(self._rescale)
        self.workspace.events.tile_data.disconnect(self._rebuild)
        self.workspace.events.tile_data.connect(self._forget)

    # --- what is shown --------------------------------------------------------------------------
    def maps(self) -> dict[str, BoardMap]:
        """The maps of the open case by key, on the scale of the uptake; empty without any."""
        if self._known is None:
            limits, grid = self.board.uptake_limits, self.workspace.tile_data.grid
            self._placed = None if grid is None else grid.centres_um
            self._known = board_maps(self.workspace.tile_data, limits, normalised=self.normalised)
        return self._known

    def shown(self) -> list[BoardMap]:
        """The chosen maps in their order; by default as many as four views hold."""
        maps = self.maps()
        keys = [key for key in maps if key in self.chosen] or list(maps)[:_MOST]
        smooth = self._smooth if self.smoothed and self._smooth else maps
        count = _FEWEST if self.comparison != COMPARISONS[0] else _MOST
        return [smooth[key] for key in keys[:count]]

    @property
    def headings(self) -> tuple[str, ...]:  # type: ignore[override]
        """What each view shows."""
        return tuple(one.heading for one in self.shown())

    def specs(self) -> list[LayerSpec]:
        """The chosen maps as layers."""
        grid = self.workspace.tile_data.grid
        return [] if grid is None else [board_layer(one, grid) for one in self.shown()]

    def _hatched(self, number: int) -> Any:
        return self.shown()[number].hatched

    # --- what a reader chooses ------------------------------------------------------------------
    def choose(self, keys: tuple[str, ...]) -> None:
        """Show these maps: two to four."""
        self.chosen = keys[:_MOST]
        self._show_again()

    def set_normalised(self, normalised: bool) -> None:
        """Show the uptake on the scale of the training tiles, 0 to 1, or as SUV."""
        self.normalised = normalised
        self._known = self._smooth = None
        if self.smoothed:
            self.set_smoothed(True)
        else:
            self._show_again()

    def set_smoothed(self, smoothed: bool) -> None:
        """Interpolate between the tiles, on a thread; or show the tiles again."""
        self.smoothed = smoothed
        if not self.is_on:
            self._drop()
        case, grid, maps = self.workspace.case, self.workspace.tile_data.grid, self.maps()
        if not smoothed or self._smooth is not None or case is None or grid is None:
            self._show_again()
            return

        def then(found: dict[str, BoardMap]) -> None:
            if maps is self._known:
                self._smooth = found
                self._show_again()

        work = partial(smooth_maps, case, grid, maps)
        self.board.controller.read_for(case, "Smoothed maps", work, then)

    def compare(self, comparison: str) -> None:
        """Show the maps in one of the ways of `COMPARISONS`."""
        self.comparison = comparison
        self._show_again()

    def set_divider(self, share: float) -> None:
        """Move the divider of the swipe to a share of the width, 0 to 1."""
        share = min(1.0, max(0.0, share))
        if share != self.divider:
            self.divider = share
            self.divided.emit()
        if self._swiping:
            self._swipe_soon()

    @property
    def _swiping(self) -> bool:
        return self.is_whole and self.comparison == COMPARISONS[1]

    def _span_um(self) -> tuple[float, float]:
        """Left and right end of the maps, column in µm of the reference section."""
        layer = self._maps()[0]
        step, middle = float(layer.scale[-1]), float(layer.translate[-1])
        return middle - step / 2, middle + step * (layer.data.shape[1] - 0.5)

    def _is_near(self, event: Any) -> bool:
        """Whether the mouse is at the handle of the swipe."""
        if not self._swiping:
            return False
        left, right = self._span_um()
        away = abs(float(event.position[-1]) - left - self.divider * (right - left))
        return bool(away * self.viewer.scene.camera.zoom <= _GRIP_PX)

    def _hovered(self, viewer: Any, event: Any) -> None:
        """Show that the handle can be moved."""
        near = self._is_near(event)
        if near != self._near:
            self._near = near
            viewer.cursor.style = "pointing" if near else "standard"

    def _dragged(self, viewer: Any, event: Any) -> Iterator[None]:
        """Move the divider with its handle."""
        if event.button != 1 or self.link.active_tool is not None or not self._is_near(event):
            return
        camera = viewer.scene.camera
        pans, camera.mouse_pan = camera.mouse_pan, False
        yield
        moved = False
        while event.type == "mouse_move":
            moved = True
            self._move_to(event)
            yield
        if moved:  # the place of the release: napari may have left some moves out
            self._move_to(event)
        camera.mouse_pan = pans

    def _move_to(self, event: Any) -> None:
        if self._swiping:
            left, right = self._span_um()
            self.set_divider((float(event.position[-1]) - left) / (right - left))

    def _show_handle(self) -> None:
        """A line at the divider with a grip in its middle."""
        extent = self._extent()
        if extent is None:
            return
        left, right = self._span_um()
        place, half = left + self.divider * (right - left), 9 / self.viewer.scene.camera.zoom
        top, bottom = float(extent[0][0]), float(extent[1][0])
        middle = (top + bottom) / 2
        grip = [[[middle - 2 * half, place + side], [4 * half, 0.0]] for side in (-half, half)]
        caps = [[[middle + end, place - half], [0.0, 2 * half]] for end in (-2 * half, 2 * half)]
        lines = np.array([[[top, place], [bottom - top, 0.0]], *grip, *caps])
        self._lines.show(_HANDLE, lines, palette.LANDMARK, 2.5)
        keep_out_of_list(self.viewer, [self.viewer.layers[_HANDLE]])

    # --- showing it -----------------------------------------------------------------------------
    def arrange(self, before: LayoutState) -> None:
        """Show the maps; two alternate in a flicker."""
        if any(one.key in ("measured", "difference") for one in self.shown()):
            self.board.controller.saw_measured("the review board")
        self._lines.hide(_HANDLE)
        super().arrange(before)

    def _groups(self) -> list[list[Layer]]:
        """Two maps that are compared in one view are shown together."""
        return super()._groups() if self.comparison == COMPARISONS[0] else [list(self._cells)]

    def _begin(self) -> None:
        if self.comparison == COMPARISONS[1]:
            self._swipe()
        elif self.comparison == COMPARISONS[2]:
            self._flicker()
            self._timer.start()

    def restore(self, before: LayoutState) -> None:
        """Show the layers again."""
        self._timer.stop()
        self._lines.hide(_HANDLE)
        if self._near:
            self._near, self.viewer.cursor.style = False, "standard"
        super().restore(before)

    def detach(self) -> None:
        """Leave the viewer as it was found."""
        self.leave()
        self._swipe_soon.cancel()
        self._lines.detach()
        self.viewer.mouse_drag_callbacks.remove(self._dragged)
        self.viewer.mouse_move_callbacks.remove(self._hovered)

    def _maps(self) -> list[Layer]:
        side_by_side = self.comparison == COMPARISONS[0]
        return super()._maps() if side_by_side else self._cells[:_FEWEST]

    def _make_maps(self) -> Iterator[None]:
        if self.comparison == COMPARISONS[0]:
            yield from super()._make_maps()
            return
        sides = ("top_left", "top_right")
        for spec, title, side in zip(self.specs(), self.headings, sides, strict=False):
            self._add_picture(spec, title, side)
            yield
        self._add(self._hatching(_FEWEST - 1))
        self._add_mark(0)

    def _divide(self, n: int) -> None:
        if self.comparison == COMPARISONS[0]:
            super()._divide(n)
        else:
            self.viewer.canvas.grid.enabled = False

    def _swipe(self) -> None:
        """The first map left of the divider, the second one right of it."""
        if not self._swiping:  # left while it waited
            return
        for number, (layer, spec) in enumerate(zip(self._maps(), self.specs(), strict=False)):
            values = np.array(spec.data)
            place = round(self.divider * values.shape[1])
            hidden = slice(place, None) if number == 0 else slice(0, place)
            values[:, hidden] = np.nan
            layer.data = values
        self._show_handle()

    def _flicker(self) -> None:
        """Show the other one of two maps; the first one at first."""
        first, second = self._maps()
        first.visible = not first.visible or second.visible
        second.visible = not first.visible

    def _show_again(self) -> None:
        """Exchange the maps; the layers of the case stay as they are."""
        if self.is_on and self.before is not None:
            before = self.before
            self._timer.stop()
            self._drop()
            self.arrange(before)
        else:
            self._drop()
        self.rearranged.emit()

    def _read_again(self) -> bool:
        """Whether the maps differ from those that were known."""
        former, placed = self._known, self._placed
        self._known = self._smooth = None
        if not former or self.smoothed:
            return True
        maps = self.maps()
        return not (
            former.keys() == maps.keys()
            and np.array_equal(placed, self._placed)
            and all(one.equals(maps[key]) for key, one in former.items())
        )

    def _forget(self, *_: Any) -> None:
        if not self._read_again():
            return
        if not self.is_on:
            self._drop()
        if not self.is_possible():
            self.leave()
            self._drop()
        elif self.smoothed:
            self.set_smoothed(True)
        else:
            self._show_again()

    def _rescale(self) -> None:
        """Follow the scale that the reader chose."""
        if not self._read_again():
            return
        if not self.is_on:
            self._drop()
            return
        if self.smoothed:
            self.set_smoothed(True)
            return
        if not self.is_whole:
            self._show_again()
            return
        for layer, spec in zip(self._maps(), self.specs(), strict=False):
            layer.contrast_limits = spec.style["contrast_limits"]
        self.rearranged.emit()

    def _case_changed(self, *_: Any) -> None:
        self._known = self._smooth = None
        super()._case_changed()


class ModelMaps(SideBySide):
    """Shows what two models say about the open case, and where they differ."""

    def __init__(self, link: CanvasLink) -> None:
        super().__init__(link)
        self._specs: list[LayerSpec] = []

    def show(self, specs: list[LayerSpec], headings: tuple[str, ...]) -> None:
        """Show these maps in place of any others."""
        self.prepare(specs, headings)
        self.enter()

    def prepare(self, specs: list[LayerSpec], headings: tuple[str, ...]) -> None:
        """Have these maps ready to be shown; without any, those of before are gone."""
        self.leave()
        self._drop()
        self._specs, self.headings = specs, headings

    def specs(self) -> list[LayerSpec]:
        """The maps of the last comparison."""
        return self._specs

    def _case_changed(self, *_: Any) -> None:
        self._specs = []
        super()._case_changed()
