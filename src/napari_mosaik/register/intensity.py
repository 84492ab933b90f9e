"""Lay one section on another by outline and haematoxylin, and judge it by what is inside."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from napari_mosaik.core.frame import FloatArray, Transform
from napari_mosaik.core.generators import finish, shown
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.blocks import (
    Agreement,
    agreement,
    fit_matches,
    match_blocks,
    tissue_size_um,
    working_step_um,
)
from napari_mosaik.register.params import AlignKind, AlignParams, OutlineParams
from napari_mosaik.register.quality import dice, exactness
from napari_mosaik.register.result import Alignment
from napari_mosaik.register.rigid import (
    Candidate,
    outline_candidates,
    outline_confidence,
    plain_warnings,
    refine_outline,
    rival_dice,
)
from napari_mosaik.register.search import density_candidates, outline_is_whole
from napari_mosaik.register.warp import Picture, Pull, best_fit, smooth_picture

__all__ = ["align_sections", "density_correlation", "iter_align_sections", "judge", "refine"]

_MOST_POINTS = 40_000
_BLUR = 1 / 40
"""Width of the blur in the search for the greatest correlation, in sizes of the tissue."""
_CLEAR = 0.3
"""Share of agreeing places from which no other way is looked for."""
_CHANCE, _SURE = 0.2, 0.45
"""Shares of agreeing places that give no and full confidence; chance gives 0.05, the best of many
wrong ways up to 0.2."""
_MARGIN = 0.15
"""By this much the share must exceed that of any other way for full confidence."""
_OUTLINE_ONLY = 0.6
"""Greatest confidence where the inside shows nothing to judge by."""
_APART_DEG = 20.0
_FAR_UM = 75.0
"""From this distance on a given map is said to lie beside what is inside."""
_FEW_PLACES, _PLACES = 150, 400
"""Places that are compared while ways are sought, and for the last word."""


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to lay the moving section on the fixed one, and how far inside and outline agree."""

    transform: Transform
    inside: Agreement
    dice: float

    def rank(self, whole: bool, mirror_margin: float) -> float:
        """What the best way has most of; a mirror image must be better by its margin."""
        share = self.inside.share if self.inside.is_enough else 0.0
        outline = 0.25 * self.dice if whole else 0.0
        return share + outline - mirror_margin * self.transform.mirrored


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """The two sections."""

    moving: Raster
    fixed: Raster
    moving_tissue: Raster
    fixed_tissue: Raster

    @property
    def size_um(self) -> float:
        return tissue_size_um(self.fixed_tissue)

    @property
    def frames(self) -> tuple[str, str]:
        return self.moving.lattice.frame, self.fixed.lattice.frame

    @property
    def whole(self) -> bool:
        """Whether both outlines lie within their pictures."""
        return outline_is_whole(self.moving_tissue) and outline_is_whole(self.fixed_tissue)

    def way(self, transform: Transform, *, most: int = _PLACES) -> _Way:
        overlap = dice(self.moving_tissue, self.fixed_tissue, transform, pixels=384)
        inside = agreement(self.moving, self.fixed, self.fixed_tissue, transform, most=most)
        return _Way(transform, inside, overlap)

    def matched(self, transform: Transform, kind: AlignKind, pixels: int, reach: int) -> Transform:
        """One round of block matching."""
        found = match_blocks(
            self.moving,
            self.fixed,
            self.fixed_tissue,
            transform,
            step_um=working_step_um(self.fixed_tissue, self.fixed, pixels),
            reach=reach,
        )
        return fit_matches(found, transform, kind)


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
    kind: AlignKind,
    sigmas_um: tuple[float, ...],
) -> Transform:
    """The map of greatest correlation near *start*, from coarse to fine.

    Parameters
    ----------
    moving_density, fixed_density
        (rows, columns) haematoxylin density; NaN or 0 off the tissue.
    start
        From the moving to the fixed frame.
    kind
        What may change.
    sigmas_um
        Widths of the blur, one round each.
    """
    floor = max(moving_density.lattice.spacing_um + fixed_density.lattice.spacing_um)
    transform = start
    for sigma in sigmas_um:
        width = max(sigma, floor)
        picture = smooth_picture(moving_density, width)
        points, target = _tissue_points(fixed_density, width)
        if len(points) < 3 or target.std() == 0:
            return transform
        unit = float(np.ptp(points, axis=0).max())
        pull = Pull.of(transform, points.mean(axis=0), unit)
        pull = best_fit(picture, target, points, pull, kind, gain=True)
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

    The best few ways by outline are refined by the densities; where none of them agrees with what
    is inside, all angles are tried by the densities too.  The way on which most places inside the
    tissue agree is refined by block matching.

    Parameters
    ----------
    moving_mask, fixed_mask
        Tissue masks of their own frames.
    moving_density, fixed_density
        Haematoxylin density at some 5 to 20 µm per pixel in the same frames.
    params
        What may change; see `AlignParams`.

    Returns
    -------
    As `align_masks`; ``ncc`` is the correlation of the densities, ``agreement`` the share of
    places inside the tissue that find their partner where the map puts it.  The confidence is low
    when few do, or when another way agrees almost as well.

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
    pair = _Pair(moving_density, fixed_density, moving_mask, fixed_mask)
    candidates, flat = yield from shown(outline_candidates(moving_mask, fixed_mask, p), 0.0, 0.5)
    ways = []
    for number, candidate in enumerate(candidates[:4]):
        yield 0.3 + 0.2 * number / 4
        ways.append(_climbed(pair, candidate.pull.push(*pair.frames), p))
    if max(map(_share, ways)) < _CLEAR:
        ways += yield from _by_density(pair, ways[0].transform.scale, p)
    ways.sort(key=lambda way: -way.rank(pair.whole, p.mirror_margin))
    yield 0.85
    best = _finest(pair, ways[0], p)
    yield 0.95
    others = [way for way in ways[1:] if _differs(way.transform, best.transform)]
    if best.inside.is_enough:
        return _judged_inside(pair, best, others, p)
    return _judged_outside(pair, candidates, flat, p)


