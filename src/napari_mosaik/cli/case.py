"""Commands on cases: sample, new, run, status."""

from __future__ import annotations

import contextlib
import filecmp
import shlex
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from napari_mosaik.cli.common import (
    CaseFolders,
    Device,
    JsonOutput,
    OnDamage,
    PageOption,
    PetSeriesOption,
    SchedulerAddress,
    Seed,
    StainName,
    example_command,
    given_spacing,
    naming_options,
    number_option,
    record_options,
    report_warning,
    spacing_option,
)
from napari_mosaik.cli.show import Bar, drive, print_json, table
from napari_mosaik.cli.side_by_side import fitting_jobs, run_side_by_side
from napari_mosaik.core.catalogue import REFERENCE, STAIN_TITLES
from napari_mosaik.core.errors import Blocked, InputError, MissingPixelSize, MosaikError
from napari_mosaik.core.pet_records import InjectionRecord
from napari_mosaik.core.text import counted, natural_key

__all__ = ["commands", "one_case", "open_cases", "run_case"]

_INJECTION = (
    "nuclide",
    "dose_mbq",
    "residual_mbq",
    "injected",
    "excised",
    "weight_kg",
    "height_cm",
    "sex",
)


commands = typer.Typer()


def open_cases(paths: list[Path]) -> list[Any]:
    """The cases in the given folders; damage of their journals is reported at the end."""
    from napari_mosaik.core.journal import journals_of
    from napari_mosaik.io import Case, find_cases

    cases = [Case(path) for path in find_cases(paths)]
    for case in cases:
        journals_of(case.root)
    return cases


def one_case(path: Path) -> Any:
    """The case in a folder; a cohort of several raises `InputError`."""
    found = open_cases([path])
    if len(found) > 1:
        raise InputError(
            f"{path} is a cohort of {counted(len(found), 'case')}; give one case folder"
        )
    return found[0]


@example_command(commands, "sample", "sample cohort --size tiny")
def sample(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the cohort.")],
    size: Annotated[
        Literal["tiny", "quick", "full", "rasters"],
        typer.Option(
            help="Size of the cohort. full: one case of real size, three slides of 72,000 x 96,000 "
            "pixels from repeated tiles; 2.4 GB, about two minutes on two cores."
        ),
    ] = "quick",
    seed: Seed = 0,
    case: Annotated[list[str] | None, typer.Option(help="Only this case. Repeatable.")] = None,
) -> None:
    """Write the synthetic sample cohort with its ground truth."""
    from napari_mosaik.io.files import saving
    from napari_mosaik.phantom import sample as make

    with Bar() as bar, saving("the sample cohort", folder):
        made = drive(make(folder, size, seed, case or None), f"Sample cohort ({size})", bar)
    for path in made:
        typer.echo(path)


