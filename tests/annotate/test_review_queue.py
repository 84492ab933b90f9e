"""The review queue: signals, order, control sample, error rate without bias, expected gain."""

from itertools import combinations, permutations

import numpy as np
import pytest

from napari_mosaik.annotate.review_queue import (
    RANKINGS,
    QueuedTile,
    Ranking,
    Signal,
    class_signals,
    cold_among_hot,
    draw_queue,
    error_rate,
    expected_gain,
    priorities,
    ranking_named,
    spread_order,
    take_turns,
    tile_kinds,
)
from napari_mosaik.core import InputError


def centres(n, pitch=300.0):
    return np.stack([np.zeros(n), np.arange(n) * pitch], 1)


def signal(values, word="x"):
    return Signal(np.asarray(values, float), lambda tile: f"{word} {tile}")


def queue_of(n, seed=0, share=0.2):
    order = np.arange(n)[::-1]
    return draw_queue(order, np.linspace(1, 0, n), [f"reason {i}" for i in range(n)], seed, share)


# --- signals --------------------------------------------------------------------------------------
def test_class_signals_are_those_computed_point_by_point():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3) * 0.4, (5, 4, 4))
    p[1, :2] = np.nan
    p[4] = np.nan
    names = ("background", "neoplastic", "necrosis")
    found = class_signals(p, names)
    top = np.where(np.isnan(p[..., 0]), -1, np.nan_to_num(p).argmax(3))
    prevalence = np.array([(top == k).sum() for k in range(3)]) / (top >= 0).sum()
    for i in range(4):
        points = [(r, c) for r in range(4) for c in range(4) if top[i, r, c] >= 0]
        entropy = [-sum(x * np.log(x) for x in p[i, r, c]) / np.log(3) for r, c in points]
        assert found["uncertainty"].values[i] == pytest.approx(np.mean(entropy))
        pairs = [
            (a, b) for a, b in combinations(points, 2) if abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1
        ]
        differ = np.mean([top[i][a] != top[i][b] for a, b in pairs])
        assert found["boundary"].values[i] == pytest.approx(differ)
        bits = [np.log2(prevalence.max() / prevalence[top[i][a]]) for a in points]
        assert found["rare"].values[i] == pytest.approx(np.mean(bits))
    assert all(np.isnan(one.values[4]) for one in found.values())


def test_a_certain_map_has_nothing_to_show_and_reasons_name_the_classes():
    p = np.zeros((3, 4, 4, 2))
    p[..., 0] = 1.0
    p[2, :, 2:] = (0.0, 1.0)
    found = class_signals(p, ("neoplastic", "necrosis"))
    assert found["uncertainty"].values.tolist() == [0, 0, 0]
    assert found["boundary"].values == pytest.approx([0, 0, 4 / 24])
    assert "neoplastic and necrosis" in found["boundary"].reason(2)
    assert found["rare"].reason(2) == "50 % of the tile is necrosis, which is 17 % of the section"
    with pytest.raises(InputError, match="shape"):
        class_signals(p, ("neoplastic",))


def test_cold_among_hot_needs_hot_neighbours():
    windows = np.full((4, 3, 3), -1)
    for i in range(4):  # a row of tiles
        windows[i, 1] = [i - 1, i, i + 1 if i < 3 else -1]
    found = cold_among_hot([5.0, 1.0, 6.0, np.nan], windows, "g/mL")
    assert found.values[:3].tolist() == [0.0, 4.5, 0.0]
    assert np.isnan(found.values[3])
    assert "1 g/mL, but 5.5" in found.reason(1)


# --- order ----------------------------------------------------------------------------------------
def test_signals_are_weighed_by_rank_and_the_strongest_gives_the_reason():
    ranking = Ranking("both", "", {"a": 1.0, "b": 0.4, "absent": 9.0})
    signals = {"a": signal([3e6, 2e6, 1e6], "a"), "b": signal([1, 2, 30], "b")}
    priority, reasons = priorities(signals, ranking, 3)
    expected = (np.array([1, 2 / 3, 1 / 3]) + 0.4 * np.array([1 / 3, 2 / 3, 1])) / 1.4
    assert priority == pytest.approx(expected)
    assert reasons == ["a 0", "a 1", "b 2"]


