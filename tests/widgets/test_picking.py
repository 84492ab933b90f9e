"""Stain colours are picked on the slide, fill the form, show in the preview, and are taken back."""

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_mosaik.core.catalogue import VESSEL_OBJECTS
from napari_mosaik.core.colour import DAB, HAEMATOXYLIN, optical_density
from napari_mosaik.widgets.canvas.camera import look_at
from napari_mosaik.workflow.picking import stains_in_use

from .test_tools import Hand

pytestmark = pytest.mark.gui

STEP = 16


def purest(case, vector, other):
    """A place of the CD34 slide, µm, where a stain is strong and the other one is not."""
    grid_um = np.asarray(case.store.read(VESSEL_OBJECTS).points_um())
    low = grid_um.min(axis=0)
    with case.slide("cd34") as slide:
        size = tuple(np.minimum(np.ptp(grid_um, axis=0), 700.0))
        read = slide.read(tuple(low), size, 1.0)
    od = optical_density(np.asarray(read.values, np.uint8)).astype(float)
    strength = np.linalg.norm(od, axis=2)
    unit = od / np.maximum(strength, 1e-6)[..., None]
    one, two = (np.asarray(v) / np.linalg.norm(v) for v in (vector, other))
    score = (unit @ one - unit @ two) * (strength > 0.6) * (strength < 1.8)
    tall, wide = (n // STEP * STEP for n in score.shape)
    smooth = score[1:-1, 1:-1] + score[:-2, 1:-1] + score[2:, 1:-1] + score[1:-1, :-2]
    row, column = np.unravel_index(np.argmax(smooth[: tall - 2, : wide - 2]), (tall - 2, wide - 2))
    return read.lattice.to_um([[row + 1, column + 1]])[0]


def test_picking_the_stains(qtbot, dock, opened, own_cohort):
    case = opened(dock, own_cohort, layers=("H&E", "CD34"))
    qtbot.waitUntil(lambda: dock.workspace.tile_data.grid is not None)
    picker, hand, page = dock.picker, Hand(qtbot, dock), dock.pages["Vessels"]
    page.set_open(True)
    settings = lambda: dock.workspace.recipe["vessels"]  # noqa: E731
    idle = lambda: qtbot.waitUntil(lambda: not picker._busy, timeout=20_000)  # noqa: E731
    before, own = settings(), stains_in_use(case, settings())
    assert before.stains == "slide"
    assert "estimated from this slide" in picker.line.text()
    assert not picker.undo.isVisibleTo(page)

    # glass is refused, in words; the tool stays in the hand and Escape puts it away
    look_at(dock.viewer, (4.0, 4.0), 4.0)
    picker.buttons["dab"].click()
    assert picker.tool.mode == "dab"
    assert dock.canvas.active_tool is not None
    hand.click((4.0, 4.0))
    qtbot.waitUntil(lambda: picker.hint.text().startswith("⚠ this area is "), timeout=20_000)
    assert settings() == before
    hand.key(Qt.Key.Key_Escape)
    assert not picker.tool.mode
    assert dock.canvas.active_tool is None

    # a click on a wall: the form has the vector, the step is stale, the other stain stays
    place = purest(case, DAB, HAEMATOXYLIN)
    look_at(dock.viewer, place, 4.0)
    picker.buttons["dab"].click()
    hand.click(place)
    qtbot.waitUntil(lambda: settings().stains == "manual", timeout=20_000)
    idle()
    assert "DAB picked from" in picker.hint.text()
    assert settings().haematoxylin_vector == own[0]["haematoxylin"]
    assert not picker.tool.mode
    form = page.sections["vessels"].form
    assert tuple(form.value().dab_vector) == settings().dab_vector
    assert form.value() == settings()
    qtbot.waitUntil(lambda: dock.workspace.states["vessels"].word == "stale", timeout=20_000)

    # a drag around a nucleus, then both are taken back one after the other
    place = purest(case, HAEMATOXYLIN, DAB)
    look_at(dock.viewer, place, 8.0)
    middle = np.array(dock.viewer.scene.camera.center)
    picker.buttons["haematoxylin"].click()
    path = [tuple(place + 4 * np.array([np.cos(a), np.sin(a)])) for a in np.arange(10) * 0.63]
    first = settings()
    hand.drag(path)
    qtbot.waitUntil(lambda: settings() != first, timeout=20_000)
    np.testing.assert_array_equal(dock.viewer.scene.camera.center, middle)
    idle()
    picker.undo.click()
    assert settings() == first
    picker.undo.click()
    assert settings() == before
    assert not picker.undo.isVisibleTo(page)

    # another tool takes over; with the page 'From the slide' comes back too
    picker.buttons["dab"].click()
    dock.show_annotate()
    assert not picker.tool.mode
    assert dock.canvas.active_tool is not None
    dock.annotate.drawing.release()
    form.set_value(settings().model_copy(update={"stains": "ruifrok"}))
    assert "Ruifrok" in picker.line.text()
    picker.automatic.click()
    assert settings() == before
