"""Patch matching: where each small patch of one section fits best on the other.

It assesses an alignment by image content: each textured patch inside the tissue looks for its best
match within a window.  Where the alignment is correct, most matches lie where it puts them; where
it is wrong, they are scattered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # its parts are loaded on first use
from numpy.typing import NDArray

from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.affine_fit import Smoother, smoothed_image
from napari_mosaik.register.landmarks import fit_landmarks
from napari_mosaik.register.params import AlignKind
from napari_mosaik.register.quality import mask_size_um

__all__ = ["InlierStatistics", "Matches", "fit_matches", "inlier_statistics", "match_patches"]

_SIGMA = 0.6
"""Standard deviation of the smoothing, working pixels."""
_RADIUS = 10
"""Half the side of a patch, working pixels."""
_WORKING_PX = 256
"""Working pixels along the tissue."""
_TOLERANCE = 0.025
_MAX_TOLERANCE_UM = 150.0
"""A match is an inlier within this fraction of the tissue's longer side and within half a PET
tile."""
_MIN_STD = 0.01
"""A patch with a smaller standard deviation of the density (OD) has no texture."""
_MAX_PATCHES = 400
_AT_ONCE = 8
"""Patches whose spectra fit into the cache of a core: all at once take a seventh longer."""
_MIN_PATCHES = 8


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Patches of the fixed section with their best matches on the moving one.

    ``fixed_um`` and ``moving_um`` are (n, 2) centres in their own coordinate spaces, ``shift_um``
    is the (n, 2) distance of each match from where the transform puts it (fixed space), ``score``
    its correlation (n,), ``tissue_fraction`` the fraction (n,) of each patch that is tissue.
    """

    fixed_um: FloatArray
    moving_um: FloatArray
    shift_um: FloatArray
    score: FloatArray
    tissue_fraction: FloatArray


@dataclass(frozen=True, slots=True)
class InlierStatistics:
    """How well the image content of two sections agrees with a transform.

    ``n`` textured patches were compared; ``fraction`` of them have their best match within
    ``tolerance_um`` (here and below each patch is weighted by the square of its correlation);
    ``median_um`` and ``p90_um`` are distances of the matches from where the transform puts them;
    ``closeness``, 0 to 1, also rewards inliers that lie nearer.  NaN where there is no patch.
    """

    n: int
    fraction: float
    median_um: float
    p90_um: float
    tolerance_um: float
    closeness: float

    @property
    def is_enough(self) -> bool:
        """Whether there is enough image content to assess the alignment."""
        return self.n >= _MIN_PATCHES


def working_step_um(tissue: Raster, density: Raster | Smoother, pixels: int = _WORKING_PX) -> float:
    """Side of a working pixel, µm: the tissue's size over *pixels*, no finer than the density.

    *tissue* is a mask (rows, columns), *density* an image (rows, columns).
    """
    return max(mask_size_um(tissue) / pixels, *density.lattice.spacing_um)


