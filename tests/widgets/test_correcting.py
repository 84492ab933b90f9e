"""Vessels and nuclei are clicked, read, deleted, merged, split and put back, and results follow."""

import numpy as np
import pytest
import shapely
from qtpy.QtCore import Qt
from scipy import ndimage

from napari_mosaik.core import CaseLocked
from napari_mosaik.core.catalogue import (
    CORRECTED_VESSEL_OBJECTS,
    NUCLEI,
    TISSUE,
    VESSEL_OBJECTS,
    VESSELS,
)
from napari_mosaik.core.corrections import Correction
from napari_mosaik.io.case import Case
from napari_mosaik.view.case_results import transform_to_reference
from napari_mosaik.widgets.canvas.camera import centre_um, look_at
from napari_mosaik.widgets.correct.correct_panel import CHOSEN, FOUND, GONE, MADE, SOUGHT
from napari_mosaik.workflow.annotations import OpenAnnotations
from napari_mosaik.workflow.corrections import CorrectionLog, CorrectionSession
from napari_mosaik.workflow.recipe import changed, read_recipe, write_recipe
from napari_mosaik.workflow.run import run_until

from .test_tools import Hand

pytestmark = pytest.mark.gui


def inner_place(image, label):
    """The place of an object that is farthest from its outline, µm."""
    labels = image.array()
    depth = ndimage.distance_transform_edt(labels == label)
    return image.lattice.to_um([np.unravel_index(depth.argmax(), labels.shape)])[0]


def test_correcting_by_hand(qtbot, dock, opened, own_cohort):
    case = opened(dock, own_cohort, layers=("H&E", "CD34"))
    qtbot.waitUntil(lambda: dock.workspace.tile_data.grid is not None)
    panel, viewer, hand = dock.correct, dock.viewer, Hand(qtbot, dock)
    vessels, table = case.store.read(VESSELS), case.store.read(VESSEL_OBJECTS)
    order = np.argsort(-np.asarray(table["area_um2"]))
    large, other = (int(k) + 1 for k in order[:2])

    def looks_at(place):
        look_at(viewer, place, 2.0)

    def settled(n):
        qtbot.waitUntil(
            lambda: not panel._busy and panel.list.count() == n and panel.session is not None,
            timeout=20_000,
        )

    # a click shows outline, numbers and tile of a vessel; nothing else happens to the canvas
    place = inner_place(vessels, large)
    looks_at(place)
    hand.key(Qt.Key.Key_C, Qt.KeyboardModifier.ShiftModifier)
    qtbot.waitUntil(lambda: panel.tool.mode == "select", timeout=20_000)
    hand.click(place)
    qtbot.waitUntil(lambda: panel.selected is not None, timeout=20_000)
    assert panel.card.text().startswith("Vessel, tile ")
    assert "area: " in panel.card.text()
    assert "µm²" in panel.card.text()
    assert "method: DAB density" in panel.card.text()
    assert CHOSEN in viewer.layers
    assert dock.workspace.tile == -1

    # split, back, again; then the other one is deleted by key
    panel.buttons["split"].click()
    row, column = place
    wide = float(table["major_axis_um"][large - 1])
    line = [(row, column + share * wide) for share in (-1, -0.5, 0, 0.5, 1)]
    middle, drawn = np.array(viewer.scene.camera.center), []
    panel.tool.drawn.connect(drawn.append)
    hand.drag(line)
    np.testing.assert_allclose(drawn[0], line, atol=1.0)  # the picture did not move meanwhile
    np.testing.assert_array_equal(viewer.scene.camera.center, middle)
    settled(1)
    assert panel.tool.mode == "select"
    assert "split manually" in panel.card.text()
    assert MADE in viewer.layers
    panel.undo.click()
    settled(0)
    assert MADE not in viewer.layers
    panel.redo.click()
    settled(1)
    target = inner_place(vessels, other)
    looks_at(target)
    hand.click(target)
    qtbot.waitUntil(lambda: panel.selected is not None and not panel.selected.edit, timeout=20_000)
    hand.key(Qt.Key.Key_Delete)
    settled(2)
    assert panel.selected is None
    assert GONE in viewer.layers
    words = lambda: {name: state.word for name, state in dock.workspace.states.items()}  # noqa: E731
    qtbot.waitUntil(lambda: words()["correct_vessels"] == "stale", timeout=20_000)
    assert words()["vessels"] == "done"
    assert words()["parameters"] == "stale"

    # the results follow
    qtbot.waitUntil(panel.update_button.isEnabled, timeout=10_000)
    panel.update_button.click()
    qtbot.waitUntil(lambda: dock.workspace.job is None, timeout=120_000)
    assert dock.workspace.problem is None
    qtbot.waitUntil(  # all but the dose of plans that nobody made
        lambda: {name for name, word in words().items() if word != "done"} == {"dose"},
        timeout=20_000,
    )
    corrected = case.store.read(CORRECTED_VESSEL_OBJECTS)
    assert len(corrected) >= len(table)  # one away, one split into two or more
    assert dock.workspace.results["correct_vessels"].startswith("2 corrections applied")
    shown = dock.board.layer("Vessels")
    qtbot.waitUntil(
        lambda: not int(np.asarray(shown.get_value(target, world=True)[-1] or 0)), timeout=20_000
    )

    # nuclei, through the alignment of the H&E
    panel.target.setCurrentText("Nuclei")
    assert panel.session is None
    assert not panel.tool.mode
    nuclei = case.store.read(NUCLEI)
    on_he = inner_place(nuclei, 1)
    place = transform_to_reference(case, "he").apply([on_he])[0]
    looks_at(place)
    panel.buttons["select"].click()
    qtbot.waitUntil(lambda: panel.tool.mode == "select", timeout=20_000)
    hand.click(place)
    qtbot.waitUntil(lambda: panel.selected is not None, timeout=20_000)
    assert panel.selected.label == 1
    panel.word.setCurrentText("immune")
    panel.set_word.click()
    settled(1)
    assert panel.selected.class_name == "immune"
    hand.key(Qt.Key.Key_Escape)
    assert dock.canvas.active_tool is None

    # tissue: what is drawn around is cut, the tiles become stale, and come back with undo
    panel.target.setCurrentText("Tissue on CD34")
    panel.buttons["cut"].click()
    qtbot.waitUntil(lambda: panel.tool.mode == "cut", timeout=20_000)
    top, left = dock.workspace.tile_data.grid.corners_um[0]
    panel.tool.drawn.emit(
        np.array([[top, left], [top + 400, left], [top + 400, left + 400], [top, left + 400]])
    )
    settled(1)
    qtbot.waitUntil(lambda: words()["tiles"] == "stale", timeout=20_000)
    hand.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    settled(0)
    qtbot.waitUntil(lambda: words()["tiles"] == "done", timeout=20_000)

    # a drawing tool takes over; a closed panel leaves nothing on the canvas
    dock.show_annotate()
    assert not panel.tool.mode
    assert dock.canvas.active_tool is not None
    dock.annotate.drawing.release()
    panel.stop()
    assert not {CHOSEN, MADE, GONE} & {layer.name for layer in viewer.layers}


