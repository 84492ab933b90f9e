"""Terms of the SUV that are missing, contradictory or implausible: asked for, never guessed."""

import json
import math
import re
from datetime import datetime

import numpy as np
import pytest

from napari_mosaik.cli import main
from napari_mosaik.core import InjectionRecord
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.pet_records import HALF_LIFE_H
from napari_mosaik.core.text import typed_number
from napari_mosaik.io import Case, open_pet
from napari_mosaik.workflow.suv import field_problem, suv_of_files
from tests.cli.test_commands import call as told
from tests.io.test_pet import dataset, drug, saved
from tests.io.test_pet_other import nifti

GOOD = {
    "Units": "Bq/mL", "TracerRadionuclide": "Zr89", "InjectedRadioactivity": 36.2,
    "InjectedRadioactivityUnits": "MBq", "TimeZero": "14:55:00", "ScanDate": "2024-05-27",
    "ScanStart": 0, "InjectionStart": -1223100, "FrameTimesStart": [0], "FrameDuration": [600],
    "ImageDecayCorrected": True, "ImageDecayCorrectionTime": 0, "BodyWeight": 69,
    "BodyHeight": 1.66,
}  # fmt: skip
HALF_LIFE_S = 78.41 * 3600
REMAINING = 2.0 ** (-1223100 / HALF_LIFE_S)
BY_WEIGHT = 69000 / (36.2e6 * REMAINING)
INJECTED = datetime(2024, 5, 13, 11, 10)


def factor(tmp_path, change=None, given=None, kind="bw"):
    """The SUV factor of an image whose sidecar is the good one with changes; None removes."""
    sidecar = {k: v for k, v in (GOOD | (change or {})).items() if v is not None}
    path = nifti(tmp_path / "pet.nii.gz", axes=(-1, -1, 1))
    (tmp_path / "pet.json").write_text(json.dumps(sidecar))
    return suv_of_files([path], kind, given or {})["factor"]


def close(value):
    return pytest.approx(value, rel=1e-9)


def test_the_factor_by_hand(tmp_path):
    assert factor(tmp_path) == close(BY_WEIGHT)


ASKED = [
    ({"InjectionStart": 0}, "give injected .* both 0, which converters write"),
    ({"InjectionStart": -1e17}, "-1e\\+17 s after TimeZero cannot be used"),
    ({"InjectedRadioactivityUnits": None}, "give dose_mbq .*36.2 without a unit"),
    ({"InjectedRadioactivityUnits": "R"}, "give dose_mbq .*'R', an unknown unit"),
    ({"InjectedRadioactivity": 0}, "injected activity is missing"),
    ({"InjectedRadioactivity": "36 mice"}, "give dose_mbq .*36 in 'MBq' and 'mice', two units"),
    ({"InjectedRadioactivity": "36 kBq"}, "give dose_mbq .*36 in 'MBq' and 'kBq', two units"),
    ({"InjectedRadioactivity": "14,689"}, "give dose_mbq .*may be 14.689 or 14689"),
    ({"InjectedRadioactivity": "many"}, "give dose_mbq .*'many' is not a number"),
    ({"RadionuclideTotalDose": 40e6}, "give dose_mbq .*states two values of it"),
    ({"dose_mbq": 40}, "give dose_mbq .*states two values of it"),
    ({"PatientWeight": 70}, "give weight_kg .*states two values of it"),
    ({"unit": "kBq/mL"}, "states two units.*give unit"),
    ({"DecayCorrection": "ADMIN"}, "give decay_correction .*states two values of it"),
    ({"DecayCorrection": "NONE"}, "give decay_correction .*states two values of it"),
    ({"DecayCorrection": "START", "ImageDecayCorrectionTime": -86400}, "START .*, and to "),
    ({"nuclide": "F-18"}, "two values of it"),
    ({"ScanStart": None, "InjectionStart": 0}, "give decay_correction"),
    ({"TracerRadionuclide": None, "RadionuclideHalfLife": 109.77}, "in another unit .* F-18"),
    ({"TracerRadionuclide": None, "RadionuclideHalfLife": 78.41}, "in another unit .* Zr-89"),
    ({"TracerRadionuclide": None}, "nuclide is missing; give nuclide"),
    ({"InjectedRadioactivity": -1}, "InjectedRadioactivity -1 is not valid"),
    ({"InjectedRadioactivity": float("nan")}, "InjectedRadioactivity 'nan' is not a number"),
    ({"InjectedRadioactivity": 36200}, "36200 MBq is implausible .* did you mean 36.2 MBq"),
    ({"BodyWeight": 0}, "weight is missing"),
    ({"BodyWeight": 69000}, "69000 kg is implausible .* did you mean 69 kg"),
    ({"BodyWeight": 69, "BodyWeightUnits": "stone"}, "give weight_kg .*'stone', an unknown unit"),
    ({"BodyHeight": 0.1}, "69 kg and a height of 10 cm do not belong together"),
    ({"BodyWeight": 24.5, "Species": "Mus musculus"}, "24.5 kg is not plausible for 'Mus"),
    ({"ImageDecayCorrected": None}, "give decay_correction"),
    *(
        ({"ImageDecayCorrected": False, "FrameDuration": [s]}, f"give .*FrameDuration is {s} s")
        for s in (0, -600)
    ),
    ({"InjectedRadioactivity": 1e-9}, r"\(0.1 to 3000 MBq\); correct dose_mbq"),
    ({"ImageDecayCorrected": "maybe"}, "neither true nor false"),
    ({"ImageDecayCorrectionTime": None}, "give decay_correction"),
    ({"TimeZero": "14:55:00", "ScanDate": None}, "time of injection is missing.*without a date"),
    ({"TimeZero": "noon"}, "TimeZero 'noon' is not a time of day"),
    ({"ScanDate": "27.05.2024"}, "is not a date and time"),
    ({"RadionuclideHalfLife": 6586}, "1.82944 h does not belong to Zr-89"),
    ({"Units": "counts"}, "'counts' cannot be used.*give unit"),
    ({"injected": "2024-05-13"}, "give date and time"),
    ({"injected": 0}, "give date and time"),
    ({"injected": "2024-05-13T11:10:00+02:00"}, "give injected .*states two values of it"),
    *(
        ({"InjectionStart": None, "injected": f"2024-05-13T11:10:00{zone}"}, "zone are mixed")
        for zone in ("+02:00", "Z")
    ),
    ({"InjectionStart": 86400}, "after the start of the scan"),
    *(  # the two times exchanged: no dynamic scan, though the frame is after the injection
        ({"ScanStart": -before, "InjectionStart": 0} | more | frames, message)
        for before, frames, message in (
            (1800, {}, "is after the start of the scan"),
            (3e5, {"FrameDuration": [9, 9]}, "83.3 h after the start of the scan"),
        )
        for more in (
            {"ImageDecayCorrectionTime": -before},
            {"ImageDecayCorrectionTime": 0},
            {"ImageDecayCorrected": False},
        )
    ),
    ({"InjectionStart": -1e9}, "no activity would remain"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), ASKED)
