"""Tile parameters: hand-made objects, empty tiles, tiles without tissue, the catalogue."""

import math

import numpy as np
import pytest

from napari_mosaik.core import InputError, LabelImage, Lattice, Raster, Table, TileGrid
from napari_mosaik.core.errors import Cancelled
from napari_mosaik.core.progress import cancellable
from napari_mosaik.features import (
    PARAMETERS,
    caix_grades,
    caix_parameters,
    class_fractions,
    measure_objects,
    nuclear_parameters,
    parameter_table,
    parameters_of,
    texture_table,
    vascular_parameters,
    vessel_distance_in_tiles,
    vessel_distance_shares,
)

GRID = TileGrid(
    Lattice("cd34", (1, 3), (300.0, 300.0), (50.0, 50.0)),
    400.0,
    np.arange(3),
    np.ones(3),
    np.ones(3, bool),
)  # columns 0..400, 300..700, 600..1000


def vessels():
    columns = {
        "row_um": np.array([100.0, 200.0, 100.0]),
        "column_um": np.array([50.0, 350.0, 100.0]),
        "area_um2": np.array([100.0, 400.0, 100.0]),
        "equivalent_diameter_um": 2 * np.sqrt(np.array([100.0, 400.0, 100.0]) / math.pi),
        "eccentricity": np.array([0.0, 0.6, 0.2]),
        "solidity": np.array([1.0, 0.8, 0.9]),
        "perimeter_um": np.array([40.0, 90.0, 50.0]),
    }
    return Table(columns, frame="cd34")


def test_vascular_parameters_by_hand():
    table = vascular_parameters(
        GRID,
        vessels(),
        tissue_area_um2=[160_000.0, 80_000.0, 40_000.0],
        vessel_area_um2=[600.0, 400.0, 0.0],
        distance_um=[30.0, 50.0, 90.0],
    )
    assert tuple(table) == parameters_of("vascular")
    np.testing.assert_allclose(table["vessel_density_per_mm2"], [3 / 0.16, 1 / 0.08, 0])
    np.testing.assert_allclose(table["vessel_area_fraction"], [600 / 160_000, 400 / 80_000, 0])
    np.testing.assert_allclose(
        table["vessel_perimeter_density_per_um"], [180 / 160_000, 90 / 80_000, 0]
    )
    np.testing.assert_allclose(table["vessel_area_um2"], [200, 400, np.nan])
    np.testing.assert_allclose(table["vessel_eccentricity"], [0.8 / 3, 0.6, np.nan])
    np.testing.assert_allclose(table["vessel_distance_um"], [30, 50, 90])


def test_no_tissue_is_no_data():
    table = vascular_parameters(
        GRID, vessels(), tissue_area_um2=[0, 1e5, 1e5], vessel_area_um2=[0, 0, 0]
    )
    for name in table:
        assert np.isnan(table[name][0]), name
    nuclei = nuclear_parameters(GRID, vessels(), tissue_area_um2=[0, 1e5, 1e5])
    for name in nuclei:
        assert np.isnan(nuclei[name][0]), name
    assert nuclei["nucleus_density_per_mm2"][2] == 0
    assert np.isnan(nuclei["nucleus_area_um2"][2])


def test_a_number_per_tile_is_needed():
    with pytest.raises(InputError, match="tissue_area_um2"):
        vascular_parameters(GRID, vessels(), tissue_area_um2=[1.0], vessel_area_um2=[0, 0, 0])


def test_distance_to_a_straight_vessel_has_a_closed_form():
    """A vessel along the left edge: the mean distance over a tile is that of its middle."""
    lattice = Lattice("cd34", (200, 500), (2.0, 2.0))
    vessel = np.zeros(lattice.shape, bool)
    vessel[:, 0] = True
    got = vessel_distance_in_tiles(GRID, LabelImage(vessel, lattice))
    np.testing.assert_allclose(got[1:], [500 - 1, 800 - 1], atol=1.0)
    tissue = np.zeros(lattice.shape, bool)
    tissue[:, 200:250] = True  # 400..500 µm
    part = vessel_distance_in_tiles(GRID, Raster(vessel, lattice), Raster(tissue, lattice))
    assert np.isnan(part[0])
    assert part[1] == pytest.approx(450 - 1, abs=1)
    assert np.isnan(part[2])
    assert np.isnan(vessel_distance_in_tiles(GRID, Raster(vessel & False, lattice))).all()


def test_shares_of_distances_are_counted_pixel_by_pixel():
    lattice = Lattice("cd34", (200, 500), (2.0, 2.0))
    vessel = np.zeros(lattice.shape, bool)
    vessel[:, 0] = True
    shares = vessel_distance_shares(GRID, LabelImage(vessel, lattice), [0, 450, 520, np.inf])
    np.testing.assert_allclose(shares[1], [0.375, 0.175, 0.45], atol=0.01)  # 300 to 700 µm
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    tissue = np.zeros(lattice.shape, bool)
    tissue[:, 200:250] = True  # 400..500 µm
    edges = [0, 450, np.inf]
    part = vessel_distance_shares(GRID, Raster(vessel, lattice), edges, Raster(tissue, lattice))
    np.testing.assert_allclose(part[1], [0.5, 0.5], atol=0.03)
    assert np.isnan(part[[0, 2]]).all()
    assert np.isnan(vessel_distance_shares(GRID, Raster(vessel & False, lattice), edges)).all()


def test_the_distances_of_a_whole_slide_can_be_stopped():
    lattice = Lattice("cd34", (600, 500), (2.0, 2.0))
    vessels = Raster(np.ones(lattice.shape, bool), lattice)
    with cancellable(lambda: True), pytest.raises(Cancelled):
        vessel_distance_shares(GRID, vessels, [0, 50, np.inf])