def test_what_was_judged_wrong_or_missed_is_corrected(qtbot, dock, opened, own_cohort):
    """A rating leads to the object, a tile to the tool that adds what is missing there."""
    case = opened(dock, own_cohort, layers=("H&E", "CD34"))
    qtbot.waitUntil(lambda: dock.workspace.tile_data.grid is not None)
    check, panel, viewer, hand = dock.visual_qa, dock.correct, dock.viewer, Hand(qtbot, dock)
    check.start()
    qtbot.waitUntil(lambda: check.session is not None)
    assert not check.correct.isVisibleTo(check)
    check._rate("wrong")
    while check.session.next_object() is not None:
        check._rate("correct")
    check.missed.setValue(1)
    check.next.click()
    label, tile = check.session.sample.objects[0], check.session.sample.fields[0]
    assert check.correct.isVisibleTo(check)
    check.correct.click()
    qtbot.waitUntil(lambda: panel.selected is not None)
    assert panel.isVisibleTo(dock.correct_fold)
    assert panel.selected.label == label
    assert panel.tool.mode == "select"
    assert panel.place_line.text() == "1 of 2: judged wrong"
    np.testing.assert_allclose(centre_um(viewer), panel.selected.place_um, atol=2)
    assert not panel.previous.isEnabled()

    panel.next.click()
    qtbot.waitUntil(lambda: not panel._busy)
    assert panel.place_line.text() == "2 of 2: a tile with 1 missed vessels"
    assert panel.tool.mode == "draw"
    assert SOUGHT in viewer.layers
    centre = dock.workspace.tile_data.grid.centres_um[tile]
    np.testing.assert_allclose(centre_um(viewer), centre, atol=2)

    # a free place of the tile is drawn, selected, undone and comes back
    vessels = case.store.read(VESSELS)
    depth = ndimage.distance_transform_edt(np.pad(vessels.array() == 0, 1))[1:-1, 1:-1]
    place = vessels.lattice.to_um([np.unravel_index(depth.argmax(), depth.shape)])[0]
    look_at(viewer, place, 8.0)
    angles = np.linspace(0, 2 * np.pi, 40)
    hand.drag([tuple(place + 12 * np.array([np.sin(a), np.cos(a)])) for a in angles])
    qtbot.waitUntil(lambda: not panel._busy and (panel.list.count() == 1 or panel._state.failed))
    assert not panel._state.failed
    assert panel.list.item(0).text().startswith("added, 4")
    assert panel.selected.edit == "added"
    assert panel.selected.area_um2 == pytest.approx(np.pi * 144, rel=0.1)
    panel.undo.click()
    qtbot.waitUntil(lambda: panel.list.count() == 0 and not panel._busy)
    assert MADE not in viewer.layers
    panel.redo.click()
    qtbot.waitUntil(lambda: panel.list.count() == 1 and not panel._busy)
    panel.stop()
    title = "Corrections: Vessels"
    qtbot.waitUntil(lambda: dock.board.layer(title) is not None)
    assert not {CHOSEN, MADE, GONE, SOUGHT} & {layer.name for layer in viewer.layers}


