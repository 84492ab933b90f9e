"""Maps and figures of the review: what there is, on one scale; what is not there is absent."""

from dataclasses import replace

import numpy as np
import pytest

from napari_mosaik.core import Raster, Table, TileGrid
from napari_mosaik.core.frame import Lattice, Transform
from napari_mosaik.kinetics import CURVE_NAMES, TILE_TIMES_H, curve_columns
from napari_mosaik.view.board import board_layer, board_legends, board_maps, hatch_lines
from napari_mosaik.view.review_figures import REVIEW_FIGURES, tile_near
from napari_mosaik.view.tile_data import TileData, spread_lines
from napari_mosaik.workflow.drawn_inputs import SPREAD_SOURCES

GRID = TileGrid(
    Lattice("cd34", (2, 3), (100.0, 100.0), (0.0, 0.0)),
    400.0,
    np.arange(6),
    np.ones(6),
    np.ones(6, bool),
)
MEASURED = np.array([1.0, 2.0, 3.0, 4.0, 5.0, np.nan])
NORM = np.array([0.1, 0.2, np.nan, 0.4, 0.5, 0.6])
RECORD = {"model": "0", "target": {"low": 1.0, "high": 11.0}}


def results(**columns):
    table = Table({"suv_norm": NORM, "suv": 1 + 10 * NORM, **columns}, {"suv": "g/mL"})
    uptake = Table({"suv": MEASURED}, {"suv": "g/mL"})
    return TileData(GRID, uptake=uptake, prediction=table, record=RECORD)


def test_what_a_predictor_does_not_give_is_absent():
    maps = board_maps(results())
    assert list(maps) == ["measured", "predicted", "difference"]
    assert not any(one.hatched.any() for one in maps.values())
    assert board_maps(TileData(GRID)) == {}


def test_interval_source_and_range_come_with_their_columns():
    beyond = np.arange(6) == 3
    data = results(
        suv_norm_low=NORM - 0.1, suv_norm_high=NORM + 0.2, source=2 * NORM, out_of_range=beyond
    )
    maps = board_maps(data)
    assert list(maps) == ["measured", "predicted", "difference", "width", "source"]
    np.testing.assert_allclose(maps["width"].values[[0, 1, 3]], 3.0)  # 0.3 of a range of 10
    assert np.isnan(maps["width"].values[2])
    np.testing.assert_allclose(maps["source"].values[0], 3.0)
    assert not maps["measured"].hatched.any()
    assert all(maps[key].hatched.tolist() == beyond.tolist() for key in list(maps)[1:])
    notes = [legend.note for legend in board_legends(maps.values())]
    assert "hatched" in notes[0]
    assert "cannot be checked" in notes[0]
    assert "new slide" in notes[2]


def test_the_spread_from_the_inputs_is_a_map_and_a_row_of_the_inspector():
    drawn = {"suv_norm_input_sd": NORM / 10, "suv_input_sd": NORM}
    shares = {f"share_{name}": np.full(6, 0.25) for name in SPREAD_SOURCES}
    table = Table({**drawn, **shares}, {"suv_input_sd": "g/mL"})
    data = replace(results(), input_spread=table)
    maps = board_maps(data)
    assert list(maps) == ["measured", "predicted", "difference", "inputs"]
    np.testing.assert_allclose(maps["inputs"].values, NORM)
    assert maps["inputs"].limits[0] == 0.0
    np.testing.assert_allclose(board_maps(data, normalised=True)["inputs"].values, NORM / 10)
    assert "error of the model is not in it" in board_legends([maps["inputs"]])[0].note
    (row,) = (one for one in data.rows(1) if "inputs" in one.parameter)
    assert (row.value, row.unit, row.rank) == ("0.200", "g/mL", "4 of 5")
    assert "kinetic priors 25" in row.about
    off = Table({name: np.full(6, np.nan) for name in table})
    assert "inputs" not in board_maps(replace(results(), input_spread=off))
    lines = spread_lines({"input_spread": {"draws": 0}, "measured_spread": None})
    assert lines == []
    shares = {"registration": 0.8, "rest": 0.2}
    measured = {"shares": shares, "sd_median": 0.05}
    (line,) = spread_lines({"measured_spread": measured})
    assert "measured SUV of a tile by an SD of 0.0500" in line
    assert "registration of the PET 80" in line


