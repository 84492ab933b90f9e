"""Whole PET series: where the voxels lie, what makes them no volume; masks on their voxels."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from napari_mosaik.core import InputError
from napari_mosaik.io.pet import open_pet_volume
from napari_mosaik.io.pet.masks import mask_regions, read_mask
from tests.io.test_pet import PIXELS, enhanced, saved
from tests.io.test_pet_other import INVEON, inveon
from tests.pet_series import (
    ORIGIN_MM,
    SLOPE,
    SPACING_MM,
    contours,
    nifti_in_order,
    nifti_volume,
    pet_series,
    segmentation,
)

IBSI = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "pet" / "ibsi-sts-002"
STORED = np.random.default_rng(3).integers(100, 9000, (8, 12, 14))


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    return pet_series(tmp_path_factory.mktemp("pet") / "day3", STORED)


@pytest.fixture(scope="module")
def volume(series):
    return open_pet_volume(series)


def values(volume):
    return np.stack([image.raster.values for image in volume.images])


def test_a_series_is_ordered_and_has_its_place_in_the_patient(volume):
    np.testing.assert_array_equal(values(volume), STORED * SLOPE)
    grid = volume.grid
    assert grid.shape == STORED.shape
    assert grid.spacing_mm == pytest.approx(SPACING_MM)
    assert grid.voxel_ml == pytest.approx(3 * 2.5 * 2 / 1000)
    (place,) = grid.positions_mm(np.array([[2, 3, 4]]))
    deep, high, wide = SPACING_MM
    expected = np.add(ORIGIN_MM, [4 * wide, 3 * high, 2 * deep])
    assert place == pytest.approx(expected)
    assert grid.index(expected[None])[0] == pytest.approx([2, 3, 4])


@pytest.mark.parametrize("sform", [True, False])
def test_nifti_lies_where_the_dicom_series_lies(tmp_path, volume, sform):
    path = nifti_volume(tmp_path / "p.nii", STORED * SLOPE, sform=sform)
    found = open_pet_volume(path, unit="Bq/mL")
    np.testing.assert_allclose(values(found), values(volume), rtol=1e-6)
    assert found.grid.is_same(volume.grid)
    assert found.patient_ids == ()


def test_an_inveon_volume_has_no_place_in_the_patient(tmp_path):
    text = INVEON.replace("pixel_size_y 0.8", "pixel_size_y 0.8\npixel_size_z 0.9")
    found = open_pet_volume(inveon(tmp_path, text), frame_index=0)
    assert not found.grid.in_patient
    assert found.grid.spacing_mm == pytest.approx((0.9, 0.8, 0.776))
    with pytest.raises(InputError, match="size of its voxels in three directions"):
        open_pet_volume(inveon(tmp_path), frame_index=0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"skip": (3,)}, ["6 mm apart", "the others 3 mm", "slices are missing"]),
        (
            {"each": lambda place: {"NumberOfSlices": 9}},
            ["9 slices (NumberOfSlices), and 8 are given"],
        ),
        (
            {"each": lambda place: {"FrameOfReferenceUID": f"1.2.{place // 4}"}},
            ["2 frames of reference"],
        ),
        (
            {"each": lambda place: {"Units": "GML" if place == 5 else "BQML"}},
            ["different units: Bq/mL, g/mL"],
        ),
        (
            {"each": lambda place: {"PatientID": "A" if place else "B"}},
            ["different patients"],
        ),
        ({"skip": range(1, 8)}, ["one slice"]),
    ],
)
def test_what_is_no_whole_volume_is_refused(tmp_path, given, words):
    path = pet_series(tmp_path / "p", STORED, **given)
    with pytest.raises(InputError) as error:
        open_pet_volume(path)
    assert all(word in str(error.value) for word in words), error.value


def test_a_time_frame_must_be_chosen_and_be_whole(tmp_path):
    path = pet_series(tmp_path / "p", STORED)

    def second(place):
        return {"FrameReferenceTime": 1800000.0, "SOPInstanceUID": f"1.2.4.{place}"}

    more = pet_series(tmp_path / "q", STORED + 7, each=second)
    files = [*path.iterdir(), *more.iterdir()]
    with pytest.raises(InputError, match="2 frames; choose one with frame_index"):
        open_pet_volume(files)
    np.testing.assert_array_equal(
        values(open_pet_volume(files, frame_index=1)), (STORED + 7) * SLOPE
    )
    with pytest.raises(InputError, match="has 1 time frames, others have 2"):
        open_pet_volume(files[:-1], frame_index=0)


def test_the_hash_is_of_the_voxels_and_no_identity_is_shown(volume, series, tmp_path):
    again = open_pet_volume(pet_series(tmp_path / "p", STORED))
    assert again.source("A2") == volume.source("A2")
    changed = STORED.copy()
    changed[4, 4, 4] += 1
    assert open_pet_volume(pet_series(tmp_path / "q", changed)).content() != volume.content()
    later = pet_series(tmp_path / "r", STORED, each=lambda place: {"SeriesTime": "105500"})
    assert open_pet_volume(later).content() != volume.content()
    assert volume.source("A2") != volume.source("B8")
    assert volume.is_named("patient 1")
    assert not volume.is_named("patient 2")
    shown = f"{volume!r}{volume.grid}{volume.source('A2')}"
    assert not any(text in shown for text in ("Doe", "Patient-1", "1.2.840"))


# --- masks ----------------------------------------------------------------------------------------
MASK = np.zeros(STORED.shape, bool)
MASK[2:6, 3:8, 4:11] = True
MASK[3:5, 5:6, 6:8] = False


def box(low, high, place):
    """A rectangle along the edges of voxels (rows, columns) on a slice, in mm."""
    (r0, c0), (r1, c1) = low, high
    corners = [(r0, c0), (r0, c1), (r1, c1), (r1, c0)]
    deep, tall, wide = SPACING_MM
    x, y, z = ORIGIN_MM
    return np.array(
        [[x + (c - 0.5) * wide, y + (r - 0.5) * tall, z + place * deep] for r, c in corners]
    )


def boxes():
    holes = [box((5, 6), (6, 8), place) for place in (3, 4)]
    return [box((3, 4), (8, 11), place) for place in range(2, 6)] + holes


def test_seg_contours_and_labels_of_one_shape_are_the_same_voxels(tmp_path, volume):
    grid = volume.grid
    found = [
        read_mask(segmentation(tmp_path / "seg.dcm", MASK), grid, 1),
        read_mask(contours(tmp_path / "rt.dcm", {7: boxes()}), grid),
        read_mask(nifti_volume(tmp_path / "m.nii", np.where(MASK, 3, 0)), grid),
    ]
    for one in found:
        np.testing.assert_array_equal(one.voxels, MASK)
        assert one.warnings == ()
    assert "mL" in found[1].method
    mirrored = read_mask(tmp_path / "seg.dcm", grid, 2)
    np.testing.assert_array_equal(mirrored.voxels, MASK[:, ::-1])


def test_a_mask_whose_axes_run_otherwise_has_the_same_voxels(tmp_path, volume):
    given = MASK.copy()
    given[2, 3, 4:6] = False  # no mirror of itself
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            path = nifti_in_order(tmp_path / "m.nii", np.where(given, 3, 0), order, flips)
            found = read_mask(path, volume.grid)
            np.testing.assert_array_equal(found.voxels, given, err_msg=f"{order} {flips}")
    seg = segmentation(tmp_path / "seg.dcm", given, upward=True)
    np.testing.assert_array_equal(read_mask(seg, volume.grid, 1).voxels, given)
    other = segmentation(tmp_path / "seg.dcm", given[:, :, :-1], upward=True)
    with pytest.raises(InputError, match=r"another grid \(13 x 12 pixels"):
        read_mask(other, volume.grid, 1)
    cut = nifti_in_order(tmp_path / "m.nii", given[:, 1:], (1, 0, 2), (False, False, True))
    with pytest.raises(InputError, match="another grid"):
        read_mask(cut, volume.grid)


def test_the_regions_of_a_mask_are_listed(tmp_path):
    labels = nifti_volume(tmp_path / "m.nii", np.where(MASK, 3, 1))
    assert mask_regions(labels) == {1: "", 3: ""}
    assert mask_regions(segmentation(tmp_path / "s.dcm", MASK)) == {1: "part 1", 2: "part 2"}
    assert mask_regions(contours(tmp_path / "r.dcm", {7: boxes()})) == {7: "region 7"}
    with pytest.raises(InputError, match="no mask"):
        mask_regions(tmp_path / "none.nii")


def test_the_volume_of_contours_is_that_of_their_polygons(tmp_path):
    angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    radius, spacing = 20.0, (2.0, 0.5, 0.5)
    grid = open_pet_volume(
        nifti_volume(tmp_path / "p.nii", np.ones((12, 120, 120)), spacing_mm=spacing), unit="Bq/mL"
    ).grid
    x, y, z = np.add(ORIGIN_MM, [30, 30, 0])
    ring = np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)
    given = [np.column_stack([ring, np.full(len(ring), z + 4 * k + 0.3)]) for k in range(5)]
    found = read_mask(contours(tmp_path / "rt.dcm", {1: given}), grid)
    polygon = 0.5 * len(angle) * radius**2 * np.sin(2 * np.pi / len(angle))
    assert f"contours of {polygon * 20 / 1000:.4g} mL" in found.method
    # contours every 4 mm, slices every 2 mm: two slices a contour
    assert found.voxels.any(axis=(1, 2)).sum() == 10
    assert found.voxels.sum() * grid.voxel_ml == pytest.approx(polygon * 20 / 1000, rel=0.005)
    assert found.warnings == ()


def test_contours_that_the_voxels_do_not_follow_are_a_warning(tmp_path, volume):
    small = [box((3.2, 3.2), (4.4, 4.4), 3), box((3.2, 3.2), (4.4, 4.4), 4)]
    found = read_mask(contours(tmp_path / "rt.dcm", {1: small}), volume.grid)
    assert "the region is small" in found.warnings[0]


def shifted(path, mask):
    return nifti_volume(path, mask, origin_mm=(-20.0, 35.0, 111.0))


@pytest.mark.parametrize(
    ("make", "label", "words"),
    [
        (lambda f: segmentation(f / "m.dcm", MASK), None, ["2 regions", "1 part 1, 2 part 2"]),
        (lambda f: segmentation(f / "m.dcm", MASK), 5, ["no region 5"]),
        (
            lambda f: segmentation(f / "m.dcm", MASK, reference="1.2.3"),
            1,
            ["another frame of reference"],
        ),
        (
            lambda f: segmentation(f / "m.dcm", MASK, shift_mm=0.7),
            1,
            ["another grid (14 x 12 pixels", "14 x 12 x 8 voxels of 2 x 2.5 x 3 mm"],
        ),
        (
            lambda f: shifted(f / "m.nii", MASK),
            None,
            ["another grid (14 x 12 x 8", "111) mm", "110) mm"],
        ),
        (lambda f: nifti_volume(f / "m.nii", MASK * 0.5), None, ["not whole numbers"]),
        (lambda f: nifti_volume(f / "m.nii", MASK * 0), None, ["no region"]),
        (lambda f: contours(f / "m.dcm", {1: []}), None, ["no contour"]),
        (lambda f: contours(f / "m.dcm", {1: boxes()}, kind="POINT"), None, ["type POINT"]),
        (
            lambda f: contours(f / "m.dcm", {1: [np.add(one, [900, 0, 0]) for one in boxes()]}),
            None,
            ["reach beyond the PET"],
        ),
        (
            lambda f: contours(
                f / "m.dcm", {1: [np.add(boxes()[0], np.outer(range(4), [0, 0, 2]))]}
            ),
            None,
            ["not parallel"],
        ),
        (
            lambda f: contours(f / "m.dcm", {1: [box((3.1, 3.1), (3.4, 3.4), 3)]}),
            None,
            ["holds no voxel of the PET"],
        ),
        (lambda f: f / "none.nii", None, ["no mask"]),
    ],
)
def test_a_mask_that_does_not_fit_is_one_sentence(tmp_path, volume, make, label, words):
    with pytest.raises(InputError) as error:
        read_mask(make(tmp_path), volume.grid, label)
    assert all(word in str(error.value) for word in words), error.value


def test_a_mask_of_the_patient_has_no_place_on_voxels_without_one(tmp_path):
    text = INVEON.replace("pixel_size_y 0.8", "pixel_size_y 0.8\npixel_size_z 0.9")
    grid = open_pet_volume(inveon(tmp_path, text), frame_index=0).grid
    with pytest.raises(InputError, match="does not say how its voxels lie"):
        read_mask(contours(tmp_path / "rt.dcm", {1: boxes()}), grid)


@pytest.mark.realdata
@pytest.mark.skipif(not IBSI.is_dir(), reason="no ../shared beside the checkout")
def test_the_published_sarcoma_has_its_mask_in_nifti():
    volume = open_pet_volume(IBSI / "dicom")
    mask = read_mask(IBSI / "PET_mask.nii.gz", volume.grid)
    assert mask.voxels.sum() == 555
    assert values(volume)[mask.voxels].mean() == pytest.approx(7.3696, abs=5e-5)


# --- other files and planes -----------------------------------------------------------------------
@pytest.mark.parametrize("converted", [False, True])
def test_an_enhanced_file_is_a_volume(tmp_path, converted):
    found = open_pet_volume(saved(tmp_path, enhanced(converted)))
    expected = np.stack([PIXELS * (k + 1.0) * (k + 1) for k in (2, 1, 0)])
    np.testing.assert_array_equal(values(found), expected)
    assert found.grid.spacing_mm == pytest.approx((1.0, 0.4, 0.3))
    assert found.grid.origin_mm == pytest.approx([0, 0, -2])


def test_a_turned_series_has_its_voxels_where_the_file_says(tmp_path):
    angle = np.deg2rad(20)
    across, down = [np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0]
    turned = [round(float(part), 9) for part in (*across, *down)]
    path = pet_series(
        tmp_path / "p", STORED, each=lambda place: {"ImageOrientationPatient": turned}
    )
    grid = open_pet_volume(path).grid
    deep, high, wide = SPACING_MM
    (found,) = grid.positions_mm(np.array([[1, 2, 3]]))
    expected = np.array(ORIGIN_MM) + np.array([0, 0, deep])
    expected = expected + 2 * high * np.array(down) + 3 * wide * np.array(across)
    assert found == pytest.approx(expected)
    assert grid.index(found[None])[0] == pytest.approx([1, 2, 3])


def test_slices_that_are_shifted_sideways_are_refused(tmp_path):
    def tilted(place):
        x, y, z = ORIGIN_MM
        return {"ImagePositionPatient": [x, y + 0.4 * place, z + 3.0 * place]}

    with pytest.raises(InputError, match=r"shifted sideways by 0\.4 mm"):
        open_pet_volume(pet_series(tmp_path / "p", STORED, each=tilted))


def test_contours_beyond_the_edge_are_refused(tmp_path, volume):
    rows, columns = STORED.shape[1:]
    whole = [box((0, 0), (rows, columns), place) for place in (0, 7)]
    assert read_mask(contours(tmp_path / "a.dcm", {1: whole}), volume.grid).voxels.all()
    for wrong in (box((0, 0), (rows + 1, 4), 0), box((-1, 0), (4, 4), 0), box((0, 0), (4, 4), 8)):
        with pytest.raises(InputError, match="reach beyond the PET"):
            read_mask(contours(tmp_path / "b.dcm", {1: [wrong]}), volume.grid)
