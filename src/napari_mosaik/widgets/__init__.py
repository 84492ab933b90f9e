"""The window: the only folder that knows napari and Qt."""

from __future__ import annotations

from pathlib import Path

__all__ = ["show_case"]


def show_case(case: Path) -> None:
    """Open napari with the dock and a case, and stay until the window is closed.

    When the case lies in a folder with other cases, these are offered as its cohort.
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
