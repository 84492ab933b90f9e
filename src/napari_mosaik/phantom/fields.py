"""Smooth random fields and the numeric tools of the phantom's anatomy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from napari_mosaik.core.frame import FloatArray

__all__ = ["interpolate", "random_field", "sigmoid", "star_radius"]


def sigmoid(x: ArrayLike) -> FloatArray:
    """Logistic function of an array of any shape, dimensionless."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.asarray(x, float))), float)


def random_field(
    rng: np.random.Generator, shape: tuple[int, int], spacing_um: float, length_um: float
) -> NDArray[np.float32]:
    """A Gaussian random field (rows, columns) of zero mean and unit variance, dimensionless.

    Its correlation at a distance ``d`` is ``exp(-(d / length_um)²)``.

    Parameters
    ----------
    rng
        Random generator.
    shape
        Rows and columns of the result.
    spacing_um
        Spacing of the result, µm.
    length_um
        Correlation length, µm.
    """
    coarse = max(1, int(length_um / (6.0 * spacing_um)))
    sigma = length_um / 2.0 / (coarse * spacing_um)
    pad = math.ceil(4 * sigma) + 2
    small = tuple(math.ceil(n / coarse) + 2 * pad + 2 for n in shape)
    white = rng.standard_normal(small)
    smooth = ndimage.gaussian_filter(white, sigma, mode="wrap") * (math.sqrt(4 * math.pi) * sigma)
    rows = (np.arange(shape[0]) + 0.5) / coarse - 0.5 + pad
    cols = (np.arange(shape[1]) + 0.5) / coarse - 0.5 + pad
    return _separable(smooth, rows, cols)


def _separable(image: FloatArray, rows: FloatArray, cols: FloatArray) -> NDArray[np.float32]:
    """Cubic (Catmull-Rom) interpolation of an image at the product of two coordinate lists."""
    half = _catmull(image, rows, 0)
    return _catmull(half, cols, 1).astype(np.float32)


def _catmull(image: FloatArray, at: FloatArray, axis: int) -> FloatArray:
    base = np.floor(at).astype(np.int64)
    t = at - base
    weights = (
        ((-0.5 * t + 1.0) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1.0,
        ((-1.5 * t + 2.0) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )
    shape = (-1, 1) if axis == 0 else (1, -1)
    parts = [
        np.take(image, base + k - 1, axis=axis, mode="clip") * w.reshape(shape)
        for k, w in enumerate(weights)
    ]
    return np.asarray(sum(parts), float)


def interpolate(field: NDArray[Any], spacing_um: float, points_um: ArrayLike) -> FloatArray:
    """Bilinear values (n,) of a field (rows, columns) at positions (n, 2) in µm; edges extend."""
    points = np.asarray(points_um, float)
    index = points / spacing_um - 0.5
    i0 = np.floor(index).astype(np.int64)
    t = index - i0
    last = np.asarray(field.shape[:2]) - 1
    a, b = np.clip(i0, 0, last), np.clip(i0 + 1, 0, last)
    tr, tc = t[:, 0], t[:, 1]
    top = field[a[:, 0], a[:, 1]] * (1 - tc) + field[a[:, 0], b[:, 1]] * tc
    low = field[b[:, 0], a[:, 1]] * (1 - tc) + field[b[:, 0], b[:, 1]] * tc
    return np.asarray(top * (1 - tr) + low * tr, float)


def star_radius(
    angle: FloatArray, semi_um: tuple[float, float], waves: ArrayLike, notch: tuple[float, ...] = ()
) -> FloatArray:
    """Radius (n,) in µm of a star-shaped outline in directions *angle* from the row axis.

    Parameters
    ----------
    angle
        (n,) directions, radians.
    semi_um
        Semi-axes along rows and columns of the underlying ellipse, µm.
    waves
        (n, 3) rows of wave number, relative amplitude and phase.
    notch
        Direction, relative depth and angular width of an indentation; empty for none.
    """
    a, b = semi_um
    radius = a * b / np.hypot(b * np.cos(angle), a * np.sin(angle))
    factor = np.ones_like(radius)
    for number, amplitude, phase in np.asarray(waves, float).reshape(-1, 3):
        factor += amplitude * np.cos(number * angle + phase)
    if notch:
        away = np.angle(np.exp(1j * (angle - notch[0])))
        factor -= notch[1] * np.exp(-0.5 * (away / notch[2]) ** 2)
    return np.asarray(radius * factor, float)
