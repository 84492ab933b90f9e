"""Give a case where a section or the PET lies: by a matrix, by landmarks, or automatic again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from napari_mosaik.cli.common import CaseFolder, JsonOutput, example_command
from napari_mosaik.cli.measure import matrix_order
from napari_mosaik.cli.show import figure, print_json
from napari_mosaik.core.errors import InputError

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case, GivenAlignment

__all__ = ["commands"]


commands = typer.Typer()


@example_command(commands, "set-alignment", "set-alignment B12 he --matrix he_to_cd34.txt")
def set_alignment(
    case: CaseFolder,
    frame: Annotated[str, typer.Argument(help="he, caix or pet.")],
    matrix: Annotated[
        Path | None, typer.Option(help="Map to CD34 (3 x 3, µm) of another program.")
    ] = None,
    order: Annotated[str, typer.Option(help="The matrix acts on rc or xy.")] = "rc",
    landmarks: Annotated[
        Path | None, typer.Option(help="Landmarks on it (CSV, pixels or voxels).")
    ] = None,
    landmarks_cd34: Annotated[
        Path | None, typer.Option(help="Their partners on CD34 (CSV, pixels).")
    ] = None,
    kind: Annotated[str, typer.Option(help="rigid, similarity or affine.")] = "similarity",
    automatic: Annotated[
        bool, typer.Option("--automatic", help="Forget what was given; align automatically.")
    ] = False,
    json: JsonOutput = False,
) -> None:
    """Give where a section or the PET lies on CD34; 'run --step align_FRAME' then uses it."""
    from napari_mosaik.io.case import Case
    from napari_mosaik.register import read_matrix
    from napari_mosaik.workflow import given_alignment as placing

    found = Case(case)
    ways = [automatic, matrix is not None, landmarks is not None or landmarks_cd34 is not None]
    if sum(ways) != 1:
        raise InputError("give one of --matrix, --landmarks with --landmarks-cd34, or --automatic")
    if automatic:
        placing.reset_alignment(found, frame)
        _tell(frame, None, [], json)
    elif matrix is not None:
        values = read_matrix(matrix, matrix_order(order))
        _tell(frame, placing.set_alignment_by_matrix(found, frame, values, matrix.name), [], json)
    elif landmarks is None or landmarks_cd34 is None:
        raise InputError("give --landmarks and --landmarks-cd34, or neither")
    else:
        entry, residuals = _by_landmarks(found, frame, landmarks, landmarks_cd34, kind)
        _tell(frame, entry, residuals, json)


def _by_landmarks(
    case: Case, frame: str, moving: Path, fixed: Path, kind: str
) -> tuple[GivenAlignment, list[float]]:
    from napari_mosaik.register import AlignKind, read_landmarks
    from napari_mosaik.workflow import given_alignment as placing

    chosen: AlignKind | None = next((one for one in get_args(AlignKind) if one == kind), None)
    if chosen is None:
        raise InputError(f"--kind {kind} is not offered; use rigid, similarity or affine")
    marks = placing.LandmarkPairs(
        read_landmarks(moving, placing.landmark_spacing_um(case, frame)),
        read_landmarks(fixed, case.spacing_um("cd34")),
    )
    entry = placing.set_alignment_by_landmarks(case, frame, marks, chosen)
    for sentence in marks.warnings(chosen, frame):
        typer.echo(f"⚠ {sentence}", err=True)
    return entry, [float(r) for r in marks.residuals_um(marks.fit(chosen, frame))]


def _tell(frame: str, entry: GivenAlignment | None, residuals: list[float], json: bool) -> None:
    if json:
        given = None if entry is None else entry.model_dump()
        print_json({"frame": frame, "given_alignment": given, "residuals_um": residuals})
        return
    if entry is None:
        typer.echo(f"{frame} will be aligned automatically")
        return
    typer.echo(f"{frame} aligned by {entry.source} ({entry.note})")
    for number, residual in enumerate(residuals, 1):
        typer.echo(f"landmark {number}: {figure(residual)} µm")
