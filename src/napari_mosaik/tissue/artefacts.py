"""Artefacts of section and scan that should not be measured: pen, folds, blur and air bubbles.

Pen, folds and bubbles show on an overview of a few µm per pixel.  Blur does not: it is measured on
pixels of 2 µm, block by block, and summed over cells of 64 µm.  Readers correct the mask manually.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy  # its parts are loaded on first use
from numpy.typing import NDArray

from napari_mosaik.core import InputError, Params, Raster, setting
from napari_mosaik.core.colour import luma, optical_density
from napari_mosaik.core.corrections import Correction, correction_area
from napari_mosaik.core.frame import FloatArray, Lattice, Mask
from napari_mosaik.core.progress import checkpoint
from napari_mosaik.core.rasterise import rasterise
from napari_mosaik.core.shapes import AnnotatedShape

__all__ = [
    "ARTEFACT_NAMES",
    "BLUR_HALO_UM",
    "BLUR_SPACING_UM",
    "ArtefactParams",
    "ManualArtefacts",
    "apply_artefact_corrections",
    "artefact_areas_mm2",
    "artefact_mask",
    "blurred_cells",
    "bubbles",
    "folds",
    "sharpness_sums",
]


ARTEFACT_NAMES: Final = {0: "none", 1: "pen", 2: "fold", 3: "blur", 4: "air bubble", 5: "other"}
"""Codes of the artefact mask; "other" is set manually only."""
BLUR_SPACING_UM: Final = 2.0
"""Pixel size at which sharpness is measured, µm."""
BLUR_HALO_UM: Final = 34.0
"""Halo of a block on which its sharpness depends, µm: four standard deviations of 4 pixels."""
_CELL_PX: Final = 32
_CLEARED = 255
_FINE_PX, _COARSE_PX = 1.0, 4.0
_MIN_CONTRAST: Final = 2.0
_OVERVIEW_UM: Final = 16.0
"""Pixel size at which folds and bubbles are detected, µm."""
_GLASS_OD: Final = 0.05
_USUAL_PERCENT: Final = 85.0
_SOLID: Final = 0.75
"""Minimum fraction of its moment ellipse that a fold fills: strong staining is lacy."""


class ArtefactParams(Params):
    """Which artefacts of section and scan are detected, and excluded from the tissue."""

    exclude_folds: bool = setting(
        True, "Exclude tissue folds; they are marked in any case.", advanced=True
    )
    fold_ratio: float = setting(
        1.25,
        "Minimum optical density of a fold relative to the 85th percentile of the tissue, in red, "
        "green and blue alike.",
        label="Minimum fold density ratio",
        advanced=True,
        gt=1,
        le=3,
    )
    min_fold_mm2: float = setting(
        0.008, "Minimum area of a fold.", label="Minimum fold area", unit="mm²", advanced=True, ge=0
    )
    look_for_blur: bool = setting(
        True,
        "Detect out-of-focus regions, in one more pass over the slide at 2 µm per pixel.",
        label="Detect blur",
        advanced=True,
    )
    exclude_blur: bool = setting(
        True,
        "Exclude out-of-focus regions; they are marked in any case.",
        advanced=True,
        only_with={"look_for_blur": True},
    )
    min_sharpness: float = setting(
        0.36,
        "Minimum sharpness of a 64 µm cell: contrast below 2 µm over contrast at 2 to 8 µm. Sharp "
        "slides have 0.6 and more; 0.36 is a blur of about 2.5 µm.",
        label="Minimum sharpness",
        advanced=True,
        ge=0,
        le=1,
        only_with={"look_for_blur": True},
    )
    exclude_bubbles: bool = setting(
        True, "Exclude air bubbles; they are marked in any case.", advanced=True
    )
    min_bubble_mm2: float = setting(
        0.05,
        "Minimum area of an air bubble.",
        label="Minimum bubble area",
        unit="mm²",
        advanced=True,
        ge=0,
    )


def folds(overview: Raster, tissue: Mask, params: ArtefactParams) -> Mask:
    """Mask of tissue folds, (rows, columns): elongated, and darker than nearly all tissue.

    Parameters
    ----------
    overview
        (rows, columns, 3) 8-bit RGB of at most about 16 µm per pixel.
    tissue
        (rows, columns) tissue mask.
    params
        Settings.

    Notes
    -----
    Two layers of tissue have twice the optical density in red, green and blue alike; dense nuclei
    are dark in red, DAB in blue.  A fold in pale tissue that is no darker than the darkest normal
    tissue of the slide is not detected.  Strong staining is as dark but lacy, so only objects that
    fill the ellipse of their second moments count.
    """
    spacing = overview.lattice.spacing_um
    sigma = (*(12.0 / s for s in spacing), 0)
    smooth = scipy.ndimage.gaussian_filter(optical_density(overview.values), sigma)
    inside = tissue & (smooth.mean(axis=2) > _GLASS_OD)
    if not inside.any():
        return np.zeros(tissue.shape, bool)
    usual = np.percentile(smooth[inside], _USUAL_PERCENT, axis=0)
    dark = inside & (smooth >= params.fold_ratio * usual).all(axis=2)
    pieces, n = scipy.ndimage.label(dark, np.ones((3, 3)))
    keep = np.zeros(n + 1, bool)
    min_px = params.min_fold_mm2 * 1e6 / overview.lattice.sample_area_um2
    for label, window in enumerate(scipy.ndimage.find_objects(pieces), 1):
        checkpoint()
        at = np.argwhere(pieces[window] == label) * np.asarray(spacing)
        if len(at) >= max(3, min_px):
            small, large = np.linalg.eigvalsh(np.cov(at.T))
            ellipse = 4 * math.pi * math.sqrt(max(small * large, 0.0))
            solid = len(at) * spacing[0] * spacing[1] >= _SOLID * ellipse
            keep[label] = solid and large >= 4 * small
    return np.asarray(keep[pieces], bool)


def bubbles(overview: Raster, params: ArtefactParams) -> Mask:
    """Mask of air bubbles with their rim, (rows, columns): thin grey rings around a round area.

    *overview* holds 8-bit levels, (rows, columns, 3) at a few µm per pixel.
    """
    rgb = overview.values.astype(np.float32)
    high, low = rgb.max(axis=2), rgb.min(axis=2)
    grey = scipy.ndimage.gaussian_filter(luma(rgb), 1.0)
    around = scipy.ndimage.uniform_filter(grey, 15)
    rim = (grey < around - 8) & ((high - low) < 0.2 * np.maximum(high, 1))
    pieces, _ = scipy.ndimage.label(
        scipy.ndimage.binary_closing(rim, np.ones((3, 3), bool)), np.ones((3, 3))
    )
    out = np.zeros(rim.shape, bool)
    min_px = params.min_bubble_mm2 * 1e6 / overview.lattice.sample_area_um2
    for label, window in enumerate(scipy.ndimage.find_objects(pieces), 1):
        checkpoint()
        height, width = (part.stop - part.start for part in window)
        if height * width < min_px or not 0.6 < height / width < 1.7:
            continue
        piece = pieces[window] == label
        filled = np.asarray(scipy.ndimage.binary_fill_holes(piece), bool)
        round_enough = filled.sum() >= 0.65 * height * width
        if filled.sum() >= min_px and filled.sum() >= 2.5 * piece.sum() and round_enough:
            out[window] |= filled
    return out


def sharpness_sums(grey: NDArray[Any], start: tuple[int, int], inner: Any) -> dict[str, Any]:
    """What one block adds to the sharpness of the 64 µm cells in it.

    Parameters
    ----------
    grey
        (rows, columns) grey levels 0-255 with a halo of `BLUR_HALO_UM`.
    start
        Row and column index of the block's first inner pixel on the whole slide.
    inner
        The part of *grey* without the halo.

    Returns
    -------
    ``cell`` (m, 2) row and column index of cells of 32 pixels, ``fine`` and ``coarse`` (m,) sums of
    squared contrast (squared grey levels), ``pixels`` (m,) counts.
    """
    values = np.asarray(grey, np.float32)
    first = scipy.ndimage.gaussian_filter(values, _FINE_PX)
    fine = (values - first)[inner]
    coarse = (first - scipy.ndimage.gaussian_filter(values, _COARSE_PX))[inner]
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
        `sharpness_sums` of each block; blocks may be missing.
    lattice
        Lattice of the measured pixels, µm.
    params
        Settings.

    Returns
    -------
    Raster
        (rows, columns) mask of cells, True where at least four of a cell and its eight neighbours
        are blurred.  A cell with less contrast than two grey levels counts as its neighbours.
    """
    shape = tuple(-(-n // _CELL_PX) for n in lattice.shape)
    fine, coarse, pixels = (np.zeros(shape) for _ in range(3))
    for part in sums:
        at = tuple(np.asarray(part["cell"]).T)
        for total, name in ((fine, "fine"), (coarse, "coarse"), (pixels, "pixels")):
            np.add.at(total, at, part[name])
    measured = pixels > 0
    contrast = np.sqrt(coarse / np.maximum(pixels, 1))
    known = measured & (contrast >= _MIN_CONTRAST)
    ratio = np.sqrt(fine / np.maximum(coarse, 1e-9))
    blurred = known & (ratio < params.min_sharpness)
    votes = scipy.ndimage.convolve(
        blurred.astype(np.int64), np.ones((3, 3), np.int64), mode="constant"
    )
    majority = measured & (blurred | ~known) & (votes >= 4)
    spacing = (lattice.spacing_um[0] * _CELL_PX, lattice.spacing_um[1] * _CELL_PX)
    return Raster(
        majority, Lattice(lattice.frame, (shape[0], shape[1]), spacing, lattice.origin_um)
    )


def artefact_mask(
    overview: Raster, tissue: Mask, ink: Mask, blurred: Mask | None, params: ArtefactParams
) -> Raster:
    """Codes of `ARTEFACT_NAMES` on the lattice of the overview, (rows, columns) uint8.

    Parameters
    ----------
    overview
        (rows, columns, 3) 8-bit RGB.
    tissue, ink, blurred
        (rows, columns) masks of tissue, pen and blur; *blurred* is None where blur was not
        looked for.
    params
        Settings.
    """
    codes = np.zeros(tissue.shape, np.uint8)
    if blurred is not None:
        codes[blurred & tissue] = 3
    step = max(1, math.floor(_OVERVIEW_UM / max(overview.lattice.spacing_um)))
    small = _coarser(overview, step)
    inside = tissue[: small.values.shape[0] * step : step, : small.values.shape[1] * step : step]
    for code, marked in ((2, folds(small, inside, params)), (4, bubbles(small, params))):
        wide = marked.repeat(step, axis=0).repeat(step, axis=1)
        codes[: wide.shape[0], : wide.shape[1]][wide] = code
    codes[(codes == 2) & ~tissue] = 0
    codes[ink] = 1
    return Raster(codes, overview.lattice)


def _coarser(overview: Raster, step: int) -> Raster:
    """Mean of *step* x *step* pixels, enough for folds and bubbles, in a fraction of the memory.

    Rows and columns that do not make up a whole pixel are dropped.
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


def artefact_areas_mm2(artefacts: Raster) -> dict[str, float]:
    """Area of each kind of artefact, mm²; every kind is present.

    *artefacts* are codes of `ARTEFACT_NAMES`, (rows, columns).
    """
    counts = np.bincount(np.asarray(artefacts.values).ravel(), minlength=len(ARTEFACT_NAMES))
    area = artefacts.lattice.sample_area_um2 / 1e6
    return {name: float(counts[code] * area) for code, name in ARTEFACT_NAMES.items() if code}


@dataclass(frozen=True, slots=True, eq=False)
class ManualArtefacts:
    """An artefact mask with the manual corrections of a reader.

    Parameters
    ----------
    mask
        (rows, columns) codes of `ARTEFACT_NAMES`.
    flagged, cleared
        (rows, columns) masks: where a reader marked an artefact, and where a reader cleared one.
    """

    mask: Raster
    flagged: NDArray[np.bool_]
    cleared: NDArray[np.bool_]

    def areas_mm2(self) -> dict[str, float]:
        """Manually marked area by kind, and manually cleared area ("cleared"), mm²."""
        pixel_mm2 = self.mask.lattice.sample_area_um2 / 1e6
        codes = np.asarray(self.mask.values)[self.flagged]
        counts = np.bincount(codes, minlength=len(ARTEFACT_NAMES))
        areas = {name: float(counts[code] * pixel_mm2) for code, name in ARTEFACT_NAMES.items()}
        del areas[ARTEFACT_NAMES[0]]
        return {**areas, "cleared": float(self.cleared.sum() * pixel_mm2)}


def apply_artefact_corrections(
    artefacts: Raster, corrections: Iterable[Correction]
) -> ManualArtefacts:
    """Mark and clear artefacts manually; where areas overlap, the later one counts.

    Parameters
    ----------
    artefacts
        (rows, columns) codes of `ARTEFACT_NAMES`, as detected.
    corrections
        "flag" with the kind as its word, and "clear", each with its area in µm of the mask's
        frame, oldest first.

    Returns
    -------
    QualityByHand
        ``cleared`` holds only artefacts that were detected.

    Raises
    ------
    InputError
        An area cannot be read, or a kind is unknown; the message quotes it.
    """
    codes = {name: code for code, name in ARTEFACT_NAMES.items() if code} | {"": _CLEARED}
    shapes = []
    for i, one in enumerate(corrections):
        word = one.word if one.kind == "flag" else ""
        if word not in codes:
            known = ", ".join(name for name in codes if name)
            raise InputError(f"unknown artefact type '{word}'; use one of: {known}")
        shapes.append(AnnotatedShape(str(i), word, correction_area(one)))
    detected = np.asarray(artefacts.values)
    drawn = rasterise(shapes, artefacts.lattice, codes)
    cleared = drawn == _CLEARED
    values = np.where(drawn == 0, detected, np.where(cleared, 0, drawn)).astype(np.uint8)
    mask = Raster(values, artefacts.lattice)
    return ManualArtefacts(mask, (drawn > 0) & ~cleared, cleared & (detected > 0))
