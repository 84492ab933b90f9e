from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge

from napari_mosaik.core import InputError
from napari_mosaik.predictor import (
    Baseline,
    BaselineColumns,
    TargetScale,
    fit_baselines,
    predict_baselines,
)


@pytest.fixture(scope="module")
def fitted(small_cases):
    target = TargetScale.fit(np.concatenate([c.suv for c in small_cases[:2]]), 0.5, 99.5)
    return target, fit_baselines(small_cases[:2], target)


def training_table(cases, target):
    x = np.concatenate([c.features for c in cases])
    y = np.concatenate([target.normalise(c.suv) for c in cases])
    return np.where(np.isnan(x), np.nanmedian(x, axis=0), x), y


def test_mean_and_lines_equal_a_second_library(small_cases, fitted):
    target, found = fitted
    x, y = training_table(small_cases[:2], target)
    test = small_cases[2]
    assert found["mean"].predict(test) == pytest.approx(np.full(len(test), y.mean()))
    medians = np.nanmedian(np.concatenate([c.features for c in small_cases[:2]]), axis=0)
    x_test = np.where(np.isnan(test.features), medians, test.features)
    line = LinearRegression().fit(x[:, :1], y)
    np.testing.assert_allclose(
        found["caix_linear"].predict(test), np.clip(line.predict(x_test[:, :1]), 0, 1), atol=1e-9
    )
    ridge = found["ridge"]
    mean, sd = x.mean(axis=0), x.std(axis=0)
    second = Ridge(alpha=ridge.alpha).fit((x - mean) / sd, y)
    np.testing.assert_allclose(
        ridge.predict(test), np.clip(second.predict((x_test - mean) / sd), 0, 1), atol=1e-8
    )
    assert ridge.n_imputed[0] == sum(int(np.isnan(c.features[:, 0]).sum()) for c in small_cases[:2])


def test_the_mechanistic_baseline_is_a_line_on_the_product(small_cases, fitted):
    target, found = fitted
    product = np.concatenate([c.features[:, 0] * c.features[:, 1] for c in small_cases[:2]])
    y = np.concatenate([target.normalise(c.suv) for c in small_cases[:2]])
    product = np.where(np.isnan(product), np.nanmedian(product), product)[:, None]
    line = LinearRegression().fit(product, y)
    test = small_cases[2]
    x = (test.features[:, 0] * test.features[:, 1])[:, None]
    known = np.isfinite(x[:, 0])
    np.testing.assert_allclose(
        found["mechanistic"].predict(test)[known],
        np.clip(line.predict(x[known]), 0, 1),
        atol=1e-9,
    )


def test_position_sees_nothing_but_position(small_cases, fitted):
    _, found = fitted
    test = small_cases[2]
    blind = replace(test, features=np.full_like(test.features, np.nan))
    np.testing.assert_array_equal(found["position"].predict(test), found["position"].predict(blind))
    moved = replace(test, centres_um=test.centres_um + 5000.0)
    np.testing.assert_allclose(found["position"].predict(test), found["position"].predict(moved))


def test_position_learns_a_field_of_position(small_cases):
    def with_field(case):
        centre = (case.centres_um.min(axis=0) + case.centres_um.max(axis=0)) / 2
        return replace(case, suv=np.exp(-(((case.centres_um - centre) / 900.0) ** 2).sum(axis=1)))

    cases = [with_field(case) for case in small_cases]
    target = TargetScale(0.0, 1.0)
    found = fit_baselines(cases[:2], target)["position"]
    assert np.abs(found.predict(cases[2]) - cases[2].suv).mean() < 0.03


def test_baselines_survive_json(small_cases, fitted):
    _, found = fitted
    card = {"baselines": {name: b.as_dict() for name, b in found.items()}}
    card = json.loads(json.dumps(card, allow_nan=False))
    again = predict_baselines(card, small_cases[2])
    for name, baseline in found.items():
        np.testing.assert_array_equal(again[name], baseline.predict(small_cases[2]))
        assert Baseline.from_dict(card["baselines"][name]) == baseline


def test_a_missing_parameter_makes_a_baseline_not_available(small_cases, fitted):
    target, found = fitted
    none = fit_baselines(small_cases[:2], target, BaselineColumns(caix="caix_membrane_od10"))
    assert none["caix_linear"] is None
    assert none["mechanistic"] is None
    assert none["ridge"] is not None
    card = {"baselines": {"caix_linear": None}}
    assert predict_baselines(card, small_cases[2]) == {"caix_linear": None}
    other = replace(small_cases[2], feature_names=("a", "b", "c", "d"))
    with pytest.raises(InputError, match="caix_h_score"):
        found["caix_linear"].predict(other)
