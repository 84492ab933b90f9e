"""What correlations on the same tiles share: distance classes and spatial eigenvectors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import FloatArray
from napari_mosaik.core.tiles import IntArray

__all__ = ["DistanceClasses", "SpatialSpectrum", "distance_classes", "spatial_spectrum"]

_FEW_DISTANCES = 40
_SAME = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class DistanceClasses:
    """Pairs of n tiles sorted into K distance classes; class 0 is each tile with itself.

    Attributes
    ----------
    covariance
        (K + 1, m) autocovariance of each column by class, in the squared unit of the column.
    traces
        (K + 1, K + 1) ``tr(B A_k B A_l)`` of the class indicators A and the centring matrix B.
    single
        (K + 1,) ``tr(B A_k)``.
    """

    covariance: FloatArray
    traces: FloatArray
    single: FloatArray

    def correlation_variance(self, columns: IntArray, other: int) -> FloatArray:
        """Dutilleul's variance of the correlation of each of the *columns* with column *other*."""
        x, y = self.covariance[:, columns], self.covariance[:, other]
        with np.errstate(invalid="ignore", divide="ignore"):
            below = (self.single @ x) * (self.single @ y)
            return np.asarray((x.T @ self.traces @ y) / below, float)


def distance_classes(points_um: FloatArray, columns: FloatArray, rule: str) -> DistanceClasses:
    """Autocovariances by distance class of centred *columns* (n, m) at *points_um* (n, 2)."""
    from napari_mosaik.spatial._distance_kernel import class_products

    n = columns.shape[0]
    upper = _upper_limits(points_um, rule)
    partners, products = class_products(points_um, upper, np.ascontiguousarray(columns))
    used = partners.any(axis=0)
    partners, products = partners[:, used], products[used]
    pairs = np.concatenate([[float(n)], partners.sum(axis=0)])
    covariance = np.vstack([(columns**2).sum(axis=0), products]) / pairs[:, None]
    degree = np.column_stack([np.ones(n), partners])
    traces = np.diag(pairs) - 2 / n * (degree.T @ degree) + np.outer(pairs, pairs) / n**2
    single = -pairs / n
    single[0] += n
    return DistanceClasses(covariance, traces, single)


def _upper_limits(points_um: FloatArray, rule: str) -> FloatArray:
    """Upper limits of the distance classes, µm: every distance that occurs, or equal widths."""
    n = points_um.shape[0]
    if rule == "every" or (rule == "auto" and n <= 400):
        from scipy.spatial.distance import pdist

        distances = np.sort(pdist(points_um))
        new = np.concatenate([[True], np.diff(distances) > _SAME * distances[-1]])
        distinct = distances[new]
        if rule == "every" or distinct.size <= _FEW_DISTANCES:
            return np.asarray(distinct * (1 + 2 * _SAME), float)
    n_classes = math.ceil(1 + math.log2(n * (n - 1) / 2))
    longest = _longest_distance(points_um)
    return np.asarray(np.arange(1, n_classes + 1) * longest / n_classes * (1 + 2 * _SAME), float)


def _longest_distance(points_um: FloatArray) -> float:
    from scipy.spatial import ConvexHull, QhullError
    from scipy.spatial.distance import pdist

    corners = points_um
    if points_um.shape[0] > 400:
        try:
            corners = points_um[ConvexHull(points_um).vertices]
        except QhullError:
            corners = points_um[[0, -1]]
    return float(pdist(corners).max())


@dataclass(frozen=True, slots=True, eq=False)
class SpatialSpectrum:
    """Eigenvectors of the neighbour weights with a closed border, without the constant one."""

    vectors: FloatArray

    def coefficients(self, columns: FloatArray) -> FloatArray:
        """(n - 1, m) coefficients of centred columns (n, m), scaled to unit length."""
        raw = self.vectors.T @ columns
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(raw / np.sqrt((raw**2).sum(axis=0)), float)


def spatial_spectrum(points_um: FloatArray) -> SpatialSpectrum:
    """Spectrum of the graph that joins tiles within 1.5 times the usual nearest distance.

    A tile at the border is its own neighbour in place of each that it lacks, so that all rows have
    one sum.  Without this the eigenvectors vanish towards the border, as smooth fields do not:
    their coefficients are then correlated, and random signs understate how far two independent
    fields can agree by chance (`docs/spatial.md` measures it).
    """
    from scipy.linalg import eigh

    weights = _near(points_um).astype(float)
    n = weights.shape[0]
    degree = weights.sum(axis=1)
    most = float(degree.max())
    np.fill_diagonal(weights, most - degree)
    shift = 2 * most + 1  # sets the constant vector above all others, to be left out
    _, vectors = eigh(weights + shift / n, driver="evd", check_finite=False)
    return SpatialSpectrum(np.ascontiguousarray(vectors[:, :-1]))


def _near(points_um: FloatArray) -> NDArray[np.bool_]:
    from scipy.spatial.distance import cdist

    distance = cdist(points_um, points_um)
    np.fill_diagonal(distance, np.inf)
    return np.asarray(distance <= 1.5 * np.median(distance.min(axis=1)), np.bool_)
