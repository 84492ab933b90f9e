"""The window builds missing pyramid levels, and the displayed slide uses them."""

import numpy as np
import pytest
import tifffile

from napari_mosaik.core import Progress
from napari_mosaik.io import CaseFile, SlideEntry, create_case
from napari_mosaik.io.slide.pyramid import virtual as virtual

pytestmark = pytest.mark.gui


@pytest.fixture
def case(tmp_path, monkeypatch):
    monkeypatch.setattr(virtual, "MAX_COARSEST_PX", 100)
    pixels = np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)
    tifffile.imwrite(tmp_path / "he.tif", pixels, tile=(64, 64), photometric="rgb")
    entry = SlideEntry(path=str(tmp_path / "he.tif"), spacing_um=(0.5, 0.5), spacing_source="user")
    return create_case(tmp_path / "case", CaseFile(name="A", slides={"he": entry}))


@pytest.fixture
def page(qtbot):
    from napari_mosaik.widgets.base.case_controller import CaseController
    from napari_mosaik.widgets.base.workspace import Workspace
    from napari_mosaik.widgets.pages.case_page import CasePage

    controller = CaseController(Workspace())
    made = CasePage(controller)
    qtbot.addWidget(made)
    yield made
    made.levels.stop()
    controller.close()


def test_levels_are_built_when_a_case_is_opened(qtbot, page, case):
    messages = []
    page.levels.message_changed.connect(messages.append)
    with case.slide("he") as shown:
        assert not shown.source.find_store()
        page.controller.open(case.root)
        qtbot.waitUntil(lambda: shown.source.find_store() and messages[-1:] == [""], timeout=20_000)
    assert any("H&E: building missing pyramid levels" in text for text in messages)
    assert [place.suffix for place in case.pyramids.iterdir()] == [".zarr"]


def test_closing_the_window_ends_the_work(qtbot, page, case, monkeypatch):

    from napari_mosaik.io.slide.pyramid import build

    closed = []

    def endless(slide, folder, threads):
        try:
            while True:
                yield Progress(1, 2)
        finally:
            closed.append(slide.path.name)

    monkeypatch.setattr(build, "complete_pyramid", endless)
    messages = []
    page.levels.message_changed.connect(messages.append)
    page.controller.open(case.root)
    qtbot.waitUntil(lambda: bool(messages), timeout=20_000)
    page.levels.stop()
    page.controller.close()
    assert closed == ["he.tif"]


def test_a_folder_that_cannot_be_written_is_reported(qtbot, page, case):
    page.set_open(True)
    (case.root / "cache").write_text("in the way")
    page.controller.open(case.root)
    qtbot.waitUntil(lambda: "could not be saved" in page.levels_line.text(), timeout=20_000)
    assert not page.levels_line.isHidden()
