"""One slide as the network over whole slides reads it, and the scanner's Gaussian."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_mosaik.learning.devices import ComputeDevice
from napari_mosaik.predictor.inputs import INVALID_CODE, TileInputs
from napari_mosaik.predictor.surroundings import (
    CUT_SIGMA,
    SIGMA_PER_FWHM,
    slide_columns,
    tile_pitch_um,
)

__all__ = [
    "WIDEST",
    "SlideScene",
    "TileLattice",
    "code_variability",
    "scanner_blur",
]

WIDEST: Final = 2.0
"""The kernel is drawn for a width up to this multiple of the scanner's."""


@dataclass(frozen=True, slots=True, eq=False)
class TileLattice:
    """Where the n tiles of a slide lie, and how much tissue is in them.

    Parameters
    ----------
    cells
        (n,) rows and (n,) columns, from 0.
    shape
        Rows and columns of the lattice.
    covered
        (n,) fraction of each tile that is tissue.
    pitch_um
        Distance of neighbouring tiles along rows and columns, µm.
    reach
        Half the edge of the kernel along rows and columns, tiles.
    """

    cells: tuple[Tensor, Tensor]
    shape: tuple[int, int]
    covered: Tensor
    pitch_um: tuple[float, float]
    reach: tuple[int, int]

    @classmethod
    def of(cls, inputs: TileInputs, fwhm_um: float) -> TileLattice:
        """The lattice of a case; *fwhm_um* is the scanner's width, µm of the reference section."""
        cells = inputs.cells - inputs.cells.min(axis=0)
        rows, cols = (torch.from_numpy(np.ascontiguousarray(axis)) for axis in cells.T)
        height, width = (int(side) + 1 for side in cells.max(axis=0))
        pitch = tile_pitch_um(inputs)
        widest = WIDEST * fwhm_um * SIGMA_PER_FWHM * CUT_SIGMA
        down, across = (max(1, int(np.ceil(widest / step))) for step in pitch)
        covered = torch.from_numpy(inputs.covered.astype(np.float32))
        return cls((rows, cols), (height, width), covered, pitch, (down, across))

    def to(self, device: ComputeDevice) -> TileLattice:
        """The lattice on a device."""
        rows, cols = map(device.put, self.cells)
        return replace(self, cells=(rows, cols), covered=device.put(self.covered))


def scanner_blur(source: Tensor, lattice: TileLattice, fwhm_um: Tensor) -> Tensor:
    """(n,) sources of the tiles, times the tissue in them, seen through the scanner.

    In the unit of the source.  The Gaussian of width *fwhm_um* (scalar, µm) is cut at 4 standard
    deviations; beyond the tiles there is no source.
    """
    raster = source.new_zeros(lattice.shape)
    raster = raster.index_put(lattice.cells, source * lattice.covered)[None, None]
    for axis in (0, 1):
        sigma = fwhm_um * SIGMA_PER_FWHM / lattice.pitch_um[axis]
        reach = lattice.reach[axis]
        offset = torch.arange(-reach, reach + 1, dtype=torch.float32, device=source.device)
        bell = torch.exp(-0.5 * (offset / sigma) ** 2) * (offset.abs() <= CUT_SIGMA * sigma)
        bell = bell / bell.sum()
        kernel = bell[None, None, :, None] if axis == 0 else bell[None, None, None, :]
        padding = (reach, 0) if axis == 0 else (0, reach)
        raster = functional.conv2d(raster, kernel, padding=padding)
    return raster[0, 0][lattice.cells]


def code_variability(codes: Tensor) -> Tensor:
    """(b, 3, 121) fraction of the 3 x 3 neighbourhood with another code than the cell.

    Of cluster labels 0-5 (b, 3, 11, 11).
    """
    onehot = functional.one_hot(codes.long(), INVALID_CODE + 1).float()
    planes = onehot.flatten(0, 1).permute(0, 3, 1, 2)
    around = functional.avg_pool2d(planes, 3, stride=1, padding=1, count_include_pad=False)
    other = 1.0 - (around * planes).sum(dim=1)
    return other.reshape(len(codes), codes.shape[1], -1)