def is_free(case):
    """Whether no thread of the window writes the case, as it does for a moment after an edit."""
    try:
        with case.writing():
            return True
    except CaseLocked:
        return False


def test_a_missed_vessel_is_found_here(qtbot, dock, opened, own_cohort):
    """A drag around a place looks there with a lower threshold; *Add* makes it a vessel."""
    root = own_cohort / "B11"
    before = Case(root).store.read(VESSEL_OBJECTS)
    write_recipe(root, changed(read_recipe(root), "vessels", threshold="fixed", dab_od=1.5))
    for _ in run_until(Case(root), read_recipe(root), "correct_vessels"):
        pass
    case = opened(dock, own_cohort, layers=("H&E", "CD34"))
    panel, viewer, hand = dock.correct, dock.viewer, Hand(qtbot, dock)
    left = case.store.read(VESSEL_OBJECTS).points_um()
    gaps = np.linalg.norm(before.points_um()[:, None] - left[None], axis=2).min(axis=1)
    missed = int(gaps.argmax())
    place = before.points_um()[missed]
    panel.start("find")
    qtbot.waitUntil(lambda: panel.session is not None and not panel._busy)
    look_at(viewer, place, 3.0)
    radius = float(before["major_axis_um"][missed])
    angles = np.linspace(0, 2 * np.pi, 40)
    around = [tuple(place + radius * np.array([np.sin(a), np.cos(a)])) for a in angles]
    hand.drag(around)
    qtbot.waitUntil(lambda: not panel._busy and bool(panel._state.found or panel._state.failed))
    assert not panel._state.failed
    assert panel.list.count() == 0
    assert FOUND in viewer.layers
    n = len(panel._state.found)
    assert panel.offer.text() == f"{n} found with a lower threshold"
    panel.drop.click()
    qtbot.waitUntil(lambda: not panel._busy and not panel._state.found)
    assert FOUND not in viewer.layers
    assert panel.list.count() == 0
    hand.drag(around)
    qtbot.waitUntil(lambda: not panel._busy and bool(panel._state.found))
    panel.take.click()
    qtbot.waitUntil(lambda: not panel._busy and panel.list.count() == n)
    assert not panel.take.isVisibleTo(panel)
    qtbot.waitUntil(lambda: is_free(case))
    for _ in run_until(case, read_recipe(root), "correct_vessels"):
        pass
    table = case.store.read(CORRECTED_VESSEL_OBJECTS)
    nearest = int(np.linalg.norm(table.points_um() - place, axis=1).argmin())
    assert table["manual_edit"][nearest] == "added"


