"""Commands on results and annotations: report, view, annotate, review queue, QA, agreement."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_mosaik.cli.case import one_case
from napari_mosaik.cli.common import (
    CaseFolder,
    JsonOutput,
    Seed,
    StainName,
    case_files,
    check_output,
    command_group,
    display_problem,
    example_command,
    open_window,
    report_warning,
)
from napari_mosaik.cli.show import figure, print_json, table
from napari_mosaik.core.catalogue import REFERENCE
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.text import counted

__all__ = ["commands"]


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
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Write a PDF file. Default: report.pdf in the case.")
    ] = False,
    show: Annotated[
        bool | None,
        typer.Option(
            "--open/--no-open",
            help="Open it. Default: in a terminal on a computer with a display.",
        ),
    ] = None,
) -> None:
    """Write the case's report: figures, maps, metrics beside baselines, verification.

    One HTML file that opens without network, or a PDF file. Prints where it was written.
    """
    from napari_mosaik.view.report.content import write_case_report

    opened = one_case(case)
    if pdf and out is None:
        out = opened.root / "report.pdf"
    if pdf and out is not None and out.suffix.lower() != ".pdf":
        raise InputError(f"--pdf writes a .pdf file, not '{out.name}': change the name of the file")
    check_output("--out", out, case_files(opened))
    path = write_case_report(opened, out).resolve()
    opened.note_shown("the report")
    typer.echo(path)
    if show or (show is None and sys.stdout.isatty() and not display_problem()):
        import webbrowser

        if not webbrowser.open(path.as_uri()):
            report_warning(f"no browser opened the report; open {path}")


@example_command(commands, "view", "view B12")
def view(case: CaseFolder) -> None:
    """Open the case in napari."""
    open_window(one_case(case).root)


@example_command(commands, "tile", "tile B12 217")
def tile(
    case: CaseFolder,
    number: Annotated[int, typer.Argument(metavar="TILE", min=0, help="Index of the tile.")],
    nearest: Annotated[
        int, typer.Option(min=1, max=50, metavar="K", help="Number of training tiles.")
    ] = 5,
    json: JsonOutput = False,
) -> None:
    """Show one tile: uptake, interval, parameters, and the training tiles most like it.

    A distance of 1 is the limit of the training range.
    """
    from napari_mosaik.view.formatting import count
    from napari_mosaik.view.tile_data import NEAREST_COLUMNS, nearest_rows, read_tile_data
    from napari_mosaik.workflow.predictors import nearest_training_tiles

    found = one_case(case)
    tile_data = read_tile_data(found)
    if number >= tile_data.n_tiles:
        raise InputError(
            f"case {found.name} has {count(tile_data.n_tiles, 'tile')}, counted from 0: there is "
            f"no tile {number}"
        )
    rows = tile_data.rows(number)
    if tile_data.measured() is not None:
        found.note_shown("the measured uptake of a tile")
    near, problem = None, ""
    try:
        near = nearest_training_tiles(found, nearest)
    except InputError as error:
        problem = str(error)
        report_warning(problem)
    if json:
        under = tile_data.voxel(number)
        voxel = None if under is None else {"suv": under[1], "corners_um": under[0].tolist()}
        print_json(
            {"case": found.name, "tile": number, "rows": [asdict(row) for row in rows],
             "pet_voxel": voxel,
             "nearest_training_tiles": None if near is None else near.of(number),
             "n_training_tiles": None if near is None else near.n_training,
             "unit": tile_data.unit, "warnings": [problem] if problem else []}
        )  # fmt: skip
        return
    table(
        f"{found.name}: tile {number}",
        ["parameter", "value", "unit", "rank"],
        [[row.parameter, row.value, row.unit, row.rank] for row in rows],
        words=True,
    )
    if near is not None:
        table(
            f"Nearest of {count(near.n_training, 'training tile')} (SUV in {tile_data.unit})",
            [name.lower() for name in NEAREST_COLUMNS],
            nearest_rows(near, number),
        )


ReaderName = Annotated[
    str,
    typer.Option(
        "--reader",
        metavar="NAME",
        help="Name or pseudonym of the reader. Default: the only reader of the case, or 'reader'.",
    ),
]


def _reader(case: Any, name: str, stain: str) -> str:
    """The given reader, or the only one of the case."""
    from napari_mosaik.core.readers import check_reader_name
    from napari_mosaik.workflow.annotations import reader_documents

    if name:
        return check_reader_name(name)
    known = list(reader_documents(case, stain))
    if len(known) > 1:
        raise InputError(f"case {case.name} has the readers {', '.join(known)}; give one: --reader")
    return known[0] if known else "reader"


ClassMap = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="CLASS=CLASS",
        help="Class of the file and its class in the case; 'CLASS=' excludes it. Repeatable.",
    ),
]
OwnClasses = Annotated[
    list[str] | None,
    typer.Option(
        "--own-class", metavar="CLASS", help="Declare a class of your own for --map. Repeatable."
    ),
]


@example_command(
    annotate, "import", "annotate import B12 he.geojson --reader Anna --map 'Tumor=neoplastic'"
)
def import_(
    case: CaseFolder,
    file: Annotated[Path, typer.Argument(help="GeoJSON (also .gz, .zip), level-0 pixels.")],
    slide: Annotated[StainName, typer.Option(help="The annotated slide.")] = StainName.HE,
    reader: ReaderName = "",
    map_: ClassMap = None,
    own_class: OwnClasses = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the reader's shapes; a copy is kept.")
    ] = False,
    add: Annotated[bool, typer.Option("--add", help="Add to the reader's shapes.")] = False,
    json: JsonOutput = False,
) -> None:
    """Import annotations from a GeoJSON file, and show what each of its classes becomes."""
    from napari_mosaik.workflow.annotation_import import AnnotationImport

    if replace and add:
        raise InputError("give --replace or --add, not both")
    found = one_case(case)
    name = _reader(found, reader, slide)
    given = AnnotationImport(found, file, slide)
    _map_classes(given, map_, own_class)
    how = "replace" if replace else "add" if add else ""
    _take_import(given, name, how, "annotate import", json)


def _map_classes(given: Any, map_: list[str] | None, own_class: list[str] | None) -> None:
    own = [text.strip() for text in own_class or ()]
    mapped: dict[str, str] = {}
    for text in map_ or ():
        foreign, separator, target = text.rpartition("=")
        if not separator:
            raise InputError(f"--map {text!r} is not of the form CLASS=CLASS")
        if mapped.setdefault(foreign.strip(), target.strip()) != target.strip():
            raise InputError(f"--map gives {foreign!r} two classes; omit one")
        given.map(foreign, target, new=target.strip() in own)


def _take_import(given: Any, name: str, how: Any, event: str, json: bool) -> None:
    """Give the shapes of an `AnnotationImport` to a reader, and print what was done."""
    from napari_mosaik.workflow.annotations import OpenAnnotations

    found, slide = given.case, given.stain
    with found.writing(), OpenAnnotations(found, name, slide) as opened:
        done = given.commit(opened, how)
        total = len(opened.document)
        found.log(event, slide=slide, reader=name, shapes=done.imported)
    warnings = given.warnings
    for sentence in warnings:
        report_warning(sentence)
    if json:
        rows = [asdict(row) for row in given.rows]
        print_json(
            {"case": found.name, "slide": str(slide), "reader": name, "imported": done.imported,
             "shapes": total, "classes": rows, "copies": [str(path) for path in done.copies],
             "warnings": warnings}
        )  # fmt: skip
        return
    for row in given.rows:
        typer.echo(row.sentence)
    typer.echo(f"{counted(done.imported, 'shape')} imported for reader {name}, who has {total} now")
    for path in done.copies:
        typer.echo(f"the previous shapes are kept in {path}")


@example_command(annotate, "package", "annotate package B12 he.zip --reader Anna")
def package(
    case: CaseFolder,
    file: Annotated[Path, typer.Argument(metavar="FILE.zip", help="Package to write.")],
    slide: Annotated[StainName, typer.Option(help="The annotated slide.")] = StainName.HE,
    reader: ReaderName = "",
    json: JsonOutput = False,
) -> None:
    """Pack a reader's annotations for a colleague, without names of persons or files."""
    from napari_mosaik.view.formatting import count
    from napari_mosaik.workflow.annotation_import import write_package

    found = one_case(case)
    check_output("FILE", file, case_files(found))
    record = write_package(found, file, _reader(found, reader, slide), slide)
    if json:
        print_json({**record, "file": str(file)})
    else:
        typer.echo(f"{count(record['shapes'], 'shape')} in {file}")


