import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import stats

from napari_mosaik.core import InputError, Lattice, TileGrid
from napari_mosaik.spatial import (
    MoranParams,
    TileGraph,
    benjamini_hochberg_cut,
    global_moran,
    iter_local_moran,
    local_moran,
    moran_scatter,
)


def moore(rows, cols, kept=None):
    kept = np.arange(rows * cols) if kept is None else np.asarray(kept)
    lattice = Lattice("cd34", (rows, cols), (300.0, 300.0))
    return TileGraph.moore(
        TileGrid(lattice, 400.0, kept, np.ones(kept.size), np.ones(kept.size, bool))
    )


def smooth(rows, cols, seed=0):
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).normal(size=(rows, cols))
    return (gaussian_filter(noise, 1.0) + 0.1 * noise).ravel()


@pytest.fixture(scope="module")
def enumerated():
    """Every neighbourhood of every tile of a 4 x 4 grid (corner, edge and interior)."""
    graph = moore(4, 4)
    y = np.array([9, 8, 1, 0, 7, 6, 2, 1, 1, 2, 5, 3, 0, 4, 3, 12.0])
    z = (y - y.mean()) / y.std()
    rows = []
    for i in range(16):
        mine = graph.neighbours[graph.starts[i] : graph.starts[i + 1]]
        others = np.delete(z, i)
        subsets = np.array(list(itertools.combinations(range(15), mine.size)))
        null = z[i] * others[subsets].mean(axis=1)
        rows.append((z[i] * z[mine].mean(), null))
    return graph, y, rows


def test_statistic_and_moments_against_full_enumeration(enumerated):
    graph, y, rows = enumerated
    result = local_moran(y, graph)
    np.testing.assert_allclose(result.statistic, [observed for observed, _ in rows], atol=1e-12)
    np.testing.assert_allclose(result.expected, [null.mean() for _, null in rows], atol=1e-12)
    np.testing.assert_allclose(result.variance, [null.var() for _, null in rows], atol=1e-12)


def exact_tails(rows):
    return np.array(
        [((null >= i - 1e-9).mean(), (null <= i + 1e-9).mean()) for i, null in rows]
    ).min(axis=1)


@pytest.mark.parametrize("sided", ["two", "one"])
def test_p_values_against_full_enumeration(enumerated, sided):
    graph, y, rows = enumerated
    draws = 199_999
    result = local_moran(y, graph, MoranParams(permutations=draws, sided=sided))
    factor = 2 if sided == "two" else 1
    tail = exact_tails(rows)
    expected = np.minimum(1, factor * (tail * draws + 1) / (draws + 1))
    noise = factor * np.sqrt(tail * (1 - tail) / draws)
    assert (np.abs(result.p_value - expected) <= 5 * noise + 1e-12).all()


def test_a_tile_whose_one_and_two_sided_labels_differ(enumerated):
    graph, y, rows = enumerated
    tail = exact_tails(rows)
    alpha = 1.5 * float(tail[0])
    one = local_moran(y, graph, MoranParams(alpha=alpha, sided="one"))
    two = local_moran(y, graph, MoranParams(alpha=alpha, sided="two"))
    assert one.label[0] == 1
    assert two.label[0] == 0


def test_smallest_p_against_full_enumeration(enumerated):
    graph, y, rows = enumerated
    draws = 9999
    result = local_moran(y, graph, MoranParams(permutations=draws))
    for i, (_, null) in enumerate(rows):
        null = null * np.sign(result.z[i])
        share = min(
            np.isclose(null, null.max(), atol=1e-9).mean(),
            np.isclose(null, null.min(), atol=1e-9).mean(),
        )
        expected = min(1.0, 2 * (share * draws + 1) / (draws + 1))
        assert result.smallest_p[i] == pytest.approx(expected, rel=1e-9)


def test_binary_grid_against_the_hypergeometric_distribution_and_its_complement():
    graph = moore(6, 6)
    y = np.zeros((6, 6))
    y[:3, :3] = 1
    y[1, 1] = 0
    y = y.ravel()
    draws = 99_999
    params = MoranParams(permutations=draws, alpha=0.05)
    result = local_moran(y, graph, params)
    expected = np.empty(36)
    for i in range(36):
        mine = graph.neighbours[graph.starts[i] : graph.starts[i + 1]]
        null = stats.hypergeom(35, int(y.sum() - y[i]), mine.size)
        ones = int(y[mine].sum())
        tail = min(null.sf(ones - 1), null.cdf(ones))
        expected[i] = min(1, 2 * (tail * draws + 1) / (draws + 1))
    np.testing.assert_allclose(result.p_value, expected, atol=5 * np.sqrt(1 / draws))
    assert {0, 4} <= set(result.label.tolist())
    swap = np.array([0, 2, 1, 4, 3, 5])
    np.testing.assert_array_equal(local_moran(1 - y, graph, params).label, swap[result.label])


