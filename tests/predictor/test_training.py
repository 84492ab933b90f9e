from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from napari_mosaik.core import InputError
from napari_mosaik.predictor import (
    TrainedModel,
    TrainParams,
    predict,
    predict_baselines,
    train,
    with_baselines,
)
from napari_mosaik.predictor.metrics import mae
from napari_mosaik.predictor.training_set import choose_validation, make_training_set
from tests.predictor.synthetic import make_cohort

QUICK = TrainParams(
    architecture="tile",
    members=1,
    with_companions=False,
    learning_rate=5e-4,
    epochs=3,
    validation="auto",
    threads=1,
    spatial_width=16,
    branch_channels=(4, 8, 8),
    fusion_width=16,
    proxy_width=16,
    temporal_width=32,
    bound_width=8,
    free_width=4,
)

SIZES = {
    "spatial_width": 128,
    "branch_channels": (16, 32, 64),
    "fusion_width": 128,
    "proxy_width": 64,
    "bound_width": 32,
    "free_width": 16,
    "temporal_width": 32,
}
LOSS_CURVE = (0.1556808888912201, 0.13438213467597962, 0.16240694224834443)


def tiled_otherwise(case, factor):
    """The case with tiles of another size."""
    scales = (replace(scale, spacing_um=factor * scale.spacing_um) for scale in case.scales)
    return replace(case, scales=tuple(scales))


def finish(generator) -> TrainedModel:
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value


def same_weights(a: TrainedModel, b: TrainedModel) -> bool:
    return all(np.array_equal(a.weights[name], b.weights[name]) for name in a.weights)


@pytest.fixture(scope="module")
def model(tile_cases) -> TrainedModel:
    return finish(train(tile_cases, QUICK, seed=5))


def test_equal_training_gives_equal_bits_whatever_else_happens(tile_cases, model):
    generator = train(tile_cases[::-1], QUICK, seed=5)
    for _ in range(3):
        next(generator)
        torch.manual_seed(1)
        np.random.default_rng(0).normal()
        torch.set_num_threads(1)
    again = finish(generator)
    assert same_weights(again, model)
    assert again.hash == model.hash
    assert not same_weights(finish(train(tile_cases, QUICK, seed=6)), model)


def test_the_loss_curve_is_a_known_one(model):
    """Measured with the training loop that the shared engine replaced; the weights were equal."""
    curve = [entry["loss"] for entry in model.card["history"]]
    assert curve == pytest.approx(LOSS_CURVE, rel=1e-3)


@pytest.mark.parametrize("epochs_before", [1, 2])
def test_interrupted_and_resumed_equals_uninterrupted(tile_cases, model, tmp_path, epochs_before):
    path = tmp_path / "state" / "checkpoint.pt"
    generator = train(tile_cases, QUICK, seed=5, checkpoint=path)
    for step in generator:
        if step.epoch == epochs_before and step.record is not None:
            next(generator)
            break
    generator.close()
    resumed = train(tile_cases, QUICK, seed=5, checkpoint=path)
    assert next(resumed).epoch == epochs_before + 1
    found = finish(resumed)
    assert same_weights(found, model)
    assert found.card["history"] == model.card["history"]
    assert found.card["times"]["resumed"]
    assert found.hash == model.hash


def test_a_checkpoint_of_another_training_or_a_broken_one_is_not_continued(
    tile_cases, model, tmp_path
):
    path = tmp_path / "checkpoint.pt"
    finish(train(tile_cases, QUICK, seed=6, checkpoint=path))
    generator = train(tile_cases, QUICK, seed=5, checkpoint=path)
    assert next(generator).epoch == 1
    generator.close()
    path.write_bytes(path.read_bytes()[:100])
    assert same_weights(finish(train(tile_cases, QUICK, seed=5, checkpoint=path)), model)


