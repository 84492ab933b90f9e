import numpy as np
import pytest
from pydantic import ValidationError

from napari_mosaik.core import InputError, Lattice, Raster
from napari_mosaik.tissue import TileParams, tile_coverage, tile_grid


def raster(values, spacing=10.0, origin=(0.0, 0.0)):
    values = np.asarray(values, bool)
    return Raster(values, Lattice("cd34", values.shape, (spacing, spacing), origin))


def disk(shape, row, column, radius, spacing=10.0):
    y, x = (np.indices(shape) + 0.5) * spacing
    return np.hypot(y - row, x - column) < radius


def brute(mask, corner, size):
    """Overlap of each sample with the tile, one by one."""
    total = 0.0
    spacing, origin = mask.lattice.spacing_um, mask.lattice.origin_um
    for i, j in np.argwhere(mask.values):
        edge = [origin[a] + k * spacing[a] for a, k in ((0, i), (1, j))]
        parts = [
            max(0.0, min(edge[a] + spacing[a], corner[a] + size) - max(edge[a], corner[a]))
            for a in (0, 1)
        ]
        total += parts[0] * parts[1]
    return total / size**2


def test_coverage_is_exact_for_edges_inside_samples():
    lattice = Lattice("cd34", (40, 50), (7.3, 9.1), (3.0, -20.0))
    mask = Raster(disk((40, 50), 180, 200, 130), lattice)
    coverage = tile_coverage(mask, (-20.0, -30.0), (5, 7), 83.0, 61.0)
    wanted = [[brute(mask, (-20 + 61 * i, -30 + 61 * j), 83.0) for j in range(7)] for i in range(5)]
    np.testing.assert_allclose(coverage, wanted, atol=1e-12)


def test_counts_of_a_full_square():
    grid = tile_grid(raster(np.ones((200, 200))))
    # 2000 µm: tiles at 0, 300 ... 1500 are inner (6 x 6); those at 1800 are half covered (2 x 6)
    assert len(grid) == 48
    assert grid.inner.sum() == 36
    np.testing.assert_allclose(grid.coverage[~grid.inner], 0.5)
    np.testing.assert_allclose(grid.corners_um[0], (0, 0))
    assert grid.stride_um == 300


def test_disk_against_brute_force_and_classes():
    mask = raster(disk((300, 340), 1470, 1610, 1200))
    params = TileParams()
    grid = tile_grid(mask, params)
    every = {}
    for i in range(grid.lattice.shape[0]):
        for j in range(grid.lattice.shape[1]):
            block = mask.values[i * 30 : i * 30 + 40, j * 30 : j * 30 + 40]
            every[i, j] = block.sum() / 1600
    kept = {cell: share for cell, share in every.items() if share >= 0.5}
    assert [tuple(cell) for cell in grid.cells] == sorted(kept)
    np.testing.assert_allclose(grid.coverage, [kept[tuple(cell)] for cell in grid.cells])
    np.testing.assert_array_equal(grid.inner, grid.coverage >= 0.95)
    assert 0 < grid.inner.sum() < len(grid)


def test_whole_strides_change_nothing():
    one = tile_grid(raster(disk((400, 400), 1500, 1600, 800)))
    two = tile_grid(raster(disk((400, 400), 1500 + 600, 1600 + 300, 800)))
    np.testing.assert_array_equal(one.cells + np.array([2, 1]), two.cells)
    np.testing.assert_allclose(one.coverage, two.coverage)


def test_lattice_is_anchored_at_the_frames_origin():
    whole = disk((400, 400), 1800, 2000, 900)
    one = tile_grid(raster(whole))
    cropped = raster(whole[60:, 75:], origin=(600.0, 750.0))
    two = tile_grid(cropped)
    np.testing.assert_allclose(one.centres_um, two.centres_um)
    np.testing.assert_allclose(one.coverage, two.coverage)
    np.testing.assert_allclose(one.corners_um % 300, 0, atol=1e-9)
    np.testing.assert_allclose(one.centres_um - one.corners_um, 200)


def test_settings_and_empty_masks():
    with pytest.raises(InputError, match="no tile of 400 µm"):
        tile_grid(raster(np.zeros((100, 100))))
    with pytest.raises(InputError, match="the best has 25%"):
        tile_grid(raster(np.ones((20, 20))))
    with pytest.raises(ValidationError):
        TileParams(inner=0.4, border=0.5)
    one_voxel = TileParams(size_um=1600 / 3, overlap=0.25)
    assert tile_grid(raster(np.ones((200, 200))), one_voxel).stride_um == pytest.approx(400)
