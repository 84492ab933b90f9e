"""The active tool: one observed value of the canvas that says who has mouse and keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from psygnal import SignalGroupDescriptor
from qtpy.QtCore import QObject, QTimer, Signal
from superqt.utils import qdebounced, qthrottled

from napari_mosaik.core import palette
from napari_mosaik.core.catalogue import REFERENCE
from napari_mosaik.view.spec import placement_um
from napari_mosaik.widgets.canvas.keys import KeyMap
from napari_mosaik.widgets.canvas.mouse import CanvasMouse, Pointer, keep_every_move

if TYPE_CHECKING:
    import napari

__all__ = ["CanvasTool", "ScreenLines", "ToolHost", "ToolMode"]

_REST_MS = 40
_SKETCH_MS = 30
"""What is being drawn is shown at most this often."""
Tool = TypeVar("Tool", bound="CanvasTool")


@dataclass(frozen=True, slots=True)
class ToolMode:
    """One way to use a tool: title of its button, hint, whether a drag pans, and mouse cursor.

    ``clicks`` says that something is made by several clicks, and finished by a double click.
    """

    title: str
    hint: str = ""
    pans: bool = False
    cursor: str = "crosshair"
    clicks: bool = False


class ScreenLines(QObject):
    """Lines on the canvas that are equally wide at every zoom: vectors layers by name."""

    def __init__(self, viewer: napari.Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._widths_px: dict[str, float] = {}
        self._rescale_soon = qdebounced(self._rescale, timeout=_REST_MS, parent=self)
        viewer.scene.camera.events.zoom.connect(self._zoomed)

    def show(self, name: str, lines: Any, colour: str, width_px: float) -> None:
        """Show vectors (n, 2, 2) in µm of the reference section; none removes the layer."""
        layers, width_um = self._viewer.layers, width_px / self._viewer.scene.camera.zoom
        if not len(lines):
            self.hide(name)
            return
        self._widths_px[name] = width_px
        if name in layers:
            layers[name].data = lines
            layers[name].edge_width = width_um
            return
        active = layers.selection.active
        self._viewer.add_vectors(
            np.asarray(lines, float),
            name=name,
            edge_color=colour,
            edge_width=width_um,
            vector_style="line",
            **placement_um(REFERENCE),
        )
        layers.selection.active = active

    def hide(self, name: str) -> None:
        """Remove a layer."""
        self._widths_px.pop(name, None)
        if name in self._viewer.layers:
            self._viewer.layers.remove(self._viewer.layers[name])

    def bring_up(self, name: str) -> None:
        """Draw a layer above all others, if it is there."""
        layers = self._viewer.layers
        if name in layers and layers[-1].name != name:
            layers.move(layers.index(layers[name]), len(layers))

    def detach(self) -> None:
        """Follow the camera no longer."""
        self._rescale_soon.cancel()
        self._viewer.scene.camera.events.zoom.disconnect(self._zoomed)

    def _zoomed(self, *_: Any) -> None:
        if self._widths_px:
            self._rescale_soon()

    def _rescale(self) -> None:
        for name, width_px in self._widths_px.items():
            if name in self._viewer.layers:
                self._viewer.layers[name].edge_width = width_px / self._viewer.scene.camera.zoom


class CanvasTool(QObject):
    """A tool that uses the mouse on the canvas.

    A subclass names itself and its modes and overrides what it reacts to.  ``changed`` is emitted
    when the tool becomes active, changes its mode or ends.

    Parameters
    ----------
    link
        The canvas.  Use ``link.tool(Class)`` to get the one instance of a tool.
    """

    name: ClassVar[str]
    """Scope of its keys in the table of shortcuts."""
    modes: ClassVar[Mapping[str, ToolMode]]
    """The modes by name; the first is the default."""
    exclusive: ClassVar[bool] = True
    """Layouts with several views, and a manual alignment, end when the tool becomes active."""
    draft_layer: ClassVar[str] = "Outline being drawn"
    """Name of the layer that shows what is being drawn."""
    changed = Signal()

    def __init__(self, link: ToolHost) -> None:
        super().__init__(link)
        self.link, self.viewer = link, link.viewer
        self.mode = ""
        self.lines = ScreenLines(link.viewer, self)
        self.sketch_soon = qthrottled(self.sketch, timeout=_SKETCH_MS, leading=False, parent=self)
        link.add_tool(self)

    @property
    def is_active(self) -> bool:
        """Whether the tool has mouse and keys."""
        return self.link.active_tool is self

    @property
    def title(self) -> str:
        """Title of the current mode."""
        return self.modes[self.mode].title if self.mode else ""

    @property
    def hint(self) -> str:
        """What the mouse does in the current mode; empty when the tool is not active."""
        return self.modes[self.mode].hint if self.mode else ""

    # --- on and off -----------------------------------------------------------------------------
    def take(self, mode: str = "") -> None:
        """Become the active tool in a mode; the tool that was active ends."""
        mode = mode or next(iter(self.modes))
        keep_every_move(True)  # also of a drag that begins while this is being prepared
        if not self.prepare(mode):
            keep_every_move(self.link.active_tool is not None)
            return
        self.mode = mode
        self.reset()
        if self.is_active:
            self.link.refresh_tool()
        else:
            self.link.active_tool = self
        self.changed.emit()

    def release(self) -> None:
        """Return mouse and keys to napari."""
        if self.is_active:
            self.link.active_tool = None

    def toggle(self, mode: str = "") -> None:
        """Take the tool in a mode, or release it when it is active in that mode."""
        if self.is_active and self.mode == (mode or next(iter(self.modes))):
            self.release()
        else:
            self.take(mode)

    def end(self) -> None:
        """Called by the canvas when the tool is no longer the active one."""
        self.mode = ""
        self.reset()
        self.off()
        self.changed.emit()

    # --- what a tool may override ---------------------------------------------------------------
    def prepare(self, mode: str) -> bool:
        """Get ready for a mode; False when it is not possible now."""
        return True

    def on(self) -> None:
        """The tool has become the active one."""

    def off(self) -> None:
        """The tool has ended."""

    def reset(self) -> None:
        """Discard what was begun: with each change of the mode, and at the end."""
        self.hide_draft()

    def actions(self) -> Mapping[str, Callable[[], Any]]:
        """What the keys of its scope do while it is active."""
        return {}

    def pressed(self, pointer: Pointer) -> None:
        """The left button was pressed."""

    def moved(self, pointer: Pointer) -> None:
        """The mouse was dragged: called for every position, so it only notes it."""

    def sketch(self) -> None:
        """Show what is being drawn: called at most every 30 ms during a drag."""

    def sketched(self) -> None:
        """The drag is over; its last positions need no sketch."""
        self.sketch_soon.cancel()

    def released(self, pointer: Pointer) -> None:
        """The left button was released."""

    def hovered(self) -> None:
        """The mouse moved without a button."""

    def wheeled(self, notches: float) -> bool:
        """The wheel was turned; whether the tool uses it, in place of the zoom (0: would use)."""
        return False

    def double_clicked(self) -> None:
        """A double click; napari does not zoom by it while a tool is active."""

    def detach(self) -> None:
        """Leave the viewer as it was found; called when the window closes."""
        self.sketch_soon.cancel()
        self.lines.detach()

    # --- draft ----------------------------------------------------------------------------------
    def show_draft(
        self, lines: Any, colour: str = palette.SELECTED_OBJECT, width_px: float = 2.0
    ) -> None:
        """Draw what is being drawn: vectors (n, 2, 2) in µm of the reference section."""
        self.lines.show(self.draft_layer, lines, colour, width_px)

    def hide_draft(self) -> None:
        """Remove what was being drawn."""
        self.lines.hide(self.draft_layer)


@dataclass(eq=False)
class _Observed:
    """Which tool is active and which layout is shown; None for napari's own."""

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    active_tool: CanvasTool | None = None
    layout: QObject | None = None


