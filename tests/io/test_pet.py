from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from napari_mosaik.core import InputError
from napari_mosaik.io.pet import open_pet

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "pet"
real = pytest.mark.realdata
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared beside the checkout")
PIXELS = np.arange(20, dtype=np.int16).reshape(4, 5)


def drug(**more):
    item = Dataset()
    item.RadionuclideTotalDose = 37e6
    item.RadionuclideHalfLife = 282276
    item.RadiopharmaceuticalStartDateTime = "20240302083000"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = (
        "C-168A4",
        "SRT",
        "^89^Zirconium",
    )
    item.RadionuclideCodeSequence = Sequence([code])
    for name, value in more.items():
        setattr(item, name, value)
    return item


def dataset(**more):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.128"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.SeriesInstanceUID, ds.Modality = "1.2.3", "PT"
    ds.PatientName, ds.PatientID = "Doe^Jane", "secret-17"
    ds.PatientWeight, ds.PatientSize, ds.PatientSex = 70, 1.75, "F"
    ds.SeriesDate, ds.SeriesTime = "20240316", "100000"
    ds.AcquisitionDate, ds.AcquisitionTime = "20240316", "100010.5"
    ds.Units, ds.DecayCorrection = "BQML", "START"
    ds.CorrectedImage = ["ATTN", "DECY"]
    ds.ActualFrameDuration, ds.FrameReferenceTime = 600000, 300000.0
    ds.RadiopharmaceuticalInformationSequence = Sequence([drug()])
    ds.PixelSpacing, ds.RescaleSlope, ds.RescaleIntercept = [0.4, 0.3], 2.5, -1
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    ds.Rows, ds.Columns = PIXELS.shape
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation, ds.SamplesPerPixel = 15, 1, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.PixelData = PIXELS.tobytes()
    for name, value in more.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    return ds


def saved(tmp_path, ds, name="p.dcm"):
    path = tmp_path / name
    ds.save_as(path, enforce_file_format=True)
    return path


def test_values_spacing_and_header(tmp_path):
    image = open_pet(saved(tmp_path, dataset()))
    np.testing.assert_array_equal(image.raster.values, PIXELS * 2.5 - 1)
    assert image.raster.lattice.spacing_um == (400.0, 300.0)
    assert image.raster.unit == image.header.unit == "Bq/mL"
    header = image.header
    assert header.scanned == datetime(2024, 3, 16, 10)
    assert header.injected == datetime(2024, 3, 2, 8, 30)
    assert (header.dose_bq, header.half_life_s, header.nuclide) == (37e6, 282276, "Zr-89")
    assert (header.weight_kg, header.height_cm, header.sex) == (70, 175, "F")
    assert (header.frame_duration_s, header.frame_reference_s) == (600, 300)
    assert header.decay_correction == "START"
    assert header.corrected == ("ATTN", "DECY")
    assert header.notes == ()


def test_no_name_is_kept(tmp_path):
    text = open_pet(saved(tmp_path, dataset())).header.model_dump_json()
    assert "Doe" not in text
    assert "secret" not in text


def test_injection_time_without_date_is_not_dated(tmp_path):
    item = drug(RadiopharmaceuticalStartTime="083000")
    del item.RadiopharmaceuticalStartDateTime
    ds = dataset(RadiopharmaceuticalInformationSequence=Sequence([item]))
    header = open_pet(saved(tmp_path, ds)).header
    assert header.injected is None
    assert any("without a date" in note for note in header.notes)


def test_zones_are_all_or_none(tmp_path):
    zoned = drug(RadiopharmaceuticalStartDateTime="20240302083000+0000")
    with_zone = dataset(
        RadiopharmaceuticalInformationSequence=Sequence([zoned]), TimezoneOffsetFromUTC="+0100"
    )
    header = open_pet(saved(tmp_path, with_zone)).header
    zone = timezone(timedelta(hours=1))
    assert header.scanned == datetime(2024, 3, 16, 10, tzinfo=zone)
    assert header.injected == datetime(2024, 3, 2, 9, 30, tzinfo=zone)
    without = dataset(RadiopharmaceuticalInformationSequence=Sequence([zoned]))
    header = open_pet(saved(tmp_path, without, "q.dcm")).header
    assert header.injected is None
    assert "with a time zone, and the scan without" in header.unclear["injected"]


def series(tmp_path, count=3, **more):
    for i in range(count):
        ds = dataset(
            ImagePositionPatient=[0, 0, 2.0 * i],
            RescaleSlope=1.0 + i,
            RescaleIntercept=0,
            AcquisitionTime=f"10{5 - i:02}00",
            **more,
        )
        saved(tmp_path, ds, f"{count - i}.dcm")
    return tmp_path