def match_patches(
    moving: Raster | Smoother,
    fixed: Raster | Smoother,
    tissue: Raster,
    transform: Transform,
    *,
    step_um: float,
    reach: int,
    radius: int = _RADIUS,
    max_patches: int = _MAX_PATCHES,
    outline: bool = True,
) -> Matches:
    """The best match of each textured patch of the fixed tissue.

    Parameters
    ----------
    moving, fixed
        Haematoxylin densities (rows, columns) of the two sections, OD.
    tissue
        Mask (rows, columns) of the fixed section.
    transform
        Present transform from the moving to the fixed section.
    step_um
        Side of a working pixel, µm of the fixed section.
    reach
        Matches are searched this many working pixels to each side.
    radius
        Half the side of a patch, working pixels.
    max_patches
        Approximate maximum number of patches.
    outline
        Whether the edge of the tissue counts as texture.

    Returns
    -------
    Matches
        Those of greatest normalised cross-correlation, with subpixel peaks (parabola).  Patches
        without texture, or that the moving image does not cover, are excluded.
    """
    where = step_um, radius, reach, max_patches, outline
    if isinstance(fixed, Smoother):
        own = fixed.kept(
            ("patches", id(tissue), *where), lambda: _Patches.of(fixed, tissue, *where)
        )
    else:
        own = _Patches.of(fixed, tissue, *where)
    lattice, back = own.lattice, transform.inverse()
    moving_points = back.apply(lattice.centres_um().reshape(-1, 2))
    warped = smoothed_image(moving, _SIGMA * step_um / transform.scale).at(moving_points)
    windows = _squares(warped.reshape(lattice.shape), own.centres, radius + reach)
    in_moving = _covers(moving.lattice, moving_points).reshape(lattice.shape)
    covered = _squares(in_moving, own.centres, radius + reach)
    usable = (own.spread > _MIN_STD) & (covered.mean(axis=(1, 2)) > 0.9)
    centres, fraction = own.centres[usable], own.tissue_fraction[usable]
    shift, score = _best_matches(own.values[usable], windows[usable])
    fixed_um = lattice.to_um(centres) if len(centres) else np.zeros((0, 2))
    moving_um = back.apply(fixed_um + shift * step_um)
    return Matches(fixed_um, moving_um, shift * step_um, score, np.asarray(fraction, np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class _Patches:
    """Patches of the fixed section, which no transform changes.

    ``centres`` (n, 2) are indices on the ``lattice`` of working pixels, ``values`` (n, s, s) those
    of the density and ``spread`` (n,) their standard deviation, OD; ``tissue_fraction`` is (n,).
    ``tissue`` is the mask that they were found on.
    """

    lattice: Lattice
    centres: NDArray[np.int64]
    values: NDArray[Any]
    spread: FloatArray
    tissue_fraction: FloatArray
    tissue: Raster

    @classmethod
    def of(
        cls,
        fixed: Raster | Smoother,
        tissue: Raster,
        step_um: float,
        radius: int,
        reach: int,
        max_patches: int,
        outline: bool,
    ) -> _Patches:
        lattice = _working_lattice(tissue, step_um, radius + reach)
        points = lattice.centres_um().reshape(-1, 2)
        reference = smoothed_image(fixed, _SIGMA * step_um).at(points).reshape(lattice.shape)
        in_fixed = _covers(fixed.lattice, points).reshape(lattice.shape)
        mask = tissue.at(points, outside=0.0).reshape(lattice.shape)
        centres = _patch_centres(mask, in_fixed, radius, radius + reach, max_patches)
        values, spread, fraction = _squares(reference, centres, radius), np.zeros(0), np.zeros(0)
        if not outline:
            inside = scipy.ndimage.binary_erosion(mask > 0.5, iterations=3)
            values = _without_edge(values, _squares(inside, centres, radius))
        if len(centres):
            spread = values.std(axis=(1, 2))
            fraction = _squares(mask, centres, radius).mean(axis=(1, 2))
        return cls(lattice, centres, values, spread, fraction, tissue)


def fit_matches(
    matches: Matches, start: Transform, kind: AlignKind, *, max_rounds: int = 15
) -> Transform:
    """The least-squares transform through the matches, with outliers excluded round by round.

    Returns *start* where there are too few matches.

    References
    ----------
    Ourselin et al. 2001, Image and Vision Computing 19: 25-31 (block matching).
    """
    reliable = matches.score > 0.3
    inliers = reliable.copy()
    transform = start
    for _ in range(max_rounds):
        if np.count_nonzero(inliers) < _MIN_PATCHES:
            return start
        transform = fit_landmarks(
            matches.moving_um[inliers],
            matches.fixed_um[inliers],
            kind,
            start.source,
            start.target,
            mirror=start.mirrored,
        )
        errors = np.linalg.norm(transform.apply(matches.moving_um) - matches.fixed_um, axis=1)
        previous = inliers
        inliers = reliable & (errors <= 1.5 * float(np.median(errors[reliable])))
        if (inliers == previous).all():
            break
    return transform


def inlier_statistics(
    moving: Raster | Smoother,
    fixed: Raster | Smoother,
    tissue: Raster,
    transform: Transform,
    *,
    pixels: int = _WORKING_PX,
    max_patches: int = _MAX_PATCHES,
) -> InlierStatistics:
    """The fraction of textured patches whose best match lies where the transform puts it.

    Each patch searches four tolerances far, so that patches without a true match are inliers by
    chance in one of twenty.

    Parameters
    ----------
    moving, fixed
        Haematoxylin densities (rows, columns) of the two sections, OD.
    tissue
        Mask (rows, columns) of the fixed section.
    transform
        From the moving to the fixed section.
    pixels
        Working pixels along the tissue.
    max_patches
        Approximate maximum number of patches.
    """
    size = mask_size_um(tissue)
    tolerance = min(_TOLERANCE * size, _MAX_TOLERANCE_UM)
    step = min(working_step_um(tissue, fixed, pixels), max(tolerance / 2, 1e-9))
    reach = max(4, math.ceil(4 * tolerance / step))
    matches = match_patches(
        moving,
        fixed,
        tissue,
        transform,
        step_um=step,
        reach=reach,
        max_patches=max_patches,
        outline=False,
    )
    inner = matches.tissue_fraction > 0.8
    distance = np.linalg.norm(matches.shift_um[inner], axis=1)
    weight = np.clip(matches.score[inner], 0.0, None) ** 2
    if not weight.sum() > 0:
        return InlierStatistics(0, math.nan, math.nan, math.nan, tolerance, 0.0)
    return InlierStatistics(
        int(distance.size),
        float(weight @ (distance <= tolerance) / weight.sum()),
        _weighted_quantile(distance, weight, 0.5),
        _weighted_quantile(distance, weight, 0.9),
        tolerance,
        float((1 / (1 + (5 * distance / tolerance) ** 2)).mean()),
    )


def _weighted_quantile(values: FloatArray, weight: FloatArray, fraction: float) -> float:
    """The smallest value below which that fraction of the weight lies."""
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(total, fraction * total[-1])])


