"""Contributions to napari: readers, the dock, menu entries and the sample cohort."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import napari

    from napari_mosaik.widgets.dock import MosaikDock

LayerData = list[tuple[Any, ...]]
Paths = str | Sequence[str]

SAMPLE_FOLDER = "napari-mosaik-sample"
"""In the user's home folder; the sample cohort is generated there once and kept."""
FIRST_PICTURE_S = 0.4
"""Longest wait for the overview image of a slide that is opened; it is grey until then."""

_CALIBRATE = (
    "Enter it, or choose a scanner profile, in New from slides…; or measure it on the tab View, "
    "Pixel size calibration"
)


# --- readers ------------------------------------------------------------------------------------
def slide_reader(path: Paths) -> Callable[[Paths], LayerData] | None:
    """A reader for one slide, be it a file or an OME-Zarr or DICOM folder.

    None for anything else (ordinary TIFF, other Zarr or DICOM), so that other readers may try.
    """
    from napari_mosaik.core import InputError
    from napari_mosaik.core.errors import MissingPixelSize
    from napari_mosaik.io.slide import open_slide, slide_only_suffixes

    if not isinstance(path, str):
        return None
    try:
        open_slide(Path(path)).close()
    except MissingPixelSize:
        return _read_slide  # it is shown as uncalibrated
    except InputError:
        # An error in a file that can only be a slide is reported; others are left to other readers.
        return _read_slide if Path(path).suffix.lower() in slide_only_suffixes() else None
    return _read_slide


def _read_slide(path: Paths) -> LayerData:
    """One slide as a multiscale layer in µm.

    What cannot be read is a sentence in the window, and an `InputError` in a script.
    """
    import napari
    from napari.utils.notifications import show_error

    from napari_mosaik.core import InputError

    try:
        return _slide_layers(path)
    except InputError as error:
        if napari.current_viewer() is None:
            raise
        show_error(str(error))
        return [(None,)]


def _slide_layers(path: Paths) -> LayerData:
    """The layer of a slide; raises `InputError` if it cannot be read.

    A slide without a pixel size is 'uncalibrated': it is shown, and nothing is measured on it.
    """
    import napari
    from napari.utils.notifications import show_warning

    from napari_mosaik.core.errors import MissingPixelSize
    from napari_mosaik.io.slide import open_slide
    from napari_mosaik.view.layers import slide_layer
    from napari_mosaik.widgets.base.gc_tuning import freeze_window
    from napari_mosaik.widgets.canvas.lazy_slide import LazySlide, attend, read_levels
    from napari_mosaik.widgets.canvas.view_keys import UNCALIBRATED

    file = Path(path if isinstance(path, str) else path[0])
    viewer = napari.current_viewer()
    if viewer is not None:
        freeze_window(viewer)
    name, metadata = file.name, {}
    try:
        slide = open_slide(file)
    except MissingPixelSize:
        slide, name = open_slide(file, 1.0), f"{name} (uncalibrated)"
        metadata[UNCALIBRATED] = True
        show_warning(f"{file.name} has no pixel size: nothing is measured on it. {_CALIBRATE}")
        if viewer is not None:
            viewer.canvas.overlays.scale_bar.visible = False
    if "warning" in slide.properties:
        show_warning(f"{file.name}: {slide.properties['warning']}")
    if viewer is None:  # a script: it gets the pixels themselves
        levels: list[Any] = [*read_levels(slide)]
    else:
        lazy = LazySlide(slide)
        lazy.settle(FIRST_PICTURE_S)
        attend(lazy, viewer)
        lazy.damaged.connect(show_warning)
        levels = lazy.levels()
    data, options, kind = slide_layer(name, levels, slide.lattice).as_layer_data()
    return [(data, {**options, "metadata": {**options.get("metadata", {}), **metadata}}, kind)]


