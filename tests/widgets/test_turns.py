"""Layouts come view by view in turns of the event loop, and can be left at any of them."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

import numpy as np
import pytest

from napari_mosaik.widgets.base.gc_tuning import Turns, add_hidden

pytestmark = pytest.mark.gui


def step(layout: Any) -> None:
    """One turn of a layout that is being shown."""
    layout._turns._one()


def halted(*layouts: Any) -> None:
    """The turns of these come when a test takes them with `step`."""
    for layout in layouts:
        turns = layout._turns
        turns.add = turns._work.append
        others = [work for work in turns._beat.waiting if work is not turns._work]
        turns._beat.waiting = deque(others)


def shown(viewer: Any) -> dict[str, bool]:
    return {layer.name: bool(layer.visible) for layer in viewer.layers}


def test_maps_come_one_by_one_each_with_its_name(qtbot, dock, opened, own_cohort, in_turns):
    opened(dock, own_cohort)
    board, viewer, before = dock.side_by_side, dock.viewer, shown(dock.viewer)
    halted(board)
    heard = []
    board.whole.connect(lambda: heard.append(board.is_whole))
    dock.show_review()
    assert board.is_on
    assert not board.is_whole
    assert not any(layer.visible for layer in viewer.layers)  # nothing of before beside the maps
    counts = []
    while not board.is_whole:
        step(board)
        maps = board._maps()
        seen = [layer for layer in maps if layer.visible]
        counts.append(len(seen))
        assert seen == maps[: len(seen)]
        assert all(layer.name_overlay.visible for layer in seen)
        assert board.is_whole == (board._notice.text == "")
        if seen:
            assert all(one.visible for one in board._groups()[len(seen) - 1] if len(one.data))
    assert sorted(counts) == counts
    assert set(counts) == {0, 1, 2, 3, 4}
    assert heard == [True]
    board.leave()
    assert {name: is_on for name, is_on in shown(viewer).items() if name in before} == before


@pytest.mark.parametrize("turns", [1, 5, 18])
def test_leaving_before_all_maps_are_there_restores_the_canvas(
    qtbot, dock, opened, own_cohort, in_turns, turns
):
    opened(dock, own_cohort)
    board, viewer, before = dock.side_by_side, dock.viewer, shown(dock.viewer)
    halted(board)
    dock.show_review()
    for _ in range(turns):
        step(board)
    assert not board.is_whole
    board.leave()
    step(board)  # a turn that was due comes to nothing
    assert not viewer.canvas.grid.enabled
    assert not board._notice.text
    after = shown(viewer)
    assert {name: after[name] for name in before} == before
    assert not any(layer.visible for layer in board._cells)
    made = list(board._cells)
    dock.show_review()  # what is made already is not made again
    while not board.is_whole:
        step(board)
    assert board._cells[: len(made)] == made
    assert len(board._cells) == 12


def test_another_case_or_the_end_of_the_window_ends_what_is_being_made(
    qtbot, dock, opened, cohort, in_turns
):
    opened(dock, cohort)
    board, four = dock.side_by_side, dock.view_tools.quad_view
    halted(board, four)
    dock.show_review()
    for _ in range(6):
        step(board)
    cells = list(board._cells)
    assert cells
    case = dock.workspace.case
    dock.controller.switch(cohort / "B8")
    qtbot.waitUntil(lambda: dock.workspace.case not in (case, None))
    step(board)
    assert not set(cells) & set(dock.viewer.layers)
    assert not board._cells
    qtbot.waitUntil(lambda: dock.board.layer("H&E") is not None and bool(dock.board.specs))
    four.enter()
    step(four)
    dock.close()  # in the middle
    step(four)
    assert not four._made


def test_the_layers_of_a_case_that_is_left_go_one_by_one(qtbot, dock, opened, cohort, in_turns):
    opened(dock, cohort, layers=("H&E", "CD34", "CAIX"))
    board, viewer, space = dock.board, dock.viewer, dock.workspace
    qtbot.waitUntil(lambda: "Vessels" in board.specs and not board._turns.is_busy)
    for name in ("Vessels", "Nuclei"):
        board.set_shown(name, True)
    qtbot.waitUntil(lambda: not board._turns.is_busy)  # what comes later makes the views again
    dock.view_tools.quad_view.enter()
    qtbot.waitUntil(lambda: dock.view_tools.quad_view.is_whole)
    before, case = list(viewer.layers), space.case
    halted(board)
    board._turns.stop()
    collected = []
    dock.controller.case_left.connect(lambda: collected.append(len(viewer.layers)))
    dock.controller.switch(cohort / "B8")
    qtbot.waitUntil(lambda: space.case is None)
    qtbot.waitUntil(lambda: not any(layer.visible for layer in viewer.layers))
    rows = viewer.window._qt_viewer.layers
    assert all(rows.isRowHidden(row) for row in range(rows.model().rowCount()))
    assert list(viewer.layers) == before
    assert not board.present()
    for left in reversed(range(len(before))):
        assert space.case is None  # another case is shown once nothing of this one is left
        assert not collected
        step(board)
        assert len(viewer.layers) == left
    while board._turns._work:
        step(board)
    qtbot.waitUntil(lambda: space.case not in (case, None))
    assert collected == [0]

    def has_come():
        step(board)
        return board.layer("H&E") is not None

    qtbot.waitUntil(has_come)
    assert board.layer("H&E").name == "H&E"


def test_what_was_dismissed_stays_hidden_and_gives_its_name_back(dock):
    from napari.layers import Image

    from napari_mosaik.widgets.canvas.layout_state import LayoutState
    from napari_mosaik.widgets.canvas.list_rows import any_dismissed, dismiss, make_room

    viewer = dock.viewer
    first, second = (viewer.add_image(np.zeros((4, 4)), name=name) for name in "ab")
    state = LayoutState.of(viewer)
    dismiss(viewer, [first])
    assert [layer for layer in viewer.layers if layer.visible] == [second]
    assert first not in viewer.layers.selection
    state.restore_layers(viewer)
    assert not first.visible
    make_room(viewer, "b")
    assert second in viewer.layers
    make_room(viewer, "a")
    assert list(viewer.layers) == [second]
    assert not any_dismissed(viewer)
    assert viewer.add_layer(Image(np.zeros((4, 4)), name="a")).name == "a"


def test_rows_of_overlays_come_two_at_a_time(qtbot, dock, in_turns):
    from napari_mosaik.view.spec import LayerSpec, placement_um

    overlays = dock.overlays
    overlays._turns.add = overlays._turns._work.append
    for name in "abcde":
        spec = LayerSpec(name, "image", np.zeros((4, 4)), placement_um("cd34"), {})
        dock.board.specs[name] = spec
    dock.board.changed.emit()
    counts = [len(overlays._built)]
    while overlays._turns._work:
        step(overlays)
        counts.append(len(overlays._built))
    assert counts == [2, 4, 5]
    former = dict(overlays._built)
    dock.board.set_shown("d", True)
    qtbot.waitUntil(lambda: not dock.board._turns.is_busy)
    assert dock.board.layer("d").visible
    assert not overlays._turns._work  # one row is exchanged at once
    assert overlays._built.pop("d") is not former.pop("d")
    assert overlays._built == former


def test_a_layer_has_a_volume_only_when_it_is_shown_in_three_dimensions(dock):
    canvas = dock.viewer.window._qt_viewer.canvas
    for layer in (
        dock.viewer.add_image(np.zeros((2, 4, 4))),
        dock.viewer.add_labels(np.ones((2, 4, 4), np.uint8)),
    ):
        nodes = canvas.layer_to_visual[layer]._layer_node
        unmade = [name for name in ("_volume_node", "_tiledimage_node") if name in vars(nodes)]
        assert unmade
        assert all(isinstance(vars(nodes)[name], partial) for name in unmade)
    dock.viewer.dims.ndisplay = 3
    drawn = canvas.layer_to_visual[layer].node
    assert type(drawn).__name__ == "Volume"
    assert drawn is nodes._volume_node


def test_only_what_is_shown_follows_the_view(dock, monkeypatch):
    from napari.layers import Labels

    viewer, asked, find = dock.viewer, [], Labels._update_level_and_corners
    monkeypatch.setattr(
        Labels,
        "_update_level_and_corners",
        lambda self, *view: (asked.append(self.name), find(self, *view)),
    )
    levels = [np.zeros((64, 64), np.uint8), np.zeros((32, 32), np.uint8)]
    viewer.add_labels(levels, multiscale=True, name="shown")
    hidden = viewer.add_labels(levels, multiscale=True, visible=False, name="hidden")
    asked.clear()
    viewer.window._qt_viewer.canvas.on_draw()
    assert set(asked) == {"shown"}
    hidden.visible = True  # at once, before it is drawn
    assert "hidden" in asked


def test_maps_made_ahead_are_hidden_and_unlisted_until_they_are_shown(
    qtbot, dock, opened, own_cohort
):
    opened(dock, own_cohort)
    board, viewer, before = dock.side_by_side, dock.viewer, shown(dock.viewer)
    turns = 0
    while board.make_ahead():
        turns += 1
        assert shown(viewer).items() >= before.items()
        assert not any(layer.visible for layer in board._cells)
    assert turns > 12
    assert not board.make_ahead()
    rows = viewer.window._qt_viewer.layers
    hidden = sum(rows.isRowHidden(row) for row in range(rows.model().rowCount()))
    assert hidden == len(board._cells) == 12
    made = list(board._cells)
    dock.show_review()
    assert board._cells == made
    assert board.is_whole


def test_the_views_of_the_slides_come_one_by_one(qtbot, dock, opened, own_cohort, in_turns):
    opened(dock, own_cohort, layers=("H&E", "CD34", "CAIX"))
    qtbot.waitUntil(lambda: "Vessels" in dock.board.specs)
    dock.board.set_shown("Vessels", True)
    qtbot.waitUntil(lambda: not dock.board._turns.is_busy)
    viewer, four, before = dock.viewer, dock.view_tools.quad_view, shown(dock.viewer)
    halted(four)
    four.enter()
    counts = []
    while not four.is_whole:
        counts.append(len(viewer.canvas.grid._viewbox_groups(viewer.layers)[1]))
        for _, inside in viewer.canvas.grid.iter_viewboxes(viewer.layers):
            names = [viewer.layers[at].name for at in inside if viewer.layers[at].visible]
            assert not names or (len(names) > 1 and "Vessels" in names[1])
        assert four._notice.text
        step(four)
    assert sorted(counts) == counts
    assert set(counts) == {1, 2, 3, 4}
    assert not four._notice.text
    four.leave()
    four.enter()
    for _ in range(3):
        step(four)
    four.leave()
    step(four)
    assert not viewer.canvas.grid.enabled
    qtbot.waitUntil(lambda: not dock.board._turns.is_busy)  # the copies are removed in turns
    after = shown(viewer)
    assert {name: after[name] for name in before} == before
    assert not any(" · " in name for name in after)


def test_views_hold_their_slides_whatever_comes_while_they_are_made(
    qtbot, dock, opened, own_cohort, in_turns
):
    opened(dock, own_cohort, layers=("H&E", "CD34", "CAIX"))
    viewer, four = dock.viewer, dock.view_tools.quad_view
    assert dock.side_by_side.make_ahead()  # a map of the review, as long as nothing else is shown
    halted(four)
    four.enter()
    assert not dock.side_by_side.make_ahead()  # would move all views by one layer
    step(four)
    dock.board.show_slide("cd34")  # as the layers of a step do that were asked for before
    first = list(four._turns._work)
    for _ in range(100):
        step(four)
    assert four.is_whole
    qtbot.waitUntil(lambda: four._turns.is_busy and list(four._turns._work) != first)
    for _ in range(100):  # the views are made again
        step(four)
    assert four.is_whole
    for title, (_, inside) in zip(
        ("H&E", "CD34", "CAIX"), viewer.canvas.grid.iter_viewboxes(viewer.layers), strict=False
    ):
        assert title in [viewer.layers[at].name for at in inside if viewer.layers[at].visible]


def test_controls_are_made_for_the_layer_that_is_selected(dock, qtbot):
    viewer = dock.viewer
    controls = viewer.window._qt_viewer.controls
    first, second = (viewer.add_image(np.zeros((4, 4)), name=name) for name in "ab")
    assert not controls.widgets
    qtbot.waitUntil(lambda: second in controls.widgets)
    assert controls.currentWidget() is controls.widgets[second]
    assert first not in controls.widgets
    viewer.layers.remove(first)
    assert list(controls.widgets) == [second]
    viewer.layers.selection.clear()
    qtbot.waitUntil(lambda: controls.currentWidget() is controls.empty_widget)
    viewer.layers.remove(second)
    assert not controls.widgets


def test_a_hidden_layer_stays_in_the_view_where_it_was(dock):
    viewer = dock.viewer
    canvas = viewer.window._qt_viewer.canvas
    first, second = (viewer.add_image(np.zeros((4, 4)), name=name) for name in "ab")
    second.name_overlay.visible = True
    viewer.canvas.grid.enabled = True
    there = canvas.layer_to_visual[second].node.parent
    assert there is not canvas.view.scene
    second.visible = False
    viewer.canvas.grid.enabled = False
    assert canvas.layer_to_visual[first].node.parent is canvas.view.scene
    assert canvas.layer_to_visual[second].node.parent is there
    second.visible = True
    assert canvas.layer_to_visual[second].node.parent is canvas.view.scene
    name = canvas._layer_overlay_to_visual[second][second.name_overlay]
    assert name.node.parent is canvas.view
    from napari.layers import Image

    hidden = Image(np.zeros((4, 4)), visible=False)
    add_hidden(viewer, hidden, 1)
    assert [layer.name for layer in viewer.layers] == ["a", hidden.name, "b"]
    hidden.visible = True
    assert canvas.layer_to_visual[hidden].node.parent is canvas.view.scene


def test_what_is_remembered_of_programs_and_callbacks_is_what_was_found(dock):
    from napari.utils.events.event import EventEmitter
    from vispy.gloo.program import Program

    vertex = "uniform float a;\nattribute vec2 p; // uniform float no;\nvoid main() {}"
    code = "uniform vec3 c[2];\nvoid main() {}"
    kinds = [dict(Program(vertex, code)._code_variables) for _ in range(2)]
    assert kinds[0] == kinds[1]
    assert kinds[0].keys() == {"a", "p", "c", "c[0]", "c[1]"}
    assert Program(vertex, code.replace("c[2]", "d"))._code_variables.keys() == {"a", "p", "d"}

    class Hears:
        def nothing(self):
            """Takes no event."""

        def event(self, event):
            """Takes one."""

        def __call__(self, event):
            """Takes one."""

    one, other = Hears(), Hears()
    accepts = EventEmitter._check_signature
    for _ in range(2):
        assert not accepts(one.nothing)
        assert not accepts(other.nothing)
        assert accepts(one.event)
        assert accepts(other)
        assert accepts(lambda event: None)
        assert not accepts(lambda: None)
        assert not accepts(partial(one.event, None))
        assert accepts(partial(one.event))


def test_what_fails_ends_its_work_and_no_other(qapp):
    from qtpy.QtCore import QObject

    done, owner = [], QObject()

    def work(name, fails=False):
        done.append(name)
        yield
        if fails:
            raise ValueError(name)
        done.append(name)

    turns = Turns(owner)
    turns.add(work("a", fails=True))
    turns.add(work("b"))
    turns._one()
    with pytest.raises(ValueError, match="a"):
        turns._one()
    turns._one()
    turns._one()
    assert done == ["a", "b", "b"]
    turns.start(work("c"))
    turns.stop()
    turns._one()
    assert done == ["a", "b", "b"]


def test_pieces_of_several_owners_never_come_in_one_round_of_the_event_loop(qtbot):
    from qtpy.QtCore import QObject, QTimer

    rounds, done, owner, heard = [0], [], QObject(), QTimer()
    heard.timeout.connect(lambda: rounds.__setitem__(0, rounds[0] + 1))
    heard.start(0)

    def work(name):
        for _ in range(3):
            done.append((name, rounds[0]))
            yield

    several = [Turns(owner) for _ in range(3)]
    for name, turns in zip("abc", several, strict=True):
        turns.add(work(name))
    several[0].soon(lambda: done.append(("soon", rounds[0])))
    assert several[0].any_busy
    qtbot.waitUntil(lambda: not any(turns.is_busy for turns in several))
    assert "".join(name for name, _ in done) == "abcabcabcsoon"  # each has its turn
    gaps = np.diff([number for _, number in done])
    assert gaps.min() >= 2  # what a piece asks to be drawn is drawn before the next one
    heard.stop()


def test_what_runs_in_a_dialogue_of_a_piece_goes_on_and_what_has_no_owner_ends(qtbot):
    from qtpy.QtCore import QEventLoop, QObject

    done, first, second, third = [], QObject(), QObject(), QObject()
    inner = QEventLoop()

    def asks():
        inner.exec()
        done.append("answered")
        yield
        done.append("asked")

    turns, gone = Turns(first), Turns(third)
    turns.add(asks())
    gone.soon(lambda: done.append("never"))
    third.deleteLater()
    Turns(second).soon(inner.quit)
    qtbot.waitUntil(lambda: not turns.is_busy)
    assert done == ["answered", "asked"]
    assert not gone._work


def test_the_result_of_a_task_comes_in_a_turn_of_its_own(qtbot, dock, in_turns):
    heard = []
    tasks = [dock.controller.read("Numbers", lambda n=n: n, heard.append) for n in range(3)]
    for task in tasks:
        assert task.wait(60)
    assert not heard
    qtbot.waitUntil(lambda: len(heard) == 3)
    assert sorted(heard) == [0, 1, 2]


def test_colours_looked_up_at_once_are_those_of_each_label(dock):
    from napari.utils.colormaps import DirectLabelColormap

    colours = DirectLabelColormap(
        color_dict={None: "transparent", 0: "transparent", 1: "red", 7: [0, 0.5, 1, 0.25]}
    )
    values = np.array([[0, 1], [7, 300]], np.uint16)
    expected = [[colours.map(int(value)) for value in row] for row in values]
    np.testing.assert_array_equal(colours.map(values), np.array(expected, np.float32))
    colours.use_selection, colours.selection = True, 7
    expected[0][1] = expected[0][0] = expected[1][1] = np.zeros(4)
    np.testing.assert_array_equal(colours.map(values), np.array(expected, np.float32))


def test_layers_of_a_step_are_made_one_by_one_and_only_those_that_are_shown(
    qtbot, dock, opened, own_cohort, in_turns
):
    opened(dock, own_cohort)
    board = dock.board
    qtbot.waitUntil(lambda: "Vessels" in board.specs and not dock.controller._tasks)
    qtbot.waitUntil(lambda: not board._turns._work)
    halted(board)
    board.show_steps(("uptake",))
    qtbot.waitUntil(lambda: bool(board._turns._work))
    counts = []
    for _ in range(3):  # it is made, added, and shown
        counts.append(
            (len(board.overlays()), any(one.visible for one in board.overlays().values()))
        )
        step(board)
    assert counts == [(0, False), (0, False), (1, False)]
    while board._turns._work:
        step(board)
    made = board.overlays()
    assert made
    assert all(layer.visible for layer in made.values())
    board.show_steps(("vessels",))
    qtbot.waitUntil(lambda: bool(board._turns._work))
    board.clear()  # the case is left meanwhile
    step(board)
    assert not board.present()


def test_what_was_drawn_by_hand_comes_layer_by_layer_and_the_newest_reading_counts(
    qtbot, dock, opened, own_cohort, in_turns, monkeypatch
):
    from napari_mosaik.view.spec import LayerSpec, placement_um
    from napari_mosaik.widgets.canvas import case_layers

    opened(dock, own_cohort)
    board = dock.board
    qtbot.waitUntil(lambda: bool(board.specs) and not dock.controller.is_reading)
    qtbot.waitUntil(lambda: not board._turns.is_busy)
    halted(board)

    def read_by_hand(value):
        specs = [
            LayerSpec(name, "image", np.full((4, 4), value), placement_um("cd34"), {})
            for name in "ab"
        ]
        monkeypatch.setattr(case_layers, "layers_by_hand", lambda *_: specs)
        known = len(board._turns._work)
        board.show_by_hand()
        qtbot.waitUntil(lambda: len(board._turns._work) > known)

    read_by_hand(1.0)
    step(board)
    assert board.layer("a") is not None
    assert board.layer("b") is None
    read_by_hand(2.0)
    while board._turns._work:
        step(board)
    assert [board.layer(name).data[0, 0] for name in "ab"] == [2.0, 2.0]
    dock.viewer.layers.remove(board.layer("b"))
    read_by_hand(3.0)
    while board._turns._work:
        step(board)
    assert board.layer("a").data[0, 0] == 3.0
    assert board.layer("b") is None  # what was removed does not come back
    read_by_hand(4.0)
    board.clear()  # the case is left meanwhile
    step(board)
    assert not board.present()


def test_results_read_again_unchanged_leave_the_maps_of_the_review(qtbot, dock, opened, own_cohort):
    from dataclasses import replace

    opened(dock, own_cohort)
    board = dock.side_by_side
    dock.show_review()
    cells = list(board._cells)
    data = dock.workspace.tile_data
    dock.workspace.tile_data = replace(data)
    assert board._cells == cells
    table = data.prediction
    columns = {name: np.array(table[name]) for name in table}
    columns["suv_norm"][2] += 0.1
    columns["suv"][2] += 0.1
    changed = type(table)(columns, table.units, table.about, table.frame)
    dock.workspace.tile_data = replace(data, prediction=changed)
    assert not set(cells) & set(board._cells)
