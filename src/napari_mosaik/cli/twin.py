"""Commands of the updating twin of a case: predict a scan, take it in, say what was learnt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from napari_mosaik.cli.common import (
    CaseFolder,
    JsonOutput,
    Seed,
    SettingChanges,
    case_files,
    check_output,
    command_group,
    example_command,
    given_settings,
    number_option,
    report_warning,
)
from napari_mosaik.cli.show import Bar, drive, figure, print_json, table
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.text import typed_number, typed_numbers

if TYPE_CHECKING:
    from napari_mosaik.workflow.twin import CaseTwin

__all__ = ["commands"]

commands = typer.Typer()
twin = command_group(
    "twin B12 status --json",
    default="status",
    name="twin",
    help="Updating twin: predict each scan in invivo.csv before it is taken in, and learn from it.",
    no_args_is_help=True,
)
commands.add_typer(twin)


def _open(case: Path, set_: list[str] | None = None, *, recover: bool = False) -> CaseTwin:
    from napari_mosaik.io import Case
    from napari_mosaik.workflow.twin import CaseTwin

    return CaseTwin(Case(case), given_settings(set_), recover_slice=recover)


@example_command(twin, "status", "twin status B12 --json")
def twin_status(case: CaseFolder, set_: SettingChanges = None, json: JsonOutput = False) -> None:
    """Show scans, parameters with what is known of them, and the next scan."""
    document = _open(case, set_).status()
    for sentence in document["warnings"]:
        report_warning(sentence)
    if json:
        print_json(document)
        return
    table(
        f"Scans of {document['case']}",
        ["time, h", "region", "mean", "standard error", "unit", "taken in"],
        [
            [f"{row['time_h']:g}", row["region"], figure(row["mean"]), figure(row["sd"]),
             row["unit"], "yes" if row["taken_in"] else "no"]
            for row in document["scans"]
        ],
    )  # fmt: skip
    table(
        "Parameters, 5 to 95 %",
        ["parameter", "median", "low", "high", "contraction", ""],
        [
            [row["name"], *map(figure, (row["median"], row["low"], row["high"])),
             f"{row['contraction']:.2f}", row["word"]]
            for row in document["parameters"]
        ],
    )  # fmt: skip
    for sentence in (*document["notes"], document["limits"]):
        typer.echo(sentence)


@example_command(twin, "predict", "twin predict B12 --json")
def predict_scan_command(
    case: CaseFolder, set_: SettingChanges = None, json: JsonOutput = False
) -> None:
    """Predict the next scan and store the prediction before the scan is taken in."""
    document = _open(case, set_).predict_next()
    if json:
        print_json(document)
        return
    for row in document["regions"]:
        typer.echo(
            f"{row['region']} at {document['time_h']:g} h: {figure(row['median'])} "
            f"({figure(row['low'])} to {figure(row['high'])}) {document['unit']}, stored "
            f"{document['stored_at']}"
        )


@example_command(twin, "update", "twin update B12 --json")
def update_twin(
    case: CaseFolder,
    slice_recovery: Annotated[
        bool,
        typer.Option(
            "--slice-recovery",
            help="If the excised slice is next, divide its mean by the slice recovery: the part of "
            "a uniform uptake that its PET shows (see status).",
        ),
    ] = False,
    set_: SettingChanges = None,
    json: JsonOutput = False,
) -> None:
    """Take in the next scan by time; its prediction is stored first."""
    document = _open(case, set_, recover=slice_recovery).take_in_next()
    for sentence in document["warnings"]:
        report_warning(sentence)
    if json:
        left = ("observations", "covariance", "mean_ln", "draws")
        print_json({name: value for name, value in document.items() if name not in left})
        return
    for row in document["regions"]:
        typer.echo(
            f"{row['region']} at {document['time_h']:g} h: {figure(row['mean'])} "
            f"{document['unit']}, z {row['z']:+.2f}, log score {row['log_score']:.2f}"
        )
    for sentence in document["notes"]:
        typer.echo(sentence)


@example_command(twin, "identify", "twin identify B12 --json")
def identify_parameters(
    case: CaseFolder, set_: SettingChanges = None, json: JsonOutput = False
) -> None:
    """Show which parameters are determined by the scans that were taken in."""
    from napari_mosaik.view.formatting import count

    document = _open(case, set_).identify()
    if json:
        print_json(document)
        return
    table(
        f"Determined by {count(document['n_observations'], 'observation')} (SD of ln)",
        ["parameter", "prior", "scans alone", "contraction", ""],
        [
            [row["name"], figure(row["prior_sd"]), figure(row["cramer_rao_sd"]),
             f"{row['contraction']:.2f}", row["word"]]
            for row in document["rows"]
        ],
    )  # fmt: skip


@example_command(twin, "next-scan", "twin next-scan B12 --times 24,240 --target uptake:336")
def worth_of_next_scan(
    case: CaseFolder,
    times: Annotated[
        str, typer.Option(metavar="H,H,...", help="Candidate times of one more scan, h.")
    ] = "4,24,48,72,96,120,168,240,336",
    target: Annotated[
        str,
        typer.Option(
            help="Quantity to be narrowed: uptake:HOURS, or time_integral:HALF_LIFE_H. "
            "Default: the uptake at surgery."
        ),
    ] = "",
    cv: Annotated[float, number_option("Relative error of the scan.")] = 0.08,
    set_: SettingChanges = None,
    json: JsonOutput = False,
) -> None:
    """Show how much one more scan at each time would narrow a target."""
    if not 0 < cv <= 1:
        raise InputError(f"--cv {cv:g}: give the relative error of a scan, 0.08 for example")
    found = _open(case, set_)
    document = found.worth_of_scans(_hours(times), _target_of(target), cv)
    if json:
        print_json(document)
        return
    kind, number = document["target"]
    rows = zip(document["time_h"], document["sd_before"], document["sd_after"], strict=True)
    table(
        f"SD of ln of {kind}, {number:g} h",
        ["scan at, h", "before", "after"],
        [[f"{time:g}", figure(before), figure(after)] for time, before, after in rows],
    )
    typer.echo(f"worth most: {document['best_time_h']:g} h")


def _hours(text: str) -> list[float]:
    try:
        return typed_numbers(text)
    except InputError:
        raise InputError(f"--times {text!r} is not a list of numbers like 24,48,240") from None


def _target_of(text: str) -> tuple[str, float] | None:
    if not text:
        return None
    kind, _, number = text.partition(":")
    try:
        return kind, typed_number(number)
    except InputError:
        raise InputError(
            f"--target {text!r} is not of the form uptake:336 or time_integral:159.5"
        ) from None


@example_command(twin, "curve", "twin curve B12 --out curve.csv --nuclide Lu-177")
def write_time_course(
    case: CaseFolder,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the median as CSV (time_h,activity_mbq_ml), as dose reads it."),
    ] = None,
    draws: Annotated[
        int,
        typer.Option(
            min=0, max=4096, help="Number of draws of the curve to write beside it, for dose CASE."
        ),
    ] = 0,
    nuclide: Annotated[
        str, typer.Option(help="Therapeutic nuclide of the time integral.")
    ] = "Lu-177",
    set_: SettingChanges = None,
    json: JsonOutput = False,
) -> None:
    """The tumour's time course with its band, for the dose what-if.

    As a shape of a plan: napari-mosaik dose CASE --shape FILE, with the printed CV as
    --set dose.spreads.time_course=CV, or with --draws and that spread at 0.
    """
    from napari_mosaik.dosimetry import nuclide as known_nuclide
    from napari_mosaik.io.files import write_bytes
    from napari_mosaik.view.formatting import count
    from napari_mosaik.workflow.twin import time_course_csv

    found = _open(case, set_)
    check_output("--out", out, case_files(found.case))
    document = found.time_course(known_nuclide(nuclide).half_life_h, draws)
    if out is not None:
        write_bytes(out, time_course_csv(document))
    if json:
        print_json({name: value for name, value in document.items() if name != "draws"})
        return
    typer.echo(
        f"after {count(document['n_updates'], 'scan')}; CV of the time integral of {nuclide} for a "
        f"given uptake at {document['uptake_at_h']:.0f} h: {document['time_course_cv']:.2f}"
    )


@example_command(twin, "map", "twin map B12 --at-h 168 --out day7.nii")
def write_uptake_map(
    case: CaseFolder,
    at_h: Annotated[float, number_option("Time after injection, h; 0 to 1000.")],
    out: Annotated[Path, typer.Option(help="NIfTI file (.nii); a JSON is written beside it.")],
    uptake: Annotated[
        Literal["best", "predicted", "measured"],
        typer.Option(help="Uptake of the tiles; best: predicted, else measured."),
    ] = "best",
    json: JsonOutput = False,
) -> None:
    """Write the uptake of the tiles at one time as NIfTI; each follows the tumour's curve."""
    found = _open(case)
    check_output("--out", out, case_files(found.case))
    document = found.write_map(out, at_h, uptake)
    for sentence in document["warnings"]:
        report_warning(sentence)
    if json:
        print_json(document)
        return
    ratio = document["ratio"]
    typer.echo(
        f"{out.name}: {document['uptake']} uptake at {document['uptake_at_h']:.0f} h x "
        f"{figure(ratio['median'])} ({figure(ratio['low'])} to {figure(ratio['high'])}), "
        f"{document['Units']}"
    )


