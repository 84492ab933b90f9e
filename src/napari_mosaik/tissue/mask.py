"""Tissue detection on a thumbnail of a slide, with every length in µm."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_mosaik.core import InputError, Raster, setting
from napari_mosaik.core.colour import luma
from napari_mosaik.core.corrections import Correction
from napari_mosaik.core.distance import within
from napari_mosaik.core.frame import Mask
from napari_mosaik.core.otsu import otsu_bin
from napari_mosaik.core.rasterise import rasterise
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.tissue.artefacts import (
    ArtefactParams,
    ManualArtefacts,
    artefact_mask,
    correction_area,
)

__all__ = [
    "TissueParams",
    "apply_mask_corrections",
    "exclude_artefacts",
    "find_artefacts",
    "ink_mask",
    "tissue_mask",
]


_BLACK = 4
"""Largest channel value of scanner padding."""
_BAND_ROWS = 256
_NEARLY_BLACK = 50
"""A margin of at most this grey level means a dark background."""
_NOTHING_FOUND = "no tissue found: {why}. Check the slide file or change the tissue settings."
_CORRECTION_CODES = {"add": 1, "cut": 2}


class TissueParams(ArtefactParams):
    """Settings of the tissue mask."""

    spacing_um: float = setting(
        8.0,
        "Pixel size of the thumbnail on which tissue is detected.",
        unit="µm",
        label="Thumbnail pixel size",
        ge=1,
        le=100,
    )
    min_speck_mm2: float = setting(
        0.0003,
        "Minimum area of a dark object before dilation; smaller specks (dust, debris) are removed.",
        unit="mm²",
        label="Minimum speck area",
        advanced=True,
        ge=0,
    )
    dilation_um: float = setting(
        50.0,
        "Diameter of the disc that dilates the thresholded tissue.",
        unit="µm",
        label="Dilation diameter",
        ge=0,
        le=1000,
    )
    closing_um: float = setting(
        250.0,
        "Diameter of the disc that closes gaps and smooths the outline.",
        unit="µm",
        label="Closing diameter",
        ge=0,
        le=5000,
    )
    min_object_mm2: float = setting(
        0.1,
        "Minimum area of a tissue fragment; smaller fragments are excluded.",
        unit="mm²",
        label="Minimum fragment area",
        ge=0,
    )
    max_hole_mm2: float = setting(
        0.25,
        "Maximum area of a hole that is filled; larger holes, such as necrotic cavities, stay "
        "open.",
        unit="mm²",
        label="Maximum hole area",
        ge=0,
    )
    min_contrast: float = setting(
        12.0,
        "Minimum grey-level difference between tissue and glass; below it the slide counts as "
        "blank.",
        label="Minimum contrast",
        unit="grey levels",
        advanced=True,
        ge=0,
        le=255,
    )
    coloured_glass: float = setting(
        0.15,
        "Median saturation of the bright class above which the image holds no glass and is all "
        "tissue.",
        label="Maximum saturation of glass",
        advanced=True,
        ge=0,
        le=1,
    )
    pale_tissue: bool = setting(
        True,
        "Detect pale tissue between strong staining and glass by a second Otsu threshold. It is "
        "used if the pale class has at least half the area of the dark class and at least twice "
        "the minimum contrast to glass.",
        label="Detect pale tissue",
        advanced=True,
    )
    exclude_ink: bool = setting(
        True,
        "Exclude pen marks: green, strongly saturated blue, and colourless black.",
        label="Exclude pen marks",
    )
    ink_saturation: float = setting(
        0.65,
        "Minimum saturation of blue ink, above that of haematoxylin; green, which no stain has, "
        "needs 0.4 times as much.",
        label="Minimum ink saturation",
        advanced=True,
        ge=0,
        le=1,
    )
    ink_margin_um: float = setting(
        50.0,
        "Margin around pen marks that is excluded, too.",
        label="Pen margin",
        unit="µm",
        advanced=True,
        ge=0,
    )


def tissue_mask(
    image: Raster, params: TissueParams | None = None, valid: Mask | None = None
) -> Raster:
    """Tissue of a brightfield thumbnail.

    ITU-R 709 luma without black scanner padding and pen marks, Otsu threshold, removal of specks,
    dilation, closing, removal of small fragments, filling of small holes.

    Parameters
    ----------
    image
        (rows, columns, 3) 8-bit RGB, for example ``slide.thumbnail(params.spacing_um)``.
    params
        Settings; all lengths are in µm and hold for any pixel size.
    valid
        (rows, columns) mask, False for pixels on damaged tiles: they are ignored by the thresholds
        and are not tissue.  None where all pixels are valid.

    Returns
    -------
    Raster
        (rows, columns) mask on the lattice of *image*; True is tissue.

    Raises
    ------
    InputError
        If nothing on the slide differs enough from glass.

    Notes
    -----
    Tissue is the dark class unless the image's outer 2 % margin is itself nearly black.  The disc
    of the dilation or closing is the set of points within half its diameter.  Where strong staining
    pulls the threshold below pale tissue, a second threshold within the bright class is used.

    References
    ----------
    Otsu 1979, IEEE Transactions on Systems, Man and Cybernetics 9: 62-66.
    """
    params = params or TissueParams()
    rgb = image.values
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise InputError(f"the tissue mask needs 8-bit RGB, not {rgb.dtype} {rgb.shape}")
    spacing = image.lattice.spacing_um
    off = _padding(rgb)
    if params.exclude_ink:
        off |= ink_mask(rgb, spacing, params)
    if valid is not None:
        off |= ~valid
    tissue = _foreground(rgb, off, params)
    tissue = _without_small(tissue, params.min_speck_mm2 * 1e6 / image.lattice.sample_area_um2)
    tissue = _grown_and_closed(tissue, spacing, params)
    tissue &= ~off
    tissue = _sized(tissue, image.lattice.sample_area_um2, params)
    if valid is not None:
        tissue &= valid  # filling holes must not bring damaged pixels back
    if not tissue.any():
        raise InputError(
            _NOTHING_FOUND.format(why=f"no fragment reaches {params.min_object_mm2:g} mm²")
        )
    return Raster(tissue, image.lattice)


def find_artefacts(
    overview: Raster, tissue: Mask, blurred: Mask | None, params: TissueParams
) -> Raster:
    """Artefacts of a slide: pen, folds, blur and air bubbles.

    Parameters
    ----------
    overview
        (rows, columns, 3) 8-bit RGB.
    tissue, blurred
        (rows, columns) masks of tissue and of blur; None where blur was not looked for.
    params
        Settings.

    Returns
    -------
    Raster
        (rows, columns) codes of `ARTEFACT_NAMES`.
    """
    ink = ink_mask(overview.values, overview.lattice.spacing_um, params)
    return artefact_mask(overview, tissue, ink, blurred, params)


def exclude_artefacts(
    overview: Raster,
    tissue: Raster,
    artefacts: Raster,
    manual: ManualArtefacts,
    params: TissueParams,
    valid: Mask | None = None,
) -> Raster:
    """Tissue without the artefacts that the settings exclude, nor any that a reader marked.

    Where a reader cleared a pen mark, tissue is detected again without the exclusion of pen.

    Parameters
    ----------
    overview
        (rows, columns, 3) 8-bit RGB.
    tissue
        (rows, columns) mask of `tissue_mask`.
    artefacts, manual
        (rows, columns) codes of `find_artefacts`, and those with the manual corrections.
    params
        Settings.
    valid
        (rows, columns) mask, False on damaged tiles; all valid if None.

    Returns
    -------
    Raster
        (rows, columns) mask.
    """
    excluded = {
        1: params.exclude_ink,  # the mask has no pen, but small holes within tissue were filled
        2: params.exclude_folds,
        3: params.exclude_blur,
        4: params.exclude_bubbles,
    }
    codes = [code for code, is_excluded in excluded.items() if is_excluded]
    marked = np.isin(np.asarray(manual.mask.values), codes) | manual.flagged
    clean = np.asarray(tissue.values, bool) & ~marked
    no_pen = manual.cleared & (np.asarray(artefacts.values) == 1)
    if no_pen.any() and params.exclude_ink:
        again = tissue_mask(overview, params.model_copy(update={"exclude_ink": False}), valid)
        clean |= no_pen & np.asarray(again.values, bool)
    return Raster(clean, tissue.lattice)


def apply_mask_corrections(
    mask: Raster, corrections: Iterable[Correction], valid: Mask | None = None
) -> Raster:
    """A tissue mask with areas added and removed; where they overlap, the later one counts.

    Parameters
    ----------
    mask
        (rows, columns) mask; True is tissue.
    corrections
        "add" and "cut" with their area in µm of the mask's frame, oldest first.
    valid
        (rows, columns) mask, False where nothing may be tissue (damaged tiles, marked artefacts).

    Raises
    ------
    InputError
        An area cannot be read; the message quotes it.
    """
    shapes = [AnnotatedShape(str(i), c.kind, correction_area(c)) for i, c in enumerate(corrections)]
    codes = rasterise(shapes, mask.lattice, _CORRECTION_CODES)
    values = np.where(codes == 0, np.asarray(mask.values, bool), codes == _CORRECTION_CODES["add"])
    if valid is not None:
        values &= valid
    return Raster(values, mask.lattice)


def _padding(rgb: NDArray[np.uint8]) -> Mask:
    """Pure black scanner padding with the one-pixel rim that the thumbnail blended with glass."""
    black: Mask = rgb.max(axis=2) <= _BLACK
    if black.any():
        black = np.asarray(ndimage.binary_dilation(black, np.ones((3, 3), bool)), bool)
    return black


def ink_mask(rgb: NDArray[np.uint8], spacing: tuple[float, float], params: TissueParams) -> Mask:
    """Mask of pen marks, (rows, columns): by hue and saturation, at least 0.02 mm², with a margin.

    *rgb* holds 8-bit levels, (rows, columns, 3); *spacing* is the pixel size, µm.
    """
    ink = np.concatenate([_inky(rgb[rows], params) for rows in _bands(rgb.shape[0])])
    ink = _without_small(ink, 0.02e6 / (spacing[0] * spacing[1]))
    if not ink.any() or params.ink_margin_um == 0:
        return ink
    return within(ink, params.ink_margin_um, spacing)


def _bands(n_rows: int) -> list[slice]:
    """Strips of an image that are processed one after the other, to save memory."""
    return [slice(first, first + _BAND_ROWS) for first in range(0, n_rows, _BAND_ROWS)]


def _inky(rgb: NDArray[np.uint8], params: TissueParams) -> Mask:
    """Pixels with the colour of ink."""
    r, g, b = (rgb[..., i].astype(np.float32) for i in range(3))
    high, low = np.maximum(np.maximum(r, g), b), np.minimum(np.minimum(r, g), b)
    saturation = (high - low) / np.maximum(high, 1)
    # Hue 60-195 degrees: green leads, or cyan in which red is by far the least.
    green = (g >= r) & (g >= b) | ((b > g) & (g - r > 0.75 * (b - r)) & (b > r))
    green &= (saturation >= 0.4 * params.ink_saturation) & (high >= 30)
    # Hue 195-243 degrees; haematoxylin lies at 245 and more, or is far less saturated.
    blue = (b > r) & (b > g) & (r - g <= (b - low) / 20) & (saturation >= params.ink_saturation)
    black = (high < 76) & (saturation < 0.35)
    ink: Mask = green | blue | black
    return ink


def _foreground(rgb: NDArray[np.uint8], off: Mask, params: TissueParams) -> Mask:
    """The class of pixels that is tissue, by Otsu's threshold of the grey."""
    bands = _bands(rgb.shape[0])
    grey = np.concatenate([_grey(rgb[rows]) for rows in bands])
    counts = [np.bincount(grey[rows][~off[rows]], minlength=256) for rows in bands]
    histogram = np.sum(counts, axis=0)
    if np.count_nonzero(histogram) < 2:
        raise InputError(_NOTHING_FOUND.format(why="the slide has one colour only"))
    threshold = otsu_bin(histogram)
    dark = (grey <= threshold) & ~off
    bright = (grey > threshold) & ~off
    contrast = float(grey[bright].mean() - grey[dark].mean())
    if contrast < params.min_contrast:
        raise InputError(
            _NOTHING_FOUND.format(
                why=f"tissue and glass differ by only {contrast:.1f} of 255 grey levels"
            )
        )
    if _saturation(rgb[bright]) > params.coloured_glass:
        return ~off
    frame = _frame(grey, off)
    if frame <= threshold:
        return bright if frame <= _NEARLY_BLACK else dark
    if params.pale_tissue:
        threshold = _pale_threshold(histogram, threshold, frame, params)
    return (grey <= threshold) & ~off


