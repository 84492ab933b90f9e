"""Square tiles on one regular lattice, selected by their tissue fraction."""

from __future__ import annotations

import math
from typing import Self

import numpy as np
from pydantic import model_validator

from napari_mosaik.core import FloatArray, InputError, Lattice, Params, Raster, TileGrid, setting

__all__ = ["TileParams", "tile_coverage", "tile_grid"]


class TileParams(Params):
    """Settings of the tile grid."""

    size_um: float = setting(
        400.0,
        "Edge length of a tile; 400 µm is one voxel of the PET.",
        unit="µm",
        label="Tile size",
        gt=0,
    )
    overlap: float = setting(
        0.25,
        "Fraction of a tile's edge that overlaps with the neighbouring tile.",
        label="Tile overlap",
        ge=0,
        lt=0.95,
    )
    inner: float = setting(
        0.95,
        "Minimum tissue fraction of an inner tile.",
        label="Minimum tissue, inner tile",
        gt=0,
        le=1,
    )
    border: float = setting(
        0.50,
        "Minimum tissue fraction of a border tile; below it there is no tile.",
        label="Minimum tissue, border tile",
        gt=0,
        le=1,
    )

    @property
    def stride_um(self) -> float:
        """Distance between neighbouring tiles, µm."""
        return self.size_um * (1 - self.overlap)

    @model_validator(mode="after")
    def _border_below_inner(self) -> Self:
        if self.border > self.inner:
            raise ValueError("the border fraction must not exceed the inner fraction")
        return self


def tile_grid(mask: Raster, params: TileParams | None = None) -> TileGrid:
    """Tiles with enough tissue, inner and border tiles on the same lattice.

    Parameters
    ----------
    mask
        (rows, columns) tissue mask; there is no tissue beyond it.
    params
        Settings.

    Returns
    -------
    TileGrid
        Tile (0, 0) of its lattice has its corner at a whole multiple of the stride from the
        frame's origin, so grids of equal settings always fit one another.

    Raises
    ------
    InputError
        If no tile holds enough tissue.
    """
    params = params or TileParams()
    stride, origin, extent = params.stride_um, mask.lattice.origin_um, mask.lattice.extent_um
    first = [math.floor(o / stride + 1e-9) for o in origin]
    last = [math.ceil((o + e) / stride - 1e-9) for o, e in zip(origin, extent, strict=True)]
    shape = (max(0, last[0] - first[0]), max(0, last[1] - first[1]))
    corner = (first[0] * stride, first[1] * stride)
    coverage = tile_coverage(mask, corner, shape, params.size_um, stride)
    # A tile that is exactly covered must not fall short by a rounding error.
    enough = coverage >= params.border - 1e-9
    kept = np.flatnonzero(enough)
    if kept.size == 0:
        best = float(coverage.max()) if coverage.size else 0.0
        raise InputError(
            f"no tile of {params.size_um:g} µm has {params.border:.0%} tissue (the best has "
            f"{best:.0%}); use smaller tiles or a lower border fraction"
        )
    centre = (params.size_um - stride) / 2
    lattice = Lattice(
        mask.lattice.frame, shape, (stride, stride), (corner[0] + centre, corner[1] + centre)
    )
    share = coverage.ravel()[kept]
    return TileGrid(lattice, params.size_um, kept, share, share >= params.inner - 1e-9)


def tile_coverage(
    mask: Raster,
    corner_um: tuple[float, float],
    shape: tuple[int, int],
    size_um: float,
    stride_um: float,
) -> FloatArray:
    """Tissue fraction of each tile, shape (rows, columns).

    Exact for tile edges that cut through samples: the integral image is linear within a sample.
    """
    integral = np.zeros((mask.lattice.shape[0] + 1, mask.lattice.shape[1] + 1))
    integral[1:, 1:] = mask.values.astype(float).cumsum(axis=0).cumsum(axis=1)
    for axis in (0, 1):
        start = np.asarray(corner_um[axis] + np.arange(shape[axis]) * stride_um, float)
        low = _at(integral, start, mask.lattice, axis)
        high = _at(integral, start + size_um, mask.lattice, axis)
        integral = high - low
    area = mask.lattice.sample_area_um2 / size_um**2
    return np.clip(integral * area, 0.0, 1.0)


def _at(integral: FloatArray, edges_um: FloatArray, lattice: Lattice, axis: int) -> FloatArray:
    """The integral image at edges along one axis, by linear interpolation."""
    position = (edges_um - lattice.origin_um[axis]) / lattice.spacing_um[axis]
    position = np.clip(position, 0, lattice.shape[axis])
    low = np.minimum(np.floor(position).astype(np.int64), lattice.shape[axis] - 1)
    part = (position - low).reshape((-1, 1) if axis == 0 else (1, -1))
    below = np.take(integral, low, axis=axis)
    above = np.take(integral, low + 1, axis=axis)
    return np.asarray(below + part * (above - below), float)
