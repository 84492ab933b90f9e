"""The conjugate model by other ways of computing it; coverage and calibration."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2, multivariate_normal, norm

from napari_mosaik.core import InputError
from napari_mosaik.twin import (
    Observation,
    Prior,
    log_linear_posterior,
    predict,
    update,
    value_of_scan,
)

PRIOR = Prior.log_linear(intercept=(2.0, 1.0), slope_per_h=(0.002, 0.005))


def scan(time_h, mean, sd=0.4, **about):
    return Observation(**{"time_h": time_h, "region": "tumour", "mean": mean, "sd": sd, **about})


SCANS = [scan(72, 7.0), scan(120, 6.5, 0.3), scan(168, 6.0, 0.5), scan(336, 4.4, from_slice=True)]


def by_joint_gaussian(scans, prior):
    """Mean, covariance and log evidence from the joint Gaussian of parameters and ln y."""
    rows = np.array([[1.0, -one.time_h] for one in scans])
    noise = [
        (one.sd / one.mean) ** 2 + 0.05**2 + (0.15**2 if one.from_slice else 0) for one in scans
    ]
    y = np.log([one.mean for one in scans])
    total = rows @ prior.covariance @ rows.T + np.diag(noise)
    gain = prior.covariance @ rows.T @ np.linalg.inv(total)
    centre = rows @ prior.mean
    return (
        prior.mean + gain @ (y - centre),
        prior.covariance - gain @ rows @ prior.covariance,
        multivariate_normal(centre, total).logpdf(y),
    )


def test_posterior_and_evidence_against_the_joint_gaussian():
    found = log_linear_posterior(SCANS, PRIOR)
    mean, covariance, evidence = by_joint_gaussian(SCANS, PRIOR)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-10)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-9)
    np.testing.assert_allclose(found.sd, np.sqrt(np.diag(covariance)), rtol=1e-9)
    assert found.log_evidence == pytest.approx(evidence, abs=1e-9)
    assert found.names == ("intercept", "slope_per_h")


def test_sequential_equals_batch_and_the_scores_add_up():
    batch = log_linear_posterior(SCANS, PRIOR)
    prior, posterior, scores = PRIOR, log_linear_posterior([], PRIOR), 0.0
    for one in SCANS:
        step = log_linear_posterior([one], prior)
        prior = Prior(step.names, step.mean, step.covariance)
        taken = update(posterior, one)
        assert taken.before is posterior
        posterior, scores = taken.after, scores + taken.log_score
    for found in (prior, posterior):
        np.testing.assert_allclose(found.mean, batch.mean, rtol=1e-12)
        np.testing.assert_allclose(found.covariance, batch.covariance, rtol=1e-12)
    assert scores == pytest.approx(batch.log_evidence, abs=1e-12)


def test_the_order_of_scans_changes_no_bit():
    first = log_linear_posterior(SCANS, PRIOR)
    for order in itertools.permutations(SCANS):
        found = log_linear_posterior(order, PRIOR)
        assert found.mean.tobytes() == first.mean.tobytes()
        assert found.draws.tobytes() == first.draws.tobytes()


def test_no_data_is_the_prior():
    found = log_linear_posterior([], PRIOR)
    assert (found.mean == PRIOR.mean).all()
    assert (found.covariance == PRIOR.covariance).all()
    assert found.log_evidence == 0


def test_z_is_in_units_of_the_prediction():
    posterior = log_linear_posterior(SCANS[:2], PRIOR)
    next_one = scan(168, 9.0, 0.9)
    row = np.array([1.0, -168.0])
    variance = row @ posterior.covariance @ row + 0.1**2 + 0.05**2
    expected = (math.log(9) - row @ posterior.mean) / math.sqrt(variance)
    taken = update(posterior, next_one)
    assert taken.z == pytest.approx(expected, rel=1e-12)
    assert taken.log_score == pytest.approx(
        norm(0, math.sqrt(variance)).logpdf(math.log(9) - row @ posterior.mean), rel=1e-12
    )


def test_prediction_in_closed_form_and_from_draws():
    posterior = log_linear_posterior(SCANS, PRIOR)
    row = np.array([1.0, -250.0])
    sd = math.sqrt(row @ posterior.covariance @ row + 0.08**2)
    one = predict(posterior, 250, cv=0.08)
    assert one.median == pytest.approx(math.exp(row @ posterior.mean))
    assert one.low == pytest.approx(math.exp(row @ posterior.mean - 1.6448536 * sd))
    assert one.high == pytest.approx(math.exp(row @ posterior.mean + 1.6448536 * sd))
    assert one.draws.shape == (len(posterior.draws), 1)
    many = predict(posterior, [100, 250], cv=0.08)
    assert many.draws.shape == (len(posterior.draws), 2)
    assert many.median[1] == one.median
    np.testing.assert_allclose(
        np.percentile(np.log(many.draws[:, 1]), [5, 50, 95]),
        np.log([one.low, one.median, one.high]),
        atol=0.1 * sd,
    )
    assert predict(posterior, 250).high < one.high


def test_draws_are_those_of_the_posterior():
    posterior = log_linear_posterior(SCANS, PRIOR)
    np.testing.assert_allclose(posterior.draws.mean(axis=0), posterior.mean, atol=1e-2)
    np.testing.assert_allclose(
        np.cov(posterior.draws, rowvar=False), posterior.covariance, rtol=0.03
    )


def test_coverage_and_ranks_of_simulated_patients():
    """90 % intervals of 2,000 patients hold 87 to 93 %; ranks among the draws are uniform."""
    rng = np.random.default_rng(21)
    times = np.array([72.0, 120, 168])
    truth = rng.multivariate_normal(PRIOR.mean, PRIOR.covariance, 2000)
    held, ranks = np.zeros(2000, bool), np.zeros(2000)
    for n, (intercept, slope) in enumerate(truth):
        noise = math.hypot(0.08, 0.05) * rng.standard_normal(3)
        means = np.exp(intercept - slope * times + noise)
        rows = [scan(t, m, 0.08 * m) for t, m in zip(times, means, strict=True)]
        posterior = log_linear_posterior(rows, PRIOR)
        wanted = math.exp(intercept - slope * 336)
        found = predict(posterior, 336)
        held[n] = found.low <= wanted <= found.high
        ranks[n] = (found.draws[:, 0] < wanted).mean()
    assert 0.87 <= held.mean() <= 0.93
    counts = np.histogram(ranks[:200], bins=10, range=(0, 1))[0]
    assert ((counts - 20) ** 2 / 20).sum() < chi2.ppf(0.999, 9)


@pytest.mark.parametrize("target", [("uptake", 336), ("time_integral", 159.5)])
def test_the_value_of_a_scan_against_taking_it_in(target):
    posterior = log_linear_posterior(SCANS[:3], PRIOR)
    times = [24.0, 200.0, 400.0]

    def spread(state):
        if target[0] == "uptake":
            row = np.array([1.0, -target[1]])
        else:
            row = np.array([1.0, -1 / (posterior.mean[1] + math.log(2) / target[1])])
        return math.sqrt(row @ state.covariance @ row)

    found = value_of_scan(posterior, times, target, cv=0.08)
    after = []
    for time in times:
        # the covariance does not depend on what the scan shows; its stated error makes 0.08 in all
        one = scan(time, 5.0, 5.0 * math.sqrt(0.08**2 - 0.05**2))
        after.append(spread(update(posterior, one).after))
    np.testing.assert_allclose(found.sd_after, after, rtol=1e-9)
    np.testing.assert_allclose(found.sd_before, spread(posterior), rtol=1e-12)
    np.testing.assert_allclose(found.reduction, 1 - found.sd_after / found.sd_before)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([SCANS[0], scan(72, 5.0)], "observed twice"),
        ([SCANS[0], scan(120, 5.0, unit="kBq/mL")], "two units"),
        ([SCANS[0], scan(120, 5.0, region="blood")], "one region, not blood and tumour"),
    ],
)
def test_observations_that_do_not_fit_together(rows, words):
    with pytest.raises(InputError, match=words):
        log_linear_posterior(rows, PRIOR)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"time_h": -1}, "before the injection"),
        ({"time_h": "72"}, "time of a scan must be a number, not '72'"),
        ({"sd": 0}, "SD of the tumour at 72 h must be above 0"),
        ({"mean": -2}, "mean of the tumour at 72 h must be above 0"),
        ({"mean": math.nan}, "must be finite"),
        ({"unit": "SUV"}, "unit 'SUV' of the tumour at 72 h is unknown"),
        ({"decay_reference": ""}, "decay reference of the tumour at 72 h is missing"),
        ({"decay_reference": "scan"}, "decay-corrected to 'injection'"),
        ({"region": ""}, "name of its region"),
        ({"volume_ml": 0}, "volume of the tumour at 72 h"),
    ],
)
def test_an_observation_that_cannot_be_used(change, words):
    with pytest.raises(InputError, match=words):
        replace(SCANS[0], time_h=72, **change) if "time_h" not in change else replace(
            SCANS[0], **change
        )


def test_priors_that_cannot_be_used():
    with pytest.raises(InputError, match="prior SD of the free parameter slope_per_h is 0"):
        log_linear_posterior([], Prior.log_linear(intercept=(2, 1), slope_per_h=(0, 0)))
    with pytest.raises(InputError, match="SD of the prior of intercept must be 0 or more"):
        Prior.log_linear(intercept=(2, -1), slope_per_h=(0, 1))
    with pytest.raises(InputError, match="negative variance in some direction"):
        Prior(("intercept", "slope_per_h"), [0, 0], [[1, 2], [2, 1]])
    with pytest.raises(InputError, match="none of the model 'log_linear'"):
        log_linear_posterior([], Prior(("a",), [0], [[1]]))


def test_scans_and_targets_that_cannot_be_used():
    posterior = log_linear_posterior(SCANS, PRIOR)
    with pytest.raises(InputError, match="tumour at 72 h was taken in already"):
        update(posterior, scan(72, 3.0))
    with pytest.raises(InputError, match="says nothing of blood"):
        predict(posterior, 72, "blood")
    with pytest.raises(InputError, match="before the injection"):
        predict(posterior, [-5, 3])
    with pytest.raises(InputError, match="neither"):
        value_of_scan(posterior, [72], ("dose", 3))
    rising = log_linear_posterior(
        [], Prior.log_linear(intercept=(2, 1), slope_per_h=(-0.02, 0.001))
    )
    with pytest.raises(InputError, match="integral has no end"):
        value_of_scan(rising, [72], ("time_integral", 159.5))
