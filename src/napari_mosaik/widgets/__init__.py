"""The window: the only package that imports napari and Qt."""

from __future__ import annotations

from pathlib import Path

__all__ = ["show_case"]


def show_case(case: Path) -> None:
    """Open a case in napari with the MOSAIK dock; returns when the window is closed.

    Other cases in the same folder are offered as its cohort.
    """
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
