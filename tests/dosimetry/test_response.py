"""Response by hand and by published oxygen curves."""

import math

import numpy as np
import pytest

from napari_mosaik.core import InputError
from napari_mosaik.dosimetry import (
    oxygen_effect,
    oxygen_from_distance,
    protraction,
    respond,
    uneven_ln_survival,
)

LQ = {"alpha_per_gy": 0.3, "beta_per_gy2": 0.03}


def test_a_single_exponential_by_hand():
    """BED = D (1 + D / (alpha/beta) lambda / (lambda + mu))."""
    decay, mu, dose = math.log(2) / 60, math.log(2) / 1.5, 40.0
    q = protraction([1.0], [decay], [(1, mu)]) * dose**2
    found = respond(dose, q, **LQ)
    bed = dose * (1 + dose / 10 * decay / (decay + mu))
    assert found.bed_gy == pytest.approx(bed, rel=1e-12)
    assert found.eqd2_gy == pytest.approx(bed / 1.2, rel=1e-12)
    assert found.ln_survival == pytest.approx(-0.3 * bed, rel=1e-12)
    assert (found.dose_gy, found.q_gy2, found.rbe_weighted_gy) == (dose, q, dose)
    assert np.isnan(found.critical_time_h)


def test_every_term():
    found = respond(
        20.0,
        50.0,
        alpha_per_gy=0.25,
        beta_per_gy2=0.05,
        alpha_particle_gy=3.0,
        rbe=4.0,
        oxygen=0.5,
        oxygen_alpha=0.8,
        time_h=1000.0,
        kick_off_h=400.0,
        doubling_time_h=300.0,
    )
    ln_s = -0.25 * (20 * 0.5 + 4 * 3 * 0.8) - 0.05 * 50 * 0.25 + math.log(2) / 300 * 600
    assert found.ln_survival == pytest.approx(ln_s)
    assert found.dose_gy == 23
    assert found.rbe_weighted_gy == 32
    assert found.bed_gy == pytest.approx(-ln_s / 0.25)
    assert found.eqd2_gy == pytest.approx(-ln_s / 0.25 / (1 + 2 * 0.05 / 0.25))


def test_repopulation_before_the_kick_off_and_more_born_than_killed():
    before = respond(1.0, 0.1, time_h=10, kick_off_h=20, doubling_time_h=5, **LQ)
    assert before.ln_survival == respond(1.0, 0.1, **LQ).ln_survival
    assert respond(0.0, 0.0, time_h=10, doubling_time_h=5, **LQ).ln_survival == pytest.approx(
        2 * math.log(2)
    )


def test_tiles_times_draws():
    rng = np.random.default_rng(0)
    dose = rng.uniform(1, 50, (7, 1))
    alpha, beta = rng.uniform(0.1, 0.5, 5), rng.uniform(0.01, 0.05, 5)
    found = respond(dose, 0.1 * dose**2, alpha_per_gy=alpha, beta_per_gy2=beta, oxygen=0.9)
    for field in found.__slots__:
        assert getattr(found, field).shape == (7, 5)
    one = respond(
        dose[3, 0],
        0.1 * dose[3, 0] ** 2,
        alpha_per_gy=alpha[2],
        beta_per_gy2=beta[2],
        oxygen=0.9,
    )
    assert found.ln_survival[3, 2] == pytest.approx(one.ln_survival)
    assert found.eqd2_gy[3, 2] == pytest.approx(one.eqd2_gy)


def test_nan_stays_where_it_is():
    found = respond([1.0, np.nan], [1.0, 1.0], **LQ)
    assert np.isnan(found.ln_survival).tolist() == [False, True]


def test_no_beta_means_equal_doses():
    found = respond(10.0, 5.0, alpha_per_gy=0.3, beta_per_gy2=0.0)
    assert found.bed_gy == found.eqd2_gy == pytest.approx(10)


def test_the_critical_time():
    decay, start = math.log(2) / 60, 0.5
    found = respond(1, 1, doubling_time_h=200.0, rate=([start], [decay]), **LQ)
    expected = math.log(0.3 * start / (math.log(2) / 200)) / decay
    assert found.critical_time_h == pytest.approx(expected)
    weak = respond(1, 1, doubling_time_h=200.0, rate=([1e-3], [decay]), **LQ)
    assert weak.critical_time_h == 0
    assert np.isnan(respond(1, 1, rate=([start], [decay]), **LQ).critical_time_h)
    endless = respond(1, 1, doubling_time_h=200.0, rate=([start], [0.0]), **LQ)
    assert np.isinf(endless.critical_time_h)


