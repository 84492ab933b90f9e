"""Draws of the inputs of the prediction: what each moves, and a second way to their spread."""

import json
import shutil

import numpy as np
import pytest

from napari_mosaik.core import Table
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    INPUT_SPREAD,
    INPUT_SPREAD_RECORD,
    METRICS,
    PREDICTION,
    PREDICTION_RECORD,
    UPTAKE,
)
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.io import Case
from napari_mosaik.predictor import TrainedModel, TrainParams, nearest_tiles, predict
from napari_mosaik.workflow.cohort import train_network
from napari_mosaik.workflow.predictors import nearest_training_tiles
from napari_mosaik.workflow.recipe import changed, read_recipe, write_recipe
from napari_mosaik.workflow.run import CaseContext, run_until
from napari_mosaik.workflow.steps.input_spread import (
    INPUT_SPREAD_STEP,
    DrawnInputs,
    InputSpreadParams,
    moved_outlines,
    registration_error,
)


@pytest.fixture(scope="module")
def predicted(computed_cohort, tmp_path_factory):
    """The tiny case B11 with a prediction, from a network of few epochs, and its draws."""
    folder = tmp_path_factory.mktemp("spread")
    cases = []
    for name in ("A2", "B8", "B11"):
        shutil.copytree(computed_cohort / name, folder / name)
        cases.append(Case(folder / name))
    params = TrainParams(epochs=6, members=2, threads=1, intervals=False)
    run_to_end(train_network(cases, "B11", params))
    write_recipe(cases[2].root, changed(read_recipe(cases[2].root), "input_spread", draws=18))
    run_to_end(run_until(cases[2], read_recipe(cases[2].root), "review"))
    return cases[2]


@pytest.fixture(scope="module")
def drawn(predicted, tmp_path_factory):
    context = CaseContext(predicted, INPUT_SPREAD_STEP, tmp_path_factory.mktemp("scratch"))
    model = model_of(predicted)
    return DrawnInputs(context, InputSpreadParams(), model.card), model


def model_of(case):
    return TrainedModel.load(case.model_folder(case.store.read(PREDICTION_RECORD)["model"]))


def at(drawn, **moved):
    """The inputs of a draw in which only some numbers are not 0."""
    names = [name for _, name in drawn.names]
    assert set(moved) <= set(names)
    return drawn.at(np.array([moved.get(name, 0.0) for name in names]))


def changes(drawn, **moved):
    """Names of the tile parameters that a draw changes, and whether codes, maps and curves do."""
    found, before = at(drawn, **moved), drawn.tiles
    columns = {
        name
        for place, name in enumerate(before.feature_names)
        if not np.array_equal(found.features[:, place], before.features[:, place], equal_nan=True)
    }
    maps = any(
        not np.array_equal(a.values, b.values)
        for a, b in zip(found.scales, before.scales, strict=True)
    )
    return columns, maps, not np.array_equal(found.curves, before.curves, equal_nan=True)


def test_a_draw_that_moves_nothing_is_the_prediction(drawn, predicted):
    inputs, model = drawn
    found = predict(model, at(inputs)).suv_norm
    assert np.array_equal(found, predicted.store.read(PREDICTION)["suv_norm"], equal_nan=True)


def test_each_number_moves_what_it_stands_for(drawn):
    inputs, _ = drawn
    for name in ("vessel", "haematoxylin", "caix", "he_row", "permeability_um_per_s"):
        columns, maps, curves = changes(inputs, **{name: 2.0})
        groups = {column.split("_")[0] for column in columns}
        expected = {
            "vessel": ({"vessel"}, True, True),
            "haematoxylin": ({"nucleus"}, False, False),
            "caix": ({"caix"}, False, True),
            "he_row": ({"nucleus", "neoplastic", "non"}, True, True),
            "permeability_um_per_s": (set(), False, True),
        }[name]
        assert (groups, maps, curves) == expected, name
    stained = changes(inputs, haematoxylin=2.0)[0]
    assert stained == {"nucleus_haematoxylin_od"}


def test_the_spread_is_that_of_the_finite_differences(drawn, predicted):
    """Linear propagation: half the difference of two predictions for each number, squared."""
    inputs, model = drawn
    d, total = len(inputs.names), 0.0
    for place in range(d):
        step = np.zeros(d)
        step[place] = 1.0
        ends = [predict(model, inputs.at(sign * step)).suv_norm for sign in (1.0, -1.0)]
        total = total + ((ends[0] - ends[1]) / 2) ** 2
    expected = np.sqrt(total)
    found = np.asarray(predicted.store.read(INPUT_SPREAD)["suv_norm_input_sd"])
    known = np.isfinite(found)
    assert known.sum() > 20
    assert np.median(found[known] / expected[known]) == pytest.approx(1.0, abs=0.15)
    assert np.corrcoef(found[known], expected[known])[0, 1] > 0.9


