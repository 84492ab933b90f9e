"""Information of scans against its definitions; what is bounded, and the words."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq, least_squares

from napari_mosaik.core import InputError
from napari_mosaik.twin import Observation, Prior, identifiability, log_linear_posterior
from napari_mosaik.twin.chain import Chain

from .conftest import chain_prior, scans

LINE = Prior.log_linear(intercept=(2.0, 1.0), slope_per_h=(0.002, 0.005))
SCANS = [
    Observation(time_h=t, region="tumour", mean=m, sd=0.07 * m)
    for t, m in [(72, 7.0), (120, 6.4), (168, 6.1)]
]


def test_a_line_against_its_normal_equations():
    found = identifiability("log_linear", LINE, SCANS)
    rows = np.array([[1.0, -one.time_h] for one in SCANS])
    noise = np.array([math.hypot(0.07, 0.05)] * 3)
    information = (rows / noise[:, None]).T @ (rows / noise[:, None])
    alone = np.sqrt(np.diag(np.linalg.inv(information)))
    posterior = log_linear_posterior(SCANS, LINE)
    estimate = np.linalg.lstsq(rows, np.log([one.mean for one in SCANS]))[0]
    for place, row in enumerate(found.rows):
        assert row.name == LINE.names[place]
        assert row.prior_sd == LINE.sd[place]
        assert row.cramer_rao_sd == pytest.approx(alone[place], rel=1e-8)
        contraction = 1 - (posterior.sd[place] / LINE.sd[place]) ** 2
        assert row.contraction == pytest.approx(contraction, rel=1e-8)
        reach = math.sqrt(3.84) * alone[place]
        assert row.profile_low == pytest.approx(estimate[place] - reach, rel=1e-6)
        assert row.profile_high == pytest.approx(estimate[place] + reach, rel=1e-6)
    assert [row.word for row in found.rows] == ["identified", "identified"]
    np.testing.assert_allclose(found.singular_values, np.linalg.svd(rows, compute_uv=False))
    spread = posterior.covariance / np.outer(posterior.sd, posterior.sd)
    assert 0.9 < spread[0, 1] < 0.95
    assert found.correlated == ()
    wide = Prior.log_linear(intercept=(2.0, 10.0), slope_per_h=(0.002, 0.05))
    assert identifiability("log_linear", wide, SCANS).correlated == (LINE.names,)


def test_the_profile_of_a_slope_alone_keeps_the_intercept_at_its_prior():
    row = identifiability("log_linear", LINE, SCANS, free=["slope_per_h"]).rows[0]
    times = np.array([one.time_h for one in SCANS])
    fallen = 2.0 - np.log([one.mean for one in SCANS])
    slope = (times @ fallen) / (times @ times)
    reach = math.sqrt(3.84) * math.hypot(0.07, 0.05) / math.sqrt(times @ times)
    assert (row.profile_low, row.profile_high) == pytest.approx((slope - reach, slope + reach))


def test_one_scan_of_a_line_is_prior_only_whatever_its_contraction():
    found = identifiability("log_linear", LINE, SCANS[:1])
    assert found.rows[0].contraction > 0.85
    for row in found.rows:
        assert row.cramer_rao_sd == math.inf
        assert (row.profile_low, row.profile_high) == (-math.inf, math.inf)
        assert row.word == "prior only"
    assert found.singular_values[1] == 0


def test_words_follow_the_contraction():
    def words(sd):
        prior = Prior.log_linear(intercept=(2.0, 1.0), slope_per_h=(0.002, sd))
        row = identifiability("log_linear", prior, SCANS).rows[1]
        return row.contraction, row.word

    for sd, word in [(0.01, "identified"), (0.002, "partly"), (0.0008, "prior only")]:
        contraction, found = words(sd)
        assert found == word
        bar = {"identified": (0.9, 1), "partly": (0.5, 0.9), "prior only": (0, 0.5)}[word]
        assert bar[0] <= contraction <= bar[1]


@pytest.mark.parametrize(("model", "prior"), [("log_linear", LINE), ("chain", chain_prior())])
def test_without_data_nothing_is_learnt(model, prior):
    found = identifiability(model, prior, [])
    assert [row.name for row in found.rows] == list(prior.names)
    for row in found.rows:
        assert (row.contraction, row.cramer_rao_sd, row.word) == (0.0, math.inf, "prior only")
    assert (found.singular_values == 0).all()
    assert found.correlated == ()


def test_a_parameter_that_does_not_enter_is_not_learnt(patient):
    prior, rows = patient
    blood = [row for row in rows if row.region == "blood"]
    found = identifiability("chain", prior, blood, free=["k03_per_h", "plasma_start"])
    assert found.rows[0].contraction == 0.0
    assert found.rows[0].cramer_rao_sd == math.inf
    assert found.rows[0].word == "prior only"
    assert found.rows[1].word == "identified"
    assert found.rows[1].contraction > 0.9


def test_three_scans_with_blood_determine_two_numbers(patient):
    prior, rows = patient
    found = {row.name: row for row in identifiability("chain", prior, rows).rows}
    assert found["transfer_per_h"].word != "prior only"
    assert found["slow_half_life_h"].word != "prior only"
    for name in ("k32_per_h", "k03_per_h", "fast_half_life_h"):
        assert found[name].word == "prior only"
    assert math.isinf(found["k03_per_h"].profile_low)


def test_without_blood_transfer_and_plasma_are_a_product(patient):
    prior, rows = patient
    tumour = [row for row in rows if row.region == "tumour"]
    found = identifiability("chain", prior, tumour, free=["transfer_per_h", "plasma_start"])
    assert {row.word for row in found.rows} == {"prior only"}
    assert math.isinf(found.rows[0].profile_high)


def test_the_profile_of_the_chain_against_a_root_of_refits(patient):
    prior, rows = patient
    free = ("transfer_per_h", "slow_half_life_h")
    chain = Chain(prior, free)
    y, sd = [row.ln_mean for row in rows], [row.ln_sd for row in rows]

    def gaps(point):
        return (chain.ln_means(np.asarray(point), rows) - y) / sd

    best = least_squares(gaps, chain.mean)

    def rise(value):
        fit = least_squares(lambda other: gaps([value, other[0]]), [best.x[1]])
        return 2 * (fit.cost - best.cost) - 3.84

    row = identifiability("chain", prior, rows, free=free).rows[0]
    low = brentq(rise, best.x[0] - 1, best.x[0] - 1e-3)
    high = brentq(rise, best.x[0] + 1e-3, best.x[0] + 1)
    assert row.profile_low == pytest.approx(low, abs=1e-3)
    assert row.profile_high == pytest.approx(high, abs=1e-3)


def test_sensitivities_of_the_chain(patient):
    """ln of blood is linear in ln of the start, and its slope to the half-life is known."""
    prior = chain_prior()
    rows = scans(prior, {"k03_per_h": 8.33e-4}, (100.0,), ("blood",))
    chain = Chain(prior, ("plasma_start", "slow_half_life_h"))
    slow = 0.6 * 2 ** (-100 / 90)
    expected = [1.0, slow * math.log(2) * 100 / 90 / (slow + 0.4 * 2 ** (-100 / 12))]
    np.testing.assert_allclose(chain.sensitivity(chain.mean, rows)[0], expected, rtol=1e-6)


def test_what_is_refused():
    blood = Observation(time_h=72, region="blood", mean=3.0, sd=0.1)
    with pytest.raises(InputError, match="one region, not blood and tumour"):
        identifiability("log_linear", LINE, [*SCANS, blood])
    with pytest.raises(InputError, match="'line' is neither 'log_linear' nor 'chain'"):
        identifiability("line", LINE, SCANS)
    with pytest.raises(InputError, match="none of the model 'chain'"):
        identifiability("chain", LINE, SCANS)
    fixed = chain_prior(k32_per_h=(0.2, 0.0))
    assert "k32_per_h" not in [row.name for row in identifiability("chain", fixed, SCANS).rows]
    with pytest.raises(InputError, match="prior SD of the free parameter k32_per_h is 0"):
        identifiability("chain", fixed, SCANS, free=["k32_per_h"])
