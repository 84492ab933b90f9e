"""The presentation of a step: its layers, result line, report tables and panel.

Each file in `view.steps` defines one or more `StepView` records; `view.presentation` finds them.
Nothing else in the package knows how a step is presented.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from napari_mosaik.core import Artifact, Transform
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.report.html import ReportTable
from napari_mosaik.view.spec import LayerSpec
from napari_mosaik.workflow.preview import Preview
from napari_mosaik.workflow.step import Step

__all__ = ["PanelKind", "StepView"]


class PanelKind(Enum):
    """Panels that the window can show on the page of a step, beside its settings."""

    MANUAL_ALIGNMENT = auto()
    SUV_TERMS = auto()
    CORRELATIONS = auto()
    CLUSTERS = auto()
    KINETICS = auto()
    PREDICTOR = auto()
    DOSE_PLANS = auto()


def _no_layers(results: CaseResults, choice: str) -> Sequence[LayerSpec]:
    return ()


def _no_tables(results: CaseResults) -> Sequence[ReportTable]:
    return ()


def _no_choices(results: CaseResults) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepView:
    """The presentation of one step.

    Parameters
    ----------
    step
        The step.
    layers
        Its results as layers; the second argument is the parameter that was chosen, or empty.
        Results that are not stored give no layer.
    base_slide
        Slide that is shown with the layers; empty for none.
    result_line
        Summary of the results: the first line is the short form.  Called only when the step is
        done or stale.
    report
        Tables of the report.  Tables of the same title from several steps become one.
    choices
        Parameters, of which `layers` shows the one that the reader chooses.
    choice_title
        Label of that choice.
    stains
        Stain vectors that the step measured on *base_slide* (R, G, B in optical density), by stain.
    aligns
        Whether the step computes the transform of a section or of the PET, so that layers move.
    preview_layers
        Results of a preview as layers, with the transform of the slide to the reference.
    preview_line
        Summary of a preview.
    panel
        Panel on the step's page.
    """

    step: Step[Any]
    layers: Callable[[CaseResults, str], Sequence[LayerSpec]] = _no_layers
    base_slide: str = ""
    result_line: Callable[[CaseResults], str] | None = None
    report: Callable[[CaseResults], Sequence[ReportTable]] = _no_tables
    choices: Callable[[CaseResults], tuple[str, ...]] = _no_choices
    choice_title: str = ""
    stains: Callable[[CaseResults], Mapping[str, Sequence[float]]] | None = None
    aligns: bool = False
    preview_layers: (
        Callable[[Mapping[Artifact[Any], object], Transform | None], Sequence[LayerSpec]] | None
    ) = None
    preview_line: Callable[[Preview], str] | None = None
    panel: PanelKind | None = None