def test_the_layer_is_stored_with_its_shares_and_repeats(predicted):
    table, record = predicted.store.read(INPUT_SPREAD), predicted.store.read(INPUT_SPREAD_RECORD)
    target = predicted.store.read(PREDICTION_RECORD)["target"]
    sd = np.asarray(table["suv_norm_input_sd"])
    np.testing.assert_allclose(table["suv_input_sd"], sd * (target["high"] - target["low"]))
    shares = np.stack([table[name] for name in table if name.startswith("share_")])
    np.testing.assert_allclose(np.nansum(shares, axis=0)[np.isfinite(sd)], 1.0)
    assert sum(record["shares"].values()) == pytest.approx(1.0)
    assert record["registration"]["he"]["from"] == "image content"
    assert predicted.store.read(METRICS)["input_spread"] == record
    run_to_end(run_until(predicted, read_recipe(predicted.root), "input_spread", repair=False))
    assert np.array_equal(predicted.store.read(INPUT_SPREAD)["suv_norm_input_sd"], sd)


def test_the_stored_parameters_give_the_nearest_training_tiles(drawn, predicted, capsys):
    from napari_mosaik.cli import main

    inputs, model = drawn
    expected = nearest_tiles(model, inputs.tiles)
    found = nearest_training_tiles(predicted)
    np.testing.assert_array_equal(found.tile, expected.tile)
    np.testing.assert_allclose(found.distance, expected.distance)
    assert set(found.cases) == {"A2", "B8"}
    for one in found.of(3):
        suv = Case(predicted.root.parent / one["case"]).store.read(UPTAKE)["suv"]
        assert one["measured"] == pytest.approx(float(suv[one["tile"]]), rel=1e-4)
    with pytest.raises(SystemExit) as end:
        main(["tile", str(predicted.root), "3", "--json", "--nearest", "5"])
    assert not end.value.code
    document = json.loads(capsys.readouterr().out)
    assert document["nearest_training_tiles"] == found.of(3)
    assert document["pet_voxel"]["suv"] > 0
    with pytest.raises(SystemExit, match="2"):
        main(["tile", str(predicted.root), "99999"])
    assert "there is no tile 99999" in capsys.readouterr().err


def test_without_draws_the_layer_is_empty(predicted, tmp_path):
    context = CaseContext(predicted, INPUT_SPREAD_STEP, tmp_path)
    found = run_to_end(INPUT_SPREAD_STEP.body(context, InputSpreadParams(draws=0)))
    assert found[INPUT_SPREAD_RECORD]["draws"] == 0
    assert all(np.isnan(found[INPUT_SPREAD][name]).all() for name in found[INPUT_SPREAD])


def test_nothing_of_the_pet_is_declared():
    from napari_mosaik.core.catalogue import PET, SUV, UPTAKE, UPTAKE_CLUSTERS

    declared = {*INPUT_SPREAD_STEP.reads, *INPUT_SPREAD_STEP.may_read}
    assert not declared & {PET, SUV, UPTAKE, UPTAKE_CLUSTERS, ALIGNMENT["pet"]}


def test_the_error_of_a_registration_is_its_own_or_a_voxel():
    content = {"local_error_um": 2 * np.sqrt(2 * np.log(2)), "position_error_um": 9.0}
    assert registration_error(content, 400.0, "own")["sd_um"] == pytest.approx(2.0)
    marks = {**content, "landmark_error_um": {"median": 4 * np.sqrt(2 * np.log(2))}}
    assert registration_error(marks, 400.0, "own") == {
        "sd_um": pytest.approx(4.0),
        "from": "landmarks",
    }
    pet = {"local_error_um": None, "position_error_um": 10.0}
    assert registration_error(pet, 400.0, "own")["sd_um"] == pytest.approx(10 / np.sqrt(2))
    for which, document in (("voxel", content), ("own", {})):
        found = registration_error(document, 400.0, which)
        # uniform from -400 to 400
        assert found["sd_um"] == pytest.approx(np.linspace(-400, 400, 10001).std(), rel=1e-3)


def test_outlines_move_as_circles_do():
    radius = np.array([5.0, 3.0])
    circles = Table(
        {
            "area_um2": np.pi * radius**2,
            "perimeter_um": 2 * np.pi * radius,
            "equivalent_diameter_um": 2 * radius,
        }
    )
    for step in (0.5, -0.5):
        moved = moved_outlines(circles, step, 1.0)[0]
        np.testing.assert_allclose(moved["equivalent_diameter_um"], 2 * (radius + step))
        np.testing.assert_allclose(moved["area_um2"], np.pi * (radius + step) ** 2)
        np.testing.assert_allclose(moved["perimeter_um"], 2 * np.pi * (radius + step))
    kept, rows = moved_outlines(circles, -0.5, np.pi * 2.6**2)
    assert rows.tolist() == [0]
    assert len(kept) == 1
    # nothing is lost that was not of the least size before
    assert moved_outlines(circles, 0.0, 1e6)[1].tolist() == [0, 1]
