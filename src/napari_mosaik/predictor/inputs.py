"""Inputs of the network for one case: tissue at three scales, clusters, antibody curves."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import FloatArray, InputError, TileGrid
from napari_mosaik.core.tiles import IntArray
from napari_mosaik.predictor.multiscale import SCALE_TILES, Scale

__all__ = [
    "ABSENT_PARTS",
    "ABSENT_PROXY",
    "CLASS_WORDS",
    "CODE_CELLS",
    "INVALID_CODE",
    "N_CLASSES",
    "TileInputs",
    "code_windows",
    "edge_distance_um",
    "tiling",
]

CODE_CELLS: Final = 11
"""Edge of the cluster windows in tiles."""
INVALID_CODE: Final = 5
"""Cluster code of tiles without a label and of cells off the mask."""
N_CLASSES: Final = 5
"""Uptake classes: average, hot, cold, high-low, low-high."""
ABSENT_PROXY: Final = {1: "he", 2: "caix"}
"""The slide of the nuclear and of the CAIX proxy, by the position of the proxy."""
ABSENT_PARTS: Final = {"he": "spatial", "caix": "temporal"}
"""The part of the network that has nothing to read without a slide."""
CLASS_WORDS: Final = ("average", "hot", "cold", "high-low", "low-high")


@dataclass(frozen=True, slots=True, eq=False)
class TileInputs:
    """Inputs of the network and the baselines for one case; row i belongs to tile i.

    Parameters
    ----------
    case, patient
        Pseudonyms of the specimen slice and of the patient.
    scales
        The three scales of `SCALE_TILES`, in that order.
    codes
        (n, 3, 11, 11) cluster codes 0-5 of three proxies around each tile; 5 = no label.
    proxies
        Names of the three proxies.
    curves
        (times, 3) free, bound and internalised antibody, normalised, of the patient, or
        (n, times, 3) of each tile, dimensionless or µM.  NaN: not measured; such tiles are excluded
        and counted.
    times_h
        (times,) sampling times, hours.
    features, feature_names
        (n, f) tile parameters for the baselines, in the unit of each (NaN allowed), and their
        names.
    centres_um, cells
        (n, 2) tile centres in µm and indices of lattice cells, (row, column).
    edge_um
        (n,) distance of each tile to the edge of the tiled area, µm.
    coverage
        (n,) fraction of each tile that is tissue; None: all of it.
    suv
        (n,) measured SUV, NaN where not measured; None for a case without PET.
    pet_label
        (n,) local Moran label 0-4 of the *measured* map, -1 where there is none.
    warnings
        Warnings that accompany every result of this case.
    absent
        Slides (``"he"``, ``"caix"``) that the model does without: what is read off them is empty.
    """

    case: str
    patient: str
    scales: tuple[Scale, Scale, Scale]
    codes: NDArray[np.uint8]
    proxies: tuple[str, str, str]
    curves: FloatArray
    times_h: FloatArray
    features: FloatArray
    feature_names: tuple[str, ...]
    centres_um: FloatArray
    cells: IntArray
    edge_um: FloatArray
    coverage: FloatArray | None = None
    suv: FloatArray | None = None
    pet_label: NDArray[np.int8] | None = None
    warnings: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.codes)
        expected = {
            "codes": (self.codes.shape, (n, 3, CODE_CELLS, CODE_CELLS)),
            "features": (self.features.shape, (n, len(self.feature_names))),
            "centres_um": (self.centres_um.shape, (n, 2)),
            "cells": (self.cells.shape, (n, 2)),
            "edge_um": (self.edge_um.shape, (n,)),
            "curves": (self.curves.shape[-2:], (len(self.times_h), 3)),
        }
        if self.coverage is not None:
            expected["coverage"] = (self.coverage.shape, (n,))
        if self.suv is not None:
            expected["suv"] = (self.suv.shape, (n,))
        if self.pet_label is not None:
            expected["pet_label"] = (self.pet_label.shape, (n,))
        for scale in self.scales:
            expected[f"{scale.name} windows"] = (scale.corners.shape, (n, 2))
        for name, (shape, wanted) in expected.items():
            if tuple(shape) != wanted:
                raise InputError(f"case {self.case}: {name} has the shape {shape}, not {wanted}")
        self._check_values(n)

    def _check_values(self, n: int) -> None:
        if self.curves.ndim == 3 and len(self.curves) != n:
            raise InputError(f"case {self.case}: {len(self.curves)} curves for {n} tiles")
        if [scale.name for scale in self.scales] != list(SCALE_TILES):
            raise InputError(f"case {self.case}: the scales must be {', '.join(SCALE_TILES)}")
        if n and int(self.codes.max()) > INVALID_CODE:
            raise InputError(f"case {self.case}: cluster code {self.codes.max()} is not in 0..5")

    @classmethod
    def of_parameters(
        cls, case: str, grid: TileGrid, features: FloatArray, names: tuple[str, ...]
    ) -> TileInputs:
        """Inputs with tile parameters (n, f) of *names* (µm, fractions...), and nothing else.

        For what reads the parameters alone; a network refuses them.
        """
        n = len(grid)
        nothing = np.zeros((1, 1, 4), np.uint8)
        first, second, third = (
            Scale(name, nothing, np.zeros((n, 2), np.int32), 1, 1.0) for name in SCALE_TILES
        )
        return cls(
            case=case,
            patient="",
            scales=(first, second, third),
            codes=np.full((n, 3, CODE_CELLS, CODE_CELLS), INVALID_CODE, np.uint8),
            proxies=("", "", ""),
            curves=np.full((1, 3), np.nan),
            times_h=np.zeros(1),
            features=features,
            feature_names=names,
            centres_um=grid.centres_um,
            cells=grid.cells,
            edge_um=np.zeros(n),
            coverage=grid.coverage,
        )

    def __len__(self) -> int:
        return len(self.codes)

    def content(self) -> str:
        """Digest of the tissue, wherever it is filed: equal in a copy of a case of another name."""
        content = hashlib.blake2b(digest_size=16)
        for array in (self.cells, *(scale.values for scale in self.scales)):
            content.update(np.ascontiguousarray(array).tobytes())
        return content.hexdigest()

    @property
    def windows_px(self) -> tuple[int, int, int]:
        """Edge of the spatial windows at the three scales, pixels."""
        first, second, third = (scale.window_px for scale in self.scales)
        return first, second, third

    @property
    def spacings_um(self) -> tuple[float, float, float]:
        """Pixel size of the windows at the three scales, µm."""
        first, second, third = (scale.spacing_um for scale in self.scales)
        return first, second, third

    @property
    def covered(self) -> FloatArray:
        """(n,) fraction of each tile that is tissue."""
        return np.ones(len(self)) if self.coverage is None else self.coverage

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(n,) mask of the tiles with all inputs (curves without NaN)."""
        finite = np.isfinite(self.curves).all(axis=(-2, -1))
        return np.array(np.broadcast_to(finite, (len(self),)))

    @property
    def measured(self) -> NDArray[np.bool_]:
        """(n,) mask of the usable tiles with a measured uptake."""
        if self.suv is None:
            return np.zeros(len(self), bool)
        return self.usable & np.isfinite(self.suv)

    def require_modalities(self) -> None:
        """Raise `InputError` when a whole part of the input is missing; zeros never replace it.

        Raises
        ------
        InputError
            No tile has curves, or a proxy has no cluster label in the whole case.
        """
        if len(self) and not self.usable.any():
            raise InputError(
                f"case {self.case}: no tile has kinetic curves; run the kinetics step first"
            )
        for index, proxy in enumerate(self.proxies):
            if ABSENT_PROXY.get(index) in self.absent:
                continue
            if len(self) and (self.codes[:, index] == INVALID_CODE).all():
                raise InputError(
                    f"case {self.case}: no tile has a cluster label of '{proxy}'; "
                    "measure it or choose another proxy"
                )
        if "he" in self.absent:
            return
        if len(self) and all((scale.values[..., :3] == 0).all() for scale in self.scales):
            raise InputError(f"case {self.case}: the tissue maps are empty; classify the tissue")

    def tile_curves(self, rows: ArrayLike) -> FloatArray:
        """Curves (b, times, 3) of the tiles with the indices *rows* (b,), in their unit."""
        rows = np.asarray(rows)
        if self.curves.ndim == 3:
            return np.asarray(self.curves[rows], float)
        return np.asarray(np.broadcast_to(self.curves, (len(rows), *self.curves.shape)), float)

    def subset(self, rows: ArrayLike) -> TileInputs:
        """The case with some of its tiles, by index (b,) or mask (n,); their surroundings stay."""
        rows = np.asarray(rows)
        first, second, third = (replace(s, corners=s.corners[rows]) for s in self.scales)
        return replace(
            self,
            scales=(first, second, third),
            codes=self.codes[rows],
            curves=self.curves[rows] if self.curves.ndim == 3 else self.curves,
            features=self.features[rows],
            centres_um=self.centres_um[rows],
            cells=self.cells[rows],
            edge_um=self.edge_um[rows],
            coverage=None if self.coverage is None else self.coverage[rows],
            suv=None if self.suv is None else self.suv[rows],
            pet_label=None if self.pet_label is None else self.pet_label[rows],
        )