@example_command(commands, "new", "new B12 --he he.svs --cd34 cd34.svs --pet slice.dcm")
@record_options(InjectionRecord, _INJECTION, into="injection")
def new(
    case: Annotated[Path, typer.Argument(metavar="CASE", help="Folder of the new case.")],
    he: Annotated[Path | None, typer.Option(help="H&E slide.")] = None,
    cd34: Annotated[Path | None, typer.Option(help="CD34 slide, the reference section.")] = None,
    caix: Annotated[Path | None, typer.Option(help="CAIX slide.")] = None,
    pet: Annotated[list[Path] | None, typer.Option(help="PET file. Repeatable.")] = None,
    pet_slice: Annotated[
        int | None, typer.Option(help="PET slice, counted from 0, if there are several.")
    ] = None,
    pet_frame: Annotated[
        int | None, typer.Option(help="PET time frame, counted from 0, if there are several.")
    ] = None,
    pet_series: PetSeriesOption = None,
    pet_unit: Annotated[
        str, typer.Option(help="PET unit if the file states none: Bq/mL, kBq/mL, g/mL, cm2/mL ...")
    ] = "",
    pet_fwhm: Annotated[
        float | None,
        number_option("Resolution of the PET scanner (FWHM), mm. Assumed: 1.5 mm."),
    ] = None,
    patient: Annotated[str, typer.Option(help="Pseudonym of the patient.")] = "unknown patient",
    name: Annotated[str, typer.Option(help="Name of the case. Default: the folder's name.")] = "",
    spacing: Annotated[Any, spacing_option("Pixel size of all slides that state none, µm.")] = None,
    spacing_he: Annotated[Any, spacing_option("Pixel size of H&E, µm.")] = None,
    spacing_cd34: Annotated[Any, spacing_option("Pixel size of CD34, µm.")] = None,
    spacing_caix: Annotated[Any, spacing_option("Pixel size of CAIX, µm.")] = None,
    page_he: PageOption = None,
    page_cd34: PageOption = None,
    page_caix: PageOption = None,
    profile: Annotated[
        str, typer.Option(help="Scanner profile with the pixel size for slides that state none.")
    ] = "",
    damaged: OnDamage = "stop",
    icc: Annotated[
        list[StainName] | None,
        typer.Option(help="Convert this stain's colours to sRGB by its ICC profile. Repeatable."),
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
    injection: dict[str, Any] | None = None,
) -> None:
    """Create a case from slides and a PET. The files stay where they are."""
    from napari_mosaik.io import CaseFile, PetEntry, create_case, open_pet
    from napari_mosaik.io.pet import choose_series
    from napari_mosaik.io.pet.sidecar import unit_named
    from napari_mosaik.workflow.suv import (
        resolution_mm,
        resolution_problem,
        suv_record_or_problem,
    )

    files = {"he": he, "cd34": cd34, "caix": caix}
    if not any(files.values()) and not pet:
        raise InputError("give at least one slide (--he, --cd34, --caix) or a PET file (--pet)")
    pages = {"he": page_he, "cd34": page_cd34, "caix": page_caix}
    own = {"he": spacing_he, "cd34": spacing_cd34, "caix": spacing_caix}
    slides = {
        stain: _slide_entry(
            stain,
            path,
            own[stain] or spacing,
            profile,
            damaged,
            stain in (icc or ()),
            pages[stain],
        )
        for stain, path in files.items()
        if path is not None
    }
    _check_different_slides({k: (path, pages[k]) for k, path in files.items() if path is not None})
    width = "" if pet_fwhm is None else f"{pet_fwhm:g}"
    try:
        resolution_mm(width)
    except InputError as error:
        raise InputError(f"--pet-fwhm: {error}") from error
    if doubt := resolution_problem(width):
        report_warning(doubt)
    unit = unit_named(pet_unit) if pet_unit else None
    given = {key: value for key, value in (injection or {}).items() if value is not None}
    _check_order(given)
    lacking = ""
    if pet:
        names = {"slice_index": "--pet-slice", "frame_index": "--pet-frame"}
        with naming_options(**names, series="--pet-series", unit="--pet-unit"):
            if pet_series:
                pet = choose_series(pet, pet_series)
            image = open_pet(pet, slice_index=pet_slice, frame_index=pet_frame, unit=unit)
        lacking = suv_record_or_problem(image.header, given, None).get("problem", "")
    marks = {"he": landmarks_he, "cd34": landmarks_cd34, "caix": landmarks_caix}
    _check_landmarks({key: path for key, path in marks.items() if path})
    file = CaseFile.model_validate(
        {
            "name": name or case.resolve().name,
            "patient": patient,
            "slides": slides,
            "pet": PetEntry(
                paths=tuple(str(p.absolute()) for p in pet),
                slice_index=pet_slice,
                frame_index=pet_frame,
                unit=unit,
                fwhm_mm=pet_fwhm,
            )
            if pet
            else None,
            "landmarks": {key: str(path.absolute()) for key, path in marks.items() if path},
            # An empty record takes all terms from the PET file, if that states them all.
            "injection": given if given or (pet and not lacking) else None,
        }
    )
    made = create_case(case, file)
    typer.echo(f"case {made.name} in {made.root}")
    if lacking:
        typer.echo(f"next: complete [injection] in case.toml, or the page Uptake (PET): {lacking}")
    elif file.pet and not given:
        typer.echo("the PET file states all terms of the SUV; they are used")


def _check_different_slides(slides: Mapping[str, tuple[Path, int | None]]) -> None:
    """Raise `InputError` if one picture is given for two stains."""
    for (one, (path, page)), (other, (second, second_page)) in combinations(slides.items(), 2):
        same = page == second_page and path.samefile(second)
        if not same and page == second_page and path.is_file() and second.is_file():
            same = filecmp.cmp(path, second, shallow=False)  # compares the sizes first
        if same:
            raise InputError(
                f"--{one} {path} and --{other} {second} are the same slide; give the slide of each "
                "stain"
            )


def _check_order(given: Mapping[str, Any]) -> None:
    """Raise `InputError` for an excision before the injection."""
    injected, excised = given.get("injected"), given.get("excised")
    if injected is None or excised is None:
        return
    if (injected.tzinfo is None) != (excised.tzinfo is None):
        raise InputError(
            f"--injected {injected.isoformat()} and --excised {excised.isoformat()} cannot be "
            "compared: give both with their time zone, or both without"
        )
    if excised < injected:
        raise InputError(
            f"--excised {excised.isoformat()} is before --injected {injected.isoformat()}; correct "
            "the dates"
        )


def _check_landmarks(files: Mapping[str, Path]) -> None:
    """Raise `InputError` unless the landmark files can be read and belong to one another."""
    from napari_mosaik.register import check_partners, read_landmarks

    counts = {key: len(read_landmarks(path, (1.0, 1.0))) for key, path in files.items()}
    for key, count in counts.items():
        if REFERENCE not in counts or len(counts) == 1:
            other = "he or --landmarks-caix" if key == REFERENCE else REFERENCE
            raise InputError(
                f"--landmarks-{key} needs --landmarks-{other} as well: each landmark is a point on "
                "both sections"
            )
        if count != counts[REFERENCE]:
            raise InputError(
                f"--landmarks-{key} holds {counted(count, 'landmark')}, --landmarks-{REFERENCE} "
                f"{counts[REFERENCE]}; each needs its partner in the same row"
            )
        check_partners(files[key], files[REFERENCE])


class SourceName(StrEnum):
    """What can be relinked."""

    HE = "he"
    CD34 = "cd34"
    CAIX = "caix"
    PET = "pet"
    LANDMARKS_HE = "landmarks-he"
    LANDMARKS_CD34 = "landmarks-cd34"
    LANDMARKS_CAIX = "landmarks-caix"


def _slide_entry(
    stain: str,
    path: Path,
    spacing: tuple[float, float] | None,
    profile: str,
    damaged: str,
    icc: bool = False,
    page: int | None = None,
) -> dict[str, Any]:
    """The entry of a slide in ``case.toml``; the slide is opened to check that it can be read.

    A typed size overrides the file's header; a profile is used only if the header states none.
    """
    from napari_mosaik.io import open_slide
    from napari_mosaik.io.slide.types.damage import policy_named

    policy = policy_named(damaged)
    try:
        with (
            naming_options(page=f"--page-{stain}"),
            open_slide(path, spacing, frame=stain, damaged=policy, icc=icc, page=page) as opened,
        ):
            found, source = opened.lattice.spacing_um, opened.spacing_source
            for doubt in opened.properties.get("warning", "").splitlines():
                report_warning(f"{path.name}: {doubt}")
    except MissingPixelSize as error:
        if not profile:
            raise MissingPixelSize(
                f"{error} (for this slide: --spacing-{stain} UM, or --spacing UM for all)"
            ) from error
        given, source = given_spacing("", profile)
        assert given is not None
        found = given
    entry: dict[str, Any] = {"path": str(path.absolute())}
    entry |= {"spacing_um": found, "spacing_source": source}
    entry |= {"damaged": policy, "icc": icc, "page": page}
    return {**entry, "profile": profile} if source == "profile" else entry


@example_command(commands, "relink", "relink B12 he /new/place/he.svs")
def relink(
    case: Annotated[Path, typer.Argument(metavar="CASE", help="Case folder.")],
    source: Annotated[SourceName, typer.Argument(help="What was moved.")],
    path: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH", help="Its new location; for a PET, a folder is possible, too."
        ),
    ],
) -> None:
    """Let a case find a slide, its PET or a landmark file that was moved.

    Another slide or PET is refused.
    """
    from napari_mosaik.io import Case
    from napari_mosaik.workflow.relink import relink as work

    found = Case(case)
    for text in work(found, str(source), path):
        report_warning(text)
    typer.echo(f"case {found.name}: {source} is at {', '.join(map(str, path))}")


