from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as sk

from napari_mosaik import __version__
from napari_mosaik.core import InputError
from napari_mosaik.predictor import metrics as ours
from napari_mosaik.predictor import metrics_record

Y, P = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 2.0, 5.0])


def test_errors_by_hand():
    assert ours.mse(Y, P) == pytest.approx(0.5)
    assert ours.mae(Y, P) == pytest.approx(0.5)
    assert ours.r2(Y, P) == pytest.approx(1 - 2 / 5)
    assert ours.r2(Y, P, reference=0.0) == pytest.approx(1 - 2 / 30)


def test_concordance_by_hand_has_the_divisor_n():
    # means 2.5, 2.5; variances 1.25, 2.25; covariance 1.5 (divisor n)
    assert ours.concordance(Y, P) == pytest.approx(2 * 1.5 / (1.25 + 2.25))
    # a shift by d of equal values: 2 s^2 / (2 s^2 + d^2)
    assert ours.concordance(Y, Y + 1) == pytest.approx(2.5 / 3.5)


def test_bland_altman_by_hand_has_the_divisor_n_minus_1():
    found = ours.bland_altman(Y, P)
    sd = np.sqrt(2 / 3)
    assert found["bias"] == pytest.approx(0.0)
    assert found["sd"] == pytest.approx(sd)
    assert found["high"] == pytest.approx(1.96 * sd)


def test_the_bias_is_predicted_minus_measured_with_both_limits():
    found = ours.bland_altman([1.0, 2.0, 4.0], [2.0, 4.0, 5.0])  # differences 1, 2, 1
    sd = np.sqrt(1 / 3)
    assert found["bias"] == pytest.approx(4 / 3)
    assert found["low"] == pytest.approx(4 / 3 - 1.96 * sd)
    assert found["high"] == pytest.approx(4 / 3 + 1.96 * sd)


def test_the_paired_interval_holds_95_percent():
    rng = np.random.default_rng(5)
    difference = rng.normal(0.2, 0.1, 900)
    blocks = 7 * np.stack(np.divmod(np.arange(900), 30), axis=1)  # one tile in each
    found = ours.mae_difference(np.zeros(900), np.ones(900), 1 + difference, blocks)
    half = 1.96 * difference.std() / 30
    assert found["estimate"] == pytest.approx(difference.mean())
    assert found["low"] == pytest.approx(difference.mean() - half, abs=0.08 * half)
    assert found["high"] == pytest.approx(difference.mean() + half, abs=0.08 * half)


def test_similarity_is_that_of_scikit_image_where_the_window_is_full():
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(2)
    y = rng.normal(0.4, 0.3, (24, 20))
    p = y + rng.normal(0, 0.2, y.shape)
    given = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    mean, whole = structural_similarity(y, p, data_range=1.0, full=True, **given)
    cells = np.stack(np.indices(y.shape), axis=-1).reshape(-1, 2) + 7  # any corner
    found = ours.similarity_map(y, p, cells).reshape(y.shape)
    inner = np.s_[5:-5, 5:-5]
    np.testing.assert_allclose(found[inner], whole[inner], rtol=1e-9)
    assert found[inner].mean() == pytest.approx(mean)
    assert ours.similarity_map(y, y, cells) == pytest.approx(1.0)


def test_similarity_weighs_the_tiles_that_there_are():
    rng = np.random.default_rng(3)
    cells = np.argwhere(rng.random((9, 11)) < 0.6)
    y, p = rng.random(len(cells)), rng.random(len(cells))
    p[4] = y[7] = np.nan  # left out, also as neighbours
    found = ours.similarity_map(y, p, cells)
    assert np.isnan(found[[4, 7]]).all()
    there = np.isfinite(y) & np.isfinite(p)
    for one in np.flatnonzero(there)[::5]:
        away = cells[there] - cells[one]
        weight = np.exp(-(away**2).sum(axis=1) / 4.5) * (np.abs(away) <= 5).all(axis=1)
        weight /= weight.sum()
        a, b = y[there], p[there]
        my, mp = weight @ a, weight @ b
        vy, vp, both = (
            weight @ (a - my) ** 2,
            weight @ (b - mp) ** 2,
            weight @ ((a - my) * (b - mp)),
        )
        by_hand = (2 * my * mp + 1e-4) * (2 * both + 9e-4)
        by_hand /= (my**2 + mp**2 + 1e-4) * (vy + vp + 9e-4)
        assert found[one] == pytest.approx(by_hand)
    assert np.isnan(ours.similarity_map([np.nan], [1.0], [[0, 0]])).all()


