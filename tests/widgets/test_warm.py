"""What keeps the window from being held up: compiled colours, one update, rows that stay."""

from __future__ import annotations

import gc
import inspect
import linecache
import sys
import threading
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import qtpy.QtCore
from numba.core import event

from napari_mosaik.widgets import without_collections
from napari_mosaik.widgets.base import gc_tuning
from napari_mosaik.widgets.base.gc_tuning import _colour_by_tables, in_one_update, warm_up
from napari_mosaik.widgets.canvas import case_layers
from napari_mosaik.widgets.canvas.live_layers import LiveLayers, _Request

pytestmark = pytest.mark.gui


class InThisThread(event.Listener):
    """What is compiled in the window's thread; others may compile meanwhile."""

    def __init__(self) -> None:
        self.compiled: list[Any] = []

    def on_start(self, event: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            self.compiled.append(event.data)

    def on_end(self, event: Any) -> None:
        """Nothing."""


COLOURS = {None: "transparent", 0: "transparent", 1: "red", 2: "blue", 7: "red", 300: "green"}


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32])
def test_nothing_is_compiled_when_labels_are_first_shown(kind: Any) -> None:
    from napari.layers import Labels

    _colour_by_tables()
    warm_up().join()
    heard = InThisThread()
    with event.install_listener("numba:compile", heard):
        layer = Labels(np.arange(12, dtype=kind).reshape(3, 4) % 3, colormap=COLOURS)
        layer.refresh()
        layer._slice_dtype()
        layer.get_color(1)
    assert not heard.compiled


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64])
@pytest.mark.parametrize(
    "colours", [COLOURS, {**COLOURS, -3: "blue"}, {None: "red", 2**20: "blue"}]
)
def test_labels_have_the_colours_that_napari_gives_them(kind: Any, colours: Any) -> None:
    from napari.utils.colormaps import DirectLabelColormap, _accelerated_cmap

    _colour_by_tables()
    if np.iinfo(kind).max < 2**20 or np.iinfo(kind).min == 0:
        colours = {k: v for k, v in colours.items() if k is None or 0 <= k < 2**20}
    data = np.array([[0, 1, 2, 3], [7, 8, 44, np.iinfo(kind).max]], kind)
    if np.iinfo(kind).max > 300:
        data[0, 3], data[1, 2] = 300, 301
    for selected in (False, True):
        colormap = DirectLabelColormap(color_dict=colours, use_selection=selected, selection=7)
        given = _accelerated_cmap.labels_raw_to_texture_direct(data, colormap)
        plain = _accelerated_cmap._labels_raw_to_texture_direct_loop.__wrapped__(data, colormap)
        assert given.dtype == plain.dtype
        np.testing.assert_array_equal(given, plain)


def test_texts_of_modules_make_way_when_all_is_loaded(monkeypatch: Any) -> None:
    monkeypatch.setattr(gc_tuning, "_MODULES", ())
    linecache.getlines(linecache.__file__)
    gc_tuning._work()
    assert linecache.__file__ not in linecache.cache