def tiling(windows_px: Sequence[int], spacings_um: Sequence[float]) -> str:
    """The tiling that windows at the scales of `SCALE_TILES` span, in words: size and distance."""
    size, wide = (px * um for px, um in zip(windows_px[:2], spacings_um[:2], strict=True))
    n_tiles = list(SCALE_TILES.values())[1]
    return f"tiles of {size:.5g} µm, {(wide - size) / (n_tiles - 1):.5g} µm apart"


def code_windows(grid: TileGrid, codes: ArrayLike) -> NDArray[np.uint8]:
    """Cluster codes (n, 3) as windows (n, 3, 11, 11) of labels; 5 where there is no tile."""
    codes = np.asarray(codes)
    if codes.shape != (len(grid), 3):
        raise InputError(
            f"cluster codes of shape {codes.shape} for {len(grid)} tiles and 3 proxies"
        )
    if codes.size and (codes.min() < 0 or codes.max() > INVALID_CODE):
        raise InputError("cluster codes must lie in 0..5")
    padded = np.concatenate([codes.astype(np.uint8), np.full((1, 3), INVALID_CODE, np.uint8)])
    return np.ascontiguousarray(padded[grid.windows(CODE_CELLS)].transpose(0, 3, 1, 2))


def edge_distance_um(grid: TileGrid) -> FloatArray:
    """(n,) distance in µm from each tile's centre to the nearest cell without a tile.

    Measured between cell centres on the tile lattice; beyond the lattice there are no tiles.
    """
    from scipy.ndimage import distance_transform_edt

    used = np.pad(grid.index_map() >= 0, 1)
    distance = np.asarray(distance_transform_edt(used, sampling=grid.lattice.spacing_um))
    rows, cols = grid.cells.T
    return np.asarray(distance[rows + 1, cols + 1], float)
