"""PET files as scanners, converters and archives write them."""

import bz2
import gzip
import json
import struct
import tempfile
import tracemalloc
import zipfile
from datetime import datetime

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless, generate_uid

from napari_mosaik.cli import main
from napari_mosaik.core.errors import InputError
from napari_mosaik.io.pet import choose_series, companions, open_pet, open_pet_slices
from napari_mosaik.io.pet.inveon import _moment
from napari_mosaik.workflow.suv import suv_of_files
from tests.io.test_pet import PIXELS, dataset, enhanced, saved
from tests.io.test_pet_other import INVEON, VALUES, inveon, nifti

RNG = np.random.default_rng(7)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"Units": "GML"}, "do not belong together: .* and SUV by body weight in g/mL"),
        ({"PatientWeight": 80}, "by factors from 0.03738 to 0.04272; give the files of one scan"),
    ],
)
def test_slices_of_two_scans_are_refused(tmp_path, second, message):
    saved(tmp_path, dataset(ImagePositionPatient=[0, 0, 0]), "a.dcm")
    saved(tmp_path, dataset(ImagePositionPatient=[0, 0, 2], **second), "b.dcm")
    kind = "bsa" if "Units" in second else "bw"
    with pytest.raises(InputError, match=message):
        suv_of_files([tmp_path], kind, {})


def test_a_projection_beside_the_slices_is_left_out(tmp_path):
    for place in (0, 2):
        saved(tmp_path, dataset(ImagePositionPatient=[0, 0, place]), f"{place}.dcm")
    mip = dataset(ImageType=["DERIVED", "SECONDARY", "MIP"], SeriesInstanceUID="1.2.9")
    saved(tmp_path, mip, "mip.dcm")
    images = open_pet_slices(tmp_path)
    assert len(images) == 2
    assert "1 other files (CT, projections)" in images[0].header.geometry


INVEON_DOUBTS = [
    ("Sat Mar  2 08:30:00 2024", "Sat Mar  2 00:00:00 2024", "give injected .*without a time"),
    ("Sat Mar  2 08:30:00 2024", "Sat Mar 16 10:00:00 2024", "give injected .*both as injection"),
    ("Sat Mar 16 10:00:00 2024", "Sa Mrz 16 10:00:00 2024", "give scanned .*'Sa Mrz 16 10"),
    ("Sat Mar 16 10:00:00 2024", "2024-03-16 10:00:00", "give scanned .*'2024-03-16 10"),
    ("weight_units 1", "weight_units 0", "give weight_kg .*subject_weight 25 has no known unit"),
    ("dose_units 1", "dose_units 0", "give dose_mbq .*dose 1 has no known unit"),
    ("weight 25", "weight 0.025", "2.5e-05 kg is implausible .*give|Give weight_kg in kilog"),
]


@pytest.mark.parametrize(("old", "new", "message"), INVEON_DOUBTS)
def test_terms_of_an_inveon_file_that_are_asked_for(tmp_path, old, new, message):
    path = inveon(tmp_path, INVEON.replace(old, new))
    with pytest.raises(InputError, match=message):
        suv_of_files([path], "bw", {}, frame_index=0)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("fraction 0.2274", "fraction 1.0", "4.41 times too low; check the calibration"),
        ("isotope Zr-89", "isotope 89Zr", ""),
        ("calibration_factor 100.0", "calibration_factor\t100.0", ""),
        ("dose 1.0", "dose 37.0", "1369 MBq is much for 0.025 kg"),
        ("weight_units 1", "weight_units 3", "if it is a mouse of 25 g"),
    ],
)
def test_doubts_about_an_inveon_file(tmp_path, old, new, said):
    path = inveon(tmp_path, INVEON.replace(old, new))
    warnings = suv_of_files([path], "bw", {}, frame_index=0)["warnings"]
    assert any(said in text for text in warnings)
    assert len(warnings) == 1 or said  # one states the reference time of the decay correction


# --- geometry of NIfTI ----------------------------------------------------------------------------
def header(path, **fields):
    """Change fields of a NIfTI header: name=(offset, format, *values)."""
    data = bytearray(path.read_bytes())
    for offset, kind, *values in fields.values():
        struct.pack_into("<" + kind, data, offset, *values)
    path.write_bytes(bytes(data))
    return path


def sform(*columns):
    """The twelve numbers of a sform with these columns."""
    return np.column_stack([*columns, np.zeros(3)]).ravel()


