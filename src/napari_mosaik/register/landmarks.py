"""Points marked on two sections: read them, and find the map that brings them together."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Transform
from napari_mosaik.register.params import AlignKind

__all__ = ["fit_landmarks", "landmark_names", "read_landmarks", "read_matrix"]

_LEAST = {"rigid": 2, "similarity": 2, "affine": 3}


def read_landmarks(path: str | Path, spacing_um: float | tuple[float, float]) -> FloatArray:
    """Landmarks of one image, (n, 2) row and column in µm.

    The file has a header with the columns ``X`` (column) and ``Y`` (row) in pixels; other columns
    are ignored.  Pixel (0, 0) covers 0 to 1: positions are multiplied by the spacing.

    Parameters
    ----------
    path
        CSV file, separated by commas, semicolons or tabs.
    spacing_um
        Size of a pixel, µm; one number or (row, column).

    Raises
    ------
    InputError
        If the file cannot be read, or lacks the columns, or a number is not one.
    """
    rows, x, y = _rows(path)
    try:
        points = [[float(row[y]), float(row[x])] for row in rows]
    except (TypeError, ValueError) as error:
        raise InputError(f"the landmarks {path} hold something that is no number") from error
    pixels = np.asarray(points, np.float64).reshape(-1, 2)
    return np.asarray(pixels * np.asarray(spacing_um, float), np.float64)


def landmark_names(path: str | Path) -> list[str]:
    """What each landmark of a file is called: its first column, or its number from 1."""
    rows, x, y = _rows(path)
    first = next(iter(rows[0])) if rows else x
    named = first not in (x, y)
    return [
        (row[first] or "").strip() or str(n) if named else str(n) for n, row in enumerate(rows, 1)
    ]


def _rows(path: str | Path) -> tuple[list[dict[str, Any]], str, str]:
    """Rows of a landmark file and the names of its columns X and Y."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the landmarks {path} cannot be read: {error}") from error
    first = text.splitlines()[0] if text.strip() else ""
    delimiter = max(",;\t", key=first.count)
    rows = csv.DictReader(text.splitlines(), delimiter=delimiter)
    names = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
    if "x" not in names or "y" not in names:
        raise InputError(f"the landmarks {path} need the columns X and Y, not '{first}'")
    return list(rows), names["x"], names["y"]


def read_matrix(path: str | Path, order: Literal["rc", "xy"] = "rc") -> FloatArray:
    """A 3 x 3 matrix in µm from a file, acting on (row, column, 1).

    Nine numbers in three rows separated by commas, semicolons, tabs or blanks (two rows of three
    will do), or JSON with ``matrix`` or ``matrix_um`` as `napari-mosaik align --json` writes it.

    Parameters
    ----------
    path
        The file.
    order
        "rc" where the matrix acts on (row, column, 1), "xy" where it acts on (x, y, 1).

    Raises
    ------
    InputError
        If the file cannot be read, or its matrix is no invertible affine map in µm.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the matrix {path} cannot be read: {error}") from error
    try:
        matrix = np.asarray(_numbers(text), np.float64)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"the matrix {path} holds something that is no number: {error}") from error
    if matrix.shape == (2, 3):
        matrix = np.vstack([matrix, [0.0, 0.0, 1.0]])
    if matrix.shape != (3, 3):
        raise InputError(f"the matrix {path} has the shape {matrix.shape}; 3 x 3 is needed")
    if order == "xy":
        swap = [1, 0, 2]
        matrix = matrix[swap][:, swap]
    try:
        Transform("moving", "fixed", matrix)
    except InputError as error:
        raise InputError(f"the matrix {path} cannot be used: {error}") from error
    return matrix


def _numbers(text: str) -> Any:
    if text.lstrip().startswith(("{", "[")):
        found = json.loads(text)
        if isinstance(found, dict):
            return found["matrix_um"] if "matrix_um" in found else found["matrix"]
        return found
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
    """The map of least squared distance between corresponding points.

    Parameters
    ----------
    moving_um, fixed_um
        (n, 2) row and column in µm; row i of one belongs to row i of the other.
    kind
        "rigid" (Kabsch), "similarity" (Umeyama) or "affine" (least squares).
    source, target
        Names of the frames.
    mirror
        The map turns the section over (rigid and similarity; an affine map finds out itself).

    Raises
    ------
    InputError
        If the numbers of points differ, there are too few (2, 2 or 3), a position is not finite,
        or the points do not fix the map (all in one place or, for "affine", on one line).

    References
    ----------
    Umeyama 1991, IEEE PAMI.
    """
    moving, fixed = np.asarray(moving_um, float), np.asarray(fixed_um, float)
    if moving.shape != fixed.shape or moving.ndim != 2 or moving.shape[1] != 2:
        raise InputError(f"landmarks of shapes {moving.shape} and {fixed.shape} do not correspond")
    if len(moving) < _LEAST[kind]:
        raise InputError(f"{kind} needs {_LEAST[kind]} pairs of landmarks, not {len(moving)}")
    if not (np.isfinite(moving).all() and np.isfinite(fixed).all()):
        raise InputError("a landmark's position is not a finite number")
    m0, f0 = moving.mean(axis=0), fixed.mean(axis=0)
    linear = _linear_part(moving - m0, fixed - f0, kind, mirror)
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, f0 - linear @ m0
    return Transform(source, target, matrix)


def _linear_part(m: FloatArray, f: FloatArray, kind: AlignKind, mirror: bool) -> FloatArray:
    """The 2 x 2 map between centred points."""
    spread = np.linalg.svd(m, compute_uv=False)
    least = spread[-1] if kind == "affine" else spread[0]
    if not least > 1e-9 * max(float(spread[0]), 1e-300) or spread[0] < 1e-9:
        raise InputError(
            f"the landmarks do not fix a map of kind '{kind}': they lie in one place or on one line"
        )
    if kind == "affine":
        return np.asarray(np.linalg.lstsq(m, f, rcond=None)[0].T, np.float64)
    u, strength, vt = np.linalg.svd(f.T @ m)
    wanted = -1.0 if mirror else 1.0
    signs = np.array([1.0, wanted * np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    turn = (u * signs) @ vt
    scale = float((strength * signs).sum() / (m**2).sum()) if kind == "similarity" else 1.0
    if scale <= 0:
        raise InputError("the landmarks do not correspond: no map without mirroring brings them on")
    return np.asarray(scale * turn, np.float64)
