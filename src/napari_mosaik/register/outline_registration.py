"""Registration by outlines: centroids, all angles, then refinement of the best candidates."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

import numpy as np
import scipy  # its parts are loaded on first use
from numpy.typing import NDArray

from napari_mosaik.core.angles import DISTINCT_DEG, angle_difference_deg
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.progress import blocking, checkpoint
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.affine_fit import (
    InverseTransform,
    SmoothedImage,
    best_fit,
    smoothed_image,
)
from napari_mosaik.register.alignment import (
    Alignment,
    AlignmentWarning,
    CandidateTransform,
    differs,
)
from napari_mosaik.register.params import AlignKind, OutlineParams
from napari_mosaik.register.quality import dice, mask_size_um

__all__ = [
    "OUTLINES_FOUND",
    "align_masks",
    "assess_masks",
    "iter_align_masks",
    "outline_candidates",
    "outline_confidence",
    "plausibility_warnings",
    "runner_up_dice",
]

OUTLINES_FOUND = 0.6
"""Share of a registration by outlines (fraction of 1) that `outline_candidates` tells last."""
_COARSE_PX = 96
CIRCULAR = AlignmentWarning(
    "circular_outline",
    "the outline is nearly circular and does not determine the angle; set landmarks",
)


def iter_align_masks(
    moving: Raster, fixed: Raster, params: OutlineParams | None = None
) -> Generator[float, None, Alignment]:
    """Register one tissue outline to another; yields the fraction done.

    The centroids are superimposed and all angles (and the mirror image) are tried, each with its
    best shift; the best candidates are refined on coarse images and the best of these on fine ones.

    Parameters
    ----------
    moving, fixed
        Tissue masks (rows, columns), each in its own coordinate space.
    params
        See `OutlineParams`.

    Returns
    -------
    The alignment of the moving to the fixed section.  Its confidence is low where the outlines fit
    badly or another angle fits almost as well.

    Raises
    ------
    InputError
        If a mask is empty or has channels.
    """
    p = params or OutlineParams()
    candidates, circular = yield from outline_candidates(moving, fixed, p)
    yield 0.7
    best = candidates[0]
    refined = outline_candidate(moving, fixed, refine_outline(moving, fixed, best, p))
    if refined.dice >= best.dice - 0.005:
        best = refined
    return _outline_alignment(best, candidates[1:], circular, p)


align_masks = blocking(iter_align_masks)
"""`iter_align_masks` without progress."""


def outline_candidates(
    moving: Raster, fixed: Raster, params: OutlineParams
) -> Generator[float, None, tuple[list[CandidateTransform], bool]]:
    """The best candidates by outline, best first, and whether the outline is nearly circular.

    *moving* and *fixed* are tissue masks (rows, columns).  Yields the fraction of a registration
    that is done, up to `OUTLINES_FOUND`.  Raises `InputError` for an empty mask, or one with
    channels.
    """
    for name, mask in (("moving", moving), ("fixed", fixed)):
        if mask.values.ndim != 2:
            raise InputError(f"the {name} mask must be (rows, columns), not {mask.values.shape}")
        if not np.asarray(mask.values, bool).any():
            raise InputError(
                f"the {name} mask ('{mask.lattice.frame}') is empty; there is nothing to align"
            )
    unit = mask_size_um(fixed)
    sigma = unit / _COARSE_PX * 2
    images = smoothed_image(moving, sigma), smoothed_image(fixed, sigma)
    scale = 1.0
    if params.kind != "rigid":
        scale = float(np.clip(math.sqrt(_area_um2(fixed) / _area_um2(moving)), 0.5, 2.0))
    centres = centroid_um(moving), centroid_um(fixed)
    kind: AlignKind = "similarity" if params.kind == "affine" else params.kind
    points, target = _working_points(images[1], fixed, unit, _COARSE_PX)
    angles = np.arange(0.0, 360.0, params.angle_step_deg)
    scans = []
    for mirrored in (False, True) if params.mirror else (False,):
        scans.append(_scan_angles(*images, *centres, scale, angles, unit, mirrored))
        yield 0.2 * len(scans)
    candidates = []
    for number, (scores, inverses) in enumerate(scans, 1):
        for i in separated_peaks(angles, scores, 4):
            inverse = best_fit(images[0], target, points, inverses[i], kind, max_rounds=15)
            candidates.append(outline_candidate(moving, fixed, inverse))
        yield 0.4 + 0.2 * (number == len(scans))
    candidates.sort(key=lambda c: -(c.dice - params.mirror_margin * c.transform.mirrored))
    return candidates, float(np.ptp(scans[0][0])) < 0.03


def refine_outline(
    moving: Raster, fixed: Raster, start: CandidateTransform, params: OutlineParams
) -> InverseTransform:
    """A candidate refined to a fraction of a working pixel; masks (rows, columns)."""
    assert start.inverse is not None
    unit = mask_size_um(fixed)
    sigma = max(unit / params.resolution_px * 2, max(moving.lattice.spacing_um))
    image, reference = smoothed_image(moving, sigma), smoothed_image(fixed, sigma)
    points, _ = _working_points(reference, fixed, unit, params.resolution_px)
    wide = smoothed_image(fixed, max(unit / _COARSE_PX * 2, 2 * sigma)).at(points)
    points = points[(wide > 0.02) & (wide < 0.98)]  # the gradient is 0 away from the outline
    return best_fit(image, reference.at(points), points, start.inverse, params.kind)


def outline_candidate(
    moving: Raster, fixed: Raster, inverse: InverseTransform
) -> CandidateTransform:
    """A candidate with the Dice overlap (fraction) of two masks (rows, columns)."""
    transform = inverse.to_forward(moving.lattice.frame, fixed.lattice.frame)
    overlap = dice(moving, fixed, transform, pixels=512)
    return CandidateTransform(transform, dice=overlap, inverse=inverse)


def _outline_alignment(
    best: CandidateTransform,
    others: Sequence[CandidateTransform],
    circular: bool,
    params: OutlineParams,
) -> Alignment:
    """The alignment with its confidence and warnings."""
    runner_up = runner_up_dice(best, others, params)
    confidence = outline_confidence(best.dice, runner_up) * (0.3 if circular else 1.0)
    warnings = []
    if circular:
        warnings.append(CIRCULAR)
    elif outline_confidence(1.0, runner_up - best.dice + 1.0) < 0.3 or runner_up > best.dice - 0.02:
        warnings.append(
            AlignmentWarning(
                "angle_ambiguous",
                f"another angle fits almost as well (Dice {best.dice:.3f} and {runner_up:.3f}); "
                "check the alignment or set landmarks",
            )
        )
    warnings += plausibility_warnings(best.transform, best.dice, params)
    return Alignment.of(best.transform, best.dice, confidence, warnings)


def runner_up_dice(
    best: CandidateTransform, others: Sequence[CandidateTransform], params: OutlineParams
) -> float:
    """Dice overlap of the runner-up (another angle or the mirror image); 0 if there is none."""
    scores = [0.0]
    for other in others:
        if other.transform.mirrored != best.transform.mirrored:
            scores.append(other.dice - params.mirror_margin)
        elif differs(other.transform, best.transform):
            scores.append(other.dice)
    return max(scores)


def outline_confidence(best_dice: float, runner_up: float) -> float:
    """0 to 1: how well the outlines fit, times how much worse the runner-up fits."""
    fits = min(max((best_dice - 0.6) / 0.3, 0.0), 1.0)
    apart = 1 - (1.01 - best_dice) / (1.01 - min(runner_up, best_dice))
    return float(fits * min(max(2 * apart, 0.0), 1.0))


def plausibility_warnings(
    transform: Transform, overlap: float, params: OutlineParams, *, outlines: bool = True
) -> list[AlignmentWarning]:
    """Warnings about a low overlap (Dice, fraction), a mirror image or an implausible scale."""
    warnings = []
    if outlines and overlap < 0.85:
        warnings.append(
            AlignmentWarning("low_overlap", f"the outlines overlap poorly (Dice {overlap:.3f})")
        )
    if transform.mirrored:
        warnings.append(
            AlignmentWarning("mirrored", "the section is registered as flipped (mirror image)")
        )
    if not params.min_scale <= transform.scale <= params.max_scale:
        warnings.append(
            AlignmentWarning(
                "implausible_scale",
                f"the scale {transform.scale:.3f} is outside plausible shrinkage "
                f"({params.min_scale:g} to {params.max_scale:g}); check the pixel sizes",
            )
        )
    return warnings


def assess_masks(
    moving: Raster, fixed: Raster, transform: Transform, params: OutlineParams, *, method: str
) -> Alignment:
    """Assess a given transform by the overlap of two tissue masks (rows, columns).

    The confidence is NaN: a given transform is not compared with other candidates.
    """
    overlap = dice(moving, fixed, transform, pixels=512)
    warnings = plausibility_warnings(transform, overlap, params)
    return Alignment.of(transform, overlap, math.nan, warnings, method=method)


def separated_peaks(angles_deg: FloatArray, scores: FloatArray, max_peaks: int) -> list[int]:
    """Indices of the angles (n,) of greatest score (n,), best first, at least 20 degrees apart."""
    peaks: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        distances = [abs(angle_difference_deg(angles_deg[i], angles_deg[j])) for j in peaks]
        if all(distance > DISTINCT_DEG for distance in distances):
            peaks.append(int(i))
        if len(peaks) == max_peaks:
            break
    return peaks


def _area_um2(mask: Raster) -> float:
    return float(np.count_nonzero(mask.values)) * mask.lattice.sample_area_um2


def centroid_um(mask: Raster) -> FloatArray:
    """Centroid (2,) of a mask (rows, columns), µm."""
    rows, cols = np.nonzero(np.asarray(mask.values, bool))
    return mask.lattice.to_um([rows.mean(), cols.mean()])


def _square_lattice(centre: FloatArray, half_um: float, step_um: float, frame: str) -> Lattice:
    n = 2 * math.ceil(half_um / step_um)
    origin = centre - n / 2 * step_um
    return Lattice(frame, (n, n), (step_um, step_um), (float(origin[0]), float(origin[1])))


def _working_points(
    reference: SmoothedImage, fixed: Raster, unit: float, pixels: int
) -> tuple[FloatArray, FloatArray]:
    """Positions around the fixed outline and the values of the fixed image there."""
    square = _square_lattice(centroid_um(fixed), 0.75 * unit, unit / pixels, fixed.lattice.frame)
    points = square.centres_um().reshape(-1, 2)
    return points, reference.at(points)


def _scan_angles(
    moving: SmoothedImage,
    fixed: SmoothedImage,
    moving_centre: FloatArray,
    fixed_centre: FloatArray,
    scale: float,
    angles: FloatArray,
    unit: float,
    mirrored: bool,
) -> tuple[FloatArray, list[InverseTransform]]:
    """Overlap (Dice of the smoothed masks) and transform with the best shift at every angle."""
    step, reach = unit / _COARSE_PX, _COARSE_PX // 4
    square = _square_lattice(fixed_centre, 0.85 * unit, step, fixed.lattice.frame)
    target = fixed.at(square.centres_um().reshape(-1, 2)).reshape(square.shape)
    side = scipy.fft.next_fast_len(square.shape[0] + reach, real=True)
    spectrum = scipy.fft.rfft2(target, (side, side))
    energy = float((target**2).sum())
    scores, inverses = np.empty(angles.size), []
    for i, angle in enumerate(angles):
        checkpoint()
        forward = Transform.similarity(
            "m", "f", angle_deg=float(angle), scale=scale, mirror=mirrored
        )
        linear = np.asarray(np.linalg.inv(forward.matrix[:2, :2]), np.float64)
        inverse = InverseTransform(linear, moving_centre, fixed_centre, unit)
        image = moving.on(square, inverse)
        overlap, shift = _best_shift(spectrum, image, reach)
        scores[i] = 2 * overlap / (energy + float((image**2).sum()))
        centre = moving_centre - linear @ (shift * step)
        inverses.append(InverseTransform(linear, centre, fixed_centre, unit))
    return scores, inverses


def _best_shift(
    spectrum: NDArray[np.complex128], image: FloatArray, reach: int
) -> tuple[float, FloatArray]:
    """Greatest sum of products over shifts of the image by up to *reach* samples, and the shift.

    *spectrum* is that of a square *reach* samples longer than the image, so that no shift wraps
    around; only the lines of the shifts are transformed back.
    """
    side = len(spectrum)
    product = spectrum * np.conj(scipy.fft.fft(scipy.fft.rfft(image, side, axis=1), side, axis=0))
    lines = np.roll(scipy.fft.ifft(product, axis=0), reach, axis=0)[: 2 * reach + 1]
    window = np.roll(scipy.fft.irfft(lines, side, axis=1), reach, axis=1)[:, : 2 * reach + 1]
    row, col = np.unravel_index(int(window.argmax()), window.shape)
    return float(window[row, col]), np.array([row - reach, col - reach], np.float64)
