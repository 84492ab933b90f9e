from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from napari_mosaik.core import CorruptArtifact, InputError
from napari_mosaik.core.manifest import write_files_list
from napari_mosaik.predictor import (
    TargetScale,
    TrainedModel,
    TrainParams,
    predict,
    predict_baselines,
    train,
    with_baselines,
)


@pytest.fixture(scope="module")
def model(small_cases) -> TrainedModel:
    params = TrainParams(
        members=2, epochs=2, threads=1, spatial_width=16, branch_channels=(4, 8, 8), fusion_width=16
    )
    generator = train(small_cases[:2], params, seed=3)
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return with_baselines(stop.value, small_cases[:2], fwhm_um=1400.0)


def test_saved_and_loaded_predicts_the_same(model, small_cases, tmp_path):
    folder = model.save(tmp_path / "models")
    assert folder.name == model.hash
    assert sorted(p.name for p in folder.iterdir()) == [
        "card.json",
        "files.json",
        "weights.safetensors",
    ]
    again = TrainedModel.load(folder)
    first, second = predict(model, small_cases[2]), predict(again, small_cases[2])
    np.testing.assert_array_equal(first.suv_norm, second.suv_norm)
    np.testing.assert_array_equal(first.class_probability, second.class_probability)
    before, after = (predict_baselines(m, small_cases[2]) for m in (model, again))
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name])
    assert model.save(tmp_path / "models") == folder
    assert [p.name for p in (tmp_path / "models").iterdir()] == [folder.name]


def test_a_changed_file_is_noticed(model, tmp_path):
    folder = model.save(tmp_path)
    card = folder / "card.json"
    text = card.read_text()
    card.write_text(text.replace('"seed": 3', '"seed": 4'))
    with pytest.raises(CorruptArtifact, match=r"damaged.*card\.json is changed"):
        TrainedModel.load(folder)
    card.write_text(text)
    weights = folder / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 255
    weights.write_bytes(content)
    with pytest.raises(CorruptArtifact):
        TrainedModel.load(folder)
    weights.write_bytes(content[:50])
    with pytest.raises(CorruptArtifact, match=r"damaged.*weights\.safetensors is changed"):
        TrainedModel.load(folder)
    assert TrainedModel.load(model.save(tmp_path)).hash == model.hash
    (folder / "files.json").unlink()
    with pytest.raises(CorruptArtifact, match=r"damaged: .*files\.json is missing"):
        TrainedModel.load(folder)
    old = TrainedModel(model.weights, {**model.card, "format": 1})  # there were no lists of files
    folder = old.save(tmp_path)
    (folder / "files.json").unlink()
    assert TrainedModel.load(folder).hash == old.hash
    weights = folder / "weights.safetensors"
    weights.write_bytes(content[:50])
    with pytest.raises(CorruptArtifact, match="is damaged"):
        TrainedModel.load(folder)
    weights.unlink()
    with pytest.raises(InputError, match="no model"):
        TrainedModel.load(folder)


def test_the_time_of_training_is_no_content(model):
    card = json.loads(json.dumps(dict(model.card)))
    slower = TrainedModel(model.weights, card | {"times": {"seconds": 1e6}})
    assert slower.hash == model.hash
    assert TrainedModel(model.weights, card | {"seed": 9}).hash != model.hash


def test_the_card_says_what_is_needed(model):
    card = model.card
    assert [entry["case"] for entry in card["cases"]] == ["A2", "A3"]
    assert card["settings"]["threads"] == 1
    assert [(entry["member"], entry["epoch"]) for entry in card["history"]] == [
        (0, 1),
        (0, 2),
        (1, 1),
        (1, 2),
    ]
    assert card["baselines"]["ridge"]["weights"]
    assert any("patient" in text for text in card["warnings"])
    assert any("no validation" in text for text in card["warnings"])


def test_prediction_comes_back_in_suv_and_probabilities_add_up(model, small_cases):
    found = predict(model, small_cases[2])
    low, high = model.card["target"]["low"], model.card["target"]["high"]
    np.testing.assert_allclose(found.suv, low + found.suv_norm * (high - low))
    np.testing.assert_allclose(found.class_probability.sum(axis=1), 1, atol=1e-6)
    assert found.model == model.hash
    order = np.random.default_rng(0).permutation(len(small_cases[2]))
    shuffled = predict(model, small_cases[2].subset(order))
    np.testing.assert_allclose(shuffled.suv_norm, found.suv_norm[order], atol=1e-5)


def test_prediction_refuses_what_the_model_does_not_know(model, small_cases):
    case = small_cases[2]
    with pytest.raises(InputError, match="kinetic"):
        predict(model, replace(case, curves=np.full_like(case.curves, np.nan)))
    with pytest.raises(InputError, match="cluster maps"):
        predict(model, replace(case, proxies=case.proxies[::-1]))
    with pytest.raises(InputError, match="curves at"):
        predict(model, replace(case, times_h=case.times_h * 2))
    scales = tuple(replace(s, window_px=80) for s in case.scales)
    with pytest.raises(InputError, match="80 px"):
        predict(model, replace(case, scales=scales))


def test_target_scale_round_trip_and_clipping():
    values = np.linspace(2, 12, 1001)
    scale = TargetScale.fit(values, 0.5, 99.5)
    assert scale.low == pytest.approx(2.05)
    assert scale.high == pytest.approx(11.95)
    inside = values[100:900]
    np.testing.assert_allclose(scale.restore(scale.normalise(inside)), inside)
    assert scale.normalise([0.0, 99.0]).tolist() == [0.0, 1.0]
    assert scale.normalise([99.0], clip=False)[0] > 1
    assert np.isnan(scale.normalise([np.nan])[0])


def test_a_tissue_classifier_is_no_predictor(tmp_path):
    folder = tmp_path / "abc"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"")
    (folder / "card.json").write_text('{"model": "fast", "classes": ["a", "b"]}')
    write_files_list(folder)
    with pytest.raises(InputError, match="not a predictor of uptake"):
        TrainedModel.load(folder)
