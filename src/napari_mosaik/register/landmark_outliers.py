"""Pairs of landmarks and their outliers: misplaced ones, and pairs that were swapped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Transform
from napari_mosaik.register.landmarks import MIN_PAIRS, fit_landmarks
from napari_mosaik.register.params import AlignKind
from napari_mosaik.register.quality import landmark_errors_um

__all__ = [
    "LandmarkOutlier",
    "LandmarkPairs",
    "find_landmark_outliers",
    "fit_landmarks_robustly",
    "outlier_messages",
]

_MAX_SUBSETS = 500
_OUTLIER_FACTOR = 4.0
"""A residual above this many medians is an outlier."""
_SWAPPED_FACTOR = 0.25
"""Swapped back, the residuals of two pairs must fall to this fraction."""
_MIN_FRACTION = 0.005
"""Residuals below this fraction of the landmarks' extent are never outliers."""


@dataclass(frozen=True, slots=True)
class LandmarkOutlier:
    """A pair that does not fit the others: index, residual, and index of the pair it belongs to."""

    row: int
    residual_um: float
    swapped_with: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LandmarkPairs:
    """Landmarks (n, 2) on a moving section and their partners (n, 2) on the fixed one, µm."""

    moving_um: FloatArray = field(default_factory=lambda: np.zeros((0, 2)))
    fixed_um: FloatArray = field(default_factory=lambda: np.zeros((0, 2)))

    def __len__(self) -> int:
        return len(self.moving_um)

    def residuals_um(self, transform: Transform) -> FloatArray:
        """Distance (n,) of each transformed landmark from its partner, µm."""
        return landmark_errors_um(self.moving_um, self.fixed_um, transform)

    def fit(self, kind: AlignKind, source: str, target: str) -> Transform:
        """The least-squares transform through all pairs; see `fit_landmarks`."""
        return fit_landmarks(self.moving_um, self.fixed_um, kind, source, target)

    def outliers(self, kind: AlignKind) -> list[LandmarkOutlier]:
        """Outliers by the transform on which most pairs agree; none with fewer than 5 pairs."""
        if len(self) < 5:
            return []
        robust = fit_landmarks_robustly(self.moving_um, self.fixed_um, kind, "moving", "fixed")
        return find_landmark_outliers(self.moving_um, self.fixed_um, robust)

    def warnings(self, kind: AlignKind) -> list[str]:
        """The outliers in sentences; landmarks are named by their number from 1."""
        return outlier_messages(self.outliers(kind), [str(n + 1) for n in range(len(self))])


def fit_landmarks_robustly(
    moving_um: ArrayLike, fixed_um: ArrayLike, kind: AlignKind, source: str, target: str
) -> Transform:
    """The transform on which most pairs agree: least median of residuals, then least squares.

    Parameters
    ----------
    moving_um, fixed_um
        (n, 2) corresponding positions, µm.
    kind
        Degrees of freedom.
    source, target
        Names of the coordinate spaces.

    Raises
    ------
    InputError
        As `fit_landmarks`.

    References
    ----------
    Rousseeuw 1984, Journal of the American Statistical Association 79: 871-880.
    """
    moving, fixed = np.asarray(moving_um, float), np.asarray(fixed_um, float)
    best = fit_landmarks(moving, fixed, kind, source, target)
    if len(moving) < MIN_PAIRS[kind] + 2:
        return best
    smallest = float(np.median(landmark_errors_um(moving, fixed, best)))
    for rows in _subsets(len(moving), MIN_PAIRS[kind]):
        try:
            candidate = fit_landmarks(moving[rows], fixed[rows], kind, source, target)
        except InputError:
            continue
        median = float(np.median(landmark_errors_um(moving, fixed, candidate)))
        if median < smallest:
            best, smallest = candidate, median
    errors = landmark_errors_um(moving, fixed, best)
    inliers = errors <= max(2.5 * smallest, _floor_um(fixed))
    if np.count_nonzero(inliers) >= max(MIN_PAIRS[kind], len(moving) // 2):
        best = fit_landmarks(moving[inliers], fixed[inliers], kind, source, target)
    return best


def find_landmark_outliers(
    moving_um: ArrayLike, fixed_um: ArrayLike, transform: Transform
) -> list[LandmarkOutlier]:
    """Pairs whose residual exceeds four times the median, worst first.

    Two outliers count as swapped if each lies near the partner of the other.

    Parameters
    ----------
    moving_um, fixed_um
        (n, 2) corresponding positions, µm; with fewer than 5 there are no outliers.
    transform
        A transform that outliers did not affect: an automatic one, or `fit_landmarks_robustly`.
    """
    moving, fixed = np.asarray(moving_um, float), np.asarray(fixed_um, float)
    errors = landmark_errors_um(moving, fixed, transform)
    if errors.size < 5:
        return []
    limit = max(_OUTLIER_FACTOR * float(np.median(errors)), _floor_um(fixed))
    rows = [int(i) for i in np.argsort(-errors) if errors[i] > limit]
    moved = transform.apply(moving)
    partner = dict.fromkeys(rows, -1)
    for i, j in combinations(rows, 2):
        crossed = np.linalg.norm(moved[[i, j]] - fixed[[j, i]], axis=1)
        if crossed.max() <= max(limit, _SWAPPED_FACTOR * float(errors[[i, j]].min())):
            partner[i], partner[j] = j, i
    return [
        LandmarkOutlier(i, float(errors[i]), None if partner[i] < 0 else partner[i]) for i in rows
    ]


def outlier_messages(outliers: list[LandmarkOutlier], names: list[str]) -> list[str]:
    """A sentence for each outlier, or for each swapped pair."""
    messages, done = [], set()
    for one in outliers:
        if one.row in done:
            continue
        name = names[one.row]
        if one.swapped_with is None:
            messages.append(
                f"landmark {name} has a residual of {one.residual_um:.0f} µm, far more than the "
                "others: check or delete it"
            )
            continue
        done.add(one.swapped_with)
        first, second = sorted((one.row, one.swapped_with))
        messages.append(
            f"landmarks {names[first]} and {names[second]} appear to be swapped on one of the "
            f"sections (residual {one.residual_um:.0f} µm): swap or delete them"
        )
    return messages


def _floor_um(points: FloatArray) -> float:
    return _MIN_FRACTION * float(np.linalg.norm(np.ptp(points, axis=0))) if len(points) else 0.0


def _subsets(n: int, k: int) -> Iterator[list[int]]:
    if comb(n, k) <= _MAX_SUBSETS:
        yield from map(list, combinations(range(n), k))
        return
    rng = np.random.default_rng(0)
    for _ in range(_MAX_SUBSETS):
        yield [int(i) for i in rng.choice(n, k, replace=False)]