def pet_reader(path: Paths) -> Callable[[Paths], LayerData] | None:
    """A reader that hands a PET to the MOSAIK dock, if it is open; None for anything else."""
    import napari

    from napari_mosaik.widgets.dock import MosaikDock
    from napari_mosaik.workflow.suv import is_pet_file

    viewer = napari.current_viewer()
    files = [Path(one) for one in ([path] if isinstance(path, str) else path)]
    if viewer is None or not files or not all(map(is_pet_file, files)):
        return None
    docks = viewer.window._qt_window.findChildren(MosaikDock)
    return partial(_take_pet, docks[0]) if docks else None


def _take_pet(dock: MosaikDock, path: Paths) -> LayerData:
    """The PET in the form of the open case, or of a new one."""
    from qtpy.QtWidgets import QDockWidget

    from napari_mosaik.widgets.dock import bring_to_front

    holder = dock.parentWidget()
    while holder is not None and not isinstance(holder, QDockWidget):
        holder = holder.parentWidget()
    if holder is not None:
        bring_to_front(holder)
    dock.case_page.take_files([Path(one) for one in ([path] if isinstance(path, str) else path)])
    return [(None,)]


def case_reader(path: Paths) -> Callable[[Paths], LayerData] | None:
    """A reader for a case or cohort folder; None for other folders."""
    from napari_mosaik.core import InputError
    from napari_mosaik.io.case import find_cases

    try:
        find_cases([_case_folder(path)])
    except InputError:
        return None
    return _read_case


def _case_folder(path: Paths) -> Path:
    file = Path(path if isinstance(path, str) else path[0])
    return file.parent if file.name == "case.toml" else file


def _read_case(path: Paths) -> LayerData:
    """Open the case in the dock, which adds the layers."""
    _dock(_viewer()).controller.open(_case_folder(path))
    return [(None,)]


# --- the dock and the menu ----------------------------------------------------------------------
def main_dock() -> MosaikDock:
    """The main dock for the current viewer (napari passes the viewer to classes only)."""
    from napari_mosaik.widgets.dock import MosaikDock

    return MosaikDock(_viewer())


def open_case() -> None:
    """Choose a case or cohort folder and open it."""
    _dock(_viewer()).case_page.choose()


def annotate() -> None:
    """Show the annotation tools."""
    _dock(_viewer()).show_annotate()


def review() -> None:
    """Show measured, predicted and difference maps side by side."""
    _dock(_viewer()).show_review()


def inspect() -> None:
    """Show the tile inspector."""
    _dock(_viewer()).show_inspector()


def _viewer() -> napari.Viewer:
    import napari

    viewer = napari.current_viewer()
    if viewer is None:
        raise RuntimeError("no napari viewer is open")
    return viewer


def _dock(viewer: napari.Viewer) -> MosaikDock:
    """The main dock of the viewer, created if needed and brought to the front."""
    from napari_mosaik.widgets.dock import MosaikDock, bring_to_front

    holder, widget = viewer.window.add_plugin_dock_widget("napari-mosaik", "MOSAIK")
    bring_to_front(holder)
    assert isinstance(widget, MosaikDock)
    return widget


# --- sample data --------------------------------------------------------------------------------
def sample_quick() -> LayerData:
    """Generate or open the sample cohort: six synthetic cases of two patients."""
    return _sample("quick")


def sample_tiny() -> LayerData:
    """Generate or open the sample cohort at its smallest size."""
    return _sample("tiny")


def _sample(size: str) -> LayerData:
    """Generate or open the cohort in the dock; napari requires a layer, so return an empty one."""
    import numpy as np

    viewer = _viewer()
    dock = _dock(viewer)
    name = "MOSAIK sample cohort"

    def remove_placeholder() -> None:
        if name in viewer.layers:
            viewer.layers.remove(name)
        dock.controller.case_opened.disconnect(remove_placeholder)

    dock.controller.case_opened.connect(remove_placeholder)
    dock.controller.sample(Path.home() / f"{SAMPLE_FOLDER}-{size}", size=size)
    return [(np.empty((0, 2)), {"name": name, "units": ("um", "um")}, "points")]
