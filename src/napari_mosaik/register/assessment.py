"""What is said of a way to lay one section on another: figures, confidence, warnings."""

from __future__ import annotations

import math

from napari_mosaik.core.frame import Transform
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.alignment import Alignment
from napari_mosaik.register.blocks import InlierStatistics
from napari_mosaik.register.correlation import density_correlation
from napari_mosaik.register.outline_registration import (
    Candidate,
    outline_confidence,
    plain_warnings,
    refine_outline,
    runner_up_dice,
)
from napari_mosaik.register.params import AlignParams, OutlineParams
from napari_mosaik.register.quality import position_score
from napari_mosaik.register.section_pair import SectionPair, SectionWay

__all__ = ["assess_by_content", "assess_by_outline", "assess_sections"]

_CHANCE, DECISIVE_DELTA = 0.2, 0.45
"""Shares of agreeing places that give no and full confidence; chance gives 0.05, the best of many
wrong ways up to 0.2."""
_MARGIN = 0.15
"""By this much the share must exceed that of any other way for full confidence."""
_OUTLINE_ONLY = 0.6
"""Greatest confidence where the inside shows nothing to judge by."""
_FAR_UM = 75.0
"""From this distance on a given map is said to lie beside what is inside."""


def inside_confidence(share: float, rival: float) -> float:
    """0 to 1: how many places agree, times how many more than on the best other way."""
    agrees = min(max((share - _CHANCE) / (DECISIVE_DELTA - _CHANCE), 0.0), 1.0)
    return float(agrees * min(max((share - rival) / _MARGIN, 0.0), 1.0))


def inside_warnings(inside: InlierStatistics, rival: float, confidence: float) -> list[str]:
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


def assess_by_content(
    pair: SectionPair, best: SectionWay, others: list[SectionWay], params: AlignParams
) -> Alignment:
    """The best way, by how much more places agree on it than on the *others*."""
    rival = max((way.share for way in others), default=0.0)
    confidence = inside_confidence(best.inside.share, rival)
    said = inside_warnings(best.inside, rival, confidence)
    return _alignment(pair, best, confidence, said, params, "outline + haematoxylin")


def assess_by_outline(
    pair: SectionPair, candidates: list[Candidate], flat: bool, params: AlignParams
) -> Alignment:
    """The best way by outline: there is too little structure inside to use or to judge by."""
    first = candidates[0]
    pull = refine_outline(pair.moving_tissue, pair.fixed_tissue, first.pull, params)
    best = max(
        (pair.way(p.to_forward(*pair.frames)) for p in (pull, first.pull)), key=lambda way: way.dice
    )
    rival = runner_up_dice(first, candidates[1:], params)
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
    pair: SectionPair,
    way: SectionWay,
    confidence: float,
    said: list[str],
    params: OutlineParams,
    method: str,
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


def assess_sections(
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
    pair = SectionPair(moving_density, fixed_density, moving_mask, fixed_mask)
    way = pair.way(transform)
    confidence, said = math.nan, []
    if way.inside.is_enough:
        off = way.inside.median_um
        confidence = inside_confidence(way.inside.share, 0.0)
        said = inside_warnings(way.inside, 0.0, confidence)
        confidence *= position_score(off)
        if off > _FAR_UM:
            said.append(f"what is inside fits better {off:.0f} µm away (median of the places)")
    return _alignment(pair, way, confidence, said, params or AlignParams(), method)
