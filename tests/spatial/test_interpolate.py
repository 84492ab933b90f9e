from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mosaik.core import FrameMismatch, InputError, Lattice, Raster, TileGrid
from napari_mosaik.spatial import inverse_distance, neighbour_mean, parameter_map


def test_exact_fractions_of_three_points():
    points, values = [(0, 0), (0, 3), (4, 0)], [1.0, 2.0, 5.0]
    weights = [Fraction(1, 1), Fraction(1, 4), Fraction(1, 17)]
    exact = sum(w * int(v) for w, v in zip(weights, values, strict=True)) / sum(weights)
    got = inverse_distance(points, values, [(0, 1)])
    assert got[0] == pytest.approx(float(exact), rel=1e-14)


def test_exact_at_the_points_and_between_the_extremes_elsewhere():
    rng = np.random.default_rng(1)
    points, values = rng.uniform(0, 5000, (60, 2)), rng.normal(size=60)
    np.testing.assert_array_equal(inverse_distance(points, values, points), values)
    got = inverse_distance(points, values, rng.uniform(-1000, 6000, (500, 2)))
    assert got.min() >= values.min()
    assert got.max() <= values.max()


def brute(points, values, query, power, k):
    squared = ((points - query) ** 2).sum(axis=1)
    order = np.lexsort((np.arange(len(points)), squared))[:k]
    if squared[order[0]] == 0:
        return values[order[0]]
    weight = squared[order] ** (-power / 2)
    return (weight * values[order]).sum() / weight.sum()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(1, 12),
    st.sampled_from([1.0, 2.0, 3.5]),
    st.integers(0, 10_000),
)
def test_same_as_a_plain_loop_with_ties_by_index(rows, cols, k, power, seed):
    rng = np.random.default_rng(seed)
    cells = np.stack(np.meshgrid(range(rows), range(cols), indexing="ij"), -1).reshape(-1, 2)
    points, values = cells * 300.0, rng.normal(size=rows * cols)
    query = rng.integers(-4, 20, (15, 2)) * 75.0
    expected = [brute(points, values, q, power, k) for q in query]
    got = inverse_distance(points, values, query, power=power, n_neighbours=k)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_ties_beyond_the_first_look_are_still_broken_by_index():
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    points = 1000 * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    values = np.arange(64.0)
    got = inverse_distance(points, values, [(0.0, 0.0)], n_neighbours=4)
    assert got[0] == pytest.approx(1.5)


def test_missing_values_are_skipped_column_by_column():
    points = np.array([(0, 0), (0, 300), (0, 600), (300, 0)])
    table = np.array([[1, 1], [np.nan, 2], [3, 3], [4, np.nan]])
    query = np.array([(30.0, 280.0), (0.0, 300.0)])
    got = inverse_distance(points, table, query)
    for column in range(2):
        known = np.isfinite(table[:, column])
        expected = inverse_distance(points[known], table[known, column], query)
        np.testing.assert_array_equal(got[:, column], expected)


def test_no_value_at_all_gives_nan():
    assert np.isnan(inverse_distance([(0, 0), (1, 1)], [np.nan, np.nan], [(0, 0)])).all()
    assert np.isnan(inverse_distance(np.empty((0, 2)), [], [(0, 0)])).all()


@pytest.mark.parametrize(
    ("points", "values", "power"),
    [([(0, 0)], [1, 2], 2.0), ([(0, np.nan)], [1], 2.0), ([(0, 0)], [1], 0.0)],
)
def test_bad_input_is_refused(points, values, power):
    with pytest.raises(InputError):
        inverse_distance(points, values, [(0, 0)], power=power)


def make_case():
    lattice = Lattice("cd34", (4, 5), (300.0, 300.0))
    grid = TileGrid(lattice, 400.0, np.arange(20), np.ones(20), np.ones(20, bool))
    mask = np.zeros((60, 75), bool)
    mask[10:50, 20:60] = True
    return grid, Raster(mask, Lattice("cd34", (60, 75), (20.0, 20.0)))


def test_map_covers_the_mask_alone_and_equals_the_tiles_at_their_centres():
    grid, mask = make_case()
    values = np.random.default_rng(0).normal(size=(20, 2))
    result = parameter_map(grid, values, mask, 60.0, channels=("a", "b"), unit="µm")
    assert result.values.shape == (20, 25, 2)
    inside = mask.at(result.lattice.centres_um(), 0.0) > 0.5
    np.testing.assert_array_equal(np.isfinite(result.channel("a").values), inside)
    centre = result.at(grid.centres_um)
    tile_inside = np.isfinite(centre[:, 0])
    assert tile_inside.sum() == 6
    np.testing.assert_array_equal(centre[tile_inside], values[tile_inside])


def test_map_refuses_a_mask_of_another_frame():
    grid, mask = make_case()
    other = Raster(mask.values, Lattice("he", (60, 75), (20.0, 20.0)))
    with pytest.raises(FrameMismatch, match="'he'"):
        parameter_map(grid, np.ones(20), other)


def test_neighbours_say_what_they_measured_and_not_the_tile_itself():
    rows, cols = np.divmod(np.arange(12), 4)
    centres = 300.0 * np.column_stack([rows, cols])
    values = np.random.default_rng(0).normal(size=12)
    values[5] = np.nan
    found = neighbour_mean(values, centres, n_neighbours=3)
    for tile in range(12):
        if tile == 5:
            assert np.isnan(found[tile])
            continue
        distance = np.linalg.norm(centres - centres[tile], axis=1)
        distance[[tile, 5]] = np.inf
        # Ties at the last distance have equal weights, whichever is taken.
        order = np.argsort(distance, kind="stable")
        last = distance[order[2]]
        weight = distance[order[:3]] ** -2.0
        tied = np.flatnonzero(distance == last)
        if len(tied) > (distance[order[:3]] == last).sum():
            continue
        assert found[tile] == pytest.approx((weight * values[order[:3]]).sum() / weight.sum())
    changed = values.copy()
    changed[0] = 99.0
    assert neighbour_mean(changed, centres)[0] == neighbour_mean(values, centres)[0]
    assert np.isnan(neighbour_mean([1.0, np.nan], centres[:2])).all()
