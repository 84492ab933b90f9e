"""Lay one section on another by their outlines: centroid, all angles, then a fine search."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from napari_mosaik.core.angles import DISTINCT_DEG, angle_difference_deg
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.affine_fit import (
    InverseTransform,
    SmoothedImage,
    best_fit,
    smoothed_image,
)
from napari_mosaik.register.alignment import Alignment
from napari_mosaik.register.params import AlignKind, OutlineParams
from napari_mosaik.register.quality import dice

__all__ = ["align_masks", "assess_masks", "outline_candidates", "plain_warnings"]

_COARSE_PX = 96


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One way to lay the moving outline on the fixed one."""

    pull: InverseTransform
    dice: float
    angle_deg: float
    mirrored: bool


@dataclass(frozen=True, slots=True)
class Scan:
    """Overlap at every scanned angle: score, shift (µm) and map."""

    angles_deg: FloatArray
    scores: FloatArray
    pulls: tuple[InverseTransform, ...]
    mirrored: bool


def align_masks(moving: Raster, fixed: Raster, params: OutlineParams | None = None) -> Alignment:
    """Lay a moving outline on a fixed one.

    The centroids are brought together, all angles (and the mirror image) are tried with the best
    shift of each, the best few are refined on coarse pictures and the best of these on fine ones.

    Parameters
    ----------
    moving, fixed
        Masks (rows, columns) of their own frames.
    params
        What may change; see `OutlineParams`.

    Returns
    -------
    The map from the moving to the fixed frame with the overlap, and a confidence that is low when
    the outlines fit badly or when another angle fits almost as well.

    Raises
    ------
    InputError
        If a mask is empty or has channels.
    """
    return run_to_end(iter_align_masks(moving, fixed, params))


def iter_align_masks(
    moving: Raster, fixed: Raster, params: OutlineParams | None = None
) -> Generator[float, None, Alignment]:
    """`align_masks` in pieces: yields the fraction done so that a caller can show or cancel."""
    p = params or OutlineParams()
    candidates, flat = yield from outline_candidates(moving, fixed, p)
    yield 0.7
    best = candidates[0]
    pull = refine_outline(moving, fixed, best.pull, p)
    fine = make_candidate(moving, fixed, pull)
    if fine.dice < best.dice - 0.005:
        fine = best
    return summarise(fine, candidates[1:], flat, p, moving, fixed)


def outline_candidates(
    moving: Raster, fixed: Raster, params: OutlineParams
) -> Generator[float, None, tuple[list[Candidate], bool]]:
    """The best few ways by outline, best first, and whether the outline fixes no angle.

    A generator that yields the fraction of an alignment that is done, up to 0.6.
    """
    for name, mask in (("moving", moving), ("fixed", fixed)):
        if mask.values.ndim != 2:
            raise InputError(f"the {name} mask has channels: shape {mask.values.shape}")
        if not np.asarray(mask.values, bool).any():
            raise InputError(
                f"the {name} mask ('{mask.lattice.frame}') is empty; there is nothing to align"
            )
    unit = _size_um(fixed)
    sigma = unit / _COARSE_PX * 2
    pictures = smoothed_image(moving, sigma), smoothed_image(fixed, sigma)
    scale = 1.0
    if params.kind != "rigid":
        scale = float(np.clip(math.sqrt(_area(fixed) / _area(moving)), 0.5, 2.0))
    centres = centroid_um(moving), centroid_um(fixed)
    scans = []
    for mirrored in (False, True) if params.mirror else (False,):
        scans.append(_scan(*pictures, *centres, scale, params, unit, mirrored))
        yield 0.2 * len(scans)
    kind: AlignKind = "similarity" if params.kind == "affine" else params.kind
    points, target = _working_points(pictures[1], fixed, unit, _COARSE_PX)
    found = []
    for scan in scans:
        for i in _peaks(scan):
            pull = best_fit(pictures[0], target, points, scan.pulls[i], kind, rounds=15)
            found.append(make_candidate(moving, fixed, pull))
        yield 0.4 + 0.2 * (scan is scans[-1])
    margin = params.mirror_margin
    found.sort(key=lambda c: -(c.dice - margin * c.mirrored))
    flat = float(np.ptp(scans[0].scores)) < 0.03
    return found, flat


