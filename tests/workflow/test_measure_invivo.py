"""A series is measured into a case: only numbers and a hash are kept, and only of its patient."""

import json
from dataclasses import replace

import numpy as np
import pytest

from napari_mosaik.cli import main
from napari_mosaik.core import InputError
from napari_mosaik.io import create_case
from napari_mosaik.io.case_file import CaseFile
from napari_mosaik.io.invivo import read_invivo
from napari_mosaik.workflow.invivo import (
    SphereOfInterest,
    add_invivo,
    measure_invivo,
    open_series,
    voi_record,
)
from tests.io.test_pet_volume import MASK, STORED, boxes
from tests.pet_series import contours, nifti_volume, pet_series, segmentation

SPHERE = SphereOfInterest((-7.0, 48.75, 120.5), 7.0)


@pytest.fixture
def series(tmp_path):
    return pet_series(tmp_path / "day3", STORED)


def case_of(folder, patient="patient 1", **injection):
    file = CaseFile(name="A2", patient=patient, injection=injection or {"nuclide": "Zr-89"})
    return create_case(folder, file)


@pytest.fixture
def case(tmp_path):
    return case_of(tmp_path / "A2")


def test_masks_of_one_shape_give_one_mean(case, series, tmp_path):
    volume = open_series(case, [series])
    means = [
        measure_invivo(case, volume, path, "tumour", label=label).value.mean
        for path, label in (
            (segmentation(tmp_path / "seg.dcm", MASK), 1),
            (contours(tmp_path / "rt.dcm", {4: boxes()}), None),
            (nifti_volume(tmp_path / "m.nii", MASK), None),
        )
    ]
    assert means[0] == means[1] == means[2]
    assert means[0] == pytest.approx(
        STORED[MASK].mean() * 0.25 * 80_000 / (37e6 * 2 ** (-72.5 / 78.41))
    )


def test_nothing_of_the_identity_is_stored(case, series):
    found = measure_invivo(case, open_series(case, [series]), SPHERE, "Aorta")
    add_invivo(case, [found.value])
    (stored,) = read_invivo(case.root)
    assert stored == found.value
    assert stored.region == "blood"
    assert stored.source.startswith("series:")
    files = [path for path in case.root.rglob("*") if path.is_file()]
    text = "".join(path.read_text("utf-8", errors="replace") for path in files)
    text += json.dumps(voi_record(found), default=str)
    assert "series:" in text
    for secret in ("Doe", "Jane", "Patient-1", "1.2.840.99", "day3"):
        assert secret not in text


def test_another_patient_is_refused_or_confirmed(case, series, tmp_path):
    other = case_of(tmp_path / "B8", patient="patient 2")
    with pytest.raises(InputError, match="is of 'patient 2': confirm with same_patient"):
        open_series(other, [series])
    volume = open_series(other, [series], same_patient=True)
    add_invivo(other, [measure_invivo(other, volume, SPHERE, "tumour").value])
    assert open_series(other, [series]).content() == volume.content()  # known by its hash now

    def stranger(place):
        return {"PatientID": "patient 2"}

    strange = pet_series(tmp_path / "x", STORED, each=stranger)
    with pytest.raises(InputError, match="another hash"):
        open_series(other, [strange])
    # the same table with the hash of another patient, and with one that was confirmed
    values = read_invivo(other.root)
    foreign = replace(values[0], time_h=120.0, source="series:1 patient:0123456789ab")
    with pytest.raises(InputError, match=r"of 2 patients \(hashes 0123456789ab, "):
        add_invivo(other, [foreign])
    volume = open_series(other, [strange], same_patient=True)
    confirmed = measure_invivo(other, volume, SPHERE, "liver").value
    assert confirmed.source.endswith(" confirmed")
    add_invivo(other, [confirmed])
    assert read_invivo(other.root) == (confirmed, *values)
    volume = open_series(other, [strange])  # known from now on
    add_invivo(other, [measure_invivo(other, volume, SPHERE, "blood").value])


def test_a_series_of_another_injection_is_refused(series, tmp_path):
    case = case_of(tmp_path / "A3", injected="2024-03-05T10:30")
    with pytest.raises(InputError, match="another patient, or another injection"):
        open_series(case, [series])


