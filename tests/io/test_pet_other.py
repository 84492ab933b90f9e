"""PET that is not DICOM: NIfTI with a sidecar or a given unit, Inveon images."""

import gzip
import json
import struct
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from napari_mosaik.core import InputError
from napari_mosaik.io import Case, CaseFile, PetEntry, create_case
from napari_mosaik.io.pet import open_pet, open_pet_slices
from napari_mosaik.io.pet.sidecar import read_sidecar, unit_named

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "pet"
IBSI = SHARED / "ibsi-sts-002"
VALUES = np.arange(24, dtype=np.int16).reshape(2, 3, 4)  # slices, rows, columns


def nifti(path, values=VALUES, *, slope=0.0, intercept=0.0, axes=None, order="<", units=2, mm=1.0):
    """A NIfTI-1 file written by hand; *axes* are the diagonal of its sform."""
    head = bytearray(352)
    struct.pack_into(order + "i", head, 0, 348)
    shape = values.shape[::-1]
    struct.pack_into(order + "8h", head, 40, *(len(shape), *shape, 1, 1, 1, 1)[:8])
    struct.pack_into(order + "hh", head, 70, 4, 16)
    struct.pack_into(order + "8f", head, 76, 1, 0.3 * mm, 0.4 * mm, 0.5 * mm, 1, 1, 1, 1)
    struct.pack_into(order + "3f", head, 108, 352, slope, intercept)
    head[123] = units
    if axes is not None:
        struct.pack_into(order + "h", head, 254, 1)
        rows = np.zeros((3, 4))
        rows[:, :3] = np.diag(axes)
        struct.pack_into(order + "12f", head, 280, *rows.ravel())
    head[344:348] = b"n+1\0"
    data = bytes(head) + values.astype(order + "i2").tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_values_are_scaled_and_lie_as_stored_without_axes(tmp_path):
    path = nifti(tmp_path / "p.nii.gz", slope=2.0, intercept=-1.0)
    with pytest.raises(InputError, match=r"2 slices; choose one with slice_index"):
        open_pet(path)
    image = open_pet(path, slice_index=1, unit="Bq/mL")
    np.testing.assert_array_equal(image.raster.values, VALUES[1] * 2.0 - 1.0)
    assert image.raster.lattice.spacing_um == pytest.approx((400, 300))
    assert (image.header.unit, image.header.unit_given) == ("Bq/mL", True)
    assert any("as stored" in note for note in image.header.notes)
    assert any("no sidecar" in note for note in image.header.notes)


def test_a_slope_of_zero_means_one_and_big_endian_files_are_read(tmp_path):
    image = open_pet(
        nifti(tmp_path / "p.nii", order=">", units=3, mm=1e3), slice_index=0, unit="g/mL"
    )
    np.testing.assert_array_equal(image.raster.values, VALUES[0])
    assert image.raster.lattice.spacing_um == pytest.approx((400, 300))


@pytest.mark.parametrize(
    ("axes", "turned"),
    [
        ((-1, -1, 1), VALUES),  # stored as DICOM lies: left, back, head
        ((1, -1, 1), VALUES[:, :, ::-1]),
        ((-1, 1, 1), VALUES[:, ::-1]),
        ((-1, -1, -1), VALUES[::-1]),
    ],
)
def test_slices_are_shown_as_in_dicom(tmp_path, axes, turned):
    path = nifti(tmp_path / "p.nii", axes=axes)
    found = [image.raster.values for image in open_pet_slices(path, unit="g/mL")]
    np.testing.assert_array_equal(np.stack(found), turned)


SIDECAR = {
    "Units": "kBq/mL",
    "TracerRadionuclide": "Zr89",
    "InjectedRadioactivity": 37.0,
    "InjectedRadioactivityUnits": "MBq",
    "TimeZero": "08:30:00",
    "ScanDate": "2024-03-02",
    "InjectionStart": 0,
    "ScanStart": 1209600,
    "FrameTimesStart": [1209600],
    "FrameDuration": [600],
    "ImageDecayCorrected": True,
    "ImageDecayCorrectionTime": 1209600,
    "BodyWeight": 70,
    "BodyHeight": 1.75,
}


