"""What a predictor cannot be trained on or used for: one sentence, or a result with a warning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_mosaik.core import InputError
from napari_mosaik.predictor import (
    TrainedModel,
    TrainParams,
    held_out_cases,
    predict,
    train,
    with_intervals,
    with_range,
)
from tests.predictor.test_training import finish, tiled_otherwise

SHORT = TrainParams(epochs=1, members=1, with_companions=False, threads=1)


@pytest.fixture(scope="module")
def model(small_cases):
    return finish(train(small_cases[:2], SHORT, seed=1))


def with_fits(cases):
    """The model of a training with its range and its intervals."""
    made = finish(train(cases, SHORT, seed=1))
    made = with_range(made, cases, 1500.0)
    fits = held_out_cases(cases, SHORT, made.target, seed=1, fwhm_um=1500.0)
    return with_intervals(made, finish(fits))


def without(record, name):
    return {key: value for key, value in record.items() if key != name}


CHANGES = {
    "format None, not 5": lambda card: without(card, "format"),
    "does not state 'members' as it should": lambda card: without(card, "members"),
    "does not state 'target' as it should": lambda card: without(card, "target"),
    r"does not state 'fwhm_um' as it should \(None\)": lambda card: {**card, "fwhm_um": None},
    "does not state 'cases' as it should": lambda card: {**card, "cases": "none"},
    "reads maps of a, b, but there are maps of neoplastic": lambda c: {**c, "channels": ["a", "b"]},
    "knows the uptake class 5, 6, but there are 0 to 4": lambda c: {**c, "classes": [0, 5, 6]},
    "takes a, b, c": lambda card: {**card, "proxies": ["a", "b", "c"]},
    "but the model takes .*144.0. h": lambda card: {**card, "times_h": [24.0, 144.0]},
    "lacks the tile parameter 'x'": lambda c: {**c, "features": ["x", *c["features"][1:]]},
    "there is no setting 'depth'": lambda c: {**c, "settings": {**c["settings"], "depth": 1}},
    "do not fit its card .size mismatch": lambda c: {
        **c,
        "settings": {**c["settings"], "fusion_width": 64},
    },
}


@pytest.mark.parametrize("told", CHANGES)
def test_a_card_that_does_not_fit_is_refused_with_the_difference(small_cases, model, told):
    changed = TrainedModel(model.weights, CHANGES[told](dict(model.card)))
    with pytest.raises(InputError, match=told) as error:
        predict(changed, small_cases[2])
    assert "\n" not in str(error.value)


def test_weights_that_are_missing_or_no_numbers_are_refused(small_cases, model):
    fewer = {name: v for name, v in model.weights.items() if "fusion" not in name}
    with pytest.raises(InputError, match="do not fit its card"):
        predict(TrainedModel(fewer, model.card), small_cases[2])
    bad = {**model.weights, "0.fusion.bias": model.weights["0.fusion.bias"] * np.nan}
    with pytest.raises(InputError, match="has weights that are not numbers"):
        predict(TrainedModel(bad, model.card), small_cases[2])


def test_tiles_of_another_size_are_refused_also_by_a_model_that_was_stored(
    small_cases, model, tmp_path
):
    stored = TrainedModel.load(model.save(tmp_path))
    assert np.isfinite(predict(stored, small_cases[2]).suv_norm).all()
    told = "tiles of 320 µm, 240 µm apart, but the model was trained on tiles of 400 µm, 300 µm"
    with pytest.raises(InputError, match=told):
        predict(stored, tiled_otherwise(small_cases[2], 0.8))
    with pytest.raises(InputError, match="B8 has no tile"):
        predict(stored, small_cases[2].subset(np.arange(0)))


def test_classes_that_nobody_labelled_are_not_predicted(small_cases):
    made = finish(train([replace(c, pet_label=None) for c in small_cases[:2]], SHORT, seed=1))
    assert "no class labels: the class head is not trained" in made.card["warnings"]
    found = predict(made, small_cases[2])
    assert np.isfinite(found.suv_norm).all()
    assert (found.class_label == -1).all()
    assert np.isnan(found.class_probability).all()


def test_one_training_case_has_no_intervals_and_says_so(small_cases):
    made = with_fits(small_cases[:1])
    assert made.card["intervals"] is None
    few = "no intervals: 0 training cases could be held out, 2 are needed"
    assert few in made.card["warnings"]
    assert made.card["range"] is None
    silent = SHORT.model_copy(update={"intervals": False})
    quiet = with_intervals(finish(train(small_cases[:1], silent, seed=1)), ())
    assert few not in quiet.card["warnings"]


def test_a_case_that_alone_trains_nothing_does_not_end_the_training(small_cases):
    first, second, third = small_cases
    flat = replace(second, suv=np.full(len(second), 1.5))
    warnings = with_fits([first, flat]).card["warnings"]
    assert "no intervals: 1 training case could be held out, 2 are needed" in warnings
    assert warnings[-1].startswith("A2 tells nothing about the errors")
    assert "all training tiles have the SUV 1.5" in warnings[-1]
    empty = replace(second, suv=np.full(len(second), np.nan))
    made = with_fits([first, empty, third])
    assert (
        "A3: no tile has a measured uptake and all inputs, so it trains nothing"
        in (made.card["warnings"])
    )
    assert made.card["intervals"]["n_cases"] == 2
    assert np.isfinite(made.card["range"]["distance"])
    assert np.isfinite(predict(made, second).suv_norm).all()


def test_missing_values_of_tiles_are_no_numbers_for_nobody_else(small_cases):
    gaps = []
    for case in small_cases[:2]:
        suv, features = np.array(case.suv), np.array(case.features)
        suv[::3], features[1::4], features[:, 2] = np.nan, np.nan, np.nan
        gaps.append(replace(case, suv=suv, features=features))
    made = finish(train(gaps, SHORT, seed=1))
    assert made.card["n_tiles"] == sum(int(case.measured.sum()) for case in gaps)
    told = "no training tile has a value of neoplastic_fraction: it is not used"
    assert told in made.card["warnings"]
    assert np.isfinite(predict(made, small_cases[2]).suv_norm).all()
    holes = np.array(small_cases[2].features)
    holes[5] = np.nan
    found = predict(made, replace(small_cases[2], features=holes))
    assert np.isfinite(found.suv_norm).all()
