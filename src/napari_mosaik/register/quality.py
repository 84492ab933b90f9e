"""Quality of an alignment: registration error of landmarks and overlap of outlines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
import scipy  # its parts are loaded on first use
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.errors import FrameMismatch, InputError
from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.affine_fit import InverseTransform

__all__ = [
    "dice",
    "landmark_errors_um",
    "landmark_quality",
    "mask_dice",
    "mask_size_um",
    "position_score",
    "registration_error",
]

_MEDIAN_PER_SD: Final = math.sqrt(2 * math.log(2))
"""Median length of a shift over its SD along one axis, for two independent normal axes."""


def position_score(error_um: float) -> float:
    """0 to 1: whether a registration error (µm) allows conclusions about tiles of 400 µm.

    1 up to 75 µm, 0.4 (the threshold of low confidence) at 150 µm, 0 from 200 µm and for NaN.
    """
    if math.isnan(error_um):
        return 0.0
    return min(max(1 - 0.6 * (error_um - 75) / 75, 0.0), 1.0)


def registration_error(
    document: Mapping[str, Any], voxel_um: float, which: Literal["own", "voxel"]
) -> dict[str, Any]:
    """``sd_um`` of a registration along each axis, µm, and where it is ``from``.

    Its own error where it states one and *which* asks for it; else a position anywhere within one
    voxel (µm) to each side.
    """
    landmarks = document.get("landmark_error_um") or {}
    stated = (
        (landmarks.get("median"), _MEDIAN_PER_SD, "landmarks"),
        (document.get("local_error_um"), _MEDIAN_PER_SD, "image content"),
        (document.get("position_error_um"), math.sqrt(2), "its estimated error"),
    )
    for value, per_sd, words in stated if which == "own" else ():
        if value:
            return {"sd_um": float(value) / per_sd, "from": words}
    return {"sd_um": voxel_um / math.sqrt(3), "from": "one PET voxel to each side"}


def landmark_errors_um(
    moving_um: ArrayLike, fixed_um: ArrayLike, transform: Transform
) -> FloatArray:
    """Target registration error: distance (n,) of each moved landmark from its partner, µm.

    *moving_um* and *fixed_um* are (n, 2) corresponding positions; other shapes raise `InputError`.
    """
    moving, fixed = np.asarray(moving_um, float), np.asarray(fixed_um, float)
    if moving.shape != fixed.shape or moving.ndim != 2 or moving.shape[1] != 2:
        raise InputError(
            f"landmarks do not correspond: shapes {moving.shape} and {fixed.shape}; both must be "
            "(n, 2)"
        )
    return np.asarray(np.linalg.norm(transform.apply(moving) - fixed, axis=1), np.float64)


def landmark_quality(
    moving_um: ArrayLike,
    fixed_um: ArrayLike,
    transform: Transform,
    fixed_lattice: Lattice,
    start: Transform | None = None,
) -> dict[str, Any]:
    """Target registration error (TRE) of landmarks, before and after.

    Parameters
    ----------
    moving_um, fixed_um
        (n, 2) corresponding positions, µm.
    transform
        The alignment.
    fixed_lattice
        The fixed image; the relative error (rTRE) is the TRE over its diagonal.
    start
        The unaligned state: the identity if None.

    Returns
    -------
    ``n``; ``tre_um`` and ``rtre``, each with median, mean, max; ``before_um`` likewise;
    ``robustness``: the fraction of landmarks that came closer; ``worst``: the index of the landmark
    with the largest error; ``suspects``: indices whose error exceeds four times the median (a
    swapped or misplaced point).  NaN where there is no landmark.

    References
    ----------
    Borovec et al. 2020, IEEE Trans Med Imaging (ANHIR).
    """
    before_map = start or Transform.identity(transform.source, transform.target)
    after = landmark_errors_um(moving_um, fixed_um, transform)
    before = landmark_errors_um(moving_um, fixed_um, before_map)
    diagonal = math.hypot(*fixed_lattice.extent_um)
    few = after.size == 0
    limit = np.inf if few else 4 * max(float(np.median(after)), 1e-9)
    return {
        "n": int(after.size),
        "tre_um": _summary(after),
        "rtre": _summary(after / diagonal),
        "before_um": _summary(before),
        "robustness": float("nan") if few else float((after < before).mean()),
        "worst": None if few else int(after.argmax()),
        "suspects": [int(i) for i in np.flatnonzero(after > limit)] if after.size >= 5 else [],
    }


def mask_size_um(mask: Raster) -> float:
    """Longer side of the bounding box of a mask (rows, columns), µm; 0 for an empty mask."""
    inside = np.asarray(mask.values, bool)
    indices = [np.flatnonzero(inside.any(axis=1 - axis)) for axis in (0, 1)]
    if not indices[0].size:
        return 0.0
    lengths = [np.ptp(index) + 1 for index in indices]
    return float(max(n * s for n, s in zip(lengths, mask.lattice.spacing_um, strict=True)))


def _summary(values: FloatArray) -> dict[str, float]:
    if values.size == 0:
        return {"median": math.nan, "mean": math.nan, "max": math.nan}
    return {
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "max": float(values.max()),
    }


def mask_dice(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Dice overlap, a fraction, of two masks of the same shape; NaN if both are empty.

    ``2 |A∩B| / (|A| + |B|)``
    """
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else float("nan")


