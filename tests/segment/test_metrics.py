"""Scores against small cases by hand and a second library."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, precision_score, recall_score

from napari_mosaik.core import InputError
from napari_mosaik.segment.metrics import class_metrics, confusion_matrix, object_scores


def test_class_scores_equal_scikit_learn():
    rng = np.random.default_rng(0)
    truth = rng.integers(1, 4, 500)
    found = np.where(rng.random(500) < 0.7, truth, rng.integers(1, 4, 500))
    scores = class_metrics(confusion_matrix(truth, found, 3))
    options = {"labels": [1, 2, 3], "average": None}
    np.testing.assert_allclose(scores.dice, f1_score(truth, found, **options))
    np.testing.assert_allclose(scores.iou, jaccard_score(truth, found, **options))
    np.testing.assert_allclose(scores.precision, precision_score(truth, found, **options))
    np.testing.assert_allclose(scores.recall, recall_score(truth, found, **options))
    rest = [accuracy_score(truth == k, found == k) for k in (1, 2, 3)]
    np.testing.assert_allclose(scores.accuracy, rest)
    assert scores.overall == pytest.approx(accuracy_score(truth, found))
    assert scores.overall == pytest.approx(1 - (1 - scores.accuracy).sum() / 2)


def test_small_confusion_by_hand_and_absent_classes():
    scores = class_metrics([[8, 2, 0], [1, 9, 0], [0, 0, 0]])
    np.testing.assert_allclose(scores.dice, [16 / 19, 18 / 21, np.nan])
    np.testing.assert_allclose(scores.precision, [8 / 9, 9 / 11, np.nan])
    np.testing.assert_allclose(scores.accuracy, [0.85, 0.85, np.nan])
    never_found = class_metrics([[5, 0], [3, 0]])
    assert np.isnan(never_found.precision[1])
    assert never_found.recall[1] == 0


def test_unlabelled_pixels_are_left_out():
    counts = confusion_matrix([0, 1, 2, 2], [1, 1, 0, 1], 2)
    assert counts.tolist() == [[1, 0], [1, 0]]


def test_object_scores_by_hand():
    truth = np.zeros((10, 20), int)
    truth[0:4, 0:4] = 7  # 16 pixels
    truth[6:10, 0:4] = 3
    found = np.zeros_like(truth)
    found[0:4, 1:5] = 1  # shares 12 of 20: IoU 0.6
    found[6:10, 2:6] = 2  # shares 8 of 24: IoU 1/3
    found[0:2, 10:12] = 9  # false
    scores = object_scores(truth, found)
    assert (scores.n_true, scores.n_found, scores.n_matched) == (2, 3, 1)
    assert scores.f1 == pytest.approx(2 / 5)
    assert scores.aji == pytest.approx((12 + 8) / (20 + 24 + 4))


def test_perfect_empty_and_missed_objects():
    labels = np.kron(np.arange(6).reshape(2, 3), np.ones((3, 3), int))
    same = object_scores(labels, labels[::-1, ::-1][::-1, ::-1] * 11)
    assert same.f1 == same.aji == same.precision == same.recall == 1
    nothing = np.zeros((6, 9), int)
    missed = object_scores(labels, nothing)
    assert missed.f1 == missed.aji == missed.recall == 0
    assert np.isnan(missed.precision)
    assert np.isnan(object_scores(nothing, nothing).f1)
    assert np.isnan(object_scores(nothing, nothing).aji)


def test_scores_do_not_depend_on_numbers():
    rng = np.random.default_rng(1)
    truth, found = rng.integers(0, 30, (2, 40, 40)) // 3
    table = np.r_[0, rng.permutation(np.arange(1, 200))]
    assert object_scores(truth, found) == object_scores(table[truth], table[found])


def test_wrong_input_is_told():
    with pytest.raises(InputError, match=r"0\.5"):
        object_scores(np.zeros((2, 2)), np.zeros((2, 2)), 0.3)
    with pytest.raises(InputError, match="square"):
        class_metrics([[1, 2]])
    with pytest.raises(InputError, match="compared"):
        confusion_matrix([1], [1, 2], 2)


def test_the_record_names_the_classes_and_leaves_absent_ones_empty():
    record = class_metrics([[8, 2, 0], [1, 9, 0], [0, 0, 0]]).to_dict(("a", "b", "c"))
    assert record["classes"]["a"]["dice"] == pytest.approx(16 / 19)
    assert set(record["classes"]["c"].values()) == {None}
    assert record["overall"] == pytest.approx(0.85)
    assert class_metrics(np.zeros((2, 2))).to_dict(("a", "b"))["overall"] is None
