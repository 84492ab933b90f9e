"""Texture of nuclei: grey-level co-occurrence within each nucleus (Haralick)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.params import Params, setting

__all__ = [
    "ANGLES",
    "TEXTURE_ABOUT",
    "TEXTURE_NAMES",
    "TextureParams",
    "cooccurrence",
    "difference_entropy",
    "grey_levels",
    "texture_table",
]

_Int32 = NDArray[np.int32]
_Float = NDArray[np.float64]
_TABLE = 4096
"""Counts up to this have their logarithm in a table."""


@compiled
def bounding_boxes(labels: _Int32, n: int) -> _Int32:
    """First and last row, first and last column (index) of each label, shape (n, 4).

    *labels* are (rows, columns); last < first for an absent label.
    """
    boxes = np.empty((n, 4), np.int32)
    boxes[:, 0], boxes[:, 1] = labels.shape[0], -1
    boxes[:, 2], boxes[:, 3] = labels.shape[1], -1
    for r in range(labels.shape[0]):
        for c in range(labels.shape[1]):
            k = labels[r, c] - 1
            if k >= 0:
                boxes[k, 0] = min(boxes[k, 0], r)
                boxes[k, 1] = max(boxes[k, 1], r)
                boxes[k, 2] = min(boxes[k, 2], c)
                boxes[k, 3] = max(boxes[k, 3], c)
    return boxes


@compiled
def level_of(value: float, low: float, high: float, n_levels: int) -> int:
    """Bin of a value among *n_levels* equal bins over [low, high]; values beyond go to the ends."""
    level = int(np.floor((value - low) / (high - low) * n_levels))
    return min(max(level, 0), n_levels - 1)


@compiled
def _lay_out(
    labels: _Int32,
    density: NDArray[np.float32],
    box: _Int32,
    label: int,
    low: float,
    high: float,
    n_levels: int,
    offset: int,
    levels: _Int32,
    places: _Int32,
) -> int:
    """Grey levels of one object row by row with *offset* empty places (-1) around each row.

    Returns the number of pixels; *places* holds where they lie in *levels*.  A pair at the offset
    is then two places a fixed distance apart, and a place beyond the box is an empty one.
    """
    stride = box[3] - box[2] + 1 + offset
    levels[:] = -1
    pixels = 0
    for r in range(box[0], box[1] + 1):
        start = (r - box[0] + offset) * stride
        for c in range(box[2], box[3] + 1):
            if labels[r, c] == label and np.isfinite(density[r, c]):
                place = start + c - box[2]
                levels[place] = level_of(density[r, c], low, high, n_levels)
                places[pixels] = place
                pixels += 1
    return pixels


@compiled
def _count_pairs(
    levels: _Int32,
    places: _Int32,
    pixels: int,
    step: int,
    n_levels: int,
    pairs: _Int32,
    codes: _Int32,
) -> int:
    """Count pairs of levels *step* places apart, the lower level first; returns how many.

    The number of the pair's cell in *pairs* is kept in *codes*.
    """
    total = 0
    for k in range(pixels):
        first, second = levels[places[k]], levels[places[k] + step]
        if second >= 0:
            code = min(first, second) * n_levels + max(first, second)
            pairs[code] += 1
            codes[total] = code
            total += 1
    return total


@compiled
def _weighed(count: int, table: _Float) -> float:
    """The product count · log2 count, from the table as far as it goes."""
    return float(table[count]) if count < table.size else count * float(np.log2(count))


@compiled
def _entropy_bits(weighed: float, total: int, kinds: int) -> float:
    """Entropy in bits from Σ count · log2 count; exactly 0 where all is of one kind."""
    return float(np.log2(total)) - weighed / total if kinds > 1 else 0.0


@compiled
def _entropy_of(counts: NDArray[np.int64], total: int, table: _Float) -> float:
    """Entropy in bits of counts that add up to *total*; 0 · log 0 = 0."""
    weighed, kinds = 0.0, 0
    for count in counts:
        if count > 0:
            weighed += _weighed(count, table)
            kinds += 1
    return _entropy_bits(weighed, total, kinds)


@compiled
def _numbers_of_pairs(
    codes: _Int32,
    half: int,
    n_levels: int,
    pairs: _Int32,
    table: _Float,
    difference: NDArray[np.int64],
    sums: NDArray[np.int64],
    out: _Float,
) -> None:
    """Add the six texture numbers of one offset to *out* and leave *pairs* empty again.

    Goes over the counted pairs instead of over all cells: a nucleus holds far fewer of them.
    Pairs count both ways: in two cells of the symmetric matrix for different levels, twice in one
    for equal ones.
    """
    difference[:] = 0
    sums[:] = 0
    total, energy, weighed, kinds = 2 * half, 0.0, 0.0, 0
    for k in range(half):
        count = pairs[codes[k]]
        if count == 0:
            continue
        pairs[codes[k]] = 0
        low = codes[k] // n_levels
        high = codes[k] - low * n_levels
        difference[high - low] += 2 * count
        sums[high + low] += 2 * count
        cells, each = (1, 2 * count) if low == high else (2, count)
        kinds += cells
        energy += cells * float(each) * each
        weighed += cells * _weighed(each, table)
    contrast, homogeneity = 0.0, 0.0
    for k in range(difference.size):
        contrast += k * k * difference[k] / total
        homogeneity += difference[k] / total / (1 + k * k)
    out[0] += _entropy_of(difference, total, table)
    out[1] += contrast
    out[2] += energy / total / total
    out[3] += homogeneity
    out[4] += _entropy_bits(weighed, total, kinds)
    out[5] += _entropy_of(sums, total, table)


@compiled
def texture_of_objects(
    labels: _Int32,
    density: NDArray[np.float32],
    boxes: _Int32,
    low: float,
    high: float,
    n_levels: int,
    offset: int,
    min_pixels: int,
) -> _Float:
    """Texture of every object, shape (n, 6), bits or dimensionless; NaN for small objects.  Rows
    are independent.

    Each number is the mean over the angles 0, 45, 90 and 135 degrees that have pairs.
    """
    n = boxes.shape[0]
    out = np.full((n, 6), np.nan)
    pairs = np.zeros(n_levels * n_levels, np.int32)
    difference, sums = np.empty(n_levels, np.int64), np.empty(2 * n_levels - 1, np.int64)
    table = np.zeros(_TABLE)
    for count in range(2, _TABLE):
        table[count] = count * np.log2(count)
    for k in range(n):
        height, width = boxes[k, 1] - boxes[k, 0] + 1, boxes[k, 3] - boxes[k, 2] + 1
        if height <= 0 or width <= 0:
            continue
        stride = width + offset
        levels = np.empty((height + 2 * offset) * stride + offset, np.int32)
        places, codes = np.empty(height * width, np.int32), np.empty(height * width, np.int32)
        pixels = _lay_out(
            labels, density, boxes[k], k + 1, low, high, n_levels, offset, levels, places
        )
        if pixels < min_pixels:
            continue
        found, angles = np.zeros(6), 0
        for step in (offset, offset - offset * stride, offset * stride, offset * stride + offset):
            half = _count_pairs(levels, places, pixels, step, n_levels, pairs, codes)
            if half > 0:
                _numbers_of_pairs(codes, half, n_levels, pairs, table, difference, sums, found)
                angles += 1
        if angles > 0:
            out[k] = found / angles
    return out


ANGLES = ((0, 1), (-1, 1), (1, 0), (1, 1))
"""Offsets (row, column) of the directions 0, 45, 90 and 135 degrees at a distance of 1 px."""

TEXTURE_ABOUT = {
    "difference_entropy_bits": "entropy of the grey-level differences of neighbours (Haralick f11)",
    "contrast": "mean squared grey-level difference of neighbours (f2)",
    "angular_second_moment": "sum of the squared pair probabilities (f1)",
    "inverse_difference_moment": "mean of 1 / (1 + squared grey-level difference) (f5)",
    "entropy_bits": "entropy of the pair probabilities (f9)",
    "sum_entropy_bits": "entropy of the grey-level sums of neighbours (f8)",
}
"""Columns of `texture_table` and what they mean: haematoxylin texture, mean of 4 directions."""
TEXTURE_NAMES = tuple(TEXTURE_ABOUT)

TEXTURE_ABOUT = {
    "difference_entropy_bits": "entropy of the difference of neighbouring grey levels, bits",
    "contrast": "mean squared difference of neighbouring grey levels",
    "angular_second_moment": "sum of the squared frequencies of pairs of grey levels: homogeneity",
    "inverse_difference_moment": "mean of 1/(1 + squared difference) of neighbouring grey levels",
    "entropy_bits": "entropy of the pairs of neighbouring grey levels, bits",
    "sum_entropy_bits": "entropy of the sum of neighbouring grey levels, bits",
}
"""What the columns of `texture_table` mean; each is a mean over four directions."""


class TextureParams(Params):
    """Settings of the texture of nuclei."""

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
        30,
        "Smaller nuclei have no texture.",
        label="Minimum nucleus",
        unit="px",
        ge=2,
        advanced=True,
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
    """Grey level (index) of each density, of the same shape; values out of range go to the ends.

    *density* is a natural OD of any shape, (rows, columns) for an image.
    """
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