def run_case(case: Any, bar: Bar, until: str = "", scheduler: str = "") -> None:
    """Run all that is missing in one case."""
    from napari_mosaik.workflow.recipe import read_recipe, write_recipe
    from napari_mosaik.workflow.run import run_until

    recipe = read_recipe(case.root)
    with case.writing():
        write_recipe(case.root, recipe)
    with (
        _naming_commands(case),
        contextlib.closing(run_until(case, recipe, until, scheduler=scheduler)) as work,
    ):
        for step, progress in work:
            bar.show(f"{case.name} · {step.title}", progress)


_TRAINED_BY: Final = {
    "classes": "retrain {case}",
    "predict": "train {cohort} --test {name}",
}
"""The command that trains the model of a step."""


@contextlib.contextmanager
def _naming_commands(case: Any) -> Iterator[None]:
    """Let the message that a model is missing name the commands that train or choose one."""
    from napari_mosaik.workflow.steps import step_named

    try:
        yield
    except Blocked as error:
        folder, name = shlex.quote(str(case.root)), shlex.quote(case.name)
        text, cohort = str(error), shlex.quote(str(case.root.parent))
        for step, command in _TRAINED_BY.items():
            lacking = f"no trained model for {step_named(step).title.lower()}; train one"
            training = command.format(case=folder, cohort=cohort, name=name)
            text = text.replace(
                f"{lacking} or choose one",
                f"{lacking} with: napari-mosaik {training}, or choose one with: "
                f"napari-mosaik models adopt {folder} HASH",
            )
        error.args = (text,)
        raise