def test_series_needs_a_choice_and_uses_each_slope(tmp_path):
    folder = series(tmp_path)
    (tmp_path / "notes.txt").write_text("not a scan")
    with pytest.raises(InputError, match="3 slices; choose one with slice_index, 0 to 2"):
        open_pet(folder)
    for i in range(3):
        values = open_pet(folder, slice_index=i).raster.values
        np.testing.assert_array_equal(values, PIXELS * (1.0 + i))
    with pytest.raises(InputError, match="no PET slice 3"):
        open_pet(folder, slice_index=3)


def test_late_series_time_falls_back_to_the_earliest_acquisition(tmp_path):
    folder = series(tmp_path, SeriesTime="150000")
    header = open_pet(folder, slice_index=0).header  # this slice itself was acquired last
    assert header.scanned == datetime(2024, 3, 16, 10, 3)
    assert any("earliest acquisition" in note for note in header.notes)


def test_late_series_time_prefers_ges_own_item(tmp_path):
    ds = dataset(SeriesTime="150000")
    ds.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20240316095500")
    assert open_pet(saved(tmp_path, ds)).header.scanned == datetime(2024, 3, 16, 9, 55)


def test_time_frames_need_a_choice(tmp_path):
    for i in range(2):
        saved(
            tmp_path, dataset(FrameReferenceTime=1000.0 * (2 - i), RescaleSlope=1 + i), f"{i}.dcm"
        )
    with pytest.raises(InputError, match="2 frames; choose one with frame_index"):
        open_pet(tmp_path)
    assert open_pet(tmp_path, frame_index=0).raster.values.max() == 19 * 2 - 1


def test_two_series_are_refused(tmp_path):
    saved(tmp_path, dataset(), "a.dcm")
    saved(tmp_path, dataset(SeriesInstanceUID="1.2.4"), "b.dcm")
    with pytest.raises(InputError, match="2 series"):
        open_pet(tmp_path)


@pytest.mark.parametrize(
    ("more", "unit", "kind"),
    [
        ({"Units": "GML"}, "g/mL", "bw"),
        ({"Units": "GML", "SUVType": "LBMJANMA"}, "g/mL", "lbm"),
        ({"Units": "CM2ML"}, "cm²/mL", "bsa"),
    ],
)
def test_files_that_hold_suv(tmp_path, more, unit, kind):
    image = open_pet(saved(tmp_path, dataset(**more)))
    assert (image.raster.unit, image.header.suv_kind) == (unit, kind)
    np.testing.assert_array_equal(image.raster.values, PIXELS * 2.5 - 1)


@pytest.mark.parametrize(
    "more",
    [{"Units": "PROPCNTS"}, {"Units": None}, {"Units": "CNTS"}, {"Units": "GML", "SUVType": "IBW"}],
)
def test_unusable_units(tmp_path, more):
    with pytest.raises(InputError, match="Bq/mL"):
        open_pet(saved(tmp_path, dataset(**more)))


@pytest.mark.parametrize(
    ("factors", "unit", "factor"),
    [({0x00: 0.01, 0x09: 3.0}, "g/mL", 0.01), ({0x00: 0.0, 0x09: 3.0}, "Bq/mL", 3.0)],
)
def test_philips_counts(tmp_path, factors, unit, factor):
    ds = dataset(Units="CNTS")
    # another maker's block first: the item's number depends on where the creator stands
    ds.private_block(0x7053, "Somebody else", create=True).add_new(0x00, "DS", "99")
    block = ds.private_block(0x7053, "Philips PET Private Group", create=True)
    for element, value in factors.items():
        block.add_new(element, "DS", str(value))
    image = open_pet(saved(tmp_path, ds))
    assert image.raster.unit == unit
    np.testing.assert_allclose(image.raster.values, (PIXELS * 2.5 - 1) * factor)


def test_padding_is_no_data(tmp_path):
    values = open_pet(saved(tmp_path, dataset(PixelPaddingValue=7))).raster.values
    assert np.isnan(values[1, 2])
    assert np.isnan(values).sum() == 1


def enhanced(converted):
    ds = dataset(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.130", Units=None, RescaleSlope=None,
        RescaleIntercept=None, PixelSpacing=None, ImagePositionPatient=None,
        ImageOrientationPatient=None, FrameReferenceTime=None, ActualFrameDuration=None,
        DecayCorrection=None, CorrectedImage=None, AcquisitionDate=None, AcquisitionTime=None,
    )  # fmt: skip
    ds.NumberOfFrames = 3
    ds.PixelData = np.stack([PIXELS, PIXELS * 2, PIXELS * 3]).tobytes()
    ds.DecayCorrected, ds.AttenuationCorrected = "YES", "YES"
    ds.DecayCorrectionDateTime = "20240316100000"
    shared, measure, turn = Dataset(), Dataset(), Dataset()
    measure.PixelSpacing, turn.ImageOrientationPatient = [0.4, 0.3], [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence = Sequence([measure])
    shared.PlaneOrientationSequence = Sequence([turn])
    if converted:
        item = Dataset()
        item.Units = "BQML"
        shared.UnassignedSharedConvertedAttributesSequence = Sequence([item])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    ds.PerFrameFunctionalGroupsSequence = Sequence([])
    for i in range(3):
        group, place, rescale, content = Dataset(), Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, -1.0 * i]
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1.0 + i, 0, "US"
        if not converted:
            rescale.RescaleType = "BQML"
        content.FrameAcquisitionDateTime = "20240316100001"
        content.FrameReferenceDateTime = "20240316100500"
        content.FrameAcquisitionDuration = 600000.0
        group.PlanePositionSequence = Sequence([place])
        group.PixelValueTransformationSequence = Sequence([rescale])
        group.FrameContentSequence = Sequence([content])
        ds.PerFrameFunctionalGroupsSequence.append(group)
    return ds


