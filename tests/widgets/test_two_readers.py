"""Two readers in the window: blind until finished, then compared, decided and exported."""

import json

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QShortcut

from napari_mosaik.annotate import rectangle_polygon
from napari_mosaik.io.case import create_case
from napari_mosaik.io.case_file import CaseFile, SlideEntry
from napari_mosaik.view.layers import ANNOTATIONS_TITLE, DISAGREEMENT_TITLE
from napari_mosaik.widgets.base import case_controller
from napari_mosaik.workflow.annotations import (
    OpenAnnotations,
    WithheldMap,
    decisions,
    finished_tiles,
)

pytestmark = pytest.mark.gui


@pytest.fixture
def folder(tmp_path):
    """A case with an H&E slide of 2.4 mm x 2.4 mm, and nothing else."""
    root = tmp_path / "B1"
    root.mkdir()
    pixels = np.full((1200, 1200, 3), 225, np.uint8)
    tifffile.imwrite(root / "he.tif", pixels, tile=(256, 256), photometric="rgb")
    slide = SlideEntry(path="he.tif", spacing_um=(2.0, 2.0), spacing_source="user")
    create_case(root, CaseFile(name="B1", slides={"he": slide}))
    return root


def shapes(height, width):
    """What two readers draw, as fractions of the slide: top, left, bottom, right and class."""
    anna = [(0.3, 0.3, 0.7, 0.5, "neoplastic"), (0.3, 0.5, 0.7, 0.7, "non-neoplastic")]
    ben = [(0.3, 0.3, 0.6, 0.55, "neoplastic"), (0.3, 0.55, 0.7, 0.7, "non-neoplastic")]
    scale = (height, width, height, width)
    return [
        [(*(edge * s for edge, s in zip(one[:4], scale, strict=True)), one[4]) for one in own]
        for own in (anna, ben)
    ]


def draw(document, drawn):
    for top, left, bottom, right, label in drawn:
        document.add(rectangle_polygon((top, left), (bottom, right)), label)