def test_a_tile_without_data_is_left_out_and_zero_gains_nothing():
    signals = {"a": signal([np.nan, 0, 2]), "b": signal([np.nan, 0, np.nan])}
    priority, reasons = priorities(signals, Ranking("r", "", {"a": 1, "b": 1}), 3)
    assert np.isnan(priority[0])
    assert priority[1] == 0
    assert reasons[1] == "nothing conspicuous"
    order, _ = spread_order(priority, centres(3), 450)
    assert order.tolist() == [2, 1]
    with pytest.raises(InputError, match="'a'"):
        priorities({"a": signal([1, 2])}, Ranking("r", "", {"a": 1}), 3)


def test_the_order_is_that_of_a_greedy_choice_and_scores_fall():
    rng = np.random.default_rng(4)
    priority = np.round(rng.random(60), 1)  # many ties
    places = rng.integers(0, 9, (60, 2)) * 300.0
    order, scores = spread_order(priority, places, 450.0)
    left, value, plain = list(range(60)), priority.copy(), []
    while left:
        best = max(left, key=lambda i: (value[i], -i))
        plain.append(best)
        left.remove(best)
        distance = np.hypot(*(places - places[best]).T)
        near = distance <= 3 * 450.0
        value[near] *= -np.expm1(-((distance[near] / 450.0) ** 2) / 2)
    assert order.tolist() == plain
    assert (np.diff(scores) <= 0).all()
    without, _ = spread_order(priority, places, 0)
    assert without.tolist() == sorted(range(60), key=lambda i: (-priority[i], i))


def test_rankings_are_named_and_only_one_reads_the_measured_uptake():
    assert [name for name, one in RANKINGS.items() if not one.blind] == ["uptake"]
    assert all(one.about.endswith(".") and one.about.count(".") == 1 for one in RANKINGS.values())
    with pytest.raises(InputError, match="uncertainty, disagreement"):
        ranking_named("entropy")


# --- control sample -------------------------------------------------------------------------------
def test_every_tile_is_there_once_scores_fall_and_the_seed_decides():
    queue = queue_of(43)
    assert sorted(item.tile for item in queue) == list(range(43))
    assert [item.rank for item in queue] == list(range(1, 44))
    scores = [item.score for item in queue]
    assert scores == sorted(scores, reverse=True)
    control = [item for item in queue if item.control]
    assert len(control) == 9
    assert {item.probability for item in control} == {9 / 43}
    assert all(item.probability is None for item in queue if not item.control)
    others = [item.place for item in queue if not item.control]
    assert others == sorted(others)
    assert queue == queue_of(43)
    assert [i.tile for i in queue] != [i.tile for i in queue_of(43, seed=1)]
    assert queue_of(1)[0].control
    assert draw_queue(np.zeros(0, int), np.zeros(0), [], 0) == []


def test_the_probability_is_the_frequency_with_which_a_tile_is_drawn():
    n, draws = 24, 4000
    counts, first = np.zeros(n), np.zeros(n)
    for seed in range(draws):
        control = [item.tile for item in queue_of(n, seed) if item.control]
        counts[control] += 1
        first[control[0]] += 1
    probability = 5 / n
    sd = np.sqrt(probability * (1 - probability) / draws)
    assert np.abs(counts / draws - probability).max() < 4 * sd
    assert np.abs(first / draws - 1 / n).max() < 4 * np.sqrt(1 / n / draws)  # the first as well


# --- error rate -----------------------------------------------------------------------------------
def every_queue(n, size):
    """Every queue that chance may give, with its control tiles at fixed places."""
    slots = [1, 4, 6][:size]
    for drawn in combinations(range(n), size):
        for shuffled in permutations(drawn):
            chosen = dict(zip(slots, shuffled, strict=True))
            others = iter([p for p in range(n) if p not in drawn])
            places = [chosen[s] if s in chosen else next(others) for s in range(n)]
            yield [
                QueuedTile(s + 1, p, 0.0, "", s in chosen, size / n, p)
                for s, p in enumerate(places)
            ]


