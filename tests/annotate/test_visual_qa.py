"""Error rates from a sample: against scipy, against simulation, and in the limit cases."""

import numpy as np
import pytest
from scipy import stats

from napari_mosaik.annotate.visual_qa import (
    QaSample,
    draw_sample,
    exact_interval,
    miss_rate_interval,
    summarise_qa,
)
from napari_mosaik.core import InputError


@pytest.mark.parametrize(("count", "total"), [(0, 20), (1, 20), (7, 60), (60, 60), (0, 1)])
def test_the_exact_interval_is_scipys(count, total):
    found = exact_interval(count, total)
    expected = stats.binomtest(count, total).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.estimate == count / total


def test_the_interval_over_fields_covers_the_truth_where_objects_of_a_field_are_alike():
    rng = np.random.default_rng(5)
    covered, covered_naive, n = 0, 0, 400
    for _ in range(n):
        rates = rng.beta(1.0, 4.0, 12)  # mean 0.2, very different from field to field
        there = rng.poisson(30, 12)
        missed = rng.binomial(there, rates)
        found = miss_rate_interval(there - missed, missed)
        naive = exact_interval(int(missed.sum()), int(there.sum()))
        covered += found.low <= 0.2 <= found.high
        covered_naive += naive.low <= 0.2 <= naive.high
    assert covered / n >= 0.88
    assert covered_naive / n < 0.75


def test_fields_without_misses_still_leave_room_for_some():
    found = miss_rate_interval([10, 20, 5], [0, 0, 0])
    assert found.estimate == found.low == 0
    assert found.high == pytest.approx(stats.binomtest(0, 35).proportion_ci(0.95, "exact").high)
    assert miss_rate_interval([0, 0], [0, 0]) is None
    assert miss_rate_interval([], []) is None


def test_a_sample_is_random_repeatable_and_without_repetition():
    one = draw_sample(range(1, 1001), range(50), 60, 8, 3)
    assert one == draw_sample(range(1, 1001), range(50), 60, 8, 3)
    assert one != draw_sample(range(1, 1001), range(50), 60, 8, 4)
    assert len(set(one.objects)) == 60
    assert len(set(one.fields)) == 8
    few = draw_sample([4, 2], [], 60, 8, 0)
    assert sorted(few.objects) == [2, 4]
    assert few.fields == ()
    with pytest.raises(InputError, match="at least one object"):
        draw_sample([1], [], 0, 0, 0)


def test_the_last_word_on_each_object_counts():
    sample = QaSample((5, 9, 2), (1,))
    summary = summarise_qa(
        sample,
        [
            {"object": 5, "rating": "wrong"},
            {"object": 9, "rating": "unsure"},
            {"object": 5, "rating": "correct"},
            {"object": 777, "rating": "wrong"},
            {"field": 1, "detected": 3, "missed": 1},
            {"overall_rating": "usable", "comment": "pale capillaries missed"},
        ],
    )
    assert (summary.correct, summary.wrong, summary.unsure, summary.to_rate) == (1, 0, 1, 1)
    assert (summary.detected, summary.missed, summary.to_search) == (3, 1, 0)
    assert summary.false_rate.estimate == 0
    assert summary.miss_rate.estimate == 0.25
    assert summary.overall_rating == "usable"
    assert summarise_qa(sample, []).false_rate is None
