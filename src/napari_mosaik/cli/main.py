"""The `napari-mosaik` command: exit code 0, 2 for a user's error, 1 for a fault of the program."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from napari_mosaik.cli import (
    case,
    cohort,
    demo,
    measure,
    pyramid,
    review,
    set_alignment,
    slide,
    weights,
)
from napari_mosaik.core.errors import MosaikError

__all__ = ["app", "main"]

app = typer.Typer(
    name="napari-mosaik",
    help="Predicted against measured antibody uptake of one tumour: slides, PET and kinetics.\n\n"
    "Research use only. A newcomer starts with: napari-mosaik demo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (demo, case, slide, pyramid, cohort, review, measure, set_alignment, weights):
    part.register(app)


@app.callback(invoke_without_command=True)
def _version(
    version: bool = typer.Option(False, "--version", help="Print the version and end."),
) -> None:
    if version:
        from napari_mosaik import __version__

        typer.echo(__version__)
        raise typer.Exit


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and end the process."""
    try:
        app(args=arguments)
    except MosaikError as error:
        _say(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        _say("stopped; nothing unfinished was stored. The same command goes on from here")
        sys.exit(130)
    sys.exit(0)


def _say(text: str) -> None:
    typer.echo(f"napari-mosaik: {' '.join(text.split())}", err=True)
