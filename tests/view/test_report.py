"""The report: escaped, self-contained, honest about what is missing."""

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from napari_mosaik.core import InputError, palette
from napari_mosaik.view.report import pdf
from napari_mosaik.view.report.html import (
    ReportData,
    ReportFigure,
    ReportMetrics,
    ReportTable,
    StepState,
    build_report,
)
from napari_mosaik.view.report.pdf import build_pdf
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


# --- PDF -----------------------------------------------------------------------------------------
def pages_of(pdf):
    """Text of each page, and how much of it is used: 0 to 1 from its top to the lowest word."""
    from pypdfium2 import PdfDocument

    document = PdfDocument(pdf)
    texts, used = [], []
    for page in document:
        text, height = page.get_textpage(), page.get_height()
        body = [b for b in map(text.get_charbox, range(text.count_chars())) if b[1] > 40]
        texts.append(re.sub(r"\s+", " ", text.get_text_range()))
        used.append(1 - min(box[1] for box in body if box[3] > box[1]) / height)
        text.close()
        page.close()
    document.close()
    return texts, used


def test_the_pdf_says_what_the_html_says():
    data = full_data(shared_patient=True, made="2026-11-29, 12:00 UTC")
    pages, _ = pages_of(build_pdf(data))
    text = " ".join(pages)
    for words in (
        "same patient in training",
        "The split shares a patient.",
        "0.0591",
        "baseline: CAIX, linear",
        "412 tiles",
        "stale",
        "threshold changed",
        "18.0 µm median",
        "20261121",
        "Figure 1. Scatter Each point is a tile.",
        *AREAS,
    ):
        assert words in text, words
    assert not re.search(r"\b(nan|none|undefined|inf)\b", text, re.IGNORECASE)
    assert all("Research use only" in page for page in pages)
    assert all(f"{number} of {len(pages)}" in page for number, page in enumerate(pages, 1))
    assert build_pdf(data) == build_pdf(data)
    assert b"/URI" not in build_pdf(data)


def test_grey_rows_are_grey_in_the_pdf_too():
    pdf._fonts()
    table = pdf._table(("a", "b"), (("x", 1.0), ("y", 2.0)), 300.0, soft=(1,))
    _, plain, grey = ([cell.style.textColor for cell in row] for row in table._cellvalues)
    assert plain == [palette.REPORT_INK] * 2
    assert grey == [palette.FAINT_TEXT] * 2


def test_names_are_text_in_the_pdf_too():
    evil = "<b>x</b> & <img src=x> </para>"
    data = full_data(
        case=evil,
        patient=evil,
        summary=((evil, evil),),
        tables=(ReportTable(evil, (evil,), ((evil,),), evil),),
        warnings=(evil,),
        checks=(SheetRow("Data", "pass", evil, evil),),
    )
    pages, _ = pages_of(build_pdf(data))
    assert " ".join(pages).count("<img src=x>") >= 7


def test_no_page_cuts_a_row_or_is_left_half_empty():
    long = tuple((f"row{i}", f"first{i} " + "word " * (i % 40) + f"last{i}") for i in range(120))
    figures = [ReportFigure(f"Plot {i}", Figure(figsize=(5, 4)), f"Caption {i}.") for i in range(7)]
    figures.insert(2, ReportFigure("Board", Figure(figsize=(12, 5)), "Wide.", wide=True))
    data = full_data(tables=(ReportTable("Long", ("name", "words"), long),), figures=tuple(figures))
    pages, used = pages_of(build_pdf(data))
    inside = [[f"first{i} " in page for page in pages].index(True) for i in range(120)]
    assert inside == [[f"last{i} " in f"{page} " for page in pages].index(True) for i in range(120)]
    assert len(set(inside)) > 1
    assert all("name words" in pages[number] for number in set(inside))  # the header repeats
    for number, title in enumerate([figure.title for figure in figures], 1):
        home = next(page for page in pages if f"Figure {number}. {title}" in page)
        assert figures[number - 1].caption in home
    assert all(share > 0.5 for share in used[:-1]), used


def test_a_long_word_and_a_table_of_many_columns_stay_on_the_page():
    words = tuple("w" * 80 for _ in range(12))
    table = ReportTable("Wide", tuple(f"column{i}" for i in range(12)), (words, words))
    pages, _ = pages_of(build_pdf(full_data(tables=(table,))))
    text = "".join(pages).replace(" ", "")
    assert text.count("w") >= 12 * 80 * 2
