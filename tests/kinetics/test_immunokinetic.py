import numpy as np
import pytest
from pydantic import ValidationError
from scipy.integrate import simpson, solve_ivp

from napari_mosaik.core import InputError
from napari_mosaik.core.errors import SolverError
from napari_mosaik.kinetics import (
    DeliveryParams,
    ImmunokineticParams,
    solve_immunokinetic,
    tile_curves_um,
)

TABLE_2 = ImmunokineticParams()
TIMES = np.concatenate([[0.0], np.geomspace(1e-5, 336, 300), [336.0, 400.0]])


def tight(params, times, recycling=True):
    """An independent solution: own equations, Radau, tolerances near rounding."""
    ka, total, k32, k03 = 3.5e4, params.antigen_um, params.k32_per_h, params.k03_per_h

    def rates(_t, y):
        free, bound, inside = y
        sites = total - bound if recycling else total - (params.free_0_um - free)
        return [-ka * sites * free, ka * sites * free - k32 * bound, k32 * bound - k03 * inside]

    start = [params.free_0_um, 0.0, 0.0]
    return solve_ivp(
        rates, (0, times[-1]), start, "Radau", np.unique(times), rtol=1e-12, atol=1e-18
    ).y[:, np.searchsorted(np.unique(times), times)]


def test_defaults_are_table_2():
    assert TABLE_2.k_a_per_um_h * 1e6 == 3.5e10
    assert TABLE_2.antigen_um == 0.3662
    assert (TABLE_2.k32_per_h, TABLE_2.k03_per_h) == (0.2, 8.33e-4)
    assert TABLE_2.free_0_um == 7.32e-2


def test_against_a_tight_radau_solution():
    got = solve_immunokinetic(TABLE_2, TIMES)
    free, bound, inside = tight(TABLE_2, TIMES)
    np.testing.assert_allclose(got.internalised_um[1:], inside[1:], rtol=1e-6)
    early = (TIMES > 0) & (TIMES <= 24)
    np.testing.assert_allclose(got.bound_um[early], bound[early], rtol=1e-6)
    np.testing.assert_allclose(got.bound_um[TIMES > 24], bound[TIMES > 24], atol=1e-9, rtol=0)
    late = TIMES > 0.01
    np.testing.assert_allclose(got.free_um[late], free[late], atol=1e-9, rtol=0)


def test_limit_of_instant_binding():
    got = solve_immunokinetic(TABLE_2, TIMES)
    a0, k32, k03 = TABLE_2.free_0_um, TABLE_2.k32_per_h, TABLE_2.k03_per_h
    t = TIMES[TIMES > 0.1]
    inside = a0 * k32 / (k32 - k03) * (np.exp(-k03 * t) - np.exp(-k32 * t))
    np.testing.assert_allclose(got.internalised_um[TIMES > 0.1], inside, rtol=2e-3)
    np.testing.assert_allclose(inside[-1], got.internalised_um[-1], rtol=1e-6)
    np.testing.assert_allclose(
        got.bound_um[TIMES > 0.1], a0 * np.exp(-k32 * t), rtol=2e-3, atol=1e-9
    )


def test_limit_of_second_order_binding():
    params = ImmunokineticParams(k32_per_h=0.0, k03_per_h=0.0)
    times = np.linspace(0, 2e-3, 50)
    a0, total, ka = params.free_0_um, params.antigen_um, params.k_a_per_um_h
    decay = np.exp(-ka * (total - a0) * times)
    free = a0 * (total - a0) * decay / (total - a0 * decay)
    got = solve_immunokinetic(params, times)
    np.testing.assert_allclose(got.free_um, free, atol=1e-9)
    np.testing.assert_allclose(got.free_um + got.bound_um, a0, rtol=1e-9)


