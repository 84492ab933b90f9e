"""Compare two sections place by place: where each small part of one fits best on the other.

An alignment is judged by what it was not told: each textured place inside the tissue looks for its
best partner within a window.  Where the alignment is right most partners are found where it puts
them; where it is wrong they lie anywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import binary_erosion

from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.affine_fit import smoothed_image
from napari_mosaik.register.landmarks import fit_landmarks
from napari_mosaik.register.params import AlignKind

__all__ = ["InlierStatistics", "Matches", "fit_matches", "inlier_statistics", "match_blocks"]

_RADIUS = 10
"""Half the side of a place, working pixels."""
_FINE, _COARSE = 256, 128
"""Working pixels along the tissue."""
_TOLERANCE = 0.025
_MOST_TOLERANCE_UM = 150.0
"""A place agrees within this share of the tissue's longer side, and within half a PET tile."""
_LEAST_STD = 0.01
"""Less spread of the density (OD) within a place is no texture."""
_MOST_PLACES = 400
_LEAST_PLACES = 8


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Places of the fixed section with their best partners on the moving one.

    ``fixed_um`` and ``moving_um`` are (n, 2) in their own frames, ``shift_um`` is (n, 2) how far
    each partner lies from where the map puts it (fixed frame), ``score`` its correlation,
    ``inside`` the share of each place that is tissue.
    """

    fixed_um: FloatArray
    moving_um: FloatArray
    shift_um: FloatArray
    score: FloatArray
    inside: FloatArray


@dataclass(frozen=True, slots=True)
class InlierStatistics:
    """How far the inside of two sections agrees with an alignment.

    ``n`` textured places were compared; ``share`` of them found their partner within
    ``tolerance_um`` (each counts by the square of its correlation, here and below);
    ``median_um`` and ``p90_um`` are distances of those partners from where the alignment puts
    them; ``closeness``, 0 to 1, also tells how near those are that agree.  NaN where there is no
    place.
    """

    n: int
    share: float
    median_um: float
    p90_um: float
    tolerance_um: float
    closeness: float

    @property
    def is_enough(self) -> bool:
        """Whether there was enough structure to judge by."""
        return self.n >= _LEAST_PLACES


def tissue_size_um(tissue: Raster) -> float:
    """Longer side of the bounding box of a mask, µm; 0 for an empty one."""
    inside = np.asarray(tissue.values, bool)
    sides = [np.flatnonzero(inside.any(axis=1 - axis)) for axis in (0, 1)]
    if not sides[0].size:
        return 0.0
    lengths = [np.ptp(n) + 1 for n in sides]
    return float(max(n * s for n, s in zip(lengths, tissue.lattice.spacing_um, strict=True)))


def working_step_um(tissue: Raster, density: Raster, pixels: int = _FINE) -> float:
    """Side of a working pixel: the tissue's size over *pixels*, no finer than the density."""
    return max(tissue_size_um(tissue) / pixels, *density.lattice.spacing_um)


def match_blocks(
    moving: Raster,
    fixed: Raster,
    tissue: Raster,
    transform: Transform,
    *,
    step_um: float,
    reach: int,
    radius: int = _RADIUS,
    most: int = _MOST_PLACES,
    outline: bool = True,
) -> Matches:
    """The best partner of each textured place of the fixed tissue.

    Parameters
    ----------
    moving, fixed
        Densities (rows, columns) of the two sections.
    tissue
        Mask of the fixed section.
    transform
        Present map from the moving to the fixed frame.
    step_um
        Side of a working pixel, µm of the fixed frame.
    reach
        Partners are sought this many working pixels to each side.
    radius
        Half the side of a place, working pixels.
    most
        About how many places are compared at most.
    outline
        Whether the edge of the tissue counts as texture.

    Returns
    -------
    Matches
        Normalised cross-correlation decides; its peak is interpolated by a parabola.  Places
        without texture, or that the moving picture does not cover, are left out.
    """
    lattice = _window(tissue, step_um, radius + reach)
    points = lattice.centres_um().reshape(-1, 2)
    back = transform.inverse()
    sigma = 0.6 * step_um
    still = smoothed_image(fixed, sigma).at(points).reshape(lattice.shape)
    pulled = back.apply(points)
    moved = smoothed_image(moving, sigma / transform.scale).at(pulled).reshape(lattice.shape)
    known = _covers(moving.lattice, pulled).reshape(lattice.shape)
    seen = _covers(fixed.lattice, points).reshape(lattice.shape)
    inside = tissue.at(points, outside=0.0).reshape(lattice.shape)
    centres = _places(inside, seen, radius, radius + reach, most)
    places = _cut(still, centres, radius)
    if not outline:
        places = _levelled(
            places, _cut(binary_erosion(inside > 0.5, iterations=3), centres, radius)
        )
    windows, covered = _cut(moved, centres, radius + reach), _cut(known, centres, radius + reach)
    spread = places.std(axis=(1, 2)) if len(places) else np.zeros(0)
    usable = (spread > _LEAST_STD) & (covered.mean(axis=(1, 2)) > 0.9)
    centres, places, windows = centres[usable], places[usable], windows[usable]
    shift, score = _best_partners(places, windows)
    share = _cut(inside, centres, radius).mean(axis=(1, 2)) if len(centres) else np.zeros(0)
    at = lattice.to_um(centres) if len(centres) else np.zeros((0, 2))
    moving_um = back.apply(at + shift * step_um)
    return Matches(at, moving_um, shift * step_um, score, np.asarray(share, np.float64))


