"""All eight orientations of the view, each against numpy turning a picture."""

import numpy as np
import pytest

from napari_mosaik.view.orientation import Turn

PICTURE = np.arange(6).reshape(2, 3)


def shown(turn):
    """What a screen shows of the picture: sample by sample through the matrix."""
    rows, columns = np.indices(PICTURE.shape)
    at = turn.matrix @ np.stack([rows.ravel(), columns.ravel()])
    at = (at - at.min(axis=1, keepdims=True)).astype(int)
    out = np.zeros(at.max(axis=1) + 1, int)
    out[tuple(at)] = PICTURE.ravel()
    return out


def test_turning_and_mirroring_are_those_of_numpy():
    assert np.array_equal(shown(Turn()), PICTURE)
    assert np.array_equal(shown(Turn().clockwise()), np.rot90(PICTURE, -1))
    assert np.array_equal(shown(Turn().anticlockwise()), np.rot90(PICTURE))
    assert np.array_equal(shown(Turn().mirrored()), np.fliplr(PICTURE))
    both = Turn().clockwise().mirrored()
    assert np.array_equal(shown(both), np.fliplr(np.rot90(PICTURE, -1)))


def test_there_are_eight_and_each_comes_back_from_what_napari_is_told():
    turns, turn = set(), Turn()
    for _ in range(4):
        turn = turn.clockwise()
        turns |= {turn, turn.mirrored()}
        assert turn.clockwise().anticlockwise() == turn
        assert turn.mirrored().mirrored() == turn
    assert turn == Turn()
    assert len(turns) == 8
    assert len({turn.words for turn in turns}) == 8
    for turn in turns:
        assert Turn.of_view(turn.order(2), turn.orientation) == turn
        assert turn.order(3)[0] == 0


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (Turn(), "as scanned"),
        (Turn().clockwise(), "rotated 90° clockwise"),
        (Turn().clockwise().mirrored(), "rotated 90° clockwise, mirrored"),
        (Turn().clockwise().clockwise(), "rotated 180°"),
    ],
)
def test_words(turn, words):
    assert turn.words == words
