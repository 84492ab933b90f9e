"""Objects and pixels in tiles: by brute force, with overlap, across frames."""

import numpy as np
import pytest

from napari_mosaik.core import FrameMismatch, Lattice, Raster, TileGrid, Transform
from napari_mosaik.features import (
    area_in_tiles,
    count_in_tiles,
    fractions_in_tiles,
    mean_in_tiles,
    sum_in_tiles,
)


def grid_of(rows, cols, size=40.0, stride=30.0, origin=(0.0, 0.0), frame="cd34"):
    first = (origin[0] + size / 2 - stride / 2, origin[1] + size / 2 - stride / 2)
    n = rows * cols
    lattice = Lattice(frame, (rows, cols), (stride, stride), first)
    return TileGrid(lattice, size, np.arange(n), np.ones(n), np.ones(n, bool))


def test_points_by_brute_force():
    rng = np.random.default_rng(0)
    grid = grid_of(4, 5)
    points = rng.uniform(-20, 180, (400, 2))
    points[7] = np.nan
    values = rng.normal(size=400)
    values[3] = np.nan
    for k, corner in enumerate(grid.corners_um):
        inside = ((points >= corner) & (points < corner + 40)).all(axis=1)
        assert count_in_tiles(grid, points)[k] == inside.sum()
        assert sum_in_tiles(grid, points, values)[k] == pytest.approx(np.nansum(values[inside]))
        assert mean_in_tiles(grid, points, values)[k] == pytest.approx(np.nanmean(values[inside]))


def test_a_tile_without_points_has_count_zero_and_no_mean():
    grid = grid_of(1, 2, stride=40.0)
    points = np.array([[5.0, 5.0]])
    np.testing.assert_array_equal(count_in_tiles(grid, points), [1, 0])
    np.testing.assert_array_equal(mean_in_tiles(grid, points, [2.0]), [2.0, np.nan])
    np.testing.assert_array_equal(mean_in_tiles(grid, points, [np.nan]), [np.nan, np.nan])


def test_areas_of_whole_pixels_by_brute_force():
    rng = np.random.default_rng(1)
    mask = rng.random((130, 160)) < 0.4
    grid = grid_of(4, 5)
    got = area_in_tiles(grid, mask, Lattice("cd34", mask.shape, (1.0, 1.0)))
    expected = [mask[int(r) : int(r) + 40, int(c) : int(c) + 40].sum() for r, c in grid.corners_um]
    np.testing.assert_array_equal(got, expected)


def test_tiles_that_cut_pixels_are_exact():
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 4, (50, 70))
    lattice = Lattice("cd34", codes.shape, (3.0, 2.5), (-7.0, 4.0))
    grid = grid_of(3, 4, size=37.3, stride=29.9, origin=(-11.0, -3.0))
    got = area_in_tiles(grid, codes, lattice, where=lambda part: part == 2)
    expected = []
    edge_r = lattice.origin_um[0] + 3.0 * np.arange(51)
    edge_c = lattice.origin_um[1] + 2.5 * np.arange(71)
    for r, c in grid.corners_um:
        height = np.clip(np.minimum(edge_r[1:], r + 37.3) - np.maximum(edge_r[:-1], r), 0, None)
        width = np.clip(np.minimum(edge_c[1:], c + 37.3) - np.maximum(edge_c[:-1], c), 0, None)
        expected.append(height @ (codes == 2) @ width)
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-9)


def test_blocks_do_not_show(monkeypatch):
    """Areas of labels and sums of fractions, with tiles that cut pixels, by blocks of any size."""
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 3, (130, 160))
    codes[:30], codes[:, 60:100] = 0, 0
    lattice = Lattice("cd34", codes.shape, (1.0, 1.3), (-7.0, 4.0))
    grid = grid_of(4, 6, size=37.3, stride=29.9, origin=(-11.0, -3.0))
    expected = area_in_tiles(grid, codes, lattice)
    shares = rng.random(codes.shape)
    weighted = area_in_tiles(grid, shares, lattice, where=lambda part: part)
    for block in ((16, 16), (7, 50), (1, 160), (64, 3)):
        monkeypatch.setattr("napari_mosaik.features.tile_aggregation._BLOCK", block)
        got = area_in_tiles(grid, codes, lattice)
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-9)
        got = area_in_tiles(grid, shares, lattice, where=lambda part: part)
        np.testing.assert_allclose(got, weighted, rtol=1e-12, atol=1e-9)


def test_only_one_block_is_read_at_a_time():
    """A label image larger than a block is never asked for more than one block."""

    class Stored:
        shape = (3000, 9000)
        dtype = np.dtype(np.uint8)
        largest = 0

        def __getitem__(self, key):
            rows, cols = (range(n)[part] for n, part in zip(self.shape, key, strict=True))
            self.largest = max(self.largest, len(rows) * len(cols))
            return np.full((len(rows), len(cols)), 3, np.uint8)

    stored = Stored()
    grid = grid_of(50, 200)
    got = area_in_tiles(grid, stored, Lattice("cd34", stored.shape, (0.5, 0.5)))
    reach = np.clip(np.array([1500.0, 4500.0]) - grid.corners_um, 0, 40)
    np.testing.assert_allclose(got, reach.prod(axis=1), atol=1e-6)
    assert stored.largest <= 1024 * 4096


def test_shares_of_classes_in_a_turned_frame():
    """A half-plane border through a turned frame, by the same half-plane in the grid's frame."""
    turn = Transform.similarity("he", "cd34", angle_deg=30, scale=0.95, shift_um=(40, -20))
    lattice = Lattice("he", (900, 900), (0.5, 0.5), (-150.0, -150.0))
    codes = np.where(turn.apply(lattice.centres_um())[..., 1] < 80.0, 2, 3)
    grid = grid_of(3, 4, origin=(40.0, 20.0))
    got = fractions_in_tiles(grid, Raster(codes, lattice), (2, 3), turn, points=80)
    expected = np.clip((80.0 - grid.corners_um[:, 1]) / 40, 0, 1)
    np.testing.assert_allclose(got[:, 0], expected, atol=0.02)
    np.testing.assert_allclose(got.sum(axis=1), 1)


def test_beyond_the_image_no_code_counts():
    grid = grid_of(1, 1, size=40.0)
    half = Raster(np.ones((40, 20), np.uint8), Lattice("cd34", (40, 20), (1.0, 1.0)))
    np.testing.assert_allclose(fractions_in_tiles(grid, half, (1, 2)), [[0.5, 0.0]])


def test_frames_must_fit():
    with pytest.raises(FrameMismatch):
        area_in_tiles(grid_of(1, 1), np.ones((4, 4)), Lattice("he", (4, 4), (1.0, 1.0)))
