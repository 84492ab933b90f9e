"""The window: the only package that imports napari and Qt."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["quicken_imports", "show_case", "without_collections"]


@contextmanager
def without_collections() -> Iterator[None]:
    """Collect no garbage while the window and its libraries are built: 0.5 s, and nothing is freed.

    Hundreds of thousands of objects are made that stay, and each full collection traverses those
    made so far.  In the end they are kept out of the collections to come.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def quicken_imports() -> None:
    """Let PySide look for its name in the file of each imported module, not in its parsed source.

    It asks at every import in the program, for ``from __feature__ import``.  Its own way, by
    `inspect`, takes 0.3 s of the start of the window and keeps the text of each module: 26 million
    characters before torch is loaded.  The answer is the same.  Another Qt, or a PySide that asks
    in another way, is left alone.
    """
    import qtpy.QtCore  # noqa: F401

    feature = sys.modules.get("shibokensupport.feature")
    if hasattr(feature, "_mod_uses_pyside"):
        feature._mod_uses_pyside = _names_pyside  # type: ignore[union-attr]


def _names_pyside(module: object) -> bool:
    path = getattr(module, "__file__", None)
    if not isinstance(path, str) or not path.endswith((".py", ".pyw")):
        return False
    try:
        return b"PySide6" in Path(path).read_bytes()
    except OSError:
        return False


def show_case(case: Path) -> None:
    """Open a case in napari with the MOSAIK dock; returns when the window is closed.

    Other cases in the same folder are offered as its cohort.
    """
    quicken_imports()
    with without_collections():
        import napari

        from napari_mosaik.io.case import find_cases
        from napari_mosaik.widgets.dock import MosaikDock

        root = Path(case).resolve()
        viewer = napari.Viewer(title="MOSAIK")
        dock = MosaikDock(viewer)
        viewer.window.add_dock_widget(dock, name="MOSAIK", area="right")
        siblings = list(root.parent.glob("*/case.toml"))
        together = len(siblings) > 1 and root in [p.resolve() for p in find_cases([root.parent])]
        dock.controller.open(root.parent if together else root, prefer=root.name)
    napari.run()