@example_command(commands, "run", "run B12 --until parameters")
def run(
    cases: CaseFolders,
    step: Annotated[str, typer.Option(metavar="STEP", help="Run only this step.")] = "",
    until: Annotated[
        str, typer.Option(metavar="STEP", help="Run what is missing up to this step.")
    ] = "",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="STEP.SETTING=VALUE", help="Change a setting first. Repeatable."
        ),
    ] = None,
    force: Annotated[bool, typer.Option(help="With --step: run it even if it is done.")] = False,
    scheduler: SchedulerAddress = "",
    jobs: Annotated[
        int,
        typer.Option(
            min=0, help="Cases that run in parallel; 0: as many as cores and free memory allow."
        ),
    ] = 1,
    device: Device = "auto",
    json: JsonOutput = False,
) -> None:
    """Run every missing or stale step whose inputs are available."""
    from napari_mosaik.workflow.leaks import case_labels
    from napari_mosaik.workflow.steps import step_named

    if step and until:
        raise InputError("give either --step or --until, not both")
    if force and not step:
        raise InputError("--force needs --step STEP: name the step to run again")
    if named := step or until:
        step_named(named)  # a slip is told before a setting is changed or a status shown
    opened = open_cases(cases)
    _change(opened, set_ or [])
    effects: dict[str, Any] = {}
    jobs = min(jobs or fitting_jobs(len(opened)), len(opened))
    with Bar(quiet=json) as bar:
        if jobs > 1:
            with contextlib.ExitStack() as stack:
                for label, case in zip(case_labels(opened), opened, strict=True):
                    stack.enter_context(_effect(case, step, effects, label))
                options = _run_options(step, until, scheduler, force, device)
                failed = run_side_by_side([case.root for case in opened], options, jobs, bar)
        else:
            failed = _one_by_one(opened, effects, bar, (step, until, scheduler, force))
    views = _states(opened, json)
    if not json:
        _show_effects(effects)
    if failed:
        raise InputError(" | ".join(failed))
    _report_doubts(views)


def _run_options(step: str, until: str, scheduler: str, force: bool, device: str) -> list[str]:
    """The options of `run`, typed again for one case."""
    named = {"--step": step, "--until": until, "--scheduler": scheduler, "--device": device}
    options = [part for pair in named.items() if pair[1] for part in pair]
    return [*options, *["--force"] * force]


def _one_by_one(
    cases: list[Any], effects: dict[str, Any], bar: Bar, wanted: tuple[str, str, str, bool]
) -> list[str]:
    """Run cases one after the other; the messages of those that failed."""
    from napari_mosaik.workflow.leaks import case_labels

    failed: list[str] = []
    for label, case in zip(case_labels(cases), cases, strict=True):
        try:
            with _effect(case, wanted[0], effects, label):
                _run_one(case, bar, *wanted)
        except MosaikError as error:
            failed.append(str(error))
    return failed


