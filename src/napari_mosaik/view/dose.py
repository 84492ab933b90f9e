"""The results of the dose what-if: maps on one scale for all plans, words, rows and figures.

DOSE, DOSE_RECORD ──read_dose──► {plan: PlanDose} ──► layers, hover line, table, histogram
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_mosaik.core import FloatArray, Table, TileGrid, palette
from napari_mosaik.core.catalogue import DOSE, DOSE_RECORD, TILES, WARNINGS
from napari_mosaik.io.case import Case
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.figure import axis_label, new_figure, note, tidy
from napari_mosaik.view.formatting import count, number, percent
from napari_mosaik.view.maps import common_limits, scalar_layer
from napari_mosaik.view.spec import LayerSpec
from napari_mosaik.workflow.dose_exchange import write_activity, write_dose
from napari_mosaik.workflow.plan_dose import SOURCE_TITLES
from napari_mosaik.workflow.plan_record import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "DOSE_FIGURES",
    "DOSE_MAPS",
    "DoseResults",
    "PlanDose",
    "dose_results",
    "dose_time_figure",
    "dose_volume_figure",
    "index_tips",
    "monte_carlo_lines",
    "organ_lines",
    "read_dose",
]

DOSE_MAPS: Final = {
    "dose": "Absorbed dose",
    "alpha": "Absorbed dose (alpha particles)",
    "bed": "BED",
    "survival": "Survival (log10)",
    "width": "Width of the 90 % interval",
}
"""Titles of the maps of a plan by key, in their order."""
_COLUMNS: Final = {"dose": "dose_gy", "alpha": "alpha_particle_gy", "bed": "bed_gy"}
_COLORMAPS: Final = {
    "survival": palette.CHANGE_COLORMAP,
    "width": palette.UNCERTAINTY_COLORMAP,
}
_INDEX_TITLES: Final = {
    "d98_gy": "D98",
    "d50_gy": "D50",
    "d2_gy": "D2",
    "mean_gy": "Mean",
    "eud_gy": "EUD",
    "tcp": "TCP",
}
_INDEX_TIPS: Final = {
    "d98_gy": "98 % of the weight have at least this absorbed dose",
    "d50_gy": "Half of the weight has at least this absorbed dose",
    "d2_gy": "2 % of the weight have at least this absorbed dose",
    "mean_gy": "Mean absorbed dose; a mean says nothing about cold tiles",
    "eud_gy": "Uniform dose with the same mean survival",
    "tcp": "Tumour control probability, 0 to 1, for the cells of the plan; overstated from PET",
}
_LN10: Final = math.log(10)
_MARKERS: Final = (("d98_gy", 98.0, "v"), ("d50_gy", 50.0, "o"), ("d2_gy", 2.0, "^"))
_HOURS: Final = 24.0
_USUAL_CV: Final = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class PlanDose:
    """What was computed for one plan.

    Attributes
    ----------
    name
        Of the plan.
    record
        Indices, histogram, time course, shares, constants and warnings of the plan.
    table
        Columns of all plans, (n_tiles,) each.
    """

    name: str
    record: Mapping[str, Any]
    table: Table

    def column(self, name: str) -> FloatArray | None:
        """A column of this plan (n_tiles,), Gy or dimensionless by its name; None without it."""
        key = f"{self.name}.{name}"
        return np.asarray(self.table[key], float) if key in self.table else None

    def has(self, column: str) -> bool:
        """Whether a quantity is above 0 anywhere."""
        values = self.column(f"{column}_50")
        return values is not None and bool((np.nan_to_num(values) > 0).any())

    @property
    def leading(self) -> str:
        """Column of the larger absorbed dose: that of electrons, or of alpha particles."""
        medians = {}
        for column in ("dose_gy", "alpha_particle_gy"):
            values = self.column(f"{column}_50")
            known = values is not None and np.isfinite(values).any()
            medians[column] = float(np.nanmedian(values)) if known and values is not None else 0.0
        return max(medians, key=medians.__getitem__)

    def values(self, key: str) -> FloatArray | None:
        """A map of `DOSE_MAPS` (n_tiles,), Gy or log10; None where the plan has none."""
        if key == "width":
            low, high = (self.column(f"{self.leading}_{end}") for end in ("05", "95"))
            return None if low is None or high is None or not self.has(self.leading) else high - low
        if key == "survival":
            ln_s = self.column("ln_survival_50")
            return None if ln_s is None else ln_s / _LN10
        column = _COLUMNS[key]
        return self.column(f"{column}_50") if self.has(column) else None

    def line(self, tile: int) -> str:
        """A tile in words: "41 Gy (30 to 55), BED 47 Gy, 12 % hypoxic"; empty where unknown."""
        parts = []
        for column, words in (("dose_gy", ""), ("alpha_particle_gy", " alpha particles")):
            low, middle, high = (self._at(f"{column}_{end}", tile) for end in ("05", "50", "95"))
            if middle is not None and self.has(column):
                ends = f"{number(low, digits=2)} to {number(high, digits=2)}"
                parts.append(f"{number(middle, 'Gy', digits=2)}{words} ({ends})")
        bed, hypoxic = self._at("bed_gy_50", tile), self._at("hypoxic_share", tile)
        if bed is not None:
            parts.append(f"BED {number(bed, 'Gy', digits=2)}")
        if hypoxic is not None:
            parts.append(f"{percent(hypoxic)} hypoxic")
        return ", ".join(parts) if bed is not None else ""

    def _at(self, column: str, tile: int) -> float | None:
        values = self.column(column)
        if values is None or not 0 <= tile < len(values) or not np.isfinite(values[tile]):
            return None
        return float(values[tile])

    # --- words ----------------------------------------------------------------------------------
    @property
    def source_line(self) -> str:
        """The largest source of uncertainty with its share."""
        name = str(self.record.get("largest_source", ""))
        if not name:
            why = self.record.get("shares", {}).get("not_available", "not available")
            return f"Largest source of uncertainty: {why}"
        share = self.record["shares"]["total"]["ln_survival_mean"][name]
        words = f"{100 * min(share, 1.0):.0f} % of the variance of the logarithm of mean survival"
        return f"Largest source of uncertainty: {SOURCE_TITLES[name]}, {words}"

    @property
    def basis_line(self) -> str:
        """What was used: uptake, tiles, weight."""
        record = self.record
        words = f"{record['uptake']} uptake of {record['n_tiles']} tiles, weighted by "
        words += str(record["weight"])
        without = record.get("n_without_uptake", 0)
        return words + (f"; {count(without, 'tile')} without uptake" if without else "")

    @property
    def doubts(self) -> list[str]:
        """Warnings, and what was not available."""
        return [*self.record.get(WARNINGS, ()), *self.record.get("not_available", ())]

    def unseen_line(self, cv: float) -> str:
        """What an unseen variation within a tile does to EUD and TCP, beside none.

        For none (0) it tells what a usual one would do.
        """
        cv = cv or _USUAL_CV
        rows = self.record.get("unseen_variation") or ()
        if not rows:
            return ""
        known = [float(row["cv"]) for row in rows]
        words = []
        for key, title, unit in (("eud_gy", "EUD", "Gy"), ("tcp", "TCP", "")):
            values = [row.get(key) for row in rows]
            if any(value is None for value in values):
                continue
            found = float(np.interp(cv, known, np.array(values, float)))
            words.append(
                f"{title} {number(found, unit)} instead of {number(float(values[0]), unit)}"
            )
        if "tcp" not in rows[0] or rows[0]["tcp"] is None:
            words.append("no TCP without the clonogenic cells or the volume of the tumour")
        return f"CV {cv:g}, other assumptions at their medians: {'; '.join(words)}"

    def index_rows(self, other: PlanDose | None = None) -> list[tuple[str, ...]]:
        """Index, median and 90 % interval; those of *other*, and the difference."""
        found, beside = self.record["indices"], {} if other is None else other.record["indices"]
        rows = []
        for key, title in _INDEX_TITLES.items():
            if key not in found and key not in beside:
                continue
            row = [f"{title}, Gy" if key.endswith("_gy") else title, _range(found.get(key))]
            if other is not None:
                row += [_range(beside.get(key)), _range(self._difference(other, key))]
            rows.append(tuple(row))
        return rows

    def _difference(self, other: PlanDose, key: str) -> dict[str, float] | None:
        """This plan minus *other*, draw by draw; None where their draws are not the same ones."""
        drawn = [plan.record["drawn"].get(key) for plan in (self, other)]
        plans = [plan.record["plan"] for plan in (self, other)]
        if None in drawn or any(plans[0][n] != plans[1][n] for n in ("draws", "seed")):
            return None
        ends = np.percentile(np.array(drawn[0]) - np.array(drawn[1]), (5, 50, 95))
        return dict(zip(("low", "median", "high"), map(float, ends), strict=True))

    def constant_rows(self) -> list[tuple[str, str, str]]:
        """Name, value and source of every constant."""
        return [
            (_constant_title(one["name"]), _shown(one["value"]), str(one["source"]))
            for one in self.record["constants"]
        ]


def _constant_title(name: str) -> str:
    """The label of a setting of the plan with its unit, or the name of another constant."""
    info = Plan.model_fields.get(name)
    extra: Any = {} if info is None else info.json_schema_extra
    words = extra.get("label") or name.replace("_", " ")
    return f"{words}, {extra['unit']}" if extra.get("unit") else words


def _shown(value: Any) -> str:
    """A number, or several, as text."""
    if isinstance(value, list | tuple):
        return "; ".join(_shown(one) for one in value)
    return number(value) if isinstance(value, int | float) else str(value)


def index_tips(one: PlanDose, other: PlanDose | None = None) -> list[str]:
    """What each index of `PlanDose.index_rows` means."""
    beside = {} if other is None else other.record["indices"]
    return [_INDEX_TIPS[k] for k in _INDEX_TITLES if k in one.record["indices"] or k in beside]


def _range(one: Mapping[str, float] | None) -> str:
    """A median with its interval on a second line."""
    if one is None:
        return "not available"
    low, high = (number(one[end], digits=2) for end in ("low", "high"))
    return f"{number(one['median'])}\n({low} to {high})"


@dataclass(frozen=True, slots=True, eq=False)
class DoseResults:
    """What was computed for all plans of a case, and the tiles."""

    plans: Mapping[str, PlanDose]
    grid: TileGrid
    limitations: Sequence[str]

    def limits(self, key: str) -> tuple[float, float] | None:
        """Ends of the colour scale of a map, Gy or log10: one for all plans."""
        found = [values for one in self.plans.values() if (values := one.values(key)) is not None]
        if not found:
            return None
        low, high = common_limits(*found)
        return (low, high) if key == "survival" else (0.0, high or 1.0)

    def keys(self, *names: str) -> list[str]:
        """Keys of the maps that all of these plans have."""
        chosen = [self.plans[name] for name in names]
        return [key for key in DOSE_MAPS if all(one.values(key) is not None for one in chosen)]

    def layer(self, name: str, key: str, *, visible: bool = True) -> LayerSpec | None:
        """One map of a plan as a layer; None without it."""
        values, limits = self.plans[name].values(key), self.limits(key)
        if values is None or limits is None:
            return None
        unit = "1" if key == "survival" else "Gy"
        about = f"plan {name}; one scale for all plans; what-if, not a treatment plan"
        if key == "width":
            of = "alpha particles" if self.plans[name].leading != "dose_gy" else "electrons"
            about = f"of the absorbed dose of {of}; {about}"
        title = DOSE_MAPS[key] if len(self.plans) == 1 else f"{DOSE_MAPS[key]} · {name}"
        colormap = _COLORMAPS.get(key, palette.DOSE_COLORMAP)
        return scalar_layer(
            self.grid.paint(values, unit), title, colormap, limits, unit, None,
            visible=visible, result=DOSE.name, note=about,
        )  # fmt: skip

    def export(self, name: str, folder: Path, case: Case) -> Path:
        """Write a plan into a new folder below *folder*: ``tiles.csv``, maps, ``record.json``.

        The maps are OME-Zarr images in Gy or log10.  A plan of one nuclide also gives
        ``activity.nii`` with a JSON beside it, for Monte Carlo programs.

        Raises
        ------
        InputError
            If the new folder is there already.
        """
        one = self.plans[name]
        target = folder / f"{case.name} {name}"
        maps = {key: one.values(key) for key in self.keys(name)}
        rasters = {
            DOSE_MAPS[key]: self.grid.paint(values, "1" if key == "survival" else "Gy")
            for key, values in maps.items()
            if values is not None
        }
        record = {
            "case": case.name, "name": name, **one.record, "limitations": list(self.limitations)
        }  # fmt: skip
        prefix = f"{name}."
        own = {c.removeprefix(prefix): one.table[c] for c in one.table if c.startswith(prefix)}
        units = {column: one.table.unit(prefix + column) for column in own}
        write_dose(target, self.grid, Table(own, units), rasters, record)
        if len({course["nuclide"] for course in one.record["plan"].get("courses", ())}) == 1:
            write_activity(case, name, target / "activity.nii")
        return target


def dose_results(results: CaseResults) -> DoseResults | None:
    """The stored results of all plans; None before they were computed, or for other tiles."""
    table, record, grid = results.get(DOSE), results.get(DOSE_RECORD), results.get(TILES)
    if table is None or record is None or grid is None or len(table) != len(grid):
        return None
    plans = {name: PlanDose(name, one, table) for name, one in record["plans"].items()}
    return DoseResults(plans, grid, tuple(record["limitations"]))


def read_dose(case: Case) -> DoseResults | None:
    """The stored results of all plans of a case, as `dose_results`."""
    return dose_results(CaseResults(case))


def monte_carlo_lines(found: Mapping[str, Any]) -> list[str]:
    """A dose map of a Monte Carlo program beside that of a plan, in words; Gy."""
    own, other = found["plan"], found["monte_carlo"]
    lines = [f"{found['file']}, {count(found['n_tiles'], 'tile')}: Monte Carlo beside the plan"]
    for key in ("d98_gy", "d50_gy", "d2_gy", "mean_gy"):
        pair = (number(one[key], "Gy") for one in (other, own))
        lines.append(f"{_INDEX_TITLES[key]}: {' beside '.join(pair)}")
    ratio = number(found["mean_ratio"], missing="not available")
    largest = number(found["largest_gy"], "Gy")
    return [*lines, f"Ratio of the means {ratio}; largest difference of a tile {largest}"]


def organ_lines(found: Mapping[str, Any]) -> list[str]:
    """What a table of organs says about the activity of a plan, in words; Gy and MBq."""
    lines = [
        f"{one['organ']}: {number(one['gy'], 'Gy')} of {number(one['limit_gy'], 'Gy')} "
        f"({percent(one['share_of_limit'])} of the limit)"
        for one in found["organs"]
    ]
    largest, sure = (number(found[key], "MBq") for key in ("largest_mbq", "confident_mbq"))
    return [
        f"{found['file']}, {found['nuclide']}; the plan has {number(found['plan_mbq'], 'MBq')}",
        *lines,
        f"The limits are met up to {largest} ({found['organ']}), and all of them together in 95 % "
        f"of the draws up to {sure}. A what-if from your table; no recommendation.",
    ]


# --- figures --------------------------------------------------------------------------------------
def dose_volume_figure(plans: Sequence[PlanDose], *, title: str = "") -> Figure:
    """Dose-volume histogram of up to four plans with the 90 % band and D98, D50, D2."""
    figure = new_figure(4.4, 3.2)
    shown = [one for one in plans if one.record["indices"].get("d50_gy")]
    weight = str(shown[0].record["weight"]) if shown else "tissue"
    axes = tidy(
        figure.add_subplot(),
        axis_label("absorbed dose of the nuclides", "Gy"),
        axis_label(f"{weight} with at least this dose", "%"),
        title,
    )
    if not shown:
        note(axes, "external beam only: no absorbed dose of a nuclide")
        return figure
    for one, colour in zip(shown, palette.PLAN_COLOURS, strict=False):
        histogram = {key: np.asarray(v, float) for key, v in one.record["histogram"].items()}
        dose = histogram["dose_gy"]
        axes.fill_between(dose, histogram["low"], histogram["high"], color=colour, alpha=0.25, lw=0)
        axes.plot(dose, histogram["median"], color=colour, lw=1.6, label=one.name)
        for key, share, mark in _MARKERS:
            middle = one.record["indices"][key]["median"]
            axes.plot(middle, share, mark, color=colour, ms=6)
            if one is shown[0]:
                place, title = (middle, share), _INDEX_TITLES[key]
                axes.annotate(title, place, (6, 3), textcoords="offset points", fontsize=7)
    axes.set_ylim(0, 103)
    axes.set_xlim(left=0)
    axes.legend(fontsize=7, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def dose_time_figure(plans: Sequence[PlanDose], *, title: str = "") -> Figure:
    """Dose rate and unrepaired damage against time, of the tile with the median dose."""
    figure = new_figure(4.4, 3.8)
    upper, lower = figure.subplots(2, 1, sharex=True)
    tidy(upper, "", axis_label("dose rate", "Gy/h"), title)
    tidy(lower, axis_label("time", "days"), axis_label("unrepaired", "Gy"))
    for one, colour in zip(plans, palette.PLAN_COLOURS, strict=False):
        course = one.record["time_course"]
        day = np.asarray(course["time_h"], float) / _HOURS
        label = f"{one.name} (tile {course['tile']})"
        _rate(upper, day, course, colour, label)
        lower.plot(day, course["unrepaired_gy"], color=colour, lw=1.2)
        critical = course.get("critical_time_h")
        if critical:
            for axes in (upper, lower):
                axes.axvline(critical / _HOURS, color=colour, ls=":", lw=1)
    for axes in (upper, lower):
        axes.set_ylim(bottom=0)
    upper.legend(fontsize=7, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def _rate(axes: Axes, day: FloatArray, course: Mapping[str, Any], colour: str, label: str) -> None:
    """Dose rates of electrons and alpha particles, Gy/h, at days (t,)."""
    axes.plot(day, course["electron_gy_h"], color=colour, lw=1.4, label=label)
    high = np.asarray(course["alpha_particle_gy_h"], float)
    if (high > 0).any():
        axes.plot(day, high, color=colour, lw=1.2, ls="--", label="alpha particles")


DOSE_FIGURES: Final = {
    "Dose-volume histogram": dose_volume_figure,
    "Dose rate and unrepaired damage": dose_time_figure,
}
"""Figures of plans by title."""
