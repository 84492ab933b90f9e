"""``invivo.csv``: exact round trip, one sentence for every value that is impossible."""

import dataclasses
import math

import pytest

from napari_mosaik.core import InputError
from napari_mosaik.core.invivo import InvivoValue, check_invivo_series, region_name
from napari_mosaik.io.invivo import INVIVO_COLUMNS, read_invivo, write_invivo


def value(**changes):
    fields = {
        "time_h": 72.0, "region": "tumour", "mean": 8.0, "sd": 0.4, "unit": "SUVbw",
        "decay_reference": "injection",
    }  # fmt: skip
    return InvivoValue(**{**fields, **changes})


def test_a_round_trip_is_exact_and_ordered(tmp_path):
    given = (
        value(time_h=168.1 / 3, mean=math.pi, sd=1e-17 + 0.1, voxel_sd=2 / 3, volume_ml=1e-3),
        value(time_h=24.0, region="blood", mean=0.1 + 0.2, sd=5e-324, source="file:00ff"),
        value(time_h=24.0, method="sphere of 6 mm, divided by the recovery 0.71"),
        value(time_h=96.0, region="blood"),
    )
    write_invivo(tmp_path, given)
    found = read_invivo(tmp_path)
    assert found == tuple(sorted(given, key=lambda one: (one.time_h, one.region)))
    content = (tmp_path / "invivo.csv").read_bytes()
    write_invivo(tmp_path / "invivo.csv", found)
    assert (tmp_path / "invivo.csv").read_bytes() == content
    assert content.split(b"\n")[0].decode().split(",") == list(INVIVO_COLUMNS)


def test_no_file_is_no_value(tmp_path):
    assert read_invivo(tmp_path) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"time_h": -1.0}, ["time_h is -1", "before the injection"]),
        ({"time_h": math.nan}, ["time_h is nan"]),
        ({"time_h": 1e5}, ["time_h is 100000", "hours"]),
        ({"mean": -2.0}, ["mean of tumour is -2"]),
        ({"mean": 0.0}, ["mean of tumour is 0"]),
        ({"sd": 0.0}, ["sd of tumour is 0", "standard error of the mean"]),
        ({"sd": -0.1}, ["sd of tumour is -0.1"]),
        ({"voxel_sd": -0.1}, ["voxel_sd of tumour is -0.1"]),
        ({"volume_ml": 0.0}, ["volume_ml of tumour is 0"]),
        ({"mean": 1e26}, ["mean of tumour is 1e+26 SUVbw", "1e-06 to 1000 SUVbw", "unit"]),
        ({"mean": 1e-30}, ["mean of tumour is 1e-30 SUVbw"]),
        ({"mean": 2e9, "unit": "Bq/mL"}, ["2e+09 Bq/mL", "1e+09 Bq/mL"]),
        ({"sd": 900.0}, ["sd of tumour is 900 SUVbw", "mean"]),
        ({"volume_ml": 1e9}, ["volume_ml of tumour is 1e+09 mL"]),
        ({"unit": "SUV"}, ["unit is 'SUV'", "SUVbw"]),
        ({"unit": ""}, ["unit is missing"]),
        ({"decay_reference": ""}, ["decay_reference is missing", "injection"]),
        ({"decay_reference": "scan"}, ["decay_reference is 'scan'", "import"]),
        ({"region": ""}, ["region is ''"]),
        ({"region": "Tumour"}, ["give 'tumour'"]),
        ({"source": "two\nlines"}, ["source is"]),
    ],
)
def test_an_impossible_value_is_named(changes, words):
    with pytest.raises(InputError) as error:
        value(**changes)
    assert all(word in str(error.value) for word in words), error.value


def test_two_values_of_a_region_at_one_time_and_two_units_are_refused():
    with pytest.raises(InputError, match=r"two values of tumour at 72 h \(8 and 9 SUVbw\)"):
        check_invivo_series([value(), value(time_h=72.0001, mean=9.0)])
    assert len(check_invivo_series([value(), value(region="blood"), value(time_h=73.0)])) == 3
    with pytest.raises(InputError, match="two values"):  # typed as it is shown
        check_invivo_series([value(time_h=120.9166), value(time_h=120.92)])
    early = [value(time_h=second / 3600) for second in (10, 12, 14)]
    assert len(check_invivo_series(early)) == 3
    with pytest.raises(InputError, match="2 units"):
        check_invivo_series([value(), value(region="blood", unit="kBq/mL")])


HEAD = "time_h,region,mean,sd,unit,decay_reference"
ROW = "72,tumour,8,0.4,SUVbw,injection"


def test_columns_that_a_person_leaves_out_may_be_missing(tmp_path):
    (tmp_path / "invivo.csv").write_text(f"\ufeff{HEAD}\r\n{ROW}\r\n\r\n", "utf-8")
    assert read_invivo(tmp_path) == (value(),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{HEAD}\n{ROW}\n72,tumour,8,0.4,SUVbw,injection,more\n", ["line 3", "7 cells"]),
        (f"{HEAD}\n{ROW.replace('8', 'eight')}\n", ["line 2", "mean is 'eight'"]),
        (f"{HEAD}\n{ROW.replace('0.4', 'nan')}\n", ["line 2", "sd is 'nan'"]),
        (f"{HEAD}\n{ROW.replace('72', '1_0')}\n", ["line 2", "time_h is '1_0'"]),
        (f"{HEAD}\n{ROW}\n\n{ROW.replace('72', '-3')}\n", ["line 4", "before the injection"]),
        (f"{HEAD}\n{ROW.replace(',8,', ',,')}\n", ["line 2", "mean is missing"]),
        (f"{HEAD}\n{ROW}\n{ROW}\n", ["two values of tumour at 72 h"]),
        (HEAD.replace(",sd", "") + "\n", ["no column sd"]),
        (HEAD.replace(",decay_reference", "") + "\n", ["no column decay_reference"]),
        (f"{HEAD},volume\n{ROW},3\n", ["column 'volume'", "volume_ml"]),
        (f"{HEAD},sd\n{ROW},3\n", ["two columns 'sd'"]),
        ("\n", ["empty"]),
    ],
)
def test_a_wrong_file_is_one_sentence_with_its_line(tmp_path, text, words):
    (tmp_path / "invivo.csv").write_text(text, "utf-8")
    with pytest.raises(InputError) as error:
        read_invivo(tmp_path)
    assert all(word in str(error.value) for word in words), error.value
    assert "invivo.csv" in str(error.value)


def test_writing_checks_the_series_and_keeps_the_file(tmp_path):
    write_invivo(tmp_path, [value()])
    before = (tmp_path / "invivo.csv").read_bytes()
    with pytest.raises(InputError):
        write_invivo(tmp_path, [value(), value()])
    assert (tmp_path / "invivo.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["invivo.csv"]


def test_regions_have_the_words_of_the_program():
    assert region_name(" Tumor ") == "tumour"
    assert region_name("Whole  Blood") == region_name("aorta") == "blood"
    assert region_name("left kidney") == "left kidney"


def test_the_record_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        value().mean = 3.0
