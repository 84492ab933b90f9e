"""What keeps the window quick: prepared beforehand, remembered, one update, short collections."""

from __future__ import annotations

import contextlib
import gc
import linecache
import string
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache, lru_cache, partial, wraps
from importlib import import_module
from types import BuiltinFunctionType, FunctionType, MethodType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from qtpy.QtCore import QCoreApplication, QObject, Qt, QTimer, Signal
from qtpy.QtGui import QCursor, QGuiApplication

from napari_mosaik.widgets.base.frames import Frames, point_by_place, slice_before_drawing

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

__all__ = [
    "Turns",
    "WindowFirst",
    "add_hidden",
    "collect_new",
    "fast_removal",
    "freeze_window",
    "in_one_update",
    "make_grid",
    "make_texts",
    "move_hidden",
    "prepare_letters",
    "quicken",
    "remove_hidden",
    "set_aside",
    "unselected",
    "warm_up",
    "without_drawing",
]

_MODULES = (
    "matplotlib.colors",
    "scipy.ndimage",
    "scipy.stats",
    "scipy.integrate",
    "pandas",
    "shapely",
    "matplotlib.backends.backend_qtagg",
    "pydicom",
    "requests",
)
"""Libraries that the window needs soon after a case is open."""
_LABELS = (np.uint8, np.int32, np.uint16)
"""Types of the label images that are shown: for each, napari compiles how it colours them."""
_LETTERS = "HE&CD34AIX PTµm²·×" + string.digits + string.ascii_lowercase + "SUVMN.,()-%/"
"""What is written on the canvas: names of stains and maps, the readout, scales."""
_FEW, _SMALL = 256, 2**15
"""So many labels, each below that number, are coloured by a table."""
_TEXTS: Final = 1024
"""So many texts of shader programs are remembered."""
_UNSEEN: Final = ("set_data", "highlight", "refresh", "scale_factor", "extent")
"""Events of a layer that change nothing in its row of the list."""
_PLAIN: Final = (FunctionType, BuiltinFunctionType, MethodType)
_frozen: list[bool] = []
"""Whether a window is frozen; to count what is frozen takes 0.2 s."""
_aside: list[bool] = []
"""Whether all that was there was set aside, and for each time since the last full collection."""
_NEW, _MANY, _LIBRARIES = 30_000, 40_000, 120_000
"""So many new objects are collected in passing, in 15 to 40 ms.  What stays is set aside if it is
so many: what belongs to one case is fewer.  So many at once are libraries: they are set aside."""
_IDLE_MS: Final = 5000
_LOOKS: Final = 12
"""A full collection takes up to 1 s: the mouse must rest at so many looks, a minute."""
_DUE: Final = 40
"""A full collection is due after so many of middle-aged objects."""
_NEVER: Final = 1_000_000
_SWITCH_S: Final = 0.0005
"""Another thread hands over to the window's after so long, Python's own figure is ten times that.

Each call of the graphics library lets go of Python: while another thread computes, a picture of a
hundred calls waited for half a second to go on."""
_ROUNDS: Final = 2
"""A piece of work has its turn in one of so many rounds of the event loop.

A change of the canvas asks to be drawn in the first round, is drawn in the second."""
_before: list[tuple[tuple[int, int, int], float]] = []
"""When Python collected by itself and how soon threads gave way, for each window that is open."""


def freeze_window(viewer: napari.Viewer, times: int = 1) -> bool:
    """Exclude the objects of a window without layers from later garbage collections.

    A full collection traverses all objects, on whichever thread triggers it, and blocks the window
    meanwhile: 0.2 s with napari's libraries loaded, a few ms once they are frozen.  Does nothing
    if there are layers already, or this was done so many *times*: what is frozen is never freed.
    Returns whether it was done.
    """
    if viewer.layers or len(_frozen) >= times:
        return False
    gc.freeze()
    _frozen.append(True)
    return True


