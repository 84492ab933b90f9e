"""CAIX per tile: how strongly and in how many cells the antibody's target is stained."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.table import Table
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.features.catalogue import parameter_table
from napari_mosaik.features.tile_aggregation import count_in_tiles, mean_in_tiles, sum_in_tiles

__all__ = ["CUTOFFS_OD10", "caix_grades", "caix_parameters"]

CUTOFFS_OD10 = (0.2, 0.4, 0.6)
"""Least optical density (base 10) of the grades 1+, 2+ and 3+."""


def caix_grades(
    membrane_od10: ArrayLike, cutoffs_od10: tuple[float, float, float] = CUTOFFS_OD10
) -> NDArray[np.float64]:
    """Grade 0 to 3 of each cell: how many cut-offs its density reaches (>=); NaN stays NaN."""
    if not 0 < cutoffs_od10[0] < cutoffs_od10[1] < cutoffs_od10[2]:
        raise InputError(f"the cut-offs must be positive and ascending, not {cutoffs_od10}")
    density = np.asarray(membrane_od10, float)
    grades = np.searchsorted(np.asarray(cutoffs_od10), density, side="right").astype(float)
    return np.where(np.isnan(density), np.nan, grades)


def caix_parameters(
    grid: TileGrid,
    points_um: ArrayLike,
    membrane_od10: ArrayLike,
    *,
    cutoffs_od10: tuple[float, float, float] = CUTOFFS_OD10,
    grades: ArrayLike | None = None,
) -> Table:
    """The CAIX parameters of each tile.

    Parameters
    ----------
    grid
        n tiles.
    points_um
        (m, 2) cell centroids in the grid's frame; leave out cells that shall not count (for
        example those outside the neoplastic tissue).
    membrane_od10
        (m,) mean DAB density (base 10) in each cell's ring; NaN cells are left out.
    cutoffs_od10
        Least densities of the grades 1+, 2+, 3+.
    grades
        (m,) grades 0 to 3 that take the place of the cut-offs.

    Returns
    -------
    Table of n rows with the group "caix" of the catalogue; NaN where a tile has no cell.

    Raises
    ------
    InputError
        If the cut-offs do not ascend or a grade is not 0 to 3.

    References
    ----------
    McCarty et al. 1985 (H-score).
    """
    density = np.asarray(membrane_od10, float)
    grade = caix_grades(density, cutoffs_od10)
    if grades is not None:
        grade = np.where(np.isnan(density), np.nan, np.asarray(grades, float))
        known = grade[np.isfinite(grade)]
        if not np.isin(known, (0, 1, 2, 3)).all():
            raise InputError("grades of CAIX are 0, 1, 2 or 3")
    points = np.asarray(points_um, float).reshape(-1, 2)
    positive = np.where(np.isnan(grade), np.nan, grade >= 1)
    counted = count_in_tiles(grid, points[np.isfinite(grade)])
    strength = sum_in_tiles(grid, points, np.where(positive == 1, density, 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        strength = np.where(counted > 0, strength / counted, np.nan)
    return parameter_table(
        {
            "caix_h_score": 100.0 * mean_in_tiles(grid, points, grade),
            "caix_positive_fraction": mean_in_tiles(grid, points, positive),
            "caix_intensity_fraction": strength,
            "caix_membrane_od10": mean_in_tiles(grid, points, density),
        },
        grid.lattice.frame,
    )