def test_what_is_missing_or_contradictory_is_asked_for(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        factor(tmp_path, change)


SAME = [
    {"InjectedRadioactivityUnits": None, "InjectedRadioactivityUnit": "MBq"},
    {"InjectedRadioactivity": 36200, "InjectedRadioactivityUnits": "kBq"},
    {"InjectedRadioactivity": 36.2e6, "InjectedRadioactivityUnits": "Bq"},
    {"InjectedRadioactivity": "36.2 MBq", "InjectedRadioactivityUnits": None},
    {"InjectedRadioactivity": "36,2 MBq"},
    {"BodyWeight": "69 kg", "PatientWeight": 69.0},
    {"RadionuclideTotalDose": 36.2e6, "PatientSize": 1.66, "nuclide": "Zr-89"},
    {"RadionuclideHalfLife": 78.41 * 60, "RadionuclideHalfLifeUnits": "min"},
    {"InjectedRadioactivity": 36.2e6 / 3.7e7, "InjectedRadioactivityUnits": "mCi"},
    {"BodyWeight": 69000, "BodyWeightUnits": "g"},
    {"BodyWeight": 69000, "BodyWeightUnit": "G"},
    {"BodyWeight": 69 / 0.45359237, "BodyWeightUnits": "lb"},
    {"BodyHeight": 166, "BodyHeightUnits": "cm"},
    {"ImageDecayCorrected": "true"},
    {"ScanStart": [0], "InjectionStart": [-1223100]},
    {"TimeZero": "14:55:00Z"},
    {"TimeZero": "2024-05-27T14:55:00", "ScanDate": None},
    {"Units": "BQML"},
    {"Units": "Bq/cc"},
    {"Units": "Bq / cm³"},
    {"Units": "Bq*mL-1"},
]  # fmt: skip


@pytest.mark.parametrize("change", SAME)
def test_other_spellings_and_units_give_the_same_factor(tmp_path, change):
    assert factor(tmp_path, change) == close(BY_WEIGHT)


def test_false_as_text_is_false(tmp_path):
    """An uncorrected image refers to the start of its frame, and its frame is corrected."""
    x = math.log(2) * 600 / HALF_LIFE_S
    expected = BY_WEIGHT * x / (1 - math.exp(-x))
    for word in (False, "false", "No", 0):
        assert factor(tmp_path, {"ImageDecayCorrected": word}) == pytest.approx(expected, rel=1e-6)


def test_a_corrected_term_derives_everything_again(tmp_path):
    """The zeros of a converter made START look like ADMIN; the typed injection settles it."""
    zeros = {"InjectionStart": 0, "ScanStart": 0, "ImageDecayCorrectionTime": 0}
    assert factor(tmp_path, zeros, {"injected": INJECTED}) == close(BY_WEIGHT)


def test_an_image_corrected_to_another_injection_decays_between_the_two(tmp_path):
    """The scanner corrected to 12:10; the record knows that the injection was at 11:10."""
    change = {"ImageDecayCorrectionTime": -1223100 + 3600, "InjectionStart": -1223100 + 3600}
    expected = 69000 / (36.2e6 * 2 ** (-3600 / HALF_LIFE_S))
    assert factor(tmp_path, change, {"injected": INJECTED}) == close(expected)
    assert factor(tmp_path, change) == close(69000 / 36.2e6)


def test_a_moment_of_the_decay_correction_between_injection_and_scan(tmp_path):
    change = {"ImageDecayCorrectionTime": -3600}
    expected = 69000 / (36.2e6 * 2 ** (-(1223100 - 3600) / HALF_LIFE_S))
    assert factor(tmp_path, change) == close(expected)


def test_a_dynamic_scan_may_start_with_the_injection(tmp_path):
    frames = {"FrameDuration": [60, 60], "FrameTimesStart": [0, 60]}
    assert factor(tmp_path, {"InjectionStart": 0, **frames}) == close(69000 / 36.2e6)


def test_no_combination_of_missing_terms_gives_a_factor(tmp_path):
    """Whatever is removed, the factor is the right one or none."""
    for name in GOOD:
        try:
            assert factor(tmp_path, {name: None}, kind="bsa") == close(
                factor(tmp_path, kind="bsa")
            ), name
        except InputError:
            continue


def test_the_given_half_life_must_belong_to_the_nuclide(tmp_path):
    with pytest.raises(InputError, match="given in seconds"):
        factor(tmp_path, given={"half_life_h": 282276})
    with pytest.raises(InputError, match="does not belong to Zr-89"):
        factor(tmp_path, given={"half_life_h": 110})
    with pytest.raises(InputError, match="is that of Cu-64 in seconds"):
        factor(tmp_path, {"TracerRadionuclide": "X-1"}, {"half_life_h": 12.701 * 3600})
    assert factor(tmp_path, given={"half_life_h": 78.4}) == pytest.approx(BY_WEIGHT, rel=1e-3)


def test_two_times_of_injection_in_a_dicom_file(tmp_path):
    """Two hours are 2 % of Zr-89, a doubt, and a factor of two of F-18, an error."""
    when = {"RadiopharmaceuticalStartTime": "061000"}
    near = saved(tmp_path, dataset(RadiopharmaceuticalInformationSequence=[drug(**when)]))
    document = suv_of_files([near], "bw", {})
    assert any("check both" in text for text in document["warnings"])
    short = drug(RadionuclideHalfLife=6586.2, RadiopharmaceuticalStartDateTime="20240316083000")
    coded = short.RadionuclideCodeSequence[0]
    coded.CodeValue, coded.CodeMeaning = "C-111A1", "^18^Fluorine"
    short.RadiopharmaceuticalStartTime = "063000"
    far = saved(tmp_path, dataset(RadiopharmaceuticalInformationSequence=[short]), "far.dcm")
    with pytest.raises(InputError, match=r"check both .* give injected"):
        suv_of_files([far], "bw", {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"PatientWeight": 0}, "give weight_kg .* 0 kg, which is not plausible"),
        ({"PatientWeight": 20, "PatientSize": 0.1}, "do not belong together"),
        ({"PatientWeight": 20, "PatientSpeciesDescription": "Mus musculus"}, "grams"),
        ({"PatientSize": 175}, "give height_cm .* 175 m, which is not plausible"),
    ],
)
def test_body_of_a_dicom_file(tmp_path, changes, message):
    path = saved(tmp_path, dataset(**changes))
    with pytest.raises(InputError, match=message):
        suv_of_files([path], "bsa", {})