def _by_density(
    pair: _Pair, scale: float, params: AlignParams
) -> Generator[float, None, list[_Way]]:
    """Ways that are found by what is inside alone."""
    scan = density_candidates(
        pair.moving,
        pair.fixed,
        pair.moving_tissue,
        pair.fixed_tissue,
        scale=scale if pair.whole and params.kind != "rigid" else 1.0,
        mirror=params.mirror,
        angle_step_deg=params.angle_step_deg,
    )
    starts = yield from shown(scan, 0.5, 0.7)
    ways = []
    for number, start in enumerate(starts):
        yield 0.7 + 0.15 * number / len(starts)
        ways.append(_climbed(pair, start, params))
    return ways


def _climbed(pair: _Pair, start: Transform, params: AlignParams) -> _Way:
    """A start after a coarse search by correlation and one round of block matching."""
    kind: AlignKind = "rigid" if params.kind == "rigid" else "similarity"
    climbed = refine(pair.moving, pair.fixed, start, kind, (_BLUR * pair.size_um,))
    best = pair.way(pair.matched(climbed, kind, 128, 10), most=_FEW_PLACES)
    if _share(best) < _CLEAR:
        other = pair.way(pair.matched(start, kind, 128, 10), most=_FEW_PLACES)
        best = max((best, other), key=lambda way: (_share(way), way.dice))
    return best


def _share(way: _Way) -> float:
    return way.inside.share if way.inside.is_enough else 0.0


def _finest(pair: _Pair, way: _Way, params: AlignParams) -> _Way:
    """Block matching from coarse to fine; the start is kept where that agrees less."""
    transform = way.transform
    for pixels in (128, 256, 256, 512):
        transform = pair.matched(transform, params.kind, pixels, 8)
    found, before = pair.way(transform), pair.way(way.transform)
    return found if found.inside.closeness >= before.inside.closeness else before


def _differs(first: Transform, second: Transform) -> bool:
    turned = abs((first.angle_deg - second.angle_deg + 180) % 360 - 180) > _APART_DEG
    return first.mirrored != second.mirrored or turned


