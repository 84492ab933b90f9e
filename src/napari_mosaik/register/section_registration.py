"""Lay one section on another by outline and haematoxylin, and judge it by what is inside."""

from __future__ import annotations

from collections.abc import Generator

from napari_mosaik.core.angles import DISTINCT_DEG, angle_difference_deg
from napari_mosaik.core.frame import Transform
from napari_mosaik.core.progress import run_to_end, subprogress
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.alignment import Alignment
from napari_mosaik.register.assessment import assess_by_content, assess_by_outline
from napari_mosaik.register.correlation import refine
from napari_mosaik.register.outline_registration import outline_candidates
from napari_mosaik.register.params import AlignKind, AlignParams
from napari_mosaik.register.rotation_search import candidates_by_content
from napari_mosaik.register.section_pair import SectionPair, SectionWay

__all__ = ["align_sections", "iter_align_sections"]

_BLUR = 1 / 40
"""Width of the blur in the search for the greatest correlation, in sizes of the tissue."""
_CLEAR = 0.3
"""Share of agreeing places from which no other way is looked for."""
_FEW_PLACES = 150
"""Places that are compared while ways are sought."""


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
    As `align_masks`; ``ncc`` is the correlation of the densities, ``inlier_fraction`` the share of
    places inside the tissue that find their partner where the map puts it.  The confidence is low
    when few do, or when another way agrees almost as well.

    Raises
    ------
    InputError
        If a mask is empty or has channels.
    """
    return run_to_end(
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
    pair = SectionPair(moving_density, fixed_density, moving_mask, fixed_mask)
    candidates, flat = yield from subprogress(
        outline_candidates(moving_mask, fixed_mask, p), 0.0, 0.5
    )
    ways = []
    for number, candidate in enumerate(candidates[:4]):
        yield 0.3 + 0.2 * number / 4
        ways.append(_climbed(pair, candidate.pull.to_forward(*pair.frames), p))
    if max(way.share for way in ways) < _CLEAR:
        ways += yield from _by_density(pair, ways[0].transform.scale, p)
    ways.sort(key=lambda way: -way.rank(pair.whole, p.mirror_margin))
    yield 0.85
    best = _finest(pair, ways[0], p)
    yield 0.95
    others = [way for way in ways[1:] if _differs(way.transform, best.transform)]
    if best.inside.is_enough:
        return assess_by_content(pair, best, others, p)
    return assess_by_outline(pair, candidates, flat, p)


def _by_density(
    pair: SectionPair, scale: float, params: AlignParams
) -> Generator[float, None, list[SectionWay]]:
    """Ways that are found by what is inside alone."""
    scan = candidates_by_content(
        pair.moving,
        pair.fixed,
        pair.moving_tissue,
        pair.fixed_tissue,
        scale=scale if pair.whole and params.kind != "rigid" else 1.0,
        mirror=params.mirror,
        angle_step_deg=params.angle_step_deg,
    )
    starts = yield from subprogress(scan, 0.5, 0.7)
    ways = []
    for number, start in enumerate(starts):
        yield 0.7 + 0.15 * number / len(starts)
        ways.append(_climbed(pair, start, params))
    return ways


def _climbed(pair: SectionPair, start: Transform, params: AlignParams) -> SectionWay:
    """A start after a coarse search by correlation and one round of block matching."""
    kind: AlignKind = "rigid" if params.kind == "rigid" else "similarity"
    climbed = refine(pair.moving, pair.fixed, start, kind, (_BLUR * pair.size_um,))
    best = pair.way(pair.matched(climbed, kind, 128, 10), most=_FEW_PLACES)
    if best.share < _CLEAR:
        other = pair.way(pair.matched(start, kind, 128, 10), most=_FEW_PLACES)
        best = max((best, other), key=lambda way: (way.share, way.dice))
    return best


def _finest(pair: SectionPair, way: SectionWay, params: AlignParams) -> SectionWay:
    """Block matching from coarse to fine; the start is kept where that agrees less."""
    transform = way.transform
    for pixels in (128, 256, 256, 512):
        transform = pair.matched(transform, params.kind, pixels, 8)
    found, before = pair.way(transform), pair.way(way.transform)
    return found if found.inside.closeness >= before.inside.closeness else before


def _differs(first: Transform, second: Transform) -> bool:
    turned = abs(angle_difference_deg(first.angle_deg, second.angle_deg)) > DISTINCT_DEG
    return first.mirrored != second.mirrored or turned
