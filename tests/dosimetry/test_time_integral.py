"""Integrals of activity against numerical integration and against the limits."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from napari_mosaik.core import InputError
from napari_mosaik.dosimetry import (
    NUCLIDES,
    dose_per_activity_gy,
    time_integrated_activity,
    time_integrated_exponentials,
)

HALF_LIFE = 159.5
TIMES = np.array([4.0, 24.0, 72.0, 168.0])
CURVES = np.array([[1.0, 3.0, 4.0, 3.5], [0.5, 2.0, 5.0, 9.0]])


def by_quadrature(times, curve, tail_half_life):
    """The integral and its parts before the first and after the last time."""
    decayed = curve * 2 ** (-times / HALF_LIFE)
    if times[0] > 0:
        known, values = np.r_[0, times], np.r_[0, decayed]
    else:
        known, values = times, decayed
    inside = quad(lambda t: np.interp(t, known, values), 0, times[-1], points=times, limit=200)[0]
    first = quad(lambda t: np.interp(t, known, values), 0, times[0])[0]
    rate = math.log(2) / tail_half_life
    after = quad(lambda t: decayed[-1] * math.exp(-rate * (t - times[-1])), times[-1], np.inf)[0]
    return inside + after, first / (inside + after), after / (inside + after)


def test_against_quadrature():
    found = time_integrated_activity(TIMES, CURVES, HALF_LIFE)
    for row, curve in enumerate(CURVES):
        expected = by_quadrature(TIMES, curve, HALF_LIFE)
        got = (found.total_h[row], found.before_first[row], found.after_last[row])
        assert got == pytest.approx(expected, rel=1e-8)


def test_one_curve_and_an_effective_tail():
    found = time_integrated_activity(TIMES, CURVES[0], HALF_LIFE, tail=60.0)
    assert np.ndim(found.total_h) == np.ndim(found.before_first) == np.ndim(found.after_last) == 0
    expected = by_quadrature(TIMES, CURVES[0], 60.0)
    assert (found.total_h, found.before_first, found.after_last) == pytest.approx(expected)


def test_no_line_from_zero_where_the_first_time_is_zero():
    times = np.r_[0.0, TIMES]
    curve = np.r_[2.0, CURVES[0]]
    found = time_integrated_activity(times, curve, HALF_LIFE)
    assert found.before_first == 0
    assert found.total_h == pytest.approx(by_quadrature(times, curve, HALF_LIFE)[0])


def test_constant_activity_has_the_mean_life_of_the_nuclide():
    times = np.linspace(0, 2000, 20001)
    found = time_integrated_activity(times, np.ones(times.size), HALF_LIFE)
    assert found.total_h == pytest.approx(HALF_LIFE / math.log(2), rel=1e-7)
    assert found.after_last == pytest.approx(2 ** (-2000 / HALF_LIFE))


def test_nan_stays_with_its_curve_and_nothing_has_no_shares():
    curves = np.stack([CURVES[0], np.full(4, np.nan), np.zeros(4)])
    found = time_integrated_activity(TIMES, curves, HALF_LIFE)
    assert np.isnan(found.total_h).tolist() == [False, True, False]
    assert found.total_h[2] == 0
    assert np.isnan(found.before_first[2])


def test_a_single_time_takes_an_effective_tail():
    found = time_integrated_activity([48.0], [2.0], HALF_LIFE, tail=60.0)
    now = 2 * 2 ** (-48 / HALF_LIFE)
    assert found.total_h == pytest.approx(24 * now + now * 60 / math.log(2))


@pytest.mark.parametrize(
    ("times", "curve", "tail", "says"),
    [
        ([24, 4], [1, 2], "physical", "must ascend, but 4 h follows 24 h"),
        ([4, 4], [1, 2], "physical", "must ascend"),
        ([-4, 4], [1, 2], "physical", "0 h or more, not -4"),
        ([], [], "physical", "at least one"),
        ([4, math.nan], [1, 2], "physical", "finite"),
        ([4, 24], [1, -2], "physical", "activities must be 0 or more and finite, not -2"),
        ([4, 24], [1, 2, 3], "physical", "do not belong to 2 times"),
        ([4, 24], [2, 1], 160.0, "longer than the physical one"),
        ([4, 24], [1, 2], 60.0, "still rises .* value, 2, is above the one before, 1"),
        ([4, 24], [[2, 1], [1, 2]], 60.0, "still rises"),
        ([4, 24], [2, 1], 0.0, "effective half-life .* above 0"),
        ([4, 24], [2, 1], None, "effective half-life .* above 0, not nan"),
        ([4, 24], [2, 1], "slow", "neither 'physical' nor"),
    ],
)
def test_what_is_refused(times, curve, tail, says):
    with pytest.raises(InputError, match=says):
        time_integrated_activity(times, curve, HALF_LIFE, tail=tail)


def test_a_flat_or_falling_end_may_have_an_effective_tail_up_to_the_physical_one():
    flat = time_integrated_activity([4, 24], [2, 2], HALF_LIFE, tail=HALF_LIFE)
    assert flat.total_h == time_integrated_activity([4, 24], [2, 2], HALF_LIFE).total_h


def test_exponentials_against_quadrature():
    levels, rates = np.array([[3.0, -3.0], [1.0, 2.0]]), np.array([0.002, 0.1])
    found = time_integrated_exponentials(levels, rates, HALF_LIFE, first_h=24, last_h=168)
    for row, level in enumerate(levels):

        def activity(t, level=level):
            return level @ np.exp(-rates * t) * 2 ** (-t / HALF_LIFE)

        total = quad(activity, 0, np.inf)[0]
        first, last = quad(activity, 0, 24)[0] / total, quad(activity, 168, np.inf)[0] / total
        got = (found.total_h[row], found.before_first[row], found.after_last[row])
        assert got == pytest.approx((total, first, last), rel=1e-7)


def test_exponentials_without_measurements_have_no_shares_outside_them():
    found = time_integrated_exponentials([2.0], [0.0], HALF_LIFE)
    assert found.total_h == pytest.approx(2 * HALF_LIFE / math.log(2))
    assert (found.before_first, found.after_last) == (0, 0)


def test_the_rule_for_a_single_time_point():
    """Hänscheid et al. 2018: 2 t A(t) / ln2 is 2 u 2^-u of the truth, u = t / T_eff."""
    rate = 0.003
    effective = math.log(2) / (rate + math.log(2) / HALF_LIFE)
    truth = time_integrated_exponentials([5.0], [rate], HALF_LIFE).total_h
    for time in (24.0, 96.0, 240.0):
        rule = 2 * time * 5 * 2 ** (-time / effective) / math.log(2)
        u = time / effective
        assert rule / truth == pytest.approx(2 * u * 2**-u)


@pytest.mark.parametrize(
    ("levels", "rates", "more", "says"),
    [
        ([1.0], [-0.1], {}, "rates must be 0 or more and finite, not -0.1"),
        ([1.0, 2.0], [0.1], {}, "equal length"),
        ([-1.0], [0.1], {}, "negative activity"),
        ([1.0], [0.1], {"first_h": 5, "last_h": 2}, "lies before"),
        ([1.0], [0.1], {"first_h": -5}, "first time must be"),
    ],
)
def test_exponentials_that_are_refused(levels, rates, more, says):
    with pytest.raises(InputError, match=says):
        time_integrated_exponentials(levels, rates, HALF_LIFE, **more)


def test_no_decay_and_no_clearance_has_no_end():
    with pytest.raises(InputError, match="no finite integral"):
        time_integrated_exponentials([1.0], [0.0], math.inf)
    with pytest.raises(InputError, match="has no end"):
        time_integrated_activity([4], [1], math.inf)


def test_tumours_of_zirconium_lie_below_the_published_ones_with_photons():
    """Merkx et al. 2021: 1.90 to 11.6 mGy/MBq, median 4.03, by OLINDA with photons."""
    for suv, low, high in ((20, 1.0, 4.03), (60, 4.0, 11.6)):
        per_ml = time_integrated_exponentials(suv / 70_000, 0.0, NUCLIDES["Zr-89"].half_life_h)
        mgy = per_ml.total_h / 1.05 * dose_per_activity_gy("Zr-89") * 1e3
        assert mgy == pytest.approx(suv / 70_000 * 78.41 / math.log(2) / 1.05 * 58.774, rel=1e-4)
        assert low < mgy < high
