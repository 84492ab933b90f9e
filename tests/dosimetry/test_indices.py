"""Indices of a dose map by their definitions, without bins."""

import math

import numpy as np
import pytest

from napari_mosaik.core import InputError
from napari_mosaik.dosimetry import (
    dose_volume,
    equivalent_uniform_dose,
    plan_activity,
    respond,
    tumour_control,
)


def largest_dose(doses, weights, percent):
    """The definition, by trying every dose."""
    total = weights.sum()
    fit = [d for d in doses if weights[doses >= d].sum() >= percent / 100 * total * (1 - 1e-12)]
    return max(fit)


def test_dose_and_volume_by_their_definitions():
    rng = np.random.default_rng(1)
    doses = np.round(rng.gamma(3, 10, 200), 1)  # with ties
    weights = rng.integers(0, 5, 200).astype(float)
    found = dose_volume(doses, weights)
    for percent in (100, 98, 95, 50, 33.3, 2, 0.1):
        assert found.dose_at(percent) == largest_dose(
            doses[weights > 0], weights[weights > 0], percent
        )
    for dose in (0.0, doses[7], doses.max(), doses.max() + 1):
        expected = 100 * weights[doses >= dose].sum() / weights.sum()
        assert found.volume_at(dose) == pytest.approx(expected)
    assert found.mean_gy == pytest.approx(np.average(doses, weights=weights))


def test_exact_shares():
    found = dose_volume(np.arange(1.0, 51.0), np.full(50, 0.1))
    assert found.dose_at([98, 50, 2, 100, 0]).tolist() == [2, 26, 50, 1, 50]
    assert found.dose_at(98.1) == 1
    assert found.volume_at([1.0, 2.0, 50.0, 50.1]).tolist() == pytest.approx([100, 98, 2, 0])
    one = dose_volume([7.0], 1.0)
    assert (one.dose_at(98), one.volume_at(7.0), one.mean_gy) == (7, 100, 7)


def test_a_map_and_tiles_that_do_not_count():
    doses = np.array([[10.0, np.nan], [20.0, 99.0]])
    found = dose_volume(doses, [[1.0, 1.0], [3.0, 0.0]])
    assert found.mean_gy == pytest.approx(17.5)
    assert found.volume_at(15.0) == pytest.approx(75)
    assert found.dose_at(0) == 20


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: dose_volume([-1.0], [1.0]), "the dose must be 0 or more"),
        (lambda: dose_volume([1.0], [-1.0]), "the weight must be 0 or more"),
        (lambda: dose_volume([1.0, 2.0], [1.0, 2.0, 3.0]), "do not belong to doses"),
        (lambda: dose_volume([np.nan], [1.0]), "no tile has both"),
        (lambda: dose_volume([1.0], [0.0]), "no tile has both"),
        (lambda: dose_volume([1.0], [1.0]).dose_at(101), "percentage must lie in"),
        (lambda: dose_volume([1.0], [1.0]).dose_at(np.nan), "percentage must be a number"),
        (lambda: dose_volume([1.0], [1.0]).volume_at(np.nan), "dose must be a number"),
    ],
)
def test_histograms_that_are_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()


LQ = {"alpha_per_gy": 0.3, "beta_per_gy2": 0.03}


def test_the_uniform_dose_of_an_even_map_is_its_dose():
    dose = np.full(9, 17.0)
    ln_s = respond(dose, 0.2 * dose**2, **LQ).ln_survival
    assert equivalent_uniform_dose(ln_s, 1.0, g=0.2, **LQ) == pytest.approx(17, rel=1e-12)
    assert equivalent_uniform_dose(ln_s[:1] * 0, 1.0, **LQ) == 0


def test_the_uniform_dose_has_the_mean_survival():
    rng = np.random.default_rng(2)
    dose, weight = rng.uniform(5, 30, 40), rng.random(40)
    ln_s = respond(dose, 0.5 * dose**2, **LQ).ln_survival
    found = equivalent_uniform_dose(ln_s, weight, g=0.5, **LQ)
    mean = np.average(np.exp(ln_s), weights=weight)
    assert math.exp(-0.3 * found - 0.03 * 0.5 * found**2) == pytest.approx(mean)
    assert dose.min() < found < np.average(dose, weights=weight)
    linear = equivalent_uniform_dose(ln_s, weight, alpha_per_gy=0.3, beta_per_gy2=0)
    assert linear == pytest.approx(-math.log(mean) / 0.3)


def test_the_uniform_dose_in_logarithms_by_draw():
    ln_s = np.array([[-2000.0, -2000.0, np.nan], [-4.0, -np.inf, -np.inf], [1.0, 1.0, 1.0]])
    alpha = np.array([0.3, 0.2, 0.3])
    found = equivalent_uniform_dose(ln_s, [1.0, 1.0, 2.0], alpha_per_gy=alpha, beta_per_gy2=0.0)
    assert found[0] == pytest.approx(2000 / 0.3)
    assert found[1] == pytest.approx((4 + math.log(4)) / 0.2)
    assert np.isnan(found[2])  # more cells than before: no dose does that
    assert np.isinf(equivalent_uniform_dose([-np.inf], 1.0, **LQ))


def test_tumour_control_with_a_milliard_cells():
    ln_s = np.array([-25.0, -20.0, np.nan])
    weight = np.array([3.0, 1.0, 5.0])
    found = tumour_control(ln_s, weight, clonogens=1e9)
    survivors = 1e9 * (0.75 * math.exp(-25) + 0.25 * math.exp(-20))
    assert found.ln_survivors == pytest.approx(math.log(survivors))
    assert found.ln_probability == pytest.approx(-survivors)
    assert found.probability == pytest.approx(math.exp(-survivors))


