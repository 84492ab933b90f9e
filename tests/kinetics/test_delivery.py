import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from napari_mosaik.core import InputError
from napari_mosaik.kinetics import DeliveryParams, plasma_um, retained_um, tile_curves_um

DEFAULT = DeliveryParams()
NUMERIC = DeliveryParams(solver="ode")
TIMES = np.array([0.0, 1.0, 6.0, 24.0, 72.0, 120.0, 168.0, 336.0])


def chain(params, transfer, times):
    """The delivery-limited chain by an independent solver."""

    def rates(t, y):
        supply = transfer * plasma_um(params, t)
        inside = params.k32_per_h * y[0] - params.k03_per_h * y[1]
        return [supply - params.k32_per_h * y[0], inside]

    return solve_ivp(rates, (0, times[-1]), [0, 0], "DOP853", times, rtol=1e-12, atol=1e-16).y


def test_plasma_starts_at_dose_over_volume_and_halves_as_told():
    assert plasma_um(DEFAULT, 0.0) == pytest.approx(10e-3 / 150e3 / 3 * 1e6, rel=1e-12)
    single = DeliveryParams(fast_fraction=1.0)
    assert plasma_um(single, 24.0) == pytest.approx(plasma_um(single, 0.0) / 4, rel=1e-12)


def test_transfer_rate_is_permeability_times_surface_in_hours():
    soon = retained_um([0.005], [1.0], DEFAULT, 1e-6)[0]
    assert soon / 1e-6 == pytest.approx(3e-3 * 3600 * 0.005 * plasma_um(DEFAULT, 0.0), rel=1e-5)


