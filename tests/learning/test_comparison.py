"""Two models on the same tiles: the interval of the difference is paired and knows the blocks."""

import numpy as np
import pytest

from napari_mosaik.core import InputError
from napari_mosaik.learning.comparison import mean_dice, paired_difference
from napari_mosaik.segment.metrics import class_calibration, class_metrics, confusion_matrix


def mean(sums):
    return sums[:, 0] / sums[:, 1]


def test_the_interval_is_that_of_the_mean_difference_over_blocks():
    rng = np.random.default_rng(0)
    block = np.repeat(np.arange(60), 5)
    common = np.repeat(rng.normal(10, 3, 60), 5)  # hard blocks are hard for both
    old, new = (common + shift + rng.normal(0, 0.5, 300) for shift in (0.0, -0.4))
    found = paired_difference(
        *(np.column_stack([values, np.ones(300)]) for values in (old, new)), block, mean
    )
    by_block = (new - old).reshape(60, 5).mean(axis=1)
    error = by_block.std(ddof=1) / np.sqrt(60)
    assert found["difference"] == pytest.approx(by_block.mean())
    assert found["low"] == pytest.approx(by_block.mean() - 1.96 * error, abs=0.25 * error)
    assert found["high"] == pytest.approx(by_block.mean() + 1.96 * error, abs=0.25 * error)
    assert found["high"] < 0  # unpaired, the spread of the blocks would hide it
    same = paired_difference(np.ones((8, 2)), np.ones((8, 2)), np.arange(8), mean)
    assert (same["low"], same["difference"], same["high"]) == (0, 0, 0)


def test_few_blocks_have_no_interval():
    found = paired_difference(np.ones((9, 2)), np.ones((9, 2)), np.arange(9) // 3, mean)
    assert (found["low"], found["high"], found["n_blocks"]) == (None, None, 3)
    with pytest.raises(InputError, match="cannot be compared"):
        paired_difference(np.ones((9, 2)), np.ones((8, 2)), np.arange(9), mean)


def test_dice_of_summed_counts_is_that_of_all_pixels():
    rng = np.random.default_rng(1)
    true, assigned = rng.integers(1, 4, (2, 10, 50))
    counts = np.array([confusion_matrix(a, b, 4) for a, b in zip(true, assigned, strict=True)])
    scores = class_metrics(confusion_matrix(true, assigned, 4)).dice
    assert mean_dice(counts.sum(axis=0)[None])[0] == pytest.approx(np.nanmean(scores))


def test_calibration_counts_how_often_a_confidence_is_right():
    probability = np.array([[0.95, 0.05]] * 8 + [[0.35, 0.65]] * 4)
    truth = np.array([1] * 6 + [2] * 2 + [2] * 3 + [1])
    found = class_calibration(truth, probability)
    assert found["error"] == pytest.approx((8 * (0.95 - 0.75) + 4 * (0.75 - 0.65)) / 12)
    assert [(one["accuracy"], one["n"]) for one in found["bins"]] == [(0.75, 4), (0.75, 8)]
