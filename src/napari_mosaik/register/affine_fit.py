"""Smoothed images, inverse transforms, and the affine fit of one smoothed image to another."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import scipy  # its parts are loaded on first use
from numpy.typing import NDArray

from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.raster import Raster
from napari_mosaik.core.recent import RecentValues
from napari_mosaik.register.params import AlignKind

__all__ = ["InverseTransform", "SmoothedImage", "Smoother", "best_fit", "smoothed_image"]

_KEPT_BYTES = 2**25
"""Smoothed images that are kept of one raster, bytes: all of a candidate's on a slide of the demo,
one on a slide of seven gigapixels."""


_KEPT_VALUES = 8
T = TypeVar("T")


class SmoothedImage:
    """A smoothed image and its gradient, read between samples; 0 beyond its edge."""

    def __init__(self, values: NDArray[np.float32], lattice: Lattice) -> None:
        self.values = values
        self.lattice = lattice
        self._gradient: list[NDArray[Any]] = []
        self._edges: list[tuple[int, int]] = []

    def at(self, points_um: FloatArray) -> FloatArray:
        """Values (n,) at positions (n, 2) in µm, interpolated linearly."""
        return _read(self.values, self._index(points_um))

    def at_where_it_shows(self, points_um: FloatArray) -> FloatArray:
        """As `at`: values (n,), faster where many of the positions (n, 2) in µm see only 0."""
        if not self._edges:
            shown = self.values != 0
            lines = [np.flatnonzero(shown.any(axis=1 - axis)) for axis in (0, 1)]
            self._edges = [(int(line[0]), int(line[-1])) if line.size else (0, 0) for line in lines]
        index = self._index(points_um)
        inside = np.ones(index.shape[1], bool)
        for line, (first, last) in zip(index, self._edges, strict=True):
            inside &= (line > first - 1) & (line < last + 1)
        values = np.zeros(index.shape[1])
        values[inside] = _read(self.values, index[:, inside])
        return values

    def with_gradient(self, points_um: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 2) along rows and columns, per µm, at positions (n, 2)."""
        if not self._gradient:
            self._gradient = [
                np.gradient(self.values, step, axis=axis).astype(np.float32)
                for axis, step in enumerate(self.lattice.spacing_um)
            ]
        index = self._index(points_um)
        gradient = np.column_stack([_read(image, index) for image in self._gradient])
        return _read(self.values, index), gradient

    def on(self, lattice: Lattice, inverse: InverseTransform) -> FloatArray:
        """Values (rows, columns) on a lattice of the fixed space, interpolated linearly.

        They are fractions or optical densities, as the image is, and those of `at` the moved
        centres of its samples but for the last bits.
        """
        matrix, offset = inverse.between(lattice, self.lattice)
        return np.asarray(
            scipy.ndimage.affine_transform(
                self.values, matrix, offset, lattice.shape, output=np.float64, order=1
            )
        )

    def _index(self, points_um: FloatArray) -> FloatArray:
        return np.ascontiguousarray(self.lattice.to_index(points_um).T)