def dice(moving: Raster, fixed: Raster, transform: Transform, *, pixels: int = 1024) -> float:
    """Dice overlap of a transformed mask with a fixed one; areas are those of the fixed section.

    Parameters
    ----------
    moving, fixed
        Masks (rows, columns).
    transform
        From the moving to the fixed section.
    pixels
        Samples along the longer side of the area that both cover.

    Returns
    -------
    A fraction, 0 to 1; NaN if both masks are empty.
    """
    corners = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    ours = corners * fixed.lattice.extent_um + fixed.lattice.origin_um
    theirs = transform.apply(corners * moving.lattice.extent_um + moving.lattice.origin_um)
    low = np.minimum(ours.min(axis=0), theirs.min(axis=0))
    high = np.maximum(ours.max(axis=0), theirs.max(axis=0))
    step = float((high - low).max()) / pixels
    shape = (math.ceil((high[0] - low[0]) / step), math.ceil((high[1] - low[1]) / step))
    lattice = Lattice(fixed.lattice.frame, shape, (step, step), (float(low[0]), float(low[1])))
    on_fixed = _nearest_on(lattice, fixed, Transform.identity(fixed.lattice.frame, lattice.frame))
    return mask_dice(_nearest_on(lattice, moving, transform), on_fixed)


def _nearest_on(lattice: Lattice, mask: Raster, transform: Transform) -> NDArray[np.bool_]:
    """As `Raster.onto` of a mask (rows, columns), False outside; without a position per sample."""
    if transform.source != mask.lattice.frame or transform.target != lattice.frame:
        raise FrameMismatch(
            f"a mask of '{mask.lattice.frame}' cannot be placed on '{lattice.frame}' by a "
            f"transform from '{transform.source}' to '{transform.target}'"
        )
    back = transform.inverse()
    values = np.asarray(mask.values, np.uint8)
    if back.matrix[0, 1] == 0 == back.matrix[1, 0]:  # each axis by itself, to the last bit
        rows, cols = (_nearest(lattice, mask.lattice, back, axis) for axis in (0, 1))
        return np.asarray(np.pad(values, 1)[np.ix_(rows, cols)] > 0)
    inverse = InverseTransform(back.matrix[:2, :2], back.matrix[:2, 2], np.zeros(2), 1.0)
    matrix, offset = inverse.between(lattice, mask.lattice)
    found = scipy.ndimage.affine_transform(
        values, matrix, offset, lattice.shape, order=0, mode="grid-constant"
    )
    return np.asarray(found > 0)


def _nearest(lattice: Lattice, source: Lattice, back: Transform, axis: int) -> NDArray[np.int64]:
    """Along one axis, the nearest sample of the source, counted from 1.

    0 and one more than there are lie before and behind it.
    """
    position = (np.arange(lattice.shape[axis]) + 0.5) * lattice.spacing_um[axis]
    position += lattice.origin_um[axis]
    position = position * back.matrix[axis, axis] + back.matrix[axis, 2]
    index = (position - source.origin_um[axis]) / source.spacing_um[axis] - 0.5
    inside = np.clip(np.floor(index + 0.5), -1, source.shape[axis])
    return np.asarray(inside + 1, np.int64)
