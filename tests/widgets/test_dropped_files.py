"""Files that are dropped on the dock go where they belong."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl

from tests.io.test_pet import dataset, saved

pytestmark = pytest.mark.gui


@pytest.fixture
def files(tmp_path):
    """Three slides, two of them named by their stain, and a PET."""
    for name in ("tumour_CD34.tif", "tumour_HE.tif", "third.tif"):
        tifffile.imwrite(tmp_path / name, np.zeros((64, 64, 3), np.uint8))
    saved(tmp_path, dataset(), "slice.dcm")
    return [
        tmp_path / name for name in ("tumour_CD34.tif", "tumour_HE.tif", "third.tif", "slice.dcm")
    ]


def drop(dock, paths):
    from qtpy.QtGui import QDragEnterEvent, QDropEvent

    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    actions = (
        Qt.DropAction.CopyAction,
        data,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    entered = QDragEnterEvent(QPointF(5, 5).toPoint(), *actions)
    dock.dragEnterEvent(entered)
    assert entered.isAccepted()
    dock.dropEvent(QDropEvent(QPointF(5, 5), *actions))


def test_slides_and_a_pet_fill_the_form_of_a_new_case(dock, files):
    drop(dock, files)
    new = dock.case_page.new
    assert Path(new.slides["cd34"].text()).name == "tumour_CD34.tif"
    assert Path(new.slides["he"].text()).name == "tumour_HE.tif"
    assert Path(new.slides["caix"].text()).name == "third.tif"
    assert Path(new.pet.text()).name == "slice.dcm"
    assert dock.case_page.is_open


def test_a_pet_for_the_open_case_goes_into_its_form(dock, opened, fresh_case, files):
    opened(dock, fresh_case)
    drop(dock, files[-1:])
    form = dock.case_page.add_form
    assert form.source.currentData() == "pet"
    assert Path(form.file.text()).name == "slice.dcm"


def test_the_reader_of_a_pet_hands_it_to_the_dock(dock, files):
    """napari asks which reader takes a file that several may read; this is what ours does."""
    from napari_mosaik.plugin import pet_reader

    layers, path = list(dock.viewer.layers), str(files[-1])
    assert pet_reader(path)(path) == [(None,)]
    assert Path(dock.case_page.new.pet.text()).name == "slice.dcm"
    assert list(dock.viewer.layers) == layers


def test_a_pet_is_left_to_others_without_the_dock(tmp_path):
    from napari_mosaik.plugin import pet_reader

    saved(tmp_path, dataset(), "slice.dcm")
    assert pet_reader(str(tmp_path / "slice.dcm")) is None


def test_a_case_folder_is_opened(dock, fresh_case, qtbot):
    drop(dock, [fresh_case / "case.toml"])
    qtbot.waitUntil(lambda: dock.workspace.case is not None, timeout=60_000)
    assert dock.workspace.case.root == fresh_case
