"""Drawn shapes become class codes on a lattice, and codes become training samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.catalogue import CLASS_NAMES
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Lattice
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.segment.filters import Float32, kernel

__all__ = ["class_codes", "rasterise", "training_pixels"]


def class_codes(classes: Sequence[str]) -> dict[str, int]:
    """Code of each class name: 1, 2, ... in the given order."""
    return {name: code for code, name in enumerate(classes, start=1)}


def rasterise(
    shapes: Sequence[AnnotatedShape],
    lattice: Lattice,
    codes: Mapping[str, int] | None = None,
) -> NDArray[np.uint8]:
    """Class code of each sample of a lattice whose centre lies in a shape; 0 where none does.

    Parameters
    ----------
    shapes
        Polygons with holes and parts, x = column and y = row in µm; later shapes win.
    lattice
        Where the samples lie, in the shapes' frame.
    codes
        Code 1 to 255 of each class name; the program's own classes if None.

    Returns
    -------
    numpy.ndarray
        (rows, columns) uint8.
    """
    known = codes or {name: code for code, name in CLASS_NAMES.items() if code > 0}
    out = np.zeros(lattice.shape, np.uint8)
    for shape in shapes:
        if shape.label not in known:
            raise InputError(
                f"the shape '{shape.key}' has the class '{shape.label}'; known classes: "
                f"{', '.join(known)}"
            )
        _scan(_edges(shape, lattice), out, known[shape.label])
    return out


def training_pixels(
    features: Float32, codes: NDArray[np.uint8], max_per_class: int, rng: np.random.Generator
) -> tuple[Float32, NDArray[np.uint8]]:
    """Samples (n, f) and their codes (n,): at most so many labelled pixels of each class.

    Pixels are drawn without replacement and returned in raster order within each class.
    """
    if features.shape[:2] != codes.shape:
        raise InputError(f"features {features.shape[:2]} and codes {codes.shape} do not fit")
    chosen = []
    for code in np.unique(codes[codes > 0]):
        where = np.flatnonzero(codes == code)
        if where.size > max_per_class:
            where = np.sort(rng.choice(where, max_per_class, replace=False))
        chosen.append(where)
    index = np.concatenate([np.zeros(0, np.int64), *chosen])
    return features.reshape(-1, features.shape[2])[index], codes.ravel()[index]


def _edges(shape: AnnotatedShape, lattice: Lattice) -> FloatArray:
    """(n, 4) edges of all rings in index units: row and column of either end."""
    parts: Any = getattr(shape.geometry, "geoms", [shape.geometry])
    edges = [np.zeros((0, 4))]
    for polygon in parts:
        for ring in (polygon.exterior, *polygon.interiors):
            points = lattice.to_index(np.asarray(ring.coords, float)[:, 1::-1])
            edges.append(np.hstack([points[:-1], points[1:]]))
    return np.ascontiguousarray(np.concatenate(edges))


@kernel
def _scan(edges: FloatArray, out: NDArray[np.uint8], code: int) -> None:
    """Even-odd filling, row by row of sample centres."""
    if edges.shape[0] == 0:
        return
    top = max(0, int(np.ceil(min(edges[:, 0].min(), edges[:, 2].min()))))
    bottom = min(out.shape[0] - 1, int(np.floor(max(edges[:, 0].max(), edges[:, 2].max()))))
    crossing = np.empty(edges.shape[0], np.float64)
    for r in range(top, bottom + 1):
        n = 0
        for k in range(edges.shape[0]):
            r0, c0, r1, c1 = edges[k, 0], edges[k, 1], edges[k, 2], edges[k, 3]
            if (r0 <= r) != (r1 <= r):
                crossing[n] = c0 + (r - r0) * (c1 - c0) / (r1 - r0)
                n += 1
        ordered = np.sort(crossing[:n])
        for k in range(0, n - 1, 2):
            first = max(0, int(np.ceil(ordered[k])))
            last = min(out.shape[1] - 1, int(np.ceil(ordered[k + 1])) - 1)
            out[r, first : last + 1] = code