def set_aside() -> None:
    """Keep all objects that are there out of collections until the mouse rests for a minute.

    A window with all its pages, its libraries and a case has a million objects, and a full
    collection traverses each of them: 0.7 s.  To set them aside takes no time.  What of them is
    garbage, or becomes it, is freed by the full collection of `WindowFirst`.
    """
    gc.freeze()
    _frozen.append(True)
    _aside.append(True)


def collect_new() -> None:
    """Collect of the objects that were not set aside; if many stay, set them aside.

    The first time, nothing is collected: all that is there is set aside.
    """
    if _aside:
        gc.collect()
        _aside.append(True)
    if not _aside or len(gc.get_objects()) > _MANY:
        set_aside()


def _collect_all() -> None:
    """Collect all garbage, also of what was set aside, and set the rest aside again."""
    gc.unfreeze()
    gc.collect()
    _aside.clear()
    set_aside()


class WindowFirst(QObject):
    """Lets the window's thread come first, as long as a window is open.

    Other threads give way to it soon.  Full collections of garbage are left to moments in which
    nobody moves the mouse: Python would do them amid a stroke.  Until then only what is new is
    collected (`collect_new`): when a case was left, or much has come.
    """

    def __init__(self, owner: QObject) -> None:
        super().__init__(owner)
        _before.append((gc.get_threshold(), sys.getswitchinterval()))
        gc.set_threshold(*_before[0][0][:2], _NEVER)
        sys.setswitchinterval(_SWITCH_S)
        self._at, self._rested, self._stayed = QCursor.pos(), 0, 0
        self._timer = QTimer(self)
        self._timer.timeout.connect(self.look)
        self._timer.start(_IDLE_MS)

    def look(self) -> None:
        """Collect what is new if it is much, and all if the mouse rested for a minute."""
        before, self._at = self._at, QCursor.pos()
        if QGuiApplication.mouseButtons().value:
            self._rested = 0
            return
        self._rested = self._rested + 1 if before == self._at else 0
        if self._rested >= _LOOKS and (gc.get_count()[2] >= _DUE or len(_aside) > 1):
            _collect_all()
            self._stayed = 0
        elif (new := len(gc.get_objects()) - self._stayed) > _NEW:
            (set_aside if new > _LIBRARIES else collect_new)()
            self._stayed = len(gc.get_objects())

    def stop(self) -> None:
        """Leave Python as it was found, once no window is open."""
        if self._timer.isActive():
            self._timer.stop()
            thresholds, interval = _before.pop()
            if not _before:
                gc.set_threshold(*thresholds)
                sys.setswitchinterval(interval)
                if _aside:
                    gc.unfreeze()
                    _aside.clear()
                    _frozen.clear()


@contextlib.contextmanager
def in_one_update(viewer: napari.Viewer) -> Iterator[None]:
    """Let napari arrange its canvas once, after all changes of the layers that are made inside.

    It would do so after each: every layer that is added, moved, shown or removed costs as much as
    all layers together.  Names and scales of the views are placed once, too: napari places all of
    them again for each layer, a third of what entering a layout takes.  May be nested.
    (`LayerList.batched_update` cannot, and collects garbage.)
    """
    if getattr(viewer.window, "_qt_window", None) is None:  # closed while something was read
        yield
        return
    canvas = viewer.window._qt_viewer.canvas
    if canvas._pause_scene_graph:
        yield
        return
    canvas._pause_scene_graph = True
    canvas._get_ordered_visible_canvas_overlays = lambda: iter(())
    try:
        yield
    finally:
        canvas._pause_scene_graph = False
        try:
            canvas._update_scenegraph()
        finally:
            del canvas._get_ordered_visible_canvas_overlays
            canvas._update_overlay_canvas_positions()


def add_hidden(viewer: napari.Viewer, layer: Layer, place: int) -> None:
    """Add a layer that is hidden at a place of the list; nothing that is drawn changes."""
    with _unseen(viewer), unselected(viewer):
        viewer.layers.insert(place, layer)


