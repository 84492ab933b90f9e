"""Results as what can be shown: layers, words, plots and reports; no window library."""

from __future__ import annotations

from typing import Any

from napari_mosaik.view.spec import LayerSpec, Legend, placement, placement_um

__all__ = [
    "LayerSpec",
    "Legend",
    "ReportData",
    "build_report",
    "case_report",
    "placement",
    "placement_um",
]


def __getattr__(name: str) -> Any:
    if name in ("ReportData", "build_report", "case_report"):
        from napari_mosaik.view.report import html as report

        return getattr(report, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
