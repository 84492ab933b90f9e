from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_mosaik.core import InputError, LabelImage, Lattice, Raster, TileGrid, Transform
from napari_mosaik.core.progress import of_this_item
from napari_mosaik.predictor import (
    FRACTIONS,
    INVALID_CODE,
    area_fractions,
    code_windows,
    edge_distance_um,
    fraction_pyramid,
    stack_fractions,
)


def full_grid(rows: int, cols: int, kept: np.ndarray | None = None) -> TileGrid:
    lattice = Lattice("cd34", (rows, cols), (300.0, 300.0), (50.0, 50.0))
    kept = np.arange(rows * cols) if kept is None else kept
    return TileGrid(lattice, 400.0, kept, np.ones(len(kept)), np.ones(len(kept), bool))


def random_fractions(shape: tuple[int, int], spacing_um: float, seed: int = 0) -> Raster:
    rng = np.random.default_rng(seed)
    neo = rng.random(shape)
    return stack_fractions(
        neo,
        1 - neo,
        rng.random(shape) * 0.2,
        rng.random(shape) > 0.2,
        Lattice("cd34", shape, (spacing_um, spacing_um)),
    )


def test_outside_is_what_the_tissue_leaves():
    tissue = np.array([[1.0, 0.25], [0.0, 0.5]])
    lattice = Lattice("cd34", (2, 2), (10.0, 10.0))
    found = stack_fractions(0.2 * tissue, 0.7 * tissue, 0.1 * tissue, tissue, lattice)
    assert FRACTIONS[3] == "outside"
    np.testing.assert_allclose(found.values[..., 3], [[0.0, 0.75], [1.0, 0.5]])
    np.testing.assert_allclose(found.values.sum(axis=-1), 1.0, rtol=1e-6)


def test_tile_window_is_the_plain_crop_where_pixels_agree():
    fractions = random_fractions((130, 160), 10.0)
    grid = full_grid(4, 5)
    tile, _, _ = fraction_pyramid(fractions, grid, (40, 40, 40))
    assert tile.spacing_um == pytest.approx(10.0)
    windows = tile.windows(np.arange(len(grid)))
    for i, (row, col) in enumerate(np.rint(grid.corners_um / 10).astype(int)):
        crop = fractions.values[row : row + 40, col : col + 40].transpose(2, 0, 1)
        np.testing.assert_array_equal(windows[i], np.rint(crop * 255).astype(np.uint8))


@pytest.mark.parametrize("window_px", [40, 80])
def test_window_means_are_the_area_means_of_the_window(window_px):
    fractions = random_fractions((900, 900), 10.0, 1)
    grid = full_grid(28, 28)
    scales = fraction_pyramid(fractions, grid, (window_px,) * 3)
    centre = 14 * 28 + 14
    for scale, edge_um in zip(scales, (400.0, 3400.0, 8200.0), strict=True):
        assert scale.spacing_um * window_px == pytest.approx(edge_um)
        low = np.rint((grid.centres_um[centre] - edge_um / 2) / 10).astype(int)
        high = low + round(edge_um / 10)
        crop = fractions.values[low[0] : high[0], low[1] : high[1]]
        found = scale.windows([centre])[0].mean(axis=(1, 2)) / 255
        np.testing.assert_allclose(found, crop.mean(axis=(0, 1)), atol=5e-3)


def test_beyond_the_slide_everything_is_outside():
    tissue = np.ones((110, 110))
    lattice = Lattice("cd34", (110, 110), (10.0, 10.0))
    grid = full_grid(3, 3)
    layers = stack_fractions(tissue, 0 * tissue, 0 * tissue, tissue, lattice)
    _, regional, wide = fraction_pyramid(layers, grid, (40, 40, 40))
    for scale in (regional, wide):
        window = scale.windows([4])[0] / 255
        area = window[3].sum() * scale.spacing_um**2
        whole = (scale.spacing_um * 40) ** 2
        assert area == pytest.approx(whole - 1100.0**2, rel=0.01)
        np.testing.assert_allclose(window[0] + window[3], 1.0, atol=0.005)
    corner = wide.windows([0])[0]
    assert (corner[3, 0] == 255).all()
    assert (corner[0, 0] == 0).all()


