"""Tissue detection on a thumbnail of a slide, with every length in µm."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy  # its parts are loaded on first use
from numpy.typing import NDArray

from napari_mosaik.core import InputError, Raster, setting
from napari_mosaik.core.colour import luma, optical_density
from napari_mosaik.core.corrections import Correction, correction_area
from napari_mosaik.core.distance import within
from napari_mosaik.core.frame import Mask
from napari_mosaik.core.otsu import otsu_bin
from napari_mosaik.core.progress import checkpoint, part_of_item, reach_of_item
from napari_mosaik.core.rasterise import rasterise
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.tissue.artefacts import (
    ArtefactParams,
    ManualArtefacts,
    artefact_mask,
)

__all__ = [
    "TissueParams",
    "apply_mask_corrections",
    "empty_reason",
    "exclude_artefacts",
    "find_artefacts",
    "ink_mask",
    "inky",
    "red_ink",
    "red_marks",
    "tissue_mask",
]


_BLACK = 4
"""Largest channel value of scanner padding."""
_BAND_ROWS = 256
_NEARLY_BLACK = 50
"""A margin of at most this grey level means a dark background."""
_MAX_PALE_CLASSES = 3
_PALE_SHARE = 0.15
"""Smallest area of a class of pale tissue, as a share of all that is darker."""
_OWN_SHARE = 0.2
"""Smallest share of pale tissue that does not lie beside darker tissue."""
_EDGE = 0.4
"""Smallest step at the outline of tissue, as a share of its contrast there to glass."""
_RIM_PX = 6
_MIN_STROKE_UM2 = 0.02e6
_ON_GLASS, _GLASS_LEVEL, _GLASS_RANGE = 0.3, 180, 0.12
"""Smallest share of glass around red pen; level and colour range of glass."""
_GREY_SATURATION = 0.05
"""Largest saturation of noise that is averaged; tissue has 0.1 or more."""
_PIXELS = 1 << 18
"""Pixels whose floats are in memory at a time."""
_COLOURLESS = 0.15
"""Range of the optical densities of red, green and blue over the largest; stains: 0.5 or more."""
_THIN_UM = 100.0
"""Thickness that dust, fibres and the edge of a coverslip do not reach, µm."""
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
        "Exclude pen marks: green, strongly saturated blue, colourless black, and red on glass.",
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


_PADDED, _INKY, _RED_SEEN, _RED_CLOSED, _RED, _MARKED = 0.06, 0.085, 0.135, 0.24, 0.25, 0.253
_COUNTED, _SPLIT, _SMOOTHED, _CONTRASTED, _COLOURED, _FOUND = 0.262, 0.27, 0.312, 0.393, 0.5, 0.526
_SPECKLESS, _GROWN, _SIZED, _GLASS_KNOWN, _LABELLED = 0.545, 0.556, 0.59, 0.615, 0.678
"""Shares of the time of `tissue_mask` (fractions of 1) after its stages, on a large slide."""
_PEN_FOUND = 0.33
"""Share of the time of `find_artefacts` (fraction of 1) when pen is found."""


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
    reach_of_item(_PADDED)
    if params.exclude_ink:
        off |= ink_mask(rgb, spacing, params)
    if valid is not None:
        off |= ~valid
    checkpoint()
    reach_of_item(_MARKED)
    found = _foreground(rgb, off, params)
    checkpoint()
    reach_of_item(_FOUND)
    tissue = _without_small(found, params.min_speck_mm2 * 1e6 / image.lattice.sample_area_um2)
    reach_of_item(_SPECKLESS)
    tissue = _grown_and_closed(tissue, spacing, params)
    reach_of_item(_GROWN)
    checkpoint()
    tissue &= ~off
    tissue = _sized(tissue, image.lattice.sample_area_um2, params)
    reach_of_item(_SIZED)
    if valid is not None:
        tissue &= valid  # filling holes must not bring damaged pixels back
    if not tissue.any():
        raise InputError(
            _NOTHING_FOUND.format(why=f"no fragment reaches {params.min_object_mm2:g} mm²")
        )
    tissue &= ~_no_tissue(rgb, found, tissue, off, spacing, colourless=not params.exclude_ink)
    if not tissue.any():
        raise InputError(
            _NOTHING_FOUND.format(
                why="what differs from glass has no outline (uneven illumination) or is thin and "
                "colourless (dust, the edge of a coverslip)"
            )
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
    with part_of_item(0.0, _PEN_FOUND / _RED):
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
        black = np.asarray(scipy.ndimage.binary_dilation(black, np.ones((3, 3), bool)), bool)
    return black


def ink_mask(rgb: NDArray[np.uint8], spacing: tuple[float, float], params: TissueParams) -> Mask:
    """Mask of pen marks, (rows, columns): by hue and saturation, at least 0.02 mm², with a margin.

    *rgb* holds 8-bit levels, (rows, columns, 3); *spacing* is the pixel size, µm.
    """
    ink = np.concatenate([inky(rgb[rows], params) for rows in _bands(rgb.shape[0])])
    reach_of_item(_INKY)
    ink = _without_small(ink, _MIN_STROKE_UM2 / (spacing[0] * spacing[1]))
    ink |= red_marks(rgb, spacing)[0]
    reach_of_item(_RED)
    if not ink.any() or params.ink_margin_um == 0:
        return ink
    return within(ink, params.ink_margin_um, spacing)


def _bands(n_rows: int) -> list[slice]:
    """Strips of an image that are processed one after the other, to save memory."""
    return [slice(first, first + _BAND_ROWS) for first in range(0, n_rows, _BAND_ROWS)]


def inky(rgb: NDArray[np.uint8], params: TissueParams) -> Mask:
    """Mask of pixels with the colour of ink, (rows, columns).

    *rgb* holds 8-bit levels (count), (rows, columns, 3).
    """
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


def red_marks(rgb: NDArray[np.uint8], spacing: tuple[float, float]) -> tuple[Mask, Mask]:
    """Masks of red pen, and of red that may be pen or blood, (rows, columns).

    Red ink absorbs green and blue alike and hardly any red, unlike eosin (less blue) and DAB (more
    red).  Packed red cells may look the same, but lie within tissue: a mark counts as pen if at
    least 0.3 of what surrounds it is glass.

    Parameters
    ----------
    rgb
        (rows, columns, 3) 8-bit levels.
    spacing
        Pixel size, µm.
    """
    red = np.concatenate([red_ink(rgb[rows]) for rows in _bands(rgb.shape[0])])
    reach_of_item(_RED_SEEN)
    red = scipy.ndimage.binary_closing(red, np.ones((3, 3), bool)) & ~_padding(rgb)
    red = _without_small(red, _MIN_STROKE_UM2 / (spacing[0] * spacing[1]))
    pen = np.zeros(red.shape, bool)
    reach_of_item(_RED_CLOSED)
    labels, _ = scipy.ndimage.label(red, np.ones((3, 3)))
    for number, window in enumerate(scipy.ndimage.find_objects(labels), 1):
        checkpoint()
        around = tuple(slice(max(0, part.start - _RIM_PX), part.stop + _RIM_PX) for part in window)
        own = labels[around] == number
        ring = scipy.ndimage.binary_dilation(own, iterations=_RIM_PX)
        ring &= ~scipy.ndimage.binary_dilation(own, iterations=2)  # its blended edge
        near = rgb[around][ring]
        high = near.max(axis=1).astype(np.float32)
        glass = (high >= _GLASS_LEVEL) & (high - near.min(axis=1) < _GLASS_RANGE * high)
        if np.count_nonzero(glass) >= _ON_GLASS * max(1, glass.size):
            pen[around] |= own
    return pen, red & ~pen


def red_ink(rgb: NDArray[np.uint8]) -> Mask:
    """Mask of pixels with the colour of red ink, (rows, columns).

    *rgb* holds 8-bit levels (count), (rows, columns, 3).
    """
    red, green, blue = (optical_density(rgb[..., i]) for i in range(3))
    least = np.minimum(green, blue)
    mask: Mask = (least > 0.7) & (red < 0.2 * least) & (blue > 0.75 * green) & (blue < 1.5 * green)
    return mask


def _foreground(rgb: NDArray[np.uint8], off: Mask, params: TissueParams) -> Mask:
    """The class of pixels that is tissue, by Otsu's threshold of the grey."""
    grey = _grey(rgb)
    bands = _bands(rgb.shape[0])
    counts = [np.bincount(grey[rows][~off[rows]], minlength=256) for rows in bands]
    histogram = np.sum(counts, axis=0)
    reach_of_item(_COUNTED)
    if np.count_nonzero(histogram) < 2:
        raise InputError(_NOTHING_FOUND.format(why="the slide has one colour only"))
    threshold = otsu_bin(histogram)
    dark = (grey <= threshold) & ~off
    bright = (grey > threshold) & ~off
    contrast = float(grey[bright].mean() - grey[dark].mean())
    # Noise alone has two classes, too, but they are grey and alike once it is averaged.
    reach_of_item(_SPLIT)
    smooth = scipy.ndimage.uniform_filter(rgb, (_RIM_PX, _RIM_PX, 0))
    reach_of_item(_SMOOTHED)
    if _saturation(_picked(smooth, dark)) < _GREY_SATURATION:
        levels = _grey(smooth)
        contrast = min(contrast, float(levels[bright].mean() - levels[dark].mean()))
    reach_of_item(_CONTRASTED)
    if contrast < params.min_contrast:
        raise InputError(
            _NOTHING_FOUND.format(
                why=f"tissue and glass differ by only {contrast:.1f} of 255 grey levels"
            )
        )
    if _saturation(_picked(rgb, bright)) > params.coloured_glass:
        return ~off
    reach_of_item(_COLOURED)
    frame = _frame(grey, off)
    if frame <= threshold:
        return bright if frame <= _NEARLY_BLACK else dark
    if params.pale_tissue:
        threshold = _pale_threshold(grey, off, threshold, frame, params)
    return (grey <= threshold) & ~off


