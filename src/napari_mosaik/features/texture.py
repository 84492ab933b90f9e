"""Texture of nuclei: how grey levels follow one another within a nucleus (Haralick)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.params import Params, setting

__all__ = [
    "ANGLES",
    "TEXTURE_NAMES",
    "TextureParams",
    "cooccurrence",
    "difference_entropy",
    "grey_levels",
    "texture_table",
]

ANGLES = ((0, 1), (-1, 1), (1, 0), (1, 1))
"""Offsets (row, column) of the directions 0, 45, 90 and 135 degrees at a distance of 1 px."""

TEXTURE_NAMES = (
    "difference_entropy_bits",
    "contrast",
    "angular_second_moment",
    "inverse_difference_moment",
    "entropy_bits",
    "sum_entropy_bits",
)
"""Columns of `texture_table`."""


class TextureParams(Params):
    """How the texture of nuclei is measured."""

    n_levels: int = setting(
        32, "Number of grey levels.", label="Grey levels", ge=2, le=256, advanced=True
    )
    low_od: float = setting(
        0.0,
        "Lower end of the fixed range of haematoxylin density; below it all is level 0.",
        label="Range from",
        unit="OD",
        advanced=True,
    )
    high_od: float = setting(
        2.0,
        "Upper end of the fixed range of haematoxylin density; the same for every slide.",
        label="Range to",
        unit="OD",
        advanced=True,
    )
    offset_px: int = setting(
        1, "Distance of the two pixels of a pair.", label="Distance", unit="px", ge=1, advanced=True
    )
    min_pixels: int = setting(
        30, "Smaller nuclei have no texture.", label="Least nucleus", unit="px", ge=2, advanced=True
    )


def cooccurrence(
    levels: ArrayLike, mask: ArrayLike | None, n_levels: int, offset: tuple[int, int]
) -> NDArray[np.int64]:
    """Symmetric counts (n_levels, n_levels) of the pairs of levels at an offset.

    Parameters
    ----------
    levels
        (rows, columns) whole numbers, 0 to ``n_levels - 1`` inside the mask.
    mask
        (rows, columns) booleans; both pixels of a pair must be inside.  Everything if None.
    n_levels
        Number of grey levels.
    offset
        Row and column step from the first to the second pixel of a pair.

    Raises
    ------
    InputError
        If shapes differ, a level is out of range, or the offset is zero.
    """
    grey = np.asarray(levels)
    inside = np.ones(grey.shape, bool) if mask is None else np.asarray(mask, bool)
    if grey.ndim != 2 or inside.shape != grey.shape:
        raise InputError(f"levels of shape {grey.shape} and a mask of shape {inside.shape}")
    if not np.issubdtype(grey.dtype, np.integer):
        raise InputError(f"grey levels must be whole numbers, not {grey.dtype}")
    used = grey[inside]
    if used.size and (used.min() < 0 or used.max() >= n_levels):
        raise InputError(
            f"grey levels run from {used.min()} to {used.max()}, allowed are 0 to {n_levels - 1}"
        )
    dr, dc = int(offset[0]), int(offset[1])
    if dr == 0 and dc == 0:
        raise InputError("the offset of a pair must not be (0, 0)")
    first, second = _shifted(grey.shape, dr, dc)
    both = inside[first] & inside[second]
    counts = np.zeros((n_levels, n_levels), np.int64)
    np.add.at(counts, (grey[first][both], grey[second][both]), 1)
    return counts + counts.T


def _shifted(shape: tuple[int, ...], dr: int, dc: int) -> tuple[tuple[slice, ...], ...]:
    """Windows of the first and of the second pixel of all pairs."""
    rows, cols = max(shape[0] - abs(dr), 0), max(shape[1] - abs(dc), 0)
    r0, c0 = max(0, -dr), max(0, -dc)
    first = (slice(r0, r0 + rows), slice(c0, c0 + cols))
    second = (slice(r0 + dr, r0 + dr + rows), slice(c0 + dc, c0 + dc + cols))
    return first, second


def difference_entropy(
    levels: ArrayLike,
    mask: ArrayLike | None = None,
    n_levels: int = 32,
    offset: tuple[int, int] = (0, 1),
) -> float:
    """Entropy of the absolute difference of grey levels of neighbouring pixels, bits.

    ``-Σ p_d(k) log2 p_d(k)``, ``p_d(k)`` the share of pairs whose levels differ by k in absolute
    value (Haralick's f11).

    Parameters
    ----------
    levels
        (rows, columns) whole numbers, 0 to ``n_levels - 1`` inside the mask.
    mask
        (rows, columns) booleans; only pairs with both pixels inside count.  Everything if None.
    n_levels
        Number of grey levels.
    offset
        Row and column step from the first to the second pixel of a pair.

    Returns
    -------
    Bits in [0, log2 n_levels]; NaN when no pair lies inside.

    Raises
    ------
    InputError
        If shapes differ, a level is out of range, or the offset is zero.

    References
    ----------
    Haralick et al. 1973, IEEE Trans SMC.
    """
    counts = cooccurrence(levels, mask, n_levels, offset)
    total = counts.sum()
    if total == 0:
        return float("nan")
    apart = np.abs(np.subtract.outer(np.arange(n_levels), np.arange(n_levels)))
    shares = np.bincount(apart.ravel(), counts.ravel(), n_levels) / total
    shares = shares[shares > 0]
    return float(abs(-(shares * np.log2(shares)).sum()))


def grey_levels(density: ArrayLike, params: TextureParams | None = None) -> NDArray[np.int64]:
    """Fixed bins of a density over the stated range; values beyond it go to the end bins."""
    p = params or TextureParams()
    scaled = (np.asarray(density, float) - p.low_od) / (p.high_od - p.low_od) * p.n_levels
    return np.clip(np.floor(scaled), 0, p.n_levels - 1).astype(np.int64)


def texture_table(
    labels: NDArray[np.integer],
    density: NDArray[np.floating],
    n_labels: int | None = None,
    params: TextureParams | None = None,
) -> dict[str, FloatArray]:
    """Texture of every nucleus, masked to the nucleus.

    Each number is the mean of its values at 0, 45, 90 and 135 degrees (angles without pairs left
    out); pairs are counted both ways; grey levels are fixed bins, the same for every nucleus.

    Parameters
    ----------
    labels
        (rows, columns) labels; 0 is background.
    density
        (rows, columns) haematoxylin density, natural OD; NaN pixels count as outside.
    n_labels
        Number of nuclei; the largest label if None.
    params
        Levels, range, distance of pairs, least nucleus.

    Returns
    -------
    Name to (n_labels,) values for `TEXTURE_NAMES`; NaN for nuclei with fewer than ``min_pixels``
    pixels or without any pair.

    Raises
    ------
    InputError
        If shapes differ, a label is out of range, or the range of densities is empty.

    References
    ----------
    Haralick et al. 1973, IEEE Trans SMC: f11, f2, f1, f5, f9, f8.
    """
    from napari_mosaik.features.cooccurrence import bounding_boxes, texture_of_objects

    p = params or TextureParams()
    if labels.shape != density.shape:
        raise InputError(f"labels of shape {labels.shape}, density of shape {density.shape}")
    if not p.low_od < p.high_od:
        raise InputError(f"the range of densities is empty: {p.low_od:g} to {p.high_od:g}")
    image = np.ascontiguousarray(labels, np.int32)
    least, largest = (int(image.min()), int(image.max())) if image.size else (0, 0)
    n = largest if n_labels is None else n_labels
    if least < 0 or largest > n:
        raise InputError(f"labels from {least} to {largest} do not fit {n} nuclei")
    values = texture_of_objects(
        image,
        np.ascontiguousarray(density, np.float32),
        bounding_boxes(image, n),
        float(p.low_od),
        float(p.high_od),
        p.n_levels,
        p.offset_px,
        p.min_pixels,
    )
    return {name: values[:, i].copy() for i, name in enumerate(TEXTURE_NAMES)}
