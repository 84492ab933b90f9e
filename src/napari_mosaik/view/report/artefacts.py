"""Bad places of the slides (pen, folds, blur, bubbles): their areas in words and in the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_mosaik.core.catalogue import QUALITY_AREAS, QUALITY_BY_HAND, STAIN_TITLES
from napari_mosaik.view.formatting import number
from napari_mosaik.view.report.html import ReportTable

__all__ = ["bad_place_lines", "bad_places_table"]

_CLEARED = "not bad"


def _rows(record: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Kind, area now and area of it that was flagged by hand, mm²; kinds without area left out."""
    by_hand = (record.get(QUALITY_BY_HAND) or {}).get("mm2", {})
    areas = record.get(QUALITY_AREAS) or {}
    rows = [(name, float(area), float(by_hand.get(name, 0))) for name, area in areas.items()]
    return [row for row in rows if row[1]]


def _cleared_mm2(record: Mapping[str, Any]) -> float:
    return float((record.get(QUALITY_BY_HAND) or {}).get("mm2", {}).get(_CLEARED, 0))


def bad_place_lines(record: Mapping[str, Any]) -> list[str]:
    """One line for each kind of bad place in the record of a tissue result."""
    lines = []
    for name, area, by_hand in _rows(record):
        drawn = f", {number(by_hand, 'mm²')} of it by hand" if by_hand else ""
        lines.append(f"{name}: {number(area, 'mm²')}{drawn}")
    if _cleared_mm2(record):
        lines.append(f"found, but not bad by hand: {number(_cleared_mm2(record), 'mm²')}")
    return lines


def bad_places_table(records: Mapping[str, Mapping[str, Any]]) -> ReportTable | None:
    """The bad places of a case as a table of the report, from the tissue records by stain."""
    rows: list[tuple[object, ...]] = []
    for stain, record in records.items():
        title = STAIN_TITLES[stain]
        rows += [(title, *row) for row in _rows(record)]
        if _cleared_mm2(record):
            rows.append((title, "found, but not bad by hand", _cleared_mm2(record), None))
    columns = ("slide", "what", "area [mm²]", "of it by hand [mm²]")
    note = (
        "What was flagged by hand is no tissue in this case and in no statistics; what the program "
        "found is left out as the settings of the tissue steps say."
    )
    return (
        ReportTable("Places that should not be measured", columns, tuple(rows), note)
        if rows
        else None
    )