def test_pyside_looks_for_its_name_without_keeping_the_text(dock: Any, tmp_path: Any) -> None:
    asked = sys.modules["shibokensupport.feature"]._mod_uses_pyside  # type: ignore[attr-defined]
    modules = [
        m for m in list(sys.modules.values()) if getattr(m, "__name__", "").startswith("napari")
    ]
    for module in [np, qtpy.QtCore, sys, SimpleNamespace(), *modules[::20]]:
        try:
            expected = "PySide6" in inspect.getsource(module)  # type: ignore[arg-type]
        except (TypeError, OSError):
            expected = False
        assert asked(module) == expected, module
    linecache.clearcache()
    (tmp_path / "some_module_of_a_test.py").write_text("VALUE = 1\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(tmp_path)
        __import__("some_module_of_a_test")
    assert str(tmp_path / "some_module_of_a_test.py") not in linecache.cache
    assert asked(SimpleNamespace(__file__=str(tmp_path / "gone.py"))) is False


def test_no_garbage_is_collected_while_the_window_is_built() -> None:
    with without_collections():
        assert not gc.isenabled()
        many = [[one] for one in range(2000)]
        with without_collections():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    assert len(gc.get_objects()) < len(many)  # they are kept out of what is collected
    gc.unfreeze()


def test_the_window_prepares_nothing_while_a_case_is_read(dock: Any, monkeypatch: Any) -> None:
    board, begun = dock.board, []
    monkeypatch.setattr(case_layers, "warm_up", lambda: begun.append("libraries"))
    monkeypatch.setattr(case_layers, "prepare_letters", lambda *_: begun.append("letters"))
    board._prepare_soon.stop()
    board.controller._tasks.add("a slide")
    board._prepare()
    assert not begun
    assert board._prepare_soon.isActive()
    board.controller._tasks.clear()
    board._prepare()
    assert begun == ["libraries", "letters"]


def test_the_window_hears_all_events_only_while_its_menu_bar_is_hidden(
    dock: Any, monkeypatch: Any
) -> None:
    from qtpy.QtCore import QEvent, QObject
    from qtpy.QtWidgets import QApplication

    native, heard, other = dock.viewer.window._qt_window, list[Any](), QObject()
    kind = type(native)
    monkeypatch.setattr(kind, "eventFilter", lambda _self, source, _: bool(heard.append(source)))

    def hears() -> bool:
        heard.clear()
        QApplication.sendEvent(other, QEvent(QEvent.Type.User))
        return any(source is other for source in heard)

    assert not hears()
    assert native.toggle_menubar_visibility()
    assert hears()
    assert not native.toggle_menubar_visibility()
    assert not hears()
    assert native.menuBar().isVisible()


def test_a_layer_that_is_removed_leaves_its_garbage_for_later(dock: Any) -> None:
    layer, full = dock.viewer.add_image(np.zeros((4, 4))), list[Any]()

    def heard(phase: str, about: dict[str, int]) -> None:
        full.extend([phase] if about["generation"] == 2 else [])

    gc.callbacks.append(heard)
    try:
        dock.viewer.layers.remove(layer)
    finally:
        gc.callbacks.remove(heard)
    assert layer not in dock.viewer.window._qt_viewer.canvas.layer_to_visual
    assert not full


class Collector:
    """Python's collector of garbage, with as many objects and as much due as a test says."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.n, self.stays, self.due, self.thresholds = 0, 0, 0, (0, 0, 0)

    def collect(self) -> None:
        self.done.append("collect")
        self.n = self.stays

    def freeze(self) -> None:
        self.done.append("set aside")
        self.n = 0

    def unfreeze(self) -> None:
        self.done.append("take back")
        self.n = self.stays + 10**6

    def get_objects(self) -> list[int]:
        return [0] * self.n

    def get_count(self) -> tuple[int, int, int]:
        return 0, 0, self.due

    def get_threshold(self) -> tuple[int, int, int]:
        return self.thresholds

    def set_threshold(self, *thresholds: int) -> None:
        self.thresholds = thresholds  # type: ignore[assignment]

    def new(self) -> list[str]:
        done, self.done = self.done, []
        return done


@pytest.fixture
def collector(monkeypatch: Any) -> Collector:
    """Instead of Python's own, in a program in which nothing was set aside."""
    made = Collector()
    monkeypatch.setattr(gc_tuning, "gc", made)
    monkeypatch.setattr(gc_tuning, "_aside", [])
    monkeypatch.setattr(gc_tuning, "_frozen", [])
    return made


def test_what_is_left_of_a_case_is_collected_without_the_window(
    dock: Any, collector: Collector
) -> None:
    board = dock.board
    board._left_one, collector.n = True, 10**6
    board._between_cases()
    assert collector.new() == ["set aside"]  # the window, its libraries and a case
    collector.n, collector.stays = 30_000, 5_000
    board._between_cases()
    assert collector.new() == ["collect"]
    collector.n, collector.stays = 90_000, gc_tuning._MANY + 1  # pages were opened
    board._between_cases()
    assert collector.new() == ["collect", "set aside"]


def test_new_objects_are_collected_in_passing_and_all_when_the_mouse_rests(
    qapp: Any, collector: Collector, monkeypatch: Any
) -> None:
    from qtpy.QtCore import QObject

    places, pressed = [0], [0]
    monkeypatch.setattr(gc_tuning, "_before", [])  # no other window is open
    monkeypatch.setattr(gc_tuning, "QCursor", SimpleNamespace(pos=lambda: places[0]))
    buttons = SimpleNamespace(mouseButtons=lambda: SimpleNamespace(value=pressed[0]))
    monkeypatch.setattr(gc_tuning, "QGuiApplication", buttons)
    owner = QObject()
    first = gc_tuning.WindowFirst(owner)

    def look(n: int, stays: int = 0) -> list[str]:
        collector.n, collector.stays = n, stays
        first.look()
        return collector.new()

    def move() -> None:
        places[0] += 1

    try:
        assert look(10**6) == ["set aside"]
        move()
        assert look(gc_tuning._NEW) == []
        assert look(gc_tuning._NEW + 1, stays=2_000) == ["collect"]
        assert look(gc_tuning._NEW + 2_000) == []  # since then
        pressed[0] = 1
        assert look(gc_tuning._NEW + 2_001) == []  # amid a stroke
        pressed[0] = 0
        move()
        assert look(gc_tuning._LIBRARIES + 2_001) == ["set aside"]
        for _ in range(gc_tuning._LOOKS - 1):
            assert look(10) == []
        pressed[0] = 1
        look(10)
        pressed[0] = 0
        for _ in range(gc_tuning._LOOKS - 1):
            assert look(10) == []
        assert look(10) == ["take back", "collect", "set aside"]
        assert look(10) == []  # nothing has become due
        collector.due = gc_tuning._DUE
        assert look(10) == ["take back", "collect", "set aside"]
        move()
        assert look(10) == []
    finally:
        first.stop()
    assert collector.new() == ["take back"]  # no window is open: its garbage may go
    assert not gc_tuning._aside


def test_garbage_that_was_set_aside_is_freed_when_the_mouse_rests(qapp: Any) -> None:
    class Cycle:
        def __init__(self) -> None:
            self.own = self

    gone = weakref.ref(Cycle())
    gc_tuning.set_aside()
    try:
        gc_tuning.collect_new()
        assert gone() is not None
        gc_tuning._collect_all()
        assert gone() is None
    finally:
        gc.unfreeze()
        gc_tuning._aside.clear()
        gc_tuning._frozen.clear()


def test_python_gives_way_to_the_window_as_long_as_one_is_open(qapp: Any) -> None:
    from qtpy.QtCore import QObject

    from napari_mosaik.widgets.base.gc_tuning import WindowFirst

    def now() -> Any:
        return gc.get_threshold(), sys.getswitchinterval()

    before, owner = now(), QObject()
    first, second = WindowFirst(owner), WindowFirst(owner)
    assert sys.getswitchinterval() < 0.001
    gc.collect()
    assert gc.get_threshold()[2] > 100_000
    first.stop()
    first.stop()
    assert sys.getswitchinterval() < 0.001
    second.stop()
    assert now() == before


def test_the_letters_of_the_canvas_are_ready_before_a_slide_is_shown(dock: Any, qtbot: Any) -> None:
    info = dock.viewer.window._qt_viewer.canvas.font_info()
    font = info.font_manager.get_font(info.face)
    qtbot.waitUntil(lambda: set("H&E µm 0123456789 CD34") <= font._glyphs.keys())


def test_memory_goes_back_when_another_case_was_opened(dock: Any, monkeypatch: Any) -> None:
    heard = threading.Event()
    monkeypatch.setattr(case_layers, "give_back_memory", heard.set)
    dock.board._first(([], {}))
    assert heard.wait(60)


def test_large_blocks_are_kept_only_while_a_step_runs(dock: Any, monkeypatch: Any) -> None:
    from napari_mosaik.widgets import dock as module

    heard: list[bool] = []
    monkeypatch.setattr(module, "keep_freed_memory", heard.append)
    monkeypatch.setattr(dock, "_tell_napari", lambda _job: None)
    dock._watch_job(SimpleNamespace(cancelling=SimpleNamespace(connect=lambda _act: None)))
    dock._watch_job(None)
    dock.close()
    assert heard == [True, False, True]


def test_memory_goes_back_once_after_layers_were_made(
    dock: Any, qtbot: Any, monkeypatch: Any
) -> None:
    from napari_mosaik.view.spec import LayerSpec, placement_um

    heard: list[int] = []
    monkeypatch.setattr(case_layers, "give_back_memory", lambda: heard.append(1))
    monkeypatch.setattr(case_layers, "_GIVE_BACK_MS", 0)
    for name in ("one", "two"):
        dock.board.put(LayerSpec(name, "image", np.zeros((4, 4)), placement_um("cd34"), {}))
    assert not heard
    qtbot.waitUntil(lambda: bool(heard))
    assert not dock.board._give_back_soon.isActive()
    assert heard == [1]


def test_the_canvas_is_arranged_once(dock: Any, monkeypatch: Any) -> None:
    viewer, placed = dock.viewer, []
    kind = type(viewer.window._qt_viewer.canvas)
    place = kind._get_ordered_visible_canvas_overlays
    monkeypatch.setattr(
        kind,
        "_get_ordered_visible_canvas_overlays",
        lambda self: (placed.append(1), place(self))[1],
    )
    canvas, times = viewer.window._qt_viewer.canvas, []
    arrange = canvas._on_interactive
    canvas._on_interactive = lambda *args: (times.append(1), arrange(*args))
    with in_one_update(viewer):
        layers = [viewer.add_image(np.zeros((4, 4)), name=name) for name in "abc"]
        with in_one_update(viewer):
            viewer.layers.move(0, 2)
        viewer.layers.remove(layers[1])
        assert not times
    assert times == [1]
    assert placed == [1]
    assert all(canvas.layer_to_visual[layer].node.parent is not None for layer in viewer.layers)


def test_showing_a_layer_leaves_the_rows_of_the_others(dock: Any) -> None:
    from napari_mosaik.view.spec import LayerSpec, placement_um

    board, overlays = dock.board, dock.overlays
    for name in ("one", "two"):
        style = {"contrast_limits": (0, 1)}
        spec = LayerSpec(name, "image", np.zeros((4, 4)), placement_um("cd34"), style)
        board.specs[name] = spec
    board.changed.emit()
    before = dict(overlays._built)
    board.set_shown("two", True)
    assert overlays._built["one"] is before["one"]
    assert overlays._built["two"] is not before["two"]
    assert overlays._built["two"].eye.isChecked()
    board.clear()
    assert not overlays._built
    assert not overlays._empty.isHidden()


def test_what_is_computed_live_is_shown_and_removed_in_one_update(dock: Any) -> None:
    from napari_mosaik.view.spec import LayerSpec, placement_um

    class Two(LiveLayers):
        is_on = True

        def show_result(self, result: Any) -> None:
            for name in "ab":
                self.put(LayerSpec(name, "labels", result, placement_um("cd34"), {}))

    viewer, two, times = dock.viewer, Two(dock.board), []
    canvas = viewer.window._qt_viewer.canvas
    arrange = canvas._on_interactive
    canvas._on_interactive = lambda *args: (times.append(1), arrange(*args))
    two._done(_Request(0, 0, 0.0), np.eye(4, dtype=np.uint8))
    assert times == [1]
    shown = [viewer.layers[name] for name in "ab"]
    assert not any(layer._overlays["polygon"].visible for layer in shown)
    two.end()
    assert times == [1, 1]
    assert not set("ab") & {layer.name for layer in viewer.layers}


def test_the_words_of_the_readout_stay_in_their_box(dock: Any, qtbot: Any) -> None:
    from napari_mosaik.widgets.canvas.link import _folded

    overlay = dock.viewer.canvas.overlays.text
    overlay.text = _folded("tile 1521 · neoplastic 91 % · SUV 1.39 measured, 1.10 predicted")
    overlay.visible = True
    drawn = dock.viewer.window._qt_viewer.canvas._viewer_overlay_to_visual[overlay][0]
    qtbot.waitUntil(lambda: drawn.node._vertices_data is not None)
    pixels = drawn.node._font_size / 72 * drawn.node.transforms.dpi
    places = drawn.node._vertices_data["a_position"][:, 0].reshape(-1, 4)
    words = [n for n, letter in enumerate(overlay.text.replace("\n", "")) if letter != "\xa0"]
    assert len(places) >= len(overlay.text.replace("\n", ""))  # lines end with empty ones
    assert places[words].max() * pixels < drawn.x_size
    overlay.visible = False


def test_layers_of_a_window_that_was_closed_go_without_it():
    from napari_mosaik.widgets.base.gc_tuning import in_one_update

    closed = SimpleNamespace(window=SimpleNamespace())  # napari forgets its Qt window
    with in_one_update(closed):  # as when something that was read comes late
        pass
