"""Command for the dose what-if: what a therapeutic label would have done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_mosaik.cli.case import run_case
from napari_mosaik.cli.common import (
    JsonOutput,
    SettingChanges,
    example_command,
    given_settings,
    naming_options,
    number_option,
    report_warning,
)
from napari_mosaik.cli.show import Bar, figure, print_json, table
from napari_mosaik.core.errors import InputError, MosaikError

__all__ = ["commands"]

commands = typer.Typer()
_ROWS = (
    ("time_integral_mbq_h_ml", "time-integrated activity, MBq h/mL"),
    ("before_first", "fraction of it before the first time"),
    ("after_last", "fraction of it after the last time"),
    ("dose_gy", "absorbed dose of electrons, Gy"),
    ("alpha_particle_gy", "absorbed dose of alpha particles, Gy"),
    ("rbe_weighted_gy", "RBE-weighted dose, Gy"),
    ("g", "protraction factor G"),
    ("bed_gy", "BED, Gy"),
    ("eqd2_gy", "EQD2, Gy"),
    ("ln_survival", "ln survival"),
)
_INDICES = {
    "d98_gy": "D98, Gy",
    "d50_gy": "D50, Gy",
    "d2_gy": "D2, Gy",
    "mean_gy": "mean dose, Gy",
    "eud_gy": "EUD, Gy",
    "tcp": "tumour control probability",
}
_NOT_SHOWN = ("drawn", "digest")


@example_command(
    commands, "dose", "dose demo/cohort/B11 --nuclide Lu-177 --activity-mbq-m2 2405 --courses 0,84"
)
def dose(
    case: Annotated[
        Path | None, typer.Argument(metavar="[CASE]", help="Case folder; or give --curve.")
    ] = None,
    nuclide: Annotated[str, typer.Option(help="The therapeutic nuclide, as Lu-177 or 177Lu.")] = "",
    activity_mbq: Annotated[
        float | None, number_option("Activity of each course, MBq.", "MBQ")
    ] = None,
    activity_mbq_m2: Annotated[
        float | None,
        number_option("Activity of each course, MBq per m² of body surface.", "MBQ"),
    ] = None,
    courses: Annotated[
        str, typer.Option(metavar="DAYS", help="Days of the courses, as 0,84,168. Default: 0.")
    ] = "",
    ebrt: Annotated[
        str,
        typer.Option(
            metavar="NxGY@DAY", help="External beam, one fraction a day: 5x2@72. Commas for more."
        ),
    ] = "",
    kernel: Annotated[
        str, typer.Option(metavar="local|built-in|FILE", help="Where energy is absorbed.")
    ] = "",
    shape: Annotated[
        str, typer.Option(metavar="tile|constant|FILE", help="Time course of the activity.")
    ] = "",
    oxygen: Annotated[
        bool,
        typer.Option("--oxygen", help="Reduce the effect far from vessels, where oxygen is low."),
    ] = False,
    preset: Annotated[str, typer.Option(help="Start from a published regimen.")] = "",
    plan: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the plan in the case; at most four.")
    ] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the plan with this name.")
    ] = False,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="Compare two plans, draw by draw."),
    ] = None,
    activity_map: Annotated[
        Path | None,
        typer.Option(help="Write the activity of --plan for a Monte Carlo program (.nii, Bq/mL)."),
    ] = None,
    dose_map: Annotated[
        Path | None,
        typer.Option(help="Dose of a Monte Carlo program (NIfTI, Gy) on the same voxels."),
    ] = None,
    organs: Annotated[
        Path | None,
        typer.Option(help="Table of organs (CSV): organ,mgy_per_mbq,limit_gy; or TIA and S."),
    ] = None,
    curve: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a case: time course of one region (CSV), header "
            "time_h,activity_mbq_ml, decay-corrected to injection."
        ),
    ] = None,
    tail: Annotated[
        str,
        typer.Option(
            metavar="physical|HOURS",
            help="After the last time of --curve: physical decay alone, an upper bound, or the "
            "effective half-life in hours.",
        ),
    ] = "",
    set_: SettingChanges = None,
    json: JsonOutput = False,
) -> None:
    """Absorbed dose, BED and survival if a therapeutic label had gone where the tracer went.

    For each tile of a case, under the plans that are stored in it, or for one measured curve. A
    research what-if, not a treatment plan.
    """
    of_case = {
        "--activity-mbq": activity_mbq,
        "--activity-mbq-m2": activity_mbq_m2,
        "--courses": courses,
        "--ebrt": ebrt,
        "--kernel": kernel,
        "--shape": shape,
        "--oxygen": oxygen,
        "--preset": preset,
        "--plan": plan,
        "--replace": replace,
        "--compare": compare,
        "--activity-map": activity_map,
        "--dose-map": dose_map,
        "--organs": organs,
    }
    with naming_options():
        if (case is None) == (curve is None):
            raise InputError("give either a case or --curve FILE")
        if curve is not None:
            wrong = [name for name, value in of_case.items() if value not in (None, "", False)]
            if wrong:
                raise InputError(f"{wrong[0]} belongs to a case, not to --curve")
            if not nuclide:
                raise InputError("--curve needs --nuclide, for example Lu-177")
            _of_curve(curve, nuclide, tail or "physical", given_settings(set_), json)
            return
        assert case is not None
        if tail:
            raise InputError("--tail belongs to --curve; a case has --shape")
        changes = _changes(activity_mbq, activity_mbq_m2, nuclide, courses, ebrt)
        changes |= {k: v for k, v in (("kernel", kernel), ("shape", shape)) if v}
        changes |= {"oxygen": True} if oxygen else {}
        files = {"activity_map": activity_map, "dose_map": dose_map, "organs": organs}
        exchanged = {key: path for key, path in files.items() if path is not None}
        naming = (preset, plan, replace)
        _of_case(case, changes, given_settings(set_), naming, compare, exchanged, json)


def _changes(
    mbq: float | None, mbq_m2: float | None, nuclide: str, days: str, ebrt: str
) -> dict[str, Any]:
    """Courses and fractions of a plan, as typed."""
    from napari_mosaik.workflow.plan_record import parse_fractions

    found: dict[str, Any] = {}
    if mbq is not None and mbq_m2 is not None:
        raise InputError("give --activity-mbq or --activity-mbq-m2, not both")
    activity = mbq if mbq is not None else mbq_m2
    if activity is not None:
        if not nuclide:
            raise InputError("the activity needs its nuclide: give --nuclide, for example Lu-177")
        found["courses"] = [
            {
                "nuclide": nuclide,
                "activity": activity,
                "unit": "MBq" if mbq is not None else "MBq/m2",
                "day": day,
            }
            for day in _days(days or "0")
        ]
    elif nuclide or days:
        given = "--nuclide" if nuclide else "--courses"
        raise InputError(f"{given} needs an activity: give --activity-mbq or --activity-mbq-m2")
    if ebrt:
        found["fractions"] = [one.model_dump() for one in parse_fractions(ebrt)]
    return found


def _days(text: str) -> list[float]:
    from napari_mosaik.core.text import typed_numbers

    try:
        return typed_numbers(text)
    except InputError:
        raise InputError(
            f"--courses {text!r}: give the days of the courses, separated by commas, as 0,84,168"
        ) from None


def _of_curve(
    curve: Path, nuclide: str, tail: str, settings: Mapping[str, Any], json: bool
) -> None:
    from napari_mosaik.workflow.dose import NOT_A_PLAN, curve_dose, dose_settings, tail_of

    document = curve_dose(curve, nuclide, tail_of(tail), dose_settings(settings))
    for sentence in document["warnings"]:
        report_warning(sentence)
    if json:
        print_json(document)
        return
    table("Dose what-if", ["", "value"], [[text, figure(document[key])] for key, text in _ROWS])
    constants = [[row["name"], str(row["value"]), row["source"]] for row in document["constants"]]
    table("Constants", ["constant", "value", "source"], constants, words=True)
    typer.echo(NOT_A_PLAN)


def _of_case(
    folder: Path,
    changes: Mapping[str, Any],
    settings: Mapping[str, str],
    naming: tuple[str, str, bool],
    compare: tuple[str, str] | None,
    exchanged: Mapping[str, Path],
    json: bool,
) -> None:
    from napari_mosaik.core.catalogue import DOSE_RECORD
    from napari_mosaik.io.case import Case
    from napari_mosaik.workflow.plan_dose import compare_plans
    from napari_mosaik.workflow.plans import plan_files, restore_plans

    case = Case(folder)
    before = plan_files(case.root)
    shown = _plans_to_show(case, changes, settings, naming, compare)
    try:
        with Bar(quiet=json) as bar:
            run_case(case, bar, "dose")
    except MosaikError:
        restore_plans(case.root, before)  # a plan that is refused is not kept
        raise
    record = case.store.read(DOSE_RECORD)
    plans = {one: record["plans"][one] for one in shown or record["plans"]}
    comparison = compare_plans(record["plans"], *compare) if compare else None
    found = _exchanged(case, list(plans), exchanged)
    doubts = [f"plan {one}: {text}" for one, own in plans.items() for text in own["warnings"]]
    for sentence in doubts:
        report_warning(sentence)
    if json:
        kept = {
            one: {key: value for key, value in own.items() if key not in _NOT_SHOWN}
            for one, own in plans.items()
        }
        more = {**({"comparison": comparison} if comparison else {}), **found}
        limits = {"warnings": doubts, "limitations": record["limitations"]}
        print_json({"case": case.name, "plans": kept, **more, **limits})
        return
    for one, own in plans.items():
        _print_plan(one, own)
    if comparison:
        _print_comparison(comparison)
    _print_exchanged(found)
    typer.echo("\n".join(record["limitations"]))


def _plans_to_show(
    case: Any,
    changes: Mapping[str, Any],
    settings: Mapping[str, str],
    naming: tuple[str, str, bool],
    compare: tuple[str, str] | None,
) -> Sequence[str]:
    """Names of the plans that are asked for, empty for all; a typed one is written first."""
    from napari_mosaik.workflow.plans import change_plan, read_plan, read_plans

    preset, name, replace = naming
    if compare is not None:
        if changes or settings or preset or name:
            raise InputError("--compare takes two stored plans and no other option")
        return [one for one in compare if read_plan(case.root, one)]
    if changes or settings or preset:
        plan = change_plan(case.root, name, changes, settings, preset, replace=replace)
        return [plan.name]
    if name:
        read_plan(case.root, name)
        return [name]
    if not read_plans(case.root):
        raise InputError(
            f"case {case.name} has no plan; give --nuclide and --activity-mbq, --ebrt, or --preset"
        )
    return []


def _print_plan(name: str, own: Mapping[str, Any]) -> None:
    from napari_mosaik.workflow.plan_dose import SOURCE_TITLES

    table(f"Plan {name}: indices", ["", "5 %", "median", "95 %"], _index_rows(own["indices"]))
    typer.echo(f"uptake: {own['uptake']}; errors: {own['error_fields']}")
    for text in own["not_available"]:
        typer.echo(f"not available: {text}")
    if own["largest_source"]:
        typer.echo(f"largest source of uncertainty: {SOURCE_TITLES[own['largest_source']]}")


def _print_comparison(comparison: Mapping[str, Any]) -> None:
    indices = comparison["indices"]
    rows = [
        [*row, figure(indices[name]["share_higher"])]
        for row, name in zip(_index_rows(indices), _shown(indices), strict=True)
    ]
    title = f"{comparison['second']} minus {comparison['first']}, draw by draw"
    table(title, ["", "5 %", "median", "95 %", "fraction of draws with more"], rows)


def _exchanged(case: Any, names: Sequence[str], files: Mapping[str, Path]) -> dict[str, Any]:
    """What was written for, or read from, other programs, by option."""
    from napari_mosaik.workflow.dose_exchange import compare_dose, organ_limits, write_activity

    if files and len(names) != 1:
        raise InputError(f"--{next(iter(files)).replace('_', '-')} needs one plan: give --plan")
    work = {"activity_map": write_activity, "dose_map": compare_dose, "organs": organ_limits}
    return {key: work[key](case, names[0], path) for key, path in files.items()}


def _print_exchanged(found: Mapping[str, Any]) -> None:
    if "activity_map" in found:
        typer.echo(f"activity map: {found['activity_map']['meaning']}, Bq/mL")
    if "dose_map" in found:
        own = found["dose_map"]
        rows = [
            [_INDICES[key], figure(own["plan"][key]), figure(own["monte_carlo"][key])]
            for key in own["plan"]
        ]
        table("Monte Carlo", ["", "this program", own["file"]], rows)
    if "organs" in found:
        own = found["organs"]
        rows = [[row["organ"], figure(row["gy"]), figure(row["limit_gy"])] for row in own["organs"]]
        table(f"Organs at {figure(own['plan_mbq'])} MBq", ["", "dose, Gy", "limit, Gy"], rows)
        typer.echo(
            f"{own['organ']} reaches its limit at {figure(own['largest_mbq'])} MBq of "
            f"{own['nuclide']}; {figure(own['confident_mbq'])} MBq meet all limits in 95 % of the "
            "draws. This is not a recommendation."
        )


def _shown(indices: Mapping[str, Any]) -> list[str]:
    return [name for name in _INDICES if name in indices]


def _index_rows(indices: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    return [
        [_INDICES[name], *(figure(indices[name][end]) for end in ("low", "median", "high"))]
        for name in _shown(indices)
    ]
