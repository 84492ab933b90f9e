"""What the registration leaves out changes no result: against the same by plain means."""

from dataclasses import replace

import numpy as np
import pytest
import scipy
from threadpoolctl import threadpool_info

from napari_mosaik.core import FrameMismatch, Lattice, Raster, Transform
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.register import PetAlignParams
from napari_mosaik.register import pet_registration as pet_module
from napari_mosaik.register.affine_fit import InverseTransform, Smoother, smoothed_image
from napari_mosaik.register.outline_registration import _best_shift
from napari_mosaik.register.pet_model import (
    _NOISE_LEVELS,
    PetCandidate,
    PetSearch,
    _one_blas_thread,
    pet_mask,
)
from napari_mosaik.register.quality import dice, mask_dice

TURNED = Transform.similarity("he", "cd34", angle_deg=33.0, scale=0.94, shift_um=(210.0, -90.0))
EXACT = Transform("he", "cd34", np.diag([2.0, 0.5, 1.0]))


def blob(frame, shape, spacing, seed):
    """A mask of random blocks."""
    rough = np.random.default_rng(seed).random((shape[0] // 5, shape[1] // 5)) > 0.4
    values = np.kron(rough, np.ones((5, 5), bool))
    return Raster(values, Lattice(frame, values.shape, spacing, (13.0, -7.0)))


@pytest.mark.parametrize("transform", [TURNED, EXACT, TURNED.identity("he", "cd34")])
@pytest.mark.parametrize("pixels", [60, 128])
def test_overlap_is_that_of_the_resampled_masks(transform, pixels):
    moving, fixed = blob("he", (60, 80), (10.0, 10.0), 0), blob("cd34", (70, 60), (12.0, 10.0), 1)
    seen = []
    plain = Raster.onto

    def onto(mask, lattice, by=None):
        return plain(mask, lattice, by, outside=0).values > 0.5

    import napari_mosaik.register.quality as quality

    real = quality._nearest_on

    def both(lattice, mask, by):
        found = real(lattice, mask, by)
        same = by.source == by.target and mask.lattice.frame == lattice.frame
        assert (found == onto(mask, lattice, None if same else by)).all()
        seen.append(found)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "_nearest_on", both)
        overlap = dice(moving, fixed, transform, pixels=pixels)
    assert len(seen) == 2
    assert overlap == mask_dice(*seen)
    assert 0 < overlap < 1


def test_a_transform_of_another_space_is_refused():
    mask = blob("he", (20, 20), (10.0, 10.0), 0)
    with pytest.raises(FrameMismatch, match="cannot be placed"):
        dice(mask, mask, Transform.identity("caix", "he"))


def test_best_shift_is_the_greatest_of_all_sums():
    rng = np.random.default_rng(3)
    target, image, reach = rng.random((30, 30)), rng.random((30, 30)), 7
    found, shift = _best_shift(np.fft.rfft2(target, (40, 40)), image, reach)
    sums = {}
    for row in range(-reach, reach + 1):
        for col in range(-reach, reach + 1):
            here = target[max(row, 0) : 30 + min(row, 0), max(col, 0) : 30 + min(col, 0)]
            there = image[max(-row, 0) : 30 + min(-row, 0), max(-col, 0) : 30 + min(-col, 0)]
            sums[row, col] = float((here * there).sum())
    best = max(sums, key=sums.__getitem__)
    assert tuple(shift) == best
    assert found == pytest.approx(sums[best])


def test_an_image_on_a_lattice_is_that_at_its_moved_centres():
    values = np.random.default_rng(4).random((40, 50)).astype(np.float32)
    image = smoothed_image(Raster(values, Lattice("he", (40, 50), (10.0, 12.0), (5.0, 9.0))), 25.0)
    square = Lattice("cd34", (30, 30), (11.0, 11.0), (-20.0, 40.0))
    inverse = InverseTransform.of(TURNED, np.array([100.0, 150.0]), 1.0)
    moved = inverse.apply(square.centres_um().reshape(-1, 2))
    assert np.allclose(image.on(square, inverse).ravel(), image.at(moved), atol=1e-9)


def test_a_raster_that_is_smoothed_again_gives_the_same_to_the_last_bit(monkeypatch):
    values = np.random.default_rng(5).random((43, 58)).astype(np.float32)
    values[:4] = np.nan
    raster = Raster(values, Lattice("he", values.shape, (10.0, 12.0), (5.0, 9.0)))
    smoother, made = Smoother(raster), []
    real = scipy.ndimage.gaussian_filter
    monkeypatch.setattr(
        scipy.ndimage, "gaussian_filter", lambda *one, **two: made.append(1) or real(*one, **two)
    )
    for sigma in (20.0, 95.0, 20.0, 110.0, 95.0):  # without blocks, with 2 x 1 and 2 x 2
        first, again = smoothed_image(smoother, sigma), smoothed_image(raster, sigma)
        assert first.lattice == again.lattice
        assert first.values.tobytes() == again.values.tobytes()
    assert len(made) == 3 + 5


def test_an_image_is_read_where_it_shows_only():
    mask = blob("he", (60, 80), (10.0, 10.0), 6)
    mask.values[:30] = mask.values[:, 50:] = False
    image = smoothed_image(mask, 15.0)
    points = np.random.default_rng(7).uniform(-300, 1100, (4000, 2))
    assert image.at_where_it_shows(points).tobytes() == image.at(points).tobytes()
    empty = smoothed_image(Raster(np.zeros((9, 9)), Lattice("he", (9, 9), (10.0, 10.0))), 15.0)
    assert not empty.at_where_it_shows(points).any()


# --- PET ----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def search():
    """A small slice on an oval section."""
    lattice = Lattice("cd34", (90, 110), (50.0, 50.0))
    rows, cols = np.indices(lattice.shape)
    inside = ((rows - 45) / 32) ** 2 + ((cols - 55) / 40) ** 2 < 1
    tissue = Raster(inside, lattice)
    voxels = Lattice("pet", (12, 14), (400.0, 400.0))
    at = voxels.centres_um().reshape(-1, 2)
    shown = smoothed_image(Raster(inside.astype(np.float32), lattice), 500.0).at(at)
    pet = Raster(shown.reshape(voxels.shape) * 5 + 0.01, voxels)
    params = PetAlignParams(fwhm_um=1200.0)
    return PetSearch(pet, pet_mask(pet), tissue, params)


def test_no_place_is_evaluated_twice_in_one_descent(search, monkeypatch):
    seen = []
    real = PetSearch.cost

    def cost(self, candidate):
        seen.append((candidate.inverse.linear.tobytes(), candidate.inverse.centre_um.tobytes()))
        seen[-1] += (candidate.log_fwhm_ratio,)
        return real(self, candidate)

    monkeypatch.setattr(PetSearch, "cost", cost)
    middle = np.array([2300.0, 2800.0])
    start = PetCandidate(InverseTransform.of(Transform.identity("pet", "cd34"), middle, 1000.0))
    run_to_end(search.descend(start, 1.0, 1.0, 40))
    assert len(seen) > 12
    assert len(seen) == len(set(seen))


def test_the_level_of_the_noise_is_the_best_of_all(search):
    model = search.model
    sums = model._sums(model._design(Transform.identity("pet", "cd34"), None), model._noise)
    costs = [model._cost(sums, model._noise, float(level)) for level in _NOISE_LEVELS]
    assert model._best_level(sums, model._noise) == (min(costs), _NOISE_LEVELS[np.argmin(costs)])


@pytest.mark.parametrize("best", _NOISE_LEVELS)
def test_each_level_of_the_noise_can_be_found(search, best, monkeypatch):
    def cost(self, sums, noise, level):
        return abs(np.log(level / best))

    monkeypatch.setattr(type(search.model), "_cost", cost)
    assert search.model._best_level((None, None, 0.0), search.model._noise) == (0.0, best)


@pytest.mark.parametrize(
    ("delta", "mirrored", "known", "counts"),
    [
        (30.0, False, (), False),  # rough, and far worse than the best
        (20.0, False, (), True),  # the first of its kind tells how much better the best is
        (20.0, False, ((5.0, False),), False),
        (12.0, False, ((5.0, False),), True),
        (10.5, True, (), True),  # may come below the limit of the warning
        (12.0, True, (), False),  # of a mirror image only that is asked
        (20.0, False, ((-1.0, True), (5.0, False)), True),  # another one may win
    ],
)
def test_a_rough_minimum_is_refined_where_it_can_count(search, delta, mirrored, known, counts):
    def fit(cost, flipped):
        turned = Transform.similarity("pet", "cd34", angle_deg=90.0, mirror=flipped)
        inverse = InverseTransform.of(turned, np.zeros(2), 1000.0)
        return PetCandidate(inverse, cost=cost * pet_module.LIKELIHOOD_TEMPERATURE)

    best = replace(
        fit(0.0, False),
        inverse=InverseTransform.of(Transform.identity("pet", "cd34"), np.zeros(2), 1000.0),
    )
    others = [fit(*one) for one in known]
    assert pet_module._can_count(search, fit(delta, mirrored), others, best) is counts


def blas_threads():
    return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}


def test_blas_has_one_thread_until_the_last_search_has_ended():
    before, one = blas_threads(), _one_blas_thread()
    with one:
        assert blas_threads() == {1}
        with _one_blas_thread():
            pass
        assert blas_threads() == {1}
    assert blas_threads() == before
