"""What every command shares: an example in its help, choices, arguments and record options."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from functools import wraps
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args

import typer
from pydantic import BaseModel, ValidationError
from typer.core import TyperCommand, TyperGroup

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.pet_records import InjectionRecord, record_problem, renamed_items
from napari_mosaik.core.spacing import SpacingSource, typed_spacing
from napari_mosaik.core.text import typed_number

__all__ = [
    "CaseFolder",
    "CaseFolders",
    "Device",
    "JsonOutput",
    "OnDamage",
    "PageOption",
    "PetFrameOption",
    "PetSeriesOption",
    "PetUnitOption",
    "SchedulerAddress",
    "Seed",
    "SettingChanges",
    "StainName",
    "case_files",
    "check_output",
    "command_group",
    "display_problem",
    "example_command",
    "given_settings",
    "given_spacing",
    "naming_options",
    "number_option",
    "open_window",
    "record_options",
    "report_warning",
    "spacing_option",
]

Command = TypeVar("Command", TyperCommand, TyperGroup)
Function = TypeVar("Function", bound=Callable[..., Any])
JsonOutput = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
CaseFolder = Annotated[Path, typer.Argument(metavar="CASE", help="Case folder.")]
CaseFolders = Annotated[
    list[Path], typer.Argument(metavar="CASE", help="Case folders, or folders of cases.")
]


def _known_address(address: str) -> str:
    if address and not re.fullmatch(r"([a-z]+://)?[^\s/]+:\d{1,5}", address):
        raise InputError(
            f"--scheduler: {address!r} is not the address of a scheduler; give HOST:PORT, as "
            "'dask scheduler' prints it"
        )
    return address


SchedulerAddress = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        callback=_known_address,
        help="Address of a dask.distributed scheduler. Default: threads of this computer.",
    ),
]
OnDamage = Annotated[
    Literal["stop", "skip"],
    typer.Option(
        help="At a tile that cannot be decoded: stop, or skip it, exclude it from every result "
        "and report it."
    ),
]


PageOption = Annotated[
    int | None,
    typer.Option(min=1, help="Page of a TIFF file with several pictures, counted from 1."),
]


def _spacing(text: str) -> tuple[float, float]:
    try:
        return typed_spacing(text)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None


def number_option(about: str, metavar: str = "<float>", *, least: float | None = None) -> Any:
    """An option for a number with a decimal point or a decimal comma, *least* at least."""

    def number(text: Any) -> float:
        value = _number(str(text))  # a default is a number already
        if least is not None and value < least:
            raise typer.BadParameter(f"{text} is not valid: give {least:g} or more")
        return value

    return typer.Option(help=about, parser=number, metavar=metavar)


def spacing_option(about: str) -> Any:
    """An option for a pixel size in µm, typed as one number or row x column."""
    return typer.Option(help=about, parser=_spacing, metavar="<float>|<float>x<float>")


PetSeriesOption = Annotated[
    int | None, typer.Option(help="PET series, counted from 1, if there are several.")
]
PetFrameOption = Annotated[
    int | None, typer.Option(help="Time frame, counted from 0, if there are several.")
]
PetUnitOption = Annotated[
    str, typer.Option(help="Unit if the file states none: Bq/mL, kBq/mL, g/mL, cm2/mL ...")
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Random seed.")]
SettingChanges = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Change a setting; several values with commas, as in decoder=64,32,16,8. Repeatable.",
    ),
]


def _use_device(context: typer.Context, name: Any) -> Any:
    if name != "auto":
        from napari_mosaik.learning.devices import preferred_device

        context.with_resource(preferred_device(name))
    return name


Device = Annotated[
    Literal["auto", "cpu", "cuda", "cuda-float32", "mps"],
    typer.Option(
        callback=_use_device,
        help="Where networks compute. auto: a CUDA device where torch finds one. "
        "cuda-float32: without its 16-bit numbers.",
    ),
]


class StainName(StrEnum):
    """The slides of a case, as options name them."""

    HE = "he"
    CD34 = "cd34"
    CAIX = "caix"


def _with_example(base: type[Command], example: str) -> type[Command]:
    """A class of commands or groups that shows an example below the usage line of ``--help``."""

    def format_usage(self: Any, ctx: Any, formatter: Any) -> None:
        base.format_usage(self, ctx, formatter)
        formatter.write(f"\nExample:\n  napari-mosaik {example}\n")

    return type(f"{base.__name__}WithExample", (base,), {"format_usage": format_usage})


def example_command(app: typer.Typer, name: str, example: str) -> Callable[[Function], Function]:
    """Register a function as command *name*; *example* is what follows ``napari-mosaik``."""
    return app.command(name, cls=_with_example(TyperCommand, example))


def command_group(example: str, *, default: str = "", **options: Any) -> typer.Typer:
    """A group of commands whose help shows an example.

    Without the name of a command the one called *default* runs: ``models CASE``.  In such a group
    the name may follow the case as well: ``invivo CASE add``.
    """
    made = _with_example(TyperGroup, example)
    if default:

        def parse_args(self: Any, ctx: Any, args: list[str]) -> list[str]:
            if len(args) > 1 and args[0] not in self.commands and args[1] in self.commands:
                args = [args[1], args[0], *args[2:]]
            named = args and (args[0] in self.commands or args[0] in ("-h", "--help"))
            return list(TyperGroup.parse_args(self, ctx, args if named else [default, *args]))

        made = type(f"{made.__name__}WithDefault", (made,), {"parse_args": parse_args})
    return typer.Typer(cls=made, **options)


def display_problem() -> str:
    """Why no window can open on this computer; empty where one can.

    Qt aborts the process where it cannot reach the display, so another process tries first.
    """
    if not sys.platform.startswith("linux"):
        return ""
    if os.environ.get("QT_QPA_PLATFORM", "").split(":")[0] in ("offscreen", "minimal", "vnc"):
        return ""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display (DISPLAY is not set); over ssh connect with `ssh -X`"
    attempt = "from qtpy.QtGui import QGuiApplication; QGuiApplication([])"
    ended = subprocess.run([sys.executable, "-c", attempt], capture_output=True, text=True)
    if ended.returncode == 0:
        return ""
    lines = [line for line in ended.stderr.splitlines() if line.startswith("qt.qpa")]
    reason = lines[0].partition(": ")[2] if lines else ended.stderr.strip()[-200:]
    return f"Qt cannot open the display {os.environ.get('DISPLAY', '')} ({reason})"


def open_window(case: Path) -> None:
    """Open napari on a case.

    Raises
    ------
    InputError
        Where napari or Qt is missing, with the command that installs them, or there is no display.
    """
    from napari_mosaik.widgets import quicken_imports, show_case, without_collections

    try:
        with without_collections():
            quicken_imports()
            import napari  # noqa: F401
            import qtpy.QtWidgets  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"the window needs napari and Qt ({error}); install them with: "
            "pip install 'napari-mosaik[all]'"
        ) from error
    if problem := display_problem():
        raise InputError(f"the window cannot open: {problem}. `report` works without a display")

    show_case(case)


_OF_A_CASE = [
    *("case.toml", "recipe.toml", "invivo.csv", "artifacts", "earlier", "journal"),
    *("models", "plans", "readers", "twin"),
]


def case_files(case: Any) -> list[Path]:
    """The files of a case, of the user and its own, that no output may take the place of."""
    stated = [*case.file.paths("pet"), *case.file.landmarks.values()]
    stated += [entry.path for entry in case.file.slides.values()]
    return [*(case.root / name for name in _OF_A_CASE), *map(case.path, stated)]


def check_output(option: str, path: Path | None, inputs: Sequence[Path]) -> None:
    """Raise `InputError` if an output would replace, or lie in, one of the *inputs*."""
    if path is None:
        return
    if path.is_dir():
        raise InputError(f"{option} {path} is a folder; give the name of a file")
    places = (path.absolute(), *path.absolute().parents, *path.resolve().parents)
    there = [place for place in places if place.exists()]
    for one in inputs:
        same = one.exists() and any(place.samefile(one) for place in there)
        if same or one.absolute() in places:
            raise InputError(f"{option} {path} would replace what is read; give another file")


def given_spacing(
    spacing: str, profile: str = ""
) -> tuple[tuple[float, float] | None, SpacingSource]:
    """The typed or profile pixel size (row, column) in µm, and its source."""
    if profile:
        if spacing:
            raise InputError("give either --spacing or --profile, not both")
        from napari_mosaik.io.profiles import profile_named

        return profile_named(profile).spacing_um, "profile"
    if not spacing:
        return None, "user"
    return typed_spacing(spacing), "user"


def report_warning(text: str) -> None:
    """Print a doubt about a result: one line on standard error, whatever the output format.

    The same sentence stands under ``warnings`` in the JSON of the command.
    """
    typer.echo(f"napari-mosaik: warning: {' '.join(text.split())}", err=True)


def given_settings(texts: Sequence[str] | None) -> dict[str, str]:
    """Values of ``--set name=value``.

    Raises
    ------
    InputError
        For a text without an equals sign.
    """
    values = {}
    for text in texts or ():
        name, separator, value = text.partition("=")
        if not separator:
            raise InputError(f"--set {text!r} is not of the form name=value")
        values[name.strip()] = value.strip()
    return values


def record_options(
    record: type[BaseModel], names: Sequence[str], into: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for each named field of a record.

    Name, type and help text of an option are those of the field.  The command receives the values
    as the dictionary *into*, with None for what was not given.  Times are read as ISO 8601.  A
    value that the record does not allow raises `InputError` with the option and the value.
    """
    fields = {name: record.model_fields[name] for name in names}
    times = {name for name, field in fields.items() if datetime in _types(field.annotation)}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        options = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=_option(field.annotation, field.description or "", name in times),
            )
            for name, field in fields.items()
        ]
        parameters: list[inspect.Parameter] = []
        for parameter in own.values():
            if parameter.name == into:
                parameters += options
            else:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

        @wraps(command)
        def call(**given: Any) -> None:
            values = {name: given.pop(name) for name in fields}
            for name in times:
                values[name] = _moment(values[name], name) if values[name] else None
            _check(record, values)
            command(**given, **{into: values})

        del call.__wrapped__  # typer reads the signature below
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        return call

    return decorate