def test_calibration_error_by_hand():
    # bins (0.5, 0.6]: two tiles at 0.6, one right; (0.8, 0.9]: one at 0.9, right; (0.9, 1]: wrong
    p = np.array([[0.6, 0.4, 0], [0.4, 0.6, 0], [0.1, 0, 0.9], [1, 0, 0], [1, 0, 0], [np.nan] * 3])
    y = np.array([0, 0, 2, 1, -1, 0])
    by_hand = (abs(1.2 - 1) + abs(0.9 - 1) + 1.0) / 4
    assert ours.expected_calibration_error(y, p) == pytest.approx(by_hand)
    assert np.isnan(ours.expected_calibration_error([-1], [[1.0, 0.0]]))
    found = ours.classification_metrics(y[:4], p[:4].argmax(axis=1), p[:4])
    assert found["ece"] == pytest.approx(by_hand)
    assert "ece" not in ours.classification_metrics(y[:4], p[:4].argmax(axis=1))


def test_calibration_error_of_honest_probabilities_is_small():
    rng = np.random.default_rng(4)
    p = rng.dirichlet([1.0, 1.0, 1.0], 20000)
    y = (p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1)
    assert ours.expected_calibration_error(y, p) < 0.02
    assert ours.expected_calibration_error(y, p**3 / (p**3).sum(axis=1)[:, None]) > 0.15


def test_calibration_recovers_a_line():
    found = ours.calibration(2 * P + 3, P)
    assert found["slope"] == pytest.approx(2)
    assert found["intercept"] == pytest.approx(3)


def test_against_second_libraries():
    from scipy import stats

    rng = np.random.default_rng(0)
    y = rng.normal(size=80)
    p = np.round(y + rng.normal(size=80), 1)
    assert ours.mse(y, p) == pytest.approx(sk.mean_squared_error(y, p))
    assert ours.mae(y, p) == pytest.approx(sk.mean_absolute_error(y, p))
    assert ours.r2(y, p) == pytest.approx(sk.r2_score(y, p))
    assert ours.pearson(y, p) == pytest.approx(stats.pearsonr(y, p).statistic)
    assert ours.spearman(y, p) == pytest.approx(stats.spearmanr(y, p).statistic)
    a, b = rng.integers(0, 4, 80), rng.integers(0, 5, 80)
    b[:10] = 1
    assert ours.macro_f1(a, b) == pytest.approx(sk.f1_score(a, b, average="macro"))
    a, b = rng.integers(0, 5, 80), rng.integers(0, 5, 80)
    assert ours.balanced_accuracy(a, b) == pytest.approx(sk.balanced_accuracy_score(a, b))


def test_nan_and_unlabelled_tiles_are_left_out():
    y, p = np.append(Y, [np.nan, 7.0]), np.append(P, [3.0, np.nan])
    assert ours.mae(y, p) == ours.mae(Y, P)
    assert ours.balanced_accuracy([0, 1, -1], [0, 0, 1]) == pytest.approx(0.5)
    with pytest.raises(InputError, match="4 measured"):
        ours.mae(Y, P[:3])


def test_what_does_not_exist_is_nan():
    constant = np.full(4, 2.0)
    assert np.isnan(ours.pearson(Y, constant))
    assert np.isnan(ours.spearman(Y, constant))
    assert np.isnan(ours.r2(constant, P))
    assert np.isnan(ours.mse([], []))
    assert np.isnan(ours.calibration(Y, constant)["slope"])
    assert ours.r2(Y, np.full(4, Y.mean())) == pytest.approx(0.0)