def test_a_side_car_of_pet_bids_is_found_and_understood(tmp_path):
    path = nifti(tmp_path / "p.nii.gz")
    (tmp_path / "p.json").write_text(json.dumps(SIDECAR))
    image = open_pet(path, slice_index=0)
    header = image.header
    np.testing.assert_array_equal(image.raster.values, VALUES[0] * 1e3)
    assert (header.unit, header.unit_given, header.source) == ("Bq/mL", False, "sidecar")
    assert (header.dose_bq, header.weight_kg, header.height_cm) == (37e6, 70, 175)
    assert header.injected == datetime(2024, 3, 2, 8, 30)
    assert header.scanned == datetime(2024, 3, 16, 8, 30)
    assert (header.decay_correction, header.frame_duration_s) == ("START", 600)
    assert header.frame_reference_s == 300
    with pytest.raises(InputError, match="states its values in Bq/mL"):
        open_pet(path, slice_index=0, unit="g/mL")


def test_times_without_a_date_are_no_moments(tmp_path):
    (tmp_path / "p.json").write_text(
        json.dumps({k: SIDECAR[k] for k in SIDECAR if k != "ScanDate"})
    )
    fields, _ = read_sidecar(tmp_path / "p.json")
    assert "injected" not in fields
    assert "scanned" not in fields
    assert "without a date" in fields["notes"][0]


def test_our_own_names_and_wrong_side_cars(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"unit": "SUV", "dose_mbq": 20, "injected": "2024-03-02T08:30"}))
    fields, factor = read_sidecar(path)
    assert (fields["unit"], fields["dose_bq"], factor) == ("g/mL", 20e6, 1.0)
    assert fields["injected"] == datetime(2024, 3, 2, 8, 30)
    for text, said in (
        ("[1]", "no names"),
        ("{", "cannot be read"),
        ('{"dose_mbq": -3}', "dose_mbq"),
        ('{"dose_mbq": "1 mouse"}', "dose_mbq"),
        ('{"ImageDecayCorrected": "perhaps"}', "neither true nor false"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=said):
            read_sidecar(path)
    assert unit_named("cm2/mL") == "cm²/mL"


def test_wrong_nifti_files(tmp_path):
    path = nifti(tmp_path / "p.nii")
    whole = path.read_bytes()
    for content, said in (
        (whole[:-1], "cut off"),
        (b"hello", "not a NIfTI"),
        (whole[:344] + b"ni1\0" + whole[348:], "single-file"),
        (whole[:70] + b"\x80\x00" + whole[72:], "type 128"),
        (whole[:40] + b"\x05\x00" + whole[42:50] + b"\x02\x00" + whole[52:], "5 dimensions"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=said):
            open_pet(path, slice_index=0)
    squeezed = nifti(tmp_path / "q.nii.gz")
    squeezed.write_bytes(squeezed.read_bytes()[:-20])
    with pytest.raises(InputError, match="cut off"):
        open_pet(squeezed)


INVEON = """#
# Header file for data file fake.img
#
file_type 5
modality -1
data_type 4
number_of_dimensions 3
x_dimension 4
y_dimension 3
z_dimension 2
pixel_size 0.0776
pixel_size_x 0.776
pixel_size_y 0.8
total_frames 2
isotope Zr-89
isotope_half_life 282276.0
isotope_branching_fraction 0.2274
calibration_factor 100.0
calibration_units 1
decay_correction_applied 1
attenuation_applied 1
scan_time Sat Mar 16 10:00:00 2024
injection_time Sat Mar  2 08:30:00 2024
dose 1.0
dose_units 1
subject_weight 25
subject_weight_units 1
frame 0
scale_factor 2.0
frame_start 0
frame_duration 600
frame 1
scale_factor 3.0
frame_start 600
frame_duration 600
"""


def inveon(folder, text=INVEON):
    (folder / "fake.img.hdr").write_text(text)
    frames = np.stack([VALUES, VALUES + 100]).astype("<f4")
    (folder / "fake.img").write_bytes(frames.tobytes())
    return folder / "fake.img"


def test_an_inveon_image(tmp_path):
    path = inveon(tmp_path)
    with pytest.raises(InputError, match="2 frames; choose one with frame_index"):
        open_pet(path, slice_index=0)
    image = open_pet(path, slice_index=1, frame_index=1)
    factor = 3.0 * 100 / 0.2274 * 37  # the calibration is in nCi/cc
    np.testing.assert_allclose(image.raster.values, (VALUES[1] + 100) * factor)
    assert image.raster.lattice.spacing_um == (800, 776)
    header = image.header
    assert header.scanned == datetime(2024, 3, 16, 10)
    assert header.injected == datetime(2024, 3, 2, 8, 30)
    assert (header.dose_bq, header.weight_kg) == (37e6, 0.025)
    assert (header.decay_correction, header.corrected) == ("START", ("DECY", "ATTN"))
    assert header.frame_reference_s == 900
    assert any("taken to refer to the start" in note for note in header.notes)
    for given in (tmp_path, tmp_path / "fake.img.hdr"):
        assert open_pet(given, slice_index=0, frame_index=0).header.nuclide == "Zr-89"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("calibration_units 1", "calibration_units 0"), "not calibrated"),
        (("isotope_branching_fraction 0.2274", ""), "branching_fraction"),
        (("data_type 4", "data_type 9"), "data_type 9"),
        (("file_type 5", "file_type 2"), "not a PET image"),
        (("x_dimension 4", "x_dimension 0"), "no image size"),
        (("z_dimension 2", "z_dimension 9"), "cut off"),
        (("frame 0", ""), None),
    ],
)
def test_inveon_headers_that_cannot_be_used(tmp_path, change, said):
    path = inveon(tmp_path, INVEON.replace(*change))
    if said is None:  # the first frame's words then stand for all
        assert open_pet(path, slice_index=0).header.frame_reference_s == 900
        return
    with pytest.raises(InputError, match=said):
        open_pet(
            path, slice_index=1 if "9" not in change[1] or "type" in said else 8, frame_index=1
        )


