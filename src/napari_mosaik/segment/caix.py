"""CAIX per cell: membrane DAB density in a ring around each nucleus, grade and H-score.

CAIX is a membrane protein, so the ring around the nucleus is measured, not the nucleus.  A ring
pixel belongs to the nearest nucleus only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import model_validator

from napari_mosaik.core.colour import DAB, HAEMATOXYLIN, LN10
from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Mask
from napari_mosaik.core.params import Params, setting
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.core.table import Table
from napari_mosaik.segment.filters import Float32, require_rgb, stain_amount
from napari_mosaik.segment.masks import Labels

__all__ = ["CaixParams", "cell_rings", "grade", "h_score", "score_caix"]

H_DAB = np.array([HAEMATOXYLIN, DAB]).T


class CaixParams(Params):
    """Settings of the CAIX score; its cut-offs are optical densities to base 10."""

    spacing_um: float = setting(
        1.0, "Pixel size at which cells are scored.", label="Pixel size", unit="µm", gt=0
    )
    ring_inner_um: float = setting(
        0.0,
        "Inner distance of the ring from the nucleus.",
        label="Inner ring distance",
        unit="µm",
        ge=0,
        le=20,
    )
    ring_outer_um: float = setting(
        8.0,
        "Outer distance of the ring from the nucleus; clear cytoplasm needs a wider ring.",
        label="Outer ring distance",
        unit="µm",
        gt=0,
        le=30,
    )
    membrane_share: float = setting(
        0.15,
        "Fraction of the ring's pixels, those with most DAB, that count as membrane; 1 averages "
        "the whole ring.",
        label="Membrane fraction",
        gt=0,
        le=1,
    )
    calibration: float = setting(
        1.0,
        "Calibration factor of the densities before grading: the nominal density of a control over "
        "its measured density in this staining batch.",
        label="Calibration factor",
        gt=0.1,
        le=10,
    )
    cutoff_1: float = setting(
        0.2,
        "DAB density from which staining is weak (1+).",
        label="Cutoff 1+",
        unit="OD10",
        gt=0,
        le=3,
    )
    cutoff_2: float = setting(
        0.4,
        "DAB density from which staining is moderate (2+).",
        label="Cutoff 2+",
        unit="OD10",
        gt=0,
        le=3,
    )
    cutoff_3: float = setting(
        0.6,
        "DAB density from which staining is strong (3+).",
        label="Cutoff 3+",
        unit="OD10",
        gt=0,
        le=3,
    )

    @model_validator(mode="after")
    def _ordered(self) -> CaixParams:
        if not self.cutoff_1 < self.cutoff_2 < self.cutoff_3:
            raise ValueError("the three cut-offs must increase")
        if not self.ring_inner_um < self.ring_outer_um:
            raise ValueError("the outer distance of the ring must exceed the inner one")
        return self

    @property
    def cutoffs(self) -> tuple[float, float, float]:
        """The three cut-offs, optical density to base 10."""
        return (self.cutoff_1, self.cutoff_2, self.cutoff_3)

    @property
    def halo_um(self) -> float:
        """Halo that a block needs in addition to that of its nuclei, µm."""
        return self.ring_outer_um + 2 * self.spacing_um


def cell_rings(nuclei: Labels, inner_px: float, outer_px: float) -> Labels:
    """Label of the nearest nucleus in the ring around it; 0 in nuclei and outside all rings.

    Parameters
    ----------
    nuclei
        (rows, columns) int32 labels.
    inner_px, outer_px
        The ring holds pixels with ``inner < distance <= outer`` between pixel centres.

    Returns
    -------
    numpy.ndarray
        (rows, columns) labels.  Of two equally near nuclei the one whose nearest pixel comes first
        in raster order wins, so the result does not depend on the numbering or the block.
    """
    reach = int(outer_px)
    return _rings(np.ascontiguousarray(nuclei, np.int32), reach, inner_px**2, outer_px**2 + 1e-9)


@compiled
def _rings(nuclei: Labels, reach: int, inner_sq: float, outer_sq: float) -> Labels:
    """Exact nearest nucleus in two passes: along columns, then along rows."""
    rows = _rows_to_nucleus(nuclei, reach)
    width = nuclei.shape[1]
    out = np.zeros(nuclei.shape, np.int32)
    for r in range(nuclei.shape[0]):
        near = 0  # columns within reach that hold a nucleus within reach
        for c in range(min(reach, width)):
            near += rows[r, c] <= reach
        for c in range(width):
            if c + reach < width:
                near += rows[r, c + reach] <= reach
            if c > reach:
                near -= rows[r, c - reach - 1] <= reach
            if near > 0 and nuclei[r, c] == 0:
                out[r, c] = _owner(nuclei, rows, r, c, reach, inner_sq, outer_sq)
    return out


@compiled
def _rows_to_nucleus(nuclei: Labels, reach: int) -> Labels:
    """Signed rows to the nearest nucleus pixel of a column, the upper of two equally near ones.

    ``reach + 1`` if none is near.
    """
    out = np.full(nuclei.shape, reach + 1, np.int32)
    for r in range(nuclei.shape[0]):
        for c in range(nuclei.shape[1]):
            if nuclei[r, c] > 0:
                out[r, c] = 0
            elif r > 0 and -reach < out[r - 1, c] <= 0:
                out[r, c] = out[r - 1, c] - 1
    for r in range(nuclei.shape[0] - 2, -1, -1):
        for c in range(nuclei.shape[1]):
            down = out[r + 1, c] + 1
            if 0 < down < abs(out[r, c]):
                out[r, c] = down
    return out


@compiled
def _owner(
    nuclei: Labels, rows: Labels, r: int, c: int, reach: int, inner_sq: float, outer_sq: float
) -> int:
    best, best_row, best_col = reach * reach + 1, 0, 0
    for away in range(reach + 1):
        if away * away > best:
            break
        for j in (c - away, c + away):
            if 0 <= j < nuclei.shape[1] and rows[r, j] <= reach:
                row = rows[r, j]
                squared = away * away + row * row
                if squared < best or (squared == best and row < best_row):
                    best, best_row, best_col = squared, row, j - c
    if best <= inner_sq or best > outer_sq or best > reach * reach:
        return 0
    return int(nuclei[r + best_row, c + best_col])


def grade(od10: ArrayLike, params: CaixParams) -> NDArray[np.int8]:
    """Grade 0, 1, 2 or 3 of each cell (index), by ``>=`` at the cut-offs; -1 where NaN.

    *od10* and the grades have one shape, (n,); densities are optical densities to base 10.
    """
    density = np.asarray(od10, float)
    grades = np.digitize(density, params.cutoffs)
    return np.where(np.isfinite(density), grades, -1).astype(np.int8)


def h_score(grades: ArrayLike) -> float:
    """H-score in [0, 300]: 1 x % of grade 1 + 2 x % of grade 2 + 3 x % of grade 3 (dimensionless).

    *grades* are those of the cells, (n,).  Cells of grade -1 (not measurable) are ignored; NaN
    without cells.  Source: McCarty et al.
    1985, Arch Pathol Lab Med.
    """
    values = np.asarray(grades, float)
    values = values[values >= 0]
    return float(100 * values.mean()) if values.size else float("nan")


def score_caix(
    image: Raster,
    nuclei: LabelImage | Labels,
    params: CaixParams | None = None,
    tumour: Mask | None = None,
    vectors: ArrayLike | None = None,
) -> Table:
    """CAIX of every cell of an image (or of a block with halo).

    Parameters
    ----------
    image
        (rows, columns, 3) 8-bit RGB of the CAIX slide with square pixels.
    nuclei
        Labels 1..n on the same lattice.
    params
        Settings.
    tumour
        (rows, columns) True in neoplastic tissue; None where no tissue classes exist.
    vectors
        (3, 2) OD vectors of haematoxylin and DAB; Ruifrok and Johnston 2001 if None.

    Returns
    -------
    Table
        Row ``k - 1`` is nucleus ``k``: ``row_um``, ``column_um`` (centroid), ``membrane_od10``
        (mean DAB density of the ``membrane_share`` of the ring with most DAB, base 10, times
        ``calibration``; NaN without ring pixels), ``nucleus_od10``,
        ``ring_px``, ``grade`` (0-3, -1 where not measurable) and ``tumour`` (centroid in
        neoplastic tissue; True everywhere without a mask).
    """
    params = params or CaixParams()
    rgb, lattice = require_rgb(image.values), image.lattice
    labels = np.ascontiguousarray(
        nuclei.array() if isinstance(nuclei, LabelImage) else nuclei, np.int32
    )
    if labels.shape != lattice.shape or (tumour is not None and tumour.shape != lattice.shape):
        raise InputError(
            f"nuclei and tumour mask must have the shape of the image, {lattice.shape}"
        )
    spacing_um = lattice.spacing_um[0]
    density = stain_amount(rgb, H_DAB if vectors is None else vectors, 1)
    rings = cell_rings(labels, params.ring_inner_um / spacing_um, params.ring_outer_um / spacing_um)
    n = int(labels.max(initial=0))
    ring_px, ring_od = _brownest(rings, density, n, params.membrane_share)
    _, nucleus_od = _brownest(labels, density, n, 1.0)
    centres = _centroids(labels, n)
    positions_um = lattice.to_um(centres)
    membrane_od10 = ring_od / LN10 * params.calibration
    return Table(
        {
            "row_um": positions_um[:, 0],
            "column_um": positions_um[:, 1],
            "membrane_od10": membrane_od10,
            "nucleus_od10": nucleus_od / LN10 * params.calibration,
            "ring_px": ring_px,
            "grade": grade(membrane_od10, params),
            "tumour": _in_mask(centres, tumour),
        },
        {"row_um": "µm", "column_um": "µm", "membrane_od10": "OD10", "nucleus_od10": "OD10"},
        {
            "row_um": "centroid of the nucleus, row",
            "column_um": "centroid of the nucleus, column",
            "membrane_od10": "DAB density of the membrane at the nucleus, OD (base 10), "
            "calibrated.",
            "nucleus_od10": "Mean DAB density in the nucleus, OD (base 10), calibrated.",
            "ring_px": "Number of pixels of the ring.",
            "grade": "0 negative, 1 weak, 2 moderate, 3 strong, -1 not measurable.",
            "tumour": "Whether the cell lies in neoplastic tissue.",
        },
        lattice.frame,
    )


def _in_mask(centres: NDArray[np.float64], tumour: Mask | None) -> Mask:
    if tumour is None:
        return np.ones(centres.shape[0], bool)
    out = np.zeros(centres.shape[0], bool)
    known = np.isfinite(centres[:, 0])
    rows, cols = np.floor(centres[known] + 0.5).astype(np.int64).T
    out[known] = np.asarray(tumour, bool)[rows, cols]
    return out


@compiled
def _brownest(
    labels: Labels, values: Float32, n: int, share: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pixel count of each object 1..n and the mean of its highest values; NaN without pixels."""
    count, start, pool = _by_object(labels, values, n)
    mean = np.full(n, np.nan)
    for k in range(n):
        if count[k] > 0:
            ordered = np.sort(pool[start[k] : start[k] + count[k]])
            m = int(np.ceil(share * count[k] - 1e-9))
            mean[k] = ordered[count[k] - m :].astype(np.float64).mean()
    return count, mean


@compiled
def _by_object(
    labels: Labels, values: Float32, n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Float32]:
    """Values sorted by object: pixel count, first position, and all values."""
    count = np.zeros(n, np.int64)
    for k in labels.ravel():
        if k > 0:
            count[k - 1] += 1
    start = np.cumsum(count) - count
    fill = start.copy()
    pool = np.empty(count.sum(), np.float32)
    for r in range(labels.shape[0]):
        for c in range(labels.shape[1]):
            k = labels[r, c] - 1
            if k >= 0:
                pool[fill[k]] = values[r, c]
                fill[k] += 1
    return count, start, pool


def _centroids(labels: Labels, n: int) -> NDArray[np.float64]:
    """(n, 2) mean row and column index of each object; NaN where it has no pixels."""
    inside = labels > 0
    index = labels[inside] - 1
    with np.errstate(invalid="ignore"):
        return np.stack(
            [
                np.bincount(index, at, n) / np.bincount(index, minlength=n)
                for at in np.nonzero(inside)
            ],
            axis=1,
        )