def test_dose_of_a_dicom_file_in_mbq_is_not_used(tmp_path):
    path = saved(
        tmp_path,
        dataset(RadiopharmaceuticalInformationSequence=[drug(RadionuclideTotalDose=37)]),
    )
    with pytest.raises(InputError, match=r"give dose_mbq .* 37 Bq, which is not plausible"):
        suv_of_files([path], "bw", {})


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return end.value.code or 0, captured.out, captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--injected", "2024-05-13"), "--injected '2024-05-13' is not a date and time; give both"),
        (("--residual-mbq", "-1"), "--residual-mbq: -1 MBq is not valid; give 0 or more"),
        (("--dose-mbq", "14689"), "did you mean 14.689 MBq? Correct --dose-mbq"),
        (("--dose-mbq", "14,689"), "'14,689' may be 14.689 or 14689"),
        (("--weight-kg", "24500"), "did you mean 24.5 kg? Give --weight-kg"),
        (("--height-cm", "1.66"), "did you mean 166 cm? Give --height-cm"),
        (
            ("--half-life-h", "282276"),
            "does not belong to Zr-89 (78.41 h) (it is given in seconds)",
        ),
        (("--injected", "2090-05-13T10:00"), "is not plausible: it lies in the future"),
        (("--kind", "lbm"), "give --sex as 'M', 'F' or 'O'"),
    ],
)
def test_the_command_names_its_options(tmp_path, capsys, arguments, message):
    path = nifti(tmp_path / "pet.nii", axes=(-1, -1, 1))
    (tmp_path / "pet.json").write_text(json.dumps(GOOD))
    code, out, error = call(capsys, "suv", path, *arguments)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert message in error


def test_the_command_understands_units_and_decimal_commas(tmp_path, capsys):
    path = nifti(tmp_path / "pet.nii", axes=(-1, -1, 1))
    (tmp_path / "pet.json").write_text(json.dumps(GOOD | {"Units": "counts per hour"}))
    values = []
    for unit, scale in (("Bq/mL", 1), ("kBq/mL", 1e3), ("kBq/cc", 1e3), ("Bq/cc", 1)):
        code, out, _ = call(
            capsys, "suv", path, "--unit", unit, "--dose-mbq", "36,2", "--kind", "bw", "--json"
        )
        assert code == 0
        values.append(json.loads(out)["maximum"] / scale)
    assert values == close([values[0]] * 4)
    assert values[0] == close(BY_WEIGHT * 23)


