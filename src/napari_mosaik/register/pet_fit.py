"""Lay a PET slice on the section: outlines first, then the model of the slice, with its error."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace

from napari_mosaik.core.angles import DISTINCT_DEG, angle_difference_deg
from napari_mosaik.core.frame import Transform
from napari_mosaik.core.progress import run_to_end, subprogress
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.affine_fit import InverseTransform
from napari_mosaik.register.alignment import Alignment
from napari_mosaik.register.outline_registration import (
    Candidate,
    align_masks,
    centroid_um,
    outline_candidates,
    plain_warnings,
    refine_outline,
)
from napari_mosaik.register.params import PetAlignParams
from napari_mosaik.register.pet_outline import blurred_outline, pet_mask
from napari_mosaik.register.pet_search import LIKELIHOOD_TEMPERATURE, PetSearch, Way
from napari_mosaik.register.quality import dice, position_score

__all__ = ["align_pet", "iter_align_pet", "iter_assess_pet"]

CLAIM_UM = 150.0
"""An error of the position beyond this is too much for a claim about tiles."""
DECISIVE_DELTA = 3.0
"""Difference of (tempered) log likelihoods beyond which one way counts as better than another."""
PRUNE_DELTA, REFINE_DELTA = 150.0, 25.0
"""Differences beyond which a way by outline is left out, and within which it is followed up."""


def align_pet(pet: Raster, tissue: Raster, params: PetAlignParams | None = None) -> Alignment:
    """Lay a PET slice on a section.

    The outlines are laid on one another, with all angles; from the best few ways the map is moved
    to where the slice is most likely (see `register.pet_model`).  The mirror image is looked at
    in any case, and taken only where it is allowed.

    Parameters
    ----------
    pet
        (rows, columns) activity or SUV; NaN counts as 0.
    tissue
        Tissue mask of the section.
    params
        See `PetAlignParams`.

    Returns
    -------
    The map from the PET to the section.  ``position_error_um`` is its expected error, root mean
    square over the tissue; the confidence is below 0.4 where that exceeds 150 µm, where the
    outlines do not fit, or where another angle explains the slice almost as well.

    Raises
    ------
    InputError
        If the slice is uniform or has channels, or the tissue mask is empty.
    """
    return run_to_end(iter_align_pet(pet, tissue, params))


def iter_align_pet(
    pet: Raster, tissue: Raster, params: PetAlignParams | None = None
) -> Generator[float, None, Alignment]:
    """`align_pet` in pieces: yields the fraction done so that a caller can show or cancel."""
    p = params or PetAlignParams()
    outlines = pet_mask(pet, fraction=p.edge), blurred_outline(tissue, p.fwhm_um, fraction=p.edge)
    if not p.use_intensity:
        yield 0.1
        return align_masks(*outlines, p)
    looked = p.model_copy(update={"mirror": True})
    candidates, flat = yield from subprogress(outline_candidates(*outlines, looked), 0.0, 0.4)
    search = PetSearch(pet, outlines[0], tissue, p)
    starts = [c for c in candidates if p.mirror or not c.mirrored]
    first = Way(refine_outline(*outlines, starts[0].pull, p))
    way = yield from subprogress(search.descend(search.choose_noise(first), 1.0, 1.0), 0.3, 0.5)
    way = yield from subprogress(search.descend(search.choose_noise(way), 0.3, 0.05), 0.5, 0.6)
    rivals = yield from subprogress(_rivals(search, _unlike(starts[0], candidates), way), 0.6, 0.85)
    best = min([way, *rivals], key=lambda one: one.cost + _handicap(one, p, search))
    if best is not way:
        rivals.append(way)
        best = yield from subprogress(search.descend(best, 0.3, 0.05), 0.85, 0.9)
    error = yield from subprogress(search.uncertainty_um(best), 0.9, 0.95)
    if p.kind == "rigid":
        wider = PetSearch(pet, outlines[0], tissue, p.model_copy(update={"kind": "similarity"}))
        scaled = yield from subprogress(
            wider.descend(wider.choose_noise(best), 1.0, 1.0), 0.95, 1.0
        )
        error = math.hypot(error, wider.distance_um(best, scaled))
    found = _Found(best, error, flat, *_margins(search, rivals, best))
    return _summary(search, found, *outlines, "outline + uptake")


def _unlike(first: Candidate, candidates: list[Candidate]) -> list[Candidate]:
    """The candidates that differ from the first and from one another by more than a little."""
    taken = [first]
    for one in candidates:
        if all(
            one.mirrored != other.mirrored
            or abs(angle_difference_deg(one.angle_deg, other.angle_deg)) > DISTINCT_DEG / 2
            for other in taken
        ):
            taken.append(one)
    return taken[1:]


def _handicap(way: Way, params: PetAlignParams, search: PetSearch) -> float:
    """What a mirror image must be better by to be taken."""
    if not search.transform(way).mirrored:
        return 0.0
    return DECISIVE_DELTA * LIKELIHOOD_TEMPERATURE if params.mirror else math.inf


def _rivals(
    search: PetSearch, candidates: list[Candidate], best: Way
) -> Generator[float, None, list[Way]]:
    """The least cost near each of the other ways by outline; those that cannot win are left out."""
    found = []
    for n, other in enumerate(candidates):
        rival = replace(best, pull=other.pull)
        share = n / len(candidates), (n + 1) / len(candidates)
        if search.cost(rival) - best.cost > PRUNE_DELTA * LIKELIHOOD_TEMPERATURE:
            continue
        rival = yield from subprogress(
            search.descend(rival, 1.0, 2 * LIKELIHOOD_TEMPERATURE, most=60), *share
        )
        if rival.cost - best.cost < REFINE_DELTA * LIKELIHOOD_TEMPERATURE:
            rival = yield from subprogress(search.descend(rival, 0.5, 1.0), *share)
        found.append(rival)
    return found


def _margins(search: PetSearch, rivals: list[Way], best: Way) -> tuple[float, float]:
    """By how much the best way is more likely than another angle, and than the mirror image."""
    chosen = search.transform(best)
    turned, over = [math.inf], [math.inf]
    for rival in rivals:
        other = search.transform(rival)
        away = abs(angle_difference_deg(other.angle_deg, chosen.angle_deg))
        if other.mirrored != chosen.mirrored:
            over.append((rival.cost - best.cost) / LIKELIHOOD_TEMPERATURE)
        elif away > DISTINCT_DEG:
            turned.append((rival.cost - best.cost) / LIKELIHOOD_TEMPERATURE)
    return min(turned), min(over)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """A way with its expected error (µm) and its margins over other angles and its mirror image."""

    way: Way
    error_um: float
    flat: bool = False
    turned: float = math.inf
    over: float = math.inf


def _summary(
    search: PetSearch, found: _Found, moving: Raster, fixed: Raster, method: str
) -> Alignment:
    transform = search.transform(found.way)
    overlap = dice(moving, fixed, transform, pixels=512)
    margin = min(found.turned, found.over) if search.params.mirror else found.turned
    confidence = confidence_of(overlap, found.error_um, margin)
    said = _doubts(found, search.params)
    if not search.params.mirror and found.over < DECISIVE_DELTA:
        confidence = min(confidence, 0.3 if found.over < -DECISIVE_DELTA else 0.6)
    wider = math.exp(found.way.wider)
    if not 1 / 1.15 < wider < 1.15:
        said.append(
            f"the PET looks as if its resolution were {search.fwhm_um(found.way):.0f} µm, not "
            f"{search.params.fwhm_um:.0f} µm; check the setting"
        )
    return Alignment(
        transform,
        overlap,
        transform.angle_deg,
        transform.scale,
        transform.mirrored,
        confidence,
        (*said, *plain_warnings(transform, overlap, search.params)),
        method=method,
        position_error_um=found.error_um,
    )


def _doubts(found: _Found, params: PetAlignParams) -> list[str]:
    said = []
    if found.turned < DECISIVE_DELTA:
        said.append(
            "another angle explains the PET almost as well; check the alignment or set landmarks"
        )
    if params.mirror and found.over < DECISIVE_DELTA:
        said.append("the mirror image explains the PET almost as well; check which side is up")
    if not params.mirror and found.over < -DECISIVE_DELTA:
        said.append(
            "the PET turned over (mirror image) fits better; check which side is up, or allow it"
        )
    elif not params.mirror and found.over < DECISIVE_DELTA:
        said.append(
            "the outline does not tell which side is up (the mirror image fits as well); the PET "
            "is taken as it lies in its file"
        )
    if found.error_um > CLAIM_UM:
        round_outline = "; the outline is nearly circular" if found.flat else ""
        known = "unknown" if not math.isfinite(found.error_um) else f"about {found.error_um:.0f} µm"
        said.append(
            f"the expected error of the position is {known}, too much for a claim about tiles "
            f"({CLAIM_UM:.0f} µm){round_outline}: set landmarks"
        )
    return said


def confidence_of(overlap: float, error_um: float, apart: float) -> float:
    """0 to 1: how well the outlines fit, how exact the position is, how unlikely another way."""
    fits = min(max((overlap - 0.6) / 0.3, 0.0), 1.0)
    return float(fits * position_score(error_um) * -math.expm1(-max(apart, 0.0)))


def iter_assess_pet(
    pet: Raster, tissue: Raster, transform: Transform, params: PetAlignParams, *, method: str
) -> Generator[float, None, Alignment]:
    """A map that was given (by hand, by landmarks, by a file), judged by the model of the slice.

    ``local_error_um`` is the distance (root mean square over the tissue) to the most likely map
    near it, ``position_error_um`` takes that distance and the error of the latter together.
    """
    moving = pet_mask(pet, fraction=params.edge)
    fixed = blurred_outline(tissue, params.fwhm_um, fraction=params.edge)
    search = PetSearch(pet, moving, tissue, params)
    given = search.choose_noise(Way(InverseTransform.of(transform, centroid_um(fixed), 1000.0)))
    yield 0.1
    near = yield from subprogress(search.descend(given, 1.0, 0.05), 0.1, 0.8)
    error = yield from subprogress(search.uncertainty_um(near), 0.8, 1.0)
    distance = search.distance_um(given, near)
    found = _Found(given, math.hypot(distance, error))
    judged = _summary(search, found, moving, fixed, method)
    return replace(judged, local_error_um=distance)