def inside_confidence(share: float, rival: float) -> float:
    """0 to 1: how many places agree, times how many more than on the best other way."""
    agrees = min(max((share - _CHANCE) / (_SURE - _CHANCE), 0.0), 1.0)
    return float(agrees * min(max((share - rival) / _MARGIN, 0.0), 1.0))


def inside_warnings(inside: Agreement, rival: float, confidence: float) -> list[str]:
    """What the places inside the tissue say, where it asks for a look."""
    if confidence >= 0.4:
        return []
    said = (
        f"the inside agrees at {100 * inside.share:.0f} % of {inside.n} places only (chance gives "
        "5 %): check the alignment, or set landmarks"
    )
    if inside.share - rival < _MARGIN and inside.share > _CHANCE:
        said = (
            f"another angle or side agrees almost as well ({100 * inside.share:.0f} and "
            f"{100 * rival:.0f} % of the places): check the alignment, or set landmarks"
        )
    return [said]


def _judged_inside(pair: _Pair, best: _Way, others: list[_Way], params: AlignParams) -> Alignment:
    rival = max((_share(way) for way in others), default=0.0)
    confidence = inside_confidence(best.inside.share, rival)
    said = inside_warnings(best.inside, rival, confidence)
    return _alignment(pair, best, confidence, said, params, "outline + haematoxylin")


def _judged_outside(
    pair: _Pair, candidates: list[Candidate], flat: bool, params: AlignParams
) -> Alignment:
    """The best way by outline: there is too little structure inside to use or to judge by."""
    first = candidates[0]
    pull = refine_outline(pair.moving_tissue, pair.fixed_tissue, first.pull, params)
    best = max(
        (pair.way(p.push(*pair.frames)) for p in (pull, first.pull)), key=lambda way: way.dice
    )
    rival = rival_dice(first, candidates[1:], params)
    confidence = _OUTLINE_ONLY * outline_confidence(best.dice, rival)
    said = ["there is too little structure inside to check the alignment by: look at it"]
    if flat or not pair.whole:
        confidence = 0.0
        said = [
            "neither the outline nor what is inside fixes the position: set landmarks"
            if not pair.whole
            else "the outline is nearly circular: it does not fix an angle; use landmarks"
        ]
    return _alignment(pair, best, confidence, said, params, "outline")


def _alignment(
    pair: _Pair, way: _Way, confidence: float, said: list[str], params: OutlineParams, method: str
) -> Alignment:
    transform, inside = way.transform, way.inside
    return Alignment(
        transform,
        way.dice,
        transform.angle_deg,
        transform.scale,
        transform.mirrored,
        confidence,
        (*said, *plain_warnings(transform, way.dice, params, outlines=pair.whole)),
        density_correlation(pair.moving, pair.fixed, transform),
        method,
        inside.share if inside.is_enough else math.nan,
        inside.n,
        inside.median_um if inside.is_enough else math.nan,
    )


def judge(
    moving_mask: Raster,
    fixed_mask: Raster,
    moving_density: Raster,
    fixed_density: Raster,
    transform: Transform,
    params: OutlineParams | None = None,
    *,
    method: str,
) -> Alignment:
    """A map that was given (by hand, by landmarks, by a file), with the same figures.

    Parameters
    ----------
    moving_mask, fixed_mask, moving_density, fixed_density
        As in `align_sections`.
    transform
        From the moving to the fixed frame.
    params
        Plausible scales.
    method
        Who gave the map, for the record.
    """
    pair = _Pair(moving_density, fixed_density, moving_mask, fixed_mask)
    way = pair.way(transform)
    confidence, said = math.nan, []
    if way.inside.is_enough:
        off = way.inside.median_um
        confidence = inside_confidence(way.inside.share, 0.0)
        said = inside_warnings(way.inside, 0.0, confidence)
        confidence *= exactness(off)
        if off > _FAR_UM:
            said.append(f"what is inside fits better {off:.0f} µm away (median of the places)")
    return _alignment(pair, way, confidence, said, params or AlignParams(), method)
