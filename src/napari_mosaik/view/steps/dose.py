"""The dose what-if: maps of the chosen plan on one scale for all plans, and one line for each."""

from __future__ import annotations

from napari_mosaik.core.catalogue import DOSE
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.dose import DOSE_MAPS, dose_results
from napari_mosaik.view.formatting import number
from napari_mosaik.view.spec import LayerSpec
from napari_mosaik.view.step_view import PanelKind, StepView
from napari_mosaik.workflow.steps import maker_of


def _layers(results: CaseResults, choice: str) -> list[LayerSpec]:
    """The maps of a plan, by default of the first one."""
    found = dose_results(results)
    if found is None or not found.plans:
        return []
    name = choice if choice in found.plans else next(iter(found.plans))
    made = (found.layer(name, key) for key in DOSE_MAPS)
    return [spec for spec in made if spec is not None]


def _choices(results: CaseResults) -> tuple[str, ...]:
    found = dose_results(results)
    return () if found is None else tuple(found.plans)


def _line(results: CaseResults) -> str:
    found = dose_results(results)
    if found is None:
        return "the tiles have changed; run it again"
    lines = []
    for name, one in found.plans.items():
        eud = one.record["indices"].get("eud_gy", {}).get("median")
        lines.append(f"{name}: EUD {number(eud, 'Gy')}, what-if")
    return "\n".join(lines)


DOSE_VIEW = StepView(
    step=maker_of(DOSE),
    layers=_layers,
    result_line=_line,
    choices=_choices,
    choice_title="Plan",
    panel=PanelKind.DOSE_PLANS,
)
