"""Protraction by double integration, pools by an ODE solver, limits by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy.integrate import dblquad, quad, solve_ivp

from napari_mosaik.core import InputError
from napari_mosaik.dosimetry import RepairState, protraction
from napari_mosaik.dosimetry.pools import chain

MU = math.log(2) / 1.5
TWO = ((0.6, math.log(2) / 0.5), (0.4, math.log(2) / 4))


def double_integral(levels, rates, repair, end):
    """G from its definition."""

    def rate(t):
        return sum(a * math.exp(-r * t) for a, r in zip(levels, rates, strict=True))

    def both(s, t):
        return rate(t) * rate(s) * sum(p * math.exp(-mu * (t - s)) for p, mu in repair)

    dose = quad(rate, 0, end, epsabs=0, epsrel=1e-11, limit=300)[0]
    q = 2 * dblquad(both, 0, end, 0, lambda t: t, epsabs=0, epsrel=1e-9)[0]
    return q / dose**2


@pytest.mark.parametrize(
    ("levels", "rates", "repair", "end"),
    [
        ([1.0], [0.02], [(1, MU)], 30.0),
        ([1.0, 0.5], [0.1, 0.02], TWO, 20.0),
        ([2.0, -2.0], [0.01, 0.3], [(1, MU)], 25.0),  # uptake, then clearance
        ([1.0], [0.0], [(1, MU)], 8.0),
        ([1.0, 1.0], [MU, 0.0], [(1, MU)], 10.0),  # decay as fast as repair
        ([1.0], [0.05], [(1, 0.0)], 12.0),  # no repair
    ],
)
def test_protraction_against_double_integration(levels, rates, repair, end):
    expected = double_integral(levels, rates, repair, end)
    assert protraction(levels, rates, repair, end) == pytest.approx(expected, rel=1e-7)


def test_protraction_of_an_infinite_duration():
    levels, rates = np.array([1.0, 0.5]), np.array([0.05, 0.3])
    expected = 0.0
    dose = (levels / rates).sum()
    for (a, i), (b, j) in itertools.product(zip(levels, rates, strict=True), repeat=2):
        expected += 2 / dose**2 * sum(p * a * b / ((i + j) * (mu + j)) for p, mu in TWO)
    assert protraction(levels, rates, TWO) == pytest.approx(expected, rel=1e-12)
    assert protraction(levels, rates, TWO) == pytest.approx(
        double_integral(levels, rates, TWO, 250.0), rel=1e-5
    )


def test_limits():
    decay = math.log(2) / 159.5
    assert protraction([3.0], [decay], [(1, MU)]) == pytest.approx(decay / (decay + MU), rel=1e-12)
    assert protraction([3.0], [decay], [(1, MU)], 1e-6) == pytest.approx(1, abs=1e-6)
    assert protraction([3.0], [MU], [(1, MU)]) == pytest.approx(0.5, rel=1e-12)
    long = 2 / (MU * 1e5)  # constant rate, G -> 2 / (mu T)
    assert protraction([3.0], [0.0], [(1, MU)], 1e5) == pytest.approx(long, rel=1e-4)
    assert protraction([3.0], [0.1], [(1, 0.0)]) == pytest.approx(1, rel=1e-12)


def test_rates_that_are_almost_equal():
    near = [protraction([1.0], [MU * (1 + e)], [(1, MU)], 7.0) for e in (0, 1e-14, 1e-9, 1e-5)]
    assert max(near) == pytest.approx(min(near), rel=1e-5)
    assert near[2] == pytest.approx(near[0], rel=1e-8)


@pytest.mark.parametrize("span", [1e-6, 0.5, 30.0, 900.0, math.inf])
def test_a_chain_against_the_formula_for_different_rates(span):
    a, b, c = 0.01, 0.4, 2.0
    e = [math.exp(-x * span) for x in (a, b, c)]
    two = (e[0] - e[1]) / (b - a)
    three = (two - (e[1] - e[2]) / (c - b)) / (c - a)
    assert chain([a, b], span) == pytest.approx(two, rel=1e-9)
    assert chain([c, a, b], span) == pytest.approx(three, rel=1e-3 if span < 1 else 1e-9)
    assert chain([a, a, a], span) == pytest.approx(0 if math.isinf(span) else span**2 / 2 * e[0])


def test_protraction_by_tile():
    levels = np.array([[1.0, 0.0], [2.0, 5.0], [np.nan, 1.0], [0.0, 0.0]])
    rates = [0.02, 0.1]
    found = protraction(levels, rates, TWO)
    assert found.shape == (4,)
    assert found[:2] == pytest.approx([protraction(row, rates, TWO) for row in levels[:2]])
    assert np.isnan(found[2:]).all()
    own = protraction(levels[:2], np.array([[0.02, 0.1], [0.3, 0.4]]), TWO)
    assert own[1] == pytest.approx(protraction(levels[1], [0.3, 0.4], TWO))


@pytest.mark.parametrize(
    ("levels", "rates", "repair", "duration", "says"),
    [
        ([1.0], [-0.1], TWO, math.inf, "decay rates must be 0 or more and finite, not -0.1"),
        ([1.0], [0.0], TWO, math.inf, "without decay needs a finite duration"),
        ([1.0], [0.1], [(0.6, 1.0)], math.inf, "must add up to 1, not 0.6"),
        ([1.0], [0.1], [(1, -1.0)], math.inf, "rates of repair must be 0 or more"),
        ([1.0], [0.1], [1.0], math.inf, "list of .share, rate per h."),
        ([1.0, 2.0], [0.1], TWO, math.inf, "equal length"),
        ([-1.0], [0.1], TWO, math.inf, "negative at the start, -1 Gy/h"),
        ([3.0, -2.0], [2.0, 0.1], TWO, math.inf, "negative dose"),
        ([1.0], [0.1], TWO, 0.0, "duration must be"),
    ],
)
def test_what_is_refused(levels, rates, repair, duration, says):
    with pytest.raises(InputError, match=says):
        protraction(levels, rates, repair, duration)


CYCLES = [(0.0, math.inf), (168.0, math.inf), (336.0, 400.0), (504.0, math.inf)]
LEVELS, RATES = np.array([0.4, -0.1]), np.array([0.01, 0.2])
FRACTIONS = [(72.0, 2.0), (96.0, 2.0), (0.0, 1.0), (336.0, 3.0), (96.0, 0.5)]
CURVE = ([100.0, 130.0, 180.0], [0.0, 0.3, 0.1], 0.05)


def planned():
    state = RepairState(TWO)
    for place, (time, dose) in enumerate(FRACTIONS):
        state.add_fraction(time, dose)
        if place < len(CYCLES):
            start, stop = CYCLES[-1 - place]
            state.add_rate(start, LEVELS, RATES, stop)
    state.add_curve(*CURVE)
    return state


def dose_rate(t):
    total = sum(
        (LEVELS * np.exp(-RATES * (t - start))).sum() for start, stop in CYCLES if start <= t < stop
    )
    times, values, tail = CURVE
    if t >= times[-1]:
        return total + values[-1] * math.exp(-tail * (t - times[-1]))
    return total + np.interp(t, times, values, left=0)


def by_solver(until):
    """Dose, Q and damage of the plan by an ODE solver from event to event."""
    shares, mu = np.array(TWO).T
    marks = {0.0, until, *CURVE[0], *(f[0] for f in FRACTIONS), *(c[0] for c in CYCLES), 400.0}
    events = sorted(m for m in marks if m <= until)
    y = np.zeros(4)

    def slopes(t, y):
        rate = dose_rate(t)
        return [rate, 2 * rate * shares @ y[2:], *(rate - mu * y[2:])]

    for start, end in itertools.pairwise([*events, until]):
        for _, dose in (f for f in FRACTIONS if f[0] == start):
            y += [dose, dose**2 + 2 * dose * shares @ y[2:], dose, dose]
        if end > start:
            inside = (start, end - 1e-9)
            y = solve_ivp(slopes, inside, y, rtol=1e-9, atol=1e-12, method="LSODA").y[:, -1]
    return y[0], y[1], shares @ y[2:]


@pytest.mark.parametrize("until", [96.0, 150.0, 1000.0])
def test_four_courses_a_curve_and_fractions_against_an_ode_solver(until):
    state = planned()
    dose, q, damage = by_solver(until)
    assert state.dose_gy(until) == pytest.approx(dose, rel=1e-6)
    assert state.q_gy2(until) == pytest.approx(q, rel=1e-6)
    assert state.unrepaired_gy(until) == pytest.approx(damage, rel=1e-5)


def test_the_order_of_calls_does_not_matter():
    other = RepairState(TWO)
    other.add_curve(*CURVE)
    for start, stop in CYCLES:
        other.add_rate(start, LEVELS, RATES, stop)
    for fraction in sorted(FRACTIONS):
        other.add_fraction(*fraction)
    assert other.q_gy2() == pytest.approx(planned().q_gy2(), rel=1e-12)


def test_q_is_the_protraction_factor_times_the_squared_dose():
    state = RepairState(TWO)
    state.add_rate(5.0, [1.0, 0.5], [0.02, 0.1], stop_h=45.0)
    g = protraction([1.0, 0.5], [0.02, 0.1], TWO, 40.0)
    assert state.q_gy2() == pytest.approx(g * state.dose_gy() ** 2, rel=1e-12)


def test_q_by_the_unrepaired_damage():
    """One component and full decay: Q = 2 mu int U^2 dt."""
    state = RepairState([(1.0, MU)])
    state.add_rate(0.0, [1.0], [0.05])
    state.add_fraction(30.0, 2.0)
    times = np.concatenate([np.linspace(0, 30, 3001)[:-1], 30 + np.linspace(0, 300, 30_001)])
    held = state.unrepaired_gy(times)
    held_before = state.unrepaired_gy(30 - 1e-9)
    early, late = times < 30, times >= 30
    squared = np.trapezoid(np.r_[held[early], held_before] ** 2, np.r_[times[early], 30])
    squared += np.trapezoid(held[late] ** 2, times[late])
    assert 2 * MU * squared == pytest.approx(state.q_gy2(), rel=1e-5)


def test_fractions_far_apart_and_at_once():
    apart, at_once = RepairState(TWO), RepairState(TWO)
    for day in range(5):
        apart.add_fraction(24.0 * 30 * day, 2.0)
        at_once.add_fraction(72.0, 2.0)
    assert apart.q_gy2() == pytest.approx(5 * 2.0**2)
    assert at_once.q_gy2() == pytest.approx(10.0**2)
    assert at_once.dose_gy(71.9) == 0
    assert at_once.dose_gy(72.0) == 10
    assert at_once.q_gy2(72.0) == pytest.approx(100)
    assert at_once.unrepaired_gy([71.9, 72.0]).tolist() == [0, 10]


def test_a_constant_rate_with_an_end():
    state = RepairState([(1, MU)])
    state.add_rate(0.0, [2.0], [0.0], stop_h=3.0)
    assert state.dose_gy() == 6
    assert state.unrepaired_gy(3.0) == pytest.approx(2 * (1 - math.exp(-3 * MU)) / MU)
    assert state.unrepaired_gy(10.0) == pytest.approx(
        2 * (1 - math.exp(-3 * MU)) / MU * math.exp(-7 * MU)
    )


def test_tiles_together_equal_tiles_alone():
    levels = np.array([[0.1, 0.2], [0.3, 0.0], [np.nan, 0.1]])
    state = RepairState(TWO)
    state.add_rate(0.0, levels, [0.01, 0.1])
    state.add_rate(100.0, levels / 2, [0.01, 0.1])
    state.add_fraction(50.0, [1.0, 2.0, 1.0])
    times = [0.0, 50.0, 200.0]
    assert state.unrepaired_gy(times).shape == (3, 3)
    for tile in range(2):
        alone = RepairState(TWO)
        alone.add_rate(0.0, levels[tile], [0.01, 0.1])
        alone.add_rate(100.0, levels[tile] / 2, [0.01, 0.1])
        alone.add_fraction(50.0, [1.0, 2.0][tile])
        assert state.q_gy2()[tile] == pytest.approx(alone.q_gy2(), rel=1e-12)
        assert state.dose_gy()[tile] == pytest.approx(alone.dose_gy(), rel=1e-12)
        assert state.unrepaired_gy(times)[tile] == pytest.approx(alone.unrepaired_gy(times))
    assert np.isnan(state.q_gy2()[2])


def test_dose_and_q_until_several_times():
    state = planned()
    state.add_fraction(30.0, [1.0, 2.0])
    times = [0.0, 30.0, 150.0, np.inf]
    for value in (state.dose_gy, state.q_gy2):
        alone = np.stack(np.broadcast_arrays(*(value(time) for time in times)), axis=-1)
        np.testing.assert_array_equal(value(times), alone)
        assert value(times).shape == (2, 4)
        assert value([]).shape == (0,)
    with pytest.raises(InputError, match="the end must be a number or a list"):
        state.dose_gy([[1.0, 2.0]])


def test_an_empty_state():
    state = RepairState(TWO)
    assert (state.dose_gy(), state.q_gy2(), state.unrepaired_gy(5.0)) == (0, 0, 0)
    assert state.unrepaired_gy([]).shape == (0,)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda s: s.add_fraction(-1.0, 2.0), "time of a fraction must be .* not -1"),
        (lambda s: s.add_fraction(1.0, -2.0), "dose of a fraction must be"),
        (lambda s: s.add_rate(-1.0, [1.0], [0.1]), "start of a dose rate must be"),
        (lambda s: s.add_rate(5.0, [1.0], [0.1], 5.0), "stops at 5 h, not after its start"),
        (lambda s: s.add_rate(0.0, [1.0], [-0.1]), "decay rates must be"),
        (lambda s: s.add_curve([0.0, 1.0], [1.0]), "do not belong to 2 times"),
        (lambda s: s.add_curve([1.0, 0.0], [1.0, 1.0]), "must ascend"),
        (lambda s: s.dose_gy(-1.0), "end must be"),
        (lambda s: s.unrepaired_gy(-1.0), "times must be 0 or more"),
        (lambda s: (s.add_rate(0.0, [1.0], [0.0]), s.dose_gy()), "needs a stop"),
    ],
)
def test_calls_that_are_refused(call, says):
    with pytest.raises(InputError, match=says):
        call(RepairState(TWO))


def test_a_constant_rate_without_an_end_has_a_dose_until_a_time():
    state = RepairState(TWO)
    state.add_rate(0.0, [1.0], [0.0])
    assert state.dose_gy(7.0) == 7
    assert state.q_gy2(7.0) == pytest.approx(49 * protraction([1.0], [0.0], TWO, 7.0))