def test_a_file_that_states_everything_needs_no_injection_record(tmp_path, capsys):
    saved(tmp_path, dataset(), "pet.dcm")
    code, out, _ = call(capsys, "new", tmp_path / "case", "--pet", tmp_path / "pet.dcm")
    assert code == 0
    assert "the PET file states all terms of the SUV" in out
    assert call(capsys, "run", tmp_path / "case", "--step", "suv")[0] == 0
    lacking = saved(tmp_path, dataset(PatientWeight=None), "b.dcm")
    code, out, _ = call(capsys, "new", tmp_path / "other", "--pet", lacking)
    assert "the patient's weight is missing" in out


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("residual_mbq", "-1", "Left in the syringe: -1 MBq is not valid; give 0 or more"),
        ("dose_mbq", "14689", "did you mean 14.689 MBq?"),
        ("dose_mbq", "14,689", "Injected activity: '14,689' may be 14.689 or 14689"),
        ("dose_mbq", "a lot", "Injected activity: 'a lot' is not a number"),
        ("injected", "2024-05-13", "Time of injection: '2024-05-13' is not valid; give date"),
        ("injected", "yesterday", "Time of injection: 'yesterday' is not valid"),
        ("weight_kg", "24500", "did you mean 24.5 kg?"),
        ("half_life_h", "282276", "it is given in seconds"),
        ("sex", "X", "Sex: 'X' is not valid; give 'M', 'F' or 'O'"),
        ("dose_mbq", "36,2", ""),
        ("injected", "2024-05-13 11:10", ""),
        ("weight_kg", "", ""),
    ],
)
def test_a_field_that_is_left_says_what_is_wrong(name, text, problem):
    found = field_problem(name, text)
    assert problem in found
    assert bool(found) == bool(problem)


@pytest.mark.parametrize(
    ("text", "number"), [("0,25", 0.25), ("1,5", 1.5), ("0,250", 0.25), (" 7 ", 7), ("1e3", 1000)]
)
def test_typed_numbers(text, number):
    assert typed_number(text) == number


REPORTED = [
    ("H01_injectionstart_0", {"injected": INJECTED}, 0.0384),
    ("H04_plain_sidecar", {}, 0.0384),
    ("H12_kbq_cc", {}, 0.0384),
    ("H13_sidecar_bom", {}, 0.0384),
    ("H03_weight_in_g_says_so", {}, 0.0384 * 0.0245 / 69),
    ("H02_dose_unit_missing_kbq", {"dose_mbq": 36.2}, 0.0384),
]


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "given", "expected"), REPORTED)
def test_reported_sidecars(field_inputs, name, given, expected):
    document = suv_of_files([field_inputs / name / "pet.nii.gz"], "bw", given)
    assert document["factor"] == pytest.approx(expected, rel=2e-3)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("H01_injectionstart_0", {}, "both 0"),
        ("H02_dose_unit_missing_kbq", {}, "36200 without a unit"),
        ("H04_plain_sidecar", {"half_life_h": 282276}, "given in seconds"),
        ("H14_plain_dcm2niix", {}, "RadiopharmaceuticalStartTime is 111000, a time of day without"),
    ],
)
def test_reported_sidecars_that_are_asked_back(field_inputs, name, given, message):
    with pytest.raises(InputError, match=message):
        suv_of_files([field_inputs / name / "pet.nii.gz"], "bw", given)


@pytest.mark.realdata
def test_a_plain_sidecar_of_dcm2niix_lacks_only_the_dates(field_inputs):
    given = {"injected": INJECTED, "scanned": datetime(2024, 5, 27, 14, 55)}
    path = field_inputs / "H14_plain_dcm2niix" / "pet.nii.gz"
    assert suv_of_files([path], "bw", given)["factor"] == pytest.approx(0.0384, rel=2e-3)


def of_dicom(tmp_path, given=None, medicine=None, **changes):
    item = drug(**(medicine or {}))
    path = saved(tmp_path, dataset(RadiopharmaceuticalInformationSequence=[item], **changes))
    return suv_of_files([path], "bw", given or {})


DICOM_FACTOR = 70e3 / (37e6 * 2 ** (-(14 + 1.5 / 24) * 24 / (282276 / 3600)))


@pytest.mark.parametrize(
    ("medicine", "changes", "message"),
    [
        (
            {"RadiopharmaceuticalStartDateTime": "20240316100000"},
            {},
            "give injected .*both as injection and as scan start",
        ),
        (
            {"RadiopharmaceuticalStartDateTime": "20240302083000+0000"},
            {},
            "give injected .*with a time zone, and the scan without",
        ),
        ({}, {"DecayCorrectionDateTime": "20240302083000"}, "decay correction to START .*, and to"),
        (
            {"RadiopharmaceuticalStartDateTime": "20240316233000"},
            {"DecayCorrection": "ADMIN"},
            "is after the start of the scan",
        ),
        ({"RadionuclideHalfLife": 6586.2}, {}, "does not belong to Zr-89"),
        ({"RadionuclideTotalDose": 0}, {}, "injected activity is missing"),
        ({}, {"SeriesDate": "20240315"}, "start of the series and .* as its first acquisition"),
        ({}, {"RescaleSlope": -2.0}, "no usable rescale slope"),
    ],
)
def test_contradictions_of_a_dicom_file(tmp_path, medicine, changes, message):
    assert of_dicom(tmp_path)["factor"] == pytest.approx(DICOM_FACTOR, rel=1e-4)
    with pytest.raises(InputError, match=message):
        of_dicom(tmp_path, None, medicine, **changes)


