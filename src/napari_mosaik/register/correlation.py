"""Correlation of the haematoxylin of two sections, and the map that has most of it."""

from __future__ import annotations

import numpy as np

from napari_mosaik.core.frame import FloatArray, Transform
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.affine_fit import (
    InverseTransform,
    SmoothedImage,
    best_fit,
    smoothed_image,
)
from napari_mosaik.register.params import AlignKind

__all__ = ["density_correlation", "refine"]

_MOST_POINTS = 40_000


def density_correlation(
    moving_density: Raster, fixed_density: Raster, transform: Transform, sigma_um: float = 40.0
) -> float:
    """Correlation (NCC) of two smoothed densities over the fixed tissue; NaN if one is constant.

    Parameters
    ----------
    moving_density, fixed_density
        (rows, columns) haematoxylin density; NaN or 0 off the tissue.
    transform
        From the moving to the fixed frame.
    sigma_um
        Width of the Gaussian by which both are smoothed, µm.
    """
    moving = smoothed_image(moving_density, sigma_um)
    points, target = _tissue_points(fixed_density, sigma_um)
    pull = InverseTransform.of(transform, points.mean(axis=0) if len(points) else np.zeros(2), 1.0)
    return _ncc(moving.at(pull.apply(points)), target)


def _ncc(first: FloatArray, second: FloatArray) -> float:
    if first.size < 3 or first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _tissue_points(density: Raster, sigma_um: float) -> tuple[FloatArray, FloatArray]:
    """Positions on the fixed tissue (and a rim of it), some ten thousand, with their values."""
    picture: SmoothedImage = smoothed_image(density, sigma_um)
    values = np.asarray(picture.values, np.float64)
    rim = 0.05 * float(np.quantile(values, 0.95))
    chosen = values > rim
    thin = slice(None, None, 1 + int(np.count_nonzero(chosen)) // _MOST_POINTS)
    return picture.lattice.centres_um()[chosen][thin], values[chosen][thin]


def refine(
    moving_density: Raster,
    fixed_density: Raster,
    start: Transform,
    kind: AlignKind,
    sigmas_um: tuple[float, ...],
) -> Transform:
    """The map of greatest correlation near *start*, from coarse to fine.

    Parameters
    ----------
    moving_density, fixed_density
        (rows, columns) haematoxylin density; NaN or 0 off the tissue.
    start
        From the moving to the fixed frame.
    kind
        What may change.
    sigmas_um
        Widths of the blur, one round each.
    """
    floor = max(moving_density.lattice.spacing_um + fixed_density.lattice.spacing_um)
    transform = start
    for sigma in sigmas_um:
        width = max(sigma, floor)
        picture = smoothed_image(moving_density, width)
        points, target = _tissue_points(fixed_density, width)
        if len(points) < 3 or target.std() == 0:
            return transform
        unit = float(np.ptp(points, axis=0).max())
        pull = InverseTransform.of(transform, points.mean(axis=0), unit)
        pull = best_fit(picture, target, points, pull, kind, gain=True)
        transform = pull.to_forward(start.source, start.target)
    return transform
