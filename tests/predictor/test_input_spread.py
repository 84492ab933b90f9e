"""Spread of a prediction over draws of its inputs: planted functions of known derivatives."""

import numpy as np
import pytest

from napari_mosaik.core import InputError
from napari_mosaik.predictor import input_draws, input_spread

SOURCES = ("registration", "registration", "calibration", "kinetics")
SLOPES = np.array([[0.3, 0.0, 0.1], [0.4, 0.2, 0.0], [0.0, 0.1, 0.0], [0.0, 0.2, 0.0]])


def test_draws_are_standard_without_chance_correlation_and_repeat_by_seed():
    draws = input_draws(24, 13, 5)
    np.testing.assert_allclose(draws.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.cov(draws.T), np.eye(13), atol=1e-10)
    assert np.array_equal(draws, input_draws(24, 13, 5))
    assert not np.array_equal(draws, input_draws(24, 13, 6))
    assert input_draws(12, 1, 0).shape == (12, 1)
    # one draw in each of the equally likely ranges: no gap in the middle, and no heavy tail
    assert (
        np.abs(np.sort(input_draws(2000, 1, 0)[:, 0]) - np.sort(input_draws(2000, 1, 1)[:, 0]))[
            100:-100
        ].max()
        < 0.05
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_a_linear_function_has_the_spread_of_its_derivatives(seed):
    draws = input_draws(16, 4, seed)
    found = input_spread(draws, SOURCES, 0.5 + draws @ SLOPES)
    np.testing.assert_allclose(found.sd, np.sqrt((SLOPES**2).sum(axis=0)), rtol=1e-9)
    np.testing.assert_allclose(found.shares["registration"], [1.0, 4 / 9, 1.0], atol=1e-9)
    np.testing.assert_allclose(found.shares["calibration"], [0.0, 1 / 9, 0.0], atol=1e-9)
    np.testing.assert_allclose(found.rest, 0.0, atol=1e-9)
    mean = np.sqrt((SLOPES.mean(axis=1) ** 2).sum())
    assert found.slide_mean_sd == pytest.approx(mean)
    weights = found.sd**2 / (found.sd**2).sum()
    totals = found.totals()
    assert totals["registration"] == pytest.approx(weights @ found.shares["registration"])
    assert sum(totals.values()) == pytest.approx(1.0)


def test_what_no_source_has_alone_is_the_rest():
    draws = input_draws(200, 2, 0)
    product = np.stack([draws[:, 0] * draws[:, 1], draws[:, 0] ** 2, draws[:, 0]], axis=1)
    found = input_spread(draws, ("a", "b"), product)
    assert found.rest[0] > 0.9
    assert found.rest[1] > 0.9
    assert found.rest[2] == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(found.shares["a"] + found.shares["b"] + found.rest, 1.0)


def test_chance_is_not_taken_for_a_share():
    draws = input_draws(24, 13, 0)
    noise = np.random.default_rng(0).normal(size=(24, 400))
    found = input_spread(draws, [str(n) for n in range(13)], noise)
    assert found.totals()["rest"] > 0.7  # a fit of 13 slopes explains half of it


def test_tiles_without_prediction_and_tiles_that_do_not_vary():
    draws = input_draws(16, 4, 0)
    predicted = 0.5 + draws @ SLOPES
    predicted[:, 1], predicted[:, 2] = np.nan, 0.7
    found = input_spread(draws, SOURCES, predicted)
    assert np.isnan(found.sd[1])
    assert found.sd[2] == 0.0
    assert np.isnan(found.shares["registration"][1:]).all()
    assert found.totals()["registration"] == pytest.approx(1.0)
    assert found.summary()["sd_median"] == pytest.approx(found.sd[0] / 2)


def test_too_few_draws_are_refused():
    with pytest.raises(InputError, match="16 draws of the inputs: give at least 17, or 0 for none"):
        input_draws(16, 13, 0)