@pytest.mark.parametrize(
    ("unit", "scale"),
    [("BQ/ML", 1), ("Bq/cc", 1), ("kBq/mL", 1e3), ("KBQ/CC", 1e3), ("nCi/cc", 37.0)],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_spelled_units_of_a_dicom_file(tmp_path, unit, scale):
    plain, spelled = of_dicom(tmp_path), of_dicom(tmp_path, Units=unit)
    assert spelled["factor"] == plain["factor"]
    assert spelled["maximum"] == pytest.approx(scale * plain["maximum"])


def test_the_other_sex_of_a_dicom_file_is_the_mean_of_both(tmp_path):
    (tmp_path / "a").mkdir()
    factors = []
    for sex in ("M", "F", "O"):
        path = saved(tmp_path / "a", dataset(PatientSex=sex, PatientSize=1.7))
        factors.append(suv_of_files([path], "lbm", {})["factor"])
    assert factors[2] == pytest.approx((factors[0] + factors[1]) / 2)


def test_the_user_settles_what_a_dicom_file_contradicts(tmp_path):
    given = {"injected": datetime(2024, 3, 2, 8, 30)}
    zoned = {"RadiopharmaceuticalStartDateTime": "20240302083000+0000"}
    assert of_dicom(tmp_path, given, zoned)["factor"] == pytest.approx(DICOM_FACTOR, rel=1e-4)
    moment = {"DecayCorrectionDateTime": "20240302083000"}
    document = of_dicom(tmp_path, {"decay_correction": "START"}, **moment)
    assert document["factor"] == pytest.approx(DICOM_FACTOR, rel=1e-4)
    assert any("the injection record is used" in text for text in document["warnings"])


@pytest.mark.parametrize("text", ["2024-W20-1", "20240513", "2024-05-13T", "2024-05-13 11", "now"])
def test_the_command_takes_no_moment_without_its_time_of_day(tmp_path, capsys, text):
    saved(tmp_path, dataset())
    code, out, error = call(capsys, "suv", tmp_path / "p.dcm", "--injected", text)
    assert (code, out) == (2, "")
    assert "is not a date and time; give both" in error


@pytest.mark.realdata
def test_two_reported_times_of_injection(field_inputs):
    document = suv_of_files([field_inputs / "H05_start_times_disagree.dcm"], "bw", {})
    assert any("09:10:00" in text and "check both" in text for text in document["warnings"])


def state_of_suv(capsys, case, *options):
    assert told("status", case, "--json", *options) == 0
    return json.loads(capsys.readouterr().out)[case.name]["steps"]["suv"]


@pytest.mark.parametrize(
    ("change", "given", "reason"),
    [
        ({"BodyWeight": 0}, ["--height-cm", "166"], "weight is missing; give 'Body weight'"),
        ({"BodyHeight": None}, ["--weight-kg", "69"], "height is missing; give 'Height'"),
        ({"InjectedRadioactivity": 0}, ["--weight-kg", "69"], "give 'Injected activity'"),
        ({"InjectionStart": 0}, ["--weight-kg", "69"], "give 'Time of injection'"),
        ({"ImageDecayCorrected": None}, ["--weight-kg", "69"], "give 'Decay correction'"),
        ({"BodyWeight": 0}, [], "no injection record given: .* give 'Body weight'"),
        ({}, [], "no injection record given: the PET file states every term"),
    ],
)
def test_a_missing_term_blocks_the_step_before_it_runs(tmp_path, capsys, change, given, reason):
    """The reason names the term and the place; once it is given, the step can run."""
    sidecar = {k: v for k, v in (GOOD | change).items() if v is not None}
    (tmp_path / "pet.json").write_text(json.dumps(sidecar))
    pet, case = nifti(tmp_path / "pet.nii.gz", axes=(-1, -1, 1)), tmp_path / "B1"
    assert told("new", case, "--pet", pet, "--pet-slice", 0, *given) == 0
    capsys.readouterr()
    if not given:
        Case(case).update(injection=None)
    state = state_of_suv(capsys, case)
    assert state["state"] == "blocked"
    assert re.search(reason, state["reason"])
    assert "page Uptake (PET), or [injection] in case.toml" in state["reason"] or not change
    opened = Case(case)
    opened.update(
        injection=InjectionRecord(
            dose_mbq=36.2, weight_kg=69, height_cm=166, injected=INJECTED, decay_correction="START"
        )
    )
    assert state_of_suv(capsys, case)["state"] == "missing"


def test_a_term_that_goes_blocks_what_was_done_and_what_follows(tmp_path, capsys):
    (tmp_path / "pet.json").write_text(json.dumps(GOOD | {"BodyWeight": 0}))
    pet, case = nifti(tmp_path / "pet.nii.gz", axes=(-1, -1, 1)), tmp_path / "B1"
    assert told("new", case, "--pet", pet, "--pet-slice", 0, "--weight-kg", 69) == 0
    assert told("run", case, "--until", "suv") == 0
    capsys.readouterr()
    assert state_of_suv(capsys, case)["state"] == "done"
    Case(case).update(injection=InjectionRecord(height_cm=166))
    assert state_of_suv(capsys, case)["state"] == "blocked"
    assert told("run", case, "--until", "suv") == 2
    assert "give 'Body weight'" in capsys.readouterr().err


def test_a_pet_of_several_slices_blocks_its_steps_until_one_is_chosen(tmp_path, capsys):
    (tmp_path / "pet.json").write_text(json.dumps(GOOD))
    pet = nifti(tmp_path / "pet.nii.gz", np.ones((4, 5, 3), "<f4"))
    case = tmp_path / "B1"
    assert told("new", case, "--pet", pet, "--pet-slice", "1") == 0
    opened = Case(case)
    opened.update(pet=opened.file.pet.model_copy(update={"slice_index": None}))
    capsys.readouterr()
    assert told("status", case, "--json") == 0
    status = json.loads(capsys.readouterr().out)["B1"]
    assert status["steps"]["suv"]["state"] == "blocked"
    assert "slice" in status["steps"]["suv"]["reason"]
    assert any(text.startswith("microPET slice: ") for text in status["warnings"])


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        ({"BodyWeight": 0.0245, "BodyHeight": None}, r"0\.0245 kg \(height not stated\)"),
        ({"BodyWeight": 0.0245, "BodyHeight": 0.3}, None),  # refused
        ({"BodyWeight": 0.3, "BodyHeight": 0.22}, r"0\.3 kg \(height 22 cm\)"),
        ({"BodyWeight": 69, "BodyHeight": 0.9}, r"69 kg \(height 90 cm\)"),
        ({"BodyWeight": 20, "BodyHeight": 1.66}, r"20 kg \(height 166 cm\)"),
        ({"BodyWeight": 0.0245, "BodyHeight": None, "Species": "Mus musculus"}, ""),
        ({"BodyWeight": 3.4, "BodyHeight": 0.5, "Species": "Homo sapiens"}, ""),
        ({"BodyWeight": 0.9, "BodyHeight": 0.35, "Species": "human"}, r"0\.9 kg"),
        ({"BodyWeight": 160, "BodyHeight": 1.66}, ""),
    ],
)
def test_a_weight_that_no_human_has_is_a_doubt_unless_an_animal_is_stated(
    tmp_path, capsys, change, doubt
):
    sidecar = {k: v for k, v in (GOOD | change).items() if v is not None}
    (tmp_path / "pet.json").write_text(json.dumps(sidecar))
    code = told("suv", nifti(tmp_path / "pet.nii.gz", axes=(-1, -1, 1)), "--kind", "bw", "--json")
    captured = capsys.readouterr()
    assert code == (2 if doubt is None else 0)
    if doubt is not None:
        said = " ".join(json.loads(captured.out)["warnings"])
        assert bool(re.search("is not that of a human", said)) == bool(doubt)
        assert re.search(doubt, said)
        assert ("is not that of a human" in captured.err) == bool(doubt)