def _without_edge(patches: NDArray[Any], tissue: NDArray[np.bool_]) -> NDArray[Any]:
    """Patches whose values off the tissue are replaced by the mean of those on it."""
    total = np.maximum(tissue.sum(axis=(1, 2), keepdims=True), 1)
    mean = (patches * tissue).sum(axis=(1, 2), keepdims=True) / total
    return np.asarray(np.where(tissue, patches, mean))


def _working_lattice(tissue: Raster, step_um: float, margin: int) -> Lattice:
    """Working pixels over the tissue's bounding box, with a margin for the search."""
    mask = np.asarray(tissue.values, bool)
    low, high = [], []
    for axis in (0, 1):
        rows = np.flatnonzero(mask.any(axis=1 - axis))
        first, last = (rows[0], rows[-1] + 1) if rows.size else (0, 1)
        spacing, origin = tissue.lattice.spacing_um[axis], tissue.lattice.origin_um[axis]
        low.append(origin + first * spacing - margin * step_um)
        high.append(origin + last * spacing + margin * step_um)
    shape = [max(1, math.ceil((h - lo) / step_um)) for lo, h in zip(low, high, strict=True)]
    return Lattice(tissue.lattice.frame, (shape[0], shape[1]), (step_um, step_um), (low[0], low[1]))


def _covers(lattice: Lattice, points_um: FloatArray) -> NDArray[np.bool_]:
    index = lattice.to_index(points_um)
    inside = (index >= -0.5) & (index <= np.array(lattice.shape) - 0.5)
    return np.asarray(inside.all(axis=-1))


