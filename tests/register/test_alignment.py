"""Known alignments: outlines, densities, landmarks, the blur of the PET."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_mosaik.core import InputError, Lattice, Raster, Transform
from napari_mosaik.register import (
    Alignment,
    AlignmentWarning,
    AlignParams,
    OutlineParams,
    align_masks,
    align_sections,
    blurred_outline,
    dice,
    fit_landmarks,
    iter_align_masks,
    landmark_quality,
    pet_mask,
    read_landmarks,
)

SPACING = 25.0


def paint(transform, frame, shape=(200, 240), origin=(-1000.0, -1000.0)):
    """An asymmetric L, given in the fixed frame, as it lies in another frame."""
    lattice = Lattice(frame, shape, (SPACING, SPACING), origin)
    points = transform.apply(lattice.centres_um())
    row, col = points[..., 0], points[..., 1]
    upright = (row > 200) & (row < 3000) & (col > 300) & (col < 1300)
    foot = (row > 2100) & (row < 3000) & (col > 300) & (col < 3100)
    return Raster(upright | foot, lattice)


def placed(angle, *, scale=1.0, mirror=False, shift=(150.0, -220.0)):
    """Moving mask, fixed mask and the true map between them."""
    true = Transform.similarity(
        "he", "cd34", angle_deg=angle, scale=scale, shift_um=shift, about_um=(1700, 1500),
        mirror=mirror,
    )  # fmt: skip
    fixed = paint(Transform.identity("cd34", "cd34"), "cd34")
    corners = true.inverse().apply([[-800, -800], [-800, 4800], [4800, -800], [4800, 4800]])
    low = np.floor(corners.min(axis=0) / SPACING) * SPACING
    size = np.ceil((corners.max(axis=0) - low) / SPACING).astype(int)
    shape = (int(size[0]), int(size[1]))
    return paint(true, "he", shape, (float(low[0]), float(low[1]))), fixed, true


def error_um(found, true):
    points = true.inverse().apply([[400, 500], [2900, 2900], [2900, 400], [1500, 800]])
    return np.linalg.norm(found.apply(points) - true.apply(points), axis=1).max()


@pytest.mark.parametrize("angle", [37.0, -90.0, 180.0])
def test_an_outline_is_found_at_any_angle(angle):
    moving, fixed, true = placed(angle)
    found = align_masks(moving, fixed, OutlineParams(kind="rigid"))
    assert error_um(found.transform, true) < 40
    assert (found.angle_deg - angle + 180) % 360 - 180 == pytest.approx(0, abs=1)
    assert found.dice > 0.97
    assert not found.mirrored
    assert found.confidence > 0.5


def test_a_turned_over_section_is_recognised():
    moving, fixed, true = placed(30, mirror=True)
    found = align_masks(moving, fixed, OutlineParams(kind="rigid"))
    assert found.mirrored
    assert error_um(found.transform, true) < 40


def test_scale_is_found_and_reported():
    moving, fixed, true = placed(20, scale=0.92)
    found = align_masks(moving, fixed, OutlineParams(kind="similarity"))
    assert found.scale == pytest.approx(0.92, abs=0.01)
    assert error_um(found.transform, true) < 40


def disc(frame, radius=1500.0):
    lattice = Lattice(frame, (160, 160), (SPACING, SPACING))
    away = np.linalg.norm(lattice.centres_um() - 2000, axis=-1)
    return Raster(away < radius, lattice)


def test_a_disc_has_no_angle_and_says_so():
    found = align_masks(disc("he"), disc("cd34"))
    assert found.confidence < 0.3
    assert found.warnings


def test_an_empty_mask_is_refused():
    empty = Raster(np.zeros((20, 20), bool), Lattice("he", (20, 20), (SPACING, SPACING)))
    with pytest.raises(InputError, match="empty"):
        align_masks(empty, disc("cd34"))


def test_fractions_rise_and_closing_stops():
    moving, fixed, _ = placed(10)
    pieces = iter_align_masks(moving, fixed)
    seen = [next(pieces), next(pieces)]
    assert 0 < seen[0] <= seen[1] <= 1
    pieces.close()
    with pytest.raises(StopIteration):
        next(pieces)


def test_what_lies_inside_decides_where_the_outline_cannot():
    """A symmetric outline with an asymmetric inside, turned by 180 degrees."""
    rng = np.random.default_rng(0)
    lattice = Lattice("cd34", (160, 200), (SPACING, SPACING))
    row, col = np.moveaxis(lattice.centres_um(), -1, 0)
    mask = ((row - 2000) / 1400) ** 2 + ((col - 2500) / 2000) ** 2 < 1
    inside = gaussian_filter(rng.normal(size=lattice.shape), 6)
    inside = np.where(mask, 1 + 4 * inside, 0.0)
    turned = Lattice("he", lattice.shape, lattice.spacing_um)
    masks = Raster(mask[::-1, ::-1].copy(), turned), Raster(mask, lattice)
    densities = Raster(inside[::-1, ::-1].copy(), turned), Raster(inside, lattice)
    found = align_sections(*masks, *densities, AlignParams(kind="rigid"))
    true = Transform.similarity("he", "cd34", angle_deg=180, about_um=(2000, 2500))
    assert error_um(found.transform, true) < 60
    assert found.ncc > 0.9


@pytest.mark.parametrize("kind", ["rigid", "similarity", "affine"])
def test_landmarks_without_noise_are_met(kind):
    matrix = np.eye(3)
    matrix[:2, :2] = {
        "rigid": Transform.similarity("a", "b", angle_deg=31).matrix[:2, :2],
        "similarity": Transform.similarity("a", "b", angle_deg=31, scale=1.2).matrix[:2, :2],
        "affine": [[1.1, 0.2], [-0.1, 0.9]],
    }[kind]
    matrix[:2, 2] = (300, -40)
    true = Transform("he", "cd34", matrix)
    moving = np.random.default_rng(0).uniform(0, 5000, (6, 2))
    found = fit_landmarks(moving, true.apply(moving), kind, "he", "cd34")
    assert np.allclose(found.matrix, true.matrix, atol=1e-6)


def test_too_few_or_repeated_landmarks_are_refused():
    with pytest.raises(InputError):
        fit_landmarks(np.zeros((1, 2)), np.zeros((1, 2)), "rigid", "he", "cd34")
    with pytest.raises(InputError):
        fit_landmarks(np.zeros((4, 2)), np.zeros((4, 2)), "affine", "he", "cd34")


def test_errors_by_hand_and_a_slipped_landmark():
    fixed = np.array([[0, 0], [0, 1000], [1000, 0], [1000, 1000], [500, 500], [200, 800]], float)
    moving = fixed + np.array([3.0, 4.0])
    moving[5] = [900, 100]
    quality = landmark_quality(
        moving, fixed, Transform.identity("he", "cd34"), Lattice("cd34", (300, 400), (10.0, 10.0))
    )
    assert quality["tre_um"]["median"] == pytest.approx(5.0)
    assert quality["rtre"]["median"] == pytest.approx(5.0 / 5000)
    assert quality["worst"] == 5
    assert quality["suspects"] == [5]


def test_landmark_files_are_in_pixels(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text(",X,Y\n0,10,20\n1,30,40\n")
    assert read_landmarks(path, (0.5, 0.25)).tolist() == [[10.0, 2.5], [20.0, 7.5]]
    path.write_text("nothing here")
    with pytest.raises(InputError, match=r"points\.csv"):
        read_landmarks(path, 0.5)


def test_an_alignment_comes_back_from_its_record():
    transform = Transform.similarity("he", "cd34", angle_deg=5)
    nan = float("nan")
    warning = AlignmentWarning("low_overlap", "look")
    made = Alignment(transform, nan, 5.0, 1.0, False, nan, (warning,), method="landmarks")
    record = made.to_dict()
    assert record["confidence"] is None
    back = Alignment.from_dict(record)
    assert np.allclose(back.transform.matrix, transform.matrix)
    assert np.isnan(back.confidence)
    assert back.warnings == (warning,)
    assert record["warnings"] == ["look"]
    assert record["warning_codes"] == ["low_overlap"]


def seen_by_pet(mask, fwhm_um, voxel_um=400.0):
    """A mask with uneven uptake as a scanner sees it."""
    lattice = mask.lattice
    row, col = np.moveaxis(lattice.centres_um(), -1, 0)
    uptake = mask.values * (0.8 + 0.2 * np.sin(row / 900) + 0.15 * np.cos(col / 700))
    blurred = gaussian_filter(uptake, fwhm_um / 2.3548 / SPACING)
    step = round(voxel_um / SPACING)
    rows, cols = (n // step * step for n in blurred.shape)
    parts = blurred[:rows, :cols].reshape(rows // step, step, cols // step, step)
    voxels = Lattice("pet", (rows // step, cols // step), (voxel_um, voxel_um), lattice.origin_um)
    return Raster(parts.mean(axis=(1, 3)), voxels)


def test_the_pets_outline_and_the_blurred_section_coincide():
    section = disc("pet")
    wide = Raster(np.pad(section.values, 80), Lattice("pet", (320, 320), (SPACING, SPACING),
                                                       (-2000.0, -2000.0)))  # fmt: skip
    seen = pet_mask(seen_by_pet(wide, 800.0, voxel_um=200.0))
    expected = blurred_outline(section, 800.0)
    assert dice(seen, expected, Transform.identity("pet", "pet")) > 0.92


def test_a_section_is_found_through_the_blur():
    section, _, true = placed(64)
    wide = Raster(
        np.pad(section.values, 80),
        Lattice(
            "pet",
            (section.values.shape[0] + 160, section.values.shape[1] + 160),
            (SPACING, SPACING),
            (section.lattice.origin_um[0] - 2000.0, section.lattice.origin_um[1] - 2000.0),
        ),
    )
    fixed = paint(Transform.identity("cd34", "cd34"), "cd34")
    found = align_masks(
        pet_mask(seen_by_pet(wide, 1200.0)),
        blurred_outline(fixed, 1200.0),
        OutlineParams(mirror=False),
    )
    assert error_um(found.transform, Transform("pet", "cd34", true.matrix)) < 500
    assert found.angle_deg == pytest.approx(64, abs=8)


def test_a_uniform_pet_shows_no_specimen():
    flat = Raster(np.ones((20, 20)), Lattice("pet", (20, 20), (400.0, 400.0)))
    with pytest.raises(InputError, match="uniform"):
        pet_mask(flat)
