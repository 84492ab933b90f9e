"""Streamed summaries against the whole array of tiles and draws."""

import math

import numpy as np
import pytest

from napari_mosaik.core import Cancelled, InputError
from napari_mosaik.core.progress import cancellable
from napari_mosaik.dosimetry import (
    DRAWN_INDICES,
    dose_volume,
    equivalent_uniform_dose,
    indices,
    iter_summarise_draws,
    respond,
    summarise_draws,
)

N, DRAWS = 60, 37


@pytest.fixture
def drawn(monkeypatch):
    monkeypatch.setattr(indices, "_BLOCK", 150)  # several blocks of both kinds
    rng = np.random.default_rng(0)
    dose, weight = rng.gamma(5, 6, N), rng.random(N)
    dose[7], weight[3] = np.nan, 0.0
    factor = rng.lognormal(0, 0.2, DRAWS)
    alpha, beta = rng.uniform(0.2, 0.4, DRAWS), rng.uniform(0.02, 0.04, DRAWS)

    def evaluate(some, tiles):
        d = factor[some, None] * dose[tiles]
        return respond(d, 0.1 * d**2, alpha_per_gy=alpha[some, None], beta_per_gy2=beta[some, None])

    return evaluate, weight, {"alpha_per_gy": alpha, "beta_per_gy2": beta, "g": 0.1}


def test_a_summary_equals_that_of_the_whole_array(drawn):
    evaluate, weight, lq = drawn
    found = summarise_draws(evaluate, DRAWS, weight, clonogens=1e4, **lq)
    whole = evaluate(slice(None), slice(None))
    for name, quantiles in found.tiles.items():
        expected = np.percentile(getattr(whole, name), (5, 50, 95), axis=0)
        assert quantiles == pytest.approx(expected, nan_ok=True)
    assert np.isnan(found.tiles["dose_gy"][:, 7]).all()
    assert tuple(found.indices) == DRAWN_INDICES
    for draw in (0, 17, DRAWS - 1):
        volume = dose_volume(whole.dose_gy[draw], weight)
        index = {name: values[draw] for name, values in found.indices.items()}
        assert index["d98_gy"] == volume.dose_at(98)
        assert index["d2_gy"] == volume.dose_at(2)
        assert index["mean_gy"] == pytest.approx(volume.mean_gy)
        own = {name: np.broadcast_to(value, DRAWS)[draw] for name, value in lq.items()}
        eud = equivalent_uniform_dose(whole.ln_survival[draw], weight, **own)
        assert index["eud_gy"] == pytest.approx(eud)
        known = np.isfinite(whole.ln_survival[draw])
        mean = np.average(np.exp(whole.ln_survival[draw][known]), weights=weight[known])
        assert index["tcp"] == pytest.approx(math.exp(-1e4 * mean))


def test_the_histogram_of_each_draw_and_chosen_quantities(drawn):
    evaluate, weight, lq = drawn
    names = ("dose_gy", "q_gy2")
    found = summarise_draws(
        evaluate, DRAWS, weight, clonogens=1e4, quantities=names, histogram=11, **lq
    )
    assert tuple(found.tiles) == names
    assert found.histogram_gy[0] == 0
    assert found.histogram_gy[-1] == np.nanmax(found.tiles["dose_gy"])
    whole = evaluate(slice(None), slice(None))
    for draw in (0, 17, DRAWS - 1):
        expected = dose_volume(whole.dose_gy[draw], weight).volume_at(found.histogram_gy)
        np.testing.assert_array_equal(found.histogram[draw], expected)
    assert summarise_draws(evaluate, DRAWS, weight, clonogens=1e4, **lq).histogram.size == 0


def test_no_block_is_larger_than_asked(drawn):
    evaluate, weight, lq = drawn
    sizes = []

    def counted(some, tiles):
        response = evaluate(some, tiles)
        sizes.append(response.ln_survival.size)
        return response

    list(iter_summarise_draws(counted, DRAWS, weight, clonogens=1e4, **lq))
    assert max(sizes) <= 150
    assert sum(sizes) == 2 * N * DRAWS


def test_progress_and_cancel(drawn):
    evaluate, weight, lq = drawn
    done = list(iter_summarise_draws(evaluate, DRAWS, weight, clonogens=1e4, **lq))
    assert done == sorted(done)
    assert 0 <= done[0] < done[-1] < 1
    work = iter_summarise_draws(evaluate, DRAWS, weight, clonogens=1e4, **lq)
    next(work)
    with cancellable(lambda: True), pytest.raises(Cancelled):
        next(work)


def test_what_is_refused(drawn):
    evaluate, weight, lq = drawn
    with pytest.raises(InputError, match="at least one draw"):
        summarise_draws(evaluate, 0, weight, clonogens=1, **lq)
    with pytest.raises(InputError, match="quantiles must lie in"):
        summarise_draws(evaluate, DRAWS, weight, clonogens=1, percent=(5, 101), **lq)