def test_the_text_of_the_command_has_three_significant_digits(tmp_path, capsys):
    (tmp_path / "pet.json").write_text(json.dumps(GOOD | {"BodyWeight": 69.123456}))
    pet = nifti(tmp_path / "pet.nii.gz", axes=(-1, -1, 1))
    assert told("suv", pet, "--kind", "bw") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "weight 69.1 kg sidecar" in lines
    assert "injected activity 36.2 MBq sidecar" in lines
    assert "half-life 78.4 h table" in lines
    assert f"factor {69123.456 / (36.2e6 * REMAINING):.3g}" in lines
    assert any("69.1 kg / (36.2 MBq × " in line for line in lines)
    assert told("suv", pet, "--kind", "bw", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["factor"] == close(69123.456 / (36.2e6 * REMAINING))
    assert {t["name"]: t["value"] for t in record["terms"]}["weight_kg"] == 69.123456


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (  # 5 kBq are less than any injection: the number is no Bq
            {"InjectedRadioactivity": None, "RadionuclideTotalDose": 5000},
            "give dose_mbq .*RadionuclideTotalDose is 5000, too little for Bq",
        ),
        (  # 15.8 h of Zr-89 are 15 %
            {"DecayCorrection": "START", "ImageDecayCorrectionTime": -56900},
            r"the SUV differs by 15%",
        ),
    ],
)
def test_limits_of_what_is_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        factor(tmp_path, change)


def test_a_moment_that_changes_the_suv_by_less_than_a_tenth_is_a_doubt(tmp_path):
    change = {"DecayCorrection": "START", "ImageDecayCorrectionTime": -30000}
    sidecar = {k: v for k, v in (GOOD | change).items() if v is not None}
    path = nifti(tmp_path / "pet.nii.gz", axes=(-1, -1, 1))
    (tmp_path / "pet.json").write_text(json.dumps(sidecar))
    assert any("and to " in text for text in suv_of_files([path], "bw", {})["warnings"])


def test_a_clock_on_the_other_side_of_midnight_is_close(tmp_path):
    """23:59:30 and 00:00:10 of the next day are forty seconds apart."""
    ds = dataset()
    info = ds.RadiopharmaceuticalInformationSequence[0]
    info.RadiopharmaceuticalStartDateTime = "20240302000010"
    info.RadiopharmaceuticalStartTime = "235930"
    record = suv_of_files([saved(tmp_path, ds)], "bw", {})
    assert not any("time of day of the injection" in text for text in record["warnings"])


