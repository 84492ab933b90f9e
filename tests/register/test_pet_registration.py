"""Registration of the PET to a section by the likelihood of the slice."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import multivariate_normal

from napari_mosaik.core import InputError, Lattice, Raster, Transform
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.register import (
    PetAlignParams,
    align_pet,
    iter_align_pet,
    iter_assess_pet,
    pet_mask,
)
from napari_mosaik.register.pet_model import PetModel

FWHM_UM, VOXEL_UM, FINE_UM = 1500.0, 400.0, 50.0
QUICK = PetAlignParams(angle_step_deg=6.0)


def outline_of(points_um):
    """An irregular specimen of about 7 mm; no angle of it resembles another."""
    row, col = np.moveaxis(points_um - 4500.0, -1, 0)
    angle, radius = np.arctan2(row, col), np.hypot(row, col)
    edge = 3200 + 500 * np.cos(angle) + 450 * np.sin(2 * angle + 1) + 250 * np.cos(3 * angle + 2)
    return radius < edge


@pytest.fixture(scope="module")
def tissue():
    lattice = Lattice("cd34", (180, 180), (FINE_UM, FINE_UM))
    return Raster(outline_of(lattice.centres_um()), lattice)


def scanned(true, *, fwhm_um=FWHM_UM, noise=0.02, seed=0, dark_side=True):
    """What a scanner sees of the specimen; one side of it hardly takes up anything."""
    rng = np.random.default_rng(seed)
    n = 30
    voxels = Lattice("pet", (n, n), (VOXEL_UM, VOXEL_UM))
    fine = voxels.resized(FINE_UM)
    at = true.apply(fine.centres_um().reshape(-1, 2))
    row, col = at.T / 1000
    uptake = 1 + 0.4 * np.sin(1.3 * row) * np.cos(1.1 * col)
    if dark_side:
        uptake *= 0.25 + 0.75 / (1 + np.exp(-(col - 3.0) * 1.5))
    seen = (outline_of(at) * uptake).reshape(fine.shape)
    blurred = gaussian_filter(seen, fwhm_um / 2.3548 / FINE_UM)
    step = round(VOXEL_UM / FINE_UM)
    values = blurred.reshape(n, step, n, step).mean(axis=(1, 3))
    grain = gaussian_filter(rng.standard_normal(values.shape), 0.9)
    values = values + noise * np.sqrt(np.clip(values, 0, None)) * grain / grain.std()
    return Raster(np.clip(values, 0, None), voxels, "Bq/mL")


def true_map(angle_deg=0.0, scale=0.9):
    return Transform.similarity(
        "pet",
        "cd34",
        angle_deg=angle_deg,
        scale=scale,
        shift_um=(-1500.0 + 120, -1500.0 - 230),
        about_um=(6000.0, 6000.0),
    )


def error_um(found, true, tissue):
    points = tissue.lattice.centres_um()[tissue.values][::61]
    away = found.apply(true.inverse().apply(points)) - points
    return float(np.sqrt((away**2).sum(axis=1).mean()))


@pytest.fixture(scope="module")
def plain(tissue):
    """The alignment of the slice with little noise."""
    return align_pet(scanned(true_map()), tissue, QUICK)


def test_a_dark_rim_does_not_pull_the_position(tissue, plain):
    true = true_map()
    by_outline = QUICK.model_copy(update={"use_intensity": False})
    outline = align_pet(scanned(true), tissue, by_outline)
    away = error_um(plain.transform, true, tissue)
    assert away < 120
    assert away < 0.6 * error_um(outline.transform, true, tissue)
    assert away < 2.5 * plain.position_error_um
    assert plain.method == "outline + uptake"
    assert np.isnan(outline.position_error_um)


def test_the_expected_error_grows_with_the_noise(tissue, plain):
    many = align_pet(scanned(true_map(), noise=0.12), tissue, QUICK)
    assert many.position_error_um > 2 * plain.position_error_um
    assert many.confidence < 0.4 < plain.confidence
    assert any("expected registration error" in text for text in many.messages)


def test_another_resolution_is_noticed(tissue):
    found = align_pet(scanned(true_map(), fwhm_um=1150.0), tissue, QUICK)
    assert any("resolution" in text for text in found.messages)


def test_a_mirror_image_is_noticed_and_taken_only_where_allowed(tissue):
    seen = scanned(true_map())
    turned = Raster(seen.values[:, ::-1].copy(), seen.lattice, seen.unit)
    found = align_pet(turned, tissue, QUICK)
    assert not found.mirrored
    assert found.confidence < 0.4
    assert any("flipped" in text for text in found.messages)
    allowed = align_pet(turned, tissue, QUICK.model_copy(update={"mirror": True}))
    assert allowed.mirrored
    assert allowed.position_error_um < 150


def test_a_position_by_hand_is_judged_by_its_distance_from_the_likely_one(tissue):
    true = true_map()
    pet = scanned(true)
    for shift, low in ((0.0, False), (400.0, True)):
        given = true.then(Transform.similarity("cd34", "cd34", shift_um=(shift, 0)))
        found = run_to_end(iter_assess_pet(pet, tissue, given, PetAlignParams(), method="by hand"))
        assert np.allclose(found.transform.matrix, given.matrix)
        assert found.local_error_um == pytest.approx(shift, abs=120)
        assert (found.confidence < 0.4) == low


def test_a_size_that_may_not_change_is_doubted_where_it_should(tissue):
    pet = scanned(true_map(scale=0.88))
    found = align_pet(pet, tissue, QUICK.model_copy(update={"kind": "rigid"}))
    assert found.scale == pytest.approx(1)
    assert found.position_error_um > 150
    assert found.confidence < 0.4


def test_the_cost_is_the_density_of_a_multivariate_normal(tissue):
    pet = scanned(true_map())
    model = PetModel(pet, pet_mask(pet), tissue, FWHM_UM)
    ways = [true_map(), true_map(12), true_map(scale=0.95)]
    model.choose_noise(ways[0])
    n, k = model._values.size, model._used.size
    unit = model._noise.whiten(np.eye(n).reshape(*model._values.shape, n))
    noise = model._level**2 * np.linalg.inv(unit.T @ unit)
    prior = np.linalg.inv(model._prior_inverse)
    densities = []
    for way in ways:
        design = model._design(way, None).reshape(n, k)
        seen = multivariate_normal(np.zeros(n), design @ prior @ design.T + noise)
        densities.append(seen.logpdf(model._values.ravel()))
    costs = [model.cost(way) for way in ways]
    assert np.diff(costs) == pytest.approx(-np.diff(densities), rel=1e-3)
    half = n / 2 * np.log(2 * np.pi)
    assert costs[0] == pytest.approx(-densities[0] - half, rel=1e-3)


def test_the_model_sees_what_a_scanner_sees(tissue):
    """Even uptake: the sum of all splines is the blurred section, averaged over the voxels."""
    true = true_map(30)
    pet = scanned(true, noise=0.0, dark_side=False)
    model = PetModel(pet, pet_mask(pet), tissue, FWHM_UM)
    seen = model._design(true, None).sum(axis=-1)
    fine = pet.lattice.resized(25.0)
    inside = outline_of(true.apply(fine.centres_um().reshape(-1, 2))).reshape(fine.shape)
    blurred = gaussian_filter(inside.astype(float), FWHM_UM / 2.3548 / 25.0)
    step = round(VOXEL_UM / 25.0)
    n = pet.lattice.shape[0]
    means = blurred.reshape(n, step, n, step).mean(axis=(1, 3))
    rows, cols = (
        slice(round(o / VOXEL_UM), round(o / VOXEL_UM) + k)
        for o, k in zip(model._lattice.origin_um, model._lattice.shape, strict=True)
    )
    assert seen == pytest.approx(means[rows, cols], abs=0.01)


def test_it_can_be_stopped_between_pieces(tissue):
    work = iter_align_pet(scanned(true_map()), tissue, QUICK)
    shares = [next(work) for _ in range(12)]
    assert shares == sorted(shares)
    work.close()


def test_voxels_wider_than_the_resolution_are_refused(tissue):
    with pytest.raises(InputError, match="too wide"):
        align_pet(scanned(true_map()), tissue, PetAlignParams(fwhm_um=200.0))
