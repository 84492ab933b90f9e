"""The chain against an ODE solver, and three ways to its posterior against one another."""

import itertools
import math
from dataclasses import replace
from decimal import Decimal, localcontext

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.stats import chi2

from napari_mosaik.core import InputError
from napari_mosaik.twin import Observation, Prior, chain_posterior, predict, update, value_of_scan
from napari_mosaik.twin import chain as chain_module
from napari_mosaik.twin.chain import Chain
from napari_mosaik.twin.sampling import effective_size, pareto_k, split_rhat

from .conftest import chain_prior, scans

TWO = ("transfer_per_h", "slow_half_life_h")
FIVE = ("transfer_per_h", "k03_per_h", "plasma_start", "fast_half_life_h", "slow_half_life_h")


def by_ode(values, times):
    """Tumour and blood, with the prior's shares of blood 0.05 and cells 0.45."""
    fast, slow = math.log(2) / values["fast_half_life_h"], math.log(2) / values["slow_half_life_h"]

    def plasma(t):
        return values["plasma_start"] * (0.4 * np.exp(-fast * t) + 0.6 * np.exp(-slow * t))

    def change(t, state):
        bound, inside = state
        return [
            values["transfer_per_h"] * plasma(t) - values["k32_per_h"] * bound,
            values["k32_per_h"] * bound - values["k03_per_h"] * inside,
        ]

    state = solve_ivp(change, (0, max(times)), [0, 0], "LSODA", times, rtol=1e-11, atol=1e-12).y
    blood = 0.55 * plasma(np.asarray(times))
    return 0.95 * state.sum(axis=0) + 0.05 * blood, blood


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"k32_per_h": 8.33e-4},  # both rates equal
        {"k32_per_h": math.log(2) / 12},  # as the fast rate of plasma
        {"k03_per_h": math.log(2) / 90 * (1 + 1e-6), "k32_per_h": math.log(2) / 90},
        {"fast_half_life_h": 90.0},
        {"k03_per_h": 1e-9},
    ],
)
def test_the_closed_form_against_an_ode_solver(changes):
    values = {name: pair[0] for name, pair in _medians().items()} | changes
    prior = chain_prior(**{name: (value, 0.5) for name, value in values.items()})
    chain, times = Chain(prior, TWO), [0.0, 0.5, 6.0, 72.0, 168.0, 336.0]
    tumour, blood = by_ode(values, times)
    np.testing.assert_allclose(np.exp(chain.ln_curve(chain.mean, times, "tumour")), tumour, 1e-7)
    np.testing.assert_allclose(np.exp(chain.ln_curve(chain.mean, times, "blood")), blood, 1e-9)


def _medians():
    from .conftest import DEFAULTS

    return {name: pair for name, pair in DEFAULTS.items() if name != "fast_fraction"}


@pytest.mark.parametrize("gap", [0.0, 1e-12, 1e-6, 4e-5, 9e-5, 2e-4, 1e-2])
def test_divided_differences_of_nearly_equal_rates(gap):
    """Against 60 digits; 100 h, so that the series ends between the two middle gaps."""
    rates, time = np.array([0.01, 0.01 + gap / 3, 0.01 + gap]), 100.0
    with localcontext(prec=60):
        a, b, c = (Decimal(float(rate)) for rate in rates)
        levels = [(-x * Decimal(time)).exp() for x in (a, b, c)]
        if a == b or b == c:
            expected = float(levels[0]) * time**2 / 2
        else:
            first = (levels[1] - levels[0]) / (b - a)
            expected = float(((levels[2] - levels[1]) / (c - b) - first) / (c - a))
    for order in itertools.permutations(rates):
        found = chain_module._third_point_difference(*map(np.asarray, order), np.asarray(time))
        assert found == pytest.approx(expected, rel=1e-9)


def test_the_time_integral_against_quadrature():
    chain = Chain(chain_prior(), TWO)

    def rate(t):
        return math.exp(chain.ln_curve(chain.mean, [t], "tumour")[0]) * 2 ** (-t / 159.5)

    expected = quad(rate, 0, 4000, limit=300)[0]
    assert math.exp(chain.ln_integral(chain.mean, 159.5)) == pytest.approx(expected, rel=1e-6)


