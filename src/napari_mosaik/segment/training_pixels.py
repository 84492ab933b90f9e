"""Drawn shapes become class codes on a lattice, and codes become training samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.catalogue import CLASS_NAMES
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.rasterise import rasterise
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.segment.filters import Float32

__all__ = [
    "chosen_pixels",
    "class_codes",
    "class_list",
    "held_out_groups",
    "rasterise_classes",
    "sample_training_pixels",
]


def class_codes(classes: Sequence[str]) -> dict[str, int]:
    """Code of each class name: 1, 2, ... in the given order."""
    return {name: code for code, name in enumerate(classes, start=1)}


def rasterise_classes(
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
    return rasterise(shapes, lattice, known)


def class_list(shapes: Sequence[AnnotatedShape]) -> tuple[str, ...]:
    """The program's classes in the order of their codes, then the user's own by name."""
    known = tuple(name for code, name in sorted(CLASS_NAMES.items()) if code > 0)
    return (*known, *sorted({shape.label for shape in shapes} - set(known)))


def sample_training_pixels(
    features: Float32, codes: NDArray[np.uint8], max_per_class: int, rng: np.random.Generator
) -> tuple[Float32, NDArray[np.uint8]]:
    """Samples (n, f) and their codes (n,): at most so many labelled pixels of each class.

    Pixels are drawn without replacement and returned in raster order within each class.
    """
    if features.shape[:2] != codes.shape:
        raise InputError(f"features {features.shape[:2]} and codes {codes.shape} do not fit")
    index = chosen_pixels(codes, max_per_class, rng)
    return features.reshape(-1, features.shape[2])[index], codes.ravel()[index]


def chosen_pixels(
    codes: NDArray[np.uint8], max_per_class: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Flat places of at most so many labelled pixels of each class, class after class."""
    chosen = []
    for code in np.unique(codes[codes > 0]):
        where = np.flatnonzero(codes == code)
        if where.size > max_per_class:
            where = np.sort(rng.choice(where, max_per_class, replace=False))
        chosen.append(where)
    return np.concatenate([np.zeros(0, np.int64), *chosen])


def held_out_groups(
    codes: NDArray[np.uint8], groups: NDArray[Any], fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Which samples (n,) are kept from the training, so that it can be judged.

    Whole groups (shapes) are held out, about the same share of every class; of each class at least
    one group is left for training.

    Parameters
    ----------
    codes, groups
        (n,) class code and group of each sample; a group counts for its most frequent class.
    fraction
        Share of the groups of a class, in [0, 1).
    rng
        Source of the choice.
    """
    names, member = np.unique(groups, return_inverse=True)
    counts = np.zeros((names.size, int(codes.max(initial=0)) + 1), np.int64)
    np.add.at(counts, (member, codes), 1)
    main = counts.argmax(axis=1)
    held = np.zeros(names.size, bool)
    for code in np.unique(main):
        own = rng.permutation(np.flatnonzero(main == code))
        held[own[: min(own.size - 1, round(fraction * own.size))]] = True
    return np.asarray(held[member], bool)
