"""Commands on the uptake in the living patient: type, import and show values of a case."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_mosaik.cli.common import (
    CaseFolder,
    JsonOutput,
    command_group,
    example_command,
    naming_options,
    report_warning,
)
from napari_mosaik.cli.show import figure, print_json, table

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
    from napari_mosaik.io.invivo import read_invivo

    found = Case(case)
    values = read_invivo(found.root)
    if json:
        print_json({"case": found.name, "values": [asdict(one) for one in values]})
        return
    if not values:
        typer.echo(
            f"case {found.name} has no values in vivo yet; add them with: napari-mosaik invivo add"
        )
        return
    _table(found.name, values)


@example_command(invivo, "add", "invivo add B12 --time-h 72.4 --region tumour --mean 8.2 --sd 0.5")
def add_value(
    case: CaseFolder,
    time_h: Annotated[float, typer.Option(help="Time after injection, h.")],
    region: Annotated[str, typer.Option(help="Region: tumour, blood, liver, kidney ...")],
    mean: Annotated[float, typer.Option(help="Mean of the volume of interest.")],
    sd: Annotated[
        float,
        typer.Option(help="Standard error of the mean; not the spread of the voxels."),
    ],
    unit: Unit = "SUVbw",
    decay_reference: Annotated[
        str,
        typer.Option(help="injection; needed for Bq/mL, an SUV is the same for every reference."),
    ] = "",
    voxel_sd: Annotated[
        float | None, typer.Option(help="Standard deviation of the voxels.")
    ] = None,
    volume_ml: Annotated[float | None, typer.Option(help="Volume, mL.")] = None,
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
    _report(case, add_invivo(Case(case), [value], replace_same=replace), json)


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
            help="To what the values are decay-corrected: injection, scan (its start) or none."
        ),
    ] = "",
    region: Annotated[str, typer.Option(help="Region, if no column names it.")] = "",
    relative_error: Annotated[
        float | None,
        typer.Option(help="Standard error of the mean as a fraction of it, if no column sd."),
    ] = None,
    replace: Replace = False,
    json: JsonOutput = False,
) -> None:
    """Import a table, converted to the unit of the case; every conversion is stated."""
    from napari_mosaik.io import Case
    from napari_mosaik.workflow.invivo import import_invivo

    with naming_options(**_OPTIONS):
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
            figure(one.voxel_sd), figure(one.volume_ml), one.unit, one.source, one.method,
        ]
        for one in values
    ]  # fmt: skip
    header = ["region", "h", "mean", "error", "voxel SD", "mL", "unit", "source", "method"]
    table(f"{name} · uptake in vivo", header, rows)
