"""Values in vivo that are typed or imported, each conversion against a formula by hand."""

import json
import math

import pytest

from napari_mosaik.cli import main
from napari_mosaik.core import InputError
from napari_mosaik.io import create_case
from napari_mosaik.io.case_file import CaseFile
from napari_mosaik.io.invivo import read_invivo
from napari_mosaik.workflow.invivo import add_invivo, import_invivo, typed_value

HALF_LIFE_H = 78.41
WEIGHT_KG, NET_BQ = 82.0, 37.1e6


@pytest.fixture
def case(tmp_path):
    injection = {
        "nuclide": "Zr-89", "dose_mbq": 37.6, "residual_mbq": 0.5, "injected": "2024-03-04T10:30",
        "weight_kg": WEIGHT_KG, "height_cm": 178.0, "sex": "M",
    }  # fmt: skip
    file = CaseFile(name="A2", patient="patient 1", injection=injection)
    return create_case(tmp_path / "A2", file)


def table(tmp_path, text, name="tac.tsv"):
    (tmp_path / name).write_text(text, "utf-8")
    return tmp_path / name


def test_typed_values_are_added_and_the_same_scan_is_refused(case):
    one = {"time_h": 72.0, "region": "Tumor", "mean": 8.0, "sd": 0.4, "unit": "SUVbw"}
    add_invivo(case, [typed_value(one)])
    (found,) = read_invivo(case.root)
    assert (found.region, found.source, found.decay_reference) == ("tumour", "typed", "injection")
    with pytest.raises(InputError, match="two values of tumour at 72 h"):
        add_invivo(case, [typed_value(one)])
    add_invivo(case, [typed_value({**one, "region": "blood", "mean": 3.0})])
    again = typed_value({**one, "time_h": 72.005, "mean": 9.0})  # as another program rounds it
    add_invivo(case, [again], replace_same=True)
    assert [one.mean for one in read_invivo(case.root)] == [3.0, 9.0]
    with pytest.raises(InputError, match="decay_reference is missing"):
        typed_value({**one, "unit": "kBq/mL"})


def test_activity_at_the_start_of_the_scan_becomes_suv_at_injection(case, tmp_path):
    text = "time_d\tregion\tmean\tsd\tvoxel_sd\n3\ttumour\t1.5\t0.06\t0.3\n"
    path = table(tmp_path, text + "5\taorta\t0.8\t0.05\tn/a\n")
    change = import_invivo(case, path, unit="kBq/mL", decay_reference="scan")
    early, late = change.values
    grams = WEIGHT_KG * 1000
    expected = 1500 * 2 ** (72 / HALF_LIFE_H) * grams / NET_BQ
    assert early.mean == pytest.approx(expected, rel=1e-12)
    assert early.sd == pytest.approx(expected * 0.04, rel=1e-12)
    assert early.voxel_sd == pytest.approx(expected * 0.2, rel=1e-12)
    assert late.voxel_sd is None
    assert late.mean == pytest.approx(800 * 2 ** (120 / HALF_LIFE_H) * grams / NET_BQ, rel=1e-12)
    assert (late.region, late.time_h, late.unit) == ("blood", 120.0, "SUVbw")
    assert early.source.startswith("file:")
    words = " ".join(change.conversions)
    assert "time_d x 24 = time_h" in words
    assert "sd is taken as the standard error of the mean" in words
    assert "2^(h / 78.41 h)" in words
    assert "kBq" in words or "Bq/mL at injection" in words


def test_the_table_of_another_program_may_have_semicolons_and_commas(case, tmp_path):
    path = table(
        tmp_path,
        "time_min;region;mean;sd;unit;decay_reference;note\n"
        "4320;liver;3,5;0,2;SUVlbm;injection;x\n",
        "tac.csv",
    )
    change = import_invivo(case, path)
    bmi = 82 / 1.78**2
    lean = 9270 * 82 / (6680 + 216 * bmi)
    (found,) = change.values
    assert found.mean == pytest.approx(3.5 * 82 / lean, rel=1e-12)
    assert found.time_h == pytest.approx(72.0)
    assert change.warnings == ("columns that are not used: note",)


