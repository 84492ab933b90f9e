import gc
import importlib.util
import shutil

import pytest

HANGS_MS = 300_000
WITHOUT_QT = any(importlib.util.find_spec(name) is None for name in ("napari", "qtpy"))
if WITHOUT_QT:  # these modules import Qt
    collect_ignore = [
        "test_align_page.py",
        "test_window.py",
        "test_correcting.py",
        "test_picking.py",
        "test_loop.py",
        "test_review.py",
        "test_form.py",
        "test_tools.py",
        "test_shortcuts.py",
    ]


@pytest.fixture
def qtbot(qapp, request):
    """A `QtBot` whose waits end with the state that they wait for.

    A time limit only ends a test that hangs: with cold caches and busy cores the kernels that a
    test needs first are compiled for minutes.
    """
    from pytestqt.qtbot import QtBot

    class PatientBot(QtBot):
        def waitUntil(self, callback, *, timeout=0):
            super().waitUntil(callback, timeout=max(timeout, HANGS_MS))

        def waitSignal(self, signal, *, timeout=0, **options):
            return super().waitSignal(signal, timeout=max(timeout, HANGS_MS), **options)

    return PatientBot(request)


@pytest.fixture(autouse=True)
def no_leaks(request):
    """Fail a window test that leaves a window, a MOSAIK dock or a canvas behind."""
    if request.node.get_closest_marker("gui") is None:
        yield
        return
    request.getfixturevalue("qapp")
    before = _widgets()
    gc.freeze()  # the search for what a test left behind need not look at what was there before
    yield
    left = _widgets() - before
    assert not left, f"still alive after the test: {sorted(map(repr, left))}"


def _widgets():
    """Windows, MOSAIK docks and canvases whose Qt object is alive."""
    from qtpy.QtCore import QCoreApplication, QEvent, Qt
    from qtpy.QtWidgets import QApplication

    gc.collect()
    QApplication.processEvents()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    ours = ("MosaikDock", "CanvasBackendDesktop", "FigureCanvasQTAgg")
    widgets = QApplication.allWidgets()
    # Qt makes one widget that stands for the desktop when it first needs it, and keeps it until
    # the application ends: it is not a window of a test.
    desktop = Qt.WindowType.Desktop
    windows = {w for w in widgets if w.isWindow() and w.windowType() != desktop}
    return windows | {w for w in widgets if type(w).__name__ in ours}


@pytest.fixture
def fresh_case(cohort, tmp_path):
    """A copy of one case without any result."""
    drop = shutil.ignore_patterns(
        "artifacts", "models", "journal", "readers", "recipe.toml", "scratch"
    )
    return shutil.copytree(cohort / "B11", tmp_path / "B11", ignore=drop)


@pytest.fixture
def in_turns():
    """Layouts are made in turns of the event loop, as for a reader."""


@pytest.fixture
def dock(qtbot, tmp_path, monkeypatch, request):
    """The main dock in a real napari window, closed cleanly afterwards."""
    monkeypatch.setenv("NAPARI_CONFIG", str(tmp_path / "napari-settings.yaml"))
    import napari
    from napari.settings import get_settings

    from napari_mosaik.widgets.base import gc_tuning
    from napari_mosaik.widgets.base.gc_tuning import Turns
    from napari_mosaik.widgets.dock import MosaikDock

    # Layouts are whole at once, unless a test asks for `in_turns`.
    if "in_turns" not in request.fixturenames:
        monkeypatch.setattr(Turns, "add", lambda _self, work: [None for _ in work])
    # Nothing that a test lets go is kept from being freed because the test takes long.
    monkeypatch.setattr(gc_tuning, "_IDLE_MS", 10**9)
    # Each of these windows would build ahead all the pages that its test never opens.
    monkeypatch.setattr(MosaikDock, "_prepare", lambda self: setattr(self, "builds_ahead", True))
    application = get_settings().application
    application.ipy_interactive = False
    application.save_window_geometry = False  # what another window had must not matter here
    viewer = napari.Viewer(show=False)
    made = MosaikDock(viewer)
    made.workspace.reader = "reader"  # asked for where it is empty
    viewer.window.add_dock_widget(made, name="MOSAIK", area="right")
    viewer.show()
    viewer.window.resize(1366, 768)
    canvas = viewer.window._qt_viewer.canvas.native
    qtbot.waitUntil(lambda: canvas.isVisible() and canvas.width() > 200, timeout=20_000)
    yield made
    made.close()
    viewer.close()
    qtbot.wait(1)


@pytest.fixture
def opened(qtbot):
    """Opens a case or cohort in a dock and waits until its slides and results are there."""

    def open_it(dock, path, case="B11", layers=("H&E",)):
        dock.controller.open(path, prefer=case)
        qtbot.waitUntil(lambda: dock.workspace.case is not None, timeout=20_000)
        for name in layers:
            qtbot.waitUntil(lambda name=name: dock.board.layer(name) is not None, timeout=20_000)
        return dock.workspace.case

    return open_it
