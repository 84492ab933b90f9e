"""The parts of the report of a case, and the report as one self-contained HTML file."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from napari_mosaik.core.palette import STATUS_COLOURS
from napari_mosaik.view.formatting import STATE_MARKS, baseline_title, number, title_of
from napari_mosaik.view.report.validation import SheetRow, validation_sheet

if TYPE_CHECKING:
    from jinja2 import Template
    from matplotlib.figure import Figure

__all__ = [
    "ReportData",
    "ReportFigure",
    "ReportMetrics",
    "ReportTable",
    "StepState",
    "badges_of",
    "build_report",
    "cell_words",
    "exact_words",
    "metric_table",
    "png_of",
]


@dataclass(frozen=True, slots=True)
class StepState:
    """A step of the pipeline: title, state ("done", "stale"...), its reason, and what it does."""

    title: str
    state: str
    detail: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A table; numbers are shown with three significant digits, missing ones as "not available".

    Parameters
    ----------
    title
        Heading.
    columns
        Names of the columns, with units.
    rows
        Cells: text, numbers or None.
    note
        A sentence below the table.
    soft
        Indices of the rows that are greyed.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    note: str = ""
    soft: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class ReportFigure:
    """A figure (or the bytes of a PNG) with its title and caption; a *wide* one has its own row."""

    title: str
    figure: Figure | bytes
    caption: str = ""
    wide: bool = False


@dataclass(frozen=True, slots=True)
class ReportMetrics:
    """Errors of the predictor and of the baselines, in one unit and at one level.

    Parameters
    ----------
    title
        Quantity and level: "normalised SUV, tile level".
    predictor
        Value by name ("mae", "mse", "r2"...).
    baselines
        The same for each baseline by its name.
    note
        Number of patients, tiles and independent samples.
    references
        Names of the baselines that know the PET of the case: no predictors, so they are greyed.
    """

    title: str
    predictor: Mapping[str, float | None]
    baselines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    note: str = ""
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class ReportData:
    """Everything that a report shows.

    Parameters
    ----------
    case, patient
        Names; the patient by pseudonym.
    made
        Date and time of the report, as text.
    summary
        (name, value as text) pairs for the head of the report.
    states
        The steps of the pipeline with their states.
    metrics
        Errors of the predictor and of the baselines.
    tables, figures
        In the order of the report.
    warnings
        Sentences that are shown first.
    limitations
        Sentences on limitations and intended use.
    checks
        Rows of the verification and validation sheet; areas without one are "not available".
    provenance
        Value by name in each group ("Versions", "Results", "Settings").
    shared_patient
        The training set has another case of the same patient.
    seen_in_training
        The case itself is in the training set.
    development_case
        The case was used to develop the method.
    updates_with_new_images
        The model was updated with new images of the patient; only then the report calls it a twin.
    """

    case: str
    patient: str = ""
    made: str = ""
    summary: tuple[tuple[str, str], ...] = ()
    states: tuple[StepState, ...] = ()
    metrics: tuple[ReportMetrics, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    figures: tuple[ReportFigure, ...] = ()
    warnings: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()
    checks: tuple[SheetRow, ...] = ()
    provenance: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    shared_patient: bool = False
    seen_in_training: bool = False
    development_case: bool = False
    updates_with_new_images: bool = False


def build_report(data: ReportData) -> str:
    """The report as one HTML file with embedded figures: no script, nothing loaded from elsewhere.

    Names are escaped; missing values are shown as "not available".
    """
    return _template().render(
        data=data,
        badges=badges_of(data),
        kind="twin" if data.updates_with_new_images else "predictor",
        metrics=[metric_table(metrics) for metrics in data.metrics],
        pictures=[(f, base64.b64encode(png_of(f.figure)).decode()) for f in data.figures],
        sheet=validation_sheet(data.checks),
        status_colours=STATUS_COLOURS,
        marks=STATE_MARKS,
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("napari_mosaik.view"),
        autoescape=True,
        finalize=cell_words,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["exact"] = exact_words
    return environment.get_template("report.html")


def cell_words(value: Any) -> Any:
    """A value as text: numbers with three digits, "not available" for missing ones."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "not available"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0:
        return cell_words(value.item())
    return number(value) if isinstance(value, int | float) else value


def exact_words(value: Any) -> str:
    """A recorded value in full (seeds, digests, settings), "not available" if it is missing."""
    words = cell_words(value)
    return words if words == "not available" or isinstance(value, bool) else str(value)


def badges_of(data: ReportData) -> list[str]:
    """What makes the errors of a case optimistic, in a few words each."""
    badges = []
    if data.seen_in_training:
        badges.append("used in training")
    if data.shared_patient:
        badges.append("same patient in training")
    if data.development_case:
        badges.append("development case")
    return badges


_METRIC_NAMES = {
    "mae": "MAE",
    "mse": "MSE",
    "rmse": "RMSE",
    "r2": "R²",
    "ccc": "CCC",
    "ece": "ECE",
    "ssim": "SSIM",
    "ess_pearson": "effective sample size (r)",
    "ess_spearman": "effective sample size (ρ)",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "n_tiles": "tiles",
    "bias": "bias",
    "pearson": "Pearson r",
    "spearman": "Spearman ρ",
    "coverage": "coverage",
    "interval_score": "interval score",
    "sd_measured": "SD measured",
    "sd_predicted": "SD predicted",
    "mae_minus_network": "MAE − predictor (95 %)",
}


def metric_table(metrics: ReportMetrics) -> ReportTable:
    """One row for the predictor and one per baseline; missing values stay missing.

    A baseline that knows the PET of the case is a greyed row.
    """
    keys = list(metrics.predictor)
    for values in metrics.baselines.values():
        keys += [key for key in values if key not in keys]
    own = {"mae_minus_network": "–", **metrics.predictor}
    rows = [("predictor", *(own.get(key) for key in keys))]
    for name, values in metrics.baselines.items():
        rows.append((f"baseline: {baseline_title(name)}", *(values.get(key) for key in keys)))
    names = tuple(_METRIC_NAMES.get(key, title_of(key)) for key in keys)
    soft = tuple(
        place for place, name in enumerate(metrics.baselines, 1) if name in metrics.references
    )
    return ReportTable(metrics.title, ("", *names), tuple(rows), metrics.note, soft)


def png_of(figure: Figure | bytes, dpi: int = 110) -> bytes:
    """A figure as PNG; bytes are one already."""
    if isinstance(figure, bytes):
        return figure
    from napari_mosaik.view.figure import as_png

    return as_png(figure, dpi)
