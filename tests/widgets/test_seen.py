"""What a reader sees in the window: texts inside their boxes, groups, scales of colours."""

import numpy as np
import pytest
from napari._qt.containers._base_item_model import ItemRole
from qtpy.QtWidgets import QCheckBox

from napari_mosaik.core.catalogue import MAPS, PARAMETERS, VESSELS
from napari_mosaik.view.spec import LayerSpec, placement_um
from napari_mosaik.widgets.canvas.legend import ScaleFields
from napari_mosaik.widgets.canvas.view_keys import READOUT
from napari_mosaik.workflow.steps import maker_of

pytestmark = pytest.mark.gui


def test_the_text_on_the_canvas_lies_inside_its_box(dock, qtbot):
    blank = np.zeros((400, 600))
    dock.viewer.add_image(blank, scale=(1, 1), units=("um", "um"), name="blank", opacity=0)
    overlay = dock.viewer.canvas.overlays[READOUT]
    overlay.box_color, overlay.color = "red", "lime"
    dock.viewer.canvas.overlays.scale_bar.visible = False
    for times in (2.5, 10, 40):
        dock.view_tools.keys.zoom_to(times)
        qtbot.waitUntil(lambda times=times: f"{times:g}x" in overlay.text)
        pixels = dock.viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
        text = np.argwhere((pixels[..., 1] > 200) & (pixels[..., 0] < 90))
        box = np.argwhere((pixels[..., 0] > 120) & (pixels[..., 1] < 90))
        assert len(text) > 50
        assert (box.min(axis=0) < text.min(axis=0)).all()
        assert (box.max(axis=0) > text.max(axis=0)).all()


def test_overlays_are_listed_by_section_on_one_scale_of_the_uptake(dock, opened, own_cohort, qtbot):
    opened(dock, own_cohort, layers=("H&E", "CD34", "CAIX"))
    board = dock.board
    qtbot.waitUntil(lambda: "PET" in board.names())
    sections = board.names()
    assert list(sections) == ["H&E", "CD34", "CAIX", "PET", "All sections"]
    assert [names[0] for names in sections.values()][:3] == ["H&E", "CD34", "CAIX"]
    assert {"Nuclei", "Tissue classes", "Tissue on H&E"} <= set(sections["H&E"])
    assert {"Vessels", "Tissue on CD34"} <= set(sections["CD34"])
    assert "Tiles" in sections["All sections"]
    pet = next(name for name in sections["PET"] if name.startswith("PET"))

    board.set_shown(pet, True)
    dock.show_review()
    maps = dock.side_by_side._maps()
    shown = board.layer(pet)
    assert shown.contrast_limits == maps[0].contrast_limits == maps[1].contrast_limits
    view = dock.viewer.window._qt_viewer.layers
    hidden = sum(view.isRowHidden(row) for row in range(view.model().rowCount()))
    assert hidden == 8  # marks and hatching of four maps

    fields = next(f for f in dock.overlays.findChildren(ScaleFields) if f._name == pet)
    assert not fields.reset.isEnabled()
    was = fields.high.value()
    fields.high.setValue(0.5)
    assert [layer.contrast_limits[1] for layer in (shown, *maps[:2])] == [0.5] * 3
    assert maps[2].contrast_limits[1] != 0.5
    fields.low.setValue(0.7)  # above the other end: not taken
    assert fields.low.value() < 0.5
    fields.reset.click()
    assert fields.high.value() == was
    assert maps[0].contrast_limits == shown.contrast_limits
    dock.side_by_side.leave()
    kept = dock.side_by_side._cells  # the maps wait without a row for the next time
    model = view.model()
    unlisted = [
        model.index(row, 0).data(ItemRole)
        for row in range(model.rowCount())
        if view.isRowHidden(row)
    ]
    assert len(kept) == 12
    assert set(unlisted) == set(kept)
    assert not any(layer.visible for layer in kept)


def test_an_old_result_stays_visible_and_is_marked_with_what_changed_first(
    dock, opened, own_cohort, qtbot
):
    opened(dock, own_cohort)
    qtbot.waitUntil(lambda: "Vessels" in dock.board.specs)
    dock.board.set_shown("Vessels", True)
    step = maker_of(VESSELS).name
    params = dock.workspace.recipe[step]
    dock.controller.set_params(step, params.model_copy(update={"dab_od": 0.9}))
    qtbot.waitUntil(lambda: dock.workspace.states[step].word == "stale")
    boxes = {box.text(): box for box in dock.overlays.findChildren(QCheckBox)}
    assert boxes["↻ Vessels"].toolTip() == "Vessels: stale, settings changed"
    assert dock.board.layer("Vessels").visible
    reason = dock.workspace.states[maker_of(PARAMETERS).name].reason
    assert reason.startswith("changed: ")
    assert "the settings of Vessels changed" in reason


def test_a_name_without_room_ends_in_an_ellipsis(dock, qtbot):
    style = {"contrast_limits": (0, 1)}
    name = "A & B, a name that is wider than the window " * 5
    spec = LayerSpec(name, "image", np.zeros((4, 4)), placement_um("cd34"), style)
    dock.board.specs[name] = spec
    dock.board.changed.emit()
    eye = dock.overlays._built[name].eye
    assert eye.text().replace("&&", "&") == name
    dock.tabs.setCurrentIndex(1)
    qtbot.waitUntil(lambda: eye.text().endswith("…"))
    assert eye.text().startswith("A && B")
    assert eye.toolTip().startswith(name)


def test_another_parameter_replaces_the_map_that_was_shown(dock, opened, own_cohort, qtbot):
    opened(dock, own_cohort)
    board, step = dock.board, maker_of(MAPS).name
    qtbot.waitUntil(lambda: bool(board.choices.get(step)))

    def shown():
        return [name for name in board.overlays() if board.specs[name].result == MAPS.name]

    for name in board.choices[step][:3]:
        before = shown()
        board.show_choice(step, name)
        qtbot.waitUntil(lambda before=before: len(shown()) == 1 and shown() != before)
    chosen = shown()
    with qtbot.waitSignal(board.changed):
        board.bring(step)  # a new run keeps the choice
    assert shown() == chosen
