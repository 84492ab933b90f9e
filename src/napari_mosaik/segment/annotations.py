"""Drawn shapes become class codes on a lattice, and codes become training samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import painting
from napari_mosaik.core.catalogue import CLASS_NAMES
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.segment.filters import Float32

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
    for shape in shapes:
        if shape.label not in known:
            raise InputError(
                f"the shape '{shape.key}' has the class '{shape.label}'; known classes: "
                f"{', '.join(known)}"
            )
    return painting.rasterise(shapes, lattice, known)


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