def test_tumour_control_at_both_ends():
    sure = tumour_control([-900.0], [1.0], clonogens=1e9)
    assert sure.probability == 1
    assert sure.ln_survivors == pytest.approx(-900 + math.log(1e9))
    assert -1e-300 < sure.ln_probability <= 0
    lost = tumour_control([900.0], [1.0], clonogens=1e9)
    assert lost.probability == 0
    assert lost.ln_probability == -np.inf
    partly = tumour_control([-17.0], [1.0], clonogens=1e9)
    assert partly.ln_probability == pytest.approx(-1e9 * math.exp(-17))
    draws = tumour_control(np.full((4, 3), -25.0), 1.0, clonogens=[1e7, 1e8, 1e9, 1e10])
    assert draws.probability.shape == (4,)
    assert (np.diff(draws.probability) < 0).all()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: tumour_control([-1.0], [1.0], clonogens=0), "must be above 0"),
        (lambda: tumour_control([-1.0], [1.0], clonogens=-5), "clonogenic cells must be"),
        (lambda: tumour_control([np.nan], [1.0], clonogens=1), "no tile has both a survival"),
        (lambda: tumour_control([], [], clonogens=1), "at least one tile"),
        (lambda: tumour_control([-1.0], [1.0, 2.0, 3.0], clonogens=1), "do not belong to"),
        (lambda: tumour_control([np.inf], [1.0], clonogens=1), "infinite above 0"),
        (
            lambda: equivalent_uniform_dose([-1.0], 1.0, alpha_per_gy=0, beta_per_gy2=1),
            "alpha must be above 0",
        ),
        (lambda: equivalent_uniform_dose([-1.0], 1.0, g=2, **LQ), "g must lie in"),
    ],
)
def test_survival_that_is_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_a_plan_with_numbers():
    found = plan_activity({"marrow": 2.0, "kidney": 23.0}, {"kidney": 0.01, "marrow": 0.0005})
    assert (found.activity_mbq, found.organ, found.confident_mbq) == (2300, "kidney", 2300)


def test_a_plan_meets_all_limits_together():
    rng = np.random.default_rng(3)
    marrow, kidney = rng.lognormal(-7.5, 0.4, 999), rng.lognormal(-4.9, 0.3, 999)
    limits, draws = {"marrow": 2.0, "kidney": 23.0}, {"marrow": marrow, "kidney": kidney}
    found = plan_activity(limits, draws)
    alone = {organ: limits[organ] / np.median(draws[organ]) for organ in limits}
    assert found.organ == min(alone, key=alone.get)
    assert found.activity_mbq == pytest.approx(min(alone.values()))

    def share(activity):
        return np.mean((activity * marrow <= 2.0) & (activity * kidney <= 23.0))

    assert share(found.confident_mbq) >= 0.95
    assert share(found.confident_mbq * (1 + 1e-9)) < 0.95
    each = [plan_activity({organ: limits[organ]}, draws).confident_mbq for organ in limits]
    assert found.confident_mbq < min(each)
    all_draws = plan_activity(limits, draws, confidence=1.0).confident_mbq
    assert all_draws == pytest.approx(min(2 / marrow.max(), 23 / kidney.max()))


def test_draws_are_joint_and_numbers_broadcast():
    one = np.array([1.0, 2.0, 4.0, 8.0])
    joint = plan_activity({"a": 8.0, "b": 8.0}, {"a": one, "b": one}, confidence=0.75)
    against = plan_activity({"a": 8.0, "b": 8.0}, {"a": one, "b": one[::-1]}, confidence=0.75)
    assert joint.confident_mbq == 2
    assert against.confident_mbq == 1
    mixed = plan_activity({"a": 8.0, "b": 8.0}, {"a": one, "b": 3.0, "c": 99.0}, confidence=0.75)
    assert mixed.confident_mbq == 2
    assert (mixed.organ, mixed.activity_mbq) == ("a", 8 / 3)


@pytest.mark.parametrize(
    ("limits", "coefficients", "confidence", "says"),
    [
        ({}, {"a": 1.0}, 0.95, "no organ has a limit"),
        ({"a": 1.0}, {"b": 1.0}, 0.95, "limit of 'a' has no coefficient"),
        ({"a": 0.0}, {"a": 1.0}, 0.95, "limit of 'a' must be a number above 0"),
        ({"a": 1.0}, {"a": -1.0}, 0.95, "coefficient of 'a' must be 0 or more"),
        ({"a": 1.0}, {"a": np.nan}, 0.95, "without NaN"),
        ({"a": 1.0}, {"a": []}, 0.95, "a list of draws"),
        ({"a": 1.0}, {"a": 0.0}, 0.95, "no organ receives a dose"),
        ({"a": 1.0, "b": 1.0}, {"a": [1.0, 2], "b": [1.0, 2, 3]}, 0.95, "a 2, b 3"),
        ({"a": 1.0}, {"a": 1.0}, 0.0, "confidence must be"),
        ({"a": 1.0}, {"a": 1.0}, 1.5, "confidence must lie in"),
    ],
)
def test_plans_that_are_refused(limits, coefficients, confidence, says):
    with pytest.raises(InputError, match=says):
        plan_activity(limits, coefficients, confidence=confidence)
