"""Labels of objects on the canvas: nothing is read in the window's thread, nor beyond the view."""

import threading

import numpy as np
import pytest

from napari_mosaik.core import LabelImage, Lattice
from napari_mosaik.view.label_levels import INSIDE, OUTLINE, LabelLevels
from napari_mosaik.view.tile_loader import PieceReaders

pytestmark = pytest.mark.gui


class Stored:
    """Stored labels: which thread read them, and a part that is damaged."""

    def __init__(self, values, damaged=False):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.damaged, self.readers = damaged, []

    def __getitem__(self, key):
        self.readers.append(threading.current_thread())
        if self.damaged:
            raise ValueError("chunk 0/1 is damaged")
        return self.values[key]


def stored(damaged=False):
    whole = np.zeros((1500, 2600), np.int32)
    for number in range(600):
        row, col = 50 * (number // 26), 100 * (number % 26)
        whole[row + 10 : row + 30, col + 20 : col + 50] = number + 1
    levels = [Stored(whole[:: 2**k, :: 2**k], damaged and k == 0) for k in range(3)]
    lattice = Lattice("he", whole.shape, (0.5, 0.5))
    return LabelImage(levels[0], lattice, levels=tuple(levels[1:])), whole


@pytest.fixture
def shown(qtbot):
    """Makes the labels of a window; they are closed after the test."""
    from napari_mosaik.widgets.canvas.lazy_labels import LazyObjects

    made, readers = [], PieceReaders()

    def make(image):
        made.append(LazyObjects(LabelLevels(image), readers))
        return made[-1]

    yield make
    for lazy in made:
        lazy.close()
    readers.close()


def test_a_level_answers_at_once_and_is_complete_when_it_was_read(shown, qtbot):
    image, whole = stored()
    lazy = shown(image)
    level = lazy.levels()[0]
    with qtbot.waitSignal(lazy.arrived):
        first = level[slice(0, 400), slice(0, 700)]
    assert first.shape == (400, 700)
    qtbot.waitUntil(lambda: not lazy.pieces.compose(0, *AREA, lazy._find)[1])
    codes = level[AREA]
    assert ((codes > 0) == (whole[AREA] > 0)).all()
    assert codes[10, 20] == OUTLINE
    assert codes[15, 30] == INSIDE
    assert threading.main_thread() not in image.values.readers


AREA = (slice(0, 400), slice(0, 700))


def test_what_lies_around_the_view_is_read_too_but_no_more_twice(shown, qtbot):
    image, _ = stored()
    lazy = shown(image)
    level = lazy.levels()[0]
    _ = level[AREA]
    near = [(0, i, j) for i in (0, 1) for j in (0, 1)]
    qtbot.waitUntil(lambda: all(lazy._find(piece) is not None for piece in near))
    assert lazy._find((0, 0, 2)) is None  # beyond the pieces next to those in view
    reads = len(image.values.readers)
    _ = level[slice(200, 600), slice(100, 900)]
    qtbot.waitUntil(lambda: not lazy._lane.waiting)
    assert len(image.values.readers) == reads


def test_a_damaged_piece_is_told_once_and_not_read_again(shown, qtbot):
    image, _ = stored(damaged=True)
    lazy = shown(image)
    level = lazy.levels()[0]
    with qtbot.waitSignal(lazy.damaged) as told:
        assert not level[AREA].any()
    assert told.args == ["chunk 0/1 is damaged"]
    qtbot.waitUntil(lambda: not lazy._lane.waiting and len(lazy._failed) == 4)
    reads = len(image.values.readers)
    _ = level[AREA]
    qtbot.waitUntil(lambda: not lazy._lane.waiting)
    assert len(image.values.readers) == reads


def test_a_layer_draws_the_outlines_and_tells_the_label_under_a_pixel(shown, qtbot):
    from napari.layers import Labels

    from napari_mosaik.widgets.canvas.lazy_labels import dress_codes, lazy_objects_of

    image, whole = stored()
    lazy = shown(image)
    layer = Labels(lazy.levels(), multiscale=True)
    layer.contour = 1
    dress_codes(layer)
    assert lazy_objects_of(layer) is lazy
    layer._update_draw(1.0, np.array([[0, 0], [350, 600]]), (300, 500))
    qtbot.waitUntil(lambda: not lazy.pieces.compose(0, *AREA, lazy._find)[1])
    layer.refresh()
    assert set(np.unique(layer._slice.image.view)) == {0, OUTLINE}
    layer.contour = 0
    assert set(np.unique(layer._slice.image.view)) == {0, INSIDE, OUTLINE}
    assert layer.get_value((15, 130)) == (0, whole[15, 130]) == (0, 2)
    assert layer.get_value((15, 5)) == (0, 0)


def test_a_closed_window_forgets_the_pieces(shown, qtbot):
    image, _ = stored()
    lazy = shown(image)
    with qtbot.waitSignal(lazy.arrived):
        _ = lazy.levels()[0][AREA]

    def idle():
        with lazy._lane._readers._lock:  # between two pieces none is being read, but more waits
            return not lazy._lane.waiting and not lazy._lane._busy

    qtbot.waitUntil(idle)
    assert lazy._find((0, 0, 0)) is not None
    lazy.close()
    assert lazy._find((0, 0, 0)) is None


def test_what_was_closed_while_it_is_read_is_deleted_in_the_thread_of_the_window(qtbot):
    """Its timers belong to that thread: elsewhere the program may end without a word."""
    from napari_mosaik.widgets.canvas import lazy_labels, lazy_slide

    began, gate, deleted = threading.Event(), threading.Event(), []

    class Slow(Stored):
        def __getitem__(self, key):
            if threading.current_thread() is not threading.main_thread():
                began.set()
                gate.wait(30)
            return super().__getitem__(key)

    class Watched(lazy_labels.LazyObjects):
        def __del__(self):
            deleted.append(threading.current_thread())

    image, whole = stored()
    slow = LabelImage(Slow(whole), image.lattice, levels=image.levels)
    readers = PieceReaders(threads=1)
    lazy = Watched(LabelLevels(slow), readers)
    _ = lazy.levels()[0][AREA]
    assert began.wait(30)
    lazy.close()
    lazy.close()
    del lazy, _
    assert not deleted
    gate.set()
    qtbot.waitUntil(lambda: bool(deleted))
    assert deleted == [threading.main_thread()]
    qtbot.waitUntil(lambda: not lazy_slide._closing)  # also what other tests have closed
    readers.close()


@pytest.mark.parametrize(("moves", "end", "chosen"), [
    ([], (10, 12), True), ([(11, 11)], (10, 12), True),
    ([], (200, 90), False), ([(40, 30)], (10, 10), False),
])  # fmt: skip
def test_a_drag_selects_no_tile_even_if_the_window_got_only_its_end(moves, end, chosen):
    from types import SimpleNamespace

    from napari_mosaik.widgets.canvas.link import CanvasLink

    tiles = []
    event = SimpleNamespace(
        type="mouse_press", button=1, modifiers=(), pos=(10, 10), position=(5, 6)
    )
    press = CanvasLink._pressed(SimpleNamespace(active_tool=None, choose=tiles.append), None, event)
    next(press)
    steps = [("mouse_move", at) for at in moves] + [("mouse_release", end)]
    for event.type, event.pos in steps:
        next(press, None)
    assert tiles == ([(5.0, 6.0)] if chosen else [])
