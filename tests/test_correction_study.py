"""The study of the review queue: what the simulated reader sees, and the summary."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def study():
    path = Path(__file__).parents[1] / "benchmarks" / "correction.py"
    spec = importlib.util.spec_from_file_location("correction", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reader_sees_one_tile_and_errs(study):
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(1, 4, (12, 12)), np.ones((10, 10), int)).astype(np.uint8)
    where = (slice(40, 90), slice(30, 80))
    other = np.full_like(truth, 3)
    other[where] = truth[where]
    drawn = study.drawn_tile(truth, where, np.random.default_rng(1))
    np.testing.assert_array_equal(drawn, study.drawn_tile(other, where, np.random.default_rng(1)))
    right = np.mean(drawn == truth[where])
    assert 0.5 < right < 0.98
    assert set(np.unique(drawn)) <= {1, 2, 3}


def curves(queue, random):
    at = [0, 100, 200]
    return {
        name: {"corrections": at, "dice": dice, "uptake_mae": [1.0, 0.9, 0.8]}
        for name, dice in (("queue", queue), ("random", random), ("entropy", random))
    }


def test_a_seed_that_never_gets_there_is_null_and_counts_as_more_than_any(study):
    reached, late = (
        curves([0.5, 0.8, 0.9], [0.5, 0.6, 0.7]),
        curves([0.5, 0.6, 0.7], [0.5, 0.6, 0.7]),
    )
    never = curves([0.5, 0.5, 0.5], [0.5, 0.6, 0.7])
    needed = study.summary([1, 2, 3], [reached, late, never])["corrections_for_random_200"]
    assert needed == {"queue": 200.0, "queue_by_seed": [100, 200, None]}
    most = study.summary([1, 2, 3], [reached, never, never])["corrections_for_random_200"]
    assert most["queue"] is None
    record = study.summary([1, 2, 3], [reached, late, never])["orders"]["queue"]
    assert record["corrections"] == [0, 100, 200]
    assert record["dice_low"][1] <= record["dice"][1] <= record["dice_high"][1]
    assert record["dice"][1] == pytest.approx((0.8 + 0.6 + 0.5) / 3, abs=1e-4)


def test_neighbours_of_a_tile_are_those_around_it(study):
    cells = np.array([[0, 0], [0, 1], [1, 0], [3, 3]])
    windows = study.neighbour_windows(200.0 + 300.0 * cells)
    assert windows[0].tolist() == [[-1, -1, -1], [-1, 0, 1], [-1, 2, -1]]
    assert (windows[3] >= 0).sum() == 1


def test_a_curve_that_is_kept_is_not_computed_again(study, tmp_path, monkeypatch):
    asked, drawn = [], []
    monkeypatch.setattr(study, "fitted_uptake", lambda: "model")

    def studied(seed, corrections, model):
        drawn.append((seed, corrections, model))
        return lambda order: asked.append(order) or {"dice": [seed], "order": order}

    monkeypatch.setattr(study, "studied", studied)
    first = study.kept_study(3, 50, tmp_path)
    assert first == {o: {"dice": [3], "order": o} for o in study.ORDERS}
    next(tmp_path.glob("seed-3-50-queue-*")).unlink()  # as if the code of the queue had changed
    assert study.kept_study(3, 50, tmp_path) == first
    assert asked == [*study.ORDERS, "queue"]
    assert drawn == [(3, 50, "model")] * 2
    assert study.code_digest("queue") == study.code_digest("entropy") != study.code_digest("random")