def test_distances_in_tiles_far_apart_are_those_of_the_whole_and_nothing_between_is_read():
    from napari_mosaik.core.tiles import TileGrid

    rng = np.random.default_rng(3)
    lattice = Lattice("cd34", (3000, 400), (4.0, 4.0))
    marked = rng.random(lattice.shape) > 0.9995
    tissue = Raster(rng.random((750, 100)) > 0.2, Lattice("cd34", (750, 100), (16.0, 16.0)))
    places = Lattice("cd34", (40, 5), (300.0, 300.0), (200.0, 200.0))
    grid = TileGrid(places, 400.0, np.arange(200), np.ones(200), np.ones(200, bool))
    read = []

    class Seen:
        shape, dtype, ndim = marked.shape, marked.dtype, 2

        def __getitem__(self, key):
            read.append((key[0].start, key[0].stop))
            return marked[key]

    seen = LabelImage(Seen(), lattice)
    whole = vessel_distance_in_tiles(grid, LabelImage(marked, lattice), tissue)
    rows = np.array([0, 1, 6, 190, 196])
    part = vessel_distance_in_tiles(grid.subset(rows), seen, tissue, 400.0)
    np.testing.assert_array_equal(part, whole[rows])
    assert sum(stop - start for start, stop in read) < 2000
    assert not any(start < 1500 < stop for start, stop in read)


def test_nuclear_parameters_from_pixels():
    labels = np.zeros((400, 1000), np.int32)
    labels[50:60, 40:52] = 1
    labels[50:60, 340:352] = 2  # in tiles 0 and 1
    labels[10:13, 820:823] = 3  # too small for texture
    density = np.random.default_rng(0).random(labels.shape).astype(np.float32)
    lattice = Lattice("cd34", labels.shape, (1.0, 1.0))
    nuclei = measure_objects(labels, lattice, intensity={"haematoxylin_od": density})
    texture = texture_table(labels, density)
    table = nuclear_parameters(
        GRID, nuclei.with_columns(texture), tissue_area_um2=np.full(3, 160_000.0)
    )
    assert tuple(table) == parameters_of("nuclear")
    np.testing.assert_allclose(table["nucleus_density_per_mm2"], [12.5, 6.25, 6.25])
    np.testing.assert_allclose(table["nucleus_area_um2"], [120, 120, 9])
    entropy = texture["difference_entropy_bits"]
    np.testing.assert_allclose(
        table["nucleus_difference_entropy_bits"], [entropy[:2].mean(), entropy[1], np.nan]
    )
    assert table["nucleus_haematoxylin_od"][1] == pytest.approx(
        density[50:60, 340:352].mean(), rel=1e-5
    )


def test_grades_at_just_under_and_over_each_cutoff():
    under = np.nextafter([0.2, 0.4, 0.6], 0)
    np.testing.assert_array_equal(caix_grades([0.2, 0.4, 0.6]), [1, 2, 3])
    np.testing.assert_array_equal(caix_grades(under), [0, 1, 2])
    np.testing.assert_array_equal(caix_grades([0.0, 9.0, np.nan]), [0, 3, np.nan])
    with pytest.raises(InputError, match="ascending"):
        caix_grades([0.1], (0.4, 0.2, 0.6))


def test_h_score_by_hand_and_its_bounds():
    points = np.full((10, 2), 200.0) * [1, 0.5]
    od = np.array([0.1] * 4 + [0.3] * 3 + [0.5] * 2 + [0.7])
    table = caix_parameters(GRID, points, od)
    assert tuple(table) == parameters_of("caix")
    assert table["caix_h_score"][0] == pytest.approx(1 * 30 + 2 * 20 + 3 * 10)
    assert table["caix_positive_fraction"][0] == pytest.approx(0.6)
    positives = caix_grades(od)[caix_grades(od) > 0]
    identity = positives.mean() * 100 * table["caix_positive_fraction"][0]
    assert table["caix_h_score"][0] == pytest.approx(identity)
    assert table["caix_intensity_fraction"][0] == pytest.approx((3 * 0.3 + 2 * 0.5 + 0.7) / 10)
    assert table["caix_membrane_od10"][0] == pytest.approx(od.mean())
    for name in table:
        assert np.isnan(table[name][2])
    assert caix_parameters(GRID, points, np.full(10, 5.0))["caix_h_score"][0] == 300
    assert caix_parameters(GRID, points, np.zeros(10))["caix_h_score"][0] == 0


def test_cells_without_a_value_are_left_out():
    points = np.full((3, 2), 100.0)
    table = caix_parameters(GRID, points, [0.7, np.nan, 0.1])
    assert table["caix_h_score"][0] == pytest.approx(150)
    assert table["caix_intensity_fraction"][0] == pytest.approx(0.35)


def test_class_fractions():
    table = class_fractions(GRID, [30.0, 0.0, 0.0], [10.0, 5.0, 0.0])
    np.testing.assert_allclose(table["neoplastic_fraction"], [0.75, 0.0, np.nan])
    np.testing.assert_allclose(table["non_neoplastic_fraction"], [0.25, 1.0, np.nan])


def test_the_catalogue_is_complete():
    for name, parameter in PARAMETERS.items():
        assert parameter.name == name
        assert parameter.formula
        assert parameter.meaning.endswith(".")
    units = {"_um": "µm", "_um2": "µm²", "_per_mm2": "1/mm²", "_bits": "bit", "_od10": "OD10"}
    for name, parameter in PARAMETERS.items():
        for ending, unit in units.items():
            if name.endswith(ending) and not name.endswith("_per_um"):
                assert parameter.unit == unit, name
    with pytest.raises(InputError, match="no such"):
        parameter_table({"something": np.zeros(3)})