def sidecar(tmp_path, **changes):
    facts = {
        "TimeZero": "10:30:00", "ScanDate": "2024-03-04", "InjectionStart": 0,
        "ScanStart": 259200, "InjectedRadioactivity": 37.1, "InjectedRadioactivityUnits": "MBq",
        "TracerRadionuclide": "Zr89", "BodyWeight": 82, "BodyWeightUnits": "kg", "Units": "Bq/mL",
        "ImageDecayCorrected": True, "ImageDecayCorrectionTime": 259200,
    }  # fmt: skip
    (tmp_path / "tac.json").write_text(json.dumps({**facts, **changes}), "utf-8")


TACS = "frame_start\tframe_end\ttumour\tkidney\n259200\t260400\t1500\t700\n"


def test_a_table_of_pet_bids_uses_its_sidecar(case, tmp_path):
    sidecar(tmp_path)
    change = import_invivo(case, table(tmp_path, TACS), relative_error=0.05)
    kidney, tumour = change.values
    middle = 72 + 600 / 3600
    assert tumour.time_h == pytest.approx(middle)
    expected = 1500 * 2 ** (72 / HALF_LIFE_H) * 82000 / NET_BQ
    assert tumour.mean == pytest.approx(expected, rel=1e-9)
    assert kidney.sd == pytest.approx(0.05 * kidney.mean)
    assert any("5" in text and "sd is 0.05 of the mean" in text for text in change.conversions)
    assert any("InjectionStart" in text for text in change.conversions)


def test_blood_of_pet_bids_has_its_unit_by_column(case, tmp_path):
    units = {"time": {"Units": "s"}, "whole_blood_radioactivity": {"Units": "kBq/mL"}}
    sidecar(tmp_path, InjectionStart=1200, **units)
    text = "time\twhole_blood_radioactivity\tmetabolite\n3600\t4.2\tn/a\n7200\tn/a\t1\n"
    path = table(tmp_path, text)
    change = import_invivo(case, path, relative_error=0.1, decay_reference="injection")
    (found,) = change.values
    assert found.region == "blood"
    assert found.time_h == pytest.approx(2 / 3)  # the injection was 20 minutes after TimeZero
    assert any("10:50:00" in text for text in change.warnings)
    assert found.mean == pytest.approx(4200 * 82000 / NET_BQ, rel=1e-9)


@pytest.mark.parametrize(
    ("text", "given", "words"),
    [
        ("time\tregion\tmean\tsd\n3\ttumour\t1\t0.1\n", {}, ["no unit", "time_h"]),
        ("time_h\tregion\tmean\tsd\n3\ttumour\t1\t0.1\n", {}, ["decay_reference is missing"]),
        (
            "time_h\tregion\tmean\tsd\n3\ttumour\t1\t0.1\n",
            {"decay_reference": "injection"},
            ["unit is missing"],
        ),
        (
            "time_h\tregion\tmean\tsd\n3\ttumour\t1\t0.1\n",
            {"decay_reference": "injection", "unit": "SUV"},
            ["SUVbw, SUVlbm or SUVbsa"],
        ),
        (
            "time_h\tregion\tmean\tsd\n3\ttumour\t1\t0.1\n4\ttumour\tone\t1\n",
            {"decay_reference": "injection", "unit": "SUVbw"},
            ["line 3", "mean", "'one'"],
        ),
        (
            "time_h\tregion\tmean\n3\ttumour\t1\n",
            {"decay_reference": "injection", "unit": "SUVbw"},
            ["sd is missing", "not the spread"],
        ),
        (
            "time_h\tregion\tmean\tsd\n-3\ttumour\t1\t0.1\n",
            {"decay_reference": "injection", "unit": "SUVbw"},
            ["line 2", "before the injection"],
        ),
        (
            "time_h\tregion\tmean\tsd\tunit\n3\ttumour\t1\t0.1\tSUVbw\n",
            {"decay_reference": "injection", "unit": "kBq/mL"},
            ["'SUVbw' in the table, and 'kBq/mL' was given"],
        ),
        (
            "time_h\tregion\tmean\tsd\tdecay_reference\n3\ttumour\t1\t0.1\tscan\n",
            {"decay_reference": "injection", "unit": "kBq/mL"},
            ["'scan' in the table, and 'injection' was given"],
        ),
        (
            "time_h\tregion\tmean\n3\ttumour\t1\n",
            {"decay_reference": "injection", "unit": "SUVbw", "relative_error": 0.0},
            ["relative_error is 0"],
        ),
        ("time_h\tmean\tsd\n3\t1\t0.1\n", {}, ["no column region"]),
        ("time_h\tvalue\n3\t1\n", {}, ["no column mean"]),
        ("frame_start\tframe_end\ttumour\n0\t60\t5\n", {"relative_error": 0.1}, ["InjectionStart"]),
        ("time_h\tregion\tmean\tsd\n", {}, ["no values"]),
    ],
)
def test_what_a_table_lacks_is_asked_for(case, tmp_path, text, given, words):
    with pytest.raises(InputError) as error:
        import_invivo(case, table(tmp_path, text), **given)
    assert all(word in str(error.value) for word in words), error.value
    assert read_invivo(case.root) == ()