def test_one_scale_for_the_uptake_also_when_it_is_normalised():
    data = results(source=2 * NORM, suv_norm_low=NORM, suv_norm_high=NORM + 0.3)
    maps = board_maps(data, (1.0, 6.0))
    assert maps["measured"].limits == maps["predicted"].limits == maps["source"].limits
    titles = [legend.title for legend in board_legends(maps.values())]
    assert titles[0] == "Measured, predicted, source · SUV (body weight)"
    scaled = board_maps(data, (1.0, 6.0), normalised=True)
    np.testing.assert_allclose(scaled["measured"].limits, (0.0, 0.5))
    np.testing.assert_allclose(scaled["predicted"].values, NORM)
    np.testing.assert_allclose(scaled["measured"].values, (MEASURED - 1) / 10)
    np.testing.assert_allclose(scaled["width"].values[:2], 0.3)
    np.testing.assert_allclose(
        scaled["difference"].values, maps["difference"].values / 10, equal_nan=True
    )
    assert maps["predicted"].heading == "predicted, g/mL"
    assert scaled["predicted"].heading == "predicted, 0 to 1"


def test_a_tile_without_prediction_is_empty_on_the_map():
    layer = board_layer(board_maps(results())["predicted"], GRID)
    assert np.isnan(layer.data[0, 2])
    assert np.isfinite(layer.data[1, 2])


def test_the_hatching_lies_inside_its_tile():
    lines = hatch_lines(GRID, np.arange(6) == 4)
    assert lines.shape == (3, 2, 2)
    points = np.concatenate([lines[:, 0], lines.sum(axis=1)])
    assert np.abs(points - GRID.centres_um[4]).max() == pytest.approx(50.0)
    assert hatch_lines(GRID, np.zeros(6, bool)).shape == (0, 2, 2)


def test_the_inspector_tells_interval_source_range_and_neighbours():
    data = results(
        suv_norm_low=NORM - 0.1,
        suv_norm_high=NORM + 0.2,
        source=2 * NORM,
        out_of_range=np.arange(6) == 4,
    )
    assert sorted(data.neighbours(0)) == [1, 3, 4]
    assert sorted(data.neighbours(4)) == [0, 1, 2, 3, 5]
    words = {row.parameter: row.value for row in data.rows(4)}
    assert words["90 % interval, tile of a new slide"] == "5.00 to 8.00"  # 0.4 to 0.7 of 1 to 11
    assert words["source before the scanner's blur"] == "11.0"
    assert words["beyond the training tiles"] == "yes"
    assert words["measured, mean of 4 neighbours"] == "2.50"  # tile 5 was not measured
    assert words["predicted, mean of 4 neighbours"] == "4.25"  # tile 2 was not predicted
    plain = {row.parameter for row in results().rows(4)}
    assert not any("interval" in word or "source" in word or "beyond" in word for word in plain)
    assert data.rows(2)[2].value == "not predicted"


def test_the_inspector_tells_what_each_member_predicts_and_its_share():
    columns = {"member_1": NORM - 0.1, "member_2": NORM + 0.1, "baseline_boosting_psf": 2 * NORM}
    card = {"companion_weights": {"boosting_psf": 0.2}}
    rows = {row.parameter: row for row in replace(results(**columns), card=card).rows(4)}
    first = rows["predicted by network 1 of 2"]
    assert (first.value, first.unit) == ("5.00", "g/mL")  # 0.4 of 1 to 11
    assert first.about == "Its share of the prediction is 40\N{NO-BREAK SPACE}%"
    assert rows["predicted by network 2 of 2"].value == "7.00"
    companion = rows["predicted by boosting, scanner view"]
    assert companion.value == "11.0"
    assert companion.about.endswith("20\N{NO-BREAK SPACE}%")
    assert not any("predicted by" in row.parameter for row in results().rows(4))


def test_the_voxel_is_that_of_the_pet_under_the_centre_of_the_tile():
    turn = Transform.similarity("pet", "cd34", angle_deg=90.0, scale=0.5, shift_um=(300.0, 0.0))
    values = np.arange(12.0).reshape(3, 4)
    pet = Raster(values, Lattice("pet", (3, 4), (200.0, 200.0), (0.0, 0.0)), "g/mL")
    data = replace(results(), pet=pet, pet_to_section=turn)
    found = data.voxel(4)
    assert found is not None
    corners, value = found
    centre = GRID.centres_um[4]
    assert value == values[tuple(np.floor(turn.inverse().apply(centre[None])[0] / 200).astype(int))]
    # a voxel of 200 µm is 100 µm wide on the section, and holds the centre
    np.testing.assert_allclose(np.ptp(corners, axis=0), 100.0, atol=1e-6)
    assert (corners.min(axis=0) <= centre).all()
    assert (centre <= corners.max(axis=0)).all()
    assert any(row.parameter == "PET voxel" for row in data.rows(4))
    assert data.without_measured().voxel(4) is None
    far = Lattice("pet", (3, 4), (200.0, 200.0), (9000.0, 0.0))
    assert replace(data, pet=Raster(values, far, "g/mL")).voxel(4) is None


