"""What manual alignment reads of a case before it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from napari_mosaik.core import InputError, Raster, Transform
from napari_mosaik.core.catalogue import REFERENCE
from napari_mosaik.io.case import Case
from napari_mosaik.widgets.align.view import Seen
from napari_mosaik.workflow.given_alignment import (
    Alignment,
    AssessmentInputs,
    LandmarkPairs,
    PetAlignParams,
    current_transform,
    landmark_spacing_um,
    read_assessment_inputs,
)

__all__ = ["Reading", "read_for_hand", "values_judged"]

_OVERVIEW_PX = 700


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """A section with where it lies now and what is shown of it."""

    case: Case
    frame: str
    parts: AssessmentInputs
    seen: Seen
    start: Transform
    marks: LandmarkPairs
    middle_um: tuple[float, float]
    spacing_um: tuple[float, float]
    reference_spacing_um: tuple[float, float]


def read_for_hand(case: Case, frame: str) -> Reading:
    """Read everything; where it was never aligned the middles of the outlines are put together."""
    parts = read_assessment_inputs(case, frame)
    middles = [_middle(mask) for mask in (parts.moving, parts.fixed)]
    start = current_transform(case, frame)
    if start is None:
        shift = (middles[1][0] - middles[0][0], middles[1][1] - middles[0][1])
        start = Transform.similarity(frame, REFERENCE, shift_um=shift)
    entry = case.file.given_alignment(frame)
    marks = LandmarkPairs()
    if entry is not None:
        marks = LandmarkPairs(
            np.array(entry.landmarks_um, float).reshape(-1, 2),
            np.array(entry.reference_landmarks_um, float).reshape(-1, 2),
        )
    fwhm_um = parts.params.fwhm_um if isinstance(parts.params, PetAlignParams) else 0.0
    return Reading(
        case,
        frame,
        parts,
        Seen(frame, parts.moving, parts.fixed, _picture(case, frame), fwhm_um),
        start,
        marks,
        middles[1],
        landmark_spacing_um(case, frame),
        case.spacing_um(REFERENCE),
    )


def values_judged(
    parts: AssessmentInputs, transform: Transform, wanted: Callable[[], bool]
) -> Alignment | str:
    """What the PET's values say of a map, or why they say nothing; given up when not *wanted*."""
    judging = parts.assess_uptake(transform)
    while wanted():
        try:
            next(judging)
        except StopIteration as end:
            return end.value if end.value is not None else "the PET has no values on the section"
        except InputError as error:
            return str(error)
    return "superseded"


def _picture(case: Case, frame: str) -> Raster:
    """The PET, or an overview of the slide."""
    if frame == "pet":
        return case.pet().raster
    with case.slide(frame) as slide:
        return slide.thumbnail(max(slide.lattice.extent_um) / _OVERVIEW_PX)


def _middle(mask: Raster) -> tuple[float, float]:
    rows, cols = np.nonzero(np.asarray(mask.values, bool))
    where = mask.lattice.to_um([[rows.mean(), cols.mean()]])[0]
    return float(where[0]), float(where[1])
