"""The picture of a slide on the canvas answers at once, sharpens, and changes no result."""

import threading

import numpy as np
import pytest

from napari_mosaik.core import InputError, Lattice, Raster
from napari_mosaik.core.colour import stain_density, stain_matrix
from napari_mosaik.io.slide.read.resample import block_mean
from napari_mosaik.view.display_settings import (
    STAINS_OF_SLIDE,
    DisplaySettings,
    apply_display,
    stains_of,
)
from napari_mosaik.view.tile_loader import PieceReaders
from napari_mosaik.view.tile_pyramid import LevelWindow, SlideLevels, levels_of


class Painted:
    """A slide in memory that can hold its readers back at a gate."""

    def __init__(self, shape=(2300, 3101), seed=0):
        rng = np.random.default_rng(seed)
        small = rng.integers(0, 256, (shape[0] // 50 + 1, shape[1] // 50 + 1, 3), np.uint8)
        self.pixels = small.repeat(50, 0).repeat(50, 1)[: shape[0], : shape[1]].copy()
        self.lattice = Lattice("slide", shape, (0.5, 0.5))
        self.levels = ((shape, (1.0, 1.0)),)
        self.gate = threading.Event()
        self.gate.set()
        self.read = []
        self.closed = threading.Event()

    def read_lattice(self, lattice):
        self.gate.wait(30)
        k = round(lattice.spacing_um[0] / 0.5)
        top, left = (
            round(o / s) * k for o, s in zip(lattice.origin_um, lattice.spacing_um, strict=True)
        )
        part = self.pixels[top : top + lattice.shape[0] * k, left : left + lattice.shape[1] * k]
        self.read.append((k, top, left))
        return Raster(block_mean(np.ascontiguousarray(part), k, k), lattice)

    def close(self):
        self.closed.set()


# --- levels and pieces --------------------------------------------------------------------------
def test_levels_double_until_one_fits_and_pieces_shrink_where_decoding_is_dear():
    slide = Painted((100, 100))
    slide.lattice = Lattice("slide", (40_001, 30_000), (0.5, 0.25))
    slide.levels = (((40_001, 30_000), (1.0, 1.0)), ((10_000, 7_500), (4.0001, 4.0)))
    levels = levels_of(slide)
    assert [lattice.shape for lattice in levels.lattices[:2]] == [
        (40_001, 30_000),
        (20_000, 15_000),
    ]
    assert levels.lattices[-1].shape == (625, 468)
    assert levels.lattices[3].spacing_um == (4.0, 2.0)
    assert levels.steps == (1, 2, 1, 2, 4, 8, 16)
    assert levels.edges == (512, 512, 512, 512, 512, 256, 128)


def known(levels: SlideLevels, slide, chosen):
    """The pieces of some levels as they are read from the slide."""
    return {
        piece: slide.read_lattice(levels.lattice(piece)).values
        for level in chosen
        for piece in levels.pieces(levels.whole(level))
    }


@pytest.mark.parametrize("seed", range(6))
def test_a_window_is_exact_where_pieces_are_there_and_coarser_elsewhere(seed):
    rng = np.random.default_rng(seed)
    slide = Painted(tuple(rng.integers(2100, 3300, 2).tolist()), seed)
    levels = levels_of(slide)
    last = len(levels.lattices) - 1
    coarsest = slide.read_lattice(levels.lattices[last]).values
    pieces = known(levels, slide, range(last))
    keep = {piece: pixels for piece, pixels in pieces.items() if rng.random() < 0.5}
    level = int(rng.integers(0, last))
    shape = levels.lattices[level].shape
    top, left = (int(rng.integers(0, n // 2)) for n in shape)
    bottom, right = (int(rng.integers(n // 2, n)) + 1 for n in shape)
    window = LevelWindow(level, top, left, bottom, right)
    pixels, missing, _ = levels.compose(window, keep.get, coarsest)

    expected = np.empty((*window.shape, 3), np.uint8)
    whole = [
        coarsest if n == last else slide.read_lattice(levels.lattices[n]).values
        for n in range(last + 1)
    ]
    for r in range(0, window.shape[0], 7):  # pixel by pixel, the slow way
        for c in range(0, window.shape[1], 7):
            for n in range(level, last + 1):
                row = min((top + r) >> (n - level), levels.lattices[n].shape[0] - 1)
                column = min((left + c) >> (n - level), levels.lattices[n].shape[1] - 1)
                edge = levels.edges[n]
                if n == last or (n, row // edge, column // edge) in keep:
                    expected[r, c] = whole[n][row, column]
                    break
    assert np.array_equal(pixels[::7, ::7], expected[::7, ::7])
    assert set(missing) == {p for p in levels.pieces(window) if p not in keep}


def test_what_is_nearest_to_the_centre_is_read_first_and_coarser_before_it_where_all_is_bare():
    slide = Painted((100, 100))
    shape = (40_000, 40_000)
    slide.lattice = Lattice("slide", shape, (0.5, 0.5))
    slide.levels = tuple(
        ((shape[0] // k, shape[1] // k), (float(k), float(k))) for k in (1, 4, 16, 64)
    )
    levels = levels_of(slide)
    window = LevelWindow(0, 10_000, 10_000, 11_000, 12_500)
    missing = levels.pieces(window)
    order = levels.wanted(window, missing, missing)
    coarse = [piece for piece in order if piece[0] == 2]
    assert order[: len(coarse)] == coarse
    assert {piece[1:] for piece in coarse} == {(i, j) for i in (4, 5) for j in (4, 5, 6)}
    fine = [levels.window(piece) for piece in order[len(coarse) :]]
    away = [(w.top + 256 - 10_500) ** 2 + (w.left + 256 - 11_250) ** 2 for w in fine]
    assert away == sorted(away)
    assert levels.wanted(window, missing, []) == order[len(coarse) :]
    slide.levels = slide.levels[:1]  # nothing coarser is stored: it would cost sixteen times more
    assert all(piece[0] == 0 for piece in levels_of(slide).wanted(window, missing, missing))


# --- reading ------------------------------------------------------------------------------------
def test_a_new_wish_replaces_the_old_one_and_closing_waits_for_the_thread_that_reads():
    began, gate, read, ended = threading.Event(), threading.Event(), [], threading.Event()
    last = threading.Event()

    def take(piece):
        began.set()
        gate.wait(30)
        read.append(piece)
        if piece == (3, 0, 0):
            last.set()

    readers = PieceReaders(threads=1)
    lane = readers.lane(take)
    lane.want([(0, 0, 0), (0, 0, 1), (0, 0, 2)])
    assert began.wait(30)
    lane.want([(0, 5, 5)])
    lane.later([(3, 0, 0)])
    lane.first([(4, 0, 0)])
    assert lane.generation == 2
    assert lane.waiting == 3
    done = threading.Event()
    other = readers.lane(lambda _piece: done.set())
    other.later([(0, 9, 9)])
    gate.set()
    assert done.wait(30)
    assert last.wait(30)  # of two lanes, the other one may come first: nothing is at the gate now
    gate.clear()
    began.clear()
    lane.want([(0, 7, 7), (0, 8, 8)])
    assert began.wait(30)
    lane.close(ended.set)
    assert not ended.is_set()
    gate.set()
    assert ended.wait(30)
    readers.close()
    assert read == [(0, 0, 0), (4, 0, 0), (0, 5, 5), (3, 0, 0), (0, 7, 7)]


# --- the look -----------------------------------------------------------------------------------
def test_a_neutral_look_hands_out_the_very_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    assert apply_display(pixels, DisplaySettings()) is pixels


def test_brightness_contrast_and_gamma_follow_their_formula():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    before = pixels.copy()
    got = apply_display(pixels, DisplaySettings(brightness=0.1, contrast=1.5, gamma=0.8))
    level = ((pixels / 255 - 0.5) * 1.5 + 0.5 + 0.1).clip(0, 1) ** 0.8 * 255
    assert np.abs(got - level).max() <= 0.5 + 1e-9
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize(("slide", "stain"), [("he", "eosin"), ("cd34", "dab"), ("", "dab")])
def test_a_stain_alone_is_its_density_placed_over_white(slide, stain):
    pixels = np.random.default_rng(1).integers(30, 256, (40, 50, 3), np.uint8)
    vectors = STAINS_OF_SLIDE[slide]
    got = apply_display(pixels, DisplaySettings(stain=stain, vectors=vectors))
    names = [name for name, _ in vectors]
    matrix = stain_matrix(*[vector for _, vector in vectors])
    amount = stain_density(pixels, matrix)[..., names.index(stain)].clip(0, np.log(240))
    unit = matrix[:, names.index(stain)]
    assert np.abs(got - 255 * np.exp(-amount[..., None] * unit)).max() < 1.5


def test_the_stains_of_a_slide_are_its_own_where_they_were_found():
    own = {"haematoxylin": [0.6, 0.7, 0.4], "eosin": [0.2, 0.9, 0.3], "source": "slide"}
    assert stains_of("he", own) == (("haematoxylin", (0.6, 0.7, 0.4)), ("eosin", (0.2, 0.9, 0.3)))
    assert stains_of("he") == STAINS_OF_SLIDE["he"]
    assert stains_of("cd34", own) == (("haematoxylin", (0.6, 0.7, 0.4)), STAINS_OF_SLIDE["cd34"][1])
    assert [name for name, _ in stains_of("scan.svs")] == ["haematoxylin", "eosin", "dab"]


def test_impossible_settings_are_named():
    with pytest.raises(InputError, match=r"gamma must lie between 0\.2 and 5, not 9"):
        DisplaySettings(gamma=9)
    with pytest.raises(InputError, match="no stain 'eosin'"):
        DisplaySettings(stain="eosin", vectors=STAINS_OF_SLIDE["cd34"])


# --- in the window ------------------------------------------------------------------------------
@pytest.fixture
def lazy(qtbot):
    """A lazy slide whose reader is held back until the gate opens."""
    from napari_mosaik.widgets.canvas.lazy_slide import LazySlide

    slide = Painted()
    slide.gate.clear()
    made = LazySlide(slide)
    yield made
    slide.gate.set()
    made.close()
    assert slide.closed.wait(30)


@pytest.mark.gui
def test_the_array_answers_before_anything_is_read_and_sharpens_afterwards(lazy, qtbot):
    level = lazy.levels()[0]
    first = level[100:400, 1000:1500]
    assert first.shape == (300, 500, 3)
    assert len(np.unique(first)) == 1
    assert not lazy.slide.read
    exact = lazy.slide.pixels[100:400, 1000:1500]
    with qtbot.waitSignal(lazy.arrived, timeout=20_000):
        lazy.slide.gate.set()
    qtbot.waitUntil(lambda: np.array_equal(level[100:400, 1000:1500], exact), timeout=20_000)
    one = level[250, 1200, 1]
    assert one == lazy.slide.pixels[250, 1200, 1]
    assert np.array_equal(level[100:400:3, ..., 0][:, 1000:1500], exact[::3, :, 0])


@pytest.mark.gui
def test_the_coarsest_level_fills_in_place_and_keeps_its_look(lazy, qtbot):
    coarsest = lazy.levels()[-1]
    assert coarsest is lazy.coarsest
    lazy.slide.gate.set()
    assert lazy.settle(20)
    k = 1 << (len(lazy.lattices) - 1)
    raw = block_mean(lazy.slide.pixels, k, k)
    assert np.array_equal(coarsest, raw)
    settings = DisplaySettings(gamma=2.0)
    with qtbot.waitSignal(lazy.arrived):
        lazy.set_display(settings)
    assert np.array_equal(coarsest, apply_display(raw, settings))
    lazy.set_display(DisplaySettings())
    assert np.array_equal(coarsest, raw)


@pytest.mark.gui
def test_a_whole_level_is_refused_instead_of_filling_the_memory(lazy, monkeypatch):
    from napari_mosaik.widgets.canvas import lazy_slide

    monkeypatch.setattr(lazy_slide, "MAX_PIXELS", 1000)
    lazy.slide.path = type("P", (), {"name": "he.svs"})
    with pytest.raises(InputError, match="more than the screen needs"):
        np.asarray(lazy.levels()[0])


@pytest.mark.gui
def test_a_piece_that_cannot_be_read_stays_coarse_and_is_told_once(lazy, qtbot, monkeypatch):
    def broken(_lattice):
        raise InputError("the tile at row 0 cannot be decoded")

    told = []
    lazy.damaged.connect(told.append)
    monkeypatch.setattr(lazy.slide, "read_lattice", broken)  # a thread may begin only now
    lazy.slide.gate.set()
    lazy.levels()[0][0:100, 0:100]
    qtbot.waitUntil(lambda: bool(told) and (0, 0, 0) in lazy._failed, timeout=20_000)
    assert told == ["the tile at row 0 cannot be decoded"]
    lazy.levels()[0][0:100, 0:100]
    assert lazy._lane.waiting == 0


@pytest.mark.gui
def test_of_two_threads_that_fail_at_the_same_time_one_tells_it(lazy):
    """The first thread is held where it looks for earlier failures until the second comes there."""
    from qtpy.QtWidgets import QApplication

    met, told, lock = threading.Event(), [], threading.Lock()

    class Failed(set):
        looked = 0

        def __len__(self):
            Failed.looked, found = Failed.looked + 1, super().__len__()
            if Failed.looked == 1:
                second.start()
                assert met.wait(30)
            else:
                met.set()
            return found

    class Door:
        """A lock that tells when the second thread waits at it."""

        def __enter__(self):
            if threading.current_thread() is second:
                met.set()
            lock.acquire()

        def __exit__(self, *_):
            lock.release()

    lazy._failed, lazy._failing = Failed(), Door()
    error = InputError("the disk cannot be read")
    second = threading.Thread(target=lazy._fail, args=((0, 0, 1), error))
    lazy.damaged.connect(told.append)
    lazy._fail((0, 0, 0), error)
    second.join(30)
    QApplication.processEvents()
    assert told == ["the disk cannot be read"]


@pytest.fixture
def viewer(qtbot, tmp_path, monkeypatch):
    """A napari window, closed afterwards."""
    monkeypatch.setenv("NAPARI_CONFIG", str(tmp_path / "napari-settings.yaml"))
    import napari

    made = napari.Viewer(show=False)
    yield made
    made.close()


@pytest.mark.gui
def test_the_panel_follows_the_slide_on_top_and_each_slide_keeps_its_look(viewer, qtbot):
    from napari_mosaik.view.layers import slide_layer
    from napari_mosaik.widgets.canvas.lazy_slide import LazySlide, attend
    from napari_mosaik.widgets.canvas.slide_view import SlideView

    panel = SlideView(viewer)
    qtbot.addWidget(panel)
    assert not panel.stain.isEnabled()
    files = [Painted(seed=1), Painted(seed=2)]
    slides = []
    for name, file, kind in (("CD34", files[0], "cd34"), ("H&E", files[1], "he")):
        lazy = LazySlide(file, stains=STAINS_OF_SLIDE[kind])
        attend(lazy, viewer)
        spec = slide_layer(name, lazy.levels(), lazy.lattices[0])
        data, options, _ = spec.as_layer_data()
        viewer.add_image(data, **options)
        slides.append(lazy)
    assert panel.slide is slides[1]
    assert [panel.which.itemText(i) for i in range(panel.which.count())] == ["H&E", "CD34"]
    panel.which.activated.emit(1)
    assert panel.slide is slides[0]
    panel.which.activated.emit(0)
    assert [panel.stain.itemData(i) for i in range(3)] == ["", "haematoxylin", "eosin"]
    panel.sliders["gamma"].slider.setValue(50)
    qtbot.waitUntil(lambda: slides[1].settings.gamma == 5**0.5, timeout=20_000)
    panel.stain.setCurrentIndex(2)
    panel.stain.activated.emit(2)
    assert slides[1].settings.stain == "eosin"

    viewer.layers["H&E"].visible = False
    assert panel.slide is slides[0]
    assert panel.sliders["gamma"].slider.value() == 0
    assert panel.stain.itemData(2) == "dab"
    assert slides[0].settings.neutral
    viewer.layers["H&E"].visible = True
    assert panel.sliders["gamma"].slider.value() == 50
    assert panel.stain.currentData() == "eosin"

    with qtbot.waitSignal(slides[1].arrived):
        panel.reset()
    assert slides[1].settings.neutral
    assert panel.sliders["gamma"].slider.value() == 0
    viewer.layers.clear()
    assert panel.slide is None
    assert all(file.closed.wait(30) for file in files)  # with their last layers


@pytest.mark.gui
def test_the_canvas_shows_the_pixels_once_they_are_read(viewer, qtbot):
    from napari_mosaik.view.layers import slide_layer
    from napari_mosaik.widgets.canvas.lazy_slide import LazySlide, attend

    file = Painted((1500, 1500))
    lazy = LazySlide(file)
    attend(lazy, viewer)
    data, options, _ = slide_layer("H&E", lazy.levels(), lazy.lattices[0]).as_layer_data()
    layer = viewer.add_image(data, **options)
    corners = np.array([[100, 200], [700, 900]])
    layer._update_draw(1.0, corners * 0.5, np.array([600, 700]))

    def sharp():
        at, level = layer.corner_pixels, layer.data_level
        raw = layer._slice.image.raw
        part = file.pixels[at[0, 0] : at[1, 0] + 1, at[0, 1] : at[1, 1] + 1]
        return level == 0 and np.array_equal(raw, part)

    qtbot.waitUntil(sharp, timeout=20_000)
    viewer.layers.clear()
    assert file.closed.wait(30)


@pytest.mark.gui
def test_pixels_that_were_read_redraw_the_layers_of_their_slide_only(viewer, monkeypatch):
    from napari_mosaik.view.layers import slide_layer
    from napari_mosaik.widgets.canvas import lazy_slide

    slides = []
    for name in ("CD34", "H&E"):
        slides.append(lazy_slide.LazySlide(Painted()))
        lazy_slide.attend(slides[-1], viewer)
        spec = slide_layer(name, slides[-1].levels(), slides[-1].lattices[0])
        data, options, _ = spec.as_layer_data()
        viewer.add_image(data, **options)
    drawn = []
    monkeypatch.setattr(lazy_slide, "redraw", lambda layer, *_: drawn.append(layer.name))
    slides[0].arrived.emit(False)
    assert drawn == ["CD34"]
    viewer.layers.clear()
