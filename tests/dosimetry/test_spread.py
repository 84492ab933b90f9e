"""Spread dose against closed forms, geometry and direct sums."""

import numpy as np
import pytest
from scipy.special import exp1

from napari_mosaik.core import InputError
from napari_mosaik.dosimetry import DoseKernel, spread_dose

MEAN = 60.0
EXPONENTIAL = DoseKernel.exponential(MEAN)


def beyond_half_space(kernel, depth):
    """Dose outside a filled half-space at a distance from its face, by shells round the point."""
    edges = np.concatenate([[0.0], np.geomspace(1e-3, 5000, 20_000)])
    share, middle = np.diff(kernel.fraction_within(edges)), (edges[1:] + edges[:-1]) / 2
    return share @ np.clip((1 - depth / middle) / 2, 0, None)


def test_the_centre_of_a_slab():
    spacing, n = 5.0, 400
    source = np.zeros((n, n))
    source[:, n // 2 - 20 : n // 2 + 21] = 1
    x = 41 * spacing / (2 * MEAN)
    found = spread_dose(source, (spacing, spacing), EXPONENTIAL, density_g_ml=1)[n // 2, n // 2]
    assert found == pytest.approx(1 - np.exp(-x) + x * exp1(x), abs=5e-4)


@pytest.mark.parametrize("kernel", [EXPONENTIAL, DoseKernel.built_in("Lu-177")])
def test_a_half_space(kernel):
    spacing, n = 5.0, 600
    source = np.zeros((n, n))
    source[:, : n // 2] = 1
    row = spread_dose(source, spacing, kernel, density_g_ml=1)[n // 2]
    depths = (np.array([1, 5, 20, 60]) + 0.5) * spacing
    expected = [beyond_half_space(kernel, depth) for depth in depths]
    assert row[n // 2 + np.array([1, 5, 20, 60])] == pytest.approx(expected, abs=2e-3)
    inside = row[n // 2 - 1 - np.array([1, 5, 20, 60])]
    assert inside == pytest.approx(1 - np.array(expected), abs=2e-3)
    if kernel is EXPONENTIAL:
        u = depths / MEAN
        assert expected == pytest.approx((np.exp(-u) - u * exp1(u)) / 2, abs=1e-5)


def test_an_edge_has_a_half_and_a_corner_a_quarter():
    source = np.zeros((400, 400))
    source[:200, :200] = 1
    found = spread_dose(source, 10.0, EXPONENTIAL, density_g_ml=1)
    assert found[100, 199:201].mean() == pytest.approx(0.5, abs=1e-3)
    assert found[199:201, 199:201].mean() == pytest.approx(0.25, abs=1e-3)


def test_there_is_no_activity_outside_the_array():
    found = spread_dose(np.ones((300, 300)), 10.0, EXPONENTIAL, density_g_ml=1)
    u = 5.0 / MEAN
    assert found[150, 0] == pytest.approx(1 - (np.exp(-u) - u * exp1(u)) / 2, abs=2e-3)
    assert found[150, 150] == pytest.approx(1, abs=1e-6)
    assert found[0, 0] < 0.42


def test_nothing_comes_round_the_edges():
    source = np.zeros((200, 200))
    source[:, :3] = 1
    for kernel in (EXPONENTIAL, DoseKernel.exponential(400.0), DoseKernel.built_in("Lu-177")):
        found = spread_dose(source, 10.0, kernel, density_g_ml=1)
        wide = np.pad(source, ((0, 0), (0, 300)))
        expected = spread_dose(wide, 10.0, kernel, density_g_ml=1)[:, :200]
        assert found == pytest.approx(expected, abs=1e-6)
        assert found[100, -1] < 1e-4


def test_a_sphere():
    n, radius, spacing = 44, 180.0, 10.0
    axis = (np.arange(n) - (n - 1) / 2) * spacing
    ball = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) <= radius
    found = spread_dose(ball.astype(float), (spacing,) * 3, EXPONENTIAL, density_g_ml=1)
    edges = np.linspace(0, 2 * radius, 20_001)
    r = (edges[1:] + edges[:-1]) / 2
    share = np.diff(EXPONENTIAL.fraction_within(edges))
    expected = share @ (1 - 3 * r / (4 * radius) + r**3 / (16 * radius**3))
    assert found[ball].mean() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("n", [340, 900])
@pytest.mark.parametrize("kernel", [EXPONENTIAL, DoseKernel.built_in("Lu-177")])
def test_energy_is_conserved(kernel, n):
    """Also far from the source, where rounding must not add up."""
    y, x = np.mgrid[:n, :n] - (n - 1) / 2
    source = np.exp(-(x**2 + y**2) / (2 * 8**2))
    found = spread_dose(source, 15.0, kernel)
    assert found.sum() == pytest.approx(source.sum(), rel=1e-9)


def test_energy_of_a_coarse_map_is_conserved():
    y, x = np.mgrid[:120, :120] - 59.5
    source = np.exp(-(x**2 + y**2) / (2 * 5**2))
    found = spread_dose(source, 100.0, DoseKernel.built_in("Lu-177"))
    assert found.sum() == pytest.approx(source.sum(), rel=1e-9)


@pytest.mark.parametrize("kernel", [EXPONENTIAL, DoseKernel.built_in("Lu-177")])
def test_a_smooth_map_meets_the_transfer_function(kernel):
    """Gaussian of 120 µm: its spectrum times F, transformed back along the radius."""
    y, x = np.mgrid[:400, :400] - 200
    sd, spacing, density = 120.0, 8.0, 1.05
    source = np.exp(-((x * spacing) ** 2 + (y * spacing) ** 2) / (2 * sd**2))
    found = spread_dose(source, spacing, kernel, density_g_ml=density)
    k = np.linspace(0, 8 / sd, 2001)
    spectrum = sd**2 * np.exp(-((sd * k) ** 2) / 2) * kernel.transfer(k / density)
    from scipy.special import j0

    for away in (0, 10, 40):
        expected = np.trapezoid(spectrum * j0(k * away * spacing) * k, k)
        assert found[200, 200 + away] == pytest.approx(expected, rel=1e-4)


def test_lengths_are_divided_by_the_density():
    rng = np.random.default_rng(0)
    source = rng.random((60, 60))
    twice = spread_dose(source, 10.0, DoseKernel.exponential(80.0), density_g_ml=2.0)
    once = spread_dose(source, 10.0, DoseKernel.exponential(40.0), density_g_ml=1.0)
    assert twice == pytest.approx(once, rel=1e-9)


def test_a_coarse_map_is_averaged_over_its_tiles():
    fine = np.kron(np.eye(6), np.ones((10, 10)))
    kernel = DoseKernel.built_in("Lu-177")
    expected = spread_dose(fine, 30.0, kernel).reshape(6, 10, 6, 10).mean(axis=(1, 3))
    assert spread_dose(np.eye(6), 300.0, kernel) == pytest.approx(expected, abs=3e-3)


def test_each_axis_has_its_spacing():
    source = np.zeros((120, 240))
    source[50:70, 100:140] = 1
    found = spread_dose(source, (10.0, 5.0), EXPONENTIAL)
    square = spread_dose(source[:, ::2], 10.0, EXPONENTIAL)
    assert found.reshape(120, 120, 2).mean(axis=2)[30:90:10] == pytest.approx(
        square[30:90:10], abs=0.02
    )


def test_local_dose_stays():
    source = np.array([[1.0, np.nan], [0.0, 3.0]])
    found = spread_dose(source, 10.0, DoseKernel.local())
    assert np.array_equal(found, source, equal_nan=True)


def test_nan_gives_nothing_and_stays_nan():
    source = np.ones((20, 20))
    source[:, 10:] = np.nan
    found = spread_dose(source, 10.0, EXPONENTIAL)
    assert np.isnan(found[:, 10:]).all()
    empty = np.nan_to_num(source)
    assert found[:, :10] == pytest.approx(spread_dose(empty, 10.0, EXPONENTIAL)[:, :10])


@pytest.mark.parametrize(
    ("source", "spacing", "density", "says"),
    [
        (np.ones(4), 10, 1, "2-D map or a 3-D volume"),
        (-np.ones((2, 2)), 10, 1, "local dose must be 0 or more"),
        (np.full((2, 2), np.inf), 10, 1, "local dose must be 0 or more and finite"),
        (np.ones((2, 2)), (10, 10, 10), 1, "3 spacings do not belong to 2 axes"),
        (np.ones((2, 2)), 0, 1, "each spacing must be"),
        (np.ones((2, 2)), 10, 0, "density must be"),
        (np.ones((2, 2)), 1e-4, 1, "reaches .* give a coarser map"),
    ],
)
def test_what_is_refused(source, spacing, density, says):
    with pytest.raises(InputError, match=says):
        spread_dose(source, spacing, EXPONENTIAL, density_g_ml=density)


def test_what_rings_below_zero_is_zero():
    point = np.zeros((64, 64))
    point[32, 32] = 1.0
    found = spread_dose(point, (3, 3), DoseKernel.exponential(20))
    assert found.min() == 0