@example_command(annotate, "merge", "annotate merge B12 he.zip --reader Ben")
def merge(
    case: CaseFolder,
    file: Annotated[Path, typer.Argument(metavar="FILE.zip", help="Package, also an edited one.")],
    reader: ReaderName = "",
    map_: ClassMap = None,
    own_class: OwnClasses = None,
    json: JsonOutput = False,
) -> None:
    """Give the shapes of an annotation package to a reader; known ones are updated."""
    from napari_mosaik.workflow.annotation_import import merge_package

    found = one_case(case)
    given = merge_package(found, file)
    name = _reader(found, reader, given.stain)
    _map_classes(given, map_, own_class)
    _take_import(given, name, "merge", "annotate merge", json)


@example_command(annotate, "export", "annotate export B12 he.geojson")
def export(
    case: CaseFolder,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="GeoJSON file to write.")],
    slide: Annotated[StainName, typer.Option(help="The annotated slide.")] = StainName.HE,
    on_cd34: Annotated[
        bool, typer.Option("--on-cd34", help="Map them to the CD34 slide by the registration.")
    ] = False,
    reader: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Export one reader's only. Default: all, once all have finished where any has "
            "drawn.",
        ),
    ] = "",
    all_readers: Annotated[
        bool, typer.Option("--all", help="Export those of all readers, finished or not.")
    ] = False,
    json: JsonOutput = False,
) -> None:
    """Export the case's annotations as GeoJSON for QuPath."""
    from napari_mosaik.io import write_geojson
    from napari_mosaik.view.formatting import count
    from napari_mosaik.workflow.annotations import shapes_to_export
    from napari_mosaik.workflow.given_alignment import shapes_on_reference

    found, warnings = one_case(case), list[str]()
    check_output("FILE", file, case_files(found))
    shapes = shapes_to_export(found, slide, reader, warnings, blind=not all_readers)
    stain = str(slide)
    if on_cd34:
        shapes, stain = shapes_on_reference(found, slide, shapes), REFERENCE
    with found.slide(stain) as opened:
        write_geojson(file, shapes, opened.lattice)
    for sentence in warnings:
        report_warning(sentence)
    if json:
        print_json({"case": found.name, "shapes": len(shapes), "file": str(file),
                    "warnings": warnings})  # fmt: skip
    else:
        typer.echo(f"{count(len(shapes), 'shape')} in {file}")


