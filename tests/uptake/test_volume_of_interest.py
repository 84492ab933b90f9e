"""Volumes of interest: recovery against a numerical convolution, errors and SUV by hand."""

import math

import numpy as np
import pytest
from scipy import ndimage

from napari_mosaik.core import InputError
from napari_mosaik.core.pet_records import InjectionRecord
from napari_mosaik.core.pet_volume import PetVolume, VolumeGrid
from napari_mosaik.io.pet import open_pet_volume
from napari_mosaik.uptake import (
    error_of_the_mean,
    measure_volume,
    sphere_recovery,
    sphere_voxels,
)
from tests.pet_series import SLOPE, pet_series

SIGMA = 4.6 / (2 * math.sqrt(2 * math.log(2)))


@pytest.mark.parametrize("radius_mm", [3.0, 6.0, 12.0])
def test_the_recovery_is_that_of_a_convolved_sphere_of_voxels(radius_mm):
    step, parts = 0.5, 3
    half = int((radius_mm + 5 * SIGMA) / step)
    fine = (np.arange((2 * half + 1) * parts) + 0.5) * step / parts - (half + 0.5) * step
    squares = fine**2
    inside = (
        squares[:, None, None] + squares[None, :, None] + squares[None, None, :] <= radius_mm**2
    )
    size = 2 * half + 1
    covered = inside.reshape(size, parts, size, parts, size, parts).mean(axis=(1, 3, 5))
    seen = ndimage.gaussian_filter(covered, SIGMA / step, truncate=6.0)
    centre, mean = sphere_recovery(radius_mm)
    assert centre == pytest.approx(seen[half, half, half], abs=0.003)
    assert mean == pytest.approx((seen * covered).sum() / covered.sum(), abs=0.003)


def test_the_recovery_of_large_and_small_spheres():
    assert sphere_recovery(200.0) == pytest.approx((1.0, 1.0), abs=0.02)
    # a point source: its activity over the peak of the Gaussian
    small = 4 / 3 * math.pi * 0.02**3 / (2 * math.pi) ** 1.5 / SIGMA**3
    assert sphere_recovery(0.02) == pytest.approx((small, small), rel=1e-3)
    found = [sphere_recovery(r) for r in (2.0, 4.0, 8.0, 16.0)]
    assert all(0 < mean < centre <= 1 for centre, mean in found)
    assert [mean for _, mean in found] == sorted(mean for _, mean in found)
    assert sphere_recovery(6.0, 3.0) == pytest.approx(sphere_recovery(12.0, 6.0))
    for wrong in ((0.0, 4.6), (5.0, 0.0), (math.nan, 4.6)):
        with pytest.raises(InputError):
            sphere_recovery(*wrong)


def test_the_error_of_the_mean_has_calibration_and_noise():
    volume_ml = 50.0
    correlated_ml = (4 * math.pi) ** 1.5 * (SIGMA / 10) ** 3
    error, noise, count = error_of_the_mean(8.0, 2.0, volume_ml)
    assert count == pytest.approx(volume_ml / correlated_ml)
    assert noise == pytest.approx(2.0 / math.sqrt(count))
    assert error == pytest.approx(math.sqrt(noise**2 + 0.4**2))
    assert error_of_the_mean(8.0, 2.0, 0.01)[2] == 1.0
    with pytest.raises(InputError, match="give calibration"):
        error_of_the_mean(8.0, 0.0, 1.0, calibration=0.0)
    with pytest.raises(InputError, match=r"calibration is -0.1"):
        error_of_the_mean(8.0, 1.0, 1.0, calibration=-0.1)


def test_the_noise_of_the_mean_of_correlated_voxels_is_not_underestimated():
    rng = np.random.default_rng(5)
    size, step = 24, 2.0
    means, spreads = [], []
    for _ in range(60):
        white = rng.standard_normal((size + 16,) * 3)
        field = ndimage.gaussian_filter(white, SIGMA / step, mode="wrap")[8:-8, 8:-8, 8:-8]
        means.append(field.mean())
        spreads.append(field.std(ddof=1))
    _, noise, _ = error_of_the_mean(1.0, float(np.mean(spreads)), (size * step / 10) ** 3)
    # noise filtered by s is correlated as a Gaussian of s sqrt 2: the count of the docstring
    assert noise == pytest.approx(np.std(means, ddof=1), rel=0.35)


GRID = VolumeGrid(
    (20, 24, 28), np.array([-20.0, 35.0, 110.0]), np.diag([3.0, 2.5, 2.0])[:, ::-1].copy()
)


def test_a_sphere_is_the_voxels_whose_centre_lies_in_it():
    centre = np.array([8.0, 62.0, 138.0])
    found = sphere_voxels(GRID, centre, 12.01)
    index = np.argwhere(np.ones(GRID.shape))
    apart = np.linalg.norm(GRID.positions_mm(index) - centre, axis=1)
    np.testing.assert_array_equal(found.ravel(), apart <= 12.01)
    assert found.sum() * GRID.voxel_ml == pytest.approx(4 / 3 * math.pi * 1.2**3, rel=0.02)