def test_what_readers_did_is_seen_when_a_case_opens(qtbot, dock, opened, own_cohort):
    case = Case(own_cohort / "B11")
    vessels = case.store.read(VESSELS)
    with CorrectionSession(case, "vessels", "anna") as work:
        work.delete(work.select(tuple(inner_place(vessels, 1))))
        work.set_class(work.select(tuple(inner_place(vessels, 2))), "vein")
    with CorrectionLog(case, "tissue_he", "ben") as log:
        log.add(Correction("cut", area_wkt="POLYGON ((0 0, 100 0, 100 100, 0 100, 0 0))"))
    for reader in ("reader", "anna"):
        annotations = OpenAnnotations(case, reader)
        annotations.document.add(shapely.box(100, 100, 300, 400), "neoplastic")
        annotations.close()
    opened(dock, own_cohort, layers=("H&E", "CD34"))
    objects, tissue = "Corrections: Vessels", "Corrections: Tissue on H&E"
    mine = "Annotations of reader"
    qtbot.waitUntil(lambda: all(dock.board.layer(name) for name in (objects, tissue, mine)))
    assert dock.board.layer(objects).visible
    assert len(dock.board.layer(objects).data) > 2  # a cross, and the outline of what has a class
    assert len(dock.board.layer(tissue).data) == 4
    assert len(dock.board.layer(mine).data) >= 4
    assert objects in dock.board.names()["CD34"]
    assert {tissue, mine} <= set(dock.board.names()["H&E"])
    dock.board.set_shown(objects, False)
    assert not dock.board.layer(objects).visible
    dock.board.show_by_hand()  # what was hidden stays hidden, another reader has other annotations
    dock.workspace.reader = "anna"
    qtbot.waitUntil(lambda: dock.board.layer("Annotations of anna") is not None)
    assert dock.board.layer(mine) is None
    assert not dock.board.layer(objects).visible
    dock.board.set_shown(objects, True)
    assert dock.board.layer(objects).visible


def test_flagging_a_bad_place_by_hand(qtbot, dock, opened, own_cohort):
    case = opened(dock, own_cohort, layers=("H&E", "CD34"))
    qtbot.waitUntil(lambda: dock.workspace.tile_data.grid is not None)
    panel, viewer, hand = dock.correct, dock.viewer, Hand(qtbot, dock)
    word = lambda: dock.workspace.states["tissue_cd34"].word  # noqa: E731

    def settled(n):
        qtbot.waitUntil(
            lambda: not panel._busy and panel.list.count() == n and panel.session is not None,
            timeout=20_000,
        )

    # the tools are those of the mask; the kind is chosen, the key takes the first tool
    panel.target.setCurrentText("Artefacts on CD34")
    for widget, shown in (
        (panel.kind, True),
        (panel.buttons["flag"], True),
        (panel.buttons["cut"], False),
    ):
        assert widget.isVisibleTo(panel) == shown
    panel.kind.setCurrentText("other")
    place = np.asarray(dock.workspace.tile_data.grid.corners_um[0]) + 200
    look_at(viewer, place, 1.0)
    hand.key(Qt.Key.Key_C, Qt.KeyboardModifier.ShiftModifier)
    qtbot.waitUntil(lambda: panel.tool.mode == "flag", timeout=20_000)
    angles = np.arange(12) / 2
    ring = [tuple(place + 150 * np.array([np.cos(a), np.sin(a)])) for a in angles]
    hand.drag(ring)
    settled(1)
    assert "marked as other, 0.0" in panel.list.item(0).text()
    assert GONE in viewer.layers
    qtbot.waitUntil(lambda: word() == "stale", timeout=20_000)

    # the tissue step takes it out of the tissue and shows it among the bad places
    assert dock.controller.run_steps(["tissue_cd34"]) is not None, dock.workspace.problem
    qtbot.waitUntil(lambda: dock.workspace.job is None, timeout=120_000)
    assert dock.workspace.problem is None
    qtbot.waitUntil(lambda: word() == "done", timeout=20_000)
    tissue = case.store.read(TISSUE["cd34"])
    row, column = tissue.lattice.to_index([place])[0].astype(int)
    assert not tissue.values[row, column]
    name = "Artefacts on CD34"
    qtbot.waitUntil(lambda: dock.board.layer(name) is not None, timeout=20_000)
    shown = dock.board.layer(name)
    qtbot.waitUntil(
        lambda: int(np.asarray(shown.get_value(place, world=True) or 0)) == 5, timeout=20_000
    )
    assert "1 manual correction" in dock.workspace.results["tissue_cd34"]
    assert "of it marked manually" in dock.workspace.results["tissue_cd34"]

    # back: the tool is still in the hand and no new layer takes its keys; the results follow
    qtbot.waitUntil(lambda: viewer.layers.selection.active is None, timeout=20_000)
    hand.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    settled(0)
    assert GONE not in viewer.layers
    qtbot.waitUntil(lambda: word() == "stale", timeout=20_000)