@example_command(twin, "cohort", "twin cohort B12 --outcome tcp --threshold 0.5 --json")
def simulate_cohort(
    case: CaseFolder,
    n: Annotated[int, typer.Option("--n", help="Number of simulated patients.")] = 400,
    plan: Annotated[
        list[str] | None,
        typer.Option(help="Plan of the case that is an arm. Repeatable; default: all."),
    ] = None,
    arms: Annotated[
        str,
        typer.Option(
            metavar="mass|courses|nuclide",
            help="Compare presets: 5 or 10 mg, one or three courses, 177Lu, 225Ac or both. They "
            "are added to the plans of the case and can be edited there.",
        ),
    ] = "",
    outcome: Annotated[
        str,
        typer.Option(
            metavar="bed|electron|alpha|tcp|organ:NAME",
            help="BED of the tumour's mean dose, or its absorbed dose of electrons or of alpha "
            "particles, Gy; tumour control over the tiles of the slide; dose of an organ, Gy.",
        ),
    ] = "bed",
    threshold: Annotated[
        str,
        typer.Option(
            help="Outcome above which a patient responds, as 20 or '20 Gy', 0.5 or '50 %'; for an "
            "organ the largest dose. Default: limit of the organ, 0.5 for tcp, else the median."
        ),
    ] = "",
    half_width: Annotated[
        float, number_option("Half width of the interval for which patients are counted.")
    ] = 0.05,
    organs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NUCLIDE=FILE",
            help="Table of organs of a nuclide (CSV), as for dose --organs; kept in the case. "
            "Repeatable.",
        ),
    ] = None,
    antigen_um: Annotated[
        float, number_option("Antigen of the tumour, µM, for plans with a mass of antibody.")
    ] = 0.3662,
    population: Annotated[
        bool, typer.Option("--population", help="Draw from the prior, not from the posterior.")
    ] = False,
    seed: Seed = 0,
    set_: SettingChanges = None,
    json: JsonOutput = False,
) -> None:
    """Simulate patients under each plan of the case, the same patients in each arm."""
    from napari_mosaik.twin import patients_needed
    from napari_mosaik.workflow.plans import add_arms
    from napari_mosaik.workflow.virtual_cohort import (
        cohort_document,
        cohort_threshold,
        outcome_kind,
        plan_cohort,
    )

    found = _open(case, set_)
    bar_at = cohort_threshold(threshold, outcome_kind(outcome))
    patients_needed(half_width)  # a width that is not possible is reported before anything is done
    for text in organs or ():
        _keep_organs(found, text)
    names = [*(add_arms(found.case.root, arms) if arms else ()), *(plan or ())]
    patients = plan_cohort(
        found, n=n, seed=seed, names=names, population=population, outcome=outcome,
        antigen_um=antigen_um,
    )  # fmt: skip
    with Bar(quiet=json) as bar:
        cohort = drive(patients, "Virtual cohort", bar)
    document = cohort_document(
        cohort,
        drawn_from="prior" if population or not found.taken else "posterior",
        seed=seed,
        outcome=outcome,
        threshold=bar_at,
        half_width=half_width,
    )
    if json:
        print_json(document)
        return
    columns = ("median", "low", "high", "responders", "responders_low", "responders_high")
    unit = document["unit"] if document["unit"] != "1" else "probability"
    table(
        f"{document['n']} patients from the {document['drawn_from']}, {document['label']}, {unit}: "
        f"{document['note']}",
        ["arm", "median", "5 %", "95 %", "responders", "low", "high", "patients needed"],
        [
            [row["arm"], *(figure(row[name]) for name in columns), str(row["patients_needed"])]
            for row in document["arms"]
        ],
    )
    side = "within: at most" if document["better_is"] == "smaller" else "responders: at least"
    typer.echo(
        f"{side} {figure(document['threshold'])} ({document['threshold_from']}); "
        f"better is {document['better_is']}"
    )
    for pair in document["better"]:
        typer.echo(f"P({pair['a']} better than {pair['b']}): {pair['probability']:.3f}")
    for name, why in document["not_available"].items():
        typer.echo(f"not available: {name}: {why}")
    typer.echo("\n".join(document["notes"]))


