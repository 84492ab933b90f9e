"""The command pyramid: make the coarse levels that the slides of a case lack, once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_mosaik.cli.show import Bar, drive, print_json

if TYPE_CHECKING:
    from napari_mosaik.io import Case

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("pyramid")(pyramid)


def pyramid(
    paths: Annotated[list[Path], typer.Argument(help="Case folders, or folders with cases.")],
    json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False,
) -> None:
    """Make the coarse levels that slides of a case lack, once; pixels and results stay the same."""
    from napari_mosaik.io import Case, find_cases

    with Bar(quiet=json) as bar:
        cases = [Case(path) for path in find_cases(paths)]
        found = {case.name: _completed(case, bar) for case in cases}
    if json:
        print_json(found)
        return
    for name, states in found.items():
        for slide, state in states.items():
            typer.echo(f"{name} {slide}: {state}")


def _completed(case: Case, bar: Bar) -> dict[str, str]:
    """By stain, what was done."""
    from napari_mosaik.io.slide.pyramid.build import complete_pyramid, lacks_levels

    states: dict[str, str] = {}
    for stain in case.file.slides:
        with case.slide(stain) as slide:
            if not lacks_levels(slide):
                states[stain] = "complete"
                continue
            work = complete_pyramid(slide, case.pyramids)
            made = drive(work, f"{case.name} · levels of {slide.path.name}", bar)
            states[stain] = "made" if made else "not stored: it has damaged tiles"
    return states
