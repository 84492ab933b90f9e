"""What the prediction of a case refuses before anything is computed."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from napari_mosaik.core import InputError, Lattice, TileGrid
from napari_mosaik.core.catalogue import CLUSTERS, PARAMETERS, TILE_KINETICS, TILES
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.core.table import Table
from napari_mosaik.predictor import TrainedModel, TrainParams, predict, train, with_range
from napari_mosaik.workflow.cohort import absent_slides
from napari_mosaik.workflow.predictor_inputs import OF_SLIDE, tile_inputs
from napari_mosaik.workflow.steps.predict import (
    PREDICT,
    PredictParams,
    _learnt_width,
    prediction_columns,
)
from tests.predictor.synthetic import make_case


def test_a_case_has_a_slide_also_where_what_is_read_off_it_was_given():
    given = SimpleNamespace(is_given="given by the sample")
    computed = SimpleNamespace(is_given="")
    origins = {one: given for own in OF_SLIDE.values() for one in own}
    origins[TILE_KINETICS] = computed  # as in a cohort of label images

    def absent(slides=(), **changed):
        known = {one.name: origin for one, origin in origins.items()} | changed
        store = SimpleNamespace(origin=lambda one: known[one.name])
        case = SimpleNamespace(name="A2", file=SimpleNamespace(slides=slides), store=store)
        return absent_slides([case])

    assert absent() == {}
    assert absent(caix_cells=computed) == {"caix": ["A2"]}
    assert absent(caix_cells=None) == {"caix": ["A2"]}
    assert absent(classes=computed) == {"he": ["A2"]}
    assert absent({"he": 1, "caix": 1}, classes=computed, caix_cells=None) == {}


def test_clusters_that_the_model_reads_and_the_case_lacks_are_named():
    ones, lattice = np.ones(4), Lattice("cd34", (2, 2), (300.0, 300.0), (0.0, 0.0))
    nothing = Table({"a": np.zeros(4)}, {}, {}, "cd34")
    artifacts = {
        TILES: TileGrid(lattice, 400.0, np.arange(4), ones, ones > 0),
        PARAMETERS: nothing,
        CLUSTERS: Table({"a.label": np.zeros(4)}, {}, {}, "cd34"),
    }
    for proxies, lost in ((("b", "a", "caix"), "'b'"), (("a", "c", "caix"), "'c'")):
        with pytest.raises(InputError, match=f"case B11 has no clusters of {lost}, which"):
            tile_inputs(artifacts.__getitem__, "B11", "p", proxies, TrainParams(), ("caix",))


def test_a_case_with_other_tiles_is_refused_before_anything_runs(tmp_path, monkeypatch):
    from napari_mosaik.predictor import SCALE_TILES
    from napari_mosaik.tissue import TileParams
    from napari_mosaik.workflow.steps import predict as step

    monkeypatch.setattr(step, "check_suv_unit", lambda case, recipe: None)
    card = {
        "settings": TrainParams().model_dump(mode="json"),
        "scales": {
            name: {"spacing_um": edge / px}
            for name, edge, px in zip(
                SCALE_TILES, (400.0, 3400.0, 8200.0), TrainParams().windows_px, strict=True
            )
        },
    }
    (tmp_path / "card.json").write_text(json.dumps(card))
    given = SimpleNamespace(is_given="")
    store = SimpleNamespace(origin=lambda one: given)
    case = SimpleNamespace(name="B11", store=store, model_folder=lambda model: tmp_path)

    def check(**tiles):
        recipe = {"predict": PredictParams(model="m"), "tiles": TileParams(**tiles)}
        PREDICT.check(case, recipe)

    check()
    with pytest.raises(InputError) as error:
        check(size_um=320.0)
    assert str(error.value) == (
        "case B11: tiles of 320 µm, 240 µm apart, but the model was trained on tiles of 400 µm, "
        "300 µm apart; tile the case as those of the training"
    )
    with pytest.raises(InputError, match="tiles of 400 µm, 200 µm apart, but"):
        check(overlap=0.5)
    given.is_given = "given by the sample"  # such tiles are looked at when they are read
    check(size_um=320.0)
    given.is_given = ""
    (tmp_path / "card.json").write_text("{}")  # the step says what the card lacks
    check(size_um=320.0)


def test_a_model_that_was_trained_outside_a_cohort_is_refused(tmp_path):
    cases = [make_case(name, "p", i, size_um=(2400.0, 2400.0)) for i, name in enumerate("AB")]
    params = TrainParams(epochs=1, members=1, intervals=False, threads=1)
    bare = run_to_end(train(cases, params))
    for part, card in (
        ("suv_unit", bare.card),
        ("split", {**bare.card, "suv_unit": "g/mL"}),
        ("members", {k: v for k, v in bare.card.items() if k != "members"}),
    ):
        stored = TrainedModel(bare.weights, card).save(tmp_path)
        inputs = SimpleNamespace(model_folder=lambda name: tmp_path / name, case_name="B11")
        with pytest.raises(InputError, match=f"'{part}'"):
            run_to_end(PREDICT.body(inputs, PredictParams(model=stored.name)))


@pytest.mark.parametrize(
    ("ratio", "doubted"), [(1.0, False), (1.32, False), (0.76, False), (1.34, True), (0.74, True)]
)
def test_a_learnt_width_far_from_the_scanner_s_is_a_warning(ratio, doubted):
    widths = [1400.0 * ratio * share for share in (0.9, 1.1)]
    card = {"fwhm_um": 1400.0, "members": [{"learnt_fwhm_um": width} for width in widths]}
    learnt, warnings = _learnt_width(card)
    assert learnt == pytest.approx(1400.0 * ratio)
    assert bool(warnings) == doubted
    if doubted:
        assert f"as {1.4 * ratio:.2f} mm wide, but it is 1.40 mm on the section" in warnings[0]
        assert "registration of the PET" in warnings[0]
    assert _learnt_width({"fwhm_um": 1400.0, "members": [{}]}) == (None, [])


def test_the_columns_of_the_prediction_are_those_of_the_model():
    """Intervals about the prediction, members, source and range; empty where there is no curve."""
    cases = [make_case(name, "p", i, size_um=(2400.0, 2400.0)) for i, name in enumerate("ABC")]
    params = TrainParams(epochs=1, members=2, intervals=False, threads=1)
    model = with_range(run_to_end(train(cases[:2], params)), cases[:2], 1500.0)
    constant = {"intercept": 1.0, "slope": 0.0, "floor": 0.0}
    record = {"scale": constant, "tile": 0.1, "block": 0.3}
    model = TrainedModel(model.weights, {**model.card, "intervals": record})
    curves, features = cases[2].curves.copy(), cases[2].features.copy()
    curves[4:7] = np.nan
    features[3:6] += 1e3
    case = replace(cases[2], curves=curves, features=features)
    found = predict(model, case)
    columns, about, in_suv = prediction_columns(model, case, found)
    gone = np.isin(np.arange(len(case)), (4, 5, 6))
    np.testing.assert_array_equal(np.isnan(columns["suv_norm"]), gone)
    span = model.target.high - model.target.low
    np.testing.assert_allclose(columns["suv"], columns["suv_norm"] * span + model.target.low)
    for name, half in (("suv_norm_{}", 0.1), ("suv_norm_block_{}", 0.3)):
        low, high = (columns[name.format(end)] for end in ("low", "high"))
        np.testing.assert_allclose(low, found.suv_norm - half)
        np.testing.assert_allclose(high, found.suv_norm + half)
    members = np.stack([columns["member_1"], columns["member_2"]])
    np.testing.assert_allclose(members.mean(axis=0), columns["suv_norm"])
    np.testing.assert_array_equal(np.isnan(columns["source"]), gone)
    assert columns["out_of_range"][3]
    assert not columns["out_of_range"][gone].any()
    best = np.stack([columns[f"class_{i}"] for i in range(5)], axis=1)[~gone].argmax(axis=1)
    np.testing.assert_array_equal(columns["class_label"][~gone], best)
    assert (columns["class_label"][gone] == -1).all()
    assert in_suv == ["suv", "source"]
    assert set(about) == set(columns)
    model = TrainedModel(model.weights, {**model.card, "intervals": {**record, "block": None}})
    columns, *_ = prediction_columns(model, case, found)
    assert np.isnan(columns["suv_norm_block_low"]).all()
    assert np.isfinite(columns["suv_norm_low"][~gone]).all()
