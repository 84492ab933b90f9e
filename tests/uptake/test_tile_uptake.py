"""Tile values: exact where a field has a closed form, NaN where there is no PET."""

import numpy as np
import pytest

from napari_mosaik.core import FrameMismatch, Lattice, Raster, TileGrid, Transform
from napari_mosaik.uptake import shift_sensitivity, tile_uptake


def grid_of(rows, cols, size=400.0, stride=300.0, origin=(0.0, 0.0)):
    first = (origin[0] + size / 2 - stride / 2, origin[1] + size / 2 - stride / 2)
    lattice = Lattice("cd34", (rows, cols), (stride, stride), first)
    n = rows * cols
    return TileGrid(lattice, size, np.arange(n), np.ones(n), np.ones(n, bool))


def pet_of(values, spacing=400.0):
    return Raster(values, Lattice("pet", values.shape, (spacing, spacing)), "cm²/mL")


IDENTITY = Transform.identity("pet", "cd34")


def test_a_constant_field_is_constant_under_any_transform():
    turned = Transform.similarity(
        "pet", "cd34", angle_deg=33, scale=0.9, shift_um=(500, -200), about_um=(4000, 4000)
    )
    values = tile_uptake(pet_of(np.full((30, 30), 2.5)), grid_of(6, 5, origin=(3000, 3000)), turned)
    np.testing.assert_allclose(values, 2.5, rtol=1e-12)


def test_weights_by_hand():
    values = np.arange(16, dtype=float).reshape(4, 4)
    grid = grid_of(2, 2)
    got = tile_uptake(pet_of(values), grid, IDENTITY)
    # tile (0, 0) is voxel (0, 0); tile (0, 1) spans 300..700 µm: a quarter of 0, three of 1
    np.testing.assert_allclose(got[:2], [0.0, 0.75], atol=1e-12)
    by_hand = (1 * 0 + 3 * 1 + 3 * 4 + 9 * 5) / 16
    assert got[3] == pytest.approx(by_hand)


def test_rotated_overlap_agrees_with_dense_sampling():
    rng = np.random.default_rng(3)
    pet = pet_of(rng.uniform(1, 5, (14, 14)))
    turned = Transform.similarity(
        "pet", "cd34", angle_deg=-27, scale=0.93, shift_um=(100, 60), about_um=(2800, 2800)
    )
    grid = grid_of(3, 3, origin=(2200, 2200))
    offsets = (np.arange(400) + 0.5) / 400 * grid.size_um
    fine = np.stack(np.meshgrid(offsets, offsets, indexing="ij"), -1).reshape(-1, 2)
    back = turned.inverse()
    sampled = [pet.at(back.apply(corner + fine)).mean() for corner in grid.corners_um]
    np.testing.assert_allclose(tile_uptake(pet, grid, turned), sampled, rtol=2e-3)


def test_butting_tiles_conserve_the_total():
    rng = np.random.default_rng(1)
    pet = pet_of(rng.uniform(0, 9, (12, 12)))
    turned = Transform.similarity("pet", "cd34", scale=0.8)
    grid = grid_of(12, 16, size=240.0, stride=240.0)  # 12 x 16 tiles
    covered = grid_of(16, 16, size=240.0, stride=240.0)  # 3840 µm = 12 voxels of 320 µm
    assert tile_uptake(pet, covered, turned).mean() == pytest.approx(pet.values.mean())
    part = tile_uptake(pet, grid, turned).mean()
    assert part == pytest.approx(pet.values[:9].mean())


def test_outside_the_field_of_view_is_nan_by_the_stated_fraction():
    pet = pet_of(np.ones((2, 2)))
    grid = grid_of(1, 4, stride=300.0)  # columns 0..400, 300..700, 600..1000, 900..1300 of 800
    values = tile_uptake(pet, grid, IDENTITY, min_inside=0.5)
    np.testing.assert_array_equal(np.isnan(values), [False, False, False, True])
    np.testing.assert_allclose(values[:3], 1.0)  # half a tile outside: the mean of what is inside
    strict = tile_uptake(pet, grid, IDENTITY, min_inside=0.51)
    np.testing.assert_array_equal(np.isnan(strict), [False, False, True, True])
    hole = pet_of(np.array([[np.nan, 1.0], [1.0, 1.0]]))
    assert np.isnan(tile_uptake(hole, grid, IDENTITY)[0])


def test_frames_must_fit():
    with pytest.raises(FrameMismatch):
        tile_uptake(pet_of(np.ones((3, 3))), grid_of(1, 1), Transform.identity("cd34", "pet"))


def test_shift_sensitivity_of_a_ramp_is_one_voxel():
    ramp = pet_of(np.repeat(np.arange(40.0)[None], 40, axis=0))
    grid = grid_of(3, 3, origin=(7200, 7200))
    change = shift_sensitivity(ramp, grid, IDENTITY, angle_deg=0.0)
    np.testing.assert_allclose(change, 1.0, rtol=1e-9)
    flat = shift_sensitivity(pet_of(np.full((40, 40), 3.0)), grid, IDENTITY)
    np.testing.assert_allclose(flat, 0.0, atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_shift_is_tried_in_both_directions_of_both_axes(axis, mirrored):
    steps = np.arange(40.0)[::-1] if mirrored else np.arange(40.0)
    pet = pet_of(np.repeat((steps**2)[:, None], 40, axis=1))
    pet = pet if axis == 0 else pet_of(np.asarray(pet.values).T)
    change = shift_sensitivity(pet, grid_of(1, 1, origin=(8000, 8000)), IDENTITY, angle_deg=0.0)
    here = 19.0 if mirrored else 20.0  # the tile covers voxel 20
    np.testing.assert_allclose(change, (here + 1) ** 2 - here**2)


def test_the_shift_is_one_voxel_of_the_pet_whatever_its_scale_on_the_section():
    ramp = pet_of(np.repeat(np.arange(40.0)[None], 40, axis=0))
    half = Transform.similarity("pet", "cd34", scale=0.5)
    change = shift_sensitivity(ramp, grid_of(3, 3, origin=(3600, 3600)), half, angle_deg=0.0)
    np.testing.assert_allclose(change, 1.0, rtol=1e-9)


def test_a_rotation_moves_the_tiles_far_from_the_middle():
    """A ramp along the rows of the PET: a tile beside the middle rises by its distance x sin."""
    ramp = pet_of(np.repeat(np.arange(400.0)[:, None], 400, axis=1), spacing=40.0)
    grid = grid_of(1, 11, origin=(8000, 6000))
    change = shift_sensitivity(ramp, grid, IDENTITY, shift_um=0.0, angle_deg=2.0)
    away = np.abs(np.arange(11) - 5) * 300.0
    np.testing.assert_allclose(change, away * np.sin(np.radians(2.0)) / 40.0, atol=0.02)
