"""The tissue of the three slides: outline, artefacts, damaged tiles; and the tile grid."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from napari_mosaik.core.catalogue import (
    ARTEFACT_AREAS,
    ARTEFACTS_MANUAL,
    CORRECTED,
    CORRECTED_ARTEFACT_MASK,
    DAMAGED,
    REFERENCE,
    STAIN_TITLES,
    STAINS,
    TILES,
    TISSUE,
)
from napari_mosaik.io.slide.types.damage import whereabouts
from napari_mosaik.tissue import ARTEFACT_NAMES
from napari_mosaik.view import layers
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.formatting import count, number
from napari_mosaik.view.report.html import ReportTable
from napari_mosaik.view.spec import LayerSpec
from napari_mosaik.view.step_view import StepView
from napari_mosaik.workflow.steps import maker_of

_LISTED_TILES = 20
_CLEARED = "cleared"
"""Key of the area in which a reader cleared automatically detected artefacts."""


def _layers(stain: str, results: CaseResults, choice: str) -> list[LayerSpec]:
    mask = results.get(TISSUE[stain])
    if mask is None:
        return []
    transform = results.transform(stain)
    specs = [layers.tissue_layer(mask, transform)]
    artefacts = results.get(CORRECTED_ARTEFACT_MASK[stain])
    if artefacts is not None and np.asarray(artefacts.values).any():
        specs.append(layers.artefact_layer(artefacts, ARTEFACT_NAMES, transform))
    return specs


def _line(stain: str, results: CaseResults) -> str:
    mask = results.read(TISSUE[stain])
    area = float(np.nansum(np.asarray(mask.values, float))) * mask.lattice.sample_area_um2 / 1e6
    record = results.record(TISSUE[stain])
    damaged = record.get(DAMAGED) or {"count": 0}
    parts, details = [f"{STAIN_TITLES[stain]} {number(area, 'mm²')}"], []
    if damaged["count"]:
        parts.append(f"{count(damaged['count'], 'damaged tile')} excluded")
        details.append(f"{number(damaged['area_mm2'], 'mm²')} at {whereabouts(damaged)}")
    corrected = sum(
        (record.get(key) or {"made": 0})["made"] for key in (CORRECTED, ARTEFACTS_MANUAL)
    )
    if corrected:
        parts.append(count(corrected, "manual correction"))
    artefacts = [name for name, area, _ in _areas(record)]
    if artefacts:
        parts.append(f"artefacts: {', '.join(artefacts)}")
    return "\n".join([", ".join(parts), *details, *_artefact_lines(record)])


def _areas(record: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Type, area and manually marked part of it, mm²; types without any area are excluded."""
    marked = (record.get(ARTEFACTS_MANUAL) or {}).get("mm2", {})
    areas = record.get(ARTEFACT_AREAS) or {}
    rows = [(name, float(area), float(marked.get(name, 0))) for name, area in areas.items()]
    return [row for row in rows if row[1]]


def _cleared_mm2(record: Mapping[str, Any]) -> float:
    return float((record.get(ARTEFACTS_MANUAL) or {}).get("mm2", {}).get(_CLEARED, 0))


def _artefact_lines(record: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, area, marked in _areas(record):
        part = f", {number(marked, 'mm²')} of it marked manually" if marked else ""
        lines.append(f"{name}: {number(area, 'mm²')}{part}")
    if _cleared_mm2(record):
        lines.append(f"cleared manually: {number(_cleared_mm2(record), 'mm²')}")
    return lines


def _report(stain: str, results: CaseResults) -> list[ReportTable]:
    record = results.record(TISSUE[stain])
    return [_damaged_tiles(stain, record), _artefacts(stain, record)]


def _damaged_tiles(stain: str, record: Mapping[str, Any]) -> ReportTable:
    tiles = (record.get(DAMAGED) or {}).get("tiles", ())
    rows = [
        (STAIN_TITLES[stain], tile["level"], *tile["origin_px"], *tile["size_px"], tile["reason"])
        for tile in tiles[:_LISTED_TILES]
    ]
    columns = ("slide", "level", "row [px]", "column [px]", "rows", "columns", "reason")
    note = (
        "These tiles could not be decoded. Their area is not tissue in this case, and objects that "
        f"touch them are excluded. Up to {_LISTED_TILES} tiles of each slide are listed."
    )
    return ReportTable("Damaged tiles", columns, tuple(rows), note)


def _artefacts(stain: str, record: Mapping[str, Any]) -> ReportTable:
    title = STAIN_TITLES[stain]
    rows: list[tuple[object, ...]] = [(title, *row) for row in _areas(record)]
    if _cleared_mm2(record):
        rows.append((title, "detected, cleared manually", _cleared_mm2(record), None))
    columns = ("slide", "artefact", "area [mm²]", "marked manually [mm²]")
    note = (
        "Manually marked artefacts are excluded from the tissue mask and from every statistic. "
        "The settings of the tissue steps decide which detected artefacts are excluded."
    )
    return ReportTable("Artefacts", columns, tuple(rows), note)


def _tile_layers(results: CaseResults, choice: str) -> list[LayerSpec]:
    grid = results.get(TILES)
    return [] if grid is None else [layers.tiles_layer(grid)]


def _tile_line(results: CaseResults) -> str:
    grid = results.read(TILES)
    return count(len(grid), "tile")


TISSUE_VIEWS = tuple(
    StepView(
        step=maker_of(TISSUE[stain]),
        layers=partial(_layers, stain),
        base_slide=stain,
        result_line=partial(_line, stain),
        report=partial(_report, stain),
    )
    for stain in STAINS
)
TILES_VIEW = StepView(
    step=maker_of(TILES), layers=_tile_layers, base_slide=REFERENCE, result_line=_tile_line
)