def refine_outline(
    moving: Raster, fixed: Raster, start: InverseTransform, params: OutlineParams
) -> InverseTransform:
    """The same map to a fraction of a working pixel."""
    unit = _size_um(fixed)
    sigma = max(unit / params.resolution_px * 2, max(moving.lattice.spacing_um))
    picture, reference = smoothed_image(moving, sigma), smoothed_image(fixed, sigma)
    points, _ = _working_points(reference, fixed, unit, params.resolution_px)
    wide = smoothed_image(fixed, max(unit / _COARSE_PX * 2, 2 * sigma)).at(points)
    points = points[(wide > 0.02) & (wide < 0.98)]  # only around the outline is there any slope
    return best_fit(picture, reference.at(points), points, start, params.kind)


def make_candidate(moving: Raster, fixed: Raster, pull: InverseTransform) -> Candidate:
    """A map with its overlap, angle and side."""
    transform = pull.to_forward(moving.lattice.frame, fixed.lattice.frame)
    overlap = dice(moving, fixed, transform, pixels=512)
    return Candidate(pull, overlap, transform.angle_deg, transform.mirrored)


def summarise(
    best: Candidate,
    others: list[Candidate],
    flat: bool,
    params: OutlineParams,
    moving: Raster,
    fixed: Raster,
) -> Alignment:
    """The alignment with its confidence and warnings."""
    transform = best.pull.to_forward(moving.lattice.frame, fixed.lattice.frame)
    rival = runner_up_dice(best, others, params)
    confidence = outline_confidence(best.dice, rival) * (0.3 if flat else 1.0)
    return Alignment(
        transform,
        best.dice,
        transform.angle_deg,
        transform.scale,
        transform.mirrored,
        confidence,
        tuple(_warnings(transform, best.dice, rival, flat, params)),
    )


def runner_up_dice(best: Candidate, others: list[Candidate], params: OutlineParams) -> float:
    """Overlap of the best other way (another angle or side); 0 if there is none."""
    rivals = [0.0]
    for other in others:
        turned = abs(angle_difference_deg(other.angle_deg, best.angle_deg)) > DISTINCT_DEG
        if other.mirrored != best.mirrored:
            rivals.append(other.dice - params.mirror_margin)
        elif turned:
            rivals.append(other.dice)
    return max(rivals)


def outline_confidence(best: float, rival: float) -> float:
    """0 to 1: how well the outlines fit, times how much worse the rival fits."""
    fits = min(max((best - 0.6) / 0.3, 0.0), 1.0)
    apart = 1 - (1.01 - best) / (1.01 - min(rival, best))
    return float(fits * min(max(2 * apart, 0.0), 1.0))


def _warnings(
    transform: Transform, overlap: float, rival: float, flat: bool, params: OutlineParams
) -> list[str]:
    said = []
    if flat:
        said.append("the outline is nearly circular: it does not fix an angle; use landmarks")
    elif outline_confidence(1.0, rival - overlap + 1.0) < 0.3 or rival > overlap - 0.02:
        said.append(
            f"another angle fits almost as well (Dice {overlap:.3f} and {rival:.3f}); "
            "check the alignment or set landmarks"
        )
    return said + plain_warnings(transform, overlap, params)


def plain_warnings(
    transform: Transform, overlap: float, params: OutlineParams, *, outlines: bool = True
) -> list[str]:
    """What is odd about a map: little overlap, a mirror image, an implausible scale."""
    said = []
    if outlines and overlap < 0.85:
        said.append(f"the outlines overlap little (Dice {overlap:.3f})")
    if transform.mirrored:
        said.append("the section is taken as turned over (mirror image)")
    if not params.min_scale <= transform.scale <= params.max_scale:
        said.append(
            f"the scale {transform.scale:.3f} is beyond plausible shrinkage "
            f"({params.min_scale:g} to {params.max_scale:g}); check the pixel sizes"
        )
    return said


def assess_masks(
    moving: Raster, fixed: Raster, transform: Transform, params: OutlineParams, *, method: str
) -> Alignment:
    """A map that was given (by hand, by landmarks, by a file), with the overlap of the outlines.

    Its confidence is NaN: outlines that were laid by a person are not compared with other ways.
    """
    overlap = dice(moving, fixed, transform, pixels=512)
    return Alignment(
        transform,
        overlap,
        transform.angle_deg,
        transform.scale,
        transform.mirrored,
        math.nan,
        tuple(plain_warnings(transform, overlap, params)),
        method=method,
    )