def test_mean_of_local_is_global_and_both_agree_with_esda():
    import esda

    graph, y = moore(9, 11), smooth(9, 11)
    result = local_moran(y, graph, MoranParams(permutations=9999))
    total, expected = global_moran(y, graph)
    assert result.global_i == pytest.approx(total, rel=1e-12)
    reference = esda.Moran(y, graph.graph, permutations=0)
    assert total == pytest.approx(reference.I, rel=1e-12)
    assert expected == pytest.approx(reference.EI, rel=1e-12)
    local = esda.Moran_Local(y, graph.graph, permutations=0)
    n = y.size
    np.testing.assert_allclose(result.statistic, local.Is * n / (n - 1), rtol=1e-10)
    quadrant = np.array([0, 1, 4, 2, 3])[local.q]
    sure = result.label > 0
    assert sure.sum() > 5
    np.testing.assert_array_equal(result.label[sure], quadrant[sure])


@pytest.mark.slow
def test_esda_engine_agrees_within_monte_carlo_noise():
    import esda

    graph, y = moore(7, 8), smooth(7, 8, 3)
    own = local_moran(y, graph, MoranParams(permutations=4999))
    other = local_moran(y, graph.graph, MoranParams(permutations=4999, engine="esda"))
    assert (other.engine, other.version) == ("esda", esda.__version__)
    assert np.abs(own.p_value - other.p_value).max() < 10 * np.sqrt(0.25 / 4999)
    np.testing.assert_array_equal(own.statistic, other.statistic)


def test_p_is_uniform_under_randomness():
    graph, rng = moore(10, 10), np.random.default_rng(5)
    apart = [0, 5, 22, 27, 50, 55, 72, 77, 95]
    p = np.concatenate(
        [
            local_moran(rng.normal(size=100), graph, MoranParams(permutations=399)).p_value[apart]
            for _ in range(150)
        ]
    )
    for level in (0.05, 0.2, 0.5, 0.8):
        noise = np.sqrt(level * (1 - level) / p.size)
        assert abs((p <= level).mean() - level) < 4.5 * noise


@pytest.fixture(scope="module")
def hilly():
    graph, y = moore(10, 12), smooth(10, 12, 2)
    params = MoranParams(permutations=999, alpha=0.05)
    return graph, y, params, local_moran(y, graph, params)


def test_result_does_not_depend_on_the_order_of_the_tiles(hilly):
    graph, y, params, result = hilly
    order = np.random.default_rng(0).permutation(y.size)
    place = np.argsort(order)
    shuffled = TileGraph._from_pairs(
        y.size, place[graph.focal], place[graph.neighbours], graph.weights
    )
    other = local_moran(y[order], shuffled, params)
    np.testing.assert_array_equal(other.p_value, result.p_value[order])
    np.testing.assert_array_equal(other.label, result.label[order])


def test_result_does_not_depend_on_chunks_or_on_work_beside_it(hilly, monkeypatch):
    graph, y, params, result = hilly
    monkeypatch.setattr("napari_mosaik.spatial.permutation._CHUNK", 7)
    with ThreadPoolExecutor(3) as pool:
        others = list(pool.map(lambda _: local_moran(y, graph, params), range(6)))
    assert {other.p_value.tobytes() for other in others} == {result.p_value.tobytes()}


@pytest.mark.parametrize("step", [0.0, 0.5])
def test_draws_followed_from_tile_to_tile_are_those_summed_again(monkeypatch, step):
    """Rows of equal weights are counted incrementally: bit for bit what the plain loop counts."""
    rng = np.random.default_rng(3)
    kept = np.flatnonzero(rng.random(400) < 0.8)
    y = smooth(20, 20, 4)[kept]
    y = np.round(y / step) * step if step else y  # with and without ties
    y[rng.random(y.size) < 0.05] = np.nan
    params, graph = MoranParams(permutations=299), moore(20, 20, kept)
    fast = local_moran(y, graph, params)
    monkeypatch.setattr("napari_mosaik.spatial.permutation._rows_are_even", lambda graph: False)
    plain = local_moran(y, graph, params)
    np.testing.assert_array_equal(fast.p_value, plain.p_value)
    np.testing.assert_array_equal(fast.label, plain.label)


