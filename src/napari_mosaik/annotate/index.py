"""Spatial index of shapes that follows edits without being rebuilt each time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import shapely
from shapely import STRtree

from napari_mosaik.annotate.brush import Area

__all__ = ["ShapeIndex"]

_REBUILD_AT = 256
"""Number of edits after which the tree is rebuilt."""


class ShapeIndex:
    """A tree of the shapes at the last rebuild, and a list of those that changed since."""

    def __init__(self, geometries: Mapping[str, Area]) -> None:
        self._recent: dict[str, Area] = {}
        self._gone: set[str] = set()
        self._rebuild(geometries)

    def _rebuild(self, geometries: Mapping[str, Area]) -> None:
        self._keys = list(geometries)
        self._base = dict(geometries)
        self._tree = STRtree(list(geometries.values()))
        self._recent.clear()
        self._gone.clear()

    def update(self, changes: Mapping[str, Area | None]) -> None:
        """Apply changed geometries; None for a removed shape."""
        for key, geometry in changes.items():
            self._recent.pop(key, None)
            if key in self._base:
                self._gone.add(key)
            if geometry is not None:
                self._recent[key] = geometry
        if len(self._recent) + len(self._gone) > _REBUILD_AT:
            unchanged = {k: g for k, g in self._base.items() if k not in self._gone}
            self._rebuild({**unchanged, **self._recent})

    def touching(self, region: Area) -> list[str]:
        """Keys of the shapes that touch *region*, unordered."""
        hits = [self._keys[i] for i in self._tree.query(region, predicate="intersects")]
        keys = [key for key in hits if key not in self._gone]
        if self._recent:
            hit = np.asarray(shapely.intersects(list(self._recent.values()), region))
            keys += [key for key, touches in zip(self._recent, hit, strict=True) if touches]
        return keys

    def within_bounds(self, box_um: tuple[float, float, float, float]) -> list[str]:
        """Keys of the shapes whose bounding box meets (top, left, bottom, right), µm."""
        top, left, bottom, right = box_um
        box = shapely.box(left, top, right, bottom)
        keys = [self._keys[i] for i in self._tree.query(box)]
        keys = [key for key in keys if key not in self._gone]
        if self._recent:
            x0, y0, x1, y1 = shapely.bounds(list(self._recent.values())).T
            hit = (x0 <= right) & (x1 >= left) & (y0 <= bottom) & (y1 >= top)
            keys += [key for key, meets in zip(self._recent, hit, strict=True) if meets]
        return keys
