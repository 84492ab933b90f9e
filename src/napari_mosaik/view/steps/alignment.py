"""Registration of H&E, CAIX and PET to CD34: figures of merit and warnings."""

from __future__ import annotations

from functools import partial

from napari_mosaik.core.catalogue import ALIGNMENT, STAIN_TITLES
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.formatting import number, percent
from napari_mosaik.view.report.html import ReportTable
from napari_mosaik.view.spec import LayerSpec
from napari_mosaik.view.step_view import PanelKind, StepView
from napari_mosaik.view.uptake_scale import pet_layers
from napari_mosaik.workflow.steps import maker_of

_COLUMNS = (
    "to CD34",
    "method",
    "confidence",
    "Dice",
    "correlation",
    "angle [°]",
    "scale",
    "landmark error, median [µm]",
    "expected error [µm]",
)
_KEYS = ("confidence", "dice", "ncc", "angle_deg", "scale")


def _line(frame: str, results: CaseResults) -> str:
    record = results.read(ALIGNMENT[frame])
    parts = []
    if record.get("dice") is not None:
        parts.append(f"{STAIN_TITLES.get(frame, 'PET')} overlap {percent(record['dice'])}")
    if record.get("position_error_um") is not None:
        parts.append(f"expected error {number(record['position_error_um'], 'µm')}")
    if "landmark_error_um" in record:
        parts.append(f"{number(record['landmark_error_um']['median'], 'µm')} median landmark error")
    warnings = [str(text) for text in record.get("warnings", ())]
    if warnings:
        parts.append("please check")
    rotation = f"rotated by {number(record.get('angle_deg'), '°')}"
    return "\n".join([", ".join(parts), rotation, *warnings])


def _report(frame: str, results: CaseResults) -> list[ReportTable]:
    record = results.get(ALIGNMENT[frame])
    if record is None:
        return []
    error = (record.get("landmark_error_um") or {}).get("median")
    values = (record.get(key) for key in _KEYS)
    name = STAIN_TITLES.get(frame, "PET")
    expected = record.get("position_error_um")
    row = (name, record.get("method", "outline"), *values, error, expected)
    note = "Conclusions about single tiles need an error below 150 µm."
    return [ReportTable("Registration", _COLUMNS, (row,), note)]


def _layers(frame: str, results: CaseResults, choice: str) -> list[LayerSpec]:
    """The PET where the registration puts it; sections are shown as slides anyway."""
    return pet_layers(results) if frame == "pet" else []


ALIGNMENT_VIEWS = tuple(
    StepView(
        step=maker_of(artifact),
        layers=partial(_layers, frame),
        result_line=partial(_line, frame),
        report=partial(_report, frame),
        aligns=True,
        panel=PanelKind.MANUAL_ALIGNMENT,
    )
    for frame, artifact in ALIGNMENT.items()
)
