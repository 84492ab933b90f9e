"""Landmarks and transforms from files, and the transform that fits corresponding landmarks."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Transform
from napari_mosaik.core.text import read_text
from napari_mosaik.register.params import AlignKind

__all__ = ["check_partners", "fit_landmarks", "landmark_names", "read_landmarks", "read_matrix"]

MIN_PAIRS = {"rigid": 2, "similarity": 2, "affine": 3}


def read_landmarks(path: str | Path, spacing_um: float | tuple[float, float]) -> FloatArray:
    """Landmarks (n, 2) of one image, row and column in µm.

    The file has a header with the columns ``X`` (column) and ``Y`` (row) in pixels, or in µm if
    the header says so (``X [µm]``); or ``axis-1`` and ``axis-0`` as napari saves points.  Other
    columns and empty rows are ignored.  Pixel (0, 0) covers 0 to 1: positions are multiplied by
    the pixel size.  Excel's line ``sep=;`` is understood, as are decimal commas where the
    separator is none.

    Parameters
    ----------
    path
        CSV file, separated by commas, semicolons or tabs.
    spacing_um
        Pixel size, µm; one number or (row, column).

    Raises
    ------
    InputError
        If the file cannot be read, lacks the columns, or a position is not a finite number; line
        and value are named.
    """
    landmarks = _read(path)
    unit = 1.0 if landmarks.in_um else np.asarray(spacing_um, float)
    return np.asarray(np.reshape(landmarks.positions, (-1, 2)) * unit, np.float64)


def landmark_names(path: str | Path) -> list[str]:
    """Name of each landmark of a file: its first column, or its number from 1."""
    return _read(path).names


def check_partners(first: str | Path, second: str | Path) -> None:
    """Raise `InputError` where the names in two files of landmarks say that rows do not belong.

    Partners stand in the same row.  Names that both files share, in other rows, tell of a row that
    was sorted or deleted in one of them; names of which none agree are two ways to count.
    """
    one, other = landmark_names(first), landmark_names(second)
    rows = list(zip(one, other, strict=False))
    apart = [row for row, (a, b) in enumerate(rows, 1) if a != b]
    if apart and (len(apart) < len(rows) or sorted(one) == sorted(other)):
        a, b = rows[apart[0] - 1]
        raise InputError(
            f"landmark {apart[0]} is '{a}' in {Path(first).name} and '{b}' in {Path(second).name}; "
            "partners stand in the same row: sort both files alike, and delete landmarks in both"
        )


class _Landmarks(NamedTuple):
    names: list[str]
    positions: list[tuple[float, float]]  # row, column
    in_um: bool


_THOUSANDS = re.compile(r"-?[1-9]\d{0,2}(\.\d{3})+")
_COLUMN = re.compile(
    r"(?:centroid |position )?([xy])"
    r"(?:[ _]*[\[(]?(px|pixels?|µm|μm|um|microns?|micrometers?)[\])]?)?"
)


def _read(path: str | Path) -> _Landmarks:
    lines = read_text(path).splitlines()
    start, delimiter = 0, ""
    if lines and lines[0].lower().startswith("sep="):  # Excel's own line
        start, delimiter = 1, lines[0][4:5]
    first = lines[start] if len(lines) > start else ""
    delimiter = delimiter or max(",;\t", key=first.count)
    header, *rows = list(csv.reader(lines[start:], delimiter=delimiter)) or [[]]
    header = [name.strip().lower() for name in header]
    x, y, in_um = _columns(header, path, first)
    named = 0 not in (x, y)
    names, positions = [], []
    grouped = delimiter != "," and any(
        not re.fullmatch(r"-?\d*\.\d+|", row[at].strip())
        for row in rows
        for at in (x, y)
        if at < len(row)
    )
    for line, row in enumerate(rows, start + 2):
        if not any(cell.strip() for cell in row):
            continue
        place = f"the landmark file {path}, line {line}"
        for at in (x, y) if grouped else ():
            if at < len(row) and _THOUSANDS.fullmatch(row[at].strip()):
                raise InputError(
                    f"{place}: '{row[at].strip()}' may have a decimal point or separated "
                    "thousands; write it without separators"
                )
        positions.append((_number(row, y, delimiter, place), _number(row, x, delimiter, place)))
        names.append((row[0].strip() if named else "") or str(len(positions)))
    return _Landmarks(names, positions, in_um)


def _columns(header: list[str], path: str | Path, first: str) -> tuple[int, int, bool]:
    """Where X and Y stand in a header, and whether they are in µm rather than in pixels."""
    places: dict[tuple[str, bool], int] = {}
    for number, name in enumerate(header):
        if name in ("axis-0", "axis-1"):
            places.setdefault(("yx"[int(name[-1])], False), number)
        elif match := _COLUMN.fullmatch(name):
            in_um = bool(match[2]) and match[2][0] in "µμum"
            places.setdefault((match[1], in_um), number)
    if "shape-type" in header:
        raise InputError(
            f"{path} holds shapes of napari, not landmarks; save a Points layer with one point "
            "per landmark"
        )
    for in_um in (False, True):
        if ("x", in_um) in places and ("y", in_um) in places:
            return places["x", in_um], places["y", in_um], in_um
    raise InputError(
        f"the landmark file {path} needs the columns X and Y in pixels (or axis-0 and axis-1, as "
        f"napari saves points), not '{first}'"
    )


def _number(row: list[str], column: int, delimiter: str, place: str) -> float:
    """A coordinate; a comma is a decimal comma, unless it may as well separate thousands."""
    text = row[column].strip() if column < len(row) else ""
    if not text:
        raise InputError(f"{place}: a coordinate is missing; complete or delete the line")
    if "," in text and delimiter != ";" and re.fullmatch(r"-?\d{1,3}(,\d{3})+", text):
        raise InputError(
            f"{place}: '{text}' may have a decimal comma or separated thousands; write a point"
        )
    try:
        number = float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise InputError(f"{place}: '{text}' is not a number")
    return number


def read_matrix(path: str | Path, order: Literal["rc", "xy"] = "rc") -> FloatArray:
    """A matrix (3, 3) in µm from a file, acting on (row, column, 1).

    Nine numbers in three rows separated by commas, semicolons, tabs or blanks (the third row may be
    absent), or JSON with ``matrix`` or ``matrix_um`` as `napari-mosaik align --json` writes it.

    Parameters
    ----------
    path
        The file.
    order
        "rc" where the matrix acts on (row, column, 1), "xy" where it acts on (x, y, 1).

    Raises
    ------
    InputError
        If the file cannot be read, or its matrix is not an invertible affine transform in µm.
    """
    text = read_text(path)
    try:
        matrix = np.asarray(_numbers(text), np.float64)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"the matrix file {path} has a value that is not a number: {error}"
        ) from error
    if matrix.shape == (2, 3):
        matrix = np.vstack([matrix, [0.0, 0.0, 1.0]])
    if matrix.shape != (3, 3):
        raise InputError(f"the matrix file {path} has the shape {matrix.shape}; use 3 x 3")
    if order == "xy":
        swap = [1, 0, 2]
        matrix = matrix[swap][:, swap]
    try:
        Transform("moving", "fixed", matrix)
    except InputError as error:
        raise InputError(f"the matrix file {path} is not valid: {error}") from error
    return matrix


def _numbers(text: str) -> Any:
    if text.lstrip().startswith(("{", "[")):
        document = json.loads(text)
        if isinstance(document, dict):
            return document["matrix_um"] if "matrix_um" in document else document["matrix"]
        return document
    lines = [line.replace(",", " ").replace(";", " ").split() for line in text.splitlines()]
    return [[float(part) for part in line] for line in lines if line]


def fit_landmarks(
    moving_um: ArrayLike,
    fixed_um: ArrayLike,
    kind: AlignKind,
    source: str,
    target: str,
    *,
    mirror: bool = False,
) -> Transform:
    """The least-squares transform between corresponding landmarks.

    Parameters
    ----------
    moving_um, fixed_um
        (n, 2) row and column in µm; row i of one belongs to row i of the other.
    kind
        "rigid" (Kabsch), "similarity" (Umeyama) or "affine" (least squares).
    source, target
        Names of the coordinate spaces.
    mirror
        Whether the transform is a mirror image; an affine fit decides itself.

    Raises
    ------
    InputError
        If the numbers of landmarks differ, there are too few (2, 2 or 3), a position is not finite,
        or they do not determine the transform (all in one point or, for "affine", on one line).

    References
    ----------
    Umeyama 1991, IEEE PAMI.
    """
    moving, fixed = np.asarray(moving_um, float), np.asarray(fixed_um, float)
    if moving.shape != fixed.shape or moving.ndim != 2 or moving.shape[1] != 2:
        raise InputError(
            f"landmarks do not correspond: shapes {moving.shape} and {fixed.shape}; both must be "
            "(n, 2)"
        )
    if len(moving) < MIN_PAIRS[kind]:
        raise InputError(
            f"'{kind}' needs at least {MIN_PAIRS[kind]} pairs of landmarks, not {len(moving)}"
        )
    if not (np.isfinite(moving).all() and np.isfinite(fixed).all()):
        raise InputError(
            "a landmark has a position that is not a finite number; correct or delete it"
        )
    m0, f0 = moving.mean(axis=0), fixed.mean(axis=0)
    linear = _linear_part(moving - m0, fixed - f0, kind, mirror)
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, f0 - linear @ m0
    return Transform(source, target, matrix)


# skimage.transform.estimate_transform offers no mirror image, and its affine fit (DLT) is not the
# least-squares one: it differs by up to 1.5 µm on noisy landmarks over 8 mm.
def _linear_part(m: FloatArray, f: FloatArray, kind: AlignKind, mirror: bool) -> FloatArray:
    """The linear part (2, 2) of the transform between centred points (n, 2)."""
    spread = np.linalg.svd(m, compute_uv=False)
    smallest = spread[-1] if kind == "affine" else spread[0]
    if not smallest > 1e-9 * max(float(spread[0]), 1e-300) or spread[0] < 1e-9:
        raise InputError(
            f"the landmarks do not determine a transform of kind '{kind}': they lie in one "
            "point or on one line; set more"
        )
    if kind == "affine":
        return np.asarray(np.linalg.lstsq(m, f, rcond=None)[0].T, np.float64)
    u, strength, vt = np.linalg.svd(f.T @ m)
    orientation = -1.0 if mirror else 1.0
    signs = np.array([1.0, orientation * np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * signs) @ vt
    scale = float((strength * signs).sum() / (m**2).sum()) if kind == "similarity" else 1.0
    if scale <= 0:
        raise InputError(
            "the landmarks do not correspond without a mirror image; check their order, or flip "
            "the section"
        )
    return np.asarray(scale * rotation, np.float64)