def move_hidden(viewer: napari.Viewer, place: int, to: int) -> None:
    """Move a layer of the list; if it is hidden, nothing that is drawn changes."""
    with contextlib.nullcontext() if viewer.layers[place].visible else _unseen(viewer):
        viewer.layers.move(place, to)


def remove_hidden(viewer: napari.Viewer, layer: Layer) -> None:
    """Remove a layer that is hidden; nothing that is drawn changes."""
    with _unseen(viewer):
        viewer.layers.remove(layer)


@contextlib.contextmanager
def _unseen(viewer: napari.Viewer) -> Iterator[None]:
    """Let napari neither arrange nor draw its canvas for what is done inside."""
    canvas = viewer.window._qt_viewer.canvas
    frames: Frames | None = getattr(canvas.native, "mosaik_frames", None)
    paused, canvas._pause_scene_graph = canvas._pause_scene_graph, True
    try:
        with contextlib.nullcontext() if frames is None else frames.as_it_is():
            yield
    finally:
        canvas._pause_scene_graph = paused


def make_grid(viewer: napari.Viewer, shape: tuple[int, int]) -> None:
    """Make the views of a grid of that many rows and columns, before it is shown."""
    canvas, grid = viewer.window._qt_viewer.canvas, viewer.canvas.grid
    if grid.enabled or not any(layer.visible for layer in viewer.layers):
        return
    before = grid.shape
    with grid.events.blocker_all():
        grid.shape, grid.enabled = shape, True
        try:
            canvas._init_or_update_grid()
        finally:
            grid.shape, grid.enabled = before, False


def make_texts(viewer: napari.Viewer, layer: Layer) -> None:
    """Make what is written about a layer, its name and its colour bar, while it is hidden."""
    canvas = viewer.window._qt_viewer.canvas
    type(canvas)._update_layer_overlays(canvas, layer)


class _Beat(QObject):
    """Gives all `Turns` of the program their turn: one piece of one of them, then the window.

    Timers of several objects that are due come in one round of the event loop, before the window
    hears or draws anything: four pieces of 30 ms would hold it up for 120 ms.  After each piece
    some rounds pass in which what it changed is arranged, drawn, and the mouse is heard.
    """

    _due = Signal()

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.waiting: deque[deque[Iterator[object]]] = deque()
        self._round = 0
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._strike)
        # by an event, not in the timer's call: no timer strikes in a dialogue that its call shows
        self._due.connect(self._one, Qt.ConnectionType.QueuedConnection)

    @property
    def is_busy(self) -> bool:
        """Whether any piece waits for its turn."""
        return any(self.waiting)

    def enter(self, work: deque[Iterator[object]]) -> None:
        """Let the pieces of *work* have their turn."""
        if all(work is not one for one in self.waiting):
            self.waiting.append(work)
        if not self._timer.isActive():
            self._round = 0
            self._timer.start(0)

    def _strike(self) -> None:
        self._round = (self._round + 1) % _ROUNDS
        if not self.waiting:
            self._timer.stop()
        elif self._round == 1:
            self._due.emit()

    def _one(self) -> None:
        for _ in range(len(self.waiting)):
            work = self.waiting.popleft()
            if work:
                self.waiting.append(work)
                if not getattr(work[0], "gi_running", False):  # it shows a dialogue meanwhile
                    _do_one(work)
                    return


class Turns(QObject):
    """Does long work piece by piece, one piece in each turn of the event loop.

    The window is drawn and hears the mouse in between; pieces of other `Turns` come in others.
    """

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._work: deque[Iterator[object]] = deque()
        self._beat = _beat()
        work = self._work
        self.destroyed.connect(lambda *_: work.clear())

    @property
    def is_busy(self) -> bool:
        """Whether there is work left."""
        return bool(self._work)

    @property
    def any_busy(self) -> bool:
        """Whether there is work left here or anywhere else in the program."""
        return self._beat.is_busy

    def start(self, work: Iterator[object]) -> None:
        """Do the pieces of *work* from now on, instead of any others of these turns."""
        self.stop()
        self.add(work)

    def add(self, work: Iterator[object]) -> None:
        """Do the pieces of *work* after all others."""
        self._work.append(work)
        self._beat.enter(self._work)

    def soon(self, act: Callable[[], object]) -> None:
        """Call *act* in a turn of its own."""
        self.add(_once(act))

    def stop(self) -> None:
        """Do nothing more of these turns."""
        self._work.clear()

    def _one(self) -> None:
        """Do one piece now."""
        if self._work:
            _do_one(self._work)