def test_two_readers_from_the_first_mark_to_the_agreed_set(
    qtbot, dock, opened, folder, tmp_path, monkeypatch
):
    dock.workspace.reader = "Anna"
    case = opened(dock, folder, case="B1")
    panel, fold = dock.two_readers, dock.readers_fold
    anna, ben = shapes(*dock.board.slides["he"].lattices[0].extent_um)
    with OpenAnnotations(case, "Ben") as other:
        draw(other.document, ben)

    # Anna draws, and sees nothing of Ben's
    dock.show_annotate()
    document = dock.annotate.annotation.document
    assert len(document.snapshot) == 0
    draw(document, anna)
    dock.annotate.annotation.save()
    qtbot.waitUntil(lambda: panel.who.text().startswith("Anna: not finished\nBen: not finished"))
    assert not fold.isHidden()
    assert "only their own marks" in panel.who.text()
    assert not panel.compare.isEnabled()
    dock.board.show_by_hand()
    own = f"{ANNOTATIONS_TITLE} of Anna"
    qtbot.waitUntil(lambda: own in dock.board.specs)
    assert not any("Ben" in name for name in dock.board.specs)

    # Anna finishes what is in view, then all; Ben finishes on the command line
    dock.annotate.drawing.release()
    qtbot.mouseClick(dock.annotate.finish_view, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "finished" in dock.annotate.finished.text())
    some = finished_tiles(case)["Anna"]
    assert not some.whole
    assert len(some.tiles) > 3
    hidden = WithheldMap({"Anna": "hidden from Anna"})
    with monkeypatch.context() as patched:  # as with a model that has learned from Ben
        patched.setattr(case_controller, "withheld_class_map", lambda _: hidden)
        dock.annotate.annotation.save()
        qtbot.waitUntil(lambda: dock.workspace.withheld == "hidden from Anna")
    qtbot.mouseClick(dock.annotate.finish_all, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "all tiles finished" in dock.annotate.finished.text())
    qtbot.waitUntil(lambda: not dock.workspace.withheld)
    assert not panel.compare.isEnabled()
    with OpenAnnotations(case, "Ben") as other:
        other.finish()

    # Eve decides
    dock.workspace.reader = "Eve"
    dock.tabs.setCurrentIndex(dock.review_tab)
    fold.set_open(True)
    panel.refresh()
    qtbot.waitUntil(panel.compare.isEnabled)
    qtbot.mouseClick(panel.compare, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: panel.list.count() > 0 or dock.workspace.problem is not None)
    assert dock.workspace.problem is None
    cells = {panel.table.item(i, 0).text(): panel.table.item(i, 1).text()
             for i in range(panel.table.rowCount())}  # fmt: skip
    assert 0 < float(cells["Kappa, area"]) < 1
    assert "Dice, neoplastic" in cells
    assert panel.list.count() == 3
    areas = [one.geometry.area for one in panel.differences]
    assert areas == sorted(areas, reverse=True)
    layers = dock.viewer.layers
    qtbot.waitUntil(lambda: DISAGREEMENT_TITLE in layers)
    seen = set(layers[DISAGREEMENT_TITLE].data.ravel())
    assert {1, 2, 3} <= seen  # stripes of both classes, and of nothing

    # the list leads the camera; keys decide
    before = dock.viewer.scene.camera.center
    qtbot.mouseClick(panel.next, Qt.MouseButton.LeftButton)
    assert dock.viewer.scene.camera.center != before
    assert panel.list.currentRow() == 1
    keys = {one.key().toString(): one.activated.emit for one in panel.findChildren(QShortcut)}
    keys["P"]()
    assert panel.list.currentRow() == 0
    first, second, third = panel.differences
    keys["A"]()
    assert decisions(case)["Eve"] == {first.key: first.first}
    assert panel.list.currentRow() == 1
    assert "→" in panel.list.item(0).text()
    qtbot.mouseClick(panel.choose["neither"], Qt.MouseButton.LeftButton)
    assert decisions(case)["Eve"][second.key] == ""
    qtbot.mouseClick(panel.back, Qt.MouseButton.LeftButton)
    qtbot.mouseClick(panel.choose["take back"], Qt.MouseButton.LeftButton)
    assert second.key not in decisions(case)["Eve"]
    panel.other.setCurrentIndex(panel.other.findData("background"))
    panel.other.activated.emit(panel.other.currentIndex())
    assert decisions(case)["Eve"][second.key] == "background"
    assert "2 decided" in panel.left.text()

    out = tmp_path / "agreed.geojson"
    panel.export(out)
    qtbot.waitUntil(lambda: "exported" in panel.message.text())
    found = [one["properties"] for one in json.loads(out.read_text())["features"]]
    by = {one["decided_by"] for one in found}
    assert by == {"both", "Eve"}
    decided = [one["classification"]["name"] for one in found if one["decided_by"] == "Eve"]
    assert sorted(decided) == sorted([first.first, "background"])
    assert "1 region" in panel.message.text()  # the third has no decision
    assert third.key not in decisions(case)["Eve"]

    # decisions are there again; an edit of Anna's closes the comparison
    qtbot.mouseClick(panel.compare, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: panel.list.count() > 0)
    assert "2 decided" in panel.left.text()
    with OpenAnnotations(case, "Anna") as other:
        draw(other.document, [(10.0, 10.0, 60.0, 60.0, "background")])
    panel.refresh()
    qtbot.waitUntil(lambda: "Anna: all but" in panel.who.text())
    assert DISAGREEMENT_TITLE not in layers
    assert panel.list.count() == 0
    canvas = dock.viewer.window._qt_viewer.canvas.native
    qtbot.mouseMove(canvas, canvas.rect().center() + QPoint(5, 5))


def test_one_reader_has_no_panel(qtbot, dock, opened, folder):
    opened(dock, folder, case="B1")
    dock.show_annotate()
    draw(dock.annotate.annotation.document, [(10.0, 10.0, 60.0, 60.0, "background")])
    dock.annotate.annotation.finish()
    qtbot.waitUntil(lambda: "all tiles finished" in dock.annotate.finished.text())
    assert dock.readers_fold.isHidden()


def test_only_the_newest_answer_about_readers_counts(dock):
    """Answers come from threads; an older one may come last."""
    page = dock.two_readers
    before = page._asked
    page.refresh()
    page.refresh()
    page._readers_known(before + 2, {"Ada": None, "Cy": None})
    page._readers_known(before + 1, {"Bo": None})
    assert [page.first.itemText(n) for n in range(page.first.count())] == ["Ada", "Cy"]