@pytest.mark.parametrize("antigen_um", [0.3662, 0.05])
@pytest.mark.parametrize("recycling", [True, False])
def test_no_antibody_is_lost_or_made(antigen_um, recycling):
    params = ImmunokineticParams(antigen_um=antigen_um, recycling=recycling, k03_per_h=0.01)
    times = np.linspace(0, 400, 8001)
    got = solve_immunokinetic(params, times)
    lost = params.k03_per_h * simpson(got.internalised_um, x=times)
    total = got.free_um[-1] + got.retained_um[-1] + lost
    assert total == pytest.approx(params.free_0_um, rel=1e-6)


def test_recycling_matters_only_when_antigen_is_scarce():
    for antigen, ratio in ((0.3662, 1.0), (0.0183, 0.25)):
        with_, without = (
            solve_immunokinetic(
                ImmunokineticParams(antigen_um=antigen, recycling=flag), [336.0]
            ).retained_um[0]
            for flag in (True, False)
        )
        assert without / with_ == pytest.approx(ratio, rel=0.01)


def test_sites_that_bind_once_against_the_tight_solution():
    params = ImmunokineticParams(antigen_um=0.05, recycling=False)
    got = solve_immunokinetic(params, TIMES)
    expected = tight(params, TIMES, recycling=False)
    np.testing.assert_allclose(got.stack().T, expected, atol=1e-8)


def test_twenty_times_less_antigen_leaves_the_late_signal_as_it_is():
    less = ImmunokineticParams(antigen_um=TABLE_2.antigen_um / 20)
    times = [72.0, 120.0, 168.0, 336.0]
    change = solve_immunokinetic(less, times).retained_um
    change = change / solve_immunokinetic(TABLE_2, times).retained_um - 1
    assert (change > 0).all()
    assert change.max() < 0.01


def test_no_antigen_leaves_the_antibody_free():
    got = solve_immunokinetic(ImmunokineticParams(antigen_um=0.0), [0.0, 100.0])
    np.testing.assert_array_equal(got.free_um, TABLE_2.free_0_um)
    np.testing.assert_array_equal(got.retained_um, 0.0)


def test_times_may_start_late_repeat_or_be_zero_alone():
    dense = solve_immunokinetic(TABLE_2, [0.0, 72.0, 336.0])
    sparse = solve_immunokinetic(TABLE_2, [72.0, 72.0, 336.0])
    np.testing.assert_allclose(sparse.internalised_um[[0, 2]], dense.internalised_um[1:], rtol=1e-7)
    assert sparse.internalised_um[0] == sparse.internalised_um[1]
    np.testing.assert_array_equal(solve_immunokinetic(TABLE_2, 0.0).free_um, [0.0732])


@pytest.mark.parametrize("times", [[-1.0, 2.0], [3.0, 1.0], [np.nan], []])
def test_bad_times_are_refused(times):
    with pytest.raises(InputError, match="times"):
        solve_immunokinetic(TABLE_2, times)


def test_negative_rates_and_too_much_bound_antibody_are_refused():
    with pytest.raises(ValidationError):
        ImmunokineticParams(k32_per_h=-0.1)
    with pytest.raises(InputError, match="exceeds"):
        solve_immunokinetic(ImmunokineticParams(bound_0_um=0.5))


def test_normalisation_is_by_one_constant():
    got = solve_immunokinetic(TABLE_2, TIMES)
    scaled = got.normalised(TABLE_2.free_0_um)
    assert scaled[0].tolist() == [1.0, 0.0, 0.0]
    np.testing.assert_allclose(scaled * TABLE_2.free_0_um, got.stack())
    with pytest.raises(InputError):
        got.normalised(0.0)


def test_a_solver_that_fails_raises_an_error_of_its_own():
    with pytest.raises(SolverError, match=r"k_a_per_um_h = 1e\+308.*check rates"):
        solve_immunokinetic(ImmunokineticParams(k_a_per_um_h=1e308), [72.0])
    with pytest.raises(SolverError, match="check rates"):
        tile_curves_um([0.005], [0.5], DeliveryParams(solver="ode", k_a_per_um_h=1e308))


def test_without_times_the_curves_are_hourly_to_the_ex_vivo_scan():
    assert solve_immunokinetic(TABLE_2).time_h.tolist() == list(range(337))