def _beat() -> _Beat:
    """The beat of this program: there is one, as long as its event loop."""
    loop = QCoreApplication.instance()
    if loop is None:
        raise RuntimeError("turns of the event loop need a QApplication")
    return loop.findChild(_Beat) or _Beat(loop)


def _once(act: Callable[[], object]) -> Iterator[None]:
    """One piece."""
    act()
    yield from ()


def _do_one(waiting: deque[Iterator[object]]) -> None:
    """Do one piece; one that fails ends the work that it belongs to."""
    work = waiting[0]
    try:
        next(work)
    except BaseException as error:
        if waiting and waiting[0] is work:
            waiting.popleft()
        if not isinstance(error, StopIteration):
            raise


@contextlib.contextmanager
def fast_removal(viewer: napari.Viewer) -> Iterator[None]:
    """Keep the removal of layers fast: napari collects garbage after each one.

    That takes 0.3 s unless its own objects are frozen (`freeze_window`).  If they are not, one
    collection before the removals replaces those after each of them.
    """
    viewer.layers.selection.clear()
    if not _frozen:
        gc.collect()
        gc.freeze()
    try:
        with in_one_update(viewer):
            yield
    finally:
        if not _frozen:
            gc.unfreeze()


@contextlib.contextmanager
def unselected(viewer: napari.Viewer) -> Iterator[None]:
    """Add layers without selecting each in its turn, which shows its controls."""
    before, viewer.layers._activate_on_insert = viewer.layers._activate_on_insert, False
    try:
        yield
    finally:
        viewer.layers._activate_on_insert = before


def without_drawing(layer: Layer) -> None:
    """Spare a label image that cannot be edited what napari draws for its brush and polygon.

    Their shaders take a third of the time that showing the layer for the first time takes.
    """
    for name in ("polygon", "brush_stroke"):
        if name in layer._overlays:
            layer._overlays[name].visible = False


def prepare_letters(viewer: napari.Viewer, owner: QObject) -> None:
    """Prepare the letters of the canvas, one in each turn of the event loop, as long as *owner* is.

    Each takes 5 ms; all those of a text at once hold up the window when it is first shown.
    """
    info = viewer.window._qt_viewer.canvas.font_info()
    font = info.font_manager.get_font(info.face)
    Turns(owner).add(font[letter] for letter in dict.fromkeys(_LETTERS))


def quicken(viewer: napari.Viewer) -> None:
    """Let a viewer do once, later or not at all what napari repeats for each layer.

    Texts of shader programs that are known are not worked through again: half of what drawing a
    view for the first time takes.  A layer that is hidden stays in the view where it was, so its
    programs stay as they are.  Its controls are made when it is selected, in a turn of their own.
    What would show it in three dimensions, or in tiles, is made when it is shown so.  What of it
    is in view is worked out again at each draw only if it is shown.  Rows of the list that look as
    before stay.  Pictures come in turns of their own (`frames`).
    """
    _remember_texts()
    _remember_callbacks()
    _colour_by_tables()
    _make_nodes_late()
    _leave_hidden_layers()
    _leave_equal_units()
    _leave_rows()
    _leave_garbage()
    window = viewer.window._qt_viewer
    _hear_events_when_needed(viewer.window._qt_window)
    if not isinstance(window.controls.widgets, _LateControls):
        Frames(window.canvas._scene_canvas)
        slice_before_drawing(window.canvas)
        point_by_place(viewer)
        _make_controls_late(window.controls)
        _move_what_is_shown(window.canvas)