def _picked(rgb: NDArray[np.uint8], mask: Mask) -> NDArray[np.uint8]:
    """The pixels (n, 3) of a picture in a mask (rows, columns), row by row.

    ``rgb[mask]`` with the positions of one band of rows at a time.
    """
    return np.concatenate([rgb[rows][mask[rows]] for rows in _bands(len(mask))])


def _grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey levels (...) of pixels (..., 3)."""
    grey = np.empty(rgb.shape[:-1], np.uint8)
    step = max(1, _PIXELS // math.prod(grey.shape[1:]))
    for first in range(0, len(grey), step):
        part = slice(first, first + step)
        grey[part] = np.clip(np.rint(luma(rgb[part])), 0, 255)
    return grey


def _pale_threshold(
    grey: NDArray[np.uint8], off: Mask, threshold: int, frame: float, params: TissueParams
) -> int:
    """A further Otsu threshold within the bright class while pale tissue lies there.

    Strong DAB or a dark spot pulls the first threshold between itself and the counterstain.  Tissue
    that is hardly darker than glass counts if its outline is an edge (`_has_edge`).
    """
    counts = np.bincount(grey[~off], minlength=256)
    level = np.arange(counts.size)
    for _ in range(_MAX_PALE_CLASSES):
        rest = np.where(level > threshold, counts, 0)
        if np.count_nonzero(rest) < 2:
            break
        second = otsu_bin(rest)
        pale, glass = rest[: second + 1], rest[second + 1 :]
        share = pale.sum() / counts[: threshold + 1].sum()
        contrast = np.average(level[second + 1 :], weights=glass) - np.average(
            level[: second + 1], weights=pale
        )
        if frame <= second or contrast < params.min_contrast:
            break
        if share < 0.5 or contrast < 2 * params.min_contrast:
            # Rims of dark tissue are not tissue of their own.
            rims = scipy.ndimage.binary_dilation(grey <= threshold, iterations=_RIM_PX) | off
            own = (grey <= second) & ~rims
            rim_only = np.count_nonzero(own) < _OWN_SHARE * pale.sum()
            if share < _PALE_SHARE or rim_only:
                break
            with part_of_item(_COLOURED, _FOUND):
                if not _has_edge(grey, own, rims, frame):
                    break
        threshold = second
    return threshold


def _has_edge(
    grey: NDArray[np.uint8], dark: Mask, off: Mask, glass: float, unknown: bool = False
) -> bool:
    """Whether the outline of what is dark is an edge, unlike that of uneven illumination.

    The step from 2 to 5 pixels inside to 2 to 5 pixels outside is compared with the grey level of
    *glass*; *unknown* for a mask without an outline.
    """
    inside = scipy.ndimage.median_filter(dark.view(np.uint8), 3).view(bool)
    inside = scipy.ndimage.binary_opening(inside, np.ones((3, 3), bool))
    reach_of_item(0.2)
    inner = inside & _away(~inside) & ~off
    reach_of_item(0.65)
    outer = ~inside & _away(inside) & ~off
    reach_of_item(0.95)
    if not (inner.any() and outer.any()):
        return unknown
    level = float(grey[inner].mean())
    return float(grey[outer].mean()) - level >= _EDGE * (glass - level)


def _away(mask: Mask) -> Mask:
    """The pixels (rows, columns) that lie 2 to 5 pixels from the mask."""
    pixels = (1.0, 1.0)
    return within(mask, 5.0, pixels) & ~within(mask, math.nextafter(2.0, 0.0), pixels)


def _colourfulness(pixels: NDArray[np.uint8], white: NDArray[np.float64]) -> float:
    """Median of (largest - smallest) / largest optical density of pixels (n, 3); *white* (3,)."""
    ratio = np.empty(len(pixels))
    for first in range(0, len(pixels), _PIXELS):
        part = slice(first, first + _PIXELS)
        od = -np.log(np.maximum(pixels[part], 1) / white)
        ratio[part] = np.ptp(od, axis=1) / np.maximum(od.max(axis=1), 1e-6)
    return float(np.median(ratio, overwrite_input=True))


def _no_tissue(
    rgb: NDArray[np.uint8],
    found: Mask,
    tissue: Mask,
    off: Mask,
    spacing: tuple[float, float],
    *,
    colourless: bool,
) -> Mask:
    """Fragments that are uneven illumination, dust or the edge of a coverslip.

    *found* is what differs from glass, *tissue* the same grown, closed and without small fragments.
    If *colourless* is allowed, dust and the edges of coverslips are tissue.
    """
    glass = _picked(rgb, ~(tissue | found | off))
    none = np.zeros(tissue.shape, bool)
    if not glass.size:
        return none
    white = np.maximum(np.median(glass, axis=0), 1.0)
    reach_of_item(_GLASS_KNOWN)
    grey = _grey(rgb)
    glass = _grey(glass)
    level, noise = float(np.median(glass)), max(1.0, float(glass.std()))
    labels, _ = scipy.ndimage.label(tissue, np.ones((3, 3)))
    windows = scipy.ndimage.find_objects(labels)
    areas = np.array([math.prod(part.stop - part.start for part in one) for one in windows], float)
    done = np.concatenate([[0.0], np.cumsum(areas)]) / max(areas.sum(), 1.0)
    for number, window in enumerate(windows, 1):
        checkpoint()

        first, last = (_LABELLED + (1 - _LABELLED) * one for one in done[number - 1 : number + 1])
        edge_from = first + 0.77 * (last - first)
        reach_of_item(first)
        around = tuple(slice(max(0, part.start - 8), part.stop + 8) for part in window)
        own = labels[around] == number
        dark = found[around] & own
        if not dark.any() or grey[around][dark].mean() > level:
            continue
        others = off[around] | (tissue[around] & ~own)
        hue = _colourfulness(_picked(rgb[around], dark), white)
        reach_of_item(first + 0.75 * (last - first))
        thin = within(~dark, math.nextafter(_THIN_UM / 2, 0.0), spacing)
        is_thin = bool(thin.all())
        reach_of_item(edge_from)
        even = float(grey[around][dark].std()) < 1.5 * noise
        with part_of_item(edge_from, last):
            edge = _has_edge(grey[around], dark, others, level, unknown=True)
        dust = hue < _COLOURLESS and (even or is_thin)
        if not edge or (dust and not colourless):
            none[around] |= own
    return none


def _saturation(pixels: NDArray[np.uint8]) -> float:
    """Median saturation of pixels (n, 3)."""
    high = pixels.max(axis=1).astype(np.float32)
    ratio = (high - pixels.min(axis=1)) / np.maximum(high, 1)
    return float(np.median(ratio, overwrite_input=True))


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
    checkpoint()
    if close > 0:
        wide = ~within(~wide, close, spacing)
    return wide[pad[0] : -pad[0], pad[1] : -pad[1]]


def _sized(tissue: Mask, pixel_um2: float, params: TissueParams) -> Mask:
    """Small fragments removed, then small holes filled; the edge of the image bounds no hole."""
    tissue = _without_small(tissue, params.min_object_mm2 * 1e6 / pixel_um2)
    labels, _ = scipy.ndimage.label(~tissue)
    area = _areas(labels)
    small = area < params.max_hole_mm2 * 1e6 / pixel_um2
    edges = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    small[np.unique(np.concatenate(edges))] = False
    small[0] = False
    filled: Mask = tissue | small[labels]
    return filled


def _areas(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Pixels of each label (rows, columns), from 0 on; (largest label + 1,)."""
    area = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
    for rows in _bands(len(labels)):
        found = np.bincount(labels[rows].ravel())
        area[: found.size] += found
    return area


