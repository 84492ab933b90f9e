"""Dose what-if of a case: what a therapeutic label would have done, for each of its plans."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    CORRECTED_VESSELS,
    DOSE,
    DOSE_RECORD,
    INJECTION,
    PARAMETERS,
    PLANS,
    PREDICTION,
    PREDICTION_RECORD,
    REFERENCE,
    SUV,
    SUV_RECORD,
    TILE_KINETICS,
    TILES,
    TISSUE,
    UPTAKE,
    WARNINGS,
)
from napari_mosaik.core.params import Params, PowerOf2, setting
from napari_mosaik.core.progress import map_progress
from napari_mosaik.core.table import Table
from napari_mosaik.workflow.parallel import beside
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case

__all__ = ["DOSE_STEP", "LIMITATIONS", "PLAN_SEPARATOR", "DoseStepParams"]

LIMITATIONS: Final = (
    "What a therapeutic label would have done had it gone where the tracer went. Not a treatment "
    "plan; kinetics, alpha/beta and clonogen number are assumptions, and the PET cannot see "
    "differences finer than about 1.5 mm.",
    "Equal pharmacokinetics and equal antibody mass of tracer and therapeutic label are assumed.",
    "Dose maps from PET overstate tumour control: cell kill is convex, and the PET hides "
    "differences finer than its resolution.",
    "Radiobiology is illustrative, not specific for clear cell renal cell carcinoma; intervals are "
    "those of the assumptions, not of the model.",
    "Absorbed dose of electrons and of alpha particles stay separate; Gy of external beams and of "
    "nuclides are added as effect only.",
)
"""Sentences that stand beside every result."""
_KNOWN: Final = 0.42
"""Share of a plan's time (fraction of 1) when what it takes from a large case is known."""
PLAN_SEPARATOR: Final = "."
"""Between the name of a plan and that of a quantity, in the columns of the table."""


class DoseStepParams(Params):
    """Settings of the step; everything about a plan stands in the plan."""

    samples: PowerOf2 = setting(
        1024,
        "Base samples of the shares of uncertainty (Sobol); a power of 2.",
        label="Sobol samples",
        ge=16,
        le=16384,
        advanced=True,
    )


def _check(case: Case, _: Mapping[str, Any]) -> None:
    """Raise `InputError` for a plan that cannot be read."""
    from napari_mosaik.workflow.plans import read_plans

    read_plans(case.root)


def _body(inputs: StepContext, params: DoseStepParams) -> Generator[Progress, None, Results]:
    from napari_mosaik.workflow.plan_dose import iter_plan_dose
    from napari_mosaik.workflow.plan_facts import PlanFacts
    from napari_mosaik.workflow.plan_record import plan_warnings
    from napari_mosaik.workflow.plans import plan_digest, read_plans

    root = inputs.plans_root()
    plans = read_plans(root)
    before = inputs.previous_result(DOSE, PLANS)
    known = inputs.previous_result(DOSE_RECORD, PLANS) if before is not None else None
    columns: dict[str, Any] = {}
    units: dict[str, str] = {}
    about: dict[str, str] = {}
    records: dict[str, Any] = {}
    grid = inputs.read(TILES)
    for place, (name, plan) in enumerate(plans.items()):
        files = {key: root / "plans" / file for key, file in plan.files.items()}
        own = plan_digest(root, plan)
        width = 1 / len(plans)
        start, known_at = place * width, (place + _KNOWN) * width
        yield Progress(start, 1, f"plan {name}")
        records_before = (known or {}).get("plans", {})
        same = next((n for n, record in records_before.items() if record["digest"] == own), None)
        if before is not None and same is not None:  # as before, under this name or another one
            for column in before:
                if column.startswith(same + PLAN_SEPARATOR):
                    key = name + column.removeprefix(same)
                    columns[key], units[key] = before[column], before.unit(column)
                    about[key] = before.about[column]
            records[name] = {**records_before[same], "plan": plan.model_dump(mode="json")}
            continue
        looking = Progress(start, 1, f"plan {name}")
        facts = yield from beside(partial(PlanFacts, inputs, plan, files), looking, known_at)
        work = iter_plan_dose(plan, facts.uptake, files.get("kernel"), params.samples)
        result = yield from map_progress(
            work, partial(_progress, name, known_at, start + width - known_at)
        )
        for column, values in result.columns.items():
            key = f"{name}{PLAN_SEPARATOR}{column}"
            columns[key], units[key], about[key] = (
                values,
                result.units[column],
                result.about[column],
            )
        warnings = [*plan_warnings(plan), *facts.warnings, *result.record.pop(WARNINGS)]
        records[name] = {
            "digest": own,
            "plan": plan.model_dump(mode="json"),
            **facts.record,
            **result.record,
            "constants": facts.constants(result),
            "not_available": facts.missing,
            WARNINGS: warnings,
        }
    table = Table(columns, units, about, grid.lattice.frame)
    doubts = [
        f"plan {name}: {text}" for name, record in records.items() for text in record[WARNINGS]
    ]
    document = {"plans": records, "limitations": list(LIMITATIONS), WARNINGS: doubts}
    return {DOSE: table, DOSE_RECORD: document}


def _progress(name: str, start: float, width: float, share: float) -> Progress:
    return Progress(start + share * width, 1, f"plan {name}")


DOSE_STEP = Step(
    name="dose",
    title="Dose what-if",
    about="Absorbed dose and response if a therapeutic label had gone where the tracer went, for "
    "each plan of the case.",
    page="Dose what-if",
    params=DoseStepParams,
    reads=(PLANS, TILES, INJECTION),
    may_read=(
        PREDICTION,
        PREDICTION_RECORD,
        UPTAKE,
        SUV,
        SUV_RECORD,
        ALIGNMENT["pet"],
        PARAMETERS,
        TILE_KINETICS,
        CORRECTED_VESSELS,
        TISSUE[REFERENCE],
    ),
    needs_any=(PREDICTION, UPTAKE),
    writes=(DOSE, DOSE_RECORD),
    body=_body,
    check=_check,
    optional=True,
    revision=4,
)
