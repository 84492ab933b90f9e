"""Commands on single files: segment an image, PET to SUV, align two slides, kinetics."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_mosaik.cli.common import (
    Device,
    JsonOutput,
    PageOption,
    PetFrameOption,
    PetSeriesOption,
    PetUnitOption,
    SchedulerAddress,
    SettingChanges,
    check_output,
    example_command,
    given_settings,
    naming_options,
    number_option,
    record_options,
    report_warning,
    spacing_option,
)
from napari_mosaik.cli.show import Bar, drive, figure, print_json, table
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.pet_records import InjectionRecord
from napari_mosaik.core.text import typed_numbers

if TYPE_CHECKING:
    from napari_mosaik.io.slide.types.tiles import RegionUm

__all__ = ["commands"]


commands = typer.Typer()
_TERMS = (
    "dose_mbq",
    "residual_mbq",
    "injected",
    "scanned",
    "decay_correction",
    "frame_duration_s",
    "half_life_h",
    "nuclide",
    "weight_kg",
    "height_cm",
    "sex",
)
"""The options of `suv` that are fields of the injection record."""


@example_command(
    commands,
    "segment",
    "segment nuclei he.svs --region 0,0,500,500 --out nuclei.tif",
)
def segment(
    kind: Annotated[
        Literal["tissue", "vessels", "nuclei", "classes"],
        typer.Argument(help="What is segmented."),
    ],
    image: Annotated[Path, typer.Argument(help="A picture or slide.")],
    out: Annotated[Path, typer.Option(help="Label image to write (TIFF).")],
    spacing: Annotated[
        Any, spacing_option("Pixel size of the picture, µm, if the file states none.")
    ] = None,
    csv_table: Annotated[
        Path | None, typer.Option("--table", help="Table of the objects to write (CSV).")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="dab or hsv for vessels, classical or stardist for nuclei, fast or densenet for "
            "classes. Default: that of the settings, or of the weights."
        ),
    ] = "",
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            "--model",
            help="Nuclei: weights of a StarDist network (file or folder). Classes: folder of a "
            "trained model.",
        ),
    ] = None,
    region: Annotated[
        str,
        typer.Option(metavar="Y,X,H,W", help="Region: row, column, height and width in µm."),
    ] = "",
    label_spacing: Annotated[
        float | None,
        number_option(
            "Pixel size of the label image, µm. Default: that of the picture, so that the "
            "labels lie on it pixel by pixel."
        ),
    ] = None,
    page: PageOption = None,
    scheduler: SchedulerAddress = "",
    device: Device = "auto",
    json: JsonOutput = False,
) -> None:
    """Segment a picture or a region of a slide without a case, with the steps of a case."""
    from napari_mosaik.workflow.segment_picture import segment_picture

    check_output("--out", out, [image, *filter(None, [weights])])
    check_output("--table", csv_table, [image, out, *filter(None, [weights])])
    work = segment_picture(
        kind,
        image,
        out,
        spacing,
        method=method,
        weights=weights,
        region=_region(region) if region else None,
        label_spacing_um=label_spacing,
        page=page,
        scheduler=scheduler,
    )
    names = {"page": "--page", "label_spacing_um": "--label-spacing"}
    with Bar(quiet=json) as bar, naming_options(**names):
        segmented = drive(work, f"{image.name} · {kind}", bar)
    record = segmented.record
    if csv_table is not None:
        _write_csv(csv_table, segmented.table)
    for text in record["warnings"]:
        report_warning(text)
    if json:
        print_json({**record, "labels": str(out)})
        return
    typer.echo(f"{record['count']} {kind} ({record['method']}) in {out}")
    for reason, count in record.get("left_out", {}).items():
        if count:
            typer.echo(f"excluded, {reason}: {count}")


def _region(text: str) -> RegionUm:
    try:
        row, column, height, width = typed_numbers(text)
    except (InputError, ValueError):
        raise InputError(
            f"--region {text!r} is not of the form row,column,height,width in µm"
        ) from None
    return (row, column), (height, width)


def _write_csv(path: Path, objects: Any) -> None:
    import numpy as np

    from napari_mosaik.io.files import write_bytes

    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["label", *objects])
    columns = [np.asarray(objects[name]) for name in objects]
    for number, row in enumerate(zip(*columns, strict=True), 1):
        writer.writerow([number, *("" if v != v else v for v in row)])
    write_bytes(path, text.getvalue().encode())


@example_command(
    commands,
    "suv",
    "suv series --dose-mbq 37.2 --injected 2024-03-04T10:30 --weight-kg 82 --height-cm 178",
)
@record_options(InjectionRecord, _TERMS, into="terms")
def suv(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help="A PET image, the files of one series or their folder; a sidecar (.json) may be "
            "added.",
        ),
    ],
    terms: dict[str, Any],
    kind: Annotated[
        Literal["bsa", "bw", "lbm"],
        typer.Option(help="Normalised by body surface area, body weight or lean body mass."),
    ] = "bsa",
    slice_index: Annotated[
        int | None, typer.Option(help="Only this slice, counted from 0. Default: all slices.")
    ] = None,
    frame_index: PetFrameOption = None,
    unit: PetUnitOption = "",
    series: PetSeriesOption = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="Mask on the same voxels. Figures are of the voxels above 0."),
    ] = None,
    json: JsonOutput = False,
) -> None:
    """Convert a PET to SUV and show every term with its source."""
    from napari_mosaik.io.pet import choose_series
    from napari_mosaik.io.pet.sidecar import unit_named
    from napari_mosaik.workflow.suv import suv_of_files

    names = {"slice_index": "--slice-index", "frame_index": "--frame-index"}
    with naming_options(**names, series="--series", unit="--unit"):
        record = suv_of_files(
            choose_series(files, series) if series else files,
            kind,
            terms,
            slice_index=slice_index,
            frame_index=frame_index,
            unit=unit_named(unit) if unit else None,
            mask=mask,
        )
    for sentence in record["warnings"]:
        report_warning(sentence)
    if json:
        print_json(record)
        return
    from napari_mosaik.view.formatting import count, scaled, short_formula

    rows = []
    for term in record["terms"]:
        value, term_unit = term["value"], term["unit"]
        if isinstance(value, float):
            value, term_unit = scaled(value, term_unit)
            value = figure(value)
        rows.append([term["label"], value or "missing", term_unit, term["source"]])
    table(f"SUV ({record['kind']})", ["term", "value", "unit", "source"], rows)
    typer.echo(
        short_formula(record["formula"], lambda value, unit: f"{figure(value)} {unit}".strip())
    )
    typer.echo(f"factor   {figure(record['factor'])}")
    typer.echo(f"voxels   {record['n_voxels']} in {count(record['n_slices'], 'slice')}")
    typer.echo(f"maximum  {figure(record['maximum'])} {record['unit']}")
    typer.echo(f"mean     {figure(record['mean'])} {record['unit']}")
    for sentence in record["assumptions"]:
        typer.echo(f"- {sentence}")


@example_command(commands, "align", "align cd34.svs he.svs --kind affine")
def align(
    fixed: Annotated[Path, typer.Argument(help="The fixed picture or slide.")],
    moving: Annotated[Path, typer.Argument(help="The picture or slide to register to it.")],
    spacing_fixed: Annotated[
        Any, spacing_option("Pixel size, µm, if the file states none.")
    ] = None,
    spacing_moving: Annotated[
        Any, spacing_option("Pixel size, µm, if the file states none.")
    ] = None,
    landmarks_fixed: Annotated[Path | None, typer.Option(help="Landmarks (CSV, pixels).")] = None,
    landmarks_moving: Annotated[Path | None, typer.Option(help="Landmarks (CSV, pixels).")] = None,
    kind: Annotated[
        Literal["rigid", "similarity", "affine"], typer.Option(help="Kind of transform.")
    ] = "rigid",
    by_landmarks: Annotated[
        bool,
        typer.Option("--by-landmarks", help="Fit the landmarks instead of measuring the error."),
    ] = False,
    matrix: Annotated[
        Path | None,
        typer.Option(help="Assess the transform in this file (3 x 3, µm) instead of registering."),
    ] = None,
    order: Annotated[
        Literal["rc", "xy"], typer.Option(help="The matrix acts on (row, column) or (x, y).")
    ] = "rc",
    json: JsonOutput = False,
) -> None:
    """Register two slides and report the quality; landmarks measure the registration error."""
    from napari_mosaik.workflow.picture_case import align_pictures

    work = align_pictures(
        fixed,
        moving,
        spacing_fixed,
        spacing_moving,
        landmarks_fixed,
        landmarks_moving,
        kind,
        by_landmarks=by_landmarks,
        matrix=matrix,
        order=order,
    )
    with Bar(quiet=json) as bar:
        record = drive(work, f"{moving.name} · registration", bar)
    for sentence in record["warnings"]:
        report_warning(sentence)
    if json:
        print_json(record)
        return
    typer.echo("matrix (row, column, 1 in µm; moving to fixed):")
    for row in record["matrix"]:
        typer.echo("  " + "  ".join(f"{value:12.6g}" for value in row))
    for key in ("scale", "angle_deg", "dice", "confidence", "inlier_fraction"):
        typer.echo(f"{key:15} {figure(record[key])}")
    for key, errors in record.get("landmark_error_um", {}).items():
        typer.echo(f"landmarks {key}: median {figure(errors['median'])} µm, n {errors['n']}")


@example_command(commands, "kinetics", "kinetics --preset table2 --times-h 72,120,336")
def kinetics(
    preset: Annotated[
        Literal["table2"], typer.Option(help="Parameters to start from: the paper's Table 2.")
    ] = "table2",
    times_h: Annotated[
        str,
        typer.Option(metavar="H,H,...", help="Imaging times in hours, separated by commas."),
    ] = "72,120,168,336",
    set_: SettingChanges = None,
    surface_density: Annotated[
        float, number_option("Vessel perimeter per area of the tissue, 1/µm.", least=0.0)
    ] = 0.005,
    sbml: Annotated[
        Path | None,
        typer.Option(help="Write the patient's model as SBML (Level 3 Version 2) to this file."),
    ] = None,
    json: JsonOutput = False,
) -> None:
    """Free, bound and internalised antibody over time, and what images at these times determine.

    --set changes a parameter of the patient's model, of the delivery to a tile, or of both.
    """
    from napari_mosaik.io.files import write_bytes
    from napari_mosaik.kinetics import to_sbml
    from napari_mosaik.view.kinetic_explorer import RESOLVED, concentration
    from napari_mosaik.workflow.kinetics import iter_kinetics_document, kinetic_settings

    try:
        times = typed_numbers(times_h)
    except InputError:
        raise InputError(
            f"--times-h {times_h!r} is not a list of numbers like 72,120,168"
        ) from None
    settings = kinetic_settings(given_settings(set_), times)
    if sbml is not None:
        write_bytes(sbml, to_sbml(settings[0]).encode())
    with Bar(quiet=json) as bar:
        work = iter_kinetics_document(*settings, times, surface_density)
        document = drive(work, "Kinetics", bar)
    if json:
        print_json({**document, "preset": preset})
        return
    names = ("time_h", "free_um", "bound_um", "internalised_um", "total_um")
    min_um = RESOLVED * settings[0].free_0_um
    rows = [
        [f"{t:g}", *(concentration(value, min_um) for value in row)]
        for t, *row in zip(*map(document.get, names), strict=True)
    ]
    table("Antibody", ["time, h", "free", "bound", "internalised", "total"], rows)
    for key, title in (("patient", "The patient"), ("tile", "Tissue, limited by delivery")):
        _print_diagnostics(title, document["diagnostics"][key])


def _print_diagnostics(title: str, record: dict[str, Any]) -> None:
    from napari_mosaik.view.kinetic_explorer import share_rows

    typer.echo(f"{title}:")
    if "not_available" in record:
        typer.echo(f"  not available: {record['not_available']}")
        return
    for one in (*record["findings"], *record["parameters"]):
        typer.echo(f"  {one['sentence']}")
    if record.get("sobol"):
        rows = share_rows(record)
        heading = f"Share of the variance of the antibody retained at {record['imaging_h'][-1]:g} h"
        table(heading, ["parameter", "alone (95 %)", "with interactions (95 %)"], rows)
