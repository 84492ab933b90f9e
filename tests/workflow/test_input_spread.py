"""Draws of the inputs of the prediction: what each moves, and a second way to their spread."""

import json
import shutil
import threading

import numpy as np
import pytest

from napari_mosaik import predictor
from napari_mosaik.core import Table
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    CAIX_CELLS,
    CORRECTED_NUCLEUS_OBJECTS,
    CORRECTED_VESSEL_OBJECTS,
    INPUT_SPREAD,
    INPUT_SPREAD_RECORD,
    METRICS,
    PARAMETERS,
    PREDICTION,
    PREDICTION_RECORD,
    TILE_KINETICS,
    TILES,
    UPTAKE,
)
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.features import moved_outlines
from napari_mosaik.io import Case
from napari_mosaik.kinetics import TILE_TIMES_H, tile_curves_um
from napari_mosaik.kinetics.sensitivity import prior_factors
from napari_mosaik.predictor import TrainedModel, TrainParams, nearest_tiles, predict
from napari_mosaik.register import registration_error, transform_of
from napari_mosaik.workflow import parallel
from napari_mosaik.workflow.cohort import train_network
from napari_mosaik.workflow.drawn_inputs import DrawnInputs, InputSpreadParams
from napari_mosaik.workflow.predictors import nearest_training_tiles
from napari_mosaik.workflow.recipe import changed, read_recipe, write_recipe
from napari_mosaik.workflow.run import CaseContext, run_until
from napari_mosaik.workflow.steps import step_named
from napari_mosaik.workflow.steps.input_spread import INPUT_SPREAD_STEP
from napari_mosaik.workflow.steps.kinetics import DeliveredCurveParams, antigen_share


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


def test_each_number_moves_it_as_far_as_it_says(drawn, predicted):
    """By what the settings say of a draw of so many SDs, from the stored objects and maps."""
    inputs, _ = drawn
    store, before, grid = predicted.store, inputs.tiles, predicted.store.read(TILES)

    def column(name, tiles=before):
        return tiles.features[:, before.feature_names.index(name)]

    def close(found, expected):
        known = np.isfinite(expected) & np.isfinite(found)
        assert known.sum() > 5
        np.testing.assert_allclose(found[known], expected[known], rtol=1e-4, atol=1e-6)

    name = "nucleus_haematoxylin_od"
    close(column(name, at(inputs, haematoxylin=2.0)), column(name) * np.exp(0.2))
    name = "caix_membrane_od10"
    close(column(name, at(inputs, caix=-2.0)), column(name) * np.exp(-0.2))
    vessels = store.read(CORRECTED_VESSEL_OBJECTS)
    area, perimeter = (np.asarray(vessels[name]) for name in ("area_um2", "perimeter_um"))
    tile, one = grid.memberships(vessels.points_um())
    count = np.bincount(tile, minlength=len(grid))
    for sds in (2.0, 1.0):  # SD of the outline: 0.5 µm
        moved, by = at(inputs, vessel=sds), 0.5 * sds
        wider = area + perimeter * by + np.pi * by**2
        distance = column("vessel_distance_um")
        close(column("vessel_distance_um", moved), np.maximum(distance - by, 0.0))
        with np.errstate(invalid="ignore"):
            sums = [np.bincount(tile, v[one], len(grid)) for v in (area, wider)]
            mean = (sums[1] - sums[0]) / count
            share = np.where(sums[0] > 0, sums[1] / sums[0], 1.0)
        close(column("vessel_area_um2", moved) - column("vessel_area_um2"), mean)
        fraction = column("vessel_area_fraction")
        close(column("vessel_area_fraction", moved), np.minimum(fraction * share, 1.0))
        found, known = (one.scales[0].values[..., 2].astype(float) for one in (moved, before))
        expected = np.clip(known * wider.sum() / area.sum(), 0, 255)
        assert np.abs(found - expected).max() <= 0.5 + 1e-3
    nuclei = store.read(CORRECTED_NUCLEUS_OBJECTS)
    to_reference = transform_of(store.read(ALIGNMENT["he"]))
    tile, one = grid.memberships(to_reference.apply(nuclei.points_um()))
    by = 2 * 0.25  # SD of the outline: 0.25 µm
    change = np.asarray(nuclei["perimeter_um"]) * by + np.pi * by**2
    with np.errstate(invalid="ignore"):
        mean = np.bincount(tile, change[one], len(grid)) / np.bincount(tile, minlength=len(grid))
    moved = at(inputs, nucleus=2.0)
    close(column("nucleus_area_um2", moved) - column("nucleus_area_um2"), mean)

    sd = inputs.registration["he"]["sd_um"]
    spacing = before.scales[0].spacing_um
    for name, axis in (("he_row", 0), ("he_column", 1)):
        moved = at(inputs, **{name: 3 * spacing / sd}).scales[0].values[..., 0].astype(int)
        known = np.roll(before.scales[0].values[..., 0].astype(int), 3, axis)
        inner = (slice(4, -4), slice(4, -4))
        assert np.abs(moved - known)[inner].max() <= 1
    moved = at(inputs, he_row=grid.stride_um / sd).codes[:, :, 5, 5]
    known, index = before.codes[:, :, 5, 5], grid.index_map()
    row, col = grid.cells.T
    above = np.where(row > 0, index[row - 1, col], -1)
    assert (above >= 0).any()
    np.testing.assert_array_equal(moved[above >= 0, 1], known[above[above >= 0], 1])
    np.testing.assert_array_equal(moved[:, [0, 2]], known[:, [0, 2]])  # other sections stay


