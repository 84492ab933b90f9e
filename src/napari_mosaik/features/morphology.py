"""Size, shape and mean staining of labelled objects, from whole images or block by block."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Lattice
from napari_mosaik.core.raster import LazyArray
from napari_mosaik.core.table import Table
from napari_mosaik.features.block_measurements import ObjectSums, measure_block

__all__ = [
    "OBJECT_ABOUT",
    "OBJECT_UNITS",
    "measure_objects",
    "merge_measures",
    "moved_outlines",
]

OBJECT_UNITS = {
    "row_um": "µm",
    "column_um": "µm",
    "area_um2": "µm²",
    "equivalent_diameter_um": "µm",
    "major_axis_um": "µm",
    "minor_axis_um": "µm",
    "perimeter_um": "µm",
}
"""Units of the columns of an object table; the others are pure numbers."""

OBJECT_ABOUT = {
    "row_um": "centroid, row",
    "column_um": "centroid, column",
    "area_um2": "area: number of pixels times the area of one",
    "equivalent_diameter_um": "diameter of the disk of equal area, 2·sqrt(A/π)",
    "eccentricity": "sqrt(1 - l2/l1), l1 >= l2 the eigenvalues of the second central moments",
    "major_axis_um": "4·sqrt(l1): long axis of the ellipse of equal second moments",
    "minor_axis_um": "4·sqrt(l2): short axis of the ellipse of equal second moments",
    "perimeter_um": "length of the outline (and of holes) by Crofton's formula in 4 directions",
    "solidity": "pixels of the object / pixels whose centres lie in its convex hull",
}
"""What the columns of an object table mean."""

_STRIP = 1024


def merge_measures(
    parts: Iterable[Mapping[str, NDArray[Any]]],
    lattice: Lattice,
    n_labels: int,
    *,
    intensity: tuple[str, ...] = (),
    masks: tuple[str, ...] = (),
) -> Table:
    """The object table of an image that was measured block by block.

    Parameters
    ----------
    parts
        What `measure_block` gave for each block, in any order; blocks without objects may be left
        out.
    lattice
        Where the pixels of the whole image lie.
    n_labels
        Number of objects; labels are 1 to *n_labels*.
    intensity, masks
        Names of the channels and of the masks that the blocks were measured with.

    Returns
    -------
    The table of `measure_objects` for the whole image.  Where the image was cut does not matter
    (for the means of intensities: only in the last digits).

    Raises
    ------
    InputError
        If a label exceeds *n_labels*, or a block was measured without one of the names.
    """
    sums = ObjectSums(n_labels, intensity, masks)
    for part in parts:
        sums.add(part)
    return _table(sums, lattice)


def _table(sums: ObjectSums, lattice: Lattice) -> Table:
    pixels = sums.sums[:, 0].astype(float)
    units, about = dict(OBJECT_UNITS), dict(OBJECT_ABOUT)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = _shapes(sums, lattice, pixels)
        columns["solidity"] = pixels / sums.hull_pixels()
        for name, total in sums.intensity.items():
            columns[name] = total / pixels
            about[name] = f"mean {name.replace('_', ' ')} over the object's pixels"
    for name, count in sums.masks.items():
        column = f"{name}_area_um2"
        columns[column] = count * lattice.sample_area_um2
        units[column], about[column] = "µm²", f"area of {name} within the object"
    return Table(columns, units, about, lattice.frame)


def _shapes(sums: ObjectSums, lattice: Lattice, pixels: FloatArray) -> dict[str, NDArray[Any]]:
    dr, dc = lattice.spacing_um
    # Counted from the object's own corner, so that no digits are lost far from the image's.
    mean_r, mean_c = sums.sums[:, 1] / pixels, sums.sums[:, 2] / pixels
    # A pixel is a square, not a point: 1/12 is its own second moment.
    rr = (sums.sums[:, 3] / pixels - mean_r**2 + 1 / 12) * dr**2
    cc = (sums.sums[:, 4] / pixels - mean_c**2 + 1 / 12) * dc**2
    rc = (sums.sums[:, 5] / pixels - mean_r * mean_c) * dr * dc
    middle, spread = (rr + cc) / 2, np.sqrt(((rr - cc) / 2) ** 2 + rc**2)
    large, small = middle + spread, np.maximum(middle - spread, 0.0)
    centre = lattice.to_um(sums.corner + np.column_stack([mean_r, mean_c]))
    area = pixels * lattice.sample_area_um2
    return {
        "row_um": centre[:, 0],
        "column_um": centre[:, 1],
        "area_um2": area,
        "equivalent_diameter_um": np.where(pixels > 0, 2 * np.sqrt(area / np.pi), np.nan),
        "eccentricity": np.sqrt(1 - small / large),
        "major_axis_um": 4 * np.sqrt(large),
        "minor_axis_um": 4 * np.sqrt(small),
        "perimeter_um": np.where(pixels > 0, sums.crossings @ _crofton(dr, dc), np.nan),
    }


def _crofton(dr: float, dc: float) -> FloatArray:
    """Length per crossing along rows, columns and both diagonals, µm.

    Crofton: length = 1/2 · Σ angle of the direction's sector · distance of its lines · crossings.
    """
    diagonal = math.atan2(dr, dc)
    line = dr * dc / math.hypot(dr, dc)
    return 0.5 * np.array(
        [diagonal * dr, (math.pi / 2 - diagonal) * dc, math.pi / 4 * line, math.pi / 4 * line]
    )


def measure_objects(
    labels: LazyArray,
    lattice: Lattice,
    *,
    intensity: Mapping[str, LazyArray] | None = None,
    masks: Mapping[str, LazyArray] | None = None,
    n_labels: int | None = None,
) -> Table:
    """Measure every labelled object.

    Parameters
    ----------
    labels
        (rows, columns) whole numbers; 0 is background.  Read in strips of rows.
    lattice
        Where the pixels lie; its spacing may differ between the axes.
    intensity
        Name to (rows, columns) values whose mean over each object becomes the column of that name;
        a NaN pixel makes the mean NaN.
    masks
        Name to (rows, columns) booleans; the area of each within the objects becomes the column
        ``NAME_area_um2`` (for example the wall of vessels whose lumen is filled).
    n_labels
        Number of objects; the largest label if None.

    Returns
    -------
    Table of ``n_labels`` rows in the order of the labels: centroid (``row_um``, ``column_um``),
    ``area_um2``, ``equivalent_diameter_um``, ``eccentricity``, ``major_axis_um``,
    ``minor_axis_um``, ``perimeter_um``, ``solidity``, intensities, areas of masks.  A label without
    pixels has area 0 and NaN elsewhere.

    Raises
    ------
    InputError
        If the labels do not fit the lattice, are negative, or exceed *n_labels*.

    Notes
    -----
    The perimeter is Crofton's estimate from steps in 4 directions (scikit-image's
    ``perimeter_crofton`` for square pixels): right within about 1 % for round outlines, 5 % short
    for a square along the axes; holes count.  Solidity counts the pixels of the digital hull, so
    that a digitally convex object has exactly 1 (scikit-image's hull is larger: some per cent lower
    on small objects).  Second moments hold the pixel's own 1/12.
    """
    if tuple(labels.shape) != tuple(lattice.shape):
        raise InputError(f"labels of shape {labels.shape} do not fit the lattice {lattice.shape}")
    intensity, masks = dict(intensity or {}), dict(masks or {})
    parts = [_strip(labels, start, intensity, masks) for start in range(0, labels.shape[0], _STRIP)]
    if n_labels is None:
        n_labels = max((int(part["label"].max(initial=0)) for part in parts), default=0)
    return merge_measures(parts, lattice, n_labels, intensity=tuple(intensity), masks=tuple(masks))


def _strip(
    labels: LazyArray,
    start: int,
    intensity: Mapping[str, LazyArray],
    masks: Mapping[str, LazyArray],
) -> dict[str, NDArray[Any]]:
    """One strip of rows, measured with a row of its neighbours on each side."""
    stop = min(start + _STRIP, labels.shape[0])
    low, high = max(start - 1, 0), min(stop + 1, labels.shape[0])
    return measure_block(
        np.asarray(labels[low:high]),
        (low, 0),
        window=(slice(start - low, stop - low), slice(None)),
        intensity={name: np.asarray(values[start:stop]) for name, values in intensity.items()},
        masks={name: np.asarray(values[start:stop]) for name, values in masks.items()},
    )


def moved_outlines(
    objects: Table, border_um: float, min_um2: float
) -> tuple[Table, NDArray[np.int64]]:
    """Objects whose outlines move outwards by so many µm, and the (m,) index of those that stay.

    Those that fall below the minimum area, µm², go.  Area + perimeter x step + π x step²
    (Steiner), perimeter + 2 π x step.  Objects that would appear when outlines move outwards are
    not known: the density falls or stays.
    """
    area = np.asarray(objects["area_um2"], float)
    perimeter = np.asarray(objects["perimeter_um"], float)
    moved = area + perimeter * border_um + math.pi * border_um**2
    length = perimeter + 2 * math.pi * border_um
    small = (moved < np.minimum(min_um2, area)) | (length <= 0)
    rows = np.flatnonzero(~small)
    kept, columns = objects.rows(rows), {"area_um2": moved[rows], "perimeter_um": length[rows]}
    if "equivalent_diameter_um" in objects:
        columns["equivalent_diameter_um"] = 2 * np.sqrt(moved[rows] / math.pi)
    return kept.with_columns(columns), rows
