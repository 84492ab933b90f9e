"""The command pyramid: store the pyramid levels that the slides of a case lack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from napari_mosaik.cli.common import CaseFolders, JsonOutput, example_command
from napari_mosaik.cli.show import Bar, drive, print_json

if TYPE_CHECKING:
    from napari_mosaik.io import Case

__all__ = ["commands"]


commands = typer.Typer()


@example_command(commands, "pyramid", "pyramid B12")
def pyramid(
    cases: CaseFolders,
    json: JsonOutput = False,
) -> None:
    """Store the pyramid levels that slides of a case lack. Pixels and results stay the same."""
    from napari_mosaik.io import Case, find_cases
    from napari_mosaik.workflow.leaks import case_labels

    with Bar(quiet=json) as bar:
        opened = [Case(path) for path in find_cases(cases)]
        labels = zip(case_labels(opened), opened, strict=True)
        found = {label: _completed(case, bar) for label, case in labels}
    if json:
        print_json(found)
        return
    for name, states in found.items():
        for slide, state in states.items():
            typer.echo(f"{name} {slide}: {state}")


def _completed(case: Case, bar: Bar) -> dict[str, str]:
    """What was done, by stain."""
    from napari_mosaik.io.slide.pyramid.build import complete_pyramid, has_missing_levels

    states: dict[str, str] = {}
    for stain in case.file.slides:
        with case.slide(stain) as slide:
            if not has_missing_levels(slide):
                states[stain] = "complete"
                continue
            work = complete_pyramid(slide, case.pyramids)
            made = drive(work, f"{case.name} · levels of {slide.path.name}", bar)
            states[stain] = "made" if made else "not stored: the slide has damaged tiles"
    return states