@pytest.mark.parametrize(("scale", "offset"), [(1e-6, 0.0), (37.3, -1e3), (-2.5, 11.0)])
def test_result_does_not_depend_on_the_unit_and_minus_swaps_hot_and_cold(hilly, scale, offset):
    graph, y, params, result = hilly
    other = local_moran(scale * y + offset, graph, params)
    np.testing.assert_array_equal(other.p_value, result.p_value)
    swap = np.array([0, 1, 2, 3, 4, 5] if scale > 0 else [0, 2, 1, 4, 3, 5])
    np.testing.assert_array_equal(other.label, swap[result.label])
    assert len(set(result.label.tolist())) >= 3


def test_missing_tiles_are_as_if_they_were_not_there():
    y = smooth(6, 7, 4)
    gone = np.zeros(42, bool)
    gone[[3, 16, 17, 24, 40]] = True
    with_nan = np.where(gone, np.nan, y)
    result = local_moran(with_nan, moore(6, 7))
    alone = local_moran(y[~gone], moore(6, 7, np.flatnonzero(~gone)))
    np.testing.assert_array_equal(result.p_value[~gone], alone.p_value)
    np.testing.assert_array_equal(result.label[~gone], alone.label)
    assert (result.label[gone] == 5).all()
    assert np.isnan(result.statistic[gone]).all()
    assert (result.n_missing, result.n_tested) == (5, 37)


def test_island_is_not_testable_and_reported():
    result = local_moran([1.0, 2.0, 4.0, 9.0], moore(5, 5, [0, 1, 2, 24]))
    assert result.label.tolist()[3] == 5
    assert result.n_islands == 1
    assert any("no neighbour" in text for text in result.warnings)
    assert math.isnan(result.p_value[3])
    assert result.z[3] > 0


def test_tile_at_the_mean_is_average():
    result = local_moran([1, 2, 3, 1, 2, 3, 1, 2, 3.0], moore(3, 3), MoranParams(alpha=0.99))
    assert (result.label[[1, 4, 7]] == 0).all()
    np.testing.assert_array_equal(result.p_value[[1, 4, 7]], 1.0)


def test_false_discovery_cut_against_scipy():
    p = np.concatenate([np.random.default_rng(0).uniform(size=80), np.full(20, 1e-3), [np.nan]])
    cut = benjamini_hochberg_cut(p, 0.05)
    known = p[np.isfinite(p)]
    adjusted = stats.false_discovery_control(known)
    np.testing.assert_array_equal(known <= cut, adjusted <= 0.05)
    assert benjamini_hochberg_cut([0.9, 0.8], 0.05) == 0.0
    # The lines of ranks 1, 2 and 3 are 0.02, 0.04 and 0.06, and a value on its line passes.
    assert benjamini_hochberg_cut([0.9, 0.01, 0.03], 0.06) == 0.03
    assert benjamini_hochberg_cut([0.9, 0.9, 0.015], 0.06) == 0.015


def test_false_discovery_labels_fewer_tiles_than_the_plain_level(hilly):
    graph, y, params, result = hilly
    strict = local_moran(y, graph, params.model_copy(update={"fdr": True, "q": params.alpha}))
    assert 0 < (strict.label > 0).sum() < (result.label > 0).sum()
    assert strict.cut < params.alpha


def planted(rows, cols, seed=0):
    """White noise with a patch of 25 tiles at +4 SD, and the mask of the patch."""
    y = np.random.default_rng(seed).normal(size=(rows, cols))
    patch = np.zeros((rows, cols), bool)
    patch[10:15, 20:25] = True
    return (y + 4.0 * patch).ravel(), patch.ravel()


@pytest.mark.parametrize(("sided", "tails"), [("two", 2), ("one", 1)])
def test_a_small_patch_is_found_at_a_false_discovery_rate(sided, tails):
    y, patch = planted(40, 50)
    result = local_moran(y, moore(40, 50), MoranParams(fdr=True, sided=sided))
    hot = result.label == 1
    assert hot[patch].sum() >= 23
    assert hot[~patch].sum() <= 5  # the smaller tail alone doubles the errors
    # A single tile can be labelled: its smallest p-value lies on the Benjamini-Hochberg line.
    assert result.permutations == tails * y.size / 0.05 - 1
    assert tails / (result.permutations + 1) <= 0.05 / y.size * (1 + 1e-12)
    assert not result.warnings
    known = result.p_value[np.isfinite(result.p_value)]
    adjusted = stats.false_discovery_control(known)
    np.testing.assert_array_equal(result.label > 0, adjusted <= 0.05)


