"""The `napari-mosaik` command: its groups of commands, and what it says of an error."""

from __future__ import annotations

import codecs
import io
import logging
import sys
import unicodedata
import warnings
from importlib import import_module
from itertools import pairwise
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from napari_mosaik.cli.common import command_group, report_warning
from napari_mosaik.core.errors import MosaikError, lacks_memory
from napari_mosaik.core.journal import journal_damage
from napari_mosaik.core.text import validation_words

__all__ = ["app", "run_command"]

# UsageError of the click that typer brings along
_UsageError: type[typer.BadParameter] = typer.BadParameter.__mro__[1]

COMMAND_FILES = (
    "demo",
    "case",
    "slide",
    "pyramid",
    "cohort",
    "models",
    "review",
    "correct",
    "measure",
    "dose",
    "invivo",
    "twin",
    "set_alignment",
    "weights",
)
"""The files of this folder with commands, in the order of the help."""
app = command_group(
    "demo",
    name="napari-mosaik",
    help="Predicted against measured antibody uptake of one tumour: slides, PET and kinetics.\n\n"
    "Research use only. To start: napari-mosaik demo",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name in COMMAND_FILES:
    app.add_typer(import_module(f"{__package__}.{name}").commands)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from napari_mosaik import __version__

        typer.echo(__version__)
        raise typer.Exit


def run_command(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 2 after one line for what the user can mend.

    Damage of a reader's journal is reported at the end.
    """
    _prepare_streams()
    journal_damage(forget=True)
    try:
        return _run(arguments)
    finally:
        for sentence in journal_damage():
            report_warning(sentence)


def _run(arguments: list[str] | None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    if any(not word and not given.startswith("-") for given, word in pairwise(["", *words])):
        _report("an argument is empty; was it to be the value of a variable of the shell?")
        return 2
    try:
        # Without its standalone mode typer leaves the messages to us; it returns an exit code
        # where the command ended by one.
        return int(app(args=arguments, prog_name="napari-mosaik", standalone_mode=False) or 0)
    except MosaikError as error:
        _report(str(error))
    except _UsageError as error:
        _report_usage(error)
    except SystemExit as end:
        # typer ends so where the reader of a pipe (`| head`) has ended: no error.
        return 0 if isinstance(end.__context__, BrokenPipeError) else int(end.code or 0)
    except Exception as error:
        if lacks_memory(error):
            _report(
                f"the memory of this computer is not enough ({error or 'allocation failed'}); "
                "close other programs, raise a limit (ulimit -v), or give a smaller region"
            )
        elif isinstance(error, OSError) and error.errno is not None:
            from napari_mosaik.io.files import operating_system_message

            _report(operating_system_message(error))
        else:
            raise
    return 2


def _report_usage(error: Any) -> None:
    """What is wrong with the words of a command, and where its help is."""
    command = error.ctx.command_path if error.ctx else "napari-mosaik"
    if isinstance(error.__cause__, ValidationError):
        first = error.__cause__.errors()[0]
        words = validation_words(first)
        is_whole = first["type"] == "value_error"  # a sentence that names the value
        error.message = words if is_whole else f"{first['input']!r} is not valid; {words}"
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    if message.startswith("Usage:"):  # a group without a command shows its help
        error.show()
    else:
        _report(f"{message}; see: {command} --help")


def _prepare_streams() -> None:
    """Output that no console refuses, and no warning or log line of a library."""
    codecs.register_error("mosaik", _similar_letters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="mosaik")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    if not logging.root.handlers:
        logging.root.addHandler(logging.NullHandler())


_SIMILAR = dict(zip("µμ·×–−→⚠✓", ("u", "u", "-", "x", "-", "-", "->", "!", "ok"), strict=True))


def _similar_letters(error: UnicodeError) -> tuple[str, int]:
    """What a console that lacks a letter shows instead: µm as um, ² as 2, é as e, else '?'."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    plain = "".join(_SIMILAR.get(c) or unicodedata.normalize("NFKD", c) for c in text)
    return plain.encode("ascii", "ignore").decode() or "?" * len(text), error.end


def _report(text: str) -> None:
    typer.echo(f"napari-mosaik: {' '.join(text.split())}", err=True)