def test_one_step_per_batch_and_the_fraction_rises(tile_cases):
    events = []
    generator = train(tile_cases, QUICK, seed=0, validation="none")
    try:
        while True:
            events.append(next(generator))
    except StopIteration:
        pass
    n_tiles = sum(int(case.measured.sum()) for case in tile_cases)
    batches = -(-n_tiles // QUICK.batch_size)
    assert len(events) == 3 * batches
    assert [e.epoch for e in events if e.record is not None] == [1, 2, 3]
    assert all((e.record is not None) == (e.batch == batches) for e in events)
    assert np.all(np.diff([e.fraction for e in events]) >= 0)
    assert events[-1].fraction == 1.0


def test_what_the_test_case_measured_changes_nothing(tile_cases, model):
    """The held-out case is not an argument of the training; its own truth cannot enter."""
    *_, test = tile_cases
    other = replace(test, suv=np.asarray(test.suv)[::-1] * 3, pet_label=None)
    params = QUICK.model_copy(update={"epochs": 1})
    trained = finish(train(tile_cases[:2], params, seed=1))
    first, second = predict(trained, test), predict(trained, other)
    np.testing.assert_array_equal(first.suv_norm, second.suv_norm)


def test_labels_outside_the_training_set_do_not_move_the_weights(tile_cases):
    """Values of the validation case choose the epoch, but never enter a gradient or a scaling."""
    params = QUICK.model_copy(update={"epochs": 1})
    first = finish(train(tile_cases, params, seed=2))
    assert first.card["validation"] == "A3"
    held = [
        replace(c, suv=np.asarray(c.suv)[::-1] * 2, pet_label=None) if c.case == "A3" else c
        for c in tile_cases
    ]
    second = finish(train(held, params, seed=2))
    assert same_weights(first, second)
    assert first.card["target"] == second.card["target"]
    changed = [replace(c, suv=np.asarray(c.suv)[::-1]) if c.case == "A2" else c for c in tile_cases]
    assert not same_weights(first, finish(train(changed, params, seed=2)))


def test_unmeasured_tiles_are_left_out_and_counted(tile_cases):
    suv = np.asarray(tile_cases[0].suv).copy()
    suv[:5] = np.nan
    curves = tile_cases[0].curves.copy()
    curves[5:8] = np.nan
    cases = [replace(tile_cases[0], suv=suv, curves=curves), *tile_cases[1:]]
    params = QUICK.model_copy(update={"epochs": 1})
    found = finish(train(cases, params, seed=0, validation="none"))
    entry = found.card["cases"][0]
    n = len(tile_cases[0])
    assert entry["n_used"] == n - 8
    assert (entry["n_not_measured"], entry["n_without_curves"]) == (5, 3)
    guess = predict(found, cases[0])
    assert np.isnan(guess.suv_norm).sum() == 3
    assert (guess.class_label == -1).sum() == 3
    reduced = [cases[0].subset(np.arange(8, n)), *tile_cases[1:]]
    assert same_weights(found, finish(train(reduced, params, seed=0, validation="none")))


def test_scaling_and_class_weights_come_from_the_training_tiles(tile_cases):
    data = make_training_set(tile_cases, QUICK, "auto")
    training = [c for c in tile_cases if c.case != "A3"]
    suv = np.concatenate([c.suv for c in training])
    assert data.scale.low == pytest.approx(np.percentile(suv, 0.5))
    assert data.scale.high == pytest.approx(np.percentile(suv, 99.5))
    label = np.concatenate([c.pet_label for c in training])
    present = np.unique(label)
    expected = compute_class_weight("balanced", classes=present, y=label) * len(present) / 5
    weights = data.class_weights
    np.testing.assert_allclose(weights[present], expected, rtol=1e-6)
    assert (np.delete(weights, present) == 0).all()
    # with all K classes present the reciprocal weights add up to K
    assert (1 / weights[present]).sum() == pytest.approx(5.0, rel=1e-6)


def test_a_curve_that_hardly_varies_is_no_input(tile_cases):
    """Rounding differs from tile to tile: it is not blown up to a variance of 1."""
    cases = []
    for case in tile_cases:
        curves = case.curves.copy()
        curves[:, :, 0] = 0.3 + 1e-9 * np.arange(len(case))[:, None] / len(case)
        cases.append(replace(case, curves=curves))
    found = finish(train(cases, QUICK.model_copy(update={"epochs": 1}), seed=0))
    assert (found.weights["0.curve_sd"][:, 0] == 0).all()
    assert (found.weights["0.curve_sd"][:, 1:] > 0).all()


def test_a_tile_without_a_class_counts_for_none(tile_cases):
    case = tile_cases[0]
    label = np.arange(len(case), dtype=np.int8) % 3
    label[::4], label[1::8] = -1, 9  # not testable, and no class at all
    data = make_training_set([replace(case, pet_label=label)], QUICK, "none")
    known = np.where((label == -1) | (label == 9), -1, label)
    np.testing.assert_array_equal(data.label, known[case.measured])
    assert data.class_counts.sum() == (known[case.measured] >= 0).sum() < len(data.tiles)


def test_the_validation_case_is_chosen_by_rule(tile_cases):
    assert choose_validation(tile_cases, "auto") == "A3"
    assert choose_validation(tile_cases[:2], "auto") is None
    assert choose_validation(tile_cases, "none") is None
    assert choose_validation(tile_cases, "B8") == "B8"
    with pytest.raises(InputError, match="B11"):
        choose_validation(tile_cases, "B11")


def test_the_settings_say_whether_a_case_validates_and_the_caller_may_overrule(tile_cases):
    alone = QUICK.model_copy(update={"epochs": 1, "validation": "none"})
    assert finish(train(tile_cases, alone)).card["validation"] is None
    assert finish(train(tile_cases, alone, validation="A2")).card["validation"] == "A2"


def test_training_stops_early_when_validation_does_not_improve(tile_cases):
    params = QUICK.model_copy(update={"epochs": 30, "patience": 1, "learning_rate": 0.5})
    found = finish(train(tile_cases, params, seed=0))
    history = found.card["history"]
    assert len(history) < 30
    errors = [entry["validation_mse"] for entry in history]
    assert int(np.argmin(errors)) + 1 == found.card["members"][0]["best_epoch"] == len(history) - 1


def test_cases_that_do_not_fit_together_are_refused(tile_cases):
    first, second, _ = tile_cases

    def refused(cases, match, params=QUICK):
        with pytest.raises(InputError, match=match):
            next(train(cases, params))

    refused([], "no training case")
    refused([first, first], "twice")
    refused([first, replace(second, proxies=("a", "b", "c"))], "proxies")
    refused([first, replace(second, times_h=second.times_h + 1)], "times")
    refused([replace(first, suv=None)], "no measured uptake")
    refused([replace(first, suv=np.full(len(first), np.nan))], "0 measured")
    refused([replace(first, suv=np.ones(len(first)))], "nothing to train on")
    refused([first], "160 px", TrainParams.preset("paper"))
    refused(
        [first, tiled_otherwise(second, 1.25)],
        "A2 and A3 differ in their tiling: tiles of 400 µm, 300 µm apart, and tiles of 500 µm, 375",
    )
    names = ("nuclear_size", *second.feature_names[1:])
    refused(
        [first, replace(second, feature_names=names)],
        "differ in their tile parameters: caix_h_score, and nuclear_size",
    )
    refused([first, replace(second, feature_names=second.feature_names[::-1])], "one order, and")
    refused(
        [first],
        "alpha and lambda are both 0",
        QUICK.model_copy(update={"alpha": 0.0, "lambda_": 0.0}),
    )


def test_presets():
    paper = TrainParams.preset("paper")
    assert (paper.window_px, paper.batch_size, paper.epochs) == (160, 12, 25)
    assert (paper.learning_rate, paper.alpha, paper.lambda_) == (3e-5, 0.3, 0.7)
    assert paper.validation == "auto"
    assert TrainParams.preset("default") == TrainParams()
    with pytest.raises(InputError, match="fast"):
        TrainParams.preset("fast")


def test_the_network_beats_the_training_mean_on_an_unseen_case():
    cohort = make_cohort(1, size_um=(3900.0, 5100.0), windows_px=(40, 40, 40))
    params = QUICK.model_copy(update={"epochs": 8, "batch_size": 24, "validation": "none", **SIZES})
    found = finish(train(cohort[:-1], params, seed=0))
    test = cohort[-1]
    measured = found.target.normalise(test.suv)
    assert measured.std() > 0.15
    network = mae(measured, predict(found, test).suv_norm)
    mean = mae(
        measured,
        predict_baselines(with_baselines(found, cohort[:-1], fwhm_um=1400.0), test)["mean"],
    )
    assert network < 0.8 * mean