def _patch_centres(
    mask: FloatArray, covered: NDArray[np.bool_], radius: int, margin: int, max_patches: int
) -> NDArray[np.int64]:
    """Centres (n, 2) of patches on the tissue, overlapping by half, at most about *max_patches*."""
    rows, cols = mask.shape
    stride = max(radius, math.ceil(math.sqrt(mask.sum() / max_patches)))
    grid = np.mgrid[margin : rows - margin : stride, margin : cols - margin : stride]
    centres: NDArray[np.int64] = grid.reshape(2, -1).T.astype(np.int64)
    if not len(centres):
        return centres
    fraction = _squares(mask, centres, radius).mean(axis=(1, 2))
    complete = _squares(covered, centres, radius).all(axis=(1, 2))
    return np.asarray(centres[(fraction > 0.4) & complete])


def _squares(image: NDArray[Any], centres: NDArray[np.int64], radius: int) -> NDArray[Any]:
    """Squares (n, 2 r + 1, 2 r + 1) of an image around some centres."""
    side = 2 * radius + 1
    if not len(centres):
        return np.zeros((0, side, side), image.dtype)
    views = np.lib.stride_tricks.sliding_window_view(image, (side, side))
    return np.ascontiguousarray(views[centres[:, 0] - radius, centres[:, 1] - radius])


def _best_matches(patches: NDArray[Any], windows: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
    """Shift (n, 2) in working pixels and correlation (n,) of the best match of each patch."""
    if not len(patches):
        return np.zeros((0, 2)), np.zeros(0)
    parts = range(0, len(patches), _AT_ONCE)
    few = [slice(start, start + _AT_ONCE) for start in parts]
    ncc = np.concatenate([_correlations(patches[here], windows[here]) for here in few])
    n, rows, cols = ncc.shape
    best = ncc.reshape(n, -1).argmax(axis=1)
    row, col = np.divmod(best, cols)
    score = ncc.reshape(n, -1)[np.arange(n), best]
    shift = np.stack([row - rows // 2, col - cols // 2], axis=1).astype(np.float64)
    padded = np.pad(ncc, ((0, 0), (1, 1), (1, 1)), mode="edge")
    index = np.arange(n)
    for axis, (down, right) in enumerate(((1, 0), (0, 1))):
        before = padded[index, row + 1 - down, col + 1 - right]
        after = padded[index, row + 1 + down, col + 1 + right]
        curvature = before - 2 * score + after
        on_edge = (row, col)[axis] % ((rows, cols)[axis] - 1) == 0
        step = np.where(
            curvature < 0, 0.5 * (before - after) / np.where(curvature < 0, curvature, -1), 0.0
        )
        shift[:, axis] += np.where(on_edge, 0.0, np.clip(step, -0.5, 0.5))
    return shift, np.asarray(score, np.float64)


def _correlations(patches: NDArray[Any], windows: NDArray[Any]) -> FloatArray:
    """Normalised cross-correlation (n, s, s) of each patch with every position in its window."""
    side, window_side = patches.shape[1], windows.shape[1]
    shifts = window_side - side + 1
    patch = patches - patches.mean(axis=(1, 2), keepdims=True)
    window = windows - windows.mean(axis=(1, 2), keepdims=True)
    size = (scipy.fft.next_fast_len(window_side, real=True),) * 2
    product = scipy.fft.irfft2(
        scipy.fft.rfft2(window, size) * np.conj(scipy.fft.rfft2(patch, size)), size
    )
    overlap = product[:, :shifts, :shifts]
    sums, squares = _box_sums(window, side), _box_sums(window**2, side)
    energy = np.maximum(squares - sums**2 / side**2, 0.0)
    own = (patch**2).sum(axis=(1, 2))[:, None, None]
    flat = energy < side**2 * _MIN_STD**2 / 4
    return np.asarray(np.where(flat, 0.0, overlap / np.sqrt(np.maximum(energy * own, 1e-12))))


def _box_sums(images: NDArray[Any], side: int) -> FloatArray:
    """Sums over all squares of *side* pixels within each image."""
    total = np.pad(images.astype(np.float64), ((0, 0), (1, 0), (1, 0))).cumsum(1).cumsum(2)
    return np.asarray(
        total[:, side:, side:]
        - total[:, :-side, side:]
        - total[:, side:, :-side]
        + total[:, :-side, :-side]
    )
