"""Doubts about counts and sizes that no stained section has.

The usual reasons are a wrong pixel size, glass or dust instead of tissue, and another stain.  The
limits are wide: a factor of three or more beyond what tissues of man and mouse show.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core.table import Table

__all__ = ["cell_doubts", "class_doubts", "column_doubts", "vessel_doubts"]

_CELLS_PER_MM2 = (100.0, 25_000.0)
_NUCLEUS_UM2 = (12.0, 300.0)
_HAEMATOXYLIN_OD = 0.1
_VESSELS_PER_MM2 = 3000.0
_VESSEL_UM2 = (15.0, 20_000.0)
_VESSEL_SHARE = 0.5
_FEW = 20
"""Fewer objects than this have no typical size."""
_CHECK = "; check the pixel size, the stain and the tissue mask"


def cell_doubts(
    table: Table, tissue_mm2: float, one: str = "nucleus", what: str = "nuclei"
) -> list[str]:
    """Doubts about the number, size and staining of nuclei or cells in an area of tissue, mm².

    Columns that the table lacks are not looked at; *one* and *what* name an object and several.
    """
    count, (fewest, most) = len(table), _CELLS_PER_MM2
    doubts = []
    if not count:
        return [f"no {one} was found{_CHECK}"]
    density = count / tissue_mm2 if tissue_mm2 > 0 else 0.0
    if (count >= _FEW and density > most) or (tissue_mm2 * fewest >= _FEW and density < fewest):
        doubts.append(
            f"{_rounded(density)} {what} per mm² of tissue are implausible (usual are "
            f"{fewest:g} to {most:g}){_CHECK}"
        )
    if count < _FEW:
        return doubts
    if "area_um2" in table:
        doubts += _size_doubt(table["area_um2"], _NUCLEUS_UM2, what)
    if "haematoxylin_od" in table:
        staining = float(np.nanmedian(np.asarray(table["haematoxylin_od"], float)))
        if staining < _HAEMATOXYLIN_OD:
            doubts.append(
                f"the {what} are hardly stained (median haematoxylin {staining:.2g} OD, natural): "
                f"they may be noise or dust{_CHECK}"
            )
    return doubts


def vessel_doubts(table: Table, tissue_mm2: float) -> list[str]:
    """Doubts about the number and size of vessels in an area of tissue, mm²."""
    count = len(table)
    if count < _FEW or tissue_mm2 <= 0:
        return []
    doubts, density = [], count / tissue_mm2
    share = float(np.sum(table["area_um2"])) / 1e6 / tissue_mm2
    if density > _VESSELS_PER_MM2:
        doubts.append(
            f"{_rounded(density)} vessels per mm² of tissue are implausible (usual are up to "
            f"{_VESSELS_PER_MM2:g}){_CHECK}"
        )
    if share > _VESSEL_SHARE:
        doubts.append(f"vessels cover {share:.0%} of the tissue, which is implausible{_CHECK}")
    return doubts + _size_doubt(table["area_um2"], _VESSEL_UM2, "vessels")


def _size_doubt(areas_um2: ArrayLike, limits: tuple[float, float], what: str) -> list[str]:
    median = float(np.median(np.asarray(areas_um2, float)))
    if limits[0] <= median <= limits[1]:
        return []
    return [
        f"the {what} have a median area of {_rounded(median)} µm², which is implausible (usual are "
        f"{limits[0]:g} to {limits[1]:g} µm²){_CHECK}"
    ]


def class_doubts(area_mm2: dict[str, float]) -> list[str]:
    """A doubt about each class that no tissue was given to; areas in mm² by class."""
    return [
        f"no tissue was classified as {name}; check the classes of the annotations and the model"
        for name, area in area_mm2.items()
        if not area > 0
    ]


def column_doubts(table: Table) -> list[str]:
    """A doubt that names the parameters without a value in any row."""
    empty = [
        name
        for name in table
        if np.asarray(table[name]).dtype.kind == "f" and not np.isfinite(table[name]).any()
    ]
    return [f"no tile has a value of {', '.join(empty)}"] if empty and len(table) else []


def _rounded(value: float) -> str:
    return f"{float(f'{value:.3g}'):g}"
