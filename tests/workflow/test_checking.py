"""The QA record: judgements survive a restart, and belong to the result that was looked at."""

import csv

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_mosaik.cli.main import app
from napari_mosaik.core import InputError, LabelImage, Lattice, Origin, Table
from napari_mosaik.core.catalogue import VESSEL_OBJECTS, VESSELS
from napari_mosaik.io import CaseFile, create_case
from napari_mosaik.view.report.content import case_report
from napari_mosaik.workflow.segmentation_qa import Check, check_records, records_csv


def store(case, n, revision=1):
    labels = np.zeros((20, 20), np.int32)
    labels[1, :n] = np.arange(1, n + 1)
    table = Table({"area_um2": np.ones(n)}, {"area_um2": "µm²"}, {}, "cd34")
    image = LabelImage(labels, Lattice("cd34", (20, 20), (1.0, 1.0)))
    with case.writing():
        origin = Origin("vessels", revision, "", ())
        case.store.commit(origin, {VESSELS: image, VESSEL_OBJECTS: table})


@pytest.fixture
def case(tmp_path):
    made = create_case(tmp_path / "T1", CaseFile(name="T1"))
    store(made, 12)
    return made


def test_a_check_is_continued_where_it_was_left_and_reported(case, tmp_path):
    with Check(case, "vessels", "anna", n_objects=5) as check:
        first = check.next_object()
        check.judge(first, "wrong")
        second = check.next_object()
        assert second != first
    with Check(case, "vessels", "anna", n_objects=99) as check:
        assert len(check.sample.objects) == 5
        assert check.next_object() == second
        while (label := check.next_object()) is not None:
            check.judge(label, "right")
        check.conclude("usable", "one pigment clump")
        assert check.next_field() is None
    (record,) = check_records(case)
    assert record["state"] == "current"
    assert (record["right"], record["wrong"], record["finished"]) == (4, 1, True)
    assert record["false_rate_estimate"] == 0.2
    assert 0 < record["false_rate_low"] < 0.2 < record["false_rate_high"] < 0.75

    out = tmp_path / "qa.csv"
    result = CliRunner().invoke(app, ["qa", str(case.root), "--csv", str(out)])
    assert result.exit_code == 0
    assert "20.0 %" in result.stdout
    text = case_report(case, checks=check_records(case))
    for words in (
        "Segmentations checked by eye",
        "20.0\N{NO-BREAK SPACE}% (",
        "one pigment clump",
        "not known",
    ):
        assert words in text
    (row,) = csv.DictReader(out.read_text().splitlines())
    assert row["verdict"] == "usable"
    assert row["missed_rate_estimate"] == ""


def test_a_new_result_begins_a_new_check_and_keeps_the_old_one(case):
    with Check(case, "vessels", "anna", n_objects=3) as check:
        check.judge(check.next_object(), "right")
    store(case, 7, revision=2)
    with Check(case, "vessels", "anna", n_objects=3) as check:
        assert check.summary.right == 0
    states = [record["state"] for record in check_records(case)]
    assert states == ["earlier result", "current"]
    assert records_csv([]) == ""


def test_what_cannot_be_checked_is_told(case):
    with pytest.raises(InputError, match="no nuclei yet"):
        Check(case, "nuclei", "anna")
    with pytest.raises(InputError, match="'maps' cannot be checked"):
        Check(case, "maps", "anna")
    with pytest.raises(InputError, match="no reader's name"):
        Check(case, "vessels", "../anna")
    with Check(case, "vessels", "anna", n_objects=3) as check:
        with pytest.raises(InputError, match="cannot be judged"):
            check.judge(99, "right")
        with pytest.raises(InputError, match="'fine' is no verdict"):
            check.conclude("fine")
    store(case, 0, revision=3)
    with pytest.raises(InputError, match="none were found"):
        Check(case, "vessels", "anna")