def fit_matches(
    matches: Matches, start: Transform, kind: AlignKind, *, rounds: int = 15
) -> Transform:
    """The map of least squares through the matches that agree best with it, from round to round.

    *start* itself where there are too few matches.

    References
    ----------
    Ourselin et al. 2001, Image and Vision Computing 19: 25-31 (block matching).
    """
    chosen = matches.score > 0.3
    kept = chosen.copy()
    found = start
    for _ in range(rounds):
        if np.count_nonzero(kept) < _LEAST_PLACES:
            return start
        found = fit_landmarks(
            matches.moving_um[kept],
            matches.fixed_um[kept],
            kind,
            start.source,
            start.target,
            mirror=start.mirrored,
        )
        errors = np.linalg.norm(found.apply(matches.moving_um) - matches.fixed_um, axis=1)
        again = chosen & (errors <= 1.5 * float(np.median(errors[chosen])))
        if (again == kept).all():
            break
        kept = again
    return found


def inlier_statistics(
    moving: Raster,
    fixed: Raster,
    tissue: Raster,
    transform: Transform,
    *,
    pixels: int = _FINE,
    most: int = _MOST_PLACES,
) -> InlierStatistics:
    """How many textured places within the tissue find their partner where the map puts it.

    Each place looks four tolerances far, so that places without a partner agree by chance in one
    of twenty.

    Parameters
    ----------
    moving, fixed
        Densities (rows, columns) of the two sections.
    tissue
        Mask of the fixed section.
    transform
        From the moving to the fixed frame.
    pixels
        Working pixels along the tissue.
    most
        About how many places are compared at most.
    """
    size = tissue_size_um(tissue)
    tolerance = min(_TOLERANCE * size, _MOST_TOLERANCE_UM)
    step = min(working_step_um(tissue, fixed, pixels), max(tolerance / 2, 1e-9))
    reach = max(4, math.ceil(4 * tolerance / step))
    found = match_blocks(
        moving, fixed, tissue, transform, step_um=step, reach=reach, most=most, outline=False
    )
    inner = found.inside > 0.8
    distance = np.linalg.norm(found.shift_um[inner], axis=1)
    weight = np.clip(found.score[inner], 0.0, None) ** 2
    if not weight.sum() > 0:
        return InlierStatistics(0, math.nan, math.nan, math.nan, tolerance, 0.0)
    return InlierStatistics(
        int(distance.size),
        float(weight @ (distance <= tolerance) / weight.sum()),
        _quantile(distance, weight, 0.5),
        _quantile(distance, weight, 0.9),
        tolerance,
        float((1 / (1 + (5 * distance / tolerance) ** 2)).mean()),
    )


def _quantile(values: FloatArray, weight: FloatArray, share: float) -> float:
    """The least value below which that share of the weight lies."""
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(total, share * total[-1])])


def _levelled(places: NDArray[Any], within: NDArray[np.bool_]) -> NDArray[Any]:
    """Places whose values off the tissue are the mean of those on it."""
    total = np.maximum(within.sum(axis=(1, 2), keepdims=True), 1)
    mean = (places * within).sum(axis=(1, 2), keepdims=True) / total
    return np.asarray(np.where(within, places, mean))


def _window(tissue: Raster, step_um: float, margin: int) -> Lattice:
    """Working pixels over the tissue's bounding box, with room for the search."""
    inside = np.asarray(tissue.values, bool)
    low, high = [], []
    for axis in (0, 1):
        found = np.flatnonzero(inside.any(axis=1 - axis))
        first, last = (found[0], found[-1] + 1) if found.size else (0, 1)
        spacing, origin = tissue.lattice.spacing_um[axis], tissue.lattice.origin_um[axis]
        low.append(origin + first * spacing - margin * step_um)
        high.append(origin + last * spacing + margin * step_um)
    shape = [max(1, math.ceil((h - lo) / step_um)) for lo, h in zip(low, high, strict=True)]
    return Lattice(tissue.lattice.frame, (shape[0], shape[1]), (step_um, step_um), (low[0], low[1]))


