"""Commands on cases: sample, new, run, status."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_mosaik.cli.show import Bar, drive, print_json, table
from napari_mosaik.cli.slide import Damaged, slide_entry
from napari_mosaik.core.catalogue import STAIN_TITLES
from napari_mosaik.core.errors import InputError, MosaikError

__all__ = ["open_cases", "register", "run_case"]

Json = Annotated[bool, typer.Option("--json", help="Print a JSON document for programs.")]
Paths = Annotated[list[Path], typer.Argument(help="Case folders, or cohort folders with cases.")]
Scheduler = Annotated[
    str,
    typer.Option(help="Address of a dask.distributed scheduler; threads of this computer else."),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("sample")(sample)
    app.command("new")(new)
    app.command("run")(run)
    app.command("status")(status)


def open_cases(paths: list[Path]) -> list[Any]:
    """The cases in the given folders."""
    from napari_mosaik.io import Case, find_cases

    return [Case(path) for path in find_cases(paths)]


def sample(
    folder: Annotated[Path, typer.Argument(help="Where the cohort is written.")],
    size: Annotated[str, typer.Option(help="tiny, quick, full or rasters.")] = "quick",
    seed: Annotated[int, typer.Option(help="Another seed gives another cohort.")] = 0,
    case: Annotated[list[str] | None, typer.Option(help="Only this case; may be repeated.")] = None,
) -> None:
    """Write the synthetic sample cohort with its known truth."""
    from napari_mosaik.phantom import sample as make

    with Bar() as bar:
        made = drive(make(folder, size, seed, case or None), f"Sample cohort ({size})", bar)
    for path in made:
        typer.echo(path)


def new(
    case: Annotated[Path, typer.Argument(help="Folder of the new case.")],
    he: Annotated[Path | None, typer.Option(help="H&E slide.")] = None,
    cd34: Annotated[Path | None, typer.Option(help="CD34 slide (the reference).")] = None,
    caix: Annotated[Path | None, typer.Option(help="CAIX slide.")] = None,
    pet: Annotated[list[Path] | None, typer.Option(help="PET file; may be repeated.")] = None,
    pet_slice: Annotated[
        int | None, typer.Option(help="Slice of the PET, from 0, where there are several.")
    ] = None,
    pet_frame: Annotated[
        int | None, typer.Option(help="Time frame of the PET, from 0, where there are several.")
    ] = None,
    pet_unit: Annotated[
        str, typer.Option(help="Unit of the PET where the file does not say: Bq/mL, g/mL, cm2/mL.")
    ] = "",
    patient: Annotated[str, typer.Option(help="Pseudonym of the patient.")] = "unknown patient",
    name: Annotated[str, typer.Option(help="Name of the case; the folder's name else.")] = "",
    spacing: Annotated[
        float | None, typer.Option(help="Pixel size of all slides, µm, if they do not say it.")
    ] = None,
    spacing_he: Annotated[float | None, typer.Option(help="Pixel size of H&E, µm.")] = None,
    spacing_cd34: Annotated[float | None, typer.Option(help="Pixel size of CD34, µm.")] = None,
    spacing_caix: Annotated[float | None, typer.Option(help="Pixel size of CAIX, µm.")] = None,
    profile: Annotated[
        str, typer.Option(help="Scanner profile that gives the pixel size of slides without one.")
    ] = "",
    damaged: Damaged = "stop",
    icc: Annotated[
        list[str] | None,
        typer.Option(help="Convert the colours of this stain to sRGB (ICC); may be repeated."),
    ] = None,
    landmarks_he: Annotated[
        Path | None, typer.Option(help="Landmarks on H&E (CSV, pixels).")
    ] = None,
    landmarks_cd34: Annotated[
        Path | None, typer.Option(help="The same landmarks on CD34 (CSV, pixels).")
    ] = None,
    landmarks_caix: Annotated[
        Path | None, typer.Option(help="The same landmarks on CAIX (CSV, pixels).")
    ] = None,
) -> None:
    """Make a case from slides and PET; files stay where they are."""
    from napari_mosaik.io import CaseFile, PetEntry, create_case, open_pet
    from napari_mosaik.io.pet_sidecar import unit_named

    files = {"he": he, "cd34": cd34, "caix": caix}
    if not any(files.values()) and not pet:
        raise InputError("give at least one slide (--he, --cd34, --caix) or a PET file (--pet)")
    own = {"he": spacing_he, "cd34": spacing_cd34, "caix": spacing_caix}
    if set(icc or ()) - set(files):
        raise InputError(f"--icc {' '.join(icc or ())}: give he, cd34 or caix")
    slides = {
        stain: slide_entry(
            stain, path, own[stain] or spacing, profile, damaged, stain in (icc or ())
        )
        for stain, path in files.items()
        if path is not None
    }
    unit = unit_named(pet_unit) if pet_unit else None
    if pet:
        open_pet(pet, slice_index=pet_slice, frame_index=pet_frame, unit=unit)
    marks = {"he": landmarks_he, "cd34": landmarks_cd34, "caix": landmarks_caix}
    file = CaseFile.model_validate(
        {
            "name": name or case.resolve().name,
            "patient": patient,
            "slides": slides,
            "pet": PetEntry(
                paths=tuple(str(p.resolve()) for p in pet),
                slice_index=pet_slice,
                frame_index=pet_frame,
                unit=unit,
            )
            if pet
            else None,
            "landmarks": {key: str(path.resolve()) for key, path in marks.items() if path},
        }
    )
    made = create_case(case, file)
    typer.echo(f"case {made.name} in {made.root}")
    if file.pet and file.injection is None:
        typer.echo(
            "next: add the [injection] record to case.toml (dose_mbq, injected, weight_kg...)"
        )


def run_case(case: Any, bar: Bar, until: str = "", scheduler: str = "") -> None:
    """Run all that is missing in one case."""
    from napari_mosaik.workflow.recipe import read_recipe, write_recipe
    from napari_mosaik.workflow.run import run_until

    recipe = read_recipe(case.root)
    with case.writing():
        write_recipe(case.root, recipe)
    with contextlib.closing(run_until(case, recipe, until, scheduler=scheduler)) as work:
        for step, progress in work:
            bar.show(f"{case.name} · {step.title}", progress)


def run(
    paths: Paths,
    step: Annotated[str, typer.Option(help="Run this step only.")] = "",
    until: Annotated[str, typer.Option(help="Run what is missing up to this step.")] = "",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: step.setting=value.")
    ] = None,
    force: Annotated[bool, typer.Option(help="With --step: run it even if it is done.")] = False,
    scheduler: Scheduler = "",
    json: Json = False,
) -> None:
    """Run what is missing or stale, as far as the inputs allow."""
    if step and until:
        raise InputError("give either --step or --until, not both")
    if force and not step:
        raise InputError("--force needs --step: say which step is to be run again")
    cases = open_cases(paths)
    for text in set_ or []:
        _change(cases, text)
    failed = []
    with Bar(quiet=json) as bar:
        for case in cases:
            try:
                _run_one(case, bar, step, until, scheduler, force)
            except MosaikError as error:
                failed.append(str(error))
    _states(cases, json)
    if failed:
        raise InputError(" | ".join(failed))


def _run_one(case: Any, bar: Bar, name: str, until: str, scheduler: str, force: bool) -> None:
    """Run one step of a case, or all that is missing."""
    if not name:
        run_case(case, bar, until, scheduler)
        return
    from napari_mosaik.workflow.recipe import read_recipe, write_recipe
    from napari_mosaik.workflow.run import run as run_step
    from napari_mosaik.workflow.steps import step_named

    step, recipe = step_named(name), read_recipe(case.root)
    write_recipe(case.root, recipe)
    work = run_step(case, step, recipe[step.name], scheduler=scheduler, force=force)
    drive(work, f"{case.name} · {step.title}", bar)


def _change(cases: list[Any], text: str) -> None:
    from napari_mosaik.workflow.recipe import changed, parse_setting, read_recipe, write_recipe

    step, setting, value = parse_setting(text)
    for case in cases:
        with case.writing():
            recipe = changed(read_recipe(case.root), step, **{setting: value})
            write_recipe(case.root, recipe)


def status(paths: Paths, json: Json = False) -> None:
    """Say what is done, stale, missing or blocked, and why."""
    _states(open_cases(paths), json)


def _states(cases: list[Any], json: bool) -> None:
    from napari_mosaik.workflow.case_status import case_status
    from napari_mosaik.workflow.steps import STEPS

    views = {case: case_status(case) for case in cases}
    if json:
        print_json(
            {
                case.name: {
                    "folder": str(case.root),
                    "patient": case.patient,
                    "slides": sorted(STAIN_TITLES[stain] for stain in case.file.slides),
                    "steps": {
                        name: {"state": state.word, "reason": state.reason}
                        for name, state in view.states.items()
                    },
                }
                for case, view in views.items()
            }
        )
        return
    for case, view in views.items():
        rows = [
            [step.title, view.states[step.name].word, view.states[step.name].reason]
            for step in STEPS
        ]
        table(f"{case.name} · {case.patient}", ["step", "state", "why"], rows, words=True)
