"""Case to case: nothing of the case before stays in memory."""

import gc
import weakref

import pytest
from qtpy.QtCore import QPoint, Qt

from napari_mosaik.widgets.base import gc_tuning
from napari_mosaik.widgets.canvas.camera import visible_um

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
    gc_tuning._collect_all()  # as soon as the mouse rests
    assert not _alive(known)


def test_what_is_shown_is_in_view_until_somebody_moves_it(dock, opened, cohort, qtbot):
    """Whichever comes first, and on a canvas that becomes narrower."""

    def all_in_view():
        low, high = visible_um(viewer)
        shown = [layer for layer in viewer.layers if layer.visible]
        extent = viewer.layers.get_extent(shown).world[:, -2:]
        return (low <= extent[0] + 1).all() and (high >= extent[1] - 1).all()

    viewer = dock.viewer
    opened(dock, cohort)
    qtbot.waitUntil(lambda: len(dock.board.slides) == 3 and all_in_view())
    height, width = viewer.canvas.size
    zoom = viewer.scene.camera.zoom
    viewer.canvas.size = (height // 2, width // 2)
    assert all_in_view()
    assert viewer.scene.camera.zoom < zoom
    viewer.canvas.size = (height, width)
    assert viewer.scene.camera.zoom == pytest.approx(zoom)
    viewer.scene.camera.zoom = 1.5 * zoom
    viewer.canvas.size = (height // 2, width // 2)
    viewer.canvas.size = (height, width)
    assert viewer.scene.camera.zoom == pytest.approx(1.5 * zoom)


def test_pages_are_built_piece_by_piece_and_label_images_without_tools(dock, opened, cohort, qtbot):
    """What a click would wait for is there before it; what nobody can use is not made."""
    opened(dock, cohort)
    qtbot.waitUntil(lambda: bool(dock.board.specs))
    page = dock.pages["Tissue and tiles"]
    qtbot.waitUntil(lambda: getattr(dock, "builds_ahead", False))
    known = set(page.sections)
    while known != set(page.names):
        assert page.prepare()
        assert len(page.sections) == len(known) + 1  # one at a time
        known = set(page.sections)
    assert page.body is None
    assert page.prepare()
    assert not page.prepare()
    sections, body = dict(page.sections), page.body
    assert not page.is_open
    page.set_open(True)
    assert page.sections == sections
    assert page.body is body
    assert all(section.state.text() for section in sections.values())
    assert all(section.isVisible() for section in sections.values())

    name = next(name for name, spec in dock.board.specs.items() if spec.kind == "labels")
    dock.board.set_shown(name, True)
    layer = dock.board.layer(name)
    assert layer.visible
    drawn = dock.viewer.window._qt_viewer.canvas._layer_overlay_to_visual[layer]
    assert not {"polygon", "brush_stroke"} & {
        kind for kind, overlay in layer._overlays.items() if overlay in drawn
    }


def test_pages_that_were_built_before_their_case_show_it_when_they_are_opened(
    dock, opened, cohort, qtbot
):
    pages = dock._all_pages()
    while any(page.prepare() for page in pages):
        assert not any(page.is_open for page in pages)
    assert all(page.body is not None for page in pages)
    opened(dock, cohort)
    qtbot.waitUntil(lambda: bool(dock.workspace.states) and bool(dock.board.specs))
    for page in pages:
        page.set_open(True)
        assert page.is_open
    for page in dock.pages.values():
        assert {name: section.form.value() for name, section in page.sections.items()} == {
            name: dock.workspace.recipe[name] for name in page.names
        }
    assert dock.case_page.contents.text()
    qtbot.waitUntil(lambda: dock.workspace.job is None and not dock.controller.is_reading)


def test_a_figure_is_made_when_it_is_seen(qtbot):
    from napari_mosaik.view.figure import new_figure
    from napari_mosaik.widgets.base.figure_view import FigureView

    made, view = [], FigureView()
    qtbot.addWidget(view)

    def draw():
        made.append(new_figure())
        return made[-1]

    view.show_when_seen(draw)
    view.show_when_seen(draw)
    assert not made
    view.show()
    qtbot.waitUntil(lambda: view.canvas is not None)
    assert len(made) == 1
    view.show_when_seen(draw)
    qtbot.waitUntil(lambda: len(made) == 2)


def test_a_click_into_a_picture_of_a_figure_is_told_in_its_data(qtbot, dock):
    from napari_mosaik.view.figure import new_figure
    from napari_mosaik.widgets.base.figure_view import FigureImage

    told = []
    view = FigureImage(dock.controller.read, lambda x, y: told.append((x, y)))
    qtbot.addWidget(view)
    view.resize(300, 200)

    def draw():
        figure = new_figure()
        figure.set_layout_engine("none")
        axes = figure.add_axes((0.25, 0.25, 0.5, 0.5))
        axes.set_xlim(0, 10)
        axes.set_ylim(-1, 1)
        return figure

    view.show_when_seen(draw)
    qtbot.mouseClick(view, Qt.MouseButton.LeftButton, pos=QPoint(150, 100))
    assert not told  # nothing is drawn yet
    view.show()
    qtbot.waitUntil(lambda: view.figure is not None)
    wide, high = view.width(), view.height()
    for x, y in ((0.5, 0.5), (0.3, 0.7), (0.1, 0.5)):  # the last one is beside the plot
        place = QPoint(round(x * wide), round(y * high))
        qtbot.mouseClick(view, Qt.MouseButton.LeftButton, pos=place)
    assert len(told) == 2
    assert told[0] == pytest.approx((5, 0), abs=0.1)
    assert told[1] == pytest.approx((1, -0.8), abs=0.1)
