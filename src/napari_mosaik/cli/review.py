"""Commands on results and annotations: report, view, annotate, review queue, QA, agreement."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_mosaik.cli.case import one_case
from napari_mosaik.cli.common import (
    CaseFolder,
    JsonOutput,
    StainName,
    command_group,
    display_problem,
    example_command,
)
from napari_mosaik.cli.show import figure, print_json, table
from napari_mosaik.core.catalogue import REFERENCE
from napari_mosaik.core.errors import InputError

__all__ = ["commands", "open_window"]


commands = typer.Typer()
annotate = command_group(
    "annotate export B12 he.geojson",
    name="annotate",
    help="Exchange annotations with QuPath (GeoJSON).",
    no_args_is_help=True,
)
commands.add_typer(annotate)


@example_command(commands, "report", "report B12 --out B12.html")
def report(
    case: CaseFolder,
    out: Annotated[
        Path | None, typer.Option(help="File to write. Default: report.html in the case.")
    ] = None,
) -> None:
    """Write the case's report: figures, maps, metrics beside baselines, verification."""
    from napari_mosaik.view.report.content import write_case_report

    typer.echo(write_case_report(one_case(case), out))


def open_window(case: Path) -> None:
    """Open napari on a case.

    Raises
    ------
    InputError
        Where napari or Qt is missing, with the command that installs them, or there is no display.
    """
    try:
        import napari  # noqa: F401
        import qtpy.QtWidgets  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"the window needs napari and Qt ({error}); install them with: "
            "pip install 'napari-mosaik[all]'"
        ) from error
    if problem := display_problem():
        raise InputError(f"the window cannot open: {problem}. `report` works without a display")

    from napari_mosaik.widgets import show_case

    show_case(case)


@example_command(commands, "view", "view B12")
def view(case: CaseFolder) -> None:
    """Open the case in napari."""
    open_window(one_case(case).root)


@example_command(annotate, "import", "annotate import B12 he.geojson")
def import_(
    case: CaseFolder,
    file: Annotated[Path, typer.Argument(help="GeoJSON (also .gz), level-0 pixels.")],
    slide: Annotated[StainName, typer.Option(help="The annotated slide.")] = StainName.HE,
) -> None:
    """Import annotations from a GeoJSON file. They replace those of the case."""
    from napari_mosaik.io import read_geojson, write_geojson

    found = one_case(case)
    with found.slide(slide) as opened:
        lattice = opened.lattice
    shapes = read_geojson(file, lattice)
    with found.writing():
        write_geojson(found.annotations_path(slide), shapes, lattice)
        found.log("annotate import", slide=slide, shapes=len(shapes))
    typer.echo(f"{len(shapes)} shapes imported")


@example_command(annotate, "export", "annotate export B12 he.geojson")
def export(
    case: CaseFolder,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="GeoJSON file to write.")],
    slide: Annotated[StainName, typer.Option(help="The annotated slide.")] = StainName.HE,
    on_cd34: Annotated[
        bool, typer.Option("--on-cd34", help="Map them to the CD34 slide by the registration.")
    ] = False,
) -> None:
    """Export the case's annotations as GeoJSON for QuPath."""
    from napari_mosaik.io import write_geojson
    from napari_mosaik.workflow.given_alignment import shapes_on_reference

    found = one_case(case)
    shapes, stain = found.annotations(slide), str(slide)
    if not shapes:
        raise InputError(f"case {found.name} has no annotations on {slide}")
    if on_cd34:
        shapes, stain = shapes_on_reference(found, slide, shapes), REFERENCE
    with found.slide(stain) as opened:
        write_geojson(file, shapes, opened.lattice)
    typer.echo(f"{len(shapes)} shapes in {file}")


@example_command(commands, "review-queue", "review-queue B12 --json")
def review_queue(case: CaseFolder, json: JsonOutput = False) -> None:
    """List the tiles by review priority, with the reason for each."""
    from napari_mosaik.workflow.annotations import review_queue as tiles_to_review

    found = one_case(case)
    items = tiles_to_review(found)
    if json:
        print_json({"case": found.name, "tiles": items})
        return
    rows = [[str(item["tile"]), figure(item["score"]), item["reason"]] for item in items[:20]]
    table(
        f"{found.name}: first {len(rows)} of {len(items)} tiles",
        ["tile", "priority", "reason"],
        rows,
    )


@example_command(commands, "agreement", "agreement B12")
def agreement(case: CaseFolder, json: JsonOutput = False) -> None:
    """Compare the readers of a case: kappa, and Dice per tissue class."""
    from napari_mosaik.workflow.annotations import reader_agreement

    found = one_case(case)
    result = reader_agreement(found)
    if json:
        print_json(result)
        return
    rows = [
        [
            f"{pair['readers'][0]} and {pair['readers'][1]}",
            figure(pair["kappa"]),
            *(figure(pair["dice"].get(name)) for name in result["classes"]),
        ]
        for pair in result["pairs"]
    ]
    names = [f"Dice {name}" for name in result["classes"]]
    table(
        f"{found.name}: agreement where both readers have annotated",
        ["readers", "kappa", *names],
        rows,
    )


@example_command(commands, "qa", "qa B12 --csv qa.csv")
def qa(
    case: CaseFolder,
    csv: Annotated[Path | None, typer.Option(help="CSV file to write the records to.")] = None,
    json: JsonOutput = False,
) -> None:
    """Show the visual QA of the segmentations: readers, error rates, overall ratings."""
    from napari_mosaik.io.files import write_bytes
    from napari_mosaik.workflow.segmentation_qa import qa_records, qa_records_csv

    found = one_case(case)
    records = qa_records(found)
    if csv is not None:
        write_bytes(csv, qa_records_csv(records).encode())
    if json:
        print_json({"case": found.name, "checks": records})
        return
    if not records:
        typer.echo(f"{found.name}: no visual QA yet; use 'Visual QA' in the window")
        return
    rows = [
        [
            record["what"],
            record["reader"],
            record["state"],
            f"{record['correct'] + record['wrong']} of {record['sample']}",
            _rate(record, "false"),
            _rate(record, "miss"),
            record["overall_rating"] or "none yet",
        ]
        for record in records
    ]
    header = ["objects", "reader", "state", "rated", "wrong (95 % interval)", "missed", "overall"]
    table(f"{found.name}: visual QA", header, rows, words=True)


@example_command(commands, "corrections", "corrections B12")
def corrections(case: CaseFolder, json: JsonOutput = False) -> None:
    """List the manual corrections, and whether the results include them."""
    from napari_mosaik.workflow.corrections import correction_records

    found = one_case(case)
    records = correction_records(found)
    if json:
        print_json({"case": found.name, "corrections": records})
        return
    if not records:
        typer.echo(f"{found.name}: no corrections; use 'Correct' in the window")
        return
    rows = [
        [
            record["what"],
            record["description"],
            record["reader"],
            record["time"][:16].replace("T", " "),
            f"{record['state']}: {record['why']}" if record["why"] else record["state"],
        ]
        for record in records
    ]
    header = ["objects", "correction", "reader", "time (UTC)", "state"]
    table(f"{found.name}: manual corrections", header, rows, words=True)


def _rate(record: dict[str, Any], name: str) -> str:
    values = [record[f"{name}_rate_{part}"] for part in ("estimate", "low", "high")]
    if values[0] is None:
        return "unknown"
    share, low, high = (f"{100 * value:.1f}" for value in values)
    return f"{share} % ({low} to {high})"
