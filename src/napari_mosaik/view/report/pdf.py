"""The report of a case as a PDF of A4 pages: the parts of `html`, set by ReportLab.

No table row, figure or heading is cut by a page, headers repeat, and figures are numbered as in the
HTML file.  Needs no display and no library of the system; the fonts are those of matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape

from napari_mosaik.core import palette
from napari_mosaik.view.formatting import STATE_MARKS
from napari_mosaik.view.report.html import (
    ReportData,
    ReportFigure,
    ReportTable,
    badges_of,
    cell_words,
    exact_words,
    metric_table,
    png_of,
)
from napari_mosaik.view.report.validation import SheetRow, validation_sheet

if TYPE_CHECKING:
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.platypus import Flowable

__all__ = ["build_pdf"]

_BANNER: Final = "Research use only. Not a medical device; not for diagnosis or treatment."
_MARGIN_PT: Final = 38.0
_HEAD_PT: Final = 26.0
_SIZES: Final = (7.6, 7.0, 6.4, 5.8, 5.2)
"""Type sizes of a table, points: the largest whose words fit the page."""
_PADDING_PT: Final = 3.2
_DPI: Final = 150
_ROOM_PT: Final = 130.0
"""A heading needs so much room below it on its page."""
_FOLDED: Final = 24
"""A list of two columns with more rows is set in two halves side by side."""
_TALLEST_PT: Final = 300.0
"""A figure is at most as high, so that a page holds two with their captions."""


def build_pdf(data: ReportData) -> bytes:
    """The report as the bytes of a PDF file; equal data give equal bytes.

    Everything that the HTML file shows, in the same order; names are escaped, missing values are
    "not available".
    """
    from reportlab.lib.pagesizes import A4
    from reportlab.platypus import BaseDocTemplate, Frame, PageTemplate

    _fonts()
    buffer = io.BytesIO()
    document = BaseDocTemplate(
        buffer,
        pagesize=A4,
        title=f"{data.case} · napari-mosaik report",
        author="",
        subject=_BANNER,
        creator="napari-mosaik",
        invariant=1,
    )
    width, height = A4
    frame = Frame(
        _MARGIN_PT,
        _MARGIN_PT,
        width - 2 * _MARGIN_PT,
        height - 2 * _MARGIN_PT - _HEAD_PT,
        *(0, 0, 0, 0),
    )
    document.addPageTemplates(PageTemplate("page", [frame]))
    document.build(list(_story(data, frame._width)), canvasmaker=_numbered(data))
    return buffer.getvalue()


@cache
def _fonts() -> None:
    """Register the fonts: they have every symbol that a report uses."""
    from matplotlib import get_data_path
    from reportlab.lib.fonts import addMapping
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    folder = Path(get_data_path()) / "fonts" / "ttf"
    for number, (name, file) in enumerate(_FONTS.items()):
        pdfmetrics.registerFont(TTFont(name, str(folder / file)))
        addMapping("Report", number, 0, name)


_FONTS: Final = {"Report": "DejaVuSans.ttf", "Report-Bold": "DejaVuSans-Bold.ttf"}


def _style(size: float, *, bold: bool = False, soft: bool = False, **more: Any) -> ParagraphStyle:
    from reportlab.lib.styles import ParagraphStyle

    return ParagraphStyle(
        "",
        fontName="Report-Bold" if bold else "Report",
        fontSize=size,
        leading=1.28 * size,
        textColor=palette.FAINT_TEXT if soft else palette.REPORT_INK,
        **more,
    )


def _text(words: object, style: ParagraphStyle) -> Flowable:
    from reportlab.platypus import Paragraph

    return Paragraph(escape(str(cell_words(words))), style)


def _heading(words: str, *, room_pt: float = _ROOM_PT) -> Iterable[Flowable]:
    """A heading that never stands alone at the foot of a page."""
    from reportlab.platypus import CondPageBreak

    yield CondPageBreak(room_pt)
    yield _text(words, _style(12.5, bold=True, spaceBefore=14, spaceAfter=5))


# --- pages ---------------------------------------------------------------------------------------
def _numbered(data: ReportData) -> Any:
    """A canvas that writes head and foot of a page once it knows how many there are."""
    from reportlab.pdfgen.canvas import Canvas

    class NumberedCanvas(Canvas):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.pages: list[dict[str, Any]] = []

        def showPage(self) -> None:  # noqa: N802
            self.pages.append(dict(self.__dict__))
            self._startPage()

        def save(self) -> None:
            for page in self.pages:
                self.__dict__.update(page)
                _edge(self, data, f"{self._pageNumber} of {len(self.pages)}")
                super().showPage()
            super().save()

    return NumberedCanvas


def _edge(canvas: Any, data: ReportData, page: str) -> None:
    width, height = canvas._pagesize
    canvas.setFillColor(palette.BANNER)
    canvas.rect(0, height - 22, width, 22, stroke=0, fill=1)
    canvas.setFillColor(palette.PAPER)
    canvas.setFont("Report-Bold", 8.5)
    canvas.drawCentredString(width / 2, height - 15, _BANNER)
    canvas.setFillColor(palette.FAINT_TEXT)
    canvas.setFont("Report", 7.5)
    canvas.drawString(_MARGIN_PT, 20, f"{data.case} · napari-mosaik · {data.made}".rstrip(" ·"))
    canvas.drawRightString(width - _MARGIN_PT, 20, page)


# --- parts ---------------------------------------------------------------------------------------
def _story(data: ReportData, width: float) -> Iterable[Flowable]:
    """The parts of the report from first to last."""
    yield from _front(data, width)
    if data.metrics:
        yield from _heading("Prediction error and baselines")
    for metrics in data.metrics:
        yield from _titled(metric_table(metrics), width, first_bold=True)
    if data.figures:
        yield from _figures(data.figures, width)
    if data.tables:
        yield from _heading("Results")
    for table in data.tables:
        yield from _titled(table, width)
    yield from _methods(data, width)
    yield from _end(data, width)


def _methods(data: ReportData, width: float) -> Iterable[Flowable]:
    """What each step does, and the verification and validation sheet."""
    if data.states:
        yield from _heading("Methods")
        rows = []
        for step in data.states:
            state = " ".join(STATE_MARKS.get(step.state, ("–", step.state)))
            rows.append((step.title, step.about, state, step.detail))
        yield _table(("Step", "Method", "State", "Reason"), rows, width)
    yield from _heading("Verification and validation")
    words = '"Not available" means that nothing was computed. It is not a pass.'
    yield _text(words, _style(7.6, soft=True, spaceAfter=4))
    yield _sheet(validation_sheet(data.checks), width)


def _end(data: ReportData, width: float) -> Iterable[Flowable]:
    """Limitations and provenance."""
    if data.limitations:
        yield from _heading("Limitations and intended use", room_pt=60.0)
        for sentence in data.limitations:
            yield _text(f"• {sentence}", _style(8.5, leftIndent=9, firstLineIndent=-9))
    if data.provenance:
        yield from _heading("Provenance")
        for group, values in data.provenance.items():
            rows = [(name, exact_words(value)) for name, value in values.items()]
            columns: tuple[str, ...] = ("Name", "Value")
            if len(rows) > _FOLDED and max(len(words) for _, words in rows) < _FOLDED * 2:
                half = -(-len(rows) // 2)
                rest = [*rows[half:], *[("", "")] * (2 * half - len(rows))]
                folded = [(*left, *right) for left, right in zip(rows[:half], rest, strict=True)]
                yield from _titled(ReportTable(group, columns * 2, tuple(folded)), width)
            else:
                yield from _titled(ReportTable(group, columns, tuple(rows)), width)


def _front(data: ReportData, width: float) -> Iterable[Flowable]:
    """Name of the case, what the errors mean, warnings, and the summary."""
    yield _text(data.case, _style(19, bold=True, spaceAfter=5))
    kind = "twin" if data.updates_with_new_images else "predictor"
    words = f"Predicted against measured antibody uptake, {kind}"
    parts = [words, data.patient, data.made, *badges_of(data)]
    yield _text(" · ".join(filter(None, parts)), _style(8.5, soft=True, spaceAfter=6))
    for warning in data.warnings:
        yield _text(
            f"⚠ {warning}",
            _style(
                8,
                backColor=palette.WARNING_PAPER,
                borderPadding=(3, 4, 3, 4),
                spaceBefore=5,
                spaceAfter=5,
                leftIndent=4,
                rightIndent=4,
            ),
        )
    if data.summary:
        yield _table((), data.summary, width, soft_first=True)


def _titled(table: ReportTable, width: float, *, first_bold: bool = False) -> Iterable[Flowable]:
    from reportlab.platypus import CondPageBreak

    yield CondPageBreak(_ROOM_PT if len(table.rows) > 4 else _ROOM_PT / 1.5)
    yield _text(table.title, _style(9.5, bold=True, spaceBefore=8, spaceAfter=3))
    yield _table(table.columns, table.rows, width, first_bold=first_bold, soft=table.soft)
    if table.note:
        yield _text(table.note, _style(7.4, soft=True, spaceBefore=2, spaceAfter=4))


def _sheet(rows: Sequence[SheetRow], width: float) -> Flowable:
    cells = [(row.area, row.about, row.status, row.value, row.evidence) for row in rows]
    colours = {number: palette.STATUS_COLOURS[row.status] for number, row in enumerate(rows)}
    names = ("Area", "Scope", "Status", "Result", "Evidence")
    return _table(names, cells, width, coloured=(2, colours))


# --- tables --------------------------------------------------------------------------------------
def _table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    width: float,
    *,
    first_bold: bool = False,
    soft_first: bool = False,
    soft: Sequence[int] = (),
    coloured: tuple[int, dict[int, str]] = (-1, {}),
) -> Flowable:
    """A table as wide as the page; *coloured* is a column and the colour of its text by row.

    The rows *soft* are grey.
    """
    from reportlab.platypus import LongTable

    texts = [tuple(str(cell_words(cell)) for cell in row) for row in rows]
    body = [tuple(columns), *texts] if columns else texts
    size, widths = _fitted(body, width)
    plain, head = _style(size), _style(size, bold=True, soft=True)
    grey = _style(size, soft=True)
    cells = []
    for number, row in enumerate(body, -1 if columns else 0):
        style = (
            head if number < 0 else _style(size, bold=True) if first_bold and not number else plain
        )
        line = [_text(cell, grey if number in soft else style) for cell in row]
        if soft_first:
            line[0] = _text(row[0], _style(size, soft=True))
        if number in coloured[1]:
            colour = f'<font color="{coloured[1][number]}"><b>'
            line[coloured[0]] = _marked(f"{colour}{escape(row[coloured[0]])}</b></font>", plain)
        cells.append(line)
    look: list[Any] = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("GRID", (0, 0), (-1, -1), 0.4, palette.PALE_LINE),
        ("LEFTPADDING", (0, 0), (-1, -1), _PADDING_PT),
        ("RIGHTPADDING", (0, 0), (-1, -1), _PADDING_PT),
        ("TOPPADDING", (0, 0), (-1, -1), 1.6),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2.4),
    ]
    return LongTable(
        cells,
        colWidths=widths,
        repeatRows=1 if columns else 0,
        style=look,
        spaceBefore=2,
        spaceAfter=5,
        splitInRow=1,
        hAlign="LEFT",
    )


def _marked(markup: str, style: ParagraphStyle) -> Flowable:
    from reportlab.platypus import Paragraph

    return Paragraph(markup, style)


def _fitted(body: Sequence[Sequence[str]], width: float) -> tuple[float, list[float]]:
    """Type size and column widths, points: no word is cut where a size of `_SIZES` allows it."""
    from reportlab.pdfbase.pdfmetrics import stringWidth

    columns = list(zip(*body, strict=True)) if body else []
    room = 2 * _PADDING_PT + 1.0
    for size in _SIZES:
        least, natural = [], []
        for cells in columns:
            words = [word for cell in cells for word in cell.split()]
            longest = max((stringWidth(word, "Report-Bold", size) for word in words), default=0.0)
            least.append(min(longest, 0.45 * width) + room)
            whole = max((stringWidth(cell, "Report-Bold", size) for cell in cells), default=0.0)
            natural.append(max(min(whole, 1.5 * width) + room, least[-1]))
        spare = width - sum(least)
        if spare >= 0:
            break
    if sum(natural) <= width:
        scale = width / sum(natural) if len(columns) > 2 else 1.0
        return size, [one * scale for one in natural]
    if spare < 0:
        return size, [one * width / sum(least) for one in least]
    wish = [whole - low for whole, low in zip(natural, least, strict=True)]
    return size, [low + spare * w / sum(wish) for low, w in zip(least, wish, strict=True)]


# --- figures -------------------------------------------------------------------------------------
def _figures(figures: Sequence[ReportFigure], width: float) -> Iterable[Flowable]:
    """Numbered figures with their captions, two in a row unless they are wide."""
    yield from _heading("Figures", room_pt=260.0)
    waiting: list[list[Flowable]] = []
    half = (width - 10) / 2
    for number, figure in enumerate(figures, 1):
        if figure.wide:
            yield from _pair(waiting, half)
            waiting = []
            yield from _pair([_figure(figure, number, width)], width)
            continue
        waiting.append(_figure(figure, number, half))
        if len(waiting) == 2:
            yield from _pair(waiting, half)
            waiting = []
    yield from _pair(waiting, half)


def _figure(figure: ReportFigure, number: int, width: float) -> list[Flowable]:
    from reportlab.platypus import Image, Paragraph, Spacer

    picture = Image(io.BytesIO(png_of(figure.figure, _DPI)))
    scale = min(width / picture.imageWidth, _TALLEST_PT / picture.imageHeight)
    picture.drawWidth, picture.drawHeight = scale * picture.imageWidth, scale * picture.imageHeight
    title = f"<b>{escape(f'Figure {number}. {figure.title}')}</b> {escape(figure.caption)}"
    return [picture, Spacer(1, 3), Paragraph(title, _style(7.4))]


def _pair(figures: Sequence[list[Flowable]], width: float) -> Iterable[Flowable]:
    """One or two figures in a row that no page cuts."""
    from reportlab.platypus import Table

    if figures:
        row = Table([list(figures)], colWidths=[width + 5 * (len(figures) - 1)] * len(figures))
        row.setStyle(
            [
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LEFTPADDING", (0, 0), (-1, -1), 0),
                ("RIGHTPADDING", (0, 0), (-1, -1), 0),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 9),
            ]
        )
        yield row