def test_the_rate_is_that_of_the_settings():
    y, _ = planted(40, 50)
    counts = [
        (local_moran(y, moore(40, 50), MoranParams(fdr=True, q=q)).label > 0).sum()
        for q in (0.01, 0.3)
    ]
    assert counts[0] < counts[1]


def test_more_permutations_than_allowed_are_named(monkeypatch):
    monkeypatch.setattr("napari_mosaik.spatial.moran.MAX_PERMUTATIONS", 9999)
    y, _ = planted(40, 50)
    result = local_moran(y, moore(40, 50), MoranParams(fdr=True))
    assert result.permutations == 9999
    assert any("79999 permutations" in text for text in result.warnings)
    assert any("fewer than 8 of 2000 tiles" in text for text in result.warnings)


def test_permutations_are_as_asked_without_false_discovery_control():
    result = local_moran(smooth(20, 30), moore(20, 30), MoranParams(permutations=999))
    assert result.permutations == 999
    assert result.summary()["permutations"] == 999


def test_too_few_permutations_are_warned_about():
    result = local_moran(smooth(6, 6), moore(6, 6), MoranParams(permutations=199))
    assert (result.label == 0).all()
    assert any("199 permutations" in text for text in result.warnings)
    assert any("399 permutations are needed" in text for text in result.warnings)


def test_a_rate_below_every_p_value_names_the_permutations_that_it_needs(monkeypatch):
    monkeypatch.setattr("napari_mosaik.spatial.moran.MAX_PERMUTATIONS", 99)
    result = local_moran(smooth(6, 6), moore(6, 6), MoranParams(fdr=True, q=0.01, permutations=99))
    assert any("7199 permutations are needed" in text for text in result.warnings)


def test_work_can_be_followed_and_stopped():
    graph, y = moore(20, 30), smooth(20, 30)
    steps = iter_local_moran(y, graph, MoranParams(permutations=99))
    first = next(steps)
    assert 0 < first < 1
    steps.close()
    assert list(iter_local_moran(y, graph, MoranParams(permutations=99)))[-1] == 1.0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full(9, 0.1), "equal"),
        (np.arange(8.0), "do not fit"),
        ([np.inf, *range(8)], "infinity"),
        ([1.0, 2.0, *[np.nan] * 7], "at least 3"),
        ([1.0, np.nan, 2.0, np.nan, np.nan, np.nan, 3.0, np.nan, np.nan], "neighbour"),
    ],
)
def test_bad_input_is_refused_with_the_reason(values, words):
    with pytest.raises(InputError, match=words):
        local_moran(values, moore(3, 3))


def test_counts_of_tiles_and_the_engine_are_in_the_summary():
    kept = [*range(9), 24]  # a row of nine and one apart, on a lattice of 3 x 9
    y = np.array([3.0, 1, 4, 1, 5, 9, 2, np.nan, 5, 3])
    result = local_moran(y, moore(3, 9, kept), MoranParams(permutations=99))
    found = result.summary()
    assert (found["n_tested"], found["n_islands"], found["n_missing"]) == (7, 2, 1)
    assert found["n_border"] == 2  # the two ends of the row of seven
    assert found["engine"] == "mosaik"
    assert found["global_i"] == pytest.approx(result.global_i)
    import esda

    other = local_moran(y, moore(3, 9, kept), MoranParams(permutations=99, engine="esda"))
    assert other.summary()["version"] == esda.__version__


def test_the_scatter_plot_has_the_slope_of_global_moran():
    y = smooth(7, 8)
    graph = moore(7, 8)
    z, lag, global_i = moran_scatter(y, graph)
    assert global_i == pytest.approx(np.polyfit(z, lag, 1)[0])
    assert global_i == pytest.approx(global_moran(y, graph)[0])
    y[:2] = np.nan
    z, lag, _ = moran_scatter(y, graph)
    assert np.isnan(z[:2]).all()
    assert np.isnan(lag[:2]).all()
    assert np.isfinite(lag[2:]).all()