@pytest.mark.parametrize("seen", [2, 5, 6, 7, 8])
def test_the_error_rate_is_unbiased_over_every_possible_sample(seen):
    n, size = 8, 3
    truth = [True, True, False, True, False, False, True, False]
    estimates, covered = {}, []
    for queue in every_queue(n, size):
        rate = error_rate(queue, {item.tile: truth[item.tile] for item in queue[:seen]})
        covered.append(rate.low - 1e-12 <= np.mean(truth) <= rate.high + 1e-12)
        if rate.estimate is not None:
            assert 0 <= rate.low <= rate.estimate <= rate.high <= 1
            known = max((i.place for i in queue[:seen] if not i.control), default=-1)
            estimates.setdefault(known, []).append(rate.estimate)
    assert np.mean(covered) >= 0.95
    assert estimates
    for own in estimates.values():  # whichever part of the order is known
        assert np.mean(own) == pytest.approx(np.mean(truth), abs=1e-12)


def test_what_the_order_put_first_does_not_raise_the_rate():
    """Errors stand first in the order: the plain share of those seen would be far too high."""
    queue = queue_of(100, seed=3)
    truth = {item.tile: item.place < 20 for item in queue}
    seen = {item.tile: truth[item.tile] for item in queue[:40]}
    rate = error_rate(queue, seen)
    assert np.mean(list(seen.values())) > 0.4
    assert rate.low <= 0.2 <= rate.high
    assert rate.estimate == pytest.approx(0.2, abs=0.03)
    assert (rate.judged, rate.total) == (40, 100)
    everything = error_rate(queue, truth)
    assert everything.low == everything.high == everything.estimate == pytest.approx(0.2)
    nothing = error_rate(queue, {})
    assert (nothing.estimate, nothing.low, nothing.high, nothing.control) == (None, 0.0, 1.0, 0)


def test_a_skipped_tile_ends_what_is_known():
    queue = queue_of(30, seed=1)
    regular = [item for item in queue if not item.control]
    wrong = {item.tile: True for item in regular[:3] + regular[4:9]}
    rate = error_rate(queue, wrong)
    assert rate.estimate is None
    assert rate.low <= 5 / 30
    assert rate.judged == 8


def test_the_expected_gain_is_that_of_the_last_tiles_without_control():
    queue = queue_of(60)
    assert expected_gain(queue, {}) is None
    regular = [item.tile for item in queue if not item.control]
    control = {item.tile: True for item in queue if item.control}
    wrong = {tile: number < 15 for number, tile in enumerate(regular[:40])} | control
    assert expected_gain(queue, wrong) == pytest.approx(0.5 / 21)
    assert expected_gain(queue, {regular[0]: True}) == pytest.approx(0.75)


def test_kinds_of_tiles_take_turns_and_scores_fall():
    order, scores = np.array([4, 0, 3, 1, 5, 2]), np.array([0.9, 0.8, 0.7, 0.5, 0.4, 0.1])
    kinds = np.array([0, 0, 0, 1, 0, -1])
    turned, falling = take_turns(order, scores, kinds)
    # rounds: 4 (kind 0), 3 (kind 1), 5 (no kind); then 0; then 1; then 2
    np.testing.assert_array_equal(turned, [4, 3, 5, 0, 1, 2])
    np.testing.assert_allclose(falling, [3.9 / 4, 3.7 / 4, 3.4 / 4, 2.8 / 4, 1.5 / 4, 0.1 / 4])
    same, _ = take_turns(order, scores, np.zeros(6, np.int64))
    np.testing.assert_array_equal(same, order)
    assert len(take_turns(order[:0], scores[:0], kinds)[0]) == 0


def test_kinds_are_what_the_classifier_sees_in_the_tiles():
    one, other = np.array([0.9, 0.1]), np.array([0.2, 0.8])
    tiles = np.empty((6, 4, 4, 2))
    tiles[[0, 1]], tiles[[2, 3]] = one, other
    tiles[4, :2], tiles[4, 2:] = one, other  # as much of both as of neither
    tiles[5] = np.nan
    kinds = tile_kinds(tiles, np.ones(6, bool), 10)
    assert kinds[0] == kinds[1] != kinds[2] == kinds[3]
    assert kinds[4] not in kinds[:4]
    assert kinds[5] == -1
    np.testing.assert_array_equal(tile_kinds(tiles, np.zeros(6, bool), 10), -1)
    assert len(set(tile_kinds(tiles, np.ones(6, bool), 2)[:5].tolist())) == 2
    tiles[1, 0, 0] = np.nan  # a point off tissue counts for nothing
    again = tile_kinds(tiles, np.arange(6) != 3, 10)
    assert again[0] == again[1] != again[2]
    assert again[3] == -1
