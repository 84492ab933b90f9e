"""Look through pairs of landmarks for one that slipped or two that were exchanged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Transform
from napari_mosaik.register.landmarks import fit_landmarks
from napari_mosaik.register.params import AlignKind
from napari_mosaik.register.quality import landmark_errors_um

__all__ = [
    "LandmarkOutlier",
    "find_landmark_outliers",
    "fit_landmarks_robustly",
    "outlier_messages",
]

_LEAST = {"rigid": 2, "similarity": 2, "affine": 3}
_MOST_SUBSETS = 500
_FAR = 4.0
"""A residual of so many medians is odd."""
_CROSSED = 0.25
"""Exchanged back, a pair's residuals must fall to this share of what they were."""
_LEAST_SHARE = 0.005
"""Residuals below this share of the landmarks' extent are never odd."""


@dataclass(frozen=True, slots=True)
class LandmarkOutlier:
    """A pair that does not fit the others: its row, its residual, and the row it may belong to."""

    row: int
    residual_um: float
    swapped_with: int | None = None


def fit_landmarks_robustly(
    moving_um: ArrayLike, fixed_um: ArrayLike, kind: AlignKind, source: str, target: str
) -> Transform:
    """The map that most pairs agree on: least median of residuals, then least squares of those.

    Parameters
    ----------
    moving_um, fixed_um
        (n, 2) corresponding positions, µm.
    kind
        What may change.
    source, target
        Names of the frames.

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
    if len(moving) < _LEAST[kind] + 2:
        return best
    least = float(np.median(landmark_errors_um(moving, fixed, best)))
    for rows in _subsets(len(moving), _LEAST[kind]):
        try:
            tried = fit_landmarks(moving[rows], fixed[rows], kind, source, target)
        except InputError:
            continue
        middle = float(np.median(landmark_errors_um(moving, fixed, tried)))
        if middle < least:
            best, least = tried, middle
    errors = landmark_errors_um(moving, fixed, best)
    good = errors <= max(2.5 * least, _floor(fixed))
    if np.count_nonzero(good) >= max(_LEAST[kind], len(moving) // 2):
        best = fit_landmarks(moving[good], fixed[good], kind, source, target)
    return best


def find_landmark_outliers(
    moving_um: ArrayLike, fixed_um: ArrayLike, transform: Transform
) -> list[LandmarkOutlier]:
    """Pairs whose residual exceeds four times the median, the worst first.

    A pair is taken as exchanged with another odd one if each comes near the other's partner.

    Parameters
    ----------
    moving_um, fixed_um
        (n, 2) corresponding positions, µm; fewer than 5 say nothing.
    transform
        A map that the odd pairs did not pull: an automatic one, or `fit_landmarks_robustly`.
    """
    moving, fixed = np.asarray(moving_um, float), np.asarray(fixed_um, float)
    errors = landmark_errors_um(moving, fixed, transform)
    if errors.size < 5:
        return []
    limit = max(_FAR * float(np.median(errors)), _floor(fixed))
    rows = [int(i) for i in np.argsort(-errors) if errors[i] > limit]
    moved = transform.apply(moving)
    partner = dict.fromkeys(rows, -1)
    for i, j in combinations(rows, 2):
        crossed = np.linalg.norm(moved[[i, j]] - fixed[[j, i]], axis=1)
        if crossed.max() <= max(limit, _CROSSED * float(errors[[i, j]].min())):
            partner[i], partner[j] = j, i
    return [
        LandmarkOutlier(i, float(errors[i]), None if partner[i] < 0 else partner[i]) for i in rows
    ]


def outlier_messages(odd: list[LandmarkOutlier], names: list[str]) -> list[str]:
    """What to look at, in words."""
    said, done = [], set()
    for one in odd:
        if one.row in done:
            continue
        name = names[one.row]
        if one.swapped_with is None:
            said.append(
                f"landmark {name} lies {one.residual_um:.0f} µm from its partner, far more than "
                "the others: check or delete it"
            )
            continue
        done.add(one.swapped_with)
        first, second = sorted((one.row, one.swapped_with))
        said.append(
            f"landmarks {names[first]} and {names[second]} look exchanged on one of the "
            f"sections ({one.residual_um:.0f} µm off): swap or delete them"
        )
    return said


def _floor(points: FloatArray) -> float:
    return _LEAST_SHARE * float(np.linalg.norm(np.ptp(points, axis=0))) if len(points) else 0.0


def _subsets(n: int, k: int) -> Iterator[list[int]]:
    if comb(n, k) <= _MOST_SUBSETS:
        yield from map(list, combinations(range(n), k))
        return
    rng = np.random.default_rng(0)
    for _ in range(_MOST_SUBSETS):
        yield [int(i) for i in rng.choice(n, k, replace=False)]
