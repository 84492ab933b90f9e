"""Visual QA records: ratings survive a restart, and belong to the result that was rated."""

import csv

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_mosaik.cli.app import app
from napari_mosaik.core import InputError, LabelImage, Lattice, Origin, Table
from napari_mosaik.core.catalogue import VESSEL_OBJECTS, VESSELS
from napari_mosaik.io import CaseFile, create_case
from napari_mosaik.view.report.content import case_report
from napari_mosaik.workflow.segmentation_qa import SegmentationQa, qa_records, qa_records_csv


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
    with SegmentationQa(case, "vessels", "anna", n_objects=5) as check:
        first = check.next_object()
        check.rate_object(first, "wrong")
        second = check.next_object()
        assert second != first
    with SegmentationQa(case, "vessels", "anna", n_objects=99) as check:
        assert len(check.sample.objects) == 5
        assert check.next_object() == second
        while (label := check.next_object()) is not None:
            check.rate_object(label, "correct")
        check.rate_overall("usable", "one pigment clump")
        assert check.next_field() is None
    (record,) = qa_records(case)
    assert record["state"] == "current"
    assert (record["correct"], record["wrong"], record["finished"]) == (4, 1, True)
    assert record["false_rate_estimate"] == 0.2
    assert 0 < record["false_rate_low"] < 0.2 < record["false_rate_high"] < 0.75

    out = tmp_path / "qa.csv"
    result = CliRunner().invoke(app, ["qa", str(case.root), "--csv", str(out)])
    assert result.exit_code == 0
    assert "20.0 %" in result.stdout
    text = case_report(case)
    for words in (
        "Visual QA",
        "20.0\N{NO-BREAK SPACE}% (",
        "one pigment clump",
        "unknown",
    ):
        assert words in text
    (row,) = csv.DictReader(out.read_text().splitlines())
    assert row["overall_rating"] == "usable"
    assert row["miss_rate_estimate"] == ""


def test_a_new_result_begins_a_new_check_and_keeps_the_old_one(case):
    with SegmentationQa(case, "vessels", "anna", n_objects=3) as check:
        check.rate_object(check.next_object(), "correct")
    store(case, 7, revision=2)
    with SegmentationQa(case, "vessels", "anna", n_objects=3) as check:
        assert check.summary.correct == 0
    states = [record["state"] for record in qa_records(case)]
    assert states == ["earlier result", "current"]
    assert qa_records_csv([]) == ""


def test_what_cannot_be_checked_is_told(case):
    with pytest.raises(InputError, match="no nuclei yet"):
        SegmentationQa(case, "nuclei", "anna")
    with pytest.raises(InputError, match="no visual QA of 'maps'"):
        SegmentationQa(case, "maps", "anna")
    with pytest.raises(InputError, match="not a valid reader name"):
        SegmentationQa(case, "vessels", "../anna")
    with SegmentationQa(case, "vessels", "anna", n_objects=3) as check:
        with pytest.raises(InputError, match="not in the sample"):
            check.rate_object(99, "correct")
        with pytest.raises(InputError, match="'fine' is not an overall rating"):
            check.rate_overall("fine")
    store(case, 0, revision=3)
    with pytest.raises(InputError, match="none were detected"):
        SegmentationQa(case, "vessels", "anna")