@pytest.mark.parametrize(
    ("centre", "radius", "words"),
    [
        ((500.0, 62.0, 138.0), 12.0, "reaches beyond the PET"),
        ((-15.0, 62.0, 138.0), 12.0, "reaches beyond the PET"),
        ((8.9, 63.1, 139.3), 0.1, "no centre of a voxel"),
        ((8.0, 62.0, 138.0), 0.0, "give more than 0"),
        ((8.0, math.nan, 138.0), 5.0, "three numbers"),
    ],
)
def test_a_sphere_outside_or_empty_is_refused(centre, radius, words):
    with pytest.raises(InputError, match=words):
        sphere_voxels(GRID, centre, radius)


STORED = np.random.default_rng(3).integers(4000, 5000, (8, 12, 14))
VOXELS = np.zeros(STORED.shape, bool)
VOXELS[2:6, 3:9, 4:11] = True
GIVEN = {"region": "tumour", "method": "sphere", "source": "series:0"}


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    return open_pet_volume(pet_series(tmp_path_factory.mktemp("pet"), STORED))


def test_the_suv_is_that_of_the_formula_by_hand(volume):
    found = measure_volume(volume, InjectionRecord(), VOXELS, **GIVEN)
    bq_ml = STORED[VOXELS] * SLOPE
    hours = 72.5
    suv = bq_ml * 80_000 / (37e6 * 2 ** (-hours / 78.41))
    value = found.value
    assert value.mean == pytest.approx(suv.mean(), rel=1e-9)
    assert value.voxel_sd == pytest.approx(suv.std(ddof=1), rel=1e-9)
    assert value.time_h == pytest.approx(hours + 1 / 6, abs=1e-4)  # the middle of 20 minutes
    assert (value.unit, value.decay_reference) == ("SUVbw", "injection")
    assert value.volume_ml == pytest.approx(VOXELS.sum() * 15 / 1000)
    expected = error_of_the_mean(value.mean, value.voxel_sd, value.volume_ml)
    assert value.sd == pytest.approx(expected[0])
    assert value.sd < value.voxel_sd or value.sd > 0.05 * value.mean
    assert found.n_voxels == VOXELS.sum()


def test_the_kind_of_suv_is_named(volume):
    by_weight, by_surface = (
        measure_volume(volume, InjectionRecord(), VOXELS, kind=kind, **GIVEN).value
        for kind in ("bw", "bsa")
    )
    surface_m2 = 0.007184 * 80**0.425 * 180**0.725
    assert by_surface.unit == "SUVbsa"
    assert by_surface.mean / by_weight.mean == pytest.approx(10 * surface_m2 / 80, rel=1e-9)


def test_the_recovery_is_shown_and_applied_only_if_chosen(volume):
    plain = measure_volume(volume, InjectionRecord(), VOXELS, **GIVEN)
    chosen = measure_volume(volume, InjectionRecord(), VOXELS, recovery="mean", **GIVEN)
    radius = 10 * (3 * plain.value.volume_ml / 4 / math.pi) ** (1 / 3)
    assert (plain.recovery_centre, plain.recovery_mean) == sphere_recovery(radius)
    assert not plain.recovered
    assert chosen.value.mean == pytest.approx(plain.value.mean / plain.recovery_mean)
    assert chosen.value.sd == pytest.approx(plain.value.sd / plain.recovery_mean)
    assert chosen.value.voxel_sd == plain.value.voxel_sd
    assert plain.value.method == "sphere"
    assert chosen.value.method == (
        f"sphere, divided by the recovery {plain.recovery_mean:.3f} (FWHM 4.6 mm)"
    )
    assert not any("FWHM" in text for text in plain.warnings)
    coarse = measure_volume(volume, InjectionRecord(), VOXELS, fwhm_mm=6.0, **GIVEN)
    assert any("16.9 mm, below 3 FWHM (18 mm)" in text for text in coarse.warnings)


def test_what_cannot_be_measured_is_refused(volume):
    record = InjectionRecord()
    with pytest.raises(InputError, match="empty"):
        measure_volume(volume, record, np.zeros_like(VOXELS), **GIVEN)
    one = np.zeros_like(VOXELS)
    one[3, 3, 3] = True
    with pytest.raises(InputError, match="one voxel"):
        measure_volume(volume, record, one, **GIVEN)
    with pytest.raises(InputError, match="voxels"):
        measure_volume(volume, record, VOXELS[1:], **GIVEN)
    holed = [image.raster.values.copy() for image in volume.images]
    holed[3][4, 5] = np.nan
    images = tuple(
        type(image)(type(image.raster)(values, image.raster.lattice, "Bq/mL"), image.header)
        for image, values in zip(volume.images, holed, strict=True)
    )
    with pytest.raises(InputError, match="1 of 168 voxels"):
        measure_volume(PetVolume(images, volume.grid), record, VOXELS, **GIVEN)


def test_a_scan_before_the_injection_is_refused(volume):
    late = InjectionRecord(injected="2024-03-08T10:00", decay_correction="ADMIN")
    with pytest.raises(InputError, match="injection"):
        measure_volume(volume, late, VOXELS, **GIVEN)


def test_values_that_are_suv_already_are_not_scaled(tmp_path):
    values = STORED // 1000
    path = pet_series(tmp_path / "p", values, each=lambda place: {"Units": "GML"})
    found = measure_volume(open_pet_volume(path), InjectionRecord(), VOXELS, **GIVEN)
    assert found.value.mean == pytest.approx(values[VOXELS].mean() * SLOPE)
    assert found.value.time_h == pytest.approx(72.5 + 1 / 6, abs=1e-4)