@dataclass(frozen=True, slots=True, eq=False)
class SlideScene:
    """Inputs of `SlideNetwork` for the n tiles of one slide.

    Parameters
    ----------
    maps
        (4, rows, columns) area fractions times 255 at each of the three scales.
    corners, windows
        (n, 2) first row and column of each tile's window, and its edge in pixels, at each scale.
    codes, variability
        (n, 3, 11, 11) cluster labels, and (n, 3, 121) as `code_variability` gives it.
    curves
        (n, times, 3) antibody curves, NaN where not known.
    columns
        (n, k) tile parameters and their means over what the scanner sees, NaN where not known.
    lattice
        Where the tiles lie.
    fwhm_um
        Resolution of the scanner, µm of the reference section.
    """

    maps: tuple[Tensor, Tensor, Tensor]
    corners: tuple[Tensor, Tensor, Tensor]
    windows: tuple[int, int, int]
    codes: Tensor
    variability: Tensor
    curves: Tensor
    columns: Tensor
    lattice: TileLattice
    fwhm_um: float

    @classmethod
    def of(cls, inputs: TileInputs, fwhm_um: float) -> SlideScene:
        """The scene of a case, seen by a scanner of *fwhm_um* (µm of the reference section)."""
        maps = [torch.from_numpy(s.values.transpose(2, 0, 1).copy()) for s in inputs.scales]
        corners = [torch.from_numpy(s.corners.astype(np.int64)) for s in inputs.scales]
        first, second, third = (scale.window_px for scale in inputs.scales)
        codes = torch.from_numpy(np.ascontiguousarray(inputs.codes))
        return cls(
            (maps[0], maps[1], maps[2]),
            (corners[0], corners[1], corners[2]),
            (first, second, third),
            codes,
            code_variability(codes),
            torch.from_numpy(inputs.tile_curves(np.arange(len(inputs))).astype(np.float32)),
            torch.from_numpy(slide_columns(inputs, fwhm_um).astype(np.float32)),
            TileLattice.of(inputs, fwhm_um),
            fwhm_um,
        )

    def to(self, device: ComputeDevice) -> SlideScene:
        """The scene on a device: one slide takes a few megabytes."""
        maps, corners = tuple(map(device.put, self.maps)), tuple(map(device.put, self.corners))
        return replace(
            self,
            maps=(maps[0], maps[1], maps[2]),
            corners=(corners[0], corners[1], corners[2]),
            codes=device.put(self.codes),
            variability=device.put(self.variability),
            curves=device.put(self.curves),
            columns=device.put(self.columns),
            lattice=self.lattice.to(device),
        )

    def turned(self, turn: int) -> SlideScene:
        """The scene in one of the 8 orientations of a square; the tiles keep their order.

        The lattice stays as it is: the scanner's Gaussian is round.
        """
        if turn == 0:
            return self
        maps, corners = [], []
        for values, corner, window in zip(self.maps, self.corners, self.windows, strict=True):
            row, col = corner[:, 0], corner[:, 1]
            height, width = values.shape[1:]
            for _ in range(turn % 4):
                row, col = width - window - col, row
                height, width = width, height
            turned = torch.rot90(values, turn % 4, (1, 2))
            if turn >= 4:
                turned, col = turned.flip(2), width - window - col
            maps.append(turned.contiguous())
            corners.append(torch.stack([row, col], dim=1))
        codes = _turned_square(self.codes, turn)
        varied = _turned_square(self.variability.reshape(self.codes.shape), turn)
        return replace(
            self,
            maps=(maps[0], maps[1], maps[2]),
            corners=(corners[0], corners[1], corners[2]),
            codes=codes,
            variability=varied.flatten(2),
        )


def _turned_square(values: Tensor, turn: int) -> Tensor:
    """The last two axes in one of the 8 orientations of a square."""
    turned = torch.rot90(values, turn % 4, (-2, -1))
    return (turned.flip(-1) if turn >= 4 else turned).contiguous()