def _report_doubts(views: list[tuple[str, Any, Any]]) -> None:
    from napari_mosaik.workflow.steps import step_named

    for label, _, view in views:
        for name, state in view.states.items():
            for text in state.warnings:
                report_warning(f"{label}, {step_named(name).title}: {text}")


@contextlib.contextmanager
def _effect(case: Any, step: str, effects: dict[str, Any], label: str) -> Iterator[None]:
    """What a run changes in tissue classes and prediction; nothing is read for other steps."""
    from napari_mosaik.core.catalogue import CLASSES, METRICS
    from napari_mosaik.workflow.steps import step_named

    if step and not {CLASSES, METRICS} & set(step_named(step).writes):
        yield
        return
    from napari_mosaik.workflow.annotations import annotation_results, retraining_effect

    before = annotation_results(case)
    yield
    effects[label] = retraining_effect(before, annotation_results(case))


def _show_effects(effects: dict[str, Any]) -> None:
    """What a run has changed in tissue classes and prediction, by case."""
    for name, effect in effects.items():
        if effect.any_change:
            from napari_mosaik.view.worth import retraining_lines

            typer.echo(f"{name}: changed by this run")
            for line in retraining_lines(effect):
                typer.echo(f"- {line}")


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
    with _naming_commands(case):
        drive(work, f"{case.name} · {step.title}", bar)


def _change(cases: list[Any], texts: Sequence[str]) -> None:
    """Change settings in the recipes of cases: all of them or, if one is refused, none."""
    from napari_mosaik.workflow.recipe import changed, parse_setting, read_recipe, write_recipe

    settings = [parse_setting(text) for text in texts]
    for store in (False, True) if settings else ():
        for case in cases:
            with case.writing():
                recipe = read_recipe(case.root)
                for step, setting, value in settings:
                    recipe = changed(recipe, step, **{setting: value})
                if store:
                    write_recipe(case.root, recipe)


@example_command(commands, "status", "status cohort")
def status(cases: CaseFolders, json: JsonOutput = False) -> None:
    """Show which steps are done, stale, missing or blocked, and why."""
    from napari_mosaik.io import Case, find_cases

    opened, failed = [], []
    for path in find_cases(cases):
        try:
            opened.append(Case(path))
        except MosaikError as error:
            failed.append(str(error))
    _states(opened, json, failed)


def _states(cases: list[Any], json: bool, failed: Sequence[str] = ()) -> list[tuple[str, Any, Any]]:
    """Print the status of cases as people sort them; a case that cannot be read stops no other."""
    from napari_mosaik.workflow.case_status import case_status
    from napari_mosaik.workflow.leaks import case_labels

    views, wrong = [], list(failed)
    labels = zip(case_labels(cases), cases, strict=True)
    for label, case in sorted(labels, key=lambda one: natural_key(one[0])):
        try:
            views.append((label, case, case_status(case)))
        except MosaikError as error:
            wrong.append(str(error))
    if json:
        print_json({label: _state_record(case, view) for label, case, view in views})
    else:
        _state_tables(views)
    if wrong:
        raise InputError(" | ".join(wrong))
    return views


def _state_record(case: Any, view: Any) -> dict[str, Any]:
    done, of = view.progress
    return {
        "folder": str(case.root),
        "patient": case.patient,
        "slides": sorted(STAIN_TITLES[stain] for stain in case.file.slides),
        "steps": {
            name: {
                "state": state.word,
                "reason": state.reason,
                "warnings": list(state.warnings),
            }
            for name, state in view.states.items()
        },
        "done": done,
        "of": of,
        "next": view.next_step,
        "warnings": list(view.warnings),
    }


def _state_tables(views: list[tuple[str, Any, Any]]) -> None:
    from napari_mosaik.workflow.steps import STEPS

    for label, case, view in views:
        rows = [
            [step.title, state.word, "\n".join([*filter(None, [state.reason]), *doubts])]
            for step in STEPS
            for state in (view.states[step.name],)
            for doubts in ([f"⚠ {text}" for text in state.warnings],)
        ]
        table(f"{label} · {case.patient}", ["step", "state", "reason"], rows, words=True)
        for text in view.warnings:
            typer.echo(f"⚠ {text}")
    if len(views) > 1:
        rows = [
            [label, "{} of {}".format(*view.progress), view.next_step] for label, _, view in views
        ]
        table("Cohort", ["case", "done", "next"], rows, words=True)
