"""Arrays with their position: rasters of values and label images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.errors import FrameMismatch, InputError
from napari_mosaik.core.frame import FloatArray, Lattice, Transform

__all__ = ["LabelImage", "LazyArray", "Raster"]


class LazyArray(Protocol):
    """What a NumPy array and a stored chunked array have in common."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one value."""

    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """Values on a lattice: (rows, columns) or (rows, columns, channels); NaN means no data.

    Parameters
    ----------
    values
        Array whose first two axes have the lattice's shape.
    lattice
        Where the samples lie.
    unit
        Unit of the values ("1" for pure numbers, "Bq/mL", "cm²/mL"...).
    channels
        Names along the third axis; empty for a plain raster.
    """

    values: NDArray[Any]
    lattice: Lattice
    unit: str = "1"
    channels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if tuple(self.values.shape[:2]) != tuple(self.lattice.shape):
            raise InputError(
                f"values of shape {self.values.shape} do not fit the lattice {self.lattice.shape}"
            )
        if self.channels and (self.values.ndim != 3 or self.values.shape[2] != len(self.channels)):
            raise InputError(f"{len(self.channels)} channel names for shape {self.values.shape}")

    def channel(self, name: str) -> Raster:
        """One named channel, shape (rows, columns), in `unit`; "1" is dimensionless."""
        if name not in self.channels:
            raise InputError(f"no channel '{name}'; there are: {', '.join(self.channels)}")
        return Raster(self.values[..., self.channels.index(name)], self.lattice, self.unit)

    def at(self, points_um: ArrayLike, outside: float = np.nan) -> FloatArray:
        """Nearest values at positions (n, 2) in µm of the raster's frame; *outside* elsewhere."""
        index = np.floor(self.lattice.to_index(points_um) + 0.5).astype(np.int64)
        shape = np.asarray(self.lattice.shape)
        inside = ((index >= 0) & (index < shape)).all(axis=-1)
        out = np.full(index.shape[:-1] + self.values.shape[2:], outside, dtype=float)
        out[inside] = self.values[index[inside][:, 0], index[inside][:, 1]]
        return out

    def onto(
        self, lattice: Lattice, transform: Transform | None = None, *, outside: float = np.nan
    ) -> Raster:
        """Nearest-neighbour copy on another lattice, of that lattice's shape and in `unit`.

        *transform* maps this raster's frame to the lattice's frame, µm; it may be omitted only if
        both are the same frame.  Samples beyond the raster are *outside*.
        """
        if transform is None:
            transform = Transform.identity(self.lattice.frame, self.lattice.frame)
        if transform.source != self.lattice.frame or transform.target != lattice.frame:
            raise FrameMismatch(
                f"a raster of '{self.lattice.frame}' cannot be resampled to '{lattice.frame}' by a "
                f"transform from '{transform.source}' to '{transform.target}'"
            )
        values = self.at(transform.inverse().apply(lattice.centres_um()).reshape(-1, 2), outside)
        values = values.reshape(lattice.shape + self.values.shape[2:])
        if self.values.dtype == np.bool_ and not np.isnan(outside):
            return Raster(values > 0.5, lattice, self.unit, self.channels)
        return Raster(values, lattice, self.unit, self.channels)


@dataclass(frozen=True, slots=True, eq=False)
class LabelImage:
    """Labelled objects on a lattice: 0 is background, ``k`` is row ``k - 1`` of their table.

    ``values`` may be an array on disk that is read piece by piece; `levels` are coarser copies for
    display (each half the size of the one before).  ``names`` are the names of class codes.
    ``folder`` is set if a step has written the image already; the store then moves that folder.
    """

    values: LazyArray
    lattice: Lattice
    names: dict[int, str] = field(default_factory=dict)
    levels: tuple[LazyArray, ...] = ()
    folder: Path | None = None

    def __post_init__(self) -> None:
        if tuple(self.values.shape) != tuple(self.lattice.shape):
            raise InputError(
                f"labels of shape {self.values.shape} do not fit the lattice {self.lattice.shape}"
            )

    def array(self) -> NDArray[Any]:
        """The whole image in memory, labels (rows, columns)."""
        return np.asarray(self.values[...])

    def block(self, rows: slice, cols: slice) -> NDArray[Any]:
        """A part of the image in memory, labels (rows, columns)."""
        return np.asarray(self.values[rows, cols])

    def coarser(self, spacing_um: float) -> LabelImage:
        """The coarsest copy (rows, columns) with pixels up to a size, µm; itself if none has."""
        level, values = 0, self.values
        for number, copy in enumerate(self.levels, 1):
            if self.lattice.spacing_um[0] * 2**number <= spacing_um:
                level, values = number, copy
        step_row, step_col = (spacing * 2**level for spacing in self.lattice.spacing_um)
        rows, cols = values.shape
        return LabelImage(
            values,
            Lattice(self.lattice.frame, (rows, cols), (step_row, step_col), self.lattice.origin_um),
        )
