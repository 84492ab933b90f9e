"""What an update or a retraining has changed: lines, rows of a table, layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mosaik.core import Raster, Transform, palette
from napari_mosaik.view.case_results import transform_to_reference
from napari_mosaik.view.formatting import count, duration, heading, number, percent, unit_words
from napari_mosaik.view.layers import classes_layer
from napari_mosaik.view.maps import common_limits, parameter_layer
from napari_mosaik.view.spec import LayerSpec
from napari_mosaik.workflow.annotations import RetrainingEffect
from napari_mosaik.workflow.worth import ChangeMaps, change_maps

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case

__all__ = ["WorthRow", "change_layers", "retraining_lines", "worth_lines", "worth_rows"]

CHANGED_CLASSES = "Changed tissue classes"


@dataclass(frozen=True, slots=True)
class WorthRow:
    """One quantity before and after: title with unit, values, and a remark."""

    title: str
    before: float | None
    after: float | None
    change: float | None
    note: str = ""


def worth_rows(record: Mapping[str, Any]) -> list[WorthRow]:
    """The record of `workflow.worth` as a table: the uptake, areas, clusters, parameters.

    Parameters and clusters that did not change are left out.
    """
    areas = record["classes"].get("area_mm2", {})
    return [
        *_uptake_rows(record),
        *(_row(f"Area {name} (mm²)", area) for name, area in areas.items()),
        *_tile_rows(record),
    ]


def _uptake_rows(record: Mapping[str, Any]) -> list[WorthRow]:
    rows, suv, error = [], record["prediction"], record["error"]
    if suv:
        note = f"{count(suv['n_changed'], 'tile')} changed"
        if suv["low"] is not None:
            note += f"; 95 % interval of the change {number(suv['low'])} to {number(suv['high'])}"
        rows.append(_row(f"Mean predicted SUV ({suv['unit']})", suv, note))
    if error:
        rows.append(_row(f"Mean absolute error ({error['unit']})", error))
        rows.append(_row("Mean absolute error, normalised", error["normalised"]))
    return rows


def _tile_rows(record: Mapping[str, Any]) -> list[WorthRow]:
    """Clusters and parameters of which a tile changed."""
    rows = []
    for name, labels in record["clusters"].items():
        note = f"{count(labels['n_changed'], 'tile')} changed"
        kinds = ("hot", "cold") if labels["n_changed"] else ()
        rows += [_row(f"{heading(name)}: {kind} tiles", labels[kind], note) for kind in kinds]
    for name, value in record["parameters"].items():
        words = unit_words(value["unit"])
        unit = f" in {words}" if words else ""
        note = f"{count(value['n_changed'], 'tile')} changed"
        if value["n_changed"]:
            rows.append(_row(f"{heading(name)}, mean{unit}", value, note))
    return rows


def _row(title: str, value: Mapping[str, Any], note: str = "") -> WorthRow:
    return WorthRow(title, value["before"], value["after"], value["change"], note)


def worth_lines(record: Mapping[str, Any] | None, *, blind: bool = False) -> tuple[str, ...]:
    """What the last update was worth, in lines for the window; *blind* ones tell no error."""
    if record is None:
        return ("Nothing to compare yet.",)
    first = f"Recomputed: {count(record['n_tiles'], 'tile')} in {duration(record['seconds'])}."
    changed, error = record["classes"].get("changed_fraction"), record["error"]
    lines = [f"tissue classes: changed in {percent(changed)} of the tissue"] if changed else []
    for name, area in record["classes"].get("area_mm2", {}).items():
        if area["change"]:
            lines.append(f"{name}: {number(area['before'])} → {number(area['after'], 'mm²')}")
    if error and error["change"] and not blind:
        after = number(error["after"], error["unit"])
        lines.append(f"mean absolute error: {number(error['before'])} → {after}")
    rows = [*_uptake_rows({**record, "error": {}}), *_tile_rows(record)]
    for row in rows:
        note = f" ({row.note})" if row.note else ""
        if row.change:
            lines.append(f"{row.title}: {number(row.before)} → {number(row.after)}{note}")
    return (first, *(lines or ["No area, parameter, cluster or prediction changed."]))


def retraining_lines(effect: RetrainingEffect) -> tuple[str, ...]:
    """Tissue classes, their areas and the prediction error before and after, with units."""
    before, after = effect.before, effect.after
    lines = []
    if effect.changed_fraction is not None:
        lines.append(f"tissue classes: changed in {percent(effect.changed_fraction)} of the tissue")
    elif effect.compared:
        lines.append("The size of the tissue class map changed.")
    for name, area in (after.areas_mm2 or {}).items():
        old = (before.areas_mm2 or {}).get(name)
        change = number(area, "mm²") if old is None else f"{number(old)} → {number(area, 'mm²')}"
        lines.append(f"{name}: {change}")
    if before.mae is not None and after.mae is not None:
        lines.append(
            f"mean absolute error: {number(before.mae_suv)} → {number(after.mae_suv, after.unit)} "
            f"({number(before.mae)} → {number(after.mae)} normalised)"
        )
    return tuple(lines) or ("Nothing to compare yet.",)


def change_layers(case: Case) -> list[LayerSpec]:
    """Maps of what the last update of a case has changed, after minus before."""
    difference = change_maps(case)
    return [] if difference is None else _layers(difference, transform_to_reference(case, "he"))


def _layers(difference: ChangeMaps, to_reference: Transform | None) -> list[LayerSpec]:
    layers = []
    if difference.classes is not None:
        layer = classes_layer(difference.classes, to_reference)
        assert layer.legend is not None
        legend = replace(layer.legend, title=CHANGED_CLASSES, note="class after the update")
        layers.append(replace(layer, name=CHANGED_CLASSES, legend=legend, opacity=0.8))
    columns = dict(difference.parameters)
    if difference.suv is not None and np.nan_to_num(difference.suv).any():
        columns = {"suv": difference.suv, **columns}
    for place, (name, values) in enumerate(columns.items()):
        if difference.grid is None:
            break
        title = "predicted SUV" if name == "suv" else heading(name)
        painted: Raster = difference.grid.paint(np.where(values == 0, np.nan, values))
        reach = max(abs(limit) for limit in common_limits(painted.values))
        layer = parameter_layer(
            painted,
            name,
            unit=difference.units.get(name, "1"),
            limits=(-reach, reach),
            colormap=palette.DIFFERENCE_COLORMAP,
            visible=place == 0,
            result="",
        )
        shown = f"Change of {title[:1].lower() + title[1:] if not title[:2].isupper() else title}"
        assert layer.legend is not None
        layers.append(
            replace(layer, name=shown, legend=replace(layer.legend, title=shown,
                    note="after minus before the update"))
        )  # fmt: skip
    return layers
