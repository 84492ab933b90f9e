"""The overview map: there and back, inside its frame, turned like the canvas."""

from itertools import product

import numpy as np
import pytest

from napari_mosaik.view.orientation import MapView, Turn

CORNERS = np.array(list(product((100.0, 2100.0), (-500.0, 3500.0))))


def all_turns():
    turn = Turn()
    for _ in range(4):
        turn = turn.clockwise()
        yield turn
        yield turn.mirrored()


@pytest.mark.parametrize("turn", list(all_turns()), ids=lambda turn: turn.words)
def test_the_slide_fills_the_map_and_every_place_comes_back(turn):
    view = MapView.fitting(CORNERS, turn, 200)
    assert view.size_px == ((200, 100) if turn.transposed else (100, 200))
    on_map = view.to_map(CORNERS)
    assert np.allclose(on_map.min(axis=0), 0)
    assert np.allclose(on_map.max(axis=0), view.size_px)
    places = np.random.default_rng(0).uniform(-1e4, 1e4, (9, 2))
    assert np.allclose(view.to_um(view.to_map(places)), places)


def test_the_visible_rectangle_is_cut_at_the_frame():
    view = MapView.fitting(CORNERS, Turn(), 200)
    assert view.rectangle((100, -500), (1100, 1500)) == pytest.approx((0, 0, 100, 50))
    assert view.rectangle((-9e3, -9e3), (9e3, 9e3)) == pytest.approx((0, 0, 200, 100))
    turned = MapView.fitting(CORNERS, Turn().clockwise(), 200)
    left, top, width, height = turned.rectangle((100, -500), (1100, 1500))
    assert (left, top, width, height) == pytest.approx((50, 0, 50, 100))


def test_a_map_of_a_thin_slide_can_still_be_clicked():
    thin = np.array([(0.0, 0.0), (10.0, 10_000.0)])
    assert MapView.fitting(thin, Turn(), 200).size_px == (8, 200)
