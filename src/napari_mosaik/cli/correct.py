"""Commands that correct results, bring what follows up to date, and say what it was worth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from napari_mosaik.cli.case import one_case
from napari_mosaik.cli.common import (
    CaseFolder,
    Device,
    JsonOutput,
    example_command,
    report_warning,
)
from napari_mosaik.cli.show import Bar, figure, print_json, table
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.core.text import counted

__all__ = ["commands"]

commands = typer.Typer()


@example_command(
    commands, "correct", "correct B12 missed.geojson --what vessels --kind add --reader Anna"
)
def correct(
    case: CaseFolder,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="GeoJSON (also .gz, .zip), level-0 pixels."),
    ] = None,
    what: Annotated[
        str,
        typer.Option(
            metavar="RESULT",
            help="What is corrected: vessels, nuclei, tissue_STAIN or artefacts_STAIN with he, "
            "cd34 or caix.",
        ),
    ] = "",
    kind: Annotated[
        Literal["add", "remove", "class"],
        typer.Option(
            help="Add or remove the outlined areas or objects, or set the class of the objects in "
            "an outline to that of the outline."
        ),
    ] = "add",
    reader: Annotated[
        str, typer.Option(metavar="NAME", help="Name or pseudonym of the reader.")
    ] = "",
    undo: Annotated[
        bool, typer.Option("--undo", help="Undo this reader's last correction of the result.")
    ] = False,
    json: JsonOutput = False,
) -> None:
    """Record the corrections of a file, all or none; `update` applies them."""
    from napari_mosaik.workflow.case_status import case_status
    from napari_mosaik.workflow.corrections import CorrectionLog, correct_from_file
    from napari_mosaik.workflow.steps import step_named
    from napari_mosaik.workflow.update import steps_to_update

    if not what or not reader:
        raise InputError(f"give {'--reader NAME' if what else '--what RESULT'}")
    if (file is None) != undo:
        raise InputError("give a file of corrections, or --undo, not both")
    found, doubts, undone = one_case(case), list[str](), ""
    if file is not None:
        n, doubts = correct_from_file(found, file, what, kind, reader)
    else:
        with CorrectionLog(found, what, reader) as log:
            undone, before = log.undo_title, len(log.corrections)
            log.undo()
            n = before - len(log.corrections)
        if not n:
            raise InputError(f"reader {reader} has no correction of {what} to undo")
    stale = [step.name for step in steps_to_update(found, case_status(found))]
    for doubt in doubts:
        report_warning(doubt)
    if json:
        print_json(
            {"case": found.name, "what": what, "kind": "undo" if undo else kind,
             "reader": reader, "n": n, "stale": stale, "warnings": doubts}
        )  # fmt: skip
        return
    typer.echo(f"{counted(n, 'correction')} " + (f"undone: {undone}" if undo else f"of {what}"))
    if stale:
        titles = ", ".join(step_named(name).title for name in stale)
        typer.echo(f"out of date now: {titles}; run: napari-mosaik update {case}")


@example_command(commands, "update", "update B12")
def update(
    case: CaseFolder,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Also what is stale for another reason, such as changed settings."
        ),
    ] = False,
    device: Device = "auto",
    json: JsonOutput = False,
) -> None:
    """Recompute what corrections have changed, and show their effect."""
    from napari_mosaik.view.formatting import count
    from napari_mosaik.workflow.case_status import case_status
    from napari_mosaik.workflow.update import update as updated
    from napari_mosaik.workflow.worth import worth_of

    found = one_case(case)
    with Bar(quiet=json) as bar:
        record = run_to_end(
            updated(found, everything=everything),
            lambda at: bar.show(f"{found.name} · {at[0].title}", at[1]),
        )
    worth = worth_of(found)
    states = case_status(found).states
    left = [name for name, state in states.items() if state.word == "stale"]
    warnings = list(dict.fromkeys(w for name in record.steps for w in states[name].warnings))
    for text in warnings:
        report_warning(text)
    if json:
        print_json(
            {"case": found.name, "n_tiles": record.n_tiles, "seconds": record.seconds,
             "steps": dict(record.steps), "tiles": dict(record.tiles), "stale": left,
             "worth": worth, "warnings": warnings}
        )  # fmt: skip
        return
    if not record.steps:
        typer.echo(f"{found.name}: no correction is waiting")
    else:
        typer.echo(
            f"{found.name}: {count(len(record.steps), 'step')}, {count(record.n_tiles, 'tile')} in "
            f"{record.seconds:.1f} s"
        )
        _show_worth(found.name, worth)
    if left:
        typer.echo(f"still out of date: {', '.join(left)}; run: napari-mosaik update {case} --all")


@example_command(commands, "worth", "worth B12")
def worth(case: CaseFolder, json: JsonOutput = False) -> None:
    """Show what the last update has changed: areas, parameters, clusters, predicted SUV."""
    from napari_mosaik.workflow.worth import worth_of

    found = one_case(case)
    record = worth_of(found)
    if json:
        print_json({"case": found.name, "worth": record})
    elif record is None:
        typer.echo(f"{found.name}: no update yet; run: napari-mosaik update {case}")
    else:
        _show_worth(found.name, record)


def _show_worth(name: str, record: Mapping[str, Any] | None) -> None:
    from napari_mosaik.view.worth import worth_rows

    rows = [] if record is None else worth_rows(record)
    if rows:
        cells = [[r.title, figure(r.before), figure(r.after), figure(r.change), r.note]
                 for r in rows]  # fmt: skip
        table(f"{name}: what changed", ["", "before", "after", "change", ""], cells, words=True)
