"""Kappa and Dice against scikit-learn and closed forms."""

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score

from napari_mosaik.annotate import compare_readers
from napari_mosaik.core import InputError


def test_against_scikit_learn():
    rng = np.random.default_rng(1)
    a = rng.integers(1, 4, (40, 50))
    b = np.where(rng.random(a.shape) < 0.7, a, rng.integers(1, 4, a.shape))
    found = compare_readers(a, b)
    assert found.kappa == pytest.approx(cohen_kappa_score(a.ravel(), b.ravel()))
    dice = f1_score(a.ravel(), b.ravel(), average=None, labels=[1, 2, 3])
    assert [found.dice[c] for c in (1, 2, 3)] == pytest.approx(list(dice))
    assert found.n_compared == 2000
    assert found.observed == pytest.approx((a == b).mean())


def test_by_hand():
    # 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: observed 0.7, expected 0.5, kappa 0.4
    a = np.repeat([2, 2, 3, 3], [20, 5, 10, 15])
    b = np.repeat([2, 3, 2, 3], [20, 5, 10, 15])
    found = compare_readers(a, b)
    assert found.observed == pytest.approx(0.7)
    assert found.kappa == pytest.approx(0.4)
    assert found.dice == pytest.approx({2: 40 / 55, 3: 30 / 45})


def test_samples_that_one_reader_left_out_are_counted_not_compared():
    a = np.array([1.0, 1.0, 2.0, np.nan, 2.0, np.nan])
    b = np.array([1.0, 0.0, 2.0, 2.0, np.nan, np.nan])
    found = compare_readers(a, b)
    assert (found.n_compared, found.n_excluded) == (2, 3)
    assert found.kappa == 1.0


def test_the_same_for_either_order_and_any_names():
    rng = np.random.default_rng(2)
    a, b = rng.integers(1, 4, (2, 300))
    assert compare_readers(a, b).kappa == pytest.approx(compare_readers(b, a).kappa)
    swap = np.array([0, 7, 5, 6])
    assert compare_readers(swap[a], swap[b]).kappa == pytest.approx(compare_readers(a, b).kappa)


def test_no_common_sample_and_one_class_have_no_kappa():
    none = compare_readers([0, 1], [1, 0])
    assert none.n_compared == 0
    assert math.isnan(none.kappa)
    assert math.isnan(none.observed)
    one = compare_readers([2, 2], [2, 2])
    assert math.isnan(one.kappa)
    assert one.dice == {2: 1.0}


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="shapes"):
        compare_readers([1, 2], [1, 2, 3])
    with pytest.raises(InputError, match="whole"):
        compare_readers([1.5], [1.0])