@cache
def _remember_texts() -> None:
    """Let vispy keep what it finds out about the texts of programs, once in a process."""
    from vispy.gloo import glir  # type: ignore[import-untyped]
    from vispy.gloo.program import Program  # type: ignore[import-untyped]
    from vispy.visuals.shaders.function import Function  # type: ignore[import-untyped]

    glir.convert_shader = lru_cache(_TEXTS)(glir.convert_shader)
    clean = lru_cache(_TEXTS)(partial(Function._clean_code, None))
    Function._clean_code = lambda _self, code: clean(code)
    # vispy asks the driver for each name, only to warn of those that have no value
    glir.GlirProgram._get_active_attributes_and_uniforms = lambda _self: set()
    parse, known = Program._parse_variables_from_code, dict[tuple[str, ...], dict[str, Any]]()

    def parsed(self: Any, update_variables: bool = True) -> None:
        texts = tuple(shader.code for shader in self._shaders)
        if texts not in known:
            if len(known) >= _TEXTS:
                known.clear()
            parse(self, update_variables=False)
            known[texts] = self._code_variables
        self._code_variables = dict(known[texts])
        if update_variables:
            self._process_pending_variables()

    Program._parse_variables_from_code = parsed


@cache
def _remember_callbacks() -> None:
    """Let napari look once at each method whether it takes an event, once in a process."""
    from napari.utils.events.event import EventEmitter

    check, known = EventEmitter._check_signature, weakref.WeakKeyDictionary[Any, bool]()

    def takes_event(callback: Any) -> bool:
        if isinstance(callback, partial):
            return bool(check(callback))
        # all methods of a function are alike, and all objects of a class that can be called
        alike = getattr(callback, "__func__", type(callback))
        if alike in _PLAIN:
            alike = callback
        if alike not in known:
            known[alike] = bool(check(callback))
        return known[alike]

    EventEmitter._check_signature = staticmethod(takes_event)


@cache
def _colour_by_tables() -> None:
    """Let napari look up labels and their colours in tables, not one label after another.

    Its compiled loop over a dictionary is compiled in every process: 2 s, in the window's thread if
    labels are shown before.  A map of many or of large labels keeps the loop.
    """
    from napari.utils.colormaps import DirectLabelColormap, _accelerated_cmap

    loop = _accelerated_cmap._labels_raw_to_texture_direct_loop

    @wraps(loop)
    def texture(data: Any, colours: Any) -> Any:
        known = colours.color_dict
        few = len(known) <= _FEW and all(k is None or 0 <= k < _SMALL for k in known)
        table = _accelerated_cmap._labels_raw_to_texture_direct_numpy
        return (table if few else loop)(data, colours)

    def colours_of(self: Any, values: Any, apply_selection: bool) -> Any:
        known = self._values_mapping_to_minimum_values_set(apply_selection)[1]
        found = np.zeros((max(known) + 1, 4), np.float32)
        for value, colour in known.items():
            found[value] = colour
        return found[values]

    _accelerated_cmap._labels_raw_to_texture_direct_loop = texture
    if _accelerated_cmap.labels_raw_to_texture_direct is loop:  # as in napari's settings
        _accelerated_cmap.labels_raw_to_texture_direct = texture
    DirectLabelColormap._map_precast = colours_of


