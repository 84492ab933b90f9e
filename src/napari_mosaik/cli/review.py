"""Commands on results and annotations: report, view, annotate, review-queue, agreement."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_mosaik.cli.case import Json, open_cases
from napari_mosaik.cli.show import figure, print_json, table
from napari_mosaik.core.catalogue import STAINS
from napari_mosaik.core.errors import InputError

__all__ = ["open_window", "register"]

OneCase = Annotated[Path, typer.Argument(help="A case folder.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("report")(report)
    app.command("view")(view)
    app.command("review-queue")(review_queue)
    app.command("agreement")(agreement)
    app.command("qa")(qa)
    app.command("corrections")(corrections)
    annotate = typer.Typer(help="Exchange annotations with QuPath (GeoJSON).", no_args_is_help=True)
    annotate.command("import")(import_)
    annotate.command("export")(export)
    app.add_typer(annotate, name="annotate")


def _case(path: Path) -> Any:
    found = open_cases([path])
    if len(found) > 1:
        raise InputError(f"{path} is a cohort of {len(found)} cases; give one case folder")
    return found[0]


def report(
    case: OneCase,
    out: Annotated[
        Path | None, typer.Option(help="File to write; report.html in the case else.")
    ] = None,
) -> None:
    """Write the case's report: figures, maps, metrics beside baselines, what was verified."""
    from napari_mosaik.io.files import write_bytes
    from napari_mosaik.view.report.content import case_report
    from napari_mosaik.workflow.segmentation_qa import qa_records

    found = _case(case)
    path = out or found.root / "report.html"
    write_bytes(path, case_report(found, step_states(found), qa_records(found)).encode())
    typer.echo(path)


def step_states(case: Any) -> list[Any]:
    """Every step of the case with its state, for the report."""
    from napari_mosaik.view.report.html import StepState
    from napari_mosaik.workflow.case_status import case_status
    from napari_mosaik.workflow.steps import STEPS

    states = case_status(case).states
    return [
        StepState(step.title, states[step.name].word, states[step.name].reason) for step in STEPS
    ]


def open_window(case: Path) -> None:
    """Open napari on a case; says what to install where the window's libraries are missing."""
    try:
        import napari  # noqa: F401
        import qtpy.QtWidgets  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"the window needs napari and Qt ({error}); install them with: "
            "pip install 'napari-mosaik[all]'"
        ) from error
    from napari_mosaik.widgets import show_case

    show_case(case)


def view(case: OneCase) -> None:
    """Open the case in napari."""
    open_window(_case(case).root)


def _check_stain(stain: str) -> None:
    if stain not in STAINS:
        raise InputError(f"slide '{stain}' is not known; use one of: {', '.join(STAINS)}")


def import_(
    case: OneCase,
    file: Annotated[Path, typer.Argument(help="GeoJSON file (also .gz) in level-0 pixels.")],
    slide: Annotated[str, typer.Option(help="he, cd34 or caix.")] = "he",
) -> None:
    """Take annotations from a GeoJSON file into the case; those of the case are replaced."""
    from napari_mosaik.io import read_geojson, write_geojson

    _check_stain(slide)
    found = _case(case)
    with found.slide(slide) as opened:
        lattice = opened.lattice
    shapes = read_geojson(file, lattice)
    with found.writing():
        write_geojson(found.annotations_path(slide), shapes, lattice)
        found.log("annotate import", slide=slide, shapes=len(shapes))
    typer.echo(f"{len(shapes)} shapes imported")


def export(
    case: OneCase,
    file: Annotated[Path, typer.Argument(help="GeoJSON file to write.")],
    slide: Annotated[str, typer.Option(help="he, cd34 or caix.")] = "he",
    on_cd34: Annotated[
        bool, typer.Option("--on-cd34", help="Move them onto the CD34 slide by the alignment.")
    ] = False,
) -> None:
    """Write the case's annotations as GeoJSON that QuPath reads."""
    from napari_mosaik.io import write_geojson
    from napari_mosaik.workflow.given_alignment import shapes_on_reference

    _check_stain(slide)
    found = _case(case)
    shapes = found.annotations(slide)
    if not shapes:
        raise InputError(f"case {found.name} has no annotations on {slide}")
    if on_cd34:
        shapes, slide = shapes_on_reference(found, slide, shapes), "cd34"
    with found.slide(slide) as opened:
        write_geojson(file, shapes, opened.lattice)
    typer.echo(f"{len(shapes)} shapes in {file}")


def review_queue(case: OneCase, json: Json = False) -> None:
    """List the tiles in order of review priority, with the reason."""
    from napari_mosaik.workflow.review_queue import review_queue as tiles_to_review

    found = _case(case)
    items = tiles_to_review(found)
    if json:
        print_json({"case": found.name, "tiles": items})
        return
    rows = [[str(item["tile"]), figure(item["priority"]), item["reason"]] for item in items[:20]]
    table(
        f"{found.name}: first {len(rows)} of {len(items)} tiles",
        ["tile", "priority", "reason"],
        rows,
    )


def agreement(case: OneCase, json: Json = False) -> None:
    """Compare the readers of a case: kappa, and Dice per tissue class."""
    from napari_mosaik.workflow.review_queue import reader_agreement

    found = _case(case)
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
    table(f"{found.name}: agreement where both have drawn", ["readers", "kappa", *names], rows)


def qa(
    case: OneCase,
    csv: Annotated[Path | None, typer.Option(help="Write the records to this CSV file.")] = None,
    json: Json = False,
) -> None:
    """Say who has checked which segmentation by eye, and how many objects are wrong or missed."""
    from napari_mosaik.io.files import write_bytes
    from napari_mosaik.workflow.segmentation_qa import qa_records, qa_records_csv

    found = _case(case)
    records = qa_records(found)
    if csv is not None:
        write_bytes(csv, qa_records_csv(records).encode())
    if json:
        print_json({"case": found.name, "checks": records})
        return
    if not records:
        typer.echo(f"{found.name}: no segmentation has been checked yet; use 'Check' in the window")
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
    header = ["what", "reader", "of", "rated", "wrong (95 % interval)", "missed", "overall rating"]
    table(f"{found.name}: segmentations checked by eye", header, rows, words=True)


def corrections(case: OneCase, json: Json = False) -> None:
    """List what readers have corrected by hand, and whether the results have it."""
    from napari_mosaik.workflow.corrections import correction_records

    found = _case(case)
    records = correction_records(found)
    if json:
        print_json({"case": found.name, "corrections": records})
        return
    if not records:
        typer.echo(f"{found.name}: nothing has been corrected; use 'Correct' in the window")
        return
    rows = [
        [
            record["what"],
            record["told"],
            record["reader"],
            record["time"][:16].replace("T", " "),
            f"{record['state']}: {record['why']}" if record["why"] else record["state"],
        ]
        for record in records
    ]
    header = ["what", "correction", "reader", "time (UTC)", "state"]
    table(f"{found.name}: corrected by hand", header, rows, words=True)


def _rate(record: dict[str, Any], name: str) -> str:
    values = [record[f"{name}_rate_{part}"] for part in ("estimate", "low", "high")]
    if values[0] is None:
        return "not known"
    share, low, high = (f"{100 * value:.1f}" for value in values)
    return f"{share} % ({low} to {high})"
