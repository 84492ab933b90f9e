from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor

from napari_mosaik.predictor import baselines
from napari_mosaik.predictor.baselines import TreeEnsemble, fit_trees


def table(n=400, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)).astype(np.float32).astype(float)
    x[rng.random(x.shape) < 0.1] = np.nan
    y = np.nan_to_num(x[:, 0]) ** 2 + np.where(np.isnan(x[:, 1]), 2.0, 0.0)
    return x, y + rng.normal(0, 0.1, n)


@pytest.mark.parametrize("kind", ["forest", "boosting"])
def test_arrays_predict_what_scikit_learn_predicts(kind):
    x, y = table()
    fitted = fit_trees(kind, x, y, seed=3)
    again = TreeEnsemble.from_arrays(fitted.arrays())
    model = (baselines._forest if kind == "forest" else baselines._boosting)(3).fit(x, y)
    assert isinstance(model, RandomForestRegressor | HistGradientBoostingRegressor)
    unseen, truth = table(seed=1)
    np.testing.assert_allclose(again.predict(unseen), model.predict(unseen), atol=1e-9)
    # They learn, and a missing value of the second column is worth 2.
    assert np.abs(again.predict(unseen) - truth).mean() < 0.6 * np.abs(truth - truth.mean()).mean()


@pytest.mark.parametrize("kind", ["forest", "boosting"])
def test_a_column_that_no_tile_has_is_never_used(kind):
    x, y = table(200)
    x[:, 4] = np.nan
    unseen = table(200, seed=1)[0]
    fitted, filled = fit_trees(kind, x, y, seed=3), unseen.copy()
    filled[:, 4] = np.nan
    np.testing.assert_array_equal(fitted.predict(unseen), fitted.predict(filled))
    assert set(fitted.column) <= {-1, 0, 1, 2, 3}


@pytest.mark.parametrize("kind", ["forest", "boosting"])
def test_the_seed_decides(kind):
    x, y = table()
    first, second, other = (fit_trees(kind, x, y, seed).predict(x) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_trees_that_are_stored_otherwise_are_an_error(monkeypatch):
    x, y = table()
    original = baselines._of_boosting

    def wrong(model):
        found = original(model)
        found.threshold[found.column >= 0] += 0.5
        return found

    monkeypatch.setattr(baselines, "_of_boosting", wrong)
    with pytest.raises(RuntimeError, match="stored in another way"):
        fit_trees("boosting", x, y, 0)
