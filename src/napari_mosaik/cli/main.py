"""The `napari-mosaik` command: exit code 0, 2 for a user's error, 1 for an internal error."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, NoReturn

import typer

from napari_mosaik.cli.common import command_group
from napari_mosaik.core.errors import MosaikError

__all__ = ["app", "main"]

COMMAND_FILES = (
    "demo",
    "case",
    "slide",
    "pyramid",
    "cohort",
    "review",
    "measure",
    "set_alignment",
    "weights",
)
"""The files of this folder with commands, in the order of the help."""
app = command_group(
    "demo",
    name="napari-mosaik",
    help="Predicted against measured antibody uptake of one tumour: slides, PET and kinetics.\n\n"
    "Research use only. A newcomer starts with: napari-mosaik demo",
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


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and end the process."""
    try:
        app(args=arguments, prog_name="napari-mosaik")
    except MosaikError as error:
        _report(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        _report("interrupted; nothing unfinished was stored. The same command resumes from here")
        sys.exit(130)
    sys.exit(0)


def _report(text: str) -> None:
    typer.echo(f"napari-mosaik: {' '.join(text.split())}", err=True)
