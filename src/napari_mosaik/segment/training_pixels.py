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
from napari_mosaik.core.shapes import DECIDED_BY, READER, AnnotatedShape
from napari_mosaik.segment.filters import Float32

__all__ = [
    "BLOCK_UM",
    "GUARD_UM",
    "balanced_pixels",
    "chosen_pixels",
    "class_codes",
    "class_list",
    "held_out_groups",
    "rasterise_classes",
    "sample_training_pixels",
    "split_by_blocks",
    "weighted_classes",
]

BLOCK_UM = 512.0
"""Edge of the blocks that are held out together, µm."""
GUARD_UM = 256.0
"""Least distance between what is held out and what trains: the edge of a tile of the networks, so
that no tile beside a held-out one trains, µm."""


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


def weighted_classes(
    shapes: Sequence[AnnotatedShape], lattice: Lattice, codes: Mapping[str, int]
) -> tuple[NDArray[np.uint8], Float32]:
    """Class code of each sample of a lattice, and how much it counts in a training.

    Each reader who has drawn a sample has one vote.  The class with more than half of the votes
    trains, with its fraction of them as the weight: 1 where all agree.  Without such a class (two
    readers who differ) the sample does not train.  Adjudicated shapes stand above all votes.

    Returns
    -------
    numpy.ndarray, numpy.ndarray
        (rows, columns) codes (label), 0 where nothing trains, and weights (fraction).
    """
    decided = [shape for shape in shapes if DECIDED_BY in shape.properties]
    drawn: dict[str, list[AnnotatedShape]] = {}
    for shape in shapes:
        if DECIDED_BY not in shape.properties:
            drawn.setdefault(str(shape.properties.get(READER, "")), []).append(shape)
    maps = [rasterise_classes(own, lattice, codes) for own in drawn.values()]
    found = maps[0] if maps else np.zeros(lattice.shape, np.uint8)
    weights = (found > 0).astype(np.float32)
    if len(maps) > 1:
        voters: NDArray[np.uint8] = np.sum([one > 0 for one in maps], axis=0, dtype=np.uint8)
        found = np.zeros(lattice.shape, np.uint8)
        for code in codes.values():
            votes: NDArray[np.uint8] = np.sum([one == code for one in maps], axis=0, dtype=np.uint8)
            most = votes * 2 > voters
            found[most] = code
            weights[most] = votes[most] / voters[most]
        weights[found == 0] = 0
    if decided:
        settled = rasterise_classes(decided, lattice, codes)
        found = np.where(settled > 0, settled, found)
        weights[settled > 0] = 1
    return found, weights


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


def balanced_pixels(
    codes: NDArray[np.uint8],
    cases: NDArray[np.int64],
    max_per_class: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Index, (n,), of at most *max_per_class* annotated pixels of each class, balanced by area.

    Every case has the same share of a class, however large the area is that was annotated on it;
    what a case with little area leaves over goes to the others.

    Parameters
    ----------
    codes, cases
        (n,) class code (label, 0 where nothing is annotated) and number of the case of each pixel.
    max_per_class, rng
        Maximum count of pixels of a class; random numbers for drawing them without replacement.
    """
    chosen = []
    for code in np.unique(codes[codes > 0]):
        own = np.flatnonzero(codes == code)
        names, member = np.unique(cases[own], return_inverse=True)
        counts = np.bincount(member, minlength=names.size)
        for place, share in enumerate(_even_shares(counts, max_per_class)):
            index = own[member == place]
            if index.size > share:
                index = np.sort(rng.choice(index, share, replace=False))
            chosen.append(index)
    return np.concatenate([np.zeros(0, np.int64), *chosen])


def _even_shares(counts: NDArray[np.int64], total: int) -> list[int]:
    """How many of each count are taken so that all are alike and at most *total* together."""
    shares = np.zeros(counts.size, np.int64)
    left = total
    for place, index in enumerate(np.argsort(counts, kind="stable")):
        shares[index] = min(int(counts[index]), left // (counts.size - place))
        left -= int(shares[index])
    return [int(share) for share in shares]


def split_by_blocks(
    codes: NDArray[np.uint8],
    places: NDArray[np.int64],
    spacing_um: float,
    fraction: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks, (n,) and (n,), of the pixels that train and of those that are held out.

    Whole blocks of `BLOCK_UM` are held out, about *fraction* of those of every class; pixels nearer
    than `GUARD_UM` to one of them are in neither, so no tile beside a held-out one trains.  A class
    of which nothing is left to train is not held out.

    Parameters
    ----------
    codes
        (n,) class codes (label).
    places
        (n, 3) number of the case, and row and column on its class lattice (index).
    spacing_um
        Pixel size of that lattice, µm.
    fraction, rng
        Fraction of the blocks of a class, in [0, 1); random numbers for the choice.
    """
    edge, guard = (max(1, round(length / spacing_um)) for length in (BLOCK_UM, GUARD_UM))
    block = places // [1, edge, edge]
    names, member = np.unique(block, axis=0, return_inverse=True)
    member = member.ravel()
    held = held_out_groups(codes, member, fraction, rng)
    near = held.copy()
    for case, row, col in names[np.unique(member[held])]:
        away = np.maximum(
            np.abs(places[:, 1] - (row + 0.5) * edge + 0.5),
            np.abs(places[:, 2] - (col + 0.5) * edge + 0.5),
        )
        near |= (places[:, 0] == case) & (away < edge / 2 + guard)
    train = ~near
    return train, held & np.isin(codes, np.unique(codes[train]))


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
