"""Commands on trained models: list, adopt, roll back, export, import, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_mosaik.cli.case import one_case, open_cases
from napari_mosaik.cli.common import (
    CaseFolder,
    JsonOutput,
    case_files,
    check_output,
    command_group,
    example_command,
    report_warning,
)
from napari_mosaik.cli.show import Bar, drive, print_json, table

__all__ = ["commands"]


commands = typer.Typer()
models = command_group(
    "models cohort --json",
    default="list",
    name="models",
    help="Trained models of a case or cohort: list, adopt, roll back, exchange, compare.",
    no_args_is_help=True,
)
commands.add_typer(models)

CaseOrCohort = Annotated[
    Path, typer.Argument(metavar="CASE", help="Case folder, or a folder of cases.")
]
ModelHash = Annotated[
    str, typer.Argument(metavar="HASH", help="Hash of the model, or its first characters.")
]


@example_command(models, "list", "models list cohort")
def list_models(cases: CaseOrCohort, json: JsonOutput = False) -> None:
    """List the models: what each was trained on, its parent, and the cases that use it."""
    from napari_mosaik.workflow.models import known_models

    found = [one.record() for one in known_models(open_cases([cases]))]
    if json:
        print_json({"models": found})
        return
    if not found:
        typer.echo("no models yet; train one with: napari-mosaik retrain, napari-mosaik train")
        return
    rows = [
        [
            one["model"][:12],
            one["method"],
            ", ".join(one["trained_on"]),
            one["parent"][:12],
            ", ".join(one["used_by"]),
            "damaged" if one["damage"] else "",
        ]
        for one in found
    ]
    header = ["model", "method", "trained on", "parent", "used by", "state"]
    table("Models", header, rows, words=True)


@example_command(models, "adopt", "models adopt B12 3f9a02c1")
def adopt(cases: CaseOrCohort, model: ModelHash, json: JsonOutput = False) -> None:
    """Let a case, or each case of a cohort, use a model of the case or its cohort."""
    from napari_mosaik.workflow.models import adopt_model, find_model, with_cohort

    targets = open_cases([cases])
    chosen = find_model(with_cohort(targets), model)
    adopt_model(targets, chosen)
    names = [case.name for case in targets]
    if json:
        print_json({"model": chosen.hash, "kind": chosen.kind, "cases": names})
        return
    typer.echo(f"{', '.join(names)}: now uses model {chosen.hash}")
    typer.echo("dependent results are stale now; recompute them with: napari-mosaik run CASE")


@example_command(models, "rollback", "models rollback B12")
def rollback(
    cases: CaseOrCohort,
    step: Annotated[
        str,
        typer.Option(
            metavar="STEP", help="classes or predict. Default: that of the last adoption."
        ),
    ] = "",
    json: JsonOutput = False,
) -> None:
    """Return to the model that was used before; can be repeated."""
    from napari_mosaik.workflow.models import roll_back

    done: list[dict[str, Any]] = []
    for case in open_cases([cases]):
        name, before, now = roll_back(case, step)
        done.append({"case": case.name, "step": name, "before": before, "model": now})
    if json:
        print_json({"cases": done})
        return
    for one in done:
        typer.echo(f"{one['case']}, {one['step']}: model {one['model'] or 'none'} is used again")


@example_command(models, "export", "models export B12 3f9a02c1 model.zip")
def export_one(
    cases: CaseOrCohort,
    model: ModelHash,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write (.zip).")],
    json: JsonOutput = False,
) -> None:
    """Write a model to one file: weights as safetensors, its card and their digests."""
    from napari_mosaik.workflow.models import export_model, find_model

    found = open_cases([cases])
    chosen = find_model(found, model)
    check_output("FILE", file, [path for case in found for path in case_files(case)])
    export_model(chosen, file)
    if json:
        print_json({"model": chosen.hash, "kind": chosen.kind, "file": str(file)})
    else:
        typer.echo(f"model {chosen.hash} in {file}")


@example_command(models, "import", "models import B12 model.zip")
def import_one(
    case: CaseFolder,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File of `models export`.")],
    json: JsonOutput = False,
) -> None:
    """Add a model from a file to a case; its hash and classes are checked."""
    from napari_mosaik.workflow.models import import_model

    found = one_case(case)
    made = import_model(found, file)
    if json:
        print_json({"case": found.name, "model": made.hash, "kind": made.kind})
        return
    typer.echo(f"case {found.name}: model {made.hash} was added and is not used yet")
    typer.echo(f"use it with: napari-mosaik models adopt {case} {made.hash[:12]}")


@example_command(models, "compare", "models compare B12 3f9a02c1 77c0e4d2 --json")
def compare(
    case: CaseFolder,
    old: Annotated[str, typer.Argument(metavar="OLD", help="Hash of one model.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Hash of the other.")],
    json: JsonOutput = False,
) -> None:
    """Compare two models on a case: a score with a paired interval, and what changes."""
    from napari_mosaik.view.models import comparison_lines
    from napari_mosaik.workflow.model_comparison import compare_models
    from napari_mosaik.workflow.models import find_model, with_cohort

    found = one_case(case)
    known = with_cohort([found])
    sides = [find_model(known, name) for name in (old, new)]
    with Bar(quiet=json) as bar:
        made = drive(compare_models(found, sides[0], sides[1]), "Compare models", bar)
    if made.record["score"] is None:
        report_warning(f"no fair score: {made.record['why']}")
    if json:
        print_json(made.record)
        return
    for line in comparison_lines(made.record):
        typer.echo(line)