class _LateNode:
    """An attribute that is made when it is first asked for: it is set to a `partial`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __set__(self, owner: Any, made: Any) -> None:
        owner.__dict__[self._name] = made

    def __get__(self, owner: Any, _kind: type | None = None) -> Any:
        made = owner.__dict__[self._name]
        if isinstance(made, partial):
            made = owner.__dict__[self._name] = made()
        return made


@cache
def _make_nodes_late() -> None:
    """Let napari make a volume, or an image in tiles, of a layer when one is needed.

    It makes all three for each layer, most of what making a layer takes.  Once in a process.
    """
    from napari._vispy.layers import image, labels

    kinds = {"VolumeNode": "_volume_node", "TiledImageNode": "_tiledimage_node"}
    images, codes = image.ImageLayerNode, labels.LabelLayerNode
    for owner, maker in ((images, "__init__"), (codes, "_setup_nodes")):
        make = getattr(owner, maker)
        names = dict(make.__globals__)
        for name in kinds.keys() & names.keys():
            names[name] = partial(partial, names[name])
            setattr(owner, kinds[name], _LateNode(kinds[name]))
        changed = FunctionType(make.__code__, names, maker, make.__defaults__, make.__closure__)
        setattr(owner, maker, changed)


@cache
def _leave_hidden_layers() -> None:
    """Let a draw work out what is in view of the layers that are shown, once in a process.

    napari does so for all layers, 0.4 ms each; as soon as one is shown, it is asked, too.
    """
    from napari.layers import Layer, Points, Shapes

    for kind in (Layer, Points, Shapes):
        update = kind._update_draw

        def shown(self: Layer, *args: Any, _update: Any = update, **options: Any) -> None:
            if self.visible:
                _update(self, *args, **options)

        kind._update_draw = shown


@cache
def _leave_equal_units() -> None:
    """Let a layer be placed again for another unit only, once in a process.

    napari places all layers again at the next draw after one was added or removed; and it asks all
    of them for each row of its list whether they are loaded.
    """
    from napari._qt.containers.qt_layer_model import QtLayerListModel
    from napari._vispy.layers.base import VispyBaseLayer

    units = VispyBaseLayer.world_units

    def take(self: Any, value: Any) -> None:
        if value is None or tuple(value[-self.layer.ndim :]) != tuple(self._world_units):
            units.fset(self, value)

    VispyBaseLayer.world_units = property(units.fget, take)
    QtLayerListModel.all_loaded = lambda self: all(layer.loaded for layer in self._root)


@cache
def _leave_rows() -> None:
    """Let a row of the list of layers be painted again only for what it shows, once in a process.

    napari does so whenever a layer takes other pixels, at each step of the wheel.
    """
    from napari._qt.containers.qt_layer_model import QtLayerListModel

    process = QtLayerListModel._process_event

    def shown(self: Any, event: Any) -> None:
        if event.type not in _UNSEEN:
            process(self, event)

    QtLayerListModel._process_event = shown


@cache
def _leave_garbage() -> None:
    """Let the removal of a layer leave what is garbage to `WindowFirst`, once in a process.

    napari collects after each one for the sake of some drivers on Windows, where it goes on to:
    0.3 s in a window that has been open for a while.
    """
    from napari._vispy.canvas import VispyCanvas

    if sys.platform == "win32":
        return
    clean = VispyCanvas._clean_and_update_scenegraph
    names = {**clean.__globals__, "gc": SimpleNamespace(collect=lambda: 0)}
    changed = FunctionType(clean.__code__, names, clean.__name__, None, clean.__closure__)
    VispyCanvas._clean_and_update_scenegraph = changed


def _hear_events_when_needed(native: Any) -> None:
    """Let napari's window hear each event of the program only while its menu bar is hidden.

    It looks where the mouse is, then; a tenth of what showing another case takes is the call.
    """
    if "toggle_menubar_visibility" in vars(native):
        return
    program: Any = QGuiApplication.instance()
    there = weakref.ref(native)

    def toggle() -> bool:
        window: Any = there()
        hidden = bool(type(window).toggle_menubar_visibility(window))
        program.removeEventFilter(window)
        if hidden:
            program.installEventFilter(window)
        return hidden

    native.toggle_menubar_visibility = toggle
    if not native._toggle_menubar_visibility:
        program.removeEventFilter(native)


class _LateControls(dict[Any, Any]):
    """napari's controls by layer, made when they are asked for."""

    def __init__(self, container: Any) -> None:
        super().__init__(container.widgets)
        self._container = weakref.ref(container)

    def __missing__(self, layer: Layer) -> Any:
        from napari._qt.layer_controls.qt_layer_controls_container import create_qt_layer_controls

        container: Any = self._container()
        controls = create_qt_layer_controls(layer)
        controls.ndisplay = container.viewer.dims.ndisplay
        container.addWidget(controls)
        self[layer] = controls
        return controls


