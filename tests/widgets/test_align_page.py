"""The Align page: a section is dragged, turned, marked and accepted; the command line agrees."""

import json

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_mosaik.core import Transform
from napari_mosaik.core.catalogue import ALIGNMENT
from napari_mosaik.io.case import Case
from napari_mosaik.widgets.align.view import (
    BOARD,
    CIRCLE,
    GAPS,
    OUTLINE,
    OWN,
    PARTNERS,
    PET,
    PREFIX,
    VOXELS,
)
from napari_mosaik.workflow.case_status import case_status
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.run import run_until

from .test_tools import Hand

pytestmark = pytest.mark.gui


def true_map(case, frame):
    record = json.loads((case.root / "truth" / "truth.json").read_text())["transforms"][frame]
    return Transform(frame, "cd34", np.array(record["matrix"]))


def test_a_section_is_aligned_manually_and_accepted(qtbot, dock, opened, own_cohort):
    case = opened(dock, own_cohort, layers=("H&E", "CD34", "CAIX"))
    qtbot.waitUntil(lambda: bool(dock.board.specs), timeout=20_000)
    page, hand = dock.pages["Registration"], Hand(qtbot, dock)
    page.set_open(True)
    panel, layers = page.panel, dock.viewer.layers
    before = {layer.name: layer.visible for layer in layers}
    automatic = Transform("he", "cd34", np.array(case.store.read(ALIGNMENT["he"])["matrix_um"]))

    # the section lies over CD34 where it was aligned; figures say how well
    panel.begin.click()
    qtbot.waitUntil(lambda: panel.alignment is not None, timeout=60_000)
    assert layers["H&E"].visible
    assert layers["CD34"].visible
    assert not dock.board.layer("CAIX").visible
    assert OUTLINE in layers
    assert not page.sections["align_he"].isVisible()
    qtbot.waitUntil(lambda: "overlap" in panel.figures.text(), timeout=60_000)
    assert "confidence" in panel.figures.text()

    # a drag moves it, one act to undo; keys turn it; the layers follow at once
    dock.viewer.reset_view()
    middle = np.array(panel.tool.about_um)
    moves = []
    panel.tool.shifted.connect(lambda step, on: moves.append(on))
    steps = np.array([[0, 0], [40, 30], [90, 60], [200, 150]])
    hand.drag(list(middle + steps))
    moved = panel.alignment.now.transform.apply([[0, 0]]) - automatic.apply([[0, 0]])
    assert moved[0] == pytest.approx([200, 150], abs=15)
    assert np.allclose(layers["H&E"].affine.affine_matrix, panel.alignment.now.transform.matrix)
    assert np.allclose(layers[OUTLINE].affine.affine_matrix, panel.alignment.now.transform.matrix)
    hand.key(Qt.Key.Key_Comma)
    assert panel.alignment.now.transform.angle_deg == pytest.approx(automatic.angle_deg + 0.5)
    hand.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    hand.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert not panel.alignment.can_undo
    assert np.allclose(panel.alignment.now.transform.matrix, automatic.matrix)
    panel.redo_button.click()
    qtbot.waitUntil(lambda: "check the alignment" in panel.figures.text(), timeout=60_000)

    # checkerboard and outline
    panel.look.setCurrentIndex(1)
    assert layers[BOARD].visible
    assert set(np.unique(layers[BOARD].data[..., 3])) == {0, 255}
    panel.look.setCurrentIndex(2)
    assert not layers[BOARD].visible
    assert not layers["H&E"].visible

    # landmarks: each section alone for its click; residuals, an exchange found and undone
    panel.landmark_button.click()
    true = true_map(case, "he")
    places = middle + np.array([[-400, -450], [-300, 400], [350, -300], [400, 350], [0, 0.0]])
    for place in places:
        assert layers["H&E"].visible
        assert not layers["CD34"].visible
        own = true.inverse().apply([place])
        hand.click(panel.alignment.now.transform.apply(own)[0])
        qtbot.waitUntil(lambda: panel.alignment.now.unpaired is not None, timeout=20_000)
        assert not layers["H&E"].visible
        assert layers["CD34"].visible
        hand.click(place)
        qtbot.waitUntil(lambda: panel.alignment.now.unpaired is None, timeout=20_000)
    assert panel.list.count() == 5
    assert all("µm" in panel.list.item(n).text() for n in range(5))
    assert {OWN, PARTNERS, GAPS} <= {layer.name for layer in layers}
    panel._act("swap_landmarks", 0, 3)
    assert "1 and 4 appear to be swapped" in panel.warnings.text()
    panel.swap_button.click()
    assert "swapped" not in panel.warnings.text()
    panel.list.setCurrentRow(4)
    panel.delete_button.click()
    assert panel.list.count() == 4
    panel.undo_button.click()
    panel.fit_button.click()
    assert panel.alignment.residuals_um().max() < 15  # clicks are as fine as a screen pixel
    accepted = panel.alignment.now.transform

    # accept stores it with its source, runs the step, and the canvas is as before
    panel.accept_button.click()
    qtbot.waitUntil(
        lambda: dock.workspace.job is None and dock.workspace.states["align_he"].word == "done",
        timeout=120_000,
    )
    assert not any(layer.name.startswith(PREFIX) for layer in layers)
    assert {n: v for n, v in before.items() if n in ("H&E", "CAIX")}.items() <= {
        layer.name: layer.visible for layer in layers
    }.items()
    qtbot.waitUntil(
        lambda: np.allclose(layers["H&E"].affine.affine_matrix, accepted.matrix), timeout=20_000
    )
    stored = Case(case.root)
    assert stored.file.given_alignments["he"].source == "landmarks"
    record = stored.store.read(ALIGNMENT["he"])
    assert np.allclose(record["matrix_um"], accepted.matrix)
    assert len(record["landmark_residuals_um"]) == 5
    assert "(landmarks)" in panel.message.text()

    # the command line has nothing to do, and makes the same bytes when it starts again
    assert case_status(stored).states["align_he"].word == "done"
    stored.update(given_alignments={})
    stored.update(given_alignments=case.file.given_alignments)
    for _ in run_until(stored, read_recipe(stored.root), "align_he"):
        pass
    assert stored.store.read(ALIGNMENT["he"]) == record

    # automatic again
    panel.automatic.click()
    qtbot.waitUntil(
        lambda: dock.workspace.job is None and dock.workspace.states["align_he"].word == "done",
        timeout=120_000,
    )
    assert Case(case.root).file.given_alignments == {}