@example_command(annotate, "finish", "annotate finish B12 --reader Anna")
def finish(
    case: CaseFolder,
    slide: Annotated[StainName, typer.Option(help="The annotated slide.")] = StainName.HE,
    reader: ReaderName = "",
    json: JsonOutput = False,
) -> None:
    """Mark a reader's annotations as complete; show the shapes and area of each class."""
    from napari_mosaik.workflow.annotations import finish_reading

    found = one_case(case)
    name = _reader(found, reader, slide)
    record = finish_reading(found, name, slide)
    for sentence in record["warnings"]:
        report_warning(sentence)
    if json:
        print_json(record)
        return
    rows = [[row["name"], str(row["shapes"]), figure(row["area_mm2"])] for row in record["classes"]]
    table(f"{found.name}: complete for reader {name}", ["class", "shapes", "area (mm²)"], rows)


@example_command(commands, "review-queue", "review-queue B12 --json")
def review_queue(
    case: CaseFolder,
    ranking: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How the tiles are ranked: default (several signals), uncertainty, disagreement, "
            "boundary, rare, cold-among-hot, artefacts, or uptake, which reads the measured PET "
            "and makes the case a development case.",
        ),
    ] = "default",
    seed: Seed = 0,
    reader: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Rank for this reader: by nothing that comes from the marks of others in tiles "
            "that not both have finished.",
        ),
    ] = "",
    json: JsonOutput = False,
) -> None:
    """List the tiles by review priority with the reason for each, control tiles mixed in."""
    from napari_mosaik.annotate.review_queue import ranking_named
    from napari_mosaik.core.readers import check_reader_name
    from napari_mosaik.view.formatting import count
    from napari_mosaik.workflow.review_queue import review_queue as tiles_to_review

    name = check_reader_name(reader) if reader else ""
    queue = tiles_to_review(one_case(case), ranking, seed, reader=name)
    for sentence in queue.warnings:
        report_warning(sentence)
    if json:
        print_json(queue.as_dict())
        return
    rows = [[str(i.rank), str(i.tile), figure(i.score), i.reason] for i in queue.tiles[:20]]
    of = count(len(queue.tiles), "tile")
    table(
        f"{queue.case}: first {len(rows)} of {of}, ranked by {ranking}",
        ["rank", "tile", "priority", "reason"],
        rows,
        words=True,
    )
    typer.echo(ranking_named(ranking).about)