def _keep_organs(found: CaseTwin, text: str) -> None:
    from napari_mosaik.workflow.virtual_cohort import keep_organ_table

    name, equals, path = text.partition("=")
    if not equals:
        raise InputError(f"--organs {text!r} does not say of which nuclide: give Lu-177={text}")
    keep_organ_table(found.case.root, name, Path(path))


@example_command(twin, "decide", 'twin decide B12 --plan one-course --by "Dr A"')
def record_decision(
    case: CaseFolder,
    plan: Annotated[str, typer.Option(help="Name of the plan that was chosen.")],
    by: Annotated[str, typer.Option(help="Who decided.")],
    note: Annotated[str, typer.Option(help="Free text.")] = "",
    json: JsonOutput = False,
) -> None:
    """Add a decision to the record of the case, with the present prediction."""
    document = _open(case).decide(plan, by, note)
    if json:
        print_json(document)
        return
    typer.echo(f"recorded at {document['time']}: {document['plan']}, by {document['by']}")


@example_command(twin, "observe", 'twin observe B12 --decision 1 --by "Dr A" --text "SUV 5.5"')
def record_observation(
    case: CaseFolder,
    decision: Annotated[int, typer.Option(help="Number of the decision, from 1.")],
    by: Annotated[str, typer.Option(help="Who observed.")],
    text: Annotated[str, typer.Option(help="What was observed.")],
    json: JsonOutput = False,
) -> None:
    """Add a later observation to a recorded decision."""
    document = _open(case).observe(decision, by, text)
    if json:
        print_json(document)
        return
    typer.echo(f"added to decision {decision} at {document['time']}")


@example_command(twin, "use-in-dose", "twin use-in-dose B12 --plan one-course")
def use_time_course(
    case: CaseFolder,
    plan: Annotated[str, typer.Option(help="Name of the plan that gets the time course.")],
    json: JsonOutput = False,
) -> None:
    """Give a plan of the case the time course of the twin, with its uncertainty."""
    from napari_mosaik.view.formatting import count

    document = _open(case).use_in_plan(plan)
    for sentence in document["warnings"]:
        report_warning(sentence)
    if json:
        print_json(document)
        return
    typer.echo(
        f"the time course of '{plan}' is that of the twin after "
        f"{count(document['n_updates'], 'scan')}, with {count(document['n_draws'], 'draw')}; the "
        f"time integral has a CV of {document['time_course_cv']:.2f}; run the dose again"
    )
