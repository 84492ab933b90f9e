"""Intervals: ranks by hand, coverage on planted residuals, fields with the spread of slides."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from napari_mosaik.core import InputError
from napari_mosaik.predictor import (
    TrainParams,
    calibrate,
    draw_errors,
    held_out_cases,
    interval_metrics,
    nearest_tiles,
    out_of_range,
    train,
    with_intervals,
    with_range,
)
from napari_mosaik.predictor.held_out import HeldOutCase, companion_weights
from napari_mosaik.predictor.model import CARD_FORMAT, TargetScale, TrainedModel
from napari_mosaik.predictor.prediction import COMPANIONS
from napari_mosaik.predictor.surroundings import slide_columns
from napari_mosaik.predictor.training_range import with_held_out
from napari_mosaik.predictor.uncertainty import (
    ErrorScale,
    Residuals,
    conformal_quantile,
    interval_score,
    prediction_intervals,
)
from tests.predictor.test_training import finish

PITCH = (300.0, 300.0)
CELLS = np.argwhere(np.ones((21, 28), bool))


def case_of(rng, name="A", *, sd=0.1, slope=0.0, shift=0.0) -> Residuals:
    predicted = rng.uniform(0, 1, len(CELLS))
    residual = shift + rng.normal(size=len(CELLS)) * (sd + slope * predicted)
    return Residuals(name, residual, predicted, CELLS, PITCH)


@pytest.mark.parametrize(("n", "rank"), [(8, None), (9, 9), (10, 10), (18, 18), (19, 18), (99, 90)])
def test_the_rank_of_the_quantile_by_hand(n, rank):
    scores = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    assert conformal_quantile(scores, 0.9) == (math.inf if rank is None else rank)


def test_the_interval_score_by_hand():
    # inside: the width; 0.1 below or above: width + 20 x 0.1
    assert interval_score([0.5], [0.2], [0.6]) == pytest.approx(0.4)
    assert interval_score([0.1], [0.2], [0.6]) == pytest.approx(0.4 + 2.0)
    assert interval_score([0.7], [0.2], [0.6]) == pytest.approx(0.4 + 2.0)
    assert interval_score([0.5, np.nan], [0.2, 0.2], [0.6, 0.6]) == pytest.approx(0.4)


def test_coverage_on_exchangeable_residuals():
    rng = np.random.default_rng(1)
    record = calibrate([case_of(rng, str(i)) for i in range(6)])
    assert record["tile"] == pytest.approx(0.1 * 1.645, rel=0.03)
    assert record["scale"]["slope"] == 0  # a scale that follows the value would not help
    new = case_of(rng)
    limits = prediction_intervals(record, new.predicted)
    found = interval_metrics(new.predicted + new.residual, limits, CELLS)
    assert found["tile"]["coverage"] == pytest.approx(0.9, abs=3 * math.sqrt(0.09 / len(CELLS)))
    assert found["tile"]["width"] == pytest.approx(2 * record["tile"])
    # 49 independent tiles: the greatest of them is below q in 90 % of the blocks
    assert record["block"] > record["tile"]
    assert 0.6 <= found["block"]["block_coverage"] <= 1.0
    assert found["block"]["coverage"] > 0.97


def test_whole_blocks_are_covered_as_often_as_promised():
    rng = np.random.default_rng(2)
    record = calibrate([case_of(rng, str(i)) for i in range(9)])
    assert record["notes"] == []
    shares = []
    for _ in range(40):
        new = case_of(rng)
        limits = prediction_intervals(record, new.predicted)
        found = interval_metrics(new.predicted + new.residual, limits, CELLS)
        shares.append(found["block"]["block_coverage"])
    assert np.mean(shares) == pytest.approx(0.9, abs=0.05)


def test_a_scale_that_follows_the_value_is_taken_where_it_helps():
    rng = np.random.default_rng(3)
    record = calibrate([case_of(rng, str(i), sd=0.02, slope=0.3) for i in range(5)])
    assert record["scale"]["slope"] > 0.1
    low, high = prediction_intervals(record, [0.0, 1.0])["tile"]
    assert high[1] - low[1] > 3 * (high[0] - low[0])
    np.testing.assert_allclose((low + high) / 2, [0.0, 1.0], atol=1e-12)


def test_the_coverage_of_a_case_is_by_the_others():
    rng = np.random.default_rng(4)
    cases = [case_of(rng, "good"), case_of(rng, "other"), case_of(rng, "far", sd=1.0)]
    coverage = calibrate(cases)["coverage"]
    assert coverage["far"] < 0.3
    assert coverage["good"] > 0.97


def test_the_coverage_by_the_others_by_hand():
    """The size of a case's interval is the conformal quantile of the other cases' residuals."""
    rng = np.random.default_rng(8)
    cases = [case_of(rng, str(i), sd=sd) for i, sd in enumerate((0.05, 0.1, 0.2, 0.1))]
    record = calibrate(cases)
    assert record["scale"]["slope"] == 0
    for case in cases:
        others = [np.abs(one.residual) for one in cases if one is not case]
        half = conformal_quantile(np.concatenate(others))
        expected = np.mean(np.abs(case.residual) <= half)
        assert record["coverage"][case.case] == pytest.approx(expected)


def test_the_error_scale_is_a_line_that_never_gets_small():
    predicted = np.array([0.0, 0.5, 1.0])
    scale = ErrorScale.fit(np.array([0.1, -0.3, 0.5]), predicted)
    assert (scale.intercept, scale.slope) == (pytest.approx(0.1), pytest.approx(0.4))
    floor = 0.25 * 0.3
    np.testing.assert_allclose(scale.at([-1.0, 0.0, 1.0]), [floor, 0.1, 0.5])
    assert ErrorScale.fit(np.array([0.1, 0.2]), predicted[:2]) == ErrorScale()  # too few
    np.testing.assert_array_equal(ErrorScale().at(predicted), 1.0)


def test_too_few_cases_or_blocks_promise_nothing():
    rng = np.random.default_rng(5)
    assert calibrate([case_of(rng)]) is None
    assert calibrate([]) is None
    few = [replace(case_of(rng, str(i)), cells=np.zeros_like(CELLS)) for i in range(3)]
    record = calibrate(few)
    assert record["block"] is None
    assert any("3 calibration blocks" in note for note in record["notes"])
    assert any("no guarantee at case level: 3" in note for note in record["notes"])
    assert set(prediction_intervals(record, [0.5])) == {"tile"}


def test_missing_tiles_have_no_interval_and_do_not_count():
    rng = np.random.default_rng(6)
    record = calibrate([case_of(rng, str(i)) for i in range(3)])
    predicted = np.array([0.5, np.nan, 0.5])
    limits = prediction_intervals(record, predicted)
    assert np.isnan(limits["tile"][0][1])
    found = interval_metrics([0.5, 0.5, np.nan], limits, CELLS[:3])
    assert found["tile"]["coverage"] == 1.0


def test_drawn_errors_have_the_spread_and_the_correlation_of_left_out_slides():
    fields = {"case_sd": 0.04, "sd": 0.1, "length_um": 900.0}
    drawn = draw_errors(fields, CELLS, PITCH, 1500, seed=1)
    assert drawn.std() == pytest.approx(math.hypot(0.04, 0.1), rel=0.05)
    apart = np.hypot(*((CELLS - CELLS[0]) * 300.0).T)
    for tile in (1, 3, 28):
        expected = 0.04**2 + 0.1**2 * np.exp(-apart[tile] / 900.0)
        assert np.mean(drawn[:, 0] * drawn[:, tile]) == pytest.approx(expected, abs=1e-3)
    at = CELLS * 300.0
    distance = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1))
    within = 0.1**2 * np.exp(-distance / 900.0).mean()
    assert drawn.mean(axis=1).var() == pytest.approx(0.04**2 + within, rel=0.12)
    assert (draw_errors(fields, CELLS, PITCH, 3, seed=1) == drawn[:3]).mean() < 1.01


def test_the_fields_of_a_calibration_are_those_that_were_planted():
    planted = {"case_sd": 0.05, "sd": 0.1, "length_um": 900.0}
    drawn = draw_errors(planted, CELLS, PITCH, 40, seed=2)
    cases = [
        Residuals(str(i), field, np.full(len(CELLS), 0.5), CELLS, PITCH)
        for i, field in enumerate(drawn)
    ]
    found = calibrate(cases)["fields"]
    assert found["sd"] == pytest.approx(0.1, rel=0.15)
    assert found["length_um"] == pytest.approx(900.0, rel=0.35)
    assert found["case_sd"] == pytest.approx(0.05, rel=0.35)
    # the spread of the means is split between the slide's own error and that of its field
    alone = draw_errors({**planted, "case_sd": 0.0}, CELLS, PITCH, 40, seed=3)
    without = calibrate(
        [
            Residuals(str(i), one, np.full(len(CELLS), 0.5), CELLS, PITCH)
            for i, one in enumerate(alone)
        ]
    )["fields"]
    assert without["case_sd"] < 0.6 * alone.mean(axis=1).std()
    means = np.array([case.residual.mean() for case in cases])
    again = draw_errors(found, CELLS, PITCH, 800).mean(axis=1)
    assert again.std() == pytest.approx(math.sqrt(np.mean(means**2)), rel=0.15)


def test_residuals_are_those_of_a_model_that_has_not_seen_the_case(small_cases):
    params = TrainParams(members=3, epochs=2, threads=1, with_companions=False, fusion_width=16)
    model = finish(train(small_cases, params, seed=2))
    found = finish(held_out_cases(small_cases, params, model.target, seed=2, fwhm_um=1500.0))
    assert [one.case for one in found] == ["A2", "A3", "B8"]
    one = params.model_copy(update={"members": 1})
    alone = finish(train(small_cases[1:], one, seed=2))
    from napari_mosaik.predictor import predict

    predicted = model.target.normalise(predict(alone, small_cases[0]).suv, clip=False)
    measured = model.target.normalise(small_cases[0].suv, clip=False)
    np.testing.assert_allclose(found[0].residuals({}).residual, measured - predicted, atol=1e-9)
    whole = with_intervals(model, found)
    assert whole.card["intervals"]["n_cases"] == 3
    assert with_intervals(model, []).card["intervals"] is None


def test_the_weights_are_the_best_ones_for_held_out_cases():
    noise = np.random.default_rng(7).normal(size=(3, 3, len(CELLS)))

    def cases(*sds):
        return [
            HeldOutCase(
                str(i),
                np.zeros(len(CELLS)),
                sds[0] * noise[0, i],
                {
                    name: sd * noise[k, i]
                    for k, (name, sd) in enumerate(zip(COMPANIONS, sds[1:], strict=False), 1)
                },
                CELLS,
                PITCH,
            )
            for i in range(3)
        ]

    # independent errors: the best weights go with the inverse variances
    assert companion_weights(cases(0.1, 0.2, 9.0)) == {"boosting_psf": 0.2}
    assert companion_weights(cases(0.1, 9.0, 0.2)) == {"source_blur": 0.2}
    assert companion_weights(cases(0.1, 1.0, 1.0)) == {}
    assert companion_weights(cases(0.1, 0.16, 0.16)) == {"boosting_psf": 0.2, "source_blur": 0.2}
    assert companion_weights(cases(0.2, 0.1, 9.0)) == {"boosting_psf": 0.5}
    assert companion_weights(cases(0.2)) == {}
    assert companion_weights([]) == {}


def test_tiles_unlike_the_training_are_out_of_range(small_cases):
    params = TrainParams(members=1, epochs=1, threads=1, with_companions=False, fusion_width=16)
    model = with_range(finish(train(small_cases[:2], params)), small_cases[:2], 1500.0)
    case = small_cases[2]
    usual = out_of_range(model, case)
    assert usual.mean() < 0.6
    strange = case.features.copy()
    strange[:5] += 60 * case.features.std(axis=0).clip(0.1)
    assert out_of_range(model, replace(case, features=strange))[:5].all()
    empty = case.features.copy()
    empty[3] = np.nan
    assert out_of_range(model, replace(case, features=empty))[3]
    assert out_of_range(with_range(model, small_cases[:1], 1500.0), case) is None


SCALE = TargetScale(0.5, 2.5)


def kept(cases):
    """A model without networks that keeps its training tiles."""
    card = {
        "format": CARD_FORMAT,
        "fwhm_um": 1500.0,
        "target": {"low": SCALE.low, "high": SCALE.high},
    }
    return with_range(TrainedModel({}, card), cases, 1500.0)


def test_a_case_without_measured_tiles_takes_no_place_of_training_tiles(small_cases, monkeypatch):
    monkeypatch.setattr("napari_mosaik.predictor.training_range._MAX_POINTS", 12)
    nothing = replace(small_cases[2], suv=np.full(len(small_cases[2]), np.nan))
    model = kept([*small_cases[:2], nothing])
    assert len(model.weights["range.points"]) == 12  # 4 a case if the third one counted
    assert np.isfinite(model.card["range"]["distance"])


def test_the_nearest_training_tiles_are_those_of_a_whole_search(small_cases):
    suv = np.array(small_cases[0].suv)
    suv[[0, 5]] = np.nan  # not measured: no training tiles
    training, case = [replace(small_cases[0], suv=suv), small_cases[1]], small_cases[2]
    columns = [slide_columns(one, 1500.0) for one in training]
    used = np.concatenate([c[one.measured] for c, one in zip(columns, training, strict=True)])
    median = np.nanmedian(used, axis=0)
    filled = np.where(np.isnan(used), median, used)
    centre, spread = filled.mean(axis=0), filled.std(axis=0)
    points = np.clip((filled - centre) / spread, -8, 8)
    own = slide_columns(case, 1500.0)
    own = np.clip((np.where(np.isnan(own), median, own) - centre) / spread, -8, 8)
    apart = np.sqrt(((own[:, None] - points[None]) ** 2).sum(axis=2))
    where = [(one.case, tile) for one in training for tile in np.flatnonzero(one.measured)]

    model = kept(training)
    predicted = {"A2": np.arange(float(len(training[0])))}
    found = nearest_tiles(with_held_out(model, predicted), case, 4)
    assert found.n_training == len(where)
    np.testing.assert_allclose(
        found.distance * model.card["range"]["distance"], np.sort(apart, axis=1)[:, :4], rtol=1e-4
    )
    for row in (0, 7, len(case) - 1):
        expected = [where[i] for i in np.argsort(apart[row])[:4]]
        nearest = found.of(row)
        assert [(one["case"], one["tile"]) for one in nearest] == expected
        for one in nearest:
            source = training[0] if one["case"] == "A2" else training[1]
            assert one["measured"] == pytest.approx(source.suv[one["tile"]], rel=1e-5)
            held_out = SCALE.restore(float(one["tile"])) if one["case"] == "A2" else None
            assert one["predicted"] == (None if held_out is None else pytest.approx(held_out))
    beyond = out_of_range(model, case)
    missing = np.isnan(slide_columns(case, 1500.0)).sum(axis=1) > model.card["range"]["n_missing"]
    np.testing.assert_array_equal(beyond, (found.distance[:, 0] > 1) | missing)


def test_a_model_without_its_training_tiles_says_so(small_cases):
    with pytest.raises(InputError, match="was trained on one case"):
        nearest_tiles(kept(small_cases[:1]), small_cases[2])
    old = kept(small_cases[:2])
    with pytest.raises(InputError, match=r"does not keep its training tiles \(format 4, not 5\)"):
        nearest_tiles(TrainedModel(old.weights, {**old.card, "format": 4}), small_cases[2])
