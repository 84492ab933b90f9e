"""Real headers and images with published SUV factors, read as files, to one part in a million."""

import json
from datetime import datetime
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from napari_mosaik.core import InjectionRecord, InputError
from napari_mosaik.io import open_pet
from napari_mosaik.uptake import combine_terms
from napari_mosaik.workflow.suv import suv_of_files
from tests.io.test_pet import dataset, saved

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "pet"
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared beside the checkout"),
]


def as_dicom(tmp_path, name):
    """DICOM files with the items of a header extract; the pixels are made up."""
    folder = tmp_path / name
    folder.mkdir()
    extracts = json.loads((SHARED / "suv-factor-metadata" / f"{name}-instances.json").read_text())
    for number, extract in enumerate(extracts):
        drug = Dataset()
        more = {"PatientSize": None, "PatientWeight": None, "PatientSex": None}
        for key, value in extract.items():
            if key.startswith("Radio"):
                setattr(drug, key, value)
            elif key != "PhilipsPETPrivateGroup":
                more[key] = value
        ds = dataset(
            RadiopharmaceuticalInformationSequence=Sequence([drug]),
            ImagePositionPatient=[0, 0, 2.0 * number],
            **more,
        )
        philips = extract["PhilipsPETPrivateGroup"]
        if philips:
            block = ds.private_block(0x7053, "Philips PET Private Group", create=True)
            block.add_new(0x00, "DS", philips["SUVScaleFactor"].strip())
            block.add_new(0x09, "DS", philips["ActivityConcentrationScaleFactor"].strip())
        saved(folder, ds, f"{number}.dcm")
    return folder


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("SIEMENS", 4.2748316187e-4),
        ("GE_MEDICAL_AND_BQML", 5.3673876818e-4),
        ("PHILIPS_BQML", 7.4637470139e-4),
    ],
)
def test_header_extracts_of_three_makers(tmp_path, name, factor):
    record = suv_of_files([as_dicom(tmp_path, name)], "bw", {})
    assert record["factor"] == pytest.approx(factor, rel=1e-6)
    assert record["n_slices"] == 3
    assert {term["source"] for term in record["terms"]} <= {"header", "assumed", "missing"}
    nuclide = next(term for term in record["terms"] if term["name"] == "nuclide")
    assert (nuclide["value"], nuclide["source"]) == ("F-18", "header")  # by its half-life


def test_a_scan_without_an_injection_date_stops_and_asks():
    image = open_pet(SHARED / "acrin-flt-1.dcm")
    with pytest.raises(InputError, match="14:17:00 without a date"):
        combine_terms(InjectionRecord(), image.header).factor("bw")
    terms = combine_terms(InjectionRecord(injected=datetime(1960, 6, 14, 14, 17)), image.header)
    assert terms.factor("bw") == pytest.approx(5.94248531e-4, rel=1e-6)
    assert terms.warnings == ()
    another = combine_terms(InjectionRecord(injected=datetime(1960, 6, 14, 13, 17)), image.header)
    assert any("14:17:00" in text for text in another.warnings)


def test_a_file_in_suv_is_never_scaled_again():
    files = sorted((SHARED / "ibsi-sts-002" / "dicom").glob("*.dcm"))
    with pytest.raises(InputError, match=r"100.0 MBq in .* 433.344096 MBq in the file, .* are SUV"):
        suv_of_files(files, "bsa", {"dose_mbq": 100.0})
    record = suv_of_files(files, "bsa", {"dose_mbq": 433.0})
    assert (record["factor"], record["kind"], record["unit"]) == (1.0, "bw", "g/mL")
    assert record["maximum"] == pytest.approx(21.6757, abs=5e-5)
    folder = SHARED / "ibsi-sts-002"
    inside = suv_of_files(
        [folder / "PET_image.nii.gz"], "bw", {}, unit="g/mL", mask=folder / "PET_mask.nii.gz"
    )
    assert inside["n_voxels"] == 555
    assert inside["mean"] == pytest.approx(7.3696, abs=5e-5)


def test_a_mouse_injected_after_the_scan_began():
    record = suv_of_files([SHARED / "mouse-inveon-late-slice.dcm"], "bw", {})
    by_hand = 37.9 / (14.689e6 * 2 ** (208 / 6586.2))
    assert record["factor"] == pytest.approx(by_hand, rel=1e-5)
    assert record["dynamic"]
    assert any("before the injection" in text for text in record["assumptions"])
    assert not any(
        "decay factor" in text for text in record["warnings"]
    )  # the file's own factor fits
