"""Smooth pictures and the search for the map that makes two of them agree."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.params import AlignKind

__all__ = ["InverseTransform", "SmoothedImage", "best_fit", "smoothed_image"]


class SmoothedImage:
    """A smooth image that can be read, with its slope, between its samples; 0 beyond its edge."""

    def __init__(self, values: NDArray[np.float32], lattice: Lattice) -> None:
        self.values = values
        self.lattice = lattice
        self._slopes: list[NDArray[Any]] = []

    def at(self, points_um: FloatArray) -> FloatArray:
        """Values (n,) at positions (n, 2), linear between samples."""
        return self._read(self.values, points_um)

    def slopes(self, points_um: FloatArray) -> FloatArray:
        """Slopes (n, 2) along rows and columns, 1/µm."""
        if not self._slopes:
            self._slopes = [
                np.gradient(self.values, step, axis=axis).astype(np.float32)
                for axis, step in enumerate(self.lattice.spacing_um)
            ]
        return np.column_stack([self._read(slope, points_um) for slope in self._slopes])

    def _read(self, image: NDArray[Any], points_um: FloatArray) -> FloatArray:
        index = self.lattice.to_index(points_um).T
        return np.asarray(
            map_coordinates(image, index, order=1, mode="constant", cval=0.0, output=np.float64)
        )


def smoothed_image(raster: Raster, sigma_um: float) -> SmoothedImage:
    """A raster blurred by a Gaussian, on samples of about a quarter of it; NaN counts as 0."""
    values = np.nan_to_num(np.asarray(raster.values, np.float32))
    blocks = [max(1, int(sigma_um / 4 / step)) for step in raster.lattice.spacing_um]
    ends = [(0, -n % block) for n, block in zip(values.shape, blocks, strict=True)]
    padded = np.pad(values, ends)
    rows, cols = padded.shape[0] // blocks[0], padded.shape[1] // blocks[1]
    thin = padded.reshape(rows, blocks[0], cols, blocks[1]).mean(axis=(1, 3))
    spacing = [b * s for b, s in zip(blocks, raster.lattice.spacing_um, strict=True)]
    margins = [math.ceil(3 * sigma_um / step) for step in spacing]
    blurred = gaussian_filter(
        np.pad(thin, [(m, m) for m in margins]),
        [sigma_um / step for step in spacing],
        mode="constant",
        truncate=3.0,
    )
    origin = [o - m * s for o, m, s in zip(raster.lattice.origin_um, margins, spacing, strict=True)]
    lattice = Lattice(
        raster.lattice.frame, blurred.shape, (spacing[0], spacing[1]), (origin[0], origin[1])
    )
    return SmoothedImage(blurred, lattice)


@dataclass(frozen=True, slots=True, eq=False)
class InverseTransform:
    """A map from fixed to moving positions about two centres, ``m = centre + linear (f - about)``.

    ``unit_um`` is the length by which shifts are measured in the search.
    """

    linear: FloatArray
    centre_um: FloatArray
    about_um: FloatArray
    unit_um: float

    def apply(self, points_um: FloatArray) -> FloatArray:
        """Moving positions (n, 2) of fixed positions (n, 2)."""
        return np.asarray((points_um - self.about_um) @ self.linear.T + self.centre_um, np.float64)

    def to_forward(self, source: str, target: str) -> Transform:
        """The map from the moving to the fixed frame."""
        matrix = np.eye(3)
        matrix[:2, :2] = self.linear
        matrix[:2, 2] = self.centre_um - self.linear @ self.about_um
        return Transform(target, source, matrix).inverse()

    @classmethod
    def of(cls, transform: Transform, about_um: FloatArray, unit_um: float) -> InverseTransform:
        """The pull of a map from the moving to the fixed frame, about a point of the fixed one."""
        back = transform.inverse()
        return cls(
            np.array(back.matrix[:2, :2]),
            back.apply(about_um),
            np.asarray(about_um, np.float64),
            unit_um,
        )

    def moved(self, step: FloatArray, kind: AlignKind) -> InverseTransform:
        """The map after a step of the search; a zero step leaves it as it is."""
        linear = self.linear @ _small(step[2:], kind)
        return replace(self, linear=linear, centre_um=self.centre_um + step[:2] * self.unit_um)

    def slopes_of_step(self, points_um: FloatArray, kind: AlignKind) -> FloatArray:
        """How positions change with the step at zero, (n, 2, k)."""
        away = points_um - self.about_um
        out = [
            np.broadcast_to(np.array(axis) * self.unit_um, away.shape)
            for axis in ((1.0, 0.0), (0.0, 1.0))
        ]
        out += [away @ (self.linear @ generator).T for generator in _GENERATORS[kind]]
        return np.stack(out, axis=-1)


_TURN = np.array([[0.0, -1.0], [1.0, 0.0]])
_GROW = np.eye(2)
_STRETCH = np.array([[1.0, 0.0], [0.0, -1.0]])
_SHEAR = np.array([[0.0, 1.0], [1.0, 0.0]])
_GENERATORS: dict[str, tuple[FloatArray, ...]] = {
    "rigid": (_TURN,),
    "similarity": (_TURN, _GROW),
    "affine": (_TURN, _GROW, _STRETCH, _SHEAR),
}


def _small(step: FloatArray, kind: AlignKind) -> FloatArray:
    """The 2 x 2 map of a step; for rigid and similarity an exact turn and scale."""
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
    rounds: int = 12,
) -> InverseTransform:
    """The map near *start* by which the moving picture explains the target best.

    Gauss-Newton steps on a soft least-squares measure, so that parts of the tissue that one
    picture lacks pull little.

    Parameters
    ----------
    moving
        The picture that is moved.
    target
        (n,) values of the fixed picture at *points_um* (n, 2).
    start
        Where to begin.
    kind
        What may change.
    gain
        Also fit a factor and an offset between the two pictures' values, so that the result is
        that of the greatest correlation.
    rounds
        Greatest number of restarts from the last map; each takes a few steps.
    """
    pull = start
    spread = max(float(target.std()), 1e-9)
    for _ in range(rounds):
        step = _one_round(moving, target / spread, points_um, pull, kind, gain, spread)
        pull = pull.moved(step, kind)
        if np.abs(step).max() < 5e-6:
            break
    return pull


def _one_round(
    moving: SmoothedImage,
    target: FloatArray,
    points_um: FloatArray,
    pull: InverseTransform,
    kind: AlignKind,
    gain: bool,
    spread: float,
) -> FloatArray:
    """One robust linear least-squares step (pictures are linearised at the present map)."""
    at = pull.apply(points_um)
    seen = moving.at(at) / spread
    slope = moving.slopes(at) / spread
    jacobian = np.einsum("ni,nik->nk", slope, pull.slopes_of_step(points_um, kind))
    factor = 1.0
    if gain:
        about, level = float(seen.mean()), float(target.mean())
        factor = float((seen - about) @ (target - level) / max(seen.var() * seen.size, 1e-12))
        seen = factor * (seen - about) + level
        extra = [seen - seen.mean(), np.ones_like(seen)]
    columns = [jacobian * factor, *([np.column_stack(extra)] if gain else [])]
    design = np.column_stack(columns)
    wrong = target - seen
    weight = 1 / np.sqrt(1 + (wrong / 0.7) ** 2)
    normal = design.T @ (design * weight[:, None])
    normal[np.diag_indices_from(normal)] *= 1 + 1e-6
    normal[np.diag_indices_from(normal)] += 1e-12
    step = np.linalg.solve(normal, design.T @ (weight * wrong))[: jacobian.shape[1]]
    longest = max(1.0, float(np.abs(step).max()) / 0.1)
    return np.asarray(step / longest, np.float64)
