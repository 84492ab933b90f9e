"""Places of a slide that should not be measured: pen, folds, blur and air bubbles.

Pen, folds and bubbles are seen on an overview of a few µm per pixel.  Blur is not: it is measured
on pixels of 2 µm, block by block, and summed over cells of 64 µm.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_mosaik.core import Params, Raster, setting
from napari_mosaik.core.colour import luma, optical_density
from napari_mosaik.core.frame import FloatArray, Lattice, Mask

__all__ = [
    "ARTEFACT_NAMES",
    "BLUR_HALO_UM",
    "BLUR_SPACING_UM",
    "ArtefactParams",
    "artefact_areas_mm2",
    "artefact_mask",
    "blurred_cells",
    "bubbles",
    "folds",
    "sharpness_sums",
]


ARTEFACT_NAMES: Final = {0: "fine", 1: "pen", 2: "fold", 3: "blur", 4: "air bubble", 5: "other"}
"""Codes of the quality mask; "other" is given by hand only."""
BLUR_SPACING_UM: Final = 2.0
"""Pixel size at which sharpness is measured."""
BLUR_HALO_UM: Final = 34.0
"""Margin of a block that its sharpness depends on: four standard deviations of 4 pixels."""
_CELL_PX: Final = 32
_FINE_PX, _COARSE_PX = 1.0, 4.0
_LEAST_CONTRAST: Final = 2.0
_LOOK_UM: Final = 16.0
"""Pixel size at which folds and bubbles are looked for."""
_GLASS_OD: Final = 0.05
_USUAL_PERCENT: Final = 85.0
_SOLID: Final = 0.75
"""Least share of the ellipse of the same second moments that a fold fills: strong stain is lacy."""


class ArtefactParams(Params):
    """Which places of a slide are flagged, and left out of the tissue."""

    exclude_folds: bool = setting(
        True, "Leave folds out of the tissue; they are flagged in any case.", advanced=True
    )
    fold_ratio: float = setting(
        1.25,
        "A fold is this much darker than what 85 % of the tissue stay below (ratio of optical "
        "density, in red, green and blue alike).",
        advanced=True,
        gt=1,
        le=3,
    )
    min_fold_mm2: float = setting(
        0.008, "Smaller dark places are no folds.", unit="mm²", advanced=True, ge=0
    )
    look_for_blur: bool = setting(
        True,
        "Look for blurred places: one more pass over the slide, at 2 µm per pixel.",
        advanced=True,
    )
    exclude_blur: bool = setting(
        True, "Leave blurred places out of the tissue; they are flagged in any case.", advanced=True
    )
    min_sharpness: float = setting(
        0.36,
        "A cell of 64 µm is blurred below this sharpness: contrast finer than 2 µm over contrast "
        "of 2 to 8 µm.  Sharp slides have 0.6 and more, 0.36 is a blur of about 2.5 µm.",
        advanced=True,
        ge=0,
        le=1,
    )
    exclude_bubbles: bool = setting(
        True, "Leave air bubbles out of the tissue; they are flagged in any case.", advanced=True
    )
    min_bubble_mm2: float = setting(
        0.05, "Smaller rings are no air bubbles.", unit="mm²", advanced=True, ge=0
    )


def folds(overview: Raster, tissue: Mask, params: ArtefactParams) -> Mask:
    """Folds within the tissue, (rows, columns): long, and darker than nearly all tissue.

    Parameters
    ----------
    overview
        (rows, columns, 3) 8-bit RGB of at most about 16 µm per pixel.
    tissue
        (rows, columns) True where tissue lies.
    params
        Settings.

    Notes
    -----
    Two layers of tissue have twice the optical density in red, green and blue alike; dense nuclei
    are dark in red, brown in blue.  A fold in pale tissue that is no darker than the darkest
    normal tissue of the slide cannot be told from it and is not flagged.  A strong stain is as dark
    but lacy, so only pieces that fill the ellipse of their second moments count.
    """
    spacing = overview.lattice.spacing_um
    sigma = (*(12.0 / s for s in spacing), 0)
    smooth = ndimage.gaussian_filter(optical_density(overview.values), sigma)
    inside = tissue & (smooth.mean(axis=2) > _GLASS_OD)
    if not inside.any():
        return np.zeros(tissue.shape, bool)
    usual = np.percentile(smooth[inside], _USUAL_PERCENT, axis=0)
    dark = inside & (smooth >= params.fold_ratio * usual).all(axis=2)
    pieces, n = ndimage.label(dark, np.ones((3, 3)))
    keep = np.zeros(n + 1, bool)
    least_px = params.min_fold_mm2 * 1e6 / overview.lattice.sample_area_um2
    for label, window in enumerate(ndimage.find_objects(pieces), 1):
        at = np.argwhere(pieces[window] == label) * np.asarray(spacing)
        if len(at) >= max(3, least_px):
            small, large = np.linalg.eigvalsh(np.cov(at.T))
            ellipse = 4 * math.pi * math.sqrt(max(small * large, 0.0))
            solid = len(at) * spacing[0] * spacing[1] >= _SOLID * ellipse
            keep[label] = solid and large >= 4 * small
    return np.asarray(keep[pieces], bool)


def bubbles(overview: Raster, params: ArtefactParams) -> Mask:
    """Air bubbles with their rim, (rows, columns): thin grey rings that enclose a round area."""
    rgb = overview.values.astype(np.float32)
    high, low = rgb.max(axis=2), rgb.min(axis=2)
    grey = ndimage.gaussian_filter(luma(rgb), 1.0)
    around = ndimage.uniform_filter(grey, 15)
    rim = (grey < around - 8) & ((high - low) < 0.2 * np.maximum(high, 1))
    pieces, _ = ndimage.label(ndimage.binary_closing(rim, np.ones((3, 3), bool)), np.ones((3, 3)))
    out = np.zeros(rim.shape, bool)
    least = params.min_bubble_mm2 * 1e6 / overview.lattice.sample_area_um2
    for label, window in enumerate(ndimage.find_objects(pieces), 1):
        height, width = (part.stop - part.start for part in window)
        if height * width < least or not 0.6 < height / width < 1.7:
            continue
        piece = pieces[window] == label
        filled = np.asarray(ndimage.binary_fill_holes(piece), bool)
        round_enough = filled.sum() >= 0.65 * height * width
        if filled.sum() >= least and filled.sum() >= 2.5 * piece.sum() and round_enough:
            out[window] |= filled
    return out


def sharpness_sums(grey: NDArray[Any], start: tuple[int, int], inner: Any) -> dict[str, Any]:
    """What one block adds to the sharpness of the cells in it.

    Parameters
    ----------
    grey
        (rows, columns) grey levels 0-255 with a margin of `BLUR_HALO_UM`.
    start
        Row and column of the block's first inner pixel on the whole slide.
    inner
        The part of *grey* without the margin.

    Returns
    -------
    ``cell`` (m, 2) rows and columns of cells of 32 pixels, ``fine`` and ``coarse`` (m,) sums of
    squared contrast, ``pixels`` (m,).
    """
    values = np.asarray(grey, np.float32)
    first = ndimage.gaussian_filter(values, _FINE_PX)
    fine = (values - first)[inner]
    coarse = (first - ndimage.gaussian_filter(values, _COARSE_PX))[inner]
    rows = (start[0] + np.arange(fine.shape[0])) // _CELL_PX
    cols = (start[1] + np.arange(fine.shape[1])) // _CELL_PX
    row_starts = np.flatnonzero(np.diff(rows, prepend=-1))
    col_starts = np.flatnonzero(np.diff(cols, prepend=-1))

    def summed(squares: NDArray[Any]) -> FloatArray:
        strips = np.add.reduceat(squares.astype(float), row_starts, axis=0)
        return np.asarray(np.add.reduceat(strips, col_starts, axis=1), float).ravel()

    cell = np.stack(np.meshgrid(rows[row_starts], cols[col_starts], indexing="ij"), axis=-1)
    return {
        "cell": cell.reshape(-1, 2),
        "fine": summed(fine**2),
        "coarse": summed(coarse**2),
        "pixels": summed(np.ones_like(fine)),
    }


def blurred_cells(sums: Any, lattice: Lattice, params: ArtefactParams) -> Raster:
    """Blurred cells of a slide, from the sums of its blocks.

    Parameters
    ----------
    sums
        What `sharpness_sums` gave for each block; blocks may be missing.
    lattice
        Of the pixels that were measured.
    params
        Settings.

    Returns
    -------
    Raster
        (rows, columns) True where at least four of a cell and its eight neighbours are blurred.
        A cell with a contrast below two grey levels says nothing and counts as its neighbours.
    """
    shape = tuple(-(-n // _CELL_PX) for n in lattice.shape)
    fine, coarse, pixels = (np.zeros(shape) for _ in range(3))
    for part in sums:
        at = tuple(np.asarray(part["cell"]).T)
        for total, name in ((fine, "fine"), (coarse, "coarse"), (pixels, "pixels")):
            np.add.at(total, at, part[name])
    measured = pixels > 0
    contrast = np.sqrt(coarse / np.maximum(pixels, 1))
    known = measured & (contrast >= _LEAST_CONTRAST)
    ratio = np.sqrt(fine / np.maximum(coarse, 1e-9))
    blurred = known & (ratio < params.min_sharpness)
    votes = ndimage.convolve(blurred.astype(np.int64), np.ones((3, 3), np.int64), mode="constant")
    found = measured & (blurred | ~known) & (votes >= 4)
    spacing = (lattice.spacing_um[0] * _CELL_PX, lattice.spacing_um[1] * _CELL_PX)
    return Raster(found, Lattice(lattice.frame, (shape[0], shape[1]), spacing, lattice.origin_um))


def artefact_mask(
    overview: Raster, tissue: Mask, ink: Mask, blurred: Mask | None, params: ArtefactParams
) -> Raster:
    """Codes of `ARTEFACT_NAMES` on the overview's lattice, (rows, columns) uint8.

    Parameters
    ----------
    overview
        (rows, columns, 3) 8-bit RGB.
    tissue, ink, blurred
        (rows, columns) True where tissue, pen, blur lies; *blurred* is None where it was not
        looked for.
    params
        Settings.
    """
    codes = np.zeros(tissue.shape, np.uint8)
    if blurred is not None:
        codes[blurred & tissue] = 3
    step = max(1, math.floor(_LOOK_UM / max(overview.lattice.spacing_um)))
    small = _coarser(overview, step)
    inside = tissue[: small.values.shape[0] * step : step, : small.values.shape[1] * step : step]
    for code, found in ((2, folds(small, inside, params)), (4, bubbles(small, params))):
        wide = found.repeat(step, axis=0).repeat(step, axis=1)
        codes[: wide.shape[0], : wide.shape[1]][wide] = code
    codes[(codes == 2) & ~tissue] = 0
    codes[ink] = 1
    return Raster(codes, overview.lattice)


def _coarser(overview: Raster, step: int) -> Raster:
    """The mean of *step* x *step* pixels: folds and bubbles need no more, in a part of the memory.

    Rows and columns that do not make up a whole pixel are left out.
    """
    if step == 1:
        return overview
    rows, cols = (n // step for n in overview.lattice.shape)
    total = np.zeros((rows, cols, 3), np.uint32)
    for i in range(step):
        for j in range(step):
            total += overview.values[i : rows * step : step, j : cols * step : step]
    values = (total // step**2).astype(np.uint8)
    spacing = overview.lattice.spacing_um
    coarse = (spacing[0] * step, spacing[1] * step)
    lattice = Lattice(overview.lattice.frame, (rows, cols), coarse, overview.lattice.origin_um)
    return Raster(values, lattice)


def artefact_areas_mm2(quality: Raster) -> dict[str, float]:
    """Area of each kind of bad place, mm²; every kind is named."""
    counts = np.bincount(np.asarray(quality.values).ravel(), minlength=len(ARTEFACT_NAMES))
    area = quality.lattice.sample_area_um2 / 1e6
    return {name: float(counts[code] * area) for code, name in ARTEFACT_NAMES.items() if code}
