"""Regular lattices in a named coordinate space (frame), and affine transforms between frames.

Lengths are in µm, axes slowest first (row, column).  A sample covers an area: sample ``i`` of an
axis spans ``origin + i * spacing`` to ``origin + (i + 1) * spacing`` and its centre lies half a
spacing further.  A frame is the µm space of one physical section ("he", "cd34", "caix", "pet").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.errors import FrameMismatch, InputError

__all__ = ["FloatArray", "Lattice", "Mask", "Transform"]

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Lattice:
    """A regular grid of samples in a named frame.

    Parameters
    ----------
    frame
        Name of the frame in which the lattice lies.
    shape
        Number of samples per axis (rows, columns).
    spacing_um
        Size of one sample per axis, µm.
    origin_um
        Position of the outer corner of sample (0, 0), µm.
    """

    frame: str
    shape: tuple[int, int]
    spacing_um: tuple[float, float]
    origin_um: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if min(self.shape) < 0:
            raise InputError(f"a lattice cannot have the shape {self.shape}")
        if not all(math.isfinite(s) and s > 0 for s in self.spacing_um):
            raise InputError(f"the sample spacing must be positive, not {self.spacing_um} µm")

    @property
    def extent_um(self) -> tuple[float, float]:
        """Height and width of the covered area, µm."""
        return (self.shape[0] * self.spacing_um[0], self.shape[1] * self.spacing_um[1])

    @property
    def sample_area_um2(self) -> float:
        """Area of one sample, µm²."""
        return self.spacing_um[0] * self.spacing_um[1]

    def to_um(self, index: ArrayLike) -> FloatArray:
        """Positions (n, 2) in µm of the *centres* of samples with the (fractional) index (n, 2)."""
        out = np.asarray(index, float) + 0.5
        for axis in (0, 1):  # one axis after the other: four times as fast as both at once
            out[..., axis] *= self.spacing_um[axis]
            out[..., axis] += self.origin_um[axis]
        return out

    def to_index(self, points_um: ArrayLike) -> FloatArray:
        """Fractional index (n, 2) of positions in µm; the centre of sample 0 has the index 0."""
        out = np.array(points_um, float)
        for axis in (0, 1):
            out[..., axis] -= self.origin_um[axis]
            out[..., axis] /= self.spacing_um[axis]
        out -= 0.5
        return out

    def centres_um(self) -> FloatArray:
        """Positions (rows, columns, 2) of all sample centres, µm."""
        centres = np.empty((*self.shape, 2))
        for axis, count in enumerate(self.shape):
            line = (np.arange(count) + 0.5) * self.spacing_um[axis] + self.origin_um[axis]
            centres[..., axis] = line[:, None] if axis == 0 else line
        return centres

    def crop(self, rows: slice, cols: slice) -> Self:
        """The part of the lattice within two slices of its index (no step)."""
        r0, r1, _ = rows.indices(self.shape[0])
        c0, c1, _ = cols.indices(self.shape[1])
        origin = (
            self.origin_um[0] + r0 * self.spacing_um[0],
            self.origin_um[1] + c0 * self.spacing_um[1],
        )
        return type(self)(self.frame, (max(0, r1 - r0), max(0, c1 - c0)), self.spacing_um, origin)

    def resized(self, spacing_um: float) -> Self:
        """A lattice over the same area with another spacing (µm); it may reach beyond that area."""
        shape = (
            max(1, math.ceil(self.extent_um[0] / spacing_um - 1e-6)),
            max(1, math.ceil(self.extent_um[1] / spacing_um - 1e-6)),
        )
        return type(self)(self.frame, shape, (spacing_um, spacing_um), self.origin_um)


@dataclass(frozen=True, slots=True, eq=False)
class Transform:
    """An affine map of (row, column) positions in µm from one frame to another ("push").

    Parameters
    ----------
    source, target
        Names of the frames.
    matrix
        Homogeneous 3 x 3 matrix acting on (row_um, column_um, 1).
    """

    source: str
    target: str
    matrix: FloatArray

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=float)
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
            raise InputError("a transform needs a finite 3 x 3 matrix in µm")
        if not np.allclose(matrix[2], (0, 0, 1)) or abs(np.linalg.det(matrix[:2, :2])) < 1e-9:
            raise InputError("the transform's matrix is not an invertible affine map")
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    @classmethod
    def identity(cls, source: str, target: str) -> Self:
        """The identity."""
        return cls(source, target, np.eye(3))

    @classmethod
    def similarity(
        cls,
        source: str,
        target: str,
        *,
        angle_deg: float = 0.0,
        scale: float = 1.0,
        shift_um: Sequence[float] = (0.0, 0.0),
        about_um: Sequence[float] = (0.0, 0.0),
        mirror: bool = False,
    ) -> Self:
        """Scale and rotate about a point, then translate.

        A positive angle rotates the row axis towards the column axis; with rows drawn downward this
        is counter-clockwise on the screen.  With *mirror* the column axis is reversed first.
        """
        c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
        linear = scale * np.array([[c, -s], [s, c]]) @ np.diag([1.0, -1.0 if mirror else 1.0])
        about = np.asarray(about_um, float)
        matrix = np.eye(3)
        matrix[:2, :2] = linear
        matrix[:2, 2] = about - linear @ about + np.asarray(shift_um, float)
        return cls(source, target, matrix)

    def apply(self, points_um: ArrayLike) -> FloatArray:
        """Map positions (..., 2) in µm from the source to the target frame."""
        points = np.asarray(points_um, float) @ self.matrix[:2, :2].T
        for axis in (0, 1):
            points[..., axis] += self.matrix[axis, 2]
        return np.asarray(points, float)

    def inverse(self) -> Self:
        """The map from the target back to the source frame."""
        return type(self)(self.target, self.source, np.asarray(np.linalg.inv(self.matrix), float))

    def then(self, after: Self) -> Self:
        """This map followed by *after*; mismatched frames raise `FrameMismatch`."""
        if after.source != self.target:
            raise FrameMismatch(
                f"a transform to '{self.target}' cannot be followed by one from '{after.source}'"
            )
        return type(self)(self.source, after.target, after.matrix @ self.matrix)

    @property
    def scale(self) -> float:
        """Linear scale: square root of the area ratio."""
        return math.sqrt(abs(float(np.linalg.det(self.matrix[:2, :2]))))

    @property
    def angle_deg(self) -> float:
        """Rotation angle of the nearest similarity, degrees in (-180, 180]; see `similarity`."""
        a = self.matrix[:2, :2] @ np.diag([1.0, -1.0 if self.mirrored else 1.0])
        return math.degrees(math.atan2(a[1, 0] - a[0, 1], a[0, 0] + a[1, 1]))

    @property
    def mirrored(self) -> bool:
        """Whether the map contains a reflection."""
        return float(np.linalg.det(self.matrix[:2, :2])) < 0
