import numpy as np
import pytest
from scipy import stats
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from napari_mosaik.core import InputError
from napari_mosaik.spatial import AssociationParams, associate, associate_table
from napari_mosaik.spatial.association import spatial_spectrum


def lattice(rows, cols, spacing_um=300.0):
    cells = np.stack(np.meshgrid(range(rows), range(cols), indexing="ij"), -1)
    return cells.reshape(-1, 2) * spacing_um


def field(rng, rows, cols, sigma):
    noise = rng.normal(size=(rows + 16, cols + 16))
    return gaussian_filter(noise, sigma)[8:-8, 8:-8].ravel()


def test_coefficients_and_naive_p_with_ties_against_scipy():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, 60).astype(float)
    y = x + rng.integers(0, 6, 60)
    result = associate(x, y, lattice(6, 10))
    pearson, spearman = stats.pearsonr(x, y), stats.spearmanr(x, y)
    assert result.pearson == pytest.approx(pearson.statistic, rel=1e-12)
    assert result.spearman == pytest.approx(spearman.statistic, rel=1e-12)
    assert result.p_naive_pearson == pytest.approx(pearson.pvalue, rel=1e-9)
    assert result.p_naive_spearman == pytest.approx(spearman.pvalue, rel=1e-9)


def test_effective_size_against_dense_matrices():
    rng = np.random.default_rng(1)
    centres = lattice(5, 6)
    x, y = field(rng, 5, 6, 1.0), field(rng, 5, 6, 1.0)
    n = x.size
    distance = np.round(cdist(centres, centres), 6)
    covariances = []
    for values in (x - x.mean(), y - y.mean()):
        matrix = np.empty((n, n))
        for d in np.unique(distance):
            pairs = distance == d
            matrix[pairs] = np.outer(values, values)[pairs].mean()
        covariances.append(matrix)
    b = np.eye(n) - 1 / n
    sx, sy = covariances
    variance = np.trace(b @ sx @ b @ sy) / (np.trace(b @ sx) * np.trace(b @ sy))
    size = min(n, 1 + 1 / variance)
    result = associate(x, y, centres, AssociationParams(distance_classes="every"))
    assert result.ess_pearson == pytest.approx(size, rel=1e-9)
    r = np.corrcoef(x, y)[0, 1]
    score = abs(r) * np.sqrt((size - 2) / (1 - r**2))
    assert result.p_dutilleul_pearson == pytest.approx(2 * stats.t.sf(score, size - 2), rel=1e-9)


def test_effective_size_predicts_the_spread_for_a_known_covariance():
    rng = np.random.default_rng(2)
    params = AssociationParams(distance_classes="sturges", max_tiles=10)
    centres = lattice(14, 14)
    r, variance = [], []
    for _ in range(300):
        columns = {f"{k}": field(rng, 14, 14, 1.0) for k in range(3)}
        table = associate_table(columns, field(rng, 14, 14, 1.0), centres, params)
        r.append(table["pearson"])
        variance.append(1 / (table["ess_pearson"] - 1))
    covariance = np.exp(-(cdist(centres, centres) ** 2) / (4 * 300.0**2))
    centred = (np.eye(196) - 1 / 196) @ covariance
    known = np.trace(centred @ centred) / np.trace(centred) ** 2
    assert np.var(r) == pytest.approx(known, rel=0.2)
    assert np.mean(variance) == pytest.approx(known, rel=0.2)


def test_white_values_keep_nearly_their_full_size():
    rng = np.random.default_rng(3)
    columns = {f"{k}": rng.normal(size=196) for k in range(20)}
    table = associate_table(columns, field(rng, 14, 14, 1.5), lattice(14, 14))
    assert np.mean(table["ess_pearson"]) > 0.8 * 196


def test_modified_test_keeps_its_level_where_the_naive_one_does_not():
    rng = np.random.default_rng(4)
    params = AssociationParams(permutations=199)
    p = {"naive": [], "dutilleul": [], "msr": []}
    for _ in range(25):
        columns = {f"{k}": field(rng, 14, 15, 1.5) for k in range(16)}
        table = associate_table(columns, field(rng, 14, 15, 1.5), lattice(14, 15), params)
        for kind, found in p.items():
            found.append(table[f"p_{kind}_pearson"])
    rejected = {kind: float((np.concatenate(found) < 0.05).mean()) for kind, found in p.items()}
    assert rejected["naive"] > 0.4
    assert 0.01 < rejected["dutilleul"] < 0.09
    assert 0.01 < rejected["msr"] < 0.12