class Smoother:
    """A raster that is smoothed again and again; the latest results are kept.

    Parameters
    ----------
    raster
        Values (rows, columns) in any unit, which the results keep; NaN counts as 0.
    """

    def __init__(self, raster: Raster) -> None:
        self.lattice = raster.lattice
        self._values = raster.values
        self._known = RecentValues[SmoothedImage](_KEPT_BYTES, lambda image: image.values.nbytes)
        self._made = RecentValues[Any](_KEPT_VALUES)
        self._reduced = RecentValues[NDArray[np.float32]](2)

    def by(self, sigma_um: float) -> SmoothedImage:
        """The raster smoothed by a Gaussian of *sigma_um*, sampled at about a quarter of it."""
        return self._known.get_or_make(sigma_um, lambda: self._smoothed(sigma_um))

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was made of the raster before under this key; made now where it is not."""
        value: T = self._made.get_or_make(key, make)
        return value

    def _smoothed(self, sigma_um: float) -> SmoothedImage:
        steps = self.lattice.spacing_um
        blocks = [max(1, int(sigma_um / 4 / step)) for step in steps]
        reduced = self._reduced.get_or_make(tuple(blocks), lambda: self._means(*blocks))
        spacing = [b * s for b, s in zip(blocks, steps, strict=True)]
        margins = [math.ceil(3 * sigma_um / step) for step in spacing]
        smoothed = scipy.ndimage.gaussian_filter(
            np.pad(reduced, [(m, m) for m in margins]),
            [sigma_um / step for step in spacing],
            mode="constant",
            truncate=3.0,
        )
        corner = self.lattice.origin_um
        origin = [o - m * s for o, m, s in zip(corner, margins, spacing, strict=True)]
        lattice = Lattice(
            self.lattice.frame, smoothed.shape, (spacing[0], spacing[1]), (origin[0], origin[1])
        )
        return SmoothedImage(smoothed, lattice)

    def _means(self, down: int, right: int) -> NDArray[np.float32]:
        """Means over blocks of so many rows and columns; what lacks at the end counts as 0."""
        values = np.nan_to_num(np.asarray(self._values, np.float32))
        if down == right == 1:
            return values
        padded = np.pad(values, [(0, -values.shape[0] % down), (0, -values.shape[1] % right)])
        rows, cols = padded.shape[0] // down, padded.shape[1] // right
        return np.asarray(padded.reshape(rows, down, cols, right).mean(axis=(1, 3)))


def smoothed_image(image: Raster | Smoother, sigma_um: float) -> SmoothedImage:
    """An image smoothed by a Gaussian of *sigma_um*, sampled at about a quarter of it.

    The image has the shape (rows, columns) and any unit, which the result keeps; NaN counts as 0.
    """
    return (image if isinstance(image, Smoother) else Smoother(image)).by(sigma_um)


def _read(image: NDArray[Any], index: FloatArray) -> FloatArray:
    return np.asarray(
        scipy.ndimage.map_coordinates(
            image, index, order=1, mode="constant", cval=0.0, output=np.float64
        )
    )


def _moved_by(points_um: FloatArray, offset: FloatArray) -> FloatArray:
    """Positions (n, 2) and an offset (2,), axis by axis: faster than both axes at once."""
    moved = np.array(points_um, np.float64)
    for axis in (0, 1):
        moved[..., axis] += offset[axis]
    return moved


@dataclass(frozen=True, slots=True, eq=False)
class InverseTransform:
    """A map from fixed to moving positions, ``moving = centre + linear (fixed - about)``.

    ``linear`` is (2, 2), ``centre_um`` and ``about_um`` are (2,); ``unit_um`` is the length in
    which the optimiser measures shifts.
    """

    linear: FloatArray
    centre_um: FloatArray
    about_um: FloatArray
    unit_um: float

    def apply(self, points_um: FloatArray) -> FloatArray:
        """Moving positions (n, 2) of fixed positions (n, 2), µm."""
        return _moved_by(_moved_by(points_um, -self.about_um) @ self.linear.T, self.centre_um)

    def between(self, fixed: Lattice, moving: Lattice) -> tuple[FloatArray, FloatArray]:
        """Matrix (2, 2) and offset (2,) from the index on the fixed to that on the moving lattice.

        Both are dimensionless.
        """
        step, size = np.array(fixed.spacing_um), np.array(moving.spacing_um)
        first = self.apply(np.array(fixed.origin_um) + step / 2)
        return self.linear * step / size[:, None], (first - moving.origin_um) / size - 0.5

    def to_forward(self, source: str, target: str) -> Transform:
        """The transform from the moving to the fixed coordinate space."""
        matrix = np.eye(3)
        matrix[:2, :2] = self.linear
        matrix[:2, 2] = self.centre_um - self.linear @ self.about_um
        return Transform(target, source, matrix).inverse()

    @classmethod
    def of(cls, transform: Transform, about_um: FloatArray, unit_um: float) -> InverseTransform:
        """The inverse of a transform, about a point (2,) of the fixed space; lengths in µm."""
        back = transform.inverse()
        return cls(
            np.array(back.matrix[:2, :2]),
            back.apply(about_um),
            np.asarray(about_um, np.float64),
            unit_um,
        )

    def moved(self, step: FloatArray, kind: AlignKind) -> InverseTransform:
        """The map after a step (k,) of the optimiser, dimensionless; zero leaves it unchanged."""
        linear = self.linear @ _linear_step(step[2:], kind)
        return replace(self, linear=linear, centre_um=self.centre_um + step[:2] * self.unit_um)

    def jacobian(self, points_um: FloatArray, kind: AlignKind) -> FloatArray:
        """Derivatives (n, 2, k) of the moving positions, µm, by the step at zero."""
        offsets = points_um - self.about_um
        out = [
            np.broadcast_to(np.array(axis) * self.unit_um, offsets.shape)
            for axis in ((1.0, 0.0), (0.0, 1.0))
        ]
        out += [offsets @ (self.linear @ generator).T for generator in _GENERATORS[kind]]
        return np.stack(out, axis=-1)


_ROTATE = np.array([[0.0, -1.0], [1.0, 0.0]])
_SCALE = np.eye(2)
_STRETCH = np.array([[1.0, 0.0], [0.0, -1.0]])
_SHEAR = np.array([[0.0, 1.0], [1.0, 0.0]])
_GENERATORS: dict[str, tuple[FloatArray, ...]] = {
    "rigid": (_ROTATE,),
    "similarity": (_ROTATE, _SCALE),
    "affine": (_ROTATE, _SCALE, _STRETCH, _SHEAR),
}


def _linear_step(step: FloatArray, kind: AlignKind) -> FloatArray:
    """The 2 x 2 map of a step; for rigid and similarity an exact rotation and scale."""
    if kind == "affine":
        total = sum((s * g for s, g in zip(step, _GENERATORS[kind], strict=True)), np.zeros((2, 2)))
        return np.asarray(np.eye(2) + total, np.float64)
    c, s = np.cos(step[0]), np.sin(step[0])
    scale = np.exp(step[1]) if kind == "similarity" else 1.0
    return np.asarray(scale * np.array([[c, -s], [s, c]]), np.float64)


def best_fit(
    moving: SmoothedImage,
    target: FloatArray,
    points_um: FloatArray,
    start: InverseTransform,
    kind: AlignKind,
    *,
    gain: bool = False,
    max_rounds: int = 12,
) -> InverseTransform:
    """The transform near *start* for which the moving image explains the target best.

    Gauss-Newton steps on a robust (soft L1) loss, so that tissue that one image lacks has little
    influence.

    Parameters
    ----------
    moving
        The moving image.
    target
        (n,) values of the fixed image at *points_um*, in its unit.
    points_um
        (n, 2) positions, µm.
    start
        Initial transform.
    kind
        Degrees of freedom.
    gain
        Also fit a factor and an offset between the values of the two images: the result then
        maximises their correlation.
    max_rounds
        Maximum number of Gauss-Newton steps.
    """
    inverse = start
    spread = max(float(target.std()), 1e-9)
    for _ in range(max_rounds):
        step = _gauss_newton_step(moving, target / spread, points_um, inverse, kind, gain, spread)
        inverse = inverse.moved(step, kind)
        if np.abs(step).max() < 5e-6:
            break
    return inverse


def _gauss_newton_step(
    moving: SmoothedImage,
    target: FloatArray,
    points_um: FloatArray,
    inverse: InverseTransform,
    kind: AlignKind,
    gain: bool,
    spread: float,
) -> FloatArray:
    """One robust linear least-squares step; images are linearised at the present transform."""
    positions = inverse.apply(points_um)
    values, gradient = (part / spread for part in moving.with_gradient(positions))
    jacobian = np.einsum("ni,nik->nk", gradient, inverse.jacobian(points_um, kind))
    factor = 1.0
    if gain:
        mean, level = float(values.mean()), float(target.mean())
        factor = float((values - mean) @ (target - level) / max(values.var() * values.size, 1e-12))
        values = factor * (values - mean) + level
        extra = [values - values.mean(), np.ones_like(values)]
    columns = [jacobian * factor, *([np.column_stack(extra)] if gain else [])]
    design = np.column_stack(columns)
    residual = target - values
    weight = 1 / np.sqrt(1 + (residual / 0.7) ** 2)
    normal = design.T @ (design * weight[:, None])
    normal[np.diag_indices_from(normal)] *= 1 + 1e-6
    normal[np.diag_indices_from(normal)] += 1e-12
    step = np.linalg.solve(normal, design.T @ (weight * residual))[: jacobian.shape[1]]
    # limits the step: the linearisation holds only near the present transform
    longest = max(1.0, float(np.abs(step).max()) / 0.1)
    return np.asarray(step / longest, np.float64)
