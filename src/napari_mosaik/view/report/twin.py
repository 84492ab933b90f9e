"""The updating twin in the report of a case: tables, one figure, warnings and limitations."""

from __future__ import annotations

import numpy as np

from napari_mosaik.twin import predict
from napari_mosaik.view.figure import axis_label, new_figure, tidy
from napari_mosaik.view.report.html import ReportFigure, ReportTable
from napari_mosaik.workflow.twin import TWIN_LIMITS, CaseTwin

__all__ = [
    "twin_figure",
    "twin_limitations",
    "twin_tables",
    "twin_warnings",
]


def twin_tables(twin: CaseTwin | None) -> list[ReportTable]:
    """What was predicted of each scan and what it showed; parameters with their words."""
    if twin is None:
        return []
    scans = tuple(
        (
            f"{one['time_h']:g}", one["region"], one["prediction"]["median"],
            one["prediction"]["low"], one["prediction"]["high"], one["mean"], one["z"],
            one["log_score"], one["prediction"]["stored_at"], one["taken_in_at"],
        )
        for one in twin.updates
    )  # fmt: skip
    parameters = tuple(
        (row["name"], row["prior_median"], row["median"], row["low"], row["high"],
         row["contraction"], row["word"])
        for row in twin.updates[-1]["parameters"]
    )  # fmt: skip
    return [
        ReportTable(
            "Updating twin: scans",
            (
                "time, h", "region", f"predicted, {twin.unit}", "5 %", "95 %", "seen", "z",
                "log score", "predicted at", "taken in at",
            ),
            scans,
            "Each scan was predicted, its noise included, and the prediction stored before the "
            "scan was taken in.",
        ),
        ReportTable(
            "Updating twin: parameters",
            ("parameter", "prior median", "median", "5 %", "95 %", "contraction", "determined"),
            parameters,
            f"{TWIN_LIMITS} Vessel surface {twin.start['surface_density_per_um']:.4g} /µm: "
            f"{twin.start['surface_source']}.",
        ),
    ]  # fmt: skip


def twin_figure(twin: CaseTwin | None) -> ReportFigure | None:
    """Curve of the tumour with its 90 % band, and the scans."""
    if twin is None:
        return None
    figure = new_figure(5.6, 3.8)
    axes = tidy(
        figure.add_subplot(), axis_label("time after injection", "h"), f"tumour, {twin.unit}"
    )
    seen = [row for row in twin.taken if row.region == "tumour"]
    times = np.linspace(1, max([row.time_h for row in twin.taken] + [336.0]), 60)
    curve = predict(twin.posterior, times)
    axes.plot(times, curve.median, lw=1.8)
    axes.fill_between(times, curve.low, curve.high, alpha=0.2)
    axes.errorbar(
        [row.time_h for row in seen], [row.mean for row in seen],
        yerr=[row.mean * row.ln_sd for row in seen], fmt="o", ms=4, color="black", capsize=2,
    )  # fmt: skip
    axes.set_ylim(bottom=0)
    return ReportFigure(
        "Updating twin: the tumour over time.",
        figure,
        "Median and 90 % of the curve after all scans that were taken in; bars: noise of a scan.",
    )


def twin_limitations(twin: CaseTwin | None) -> tuple[str, ...]:
    """The sentence that stands beside every twin; empty before the first scan."""
    return () if twin is None else (TWIN_LIMITS,)


def twin_warnings(twin: CaseTwin | None) -> list[str]:
    """Scans far from their prediction, and scans that changed after they were taken in."""
    return [] if twin is None else twin.warnings
