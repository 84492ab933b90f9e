from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge

from napari_mosaik.core import InputError
from napari_mosaik.predictor import (
    Baseline,
    TargetScale,
    TrainedModel,
    fit_baselines,
    predict_baselines,
)
from napari_mosaik.predictor.baselines import ABOUT
from napari_mosaik.predictor.surroundings import Surroundings

FWHM_UM = 1400.0


def seen(case):
    return Surroundings(case, FWHM_UM)


@pytest.fixture(scope="module")
def fitted(small_cases):
    target = TargetScale.fit(np.concatenate([c.suv for c in small_cases[:2]]), 10.0, 90.0)
    return target, fit_baselines(small_cases[:2], target, fwhm_um=FWHM_UM)


def training_target(cases, target):
    return np.concatenate([target.normalise(c.suv, clip=False) for c in cases])


def imputed(cases, stack="tile"):
    x = np.concatenate([seen(c).columns(stack) for c in cases])
    return np.where(np.isnan(x), np.nanmedian(x, axis=0), x)


def test_mean_and_lines_equal_a_second_library(small_cases, fitted):
    target, found = fitted
    x, y = imputed(small_cases[:2]), training_target(small_cases[:2], target)
    assert y.min() < 0 < 1 < y.max()  # nothing is clipped
    test = small_cases[2]
    assert found["mean"].predict(seen(test)) == pytest.approx(np.full(len(test), y.mean()))
    medians = np.nanmedian(np.concatenate([c.features for c in small_cases[:2]]), axis=0)
    x_test = np.where(np.isnan(test.features), medians, test.features)
    line = LinearRegression().fit(x[:, :1], y)
    np.testing.assert_allclose(
        found["caix_linear"].predict(seen(test)), line.predict(x_test[:, :1]), atol=1e-9
    )
    missing = sum(int(np.isnan(c.features[:, 0]).sum()) for c in small_cases[:2])
    assert found["ridge"].record["n_imputed"][0] == missing


@pytest.mark.parametrize("stack", ["tile", "psf", "all"])
def test_ridge_equals_a_second_fit_on_the_same_columns(small_cases, fitted, stack):
    target, found = fitted
    ridge = found["ridge" if stack == "tile" else f"ridge_{stack}"]
    x, y = imputed(small_cases[:2], stack), training_target(small_cases[:2], target)
    mean, sd = x.mean(axis=0), x.std(axis=0)
    second = Ridge(alpha=ridge.record["alpha"]).fit((x - mean) / sd, y)
    own = seen(small_cases[2]).columns(stack)
    medians = np.nanmedian(
        np.concatenate([seen(c).columns(stack) for c in small_cases[:2]]), axis=0
    )
    own = np.where(np.isnan(own), medians, own)
    np.testing.assert_allclose(
        ridge.predict(seen(small_cases[2])), second.predict((own - mean) / sd), atol=1e-8
    )


def test_the_mechanistic_baseline_is_a_line_on_the_retained_antibody(small_cases, fitted):
    target, found = fitted
    x = np.concatenate([c.curves[:, -1, 1] + c.curves[:, -1, 2] for c in small_cases[:2]])
    line = LinearRegression().fit(x[:, None], training_target(small_cases[:2], target))
    test = small_cases[2]
    own = (test.curves[:, -1, 1] + test.curves[:, -1, 2])[:, None]
    np.testing.assert_allclose(found["mechanistic"].predict(seen(test)), line.predict(own))
    curves = test.curves.copy()
    curves[:, :, 0] += 5.0  # free antibody is not retained
    curves[:, :-1] *= np.linspace(0.1, 3.0, len(test))[:, None, None]  # earlier than the last time
    blind = replace(test, curves=curves, features=np.full_like(test.features, np.nan))
    np.testing.assert_array_equal(
        found["mechanistic"].predict(seen(test)), found["mechanistic"].predict(seen(blind))
    )


def test_patient_curves_say_nothing_about_a_tile(small_cases, fitted):
    target, _ = fitted
    flat = [replace(c, curves=c.curves[0]) for c in small_cases[:2]]
    assert fit_baselines(flat, target, fwhm_um=FWHM_UM)["mechanistic"] is None


def test_position_sees_nothing_but_position(small_cases, fitted):
    _, found = fitted
    test = small_cases[2]
    blind = replace(test, features=np.full_like(test.features, np.nan))
    position = found["position"].predict(seen(test))
    np.testing.assert_array_equal(position, found["position"].predict(seen(blind)))
    moved = replace(test, centres_um=test.centres_um + 5000.0)
    np.testing.assert_allclose(position, found["position"].predict(seen(moved)))


def test_position_learns_a_field_of_position(small_cases):
    def with_field(case):
        centre = (case.centres_um.min(axis=0) + case.centres_um.max(axis=0)) / 2
        return replace(case, suv=np.exp(-(((case.centres_um - centre) / 900.0) ** 2).sum(axis=1)))

    cases = [with_field(case) for case in small_cases]
    found = fit_baselines(cases[:2], TargetScale(0.0, 1.0), fwhm_um=FWHM_UM)["position"]
    assert np.abs(found.predict(seen(cases[2])) - cases[2].suv).mean() < 0.03


def test_all_baselines_are_fitted_and_learn_from_what_they_see(fitted, small_cases):
    target, found = fitted
    assert list(found) == list(ABOUT)
    assert all(found.values())
    known = small_cases[0]
    measured = target.normalise(known.suv, clip=False)
    error = {n: np.abs(b.predict(seen(known)) - measured).mean() for n, b in found.items()}
    assert max(error[name] for name in set(error) - {"mean", "caix_linear"}) < error["mean"]


def test_baselines_survive_storing(small_cases, fitted, tmp_path):
    _, found = fitted
    card = {"fwhm_um": FWHM_UM, "baselines": {name: b.as_dict() for name, b in found.items()}}
    card = json.loads(json.dumps(card, allow_nan=False))
    arrays = {k: v for b in found.values() for k, v in b.named_arrays().items()}
    model = TrainedModel.load(TrainedModel(arrays, card).save(tmp_path))
    again = predict_baselines(model, small_cases[2])
    for name, baseline in found.items():
        np.testing.assert_array_equal(again[name], baseline.predict(seen(small_cases[2])))
        assert dict(Baseline.of_model(model, name).record) == dict(baseline.record)


def test_a_missing_parameter_makes_a_baseline_not_available(small_cases, fitted):
    target, found = fitted
    none = fit_baselines(small_cases[:2], target, caix="caix_membrane_od10", fwhm_um=FWHM_UM)
    assert none["caix_linear"] is None
    assert none["ridge"] is not None
    model = TrainedModel({}, {"fwhm_um": FWHM_UM, "baselines": {"caix_linear": None}})
    assert predict_baselines(model, small_cases[2]) == {"caix_linear": None}
    other = replace(small_cases[2], feature_names=("a", "b", "c", "d"))
    for name in ("caix_linear", "ridge_all", "boosting_psf", "source_blur"):
        with pytest.raises(InputError, match=f"baseline '{name}' needs the tile parameter"):
            found[name].predict(seen(other))