def test_the_pet_is_aligned_with_its_voxels_and_resolution(
    qtbot, dock, opened, own_cohort, tmp_path
):
    case = opened(dock, own_cohort, layers=("CD34",))
    page = dock.pages["Registration"]
    page.set_open(True)
    panel, layers = page.panel, dock.viewer.layers
    panel.target.setCurrentIndex(panel.target.findData("pet"))
    panel.begin.click()
    qtbot.waitUntil(lambda: panel.alignment is not None, timeout=60_000)
    assert {PET, VOXELS, CIRCLE, OUTLINE} <= {layer.name for layer in layers}
    ring = layers[CIRCLE].data[:, 0]
    assert np.ptp(ring, axis=0) == pytest.approx([1500, 1500], rel=0.01)
    bad = tmp_path / "bad.csv"
    bad.write_text("1,2\n")
    panel.import_transform(bad)
    assert "bad.csv" in dock.workspace.problem.sentence
    true, path = true_map(case, "pet"), tmp_path / "other.csv"
    np.savetxt(path, true.matrix, delimiter=",")
    panel.import_transform(path)
    assert np.allclose(layers[VOXELS].affine.affine_matrix, true.matrix)
    assert panel.alignment.entry().source == "file"
    qtbot.waitUntil(lambda: "overlap" in panel.figures.text(), timeout=60_000)
    qtbot.waitUntil(lambda: "expected registration error" in panel.figures.text(), timeout=60_000)
    panel.cancel_button.click()
    assert not any(layer.name.startswith(PREFIX) for layer in layers)
    assert Case(case.root).file.given_alignments == {}
