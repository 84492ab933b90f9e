"""Annotations become class codes on a lattice, and codes become training samples."""

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
    """Class code of each sample of a lattice whose centre lies in an annotation; 0 elsewhere.

    Parameters
    ----------
    shapes
        Polygons with holes and parts, x = column and y = row in µm; later shapes win.
    lattice
        Where the samples lie, in the shapes' frame.
    codes
        Code 1 to 255 of each class name; the built-in classes if None.

    Returns
    -------
    numpy.ndarray
        (rows, columns) uint8 codes (label).
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
    """The built-in classes in the order of their codes, then the user's own by name."""
    known = tuple(name for code, name in sorted(CLASS_NAMES.items()) if code > 0)
    return (*known, *sorted({shape.label for shape in shapes} - set(known)))


def sample_training_pixels(
    features: Float32, codes: NDArray[np.uint8], max_per_class: int, rng: np.random.Generator
) -> tuple[Float32, NDArray[np.uint8]]:
    """Training samples: at most *max_per_class* annotated pixels of each class.

    Parameters
    ----------
    features
        (rows, columns, f) features of all pixels (dimensionless).
    codes
        (rows, columns) class codes (label); 0 where nothing is annotated.
    max_per_class, rng
        Maximum count of samples of a class; random numbers for drawing them without replacement.

    Returns
    -------
    numpy.ndarray, numpy.ndarray
        (n, f) features and (n,) codes, in raster order within each class.
    """
    if features.shape[:2] != codes.shape:
        raise InputError(f"features {features.shape[:2]} and codes {codes.shape} differ in shape")
    index = chosen_pixels(codes, max_per_class, rng)
    return features.reshape(-1, features.shape[2])[index], codes.ravel()[index]


def chosen_pixels(
    codes: NDArray[np.uint8], max_per_class: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Flat index, (n,), of at most *max_per_class* annotated pixels of each class.

    *codes* are class codes (label) of any shape; 0 where nothing is annotated.
    """
    chosen = []
    for code in np.unique(codes[codes > 0]):
        index = np.flatnonzero(codes == code)
        if index.size > max_per_class:
            index = np.sort(rng.choice(index, max_per_class, replace=False))
        chosen.append(index)
    return np.concatenate([np.zeros(0, np.int64), *chosen])


def held_out_groups(
    codes: NDArray[np.uint8], groups: NDArray[Any], fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Mask (n,) of the samples that are held out from training, for validation.

    Whole groups (annotations) are held out, about the same fraction of every class; of each class
    at least one group remains for training.

    Parameters
    ----------
    codes, groups
        (n,) class code (label) and group of each sample; a group counts for its most frequent
        class.
    fraction
        Fraction of the groups of a class, in [0, 1).
    rng
        Random numbers for the choice.
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
