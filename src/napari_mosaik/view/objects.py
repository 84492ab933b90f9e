"""Objects of a segmentation, and their correction, as outlines and as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.corrections import Correction
from napari_mosaik.core.frame import FloatArray, Lattice, Mask
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.core.table import Table
from napari_mosaik.view.formatting import number

if TYPE_CHECKING:
    from napari_mosaik.workflow.corrections import CorrectionLog, CorrectionSession, SelectedObject

__all__ = [
    "CorrectionState",
    "area_lines",
    "corrected_lines",
    "correction_state",
    "cross_lines",
    "object_lines",
    "outline_lines",
    "path_lines",
    "shape_lines",
    "vertex_lines",
]

_CROSS_UM = 12.0
_MAX_VERTICES = 1500
_TITLES = {
    "area_um2": "area",
    "equivalent_diameter_um": "equivalent diameter",
    "major_axis_um": "major axis",
    "minor_axis_um": "minor axis",
    "perimeter_um": "perimeter",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
    "wall_area_um2": "wall area",
    "lumen_area_um2": "lumen area",
    "haematoxylin_od": "haematoxylin",
}


def outline_lines(mask: NDArray[np.bool_], lattice: Lattice) -> FloatArray:
    """The outline of a mask (rows, columns) along the edges of its pixels.

    Vectors (n, 2, 2), start and step of each edge as (row, column) in µm of the lattice's space.
    """
    padded = np.pad(mask, 1)
    step = np.asarray(lattice.spacing_um)
    across = np.argwhere(padded[1:] != padded[:-1]) - (0, 1)
    down = np.argwhere(padded[:, 1:] != padded[:, :-1]) - (1, 0)
    corners = np.concatenate([across, down]).astype(float)
    starts = corners * step + np.asarray(lattice.origin_um)
    steps = np.concatenate(
        [np.tile([0.0, step[1]], (len(across), 1)), np.tile([step[0], 0.0], (len(down), 1))]
    )
    return np.stack([starts, steps], axis=1)


def cross_lines(place_um: Any, size_um: float) -> FloatArray:
    """A cross at (row, column) in µm, as vectors (2, 2, 2) in µm: start and step."""
    row, col = (float(v) for v in place_um)
    half = size_um / 2
    return np.array(
        [
            [[row - half, col - half], [size_um, size_um]],
            [[row - half, col + half], [size_um, -size_um]],
        ]
    )


def path_lines(points_um: Any) -> FloatArray:
    """A path through points (n, 2) in µm, as vectors (n - 1, 2, 2) in µm: start and step."""
    points = np.asarray(points_um, float).reshape(-1, 2)
    return np.stack([points[:-1], np.diff(points, axis=0)], axis=1)


def shape_lines(shape: AnnotatedShape, tolerance_um: float) -> FloatArray:
    """The outline of a shape to within a tolerance, as vectors (n, 2, 2) in µm: start and step."""
    return _ring_lines(shape.geometry.simplify(tolerance_um))


def vertex_lines(shape: AnnotatedShape, view: Lattice, size_um: float) -> FloatArray:
    """A square around each vertex of a shape in view, as vectors (n, 2, 2) in µm: start and step.

    None where there are too many to take hold of one: magnify, or simplify the outline.
    """
    import shapely

    places = np.unique(shapely.get_coordinates(shape.geometry)[:, ::-1], axis=0)
    low = np.asarray(view.origin_um)
    inside = ((places >= low) & (places <= low + view.extent_um)).all(axis=1)
    corners = places[inside] - size_um / 2
    if len(corners) > _MAX_VERTICES:
        return np.zeros((0, 2, 2))
    across, down = np.array([0.0, size_um]), np.array([size_um, 0.0])
    sides = ((0 * down, across), (across, down), (down, across), (0 * down, down))
    return np.concatenate(
        [np.stack([corners + at, np.broadcast_to(step, corners.shape)], 1) for at, step in sides]
    )


def area_lines(wkt: str) -> FloatArray:
    """The outline of an area in well-known text (x = column, y = row, in µm).

    Vectors (n, 2, 2) in µm: start and step of each edge as (row, column).
    """
    import shapely

    return _ring_lines(shapely.from_wkt(wkt))


def _ring_lines(geometry: Any) -> FloatArray:
    import shapely

    rings = shapely.get_rings(shapely.get_parts(geometry))
    return np.concatenate(
        [np.zeros((0, 2, 2)), *(path_lines(shapely.get_coordinates(r)[:, ::-1]) for r in rings)]
    )


def corrected_lines(
    corrections: Sequence[Correction], edited: Sequence[tuple[Lattice, Mask]] | None = None
) -> tuple[FloatArray, FloatArray]:
    """Outlines of what corrections added or edited, and of what they removed.

    Vectors (n, 2, 2) in µm of the section; *edited* has the masks (rows, columns) of the objects
    that readers edited, None for the corrections of a mask.
    """
    added = ("add", "clear") if edited is None else ()
    made = [area_lines(one.area_wkt) for one in corrections if one.kind in added]
    made += [outline_lines(mask, lattice) for lattice, mask in edited or ()]
    gone = [area_lines(one.area_wkt) for one in corrections if one.kind in ("cut", "flag")]
    gone += [cross_lines(c.places_um[0], _CROSS_UM) for c in corrections if c.kind == "delete"]
    empty = np.zeros((0, 2, 2))
    return np.concatenate([empty, *made]), np.concatenate([empty, *gone])


@dataclass(frozen=True, slots=True, eq=False)
class CorrectionState:
    """Everything that the window shows of a reader's corrections.

    ``made`` and ``gone`` are outlines of edited and of removed regions, vectors (n, 2, 2) in µm of
    the section; ``lost`` gives the reason for each correction, by index, that has no object;
    ``found`` are objects that are offered.
    """

    selected: SelectedObject | None
    corrections: tuple[Correction, ...]
    lost: dict[int, str]
    undo: str
    redo: str
    made: Any
    gone: Any
    failed: str = ""
    found: tuple[Correction, ...] = ()


def correction_state(
    session: CorrectionSession | CorrectionLog, at: Any, failed: str = ""
) -> CorrectionState:
    """State of a session; the object at a position, (row, column) in µm, is selected."""
    from napari_mosaik.workflow.corrections import CorrectionSession

    log = session.log
    corrections = log.corrections
    selected, lost, edited = None, {}, None
    found: tuple[Correction, ...] = ()
    if isinstance(session, CorrectionSession):
        session.current()
        if at is not None:
            selected = session.select(at)
        lost = {corrections.index(one): why for one, why in session.lost}
        edited, found = session.edited_objects(), tuple(session.found)
    undo, redo = log.part.journal.undo_title(), log.part.journal.redo_title()
    made, gone = corrected_lines(corrections, edited)
    return CorrectionState(selected, corrections, lost, undo, redo, made, gone, failed, found)


def object_lines(numbers: Table) -> list[tuple[str, str]]:
    """Name and value with unit of each measurement of one object (a table of one row)."""
    lines = []
    for name in numbers:
        value = np.asarray(numbers[name])[0]
        if name in ("row_um", "column_um"):
            continue
        title = _TITLES.get(name, name.replace("_", " "))
        if isinstance(value, str | np.str_):
            if value:
                lines.append((title, str(value)))
        else:
            lines.append((title, number(float(value), numbers.unit(name))))
    return lines
