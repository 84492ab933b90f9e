"""Where two readers agree, where they differ, and the set that an adjudicator makes of both.

    shapes of each reader ─► one region per class, without overlap (the later shape lies on top)
        ─► agreed regions per class, differences: connected regions with the class of each reader
        ─► decisions ─► shapes with `decided_by`

The agreed regions and the differences share no area, and together they are the union of what both
readers have drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import Polygon, STRtree
from shapely.geometry.base import BaseGeometry

from napari_mosaik.annotate.brush import Area, clean
from napari_mosaik.core.progress import checkpoint
from napari_mosaik.core.shapes import DECIDED_BY, AnnotatedShape

__all__ = ["BOTH", "Consensus", "Difference", "adjudicated_shapes", "consensus_of"]

BOTH = "both"
"""Who has decided an area on which both readers agree; else it is the adjudicator."""


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """A connected region in which two readers differ.

    Parameters
    ----------
    geometry
        x = column and y = row, µm of the slide.
    first, second
        Class of each reader; empty where that reader has drawn nothing.
    """

    geometry: Polygon
    first: str
    second: str

    @property
    def key(self) -> str:
        """Names the region as long as neither reader changes it: classes, place, µm, and area."""
        x, y = self.geometry.point_on_surface().coords[0]
        return f"{self.first}|{self.second}|{x:.0f}|{y:.0f}|{self.geometry.area:.0f}"


@dataclass(frozen=True, slots=True, eq=False)
class Consensus:
    """What two readers have drawn, parted into agreed regions and differences, largest first."""

    agreed: Mapping[str, Area]
    differences: tuple[Difference, ...]

    def area_um2(self) -> float:
        """Area of all agreed regions, µm²."""
        return sum(area.area for area in self.agreed.values())


def consensus_of(
    first: Sequence[AnnotatedShape], second: Sequence[AnnotatedShape], within: Area | None = None
) -> Consensus:
    """Part the shapes of two readers into agreed regions and differences.

    *within* limits both to an area, x = column and y = row in µm; None takes everything.
    """
    one, other = (_class_regions(shapes, within) for shapes in (first, second))
    agreed: dict[str, Area] = {}
    found: list[Difference] = []
    for label, region in one.items():
        for beside, against in other.items():
            checkpoint()
            shared = clean(shapely.intersection(region, against))
            if shared is None:
                continue
            if label == beside:
                agreed[label] = shared
            else:
                found += [Difference(part, label, beside) for part in _parts(shared)]
    found += [Difference(part, label, "") for label, part in _alone(one, other)]
    found += [Difference(part, "", label) for label, part in _alone(other, one)]
    found.sort(key=lambda one: (-one.geometry.area, one.geometry.bounds))
    return Consensus(agreed, tuple(found))


def adjudicated_shapes(
    found: Consensus,
    readers: tuple[str, str],
    decide: Callable[[Difference], tuple[str, str] | None],
    colours: Mapping[str, str],
) -> tuple[AnnotatedShape, ...]:
    """The agreed regions and the decided ones, one shape for each connected region.

    *decide* gives the class of a difference (empty for none) and who has decided it; None where
    nobody has.  *colours* are those of the classes, "#rrggbb".
    """
    shapes = [
        _shape(part, label, (label, label), BOTH, readers, colours)
        for label, area in found.agreed.items()
        for part in _parts(area)
    ]
    for one in found.differences:
        decided = decide(one)
        if decided is not None and decided[0]:
            label, by = decided
            drawn = one.first, one.second
            shapes.append(_shape(one.geometry, label, drawn, by, readers, colours))
    return tuple(shapes)


def _shape(
    part: Polygon,
    label: str,
    drawn: tuple[str, str],
    by: str,
    readers: tuple[str, str],
    colours: Mapping[str, str],
) -> AnnotatedShape:
    place = part.point_on_surface().coords[0]
    key = f"{by} {label} {place[0]:.1f} {place[1]:.1f} {part.area:.1f}"
    readings = {reader: own or None for reader, own in zip(readers, drawn, strict=True)}
    properties = {DECIDED_BY: by, "readings": readings}
    return AnnotatedShape(key, label, part, colours.get(label, ""), properties)


def _class_regions(shapes: Iterable[AnnotatedShape], within: Area | None) -> dict[str, Area]:
    """One region per class, in the order in which classes occur; the later shape lies on top."""
    cleaned = [(one.label, clean(one.geometry)) for one in shapes if one.label]
    drawn = [(label, area) for label, area in cleaned if area is not None]
    labels = np.array([label for label, _ in drawn])
    areas = np.array([area for _, area in drawn], object)
    under, over = STRtree(areas).query(areas, predicate="intersects")
    covered = (over > under) & (labels[over] != labels[under])
    rest = areas.copy()
    for i, above in _grouped(under[covered], over[covered]):
        checkpoint()
        rest[i] = shapely.difference(areas[i], shapely.union_all(areas[above]))
    regions: dict[str, Area] = {}
    for label in dict.fromkeys(labels.tolist()):
        joined: BaseGeometry = shapely.union_all(rest[labels == label])
        area = clean(joined if within is None else shapely.intersection(joined, within))
        if area is not None:
            regions[label] = area
    return regions


def _alone(own: Mapping[str, Area], other: Mapping[str, Area]) -> Iterator[tuple[str, Polygon]]:
    """The parts of a reader's regions in which the other has drawn nothing, with their class."""
    against = shapely.union_all(list(other.values()))
    for label, region in own.items():
        checkpoint()
        for part in _parts(clean(shapely.difference(region, against))):
            yield label, part


def _grouped(
    owners: NDArray[np.int64], members: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each owner with its members, both given as pairs (n,)."""
    order = np.argsort(owners, kind="stable")
    names, starts = np.unique(owners[order], return_index=True)
    if not names.size:  # of nothing, `np.split` makes one part
        return
    yield from zip(names.tolist(), np.split(members[order], starts[1:]), strict=True)


def _parts(area: Area | None) -> list[Polygon]:
    return [] if area is None else [part for part in shapely.get_parts(area) if part.area > 0]