def test_the_critical_time_of_uptake_and_clearance_for_each_tile_and_draw():
    levels = np.array([1.0, 0.2])[:, None, None] * np.array([1.0, -1.0])
    rates = np.array([0.005, 0.1])
    doubling = np.array([100.0, 300.0, np.inf])
    found = respond(1, 1, doubling_time_h=doubling, rate=(levels, rates), **LQ).critical_time_h
    assert found.shape == (2, 3)
    assert np.isnan(found[:, 2]).all()
    for tile in range(2):
        for draw in range(2):
            time = found[tile, draw]
            level = (levels[tile, 0] * np.exp(-rates * time)).sum()
            assert 0.3 * level == pytest.approx(math.log(2) / doubling[draw], rel=1e-9)
            later = (levels[tile, 0] * np.exp(-rates * (time + 1))).sum()
            assert later < level


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"alpha_per_gy": 0.0}, "alpha must be above 0 /Gy: with alpha/beta = 0"),
        ({"alpha_per_gy": -1.0}, "alpha must be 0 or more"),
        ({"beta_per_gy2": -1.0}, "beta must be 0 or more"),
        ({"dose_gy": -1.0}, "the dose must be 0 or more"),
        ({"q_gy2": -1.0}, "squared dose must be"),
        ({"alpha_particle_gy": -1.0}, "dose of alpha particles must be"),
        ({"rbe": -1.0}, "RBE"),
        ({"oxygen": 1.2}, r"oxygen effect h must lie in \[0, 1\]"),
        ({"oxygen_alpha": -0.2}, r"alpha particles must lie in \[0, 1\]"),
        ({"time_h": -1.0}, "time must be"),
        ({"kick_off_h": -1.0}, "kick-off must be"),
        ({"doubling_time_h": 0.0}, "doubling time must be above 0 h, not 0"),
        ({"dose_gy": [1.0, 2.0], "q_gy2": [1.0, 2.0, 3.0]}, "do not broadcast"),
        ({"doubling_time_h": 5.0, "rate": ([1.0], [-0.1])}, "decay rates must be"),
        ({"doubling_time_h": 5.0, "rate": ([1.0, 2.0], [0.1])}, "equal length"),
        ({"alpha_per_gy": "x"}, "alpha must be numbers"),
    ],
)
def test_what_is_refused(more, says):
    given = {"dose_gy": 1.0, "q_gy2": 1.0, **LQ} | more
    with pytest.raises(InputError, match=says):
        respond(given.pop("dose_gy"), given.pop("q_gy2"), **given)


def test_the_oxygen_effect():
    assert oxygen_effect([0.0, 3.0, np.inf]) == pytest.approx([1 / 3, 2 / 3, 1])
    q = np.array([[0.5, 20.0], [np.nan, 40.0]])
    expected = (2.5 * q + 4) / (2.5 * (q + 4))
    assert oxygen_effect(q, m=2.5, k=4) == pytest.approx(expected, nan_ok=True)
    assert oxygen_effect(12.0, m=1) == 1


def test_oxygen_by_the_distance_from_a_vessel():
    reach = math.sqrt(2 * 2000 * 40 / 15)
    x = np.array([0.0, reach / 2, reach, 2 * reach, np.nan])
    found = oxygen_from_distance(x)
    assert found == pytest.approx([40, 10, 0, 0, np.nan], nan_ok=True)
    # D q'' = M in between
    h = 1e-2
    bend = (
        oxygen_from_distance(50 + h) - 2 * oxygen_from_distance(50.0) + oxygen_from_distance(50 - h)
    ) / h**2
    assert 2000 * bend == pytest.approx(15, rel=1e-4)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: oxygen_effect(-1.0), "pressure of oxygen must be 0 mmHg or more"),
        (lambda: oxygen_effect(1.0, m=0.5), "at least 1"),
        (lambda: oxygen_effect(1.0, k=0), "oxygen pressure k must be"),
        (lambda: oxygen_from_distance(-1.0), "distance from a vessel must be"),
        (lambda: oxygen_from_distance(1.0, vessel_mmhg=-1), "pressure at the vessel"),
        (lambda: oxygen_from_distance(1.0, diffusion_um2_s=0), "diffusion coefficient"),
        (lambda: oxygen_from_distance(1.0, consumption_mmhg_s=0), "consumption of oxygen"),
    ],
)
def test_oxygen_that_is_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()


def by_sum(linear, quadratic, cv):
    sd = math.sqrt(math.log1p(cv**2))
    z = np.linspace(-40, 12, 400_001)
    x = np.exp(sd * z - sd**2 / 2)
    parts = -(linear * x + quadratic * x**2) - z**2 / 2
    top = parts.max()
    return top + math.log(np.exp(parts - top).sum() * (z[1] - z[0]) / math.sqrt(2 * math.pi))


@pytest.mark.parametrize("cv", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("effect", [(0.1, 0.0), (3.0, 0.5), (20.0, 2.0), (300.0, 0.0), (5.0, 90.0)])
def test_an_uneven_dose_against_a_sum(effect, cv):
    assert uneven_ln_survival(*effect, cv) == pytest.approx(by_sum(*effect, cv), rel=1e-6)


def test_more_cells_survive_an_uneven_dose():
    linear = np.array([[0.0], [1.0], [10.0], [np.nan]])
    cv = np.array([0.0, 0.1, 0.3, 0.5])
    found = uneven_ln_survival(linear, 0.1 * linear, cv)
    assert found.shape == (4, 4)
    assert found[:, 0] == pytest.approx(-1.1 * linear[:, 0], nan_ok=True)
    assert found[0] == pytest.approx(np.zeros(4), abs=1e-12)
    assert (np.diff(found[1:3], axis=1) > 0).all()
    assert np.isnan(found[3]).all()


def test_uneven_doses_that_are_refused():
    with pytest.raises(InputError, match="within a tile must lie in"):
        uneven_ln_survival(1.0, 1.0, 0.6)
    with pytest.raises(InputError, match="linear effect must be 0"):
        uneven_ln_survival(-1.0, 1.0, 0.1)
