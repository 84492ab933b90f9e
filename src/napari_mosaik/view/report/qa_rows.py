"""What a check by eye has found, in words and as rows of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from napari_mosaik.annotate.check import CheckSummary, Interval
from napari_mosaik.view.report.html import ReportTable

__all__ = ["check_line", "checks_table"]

_SPACE = "\N{NO-BREAK SPACE}"
"""Keeps a number and its unit on one line."""


def check_line(summary: CheckSummary) -> str:
    """What a check says so far, in words."""
    lines = []
    judged = summary.right + summary.wrong
    if summary.false_rate is not None:
        lines.append(f"wrong: {summary.wrong} of {judged}, {_percent(summary.false_rate)}")
    if summary.unsure:
        lines.append(f"unsure: {summary.unsure}")
    if summary.miss_rate is not None:
        seen = summary.found + summary.missed
        lines.append(f"missed: {summary.missed} of {seen}, {_percent(summary.miss_rate)}")
    if summary.verdict:
        lines.append(f"verdict: {summary.verdict}")
    return "\n".join(lines) or "nothing judged yet"


def _percent(rate: Interval) -> str:
    low, high = 100 * rate.low, 100 * rate.high
    return (
        f"{100 * rate.estimate:.1f}{_SPACE}% "
        f"(95{_SPACE}% interval {low:.1f} to {high:.1f}{_SPACE}%)"
    )


def checks_table(checks: Sequence[Mapping[str, Any]]) -> ReportTable | None:
    """The checks of a case as a table of the report; None when there are none."""
    rows = tuple(
        (
            check["what"],
            check["reader"],
            check["state"],
            check["right"] + check["wrong"],
            _share(check, "false"),
            _share(check, "missed"),
            check["verdict"] or "none yet",
            check["comment"],
        )
        for check in checks
    )
    columns = (
        "segmentation",
        "reader",
        "of",
        "objects judged",
        "wrong (95 % interval)",
        "missed (95 % interval)",
        "verdict",
        "comment",
    )
    note = (
        "Objects were drawn at random; missed ones were counted in tiles drawn at random, as a "
        "share of found and missed ones. A check of an earlier result does not speak "
        "for the present one."
    )
    return ReportTable("Segmentations checked by eye", columns, rows, note) if rows else None


def _share(check: Mapping[str, Any], name: str) -> str:
    estimate, low, high = (check[f"{name}_rate_{part}"] for part in ("estimate", "low", "high"))
    if estimate is None:
        return "not known"
    return _percent(Interval(estimate, low, high)).replace(f"95{_SPACE}% interval ", "")