def _check(record: type[BaseModel], values: dict[str, Any]) -> None:
    given = {name: value for name, value in values.items() if value is not None}
    try:
        record.model_validate(given)
    except ValidationError as error:
        name, problem = record_problem(error)
        raise InputError(f"{_option_name(name)}: {problem}") from error
    from napari_mosaik.uptake import implausible

    for name, value in given.items():
        if name == "half_life_h" and "nuclide" not in given:
            continue  # the file may state another nuclide, with which it is compared
        if problem := implausible(name, value, given.get("nuclide", "Zr-89")):
            raise InputError(f"{_option_name(name)}: {_with_options(problem)}")


def _option_name(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _with_options(text: str, more: Mapping[str, str] | None = None) -> str:
    names = {name: _option_name(name) for name in InjectionRecord.model_fields}
    return renamed_items(text, names | dict(more or {}))


@contextmanager
def naming_options(**more: str) -> Iterator[None]:
    """Let errors name the options of the command instead of the arguments of the library.

    Items of the injection record become their options; *more* gives other arguments.
    """
    try:
        yield
    except InputError as error:
        error.args = (_with_options(str(error), more),)
        raise


def _types(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) or (annotation,)


def _option(annotation: Any, about: str, is_time: bool) -> Any:
    kinds = [kind for kind in _types(annotation) if kind is not NoneType]
    kind = str if is_time else kinds[0] if len(kinds) == 1 else annotation
    text = about[:1].upper() + about[1:] + (", ISO 8601." if is_time else ".")
    if kind is float:
        return Annotated[float | None, number_option(text)]
    return Annotated[kind | None, typer.Option(help=text)]


def _number(text: str) -> float:
    try:
        return typed_number(text)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None


def _moment(text: str, name: str) -> datetime:
    try:
        if not re.match(r"\d{4}-?\d\d-?\d\d[T ]\d\d:?\d\d", text.strip()):
            raise ValueError  # a date alone would be taken as midnight
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise InputError(
            f"--{name.replace('_', '-')} {text!r} is not a date and time; "
            "give both, for example 2024-05-31T09:30:00"
        ) from None