def test_objects_move_with_their_section(drawn, predicted):
    inputs, _ = drawn
    store, grid, names = predicted.store, inputs._grid, inputs.tiles.feature_names
    cells = store.read(CAIX_CELLS)
    cells = cells.rows(np.asarray(cells["tumour"], bool))
    for frame, table, name, values in (
        ("he", store.read(CORRECTED_NUCLEUS_OBJECTS), "nucleus_density_per_mm2", None),
        ("caix", cells, "caix_membrane_od10", cells["membrane_od10"]),
    ):
        points = transform_of(store.read(ALIGNMENT[frame])).apply(table.points_um())
        step, sd = grid.stride_um / 2, inputs.registration[frame]["sd_um"]
        found = at(inputs, **{f"{frame}_row": step / sd}).features[:, names.index(name)]
        before = inputs.tiles.features[:, names.index(name)]
        sums, counts = [], []
        for shift in (0.0, step):
            tile, one = grid.memberships(points + np.array([shift, 0.0]))
            counts.append(np.bincount(tile, minlength=len(grid)))
            weights = None if values is None else np.asarray(values, float)[one]
            sums.append(np.bincount(tile, weights, len(grid)))
        with np.errstate(invalid="ignore", divide="ignore"):
            if values is None:  # per area of tissue, which does not move
                change = (counts[1] - counts[0]) * before / counts[0]
            else:
                change = sums[1] / counts[1] - sums[0] / counts[0]
        known = np.isfinite(change)
        assert np.abs(change[known]).max() > 0.01
        expected = np.maximum(before[known] + change[known], 0.0)
        np.testing.assert_allclose(found[known], expected, rtol=1e-4, atol=1e-6)


def test_a_kinetic_number_stands_for_the_prior_of_its_parameter(drawn, predicted):
    inputs, _ = drawn
    stored = predicted.store.record(TILE_KINETICS)["params"]
    kind = DeliveredCurveParams
    settings = kind.parse({n: v for n, v in stored.items() if n in kind.model_fields}, "record")
    table = predicted.store.read(PARAMETERS)
    density = np.asarray(table["vessel_perimeter_density_per_um"], float)

    def curves(params):
        return tile_curves_um(density, antigen_share(table), params, np.array(TILE_TIMES_H))

    for name, factor in prior_factors(settings).items():
        found = at(inputs, **{name: 1.959964}).curves  # the upper 95 % of the prior
        other = settings.model_copy(update={name: getattr(settings, name) * factor})
        change = np.nan_to_num(curves(other) - curves(settings))
        expected = np.maximum(inputs.tiles.curves + change, 0.0)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)


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


@pytest.mark.parametrize(
    ("step", "slow"),
    [("predict", ["predict"]), ("input_spread", ["predict"]), ("review", ["metrics_record"])],
)
def test_progress_is_told_again_and_again_while_a_network_loads_and_computes(
    predicted, tmp_path, monkeypatch, step, slow
):
    """What takes long goes on only when its progress was told three times."""
    told, changed = [], threading.Condition()

    def held(function):
        def run(*args, **kwargs):
            with changed:
                assert changed.wait_for(lambda: len(told) >= 3 and len(set(told[-3:])) == 1, 60)
                told.append("")
            held_up.append(function.__name__)
            return function(*args, **kwargs)

        return run

    held_up = []
    monkeypatch.setattr(parallel, "_REPORT_S", 0.01)
    monkeypatch.setattr(TrainedModel, "load", held(TrainedModel.load))
    for name in slow:
        monkeypatch.setattr(predictor, name, held(getattr(predictor, name)))

    def tell(progress):
        with changed:
            told.append(progress.text)
            changed.notify_all()

    made = step_named(step)
    params = read_recipe(predicted.root)[step]
    run_to_end(made.body(CaseContext(predicted, made, tmp_path), params), tell)
    assert set(held_up) == {*slow} | ({"load"} if step != "review" else set())