def test_a_sidecar_of_another_injection_is_refused(case, tmp_path):
    sidecar(tmp_path, ScanDate="2024-03-11")
    with pytest.raises(InputError, match="another patient, or another injection"):
        import_invivo(case, table(tmp_path, TACS), relative_error=0.05)


def test_an_imported_table_keeps_whose_values_it_holds(case, tmp_path):
    head = "time_h\tregion\tmean\tsd\tunit\tdecay_reference\tsource\n"
    row = "{}\ttumour\t9\t0.4\tSUVbw\tinjection\tseries:aa patient:{}\n"
    one = table(tmp_path, head + row.format(72, "0aa1"))
    import_invivo(case, one)
    (kept,) = read_invivo(case.root)
    assert kept.source.endswith(" patient:0aa1")
    other = table(tmp_path, head + row.format(120, "0bb2"))
    with pytest.raises(InputError, match="the values are of 2 patients"):
        import_invivo(case, other)
    assert read_invivo(case.root) == (kept,)


def test_the_command_line_adds_imports_and_shows(case, tmp_path, capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            main(["invivo", str(case.root), *map(str, arguments)])
        return end.value.code or 0

    given = ["--region", "tumour", "--mean", "8", "--sd", "0.4"]
    assert call("add", "--time-h", "72", *given) == 0
    assert call("add", "--time-h", "-1", *given) == 2
    assert "before the injection" in capsys.readouterr().err
    no_unit = table(tmp_path, "time\tregion\tmean\tsd\n72\ttumour\t9\t0.5\n")
    assert call("import", no_unit) == 2
    assert "the column time has no unit; name it time_h, time_min" in capsys.readouterr().err
    path = table(tmp_path, "time_h\tregion\tmean\tsd\n120\ttumour\t9\t0.4\n")
    assert call("import", path, "--unit", "SUVbw") == 2
    assert "Give injection" in capsys.readouterr().err
    assert call("import", path, "--unit", "SUVbw", "--decay-reference", "scan", "--json") == 0
    assert json.loads(capsys.readouterr().out)["added"][0]["mean"] == 9.0
    assert call("show", "--json") == 0
    shown = json.loads(capsys.readouterr().out)["values"]
    assert [one["time_h"] for one in shown] == [72.0, 120.0]
    assert call() == 0
    assert "tumour" in capsys.readouterr().out
    assert math.isclose(shown[0]["sd"], 0.4)
    assert call("remove", "--time-h", "72.2", "--region", "tumour") == 2
    assert "there are: tumour at 72 h, tumour at 120 h" in capsys.readouterr().err
    assert call("remove", "--time-h", "72", "--region", "Tumor") == 0
    assert [one.time_h for one in read_invivo(case.root)] == [120.0]