def _covers(lattice: Lattice, points_um: FloatArray) -> NDArray[np.bool_]:
    index = lattice.to_index(points_um)
    inside = (index >= -0.5) & (index <= np.array(lattice.shape) - 0.5)
    return np.asarray(inside.all(axis=-1))


def _places(
    inside: FloatArray, seen: NDArray[np.bool_], radius: int, margin: int, most: int
) -> NDArray[np.int64]:
    """Middles (n, 2) of places on the tissue, overlapping by half, at most about *most*."""
    rows, cols = inside.shape
    stride = max(radius, math.ceil(math.sqrt(inside.sum() / most)))
    grid = np.mgrid[margin : rows - margin : stride, margin : cols - margin : stride]
    centres: NDArray[np.int64] = grid.reshape(2, -1).T.astype(np.int64)
    if not len(centres):
        return centres
    share = _cut(inside, centres, radius).mean(axis=(1, 2))
    whole = _cut(seen, centres, radius).all(axis=(1, 2))
    return np.asarray(centres[(share > 0.4) & whole])


def _cut(image: NDArray[Any], centres: NDArray[np.int64], radius: int) -> NDArray[Any]:
    """Squares (n, 2 r + 1, 2 r + 1) about some middles."""
    side = 2 * radius + 1
    if not len(centres):
        return np.zeros((0, side, side), image.dtype)
    views = np.lib.stride_tricks.sliding_window_view(image, (side, side))
    return np.ascontiguousarray(views[centres[:, 0] - radius, centres[:, 1] - radius])


def _best_partners(places: NDArray[Any], windows: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
    """Shift (n, 2) in working pixels and correlation (n,) of the best partner of each place."""
    if not len(places):
        return np.zeros((0, 2)), np.zeros(0)
    ncc = _correlations(places, windows)
    n, rows, cols = ncc.shape
    best = ncc.reshape(n, -1).argmax(axis=1)
    row, col = np.divmod(best, cols)
    score = ncc.reshape(n, -1)[np.arange(n), best]
    shift = np.stack([row - rows // 2, col - cols // 2], axis=1).astype(np.float64)
    padded = np.pad(ncc, ((0, 0), (1, 1), (1, 1)), mode="edge")
    at = np.arange(n)
    for axis, (down, right) in enumerate(((1, 0), (0, 1))):
        before = padded[at, row + 1 - down, col + 1 - right]
        after = padded[at, row + 1 + down, col + 1 + right]
        bend = before - 2 * score + after
        on_edge = (row, col)[axis] % ((rows, cols)[axis] - 1) == 0
        step = np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, -1), 0.0)
        shift[:, axis] += np.where(on_edge, 0.0, np.clip(step, -0.5, 0.5))
    return shift, np.asarray(score, np.float64)


def _correlations(places: NDArray[Any], windows: NDArray[Any]) -> FloatArray:
    """Normalised cross-correlation of each place with every position in its window, (n, s, s)."""
    side, wide = places.shape[1], windows.shape[1]
    shifts = wide - side + 1
    place = places - places.mean(axis=(1, 2), keepdims=True)
    window = windows - windows.mean(axis=(1, 2), keepdims=True)
    size = (fft.next_fast_len(wide, real=True),) * 2
    product = fft.irfft2(fft.rfft2(window, size) * np.conj(fft.rfft2(place, size)), size)
    over = product[:, :shifts, :shifts]
    sums, squares = _box_sums(window, side), _box_sums(window**2, side)
    energy = np.maximum(squares - sums**2 / side**2, 0.0)
    own = (place**2).sum(axis=(1, 2))[:, None, None]
    flat = energy < side**2 * _LEAST_STD**2 / 4
    return np.asarray(np.where(flat, 0.0, over / np.sqrt(np.maximum(energy * own, 1e-12))))


def _box_sums(images: NDArray[Any], side: int) -> FloatArray:
    """Sum of each square of a side within each image."""
    total = np.pad(images.astype(np.float64), ((0, 0), (1, 0), (1, 0))).cumsum(1).cumsum(2)
    return np.asarray(
        total[:, side:, side:]
        - total[:, :-side, side:]
        - total[:, side:, :-side]
        + total[:, :-side, :-side]
    )
