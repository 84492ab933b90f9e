"""New outlines from old ones: holes, smoothing, vertices, splitting, merging, growing.

Geometries have x = column and y = row in µm; positions are (row, column) in µm.  Each function
returns a new valid area, or raises `InputError` in words that a reader understands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from shapely import MultiPolygon, Polygon
from shapely.ops import polygonize

from napari_mosaik.annotate.brush import Area, clean
from napari_mosaik.core import FloatArray, InputError, Lattice

__all__ = [
    "insert_vertex",
    "inside_slide",
    "move_vertex",
    "nearest_edge",
    "nearest_vertex",
    "offset_outline",
    "remove_vertex",
    "simplify_outline",
    "smooth_outline",
    "split_along",
    "unite_areas",
    "without_holes",
]

_QUADRANT: Final = 16
"""Segments in a quarter of a rounded corner: the outline is within 0.12 % of its radius."""
_SLIVER_UM2: Final = 4.0
"""A piece smaller than this stays with the neighbour along whose side it lies, µm²."""
_LONGEST_WAVE: Final = 1 / 16
"""A ring is smoothed by at most this fraction of its length, so that small ones keep their size."""
_TRIES: Final = 6


def inside_slide(geometry: Area, lattice: Lattice) -> Area:
    """The part of an area that lies on the slide; `InputError` if none does."""
    (top, left), (height, width) = lattice.origin_um, lattice.extent_um
    box = shapely.box(left, top, left + width, top + height)
    part = geometry if box.covers(geometry) else clean(shapely.intersection(geometry, box))
    if part is None:
        raise InputError("that lies outside the slide, so nothing was annotated")
    return part


def without_holes(geometry: Area) -> Area:
    """The area with all its holes filled."""
    filled = clean(shapely.union_all([Polygon(p.exterior) for p in shapely.get_parts(geometry)]))
    return geometry if filled is None else filled


def simplify_outline(geometry: Area, tolerance_um: float) -> Area:
    """The outline with fewer vertices; the old and the new one lie within *tolerance_um*.

    Parts and holes stay apart.
    """
    _check_size(tolerance_um, "the tolerance")
    step = tolerance_um
    for _ in range(_TRIES):
        simple = clean(shapely.simplify(geometry, step, preserve_topology=True))
        if simple is not None and _same_topology(geometry, simple):
            away = shapely.hausdorff_distance(geometry.boundary, simple.boundary)
            if away <= tolerance_um:
                return simple
        step *= 0.8
    return geometry


def smooth_outline(geometry: Area, radius_um: float) -> Area:
    """The outline without details that are finer than *radius_um*.

    Each ring is filtered along its length by ``1 - (1 - g)²`` with the Gaussian g of that standard
    deviation: finer details go, and areas change little, because coarse waves pass unchanged.  The
    numbers of parts and holes stay; where they would not, the outline is smoothed less.
    """
    _check_size(radius_um, "the radius")
    for _ in range(_TRIES):
        parts = []
        for part in shapely.get_parts(geometry):
            rings = [_smooth_ring(ring, radius_um) for ring in (part.exterior, *part.interiors)]
            parts.append(Polygon(rings[0], rings[1:]))
        smooth: Area = parts[0] if len(parts) == 1 else MultiPolygon(parts)
        if _same_topology(geometry, smooth):
            return smooth
        radius_um /= 2
    return geometry


def _smooth_ring(ring: shapely.LinearRing, sigma_um: float) -> NDArray[np.float64]:
    """Vertices (n, 2), x and y in µm, of a ring after the filter."""
    length = ring.length
    sigma = min(sigma_um, length * _LONGEST_WAVE)
    n = max(32, math.ceil(4 * length / sigma))
    points = shapely.get_coordinates(
        shapely.line_interpolate_point(ring, np.arange(n) / n * length)
    )
    waves = np.fft.fft(points[:, 0] + 1j * points[:, 1])
    gauss = np.exp(-0.5 * (2 * np.pi * np.fft.fftfreq(n, length / n) * sigma) ** 2)
    smooth = np.fft.ifft(waves * (1 - (1 - gauss) ** 2))
    line = shapely.LinearRing(np.stack([smooth.real, smooth.imag], axis=1))
    fewer = shapely.get_coordinates(line.simplify(sigma / 100))
    return fewer if len(fewer) > 3 else shapely.get_coordinates(line)


def offset_outline(geometry: Area, by_um: float) -> Area:
    """The area dilated by *by_um* with round corners, or shrunk where it is negative."""
    _check_size(abs(by_um), "the distance")
    moved = clean(geometry.buffer(by_um, quad_segs=_QUADRANT))
    if moved is None:
        raise InputError(
            f"nothing is left of an annotation that is shrunk by {-by_um:g} µm; choose a smaller "
            "distance, or delete it"
        )
    return moved


def unite_areas(geometries: Sequence[Area]) -> Area:
    """One area that covers all the given ones; it may have several parts."""
    united = clean(shapely.union_all(list(geometries)))
    if united is None:
        raise InputError("there is no area to merge")
    return united


def split_along(geometry: Area, line_um: ArrayLike) -> tuple[Area, ...]:
    """The pieces into which a line (n, 2), row and column in µm, cuts an area; the largest first.

    Parts that the line does not cut stay with the largest piece.  The areas of the pieces add up
    to that of the whole.

    Raises
    ------
    InputError
        The line does not cut the area in two.
    """
    points = np.asarray(line_um, float)
    if points.ndim != 2 or len(points) < 2 or not np.isfinite(points).all():
        raise InputError("a line needs at least two positions; drag it across the annotation")
    line = shapely.LineString(points[:, ::-1])
    whole: list[Area] = []
    pieces: list[Polygon] = []
    for part in shapely.get_parts(geometry):
        faces = _faces(part, line) if line.intersects(part) else [part]
        if len(faces) > 1:
            pieces += faces
        else:
            whole.append(part)
    if not pieces:
        raise InputError(
            "the line does not cut the annotation in two; draw it from outside to outside"
        )
    pieces.sort(key=lambda piece: -piece.area)
    return (unite_areas([pieces[0], *whole]), *pieces[1:])


def _faces(part: Polygon, line: shapely.LineString) -> list[Polygon]:
    """The pieces of one part, without slivers."""
    found = polygonize(shapely.union_all([part.boundary, line]))
    faces = [face for face in found if part.contains(face.representative_point())]
    faces.sort(key=lambda face: -face.area)
    kept: list[Polygon] = []
    for face in faces:
        shared = [shapely.intersection(face, one).length for one in kept]
        beside = int(np.argmax(shared)) if shared else -1
        joined = None
        if face.area < _SLIVER_UM2 and beside >= 0 and shared[beside] > 0:
            joined = shapely.union(kept[beside], face)
        if isinstance(joined, Polygon):
            kept[beside] = joined
        else:
            kept.append(face)
    return kept


# --- vertices -----------------------------------------------------------------------------------
def nearest_vertex(geometry: Area, at_um: tuple[float, float], within_um: float) -> int | None:
    """Number of the vertex nearest to (row, column) in µm; None if none is within *within_um*."""
    xy = shapely.get_coordinates(geometry)
    away = np.hypot(xy[:, 0] - at_um[1], xy[:, 1] - at_um[0])
    number = int(away.argmin())
    return number if away[number] <= within_um else None


def nearest_edge(geometry: Area, at_um: tuple[float, float], within_um: float) -> int | None:
    """Number of the vertex at which the nearest edge begins; None if none is within µm."""
    xy, ring = _rings_of(geometry)
    start, step = xy[:-1], np.diff(xy, axis=0)
    length = (step**2).sum(axis=1)
    at = np.array(at_um[::-1])
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip(((at - start) * step).sum(axis=1) / length, 0, 1)
    away = np.hypot(*(start + np.nan_to_num(share)[:, None] * step - at).T)
    away[ring[1:] != ring[:-1]] = np.inf  # from one ring to the next there is no edge
    number = int(away.argmin())
    return number if away[number] <= within_um else None


def move_vertex(geometry: Area, number: int, to_um: tuple[float, float]) -> Area:
    """The area with one vertex at (row, column) in µm; where it crosses itself it is repaired."""
    xy, ring = _rings_of(geometry)
    same = [number, *_twin(ring, number)]
    xy[same] = to_um[::-1]
    ends = np.flatnonzero(np.diff(ring)) + 1
    return _repaired(_built(geometry, np.split(xy, ends)))


def insert_vertex(geometry: Area, edge: int, at_um: tuple[float, float]) -> tuple[Area, int]:
    """The area with a new vertex after that of number *edge*, and the number of the new one."""
    rings = _split_rings(geometry)
    place, inner = _place(rings, edge)
    rings[place] = np.insert(rings[place], inner + 1, at_um[::-1], axis=0)
    return _built(geometry, rings), edge + 1


def remove_vertex(geometry: Area, number: int) -> Area:
    """The area without one vertex; `InputError` where fewer than three would be left."""
    rings = _split_rings(geometry)
    place, inner = _place(rings, number)
    ring = rings[place]
    if len(ring) <= 4:
        raise InputError("an outline needs three vertices; delete the annotation instead")
    last = len(ring) - 1
    open_ring = np.delete(ring[:-1], inner % last, axis=0)
    rings[place] = np.vstack([open_ring, open_ring[:1]])
    return _repaired(_built(geometry, rings))


def _rings_of(geometry: Area) -> tuple[FloatArray, NDArray[np.int64]]:
    """Vertices (n, 2), x and y in µm, and the number of the ring of each."""
    rings = _split_rings(geometry)
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    return np.vstack(rings), owner


def _split_rings(geometry: Area) -> list[FloatArray]:
    rings = shapely.get_rings(shapely.get_parts(geometry))
    return [shapely.get_coordinates(ring) for ring in rings]


def _twin(ring: NDArray[np.int64], number: int) -> list[int]:
    """The other end of a closed ring, if a vertex is one end."""
    own = np.flatnonzero(ring == ring[number])
    ends = {int(own[0]): int(own[-1]), int(own[-1]): int(own[0])}
    return [ends[number]] if number in ends else []


def _place(rings: list[FloatArray], number: int) -> tuple[int, int]:
    """The ring of a vertex, and its number there."""
    ends = np.cumsum([len(ring) for ring in rings])
    place = int(np.searchsorted(ends, number, side="right"))
    return place, number - int(ends[place]) + len(rings[place])


def _built(geometry: Area, rings: list[FloatArray]) -> Area:
    """An area with the parts and holes of *geometry* from other rings."""
    parts, rest = [], iter(rings)
    for part in shapely.get_parts(geometry):
        exterior = next(rest)
        parts.append(Polygon(exterior, [next(rest) for _ in part.interiors]))
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def _repaired(geometry: Area) -> Area:
    area = clean(geometry)
    if area is None:
        raise InputError("the outline would enclose no area")
    return area


def _same_topology(one: Area, other: Area) -> bool:
    """Whether two areas have equally many parts, each with equally many holes, and are valid."""
    holes = [[len(part.interiors) for part in shapely.get_parts(area)] for area in (one, other)]
    return bool(other.is_valid) and holes[0] == holes[1]


def _check_size(value_um: float, what: str) -> None:
    if not (math.isfinite(value_um) and value_um > 0):
        raise InputError(f"{what} must be positive, not {value_um:g} µm")