def _make_controls_late(container: Any) -> None:
    """Make the controls of a layer when it is selected, once the event loop has had its turn."""
    show, remove = type(container)._populate, type(container)._remove
    there, turns, soon = weakref.ref(container), Turns(container), QTimer(container)
    soon.setSingleShot(True)

    def shown() -> None:
        if (known := there()) is not None:
            show(known)

    def removed(event: Any) -> None:
        if (known := there()) is not None and event.value in known.widgets:
            remove(known, event)

    soon.timeout.connect(lambda: turns.start(_once(shown)))
    container.widgets = _LateControls(container)
    container._add = lambda _event: None
    container._remove = removed
    container._populate = lambda: soon.start(0)


def _move_what_is_shown(canvas: Any) -> None:
    """Leave a hidden layer, and what is written about it, in the view where it was last."""
    there = weakref.ref(canvas)
    canvas._setup_single_view = partial(_single_view, there)
    canvas._update_layer_overlays = partial(_layer_overlays, there)
    canvas._create_or_update_vispy_overlay = partial(_overlay, there)


def _single_view(there: weakref.ref[Any]) -> None:
    if (canvas := there()) is not None:
        for layer, drawn in canvas.layer_to_visual.items():
            if layer.visible:
                drawn.node.parent = canvas.view.scene


def _overlay(
    there: weakref.ref[Any], overlay: Any, vispy_overlay: Any, parent: Any, **options: Any
) -> Any:
    """As napari does it, but what is written stays as it is where it is: to place it compiles."""
    canvas = there()
    if canvas is None or (vispy_overlay is not None and vispy_overlay.node.parent is parent):
        return vispy_overlay
    make = type(canvas)._create_or_update_vispy_overlay
    return make(canvas, overlay, vispy_overlay, parent, **options)


def _layer_overlays(there: weakref.ref[Any], layer: Layer) -> None:
    """As napari does it, but not for a hidden layer, nor before the end of `in_one_update`."""
    canvas = there()
    if canvas is None:
        return
    drawn = layer.visible and not canvas._pause_scene_graph
    if drawn or layer not in canvas.viewer.layers:
        type(canvas)._update_layer_overlays(canvas, layer)


@cache
def warm_up() -> threading.Thread:
    """Load libraries and compile the colouring of labels, once in a process; the thread."""
    thread = threading.Thread(target=_work, name="mosaik-warm-up")
    thread.start()
    return thread


def _work() -> None:
    main = threading.main_thread()
    pieces: list[Callable[[], object]] = [partial(_colour, kind) for kind in _LABELS]
    pieces += [partial(import_module, name) for name in _MODULES]
    pieces.append(_draw_curves)
    for piece in pieces:
        if main.is_alive():  # the program has not ended meanwhile
            with contextlib.suppress(ImportError):  # a library that nothing here needs
                piece()
    linecache.clearcache()  # PySide looks at the text of each module, and leaves it here: 40 MB


def _draw_curves() -> None:
    """Draw axes of powers of ten: matplotlib reads its fonts and how formulas are written."""
    from napari_mosaik.view.plots import LiveCurves

    curves = LiveCurves()
    curves.frame()
    curves.figure.draw_without_rendering()


def _colour(kind: type[np.unsignedinteger | np.signedinteger]) -> None:
    """Colour a label image as a layer does.

    Without a layer: pint, which layers ask for units, is not made for several threads.
    """
    from napari.utils.colormaps import label_colormap

    label_colormap(1)._data_to_texture(np.zeros(0, kind))  # that of a new layer