def _grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.clip(np.rint(luma(rgb)), 0, 255).astype(np.uint8)


def _pale_threshold(
    histogram: NDArray[np.int64], threshold: int, frame: float, params: TissueParams
) -> int:
    """A second Otsu threshold within the bright class if pale tissue lies there, else the first.

    Strong DAB pulls the first threshold between itself and the counterstain.
    """
    rest = histogram.copy()
    rest[: threshold + 1] = 0
    if np.count_nonzero(rest) < 2:
        return threshold
    second = otsu_bin(rest)
    level = np.arange(rest.size)
    pale, glass = rest[: second + 1], rest[second + 1 :]
    share = pale.sum() / histogram[: threshold + 1].sum()
    contrast = np.average(level[second + 1 :], weights=glass) - np.average(
        level[: second + 1], weights=pale
    )
    clear = share >= 0.5 and contrast >= 2 * params.min_contrast and frame > second
    return second if clear else threshold


def _saturation(pixels: NDArray[np.uint8]) -> float:
    """Median saturation of pixels (n, 3)."""
    high = pixels.max(axis=1).astype(np.float32)
    return float(np.median((high - pixels.min(axis=1)) / np.maximum(high, 1)))


def _frame(grey: NDArray[np.uint8], off: Mask) -> float:
    """Median grey of the outer 2 % of the image; padding counts as glass."""
    rows, columns = (max(1, math.ceil(0.02 * n)) for n in grey.shape)
    edge = np.ones(grey.shape, bool)
    edge[rows:-rows, columns:-columns] = False
    return float(np.median(np.where(off, 255, grey)[edge]))


