"""The choice of proxies under resampling of blocks of tiles."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import pearsonr, spearmanr

from napari_mosaik.core import InputError
from napari_mosaik.spatial import TileSample, selection_stability
from napari_mosaik.spatial.proxies import _bootstrap_scores, _drawn

GROUPS = {"vascular": ("strong", "weak"), "nuclear": ("one", "twin", "absent")}


def sample(seed=0, side=20):
    rng = np.random.default_rng(seed)

    def smooth():
        return gaussian_filter(rng.normal(size=(side, side)), 1.0, mode="wrap").ravel()

    y = smooth()
    y /= y.std()
    one = 0.5 * y + smooth() / 0.28
    columns = {
        "strong": y + 0.3 * rng.normal(size=y.size),
        "weak": 0.2 * y + rng.normal(size=y.size),
        "one": one,
        "twin": one + 1e-3 * rng.normal(size=y.size),
    }
    rows, cols = np.mgrid[:side, :side]
    centres = np.column_stack([rows.ravel(), cols.ravel()]) * 300.0
    return TileSample(columns, y, centres)


def test_a_clear_choice_is_firm_and_one_between_twins_is_not():
    table = selection_stability({"A": sample(0), "B": sample(1)}, GROUPS, draws=400)
    share = dict(zip(table["parameter"], table["frequency"], strict=True))
    assert share["strong"] == 1.0
    assert share["weak"] == 0.0
    assert 0.2 < share["one"] < 0.8
    assert share["one"] + share["twin"] == pytest.approx(1.0)
    assert share["absent"] == 0.0
    assert np.isnan(table["middle"][-1])
    assert (table["low"][:4] <= table["middle"][:4]).all()
    assert (table["middle"][:4] <= table["high"][:4]).all()


def test_a_draw_is_the_correlation_of_the_repeated_tiles():
    """Pearson by weights against pearsonr on tiles that are really repeated."""
    case = sample(2, side=8)
    weights = _drawn(case.centres_um, 5, 900.0, np.random.default_rng(1))
    found = _bootstrap_scores(case, ["strong"], 5, 900.0, np.random.default_rng(1))
    from scipy.stats import rankdata

    x, y = case.columns["strong"], case.uptake
    for draw, times in enumerate(weights.astype(int)):
        again = np.repeat(np.arange(y.size), times)
        r = pearsonr(x[again], y[again])[0]
        rho = pearsonr(rankdata(x)[again], rankdata(y)[again])[0]
        assert found[draw, 0] == pytest.approx((abs(r) + abs(rho)) / 2, rel=1e-9)
    assert abs(spearmanr(x, y)[0]) > 0


def test_blocks_are_drawn_whole():
    case = sample(3)
    weights = _drawn(case.centres_um, 3, 1500.0, np.random.default_rng(0))
    blocks = np.floor(case.centres_um / 1500.0).astype(int) @ [10, 1]
    for block in np.unique(blocks):
        assert (np.ptp(weights[:, blocks == block], axis=1) == 0).all()
    assert (weights.sum(axis=1) == case.uptake.size).all()  # 16 equal blocks


def test_bad_input_is_refused():
    for wrong in ({"cases": {}}, {"draws": 0}, {"block_um": 0.0}):
        given = {"cases": {"A": sample()}, "groups": GROUPS, **wrong}
        with pytest.raises(InputError):
            selection_stability(given.pop("cases"), given.pop("groups"), **given)
