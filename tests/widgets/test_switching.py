"""Case to case: nothing of the case before stays in memory."""

import gc
import weakref

import pytest

pytestmark = pytest.mark.gui


def _alive(known):
    gc.collect()
    return sorted(type(one()).__name__ for one in known if one() is not None)


def _settled(dock, name):
    """Whether a case of that name is open, with slides, results and nothing being read."""
    case, board = dock.workspace.case, dock.board
    return (
        case is not None
        and case.root.name == name
        and board.slides.keys() == {"he", "cd34", "caix"}
        and bool(board.specs)
        and not dock.controller._tasks
    )


def test_a_case_that_is_left_leaves_nothing_behind(dock, opened, cohort, qtbot):
    """Layers, slides and files of a case go with it, whatever was shown of it."""
    from napari_mosaik.widgets.canvas import lazy_slide

    opened(dock, cohort)
    known = []
    for name in ("B8", "B11"):
        qtbot.waitUntil(lambda: not dock.controller._tasks and bool(dock.board.specs))
        space, board = dock.workspace, dock.board
        for overlay in list(board.specs)[:3]:
            board.set_shown(overlay, True)
        space.tile = 0
        dock.inspector.show()
        dock.view_tools.quad_view.enter()
        dock.side_by_side.enter()
        dock.pages["Vessels"].set_open(True)
        qtbot.wait(1)
        slides = [lazy.slide for lazy in board.slides.values()]
        held = [space.case, *dock.viewer.layers, *board.slides.values(), *slides]
        known += [weakref.ref(one) for one in held]
        del held, slides
        dock.controller.switch(cohort / name)
        qtbot.waitUntil(lambda name=name: _settled(dock, name))
    qtbot.waitUntil(lambda: not lazy_slide._closing)  # no thread reads from them any more
    assert not _alive(known)