def spacing(path):
    return open_pet(path, slice_index=0, unit="g/mL").raster.lattice.spacing_um


DIAGONAL = sform((-0.8, 0, 0), (0, -0.8, 0), (0, 0, 0.8))
TURN = np.deg2rad(5)
ROTATED = sform(
    (-0.8 * np.cos(TURN), -0.8 * np.sin(TURN), 0), (0.6 * np.sin(TURN), -0.6 * np.cos(TURN), 0),
    (0, 0, 0.8),
)  # fmt: skip


def test_the_sform_counts_where_it_is_alone(tmp_path):
    path = header(nifti(tmp_path / "p.nii"), code=(252, "hh", 0, 1), srow=(280, "12f", *DIAGONAL))
    assert spacing(path) == pytest.approx((800, 800))
    document = suv_of_files([path], "bw", {}, unit="g/mL", slice_index=0)
    assert any("voxel size is that of the file's sform" in text for text in document["assumptions"])


def test_the_sizes_of_a_rotated_sform_are_lengths(tmp_path):
    path = header(nifti(tmp_path / "p.nii"), code=(252, "hh", 0, 1), srow=(280, "12f", *ROTATED))
    assert spacing(path) == pytest.approx((600, 800), rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"code": (252, "hh", 1, 1), "srow": (280, "12f", *DIAGONAL)},
            "0.8 x 0.8 x 0.8 by its sform and 0.3 x 0.4 x 0.5 by its qform",
        ),
        (
            {
                "code": (252, "hh", 1, 1),
                "quatern": (256, "3f", 0, 0, 0),
                "srow": (280, "12f", *sform((-0.3, 0, 0), (0, 0.4, 0), (0, 0, 0.5))),
            },
            "other directions of its axes",
        ),
        (
            {"c": (252, "hh", 0, 1), "s": (280, "12f", *sform((1, 0.5, 0), (0, 1, 0), (0, 0, 1)))},
            "sheared sform",
        ),
        ({"c": (252, "hh", 0, 1), "s": (280, "12f", *[0] * 12)}, "not a valid geometry"),
        ({"offset": (108, "f", 0)}, "begin at byte 0, inside its header"),
        ({"offset": (108, "f", 264)}, "begin at byte 264"),
        ({"offset": (108, "f", float("nan"))}, "begin at byte nan"),
        ({"offset": (108, "f", 1e30)}, "cut off"),
        ({"extension": (348, "B3xii", 1, 32, 0)}, "begin at 384 or later"),
        (
            {"code": (252, "hh", 0, 4), "srow": (280, "12f", *DIAGONAL)},
            "by its sform, which leads to a template, and 0.3 x 0.4 x 0.5 by its pixdim",
        ),
        ({"code": (252, "hh", 1, 0), "q": (256, "3f", 1, 1, 0)}, "not a rotation"),
        ({"code": (252, "hh", 1, 0), "q": (256, "3f", float("nan"), 0, 0)}, "not a rotation"),
        ({"units": (123, "B", 4)}, "unit of length 4, which NIfTI does not know"),
        ({"units": (123, "B", 1)}, "voxels of 400 x 300 mm, which are not plausible"),
        ({"units": (123, "B", 3)}, "which are not plausible"),
        ({"pixdim": (80, "2f", 0, 1)}, "states no pixel size"),
        ({"dim": (40, "8h", 5, 4, 3, 2, 1, 2, 1, 1)}, "5 dimensions"),
        ({"dim": (40, "8h", 0, 4, 3, 2, 1, 1, 1, 1)}, "0 dimensions"),
        ({"dim": (40, "8h", 3, 4, 0, 2, 1, 1, 1, 1)}, "3 dimensions"),
    ],
)
def test_a_geometry_that_contradicts_itself_is_refused(tmp_path, fields, message):
    path = header(nifti(tmp_path / "p.nii"), **fields)
    with pytest.raises(InputError, match=message):
        spacing(path)


def test_bytes_after_the_voxels_are_a_doubt(tmp_path):
    path = header(nifti(tmp_path / "p.nii"), dim=(40, "8h", 3, 4, 3, 1, 1, 1, 1, 1))
    notes = open_pet(path, slice_index=0, unit="g/mL").header.notes
    assert any(note.startswith("24 bytes follow the voxels") for note in notes)