def test_area_fractions_of_a_straight_edge_and_of_a_turned_frame():
    codes = np.zeros((100, 100), np.uint8)
    codes[:, :55] = 2
    codes[:, 55:] = 3
    labels = LabelImage(codes, Lattice("he", (100, 100), (1.0, 1.0)))
    lattice = Lattice("he", (10, 11), (10.0, 10.0))
    told: list[float] = []
    with of_this_item(told.append):
        found = area_fractions(labels, lattice, (2, 3), oversample=10)
    assert told[-1] == 1.0
    np.testing.assert_allclose(found[0, :, 0], [1] * 5 + [0.5] + [0] * 5, atol=1e-6)
    np.testing.assert_allclose(found[:, :10].sum(axis=2), 1.0, atol=1e-6)
    assert (found[:, 10] == 0).all()
    turn = Transform.similarity("he", "cd34", angle_deg=90.0, about_um=(50.0, 50.0))
    turned = area_fractions(
        labels, Lattice("cd34", (10, 10), (10.0, 10.0)), (2,), turn, oversample=10
    )
    np.testing.assert_allclose(turned[..., 0], np.rot90(found[:, :10, 0]), atol=1e-6)


def test_area_fractions_without_codes_count_every_object():
    values = np.arange(64).reshape(8, 8)
    labels = LabelImage(values, Lattice("cd34", (8, 8), (1.0, 1.0)))
    found = area_fractions(labels, Lattice("cd34", (1, 1), (8.0, 8.0)), oversample=8)
    assert found[0, 0, 0] == pytest.approx(63 / 64)


def test_code_windows_hold_the_neighbours_and_5_elsewhere():
    kept = np.array([0, 1, 4, 7, 8])
    grid = full_grid(3, 3, kept)
    codes = np.array([[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 0], [4, 0, 1]])
    windows = code_windows(grid, codes)
    assert windows.shape == (5, 3, 11, 11)
    np.testing.assert_array_equal(windows[:, :, 5, 5], codes)
    assert windows[2, 0, 4, 4] == 0
    assert windows[2, 0, 4, 6] == INVALID_CODE
    assert windows[2, 1, 6, 6] == 0
    assert windows[2, 0, 4, 5] == 1  # the tile above, and none to the left
    assert windows[2, 0, 5, 4] == INVALID_CODE
    assert (windows[:, 0] != INVALID_CODE).sum() == 25
    with pytest.raises(InputError, match=r"0\.\.5"):
        code_windows(grid, codes + 2)


def test_edge_distance_of_a_full_rectangle():
    grid = full_grid(5, 9)
    rows, cols = grid.cells.T
    expected = 300.0 * np.min([rows + 1, cols + 1, 5 - rows, 9 - cols], axis=0)
    np.testing.assert_allclose(edge_distance_um(grid), expected)


def test_fractions_refuse_nan_other_frames_and_odd_windows():
    fractions = random_fractions((60, 60), 10.0)
    with pytest.raises(InputError, match="NaN"):
        stack_fractions(
            np.full((2, 2), np.nan),
            np.zeros((2, 2)),
            np.zeros((2, 2)),
            np.ones((2, 2)),
            Lattice("cd34", (2, 2), (1.0, 1.0)),
        )
    with pytest.raises(InputError, match="even"):
        fraction_pyramid(fractions, full_grid(1, 1), (40, 41, 40))
    other = Raster(fractions.values, Lattice("he", (60, 60), (10.0, 10.0)), "1", FRACTIONS)
    with pytest.raises(InputError, match="frame"):
        fraction_pyramid(other, full_grid(1, 1))


def test_a_missing_part_of_the_input_is_refused(small_cases):
    case = small_cases[0]
    case.require_modalities()
    with pytest.raises(InputError, match="kinetics"):
        replace(case, curves=np.full_like(case.curves, np.nan)).require_modalities()
    codes = case.codes.copy()
    codes[:, 1] = INVALID_CODE
    with pytest.raises(InputError, match="caix_h_score"):
        replace(case, codes=codes).require_modalities()
    empty = tuple(
        replace(s, values=s.values * np.array([0, 0, 0, 1], np.uint8)) for s in case.scales
    )
    with pytest.raises(InputError, match="tissue"):
        replace(case, scales=empty).require_modalities()
    with pytest.raises(InputError, match="features"):
        replace(case, features=case.features[:, :1])


def test_subset_keeps_each_tile_with_its_window(small_cases):
    case = small_cases[0]
    rows = np.array([7, 3, 11])
    part = case.subset(rows)
    for whole, cut in zip(case.scales, part.scales, strict=True):
        np.testing.assert_array_equal(whole.windows(rows), cut.windows([0, 1, 2]))
    np.testing.assert_array_equal(part.suv, case.suv[rows])
    np.testing.assert_array_equal(part.tile_curves([1]), case.tile_curves([3]))
