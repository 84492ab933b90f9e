"""Registration of a PET slice to the section: outlines first, then likelihood, with its error."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_mosaik.core.angles import DISTINCT_DEG
from napari_mosaik.core.frame import Transform
from napari_mosaik.core.progress import (
    blocking,
    map_progress,
    run_to_end,
    side_by_side,
    subprogress,
)
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.affine_fit import InverseTransform
from napari_mosaik.register.alignment import (
    Alignment,
    AlignmentWarning,
    CandidateTransform,
    differs,
)
from napari_mosaik.register.outline_registration import (
    OUTLINES_FOUND,
    align_masks,
    centroid_um,
    outline_candidates,
    plausibility_warnings,
    refine_outline,
)
from napari_mosaik.register.params import PetAlignParams
from napari_mosaik.register.pet_model import (
    DESCENT_EVALUATIONS,
    ERROR_EVALUATIONS,
    LIKELIHOOD_TEMPERATURE,
    NOISE_EVALUATIONS,
    PetCandidate,
    PetSearch,
    blurred_outline,
    pet_mask,
)
from napari_mosaik.register.quality import dice, position_score

__all__ = ["align_pet", "iter_align_pet", "iter_assess_pet"]

MAX_TILE_ERROR_UM = 150.0
"""A registration error above this does not allow conclusions about single tiles."""
DECISIVE_DELTA = 3.0
"""Difference of tempered log likelihoods above which one candidate is better than another."""
PRUNE_DELTA, REFINE_DELTA = 150.0, 25.0
"""Differences above which a candidate by outline is dropped, and below which it is refined."""
MAX_GAIN_DELTA = 8.0
"""A rough minimum lies at most this far above the exact one (at most 5 on the sample cohorts)."""


def iter_align_pet(
    pet: Raster, tissue: Raster, params: PetAlignParams | None = None
) -> Generator[float, None, Alignment]:
    """Register a PET slice to a section; yields the fraction done.

    The outlines are registered at all angles; from the best candidates the transform is moved to
    where the slice is most likely (see `register.pet_model`).  The mirror image is always
    evaluated, and taken only where it is allowed.

    Parameters
    ----------
    pet
        Activity or SUV (rows, columns), any unit; NaN counts as 0.
    tissue
        Tissue mask (rows, columns) of the section.
    params
        See `PetAlignParams`.

    Returns
    -------
    The alignment of the PET to the section.  ``position_error_um`` is its expected error, root mean
    square over the tissue; the confidence is below 0.4 where that exceeds 150 µm, where the
    outlines do not fit, or where another angle explains the slice almost as well.

    Raises
    ------
    InputError
        If the slice is uniform or has channels, or the tissue mask is empty.
    """
    p = params or PetAlignParams()
    outlines = pet_mask(pet, fraction=p.edge), blurred_outline(tissue, p.fwhm_um, fraction=p.edge)
    if not p.use_intensity:
        yield 0.1
        return align_masks(*outlines, p)
    both_sides = p.model_copy(update={"mirror": True})
    outlined, begun, found, again, fitted = _shares(pet, p.fwhm_um)
    candidates, circular = yield from map_progress(
        outline_candidates(*outlines, both_sides),
        lambda share: min(outlined, share / OUTLINES_FOUND * outlined),
    )
    search = PetSearch(pet, outlines[0], tissue, p)
    first = next(c for c in candidates if p.mirror or not c.transform.mirrored)
    refined = PetCandidate(refine_outline(*outlines, first, p))
    yield outlined
    start = search.choose_noise(refined)
    fit = yield from subprogress(search.descend(start, 1.0, 1.0), begun, found)
    yield found
    fit = search.choose_noise(fit)
    fit = yield from subprogress(search.descend(fit, 0.3, 0.05), again, fitted)
    yield fitted
    starts = _likely_starts(search, _distinct(first, candidates), fit)
    tried = fitted + (_ASSESSED - fitted) * _share_of_others(len(starts))
    others = yield from subprogress(_other_fits(search, starts, fit), fitted, tried)
    best = min([fit, *others], key=lambda one: one.cost + _mirror_penalty(one, p, search))
    if best is not fit:
        others.append(fit)
        middle = (tried + _ASSESSED) / 2
        best = yield from subprogress(search.descend(best, 0.3, 0.05), tried, middle)
        tried = middle
    error = yield from subprogress(search.uncertainty_um(best), tried, _ASSESSED)
    if p.kind == "rigid":
        # the scale is not fitted: its likely error counts as an error of the position
        scaled = p.model_copy(update={"kind": "similarity"})
        wider = PetSearch(pet, outlines[0], tissue, scaled)
        work = wider.descend(wider.choose_noise(best), 1.0, 1.0)
        rescaled = yield from subprogress(work, _ASSESSED, 1.0)
        error = math.hypot(error, wider.distance_um(best, rescaled))
    assessment = _PetAssessment(best, error, circular, *_margins(search, others, best))
    return _pet_alignment(search, assessment, *outlines, "outline + uptake")


_OUTLINES_S, _ASSESSED = 0.5, 0.98
_EVALUATION_S, _SAMPLE_S, _KNOTS = 2.3e-3, 9.7e-11, 300
"""Times of the outlines, of any evaluation of the cost, and of each of its samples, s; its splines
(count)."""
_MODEL_EVALUATIONS, _OTHERS_EVALUATIONS, _AMBIGUOUS_VOXELS = 13, 170, 900
"""What the model of the slice takes, and other angles on a slice of at most so many voxels, in
evaluations of the cost.  On a larger one fewer of them can win: on one of 5041 voxels none."""


def _shares(pet: Raster, fwhm_um: float) -> list[float]:
    """What is done of a registration (fraction of 1) after the outlines, the noise, the first
    descent, the noise again and the second descent.

    A descent takes as many evaluations on any slice, and an evaluation the longer the more voxels
    there are; outlines take the same time on all.
    """
    step = min(pet.lattice.spacing_um)
    side = (max(pet.lattice.extent_um) + 2.6 * fwhm_um) / min(step / 2, fwhm_um / 12)
    one = _EVALUATION_S + _SAMPLE_S * pet.values.size * _KNOTS * side
    descent = NOISE_EVALUATIONS, DESCENT_EVALUATIONS
    others = _OTHERS_EVALUATIONS * min(1.0, _AMBIGUOUS_VOXELS / pet.values.size) ** 1.5
    evaluations = np.array([*descent, *descent, others + ERROR_EVALUATIONS])
    evaluations[0] += _MODEL_EVALUATIONS
    ends = np.cumsum([_OUTLINES_S, *(one * evaluations)])
    return [float(_ASSESSED * end / ends[-1]) for end in ends[:-1]]


def _share_of_others(n: int) -> float:
    """Share of n other angles (count) in what follows the fit (fraction of 1)."""
    tried = n * DESCENT_EVALUATIONS
    return tried / (tried + ERROR_EVALUATIONS)


align_pet = blocking(iter_align_pet)
"""`iter_align_pet` without progress."""


def _distinct(
    first: CandidateTransform, candidates: Sequence[CandidateTransform]
) -> list[CandidateTransform]:
    """The candidates that differ from the first and from one another by more than 10 degrees."""
    chosen = [first]
    for one in candidates:
        if all(differs(one.transform, other.transform, DISTINCT_DEG / 2) for other in chosen):
            chosen.append(one)
    return chosen[1:]


def _mirror_penalty(candidate: PetCandidate, params: PetAlignParams, search: PetSearch) -> float:
    """The cost by which a mirror image must be better to be taken."""
    if not search.transform(candidate).mirrored:
        return 0.0
    return DECISIVE_DELTA * LIKELIHOOD_TEMPERATURE if params.mirror else math.inf


def _likely_starts(
    search: PetSearch, candidates: Sequence[CandidateTransform], best: PetCandidate
) -> list[PetCandidate]:
    """The other candidates but those that cannot win."""
    starts = []
    for other in candidates:
        assert other.inverse is not None
        start = replace(best, inverse=other.inverse)
        if search.cost(start) - best.cost <= PRUNE_DELTA * LIKELIHOOD_TEMPERATURE:
            starts.append(start)
    return starts


def _other_fits(
    search: PetSearch, starts: Sequence[PetCandidate], best: PetCandidate
) -> Generator[float, None, list[PetCandidate]]:
    """The minimum of the cost near each other start.

    The minima are found roughly first, and exactly, the best first, as long as they can still win
    or decide how much better the best is.
    """

    def rough(start: PetCandidate) -> PetCandidate:
        work = search.descend(start, 1.0, 2 * LIKELIHOOD_TEMPERATURE, max_evaluations=60)
        return run_to_end(work)

    coarse = yield from subprogress(side_by_side(rough, starts), 0.0, 0.5)
    coarse.sort(key=lambda one: one.cost)
    fits: list[PetCandidate] = []
    for n, fit in enumerate(coarse):
        if _can_count(search, fit, fits, best):
            part = 0.5 + n / len(coarse) / 2, 0.5 + (n + 1) / len(coarse) / 2
            fit = yield from subprogress(search.descend(fit, 0.5, 1.0), *part)
        fits.append(fit)
    return fits


def _can_count(
    search: PetSearch, fit: PetCandidate, known: Sequence[PetCandidate], best: PetCandidate
) -> bool:
    """Whether the exact minimum near a rough one could win, or be the runner-up that counts."""
    delta = (fit.cost - best.cost) / LIKELIHOOD_TEMPERATURE
    if delta >= REFINE_DELTA:
        return False
    angle, mirror = _margins(search, known, best)
    if min(angle, mirror) < 0:
        return True  # another one may have won: its margins over the rest are not known
    runner_up = angle
    if search.transform(fit).mirrored != search.transform(best).mirrored:
        runner_up = mirror if search.params.mirror else min(mirror, DECISIVE_DELTA)
    return delta - MAX_GAIN_DELTA <= runner_up


def _margins(
    search: PetSearch, others: Sequence[PetCandidate], best: PetCandidate
) -> tuple[float, float]:
    """By how much the best fit is more likely than another angle, and than the mirror image."""
    chosen = search.transform(best)
    angle, mirror = [math.inf], [math.inf]
    for other in others:
        transform = search.transform(other)
        delta = (other.cost - best.cost) / LIKELIHOOD_TEMPERATURE
        if transform.mirrored != chosen.mirrored:
            mirror.append(delta)
        elif differs(transform, chosen):
            angle.append(delta)
    return min(angle), min(mirror)


@dataclass(frozen=True, slots=True, eq=False)
class _PetAssessment:
    """A fit with its expected error and its margins over other angles and the mirror image.

    The margins are differences of tempered log likelihoods, dimensionless.
    """

    fit: PetCandidate
    error_um: float
    circular: bool = False
    angle_margin: float = math.inf
    mirror_margin: float = math.inf


def _pet_alignment(
    search: PetSearch, assessment: _PetAssessment, moving: Raster, fixed: Raster, method: str
) -> Alignment:
    transform = search.transform(assessment.fit)
    overlap = dice(moving, fixed, transform, pixels=512)
    mirror, params = assessment.mirror_margin, search.params
    margin = assessment.angle_margin
    if params.mirror:
        margin = min(margin, mirror)
    confidence = _confidence(overlap, assessment.error_um, margin)
    if not params.mirror and mirror < DECISIVE_DELTA:
        confidence = min(confidence, 0.3 if mirror < -DECISIVE_DELTA else 0.6)
    warnings = _warnings(assessment, params)
    if not 1 / 1.15 < math.exp(assessment.fit.log_fwhm_ratio) < 1.15:
        warnings.append(
            AlignmentWarning(
                "resolution_mismatch",
                f"the PET looks as if its resolution were {search.fwhm_um(assessment.fit):.0f} µm, "
                f"not {params.fwhm_um:.0f} µm; check the setting",
            )
        )
    warnings += plausibility_warnings(transform, overlap, params)
    return Alignment.of(
        transform,
        overlap,
        confidence,
        warnings,
        method=method,
        position_error_um=assessment.error_um,
    )


def _warnings(assessment: _PetAssessment, params: PetAlignParams) -> list[AlignmentWarning]:
    warnings = []
    if assessment.angle_margin < DECISIVE_DELTA:
        warnings.append(
            AlignmentWarning(
                "angle_ambiguous",
                "another angle explains the PET almost as well; check the alignment or set "
                "landmarks",
            )
        )
    warnings += _mirror_warnings(assessment.mirror_margin, params.mirror)
    error = assessment.error_um
    if error > MAX_TILE_ERROR_UM:
        cause = "; the outline is nearly circular" if assessment.circular else ""
        size = f"about {error:.0f} µm" if math.isfinite(error) else "unknown"
        warnings.append(
            AlignmentWarning(
                "position_error",
                f"the expected registration error is {size}, too large for conclusions about "
                f"single tiles ({MAX_TILE_ERROR_UM:.0f} µm){cause}: set landmarks",
            )
        )
    return warnings


def _mirror_warnings(margin: float, allowed: bool) -> list[AlignmentWarning]:
    if not allowed and margin < -DECISIVE_DELTA:
        return [
            AlignmentWarning(
                "mirror_fits_better",
                "the flipped PET (mirror image) fits better; check which side is up, or allow the "
                "mirror image",
            )
        ]
    if margin >= DECISIVE_DELTA:
        return []
    message = "the mirror image explains the PET almost as well; check which side is up"
    if not allowed:
        message = (
            "the outline does not determine which side is up (the mirror image fits as well); the "
            "orientation of the file is used"
        )
    return [AlignmentWarning("mirror_ambiguous", message)]


def _confidence(overlap: float, error_um: float, margin: float) -> float:
    """0 to 1: fit of the outlines, times accuracy of the position, times margin over others."""
    fits = min(max((overlap - 0.6) / 0.3, 0.0), 1.0)
    return float(fits * position_score(error_um) * -math.expm1(-max(margin, 0.0)))


def iter_assess_pet(
    pet: Raster, tissue: Raster, transform: Transform, params: PetAlignParams, *, method: str
) -> Generator[float, None, Alignment]:
    """Assess a given transform by the likelihood of the slice; yields the fraction done.

    *pet* is (rows, columns) activity or SUV, *tissue* a mask (rows, columns).  ``local_error_um``
    is the distance (root mean square over the tissue, µm) to the most likely transform nearby,
    ``position_error_um`` combines that distance with the error of the latter.
    """
    moving = pet_mask(pet, fraction=params.edge)
    fixed = blurred_outline(tissue, params.fwhm_um, fraction=params.edge)
    search = PetSearch(pet, moving, tissue, params)
    inverse = InverseTransform.of(transform, centroid_um(fixed), 1000.0)
    given = search.choose_noise(PetCandidate(inverse))
    yield 0.1
    nearby = yield from subprogress(search.descend(given, 1.0, 0.05), 0.1, 0.8)
    error = yield from subprogress(search.uncertainty_um(nearby), 0.8, 1.0)
    distance = search.distance_um(given, nearby)
    assessment = _PetAssessment(given, math.hypot(distance, error))
    alignment = _pet_alignment(search, assessment, moving, fixed, method)
    return replace(alignment, local_error_um=distance)