def test_a_gzip_bomb_takes_no_memory(tmp_path):
    path = nifti(tmp_path / "p.nii.gz")
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(1 << 26)))
    tracemalloc.start()
    open_pet(path, slice_index=0, unit="g/mL")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24


@pytest.mark.parametrize(
    "dim", [(5, 4, 3, 2, 1, 1, 1, 1), (4, 4, 3, 2, 0, 0, 0, 0), (7, 4, 3, 2, 1, 1, 1, 1)]
)
def test_dimensions_of_one_are_none(tmp_path, dim):
    path = header(nifti(tmp_path / "p.nii"), dim=(40, "8h", *dim))
    assert open_pet(path, slice_index=1, unit="g/mL").raster.values.tolist() == VALUES[1].tolist()


def test_names_in_capitals_have_their_sidecar(tmp_path):
    path = nifti(tmp_path / "PET.NII.GZ".lower())
    path = path.rename(tmp_path / "PET.NII.GZ")
    (tmp_path / "pet.json").write_text(json.dumps({"Units": "kBq/cc"}))
    assert open_pet(path, slice_index=0).header.unit == "Bq/mL"
    assert companions([path]) == [tmp_path / "pet.json"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_sidecars_in_other_encodings(tmp_path, encoding):
    path = nifti(tmp_path / "p.nii")
    text = json.dumps({"Units": "Bq/mL", "Comment": "Größe µ"}, ensure_ascii=False)
    (tmp_path / "p.json").write_bytes(text.encode(encoding))
    assert open_pet(path, slice_index=0).header.unit == "Bq/mL"


# --- DICOM ----------------------------------------------------------------------------------------
CODECS = {
    "1.2.840.10008.1.2.4.70": lambda a: imagecodecs.ljpeg_encode(a, bitspersample=16),
    "1.2.840.10008.1.2.4.57": lambda a: imagecodecs.ljpeg_encode(a, bitspersample=16),
    "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_encode,
    "1.2.840.10008.1.2.4.90": lambda a: imagecodecs.jpeg2k_encode(a, reversible=True, level=0),
    "1.2.840.10008.1.2.4.201": lambda a: imagecodecs.htj2k_encode(a, reversible=True),
}


@pytest.mark.parametrize("syntax", CODECS)
@pytest.mark.parametrize("signed", [0, 1])
def test_compressed_pixels_are_those_that_were_stored(tmp_path, syntax, signed):
    low, high = (-32768, 32767) if signed else (0, 65535)
    pixels = RNG.integers(low, high, (16, 16)).astype(np.int16 if signed else np.uint16)
    pixels[0, :2] = low, high
    frame = CODECS[syntax](pixels.view(np.uint16))
    ds = dataset(
        Rows=16, Columns=16, PixelRepresentation=signed, RescaleSlope=2, RescaleIntercept=1
    )
    ds.PixelData = encapsulate([bytes(frame)])
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = syntax
    values = open_pet(saved(tmp_path, ds)).raster.values
    np.testing.assert_array_equal(values, pixels.astype(float) * 2 + 1)


@pytest.mark.parametrize("syntax", CODECS)
def test_a_compressed_image_that_is_cut_off_is_refused(tmp_path, syntax):
    pixels = RNG.integers(0, 32767, (64, 64)).astype(np.uint16)
    frame = bytes(CODECS[syntax](pixels))[:-500]
    ds = dataset(Rows=64, Columns=64)
    ds.PixelData = encapsulate([frame + bytes(len(frame) % 2)])
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = syntax
    with pytest.raises(InputError, match="the end of the compressed image is missing"):
        open_pet(saved(tmp_path, ds))


def test_more_bits_than_stated_are_refused_and_losses_are_a_doubt(tmp_path):
    pixels = np.full((16, 16), 5000, np.uint16)
    ds = dataset(Rows=16, Columns=16, BitsStored=12, HighBit=11, PixelRepresentation=0)
    ds.PixelData = encapsulate([bytes(imagecodecs.jpeg2k_encode(pixels, reversible=True, level=0))])
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"
    with pytest.raises(InputError, match="more than 12 bits"):
        open_pet(saved(tmp_path, ds))
    ds.BitsStored, ds.HighBit = 16, 15
    ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", 4
    image = open_pet(saved(tmp_path, ds))
    assert image.raster.values[0, 0] == 5000 * 2.5 - 1
    assert any("compressed with loss (ratio 4" in note for note in image.header.notes)


@pytest.mark.parametrize("syntax", [RLELossless, DeflatedExplicitVRLittleEndian])
def test_rle_and_deflate(tmp_path, syntax):
    plain = dataset()
    expected = open_pet(saved(tmp_path, plain, "plain.dcm")).raster.values
    ds = dataset()
    if syntax == RLELossless:
        ds.compress(syntax)
    else:
        ds.file_meta.TransferSyntaxUID = syntax
    np.testing.assert_array_equal(open_pet(saved(tmp_path, ds, "c.dcm")).raster.values, expected)


def series(folder, **more):
    folder.mkdir(parents=True, exist_ok=True)
    uid = generate_uid()
    for number in range(2):
        ds = dataset(ImagePositionPatient=[0, 0, number * 0.5], RescaleSlope=1 + number, **more)
        ds.SeriesInstanceUID = uid
        saved(folder, ds, f"{more.get('SeriesDescription', 'x')}{number}")
    return folder


def test_the_only_pet_of_an_export_with_ct_is_taken(tmp_path):
    series(tmp_path / "a" / "PT", SeriesDescription="pet")
    series(tmp_path / "a" / "CT", SeriesDescription="ct", Modality="CT")
    (tmp_path / "a" / "notes.txt").write_text("text")
    images = open_pet_slices(tmp_path / "a")
    assert len(images) == 2
    assert "2 other files (CT, projections) are not" in images[0].header.geometry


def test_several_series_are_listed_and_one_is_chosen(tmp_path, capsys):
    series(tmp_path, SeriesDescription="PET AC", CorrectedImage=["ATTN", "DECY"])
    series(tmp_path, SeriesDescription="PET NAC", CorrectedImage=["DECY"])
    with pytest.raises(InputError, match=r"1 = 'PET AC', AC, 2 images; 2 = 'PET NAC', NAC, 2"):
        open_pet_slices(tmp_path)
    assert [path.name for path in choose_series([tmp_path], 2)] == ["PET NAC0", "PET NAC1"]
    with pytest.raises(InputError, match="there is no PET series 3; there are: 1 = "):
        choose_series([tmp_path], 3)
    for arguments, words in (
        (("suv", tmp_path), "choose one with --series, 1 to 2"),
        (("new", tmp_path / "c", "--pet", tmp_path), "choose one with --pet-series"),
        (("suv", tmp_path, "--series", "1", "--slice-index", "9"), "there is no PET slice 9"),
    ):
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        assert end.value.code == 2
        assert words in capsys.readouterr().err


def test_files_without_preamble_or_suffix(tmp_path):
    path = saved(tmp_path, dataset())
    content = path.read_bytes()
    expected = open_pet(path).raster.values
    (tmp_path / "IM0").write_bytes(content[132:])
    np.testing.assert_array_equal(open_pet(tmp_path / "IM0").raster.values, expected)


def test_a_classic_file_of_several_frames_has_slices(tmp_path):
    frames = RNG.integers(0, 99, (3, 4, 5)).astype(np.int16)
    path = saved(tmp_path, dataset(NumberOfFrames=3, PixelData=frames.tobytes(), RescaleSlope=1))
    with pytest.raises(InputError, match="3 slices; choose one with slice_index"):
        open_pet(path)
    image = open_pet(path, slice_index=2)
    np.testing.assert_array_equal(image.raster.values, frames[2] - 1.0)
    assert any("order of the file" in note for note in image.header.notes)


def test_slices_that_are_not_one_stack_are_refused(tmp_path):
    saved(tmp_path, dataset(), "a")
    ds = dataset(ImagePositionPatient=[0, 0, 1], ImageOrientationPatient=[0, 1, 0, 1, 0, 0])
    saved(tmp_path, ds, "b")
    with pytest.raises(InputError, match="different directions"):
        open_pet(tmp_path, slice_index=0)
    saved(tmp_path, dataset(ImagePositionPatient=None), "b")
    with pytest.raises(InputError, match="b states no position of its slice, the others do"):
        open_pet(tmp_path, slice_index=0)
    ds = dataset(RescaleSlope=9)
    saved(tmp_path, ds, "b")
    with pytest.raises(InputError, match="a and b hold different images of the same place"):
        open_pet(tmp_path)
    saved(tmp_path, ds, "a")  # a copy of the same file
    assert open_pet(tmp_path).raster.values[0, 1] == 8
    saved(tmp_path, dataset(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "c")
    with pytest.raises(InputError, match="not a rotation"):
        open_pet(tmp_path / "c")


def test_slices_without_positions_follow_their_instance_numbers(tmp_path):
    for name, number in (("a", 3), ("b", 1), ("c", 2)):
        ds = dataset(ImagePositionPatient=None, InstanceNumber=number, RescaleSlope=number)
        saved(tmp_path, ds, name)
    images = open_pet_slices(tmp_path)
    assert [image.raster.values[0, 1] for image in images] == [0, 1, 2]
    assert any("no positions" in note for note in images[0].header.notes)


def test_an_oblique_or_mirrored_slice_is_shown(tmp_path):
    image = open_pet(saved(tmp_path, dataset(ImageOrientationPatient=[-1, 0, 0, 0, 1, 0])))
    assert "run along (-1, 0, 0, 0, 1, 0)" in image.header.geometry
    assert open_pet(saved(tmp_path, dataset())).header.geometry == ""


def test_the_unit_and_the_slope_come_from_the_same_place(tmp_path):
    """The stored slope gives arbitrary values; the real-world value mapping gives Bq/mL."""
    ds = enhanced(False)
    for group in ds.PerFrameFunctionalGroupsSequence:
        group.PixelValueTransformationSequence[0].RescaleType = "US"
        group.PixelValueTransformationSequence[0].RescaleSlope = 1
    mapping, code = Dataset(), Dataset()
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 7.0, 0.0
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "Bq/ml", "UCUM", "Bq/ml"
    mapping.MeasurementUnitsCodeSequence = [code]
    ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = [mapping]
    image = open_pet(saved(tmp_path, ds), slice_index=2)
    np.testing.assert_array_equal(image.raster.values, PIXELS * 7.0)
    assert image.raster.unit == "Bq/mL"


def test_a_classic_dynamic_file_of_several_frames_is_refused(tmp_path):
    pixels = np.zeros((4, 4, 5), np.int16)
    ds = dataset(NumberOfFrames=4, NumberOfSlices=2, PixelData=pixels.tobytes())
    with pytest.raises(InputError, match="4 frames of 2 slices"):
        open_pet(saved(tmp_path, ds), slice_index=0)


def test_series_are_counted_as_they_were_listed(tmp_path):
    b = series(tmp_path / "b", SeriesDescription="first")
    a = series(tmp_path / "a", SeriesDescription="second")
    with pytest.raises(InputError, match="1 = 'first'"):
        open_pet([b, a], slice_index=0)
    assert choose_series([b, a], 1)[0].parent == b


def test_slices_with_other_pixel_sizes_or_a_gap(tmp_path):
    for number in range(4):
        ds = dataset(ImagePositionPatient=[0, 0, number + (5 if number == 3 else 0)])
        saved(tmp_path, ds, f"{number}.dcm")
    notes = open_pet(tmp_path, slice_index=0).header.notes
    assert any("slices are missing between slice 2 and 3" in note for note in notes)
    saved(tmp_path, dataset(ImagePositionPatient=[0, 0, 9], PixelSpacing=[1, 1]), "5.dcm")
    with pytest.raises(InputError, match="different pixel sizes"):
        open_pet(tmp_path, slice_index=0)


def test_a_header_that_pydicom_cannot_read_is_damaged(tmp_path):
    path = saved(tmp_path, dataset())
    content = path.read_bytes()
    tag = content.index(b"\x10\x00\x30\x10DS")
    path.write_bytes(content[: tag + 4] + b"DQ" + content[tag + 6 :])
    with pytest.raises(InputError, match="the DICOM header is damaged"):
        open_pet(path)


# --- other formats --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("scan.v", b"MATRIX72v" + bytes(600), "an ECAT file: convert it to NIfTI or DICOM"),
        ("scan.hv", b"!INTERFILE :=\n", "an Interfile header"),
        ("scan.nrrd", b"NRRD0004\n", "an NRRD file: save the image as NIfTI"),
        ("scan.mhd", b"ObjectType = Image\n", "a MetaImage"),
        ("scan.mha", b"NDims = 3\n", "a MetaImage"),
        ("scan.mnc", b"\x89HDF\r\n\x1a\n", "an HDF5 file (MINC"),
        ("scan.nii.bz2", bz2.compress(bytes(99)), "compressed by bzip2: unpack it"),
        ("2dseq", b"\x01\x02" * 400, "a Bruker scan: export it as DICOM or NIfTI"),
        ("scan.mat", b"MATLAB 5.0 MAT-file", "a MATLAB file"),
        ("scan.dcm", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        ("scan.nii.gz", b"/annex/objects/MD5E-s1.nii.gz\n", "a git-annex pointer"),
        ("scan.dcm", b"<!DOCTYPE html><html>", "a web page"),
        ("scan.dcm", b"", "empty (0 bytes)"),
        ("scan.tif", b"II*\x00" + bytes(50), "a TIFF picture"),
    ],
)
def test_what_is_not_read_is_named_with_what_to_do(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        open_pet(path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def zipped(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_zipped_series_is_that_of_its_folder(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"  # its own: other test processes unpack in the system's folder
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    unpacked: list[str] = []
    extract = zipfile.ZipFile.open
    monkeypatch.setattr(
        zipfile.ZipFile,
        "open",
        lambda self, *args, **kw: (
            unpacked.extend(p.name for p in scratch.iterdir()) or extract(self, *args, **kw)
        ),
    )
    folder = tmp_path / "series" / "deep"
    folder.mkdir(parents=True)
    for number in range(3):
        one = dataset(InstanceNumber=number + 1, ImagePositionPatient=[0, 0, 2.0 * number])
        one.PixelData = (PIXELS + number).astype("<u2").tobytes()
        saved(folder, one, f"{number}.dcm")
    files = {f"scan/{p.name}": p.read_bytes() for p in sorted(folder.iterdir())}
    files |= {"__MACOSX/scan/._0.dcm": b"junk", "scan/.DS_Store": b"junk", "scan/note.txt": b"note"}
    path = zipped(tmp_path / "series.zip", files)
    for place in range(3):
        there, here = open_pet(folder, slice_index=place), open_pet(path, slice_index=place)
        np.testing.assert_array_equal(here.raster.values, there.raster.values)
        assert here.header == there.header
    assert len(open_pet_slices(path)) == 3
    assert unpacked  # the archive was unpacked there,
    assert not list(scratch.iterdir())  # and nothing of it stays


def test_a_sidecar_in_an_archive_belongs_to_its_image(tmp_path):
    image = nifti(tmp_path / "pet.nii.gz", axes=(-1, -1, 1)).read_bytes()
    path = zipped(tmp_path / "a.zip", {"x/pet.nii.gz": image, "x/pet.json": b'{"Units": "kBq/mL"}'})
    (tmp_path / "pet.json").write_text('{"Units": "kBq/mL"}')
    here = open_pet(path, slice_index=0)
    there = open_pet(tmp_path / "pet.nii.gz", slice_index=0)
    assert here.raster.unit == "Bq/mL"
    np.testing.assert_array_equal(here.raster.values, there.raster.values)


@pytest.mark.parametrize(
    "name", ["../out.dcm", "/tmp/out.dcm", "a/../../out.dcm", "..\\out.dcm", "C:\\out.dcm"]
)
def test_an_archive_writes_nothing_outside_of_its_folder(tmp_path, name):
    path = zipped(tmp_path / "a.zip", {name: b"x"})
    with pytest.raises(InputError, match=r"a\.zip names a file outside of itself"):
        open_pet(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_archives_that_cannot_be_unpacked(tmp_path, monkeypatch):
    path = zipped(tmp_path / "a.zip", {"a.dcm": bytes(5000)})
    whole = path.read_bytes()
    path.write_bytes(whole[:60])
    with pytest.raises(InputError, match="damaged or cut off"):
        open_pet(path)
    locked = bytearray(whole)
    locked[6] |= 1
    locked[whole.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(locked))
    with pytest.raises(InputError, match="protected by a password"):
        open_pet(path)
    path.write_bytes(whole.replace(whole[37:44], b"\xff" * 7, 1))
    with pytest.raises(InputError, match="damaged or cut off"):
        open_pet(path)
    path.write_bytes(whole)
    monkeypatch.setattr("napari_mosaik.io.pet.archive._MAX_BYTES", 4000)
    with pytest.raises(InputError, match="unpacks to 1 files"):
        open_pet(path)


def test_a_zip_and_a_bruker_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "series.zip", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(InputError, match=r"no DICOM, .* file in"):
        open_pet(tmp_path / "series.zip")
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "visu_pars").write_text("##TITLE=x")
    with pytest.raises(InputError, match="a Bruker scan"):
        open_pet(tmp_path / "scan")


def test_a_cut_gzip_is_one_sentence(tmp_path):
    path = nifti(tmp_path / "p.nii.gz")
    path.write_bytes(gzip.compress(bytes(9999))[:-9])
    with pytest.raises(InputError, match=r"p\.nii\.gz is cut off or damaged"):
        open_pet(path)


def test_dates_of_inveon_do_not_depend_on_the_locale(tmp_path, monkeypatch):
    """As where the desktop is German: `strptime` knows only 'Mai' and 'Do'."""
    import _strptime

    german = _strptime.LocaleTime()
    german.a_month = [m.replace("may", "mai").replace("mar", "mär") for m in german.a_month]
    german.a_weekday = ["mo", "di", "mi", "do", "fr", "sa", "so"]
    monkeypatch.setattr(_strptime, "LocaleTime", lambda: german)
    monkeypatch.setattr(_strptime, "_TimeRE_cache", _strptime.TimeRE(german))
    monkeypatch.setattr(_strptime, "_regex_cache", {})
    assert _moment("Thu May 30 14:55:00 2024") == datetime(2024, 5, 30, 14, 55)
    image = open_pet(inveon(tmp_path), slice_index=0, frame_index=0)
    assert image.header.scanned == datetime(2024, 3, 16, 10)


def test_inveon_files_in_capitals_or_with_a_damaged_pointer(tmp_path):
    image = next(path for path in inveon(tmp_path).parent.iterdir() if path.suffix == ".img")
    text = image.with_name(image.name + ".hdr").read_text()
    image.with_name(image.name + ".hdr").rename(tmp_path / "X.IMG.HDR")
    image.rename(tmp_path / "X.img")
    for name in ("X.img", "X.IMG.HDR"):
        assert open_pet(tmp_path / name, slice_index=0, frame_index=0).raster.values.size
    damaged = text.replace("frame_start 0\n", "frame_start 0\ndata_file_pointer x -4\n")
    (tmp_path / "X.IMG.HDR").write_text(damaged)
    with pytest.raises(InputError, match="data_file_pointer 'x -4', which is not a place"):
        open_pet(tmp_path / "X.img", slice_index=0, frame_index=0)


@pytest.mark.parametrize(
    ("content", "words"), [(bytes(348), "a binary header"), (b"!INTERFILE :=\n", "an Interfile")]
)
def test_the_header_of_another_format_beside_an_image_is_named(tmp_path, content, words):
    (tmp_path / "p.hdr").write_bytes(content)
    (tmp_path / "p.img").write_bytes(bytes(99))
    with pytest.raises(InputError, match=words):
        open_pet(tmp_path / "p.img")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("Mon May 13 11:10:00 2024", datetime(2024, 5, 13, 11, 10)),
        ("Sat Mar  2 08:30:00 2024", datetime(2024, 3, 2, 8, 30)),
        ("Mar 2 08:30:00 2024", datetime(2024, 3, 2, 8, 30)),
        ("Sat Foo  2 08:30:00 2024", None),
        ("Fri Feb 30 08:30:00 2024", None),
        ("", None),
    ],
)
def test_dates_of_inveon(text, moment):
    assert _moment(text) == moment


# --- the reported files ---------------------------------------------------------------------------
@pytest.mark.realdata
def test_reported_geometry(field_inputs):
    assert open_pet(
        field_inputs / "H06_pixdim1_sform08.nii.gz", slice_index=0, unit="g/mL"
    ).raster.lattice.spacing_um == pytest.approx((800, 800))
    with pytest.raises(InputError, match="begin at byte 0"):
        open_pet(field_inputs / "H07_vox_offset_0.nii.gz", slice_index=0, unit="g/mL")
    assert open_pet_slices(field_inputs / "H16_five_dimensions_of_one.nii.gz", unit="g/mL")


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "n_slices"),
    [
        ("H08_jpeg_lossless_sv1.dcm", 1),
        ("H09_ct_and_pt", 2),
        ("H10_nested", 2),
        ("H12_kbq_cc/pet.nii.gz", 3),
        ("H13_sidecar_bom/pet.nii.gz", 3),
        ("H15_upper/PET.NII.GZ", 3),
        ("H17_classic_multiframe.dcm", 4),
        ("H18_inveon", 3),
    ],
)
def test_reported_files_are_read(field_inputs, name, n_slices):
    images = open_pet_slices(field_inputs / name)
    assert len(images) == n_slices
    assert images[0].header.scanned is not None
    assert images[0].header.dose_bq


@pytest.mark.realdata
def test_reported_jpeg_lossless_has_its_values(field_inputs):
    ds = pydicom.dcmread(field_inputs / "H08_jpeg_lossless_sv1.dcm")
    values = open_pet(field_inputs / "H08_jpeg_lossless_sv1.dcm").raster.values
    frame = pydicom.encaps.get_frame(ds.PixelData, 0, number_of_frames=1)
    np.testing.assert_array_equal(values, imagecodecs.ljpeg_decode(frame) * 12.5)


@pytest.mark.realdata
def test_a_reported_archive_is_read(field_inputs):
    assert open_pet(field_inputs / "H11_series.zip", slice_index=0).raster.values.size


# --- rules that single slips in the readers would break --------------------------------------
def with_header(path, *changes):
    """The file with other numbers in its header: (place, form, value)."""
    data = bytearray(path.read_bytes())
    for place, form, value in changes:
        struct.pack_into("<" + form, data, place, value)
    path.write_bytes(data)
    return path


QUARTER_TURN = [(252, "h", 1), (256, "f", 0.0), (260, "f", 0.0), (264, "f", 0.0)]


def test_a_quaternion_factor_of_zero_is_one(tmp_path):
    """By the standard pixdim[0] is 1 or -1, and 0 counts as 1; -1 turns the slices over."""
    slices = {}
    for factor in (1.0, 0.0, -1.0):
        path = with_header(nifti(tmp_path / "a.nii"), *QUARTER_TURN, (76, "f", factor))
        slices[factor] = open_pet(path, slice_index=0, unit="Bq/mL").raster.values
    np.testing.assert_array_equal(slices[0.0], slices[1.0])
    assert not np.array_equal(slices[-1.0], slices[1.0])


@pytest.mark.parametrize("intercept", [float("nan"), float("inf")])
def test_an_intercept_that_is_no_number_is_refused(tmp_path, intercept):
    path = with_header(nifti(tmp_path / "a.nii", slope=2.0), (116, "f", intercept))
    with pytest.raises(InputError, match=f"slope of 2 beside an intercept of {intercept}; write"):
        open_pet(path, slice_index=0, unit="Bq/mL")
    path = with_header(nifti(tmp_path / "b.nii", slope=0.0), (116, "f", intercept))
    values = open_pet(path, slice_index=0, unit="Bq/mL").raster.values  # not scaled at all
    np.testing.assert_array_equal(values, VALUES[0])


def test_negative_voxel_sizes_are_sizes(tmp_path):
    path = with_header(nifti(tmp_path / "a.nii"), (80, "f", -0.3), (84, "f", -0.4))
    lattice = open_pet(path, slice_index=0, unit="Bq/mL").raster.lattice
    assert lattice.spacing_um == pytest.approx((400.0, 300.0))


def test_only_the_padding_value_is_padding(tmp_path):
    ds = dataset(PixelPaddingValue=int(np.sort(PIXELS.ravel())[2]))
    values = open_pet(saved(tmp_path, ds)).raster.values
    assert np.isnan(values).sum() == np.count_nonzero(ds.PixelPaddingValue == PIXELS)


def test_an_intercept_of_zero_adds_nothing(tmp_path):
    values = open_pet(saved(tmp_path, dataset(RescaleIntercept="0"))).raster.values
    np.testing.assert_array_equal(values, PIXELS * 2.5)


def test_an_inveon_frame_beyond_four_gigabytes_is_where_its_header_says(tmp_path):
    frame = "frame 0\ndata_file_pointer 1 16\n"
    path = inveon(tmp_path, INVEON.replace("frame 0\n", frame, 1))
    with path.open("r+b") as file:  # a sparse file: it takes no room on the disk
        file.seek((1 << 32) + 16)
        file.write((VALUES + 7).astype("<f4").tobytes())
    far = open_pet(path, slice_index=0, frame_index=0).raster.values
    near = open_pet(inveon(tmp_path), slice_index=0, frame_index=0).raster.values
    np.testing.assert_allclose(far * VALUES[0], near * (VALUES[0] + 7))
