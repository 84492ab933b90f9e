"""Give the alignment of a section or the PET: a matrix, landmarks, or automatic again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from napari_mosaik.cli.common import CaseFolder, JsonOutput, example_command, report_warning
from napari_mosaik.cli.show import figure, print_json
from napari_mosaik.core.errors import InputError

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case
    from napari_mosaik.io.case_file import GivenAlignment

__all__ = ["commands"]

Kind = Literal["rigid", "similarity", "affine"]

commands = typer.Typer()


@example_command(commands, "set-alignment", "set-alignment B12 he --matrix he_to_cd34.txt")
def set_alignment(
    case: CaseFolder,
    frame: Annotated[
        Literal["he", "caix", "pet"], typer.Argument(help="The section to align to CD34.")
    ],
    matrix: Annotated[
        Path | None,
        typer.Option(help="File with the transform to CD34 (3 x 3, µm) from another program."),
    ] = None,
    order: Annotated[
        Literal["rc", "xy"], typer.Option(help="Order of coordinates of the matrix.")
    ] = "rc",
    landmarks: Annotated[
        Path | None, typer.Option(help="Landmarks on the section (CSV, pixels or voxels).")
    ] = None,
    landmarks_cd34: Annotated[
        Path | None, typer.Option(help="Their partners on CD34 (CSV, pixels).")
    ] = None,
    kind: Annotated[Kind, typer.Option(help="Transform that is fitted.")] = "similarity",
    automatic: Annotated[
        bool, typer.Option("--automatic", help="Remove the given alignment; align automatically.")
    ] = False,
    json: JsonOutput = False,
) -> None:
    """Set the alignment of a section or the PET to CD34; the step align_FRAME then uses it."""
    from napari_mosaik.io.case import Case
    from napari_mosaik.register import read_matrix
    from napari_mosaik.workflow import given_alignment

    opened = Case(case)
    sources = (automatic, matrix is not None, landmarks is not None or landmarks_cd34 is not None)
    if sum(sources) != 1:
        raise InputError("give one of --matrix, --landmarks with --landmarks-cd34, or --automatic")
    if automatic:
        given_alignment.reset_alignment(opened, frame)
        _show(frame, None, [], json)
    elif matrix is not None:
        values = read_matrix(matrix, order)
        entry = given_alignment.set_alignment_by_matrix(opened, frame, values, matrix.name)
        _show(frame, entry, [], json)
    elif landmarks is None or landmarks_cd34 is None:
        raise InputError("give --landmarks and --landmarks-cd34, or neither")
    else:
        entry, residuals = _by_landmarks(opened, frame, landmarks, landmarks_cd34, kind)
        _show(frame, entry, residuals, json)


def _by_landmarks(
    case: Case, frame: str, moving: Path, fixed: Path, kind: Kind
) -> tuple[GivenAlignment, list[float]]:
    from napari_mosaik.register import LandmarkPairs, check_partners, read_landmarks
    from napari_mosaik.workflow import given_alignment

    check_partners(moving, fixed)
    pairs = LandmarkPairs(
        read_landmarks(moving, given_alignment.landmark_spacing_um(case, frame)),
        read_landmarks(fixed, case.spacing_um("cd34")),
    )
    entry = given_alignment.set_alignment_by_landmarks(case, frame, pairs, kind)
    for message in pairs.warnings(kind):
        report_warning(message)
    residuals = pairs.residuals_um(pairs.fit(kind, frame, "cd34"))
    return entry, [float(residual) for residual in residuals]


def _show(frame: str, entry: GivenAlignment | None, residuals: list[float], json: bool) -> None:
    if json:
        given = None if entry is None else entry.model_dump()
        print_json({"frame": frame, "given_alignment": given, "residuals_um": residuals})
        return
    if entry is None:
        typer.echo(f"{frame} will be aligned automatically")
        return
    typer.echo(f"{frame}: alignment set ({entry.source}: {entry.note})")
    for number, residual in enumerate(residuals, 1):
        typer.echo(f"landmark {number}: {figure(residual)} µm")