class ToolHost(QObject):
    """A canvas on which at most one tool is active.

    ``events.active_tool`` and ``events.layout`` announce the new and the former value; whoever
    must react to a change subscribes there.
    """

    def __init__(self, viewer: napari.Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.keys = KeyMap(viewer, self)
        self._mouse = CanvasMouse(viewer, self._lent, self)
        self._observed = _Observed()
        self._tools: list[CanvasTool] = []
        self._double_click_of_napari: list[Any] = []
        self._bound: tuple[str, Mapping[str, Any]] = ("", {})
        self._panning = False
        self.events.active_tool.connect(self._switched)

    @property
    def events(self) -> Any:
        """Signals of the observed values."""
        return self._observed.events

    @property
    def active_tool(self) -> CanvasTool | None:
        """The tool that has mouse and keys; None for napari's own pan and zoom."""
        return self._observed.active_tool

    @active_tool.setter
    def active_tool(self, tool: CanvasTool | None) -> None:
        self._observed.active_tool = tool

    @property
    def layout(self) -> QObject | None:
        """The layout that is shown in place of the single view."""
        return self._observed.layout

    @layout.setter
    def layout(self, layout: QObject | None) -> None:
        self._observed.layout = layout

    def tool(self, kind: type[Tool]) -> Tool:
        """The one tool of a class on this canvas, made when it is first asked for."""
        known = next((tool for tool in self._tools if type(tool) is kind), None)
        return known if isinstance(known, kind) else kind(self)

    def add_tool(self, tool: CanvasTool) -> None:
        """Called by each tool of this canvas when it is made."""
        self._tools.append(tool)

    def tool_at(self, path: str) -> CanvasTool:
        """The tool of a class that is named by "module:Class", as in the table of shortcuts."""
        module, _, kind = path.partition(":")
        found: type[CanvasTool] = getattr(import_module(module), kind)
        return self.tool(found)

    def refresh_tool(self) -> None:
        """Apply mode and keys of the active tool again."""
        tool = self.active_tool
        if tool is not None:
            self._mouse.drop()
            self._bind(tool)
            self._select_none()

    def detach(self) -> None:
        """Leave the viewer as it was found."""
        self.active_tool = self.layout = None
        for tool in self._tools:
            tool.detach()
        self.keys.detach()

    # --- switching ------------------------------------------------------------------------------
    def _switched(self, tool: CanvasTool | None, former: CanvasTool | None) -> None:
        """Give mouse and keys to a tool, or back to napari.

        The former tool ends first, so that whatever it puts back on the canvas is in place when the
        next one starts; it may ask for nothing itself, because it is no longer the active tool.
        """
        self._mouse.drop()
        if former is None:
            self._attach()
        else:
            former.end()
        if tool is None:
            self._detach()
        else:
            tool.on()
            self._bind(tool)
            self._select_none()

    def _attach(self) -> None:
        viewer = self.viewer
        self._mouse.attach()
        viewer.mouse_move_callbacks.append(self._hovered)
        self._double_click_of_napari = list(viewer.mouse_double_click_callbacks)
        viewer.mouse_double_click_callbacks[:] = [self._double_clicked]
        viewer.layers.events.inserted.connect(self._layer_came)
        viewer.scene.camera.events.mouse_pan.connect(self._hold_still)
        self.keys.bind("tool", {"pan": self._hold_to_pan})

    def _detach(self) -> None:
        viewer = self.viewer
        self._release_keys()
        self.keys.release("tool")
        viewer.layers.events.inserted.disconnect(self._layer_came)
        viewer.scene.camera.events.mouse_pan.disconnect(self._hold_still)
        self._mouse.detach()
        viewer.mouse_move_callbacks.remove(self._hovered)
        viewer.mouse_double_click_callbacks[:] = self._double_click_of_napari
        chosen = viewer.layers.selection.active
        viewer.scene.camera.mouse_pan = chosen is None or chosen.mouse_pan
        viewer.cursor.style = "standard"

    def _bind(self, tool: CanvasTool) -> None:
        self._release_keys()
        self._bound = tool.name, tool.actions()
        self.keys.bind(*self._bound)
        self.viewer.cursor.style = tool.modes[tool.mode].cursor

    def _release_keys(self) -> None:
        scope, actions = self._bound
        self.keys.release(scope, actions)
        self._bound = ("", {})

    def _layer_came(self, event: Any) -> None:
        # napari selects a new layer once it is in the list
        QTimer.singleShot(0, partial(self._let_go, event.value))

    def _let_go(self, layer: Any) -> None:
        """Do not leave a new layer selected: it would take keys such as Ctrl+Z.

        A layer that a person selected for its controls stays selected; the tool stays active.
        """
        if self.viewer.layers.selection.active in (layer, None):
            self._select_none()

    def _select_none(self) -> None:
        if self.active_tool is not None:
            self.viewer.layers.selection.clear()
            self._hold_still()

    def _hold_still(self, *_: Any) -> None:
        """A drag pans only where the mode allows it; napari resets this with each selection."""
        tool = self.active_tool
        if tool is not None:
            self.viewer.scene.camera.mouse_pan = self._panning or tool.modes[tool.mode].pans

    def _hold_to_pan(self) -> Iterator[None]:
        self._panning = True
        self._hold_still()
        yield
        self._panning = False
        self._hold_still()

    # --- mouse ----------------------------------------------------------------------------------
    def _lent(self) -> CanvasTool | None:
        """The active tool, unless the key is held that lends the mouse to napari."""
        return None if self._panning else self.active_tool

    def _hovered(self, _viewer: Any, _event: Any) -> None:
        if self.active_tool is not None:
            self.active_tool.hovered()

    def _double_clicked(self, _viewer: Any, _event: Any) -> None:
        if self.active_tool is not None:
            self.active_tool.double_clicked()