def test_pixels_without_an_axis_are_in_cm_and_unknown_units_are_not_used(tmp_path):
    text = INVEON.replace("pixel_size_x 0.776\npixel_size_y 0.8\n", "").replace(
        "dose_units 1", "dose_units 0"
    )
    image = open_pet(inveon(tmp_path, text), slice_index=0, frame_index=0)
    assert image.raster.lattice.spacing_um == pytest.approx((776, 776))
    assert image.header.dose_bq is None
    assert len([note for note in image.header.notes if "taken as cm" in note]) == 1
    assert "has no known unit" in image.header.unclear["dose_mbq"]


def test_an_image_without_its_header_and_a_binary_header(tmp_path):
    path = inveon(tmp_path)
    (tmp_path / "fake.img.hdr").write_bytes(bytes(348))
    with pytest.raises(InputError, match="binary"):
        open_pet(path)
    (tmp_path / "fake.img.hdr").unlink()
    with pytest.raises(InputError, match=r"fake\.img\.hdr is missing"):
        open_pet(path)


def test_a_case_knows_the_files_beside_its_pet(tmp_path):
    from napari_mosaik.core.catalogue import PET

    nifti(tmp_path / "p.nii")
    entry = PetEntry(paths=(str(tmp_path / "p.nii"),), slice_index=0, unit="g/mL")
    case = create_case(tmp_path / "c", CaseFile(name="c", pet=entry))
    assert Case(tmp_path / "c").pet().header.unit == "g/mL"
    before = case.digest(PET)
    (tmp_path / "p.json").write_text("{}")
    assert case.digest(PET) != before


@pytest.mark.realdata
@pytest.mark.skipif(not IBSI.is_dir(), reason="no ../shared beside the checkout")
def test_the_published_sarcoma_is_the_same_in_dicom_and_nifti():
    dicom = np.stack([i.raster.values for i in open_pet_slices(IBSI / "dicom")])
    path = IBSI / "PET_image.nii.gz"
    images = open_pet_slices(path, unit="g/mL")
    nifti_values = np.stack([i.raster.values for i in images])
    np.testing.assert_allclose(nifti_values, dicom, atol=5e-6)
    mask = np.stack([i.raster.values for i in open_pet_slices(IBSI / "PET_mask.nii.gz")]) > 0
    assert mask.sum() == 555
    assert dicom[mask].max() == pytest.approx(21.6757, abs=5e-5)
    assert dicom[mask].mean() == pytest.approx(7.3696, abs=5e-5)