def test_the_curves_are_those_of_the_tile_where_there_are_any():
    patient = Table({"time_h": np.arange(3.0), **{f"{n}_um": np.ones(3) for n in CURVE_NAMES}})
    assert TileData(GRID).curves(0) is None
    time, curves = TileData(GRID, kinetics=patient).curves(0)
    assert time.tolist() == [0, 1, 2]
    columns = {name: np.arange(6.0) for kind in CURVE_NAMES for name in curve_columns(kind)}
    data = TileData(GRID, kinetics=patient, tile_kinetics=Table(columns))
    time, curves = data.curves(3)
    assert tuple(time) == TILE_TIMES_H
    assert all((curve == 3).all() for curve in curves.values())
    assert data.curves(-1)[0].tolist() == [0, 1, 2]  # no tile is selected


def figure_named(title):
    return next(one for one in REVIEW_FIGURES if title in one.title)


def test_figures_are_offered_for_what_there_is():
    titles = [one.title for one in REVIEW_FIGURES if one.possible(results())]
    assert titles == [
        "Predicted against measured uptake",
        "Bland-Altman plot",
        "Calibration",
        "Error by distance to the edge",
    ]
    assert not any(one.possible(TileData(GRID)) for one in REVIEW_FIGURES)


def test_the_coverage_is_that_of_the_tiles_and_of_their_fifths():
    n = 50
    grid = TileGrid(
        Lattice("cd34", (5, 10), (100.0, 100.0), (0.0, 0.0)),
        400.0,
        np.arange(n),
        np.ones(n),
        np.ones(n, bool),
    )
    norm = np.arange(n) / n
    off = np.where(np.arange(n) < 10, 0.3, 0.0)  # the ten lowest lie outside
    table = Table(
        {"suv_norm": norm, "suv": norm, "suv_norm_low": norm - 0.1, "suv_norm_high": norm + 0.1}
    )
    data = TileData(
        grid,
        uptake=Table({"suv": norm + off}),
        prediction=table,
        record={"target": {"low": 0.0, "high": 1.0}},
    )
    coverage = figure_named("Coverage")
    assert coverage.possible(data)
    axes = coverage.draw(data, None).axes[0]
    points = next(line for line in axes.lines if line.get_label() == "tile of a new slide")
    np.testing.assert_allclose(points.get_ydata(), [0.8, 0, 1, 1, 1, 1])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "tile of a new slide",
        "nominal 0.9",
    ]


def test_a_click_finds_the_nearest_point_as_it_is_seen():
    """Bland-Altman: the axes differ in range, and distances on the screen count."""
    measured = np.array([0.0, 100.0, 50.0, np.nan, 10.0, 20.0])
    predicted = measured + np.array([0.5, -0.5, 0.0, 0.0, 0.4, 0.1])
    data = TileData(
        GRID, uptake=Table({"suv": measured}), prediction=Table({"suv": predicted}), record=RECORD
    )
    plot = figure_named("Bland")
    assert tile_near(plot, data, 21.0, 0.4) == 4  # not tile 5, which is nearer in mean alone
    assert tile_near(figure_named("Predicted"), data, 49.0, 49.0) == 2
    assert tile_near(figure_named("tissue class"), data, 0.0, 0.0) == -1


def test_curves_of_the_card_are_drawn_for_each_member():
    history = [
        {"member": member, "epoch": epoch, "suv_mse": 1.0 / (epoch + member), "validation_mse": v}
        for member in (1, 2)
        for epoch, v in ((1, 0.5), (2, None))
    ]
    data = TileData(GRID, card={"history": history, "best_epoch": 2})
    training = figure_named("Training")
    assert training.possible(data)
    lines = training.draw(data, None).axes[0].lines
    assert [line.get_ydata().tolist() for line in lines] == [
        [0.5, 1 / 3],
        [1 / 3, 0.25],
        [0.5],
        [0.5],
    ]
    assert not training.possible(TileData(GRID, card={"history": []}))


def test_the_distance_is_that_to_the_edge_of_the_tiles():
    n = 25
    grid = TileGrid(
        Lattice("cd34", (5, 5), (100.0, 100.0), (0.0, 0.0)),
        400.0,
        np.arange(n),
        np.ones(n),
        np.ones(n, bool),
    )
    uptake = Table({"suv": np.zeros(n)})
    data = TileData(grid, uptake=uptake, prediction=Table({"suv": np.ones(n)}))
    across, up = figure_named("distance").points(data)
    assert across[12] == pytest.approx(300.0)  # the middle one of five
    assert across[0] == pytest.approx(100.0)
    assert (up == 1).all()