LATE_F18 = {"RadionuclideHalfLife": 6586.2, "RadiopharmaceuticalStartDateTime": "20240315203000"}
CONTRADICTIONS = [  # a day too early; a date whose time of day was removed; two injections
    (LATE_F18 | {"RadiopharmaceuticalStartDateTime": "20240315093000"}, {}, "13.4 half-lives"),
    ({"RadiopharmaceuticalStartDateTime": "20240302000000"}, {}, "give injected .*without a time"),
    ({"RadiopharmaceuticalStartDateTime": "20240302000000.00"}, {}, "give injected .*without a"),
    ({}, {"SeriesTime": "000000", "AcquisitionTime": "000000.000"}, "give scanned .*without a"),
    ({}, {"DecayCorrection": "NONE"}, "not decay-corrected .*DECY .*give decay_correction"),
    (
        {},
        {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"], "DecayFactor": 1.5},
        "decay factor in the file is 1.5, .*NONE give 1; .*give decay_correction",
    ),
    (  # the factor of ADMIN beside the word START
        {},
        {"DecayFactor": 2 ** ((14 * 24 + 1.5 + 1 / 12) / 78.41)},
        "START give 1.0007; check both, and give decay_correction",
    ),
    ({}, {"DecayFactor": 2 ** (1 / 12 / 78.41), "DecayCorrection": "ADMIN"}, "ADMIN give 19"),
    ({}, {"SeriesType": ["WHOLE BODY", "REPROJECTION"]}, "a projection"),
    ({}, {"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, "a projection .*give the slices"),
    ({}, {"Units": "CNTS"}, "without the factor"),
    (  # milliseconds taken twice
        {},
        {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"], "ActualFrameDuration": 600000000},
        r"600000 s \(167 h\) is not plausible",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("medicine", "changes", "message"), CONTRADICTIONS)
def test_more_contradictions_of_a_dicom_file(tmp_path, medicine, changes, message):
    if "RadionuclideHalfLife" in medicine:
        code = drug().RadionuclideCodeSequence
        code[0].CodeValue, code[0].CodeMeaning = "C-111A1", "^18^Fluorine"
        medicine = medicine | {"RadionuclideCodeSequence": code}
    with pytest.raises(InputError, match=message):
        of_dicom(tmp_path, None, medicine, **changes)


def test_two_injections_are_asked_back_and_two_equal_ones_are_one(tmp_path):
    second = drug(RadionuclideTotalDose=74e6)
    both = dataset(RadiopharmaceuticalInformationSequence=[drug(), second])
    with pytest.raises(InputError, match=r"give dose_mbq .*2 injections .*37000000.0 and 7400"):
        suv_of_files([saved(tmp_path, both)], "bw", {})
    same = saved(
        tmp_path, dataset(RadiopharmaceuticalInformationSequence=[drug(), drug()]), "s.dcm"
    )
    assert suv_of_files([same], "bw", {})["factor"] == pytest.approx(DICOM_FACTOR, rel=1e-4)


def test_the_user_settles_the_reference_against_a_decay_factor(tmp_path):
    """The user's word counts, and the doubt stays; a factor of no reference is a doubt."""
    admin = {"DecayFactor": 2 ** ((14 * 24 + 1.5 + 1 / 12) / 78.41)}
    for given, change in (({"decay_correction": "START"}, admin), ({}, {"DecayFactor": 1.2})):
        document = of_dicom(tmp_path, given, **change)
        assert document["factor"] == pytest.approx(DICOM_FACTOR, rel=1e-4)
        assert any("the decay factor in the file is" in text for text in document["warnings"])


@pytest.mark.parametrize(
    ("changes", "fraction"),
    [
        ({"RadiopharmaceuticalStartDateTime": "20240302083000.1234567"}, 0),
        ({"RadiopharmaceuticalStartDateTime": "20240229083000"}, -2),  # a leap day
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_times_of_a_dicom_file(tmp_path, changes, fraction):
    expected = DICOM_FACTOR * 2 ** (-fraction * 24 / 78.41)
    assert of_dicom(tmp_path, None, changes)["factor"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_dates_and_times_as_before_dicom_3(tmp_path):
    old = {"SeriesDate": "2024.03.16", "AcquisitionDate": "2024.03.16"}
    old |= {"SeriesTime": "10:00:00", "AcquisitionTime": "10:00:10"}
    assert of_dicom(tmp_path, **old)["factor"] == pytest.approx(DICOM_FACTOR, rel=1e-4)


@pytest.mark.parametrize(
    ("weight", "dose", "coded", "said"),
    [
        (25, 5e6, "", "if it is a mouse of 25 g"),
        (320, 37e6, "", "if it is a rat of 320 g"),
        (25, 5e6, "Mus musculus", None),  # refused
        (70, 1e6, "", "if it is 1 mCi, the SUV is 37 times too high"),
        (0.025, 5e6, "Mus musculus", ""),
        (12, 5e6, "Homo sapiens", ""),
        (70, 37e6, "", ""),
    ],
)
def test_a_weight_or_dose_in_another_unit_is_a_doubt(tmp_path, capsys, weight, dose, coded, said):
    """Nothing but the amount shows the gramme and the curie; a coded species settles it."""
    ds = dataset(
        RadiopharmaceuticalInformationSequence=[drug(RadionuclideTotalDose=dose)],
        PatientWeight=weight, PatientSize=None, RescaleSlope=25.0,
    )  # fmt: skip
    if coded:
        code = type(ds)()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "SCT", coded
        ds.PatientSpeciesCodeSequence = [code]
    code, out, error = call(capsys, "suv", saved(tmp_path, ds), "--kind", "bw", "--json")
    assert code == (2 if said is None else 0)
    if said is None:
        assert "25 kg is not plausible for 'Mus musculus'" in error
        return
    warnings = " ".join(json.loads(out)["warnings"])
    assert said in warnings
    assert bool(said) == bool(warnings) == bool(error)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dose_mbq": 36.2 / 37}, "seems to be in mCi; correct dose_mbq, did you mean 36.2"),
        ({"dose_mbq": 36200 / 20}, None),
        ({"weight_kg": 69 / 0.45359237}, "seems to be in lb; correct weight_kg, did you mean 69"),
        ({"nuclide": "Mn-52"}, "78.41 h is that of Zr-89, and the nuclide is 'Mn-52'"),
    ],
)
def test_a_typed_value_in_another_unit_than_that_of_the_file(tmp_path, given, message):
    change = {"RadionuclideHalfLife": 78.41 * 3600} if "nuclide" in given else {}
    if message is None:
        assert factor(tmp_path, change, given) > 0
        return
    with pytest.raises(InputError, match=message):
        factor(tmp_path, change, given)


@pytest.mark.parametrize(
    "name",
    ["[89Zr]Zr-DFO-girentuximab", "89Zr", "zirconium-89", "Zr 89", "^89^Zirconium", "89Zr-PSMA-11",
     "PSMA-11 89Zr", "ZR-89"],
)  # fmt: skip
def test_names_of_a_nuclide(tmp_path, name):
    assert factor(tmp_path, {"TracerRadionuclide": name}) == close(BY_WEIGHT)
    assert factor(tmp_path, given={"nuclide": name}) == close(BY_WEIGHT)


@pytest.mark.parametrize("name", ["Y-90 In-111", "Mn-52", "girentuximab"])
def test_what_names_no_known_nuclide_is_asked_for(tmp_path, name):
    with pytest.raises(InputError, match=r"half-life of .* is unknown"):
        factor(tmp_path, {"TracerRadionuclide": name})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"DecayCorrectionFactor": [2 ** (1223400 / HALF_LIFE_S)]}, "START give 1.0007"),
        ({"ImageDecayCorrected": False, "DecayCorrectionFactor": [19.7]}, "NONE give 1;"),
        ({"ImageDecayCorrected": False, "FrameDuration": [6e5]}, "600000 s .* is not plausible"),
        ({"TimeZero": "2024-05-28T14:55:00"}, "'2024-05-27' and TimeZero .* contradict"),
        ({"ScanDate": "2024-05-27T14:54:00"}, "contradict; correct one"),
        ({"ScanDate": "05/27/2024"}, "write them as 2024-05-31 and"),
        ({"BodyWeight": 25, "BodyHeight": None, "Species": "murine"}, "not plausible for 'murine'"),
    ],
)
def test_more_contradictions_of_a_sidecar(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        factor(tmp_path, change)


@pytest.mark.parametrize(
    "change",
    [{"DecayCorrectionFactor": [2 ** (300 / HALF_LIFE_S)]}, {"ScanDate": "2024-05-27T14:55:00"}],
)
def test_a_sidecar_that_states_one_thing_twice(tmp_path, change):
    assert factor(tmp_path, change) == close(BY_WEIGHT)


@pytest.mark.parametrize("more", ['"InjectedRadioactivity": 3.62', '"BodyWeight": 96'])
def test_a_name_that_stands_twice_in_a_sidecar(tmp_path, more):
    path = nifti(tmp_path / "pet.nii.gz", axes=(-1, -1, 1))
    (tmp_path / "pet.json").write_text(f"{json.dumps(GOOD)[:-1]}, {more}}}")
    with pytest.raises(InputError, match=r"stands twice, as .*; omit one"):
        suv_of_files([path], "bw", {})


def test_terms_of_an_image_that_is_suv_already(tmp_path):
    """The scanner's own dose is in its values: another one would have no effect."""
    suv = {"Units": "SUV"}
    assert factor(tmp_path, suv, {"dose_mbq": 36.3}) == 1
    with pytest.raises(InputError, match=r"30.0 MBq .* 36.2 MBq .* SUV .*export the PET as Bq/mL"):
        factor(tmp_path, suv, {"dose_mbq": 30.0})
    document = suv_of_files([tmp_path / "pet.nii.gz"], "bsa", {})
    assert any("SUV by body weight (g/mL); they are not" in text for text in document["warnings"])


@pytest.mark.parametrize(("scale", "said"), [(0, "is 0,"), (1, ""), (32767 / 23 * 100, "not plau")])
def test_a_maximum_that_no_tissue_has_is_a_doubt(tmp_path, scale, said):
    path = nifti(tmp_path / "pet.nii.gz", slope=1e-30 if scale == 0 else scale, axes=(-1, -1, 1))
    (tmp_path / "pet.json").write_text(json.dumps(GOOD))
    warnings = " ".join(suv_of_files([path], "bw", {})["warnings"])
    assert bool(re.search("the largest SUV .*check the unit", warnings)) == bool(said)


def test_a_typed_midnight_and_a_late_scan_are_doubts(tmp_path):
    path = nifti(tmp_path / "pet.nii.gz", axes=(-1, -1, 1))
    (tmp_path / "pet.json").write_text(json.dumps(GOOD))
    given = {"injected": datetime(2024, 5, 13)}
    assert any("midnight exactly" in text for text in suv_of_files([path], "bw", given)["warnings"])
    given = {"injected": datetime(2024, 5, 5, 11)}
    document = suv_of_files([path], "bw", given)
    assert any("22.16 days, 6.78 half-lives after" in text for text in document["warnings"])


@pytest.mark.parametrize(
    ("typed", "number"), [("0,123", 0.123), ("1,5", 1.5), ("-0,25", -0.25), ("12,3456", 12.3456)]
)
def test_a_comma_that_separates_no_thousands_is_a_decimal_comma(typed, number):
    assert typed_number(typed) == number


def test_half_lives_in_other_units():
    """The table against values that are typed as published, in their own units (NNDC)."""
    published = {
        "F-18": 109.77 / 60, "C-11": 20.364 / 60, "N-13": 9.965 / 60, "O-15": 122.24 / 3600,
        "Ga-68": 67.71 / 60, "Cu-64": 12.701, "Sc-44": 4.042, "Y-86": 14.74, "Zr-89": 78.41,
        "I-124": 4.176 * 24, "I-131": 8.025 * 24, "Y-90": 64.05, "In-111": 2.8047 * 24,
        "Lu-177": 6.647 * 24, "Ac-225": 9.92 * 24,
    }  # fmt: skip
    assert set(published) == set(HALF_LIFE_H)
    for nuclide, hours in published.items():
        assert HALF_LIFE_H[nuclide] == pytest.approx(hours, rel=2e-3), nuclide


def test_the_units_of_activity_concentration(tmp_path):
    path = nifti(tmp_path / "pet.nii.gz", axes=(-1, -1, 1))
    factors = {"Bq/mL": 1, "kBq/mL": 1e3, "MBq/mL": 1e6, "nCi/mL": 37, "µCi/mL": 37e3}
    largest = {
        unit: open_pet(path, slice_index=0, unit=unit).raster.values.max() for unit in factors
    }
    for unit, by in factors.items():
        assert largest[unit] == pytest.approx(largest["Bq/mL"] * by), unit