def test_a_series_without_a_name_is_taken_with_a_doubt(case, tmp_path):
    path = nifti_volume(tmp_path / "p.nii", STORED * 0.25)
    facts = {
        "Units": "Bq/mL", "TimeZero": "11:00:00", "ScanDate": "2024-03-07", "ScanStart": 0,
        "InjectionStart": -261000, "FrameDuration": 1200, "FrameTimesStart": 0,
        "InjectedRadioactivity": 37, "InjectedRadioactivityUnits": "MBq", "BodyWeight": 80,
        "BodyWeightUnits": "kg", "ImageDecayCorrected": True, "ImageDecayCorrectionTime": 0,
    }  # fmt: skip
    (tmp_path / "p.json").write_text(json.dumps(facts), "utf-8")
    found = measure_invivo(case, open_series(case, [path]), SPHERE, "tumour")
    dicom = pet_series(tmp_path / "day3", STORED)
    same = measure_invivo(case, open_series(case, [dicom]), SPHERE, "tumour")
    assert found.value.mean == pytest.approx(same.value.mean, rel=1e-6)
    assert found.value.time_h == pytest.approx(same.value.time_h)
    assert any("names no patient" in text for text in found.warnings)
    assert "patient" not in found.value.source


def test_small_voxels_need_the_resolution_of_their_scanner(tmp_path, case):
    path = nifti_volume(tmp_path / "p.nii", STORED * 0.25, spacing_mm=(0.8, 0.8, 0.8))
    volume = open_series(case, [path], unit="g/mL")
    sphere = SphereOfInterest((-15.0, 39.0, 113.0), 2.0)
    with pytest.raises(InputError, match=r"voxels of 0\.8 mm .* give fwhm_mm"):
        measure_invivo(case, volume, sphere, "tumour")
    with pytest.raises(InputError, match="give injected"):  # the resolution is given
        measure_invivo(case, volume, sphere, "tumour", fwhm_mm=1.5)


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", ""])
def test_a_sphere_has_four_numbers(text):
    with pytest.raises(InputError, match="x,y,z,radius"):
        SphereOfInterest.typed(text)


def test_the_command_line_measures_and_stores_if_asked(case, series, tmp_path, capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            main(["invivo", "measure", str(case.root), *map(str, arguments)])
        return end.value.code or 0

    sphere = ["--region", "tumour", "--sphere", "-7,48.75,120.5,7"]
    assert call(series, *sphere) == 0
    assert "not stored" in capsys.readouterr().out
    assert read_invivo(case.root) == ()
    assert call(series, *sphere, "--store", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    (stored,) = read_invivo(case.root)
    assert document["value"]["mean"] == stored.mean
    assert document["recovery_applied"] is False
    assert 0 < document["recovery_mean"] < document["recovery_centre"] < 1
    assert call(series, *sphere, "--store") == 2
    assert "two values of tumour" in capsys.readouterr().err
    assert call(series, "--region", "tumour") == 2
    assert "--sphere X,Y,Z,R and --mask" in capsys.readouterr().err
    seg = segmentation(tmp_path / "seg.dcm", MASK)
    assert call(series, "--region", "liver", "--mask", seg) == 2
    assert "give --label: 1 part 1" in capsys.readouterr().err
    other = pet_series(
        tmp_path / "two" / "nac", STORED, each=lambda n: {"SeriesInstanceUID": "1.7"}
    )
    pet_series(tmp_path / "two" / "ac", STORED)
    assert call(other.parent, *sphere) == 2
    assert "2 series; choose one with --series, 1 to 2" in capsys.readouterr().err
    assert call(other.parent, *sphere, "--series", "2") == 0
    far = ["--region", "tumour", "--sphere", "900,0,0,7"]
    assert call(series, *far) == 2
    assert "beyond the PET" in capsys.readouterr().err


def test_the_order_of_voxels_does_not_matter(case, tmp_path):
    first = open_series(case, [pet_series(tmp_path / "p", STORED)])
    again = open_series(case, sorted((tmp_path / "p").iterdir(), reverse=True))
    found = [measure_invivo(case, one, SPHERE, "tumour").value for one in (first, again)]
    assert found[0] == found[1]
    assert np.isfinite(found[0].mean)
