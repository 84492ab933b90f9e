"""Refine an alignment by the haematoxylin that is seen on both sections."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import numpy as np

from napari_mosaik.core.frame import FloatArray, Transform
from napari_mosaik.core.generators import finish
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.params import AlignParams
from napari_mosaik.register.result import Alignment
from napari_mosaik.register.rigid import (
    Candidate,
    make_candidate,
    outline_candidates,
    refine_outline,
    rival_dice,
    summarise,
)
from napari_mosaik.register.warp import Picture, Pull, best_fit, smooth_picture

__all__ = ["align_sections", "density_correlation", "iter_align_sections", "refine"]

_SIGMAS_UM = (160.0, 80.0, 40.0)
_LEAST_GAIN = 1e-4
_MOST_POINTS = 40_000


def density_correlation(
    moving_density: Raster, fixed_density: Raster, transform: Transform, sigma_um: float = 40.0
) -> float:
    """Correlation (NCC) of two smoothed densities over the fixed tissue; NaN if one is constant.

    Parameters
    ----------
    moving_density, fixed_density
        (rows, columns) haematoxylin density; NaN or 0 off the tissue.
    transform
        From the moving to the fixed frame.
    sigma_um
        Width of the Gaussian by which both are smoothed, µm.
    """
    moving = smooth_picture(moving_density, sigma_um)
    points, target = _tissue_points(fixed_density, sigma_um)
    pull = Pull.of(transform, points.mean(axis=0) if len(points) else np.zeros(2), 1.0)
    return _ncc(moving.at(pull.apply(points)), target)


def _ncc(first: FloatArray, second: FloatArray) -> float:
    if first.size < 3 or first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _tissue_points(density: Raster, sigma_um: float) -> tuple[FloatArray, FloatArray]:
    """Positions on the fixed tissue (and a rim of it), some ten thousand, with their values."""
    picture: Picture = smooth_picture(density, sigma_um)
    values = np.asarray(picture.values, np.float64)
    rim = 0.05 * float(np.quantile(values, 0.95))
    chosen = values > rim
    thin = slice(None, None, 1 + int(np.count_nonzero(chosen)) // _MOST_POINTS)
    return picture.lattice.centres_um()[chosen][thin], values[chosen][thin]


def refine(
    moving_density: Raster,
    fixed_density: Raster,
    start: Transform,
    params: AlignParams | None = None,
) -> tuple[Transform, float, float]:
    """The map near *start* by which the two densities correlate best.

    Smoothed densities are compared from coarse to fine; the result is *start* itself if no map with
    a greater correlation is found.

    Parameters
    ----------
    moving_density, fixed_density
        (rows, columns) haematoxylin density at some 10 to 20 µm per pixel; NaN or 0 off the tissue.
    start
        From the moving to the fixed frame; right to about 300 µm.
    params
        What may change.

    Returns
    -------
    The map, and the correlation (NCC) before and after.
    """
    p = params or AlignParams()
    before = density_correlation(moving_density, fixed_density, start)
    if not np.isfinite(before):
        return start, before, before
    transform = _climb(moving_density, fixed_density, start, p, _SIGMAS_UM)
    after = density_correlation(moving_density, fixed_density, transform)
    if not (np.isfinite(after) and after > before + _LEAST_GAIN):
        return start, before, before
    return transform, before, after


def _climb(
    moving_density: Raster,
    fixed_density: Raster,
    start: Transform,
    params: AlignParams,
    sigmas_um: tuple[float, ...],
) -> Transform:
    """The map of greatest correlation near *start*, from coarse to fine."""
    floor = max(moving_density.lattice.spacing_um + fixed_density.lattice.spacing_um)
    transform = start
    for sigma in sigmas_um:
        width = max(sigma, floor)
        picture = smooth_picture(moving_density, width)
        points, target = _tissue_points(fixed_density, width)
        unit = float(np.ptp(points, axis=0).max())
        pull = Pull.of(transform, points.mean(axis=0), unit)
        pull = best_fit(picture, target, points, pull, params.kind, gain=True)
        transform = pull.push(start.source, start.target)
    return transform


def align_sections(
    moving_mask: Raster,
    fixed_mask: Raster,
    moving_density: Raster,
    fixed_density: Raster,
    params: AlignParams | None = None,
) -> Alignment:
    """Lay a section on another by outline and haematoxylin.

    The best few ways by outline are each refined by the densities, and the one of greatest
    correlation is taken, so that an outline that fits two ways is decided by what is inside.

    Parameters
    ----------
    moving_mask, fixed_mask
        Tissue masks of their own frames.
    moving_density, fixed_density
        Haematoxylin density at some 10 to 20 µm per pixel in the same frames.
    params
        What may change; see `AlignParams`.

    Returns
    -------
    As `align_masks`; ``ncc`` is the correlation of the densities.

    Raises
    ------
    InputError
        If a mask is empty or has channels.
    """
    return finish(
        iter_align_sections(moving_mask, fixed_mask, moving_density, fixed_density, params)
    )


def iter_align_sections(
    moving_mask: Raster,
    fixed_mask: Raster,
    moving_density: Raster,
    fixed_density: Raster,
    params: AlignParams | None = None,
) -> Generator[float, None, Alignment]:
    """`align_sections` in pieces: yields the fraction done so that a caller can show or cancel."""
    p = params or AlignParams()
    candidates, flat = yield from outline_candidates(moving_mask, fixed_mask, p)
    near = [c for c in candidates if c.dice > candidates[0].dice - 0.1][:4]
    masks, densities = (moving_mask, fixed_mask), (moving_density, fixed_density)
    tried = []
    for number, candidate in enumerate(near):
        yield 0.6 + 0.1 * number / len(near)
        tried.append((_inside(*densities, candidate, p), candidate))
    tried.sort(key=lambda pair: -_rank(pair, p))
    yield 0.7
    pull = refine_outline(*masks, tried[0][1].pull, p)
    yield 0.8
    outline = make_candidate(*masks, pull)
    start = pull.push(moving_mask.lattice.frame, fixed_mask.lattice.frame)
    better, before, ncc = refine(*densities, start, p)
    best = make_candidate(*masks, Pull.of(better, pull.about_um, pull.unit_um))
    if best.dice < outline.dice - 0.03:
        best, ncc = outline, before
    others = [*(c for _, c in tried[1:]), *candidates[len(near) :]]
    result = summarise(best, others, flat, p, *masks)
    return _decided_by_density(result, ncc, best, tried, p)


def _inside(
    moving_density: Raster, fixed_density: Raster, candidate: Candidate, params: AlignParams
) -> float:
    """Correlation of the coarsely smoothed densities after a coarse search; NaN if undefined."""
    frames = moving_density.lattice.frame, fixed_density.lattice.frame
    start, sigma = candidate.pull.push(*frames), _SIGMAS_UM[0]
    found = _climb(moving_density, fixed_density, start, params, (sigma,))
    values = [
        density_correlation(moving_density, fixed_density, transform, sigma)
        for transform in (start, found)
    ]
    return max(values)


def _rank(pair: tuple[float, Candidate], params: AlignParams) -> float:
    """Overlap plus correlation; a mirror image must be better by its margin."""
    ncc, candidate = pair
    inside = ncc if np.isfinite(ncc) else 0.0
    return candidate.dice + inside - params.mirror_margin * candidate.mirrored


def _decided_by_density(
    result: Alignment,
    ncc: float,
    best: Candidate,
    tried: list[tuple[float, Candidate]],
    params: AlignParams,
) -> Alignment:
    """Raise the confidence where the densities decide between outlines that fit alike."""
    coarse = tried[0][0]
    rivals = [
        other_ncc
        for other_ncc, other in tried[1:]
        if np.isfinite(other_ncc) and rival_dice(best, [other], params) > 0
    ]
    margin = coarse - max(rivals, default=0.0) if np.isfinite(coarse) else 0.0
    decided = min(max(margin / 0.2, 0.0), 1.0) * min(max((best.dice - 0.6) / 0.3, 0.0), 1.0)
    warnings = result.warnings
    if decided > 0.6:
        warnings = tuple(w for w in warnings if "angle" not in w)
    return replace(
        result,
        confidence=max(result.confidence, decided),
        warnings=warnings,
        ncc=ncc,
        method="outline + haematoxylin",
    )