def _area(mask: Raster) -> float:
    return float(np.count_nonzero(mask.values)) * mask.lattice.sample_area_um2


def centroid_um(mask: Raster) -> FloatArray:
    """Centroid of a mask, µm."""
    rows, cols = np.nonzero(np.asarray(mask.values, bool))
    return mask.lattice.to_um([rows.mean(), cols.mean()])


def _size_um(mask: Raster) -> float:
    """Longer side of the mask's bounding box, µm."""
    inside = np.asarray(mask.values, bool)
    sides = [np.ptp(np.flatnonzero(inside.any(axis=1 - axis))) + 1 for axis in (0, 1)]
    return float(max(n * s for n, s in zip(sides, mask.lattice.spacing_um, strict=True)))


def _square(centre: FloatArray, half_um: float, step_um: float, frame: str) -> Lattice:
    n = 2 * math.ceil(half_um / step_um)
    origin = centre - n / 2 * step_um
    return Lattice(frame, (n, n), (step_um, step_um), (float(origin[0]), float(origin[1])))


def _working_points(
    reference: SmoothedImage, fixed: Raster, unit: float, pixels: int
) -> tuple[FloatArray, FloatArray]:
    """Positions around the fixed outline and the fixed picture's values there."""
    square = _square(centroid_um(fixed), 0.75 * unit, unit / pixels, fixed.lattice.frame)
    points = square.centres_um().reshape(-1, 2)
    return points, reference.at(points)


def _scan(
    moving: SmoothedImage,
    fixed: SmoothedImage,
    moving_centre: FloatArray,
    fixed_centre: FloatArray,
    scale: float,
    params: OutlineParams,
    unit: float,
    mirrored: bool,
) -> Scan:
    """Overlap (Dice of the blurred masks) at every angle, each with its best shift."""
    step = unit / _COARSE_PX
    square = _square(fixed_centre, 0.85 * unit, step, fixed.lattice.frame)
    points = square.centres_um().reshape(-1, 2)
    target = fixed.at(points).reshape(square.shape)
    shape = [fft.next_fast_len(2 * n, real=True) for n in square.shape]
    spectrum = fft.rfft2(target, shape)
    energy = float((target**2).sum())
    angles = np.arange(0.0, 360.0, params.angle_step_deg)
    scores, pulls = np.empty(angles.size), []
    for i, angle in enumerate(angles):
        forward = Transform.similarity(
            "m", "f", angle_deg=float(angle), scale=scale, mirror=mirrored
        )
        linear = np.asarray(np.linalg.inv(forward.matrix[:2, :2]), np.float64)
        pull = InverseTransform(linear, moving_centre, fixed_centre, unit)
        image = moving.at(pull.apply(points)).reshape(square.shape)
        overlap, shift = _best_shift(spectrum, image, shape, _COARSE_PX // 4)
        scores[i] = 2 * overlap / (energy + float((image**2).sum()))
        centre = moving_centre - linear @ (shift * step)
        pulls.append(InverseTransform(linear, centre, fixed_centre, unit))
    return Scan(angles, scores, tuple(pulls), mirrored)


def _best_shift(
    spectrum: NDArray[np.complex128], image: FloatArray, shape: list[int], reach: int
) -> tuple[float, FloatArray]:
    """Greatest sum of products over shifts of the image by up to *reach* samples, and the shift."""
    product = fft.irfft2(spectrum * np.conj(fft.rfft2(image, shape)), shape)
    window = np.roll(product, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    row, col = np.unravel_index(int(window.argmax()), window.shape)
    return float(window[row, col]), np.array([row - reach, col - reach], np.float64)


def _peaks(scan: Scan, most: int = 4) -> list[int]:
    """Scanned angles with locally greatest overlap, best first, at least 20 degrees apart."""
    taken: list[int] = []
    for i in np.argsort(-scan.scores, kind="stable"):
        angle = scan.angles_deg[i]
        apart = [abs(angle_difference_deg(angle, scan.angles_deg[j])) for j in taken]
        if all(a > DISTINCT_DEG for a in apart):
            taken.append(int(i))
        if len(taken) == most:
            break
    return taken