def _grown_and_closed(tissue: Mask, spacing: tuple[float, float], params: TissueParams) -> Mask:
    """Dilation, then closing; there is no tissue outside the image.

    Two dilations by disks are one by the sum of the radii.
    """
    grow, close = params.dilation_um / 2, params.closing_um / 2
    if grow + close == 0 or not tissue.any():
        return tissue
    pad = [math.ceil((grow + close) / s) + 1 for s in spacing]
    wide = np.pad(tissue, ((pad[0], pad[0]), (pad[1], pad[1])))
    wide = within(wide, grow + close, spacing)
    if close > 0:
        wide = ~within(~wide, close, spacing)
    return wide[pad[0] : -pad[0], pad[1] : -pad[1]]


def _sized(tissue: Mask, pixel_um2: float, params: TissueParams) -> Mask:
    """Small fragments removed, then small holes filled; the edge of the image bounds no hole."""
    tissue = _without_small(tissue, params.min_object_mm2 * 1e6 / pixel_um2)
    labels, _ = ndimage.label(~tissue)
    area = np.bincount(labels.ravel())
    small = area < params.max_hole_mm2 * 1e6 / pixel_um2
    edges = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    small[np.unique(np.concatenate(edges))] = False
    small[0] = False
    filled: Mask = tissue | small[labels]
    return filled


def _without_small(mask: Mask, min_pixels: float) -> Mask:
    """The 8-connected objects of at least *min_pixels*."""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    keep = np.bincount(labels.ravel()) >= min_pixels
    keep[0] = False
    return np.asarray(keep[labels], bool)
