"""The review queue: order, reasons, missing data."""

import numpy as np
import pytest

from napari_mosaik.annotate import ReviewQueueParams, TileEvidence, rank_tiles
from napari_mosaik.core import InputError

ANYWHERE = ReviewQueueParams(apart_um=0)


def centres(n, pitch=300.0):
    return np.stack([np.zeros(n), np.arange(n) * pitch], 1)


def test_the_largest_error_comes_first_and_the_reason_says_which_way():
    evidence = TileEvidence(
        centres(4),
        measured=np.array([1.0, 1, 1, 1]),
        predicted=np.array([1.5, 0.1, 1, 3]),
        unit="g/mL",
    )
    queue = rank_tiles(evidence, ANYWHERE)
    assert [item.tile for item in queue] == [3, 1, 0]  # tile 2 is right: nothing to look at
    assert queue[0].reason == "predicted SUV 2 g/mL above the measured one"
    assert queue[1].reason == "predicted SUV 0.9 g/mL below the measured one"
    assert [item.priority for item in queue] == sorted((i.priority for i in queue), reverse=True)


def test_class_uncertainty_is_the_entropy():
    p = np.array([[1.0, 0, 0], [1 / 3] * 3, [0.5, 0.5, 0], [0.8, 0.1, 0.1]])
    queue = rank_tiles(TileEvidence(centres(4), class_probability=p), ANYWHERE)
    assert [item.tile for item in queue] == [1, 2, 3]
    assert "33 %" in queue[0].reason


def test_missing_numbers_gain_nothing_and_never_appear_in_words():
    evidence = TileEvidence(
        centres(3),
        measured=np.array([np.nan, 1, 1]),
        predicted=np.array([9.0, 1.2, np.nan]),
        class_probability=np.array([[np.nan] * 3, [0.9, 0.1, 0], [0.4, 0.3, 0.3]]),
    )
    queue = rank_tiles(evidence, ANYWHERE)
    assert {item.tile for item in queue} == {1, 2}
    assert not any("nan" in item.reason for item in queue)


def test_neighbours_wait_until_other_places_had_their_turn():
    error = np.array([0.0, 9, 10, 8, 0, 0, 0, 0, 5, 0])
    evidence = TileEvidence(centres(10), measured=np.zeros(10), predicted=error)
    queue = rank_tiles(evidence, ReviewQueueParams(apart_um=700, length=4))
    assert [item.tile for item in queue] == [2, 8, 1, 3]


def test_flagged_first_and_reviewed_never():
    evidence = TileEvidence(
        centres(4),
        measured=np.zeros(4),
        predicted=np.array([1.0, 2, 3, 4]),
        flagged=np.array([True, False, False, False]),
        reviewed=np.array([False, False, False, True]),
    )
    queue = rank_tiles(evidence, ANYWHERE)
    assert [item.tile for item in queue] == [0, 2, 1]
    assert queue[0].reason.startswith("flagged; ")
    bare = TileEvidence(centres(2), flagged=np.array([False, True]))
    assert [(item.tile, item.reason) for item in rank_tiles(bare)] == [(1, "flagged")]


def test_signals_are_weighed_by_rank_not_by_unit():
    evidence = TileEvidence(
        centres(3),
        measured=np.zeros(3),
        predicted=np.array([3.0, 2, 1]),
        interval_width=np.array([1e6, 2e6, 3e6]),
    )
    by_error = rank_tiles(evidence, ReviewQueueParams(apart_um=0, interval_weight=0.1))
    by_width = rank_tiles(evidence, ReviewQueueParams(apart_um=0, error_weight=0.1))
    assert [i.tile for i in by_error] == [0, 1, 2]
    assert [i.tile for i in by_width] == [2, 1, 0]


def test_length_ties_and_errors():
    evidence = TileEvidence(centres(5), measured=np.zeros(5), predicted=np.ones(5))
    assert [i.tile for i in rank_tiles(evidence, ReviewQueueParams(length=3, apart_um=0))] == [
        0,
        1,
        2,
    ]
    assert rank_tiles(TileEvidence(centres(3))) == []
    with pytest.raises(InputError, match="predicted"):
        rank_tiles(TileEvidence(centres(3), measured=np.zeros(3), predicted=np.zeros(2)))