def _without_small(mask: Mask, min_pixels: float) -> Mask:
    """The 8-connected objects of at least *min_pixels*."""
    labels, _ = scipy.ndimage.label(mask, np.ones((3, 3)))
    keep = _areas(labels) >= min_pixels
    keep[0] = False
    return np.asarray(keep[labels], bool)


# --- pictures without tissue ---------------------------------------------------------------------
_MIN_RANGE = 12.0
"""Smallest range of the levels of tissue in one of the colours, as `TissueParams.min_contrast`."""
_STAINED_OD = 0.03
"""Smallest range of the optical densities of red, green and blue in a stained pixel."""
_STAINED = 0.15
"""The same as a share of the largest of the three; stains have 0.5 or more."""
_SMALLEST_PX, _SMALLEST_SHARE = 3, 0.0005
"""Smallest number and share of stained pixels of a picture with tissue."""


def empty_reason(image: Raster) -> str:
    """Why a picture shows no tissue; empty if it may show some.

    `tissue_mask` needs glass beside the tissue, and a picture may be a part of a section without
    any.  A picture is empty if nothing on it is stained: glass, its uneven illumination, dust, the
    edge of a coverslip and padding are grey.  On empty glass a network sees nuclei in the noise.

    Parameters
    ----------
    image
        (rows, columns, 3) 8-bit RGB overview; its pixels (size in µm) are means of several pixels
        of the picture, so that noise is averaged.
    """
    rgb = image.values
    levels = rgb.reshape(-1, 3)
    widest = float(np.ptp(np.percentile(levels, [0.2, 99.8], axis=0), axis=0).max())
    if widest < _MIN_RANGE:
        return f"the levels of its pixels differ by only {widest:.1f} of 255"
    white = np.maximum(np.percentile(levels, 95, axis=0), 1.0)
    od = scipy.ndimage.uniform_filter(-np.log(np.maximum(rgb, 1) / white), (3, 3, 0))
    stained = np.ptp(od, axis=2) > np.maximum(_STAINED_OD, _STAINED * od.max(axis=2))
    pen = inky(rgb, TissueParams()) | red_ink(rgb)
    pen = scipy.ndimage.binary_opening(pen, np.ones((3, 3), bool))
    stained &= ~scipy.ndimage.binary_dilation(pen, iterations=4)  # with its rim
    if np.count_nonzero(stained) < max(_SMALLEST_PX, _SMALLEST_SHARE * stained.size):
        return "nothing on it is stained (glass, dust, pen or the edge of a coverslip)"
    return ""
