"""What a check by eye has found, in words and as rows of the report."""

from __future__ import annotations

from napari_mosaik.annotate.check import CheckSummary, Interval

__all__ = ["check_line"]


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
    return f"{100 * rate.estimate:.1f} % (95 % interval {low:.1f} to {high:.1f} %)"
