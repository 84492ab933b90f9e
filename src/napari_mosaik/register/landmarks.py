"""Landmarks and transforms from files, and the transform that fits corresponding landmarks."""

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

MIN_PAIRS = {"rigid": 2, "similarity": 2, "affine": 3}


def read_landmarks(path: str | Path, spacing_um: float | tuple[float, float]) -> FloatArray:
    """Landmarks (n, 2) of one image, row and column in µm.

    The file has a header with the columns ``X`` (column) and ``Y`` (row) in pixels; other columns
    are ignored.  Pixel (0, 0) covers 0 to 1: positions are multiplied by the pixel size.

    Parameters
    ----------
    path
        CSV file, separated by commas, semicolons or tabs.
    spacing_um
        Pixel size, µm; one number or (row, column).

    Raises
    ------
    InputError
        If the file cannot be read, lacks the columns, or a position is not a number.
    """
    rows, x, y = _rows(path)
    try:
        points = [[float(row[y]), float(row[x])] for row in rows]
    except (TypeError, ValueError) as error:
        raise InputError(f"the landmark file {path} has a value that is not a number") from error
    pixels = np.asarray(points, np.float64).reshape(-1, 2)
    return np.asarray(pixels * np.asarray(spacing_um, float), np.float64)


def landmark_names(path: str | Path) -> list[str]:
    """Name of each landmark of a file: its first column, or its number from 1."""
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
        raise InputError(f"the landmark file {path} cannot be read: {error}") from error
    first = text.splitlines()[0] if text.strip() else ""
    delimiter = max(",;\t", key=first.count)
    rows = csv.DictReader(text.splitlines(), delimiter=delimiter)
    names = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
    if "x" not in names or "y" not in names:
        raise InputError(f"the landmark file {path} needs the columns X and Y, not '{first}'")
    return list(rows), names["x"], names["y"]


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
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the matrix file {path} cannot be read: {error}") from error
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
