"""Wilson intervals against their closed form; the same patients in each arm."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq

from napari_mosaik.core import InputError
from napari_mosaik.twin import (
    Prior,
    chain_posterior,
    log_linear_posterior,
    patients_needed,
    virtual_cohort,
    wilson_interval,
)

from .conftest import chain_prior

LINE = Prior.log_linear(intercept=(2.0, 1.0), slope_per_h=(0.002, 0.005))


def test_wilson_against_the_roots_of_its_score():
    for successes, n in [(3, 10), (57, 400), (399, 400)]:
        low, high = wilson_interval(successes, n)

        def score(p, share=successes / n, n=n):
            return abs(share - p) - 1.959963985 * math.sqrt(p * (1 - p) / n)

        assert low == pytest.approx(brentq(score, 1e-9, successes / n - 1e-9), abs=1e-7)
        assert high == pytest.approx(brentq(score, successes / n + 1e-9, 1 - 1e-9), abs=1e-7)
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998


def test_ends_of_wilson():
    assert wilson_interval(0, 20)[0] == 0
    assert wilson_interval(0, 20)[1] == pytest.approx(0.1611, abs=5e-5)
    assert wilson_interval(20, 20)[1] == 1
    assert wilson_interval(5, 10, confidence=0.5)[0] > wilson_interval(5, 10)[0]


@pytest.mark.parametrize(("width", "share"), [(0.1, 0.5), (0.05, 0.3), (0.02, 0.0), (0.3, 0.5)])
def test_patients_needed_is_the_smallest_number(width, share):
    def half(n):
        low, high = wilson_interval(share * n, n)
        return (high - low) / 2

    n = patients_needed(width, share)
    assert half(n) <= width
    assert n == 1 or half(n - 1) > width


def test_patients_needed_in_closed_form():
    z2 = 1.959963984540054**2
    assert patients_needed(0.05) == math.ceil(z2 * (1 / (4 * 0.05**2) - 1))
    assert patients_needed(0.05, confidence=0.8) < patients_needed(0.05)


def test_every_arm_has_the_same_patients():
    seen = []

    def arm(shift):
        def outcomes(draws):
            seen.append(draws)
            return draws[:, 0] + shift

        return outcomes

    cohort = virtual_cohort(LINE, {"a": arm(0.0), "b": arm(0.1), "c": arm(0.0)}, 300, 1)
    assert all(draws is cohort.draws for draws in seen)
    assert cohort.draws.shape == (300, 2)
    assert cohort.better("b", "a") == 1.0
    assert cohort.better("a", "c") == 0.5
    assert cohort.better("a", "b") == 0.0
    np.testing.assert_array_equal(cohort.outcomes["a"], cohort.draws[:, 0])
    share, low, high = cohort.responders("a", float(np.median(cohort.draws[:, 0])))
    assert share == 0.5
    assert (low, high) == wilson_interval(150, 300)
    at_the_bar = virtual_cohort(LINE, {"a": lambda draws: np.ones(len(draws))}, 10, 1)
    assert at_the_bar.responders("a", 1.0)[0] == 1.0


def test_patients_come_from_the_prior_or_the_posterior():
    cohort = virtual_cohort(LINE, {"a": lambda draws: draws[:, 1]}, 20_000, 1)
    np.testing.assert_allclose(cohort.draws.mean(axis=0), LINE.mean, atol=0.02)
    np.testing.assert_allclose(np.cov(cohort.draws, rowvar=False), LINE.covariance, atol=0.03)
    none = log_linear_posterior([], LINE)
    same = virtual_cohort(none, {"a": lambda draws: draws[:, 1]}, 20_000, 1)
    assert same.draws.tobytes() == cohort.draws.tobytes()
    chain = chain_posterior([], chain_prior(), free=["k03_per_h"])
    drawn = virtual_cohort(chain, {"a": lambda draws: draws[:, 0]}, 6000, 2)
    assert drawn.names == ("k03_per_h",)
    assert drawn.draws.mean() == pytest.approx(math.log(8.33e-4), abs=0.05)
    fixed = virtual_cohort(chain_prior(k32_per_h=(0.2, 0.0)), {"a": lambda d: d[:, 0]}, 50, 2)
    np.testing.assert_allclose(fixed.draws[:, 1], math.log(0.2))


@pytest.mark.parametrize(
    ("arms", "n", "words"),
    [
        ({}, 10, "at least one arm"),
        ({"a": lambda draws: draws}, 10, "'a' must return 10 finite outcomes"),
        ({"a": lambda draws: draws[:, 0] * np.nan}, 10, "'a' must return 10 finite outcomes"),
        ({"a": 3.0}, 10, "'a' must be a function of the draws, not 3.0"),
        ({"a": lambda draws: draws[:, 0]}, 0, "whole number of 1 or more, not 0"),
    ],
)
def test_cohorts_that_are_refused(arms, n, words):
    with pytest.raises(InputError, match=words):
        virtual_cohort(LINE, arms, n, 0)


def test_numbers_that_are_refused():
    cohort = virtual_cohort(LINE, {"a": lambda draws: draws[:, 0]}, 10, 0)
    with pytest.raises(InputError, match="no arm 'b'"):
        cohort.better("a", "b")
    with pytest.raises(InputError, match=r"must lie in \[0, 10\], not at 11"):
        wilson_interval(11, 10)
    with pytest.raises(InputError, match="confidence must lie between 0 and 1"):
        wilson_interval(1, 10, confidence=1)
    with pytest.raises(InputError, match=r"between 0 and 0\.5"):
        patients_needed(0.6)
    with pytest.raises(InputError, match="share must lie"):
        patients_needed(0.1, 1.2)
