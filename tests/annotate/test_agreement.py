"""Kappa and Dice against scikit-learn and closed forms."""

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score

from napari_mosaik.annotate import TileConfusion, pair_agreement
from napari_mosaik.annotate.agreement import agreement_of, kappa_of


def agreement(first, second):
    """That of two arrays of classes; 0 where a reader gave none."""
    a, b = np.asarray(first), np.asarray(second)
    codes = np.union1d(a[a > 0], b[b > 0])
    counts = [[int(((a == one) & (b == other)).sum()) for other in codes] for one in codes]
    return agreement_of(tuple(map(int, codes)), np.array(counts))


def test_against_scikit_learn():
    rng = np.random.default_rng(1)
    a = rng.integers(1, 4, (40, 50))
    b = np.where(rng.random(a.shape) < 0.7, a, rng.integers(1, 4, a.shape))
    found = agreement(a, b)
    assert found.kappa == pytest.approx(cohen_kappa_score(a.ravel(), b.ravel()))
    dice = f1_score(a.ravel(), b.ravel(), average=None, labels=[1, 2, 3])
    assert [found.dice[c] for c in (1, 2, 3)] == pytest.approx(list(dice))
    assert found.n_compared == 2000
    assert found.observed == pytest.approx((a == b).mean())


def test_by_hand():
    # 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: observed 0.7, expected 0.5, kappa 0.4
    a = np.repeat([2, 2, 3, 3], [20, 5, 10, 15])
    b = np.repeat([2, 3, 2, 3], [20, 5, 10, 15])
    found = agreement(a, b)
    assert found.observed == pytest.approx(0.7)
    assert found.kappa == pytest.approx(0.4)
    assert found.dice == pytest.approx({2: 40 / 55, 3: 30 / 45})


def test_only_samples_of_both_readers_are_compared():
    a = np.array([1, 1, 2, 0, 2, 0])
    b = np.array([1, 0, 2, 2, 0, 0])
    found = agreement(a, b)
    assert found.n_compared == 2
    assert found.kappa == 1.0


def test_the_same_for_either_order_and_any_names():
    rng = np.random.default_rng(2)
    a, b = rng.integers(1, 4, (2, 300))
    assert agreement(a, b).kappa == pytest.approx(agreement(b, a).kappa)
    swap = np.array([0, 7, 5, 6])
    assert agreement(swap[a], swap[b]).kappa == pytest.approx(agreement(a, b).kappa)


def test_no_common_sample_and_one_class_have_no_kappa():
    none = agreement([0, 1], [1, 0])
    assert none.n_compared == 0
    assert math.isnan(none.kappa)
    assert math.isnan(none.observed)
    one = agreement([2, 2], [2, 2])
    assert math.isnan(one.kappa)
    assert one.dice == {2: 1.0}


def counted(rng, n_side, block=4, classes=3):
    """Tiles of readers who differ by patches of a block: each block has its own rate of errors."""
    tiles = np.stack(np.divmod(np.arange(n_side**2), n_side), axis=1)
    own = (tiles[:, 0] // block) * n_side + tiles[:, 1] // block
    rate = rng.beta(1.0, 3.0, n_side**2)[own]
    mix = rng.dirichlet(np.ones(classes), n_side**2)[own]
    counts = np.zeros((n_side**2, classes, classes), np.int64)
    for i in range(n_side**2):
        p = rate[i] * np.outer(mix[i], mix[i]) + (1 - rate[i]) * np.diag(mix[i])
        counts[i] = rng.multinomial(400, p.ravel()).reshape(classes, classes)
    return TileConfusion(tiles, counts, np.ones((2, classes), bool), 2.0)


NAMES = ("a", "b", "c")


def test_the_interval_covers_the_true_kappa_and_one_of_single_samples_would_not():
    many = [counted(np.random.default_rng(1000 + i), 16) for i in range(40)]
    true = float(kappa_of(sum(one.counts.sum(axis=0) for one in many))[1])
    covered, naive, n = 0, 0, 100
    for seed in range(n):
        rng = np.random.default_rng(seed)
        tiles = counted(rng, 16)  # 16 blocks of 4 x 4 tiles
        found = pair_agreement(tiles, NAMES, resamples=400, seed=seed)
        assert found.n_blocks == 16
        covered += found.kappa_low <= true <= found.kappa_high
        whole = tiles.counts.sum(axis=0).ravel()
        drawn = rng.multinomial(whole.sum(), whole / whole.sum(), size=200).reshape(-1, 3, 3)
        low, high = np.quantile(kappa_of(drawn)[1], [0.025, 0.975])
        naive += low <= true <= high
    assert 0.89 * n <= covered <= 0.99 * n
    assert naive < 0.3 * n


def test_the_interval_is_that_of_resampled_blocks():
    tiles = counted(np.random.default_rng(5), 8, block=2)
    found = pair_agreement(tiles, NAMES, seed=3)
    assert found.n_blocks == 16  # 4 blocks of 4 x 4 tiles would be too few: 2 x 2
    again = pair_agreement(tiles, NAMES, seed=3)
    assert (found.kappa_low, found.kappa_high) == (again.kappa_low, again.kappa_high)
    assert pair_agreement(tiles, NAMES, seed=4).kappa_low != found.kappa_low
    rows = tiles.tiles // 2
    blocks = [
        tiles.counts[(rows == cell).all(axis=1)].sum(axis=0) for cell in np.unique(rows, axis=0)
    ]
    rng = np.random.default_rng(0)
    kappas = []
    for _ in range(2000):
        confusion = sum(blocks[i] for i in rng.integers(16, size=16))
        n = confusion.sum()
        expected = confusion.sum(0) @ confusion.sum(1) / n**2
        kappas.append((np.trace(confusion) / n - expected) / (1 - expected))
    spread = np.std(kappas)
    assert found.kappa_high - found.kappa_low == pytest.approx(2 * 2.2 * spread, rel=0.2)


def test_an_interval_needs_two_blocks():
    tiles = counted(np.random.default_rng(6), 1)
    found = pair_agreement(tiles, NAMES)
    assert math.isfinite(found.kappa)
    assert math.isnan(found.kappa_low)
    assert "no interval" in found.why[0]
    two = counted(np.random.default_rng(6), 2)
    assert "only 4 blocks" in pair_agreement(two, NAMES).why[0]
