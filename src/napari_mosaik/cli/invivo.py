"""Commands on the uptake in the living patient: type, import and show values of a case."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_mosaik.cli.common import (
    CaseFolder,
    JsonOutput,
    PetFrameOption,
    PetSeriesOption,
    PetUnitOption,
    command_group,
    example_command,
    naming_options,
    number_option,
    report_warning,
)
from napari_mosaik.cli.show import figure, print_json, table
from napari_mosaik.core.errors import InputError

if TYPE_CHECKING:
    from napari_mosaik.workflow.invivo import InvivoChange

__all__ = ["commands"]

commands = typer.Typer()
invivo = command_group(
    "invivo B12 --json",
    default="show",
    name="invivo",
    help="Uptake in scans of the living patient: the table invivo.csv of a case.",
    no_args_is_help=True,
)
commands.add_typer(invivo)
Replace = Annotated[
    bool, typer.Option("--replace", help="Replace values of the same region and time.")
]
Unit = Annotated[
    str, typer.Option(help="Unit of the values: SUVbw, SUVbsa, SUVlbm, Bq/mL or kBq/mL.")
]
_OPTIONS = {
    "time_h": "--time-h", "voxel_sd": "--voxel-sd", "volume_ml": "--volume-ml",
    "decay_reference": "--decay-reference", "relative_error": "--relative-error",
}  # fmt: skip


@example_command(invivo, "show", "invivo show B12 --json")
def show_values(case: CaseFolder, json: JsonOutput = False) -> None:
    """Show the values: time, region, mean, standard error of the mean, spread, volume."""
    from napari_mosaik.io import Case
    from napari_mosaik.workflow.invivo import stored_invivo

    found = Case(case)
    values = stored_invivo(found)
    if json:
        print_json({"case": found.name, "values": [asdict(one) for one in values]})
        return
    if not values:
        typer.echo(
            f"case {found.name} has no in-vivo values yet; add them with: napari-mosaik invivo add"
        )
        return
    _table(found.name, values)


@example_command(invivo, "add", "invivo add B12 --time-h 72.4 --region tumour --mean 8.2 --sd 0.5")
def add_value(
    case: CaseFolder,
    time_h: Annotated[float, number_option("Time after injection, h.")],
    region: Annotated[str, typer.Option(help="Region: tumour, blood, liver, kidney ...")],
    mean: Annotated[float, number_option("Mean of the volume of interest.")],
    sd: Annotated[
        float,
        number_option("Standard error of the mean; not the spread of the voxels."),
    ],
    unit: Unit = "SUVbw",
    decay_reference: Annotated[
        str,
        typer.Option(help="injection. Needed for Bq/mL; an SUV does not depend on it."),
    ] = "",
    voxel_sd: Annotated[float | None, number_option("Standard deviation of the voxels.")] = None,
    volume_ml: Annotated[float | None, number_option("Volume, mL.")] = None,
    replace: Replace = False,
    json: JsonOutput = False,
) -> None:
    """Add a value that was measured elsewhere."""
    from napari_mosaik.io import Case
    from napari_mosaik.workflow.invivo import add_invivo, typed_value

    fields = {
        "time_h": time_h, "region": region, "mean": mean, "sd": sd, "unit": unit,
        "decay_reference": decay_reference, "voxel_sd": voxel_sd, "volume_ml": volume_ml,
    }  # fmt: skip
    with naming_options(**_OPTIONS):
        value = typed_value(fields)
    with _naming_replace():
        change = add_invivo(Case(case), [value], replace_same=replace)
    _report(case, change, json)


@example_command(invivo, "remove", "invivo remove B12 --time-h 72.4 --region tumour")
def remove_value(
    case: CaseFolder,
    time_h: Annotated[float, number_option("Time after injection, h, as shown.")],
    region: Annotated[str, typer.Option(help="Region: tumour, blood, liver, kidney ...")],
    json: JsonOutput = False,
) -> None:
    """Remove one value."""
    from napari_mosaik.core.invivo import region_name
    from napari_mosaik.io import Case
    from napari_mosaik.workflow.invivo import set_invivo, stored_invivo

    opened, name = Case(case), region_name(region)
    values = stored_invivo(opened)
    gone = [one for one in values if one.region == name and abs(one.time_h - time_h) < 0.005]
    if len(gone) != 1:
        known = ", ".join(one.label for one in values) or "none"
        raise InputError(f"there is no value of {name} at {time_h:g} h; there are: {known}")
    left = set_invivo(opened, [one for one in values if one is not gone[0]])
    if json:
        print_json({"removed": asdict(gone[0]), "values": [asdict(one) for one in left]})
        return
    typer.echo(f"removed: {gone[0].label}, {figure(gone[0].mean)} {gone[0].unit}")


@example_command(invivo, "import", "invivo import B12 tac.tsv --unit kBq/mL --decay-reference scan")
def import_values(
    case: CaseFolder,
    file: Annotated[
        Path,
        typer.Argument(
            help="Table (CSV, TSV) with a time and region, mean, sd, or a table of PET-BIDS."
        ),
    ],
    sidecar: Annotated[
        Path | None,
        typer.Option(help="JSON file of PET-BIDS. Default: that beside the table."),
    ] = None,
    unit: Unit = "",
    decay_reference: Annotated[
        str,
        typer.Option(
            help="Time to which values are decay-corrected: injection, scan (its start) or none."
        ),
    ] = "",
    region: Annotated[str, typer.Option(help="Region, if no column names it.")] = "",
    relative_error: Annotated[
        float | None,
        number_option("Standard error as a fraction of the mean, if there is no column sd."),
    ] = None,
    replace: Replace = False,
    json: JsonOutput = False,
) -> None:
    """Import a table, converted to the unit of the case; every conversion is stated."""
    from napari_mosaik.io import Case
    from napari_mosaik.workflow.invivo import import_invivo

    # names of columns stay as they are in the table
    own = {name: _OPTIONS[name] for name in ("decay_reference", "relative_error")}
    with naming_options(**own), _naming_replace():
        change = import_invivo(
            Case(case),
            file,
            sidecar=sidecar,
            unit=unit,
            decay_reference=decay_reference,
            region=region,
            relative_error=relative_error,
            replace_same=replace,
        )
    _report(case, change, json)


@example_command(
    invivo,
    "measure",
    "invivo measure B12 day3 --region tumour --sphere 12,-40,310,15 --store",
)
def measure(
    case: CaseFolder,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help="A PET series: its folder or files, NIfTI with its sidecar, or Inveon.",
        ),
    ],
    region: Annotated[str, typer.Option(help="Region: tumour, blood, liver, kidney ...")],
    sphere: Annotated[
        str,
        typer.Option(metavar="X,Y,Z,R", help="Centre in the patient (as in DICOM) and radius, mm."),
    ] = "",
    mask: Annotated[
        Path | None, typer.Option(help="DICOM SEG, RTSTRUCT, or a NIfTI label image on its voxels.")
    ] = None,
    label: Annotated[
        int | None, typer.Option(help="Number of the segment or region, if there are several.")
    ] = None,
    kind: Annotated[
        Literal["bw", "bsa", "lbm"],
        typer.Option(help="SUV by body weight, body surface area or lean body mass."),
    ] = "bw",
    fwhm_mm: Annotated[
        float | None,
        number_option(
            "Resolution of the scanner, full width at half maximum, mm. Default: 4.6, that of "
            "a clinical scanner; needed for small voxels."
        ),
    ] = None,
    recovery: Annotated[
        Literal["none", "mean"],
        typer.Option(
            help="mean: divide by the recovery coefficient of a uniform sphere of this volume "
            "without background. The coefficient is always shown."
        ),
    ] = "none",
    calibration: Annotated[
        float, number_option("Standard error of the calibration as a fraction of the mean.")
    ] = 0.05,
    series: PetSeriesOption = None,
    frame_index: PetFrameOption = None,
    unit: PetUnitOption = "",
    same_patient: Annotated[
        bool,
        typer.Option(
            "--same-patient", help="Confirm that the patient of the series is that of the case."
        ),
    ] = False,
    store: Annotated[
        bool, typer.Option("--store", help="Add the value to invivo.csv of the case.")
    ] = False,
    replace: Replace = False,
    json: JsonOutput = False,
) -> None:
    """Measure the mean uptake of a volume of interest in a PET series of the patient.

    Only numbers and a hash are kept: no name, no identifier, no voxel.
    """
    from napari_mosaik.io import Case
    from napari_mosaik.io.pet import choose_series
    from napari_mosaik.io.pet.sidecar import unit_named
    from napari_mosaik.view.invivo import measured_lines
    from napari_mosaik.workflow import invivo as work

    if bool(sphere) == (mask is not None):
        raise InputError("give one of --sphere X,Y,Z,R and --mask FILE")
    opened = Case(case)
    names = {"same_patient": "--same-patient", "label": "--label", "series": "--series"}
    names["fwhm_mm"] = "--fwhm-mm"
    with naming_options(**names, frame_index="--frame-index"):
        volume = work.open_series(
            opened,
            files if series is None else choose_series(files, series),
            frame_index=frame_index,
            unit=unit_named(unit) if unit else None,
            same_patient=same_patient,
        )
        voi = mask or work.SphereOfInterest.typed(sphere)
        found = work.measure_invivo(
            opened,
            volume,
            voi,
            region,
            label=label,
            kind=kind,
            fwhm_mm=fwhm_mm,
            recovery=recovery,
            calibration=calibration,
        )
        if store:
            with _naming_replace():
                work.add_invivo(opened, [found.value], replace_same=replace)
    for sentence in found.warnings:
        report_warning(sentence)
    if json:
        print_json({**work.voi_record(found), "stored": store})
        return
    _table(opened.name, [found.value])
    for line in measured_lines(found):
        typer.echo(f"- {line}")
    if not store:
        typer.echo("not stored; add --store to keep it in the case")


@contextmanager
def _naming_replace() -> Iterator[None]:
    """Name the option that replaces a value of the same region and time."""
    try:
        yield
    except InputError as error:
        if "keep one of them" in str(error):
            error.args = (f"{error} (--replace keeps the new one)",)
        raise


def _report(case: Path, change: InvivoChange, json: bool) -> None:
    for sentence in change.warnings:
        report_warning(sentence)
    if json:
        print_json(asdict(change))
        return
    for sentence in change.conversions:
        typer.echo(f"- {sentence}")
    _table(case.name, change.added)


def _table(name: str, values: Any) -> None:
    rows = [
        [
            one.region, figure(one.time_h, 5), figure(one.mean), figure(one.sd),
            figure(one.voxel_sd), figure(one.volume_ml), one.unit, one.method or one.source,
        ]
        for one in values
    ]  # fmt: skip
    header = ["region", "h", "mean", "error", "voxel SD", "mL", "unit", "source"]
    table(f"{name} · uptake in vivo", header, rows)
