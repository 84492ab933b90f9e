"""Rasters, tables and the tile grid against brute force."""

import numpy as np
import pytest

from napari_mosaik.core import (
    FrameMismatch,
    InputError,
    Lattice,
    Raster,
    Table,
    TileGrid,
    Transform,
)


def grid(rows=6, cols=8, size=400.0, stride=300.0):
    lattice = Lattice("cd34", (rows, cols), (stride, stride), (17.0, -30.0))
    kept = np.flatnonzero(np.random.default_rng(1).random(rows * cols) > 0.3)
    return TileGrid(lattice, size, kept, np.ones(kept.size), np.ones(kept.size, bool))


def test_points_belong_to_the_tiles_that_hold_them():
    tiles = grid()
    points = np.random.default_rng(2).uniform(-200, 2500, (500, 2))
    tile, point = tiles.memberships(points)
    found = np.zeros((len(tiles), len(points)), bool)
    found[tile, point] = True
    low = tiles.corners_um[:, None]
    expected = ((points >= low) & (points < low + tiles.size_um)).all(axis=2)
    assert (found == expected).all()
    assert np.all(np.diff(point) >= 0)


def test_points_are_sorted_into_tiles_part_by_part_with_the_same_result(monkeypatch):
    tiles, points = grid(), np.random.default_rng(2).uniform(-200, 2500, (500, 2))
    whole = tiles.memberships(points)
    monkeypatch.setattr("napari_mosaik.core.tiles._POINTS", 7)
    for part, one in zip(tiles.memberships(points), whole, strict=True):
        np.testing.assert_array_equal(part, one)
    assert [len(one) for one in tiles.memberships(points[:0])] == [0, 0]


def test_windows_hold_the_neighbours():
    tiles = grid()
    windows = tiles.windows(3)
    index = np.pad(tiles.index_map(), 1, constant_values=-1)
    for number, (row, col) in enumerate(tiles.cells):
        assert (windows[number] == index[row : row + 3, col : col + 3]).all()
    assert (windows[:, 1, 1] == np.arange(len(tiles))).all()
    with pytest.raises(InputError, match="odd"):
        tiles.windows(4)


def test_painting_puts_values_at_tile_centres():
    tiles = grid()
    painted = tiles.paint(np.arange(len(tiles)) + 1.0, "cm²/mL")
    assert np.allclose(painted.at(tiles.centres_um), np.arange(len(tiles)) + 1.0)
    assert np.isnan(painted.values).sum() == painted.values.size - len(tiles)
    with pytest.raises(InputError, match="values for"):
        tiles.paint(np.zeros(3))


def test_positions_must_ascend():
    tiles = grid()
    with pytest.raises(InputError, match="ascending"):
        TileGrid(tiles.lattice, 400.0, np.array([3, 3]), np.ones(2), np.ones(2, bool))


def test_values_outside_are_empty():
    raster = Raster(np.arange(6.0).reshape(2, 3), Lattice("he", (2, 3), (1.0, 1.0)))
    assert raster.at([[0.5, 0.5], [1.9, 2.9]]).tolist() == [0.0, 5.0]
    assert np.isnan(raster.at([[-0.1, 0.5], [0.5, 3.1]])).all()


def test_placing_on_another_lattice_needs_the_right_transform():
    raster = Raster(np.eye(4), Lattice("he", (4, 4), (1.0, 1.0)))
    turned = raster.onto(
        Lattice("cd34", (4, 4), (1.0, 1.0), (-4.0, 0.0)),
        Transform.similarity("he", "cd34", angle_deg=90),
    )
    assert np.allclose(np.nan_to_num(turned.values), np.rot90(np.eye(4)))
    with pytest.raises(FrameMismatch):
        raster.onto(Lattice("cd34", (4, 4), (1.0, 1.0)))


def test_a_mask_stays_a_mask():
    mask = Raster(np.ones((2, 2), bool), Lattice("he", (2, 2), (1.0, 1.0)))
    wide = mask.onto(Lattice("he", (4, 4), (1.0, 1.0), (-1.0, -1.0)), outside=0)
    assert wide.values.dtype == bool
    assert wide.values.sum() == 4


def test_a_table_names_what_it_lacks():
    table = Table({"a": np.arange(3), "b": np.ones(3)}, {"a": "µm"})
    assert (table.unit("a"), table.unit("b"), len(table)) == ("µm", "1", 3)
    assert table.rows(np.array([2, 0]))["a"].tolist() == [2, 0]
    with pytest.raises(InputError, match="no column 'c'; there are: a, b"):
        table["c"]
    with pytest.raises(InputError, match="different length"):
        Table({"a": np.arange(3), "b": np.ones(2)})