def test_closed_form_against_an_independent_solution():
    curves = tile_curves_um([0.005], [1.0], DEFAULT, TIMES)[0]
    bound, inside = chain(DEFAULT, 3e-3 * 3600 * 0.005, TIMES)
    np.testing.assert_allclose(curves[:, 1], bound, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(curves[:, 2], inside, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("offset", [0.0, 1e-12, 1e-7, 1e-4])
def test_equal_and_nearly_equal_rates_take_their_limit(offset):
    half_life_h = 20.0
    rate = math.log(2) / half_life_h
    params = DeliveryParams(
        fast_half_life_h=half_life_h,
        k32_per_h=rate * (1 + offset),
        k03_per_h=rate * (1 - 2 * offset),
    )
    curves = tile_curves_um([0.005], [1.0], params, TIMES)[0]
    bound, inside = chain(params, 3e-3 * 3600 * 0.005, TIMES)
    np.testing.assert_allclose(curves[:, 1], bound, rtol=1e-8, atol=1e-15)
    np.testing.assert_allclose(curves[:, 2], inside, rtol=1e-8, atol=1e-15)


def test_numerical_solution_reaches_the_closed_form_when_antigen_is_plentiful():
    density, fraction = np.array([0.0, 0.002, 0.01]), np.array([0.5, 1.0, 0.3])
    closed = tile_curves_um(density, fraction, DEFAULT, TIMES)
    numeric = tile_curves_um(density, fraction, NUMERIC, TIMES)
    np.testing.assert_allclose(closed[:, 2:, 1:], numeric[:, 2:, 1:], rtol=2e-3, atol=1e-9)
    late_closed, late_numeric = closed[:, -1].sum(-1), numeric[:, -1].sum(-1)
    np.testing.assert_allclose(late_closed, late_numeric, rtol=1e-4)


def test_numerical_solution_conserves_antibody():
    params = DeliveryParams(solver="ode", antigen_um=0.01, k03_per_h=0.0)
    times = np.linspace(0, 200, 4001)
    curves = tile_curves_um([0.02], [1.0], params, times)[0]
    net = plasma_um(params, times) - curves[:, 0] / params.interstitial_fraction
    entered = np.trapezoid(3e-3 * 3600 * 0.02 * net, times)
    assert curves[-1].sum() == pytest.approx(entered, rel=1e-4)


def test_scarce_antigen_saturates_and_binds_no_more_than_there_is():
    params = DeliveryParams(solver="ode", antigen_um=0.002, k32_per_h=0.01)
    curves = tile_curves_um([0.02], [1.0], params, TIMES)[0]
    assert curves[:, 1].max() <= 0.002 * (1 + 1e-9)
    assert curves[3, 1] == pytest.approx(0.002, rel=0.05)
    free = retained_um([0.02], [1.0], DeliveryParams(k32_per_h=0.01), 336.0)[0]
    assert curves[-1, 1:].sum() < 0.5 * free


def test_uptake_doubles_with_vessels_and_with_antigen_positive_area():
    one, vessels, area = retained_um([0.004, 0.008, 0.004], [0.4, 0.4, 0.8])
    assert vessels == pytest.approx(2 * one, rel=1e-12)
    assert area == pytest.approx(2 * one, rel=1e-12)


def test_antigen_spread_evenly_hardly_matters_until_it_is_scarce():
    params = DeliveryParams(solver="ode", antigen_enters="density")
    full, some, trace, none = retained_um([0.02] * 4, [1.0, 0.3, 0.003, 0.0], params)
    assert some == pytest.approx(full, rel=0.01)
    assert trace < 0.5 * full
    assert none == pytest.approx(0.0, abs=1e-12)


def test_tissue_without_antigen_fills_up_to_the_interstitial_share_of_plasma():
    params = DeliveryParams(fast_half_life_h=1e9, slow_half_life_h=1e9)
    for solver in ("closed", "ode"):
        given = params.model_copy(update={"solver": solver})
        curves = tile_curves_um([0.02], [0.0], given, [0.0, 500.0])[0]
        assert curves[1, 0] == pytest.approx(0.3 * plasma_um(params, 0.0), rel=1e-5)
        np.testing.assert_allclose(curves[:, 1:], 0.0, atol=1e-12)
        spread = given.model_copy(update={"antigen_enters": "density"})
        evenly = tile_curves_um([0.02, 0.02], [0.0, 0.5], spread, [0.0, 500.0])
        np.testing.assert_allclose(evenly[0], curves, rtol=1e-6, atol=1e-12)
        assert evenly[1, 1, 1:].sum() > 0.0


def test_no_vessels_is_zero_and_not_measured_is_nan():
    for params in (DEFAULT, NUMERIC):
        got = retained_um([0.0, np.nan, 0.005, 0.005], [1.0, 1.0, np.nan, 1.0], params)
        assert got[0] == 0.0
        assert np.isnan(got[1:3]).all()
        assert got[3] > 0


def test_one_time_is_taken_as_a_number_or_a_list_of_one():
    one = retained_um([0.005], [1.0], time_h=72.0)
    np.testing.assert_array_equal(retained_um([0.005], [1.0], time_h=np.array([72.0])), one)
    with pytest.raises(InputError, match="one time"):
        retained_um([0.005], [1.0], time_h=[72.0, 120.0])


def test_isotropic_vessels_have_four_over_pi_times_the_surface():
    flat = retained_um([0.005], [1.0])[0]
    isotropic = retained_um([0.005], [1.0], DeliveryParams(isotropic_vessels=True))[0]
    assert isotropic / flat == pytest.approx(4 / math.pi, rel=1e-12)


def test_tiles_do_not_depend_on_one_another():
    rng = np.random.default_rng(0)
    density, fraction = rng.uniform(0, 0.02, 300), rng.uniform(0, 1, 300)
    together = retained_um(density, fraction)
    alone = [retained_um([d], [f])[0] for d, f in zip(density[:5], fraction[:5], strict=True)]
    np.testing.assert_array_equal(together[:5], alone)


@pytest.mark.parametrize(
    ("density", "fraction", "words"),
    [
        ([-1e-3], [1.0], "0 or more"),
        ([np.inf], [1.0], "0 or more"),
        ([1e-3], [1.2], "antigen fractions"),
        ([1e-3, 2e-3], [1.0], "equal length"),
    ],
)
def test_bad_input_is_refused(density, fraction, words):
    with pytest.raises(InputError, match=words):
        retained_um(density, fraction)
