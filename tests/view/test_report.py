"""The report: escaped, self-contained, honest about what is missing."""

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from napari_mosaik.core import InputError
from napari_mosaik.view.report.html import (
    ReportData,
    ReportFigure,
    ReportMetrics,
    ReportTable,
    StepState,
    build_report,
)
from napari_mosaik.view.report.validation import AREAS, SheetRow, validation_sheet

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Checks that tags are balanced and gathers visible words and addresses."""

    def __init__(self):
        super().__init__()
        self.open, self.words, self.addresses, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def full_data(**changes):
    figure = Figure()
    figure.add_subplot().plot([0, 1], [0, 1])
    values = {
        "case": "B11",
        "patient": "patient 2",
        "summary": (("tiles", "412 tiles"),),
        "states": (StepState("Vessels", "stale", "threshold changed"),),
        "metrics": (
            ReportMetrics(
                "normalised SUV, tile level",
                {"mae": 0.0591, "mse": math.nan, "r2": None},
                {"mean": {"mae": 0.11}, "caix_linear": {"mae": np.float64(0.095), "ccc": 0.4}},
                "two patients support no claim about patients",
            ),
        ),
        "tables": (ReportTable("Areas", ("class", "mm²"), (("neoplastic", 12.345), ("x", None))),),
        "figures": (ReportFigure("Scatter", figure, "Each point is a tile."),),
        "warnings": ("The split shares a patient.",),
        "checks": (SheetRow("Data", "pass", "18.0 µm median", "alignment"),),
        "provenance": {"versions": {"numpy": "2.4.6"}, "parameters": {"seed": 20261121, "x": None}},
    }
    return ReportData(**{**values, **changes})


def test_whole_report():
    reader = read(build_report(full_data(shared_patient=True)))
    text = reader.text
    for words in (
        "Research use only",
        "same patient in training",
        "The split shares a patient.",
        "0.0591",
        "baseline: CAIX, linear",
        "0.0950",
        "12.3",
        "↻ stale",
        "threshold changed",
        "18.0 µm median",
        "20261121",
        "Each point is a tile.",
    ):
        assert words in text
    assert "development case" not in text


def test_missing_values_are_words():
    for html in (build_report(full_data()), build_report(ReportData("B11"))):
        text = read(html).text
        assert not re.search(r"\b(nan|none|undefined|inf)\b", text, re.IGNORECASE)
    assert "not available" in text


def test_self_contained_and_without_script():
    html = build_report(full_data())
    reader = read(html)
    assert all(a.startswith("data:image/png;base64,iVBOR") for a in reader.addresses)
    assert len(reader.addresses) == 1
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    assert "url(" not in html


def test_names_are_escaped_everywhere():
    evil = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
    data = full_data(
        case=evil,
        patient=evil,
        made=evil,
        summary=((evil, evil),),
        states=(StepState(evil, evil, evil),),
        metrics=(ReportMetrics(evil, {evil: 1.0}, {evil: {evil: 2.0}}, evil),),
        tables=(ReportTable(evil, (evil,), ((evil,),), evil),),
        figures=(ReportFigure(evil, b"\x89PNG", evil),),
        warnings=(evil,),
        checks=(SheetRow("Data", "pass", evil, evil),),
        provenance={evil: {evil: evil}},
    )
    reader = read(build_report(data))
    assert "script" not in reader.tags
    assert reader.tags.count("img") == 1
    assert "<script>alert" in reader.text


def test_a_predictor_is_never_called_a_twin():
    text = read(build_report(full_data())).text.lower()
    assert "predictor" in text
    assert "twin" not in text
    assert "twin" in read(build_report(full_data(updates_with_new_images=True))).text.lower()


def test_a_baseline_value_that_is_missing_is_not_taken_from_another():
    html = build_report(full_data())
    row = re.search(r"<tr><td>baseline: training mean</td>(.*?)</tr>", html).group(1)
    cells = re.findall("<td[^>]*>(.*?)</td>", row)
    assert cells == ["0.110", "not available", "not available", "not available"]


def test_the_sheet_has_all_areas_and_claims_nothing_by_itself():
    empty = validation_sheet()
    assert [row.area for row in empty] == list(AREAS)
    assert {row.status for row in empty} == {"not available"}
    rows = [SheetRow("Data", "fail", "TRE 180 µm"), SheetRow("Data", "pass", "units known")]
    sheet = validation_sheet(rows)
    assert len(sheet) == 11
    assert [row.status for row in sheet if row.area == "Data"] == ["fail", "pass"]
    with pytest.raises(InputError, match="without a value"):
        validation_sheet([SheetRow("Data", "pass")])
    with pytest.raises(InputError, match="unknown area 'Date'"):
        validation_sheet([SheetRow("Date", "pass", "x")])