def test_a_true_relation_is_found():
    rng = np.random.default_rng(5)
    x = field(rng, 15, 16, 1.0)
    y = x + 0.4 * x.std() * rng.normal(size=x.size)
    result = associate(x, y, lattice(15, 16))
    assert result.p_dutilleul_pearson < 1e-6
    assert result.p_msr_pearson == pytest.approx(1 / 1000)


def test_random_signs_keep_mean_variance_geary_and_moran_with_a_closed_border():
    centres = lattice(6, 7)
    spectrum = spatial_spectrum(centres)
    rng = np.random.default_rng(6)
    x = field(rng, 6, 7, 1.0)
    signs = rng.integers(0, 2, 41) * 2.0 - 1
    surrogate = x.mean() + spectrum.vectors @ (signs * (spectrum.vectors.T @ (x - x.mean())))
    weights = ((cdist(centres, centres) < 430) & ~np.eye(42, dtype=bool)).astype(float)
    closed = weights + np.diag(weights.sum(axis=1).max() - weights.sum(axis=1))

    def moran(values):
        z = values - values.mean()
        return z @ closed @ z / (z @ z)

    def geary(values):
        z = values - values.mean()
        return (weights * np.subtract.outer(values, values) ** 2).sum() / (z @ z)

    assert geary(surrogate) == pytest.approx(geary(x), rel=1e-10)
    assert surrogate.mean() == pytest.approx(x.mean(), abs=1e-12)
    assert surrogate.var() == pytest.approx(x.var(), rel=1e-10)
    assert moran(surrogate) == pytest.approx(moran(x), rel=1e-10)
    assert abs(np.corrcoef(surrogate, x)[0, 1]) < 0.9


def test_units_and_order_of_tiles_do_not_matter():
    rng = np.random.default_rng(7)
    x, y, centres = field(rng, 9, 9, 1.0), field(rng, 9, 9, 1.0), lattice(9, 9)
    one = associate(x, y, centres)
    order = rng.permutation(81)
    two = associate(x[order], y[order], centres[order])
    assert one == two
    three = associate(3 * x - 7, -2 * y, centres * 0.5 + 100)
    assert three.pearson == pytest.approx(-one.pearson, rel=1e-12)
    assert three.ess_pearson == pytest.approx(one.ess_pearson, rel=1e-9)


def test_missing_values_are_dropped_in_pairs_and_each_parameter_alone():
    rng = np.random.default_rng(8)
    x, y, centres = rng.normal(size=48), rng.normal(size=48), lattice(6, 8)
    gappy = np.where(np.arange(48) % 5 == 0, np.nan, x)
    y[11] = np.nan
    table = associate_table({"full": x, "gappy": gappy}, y, centres)
    assert table["n"].tolist() == [47, 37]
    both = np.isfinite(gappy) & np.isfinite(y)
    alone = associate(gappy[both], y[both], centres[both])
    for name in ("pearson", "ess_spearman", "p_dutilleul_pearson", "p_msr_spearman"):
        assert table[name][1] == getattr(alone, name)


def test_undefined_coefficients_are_nan():
    centres = lattice(2, 4)
    constant = associate(np.full(8, 0.1), np.arange(8.0), centres)
    assert constant.n == 8
    assert np.isnan(constant.pearson)
    assert np.isnan(constant.p_msr_spearman)
    few = associate([1, 2, *[np.nan] * 6], np.arange(8.0), centres)
    assert few.n == 2
    assert np.isnan(few.spearman)


def test_spectral_p_is_left_out_above_the_cap():
    rng = np.random.default_rng(9)
    params = AssociationParams(max_tiles=20)
    result = associate(rng.normal(size=30), rng.normal(size=30), lattice(5, 6), params)
    assert np.isnan(result.p_msr_pearson)
    assert np.isfinite(result.p_dutilleul_pearson)


@pytest.mark.parametrize(
    ("x", "centres"), [(np.arange(5.0), lattice(2, 3)), (np.full(6, np.inf), lattice(2, 3))]
)
def test_bad_input_is_refused(x, centres):
    with pytest.raises(InputError):
        associate(x, np.arange(float(len(centres))), centres)
