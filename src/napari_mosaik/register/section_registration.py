"""Registration of one stained section to another, and its assessment by image content.

outlines ─► candidates ─► correlation of the haematoxylin ─► patch matching ─► best candidate
                              └─ all angles by content where no candidate fits ──┘
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import numpy as np
import scipy  # its parts are loaded on first use

from napari_mosaik.core.frame import Transform
from napari_mosaik.core.progress import (
    blocking,
    checkpoint,
    map_progress,
    side_by_side,
    subprogress,
)
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.affine_fit import Smoother
from napari_mosaik.register.alignment import (
    Alignment,
    AlignmentWarning,
    CandidateTransform,
    differs,
)
from napari_mosaik.register.content_search import (
    candidates_by_content,
    density_correlation,
    is_outline_complete,
    refine_by_correlation,
)
from napari_mosaik.register.outline_registration import (
    CIRCULAR,
    OUTLINES_FOUND,
    outline_candidates,
    outline_confidence,
    plausibility_warnings,
    refine_outline,
    runner_up_dice,
)
from napari_mosaik.register.params import AlignKind, AlignParams, OutlineParams
from napari_mosaik.register.patch_matching import (
    InlierStatistics,
    fit_matches,
    inlier_statistics,
    match_patches,
    working_step_um,
)
from napari_mosaik.register.quality import dice, mask_size_um, position_score

__all__ = [
    "LOW_CONFIDENCE",
    "align_by_pieces",
    "align_sections",
    "assess_sections",
    "iter_align_sections",
    "pieces_of",
    "reading_share",
]

_READ_S, _READ_MP_S = 0.65, 0.12
"""Time in which the haematoxylin of both sections is read, for any and for each megapixel, s."""
_OUTLINES_S, _ANGLES_S = 0.4, 0.9
_CANDIDATE_S, _CANDIDATE_MP_S = 0.08, 0.065
_MATCHING_S, _MATCHING_MP_S = 0.35, 0.13
"""Times of outlines, of all angles by content, of one candidate and of patch matching, s."""
_SMOOTHING = 1 / 40
"""Standard deviation of the smoothing in the search for the greatest correlation, in sizes of the
tissue."""
_CLEAR_FRACTION = 0.3
"""Inlier fraction from which no further candidate is searched."""
_SEARCH_PATCHES, _FINAL_PATCHES = 150, 400
"""Patches compared during the search, and for the final assessment."""
_CHANCE_FRACTION, _CONFIDENT_FRACTION = 0.2, 0.45
"""Inlier fractions that give no and full confidence; chance gives 0.05, the best of many wrong
candidates up to 0.2."""
_MARGIN = 0.15
"""The inlier fraction must exceed that of the runner-up by this much for full confidence."""
_MAX_OUTLINE_CONFIDENCE = 0.6
"""Maximum confidence where there is no image content to assess."""
_MAX_OFFSET_UM = 75.0
"""A given transform farther than this from the image content gets a warning."""


@dataclass(frozen=True, slots=True, eq=False)
class _SectionPair:
    """Haematoxylin densities and tissue masks, each (rows, columns), of two sections."""

    moving: Smoother
    fixed: Smoother
    moving_tissue: Raster
    fixed_tissue: Raster

    @property
    def has_outlines(self) -> bool:
        """Whether both outlines lie within their images."""
        return is_outline_complete(self.moving_tissue) and is_outline_complete(self.fixed_tissue)

    def candidate(
        self, transform: Transform, max_patches: int = _FINAL_PATCHES
    ) -> CandidateTransform:
        """A candidate with its overlap and inliers."""
        overlap = dice(self.moving_tissue, self.fixed_tissue, transform, pixels=384)
        inliers = inlier_statistics(
            self.moving, self.fixed, self.fixed_tissue, transform, max_patches=max_patches
        )
        return CandidateTransform(transform, overlap, inliers)

    def matched(self, transform: Transform, kind: AlignKind, pixels: int, reach: int) -> Transform:
        """One round of patch matching."""
        checkpoint()
        matches = match_patches(
            self.moving,
            self.fixed,
            self.fixed_tissue,
            transform,
            step_um=working_step_um(self.fixed_tissue, self.fixed, pixels),
            reach=reach,
        )
        return fit_matches(matches, transform, kind)


def iter_align_sections(
    moving_mask: Raster,
    fixed_mask: Raster,
    moving_density: Raster,
    fixed_density: Raster,
    params: AlignParams | None = None,
) -> Generator[float, None, Alignment]:
    """Register one section to another by outline and haematoxylin; yields the fraction done.

    The best candidates by outline are refined by the densities; where none of them agrees with the
    image content, all angles are tried by the densities, too.  The candidate of greatest inlier
    fraction is refined by patch matching.

    Parameters
    ----------
    moving_mask, fixed_mask
        Tissue masks (rows, columns), each in its own coordinate space.
    moving_density, fixed_density
        Haematoxylin densities (rows, columns), OD, at some 5 to 20 µm per pixel in the same spaces.
    params
        See `AlignParams`.

    Returns
    -------
    As `iter_align_masks`; ``ncc`` is the correlation of the densities, ``inlier_fraction`` the
    fraction of patches whose best match lies where the transform puts it.  The confidence is low
    where few do, or where the runner-up has almost as many inliers.

    Raises
    ------
    InputError
        If a mask is empty or has channels.
    """
    p = params or AlignParams()
    densities = Smoother(moving_density), Smoother(fixed_density)
    pair = _SectionPair(*densities, moving_mask, fixed_mask)
    times = _Times.of(pair)
    outlined = _OUTLINES_S / times.total
    outlines, circular = yield from subprogress(
        outline_candidates(moving_mask, fixed_mask, p), 0.0, outlined / OUTLINES_FOUND
    )
    starts = [start.transform for start in outlines[:4]]
    candidates, refined = yield from _refined_starts(pair, starts, p, outlined)
    tried = refined
    if not any(map(_is_clear, candidates)):
        tried += (1 - refined) * times.search / (times.search + times.match)
        search = _search_by_content(pair, candidates[0].transform.scale, p)
        candidates += yield from subprogress(search, refined, tried)
    candidates.sort(key=lambda candidate: -candidate.rank(pair.has_outlines, p.mirror_margin))
    yield tried
    best = _finest(pair, candidates[0], p)
    yield tried + _MATCHED * (1 - tried)
    assert best.inliers is not None
    if best.inliers.is_enough:
        others = [one for one in candidates[1:] if differs(one.transform, best.transform)]
        return _assess_by_content(pair, best, others, p)
    return _assess_by_outline(pair, outlines, circular, p)


align_sections = blocking(iter_align_sections)
"""`iter_align_sections` without progress."""


_TELLING = 2
"""So many candidates (count) that do not fit make it likely that none does."""
_MATCHED = 0.75
"""Share of patch matching in what follows the search for candidates."""


@dataclass(frozen=True, slots=True)
class _Times:
    """Times of the parts of a registration, s: they grow with the sections, not all alike."""

    refine: float
    search: float
    match: float

    @classmethod
    def of(cls, pair: _SectionPair) -> _Times:
        """Those of two sections."""
        sizes = [math.prod(one.lattice.shape) for one in (pair.moving, pair.fixed)]
        return cls.of_megapixels(sum(sizes) / 2e6)

    @classmethod
    def of_megapixels(cls, size: float) -> _Times:
        """Those of sections of so many megapixels of haematoxylin."""
        one = _CANDIDATE_S + _CANDIDATE_MP_S * size
        return cls(4 * one, _ANGLES_S + 6 * one, _MATCHING_S + _MATCHING_MP_S * size)

    @property
    def total(self) -> float:
        """As long as it is not known whether a candidate by outline fits, half of the search."""
        return _OUTLINES_S + self.refine + self.search / 2 + self.match


def reading_share(megapixels: float) -> float:
    """Share of a registration (fraction of 1) in which the haematoxylin of the sections is read.

    It has so many megapixels.
    """
    reading = _READ_S + _READ_MP_S * megapixels
    return reading / (reading + _Times.of_megapixels(megapixels).total)


def _is_clear(candidate: CandidateTransform) -> bool:
    """Whether no further candidate is searched."""
    return candidate.inlier_fraction >= _CLEAR_FRACTION


def _refined_starts(
    pair: _SectionPair, starts: Sequence[Transform], params: AlignParams, share: float
) -> Generator[float, None, tuple[list[CandidateTransform], float]]:
    """The refined starts, and the share of the registration that is done, before them *share*.

    The first that is refined usually tells whether all angles have to be searched: what is done
    follows from what is left.
    """
    times, found, before = _Times.of(pair), list[CandidateTransform](), 0.0

    def refine(start: Transform) -> CandidateTransform:
        found.append(_refined(pair, start, params))
        return found[-1]

    def reached(done: float) -> float:
        nonlocal share, before
        likely = 0.5 if len(found) < _TELLING else 1.0
        search = 0.0 if any(map(_is_clear, found)) else likely * times.search
        left = times.refine * (1 - done) + search + times.match
        gain = times.refine * (done - before)
        share, before = share + (1 - share) * gain / (gain + left), done
        return share

    candidates = yield from map_progress(side_by_side(refine, starts), reached)
    return candidates, share


def _search_by_content(
    pair: _SectionPair, scale: float, params: AlignParams
) -> Generator[float, None, list[CandidateTransform]]:
    """Candidates found by image content alone; yields the fraction of the search that is done."""
    scan = candidates_by_content(
        pair.moving,
        pair.fixed,
        pair.moving_tissue,
        pair.fixed_tissue,
        scale=scale if pair.has_outlines and params.kind != "rigid" else 1.0,
        mirror=params.mirror,
        angle_step_deg=params.angle_step_deg,
    )
    scanned = _ANGLES_S / _Times.of(pair).search
    starts = yield from subprogress(scan, 0.0, scanned)
    work = side_by_side(partial(_refined, pair, params=params), starts)
    return (yield from subprogress(work, scanned, 1.0))


def _refined(pair: _SectionPair, start: Transform, params: AlignParams) -> CandidateTransform:
    """A start after a coarse search by correlation and one round of patch matching."""
    kind: AlignKind = "rigid" if params.kind == "rigid" else "similarity"
    sigma_um = _SMOOTHING * mask_size_um(pair.fixed_tissue)
    correlated = refine_by_correlation(pair.moving, pair.fixed, start, kind, sigma_um)
    best = pair.candidate(pair.matched(correlated, kind, 128, 10), _SEARCH_PATCHES)
    if best.inlier_fraction < _CLEAR_FRACTION:
        other = pair.candidate(pair.matched(start, kind, 128, 10), _SEARCH_PATCHES)
        best = max((best, other), key=lambda one: (one.inlier_fraction, one.dice))
    return best


def _finest(
    pair: _SectionPair, start: CandidateTransform, params: AlignParams
) -> CandidateTransform:
    """Patch matching from coarse to fine; the start remains where the result agrees less."""
    transform = start.transform
    for pixels in (128, 256, 256, 512):
        transform = pair.matched(transform, params.kind, pixels, 8)
    refined, before = pair.candidate(transform), pair.candidate(start.transform)
    assert refined.inliers is not None
    assert before.inliers is not None
    return refined if refined.inliers.closeness >= before.inliers.closeness else before


# --- assessment ---------------------------------------------------------------------------------
def _content_confidence(fraction: float, runner_up: float) -> float:
    """0 to 1: how many patches are inliers, times how many more than for the runner-up."""
    agrees = (fraction - _CHANCE_FRACTION) / (_CONFIDENT_FRACTION - _CHANCE_FRACTION)
    agrees = min(max(agrees, 0.0), 1.0)
    return float(agrees * min(max((fraction - runner_up) / _MARGIN, 0.0), 1.0))


def _content_warnings(
    inliers: InlierStatistics, runner_up: float, confidence: float
) -> list[AlignmentWarning]:
    if confidence >= 0.4:
        return []
    percent = 100 * inliers.fraction
    if inliers.fraction - runner_up < _MARGIN and inliers.fraction > _CHANCE_FRACTION:
        return [
            AlignmentWarning(
                "angle_ambiguous",
                f"another angle or the mirror image fits the image content almost as well "
                f"({percent:.0f} and {100 * runner_up:.0f} % of the patches): check the "
                "alignment, or set landmarks",
            )
        ]
    return [
        AlignmentWarning(
            "low_inlier_fraction",
            f"only {percent:.0f} % of {inliers.n} patches inside the tissue agree (5 % by "
            "chance): check the alignment, or set landmarks",
        )
    ]


def _assess_by_content(
    pair: _SectionPair,
    best: CandidateTransform,
    others: Sequence[CandidateTransform],
    params: AlignParams,
) -> Alignment:
    """The best candidate, by how much its inlier fraction exceeds that of the *others*."""
    assert best.inliers is not None
    runner_up = max((other.inlier_fraction for other in others), default=0.0)
    confidence = _content_confidence(best.inliers.fraction, runner_up)
    warnings = _content_warnings(best.inliers, runner_up, confidence)
    return _alignment(pair, best, confidence, warnings, params, "outline + haematoxylin")


def _assess_by_outline(
    pair: _SectionPair,
    candidates: Sequence[CandidateTransform],
    circular: bool,
    params: AlignParams,
) -> Alignment:
    """The best candidate by outline, where there is too little image content to assess."""
    first = candidates[0]
    assert first.inverse is not None
    refined = refine_outline(pair.moving_tissue, pair.fixed_tissue, first, params)
    frames = pair.moving.lattice.frame, pair.fixed.lattice.frame
    best = max(
        (pair.candidate(inverse.to_forward(*frames)) for inverse in (refined, first.inverse)),
        key=lambda one: one.dice,
    )
    runner_up = runner_up_dice(first, candidates[1:], params)
    confidence = _MAX_OUTLINE_CONFIDENCE * outline_confidence(best.dice, runner_up)
    warning = AlignmentWarning(
        "no_content",
        "there is too little image content to assess the alignment: check it visually",
    )
    if not pair.has_outlines:
        warning = AlignmentWarning(
            "unconstrained",
            "neither the outline nor the image content determines the position: set landmarks",
        )
    elif circular:
        warning = CIRCULAR
    if circular or not pair.has_outlines:
        confidence = 0.0
    return _alignment(pair, best, confidence, [warning], params, "outline")


def _alignment(
    pair: _SectionPair,
    candidate: CandidateTransform,
    confidence: float,
    warnings: list[AlignmentWarning],
    params: OutlineParams,
    method: str,
) -> Alignment:
    transform, inliers = candidate.transform, candidate.inliers
    assert inliers is not None
    warnings = warnings + plausibility_warnings(
        transform, candidate.dice, params, outlines=pair.has_outlines
    )
    return Alignment.of(
        transform,
        candidate.dice,
        confidence,
        warnings,
        ncc=density_correlation(pair.moving, pair.fixed, transform),
        method=method,
        inlier_fraction=inliers.fraction if inliers.is_enough else math.nan,
        n_patches=inliers.n,
        local_error_um=inliers.median_um if inliers.is_enough else math.nan,
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
    """Assess a given transform (manual, from landmarks or from a file) by the image content.

    Parameters
    ----------
    moving_mask, fixed_mask, moving_density, fixed_density
        Masks (rows, columns) and densities (rows, columns), OD, as in `iter_align_sections`.
    transform
        From the moving to the fixed section.
    params
        Plausible scales.
    method
        Origin of the transform, for the record.
    """
    densities = Smoother(moving_density), Smoother(fixed_density)
    pair = _SectionPair(*densities, moving_mask, fixed_mask)
    candidate = pair.candidate(transform)
    inliers = candidate.inliers
    assert inliers is not None
    confidence, warnings = math.nan, []
    if inliers.is_enough:
        confidence = _content_confidence(inliers.fraction, 0.0)
        warnings = _content_warnings(inliers, 0.0, confidence)
        confidence *= position_score(inliers.median_um)
        if inliers.median_um > _MAX_OFFSET_UM:
            warnings.append(
                AlignmentWarning(
                    "off_content",
                    f"the image content fits better {inliers.median_um:.0f} µm away (median of "
                    "the patches)",
                )
            )
    return _alignment(pair, candidate, confidence, warnings, params or AlignParams(), method)


# --- sections with several pieces of tissue -------------------------------------------------------
LOW_CONFIDENCE = 0.4
"""Confidence below which an alignment has to be checked."""
_PIECE_SHARE = 0.15
"""Smallest area of a piece, as a share of the largest."""
_MAX_PIECES = 3
_GOOD_DICE = 0.9


def pieces_of(mask: Raster) -> list[Raster]:
    """The large connected pieces of a (rows, columns) tissue mask, the largest first."""
    labels, _ = scipy.ndimage.label(np.asarray(mask.values, bool), np.ones((3, 3)))
    area = np.bincount(labels.ravel())[1:]
    order = [i for i in np.argsort(-area, kind="stable") if area[i] >= _PIECE_SHARE * area.max()]
    return [Raster(labels == number + 1, mask.lattice) for number in order[:_MAX_PIECES]]


def align_by_pieces(
    moving: Raster,
    fixed: Raster,
    align: Callable[[Raster, Raster], Generator[float, None, Alignment]],
) -> Generator[float, None, Alignment]:
    """Align two (rows, columns) tissue masks, piece by piece if the whole has a low confidence.

    *align* registers one mask to another and yields the fraction done.
    """
    parts = pieces_of(moving), pieces_of(fixed)
    counts = [len(pieces) for pieces in parts]
    whole = yield from subprogress(align(moving, fixed), 0.0, 1.0 if max(counts) < 2 else 0.5)
    held = f"the sections hold {counts[0]} and {counts[1]} pieces of tissue (moving, fixed)"
    if max(counts) < 2:
        return whole
    if whole.confidence >= LOW_CONFIDENCE:
        if counts[0] == counts[1] or whole.dice >= _GOOD_DICE:
            return whole
        return _warned(whole, f"{held}: check that those which belong together lie on each other")
    pairs = list(product(*parts))
    tried = []
    for number, (one, other) in enumerate(pairs):
        span = 0.5 + 0.5 * number / len(pairs), 0.5 + 0.5 * (number + 1) / len(pairs)
        tried.append((yield from subprogress(align(one, other), *span)))
    best = max(tried, key=lambda alignment: alignment.confidence)
    found = best.confidence >= LOW_CONFIDENCE
    advice = (
        "one piece of each was aligned: check that they belong together"
        if found
        else "cut the one that does not belong (control tissue?) from its tissue mask, or set "
        "landmarks"
    )
    return _warned(best if found else whole, f"{held}; {advice}")


def _warned(alignment: Alignment, message: str) -> Alignment:
    warning = AlignmentWarning("several_pieces", message)
    return replace(alignment, warnings=(*alignment.warnings, warning))
