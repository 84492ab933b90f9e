"""The dose what-if in the report of a case: tables, one figure, warnings and limitations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from napari_mosaik.core.catalogue import DOSE_RECORD, WARNINGS
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.figure import axis_label, new_figure, tidy
from napari_mosaik.view.formatting import percent
from napari_mosaik.view.report.html import ReportFigure, ReportTable
from napari_mosaik.workflow.plan_dose import SOURCE_TITLES

__all__ = [
    "INDEX_WORDS",
    "dose_figure",
    "dose_limitations",
    "dose_tables",
    "dose_warnings",
]

INDEX_WORDS: Final = {
    "d98_gy": ("D98", "Gy"),
    "d50_gy": ("D50", "Gy"),
    "d2_gy": ("D2", "Gy"),
    "mean_gy": ("mean absorbed dose", "Gy"),
    "eud_gy": ("equivalent uniform dose", "Gy"),
    "tcp": ("tumour control probability", ""),
}
"""Words and unit of each index."""
_WHAT_IF: Final = "Research what-if, not a treatment plan."


def _plans(results: CaseResults) -> Mapping[str, Any]:
    """Records of the plans by name; empty without results."""
    found = results.get(DOSE_RECORD)
    plans: Mapping[str, Any] = {} if found is None else found["plans"]
    return plans


def dose_tables(results: CaseResults) -> list[ReportTable]:
    """Plans, indices, sources of uncertainty, what differs within a tile, and constants."""
    plans = _plans(results)
    if not plans:
        return []
    return [
        _definitions(plans),
        _indices(plans),
        *_shares(plans),
        *_unseen(plans),
        _constants(plans),
    ]


def _definitions(plans: Mapping[str, Any]) -> ReportTable:
    rows = []
    for name, own in plans.items():
        plan = own["plan"]
        courses = "; ".join(
            f"day {c['day']:g}: {c['activity']:g} {c['unit']} {c['nuclide']}"
            for c in plan["courses"]
        )
        beam = "; ".join(
            f"{f['number']} x {f['dose_gy']:g} Gy from day {f['day']:g}" for f in plan["fractions"]
        )
        used = (f"{own['uptake']}; {own['error_fields']}", plan["shape"], plan["kernel"])
        used = used if courses else ("not used",) * 3
        rows.append((name, courses or "none", beam or "none", *used))
    columns = ("plan", "courses", "external beam", "uptake", "time course", "kernel")
    missing = [f"{n}: {text}" for n, own in plans.items() for text in own["not_available"]]
    note = " ".join([_WHAT_IF, *(f"Not available: {text}." for text in missing)])
    return ReportTable("Dose what-if: plans", columns, tuple(rows), note)


def _indices(plans: Mapping[str, Any]) -> ReportTable:
    rows = [
        (name, words, unit, own["indices"][key]["median"], *_ends(own["indices"][key]))
        for name, own in plans.items()
        for key, (words, unit) in INDEX_WORDS.items()
        if key in own["indices"]
    ]
    weights = "; ".join(f"{name}: {own['weight']}" for name, own in plans.items())
    note = (
        "Absorbed dose of the nuclides, electrons and alpha particles, without external beams; the "
        "equivalent uniform dose counts both. Limits: 5 and 95 % of the draws. Weight of a tile: "
        f"{weights}."
    )
    columns = ("plan", "index", "unit", "median", "low", "high")
    return ReportTable("Dose what-if: indices", columns, tuple(rows), note)


def _ends(index: Mapping[str, float]) -> tuple[float, float]:
    return index["low"], index["high"]


def _shares(plans: Mapping[str, Any]) -> list[ReportTable]:
    rows: list[tuple[object, ...]] = []
    for name, own in plans.items():
        total = own["shares"].get("total", {})
        for source in own["shares"].get("sources", ()):
            cells = [
                percent(total[output][source]) if output in total else "no dose"
                for output in ("ln_dose_mean", "ln_survival_mean")
            ]
            rows.append((name, SOURCE_TITLES[source], *cells))
    if not rows:
        return []
    columns = ("plan", "source", "of ln dose", "of −ln survival")
    note = (
        "Share of the variance over the draws, with interactions (Sobol), of the mean dose and the "
        "mean survival of the tissue."
    )
    return [ReportTable("Dose what-if: sources of uncertainty", columns, tuple(rows), note)]


def _unseen(plans: Mapping[str, Any]) -> list[ReportTable]:
    rows = tuple(
        (name, row["cv"], row["eud_gy"], row["tcp"])
        for name, own in plans.items()
        for row in own["unseen_variation"]
    )
    if not rows:
        return []
    columns = ("plan", "CV within a tile", "EUD, Gy", "tumour control probability")
    note = (
        "What differences within a tile, which no PET sees, would do at the median of all "
        "assumptions. Tumour control needs a number of clonogenic cells."
    )
    return [ReportTable("Dose what-if: differences that the PET hides", columns, rows, note)]


def _constants(plans: Mapping[str, Any]) -> ReportTable:
    """One row for plans that share a constant; numbers with six digits, not rounded for reading."""
    shared: dict[tuple[str, str, str], list[str]] = {}
    for name, own in plans.items():
        for row in own["constants"]:
            shared.setdefault((row["name"], _value(row["value"]), row["source"]), []).append(name)
    rows = tuple(
        ("all" if len(names) == len(plans) else ", ".join(dict.fromkeys(names)), *constant)
        for constant, names in shared.items()
    )
    columns = ("plan", "constant", "value", "source")
    return ReportTable("Dose what-if: constants", columns, rows)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, int | float) else str(value)


def dose_figure(results: CaseResults) -> ReportFigure | None:
    """Dose-volume histogram of each plan with a nuclide, with its 90 % band."""
    plans = {name: own for name, own in _plans(results).items() if own["plan"]["courses"]}
    if not plans:
        return None
    figure = new_figure(5.6, 3.8)
    axes = tidy(
        figure.add_subplot(),
        axis_label("absorbed dose", "Gy"),
        axis_label("weight with at least that dose", "%"),
    )
    for name, own in plans.items():
        band = own["histogram"]
        dose = np.asarray(band["dose_gy"], float)
        (line,) = axes.plot(dose, band["median"], lw=1.8, label=name)
        axes.fill_between(dose, band["low"], band["high"], alpha=0.2, color=line.get_color())
    axes.set_ylim(0, 102)
    axes.set_xlim(left=0)
    axes.legend(fontsize=8, frameon=False)
    return ReportFigure(
        "Dose-volume histogram of the dose what-if.",
        figure,
        "Median and 90 % of the draws. From PET it is steeper than the truth: differences finer "
        "than about 1.5 mm are hidden, and tumour control is overstated.",
    )


def dose_limitations(results: CaseResults) -> tuple[str, ...]:
    """The sentences that stand beside every dose; empty without results."""
    found = results.get(DOSE_RECORD)
    return () if found is None else tuple(map(str, found["limitations"]))


def dose_warnings(results: CaseResults) -> tuple[str, ...]:
    """Doubts about the plans and their results."""
    found = results.get(DOSE_RECORD)
    return () if found is None else tuple(map(str, found[WARNINGS]))