@example_command(commands, "agreement", "agreement B12")
def agreement(
    case: CaseFolder,
    slide: Annotated[StainName, typer.Option(help="The annotated slide.")] = StainName.HE,
    seed: Seed = 0,
    json: JsonOutput = False,
) -> None:
    """Compare the readers of a case in the tiles that both have finished: kappa, Dice."""
    from napari_mosaik.view.formatting import count
    from napari_mosaik.workflow.agreement import reader_agreement

    found = one_case(case)
    result = reader_agreement(found, slide, seed=seed)
    for sentence in result["warnings"]:
        report_warning(sentence)
    if json:
        print_json(result)
        return
    for pair in result["pairs"]:
        rows = [
            ["Cohen's kappa, area", *(figure(pair[name]) for name in _KAPPA)],
            ["Cohen's kappa, tiles", *(figure(pair[f"tile_{name}"]) for name in _KAPPA)],
            *([f"Dice, {name}", figure(value), "", ""] for name, value in pair["dice"].items()),
        ]
        table(
            f"{found.name}: {pair['readers'][0]} and {pair['readers'][1]} on "
            f"{figure(pair['area_mm2'])} mm² in {count(pair['n_tiles'], 'tile')}",
            ["agreement", "value", "from (95 % interval)", "to"],
            rows,
        )


_KAPPA = ("kappa", "kappa_low", "kappa_high")


@example_command(
    commands, "adjudicate", "adjudicate B12 --prefer Anna --by 'Dr. Eve' --out agreed.geojson"
)
def adjudicate(
    case: CaseFolder,
    prefer: Annotated[
        str,
        typer.Option(metavar="READER", help="Reader whose class is taken where the two differ."),
    ],
    by: Annotated[
        str, typer.Option(metavar="NAME", help="Who decides; written to the decided shapes.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="GeoJSON file to write.")],
    other: Annotated[
        str,
        typer.Option(metavar="READER", help="The other reader. Needed with more than two readers."),
    ] = "",
    slide: Annotated[StainName, typer.Option(help="The annotated slide.")] = StainName.HE,
    json: JsonOutput = False,
) -> None:
    """Write the set on which two readers agree; where they differ, the preferred class.

    Each shape says in `decided_by` who decided it: 'both', or the name after --by.
    """
    from napari_mosaik.view.formatting import count
    from napari_mosaik.workflow import agreement

    found = one_case(case)
    check_output("--out", out, case_files(found))
    record = agreement.adjudicate(found, out, prefer=prefer, by=by, other=other, stain=slide)
    for sentence in record["warnings"]:
        report_warning(sentence)
    if json:
        print_json(record)
        return
    typer.echo(
        f"{count(record['shapes'], 'shape')} in {out}: {figure(record['agreed_mm2'])} mm² agreed, "
        f"{figure(record['decided_mm2'])} mm² decided by {record['by']}"
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
    check_output("--csv", csv, case_files(found))
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
        typer.echo(f"{found.name}: no corrections; use 'Manual correction' in the window")
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