def brute(prior, free, rows, points=301):
    """Moments and log evidence by a plain grid of two parameters."""
    chain = Chain(prior, free)
    sd = np.sqrt(np.diag(chain.covariance))
    axes = [np.linspace(m - 6 * s, m + 6 * s, points) for m, s in zip(chain.mean, sd, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    ln = (
        -0.5 * (((grid - chain.mean) / sd) ** 2).sum(axis=1)
        - np.log(sd * math.sqrt(2 * math.pi)).sum()
    )
    for row in rows:
        noise = math.sqrt((row.sd / row.mean) ** 2 + 0.05**2)
        gap = (math.log(row.mean) - chain.ln_curve(grid, [row.time_h], row.region)[:, 0]) / noise
        ln = ln - 0.5 * gap**2 - math.log(noise * math.sqrt(2 * math.pi))
    share = np.exp(ln - ln.max())
    step = math.prod(axis[1] - axis[0] for axis in axes)
    weight = share / share.sum()
    mean = weight @ grid
    return mean, np.cov(grid.T, aweights=weight, ddof=0), ln.max() + math.log(share.sum() * step)


def test_the_grid_against_a_plain_one(patient):
    prior, rows = patient
    mean, covariance, evidence = brute(prior, TWO, rows)
    found = chain_posterior(rows, prior, free=TWO)
    np.testing.assert_allclose(found.mean, mean, atol=1e-4)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-3)
    assert found.log_evidence == pytest.approx(evidence, abs=1e-3)
    assert found.names == TWO
    assert found.method == "grid"
    turned = chain_posterior(rows, prior, free=TWO[::-1])
    np.testing.assert_allclose(turned.mean, found.mean[::-1], atol=1e-6)


def test_a_grid_finds_a_posterior_much_narrower_than_its_prior(patient):
    """Prior SD of 8 over many scans: the step of the first grid is wider than the posterior."""
    _, rows = patient
    wide = chain_prior(transfer_per_h=(0.054, 8.0))
    exact = [
        Observation(time_h=r.time_h + n / 10, region=r.region, mean=r.mean, sd=r.mean / 1000)
        for r in rows
        for n in range(10)
    ]
    narrow = chain_posterior(exact, wide, free=["transfer_per_h"])
    assert narrow.sd[0] < 0.05
    close = chain_prior(transfer_per_h=(float(np.exp(narrow.mean[0])), 0.2))
    same = chain_posterior(exact, close, free=["transfer_per_h"])
    assert narrow.sd[0] == pytest.approx(same.sd[0], rel=0.01)
    assert narrow.mean[0] == pytest.approx(same.mean[0], abs=0.01 * same.sd[0])


@pytest.mark.parametrize("method", ["laplace", "ensemble"])
def test_draws_against_the_grid(patient, method):
    prior, rows = patient
    grid = chain_posterior(rows, prior, free=TWO)
    found = chain_posterior(rows, prior, free=TWO, method=method)
    assert found.method == method
    np.testing.assert_allclose(found.mean, grid.mean, atol=0.1 * grid.sd.min())
    np.testing.assert_allclose(found.sd, grid.sd, rtol=0.08)
    assert found.log_evidence == pytest.approx(grid.log_evidence, abs=0.02)


def test_five_free_parameters_against_importance_weights_of_the_prior():
    """With noisy scans the prior itself is a proposal that needs no maximum and no curvature."""
    prior = chain_prior()
    rows = scans(prior, {"transfer_per_h": 0.08}, cv=0.5)
    chain = Chain(prior, FIVE)
    rng = np.random.default_rng(5)
    draws = rng.multivariate_normal(chain.mean, chain.covariance, 60_000)
    ln = np.zeros(len(draws))
    for row in rows:
        noise = math.hypot(row.sd / row.mean, 0.05)
        gap = (math.log(row.mean) - chain.ln_curve(draws, [row.time_h], row.region)[:, 0]) / noise
        ln -= 0.5 * gap**2 + math.log(noise * math.sqrt(2 * math.pi))
    weight = np.exp(ln)
    found = chain_posterior(rows, prior, free=FIVE, method="laplace")
    assert found.log_evidence == pytest.approx(math.log(weight.mean()), abs=0.03)
    np.testing.assert_allclose(found.mean, weight @ draws / weight.sum(), atol=0.03)


def test_no_data_is_the_prior_and_equal_seeds_give_equal_bytes(patient):
    prior, rows = patient
    none = chain_posterior([], prior, free=TWO, method="laplace")
    assert none.mean.tolist() == [prior.mean[0], prior.mean[5]]
    assert none.covariance.tolist() == [[0.5**2, 0], [0, 0.3**2]]
    assert none.log_evidence == 0
    for method in ("grid", "laplace"):
        first = chain_posterior(rows, prior, free=TWO, method=method, seed=3)
        again = chain_posterior(rows[::-1], prior, free=TWO, method=method, seed=3)
        other = chain_posterior(rows, prior, free=TWO, method=method, seed=4)
        assert first.draws.tobytes() == again.draws.tobytes()
        assert first.draws.tobytes() != other.draws.tobytes()


def test_the_ensemble_is_seeded():
    from napari_mosaik.twin import sampling

    def ln_density(points):
        return -0.5 * (points**2).sum(axis=1)

    found = []
    for place, seed in enumerate((7, 7, 8)):
        np.random.seed(place)  # noqa: NPY002 - emcee begins with that generator
        found.append(sampling.ensemble_draws(ln_density, np.zeros(2), np.eye(2), seed))
    first, again, other = found
    assert first.tobytes() == again.tobytes()
    assert not np.isin(first, other).any()
    np.testing.assert_allclose(np.cov(first, rowvar=False), np.eye(2), atol=0.15)
    assert sampling.ln_bridge(ln_density, first, 7) == pytest.approx(
        math.log(2 * math.pi), abs=0.01
    )


def test_how_good_draws_are():
    rng = np.random.default_rng(0)
    chains = rng.standard_normal((1000, 8, 2))
    assert split_rhat(chains) < 1.01
    assert effective_size(chains) == pytest.approx(8000, rel=0.15)
    assert split_rhat(chains + np.arange(8)[None, :, None]) > 1.5
    slow = np.cumsum(chains, axis=0)
    assert effective_size(slow) < 100
    assert pareto_k(rng.pareto(4, 20_000)) == pytest.approx(0.25, abs=0.1)
    assert pareto_k(rng.pareto(1, 20_000)) == pytest.approx(1.0, abs=0.25)
    assert pareto_k(np.ones(1000)) == 0


def test_weights_that_cannot_be_relied_on_go_to_the_ensemble(patient, monkeypatch):
    from napari_mosaik.twin import posterior

    monkeypatch.setattr(posterior, "MAX_PARETO_K", -10.0)
    prior, rows = patient
    found = chain_posterior(rows, prior, free=["transfer_per_h"], method="laplace")
    assert found.method == "ensemble"


def test_update_scores_with_the_predictive_density(patient):
    prior, rows = patient
    before = chain_posterior(rows[:2], prior, free=TWO)
    taken = update(before, rows[2])
    whole = chain_posterior(rows[:3], prior, free=TWO)
    assert taken.after.mean.tobytes() == whole.mean.tobytes()
    assert taken.log_score == pytest.approx(whole.log_evidence - before.log_evidence, abs=1e-3)
    levels = Chain(prior, TWO).ln_curve(before.draws, [rows[2].time_h], rows[2].region)[:, 0]
    spread = math.sqrt(levels.var() + rows[2].ln_sd ** 2)
    assert taken.z == pytest.approx((rows[2].ln_mean - levels.mean()) / spread, abs=0.02)
    far = replace(rows[2], mean=1.5 * rows[2].mean, sd=1.5 * rows[2].sd)
    z = (far.ln_mean - levels.mean()) / spread
    assert z > 1.5
    assert update(before, far).z == pytest.approx(z, rel=0.02)


def test_blood_is_predicted_although_no_free_parameter_enters_it(patient):
    prior = patient[0]
    posterior = chain_posterior(patient[1][:1], prior, free=["transfer_per_h", "k03_per_h"])
    curve = predict(posterior, [24.0, 168.0], "blood")
    known = by_ode(dict(zip(prior.names, np.exp(prior.mean), strict=True)), [24.0, 168.0])[1]
    for found in (curve.low, curve.median, curve.high, curve.draws[-1]):
        np.testing.assert_allclose(found, known, rtol=1e-6)
    noisy = predict(posterior, 24.0, "blood", cv=0.1)
    assert noisy.draws.shape == (len(posterior.draws), 1)
    assert noisy.high / noisy.median == pytest.approx(math.exp(0.16449), rel=1e-3)


def test_prediction_of_regions_and_of_observations(patient):
    prior, rows = patient
    posterior = chain_posterior(rows, prior, free=TWO)
    curve = predict(posterior, [24, 336])
    seen = predict(posterior, [24, 336], cv=0.3)
    assert curve.draws.shape == (len(posterior.draws), 2)
    np.testing.assert_allclose(np.log(seen.median / curve.median), 0, atol=0.03)
    wider = np.log(seen.high / seen.low) / (2 * 1.6448536)
    own = np.log(curve.draws).std(axis=0)
    np.testing.assert_allclose(wider, np.hypot(own, 0.3), rtol=0.05)
    blood = predict(posterior, 336, "blood")
    assert blood.median == pytest.approx(
        0.55 * 25 * 0.6 * 2 ** (-336 / math.exp(posterior.mean[1])), rel=0.02
    )
    assert isinstance(blood.low, float)


def test_the_value_of_a_scan_against_simulated_scans(patient):
    """Mean posterior variance over drawn outcomes, by a plain reweighting of the draws."""
    prior, rows = patient
    posterior = chain_posterior(rows[:2], prior, free=("k03_per_h", "slow_half_life_h"))
    found = value_of_scan(posterior, [96.0, 336.0], ("uptake", 400.0), cv=0.1)
    rng = np.random.default_rng(2)
    ln = np.log(predict(posterior, [96.0, 336.0, 400.0]).draws)
    for place in range(2):
        after = []
        for outcome in ln[:300, place] + 0.1 * rng.standard_normal(300):
            weight = np.exp(-0.5 * ((ln[:, place] - outcome) / 0.1) ** 2)
            mean = weight @ ln[:, 2] / weight.sum()
            after.append(weight @ (ln[:, 2] - mean) ** 2 / weight.sum())
        assert found.sd_after[place] == pytest.approx(math.sqrt(np.mean(after)), rel=0.1)
    assert found.reduction[1] > found.reduction[0]
    assert value_of_scan(posterior, 336, ("time_integral", 159.5)).sd_after[0] > 0


def test_coverage_of_simulated_patients():
    """90 % intervals of day-14 uptake in 200 patients hold 84 to 96 %; ranks are uniform."""
    rng = np.random.default_rng(3)
    prior = chain_prior()
    held, ranks = [], []
    for _ in range(200):
        truth = np.exp(rng.multivariate_normal(prior.mean[[0, 5]], np.diag([0.5**2, 0.3**2])))
        values = dict(zip(TWO, truth, strict=True))
        rows = scans(prior, values, cv=0.06, noise=rng)
        band = predict(chain_posterior(rows, prior, free=TWO, method="laplace"), 336)
        wanted = scans(prior, values, (336,), ("tumour",))[0].mean
        held.append(band.low <= wanted <= band.high)
        ranks.append((band.draws[:, 0] < wanted).mean())
    counts = np.histogram(ranks, bins=10, range=(0, 1))[0]
    assert ((counts - 20) ** 2 / 20).sum() < chi2.ppf(0.999, 9)
    assert 0.84 <= np.mean(held) <= 0.96


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"free": FIVE}, "at most two free parameters, not 5"),
        ({"free": ["k21"]}, "'k21' is not a parameter of the prior"),
        ({"free": ["k03_per_h", "k03_per_h"]}, "named twice"),
        ({"free": []}, "at least one free parameter"),
        ({"free": ["k32_per_h"]}, "prior SD of the free parameter k32_per_h is 0"),
        ({"free": TWO, "method": "guess"}, "'guess' is none of grid, laplace, ensemble"),
    ],
)
def test_what_the_chain_refuses(patient, arguments, words):
    prior = chain_prior(k32_per_h=(0.2, 0.0))
    with pytest.raises(InputError, match=words):
        chain_posterior(patient[1], prior, **arguments)