@pytest.mark.parametrize("converted", [False, True])
def test_enhanced_files(tmp_path, converted):
    path = saved(tmp_path, enhanced(converted))
    with pytest.raises(InputError, match="3 slices"):
        open_pet(path)
    image = open_pet(path, slice_index=0)  # positions fall: the last frame lies lowest
    np.testing.assert_array_equal(image.raster.values, PIXELS * 3 * 3.0)
    header = image.header
    assert header.scanned == datetime(2024, 3, 16, 10)
    assert (header.decay_correction, set(header.corrected)) == ("START", {"DECY", "ATTN"})
    assert (header.frame_duration_s, header.frame_reference_s) == (600, 300)
    assert image.raster.lattice.spacing_um == (400.0, 300.0)


def test_files_that_are_no_pet(tmp_path):
    with pytest.raises(InputError, match="modality is CT"):
        open_pet(saved(tmp_path, dataset(Modality="CT")))
    text = tmp_path / "t.dcm"
    text.write_text("hello")
    with pytest.raises(InputError, match="neither DICOM"):
        open_pet(text)
    with pytest.raises(InputError, match="no PET file"):
        open_pet(tmp_path / "absent.dcm")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no DICOM, NIfTI or Inveon file"):
        open_pet(tmp_path / "empty")
    path = saved(tmp_path, dataset())
    whole = path.read_bytes()
    for keep in (len(whole) - 11, len(whole) // 2, 200, 140):
        path.write_bytes(whole[:keep])
        with pytest.raises(InputError, match=r"p\.dcm"):
            open_pet(path)


def test_implausible_body_is_not_used(tmp_path):
    header = open_pet(saved(tmp_path, dataset(PatientSize=175, PatientWeight=70000))).header
    assert header.weight_kg is None
    assert header.height_cm is None
    assert set(header.unclear) == {"weight_kg", "height_cm"}


@real
@needs_shared
def test_real_human_scan_gives_the_published_suv():
    image = open_pet(SHARED / "acrin-flt-1.dcm")
    assert image.raster.values.max() * 5.94248531e-4 == pytest.approx(7.19433, abs=1e-5)
    assert image.header.injected is None
    assert image.header.nuclide == "F-18"


@real
@needs_shared
def test_real_mouse_scan():
    header = open_pet(SHARED / "mouse-inveon-late-slice.dcm").header
    assert header.scanned is not None
    assert header.injected is not None
    assert (header.injected - header.scanned).total_seconds() == 208
    stated = float(
        pydicom.dcmread(SHARED / "mouse-inveon-late-slice.dcm", stop_before_pixels=True).DecayFactor
    )
    assert header.half_life_s is not None
    assert header.frame_reference_s is not None
    assert 2 ** (header.frame_reference_s / header.half_life_s) == pytest.approx(stated, rel=2e-3)


@real
@needs_shared
def test_real_series_in_suv():
    folder = SHARED / "ibsi-sts-002" / "dicom"
    image = [open_pet(folder, slice_index=i) for i in (0, 47)]
    assert all(i.header.suv_kind == "bw" and i.raster.unit == "g/mL" for i in image)
    largest = max(
        float(open_pet(path).raster.values.max()) for path in sorted(folder.glob("*.dcm"))
    )
    assert largest == pytest.approx(21.6757, abs=5e-4)


def test_a_weight_of_zero_is_not_used_and_the_slice_may_lie_obliquely(tmp_path):
    turn = [0.8, 0.6, 0, 0, 0, -1]
    for i in range(2):
        place = [5.0 - 0.6 * 3 * i, 1.0 + 0.8 * 3 * i, 2.0]
        ds = dataset(
            PatientWeight=0, ImageOrientationPatient=turn, ImagePositionPatient=place,
            RescaleSlope=1 + i,
        )  # fmt: skip
        saved(tmp_path, ds, f"{i}.dcm")
    found = [open_pet(tmp_path, slice_index=i) for i in range(2)]
    assert found[0].raster.values.max() < found[1].raster.values.max()  # along the normal
    assert found[0].header.weight_kg is None
    assert "0 kg" in found[0].header.unclear["weight_kg"]
    assert found[0].raster.lattice.spacing_um == (400.0, 300.0)