def test_record_has_the_documented_shape_and_one_set_of_tiles():
    y = np.array([0.1, 0.5, 0.9, np.nan, 0.4])
    p = np.array([0.2, 0.5, 0.7, 0.3, np.nan])
    record = metrics_record(
        test_case="B11",
        split="case",
        shared_patient=True,
        measured_norm=y,
        predicted_norm=p,
        measured_suv=10 * y,
        predicted_suv=10 * p,
        baselines={"mean": np.full(5, 0.5), "ridge": None, "neighbour_idw": y},
        cells=[[0, 0], [0, 1], [0, 20], [0, 21], [0, 22]],
        uses_test_pet=("neighbour_idw",),
        measured_class=[0, 1, 2, 0, 1],
        predicted_class=[0, 1, 1, 0, -1],
        seconds=3.0,
        extra={"model": "abc"},
    )
    assert record["suv_norm"] == pytest.approx({"mse": 0.05 / 3, "mae": 0.1, "r2": 1 - 0.05 / 0.32})
    assert record["suv_bsa"] == pytest.approx({"mae": 1.0, "r2": 1 - 0.05 / 0.32})
    mean = record["baselines"]["mean"]
    errors = {key: mean[key] for key in ("mse", "mae", "r2")}
    assert errors == pytest.approx({"mse": 0.32 / 3, "mae": 0.8 / 3, "r2": 0})
    assert mean["mae_minus_network"]["estimate"] == pytest.approx(0.8 / 3 - 0.1)
    assert mean["uses_test_pet"] is False
    assert record["baselines"]["neighbour_idw"]["uses_test_pet"] is True
    assert record["baselines"]["ridge"] is None
    assert (record["n_tiles"], record["n_not_measured"], record["n_not_predicted"]) == (3, 1, 1)
    assert record["classes"]["balanced_accuracy"] == pytest.approx(2 / 3)
    assert record["version"] == __version__
    json.dumps(record, allow_nan=False)


def test_headline_errors_are_not_clipped():
    y, p = np.array([-0.5, 0.5, 2.0]), np.array([0.0, 0.5, 1.0])
    record = metrics_record(
        test_case="B11",
        split="case",
        shared_patient=False,
        measured_norm=y,
        predicted_norm=p,
        measured_suv=y,
        predicted_suv=p,
        baselines={},
        cells=np.zeros((3, 2), int),
    )
    assert record["suv_norm"]["mae"] == pytest.approx(0.5)
    assert record["suv_norm_clipped"]["mae"] == 0.0
    assert record["suv_norm"]["r2"] == pytest.approx(1 - 1.25 / y.var() / 3)


def test_the_paired_interval_is_by_blocks():
    rng = np.random.default_rng(0)
    rows, cols = np.divmod(np.arange(35 * 35), 35)
    cells = np.column_stack([rows, cols])
    y = rng.normal(size=len(cells))
    shared = rng.normal(size=(5, 5))[rows // 7, cols // 7]  # one error for a whole block
    first, second = y + 0.5, y + 0.5 + 0.1 * np.abs(shared)
    found = ours.mae_difference(y, first, second, cells)
    assert found["estimate"] == pytest.approx(0.1 * np.abs(shared).mean())
    blocks = 0.1 * np.abs(shared).reshape(5, 7, 5, 7).mean(axis=(1, 3)).ravel()
    half = 1.96 * blocks.std() / np.sqrt(blocks.size)
    assert found["high"] - found["low"] == pytest.approx(2 * half, rel=0.1)
    alone = ours.mae_difference(y, first, second, np.zeros_like(cells))
    assert np.isnan(alone["low"])
    assert np.isnan(alone["high"])
    backward = ours.mae_difference(y, second, first, cells)
    assert backward["estimate"] == pytest.approx(-found["estimate"])