def test_observations_that_the_chain_refuses(patient):
    prior, rows = patient
    with pytest.raises(InputError, match="not the region 'liver'"):
        chain_posterior([Observation(time_h=5, region="liver", mean=1, sd=0.1)], prior, free=TWO)
    with pytest.raises(InputError, match="observed twice"):
        chain_posterior([*rows, rows[0]], prior, free=TWO)
    with pytest.raises(InputError, match="was taken in already"):
        update(chain_posterior(rows, prior, free=TWO), rows[0])
    far = [Observation(time_h=72, region="blood", mean=1e9, sd=1e7)]
    with pytest.raises(InputError, match="beyond 6 prior SD"):
        chain_posterior(far, chain_prior(), free=["plasma_start"])
    with pytest.raises(InputError, match=r"make it with Prior\.chain"):
        chain_posterior([], Prior(prior.names, prior.mean, prior.covariance), free=TWO)


def test_what_scans_cannot_tell_apart_is_stated(patient):
    prior, rows = patient
    free = ("transfer_per_h", "plasma_start")
    tumour = [row for row in rows if row.region == "tumour"]
    assert "as a product only" in chain_posterior(tumour, prior, free=free).notes[0]
    assert "that of the prior" in chain_posterior(tumour, prior, free=TWO).notes[0]
    assert "One scan only" in chain_posterior(tumour[:1], prior, free=free).notes[1]
    assert chain_posterior(rows, prior, free=free).notes == ()
