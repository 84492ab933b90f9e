"""Command for the dose what-if: what a therapeutic label would have done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_mosaik.cli.common import (
    JsonOutput,
    SettingChanges,
    example_command,
    given_settings,
    naming_options,
    report_warning,
)
from napari_mosaik.cli.show import figure, print_json, table

__all__ = ["commands"]

commands = typer.Typer()
_ROWS = (
    ("time_integral_mbq_h_ml", "time-integrated activity, MBq h/mL"),
    ("before_first", "share of it before the first time"),
    ("after_last", "share of it after the last time"),
    ("dose_gy", "absorbed dose of electrons, Gy"),
    ("alpha_particle_gy", "absorbed dose of alpha particles, Gy"),
    ("rbe_weighted_gy", "RBE-weighted dose, Gy"),
    ("g", "protraction factor G"),
    ("bed_gy", "BED, Gy"),
    ("eqd2_gy", "EQD2, Gy"),
    ("ln_survival", "ln survival"),
)


@example_command(
    commands, "dose", "dose --curve curve.csv --nuclide Lu-177 --set dose.alpha=0.2 --json"
)
def dose(
    curve: Annotated[
        Path,
        typer.Option(
            help="Time course of one region (CSV): header time_h,activity_mbq_ml, decay-corrected "
            "to injection."
        ),
    ],
    nuclide: Annotated[str, typer.Option(help="The therapeutic nuclide, as Lu-177 or 177Lu.")],
    tail: Annotated[
        str,
        typer.Option(
            metavar="physical|HOURS",
            help="After the last time: physical decay alone, an upper bound, or the effective "
            "half-life in hours.",
        ),
    ] = "physical",
    set_: SettingChanges = None,
    json: JsonOutput = False,
) -> None:
    """Absorbed dose, BED and survival if a nuclide followed a measured time course.

    All energy but that of photons is absorbed where it is released (1.05 g/mL); damage is repaired
    with a half-time of 1.5 h. Research what-if, no treatment plan.
    """
    from napari_mosaik.workflow.dose import NOT_A_PLAN, curve_dose, dose_settings, tail_of

    with naming_options():
        document = curve_dose(curve, nuclide, tail_of(tail), dose_settings(given_settings(set_)))
    for sentence in document["warnings"]:
        report_warning(sentence)
    if json:
        print_json(document)
        return
    table("Dose what-if", ["", "value"], [[text, figure(document[key])] for key, text in _ROWS])
    constants = [[row["name"], str(row["value"]), row["source"]] for row in document["constants"]]
    table("Constants", ["constant", "value", "source"], constants, words=True)
    typer.echo(NOT_A_PLAN)
